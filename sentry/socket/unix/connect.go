package unix

import (
	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/vfs"
)

// Listen implements socket.Socket (unix_listen).
func (s *Socket) Listen(ctx vfs.Context, backlog int) error {
	if s.connectionless() {
		return abi.EOPNOTSUPP
	}
	s.mu.Lock()
	if s.addr == nil || s.state() == established {
		s.mu.Unlock()
		return abi.EINVAL
	}
	grown := s.backlog < backlog
	s.backlog = backlog
	s.st.Store(int32(listening))
	s.cred, s.groups = ucred(ctx)
	s.mu.Unlock()
	if grown {
		s.Queue.Notify(evBacklog)
	}
	return nil
}

// evBacklog is an internal event: a listener has room for a connection.
const evBacklog = 1 << 27

// Accept implements socket.Socket (unix_accept).
func (s *Socket) Accept(ctx vfs.Context, nonblock bool) (socket.Socket, error) {
	if s.connectionless() {
		return nil, abi.EOPNOTSUPP
	}
	if s.state() != listening {
		return nil, abi.EINVAL
	}
	var c *Socket
	err := s.Block(ctx, nonblock, socket.EvIn, s.RcvTimeoNs.Load(), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.accepted) == 0 {
			if s.dead.Load() || s.shut.Load()&rcvShut != 0 {
				return abi.EINVAL
			}
			return abi.EAGAIN
		}
		c = s.accepted[0]
		s.accepted[0] = nil
		s.accepted = s.accepted[1:]
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Queue.Notify(evBacklog)
	return c, nil
}

// Connect implements socket.Socket.
func (s *Socket) Connect(ctx vfs.Context, addr []byte, nonblock bool) error {
	if len(addr) < 2 {
		return abi.EINVAL
	}
	if s.connectionless() {
		return s.connectDatagram(ctx, addr)
	}
	if s.PassCred.Load() {
		if err := s.autobind(); err != nil {
			return err
		}
	}
	timeo := s.SndTimeoNs.Load()
	// The listener is looked up again after each wait: it may be another one.
	for {
		l, err := s.find(ctx, addr)
		if err != nil {
			return err
		}
		err = s.tryConnect(ctx, l)
		if err != abi.EAGAIN || nonblock {
			return err
		}
		full := func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.state() == listening && len(l.accepted) > l.backlog {
				return abi.EAGAIN
			}
			return nil
		}
		if err := l.Block(ctx, false, evBacklog, timeo, full); err != nil {
			return err
		}
	}
}

// tryConnect makes a connection to l, or fails with EAGAIN if its backlog is full.
func (s *Socket) tryConnect(ctx vfs.Context, l *Socket) error {
	c := &Socket{ns: s.ns}
	c.Init(ctx, abi.AF_UNIX, s.Type, 0)
	c.rq.owner = c
	u, g := ucred(ctx)

	unlock := lockTwo(l, s)
	if l.state() != listening || l.shut.Load()&rcvShut != 0 {
		unlock()
		return abi.ECONNREFUSED
	}
	if len(l.accepted) > l.backlog {
		unlock()
		return abi.EAGAIN
	}
	switch s.state() {
	case closed:
	case established:
		unlock()
		return abi.EISCONN
	default: // a listener, perhaps l itself
		unlock()
		return abi.EINVAL
	}
	c.Inherit(&l.Base)
	c.addr = l.addr // a copy of the name, not the binding
	c.cred, c.groups = l.cred, l.groups
	c.peerCred, c.peerGrps = u, g
	s.cred, s.groups = u, g
	s.peerCred, s.peerGrps = l.cred, l.groups
	c.peer.Store(s)
	s.peer.Store(c)
	c.st.Store(int32(established))
	s.st.Store(int32(established))
	s.ns.add(c)
	l.accepted = append(l.accepted, c)
	unlock()
	l.Queue.Notify(socket.EvIn)
	s.Queue.Notify(socket.EvOut)
	return nil
}

// lockTwo locks two sockets, which may be one, in the order of their numbers:
// two listeners may be connecting to one another.
func lockTwo(a, b *Socket) (unlock func()) {
	if a == b {
		a.mu.Lock()
		return a.mu.Unlock
	}
	if a.Ino() > b.Ino() {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

// connectDatagram is unix_dgram_connect.
func (s *Socket) connectDatagram(ctx vfs.Context, addr []byte) error {
	var other *Socket
	if int(addr[0])|int(addr[1])<<8 != abi.AF_UNSPEC {
		if _, _, err := parse(addr); err != nil {
			return err
		}
		if s.PassCred.Load() {
			if err := s.autobind(); err != nil {
				return err
			}
		}
		var err error
		if other, err = s.find(ctx, addr); err != nil {
			return err
		}
		if other.dead.Load() {
			return abi.ECONNREFUSED
		}
		if !s.maySend(other) {
			return abi.EPERM
		}
	}
	s.mu.Lock()
	old := s.peer.Swap(other)
	s.peerCred, s.peerGrps = abi.Ucred{}, nil
	s.mu.Unlock()
	if old != nil && old != other {
		// What the old peer sent is forgotten (unix_dgram_disconnected).
		s.rq.mu.Lock()
		l := leftover{s.rq.head, s.rq.count, s.rq.takeBlocked()}
		s.rq.head, s.rq.tail, s.rq.count, s.rq.bytes = nil, nil, 0, 0
		s.rq.mu.Unlock()
		had := l.n > 0
		l.free()
		if had && old.peer.Load() == s && !old.dead.Load() {
			old.SetError(abi.ECONNRESET)
		}
	}
	s.Queue.Notify(socket.EvOut)
	return nil
}

// maySend is unix_may_send: a connected datagram socket hears only its peer.
func (s *Socket) maySend(other *Socket) bool {
	p := other.peer.Load()
	return p == nil || p == s
}
