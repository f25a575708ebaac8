package ptrace

import (
	"encoding/binary"
	"fmt"

	"garrison/abi"
)

// Offsets in the XSAVE area's legacy region and header (Intel SDM 1, 13.4); the
// software bytes are Linux's (arch/x86/include/uapi/asm/sigcontext.h).
const (
	fpMXCSR     = 24
	fpMXCSRMask = 28
	fpSoftware  = 464 // with the mask of components at its start, as ptrace(2) shows it
	fpXstateBV  = 512
	fpHeaderEnd = 576

	// Components that are more than registers to a kernel (supervisor state)
	// or that need a permission (AMX) are never a guest's to load.
	fpUser = 0xe7 | 1<<9 // x87, SSE, AVX, AVX-512, PKRU
)

// initFPState finds the length of the state, and makes the initial one.
func (p *Platform) initFPState(z *stub) error {
	buf := make([]byte, 64<<10)
	n, e := getXstate(z.tid, buf)
	if e != 0 {
		return fmt.Errorf("ptrace: read the floating-point state: %w", e)
	}
	if n < fpHeaderEnd {
		return fmt.Errorf("ptrace: this host has no XSAVE (the extended state has %d bytes)", n)
	}
	host := buf[:n]
	p.fpMask = binary.LittleEndian.Uint64(host[fpSoftware:]) & fpUser
	if p.fpMask == 0 {
		p.fpMask = 3
	}
	mask := binary.LittleEndian.Uint32(host[fpMXCSRMask:])
	if mask == 0 {
		mask = 0xffbf // Intel SDM 1, 11.6.6
	}
	b := make([]byte, n)
	copy(b[fpSoftware:fpSoftware+48], host[fpSoftware:])
	binary.LittleEndian.PutUint16(b, 0x37f) // the x87 control word
	binary.LittleEndian.PutUint32(b[fpMXCSR:], 0x1f80)
	binary.LittleEndian.PutUint32(b[fpMXCSRMask:], mask)
	binary.LittleEndian.PutUint64(b[fpXstateBV:], 3) // x87 and SSE; the rest is zero
	p.fpInit = b
	return nil
}

// keepFPState reads the state of a stub that is about to be given back.
func (t *thread) keepFPState() {
	if t.as == nil || t.fpDirty {
		return
	}
	t.fp = append(t.fp[:0], t.p.fpInit...)
	getXstate(t.stub.tid, t.fp) // a dead stub: the initial state
	t.fpDirty = true
}

func (t *thread) loadFPState() error {
	fp := t.fp
	if len(fp) == 0 {
		fp = t.p.fpInit
	}
	if e := setXstate(t.stub.tid, fp); e != 0 {
		return gone(e)
	}
	t.fpDirty = false
	return nil
}

// FPState implements platform.Thread.
func (t *thread) FPState(dst []byte) int {
	n := len(t.p.fpInit)
	if len(dst) < n {
		return n
	}
	switch {
	case !t.fpDirty:
		if _, e := getXstate(t.stub.tid, dst[:n]); e == 0 {
			return n
		}
	case len(t.fp) != 0:
		return copy(dst, t.fp)
	}
	return copy(dst, t.p.fpInit)
}

// SetFPState implements platform.Thread. The host sees it at the next Run.
func (t *thread) SetFPState(src []byte) error {
	n := len(t.p.fpInit)
	if src == nil {
		t.fp = t.fp[:0]
		t.fpDirty = true
		return nil
	}
	if len(src) < n {
		return abi.EINVAL
	}
	t.fp = append(t.fp[:0], src[:n]...)
	t.fpDirty = true
	t.p.sanitiseFP(t.fp)
	return nil
}

// sanitiseFP clears what the kernel or XRSTOR would refuse.
func (p *Platform) sanitiseFP(fp []byte) {
	mxcsr := binary.LittleEndian.Uint32(fp[fpMXCSR:])
	mask := binary.LittleEndian.Uint32(p.fpInit[fpMXCSRMask:])
	binary.LittleEndian.PutUint32(fp[fpMXCSR:], mxcsr&mask)
	binary.LittleEndian.PutUint32(fp[fpMXCSRMask:], mask)
	copy(fp[fpSoftware:fpXstateBV], p.fpInit[fpSoftware:])
	bv := binary.LittleEndian.Uint64(fp[fpXstateBV:])
	binary.LittleEndian.PutUint64(fp[fpXstateBV:], bv&p.fpMask)
	clear(fp[fpXstateBV+8 : fpHeaderEnd])
}
