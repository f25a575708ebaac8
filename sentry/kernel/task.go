package kernel

import (
	"sync/atomic"
	"time"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/cred"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// A Task is one thread of guest code. Its goroutine (run.go) owns the fields
// that no comment says otherwise of; others reach a Task by its signals.
type Task struct {
	k     *Kernel
	tg    *ThreadGroup
	tid   atomic.Int32 // changes when a non-leader calls execve
	regs  platform.Registers
	mm    atomic.Pointer[mm.MM]
	fs    atomic.Pointer[vfs.FSContext]
	fds   atomic.Pointer[vfs.FDTable]
	cred  atomic.Pointer[cred.Cred]
	uts   atomic.Pointer[UTSNamespace]
	mntns atomic.Pointer[vfs.MountNamespace]
	user  *userCounts // of the real uid
	comm  atomic.Pointer[string]

	thread  platform.Thread
	inGuest atomic.Bool   // Run may be underway: interrupt it
	work    atomic.Uint32 // work* bits to look at before guest code runs
	intr    chan struct{} // wakes up a blocked task; one token
	timer   *time.Timer   // for BlockUntil
	acct    cpuAccount
	state   atomic.Uint32 // taskState

	// The system call that is underway or was last.
	sysno     uintptr
	sysargs   Args
	restart   abi.Errno    // ERESTART* that the last call returned, not yet resolved
	restartFn RestartFn    // what restart_syscall continues
	restartSt RestartState // its state

	sig       taskSignals
	exitCode  int32       // wait status
	exiting   atomic.Bool // the goroutine is ending
	vforkWait *vforkState // the child that must release our memory first
	vfork     *vforkState // set in the child
	startNs   int64       // CLOCK_BOOTTIME when it was made

	clearChildTID usermem.Addr // set_tid_address
	robustList    usermem.Addr // set_robust_list
	futex         futexWaiter
	pdeathSig     int32 // guarded by Kernel.tasks
	timerSlackNs  uint64
	personality   uint32
	sched         atomic.Pointer[SchedAttr]
	ioprio        atomic.Int32
	thpDisable    bool
	minflt, vcsw  atomic.Int64
}

// Bits of Task.work.
const (
	workSignal uint32 = 1 << iota // signals may be deliverable, or stops, or a kill
	workVfork                     // vforkWait is set
	workMask                      // a saved mask must be put back
	workCPU                       // CPU timers or limits ran out
	workExit                      // the task must exit
)

type taskState uint32

// Task states as /proc/PID/stat shows them.
const (
	stateRunning  taskState = 'R'
	stateSleeping taskState = 'S'
	stateDisk     taskState = 'D'
	stateStopped  taskState = 'T'
	stateZombie   taskState = 'Z'
	stateDead     taskState = 'X'
)

// Kernel is the kernel that the task belongs to.
func (t *Task) Kernel() *Kernel { return t.k }

// ThreadGroup is the process that the task is a thread of.
func (t *Task) ThreadGroup() *ThreadGroup { return t.tg }

// TID is the thread's id.
func (t *Task) TID() int32 { return t.tid.Load() }

// PID is the thread group's id.
func (t *Task) PID() int32 { return t.tg.pid }

// PPID is the id of the parent process; 0 for none.
func (t *Task) PPID() int32 {
	if p := t.tg.ppid.Load(); p != 0 {
		return p
	}
	return 0
}

// MM is the memory manager; nil once the task has exited.
func (t *Task) MM() *mm.MM { return t.mm.Load() }

// Memory is the task's guest memory.
func (t *Task) Memory() usermem.Memory { return t.mm.Load() }

// FSContext is the root, working directory and umask.
func (t *Task) FSContext() *vfs.FSContext { return t.fs.Load() }

// FDTable is the descriptor table; nil once the task has exited.
func (t *Task) FDTable() *vfs.FDTable { return t.fds.Load() }

// MountNamespace is the task's mounts.
func (t *Task) MountNamespace() *vfs.MountNamespace { return t.mntns.Load() }

// UTS is the task's UTS namespace.
func (t *Task) UTS() *UTSNamespace { return t.uts.Load() }

// Cred is the task's credentials, immutable.
func (t *Task) Cred() *cred.Cred { return t.cred.Load() }

// FileSizeLimit is RLIMIT_FSIZE in bytes.
func (t *Task) FileSizeLimit() uint64 { return t.tg.limits.Cur(abi.RLIMIT_FSIZE) }

// Regs are the guest's registers; for the task's own goroutine only.
func (t *Task) Regs() *platform.Registers { return &t.regs }

// Comm is the thread's name (prctl PR_SET_NAME).
func (t *Task) Comm() string { return *t.comm.Load() }

// SetComm sets the name, cut to 15 bytes.
func (t *Task) SetComm(s string) {
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			s = s[:i]
			break
		}
	}
	if len(s) > abi.TASK_COMM_LEN-1 {
		s = s[:abi.TASK_COMM_LEN-1]
	}
	t.comm.Store(&s)
}

// State is the task's state letter in /proc/PID/stat.
func (t *Task) State() byte { return byte(t.state.Load()) }

// StartTimeNs is when the task was made, on CLOCK_BOOTTIME.
func (t *Task) StartTimeNs() int64 { return t.startNs }

// SetClearChildTID is set_tid_address(2).
func (t *Task) SetClearChildTID(a usermem.Addr) { t.clearChildTID = a }

// ClearChildTID is what set_tid_address last set.
func (t *Task) ClearChildTID() usermem.Addr { return t.clearChildTID }

// SyscallNumber is the number of the system call that is underway or was last.
func (t *Task) SyscallNumber() uintptr { return t.sysno }

// wake makes a blocked task look at its work again, and guest code stop.
func (t *Task) wake(bits uint32) {
	t.work.Or(bits)
	if t.inGuest.Load() {
		t.thread.Interrupt()
		return
	}
	select {
	case t.intr <- struct{}{}:
	default:
	}
}

// Block sleeps until ch yields; ERESTARTSYS when a signal is to be handled.
func (t *Task) Block(ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	default:
	}
	if t.sig.pendingNow.Load() {
		return abi.ERESTARTSYS
	}
	t.startBlock(stateSleeping)
	defer t.endBlock()
	for {
		select {
		case <-ch:
			return nil
		case <-t.intr:
			if t.sig.pendingNow.Load() {
				return abi.ERESTARTSYS
			}
		}
	}
}

// BlockUntil is Block with a deadline on the monotonic clock; ETIMEDOUT.
func (t *Task) BlockUntil(ch <-chan struct{}, deadlineNs int64) error {
	select {
	case <-ch:
		return nil
	default:
	}
	left := deadlineNs - t.k.clock.Monotonic()
	if left <= 0 {
		return abi.ETIMEDOUT
	}
	if t.sig.pendingNow.Load() {
		return abi.ERESTARTSYS
	}
	if t.timer == nil {
		t.timer = time.NewTimer(time.Duration(left))
	} else {
		t.timer.Reset(time.Duration(left))
	}
	t.startBlock(stateSleeping)
	defer t.endBlock()
	defer t.timer.Stop()
	for {
		select {
		case <-ch:
			return nil
		case <-t.intr:
			if t.sig.pendingNow.Load() {
				return abi.ERESTARTSYS
			}
		case <-t.timer.C:
			select { // a wake-up that came at the same time wins
			case <-ch:
				return nil
			default:
			}
			return abi.ETIMEDOUT
		}
	}
}

// BlockKillable sleeps until ch yields or the task is killed: ERESTARTSYS.
func (t *Task) BlockKillable(ch <-chan struct{}) error {
	t.startBlock(stateDisk)
	defer t.endBlock()
	for {
		if t.killed() {
			return abi.ERESTARTSYS
		}
		select {
		case <-ch:
			return nil
		case <-t.intr:
		}
	}
}

func (t *Task) startBlock(s taskState) {
	t.state.Store(uint32(s))
	t.vcsw.Add(1)
	t.acct.block(t)
}

func (t *Task) endBlock() {
	t.acct.unblock(t)
	t.state.Store(uint32(stateRunning))
}

// A RestartFn continues a system call through restart_syscall(2). It is a
// plain function (no closure), so that a checkpoint can name it.
type RestartFn func(t *Task, s *RestartState) (uintptr, error)

// RestartState is what a RestartFn needs.
type RestartState struct {
	DeadlineNs int64
	Clock      int32
	Addr       usermem.Addr
	Args       Args
}

// SetRestart makes fn what restart_syscall continues with, and returns
// ERESTART_RESTARTBLOCK.
func (t *Task) SetRestart(fn RestartFn, s RestartState) error {
	t.restartFn, t.restartSt = fn, s
	return abi.ERESTART_RESTARTBLOCK
}

// RestartSyscall is restart_syscall(2).
func (t *Task) RestartSyscall() (uintptr, error) {
	fn := t.restartFn
	if fn == nil {
		return 0, abi.EINTR
	}
	t.restartFn = nil
	s := t.restartSt
	return fn(t, &s)
}

// Words that are only stored.
func (t *Task) TimerSlack() uint64       { return t.timerSlackNs }
func (t *Task) SetTimerSlack(ns uint64)  { t.timerSlackNs = ns }
func (t *Task) Personality() uint32      { return t.personality }
func (t *Task) SetPersonality(p uint32)  { t.personality = p }
func (t *Task) THPDisabled() bool        { return t.thpDisable }
func (t *Task) SetTHPDisabled(on bool)   { t.thpDisable = on }
func (t *Task) IOPrio() int32            { return t.ioprio.Load() }
func (t *Task) SetIOPrio(p int32)        { t.ioprio.Store(p) }
func (t *Task) RobustList() usermem.Addr { return t.robustList }

// SetRobustList is set_robust_list(2).
func (t *Task) SetRobustList(a usermem.Addr) { t.robustList = a }

// A SchedAttr is a task's scheduling policy, as sched_setattr(2) takes it. We
// store it: the host schedules.
type SchedAttr struct {
	Policy, Nice, Priority int32
	ResetOnFork            bool
	Affinity               []uint64 // bit mask of CPUs; nil means all
}

// Sched is t's scheduling policy, immutable.
func (t *Task) Sched() *SchedAttr { return t.sched.Load() }

// SetSched replaces it.
func (t *Task) SetSched(a *SchedAttr) {
	if a.Affinity != nil {
		t.k.loader.VDSO().GetCPUBySyscall()
	}
	t.sched.Store(a)
}

// PDeathSig is the signal that t gets when its parent thread dies.
func (t *Task) PDeathSig() int32 {
	t.k.tasks.RLock()
	defer t.k.tasks.RUnlock()
	return t.pdeathSig
}

// SetPDeathSig sets it.
func (t *Task) SetPDeathSig(sig int32) {
	t.k.tasks.Lock()
	defer t.k.tasks.Unlock()
	t.pdeathSig = sig
}

// SetCred publishes new credentials for t alone. c must not change any more.
func (t *Task) SetCred(c *cred.Cred) {
	old := t.cred.Load()
	if old != nil && old.RUID != c.RUID {
		n := t.k.userCounts(c.RUID)
		n.tasks.Add(1)
		t.user.tasks.Add(-1)
		t.user = n
	}
	if old != nil && (old.EUID != c.EUID || old.EGID != c.EGID || old.FSUID != c.FSUID || old.FSGID != c.FSGID ||
		c.Permitted&^old.Permitted != 0) {
		// commit_creds: what could read the old memory can't read on.
		t.mm.Load().SetDumpable(0)
		t.k.tasks.Lock()
		t.pdeathSig = 0
		t.k.tasks.Unlock()
	}
	t.cred.Store(c)
}
