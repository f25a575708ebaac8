// Package ptrace is the portable reference platform: guest code runs in stub
// processes that the Sentry traces, and PTRACE_SYSEMU stops them at each system
// call before the host kernel sees it.
//
// It does not interpret what stopped a guest. It uses no host feature beyond
// ptrace(2), so it runs wherever a user may trace a child; each trap costs two
// context switches, which is why tracer and tracee are kept on one CPU. All
// stubs come from the zygote, a process that is empty but for a page of our
// code and the host's vDSO; what they do for us is injected (stub.go), and so
// the Sentry itself forks but once. ptrace(2) belongs to operating system
// threads: a Thread's stub is traced by the thread that runs it, and every
// other stub thread sleeps untraced until somebody needs it. A Thread must be
// released on the operating system thread that ran it, before that ends:
// otherwise the host kills the whole stub process (PTRACE_O_EXITKILL).
//
// Lock order: addressSpace.mu, then thread.mu, then Platform.mu; monitor.mu
// before thread.mu.
package ptrace

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"garrison/abi"
	"garrison/internal/seccomp"
	"garrison/platform"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// HostSyscalls are the host system calls that this package makes after New has
// returned, for the Sentry's seccomp list.
var HostSyscalls = []seccomp.Rule{
	{Nr: unix.SYS_PTRACE, Args: []seccomp.Cond{seccomp.Eq(0,
		ptraceSysemu, abi.PTRACE_CONT, ptraceGetRegs, ptraceSetRegs, abi.PTRACE_GETSIGINFO, abi.PTRACE_PEEKDATA,
		abi.PTRACE_GETREGSET, abi.PTRACE_SETREGSET, abi.PTRACE_SEIZE, abi.PTRACE_INTERRUPT, abi.PTRACE_DETACH)},
		Why: "platform ptrace: running stubs"},
	{Nr: unix.SYS_WAIT4, Args: []seccomp.Cond{seccomp.Eq(2, unix.WALL)}, Why: "platform ptrace: stubs that stop or end"},
	{Nr: unix.SYS_TGKILL, Args: []seccomp.Cond{seccomp.Eq(2, uint64(interruptSignal))}, Why: "platform ptrace: Thread.Interrupt"},
	{Nr: unix.SYS_KILL, Args: []seccomp.Cond{seccomp.Eq(1, uint64(unix.SIGKILL))}, Why: "platform ptrace: AddressSpace.Release"},
	{Nr: unix.SYS_SCHED_SETAFFINITY, Why: "platform ptrace: stubs follow their tracers"},
	{Nr: unix.SYS_GETTID, Why: "platform ptrace: which stub is the caller's?"},
}

// interruptSignal makes a running stub thread stop. Its default action is to do
// nothing, so that one that comes too late does no harm.
const interruptSignal = syscall.SIGURG

// A Platform is the ptrace platform.
type Platform struct {
	layout platform.Layout
	area   stubArea
	cpus   cpuSet // that we may use
	fp     hoststub.FPFormat

	pool     chan process      // stub processes made ahead
	refill   chan struct{}     // tells the keeper to fill the pool
	requests chan chan<- reply // asks the keeper for a process, now
	quit     chan struct{}     // closed by Close
	ended    chan struct{}     // closed by the keeper
	monitor  monitor

	mu        sync.Mutex
	slots     int   // in use or used before
	freeSlots []int // to be used again
	dying     []process
	reaping   bool           // a goroutine collects the dying
	unreaped  sync.WaitGroup // processes that hold slots
}

type reply struct {
	proc process
	err  error
}

// Check reports why this host can't run the platform, or nil.
func Check() error {
	p, err := New()
	if err != nil {
		return err
	}
	defer p.Close()
	as, err := p.NewAddressSpace()
	if err != nil {
		return fmt.Errorf("ptrace: make a stub process: %w", err)
	}
	as.Release()
	return nil
}

// New makes the platform. It forks, so call it before seccomp(2) forbids that,
// and with the user and group that the Sentry stays with: tracing needs equal
// ones. Capabilities may be dropped before or after. Errors name what the host refused.
func New() (*Platform, error) {
	if err := hoststub.Prepare(); err != nil {
		return nil, err
	}
	p := &Platform{
		pool:     make(chan process, poolSize),
		refill:   make(chan struct{}, 1),
		requests: make(chan chan<- reply),
		quit:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
	if e := getAffinity(&p.cpus); e != 0 {
		return nil, fmt.Errorf("ptrace: read the CPU affinity: %w", e)
	}
	if err := p.area.init(); err != nil {
		return nil, err
	}
	p.monitor.init(p)
	started := make(chan error)
	go p.keeper(started)
	if err := <-started; err != nil {
		p.area.close()
		return nil, err
	}
	return p, nil
}

// Close ends the platform. All address spaces and threads must have been released.
func (p *Platform) Close() {
	close(p.quit)
	<-p.ended
	p.unreaped.Wait()
	p.area.close()
}

// Name implements platform.Platform.
func (p *Platform) Name() string { return "ptrace" }

// Layout implements platform.Platform.
func (p *Platform) Layout() platform.Layout { return p.layout }

// NewAddressSpace implements platform.Platform.
func (p *Platform) NewAddressSpace() (platform.AddressSpace, error) {
	proc, err := p.takeProcess()
	if err != nil {
		return nil, abi.FromHost(err)
	}
	return newAddressSpace(p, proc), nil
}

// NewThread implements platform.Platform.
func (p *Platform) NewThread() (platform.Thread, error) {
	return newThread(p), nil
}

// bury has a killed process collected, of which no thread is traced any more
// but by the keeper.
func (p *Platform) bury(proc process) {
	p.mu.Lock()
	p.dying = append(p.dying, proc)
	start := !p.reaping
	p.reaping = true
	p.mu.Unlock()
	if start {
		go p.reap()
	}
}

// reap collects the dying.
func (p *Platform) reap() {
	for {
		p.mu.Lock()
		if len(p.dying) == 0 {
			p.dying = nil
			p.reaping = false
			p.mu.Unlock()
			return
		}
		proc := p.dying[0]
		p.dying = p.dying[1:]
		p.mu.Unlock()
		collect(proc.tgid)
		p.giveSlot(proc.slot)
	}
}

// collect waits for the end of a stub: of a process's leader, when no thread of
// it is traced, or of the calling thread's own tracee. (A wait for the tracee
// of another thread is never woken up if that thread ends.)
func collect(tid int) {
	for {
		if st, e := wait4(tid); e != 0 || st.ended() {
			return
		}
	}
}

// takeSlot reserves a slot, or returns -1.
func (p *Platform) takeSlot() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.slots
	if l := len(p.freeSlots); l > 0 {
		n = p.freeSlots[l-1]
		p.freeSlots = p.freeSlots[:l-1]
	} else if n >= slotCount {
		return -1
	} else {
		p.slots++
	}
	p.unreaped.Add(1)
	return n
}

func (p *Platform) giveSlot(n int) {
	p.mu.Lock()
	p.freeSlots = append(p.freeSlots, n)
	p.mu.Unlock()
	p.unreaped.Done()
}

// lockThread is for calls that ptrace(2) wants on one operating system thread.
func lockThread() func() {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
