package ptrace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"garrison/platform"
)

type span struct{ start, end uint64 }

// hostVDSO is what Prepare found out. It does not change as long as we live.
var hostVDSO struct {
	sync.Mutex
	done bool
	maps []span // of the vDSO and its data, in order of address
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
		return fmt.Errorf("ptrace: find the vDSO: %w (is /proc mounted?)", err)
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
			return fmt.Errorf("ptrace: can't parse the line %q of /proc/self/maps", line)
		}
		h.maps = append(h.maps, span{start, end})
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
