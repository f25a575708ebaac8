// Package pagefile manages the sandbox's page file: one sparse memfd that backs
// anonymous guest memory, tmpfs and copies of private file pages. It hands out
// offsets with a reference count per page, and host views of their content.
//
// It does not know who uses a page or where guests map it. Offsets are
// reserved, not memory: the host allocates a page at its first touch, and a
// reservation of any size costs nothing. Freed ranges are given back to the
// host in bulk by a goroutine that exists only while there is something to do.
//
// Lock order: File.mu and File.mapMu are leaves. Flushers are called with
// neither held.
package pagefile

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/spanset"
)

const (
	pageSize = 4096
	pageMask = pageSize - 1

	// Size is the length of the file in bytes: far more than a sandbox can
	// touch, so that nobody ever meets its end (and SIGBUS).
	Size = 1 << 47

	chunkShift = 26 // 64 MiB of host mapping at a time
	chunkSize  = 1 << chunkShift
	leafShift  = 10
	leafLen    = 1 << leafShift
	dirLen     = Size >> (chunkShift + leafShift)

	// punchBytes of freed memory start a round of hole punching at once;
	// less waits for punchDelay, so that neighbours are freed together.
	punchBytes = 16 << 20
	punchDelay = 20 * time.Millisecond

	// scanSpans bounds the search for a gap to reuse.
	scanSpans = 64

	// slack is kept free beside an allocation that is expected to grow.
	slack = 2 << 20
)

// A Flusher makes sure that no guest can reach memory that it gave back:
// platform.AddressSpace is one.
type Flusher interface{ Flush() error }

// A Range is a piece of the file.
type Range struct{ Off, Len uint64 }

type leaf [leafLen]atomic.Pointer[[]byte]

// File is the page file.
type File struct {
	fd  int
	dir [dirLen]atomic.Pointer[leaf]

	mapMu sync.Mutex // serialises new host mappings

	mu    sync.Mutex
	runs  spanset.Set[int32]    // reference counts
	free  spanset.Set[struct{}] // zero and unused
	limit uint64                // everything from here on was never used; not in free

	dead     []freed // freed, not yet punched
	deadLen  uint64
	punching bool // a timer or goroutine is on its way
	punched  *sync.Cond
}

type freed struct {
	Range
	after Flusher
}

// New makes a File of an empty memfd, which it sizes and owns.
func New(fd int) (*File, error) {
	if err := unix.Ftruncate(fd, Size); err != nil {
		return nil, fmt.Errorf("size the page file: %w", err)
	}
	f := &File{fd: fd, limit: pageSize} // offset 0 stays unused: it reads as "none" in dumps
	f.runs.Init(nil, func(a int32, _ uint64, b int32) bool { return a == b })
	f.free.Init(nil, func(struct{}, uint64, struct{}) bool { return true })
	f.punched = sync.NewCond(&f.mu)
	return f, nil
}

// FD is the host descriptor.
func (f *File) FD() int { return f.fd }

// Usage is how many bytes of host memory the file holds.
func (f *File) Usage() uint64 {
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil {
		return 0
	}
	return uint64(st.Blocks) * 512
}

// Growth says where an allocation will be extended, so that room is left there
// and the two can be one mapping.
type Growth int

// The directions.
const (
	Fixed Growth = iota
	Up
	Down
)

// Alloc reserves length bytes of zero pages with a reference count of one.
func (f *File) Alloc(length uint64) (uint64, error) { return f.AllocGrow(length, Fixed) }

// AllocGrow is Alloc with room left for AllocAt in one direction.
func (f *File) AllocGrow(length uint64, g Growth) (uint64, error) {
	if length == 0 || length&pageMask != 0 {
		panic("pagefile: bad length")
	}
	if length > Size/2 {
		return 0, abi.ENOMEM
	}
	need := length
	if g != Fixed {
		need += slack
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	start, end, ok := f.gap(need)
	if !ok {
		return 0, abi.ENOMEM
	}
	off := start
	if g == Down {
		off = end - length
	}
	f.take(off, length)
	return off, nil
}

// gap finds need free bytes, returning an exact range of that size.
func (f *File) gap(need uint64) (start, end uint64, ok bool) {
	n := 0
	f.free.Ascend(0, Size, func(s spanset.Span[struct{}]) bool {
		if s.Len() >= need {
			start, end, ok = s.Start, s.Start+need, true
			return false
		}
		n++
		return n < scanSpans
	})
	if !ok {
		if Size-f.limit < need {
			return 0, 0, false
		}
		start, end, ok = f.limit, f.limit+need, true
	}
	return
}

// AllocAt reserves exactly [off, off+length) and reports whether it was free.
// Memory managers use it to keep neighbours in guest memory neighbours here.
func (f *File) AllocAt(off, length uint64) bool {
	if off < pageSize || off >= Size || length > Size-off || off&pageMask != 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < f.limit {
		s, ok := f.free.Find(off)
		if !ok || s.End < min(off+length, f.limit) {
			return false
		}
	}
	f.take(off, length)
	return true
}

// take marks a free range as used once. f.mu is held.
func (f *File) take(off, length uint64) {
	end := off + length
	if off > f.limit {
		f.free.InsertMerge(spanset.Span[struct{}]{Start: f.limit, End: off})
	}
	if off < f.limit {
		f.free.Remove(nil, off, min(end, f.limit))
	}
	f.limit = max(f.limit, end)
	f.runs.InsertMerge(spanset.Span[int32]{Start: off, End: end, Val: 1})
}

// IncRef adds a reference to each page of the range, all of which are in use.
func (f *File) IncRef(off, length uint64) {
	f.mu.Lock()
	f.addRefs(off, length, 1)
	f.mu.Unlock()
}

// IncRefs is IncRef for many ranges at once.
func (f *File) IncRefs(rs []Range) {
	f.mu.Lock()
	for _, r := range rs {
		f.addRefs(r.Off, r.Len, 1)
	}
	f.mu.Unlock()
}

// DecRef drops a reference to each page; pages without one are freed. No guest
// may reach them any more.
func (f *File) DecRef(off, length uint64) {
	f.mu.Lock()
	f.addRefs(off, length, -1)
	f.mu.Unlock()
}

// DecRefs is DecRef for many ranges that may still be mapped until after.Flush
// returns; after may be nil.
func (f *File) DecRefs(rs []Range, after Flusher) {
	f.mu.Lock()
	for _, r := range rs {
		f.dec(r.Off, r.Len, after)
	}
	f.mu.Unlock()
}

func (f *File) addRefs(off, length uint64, by int32) {
	if by < 0 {
		f.dec(off, length, nil)
		return
	}
	var buf [8]spanset.Span[int32]
	for _, s := range f.runs.Remove(buf[:0], off, off+length) {
		s.Val += by
		f.runs.InsertMerge(s)
	}
}

func (f *File) dec(off, length uint64, after Flusher) {
	var buf [8]spanset.Span[int32]
	sum := uint64(0)
	for _, s := range f.runs.Remove(buf[:0], off, off+length) {
		sum += s.Len()
		if s.Val--; s.Val > 0 {
			f.runs.InsertMerge(s)
			continue
		}
		f.dead = append(f.dead, freed{Range{s.Start, s.Len()}, after})
		f.deadLen += s.Len()
	}
	if sum != length {
		panic(fmt.Sprintf("pagefile: DecRef of unused pages in [%#x, %#x)", off, off+length))
	}
	if len(f.dead) > 0 && !f.punching {
		f.punching = true
		if f.deadLen >= punchBytes {
			go f.punch()
		} else {
			time.AfterFunc(punchDelay, f.punch)
		}
	}
}

// Exclusive returns how many bytes from off on, at most length, have exactly
// one reference: a copy-on-write fault may keep those.
func (f *File) Exclusive(off, length uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := off
	for end < off+length {
		s, ok := f.runs.Find(end)
		if !ok || s.Val != 1 {
			break
		}
		end = s.End
	}
	return min(end, off+length) - off
}

// Refs returns the reference count of the page at off and how many bytes from
// there on, at most length, share that count.
func (f *File) Refs(off, length uint64) (int32, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.runs.Find(off)
	if !ok {
		return 0, length
	}
	return s.Val, min(s.End-off, length)
}

// punch gives freed memory back to the host and makes its offsets usable again.
func (f *File) punch() {
	f.mu.Lock()
	for len(f.dead) > 0 {
		dead := f.dead
		f.dead, f.deadLen = nil, 0
		f.mu.Unlock()

		flushed := make(map[Flusher]bool)
		for i := range dead {
			if fl := dead[i].after; fl != nil && !flushed[fl] {
				flushed[fl] = true
				fl.Flush()
			}
		}
		merged := mergeRanges(dead)
		for _, r := range merged {
			f.Punch(r.Off, r.Len)
		}

		f.mu.Lock()
		for _, r := range merged {
			f.release(r)
		}
	}
	f.punching = false
	f.punched.Broadcast()
	f.mu.Unlock()
}

func (f *File) release(r Range) {
	s := f.free.InsertMerge(spanset.Span[struct{}]{Start: r.Off, End: r.Off + r.Len})
	if s.End == f.limit {
		f.free.Delete(s)
		f.limit = s.Start
	}
}

// Settle waits until freed memory has been given back: for tests, checkpoints
// and reports of memory use.
func (f *File) Settle() {
	f.mu.Lock()
	for f.punching {
		f.punched.Wait()
	}
	f.mu.Unlock()
}

func mergeRanges(in []freed) []Range {
	slices.SortFunc(in, func(a, b freed) int {
		if a.Off < b.Off {
			return -1
		}
		return 1
	})
	var out []Range
	for _, r := range in {
		if n := len(out); n > 0 && out[n-1].Off+out[n-1].Len == r.Off {
			out[n-1].Len += r.Len
		} else {
			out = append(out, r.Range)
		}
	}
	return out
}

// InUse is how many bytes of offsets are reserved (not how much memory).
func (f *File) InUse() (n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs.Ascend(0, Size, func(s spanset.Span[int32]) bool { n += s.Len(); return true })
	return
}
