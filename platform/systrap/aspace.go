package systrap

import (
	"slices"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/platform"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// An addressSpace is a stub process.
type addressSpace struct {
	p    *Platform
	proc *process

	pending atomic.Bool  // the queue is not empty
	running atomic.Int32 // threads in guest code, or about to look at pending

	mu       sync.Mutex
	queue    hoststub.Queue
	released bool
	err      error     // the process is lost
	bound    []*worker // in use by Threads
}

// maxQueue is how many calls may wait.
const maxQueue = 16 * slotOpCount

func newAddressSpace(p *Platform, proc *process) *addressSpace {
	a := &addressSpace{p: p, proc: proc}
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

// flush has the mapper make the queued calls. It returns the first error of the
// host's: what the refused call was about is unmapped then, which the Sentry's
// memory manager finds out by a fault. a.mu is held.
func (a *addressSpace) flush() (first error) {
	if len(a.queue.Ops) == 0 || a.err != nil {
		return a.err
	}
	a.proc.mu.Lock()
	defer a.proc.mu.Unlock()
	for q := a.queue.Ops; len(q) > 0; {
		done, _, err := a.proc.request(q[:min(len(q), slotOpCount)], false)
		q = q[done:]
		if err == nil {
			continue
		}
		if err != errGone {
			if first == nil {
				first = abi.FromHost(err)
			}
			bad := q[0]
			q = q[1:]
			_, _, err = a.proc.request([]hoststub.Op{{unix.SYS_MUNMAP, bad[1], bad[2]}}, false)
		}
		if err != nil {
			a.err = abi.ENOMEM // pending stays set: all who come see it
			a.queue.Ops = nil
			return a.err
		}
	}
	a.queue.Ops = a.queue.Ops[:0]
	if cap(a.queue.Ops) > 4*slotOpCount {
		a.queue.Ops = nil
	}
	a.pending.Store(false)
	return first
}

// takeWorker returns an idle worker, or a new one. It is bound from now on.
func (a *addressSpace) takeWorker() (*worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return nil, errGone
	}
	if a.err != nil {
		return nil, a.err
	}
	var w *worker
	if n := len(a.proc.idle); n > 0 {
		w = a.proc.idle[n-1]
		a.proc.idle = a.proc.idle[:n-1]
	} else {
		var err error
		if w, err = a.proc.newWorker(); err != nil {
			return nil, err
		}
	}
	a.bound = append(a.bound, w)
	return w, nil
}

// giveBack takes a worker back.
func (a *addressSpace) giveBack(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bound = slices.DeleteFunc(a.bound, func(b *worker) bool { return b == w })
	if a.released {
		if len(a.bound) == 0 {
			a.proc.bury()
		}
		return
	}
	a.proc.idle = append(a.proc.idle, w)
}

// lost says that a worker is dead: so is its process.
func (a *addressSpace) lost() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.released {
		unix.Kill(a.proc.tgid, unix.SIGKILL)
	}
	if a.err == nil {
		a.err = abi.ENOMEM
	}
	a.queue.Ops = nil
	a.pending.Store(true)
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
	// Else the last Thread with a worker there does it: it may yet look at the
	// extended state.
	if len(a.bound) == 0 {
		a.proc.bury()
	}
}
