package kernel

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/wait"
)

// Sets of signals by what they do by default (signal(7)).
var (
	sigStop = sigSet(abi.SIGSTOP, abi.SIGTSTP, abi.SIGTTIN, abi.SIGTTOU)
	// sigIgnore are ignored unless caught.
	sigIgnore = sigSet(abi.SIGCONT, abi.SIGCHLD, abi.SIGWINCH, abi.SIGURG)
	// sigCore would dump core: the group's threads all die the same way, but
	// Linux wakes only one of them first.
	sigCore = sigSet(abi.SIGQUIT, abi.SIGILL, abi.SIGTRAP, abi.SIGABRT, abi.SIGFPE, abi.SIGSEGV, abi.SIGBUS,
		abi.SIGSYS, abi.SIGXCPU, abi.SIGXFSZ)
	// sigSync come from the code that runs and are delivered first.
	sigSync = sigSet(abi.SIGSEGV, abi.SIGBUS, abi.SIGILL, abi.SIGTRAP, abi.SIGFPE, abi.SIGSYS)
)

func sigSet(sigs ...int32) (s abi.SigSet) {
	for _, x := range sigs {
		s |= abi.SigBit(x)
	}
	return s
}

// taskSignals are the signals of one thread. Guarded by ThreadGroup.sig.mu
// unless a comment says otherwise.
type taskSignals struct {
	pendingNow atomic.Bool // something must be looked at: Linux's TIF_SIGPENDING
	fatal      atomic.Bool // SIGKILL is among it

	queue       sigQueue
	blocked     abi.SigSet // the own goroutine reads it without the lock
	realBlocked abi.SigSet // what sigtimedwait unblocked for a while
	stopPending bool       // takes part in a group stop
	stopCounted bool       // and stopCount counts it
	inStop      bool       // sleeps, stopped
	stopTaken   bool       // took a stop signal and is about to begin a group stop

	saved     abi.SigSet // the own goroutine's: mask to put back (sigsuspend, ppoll)
	haveSaved bool
	alt       abi.SigAltStack // the own goroutine's
	cr2       uint64          // of the last fault, for the signal frame
	trapErr   uint64
	trapNo    uint64
	fpBuf     []byte // scratch for frames
}

// groupSignals are a process's signals.
type groupSignals struct {
	mu       sync.Mutex
	shared   sigQueue
	handlers *SignalHandlers

	groupExit bool  // all threads die with
	exitCode  int32 // this wait status

	stopSig    int32 // what stopped, or stops, the group
	stopCount  int   // threads that have yet to stop
	stopped    bool  // all have
	stopCode   int32 // what wait reports for the stop; 0 once consumed
	continued  bool  // wait can report that it was continued
	cldPending int32 // CLD_STOPPED or CLD_CONTINUED that the parent must be told

	// queue is notified (EPOLLIN) when a signal arrives: signalfd.
	queue wait.Queue
}

// SignalQueue is notified with EPOLLIN when a signal is queued for any thread.
func (tg *ThreadGroup) SignalQueue() *wait.Queue { return &tg.sig.queue }

// kernelInfo is the siginfo of a signal that the kernel sends.
func kernelInfo(sig int32) *abi.SigInfo { return &abi.SigInfo{Signo: sig, Code: abi.SI_KERNEL} }

// UserInfo is the siginfo of kill(2) by t.
func (t *Task) UserInfo(sig, code int32) *abi.SigInfo {
	i := &abi.SigInfo{Signo: sig, Code: code}
	i.SetPID(t.PID())
	i.SetUID(uint32(t.Cred().RUID))
	return i
}

// ignoredLocked is Linux's sig_ignored for the process of t. sig.mu must be held.
func (t *Task) ignoredLocked(sig int32, force bool) bool {
	b := abi.SigBit(sig)
	if (t.sig.blocked|t.sig.realBlocked)&b != 0 {
		return false // it may be handled differently once unblocked
	}
	a := t.tg.sig.handlers.get(sig)
	if t.tg.protected && a.Handler == abi.SIG_DFL && !(force && (sig == abi.SIGKILL || sig == abi.SIGSTOP)) {
		return true
	}
	return a.Handler == abi.SIG_IGN || a.Handler == abi.SIG_DFL && sigIgnore&b != 0
}

// ignoresOrBlocks is for the job-control check.
func (t *Task) ignoresOrBlocks(sig int32) bool {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.sig.blocked.Has(sig) || s.handlers.get(sig).Handler == abi.SIG_IGN
}

// send queues a signal for t (a thread of tg), or for the process if group is
// set. force overrides the protection of pid 1. EAGAIN if the queue is full.
func (tg *ThreadGroup) send(t *Task, info *abi.SigInfo, group, force bool) error {
	tg.sig.mu.Lock()
	defer tg.sig.mu.Unlock()
	return tg.sendLocked(t, info, group, force, nil)
}

// sendLocked does it with sig.mu held.
func (tg *ThreadGroup) sendLocked(t *Task, info *abi.SigInfo, group, force bool, timer *PosixTimer) error {
	s, sig := &tg.sig, info.Signo
	bit := abi.SigBit(sig)
	if s.groupExit {
		return nil // it dies already
	}
	// Stop signals and SIGCONT cancel each other, even if ignored or blocked.
	if sigStop&bit != 0 {
		s.shared.discard(abi.SigBit(abi.SIGCONT))
		for _, x := range tg.sigTasks() {
			x.sig.queue.discard(abi.SigBit(abi.SIGCONT))
		}
	} else if sig == abi.SIGCONT {
		tg.continueLocked()
	}
	if t.ignoredLocked(sig, force) {
		return nil
	}
	q := &t.sig.queue
	if group {
		q = &s.shared
	}
	if sig < abi.SIGRTMIN && q.set&bit != 0 {
		return nil // standard signals do not queue
	}
	if sig != abi.SIGKILL {
		u := t.user
		e := &sigEntry{info: *info, timer: timer}
		if timer == nil {
			override := sig < abi.SIGRTMIN && info.Code >= 0
			if n := u.signals.Add(1); !override && uint64(n) > tg.limits.Cur(abi.RLIMIT_SIGPENDING) {
				u.signals.Add(-1)
				if sig >= abi.SIGRTMIN && info.Code != abi.SI_USER {
					return abi.EAGAIN
				}
				e = nil // only the bit: the information is lost
			} else {
				e.user = u
			}
		} else {
			timer.queued = true
		}
		if e != nil {
			q.push(e)
		}
	}
	q.set |= bit
	tg.completeLocked(t, sig, group)
	s.queue.Notify(wait.Events(abi.EPOLLIN))
	return nil
}

// completeLocked finds the thread that takes the signal and wakes it; a signal
// that certainly kills starts the death of all threads at once.
func (tg *ThreadGroup) completeLocked(t *Task, sig int32, group bool) {
	s := &tg.sig
	chosen := t
	if !t.wantsLocked(sig) {
		if !group {
			return
		}
		chosen = nil
		for _, x := range tg.sigTasks() {
			if x.wantsLocked(sig) {
				chosen = x
				break
			}
		}
		if chosen == nil {
			return
		}
	}
	bit := abi.SigBit(sig)
	if (sigIgnore|sigStop|sigCore)&bit == 0 && chosen.sig.realBlocked&bit == 0 &&
		(sig == abi.SIGKILL || s.handlers.get(sig).Handler == abi.SIG_DFL) &&
		!(tg.protected && sig != abi.SIGKILL) {
		tg.killAllLocked(sig)
		return
	}
	chosen.sig.pendingNow.Store(true)
	if sig == abi.SIGKILL {
		chosen.sig.fatal.Store(true)
	}
	chosen.wake(workSignal)
}

// wantsLocked is Linux's wants_signal.
func (t *Task) wantsLocked(sig int32) bool {
	if t.sig.blocked.Has(sig) || t.exiting.Load() {
		return false
	}
	if sig == abi.SIGKILL {
		return true
	}
	return !t.sig.inStop
}

// killAllLocked makes every thread of the process die with wait status code.
// sig.mu must be held.
func (tg *ThreadGroup) killAllLocked(code int32) {
	s := &tg.sig
	if !s.groupExit {
		s.groupExit, s.exitCode = true, code
	}
	s.stopCount, s.stopSig, s.stopped = 0, 0, false
	for _, x := range tg.sigTasks() {
		x.sig.stopTaken = false
		x.killLocked()
	}
}

// killLocked makes one thread die. sig.mu must be held.
func (t *Task) killLocked() {
	t.sig.stopPending, t.sig.stopCounted, t.sig.inStop = false, false, false
	if t.exiting.Load() {
		return
	}
	t.sig.queue.set |= abi.SigBit(abi.SIGKILL)
	t.sig.fatal.Store(true)
	t.sig.pendingNow.Store(true)
	t.wake(workSignal)
}

// killed reports whether SIGKILL is pending.
func (t *Task) killed() bool { return t.sig.fatal.Load() }

// sigTasks are the process's threads as the signal code sees them: a snapshot
// that is replaced, under both Kernel.tasks and sig.mu, when threads come and go.
func (tg *ThreadGroup) sigTasks() []*Task {
	if p := tg.members.Load(); p != nil {
		return *p
	}
	return nil
}

// setMembers replaces the snapshot. Kernel.tasks and sig.mu must be held.
func (tg *ThreadGroup) setMembers(ts []*Task) { tg.members.Store(&ts) }

// SendSelf sends the calling thread a signal (SIGPIPE, SIGXFSZ).
func (t *Task) SendSelf(sig int) { t.tg.send(t, t.UserInfo(int32(sig), abi.SI_USER), false, false) }

// forceSignal delivers a signal that the thread can't refuse: one that is
// blocked or ignored kills (Linux's force_sig_info).
func (t *Task) forceSignal(info *abi.SigInfo) {
	s, sig := &t.tg.sig, info.Signo
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.handlers
	h.mu.Lock()
	blocked := t.sig.blocked.Has(sig)
	if a := &h.actions[sig]; blocked || a.Handler == abi.SIG_IGN {
		a.Handler = abi.SIG_DFL
		t.sig.blocked &^= abi.SigBit(sig)
	}
	if h.actions[sig].Handler == abi.SIG_DFL {
		t.tg.protected = false
	}
	h.mu.Unlock()
	t.tg.sendLocked(t, info, false, false, nil)
	t.recalcLocked()
}

// ForceFault forces a fault's signal with its address.
func (t *Task) ForceFault(sig, code int32, addr uint64) {
	i := &abi.SigInfo{Signo: sig, Code: code}
	i.SetAddr(addr)
	t.forceSignal(i)
}

// recalcLocked finds out anew whether anything is to be delivered. Only t's own
// goroutine may call it, with sig.mu held.
func (t *Task) recalcLocked() {
	p := t.sig.stopPending || t.tg.sig.cldPending != 0 || t.tg.sig.groupExit ||
		(t.sig.queue.set|t.tg.sig.shared.set)&^t.sig.blocked != 0
	if p {
		t.work.Or(workSignal)
	}
	t.sig.pendingNow.Store(p)
}

// SignalMask is the set of blocked signals; for t's own goroutine.
func (t *Task) SignalMask() abi.SigSet { return t.sig.blocked }

// SetSignalMask changes it, and hands shared signals that t now blocks over to
// other threads.
func (t *Task) SetSignalMask(m abi.SigSet) {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	t.setMaskLocked(m)
}

func (t *Task) setMaskLocked(m abi.SigSet) {
	m &= abi.SigBlockable
	s := &t.tg.sig
	if newly := m &^ t.sig.blocked & s.shared.set; newly != 0 {
		t.retargetLocked(newly)
	}
	t.sig.blocked = m
	t.recalcLocked()
}

// retargetLocked wakes other threads for shared signals that t won't take.
func (t *Task) retargetLocked(which abi.SigSet) {
	which &= t.tg.sig.shared.set
	for _, x := range t.tg.sigTasks() {
		if which == 0 {
			return
		}
		if x == t || x.exiting.Load() || which&^x.sig.blocked == 0 {
			continue
		}
		which &= x.sig.blocked
		if !x.sig.pendingNow.Swap(true) {
			x.wake(workSignal)
		}
	}
}

// SetTemporaryMask blocks m for the rest of this system call (sigsuspend,
// ppoll, pselect, epoll_pwait): the old mask comes back when it returns, after
// a handler has run with m.
func (t *Task) SetTemporaryMask(m abi.SigSet) {
	if !t.sig.haveSaved {
		t.sig.saved, t.sig.haveSaved = t.sig.blocked, true
	}
	t.work.Or(workMask)
	t.SetSignalMask(m)
}

// RestoreMask ends SetTemporaryMask early: the call was not interrupted.
func (t *Task) RestoreMask() {
	if t.sig.haveSaved {
		t.sig.haveSaved = false
		t.SetSignalMask(t.sig.saved)
	}
}

// SignalMasks returns what /proc/PID/status shows: pending for the thread and
// for the process, blocked, ignored and caught signals.
func (t *Task) SignalMasks() (pending, shared, blocked, ignored, caught abi.SigSet) {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.handlers
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := int32(1); i <= abi.NSIG; i++ {
		switch h.actions[i].Handler {
		case abi.SIG_DFL:
		case abi.SIG_IGN:
			ignored |= abi.SigBit(i)
		default:
			caught |= abi.SigBit(i)
		}
	}
	return t.sig.queue.set, s.shared.set, t.sig.blocked, ignored, caught
}

// PendingSignals are the signals of the thread and the process that wait.
func (t *Task) PendingSignals() abi.SigSet {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.sig.queue.set | s.shared.set
}

// PendingShared are the signals directed to the process that wait.
func (tg *ThreadGroup) PendingShared() abi.SigSet {
	tg.sig.mu.Lock()
	defer tg.sig.mu.Unlock()
	return tg.sig.shared.set
}

// DequeueSignal takes one pending signal of the set, blocked or not: signalfd,
// sigtimedwait. For t's own goroutine.
func (t *Task) DequeueSignal(set abi.SigSet) (abi.SigInfo, bool) {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.dequeueLocked(^(set & abi.SigBlockable))
}

// dequeueLocked takes the next signal that is not in blocked.
func (t *Task) dequeueLocked(blocked abi.SigSet) (abi.SigInfo, bool) {
	q := &t.sig.queue
	sig := q.next(blocked)
	if sig == 0 {
		q = &t.tg.sig.shared
		sig = q.next(blocked)
	}
	if sig == 0 {
		return abi.SigInfo{}, false
	}
	info, timer := q.pop(sig)
	if timer != nil {
		timer.dequeuedLocked(&info)
	}
	t.recalcLocked()
	return info, true
}

// WaitSignal is rt_sigtimedwait(2): it takes a pending signal of the set, or
// sleeps until there is one. EAGAIN when timeoutNs (negative: none) is over.
func (t *Task) WaitSignal(set abi.SigSet, timeoutNs int64) (abi.SigInfo, error) {
	set &= abi.SigBlockable
	s := &t.tg.sig
	s.mu.Lock()
	info, ok := t.dequeueLocked(^set)
	if ok || timeoutNs == 0 {
		s.mu.Unlock()
		if !ok {
			return info, abi.EAGAIN
		}
		return info, nil
	}
	// While it sleeps the signals are unblocked, so that they wake it up; an
	// ignored one does too.
	t.sig.realBlocked = t.sig.blocked
	t.sig.blocked &^= set
	t.recalcLocked()
	s.mu.Unlock()
	var err error
	if timeoutNs > 0 {
		now := t.k.clock.Monotonic()
		d := now + timeoutNs
		if d < now {
			d = 1<<63 - 1
		}
		err = t.BlockUntil(nil, d)
	} else {
		err = t.Block(nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.setMaskLocked(t.sig.realBlocked)
	t.sig.realBlocked = 0
	if info, ok = t.dequeueLocked(^set); ok {
		return info, nil
	}
	if err == abi.ETIMEDOUT {
		return info, abi.EAGAIN
	}
	return info, abi.EINTR
}
