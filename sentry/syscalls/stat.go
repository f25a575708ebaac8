package syscalls

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// statCalls are stat(2), statx(2), statfs(2), access(2).
var statCalls = []kernel.Row{
	{Nr: abi.SYS_stat, Name: "stat", Fn: sysStat, Args: []kernel.ArgKind{kernel.PathArg, kernel.StatOut}},
	{Nr: abi.SYS_lstat, Name: "lstat", Fn: sysLstat, Args: []kernel.ArgKind{kernel.PathArg, kernel.StatOut}},
	{Nr: abi.SYS_fstat, Name: "fstat", Fn: sysFstat, Args: []kernel.ArgKind{kernel.FDArg, kernel.StatOut}},
	{Nr: abi.SYS_newfstatat, Name: "newfstatat", Fn: sysNewfstatat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.StatOut, kernel.ATFlags}},
	{Nr: abi.SYS_statx, Name: "statx", Fn: sysStatx, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.ATFlags, kernel.Hex, kernel.StatxOut}},
	{Nr: abi.SYS_statfs, Name: "statfs", Fn: sysStatfs, Args: []kernel.ArgKind{kernel.PathArg, kernel.Ptr}},
	{Nr: abi.SYS_fstatfs, Name: "fstatfs", Fn: sysFstatfs, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr}},
	{Nr: abi.SYS_ustat, Name: "ustat", Support: kernel.Refused, Errno: abi.ENOSYS, Note: "obsolete: statfs has taken its place"},
	{Nr: abi.SYS_access, Name: "access", Fn: sysAccess, Args: []kernel.ArgKind{kernel.PathArg, kernel.AccessMode}},
	{Nr: abi.SYS_faccessat, Name: "faccessat", Fn: sysFaccessat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.AccessMode}},
	{Nr: abi.SYS_faccessat2, Name: "faccessat2", Fn: sysFaccessat2, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.AccessMode, kernel.ATFlags}},
}

// attrAt is stat of a path, with the AT_* flags that stat calls have.
func attrAt(t *kernel.Task, dirfd int32, addr usermem.Addr, flags uint32) (vfs.Attr, vfs.Path, error) {
	path, err := pathAt(t, addr)
	if err != nil {
		return vfs.Attr{}, vfs.Path{}, err
	}
	if path == "" && flags&abi.AT_EMPTY_PATH != 0 && dirfd != abi.AT_FDCWD {
		return attrOf(t, dirfd)
	}
	start, err := vfs.Start(t, dirfd, path)
	if err != nil {
		return vfs.Attr{}, vfs.Path{}, err
	}
	fl := vfs.LookupFlags(0)
	if flags&abi.AT_SYMLINK_NOFOLLOW == 0 {
		fl |= vfs.Follow
	}
	if flags&abi.AT_EMPTY_PATH != 0 {
		fl |= vfs.AllowEmpty
	}
	p, err := theVFS(t).Lookup(t, start, path, fl)
	if err != nil {
		return vfs.Attr{}, vfs.Path{}, err
	}
	a, err := p.Attr(t)
	return a, p, err
}

// attrOf is fstat.
func attrOf(t *kernel.Task, fd int32) (vfs.Attr, vfs.Path, error) {
	f, err := anyFile(t, fd)
	if err != nil {
		return vfs.Attr{}, vfs.Path{}, err
	}
	a, err := f.Attr(t)
	p := f.Path()
	f.DecRef()
	return a, p, err
}

var statPool = sync.Pool{New: func() any { return new([abi.SizeofStatx]byte) }}

// putStat writes a as struct stat.
func putStat(t *kernel.Task, a *vfs.Attr, addr usermem.Addr) error {
	s := abi.Stat{
		Dev: a.Dev, Ino: a.Ino, Nlink: uint64(a.Nlink), Mode: uint32(a.Mode), UID: uint32(a.UID), GID: uint32(a.GID),
		Rdev: a.Rdev, Size: int64(a.Size), Blksize: int64(a.BlkSize), Blocks: int64(a.Blocks),
		Atime: abi.NsToTimespec(a.Atime), Mtime: abi.NsToTimespec(a.Mtime), Ctime: abi.NsToTimespec(a.Ctime),
	}
	raw := statPool.Get().(*[abi.SizeofStatx]byte)
	s.MarshalTo(raw[:abi.SizeofStat])
	_, err := t.Memory().CopyOut(addr, raw[:abi.SizeofStat])
	statPool.Put(raw)
	return err
}

func doStat(t *kernel.Task, dirfd int32, path, out usermem.Addr, flags uint32) (uintptr, error) {
	a, _, err := attrAt(t, dirfd, path, flags)
	if err != nil {
		return 0, err
	}
	return 0, putStat(t, &a, out)
}

func sysStat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return doStat(t, abi.AT_FDCWD, a.Addr(0), a.Addr(1), 0)
}

func sysLstat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return doStat(t, abi.AT_FDCWD, a.Addr(0), a.Addr(1), abi.AT_SYMLINK_NOFOLLOW)
}

func sysFstat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	at, _, err := attrOf(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	return 0, putStat(t, &at, a.Addr(1))
}

func sysNewfstatat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a.Uint(3)
	if flags&^(abi.AT_SYMLINK_NOFOLLOW|abi.AT_NO_AUTOMOUNT|abi.AT_EMPTY_PATH|abi.AT_STATX_SYNC_TYPE) != 0 {
		return 0, abi.EINVAL
	}
	return doStat(t, a.FD(0), a.Addr(1), a.Addr(2), flags)
}

func sysStatx(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags, mask := a.Uint(2), a.Uint(3)
	if mask&abi.STATX__RESERVED != 0 || flags&abi.AT_STATX_SYNC_TYPE == abi.AT_STATX_SYNC_TYPE ||
		flags&^(abi.AT_SYMLINK_NOFOLLOW|abi.AT_NO_AUTOMOUNT|abi.AT_EMPTY_PATH|abi.AT_STATX_SYNC_TYPE) != 0 {
		return 0, abi.EINVAL
	}
	at, p, err := attrAt(t, a.FD(0), a.Addr(1), flags)
	if err != nil {
		return 0, err
	}
	s := abi.Statx{
		Mask: abi.STATX_BASIC_STATS | abi.STATX_MNT_ID, Blksize: at.BlkSize, Attributes: at.Attributes,
		Nlink: at.Nlink, UID: uint32(at.UID), GID: uint32(at.GID), Mode: at.Mode,
		Ino: at.Ino, Size: at.Size, Blocks: at.Blocks, AttributesMask: abi.STATX_ATTR_MOUNT_ROOT | at.Attributes,
		Atime: statxTime(at.Atime), Mtime: statxTime(at.Mtime), Ctime: statxTime(at.Ctime),
		RdevMajor: vfs.DevMajor(at.Rdev), RdevMinor: vfs.DevMinor(at.Rdev),
		DevMajor: vfs.DevMajor(at.Dev), DevMinor: vfs.DevMinor(at.Dev), MntID: p.MountID(),
	}
	if at.HasBtime {
		s.Mask |= abi.STATX_BTIME
		s.Btime = statxTime(at.Btime)
	}
	if p.IsMountRoot() {
		s.Attributes |= abi.STATX_ATTR_MOUNT_ROOT
	}
	raw := statPool.Get().(*[abi.SizeofStatx]byte)
	s.MarshalTo(raw[:])
	_, err = t.Memory().CopyOut(a.Addr(4), raw[:])
	statPool.Put(raw)
	return 0, err
}

func statxTime(ns int64) abi.StatxTimestamp {
	ts := abi.NsToTimespec(ns)
	return abi.StatxTimestamp{Sec: ts.Sec, Nsec: uint32(ts.Nsec)}
}

func putStatfs(t *kernel.Task, p vfs.Path, addr usermem.Addr) (uintptr, error) {
	s, err := p.Statfs(t)
	if err != nil {
		return 0, err
	}
	var raw [abi.SizeofStatfs]byte
	s.MarshalTo(raw[:])
	_, err = t.Memory().CopyOut(addr, raw[:])
	return 0, err
}

func sysStatfs(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow)
	if err != nil {
		return 0, err
	}
	return putStatfs(t, p, a.Addr(1))
}

func sysFstatfs(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := anyFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if p := f.Path(); p.Valid() {
		return putStatfs(t, p, a.Addr(1))
	}
	at, err := f.Attr(t)
	if err != nil {
		return 0, err
	}
	s := abi.Statfs{Type: 0x09041934, Bsize: 4096, Frsize: 4096, Namelen: abi.NAME_MAX, Flags: abi.ST_VALID}
	switch at.Mode & abi.S_IFMT {
	case abi.S_IFIFO:
		s.Type = abi.PIPEFS_MAGIC
	case abi.S_IFSOCK:
		s.Type = abi.SOCKFS_MAGIC
	}
	var raw [abi.SizeofStatfs]byte
	s.MarshalTo(raw[:])
	_, err = t.Memory().CopyOut(a.Addr(1), raw[:])
	return 0, err
}

func sysAccess(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, access(t, abi.AT_FDCWD, a.Addr(0), a.Uint(1), 0)
}

func sysFaccessat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, access(t, a.FD(0), a.Addr(1), a.Uint(2), 0)
}

func sysFaccessat2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, access(t, a.FD(0), a.Addr(1), a.Uint(2), a.Uint(3))
}

func access(t *kernel.Task, dirfd int32, addr usermem.Addr, mode, flags uint32) error {
	if mode&^7 != 0 || flags&^(abi.AT_EACCESS|abi.AT_SYMLINK_NOFOLLOW|abi.AT_EMPTY_PATH) != 0 {
		return abi.EINVAL
	}
	start, path, err := pathFrom(t, dirfd, addr)
	if err != nil {
		return err
	}
	fl := vfs.Follow
	if flags&abi.AT_SYMLINK_NOFOLLOW != 0 {
		fl = 0
	}
	if flags&abi.AT_EMPTY_PATH != 0 {
		fl |= vfs.AllowEmpty
	}
	c := t.Cred()
	if flags&abi.AT_EACCESS == 0 && (c.RUID != c.FSUID || c.RGID != c.FSGID || c.RUID != 0 || c.Effective != c.Permitted) {
		// access(2): with the real ids, and the capabilities that go with them.
		r := c.Clone()
		r.FSUID, r.FSGID = c.RUID, c.RGID
		if c.RUID == 0 {
			r.Effective = r.Permitted
		} else {
			r.Effective = 0
		}
		c = r
	}
	return theVFS(t).CheckAccess(t, c, start, path, fl, mode)
}
