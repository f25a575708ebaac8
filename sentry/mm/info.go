package mm

import (
	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
)

// A VMAInfo describes one VMA for /proc/PID/maps and smaps.
type VMAInfo struct {
	Start, End        uint64
	Read, Write, Exec bool
	Shared            bool
	Off               uint64 // in the file
	Dev, Ino          uint64
	Name              string

	// Flags for smaps.
	GrowsDown, Locked, DontFork, DontDump, WipeOnFork, NoReserve, Huge, NoHuge bool
	// Anonymous reports memory without a file.
	Anonymous bool
	// Resident and the rest are bytes, filled by Smaps only.
	Resident, Private, SharedPages, Anon uint64
}

// Maps describes all VMAs in the order of their addresses.
func (m *MM) Maps() []VMAInfo { return m.describe(false) }

// Smaps is Maps with memory use, which costs a few system calls for each VMA.
func (m *MM) Smaps() []VMAInfo { return m.describe(true) }

func (m *MM) describe(usage bool) []VMAInfo {
	m.mu.RLock()
	files := make([]File, 0, m.vmas.Count())
	out := make([]VMAInfo, 0, m.vmas.Count())
	m.vmas.Ascend(0, ^uint64(0), func(v vspan) bool {
		fl := v.Val.flags
		i := VMAInfo{Start: v.Start, End: v.End, Name: v.Val.name, Off: v.Val.off,
			Read: v.Val.prot&platform.Read != 0, Write: v.Val.prot&platform.Write != 0, Exec: v.Val.prot&platform.Exec != 0,
			Shared: v.Val.shared(), GrowsDown: fl&vmGrowsDown != 0, Locked: fl&vmLocked != 0, DontFork: fl&vmDontFork != 0,
			DontDump: fl&vmDontDump != 0, WipeOnFork: fl&vmWipeOnFork != 0, NoReserve: fl&vmNoReserve != 0,
			Huge: fl&vmHuge != 0, NoHuge: fl&vmNoHuge != 0, Anonymous: v.Val.anon()}
		if fl&vmSpecial != 0 {
			i.Off = 0
		}
		if usage {
			m.usage(v, &i)
		}
		var f File
		if v.Val.ref != nil && v.Val.ref.file != nil {
			f = v.Val.ref.file
			f.IncRef()
		}
		files = append(files, f)
		out = append(out, i)
		return true
	})
	m.mu.RUnlock()
	for i, f := range files {
		if f == nil {
			continue
		}
		if out[i].Name == "" {
			out[i].Name = f.MappedName()
		}
		out[i].Dev, out[i].Ino = f.DeviceInode()
		f.DecRef()
	}
	return out
}

func (m *MM) usage(v vspan, i *VMAInfo) {
	for _, p := range m.pmas.Collect(nil, v.Start, v.End) {
		n := p.Len()
		if int(p.Val.fd) == m.pf.FD() {
			n = m.pf.Resident(p.Val.off, n)
		} else if v.Val.prot == 0 {
			n = 0
		}
		i.Resident += n
		switch {
		case p.Val.owned:
			i.Anon += n
			if p.Val.cow {
				i.SharedPages += n
			} else {
				i.Private += n
			}
		case v.Val.shared():
			i.SharedPages += n
		default:
			i.SharedPages += n
		}
	}
}

// residentRuns returns the addresses in p, pages of the page file, that hold memory.
func (m *MM) residentRuns(p pspan) (out []gap) {
	m.pf.Extents(p.Val.off, p.Len(), func(r pagefile.Range) bool {
		lo := p.Start + (r.Off - p.Val.off)
		out = append(out, gap{lo, lo + r.Len})
		return true
	})
	return
}

// Stat is the sizes of an address space in bytes (/proc/PID/statm, status).
type Stat struct {
	Total, Peak, Data, Stack, Text, Locked, Shared uint64
	// Resident is the memory in use: anonymous, of files, and shared.
	Resident, ResidentAnon, ResidentFile, ResidentShared uint64
}

// Stat returns the sizes; resident ones only if asked, as they cost system calls.
func (m *MM) Stat(resident bool) Stat {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := Stat{Total: m.totalVM, Peak: m.maxTotalVM, Data: m.dataVM, Stack: m.stackVM, Locked: m.lockedVM, Shared: m.sharedVM,
		Text: pageUp(m.info.EndCode) - m.info.StartCode&^pageMask}
	if !resident {
		return s
	}
	m.vmas.Ascend(0, ^uint64(0), func(v vspan) bool {
		var i VMAInfo
		m.usage(v, &i)
		s.Resident += i.Resident
		s.ResidentAnon += i.Anon
		if v.Val.shared() {
			s.ResidentShared += i.Resident - i.Anon
		} else {
			s.ResidentFile += i.Resident - i.Anon
		}
		return true
	})
	return s
}

// SetVMAName names anonymous memory (PR_SET_VMA_ANON_NAME); an empty name
// takes it away. Holes give ENOMEM at the end, files EBADF.
func (m *MM) SetVMAName(addr usermem.Addr, length uint64, name string) error {
	lo := uint64(addr)
	if lo&pageMask != 0 {
		return abi.EINVAL
	}
	n := pageUp(length)
	if length != 0 && n == 0 || lo+n < lo {
		return abi.EINVAL
	}
	if name != "" {
		name = "[anon:" + name + "]"
	}
	m.mu.Lock()
	defer m.unlock()
	hole := false
	at, hi := lo, lo+n
	for at < hi {
		v, ok := m.vmas.Next(at)
		if !ok || v.Start >= hi {
			hole = true
			break
		}
		if v.Start > at {
			hole, at = true, v.Start
		}
		end := min(v.End, hi)
		if !v.Val.anon() {
			return abi.EBADF
		}
		if v.Val.name != name && v.Val.name != "[heap]" && v.Val.name != "[stack]" {
			m.updateVMAs(at, end, func(v *vma) { v.name = name })
		}
		at = end
	}
	if hole {
		return abi.ENOMEM
	}
	return nil
}

// ClearRefs and friends of /proc are not kept; MapCount is the number of VMAs.
func (m *MM) MapCount() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.vmas.Count()
}
