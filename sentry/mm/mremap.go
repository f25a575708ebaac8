package mm

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/usermem"
)

// Mremap is mremap(2); the order of its checks is that of mm/mremap.c.
func (m *MM) Mremap(oldAddr usermem.Addr, oldLen, newLen uint64, flags uint32, newAddr usermem.Addr) (usermem.Addr, error) {
	if flags&^(abi.MREMAP_MAYMOVE|abi.MREMAP_FIXED|abi.MREMAP_DONTUNMAP) != 0 ||
		flags&abi.MREMAP_FIXED != 0 && flags&abi.MREMAP_MAYMOVE == 0 ||
		flags&abi.MREMAP_DONTUNMAP != 0 && (flags&abi.MREMAP_MAYMOVE == 0 || oldLen != newLen) ||
		uint64(oldAddr)&pageMask != 0 {
		return 0, abi.EINVAL
	}
	addr, to := uint64(oldAddr), uint64(newAddr)
	oldLen, newLen = pageUp(oldLen), pageUp(newLen)
	if newLen == 0 {
		return 0, abi.EINVAL
	}
	lim := m.lim()
	m.mu.Lock()
	defer m.unlock()
	if _, ok := m.vmas.Find(addr); !ok {
		return 0, abi.EFAULT
	}
	keep := flags&abi.MREMAP_DONTUNMAP != 0
	if flags&(abi.MREMAP_FIXED|abi.MREMAP_DONTUNMAP) != 0 {
		fixed := flags&abi.MREMAP_FIXED != 0
		if to&pageMask != 0 || newLen > m.layout.Max || to > m.layout.Max-newLen ||
			addr+oldLen > to && to+newLen > addr {
			return 0, abi.EINVAL
		}
		if m.vmas.Count()+2 >= MaxMapCount {
			return 0, abi.ENOMEM
		}
		if fixed {
			if to < MinAddr && !lim.CanMapLow || to < m.layout.Min {
				return 0, abi.EPERM
			}
			if err := m.unmapRange(to, to+newLen); err != nil {
				return 0, err
			}
		}
		if oldLen > newLen {
			if err := m.unmapRange(addr+newLen, addr+oldLen); err != nil {
				return 0, err
			}
			oldLen = newLen
		}
		v, err := m.resizable(&lim, addr, oldLen, newLen, keep)
		if err != nil {
			return 0, err
		}
		if !fixed {
			if to, err = m.place(to, newLen, false, false, false); err != nil {
				return 0, err
			}
		}
		return m.move(v, addr, oldLen, to, newLen, keep)
	}
	if oldLen >= newLen {
		if oldLen > m.layout.Max-addr {
			return 0, abi.EINVAL
		}
		if err := m.unmapRange(addr+newLen, addr+oldLen); err != nil {
			return 0, err
		}
		return oldAddr, nil
	}
	v, err := m.resizable(&lim, addr, oldLen, newLen, false)
	if err != nil {
		return 0, err
	}
	grow := newLen - oldLen
	if oldLen == v.End-addr && v.End <= m.layout.Max-grow && m.free(v.End, grow) {
		if err := m.extend(v, grow); err != nil {
			return 0, err
		}
		return oldAddr, nil
	}
	if flags&abi.MREMAP_MAYMOVE == 0 {
		return 0, abi.ENOMEM
	}
	if to, err = m.place(0, newLen, false, false, false); err != nil {
		return 0, err
	}
	return m.move(v, addr, oldLen, to, newLen, false)
}

// resizable is vma_to_resize: it finds the VMA and checks that it may become
// newLen long.
func (m *MM) resizable(lim *Limits, addr, oldLen, newLen uint64, keep bool) (vspan, error) {
	v, ok := m.vmas.Find(addr)
	if !ok {
		return v, abi.EFAULT
	}
	if oldLen == 0 && !v.Val.shared() {
		return v, abi.EINVAL
	}
	if v.Val.flags&vmSpecial != 0 && (keep || newLen > oldLen) {
		return v, abi.EINVAL
	}
	if oldLen > v.End-addr {
		return v, abi.EFAULT
	}
	if newLen == oldLen {
		return v, nil
	}
	if off := v.Val.off + (addr - v.Start); v.Val.ref != nil && off+newLen < off {
		return v, abi.EINVAL
	}
	grow := newLen - oldLen
	if v.Val.flags&vmLocked != 0 && !lim.CanLock && m.lockedVM+grow > lim.Memlock {
		return v, abi.EAGAIN
	}
	return v, m.mayExpand(lim, &v.Val, 0, grow, false)
}

// remapped makes the mapping for a VMA that now covers n bytes from off on.
func (m *MM) remapped(v *vma, n uint64) {
	r := v.ref
	if r == nil {
		return
	}
	if r.file != nil {
		r.file.IncRef()
	}
	v.ref = newMapping(m, r.m, r.file, v.off, n)
}

// extend makes v longer by grow where it is.
func (m *MM) extend(v vspan, grow uint64) error {
	n := vspan{Start: v.End, End: v.End + grow, Val: cutVMA(v.Val, v.Len())}
	m.remapped(&n.Val, grow)
	m.insertVMA(n)
	if n.Val.prot == 0 {
		return nil
	}
	err := m.back(n, n.Start, n.End, n.Val.prot&platform.Write != 0, n.Val.flags&vmLocked != 0 && m.canPopulate(n.Len()))
	if err != nil && n.Val.anon() {
		m.unmapRange(n.Start, n.End)
		return err
	}
	return nil
}

// move moves [addr, addr+oldLen) of v to a free place and makes it newLen long.
// keep leaves an empty VMA behind; oldLen of zero makes a second mapping.
func (m *MM) move(v vspan, addr, oldLen, to, newLen uint64, keep bool) (usermem.Addr, error) {
	n := vspan{Start: to, End: to + newLen, Val: cutVMA(v.Val, addr-v.Start)}
	m.remapped(&n.Val, newLen)
	if keep {
		n.Val.flags &^= vmLocked
	}
	if oldLen > 0 {
		if err := m.as.Unmap(addr, oldLen); err != nil {
			if n.Val.ref != nil {
				m.drops = append(m.drops, n.Val.ref)
			}
			return 0, abi.FromHost(err)
		}
	}
	m.insertVMA(n)
	if oldLen > 0 {
		var buf [16]pspan
		for _, p := range m.pmas.Remove(buf[:0], addr, addr+oldLen) {
			p.Start, p.End = p.Start-addr+to, p.End-addr+to
			m.pmas.InsertMerge(p)
		}
		if !keep {
			var vbuf [4]vspan
			m.removeVMAs(vbuf[:0], addr, addr+oldLen)
		}
	}
	err := m.remap(to, to+newLen, false)
	if err == nil && n.Val.prot != 0 {
		if e := m.back(n, to, to+newLen, n.Val.prot&platform.Write != 0, n.Val.flags&vmLocked != 0 && m.canPopulate(n.Len())); e != nil && n.Val.anon() {
			err = e
		}
	}
	if err == nil && keep {
		m.updateVMAs(addr, addr+oldLen, func(v *vma) { v.flags &^= vmLocked })
		if v.Val.prot != 0 {
			ov, _ := m.vmas.Find(addr)
			if e := m.back(ov, addr, addr+oldLen, v.Val.prot&platform.Write != 0, false); e != nil && ov.Val.anon() {
				err = e
			}
		}
	}
	if err != nil {
		m.unmapRange(to, to+newLen)
		return 0, err
	}
	return usermem.Addr(to), nil
}
