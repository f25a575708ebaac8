package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// mountCalls are mount(2), umount2(2), pivot_root(2).
var mountCalls = []kernel.Row{
	{Nr: abi.SYS_mount, Name: "mount", Fn: sysMount, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg, kernel.PathArg, kernel.MountFlags, kernel.Ptr},
		Support: kernel.Partial, Note: "mounts do not propagate: MS_SHARED is refused with EINVAL"},
	{Nr: abi.SYS_umount2, Name: "umount2", Fn: sysUmount2, Args: []kernel.ArgKind{kernel.PathArg, kernel.Hex}},
	{Nr: abi.SYS_pivot_root, Name: "pivot_root", Fn: sysPivotRoot, Args: []kernel.ArgKind{kernel.PathArg, kernel.PathArg}},
}

// optionalString reads a string argument that may be null.
func optionalString(t *kernel.Task, addr usermem.Addr) (string, error) {
	if addr == 0 {
		return "", nil
	}
	return t.Memory().CopyInString(addr, abi.PATH_MAX)
}

func sysMount(t *kernel.Task, a kernel.Args) (uintptr, error) {
	fstype, err := optionalString(t, a.Addr(2))
	if err != nil {
		return 0, err
	}
	source, err := optionalString(t, a.Addr(0))
	if err != nil {
		return 0, err
	}
	flags := uint32(a.Uint64(3))
	data := ""
	if flags&(abi.MS_BIND|abi.MS_MOVE) == 0 {
		if data, err = optionalString(t, a.Addr(4)); err != nil {
			return 0, err
		}
	}
	target, err := lookup(t, abi.AT_FDCWD, a.Addr(1), vfs.Follow)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Mount(t, source, target, fstype, flags, data)
}

func sysUmount2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a.Uint(1)
	if flags&^(abi.MNT_FORCE|abi.MNT_DETACH|abi.MNT_EXPIRE|abi.UMOUNT_NOFOLLOW) != 0 {
		return 0, abi.EINVAL
	}
	fl := vfs.Follow
	if flags&abi.UMOUNT_NOFOLLOW != 0 {
		fl = 0
	}
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(0), fl)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).Unmount(t, p, flags)
}

func sysPivotRoot(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if !t.Cred().Can(abi.CAP_SYS_ADMIN) {
		return 0, abi.EPERM
	}
	n, err := lookup(t, abi.AT_FDCWD, a.Addr(0), vfs.Follow|vfs.WantDir)
	if err != nil {
		return 0, err
	}
	o, err := lookup(t, abi.AT_FDCWD, a.Addr(1), vfs.Follow|vfs.WantDir)
	if err != nil {
		return 0, err
	}
	return 0, theVFS(t).PivotRoot(t, n, o)
}
