package kernel

import (
	"encoding/binary"

	"garrison/abi"
	"garrison/sentry/usermem"
)

// The selectors and flags that 64-bit guest code runs with.
const (
	userCS = 0x33
	userSS = 0x2b

	eflagsDF = 0x400
	eflagsRF = 0x10000
	eflagsTF = 0x100
	// eflagsFix are the flags that rt_sigreturn takes from the frame
	// (FIX_EFLAGS in arch/x86/kernel/signal.c).
	eflagsFix = 0x40000 | 0x800 | eflagsDF | eflagsTF | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | eflagsRF
)

// redZone is what the System V ABI lets a leaf function use below its stack
// pointer.
const redZone = 128

// fpState returns the vector state with the software-reserved bytes filled in
// as signal frames have them, and the trailing magic number.
func (t *Task) fpState() []byte {
	n := t.thread.FPState(nil)
	if len(t.sig.fpBuf) < n+abi.FP_XSTATE_MAGIC2_SIZE {
		t.sig.fpBuf = make([]byte, n+abi.FP_XSTATE_MAGIC2_SIZE)
	}
	b := t.sig.fpBuf[:n+abi.FP_XSTATE_MAGIC2_SIZE]
	t.thread.FPState(b[:n])
	le := binary.LittleEndian
	sw := b[abi.FPSwReservedOff:abi.FPLegacySize]
	features := le.Uint64(sw) // the host's kernel tells XCR0 here
	if features&3 != 3 {
		features = le.Uint64(b[abi.FPLegacySize:]) | 3
	}
	clear(sw)
	le.PutUint32(sw, abi.FP_XSTATE_MAGIC1)
	le.PutUint32(sw[4:], uint32(len(b)))
	le.PutUint64(sw[8:], features)
	le.PutUint32(sw[16:], uint32(n))
	le.PutUint32(b[n:], abi.FP_XSTATE_MAGIC2)
	return b
}

// pushFrame builds the frame of a handler on the guest's stack and points the
// registers at the handler (setup_rt_frame). It reports whether that worked.
func (t *Task) pushFrame(info *abi.SigInfo, act *abi.SigAction) bool {
	r := &t.regs
	sp := r.Rsp - redZone
	nested := t.onAltStack(r.Rsp)
	entering := false
	a := &t.sig.alt
	if act.Flags&abi.SA_ONSTACK != 0 && a.Size != 0 && !nested {
		sp = a.SP + a.Size
		entering = true
	}
	fp := t.fpState()
	sp = (sp - uint64(len(fp))) &^ 63
	fpAddr := sp
	sp = (sp-abi.RTSigFrameSize)&^15 - 8
	if nested || entering {
		if sp <= a.SP || sp-a.SP > a.Size {
			return false
		}
	}
	if act.Flags&abi.SA_RESTORER == 0 {
		return false // x86-64 has no other way back
	}

	uc := abi.UContext{Flags: abi.UC_FP_XSTATE | abi.UC_SIGCONTEXT_SS | abi.UC_STRICT_RESTORE_SS, Mask: t.sig.blocked}
	if t.sig.haveSaved {
		uc.Mask = t.sig.saved
	}
	uc.Stack = *a
	switch {
	case a.Size == 0:
		uc.Stack.Flags |= abi.SS_DISABLE
	case nested:
		uc.Stack.Flags |= abi.SS_ONSTACK
	}
	uc.Mcontext = abi.SigContext{R8: r.R8, R9: r.R9, R10: r.R10, R11: r.R11, R12: r.R12, R13: r.R13, R14: r.R14, R15: r.R15,
		Rdi: r.Rdi, Rsi: r.Rsi, Rbp: r.Rbp, Rbx: r.Rbx, Rdx: r.Rdx, Rax: r.Rax, Rcx: r.Rcx, Rsp: r.Rsp, Rip: r.Rip,
		Eflags: r.Eflags, Cs: userCS, Ss: userSS, Err: t.sig.trapErr, Trapno: t.sig.trapNo, Oldmask: uint64(uc.Mask),
		Cr2: t.sig.cr2, Fpstate: fpAddr}

	var frame [abi.RTSigFrameSize]byte
	binary.LittleEndian.PutUint64(frame[:], act.Restorer)
	uc.MarshalTo(frame[8:])
	info.MarshalTo(frame[8+abi.UContextSize:])
	m := t.MM()
	if _, err := m.CopyOut(usermem.Addr(fpAddr), fp); err != nil {
		return false
	}
	if _, err := m.CopyOut(usermem.Addr(sp), frame[:]); err != nil {
		return false
	}
	if a.Flags&abi.SS_AUTODISARM != 0 {
		*a = abi.SigAltStack{}
	}
	r.Rdi = uint64(info.Signo)
	r.Rsi = sp + 8 + abi.UContextSize
	r.Rdx = sp + 8
	r.Rax = 0
	r.Rsp = sp
	r.Rip = act.Handler
	r.Cs, r.Ss = userCS, userSS
	r.Eflags &^= eflagsDF | eflagsRF | eflagsTF
	r.Orig_rax = ^uint64(0)
	return true
}

// SigReturn is rt_sigreturn(2): it puts back what pushFrame saved. Guests
// write the frame, so all of it is checked.
func (t *Task) SigReturn() {
	var b [abi.UContextSize]byte
	m := t.MM()
	if _, err := m.CopyIn(usermem.Addr(t.regs.Rsp), b[:]); err != nil {
		t.badFrame()
		return
	}
	var uc abi.UContext
	uc.UnmarshalFrom(b[:])
	t.SetSignalMask(uc.Mask)
	c, r := &uc.Mcontext, &t.regs
	r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15 = c.R8, c.R9, c.R10, c.R11, c.R12, c.R13, c.R14, c.R15
	r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx, r.Rsp, r.Rip = c.Rdi, c.Rsi, c.Rbp, c.Rbx, c.Rdx, c.Rax, c.Rcx, c.Rsp, c.Rip
	r.Cs, r.Ss = userCS, userSS
	r.Eflags = r.Eflags&^eflagsFix | c.Eflags&eflagsFix
	r.Orig_rax = ^uint64(0)
	if !t.restoreFP(c.Fpstate) {
		t.badFrame()
		return
	}
	// restore_altstack: errors other than a fault do not matter here.
	t.SetAltStack(uc.Stack, r.Rsp, 0)
}

func (t *Task) badFrame() {
	t.regs.Orig_rax = ^uint64(0)
	t.forceSignal(kernelInfo(abi.SIGSEGV))
}

// restoreFP loads the vector state of a signal frame.
func (t *Task) restoreFP(addr uint64) bool {
	if addr == 0 {
		return t.thread.SetFPState(nil) == nil
	}
	n := t.thread.FPState(nil)
	if len(t.sig.fpBuf) < n+abi.FP_XSTATE_MAGIC2_SIZE {
		t.sig.fpBuf = make([]byte, n+abi.FP_XSTATE_MAGIC2_SIZE)
	}
	b := t.sig.fpBuf[:n+abi.FP_XSTATE_MAGIC2_SIZE]
	m := t.MM()
	if _, err := m.CopyIn(usermem.Addr(addr), b[:abi.FPLegacySize]); err != nil {
		return false
	}
	le := binary.LittleEndian
	sw := b[abi.FPSwReservedOff:]
	size := int(le.Uint32(sw[16:]))
	extended := le.Uint32(sw) == abi.FP_XSTATE_MAGIC1 && size == n && le.Uint32(sw[4:]) == uint32(n+abi.FP_XSTATE_MAGIC2_SIZE)
	features := le.Uint64(sw[8:])
	if extended {
		if _, err := m.CopyIn(usermem.Addr(addr), b); err != nil {
			return false
		}
		extended = le.Uint32(b[n:]) == abi.FP_XSTATE_MAGIC2
	}
	clear(b[abi.FPSwReservedOff:abi.FPLegacySize])
	if extended {
		h := b[abi.FPLegacySize:]
		le.PutUint64(h, le.Uint64(h)&features)
	} else {
		// check_xstate_in_sigframe: without the magic numbers only the FXSAVE part counts.
		clear(b[abi.FPLegacySize:n])
		le.PutUint64(b[abi.FPLegacySize:], 3)
	}
	return t.thread.SetFPState(b[:n]) == nil
}
