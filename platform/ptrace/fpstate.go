package ptrace

import (
	"encoding/binary"
	"fmt"

	"garrison/abi"
	"garrison/platform/hoststub"
)

// initFPState finds the length of the state, and makes the initial one.
func (p *Platform) initFPState(z *stub) error {
	buf := make([]byte, 64<<10)
	n, e := getXstate(z.tid, buf)
	if e != 0 {
		return fmt.Errorf("ptrace: read the floating-point state: %w", e)
	}
	if n < hoststub.FPHeaderEnd {
		return fmt.Errorf("ptrace: this host has no XSAVE (the extended state has %d bytes)", n)
	}
	host := buf[:n]
	p.fp = hoststub.NewFPFormat(n, binary.LittleEndian.Uint64(host[hoststub.FPSoftware:]), binary.LittleEndian.Uint32(host[hoststub.FPMXCSRMask:]))
	return nil
}

// keepFPState reads the state of a stub that is about to be given back.
func (t *thread) keepFPState() {
	if t.as == nil || t.fpDirty {
		return
	}
	t.fp = append(t.fp[:0], t.p.fp.Init...)
	getXstate(t.stub.tid, t.fp) // a dead stub: the initial state
	t.fpDirty = true
}

func (t *thread) loadFPState() error {
	fp := t.fp
	if len(fp) == 0 {
		fp = t.p.fp.Init
	}
	if e := setXstate(t.stub.tid, fp); e != 0 {
		return gone(e)
	}
	t.fpDirty = false
	return nil
}

// FPState implements platform.Thread.
func (t *thread) FPState(dst []byte) int {
	n := len(t.p.fp.Init)
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
	return copy(dst, t.p.fp.Init)
}

// SetFPState implements platform.Thread. The host sees it at the next Run.
func (t *thread) SetFPState(src []byte) error {
	n := len(t.p.fp.Init)
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
	t.p.fp.Sanitise(t.fp)
	return nil
}
