package proc

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/fs/pseudo"
	"garrison/sentry/kernel"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// idEntries makes directory entries of process or thread ids, ascending.
func idEntries(ids []int32) []vfs.Dirent {
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	list := make([]vfs.Dirent, len(ids))
	for i, id := range ids {
		list[i] = vfs.Dirent{Name: strconv.Itoa(int(id)), Ino: dirIno(id), Type: abi.DT_DIR}
	}
	return list
}

// dirIno is the inode number of a process's or thread's directory.
func dirIno(id int32) uint64 { return uint64(id)<<12 | 1 }

// A taskDir is /proc/PID or /proc/PID/task/TID.
type taskDir struct {
	*pseudo.Dir
	t       *kernel.Task
	process bool // /proc/pid, not one of /proc/pid/task
}

// Process is the process whose /proc/pid this is, or nil: a descriptor of that
// directory serves as a pidfd (pidfd_send_signal(2)).
func (d *taskDir) Process() *kernel.ThreadGroup {
	if !d.process {
		return nil
	}
	return d.t.ThreadGroup()
}

// Access implements vfs.Accesser: a directory whose task is gone is ESRCH
// (proc_pid_permission).
func (d *taskDir) Access(ctx vfs.Context, mask uint32) error {
	if !d.t.Exists() {
		return abi.ESRCH
	}
	a, err := d.Attr(ctx)
	if err != nil {
		return err
	}
	return vfs.GenericAccess(ctx.Cred(), &a, mask)
}

// staleTask reports that a cached directory's task is gone: its id may be
// somebody else's by now.
func staleTask(child vfs.Inode) bool {
	d, ok := child.(*taskDir)
	return ok && !d.t.Exists()
}

// entryMaker collects the files of a task's directory.
type entryMaker struct {
	fs    *procFS
	t     *kernel.Task
	files map[string]vfs.Inode
}

// owner is who owns a task's files: the task's effective ids, or root when its
// memory must not be read by them (proc(5), "/proc/pid").
func owner(t *kernel.Task) func() (cred.UID, cred.GID) {
	return func() (cred.UID, cred.GID) {
		c := t.Cred()
		if m := t.MM(); m != nil && m.Dumpable() != 1 {
			return 0, 0
		}
		return c.EUID, c.EGID
	}
}

// add adds a generated file of the given permissions. The generator is called
// only while the task exists: ESRCH after that.
func (e *entryMaker) add(name string, perm uint16, gen func(t *kernel.Task) ([]byte, error)) *pseudo.File {
	f := e.fs.NewFile(func(vfs.Context) ([]byte, error) {
		if !e.t.Exists() {
			return nil, abi.ESRCH
		}
		return gen(e.t)
	})
	f.Mode = abi.S_IFREG | perm
	f.Owner = owner(e.t)
	e.files[name] = f
	return f
}

// guarded is add for what shows memory: the reader needs ptrace access.
func (e *entryMaker) guarded(name string, perm uint16, gen func(t *kernel.Task) ([]byte, error)) *pseudo.File {
	f := e.add(name, perm, gen)
	plain := f.Read
	f.Read = func(ctx vfs.Context) ([]byte, error) {
		if !mayTrace(ctx, e.t) {
			return nil, abi.EACCES
		}
		b, err := plain(ctx)
		if !mayTrace(ctx, e.t) { // it called execve meanwhile
			return nil, abi.EACCES
		}
		return b, err
	}
	return f
}

// mayTrace is ptrace_may_access(PTRACE_MODE_READ_FSCREDS) as ptrace(2) tells it.
func mayTrace(ctx vfs.Context, t *kernel.Task) bool {
	if c, err := caller(ctx); err == nil && c.ThreadGroup() == t.ThreadGroup() {
		return true
	}
	me, you := ctx.Cred(), t.Cred()
	if me.Can(abi.CAP_SYS_PTRACE) {
		return true
	}
	if me.FSUID != you.RUID || me.FSUID != you.EUID || me.FSUID != you.SUID ||
		me.FSGID != you.RGID || me.FSGID != you.EGID || me.FSGID != you.SGID {
		return false
	}
	m := t.MM()
	return (m == nil || m.Dumpable() == 1) && you.Permitted&^me.Permitted == 0
}

func (e *entryMaker) dir(name string, perm uint16, files map[string]vfs.Inode) *pseudo.Dir {
	d := e.fs.NewDir(files)
	d.Mode = abi.S_IFDIR | perm
	d.Owner = owner(e.t)
	e.files[name] = d
	return d
}

// magic adds a link to an object.
func (e *entryMaker) magic(files map[string]vfs.Inode, name string, follow func() (vfs.Path, error)) {
	l := &pseudo.MagicLink{SymbolicLink: *e.fs.NewSymlink(nil)}
	l.Owner = owner(e.t)
	l.Follow = func(ctx vfs.Context) (vfs.Path, error) {
		if !mayTrace(ctx, e.t) {
			return vfs.Path{}, abi.EACCES
		}
		return follow()
	}
	l.Target = func(ctx vfs.Context) (string, error) {
		p, err := l.Follow(ctx)
		if err != nil {
			return "", err
		}
		defer p.DecRef()
		return p.NameFrom(ctx.FSContext().Root()), nil
	}
	files[name] = l
}

// newProcessDir makes /proc/PID.
func (fs *procFS) newProcessDir(t *kernel.Task) vfs.Inode {
	e := fs.commonEntries(t)
	tg := t.ThreadGroup()
	task := e.dir("task", 0o555, nil)
	task.Find = func(_ vfs.Context, name string) (vfs.Inode, error) {
		id, ok := parseID(name)
		if !ok {
			return nil, abi.ENOENT
		}
		for _, x := range tg.Tasks() {
			if x.TID() == id {
				return fs.wrap(fs.commonEntries(x), x, false), nil
			}
		}
		return nil, abi.ENOENT
	}
	task.List = func(vfs.Context) ([]vfs.Dirent, error) {
		var ids []int32
		for _, x := range tg.Tasks() {
			ids = append(ids, x.TID())
		}
		return idEntries(ids), nil
	}
	task.Stale = staleTask
	return fs.wrap(e, t, true)
}

func (fs *procFS) wrap(e *entryMaker, t *kernel.Task, process bool) vfs.Inode {
	d := fs.NewDir(e.files)
	d.Ino = dirIno(t.TID())
	d.Owner = func() (cred.UID, cred.GID) { return owner(t)() }
	return &taskDir{d, t, process}
}

// commonEntries are the files that processes and threads both have.
func (fs *procFS) commonEntries(t *kernel.Task) *entryMaker {
	e := &entryMaker{fs: fs, t: t, files: map[string]vfs.Inode{}}
	fs.memoryEntries(e)
	e.add("status", 0o444, fs.status)
	e.add("stat", 0o444, fs.taskStat)
	e.add("limits", 0o444, limits)
	e.add("io", 0o400, taskIO)
	e.add("cgroup", 0o444, func(*kernel.Task) ([]byte, error) { return []byte("0::/\n"), nil })
	e.add("wchan", 0o444, func(*kernel.Task) ([]byte, error) { return []byte("0"), nil })
	e.add("oom_score", 0o444, func(*kernel.Task) ([]byte, error) { return []byte("0\n"), nil })
	e.add("loginuid", 0o644, func(*kernel.Task) ([]byte, error) { return []byte("4294967295"), nil })
	e.add("sessionid", 0o444, func(*kernel.Task) ([]byte, error) { return []byte("4294967295"), nil })
	e.add("schedstat", 0o444, func(t *kernel.Task) ([]byte, error) {
		u, s := t.CPUTimes()
		return fmt.Appendf(nil, "%d 0 0\n", u+s), nil
	})
	e.add("personality", 0o400, func(t *kernel.Task) ([]byte, error) {
		return fmt.Appendf(nil, "%08x\n", t.Personality()), nil
	})
	idMap := []byte("         0          0 4294967295\n")
	e.add("uid_map", 0o644, func(*kernel.Task) ([]byte, error) { return idMap, nil })
	e.add("gid_map", 0o644, func(*kernel.Task) ([]byte, error) { return idMap, nil })
	e.add("setgroups", 0o644, func(*kernel.Task) ([]byte, error) { return []byte("allow\n"), nil })
	e.add("mounts", 0o444, mountTable(vfs.Mounts))
	e.add("mountinfo", 0o444, mountTable(vfs.MountInfo))

	comm := e.add("comm", 0o644, func(t *kernel.Task) ([]byte, error) { return []byte(t.Comm() + "\n"), nil })
	comm.Write = func(ctx vfs.Context, data []byte) error {
		if c, err := caller(ctx); err != nil || c.ThreadGroup() != t.ThreadGroup() {
			return abi.EINVAL
		}
		t.SetComm(strings.TrimSuffix(string(data), "\n"))
		return nil
	}
	adj := e.add("oom_score_adj", 0o644, func(t *kernel.Task) ([]byte, error) {
		return fmt.Appendf(nil, "%d\n", t.ThreadGroup().OOMScoreAdj().Load()), nil
	})
	adj.Write = func(ctx vfs.Context, data []byte) error {
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil || n < -1000 || n > 1000 {
			return abi.EINVAL
		}
		have := t.ThreadGroup().OOMScoreAdj()
		if int32(n) < have.Load() && !ctx.Cred().Can(abi.CAP_SYS_RESOURCE) {
			return abi.EACCES
		}
		have.Store(int32(n))
		return nil
	}

	e.magic(e.files, "root", func() (vfs.Path, error) { return fsPath(t, (*vfs.FSContext).Root) })
	e.magic(e.files, "cwd", func() (vfs.Path, error) { return fsPath(t, (*vfs.FSContext).Cwd) })
	e.magic(e.files, "exe", func() (vfs.Path, error) {
		m := t.MM()
		if m == nil {
			return vfs.Path{}, abi.ENOENT
		}
		f, ok := m.Exe().(*vfs.File)
		if !ok || f == nil {
			return vfs.Path{}, abi.ENOENT
		}
		defer f.DecRef()
		p := f.Path()
		p.IncRef()
		return p, nil
	})
	fs.fdEntries(e)
	fs.nsEntries(e)
	e.dir("net", 0o555, fs.netFiles())
	return e
}

func fsPath(t *kernel.Task, which func(*vfs.FSContext) vfs.Path) (vfs.Path, error) {
	c := t.FSContext()
	if c == nil {
		return vfs.Path{}, abi.ENOENT // a zombie
	}
	p := which(c)
	p.IncRef()
	return p, nil
}

func mountTable(print func(*vfs.MountNamespace, vfs.Path) []byte) func(t *kernel.Task) ([]byte, error) {
	return func(t *kernel.Task) ([]byte, error) {
		c, ns := t.FSContext(), t.MountNamespace()
		if c == nil || ns == nil {
			return nil, abi.EINVAL
		}
		return print(ns, c.Root()), nil
	}
}

// nsEntries makes /proc/PID/ns: one namespace of each kind exists, and the
// links' numbers are those of Linux's initial namespaces.
func (fs *procFS) nsEntries(e *entryMaker) {
	files := map[string]vfs.Inode{}
	for _, ns := range []struct {
		name string
		ino  uint32
	}{{"cgroup", 0xEFFFFFFB}, {"ipc", 0xEFFFFFFF}, {"mnt", 0xF0000000}, {"net", 0xF0000001}, {"pid", 0xEFFFFFFC},
		{"pid_for_children", 0xEFFFFFFC}, {"user", 0xEFFFFFFD}, {"uts", 0xEFFFFFFE}, {"time", 0xEFFFFFFA}} {
		kind := strings.TrimSuffix(ns.name, "_for_children")
		l := fs.NewSymlink(func(ctx vfs.Context) (string, error) {
			if !mayTrace(ctx, e.t) {
				return "", abi.EACCES
			}
			return fmt.Sprintf("%s:[%d]", kind, ns.ino), nil
		})
		l.Owner = owner(e.t)
		files[ns.name] = l
	}
	e.dir("ns", 0o511, files)
}

// memoryEntries are the files that show the address space. A zombie has none:
// they read as empty, as on Linux.
func (fs *procFS) memoryEntries(e *entryMaker) {
	withMM := func(gen func(m *mm.MM) ([]byte, error)) func(t *kernel.Task) ([]byte, error) {
		return func(t *kernel.Task) ([]byte, error) {
			m := t.MM()
			if m == nil || !m.TryIncUsers() {
				return nil, nil
			}
			defer m.DecUsers()
			return gen(m)
		}
	}
	e.add("cmdline", 0o444, withMM(func(m *mm.MM) ([]byte, error) {
		i := m.Info()
		return readRange(m, i.ArgStart, i.ArgEnd), nil
	}))
	e.guarded("environ", 0o400, withMM(func(m *mm.MM) ([]byte, error) {
		i := m.Info()
		return readRange(m, i.EnvStart, i.EnvEnd), nil
	}))
	e.guarded("auxv", 0o400, withMM(func(m *mm.MM) ([]byte, error) { return m.Info().Auxv, nil }))
	e.guarded("maps", 0o444, withMM(maps))
	e.guarded("smaps", 0o444, withMM(smaps))
	e.guarded("smaps_rollup", 0o444, withMM(smapsRollup))
	e.add("statm", 0o444, func(t *kernel.Task) ([]byte, error) {
		m := t.MM()
		if m == nil || !m.TryIncUsers() {
			return []byte("0 0 0 0 0 0 0\n"), nil
		}
		defer m.DecUsers()
		u := m.Stat(true)
		return fmt.Appendf(nil, "%d %d %d %d 0 %d 0\n", u.Total>>usermem.PageShift, u.Resident>>usermem.PageShift,
			(u.ResidentFile+u.ResidentShared)>>usermem.PageShift, u.Text>>usermem.PageShift, u.Data>>usermem.PageShift), nil
	})
	e.files["mem"] = newMemFile(e)
}

// maxRange bounds how much of the arguments or environment is shown, in bytes.
const maxRange = 8 << 20

// readRange reads guest memory as far as it can be read.
func readRange(m *mm.MM, lo, hi uint64) []byte {
	if hi <= lo || hi-lo > maxRange {
		return nil
	}
	b := make([]byte, hi-lo)
	n, _ := m.CopyIn(usermem.Addr(lo), b)
	return b[:n]
}
