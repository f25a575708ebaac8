// Package hostsock makes the host's socket calls with addresses, options and
// control messages as bytes, as guests give them. Callers have checked them.
//
// It holds no state and interprets nothing.
//
// It has no locks.
package hostsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptr is the address of b's first byte; nil if b is empty. The conversions to
// uintptr below stand in the argument list of a system call, where the compiler
// keeps what they point to alive and in place.
func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func result(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// Bind is bind(2).
func Bind(fd int, addr []byte) error {
	_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(ptr(addr)), uintptr(len(addr)))
	return result(e)
}

// Connect is connect(2).
func Connect(fd int, addr []byte) error {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(ptr(addr)), uintptr(len(addr)))
	return result(e)
}

// Name is getsockname(2), or getpeername(2); it returns the length.
func Name(fd int, peer bool, buf []byte) (int, error) {
	nr := uintptr(unix.SYS_GETSOCKNAME)
	if peer {
		nr = unix.SYS_GETPEERNAME
	}
	n := uint32(len(buf))
	_, _, e := unix.Syscall(nr, uintptr(fd), uintptr(ptr(buf)), uintptr(unsafe.Pointer(&n)))
	return min(int(n), len(buf)), result(e)
}

// GetSockOpt is getsockopt(2); it returns the length.
func GetSockOpt(fd, level, name int, buf []byte) (int, error) {
	n := uint32(len(buf))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(ptr(buf)), uintptr(unsafe.Pointer(&n)), 0)
	return min(int(n), len(buf)), result(e)
}

// SetSockOpt is setsockopt(2).
func SetSockOpt(fd, level, name int, value []byte) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(ptr(value)), uintptr(len(value)), 0)
	return result(e)
}

// message makes a struct msghdr of one piece. iov must outlive it.
func message(h *unix.Msghdr, iov *unix.Iovec, data, name, control []byte) {
	if len(data) > 0 {
		iov.Base = &data[0]
		iov.SetLen(len(data))
	}
	h.Iov, h.Iovlen = iov, 1
	if len(name) > 0 {
		h.Name, h.Namelen = &name[0], uint32(len(name))
	}
	if len(control) > 0 {
		h.Control = &control[0]
		h.SetControllen(len(control))
	}
}

// SendMsg is sendmsg(2). MSG_NOSIGNAL is added.
func SendMsg(fd int, data, name, control []byte, flags int) (int, error) {
	var h unix.Msghdr
	var iov unix.Iovec
	message(&h, &iov, data, name, control)
	n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), uintptr(flags|unix.MSG_NOSIGNAL))
	return int(n), result(e)
}

// RecvMsg is recvmsg(2). MSG_CMSG_CLOEXEC is added.
func RecvMsg(fd int, data, name, control []byte, flags int) (n, nameLen, controlLen, outFlags int, err error) {
	var h unix.Msghdr
	var iov unix.Iovec
	message(&h, &iov, data, name, control)
	r, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), uintptr(flags|unix.MSG_CMSG_CLOEXEC))
	if e != 0 {
		return 0, 0, 0, 0, e
	}
	return int(r), min(int(h.Namelen), len(name)), min(int(h.Controllen), len(control)), int(h.Flags), nil
}
