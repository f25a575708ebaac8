// Package inet implements AF_INET and AF_INET6 sockets inside one sandbox:
// TCP and UDP over the loopback interface (ip(7), tcp(7), udp(7)). Connections
// are pairs of byte queues in memory; nothing is segmented, lost or repeated,
// so there is no TCP engine.
//
// It reaches no other host: destinations besides the loopback addresses are
// ENETUNREACH. Raw sockets and urgent data are refused.
//
// Lock order: a listener's TCP.mu before a client's TCP.mu, then Stack.mu, then
// stream.mu, then wait queues. UDP.mu comes after Stack.mu.
package inet

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/socket"
	"garrison/sentry/vfs"
)

// A Stack is the loopback network of one network namespace.
type Stack struct {
	mu  sync.Mutex
	tcp portTable
	udp portTable
	// udplite are the ports of UDP-Lite, which is UDP here: nothing is ever
	// corrupted, so how much a checksum covers does not matter.
	udplite portTable
}

// NewStack makes a network with the loopback interface only.
func NewStack() *Stack {
	return &Stack{tcp: make(portTable), udp: make(portTable), udplite: make(portTable)}
}

// A Family makes sockets of AF_INET or AF_INET6.
type Family struct {
	Stack *Stack
	V6    bool
}

// Socket implements socket.Family (inet_create).
func (fam *Family) Socket(ctx vfs.Context, typ, protocol int) (socket.Socket, error) {
	if protocol < 0 || protocol >= abi.IPPROTO_MPTCP+1 {
		return nil, abi.EINVAL
	}
	af := abi.AF_INET
	if fam.V6 {
		af = abi.AF_INET6
	}
	switch typ {
	case abi.SOCK_STREAM:
		if protocol != 0 && protocol != abi.IPPROTO_TCP {
			return nil, abi.EPROTONOSUPPORT
		}
		s := newTCP(ctx, fam.Stack, af)
		return s, nil
	case abi.SOCK_DGRAM:
		switch protocol {
		case 0, abi.IPPROTO_UDP, abi.IPPROTO_UDPLITE:
		case abi.IPPROTO_ICMP, abi.IPPROTO_ICMPV6:
			return nil, abi.EACCES // net.ipv4.ping_group_range is empty
		default:
			return nil, abi.EPROTONOSUPPORT
		}
		return newUDP(ctx, fam.Stack, af, protocol), nil
	case abi.SOCK_RAW:
		if !ctx.Cred().Can(abi.CAP_NET_RAW) {
			return nil, abi.EPERM
		}
		return nil, abi.EPROTONOSUPPORT
	}
	return nil, abi.ESOCKTNOSUPPORT
}

// Pair implements socket.Family.
func (fam *Family) Pair(ctx vfs.Context, typ, protocol int) (socket.Socket, socket.Socket, error) {
	if _, err := fam.Socket(ctx, typ, protocol); err != nil {
		return nil, nil, err
	}
	return nil, nil, abi.EOPNOTSUPP
}

// endpoint is what TCP and UDP sockets have in common.
type endpoint struct {
	socket.Base
	stack *Stack
	opts  optionStore

	// Guarded by Stack.mu.
	v6only    bool
	local     netip.AddrPort // addresses are unmapped; port 0: not bound
	remote    netip.AddrPort // port 0: not connected
	listening bool
	inTable   uint16 // port that the table has us under; 0: none
	uid       cred.UID
	self      any // the *TCP or *UDP
}

func (e *endpoint) init(ctx vfs.Context, st *Stack, af, typ, proto int, self any) {
	e.Base.Init(ctx, af, typ, proto)
	e.stack, e.self = st, self
	if ctx != nil {
		e.uid = ctx.Cred().EUID
	}
}

func (e *endpoint) v6() bool { return e.Family == abi.AF_INET6 }

func (e *endpoint) any() netip.Addr {
	if e.v6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// portTable holds the sockets that are bound to each port.
type portTable map[uint16][]*endpoint

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// parse reads a socket address for a socket of family af; AF_UNSPEC is the
// caller's business.
func (e *endpoint) parse(b []byte) (netip.AddrPort, error) {
	if len(b) < 2 {
		return netip.AddrPort{}, abi.EINVAL
	}
	fam := int(binary.LittleEndian.Uint16(b))
	if fam == abi.AF_INET && (!e.v6() || e.Type == abi.SOCK_DGRAM) {
		if len(b) < abi.SizeofSockIn {
			return netip.AddrPort{}, abi.EINVAL
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), nil
	}
	if e.v6() {
		if len(b) < 24 {
			return netip.AddrPort{}, abi.EINVAL
		}
		if fam != abi.AF_INET6 {
			return netip.AddrPort{}, abi.EAFNOSUPPORT
		}
		a := netip.AddrFrom16([16]byte(b[8:24]))
		if a.Is4In6() {
			if e.v6only {
				return netip.AddrPort{}, abi.ENETUNREACH
			}
			a = a.Unmap()
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[2:])), nil
	}
	if len(b) < abi.SizeofSockIn {
		return netip.AddrPort{}, abi.EINVAL
	}
	return netip.AddrPort{}, abi.EAFNOSUPPORT
}

// appendAddr appends a as a sockaddr of the socket's family.
func (e *endpoint) appendAddr(b []byte, a netip.AddrPort) []byte {
	if !e.v6() {
		var v [abi.SizeofSockIn]byte
		binary.LittleEndian.PutUint16(v[:], abi.AF_INET)
		binary.BigEndian.PutUint16(v[2:], a.Port())
		if a.Addr().Is4() {
			ip := a.Addr().As4()
			copy(v[4:], ip[:])
		}
		return append(b, v[:]...)
	}
	var v [abi.SizeofSockIn6]byte
	binary.LittleEndian.PutUint16(v[:], abi.AF_INET6)
	binary.BigEndian.PutUint16(v[2:], a.Port())
	if a.Addr().IsValid() {
		ip := a.Addr().As16()
		copy(v[8:], ip[:])
	}
	return append(b, v[:]...)
}

// isLocal reports whether a is an address of the loopback interface.
func isLocal(a netip.Addr) bool { return a.IsLoopback() }

// overlap reports whether sockets bound to a and b hear the same packets.
func overlap(a netip.Addr, aOnly bool, b netip.Addr, bOnly bool) bool {
	if a == b {
		return true
	}
	covers := func(x netip.Addr, only bool, y netip.Addr) bool {
		return x.IsUnspecified() && (x.Is4() == y.Is4() || x.Is6() && !only)
	}
	return covers(a, aOnly, b) || covers(b, bOnly, a)
}

// conflict reports whether e may not be bound to addr and port. Stack.mu must
// be held.
func (t portTable) conflict(e *endpoint, addr netip.Addr, port uint16) bool {
	mine := e.Opts()
	for _, o := range t[port] {
		if o == e || !overlap(addr, e.v6only, o.local.Addr(), o.v6only) {
			continue
		}
		theirs := o.Opts()
		if mine.ReuseAddr && theirs.ReuseAddr && !o.listening || mine.ReusePort && theirs.ReusePort && o.uid == e.uid {
			continue
		}
		return true
	}
	return false
}

// The range of ephemeral ports (net.ipv4.ip_local_port_range).
const (
	firstPort = 32768
	lastPort  = 60999
)

// ephemeral finds a free port. Stack.mu must be held.
func (t portTable) ephemeral(e *endpoint, addr netip.Addr) (uint16, bool) {
	const n = lastPort - firstPort + 1
	start := rand.IntN(n)
	for i := range n {
		p := uint16(firstPort + (start+i)%n)
		if len(t[p]) == 0 {
			return p, true
		}
	}
	for i := range n {
		if p := uint16(firstPort + (start+i)%n); !t.conflict(e, addr, p) {
			return p, true
		}
	}
	return 0, false
}

// add binds e. Stack.mu must be held.
func (t portTable) add(e *endpoint, a netip.AddrPort) {
	e.local, e.inTable = a, a.Port()
	t[a.Port()] = append(t[a.Port()], e)
}

// remove unbinds e. Stack.mu must be held.
func (t portTable) remove(e *endpoint) {
	if e.inTable == 0 {
		return
	}
	l := t[e.inTable]
	for i, o := range l {
		if o == e {
			l[i] = l[len(l)-1]
			l[len(l)-1] = nil
			l = l[:len(l)-1]
			break
		}
	}
	if len(l) == 0 {
		delete(t, e.inTable)
	} else {
		t[e.inTable] = l
	}
	e.inTable = 0
}

// bind is inet_bind for either protocol.
func (e *endpoint) bind(ctx vfs.Context, t portTable, b []byte) error {
	if len(b) >= abi.SizeofSockIn && !e.v6() && binary.LittleEndian.Uint16(b) == abi.AF_UNSPEC &&
		binary.LittleEndian.Uint32(b[4:]) == 0 {
		b = append([]byte{abi.AF_INET, 0}, b[2:]...) // old programs do so
	}
	if e.v6() && len(b) >= 2 && binary.LittleEndian.Uint16(b) != abi.AF_INET6 {
		return abi.EAFNOSUPPORT
	}
	e.stack.mu.Lock()
	defer e.stack.mu.Unlock()
	a, err := e.parse(b)
	if err == abi.ENETUNREACH {
		err = abi.EINVAL
	}
	if err != nil {
		return err
	}
	ip := a.Addr()
	if !ip.IsUnspecified() && !isLocal(ip) && !(ip.IsMulticast() && e.Type == abi.SOCK_DGRAM) &&
		e.opts.get(abi.IPPROTO_IP, abi.IP_FREEBIND, 0) == 0 {
		return abi.EADDRNOTAVAIL
	}
	if p := a.Port(); p != 0 && p < 1024 && !ctx.Cred().Can(abi.CAP_NET_BIND_SERVICE) {
		return abi.EACCES
	}
	if e.local.Port() != 0 {
		return abi.EINVAL
	}
	return e.bindLocked(t, a)
}

// bindLocked binds e to a, or to an ephemeral port. Stack.mu must be held.
func (e *endpoint) bindLocked(t portTable, a netip.AddrPort) error {
	if a.Port() == 0 {
		p, ok := t.ephemeral(e, a.Addr())
		if !ok {
			return abi.EADDRINUSE
		}
		a = netip.AddrPortFrom(a.Addr(), p)
	} else if t.conflict(e, a.Addr(), a.Port()) {
		return abi.EADDRINUSE
	}
	t.add(e, a)
	return nil
}

// route gives the destination that a names, and the source address to it.
func (e *endpoint) route(a netip.Addr) (dst, src netip.Addr, err error) {
	switch {
	case a.Is4() && a.IsUnspecified():
		a = loopback4
	case a.Is6() && a.IsUnspecified():
		a = loopback6
		if e.local.Addr().Is4() && e.local.Port() != 0 {
			a = loopback4
		}
	}
	if !isLocal(a) {
		return a, src, abi.ENETUNREACH
	}
	src = loopback4
	if a.Is6() {
		src = loopback6
	}
	if l := e.local.Addr(); e.local.Port() != 0 && !l.IsUnspecified() {
		if l.Is4() != a.Is4() {
			return a, src, abi.ENETUNREACH
		}
		src = l
	}
	return a, src, nil
}

// Name implements socket.Socket.
func (e *endpoint) Name(_ vfs.Context, peer bool) ([]byte, error) {
	e.stack.mu.Lock()
	defer e.stack.mu.Unlock()
	if peer {
		if e.remote.Port() == 0 {
			return nil, abi.ENOTCONN
		}
		return e.appendAddr(nil, e.remote), nil
	}
	a := e.local
	if !a.Addr().IsValid() {
		a = netip.AddrPortFrom(e.any(), a.Port())
	}
	return e.appendAddr(nil, a), nil
}

// score says how well e hears packets from src to dst: negative not at all.
// Stack.mu must be held.
func (e *endpoint) score(dst, src netip.AddrPort) int {
	s := 0
	l := e.local.Addr()
	switch {
	case l == dst.Addr():
		s = 4
	case l.Is4() && l.IsUnspecified() && dst.Addr().Is4():
		s = 2
	case l.Is6() && l.IsUnspecified() && (dst.Addr().Is6() || !e.v6only):
		s = 1
		if dst.Addr().Is6() {
			s = 2
		}
	default:
		return -1
	}
	if e.remote.Port() != 0 {
		if e.remote != src {
			return -1
		}
		s += 8
	}
	return s
}
