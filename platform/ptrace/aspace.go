package ptrace

import (
	"slices"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/platform"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// An addressSpace is a stub process. Its leader never runs guest code: it is
// there for calls that come when no thread of the space is the caller's own.
type addressSpace struct {
	p    *Platform
	proc process
	ops  *[slotOps]hoststub.Op // the slot, as we see it

	pending atomic.Bool  // the queue is not empty
	running atomic.Int32 // threads in guest code, or about to look at pending

	mu       sync.Mutex
	queue    hoststub.Queue
	released bool
	err      error     // what a stub refused and could not be undone
	bound    []*thread // threads with a stub in this process
	parked   []int     // workers without a thread
}

// maxQueue is how many calls may wait, maxParked how many workers may.
const (
	maxQueue  = 16 * slotOps
	maxParked = 4
)

func newAddressSpace(p *Platform, proc process) *addressSpace {
	a := &addressSpace{p: p, proc: proc, ops: opsAt(p.area.mem, slotOffset(proc.slot)), parked: []int{proc.worker}}
	a.queue.Init(p.layout)
	return a
}

// Map implements platform.AddressSpace.
func (a *addressSpace) Map(m platform.Mapping) error {
	if err := a.queue.CheckMapping(&m); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released || a.err != nil {
		return a.err
	}
	a.queue.Map(&m)
	return a.queued()
}

// Unmap implements platform.AddressSpace.
func (a *addressSpace) Unmap(addr, length uint64) error {
	if err := a.queue.CheckRange(addr, length); err != nil || length == 0 {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released || a.err != nil {
		return a.err
	}
	a.queue.Unmap(addr, length)
	return a.queued()
}

// Protect implements platform.AddressSpace.
func (a *addressSpace) Protect(addr, length uint64, prot platform.Prot) error {
	if err := a.queue.CheckRange(addr, length); err != nil || length == 0 {
		return err
	}
	if prot&^(platform.Read|platform.Write|platform.Exec) != 0 {
		return abi.EINVAL
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released || a.err != nil {
		return a.err
	}
	a.queue.Protect(addr, length, prot)
	return a.queued()
}

// queued makes what was queued at once if a thread runs now. a.mu is held.
func (a *addressSpace) queued() error {
	if len(a.queue.Ops) == 0 {
		return nil
	}
	a.pending.Store(true)
	if a.running.Load() == 0 && len(a.queue.Ops) < maxQueue {
		return nil
	}
	return a.flush()
}

// Flush implements platform.AddressSpace.
func (a *addressSpace) Flush() error {
	if !a.pending.Load() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return nil
	}
	return a.flush()
}

// flush makes the queued calls by the calling thread's own stub, or else by
// the leader. a.mu is held.
func (a *addressSpace) flush() error {
	if len(a.queue.Ops) == 0 || a.err != nil {
		return a.err
	}
	self := gettid()
	for _, t := range a.bound {
		if t.tracer == self {
			return a.flushBy(t)
		}
	}
	defer lockThread()()
	var first error
	err := a.byLeader(func(s *stub) (err error) { first, err = a.drain(s); return err })
	if err != nil {
		return a.fail(err)
	}
	return first
}

// flushBy makes the queued calls by the stub of t, which runs on the calling
// operating system thread and is not in guest code. a.mu is held.
func (a *addressSpace) flushBy(t *thread) error {
	if len(a.queue.Ops) == 0 || a.err != nil {
		return a.err
	}
	t.loaded = false
	first, err := a.drain(&t.stub)
	if err != nil {
		return a.fail(err)
	}
	return first
}

// fail makes the space unusable: pending stays set, so that all who come see
// a.err. a.mu is held.
func (a *addressSpace) fail(err error) error {
	a.err = abi.FromHost(err)
	a.queue.Ops = nil
	a.pending.Store(true)
	return a.err
}

// byLeader calls f with the leader, stopped. The caller has locked its thread;
// a.mu is held.
func (a *addressSpace) byLeader(f func(*stub) error) error {
	// It sleeps: it wakes up where it is let.
	a.p.monitor.bindTo(currentCPU(), a.proc.tgid)
	s, err := seize(a.proc.tgid, a.proc.tgid)
	if err != nil {
		return err
	}
	if err := f(&s); err != nil {
		s.park()
		return err
	}
	return s.park()
}

// drain makes the queued calls by s, which the calling thread traces. first is
// the first that the host refused: what the refused call was about is unmapped
// then, which the Sentry's memory manager finds out by a fault. err means that
// the space can't go on. a.mu is held.
func (a *addressSpace) drain(s *stub) (first, err error) {
	for q := a.queue.Ops; len(q) > 0; {
		n := copy(a.ops[:], q)
		for at := 0; at < n; {
			done, err := s.runSlot(at, n-at)
			if err == nil {
				break
			}
			if err == errGone {
				return first, err
			}
			if first == nil {
				first = abi.FromHost(err)
			}
			at += done
			// The ops can't be taken from the slot: who knows what is read back.
			bad := q[at]
			if _, err := s.call(unix.SYS_MUNMAP, bad[1], bad[2]); err != nil {
				return first, err
			}
			at++
		}
		q = q[n:]
	}
	a.queue.Ops = a.queue.Ops[:0]
	if cap(a.queue.Ops) > 4*slotOps {
		a.queue.Ops = nil
	}
	a.pending.Store(false)
	return first, nil
}

// worker gives t a parked thread; t is bound from now on.
func (a *addressSpace) worker(t *thread) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return errGone
	}
	var tid int
	if n := len(a.parked); n > 0 {
		tid = a.parked[n-1]
		a.parked = a.parked[:n-1]
	} else if err := a.byLeader(func(s *stub) (err error) { tid, err = s.cloneThread(); return err }); err != nil {
		return err
	}
	t.as, t.stub, t.tracer = a, stub{tgid: a.proc.tgid, tid: tid}, gettid()
	a.bound = append(a.bound, t)
	return nil
}

// giveBack takes the stub of t back. The calling thread traces it: another can
// neither use it nor let it go, and then it stays bound for good.
func (a *addressSpace) giveBack(t *thread) {
	if t.tracer != gettid() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bound = slices.DeleteFunc(a.bound, func(b *thread) bool { return b == t })
	switch {
	case t.stub.dead:
	case a.released:
		collect(t.stub.tid)
	case len(a.parked) >= maxParked:
		t.stub.exit()
	case t.stub.park() == nil:
		a.parked = append(a.parked, t.stub.tid)
	default:
		collect(t.stub.tid) // it was killed
	}
	if a.released && len(a.bound) == 0 {
		a.p.bury(a.proc)
	}
}

// Release implements platform.AddressSpace.
func (a *addressSpace) Release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return
	}
	a.released = true
	a.queue.Clear()
	a.pending.Store(false)
	unix.Kill(a.proc.tgid, unix.SIGKILL)
	// Else the last of the bound threads does it: what they trace is theirs to
	// collect.
	if len(a.bound) == 0 {
		a.p.bury(a.proc)
	}
}
