// Package netlink implements AF_NETLINK sockets (netlink(7)) as far as programs
// need to see the sandbox's network: NETLINK_ROUTE requests about interfaces,
// addresses and routes (rtnetlink(7)), and NETLINK_KOBJECT_UEVENT without events.
//
// Nothing can be configured: requests that change something fail with EPERM or
// EOPNOTSUPP. Other protocols are EPROTONOSUPPORT.
//
// Lock order: Socket.mu, then Family.mu, then wait queues.
package netlink

import (
	"encoding/binary"
	"sync"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

const sizeofSockaddrNl = 12

// A Family makes netlink sockets.
type Family struct {
	net Network

	mu    sync.Mutex
	ports map[portKey]*Socket
	next  uint32
}

type portKey struct {
	protocol int
	port     uint32
}

// New makes the family; n is what dumps show.
func New(n Network) *Family {
	return &Family{net: n, ports: make(map[portKey]*Socket), next: 1 << 31}
}

// Socket implements socket.Family.
func (fam *Family) Socket(ctx vfs.Context, typ, protocol int) (socket.Socket, error) {
	if typ != abi.SOCK_RAW && typ != abi.SOCK_DGRAM {
		return nil, abi.ESOCKTNOSUPPORT
	}
	if protocol != abi.NETLINK_ROUTE && protocol != abi.NETLINK_KOBJECT_UEVENT {
		return nil, abi.EPROTONOSUPPORT
	}
	s := &Socket{fam: fam}
	s.Init(ctx, abi.AF_NETLINK, typ, protocol)
	return s, nil
}

// Pair implements socket.Family.
func (fam *Family) Pair(vfs.Context, int, int) (socket.Socket, socket.Socket, error) {
	return nil, nil, abi.EOPNOTSUPP
}

// A Socket is a netlink socket.
type Socket struct {
	socket.Base
	fam *Family

	mu     sync.Mutex
	port   uint32 // 0: not bound
	groups uint32
	dst    uint32 // connected to port; only the kernel, 0, answers
	queue  [][]byte
	bytes  int
	opts   map[int]int32
}

// Read implements vfs.FileOps.
func (s *Socket) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	return socket.ReadMsg(s, ctx, f, dst, fl)
}

// Write implements vfs.FileOps.
func (s *Socket) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	return socket.WriteMsg(s, ctx, f, src, fl)
}

// Ioctl implements vfs.FileOps.
func (s *Socket) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	return socket.Ioctl(&s.Base, ctx, f, cmd, arg)
}

func parse(b []byte) (port, groups uint32, err error) {
	if len(b) < sizeofSockaddrNl || binary.LittleEndian.Uint16(b) != abi.AF_NETLINK {
		return 0, 0, abi.EINVAL
	}
	return binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), nil
}

func sockaddr(b []byte, port, groups uint32) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, abi.AF_NETLINK)
	return le.AppendUint32(le.AppendUint32(b, port), groups)
}

// Bind implements socket.Socket (netlink_bind).
func (s *Socket) Bind(ctx vfs.Context, addr []byte) error {
	port, groups, err := parse(addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port != 0 && s.port != port {
		return abi.EINVAL
	}
	s.groups = groups
	return s.bindLocked(ctx, port)
}

// bindLocked takes a port: the process's id if it is free, when port is 0.
func (s *Socket) bindLocked(ctx vfs.Context, port uint32) error {
	if s.port != 0 {
		return nil
	}
	s.fam.mu.Lock()
	defer s.fam.mu.Unlock()
	if port == 0 {
		port = uint32(ctx.PID())
		for port == 0 || s.fam.ports[portKey{s.Protocol, port}] != nil {
			s.fam.next++
			port = s.fam.next
		}
	} else if s.fam.ports[portKey{s.Protocol, port}] != nil {
		return abi.EADDRINUSE
	}
	s.port = port
	s.fam.ports[portKey{s.Protocol, port}] = s
	return nil
}

// Connect implements socket.Socket.
func (s *Socket) Connect(ctx vfs.Context, addr []byte, _ bool) error {
	if len(addr) < 2 {
		return abi.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if binary.LittleEndian.Uint16(addr) == abi.AF_UNSPEC {
		s.dst = 0
		return nil
	}
	port, _, err := parse(addr)
	if err != nil {
		return err
	}
	if port != 0 && !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
		return abi.EPERM
	}
	if err := s.bindLocked(ctx, 0); err != nil {
		return err
	}
	s.dst = port
	return nil
}

// Listen implements socket.Socket.
func (s *Socket) Listen(vfs.Context, int) error { return abi.EOPNOTSUPP }

// Accept implements socket.Socket.
func (s *Socket) Accept(vfs.Context, bool) (socket.Socket, error) { return nil, abi.EOPNOTSUPP }

// Shutdown implements socket.Socket.
func (s *Socket) Shutdown(vfs.Context, int) error { return abi.EOPNOTSUPP }

// Name implements socket.Socket.
func (s *Socket) Name(_ vfs.Context, peer bool) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if peer {
		return sockaddr(nil, s.dst, 0), nil
	}
	return sockaddr(nil, s.port, s.groups), nil
}

// Release implements vfs.FileOps.
func (s *Socket) Release(*vfs.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port != 0 {
		s.fam.mu.Lock()
		delete(s.fam.ports, portKey{s.Protocol, s.port})
		s.fam.mu.Unlock()
	}
	s.queue = nil
}

// Readiness implements vfs.FileOps.
func (s *Socket) Readiness(mask wait.Events) wait.Events {
	s.mu.Lock()
	defer s.mu.Unlock()
	ev := socket.EvOut
	if len(s.queue) > 0 {
		ev |= socket.EvIn
	}
	if s.SoError.Load() != 0 {
		ev |= socket.EvErr
	}
	return ev & (mask | socket.EvErr | socket.EvHup)
}

// SendMsg implements socket.Socket: requests to the kernel are answered at once.
func (s *Socket) SendMsg(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg) (int64, error) {
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EOPNOTSUPP
	}
	s.mu.Lock()
	dst := s.dst
	var err error
	if len(m.Name) > 0 {
		dst, _, err = parse(m.Name)
	}
	if err == nil {
		err = s.bindLocked(ctx, 0)
	}
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := src.Len()
	if n > int(s.SndBuf.Load())-32 {
		return 0, abi.EMSGSIZE
	}
	b := make([]byte, n)
	if got, err := src.Read(b); got < n {
		if err == nil {
			err = abi.EFAULT
		}
		return 0, err
	}
	if dst != 0 {
		if !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
			return 0, abi.EPERM
		}
		return 0, abi.ECONNREFUSED
	}
	if s.Protocol != abi.NETLINK_ROUTE {
		return 0, abi.ECONNREFUSED
	}
	s.requests(ctx, b)
	return int64(n), nil
}

// deliver queues a datagram; one too many sets ENOBUFS, as netlink_overrun.
func (s *Socket) deliver(b []byte) {
	s.mu.Lock()
	if s.bytes+len(b) > int(s.RcvBuf.Load()) && len(s.queue) > 0 {
		s.mu.Unlock()
		s.SetError(abi.ENOBUFS)
		return
	}
	s.queue = append(s.queue, b)
	s.bytes += len(b)
	s.mu.Unlock()
	s.Queue.Notify(socket.EvIn)
}

// RecvMsg implements socket.Socket.
func (s *Socket) RecvMsg(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	if m.Flags&abi.MSG_OOB != 0 {
		return 0, abi.EOPNOTSUPP
	}
	var n int64
	err := s.Block(ctx, m.Nonblocking(), socket.EvIn, s.RcvTimeoNs.Load(), func() error {
		if e := s.TakeError(); e != nil {
			return e
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.queue) == 0 {
			return abi.EAGAIN
		}
		b := s.queue[0]
		want := min(len(b), dst.Len())
		if got, err := dst.Write(b[:want]); got < want {
			if err == nil {
				err = abi.EFAULT
			}
			return err
		}
		n = int64(want)
		if want < len(b) {
			m.OutFlags |= abi.MSG_TRUNC
			if m.Flags&abi.MSG_TRUNC != 0 {
				n = int64(len(b))
			}
		}
		m.Name = sockaddr(m.NameBuf[:0], 0, 0)
		if s.PassCred.Load() {
			m.Control.HasCred, m.Control.Cred = true, abi.Ucred{}
		}
		if m.Flags&abi.MSG_PEEK == 0 {
			s.queue[0] = nil
			s.queue = s.queue[1:]
			s.bytes -= len(b)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// SetSockOpt implements socket.Socket.
func (s *Socket) SetSockOpt(ctx vfs.Context, level, name int, value []byte) error {
	if level != abi.SOL_NETLINK {
		return s.Base.SetSockOpt(ctx, level, name, value)
	}
	v, err := socket.IntValue(value)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case abi.NETLINK_ADD_MEMBERSHIP, abi.NETLINK_DROP_MEMBERSHIP:
		if v < 1 || v > 64 {
			return abi.EINVAL
		}
		if v <= 32 {
			if name == abi.NETLINK_ADD_MEMBERSHIP {
				s.groups |= 1 << (v - 1)
			} else {
				s.groups &^= 1 << (v - 1)
			}
		}
		return nil
	case abi.NETLINK_PKTINFO, abi.NETLINK_BROADCAST_ERROR, abi.NETLINK_NO_ENOBUFS, abi.NETLINK_CAP_ACK,
		abi.NETLINK_EXT_ACK, abi.NETLINK_GET_STRICT_CHK:
		if s.opts == nil {
			s.opts = make(map[int]int32)
		}
		s.opts[name] = min(max(v, -v), 1)
		return nil
	}
	return abi.ENOPROTOOPT
}

// GetSockOpt implements socket.Socket.
func (s *Socket) GetSockOpt(ctx vfs.Context, level, name, size int) ([]byte, error) {
	if level != abi.SOL_NETLINK {
		return s.Base.GetSockOpt(ctx, level, name, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case abi.NETLINK_PKTINFO, abi.NETLINK_BROADCAST_ERROR, abi.NETLINK_NO_ENOBUFS, abi.NETLINK_CAP_ACK,
		abi.NETLINK_EXT_ACK, abi.NETLINK_GET_STRICT_CHK:
		return socket.Int(s.opts[name]), nil
	case abi.NETLINK_LIST_MEMBERSHIPS:
		return socket.Int(int32(s.groups)), nil
	}
	return nil, abi.ENOPROTOOPT
}
