package abi

import "encoding/binary"

// Layout of the frame that a signal handler finds on its stack
// (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h, uapi/asm/ucontext.h).
const (
	FP_XSTATE_MAGIC1      = 0x46505853
	FP_XSTATE_MAGIC2      = 0x46505845
	FP_XSTATE_MAGIC2_SIZE = 4

	UC_FP_XSTATE         = 0x1
	UC_SIGCONTEXT_SS     = 0x2
	UC_STRICT_RESTORE_SS = 0x4

	// RTSigFrameSize is sizeof(struct rt_sigframe): return address, ucontext, siginfo.
	RTSigFrameSize = 8 + UContextSize + SigInfoSize
	UContextSize   = 8 + 8 + SigAltStackSize + SigContextSize + 8
	SigContextSize = 256

	// FPSwReservedOff is where struct _fpx_sw_bytes lies in the legacy area.
	FPSwReservedOff = 464
	FPLegacySize    = 512
)

// A SigContext is struct sigcontext for 64-bit code.
type SigContext struct {
	R8, R9, R10, R11, R12, R13, R14, R15        uint64
	Rdi, Rsi, Rbp, Rbx, Rdx, Rax, Rcx, Rsp, Rip uint64
	Eflags                                      uint64
	Cs, Gs, Fs, Ss                              uint16
	Err, Trapno, Oldmask, Cr2                   uint64
	Fpstate                                     uint64
}

// words returns the members that are plain doublewords before Cs.
func (c *SigContext) words() [18]*uint64 {
	return [18]*uint64{&c.R8, &c.R9, &c.R10, &c.R11, &c.R12, &c.R13, &c.R14, &c.R15,
		&c.Rdi, &c.Rsi, &c.Rbp, &c.Rbx, &c.Rdx, &c.Rax, &c.Rcx, &c.Rsp, &c.Rip, &c.Eflags}
}

// A UContext is struct ucontext with the kernel's 8-byte signal mask.
type UContext struct {
	Flags, Link uint64
	Stack       SigAltStack
	Mcontext    SigContext
	Mask        SigSet
}

// MarshalTo writes u to b.
func (u *UContext) MarshalTo(b []byte) {
	le := binary.LittleEndian
	clear(b[:UContextSize])
	le.PutUint64(b, u.Flags)
	le.PutUint64(b[8:], u.Link)
	u.Stack.MarshalTo(b[16:])
	c := b[40:]
	for i, w := range u.Mcontext.words() {
		le.PutUint64(c[8*i:], *w)
	}
	m := &u.Mcontext
	le.PutUint16(c[144:], m.Cs)
	le.PutUint16(c[146:], m.Gs)
	le.PutUint16(c[148:], m.Fs)
	le.PutUint16(c[150:], m.Ss)
	le.PutUint64(c[152:], m.Err)
	le.PutUint64(c[160:], m.Trapno)
	le.PutUint64(c[168:], m.Oldmask)
	le.PutUint64(c[176:], m.Cr2)
	le.PutUint64(c[184:], m.Fpstate)
	le.PutUint64(b[40+SigContextSize:], uint64(u.Mask))
}

// UnmarshalFrom reads u from b.
func (u *UContext) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	u.Flags, u.Link = le.Uint64(b), le.Uint64(b[8:])
	u.Stack.UnmarshalFrom(b[16:])
	c := b[40:]
	for i, w := range u.Mcontext.words() {
		*w = le.Uint64(c[8*i:])
	}
	m := &u.Mcontext
	m.Cs, m.Gs, m.Fs, m.Ss = le.Uint16(c[144:]), le.Uint16(c[146:]), le.Uint16(c[148:]), le.Uint16(c[150:])
	m.Err, m.Trapno, m.Oldmask, m.Cr2 = le.Uint64(c[152:]), le.Uint64(c[160:]), le.Uint64(c[168:]), le.Uint64(c[176:])
	m.Fpstate = le.Uint64(c[184:])
	u.Mask = SigSet(le.Uint64(b[40+SigContextSize:]))
}
