package kernel

import (
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A PIDFD is the file behind a pidfd (pidfd_open(2)): it refers to a process,
// and is readable once that has exited.
type PIDFD struct {
	vfs.FileDefaults
	k  *Kernel
	tg *ThreadGroup
	// born is false while clone makes the process: other threads can find the
	// descriptor, and poll it, but nothing else.
	born atomic.Bool
}

// NewPIDFD makes a pidfd's file for tg.
func (k *Kernel) NewPIDFD(tg *ThreadGroup, flags uint32) *vfs.File {
	p := &PIDFD{k: k, tg: tg}
	p.born.Store(true)
	return vfs.NewAnonFile(p, abi.O_RDWR|flags&abi.O_NONBLOCK, "anon_inode:[pidfd]")
}

// ThreadGroup is the process.
func (p *PIDFD) ThreadGroup() *ThreadGroup { return p.tg }

// Stream implements vfs.FileOps.
func (p *PIDFD) Stream() bool { return true }

// Readiness implements wait.Waitable.
func (p *PIDFD) Readiness(mask wait.Events) wait.Events {
	if p.tg.Zombie() {
		return (abi.EPOLLIN | abi.EPOLLRDNORM) & mask
	}
	return 0
}

// EventRegister implements wait.Waitable.
func (p *PIDFD) EventRegister(w *wait.Waiter, mask wait.Events) { p.tg.exitQueue.Add(w, mask) }

// EventUnregister implements wait.Waitable.
func (p *PIDFD) EventUnregister(w *wait.Waiter) { p.tg.exitQueue.Remove(w) }

// PIDFDGroup returns the process that f is a pidfd of, or EBADF.
func PIDFDGroup(f *vfs.File) (*ThreadGroup, error) {
	if p, ok := f.Ops().(*PIDFD); ok && p.born.Load() {
		return p.tg, nil
	}
	return nil, abi.EBADF
}

// GetFD returns a reference to descriptor fd of process tg (pidfd_getfd(2)),
// with the permissions of ptrace's PTRACE_MODE_ATTACH_REALCREDS.
func (t *Task) GetFD(tg *ThreadGroup, fd int32) (*vfs.File, error) {
	t.k.tasks.RLock()
	if tg.zombie {
		t.k.tasks.RUnlock()
		return nil, abi.ESRCH
	}
	target := tg.leader
	t.k.tasks.RUnlock()
	if !t.MayAttach(target) {
		return nil, abi.EPERM
	}
	fds := target.fds.Load()
	if fds == nil {
		return nil, abi.EBADF
	}
	f := fds.Get(fd)
	if f == nil {
		return nil, abi.EBADF
	}
	return f, nil
}

// MayAttach is ptrace(2)'s access check, mode ATTACH with real credentials.
func (t *Task) MayAttach(x *Task) bool {
	if t.tg == x.tg {
		return true
	}
	c, d := t.Cred(), x.Cred()
	if c.Can(abi.CAP_SYS_PTRACE) {
		return true
	}
	if c.RUID != d.EUID || c.RUID != d.SUID || c.RUID != d.RUID || c.RGID != d.EGID || c.RGID != d.SGID || c.RGID != d.RGID {
		return false
	}
	m := x.mm.Load()
	return (m == nil || m.Dumpable() == 1) && d.Permitted&^c.Permitted == 0
}

// MayInspect is the same with mode READ and file-system credentials, which
// guards much of /proc/PID.
func (t *Task) MayInspect(x *Task) bool {
	if t.tg == x.tg {
		return true
	}
	c, d := t.Cred(), x.Cred()
	if c.Can(abi.CAP_SYS_PTRACE) {
		return true
	}
	if c.FSUID != d.EUID || c.FSUID != d.SUID || c.FSUID != d.RUID || c.FSGID != d.EGID || c.FSGID != d.SGID || c.FSGID != d.RGID {
		return false
	}
	m := x.mm.Load()
	return (m == nil || m.Dumpable() == 1) && d.Permitted&^c.Permitted == 0
}
