package kernel

import (
	"garrison/abi"
	"garrison/sentry/wait"
)

// A Session is a set of process groups that share a controlling terminal
// (credentials(7), setsid(2)).
type Session struct {
	id     int32
	leader *ThreadGroup // nil once it has exited; guarded by Kernel.tasks
	term   *Terminal    // guarded by Kernel.tasks
	groups map[*ProcessGroup]struct{}
}

// ID is the session's id.
func (s *Session) ID() int32 { return s.id }

// A ProcessGroup is the unit of job control.
type ProcessGroup struct {
	id      int32
	session *Session
	members map[*ThreadGroup]struct{} // guarded by Kernel.tasks
}

// ID is the process group's id.
func (p *ProcessGroup) ID() int32 { return p.id }

// Session is the group's session.
func (p *ProcessGroup) Session() *Session { return p.session }

// A Terminal is the kernel's part of a terminal: which session it controls,
// and the foreground process group there. A tty embeds one.
type Terminal struct {
	// Owner is the terminal itself, for those who open /dev/tty.
	Owner any
	// Hangup is called, without locks, when the leader of the session that the
	// terminal controls has exited: later reads give EOF. nil for none. The
	// kernel itself sends the signals.
	Hangup func()

	session *Session      // guarded by Kernel.tasks
	fg      *ProcessGroup // guarded by Kernel.tasks
}

// Terminal is the controlling terminal of t's session, or nil.
func (t *Task) Terminal() *Terminal {
	t.k.tasks.RLock()
	defer t.k.tasks.RUnlock()
	return t.tg.pgrp.session.term
}

// SetControllingTerminal is TIOCSCTTY: t must be a session leader without a
// terminal; steal takes the terminal from another session (CAP_SYS_ADMIN).
func (t *Task) SetControllingTerminal(term *Terminal, steal bool) error {
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	s := t.tg.pgrp.session
	if s.leader == t.tg && term.session == s {
		return nil
	}
	if s.leader != t.tg || s.term != nil {
		return abi.EPERM
	}
	if term.session != nil {
		if !steal || !t.Cred().Can(abi.CAP_SYS_ADMIN) {
			return abi.EPERM
		}
		term.session.term = nil
	}
	s.term, term.session, term.fg = term, s, t.tg.pgrp
	return nil
}

// AcquireTerminal makes term the controlling terminal as opening it without
// O_NOCTTY does: if t is a session leader without one and term is free.
func (t *Task) AcquireTerminal(term *Terminal) {
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	s := t.tg.pgrp.session
	if s.leader == t.tg && s.term == nil && term.session == nil {
		s.term, term.session, term.fg = term, s, t.tg.pgrp
	}
}

// ReleaseTerminal is TIOCNOTTY: a session leader gives the terminal up for the
// whole session, and the foreground group gets SIGHUP and SIGCONT.
func (t *Task) ReleaseTerminal(term *Terminal) error {
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	s := t.tg.pgrp.session
	if s.term != term || term.session != s {
		return abi.ENOTTY
	}
	if s.leader != t.tg {
		// Linux drops only the caller's own reference; we keep terminals by
		// session, so the rest of the session decides.
		return nil
	}
	fg := term.fg
	s.term, term.session, term.fg = nil, nil, nil
	if fg != nil {
		k.signalGroupLocked(fg, abi.SIGHUP, kernelInfo(abi.SIGHUP))
		k.signalGroupLocked(fg, abi.SIGCONT, kernelInfo(abi.SIGCONT))
	}
	return nil
}

// HangupTerminal is what the end of the other side of term (the master closed,
// the line dropped) does: SIGHUP and SIGCONT to the session leader and the
// foreground group, and the session loses the terminal.
func (k *Kernel) HangupTerminal(term *Terminal) {
	k.tasks.Lock()
	defer k.tasks.Unlock()
	s := term.session
	if s == nil {
		return
	}
	fg := term.fg
	if s.leader != nil {
		k.sendGroupLocked(s.leader, abi.SIGHUP, kernelInfo(abi.SIGHUP))
		k.sendGroupLocked(s.leader, abi.SIGCONT, kernelInfo(abi.SIGCONT))
	}
	if fg != nil {
		k.signalGroupLocked(fg, abi.SIGHUP, kernelInfo(abi.SIGHUP))
	}
	s.term, term.session, term.fg = nil, nil, nil
}

// SignalForeground sends sig to term's foreground group (^C, ^Z, SIGWINCH).
func (k *Kernel) SignalForeground(term *Terminal, sig int32) {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if term.fg != nil {
		k.signalGroupLocked(term.fg, sig, kernelInfo(sig))
	}
}

// TerminalForeground is TIOCGPGRP: ENOTTY if term does not control t's session.
func (t *Task) TerminalForeground(term *Terminal) (int32, error) {
	t.k.tasks.RLock()
	defer t.k.tasks.RUnlock()
	if t.tg.pgrp.session.term != term {
		return 0, abi.ENOTTY
	}
	if term.fg == nil {
		return 0, nil
	}
	return term.fg.id, nil
}

// ForegroundPGID is the foreground group's id for anyone (the master side of
// a pty, /proc/PID/stat); 0 for none.
func (k *Kernel) ForegroundPGID(term *Terminal) int32 {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if term.fg == nil {
		return 0
	}
	return term.fg.id
}

// TerminalSession is TIOCGSID: ENOTTY if term does not control t's session.
func (t *Task) TerminalSession(term *Terminal) (int32, error) {
	t.k.tasks.RLock()
	defer t.k.tasks.RUnlock()
	if t.tg.pgrp.session.term != term {
		return 0, abi.ENOTTY
	}
	return term.session.id, nil
}

// SetTerminalForeground is TIOCSPGRP, which first behaves as a write to the
// terminal from the background does: SIGTTOU.
func (t *Task) SetTerminalForeground(term *Terminal, pgid int32) error {
	if err := t.CheckTerminalChange(term); err != nil {
		return err
	}
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	s := t.tg.pgrp.session
	if s.term != term {
		return abi.ENOTTY
	}
	if pgid < 0 {
		return abi.EINVAL
	}
	pg := k.rootPIDNS.groups[pgid]
	if pg == nil {
		return abi.ESRCH
	}
	if pg.session != s {
		return abi.EPERM
	}
	term.fg = pg
	return nil
}

// CheckTerminalRead stops a background reader with SIGTTIN: EIO if it can't be
// stopped (orphaned group, SIGTTIN ignored or blocked), ERESTARTSYS otherwise.
func (t *Task) CheckTerminalRead(term *Terminal) error { return t.checkJob(term, abi.SIGTTIN) }

// CheckTerminalChange is the same for what changes the terminal, or writes to
// it under TOSTOP: SIGTTOU; nothing happens if that is ignored or blocked.
func (t *Task) CheckTerminalChange(term *Terminal) error { return t.checkJob(term, abi.SIGTTOU) }

// checkJob is Linux's __tty_check_change.
func (t *Task) checkJob(term *Terminal, sig int32) error {
	k := t.k
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	pg := t.tg.pgrp
	if pg.session.term != term || term.fg == nil || term.fg == pg {
		return nil
	}
	switch {
	case t.ignoresOrBlocks(sig):
		if sig == abi.SIGTTIN {
			return abi.EIO
		}
		return nil
	case k.orphanedLocked(pg, nil):
		return abi.EIO
	}
	k.signalGroupLocked(pg, sig, kernelInfo(sig))
	return abi.ERESTARTSYS
}

// IsOrphaned reports whether no member of pg has a parent in another group of
// the same session (setpgid(2)): nobody could continue it.
func (k *Kernel) IsOrphaned(pg *ProcessGroup) bool {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	return k.orphanedLocked(pg, nil)
}

// orphanedLocked ignores one member. Kernel.tasks must be held.
func (k *Kernel) orphanedLocked(pg *ProcessGroup, ignore *ThreadGroup) bool {
	for m := range pg.members {
		if m == k.init && m != ignore && k.initStopped != nil && !m.zombie {
			return false // whoever started the sandbox waits for it as a shell does for a job
		}
		if m == ignore || m.parent == nil || m.exitedLocked() && m.live == 0 {
			continue
		}
		if p := m.parent.tg; p.pgrp != pg && p.pgrp.session == pg.session {
			return false
		}
	}
	return true
}

// hasStoppedLocked reports whether a member is stopped. Kernel.tasks must be held.
func (pg *ProcessGroup) hasStoppedLocked() bool {
	for m := range pg.members {
		m.sig.mu.Lock()
		stopped := m.sig.stopped
		m.sig.mu.Unlock()
		if stopped {
			return true
		}
	}
	return false
}

// hangupIfOrphaned is Linux's kill_orphaned_pgrp: when tg's exit (or move)
// orphans pg and a member is stopped, its members get SIGHUP and SIGCONT.
// Kernel.tasks must be held.
func (k *Kernel) hangupIfOrphaned(pg *ProcessGroup, tg, parent *ThreadGroup, ignore *ThreadGroup) {
	if parent == nil || parent.pgrp == pg || parent.pgrp.session != pg.session {
		return
	}
	if k.orphanedLocked(pg, ignore) && pg.hasStoppedLocked() {
		k.signalGroupLocked(pg, abi.SIGHUP, kernelInfo(abi.SIGHUP))
		k.signalGroupLocked(pg, abi.SIGCONT, kernelInfo(abi.SIGCONT))
	}
}

// moveToGroupLocked puts tg into pg and drops what became empty. Kernel.tasks must be held.
func (k *Kernel) moveToGroupLocked(tg *ThreadGroup, pg *ProcessGroup) {
	old := tg.pgrp
	if old == pg {
		return
	}
	pg.members[tg] = struct{}{}
	tg.pgrp = pg
	k.leaveGroupLocked(tg, old)
}

// leaveGroupLocked takes tg out of pg's members. Kernel.tasks must be held.
func (k *Kernel) leaveGroupLocked(tg *ThreadGroup, pg *ProcessGroup) {
	delete(pg.members, tg)
	if len(pg.members) > 0 {
		return
	}
	s := pg.session
	delete(k.rootPIDNS.groups, pg.id)
	delete(s.groups, pg)
	if s.term != nil && s.term.fg == pg {
		s.term.fg = nil
	}
	if len(s.groups) == 0 {
		if s.term != nil {
			s.term.session, s.term = nil, nil
		}
		delete(k.rootPIDNS.sessions, s.id)
	}
}

// newGroupLocked makes a process group. Kernel.tasks must be held.
func (k *Kernel) newGroupLocked(id int32, s *Session) *ProcessGroup {
	pg := &ProcessGroup{id: id, session: s, members: map[*ThreadGroup]struct{}{}}
	s.groups[pg] = struct{}{}
	k.rootPIDNS.groups[id] = pg
	return pg
}

// newSessionLocked makes a session with a process group. Kernel.tasks must be held.
func (k *Kernel) newSessionLocked(id int32, leader *ThreadGroup) *ProcessGroup {
	s := &Session{id: id, leader: leader, groups: map[*ProcessGroup]struct{}{}}
	k.rootPIDNS.sessions[id] = s
	return k.newGroupLocked(id, s)
}

// SetSID is setsid(2).
func (t *Task) SetSID() (int32, error) {
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	id := t.tg.pid
	if k.rootPIDNS.groups[id] != nil || t.tg.pgrp.session.leader == t.tg {
		return 0, abi.EPERM
	}
	k.moveToGroupLocked(t.tg, k.newSessionLocked(id, t.tg))
	return id, nil
}

// SetPGID is setpgid(2).
func (t *Task) SetPGID(pid, pgid int32) error {
	if pid == 0 {
		pid = t.tg.pid
	}
	if pgid == 0 {
		pgid = pid
	}
	if pgid < 0 {
		return abi.EINVAL
	}
	k := t.k
	k.tasks.Lock()
	defer k.tasks.Unlock()
	target := k.rootPIDNS.groupOf(pid)
	if target == nil {
		if k.rootPIDNS.tasks[pid] != nil {
			return abi.EINVAL // a thread that leads no group
		}
		return abi.ESRCH
	}
	if target != t.tg {
		if target.parent == nil || target.parent.tg != t.tg {
			return abi.ESRCH
		}
		if target.pgrp.session != t.tg.pgrp.session {
			return abi.EPERM
		}
		if target.execed {
			return abi.EACCES
		}
	}
	s := target.pgrp.session
	if s.leader == target {
		return abi.EPERM
	}
	pg := k.rootPIDNS.groups[pgid]
	if pgid != pid {
		if pg == nil || pg.session != t.tg.pgrp.session {
			return abi.EPERM
		}
	}
	if pg == nil {
		pg = k.newGroupLocked(pgid, s)
	}
	k.moveToGroupLocked(target, pg)
	return nil
}

// GetPGID is getpgid(2); GetSID is getsid(2).
func (t *Task) GetPGID(pid int32) (int32, error) {
	k := t.k
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if pid == 0 {
		return t.tg.pgrp.id, nil
	}
	if x := k.rootPIDNS.tasks[pid]; x != nil {
		return x.tg.pgrp.id, nil
	}
	return 0, abi.ESRCH
}

// GetSID is getsid(2).
func (t *Task) GetSID(pid int32) (int32, error) {
	k := t.k
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if pid == 0 {
		return t.tg.pgrp.session.id, nil
	}
	if x := k.rootPIDNS.tasks[pid]; x != nil {
		return x.tg.pgrp.session.id, nil
	}
	return 0, abi.ESRCH
}

// ProcessGroup is tg's process group.
func (tg *ThreadGroup) ProcessGroup() *ProcessGroup {
	tg.k.tasks.RLock()
	defer tg.k.tasks.RUnlock()
	return tg.pgrp
}

// leaveSessionLocked is the part of a session leader's exit that concerns its
// terminal: the foreground group is hung up. It returns the terminal's Hangup,
// to be called without locks. Kernel.tasks must be held.
func (k *Kernel) leaveSessionLocked(tg *ThreadGroup) func() {
	s := tg.pgrp.session
	if s.leader != tg {
		return nil
	}
	s.leader = nil
	term := s.term
	if term == nil {
		return nil
	}
	if fg := term.fg; fg != nil {
		k.signalGroupLocked(fg, abi.SIGHUP, kernelInfo(abi.SIGHUP))
		k.signalGroupLocked(fg, abi.SIGCONT, kernelInfo(abi.SIGCONT))
	}
	s.term, term.session, term.fg = nil, nil, nil
	return term.Hangup
}

// childEvents is the event that children's state changes raise.
const childEvents wait.Events = 1
