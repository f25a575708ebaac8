package syscalls

import (
	"encoding/binary"
	"syscall"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

// Policies, niceness and affinity are stored and told; the host schedules.
var schedCalls = []kernel.Row{
	{Nr: abi.SYS_sched_yield, Name: "sched_yield", Fn: sysSchedYield},
	{Nr: abi.SYS_sched_getaffinity, Name: "sched_getaffinity", Fn: sysSchedGetaffinity, Args: []kernel.ArgKind{kernel.Dec, kernel.UDec, kernel.Ptr}},
	{Nr: abi.SYS_sched_setaffinity, Name: "sched_setaffinity", Fn: sysSchedSetaffinity, Args: []kernel.ArgKind{kernel.Dec, kernel.UDec, kernel.Ptr}, Support: kernel.Partial, Note: "stored"},
	{Nr: abi.SYS_sched_getscheduler, Name: "sched_getscheduler", Fn: sysSchedGetscheduler, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_sched_setscheduler, Name: "sched_setscheduler", Fn: sysSchedSetscheduler, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.Ptr}, Support: kernel.Partial, Note: "stored"},
	{Nr: abi.SYS_sched_getparam, Name: "sched_getparam", Fn: sysSchedGetparam, Args: []kernel.ArgKind{kernel.Dec, kernel.IntOut}},
	{Nr: abi.SYS_sched_setparam, Name: "sched_setparam", Fn: sysSchedSetparam, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr}, Support: kernel.Partial, Note: "stored"},
	{Nr: abi.SYS_sched_get_priority_max, Name: "sched_get_priority_max", Fn: func(_ *kernel.Task, a kernel.Args) (uintptr, error) { return priorityLimit(a.Int(0), 99) }, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_sched_get_priority_min, Name: "sched_get_priority_min", Fn: func(_ *kernel.Task, a kernel.Args) (uintptr, error) { return priorityLimit(a.Int(0), 1) }, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_sched_rr_get_interval, Name: "sched_rr_get_interval", Fn: sysSchedRRGetInterval, Args: []kernel.ArgKind{kernel.Dec, kernel.TimespecOut}},
	{Nr: abi.SYS_sched_getattr, Name: "sched_getattr", Fn: sysSchedGetattr, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_sched_setattr, Name: "sched_setattr", Fn: sysSchedSetattr, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.Hex}, Support: kernel.Partial, Note: "stored; no SCHED_DEADLINE"},
	{Nr: abi.SYS_getpriority, Name: "getpriority", Fn: sysGetpriority, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_setpriority, Name: "setpriority", Fn: sysSetpriority, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.Dec}, Support: kernel.Partial, Note: "stored"},
	{Nr: abi.SYS_ioprio_get, Name: "ioprio_get", Fn: sysIoprioGet, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_ioprio_set, Name: "ioprio_set", Fn: sysIoprioSet, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.Hex}, Support: kernel.Partial, Note: "stored"},
}

// The host yields: Go's scheduler would hand the task's thread around first.
func sysSchedYield(*kernel.Task, kernel.Args) (uintptr, error) {
	syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
	return 0, nil
}

// target is the task that a pid argument of the sched calls names.
func target(t *kernel.Task, pid int32) (*kernel.Task, error) {
	if pid < 0 {
		return nil, abi.EINVAL
	}
	if pid == 0 {
		return t, nil
	}
	if x := t.Kernel().TaskByID(pid); x != nil {
		return x, nil
	}
	return nil, abi.ESRCH
}

// maySchedule is the check of the calls that change another task's scheduling.
func maySchedule(t, x *kernel.Task) bool {
	c, d := t.Cred(), x.Cred()
	return c.EUID == d.RUID || c.EUID == d.EUID || c.Can(abi.CAP_SYS_NICE)
}

func sysSchedGetaffinity(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a.Size(1)
	cpus := t.Kernel().CPUs()
	if size*8 < uint64(cpus) || size&7 != 0 {
		return 0, abi.EINVAL
	}
	x, err := target(t, a.Int(0))
	if err == abi.EINVAL {
		err = abi.ESRCH
	}
	if err != nil {
		return 0, err
	}
	words := (cpus + 63) / 64
	b := make([]byte, 8*words)
	for i := range cpus {
		b[i/8] |= 1 << (i % 8)
	}
	if m := x.Sched().Affinity; m != nil {
		for i := range words {
			w := uint64(0)
			if i < len(m) {
				w = m[i]
			}
			binary.LittleEndian.PutUint64(b[8*i:], w)
		}
	}
	n := min(uint64(len(b)), size)
	if _, err := t.Memory().CopyOut(a.Addr(2), b[:n]); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

func sysSchedSetaffinity(t *kernel.Task, a kernel.Args) (uintptr, error) {
	cpus := t.Kernel().CPUs()
	words := (cpus + 63) / 64
	b := make([]byte, 8*words)
	if _, err := t.Memory().CopyIn(a.Addr(2), b[:min(a.Size(1), uint64(len(b)))]); err != nil {
		return 0, err
	}
	x, err := target(t, a.Int(0))
	if err == abi.EINVAL {
		err = abi.ESRCH
	}
	if err != nil {
		return 0, err
	}
	if !maySchedule(t, x) {
		return 0, abi.EPERM
	}
	mask := make([]uint64, words)
	any := uint64(0)
	for i := range mask {
		mask[i] = binary.LittleEndian.Uint64(b[8*i:])
		if last := cpus - 64*i; last < 64 {
			mask[i] &= 1<<last - 1
		}
		any |= mask[i]
	}
	if any == 0 {
		return 0, abi.EINVAL
	}
	s := *x.Sched()
	s.Affinity = mask
	x.SetSched(&s)
	return 0, nil
}

func realtime(policy int32) bool { return policy == abi.SCHED_FIFO || policy == abi.SCHED_RR }

func priorityLimit(policy int32, rt uintptr) (uintptr, error) {
	switch policy {
	case abi.SCHED_FIFO, abi.SCHED_RR:
		return rt, nil
	case abi.SCHED_OTHER, abi.SCHED_BATCH, abi.SCHED_IDLE, abi.SCHED_DEADLINE:
		return 0, nil
	}
	return 0, abi.EINVAL
}

func sysSchedGetscheduler(t *kernel.Task, a kernel.Args) (uintptr, error) {
	x, err := target(t, a.Int(0))
	if err != nil {
		return 0, err
	}
	s := x.Sched()
	p := s.Policy
	if s.ResetOnFork {
		p |= abi.SCHED_RESET_ON_FORK
	}
	return uintptr(p), nil
}

// setPolicy checks and stores a policy, as __sched_setscheduler does.
func setPolicy(t, x *kernel.Task, policy, prio int32, reset bool, nice int32, setNice bool) error {
	switch policy {
	case abi.SCHED_OTHER, abi.SCHED_BATCH, abi.SCHED_IDLE, abi.SCHED_FIFO, abi.SCHED_RR:
	default:
		return abi.EINVAL
	}
	if prio < 0 || prio > 99 || realtime(policy) != (prio != 0) {
		return abi.EINVAL
	}
	s := *x.Sched()
	if !t.Cred().Can(abi.CAP_SYS_NICE) {
		lim := x.ThreadGroup().Limits()
		if realtime(policy) {
			max := int64(lim.Cur(abi.RLIMIT_RTPRIO))
			if policy != s.Policy && max == 0 || int64(prio) > int64(s.Priority) && int64(prio) > max && max >= 0 {
				return abi.EPERM
			}
		}
		if setNice && nice < s.Nice && !mayNice(x, nice) {
			return abi.EPERM
		}
		if !maySchedule(t, x) || s.ResetOnFork && !reset {
			return abi.EPERM
		}
	}
	s.Policy, s.Priority, s.ResetOnFork = policy, prio, reset
	if setNice {
		s.Nice = nice
	}
	x.SetSched(&s)
	return nil
}

// mayNice reports whether RLIMIT_NICE allows niceness n.
func mayNice(x *kernel.Task, n int32) bool {
	return uint64(20-n) <= x.ThreadGroup().Limits().Cur(abi.RLIMIT_NICE)
}

func sysSchedSetscheduler(t *kernel.Task, a kernel.Args) (uintptr, error) {
	policy := a.Int(1)
	if policy < 0 {
		return 0, abi.EINVAL
	}
	return 0, setParam(t, a.Int(0), a.Addr(2), func(*kernel.Task) (int32, bool) {
		return policy &^ abi.SCHED_RESET_ON_FORK, policy&abi.SCHED_RESET_ON_FORK != 0
	})
}

func sysSchedSetparam(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, setParam(t, a.Int(0), a.Addr(1), func(x *kernel.Task) (int32, bool) { s := x.Sched(); return s.Policy, s.ResetOnFork })
}

func setParam(t *kernel.Task, pid int32, p usermem.Addr, policy func(*kernel.Task) (int32, bool)) error {
	if p == 0 || pid < 0 {
		return abi.EINVAL
	}
	prio, err := usermem.CopyInUint32(t.Memory(), p)
	if err != nil {
		return err
	}
	x, err := target(t, pid)
	if err != nil {
		return err
	}
	pol, reset := policy(x)
	return setPolicy(t, x, pol, int32(prio), reset, 0, false)
}

func sysSchedGetparam(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Addr(1) == 0 {
		return 0, abi.EINVAL
	}
	x, err := target(t, a.Int(0))
	if err != nil {
		return 0, err
	}
	return 0, usermem.CopyOutUint32(t.Memory(), a.Addr(1), uint32(x.Sched().Priority))
}

func sysSchedRRGetInterval(t *kernel.Task, a kernel.Args) (uintptr, error) {
	x, err := target(t, a.Int(0))
	if err != nil {
		return 0, err
	}
	ns := int64(0)
	switch x.Sched().Policy {
	case abi.SCHED_RR:
		ns = 100_000_000
	case abi.SCHED_OTHER, abi.SCHED_BATCH:
		ns = 4_000_000
	}
	return 0, copyOutTimespec(t, a.Addr(1), abi.NsToTimespec(ns))
}

// Sizes of struct sched_attr (uapi/linux/sched/types.h).
const (
	schedAttrSize0 = 48
	schedAttrSize  = 56
)

func sysSchedGetattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a.Uint(2)
	if a.Addr(1) == 0 || size > usermem.PageSize || size < schedAttrSize0 || a.Uint(3) != 0 {
		return 0, abi.EINVAL
	}
	x, err := target(t, a.Int(0))
	if err != nil {
		return 0, err
	}
	s := x.Sched()
	var b [schedAttrSize]byte
	le := binary.LittleEndian
	n := min(size, schedAttrSize)
	le.PutUint32(b[:], n)
	le.PutUint32(b[4:], uint32(s.Policy))
	if s.ResetOnFork {
		le.PutUint64(b[8:], abi.SCHED_FLAG_RESET_ON_FORK)
	}
	le.PutUint32(b[16:], uint32(s.Nice))
	le.PutUint32(b[20:], uint32(s.Priority))
	_, err = t.Memory().CopyOut(a.Addr(1), b[:n])
	return 0, err
}

func sysSchedSetattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Addr(1) == 0 || a.Int(0) < 0 || a.Uint(2) != 0 {
		return 0, abi.EINVAL
	}
	size, err := usermem.CopyInUint32(t.Memory(), a.Addr(1))
	if err != nil {
		return 0, err
	}
	if size == 0 {
		size = schedAttrSize0
	}
	if size < schedAttrSize0 || size > usermem.PageSize {
		usermem.CopyOutUint32(t.Memory(), a.Addr(1), schedAttrSize)
		return 0, abi.E2BIG
	}
	b := make([]byte, size)
	if _, err := t.Memory().CopyIn(a.Addr(1), b); err != nil {
		return 0, err
	}
	for _, x := range b[min(int(size), schedAttrSize):] {
		if x != 0 {
			return 0, abi.E2BIG
		}
	}
	le := binary.LittleEndian
	policy, fl, nice, prio := int32(le.Uint32(b[4:])), le.Uint64(b[8:]), int32(le.Uint32(b[16:])), int32(le.Uint32(b[20:]))
	if policy < 0 || fl&^uint64(abi.SCHED_FLAG_ALL) != 0 {
		return 0, abi.EINVAL
	}
	x, err := target(t, a.Int(0))
	if err != nil {
		return 0, err
	}
	return 0, setPolicy(t, x, policy, prio, fl&abi.SCHED_FLAG_RESET_ON_FORK != 0, min(max(nice, -20), 19), !realtime(policy))
}

func sysGetpriority(t *kernel.Task, a kernel.Args) (uintptr, error) {
	xs, err := t.PriorityTargets(a.Int(0), a.Int(1))
	if err != nil {
		return 0, err
	}
	best := int32(0)
	for _, x := range xs {
		best = max(best, 20-x.Sched().Nice)
	}
	return uintptr(best), nil // 40..1, so that it is not an error
}

func sysSetpriority(t *kernel.Task, a kernel.Args) (uintptr, error) {
	xs, err := t.PriorityTargets(a.Int(0), a.Int(1))
	if err != nil {
		return 0, err
	}
	nice := min(max(a.Int(2), -20), 19)
	err = nil
	for _, x := range xs {
		switch {
		case !maySchedule(t, x):
			err = abi.EPERM
		case nice < x.Sched().Nice && !mayNice(x, nice) && !t.Cred().Can(abi.CAP_SYS_NICE):
			err = abi.EACCES
		default:
			s := *x.Sched()
			s.Nice = nice
			x.SetSched(&s)
		}
	}
	return 0, err
}

func ioTargets(t *kernel.Task, which, who int32) ([]*kernel.Task, error) {
	if which < 1 || which > 3 {
		return nil, abi.EINVAL
	}
	return t.PriorityTargets(which-1, who) // IOPRIO_WHO_* are PRIO_* + 1
}

func sysIoprioGet(t *kernel.Task, a kernel.Args) (uintptr, error) {
	xs, err := ioTargets(t, a.Int(0), a.Int(1))
	if err != nil {
		return 0, err
	}
	const bestEffort4 = 2<<13 | 4
	best := int32(1 << 20)
	for _, x := range xs {
		p := x.IOPrio()
		if p>>13 == 0 {
			p = bestEffort4
			if len(xs) == 1 {
				p = x.IOPrio()
			}
		}
		best = min(best, p)
	}
	return uintptr(best), nil
}

func sysIoprioSet(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p := a.Int(2)
	switch class, level := p>>13, p&7; class {
	case 0:
		if p&0x1fff != 0 {
			return 0, abi.EINVAL
		}
	case 1:
		if !t.Cred().Can(abi.CAP_SYS_ADMIN) && !t.Cred().Can(abi.CAP_SYS_NICE) {
			return 0, abi.EPERM
		}
	case 2, 3:
		_ = level
	default:
		return 0, abi.EINVAL
	}
	xs, err := ioTargets(t, a.Int(0), a.Int(1))
	if err != nil {
		return 0, err
	}
	for _, x := range xs {
		c, d := t.Cred(), x.Cred()
		if d.RUID != c.EUID && d.RUID != c.RUID && !c.Can(abi.CAP_SYS_NICE) {
			return 0, abi.EPERM
		}
		x.SetIOPrio(p)
	}
	return 0, nil
}
