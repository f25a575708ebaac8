package kernel

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/cred"
	"garrison/sentry/loader"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// ExecArgs is a program to run.
type ExecArgs struct {
	File *vfs.File // opened for execution; Exec takes over the reference
	Path string    // as the caller named it
	// ByFD says that the file was named by a descriptor alone, Cloexec that this
	// descriptor will be closed: a script could not be opened again.
	ByFD, Cloexec bool
	Argv, Envv    []string
}

// OpenExec opens a program for execveat(2).
func (t *Task) OpenExec(start vfs.Path, path string, fl vfs.LookupFlags) (*vfs.File, error) {
	return t.k.openExec(t, start, path, fl)
}

func (k *Kernel) openExec(ctx vfs.Context, start vfs.Path, path string, fl vfs.LookupFlags) (*vfs.File, error) {
	p, err := k.vfs.Lookup(ctx, start, path, fl)
	if err != nil {
		return nil, err
	}
	return k.vfs.OpenPath(ctx, p, vfs.OpenHow{Flags: abi.O_RDONLY, Exec: true})
}

// Exec is execve(2): on success the registers belong to the new program.
func (t *Task) Exec(a *ExecArgs) error {
	k, tg := t.k, t.tg
	// A user that came over RLIMIT_NPROC by setuid must not go on (execve(2), EAGAIN).
	if k.userOver(t) && t.user.tasks.Load() > int64(tg.limits.Cur(abi.RLIMIT_NPROC)) {
		a.File.DecRef()
		return abi.EAGAIN
	}
	m, err := mm.New(k.platform, k.pageFile)
	if err != nil {
		a.File.DecRef()
		return abi.ENOMEM
	}
	m.SetLimits(tg.mmLimits)
	prog, err := k.loadProgram(t, m, a, t.Cred(), func(f *vfs.File) *cred.Cred { return t.execCred(f) })
	if err != nil {
		m.DecUsers()
		if f, ok := err.(loader.Fatal); ok {
			// The old program would be gone by now.
			t.forceSignal(kernelInfo(abi.SIGSEGV))
			return f.Errno
		}
		return err
	}

	// The point of no return: other threads die, and t becomes the leader.
	if err := t.becomeOnly(); err != nil {
		m.DecUsers()
		return err
	}
	tg.noteMaxRSS(t.mm.Load())
	t.releaseMM(false)
	// Before anybody can find the new memory: they may still be let in by the
	// credentials of the old program.
	if prog.secure || !prog.readable {
		m.SetDumpable(0)
	} else {
		m.SetDumpable(1)
	}
	t.mm.Store(m)

	// What does not outlive the old program.
	tg.timers.deletePosix()
	t.UnshareFiles()
	t.fds.Load().CloseOnExec(t)
	t.resetSignals()
	t.clearChildTID, t.robustList = 0, 0
	t.restart, t.restartFn = 0, nil
	t.thpDisable = false

	oldCred := t.Cred()
	c := prog.cred
	k.tasks.Lock()
	tg.execed = true
	if c.EUID != oldCred.EUID || c.EGID != oldCred.EGID || c.Permitted&^oldCred.Permitted != 0 {
		t.pdeathSig = 0
	}
	tg.exitSignal = abi.SIGCHLD
	k.tasks.Unlock()
	t.cred.Store(c)
	t.SetComm(prog.comm)
	t.enterProgram(prog)
	return nil
}

// becomeOnly kills the other threads and waits until they are gone; then t
// takes the place, and the number, of the leader (Linux's de_thread).
func (t *Task) becomeOnly() error {
	k, tg := t.k, t.tg
	s := &tg.sig
	k.tasks.Lock()
	s.mu.Lock()
	if s.groupExit || tg.execTask != nil || t.sig.fatal.Load() {
		s.mu.Unlock()
		k.tasks.Unlock()
		return abi.EAGAIN
	}
	tg.execTask = t
	s.stopCount = 0
	for _, x := range tg.sigTasks() {
		if x != t {
			x.killLocked()
		}
	}
	t.sig.stopPending, t.sig.stopCounted = false, false
	s.mu.Unlock()
	alone := tg.live == 1
	k.tasks.Unlock()
	for !alone {
		if err := t.BlockKillable(tg.execWake); err != nil {
			k.tasks.Lock()
			tg.execTask = nil
			k.tasks.Unlock()
			return abi.EAGAIN
		}
		k.tasks.RLock()
		alone = tg.live == 1
		k.tasks.RUnlock()
	}
	k.tasks.Lock()
	defer k.tasks.Unlock()
	tg.execTask = nil
	if t == tg.leader {
		return nil
	}
	old, mine := tg.leader, t.TID()
	k.forgetTaskLocked(old)
	delete(k.rootPIDNS.tasks, mine)
	t.tid.Store(tg.pid)
	k.rootPIDNS.tasks[tg.pid] = t
	t.startNs = old.startNs
	tg.leader = t
	for c := range tg.children {
		if c.parent == old {
			c.parent = t
		}
	}
	return nil
}

// UnshareFiles makes descriptors private, if they were shared with another process.
func (t *Task) UnshareFiles() {
	fds := t.fds.Load()
	if !fds.Shared() {
		return
	}
	t.fds.Store(fds.Fork())
	fds.DecRef(t)
}

// resetSignals gives caught signals back to the default and drops the
// alternate stack; pending and blocked signals stay.
func (t *Task) resetSignals() {
	s := &t.tg.sig
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = s.handlers.clone(true)
	t.sig.alt = abi.SigAltStack{}
	t.recalcLocked()
}

// enterProgram sets the registers for a program's first instruction.
func (t *Task) enterProgram(p *program) {
	t.regs = platform.Registers{Rip: p.entry, Rsp: p.sp, Cs: userCS, Ss: userSS, Eflags: 0x202, Orig_rax: ^uint64(0)}
	t.thread.SetFPState(nil)
}

// execCred is what execve of f makes of t's credentials: set-user-ID bits and
// the transformation of capabilities (capabilities(7), "Transformation of
// capabilities during execve()"; file capabilities are not honoured).
func (t *Task) execCred(f *vfs.File) *cred.Cred {
	old := t.Cred()
	c := old.Clone()
	c.KeepCaps = false
	a, err := f.Attr(t)
	setid := false
	if err == nil && !f.Path().NoSuid() && !old.NoNewPrivs && old.UserNS != nil {
		if a.Mode&abi.S_ISUID != 0 {
			c.EUID = a.UID
			setid = true
		}
		if a.Mode&(abi.S_ISGID|abi.S_IXGRP) == abi.S_ISGID|abi.S_IXGRP {
			c.EGID = a.GID
			setid = true
		}
	}
	root := c.SecureBits&abi.SECBIT_NOROOT == 0
	var filePermitted, fileInheritable cred.CapSet
	fileEffective := false
	if root && (c.RUID == 0 || c.EUID == 0) {
		filePermitted, fileInheritable = cred.AllCaps, cred.AllCaps
		fileEffective = c.EUID == 0
	}
	if setid {
		c.Ambient = 0
	}
	c.Permitted = old.Inheritable&fileInheritable | filePermitted&old.Bounding | c.Ambient
	if fileEffective {
		c.Effective = c.Permitted
	} else {
		c.Effective = c.Ambient
	}
	c.SUID, c.FSUID = c.EUID, c.EUID
	c.SGID, c.FSGID = c.EGID, c.EGID
	return c
}

// isSecure is AT_SECURE: the program runs with more rights than its caller.
func isSecure(old, c *cred.Cred) bool {
	return c.RUID != c.EUID || c.RGID != c.EGID || c.RUID != 0 && c.Permitted&^old.Permitted&^c.Ambient != 0
}

// maxRSS is how much memory m has resident, in KiB. It asks the host, which
// costs some system calls for each VMA.
func maxRSS(m *mm.MM) int64 {
	if m == nil {
		return 0
	}
	return int64(m.Stat(true).Resident >> 10)
}

// noteMaxRSS remembers the size of m for getrusage(2) when its last user is
// about to leave it.
func (tg *ThreadGroup) noteMaxRSS(m *mm.MM) {
	if m.Users() > 1 {
		return
	}
	if kb := maxRSS(m); kb > tg.cpu.maxRSS.Load() {
		tg.cpu.maxRSS.Store(kb)
	}
}

var _ usermem.Memory = (*mm.MM)(nil)
