package kernel

import "garrison/abi"

// continueLocked is what SIGCONT does before it is even delivered: pending stop
// signals go, stopped threads run, and the parent is told later by one of them.
// sig.mu must be held.
func (tg *ThreadGroup) continueLocked() {
	s := &tg.sig
	s.shared.discard(sigStop)
	var why int32
	if s.stopped {
		why = abi.CLD_CONTINUED
	} else if s.stopCount > 0 {
		why = abi.CLD_STOPPED
	}
	if why != 0 {
		s.stopped, s.stopCount, s.stopCode = false, 0, 0
		s.continued, s.cldPending = true, why
	}
	for _, x := range tg.sigTasks() {
		x.sig.queue.discard(sigStop)
		woken := x.sig.stopPending || x.sig.inStop
		x.sig.stopPending, x.sig.stopCounted, x.sig.inStop, x.sig.stopTaken = false, false, false, false
		if woken || why != 0 {
			x.sig.pendingNow.Store(true)
			x.wake(workSignal)
		}
	}
}

// startStopLocked begins a group stop by sig: every thread shall stop.
// sig.mu must be held.
func (tg *ThreadGroup) startStopLocked(sig int32) {
	s := &tg.sig
	s.stopSig, s.stopCount, s.continued = sig, 0, false
	if s.stopped {
		return
	}
	for _, x := range tg.sigTasks() {
		if x.exiting.Load() || x.sig.fatal.Load() {
			continue
		}
		x.sig.stopPending, x.sig.stopCounted = true, true
		s.stopCount++
		x.sig.pendingNow.Store(true)
		x.wake(workSignal)
	}
}

// leaveStopLocked takes t out of the count of threads that have yet to stop.
// It reports whether t was the last. sig.mu must be held.
func (t *Task) leaveStopLocked() bool {
	s := &t.tg.sig
	counted := t.sig.stopCounted
	t.sig.stopPending, t.sig.stopCounted = false, false
	if !counted || s.stopCount == 0 {
		return false
	}
	s.stopCount--
	if s.stopCount == 0 && !s.stopped {
		s.stopped, s.stopCode = true, s.stopSig
		return true
	}
	return false
}

// stopHere is a thread's part of a group stop: it tells the parent if it is the
// last, and sleeps until SIGCONT or SIGKILL.
func (t *Task) stopHere() {
	s := &t.tg.sig
	s.mu.Lock()
	if !t.sig.stopPending {
		s.mu.Unlock()
		return
	}
	sig := s.stopSig
	last := t.leaveStopLocked()
	t.sig.inStop = true
	s.mu.Unlock()
	if last {
		t.k.notifyStopped(t.tg, abi.CLD_STOPPED, sig)
	}
	if t.k.strace != nil {
		t.k.strace.Event(t, "--- stopped by "+abi.SignalName(sig)+" ---")
	}
	t.startBlock(stateStopped)
	for {
		s.mu.Lock()
		stopped := t.sig.inStop
		s.mu.Unlock()
		if !stopped {
			break
		}
		<-t.intr
	}
	t.endBlock()
	s.mu.Lock()
	t.recalcLocked()
	s.mu.Unlock()
}

// notifyStopped tells tg's parent that it stopped (CLD_STOPPED) or was
// continued (CLD_CONTINUED). No lock may be held.
func (k *Kernel) notifyStopped(tg *ThreadGroup, why, sig int32) {
	k.tasks.RLock()
	hook := k.initStopped
	if tg != k.init {
		hook = nil
	}
	if p := tg.parent; p != nil {
		info := &abi.SigInfo{Signo: abi.SIGCHLD, Code: why}
		info.SetPID(tg.pid)
		info.SetUID(uint32(tg.leader.Cred().RUID))
		u, st := tg.CPUTimes()
		info.SetChildTimes(u/(1e9/abi.UserHZ), st/(1e9/abi.UserHZ))
		if why == abi.CLD_CONTINUED {
			info.SetStatus(abi.SIGCONT)
		} else {
			info.SetStatus(sig)
		}
		ps := &p.tg.sig
		ps.mu.Lock()
		a := ps.handlers.get(abi.SIGCHLD)
		if a.Handler != abi.SIG_IGN && a.Flags&abi.SA_NOCLDSTOP == 0 {
			p.tg.sendLocked(p.tg.leader, info, true, false, nil)
		}
		ps.mu.Unlock()
		p.tg.childQueue.Notify(childEvents)
	}
	k.tasks.RUnlock()
	if hook != nil {
		hook(why == abi.CLD_STOPPED, sig)
	}
}
