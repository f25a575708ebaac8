package kernel

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/wait"
)

// A ThreadGroup is a process.
type ThreadGroup struct {
	k    *Kernel
	pid  int32
	ppid atomic.Int32 // the parent's pid, kept so that getppid takes no lock

	sig    groupSignals
	limits Limits
	// members are the live threads, replaced as a whole; see sigTasks.
	members atomic.Pointer[[]*Task]
	cpu     groupCPU
	timers  timerTable

	// childQueue is notified when a child changes state, exitQueue when the
	// process has exited (pidfds, the sandbox's own waiters).
	childQueue wait.Queue
	exitQueue  wait.Queue

	// Guarded by Kernel.tasks.
	parent     *Task // nil for processes that the sandbox made itself
	children   map[*ThreadGroup]struct{}
	leader     *Task // stays here as a zombie while other threads live
	tasks      []*Task
	live       int // threads whose goroutine has not left
	pgrp       *ProcessGroup
	exitSignal int32
	execed     bool  // has called execve since it was made (setpgid)
	subreaper  bool  // PR_SET_CHILD_SUBREAPER
	zombie     bool  // all threads have exited
	reaped     bool  // and somebody has waited for it
	status     int32 // wait status, valid when zombie
	execTask   *Task // waits in execve for the other threads to die
	execWake   chan struct{}

	protected   bool // pid 1 of a container: immune to signals it has no handler for
	oomScoreAdj atomic.Int32
	onExit      func(status int32) // called without locks
}

// PID is the process's id.
func (tg *ThreadGroup) PID() int32 { return tg.pid }

// Kernel is the kernel that the process belongs to.
func (tg *ThreadGroup) Kernel() *Kernel { return tg.k }

// PPID is the id of the parent process; 0 for none.
func (tg *ThreadGroup) PPID() int32 { return tg.ppid.Load() }

// Limits are the process's resource limits.
func (tg *ThreadGroup) Limits() *Limits { return &tg.limits }

// Leader is the thread group leader, which may have exited.
func (tg *ThreadGroup) Leader() *Task {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.leader
}

// Tasks lists the threads that have not exited, and the leader.
func (tg *ThreadGroup) Tasks() []*Task {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return append([]*Task(nil), tg.tasks...)
}

// ThreadCount is how many threads there are.
func (tg *ThreadGroup) ThreadCount() int {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return len(tg.tasks)
}

// Children lists the child processes, zombies included.
func (tg *ThreadGroup) Children() []*ThreadGroup {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	r := make([]*ThreadGroup, 0, len(tg.children))
	for c := range tg.children {
		r = append(r, c)
	}
	return r
}

// Zombie reports whether the process has exited.
func (tg *ThreadGroup) Zombie() bool {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.zombie
}

// SetSubreaper is PR_SET_CHILD_SUBREAPER.
func (tg *ThreadGroup) SetSubreaper(on bool) {
	tg.k.tasks.Lock()
	defer tg.k.tasks.Unlock()
	tg.subreaper = on
}

// Subreaper is PR_GET_CHILD_SUBREAPER.
func (tg *ThreadGroup) Subreaper() bool {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.subreaper
}

// Terminal is the controlling terminal, or nil; SessionID the session's id.
func (tg *ThreadGroup) Terminal() *Terminal {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.pgrp.session.term
}

// SessionID is the session's id.
func (tg *ThreadGroup) SessionID() int32 {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.pgrp.session.id
}

// OOMScoreAdj is /proc/PID/oom_score_adj, which we store.
func (tg *ThreadGroup) OOMScoreAdj() *atomic.Int32 { return &tg.oomScoreAdj }

// exitedLocked reports whether the leader has exited. Kernel.tasks must be held.
func (tg *ThreadGroup) exitedLocked() bool {
	return tg.zombie || taskState(tg.leader.state.Load()) == stateZombie
}

// otherLocked returns a live thread besides t, or nil. Kernel.tasks must be held.
func (tg *ThreadGroup) otherLocked(t *Task) *Task {
	for _, x := range tg.tasks {
		if x != t && !x.exiting.Load() {
			return x
		}
	}
	return nil
}

// WaitExited waits until the process has exited and returns its wait status.
// It is for the sandbox's own goroutines, not for tasks.
func (tg *ThreadGroup) WaitExited() int32 {
	w, ch := wait.NewChanWaiter()
	tg.exitQueue.Add(w, childEvents)
	defer tg.exitQueue.Remove(w)
	for {
		if s, ok := tg.ExitStatus(); ok {
			return s
		}
		<-ch
	}
}

// ExitStatus is the wait status, if the process has exited.
func (tg *ThreadGroup) ExitStatus() (int32, bool) {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.status, tg.zombie
}

// ExitQueue is notified when the process has exited.
func (tg *ThreadGroup) ExitQueue() *wait.Queue { return &tg.exitQueue }

// Limits are resource limits (getrlimit(2)); reading one takes no lock.
type Limits struct {
	mu  sync.Mutex // orders writers
	cur [abi.RLIMIT_NLIMITS]atomic.Uint64
	max [abi.RLIMIT_NLIMITS]atomic.Uint64
}

// DefaultLimits are what a process has without configuration, as Linux's
// INIT_RLIMITS with a full descriptor limit.
func DefaultLimits() [abi.RLIMIT_NLIMITS]abi.Rlimit {
	inf := abi.Rlimit{Cur: abi.RlimInfinity, Max: abi.RlimInfinity}
	var r [abi.RLIMIT_NLIMITS]abi.Rlimit
	for i := range r {
		r[i] = inf
	}
	r[abi.RLIMIT_STACK].Cur = 8 << 20
	r[abi.RLIMIT_CORE].Cur = 0
	r[abi.RLIMIT_NPROC] = abi.Rlimit{Cur: 31000, Max: 31000}
	r[abi.RLIMIT_NOFILE] = abi.Rlimit{Cur: 1024, Max: 1 << 20}
	r[abi.RLIMIT_MEMLOCK] = abi.Rlimit{Cur: 8 << 20, Max: 8 << 20}
	r[abi.RLIMIT_SIGPENDING] = abi.Rlimit{Cur: 31000, Max: 31000}
	r[abi.RLIMIT_MSGQUEUE] = abi.Rlimit{Cur: 819200, Max: 819200}
	r[abi.RLIMIT_NICE] = abi.Rlimit{}
	r[abi.RLIMIT_RTPRIO] = abi.Rlimit{}
	return r
}

// Cur is the soft limit of resource r (RLIMIT_*).
func (l *Limits) Cur(r int) uint64 { return l.cur[r].Load() }

// Get returns both limits.
func (l *Limits) Get(r int) abi.Rlimit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return abi.Rlimit{Cur: l.cur[r].Load(), Max: l.max[r].Load()}
}

// All returns all limits.
func (l *Limits) All() (all [abi.RLIMIT_NLIMITS]abi.Rlimit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range all {
		all[i] = abi.Rlimit{Cur: l.cur[i].Load(), Max: l.max[i].Load()}
	}
	return all
}

// SetAll replaces all limits.
func (l *Limits) SetAll(all [abi.RLIMIT_NLIMITS]abi.Rlimit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, v := range all {
		l.cur[i].Store(v.Cur)
		l.max[i].Store(v.Max)
	}
}

// Set changes a limit as prlimit(2) does for a caller with credentials c and
// returns the old one. Raising the hard limit needs CAP_SYS_RESOURCE.
func (l *Limits) Set(c *cred.Cred, r int, v abi.Rlimit) (abi.Rlimit, error) {
	if v.Cur > v.Max {
		return abi.Rlimit{}, abi.EINVAL
	}
	if r == abi.RLIMIT_NOFILE && v.Max > 1<<20 {
		return abi.Rlimit{}, abi.EPERM // fs.nr_open
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := abi.Rlimit{Cur: l.cur[r].Load(), Max: l.max[r].Load()}
	if v.Max > old.Max && !c.Can(abi.CAP_SYS_RESOURCE) {
		return old, abi.EPERM
	}
	l.cur[r].Store(v.Cur)
	l.max[r].Store(v.Max)
	return old, nil
}

// userCounts are what one user has, over all processes.
type userCounts struct {
	tasks   atomic.Int64 // RLIMIT_NPROC
	signals atomic.Int64 // RLIMIT_SIGPENDING
}

// userTable finds userCounts by real uid; entries stay.
type userTable struct {
	mu sync.Mutex
	m  map[cred.UID]*userCounts
}

// userCounts returns u's counts.
func (k *Kernel) userCounts(u cred.UID) *userCounts {
	k.users.mu.Lock()
	defer k.users.mu.Unlock()
	c := k.users.m[u]
	if c == nil {
		if k.users.m == nil {
			k.users.m = map[cred.UID]*userCounts{}
		}
		c = &userCounts{}
		k.users.m[u] = c
	}
	return c
}
