package syscalls

import (
	"math"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// pathCalls change attributes: chmod(2), chown(2), utimensat(2), truncate(2),
// and what belongs to storage: fallocate(2), fsync(2), posix_fadvise(2).
var pathCalls = []kernel.Row{
	{Nr: abi.SYS_chmod, Name: "chmod", Fn: sysChmod, Args: []kernel.ArgKind{kernel.PathArg, kernel.Oct}},
	{Nr: abi.SYS_fchmod, Name: "fchmod", Fn: sysFchmod, Args: []kernel.ArgKind{kernel.FDArg, kernel.Oct}},
	{Nr: abi.SYS_fchmodat, Name: "fchmodat", Fn: sysFchmodat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Oct}},
	{Nr: abi.SYS_chown, Name: "chown", Fn: sysChown, Args: []kernel.ArgKind{kernel.PathArg, kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_lchown, Name: "lchown", Fn: sysLchown, Args: []kernel.ArgKind{kernel.PathArg, kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_fchown, Name: "fchown", Fn: sysFchown, Args: []kernel.ArgKind{kernel.FDArg, kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_fchownat, Name: "fchownat", Fn: sysFchownat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Dec, kernel.Dec, kernel.ATFlags}},
	{Nr: abi.SYS_utime, Name: "utime", Fn: sysUtime, Args: []kernel.ArgKind{kernel.PathArg, kernel.Ptr}},
	{Nr: abi.SYS_utimes, Name: "utimes", Fn: sysUtimes, Args: []kernel.ArgKind{kernel.PathArg, kernel.Ptr}},
	{Nr: abi.SYS_futimesat, Name: "futimesat", Fn: sysFutimesat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Ptr}},
	{Nr: abi.SYS_utimensat, Name: "utimensat", Fn: sysUtimensat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Ptr, kernel.ATFlags}},
	{Nr: abi.SYS_truncate, Name: "truncate", Fn: sysTruncate, Args: []kernel.ArgKind{kernel.PathArg, kernel.Long}},
	{Nr: abi.SYS_ftruncate, Name: "ftruncate", Fn: sysFtruncate, Args: []kernel.ArgKind{kernel.FDArg, kernel.Long}},
	{Nr: abi.SYS_fallocate, Name: "fallocate", Fn: sysFallocate, Args: []kernel.ArgKind{kernel.FDArg, kernel.Hex, kernel.Long, kernel.Long}},
	{Nr: abi.SYS_fsync, Name: "fsync", Fn: sysFsync, Args: []kernel.ArgKind{kernel.FDArg}},
	{Nr: abi.SYS_fdatasync, Name: "fdatasync", Fn: sysFdatasync, Args: []kernel.ArgKind{kernel.FDArg}},
	{Nr: abi.SYS_sync, Name: "sync", Fn: sysSync},
	{Nr: abi.SYS_syncfs, Name: "syncfs", Fn: sysSyncfs, Args: []kernel.ArgKind{kernel.FDArg}},
	{Nr: abi.SYS_sync_file_range, Name: "sync_file_range", Fn: sysSyncFileRange, Args: []kernel.ArgKind{kernel.FDArg, kernel.Long, kernel.Long, kernel.Hex}},
	{Nr: abi.SYS_fadvise64, Name: "fadvise64", Fn: sysFadvise64, Args: []kernel.ArgKind{kernel.FDArg, kernel.Long, kernel.Long, kernel.Dec}},
	{Nr: abi.SYS_readahead, Name: "readahead", Fn: sysReadahead, Args: []kernel.ArgKind{kernel.FDArg, kernel.Long, kernel.UDec}},
}

// inodeTarget is what calls on a path or a descriptor change: a path, or the
// inode of an anonymous file.
type inodeTarget struct {
	path  vfs.Path
	inode vfs.Inode
}

// targetAt finds the target of path addr; "" with AT_EMPTY_PATH is dirfd itself.
func targetAt(t *kernel.Task, dirfd int32, addr usermem.Addr, flags uint32) (inodeTarget, error) {
	path, err := pathAt(t, addr)
	if err != nil {
		return inodeTarget{}, err
	}
	if path == "" && flags&abi.AT_EMPTY_PATH != 0 && dirfd != abi.AT_FDCWD {
		return targetOf(t, dirfd, true)
	}
	start, err := vfs.Start(t, dirfd, path)
	if err != nil {
		return inodeTarget{}, err
	}
	fl := vfs.Follow
	if flags&abi.AT_SYMLINK_NOFOLLOW != 0 {
		fl = 0
	}
	if flags&abi.AT_EMPTY_PATH != 0 {
		fl |= vfs.AllowEmpty
	}
	p, err := theVFS(t).Lookup(t, start, path, fl)
	return inodeTarget{path: p}, err
}

// targetOf finds the target that a descriptor is; pathToo admits O_PATH ones.
func targetOf(t *kernel.Task, fd int32, pathToo bool) (inodeTarget, error) {
	get := openFile
	if pathToo {
		get = anyFile
	}
	f, err := get(t, fd)
	if err != nil {
		return inodeTarget{}, err
	}
	defer f.DecRef()
	if p := f.Path(); p.Valid() {
		return inodeTarget{path: p}, nil
	}
	if i := f.Inode(); i != nil {
		return inodeTarget{inode: i}, nil
	}
	return inodeTarget{}, abi.EPERM // the inode that anonymous files share belongs to root
}

func (x inodeTarget) chmod(t *kernel.Task, mode uint16) error {
	if x.inode != nil {
		return vfs.ChmodInode(t, x.inode, mode)
	}
	return x.path.Chmod(t, mode)
}

func (x inodeTarget) chown(t *kernel.Task, uid, gid uint32) error {
	if x.inode != nil {
		return vfs.ChownInode(t, x.inode, uid, gid)
	}
	return x.path.Chown(t, uid, gid)
}

func sysChmod(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return chmodAt(t, abi.AT_FDCWD, a.Addr(0), a.Mode(1), 0)
}

func sysFchmod(t *kernel.Task, a kernel.Args) (uintptr, error) {
	x, err := targetOf(t, a.FD(0), false)
	if err != nil {
		return 0, err
	}
	return 0, x.chmod(t, a.Mode(1))
}

func sysFchmodat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return chmodAt(t, a.FD(0), a.Addr(1), a.Mode(2), 0)
}

func chmodAt(t *kernel.Task, dirfd int32, addr usermem.Addr, mode uint16, flags uint32) (uintptr, error) {
	if flags&^(abi.AT_SYMLINK_NOFOLLOW|abi.AT_EMPTY_PATH) != 0 {
		return 0, abi.EINVAL
	}
	x, err := targetAt(t, dirfd, addr, flags)
	if err != nil {
		return 0, err
	}
	return 0, x.chmod(t, mode)
}

func sysChown(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return chownAt(t, abi.AT_FDCWD, a.Addr(0), a.Uint(1), a.Uint(2), 0)
}

func sysLchown(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return chownAt(t, abi.AT_FDCWD, a.Addr(0), a.Uint(1), a.Uint(2), abi.AT_SYMLINK_NOFOLLOW)
}

func sysFchown(t *kernel.Task, a kernel.Args) (uintptr, error) {
	x, err := targetOf(t, a.FD(0), false)
	if err != nil {
		return 0, err
	}
	return 0, x.chown(t, a.Uint(1), a.Uint(2))
}

func sysFchownat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return chownAt(t, a.FD(0), a.Addr(1), a.Uint(2), a.Uint(3), a.Uint(4))
}

func chownAt(t *kernel.Task, dirfd int32, addr usermem.Addr, uid, gid, flags uint32) (uintptr, error) {
	if flags&^(abi.AT_SYMLINK_NOFOLLOW|abi.AT_EMPTY_PATH) != 0 {
		return 0, abi.EINVAL
	}
	x, err := targetAt(t, dirfd, addr, flags)
	if err != nil {
		return 0, err
	}
	return 0, x.chown(t, uid, gid)
}

// nsOf joins seconds and nanoseconds, clamped to what 64 bits of nanoseconds hold.
func nsOf(sec, nsec int64) int64 {
	const most = math.MaxInt64/1_000_000_000 - 1
	return max(-most, min(sec, most))*1_000_000_000 + nsec
}

func setTimes(t *kernel.Task, dirfd int32, addr usermem.Addr, tm vfs.Times, flags uint32) (uintptr, error) {
	var x inodeTarget
	var err error
	if addr == 0 && dirfd != abi.AT_FDCWD {
		if flags != 0 {
			return 0, abi.EINVAL
		}
		x, err = targetOf(t, dirfd, false)
	} else {
		x, err = targetAt(t, dirfd, addr, flags)
	}
	if err != nil {
		return 0, err
	}
	if x.inode != nil {
		return 0, x.inode.SetAttr(t, &vfs.SetAttr{
			SetAtime: !tm.AtimeOmit, AtimeNow: tm.AtimeNow, Atime: tm.Atime,
			SetMtime: !tm.MtimeOmit, MtimeNow: tm.MtimeNow, Mtime: tm.Mtime})
	}
	return 0, x.path.Utimes(t, tm)
}

var timesNow = vfs.Times{AtimeNow: true, MtimeNow: true}

func sysUtime(t *kernel.Task, a kernel.Args) (uintptr, error) {
	tm := timesNow
	if a.Addr(1) != 0 {
		var b [16]byte
		if _, err := t.Memory().CopyIn(a.Addr(1), b[:]); err != nil {
			return 0, err
		}
		tm = vfs.Times{Atime: nsOf(int64(le64(b[:])), 0), Mtime: nsOf(int64(le64(b[8:])), 0)}
	}
	return setTimes(t, abi.AT_FDCWD, a.Addr(0), tm, 0)
}

func sysUtimes(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return timevals(t, abi.AT_FDCWD, a.Addr(0), a.Addr(1))
}

func sysFutimesat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return timevals(t, a.FD(0), a.Addr(1), a.Addr(2))
}

func timevals(t *kernel.Task, dirfd int32, path, times usermem.Addr) (uintptr, error) {
	tm := timesNow
	if times != 0 {
		var b [32]byte
		if _, err := t.Memory().CopyIn(times, b[:]); err != nil {
			return 0, err
		}
		au, mu := int64(le64(b[8:])), int64(le64(b[24:]))
		if au < 0 || au >= 1e6 || mu < 0 || mu >= 1e6 {
			return 0, abi.EINVAL
		}
		tm = vfs.Times{Atime: nsOf(int64(le64(b[0:])), au*1000), Mtime: nsOf(int64(le64(b[16:])), mu*1000)}
	}
	return setTimes(t, dirfd, path, tm, 0)
}

func sysUtimensat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	tm := timesNow
	if a.Addr(2) != 0 {
		var b [32]byte
		if _, err := t.Memory().CopyIn(a.Addr(2), b[:]); err != nil {
			return 0, err
		}
		an, mn := int64(le64(b[8:])), int64(le64(b[24:]))
		if an == abi.UTIME_OMIT && mn == abi.UTIME_OMIT {
			return 0, nil // nothing is looked at, not even the path
		}
		ok := func(n int64) bool { return n >= 0 && n < 1e9 || n == abi.UTIME_NOW || n == abi.UTIME_OMIT }
		if !ok(an) || !ok(mn) {
			return 0, abi.EINVAL
		}
		tm = vfs.Times{AtimeNow: an == abi.UTIME_NOW, MtimeNow: mn == abi.UTIME_NOW,
			AtimeOmit: an == abi.UTIME_OMIT, MtimeOmit: mn == abi.UTIME_OMIT}
		if !tm.AtimeNow && !tm.AtimeOmit {
			tm.Atime = nsOf(int64(le64(b[0:])), an)
		}
		if !tm.MtimeNow && !tm.MtimeOmit {
			tm.Mtime = nsOf(int64(le64(b[16:])), mn)
		}
	}
	flags := a.Uint(3)
	if flags&^(abi.AT_SYMLINK_NOFOLLOW|abi.AT_EMPTY_PATH) != 0 {
		return 0, abi.EINVAL
	}
	return setTimes(t, a.FD(0), a.Addr(1), tm, flags)
}

func sysTruncate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(1) < 0 {
		return 0, abi.EINVAL
	}
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow)
	if err != nil {
		return 0, err
	}
	return 0, p.Truncate(t, a.Int64(1))
}

func sysFtruncate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(1) < 0 {
		return 0, abi.EINVAL
	}
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, f.Truncate(t, a.Int64(1))
}

func sysFallocate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	mode, off, length := a.Uint(1), a.Int64(2), a.Int64(3)
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	const keep, punch, collapse, zero, insert, unshare = abi.FALLOC_FL_KEEP_SIZE, abi.FALLOC_FL_PUNCH_HOLE,
		abi.FALLOC_FL_COLLAPSE_RANGE, abi.FALLOC_FL_ZERO_RANGE, abi.FALLOC_FL_INSERT_RANGE, abi.FALLOC_FL_UNSHARE_RANGE
	if off < 0 || length <= 0 {
		return 0, abi.EINVAL
	}
	switch {
	case mode&^(keep|punch|collapse|zero|insert|unshare) != 0, mode&(punch|zero) == punch|zero, mode&(punch|keep) == punch:
		return 0, abi.EOPNOTSUPP
	case mode&collapse != 0 && mode != collapse, mode&insert != 0 && mode != insert, mode&unshare != 0 && mode&^(unshare|keep) != 0:
		return 0, abi.EINVAL
	}
	if !f.Writable() {
		return 0, abi.EBADF
	}
	at, err := f.Attr(t)
	if err != nil {
		return 0, err
	}
	switch at.Mode & abi.S_IFMT {
	case abi.S_IFREG:
	case abi.S_IFIFO:
		return 0, abi.ESPIPE
	case abi.S_IFDIR:
		return 0, abi.EISDIR
	default:
		return 0, abi.ENODEV
	}
	if off+length < 0 {
		return 0, abi.EFBIG
	}
	return 0, f.Ops().Allocate(t, f, mode, off, length)
}

func doSync(t *kernel.Task, fd int32, data bool) (uintptr, error) {
	f, err := openFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, f.Ops().Sync(t, f, data)
}

func sysFsync(t *kernel.Task, a kernel.Args) (uintptr, error)     { return doSync(t, a.FD(0), false) }
func sysFdatasync(t *kernel.Task, a kernel.Args) (uintptr, error) { return doSync(t, a.FD(0), true) }

func sysSync(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	theVFS(t).SyncAll(t)
	return 0, nil
}

func sysSyncfs(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if p := f.Path(); p.Valid() {
		return 0, p.Sync(t)
	}
	return 0, nil
}

func sysSyncFileRange(t *kernel.Task, a kernel.Args) (uintptr, error) {
	off, n := a.Int64(1), a.Int64(2)
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if a.Uint(3)&^abi.SYNC_FILE_RANGE_WRITE_AND_WAIT != 0 || off < 0 || n < 0 || off+n < off {
		return 0, abi.EINVAL
	}
	at, err := f.Attr(t)
	if err != nil {
		return 0, err
	}
	switch at.Mode & abi.S_IFMT {
	case abi.S_IFREG, abi.S_IFBLK, abi.S_IFDIR, abi.S_IFLNK:
	default:
		return 0, abi.ESPIPE
	}
	if at.IsRegular() {
		return 0, f.Ops().Sync(t, f, true)
	}
	return 0, nil
}

func sysFadvise64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if at, err := f.Attr(t); err == nil && at.Mode&abi.S_IFMT == abi.S_IFIFO {
		return 0, abi.ESPIPE
	}
	if a.Int64(2) < 0 || a.Uint(3) > abi.POSIX_FADV_NOREUSE {
		return 0, abi.EINVAL
	}
	return 0, nil // advice may be ignored
}

func sysReadahead(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if !f.Readable() {
		return 0, abi.EBADF
	}
	if at, err := f.Attr(t); err != nil || !at.IsRegular() {
		return 0, abi.EINVAL
	}
	return 0, nil
}
