package kernel

import (
	"sync"
	"time"

	"garrison/abi"
)

// A TimerListener hears of a Timer's expiry: n times since the last call. It is
// called on a goroutine of its own without locks.
type TimerListener interface{ TimerExpired(t *Timer, n uint64) }

// A Timer expires once or periodically on one of the clocks (not CPU clocks).
// timerfd, ITIMER_REAL and POSIX timers are made of it.
type Timer struct {
	k        *Kernel
	clock    int32
	listener TimerListener

	mu       sync.Mutex // a leaf
	next     int64      // on clock; 0 when disarmed
	interval int64
	host     *time.Timer
}

// NewTimer makes a disarmed timer on a clock (CLOCK_*).
func (k *Kernel) NewTimer(clock int32, l TimerListener) *Timer {
	return &Timer{k: k, clock: clock, listener: l}
}

// Clock is the timer's clock.
func (t *Timer) Clock() int32 { return t.clock }

func (t *Timer) now() int64 {
	c := &t.k.clock
	switch t.clock {
	case abi.CLOCK_MONOTONIC:
		return c.Monotonic()
	case abi.CLOCK_REALTIME, abi.CLOCK_REALTIME_ALARM:
		return c.Realtime()
	case abi.CLOCK_BOOTTIME, abi.CLOCK_BOOTTIME_ALARM:
		return c.Boottime()
	}
	v, _ := c.Read(t.clock)
	return v
}

// Set arms the timer: value ns from now, or at value if abs, then every
// interval ns; a relative value of 0 disarms it. It returns what was set before.
func (t *Timer) Set(value, interval int64, abs bool) (oldLeft, oldInterval int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldLeft, oldInterval = t.getLocked()
	t.next, t.interval = 0, interval
	if value != 0 {
		t.next = value
		if !abs {
			t.next = later(t.now(), value)
		}
		if t.next <= 0 { // a time before the epoch
			t.next = 1
		}
	}
	t.armLocked()
	return oldLeft, oldInterval
}

// Get returns the time until the next expiry, 0 if disarmed, and the interval.
func (t *Timer) Get() (left, interval int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.getLocked()
}

func (t *Timer) getLocked() (left, interval int64) {
	if t.next == 0 {
		return 0, t.interval
	}
	return max(t.next-t.now(), 1), t.interval
}

// Stop disarms the timer.
func (t *Timer) Stop() { t.Set(0, 0, false) }

func (t *Timer) armLocked() {
	if t.next == 0 {
		if t.host != nil {
			t.host.Stop()
		}
		return
	}
	d := time.Duration(max(t.next-t.now(), 0))
	if t.host == nil {
		t.host = time.AfterFunc(d, t.expire)
	} else {
		t.host.Reset(d)
	}
}

// expire runs when the host's timer fires; it may be early or stale.
func (t *Timer) expire() {
	t.mu.Lock()
	if t.next == 0 {
		t.mu.Unlock()
		return
	}
	now := t.now()
	if now < t.next {
		t.armLocked()
		t.mu.Unlock()
		return
	}
	n := uint64(1)
	if t.interval > 0 {
		n += uint64((now - t.next) / t.interval)
		t.next = later(t.next, int64(n)*t.interval)
	} else {
		t.next = 0
	}
	t.armLocked()
	if t.next != 0 && t.interval < int64(minPeriod) {
		t.host.Reset(minPeriod)
	}
	t.mu.Unlock()
	t.listener.TimerExpired(t, n)
}

// minPeriod is how often a timer fires at most. Expiries between are counted,
// and told of together.
const minPeriod = 100 * time.Microsecond

// later is at + by, saturated.
func later(at, by int64) int64 {
	if s := at + by; by < 0 || s >= at {
		return s
	}
	return 1<<63 - 1
}

// timerTable is a process's interval and POSIX timers.
type timerTable struct {
	mu    sync.Mutex // above sig.mu and groupCPU.mu
	real  *Timer     // ITIMER_REAL
	posix map[int32]*PosixTimer
	next  int32
	owner *ThreadGroup
}

// stopAll disarms everything when the process exits or calls execve (which
// keeps interval timers).
func (tt *timerTable) stopAll() {
	tt.mu.Lock()
	real := tt.real
	tt.real = nil
	tt.mu.Unlock()
	if real != nil {
		real.Stop()
	}
	tt.deletePosix()
}

func (tt *timerTable) deletePosix() {
	tt.mu.Lock()
	ps := tt.posix
	tt.posix = nil
	tt.mu.Unlock()
	for _, p := range ps {
		p.disarm()
	}
}

// TimerExpired sends SIGALRM: the thread group listens to its ITIMER_REAL.
func (tg *ThreadGroup) TimerExpired(*Timer, uint64) {
	tg.k.SendThreadGroup(tg, kernelInfo(abi.SIGALRM))
}

// SetItimer is setitimer(2), in nanoseconds.
func (t *Task) SetItimer(which int32, value, interval int64) (oldValue, oldInterval int64, err error) {
	tg := t.tg
	switch which {
	case abi.ITIMER_REAL:
		tt := &tg.timers
		tt.mu.Lock()
		if tt.real == nil {
			tt.real = t.k.NewTimer(abi.CLOCK_MONOTONIC, tg)
		}
		r := tt.real
		tt.mu.Unlock()
		oldValue, oldInterval = r.Set(value, interval, false)
		return oldValue, oldInterval, nil
	case abi.ITIMER_VIRTUAL, abi.ITIMER_PROF:
		user, sys := tg.CPUTimes()
		c := &tg.cpu
		c.mu.Lock()
		ct, now := &c.virt, user
		if which == abi.ITIMER_PROF {
			ct, now = &c.prof, user+sys
		}
		oldValue, oldInterval = ct.get(now)
		ct.next, ct.interval = 0, interval
		if value != 0 {
			ct.next = later(now, value)
		}
		c.mu.Unlock()
		if value != 0 {
			tg.armCPUTimers()
		}
		return oldValue, oldInterval, nil
	}
	return 0, 0, abi.EINVAL
}

// GetItimer is getitimer(2), in nanoseconds.
func (t *Task) GetItimer(which int32) (value, interval int64, err error) {
	tg := t.tg
	switch which {
	case abi.ITIMER_REAL:
		tg.timers.mu.Lock()
		r := tg.timers.real
		tg.timers.mu.Unlock()
		if r != nil {
			value, interval = r.Get()
		}
		return value, interval, nil
	case abi.ITIMER_VIRTUAL, abi.ITIMER_PROF:
		user, sys := tg.CPUTimes()
		tg.cpu.mu.Lock()
		defer tg.cpu.mu.Unlock()
		if which == abi.ITIMER_PROF {
			value, interval = tg.cpu.prof.get(user + sys)
		} else {
			value, interval = tg.cpu.virt.get(user)
		}
		return value, interval, nil
	}
	return 0, 0, abi.EINVAL
}

func (c *cpuTimer) get(now int64) (left, interval int64) {
	if c.next == 0 {
		return 0, c.interval
	}
	return max(c.next-now, 1), c.interval
}

// RlimitCPUChanged makes RLIMIT_CPU watched, if it is set.
func (tg *ThreadGroup) RlimitCPUChanged() {
	tg.cpu.mu.Lock()
	tg.cpu.limit = 0
	tg.cpu.mu.Unlock()
	tg.armRlimitCPU()
}

func (tg *ThreadGroup) armRlimitCPU() {
	if tg.limits.Cur(abi.RLIMIT_CPU) < 1<<33 {
		tg.armCPUTimers()
	}
}

// timersGone is called when t exits: CPU timers on its own clock end.
func (t *Task) timersGone() {
	tt := &t.tg.timers
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for _, p := range tt.posix {
		if p.cpuTask == t {
			p.disarm()
		}
	}
}

// A PosixTimer is a timer of timer_create(2).
type PosixTimer struct {
	id     int32
	clock  int32
	notify int32 // SIGEV_*
	signo  int32
	value  uint64
	tg     *ThreadGroup
	target *Task // for SIGEV_THREAD_ID

	timer *Timer // nil for CPU clocks
	// For CPU clocks; cpu and cpuDue are guarded by groupCPU.mu.
	cpuKind int32
	cpuTask *Task // nil for the process's clock
	cpu     cpuTimer
	cpuDue  uint64

	// Guarded by sig.mu.
	queued      bool
	pendOverrun uint64 // expiries since the signal was queued
	lastOverrun uint64 // timer_getoverrun(2)
	gen         uint64
}

// TimerExpired implements TimerListener.
func (p *PosixTimer) TimerExpired(_ *Timer, n uint64) { p.expired(n) }

func (p *PosixTimer) expired(n uint64) {
	if p.notify == abi.SIGEV_NONE {
		return
	}
	p.tg.k.tasks.RLock()
	defer p.tg.k.tasks.RUnlock()
	s := &p.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.queued {
		p.pendOverrun += n
		return
	}
	p.pendOverrun = n - 1
	info := &abi.SigInfo{Signo: p.signo, Code: abi.SI_TIMER}
	info.SetTimerID(p.id)
	info.SetValue(p.value)
	t, group := p.tg.leader, true
	if p.target != nil {
		t, group = p.target, false
	}
	if p.tg.zombie || t.exiting.Load() && !group {
		return
	}
	p.tg.sendLocked(t, info, group, false, p)
}

// dequeuedLocked fills in the overrun count when the signal is taken. sig.mu must be held.
func (p *PosixTimer) dequeuedLocked(info *abi.SigInfo) {
	p.queued = false
	p.lastOverrun = min(p.pendOverrun, 1<<31-1)
	p.pendOverrun = 0
	info.SetOverrun(int32(p.lastOverrun))
}

func (p *PosixTimer) disarm() {
	if p.timer != nil {
		p.timer.Stop()
		return
	}
	c := &p.tg.cpu
	c.mu.Lock()
	delete(c.posix, p)
	p.cpu = cpuTimer{}
	c.mu.Unlock()
}

// CPUClock resolves a CPU clock id (clock_getcpuclockid(3), or the two
// constants): the kind, and whose it is. EINVAL if there is no such clock.
func (t *Task) CPUClock(id int32) (kind int32, tg *ThreadGroup, thread *Task, err error) {
	switch id {
	case abi.CLOCK_PROCESS_CPUTIME_ID:
		return abi.CPUCLOCK_SCHED, t.tg, nil, nil
	case abi.CLOCK_THREAD_CPUTIME_ID:
		return abi.CPUCLOCK_SCHED, t.tg, t, nil
	}
	if id >= 0 {
		return 0, nil, nil, abi.EINVAL
	}
	kind = id & abi.CPUCLOCK_CLOCK_MASK
	if kind > abi.CPUCLOCK_SCHED {
		return 0, nil, nil, abi.EINVAL
	}
	pid := ^(id >> 3)
	if id&abi.CPUCLOCK_PERTHREAD_MASK != 0 {
		x := t
		if pid != 0 {
			x = t.k.TaskByID(pid)
		}
		if x == nil || x.tg != t.tg {
			return 0, nil, nil, abi.EINVAL
		}
		return kind, t.tg, x, nil
	}
	if pid == 0 {
		return kind, t.tg, nil, nil
	}
	if g := t.k.ThreadGroupByID(pid); g != nil {
		return kind, g, nil, nil
	}
	return 0, nil, nil, abi.EINVAL
}

// ReadCPUClock reads a CPU clock in nanoseconds.
func (t *Task) ReadCPUClock(id int32) (int64, error) {
	kind, tg, x, err := t.CPUClock(id)
	if err != nil {
		return 0, err
	}
	if x != nil {
		u, s := x.acct.times()
		return cpuClock(u, s, kind), nil
	}
	u, s := tg.CPUTimes()
	return cpuClock(u, s, kind), nil
}

// CreateTimer is timer_create(2). target is 0 or a thread's id.
func (t *Task) CreateTimer(clock, notify, signo int32, value uint64, hasValue bool, target int32) (int32, error) {
	p := &PosixTimer{clock: clock, notify: notify, signo: signo, value: value, tg: t.tg}
	if clock == abi.CLOCK_PROCESS_CPUTIME_ID || clock == abi.CLOCK_THREAD_CPUTIME_ID || clock < 0 {
		kind, tg, x, err := t.CPUClock(clock)
		if err != nil {
			return 0, err
		}
		if tg != t.tg {
			return 0, abi.EOPNOTSUPP
		}
		p.cpuKind, p.cpuTask = kind, x
	} else {
		switch clock {
		case abi.CLOCK_REALTIME, abi.CLOCK_MONOTONIC, abi.CLOCK_BOOTTIME, abi.CLOCK_TAI:
		case abi.CLOCK_REALTIME_ALARM, abi.CLOCK_BOOTTIME_ALARM:
			if !t.Cred().Can(abi.CAP_WAKE_ALARM) {
				return 0, abi.EPERM
			}
		case abi.CLOCK_MONOTONIC_RAW, abi.CLOCK_REALTIME_COARSE, abi.CLOCK_MONOTONIC_COARSE:
			return 0, abi.EOPNOTSUPP
		default:
			return 0, abi.EINVAL
		}
		p.timer = t.k.NewTimer(clock, p)
	}
	switch notify {
	case abi.SIGEV_NONE:
	case abi.SIGEV_SIGNAL | abi.SIGEV_THREAD_ID:
		x := t.k.TaskByID(target)
		if x == nil || x.tg != t.tg {
			return 0, abi.EINVAL
		}
		p.target = x
		fallthrough
	case abi.SIGEV_SIGNAL, abi.SIGEV_THREAD:
		if signo < 1 || signo > abi.NSIG {
			return 0, abi.EINVAL
		}
	default:
		return 0, abi.EINVAL
	}
	tt := &t.tg.timers
	tt.mu.Lock()
	defer tt.mu.Unlock()
	if len(tt.posix) >= 1<<16 {
		return 0, abi.EAGAIN
	}
	if tt.posix == nil {
		tt.posix = map[int32]*PosixTimer{}
	}
	for tt.posix[tt.next] != nil {
		tt.next = (tt.next + 1) & (1<<30 - 1)
	}
	p.id = tt.next
	tt.next = (tt.next + 1) & (1<<30 - 1)
	if !hasValue {
		p.value = uint64(uint32(p.id))
	}
	tt.posix[p.id] = p
	return p.id, nil
}

func (t *Task) posixTimer(id int32) *PosixTimer {
	tt := &t.tg.timers
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return tt.posix[id]
}

// SetTimer is timer_settime(2), in nanoseconds.
func (t *Task) SetTimer(id int32, value, interval int64, abs bool) (oldLeft, oldInterval int64, err error) {
	p := t.posixTimer(id)
	if p == nil {
		return 0, 0, abi.EINVAL
	}
	s := &t.tg.sig
	s.mu.Lock()
	p.pendOverrun, p.lastOverrun = 0, 0
	s.mu.Unlock()
	if p.timer != nil {
		oldLeft, oldInterval = p.timer.Set(value, interval, abs)
		return oldLeft, oldInterval, nil
	}
	now := p.cpuNow()
	c := &t.tg.cpu
	c.mu.Lock()
	oldLeft, oldInterval = p.cpu.get(now)
	p.cpu = cpuTimer{interval: interval}
	if value != 0 {
		p.cpu.next = value
		if !abs {
			p.cpu.next = later(now, value)
		}
		if c.posix == nil {
			c.posix = map[*PosixTimer]struct{}{}
		}
		c.posix[p] = struct{}{}
	} else {
		delete(c.posix, p)
	}
	c.mu.Unlock()
	if value != 0 {
		t.tg.armCPUTimers()
	}
	return oldLeft, oldInterval, nil
}

func (p *PosixTimer) cpuNow() int64 {
	var u, s int64
	if p.cpuTask != nil {
		u, s = p.cpuTask.acct.times()
	} else {
		u, s = p.tg.CPUTimes()
	}
	return cpuClock(u, s, p.cpuKind)
}

// GetTimer is timer_gettime(2), in nanoseconds.
func (t *Task) GetTimer(id int32) (left, interval int64, err error) {
	p := t.posixTimer(id)
	if p == nil {
		return 0, 0, abi.EINVAL
	}
	if p.timer != nil {
		left, interval = p.timer.Get()
		return left, interval, nil
	}
	now := p.cpuNow()
	t.tg.cpu.mu.Lock()
	defer t.tg.cpu.mu.Unlock()
	left, interval = p.cpu.get(now)
	return left, interval, nil
}

// TimerOverrun is timer_getoverrun(2).
func (t *Task) TimerOverrun(id int32) (int32, error) {
	p := t.posixTimer(id)
	if p == nil {
		return 0, abi.EINVAL
	}
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	return int32(p.lastOverrun), nil
}

// DeleteTimer is timer_delete(2).
func (t *Task) DeleteTimer(id int32) error {
	tt := &t.tg.timers
	tt.mu.Lock()
	p := tt.posix[id]
	delete(tt.posix, id)
	tt.mu.Unlock()
	if p == nil {
		return abi.EINVAL
	}
	p.disarm()
	return nil
}
