package vfs

import (
	"strings"

	"garrison/abi"
)

// OpenHow is how to open a file: open(2)'s flags, the mode of what is created
// (the umask not yet applied), and openat2(2)'s RESOLVE_* as lookup flags.
type OpenHow struct {
	Flags   uint32
	Mode    uint16
	Resolve LookupFlags
	// Exec asks for permission to execute instead of to read (execve).
	Exec bool
}

// oTmpfileBit is O_TMPFILE without the O_DIRECTORY that goes with it.
const oTmpfileBit = abi.O_TMPFILE &^ abi.O_DIRECTORY

// Open is openat(2). The File has one reference, the caller's.
func (v *VFS) Open(ctx Context, start Path, path string, how OpenHow) (*File, error) {
	fl := how.Flags
	if fl&abi.O_PATH != 0 {
		fl &= abi.O_PATH | abi.O_DIRECTORY | abi.O_NOFOLLOW | abi.O_CLOEXEC
	}
	switch {
	case fl&(abi.O_CREAT|abi.O_DIRECTORY) == abi.O_CREAT|abi.O_DIRECTORY:
		return nil, abi.EINVAL
	case fl&oTmpfileBit != 0:
		if fl&abi.O_TMPFILE != abi.O_TMPFILE || fl&abi.O_ACCMODE == abi.O_RDONLY || fl&abi.O_CREAT != 0 {
			return nil, abi.EINVAL
		}
	}
	how.Flags = fl
	lf := how.Resolve
	if fl&abi.O_NOFOLLOW == 0 {
		lf |= Follow
	}
	if fl&abi.O_DIRECTORY != 0 {
		lf |= WantDir
	}
	if fl&abi.O_CREAT == 0 {
		p, err := v.Lookup(ctx, start, path, lf)
		if err != nil {
			return nil, err
		}
		if fl&oTmpfileBit != 0 {
			return v.openTmpfile(ctx, p, how)
		}
		return v.OpenPath(ctx, p, how)
	}
	var f *File
	err := retryStale(func() (err error) {
		f, err = v.openCreate(ctx, start, path, lf, how)
		return err
	})
	return f, err
}

// openCreate is Open with O_CREAT.
func (v *VFS) openCreate(ctx Context, start Path, path string, lf LookupFlags, how OpenHow) (*File, error) {
	var w walker
	if how.Flags&abi.O_EXCL != 0 {
		lf &^= Follow
	}
	if err := w.parent(ctx, start, path, lf); err != nil {
		return nil, err
	}
	for {
		if w.last == "" || w.last == "." || w.last == ".." || w.trailing {
			// Only a directory can be named so; O_CREAT can't open one.
			if how.Flags&abi.O_EXCL != 0 && (w.last == "" || w.last == "." || w.last == "..") {
				return nil, abi.EEXIST
			}
			return nil, abi.EISDIR
		}
		p, err := w.child(w.last, "")
		if err == abi.ENOENT {
			var f *File
			if f, p, err = v.createOpen(ctx, &w, how); f != nil || err != nil {
				return f, err
			}
		}
		if err != nil {
			return nil, err
		}
		if how.Flags&abi.O_EXCL != 0 {
			return nil, abi.EEXIST
		}
		if p.Dentry.ftype == abi.S_IFLNK && lf&Follow != 0 {
			target, err := w.follow(p)
			if err != nil {
				return nil, err
			}
			if target == "" { // a magic link: there it is
				if w.cur.Dentry.IsDir() {
					return nil, abi.EISDIR
				}
				return v.OpenPath(ctx, w.cur, how)
			}
			if err := w.walk(target, true); err != nil {
				return nil, err
			}
			continue
		}
		if p.Dentry.IsDir() {
			return nil, abi.EISDIR
		}
		return v.OpenPath(ctx, p, how)
	}
}

// createOpen makes the missing last component and opens it. If somebody else
// made it meanwhile it returns the path of that, and no file.
func (v *VFS) createOpen(ctx Context, w *walker, how OpenHow) (*File, Path, error) {
	dir := w.cur
	name := strings.Clone(w.last)
	if err := dir.Dentry.lockDir(); err != nil {
		return nil, Path{}, err
	}
	d, err := dir.Dentry.lookupLocked(ctx, name, "")
	if err != abi.ENOENT {
		dir.Dentry.dirMu.Unlock()
		if err != nil {
			return nil, Path{}, err
		}
		return nil, Path{dir.Mount, d}.overmounted(), nil
	}
	d, err = func() (*Dentry, error) {
		if err := dir.wantWrite(); err != nil {
			return nil, err
		}
		if err := dir.mayCreate(ctx); err != nil {
			return nil, err
		}
		inode, err := dir.Dentry.inode.Mknod(ctx, name, abi.S_IFREG|how.Mode&07777&^ctx.FSContext().Umask(), 0)
		if err != nil {
			return nil, err
		}
		return dir.Dentry.instantiate(ctx, name, inode)
	}()
	dir.Dentry.dirMu.Unlock()
	if err != nil {
		return nil, Path{}, err
	}
	notifyEntry(dir.Dentry, d, abi.IN_CREATE, name)
	how.Flags &^= abi.O_TRUNC
	f, err := v.open(ctx, Path{dir.Mount, d}, how) // who creates it may open it, whatever its mode
	return f, Path{}, err
}

// openTmpfile is O_TMPFILE in the directory p.
func (v *VFS) openTmpfile(ctx Context, p Path, how OpenHow) (*File, error) {
	if err := p.wantWrite(); err != nil {
		return nil, err
	}
	if err := p.Access(ctx, MayWrite|MayExec); err != nil {
		return nil, err
	}
	inode, err := p.Dentry.inode.Tmpfile(ctx, abi.S_IFREG|how.Mode&07777&^ctx.FSContext().Umask())
	if err != nil {
		return nil, err
	}
	a, err := inode.Attr(ctx)
	if err != nil {
		return nil, err
	}
	d, err := newDentry(ctx, p.Dentry.sb, p.Dentry, "#"+itoa(a.Ino), inode)
	if err != nil {
		return nil, err
	}
	d.unlinked.Store(true)
	d.fixed = how.Flags&abi.O_EXCL != 0
	how.Flags &^= abi.O_TRUNC
	return v.open(ctx, Path{p.Mount, d}, how)
}

func itoa(n uint64) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}

// OpenPath opens what has been looked up already, with all of open's checks.
func (v *VFS) OpenPath(ctx Context, p Path, how OpenHow) (*File, error) {
	fl := how.Flags
	if fl&abi.O_PATH != 0 {
		if fl&abi.O_DIRECTORY != 0 && !p.Dentry.IsDir() {
			return nil, abi.ENOTDIR
		}
		return openPathOnly(ctx, p, fl)
	}
	trunc := fl&abi.O_TRUNC != 0 && p.Dentry.ftype == abi.S_IFREG
	if trunc {
		if err := p.wantWrite(); err != nil {
			return nil, err
		}
	}
	mask := uint32(0)
	switch fl & abi.O_ACCMODE {
	case abi.O_RDONLY:
		mask = MayRead
	case abi.O_WRONLY:
		mask = MayWrite
	default: // 3 is allowed: check both, and open for ioctls only (open(2))
		mask = MayRead | MayWrite
	}
	if fl&abi.O_TRUNC != 0 {
		mask |= MayWrite
	}
	if how.Exec {
		mask = MayExec
	}
	switch p.Dentry.ftype {
	case abi.S_IFLNK:
		return nil, abi.ELOOP
	case abi.S_IFDIR:
		if mask&MayWrite != 0 {
			return nil, abi.EISDIR
		}
		if how.Exec {
			return nil, abi.EACCES
		}
	case abi.S_IFCHR, abi.S_IFBLK:
		if p.Mount.Flags()&abi.MS_NODEV != 0 {
			return nil, abi.EACCES
		}
		fallthrough
	case abi.S_IFIFO, abi.S_IFSOCK:
		if how.Exec {
			return nil, abi.EACCES
		}
	case abi.S_IFREG:
		if how.Exec && p.NoExec() {
			return nil, abi.EACCES
		}
	}
	if err := p.Access(ctx, mask); err != nil {
		return nil, err
	}
	if fl&abi.O_NOATIME != 0 {
		a, err := p.Dentry.inode.Attr(ctx)
		if err != nil {
			return nil, err
		}
		if !isOwner(ctx.Cred(), &a) {
			return nil, abi.EPERM
		}
	}
	f, err := v.open(ctx, p, how)
	if err != nil {
		return nil, err
	}
	if trunc {
		s := SetAttr{SetSize: true, SetMtime: true, MtimeNow: true}
		if a, err := p.Dentry.inode.Attr(ctx); err == nil {
			if m, change := PrivsToRemove(ctx, &a); change {
				s.SetMode, s.Mode = true, m&07777
			}
		}
		if err := p.Dentry.inode.SetAttr(ctx, &s); err != nil {
			f.DecRef()
			return nil, err
		}
		f.notify(abi.IN_MODIFY)
	}
	return f, nil
}

// open makes the open file; permissions have been checked.
func (v *VFS) open(ctx Context, p Path, how OpenHow) (*File, error) {
	inode := p.Dentry.inode
	fl := how.Flags
	write := fl&abi.O_ACCMODE != abi.O_RDONLY
	counted := false
	if write {
		if writesReach(p.Dentry.ftype) {
			if err := p.wantWrite(); err != nil {
				return nil, err
			}
		}
		if p.Dentry.ftype == abi.S_IFREG {
			if err := getWriteAccess(inode); err != nil {
				return nil, err
			}
			counted = true
		}
	}
	ops, err := v.openOps(ctx, p, fl)
	if err != nil {
		if counted {
			putWriteAccess(inode)
		}
		return nil, err
	}
	f := NewFile(ops, fl|abi.O_LARGEFILE, p)
	f.cred = ctx.Cred()
	f.writeCounted = counted
	f.notify(abi.IN_OPEN)
	return f, nil
}

// openOps asks whoever is responsible for the type of file.
func (v *VFS) openOps(ctx Context, p Path, fl uint32) (FileOps, error) {
	inode := p.Dentry.inode
	if _, self := inode.(SelfOpener); !self {
		switch p.Dentry.ftype {
		case abi.S_IFSOCK:
			return nil, abi.ENXIO
		case abi.S_IFIFO:
			if v.OpenFIFO == nil {
				return nil, abi.ENXIO
			}
			return v.OpenFIFO(ctx, inode, fl)
		case abi.S_IFCHR, abi.S_IFBLK:
			a, err := inode.Attr(ctx)
			if err != nil {
				return nil, err
			}
			return v.openDevice(ctx, p.Dentry, p.Dentry.ftype, a.Rdev, fl)
		}
	}
	return inode.Open(ctx, p.Dentry, fl)
}

// pathOps are the operations of an O_PATH descriptor: none.
type pathOps struct {
	FileDefaults
	pinned Pinner
}

func openPathOnly(ctx Context, p Path, fl uint32) (*File, error) {
	ops := &pathOps{}
	if pin, ok := p.Dentry.inode.(Pinner); ok {
		if !pin.Pin() {
			return nil, abi.ENOENT
		}
		ops.pinned = pin
	}
	f := NewFile(ops, fl, p)
	f.cred = ctx.Cred()
	return f, nil
}

// Release implements FileOps.
func (o *pathOps) Release(*File) {
	if o.pinned != nil {
		o.pinned.Unpin()
	}
}
