package mm

import (
	"garrison/abi"
	"garrison/internal/spanset"
	"garrison/platform"
	"garrison/sentry/pagefile"
)

// vmaFlags are the bits of a VMA that distinguish it beside its protection.
type vmaFlags uint16

const (
	vmShared vmaFlags = 1 << iota
	vmGrowsDown
	vmLocked
	vmDontFork
	vmWipeOnFork
	vmNoReserve
	vmDontDump
	vmHuge
	vmNoHuge
	vmSpecial // [vdso], [vvar]: can't grow, not counted as data
)

// A vma is a range of addresses that the guest asked for (vm_area_struct).
type vma struct {
	prot, maxProt platform.Prot
	flags         vmaFlags
	name          string
	ref           *mapping // nil for private anonymous memory
	off           uint64   // offset in ref's Mappable
}

type vspan = spanset.Span[vma]

func cutVMA(v vma, delta uint64) vma {
	if v.ref != nil {
		v.off += delta
	}
	return v
}

func joinVMA(a vma, alen uint64, b vma) bool {
	return a.prot == b.prot && a.maxProt == b.maxProt && a.flags == b.flags && a.ref == b.ref && a.name == b.name &&
		(a.ref == nil || a.off+alen == b.off) && a.flags&vmSpecial == 0
}

func (v *vma) shared() bool { return v.flags&vmShared != 0 }

// anon reports private memory that starts out as zeroes.
func (v *vma) anon() bool { return v.ref == nil }

// data reports whether v counts towards RLIMIT_DATA (mm/mmap.c, is_data_mapping).
func (v *vma) data() bool {
	return v.prot&platform.Write != 0 && v.flags&(vmShared|vmGrowsDown|vmSpecial) == 0
}

// effective adds the rights that x86 can't take away: what can be written or
// executed can be read.
func effective(p platform.Prot) platform.Prot {
	if p != 0 {
		p |= platform.Read
	}
	return p
}

// A mapping ties VMAs to the object that one mmap call mapped. All VMAs that
// descend from it share it; the last byte unmapped gives up the file.
type mapping struct {
	m        Mappable
	file     File // may be nil
	off, len uint64
	live     uint64 // bytes mapped by VMAs; guarded by MM.mu
}

// newMapping takes over a reference on file.
func newMapping(m *MM, obj Mappable, file File, off, length uint64) *mapping {
	obj.AddMapping(m, off, length)
	return &mapping{m: obj, file: file, off: off, len: length}
}

// drop is called without locks, when live is zero.
func (r *mapping) drop(m *MM) {
	r.m.RemoveMapping(m, r.off, r.len)
	if r.file != nil {
		r.file.DecRef()
	}
}

// A pma is what backs a range: pages that the MM owns in the page file, or
// pages of a Mappable (struct pages and page-table entries in Linux).
type pma struct {
	off   uint64 // in the host file
	fd    int32
	owned bool // the MM holds a page-file reference; else pages belong to the Mappable
	cow   bool // owned, but others may have references too: not to be written
	wr    bool // not owned: translated for writing
	max   platform.Prot
}

type pspan = spanset.Span[pma]

func cutPMA(p pma, delta uint64) pma { p.off += delta; return p }

func joinPMA(a pma, alen uint64, b pma) bool {
	return a.fd == b.fd && a.owned == b.owned && a.cow == b.cow && a.wr == b.wr && a.max == b.max && a.off+alen == b.off
}

// hostProt is what the platform maps where v and p meet; 0 is not mapped.
func hostProt(v *vma, p *pma) platform.Prot {
	prot := effective(v.prot)
	if p.owned {
		if p.cow {
			prot &^= platform.Write
		}
		return prot
	}
	prot &= p.max | platform.Read
	if !v.shared() || !p.wr {
		prot &^= platform.Write
	}
	return prot
}

// bump makes cached translations stale.
func (m *MM) bump() { m.gen++ }

// account adds a VMA's size to the counters, or takes it away.
func (m *MM) account(v vspan, sign uint64) {
	n := v.Len() * sign
	m.totalVM += n
	if v.Val.data() {
		m.dataVM += n
	}
	if v.Val.flags&vmGrowsDown != 0 {
		m.stackVM += n
	}
	if v.Val.flags&vmLocked != 0 {
		m.lockedVM += n
	}
	if v.Val.shared() {
		m.sharedVM += n
	}
	m.maxTotalVM = max(m.maxTotalVM, m.totalVM)
}

const minus = ^uint64(0) // account's sign for removal

// insertVMA adds a VMA where none is.
func (m *MM) insertVMA(v vspan) {
	m.bump()
	m.account(v, 1)
	if v.Val.ref != nil {
		v.Val.ref.live += v.Len()
	}
	m.vmas.InsertMerge(v)
}

// removeVMAs takes the VMAs of [lo, hi) out of the set.
func (m *MM) removeVMAs(buf []vspan, lo, hi uint64) []vspan {
	m.bump()
	from := len(buf)
	buf = m.vmas.Remove(buf, lo, hi)
	for _, v := range buf[from:] {
		m.account(v, minus)
		if r := v.Val.ref; r != nil {
			if r.live -= v.Len(); r.live == 0 {
				m.drops = append(m.drops, r)
			}
		}
	}
	if hi > m.holeTop {
		m.holeTop, m.holeMax = m.mmapBase, 0
	}
	return buf
}

// dropPMAs gives up the backing of [lo, hi). The platform must no longer map it.
func (m *MM) dropPMAs(lo, hi uint64) {
	m.bump()
	var buf [16]pspan
	var free [16]pagefile.Range
	pages := free[:0]
	for _, p := range m.pmas.Remove(buf[:0], lo, hi) {
		if p.Val.owned {
			pages = append(pages, pagefile.Range{Off: p.Val.off, Len: p.Len()})
		}
	}
	if len(pages) > 0 {
		m.pf.DecRefs(pages, m)
	}
}

// unmapRange makes [lo, hi) empty.
func (m *MM) unmapRange(lo, hi uint64) error {
	if !m.vmas.Overlaps(lo, hi) {
		return nil
	}
	if m.pmas.Overlaps(lo, hi) { // else the platform maps nothing there
		if err := m.as.Unmap(lo, hi-lo); err != nil {
			return abi.FromHost(err)
		}
	}
	var buf [16]vspan
	m.removeVMAs(buf[:0], lo, hi)
	m.dropPMAs(lo, hi)
	return nil
}

// remap maps everything in [lo, hi) that is backed, as it should be.
func (m *MM) remap(lo, hi uint64, populate bool) error {
	var vbuf [8]vspan
	var pbuf [8]pspan
	for _, v := range m.vmas.Collect(vbuf[:0], lo, hi) {
		for _, p := range m.pmas.Collect(pbuf[:0], v.Start, v.End) {
			prot := hostProt(&v.Val, &p.Val)
			if prot == 0 {
				continue
			}
			err := m.as.Map(platform.Mapping{Addr: p.Start, Len: p.Len(), FD: int(p.Val.fd), Off: int64(p.Val.off), Prot: prot, Populate: populate})
			if err != nil {
				return abi.FromHost(err)
			}
		}
	}
	return nil
}

// back gives everything in [lo, hi), which lies in v, a backing; what has one
// keeps it. New backing is mapped. Parts of a file mapping behind the end of
// the file stay without.
func (m *MM) back(v vspan, lo, hi uint64, write, populate bool) error {
	var gbuf [8]gap
	for _, g := range m.gaps(gbuf[:0], lo, hi) {
		var err error
		if v.Val.anon() {
			err = m.backAnon(&v.Val, g.lo, g.hi)
		} else {
			err = m.backFile(v, g.lo, g.hi, write)
		}
		if err == nil {
			err = m.remap(g.lo, g.hi, populate)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type gap struct{ lo, hi uint64 }

// gaps appends the parts of [lo, hi) that have no backing.
func (m *MM) gaps(buf []gap, lo, hi uint64) []gap {
	at := lo
	m.pmas.Ascend(lo, hi, func(p pspan) bool {
		if p.Start > at {
			buf = append(buf, gap{at, p.Start})
		}
		at = p.End
		return true
	})
	if at < hi {
		buf = append(buf, gap{at, hi})
	}
	return buf
}

// allocAt reserves page-file offsets for [lo, hi), next to those of its
// neighbours if it can, so that the platform's mappings merge.
// grow says where the next neighbour is expected.
func (m *MM) allocAt(lo, hi uint64, grow pagefile.Growth) (uint64, error) {
	n := hi - lo
	if p, ok := m.pmas.Find(lo - 1); ok && p.Val.owned && p.End == lo {
		if off := p.Val.off + p.Len(); m.pf.AllocAt(off, n) {
			return off, nil
		}
	}
	if p, ok := m.pmas.Find(hi); ok && p.Val.owned && p.Start == hi && p.Val.off >= n {
		if off := p.Val.off - n; m.pf.AllocAt(off, n) {
			return off, nil
		}
	}
	return m.pf.AllocGrow(n, grow)
}

func (m *MM) backAnon(v *vma, lo, hi uint64) error {
	grow := pagefile.Down // mmap places new areas below the old ones
	if v.name == "[heap]" {
		grow = pagefile.Up
	}
	off, err := m.allocAt(lo, hi, grow)
	if err != nil {
		return err
	}
	m.bump()
	m.pmas.InsertMerge(pspan{Start: lo, End: hi, Val: pma{off: off, fd: int32(m.pf.FD()), owned: true}})
	return nil
}

func (m *MM) backFile(v vspan, lo, hi uint64, write bool) error {
	write = write && v.Val.shared()
	off := v.Val.off + (lo - v.Start)
	pieces, err := v.Val.ref.m.Translate(off, hi-lo, write)
	if err != nil {
		return err
	}
	m.bump()
	for _, p := range pieces {
		// The Mappable's answers are not trusted to stay within the question.
		start := lo + (p.Off - off)
		end := start + (p.Len+pageMask)&^uint64(pageMask)
		if p.Off < off || start >= hi || end <= start {
			continue
		}
		end = min(end, hi)
		if m.pmas.Overlaps(start, end) {
			continue
		}
		m.pmas.InsertMerge(pspan{Start: start, End: end, Val: pma{off: uint64(p.FDOff), fd: int32(p.FD), wr: write, max: p.Max}})
	}
	return nil
}
