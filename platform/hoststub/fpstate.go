package hoststub

import "encoding/binary"

// Offsets in the XSAVE area's legacy region and header (Intel SDM 1, 13.4); the
// software bytes are Linux's (arch/x86/include/uapi/asm/sigcontext.h).
const (
	FPMXCSR     = 24
	FPMXCSRMask = 28
	FPSoftware  = 464 // with the mask of components at its start, as ptrace(2) shows it
	FPXstateBV  = 512
	FPHeaderEnd = 576

	// Components that are more than registers to a kernel (supervisor state)
	// or that need a permission (AMX) are never a guest's to load.
	fpUser = 0xe7 | 1<<9 // x87, SSE, AVX, AVX-512, PKRU
)

// FPFormat is the extended state on this host.
type FPFormat struct {
	Init []byte // that of a new program
	mask uint64 // components that guests may load
}

// NewFPFormat makes it for states of n bytes with the given components. mxcsr
// is the CPU's mask of MXCSR, or 0.
func NewFPFormat(n int, components uint64, mxcsr uint32) FPFormat {
	f := FPFormat{Init: make([]byte, n), mask: components & fpUser}
	if f.mask == 0 {
		f.mask = 3
	}
	if mxcsr == 0 {
		mxcsr = 0xffbf // Intel SDM 1, 11.6.6
	}
	b := f.Init
	binary.LittleEndian.PutUint64(b[FPSoftware:], components)
	binary.LittleEndian.PutUint16(b, 0x37f) // the x87 control word
	binary.LittleEndian.PutUint32(b[FPMXCSR:], 0x1f80)
	binary.LittleEndian.PutUint32(b[FPMXCSRMask:], mxcsr)
	binary.LittleEndian.PutUint64(b[FPXstateBV:], 3) // x87 and SSE; the rest is zero
	return f
}

// Sanitise clears what the kernel or XRSTOR would refuse.
func (f *FPFormat) Sanitise(fp []byte) {
	mxcsr := binary.LittleEndian.Uint32(fp[FPMXCSR:])
	mask := binary.LittleEndian.Uint32(f.Init[FPMXCSRMask:])
	binary.LittleEndian.PutUint32(fp[FPMXCSR:], mxcsr&mask)
	binary.LittleEndian.PutUint32(fp[FPMXCSRMask:], mask)
	copy(fp[FPSoftware:FPXstateBV], f.Init[FPSoftware:])
	bv := binary.LittleEndian.Uint64(fp[FPXstateBV:])
	binary.LittleEndian.PutUint64(fp[FPXstateBV:], bv&f.mask)
	clear(fp[FPXstateBV+8 : FPHeaderEnd])
}
