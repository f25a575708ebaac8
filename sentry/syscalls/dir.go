package syscalls

import (
	"encoding/binary"
	"strings"
	"sync"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// dirCalls are the calls on directories and the names in them.
var dirCalls = []kernel.Row{
	{Nr: abi.SYS_getdents, Name: "getdents", Fn: sysGetdents, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_getdents64, Name: "getdents64", Fn: sysGetdents64, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_mkdir, Name: "mkdir", Fn: sysMkdir, Args: []kernel.ArgKind{kernel.PathArg, kernel.Oct}},
	{Nr: abi.SYS_mkdirat, Name: "mkdirat", Fn: sysMkdirat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Oct}},
	{Nr: abi.SYS_rmdir, Name: "rmdir", Fn: sysRmdir, Args: []kernel.ArgKind{kernel.PathArg}},
	{Nr: abi.SYS_unlink, Name: "unlink", Fn: sysUnlink, Args: []kernel.ArgKind{kernel.PathArg}},
	{Nr: abi.SYS_unlinkat, Name: "unlinkat", Fn: sysUnlinkat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.ATFlags}},
	{Nr: abi.SYS_rename, Name: "rename", Fn: sysRename, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg}},
	{Nr: abi.SYS_renameat, Name: "renameat", Fn: sysRenameat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.DirFD, kernel.PathArg}},
	{Nr: abi.SYS_renameat2, Name: "renameat2", Fn: sysRenameat2, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.DirFD, kernel.PathArg, kernel.Hex}},
	{Nr: abi.SYS_link, Name: "link", Fn: sysLink, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg}},
	{Nr: abi.SYS_linkat, Name: "linkat", Fn: sysLinkat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.DirFD, kernel.PathArg, kernel.ATFlags}},
	{Nr: abi.SYS_symlink, Name: "symlink", Fn: sysSymlink, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg}},
	{Nr: abi.SYS_symlinkat, Name: "symlinkat", Fn: sysSymlinkat, Args: []kernel.ArgKind{kernel.PathArg, kernel.DirFD, kernel.PathArg}},
	{Nr: abi.SYS_readlink, Name: "readlink", Fn: sysReadlink, Args: []kernel.ArgKind{kernel.PathArg, kernel.BufOut, kernel.UDec}},
	{Nr: abi.SYS_readlinkat, Name: "readlinkat", Fn: sysReadlinkat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.BufOut, kernel.UDec}},
	{Nr: abi.SYS_mknod, Name: "mknod", Fn: sysMknod, Args: []kernel.ArgKind{kernel.PathArg, kernel.Oct, kernel.Hex}},
	{Nr: abi.SYS_mknodat, Name: "mknodat", Fn: sysMknodat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Oct, kernel.Hex}},
	{Nr: abi.SYS_chdir, Name: "chdir", Fn: sysChdir, Args: []kernel.ArgKind{kernel.PathArg}},
	{Nr: abi.SYS_fchdir, Name: "fchdir", Fn: sysFchdir, Args: []kernel.ArgKind{kernel.FDArg}},
	{Nr: abi.SYS_getcwd, Name: "getcwd", Fn: sysGetcwd, Args: []kernel.ArgKind{kernel.BufOut, kernel.UDec}},
	{Nr: abi.SYS_chroot, Name: "chroot", Fn: sysChroot, Args: []kernel.ArgKind{kernel.PathArg}},
	{Nr: abi.SYS_umask, Name: "umask", Fn: sysUmask, Args: []kernel.ArgKind{kernel.Oct}},
}

// maxDirents bounds how many bytes of entries one getdents returns.
const maxDirents = 64 << 10

var direntPool = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

func sysGetdents64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return getdents(t, &a, func(b []byte, d *vfs.Dirent) []byte {
		n := (19 + len(d.Name) + 1 + 7) &^ 7
		b = binary.LittleEndian.AppendUint64(b, d.Ino)
		b = binary.LittleEndian.AppendUint64(b, uint64(d.Next))
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
		b = append(b, d.Type)
		b = append(b, d.Name...)
		return append(b, zeros[:n-19-len(d.Name)]...)
	})
}

func sysGetdents(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return getdents(t, &a, func(b []byte, d *vfs.Dirent) []byte {
		n := (18 + len(d.Name) + 2 + 7) &^ 7
		b = binary.LittleEndian.AppendUint64(b, d.Ino)
		b = binary.LittleEndian.AppendUint64(b, uint64(d.Next))
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
		b = append(b, d.Name...)
		b = append(b, zeros[:n-18-len(d.Name)-1]...)
		return append(b, d.Type) // the type is the record's last byte
	})
}

var zeros [16]byte

func getdents(t *kernel.Task, a *kernel.Args, put func(b []byte, d *vfs.Dirent) []byte) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if !f.IsDir() {
		return 0, abi.ENOTDIR
	}
	if f.Path().Dentry.Unlinked() {
		return 0, abi.ENOENT
	}
	room := int(min(uint64(a.Uint(2)), maxDirents))
	bp := direntPool.Get().(*[]byte)
	defer direntPool.Put(bp)
	b := (*bp)[:0]
	tooSmall := false
	err = f.ReadDir(t, func(d vfs.Dirent) bool {
		n := len(b)
		b = put(b, &d)
		if len(b) > room {
			b = b[:n]
			tooSmall = n == 0
			return false
		}
		return true
	})
	*bp = b[:0]
	if len(b) == 0 {
		if err == nil && tooSmall {
			err = abi.EINVAL
		}
		return 0, err
	}
	if _, err := t.Memory().CopyOut(a.Addr(1), b); err != nil {
		return 0, err
	}
	return uintptr(len(b)), nil
}

func sysMkdir(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return mkdirAt(t, abi.AT_FDCWD, a.Addr(0), a.Mode(1))
}

func sysMkdirat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return mkdirAt(t, a.FD(0), a.Addr(1), a.Mode(2))
}

func mkdirAt(t *kernel.Task, dirfd int32, addr usermem.Addr, mode uint16) (uintptr, error) {
	start, path, err := pathFrom(t, dirfd, addr)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Mkdir(t, start, path, mode)
}

func sysRmdir(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return removeAt(t, abi.AT_FDCWD, a.Addr(0), true)
}

func sysUnlink(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return removeAt(t, abi.AT_FDCWD, a.Addr(0), false)
}

func sysUnlinkat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(2)&^abi.AT_REMOVEDIR != 0 {
		return 0, abi.EINVAL
	}
	return removeAt(t, a.FD(0), a.Addr(1), a.Uint(2)&abi.AT_REMOVEDIR != 0)
}

func removeAt(t *kernel.Task, dirfd int32, addr usermem.Addr, dir bool) (uintptr, error) {
	start, path, err := pathFrom(t, dirfd, addr)
	if err != nil {
		return 0, err
	}
	if dir {
		return 0, theVFS(t).Rmdir(t, start, path)
	}
	return 0, theVFS(t).Unlink(t, start, path)
}

func sysRename(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return renameAt(t, abi.AT_FDCWD, a.Addr(0), abi.AT_FDCWD, a.Addr(1), 0)
}

func sysRenameat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return renameAt(t, a.FD(0), a.Addr(1), a.FD(2), a.Addr(3), 0)
}

func sysRenameat2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return renameAt(t, a.FD(0), a.Addr(1), a.FD(2), a.Addr(3), a.Uint(4))
}

func renameAt(t *kernel.Task, ofd int32, oaddr usermem.Addr, nfd int32, naddr usermem.Addr, flags uint32) (uintptr, error) {
	opath, err := pathAt(t, oaddr)
	if err != nil {
		return 0, err
	}
	npath, err := pathAt(t, naddr)
	if err != nil {
		return 0, err
	}
	ostart, err := vfs.Start(t, ofd, opath)
	if err != nil {
		return 0, err
	}
	nstart, err := vfs.Start(t, nfd, npath)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Rename(t, ostart, opath, nstart, npath, flags)
}

func sysLink(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return linkAt(t, abi.AT_FDCWD, a.Addr(0), abi.AT_FDCWD, a.Addr(1), 0)
}

func sysLinkat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return linkAt(t, a.FD(0), a.Addr(1), a.FD(2), a.Addr(3), a.Uint(4))
}

func linkAt(t *kernel.Task, ofd int32, oaddr usermem.Addr, nfd int32, naddr usermem.Addr, flags uint32) (uintptr, error) {
	if flags&^(abi.AT_SYMLINK_FOLLOW|abi.AT_EMPTY_PATH) != 0 {
		return 0, abi.EINVAL
	}
	fl := vfs.LookupFlags(0)
	if flags&abi.AT_EMPTY_PATH != 0 {
		fl |= vfs.AllowEmpty
	}
	if flags&abi.AT_SYMLINK_FOLLOW != 0 {
		fl |= vfs.Follow
	}
	opath, err := pathAt(t, oaddr)
	if err != nil {
		return 0, err
	}
	if opath == "" && flags&abi.AT_EMPTY_PATH != 0 && !t.Cred().Can(abi.CAP_DAC_READ_SEARCH) {
		return 0, abi.ENOENT
	}
	npath, err := pathAt(t, naddr)
	if err != nil {
		return 0, err
	}
	ostart, err := vfs.Start(t, ofd, opath)
	if err != nil {
		return 0, err
	}
	old, err := theVFS(t).Lookup(t, ostart, opath, fl)
	if err != nil {
		return 0, err
	}
	nstart, err := vfs.Start(t, nfd, npath)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Link(t, old, nstart, npath)
}

func sysSymlink(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return symlinkAt(t, a.Addr(0), abi.AT_FDCWD, a.Addr(1))
}

func sysSymlinkat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return symlinkAt(t, a.Addr(0), a.FD(1), a.Addr(2))
}

func symlinkAt(t *kernel.Task, target usermem.Addr, dirfd int32, addr usermem.Addr) (uintptr, error) {
	to, err := pathAt(t, target)
	if err != nil {
		return 0, err
	}
	if to == "" {
		return 0, abi.ENOENT
	}
	start, path, err := pathFrom(t, dirfd, addr)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Symlink(t, to, start, path)
}

func sysReadlink(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return readlinkAt(t, abi.AT_FDCWD, a.Addr(0), a.Addr(1), a.Int(2))
}

func sysReadlinkat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return readlinkAt(t, a.FD(0), a.Addr(1), a.Addr(2), a.Int(3))
}

func readlinkAt(t *kernel.Task, dirfd int32, addr, out usermem.Addr, size int32) (uintptr, error) {
	if size <= 0 {
		return 0, abi.EINVAL
	}
	start, path, err := pathFrom(t, dirfd, addr)
	if err != nil {
		return 0, err
	}
	p, err := theVFS(t).Lookup(t, start, path, vfs.AllowEmpty)
	if err != nil {
		return 0, err
	}
	// An empty path means the descriptor itself, which must be a link's.
	if path == "" && (dirfd == abi.AT_FDCWD || p.Dentry.Type() != abi.S_IFLNK) {
		return 0, abi.ENOENT
	}
	s, err := p.Readlink(t)
	if err != nil {
		return 0, err
	}
	s = s[:min(len(s), int(size))]
	if _, err := t.Memory().CopyOut(out, []byte(s)); err != nil {
		return 0, err
	}
	return uintptr(len(s)), nil
}

func sysMknod(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return mknodAt(t, abi.AT_FDCWD, a.Addr(0), a.Mode(1), a.Uint(2))
}

func sysMknodat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return mknodAt(t, a.FD(0), a.Addr(1), a.Mode(2), a.Uint(3))
}

func mknodAt(t *kernel.Task, dirfd int32, addr usermem.Addr, mode uint16, dev uint32) (uintptr, error) {
	start, path, err := pathFrom(t, dirfd, addr)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Mknod(t, start, path, mode, uint64(dev))
}

func sysChdir(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow|vfs.WantDir)
	if err != nil {
		return 0, err
	}
	if err := p.Access(t, vfs.MayExec); err != nil {
		return 0, err
	}
	t.FSContext().SetCwd(p)
	return 0, nil
}

func sysFchdir(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := anyFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if !f.IsDir() {
		return 0, abi.ENOTDIR
	}
	if err := f.Path().Access(t, vfs.MayExec); err != nil {
		return 0, err
	}
	t.FSContext().SetCwd(f.Path())
	return 0, nil
}

func sysGetcwd(t *kernel.Task, a kernel.Args) (uintptr, error) {
	root, cwd := t.FSContext().Paths()
	if cwd.Dentry.Unlinked() {
		return 0, abi.ENOENT
	}
	name, ok := cwd.Reachable(root)
	if !ok {
		name = "(unreachable)" + name
	}
	if strings.IndexByte(name, 0) >= 0 {
		return 0, abi.EIO
	}
	b := append([]byte(name), 0)
	if len(b) > abi.PATH_MAX {
		return 0, abi.ENAMETOOLONG
	}
	if uint64(len(b)) > a.Size(1) {
		return 0, abi.ERANGE
	}
	if _, err := t.Memory().CopyOut(a.Addr(0), b); err != nil {
		return 0, err
	}
	return uintptr(len(b)), nil
}

func sysChroot(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow|vfs.WantDir)
	if err != nil {
		return 0, err
	}
	if err := p.Access(t, vfs.MayExec); err != nil {
		return 0, err
	}
	if !t.Cred().Can(abi.CAP_SYS_CHROOT) {
		return 0, abi.EPERM
	}
	t.FSContext().SetRoot(p)
	return 0, nil
}

func sysUmask(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return uintptr(t.FSContext().SetUmask(a.Mode(0))), nil
}
