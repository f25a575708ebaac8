package ptrace

import (
	"errors"
	"fmt"
	"syscall"

	"garrison/abi"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// A stub is a traced thread of a stub process, stopped. Only the operating
// system thread that traces it may use it.
type stub struct {
	tgid, tid int
	dead      bool // wait saw its end
}

// traceOptions: a system call's stop is told from a SIGTRAP, and stubs do not
// outlive their tracers.
const traceOptions = abi.PTRACE_O_TRACESYSGOOD | abi.PTRACE_O_EXITKILL

// errGone says that the host killed a stub.
var errGone = errors.New("the stub process was killed")

// gone turns ESRCH, which ptrace gives for a tracee that died, into errGone.
func gone(e abi.Errno) error {
	if e == 0 {
		return nil
	}
	if e == abi.ESRCH || e == abi.ECHILD {
		return errGone
	}
	return e
}

// waitStatus is what wait4 reports.
type waitStatus uint32

func (w waitStatus) ended() bool { return w&0xff != 0x7f }

// signal is the stop's signal; 0x80 is set in a system call's stop.
func (w waitStatus) signal() syscall.Signal { return syscall.Signal(w >> 8 & 0xff) }

// event is PTRACE_EVENT_*, or 0.
func (w waitStatus) event() int { return int(w >> 16) }

// syscallStop is the signal of a stop at a system call.
const syscallStop = syscall.SIGTRAP | 0x80

// wait waits until s stops.
func (s *stub) wait() (waitStatus, error) {
	st, e := wait4(s.tid)
	if e != 0 || st.ended() {
		s.dead = true
		return 0, errGone
	}
	return st, nil
}

// The selectors of 64-bit user code and data, and the flags that are always or
// may be set there (arch/x86/include/asm/segment.h, processor-flags.h).
const (
	userCS      = 0x33
	userSS      = 0x2b
	eflagsFixed = 0x202 // reserved bit 1, IF
	eflagsUser  = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000
)

// stubRegs are registers for stub code at rip. Orig_rax keeps the kernel from
// restarting a system call that the stop came in.
func stubRegs(rip uint64) platform.Registers {
	return platform.Registers{Rip: rip, Cs: userCS, Ss: userSS, Eflags: eflagsFixed, Orig_rax: ^uint64(0)}
}

// exec lets s run stub code until its int3.
func (s *stub) exec(regs *platform.Registers) error {
	if e := setRegs(s.tid, regs); e != 0 {
		return gone(e)
	}
	for {
		if e := ptrace(abi.PTRACE_CONT, s.tid, 0, 0); e != 0 {
			return gone(e)
		}
		st, err := s.wait()
		if err != nil {
			return err
		}
		if st.event() != 0 {
			continue
		}
		switch sig := st.signal(); sig {
		case syscall.SIGTRAP:
			return gone(getRegs(s.tid, regs))
		case syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGSYS:
			getRegs(s.tid, regs)
			return fmt.Errorf("stub code was stopped by signal %d at %#x", int(sig), regs.Rip)
		}
		// A late interrupt, or a signal that somebody on the host sent: swallowed.
	}
}

// result splits what a system call left in rax.
func result(rax uint64) (uint64, error) {
	if rax > ^uint64(4095) {
		return 0, abi.Errno(-int64(rax))
	}
	return rax, nil
}

// callAt makes s execute one system call by the SYSCALL instruction at ip.
func (s *stub) callAt(ip uint64, nr uint64, args ...uint64) (uint64, error) {
	regs := stubRegs(ip)
	regs.Rax = nr
	for i, r := range []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9}[:len(args)] {
		*r = args[i]
	}
	if err := s.exec(&regs); err != nil {
		return 0, err
	}
	return result(regs.Rax)
}

// call makes s execute one system call.
func (s *stub) call(nr uint64, args ...uint64) (uint64, error) {
	return s.callAt(entryCall, nr, args...)
}

// cloneThread makes a thread in s's process that parks, untraced.
func (s *stub) cloneThread() (tid int, err error) {
	r, err := s.callAt(entryClone, unix.SYS_CLONE, abi.CLONE_VM|abi.CLONE_FS|abi.CLONE_FILES|abi.CLONE_SIGHAND|abi.CLONE_THREAD|abi.CLONE_SYSVSEM)
	return int(r), err
}

// runSlot makes s execute the n calls in its process's slot from first on. It
// returns how many succeeded; if not all, err is why the next one failed.
func (s *stub) runSlot(first, n int) (done int, err error) {
	regs := stubRegs(entryBatch)
	regs.R12, regs.R13 = stubSlot+uint64(first)*opSize, uint64(n)
	if err := s.exec(&regs); err != nil {
		return 0, err
	}
	if left := int(regs.R13); left != 0 {
		_, err = result(regs.Rax)
		return n - left, err
	}
	return n, nil
}

// seize makes the calling thread the tracer of a parked thread, and stops it.
func seize(tgid, tid int) (stub, error) {
	s := stub{tgid: tgid, tid: tid}
	if e := ptrace(abi.PTRACE_SEIZE, tid, 0, traceOptions); e != 0 {
		return s, gone(e)
	}
	if e := ptrace(abi.PTRACE_INTERRUPT, tid, 0, 0); e != 0 {
		return s, gone(e)
	}
	_, err := s.wait()
	return s, err
}

// park lets s sleep in stub code, untraced.
func (s *stub) park() error {
	regs := stubRegs(entryPark)
	if e := setRegs(s.tid, &regs); e != 0 {
		return gone(e)
	}
	return gone(ptrace(abi.PTRACE_DETACH, s.tid, 0, 0))
}

// exit ends s and collects it. It must not be its process's leader.
func (s *stub) exit() {
	regs := stubRegs(entryCall)
	regs.Rax = unix.SYS_EXIT
	setRegs(s.tid, &regs)
	for {
		ptrace(abi.PTRACE_CONT, s.tid, 0, 0)
		if _, err := s.wait(); err != nil {
			return
		}
	}
}
