package mm

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
)

// MmapOpts are the arguments of Mmap.
type MmapOpts struct {
	Addr usermem.Addr
	Len  uint64
	Prot uint32 // PROT_*
	// Flags are MAP_*. MAP_ANONYMOUS is implied by a nil Mappable.
	Flags uint32
	// MaxProt bounds later mprotect calls (PROT_*); 0 means everything.
	MaxProt uint32
	// Mappable is what to map from Off on; nil maps zeroes.
	Mappable Mappable
	// File is kept open by the mapping, with a reference of its own; may be nil.
	File File
	Off  uint64
	// GrowsDown makes it a stack.
	GrowsDown bool
	// Name is shown by /proc/PID/maps: "[heap]", "[stack]", "[vdso]", "[vvar]".
	Name string
	// Special is for [vdso] and [vvar]: never merged or grown.
	Special bool
	// NoMinAddr allows addresses below MinAddr.
	NoMinAddr bool
}

const protAll = abi.PROT_READ | abi.PROT_WRITE | abi.PROT_EXEC

// pageUp rounds up to pages; 0 on overflow (and for 0).
func pageUp(n uint64) uint64 { return (n + pageMask) &^ uint64(pageMask) }

// CheckMmap makes the checks of Mmap that come before those of the file.
func (m *MM) CheckMmap(o *MmapOpts) error {
	n := pageUp(o.Len)
	switch {
	case o.Len == 0:
		return abi.EINVAL
	case n == 0:
		return abi.ENOMEM
	case o.Off+n < o.Off:
		return abi.EOVERFLOW
	case n > m.layout.Max:
		return abi.ENOMEM
	}
	if o.Flags&(abi.MAP_FIXED|abi.MAP_FIXED_NOREPLACE) != 0 {
		if uint64(o.Addr) > m.layout.Max-n {
			return abi.ENOMEM
		}
		if !o.Addr.PageAligned() {
			return abi.EINVAL
		}
	}
	return nil
}

// Mmap maps memory; errors and their order are those of mmap(2) and
// do_mmap (mm/mmap.c), after the checks of the file, which are the caller's.
func (m *MM) Mmap(o MmapOpts) (usermem.Addr, error) {
	lim := m.lim()
	if o.Len == 0 {
		return 0, abi.EINVAL
	}
	length := pageUp(o.Len)
	if length == 0 {
		return 0, abi.ENOMEM
	}
	if o.Off+length < o.Off {
		return 0, abi.EOVERFLOW
	}
	m.mu.Lock()
	defer m.unlock()
	if m.released {
		return 0, abi.ENOMEM
	}
	if m.vmas.Count() >= MaxMapCount {
		return 0, abi.ENOMEM
	}
	fixed := o.Flags&(abi.MAP_FIXED|abi.MAP_FIXED_NOREPLACE) != 0
	addr, err := m.place(uint64(o.Addr), length, fixed, o.Flags&abi.MAP_FIXED_NOREPLACE != 0, o.Flags&abi.MAP_32BIT != 0)
	if err != nil {
		return 0, err
	}
	if addr < MinAddr && !lim.CanMapLow && !o.NoMinAddr {
		return 0, abi.EPERM
	}
	v := vma{prot: platform.Prot(o.Prot & protAll), maxProt: platform.Prot(protAll), name: o.Name}
	if o.MaxProt != 0 {
		v.maxProt = platform.Prot(o.MaxProt & protAll)
	}
	if o.Flags&abi.MAP_LOCKED != 0 && !lim.CanLock && lim.Memlock == 0 {
		return 0, abi.EPERM
	}
	if o.Flags&abi.MAP_LOCKED != 0 || m.lockFuture {
		if !lim.CanLock && m.lockedVM+length > lim.Memlock {
			return 0, abi.EAGAIN
		}
		v.flags |= vmLocked
	}
	switch o.Flags & abi.MAP_TYPE {
	case abi.MAP_SHARED, abi.MAP_SHARED_VALIDATE:
		if o.GrowsDown || o.Flags&abi.MAP_GROWSDOWN != 0 || (o.Mappable == nil && o.Flags&abi.MAP_TYPE != abi.MAP_SHARED) {
			return 0, abi.EINVAL
		}
		v.flags |= vmShared
	case abi.MAP_PRIVATE:
		if o.GrowsDown || o.Flags&abi.MAP_GROWSDOWN != 0 {
			if o.Mappable != nil {
				return 0, abi.EINVAL
			}
			v.flags |= vmGrowsDown
		}
	default:
		return 0, abi.EINVAL
	}
	if o.Flags&abi.MAP_NORESERVE != 0 {
		v.flags |= vmNoReserve
	}
	if o.Special {
		v.flags |= vmSpecial
	}
	if err := m.mayExpand(&lim, &v, addr, length, fixed); err != nil {
		return 0, err
	}

	if err := m.unmapRange(addr, addr+length); err != nil {
		return 0, err
	}
	switch {
	case o.Mappable != nil:
		if o.File != nil {
			o.File.IncRef()
		}
		v.ref = newMapping(m, o.Mappable, o.File, o.Off, length)
		v.off = o.Off
	case v.shared():
		s, err := NewShared(m.pf, length)
		if err != nil {
			return 0, err
		}
		v.ref = newMapping(m, s, nil, 0, length)
		v.name = "/dev/zero (deleted)"
	}
	sp := vspan{Start: addr, End: addr + length, Val: v}
	m.insertVMA(sp)
	m.repaired()
	populate := o.Flags&(abi.MAP_POPULATE|abi.MAP_LOCKED) != 0 && o.Flags&abi.MAP_NONBLOCK == 0 || m.lockFuture
	populate = populate && m.canPopulate(length)
	// Until it is written, a private mapping shows what happens to the file.
	// Those who lay out programs (ours, and dynamic linkers) don't look.
	eager := o.Flags&(abi.MAP_FIXED|abi.MAP_DENYWRITE) != 0
	if err := m.backNew(sp, populate, eager); err != nil {
		m.unmapRange(sp.Start, sp.End)
		return 0, err
	}
	return usermem.Addr(addr), nil
}

// backNew backs and maps a VMA that was just made, and with eager, copies what
// is sure to be written.
func (m *MM) backNew(v vspan, populate, eager bool) error {
	if v.Val.prot == 0 {
		return nil
	}
	write := v.Val.prot&platform.Write != 0
	private := !v.Val.anon() && !v.Val.shared()
	if write && private && eager && v.Len() <= eagerCopyMax {
		// Copy first and map once: the pages of the file are never mapped.
		if err := m.backFile(v, v.Start, v.End, false); err != nil {
			return nil // a fault will tell
		}
		if err := m.copyFile(v, v.Start, v.End); err == nil {
			return nil
		}
		return m.remap(v.Start, v.End, populate)
	}
	err := m.back(v, v.Start, v.End, write, populate)
	if err != nil && !v.Val.anon() && err != abi.ENOMEM {
		return nil // the file could not say where its pages are; a fault will tell
	}
	return err
}

// mayExpand checks the limits for a new VMA (mm/mmap.c, may_expand_vm, and
// the heuristic overcommit of mm/util.c).
func (m *MM) mayExpand(lim *Limits, v *vma, addr, length uint64, fixed bool) error {
	total, data := m.totalVM, m.dataVM
	if fixed {
		var buf [8]vspan
		for _, old := range m.vmas.Collect(buf[:0], addr, addr+length) {
			total -= old.Len()
			if old.Val.data() {
				data -= old.Len()
			}
		}
	}
	if length > lim.AS || total > lim.AS-length {
		return abi.ENOMEM
	}
	if v.data() && (length > lim.Data || data > lim.Data-length) {
		return abi.ENOMEM
	}
	if lim.TotalMemory != 0 && v.prot&platform.Write != 0 && v.anon() && v.flags&(vmNoReserve|vmShared) == 0 && length > lim.TotalMemory {
		return abi.ENOMEM
	}
	if length > pagefile.Size/2 {
		// Only what is never touched could be this long.
		if v.prot != 0 && v.anon() {
			return abi.ENOMEM
		}
	}
	return nil
}

// startGap is where the room below a VMA ends: stacks keep a guard gap.
func startGap(v vspan) uint64 {
	if v.Val.flags&vmGrowsDown == 0 {
		return v.Start
	}
	if v.Start < stackGuardGap {
		return 0
	}
	return v.Start - stackGuardGap
}

// place chooses the address of a new mapping (get_unmapped_area).
func (m *MM) place(hint, length uint64, fixed, noReplace, low bool) (uint64, error) {
	if length > m.layout.Max {
		return 0, abi.ENOMEM
	}
	if fixed {
		if hint > m.layout.Max-length {
			return 0, abi.ENOMEM
		}
		if hint&pageMask != 0 {
			return 0, abi.EINVAL
		}
		if noReplace && m.vmas.Overlaps(hint, hint+length) {
			return 0, abi.EEXIST
		}
		if hint < m.layout.Min {
			return 0, abi.EPERM
		}
		return hint, nil
	}
	hint &^= pageMask
	if hint != 0 {
		hint = max(hint, MinAddr, m.layout.Min)
		if hint <= m.layout.Max-length && m.free(hint, length) && (!low || hint+length <= 1<<32) {
			return hint, nil
		}
	}
	if low {
		return m.bottomUp(0x40000000, 0x80000000, length)
	}
	if a, ok := m.topDown(length); ok {
		return a, nil
	}
	return m.bottomUp(m.layout.Max/3&^pageMask, m.layout.Max, length)
}

func (m *MM) free(addr, length uint64) bool {
	v, ok := m.vmas.Next(addr)
	return !ok || addr+length <= startGap(v)
}

func (m *MM) topDown(length uint64) (uint64, bool) {
	hi, skipped := m.mmapBase, uint64(0)
	if length > m.holeMax {
		hi, skipped = m.holeTop, m.holeMax
	}
	from := hi
	found := false
	m.vmas.Descend(hi, func(v vspan) bool {
		if v.End <= hi {
			if hi-v.End >= length {
				found = true
				return false
			}
			skipped = max(skipped, hi-v.End)
		}
		hi = min(hi, startGap(v))
		return true
	})
	low := max(m.layout.Min, MinAddr)
	if !found && (hi < low || hi-low < length) {
		return 0, false
	}
	if from == m.mmapBase || length > m.holeMax {
		m.holeTop, m.holeMax = hi-length, skipped
	}
	return hi - length, true
}

func (m *MM) bottomUp(lo, limit, length uint64) (uint64, error) {
	at := lo
	for {
		v, ok := m.vmas.Next(at)
		room := limit
		if ok {
			room = min(limit, startGap(v))
		}
		if room >= at && room-at >= length {
			return at, nil
		}
		if !ok || v.End >= limit {
			return 0, abi.ENOMEM
		}
		at = v.End
	}
}

// Munmap unmaps [addr, addr+length) (munmap(2)).
func (m *MM) Munmap(addr usermem.Addr, length uint64) error {
	a := uint64(addr)
	if a&pageMask != 0 || a > m.layout.Max || length > m.layout.Max-a {
		return abi.EINVAL
	}
	n := pageUp(length)
	if n == 0 {
		return abi.EINVAL
	}
	m.mu.Lock()
	defer m.unlock()
	if v, ok := m.vmas.Find(a); ok && v.Start < a && v.End > a+n && m.vmas.Count() >= MaxMapCount {
		return abi.ENOMEM
	}
	return m.unmapRange(a, a+n)
}

// Brk sets the end of the heap (brk(2)) and returns where it is now: an
// address that can't be had changes nothing.
func (m *MM) Brk(addr usermem.Addr) usermem.Addr {
	lim := m.lim()
	m.mu.Lock()
	defer m.unlock()
	a := uint64(addr)
	cur := m.info.Brk
	if a < m.info.StartBrk || m.released {
		return usermem.Addr(cur)
	}
	if lim.Data != ^uint64(0) && (a-m.info.StartBrk)+(m.info.EndData-m.info.StartData) > lim.Data {
		return usermem.Addr(cur)
	}
	newEnd, oldEnd := pageUp(a), pageUp(cur)
	if newEnd == 0 || newEnd > m.layout.Max {
		return usermem.Addr(cur)
	}
	switch {
	case newEnd < oldEnd:
		if m.unmapRange(newEnd, oldEnd) != nil {
			return usermem.Addr(cur)
		}
	case newEnd > oldEnd:
		v := vma{prot: platform.Read | platform.Write, maxProt: protAll, name: "[heap]"}
		if m.lockFuture {
			v.flags |= vmLocked
			if !lim.CanLock && m.lockedVM+newEnd-oldEnd > lim.Memlock {
				return usermem.Addr(cur)
			}
		}
		// A page stays free above the heap.
		if n, ok := m.vmas.Next(oldEnd); ok && newEnd+pageSize > startGap(n) {
			return usermem.Addr(cur)
		}
		if m.vmas.Count() >= MaxMapCount || m.mayExpand(&lim, &v, oldEnd, newEnd-oldEnd, false) != nil {
			return usermem.Addr(cur)
		}
		sp := vspan{Start: oldEnd, End: newEnd, Val: v}
		m.insertVMA(sp)
		if m.backNew(sp, m.lockFuture && m.canPopulate(newEnd-oldEnd), false) != nil {
			m.unmapRange(oldEnd, newEnd)
			return usermem.Addr(cur)
		}
	}
	m.info.Brk = a
	return usermem.Addr(a)
}

// Mapped reports whether all of [addr, addr+length) is mapped.
func (m *MM) Mapped(addr usermem.Addr, length uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	end := uint64(addr) + length
	for at := uint64(addr); at < end; {
		v, ok := m.vmas.Find(at)
		if !ok {
			return false
		}
		at = v.End
	}
	return end >= uint64(addr)
}

// RemapFilePages is remap_file_pages(2): a part of one shared mapping gets
// other pages of the same file.
func (m *MM) RemapFilePages(addr usermem.Addr, size, pgoff uint64, flags uint32) error {
	lo := uint64(addr) &^ uint64(pageMask)
	n := size &^ uint64(pageMask)
	if lo+n <= lo || pgoff+n>>usermem.PageShift < pgoff {
		return abi.EINVAL
	}
	// Offsets that wrap would be pages that no truncation finds (file_mmap_ok).
	if pgoff+n>>usermem.PageShift > 1<<(63-usermem.PageShift) {
		return abi.EOVERFLOW
	}
	m.mu.RLock()
	v, ok := m.vmas.Find(lo)
	var o MmapOpts
	good := ok && v.Val.shared() && v.End >= lo+n
	if good {
		r := v.Val.ref
		o = MmapOpts{Addr: usermem.Addr(lo), Len: n, Prot: uint32(v.Val.prot), MaxProt: uint32(v.Val.maxProt),
			Flags:    abi.MAP_SHARED | abi.MAP_FIXED | abi.MAP_POPULATE | flags&abi.MAP_NONBLOCK,
			Mappable: r.m, File: r.file, Off: pgoff << usermem.PageShift, Name: v.Val.name}
		if o.File != nil {
			o.File.IncRef()
		}
		// Keep the object while the mapping may be replaced.
		r.m.AddMapping(m, r.off, r.len)
		defer r.m.RemoveMapping(m, r.off, r.len)
	}
	m.mu.RUnlock()
	if !good {
		return abi.EINVAL
	}
	_, err := m.Mmap(o)
	if o.File != nil {
		o.File.DecRef()
	}
	return err
}
