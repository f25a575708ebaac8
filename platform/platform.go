// Package platform is the contract between the Sentry and the ways of running
// guest code: ptrace, systrap and KVM each implement these three interfaces.
//
// It knows nothing of tasks, system calls' meaning, files or signals: a
// Platform makes address spaces and threads, a Thread runs guest code until
// something needs the Sentry, and says what. Concrete platforms are chosen in
// runsc/boot; package platformtest holds the suite that each must pass.
//
// Lock order: none of its own. Implementations may be called with the Sentry's
// memory-manager locks held and must not call back into the Sentry.
package platform

// A Platform makes address spaces and threads. One exists per sandbox.
type Platform interface {
	// Name is the name users give to --platform.
	Name() string
	// Layout says which addresses guests may use. It is constant.
	Layout() Layout
	// NewAddressSpace makes an empty guest address space.
	NewAddressSpace() (AddressSpace, error)
	// NewThread makes a thread that can run guest code. It is bound to an
	// address space by Run. Cheap until the first Run.
	NewThread() (Thread, error)
}

// Layout describes the guest half of an address space.
type Layout struct {
	// Min and Max bound the addresses that guests may map: [Min, Max).
	Min, Max uint64
	// ClockGettime, Gettimeofday, Time and GetCPU are guest addresses of the
	// host's own vDSO functions, which stay mapped outside [Min, Max) in every
	// address space; zero where there are none. Our vDSO calls them, so that
	// reading the clock costs what it costs natively.
	ClockGettime, Gettimeofday, Time, GetCPU, ClockGetres uint64
}

// Prot is a set of access rights, with the bits of PROT_* (asm-generic/mman-common.h).
type Prot uint8

// The access rights.
const (
	Read  Prot = 1
	Write Prot = 2
	Exec  Prot = 4
)

// A Mapping is one contiguous piece of a host file at a guest address.
type Mapping struct {
	Addr     uint64 // guest address, page aligned
	Len      uint64 // bytes, page aligned, not zero
	FD       int    // host file descriptor in the Sentry; must stay open until the Map call is flushed
	Off      int64  // offset in the file, page aligned
	Prot     Prot   // never zero: unmap what nobody may access
	Populate bool   // fault the pages in ahead: they are about to be used
}

// An AddressSpace is what the hardware sees of one guest memory manager.
//
// Calls may be queued: they take effect before any thread next runs guest code
// in this space (for a thread that runs now: before the call returns).
// Memory or descriptors given back are not reused before Flush has returned.
// All methods may be called from any goroutine.
type AddressSpace interface {
	// Map replaces whatever is mapped in the range by the file's pages, shared.
	Map(m Mapping) error
	// Unmap removes all mappings in the range. Empty ranges are fine.
	Unmap(addr, length uint64) error
	// Protect changes the rights on the parts of the range that are mapped.
	Protect(addr, length uint64, p Prot) error
	// Flush returns when all queued calls have taken effect.
	Flush() error
	// Release frees the space. No thread may run in it then or later.
	Release()
}

// A Thread runs guest code. A Thread is used by one goroutine at a time,
// except for Interrupt. The goroutine that calls Run is locked to its
// operating system thread (runtime.LockOSThread) for as long as it uses it.
type Thread interface {
	// Run resumes guest code in as with the given registers and returns with
	// the reason that it stopped; regs then holds the guest's registers.
	// An error means that the host took the thread away (it was killed, or
	// resources ran out): the guest process must die by SIGKILL.
	Run(as AddressSpace, regs *Registers) (Trap, error)
	// Interrupt makes the current or else the next Run return TrapInterrupted
	// soon. It is idempotent between Runs and may be called from anywhere.
	Interrupt()
	// FPState copies out the guest's floating-point and vector state in
	// XSAVE's standard format and returns its length in bytes. The length is
	// constant per host; a short or nil dst just returns the length.
	// Before the first Run it is the initial state.
	FPState(dst []byte) int
	// SetFPState replaces it. The state is checked and sanitised (XSTATE_BV,
	// MXCSR reserved bits): guests write it. nil means the initial state.
	// It fails with EINVAL if the state can't be loaded.
	SetFPState(src []byte) error
	// Release frees the thread.
	Release()
}

// TrapKind says why guest code stopped.
type TrapKind uint8

// The kinds of trap.
const (
	// TrapInterrupted: Interrupt was called. The registers are consistent.
	TrapInterrupted TrapKind = iota
	// TrapSyscall: a SYSCALL instruction. Registers.Orig_rax is the number and
	// Rax is -ENOSYS; Rip is after the instruction (2 bytes).
	TrapSyscall
	// TrapFault: a memory access that the address space does not allow.
	// Addr is the address, Access what was tried (zero when unknown), and
	// Signal is SIGSEGV, or SIGBUS when the host file ends before the address.
	TrapFault
	// TrapSignal: another exception. Signal, Code and Addr are the signal's
	// siginfo as Linux would make it (SIGTRAP, SIGILL, SIGFPE, SIGBUS, SIGSEGV
	// for a general protection fault with Code SI_KERNEL).
	TrapSignal
)

// A Trap says why Run returned.
type Trap struct {
	Kind   TrapKind
	Access Prot
	Signal int32
	Code   int32
	Addr   uint64
}

// Registers are a thread's general registers, laid out as struct
// user_regs_struct (arch/x86/include/asm/user_64.h).
type Registers struct {
	R15, R14, R13, R12, Rbp, Rbx, R11, R10, R9, R8 uint64
	Rax, Rcx, Rdx, Rsi, Rdi                        uint64
	Orig_rax                                       uint64
	Rip, Cs, Eflags, Rsp, Ss                       uint64
	Fs_base, Gs_base                               uint64
	Ds, Es, Fs, Gs                                 uint64
}
