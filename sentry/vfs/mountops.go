package vfs

import (
	"garrison/abi"
)

// mayMount reports who may change mounts.
func mayMount(ctx Context) error {
	if !ctx.Cred().Can(abi.CAP_SYS_ADMIN) {
		return abi.EPERM
	}
	return nil
}

// propagation are the mount(2) flags that change how mounts spread.
const propagation = abi.MS_SHARED | abi.MS_PRIVATE | abi.MS_SLAVE | abi.MS_UNBINDABLE

// Mount is mount(2) on a target that was looked up; source is looked up here
// for bind mounts and moves.
func (v *VFS) Mount(ctx Context, source string, target Path, fstype string, flags uint32, data string) error {
	if flags&abi.MS_MGC_MSK == abi.MS_MGC_VAL {
		flags &^= abi.MS_MGC_MSK
	}
	if err := mayMount(ctx); err != nil {
		return err
	}
	keep := flags & mountFlagsKept
	if flags&abi.MS_STRICTATIME == 0 && flags&abi.MS_NOATIME == 0 {
		keep |= abi.MS_RELATIME
	}
	switch {
	case flags&(abi.MS_REMOUNT|abi.MS_BIND) == abi.MS_REMOUNT|abi.MS_BIND:
		if !target.IsMountRoot() {
			return abi.EINVAL
		}
		target.Mount.flags.Store(keep)
		return nil
	case flags&abi.MS_REMOUNT != 0:
		return remount(ctx, target, keep, data)
	case flags&abi.MS_BIND != 0:
		return v.bind(ctx, source, target, flags&abi.MS_REC != 0)
	case flags&propagation != 0:
		if !target.IsMountRoot() {
			return abi.EINVAL
		}
		if flags&propagation == abi.MS_SHARED {
			// Events do not spread between namespaces here; saying so beats
			// mounts that silently fail to appear.
			return abi.EINVAL
		}
		return nil
	case flags&abi.MS_MOVE != 0:
		return v.move(ctx, source, target)
	}
	v.mu.RLock()
	typ, ok := v.types[fstype]
	v.mu.RUnlock()
	if !ok {
		return abi.ENODEV
	}
	sb, err := typ.make(ctx, source, data, flags)
	if err != nil {
		return err
	}
	if source == "" {
		source = "none"
	}
	m, err := v.MountAt(ctx, target, sb, keep, source)
	if err == nil && flags&abi.MS_RDONLY != 0 && m.sb.mounts.Load() == 1 {
		m.sb.readonly.Store(true)
	}
	return err
}

// A Remounter is a Superblock whose options can be changed.
type Remounter interface {
	Remount(ctx Context, data string) error
}

// remount changes a file system's options, and the mount's flags.
func remount(ctx Context, p Path, keep uint32, data string) error {
	if !p.IsMountRoot() {
		return abi.EINVAL
	}
	if r, ok := p.Mount.sb.Superblock.(Remounter); ok && data != "" {
		if err := r.Remount(ctx, data); err != nil {
			return err
		}
	}
	p.Mount.sb.readonly.Store(keep&abi.MS_RDONLY != 0)
	p.Mount.flags.Store(keep)
	return nil
}

// bind mounts what is at source at target too; rec takes the mounts below along.
func (v *VFS) bind(ctx Context, source string, target Path, rec bool) error {
	if source == "" {
		return abi.EINVAL
	}
	from, err := v.Lookup(ctx, Path{}, source, Follow)
	if err != nil {
		return err
	}
	ns := target.Mount.ns.Load()
	if ns == nil || from.Mount.ns.Load() == nil {
		return abi.EINVAL
	}
	m := v.newMount(from.Mount.sb, from.Dentry, from.Mount.Flags(), from.Mount.Source)
	if !rec {
		_, err = v.graft(m, target)
		return err
	}
	// Copy the tree below first: the new mount may come to lie in it.
	type sub struct {
		m     *Mount
		point *Dentry
		kids  []*sub
	}
	var copyTree func(m *Mount, under *Dentry) []*sub
	copyTree = func(m *Mount, under *Dentry) []*sub {
		var out []*sub
		for _, c := range m.children {
			l := c.loc.Load()
			if l == nil || under != nil && !l.point.isDescendant(under) {
				continue
			}
			out = append(out, &sub{v.newMount(c.sb, c.root, c.Flags(), c.Source), l.point, copyTree(c, nil)})
		}
		return out
	}
	sns := from.Mount.ns.Load()
	sns.mu.RLock()
	subs := copyTree(from.Mount, from.Dentry)
	sns.mu.RUnlock()
	top, err := v.graft(m, target)
	if err != nil {
		return err
	}
	var hang func(on *Mount, subs []*sub)
	hang = func(on *Mount, subs []*sub) {
		for _, s := range subs {
			if c, err := v.graft(s.m, Path{on, s.point}); err == nil {
				hang(c, s.kids)
			}
		}
	}
	hang(top, subs)
	return nil
}

// move takes a mount from its place to another (MS_MOVE).
func (v *VFS) move(ctx Context, source string, target Path) error {
	from, err := v.Lookup(ctx, Path{}, source, Follow)
	if err != nil {
		return err
	}
	m := from.Mount
	if !from.IsMountRoot() || m.ns.Load() == nil || m.ns.Load() != target.Mount.ns.Load() {
		return abi.EINVAL
	}
	target = target.overmounted()
	if m.root.IsDir() != target.Dentry.IsDir() {
		return abi.EINVAL
	}
	ns := m.ns.Load()
	ns.mu.Lock()
	defer ns.mu.Unlock()
	l := m.loc.Load()
	if l == nil || l.parent == nil {
		return abi.EINVAL
	}
	for t := target.Mount; t != nil; {
		if t == m {
			return abi.ELOOP
		}
		tl := t.loc.Load()
		if tl == nil {
			break
		}
		t = tl.parent
	}
	ns.detach(m)
	ns.attach(m, target)
	return nil
}

// Unmount is umount2(2) on what was looked up.
func (v *VFS) Unmount(ctx Context, p Path, flags uint32) error {
	if err := mayMount(ctx); err != nil {
		return err
	}
	m := p.Mount
	if !p.IsMountRoot() {
		return abi.EINVAL
	}
	ns := m.ns.Load()
	if ns == nil {
		return abi.EINVAL
	}
	if flags&abi.MNT_EXPIRE != 0 {
		if flags&(abi.MNT_FORCE|abi.MNT_DETACH) != 0 {
			return abi.EINVAL
		}
		return abi.EAGAIN // the first call only marks it
	}
	ns.mu.Lock()
	l := m.loc.Load()
	switch {
	case l == nil:
		ns.mu.Unlock()
		return abi.EINVAL
	case l.parent == nil:
		ns.mu.Unlock()
		if flags&abi.MNT_DETACH != 0 {
			return abi.EINVAL
		}
		return abi.EBUSY
	case flags&abi.MNT_DETACH == 0 && (m.refs.Load() != 0 || len(m.children) != 0):
		ns.mu.Unlock()
		return abi.EBUSY
	}
	var gone []*Mount
	var takeDown func(m *Mount)
	takeDown = func(m *Mount) {
		for _, c := range append([]*Mount(nil), m.children...) {
			takeDown(c)
		}
		ns.detach(m)
		m.ns.Store(nil)
		gone = append(gone, m)
	}
	takeDown(m)
	ns.mu.Unlock()
	for _, m := range gone {
		m.maybeRelease()
	}
	return nil
}

// PivotRoot is pivot_root(2). The caller's root and working directory move if
// they were the old root; other processes' do not.
func (v *VFS) PivotRoot(ctx Context, newRoot, putOld Path) error {
	if err := mayMount(ctx); err != nil {
		return err
	}
	fs := ctx.FSContext()
	root, cwd := fs.Paths()
	newRoot, putOld = newRoot.overmounted(), putOld.overmounted()
	ns := root.Mount.ns.Load()
	switch {
	case ns == nil || newRoot.Mount.ns.Load() != ns || putOld.Mount.ns.Load() != ns:
		return abi.EINVAL
	case newRoot.Dentry.unlinked.Load():
		return abi.ENOENT
	case newRoot.Mount == root.Mount || putOld.Mount == root.Mount:
		return abi.EBUSY
	case !root.IsMountRoot() || !newRoot.IsMountRoot():
		return abi.EINVAL
	}
	ns.mu.Lock()
	rl, nl := root.Mount.loc.Load(), newRoot.Mount.loc.Load()
	if rl == nil || nl == nil || nl.parent == nil || !ns.below(putOld, newRoot) || !ns.below(newRoot, root) {
		ns.mu.Unlock()
		return abi.EINVAL
	}
	nm, om := newRoot.Mount, root.Mount
	ns.detach(nm)
	if rl.parent != nil {
		// The root is itself mounted on something: the new one takes its place.
		ns.detach(om)
		ns.attach(nm, Path{rl.parent, rl.point})
	} else {
		nm.loc.Store(&mountLoc{})
		ns.root = nm
	}
	ns.attach(om, putOld)
	ns.mu.Unlock()
	nr, nc := root, cwd
	if root.Mount == om && root.Dentry == om.root {
		nr = newRoot
	}
	if cwd.Mount == om && cwd.Dentry == om.root {
		nc = newRoot
	}
	fs.SetPaths(nr, nc)
	return nil
}

// below reports whether p can be reached from top going down. ns.mu is held.
func (ns *MountNamespace) below(p, top Path) bool {
	for p.Mount != top.Mount {
		l := p.Mount.loc.Load()
		if l == nil || l.parent == nil {
			return false
		}
		p = Path{l.parent, l.point}
	}
	return p.Dentry.isDescendant(top.Dentry)
}
