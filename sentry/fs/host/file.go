package host

import (
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// file is an open host file.
type file struct {
	vfs.FileDefaults
	i      *Inode
	shared bool // the very description that the host has: its offset is used
}

// FileInode implements vfs.InodeFile.
func (f *file) FileInode() vfs.Inode { return f.i }

// OwnsPosition implements vfs.PositionOwner: reads and writes at the current
// position come with the offset vfs.OwnPosition.
func (f *file) OwnsPosition() bool { return f.shared && f.i.seeks }

// Stream implements vfs.FileOps.
func (f *file) Stream() bool { return !f.i.seeks }

// maxBlind is how much is written to a stream that polls as writable when the
// host can't write without sleeping otherwise: a pipe has room for PIPE_BUF then.
const maxBlind = 4096

// Read implements vfs.FileOps.
func (f *file) Read(ctx vfs.Context, _ *vfs.File, dst *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, error) {
	n, err := dst.Access(dst.Len(), true, func(p []byte) (int, error) {
		k, err := f.i.read(p, f.at(&off))
		return max(k, 0), err
	})
	if n > 0 {
		return int64(n), nil
	}
	return 0, abi.FromHost(err)
}

// at is the offset for one host call: -1 where the host has the position.
func (f *file) at(off *int64) *int64 {
	if !f.i.seeks || *off == vfs.OwnPosition {
		return nil
	}
	return off
}

// read is one host read that does not sleep; off is moved on if it is not nil.
func (i *Inode) read(p []byte, off *int64) (n int, err error) {
	for {
		switch {
		case off != nil:
			n, err = unix.Pread(i.fd, p, *off)
		case i.kind == regular:
			n, err = unix.Read(i.fd, p)
		case i.kind == socket:
			n, _, _, _, err = unix.Recvmsg(i.fd, p, nil, unix.MSG_DONTWAIT)
		default:
			n, err = i.readStream(p)
		}
		if err != unix.EINTR {
			break
		}
	}
	if n > 0 && off != nil {
		*off += int64(n)
	}
	return n, err
}

func (i *Inode) readStream(p []byte) (int, error) {
	if i.kind == pipe && i.nowait {
		n, err := unix.Preadv2(i.fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
		if err != unix.EOPNOTSUPP {
			return n, err
		}
		i.nowait = false // host before 6.4, or a FIFO
	}
	if !i.ready(unix.POLLIN) {
		return 0, unix.EAGAIN
	}
	return unix.Read(i.fd, p)
}

// ready polls the host without waiting.
func (i *Inode) ready(ev int16) bool {
	return i.poll(ev) != 0
}

func (i *Inode) poll(ev int16) int16 {
	p := [1]unix.PollFd{{Fd: int32(i.fd), Events: ev}}
	for {
		_, err := unix.Poll(p[:], 0)
		if err != unix.EINTR {
			return p[0].Revents
		}
	}
}

// Write implements vfs.FileOps.
func (f *file) Write(ctx vfs.Context, vf *vfs.File, src *usermem.Buffer, off int64, fl vfs.IOFlags) (int64, int64, error) {
	if f.i.kind == regular {
		if err := f.limit(ctx, vf, src, &off, fl); err != nil {
			return 0, 0, err
		}
	}
	n, err := src.Access(src.Len(), false, func(p []byte) (int, error) {
		k, err := f.i.write(p, f.at(&off))
		return max(k, 0), err
	})
	if n == 0 && err != nil {
		if err = abi.FromHost(err); err == abi.EPIPE {
			ctx.SendSelf(abi.SIGPIPE)
		}
		return 0, off, err
	}
	return int64(n), off, nil
}

// limit finds where a write to a regular file goes and applies RLIMIT_FSIZE.
func (f *file) limit(ctx vfs.Context, vf *vfs.File, src *usermem.Buffer, off *int64, fl vfs.IOFlags) error {
	var at int64
	var err error
	if vf != nil && vf.Append() || fl&abi.RWF_APPEND != 0 {
		// The host's description may lack O_APPEND: the guest set it for itself.
		whence := unix.SEEK_END
		if *off == vfs.OwnPosition {
			at, err = unix.Seek(f.i.fd, 0, whence)
		} else {
			var st unix.Stat_t
			err = unix.Fstat(f.i.fd, &st)
			*off, at = st.Size, st.Size
		}
	} else if *off == vfs.OwnPosition {
		at, err = unix.Seek(f.i.fd, 0, unix.SEEK_CUR)
	} else {
		at = *off
	}
	if err != nil {
		return abi.FromHost(err)
	}
	limit := ctx.FileSizeLimit()
	if src.Len() > 0 && uint64(at) >= limit {
		ctx.SendSelf(abi.SIGXFSZ)
		return abi.EFBIG
	}
	src.Limit(int(min(uint64(src.Len()), limit-uint64(at))))
	return nil
}

// write is one host write that does not sleep.
func (i *Inode) write(p []byte, off *int64) (n int, err error) {
	for {
		switch {
		case off != nil:
			n, err = unix.Pwrite(i.fd, p, *off)
		case i.kind == regular:
			n, err = unix.Write(i.fd, p)
		case i.kind == socket:
			n, err = unix.SendmsgN(i.fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		default:
			n, err = i.writeStream(p)
		}
		if err != unix.EINTR {
			break
		}
	}
	if n > 0 && off != nil {
		*off += int64(n)
	}
	return n, err
}

func (i *Inode) writeStream(p []byte) (int, error) {
	if i.kind == pipe && i.nowait {
		n, err := unix.Pwritev2(i.fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
		if err != unix.EOPNOTSUPP {
			return n, err
		}
		i.nowait = false
	}
	done := 0
	for {
		if !i.ready(unix.POLLOUT) {
			if done > 0 {
				return done, nil
			}
			return 0, unix.EAGAIN
		}
		n, err := unix.Write(i.fd, p[done:min(len(p), done+maxBlind)])
		if n > 0 {
			done += n
		}
		if done == len(p) || err != nil {
			if done > 0 {
				err = nil
			}
			return done, err
		}
	}
}

// Seek implements vfs.FileOps.
func (f *file) Seek(_ vfs.Context, _ *vfs.File, cur, off int64, whence int) (int64, error) {
	if !f.shared && whence == abi.SEEK_CUR {
		return vfs.SeekSize(cur, off, 0, whence)
	}
	if f.shared {
		n, err := unix.Seek(f.i.fd, off, whence)
		return n, abi.FromHost(err)
	}
	if whence == abi.SEEK_SET {
		return vfs.SeekSize(cur, off, 0, whence)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.i.fd, &st); err != nil {
		return 0, abi.FromHost(err)
	}
	return vfs.SeekSize(cur, off, st.Size, whence)
}

// Ioctl implements vfs.FileOps.
func (f *file) Ioctl(ctx vfs.Context, _ *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	if cmd != abi.FIONREAD {
		return 0, abi.ENOTTY
	}
	n, err := unix.IoctlGetInt(f.i.fd, unix.TIOCINQ)
	if err != nil {
		return 0, abi.FromHost(err)
	}
	return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(n))
}

// Mappable implements vfs.FileOps.
func (f *file) Mappable(vfs.Context, *vfs.File, uint32, uint32) (mm.Mappable, error) {
	if f.i.kind != regular {
		return nil, abi.ENODEV
	}
	return f.i, nil
}

// Sync implements vfs.FileOps.
func (f *file) Sync(_ vfs.Context, _ *vfs.File, data bool) error {
	if data {
		return abi.FromHost(unix.Fdatasync(f.i.fd))
	}
	return abi.FromHost(unix.Fsync(f.i.fd))
}

// Allocate implements vfs.FileOps.
func (f *file) Allocate(_ vfs.Context, _ *vfs.File, mode uint32, off, length int64) error {
	if f.i.kind != regular {
		return abi.ESPIPE
	}
	return abi.FromHost(unix.Fallocate(f.i.fd, mode, off, length))
}

// Release implements vfs.FileOps. The descriptor stays open: the inode may be
// opened again through its name, and the sandbox has three at most.
func (f *file) Release(*vfs.File) {}

// Readiness implements wait.Waitable; poll's and epoll's bits are the same numbers.
func (f *file) Readiness(mask wait.Events) wait.Events {
	if f.i.kind == regular {
		return f.FileDefaults.Readiness(mask)
	}
	mask |= abi.EPOLLERR | abi.EPOLLHUP
	return wait.Events(uint16(f.i.poll(int16(mask)))) & mask
}

// EventRegister implements wait.Waitable.
func (f *file) EventRegister(w *wait.Waiter, mask wait.Events) { f.i.register(w, mask) }

// EventUnregister implements wait.Waitable.
func (f *file) EventUnregister(w *wait.Waiter) { f.i.unregister(w) }
