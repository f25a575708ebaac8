// Package wait lets tasks sleep until something they wait for happens: event
// queues with callbacks, and the one blocking primitive.
//
// It knows nothing of what the events mean beyond the EPOLL* bits, and starts
// no goroutine. A sleeping system call keeps its state in struct fields and can
// be unwound at any time: Block returns ERESTARTSYS when the task is
// interrupted (a signal, a kill, a checkpoint).
//
// Lock order: Queue.mu is a leaf below the lock of whatever owns the queue;
// callbacks run with it held and may only take leaf locks of their own.
package wait

import (
	"sync"
	"sync/atomic"
)

// Events is a set of EPOLL* bits (uapi/linux/eventpoll.h): EPOLLIN, EPOLLOUT,
// EPOLLERR, EPOLLHUP, EPOLLPRI, EPOLLRDHUP.
type Events uint32

// A Waitable has a readiness that changes and can be watched.
type Waitable interface {
	// Readiness returns the events of mask that hold now. EPOLLERR and
	// EPOLLHUP are always reported.
	Readiness(mask Events) Events
	// EventRegister adds w for the events of mask. The caller registers first
	// and looks at Readiness afterwards, so that nothing is lost between.
	EventRegister(w *Waiter, mask Events)
	// EventUnregister removes w; when it returns no callback runs any more.
	EventUnregister(w *Waiter)
}

// A Waiter is an entry in at most one Queue.
type Waiter struct {
	// Callback runs when an event of the mask happens, with the queue locked.
	Callback func(w *Waiter, ev Events)
	// Data is the owner's.
	Data any

	mask       Events
	prev, next *Waiter
	queue      *Queue
}

// NewChanWaiter returns a Waiter that wakes up ch, which has a buffer of one.
func NewChanWaiter() (*Waiter, chan struct{}) {
	ch := make(chan struct{}, 1)
	return &Waiter{Callback: func(*Waiter, Events) { Wake(ch) }}, ch
}

// Wake makes one pending wake-up on ch, which has a buffer of one.
func Wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// A Queue is a list of waiters. The zero value is empty and ready.
type Queue struct {
	count atomic.Int32 // lets Notify skip an empty queue without the lock

	mu         sync.Mutex
	head, tail *Waiter
}

// Add appends w for the events of mask.
func (q *Queue) Add(w *Waiter, mask Events) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.mask, w.queue = mask, q
	w.prev, w.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = w
	} else {
		q.head = w
	}
	q.tail = w
	q.count.Add(1)
}

// Remove takes w out; it is fine if w is not in the queue.
func (q *Queue) Remove(w *Waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.queue != q {
		return
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.tail = w.prev
	}
	w.prev, w.next, w.queue = nil, nil, nil
	q.count.Add(-1)
}

// Notify calls every waiter whose mask meets ev.
func (q *Queue) Notify(ev Events) {
	if q.count.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := q.head; w != nil; {
		next := w.next
		if w.mask&ev != 0 {
			w.Callback(w, ev)
		}
		w = next
	}
}

// Empty reports whether nobody waits.
func (q *Queue) Empty() bool { return q.count.Load() == 0 }

// A Blocker can put its caller to sleep: a task, or a stand-in in tests.
type Blocker interface {
	// Block sleeps until ch yields. It returns nil then, and ERESTARTSYS when
	// the task was interrupted first.
	Block(ch <-chan struct{}) error
	// BlockUntil is Block with a deadline on CLOCK_MONOTONIC in nanoseconds;
	// it returns ETIMEDOUT when that passes first.
	BlockUntil(ch <-chan struct{}, deadlineNs int64) error
}
