package mm

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/usermem"
)

// updateVMAs changes the VMAs of [lo, hi), all of it.
func (m *MM) updateVMAs(lo, hi uint64, fn func(v *vma)) {
	m.bump()
	var buf [16]vspan
	for _, v := range m.vmas.Remove(buf[:0], lo, hi) {
		m.account(v, minus)
		fn(&v.Val)
		m.account(v, 1)
		m.vmas.InsertMerge(v)
	}
}

// Mprotect changes protections (mprotect(2)): prot is PROT_* with
// PROT_GROWSDOWN and PROT_GROWSUP. What lies before a hole, or before a VMA
// that does not allow it, has been changed when it fails.
func (m *MM) Mprotect(addr usermem.Addr, length uint64, prot uint32) error {
	grows := prot & (abi.PROT_GROWSDOWN | abi.PROT_GROWSUP)
	prot &^= abi.PROT_GROWSDOWN | abi.PROT_GROWSUP
	if grows == abi.PROT_GROWSDOWN|abi.PROT_GROWSUP {
		return abi.EINVAL
	}
	lo := uint64(addr)
	if lo&pageMask != 0 {
		return abi.EINVAL
	}
	if length == 0 {
		return nil
	}
	hi := lo + pageUp(length)
	if hi <= lo {
		return abi.ENOMEM
	}
	const protSem = 8 // PROT_SEM
	if prot&^(protAll|protSem) != 0 {
		return abi.EINVAL
	}
	want := platform.Prot(prot & protAll)

	lim := m.lim()
	m.mu.Lock()
	defer m.unlock()
	v, ok := m.vmas.Find(lo)
	if grows == abi.PROT_GROWSDOWN {
		if v, ok = m.vmas.Next(lo); !ok || v.Start >= hi {
			return abi.ENOMEM
		}
		if v.Val.flags&vmGrowsDown == 0 {
			return abi.EINVAL
		}
		lo = v.Start
	} else if !ok {
		return abi.ENOMEM
	} else if grows != 0 {
		return abi.EINVAL // nothing grows up on amd64
	}
	for at := lo; at < hi; {
		v, ok := m.vmas.Find(at)
		if !ok {
			return abi.ENOMEM
		}
		if want&^v.Val.maxProt != 0 {
			return abi.EACCES
		}
		end := min(hi, v.End)
		if v.Val.prot != want {
			if v.Start < at && v.End > end && m.vmas.Count()+2 > MaxMapCount {
				return abi.ENOMEM
			}
			n := v.Val
			n.prot = want
			if n.data() && !v.Val.data() && (end-at > lim.Data || m.dataVM > lim.Data-(end-at)) {
				return abi.ENOMEM
			}
			if err := m.protect(v, at, end, want); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// protect changes [lo, hi), a part of v.
func (m *MM) protect(v vspan, lo, hi uint64, want platform.Prot) error {
	old := v.Val
	m.repaired()
	m.updateVMAs(lo, hi, func(v *vma) { v.prot = want })
	nv, _ := m.vmas.Find(lo)
	if want == 0 {
		return abi.FromHost(m.as.Unmap(lo, hi-lo))
	}
	// Let the platform see few, long calls: neighbours that change alike go together.
	var buf [16]pspan
	var runLo, runHi uint64
	var runProt platform.Prot
	var runMap bool
	flush := func() error {
		if runHi == runLo {
			return nil
		}
		a, b := runLo, runHi
		runLo, runHi = 0, 0
		if runMap {
			return m.remap(a, b, false)
		}
		if runProt == 0 {
			return abi.FromHost(m.as.Unmap(a, b-a))
		}
		return abi.FromHost(m.as.Protect(a, b-a, runProt))
	}
	for _, p := range m.pmas.Collect(buf[:0], lo, hi) {
		before, after := hostProt(&old, &p.Val), hostProt(&nv.Val, &p.Val)
		if before == after {
			continue
		}
		if runHi != p.Start || runProt != after || runMap != (before == 0) {
			if err := flush(); err != nil {
				return err
			}
			runLo, runProt, runMap = p.Start, after, before == 0
		}
		runHi = p.End
	}
	if err := flush(); err != nil {
		return err
	}
	// What had no backing because nobody could touch it gets one now.
	if old.prot == 0 {
		end := hi
		if nv.Val.anon() {
			// Arenas are opened piece by piece: reserve ahead in what stays closed.
			if n, ok := m.vmas.Find(hi); ok && n.Val.anon() && n.Val.prot == 0 {
				end = min(n.End, (hi+reserveWindow)&^(reserveWindow-1))
			}
		}
		bv := nv
		bv.End = max(bv.End, end)
		if err := m.back(bv, lo, end, want&platform.Write != 0, false); err != nil && nv.Val.anon() {
			return err
		}
	}
	return nil
}
