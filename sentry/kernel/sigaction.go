package kernel

import (
	"sync"

	"garrison/abi"
)

// SignalHandlers are a process's signal actions; processes made with
// CLONE_SIGHAND without CLONE_THREAD share them.
type SignalHandlers struct {
	mu      sync.Mutex
	actions [abi.NSIG + 1]abi.SigAction
}

func (h *SignalHandlers) get(sig int32) abi.SigAction {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.actions[sig]
}

// clone copies the actions for fork; with reset (CLONE_CLEAR_SIGHAND, execve),
// caught signals go back to the default.
func (h *SignalHandlers) clone(reset bool) *SignalHandlers {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := &SignalHandlers{actions: h.actions}
	if reset {
		for i := range n.actions {
			a := &n.actions[i]
			if a.Handler == abi.SIG_IGN {
				*a = abi.SigAction{Handler: abi.SIG_IGN}
			} else {
				*a = abi.SigAction{}
			}
		}
	}
	return n
}

// SetAction is sigaction(2). sig is valid; new may be nil.
func (t *Task) SetAction(sig int32, new *abi.SigAction) (abi.SigAction, error) {
	if sig < 1 || sig > abi.NSIG || new != nil && (sig == abi.SIGKILL || sig == abi.SIGSTOP) {
		return abi.SigAction{}, abi.EINVAL
	}
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.handlers
	h.mu.Lock()
	old := h.actions[sig]
	if new == nil {
		h.mu.Unlock()
		return old, nil
	}
	a := *new
	a.Mask &= abi.SigBlockable
	a.Flags &= abi.SA_NOCLDSTOP | abi.SA_NOCLDWAIT | abi.SA_SIGINFO | abi.SA_ONSTACK | abi.SA_RESTART |
		abi.SA_NODEFER | abi.SA_RESETHAND | abi.SA_EXPOSE_TAGBITS | abi.SA_RESTORER
	h.actions[sig] = a
	h.mu.Unlock()
	if a.Handler == abi.SIG_IGN || a.Handler == abi.SIG_DFL && sigIgnore.Has(sig) {
		// POSIX: a pending signal that is now ignored is discarded, blocked or not.
		s.shared.discard(abi.SigBit(sig))
		for _, x := range t.tg.sigTasks() {
			x.sig.queue.discard(abi.SigBit(sig))
		}
		t.recalcLocked()
	}
	return old, nil
}

// onAltStack is Linux's on_sig_stack.
func (t *Task) onAltStack(sp uint64) bool {
	a := &t.sig.alt
	return a.Flags&abi.SS_AUTODISARM == 0 && sp > a.SP && sp-a.SP <= a.Size
}

// AltStack is what sigaltstack(2) returns as the old stack.
func (t *Task) AltStack() abi.SigAltStack {
	a := t.sig.alt
	switch {
	case a.Size == 0:
		a.Flags |= abi.SS_DISABLE
	case t.onAltStack(t.regs.Rsp):
		a.Flags |= abi.SS_ONSTACK
	}
	return a
}

// SetAltStack is sigaltstack(2) for a caller with stack pointer sp.
func (t *Task) SetAltStack(a abi.SigAltStack, sp, minSize uint64) error {
	if t.onAltStack(sp) {
		return abi.EPERM
	}
	mode := a.Flags &^ abi.SS_AUTODISARM
	if mode != abi.SS_DISABLE && mode != abi.SS_ONSTACK && mode != 0 {
		return abi.EINVAL
	}
	if mode == abi.SS_DISABLE {
		a.SP, a.Size = 0, 0
	} else if a.Size < minSize {
		return abi.ENOMEM
	}
	// SS_ONSTACK is accepted and means nothing here.
	a.Flags &^= abi.SS_ONSTACK
	t.sig.alt = a
	return nil
}
