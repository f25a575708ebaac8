package ptrace

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// monitorTick is how often the monitor looks while guest code runs.
	monitorTick = 5 * time.Millisecond
	// A stub that trapped less often than this in a tick, and was in guest code
	// at its end, computes: it may run anywhere.
	fewTraps = 5
	// One that trapped more often than this does better beside its tracer.
	manyTraps = 20
	// A pair that is bound may look for a better CPU after so many busy ticks.
	rebindTicks = 4
	// idleTicks without any guest code end the ticking.
	idleTicks = 3
)

// A monitor decides which stubs are bound to one CPU with their tracers: that
// is right while they make system calls, and wrong when two that compute share
// a CPU. A pair that stays bound is let go for one trap now and then, so that
// the host's scheduler can move it to a CPU that has less to do. The monitor
// ticks only while guest code runs.
type monitor struct {
	off    bool // there is but one CPU
	p      *Platform
	active atomic.Bool

	mu      sync.Mutex
	threads map[*thread]struct{}
}

func (m *monitor) init(p *Platform) {
	m.p = p
	m.off = p.cpus.count() < 2
	m.threads = make(map[*thread]struct{})
}

func (m *monitor) add(t *thread) {
	m.mu.Lock()
	m.threads[t] = struct{}{}
	m.mu.Unlock()
}

func (m *monitor) remove(t *thread) {
	m.mu.Lock()
	delete(m.threads, t)
	m.mu.Unlock()
}

// bindTo binds threads to a CPU; 0 is the calling thread.
func (m *monitor) bindTo(cpu int32, tids ...int) {
	var set cpuSet
	if m.off || int(cpu) >= len(set)*64 {
		return
	}
	set[cpu/64] = 1 << (cpu % 64)
	for _, tid := range tids {
		setAffinity(tid, &set) // if it fails, it is but slower
	}
}

// unbind lets threads run anywhere.
func (m *monitor) unbind(tids ...int) {
	if m.off {
		return
	}
	for _, tid := range tids {
		setAffinity(tid, &m.p.cpus)
	}
}

// wake is called when a stub enters guest code.
func (m *monitor) wake() {
	if !m.off && !m.active.Load() && m.active.CompareAndSwap(false, true) {
		go m.run()
	}
}

func (m *monitor) run() {
	for idle := 0; ; {
		time.Sleep(monitorTick)
		if m.tick() {
			idle = 0
			continue
		}
		if idle++; idle < idleTicks {
			continue
		}
		m.active.Store(false)
		// Who came in between saw us active.
		if !m.tick() || !m.active.CompareAndSwap(false, true) {
			return
		}
	}
}

// tick looks at all threads and reports whether any ran guest code.
func (m *monitor) tick() (busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t := range m.threads {
		inGuest, traps := t.inGuest.Load(), t.traps.Load()
		n := traps - t.seen
		t.seen = traps
		if !inGuest && n == 0 {
			t.ticks = 0
			continue
		}
		busy = true
		t.ticks++
		t.busy++
		t.mu.Lock()
		switch {
		case t.free.Load():
			if n > manyTraps {
				t.free.Store(false) // Run binds it
			}
		case t.tid == 0:
		case inGuest && n < fewTraps && t.ticks > 1: // it may have begun late in its first tick
			t.free.Store(true)
			t.cpu.Store(-1)
			m.unbind(t.tid, t.tracer)
		case t.busy%rebindTicks == 0:
			t.rebind.Store(true)
		}
		t.mu.Unlock()
	}
	return busy
}
