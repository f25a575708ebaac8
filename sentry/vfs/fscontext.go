package vfs

import (
	"sync"
	"sync/atomic"
)

// An FSContext is a process's root directory, working directory and umask
// (struct fs_struct); tasks made with CLONE_FS share one.
type FSContext struct {
	vfs   *VFS
	refs  atomic.Int32
	umask atomic.Uint32

	mu  sync.Mutex // held while cur is replaced
	cur atomic.Pointer[fsPaths]
}

// fsPaths is replaced as a whole, so that readers need no lock.
type fsPaths struct{ root, cwd Path }

// NewFSContext makes a context with one reference.
func NewFSContext(v *VFS, root, cwd Path, umask uint16) *FSContext {
	fs := &FSContext{vfs: v}
	fs.refs.Store(1)
	fs.umask.Store(uint32(umask & 0777))
	fs.cur.Store(&fsPaths{root, cwd})
	root.IncRef()
	cwd.IncRef()
	return fs
}

// VFS is the virtual file system that the paths belong to.
func (fs *FSContext) VFS() *VFS { return fs.vfs }

// Root is where absolute paths start.
func (fs *FSContext) Root() Path { return fs.cur.Load().root }

// Cwd is where relative paths start.
func (fs *FSContext) Cwd() Path { return fs.cur.Load().cwd }

// Paths are root and working directory of one moment.
func (fs *FSContext) Paths() (root, cwd Path) { p := fs.cur.Load(); return p.root, p.cwd }

// SetRoot is chroot.
func (fs *FSContext) SetRoot(p Path) { fs.replace(func(c *fsPaths) { c.root = p }) }

// SetCwd is chdir.
func (fs *FSContext) SetCwd(p Path) { fs.replace(func(c *fsPaths) { c.cwd = p }) }

// SetPaths replaces both (pivot_root, setns).
func (fs *FSContext) SetPaths(root, cwd Path) {
	fs.replace(func(c *fsPaths) { c.root, c.cwd = root, cwd })
}

func (fs *FSContext) replace(change func(*fsPaths)) {
	fs.mu.Lock()
	old := fs.cur.Load()
	n := *old
	change(&n)
	n.root.IncRef()
	n.cwd.IncRef()
	fs.cur.Store(&n)
	fs.mu.Unlock()
	old.root.DecRef()
	old.cwd.DecRef()
}

// Umask is the file mode creation mask.
func (fs *FSContext) Umask() uint16 { return uint16(fs.umask.Load()) }

// SetUmask replaces the mask and returns the old one.
func (fs *FSContext) SetUmask(mask uint16) uint16 { return uint16(fs.umask.Swap(uint32(mask & 0777))) }

// IncRef adds a task that shares the context (CLONE_FS).
func (fs *FSContext) IncRef() { fs.refs.Add(1) }

// DecRef takes one away; the last lets go of the directories.
func (fs *FSContext) DecRef() {
	if fs.refs.Add(-1) == 0 {
		c := fs.cur.Load()
		c.root.DecRef()
		c.cwd.DecRef()
	}
}

// Fork copies the context for a task made without CLONE_FS.
func (fs *FSContext) Fork() *FSContext {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	c := fs.cur.Load()
	return NewFSContext(fs.vfs, c.root, c.cwd, fs.Umask())
}
