package boot

import (
	"garrison/abi"
	"garrison/runsc/config"
	"garrison/sentry/socket"
	"garrison/sentry/socket/hostinet"
	"garrison/sentry/socket/inet"
	"garrison/sentry/socket/netlink"
	"garrison/sentry/socket/unix"
)

// network is the guest's sockets, and the files in /proc/net that list them.
type network struct {
	families socket.Families
	files    map[string]func() []byte
}

// newNetwork makes a network with only a loopback interface inside the Sentry,
// or one that is the host's. It is called while the host is in reach.
func newNetwork(b *config.Boot) (*network, error) {
	local := unix.New()
	n := &network{
		families: socket.Families{abi.AF_UNIX: local, abi.AF_NETLINK: netlink.New(netlink.Loopback())},
		files:    map[string]func() []byte{"unix": local.NS.ProcNetUnix},
	}
	if b.Config.Network == "host" {
		p, err := hostinet.NewPoller()
		if err != nil {
			return nil, err
		}
		ifs, err := netlink.Host()
		if err != nil {
			return nil, err
		}
		n.families[abi.AF_NETLINK] = netlink.New(ifs)
		n.families[abi.AF_INET] = &hostinet.Family{Poller: p}
		n.families[abi.AF_INET6] = &hostinet.Family{Poller: p, V6: true}
		return n, nil
	}
	lo := inet.NewStack()
	n.families[abi.AF_INET] = &inet.Family{Stack: lo}
	n.families[abi.AF_INET6] = &inet.Family{Stack: lo, V6: true}
	for name, f := range map[string]func() []byte{
		"tcp": lo.ProcTCP, "tcp6": lo.ProcTCP6, "udp": lo.ProcUDP, "udp6": lo.ProcUDP6,
		"udplite": lo.ProcUDPLite, "udplite6": lo.ProcUDPLite6,
	} {
		n.files[name] = f
	}
	return n, nil
}
