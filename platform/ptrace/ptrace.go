// Package ptrace is the portable reference platform: guest code runs in stub
// processes that the Sentry traces, and PTRACE_SYSEMU stops them at each system
// call before the host kernel sees it.
//
// It does not interpret what stopped a guest. It uses no host feature beyond
// ptrace(2), so it runs wherever a user may trace a child; each trap costs two
// context switches, which is why tracer and tracee are kept on one CPU.
//
// The zygote, a process that is empty but for the stub page and the host's
// vDSO, is forked from the Sentry once, before it gives up its privileges. All
// other processes and threads are made by injecting clone into stubs, so the
// Sentry itself forks no more. ptrace(2) belongs to operating system threads:
// one locked goroutine, the keeper, traces the zygote and the leader of each
// address space's process; the goroutine that uses a Thread traces its stub
// thread. docs/HACKING.md tells more.
//
// Lock order: addressSpace.mu, then Platform.mu, then slots. Requests to the
// keeper may be made with addressSpace.mu held; the keeper takes no locks but
// Platform.mu.
package ptrace

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// HostSyscalls are the host system calls that this package makes after New has
// returned, for the Sentry's seccomp list.
var HostSyscalls = []uintptr{
	unix.SYS_PTRACE, unix.SYS_WAIT4, unix.SYS_TGKILL, unix.SYS_KILL,
	unix.SYS_SCHED_SETAFFINITY, unix.SYS_GETCPU, unix.SYS_GETPID,
}

// interruptSignal makes a running stub thread stop. Its number does not matter
// to guests: they never see host signals.
const interruptSignal = unix.SIGURG

// poolSize is how many empty stub processes wait to become address spaces.
const poolSize = 4

// A Platform is the ptrace platform.
type Platform struct {
	layout   platform.Layout
	area     stubArea
	zygote   *stub
	cpus     unix.CPUSet
	fpInit   []byte
	requests chan func()
	quit     chan struct{} // closed by Close
	ended    chan struct{} // closed when the keeper has ended
	pool     chan *stub
	refill   atomic.Bool
	monitor  monitor

	mu    sync.Mutex
	dying []int // killed leaders, not yet reaped
}

// Check reports why this host can't run the platform, or nil.
func Check() error {
	p, err := New()
	if err != nil {
		return err
	}
	p.Close()
	return nil
}

// New makes the platform. It forks, reads /proc and maps memory: call it before
// the Sentry is confined. Errors name what the host refused.
func New() (*Platform, error) {
	p := &Platform{requests: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{}),
		pool: make(chan *stub, poolSize)}
	if err := unix.SchedGetaffinity(0, &p.cpus); err != nil {
		return nil, fmt.Errorf("ptrace: read the CPU affinity: %w", err)
	}
	vvar, vdsoEnd, err := findVDSO()
	if err != nil {
		return nil, err
	}
	// Two megabytes below the vDSO's data lie the stub pages; guests get what is below.
	p.area.base = (vvar - 2<<20) &^ (2<<20 - 1)
	p.area.vdsoStart, p.area.vdsoEnd = vvar, vdsoEnd
	if err := p.area.init(); err != nil {
		return nil, err
	}
	p.layout = platform.Layout{Min: 65536, Max: uint64(p.area.base)}
	addVDSOSymbols(&p.layout, p.area.vdsoEnd)

	started := make(chan error)
	go p.keeper(started)
	if err := <-started; err != nil {
		p.area.close()
		return nil, err
	}
	p.monitor.start(p)
	return p, nil
}

// keeper is the goroutine, on an operating system thread of its own, that
// traces the zygote and all leaders. It ends with the platform.
func (p *Platform) keeper(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := quietSIGCHLD(); err != nil {
		started <- fmt.Errorf("ptrace: set SIGCHLD's action: %w", err)
		return
	}
	z, err := p.newZygote()
	if err != nil {
		started <- err
		return
	}
	p.zygote = z
	fp, err := z.fpState()
	if err != nil {
		started <- fmt.Errorf("ptrace: read the floating-point state: %w", err)
		return
	}
	p.fpInit = initialFPState(len(fp))
	started <- nil
	p.fillPool()
	for {
		select {
		case f := <-p.requests:
			f()
		case <-p.quit:
			z.kill()
			p.area.close()
			close(p.ended)
			return
		}
	}
}

// refillSoon makes the keeper fill the pool when it has time.
func (p *Platform) refillSoon() {
	if !p.refill.CompareAndSwap(false, true) {
		return
	}
	go func() {
		select {
		case p.requests <- p.fillPool:
		case <-p.quit:
		}
	}()
}

// do runs f on the keeper's thread and waits for it.
func (p *Platform) do(f func()) {
	done := make(chan struct{})
	p.requests <- func() { f(); close(done) }
	<-done
}

// fillPool makes stub processes until the pool is full. On the keeper's thread.
func (p *Platform) fillPool() {
	p.refill.Store(false)
	p.reap()
	for len(p.pool) < cap(p.pool) {
		s, err := p.zygote.forkProcess(&p.area)
		if err != nil {
			return // the next NewAddressSpace reports it
		}
		p.pool <- s
	}
}

// takeProcess returns an empty stub process.
func (p *Platform) takeProcess() (*stub, error) {
	select {
	case s := <-p.pool:
		if len(p.pool) <= poolSize/2 {
			p.refillSoon()
		}
		return s, nil
	default:
	}
	var s *stub
	var err error
	p.do(func() {
		p.reap()
		s, err = p.zygote.forkProcess(&p.area)
	})
	return s, err
}

// discard kills a leader. On any thread.
func (p *Platform) discard(leader *stub) {
	unix.Kill(leader.pid, unix.SIGKILL)
	p.mu.Lock()
	p.dying = append(p.dying, leader.pid)
	n := len(p.dying)
	p.mu.Unlock()
	if n >= 2*poolSize {
		p.refillSoon()
	}
}

// reap collects killed leaders that have no other thread left. On the keeper's thread.
func (p *Platform) reap() {
	p.mu.Lock()
	list := p.dying
	p.dying = nil
	p.mu.Unlock()
	var left []int
	for _, pid := range list {
		var ws unix.WaitStatus
		got, err := wait4(pid, &ws, unix.WALL|unix.WNOHANG)
		if err == nil && (got == 0 || !ws.Exited() && !ws.Signaled()) {
			left = append(left, pid)
		}
	}
	p.mu.Lock()
	p.dying = append(p.dying, left...)
	p.mu.Unlock()
}

// Close kills the zygote and the pool. Address spaces must have been released.
func (p *Platform) Close() {
	p.do(func() {
		for {
			select {
			case s := <-p.pool:
				s.kill()
				continue
			default:
			}
			break
		}
		for range 100 {
			p.reap()
			p.mu.Lock()
			n := len(p.dying)
			p.mu.Unlock()
			if n == 0 {
				break
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
	})
	p.monitor.stop()
	close(p.quit)
	<-p.ended
}

// Name implements platform.Platform.
func (p *Platform) Name() string { return "ptrace" }

// Layout implements platform.Platform.
func (p *Platform) Layout() platform.Layout { return p.layout }

// findVDSO returns the range that the host's vDSO and its data take up.
func findVDSO() (start, end uintptr, err error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, 0, fmt.Errorf("ptrace: find the vDSO: %w (is /proc mounted?)", err)
	}
	for _, line := range strings.Split(string(maps), "\n") {
		if !strings.HasSuffix(line, "[vdso]") && !strings.Contains(line, "[vvar") {
			continue
		}
		span, _, _ := strings.Cut(line, " ")
		lo, hi, _ := strings.Cut(span, "-")
		l, err1 := strconv.ParseUint(lo, 16, 64)
		h, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil {
			return 0, 0, fmt.Errorf("ptrace: can't parse the line %q of /proc/self/maps", line)
		}
		if start == 0 || uintptr(l) < start {
			start = uintptr(l)
		}
		end = max(end, uintptr(h))
	}
	if start == 0 {
		// No vDSO (vdso=0 on the host's command line): only the stub is left out.
		start = 0x7fff_ffff_f000
		end = start
	}
	return start, end, nil
}

// hostError translates an error of the host's.
func hostError(err error) error { return abi.FromHost(err) }
