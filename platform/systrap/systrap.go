// Package systrap is the fast platform: guest code runs in stub processes whose
// threads trap themselves. A seccomp filter turns each system call of the guest
// into SIGSYS, and the handler of that and of the faults' signals hands over to
// the Sentry in shared memory, where the kernel has put the signal frame: the
// Sentry reads and changes the frame in place, and rt_sigreturn(2) resumes.
//
// It does not interpret what stopped a guest. Mapping calls are not made by the
// threads that run guest code, who would be able to make them for themselves,
// with the Sentry's descriptors: each stub process has a leader, the mapper, that
// never runs guest code, and which works on requests that guests can't write
// (process.go, filter.go). It needs a CPU and a kernel with FSGSBASE; where New
// refuses there is package ptrace.
//
// Lock order: addressSpace.mu, then process.mu, then Platform.mu; thread.mu is
// a leaf.
package systrap

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/internal/hostaux"
	"garrison/internal/seccomp"
	"garrison/platform"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// HostSyscalls are the host system calls that this package makes after New has
// returned, for the Sentry's seccomp list.
var HostSyscalls = []seccomp.Rule{
	{Nr: unix.SYS_FUTEX, Args: []seccomp.Cond{seccomp.Masked(1, 0x7f, abi.FUTEX_WAIT, abi.FUTEX_WAKE)}, Why: "platform systrap: hand-over to and from stubs"},
	{Nr: unix.SYS_WAIT4, Args: []seccomp.Cond{seccomp.Eq(2, unix.WALL)}, Why: "platform systrap: stubs that ended"},
	{Nr: unix.SYS_TGKILL, Args: []seccomp.Cond{seccomp.Eq(2, 0, uint64(interruptSignal))}, Why: "platform systrap: Thread.Interrupt; does a stub live?"},
	{Nr: unix.SYS_KILL, Args: []seccomp.Cond{seccomp.Eq(1, uint64(unix.SIGKILL))}, Why: "platform systrap: AddressSpace.Release"},
	{Nr: unix.SYS_SCHED_SETAFFINITY, Why: "platform systrap: mappers run beside those who wait for them"},
	{Nr: unix.SYS_GETTID, Why: "platform systrap: which thread is it?"},
}

// errGone says that the host killed a stub.
var errGone = errors.New("the stub process was killed")

// A Platform is the systrap platform.
type Platform struct {
	layout platform.Layout
	area   stubArea
	cpus   cpuSet // that we may use
	ncpu   int
	fp     hoststub.FPFormat
	busy   atomic.Int32 // threads that run guest code or work for it, and do not sleep

	zygote *process
	pool   chan *process // made ahead
	refill chan struct{} // tells the keeper to fill the pool
	quit   chan struct{} // closed by Close
	ended  chan struct{} // closed by the keeper

	mu          sync.Mutex
	slots       int // in use or used before
	freeSlots   []int
	regions     int
	freeRegions []int
	unreaped    sync.WaitGroup // processes that hold slots
}

// poolSize is how many stub processes wait to become address spaces.
const poolSize = 4

// Check reports why this host can't run the platform, or nil.
func Check() error {
	p, err := New()
	if err != nil {
		return err
	}
	p.Close()
	return nil
}

// hostSupport says what the host lacks.
func hostSupport() error {
	const hwcap2FSGSBase = 2 // arch/x86/include/uapi/asm/hwcap2.h
	if v, _ := hostaux.Get(abi.AT_HWCAP2); v&hwcap2FSGSBase == 0 {
		return errors.New("systrap: this host has no FSGSBASE (it needs Linux 5.9 and a CPU of 2012 or later); use --platform=ptrace")
	}
	// The frame of a signal must fit: the kernel says how long it is.
	if v, ok := hostaux.Get(abi.AT_MINSIGSTKSZ); ok && v > regionSize-ctxEnd-1024 {
		return fmt.Errorf("systrap: signal frames of %d bytes are longer than our stacks; use --platform=ptrace", v)
	}
	return nil
}

// New makes the platform. It forks, so call it before seccomp(2) forbids that,
// when capabilities and privileges are given up: stubs have what we have, and
// less. Errors name what the host refused.
func New() (*Platform, error) {
	if err := hostSupport(); err != nil {
		return nil, err
	}
	if err := hoststub.Prepare(); err != nil {
		return nil, err
	}
	p := &Platform{
		pool:   make(chan *process, poolSize),
		refill: make(chan struct{}, 1),
		quit:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	if e := getAffinity(&p.cpus); e != 0 {
		return nil, fmt.Errorf("systrap: read the CPU affinity: %w", e)
	}
	p.ncpu = p.cpus.count()
	if err := p.area.init(); err != nil {
		return nil, err
	}
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
func (p *Platform) Name() string { return "systrap" }

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

// keeper is the goroutine, on an operating system thread of its own, that is
// the zygote's parent and fills the pool. Stubs end when that thread does.
func (p *Platform) keeper(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(p.ended)
	err := p.newZygote()
	started <- err
	if err != nil {
		return
	}
	defer p.zygote.kill()
	for {
		for len(p.pool) < cap(p.pool) {
			proc, err := p.makeProcess()
			if err != nil {
				break // takeProcess reports it
			}
			p.pool <- proc // nobody else fills it
		}
		select {
		case <-p.refill:
		case <-p.quit:
			for len(p.pool) > 0 {
				(<-p.pool).kill()
			}
			return
		}
	}
}

// takeProcess returns an empty stub process.
func (p *Platform) takeProcess() (*process, error) {
	select {
	case proc := <-p.pool:
		if len(p.pool) <= poolSize/2 {
			p.askRefill()
		}
		return proc, nil
	default:
		p.askRefill()
		return p.makeProcess()
	}
}

func (p *Platform) askRefill() {
	select {
	case p.refill <- struct{}{}:
	default:
	}
}

// take reserves a number below max, or returns -1. p.mu is held.
func take(used *int, free *[]int, max int) int {
	if l := len(*free); l > 0 {
		n := (*free)[l-1]
		*free = (*free)[:l-1]
		return n
	}
	if *used >= max {
		return -1
	}
	*used++
	return *used - 1
}

func (p *Platform) takeSlot() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := take(&p.slots, &p.freeSlots, slotMax)
	if n >= 0 {
		p.unreaped.Add(1)
	}
	return n
}

// takeRegion reserves a region, all zeros.
func (p *Platform) takeRegion() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return take(&p.regions, &p.freeRegions, regionMax)
}

// give takes back what a process had that is dead and of which nobody reads
// anything any more. Other guests get it: it is cleared.
func (p *Platform) give(slot int, workers []*worker) {
	clear(p.area.mem[slotOffset(slot):][:pageSize])
	for _, w := range workers {
		clear(w.region)
	}
	p.mu.Lock()
	p.freeSlots = append(p.freeSlots, slot)
	for _, w := range workers {
		p.freeRegions = append(p.freeRegions, w.number)
	}
	p.mu.Unlock()
	p.unreaped.Done()
}
