package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

var timeCalls = []kernel.Row{
	{Nr: abi.SYS_clock_gettime, Name: "clock_gettime", Fn: sysClockGettime, Args: []kernel.ArgKind{kernel.ClockID, kernel.TimespecOut}},
	{Nr: abi.SYS_clock_getres, Name: "clock_getres", Fn: sysClockGetres, Args: []kernel.ArgKind{kernel.ClockID, kernel.TimespecOut}},
	{Nr: abi.SYS_clock_settime, Name: "clock_settime", Fn: sysClockSettime, Args: []kernel.ArgKind{kernel.ClockID, kernel.TimespecIn}, Support: kernel.Partial, Note: "the clock is the host's: EPERM"},
	{Nr: abi.SYS_clock_nanosleep, Name: "clock_nanosleep", Fn: sysClockNanosleep, Args: []kernel.ArgKind{kernel.ClockID, kernel.Hex, kernel.TimespecIn, kernel.TimespecOut}},
	{Nr: abi.SYS_nanosleep, Name: "nanosleep", Fn: sysNanosleep, Args: []kernel.ArgKind{kernel.TimespecIn, kernel.TimespecOut}},
	{Nr: abi.SYS_gettimeofday, Name: "gettimeofday", Fn: sysGettimeofday, Args: []kernel.ArgKind{kernel.TimevalOut, kernel.Ptr}},
	{Nr: abi.SYS_settimeofday, Name: "settimeofday", Fn: sysSettimeofday, Args: []kernel.ArgKind{kernel.TimevalIn, kernel.Ptr}, Support: kernel.Partial, Note: "the clock is the host's: EPERM"},
	{Nr: abi.SYS_time, Name: "time", Fn: sysTime, Args: []kernel.ArgKind{kernel.Ptr}},
	{Nr: abi.SYS_times, Name: "times", Fn: sysTimes, Args: []kernel.ArgKind{kernel.Ptr}},
	{Nr: abi.SYS_getrusage, Name: "getrusage", Fn: sysGetrusage, Args: []kernel.ArgKind{kernel.Dec, kernel.RusageOut}},
	{Nr: abi.SYS_getitimer, Name: "getitimer", Fn: sysGetitimer, Args: []kernel.ArgKind{kernel.Dec, kernel.ItimerOut}},
	{Nr: abi.SYS_setitimer, Name: "setitimer", Fn: sysSetitimer, Args: []kernel.ArgKind{kernel.Dec, kernel.ItimerIn, kernel.ItimerOut}},
	{Nr: abi.SYS_alarm, Name: "alarm", Fn: sysAlarm, Args: []kernel.ArgKind{kernel.UDec}},
	{Nr: abi.SYS_timer_create, Name: "timer_create", Fn: sysTimerCreate, Args: []kernel.ArgKind{kernel.ClockID, kernel.Ptr, kernel.IntOut}},
	{Nr: abi.SYS_timer_settime, Name: "timer_settime", Fn: sysTimerSettime, Args: []kernel.ArgKind{kernel.Dec, kernel.Hex, kernel.ItimerspecIn, kernel.ItimerspecOut}},
	{Nr: abi.SYS_timer_gettime, Name: "timer_gettime", Fn: sysTimerGettime, Args: []kernel.ArgKind{kernel.Dec, kernel.ItimerspecOut}},
	{Nr: abi.SYS_timer_getoverrun, Name: "timer_getoverrun", Fn: func(t *kernel.Task, a kernel.Args) (uintptr, error) { return id(t.TimerOverrun(a.Int(0))) }, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_timer_delete, Name: "timer_delete", Fn: func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.DeleteTimer(a.Int(0)) }, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_adjtimex, Name: "adjtimex", Fn: sysAdjtimex, Args: []kernel.ArgKind{kernel.Ptr}, Support: kernel.Partial, Note: "reads only"},
	{Nr: abi.SYS_clock_adjtime, Name: "clock_adjtime", Fn: sysClockAdjtime, Args: []kernel.ArgKind{kernel.ClockID, kernel.Ptr}, Support: kernel.Partial, Note: "reads only"},
}

func copyInTimespec(t *kernel.Task, p usermem.Addr) (abi.Timespec, error) {
	var b [abi.TimespecSize]byte
	var ts abi.Timespec
	if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
		return ts, err
	}
	ts.UnmarshalFrom(b[:])
	return ts, nil
}

func copyOutTimespec(t *kernel.Task, p usermem.Addr, ts abi.Timespec) error {
	var b [abi.TimespecSize]byte
	ts.MarshalTo(b[:])
	_, err := t.Memory().CopyOut(p, b[:])
	return err
}

func copyInTimeval(t *kernel.Task, p usermem.Addr) (abi.Timeval, error) {
	ts, err := copyInTimespec(t, p)
	return abi.Timeval{Sec: ts.Sec, Usec: ts.Nsec}, err
}

// readClock reads any clock, CPU clocks included.
func readClock(t *kernel.Task, id int32) (int64, error) {
	if id == abi.CLOCK_PROCESS_CPUTIME_ID || id == abi.CLOCK_THREAD_CPUTIME_ID || id < 0 {
		return t.ReadCPUClock(id)
	}
	return t.Kernel().Clocks().Read(id)
}

func sysClockGettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ns, err := readClock(t, a.Int(0))
	if err != nil {
		return 0, err
	}
	return 0, copyOutTimespec(t, a.Addr(1), abi.NsToTimespec(ns))
}

func sysClockGetres(t *kernel.Task, a kernel.Args) (uintptr, error) {
	id := a.Int(0)
	res := int64(1)
	switch {
	case id == abi.CLOCK_REALTIME_COARSE || id == abi.CLOCK_MONOTONIC_COARSE:
		res = 4_000_000
	case id < 0 || id == abi.CLOCK_PROCESS_CPUTIME_ID || id == abi.CLOCK_THREAD_CPUTIME_ID:
		kind, _, _, err := t.CPUClock(id)
		if err != nil {
			return 0, err
		}
		if kind != abi.CPUCLOCK_SCHED {
			res = 4_000_000
		}
	default:
		if _, err := t.Kernel().Clocks().Read(id); err != nil {
			return 0, err
		}
	}
	if a.Addr(1) == 0 {
		return 0, nil
	}
	return 0, copyOutTimespec(t, a.Addr(1), abi.NsToTimespec(res))
}

func sysClockSettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) != abi.CLOCK_REALTIME {
		return 0, abi.EINVAL
	}
	ts, err := copyInTimespec(t, a.Addr(1))
	if err != nil {
		return 0, err
	}
	if !ts.Valid() {
		return 0, abi.EINVAL
	}
	return 0, abi.EPERM
}

func sysNanosleep(t *kernel.Task, a kernel.Args) (uintptr, error) {
	ts, err := copyInTimespec(t, a.Addr(0))
	if err != nil {
		return 0, err
	}
	if !ts.Valid() {
		return 0, abi.EINVAL
	}
	return 0, sleepFor(t, ts.Ns(), a.Addr(1))
}

func sysClockNanosleep(t *kernel.Task, a kernel.Args) (uintptr, error) {
	id := a.Int(0)
	c := t.Kernel().Clocks()
	cpu := id < 0 || id == abi.CLOCK_PROCESS_CPUTIME_ID
	switch id {
	case abi.CLOCK_REALTIME, abi.CLOCK_MONOTONIC, abi.CLOCK_BOOTTIME, abi.CLOCK_TAI:
	case abi.CLOCK_REALTIME_ALARM, abi.CLOCK_BOOTTIME_ALARM:
		if !t.Cred().Can(abi.CAP_WAKE_ALARM) {
			return 0, abi.EPERM
		}
	case abi.CLOCK_THREAD_CPUTIME_ID:
		return 0, abi.EINVAL
	case abi.CLOCK_MONOTONIC_RAW, abi.CLOCK_REALTIME_COARSE, abi.CLOCK_MONOTONIC_COARSE:
		return 0, abi.EOPNOTSUPP
	default:
		if !cpu {
			return 0, abi.EINVAL
		}
		if _, _, x, err := t.CPUClock(id); err != nil {
			return 0, err
		} else if x == t {
			return 0, abi.EINVAL
		}
	}
	ts, err := copyInTimespec(t, a.Addr(2))
	if err != nil {
		return 0, err
	}
	if !ts.Valid() {
		return 0, abi.EINVAL
	}
	if cpu {
		return 0, sleepCPU(t, id, ts.Ns(), a.Uint(1)&abi.TIMER_ABSTIME != 0)
	}
	if a.Uint(1)&abi.TIMER_ABSTIME == 0 {
		return 0, sleepFor(t, ts.Ns(), a.Addr(3))
	}
	err = t.BlockUntil(nil, c.MonotonicDeadline(id, ts.Ns()))
	if err == abi.ETIMEDOUT {
		return 0, nil
	}
	return 0, abi.ERESTARTNOHAND
}

// sleepCPU sleeps on a CPU clock, by looking again when the time can have
// come: not before as much wall-clock time has passed as CPU time is missing,
// divided among the CPUs.
func sleepCPU(t *kernel.Task, id int32, ns int64, abs bool) error {
	now, err := t.ReadCPUClock(id)
	if err != nil {
		return err
	}
	end := ns
	if !abs {
		end = now + ns
	}
	for now < end {
		wait := max((end-now)/int64(t.Kernel().CPUs()), 1_000_000)
		if err := t.BlockUntil(nil, t.Kernel().Clocks().Monotonic()+wait); err != abi.ETIMEDOUT {
			return abi.EINTR
		}
		if now, err = t.ReadCPUClock(id); err != nil {
			return err
		}
	}
	return nil
}

// sleepFor sleeps, and if a signal comes writes what is left to rem and says
// how to go on with it (restart_syscall).
func sleepFor(t *kernel.Task, ns int64, rem usermem.Addr) error {
	d := t.Kernel().Clocks().Monotonic() + ns
	if d < 0 {
		d = 1<<63 - 1
	}
	_, err := sleepRest(t, &kernel.RestartState{DeadlineNs: d, Addr: rem})
	return err
}

func sleepRest(t *kernel.Task, s *kernel.RestartState) (uintptr, error) {
	if t.BlockUntil(nil, s.DeadlineNs) == abi.ETIMEDOUT {
		return 0, nil
	}
	left := s.DeadlineNs - t.Kernel().Clocks().Monotonic()
	if left <= 0 {
		return 0, nil
	}
	if s.Addr != 0 {
		if err := copyOutTimespec(t, s.Addr, abi.NsToTimespec(left)); err != nil {
			return 0, err
		}
	}
	return 0, t.SetRestart(sleepRest, *s)
}

func sysGettimeofday(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if p := a.Addr(0); p != 0 {
		tv := abi.NsToTimeval(t.Kernel().Clocks().Realtime())
		if err := copyOutTimespec(t, p, abi.Timespec{Sec: tv.Sec, Nsec: tv.Usec}); err != nil {
			return 0, err
		}
	}
	if p := a.Addr(1); p != 0 {
		if err := usermem.CopyOutUint64(t.Memory(), p, 0); err != nil { // struct timezone: UTC
			return 0, err
		}
	}
	return 0, nil
}

func sysSettimeofday(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if p := a.Addr(0); p != 0 {
		tv, err := copyInTimeval(t, p)
		if err != nil {
			return 0, err
		}
		if !tv.Valid() {
			return 0, abi.EINVAL
		}
	}
	return 0, abi.EPERM
}

func sysTime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s := t.Kernel().Clocks().Realtime() / 1e9
	if p := a.Addr(0); p != 0 {
		if err := usermem.CopyOutUint64(t.Memory(), p, uint64(s)); err != nil {
			return 0, err
		}
	}
	return uintptr(s), nil
}

func sysTimes(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const tick = 1e9 / abi.UserHZ
	if p := a.Addr(0); p != 0 {
		tg := t.ThreadGroup()
		u, s := tg.CPUTimes()
		cu, cs := tg.ChildCPUTimes()
		for i, v := range [...]int64{u, s, cu, cs} {
			if err := usermem.CopyOutUint64(t.Memory(), p+usermem.Addr(8*i), uint64(v/tick)); err != nil {
				return 0, err
			}
		}
	}
	return uintptr(t.Kernel().Clocks().Monotonic() / tick), nil
}

func sysGetrusage(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r, err := t.Rusage(a.Int(0))
	if err != nil {
		return 0, err
	}
	return 0, copyOutRusage(t, a.Addr(1), &r)
}

func toItimerval(value, interval int64) abi.Itimerval {
	v := abi.Itimerval{Interval: abi.NsToTimeval(interval), Value: abi.NsToTimeval(value)}
	if value > 0 && v.Value == (abi.Timeval{}) {
		v.Value.Usec = 1 // armed timers do not read as zero
	}
	return v
}

func sysGetitimer(t *kernel.Task, a kernel.Args) (uintptr, error) {
	value, interval, err := t.GetItimer(a.Int(0))
	if err != nil {
		return 0, err
	}
	var b [abi.ItimervalSize]byte
	toItimerval(value, interval).MarshalTo(b[:])
	_, err = t.Memory().CopyOut(a.Addr(1), b[:])
	return 0, err
}

func sysSetitimer(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var b [abi.ItimervalSize]byte
	var v abi.Itimerval
	if p := a.Addr(1); p != 0 { // a null pointer means zero, by tradition
		if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		v.UnmarshalFrom(b[:])
	}
	if !v.Value.Valid() || !v.Interval.Valid() {
		return 0, abi.EINVAL
	}
	value, interval, err := t.SetItimer(a.Int(0), v.Value.Ns(), v.Interval.Ns())
	if err != nil {
		return 0, err
	}
	if p := a.Addr(2); p != 0 {
		toItimerval(value, interval).MarshalTo(b[:])
		if _, err := t.Memory().CopyOut(p, b[:]); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysAlarm(t *kernel.Task, a kernel.Args) (uintptr, error) {
	value, _, err := t.SetItimer(abi.ITIMER_REAL, int64(a.Uint(0))*1e9, 0)
	// Rounded, but a running timer does not read as zero.
	s := (value + 5e8) / 1e9
	if value > 0 && s == 0 {
		s = 1
	}
	return uintptr(s), err
}

func sysTimerCreate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	notify, signo, value, target := int32(abi.SIGEV_SIGNAL), int32(abi.SIGALRM), uint64(0), int32(0)
	if p := a.Addr(1); p != 0 {
		var b [64]byte // struct sigevent
		if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		le := func(off int) int32 {
			return int32(uint32(b[off]) | uint32(b[off+1])<<8 | uint32(b[off+2])<<16 | uint32(b[off+3])<<24)
		}
		value = uint64(uint32(le(0))) | uint64(uint32(le(4)))<<32
		signo, notify, target = le(8), le(12), le(16)
	}
	n, err := t.CreateTimer(a.Int(0), notify, signo, value, a.Addr(1) != 0, target)
	if err != nil {
		return 0, err
	}
	if err := usermem.CopyOutUint32(t.Memory(), a.Addr(2), uint32(n)); err != nil {
		t.DeleteTimer(n)
		return 0, err
	}
	return 0, nil
}

func copyOutItimerspec(t *kernel.Task, p usermem.Addr, value, interval int64) error {
	var b [abi.ItimerspecSize]byte
	abi.Itimerspec{Interval: abi.NsToTimespec(interval), Value: abi.NsToTimespec(value)}.MarshalTo(b[:])
	_, err := t.Memory().CopyOut(p, b[:])
	return err
}

func copyInItimerspec(t *kernel.Task, p usermem.Addr) (abi.Itimerspec, error) {
	var b [abi.ItimerspecSize]byte
	var v abi.Itimerspec
	if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
		return v, err
	}
	v.UnmarshalFrom(b[:])
	if !v.Value.Valid() || !v.Interval.Valid() {
		return v, abi.EINVAL
	}
	return v, nil
}

func sysTimerSettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Addr(2) == 0 {
		return 0, abi.EINVAL
	}
	v, err := copyInItimerspec(t, a.Addr(2))
	if err != nil {
		return 0, err
	}
	value, interval, err := t.SetTimer(a.Int(0), v.Value.Ns(), v.Interval.Ns(), a.Uint(1)&abi.TIMER_ABSTIME != 0)
	if err != nil {
		return 0, err
	}
	if p := a.Addr(3); p != 0 {
		return 0, copyOutItimerspec(t, p, value, interval)
	}
	return 0, nil
}

func sysTimerGettime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	value, interval, err := t.GetTimer(a.Int(0))
	if err != nil {
		return 0, err
	}
	return 0, copyOutItimerspec(t, a.Addr(1), value, interval)
}

// timexSize is sizeof(struct timex).
const timexSize = 208

func sysAdjtimex(t *kernel.Task, a kernel.Args) (uintptr, error) { return adjtime(t, a.Addr(0)) }

func sysClockAdjtime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) != abi.CLOCK_REALTIME {
		if _, err := readClock(t, a.Int(0)); err != nil {
			return 0, err
		}
		return 0, abi.EOPNOTSUPP
	}
	return adjtime(t, a.Addr(1))
}

// adjtime reads an unsynchronised clock's state (adjtimex(2)).
func adjtime(t *kernel.Task, p usermem.Addr) (uintptr, error) {
	const (
		timeError = 5    // TIME_ERROR: not synchronised
		staUnsync = 0x40 // STA_UNSYNC
	)
	var b [timexSize]byte
	if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
		return 0, err
	}
	if b[0]|b[1]|b[2]|b[3] != 0 {
		return 0, abi.EPERM
	}
	clear(b[:])
	put := func(off int, v uint64) {
		for i := range 8 {
			b[off+i] = byte(v >> (8 * i))
		}
	}
	now := abi.NsToTimeval(t.Kernel().Clocks().Realtime())
	put(24, 16_000_000) // maxerror
	put(32, 16_000_000) // esterror
	put(40, staUnsync)
	put(48, 2) // time constant
	put(56, 1) // precision
	put(64, 32_768_000)
	put(72, uint64(now.Sec))
	put(80, uint64(now.Usec))
	put(88, 10_000) // tick
	if _, err := t.Memory().CopyOut(p, b[:]); err != nil {
		return 0, err
	}
	return timeError, nil
}
