package syscalls

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/fs/pipe"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// fdCalls are the calls on descriptors: open(2) and close(2), dup(2), fcntl(2),
// ioctl(2), memfd_create(2).
var fdCalls = []kernel.Row{
	{Nr: abi.SYS_open, Name: "open", Fn: sysOpen, Args: []kernel.ArgKind{kernel.PathArg, kernel.OpenFlags, kernel.Oct}},
	{Nr: abi.SYS_openat, Name: "openat", Fn: sysOpenat, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.OpenFlags, kernel.Oct}},
	{Nr: abi.SYS_openat2, Name: "openat2", Fn: sysOpenat2, Args: []kernel.ArgKind{kernel.DirFD, kernel.PathArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_creat, Name: "creat", Fn: sysCreat, Args: []kernel.ArgKind{kernel.PathArg, kernel.Oct}},
	{Nr: abi.SYS_close, Name: "close", Fn: sysClose, Args: []kernel.ArgKind{kernel.FDArg}},
	{Nr: abi.SYS_close_range, Name: "close_range", Fn: sysCloseRange, Args: []kernel.ArgKind{kernel.UDec, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_dup, Name: "dup", Fn: sysDup, Args: []kernel.ArgKind{kernel.FDArg}},
	{Nr: abi.SYS_dup2, Name: "dup2", Fn: sysDup2, Args: []kernel.ArgKind{kernel.FDArg, kernel.FDArg}},
	{Nr: abi.SYS_dup3, Name: "dup3", Fn: sysDup3, Args: []kernel.ArgKind{kernel.FDArg, kernel.FDArg, kernel.OpenFlags}},
	{Nr: abi.SYS_fcntl, Name: "fcntl", Fn: sysFcntl, Args: []kernel.ArgKind{kernel.FDArg, kernel.FcntlCmd, kernel.Hex},
		Support: kernel.Partial, Note: "no leases (F_SETLEASE) and no F_NOTIFY"},
	{Nr: abi.SYS_ioctl, Name: "ioctl", Fn: sysIoctl, Args: []kernel.ArgKind{kernel.FDArg, kernel.IoctlCmd, kernel.Hex}},
	{Nr: abi.SYS_memfd_create, Name: "memfd_create", Fn: sysMemfdCreate, Args: []kernel.ArgKind{kernel.PathArg, kernel.Hex},
		Support: kernel.Partial, Note: "MFD_HUGETLB is refused with EINVAL"},
	{Nr: abi.SYS_name_to_handle_at, Name: "name_to_handle_at", Support: kernel.Refused, Errno: abi.EOPNOTSUPP, Note: "file handles do not exist here"},
	{Nr: abi.SYS_open_by_handle_at, Name: "open_by_handle_at", Support: kernel.Refused, Errno: abi.EPERM, Note: "file handles do not exist here"},
}

// pathAt reads a path argument: EFAULT, ENAMETOOLONG.
func pathAt(t *kernel.Task, a usermem.Addr) (string, error) {
	return t.Memory().CopyInString(a, abi.PATH_MAX)
}

// pathFrom reads a path argument and finds the directory it starts from.
func pathFrom(t *kernel.Task, dirfd int32, a usermem.Addr) (vfs.Path, string, error) {
	path, err := pathAt(t, a)
	if err != nil {
		return vfs.Path{}, "", err
	}
	start, err := vfs.Start(t, dirfd, path)
	return start, path, err
}

// lookup walks the path argument a.
func lookup(t *kernel.Task, dirfd int32, a usermem.Addr, fl vfs.LookupFlags) (vfs.Path, error) {
	start, path, err := pathFrom(t, dirfd, a)
	if err != nil {
		return vfs.Path{}, err
	}
	return theVFS(t).Lookup(t, start, path, fl)
}

func theVFS(t *kernel.Task) *vfs.VFS { return t.FSContext().VFS() }

// anyFile gets the open file of fd, O_PATH ones too; the caller drops it.
func anyFile(t *kernel.Task, fd int32) (*vfs.File, error) {
	f := t.FDTable().Get(fd)
	if f == nil {
		return nil, abi.EBADF
	}
	return f, nil
}

// openFile gets the open file of fd; one opened with O_PATH is none (open(2)).
func openFile(t *kernel.Task, fd int32) (*vfs.File, error) {
	f := t.FDTable().Get(fd)
	if f == nil {
		return nil, abi.EBADF
	}
	if f.PathOnly() {
		f.DecRef()
		return nil, abi.EBADF
	}
	return f, nil
}

// fdLimit is RLIMIT_NOFILE.
func fdLimit(t *kernel.Task) uint64 { return t.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE) }

// installFile gives f a descriptor; on failure f is released.
func installFile(t *kernel.Task, f *vfs.File, cloexec bool) (uintptr, error) {
	fd, err := t.FDTable().NewFD(f, 0, fdLimit(t), cloexec)
	if err != nil {
		f.DecRef()
		return 0, err
	}
	return uintptr(fd), nil
}

func doOpen(t *kernel.Task, dirfd int32, a usermem.Addr, how vfs.OpenHow) (uintptr, error) {
	start, path, err := pathFrom(t, dirfd, a)
	if err != nil {
		return 0, err
	}
	if err := t.FDTable().Room(fdLimit(t)); err != nil {
		return 0, err
	}
	f, err := theVFS(t).Open(t, start, path, how)
	if err != nil {
		return 0, err
	}
	return installFile(t, f, how.Flags&abi.O_CLOEXEC != 0)
}

// openFlags are the flags that open(2) knows; it ignores others.
const openFlags = abi.O_ACCMODE | abi.O_CREAT | abi.O_EXCL | abi.O_NOCTTY | abi.O_TRUNC | abi.O_APPEND | abi.O_NONBLOCK |
	abi.O_SYNC | abi.O_DSYNC | abi.O_ASYNC | abi.O_DIRECT | abi.O_LARGEFILE | abi.O_DIRECTORY | abi.O_NOFOLLOW |
	abi.O_NOATIME | abi.O_CLOEXEC | abi.O_PATH | abi.O_TMPFILE

func openHow(flags uint32, mode uint16) vfs.OpenHow {
	how := vfs.OpenHow{Flags: flags & openFlags}
	if flags&(abi.O_CREAT|abi.O_TMPFILE&^abi.O_DIRECTORY) != 0 {
		how.Mode = mode & 07777
	}
	return how
}

func sysOpen(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return doOpen(t, abi.AT_FDCWD, a.Addr(0), openHow(a.Uint(1), a.Mode(2)))
}

func sysOpenat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return doOpen(t, a.FD(0), a.Addr(1), openHow(a.Uint(2), a.Mode(3)))
}

func sysCreat(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return doOpen(t, abi.AT_FDCWD, a.Addr(0), openHow(abi.O_CREAT|abi.O_WRONLY|abi.O_TRUNC, a.Mode(1)))
}

// sizeofOpenHow is struct open_how (uapi/linux/openat2.h): flags, mode, resolve.
const sizeofOpenHow = 24

func sysOpenat2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	size := a.Size(3)
	if size < sizeofOpenHow {
		return 0, abi.EINVAL
	}
	if size > usermem.PageSize {
		return 0, abi.E2BIG
	}
	raw := make([]byte, size)
	if _, err := t.Memory().CopyIn(a.Addr(2), raw); err != nil {
		return 0, err
	}
	for _, b := range raw[sizeofOpenHow:] {
		if b != 0 {
			return 0, abi.E2BIG
		}
	}
	flags, mode, resolve := le64(raw), le64(raw[8:]), le64(raw[16:])
	const known = abi.RESOLVE_NO_XDEV | abi.RESOLVE_NO_MAGICLINKS | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_BENEATH |
		abi.RESOLVE_IN_ROOT | abi.RESOLVE_CACHED
	if flags&^openFlags != 0 || resolve&^known != 0 || resolve&abi.RESOLVE_BENEATH != 0 && resolve&abi.RESOLVE_IN_ROOT != 0 {
		return 0, abi.EINVAL
	}
	how := vfs.OpenHow{Flags: uint32(flags), Mode: uint16(mode)}
	if flags&(abi.O_CREAT|abi.O_TMPFILE&^abi.O_DIRECTORY) != 0 {
		if mode&^07777 != 0 {
			return 0, abi.EINVAL
		}
	} else if mode != 0 {
		return 0, abi.EINVAL
	}
	if flags&abi.O_PATH != 0 && flags&^(abi.O_PATH|abi.O_DIRECTORY|abi.O_NOFOLLOW|abi.O_CLOEXEC) != 0 {
		return 0, abi.EINVAL
	}
	for _, x := range [...]struct {
		bit uint64
		fl  vfs.LookupFlags
	}{{abi.RESOLVE_NO_XDEV, vfs.NoXdev}, {abi.RESOLVE_NO_MAGICLINKS, vfs.NoMagicLinks}, {abi.RESOLVE_NO_SYMLINKS, vfs.NoSymlinks},
		{abi.RESOLVE_BENEATH, vfs.Beneath}, {abi.RESOLVE_IN_ROOT, vfs.InRoot}, {abi.RESOLVE_CACHED, vfs.CachedOnly}} {
		if resolve&x.bit != 0 {
			how.Resolve |= x.fl
		}
	}
	if resolve&abi.RESOLVE_CACHED != 0 && flags&(abi.O_TRUNC|abi.O_CREAT|abi.O_TMPFILE&^abi.O_DIRECTORY) != 0 {
		return 0, abi.EAGAIN
	}
	if resolve&(abi.RESOLVE_BENEATH|abi.RESOLVE_IN_ROOT) != 0 {
		// Here an absolute path does start from dirfd, which must be valid.
		path, err := pathAt(t, a.Addr(1))
		if err != nil {
			return 0, err
		}
		start, err := vfs.Start(t, a.FD(0), "")
		if err != nil {
			return 0, err
		}
		f, err := theVFS(t).Open(t, start, path, how)
		if err != nil {
			return 0, err
		}
		return installFile(t, f, flags&abi.O_CLOEXEC != 0)
	}
	return doOpen(t, a.FD(0), a.Addr(1), how)
}

func le64(b []byte) uint64 {
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

func sysClose(t *kernel.Task, a kernel.Args) (uintptr, error) {
	err := t.FDTable().Close(t, a.FD(0))
	switch err {
	case abi.ERESTARTSYS, abi.ERESTARTNOINTR, abi.ERESTARTNOHAND, abi.ERESTART_RESTARTBLOCK:
		err = abi.EINTR // the descriptor is gone: it must not be closed again
	}
	return 0, err
}

func sysCloseRange(t *kernel.Task, a kernel.Args) (uintptr, error) {
	first, last, flags := a.Uint(0), a.Uint(1), a.Uint(2)
	if flags&^(abi.CLOSE_RANGE_UNSHARE|abi.CLOSE_RANGE_CLOEXEC) != 0 || first > last {
		return 0, abi.EINVAL
	}
	if flags&abi.CLOSE_RANGE_UNSHARE != 0 && t.FDTable().Shared() {
		t.UnshareFiles()
	}
	if flags&abi.CLOSE_RANGE_CLOEXEC != 0 {
		t.FDTable().CloexecRange(first, last)
	} else {
		t.FDTable().CloseRange(t, first, last)
	}
	return 0, nil
}

func sysDup(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := anyFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	return installFile(t, f, false)
}

func sysDup2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.FD(0) == a.FD(1) {
		f, err := anyFile(t, a.FD(0))
		if err != nil {
			return 0, err
		}
		f.DecRef()
		return uintptr(a.FD(0)), nil
	}
	return dupTo(t, a.FD(0), a.FD(1), false)
}

func sysDup3(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(2)&^abi.O_CLOEXEC != 0 || a.FD(0) == a.FD(1) {
		return 0, abi.EINVAL
	}
	return dupTo(t, a.FD(0), a.FD(1), a.Uint(2)&abi.O_CLOEXEC != 0)
}

func dupTo(t *kernel.Task, from, to int32, cloexec bool) (uintptr, error) {
	if to < 0 || uint64(to) >= fdLimit(t) {
		return 0, abi.EBADF
	}
	f, err := anyFile(t, from)
	if err != nil {
		return 0, err
	}
	if err := t.FDTable().SetFD(t, f, to, fdLimit(t), cloexec); err != nil {
		f.DecRef()
		return 0, err
	}
	return uintptr(to), nil
}

func sysFcntl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	fd, cmd := a.FD(0), a.Int(1)
	f, err := anyFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	switch cmd {
	case abi.F_DUPFD, abi.F_DUPFD_CLOEXEC:
		f.IncRef()
		nfd, err := t.FDTable().NewFD(f, a.Int(2), fdLimit(t), cmd == abi.F_DUPFD_CLOEXEC)
		if err != nil {
			f.DecRef()
			return 0, err
		}
		return uintptr(nfd), nil
	case abi.F_GETFD:
		on, err := t.FDTable().Cloexec(fd)
		if on {
			return abi.FD_CLOEXEC, err
		}
		return 0, err
	case abi.F_SETFD:
		return 0, t.FDTable().SetCloexec(fd, a.Uint(2)&abi.FD_CLOEXEC != 0)
	case abi.F_GETFL:
		return uintptr(f.Flags()), nil
	}
	if f.PathOnly() {
		return 0, abi.EBADF // open(2) lists what O_PATH descriptors can do
	}
	switch cmd {
	case abi.F_SETFL:
		return 0, setFlags(t, f, fd, a.Uint(2))
	case abi.F_GETLK, abi.F_OFD_GETLK:
		return 0, getLock(t, f, a.Addr(2), cmd == abi.F_OFD_GETLK)
	case abi.F_SETLK, abi.F_SETLKW:
		return 0, setLock(t, f, fd, a.Addr(2), false, cmd == abi.F_SETLKW)
	case abi.F_OFD_SETLK, abi.F_OFD_SETLKW:
		return 0, setLock(t, f, fd, a.Addr(2), true, cmd == abi.F_OFD_SETLKW)
	case abi.F_GETOWN:
		o := f.Owner()
		if o.Type == vfs.OwnerPGRP {
			return uintptr(-int64(o.PID)), nil
		}
		return uintptr(o.PID), nil
	case abi.F_SETOWN:
		o := vfs.Owner{Type: vfs.OwnerPID, PID: a.Int(2), Cred: t.Cred()}
		if o.PID == -1<<31 {
			return 0, abi.EINVAL
		}
		if o.PID < 0 {
			o.Type, o.PID = vfs.OwnerPGRP, -o.PID
		}
		f.SetOwner(o)
		return 0, nil
	case abi.F_GETOWN_EX:
		o := f.Owner()
		return 0, usermem.CopyOutUint64(t.Memory(), a.Addr(2), uint64(uint32(o.Type))|uint64(uint32(o.PID))<<32)
	case abi.F_SETOWN_EX:
		v, err := usermem.CopyInUint64(t.Memory(), a.Addr(2))
		if err != nil {
			return 0, err
		}
		if uint32(v) > vfs.OwnerPGRP {
			return 0, abi.EINVAL
		}
		f.SetOwner(vfs.Owner{Type: int32(v), PID: int32(v >> 32), Cred: t.Cred()})
		return 0, nil
	case abi.F_GETSIG:
		return uintptr(f.Owner().Sig), nil
	case abi.F_SETSIG:
		if s := a.Uint64(2); s > 64 {
			return 0, abi.EINVAL
		}
		f.SetSig(a.Int(2))
		return 0, nil
	case abi.F_GETLEASE:
		return abi.F_UNLCK, nil
	case abi.F_SETLEASE, abi.F_NOTIFY:
		return 0, abi.EINVAL
	case abi.F_GETPIPE_SZ, abi.F_SETPIPE_SZ:
		p, _, _ := pipe.Of(f)
		if p == nil {
			return 0, abi.EBADF
		}
		if cmd == abi.F_GETPIPE_SZ {
			return uintptr(p.Size()), nil
		}
		n, err := p.SetSize(t, uint64(a.Uint(2)))
		return uintptr(n), err
	case abi.F_ADD_SEALS:
		s, ok := f.Ops().(sealer)
		if !ok {
			return 0, abi.EINVAL
		}
		return 0, s.AddSeals(f, a.Uint(2))
	case abi.F_GET_SEALS:
		s, ok := f.Ops().(sealer)
		if !ok {
			return 0, abi.EINVAL
		}
		return uintptr(s.Seals()), nil
	case abi.F_GET_RW_HINT, abi.F_GET_FILE_RW_HINT:
		return 0, usermem.CopyOutUint64(t.Memory(), a.Addr(2), 0) // RWH_WRITE_LIFE_NOT_SET
	case abi.F_SET_RW_HINT, abi.F_SET_FILE_RW_HINT:
		v, err := usermem.CopyInUint64(t.Memory(), a.Addr(2))
		if err == nil && v > 5 {
			err = abi.EINVAL
		}
		return 0, err
	}
	return 0, abi.EINVAL
}

// A sealer is a file that memfd_create made, or could have.
type sealer interface {
	AddSeals(f *vfs.File, seals uint32) error
	Seals() uint32
}

// setFlags is F_SETFL.
func setFlags(t *kernel.Task, f *vfs.File, fd int32, fl uint32) error {
	const can = abi.O_APPEND | abi.O_ASYNC | abi.O_DIRECT | abi.O_NOATIME | abi.O_NONBLOCK
	if fl&abi.O_NOATIME != 0 && f.Flags()&abi.O_NOATIME == 0 {
		a, err := f.Attr(t)
		if err != nil {
			return err
		}
		if a.UID != t.Cred().FSUID && !t.Cred().Can(abi.CAP_FOWNER) {
			return abi.EPERM
		}
	}
	if (fl^f.Flags())&abi.O_ASYNC != 0 {
		f.SetAsync(fl&abi.O_ASYNC != 0, fd, t.Kernel())
	}
	f.SetFlags(can&^abi.O_ASYNC, fl)
	return nil
}

// Ioctls that every file has (fs/ioctl.c on Linux).
const (
	figetbsz   = 2 // FIGETBSZ (uapi/linux/fs.h)
	fiFreeze   = 0xc0045877
	fiThaw     = 0xc0045878
	fsGetFlags = 0x80086601 // FS_IOC_GETFLAGS
	fsSetFlags = 0x40086602
)

func sysIoctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	fd, cmd, arg := a.FD(0), a.Uint(1), a.Addr(2)
	f, err := openFile(t, fd)
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	switch cmd {
	case abi.FIOCLEX:
		return 0, t.FDTable().SetCloexec(fd, true)
	case abi.FIONCLEX:
		return 0, t.FDTable().SetCloexec(fd, false)
	case abi.FIONBIO, abi.FIOASYNC:
		v, err := usermem.CopyInUint32(t.Memory(), arg)
		if err != nil {
			return 0, err
		}
		if cmd == abi.FIOASYNC {
			f.SetAsync(v != 0, fd, t.Kernel())
		} else if v != 0 {
			f.SetFlags(abi.O_NONBLOCK, abi.O_NONBLOCK)
		} else {
			f.SetFlags(abi.O_NONBLOCK, 0)
		}
		return 0, nil
	case abi.FIOQSIZE:
		at, err := f.Attr(t)
		if err != nil {
			return 0, err
		}
		if !at.IsRegular() && !at.IsDir() && !at.IsSymlink() {
			return 0, abi.ENOTTY
		}
		return 0, usermem.CopyOutUint64(t.Memory(), arg, at.Size)
	case figetbsz:
		at, err := f.Attr(t)
		if err != nil {
			return 0, err
		}
		return 0, usermem.CopyOutUint32(t.Memory(), arg, at.BlkSize)
	case abi.FIONREAD:
		if at, err := f.Attr(t); err == nil && at.IsRegular() && !f.Stream() {
			if n, err := f.Ioctl(t, cmd, uint64(arg)); err != abi.ENOTTY {
				return n, err
			}
			left := int64(at.Size) - f.Position()
			return 0, usermem.CopyOutUint32(t.Memory(), arg, uint32(left))
		}
	}
	return f.Ioctl(t, cmd, a.Uint64(2))
}

func sysMemfdCreate(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a.Uint(1)
	const known = abi.MFD_CLOEXEC | abi.MFD_ALLOW_SEALING | abi.MFD_NOEXEC_SEAL | abi.MFD_EXEC
	if flags&^known != 0 || flags&abi.MFD_NOEXEC_SEAL != 0 && flags&abi.MFD_EXEC != 0 {
		return 0, abi.EINVAL
	}
	// The name, with "memfd:" before it, must fit NAME_MAX.
	name, err := t.Memory().CopyInString(a.Addr(0), abi.NAME_MAX-len("memfd:")+1)
	if err == abi.ENAMETOOLONG {
		err = abi.EINVAL
	}
	if err != nil {
		return 0, err
	}
	v := theVFS(t)
	if v.Memfd == nil {
		return 0, abi.ENOSYS
	}
	mode := uint16(0777)
	if flags&abi.MFD_NOEXEC_SEAL != 0 {
		mode = 0666
	}
	f, err := v.Memfd(t, name, mode, flags&(abi.MFD_ALLOW_SEALING|abi.MFD_NOEXEC_SEAL) != 0)
	if err != nil {
		return 0, err
	}
	if flags&abi.MFD_NOEXEC_SEAL != 0 {
		if s, ok := f.Ops().(sealer); ok {
			s.AddSeals(f, abi.F_SEAL_EXEC)
		}
	}
	return installFile(t, f, flags&abi.MFD_CLOEXEC != 0)
}

var bufferPool = sync.Pool{New: func() any { return new(usermem.Buffer) }}

// guestEnd is where guest addresses end (TASK_SIZE_MAX): a range that reaches
// beyond it is refused before anything is done (access_ok).
const guestEnd = 1<<47 - usermem.PageSize

func accessOK(addr usermem.Addr, n uint64) bool { return n <= guestEnd && uint64(addr) <= guestEnd-n }

// guestBuffer takes a cursor from the pool; releaseBuffer gives it back.
func guestBuffer(t *kernel.Task, addr usermem.Addr, n uint64) *usermem.Buffer {
	b := bufferPool.Get().(*usermem.Buffer)
	b.Init(t.Memory(), addr, int(min(n, maxRW)))
	return b
}

func releaseBuffer(b *usermem.Buffer) {
	b.Init(nil, 0, 0)
	bufferPool.Put(b)
}

// maxRW is MAX_RW_COUNT (include/linux/fs.h): more is never transferred at once.
const maxRW = 0x7ffff000
