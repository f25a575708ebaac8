package syscalls

import (
	"encoding/binary"
	"math"
	"sync"

	"garrison/abi"
	"garrison/sentry/fs/epoll"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var epollCalls = []kernel.Row{
	{Nr: abi.SYS_epoll_create, Name: "epoll_create", Fn: sysEpollCreate, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_epoll_create1, Name: "epoll_create1", Fn: sysEpollCreate1, Args: []kernel.ArgKind{kernel.Hex}},
	{Nr: abi.SYS_epoll_ctl, Name: "epoll_ctl", Fn: sysEpollCtl, Args: []kernel.ArgKind{kernel.FDArg, kernel.EpollOp, kernel.FDArg, kernel.EpollEvIn}},
	{Nr: abi.SYS_epoll_wait, Name: "epoll_wait", Fn: sysEpollWait, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_epoll_pwait, Name: "epoll_pwait", Fn: sysEpollPwait, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.Dec, kernel.Dec, kernel.SigSetIn, kernel.UDec}},
	{Nr: abi.SYS_epoll_pwait2, Name: "epoll_pwait2", Fn: sysEpollPwait2, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.Dec, kernel.TimespecIn, kernel.SigSetIn, kernel.UDec}},
}

// fdFile returns the open file of a descriptor with a reference, or EBADF also
// for O_PATH files, as fdget does.
func fdFile(t *kernel.Task, fd int32) (*vfs.File, error) {
	f := t.FDTable().Get(fd)
	if f == nil {
		return nil, abi.EBADF
	}
	if f.PathOnly() {
		f.DecRef()
		return nil, abi.EBADF
	}
	return f, nil
}

func sysEpollCreate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) <= 0 {
		return 0, abi.EINVAL
	}
	return installFile(t, vfs.NewAnonFile(epoll.New(), abi.O_RDWR, "anon_inode:[eventpoll]"), false)
}

func sysEpollCreate1(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(0)&^abi.EPOLL_CLOEXEC != 0 {
		return 0, abi.EINVAL
	}
	return installFile(t, vfs.NewAnonFile(epoll.New(), abi.O_RDWR, "anon_inode:[eventpoll]"), a.Uint(0) != 0)
}

func sysEpollCtl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var ev epoll.Event
	op := a.Int(1)
	if op != abi.EPOLL_CTL_DEL {
		var b [abi.SizeofEpollEv]byte
		if _, err := t.Memory().CopyIn(a.Addr(3), b[:]); err != nil {
			return 0, err
		}
		ev.Events, ev.Data = binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint64(b[4:])
	}
	ef, err := fdFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer ef.DecRef()
	f, err := fdFile(t, a.FD(2))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	e, ok := ef.Ops().(*epoll.Epoll)
	if !ok {
		if !epoll.CanPoll(f) {
			return 0, abi.EPERM
		}
		return 0, abi.EINVAL
	}
	return 0, e.Ctl(ef, op, f, a.FD(2), ev)
}

// eventBuf is where epoll_wait gathers events before they are copied out.
type eventBuf struct {
	events []epoll.Event
	raw    []byte
}

var eventBufs = sync.Pool{New: func() any { return new(eventBuf) }}

// maxBatch bounds how many events one call returns: a guest may ask for more
// than its memory holds.
const maxBatch = 4096

func epollWait(t *kernel.Task, fd int32, addr usermem.Addr, maxEvents int32, deadlineNs int64) (uintptr, error) {
	if maxEvents <= 0 || maxEvents > math.MaxInt32/abi.SizeofEpollEv {
		return 0, abi.EINVAL
	}
	f, err := fdFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	e, ok := f.Ops().(*epoll.Epoll)
	if !ok {
		return 0, abi.EINVAL
	}
	b := eventBufs.Get().(*eventBuf)
	defer eventBufs.Put(b)
	want := int(min(maxEvents, maxBatch))
	if cap(b.events) < want {
		b.events = make([]epoll.Event, want)
		b.raw = make([]byte, want*abi.SizeofEpollEv)
	}
	n, err := e.Wait(t, b.events[:want], deadlineNs)
	if err != nil || n == 0 {
		return 0, err
	}
	raw := b.raw[:n*abi.SizeofEpollEv]
	for i, ev := range b.events[:n] {
		binary.LittleEndian.PutUint32(raw[i*abi.SizeofEpollEv:], ev.Events)
		binary.LittleEndian.PutUint64(raw[i*abi.SizeofEpollEv+4:], ev.Data)
	}
	if _, err := t.Memory().CopyOut(addr, raw); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

// msDeadline is epoll_wait's timeout: milliseconds, negative for ever.
func msDeadline(t *kernel.Task, ms int32) int64 {
	if ms < 0 {
		return -1
	}
	return deadlineAfter(t, int64(ms)*1e6)
}

func sysEpollWait(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return epollWait(t, a.FD(0), a.Addr(1), a.Int(2), msDeadline(t, a.Int(3)))
}

// epollMasked is epollWait with a temporary signal mask.
func epollMasked(t *kernel.Task, a *kernel.Args, deadlineNs int64) (uintptr, error) {
	set, ok, err := copyInTempMask(t, a.Addr(4), a.Size(5))
	if err != nil {
		return 0, err
	}
	if ok {
		t.SetTemporaryMask(set)
	}
	n, err := epollWait(t, a.FD(0), a.Addr(1), a.Int(2), deadlineNs)
	if ok && err != abi.EINTR {
		t.RestoreMask()
	}
	return n, err
}

func sysEpollPwait(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return epollMasked(t, &a, msDeadline(t, a.Int(3)))
}

func sysEpollPwait2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	deadline := int64(-1)
	if p := a.Addr(3); p != 0 {
		ts, err := copyInTimespec(t, p)
		if err != nil {
			return 0, err
		}
		if !ts.Valid() {
			return 0, abi.EINVAL
		}
		deadline = deadlineAfter(t, ts.Ns())
	}
	return epollMasked(t, &a, deadline)
}
