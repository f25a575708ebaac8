package kernel

import "garrison/abi"

// nextSignal is Linux's get_signal: it stops the thread, or makes it exit, as
// signals say, and returns a caught one to deliver, if there is one.
func (t *Task) nextSignal() (abi.SigInfo, abi.SigAction, bool) {
	tg := t.tg
	s := &tg.sig
	for {
		s.mu.Lock()
		if why := s.cldPending; why != 0 {
			s.cldPending = 0
			sig := s.stopSig
			s.mu.Unlock()
			t.k.notifyStopped(tg, why, sig)
			continue
		}
		if s.groupExit || t.sig.queue.set.Has(abi.SIGKILL) {
			t.beginExitLocked()
			s.mu.Unlock()
			return abi.SigInfo{}, abi.SigAction{}, false
		}
		if t.sig.stopPending {
			s.mu.Unlock()
			t.stopHere()
			continue
		}
		info, ok := t.dequeueLocked(t.sig.blocked)
		if !ok {
			t.recalcLocked()
			s.mu.Unlock()
			return abi.SigInfo{}, abi.SigAction{}, false
		}
		sig := info.Signo
		h := s.handlers
		h.mu.Lock()
		a := h.actions[sig]
		if a.Handler != abi.SIG_DFL && a.Handler != abi.SIG_IGN && a.Flags&abi.SA_RESETHAND != 0 {
			h.actions[sig].Handler = abi.SIG_DFL
		}
		h.mu.Unlock()
		bit := abi.SigBit(sig)
		switch {
		case a.Handler == abi.SIG_IGN:
		case a.Handler != abi.SIG_DFL:
			s.mu.Unlock()
			return info, a, true
		case sigIgnore&bit != 0:
		case tg.protected && sig != abi.SIGKILL && sig != abi.SIGSTOP:
		case sigStop&bit != 0:
			if sig != abi.SIGSTOP {
				// An orphaned group can't be continued by anybody: it does not stop.
				t.sig.stopTaken = true
				s.mu.Unlock()
				orphaned := t.inOrphanedGroup()
				s.mu.Lock()
				// A SIGCONT that came meanwhile cancels the stop.
				taken := t.sig.stopTaken
				t.sig.stopTaken = false
				if orphaned || !taken || t.sig.fatal.Load() || s.groupExit {
					break
				}
			}
			tg.startStopLocked(sig)
		default:
			if t.k.strace != nil {
				t.k.strace.Event(t, "+++ killed by "+abi.SignalName(sig)+" +++")
			}
			tg.killAllLocked(sig)
		}
		s.mu.Unlock()
	}
}

func (t *Task) inOrphanedGroup() bool {
	t.k.tasks.RLock()
	defer t.k.tasks.RUnlock()
	return t.k.orphanedLocked(t.tg.pgrp, nil)
}

// beginExitLocked makes the run loop leave. sig.mu must be held.
func (t *Task) beginExitLocked() {
	s := &t.tg.sig
	if s.groupExit {
		t.exitCode = s.exitCode
	} else {
		t.exitCode = abi.SIGKILL
	}
	t.work.Or(workExit)
}

// handleSignals delivers what is pending before guest code runs on, and settles
// how an interrupted system call goes on.
func (t *Task) handleSignals() {
	for t.sig.pendingNow.Load() && t.work.Load()&workExit == 0 {
		info, act, ok := t.nextSignal()
		if !ok {
			continue
		}
		t.resolveRestart(&act)
		if t.k.strace != nil {
			t.k.strace.Event(t, "--- "+abi.SignalName(info.Signo)+" ---")
		}
		if !t.pushFrame(&info, &act) {
			// signal_setup_done: the stack is no good. If SIGSEGV itself can't
			// be delivered, its default action kills.
			if info.Signo == abi.SIGSEGV {
				t.resetAction(abi.SIGSEGV)
			}
			t.forceSignal(&abi.SigInfo{Signo: abi.SIGSEGV, Code: abi.SI_KERNEL})
			continue
		}
		mask := t.sig.blocked | act.Mask
		if act.Flags&abi.SA_NODEFER == 0 {
			mask |= abi.SigBit(info.Signo)
		}
		t.sig.haveSaved = false
		t.SetSignalMask(mask)
	}
	if t.work.Load()&workExit != 0 {
		return
	}
	t.resolveRestart(nil)
	t.RestoreMask()
}

func (t *Task) resetAction(sig int32) {
	h := t.tg.sig.handlers
	h.mu.Lock()
	h.actions[sig].Handler = abi.SIG_DFL
	h.mu.Unlock()
}

// resolveRestart decides how a system call that returned a restart code goes
// on, given the action of the signal that is about to be handled (nil: none is).
// This is the one place where restart codes end.
func (t *Task) resolveRestart(act *abi.SigAction) {
	code := t.restart
	if code == 0 {
		return
	}
	t.restart = 0
	r := &t.regs
	if act != nil {
		if code == abi.ERESTARTNOHAND || code == abi.ERESTART_RESTARTBLOCK ||
			code == abi.ERESTARTSYS && act.Flags&abi.SA_RESTART == 0 {
			eintr := int64(abi.EINTR)
			r.Rax = uint64(-eintr)
			return
		}
	}
	r.Rip -= syscallLen
	r.Rax = r.Orig_rax
	if code == abi.ERESTART_RESTARTBLOCK {
		r.Rax = abi.SYS_restart_syscall
	}
}

// syscallLen is the length of the SYSCALL instruction.
const syscallLen = 2
