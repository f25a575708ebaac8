// Package epoll implements epoll(7): a set of open files with the events that
// interest in each, and the list of those that may be ready.
//
// It does not parse system call arguments. EPOLLEXCLUSIVE is accepted and
// checked, but all waiters are woken, which epoll_ctl(2) allows. EPOLLWAKEUP
// has no meaning here.
//
// Lock order: nestMu, Epoll.mu (an epoll before those that it watches), then
// the locks of the watched files. Epoll.readyMu is a leaf: callbacks take it
// with a wait queue locked.
package epoll

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// maxNests is EP_MAX_NESTS: how many links a chain of epolls may have.
const maxNests = 4

// private are the bits that are no events to wait for.
const private = abi.EPOLLET | abi.EPOLLONESHOT | abi.EPOLLWAKEUP | abi.EPOLLEXCLUSIVE

// always is reported even if not asked for.
const always = abi.EPOLLERR | abi.EPOLLHUP

// nestMu serialises changes of what epoll watches what epoll (epnested_mutex).
var nestMu sync.Mutex

// An Event is struct epoll_event.
type Event struct {
	Events uint32
	Data   uint64
}

type key struct {
	file *vfs.File
	fd   int32
}

// An item is one watched file.
type item struct {
	key    key
	ep     *Epoll
	waiter wait.Waiter
	ev     Event // guarded by Epoll.mu; Events of 0 (private bits aside): disarmed

	// Guarded by Epoll.readyMu.
	listed     bool
	prev, next *item
}

// An Epoll is the file.
type Epoll struct {
	vfs.FileDefaults
	queue wait.Queue // who waits for the list to become non-empty

	mu    sync.Mutex
	items map[key]*item
	files map[*vfs.File]int // how many items each file has
	dead  bool

	// above counts the epolls that watch this one; guarded by nestMu.
	above map[*Epoll]int

	readyMu    sync.Mutex
	head, tail *item
}

// New makes an empty epoll.
func New() *Epoll {
	return &Epoll{items: make(map[key]*item), files: make(map[*vfs.File]int)}
}

// enlist appends i to the ready list, if it is not there. readyMu must be held.
func (e *Epoll) enlist(i *item) bool {
	if i.listed {
		return false
	}
	i.listed = true
	i.prev, i.next = e.tail, nil
	if e.tail != nil {
		e.tail.next = i
	} else {
		e.head = i
	}
	e.tail = i
	return true
}

// delist takes i off the ready list. readyMu must be held.
func (e *Epoll) delist(i *item) {
	if !i.listed {
		return
	}
	if i.prev != nil {
		i.prev.next = i.next
	} else {
		e.head = i.next
	}
	if i.next != nil {
		i.next.prev = i.prev
	} else {
		e.tail = i.prev
	}
	i.listed, i.prev, i.next = false, nil, nil
}

// wakeItem is the callback of every item.
func wakeItem(w *wait.Waiter, _ wait.Events) {
	i := w.Data.(*item)
	e := i.ep
	e.readyMu.Lock()
	e.enlist(i)
	e.readyMu.Unlock()
	// Even if it was listed already: a waiter may have scanned past it.
	e.queue.Notify(abi.EPOLLIN | abi.EPOLLRDNORM)
}

// cannotPoller is implemented by operations of files that have no poll method
// on Linux, such as /dev/null: EPERM.
type cannotPoller interface{ CannotPoll() }

// CanPoll reports whether f can be watched; EPERM if not.
func CanPoll(f *vfs.File) bool {
	if _, no := f.Ops().(cannotPoller); no {
		return false
	}
	if d := f.Path().Dentry; d != nil {
		if _, yes := f.Ops().(interface{ CanPoll() }); !yes && (d.Type() == abi.S_IFREG || d.Type() == abi.S_IFDIR) {
			return false
		}
	}
	return true
}

// Ctl is epoll_ctl(2) on this epoll, which is self's operations.
func (e *Epoll) Ctl(self *vfs.File, op int32, f *vfs.File, fd int32, ev Event) error {
	if !CanPoll(f) {
		return abi.EPERM
	}
	ev.Events &^= abi.EPOLLWAKEUP
	if f == self {
		return abi.EINVAL
	}
	target, nested := f.Ops().(*Epoll)
	if op != abi.EPOLL_CTL_DEL && ev.Events&abi.EPOLLEXCLUSIVE != 0 {
		const allowed = abi.EPOLLIN | abi.EPOLLOUT | abi.EPOLLERR | abi.EPOLLHUP | abi.EPOLLWAKEUP | abi.EPOLLET | abi.EPOLLEXCLUSIVE
		if op == abi.EPOLL_CTL_MOD || nested || ev.Events&^uint32(allowed) != 0 {
			return abi.EINVAL
		}
	}
	if nested {
		nestMu.Lock()
		defer nestMu.Unlock()
		if op == abi.EPOLL_CTL_ADD {
			down := target.depthBelow(e, 0)
			if down < 0 || down+1+e.depthAbove(0) > maxNests {
				return abi.ELOOP
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return abi.EBADF
	}
	k := key{f, fd}
	i := e.items[k]
	switch op {
	case abi.EPOLL_CTL_ADD:
		if i != nil {
			return abi.EEXIST
		}
		i = &item{key: k, ep: e, ev: ev}
		i.waiter.Callback, i.waiter.Data = wakeItem, i
		e.items[k] = i
		if e.files[f]++; e.files[f] == 1 {
			f.Watch(e)
		}
		if nested {
			if target.above == nil {
				target.above = make(map[*Epoll]int)
			}
			target.above[e]++
		}
		e.arm(i)
	case abi.EPOLL_CTL_DEL:
		if i == nil {
			return abi.ENOENT
		}
		e.remove(i)
		if e.files[f]--; e.files[f] == 0 {
			delete(e.files, f)
			f.Unwatch(e)
		}
		if nested {
			target.dropAbove(e)
		}
	case abi.EPOLL_CTL_MOD:
		if i == nil {
			return abi.ENOENT
		}
		if i.ev.Events&abi.EPOLLEXCLUSIVE != 0 {
			return abi.EINVAL
		}
		f.EventUnregister(&i.waiter)
		i.ev = ev
		e.arm(i)
	default:
		return abi.EINVAL
	}
	return nil
}

// arm starts to watch, and lists the item if it is ready now. e.mu must be held.
func (e *Epoll) arm(i *item) {
	mask := wait.Events(i.ev.Events&^uint32(private) | always)
	i.key.file.EventRegister(&i.waiter, mask)
	if i.key.file.Readiness(mask)&mask != 0 {
		wakeItem(&i.waiter, 0)
	}
}

// remove forgets an item. e.mu must be held; files is the caller's.
func (e *Epoll) remove(i *item) {
	i.key.file.EventUnregister(&i.waiter)
	e.readyMu.Lock()
	e.delist(i)
	e.readyMu.Unlock()
	delete(e.items, i.key)
}

// dropAbove takes one watch by up back. nestMu must be held.
func (e *Epoll) dropAbove(up *Epoll) {
	if e.above[up]--; e.above[up] <= 0 {
		delete(e.above, up)
	}
}

// depthBelow is the length of the longest chain of epolls below e; -1 if it
// meets avoid or is too long. nestMu must be held.
func (e *Epoll) depthBelow(avoid *Epoll, depth int) int {
	if e == avoid || depth > maxNests {
		return -1
	}
	e.mu.Lock()
	var below []*Epoll
	for f := range e.files {
		if t, ok := f.Ops().(*Epoll); ok {
			below = append(below, t)
		}
	}
	e.mu.Unlock()
	longest := 0
	for _, t := range below {
		d := t.depthBelow(avoid, depth+1)
		if d < 0 {
			return -1
		}
		longest = max(longest, d+1)
	}
	return longest
}

// depthAbove is the length of the longest chain of epolls that watch e.
func (e *Epoll) depthAbove(depth int) int {
	longest := 0
	if depth <= maxNests {
		for t := range e.above {
			longest = max(longest, t.depthAbove(depth+1)+1)
		}
	}
	return longest
}

// FileReleased implements vfs.Watcher: the last reference to a watched file is
// gone, so it leaves the set (epoll(7), question 6).
func (e *Epoll) FileReleased(f *vfs.File) {
	target, nested := f.Ops().(*Epoll)
	if nested {
		nestMu.Lock()
		defer nestMu.Unlock()
		delete(target.above, e)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.files[f] == 0 {
		return
	}
	delete(e.files, f)
	for k, i := range e.items {
		if k.file == f {
			e.remove(i)
		}
	}
}

// Release implements vfs.FileOps.
func (e *Epoll) Release(*vfs.File) {
	nestMu.Lock()
	defer nestMu.Unlock()
	e.mu.Lock()
	e.dead = true
	files := e.files
	e.files = make(map[*vfs.File]int)
	for _, i := range e.items {
		e.remove(i)
	}
	e.mu.Unlock()
	for f := range files {
		// A file that is being released at this moment calls FileReleased,
		// which finds nothing.
		f.Unwatch(e)
		if t, ok := f.Ops().(*Epoll); ok {
			delete(t.above, e)
		}
	}
}

// collect fills out with events that hold now.
func (e *Epoll) collect(out []Event) int {
	e.readyMu.Lock()
	empty := e.head == nil
	e.readyMu.Unlock()
	if empty {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	// Level-triggered items, and those that become ready now, go to the end of
	// the list: the scan ends at what is the last one now, so that nothing is
	// reported twice.
	e.readyMu.Lock()
	last := e.tail
	e.readyMu.Unlock()
	for done := last == nil; n < len(out) && !done; {
		e.readyMu.Lock()
		i := e.head
		if i == nil {
			e.readyMu.Unlock()
			break
		}
		done = i == last
		e.delist(i)
		e.readyMu.Unlock()
		want := i.ev.Events &^ uint32(private)
		if want == 0 && i.ev.Events&abi.EPOLLONESHOT != 0 {
			continue // disarmed
		}
		mask := wait.Events(want | always)
		got := i.key.file.Readiness(mask) & mask
		if got == 0 {
			continue
		}
		out[n] = Event{uint32(got), i.ev.Data}
		n++
		switch {
		case i.ev.Events&abi.EPOLLONESHOT != 0:
			i.ev.Events &= private
		case i.ev.Events&abi.EPOLLET == 0:
			e.readyMu.Lock()
			e.enlist(i)
			e.readyMu.Unlock()
		}
	}
	return n
}

// Wait is epoll_wait(2): it fills out with at least one event, or sleeps until
// deadlineNs (CLOCK_MONOTONIC; negative: for ever, 0: not at all).
func (e *Epoll) Wait(ctx wait.Blocker, out []Event, deadlineNs int64) (int, error) {
	if n := e.collect(out); n > 0 || deadlineNs == 0 {
		return n, nil
	}
	s := wait.NewSleeper()
	e.queue.Add(&s.Waiter, abi.EPOLLIN)
	n, err := 0, error(nil)
	for err == nil {
		if n = e.collect(out); n > 0 {
			break
		}
		if deadlineNs < 0 {
			err = ctx.Block(s.C)
		} else {
			err = ctx.BlockUntil(s.C, deadlineNs)
		}
	}
	e.queue.Remove(&s.Waiter)
	s.Free()
	switch err {
	case nil:
	case abi.ETIMEDOUT:
		n, err = e.collect(out), nil
	default:
		err = abi.EINTR // never restarted: signal(7)
	}
	return n, err
}

// Stream implements vfs.FileOps.
func (e *Epoll) Stream() bool { return true }

// Readiness implements vfs.FileOps: an epoll is readable when it has an event.
func (e *Epoll) Readiness(mask wait.Events) wait.Events {
	e.readyMu.Lock()
	empty := e.head == nil
	e.readyMu.Unlock()
	if empty {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		e.readyMu.Lock()
		i := e.head
		if i == nil {
			e.readyMu.Unlock()
			return 0
		}
		e.delist(i)
		e.readyMu.Unlock()
		want := i.ev.Events &^ uint32(private)
		if want == 0 && i.ev.Events&abi.EPOLLONESHOT != 0 {
			continue
		}
		m := wait.Events(want | always)
		if i.key.file.Readiness(m)&m != 0 {
			e.readyMu.Lock()
			e.enlist(i)
			e.readyMu.Unlock()
			return mask & (abi.EPOLLIN | abi.EPOLLRDNORM)
		}
	}
}

// EventRegister implements vfs.FileOps.
func (e *Epoll) EventRegister(w *wait.Waiter, mask wait.Events) { e.queue.Add(w, mask) }

// EventUnregister implements vfs.FileOps.
func (e *Epoll) EventUnregister(w *wait.Waiter) { e.queue.Remove(w) }
