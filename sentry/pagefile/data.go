package pagefile

import (
	"bytes"
	"sync"

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

// copyChunk is how much Copy moves at a time.
const copyChunk = 256 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyChunk]byte) }}

// Copy copies whole pages from src to dst, which must be zero. What is zero
// stays a hole. It goes through a buffer: reading the file allocates no memory
// for holes, as touching a mapping would, and finding the end of an extent
// would cost the host a walk over all of it.
func (f *File) Copy(dst, src, length uint64) error {
	buf := copyBuffers.Get().(*[copyChunk]byte)
	defer copyBuffers.Put(buf)
	for at, end := src, src+length; at < end; {
		data, err := unix.Seek(f.fd, int64(at), unix.SEEK_DATA)
		if err != nil || uint64(data) >= end {
			return nil // ENXIO: nothing but holes
		}
		at = uint64(data) &^ pageMask
		b := buf[:min(copyChunk, end-at)]
		if err := f.Read(b, at); err != nil {
			return err
		}
		for i := 0; i < len(b); {
			if isZero(b[i : i+pageSize]) {
				i += pageSize
				continue
			}
			j := i + pageSize
			for j < len(b) && !isZero(b[j:j+pageSize]) {
				j += pageSize
			}
			// A write of whole pages spares the host zeroing them first.
			if err := f.write(b[i:j], dst+(at-src)+uint64(i)); err != nil {
				return err
			}
			i = j
		}
		at += uint64(len(b))
	}
	return nil
}

func (f *File) write(p []byte, off uint64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(f.fd, p, int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// isZero reports whether a page is zero. It looks at a few bytes first.
func isZero(p []byte) bool {
	if p[0]|p[pageSize/2]|p[pageSize-1] != 0 {
		return false
	}
	return bytes.Equal(p, zeroPage[:])
}

var zeroPage [pageSize]byte

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
