// Package hostinet implements AF_INET and AF_INET6 sockets by sockets of the
// host (--network=host): every one of the guest's has one of the Sentry's, in
// the network namespace that the Sentry was left in.
//
// Guests never pass bytes to the host unseen: addresses, options and control
// messages are checked and rebuilt. Raw sockets, error queues and options that
// reach beyond the socket are refused. The Sentry has no capability, so ports
// below the host's net.ipv4.ip_unprivileged_port_start can't be bound.
//
// Lock order: Poller.mu, then wait queues.
package hostinet

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/hostsock"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A Family makes such sockets.
type Family struct {
	Poller *Poller
	V6     bool
}

// Socket implements socket.Family.
func (fam *Family) Socket(ctx vfs.Context, typ, protocol int) (socket.Socket, error) {
	if protocol < 0 || protocol > abi.IPPROTO_MPTCP {
		return nil, abi.EINVAL
	}
	want := 0
	switch typ {
	case abi.SOCK_STREAM:
		want = abi.IPPROTO_TCP
	case abi.SOCK_DGRAM:
		if protocol == abi.IPPROTO_ICMP || protocol == abi.IPPROTO_ICMPV6 {
			return nil, abi.EACCES
		}
		want = abi.IPPROTO_UDP
	case abi.SOCK_RAW:
		if !ctx.Cred().Can(abi.CAP_NET_RAW) {
			return nil, abi.EPERM
		}
		return nil, abi.EPROTONOSUPPORT
	default:
		return nil, abi.ESOCKTNOSUPPORT
	}
	if protocol != 0 && protocol != want {
		return nil, abi.EPROTONOSUPPORT
	}
	af := abi.AF_INET
	if fam.V6 {
		af = abi.AF_INET6
	}
	fd, err := unix.Socket(af, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, want)
	if err != nil {
		return nil, abi.FromHost(err)
	}
	return fam.Poller.newSocket(ctx, fd, af, typ, want)
}

// Pair implements socket.Family.
func (fam *Family) Pair(vfs.Context, int, int) (socket.Socket, socket.Socket, error) {
	return nil, nil, abi.EOPNOTSUPP
}

// A Socket is a socket of the host's.
type Socket struct {
	socket.Base
	poller *Poller
	fd     int
	id     int32 // in the poller

}

func (p *Poller) newSocket(ctx vfs.Context, fd, af, typ, proto int) (*Socket, error) {
	s := &Socket{poller: p, fd: fd}
	s.Init(ctx, af, typ, proto)
	if err := p.add(s); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

// Read implements vfs.FileOps.
func (s *Socket) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	return socket.ReadMsg(s, ctx, f, dst, fl)
}

// Write implements vfs.FileOps.
func (s *Socket) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	return socket.WriteMsg(s, ctx, f, src, fl)
}

// Release implements vfs.FileOps.
func (s *Socket) Release(*vfs.File) {
	s.poller.remove(s)
	unix.Close(s.fd)
}

// Readiness implements vfs.FileOps.
func (s *Socket) Readiness(mask wait.Events) wait.Events {
	const events = abi.POLLIN | abi.POLLOUT | abi.POLLPRI | abi.POLLRDNORM | abi.POLLWRNORM | abi.POLLRDBAND | abi.POLLWRBAND | abi.POLLRDHUP
	p := [1]unix.PollFd{{Fd: int32(s.fd), Events: int16(mask & events)}}
	if _, err := unix.Ppoll(p[:], &unix.Timespec{}, nil); err != nil {
		return 0
	}
	return wait.Events(uint16(p[0].Revents)) & (mask | socket.EvErr | socket.EvHup)
}

// checkAddr copies an address that may go to the host: of the socket's family
// (or AF_UNSPEC, which disconnects), and not longer than its kind.
func (s *Socket) checkAddr(b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, abi.EINVAL
	}
	switch fam := int(binary.LittleEndian.Uint16(b)); fam {
	case abi.AF_UNSPEC, abi.AF_INET:
		if len(b) > abi.SizeofSockIn {
			b = b[:abi.SizeofSockIn]
		}
	case abi.AF_INET6:
		if len(b) > abi.SizeofSockIn6 {
			b = b[:abi.SizeofSockIn6]
		}
	default:
		return nil, abi.EAFNOSUPPORT
	}
	return append([]byte(nil), b...), nil
}

// Bind implements socket.Socket.
func (s *Socket) Bind(ctx vfs.Context, addr []byte) error {
	a, err := s.checkAddr(addr)
	if err != nil {
		return err
	}
	return abi.FromHost(hostsock.Bind(s.fd, a))
}

// Listen implements socket.Socket.
func (s *Socket) Listen(_ vfs.Context, backlog int) error {
	return abi.FromHost(unix.Listen(s.fd, backlog))
}

// Accept implements socket.Socket.
func (s *Socket) Accept(ctx vfs.Context, nonblock bool) (socket.Socket, error) {
	var c *Socket
	err := s.Block(ctx, nonblock, socket.EvIn, s.RcvTimeoNs.Load(), func() error {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return abi.FromHost(err)
		}
		c, err = s.poller.newSocket(ctx, fd, s.Family, s.Type, s.Protocol)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.Inherit(&s.Base)
	return c, nil
}

// Connect implements socket.Socket.
func (s *Socket) Connect(ctx vfs.Context, addr []byte, nonblock bool) error {
	a, err := s.checkAddr(addr)
	if err != nil {
		return err
	}
	err = abi.FromHost(hostsock.Connect(s.fd, a))
	if err != abi.EINPROGRESS && !(err == abi.EALREADY && !nonblock) || nonblock {
		return err
	}
	err = s.Block(ctx, false, socket.EvOut, s.SndTimeoNs.Load(), func() error {
		if s.Readiness(socket.EvOut) == 0 {
			return abi.EAGAIN
		}
		var b [4]byte
		if _, err := hostsock.GetSockOpt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR, b[:]); err != nil {
			return abi.FromHost(err)
		}
		if e := binary.LittleEndian.Uint32(b[:]); e != 0 {
			return abi.Errno(e)
		}
		return nil
	})
	if err == abi.EAGAIN {
		err = abi.EINPROGRESS
	}
	if err == nil {
		hostsock.Connect(s.fd, a) // tells the host that we know: later ones are EISCONN
	}
	return err
}

// Shutdown implements socket.Socket.
func (s *Socket) Shutdown(_ vfs.Context, how int) error {
	if how < abi.SHUT_RD || how > abi.SHUT_RDWR {
		return abi.EINVAL
	}
	err := abi.FromHost(unix.Shutdown(s.fd, how))
	s.Queue.Notify(socket.EvIn | socket.EvOut | socket.EvHup | socket.EvRdhup)
	return err
}

// Name implements socket.Socket.
func (s *Socket) Name(_ vfs.Context, peer bool) ([]byte, error) {
	b := make([]byte, abi.SizeofSockaddr)
	n, err := hostsock.Name(s.fd, peer, b)
	if err != nil {
		return nil, abi.FromHost(err)
	}
	return b[:n], nil
}

// Flags that guests may pass on to the host.
const (
	sendFlags = abi.MSG_OOB | abi.MSG_DONTROUTE | abi.MSG_MORE | abi.MSG_EOR | abi.MSG_CONFIRM | abi.MSG_FASTOPEN
	recvFlags = abi.MSG_OOB | abi.MSG_PEEK | abi.MSG_TRUNC
)

// SendMsg implements socket.Socket.
func (s *Socket) SendMsg(ctx vfs.Context, src *usermem.Buffer, m *socket.Msg) (int64, error) {
	var name []byte
	if len(m.Name) > 0 {
		var err error
		if name, err = s.checkAddr(m.Name); err != nil {
			return 0, err
		}
	}
	control := packControl(m.Control.Others)
	stream := s.Type == abi.SOCK_STREAM
	if !stream && src.Len() > 65535 {
		return 0, abi.EMSGSIZE
	}
	flags := int(m.Flags&sendFlags) | unix.MSG_DONTWAIT
	done := int64(0)
	for {
		want := src.Len()
		if stream {
			want = min(want, socket.MaxBlock)
		}
		b := socket.NewBlock(want)
		n, cerr := src.Read(b.Room()[:want])
		if n < want && (n == 0 || !stream) {
			b.Free()
			if done > 0 {
				return done, nil
			}
			return 0, cerr
		}
		b.Extend(n)
		err := s.Block(ctx, m.Nonblocking(), socket.EvOut, s.SndTimeoNs.Load(), func() error {
			for {
				sent, err := hostsock.SendMsg(s.fd, b.Data(), name, control, flags)
				if err != nil {
					return abi.FromHost(err)
				}
				b.Consume(sent)
				done += int64(sent)
				if b.Len() == 0 {
					return nil
				}
			}
		})
		b.Free()
		if err != nil || src.Len() == 0 || !stream || cerr != nil {
			if done > 0 {
				err = nil
			}
			return done, err
		}
	}
}

// RecvMsg implements socket.Socket.
func (s *Socket) RecvMsg(ctx vfs.Context, dst *usermem.Buffer, m *socket.Msg) (int64, error) {
	if m.Flags&abi.MSG_ERRQUEUE != 0 {
		return 0, abi.EAGAIN
	}
	stream := s.Type == abi.SOCK_STREAM
	flags := int(m.Flags&recvFlags) | unix.MSG_DONTWAIT
	total := dst.Len()
	all := stream && m.Flags&abi.MSG_WAITALL != 0
	var control []byte
	if m.WantControl && !stream {
		control = make([]byte, 512)
	}
	done := int64(0)
	err := s.Block(ctx, m.Nonblocking(), socket.EvIn|socket.EvRdhup, s.RcvTimeoNs.Load(), func() error {
		for {
			want := dst.Len()
			if stream || want > 65536 {
				want = min(want, socket.MaxBlock)
			}
			peekAll := all && flags&unix.MSG_PEEK != 0
			b := socket.NewBlock(want)
			n, nameLen, controlLen, out, err := hostsock.RecvMsg(s.fd, b.Room()[:want], m.NameBuf[:], control, flags)
			if err != nil {
				b.Free()
				return abi.FromHost(err)
			}
			if peekAll && n < want && done == 0 && !m.Nonblocking() && n > 0 {
				b.Free()
				return abi.EAGAIN
			}
			if stream && flags&unix.MSG_TRUNC != 0 {
				b.Free() // the host threw the bytes away
				done += int64(n)
				return nil
			}
			b.Extend(min(n, want))
			got, cerr := dst.Write(b.Data())
			short := got < b.Len()
			b.Free()
			if short && cerr != nil && done == 0 {
				return cerr
			}
			m.OutFlags |= uint32(out) & (abi.MSG_TRUNC | abi.MSG_CTRUNC | abi.MSG_OOB | abi.MSG_EOR)
			if !stream {
				m.Name = m.NameBuf[:nameLen]
				m.Control.Others = unpackControl(control[:controlLen])
				done = int64(n)
				return nil
			}
			done += int64(got)
			switch {
			case n == 0, done >= int64(total), flags&unix.MSG_PEEK != 0, !all && n < want:
				return nil
			}
			if !all {
				// More may be there; take what is, without waiting.
				if s.Readiness(socket.EvIn)&socket.EvIn == 0 {
					return nil
				}
			}
		}
	})
	if done > 0 {
		return done, nil
	}
	return done, err
}

// packControl lays out the control messages that a guest may send: those of the
// IP levels.
func packControl(cs []socket.Cmsg) []byte {
	var b []byte
	for _, c := range cs {
		if c.Level != abi.IPPROTO_IP && c.Level != abi.IPPROTO_IPV6 || len(c.Data) > 256 {
			continue
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(abi.SizeofCmsghdr+len(c.Data)))
		b = binary.LittleEndian.AppendUint32(b, uint32(c.Level))
		b = binary.LittleEndian.AppendUint32(b, uint32(c.Type))
		b = append(b, c.Data...)
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// unpackControl takes received control messages apart. INET sockets carry no
// descriptors.
func unpackControl(b []byte) []socket.Cmsg {
	var cs []socket.Cmsg
	for len(b) >= abi.SizeofCmsghdr {
		n := binary.LittleEndian.Uint64(b)
		if n < abi.SizeofCmsghdr || n > uint64(len(b)) {
			break
		}
		c := socket.Cmsg{Level: int32(binary.LittleEndian.Uint32(b[8:])), Type: int32(binary.LittleEndian.Uint32(b[12:])), Data: b[abi.SizeofCmsghdr:n]}
		if !(c.Level == abi.SOL_SOCKET && c.Type == abi.SCM_RIGHTS) {
			cs = append(cs, c)
		}
		b = b[min(abi.CmsgAlign(int(n)), len(b)):]
	}
	return cs
}

// Ioctl implements vfs.FileOps.
func (s *Socket) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	switch cmd {
	case abi.SIOCINQ, abi.SIOCOUTQ:
		v, err := unix.IoctlGetInt(s.fd, uint(cmd))
		if err != nil {
			return 0, abi.FromHost(err)
		}
		return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(v))
	}
	return socket.Ioctl(&s.Base, ctx, f, cmd, arg)
}

// hostOptions are the options that go to the host; others are unknown, or
// answered by socket.Base.
var hostOptions = map[int]map[int]bool{
	abi.SOL_SOCKET: set(abi.SO_REUSEADDR, abi.SO_REUSEPORT, abi.SO_KEEPALIVE, abi.SO_BROADCAST, abi.SO_DONTROUTE, abi.SO_LINGER,
		abi.SO_OOBINLINE, abi.SO_SNDBUF, abi.SO_RCVBUF, abi.SO_RCVLOWAT, abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMPNS_OLD, abi.SO_NO_CHECK),
	abi.IPPROTO_TCP: set(abi.TCP_NODELAY, abi.TCP_MAXSEG, abi.TCP_CORK, abi.TCP_KEEPIDLE, abi.TCP_KEEPINTVL, abi.TCP_KEEPCNT,
		abi.TCP_SYNCNT, abi.TCP_LINGER2, abi.TCP_DEFER_ACCEPT, abi.TCP_WINDOW_CLAMP, abi.TCP_INFO, abi.TCP_QUICKACK,
		abi.TCP_CONGESTION, abi.TCP_USER_TIMEOUT, abi.TCP_FASTOPEN, abi.TCP_FASTOPEN_CONNECT, abi.TCP_NOTSENT_LOWAT),
	abi.IPPROTO_IP: set(abi.IP_TOS, abi.IP_TTL, abi.IP_PKTINFO, abi.IP_MTU_DISCOVER, abi.IP_RECVTTL, abi.IP_RECVTOS, abi.IP_MTU,
		abi.IP_MULTICAST_TTL, abi.IP_MULTICAST_LOOP, abi.IP_MULTICAST_IF, abi.IP_ADD_MEMBERSHIP, abi.IP_DROP_MEMBERSHIP,
		abi.IP_FREEBIND, abi.IP_BIND_ADDRESS_NO_PORT, abi.IP_RECVERR, abi.IP_OPTIONS),
	abi.IPPROTO_IPV6: set(abi.IPV6_V6ONLY, abi.IPV6_UNICAST_HOPS, abi.IPV6_MULTICAST_HOPS, abi.IPV6_MULTICAST_LOOP,
		abi.IPV6_MULTICAST_IF, abi.IPV6_ADD_MEMBERSHIP, abi.IPV6_DROP_MEMBERSHIP, abi.IPV6_RECVPKTINFO, abi.IPV6_RECVHOPLIMIT,
		abi.IPV6_TCLASS, abi.IPV6_RECVTCLASS, abi.IPV6_MTU_DISCOVER, abi.IPV6_MTU, abi.IPV6_RECVERR, abi.IPV6_DONTFRAG),
}

func set(names ...int) map[int]bool {
	m := make(map[int]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// SetSockOpt implements socket.Socket.
func (s *Socket) SetSockOpt(ctx vfs.Context, level, name int, value []byte) error {
	if level == abi.SOL_SOCKET && !hostOptions[level][name] {
		return s.Base.SetSockOpt(ctx, level, name, value)
	}
	if !hostOptions[level][name] {
		return abi.ENOPROTOOPT
	}
	if name == abi.IP_OPTIONS && level == abi.IPPROTO_IP && len(value) > 0 {
		return abi.EPERM // source routes
	}
	return abi.FromHost(hostsock.SetSockOpt(s.fd, level, name, append([]byte(nil), value...)))
}

// GetSockOpt implements socket.Socket.
func (s *Socket) GetSockOpt(ctx vfs.Context, level, name, size int) ([]byte, error) {
	if level == abi.SOL_SOCKET && !hostOptions[level][name] && name != abi.SO_ERROR && name != abi.SO_ACCEPTCONN {
		return s.Base.GetSockOpt(ctx, level, name, size)
	}
	if level != abi.SOL_SOCKET && !hostOptions[level][name] {
		return nil, abi.ENOPROTOOPT
	}
	b := make([]byte, min(size, 512))
	n, err := hostsock.GetSockOpt(s.fd, level, name, b)
	if err != nil {
		return nil, abi.FromHost(err)
	}
	return b[:n], nil
}

// A Poller hears of events on the sockets: one epoll instance, itself watched
// by Go's poller, so that an idle sandbox costs no thread.
type Poller struct {
	epfd int

	mu   sync.Mutex
	last int32
	byID map[int32]*Socket
}
