package vfs

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
)

// A Path is a place in the mount tree. Holding one keeps dentry and mount
// usable; IncRef and DecRef only say that it is in use for long (an open file,
// a working directory), which makes umount say EBUSY.
type Path struct {
	Mount  *Mount
	Dentry *Dentry
}

// IncRef marks the path as in use.
func (p Path) IncRef() {
	if p.Mount != nil {
		p.Mount.refs.Add(1)
	}
	if p.Dentry != nil {
		p.Dentry.pins.Add(1)
	}
}

// DecRef takes an IncRef back.
func (p Path) DecRef() {
	if p.Dentry != nil {
		p.Dentry.pins.Add(-1)
	}
	if p.Mount != nil && p.Mount.refs.Add(-1) == 0 {
		p.Mount.maybeRelease()
	}
}

// Valid reports whether p is a place at all.
func (p Path) Valid() bool { return p.Dentry != nil }

// Inode is what is there.
func (p Path) Inode() Inode { return p.Dentry.inode }

// A Mount shows a file system, from one of its directories on, at a place in
// another mount.
type Mount struct {
	ID     int32
	Source string
	vfs    *VFS
	sb     *sbState
	root   *Dentry
	flags  atomic.Uint32                  // MS_RDONLY|NOSUID|NODEV|NOEXEC|NOATIME|NODIRATIME|RELATIME
	refs   atomic.Int32                   // uses by open files, working directories, roots
	ns     atomic.Pointer[MountNamespace] // nil when unmounted

	// loc is where it is mounted; changed with the namespace's mu held.
	loc      atomic.Pointer[mountLoc]
	children []*Mount // guarded by ns.mu, in mount order
	gone     sync.Once
}

// mountLoc is where a mount hangs; nil parent for a namespace's root.
type mountLoc struct {
	parent *Mount
	point  *Dentry
}

// mountFlagsKept are the mount(2) flags that belong to a mount.
const mountFlagsKept = abi.MS_RDONLY | abi.MS_NOSUID | abi.MS_NODEV | abi.MS_NOEXEC | abi.MS_NOATIME |
	abi.MS_NODIRATIME | abi.MS_RELATIME | abi.MS_NOSYMFOLLOW

// Flags are the mount's MS_* flags.
func (m *Mount) Flags() uint32 { return m.flags.Load() }

// Superblock is the mounted file system.
func (m *Mount) Superblock() Superblock { return m.sb.Superblock }

// Root is the mounted directory.
func (m *Mount) Root() Path { return Path{m, m.root} }

// Namespace is the mount namespace that m is part of, or nil.
func (m *Mount) Namespace() *MountNamespace { return m.ns.Load() }

// ReadOnly reports that nothing may be written through the mount.
func (m *Mount) ReadOnly() bool { return m.flags.Load()&abi.MS_RDONLY != 0 || m.sb.readonly.Load() }

// maybeRelease lets the superblock go when the last use of a mount that was
// unmounted ends.
func (m *Mount) maybeRelease() {
	if m.ns.Load() != nil || m.refs.Load() != 0 {
		return
	}
	m.gone.Do(func() {
		m.root.pins.Add(-1)
		if m.sb.mounts.Add(-1) == 0 {
			m.vfs.forgetSuperblock(m.sb)
			m.sb.Release()
		}
	})
}

// mountKey is where a mount can be found from above.
type mountKey struct {
	parent *Mount
	point  *Dentry
}

// A MountNamespace is a tree of mounts (mount_namespaces(7)).
type MountNamespace struct {
	vfs *VFS

	mu      sync.RWMutex
	root    *Mount
	byPoint map[mountKey]*Mount
	count   int
}

// maxMounts is sysctl fs.mount-max.
const maxMounts = 100000

// Root is the top of what is mounted first; processes start with their root there.
func (ns *MountNamespace) Root() Path {
	ns.mu.RLock()
	m := ns.root
	ns.mu.RUnlock()
	return ns.top(Path{m, m.root})
}

// mountedOn finds what is mounted directly on p.
func (ns *MountNamespace) mountedOn(p Path) *Mount {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.byPoint[mountKey{p.Mount, p.Dentry}]
}

// top follows mounts stacked on p.
func (ns *MountNamespace) top(p Path) Path { return p.overmounted() }

// overmounted follows mounts stacked on p to the uppermost.
func (p Path) overmounted() Path {
	for p.Dentry.mounted.Load() != 0 {
		ns := p.Mount.ns.Load()
		if ns == nil {
			return p
		}
		m := ns.mountedOn(p)
		if m == nil {
			return p
		}
		p = Path{m, m.root}
	}
	return p
}

// newMount makes a mount that hangs nowhere yet.
func (v *VFS) newMount(sb *sbState, root *Dentry, flags uint32, source string) *Mount {
	m := &Mount{ID: v.nextMountID.Add(1), Source: source, vfs: v, sb: sb, root: root}
	m.flags.Store(flags & mountFlagsKept)
	sb.mounts.Add(1)
	root.pins.Add(1)
	return m
}

// attach hangs m at p. ns.mu is held.
func (ns *MountNamespace) attach(m *Mount, p Path) {
	m.loc.Store(&mountLoc{p.Mount, p.Dentry})
	ns.byPoint[mountKey{p.Mount, p.Dentry}] = m
	p.Mount.children = append(p.Mount.children, m)
	p.Dentry.mounted.Add(1)
	p.Dentry.pins.Add(1)
	m.ns.Store(ns)
	ns.count++
}

// detach takes m from its place. ns.mu is held. Mounts on m stay on it.
func (ns *MountNamespace) detach(m *Mount) {
	l := m.loc.Load()
	if l == nil || l.parent == nil {
		return
	}
	delete(ns.byPoint, mountKey{l.parent, l.point})
	kids := l.parent.children
	for i, c := range kids {
		if c == m {
			l.parent.children = append(kids[:i:i], kids[i+1:]...)
			break
		}
	}
	l.point.mounted.Add(-1)
	l.point.pins.Add(-1)
	m.loc.Store(nil)
	ns.count--
}

// NewMountNamespace makes a namespace whose root is sb's root directory.
func (v *VFS) NewMountNamespace(ctx Context, sb Superblock, flags uint32, source string) (*MountNamespace, error) {
	st, err := v.superblock(ctx, sb)
	if err != nil {
		return nil, err
	}
	ns := &MountNamespace{vfs: v, byPoint: make(map[mountKey]*Mount), count: 1}
	m := v.newMount(st, st.root, flags, source)
	m.loc.Store(&mountLoc{})
	m.ns.Store(ns)
	ns.root = m
	return ns, nil
}

// MountAt mounts sb at p, for the Sentry itself: no permission is checked.
func (v *VFS) MountAt(ctx Context, p Path, sb Superblock, flags uint32, source string) (*Mount, error) {
	st, err := v.superblock(ctx, sb)
	if err != nil {
		return nil, err
	}
	return v.graft(v.newMount(st, st.root, flags, source), p)
}

// graft hangs a new mount at p, on top of what is mounted there already.
func (v *VFS) graft(m *Mount, p Path) (*Mount, error) {
	p = p.overmounted()
	fail := func(err error) (*Mount, error) {
		m.maybeRelease()
		return nil, err
	}
	if m.root.IsDir() != p.Dentry.IsDir() {
		return fail(abi.ENOTDIR)
	}
	ns := p.Mount.ns.Load()
	if ns == nil {
		return fail(abi.EINVAL)
	}
	ns.mu.Lock()
	switch {
	case p.Mount.ns.Load() != ns:
		ns.mu.Unlock()
		return fail(abi.EINVAL)
	case p.Dentry.unlinked.Load():
		ns.mu.Unlock()
		return fail(abi.ENOENT)
	case ns.count >= maxMounts:
		ns.mu.Unlock()
		return fail(abi.ENOSPC)
	}
	for ns.byPoint[mountKey{p.Mount, p.Dentry}] != nil { // someone was quicker
		over := ns.byPoint[mountKey{p.Mount, p.Dentry}]
		p = Path{over, over.root}
	}
	ns.attach(m, p)
	ns.mu.Unlock()
	return m, nil
}

// NewKernelMount makes a mount of sb that hangs in no namespace, for files that
// have no name (memfd_create, anonymous pipes).
func (v *VFS) NewKernelMount(ctx Context, sb Superblock) (*Mount, error) {
	st, err := v.superblock(ctx, sb)
	if err != nil {
		return nil, err
	}
	m := v.newMount(st, st.root, 0, "none")
	m.refs.Add(1) // never released
	return m, nil
}

// AnonPath makes a path that leads to an inode without a name; name is what
// /proc/PID/fd shows for it.
func (m *Mount) AnonPath(ctx Context, i Inode, name string) (Path, error) {
	d, err := newDentry(ctx, m.sb, nil, name, i)
	if err != nil {
		return Path{}, err
	}
	d.unlinked.Store(true)
	return Path{m, d}, nil
}

// anon is where the inodes of anonymous files live as far as paths go.
var anon struct {
	once  sync.Once
	mount *Mount
	err   error
}

// anonInode stands for the anonymous files that have no inode of their own.
type anonInode struct{ LeafDefaults }

func (anonInode) Attr(ctx Context) (Attr, error) { return anonAttr(), nil }

// AnonPath makes a path that leads to an anonymous file's inode (a pipe's), so
// that it can be opened again through /proc/PID/fd.
func AnonPath(f *File) (Path, error) {
	anon.once.Do(func() {
		sb := &PseudoSuperblock{typ: "anon_inodefs", magic: 0x09041934, dev: anonAttr().Dev}
		sb.SetRoot(sb.NewDir(0))
		anon.mount, anon.err = New().NewKernelMount(bareContext, sb)
	})
	if anon.err != nil {
		return Path{}, anon.err
	}
	i := f.Inode()
	if i == nil {
		i = anonInode{}
	}
	p, err := anon.mount.AnonPath(bareContext, i, f.name)
	if err == nil {
		p.IncRef()
	}
	return p, err
}
