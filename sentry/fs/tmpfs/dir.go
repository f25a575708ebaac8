package tmpfs

import (
	"sort"
	"sync"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// dir is a directory. Entries keep the order they were made in, under a number
// that is their position for readdir: it stays valid whatever comes and goes.
type dir struct {
	vfs.NodeDefaults
	node

	mu      sync.RWMutex // shadows node.mu, which guards the attributes
	byName  map[string]*entry
	order   []*entry // by pos
	holes   int      // removed entries in order
	nextPos int64
	parent  *dir
	dead    bool
}

type entry struct {
	name  string
	inode vfs.Inode // nil when removed
	pos   int64
}

// direntSize is what an entry adds to a directory's st_size (BOGO_DIRENT_SIZE).
const direntSize = 20

// Attr implements vfs.Inode.
func (d *dir) Attr(vfs.Context) (vfs.Attr, error) {
	a := d.attr()
	d.mu.RLock()
	a.Size = uint64(len(d.byName)+2) * direntSize
	d.mu.RUnlock()
	return a, nil
}

// Lookup implements vfs.Inode.
func (d *dir) Lookup(_ vfs.Context, name string) (vfs.Inode, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e := d.byName[name]; e != nil {
		return e.inode, nil
	}
	return nil, abi.ENOENT
}

// add puts an entry in. d.mu is held.
func (d *dir) add(name string, i vfs.Inode) {
	e := &entry{name, i, d.nextPos + 2}
	d.nextPos++
	d.byName[name] = e
	d.order = append(d.order, e)
}

// del takes an entry out. d.mu is held.
func (d *dir) del(name string) {
	e := d.byName[name]
	if e == nil {
		return
	}
	delete(d.byName, name)
	e.inode = nil
	if d.holes++; d.holes > 32 && d.holes > len(d.order)/2 {
		live := make([]*entry, 0, len(d.order)-d.holes)
		for _, x := range d.order {
			if x.inode != nil {
				live = append(live, x)
			}
		}
		d.order, d.holes = live, 0
	}
}

// changed notes that entries changed. d.mu is held.
func (d *dir) changed() { d.touch(false, true, true) }

// insert makes an entry for a new inode that make returns.
func (d *dir) insert(ctx vfs.Context, name string, mode uint16, make func(n *node) vfs.Inode) (vfs.Inode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, abi.ENOENT
	}
	if d.byName[name] != nil {
		return nil, abi.EEXIST
	}
	if err := d.fs.newInode(); err != nil {
		return nil, err
	}
	da := d.attr()
	uid, gid, mode := vfs.InitOwner(ctx, &da, mode)
	var n node
	n.init(d.fs, mode, uid, gid, 1)
	i := make(&n)
	d.add(name, i)
	d.changed()
	return i, nil
}

// adopt copies what init set up.
func (n *node) adopt(from *node) {
	n.fs, n.ino, n.mode, n.uid, n.gid, n.nlink, n.rdev = from.fs, from.ino, from.mode, from.uid, from.gid, from.nlink, from.rdev
	n.atime, n.mtime, n.ctime, n.btime = from.atime, from.mtime, from.ctime, from.btime
}

// Mknod implements vfs.Inode.
func (d *dir) Mknod(ctx vfs.Context, name string, mode uint16, rdev uint64) (vfs.Inode, error) {
	return d.insert(ctx, name, mode, func(n *node) vfs.Inode {
		if mode&abi.S_IFMT == abi.S_IFREG {
			r := &regular{}
			r.adopt(n)
			return r
		}
		s := &special{}
		s.adopt(n)
		s.rdev = rdev
		return s
	})
}

// Mkdir implements vfs.Inode.
func (d *dir) Mkdir(ctx vfs.Context, name string, mode uint16) (vfs.Inode, error) {
	i, err := d.insert(ctx, name, abi.S_IFDIR|mode, func(n *node) vfs.Inode {
		c := &dir{byName: make(map[string]*entry), parent: d}
		c.adopt(n)
		c.nlink = 2
		return c
	})
	if err == nil {
		d.link(1)
	}
	return i, err
}

// Symlink implements vfs.Inode.
func (d *dir) Symlink(ctx vfs.Context, name, target string) (vfs.Inode, error) {
	return d.insert(ctx, name, abi.S_IFLNK|0777, func(n *node) vfs.Inode {
		l := &symlink{target: target}
		l.adopt(n)
		return l
	})
}

// link changes the link count.
func (n *node) link(by int) {
	n.mu.Lock()
	n.nlink = uint32(int(n.nlink) + by)
	n.ctime = now()
	n.mu.Unlock()
}

// Tmpfile implements vfs.Inode.
func (d *dir) Tmpfile(ctx vfs.Context, mode uint16) (vfs.Inode, error) {
	if err := d.fs.newInode(); err != nil {
		return nil, err
	}
	da := d.attr()
	uid, gid, mode := vfs.InitOwner(ctx, &da, mode)
	r := &regular{linkable: true}
	r.init(d.fs, mode, uid, gid, 0)
	return r, nil
}

// Link implements vfs.Inode.
func (d *dir) Link(_ vfs.Context, name string, target vfs.Inode) error {
	h, ok := target.(hasNode)
	if !ok {
		return abi.EXDEV
	}
	n := h.base()
	if n.fs != d.fs {
		return abi.EXDEV
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return abi.ENOENT
	}
	if d.byName[name] != nil {
		return abi.EEXIST
	}
	n.mu.Lock()
	if n.nlink == 0 {
		// Only what O_TMPFILE made may be linked back into a directory.
		r, ok := target.(*regular)
		if !ok || !r.linkable || r.gone.Load() {
			n.mu.Unlock()
			return abi.ENOENT
		}
	}
	n.nlink++
	n.ctime = now()
	n.mu.Unlock()
	d.add(name, target)
	d.changed()
	return nil
}

// unlinked drops a name of i.
func unlinked(i vfs.Inode) {
	n := i.(hasNode).base()
	n.link(-1)
	n.mu.Lock()
	last := n.nlink == 0
	n.mu.Unlock()
	if !last {
		return
	}
	if r, ok := i.(*regular); ok {
		r.linkable = false
		r.evictIfUnused()
		return
	}
	n.fs.inodes.Add(-1)
}

// Unlink implements vfs.Inode.
func (d *dir) Unlink(_ vfs.Context, name string, child vfs.Inode) error {
	d.mu.Lock()
	e := d.byName[name]
	if e == nil || e.inode != child {
		d.mu.Unlock()
		return abi.ENOENT
	}
	d.del(name)
	d.changed()
	d.mu.Unlock()
	unlinked(child)
	return nil
}

// Rmdir implements vfs.Inode.
func (d *dir) Rmdir(_ vfs.Context, name string, child vfs.Inode) error {
	d.fs.treeMu.Lock()
	defer d.fs.treeMu.Unlock()
	c, ok := child.(*dir)
	if !ok {
		return abi.ENOTDIR
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.byName[name]; e == nil || e.inode != child {
		return abi.ENOENT
	}
	if err := c.bury(); err != nil {
		return err
	}
	d.del(name)
	d.changed()
	d.link(-1)
	return nil
}

// bury marks an empty directory as removed; ENOTEMPTY.
func (d *dir) bury() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.byName) != 0 {
		return abi.ENOTEMPTY
	}
	d.dead = true
	d.link(-2)
	d.fs.inodes.Add(-1)
	return nil
}

// Rename implements vfs.Inode.
func (d *dir) Rename(ctx vfs.Context, name string, child vfs.Inode, newDir vfs.Inode, newName string, replaced vfs.Inode, flags uint32) error {
	nd, ok := newDir.(*dir)
	if !ok || nd.fs != d.fs {
		return abi.EXDEV
	}
	d.fs.treeMu.Lock()
	defer d.fs.treeMu.Unlock()
	// treeMu keeps other double lockers away, so any order will do.
	d.mu.Lock()
	defer d.mu.Unlock()
	if nd != d {
		nd.mu.Lock()
		defer nd.mu.Unlock()
	}
	e := d.byName[name]
	if e == nil || e.inode != child || nd.dead {
		return abi.ENOENT
	}
	old := nd.byName[newName]
	if (old == nil) != (replaced == nil) || old != nil && old.inode != replaced {
		return abi.ENOENT
	}
	cdir, _ := child.(*dir)
	if flags&abi.RENAME_EXCHANGE != 0 {
		rdir, _ := replaced.(*dir)
		e.inode, old.inode = old.inode, e.inode
		if d != nd {
			if cdir != nil {
				cdir.parent = nd
				d.link(-1)
				nd.link(1)
			}
			if rdir != nil {
				rdir.parent = d
				nd.link(-1)
				d.link(1)
			}
		}
		child.(hasNode).base().touch(false, false, true)
		replaced.(hasNode).base().touch(false, false, true)
		d.changed()
		nd.changed()
		return nil
	}
	var white *special
	if flags&abi.RENAME_WHITEOUT != 0 {
		if err := d.fs.newInode(); err != nil {
			return err
		}
		white = &special{}
		white.init(d.fs, abi.S_IFCHR, ctx.Cred().FSUID, ctx.Cred().FSGID, 1)
	}
	if replaced != nil {
		if rdir, ok := replaced.(*dir); ok {
			if err := rdir.bury(); err != nil {
				return err
			}
			nd.link(-1)
		} else {
			defer unlinked(replaced)
		}
		nd.del(newName)
	}
	d.del(name)
	nd.add(newName, child)
	if white != nil {
		d.add(name, white)
	}
	if cdir != nil && d != nd {
		cdir.parent = nd
		d.link(-1)
		nd.link(1)
	}
	child.(hasNode).base().touch(false, false, true)
	d.changed()
	nd.changed()
	return nil
}

// Open implements vfs.Inode.
func (d *dir) Open(_ vfs.Context, de *vfs.Dentry, _ uint32) (vfs.FileOps, error) {
	return &dirFile{d: d, de: de}, nil
}

// dirFile is an open directory.
type dirFile struct {
	vfs.FileDefaults
	d  *dir
	de *vfs.Dentry
}

// ReadDir implements vfs.FileOps.
func (f *dirFile) ReadDir(ctx vfs.Context, _ *vfs.File, pos int64, emit func(vfs.Dirent) bool) error {
	for ; pos < 2; pos++ {
		if !emit(vfs.DotEntry(ctx, f.de, pos)) {
			return nil
		}
	}
	return f.d.Scan(pos, func(e vfs.Dirent, _ vfs.Inode) bool { return emit(e) })
}

// Scan calls fn for the entries from position pos (2 is the first) on.
func (d *dir) Scan(pos int64, fn func(vfs.Dirent, vfs.Inode) bool) error {
	d.accessed()
	d.mu.RLock()
	defer d.mu.RUnlock()
	i := sort.Search(len(d.order), func(i int) bool { return d.order[i].pos >= pos })
	for ; i < len(d.order); i++ {
		e := d.order[i]
		if e.inode == nil {
			continue
		}
		n := e.inode.(hasNode).base()
		// The type of an inode never changes, so its mode may be read unlocked
		// as far as the type goes; but the race detector wants the lock.
		n.mu.Lock()
		typ := abi.ModeToDT(n.mode)
		n.mu.Unlock()
		if !fn(vfs.Dirent{Name: e.name, Ino: n.ino, Type: typ, Next: e.pos + 1}, e.inode) {
			return nil
		}
	}
	return nil
}

// Seek implements vfs.FileOps.
func (f *dirFile) Seek(_ vfs.Context, _ *vfs.File, cur, off int64, whence int) (int64, error) {
	if whence != abi.SEEK_SET && whence != abi.SEEK_CUR {
		return 0, abi.EINVAL
	}
	return vfs.SeekSize(cur, off, 0, whence)
}

// Read implements vfs.FileOps.
func (f *dirFile) Read(vfs.Context, *vfs.File, *usermem.Buffer, int64, vfs.IOFlags) (int64, error) {
	return 0, abi.EISDIR
}

// Sync implements vfs.FileOps.
func (f *dirFile) Sync(vfs.Context, *vfs.File, bool) error { return nil }

// releaseTree gives back the content of all files below d.
func (d *dir) releaseTree() {
	d.mu.Lock()
	es := d.order
	d.order, d.byName, d.dead = nil, map[string]*entry{}, true
	d.mu.Unlock()
	for _, e := range es {
		switch i := e.inode.(type) {
		case *dir:
			i.releaseTree()
		case *regular:
			i.node.mu.Lock()
			i.nlink = 0
			i.node.mu.Unlock()
			i.evictIfUnused()
		}
	}
}
