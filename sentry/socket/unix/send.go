package unix

import (
	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// senderCred is what SCM_CREDENTIALS of a message shows: what the sender
// claims, after a check, or what it is.
func senderCred(ctx vfs.Context, m *socket.Msg) (abi.Ucred, error) {
	c := ctx.Cred()
	if !m.Control.HasCred {
		return abi.Ucred{PID: ctx.PID(), UID: uint32(c.RUID), GID: uint32(c.RGID)}, nil
	}
	u := m.Control.Cred
	if u.PID != ctx.PID() && !c.Can(abi.CAP_SYS_ADMIN) ||
		u.UID != uint32(c.RUID) && u.UID != uint32(c.EUID) && u.UID != uint32(c.SUID) && !c.Can(abi.CAP_SETUID) ||
		u.GID != uint32(c.RGID) && u.GID != uint32(c.EGID) && u.GID != uint32(c.SGID) && !c.Can(abi.CAP_SETGID) {
		return u, abi.EPERM
	}
	return u, nil
}

// SendMsg implements socket.Socket.
func (s *Socket) SendMsg(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg) (int64, error) {
	u, err := senderCred(ctx, m)
	if err != nil {
		return 0, err
	}
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EOPNOTSUPP
	}
	switch s.Type {
	case abi.SOCK_STREAM:
		return s.sendStream(ctx, src, m, u)
	case abi.SOCK_SEQPACKET:
		if err := s.TakeError(); err != nil {
			return 0, err
		}
		if s.state() != established {
			if s.shut.Load()&sndShut != 0 {
				return 0, abi.EPIPE
			}
			return 0, abi.ENOTCONN
		}
		m.Name = nil
	}
	return s.sendDatagram(ctx, src, m, u)
}

// sendStream is unix_stream_sendmsg.
func (s *Socket) sendStream(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg, u abi.Ucred) (int64, error) {
	st := s.state()
	if len(m.Name) > 0 {
		if st == established {
			return 0, abi.EISCONN
		}
		return 0, abi.EOPNOTSUPP
	}
	if s.shut.Load()&sndShut != 0 {
		return 0, abi.EPIPE
	}
	peer := s.peer.Load()
	if peer == nil {
		return 0, abi.ENOTCONN
	}
	nonblock, timeo := m.Nonblocking(), s.SndTimeoNs.Load()
	done := int64(0)
	for src.Len() > 0 {
		if s.wmem.Load() >= int64(s.SndBuf.Load()) {
			err := s.Block(ctx, nonblock, socket.EvOut, timeo, func() error {
				if e := s.TakeError(); e != nil {
					return e
				}
				if s.shut.Load()&sndShut != 0 {
					return abi.EPIPE
				}
				if s.wmem.Load() >= int64(s.SndBuf.Load()) {
					return abi.EAGAIN
				}
				return nil
			})
			if err != nil {
				return partial(done, err)
			}
		}
		if s.shut.Load()&sndShut != 0 || peer.shut.Load()&rcvShut != 0 {
			return partial(done, abi.EPIPE)
		}
		if done == 0 && m.Control.Rights == nil && src.Len() <= 2048 {
			n, err := peer.rq.merge(s, u, src)
			done += int64(n)
			if err != nil {
				return partial(done, err)
			}
			if n > 0 {
				peer.Queue.Notify(socket.EvIn)
				continue
			}
		}
		// At most half of the buffer goes into one piece.
		want := min(src.Len(), max(int(s.SndBuf.Load())/2-64, 1), 32768)
		b := socket.NewBlock(want)
		n, err := src.Read(b.Room()[:want])
		if n == 0 {
			b.Free()
			return partial(done, err)
		}
		b.Extend(n)
		q := messages.Get().(*message)
		*q = message{block: b, from: s, charge: n + overhead, cred: u}
		if m.Control.Rights != nil {
			if gerr := inFlight(ctx, m.Control.Rights); gerr != nil {
				b.Free()
				messages.Put(q)
				return partial(done, gerr)
			}
			q.rights, m.Control.Rights = m.Control.Rights, nil
		}
		s.wmem.Add(int64(q.charge))
		if !peer.rq.push(q) {
			if q.rights != nil {
				m.Control.Rights = landed(q.rights)
				q.rights = nil
			}
			q.done(nil)
			return partial(done, abi.EPIPE)
		}
		done += int64(n)
		peer.Queue.Notify(socket.EvIn)
		if err != nil {
			return done, nil
		}
	}
	return done, nil
}

// partial prefers what was done to the error.
func partial(done int64, err error) (int64, error) {
	if done > 0 {
		return done, nil
	}
	return 0, err
}

// sendDatagram is unix_dgram_sendmsg.
func (s *Socket) sendDatagram(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg, u abi.Ucred) (int64, error) {
	var named []byte
	if len(m.Name) > 0 {
		if _, _, err := parse(m.Name); err != nil {
			return 0, err
		}
		named = m.Name
	}
	peer := s.peer.Load()
	if named == nil && peer == nil {
		if s.shut.Load()&sndShut != 0 && s.dead.Load() {
			return 0, abi.EPIPE
		}
		return 0, abi.ENOTCONN
	}
	if s.PassCred.Load() {
		if err := s.autobind(); err != nil {
			return 0, err
		}
	}
	n := src.Len()
	if n > int(s.SndBuf.Load())-32 {
		return 0, abi.EMSGSIZE
	}
	nonblock, timeo := m.Nonblocking(), s.SndTimeoNs.Load()
	// Memory first, as sock_alloc_send_pskb.
	err := s.Block(ctx, nonblock, socket.EvOut, timeo, func() error {
		if e := s.TakeError(); e != nil {
			return e
		}
		if s.shut.Load()&sndShut != 0 {
			return abi.EPIPE
		}
		if s.wmem.Load() >= int64(s.SndBuf.Load()) {
			return abi.EAGAIN
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	q := messages.Get().(*message)
	*q = message{cred: u, charge: n + overhead}
	if n > 0 {
		q.block = socket.NewBlock(n)
		got, err := src.Read(q.block.Room()[:n])
		q.block.Extend(got)
		if got < n {
			q.done(nil)
			if err == nil {
				err = abi.EFAULT
			}
			return 0, err
		}
	}
	other := peer
	if named != nil {
		if other, err = s.find(ctx, named); err != nil {
			q.done(nil)
			return 0, err
		}
	}
	if q.addr = s.address(); len(q.addr) <= 2 {
		q.addr = nil
	}
	if m.Control.Rights != nil {
		if err := inFlight(ctx, m.Control.Rights); err != nil {
			q.done(nil)
			return 0, err
		}
		q.rights, m.Control.Rights = m.Control.Rights, nil
	}
	s.wmem.Add(int64(q.charge))
	q.from = s
	err = s.Block(ctx, nonblock, socket.EvOut, timeo, func() error {
		switch {
		case !s.maySend(other):
			return abi.EPERM
		case other.dead.Load():
			if named == nil {
				if s.connectionless() {
					s.peer.CompareAndSwap(other, nil)
					return abi.ECONNREFUSED
				}
				return abi.EPIPE
			}
			return abi.ECONNREFUSED
		case other.shut.Load()&rcvShut != 0:
			return abi.EPIPE
		case s.shut.Load()&sndShut != 0 && !s.connectionless():
			return abi.EPIPE
		case other != s && other.peer.Load() != s && other.rq.fullFor(s):
			return abi.EAGAIN
		}
		if !other.rq.push(q) {
			return abi.ECONNREFUSED
		}
		return nil
	})
	if err != nil {
		if q.rights != nil {
			m.Control.Rights = landed(q.rights)
			q.rights = nil
		}
		q.done(nil)
		return 0, err
	}
	other.Queue.Notify(socket.EvIn)
	return int64(n), nil
}
