package netlink

import (
	"fmt"
	"syscall"

	"garrison/abi"
)

// A Network is what route dumps show: the bodies of RTM_NEWLINK, RTM_NEWADDR
// and RTM_NEWROUTE messages.
type Network struct {
	Links, Addrs, Routes [][]byte
}

// Loopback is the network of a sandbox that has none: the loopback interface.
func Loopback() Network {
	body := func(fill func(w *writer)) []byte {
		w := writer{r: &request{}}
		fill(&w)
		return w.b
	}
	lo4, lo6 := []byte{127, 0, 0, 1}, loopback6[:]
	return Network{
		Links: [][]byte{body(link)},
		Addrs: [][]byte{
			body(func(w *writer) { address(w, abi.AF_INET, 8, lo4) }),
			body(func(w *writer) { address(w, abi.AF_INET6, 128, lo6) }),
		},
		Routes: [][]byte{
			body(func(w *writer) { route(w, abi.AF_INET, 8, []byte{127, 0, 0, 0}, lo4, rtnLocal, rtScopeHost) }),
			body(func(w *writer) { route(w, abi.AF_INET, 32, lo4, lo4, rtnLocal, rtScopeHost) }),
			body(func(w *writer) { route(w, abi.AF_INET, 32, []byte{127, 255, 255, 255}, lo4, rtnBroadcast, rtScopeLink) }),
			body(func(w *writer) { route(w, abi.AF_INET6, 128, lo6, nil, rtnLocal, 0) }),
		},
	}
}

// Host is the network of the host as it is now (--network=host). Later changes
// are not seen: the Sentry may not ask again.
func Host() (Network, error) {
	var n Network
	for _, d := range []struct {
		get, answer uint16
		min         int
		to          *[][]byte
	}{
		{abi.RTM_GETLINK, abi.RTM_NEWLINK, 16, &n.Links},
		{abi.RTM_GETADDR, abi.RTM_NEWADDR, 8, &n.Addrs},
		{abi.RTM_GETROUTE, abi.RTM_NEWROUTE, 12, &n.Routes},
	} {
		b, err := syscall.NetlinkRIB(int(d.get), syscall.AF_UNSPEC)
		if err != nil {
			return n, fmt.Errorf("ask the host for its network interfaces and routes: %w", err)
		}
		ms, err := syscall.ParseNetlinkMessage(b)
		if err != nil {
			return n, fmt.Errorf("read the host's network interfaces and routes: %w", err)
		}
		for _, m := range ms {
			if m.Header.Type == d.answer && len(m.Data) >= d.min {
				*d.to = append(*d.to, append([]byte(nil), m.Data...))
			}
		}
	}
	return n, nil
}
