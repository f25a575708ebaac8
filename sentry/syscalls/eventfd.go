package syscalls

import (
	"garrison/abi"
	"garrison/sentry/fs/eventfd"
	"garrison/sentry/fs/signalfd"
	"garrison/sentry/fs/timerfd"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var eventfdCalls = []kernel.Row{
	{Nr: abi.SYS_eventfd, Name: "eventfd", Fn: sysEventfd, Args: []kernel.ArgKind{kernel.UDec}},
	{Nr: abi.SYS_eventfd2, Name: "eventfd2", Fn: sysEventfd2, Args: []kernel.ArgKind{kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_signalfd, Name: "signalfd", Fn: sysSignalfd, Args: []kernel.ArgKind{kernel.FDArg, kernel.SigSetIn, kernel.UDec}},
	{Nr: abi.SYS_signalfd4, Name: "signalfd4", Fn: sysSignalfd4, Args: []kernel.ArgKind{kernel.FDArg, kernel.SigSetIn, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_timerfd_create, Name: "timerfd_create", Fn: sysTimerfdCreate, Args: []kernel.ArgKind{kernel.ClockID, kernel.Hex}},
	{Nr: abi.SYS_timerfd_settime, Name: "timerfd_settime", Fn: sysTimerfdSettime, Args: []kernel.ArgKind{kernel.FDArg, kernel.Hex, kernel.ItimerspecIn, kernel.ItimerspecOut}},
	{Nr: abi.SYS_timerfd_gettime, Name: "timerfd_gettime", Fn: sysTimerfdGettime, Args: []kernel.ArgKind{kernel.FDArg, kernel.ItimerspecOut}},
}

func sysEventfd(t *kernel.Task, a kernel.Args) (uintptr, error) { return newEventfd(t, a.Uint(0), 0) }

func sysEventfd2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return newEventfd(t, a.Uint(0), a.Uint(1))
}

func newEventfd(t *kernel.Task, initial, flags uint32) (uintptr, error) {
	if flags&^uint32(abi.EFD_SEMAPHORE|abi.EFD_CLOEXEC|abi.EFD_NONBLOCK) != 0 {
		return 0, abi.EINVAL
	}
	f := vfs.NewAnonFile(eventfd.New(initial, flags), abi.O_RDWR|flags&abi.EFD_NONBLOCK, "anon_inode:[eventfd]")
	return installFile(t, f, flags&abi.EFD_CLOEXEC != 0)
}

func sysSignalfd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return newSignalfd(t, a.FD(0), a.Addr(1), a.Size(2), 0)
}

func sysSignalfd4(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return newSignalfd(t, a.FD(0), a.Addr(1), a.Size(2), a.Uint(3))
}

func newSignalfd(t *kernel.Task, fd int32, p usermem.Addr, size uint64, flags uint32) (uintptr, error) {
	if size != sigSetSize {
		return 0, abi.EINVAL
	}
	mask, err := copyInSigSet(t, p)
	if err != nil {
		return 0, err
	}
	if flags&^uint32(abi.SFD_CLOEXEC|abi.SFD_NONBLOCK) != 0 {
		return 0, abi.EINVAL
	}
	if fd == -1 {
		f := vfs.NewAnonFile(signalfd.New(t, mask), abi.O_RDWR|flags&abi.SFD_NONBLOCK, "anon_inode:[signalfd]")
		return installFile(t, f, flags&abi.SFD_CLOEXEC != 0)
	}
	f, err := fdFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	s, ok := f.Ops().(*signalfd.File)
	if !ok {
		return 0, abi.EINVAL
	}
	s.SetMask(mask)
	return uintptr(fd), nil
}

func sysTimerfdCreate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	clock, flags := a.Int(0), a.Uint(1)
	if flags&^uint32(abi.TFD_CLOEXEC|abi.TFD_NONBLOCK) != 0 {
		return 0, abi.EINVAL
	}
	switch clock {
	case abi.CLOCK_MONOTONIC, abi.CLOCK_REALTIME, abi.CLOCK_BOOTTIME:
	case abi.CLOCK_REALTIME_ALARM, abi.CLOCK_BOOTTIME_ALARM:
		if !t.Cred().Can(abi.CAP_WAKE_ALARM) {
			return 0, abi.EPERM
		}
	default:
		return 0, abi.EINVAL
	}
	f := vfs.NewAnonFile(timerfd.New(t.Kernel(), clock), abi.O_RDWR|flags&abi.TFD_NONBLOCK, "anon_inode:[timerfd]")
	return installFile(t, f, flags&abi.TFD_CLOEXEC != 0)
}

// timerFile finds a timerfd.
func timerFile(t *kernel.Task, fd int32) (*vfs.File, *timerfd.File, error) {
	f, err := fdFile(t, fd)
	if err != nil {
		return nil, nil, err
	}
	tf, ok := f.Ops().(*timerfd.File)
	if !ok {
		f.DecRef()
		return nil, nil, abi.EINVAL
	}
	return f, tf, nil
}

func sysTimerfdSettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	v, err := copyInItimerspec(t, a.Addr(2))
	if err != nil {
		return 0, err
	}
	if a.Uint(1)&^uint32(abi.TFD_TIMER_ABSTIME|abi.TFD_TIMER_CANCEL_ON_SET) != 0 {
		return 0, abi.EINVAL
	}
	f, tf, err := timerFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	left, interval := tf.Set(v.Value.Ns(), v.Interval.Ns(), a.Uint(1)&abi.TFD_TIMER_ABSTIME != 0)
	if p := a.Addr(3); p != 0 {
		return 0, copyOutItimerspec(t, p, left, interval)
	}
	return 0, nil
}

func sysTimerfdGettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, tf, err := timerFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	left, interval := tf.Get()
	return 0, copyOutItimerspec(t, a.Addr(1), left, interval)
}
