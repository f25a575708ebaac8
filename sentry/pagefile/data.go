package pagefile

import (
	"golang.org/x/sys/unix"
)

// Slice returns a host view of the file from off on, at most n bytes: less at
// the border of a chunk, so callers loop. Touching it allocates pages; use
// Read where holes may be large. The page must be referenced by the caller.
func (f *File) Slice(off, n uint64) []byte {
	i := off >> chunkShift
	var c *[]byte
	if l := f.dir[i>>leafShift].Load(); l != nil {
		c = l[i&(leafLen-1)].Load()
	}
	if c == nil {
		c = f.mapChunk(i)
	}
	in := off & (chunkSize - 1)
	return (*c)[in:min(in+n, chunkSize):chunkSize]
}

func (f *File) mapChunk(i uint64) *[]byte {
	f.mapMu.Lock()
	defer f.mapMu.Unlock()
	l := f.dir[i>>leafShift].Load()
	if l == nil {
		l = new(leaf)
		f.dir[i>>leafShift].Store(l)
	}
	if c := l[i&(leafLen-1)].Load(); c != nil {
		return c
	}
	b, err := unix.Mmap(f.fd, int64(i<<chunkShift), chunkSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		// Out of address space or of mappings: the Sentry can't go on.
		panic("pagefile: cannot map a chunk: " + err.Error())
	}
	l[i&(leafLen-1)].Store(&b)
	return &b
}

// Punch makes the range read as zero and gives its memory back to the host.
// Mappings of it, the guests' too, see zeroes at once.
func (f *File) Punch(off, length uint64) {
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(length))
	if err == nil {
		return
	}
	// The host refused (a seal, no memory): zero what is there by hand.
	f.Extents(off, length, func(r Range) bool {
		for r.Len > 0 {
			s := f.Slice(r.Off, r.Len)
			clear(s)
			r.Off += uint64(len(s))
			r.Len -= uint64(len(s))
		}
		return true
	})
}

// Extents calls fn for the parts of the range that hold memory, in order,
// until it returns false.
func (f *File) Extents(off, length uint64, fn func(Range) bool) {
	end := int64(off + length)
	for at := int64(off); at < end; {
		data, err := unix.Seek(f.fd, at, unix.SEEK_DATA)
		if err != nil || data >= end {
			return
		}
		hole, err := unix.Seek(f.fd, data, unix.SEEK_HOLE)
		if err != nil {
			return
		}
		hole = min(hole, end)
		if !fn(Range{uint64(data), uint64(hole - data)}) {
			return
		}
		at = hole
	}
}

// Resident is how many bytes of the range hold memory.
func (f *File) Resident(off, length uint64) (n uint64) {
	f.Extents(off, length, func(r Range) bool { n += r.Len; return true })
	return
}

// Copy copies whole pages from src to dst, which must be zero. Holes stay holes.
func (f *File) Copy(dst, src, length uint64) error {
	var err error
	f.Extents(src, length, func(r Range) bool {
		to := dst + (r.Off - src)
		for r.Len > 0 {
			s := f.Slice(r.Off, r.Len)
			// A write that covers whole pages spares the host zeroing them,
			// and us a fault for each.
			n, e := unix.Pwrite(f.fd, s, int64(to))
			if e != nil || n <= 0 {
				if e == unix.EINTR {
					continue
				}
				err = e
				return false
			}
			to, r.Off, r.Len = to+uint64(n), r.Off+uint64(n), r.Len-uint64(n)
		}
		return true
	})
	return err
}

// Read fills p from off without allocating memory for holes.
func (f *File) Read(p []byte, off uint64) error {
	for len(p) > 0 {
		n, err := unix.Pread(f.fd, p, int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}
