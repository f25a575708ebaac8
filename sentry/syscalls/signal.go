package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

var signalCalls = []kernel.Row{
	{Nr: abi.SYS_rt_sigaction, Name: "rt_sigaction", Fn: sysRtSigaction, Args: []kernel.ArgKind{kernel.SigArg, kernel.SigActIn, kernel.SigActOut, kernel.UDec}},
	{Nr: abi.SYS_rt_sigprocmask, Name: "rt_sigprocmask", Fn: sysRtSigprocmask, Args: []kernel.ArgKind{kernel.SigHow, kernel.SigSetIn, kernel.SigSetOut, kernel.UDec}},
	{Nr: abi.SYS_rt_sigreturn, Name: "rt_sigreturn", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { t.SigReturn(); return 0, kernel.ErrNoResult }},
	{Nr: abi.SYS_rt_sigpending, Name: "rt_sigpending", Fn: sysRtSigpending, Args: []kernel.ArgKind{kernel.SigSetOut, kernel.UDec}},
	{Nr: abi.SYS_rt_sigtimedwait, Name: "rt_sigtimedwait", Fn: sysRtSigtimedwait, Args: []kernel.ArgKind{kernel.SigSetIn, kernel.SigInfoOut, kernel.TimespecIn, kernel.UDec}},
	{Nr: abi.SYS_rt_sigsuspend, Name: "rt_sigsuspend", Fn: sysRtSigsuspend, Args: []kernel.ArgKind{kernel.SigSetIn, kernel.UDec}},
	{Nr: abi.SYS_rt_sigqueueinfo, Name: "rt_sigqueueinfo", Fn: sysRtSigqueueinfo, Args: []kernel.ArgKind{kernel.Dec, kernel.SigArg, kernel.Ptr}},
	{Nr: abi.SYS_rt_tgsigqueueinfo, Name: "rt_tgsigqueueinfo", Fn: sysRtTgsigqueueinfo, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.SigArg, kernel.Ptr}},
	{Nr: abi.SYS_sigaltstack, Name: "sigaltstack", Fn: sysSigaltstack, Args: []kernel.ArgKind{kernel.Ptr, kernel.Ptr}},
	{Nr: abi.SYS_pause, Name: "pause", Fn: sysPause},
	{Nr: abi.SYS_kill, Name: "kill", Fn: sysKill, Args: []kernel.ArgKind{kernel.Dec, kernel.SigArg}},
	{Nr: abi.SYS_tkill, Name: "tkill", Fn: sysTkill, Args: []kernel.ArgKind{kernel.Dec, kernel.SigArg}},
	{Nr: abi.SYS_tgkill, Name: "tgkill", Fn: sysTgkill, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.SigArg}},
	{Nr: abi.SYS_pidfd_send_signal, Name: "pidfd_send_signal", Fn: sysPidfdSendSignal, Args: []kernel.ArgKind{kernel.FDArg, kernel.SigArg, kernel.Ptr, kernel.Hex}},
	{Nr: abi.SYS_restart_syscall, Name: "restart_syscall", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return t.RestartSyscall() }},
}

// minSigStack is MINSIGSTKSZ (asm/signal.h).
const minSigStack = 2048

// sigSetSize is the only size of a sigset_t that the kernel takes.
const sigSetSize = 8

func sysRtSigaction(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Size(3) != sigSetSize {
		return 0, abi.EINVAL
	}
	m := t.Memory()
	var b [abi.SigActionSize]byte
	var act *abi.SigAction
	if p := a.Addr(1); p != 0 {
		if _, err := m.CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		act = &abi.SigAction{}
		act.UnmarshalFrom(b[:])
	}
	old, err := t.SetAction(a.Int(0), act)
	if err != nil {
		return 0, err
	}
	if p := a.Addr(2); p != 0 {
		old.MarshalTo(b[:])
		if _, err := m.CopyOut(p, b[:]); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func copyInSigSet(t *kernel.Task, p usermem.Addr) (abi.SigSet, error) {
	v, err := usermem.CopyInUint64(t.Memory(), p)
	return abi.SigSet(v), err
}

// CopyInTempMask reads a pointer to a signal mask and its size, as ppoll and
// its like take them; ok is false for a null pointer.
func copyInTempMask(t *kernel.Task, p usermem.Addr, size uint64) (mask abi.SigSet, ok bool, err error) {
	if p == 0 {
		return 0, false, nil
	}
	if size != sigSetSize {
		return 0, false, abi.EINVAL
	}
	mask, err = copyInSigSet(t, p)
	return mask, err == nil, err
}

func sysRtSigprocmask(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Size(3) != sigSetSize {
		return 0, abi.EINVAL
	}
	old := t.SignalMask()
	if p := a.Addr(1); p != 0 {
		set, err := copyInSigSet(t, p)
		if err != nil {
			return 0, err
		}
		switch a.Int(0) {
		case abi.SIG_BLOCK:
			set = old | set
		case abi.SIG_UNBLOCK:
			set = old &^ set
		case abi.SIG_SETMASK:
		default:
			return 0, abi.EINVAL
		}
		t.SetSignalMask(set)
	}
	if p := a.Addr(2); p != 0 {
		if err := usermem.CopyOutUint64(t.Memory(), p, uint64(old)); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysRtSigpending(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a.Size(1)
	if size > sigSetSize {
		return 0, abi.EINVAL
	}
	set := t.PendingSignals() & t.SignalMask()
	var b [8]byte
	for i := range b {
		b[i] = byte(set >> (8 * i))
	}
	_, err := t.Memory().CopyOut(a.Addr(0), b[:size])
	return 0, err
}

func sysRtSigtimedwait(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Size(3) != sigSetSize {
		return 0, abi.EINVAL
	}
	set, err := copyInSigSet(t, a.Addr(0))
	if err != nil {
		return 0, err
	}
	timeout := int64(-1)
	if p := a.Addr(2); p != 0 {
		ts, err := copyInTimespec(t, p)
		if err != nil {
			return 0, err
		}
		if !ts.Valid() {
			return 0, abi.EINVAL
		}
		timeout = ts.Ns()
	}
	info, err := t.WaitSignal(set, timeout)
	if err != nil {
		return 0, err
	}
	if p := a.Addr(1); p != 0 {
		var b [abi.SigInfoSize]byte
		info.MarshalTo(b[:])
		if _, err := t.Memory().CopyOut(p, b[:]); err != nil {
			return 0, err
		}
	}
	return uintptr(info.Signo), nil
}

func sysRtSigsuspend(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Size(1) != sigSetSize {
		return 0, abi.EINVAL
	}
	set, err := copyInSigSet(t, a.Addr(0))
	if err != nil {
		return 0, err
	}
	t.SetTemporaryMask(set)
	t.Block(nil)
	return 0, abi.ERESTARTNOHAND
}

func sysPause(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	t.Block(nil)
	return 0, abi.ERESTARTNOHAND
}

func sysSigaltstack(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.AltStack()
	var b [abi.SigAltStackSize]byte
	if p := a.Addr(0); p != 0 {
		if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		var s abi.SigAltStack
		s.UnmarshalFrom(b[:])
		if err := t.SetAltStack(s, t.Regs().Rsp, minSigStack); err != nil {
			return 0, err
		}
	}
	if p := a.Addr(1); p != 0 {
		old.MarshalTo(b[:])
		if _, err := t.Memory().CopyOut(p, b[:]); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysKill(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.Kill(a.Int(0), t.UserInfo(a.Int(1), abi.SI_USER))
}

func sysTkill(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) <= 0 {
		return 0, abi.EINVAL
	}
	return 0, t.Tkill(0, a.Int(0), t.UserInfo(a.Int(1), abi.SI_TKILL))
}

func sysTgkill(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) <= 0 || a.Int(1) <= 0 {
		return 0, abi.EINVAL
	}
	return 0, t.Tkill(a.Int(0), a.Int(1), t.UserInfo(a.Int(2), abi.SI_TKILL))
}

// copyInSigInfo reads a siginfo that a guest wants to queue: it may not pretend
// to come from the kernel or from kill(2), except towards itself.
func copyInSigInfo(t *kernel.Task, sig int32, p usermem.Addr, toSelf bool) (*abi.SigInfo, error) {
	var b [abi.SigInfoSize]byte
	if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
		return nil, err
	}
	info := &abi.SigInfo{}
	info.UnmarshalFrom(b[:])
	info.Signo = sig
	if (info.Code >= 0 || info.Code == abi.SI_TKILL) && !toSelf {
		return nil, abi.EPERM
	}
	return info, nil
}

func sysRtSigqueueinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	info, err := copyInSigInfo(t, a.Int(1), a.Addr(2), a.Int(0) == t.PID())
	if err != nil {
		return 0, err
	}
	return 0, t.Kill(a.Int(0), info)
}

func sysRtTgsigqueueinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) <= 0 || a.Int(1) <= 0 {
		return 0, abi.EINVAL
	}
	info, err := copyInSigInfo(t, a.Int(2), a.Addr(3), a.Int(1) == t.TID())
	if err != nil {
		return 0, err
	}
	return 0, t.Tkill(a.Int(0), a.Int(1), info)
}

func sysPidfdSendSignal(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(3) != 0 {
		return 0, abi.EINVAL
	}
	f := t.FDTable().Get(a.FD(0))
	if f == nil {
		return 0, abi.EBADF
	}
	defer f.DecRef()
	tg, err := kernel.PIDFDGroup(f)
	if err != nil {
		// An open /proc/pid serves as well.
		d, ok := f.Inode().(interface{ Process() *kernel.ThreadGroup })
		if !ok || f.PathOnly() {
			return 0, err
		}
		if tg = d.Process(); tg == nil {
			return 0, err
		}
	}
	sig := a.Int(1)
	info := t.UserInfo(sig, abi.SI_USER)
	if p := a.Addr(2); p != 0 {
		var b [4]byte
		if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		if info, err = copyInSigInfo(t, int32(b[0])|int32(b[1])<<8|int32(b[2])<<16|int32(b[3])<<24, p, tg == t.ThreadGroup()); err != nil {
			return 0, err
		}
		if info.Signo != sig {
			return 0, abi.EINVAL
		}
	}
	if sig < 0 || sig > abi.NSIG {
		return 0, abi.EINVAL
	}
	return 0, t.KillGroup(tg, info)
}
