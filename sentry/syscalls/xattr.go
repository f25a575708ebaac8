package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// xattrCalls are the calls on extended attributes (xattr(7)).
var xattrCalls = []kernel.Row{
	{Nr: abi.SYS_getxattr, Name: "getxattr", Fn: sysGetxattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_lgetxattr, Name: "lgetxattr", Fn: sysLgetxattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_fgetxattr, Name: "fgetxattr", Fn: sysFgetxattr, Args: []kernel.ArgKind{kernel.FDArg, kernel.PathArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_setxattr, Name: "setxattr", Fn: sysSetxattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg, kernel.BufIn, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_lsetxattr, Name: "lsetxattr", Fn: sysLsetxattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg, kernel.BufIn, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_fsetxattr, Name: "fsetxattr", Fn: sysFsetxattr, Args: []kernel.ArgKind{kernel.FDArg, kernel.PathArg, kernel.BufIn, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_listxattr, Name: "listxattr", Fn: sysListxattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_llistxattr, Name: "llistxattr", Fn: sysLlistxattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_flistxattr, Name: "flistxattr", Fn: sysFlistxattr, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_removexattr, Name: "removexattr", Fn: sysRemovexattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg}},
	{Nr: abi.SYS_lremovexattr, Name: "lremovexattr", Fn: sysLremovexattr, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg}},
	{Nr: abi.SYS_fremovexattr, Name: "fremovexattr", Fn: sysFremovexattr, Args: []kernel.ArgKind{kernel.FDArg, kernel.PathArg}},
}

// fdPath is the path of an open file that has attributes.
func fdPath(t *kernel.Task, fd int32) (vfs.Path, error) {
	f, err := openFile(t, fd)
	if err != nil {
		return vfs.Path{}, err
	}
	p := f.Path()
	f.DecRef()
	if !p.Valid() {
		return p, abi.EOPNOTSUPP
	}
	return p, nil
}

// xattrName reads an attribute's name: ERANGE if it is empty or too long.
func xattrName(t *kernel.Task, addr usermem.Addr) (string, error) {
	s, err := t.Memory().CopyInString(addr, abi.XATTR_NAME_MAX+1)
	if err == abi.ENAMETOOLONG || err == nil && s == "" {
		return "", abi.ERANGE
	}
	return s, err
}

func getxattr(t *kernel.Task, p vfs.Path, name, out usermem.Addr, size uint64) (uintptr, error) {
	n, err := xattrName(t, name)
	if err != nil {
		return 0, err
	}
	v, err := p.GetXattr(t, n)
	if err != nil {
		return 0, err
	}
	return putSized(t, v, out, size)
}

// putSized returns data in a buffer; a size of zero asks how large it must be.
func putSized(t *kernel.Task, v []byte, out usermem.Addr, size uint64) (uintptr, error) {
	if size == 0 {
		return uintptr(len(v)), nil
	}
	if uint64(len(v)) > size {
		return 0, abi.ERANGE
	}
	if _, err := t.Memory().CopyOut(out, v); err != nil {
		return 0, err
	}
	return uintptr(len(v)), nil
}

func setxattr(t *kernel.Task, find func() (vfs.Path, error), a *kernel.Args) (uintptr, error) {
	flags := a.Uint(4)
	if flags&^(abi.XATTR_CREATE|abi.XATTR_REPLACE) != 0 {
		return 0, abi.EINVAL
	}
	name, err := xattrName(t, a.Addr(1))
	if err != nil {
		return 0, err
	}
	if a.Size(3) > abi.XATTR_SIZE_MAX {
		return 0, abi.E2BIG
	}
	v := make([]byte, a.Size(3))
	if _, err := t.Memory().CopyIn(a.Addr(2), v); err != nil {
		return 0, err
	}
	p, err := find()
	if err != nil {
		return 0, err
	}
	return 0, p.SetXattr(t, name, v, int(flags))
}

func listxattr(t *kernel.Task, p vfs.Path, out usermem.Addr, size uint64) (uintptr, error) {
	l, err := p.ListXattr(t)
	if err != nil {
		return 0, err
	}
	var b []byte
	for _, n := range l {
		b = append(append(b, n...), 0)
	}
	if len(b) > abi.XATTR_LIST_MAX {
		return 0, abi.E2BIG
	}
	return putSized(t, b, out, size)
}

func removexattr(t *kernel.Task, find func() (vfs.Path, error), name usermem.Addr) (uintptr, error) {
	n, err := xattrName(t, name)
	if err != nil {
		return 0, err
	}
	p, err := find()
	if err != nil {
		return 0, err
	}
	return 0, p.RemoveXattr(t, n)
}

func xattrPath(t *kernel.Task, a *kernel.Args, fl vfs.LookupFlags) func() (vfs.Path, error) {
	return func() (vfs.Path, error) { return lookup(t, abi.AT_FDCWD, a.Addr(0), fl) }
}

func xattrFD(t *kernel.Task, a *kernel.Args) func() (vfs.Path, error) {
	return func() (vfs.Path, error) { return fdPath(t, a.FD(0)) }
}

func sysGetxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow)
	if err != nil {
		return 0, err
	}
	return getxattr(t, p, a.Addr(1), a.Addr(2), a.Size(3))
}

func sysLgetxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), 0)
	if err != nil {
		return 0, err
	}
	return getxattr(t, p, a.Addr(1), a.Addr(2), a.Size(3))
}

func sysFgetxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := fdPath(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	return getxattr(t, p, a.Addr(1), a.Addr(2), a.Size(3))
}

func sysSetxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return setxattr(t, xattrPath(t, &a, vfs.Follow), &a)
}

func sysLsetxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return setxattr(t, xattrPath(t, &a, 0), &a)
}

func sysFsetxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return setxattr(t, xattrFD(t, &a), &a)
}

func sysListxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow)
	if err != nil {
		return 0, err
	}
	return listxattr(t, p, a.Addr(1), a.Size(2))
}

func sysLlistxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), 0)
	if err != nil {
		return 0, err
	}
	return listxattr(t, p, a.Addr(1), a.Size(2))
}

func sysFlistxattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	p, err := fdPath(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	return listxattr(t, p, a.Addr(1), a.Size(2))
}

func sysRemovexattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return removexattr(t, xattrPath(t, &a, vfs.Follow), a.Addr(1))
}

func sysLremovexattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return removexattr(t, xattrPath(t, &a, 0), a.Addr(1))
}

func sysFremovexattr(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return removexattr(t, xattrFD(t, &a), a.Addr(1))
}
