package ptrace

import (
	"fmt"

	"garrison/platform"

	"golang.org/x/sys/unix"
)

// A stub is a traced thread of a stub process. Only the operating system
// thread that traces it may use it, but for kill.
type stub struct {
	pid, tid int
}

const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACEFORK

// errGone says that the host killed a stub.
var errGone = fmt.Errorf("the stub process died")

// waitStop waits until s stops and returns the signal and event.
func (s *stub) waitStop() (unix.Signal, int, error) {
	for {
		var ws unix.WaitStatus
		if _, err := wait4(s.tid, &ws, unix.WALL); err != nil {
			return 0, 0, err
		}
		switch {
		case ws.Exited(), ws.Signaled():
			return 0, 0, errGone
		case ws.Stopped():
			return ws.StopSignal(), int(uint32(ws)>>16) & 0xff, nil
		}
	}
}

// newZygote forks the process that all others are made from and empties it.
// On the keeper's thread.
func (p *Platform) newZygote() (*stub, error) {
	pid, e := forkStopped()
	if e != 0 {
		return nil, fmt.Errorf("ptrace: fork the first stub process: %w", e)
	}
	z := &stub{pid, pid}
	if _, _, err := z.waitStop(); err != nil {
		return nil, fmt.Errorf("ptrace: trace the first stub process: %w (does a seccomp filter or kernel.yama.ptrace_scope=3 forbid ptrace?)", err)
	}
	if err := p.prepareZygote(z); err != nil {
		z.kill()
		return nil, fmt.Errorf("ptrace: prepare the first stub process: %w", err)
	}
	return z, nil
}

func (p *Platform) prepareZygote(z *stub) error {
	if err := ptrace(unix.PTRACE_SETOPTIONS, z.tid, 0, traceOptions); err != nil {
		return err
	}
	a := &p.area
	var regs platform.Registers
	if err := getRegs(z.tid, &regs); err != nil {
		return err
	}
	// The child stopped in kill(2): there is a SYSCALL instruction before Rip.
	at := regs.Rip - 2
	// The code page first, then the slots, which stubs only read.
	for _, m := range []struct{ off, length, prot uint64 }{
		{0, slotSize, unix.PROT_READ | unix.PROT_EXEC},
		{slotSize, areaSize - slotSize, unix.PROT_READ},
	} {
		r, err := z.oneSyscall(at, op{unix.SYS_MMAP, uint64(a.base) + m.off, m.length, m.prot,
			unix.MAP_SHARED | unix.MAP_FIXED, uint64(a.fd), m.off})
		if err != nil {
			return err
		}
		if r != uint64(a.base)+m.off {
			return fmt.Errorf("map the stub's memory: %w", unix.Errno(-int64(r)))
		}
	}
	end := uint64(a.base) + areaSize
	const top = 1<<47 - slotSize
	ops := []op{
		{unix.SYS_MUNMAP, 0, uint64(a.base)},
		{unix.SYS_MUNMAP, end, uint64(a.vdsoStart) - end},
		{unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1},
		{unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1},
		{unix.SYS_PRCTL, unix.PR_SET_NAME, uint64(a.base) + slotSize}, // any readable bytes: see below
	}
	if uint64(a.vdsoEnd) < top {
		ops = append(ops, op{unix.SYS_MUNMAP, uint64(a.vdsoEnd), top - uint64(a.vdsoEnd)})
	}
	ops = append(ops[:4], ops[5:]...)
	s := a.borrow()
	defer a.giveBack(s)
	// Signals unblocked (an empty set), no capabilities: both arguments lie in
	// the slot behind the batch, where nothing else is.
	const data = slotOps - 2
	s.ops[data] = op{}
	s.ops[data+1] = op{unix.LINUX_CAPABILITY_VERSION_3}
	dataAddr := s.addr + data*opSize
	ops = append(ops,
		op{unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, dataAddr, 0, 8},
		op{unix.SYS_CAPSET, dataAddr + opSize, dataAddr})
	return z.runBatch(a, s, ops)
}

// oneSyscall makes s execute one system call by the SYSCALL instruction at ip,
// which the code page is not needed for.
func (s *stub) oneSyscall(ip uint64, o op) (uint64, error) {
	var regs platform.Registers
	if err := getRegs(s.tid, &regs); err != nil {
		return 0, err
	}
	regs.Rip, regs.Orig_rax = ip, ^uint64(0)
	regs.Rax, regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = o[0], o[1], o[2], o[3], o[4], o[5], o[6]
	if err := setRegs(s.tid, &regs); err != nil {
		return 0, err
	}
	for range 2 { // entry and exit
		if err := ptrace(unix.PTRACE_SYSCALL, s.tid, 0, 0); err != nil {
			return 0, err
		}
		if sig, _, err := s.waitStop(); err != nil {
			return 0, err
		} else if sig != unix.SIGTRAP|ptraceTraced {
			return 0, fmt.Errorf("stopped by %v instead of a system call", sig)
		}
	}
	err := getRegs(s.tid, &regs)
	return regs.Rax, err
}

// runBatch makes s execute system calls until one fails.
func (s *stub) runBatch(a *stubArea, sl slot, ops []op) error {
	copy(sl.ops[:], ops)
	_, err := s.runSlot(a, sl, len(ops))
	return err
}

// runSlot makes s execute the first n calls in the slot, until one fails; it
// returns the last result. The registers are left changed.
func (s *stub) runSlot(a *stubArea, sl slot, n int) (uint64, error) {
	regs := platform.Registers{Rip: uint64(a.base) + entryBatch, R12: sl.addr, R13: uint64(n), Cs: userCS, Ss: userSS,
		Eflags: eflagsFixed, Orig_rax: ^uint64(0)}
	if err := s.runCode(&regs, nil); err != nil {
		return 0, err
	}
	if regs.R13 != 0 {
		return 0, unix.Errno(-int64(regs.Rax))
	}
	return regs.Rax, nil
}

// runCode lets s run stub code until its int3; event is called with the id of
// a new process when there is one.
func (s *stub) runCode(regs *platform.Registers, forked func(pid int) error) error {
	if err := setRegs(s.tid, regs); err != nil {
		return gone(err)
	}
	for {
		if err := ptrace(unix.PTRACE_CONT, s.tid, 0, 0); err != nil {
			return gone(err)
		}
		sig, event, err := s.waitStop()
		switch {
		case err != nil:
			return err
		case event == unix.PTRACE_EVENT_FORK:
			pid, err := unix.PtraceGetEventMsg(s.tid)
			if err != nil {
				return err
			}
			if err := forked(int(pid)); err != nil {
				return err
			}
		case event != 0:
		case sig == unix.SIGTRAP:
			return gone(getRegs(s.tid, regs))
		case sig != unix.SIGSEGV && sig != unix.SIGBUS && sig != unix.SIGILL && sig != unix.SIGFPE:
			// Sent by somebody on the host.
		default:
			return fmt.Errorf("stub code was stopped by %v", sig)
		}
	}
}

// gone turns ESRCH, which ptrace gives for a tracee that died, into errGone.
func gone(err error) error {
	if err == unix.ESRCH {
		return errGone
	}
	return err
}

// The selectors of 64-bit user code and data, and the flags that are always or
// may be set there (arch/x86/include/asm/segment.h, processor-flags.h).
const (
	userCS      = 0x33
	userSS      = 0x2b
	eflagsFixed = 0x202 // reserved bit 1, IF
	eflagsUser  = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000
)

// forkProcess makes a new stub process from z. On the keeper's thread.
func (z *stub) forkProcess(a *stubArea) (*stub, error) {
	sl := a.borrow()
	defer a.giveBack(sl)
	// The Sentry is the parent of them all: it collects them.
	sl.ops[0] = op{unix.SYS_CLONE, uint64(unix.SIGCHLD) | unix.CLONE_FILES | unix.CLONE_PARENT}
	child := &stub{}
	regs := platform.Registers{Rip: uint64(a.base) + entryBatch, R12: sl.addr, R13: 1, Cs: userCS, Ss: userSS,
		Eflags: eflagsFixed, Orig_rax: ^uint64(0)}
	err := z.runCode(&regs, func(pid int) error {
		child.pid, child.tid = pid, pid
		_, _, err := child.waitStop() // it starts out stopped
		return err
	})
	if err != nil {
		return nil, err
	}
	if regs.R13 != 0 {
		return nil, unix.Errno(-int64(regs.Rax))
	}
	return child, nil
}

// cloneThread makes a thread in s's process that sleeps, untraced, and returns
// its id.
func (s *stub) cloneThread(a *stubArea) (int, error) {
	const flags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	regs := platform.Registers{Rip: uint64(a.base) + entryThread, Rax: unix.SYS_CLONE, Rdi: flags, Cs: userCS, Ss: userSS,
		Eflags: eflagsFixed, Orig_rax: ^uint64(0)}
	if err := s.runCode(&regs, nil); err != nil {
		return 0, err
	}
	if int64(regs.Rax) < 0 {
		return 0, unix.Errno(-int64(regs.Rax))
	}
	return int(regs.Rax), nil
}

// attach makes the calling thread the tracer of thread tid, which sleeps in
// stub code, and stops it there.
func attach(pid, tid int) (*stub, error) {
	s := &stub{pid, tid}
	if err := ptrace(unix.PTRACE_SEIZE, tid, 0, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return nil, gone(err)
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil {
		return nil, gone(err)
	}
	if _, _, err := s.waitStop(); err != nil {
		return nil, err
	}
	return s, nil
}

// exit ends the thread s, which the caller traces, and collects it.
func (s *stub) exit(a *stubArea) {
	regs := platform.Registers{Rip: uint64(a.base) + entryThread, Rax: unix.SYS_EXIT, Cs: userCS, Ss: userSS,
		Eflags: eflagsFixed, Orig_rax: ^uint64(0)}
	setRegs(s.tid, &regs)
	for {
		ptrace(unix.PTRACE_CONT, s.tid, 0, 0)
		if _, _, err := s.waitStop(); err != nil {
			return
		}
	}
}

// kill ends the process s leads, of which no other thread is traced by others,
// and collects it.
func (s *stub) kill() {
	unix.Kill(s.pid, unix.SIGKILL)
	for {
		if _, _, err := s.waitStop(); err != nil {
			return
		}
	}
}

// fpState reads the extended state.
func (s *stub) fpState() ([]byte, error) {
	buf := make([]byte, 16<<10)
	n, err := regset(unix.PTRACE_GETREGSET, s.tid, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n:n], nil
}
