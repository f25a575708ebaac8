package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

var futexCalls = []kernel.Row{
	{Nr: abi.SYS_futex, Name: "futex", Fn: sysFutex, Args: []kernel.ArgKind{kernel.Ptr, kernel.FutexOp, kernel.Dec, kernel.Ptr, kernel.Ptr, kernel.Hex}, Support: kernel.Partial, Note: "no priority inheritance (FUTEX_LOCK_PI and its like: ENOSYS)"},
	{Nr: abi.SYS_set_robust_list, Name: "set_robust_list", Fn: sysSetRobustList, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_get_robust_list, Name: "get_robust_list", Fn: sysGetRobustList, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.Ptr}},
}

func sysFutex(t *kernel.Task, a kernel.Args) (uintptr, error) {
	addr, op, val := a.Addr(0), a.Int(1), a.Uint(2)
	private := op&abi.FUTEX_PRIVATE_FLAG != 0
	realtime := op&abi.FUTEX_CLOCK_REALTIME != 0
	cmd := op &^ (abi.FUTEX_PRIVATE_FLAG | abi.FUTEX_CLOCK_REALTIME)
	var deadline int64 = -1
	if p := a.Addr(3); p != 0 && (cmd == abi.FUTEX_WAIT || cmd == abi.FUTEX_WAIT_BITSET) {
		ts, err := copyInTimespec(t, p)
		if err != nil {
			return 0, err
		}
		if !ts.Valid() {
			return 0, abi.EINVAL
		}
		c := t.Kernel().Clocks()
		switch {
		case cmd == abi.FUTEX_WAIT:
			if deadline = c.Monotonic() + ts.Ns(); deadline < 0 {
				deadline = 1<<63 - 1
			}
		case realtime:
			deadline = max(c.MonotonicDeadline(abi.CLOCK_REALTIME, ts.Ns()), 0)
		default:
			deadline = ts.Ns()
		}
	}
	if realtime && cmd != abi.FUTEX_WAIT_BITSET && cmd != abi.FUTEX_WAIT_REQUEUE_PI && cmd != abi.FUTEX_LOCK_PI2 {
		return 0, abi.ENOSYS
	}
	switch cmd {
	case abi.FUTEX_WAIT, abi.FUTEX_WAIT_BITSET:
		s := kernel.RestartState{Addr: addr, DeadlineNs: deadline}
		s.Args = kernel.Args{uint64(val), uint64(^uint32(0)), 0}
		if cmd == abi.FUTEX_WAIT_BITSET {
			s.Args[1] = uint64(a.Uint(5))
		}
		if private {
			s.Args[2] = 1
		}
		return futexWait(t, &s)
	case abi.FUTEX_WAKE:
		return count(t.FutexWake(addr, private, atLeastOne(val), ^uint32(0)))
	case abi.FUTEX_WAKE_BITSET:
		return count(t.FutexWake(addr, private, atLeastOne(val), a.Uint(5)))
	case abi.FUTEX_REQUEUE:
		return count(t.FutexRequeue(addr, a.Addr(4), private, int(int32(val)), int(a.Int(3)), false, 0))
	case abi.FUTEX_CMP_REQUEUE:
		return count(t.FutexRequeue(addr, a.Addr(4), private, int(int32(val)), int(a.Int(3)), true, a.Uint(5)))
	case abi.FUTEX_WAKE_OP:
		return count(t.FutexWakeOp(addr, a.Addr(4), private, atLeastOne(val), atLeastOne(a.Uint(3)), a.Uint(5)))
	}
	return 0, abi.ENOSYS
}

// atLeastOne is how futex_wake counts: it looks at its limit after waking.
func atLeastOne(n uint32) int { return max(int(int32(n)), 1) }

func count(n int, err error) (uintptr, error) { return uintptr(n), err }

// futexWait waits, and continues an interrupted wait with a timeout, which must
// not start anew (restart_syscall).
func futexWait(t *kernel.Task, s *kernel.RestartState) (uintptr, error) {
	err := t.FutexWait(s.Addr, s.Args[2] != 0, uint32(s.Args[0]), uint32(s.Args[1]), s.DeadlineNs)
	if err == abi.ERESTARTSYS && s.DeadlineNs >= 0 {
		return 0, t.SetRestart(futexWait, *s)
	}
	return 0, err
}

// robustListHeadSize is sizeof(struct robust_list_head).
const robustListHeadSize = 24

func sysSetRobustList(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Size(1) != robustListHeadSize {
		return 0, abi.EINVAL
	}
	t.SetRobustList(a.Addr(0))
	return 0, nil
}

func sysGetRobustList(t *kernel.Task, a kernel.Args) (uintptr, error) {
	x := t
	if pid := a.Int(0); pid != 0 {
		if x = t.Kernel().TaskByID(pid); x == nil {
			return 0, abi.ESRCH
		}
		if !t.MayInspect(x) {
			return 0, abi.EPERM
		}
	}
	if err := usermem.CopyOutUint64(t.Memory(), a.Addr(2), robustListHeadSize); err != nil {
		return 0, err
	}
	return 0, usermem.CopyOutUint64(t.Memory(), a.Addr(1), uint64(x.RobustList()))
}
