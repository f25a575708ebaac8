package ptrace

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"unsafe"

	"garrison/platform"
)

// addVDSOSymbols sets l's function addresses from the host's vDSO, which stays
// mapped in every stub where it is in the Sentry. Without one they stay zero.
func addVDSOSymbols(l *platform.Layout, end uintptr) {
	base := vdsoBase()
	if base == 0 || end <= base {
		return
	}
	// Sound: the kernel mapped the vDSO up to end for the life of
	// the process; it is read only.
	image := unsafe.Slice(*(**byte)(unsafe.Pointer(&base)), int(end-base))
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		return
	}
	for _, s := range syms {
		addr := uint64(base) + s.Value
		switch s.Name {
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

// vdsoBase is AT_SYSINFO_EHDR, or 0.
func vdsoBase() uintptr {
	auxv, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return 0
	}
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.LittleEndian.Uint64(auxv) == 33 { // AT_SYSINFO_EHDR
			return uintptr(binary.LittleEndian.Uint64(auxv[8:]))
		}
	}
	return 0
}
