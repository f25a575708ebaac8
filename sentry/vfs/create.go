package vfs

import (
	"strings"

	"garrison/abi"
)

// retryStale runs op again if it met a directory that the cache had forgotten
// meanwhile.
func retryStale(op func() error) error {
	for range 8 {
		if err := op(); err != abi.ESTALE {
			return err
		}
	}
	return abi.ESTALE
}

// lockDir takes the directory lock of d for changing entries.
func (d *Dentry) lockDir() error {
	d.dirMu.Lock()
	if d.forgotten {
		d.dirMu.Unlock()
		return abi.ESTALE
	}
	return nil
}

// createAt finds the place of a new entry and calls make with the directory
// locked, the name free, and permission granted. It does what all of mkdir,
// mknod, symlink and link have in common, with Linux's errors in their order.
func (v *VFS) createAt(ctx Context, start Path, path string, isDir bool, make func(dir Path, name string) (Inode, error)) error {
	return v.createAt2(ctx, start, path, isDir, nil, make)
}

// createAt2 is createAt with a check of its own before permission is asked for.
func (v *VFS) createAt2(ctx Context, start Path, path string, isDir bool, first func(dir Path) error, make func(dir Path, name string) (Inode, error)) error {
	_, err := v.createPath(ctx, start, path, isDir, first, make)
	return err
}

// createPath is createAt2 that tells where the new entry is: walking there
// again could lead elsewhere.
func (v *VFS) createPath(ctx Context, start Path, path string, isDir bool, first func(dir Path) error, make func(dir Path, name string) (Inode, error)) (made Path, err error) {
	err = retryStale(func() error {
		var w walker
		if err := w.parent(ctx, start, path, 0); err != nil {
			return err
		}
		if w.last == "" || w.last == "." || w.last == ".." {
			return abi.EEXIST
		}
		dir := w.cur
		name := strings.Clone(w.last)
		if err := dir.Dentry.lockDir(); err != nil {
			return err
		}
		defer dir.Dentry.dirMu.Unlock()
		switch _, err := dir.Dentry.lookupLocked(ctx, name, ""); {
		case err == nil:
			return abi.EEXIST
		case err != abi.ENOENT:
			return err
		}
		if w.trailing && !isDir {
			return abi.ENOENT
		}
		if err := dir.wantWrite(); err != nil {
			return err
		}
		if first != nil {
			if err := first(dir); err != nil {
				return err
			}
		}
		if err := dir.mayCreate(ctx); err != nil {
			return err
		}
		inode, err := make(dir, name)
		if err != nil {
			return err
		}
		c, err := dir.Dentry.instantiate(ctx, name, inode)
		if err == nil {
			made = Path{dir.Mount, c}
			notifyEntry(dir.Dentry, c, abi.IN_CREATE, name)
		}
		return err
	})
	return made, err
}

// instantiate puts a new inode into the cache; d.dirMu is held.
func (d *Dentry) instantiate(ctx Context, name string, inode Inode) (*Dentry, error) {
	c, err := newDentry(ctx, d.sb, d, name, inode)
	if err != nil {
		return nil, err
	}
	d.replaceChild(name, c)
	return c, nil
}

// Mkdir is mkdirat(2).
func (v *VFS) Mkdir(ctx Context, start Path, path string, mode uint16) error {
	mode = mode & (0777 | abi.S_ISVTX) &^ ctx.FSContext().Umask()
	return v.createAt(ctx, start, path, true, func(dir Path, name string) (Inode, error) {
		return dir.Dentry.inode.Mkdir(ctx, name, mode)
	})
}

// Mknod is mknodat(2).
func (v *VFS) Mknod(ctx Context, start Path, path string, mode uint16, rdev uint64) error {
	switch mode & abi.S_IFMT {
	case 0:
		mode |= abi.S_IFREG
	case abi.S_IFREG, abi.S_IFCHR, abi.S_IFBLK, abi.S_IFIFO, abi.S_IFSOCK:
	case abi.S_IFDIR:
		return abi.EPERM
	default:
		return abi.EINVAL
	}
	mode &^= ctx.FSContext().Umask()
	dev := mode&abi.S_IFMT == abi.S_IFCHR || mode&abi.S_IFMT == abi.S_IFBLK
	if !dev {
		rdev = 0
	}
	return v.createAt(ctx, start, path, false, func(dir Path, name string) (Inode, error) {
		whiteout := mode&abi.S_IFMT == abi.S_IFCHR && rdev == 0
		if dev && !whiteout && !ctx.Cred().Can(abi.CAP_MKNOD) {
			return nil, abi.EPERM
		}
		return dir.Dentry.inode.Mknod(ctx, name, mode, rdev)
	})
}

// MknodPath makes a node as Mknod does and returns its path too: bind(2) of
// AF_UNIX sockets needs that. EADDRINUSE is the caller's translation of EEXIST.
func (v *VFS) MknodPath(ctx Context, start Path, path string, mode uint16) (Path, error) {
	mode &^= ctx.FSContext().Umask()
	return v.createPath(ctx, start, path, false, nil, func(dir Path, name string) (Inode, error) {
		return dir.Dentry.inode.Mknod(ctx, name, mode, 0)
	})
}

// Symlink is symlinkat(2).
func (v *VFS) Symlink(ctx Context, target string, start Path, path string) error {
	if target == "" {
		return abi.ENOENT
	}
	return v.createAt(ctx, start, path, false, func(dir Path, name string) (Inode, error) {
		return dir.Dentry.inode.Symlink(ctx, name, target)
	})
}

// Link is linkat(2): old has been looked up.
func (v *VFS) Link(ctx Context, old Path, start Path, path string) error {
	return v.createAt2(ctx, start, path, false, func(dir Path) error {
		if old.Mount != dir.Mount || old.Dentry.sb != dir.Dentry.sb {
			return abi.EXDEV
		}
		return old.mayLink(ctx)
	}, func(dir Path, name string) (Inode, error) {
		if old.Dentry.fixed {
			return nil, abi.ENOENT
		}
		if old.Dentry.IsDir() {
			return nil, abi.EPERM
		}
		if err := dir.Dentry.inode.Link(ctx, name, old.Dentry.inode); err != nil {
			return nil, err
		}
		if watched() {
			tell(old.Dentry.inode, abi.IN_ATTRIB, 0, "") // the link count changed
		}
		return old.Dentry.inode, nil
	})
}

// Unlink is unlink(2).
func (v *VFS) Unlink(ctx Context, start Path, path string) error {
	return v.remove(ctx, start, path, false)
}

// Rmdir is rmdir(2).
func (v *VFS) Rmdir(ctx Context, start Path, path string) error {
	return v.remove(ctx, start, path, true)
}

func (v *VFS) remove(ctx Context, start Path, path string, isDir bool) error {
	return retryStale(func() error {
		var w walker
		if err := w.parent(ctx, start, path, 0); err != nil {
			return err
		}
		switch {
		case !isDir && (w.last == "" || w.last == "." || w.last == ".."):
			return abi.EISDIR
		case w.last == "":
			return abi.EBUSY
		case w.last == ".":
			return abi.EINVAL
		case w.last == "..":
			return abi.ENOTEMPTY
		}
		dir := w.cur
		if err := dir.wantWrite(); err != nil {
			return err
		}
		if err := dir.Dentry.lockDir(); err != nil {
			return err
		}
		defer dir.Dentry.dirMu.Unlock()
		d, err := dir.Dentry.lookupLocked(ctx, w.last, "")
		if err != nil {
			return err
		}
		if !isDir && w.trailing {
			if d.IsDir() {
				return abi.EISDIR
			}
			return abi.ENOTDIR
		}
		if err := dir.mayDelete(ctx, d, isDir); err != nil {
			return err
		}
		if d.mounted.Load() != 0 {
			return abi.EBUSY
		}
		if isDir {
			// The victim is locked too, so that nothing is made in it meanwhile.
			d.dirMu.Lock()
			defer d.dirMu.Unlock()
			err = dir.Dentry.inode.Rmdir(ctx, d.Name(), d.inode)
		} else {
			err = dir.Dentry.inode.Unlink(ctx, d.Name(), d.inode)
		}
		if err != nil {
			return err
		}
		dir.Dentry.unhash(ctx, d)
		notifyRemoved(ctx, dir.Dentry, d, d.Name())
		return nil
	})
}

// unhash takes a removed child out of the cache; d.dirMu is held.
func (d *Dentry) unhash(ctx Context, c *Dentry) {
	c.unlinked.Store(true)
	name := c.Name()
	d.dropChild(name, c)
	if !d.reval && d.sb.CacheNegative() {
		if n, err := newDentry(ctx, d.sb, d, name, nil); err == nil {
			d.addChild(n)
		}
	}
	c.drop()
}

// Rename is renameat2(2).
func (v *VFS) Rename(ctx Context, oldStart Path, oldPath string, newStart Path, newPath string, flags uint32) error {
	const noReplace, exchange, whiteout = abi.RENAME_NOREPLACE, abi.RENAME_EXCHANGE, abi.RENAME_WHITEOUT
	if flags&^(noReplace|exchange|whiteout) != 0 || flags&exchange != 0 && flags&(noReplace|whiteout) != 0 {
		return abi.EINVAL
	}
	return retryStale(func() error {
		var ow, nw walker
		if err := ow.parent(ctx, oldStart, oldPath, 0); err != nil {
			return err
		}
		if err := nw.parent(ctx, newStart, newPath, 0); err != nil {
			return err
		}
		if ow.cur.Mount != nw.cur.Mount {
			return abi.EXDEV
		}
		if ow.last == "" || ow.last == "." || ow.last == ".." {
			return abi.EBUSY
		}
		if nw.last == "" || nw.last == "." || nw.last == ".." {
			if flags&noReplace != 0 {
				return abi.EEXIST
			}
			return abi.EBUSY
		}
		if err := ow.cur.wantWrite(); err != nil {
			return err
		}
		return v.rename(ctx, &ow, &nw, flags)
	})
}

func (v *VFS) rename(ctx Context, ow, nw *walker, flags uint32) error {
	const noReplace, exchange, whiteout = abi.RENAME_NOREPLACE, abi.RENAME_EXCHANGE, abi.RENAME_WHITEOUT
	oldDir, newDir := ow.cur, nw.cur
	od, nd := oldDir.Dentry, newDir.Dentry
	if od != nd {
		v.renameMu.Lock()
		defer v.renameMu.Unlock()
	}
	if err := lockTwo(od, nd); err != nil {
		return err
	}
	defer unlockTwo(od, nd)

	old, err := od.lookupLocked(ctx, ow.last, "")
	if err != nil {
		return err
	}
	target, err := nd.lookupLocked(ctx, nw.last, "")
	if err != nil && err != abi.ENOENT {
		return err
	}
	if target != nil && flags&noReplace != 0 {
		return abi.EEXIST
	}
	if flags&exchange != 0 {
		if target == nil {
			return abi.ENOENT
		}
		if !target.IsDir() && nw.trailing {
			return abi.ENOTDIR
		}
	}
	if !old.IsDir() && (ow.trailing || flags&exchange == 0 && nw.trailing) {
		return abi.ENOTDIR
	}
	if nd.isDescendant(old) { // a directory can't move into itself
		return abi.EINVAL
	}
	if target != nil && od.isDescendant(target) {
		if flags&exchange != 0 {
			return abi.EINVAL
		}
		return abi.ENOTEMPTY
	}
	if target != nil && target.inode == old.inode {
		return nil // rename(2): hard links to the same file, nothing is done
	}
	if err := oldDir.mayDelete(ctx, old, old.IsDir()); err != nil {
		return err
	}
	switch {
	case target == nil:
		err = newDir.mayCreate(ctx)
	case flags&exchange != 0:
		err = newDir.mayDelete(ctx, target, target.IsDir())
	default:
		err = newDir.mayDelete(ctx, target, old.IsDir())
	}
	if err != nil {
		return err
	}
	if od != nd {
		// ".." of a directory changes, which is writing to it.
		if old.IsDir() {
			if err := (Path{oldDir.Mount, old}).Access(ctx, MayWrite); err != nil {
				return err
			}
		}
		if flags&exchange != 0 && target.IsDir() {
			if err := (Path{newDir.Mount, target}).Access(ctx, MayWrite); err != nil {
				return err
			}
		}
	}
	if old.mounted.Load() != 0 || target != nil && target.mounted.Load() != 0 {
		return abi.EBUSY
	}
	if flags&whiteout != 0 && !ctx.Cred().Can(abi.CAP_MKNOD) {
		return abi.EPERM
	}
	var replaced Inode
	if target != nil {
		replaced = target.inode
		if target.IsDir() && target != old {
			target.dirMu.Lock()
			defer target.dirMu.Unlock()
		}
	}
	newName, oldName := strings.Clone(nw.last), old.Name()
	if err := od.inode.Rename(ctx, oldName, old.inode, nd.inode, newName, replaced, flags); err != nil {
		return err
	}
	od.dropChild(oldName, old)
	if target != nil {
		nd.dropChild(newName, target)
	}
	old.loc.Store(&dentryLoc{nd, newName})
	nd.replaceChild(newName, old)
	switch {
	case flags&exchange != 0:
		target.loc.Store(&dentryLoc{od, oldName})
		od.replaceChild(oldName, target)
	case target != nil:
		target.unlinked.Store(true)
		target.drop()
		fallthrough
	default:
		if flags&whiteout == 0 && !od.reval && od.sb.CacheNegative() {
			if n, err := newDentry(ctx, od.sb, od, oldName, nil); err == nil {
				od.addChild(n)
			}
		}
	}
	if flags&exchange != 0 {
		notifyRenamed(ctx, od, oldName, nd, newName, old, nil)
		notifyRenamed(ctx, nd, newName, od, oldName, target, nil)
	} else {
		notifyRenamed(ctx, od, oldName, nd, newName, old, target)
	}
	return nil
}

// lockTwo locks two directories for a rename: an ancestor before what is below
// it, and unrelated ones in the order they were made.
func lockTwo(a, b *Dentry) error {
	if a == b {
		return a.lockDir()
	}
	if a.isDescendant(b) || !b.isDescendant(a) && b.seq < a.seq {
		a, b = b, a
	}
	if err := a.lockDir(); err != nil {
		return err
	}
	if err := b.lockDir(); err != nil {
		a.dirMu.Unlock()
		return err
	}
	return nil
}

func unlockTwo(a, b *Dentry) {
	a.dirMu.Unlock()
	if a != b {
		b.dirMu.Unlock()
	}
}

// MkdirAll makes path and what is missing above it, for the Sentry itself.
func (v *VFS) MkdirAll(ctx Context, start Path, path string, mode uint16) (Path, error) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if err := v.Mkdir(ctx, start, path[:i], mode); err != nil && err != abi.EEXIST {
			return Path{}, err
		}
	}
	return v.Lookup(ctx, start, path, Follow|WantDir)
}
