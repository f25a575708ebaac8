package mm

import (
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/pagefile"
)

// Run lengths in pages: a run grows while faults continue near the last one.
const (
	copyRunMin, copyRunMax, copyRunGrowth = 8, 64, 2
	// Keeping costs little a page, but making all of a big area writable again
	// would cost each fork as much.
	keepRunMin, keepRunMax, keepRunGrowth = 64, 1 << 20, 4
)

// A locality remembers the last run.
type locality struct{ lo, hi, n uint64 }

// run chooses how much to do around page, within [lo, hi).
func (l *locality) run(page, lo, hi, least, most, growth uint64) (uint64, uint64) {
	if near := l.n * pageSize; l.n != 0 && page+near >= l.lo && page <= l.hi+near {
		l.n = min(l.n*growth, most)
	} else {
		l.n = least
	}
	n := l.n * pageSize
	start := page &^ (n - 1)
	l.lo, l.hi = max(lo, start), min(hi, start+n)
	return l.lo, l.hi
}

// spurious counts faults on pages that had nothing to repair, since something
// was repaired last.
type spurious struct {
	any   bool
	pages [16]struct {
		page  uint64
		count int64
	}
}

// repaired forgets the counts: threads that raced with a repair may come now.
func (m *MM) repaired() {
	if m.spur.any {
		m.spur = spurious{}
	}
}

// HandleFault repairs a guest's fault at addr, if it may have the access. bus
// says that the host found no page behind the mapping. If ok is false the
// guest gets the signal with that code. access is 0 if the platform can't tell.
func (m *MM) HandleFault(addr uint64, access platform.Prot, bus bool) (ok bool, sigcode, signal int32) {
	lim := m.lim()
	m.mu.Lock()
	defer m.unlock()
	page := addr &^ uint64(pageMask)
	if m.released || page >= m.layout.Max {
		return false, abi.SEGV_MAPERR, abi.SIGSEGV
	}
	v, found := m.vmas.Find(page)
	grown := false
	if !found {
		if v, grown = m.growStack(&lim, page); !grown {
			return false, abi.SEGV_MAPERR, abi.SIGSEGV
		}
	}
	eff := effective(v.Val.prot)
	if eff == 0 || access&^eff != 0 {
		return false, abi.SEGV_ACCERR, abi.SIGSEGV
	}
	if grown {
		return true, 0, 0
	}
	p, backed := m.pmas.Find(page)
	if bus && backed && m.beyondFile(p, page) {
		return false, abi.BUS_ADRERR, abi.SIGBUS
	}
	write := access&platform.Write != 0
	if access == 0 {
		// Writing is the one right that is withheld from what is backed; what
		// is not backed is made for whatever the VMA allows.
		write = eff&platform.Write != 0
	}
	if backed {
		have := hostProt(&v.Val, &p.Val)
		if access != 0 && access&^have == 0 || access == 0 && have == eff {
			return m.spuriousFault(v, p, page, access)
		}
	}
	if err := m.resolve(v, page, write, access&platform.Exec != 0, false); err != nil {
		if err == abi.EFAULT {
			return false, abi.SEGV_ACCERR, abi.SIGSEGV
		}
		return false, abi.BUS_ADRERR, abi.SIGBUS
	}
	return true, 0, 0
}

// spuriousFault handles a fault where everything is as it should be. Another
// thread may have repaired it meanwhile; or the access, unknown to us, is one
// that the VMA does not allow.
func (m *MM) spuriousFault(v vspan, p pspan, page uint64, access platform.Prot) (bool, int32, int32) {
	e := &m.spur.pages[page>>12%uint64(len(m.spur.pages))]
	if e.page != page {
		e.page, e.count = page, 0
	}
	m.spur.any = true
	e.count++
	if access == 0 && e.count >= m.users.Load() {
		// More faults than threads that can have raced.
		e.count = 0
		return false, abi.SEGV_ACCERR, abi.SIGSEGV
	}
	if e.count > 64 {
		// The host may have lost the mapping.
		if m.remap(page, page+pageSize, false) != nil || e.count > 10000 {
			return false, abi.BUS_ADRERR, abi.SIGBUS
		}
	}
	return true, 0, 0
}

// beyondFile reports whether the host file ends before the page. Only a file
// that shrank on the host, behind its owner's back, can.
func (m *MM) beyondFile(p pspan, page uint64) bool {
	if int(p.Val.fd) == m.pf.FD() {
		return true // the host has no memory to give
	}
	var st unix.Stat_t
	if unix.Fstat(int(p.Val.fd), &st) != nil {
		return true
	}
	return uint64(st.Size) <= p.Val.off+(page-p.Start)
}

// growStack extends the stack VMA above page down to it (mm/mmap.c, expand_downwards).
func (m *MM) growStack(lim *Limits, page uint64) (vspan, bool) {
	v, ok := m.vmas.Next(page)
	if !ok || v.Val.flags&vmGrowsDown == 0 || page < MinAddr || page < m.layout.Min {
		return v, false
	}
	if v.End-page > lim.Stack {
		return v, false
	}
	floor := max(uint64(MinAddr), m.layout.Min)
	if prev, ok := m.vmas.Prev(page); ok {
		floor = prev.End
		if prev.Val.flags&vmGrowsDown == 0 && prev.Val.prot != 0 {
			floor += stackGuardGap
		}
	}
	if page < floor {
		return v, false
	}
	lo := page &^ (stackStep - 1)
	if lo < floor || v.End-lo > lim.Stack {
		lo = page
	}
	grow := v.Start - lo
	if grow > lim.AS || m.totalVM > lim.AS-grow {
		lo = page
		if grow = v.Start - lo; grow > lim.AS || m.totalVM > lim.AS-grow {
			return v, false
		}
	}
	if v.Val.flags&vmLocked != 0 && !lim.CanLock && m.lockedVM+grow > lim.Memlock {
		return v, false
	}
	n := vspan{Start: lo, End: v.Start, Val: v.Val}
	m.insertVMA(n)
	if m.back(n, n.Start, n.End, true, false) != nil {
		return v, false
	}
	return m.vmas.Find(page)
}

// resolve makes the page accessible for reading, or for writing. force ignores
// the VMA's protection (ptrace); it may then copy what the guest can't write.
// EFAULT means that the access is not allowed, any other error that there is
// no page.
func (m *MM) resolve(v vspan, page uint64, write, exec, force bool) error {
	m.repaired()
	p, ok := m.pmas.Find(page)
	if !ok {
		lo, hi := max(v.Start, page&^(reserveWindow-1)), v.End
		if v.Val.anon() {
			hi = min(hi, lo&^(reserveWindow-1)+reserveWindow)
		}
		if err := m.back(v, lo, hi, write, false); err != nil {
			if v.Val.anon() || lo == page {
				return abi.ENOMEM
			}
			// A part of it may do.
			if m.back(v, page, page+pageSize, write, false) != nil {
				return abi.ENOMEM
			}
		}
		if p, ok = m.pmas.Find(page); !ok {
			return abi.ENODATA // behind the end of the file
		}
	}
	if !write {
		if exec && !p.Val.owned && p.Val.max&platform.Exec == 0 && !v.Val.shared() {
			return m.copyRun(v, p, page)
		}
		return nil
	}
	switch {
	case p.Val.owned && !p.Val.cow:
		return nil
	case p.Val.owned:
		return m.breakCOW(v, p, page)
	case !v.Val.shared():
		return m.copyRun(v, p, page)
	case force && v.Val.prot&platform.Write == 0:
		return abi.EFAULT
	case p.Val.wr:
		if p.Val.max&platform.Write == 0 {
			return abi.EFAULT
		}
		return nil
	}
	// A shared page that was only read so far: ask for the one to write.
	lo, hi := max(v.Start, p.Start), min(v.End, p.End)
	lo = max(lo, page&^(reserveWindow-1))
	hi = min(hi, page&^(reserveWindow-1)+reserveWindow)
	m.dropPMAs(lo, hi)
	err := m.backFile(v, lo, hi, true)
	if err == nil {
		err = m.as.Unmap(lo, hi-lo)
	}
	if err == nil {
		err = m.remap(lo, hi, false)
	}
	if err != nil {
		return abi.ENOMEM
	}
	if p, ok = m.pmas.Find(page); !ok {
		return abi.ENODATA
	}
	if p.Val.max&platform.Write == 0 {
		return abi.EFAULT
	}
	return nil
}

// breakCOW makes an owned page writable: it is kept if nobody else refers to
// it, else copied together with its neighbours.
func (m *MM) breakCOW(v vspan, p pspan, page uint64) error {
	lo, hi := max(v.Start, p.Start), min(v.End, p.End)
	offAt := func(a uint64) uint64 { return p.Val.off + (a - p.Start) }
	if n := m.pf.Exclusive(offAt(page), hi-page); n > 0 {
		klo, khi := m.kept.run(page, lo, page+n, keepRunMin, keepRunMax, keepRunGrowth)
		if klo < page && m.pf.Exclusive(offAt(klo), page-klo) < page-klo {
			klo = page
		}
		return m.keep(klo, khi)
	}
	_, same := m.pf.Refs(offAt(page), hi-page)
	lo, hi = m.copied.run(page, lo, page+same, copyRunMin, copyRunMax, copyRunGrowth)
	off, err := m.allocAt(lo, hi, pagefile.Up)
	if err != nil {
		return err
	}
	if err := m.pf.Copy(off, offAt(lo), hi-lo); err != nil {
		m.pf.DecRef(off, hi-lo)
		return abi.ENOMEM
	}
	return m.replace(lo, hi, off)
}

// keep makes [lo, hi), owned by nobody else, writable.
func (m *MM) keep(lo, hi uint64) error {
	m.bump()
	var buf [8]pspan
	for _, p := range m.pmas.Remove(buf[:0], lo, hi) {
		p.Val.cow = false
		m.pmas.InsertMerge(p)
	}
	return m.reprotect(lo, hi)
}

// reprotect gives what is mapped in [lo, hi) the rights that it should have.
func (m *MM) reprotect(lo, hi uint64) error {
	var vbuf [8]vspan
	var pbuf [8]pspan
	for _, v := range m.vmas.Collect(vbuf[:0], lo, hi) {
		for _, p := range m.pmas.Collect(pbuf[:0], v.Start, v.End) {
			var err error
			if prot := hostProt(&v.Val, &p.Val); prot != 0 {
				err = m.as.Protect(p.Start, p.Len(), prot)
			} else {
				err = m.as.Unmap(p.Start, p.Len())
			}
			if err != nil {
				return abi.FromHost(err)
			}
		}
	}
	return nil
}

// replace makes [lo, hi) owned pages at off, and maps them populated: they
// exist already, or are about to be written.
func (m *MM) replace(lo, hi, off uint64) error {
	m.dropPMAs(lo, hi)
	m.pmas.InsertMerge(pspan{Start: lo, End: hi, Val: pma{off: off, fd: int32(m.pf.FD()), owned: true}})
	return m.remap(lo, hi, true)
}

// copyRun gives the MM its own copy of pages of a private file mapping around page.
func (m *MM) copyRun(v vspan, p pspan, page uint64) error {
	lo, hi := m.copied.run(page, max(v.Start, p.Start), min(v.End, p.End), copyRunMin, copyRunMax, copyRunGrowth)
	return m.copyFile(v, lo, hi)
}

// copyFile replaces the file's pages in [lo, hi) of a private mapping by copies.
func (m *MM) copyFile(v vspan, lo, hi uint64) error {
	var buf [8]pspan
	for _, p := range m.pmas.Collect(buf[:0], lo, hi) {
		if p.Val.owned {
			continue
		}
		off, err := m.allocAt(p.Start, p.End, pagefile.Up)
		if err != nil {
			return err
		}
		if int(p.Val.fd) == m.pf.FD() {
			err = m.pf.Copy(off, p.Val.off, p.Len())
		} else {
			err = copyFromHost(m.pf, off, int(p.Val.fd), int64(p.Val.off), p.Len())
		}
		if err != nil {
			m.pf.DecRef(off, p.Len())
			return abi.EIO
		}
		if err := m.replace(p.Start, p.End, off); err != nil {
			return err
		}
	}
	return nil
}

// copyFromHost reads a host file's pages into the page file; behind its end
// they are zero.
func copyFromHost(pf *pagefile.File, dst uint64, fd int, off int64, n uint64) error {
	for n > 0 {
		s := pf.Slice(dst, n)
		got, err := unix.Pread(fd, s, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if got == 0 {
			return nil
		}
		dst, off, n = dst+uint64(got), off+int64(got), n-uint64(got)
	}
	return nil
}

// InvalidateFile implements Invalidator: pages of obj in the range are gone, or
// have moved. Copies that the MM owns stay where there still is a page of the
// file: those behind its new end go, too (truncate(2), NOTES).
func (m *MM) InvalidateFile(obj Mappable, off, length uint64) {
	m.mu.Lock()
	defer m.unlock()
	if m.released {
		return
	}
	end := off + length
	if end < off {
		end = ^uint64(0)
	}
	var hit []vspan
	m.vmas.Ascend(0, ^uint64(0), func(v vspan) bool {
		if v.Val.ref == nil || v.Val.ref.m != obj || v.Val.off >= end || v.Val.off+v.Len() <= off {
			return true
		}
		lo := v.Start + max(off, v.Val.off) - v.Val.off
		hi := v.Start + min(end-v.Val.off, v.Len())
		v.Val = cutVMA(v.Val, lo-v.Start)
		v.Start, v.End = lo, hi
		hit = append(hit, v)
		return true
	})
	changed := false
	for _, v := range hit {
		fileEnd := v.End
		if !v.Val.shared() {
			fileEnd = m.fileEnd(v)
		}
		var buf [8]pspan
		for _, p := range m.pmas.Collect(buf[:0], v.Start, v.End) {
			lo := p.Start
			if p.Val.owned {
				if lo = max(lo, fileEnd); lo >= p.End {
					continue
				}
			}
			m.as.Unmap(lo, p.End-lo)
			m.dropPMAs(lo, p.End)
			changed = true
		}
	}
	if changed {
		m.as.Flush()
	}
}

// fileEnd returns the address in v behind the last page that the file has.
func (m *MM) fileEnd(v vspan) uint64 {
	pieces, err := v.Val.ref.m.Translate(v.Val.off, v.Len(), false)
	if err != nil {
		return v.End
	}
	end := v.Start
	for _, p := range pieces {
		end = max(end, v.Start+(p.Off-v.Val.off)+pageUp(p.Len))
	}
	return min(end, v.End)
}
