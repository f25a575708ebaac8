package kernel

import (
	"sync"
	"sync/atomic"
	"time"

	"garrison/abi"
)

// A cpuAccount measures a thread's CPU time: user time is what Run takes,
// system time is the rest while the thread does not sleep. Written by the
// task's goroutine, read by all.
type cpuAccount struct {
	user, sys atomic.Int64 // ns, of finished stretches
	// since is when the current stretch began, times two, plus one in guest
	// code; 0 while the thread sleeps.
	since atomic.Int64
}

var processStart = time.Now()

// cpuNow is a monotonic clock for CPU time; only differences matter.
func cpuNow() int64 { return int64(time.Since(processStart)) + 1 }

func (a *cpuAccount) start() { a.since.Store(cpuNow() << 1) }

func (a *cpuAccount) enterGuest() {
	now := cpuNow()
	a.sys.Add(now - a.since.Load()>>1)
	a.since.Store(now<<1 | 1)
}

func (a *cpuAccount) leaveGuest() {
	now := cpuNow()
	a.user.Add(now - a.since.Load()>>1)
	a.since.Store(now << 1)
}

func (a *cpuAccount) block(t *Task) {
	if s := a.since.Load(); s != 0 {
		a.sys.Add(cpuNow() - s>>1)
	}
	a.since.Store(0)
}

func (a *cpuAccount) unblock(t *Task) {
	a.since.Store(cpuNow() << 1)
	if t.tg.cpu.parked.Load() {
		t.tg.kickCPUTimers()
	}
}

// times returns the thread's user and system time so far.
func (a *cpuAccount) times() (user, sys int64) {
	user, sys = a.user.Load(), a.sys.Load()
	if s := a.since.Load(); s != 0 {
		if d := cpuNow() - s>>1; d > 0 {
			if s&1 != 0 {
				user += d
			} else {
				sys += d
			}
		}
	}
	return user, sys
}

func (a *cpuAccount) running() bool { return a.since.Load() != 0 }

// CPUTimes are the thread's user and system time in nanoseconds.
func (t *Task) CPUTimes() (user, sys int64) { return t.acct.times() }

// groupCPU is a process's CPU time and what is triggered by it.
type groupCPU struct {
	// Of threads that have exited, and of children that were waited for.
	deadUser, deadSys   atomic.Int64
	childUser, childSys atomic.Int64
	childMaxRSS         atomic.Int64 // KiB
	maxRSS              atomic.Int64 // KiB, of past programs
	minflt, childMinflt atomic.Int64
	vcsw, childVcsw     atomic.Int64

	// armed says that CPU timers exist; parked that they wait until a thread
	// runs: nothing ticks in a process that sleeps.
	armed, parked atomic.Bool

	mu     sync.Mutex // guards the rest; a leaf
	ticker *time.Timer
	virt   cpuTimer // ITIMER_VIRTUAL
	prof   cpuTimer // ITIMER_PROF
	posix  map[*PosixTimer]struct{}
	limit  int64 // seconds of CPU time at which RLIMIT_CPU next speaks; 0 for never
}

// A cpuTimer expires when a CPU clock reaches next; 0 for never.
type cpuTimer struct{ next, interval int64 }

// CPUTimes are the process's user and system time in nanoseconds.
func (tg *ThreadGroup) CPUTimes() (user, sys int64) {
	user, sys = tg.cpu.deadUser.Load(), tg.cpu.deadSys.Load()
	members := tg.sigTasks()
	for _, t := range members {
		u, s := t.acct.times()
		user, sys = user+u, sys+s
	}
	return user, sys
}

// ChildCPUTimes are those of children that were waited for.
func (tg *ThreadGroup) ChildCPUTimes() (user, sys int64) {
	return tg.cpu.childUser.Load(), tg.cpu.childSys.Load()
}

// cpuClock reads CPU clock kind (CPUCLOCK_PROF, VIRT or SCHED).
func cpuClock(user, sys int64, kind int32) int64 {
	if kind == abi.CPUCLOCK_VIRT {
		return user
	}
	return user + sys
}

// kickCPUTimers starts the ticker again.
func (tg *ThreadGroup) kickCPUTimers() {
	c := &tg.cpu
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked.Store(false)
	if c.armed.Load() {
		tg.armTickerLocked(0)
	}
}

// armCPUTimers is called after a CPU timer was set.
func (tg *ThreadGroup) armCPUTimers() {
	tg.cpu.armed.Store(true)
	tg.kickCPUTimers()
}

func (tg *ThreadGroup) armTickerLocked(d time.Duration) {
	c := &tg.cpu
	if c.ticker == nil {
		c.ticker = time.AfterFunc(d, tg.checkCPUTimers)
		return
	}
	c.ticker.Reset(d)
}

// checkCPUTimers expires what is due, and comes back when more may be.
func (tg *ThreadGroup) checkCPUTimers() {
	members := tg.sigTasks()
	if len(members) == 0 {
		return
	}
	running := 0
	for _, t := range members {
		if t.acct.running() {
			running++
		}
	}
	user, sys := tg.CPUTimes()
	c := &tg.cpu
	var sigs []int32
	var due []*PosixTimer
	const never = int64(1) << 62
	left := never
	step := func(ct *cpuTimer, now int64) (n uint64) {
		if ct.next == 0 {
			return 0
		}
		if now >= ct.next {
			n = 1
			if ct.interval > 0 {
				n += uint64((now - ct.next) / ct.interval)
				ct.next = later(ct.next, int64(n)*ct.interval)
			} else {
				ct.next = 0
				return n
			}
		}
		left = min(left, ct.next-now)
		return n
	}
	c.mu.Lock()
	if step(&c.virt, user) > 0 {
		sigs = append(sigs, abi.SIGVTALRM)
	}
	if step(&c.prof, user+sys) > 0 {
		sigs = append(sigs, abi.SIGPROF)
	}
	for p := range c.posix {
		var now int64
		if p.cpuTask != nil {
			u, s := p.cpuTask.acct.times()
			now = cpuClock(u, s, p.cpuKind)
		} else {
			now = cpuClock(user, sys, p.cpuKind)
		}
		if n := step(&p.cpu, now); n > 0 {
			p.cpuDue = n
			due = append(due, p)
		}
	}
	if soft := tg.limits.Cur(abi.RLIMIT_CPU); soft < 1<<33 {
		hard := tg.limits.max[abi.RLIMIT_CPU].Load()
		secs := (user + sys) / 1e9
		switch {
		case hard < 1<<33 && secs >= int64(hard):
			sigs = append(sigs, abi.SIGKILL)
		case secs >= max(int64(soft), c.limit):
			sigs = append(sigs, abi.SIGXCPU)
			c.limit = secs + 1
		}
		next := min(max(int64(soft), c.limit)*1e9, int64(min(hard, 1<<33))*1e9)
		left = min(left, max(next-(user+sys), 1e6))
	}
	switch {
	case left == never:
		c.armed.Store(false)
	case running == 0:
		c.parked.Store(true)
		for _, t := range members {
			if t.acct.running() { // it woke up in between
				c.parked.Store(false)
				tg.armTickerLocked(time.Millisecond)
				break
			}
		}
	default:
		tg.armTickerLocked(time.Duration(max(left/int64(running), 500_000)))
	}
	c.mu.Unlock()
	for _, s := range sigs {
		tg.k.SendThreadGroup(tg, kernelInfo(s))
	}
	for _, p := range due {
		p.expired(p.cpuDue)
	}
}
