package kernel

import (
	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// namespaceFlags are the CLONE_NEW* flags.
const namespaceFlags = abi.CLONE_NEWNS | abi.CLONE_NEWCGROUP | abi.CLONE_NEWUTS | abi.CLONE_NEWIPC |
	abi.CLONE_NEWUSER | abi.CLONE_NEWPID | abi.CLONE_NEWNET | abi.CLONE_NEWTIME

// A vforkState is what connects a parent in vfork(2) with its child.
type vforkState struct {
	done chan struct{} // one token, when the child has given the memory back
}

// Clone is clone3(2), and with it clone, fork and vfork: it returns the child's
// id. The caller has checked what only one of the two calls accepts.
func (t *Task) Clone(a *abi.CloneArgs) (int32, error) {
	f := a.Flags
	if err := t.checkCloneFlags(f); err != nil {
		return 0, err
	}
	k, tg := t.k, t.tg
	if k.userOver(t) {
		return 0, abi.EAGAIN
	}

	c := t.newLike()
	if f&abi.CLONE_NEWUTS != 0 {
		c.uts.Store(t.UTS().copy())
	}
	th, err := k.platform.NewThread()
	if err != nil {
		return 0, abi.EAGAIN
	}
	c.thread = th
	fail := func(err error) (int32, error) {
		c.dropResources()
		th.Release()
		return 0, err
	}
	fp := t.fpScratch()
	t.thread.FPState(fp)
	if err := th.SetFPState(fp); err != nil {
		return fail(abi.ENOMEM)
	}
	if err := t.copyResources(c, f); err != nil {
		return fail(err)
	}

	c.regs = t.regs
	c.regs.Rax = 0
	c.regs.Orig_rax = ^uint64(0)
	if a.Stack != 0 {
		c.regs.Rsp = a.Stack + a.StackSize
	}
	if f&abi.CLONE_SETTLS != 0 {
		if a.TLS >= k.platform.Layout().Max {
			return fail(abi.EPERM)
		}
		c.regs.Fs_base = a.TLS
	}
	if f&abi.CLONE_CHILD_CLEARTID != 0 {
		c.clearChildTID = usermem.Addr(a.ChildTID)
	}
	if f&abi.CLONE_VM == 0 || f&abi.CLONE_VFORK != 0 {
		c.sig.alt = t.sig.alt
	}
	if f&abi.CLONE_VFORK != 0 {
		c.vfork = &vforkState{done: make(chan struct{}, 1)}
	}

	// A pidfd is made before the child exists, so that it can't be lost.
	var pidfd *PIDFD
	var pidfdFile *vfs.File
	var fdNum int32
	if f&abi.CLONE_PIDFD != 0 {
		c.tg = &ThreadGroup{k: k}
		pidfd = &PIDFD{k: k, tg: c.tg}
		pidfdFile = vfs.NewAnonFile(pidfd, abi.O_RDWR, "anon_inode:[pidfd]")
		fdNum, err = t.FDTable().NewFD(pidfdFile, 0, tg.limits.Cur(abi.RLIMIT_NOFILE), true)
		if err != nil {
			pidfdFile.DecRef()
			return fail(err)
		}
	}
	undoFD := func(err error) (int32, error) {
		if pidfdFile != nil {
			t.FDTable().Close(t, fdNum)
		}
		return fail(err)
	}

	tid, err := k.addTask(t, c, f, int32(a.ExitSignal), a)
	if err != nil {
		return undoFD(err)
	}
	if pidfd != nil {
		pidfd.born.Store(true)
		usermem.CopyOutUint32(t.Memory(), usermem.Addr(a.Pidfd), uint32(fdNum))
	}
	if f&abi.CLONE_PARENT_SETTID != 0 {
		usermem.CopyOutUint32(t.Memory(), usermem.Addr(a.ParentTID), uint32(tid))
	}
	if f&abi.CLONE_CHILD_SETTID != 0 {
		usermem.CopyOutUint32(c.mm.Load(), usermem.Addr(a.ChildTID), uint32(tid))
	}
	if c.vfork != nil {
		t.vforkWait = c.vfork
		t.work.Or(workVfork)
	}
	c.start()
	return tid, nil
}

// userOver reports whether t's user has as many tasks as RLIMIT_NPROC allows.
func (k *Kernel) userOver(t *Task) bool {
	c := t.Cred()
	return uint64(t.user.tasks.Load()) >= t.tg.limits.Cur(abi.RLIMIT_NPROC) && c.RUID != 0 &&
		!c.Can(abi.CAP_SYS_RESOURCE) && !c.Can(abi.CAP_SYS_ADMIN)
}

// checkCloneFlags is the first part of copy_process.
func (t *Task) checkCloneFlags(f uint64) error {
	has := func(b uint64) bool { return f&b == b }
	switch {
	case has(abi.CLONE_NEWNS | abi.CLONE_FS), has(abi.CLONE_NEWUSER | abi.CLONE_FS):
		return abi.EINVAL
	case f&abi.CLONE_THREAD != 0 && f&abi.CLONE_SIGHAND == 0, f&abi.CLONE_SIGHAND != 0 && f&abi.CLONE_VM == 0:
		return abi.EINVAL
	case f&abi.CLONE_PARENT != 0 && t.tg == t.k.Init():
		return abi.EINVAL
	case f&abi.CLONE_THREAD != 0 && f&(abi.CLONE_NEWUSER|abi.CLONE_NEWPID) != 0:
		return abi.EINVAL
	case has(abi.CLONE_SIGHAND | abi.CLONE_CLEAR_SIGHAND):
		return abi.EINVAL
	}
	return t.checkNamespaces(f)
}

// checkNamespaces says which namespaces can be made: UTS ones.
func (t *Task) checkNamespaces(f uint64) error {
	ns := f & namespaceFlags
	if ns == 0 {
		return nil
	}
	if ns&abi.CLONE_NEWUSER != 0 {
		return abi.ENOSPC // as with user.max_user_namespaces = 0
	}
	if !t.Cred().Can(abi.CAP_SYS_ADMIN) {
		return abi.EPERM
	}
	if ns&^abi.CLONE_NEWUTS != 0 {
		return abi.EINVAL // as a kernel built without these namespaces
	}
	return nil
}

// Unshare is unshare(2).
func (t *Task) Unshare(f uint64) error {
	const known = abi.CLONE_THREAD | abi.CLONE_FS | abi.CLONE_FILES | abi.CLONE_SIGHAND | abi.CLONE_VM | abi.CLONE_SYSVSEM |
		namespaceFlags
	if f&^uint64(known) != 0 {
		return abi.EINVAL
	}
	if f&abi.CLONE_NEWUSER != 0 {
		f |= abi.CLONE_THREAD | abi.CLONE_FS
	}
	if f&abi.CLONE_NEWNS != 0 {
		f |= abi.CLONE_FS
	}
	// What can't be taken apart must not be shared.
	if f&(abi.CLONE_THREAD|abi.CLONE_SIGHAND|abi.CLONE_VM) != 0 && t.tg.ThreadCount() > 1 {
		return abi.EINVAL
	}
	if f&abi.CLONE_VM != 0 && t.mm.Load().Users() > 1 {
		return abi.EINVAL
	}
	if err := t.checkNamespaces(f); err != nil {
		return err
	}
	if f&abi.CLONE_FS != 0 {
		old := t.fs.Load()
		t.fs.Store(old.Fork())
		old.DecRef()
	}
	if f&abi.CLONE_FILES != 0 {
		t.UnshareFiles()
	}
	if f&abi.CLONE_NEWUTS != 0 {
		t.uts.Store(t.UTS().copy())
	}
	return nil
}

// newLike makes a Task that takes after t where fork copies.
func (t *Task) newLike() *Task {
	c := &Task{k: t.k, intr: make(chan struct{}, 1), user: t.user}
	c.cred.Store(t.cred.Load())
	c.uts.Store(t.uts.Load())
	c.mntns.Store(t.mntns.Load())
	c.comm.Store(t.comm.Load())
	c.timerSlackNs, c.personality, c.thpDisable = t.timerSlackNs, t.personality, t.thpDisable
	c.ioprio.Store(t.ioprio.Load())
	s := t.sched.Load()
	if s.ResetOnFork {
		n := *s
		n.ResetOnFork = false
		if n.Policy == abi.SCHED_FIFO || n.Policy == abi.SCHED_RR {
			n.Policy, n.Priority = abi.SCHED_OTHER, 0
		}
		n.Nice = max(n.Nice, 0)
		s = &n
	}
	c.sched.Store(s)
	c.sig.blocked = t.sig.blocked
	if t.sig.haveSaved {
		c.sig.blocked = t.sig.saved
	}
	c.startNs = t.k.clock.Boottime()
	c.state.Store(uint32(stateRunning))
	c.futex.init()
	return c
}

func (t *Task) fpScratch() []byte {
	n := t.thread.FPState(nil)
	if len(t.sig.fpBuf) < n+abi.FP_XSTATE_MAGIC2_SIZE {
		t.sig.fpBuf = make([]byte, n+abi.FP_XSTATE_MAGIC2_SIZE)
	}
	return t.sig.fpBuf[:n]
}

// copyResources shares or copies memory, files and directories.
func (t *Task) copyResources(c *Task, f uint64) error {
	if f&abi.CLONE_VM != 0 {
		m := t.mm.Load()
		m.IncUsers()
		c.mm.Store(m)
	} else {
		m, err := t.mm.Load().Fork()
		if err != nil {
			if e, ok := err.(abi.Errno); ok {
				return e
			}
			return abi.ENOMEM
		}
		c.mm.Store(m)
	}
	if f&abi.CLONE_FS != 0 {
		fs := t.fs.Load()
		fs.IncRef()
		c.fs.Store(fs)
	} else {
		c.fs.Store(t.fs.Load().Fork())
	}
	if f&abi.CLONE_FILES != 0 {
		fds := t.fds.Load()
		fds.IncRef()
		c.fds.Store(fds)
	} else {
		c.fds.Store(t.fds.Load().Fork())
	}
	return nil
}

// dropResources undoes copyResources.
func (t *Task) dropResources() {
	if m := t.mm.Swap(nil); m != nil {
		m.DecUsers()
	}
	if fs := t.fs.Swap(nil); fs != nil {
		fs.DecRef()
	}
	if fds := t.fds.Swap(nil); fds != nil {
		fds.DecRef(t)
	}
}

// addTask gives c a number and a place in the tree.
func (k *Kernel) addTask(t, c *Task, f uint64, exitSignal int32, a *abi.CloneArgs) (int32, error) {
	k.tasks.Lock()
	defer k.tasks.Unlock()
	tg := t.tg
	tg.sig.mu.Lock()
	defer tg.sig.mu.Unlock()
	// fork fails, to be restarted, when a signal is pending: otherwise a ^C to
	// the process group could miss the child.
	if tg.sig.groupExit || k.killed || tg.execTask != nil {
		return 0, abi.ERESTARTNOINTR
	}
	if f&abi.CLONE_THREAD == 0 && t.sig.pendingNow.Load() {
		return 0, abi.ERESTARTNOINTR
	}
	if k.liveTasks >= k.maxTasks {
		return 0, abi.EAGAIN // kernel.threads-max
	}
	tid, err := k.rootPIDNS.allocate()
	if err != nil {
		return 0, err
	}
	c.tid.Store(tid)
	if f&abi.CLONE_THREAD != 0 {
		c.tg = tg
		if tg.sig.stopCount > 0 {
			c.sig.stopPending, c.sig.stopCounted = true, true
			tg.sig.stopCount++
			c.sig.pendingNow.Store(true)
			c.work.Or(workSignal)
		}
		tg.setMembers(append(without(tg.sigTasks(), nil), c))
	} else {
		n := c.tg // there already if a pidfd refers to it
		if n == nil {
			n = &ThreadGroup{k: k}
		}
		n.pid, n.children, n.leader, n.exitSignal = tid, map[*ThreadGroup]struct{}{}, c, exitSignal&0xff
		n.execWake = make(chan struct{}, 1)
		n.limits.SetAll(tg.limits.All())
		n.oomScoreAdj.Store(tg.oomScoreAdj.Load())
		switch {
		case f&abi.CLONE_SIGHAND != 0:
			n.sig.handlers = tg.sig.handlers
		default:
			n.sig.handlers = tg.sig.handlers.clone(f&abi.CLONE_CLEAR_SIGHAND != 0)
		}
		n.parent = t
		if f&abi.CLONE_PARENT != 0 {
			n.parent, n.exitSignal = tg.parent, tg.exitSignal
		}
		if n.parent != nil {
			n.ppid.Store(n.parent.tg.pid)
			n.parent.tg.children[n] = struct{}{}
		}
		c.tg = n
		k.rootPIDNS.leaders[tid] = n
		n.pgrp = tg.pgrp
		n.pgrp.members[n] = struct{}{}
		n.setMembers([]*Task{c})
		if f&abi.CLONE_VM == 0 {
			c.mm.Load().SetLimits(n.mmLimits)
		}
		n.armRlimitCPU()
	}
	c.tg.tasks = append(c.tg.tasks, c)
	c.tg.live++
	k.rootPIDNS.tasks[tid] = c
	k.liveTasks++
	c.user.tasks.Add(1)
	return tid, nil
}

// mmLimits tells the memory manager the process's limits.
func (tg *ThreadGroup) mmLimits() mm.Limits {
	l := &tg.limits
	r := mm.Limits{AS: l.Cur(abi.RLIMIT_AS), Data: l.Cur(abi.RLIMIT_DATA), Stack: l.Cur(abi.RLIMIT_STACK),
		Memlock: l.Cur(abi.RLIMIT_MEMLOCK), TotalMemory: tg.k.totalMemory}
	if members := tg.sigTasks(); len(members) > 0 {
		c := members[0].Cred()
		r.CanLock, r.CanMapLow = c.Can(abi.CAP_IPC_LOCK), c.Can(abi.CAP_SYS_RAWIO)
	}
	return r
}

// waitVfork sleeps until the child of vfork has given the memory back; only
// SIGKILL cuts that short, and then it is false.
func (t *Task) waitVfork() bool {
	v := t.vforkWait
	if v == nil {
		return true
	}
	if t.BlockKillable(v.done) != nil {
		return false
	}
	t.vforkWait = nil
	return true
}

// vforkDone lets a parent in vfork go on.
func (t *Task) vforkDone() {
	if v := t.vfork; v != nil {
		t.vfork = nil
		v.done <- struct{}{}
	}
}
