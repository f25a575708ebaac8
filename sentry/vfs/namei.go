package vfs

import (
	"strings"

	"garrison/abi"
	"garrison/sentry/cred"
)

// LookupFlags modify a path walk.
type LookupFlags uint32

// The lookup flags; those of openat2(2)'s RESOLVE_* have the same meaning.
const (
	Follow       LookupFlags = 1 << iota // follow a symbolic link at the end
	WantDir                              // ENOTDIR unless it is a directory
	AllowEmpty                           // "" is the start itself (AT_EMPTY_PATH)
	NoXdev                               // RESOLVE_NO_XDEV
	NoMagicLinks                         // RESOLVE_NO_MAGICLINKS
	NoSymlinks                           // RESOLVE_NO_SYMLINKS
	Beneath                              // RESOLVE_BENEATH
	InRoot                               // RESOLVE_IN_ROOT
	CachedOnly                           // RESOLVE_CACHED
)

// maxSymlinks is how many links one walk follows (path_resolution(7)).
const maxSymlinks = 40

// walker is one path walk.
type walker struct {
	ctx   Context
	v     *VFS
	cred  *cred.Cred
	root  Path // where absolute paths start and ".." ends
	cur   Path
	flags LookupFlags
	links int

	// The last component, when a walk stops at its parent.
	last     string
	trailing bool // slashes follow it
}

// init sets a walk of path up; start is the directory of relative paths, or
// zero for the working directory.
func (w *walker) init(ctx Context, start Path, path string, fl LookupFlags) error {
	fs := ctx.FSContext()
	root, cwd := fs.Paths()
	if !start.Valid() {
		start = cwd
	}
	w.ctx, w.v, w.cred, w.flags = ctx, fs.vfs, ctx.Cred(), fl
	w.root, w.cur = root, start
	if path == "" {
		if fl&AllowEmpty == 0 {
			return abi.ENOENT
		}
		return nil
	}
	if fl&(Beneath|InRoot) != 0 {
		w.root = start
	}
	if path[0] == '/' {
		return w.jumpRoot()
	}
	return nil
}

// jumpRoot goes on from the root.
func (w *walker) jumpRoot() error {
	if w.flags&Beneath != 0 {
		return abi.EXDEV
	}
	if w.flags&NoXdev != 0 && w.cur.Mount != w.root.Mount {
		return abi.EXDEV
	}
	w.cur = w.root
	return nil
}

// Lookup walks path. The result is not marked as used (see Path.IncRef).
func (v *VFS) Lookup(ctx Context, start Path, path string, fl LookupFlags) (Path, error) {
	var w walker
	if err := w.init(ctx, start, path, fl); err != nil {
		return Path{}, err
	}
	if err := w.walk(path, false); err != nil {
		return Path{}, err
	}
	if fl&WantDir != 0 && !w.cur.Dentry.IsDir() {
		return Path{}, abi.ENOTDIR
	}
	return w.cur, nil
}

// CheckAccess is faccessat2(2): it walks path and checks mask with the
// credentials c, which are the real ids' unless AT_EACCESS is given.
func (v *VFS) CheckAccess(ctx Context, c *cred.Cred, start Path, path string, fl LookupFlags, mask uint32) error {
	var w walker
	if err := w.init(ctx, start, path, fl); err != nil {
		return err
	}
	w.cred = c
	if err := w.walk(path, false); err != nil {
		return err
	}
	p := w.cur
	if mask == 0 {
		return nil
	}
	if mask&MayExec != 0 && p.Dentry.ftype == abi.S_IFREG && p.NoExec() {
		return abi.EACCES
	}
	if mask&MayWrite != 0 && p.Mount != nil && p.Mount.sb.readonly.Load() && writesReach(p.Dentry.ftype) {
		return abi.EROFS
	}
	if err := inodeAccess(ctx, c, p.Dentry, mask); err != nil {
		return err
	}
	if mask&MayWrite != 0 && writesReach(p.Dentry.ftype) {
		return p.wantWrite()
	}
	return nil
}

// parent walks to the directory of path's last component and leaves that in
// w.last: "." or ".." may be it, and "" stands for the root itself.
func (w *walker) parent(ctx Context, start Path, path string, fl LookupFlags) error {
	if err := w.init(ctx, start, path, fl&^AllowEmpty); err != nil {
		return err
	}
	return w.walk(path, true)
}

// walk goes along path from w.cur on.
func (w *walker) walk(path string, toParent bool) error {
	rest := path
	for {
		i := 0
		for i < len(rest) && rest[i] == '/' {
			i++
		}
		rest = rest[i:]
		if rest == "" {
			w.last, w.trailing = "", false
			return nil
		}
		comp := rest
		rest = ""
		trailing := false
		last := true
		if i := strings.IndexByte(comp, '/'); i >= 0 {
			comp, rest = comp[:i], comp[i:]
			trailing = true
			last = allSlashes(rest)
		}
		if !w.cur.Dentry.IsDir() {
			return abi.ENOTDIR
		}
		if err := mayExecDir(w.ctx, w.cred, w.cur.Dentry); err != nil {
			return err
		}
		if last && toParent {
			w.last, w.trailing = comp, trailing
			if len(comp) > abi.NAME_MAX {
				return abi.ENAMETOOLONG
			}
			return nil
		}
		if comp == "." {
			continue
		}
		if comp == ".." {
			if err := w.up(); err != nil {
				return err
			}
			continue
		}
		p, err := w.child(comp, rest)
		if err != nil {
			return err
		}
		if p.Dentry.ftype == abi.S_IFLNK && (!last || trailing || w.flags&Follow != 0) {
			target, err := w.follow(p)
			if err != nil {
				return err
			}
			if target != "" {
				rest = join(target, rest)
			}
			continue
		}
		w.cur = p
		if last && trailing && !p.Dentry.IsDir() {
			return abi.ENOTDIR
		}
	}
}

// join puts what is left of the path behind a link's target.
func join(target, rest string) string {
	if rest == "" {
		return target
	}
	return target + rest // rest begins with a slash
}

func allSlashes(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '/' {
			return false
		}
	}
	return true
}

// follow follows the symbolic link at p, which is in w.cur. It moves w.cur to
// where the walk goes on, and returns the link's text; "" if it led to an object.
func (w *walker) follow(p Path) (string, error) {
	if w.flags&NoSymlinks != 0 || w.links >= maxSymlinks || p.Mount.Flags()&abi.MS_NOSYMFOLLOW != 0 {
		return "", abi.ELOOP
	}
	w.links++
	if m, ok := p.Dentry.inode.(MagicLinker); ok {
		if w.flags&NoMagicLinks != 0 {
			return "", abi.ELOOP
		}
		to, err := m.FollowLink(w.ctx)
		if err != nil {
			return "", err
		}
		if to.Valid() {
			// The walk only borrows it.
			to.DecRef()
			if w.flags&(Beneath|InRoot) != 0 || w.flags&NoXdev != 0 && to.Mount != w.cur.Mount {
				return "", abi.EXDEV
			}
			w.cur = to
			return "", nil
		}
	}
	target, err := p.Dentry.inode.Readlink(w.ctx)
	if err != nil {
		return "", err
	}
	if target == "" {
		return "", abi.ENOENT
	}
	if target[0] == '/' {
		if err := w.jumpRoot(); err != nil {
			return "", err
		}
	}
	return target, nil
}

// up is "..": it stays at the root, and leaves mounts.
func (w *walker) up() error {
	p := w.cur
	for {
		if p.Dentry == w.root.Dentry && p.Mount == w.root.Mount {
			if w.flags&Beneath != 0 {
				return abi.EXDEV
			}
			break
		}
		if p.Dentry == p.Mount.rootOrNil() {
			l := p.Mount.loc.Load()
			if l == nil || l.parent == nil {
				break
			}
			if w.flags&NoXdev != 0 {
				return abi.EXDEV
			}
			p = Path{l.parent, l.point}
			continue
		}
		if par := p.Dentry.Parent(); par != nil {
			p.Dentry = par
		}
		break
	}
	return w.enter(p)
}

// enter makes p the current place, or what is mounted on it.
func (w *walker) enter(p Path) error {
	q := p.overmounted()
	if q.Mount != p.Mount && w.flags&NoXdev != 0 {
		return abi.EXDEV
	}
	w.cur = q
	return nil
}

// child finds comp in w.cur, and what is mounted on it; rest is the path after
// it, for lookups that go several steps at once. ENOENT.
func (w *walker) child(comp, rest string) (Path, error) {
	if len(comp) > abi.NAME_MAX {
		return Path{}, abi.ENAMETOOLONG
	}
	d, err := w.v.lookupChild(w.ctx, w.cur.Dentry, comp, rest, w.flags)
	if err != nil {
		return Path{}, err
	}
	p := Path{w.cur.Mount, d}
	if d.mounted.Load() == 0 {
		return p, nil
	}
	q := p.overmounted()
	if q.Mount != p.Mount && w.flags&NoXdev != 0 {
		return Path{}, abi.EXDEV
	}
	return q, nil
}

// lookupChild finds name in the directory: in the cache, or in the file system.
func (v *VFS) lookupChild(ctx Context, dir *Dentry, name, rest string, fl LookupFlags) (*Dentry, error) {
	if c := dir.cached(name); c != nil {
		if dir.trusts(ctx, name, c) {
			if c.inode == nil {
				return nil, abi.ENOENT
			}
			return c, nil
		}
	}
	if fl&CachedOnly != 0 {
		return nil, abi.EAGAIN
	}
	dir.dirMu.RLock()
	defer dir.dirMu.RUnlock()
	return dir.lookupLocked(ctx, name, rest)
}

// trusts reports whether the cached child still holds; if not it is dropped.
func (d *Dentry) trusts(ctx Context, name string, c *Dentry) bool {
	if !d.reval {
		return true
	}
	if c.inode != nil && (c.mounted.Load() != 0 || d.inode.(Revalidator).Revalidate(ctx, name, c.inode)) {
		return true
	}
	d.dropChild(name, c)
	c.unlinked.Store(true)
	return false
}

// lookupLocked finds name; d.dirMu is held, for reading at least.
func (d *Dentry) lookupLocked(ctx Context, name, rest string) (*Dentry, error) {
	if c := d.cached(name); c != nil && d.trusts(ctx, name, c) {
		if c.inode == nil {
			return nil, abi.ENOENT
		}
		return c, nil
	}
	if d.unlinked.Load() {
		return nil, abi.ENOENT
	}
	d.sb.maybeShrink()
	if deep, ok := d.inode.(DeepWalker); ok && rest != "" {
		if c := d.lookupDeep(ctx, deep, name, rest); c != nil {
			return c, nil
		}
	}
	inode, err := d.inode.Lookup(ctx, name)
	if err == abi.ENOENT && !d.reval && d.sb.CacheNegative() {
		n, _ := newDentry(ctx, d.sb, d, strings.Clone(name), nil)
		d.addChild(n)
	}
	if err != nil {
		return nil, err
	}
	c, err := newDentry(ctx, d.sb, d, strings.Clone(name), inode)
	if err != nil {
		return nil, err
	}
	return d.addChild(c), nil
}

// maxDeep is how many components one DeepLookup is asked for.
const maxDeep = 16

// lookupDeep finds name and as much of rest as it can in one step. The chain
// of dentries is put together before it is published, so that nobody can change
// a directory of it meanwhile. It returns nil if it found nothing.
func (d *Dentry) lookupDeep(ctx Context, deep DeepWalker, name, rest string) *Dentry {
	var arr [maxDeep]string
	names := append(arr[:0], name)
	for s := rest; len(names) < maxDeep; {
		s = strings.TrimLeft(s, "/")
		comp, tail, _ := strings.Cut(s, "/")
		if comp == "" || comp == "." || comp == ".." || len(comp) > abi.NAME_MAX {
			break
		}
		names = append(names, comp)
		s = tail
	}
	if len(names) < 2 {
		return nil
	}
	inodes, err := deep.DeepLookup(ctx, names)
	if err != nil || len(inodes) == 0 {
		return nil
	}
	var first, prev *Dentry
	for i, in := range inodes {
		par := prev
		if par == nil {
			par = d
		}
		c, err := newDentry(ctx, d.sb, par, strings.Clone(names[i]), in)
		if err != nil {
			break
		}
		if prev != nil {
			prev.addChild(c)
		} else {
			first = c
		}
		prev = c
		if !c.IsDir() {
			break
		}
	}
	if first == nil {
		return nil
	}
	return d.addChild(first)
}

// Start gives the directory that relative paths start from: the working
// directory for AT_FDCWD, or that of a descriptor (EBADF; that it is none shows
// as ENOTDIR in the walk). Absolute paths ignore dirfd, bad or not.
func Start(ctx Context, dirfd int32, path string) (Path, error) {
	if dirfd == abi.AT_FDCWD || path != "" && path[0] == '/' {
		return Path{}, nil
	}
	f := ctx.FDTable().Get(dirfd)
	if f == nil {
		return Path{}, abi.EBADF
	}
	p := f.path
	f.DecRef() // the path stays valid: dentries are garbage collected
	if !p.Valid() {
		if path == "" {
			return Path{}, abi.EBADF
		}
		return Path{}, abi.ENOTDIR
	}
	return p, nil
}
