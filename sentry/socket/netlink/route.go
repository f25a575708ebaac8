package netlink

import (
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
			s.dump(r, func(w *writer, flags uint16) { link(w, flags) })
			return true, 0
		}
		if !namesLo(r.body) {
			return false, abi.ENODEV
		}
		w := writer{r: r}
		link(&w, 0)
		s.deliver(w.b)
		return false, 0
	case abi.RTM_GETADDR:
		if !dump {
			return false, abi.EOPNOTSUPP
		}
		s.dump(r, func(w *writer, flags uint16) {
			if family == abi.AF_UNSPEC || family == abi.AF_INET {
				address(w, flags, abi.AF_INET, 8, []byte{127, 0, 0, 1})
			}
			if family == abi.AF_UNSPEC || family == abi.AF_INET6 {
				address(w, flags, abi.AF_INET6, 128, loopback6[:])
			}
		})
		return true, 0
	case abi.RTM_GETROUTE:
		if !dump {
			return false, s.oneRoute(r, family)
		}
		s.dump(r, func(w *writer, flags uint16) {
			if family == abi.AF_UNSPEC || family == abi.AF_INET {
				route(w, flags, abi.AF_INET, 8, []byte{127, 0, 0, 0}, []byte{127, 0, 0, 1}, rtnLocal, rtScopeHost)
				route(w, flags, abi.AF_INET, 32, []byte{127, 0, 0, 1}, []byte{127, 0, 0, 1}, rtnLocal, rtScopeHost)
				route(w, flags, abi.AF_INET, 32, []byte{127, 255, 255, 255}, []byte{127, 0, 0, 1}, rtnBroadcast, rtScopeLink)
			}
			if family == abi.AF_UNSPEC || family == abi.AF_INET6 {
				route(w, flags, abi.AF_INET6, 128, loopback6[:], nil, rtnLocal, 0)
			}
		})
		return true, 0
	case abi.RTM_GETRULE, abi.RTM_GETNEIGH, abi.RTM_GETQDISC, abi.RTM_GETADDRLABEL, abi.RTM_GETNEIGHTBL, abi.RTM_GETNETCONF,
		abi.RTM_GETTCLASS, abi.RTM_GETTFILTER, abi.RTM_GETMULTICAST, abi.RTM_GETANYCAST, abi.RTM_GETSTATS, abi.RTM_GETNSID,
		abi.RTM_GETNEXTHOP:
		if !dump {
			return false, abi.EOPNOTSUPP
		}
		s.dump(r, func(*writer, uint16) {})
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

// dump sends a multi-part answer and its end, each a datagram.
func (s *Socket) dump(r *request, fill func(w *writer, flags uint16)) {
	w := writer{r: r}
	fill(&w, abi.NLM_F_MULTI)
	if len(w.b) > 0 {
		s.deliver(w.b)
	}
	w = writer{r: r}
	at := w.begin(abi.NLMSG_DONE, abi.NLM_F_MULTI)
	w.u32(0)
	w.end(at)
	s.deliver(w.b)
}

// namesLo reports whether an ifinfomsg asks for the loopback interface, by
// index or by name.
func namesLo(b []byte) bool {
	le := binary.LittleEndian
	if len(b) < 16 {
		return false
	}
	if i := le.Uint32(b[4:]); i != 0 {
		return i == loIndex
	}
	for b = b[16:]; len(b) >= 4; {
		n := int(le.Uint16(b))
		if n < 4 || n > len(b) {
			return false
		}
		if t := le.Uint16(b[2:]) &^ (3 << 14); t == iflaIfname || t == iflaAltIfname {
			name := b[4:n]
			return string(name) == "lo" || string(name) == "lo\x00"
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return false
}

// link describes the loopback interface (rtnl_fill_ifinfo).
func link(w *writer, flags uint16) {
	at := w.begin(abi.RTM_NEWLINK, flags)
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
	w.end(at)
}

func address(w *writer, flags uint16, family, prefix uint8, ip []byte) {
	at := w.begin(abi.RTM_NEWADDR, flags)
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
	w.end(at)
}

func route(w *writer, flags uint16, family, prefix uint8, dst, src []byte, typ, scope uint8) {
	at := w.begin(abi.RTM_NEWROUTE, flags)
	w.b = append(w.b, family, prefix, 0, 0, rtTableLocal, rtprotKernel, scope, typ)
	w.u32(0)
	w.attr32(rtaTable, rtTableLocal)
	w.attr(rtaDst, dst)
	if src != nil {
		w.attr(rtaPrefsrc, src)
	}
	w.attr32(rtaOif, loIndex)
	w.end(at)
}

// oneRoute answers "ip route get".
func (s *Socket) oneRoute(r *request, family uint8) abi.Errno {
	le := binary.LittleEndian
	if len(r.body) < 12 {
		return abi.EINVAL
	}
	var dst []byte
	for b := r.body[12:]; len(b) >= 4; {
		n := int(le.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		if le.Uint16(b[2:]) == rtaDst {
			dst = b[4:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	w := writer{r: r}
	switch {
	case family == abi.AF_INET && len(dst) == 4 && dst[0] == 127:
		route(&w, 0, family, 32, dst, []byte{127, 0, 0, 1}, rtnLocal, 0)
	case family == abi.AF_INET6 && string(dst) == string(loopback6[:]):
		route(&w, 0, family, 128, dst, loopback6[:], rtnLocal, 0)
	default:
		return abi.ENETUNREACH
	}
	s.deliver(w.b)
	return 0
}
