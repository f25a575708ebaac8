package gofer

import (
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// A regFile is an open regular file: all data goes through the descriptors that
// the Gofer has donated, straight to and from guest memory.
type regFile struct {
	vfs.FileDefaults
	i *inode
}

// Release implements vfs.FileOps.
func (r *regFile) Release(*vfs.File) { r.i.res.released() }

// Read implements vfs.FileOps.
func (d *dirFile) Read(vfs.Context, *vfs.File, *usermem.Buffer, int64, vfs.IOFlags) (int64, error) {
	return 0, abi.EISDIR
}

// Read implements vfs.FileOps.
func (r *regFile) Read(_ vfs.Context, _ *vfs.File, dst *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, error) {
	if off < 0 {
		return 0, abi.EINVAL
	}
	fd := int(r.i.res.readFD.Load())
	if fd < 0 {
		return 0, abi.EBADF
	}
	want := dst.Len()
	if off > math.MaxInt64-int64(want) {
		want = int(math.MaxInt64 - off)
	}
	t := transfers.Get().(*transfer)
	t.fd, t.off = fd, off
	n, err := dst.Access(want, true, t.read)
	transfers.Put(t)
	if n > 0 {
		return int64(n), nil
	}
	return 0, abi.FromHost(err)
}

// A transfer is a read or write under way, as functions for usermem.Buffer.Access
// that are made once: closures made for each call would be garbage each.
type transfer struct {
	fd          int
	off         int64
	read, write func([]byte) (int, error)
}

var transfers = sync.Pool{New: func() any {
	t := &transfer{}
	t.read = func(p []byte) (int, error) {
		for {
			n, err := unix.Pread(t.fd, p, t.off)
			if err != unix.EINTR {
				n = max(n, 0)
				t.off += int64(n)
				return n, err
			}
		}
	}
	t.write = func(p []byte) (int, error) {
		for {
			n, err := unix.Pwrite(t.fd, p, t.off)
			if err != unix.EINTR {
				n = max(n, 0)
				t.off += int64(n)
				return n, err
			}
		}
	}
	return t
}}

// Write implements vfs.FileOps.
func (r *regFile) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, off int64, fl vfs.IOFlags) (n, end int64, err error) {
	i := r.i
	fd := int(i.res.writeFD.Load())
	if fd < 0 {
		return 0, 0, abi.EBADF
	}
	i.ioMu.Lock()
	defer i.ioMu.Unlock()
	if (f != nil && f.Append() || fl&abi.RWF_APPEND != 0) && fl&abi.RWF_NOAPPEND == 0 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return 0, 0, abi.FromHost(err)
		}
		off = st.Size
	}
	if off < 0 {
		return 0, 0, abi.EINVAL
	}
	if src.Len() == 0 {
		return 0, off, nil
	}
	limit := sizeLimit(ctx)
	if uint64(off) >= limit {
		return 0, 0, tooBig(ctx)
	}
	src.Limit(int(min(uint64(src.Len()), limit-uint64(off))))
	t := transfers.Get().(*transfer)
	t.fd, t.off = fd, off
	k, err := src.Access(src.Len(), false, t.write)
	end = t.off
	transfers.Put(t)
	i.stale()
	if k == 0 {
		return 0, off, abi.FromHost(err)
	}
	if flags := fileFlags(f); flags&(abi.O_SYNC|abi.O_DSYNC) != 0 || fl&(abi.RWF_SYNC|abi.RWF_DSYNC) != 0 {
		if err := sync1(fd, flags&abi.O_SYNC != abi.O_SYNC && fl&abi.RWF_SYNC == 0); err != nil {
			return 0, off, err
		}
	}
	return int64(k), end, nil
}

func fileFlags(f *vfs.File) uint32 {
	if f == nil {
		return 0
	}
	return f.Flags()
}

// Seek implements vfs.FileOps.
func (r *regFile) Seek(_ vfs.Context, _ *vfs.File, cur, off int64, whence int) (int64, error) {
	fd := r.i.res.anyFD()
	switch whence {
	case abi.SEEK_SET, abi.SEEK_CUR:
		return vfs.SeekSize(cur, off, 0, whence)
	case abi.SEEK_DATA, abi.SEEK_HOLE:
		// The descriptor's own position means nothing: all I/O names offsets.
		n, err := unix.Seek(fd, off, whence)
		return n, abi.FromHost(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, abi.FromHost(err)
	}
	return vfs.SeekSize(cur, off, st.Size, whence)
}

// Sync implements vfs.FileOps.
func (r *regFile) Sync(_ vfs.Context, _ *vfs.File, data bool) error {
	return sync1(r.i.res.anyFD(), data)
}

func sync1(fd int, data bool) error {
	if data {
		return abi.FromHost(unix.Fdatasync(fd))
	}
	return abi.FromHost(unix.Fsync(fd))
}

// Allocate implements vfs.FileOps.
func (r *regFile) Allocate(ctx vfs.Context, _ *vfs.File, mode uint32, off, length int64) error {
	fd := int(r.i.res.writeFD.Load())
	if fd < 0 {
		return abi.EBADF
	}
	if mode&abi.FALLOC_FL_KEEP_SIZE == 0 && uint64(off)+uint64(length) > sizeLimit(ctx) {
		return tooBig(ctx)
	}
	r.i.ioMu.Lock()
	defer r.i.ioMu.Unlock()
	err := abi.FromHost(unix.Fallocate(fd, mode, off, length))
	r.i.stale()
	if err == nil && mode&(abi.FALLOC_FL_COLLAPSE_RANGE|abi.FALLOC_FL_INSERT_RANGE) != 0 {
		r.i.maps.invalidate(r.i, uint64(off)&^4095, ^uint64(0)&^4095)
	}
	return err
}

// Mappable implements vfs.FileOps.
func (r *regFile) Mappable(_ vfs.Context, _ *vfs.File, prot, flags uint32) (mm.Mappable, error) {
	if flags&abi.MAP_TYPE != abi.MAP_PRIVATE && r.i.res.writeFD.Load() >= 0 {
		// Writes through the mapping change the times without our knowing.
		r.i.maps.written.Store(true)
	}
	return r.i, nil
}

var _ mm.Mappable = (*inode)(nil)

// Translate implements mm.Mappable: the pages are the host file's own. The file
// behind a mapping is open, so its descriptors stay.
func (i *inode) Translate(off, length uint64, write bool) ([]mm.Piece, error) {
	fd, rights := int(i.res.readFD.Load()), platform.Read|platform.Exec
	if wfd := int(i.res.writeFD.Load()); wfd >= 0 && wfd == fd {
		rights |= platform.Write
	}
	if fd < 0 {
		return nil, abi.EACCES
	}
	if i.fs.c.dead.Load() {
		// What is mapped stays; nothing new appears from a file system that is gone.
		return nil, abi.EIO
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, abi.FromHost(err)
	}
	size := (uint64(st.Size) + usermem.PageMask) &^ usermem.PageMask
	if off >= size {
		return nil, nil
	}
	return []mm.Piece{{Off: off, Len: min(length, size-off), FD: fd, FDOff: int64(off), Max: rights}}, nil
}

// AddMapping implements mm.Mappable.
func (i *inode) AddMapping(inv mm.Invalidator, off, length uint64) { i.maps.add(inv, off, length) }

// RemoveMapping implements mm.Mappable.
func (i *inode) RemoveMapping(inv mm.Invalidator, off, length uint64) {
	i.maps.remove(inv, off, length)
}

// mappings is who maps a file, and where.
type mappings struct {
	written atomic.Bool // somebody may have written through a shared mapping

	mu   sync.Mutex
	list map[mapping]int // with how often
}

type mapping struct {
	inv         mm.Invalidator
	off, length uint64
}

func (m *mappings) add(inv mm.Invalidator, off, length uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list == nil {
		m.list = map[mapping]int{}
	}
	m.list[mapping{inv, off, length}]++
}

func (m *mappings) remove(inv mm.Invalidator, off, length uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := mapping{inv, off, length}
	if m.list[k]--; m.list[k] <= 0 {
		delete(m.list, k)
	}
}

// invalidate drops what is mapped of [from, to).
func (m *mappings) invalidate(file mm.Mappable, from, to uint64) {
	m.mu.Lock()
	var hit []mapping
	for k := range m.list {
		if k.off < to && k.off+k.length > from {
			hit = append(hit, k)
		}
	}
	m.mu.Unlock()
	for _, k := range hit {
		lo, hi := max(k.off, from), min(k.off+k.length, to)
		k.inv.InvalidateFile(file, lo, hi-lo)
	}
}
