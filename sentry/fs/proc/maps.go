package proc

import (
	"bytes"
	"fmt"

	"garrison/sentry/mm"
	"garrison/sentry/vfs"
)

// mapsRow is one line of /proc/PID/maps; names start in column 74, as
// fs/proc/task_mmu.c pads them.
func mapsRow(b *bytes.Buffer, v *mm.VMAInfo) {
	start := b.Len()
	bit := func(on bool, c byte) byte {
		if on {
			return c
		}
		return '-'
	}
	share := byte('p')
	if v.Shared {
		share = 's'
	}
	fmt.Fprintf(b, "%08x-%08x %c%c%c%c %08x %02x:%02x %d ", v.Start, v.End, bit(v.Read, 'r'), bit(v.Write, 'w'),
		bit(v.Exec, 'x'), share, v.Off, vfs.DevMajor(v.Dev), vfs.DevMinor(v.Dev), v.Ino)
	if v.Name != "" {
		for b.Len()-start < 73 {
			b.WriteByte(' ')
		}
		for i := 0; i < len(v.Name); i++ {
			if v.Name[i] == '\n' {
				b.WriteString(`\012`)
			} else {
				b.WriteByte(v.Name[i])
			}
		}
	}
	b.WriteByte('\n')
}

func maps(m *mm.MM) ([]byte, error) {
	var b bytes.Buffer
	for _, v := range m.Maps() {
		mapsRow(&b, &v)
	}
	return b.Bytes(), nil
}

// usageRows are the rows of smaps and smaps_rollup that have a known value.
func usageRows(b *bytes.Buffer, rss, shared, private, anon uint64, locked uint64) {
	row := func(name string, bytes uint64) { fmt.Fprintf(b, "%-15s %8d kB\n", name+":", bytes>>10) }
	row("Rss", rss)
	row("Pss", private+shared/2) // how many share is not known: at least two
	row("Pss_Dirty", private)
	row("Shared_Clean", shared)
	row("Shared_Dirty", 0)
	row("Private_Clean", 0)
	row("Private_Dirty", private)
	row("Referenced", rss)
	row("Anonymous", anon)
	row("LazyFree", 0)
	row("AnonHugePages", 0)
	row("ShmemPmdMapped", 0)
	row("FilePmdMapped", 0)
	row("Shared_Hugetlb", 0)
	row("Private_Hugetlb", 0)
	row("Swap", 0)
	row("SwapPss", 0)
	row("Locked", locked)
}

func smaps(m *mm.MM) ([]byte, error) {
	var b bytes.Buffer
	for _, v := range m.Smaps() {
		mapsRow(&b, &v)
		fmt.Fprintf(&b, "%-15s %8d kB\n", "Size:", (v.End-v.Start)>>10)
		fmt.Fprintf(&b, "%-15s %8d kB\n%-15s %8d kB\n", "KernelPageSize:", 4, "MMUPageSize:", 4)
		locked := uint64(0)
		if v.Locked {
			locked = v.Resident
		}
		usageRows(&b, v.Resident, v.SharedPages, v.Private, v.Anon, locked)
		fmt.Fprintf(&b, "THPeligible:    %8d\nVmFlags:%s \n", 0, vmFlags(&v))
	}
	return b.Bytes(), nil
}

// vmFlags are the two-letter codes of proc(5), "VmFlags".
func vmFlags(v *mm.VMAInfo) string {
	s := ""
	for _, f := range []struct {
		on   bool
		code string
	}{{v.Read, "rd"}, {v.Write, "wr"}, {v.Exec, "ex"}, {v.Shared, "sh"}, {true, "mr"}, {true, "mw"}, {true, "me"},
		{v.GrowsDown, "gd"}, {v.Locked, "lo"}, {v.DontFork, "dc"}, {v.NoReserve, "nr"}, {v.WipeOnFork, "wf"},
		{v.DontDump, "dd"}, {v.Huge, "hg"}, {v.NoHuge, "nh"}} {
		if f.on {
			s += " " + f.code
		}
	}
	return s
}

func smapsRollup(m *mm.MM) ([]byte, error) {
	var rss, shared, private, anon, locked, start, end uint64
	for i, v := range m.Smaps() {
		if i == 0 {
			start = v.Start
		}
		end = v.End
		rss, shared, private, anon = rss+v.Resident, shared+v.SharedPages, private+v.Private, anon+v.Anon
		if v.Locked {
			locked += v.Resident
		}
	}
	var b bytes.Buffer
	mapsRow(&b, &mm.VMAInfo{Start: start, End: end, Name: "[rollup]"})
	usageRows(&b, rss, shared, private, anon, locked)
	return b.Bytes(), nil
}
