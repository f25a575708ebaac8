package netlink

import (
	"bytes"
	"encoding/binary"

	"garrison/abi"
	"garrison/sentry/vfs"
)

// Attribute types that the headers give as enumerators (uapi/linux/if_link.h,
// if_addr.h, rtnetlink.h).
const (
	iflaAddress, iflaBroadcast, iflaIfname, iflaMTU, iflaQdisc, iflaStats = 1, 2, 3, 4, 6, 7
	iflaTxqlen, iflaOperstate, iflaLinkmode, iflaStats64, iflaGroup       = 13, 16, 17, 23, 27
	iflaPromiscuity, iflaNumTxQueues, iflaNumRxQueues, iflaCarrier        = 30, 31, 32, 33
	iflaMinMTU, iflaMaxMTU, iflaAltIfname                                 = 50, 51, 53

	ifaAddress, ifaLocal, ifaLabel, ifaCacheinfo, ifaFlags = 1, 2, 3, 6, 8

	rtaDst, rtaOif, rtaPrefsrc, rtaTable = 1, 4, 7, 15

	rtTableLocal, rtprotKernel, rtScopeHost, rtScopeLink = 255, 2, 254, 253
	rtnLocal, rtnBroadcast                               = 2, 3
)

const (
	loIndex    = 1
	arphrdLoop = 772
	headerLen  = 16
	lowerUp    = 1 << 16 // IFF_LOWER_UP
)

// A request is one message from the guest.
type request struct {
	typ, flags uint16
	seq, port  uint32
	body       []byte
	raw        []byte
}

// requests answers the messages of one datagram (netlink_rcv_skb).
func (s *Socket) requests(ctx vfs.Context, b []byte) {
	le := binary.LittleEndian
	for len(b) >= headerLen {
		n := le.Uint32(b)
		if n < headerLen || uint64(n) > uint64(len(b)) {
			return
		}
		r := request{typ: le.Uint16(b[4:]), flags: le.Uint16(b[6:]), seq: le.Uint32(b[8:]), port: s.port, body: b[headerLen:n], raw: b[:n]}
		b = b[min((int(n)+3)&^3, len(b)):]
		if r.flags&abi.NLM_F_REQUEST == 0 || r.typ < abi.NLMSG_MIN_TYPE {
			if r.flags&abi.NLM_F_ACK != 0 {
				s.acknowledge(&r, 0)
			}
			continue
		}
		answered, err := s.route(ctx, &r)
		if err != 0 || r.flags&abi.NLM_F_ACK != 0 && !answered {
			s.acknowledge(&r, err)
		}
	}
}

// acknowledge sends an NLMSG_ERROR, which is an acknowledgement if e is 0.
func (s *Socket) acknowledge(r *request, e abi.Errno) {
	w := writer{r: r}
	at := w.begin(abi.NLMSG_ERROR, 0)
	w.u32(uint32(-int32(e)))
	if e == 0 {
		w.b = append(w.b, r.raw[:headerLen]...)
	} else {
		w.b = append(w.b, r.raw...)
	}
	w.end(at)
	s.deliver(w.b)
}

// writer lays messages out.
type writer struct {
	r *request
	b []byte
}

func (w *writer) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }

func (w *writer) begin(typ uint16, flags uint16) int {
	at := len(w.b)
	w.u32(0)
	w.b = binary.LittleEndian.AppendUint16(w.b, typ)
	w.b = binary.LittleEndian.AppendUint16(w.b, flags)
	w.u32(w.r.seq)
	w.u32(w.r.port)
	return at
}

func (w *writer) end(at int) {
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at))
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) attr(typ uint16, data []byte) {
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(4+len(data)))
	w.b = binary.LittleEndian.AppendUint16(w.b, typ)
	w.b = append(w.b, data...)
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) attr32(typ uint16, v uint32) { w.attr(typ, binary.LittleEndian.AppendUint32(nil, v)) }

// route answers one rtnetlink request. answered says that a dump was sent, or an
// acknowledgement.
func (s *Socket) route(ctx vfs.Context, r *request) (answered bool, e abi.Errno) {
	dump := r.flags&abi.NLM_F_DUMP == abi.NLM_F_DUMP
	family := uint8(0)
	if len(r.body) > 0 {
		family = r.body[0]
	}
	switch r.typ {
	case abi.RTM_GETLINK:
		if dump {
			s.dump(r, abi.RTM_NEWLINK, s.fam.net.Links, 0)
			return true, 0
		}
		l := s.fam.net.link(r.body)
		if l == nil {
			return false, abi.ENODEV
		}
		w := writer{r: r}
		w.message(abi.RTM_NEWLINK, 0, l)
		s.deliver(w.b)
		return false, 0
	case abi.RTM_GETADDR:
		if !dump {
			return false, abi.EOPNOTSUPP
		}
		s.dump(r, abi.RTM_NEWADDR, s.fam.net.Addrs, family)
		return true, 0
	case abi.RTM_GETROUTE:
		if !dump {
			return false, s.oneRoute(r, family)
		}
		s.dump(r, abi.RTM_NEWROUTE, s.fam.net.Routes, family)
		return true, 0
	case abi.RTM_GETRULE, abi.RTM_GETNEIGH, abi.RTM_GETQDISC, abi.RTM_GETADDRLABEL, abi.RTM_GETNEIGHTBL, abi.RTM_GETNETCONF,
		abi.RTM_GETTCLASS, abi.RTM_GETTFILTER, abi.RTM_GETMULTICAST, abi.RTM_GETANYCAST, abi.RTM_GETSTATS, abi.RTM_GETNSID,
		abi.RTM_GETNEXTHOP:
		if !dump {
			return false, abi.EOPNOTSUPP
		}
		s.dump(r, 0, nil, 0)
		return true, 0
	}
	if r.typ > abi.RTM_MAX {
		return false, abi.EOPNOTSUPP
	}
	if r.typ&3 == 2 { // an unknown GET
		return false, abi.EOPNOTSUPP
	}
	return false, abi.EPERM // NEW, DEL and SET: the network is fixed
}

var loopback6 = [16]byte{15: 1}

// maxDatagram bounds the datagrams of a dump, as NLMSG_GOODSIZE does.
const maxDatagram = 3776

// dump sends a multi-part answer, of the bodies of one address family unless
// that is 0, and its end.
func (s *Socket) dump(r *request, typ uint16, bodies [][]byte, family uint8) {
	w := writer{r: r}
	for _, b := range bodies {
		if family != 0 && b[0] != family {
			continue
		}
		if len(w.b) > 0 && len(w.b)+headerLen+len(b) > maxDatagram {
			s.deliver(w.b)
			w.b = nil
		}
		w.message(typ, abi.NLM_F_MULTI, b)
	}
	if len(w.b) > 0 {
		s.deliver(w.b)
	}
	w = writer{r: r}
	w.message(abi.NLMSG_DONE, abi.NLM_F_MULTI, make([]byte, 4))
	s.deliver(w.b)
}

// message appends a whole message.
func (w *writer) message(typ, flags uint16, body []byte) {
	at := w.begin(typ, flags)
	w.b = append(w.b, body...)
	w.end(at)
}

// attribute finds an attribute of type typ in b.
func attribute(b []byte, typ uint16) []byte {
	le := binary.LittleEndian
	for len(b) >= 4 {
		n := int(le.Uint16(b))
		if n < 4 || n > len(b) {
			return nil
		}
		if le.Uint16(b[2:])&^(3<<14) == typ {
			return b[4:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// link finds the interface that an ifinfomsg asks for, by index or by name.
func (n *Network) link(b []byte) []byte {
	le := binary.LittleEndian
	if len(b) < 16 {
		return nil
	}
	index := le.Uint32(b[4:])
	name := attribute(b[16:], iflaIfname)
	if name == nil {
		name = attribute(b[16:], iflaAltIfname)
	}
	name = bytes.TrimRight(name, "\x00")
	for _, l := range n.Links {
		if index != 0 && le.Uint32(l[4:]) == index ||
			index == 0 && len(name) > 0 && bytes.Equal(bytes.TrimRight(attribute(l[16:], iflaIfname), "\x00"), name) {
			return l
		}
	}
	return nil
}

// link describes the loopback interface (rtnl_fill_ifinfo).
func link(w *writer) {
	w.b = append(w.b, 0, 0)
	w.b = binary.LittleEndian.AppendUint16(w.b, arphrdLoop)
	w.u32(loIndex)
	w.u32(abi.IFF_UP | abi.IFF_LOOPBACK | abi.IFF_RUNNING | lowerUp)
	w.u32(0)
	w.attr(iflaIfname, []byte("lo\x00"))
	w.attr32(iflaTxqlen, 1000)
	w.attr(iflaOperstate, []byte{0})
	w.attr(iflaLinkmode, []byte{0})
	w.attr32(iflaMTU, 65536)
	w.attr32(iflaMinMTU, 0)
	w.attr32(iflaMaxMTU, 0)
	w.attr32(iflaGroup, 0)
	w.attr32(iflaPromiscuity, 0)
	w.attr32(iflaNumTxQueues, 1)
	w.attr32(iflaNumRxQueues, 1)
	w.attr(iflaCarrier, []byte{1})
	w.attr(iflaQdisc, []byte("noqueue\x00"))
	w.attr(iflaAddress, make([]byte, 6))
	w.attr(iflaBroadcast, make([]byte, 6))
	w.attr(iflaStats64, make([]byte, 25*8))
	w.attr(iflaStats, make([]byte, 24*4))
}

func address(w *writer, family, prefix uint8, ip []byte) {
	w.b = append(w.b, family, prefix, abi.IFA_F_PERMANENT, rtScopeHost)
	w.u32(loIndex)
	w.attr(ifaAddress, ip)
	if family == abi.AF_INET {
		w.attr(ifaLocal, ip)
		w.attr(ifaLabel, []byte("lo\x00"))
	}
	w.attr32(ifaFlags, abi.IFA_F_PERMANENT)
	cache := make([]byte, 16)
	binary.LittleEndian.PutUint64(cache, ^uint64(0)) // preferred and valid for ever
	w.attr(ifaCacheinfo, cache)
}

func route(w *writer, family, prefix uint8, dst, src []byte, typ, scope uint8) {
	w.b = append(w.b, family, prefix, 0, 0, rtTableLocal, rtprotKernel, scope, typ)
	w.u32(0)
	w.attr32(rtaTable, rtTableLocal)
	w.attr(rtaDst, dst)
	if src != nil {
		w.attr(rtaPrefsrc, src)
	}
	w.attr32(rtaOif, loIndex)
}

// oneRoute answers "ip route get" with the longest prefix that holds the
// address.
func (s *Socket) oneRoute(r *request, family uint8) abi.Errno {
	if len(r.body) < 12 {
		return abi.EINVAL
	}
	dst := attribute(r.body[12:], rtaDst)
	best := -1
	for i, b := range s.fam.net.Routes {
		if b[0] != family || !holds(attribute(b[12:], rtaDst), int(b[1]), dst) || b[7] == rtnBroadcast {
			continue
		}
		if best < 0 || b[1] > s.fam.net.Routes[best][1] {
			best = i
		}
	}
	if best < 0 || dst == nil {
		return abi.ENETUNREACH
	}
	w := writer{r: r}
	w.message(abi.RTM_NEWROUTE, 0, s.fam.net.Routes[best])
	s.deliver(w.b)
	return 0
}

// holds reports whether the first bits of net and ip are the same.
func holds(net []byte, bits int, ip []byte) bool {
	if bits == 0 {
		return len(ip) > 0
	}
	if len(net) != len(ip) || bits > 8*len(ip) {
		return false
	}
	for i := range bits {
		if (net[i/8]^ip[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}
