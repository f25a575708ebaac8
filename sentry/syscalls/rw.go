package syscalls

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/fs/pipe"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// rwCalls are the calls that move data: read(2), write(2), lseek(2),
// sendfile(2), splice(2) and their kin.
var rwCalls = []kernel.Row{
	{Nr: abi.SYS_read, Name: "read", Fn: sysRead, Args: []kernel.ArgKind{kernel.FDArg, kernel.BufOut, kernel.UDec}},
	{Nr: abi.SYS_write, Name: "write", Fn: sysWrite, Args: []kernel.ArgKind{kernel.FDArg, kernel.BufIn, kernel.UDec}},
	{Nr: abi.SYS_pread64, Name: "pread64", Fn: sysPread64, Args: []kernel.ArgKind{kernel.FDArg, kernel.BufOut, kernel.UDec, kernel.Long}},
	{Nr: abi.SYS_pwrite64, Name: "pwrite64", Fn: sysPwrite64, Args: []kernel.ArgKind{kernel.FDArg, kernel.BufIn, kernel.UDec, kernel.Long}},
	{Nr: abi.SYS_readv, Name: "readv", Fn: sysReadv, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovOut, kernel.Dec}},
	{Nr: abi.SYS_writev, Name: "writev", Fn: sysWritev, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovIn, kernel.Dec}},
	{Nr: abi.SYS_preadv, Name: "preadv", Fn: sysPreadv, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovOut, kernel.Dec, kernel.Long, kernel.Long}},
	{Nr: abi.SYS_pwritev, Name: "pwritev", Fn: sysPwritev, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovIn, kernel.Dec, kernel.Long, kernel.Long}},
	{Nr: abi.SYS_preadv2, Name: "preadv2", Fn: sysPreadv2, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovOut, kernel.Dec, kernel.Long, kernel.Long, kernel.Hex}},
	{Nr: abi.SYS_pwritev2, Name: "pwritev2", Fn: sysPwritev2, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovIn, kernel.Dec, kernel.Long, kernel.Long, kernel.Hex}},
	{Nr: abi.SYS_lseek, Name: "lseek", Fn: sysLseek, Args: []kernel.ArgKind{kernel.FDArg, kernel.Long, kernel.Whence}},
	{Nr: abi.SYS_sendfile, Name: "sendfile", Fn: sysSendfile, Args: []kernel.ArgKind{kernel.FDArg, kernel.FDArg, kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_copy_file_range, Name: "copy_file_range", Fn: sysCopyFileRange, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.FDArg, kernel.Ptr, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_splice, Name: "splice", Fn: sysSplice, Args: []kernel.ArgKind{kernel.FDArg, kernel.Ptr, kernel.FDArg, kernel.Ptr, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_tee, Name: "tee", Fn: sysTee, Args: []kernel.ArgKind{kernel.FDArg, kernel.FDArg, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_vmsplice, Name: "vmsplice", Fn: sysVmsplice, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovIn, kernel.UDec, kernel.Hex}},
}

func sysRead(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	if !accessOK(a.Addr(1), a.Size(2)) && f.Readable() {
		f.DecRef()
		return 0, abi.EFAULT
	}
	b := guestBuffer(t, a.Addr(1), a.Size(2))
	n, err := f.Read(t, b, 0)
	releaseBuffer(b)
	f.DecRef()
	return uintptr(n), err
}

func sysWrite(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	if !accessOK(a.Addr(1), a.Size(2)) && f.Writable() {
		f.DecRef()
		return 0, abi.EFAULT
	}
	b := guestBuffer(t, a.Addr(1), a.Size(2))
	n, err := f.Write(t, b, 0)
	releaseBuffer(b)
	f.DecRef()
	return uintptr(n), err
}

func sysPread64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(3) < 0 {
		return 0, abi.EINVAL
	}
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	if !accessOK(a.Addr(1), a.Size(2)) && f.Readable() {
		f.DecRef()
		return 0, abi.EFAULT
	}
	b := guestBuffer(t, a.Addr(1), a.Size(2))
	n, err := f.Pread(t, b, a.Int64(3), 0)
	releaseBuffer(b)
	f.DecRef()
	return uintptr(n), err
}

func sysPwrite64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(3) < 0 {
		return 0, abi.EINVAL
	}
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	if !accessOK(a.Addr(1), a.Size(2)) && f.Writable() {
		f.DecRef()
		return 0, abi.EFAULT
	}
	b := guestBuffer(t, a.Addr(1), a.Size(2))
	n, err := f.Pwrite(t, b, a.Int64(3), 0)
	releaseBuffer(b)
	f.DecRef()
	return uintptr(n), err
}

// vectored is what readv, writev and their positioned kin have in common; off
// is -1 for the file's own position.
func vectored(t *kernel.Task, a *kernel.Args, off int64, flags uint32, write bool) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if off != -1 && f.Stream() {
		return 0, abi.ESPIPE
	}
	if write && !f.Writable() || !write && !f.Readable() {
		return 0, abi.EBADF
	}
	rs, err := usermem.CopyInRanges(t.Memory(), a.Addr(1), int(int64(min(a.Size(2), 1<<20))))
	if err != nil {
		return 0, err
	}
	for _, r := range rs {
		if !accessOK(r.Addr, r.Len) {
			return 0, abi.EFAULT
		}
	}
	if flags&^(abi.RWF_SUPPORTED|abi.RWF_NOAPPEND) != 0 ||
		flags&(abi.RWF_APPEND|abi.RWF_NOAPPEND) == abi.RWF_APPEND|abi.RWF_NOAPPEND {
		return 0, abi.EOPNOTSUPP
	}
	var b usermem.Buffer
	b.InitRanges(t.Memory(), rs)
	var n int64
	fl := vfs.IOFlags(flags)
	switch {
	case off == -1 && write:
		n, err = f.Write(t, &b, fl)
	case off == -1:
		n, err = f.Read(t, &b, fl)
	case write:
		n, err = f.Pwrite(t, &b, off, fl)
	default:
		n, err = f.Pread(t, &b, off, fl)
	}
	return uintptr(n), err
}

func sysReadv(t *kernel.Task, a kernel.Args) (uintptr, error)  { return vectored(t, &a, -1, 0, false) }
func sysWritev(t *kernel.Task, a kernel.Args) (uintptr, error) { return vectored(t, &a, -1, 0, true) }

func sysPreadv(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(3) < 0 {
		return 0, abi.EINVAL
	}
	return vectored(t, &a, a.Int64(3), 0, false)
}

func sysPwritev(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(3) < 0 {
		return 0, abi.EINVAL
	}
	return vectored(t, &a, a.Int64(3), 0, true)
}

func sysPreadv2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(3) < -1 {
		return 0, abi.EINVAL
	}
	return vectored(t, &a, a.Int64(3), a.Uint(5), false)
}

func sysPwritev2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int64(3) < -1 {
		return 0, abi.EINVAL
	}
	return vectored(t, &a, a.Int64(3), a.Uint(5), true)
}

func sysLseek(t *kernel.Task, a kernel.Args) (uintptr, error) {
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if a.Uint(2) > abi.SEEK_MAX {
		return 0, abi.EINVAL
	}
	n, err := f.Seek(t, a.Int64(1), int(a.Int(2)))
	return uintptr(n), err
}

// copyChunk is how much the Sentry copies through a buffer of its own at once.
const copyChunk = 256 << 10

var chunkPool = sync.Pool{New: func() any { b := make([]byte, copyChunk); return &b }}

// copyData moves up to n bytes from in (at *inOff, or its position) to out (at
// *outOff, or its position). What was read and not written is not consumed,
// because in is read by position.
func copyData(t *kernel.Task, in *vfs.File, inOff *int64, out *vfs.File, outOff *int64, n int64) (int64, error) {
	bp := chunkPool.Get().(*[]byte)
	defer chunkPool.Put(bp)
	done := int64(0)
	for done < n {
		chunk := (*bp)[:min(n-done, copyChunk)]
		var wrote int64
		step := func(pos int64) (int64, error) {
			got, err := in.Pread(t, usermem.Bytes(chunk), pos, 0)
			if err != nil || got == 0 {
				return pos, err
			}
			if outOff != nil {
				wrote, err = out.Pwrite(t, usermem.Bytes(chunk[:got]), *outOff, 0)
				*outOff += wrote
			} else {
				wrote, err = out.Write(t, usermem.Bytes(chunk[:got]), 0)
			}
			if wrote > 0 {
				err = nil
			}
			if wrote < got {
				n = done + wrote // a short write ends it
			}
			return pos + wrote, err
		}
		var err error
		if inOff != nil {
			*inOff, err = step(*inOff)
		} else {
			// The position is not locked meanwhile, as on Linux: two calls in
			// opposite directions would wait for one another.
			var pos int64
			pos, err = step(in.Position())
			in.WithPosition(func(int64) (int64, error) { return pos, nil })
		}
		done += wrote
		if err != nil || wrote == 0 {
			if done > 0 {
				err = nil
			}
			return done, err
		}
	}
	return done, nil
}

// copyOffset reads an optional offset argument; nil for a null pointer.
func copyOffset(t *kernel.Task, addr usermem.Addr) (*int64, error) {
	if addr == 0 {
		return nil, nil
	}
	v, err := usermem.CopyInUint64(t.Memory(), addr)
	if err != nil {
		return nil, err
	}
	off := int64(v)
	return &off, nil
}

// returnOffset writes an offset argument back.
func returnOffset(t *kernel.Task, addr usermem.Addr, off *int64) error {
	if off == nil {
		return nil
	}
	return usermem.CopyOutUint64(t.Memory(), addr, uint64(*off))
}

func sysSendfile(t *kernel.Task, a kernel.Args) (uintptr, error) {
	off, err := copyOffset(t, a.Addr(2))
	if err != nil {
		return 0, err
	}
	in, err := openFile(t, a.FD(1))
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	if !in.Readable() {
		return 0, abi.EBADF
	}
	if off != nil && in.Stream() {
		return 0, abi.ESPIPE
	}
	if off != nil && *off < 0 {
		return 0, abi.EINVAL
	}
	out, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	if !out.Writable() {
		return 0, abi.EBADF
	}
	if in.Stream() || in.IsDir() || out.Append() || in == out && off == nil {
		return 0, abi.EINVAL
	}
	n, err := copyData(t, in, off, out, nil, int64(min(a.Size(3), maxRW)))
	if e := returnOffset(t, a.Addr(2), off); e != nil {
		return 0, e
	}
	return uintptr(n), err
}

func sysCopyFileRange(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(5) != 0 {
		return 0, abi.EINVAL
	}
	in, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	out, err := openFile(t, a.FD(2))
	if err != nil {
		return 0, err
	}
	defer out.DecRef()
	inOff, err := copyOffset(t, a.Addr(1))
	if err != nil {
		return 0, err
	}
	outOff, err := copyOffset(t, a.Addr(3))
	if err != nil {
		return 0, err
	}
	ia, err := in.Attr(t)
	if err != nil {
		return 0, err
	}
	oa, err := out.Attr(t)
	if err != nil {
		return 0, err
	}
	n := int64(min(a.Size(4), maxRW))
	switch {
	case ia.IsDir() || oa.IsDir():
		return 0, abi.EISDIR
	case !ia.IsRegular() || !oa.IsRegular():
		return 0, abi.EINVAL
	case !in.Readable() || !out.Writable() || out.Append():
		return 0, abi.EBADF
	}
	ip, op := in.Position(), out.Position()
	if inOff != nil {
		ip = *inOff
	}
	if outOff != nil {
		op = *outOff
	}
	if ip < 0 || op < 0 {
		return 0, abi.EINVAL
	}
	if ip+n < ip || op+n < op {
		return 0, abi.EOVERFLOW
	}
	n = min(n, max(0, int64(ia.Size)-ip))
	if ia.Ino == oa.Ino && ia.Dev == oa.Dev && ip < op+n && op < ip+n {
		return 0, abi.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	done, err := copyData(t, in, inOff, out, outOff, n)
	if e := returnOffset(t, a.Addr(1), inOff); e != nil {
		return 0, e
	}
	if e := returnOffset(t, a.Addr(3), outOff); e != nil {
		return 0, e
	}
	return uintptr(done), err
}

const spliceFlags = abi.SPLICE_F_MOVE | abi.SPLICE_F_NONBLOCK | abi.SPLICE_F_MORE | abi.SPLICE_F_GIFT

// spliceFiles returns the two ends of a splice or tee, both with a reference:
// EBADF if one can't be read, or the other can't be written.
func spliceFiles(t *kernel.Task, from, to int32) (in, out *vfs.File, err error) {
	if in, err = openFile(t, from); err != nil {
		return nil, nil, err
	}
	if out, err = openFile(t, to); err != nil {
		in.DecRef()
		return nil, nil, err
	}
	if !in.Readable() || !out.Writable() {
		in.DecRef()
		out.DecRef()
		return nil, nil, abi.EBADF
	}
	return in, out, nil
}

func sysSplice(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n, flags := int64(min(a.Size(4), maxRW)), a.Uint(5)
	if flags&^spliceFlags != 0 {
		return 0, abi.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	in, out, err := spliceFiles(t, a.FD(0), a.FD(2))
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	ip, ipr, _ := pipe.Of(in)
	op, _, opw := pipe.Of(out)
	if ip != nil && a.Addr(1) != 0 || op != nil && a.Addr(3) != 0 {
		return 0, abi.ESPIPE
	}
	nonblock := flags&abi.SPLICE_F_NONBLOCK != 0
	switch {
	case ip != nil && op != nil:
		if !ipr || !opw {
			return 0, abi.EBADF
		}
		if ip == op {
			return 0, abi.EINVAL
		}
		done, err := pipe.Move(t, op, ip, n, nonblock || in.Nonblocking() || out.Nonblocking())
		return uintptr(done), err
	case ip != nil:
		off, err := copyOffset(t, a.Addr(3))
		if err != nil {
			return 0, err
		}
		if off != nil && out.Stream() {
			return 0, abi.ESPIPE
		}
		if out.Append() || out.IsDir() {
			return 0, abi.EINVAL
		}
		done, err := ip.SpliceTo(t, n, nonblock || in.Nonblocking(), func(b []byte) (int, error) {
			var m int64
			var err error
			if off != nil {
				m, err = out.Pwrite(t, usermem.Bytes(b), *off, 0)
				*off += m
			} else {
				m, err = out.Write(t, usermem.Bytes(b), 0)
			}
			return int(m), err
		})
		if e := returnOffset(t, a.Addr(3), off); e != nil {
			return 0, e
		}
		return uintptr(done), err
	case op != nil:
		off, err := copyOffset(t, a.Addr(1))
		if err != nil {
			return 0, err
		}
		if off != nil && in.Stream() {
			return 0, abi.ESPIPE
		}
		if in.IsDir() {
			return 0, abi.EINVAL
		}
		some := false
		done, err := op.SpliceFrom(t, n, nonblock || out.Nonblocking(), func(b []byte) (int, error) {
			// Only for the first bytes of a stream may it sleep.
			if some && in.Stream() && in.Readiness(abi.EPOLLIN)&abi.EPOLLIN == 0 {
				return 0, nil
			}
			some = true
			var m int64
			var err error
			if off != nil {
				m, err = in.Pread(t, usermem.Bytes(b), *off, 0)
				*off += m
			} else {
				m, err = in.Read(t, usermem.Bytes(b), 0)
			}
			return int(m), err
		})
		if e := returnOffset(t, a.Addr(1), off); e != nil {
			return 0, e
		}
		return uintptr(done), err
	}
	return 0, abi.EINVAL
}

func sysTee(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n, flags := int64(min(a.Size(2), maxRW)), a.Uint(3)
	if flags&^spliceFlags != 0 {
		return 0, abi.EINVAL
	}
	if n == 0 {
		return 0, nil
	}
	in, out, err := spliceFiles(t, a.FD(0), a.FD(1))
	if err != nil {
		return 0, err
	}
	defer in.DecRef()
	defer out.DecRef()
	ip, _, _ := pipe.Of(in)
	op, _, _ := pipe.Of(out)
	if ip == nil || op == nil || ip == op {
		return 0, abi.EINVAL
	}
	done, err := pipe.Tee(t, op, ip, n, flags&abi.SPLICE_F_NONBLOCK != 0 || in.Nonblocking() || out.Nonblocking())
	return uintptr(done), err
}

// sysVmsplice copies: pages are not given away, which programs can't tell.
func sysVmsplice(t *kernel.Task, a kernel.Args) (uintptr, error) {
	flags := a.Uint(3)
	if flags&^spliceFlags != 0 {
		return 0, abi.EINVAL
	}
	f, err := openFile(t, a.FD(0))
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	p, r, w := pipe.Of(f)
	if p == nil {
		return 0, abi.EBADF
	}
	rs, err := usermem.CopyInRanges(t.Memory(), a.Addr(1), int(int64(min(a.Size(2), 1<<20))))
	if err != nil {
		return 0, err
	}
	var b usermem.Buffer
	b.InitRanges(t.Memory(), rs)
	if b.Len() == 0 {
		return 0, nil
	}
	var fl vfs.IOFlags
	if flags&abi.SPLICE_F_NONBLOCK != 0 {
		fl = abi.RWF_NOWAIT
	}
	var n int64
	if w {
		n, err = f.Write(t, &b, fl)
	} else if r {
		n, err = f.Read(t, &b, fl)
	} else {
		err = abi.EBADF
	}
	return uintptr(n), err
}
