package tmpfs

import (
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// file is an open regular file.
type file struct {
	vfs.FileDefaults
	r *regular
}

// Open implements vfs.Inode.
func (r *regular) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileOps, error) {
	if !r.Pin() {
		return nil, abi.ENOENT
	}
	return &file{r: r}, nil
}

// Release implements vfs.FileOps.
func (f *file) Release(*vfs.File) { f.r.Unpin() }

// Read implements vfs.FileOps.
func (f *file) Read(_ vfs.Context, _ *vfs.File, dst *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, error) {
	r := f.r
	if off < 0 {
		return 0, abi.EINVAL
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	size := r.size.Load()
	if off >= size || dst.Len() == 0 {
		return 0, nil
	}
	defer r.accessed()
	pos, left := uint64(off), uint64(min(int64(dst.Len()), size-off))
	for left > 0 {
		x := r.runAt(pos, left)
		var n int
		var err error
		switch {
		case x.hole:
			n, err = dst.Zero(int(x.n))
		case x.maybe:
			n, err = r.readHost(dst, x)
		default:
			n, err = r.readPages(dst, x)
		}
		pos, left = pos+uint64(n), left-uint64(n)
		if err != nil || n == 0 {
			return done(int64(pos)-off, err)
		}
	}
	return int64(pos) - off, nil
}

// done is the result of a transfer that ended early.
func done(n int64, err error) (int64, error) {
	if n > 0 || err == nil {
		return n, nil
	}
	return 0, err
}

// readPages copies from pages that exist.
func (r *regular) readPages(dst *usermem.Buffer, x run) (int, error) {
	done := 0
	for done < int(x.n) {
		n, err := dst.Write(r.fs.pf.Slice(x.pf+uint64(done), x.n-uint64(done)))
		done += n
		if err != nil || n == 0 {
			return done, err
		}
	}
	return done, nil
}

// readHost copies pages of which only the host knows whether they exist, so
// that reading a hole does not fill it.
func (r *regular) readHost(dst *usermem.Buffer, x run) (int, error) {
	pf := x.pf
	return dst.Access(int(x.n), true, func(p []byte) (int, error) {
		if err := r.fs.pf.Read(p, pf); err != nil {
			return 0, abi.EIO
		}
		pf += uint64(len(p))
		return len(p), nil
	})
}

// Write implements vfs.FileOps.
func (f *file) Write(ctx vfs.Context, vf *vfs.File, src *usermem.Buffer, off int64, fl vfs.IOFlags) (int64, int64, error) {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	size := r.size.Load()
	if (vf.Append() || fl&abi.RWF_APPEND != 0) && fl&abi.RWF_NOAPPEND == 0 {
		off = size
	}
	if src.Len() == 0 {
		return 0, off, nil
	}
	n, err := vfs.WriteLimit(ctx, off, int64(src.Len()), maxSize)
	if err != nil {
		return 0, off, err
	}
	if s := r.seals.Load(); s != 0 {
		if s&(abi.F_SEAL_WRITE|abi.F_SEAL_FUTURE_WRITE) != 0 {
			return 0, off, abi.EPERM
		}
		if s&abi.F_SEAL_GROW != 0 && off+n > size {
			// shmem lets the pages that exist be written.
			if n = size - off; n <= 0 {
				return 0, off, abi.EPERM
			}
		}
	}
	src.Limit(int(n))
	if size < off {
		r.zeroTail(size, off)
	}
	wrote, err := r.write(src, uint64(off), uint64(n))
	if wrote > 0 {
		if end := off + int64(wrote); end > r.size.Load() {
			r.size.Store(end)
		}
		r.written(ctx)
	}
	m, err := done(int64(wrote), err)
	return m, off + m, err
}

// zeroTail clears what a mapping may have left behind the old end in its page.
func (r *regular) zeroTail(size, upTo int64) {
	if size&pageMask != 0 {
		r.zero(uint64(size), min(uint64(upTo), roundUp(uint64(size))))
	}
}

// written updates times, and takes away set-user-ID bits.
func (r *regular) written(ctx vfs.Context) {
	t := now()
	r.node.mu.Lock()
	r.mtime, r.ctime = t, t
	if r.mode&(abi.S_ISUID|abi.S_ISGID) != 0 {
		a := vfs.Attr{Mode: r.mode, UID: r.uid, GID: r.gid}
		r.mode, _ = vfs.PrivsToRemove(ctx, &a)
	}
	r.node.mu.Unlock()
}

// write copies n bytes to off. mu is held.
func (r *regular) write(src *usermem.Buffer, off, n uint64) (uint64, error) {
	start := off
	for n > 0 {
		// Bounded, so that a huge write that faults at once does not allocate.
		chunk := min(n, 1<<20-off&pageMask)
		lo, hi := off&^pageMask, roundUp(off+chunk)
		r.pageMu.Lock()
		err := r.reserve(lo, hi-lo)
		r.pageMu.Unlock()
		if err != nil {
			return off - start, err
		}
		for chunk > 0 {
			x := r.runAt(off, chunk)
			var m int
			if x.hole || x.maybe {
				m, err = r.writeNew(src, x, off)
			} else {
				m, err = r.writePages(src, x)
			}
			off, n, chunk = off+uint64(m), n-uint64(m), chunk-uint64(m)
			if err != nil || m == 0 {
				return off - start, err
			}
		}
	}
	return off - start, nil
}

// writePages copies into pages that exist.
func (r *regular) writePages(src *usermem.Buffer, x run) (int, error) {
	done := 0
	for done < int(x.n) {
		n, err := src.Read(r.fs.pf.Slice(x.pf+uint64(done), x.n-uint64(done)))
		done += n
		if err != nil || n == 0 {
			return done, err
		}
	}
	return done, nil
}

// writeNew copies into pages that may not exist: a write of the host's own
// allocates them in bulk, where our copying would fault on each.
func (r *regular) writeNew(src *usermem.Buffer, x run, off uint64) (int, error) {
	lo, hi := off/pageSize, roundUp(off+x.n)/pageSize
	r.pageMu.Lock()
	paid, err := r.mark(lo, hi)
	r.pageMu.Unlock()
	if paid == 0 {
		return 0, err
	}
	n := min(x.n, (lo+paid)*pageSize-off)
	pf := x.pf
	m, err := src.Access(int(n), false, func(p []byte) (int, error) {
		k, err := unix.Pwrite(r.fs.pf.FD(), p, int64(pf))
		if err == unix.EINTR {
			k, err = 0, nil
		}
		if err != nil || k < len(p) {
			// The host refuses guest pages that fault, say: copy ourselves.
			k = max(k, 0)
			for k < len(p) {
				k += copy(r.fs.pf.Slice(pf+uint64(k), uint64(len(p)-k)), p[k:])
			}
		}
		pf += uint64(k)
		return k, nil
	})
	if uint64(m) < n || paid < hi-lo {
		// Pages that were paid for and not written are holes again.
		end := roundUp(off+uint64(m)) / pageSize
		if m == 0 {
			end = lo
		}
		if end < lo+paid {
			r.pageMu.Lock()
			r.unmark(end, lo+paid)
			r.pageMu.Unlock()
		}
	}
	return m, err
}

// Seek implements vfs.FileOps.
func (f *file) Seek(_ vfs.Context, _ *vfs.File, cur, off int64, whence int) (int64, error) {
	r := f.r
	size := r.size.Load()
	if whence != abi.SEEK_DATA && whence != abi.SEEK_HOLE {
		return vfs.SeekSize(cur, off, size, whence)
	}
	if off < 0 || off >= size {
		return 0, abi.ENXIO
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for pos := uint64(off); pos < uint64(size); {
		x := r.runAt(pos, uint64(size)-pos)
		if x.maybe {
			// The host knows.
			first := pagefile.Range{Off: x.pf + x.n}
			r.fs.pf.Extents(x.pf, x.n, func(g pagefile.Range) bool { first = g; return false })
			if first.Off > x.pf {
				x.hole, x.n = true, first.Off-x.pf
			} else {
				x.n = first.Len
			}
		}
		if x.hole == (whence == abi.SEEK_HOLE) {
			return int64(pos), nil
		}
		pos += x.n
	}
	if whence == abi.SEEK_HOLE {
		return size, nil
	}
	return 0, abi.ENXIO
}

// Mappable implements vfs.FileOps.
func (f *file) Mappable(_ vfs.Context, vf *vfs.File, prot, flags uint32) (mm.Mappable, error) {
	r := f.r
	if flags&abi.MAP_SHARED != 0 && vf.Writable() {
		if r.seals.Load()&(abi.F_SEAL_WRITE|abi.F_SEAL_FUTURE_WRITE) != 0 {
			if prot&abi.PROT_WRITE != 0 {
				return nil, abi.EPERM
			}
		} else {
			r.pageMu.Lock()
			r.mmappedW = true
			r.pageMu.Unlock()
		}
	}
	r.accessed()
	return r, nil
}

// Sync implements vfs.FileOps.
func (f *file) Sync(vfs.Context, *vfs.File, bool) error { return nil }

// Allocate implements vfs.FileOps: like Linux's tmpfs, plain allocation and
// hole punching only.
func (f *file) Allocate(ctx vfs.Context, vf *vfs.File, mode uint32, off, length int64) error {
	r := f.r
	const keep, punch, zero = abi.FALLOC_FL_KEEP_SIZE, abi.FALLOC_FL_PUNCH_HOLE, abi.FALLOC_FL_ZERO_RANGE
	if mode&^(keep|punch) != 0 {
		return abi.EOPNOTSUPP
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	size := r.size.Load()
	end := off + length
	seals := r.seals.Load()
	if mode&punch != 0 {
		if seals&(abi.F_SEAL_WRITE|abi.F_SEAL_FUTURE_WRITE) != 0 {
			return abi.EPERM
		}
		r.punch(uint64(off), uint64(end))
		r.written(ctx)
		return nil
	}
	if end > maxSize {
		return abi.EFBIG
	}
	if mode&keep == 0 && end > size {
		if lim := ctx.FileSizeLimit(); uint64(end) > lim {
			ctx.SendSelf(abi.SIGXFSZ)
			return abi.EFBIG
		}
		if seals&abi.F_SEAL_GROW != 0 {
			return abi.EPERM
		}
	}
	if err := r.allocate(uint64(off), uint64(end)); err != nil {
		return err
	}
	if mode&keep == 0 && end > size {
		r.zeroTail(size, end)
		r.size.Store(end)
	}
	r.written(ctx)
	return nil
}

// AddSeals is F_ADD_SEALS (memfd_create(2)).
func (f *file) AddSeals(vf *vfs.File, seals uint32) error {
	r := f.r
	const all = abi.F_SEAL_SEAL | abi.F_SEAL_SHRINK | abi.F_SEAL_GROW | abi.F_SEAL_WRITE | abi.F_SEAL_FUTURE_WRITE | abi.F_SEAL_EXEC
	if !vf.Writable() {
		return abi.EPERM
	}
	if seals&^all != 0 {
		return abi.EINVAL
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.seals.Load()
	if old&abi.F_SEAL_SEAL != 0 {
		return abi.EPERM
	}
	if seals&abi.F_SEAL_WRITE != 0 && old&abi.F_SEAL_WRITE == 0 {
		r.pageMu.Lock()
		busy := r.mmappedW && r.nmaps > 0
		r.pageMu.Unlock()
		if busy {
			return abi.EBUSY
		}
	}
	r.seals.Store(old | seals)
	return nil
}

// Seals is F_GET_SEALS.
func (f *file) Seals() uint32 { return f.r.seals.Load() }

// NewMemfd makes the file of memfd_create(2): name is what /proc shows behind
// "memfd:". m is a mount of the file system, usually an internal one.
func (fs *Filesystem) NewMemfd(ctx vfs.Context, m *vfs.Mount, name string, mode uint16, sealable bool) (*vfs.File, error) {
	if err := fs.newInode(); err != nil {
		return nil, err
	}
	r := &regular{}
	r.init(fs, abi.S_IFREG|mode, ctx.Cred().FSUID, ctx.Cred().FSGID, 0)
	if !sealable {
		r.seals.Store(abi.F_SEAL_SEAL)
	}
	p, err := m.AnonPath(ctx, r, "/memfd:"+name)
	if err != nil {
		return nil, err
	}
	r.Pin()
	return vfs.NewFile(&file{r: r}, abi.O_RDWR|abi.O_LARGEFILE, p), nil
}

// MemfdMaker makes what vfs.VFS.Memfd is set to: an internal instance that
// holds all memfds of the sandbox, of size bytes at most (zero: unlimited).
func MemfdMaker(ctx vfs.Context, v *vfs.VFS, pf *pagefile.File, size uint64) (func(ctx vfs.Context, name string, mode uint16, sealable bool) (*vfs.File, error), error) {
	fs := New(v, pf, Options{Size: size})
	m, err := v.NewKernelMount(ctx, fs)
	if err != nil {
		return nil, err
	}
	return func(ctx vfs.Context, name string, mode uint16, sealable bool) (*vfs.File, error) {
		return fs.NewMemfd(ctx, m, name, mode, sealable)
	}, nil
}
