package inet

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A TCP is a stream socket.
type TCP struct {
	endpoint

	st   atomic.Int32  // abi.TCP_CLOSE, _LISTEN, _SYN_SENT or _ESTABLISHED; written under mu
	shut atomic.Uint32 // rcvShut | sndShut: local shutdowns, and resets

	rx, tx atomic.Pointer[stream] // set when a connection is made

	mu       sync.Mutex
	fresh    bool // a nonblocking connect has ended and nobody was told
	backlog  int
	accepted []*TCP
	waiting  []*TCP // clients that found the backlog full
	target   *TCP   // the listener that a SYN_SENT socket waits for
	peerAddr netip.AddrPort
	dead     bool
}

const (
	rcvShut = 1
	sndShut = 2
)

func newTCP(ctx vfs.Context, st *Stack, af int) *TCP {
	s := &TCP{}
	s.init(ctx, st, af, abi.SOCK_STREAM, abi.IPPROTO_TCP, s)
	s.st.Store(abi.TCP_CLOSE)
	s.SndBuf.Store(16384)
	s.RcvBuf.Store(131072)
	return s
}

// window is how much the direction from a to b may hold.
func window(a, b *TCP) int {
	if a.opts.bufSet.Load() || b.opts.bufSet.Load() {
		return int(a.SndBuf.Load()) + int(b.RcvBuf.Load())
	}
	return defaultWindow
}

// resize applies buffer sizes that were set after the connection was made.
func (s *TCP) resize() {
	for _, d := range [...]*stream{s.tx.Load(), s.rx.Load()} {
		if d == nil {
			continue
		}
		w := window(d.from, d.to)
		d.mu.Lock()
		d.window = w
		d.mu.Unlock()
		d.from.Queue.Notify(socket.EvOut)
	}
}

// Read implements vfs.FileOps.
func (s *TCP) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	return socket.ReadMsg(s, ctx, f, dst, fl)
}

// Write implements vfs.FileOps.
func (s *TCP) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	return socket.WriteMsg(s, ctx, f, src, fl)
}

// Bind implements socket.Socket.
func (s *TCP) Bind(ctx vfs.Context, addr []byte) error { return s.bind(ctx, s.stack.tcp, addr) }

// Listen implements socket.Socket (inet_listen).
func (s *TCP) Listen(_ vfs.Context, backlog int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.st.Load() {
	case abi.TCP_LISTEN:
		s.backlog = backlog
		s.promote()
		return nil
	case abi.TCP_CLOSE:
	default:
		return abi.EINVAL
	}
	if s.tx.Load() != nil {
		return abi.EINVAL
	}
	s.stack.mu.Lock()
	defer s.stack.mu.Unlock()
	if s.local.Port() == 0 {
		if err := s.bindLocked(s.stack.tcp, netip.AddrPortFrom(s.any(), 0)); err != nil {
			return err
		}
	}
	s.listening = true
	if s.stack.tcp.conflict(&s.endpoint, s.local.Addr(), s.local.Port()) {
		s.listening = false
		return abi.EADDRINUSE
	}
	s.backlog = backlog
	s.shut.Store(0)
	s.st.Store(abi.TCP_LISTEN)
	return nil
}

// find is the listener for a connection to dst. Stack.mu must be held.
func (t portTable) listener(dst netip.AddrPort) *TCP {
	var best *TCP
	top, same := -1, 0
	for _, e := range t[dst.Port()] {
		if !e.listening {
			continue
		}
		sc := e.score(dst, netip.AddrPort{})
		if sc < 0 || sc < top {
			continue
		}
		if sc > top {
			top, same = sc, 0
		}
		same++
		if same == 1 || randN(same) == 0 { // SO_REUSEPORT shares the load
			best = e.self.(*TCP)
		}
	}
	return best
}

// Accept implements socket.Socket (inet_csk_accept).
func (s *TCP) Accept(ctx vfs.Context, nonblock bool) (socket.Socket, error) {
	if s.st.Load() != abi.TCP_LISTEN {
		return nil, abi.EINVAL
	}
	var c *TCP
	err := s.Block(ctx, nonblock, socket.EvIn, s.RcvTimeoNs.Load(), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.st.Load() != abi.TCP_LISTEN {
			return abi.EINVAL
		}
		if len(s.accepted) == 0 {
			return abi.EAGAIN
		}
		c = s.accepted[0]
		s.accepted[0] = nil
		s.accepted = s.accepted[1:]
		s.promote()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// promote connects clients that waited for room in the backlog. mu must be held.
func (s *TCP) promote() {
	for len(s.waiting) > 0 && len(s.accepted) <= s.backlog {
		c := s.waiting[0]
		s.waiting = s.waiting[1:]
		c.mu.Lock()
		if c.target == s && c.st.Load() == abi.TCP_SYN_SENT {
			s.establish(c)
		}
		c.mu.Unlock()
	}
}

// establish makes the connection of client c to listener s. Both are locked.
func (s *TCP) establish(c *TCP) {
	srv := &TCP{}
	srv.init(nil, s.stack, s.Family, abi.SOCK_STREAM, abi.IPPROTO_TCP, srv)
	srv.uid = s.uid
	srv.Inherit(&s.Base)
	srv.opts.copyFrom(&s.opts)
	up, down := &stream{from: c, to: srv, window: window(c, srv)}, &stream{from: srv, to: c, window: window(srv, c)}
	c.tx.Store(up)
	c.rx.Store(down)
	srv.rx.Store(up)
	srv.tx.Store(down)
	st := s.stack
	st.mu.Lock()
	srv.v6only = s.v6only
	srv.remote = c.local
	st.tcp.add(&srv.endpoint, c.peerAddr)
	c.remote = c.peerAddr
	st.mu.Unlock()
	srv.st.Store(abi.TCP_ESTABLISHED)
	c.st.Store(abi.TCP_ESTABLISHED)
	c.target = nil
	s.accepted = append(s.accepted, srv)
	s.Queue.Notify(socket.EvIn)
	c.Queue.Notify(socket.EvOut | socket.EvIn)
}

// Connect implements socket.Socket (__inet_stream_connect).
func (s *TCP) Connect(ctx vfs.Context, addr []byte, nonblock bool) error {
	if len(addr) < 2 {
		return abi.EINVAL
	}
	if binary.LittleEndian.Uint16(addr) == abi.AF_UNSPEC {
		return s.disconnect()
	}
	s.mu.Lock()
	switch s.st.Load() {
	case abi.TCP_ESTABLISHED:
		fresh := s.fresh
		s.fresh = false
		s.mu.Unlock()
		if fresh {
			return nil
		}
		return abi.EISCONN
	case abi.TCP_LISTEN:
		s.mu.Unlock()
		return abi.EISCONN
	case abi.TCP_SYN_SENT:
		s.mu.Unlock()
		if nonblock {
			return abi.EALREADY
		}
		return s.awaitConnect(ctx)
	}
	if s.fresh { // a nonblocking connect has failed since
		s.fresh = false
		s.shut.Store(0)
		s.mu.Unlock()
		if err := s.TakeError(); err != nil {
			return err
		}
		return abi.ECONNABORTED
	}
	if s.tx.Load() != nil {
		s.mu.Unlock()
		return abi.EISCONN // it was connected once; only AF_UNSPEC helps
	}
	l, err := s.sendSYN(addr)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if l == nil {
		s.refuse()
	} else {
		l.mu.Lock()
		s.mu.Lock()
		gone := l.st.Load() != abi.TCP_LISTEN
		switch {
		case gone:
		case len(l.accepted) > l.backlog:
			s.target = l
			l.waiting = append(l.waiting, s)
		default:
			l.establish(s)
		}
		s.mu.Unlock()
		l.mu.Unlock()
		if gone {
			s.refuse()
		}
	}
	if nonblock {
		s.mu.Lock()
		s.fresh = true
		s.mu.Unlock()
		return abi.EINPROGRESS
	}
	return s.awaitConnect(ctx)
}

// sendSYN checks the destination, binds, and goes to SYN_SENT. s.mu must be
// held; the listener, if there is one, is not locked.
func (s *TCP) sendSYN(addr []byte) (*TCP, error) {
	st := s.stack
	st.mu.Lock()
	defer st.mu.Unlock()
	a, err := s.parse(addr)
	if err != nil {
		return nil, err
	}
	dst, src, err := s.route(a.Addr())
	if err != nil {
		return nil, err
	}
	to := netip.AddrPortFrom(dst, a.Port())
	if s.local.Port() == 0 {
		if err := s.bindLocked(st.tcp, netip.AddrPortFrom(src, 0)); err != nil {
			if err == abi.EADDRINUSE {
				err = abi.EADDRNOTAVAIL
			}
			return nil, err
		}
	} else {
		from := netip.AddrPortFrom(src, s.local.Port())
		for _, o := range st.tcp[from.Port()] {
			if o != &s.endpoint && o.remote == to && o.local == from {
				return nil, abi.EADDRNOTAVAIL
			}
		}
		s.local = from
	}
	s.peerAddr = to
	s.shut.Store(0)
	s.SoError.Store(0)
	s.st.Store(abi.TCP_SYN_SENT)
	return st.tcp.listener(to), nil
}

// refuse is what a reset does to a socket in SYN_SENT.
func (s *TCP) refuse() {
	s.mu.Lock()
	s.st.Store(abi.TCP_CLOSE)
	s.shut.Store(rcvShut | sndShut)
	s.target = nil
	s.mu.Unlock()
	s.SetError(abi.ECONNREFUSED)
	s.Queue.Notify(socket.EvHup | socket.EvRdhup)
}

// awaitConnect sleeps until the connection is made or refused.
func (s *TCP) awaitConnect(ctx vfs.Context) error {
	err := s.Block(ctx, false, socket.EvOut, s.SndTimeoNs.Load(), func() error {
		switch s.st.Load() {
		case abi.TCP_SYN_SENT:
			return abi.EAGAIN
		case abi.TCP_ESTABLISHED:
			return nil
		}
		if err := s.TakeError(); err != nil {
			return err
		}
		return abi.ECONNABORTED
	})
	if err == abi.EAGAIN {
		err = abi.EINPROGRESS
	}
	if err != nil && err != abi.EINPROGRESS && s.st.Load() == abi.TCP_CLOSE {
		s.mu.Lock()
		s.shut.Store(0)
		s.fresh = false
		s.mu.Unlock()
	}
	return err
}

// disconnect is connect to AF_UNSPEC (tcp_disconnect): a reset, and the socket
// can be used again.
func (s *TCP) disconnect() error {
	s.mu.Lock()
	st := s.st.Load()
	if st == abi.TCP_LISTEN {
		s.mu.Unlock()
		s.unlisten()
		s.mu.Lock()
	}
	rx, tx := s.rx.Swap(nil), s.tx.Swap(nil)
	s.st.Store(abi.TCP_CLOSE)
	s.shut.Store(0)
	s.fresh, s.target = false, nil
	s.mu.Unlock()
	s.SoError.Store(0)
	if tx != nil {
		rx.drop()
		tx.to.reset(abi.ECONNRESET)
	}
	s.stack.mu.Lock()
	s.remote = netip.AddrPort{}
	s.stack.mu.Unlock()
	s.Queue.Notify(socket.EvHup | socket.EvIn | socket.EvOut)
	return nil
}

// reset is the arrival of a RST (tcp_reset).
func (s *TCP) reset(e abi.Errno) {
	s.mu.Lock()
	if s.st.Load() != abi.TCP_ESTABLISHED {
		s.mu.Unlock()
		return
	}
	s.st.Store(abi.TCP_CLOSE)
	s.shut.Store(rcvShut | sndShut)
	if rx := s.rx.Load(); rx != nil {
		if _, fin := rx.state(); fin {
			e = abi.EPIPE
		}
	}
	s.mu.Unlock()
	s.SetError(e)
	s.Queue.Notify(socket.EvHup | socket.EvRdhup)
}

// unlisten ends a listener: connections that nobody accepted are reset.
func (s *TCP) unlisten() {
	s.mu.Lock()
	s.st.Store(abi.TCP_CLOSE)
	pending, waiting := s.accepted, s.waiting
	s.accepted, s.waiting = nil, nil
	s.mu.Unlock()
	s.stack.mu.Lock()
	s.listening = false
	s.stack.mu.Unlock()
	for _, c := range pending {
		c.close(true)
	}
	for _, c := range waiting {
		c.mu.Lock()
		mine := c.target == s
		c.mu.Unlock()
		if mine {
			c.refuse()
		}
	}
	s.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvHup)
}

// Shutdown implements socket.Socket (inet_shutdown).
func (s *TCP) Shutdown(_ vfs.Context, how int) error {
	if how < abi.SHUT_RD || how > abi.SHUT_RDWR {
		return abi.EINVAL
	}
	bits := uint32(how + 1)
	switch s.st.Load() {
	case abi.TCP_CLOSE:
		if s.tx.Load() != nil && s.shut.Load() == 0 {
			break
		}
		return abi.ENOTCONN
	case abi.TCP_LISTEN:
		if bits&rcvShut != 0 {
			s.unlisten()
		}
		return nil
	case abi.TCP_SYN_SENT:
		return s.disconnect()
	}
	s.shut.Or(bits)
	if bits&sndShut != 0 {
		tx := s.tx.Load()
		tx.finish()
		tx.to.Queue.Notify(socket.EvIn | socket.EvRdhup | socket.EvHup)
	}
	s.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvRdhup | socket.EvHup)
	return nil
}

// Release implements vfs.FileOps (tcp_close).
func (s *TCP) Release(*vfs.File) { s.close(false) }

// close ends the socket; with abort the peer is reset in any case.
func (s *TCP) close(abort bool) {
	if s.st.Load() == abi.TCP_LISTEN {
		s.unlisten()
	}
	s.mu.Lock()
	s.dead = true
	connected := s.st.Load() == abi.TCP_ESTABLISHED
	target := s.target
	s.target = nil
	s.st.Store(abi.TCP_CLOSE)
	s.mu.Unlock()
	if target != nil {
		target.mu.Lock()
		for i, c := range target.waiting {
			if c == s {
				target.waiting = append(target.waiting[:i], target.waiting[i+1:]...)
				break
			}
		}
		target.mu.Unlock()
	}
	if rx, tx := s.rx.Load(), s.tx.Load(); tx != nil {
		lost := rx.drop()
		o := s.Opts()
		if connected {
			if abort || lost || o.Linger && o.LingerSec == 0 {
				tx.to.reset(abi.ECONNRESET)
			} else {
				tx.finish()
				tx.to.Queue.Notify(socket.EvIn | socket.EvRdhup | socket.EvHup | socket.EvOut)
			}
		}
	}
	s.stack.mu.Lock()
	s.stack.tcp.remove(&s.endpoint)
	s.stack.mu.Unlock()
}

// Readiness implements vfs.FileOps (tcp_poll).
func (s *TCP) Readiness(mask wait.Events) wait.Events {
	st := s.st.Load()
	var ev wait.Events
	if st == abi.TCP_LISTEN {
		s.mu.Lock()
		if len(s.accepted) > 0 {
			ev |= socket.EvIn
		}
		s.mu.Unlock()
		return ev & mask
	}
	shut := s.shut.Load()
	bytes := 0
	if rx := s.rx.Load(); rx != nil {
		var fin bool
		if bytes, fin = rx.state(); fin {
			shut |= rcvShut
		}
	}
	if shut == rcvShut|sndShut || st == abi.TCP_CLOSE {
		ev |= socket.EvHup
	}
	if shut&rcvShut != 0 {
		ev |= socket.EvIn | socket.EvRdhup
	}
	if st != abi.TCP_SYN_SENT {
		if bytes >= int(s.RcvLowat.Load()) {
			ev |= socket.EvIn
		}
		tx := s.tx.Load()
		switch {
		case shut&sndShut != 0 || tx == nil:
			ev |= socket.EvOut
		case mask&socket.EvOut != 0:
			tx.mu.Lock()
			if tx.writable() || tx.gone {
				ev |= socket.EvOut
			} else {
				tx.starved = true
			}
			tx.mu.Unlock()
		}
	}
	if s.SoError.Load() != 0 {
		ev |= socket.EvErr
	}
	ev &^= abi.EPOLLWRBAND
	return ev & (mask | socket.EvErr | socket.EvHup)
}

// SendMsg implements socket.Socket (tcp_sendmsg).
func (s *TCP) SendMsg(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg) (int64, error) {
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EOPNOTSUPP
	}
	if m.Flags&abi.MSG_FASTOPEN != 0 && len(m.Name) > 0 && s.st.Load() == abi.TCP_CLOSE {
		if err := s.Connect(ctx, m.Name, m.Nonblocking()); err != nil {
			return 0, err
		}
	}
	nonblock, timeo := m.Nonblocking(), s.SndTimeoNs.Load()
	done := int64(0)
	err := s.Block(ctx, nonblock, socket.EvOut, timeo, func() error {
		for {
			if s.SoError.Load() != 0 || s.shut.Load()&sndShut != 0 {
				if done > 0 {
					return nil
				}
				if e := s.TakeError(); e != nil {
					return e
				}
				return abi.EPIPE
			}
			switch s.st.Load() {
			case abi.TCP_SYN_SENT:
				return abi.EAGAIN
			case abi.TCP_ESTABLISHED:
			default:
				return abi.EPIPE
			}
			if src.Len() == 0 {
				return nil
			}
			tx := s.tx.Load()
			n, lost, err := tx.write(src)
			if lost {
				// The peer is closed: it answers what we send with a reset,
				// by when the buffers have taken some of it.
				done += int64(min(src.Len(), tx.window/2))
				s.reset(abi.EPIPE)
				return nil
			}
			done += int64(n)
			if n > 0 {
				tx.to.Queue.Notify(socket.EvIn)
			}
			if err != nil || src.Len() == 0 {
				return err
			}
		}
	})
	if done > 0 {
		return done, nil
	}
	return 0, err
}

// RecvMsg implements socket.Socket (tcp_recvmsg).
func (s *TCP) RecvMsg(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	if s.st.Load() == abi.TCP_LISTEN {
		return 0, abi.ENOTCONN
	}
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EINVAL // no urgent data
	}
	if m.Flags&abi.MSG_ERRQUEUE != 0 {
		return 0, abi.EAGAIN
	}
	peek := m.Flags&abi.MSG_PEEK != 0
	want := dst.Len()
	target := min(int(s.RcvLowat.Load()), want)
	if m.Flags&abi.MSG_WAITALL != 0 {
		target = want
	}
	to := dst
	if m.Flags&abi.MSG_TRUNC != 0 {
		to = nil // tcp(7): the bytes are discarded
	}
	nonblock := m.Nonblocking()
	done := 0
	err := s.Block(ctx, nonblock, socket.EvIn|socket.EvRdhup, s.RcvTimeoNs.Load(), func() error {
		rx := s.rx.Load()
		fin := false
		if rx != nil {
			// FIN is looked at first: bytes that came before it are read below.
			_, fin = rx.state()
			skip := 0
			if peek {
				skip = done
			}
			n, wake, err := rx.read(to, want-done, skip, peek)
			done += n
			if wake {
				rx.from.Queue.Notify(socket.EvOut)
			}
			if err != nil {
				return err
			}
		}
		switch {
		case done >= target && (done > 0 || want == 0), done > 0 && nonblock:
			return nil
		case fin:
			return nil
		case s.SoError.Load() != 0:
			if done > 0 {
				return nil
			}
			return s.TakeError()
		case s.shut.Load()&rcvShut != 0:
			return nil
		case s.st.Load() == abi.TCP_CLOSE:
			return abi.ENOTCONN
		}
		return abi.EAGAIN
	})
	if done > 0 {
		return int64(done), nil
	}
	return 0, err
}

// Ioctl implements vfs.FileOps.
func (s *TCP) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	var v int
	switch cmd {
	case abi.SIOCINQ:
		if s.st.Load() == abi.TCP_LISTEN {
			return 0, abi.EINVAL
		}
		if rx := s.rx.Load(); rx != nil {
			v, _ = rx.state()
		}
	case abi.SIOCOUTQ, abi.SIOCOUTQNSD:
		if s.st.Load() == abi.TCP_LISTEN {
			return 0, abi.EINVAL
		}
	case abi.SIOCATMARK:
	default:
		return socket.Ioctl(&s.Base, ctx, f, cmd, arg)
	}
	return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(v))
}
