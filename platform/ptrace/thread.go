package ptrace

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"garrison/abi"
	"garrison/platform"
)

// A thread runs guest code by a stub thread in the address space that it was
// last run in. The goroutine that uses it is locked to the operating system
// thread that traces the stub.
type thread struct {
	p      *Platform
	as     *addressSpace // that stub is in, or nil
	stub   stub
	tracer int // the operating system thread

	host   platform.Registers // what the stub's registers are
	loaded bool               // host is right
	info   siginfo

	fp      []byte // the extended state, while fpDirty
	fpDirty bool   // to be loaded before guest code runs

	interrupted atomic.Bool
	inGuest     atomic.Bool
	traps       atomic.Uint32 // for the monitor
	free        atomic.Bool   // stub and tracer may run on any CPU; set by the monitor
	rebind      atomic.Bool   // they shall look for another CPU; set by the monitor
	cpu         atomic.Int32  // that they are bound to, or -1

	mu    sync.Mutex
	tid   int // the stub's, for other threads; 0: none
	tgid  int
	seen  uint32 // the monitor's: traps at its last tick
	ticks uint32 // the monitor's: ticks in a row that this thread was busy
	busy  uint32 // the monitor's: all of them
}

func newThread(p *Platform) *thread {
	t := &thread{p: p, fpDirty: true}
	t.cpu.Store(-1)
	return t
}

// bind gets a stub thread in a.
func (t *thread) bind(a *addressSpace) error {
	t.keepFPState()
	t.unbind()
	if err := a.worker(t); err != nil {
		return err
	}
	t.loaded = false
	t.free.Store(false)
	t.cpu.Store(-1)
	t.together() // the stub sleeps: it wakes up where it is let
	var err error
	if t.stub, err = seize(t.stub.tgid, t.stub.tid); err != nil {
		t.unbind()
		return err
	}
	t.mu.Lock()
	t.tgid, t.tid = t.stub.tgid, t.stub.tid
	t.mu.Unlock()
	t.p.monitor.add(t)
	return nil
}

// unbind gives the stub thread back.
func (t *thread) unbind() {
	if t.as == nil {
		return
	}
	t.p.monitor.remove(t)
	t.mu.Lock()
	t.tid = 0
	t.mu.Unlock()
	if t.cpu.Load() >= 0 && t.tracer == gettid() {
		t.p.monitor.unbind(0)
	}
	t.as.giveBack(t)
	t.as = nil
}

// Release implements platform.Thread.
func (t *thread) Release() { t.unbind() }

// Interrupt implements platform.Thread.
func (t *thread) Interrupt() {
	t.interrupted.Store(true)
	// Run looks at interrupted after it has set inGuest: one of us sees the other.
	if !t.inGuest.Load() {
		return
	}
	t.mu.Lock()
	if t.tid != 0 {
		tgkill(t.tgid, t.tid, interruptSignal)
	}
	t.mu.Unlock()
}

// sanitise makes r loadable (PTRACE_SETREGS refuses kernel selectors and
// addresses); the rest is the guest's business.
func sanitise(r *platform.Registers) {
	r.Cs, r.Ss = userCS, userSS
	r.Eflags = r.Eflags&eflagsUser | eflagsFixed
	r.Orig_rax = ^uint64(0) // the kernel must not restart a system call that we answered
	for _, sel := range [...]*uint64{&r.Ds, &r.Es, &r.Fs, &r.Gs} {
		if *sel&3 != 3 || *sel > 0xffff {
			*sel = 0
		}
	}
	if r.Fs_base >= taskSize {
		r.Fs_base = 0
	}
	if r.Gs_base >= taskSize {
		r.Gs_base = 0
	}
}

// Run implements platform.Thread.
func (t *thread) Run(as platform.AddressSpace, regs *platform.Registers) (platform.Trap, error) {
	a, ok := as.(*addressSpace)
	if !ok {
		return platform.Trap{}, abi.EINVAL
	}
	if t.as != a {
		if err := t.bind(a); err != nil {
			return platform.Trap{}, fmt.Errorf("ptrace: bind a stub thread: %w", err)
		}
	}
	for {
		if t.interrupted.Load() {
			t.interrupted.Store(false)
			return platform.Trap{Kind: platform.TrapInterrupted}, nil
		}
		if err := t.load(a, regs); err != nil {
			return platform.Trap{}, err
		}
		if t.cpu.Load() < 0 || t.rebind.Load() {
			t.together()
		}
		// From here on others see that we may be in guest code; what they asked
		// for before that, we see.
		a.running.Add(1)
		t.inGuest.Store(true)
		if a.pending.Load() || t.interrupted.Load() {
			t.inGuest.Store(false)
			a.running.Add(-1)
			continue
		}
		t.p.monitor.wake()
		kind, err := t.resume(regs)
		t.inGuest.Store(false)
		a.running.Add(-1)
		t.traps.Add(1)
		if err != nil {
			return platform.Trap{}, t.explain("run guest code", err)
		}
		return kind, nil
	}
}

// load makes what is queued for a, and brings the stub's registers up to date.
func (t *thread) load(a *addressSpace, regs *platform.Registers) error {
	if a.pending.Load() {
		a.mu.Lock()
		err := a.flushBy(t)
		a.mu.Unlock()
		if err != nil {
			return t.explain("change the stub's mappings", err)
		}
	}
	if t.fpDirty {
		if err := t.loadFPState(); err != nil {
			return t.explain("load the floating-point state", err)
		}
	}
	want := *regs
	sanitise(&want)
	if !t.loaded || want != t.host {
		if e := setRegs(t.stub.tid, &want); e != 0 {
			return t.explain("load the registers", gone(e))
		}
		t.host, t.loaded = want, true
	}
	return nil
}

// explain says more than "killed" when it is the caller's mistake.
func (t *thread) explain(what string, err error) error {
	if err == errGone && t.tracer != gettid() {
		return fmt.Errorf("ptrace: %s: this Thread ran on another operating system thread before", what)
	}
	return fmt.Errorf("ptrace: %s: %w", what, err)
}

// resume lets the stub run until something is to be reported.
func (t *thread) resume(regs *platform.Registers) (platform.Trap, error) {
	tid := t.stub.tid
	for {
		if e := ptrace(ptraceSysemu, tid, 0, 0); e != 0 {
			return platform.Trap{}, gone(e)
		}
		st, err := t.stub.wait()
		if err != nil {
			return platform.Trap{}, err
		}
		sig := st.signal()
		if sig == syscallStop {
			if err := t.fetch(regs); err != nil {
				return platform.Trap{}, err
			}
			// SYSCALL leaves Rip in Rcx; anything else was `int 0x80` or the
			// like, which a kernel without 32-bit emulation faults.
			if regs.Rcx == regs.Rip && regs.Cs == userCS {
				return platform.Trap{Kind: platform.TrapSyscall}, nil
			}
			regs.Rip -= 2
			regs.Rax = regs.Orig_rax
			return platform.Trap{Kind: platform.TrapSignal, Signal: abi.SIGSEGV, Code: abi.SI_KERNEL}, nil
		}
		if st.event() != 0 {
			continue // a group stop that somebody on the host asked for
		}
		switch sig {
		case interruptSignal:
			// Else one that came too late, and is swallowed.
			if t.interrupted.Swap(false) {
				return platform.Trap{Kind: platform.TrapInterrupted}, t.fetch(regs)
			}
		case syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGTRAP:
			if e := getSiginfo(tid, &t.info); e != 0 {
				return platform.Trap{}, gone(e)
			}
			if t.info.code <= 0 {
				continue // sent by a process of the host's
			}
			if err := t.fetch(regs); err != nil {
				return platform.Trap{}, err
			}
			return t.exception(sig, regs), nil
		}
	}
}

// fetch reads the stub's registers.
func (t *thread) fetch(regs *platform.Registers) error {
	if e := getRegs(t.stub.tid, &t.host); e != 0 {
		return gone(e)
	}
	*regs = t.host
	return nil
}

// exception translates a signal that guest code caused.
func (t *thread) exception(sig syscall.Signal, regs *platform.Registers) platform.Trap {
	code := t.info.code
	trap := platform.Trap{Kind: platform.TrapSignal, Signal: int32(sig), Code: code, Addr: t.info.addr}
	switch {
	case code == abi.SI_KERNEL:
		trap.Addr = 0
	case sig == syscall.SIGSEGV && (code == abi.SEGV_MAPERR || code == abi.SEGV_ACCERR || code == abi.SEGV_PKUERR),
		sig == syscall.SIGBUS && code == abi.BUS_ADRERR:
		trap.Kind = platform.TrapFault
		trap.Access = t.access(trap.Addr, regs.Rip)
	}
	return trap
}

// together binds the stub and its tracer, the calling thread, to the CPU that
// the latter is on: a switch between two threads of one CPU costs a fifth of a
// wake-up across CPUs, but the scheduler likes to wake threads on idle ones.
func (t *thread) together() {
	m := &t.p.monitor
	if m.off || t.free.Load() {
		return
	}
	if t.rebind.Swap(false) && t.cpu.Load() >= 0 {
		// For one trap the scheduler chooses where we wake up.
		t.cpu.Store(-1)
		m.unbind(0)
		return
	}
	cpu := currentCPU()
	t.mu.Lock()
	if !t.free.Load() {
		t.cpu.Store(cpu)
		m.bindTo(cpu, 0, t.stub.tid)
	}
	t.mu.Unlock()
}
