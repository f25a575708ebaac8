package kernel

import (
	"math/bits"

	"garrison/abi"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

func lowest(s abi.SigSet) int32 { return int32(bits.TrailingZeros64(uint64(s))) + 1 }

// mayKill is Linux's kill_ok_by_cred and its exception for SIGCONT within a
// session. Kernel.tasks must be held.
func (t *Task) mayKill(x *Task, info *abi.SigInfo) bool {
	if x.tg == t.tg {
		return true
	}
	c, d := t.Cred(), x.Cred()
	if c.EUID == d.SUID || c.EUID == d.RUID || c.RUID == d.SUID || c.RUID == d.RUID || c.Can(abi.CAP_KILL) {
		return true
	}
	return info.Signo == abi.SIGCONT && t.tg.pgrp.session == x.tg.pgrp.session
}

// killLocked sends to a process for t: with signal 0 it only asks for permission.
func (t *Task) killGroupLocked(tg *ThreadGroup, info *abi.SigInfo) error {
	if !t.mayKill(tg.leader, info) {
		return abi.EPERM
	}
	if info.Signo == 0 || tg.zombie {
		return nil
	}
	return tg.send(tg.leader, info, true, false)
}

// Kill is kill(2), and rt_sigqueueinfo for a positive pid.
func (t *Task) Kill(pid int32, info *abi.SigInfo) error {
	k := t.k
	if info.Signo < 0 || info.Signo > abi.NSIG {
		return abi.EINVAL
	}
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	switch {
	case pid > 0:
		x := k.rootPIDNS.tasks[pid]
		if x == nil {
			return abi.ESRCH
		}
		return t.killGroupLocked(x.tg, info)
	case pid == -1:
		n, err := 0, error(nil)
		for _, tg := range k.rootPIDNS.leaders {
			if tg.pid > 1 && tg != t.tg {
				n++
				if e := t.killGroupLocked(tg, info); e != abi.EPERM {
					err = e
				}
			}
		}
		if n == 0 {
			return abi.ESRCH
		}
		return err
	case pid == -1<<31:
		return abi.ESRCH
	}
	pg := t.tg.pgrp
	if pid != 0 {
		pg = k.rootPIDNS.groups[-pid]
	}
	if pg == nil {
		return abi.ESRCH
	}
	ok, err := false, error(abi.ESRCH)
	for tg := range pg.members {
		e := t.killGroupLocked(tg, info)
		ok = ok || e == nil
		err = e
	}
	if ok {
		return nil
	}
	return err
}

// Tkill is tgkill(2), and tkill(2) with tgid 0, and rt_tgsigqueueinfo(2).
func (t *Task) Tkill(tgid, tid int32, info *abi.SigInfo) error {
	k := t.k
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	x := k.rootPIDNS.tasks[tid]
	if x == nil || tgid > 0 && x.tg.pid != tgid {
		return abi.ESRCH
	}
	if info.Signo < 0 || info.Signo > abi.NSIG {
		return abi.EINVAL
	}
	if !t.mayKill(x, info) {
		return abi.EPERM
	}
	if info.Signo == 0 || x.exiting.Load() {
		return nil
	}
	return x.tg.send(x, info, false, false)
}

// KillGroup sends info to process tg, with t's permissions (pidfd_send_signal).
// ESRCH if it has been reaped.
func (t *Task) KillGroup(tg *ThreadGroup, info *abi.SigInfo) error {
	k := t.k
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if tg.reaped {
		return abi.ESRCH
	}
	return t.killGroupLocked(tg, info)
}

// sendGroupLocked sends to a process without asking. Kernel.tasks must be held.
func (k *Kernel) sendGroupLocked(tg *ThreadGroup, sig int32, info *abi.SigInfo) {
	if !tg.zombie {
		tg.send(tg.leader, info, true, false)
	}
}

// signalGroupLocked sends to a process group without asking. Kernel.tasks must be held.
func (k *Kernel) signalGroupLocked(pg *ProcessGroup, sig int32, info *abi.SigInfo) {
	for tg := range pg.members {
		k.sendGroupLocked(tg, sig, info)
	}
}

// SendProcessGroup sends a signal of the kernel's to a process group.
func (k *Kernel) SendProcessGroup(pg *ProcessGroup, sig int32) {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	k.signalGroupLocked(pg, sig, kernelInfo(sig))
}

// SendThreadGroup sends a signal of the kernel's to a process.
func (k *Kernel) SendThreadGroup(tg *ThreadGroup, info *abi.SigInfo) error {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if tg.zombie {
		return abi.ESRCH
	}
	return tg.send(tg.leader, info, true, false)
}

// SendTask sends a signal of the kernel's to one thread.
func (k *Kernel) SendTask(t *Task, info *abi.SigInfo) error {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	if t.exiting.Load() {
		return abi.ESRCH
	}
	return t.tg.send(t, info, false, false)
}

// SendExternalSignal sends a signal from outside of the sandbox to process pid:
// as from a parent pid namespace, SIGKILL and SIGSTOP reach even pid 1.
func (k *Kernel) SendExternalSignal(pid, sig int32) error {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	tg := k.rootPIDNS.leaders[pid]
	if tg == nil || tg.zombie {
		return abi.ESRCH
	}
	return tg.send(tg.leader, &abi.SigInfo{Signo: sig, Code: abi.SI_USER}, true, true)
}

// SendExternalForeground sends a signal from outside to the foreground group
// of the controlling terminal of pid's session, or to pid itself without one.
func (k *Kernel) SendExternalForeground(pid, sig int32) error {
	k.tasks.RLock()
	tg := k.rootPIDNS.leaders[pid]
	if tg != nil && !tg.zombie {
		if term := tg.pgrp.session.term; term != nil && term.fg != nil {
			k.signalGroupLocked(term.fg, sig, kernelInfo(sig))
			k.tasks.RUnlock()
			return nil
		}
	}
	k.tasks.RUnlock()
	return k.SendExternalSignal(pid, sig)
}

// KillAll kills every process, and lets no new one be made.
func (k *Kernel) KillAll() {
	k.tasks.Lock()
	defer k.tasks.Unlock()
	k.killed = true
	for _, tg := range k.rootPIDNS.leaders {
		if !tg.zombie {
			tg.sig.mu.Lock()
			tg.killAllLocked(abi.SIGKILL)
			tg.sig.mu.Unlock()
		}
	}
}

// SendIO tells a file's owner that I/O is possible (fcntl(2), F_SETOWN): SIGIO
// without a chosen signal, else that signal with the descriptor and band.
func (k *Kernel) SendIO(o vfs.Owner, fd int32, band wait.Events) {
	info := &abi.SigInfo{Signo: o.Sig, Code: ioCode(band)}
	if o.Sig == 0 {
		info.Signo, info.Code = abi.SIGIO, abi.SI_KERNEL
	} else {
		info.SetBand(int64(band))
		info.SetFD(fd)
	}
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	send := func(x *Task, group bool) {
		c, d := o.Cred, x.Cred()
		if c == nil || c.EUID == 0 || c.EUID == d.SUID || c.EUID == d.RUID || c.RUID == d.SUID || c.RUID == d.RUID {
			x.tg.send(x, info, group, false)
		}
	}
	switch o.Type {
	case vfs.OwnerTID:
		if t := k.rootPIDNS.tasks[o.PID]; t != nil && !t.exiting.Load() {
			send(t, false)
		}
	case vfs.OwnerPID:
		if tg := k.rootPIDNS.leaders[o.PID]; tg != nil && !tg.zombie {
			send(tg.leader, true)
		}
	case vfs.OwnerPGRP:
		if pg := k.rootPIDNS.groups[o.PID]; pg != nil {
			for tg := range pg.members {
				if !tg.zombie {
					send(tg.leader, true)
				}
			}
		}
	}
}

// ioCode is POLL_IN and the like for a band.
func ioCode(band wait.Events) int32 {
	switch {
	case band&abi.EPOLLERR != 0:
		return 4
	case band&abi.EPOLLHUP != 0:
		return 6
	case band&abi.EPOLLPRI != 0:
		return 5
	case band&abi.EPOLLIN != 0:
		return 1
	case band&abi.EPOLLOUT != 0:
		return 2
	}
	return 3
}
