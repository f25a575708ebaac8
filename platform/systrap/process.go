package systrap

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"garrison/abi"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// A process is a stub process: its leader is the mapper, the other threads are
// workers.
type process struct {
	p    *Platform
	tgid int
	slot int

	mu      sync.Mutex // held over a request
	mem     *slot
	cpu     int32     // the mapper is bound to, or -1
	workers []*worker // all of them; they end with the process
	idle    []*worker
	spare   *worker // a region for the next one: the host made no thread
	dead    bool
}

// A worker is a thread that runs guest code.
type worker struct {
	proc   *process
	tid    int
	number int    // of its region
	region []byte // hostile
	ctx    *context
}

const (
	// checkEvery is how often who waits for a stub looks whether it lives.
	checkEvery = 100 * time.Millisecond
	// startTimeout is how long a stub may take to come up.
	startTimeout = 20 * time.Second
)

func newProcess(p *Platform, slot int) *process {
	return &process{p: p, slot: slot, mem: slotAt(p.area.mem, slotOffset(slot)), cpu: -1}
}

// call makes the mapper make one call, and returns the low 24 bits of its result.
func (proc *process) call(nr uint64, args ...uint64) (uint64, error) {
	o := hoststub.Op{nr}
	copy(o[1:], args)
	proc.mu.Lock()
	defer proc.mu.Unlock()
	_, r, err := proc.request([]hoststub.Op{o}, true)
	return r, err
}

// request makes the mapper make calls, at most slotOpCount. It returns how many
// succeeded; if not all, err is why the next one failed. proc.mu is held.
func (proc *process) request(ops []hoststub.Op, want bool) (done int, result uint64, err error) {
	if proc.dead {
		return 0, 0, errGone
	}
	m := proc.mem
	n := copy(m.ops[:], ops)
	m.count, m.want, m.left = uint32(n), 0, 0
	if want {
		m.want = 1
	}
	proc.comeHere()
	atomic.StoreUint32(&m.watch, 1)
	seq := m.request + 1
	atomic.StoreUint32(&m.request, seq)
	futexWake(&m.request)
	var start time.Time
	for {
		old := atomic.LoadUint32(&m.answer)
		if old == seq {
			break
		}
		futexWait(&m.answer, old, int64(checkEvery))
		if atomic.LoadUint32(&m.answer) == seq {
			break
		}
		if start.IsZero() {
			start = time.Now()
		}
		if !proc.alive() || len(proc.workers) == 0 && time.Since(start) > startTimeout {
			proc.dead = true
			return 0, 0, errGone
		}
	}
	left := int(atomic.LoadUint32(&m.left))
	r := uint64(m.low) | uint64(m.high)<<12
	if left != 0 {
		return n - left, 0, abi.Errno(1<<24 - r)
	}
	return n, r, nil
}

// alive reports whether the process can still answer. The leader of a dead
// process is there until it is collected: workers are not.
func (proc *process) alive() bool {
	if len(proc.workers) == 0 {
		return true
	}
	return tgkill(proc.tgid, proc.workers[0].tid, 0) == 0
}

// comeHere binds the mapper to the caller's CPU: to switch to it and back there
// takes a fraction of a wake-up on another CPU. proc.mu is held.
func (proc *process) comeHere() {
	if cpu := currentCPU(); proc.p.ncpu > 1 && cpu != proc.cpu && proc != proc.p.zygote && proc.tgid != 0 {
		var set cpuSet
		set[cpu/64] = 1 << (cpu % 64)
		setAffinity(proc.tgid, &set)
		proc.cpu = cpu
	}
}

// newWorker makes a thread. It has trapped, and sleeps.
func (proc *process) newWorker() (*worker, error) {
	p := proc.p
	if len(proc.workers) >= spaceMax {
		return nil, abi.ENOMEM
	}
	w := proc.spare
	if w == nil {
		number := p.takeRegion()
		if number < 0 {
			return nil, abi.ENOMEM
		}
		region := p.area.mem[regionOffset(number):][:regionSize:regionSize]
		w = &worker{proc: proc, number: number, region: region, ctx: contextAt(region)}
		proc.spare = w
	}
	addr := uint64(stubRegions + len(proc.workers)*regionSize)
	w.ctx.stackAddr, w.ctx.stackSize = addr+ctxEnd, regionSize-ctxEnd
	proc.mu.Lock()
	defer proc.mu.Unlock()
	_, tid, err := proc.request([]hoststub.Op{
		{unix.SYS_MMAP, addr, regionSize, abi.PROT_READ | abi.PROT_WRITE, abi.MAP_SHARED | abi.MAP_FIXED, uint64(p.area.fd), uint64(regionOffset(w.number))},
		{unix.SYS_CLONE, cloneThread, 0, 0, 0, addr, entryWorker},
	}, true)
	if err != nil {
		return nil, err
	}
	w.tid = int(tid)
	proc.spare = nil
	proc.workers = append(proc.workers, w)
	if p.ncpu > 1 {
		setAffinity(w.tid, &p.cpus) // not the mapper's
	}
	deadline := time.Now().Add(startTimeout)
	for {
		st := atomic.LoadUint32(&w.ctx.state)
		if st >= stateTrapped {
			return w, nil
		}
		if st == stateRuns && !atomic.CompareAndSwapUint32(&w.ctx.state, stateRuns, stateWatched) {
			continue
		}
		futexWait(&w.ctx.state, stateWatched, int64(checkEvery))
		if tgkill(proc.tgid, w.tid, 0) != 0 || time.Now().After(deadline) {
			return nil, errGone
		}
	}
}

// kill ends a process of which no worker is in use.
func (proc *process) kill() {
	unix.Kill(proc.tgid, unix.SIGKILL)
	proc.bury()
}

// bury has a killed process collected, and gives back what it had.
func (proc *process) bury() {
	go func() {
		collect(proc.tgid)
		if proc.spare != nil {
			proc.workers = append(proc.workers, proc.spare)
		}
		proc.p.give(proc.slot, proc.workers)
	}()
}

// makeProcess makes a stub process with one worker.
func (p *Platform) makeProcess() (*process, error) {
	n := p.takeSlot()
	if n < 0 {
		return nil, abi.ENOMEM
	}
	proc := newProcess(p, n)
	// Calls may find the pool empty at any time, on any thread: the zygote's
	// parent is the new process's too.
	pid, err := p.zygote.call(unix.SYS_CLONE, cloneProcess, 0, uint64(slotOffset(n)), 0, 0, entryProcess)
	if err != nil {
		p.give(n, nil)
		return nil, err
	}
	proc.tgid = int(pid)
	if _, err = proc.call(unix.SYS_PRCTL, abi.PR_SET_PDEATHSIG, uint64(unix.SIGKILL)); err == nil {
		var w *worker
		if w, err = proc.newWorker(); err == nil {
			proc.idle = append(proc.idle, w)
		}
	}
	if err != nil {
		proc.kill()
		return nil, err
	}
	return proc, nil
}

// newZygote forks the process that all others are made from and empties it. On
// the keeper's thread.
func (p *Platform) newZygote() error {
	z := newProcess(p, p.takeSlot())
	p.zygote = z
	between, e := fork(p.area.fd)
	if e != 0 {
		p.unreaped.Done()
		return fmt.Errorf("systrap: fork the first stub process: %w", e)
	}
	if st, e := collect(between); e != 0 || st != 0 {
		p.unreaped.Done()
		return fmt.Errorf("systrap: fork the first stub process: its parent ended with status %#x (%w)", st, e)
	}
	pid, err := z.call(unix.SYS_GETPID)
	if err != nil {
		p.unreaped.Done()
		return fmt.Errorf("systrap: wait for the first stub process: %w", err)
	}
	z.tgid = int(pid)
	if err = p.prepareZygote(z); err == nil {
		err = p.probeFPState()
	}
	if err != nil {
		z.kill()
		p.unreaped.Wait()
		return fmt.Errorf("systrap: prepare the first stub process: %w", err)
	}
	return nil
}

// prepareZygote makes z, a copy of the Sentry, an empty process without rights.
func (p *Platform) prepareZygote(z *process) error {
	var err error
	call := func(what string, nr uint64, a ...uint64) {
		if err != nil {
			return
		}
		if _, e := z.call(nr, a...); e != nil {
			err = fmt.Errorf("%s: %w", what, e)
		}
	}
	// Out of the terminal's reach: ^C is not for stubs.
	call("make a session", unix.SYS_SETSID)
	call("name it", unix.SYS_PRCTL, abi.PR_SET_NAME, stubName)
	call("tie it to the Sentry's life", unix.SYS_PRCTL, abi.PR_SET_PDEATHSIG, uint64(unix.SIGKILL))
	call("set no_new_privs", unix.SYS_PRCTL, abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	call("drop its capabilities", unix.SYS_CAPSET, stubCapHeader, stubZeros)
	for sig := unix.Signal(1); sig <= 64; sig++ {
		act := uint64(stubZeros)
		switch {
		case sig == unix.SIGKILL || sig == unix.SIGSTOP:
			continue
		case slices.Contains(handledSignals, sig):
			act = stubAction
		}
		call("set its signals' actions", unix.SYS_RT_SIGACTION, uint64(sig), act, 0, 8)
	}
	if err != nil {
		return err
	}
	keep, err := hoststub.PlaceVDSO(&p.layout, guestEnd, stubBase, stubVDSO, z.call)
	if err != nil {
		return err
	}
	for _, k := range keep {
		if k.Start < stubBase && k.End > stubRegions {
			return fmt.Errorf("the host does not let its vDSO be moved, and it lies where stubs have theirs")
		}
	}
	// Everything else goes.
	keep = append(keep, hoststub.Span{Start: stubCode, End: stubSlot + pageSize})
	slices.SortFunc(keep, func(a, b hoststub.Span) int { return int(a.Start>>12) - int(b.Start>>12) })
	from := uint64(0)
	for _, k := range append(keep, hoststub.Span{Start: hoststub.TaskSize, End: hoststub.TaskSize}) {
		if k.Start > from {
			call("empty its address space", unix.SYS_MUNMAP, from, k.Start-from)
		}
		from = k.End
	}
	const specAllow = abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	call("install its filter", unix.SYS_SECCOMP, abi.SECCOMP_SET_MODE_FILTER, specAllow, stubMapperProgram)
	return err
}

// probeFPState makes a process, and takes the extended state's format from the
// frame of its worker's first trap (struct _fpx_sw_bytes,
// arch/x86/include/uapi/asm/sigcontext.h).
func (p *Platform) probeFPState() error {
	runtime.Gosched()
	proc, err := p.makeProcess()
	if err != nil {
		return fmt.Errorf("make a stub process: %w", err)
	}
	defer proc.kill()
	w := proc.idle[0]
	sc, _, err := w.frame()
	if err != nil {
		return err
	}
	off := sc.fpstate - uint64(stubRegions)
	if off > regionSize-hoststub.FPHeaderEnd {
		return fmt.Errorf("a signal frame has its extended state at %#x", sc.fpstate)
	}
	fp := w.region[off:]
	const magic1 = 0x46505853 // FP_XSTATE_MAGIC1
	if m := binary.LittleEndian.Uint32(fp[fpMagic:]); m != magic1 {
		return fmt.Errorf("this host has no XSAVE (%#x in a signal frame)", m)
	}
	n := int(binary.LittleEndian.Uint32(fp[fpSize:]))
	if n < hoststub.FPHeaderEnd || n > len(fp)-4 {
		return fmt.Errorf("the extended state has %d bytes", n)
	}
	p.fp = hoststub.NewFPFormat(n, binary.LittleEndian.Uint64(fp[fpFeatures:]), binary.LittleEndian.Uint32(fp[hoststub.FPMXCSRMask:]))
	return nil
}
