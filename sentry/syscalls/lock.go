package syscalls

import (
	"math"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// lockCalls are the calls on locks; record locks are part of fcntl.
var lockCalls = []kernel.Row{
	{Nr: abi.SYS_flock, Name: "flock", Fn: sysFlock, Args: []kernel.ArgKind{kernel.FDArg, kernel.Hex}},
}

// readLock reads a struct flock and makes a lock of it (fcntl_locking(2)).
func readLock(t *kernel.Task, f *vfs.File, addr usermem.Addr, ofd bool) (abi.Flock, vfs.RecordLock, error) {
	var raw [abi.SizeofFlock]byte
	var fl abi.Flock
	var l vfs.RecordLock
	if _, err := t.Memory().CopyIn(addr, raw[:]); err != nil {
		return fl, l, err
	}
	fl.UnmarshalFrom(raw[:])
	if ofd && fl.PID != 0 {
		return fl, l, abi.EINVAL
	}
	base := int64(0)
	switch fl.Whence {
	case abi.SEEK_SET:
	case abi.SEEK_CUR:
		base = f.Position()
	case abi.SEEK_END:
		a, err := f.Attr(t)
		if err != nil {
			return fl, l, err
		}
		base = int64(a.Size)
	default:
		return fl, l, abi.EINVAL
	}
	if fl.Start > math.MaxInt64-base {
		return fl, l, abi.EOVERFLOW
	}
	start := base + fl.Start
	if start < 0 {
		return fl, l, abi.EINVAL
	}
	end := int64(math.MaxInt64)
	switch {
	case fl.Len > 0:
		if fl.Len-1 > math.MaxInt64-start {
			return fl, l, abi.EOVERFLOW
		}
		end = start + fl.Len - 1
	case fl.Len < 0:
		if start+fl.Len < 0 {
			return fl, l, abi.EINVAL
		}
		start, end = start+fl.Len, start-1
	}
	l = vfs.RecordLock{Write: fl.Type == abi.F_WRLCK, Start: start, End: end, PID: t.PID()}
	return fl, l, nil
}

// getLock is F_GETLK and F_OFD_GETLK.
func getLock(t *kernel.Task, f *vfs.File, addr usermem.Addr, ofd bool) error {
	fl, l, err := readLock(t, f, addr, ofd)
	if err != nil {
		return err
	}
	if fl.Type != abi.F_RDLCK && fl.Type != abi.F_WRLCK {
		return abi.EINVAL
	}
	c, ok := f.TestLock(t.FDTable(), l, ofd)
	if !ok {
		fl.Type = abi.F_UNLCK
	} else {
		fl = abi.Flock{Type: abi.F_RDLCK, Whence: abi.SEEK_SET, Start: c.Start, PID: c.PID}
		if c.Write {
			fl.Type = abi.F_WRLCK
		}
		if c.End != math.MaxInt64 {
			fl.Len = c.End - c.Start + 1
		}
	}
	var raw [abi.SizeofFlock]byte
	fl.MarshalTo(raw[:])
	_, err = t.Memory().CopyOut(addr, raw[:])
	return err
}

// setLock is F_SETLK, F_SETLKW and the OFD ones.
func setLock(t *kernel.Task, f *vfs.File, fd int32, addr usermem.Addr, ofd, block bool) error {
	fl, l, err := readLock(t, f, addr, ofd)
	if err != nil {
		return err
	}
	switch fl.Type {
	case abi.F_RDLCK:
		if !f.Readable() {
			return abi.EBADF
		}
	case abi.F_WRLCK:
		if !f.Writable() {
			return abi.EBADF
		}
	case abi.F_UNLCK:
	default:
		return abi.EINVAL
	}
	table := t.FDTable()
	if err := f.SetLock(t, table, l, ofd, fl.Type == abi.F_UNLCK, block); err != nil {
		return err
	}
	// If another thread closed the descriptor meanwhile, its close has not seen
	// our lock, which nobody would release.
	if fl.Type != abi.F_UNLCK && !ofd {
		now := table.Get(fd)
		if now != f {
			f.SetLock(t, table, vfs.RecordLock{Start: 0, End: math.MaxInt64}, false, true, false)
			err = abi.EBADF
		}
		if now != nil {
			now.DecRef()
		}
	}
	return err
}

func sysFlock(t *kernel.Task, a kernel.Args) (uintptr, error) {
	op := a.Int(1)
	if op&abi.LOCK_MAND != 0 {
		return 0, abi.EOPNOTSUPP
	}
	kind := op &^ abi.LOCK_NB
	if kind != abi.LOCK_SH && kind != abi.LOCK_EX && kind != abi.LOCK_UN {
		return 0, abi.EINVAL
	}
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	return 0, f.Flock(t, int(kind), op&abi.LOCK_NB == 0)
}
