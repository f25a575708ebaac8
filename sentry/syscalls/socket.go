package syscalls

import (
	"encoding/binary"
	"math"
	"strconv"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var socketCalls = []kernel.Row{
	{Nr: abi.SYS_socket, Name: "socket", Fn: sysSocket, Args: []kernel.ArgKind{kernel.SockFamily, kernel.SockType, kernel.Dec}},
	{Nr: abi.SYS_socketpair, Name: "socketpair", Fn: sysSocketpair, Args: []kernel.ArgKind{kernel.SockFamily, kernel.SockType, kernel.Dec, kernel.FDPairOut}},
	{Nr: abi.SYS_bind, Name: "bind", Fn: sysBind, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockAddrIn, kernel.Dec}},
	{Nr: abi.SYS_listen, Name: "listen", Fn: sysListen, Args: []kernel.ArgKind{kernel.FDArg, kernel.Dec}},
	{Nr: abi.SYS_accept, Name: "accept", Fn: sysAccept, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockAddrOut, kernel.Ptr}},
	{Nr: abi.SYS_accept4, Name: "accept4", Fn: sysAccept4, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockAddrOut, kernel.Ptr, kernel.SockType}},
	{Nr: abi.SYS_connect, Name: "connect", Fn: sysConnect, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockAddrIn, kernel.Dec}},
	{Nr: abi.SYS_getsockname, Name: "getsockname", Fn: sysGetsockname, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockAddrOut, kernel.Ptr}},
	{Nr: abi.SYS_getpeername, Name: "getpeername", Fn: sysGetpeername, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockAddrOut, kernel.Ptr}},
	{Nr: abi.SYS_shutdown, Name: "shutdown", Fn: sysShutdown, Args: []kernel.ArgKind{kernel.FDArg, kernel.Dec}},
	{Nr: abi.SYS_setsockopt, Name: "setsockopt", Fn: sysSetsockopt, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockLevel, kernel.Dec, kernel.BufIn, kernel.Dec}},
	{Nr: abi.SYS_getsockopt, Name: "getsockopt", Fn: sysGetsockopt, Args: []kernel.ArgKind{kernel.FDArg, kernel.SockLevel, kernel.Dec, kernel.Ptr, kernel.IntOut}},
}

// families are the socket families that boot registered.
func socketFamilies(t *kernel.Task) socket.Families {
	f, _ := t.Kernel().Network().(socket.Families)
	return f
}

// socketFile returns the socket behind a descriptor, with a reference to the
// file: EBADF, ENOTSOCK.
func socketFile(t *kernel.Task, fd int32) (*vfs.File, socket.Socket, error) {
	f, err := fdFile(t, fd)
	if err != nil {
		return nil, nil, err
	}
	s, ok := f.Ops().(socket.Socket)
	if !ok {
		f.DecRef()
		return nil, nil, abi.ENOTSOCK
	}
	return f, s, nil
}

// newSocketFile makes the open file of a socket.
func newSocketFile(s socket.Socket, flags uint32) *vfs.File {
	return vfs.NewAnonFile(s, abi.O_RDWR|flags&abi.SOCK_NONBLOCK, "socket:["+strconv.FormatUint(s.Common().Ino(), 10)+"]")
}

// socketType takes a type argument apart.
func socketType(v int32) (typ int, flags uint32, err error) {
	flags = uint32(v) &^ 0xf
	if flags&^uint32(abi.SOCK_CLOEXEC|abi.SOCK_NONBLOCK) != 0 {
		return 0, 0, abi.EINVAL
	}
	return int(v & 0xf), flags, nil
}

func sysSocket(t *kernel.Task, a kernel.Args) (uintptr, error) {
	typ, flags, err := socketType(a.Int(1))
	if err != nil {
		return 0, err
	}
	s, err := socketFamilies(t).New(t, int(a.Int(0)), typ, int(a.Int(2)))
	if err != nil {
		return 0, err
	}
	return installFile(t, newSocketFile(s, flags), flags&abi.SOCK_CLOEXEC != 0)
}

func sysSocketpair(t *kernel.Task, a kernel.Args) (uintptr, error) {
	typ, flags, err := socketType(a.Int(1))
	if err != nil {
		return 0, err
	}
	x, y, err := socketFamilies(t).Pair(t, int(a.Int(0)), typ, int(a.Int(2)))
	if err != nil {
		return 0, err
	}
	return 0, installPair(t, a.Addr(3), flags&abi.SOCK_CLOEXEC != 0, newSocketFile(x, flags), newSocketFile(y, flags))
}

// copyInAddr reads a socket address into buf (move_addr_to_kernel).
func copyInAddr(t *kernel.Task, p usermem.Addr, n int32, buf []byte) ([]byte, error) {
	if n < 0 || n > abi.SizeofSockaddr {
		return nil, abi.EINVAL
	}
	if n == 0 {
		return buf[:0], nil
	}
	_, err := t.Memory().CopyIn(p, buf[:n])
	return buf[:n], err
}

// copyOutAddr writes a socket address, cut to what the caller has room for, and
// its true length (move_addr_to_user).
func copyOutAddr(t *kernel.Task, name []byte, p, lenp usermem.Addr) error {
	room, err := usermem.CopyInUint32(t.Memory(), lenp)
	if err != nil {
		return err
	}
	if int32(room) < 0 {
		return abi.EINVAL
	}
	if n := min(int(room), len(name)); n > 0 {
		if _, err := t.Memory().CopyOut(p, name[:n]); err != nil {
			return err
		}
	}
	return usermem.CopyOutUint32(t.Memory(), lenp, uint32(len(name)))
}

func sysBind(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	addr, err := copyInAddr(t, a.Addr(1), a.Int(2), make([]byte, abi.SizeofSockaddr))
	if err != nil {
		return 0, err
	}
	return 0, s.Bind(t, addr)
}

func sysListen(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, s.Listen(t, int(min(a.Uint(1), 4096))) // net.core.somaxconn
}

func sysAccept(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return accept(t, a.FD(0), a.Addr(1), a.Addr(2), 0)
}

func sysAccept4(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return accept(t, a.FD(0), a.Addr(1), a.Addr(2), a.Uint(3))
}

func accept(t *kernel.Task, fd int32, addr, addrLen usermem.Addr, flags uint32) (uintptr, error) {
	if flags&^uint32(abi.SOCK_CLOEXEC|abi.SOCK_NONBLOCK) != 0 {
		return 0, abi.EINVAL
	}
	f, s, err := socketFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	c, err := s.Accept(t, f.Nonblocking())
	if err != nil {
		return 0, err
	}
	cf := newSocketFile(c, flags)
	if addr != 0 {
		name, err := c.Name(t, true)
		if err != nil {
			err = abi.ECONNABORTED
		} else {
			err = copyOutAddr(t, name, addr, addrLen)
		}
		if err != nil {
			cf.DecRef()
			return 0, err
		}
	}
	return installFile(t, cf, flags&abi.SOCK_CLOEXEC != 0)
}

func sysConnect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	addr, err := copyInAddr(t, a.Addr(1), a.Int(2), make([]byte, abi.SizeofSockaddr))
	if err != nil {
		return 0, err
	}
	return 0, s.Connect(t, addr, f.Nonblocking())
}

func sysGetsockname(t *kernel.Task, a kernel.Args) (uintptr, error) { return sockname(t, &a, false) }
func sysGetpeername(t *kernel.Task, a kernel.Args) (uintptr, error) { return sockname(t, &a, true) }

func sockname(t *kernel.Task, a *kernel.Args, peer bool) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	name, err := s.Name(t, peer)
	if err != nil {
		return 0, err
	}
	return 0, copyOutAddr(t, name, a.Addr(1), a.Addr(2))
}

func sysShutdown(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, s.Shutdown(t, int(a.Int(1)))
}

func sysSetsockopt(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n := a.Int(4)
	if n < 0 {
		return 0, abi.EINVAL
	}
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	value := make([]byte, min(n, math.MaxUint16))
	if _, err := t.Memory().CopyIn(a.Addr(3), value); err != nil {
		return 0, err
	}
	return 0, s.SetSockOpt(t, int(a.Int(1)), int(a.Int(2)), value)
}

func sysGetsockopt(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := usermem.CopyInUint32(t.Memory(), a.Addr(4))
	if err != nil {
		return 0, err
	}
	if int32(n) < 0 {
		return 0, abi.EINVAL
	}
	value, err := s.GetSockOpt(t, int(a.Int(1)), int(a.Int(2)), int(n))
	if err == abi.ERANGE { // SO_PEERGROUPS tells how much it wants
		if err := usermem.CopyOutUint32(t.Memory(), a.Addr(4), uint32(len(value))); err != nil {
			return 0, err
		}
	}
	if err != nil {
		return 0, err
	}
	value = value[:min(len(value), int(n))]
	if _, err := t.Memory().CopyOut(a.Addr(3), value); err != nil {
		return 0, err
	}
	return 0, usermem.CopyOutUint32(t.Memory(), a.Addr(4), uint32(len(value)))
}

// maxControl is net.core.optmem_max: control messages may not be longer.
const maxControl = 131072

// parseControl reads the control messages of a sendmsg (___sys_sendmsg,
// __scm_send).
func parseControl(t *kernel.Task, s socket.Socket, p usermem.Addr, n uint64, c *socket.Control) error {
	if n > math.MaxInt32 || n > maxControl {
		return abi.ENOBUFS
	}
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	if _, err := t.Memory().CopyIn(p, b); err != nil {
		return err
	}
	le := binary.LittleEndian
	local := s.Common().Family == abi.AF_UNIX
	for len(b) >= abi.SizeofCmsghdr {
		l := le.Uint64(b)
		if l < abi.SizeofCmsghdr || l > uint64(len(b)) {
			return abi.EINVAL
		}
		level, typ, data := int32(le.Uint32(b[8:])), int32(le.Uint32(b[12:])), b[abi.SizeofCmsghdr:l]
		switch {
		case level != abi.SOL_SOCKET:
			if !local {
				c.Others = append(c.Others, socket.Cmsg{Level: level, Type: typ, Data: data})
			}
		case typ == abi.SCM_RIGHTS:
			if local {
				if err := takeRights(t, data, c); err != nil {
					return err
				}
			}
		case typ == abi.SCM_CREDENTIALS:
			if local {
				if len(data) != abi.SizeofUcred {
					return abi.EINVAL
				}
				c.Cred.UnmarshalFrom(data)
				c.HasCred = true
			}
		default:
			if local {
				return abi.EINVAL
			}
		}
		b = b[min(abi.CmsgAlign(int(l)), len(b)):]
	}
	return nil
}

// takeRights references the files of an SCM_RIGHTS message.
func takeRights(t *kernel.Task, data []byte, c *socket.Control) error {
	n := len(data) / 4
	if len(c.Rights)+n > abi.ScmMaxFD {
		return abi.EINVAL
	}
	for i := range n {
		f := t.FDTable().Get(int32(binary.LittleEndian.Uint32(data[4*i:])))
		if f == nil {
			return abi.EBADF
		}
		c.Rights = append(c.Rights, f)
	}
	return nil
}

// controlWriter lays control messages out in the receiver's buffer (put_cmsg).
type controlWriter struct {
	buf   []byte
	used  int
	trunc bool
}

func (w *controlWriter) put(level, typ int32, data []byte) {
	room := len(w.buf) - w.used
	if room < abi.SizeofCmsghdr {
		w.trunc = true
		return
	}
	n := abi.SizeofCmsghdr + len(data)
	if n > room {
		w.trunc = true
		n = room
	}
	b := w.buf[w.used:]
	binary.LittleEndian.PutUint64(b, uint64(n))
	binary.LittleEndian.PutUint32(b[8:], uint32(level))
	binary.LittleEndian.PutUint32(b[12:], uint32(typ))
	copy(b[abi.SizeofCmsghdr:n], data)
	w.used += min(abi.CmsgAlign(n), room)
}

// writeControl installs received files and writes all control messages to the
// caller's buffer. It returns the length used.
func writeControl(t *kernel.Task, m *socket.Msg, p usermem.Addr, n uint64) (uint64, error) {
	c := &m.Control
	if !c.HasCred && c.Rights == nil && len(c.Others) == 0 {
		return 0, nil
	}
	w := controlWriter{buf: make([]byte, min(n, maxControl))}
	for _, o := range c.Others {
		w.put(o.Level, o.Type, o.Data)
	}
	if c.HasCred {
		var b [abi.SizeofUcred]byte
		c.Cred.MarshalTo(b[:])
		w.put(abi.SOL_SOCKET, abi.SCM_CREDENTIALS, b[:])
	}
	if c.Rights != nil {
		fits := max((len(w.buf)-w.used-abi.SizeofCmsghdr)/4, 0)
		var fds []byte
		limit := t.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE)
		for i, f := range c.Rights {
			if i >= fits {
				break
			}
			fd, err := t.FDTable().NewFD(f, 0, limit, m.Flags&abi.MSG_CMSG_CLOEXEC != 0)
			if err != nil {
				break
			}
			fds = binary.LittleEndian.AppendUint32(fds, uint32(fd))
		}
		got := len(fds) / 4
		if got > 0 {
			w.put(abi.SOL_SOCKET, abi.SCM_RIGHTS, fds)
		}
		if got < len(c.Rights) {
			w.trunc = true
		}
		c.Rights = c.Rights[got:]
		c.Drop()
	}
	if w.trunc {
		m.OutFlags |= abi.MSG_CTRUNC
	}
	_, err := t.Memory().CopyOut(p, w.buf[:w.used])
	return uint64(w.used), err
}
