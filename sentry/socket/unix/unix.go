// Package unix implements AF_UNIX sockets (unix(7)): streams, datagrams and
// sequenced packets between sockets of one sandbox, with names in the file
// system, abstract names, and passing of descriptors and credentials.
//
// It makes no descriptors: received files are handed to the system call layer.
// MSG_OOB is refused.
//
// Lock order: two sockets are locked at once only as listener and client, by
// lockTwo. Socket.mu, then queue.mu, then Namespace.mu and graveyard locks;
// wait queues are leaves. Nothing is locked while files are released.
package unix

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

type state int32

const (
	closed      state = iota // TCP_CLOSE: new, or a datagram socket
	listening                // TCP_LISTEN
	established              // connected stream or packet socket
)

// Shutdown bits (include/net/sock.h).
const (
	rcvShut = 1
	sndShut = 2
)

// A Socket is an AF_UNIX socket.
type Socket struct {
	socket.Base
	ns *Namespace

	rq        queue         // what others have sent us
	shut      atomic.Uint32 // rcvShut, sndShut
	wmem      atomic.Int64  // bytes of ours that others have not read yet
	st        atomic.Int32  // state; written under mu
	dead      atomic.Bool
	peekOffOn atomic.Bool // SO_PEEK_OFF was set

	peer atomic.Pointer[Socket] // written under mu

	mu       sync.Mutex
	addr     []byte    // sockaddr; nil while unbound; never modified in place
	file     vfs.Path  // the socket file, if bound to a path
	cred     abi.Ucred // of us, as the peer's SO_PEERCRED shows
	groups   []cred.GID
	peerCred abi.Ucred
	peerGrps []cred.GID
	backlog  int
	accepted []*Socket // connections not yet accepted
}

// A Family makes AF_UNIX sockets.
type Family struct{ NS *Namespace }

// New makes the family with a name space of its own.
func New() *Family { return &Family{NS: newNamespace()} }

func (fam *Family) make(ctx vfs.Context, typ, protocol int) (*Socket, error) {
	if protocol != 0 && protocol != abi.AF_UNIX {
		return nil, abi.EPROTONOSUPPORT
	}
	switch typ {
	case abi.SOCK_STREAM, abi.SOCK_DGRAM, abi.SOCK_SEQPACKET:
	case abi.SOCK_RAW: // believe it or not: unix_create
		typ = abi.SOCK_DGRAM
	default:
		return nil, abi.ESOCKTNOSUPPORT
	}
	s := &Socket{ns: fam.NS}
	s.Init(ctx, abi.AF_UNIX, typ, 0)
	s.rq.owner = s
	s.ns.add(s)
	return s, nil
}

// Socket implements socket.Family.
func (fam *Family) Socket(ctx vfs.Context, typ, protocol int) (socket.Socket, error) {
	s, err := fam.make(ctx, typ, protocol)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Pair implements socket.Family.
func (fam *Family) Pair(ctx vfs.Context, typ, protocol int) (socket.Socket, socket.Socket, error) {
	a, err := fam.make(ctx, typ, protocol)
	if err != nil {
		return nil, nil, err
	}
	b, err := fam.make(ctx, typ, protocol)
	if err != nil {
		return nil, nil, err
	}
	u, g := ucred(ctx)
	for _, s := range [...]*Socket{a, b} {
		s.cred, s.groups, s.peerCred, s.peerGrps = u, g, u, g
		if typ != abi.SOCK_DGRAM {
			s.st.Store(int32(established))
		}
	}
	a.peer.Store(b)
	b.peer.Store(a)
	return a, b, nil
}

// ucred is what SO_PEERCRED of a connection by ctx shows.
func ucred(ctx vfs.Context) (abi.Ucred, []cred.GID) {
	c := ctx.Cred()
	return abi.Ucred{PID: ctx.PID(), UID: uint32(c.EUID), GID: uint32(c.EGID)}, c.Groups
}

func (s *Socket) state() state { return state(s.st.Load()) }

// connectionless reports a datagram socket.
func (s *Socket) connectionless() bool { return s.Type == abi.SOCK_DGRAM }

var unnamed = []byte{abi.AF_UNIX, 0}

// address is the socket's name as others see it.
func (s *Socket) address() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == nil {
		return unnamed
	}
	return s.addr
}

// Name implements socket.Socket.
func (s *Socket) Name(_ vfs.Context, peer bool) ([]byte, error) {
	if !peer {
		return s.address(), nil
	}
	p := s.peer.Load()
	if p == nil {
		return nil, abi.ENOTCONN
	}
	return p.address(), nil
}

// Read implements vfs.FileOps.
func (s *Socket) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	return socket.ReadMsg(s, ctx, f, dst, fl)
}

// Write implements vfs.FileOps.
func (s *Socket) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	return socket.WriteMsg(s, ctx, f, src, fl)
}

// Shutdown implements socket.Socket (unix_shutdown).
func (s *Socket) Shutdown(_ vfs.Context, how int) error {
	if how < abi.SHUT_RD || how > abi.SHUT_RDWR {
		return abi.EINVAL
	}
	bits := uint32(how + 1) // SHUT_RD -> rcvShut, SHUT_WR -> sndShut
	s.shut.Or(bits)
	p := s.peer.Load()
	s.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvHup | socket.EvRdhup)
	if p != nil && !s.connectionless() {
		var other uint32
		if bits&rcvShut != 0 {
			other |= sndShut
		}
		if bits&sndShut != 0 {
			other |= rcvShut
		}
		p.shut.Or(other)
		p.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvHup | socket.EvRdhup)
	}
	return nil
}

// Readiness implements vfs.FileOps (unix_poll, unix_dgram_poll).
func (s *Socket) Readiness(mask wait.Events) wait.Events {
	var ev wait.Events
	shut, st := s.shut.Load(), s.state()
	if st == listening {
		s.mu.Lock()
		if len(s.accepted) > 0 {
			ev |= socket.EvIn
		}
		s.mu.Unlock()
		return ev & mask
	}
	if s.SoError.Load() != 0 {
		ev |= socket.EvErr
	}
	if shut == rcvShut|sndShut {
		ev |= socket.EvHup
	}
	if shut&rcvShut != 0 {
		ev |= socket.EvRdhup | socket.EvIn
	}
	if !s.rq.empty() {
		ev |= socket.EvIn
	}
	if !s.connectionless() && st == closed {
		ev |= socket.EvHup
	}
	if mask&socket.EvOut != 0 && s.writable() {
		p := s.peer.Load()
		if !s.connectionless() || p == nil || p.peer.Load() == s || !p.rq.fullFor(s) {
			ev |= socket.EvOut
		}
	}
	return ev & (mask | socket.EvErr | socket.EvHup)
}

// writable is unix_writable: a quarter of the buffer is in use at most.
func (s *Socket) writable() bool { return s.wmem.Load()<<2 <= int64(s.SndBuf.Load()) }

// Release implements vfs.FileOps (unix_release_sock).
func (s *Socket) Release(*vfs.File) {
	s.mu.Lock()
	s.dead.Store(true)
	st := s.state()
	s.st.Store(int32(closed))
	s.shut.Store(rcvShut | sndShut)
	pending := s.accepted
	s.accepted = nil
	peer := s.peer.Load()
	s.peer.Store(nil)
	file := s.ns.unbind(s)
	s.mu.Unlock()

	if file.Valid() {
		file.DecRef()
	}
	unread := s.rq.close()
	if peer != nil && !s.connectionless() {
		peer.shut.Store(rcvShut | sndShut)
		if unread.n > 0 {
			peer.SoError.Store(uint32(abi.ECONNRESET))
		}
		peer.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvHup | socket.EvRdhup | socket.EvErr)
	}
	if st == listening {
		for _, c := range pending {
			p := c.peer.Load()
			if p != nil {
				p.SoError.Store(uint32(abi.ECONNRESET))
			}
			c.Release(nil)
		}
		s.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvHup)
	}
	unread.free()
	collectGarbage()
}

// Ioctl implements vfs.FileOps.
func (s *Socket) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	var v int64
	switch cmd {
	case abi.SIOCINQ:
		if s.state() == listening {
			return 0, abi.EINVAL
		}
		v = int64(s.rq.pending(!s.connectionless()))
	case abi.SIOCOUTQ:
		v = s.wmem.Load()
	default:
		return socket.Ioctl(&s.Base, ctx, f, cmd, arg)
	}
	return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(v))
}

// GetSockOpt implements socket.Socket.
func (s *Socket) GetSockOpt(ctx vfs.Context, level, name, size int) ([]byte, error) {
	if level == abi.SOL_SOCKET {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch name {
		case abi.SO_PEERCRED:
			u := s.peerCred
			if s.peer.Load() == nil && u == (abi.Ucred{}) {
				u.UID, u.GID = ^uint32(0), ^uint32(0)
			}
			b := make([]byte, abi.SizeofUcred)
			u.MarshalTo(b)
			return b, nil
		case abi.SO_PEERGROUPS:
			if s.peer.Load() == nil && s.peerGrps == nil {
				return nil, abi.ENODATA
			}
			var b []byte
			for _, g := range s.peerGrps {
				b = append(b, socket.Int(int32(g))...)
			}
			if len(b) > size {
				return b, abi.ERANGE
			}
			return b, nil
		case abi.SO_ACCEPTCONN:
			return socket.Bool(s.state() == listening), nil
		}
	}
	return s.Base.GetSockOpt(ctx, level, name, size)
}

// SetSockOpt implements socket.Socket.
func (s *Socket) SetSockOpt(ctx vfs.Context, level, name int, value []byte) error {
	if level != abi.SOL_SOCKET {
		return abi.EOPNOTSUPP
	}
	err := s.Base.SetSockOpt(ctx, level, name, value)
	if err == nil && name == abi.SO_PEEK_OFF {
		s.peekOffOn.Store(s.Opts().PeekOff >= 0)
	}
	return err
}
