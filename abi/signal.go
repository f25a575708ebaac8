package abi

import (
	"encoding/binary"
	"strconv"
)

// Signal numbers and limits that the headers do not give as plain macros
// (uapi/asm/signal.h, asm-generic/signal.h).
const (
	SIGRTMIN = 32 // the kernel's; C libraries keep the first few for themselves
	SIGRTMAX = 64
	NSIG     = 64

	SA_RESTORER       = 0x04000000
	SA_UNSUPPORTED    = 0x00000400
	SA_EXPOSE_TAGBITS = 0x00000800

	SS_AUTODISARM = 1 << 31

	SIG_DFL = 0
	SIG_IGN = 1

	SIGEV_SIGNAL    = 0
	SIGEV_NONE      = 1
	SIGEV_THREAD    = 2
	SIGEV_THREAD_ID = 4
)

// A SigSet is a sigset_t: bit n-1 is signal n.
type SigSet uint64

// SigBit is the set that holds just sig.
func SigBit(sig int32) SigSet { return 1 << uint(sig-1) }

// Has reports whether sig is in the set.
func (s SigSet) Has(sig int32) bool { return s>>uint(sig-1)&1 != 0 }

// SigBlockable are the signals that a mask may hold: all but SIGKILL and SIGSTOP.
const SigBlockable SigSet = ^(SigSet(1)<<(SIGKILL-1) | SigSet(1)<<(SIGSTOP-1))

// A SigAction is the kernel's struct sigaction (asm/signal.h).
type SigAction struct {
	Handler  uint64
	Flags    uint64
	Restorer uint64
	Mask     SigSet
}

// SigActionSize is sizeof(struct sigaction) in the kernel.
const SigActionSize = 32

// MarshalTo writes a to b.
func (a *SigAction) MarshalTo(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b, a.Handler)
	le.PutUint64(b[8:], a.Flags)
	le.PutUint64(b[16:], a.Restorer)
	le.PutUint64(b[24:], uint64(a.Mask))
}

// UnmarshalFrom reads a from b.
func (a *SigAction) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	a.Handler = le.Uint64(b)
	a.Flags = le.Uint64(b[8:])
	a.Restorer = le.Uint64(b[16:])
	a.Mask = SigSet(le.Uint64(b[24:]))
}

// A SigAltStack is a stack_t (asm/signal.h).
type SigAltStack struct {
	SP    uint64
	Flags uint32
	Size  uint64
}

// SigAltStackSize is sizeof(stack_t).
const SigAltStackSize = 24

// MarshalTo writes s to b.
func (s *SigAltStack) MarshalTo(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b, s.SP)
	le.PutUint64(b[8:], uint64(s.Flags))
	le.PutUint64(b[16:], s.Size)
}

// UnmarshalFrom reads s from b.
func (s *SigAltStack) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	s.SP = le.Uint64(b)
	s.Flags = le.Uint32(b[8:])
	s.Size = le.Uint64(b[16:])
}

// A SigInfo is a siginfo_t: three ints, padding, and a union whose members the
// accessors below name (asm-generic/siginfo.h).
type SigInfo struct {
	Signo  int32
	Errno  int32
	Code   int32
	Fields [112]byte // from offset 16 on
}

// SigInfoSize is sizeof(siginfo_t).
const SigInfoSize = 128

// MarshalTo writes i to b.
func (i *SigInfo) MarshalTo(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(i.Signo))
	le.PutUint32(b[4:], uint32(i.Errno))
	le.PutUint32(b[8:], uint32(i.Code))
	le.PutUint32(b[12:], 0)
	copy(b[16:SigInfoSize], i.Fields[:])
}

// UnmarshalFrom reads i from b.
func (i *SigInfo) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	i.Signo = int32(le.Uint32(b))
	i.Errno = int32(le.Uint32(b[4:]))
	i.Code = int32(le.Uint32(b[8:]))
	copy(i.Fields[:], b[16:SigInfoSize])
}

func (i *SigInfo) get32(off int) uint32    { return binary.LittleEndian.Uint32(i.Fields[off:]) }
func (i *SigInfo) put32(off int, v uint32) { binary.LittleEndian.PutUint32(i.Fields[off:], v) }
func (i *SigInfo) get64(off int) uint64    { return binary.LittleEndian.Uint64(i.Fields[off:]) }
func (i *SigInfo) put64(off int, v uint64) { binary.LittleEndian.PutUint64(i.Fields[off:], v) }

// PID is si_pid (kill, queue, child).
func (i *SigInfo) PID() int32 { return int32(i.get32(0)) }

// SetPID sets si_pid.
func (i *SigInfo) SetPID(v int32) { i.put32(0, uint32(v)) }

// UID is si_uid.
func (i *SigInfo) UID() uint32 { return i.get32(4) }

// SetUID sets si_uid.
func (i *SigInfo) SetUID(v uint32) { i.put32(4, v) }

// Status is si_status (child).
func (i *SigInfo) Status() int32 { return int32(i.get32(8)) }

// SetStatus sets si_status.
func (i *SigInfo) SetStatus(v int32) { i.put32(8, uint32(v)) }

// SetChildTimes sets si_utime and si_stime, in clock ticks.
func (i *SigInfo) SetChildTimes(utime, stime int64) {
	i.put64(16, uint64(utime))
	i.put64(24, uint64(stime))
}

// Value is si_value (queue, timer).
func (i *SigInfo) Value() uint64 { return i.get64(8) }

// SetValue sets si_value.
func (i *SigInfo) SetValue(v uint64) { i.put64(8, v) }

// TimerID is si_timerid.
func (i *SigInfo) TimerID() int32 { return int32(i.get32(0)) }

// SetTimerID sets si_timerid.
func (i *SigInfo) SetTimerID(v int32) { i.put32(0, uint32(v)) }

// Overrun is si_overrun.
func (i *SigInfo) Overrun() int32 { return int32(i.get32(4)) }

// SetOverrun sets si_overrun.
func (i *SigInfo) SetOverrun(v int32) { i.put32(4, uint32(v)) }

// Addr is si_addr (faults).
func (i *SigInfo) Addr() uint64 { return i.get64(0) }

// SetAddr sets si_addr.
func (i *SigInfo) SetAddr(v uint64) { i.put64(0, v) }

// Band is si_band (SIGIO).
func (i *SigInfo) Band() int64 { return int64(i.get64(0)) }

// SetBand sets si_band.
func (i *SigInfo) SetBand(v int64) { i.put64(0, uint64(v)) }

// FD is si_fd (SIGIO).
func (i *SigInfo) FD() int32 { return int32(i.get32(8)) }

// SetFD sets si_fd.
func (i *SigInfo) SetFD(v int32) { i.put32(8, uint32(v)) }

// sigNames are the names of the standard signals.
var sigNames = [...]string{1: "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE",
	"SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT",
	"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH",
	"SIGIO", "SIGPWR", "SIGSYS"}

// SignalName is "SIGINT" for 2, "SIGRT_3" for the third real-time signal above SIGRTMIN.
func SignalName(sig int32) string {
	switch {
	case sig > 0 && int(sig) < len(sigNames):
		return sigNames[sig]
	case sig == SIGRTMIN:
		return "SIGRTMIN"
	case sig > SIGRTMIN && sig <= SIGRTMAX:
		return "SIGRT_" + itoa(int(sig-SIGRTMIN))
	}
	return itoa(int(sig))
}

func itoa(n int) string { return strconv.Itoa(n) }
