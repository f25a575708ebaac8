package mm

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/usermem"
)

// A HoleMaker is a Mappable that can free a range of its pages (MADV_REMOVE).
type HoleMaker interface {
	PunchHole(off, length uint64) error
}

// Madvise is madvise(2).
func (m *MM) Madvise(addr usermem.Addr, length uint64, advice int32) error {
	switch advice {
	case abi.MADV_NORMAL, abi.MADV_RANDOM, abi.MADV_SEQUENTIAL, abi.MADV_WILLNEED, abi.MADV_DONTNEED, abi.MADV_FREE,
		abi.MADV_REMOVE, abi.MADV_DONTFORK, abi.MADV_DOFORK, abi.MADV_MERGEABLE, abi.MADV_UNMERGEABLE,
		abi.MADV_HUGEPAGE, abi.MADV_NOHUGEPAGE, abi.MADV_DONTDUMP, abi.MADV_DODUMP, abi.MADV_WIPEONFORK,
		abi.MADV_KEEPONFORK, abi.MADV_COLD, abi.MADV_PAGEOUT, abi.MADV_POPULATE_READ, abi.MADV_POPULATE_WRITE,
		abi.MADV_DONTNEED_LOCKED:
	case abi.MADV_HWPOISON:
		return abi.EPERM
	default:
		return abi.EINVAL
	}
	lo := uint64(addr)
	if lo&pageMask != 0 {
		return abi.EINVAL
	}
	n := pageUp(length)
	if length != 0 && n == 0 || lo+n < lo {
		return abi.EINVAL
	}
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.unlock()
	populate := advice == abi.MADV_POPULATE_READ || advice == abi.MADV_POPULATE_WRITE
	hole := false
	at, hi := lo, lo+n
	for at < hi {
		v, ok := m.vmas.Next(at)
		if !ok || v.Start >= hi {
			hole = true
			break
		}
		if v.Start > at {
			if hole = true; populate {
				break
			}
			at = v.Start
		}
		end := min(v.End, hi)
		if err := m.advise(v, at, end, advice); err != nil {
			return err
		}
		at = end
	}
	if hole {
		return abi.ENOMEM
	}
	return nil
}

func (m *MM) advise(v vspan, lo, hi uint64, advice int32) error {
	set := func(add, del vmaFlags) error {
		if v.Val.flags|add != v.Val.flags || v.Val.flags&del != 0 {
			m.updateVMAs(lo, hi, func(v *vma) { v.flags = v.flags&^del | add })
		}
		return nil
	}
	locked := v.Val.flags&vmLocked != 0
	switch advice {
	case abi.MADV_DONTNEED, abi.MADV_DONTNEED_LOCKED:
		if locked && advice == abi.MADV_DONTNEED {
			return abi.EINVAL
		}
		return m.discard(v, lo, hi)
	case abi.MADV_FREE:
		if !v.Val.anon() {
			return abi.EINVAL
		}
		return m.discard(v, lo, hi)
	case abi.MADV_REMOVE:
		if locked || !v.Val.shared() {
			return abi.EINVAL
		}
		if v.Val.prot&platform.Write == 0 {
			return abi.EACCES
		}
		off := v.Val.off + (lo - v.Start)
		switch o := v.Val.ref.m.(type) {
		case *Shared:
			o.punch(off, hi-lo)
			return nil
		case HoleMaker:
			// It calls InvalidateFile, which takes our lock.
			r := v.Val.ref
			r.live++ // keeps it from being dropped meanwhile
			m.mu.Unlock()
			err := o.PunchHole(off, hi-lo)
			m.mu.Lock()
			if r.live--; r.live == 0 {
				m.drops = append(m.drops, r)
			}
			return err
		}
		return abi.EOPNOTSUPP
	case abi.MADV_DONTFORK:
		return set(vmDontFork, 0)
	case abi.MADV_DOFORK:
		return set(0, vmDontFork)
	case abi.MADV_WIPEONFORK:
		if !v.Val.anon() {
			return abi.EINVAL
		}
		return set(vmWipeOnFork, 0)
	case abi.MADV_KEEPONFORK:
		return set(0, vmWipeOnFork)
	case abi.MADV_DONTDUMP:
		return set(vmDontDump, 0)
	case abi.MADV_DODUMP:
		if v.Val.flags&vmSpecial != 0 {
			return abi.EINVAL
		}
		return set(0, vmDontDump)
	case abi.MADV_HUGEPAGE:
		return set(vmHuge, vmNoHuge)
	case abi.MADV_NOHUGEPAGE:
		return set(vmNoHuge, vmHuge)
	case abi.MADV_COLD, abi.MADV_PAGEOUT:
		if locked {
			return abi.EINVAL
		}
	case abi.MADV_POPULATE_READ, abi.MADV_POPULATE_WRITE:
		write := advice == abi.MADV_POPULATE_WRITE
		if v.Val.prot == 0 || write && v.Val.prot&platform.Write == 0 {
			return abi.EINVAL
		}
		return m.populate(v, lo, hi, write)
	case abi.MADV_WILLNEED:
		// Everything is mapped already; the host reads ahead on its own.
	}
	return nil
}

// discard forgets the private pages of a range: anonymous memory reads as
// zeroes then, file mappings as the file (MADV_DONTNEED).
func (m *MM) discard(v vspan, lo, hi uint64) error {
	if v.Val.shared() || v.Val.flags&vmSpecial != 0 {
		return nil // pages stay where they are: in the object
	}
	var buf [16]pspan
	for _, p := range m.pmas.Collect(buf[:0], lo, hi) {
		if !p.Val.owned {
			continue
		}
		if !v.Val.anon() {
			if err := m.as.Unmap(p.Start, p.Len()); err != nil {
				return abi.FromHost(err)
			}
			m.dropPMAs(p.Start, p.End)
			if v.Val.prot != 0 {
				m.backFile(v, p.Start, p.End, false)
				if err := m.remap(p.Start, p.End, false); err != nil {
					return err
				}
			}
			continue
		}
		for at := p.Start; at < p.End; {
			off := p.Val.off + (at - p.Start)
			refs, n := m.pf.Refs(off, p.End-at)
			if refs == 1 {
				// Ours alone: the host takes the memory back, and the mapping stays.
				m.pf.Punch(off, n)
			} else {
				m.dropPMAs(at, at+n)
				if err := m.backAnon(&v.Val, at, at+n); err != nil {
					return err
				}
				if err := m.remap(at, at+n, false); err != nil {
					return err
				}
			}
			at += n
		}
	}
	return nil
}

// canPopulate reports whether the machine has the memory to make n bytes
// present. A guest that touched as much would be killed for it; one that asks
// us to must not make the host run out of memory.
func (m *MM) canPopulate(n uint64) bool {
	total := m.lim().TotalMemory
	if n < populateFree || total == 0 {
		return true
	}
	used := m.pf.Usage()
	return used < total && n <= total-used
}

// populate makes pages present, writable ones too if write is set: ENOMEM if
// there is not enough memory.
func (m *MM) populate(v vspan, lo, hi uint64, write bool) error {
	if !m.canPopulate(hi - lo) {
		return abi.ENOMEM
	}
	if err := m.back(v, lo, hi, write, false); err != nil {
		return abi.EFAULT
	}
	if write {
		for at := lo; at < hi; {
			if err := m.resolve(v, at, true, false, false); err != nil {
				return abi.EFAULT
			}
			p, ok := m.pmas.Find(at)
			if !ok {
				return abi.EFAULT
			}
			at = min(p.End, hi)
		}
	}
	if len(m.gaps(nil, lo, hi)) > 0 {
		return abi.EFAULT // behind the end of a file
	}
	return m.remap(lo, hi, true)
}

// Mlock is mlock2(2): flags may be MLOCK_ONFAULT. Nothing is ever swapped out
// by us; the pages are made present, and the limit is kept.
func (m *MM) Mlock(addr usermem.Addr, length uint64, flags int32) error {
	lim := m.lim()
	if flags&^abi.MLOCK_ONFAULT != 0 {
		return abi.EINVAL
	}
	if !lim.CanLock && lim.Memlock == 0 {
		return abi.EPERM
	}
	lo := uint64(addr) &^ uint64(pageMask)
	n := pageUp(length + uint64(addr)&pageMask)
	hi := lo + n
	m.mu.Lock()
	defer m.unlock()
	if !lim.CanLock {
		have := uint64(0)
		var buf [8]vspan
		if hi >= lo {
			for _, v := range m.vmas.Collect(buf[:0], lo, hi) {
				if v.Val.flags&vmLocked != 0 {
					have += v.Len()
				}
			}
		}
		if n > lim.Memlock || m.lockedVM-have > lim.Memlock-n {
			return abi.ENOMEM
		}
	}
	if hi < lo {
		return abi.EINVAL
	}
	return m.setLocked(lo, hi, true, flags&abi.MLOCK_ONFAULT == 0)
}

// Munlock is munlock(2).
func (m *MM) Munlock(addr usermem.Addr, length uint64) error {
	lo := uint64(addr) &^ uint64(pageMask)
	hi := lo + pageUp(length+uint64(addr)&pageMask)
	if hi < lo {
		return abi.EINVAL
	}
	m.mu.Lock()
	defer m.unlock()
	return m.setLocked(lo, hi, false, false)
}

func (m *MM) setLocked(lo, hi uint64, lock, populate bool) error {
	for at := lo; at < hi; {
		v, ok := m.vmas.Find(at)
		if !ok {
			return abi.ENOMEM
		}
		end := min(v.End, hi)
		if v.Val.flags&vmSpecial == 0 && (v.Val.flags&vmLocked != 0) != lock {
			m.updateVMAs(at, end, func(v *vma) { v.flags ^= vmLocked })
		}
		if populate && v.Val.prot != 0 {
			if m.populate(v, at, end, v.Val.prot&platform.Write != 0 && !v.Val.shared()) != nil {
				return abi.ENOMEM
			}
		}
		at = end
	}
	return nil
}

// Mlockall is mlockall(2).
func (m *MM) Mlockall(flags int32) error {
	if flags == 0 || flags&^(abi.MCL_CURRENT|abi.MCL_FUTURE|abi.MCL_ONFAULT) != 0 || flags == abi.MCL_ONFAULT {
		return abi.EINVAL
	}
	lim := m.lim()
	if !lim.CanLock && lim.Memlock == 0 {
		return abi.EPERM
	}
	m.mu.Lock()
	defer m.unlock()
	if flags&abi.MCL_CURRENT != 0 && !lim.CanLock && m.totalVM > lim.Memlock {
		return abi.ENOMEM
	}
	m.lockFuture = flags&abi.MCL_FUTURE != 0
	if flags&abi.MCL_CURRENT != 0 {
		m.lockAll(true)
	}
	return nil
}

// Munlockall is munlockall(2).
func (m *MM) Munlockall() error {
	m.mu.Lock()
	defer m.unlock()
	m.lockFuture = false
	m.lockAll(false)
	return nil
}

func (m *MM) lockAll(lock bool) {
	for _, v := range m.vmas.Collect(nil, 0, ^uint64(0)) {
		m.setLocked(v.Start, v.End, lock, false)
	}
}

// Msync checks msync(2)'s arguments and returns the files of shared mappings
// that MS_SYNC must write back, each with a reference. Shared mappings are the
// file's own pages, so there is nothing to copy. The files are valid with the
// error, too: ENOMEM for a hole comes after the rest was synced.
func (m *MM) Msync(addr usermem.Addr, length uint64, flags int32) ([]File, error) {
	lo := uint64(addr)
	if flags&^(abi.MS_ASYNC|abi.MS_INVALIDATE|abi.MS_SYNC) != 0 || lo&pageMask != 0 ||
		flags&abi.MS_ASYNC != 0 && flags&abi.MS_SYNC != 0 {
		return nil, abi.EINVAL
	}
	n := pageUp(length)
	if length != 0 && n == 0 || lo+n < lo {
		return nil, abi.ENOMEM
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var files []File
	at := lo
	var err error
	hole := false
	m.vmas.Ascend(lo, lo+n, func(v vspan) bool {
		hole = hole || v.Start > at
		at = v.End
		if flags&abi.MS_INVALIDATE != 0 && v.Val.flags&vmLocked != 0 {
			err = abi.EBUSY
			return false
		}
		if flags&abi.MS_SYNC != 0 && v.Val.shared() && v.Val.ref.file != nil {
			f := v.Val.ref.file
			for _, have := range files {
				if have == f {
					return true
				}
			}
			f.IncRef()
			files = append(files, f)
		}
		return true
	})
	if err == nil && (hole || at < lo+n) {
		err = abi.ENOMEM
	}
	return files, err
}

// Mincore fills vec with one byte a page from addr on (mincore(2)); ENOMEM at
// a hole.
func (m *MM) Mincore(addr usermem.Addr, vec []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	lo := uint64(addr)
	hi := lo + uint64(len(vec))*pageSize
	clear(vec)
	at := lo
	m.vmas.Ascend(lo, hi, func(v vspan) bool {
		if v.Start > at {
			return false
		}
		at = v.End
		return true
	})
	if at < hi {
		return abi.ENOMEM
	}
	for _, p := range m.pmas.Collect(nil, lo, hi) {
		first := (p.Start - lo) / pageSize
		if int(p.Val.fd) != m.pf.FD() {
			for i := range vec[first : first+p.Len()/pageSize] {
				vec[first+uint64(i)] = 1 // the host caches it, or will
			}
			continue
		}
		for _, r := range m.residentRuns(p) {
			for a := r.lo; a < r.hi; a += pageSize {
				vec[(a-lo)/pageSize] = 1
			}
		}
	}
	return nil
}
