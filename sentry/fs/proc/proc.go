// Package proc is procfs (proc(5)): a directory for every process and thread,
// and the kernel's global files, as ps, top, free, lsof, the C library and
// language runtimes read them.
//
// It reads the kernel's state and keeps none; the few writable files change
// what the corresponding system call changes. What is not known is absent
// rather than made up.
//
// Lock order: generators take kernel, memory-manager and descriptor-table
// locks one after another, never nested by this package.
package proc

import (
	"fmt"
	"strconv"

	"garrison/abi"
	"garrison/sentry/fs/pseudo"
	"garrison/sentry/kernel"
	"garrison/sentry/vfs"
)

// A Config is what procfs shows besides the kernel's own state.
type Config struct {
	// CPUInfo is the host's /proc/cpuinfo, read before the Sentry gave up its
	// file system.
	CPUInfo string
	// CommandLine is /proc/cmdline, without a newline.
	CommandLine string
	// NetFiles generate the socket tables of /proc/net, by name ("tcp").
	NetFiles map[string]func() []byte
}

// procFS is one procfs.
type procFS struct {
	*pseudo.FS
	k   *kernel.Kernel
	cfg Config
}

// rootIno is the root directory's inode number, as on Linux (PROC_ROOT_INO).
const rootIno = 1

// New makes a procfs for k.
func New(k *kernel.Kernel, cfg Config) vfs.Superblock {
	fs := &procFS{FS: pseudo.New(k.VFS(), "proc", abi.PROC_SUPER_MAGIC), k: k, cfg: cfg}
	// A lookup of what does not exist fails in procfs, before its creation is tried.
	fs.MakeErr = abi.ENOENT
	root := fs.NewDir(fs.globalFiles())
	root.Ino = rootIno
	root.Find = func(_ vfs.Context, name string) (vfs.Inode, error) {
		pid, ok := parseID(name)
		if !ok {
			return nil, abi.ENOENT
		}
		// A thread's directory can be opened by its id, but is not listed.
		t := k.TaskByID(pid)
		if t == nil {
			if tg := k.ThreadGroupByID(pid); tg != nil {
				t = tg.Leader()
			}
		}
		if t == nil {
			return nil, abi.ENOENT
		}
		return fs.newProcessDir(t), nil
	}
	root.List = fs.listProcesses
	root.Stale = staleTask
	fs.SetRoot(root)
	return fs
}

// MaxDentries implements vfs.DentryLimiter: a process's directory holds on to
// the dead process, and to some hundred inodes.
func (*procFS) MaxDentries() int64 { return 256 }

// parseID reads a process id as Linux's name_to_int: no sign, no leading zero.
func parseID(name string) (int32, bool) {
	if name == "" || name[0] < '1' || name[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(name, 10, 32)
	return int32(n), err == nil
}

// listProcesses lists the processes in the order of their ids.
func (fs *procFS) listProcesses(vfs.Context) ([]vfs.Dirent, error) {
	var ids []int32
	for _, tg := range fs.k.ThreadGroups() {
		ids = append(ids, tg.PID())
	}
	return idEntries(ids), nil
}

// caller is the task that makes a call on procfs.
func caller(ctx vfs.Context) (*kernel.Task, error) {
	if t, ok := ctx.(*kernel.Task); ok && t != nil {
		return t, nil
	}
	return nil, abi.ENOENT
}

// selfLink makes /proc/self and /proc/thread-self.
func (fs *procFS) selfLink(target func(t *kernel.Task) string) vfs.Inode {
	return fs.NewSymlink(func(ctx vfs.Context) (string, error) {
		t, err := caller(ctx)
		if err != nil {
			return "", err
		}
		return target(t), nil
	})
}

func (fs *procFS) selfLinks(m map[string]vfs.Inode) {
	m["self"] = fs.selfLink(func(t *kernel.Task) string { return strconv.Itoa(int(t.PID())) })
	m["thread-self"] = fs.selfLink(func(t *kernel.Task) string { return fmt.Sprintf("%d/task/%d", t.PID(), t.TID()) })
	m["mounts"] = fs.NewSymlink(func(vfs.Context) (string, error) { return "self/mounts", nil })
	m["net"] = fs.NewSymlink(func(vfs.Context) (string, error) { return "self/net", nil })
}
