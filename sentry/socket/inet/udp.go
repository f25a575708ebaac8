package inet

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

func randN(n int) int { return rand.IntN(n) }

// maxDatagram is the largest UDP payload.
const maxDatagram = 65507

// A datagram is one in a receive queue.
type datagram struct {
	next     *datagram
	block    *socket.Block // nil if empty
	from, to netip.AddrPort
	atNs     int64
	charge   int
	ttl, tos uint8 // hop limit and traffic class
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

func (d *datagram) len() int {
	if d.block == nil {
		return 0
	}
	return d.block.Len()
}

func (d *datagram) free() {
	if d.block != nil {
		d.block.Free()
	}
	*d = datagram{}
	datagrams.Put(d)
}

// A UDP is a datagram socket.
type UDP struct {
	endpoint
	ports portTable
	shut  atomic.Uint32

	mu         sync.Mutex
	head, tail *datagram
	bytes      int // charged
	closed     bool
}

func newUDP(ctx vfs.Context, st *Stack, af, proto int) *UDP {
	s := &UDP{ports: st.udp}
	if proto == abi.IPPROTO_UDPLITE {
		s.ports = st.udplite
	} else {
		proto = abi.IPPROTO_UDP
	}
	s.init(ctx, st, af, abi.SOCK_DGRAM, proto, s)
	return s
}

// Read implements vfs.FileOps.
func (s *UDP) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	return socket.ReadMsg(s, ctx, f, dst, fl)
}

// Write implements vfs.FileOps.
func (s *UDP) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	return socket.WriteMsg(s, ctx, f, src, fl)
}

// Bind implements socket.Socket.
func (s *UDP) Bind(ctx vfs.Context, addr []byte) error { return s.bind(ctx, s.ports, addr) }

// Listen implements socket.Socket.
func (s *UDP) Listen(vfs.Context, int) error { return abi.EOPNOTSUPP }

// Accept implements socket.Socket.
func (s *UDP) Accept(vfs.Context, bool) (socket.Socket, error) { return nil, abi.EOPNOTSUPP }

// Connect implements socket.Socket: it sets the default destination, and the
// only source.
func (s *UDP) Connect(_ vfs.Context, addr []byte, _ bool) error {
	if len(addr) < 2 {
		return abi.EINVAL
	}
	st := s.stack
	st.mu.Lock()
	defer st.mu.Unlock()
	if binary.LittleEndian.Uint16(addr) == abi.AF_UNSPEC {
		s.remote = netip.AddrPort{}
		if s.opts.autoBound.Load() {
			s.ports.remove(&s.endpoint)
			s.local = netip.AddrPort{}
			s.opts.autoBound.Store(false)
		}
		return nil
	}
	a, err := s.parse(addr)
	if err != nil {
		return err
	}
	dst, src, err := s.route(a.Addr())
	if err != nil {
		return err
	}
	if s.local.Port() == 0 {
		if err := s.bindLocked(s.ports, netip.AddrPortFrom(src, 0)); err != nil {
			return abi.EAGAIN
		}
		s.opts.autoBound.Store(true)
	} else if s.local.Addr().IsUnspecified() {
		s.local = netip.AddrPortFrom(src, s.local.Port())
	}
	s.remote = netip.AddrPortFrom(dst, a.Port())
	return nil
}

// Shutdown implements socket.Socket.
func (s *UDP) Shutdown(_ vfs.Context, how int) error {
	if how < abi.SHUT_RD || how > abi.SHUT_RDWR {
		return abi.EINVAL
	}
	s.stack.mu.Lock()
	connected := s.remote.Port() != 0
	s.stack.mu.Unlock()
	s.shut.Or(uint32(how + 1))
	s.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvRdhup | socket.EvHup)
	if !connected {
		return abi.ENOTCONN // though it takes effect
	}
	return nil
}

// Release implements vfs.FileOps.
func (s *UDP) Release(*vfs.File) {
	s.stack.mu.Lock()
	s.ports.remove(&s.endpoint)
	s.stack.mu.Unlock()
	s.mu.Lock()
	d := s.head
	s.head, s.tail, s.bytes, s.closed = nil, nil, 0, true
	s.mu.Unlock()
	for d != nil {
		next := d.next
		d.free()
		d = next
	}
}

// Readiness implements vfs.FileOps (datagram_poll).
func (s *UDP) Readiness(mask wait.Events) wait.Events {
	ev := socket.EvOut
	shut := s.shut.Load()
	if s.SoError.Load() != 0 {
		ev |= socket.EvErr
	}
	if shut&rcvShut != 0 {
		ev |= socket.EvRdhup | socket.EvIn
	}
	if shut == rcvShut|sndShut {
		ev |= socket.EvHup
	}
	s.mu.Lock()
	if s.head != nil {
		ev |= socket.EvIn
	}
	s.mu.Unlock()
	return ev & (mask | socket.EvErr | socket.EvHup)
}

// SendMsg implements socket.Socket (udp_sendmsg).
func (s *UDP) SendMsg(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg) (int64, error) {
	n := src.Len()
	if n > 65535 {
		return 0, abi.EMSGSIZE
	}
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EOPNOTSUPP
	}
	st := s.stack
	st.mu.Lock()
	to := s.remote
	if len(m.Name) > 0 {
		a, err := s.parse(m.Name)
		if err == nil && a.Port() == 0 {
			err = abi.EINVAL
		}
		if err != nil {
			st.mu.Unlock()
			return 0, err
		}
		to = a
	} else if to.Port() == 0 {
		st.mu.Unlock()
		return 0, abi.EDESTADDRREQ
	}
	if ip := to.Addr(); ip.Is4() && ip.As4() == [4]byte{255, 255, 255, 255} && !s.Opts().Broadcast {
		st.mu.Unlock()
		return 0, abi.EACCES
	}
	dst, from, err := s.route(to.Addr())
	if err == nil && n > maxDatagram {
		err = abi.EMSGSIZE
	}
	if err == nil && s.local.Port() == 0 {
		if err = s.bindLocked(s.ports, netip.AddrPortFrom(s.any(), 0)); err != nil {
			err = abi.EAGAIN
		} else {
			s.opts.autoBound.Store(true)
		}
	}
	if err == nil {
		if s.shut.Load()&sndShut != 0 {
			err = abi.EPIPE
		} else {
			err = s.TakeError()
		}
	}
	to = netip.AddrPortFrom(dst, to.Port())
	source := netip.AddrPortFrom(from, s.local.Port())
	st.mu.Unlock()
	if err != nil {
		return 0, err
	}

	d := datagrams.Get().(*datagram)
	d.from, d.to, d.charge, d.atNs = source, to, n+768, time.Now().UnixNano()
	if err := s.header(d, m); err != nil {
		d.free()
		return 0, err
	}
	if n > 0 {
		d.block = socket.NewBlock(n)
		got, err := src.Read(d.block.Room()[:n])
		d.block.Extend(got)
		if got < n {
			d.free()
			if err == nil {
				err = abi.EFAULT
			}
			return 0, err
		}
	}
	st.mu.Lock()
	r := s.ports.receiver(to, source)
	refused := r == nil && s.remote.Port() != 0
	st.mu.Unlock()
	if r == nil {
		d.free()
		if refused { // an ICMP message comes back
			s.SetError(abi.ECONNREFUSED)
		}
		return int64(n), nil
	}
	r.deliver(d)
	return int64(n), nil
}

// header sets the parts of the IP header that a receiver can see: from options,
// or from control messages (ip(7), RFC 3542).
func (s *UDP) header(d *datagram, m *socket.Msg) error {
	ttl := s.opts.get(abi.IPPROTO_IP, abi.IP_TTL, 64)
	tos := s.opts.get(abi.IPPROTO_IP, abi.IP_TOS, 0)
	six := d.to.Addr().Is6()
	if six {
		ttl = s.opts.get(abi.IPPROTO_IPV6, abi.IPV6_UNICAST_HOPS, 64)
		tos = s.opts.get(abi.IPPROTO_IPV6, abi.IPV6_TCLASS, 0)
	}
	for _, c := range m.Control.Others {
		var p *int32
		switch {
		case !six && c.Level == abi.IPPROTO_IP && c.Type == abi.IP_TTL, six && c.Level == abi.IPPROTO_IPV6 && c.Type == abi.IPV6_HOPLIMIT:
			p = &ttl
		case !six && c.Level == abi.IPPROTO_IP && c.Type == abi.IP_TOS, six && c.Level == abi.IPPROTO_IPV6 && c.Type == abi.IPV6_TCLASS:
			p = &tos
		default:
			continue
		}
		v, err := socket.IntValue(c.Data)
		if err != nil {
			return err
		}
		if v < -1 || v > 255 || !six && v < 0 {
			return abi.EINVAL
		}
		if v >= 0 {
			*p = v
		}
	}
	d.ttl, d.tos = uint8(ttl), uint8(tos)
	return nil
}

// receiver finds who hears a datagram. Stack.mu must be held.
func (t portTable) receiver(to, from netip.AddrPort) *UDP {
	var best *UDP
	top, same := -1, 0
	for _, e := range t[to.Port()] {
		sc := e.score(to, from)
		if sc < 0 || sc < top {
			continue
		}
		if sc > top {
			top, same = sc, 0
		}
		same++
		if same == 1 || e.Opts().ReusePort && randN(same) == 0 || !e.Opts().ReusePort {
			best = e.self.(*UDP)
		}
	}
	return best
}

// deliver queues d, or drops it if the buffer is full.
func (s *UDP) deliver(d *datagram) {
	s.mu.Lock()
	if s.closed || s.bytes+d.charge > int(s.RcvBuf.Load()) && s.head != nil {
		s.mu.Unlock()
		d.free()
		return
	}
	if s.tail != nil {
		s.tail.next = d
	} else {
		s.head = d
	}
	s.tail = d
	s.bytes += d.charge
	s.mu.Unlock()
	s.Queue.Notify(socket.EvIn)
}

// RecvMsg implements socket.Socket (udp_recvmsg).
func (s *UDP) RecvMsg(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	if m.Flags&abi.MSG_ERRQUEUE != 0 {
		return 0, abi.EAGAIN
	}
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EOPNOTSUPP
	}
	peek := m.Flags&abi.MSG_PEEK != 0
	var n int64
	err := s.Block(ctx, m.Nonblocking(), socket.EvIn|socket.EvRdhup, s.RcvTimeoNs.Load(), func() error {
		if e := s.TakeError(); e != nil {
			return e
		}
		s.mu.Lock()
		d := s.head
		if d == nil {
			s.mu.Unlock()
			if s.shut.Load()&rcvShut != 0 {
				return nil
			}
			return abi.EAGAIN
		}
		whole := d.len()
		want := min(whole, dst.Len())
		if want > 0 {
			if got, err := dst.Write(d.block.Data()[:want]); got < want {
				s.mu.Unlock()
				if err == nil {
					err = abi.EFAULT
				}
				return err
			}
		}
		n = int64(want)
		if want < whole {
			m.OutFlags |= abi.MSG_TRUNC
			if m.Flags&abi.MSG_TRUNC != 0 {
				n = int64(whole)
			}
		}
		m.Name = s.appendAddr(m.NameBuf[:0], d.from)
		if m.WantControl {
			s.control(d, m)
		}
		if peek {
			s.mu.Unlock()
			return nil
		}
		s.head = d.next
		if s.head == nil {
			s.tail = nil
		}
		s.bytes -= d.charge
		s.mu.Unlock()
		d.free()
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// control adds what the socket's options ask for: ip(7), ipv6(7), socket(7).
func (s *UDP) control(d *datagram, m *socket.Msg) {
	m.Control.Others = m.Control.Others[:0]
	add := func(level, typ int32, data []byte) {
		m.Control.Others = append(m.Control.Others, socket.Cmsg{Level: level, Type: typ, Data: data})
	}
	le := binary.LittleEndian
	if o := s.Opts(); o.TimestampNs {
		add(abi.SOL_SOCKET, abi.SO_TIMESTAMPNS_OLD, le.AppendUint64(le.AppendUint64(nil, uint64(d.atNs/1e9)), uint64(d.atNs%1e9)))
	} else if o.Timestamp {
		add(abi.SOL_SOCKET, abi.SO_TIMESTAMP_OLD, le.AppendUint64(le.AppendUint64(nil, uint64(d.atNs/1e9)), uint64(d.atNs%1e9/1e3)))
	}
	if s.opts.get(abi.IPPROTO_IP, abi.IP_PKTINFO, 0) != 0 && d.to.Addr().Is4() {
		ip := d.to.Addr().As4()
		b := le.AppendUint32(nil, 1)
		b = append(append(b, ip[:]...), ip[:]...)
		add(abi.IPPROTO_IP, abi.IP_PKTINFO, b)
	}
	if s.opts.get(abi.IPPROTO_IP, abi.IP_RECVTTL, 0) != 0 && d.to.Addr().Is4() {
		add(abi.IPPROTO_IP, abi.IP_TTL, le.AppendUint32(nil, uint32(d.ttl)))
	}
	if s.opts.get(abi.IPPROTO_IP, abi.IP_RECVTOS, 0) != 0 && d.to.Addr().Is4() {
		add(abi.IPPROTO_IP, abi.IP_TOS, []byte{d.tos})
	}
	if s.v6() {
		if s.opts.get(abi.IPPROTO_IPV6, abi.IPV6_RECVPKTINFO, 0) != 0 {
			ip := d.to.Addr().As16()
			add(abi.IPPROTO_IPV6, abi.IPV6_PKTINFO, le.AppendUint32(ip[:], 1))
		}
		if s.opts.get(abi.IPPROTO_IPV6, abi.IPV6_RECVHOPLIMIT, 0) != 0 {
			add(abi.IPPROTO_IPV6, abi.IPV6_HOPLIMIT, le.AppendUint32(nil, uint32(d.ttl)))
		}
		if s.opts.get(abi.IPPROTO_IPV6, abi.IPV6_RECVTCLASS, 0) != 0 {
			add(abi.IPPROTO_IPV6, abi.IPV6_TCLASS, le.AppendUint32(nil, uint32(d.tos)))
		}
	}
}

// Ioctl implements vfs.FileOps.
func (s *UDP) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	v := 0
	switch cmd {
	case abi.SIOCINQ:
		s.mu.Lock()
		if s.head != nil {
			v = s.head.len()
		}
		s.mu.Unlock()
	case abi.SIOCOUTQ:
	default:
		return socket.Ioctl(&s.Base, ctx, f, cmd, arg)
	}
	return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(v))
}
