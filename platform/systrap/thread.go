package systrap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"garrison/abi"
	"garrison/platform"
	"garrison/platform/hoststub"
)

// A thread runs guest code by a worker in the address space that it was last
// run in.
type thread struct {
	p  *Platform
	as *addressSpace // that worker is in, or nil
	w  *worker

	fp      []byte // the extended state, while fpDirty
	fpDirty bool   // to be loaded before guest code runs

	interrupted atomic.Bool
	inGuest     atomic.Bool
	spin        spinner
	quick       int   // sleeps in a row that a trap ended soon
	cpu         int32 // that the worker and the caller are bound to, or -1
	caller      int   // the operating system thread that is bound
	traps       int   // since then

	mu   sync.Mutex
	tid  int // the worker's, for Interrupt; 0: none
	tgid int
}

// Offsets in struct _fpx_sw_bytes, from the state's start.
const (
	fpMagic    = hoststub.FPSoftware
	fpFeatures = hoststub.FPSoftware + 8
	fpSize     = hoststub.FPSoftware + 16
)

// The selectors of 64-bit user code and data, and the flags that are always or
// may be set there (arch/x86/include/asm/segment.h, processor-flags.h).
const (
	userCS      = 0x33
	userSS      = 0x2b
	eflagsFixed = 0x202 // reserved bit 1, IF
	eflagsUser  = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000
)

// sysSeccomp is the si_code of a SIGSYS that a filter raised (SYS_SECCOMP).
const sysSeccomp = 1

// stuckTimeout is how long a stub may take to follow an interrupt before it is
// taken to have blocked the signal. Only tests change it.
var stuckTimeout = 10 * time.Second

const (
	// A stub that traps soon after it was resumed, so many times in a row, does
	// better beside its Sentry thread.
	soon       = 10 * time.Millisecond
	quickTraps = 4
	// A pair that is bound may look for a better CPU after so many traps.
	rebindTraps = 1000
)

var errFrame = errors.New("the guest spoiled its signal frame")

func newThread(p *Platform) *thread {
	return &thread{p: p, fpDirty: true, cpu: -1}
}

// bind gets a worker in a.
func (t *thread) bind(a *addressSpace) error {
	t.keepFPState()
	t.unbind()
	w, err := a.takeWorker()
	if err != nil {
		return err
	}
	t.as, t.w = a, w
	t.mu.Lock()
	t.tgid, t.tid = a.proc.tgid, w.tid
	t.mu.Unlock()
	return nil
}

// unbind gives the worker back.
func (t *thread) unbind() {
	if t.as == nil {
		return
	}
	t.bindCPU(-1)
	t.mu.Lock()
	t.tid = 0
	t.mu.Unlock()
	t.as.giveBack(t.w)
	t.as, t.w = nil, nil
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

// frame returns the frame that a trapped worker's kernel made. It lies in
// memory that guests write: all of it is hostile.
func (w *worker) frame() (*sigcontext, *siginfo, error) {
	off := atomic.LoadUint32(&w.ctx.frame)
	if off < ctxEnd || off > regionSize-frameSize || off&7 != 0 {
		return nil, nil, errFrame
	}
	sc, info := frameAt(w.region, off)
	return sc, info, nil
}

// fpArea returns the extended state in the frame of a trapped worker.
func (t *thread) fpArea() []byte {
	sc, _, err := t.w.frame()
	if err != nil {
		return nil
	}
	off := atomic.LoadUint64(&sc.fpstate) & (regionSize - 1)
	n := uint64(len(t.p.fp.Init))
	if off < ctxEnd || off > regionSize-n || off&63 != 0 {
		return nil
	}
	return t.w.region[off : off+n]
}

// Run implements platform.Thread.
func (t *thread) Run(as platform.AddressSpace, regs *platform.Registers) (platform.Trap, error) {
	a, ok := as.(*addressSpace)
	if !ok {
		return platform.Trap{}, abi.EINVAL
	}
	if t.as != a {
		if err := t.bind(a); err != nil {
			return platform.Trap{}, fmt.Errorf("systrap: bind a stub thread: %w", err)
		}
	}
	for {
		if t.interrupted.Load() {
			t.interrupted.Store(false)
			return platform.Trap{Kind: platform.TrapInterrupted}, nil
		}
		if a.pending.Load() {
			a.mu.Lock()
			err := a.flush()
			a.mu.Unlock()
			if err != nil {
				return platform.Trap{}, fmt.Errorf("systrap: change the stub's mappings: %w", err)
			}
		}
		if err := t.load(regs); err != nil {
			return t.lost(err)
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
		err := t.switchToGuest()
		t.inGuest.Store(false)
		a.running.Add(-1)
		if err != nil {
			return t.lost(err)
		}
		trap, again, err := t.fetch(regs)
		if err != nil {
			return t.lost(err)
		}
		if !again {
			return trap, nil
		}
	}
}

func (t *thread) lost(err error) (platform.Trap, error) {
	t.as.lost()
	return platform.Trap{}, fmt.Errorf("systrap: run guest code: %w", err)
}

// load puts registers into the frame that the worker returns to.
func (t *thread) load(r *platform.Registers) error {
	sc, _, err := t.w.frame()
	if err != nil {
		return err
	}
	if t.fpDirty {
		if err := t.loadFPState(); err != nil {
			return err
		}
	}
	sc.r8, sc.r9, sc.r10, sc.r11, sc.r12, sc.r13, sc.r14, sc.r15 = r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15
	sc.rdi, sc.rsi, sc.rbp, sc.rbx, sc.rdx, sc.rax, sc.rcx = r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx
	sc.rsp, sc.rip, sc.eflags = r.Rsp, r.Rip, r.Eflags&eflagsUser|eflagsFixed
	sc.cs, sc.ss, sc.fs, sc.gs = userCS, userSS, 0, 0
	fs, gs := r.Fs_base, r.Gs_base
	if fs >= hoststub.TaskSize {
		fs = 0
	}
	if gs >= hoststub.TaskSize {
		gs = 0
	}
	t.w.ctx.fs, t.w.ctx.gs = fs, gs
	return nil
}

// switchToGuest resumes the worker and waits for its next trap.
func (t *thread) switchToGuest() error {
	c := t.w.ctx
	looks := t.spin.stubLooks(t.p)
	switch {
	case looks != 0:
		t.bindCPU(-1)
	case t.quick < quickTraps:
	case t.cpu < 0:
		t.bindCPU(currentCPU())
	default:
		// Now and then the scheduler chooses where they wake up.
		if t.traps++; t.traps == rebindTraps {
			t.bindCPU(-1)
		}
	}
	c.spin = looks
	if atomic.SwapUint32(&c.state, stateRuns) == stateAsleep {
		futexWake(&c.state)
	}
	if t.spin.wait(t.p, &c.state) {
		return nil
	}
	var asked time.Time
	patience := soon
	for {
		switch st := atomic.LoadUint32(&c.state); {
		case st >= stateTrapped:
			return nil
		case st == stateRuns:
			if !atomic.CompareAndSwapUint32(&c.state, stateRuns, stateWatched) {
				continue
			}
		}
		futexWait(&c.state, stateWatched, int64(patience))
		if atomic.LoadUint32(&c.state) >= stateTrapped {
			t.quick = min(t.quick+1, quickTraps)
			return nil
		}
		// It computes: where it likes.
		t.quick = 0
		t.bindCPU(-1)
		patience = checkEvery
		if tgkill(t.tgid, t.tid, 0) != 0 {
			return errGone
		}
		switch {
		case !t.interrupted.Load():
			asked = time.Time{}
		case asked.IsZero():
			asked = time.Now()
		case time.Since(asked) > stuckTimeout:
			return errors.New("the guest blocked the signal that interrupts it")
		}
	}
}

// bindCPU binds the worker and the calling thread to a CPU, or frees them. A
// switch between two threads on one CPU costs a fraction of a wake-up on
// another, but the scheduler likes to wake threads on idle ones.
func (t *thread) bindCPU(cpu int32) {
	if cpu == t.cpu || t.p.ncpu < 2 {
		return
	}
	set := t.p.cpus
	if cpu >= 0 {
		set = cpuSet{}
		set[cpu/64] = 1 << (cpu % 64)
	}
	// If it fails, it is but slower.
	setAffinity(t.w.tid, &set)
	if cpu >= 0 {
		t.caller = gettid()
	}
	if t.caller == gettid() {
		setAffinity(0, &set)
	}
	t.cpu, t.traps = cpu, 0
}

// fetch reads what the worker's trap was. again means that it is nothing to
// report. Each value is read once: the guest's other threads can change it.
func (t *thread) fetch(r *platform.Registers) (trap platform.Trap, again bool, err error) {
	scp, infop, err := t.w.frame()
	if err != nil {
		return trap, false, err
	}
	sc, info, sig := *scp, *infop, int32(atomic.LoadUint32(&t.w.ctx.signal))
	*r = platform.Registers{
		R8: sc.r8, R9: sc.r9, R10: sc.r10, R11: sc.r11, R12: sc.r12, R13: sc.r13, R14: sc.r14, R15: sc.r15,
		Rdi: sc.rdi, Rsi: sc.rsi, Rbp: sc.rbp, Rbx: sc.rbx, Rdx: sc.rdx, Rax: sc.rax, Rcx: sc.rcx,
		Rsp: sc.rsp, Rip: sc.rip, Eflags: sc.eflags, Cs: userCS, Ss: userSS, Orig_rax: ^uint64(0),
		Fs_base: t.w.ctx.fs, Gs_base: t.w.ctx.gs,
	}
	trap = platform.Trap{Kind: platform.TrapSignal, Signal: sig, Code: info.code, Addr: info.addr}
	switch {
	case sig == abi.SIGSYS && info.code == sysSeccomp && info.arch == archX8664:
		enosys := uint64(abi.ENOSYS)
		r.Orig_rax, r.Rax = sc.rax, -enosys
		return platform.Trap{Kind: platform.TrapSyscall}, false, nil
	case sig == abi.SIGSYS:
		// `int 0x80` or the like, which a kernel without 32-bit emulation faults.
		if info.code != sysSeccomp {
			return trap, true, nil // sent by a process of the host's
		}
		r.Rip -= 2
		return platform.Trap{Kind: platform.TrapSignal, Signal: abi.SIGSEGV, Code: abi.SI_KERNEL}, false, nil
	case sig == int32(interruptSignal):
		// Else one that came too late, and is swallowed.
		if t.interrupted.Swap(false) {
			return platform.Trap{Kind: platform.TrapInterrupted}, false, nil
		}
		return trap, true, nil
	case sig != abi.SIGSEGV && sig != abi.SIGBUS && sig != abi.SIGILL && sig != abi.SIGFPE && sig != abi.SIGTRAP:
		return trap, false, errFrame
	case info.code <= 0:
		return trap, true, nil // sent by a process of the host's
	case info.code == abi.SI_KERNEL:
		trap.Addr = 0
	case sig == abi.SIGSEGV && (info.code == abi.SEGV_MAPERR || info.code == abi.SEGV_ACCERR || info.code == abi.SEGV_PKUERR),
		sig == abi.SIGBUS && info.code == abi.BUS_ADRERR:
		trap.Kind = platform.TrapFault
		trap.Access = access(sc.trapno, sc.err)
	}
	return trap, false, nil
}

// access tells from a page fault's error code what was tried
// (arch/x86/include/asm/trap_pf.h), or 0.
func access(trapno, code uint64) platform.Prot {
	const pageFault, write, fetch = 14, 1 << 1, 1 << 4
	switch {
	case trapno != pageFault:
		return 0
	case code&fetch != 0:
		return platform.Exec
	case code&write != 0:
		return platform.Write
	}
	return platform.Read
}

// keepFPState copies the state of a worker that is about to be given back.
func (t *thread) keepFPState() {
	if t.as == nil || t.fpDirty {
		return
	}
	t.fp = append(t.fp[:0], t.p.fp.Init...)
	t.FPState(t.fp)
	t.fpDirty = true
}

// loadFPState puts the state into the frame. What the kernel keeps of its own
// in the software bytes stays.
func (t *thread) loadFPState() error {
	area := t.fpArea()
	if area == nil {
		return errFrame
	}
	fp := t.fp
	if len(fp) == 0 {
		fp = t.p.fp.Init
	}
	copy(area[:hoststub.FPSoftware], fp)
	copy(area[hoststub.FPXstateBV:], fp[hoststub.FPXstateBV:])
	t.fpDirty = false
	return nil
}

// FPState implements platform.Thread.
func (t *thread) FPState(dst []byte) int {
	init := t.p.fp.Init
	if len(dst) < len(init) {
		return len(init)
	}
	dst = dst[:len(init)]
	if t.fpDirty {
		if len(t.fp) != 0 {
			return copy(dst, t.fp)
		}
		return copy(dst, init)
	}
	area := t.fpArea()
	if area == nil {
		return copy(dst, init)
	}
	copy(dst, area)
	binary.LittleEndian.PutUint32(dst[hoststub.FPMXCSRMask:], 0)
	t.p.fp.Sanitise(dst) // it is the guest's memory
	return len(dst)
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
