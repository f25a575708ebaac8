package ptrace

import (
	"sync"
	"sync/atomic"
	"time"
)

// monitorTick is how long guest code may run, bound to its tracer's CPU, before
// it may go anywhere: two of these.
const monitorTick = 5 * time.Millisecond

// A monitor lets stubs that compute go: binding a stub to the CPU of its tracer
// is right while it makes system calls, and wrong when two that compute share a
// CPU. It ticks only while some bound stub runs guest code.
type monitor struct {
	off    bool // there is but one CPU
	p      *Platform
	active atomic.Bool
	begin  chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	threads map[*thread]struct{}
}

func (m *monitor) start(p *Platform) {
	m.p = p
	m.off = p.cpus.Count() < 2
	m.begin = make(chan struct{}, 1)
	m.done = make(chan struct{})
	m.threads = make(map[*thread]struct{})
	go m.loop()
}

func (m *monitor) stop() { close(m.done) }

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

// wake is called when a stub enters guest code.
func (m *monitor) wake() {
	if m.off || m.active.Load() || !m.active.CompareAndSwap(false, true) {
		return
	}
	select {
	case m.begin <- struct{}{}:
	default:
	}
}

func (m *monitor) loop() {
	for {
		select {
		case <-m.begin:
		case <-m.done:
			return
		}
		for idle := 0; idle < 2; {
			time.Sleep(monitorTick)
			if m.tick() {
				idle = 0
			} else if idle++; idle == 2 {
				m.active.Store(false)
				if m.tick() { // one came just now
					m.active.Store(true)
					idle = 0
				}
			}
		}
	}
}

// tick frees the stubs that have been in the same run since the last tick; it
// reports whether any bound stub is in guest code.
func (m *monitor) tick() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	busy := false
	for t := range m.threads {
		n := t.runs.Load()
		if n&1 == 0 || t.cpu.Load() < 0 {
			continue
		}
		if n != t.seen {
			t.seen, busy = n, true
			continue
		}
		if id := t.id.Load(); id != 0 {
			t.cpu.Store(-1)
			setAffinity(int(uint32(id)), &m.p.cpus)
		}
	}
	return busy
}
