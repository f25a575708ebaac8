package tmpfs

import (
	"math/bits"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/vfs"
)

// maxSize bounds st_size so that page arithmetic can't overflow.
const maxSize = 1<<63 - 1 - pageSize

// regular is a regular file. Its content lies in segments: ranges of the page
// file reserved for ranges of the file, larger than needed so that the file can
// grow in place. The host allocates their pages when they are written.
type regular struct {
	vfs.LeafDefaults
	node

	size     atomic.Int64 // changed with mu held
	opens    atomic.Int32
	gone     atomic.Bool // evicted: no name and nobody has it open
	linkable bool        // made by O_TMPFILE and never linked; guarded by node.mu
	seals    atomic.Uint32

	// mu is the content lock: held for reading while content is read, and
	// exclusively by writes and truncation.
	mu sync.RWMutex

	// pageMu guards the layout; memory managers take it through Translate.
	pageMu   sync.Mutex
	segs     []segment
	present  map[uint64]*leaf // by page number / leafPages
	count    int64            // bits set in present
	maps     map[mapNote]int
	nmaps    int
	touched  bool // pages may exist that present does not know: mapped for writing
	mmappedW bool // mapped shared by a writable file description (seals)
}

// segment reserves the page file's [pf, pf+len) for the file's [off, off+len).
type segment struct{ off, len, pf uint64 }

// leaf says which of leafPages pages were written.
type leaf [leafPages / 64]uint64

const leafPages = 4096

// mapNote is one AddMapping.
type mapNote struct {
	inv      mm.Invalidator
	off, len uint64
}

// Attr implements vfs.Inode.
func (r *regular) Attr(vfs.Context) (vfs.Attr, error) {
	a := r.attr()
	a.Size = uint64(r.size.Load())
	a.Blocks = r.blocks()
	return a, nil
}

// blocks is st_blocks: what the host holds, if mappings may have made pages.
func (r *regular) blocks() uint64 {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	if !r.touched {
		return uint64(r.count) * (pageSize / 512)
	}
	n := uint64(0)
	for _, s := range r.segs {
		n += r.fs.pf.Resident(s.pf, s.len)
	}
	return n / 512
}

// SetAttr implements vfs.Inode.
func (r *regular) SetAttr(ctx vfs.Context, s *vfs.SetAttr) error {
	if s.SetSize {
		if err := r.truncate(int64(s.Size)); err != nil {
			return err
		}
	}
	return r.node.SetAttr(ctx, s)
}

// Pin implements vfs.Pinner: opens and O_PATH descriptors keep the content.
func (r *regular) Pin() bool {
	r.opens.Add(1)
	if r.gone.Load() {
		r.opens.Add(-1)
		return false
	}
	return true
}

// Unpin implements vfs.Pinner.
func (r *regular) Unpin() {
	if r.opens.Add(-1) == 0 {
		r.evictIfUnused()
	}
}

// evictIfUnused gives the content back once the file has no name and no user.
func (r *regular) evictIfUnused() {
	r.node.mu.Lock()
	dead := r.nlink == 0 && r.opens.Load() == 0 && !r.gone.Load()
	if dead {
		r.gone.Store(true)
		// A Pin between the two looks undoes itself, or undoes this.
		if r.opens.Load() != 0 {
			r.gone.Store(false)
			dead = false
		}
	}
	r.node.mu.Unlock()
	if !dead {
		return
	}
	r.fs.inodes.Add(-1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut(0)
}

// find returns the index of the segment that holds off, or of the next one.
// pageMu is held.
func (r *regular) find(off uint64) (int, bool) {
	i := sort.Search(len(r.segs), func(i int) bool { return r.segs[i].off+r.segs[i].len > off })
	return i, i < len(r.segs) && r.segs[i].off <= off
}

// reserve makes sure that [off, off+n), page aligned, lies in segments. pageMu is held.
func (r *regular) reserve(off, n uint64) error {
	end := off + n
	for off < end {
		i, ok := r.find(off)
		if ok {
			off = r.segs[i].off + r.segs[i].len
			continue
		}
		room := ^uint64(0)
		if i < len(r.segs) {
			room = r.segs[i].off
		}
		// Grow by doubling, in place if the page file has the room.
		have := uint64(0)
		if i > 0 && r.segs[i-1].off+r.segs[i-1].len == off {
			have = r.segs[i-1].len
		}
		want := max(end-off, min(max(have, 16<<10), 256<<20))
		if off+want < off || off+want > room {
			want = room - off
		}
		want = min(want, 1<<40)
		if have != 0 && r.fs.pf.AllocAt(r.segs[i-1].pf+have, want) {
			r.segs[i-1].len += want
			continue
		}
		g := pagefile.Up
		if end-off <= 16<<10 && have == 0 {
			g = pagefile.Fixed // most files are small and never grow
		}
		pf, err := r.fs.pf.AllocGrow(want, g)
		if err != nil {
			if want > end-off {
				want = end - off
				pf, err = r.fs.pf.AllocGrow(want, pagefile.Fixed)
			}
			if err != nil {
				return abi.ENOSPC
			}
		}
		r.segs = slices.Insert(r.segs, i, segment{off, want, pf})
	}
	return nil
}

// isPresent reports whether page pg was written. pageMu is held.
func (r *regular) isPresent(pg uint64) bool {
	l := r.present[pg/leafPages]
	return l != nil && l[pg%leafPages/64]>>(pg%64)&1 != 0
}

// mark notes pages [pg, end) as written, and charges for new ones: it returns
// how many could be paid for before ENOSPC. pageMu is held.
func (r *regular) mark(pg, end uint64) (uint64, error) {
	for p := pg; p < end; p++ {
		l := r.present[p/leafPages]
		if l == nil {
			if r.present == nil {
				r.present = make(map[uint64]*leaf)
			}
			l = new(leaf)
			r.present[p/leafPages] = l
		}
		w, b := &l[p%leafPages/64], uint64(1)<<(p%64)
		if *w&b == 0 {
			if err := r.fs.charge(1); err != nil {
				return p - pg, err
			}
			*w |= b
			r.count++
		}
	}
	return end - pg, nil
}

// markHoles is mark for [pg, end) as a whole: if not all can be paid for, the
// pages that were there before stay, and no others. pageMu is held.
func (r *regular) markHoles(pg, end uint64) error {
	type hole struct{ pg, end uint64 }
	var made []hole
	for pg < end {
		if r.isPresent(pg) {
			pg++
			continue
		}
		h := hole{pg, pg + 1}
		for h.end < end && !r.isPresent(h.end) {
			h.end++
		}
		n, err := r.mark(h.pg, h.end)
		made = append(made, hole{h.pg, h.pg + n})
		if err != nil {
			for _, m := range made {
				r.unmark(m.pg, m.end)
			}
			return err
		}
		pg = h.end
	}
	return nil
}

// unmark forgets the pages [pg, end). pageMu is held.
func (r *regular) unmark(pg, end uint64) {
	freed := 0
	for k, l := range r.present {
		lo, hi := max(pg, k*leafPages), min(end, (k+1)*leafPages)
		if lo >= hi {
			continue
		}
		if hi-lo == leafPages {
			for _, w := range l {
				freed += bits.OnesCount64(w)
			}
			delete(r.present, k)
			continue
		}
		for p := lo; p < hi; p++ {
			w, b := &l[p%leafPages/64], uint64(1)<<(p%64)
			if *w&b != 0 {
				*w &^= b
				freed++
			}
		}
	}
	r.count -= int64(freed)
	r.fs.charge(-int64(freed))
}

// run describes content from off on: n bytes, in the page file at pf; hole says
// that there is nothing, or (maybe) that only the host knows.
type run struct {
	pf    uint64
	n     uint64
	hole  bool
	maybe bool
}

// runAt finds the next run of at most n bytes. pageMu is not held.
func (r *regular) runAt(off, n uint64) run {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	i, ok := r.find(off)
	if !ok {
		if i < len(r.segs) {
			n = min(n, r.segs[i].off-off)
		}
		return run{n: n, hole: true}
	}
	s := r.segs[i]
	in := off - s.off
	n = min(n, s.len-in)
	pg := off / pageSize
	p := r.isPresent(pg)
	m := pageSize - off&pageMask
	for m < n && r.isPresent(pg+1) == p {
		m += pageSize
		pg++
	}
	out := run{pf: s.pf + in, n: min(m, n)}
	if !p {
		out.maybe = r.touched
		out.hole = !r.touched
	}
	return out
}

// snapshotMaps lists who maps pages of [off, end). pageMu is held.
func (r *regular) snapshotMaps(off, end uint64) []mm.Invalidator {
	var out []mm.Invalidator
	for k := range r.maps {
		if k.off < end && k.off+k.len > off && !slices.Contains(out, k.inv) {
			out = append(out, k.inv)
		}
	}
	return out
}

// invalidate makes all that map [off, end) look again. Only mu is held.
func (r *regular) invalidate(off, end uint64) {
	r.pageMu.Lock()
	invs := r.snapshotMaps(off, end)
	r.pageMu.Unlock()
	for _, inv := range invs {
		inv.InvalidateFile(r, off, end-off)
	}
}

// cut removes the content from off, a page border, on. mu is held.
func (r *regular) cut(off uint64) {
	r.invalidate(off, ^uint64(0)&^pageMask)
	r.pageMu.Lock()
	r.unmark(off/pageSize, ^uint64(0)/pageSize)
	var free []pagefile.Range
	for len(r.segs) > 0 {
		s := &r.segs[len(r.segs)-1]
		if s.off+s.len <= off {
			break
		}
		if s.off >= off {
			free = append(free, pagefile.Range{Off: s.pf, Len: s.len})
			r.segs = r.segs[:len(r.segs)-1]
			continue
		}
		keep := off - s.off
		free = append(free, pagefile.Range{Off: s.pf + keep, Len: s.len - keep})
		s.len = keep
	}
	r.pageMu.Unlock()
	if len(free) > 0 {
		r.fs.pf.DecRefs(free, nil)
	}
}

// truncate changes the size.
func (r *regular) truncate(size int64) error {
	if size < 0 {
		return abi.EINVAL
	}
	if size > maxSize {
		return abi.EFBIG
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.truncateLocked(size)
}

func (r *regular) truncateLocked(size int64) error {
	old := r.size.Load()
	seals := r.seals.Load()
	if size < old && seals&abi.F_SEAL_SHRINK != 0 || size > old && seals&abi.F_SEAL_GROW != 0 {
		return abi.EPERM
	}
	// The new size first: whoever faults from now on sees it.
	r.size.Store(size)
	if size < old {
		r.zero(uint64(size), roundUp(uint64(size)))
		r.cut(roundUp(uint64(size)))
	} else if old != size && old&pageMask != 0 {
		// A mapping may have written behind the old end; that must not show.
		r.zero(uint64(old), min(uint64(size), roundUp(uint64(old))))
		if old/pageSize != size/pageSize {
			r.invalidateGrown(uint64(old))
		}
	}
	return nil
}

// invalidateGrown is for mappings that met the end of the file: nothing to do,
// because pages behind the end are never mapped.
func (r *regular) invalidateGrown(uint64) {}

func roundUp(n uint64) uint64 { return (n + pageMask) &^ pageMask }

// zero clears [off, end) where there is content. mu is held.
func (r *regular) zero(off, end uint64) {
	for off < end {
		x := r.runAt(off, end-off)
		if x.maybe {
			r.fs.pf.Extents(x.pf, x.n, func(g pagefile.Range) bool { r.clear(g.Off, g.Len); return true })
		} else if !x.hole {
			r.clear(x.pf, x.n)
		}
		off += x.n
	}
}

func (r *regular) clear(pf, n uint64) {
	for n > 0 {
		s := r.fs.pf.Slice(pf, n)
		clear(s)
		pf, n = pf+uint64(len(s)), n-uint64(len(s))
	}
}

// punch makes a hole of [off, end): whole pages go, parts are cleared. mu is held.
func (r *regular) punch(off, end uint64) {
	lo, hi := roundUp(off), end&^pageMask
	if lo >= hi {
		r.zero(off, end)
		return
	}
	r.zero(off, lo)
	r.zero(hi, end)
	r.pageMu.Lock()
	var rs []pagefile.Range
	for i, _ := r.find(lo); i < len(r.segs) && r.segs[i].off < hi; i++ {
		s := r.segs[i]
		a, b := max(lo, s.off), min(hi, s.off+s.len)
		rs = append(rs, pagefile.Range{Off: s.pf + a - s.off, Len: b - a})
	}
	if len(rs) > 0 {
		r.unmark(lo/pageSize, hi/pageSize)
	}
	r.pageMu.Unlock()
	// The pages of mappings are the page file's own, so punching there shows
	// zeroes in them at once.
	for _, g := range rs {
		r.fs.pf.Punch(g.Off, g.Len)
	}
}

// PunchHole is madvise(MADV_REMOVE) on a mapping of the file.
func (r *regular) PunchHole(off, length uint64) error {
	if r.seals.Load()&(abi.F_SEAL_WRITE|abi.F_SEAL_FUTURE_WRITE) != 0 {
		return abi.EPERM
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.punch(off, off+length)
	return nil
}

// allocate makes pages for [off, end), as fallocate does. mu is held.
func (r *regular) allocate(off, end uint64) error {
	lo, hi := off&^pageMask, roundUp(end)
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	if lim := r.fs.opt.Size; lim != 0 && hi-lo > roundUp(lim) {
		return abi.ENOSPC // before all its pages are looked at
	}
	if err := r.reserve(lo, hi-lo); err != nil {
		return err
	}
	if err := r.markHoles(lo/pageSize, hi/pageSize); err != nil {
		return err
	}
	for i, _ := r.find(lo); i < len(r.segs) && r.segs[i].off < hi; i++ {
		s := r.segs[i]
		a, b := max(lo, s.off), min(hi, s.off+s.len)
		// If the host refuses, pages come when they are touched.
		unix.Fallocate(r.fs.pf.FD(), 0, int64(s.pf+a-s.off), int64(b-a))
	}
	return nil
}

// Translate implements mm.Mappable.
func (r *regular) Translate(off, length uint64, write bool) ([]mm.Piece, error) {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	end := roundUp(uint64(r.size.Load()))
	if off >= end {
		return nil, nil
	}
	if end-off < length {
		length = end - off
	}
	if err := r.reserve(off, length); err != nil {
		return nil, err
	}
	if write {
		r.touched = true
	}
	var out []mm.Piece
	stop := off + length
	for i, _ := r.find(off); i < len(r.segs) && off < stop; i++ {
		s := r.segs[i]
		n := min(s.off+s.len, stop) - off
		out = append(out, mm.Piece{Off: off, Len: n, FD: r.fs.pf.FD(), FDOff: int64(s.pf + off - s.off),
			Max: platform.Read | platform.Write | platform.Exec})
		off += n
	}
	return out, nil
}

// AddMapping implements mm.Mappable.
func (r *regular) AddMapping(inv mm.Invalidator, off, length uint64) {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	if r.maps == nil {
		r.maps = make(map[mapNote]int)
	}
	r.maps[mapNote{inv, off, length}]++
	r.nmaps++
}

// RemoveMapping implements mm.Mappable.
func (r *regular) RemoveMapping(inv mm.Invalidator, off, length uint64) {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	k := mapNote{inv, off, length}
	if r.maps[k]--; r.maps[k] <= 0 {
		delete(r.maps, k)
	}
	if r.nmaps--; r.nmaps == 0 {
		r.mmappedW = false
	}
}
