package ptrace

import (
	"sync"

	"garrison/abi"
	"garrison/internal/spanset"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// An addressSpace is a stub process. Its leader never runs guest code: it is
// there for the keeper, who makes mapping calls by it when no other thread is
// at hand.
type addressSpace struct {
	p      *Platform
	leader *stub

	mu       sync.Mutex
	queue    []op // not yet made
	running  int  // threads in guest code
	released bool
	err      error // of a queued call: the space is not what it should be
	mapped   spanset.Set[struct{}]
}

// NewAddressSpace implements platform.Platform.
func (p *Platform) NewAddressSpace() (platform.AddressSpace, error) {
	s, err := p.takeProcess()
	if err != nil {
		return nil, hostError(err)
	}
	a := &addressSpace{p: p, leader: s}
	a.mapped.Init(func(v struct{}, _ uint64) struct{} { return v }, func(struct{}, uint64, struct{}) bool { return true })
	return a, nil
}

// check refuses ranges that are not the guest's.
func (a *addressSpace) check(addr, length uint64) error {
	if (addr|length)&(slotSize-1) != 0 || addr < a.p.layout.Min || addr+length < addr || addr+length > a.p.layout.Max {
		return abi.EINVAL
	}
	return nil
}

// Map implements platform.AddressSpace.
func (a *addressSpace) Map(m platform.Mapping) error {
	if err := a.check(m.Addr, m.Len); err != nil {
		return err
	}
	if m.Len == 0 || m.Prot == 0 || m.Off&(slotSize-1) != 0 {
		return abi.EINVAL
	}
	flags := uint64(unix.MAP_SHARED | unix.MAP_FIXED | unix.MAP_NORESERVE)
	if m.Populate {
		flags |= unix.MAP_POPULATE
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mapped.Remove(nil, m.Addr, m.Addr+m.Len)
	a.mapped.InsertMerge(spanset.Span[struct{}]{Start: m.Addr, End: m.Addr + m.Len})
	return a.add(op{unix.SYS_MMAP, m.Addr, m.Len, uint64(m.Prot), flags, uint64(m.FD), uint64(m.Off)})
}

// Unmap implements platform.AddressSpace.
func (a *addressSpace) Unmap(addr, length uint64) error {
	if err := a.check(addr, length); err != nil || length == 0 {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var buf [8]spanset.Span[struct{}]
	if len(a.mapped.Remove(buf[:0], addr, addr+length)) == 0 {
		return nil
	}
	return a.add(op{unix.SYS_MUNMAP, addr, length})
}

// Protect implements platform.AddressSpace.
func (a *addressSpace) Protect(addr, length uint64, prot platform.Prot) error {
	if err := a.check(addr, length); err != nil || length == 0 {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var buf [8]spanset.Span[struct{}]
	for _, s := range a.mapped.Collect(buf[:0], addr, addr+length) {
		if err := a.add(op{unix.SYS_MPROTECT, s.Start, s.End - s.Start, uint64(prot)}); err != nil {
			return err
		}
	}
	return nil
}

// maxQueue is how many calls may wait.
const maxQueue = 4 * slotOps

// add queues a call, or makes it at once if a thread runs now. a.mu is held.
func (a *addressSpace) add(o op) error {
	if a.released || a.err != nil {
		return a.err
	}
	if n := len(a.queue); n > 0 && a.queue[n-1].absorb(&o) {
		return nil
	}
	a.queue = append(a.queue, o)
	if a.running == 0 && len(a.queue) < maxQueue {
		return nil
	}
	return a.flushByKeeper()
}

// absorb extends the call o by next if one call can do both.
func (o *op) absorb(next *op) bool {
	if o[0] != next[0] || o[1]+o[2] != next[1] {
		return false
	}
	switch o[0] {
	case unix.SYS_MMAP:
		if o[3] != next[3] || o[4] != next[4] || o[5] != next[5] || o[6]+o[2] != next[6] {
			return false
		}
	case unix.SYS_MPROTECT:
		if o[3] != next[3] {
			return false
		}
	}
	o[2] += next[2]
	return true
}

// drain makes the queued calls by s, which the calling thread traces. a.mu is held.
func (a *addressSpace) drain(s *stub) error {
	sl := a.p.area.borrow()
	defer a.p.area.giveBack(sl)
	for q := a.queue; len(q) > 0; {
		n := min(len(q), slotOps)
		if err := s.runBatch(&a.p.area, sl, q[:n]); err != nil {
			a.err = hostError(err)
			return a.err
		}
		q = q[n:]
	}
	a.queue = a.queue[:0]
	return nil
}

// flushByKeeper makes the queued calls by the leader. a.mu is held.
func (a *addressSpace) flushByKeeper() (err error) {
	if len(a.queue) == 0 {
		return a.err
	}
	a.p.do(func() { err = a.drain(a.leader) })
	return err
}

// Flush implements platform.AddressSpace.
func (a *addressSpace) Flush() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released || a.err != nil {
		return a.err
	}
	return a.flushByKeeper()
}

// enter makes the queued calls by s and counts it among the running threads.
// It reports whether s's registers were changed.
func (a *addressSpace) enter(s *stub) (changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return false, errGone
	}
	if a.err != nil {
		return false, a.err
	}
	if len(a.queue) > 0 {
		changed = true
		if err := a.drain(s); err != nil {
			return true, err
		}
	}
	a.running++
	return changed, nil
}

func (a *addressSpace) leave() {
	a.mu.Lock()
	a.running--
	a.mu.Unlock()
}

// newThread makes a stub thread that the calling operating system thread traces.
func (a *addressSpace) newThread() (*stub, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return nil, errGone
	}
	var tid int
	var err error
	a.p.do(func() { tid, err = a.leader.cloneThread(&a.p.area) })
	if err != nil {
		return nil, err
	}
	return attach(a.leader.pid, tid)
}

// Release implements platform.AddressSpace.
func (a *addressSpace) Release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released {
		return
	}
	a.released = true
	a.queue = nil
	a.mapped.Clear()
	a.p.discard(a.leader)
}
