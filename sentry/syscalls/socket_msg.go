package syscalls

import (
	"encoding/binary"
	"math"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var socketMsgCalls = []kernel.Row{
	{Nr: abi.SYS_sendto, Name: "sendto", Fn: sysSendto, Args: []kernel.ArgKind{kernel.FDArg, kernel.BufIn, kernel.UDec, kernel.MsgFlags, kernel.SockAddrIn, kernel.Dec}},
	{Nr: abi.SYS_recvfrom, Name: "recvfrom", Fn: sysRecvfrom, Args: []kernel.ArgKind{kernel.FDArg, kernel.BufOut, kernel.UDec, kernel.MsgFlags, kernel.SockAddrOut, kernel.Ptr}},
	{Nr: abi.SYS_sendmsg, Name: "sendmsg", Fn: sysSendmsg, Args: []kernel.ArgKind{kernel.FDArg, kernel.MsgHdrIn, kernel.MsgFlags}},
	{Nr: abi.SYS_recvmsg, Name: "recvmsg", Fn: sysRecvmsg, Args: []kernel.ArgKind{kernel.FDArg, kernel.MsgHdrOut, kernel.MsgFlags}},
	{Nr: abi.SYS_sendmmsg, Name: "sendmmsg", Fn: sysSendmmsg, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.UDec, kernel.MsgFlags}},
	{Nr: abi.SYS_recvmmsg, Name: "recvmmsg", Fn: sysRecvmmsg, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.UDec, kernel.MsgFlags, kernel.TimespecIn}},
}

// send does the common part of the sending calls: flags, SIGPIPE.
func send(t *kernel.Task, f *vfs.File, s socket.Socket, src *usermem.Buffer, m *socket.Msg, flags uint32) (uintptr, error) {
	m.Flags = flags
	if f.Nonblocking() {
		m.Flags |= abi.MSG_DONTWAIT
	}
	n, err := s.SendMsg(t, src, m)
	if err == abi.EPIPE && flags&abi.MSG_NOSIGNAL == 0 && s.Common().Type == abi.SOCK_STREAM {
		t.SendSelf(abi.SIGPIPE)
	}
	return uintptr(n), err
}

func sysSendto(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	m := socket.NewMsg()
	defer m.Free()
	if p := a.Addr(4); p != 0 {
		if m.Name, err = copyInAddr(t, p, a.Int(5), m.NameBuf[:]); err != nil {
			return 0, err
		}
	}
	var b usermem.Buffer
	b.Init(t.Memory(), a.Addr(1), int(min(a.Size(2), maxRW)))
	return send(t, f, s, &b, m, a.Uint(3))
}

func sysRecvfrom(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	m := socket.NewMsg()
	defer m.Free()
	m.Flags = a.Uint(3)
	if f.Nonblocking() {
		m.Flags |= abi.MSG_DONTWAIT
	}
	var b usermem.Buffer
	b.Init(t.Memory(), a.Addr(1), int(min(a.Size(2), maxRW)))
	n, err := s.RecvMsg(t, &b, m)
	if err != nil {
		return 0, err
	}
	if p := a.Addr(4); p != 0 {
		if err := copyOutAddr(t, m.Name, p, a.Addr(5)); err != nil {
			return 0, err
		}
	}
	return uintptr(n), nil
}

// copyInMsghdr reads a struct msghdr and its iovec (copy_msghdr_from_user).
func copyInMsghdr(t *kernel.Task, p usermem.Addr, h *abi.Msghdr, b *usermem.Buffer) error {
	var raw [abi.SizeofMsghdr]byte
	if _, err := t.Memory().CopyIn(p, raw[:]); err != nil {
		return err
	}
	h.UnmarshalFrom(raw[:])
	if h.Name == 0 {
		h.NameLen = 0
	}
	if h.NameLen < 0 {
		return abi.EINVAL
	}
	h.NameLen = min(h.NameLen, abi.SizeofSockaddr)
	if h.IovLen > 1024 {
		return abi.EMSGSIZE
	}
	r, err := usermem.CopyInRanges(t.Memory(), usermem.Addr(h.Iov), int(h.IovLen))
	if err != nil {
		return err
	}
	b.InitRanges(t.Memory(), r)
	return nil
}

func sysSendmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return sendmsg(t, f, s, a.Addr(1), a.Uint(2))
}

func sendmsg(t *kernel.Task, f *vfs.File, s socket.Socket, p usermem.Addr, flags uint32) (uintptr, error) {
	var h abi.Msghdr
	var b usermem.Buffer
	if err := copyInMsghdr(t, p, &h, &b); err != nil {
		return 0, err
	}
	m := socket.NewMsg()
	defer m.Free() // drops the files that were not sent
	if h.NameLen > 0 {
		var err error
		if m.Name, err = copyInAddr(t, usermem.Addr(h.Name), h.NameLen, m.NameBuf[:]); err != nil {
			return 0, err
		}
	}
	if h.ControlLen > 0 {
		if err := parseControl(t, s, usermem.Addr(h.Control), h.ControlLen, &m.Control); err != nil {
			return 0, err
		}
	}
	return send(t, f, s, &b, m, flags)
}

func sysRecvmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return recvmsg(t, f, s, a.Addr(1), a.Uint(2))
}

func recvmsg(t *kernel.Task, f *vfs.File, s socket.Socket, p usermem.Addr, flags uint32) (uintptr, error) {
	var h abi.Msghdr
	var b usermem.Buffer
	if err := copyInMsghdr(t, p, &h, &b); err != nil {
		return 0, err
	}
	m := socket.NewMsg()
	defer m.Free()
	m.Flags, m.WantControl = flags, h.ControlLen > 0 && h.Control != 0
	if f.Nonblocking() {
		m.Flags |= abi.MSG_DONTWAIT
	}
	n, err := s.RecvMsg(t, &b, m)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if h.Name != 0 {
		if k := min(int(h.NameLen), len(m.Name)); k > 0 {
			if _, err := t.Memory().CopyOut(usermem.Addr(h.Name), m.Name[:k]); err != nil {
				return 0, err
			}
		}
		if err := usermem.CopyOutUint32(t.Memory(), p+8, uint32(len(m.Name))); err != nil {
			return 0, err
		}
	}
	var used uint64
	if m.WantControl {
		if used, err = writeControl(t, m, usermem.Addr(h.Control), h.ControlLen); err != nil {
			return 0, err
		}
	} else if m.Control.HasCred || m.Control.Rights != nil {
		m.OutFlags |= abi.MSG_CTRUNC
	}
	var tail [12]byte // msg_controllen and msg_flags
	le.PutUint64(tail[:], used)
	le.PutUint32(tail[8:], m.OutFlags|flags&abi.MSG_CMSG_CLOEXEC)
	if _, err := t.Memory().CopyOut(p+40, tail[:]); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

func sysSendmmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	done := uintptr(0)
	for p, n := a.Addr(1), min(a.Uint(2), 1024); n > 0; p, n = p+abi.SizeofMmsghdr, n-1 {
		var sent uintptr
		if sent, err = sendmsg(t, f, s, p, a.Uint(3)); err != nil {
			break
		}
		if err = usermem.CopyOutUint32(t.Memory(), p+abi.SizeofMsghdr, uint32(sent)); err != nil {
			break
		}
		done++
	}
	if done > 0 {
		return done, nil
	}
	return 0, err
}

func sysRecvmmsg(t *kernel.Task, a kernel.Args) (uintptr, error) {
	deadline := int64(math.MaxInt64)
	if p := a.Addr(4); p != 0 {
		ts, err := copyInTimespec(t, p)
		if err != nil {
			return 0, err
		}
		if !ts.Valid() {
			return 0, abi.EINVAL
		}
		if d := deadlineAfter(t, ts.Ns()); d >= 0 {
			deadline = d
		}
	}
	f, s, err := socketFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if e := s.Common().TakeError(); e != nil {
		return 0, e
	}
	flags, done := a.Uint(3), uintptr(0)
	for p, n := a.Addr(1), min(a.Uint(2), 1024); n > 0; p, n = p+abi.SizeofMmsghdr, n-1 {
		var got uintptr
		if got, err = recvmsg(t, f, s, p, flags&^abi.MSG_WAITFORONE); err != nil {
			break
		}
		if err = usermem.CopyOutUint32(t.Memory(), p+abi.SizeofMsghdr, uint32(got)); err != nil {
			break
		}
		done++
		if flags&abi.MSG_WAITFORONE != 0 {
			flags |= abi.MSG_DONTWAIT
		}
		// The timeout is looked at after each message only: recvmmsg(2), BUGS.
		if deadline != math.MaxInt64 && t.Kernel().Clocks().Monotonic() >= deadline {
			break
		}
	}
	if p := a.Addr(4); p != 0 && done > 0 {
		if err := copyOutTimespec(t, p, abi.NsToTimespec(leftUntil(t, deadline))); err != nil {
			return 0, err
		}
	}
	if done > 0 {
		return done, nil
	}
	return 0, err
}
