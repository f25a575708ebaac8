package unix

import (
	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// RecvMsg implements socket.Socket.
func (s *Socket) RecvMsg(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	if m.Flags&abi.MSG_OOB != 0 {
		if s.Type == abi.SOCK_STREAM {
			return 0, abi.EINVAL
		}
		return 0, abi.EOPNOTSUPP
	}
	switch s.Type {
	case abi.SOCK_STREAM:
		return s.recvStream(ctx, dst, m)
	case abi.SOCK_SEQPACKET:
		if s.state() != established {
			// Linux keeps the state of a socket whose peer has gone.
			return 0, abi.ENOTCONN
		}
	}
	return s.recvDatagram(ctx, dst, m)
}

// giveControl hands the message's credentials and files to the receiver; the
// files move unless the message is only looked at.
func (s *Socket) giveControl(q *message, m *socket.Msg, peek bool) {
	if s.PassCred.Load() {
		m.Control.Cred, m.Control.HasCred = q.cred, true
	}
	if q.rights == nil {
		return
	}
	if peek {
		for _, f := range q.rights {
			f.IncRef()
		}
		m.Control.Rights = append([]*vfs.File(nil), q.rights...)
		return
	}
	m.Control.Rights = landed(q.rights)
	q.rights = nil
}

// recvDatagram is unix_dgram_recvmsg.
func (s *Socket) recvDatagram(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	peek := m.Flags&abi.MSG_PEEK != 0
	var n int64
	try := func() error {
		s.rq.mu.Lock()
		q := s.rq.head
		if q == nil {
			s.rq.mu.Unlock()
			if e := s.TakeError(); e != nil {
				return e
			}
			if s.shut.Load()&rcvShut != 0 {
				n = 0
				return nil
			}
			return abi.EAGAIN
		}
		off := 0
		if s.PeekOffset() >= 0 && peek {
			off = min(s.rq.peekOff, q.len())
		}
		whole := q.len() - off
		want := min(whole, dst.Len())
		if want > 0 {
			if got, err := dst.Write(q.block.Data()[off : off+want]); got < want {
				s.rq.mu.Unlock()
				if err == nil {
					err = abi.EFAULT
				}
				return err
			}
		}
		if want < whole {
			m.OutFlags |= abi.MSG_TRUNC
		}
		n = int64(want)
		if m.Flags&abi.MSG_TRUNC != 0 {
			n = int64(whole)
		}
		if s.Type == abi.SOCK_SEQPACKET {
			m.OutFlags |= abi.MSG_EOR
		}
		if q.addr != nil {
			m.Name = append(m.NameBuf[:0], q.addr...)
		}
		s.giveControl(q, m, peek)
		if peek {
			if s.PeekOffset() >= 0 {
				s.rq.peekOff = off + want
			}
			s.rq.mu.Unlock()
			return nil
		}
		s.rq.pop()
		s.rq.peekOff = 0
		blocked := s.rq.takeBlocked()
		s.rq.mu.Unlock()
		q.done(blocked)
		return nil
	}
	err := s.Block(ctx, m.Nonblocking(), socket.EvIn|socket.EvRdhup, s.RcvTimeoNs.Load(), try)
	if err != nil {
		return 0, err
	}
	return n, nil
}

// PeekOffset is SO_PEEK_OFF; negative when it is off.
func (s *Socket) PeekOffset() int {
	if !s.peekOffOn.Load() {
		return -1
	}
	return int(s.Opts().PeekOff)
}

// recvStream is unix_stream_read_generic.
func (s *Socket) recvStream(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	if s.state() != established {
		return 0, abi.EINVAL
	}
	peek := m.Flags&abi.MSG_PEEK != 0
	target := 1
	if m.Flags&abi.MSG_WAITALL != 0 {
		target = dst.Len()
	} else {
		target = min(int(s.RcvLowat.Load()), dst.Len())
	}
	nonblock := m.Nonblocking()
	done := 0
	stop := false // met what must not be glued to what we have
	var cred abi.Ucred
	try := func() error {
		var q *message
		for !stop && dst.Len() > 0 {
			s.rq.mu.Lock()
			q = s.rq.head
			skip := 0
			if peek {
				skip = done
				if s.PeekOffset() >= 0 {
					skip += s.rq.peekOff
				}
				for q != nil && skip >= q.len() {
					skip -= q.len()
					q = q.next
				}
			}
			if q == nil {
				s.rq.mu.Unlock()
				break
			}
			if done > 0 && s.PassCred.Load() && q.cred != cred {
				s.rq.mu.Unlock()
				stop = true
				break
			}
			if done > 0 && q.rights != nil && m.Control.Rights != nil {
				s.rq.mu.Unlock()
				stop = true
				break
			}
			cred = q.cred
			want := min(q.len()-skip, dst.Len())
			got, err := dst.Write(q.block.Data()[skip : skip+want])
			done += got
			if got > 0 && (q.rights != nil || m.Control.Rights == nil) {
				had := q.rights != nil
				s.giveControl(q, m, peek)
				stop = stop || had
			}
			if peek {
				s.rq.mu.Unlock()
				if err != nil {
					return err
				}
				continue
			}
			q.block.Consume(got)
			s.rq.bytes -= got
			if q.len() == 0 {
				s.rq.pop()
				s.rq.mu.Unlock()
				q.done(nil)
			} else {
				s.rq.mu.Unlock()
			}
			if err != nil {
				return err
			}
		}
		if done >= target && (done > 0 || dst.Len() == 0) || stop {
			return nil
		}
		if done > 0 && nonblock {
			return nil
		}
		if e := s.TakeError(); e != nil {
			return e
		}
		if s.shut.Load()&rcvShut != 0 {
			return nil
		}
		return abi.EAGAIN
	}
	err := s.Block(ctx, nonblock, socket.EvIn|socket.EvRdhup, s.RcvTimeoNs.Load(), try)
	if peek && s.PeekOffset() >= 0 {
		s.rq.mu.Lock()
		s.rq.peekOff += done
		s.rq.mu.Unlock()
	} else if !peek && s.peekOffOn.Load() {
		s.rq.mu.Lock()
		s.rq.peekOff = max(s.rq.peekOff-done, 0)
		s.rq.mu.Unlock()
	}
	return partial(int64(done), err)
}
