package overlay

import (
	"sort"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// entry is a name that the overlay knows better than the lower directory does.
type entry struct {
	name  string
	inode *inode // nil hides the lower name
	lower bool   // the lower directory has the name
	seq   int64
}

// Lookup implements vfs.Inode.
func (i *inode) Lookup(ctx vfs.Context, name string) (vfs.Inode, error) {
	if i.ftype != abi.S_IFDIR {
		return nil, abi.ENOTDIR
	}
	i.dmu.RLock()
	e := i.names[name]
	dead := i.dead
	i.dmu.RUnlock()
	if e != nil {
		if e.inode == nil {
			return nil, abi.ENOENT
		}
		return e.inode, nil
	}
	if i.lower == nil || dead {
		return nil, abi.ENOENT
	}
	l, err := i.lower.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := i.fs.wrap(ctx, l)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// add puts a name in; over says that the lower directory has it if no entry
// tells. dmu is held.
func (i *inode) add(name string, c *inode, over bool) {
	if old := i.names[name]; old != nil {
		over = old.lower
		i.drop(old)
	}
	e := &entry{name: name, inode: c, lower: over, seq: i.next}
	i.next++
	if i.names == nil {
		i.names = make(map[string]*entry)
	}
	i.names[name] = e
	i.order = append(i.order, e)
	i.live++
	if c.ftype == abi.S_IFDIR {
		i.countDir(1)
	}
	i.fs.keep(i)
}

// countDir changes the link count by a subdirectory, unless the lower file
// system does not count those (then it is 1).
func (i *inode) countDir(by int32) {
	if i.nlink.Load() >= 2 {
		i.nlink.Add(by)
	}
}

// drop takes an entry out of the order. dmu is held.
func (i *inode) drop(e *entry) {
	if e.inode == nil {
		return
	}
	if e.inode.ftype == abi.S_IFDIR {
		i.countDir(-1)
	}
	e.inode = nil
	i.live--
	if i.holes++; i.holes > 32 && i.holes > len(i.order)/2 {
		out := make([]*entry, 0, i.live)
		for _, x := range i.order {
			if x.inode != nil {
				out = append(out, x)
			}
		}
		i.order, i.holes = out, 0
	}
}

// remove takes a name out, and hides the lower one. dmu is held.
func (i *inode) remove(name string, c *inode) {
	e := i.names[name]
	if e == nil {
		if c.ftype == abi.S_IFDIR {
			i.countDir(-1)
		}
		if i.names == nil {
			i.names = make(map[string]*entry)
		}
		i.names[name] = &entry{name: name, lower: true}
		i.fs.keep(i)
		return
	}
	i.drop(e)
	if e.lower {
		i.names[name] = &entry{name: name, lower: true}
	} else {
		delete(i.names, name)
	}
}

// find says what name is. dmu is held. The VFS has looked the child up, so what
// no entry tells is the lower directory's.
func (i *inode) find(name string, c *inode) bool {
	if e := i.names[name]; e != nil {
		return e.inode == c
	}
	return i.lower != nil
}

// changed updates the directory's times.
func (i *inode) changed(ctx vfs.Context) {
	if u, err := i.copyUp(ctx, false, -1); err == nil {
		u.SetAttr(i.fs.sys, &vfs.SetAttr{SetMtime: true, MtimeNow: true})
	}
}

// makeEntry makes an entry for a new inode.
func (i *inode) makeEntry(ctx vfs.Context, name string, mode uint16, rdev uint64, target string) (vfs.Inode, error) {
	if i.ftype != abi.S_IFDIR {
		return nil, abi.ENOTDIR
	}
	if _, err := i.copyUp(ctx, false, -1); err != nil {
		return nil, err
	}
	i.dmu.Lock()
	defer i.dmu.Unlock()
	if i.dead {
		return nil, abi.ENOENT
	}
	if e := i.names[name]; e != nil && e.inode != nil {
		return nil, abi.EEXIST
	}
	links := int32(1)
	if mode&abi.S_IFMT == abi.S_IFDIR {
		links = 2
	}
	c, err := i.newUpper(ctx, mode, rdev, target, links)
	if err != nil {
		return nil, err
	}
	i.add(name, c, false)
	i.changed(ctx)
	return c, nil
}

// Mknod implements vfs.Inode.
func (i *inode) Mknod(ctx vfs.Context, name string, mode uint16, rdev uint64) (vfs.Inode, error) {
	return i.makeEntry(ctx, name, mode, rdev, "")
}

// Mkdir implements vfs.Inode.
func (i *inode) Mkdir(ctx vfs.Context, name string, mode uint16) (vfs.Inode, error) {
	return i.makeEntry(ctx, name, abi.S_IFDIR|mode, 0, "")
}

// Symlink implements vfs.Inode.
func (i *inode) Symlink(ctx vfs.Context, name, target string) (vfs.Inode, error) {
	return i.makeEntry(ctx, name, abi.S_IFLNK|0777, 0, target)
}

// Tmpfile implements vfs.Inode.
func (i *inode) Tmpfile(ctx vfs.Context, mode uint16) (vfs.Inode, error) {
	c, err := i.newUpper(ctx, mode, 0, "", 0)
	if err != nil {
		return nil, err
	}
	c.tmpfile.Store(true)
	return c, nil
}

// Link implements vfs.Inode.
func (i *inode) Link(ctx vfs.Context, name string, target vfs.Inode) error {
	c, ok := target.(*inode)
	if !ok || c.fs != i.fs {
		return abi.EXDEV
	}
	if _, err := i.copyUp(ctx, false, -1); err != nil {
		return err
	}
	// The inode's change time changes, and its link count differs from below.
	if _, err := c.copyUp(ctx, false, -1); err != nil {
		return err
	}
	i.dmu.Lock()
	defer i.dmu.Unlock()
	if i.dead {
		return abi.ENOENT
	}
	if e := i.names[name]; e != nil && e.inode != nil {
		return abi.EEXIST
	}
	if c.nlink.Load() <= 0 && !c.tmpfile.Load() || c.gone.Load() {
		return abi.ENOENT
	}
	c.nlink.Add(1)
	c.fs.keep(c)
	c.touchCtime()
	i.add(name, c, false)
	i.changed(ctx)
	return nil
}

// Unlink implements vfs.Inode.
func (i *inode) Unlink(ctx vfs.Context, name string, child vfs.Inode) error {
	c, ok := child.(*inode)
	if !ok {
		return abi.ENOENT
	}
	if _, err := i.copyUp(ctx, false, -1); err != nil {
		return err
	}
	i.dmu.Lock()
	if !i.find(name, c) {
		i.dmu.Unlock()
		return abi.ENOENT
	}
	i.remove(name, c)
	i.changed(ctx)
	i.dmu.Unlock()
	c.tmpfile.Store(false)
	c.unlinked()
	return nil
}

// bury marks an empty directory as removed: ENOTEMPTY.
func (i *inode) bury(ctx vfs.Context) error {
	i.dmu.Lock()
	defer i.dmu.Unlock()
	if i.live != 0 {
		return abi.ENOTEMPTY
	}
	if i.lower != nil {
		empty := true
		err := readLower(ctx, i.lower, 2, func(d vfs.Dirent) bool {
			if i.names[d.Name] == nil {
				empty = false
			}
			return empty
		})
		if err != nil {
			return err
		}
		if !empty {
			return abi.ENOTEMPTY
		}
	}
	i.dead = true
	return nil
}

// Rmdir implements vfs.Inode.
func (i *inode) Rmdir(ctx vfs.Context, name string, child vfs.Inode) error {
	c, ok := child.(*inode)
	if !ok || c.ftype != abi.S_IFDIR {
		return abi.ENOTDIR
	}
	i.fs.treeMu.Lock()
	defer i.fs.treeMu.Unlock()
	if _, err := i.copyUp(ctx, false, -1); err != nil {
		return err
	}
	i.dmu.Lock()
	defer i.dmu.Unlock()
	if !i.find(name, c) {
		return abi.ENOENT
	}
	if err := c.bury(ctx); err != nil {
		return err
	}
	i.remove(name, c)
	i.changed(ctx)
	c.unlinked()
	return nil
}

// Rename implements vfs.Inode.
func (i *inode) Rename(ctx vfs.Context, name string, child vfs.Inode, newDir vfs.Inode, newName string, replaced vfs.Inode, flags uint32) error {
	c, ok := child.(*inode)
	nd, ok2 := newDir.(*inode)
	if !ok || !ok2 || nd.fs != i.fs {
		return abi.EXDEV
	}
	r, _ := replaced.(*inode)
	for _, x := range []*inode{i, nd, c} {
		if _, err := x.copyUp(ctx, false, -1); err != nil {
			return err
		}
	}
	i.fs.treeMu.Lock()
	defer i.fs.treeMu.Unlock()
	i.dmu.Lock()
	defer i.dmu.Unlock()
	if nd != i {
		nd.dmu.Lock()
		defer nd.dmu.Unlock()
	}
	if !i.find(name, c) || nd.dead || r != nil && !nd.find(newName, r) {
		return abi.ENOENT
	}
	if flags&abi.RENAME_EXCHANGE != 0 {
		if r == nil {
			return abi.ENOENT
		}
		if _, err := r.copyUp(ctx, false, -1); err != nil {
			return err
		}
		i.remove(name, c)
		nd.remove(newName, r)
		i.add(name, r, false)
		nd.add(newName, c, false)
		r.touchCtime()
	} else {
		var white *inode
		if flags&abi.RENAME_WHITEOUT != 0 {
			var err error
			if white, err = i.newUpper(ctx, abi.S_IFCHR, 0, "", 1); err != nil {
				return err
			}
		}
		if r != nil {
			if r.ftype == abi.S_IFDIR {
				if err := r.bury(ctx); err != nil {
					return err
				}
			}
			nd.remove(newName, r)
			defer r.unlinked()
		}
		i.remove(name, c)
		nd.add(newName, c, false)
		if white != nil {
			i.add(name, white, false)
		}
	}
	c.touchCtime()
	i.changed(ctx)
	if nd != i {
		nd.changed(ctx)
	}
	return nil
}

// readLower calls fn for the entries of a lower directory from pos on, but for
// "." and "..".
func readLower(ctx vfs.Context, lower vfs.Inode, pos int64, fn func(vfs.Dirent) bool) error {
	ops, err := lower.Open(ctx, nil, abi.O_RDONLY|abi.O_DIRECTORY)
	if err != nil {
		return err
	}
	f := vfs.NewFile(ops, abi.O_RDONLY|abi.O_DIRECTORY, vfs.Path{})
	defer f.DecRef()
	return ops.ReadDir(ctx, f, pos, fn)
}

// upperBase is where the positions of the overlay's own entries start; below are
// the lower directory's.
const upperBase = 1 << 62

// dirFile is an open directory.
type dirFile struct {
	vfs.FileDefaults
	i  *inode
	de *vfs.Dentry

	lower *vfs.File // guarded by the file's position lock
}

// ReadDir implements vfs.FileOps: the lower directory's entries that still
// stand come first, then the overlay's own.
func (f *dirFile) ReadDir(ctx vfs.Context, _ *vfs.File, pos int64, emit func(vfs.Dirent) bool) error {
	i := f.i
	for ; pos < 2; pos++ {
		if !emit(vfs.DotEntry(ctx, f.de, pos)) {
			return nil
		}
	}
	if pos < upperBase {
		if i.lower != nil {
			stop, err := f.readLower(ctx, pos, emit)
			if err != nil || stop {
				return err
			}
		}
		pos = upperBase
	}
	i.dmu.RLock()
	defer i.dmu.RUnlock()
	n := sort.Search(len(i.order), func(n int) bool { return i.order[n].seq >= pos-upperBase })
	for ; n < len(i.order); n++ {
		e := i.order[n]
		if e.inode == nil {
			continue
		}
		if !emit(vfs.Dirent{Name: e.name, Ino: e.inode.ino, Type: abi.ModeToDT(e.inode.ftype), Next: upperBase + e.seq + 1}) {
			return nil
		}
	}
	return nil
}

// readLower emits the lower directory's part; stop says that emit had enough.
func (f *dirFile) readLower(ctx vfs.Context, pos int64, emit func(vfs.Dirent) bool) (stop bool, err error) {
	i := f.i
	if f.lower == nil || pos == 2 {
		ops, err := i.lower.Open(ctx, f.de, abi.O_RDONLY|abi.O_DIRECTORY)
		if err != nil {
			return false, err
		}
		if f.lower != nil {
			f.lower.DecRef()
		}
		f.lower = vfs.NewFile(ops, abi.O_RDONLY|abi.O_DIRECTORY, vfs.Path{})
	}
	err = f.lower.Ops().ReadDir(ctx, f.lower, pos, func(d vfs.Dirent) bool {
		i.dmu.RLock()
		hidden := i.names[d.Name] != nil
		i.dmu.RUnlock()
		if hidden {
			return true
		}
		if !emit(d) {
			stop = true
			return false
		}
		return true
	})
	return stop, err
}

// Release implements vfs.FileOps.
func (f *dirFile) Release(*vfs.File) {
	if f.lower != nil {
		f.lower.DecRef()
	}
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
