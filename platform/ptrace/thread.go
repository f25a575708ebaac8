package ptrace

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"garrison/abi"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// A thread runs guest code by a stub thread in the address space that it was
// last run in. The goroutine that uses it is locked to the operating system
// thread that traces the stub.
type thread struct {
	p  *Platform
	as *addressSpace
	s  *stub

	known  platform.Registers // what the stub's registers are
	loaded bool               // known is right
	fp     []byte             // to be loaded into the next stub; nil: nothing

	interrupted atomic.Bool
	id          atomic.Uint64 // the stub's pid and tid while it may run guest code; else 0
	runs        atomic.Uint64 // odd while in guest code; for the monitor
	cpu         atomic.Int32  // that the stub is bound to; -1 for none
	seen        uint64        // runs when the monitor last looked; the monitor's
}

// NewThread implements platform.Platform.
func (p *Platform) NewThread() (platform.Thread, error) {
	t := &thread{p: p}
	t.cpu.Store(-1)
	p.monitor.add(t)
	return t, nil
}

// bind gets a stub thread in a.
func (t *thread) bind(a *addressSpace) error {
	if t.s != nil && t.fp == nil {
		fp := make([]byte, len(t.p.fpInit))
		t.FPState(fp)
		t.fp = fp
	}
	t.unbind()
	s, err := a.newThread()
	if err != nil {
		return err
	}
	t.as, t.s, t.loaded = a, s, false
	t.cpu.Store(-1)
	if t.fp != nil {
		if _, err := regset(unix.PTRACE_SETREGSET, s.tid, t.fp); err != nil {
			return err
		}
		t.fp = nil
	}
	return nil
}

// unbind ends the stub thread.
func (t *thread) unbind() {
	if t.s != nil {
		t.s.exit(&t.p.area)
		t.s, t.as = nil, nil
	}
}

// Release implements platform.Thread.
func (t *thread) Release() {
	t.p.monitor.remove(t)
	t.unbind()
}

// Interrupt implements platform.Thread.
func (t *thread) Interrupt() {
	t.interrupted.Store(true)
	if id := t.id.Load(); id != 0 {
		unix.Tgkill(int(id>>32), int(uint32(id)), interruptSignal)
	}
}

// sanitise makes r loadable: the rest is the guest's business.
func sanitise(r *platform.Registers) platform.Registers {
	c := *r
	c.Cs, c.Ss = userCS, userSS
	c.Eflags = c.Eflags&eflagsUser | eflagsFixed
	c.Orig_rax = ^uint64(0) // the kernel must not restart a system call of ours
	for _, sel := range []*uint64{&c.Ds, &c.Es, &c.Fs, &c.Gs} {
		if *sel&3 != 3 || *sel > 0xffff {
			*sel = 0
		}
	}
	const limit = 1<<47 - 4096 // TASK_SIZE_MAX
	if c.Fs_base >= limit {
		c.Fs_base = 0
	}
	if c.Gs_base >= limit {
		c.Gs_base = 0
	}
	return c
}

// Run implements platform.Thread.
func (t *thread) Run(as platform.AddressSpace, regs *platform.Registers) (platform.Trap, error) {
	a := as.(*addressSpace)
	if t.as != a {
		if err := t.bind(a); err != nil {
			return platform.Trap{}, fmt.Errorf("ptrace: make a stub thread: %w", err)
		}
	}
	changed, err := a.enter(t.s)
	if err != nil {
		return platform.Trap{}, fmt.Errorf("ptrace: change the stub's mappings: %w", err)
	}
	want := sanitise(regs)
	if changed || !t.loaded || want != t.known {
		if err := setRegs(t.s.tid, &want); err != nil {
			a.leave()
			return platform.Trap{}, fmt.Errorf("ptrace: load the registers: %w", gone(err))
		}
	}
	t.loaded = false
	t.follow()
	t.id.Store(uint64(t.s.pid)<<32 | uint64(uint32(t.s.tid)))
	t.runs.Add(1)
	t.p.monitor.wake()
	trap, err := t.resume(regs)
	t.runs.Add(1)
	t.id.Store(0)
	a.leave()
	if err != nil {
		return trap, fmt.Errorf("ptrace: run guest code: %w", gone(err))
	}
	t.known, t.loaded = *regs, true
	if trap.Kind == platform.TrapSyscall || trap.Kind == platform.TrapSignal {
		t.loaded = false // Orig_rax must be cleared
	}
	return trap, nil
}

// follow binds the stub to the CPU that its tracer is on: a switch between two
// threads of one CPU costs a fifth of a wake-up across CPUs.
func (t *thread) follow() {
	if t.p.monitor.off {
		return
	}
	if cpu := int32(currentCPU()); cpu != t.cpu.Load() {
		t.cpu.Store(cpu)
		var set unix.CPUSet
		set.Set(int(cpu))
		setAffinity(t.s.tid, &set)
	}
}

// resume lets the stub run until something is to be reported.
func (t *thread) resume(regs *platform.Registers) (platform.Trap, error) {
	tid := t.s.tid
	for {
		if t.interrupted.Load() {
			// A signal that Interrupt sent may come later: it is swallowed then.
			t.interrupted.Store(false)
			return platform.Trap{Kind: platform.TrapInterrupted}, nil
		}
		if err := ptrace(ptraceSysemu, tid, 0, 0); err != nil {
			return platform.Trap{}, err
		}
		sig, event, err := t.s.waitStop()
		if err != nil {
			return platform.Trap{}, err
		}
		if event != 0 {
			continue // PTRACE_EVENT_STOP: a group stop that somebody on the host asked for
		}
		if sig == unix.SIGTRAP|ptraceTraced {
			if err := getRegs(tid, regs); err != nil {
				return platform.Trap{}, err
			}
			if regs.Rcx != regs.Rip {
				// SYSCALL leaves Rip in Rcx; this was `int 0x80` or the like,
				// which a kernel without 32-bit emulation faults.
				regs.Rip -= 2
				regs.Rax = regs.Orig_rax
				return platform.Trap{Kind: platform.TrapSignal, Signal: abi.SIGSEGV, Code: abi.SI_KERNEL}, nil
			}
			return platform.Trap{Kind: platform.TrapSyscall}, nil
		}
		var info siginfo
		if err := getSiginfo(tid, &info); err != nil {
			return platform.Trap{}, err
		}
		if info.code <= 0 { // sent by a process of the host's
			if sig == interruptSignal && t.interrupted.Swap(false) {
				return platform.Trap{Kind: platform.TrapInterrupted}, getRegs(tid, regs)
			}
			continue
		}
		switch sig {
		case unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGTRAP:
		default:
			continue
		}
		if err := getRegs(tid, regs); err != nil {
			return platform.Trap{}, err
		}
		return exception(sig, &info, regs), nil
	}
}

// exception translates a signal that guest code caused.
func exception(sig unix.Signal, info *siginfo, regs *platform.Registers) platform.Trap {
	trap := platform.Trap{Kind: platform.TrapSignal, Signal: int32(sig), Code: info.code, Addr: info.addr}
	if info.code == abi.SI_KERNEL {
		trap.Addr = 0
		return trap
	}
	if sig == unix.SIGSEGV && (info.code == abi.SEGV_MAPERR || info.code == abi.SEGV_ACCERR) ||
		sig == unix.SIGBUS && info.code == abi.BUS_ADRERR {
		trap.Kind = platform.TrapFault
		// ptrace does not show the page fault's error code; only a fetch is
		// known by its address.
		if d := info.addr - regs.Rip; d < 15 && (d == 0 || info.addr&(slotSize-1) == 0) {
			trap.Access = platform.Exec
		}
	}
	return trap
}

// FPState implements platform.Thread.
func (t *thread) FPState(dst []byte) int {
	n := len(t.p.fpInit)
	if len(dst) < n {
		return n
	}
	switch {
	case t.fp != nil:
		copy(dst, t.fp)
	case t.s != nil:
		if _, err := regset(unix.PTRACE_GETREGSET, t.s.tid, dst[:n]); err == nil {
			return n
		}
		fallthrough
	default:
		copy(dst, t.p.fpInit)
	}
	return n
}

// SetFPState implements platform.Thread.
func (t *thread) SetFPState(src []byte) error {
	n := len(t.p.fpInit)
	if src == nil {
		src = t.p.fpInit
	}
	if len(src) < n {
		return abi.EINVAL
	}
	fp := append([]byte(nil), src[:n]...)
	sanitiseFP(fp, t.p.fpInit)
	if t.s == nil {
		t.fp = fp
		return nil
	}
	if _, err := regset(unix.PTRACE_SETREGSET, t.s.tid, fp); err != nil {
		if err == unix.ESRCH {
			return nil // the stub is dead: the next Run says so
		}
		return abi.EINVAL
	}
	return nil
}

// Offsets in the XSAVE area (Intel SDM 1, 13.4).
const (
	fpMXCSR     = 24
	fpMXCSRMask = 28
	fpXstateBV  = 512
	fpHeaderEnd = 576
)

// initialFPState is the state of a new program: everything at its reset value.
func initialFPState(n int) []byte {
	b := make([]byte, n)
	binary.LittleEndian.PutUint16(b[0:], 0x37f)
	binary.LittleEndian.PutUint32(b[fpMXCSR:], 0x1f80)
	binary.LittleEndian.PutUint32(b[fpMXCSRMask:], 0xffff)
	if n >= fpHeaderEnd {
		binary.LittleEndian.PutUint64(b[fpXstateBV:], 3) // x87 and SSE
	}
	return b
}

// sanitiseFP clears what XRSTOR would fault on.
func sanitiseFP(fp, init []byte) {
	mxcsr := binary.LittleEndian.Uint32(fp[fpMXCSR:])
	binary.LittleEndian.PutUint32(fp[fpMXCSR:], mxcsr&binary.LittleEndian.Uint32(init[fpMXCSRMask:]))
	if len(fp) < fpHeaderEnd {
		return
	}
	const standard = 0xff // x87, SSE, AVX, MPX, AVX-512: what user space may have
	bv := binary.LittleEndian.Uint64(fp[fpXstateBV:])
	binary.LittleEndian.PutUint64(fp[fpXstateBV:], bv&standard&supportedXstate(init))
	clear(fp[fpXstateBV+8 : fpHeaderEnd])
}

// supportedXstate is the set of components that a state of this length can hold.
func supportedXstate(init []byte) uint64 {
	if len(init) <= fpHeaderEnd {
		return 3
	}
	if len(init) <= fpHeaderEnd+256 {
		return 7
	}
	return 0xff
}
