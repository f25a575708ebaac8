package kernel

import (
	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/loader"
	"garrison/sentry/mm"
	"garrison/sentry/vfs"
)

// CreateProcessArgs describe a process that the sandbox itself makes: the first
// one of a container, or one that joins it (runsc exec).
type CreateProcessArgs struct {
	// Filename is the program's path, absolute or relative to Cwd. If it is
	// empty, Argv[0] is looked for in the PATH of Envv.
	Filename   string
	Argv, Envv []string
	Cwd        string // "/" if empty
	Cred       *cred.Cred
	FDTable    *vfs.FDTable // taken over
	MountNS    *vfs.MountNamespace
	Root       vfs.Path // the zero Path means MountNS's root
	Umask      uint16   // 0 means 022
	Limits     *[abi.RLIMIT_NLIMITS]abi.Rlimit
	// Terminal becomes the controlling terminal of the process's new session.
	Terminal *Terminal
	// Protected makes the process immune to signals without a handler that come
	// from inside, as pid 1 of a pid namespace is.
	Protected bool
	// OnExit is called on a task's goroutine when the process has exited.
	OnExit func(status int32)
}

// CreateProcess makes a process and runs it. The first one is the init process.
// Errors are what execve would return: ENOENT, EACCES and so on.
func (k *Kernel) CreateProcess(a CreateProcessArgs) (*ThreadGroup, error) {
	if len(a.Argv) == 0 {
		return nil, abi.EINVAL
	}
	root := a.Root
	if !root.Valid() {
		root = a.MountNS.Root()
	}
	if a.Umask == 0 {
		a.Umask = 022
	}
	fs := vfs.NewFSContext(k.vfs, root, root, a.Umask)
	t := &Task{k: k, intr: make(chan struct{}, 1), user: k.userCounts(a.Cred.RUID)}
	t.cred.Store(a.Cred)
	t.uts.Store(k.rootUTS)
	t.mntns.Store(a.MountNS)
	t.fs.Store(fs)
	t.fds.Store(a.FDTable)
	t.sched.Store(&SchedAttr{})
	t.timerSlackNs = 50_000
	t.futex.init()
	t.startNs = k.clock.Boottime()
	name := a.Argv[0]
	t.comm.Store(&name)
	tg := &ThreadGroup{k: k, leader: t, children: map[*ThreadGroup]struct{}{}, exitSignal: abi.SIGCHLD,
		execWake: make(chan struct{}, 1), protected: a.Protected, onExit: a.OnExit}
	t.tg = tg
	tg.sig.handlers = &SignalHandlers{}
	if a.Limits != nil {
		tg.limits.SetAll(*a.Limits)
	} else {
		tg.limits.SetAll(DefaultLimits())
	}
	m, err := mm.New(k.platform, k.pageFile)
	if err != nil {
		return nil, err
	}
	tg.setMembers([]*Task{t})
	m.SetLimits(tg.mmLimits)
	t.mm.Store(m)
	fail := func(err error) (*ThreadGroup, error) {
		t.dropResources()
		return nil, err
	}

	if a.Cwd != "" && a.Cwd != "/" {
		p, err := k.vfs.Lookup(t, root, a.Cwd, vfs.Follow|vfs.WantDir)
		if err != nil {
			return fail(err)
		}
		fs.SetCwd(p)
	}
	f, path, err := k.findProgram(t, &a)
	if err != nil {
		return fail(err)
	}
	prog, err := k.loadProgram(t, m, &ExecArgs{File: f, Path: path, Argv: a.Argv, Envv: a.Envv}, a.Cred,
		func(f *vfs.File) *cred.Cred { return a.Cred })
	if f, ok := err.(loader.Fatal); ok {
		err = f.Errno
	}
	if err != nil {
		return fail(err)
	}
	t.thread, err = k.platform.NewThread()
	if err != nil {
		return fail(abi.FromHost(err))
	}
	t.SetComm(prog.comm)
	t.enterProgram(prog)

	k.tasks.Lock()
	if k.killed {
		k.tasks.Unlock()
		t.thread.Release()
		return fail(abi.ESRCH)
	}
	id, err := k.rootPIDNS.allocate()
	if err != nil {
		k.tasks.Unlock()
		t.thread.Release()
		return fail(err)
	}
	tg.pid = id
	t.tid.Store(id)
	if k.init == nil {
		k.init = tg
	}
	k.rootPIDNS.tasks[id] = t
	k.rootPIDNS.leaders[id] = tg
	tg.pgrp = k.newSessionLocked(id, tg)
	tg.pgrp.members[tg] = struct{}{}
	if term := a.Terminal; term != nil && term.session == nil {
		s := tg.pgrp.session
		s.term, term.session, term.fg = term, s, tg.pgrp
	}
	tg.tasks = []*Task{t}
	tg.live = 1
	k.liveTasks++
	t.user.tasks.Add(1)
	k.tasks.Unlock()
	tg.armRlimitCPU()
	t.start()
	return tg, nil
}

// findProgram opens the program, searching PATH as execvp(3) does.
func (k *Kernel) findProgram(t *Task, a *CreateProcessArgs) (*vfs.File, string, error) {
	cwd := t.FSContext().Cwd()
	name := a.Filename
	if name == "" {
		name = a.Argv[0]
	}
	if a.Filename != "" || containsSlash(name) {
		f, err := k.openExec(t, cwd, name, vfs.Follow)
		return f, name, err
	}
	if name == "" {
		return nil, "", abi.ENOENT
	}
	denied := error(abi.ENOENT)
	for _, dir := range splitPath(a.Envv) {
		p := dir + "/" + name
		if dir == "" {
			p = name
		}
		f, err := k.openExec(t, cwd, p, vfs.Follow)
		if err == nil {
			return f, p, nil
		}
		if err == abi.EACCES {
			denied = err
		}
	}
	return nil, "", denied
}

func containsSlash(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '/' {
			return true
		}
	}
	return false
}

func splitPath(env []string) []string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if len(e) > 5 && e[:5] == "PATH=" {
			path = e[5:]
		}
	}
	var r []string
	for {
		i := 0
		for i < len(path) && path[i] != ':' {
			i++
		}
		r = append(r, path[:i])
		if i == len(path) {
			return r
		}
		path = path[i+1:]
	}
}
