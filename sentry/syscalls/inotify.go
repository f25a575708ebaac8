package syscalls

import (
	"garrison/abi"
	"garrison/sentry/fs/inotify"
	"garrison/sentry/kernel"
	"garrison/sentry/vfs"
)

// inotifyCalls are inotify(7).
var inotifyCalls = []kernel.Row{
	{Nr: abi.SYS_inotify_init, Name: "inotify_init", Fn: sysInotifyInit},
	{Nr: abi.SYS_inotify_init1, Name: "inotify_init1", Fn: sysInotifyInit1, Args: []kernel.ArgKind{kernel.Hex}},
	{Nr: abi.SYS_inotify_add_watch, Name: "inotify_add_watch", Fn: sysInotifyAddWatch, Args: []kernel.ArgKind{kernel.FDArg, kernel.PathArg, kernel.Hex}},
	{Nr: abi.SYS_inotify_rm_watch, Name: "inotify_rm_watch", Fn: sysInotifyRmWatch, Args: []kernel.ArgKind{kernel.FDArg, kernel.Dec}},
}

func sysInotifyInit(t *kernel.Task, _ kernel.Args) (uintptr, error) { return newInotify(t, 0) }

func sysInotifyInit1(t *kernel.Task, a kernel.Args) (uintptr, error) { return newInotify(t, a.Uint(0)) }

func newInotify(t *kernel.Task, flags uint32) (uintptr, error) {
	if flags&^(abi.IN_CLOEXEC|abi.IN_NONBLOCK) != 0 {
		return 0, abi.EINVAL
	}
	f := vfs.NewAnonFile(inotify.New(), abi.O_RDONLY|flags&abi.IN_NONBLOCK, "anon_inode:inotify")
	return installFile(t, f, flags&abi.IN_CLOEXEC != 0)
}

// inotifyOf gets the instance behind a descriptor: EBADF, EINVAL.
func inotifyOf(t *kernel.Task, fd int32) (*vfs.File, *inotify.Instance, error) {
	f, err := openFile(t, fd)
	if err != nil {
		return nil, nil, err
	}
	n, ok := f.Ops().(*inotify.Instance)
	if !ok {
		f.DecRef()
		return nil, nil, abi.EINVAL
	}
	return f, n, nil
}

func sysInotifyAddWatch(t *kernel.Task, a kernel.Args) (uintptr, error) {
	mask := a.Uint(2)
	const all = abi.IN_ALL_EVENTS | abi.IN_UNMOUNT | abi.IN_Q_OVERFLOW | abi.IN_IGNORED | abi.IN_ONLYDIR | abi.IN_DONT_FOLLOW |
		abi.IN_EXCL_UNLINK | abi.IN_MASK_CREATE | abi.IN_MASK_ADD | abi.IN_ISDIR | abi.IN_ONESHOT
	if mask&all == 0 || mask&^uint32(all) != 0 {
		return 0, abi.EINVAL
	}
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if mask&(abi.IN_MASK_ADD|abi.IN_MASK_CREATE) == abi.IN_MASK_ADD|abi.IN_MASK_CREATE {
		return 0, abi.EINVAL
	}
	n, ok := f.Ops().(*inotify.Instance)
	if !ok {
		return 0, abi.EINVAL
	}
	fl := vfs.LookupFlags(0)
	if mask&abi.IN_DONT_FOLLOW == 0 {
		fl |= vfs.Follow
	}
	if mask&abi.IN_ONLYDIR != 0 {
		fl |= vfs.WantDir
	}
	p, err := lookup(t, abi.AT_FDCWD, a.Addr(1), fl)
	if err != nil {
		return 0, err
	}
	if err := p.Access(t, vfs.MayRead); err != nil {
		return 0, err
	}
	wd, err := n.Add(p.Inode(), mask)
	return uintptr(wd), err
}

func sysInotifyRmWatch(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, n, err := inotifyOf(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, n.Remove(a.Int(1))
}
