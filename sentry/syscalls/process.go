package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var processCalls = []kernel.Row{
	{Nr: abi.SYS_clone, Name: "clone", Fn: sysClone, Args: []kernel.ArgKind{kernel.CloneFlags, kernel.Ptr, kernel.Ptr, kernel.Ptr, kernel.Ptr}, Support: kernel.Partial, Note: "of the namespaces, only CLONE_NEWUTS"},
	{Nr: abi.SYS_clone3, Name: "clone3", Fn: sysClone3, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec}, Support: kernel.Partial, Note: "of the namespaces, only CLONE_NEWUTS; no CLONE_INTO_CGROUP"},
	{Nr: abi.SYS_fork, Name: "fork", Fn: sysFork},
	{Nr: abi.SYS_vfork, Name: "vfork", Fn: sysVfork},
	{Nr: abi.SYS_execve, Name: "execve", Fn: sysExecve, Args: []kernel.ArgKind{kernel.PathArg, kernel.StrVec, kernel.Ptr}},
	{Nr: abi.SYS_execveat, Name: "execveat", Fn: sysExecveat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.StrVec, kernel.Ptr, kernel.ATFlags}},
	{Nr: abi.SYS_exit, Name: "exit", Fn: sysExit, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_exit_group, Name: "exit_group", Fn: sysExitGroup, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_wait4, Name: "wait4", Fn: sysWait4, Args: []kernel.ArgKind{kernel.Dec, kernel.WaitStatOut, kernel.WaitFlags, kernel.RusageOut}},
	{Nr: abi.SYS_waitid, Name: "waitid", Fn: sysWaitid, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.SigInfoOut, kernel.WaitFlags, kernel.RusageOut}},
	{Nr: abi.SYS_getpid, Name: "getpid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.PID()), nil }},
	{Nr: abi.SYS_gettid, Name: "gettid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.TID()), nil }},
	{Nr: abi.SYS_getppid, Name: "getppid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.PPID()), nil }},
	{Nr: abi.SYS_getpgrp, Name: "getpgrp", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return id(t.GetPGID(0)) }},
	{Nr: abi.SYS_getpgid, Name: "getpgid", Fn: func(t *kernel.Task, a kernel.Args) (uintptr, error) { return id(t.GetPGID(a.Int(0))) }, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_setpgid, Name: "setpgid", Fn: func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, sysSetpgid(t, a) }, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_getsid, Name: "getsid", Fn: func(t *kernel.Task, a kernel.Args) (uintptr, error) { return id(t.GetSID(a.Int(0))) }, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_setsid, Name: "setsid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return id(t.SetSID()) }},
	{Nr: abi.SYS_set_tid_address, Name: "set_tid_address", Fn: sysSetTIDAddress, Args: []kernel.ArgKind{kernel.Ptr}},
	{Nr: abi.SYS_unshare, Name: "unshare", Fn: func(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.Unshare(a.Uint64(0)) }, Args: []kernel.ArgKind{kernel.CloneFlags}, Support: kernel.Partial, Note: "of the namespaces, only CLONE_NEWUTS"},
	{Nr: abi.SYS_pidfd_open, Name: "pidfd_open", Fn: sysPidfdOpen, Args: []kernel.ArgKind{kernel.Dec, kernel.Hex}},
	{Nr: abi.SYS_pidfd_getfd, Name: "pidfd_getfd", Fn: sysPidfdGetfd, Args: []kernel.ArgKind{kernel.FDArg, kernel.FDArg, kernel.Hex}},
}

// id turns a result that is a number, or an error, into a handler's.
func id(n int32, err error) (uintptr, error) { return uintptr(n), err }

func sysSetpgid(t *kernel.Task, a kernel.Args) error {
	if a.Int(1) < 0 {
		return abi.EINVAL
	}
	return t.SetPGID(a.Int(0), a.Int(1))
}

func sysSetTIDAddress(t *kernel.Task, a kernel.Args) (uintptr, error) {
	t.SetClearChildTID(a.Addr(0))
	return uintptr(t.TID()), nil
}

func sysClone(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a.Uint64(0) & 0xffffffff
	c := abi.CloneArgs{Flags: flags &^ 0xff, ExitSignal: flags & 0xff, Stack: a[1], Pidfd: a[2], ParentTID: a[2], ChildTID: a[3], TLS: a[4]}
	if flags&abi.CLONE_PIDFD != 0 && flags&abi.CLONE_PARENT_SETTID != 0 {
		return 0, abi.EINVAL // both use the same argument
	}
	if flags&abi.CLONE_PIDFD != 0 && flags&(abi.CLONE_DETACHED|abi.CLONE_THREAD) != 0 {
		return 0, abi.EINVAL
	}
	return id(t.Clone(&c))
}

func sysFork(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	return id(t.Clone(&abi.CloneArgs{ExitSignal: abi.SIGCHLD}))
}

func sysVfork(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	return id(t.Clone(&abi.CloneArgs{Flags: abi.CLONE_VFORK | abi.CLONE_VM, ExitSignal: abi.SIGCHLD}))
}

func sysClone3(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a.Size(1)
	if size > usermem.PageSize {
		return 0, abi.E2BIG
	}
	if size < abi.CLONE_ARGS_SIZE_VER0 {
		return 0, abi.EINVAL
	}
	raw := make([]byte, max(size, abi.CLONE_ARGS_SIZE_VER2))
	if _, err := t.Memory().CopyIn(a.Addr(0), raw[:size]); err != nil {
		return 0, err
	}
	for _, b := range raw[abi.CLONE_ARGS_SIZE_VER2:] {
		if b != 0 {
			return 0, abi.E2BIG
		}
	}
	var c abi.CloneArgs
	c.UnmarshalFrom(raw)
	const known = uint64(0xffffffff) | abi.CLONE_CLEAR_SIGHAND | abi.CLONE_INTO_CGROUP
	switch {
	case c.SetTIDSize > 32, c.SetTID == 0 && c.SetTIDSize > 0, c.SetTID != 0 && c.SetTIDSize == 0:
		return 0, abi.EINVAL
	case c.ExitSignal&^0xff != 0 || c.ExitSignal > abi.NSIG:
		return 0, abi.EINVAL
	case c.Flags&abi.CLONE_INTO_CGROUP != 0:
		return 0, abi.EINVAL
	case c.Flags&^known != 0, c.Flags&(abi.CLONE_DETACHED|0xff&^abi.CLONE_NEWTIME) != 0:
		return 0, abi.EINVAL
	case c.Flags&(abi.CLONE_SIGHAND|abi.CLONE_CLEAR_SIGHAND) == abi.CLONE_SIGHAND|abi.CLONE_CLEAR_SIGHAND:
		return 0, abi.EINVAL
	case c.Flags&(abi.CLONE_THREAD|abi.CLONE_PARENT) != 0 && c.ExitSignal != 0:
		return 0, abi.EINVAL
	case c.Stack == 0 && c.StackSize > 0, c.Stack != 0 && c.StackSize == 0:
		return 0, abi.EINVAL
	case c.Stack+c.StackSize < c.Stack, c.Stack+c.StackSize > t.Kernel().Platform().Layout().Max:
		return 0, abi.EINVAL
	case c.Flags&abi.CLONE_PIDFD != 0 && c.Flags&abi.CLONE_THREAD != 0:
		return 0, abi.EINVAL
	case c.SetTIDSize > 0:
		return 0, abi.EPERM // choosing pids is for checkpoint tools
	}
	return id(t.Clone(&c))
}

// Limits of execve's arguments (uapi/linux/binfmts.h).
const maxArgStrlen = 32 * usermem.PageSize

// copyInStrings reads a NULL-terminated array of strings; total bounds the
// bytes of all strings and pointers together.
func copyInStrings(t *kernel.Task, addr usermem.Addr, total *uint64) ([]string, error) {
	if addr == 0 {
		return nil, nil
	}
	var out []string
	m := t.Memory()
	for ; ; addr += 8 {
		p, err := usermem.CopyInUint64(m, addr)
		if err != nil {
			return nil, err
		}
		if p == 0 {
			return out, nil
		}
		s, err := m.CopyInString(usermem.Addr(p), maxArgStrlen)
		if err == abi.ENAMETOOLONG {
			return nil, abi.E2BIG
		}
		if err != nil {
			return nil, err
		}
		n := uint64(len(s)) + 9
		if n > *total {
			return nil, abi.E2BIG
		}
		*total -= n
		out = append(out, s)
	}
}

func sysExecve(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return execveat(t, abi.AT_FDCWD, a.Addr(0), a.Addr(1), a.Addr(2), 0)
}

func sysExecveat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return execveat(t, a.FD(0), a.Addr(1), a.Addr(2), a.Addr(3), a.Uint(4))
}

func execveat(t *kernel.Task, fd int32, path, argv, envv usermem.Addr, flags uint32) (uintptr, error) {
	if flags&^(abi.AT_SYMLINK_NOFOLLOW|abi.AT_EMPTY_PATH) != 0 {
		return 0, abi.EINVAL
	}
	name, err := t.Memory().CopyInString(path, abi.PATH_MAX)
	if err != nil {
		return 0, err
	}
	if name == "" && flags&abi.AT_EMPTY_PATH == 0 {
		return 0, abi.ENOENT
	}
	start := t.FSContext().Cwd()
	e := kernel.ExecArgs{Path: name}
	fl := vfs.Follow
	if flags&abi.AT_SYMLINK_NOFOLLOW != 0 {
		fl = 0
	}
	if fd != abi.AT_FDCWD && (name == "" || name[0] != '/') {
		f := t.FDTable().Get(fd)
		if f == nil {
			return 0, abi.EBADF
		}
		defer f.DecRef()
		start = f.Path()
		e.Cloexec, _ = t.FDTable().Cloexec(fd)
		e.ByFD = true
		e.Path = "/dev/fd/" + decimal(fd)
		if name != "" {
			e.Path += "/" + name
		}
		fl |= vfs.AllowEmpty
		if !start.Valid() {
			return 0, abi.EACCES
		}
	}
	f, err := t.OpenExec(start, name, fl)
	if err != nil {
		return 0, err
	}
	e.File = f
	// Strings may take a quarter of the stack, and 6 MiB at most; 128 KiB always (execve(2)).
	total := max(min(t.ThreadGroup().Limits().Cur(abi.RLIMIT_STACK)/4, 6<<20), 128<<10)
	if e.Argv, err = copyInStrings(t, argv, &total); err == nil {
		e.Envv, err = copyInStrings(t, envv, &total)
	}
	if err != nil {
		f.DecRef()
		return 0, err
	}
	if len(e.Argv) == 0 {
		e.Argv = []string{""} // since Linux 5.18
	}
	if err := t.Exec(&e); err != nil {
		return 0, err
	}
	return 0, kernel.ErrNoResult
}

func decimal(n int32) string {
	if n < 0 {
		return "-" + decimal(-n)
	}
	if n < 10 {
		return string(rune('0' + n))
	}
	return decimal(n/10) + string(rune('0'+n%10))
}

func sysExit(t *kernel.Task, a kernel.Args) (uintptr, error) {
	t.Exit(a.Int(0))
	return 0, kernel.ErrNoResult
}

func sysExitGroup(t *kernel.Task, a kernel.Args) (uintptr, error) {
	t.ExitGroup(a.Int(0))
	return 0, kernel.ErrNoResult
}

func sysWait4(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const ok = abi.WNOHANG | abi.WUNTRACED | abi.WCONTINUED | abi.WNOTHREAD | abi.WCLONE | abi.WALL
	opts, pid := a.Uint(2), a.Int(0)
	if opts&^uint32(ok) != 0 {
		return 0, abi.EINVAL
	}
	o := kernel.WaitOptions{Options: opts | abi.WEXITED}
	switch {
	case pid == -1<<31:
		return 0, abi.ESRCH
	case pid == -1:
		o.Type = abi.P_ALL
	case pid < 0:
		o.Type, o.ID = abi.P_PGID, -pid
	case pid == 0:
		o.Type = abi.P_PGID
	default:
		o.Type, o.ID = abi.P_PID, pid
	}
	r, err := t.WaitChild(&o)
	if err != nil || r.PID == 0 {
		return 0, err
	}
	if p := a.Addr(1); p != 0 {
		if err := usermem.CopyOutUint32(t.Memory(), p, uint32(r.Status)); err != nil {
			return 0, err
		}
	}
	if p := a.Addr(3); p != 0 {
		if err := copyOutRusage(t, p, &r.Rusage); err != nil {
			return 0, err
		}
	}
	return uintptr(r.PID), nil
}

func copyOutRusage(t *kernel.Task, p usermem.Addr, r *abi.Rusage) error {
	var b [abi.RusageSize]byte
	r.MarshalTo(b[:])
	_, err := t.Memory().CopyOut(p, b[:])
	return err
}

func sysWaitid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	opts, pid := a.Uint(3), a.Int(1)
	const ok = abi.WNOHANG | abi.WNOWAIT | abi.WEXITED | abi.WSTOPPED | abi.WCONTINUED | abi.WNOTHREAD | abi.WCLONE | abi.WALL
	if opts&^uint32(ok) != 0 || opts&(abi.WEXITED|abi.WSTOPPED|abi.WCONTINUED) == 0 {
		return 0, abi.EINVAL
	}
	o := kernel.WaitOptions{Type: a.Int(0), ID: pid, Options: opts}
	nonblock := false
	switch o.Type {
	case abi.P_ALL:
	case abi.P_PID:
		if pid <= 0 {
			return 0, abi.EINVAL
		}
	case abi.P_PGID:
		if pid < 0 {
			return 0, abi.EINVAL
		}
	case abi.P_PIDFD:
		if pid < 0 {
			return 0, abi.EINVAL
		}
		f := t.FDTable().Get(pid)
		if f == nil {
			return 0, abi.EBADF
		}
		g, err := kernel.PIDFDGroup(f)
		if f.Nonblocking() {
			nonblock = true
		}
		f.DecRef()
		if err != nil {
			return 0, err
		}
		o.Group = g
	default:
		return 0, abi.EINVAL
	}
	if nonblock {
		o.Options |= abi.WNOHANG
	}
	r, err := t.WaitChild(&o)
	if err == nil && r.PID == 0 && nonblock && opts&abi.WNOHANG == 0 {
		err = abi.EAGAIN
	}
	if err != nil {
		return 0, err
	}
	if p := a.Addr(4); p != 0 && r.PID != 0 {
		if err := copyOutRusage(t, p, &r.Rusage); err != nil {
			return 0, err
		}
	}
	if p := a.Addr(2); p != 0 {
		// Linux writes just these members, and leaves the rest alone.
		var b [28]byte
		info := abi.SigInfo{}
		if r.PID != 0 {
			info = abi.SigInfo{Signo: abi.SIGCHLD, Code: r.Code}
			info.SetPID(r.PID)
			info.SetUID(r.UID)
			info.SetStatus(r.Value)
		}
		var full [abi.SigInfoSize]byte
		info.MarshalTo(full[:])
		copy(b[:], full[:])
		if _, err := t.Memory().CopyOut(p, b[:12]); err != nil {
			return 0, err
		}
		if _, err := t.Memory().CopyOut(p+16, b[16:28]); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysPidfdOpen(t *kernel.Task, a kernel.Args) (uintptr, error) {
	pid, flags := a.Int(0), a.Uint(1)
	if flags&^abi.PIDFD_NONBLOCK != 0 || pid <= 0 {
		return 0, abi.EINVAL
	}
	tg := t.Kernel().ThreadGroupByID(pid)
	if tg == nil {
		if t.Kernel().TaskByID(pid) != nil {
			return 0, abi.EINVAL // not a leader
		}
		return 0, abi.ESRCH
	}
	f := t.Kernel().NewPIDFD(tg, flags)
	fd, err := t.FDTable().NewFD(f, 0, t.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE), true)
	if err != nil {
		f.DecRef()
		return 0, err
	}
	return uintptr(fd), nil
}

func sysPidfdGetfd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(2) != 0 {
		return 0, abi.EINVAL
	}
	pf := t.FDTable().Get(a.FD(0))
	if pf == nil {
		return 0, abi.EBADF
	}
	defer pf.DecRef()
	tg, err := kernel.PIDFDGroup(pf)
	if err != nil {
		return 0, err
	}
	f, err := t.GetFD(tg, a.FD(1))
	if err != nil {
		return 0, err
	}
	fd, err := t.FDTable().NewFD(f, 0, t.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE), true)
	if err != nil {
		f.DecRef()
		return 0, err
	}
	return uintptr(fd), nil
}
