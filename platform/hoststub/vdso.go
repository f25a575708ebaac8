package hoststub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"garrison/platform"

	"golang.org/x/sys/unix"
)

// A Span is a range of addresses.
type Span struct{ Start, End uint64 }

// hostVDSO is what Prepare found out. It does not change as long as we live.
var hostVDSO struct {
	sync.Mutex
	done bool
	maps []Span // of the vDSO and its data, in order of address
	base uint64 // of the vDSO's image
	size uint64
}

// Prepare reads from /proc what New needs. Processes that give up /proc before
// they call New call it earlier; others need not.
func Prepare() error {
	h := &hostVDSO
	h.Lock()
	defer h.Unlock()
	if h.done {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("platform: find the vDSO: %w (is /proc mounted?)", err)
	}
	for _, line := range strings.Split(string(maps), "\n") {
		isImage := strings.HasSuffix(line, "[vdso]")
		if !isImage && !strings.Contains(line, "[vvar") {
			continue
		}
		field, _, _ := strings.Cut(line, " ")
		lo, hi, _ := strings.Cut(field, "-")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil || end <= start {
			return fmt.Errorf("platform: can't parse the line %q of /proc/self/maps", line)
		}
		h.maps = append(h.maps, Span{start, end})
		if isImage {
			h.base, h.size = start, end-start
		}
	}
	if h.base == 0 {
		h.maps = nil // vdso=0 on the host's command line
	}
	h.done = true
	return nil
}

// addVDSOSymbols sets l's function addresses from our own copy of the host's
// vDSO; in stubs it lies at base. What it lacks stays zero.
func addVDSOSymbols(l *platform.Layout, base uint64) {
	image := bytesAt(hostVDSO.base, int(hostVDSO.size))
	// section headers (elf(5)): the kernel's image has them, and they say how
	// many symbols there are.
	u64 := func(b []byte, off uint64) uint64 {
		if off+8 > uint64(len(b)) || off+8 < off {
			return 0
		}
		return binary.LittleEndian.Uint64(b[off:])
	}
	part := func(off, n uint64) []byte {
		if off+n > uint64(len(image)) || off+n < off {
			return nil
		}
		return image[off : off+n]
	}
	const dynsym = 11 // SHT_DYNSYM
	shoff, count := u64(image, 0x28), u64(image, 0x3c)&0xffff
	for i := range count {
		sh := part(shoff+i*64, 64)
		if sh == nil || uint32(u64(sh, 4)) != dynsym {
			continue
		}
		syms := part(u64(sh, 0x18), u64(sh, 0x20))
		str := part(shoff+(u64(sh, 0x28)&0xffffffff)*64, 64)
		if str == nil {
			return
		}
		names := part(u64(str, 0x18), u64(str, 0x20))
		for ; len(syms) >= 24; syms = syms[24:] {
			at := u64(syms, 0) & 0xffffffff
			if at >= uint64(len(names)) {
				continue
			}
			name, _, _ := bytes.Cut(names[at:], []byte{0})
			addr := base + u64(syms, 8)
			switch string(name) {
			case "__vdso_clock_gettime":
				l.ClockGettime = addr
			case "__vdso_gettimeofday":
				l.Gettimeofday = addr
			case "__vdso_time":
				l.Time = addr
			case "__vdso_getcpu":
				l.GetCPU = addr
			case "__vdso_clock_getres":
				l.ClockGetres = addr
			}
		}
	}
}

// PlaceVDSO moves the vDSO of a process that is a copy of this one to the
// address to, so that guests get one clean range that is the same in every
// sandbox: [Min, Max) of l becomes [64 KiB, end). A host that seals the vDSO's
// mappings keeps it where it is, and guests get what is below. What is above
// floor is the platform's own. call makes a system call in that process. The
// vDSO's place is returned, if there is one.
func PlaceVDSO(l *platform.Layout, end, floor, to uint64, call func(nr uint64, args ...uint64) (uint64, error)) (keep []Span, err error) {
	*l = platform.Layout{Min: 1 << 16, Max: end}
	if len(hostVDSO.maps) == 0 {
		return nil, nil
	}
	lo, hi := hostVDSO.maps[0].Start, hostVDSO.maps[len(hostVDSO.maps)-1].End
	base := hostVDSO.base
	moved := hi-lo <= TaskSize-to && (hi <= floor || lo >= TaskSize)
	for i, m := range hostVDSO.maps {
		if !moved {
			break
		}
		n := m.End - m.Start
		_, err := call(unix.SYS_MREMAP, m.Start, n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to+m.Start-lo)
		if err == nil {
			continue
		}
		moved = false
		for _, m := range hostVDSO.maps[:i] {
			n := m.End - m.Start
			if _, err := call(unix.SYS_MREMAP, to+m.Start-lo, n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, m.Start); err != nil {
				return nil, fmt.Errorf("move the vDSO back: %w", err)
			}
		}
	}
	if moved {
		base += to - lo
		lo, hi = to, to+hi-lo
	} else {
		l.Max = min(l.Max, lo&^(1<<21-1))
	}
	addVDSOSymbols(l, base)
	return []Span{{lo, hi}}, nil
}
