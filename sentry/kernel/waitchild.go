package kernel

import (
	"garrison/abi"
	"garrison/sentry/wait"
)

// WaitOptions say which children wait4(2) or waitid(2) is for.
type WaitOptions struct {
	Type    int32        // P_ALL, P_PID, P_PGID or P_PIDFD
	ID      int32        // pid or process group
	Group   *ThreadGroup // for P_PIDFD
	Options uint32       // WNOHANG, WEXITED, WSTOPPED, WCONTINUED, WNOWAIT, __WALL...
}

// A WaitResult is a child's state change. PID is 0 for none (WNOHANG).
type WaitResult struct {
	PID    int32
	UID    uint32
	Status int32 // as wait4 shows it
	Code   int32 // CLD_*
	Value  int32 // si_status
	Rusage abi.Rusage
}

// WaitChild waits for a child's state change; ECHILD if there is no such child.
func (t *Task) WaitChild(o *WaitOptions) (WaitResult, error) {
	r, err := t.tryWait(o)
	if r.PID != 0 || err != nil || o.Options&abi.WNOHANG != 0 {
		return r, err
	}
	w := wait.NewSleeper()
	defer w.Free()
	t.tg.childQueue.Add(&w.Waiter, childEvents)
	defer t.tg.childQueue.Remove(&w.Waiter)
	for {
		r, err := t.tryWait(o)
		if r.PID != 0 || err != nil {
			return r, err
		}
		if err := t.Block(w.C); err != nil {
			return WaitResult{}, err
		}
	}
}

// tryWait is Linux's do_wait without sleeping.
func (t *Task) tryWait(o *WaitOptions) (WaitResult, error) {
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	found := false
	for c := range t.tg.children {
		if o.Options&abi.WNOTHREAD != 0 && c.parent != t || !o.matches(t, c) {
			continue
		}
		found = true
		if r, ok := t.waitOneLocked(c, o); ok {
			return r, nil
		}
	}
	if !found {
		return WaitResult{}, abi.ECHILD
	}
	return WaitResult{}, nil
}

// matches is eligible_child.
func (o *WaitOptions) matches(t *Task, c *ThreadGroup) bool {
	switch o.Type {
	case abi.P_PID:
		if c.pid != o.ID {
			return false
		}
	case abi.P_PGID:
		id := o.ID
		if id == 0 {
			id = t.tg.pgrp.id
		}
		if c.pgrp.id != id {
			return false
		}
	case abi.P_PIDFD:
		if c != o.Group {
			return false
		}
	}
	if o.Options&abi.WALL != 0 {
		return true
	}
	// Children that do not send SIGCHLD are "clone children".
	return (c.exitSignal != abi.SIGCHLD) == (o.Options&abi.WCLONE != 0)
}

// waitOneLocked takes a state change of child c. Kernel.tasks must be held.
func (t *Task) waitOneLocked(c *ThreadGroup, o *WaitOptions) (WaitResult, bool) {
	r := WaitResult{PID: c.pid, UID: uint32(c.leader.Cred().RUID)}
	if c.zombie {
		if o.Options&abi.WEXITED == 0 {
			return r, false
		}
		r.Status = c.status
		r.Code, r.Value = decodeStatus(c.status)
		r.Rusage = c.rusageLocked(true)
		if o.Options&abi.WNOWAIT == 0 {
			p, d := &t.tg.cpu, &c.cpu
			p.childUser.Add(d.deadUser.Load() + d.childUser.Load())
			p.childSys.Add(d.deadSys.Load() + d.childSys.Load())
			p.childMinflt.Add(d.minflt.Load() + d.childMinflt.Load())
			p.childVcsw.Add(d.vcsw.Load() + d.childVcsw.Load())
			if m := max(d.maxRSS.Load(), d.childMaxRSS.Load()); m > p.childMaxRSS.Load() {
				p.childMaxRSS.Store(m)
			}
			t.k.reapLocked(c)
		}
		return r, true
	}
	s := &c.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Options&abi.WSTOPPED != 0 && s.stopped && s.stopCode != 0 {
		r.Code, r.Value, r.Status = abi.CLD_STOPPED, s.stopCode, s.stopCode<<8|0x7f
		if o.Options&abi.WNOWAIT == 0 {
			s.stopCode = 0
		}
		return r, true
	}
	if o.Options&abi.WCONTINUED != 0 && s.continued {
		r.Code, r.Value, r.Status = abi.CLD_CONTINUED, abi.SIGCONT, 0xffff
		if o.Options&abi.WNOWAIT == 0 {
			s.continued = false
		}
		return r, true
	}
	return r, false
}

// rusageLocked sums what the process used; with children, those too (for wait).
func (tg *ThreadGroup) rusageLocked(children bool) abi.Rusage {
	c := &tg.cpu
	user, sys := c.deadUser.Load(), c.deadSys.Load()
	minflt, vcsw := c.minflt.Load(), c.vcsw.Load()
	rss := c.maxRSS.Load()
	for _, x := range tg.sigTasks() {
		u, s := x.acct.times()
		user, sys = user+u, sys+s
		minflt += x.minflt.Load()
		vcsw += x.vcsw.Load()
	}
	if children {
		user, sys = user+c.childUser.Load(), sys+c.childSys.Load()
		minflt, vcsw = minflt+c.childMinflt.Load(), vcsw+c.childVcsw.Load()
		rss = max(rss, c.childMaxRSS.Load())
	}
	return abi.Rusage{Utime: abi.NsToTimeval(user), Stime: abi.NsToTimeval(sys), MaxRSS: rss, MinFlt: minflt, NVCSw: vcsw}
}

// Rusage is getrusage(2) for RUSAGE_SELF, RUSAGE_CHILDREN or RUSAGE_THREAD.
func (t *Task) Rusage(who int32) (abi.Rusage, error) {
	tg := t.tg
	switch who {
	case abi.RUSAGE_THREAD:
		u, s := t.acct.times()
		return abi.Rusage{Utime: abi.NsToTimeval(u), Stime: abi.NsToTimeval(s), MaxRSS: max(tg.cpu.maxRSS.Load(), maxRSS(t.mm.Load())),
			MinFlt: t.minflt.Load(), NVCSw: t.vcsw.Load()}, nil
	case abi.RUSAGE_CHILDREN:
		c := &tg.cpu
		return abi.Rusage{Utime: abi.NsToTimeval(c.childUser.Load()), Stime: abi.NsToTimeval(c.childSys.Load()),
			MaxRSS: c.childMaxRSS.Load(), MinFlt: c.childMinflt.Load(), NVCSw: c.childVcsw.Load()}, nil
	case abi.RUSAGE_SELF:
		tg.sig.mu.Lock()
		r := tg.rusageLocked(false)
		tg.sig.mu.Unlock()
		r.MaxRSS = max(r.MaxRSS, maxRSS(t.mm.Load()))
		return r, nil
	}
	return abi.Rusage{}, abi.EINVAL
}
