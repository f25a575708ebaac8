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
