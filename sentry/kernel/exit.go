package kernel

import (
	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/wait"
)

// Exit is exit(2): the calling thread ends.
func (t *Task) Exit(code int32) {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	t.exitCode = code & 0xff << 8
	t.work.Or(workExit)
}

// ExitGroup is exit_group(2).
func (t *Task) ExitGroup(code int32) {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	t.tg.killAllLocked(code & 0xff << 8)
	t.beginExitLocked()
}

// exit is Linux's do_exit, on the task's own goroutine.
func (t *Task) exit() {
	k, tg := t.k, t.tg
	if k.strace != nil {
		k.strace.Event(t, "+++ exited +++")
	}
	s := &tg.sig
	s.mu.Lock()
	t.exiting.Store(true)
	last := t.leaveStopLocked()
	t.sig.inStop = false
	stopSig := s.stopSig
	// Signals for the process that t was to take go to others.
	t.retargetLocked(^t.sig.blocked)
	t.sig.pendingNow.Store(false)
	s.mu.Unlock()
	if last {
		k.notifyStopped(tg, abi.CLD_STOPPED, stopSig)
	}

	t.timersGone()
	t.releaseMM(true)
	fds, fs := t.fds.Swap(nil), t.fs.Load()
	if fds != nil {
		fds.DecRef(t)
	}
	t.fs.Store(nil)
	if fs != nil {
		fs.DecRef()
	}

	// The books.
	t.acct.block(t)
	user, sys := t.acct.times()
	var hangup, hook func()
	var status int32

	k.tasks.Lock()
	tg.live--
	groupDead := tg.live == 0
	s.mu.Lock()
	tg.setMembers(without(tg.sigTasks(), t))
	t.sig.queue.discard(^abi.SigSet(0))
	tg.cpu.deadUser.Add(user)
	tg.cpu.deadSys.Add(sys)
	tg.cpu.minflt.Add(t.minflt.Load())
	tg.cpu.vcsw.Add(t.vcsw.Load())
	if groupDead {
		s.shared.discard(^abi.SigSet(0))
		tg.status = t.groupStatus()
	}
	s.mu.Unlock()
	t.state.Store(uint32(stateZombie))
	k.reparentLocked(t, groupDead)
	if groupDead {
		hangup = k.leaveSessionLocked(tg)
		var parent *ThreadGroup
		if tg.parent != nil {
			parent = tg.parent.tg
		}
		k.hangupIfOrphaned(tg.pgrp, tg, parent, tg)
	}
	if t != tg.leader {
		k.forgetTaskLocked(t)
	}
	if groupDead {
		tg.zombie = true
		tg.timers.stopAll()
		status = tg.status
		if k.init == tg {
			k.killed = true
			for _, other := range k.rootPIDNS.leaders {
				if !other.zombie {
					other.sig.mu.Lock()
					other.killAllLocked(abi.SIGKILL)
					other.sig.mu.Unlock()
				}
			}
		}
		k.notifyExitLocked(tg)
		if tg.onExit != nil {
			f := tg.onExit
			hook = func() { f(status) }
		}
	} else if tg.execTask != nil && tg.live == 1 {
		select {
		case tg.execWake <- struct{}{}:
		default:
		}
	}
	k.liveTasks--
	if k.liveTasks == 0 {
		select {
		case k.allGone <- struct{}{}:
		default:
		}
	}
	k.tasks.Unlock()
	if hangup != nil {
		hangup()
	}
	if hook != nil {
		hook()
	}
	t.thread.Release()
}

// groupStatus is the process's wait status: the one it was killed with, or
// else the leader's. sig.mu must be held.
func (t *Task) groupStatus() int32 {
	if t.tg.sig.groupExit {
		return t.tg.sig.exitCode
	}
	return t.tg.leader.exitCode
}

func without(ts []*Task, t *Task) []*Task {
	r := make([]*Task, 0, len(ts))
	for _, x := range ts {
		if x != t {
			r = append(r, x)
		}
	}
	return r
}

// releaseMM gives the address space up: at exit (dying), or in execve, when a
// new one takes its place. It is mm_release and exit_mm: robust futexes, the
// word of CLONE_CHILD_CLEARTID, and a parent that waits in vfork.
func (t *Task) releaseMM(dying bool) {
	m := t.mm.Load()
	if m == nil {
		return
	}
	t.releaseFutexes(m)
	if a := t.clearChildTID; a != 0 {
		t.clearChildTID = 0
		if m.Users() > 1 {
			usermem.CopyOutUint32(m, a, 0)
			t.k.futexWakeAddr(m, a)
		}
	}
	if dying {
		t.tg.noteMaxRSS(m)
		t.mm.Store(nil)
	}
	m.DecUsers()
	t.vforkDone()
}

// reparentLocked gives t's children to another thread, the nearest subreaper or
// init. Kernel.tasks must be held.
func (k *Kernel) reparentLocked(t *Task, groupDead bool) {
	tg := t.tg
	if len(tg.children) == 0 {
		return
	}
	heir := tg.otherLocked(t)
	if groupDead || heir == nil {
		heir = k.reaperLocked(tg)
	}
	for c := range tg.children {
		if c.parent != t {
			continue
		}
		for _, x := range c.tasks {
			if x.pdeathSig != 0 && !c.zombie {
				info := &abi.SigInfo{Signo: x.pdeathSig, Code: abi.SI_USER}
				info.SetPID(tg.pid)
				info.SetUID(uint32(t.Cred().RUID))
				c.send(x, info, true, false)
			}
		}
		if heir == nil {
			delete(tg.children, c)
			c.parent = nil
			c.ppid.Store(0)
			if c.zombie {
				k.reapLocked(c)
			}
			continue
		}
		c.parent = heir
		if heir.tg == tg {
			continue
		}
		delete(tg.children, c)
		heir.tg.children[c] = struct{}{}
		c.ppid.Store(heir.tg.pid)
		c.exitSignal = abi.SIGCHLD
		if c.zombie {
			k.notifyExitLocked(c)
		}
		k.hangupIfOrphaned(c.pgrp, c, tg, nil)
	}
}

// reaperLocked finds who adopts tg's children: nil if nobody is left.
func (k *Kernel) reaperLocked(tg *ThreadGroup) *Task {
	for p := tg.parent; p != nil && p.tg != k.init; p = p.tg.parent {
		if p.tg.subreaper {
			if x := p.tg.otherLocked(nil); x != nil {
				return x
			}
		}
	}
	if k.init != nil && k.init != tg && !k.init.zombie {
		return k.init.otherLocked(nil)
	}
	return nil
}

// forgetTaskLocked removes a thread that nobody waits for. Kernel.tasks must be held.
func (k *Kernel) forgetTaskLocked(t *Task) {
	t.tg.tasks = without(t.tg.tasks, t)
	if k.rootPIDNS.tasks[t.TID()] == t {
		delete(k.rootPIDNS.tasks, t.TID())
	}
	t.user.tasks.Add(-1)
	t.state.Store(uint32(stateDead))
}

// notifyExitLocked tells tg's parent that it is a zombie, and reaps it if the
// parent does not care for its children. Kernel.tasks must be held.
func (k *Kernel) notifyExitLocked(tg *ThreadGroup) {
	tg.exitQueue.Notify(^wait.Events(0))
	p := tg.parent
	if p == nil {
		k.reapLocked(tg)
		return
	}
	reap := false
	if sig := tg.exitSignal; true {
		ps := &p.tg.sig
		ps.mu.Lock()
		if sig == abi.SIGCHLD {
			a := ps.handlers.get(abi.SIGCHLD)
			if a.Handler == abi.SIG_IGN {
				reap, sig = true, 0
			} else if a.Flags&abi.SA_NOCLDWAIT != 0 {
				reap = true
			}
		}
		// clone(2) takes any byte for the exit signal; what is no signal is not sent.
		if sig > 0 && sig <= abi.NSIG {
			p.tg.sendLocked(p, tg.exitInfoLocked(sig), true, false, nil)
		}
		ps.mu.Unlock()
	}
	p.tg.childQueue.Notify(childEvents)
	if reap {
		k.reapLocked(tg)
	}
}

// exitInfoLocked is the siginfo of a child's exit. Kernel.tasks must be held.
func (tg *ThreadGroup) exitInfoLocked(sig int32) *abi.SigInfo {
	i := &abi.SigInfo{Signo: sig}
	i.Code, _ = decodeStatus(tg.status)
	_, st := decodeStatus(tg.status)
	i.SetStatus(st)
	i.SetPID(tg.pid)
	i.SetUID(uint32(tg.leader.Cred().RUID))
	const tick = 1e9 / abi.UserHZ
	i.SetChildTimes(tg.cpu.deadUser.Load()/tick, tg.cpu.deadSys.Load()/tick)
	return i
}

// decodeStatus turns a wait status into CLD_* and si_status.
func decodeStatus(w int32) (code, status int32) {
	switch {
	case w&0x7f == 0:
		return abi.CLD_EXITED, w >> 8 & 0xff
	case w&0x80 != 0:
		return abi.CLD_DUMPED, w & 0x7f
	}
	return abi.CLD_KILLED, w & 0x7f
}

// reapLocked removes a zombie for good. Kernel.tasks must be held.
func (k *Kernel) reapLocked(tg *ThreadGroup) {
	if tg.reaped {
		return
	}
	tg.reaped = true
	if p := tg.parent; p != nil {
		delete(p.tg.children, tg)
	}
	k.forgetTaskLocked(tg.leader)
	delete(k.rootPIDNS.leaders, tg.pid)
	k.leaveGroupLocked(tg, tg.pgrp)
}

// Wait blocks until no task is left; for the sandbox's own goroutine.
func (k *Kernel) Wait() {
	for {
		k.tasks.RLock()
		n := k.liveTasks
		k.tasks.RUnlock()
		if n == 0 {
			return
		}
		<-k.allGone
	}
}
