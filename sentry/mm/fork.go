package mm

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/pagefile"
)

// Fork makes a copy of the address space, with one user, as fork(2) does.
// Private pages are shared until somebody writes them: the parent's are
// write-protected in one batch, and the child's mapped eagerly in another.
func (m *MM) Fork() (*MM, error) {
	c, err := New(m.platform, m.pf)
	if err != nil {
		return nil, err
	}
	c.limits.Store(m.limits.Load())
	c.dumpable.Store(m.dumpable.Load())

	m.mu.Lock()
	c.mu.Lock()
	if m.released {
		err = abi.ENOMEM
	} else {
		err = m.copyTo(c)
	}
	c.mu.Unlock()
	m.mu.Unlock()
	if err != nil {
		c.DecUsers()
		return nil, err
	}
	return c, nil
}

func (m *MM) copyTo(c *MM) error {
	c.mmapBase, c.holeTop, c.holeMax = m.mmapBase, m.holeTop, m.holeMax
	c.info = m.info
	if m.exe != nil {
		m.exe.IncRef()
		c.exe = m.exe
	}
	m.bump()
	m.kept, m.copied = locality{}, locality{}
	refs := make(map[*mapping]*mapping)
	var shared []pagefile.Range
	// Also if it fails half-way: c gives back all that it holds.
	defer func() { m.pf.IncRefs(shared) }()
	vmas := m.vmas.Collect(make([]vspan, 0, m.vmas.Count()), 0, ^uint64(0))
	for _, v := range vmas {
		if v.Val.flags&vmDontFork != 0 {
			continue
		}
		n := v
		n.Val.flags &^= vmLocked
		if r := v.Val.ref; r != nil {
			if refs[r] == nil {
				if r.file != nil {
					r.file.IncRef()
				}
				refs[r] = newMapping(c, r.m, r.file, r.off, r.len)
			}
			n.Val.ref = refs[r]
		}
		c.insertVMA(n)
	}
	// Now that c is noted as a mapper, translations can't go stale unseen.
	var pbuf [16]pspan
	for _, v := range vmas {
		if v.Val.flags&vmDontFork != 0 {
			continue
		}
		write := v.Val.prot&platform.Write != 0
		if v.Val.flags&vmWipeOnFork != 0 {
			if v.Val.prot != 0 {
				if err := c.back(v, v.Start, v.End, write, false); err != nil {
					return err
				}
			}
			continue
		}
		prot := hostProt(&v.Val, &pma{owned: true, cow: true})
		for _, p := range m.pmas.Collect(pbuf[:0], v.Start, v.End) {
			if !p.Val.owned {
				continue
			}
			if !p.Val.cow {
				if write {
					if err := m.as.Protect(p.Start, p.Len(), prot); err != nil {
						return abi.FromHost(err)
					}
				}
				p.Val.cow = true
				var one [4]pspan
				m.pmas.Remove(one[:0], p.Start, p.End)
				m.pmas.InsertMerge(p)
			}
			shared = append(shared, pagefile.Range{Off: p.Val.off, Len: p.Len()})
			c.pmas.InsertMerge(p)
		}
		if !v.Val.anon() && v.Val.prot != 0 {
			n, _ := c.vmas.Find(v.Start)
			n.Val.off += v.Start - n.Start
			n.Start = v.Start
			for _, g := range c.gaps(nil, v.Start, v.End) {
				c.backFile(n, g.lo, g.hi, write) // what fails now is told by a fault
			}
		}
	}
	return c.remap(0, ^uint64(0)&^pageMask, false)
}
