package kernel

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
)

// futexTable is all futexes with waiters, hashed by key.
type futexTable struct{ buckets [256]futexBucket }

// A futexBucket orders waiters against wakers: a waiter looks at the word and
// queues itself with the bucket locked.
type futexBucket struct {
	mu         sync.Mutex
	head, tail *futexWaiter
}

// A futexWaiter is a task's place in a bucket. Guarded by the mutex of the
// bucket that it is in; its own task finds that one through lockBucket.
type futexWaiter struct {
	key        mm.Key
	bitset     uint32
	bucket     *futexBucket // nil: woken, or never queued
	prev, next *futexWaiter
	ch         chan struct{}
	mu         sync.Mutex // guards bucket for those who do not hold the bucket's lock
}

func (w *futexWaiter) init() { w.ch = make(chan struct{}, 1) }

func (f *futexTable) bucket(k *mm.Key) *futexBucket {
	h := k.Off >> 2
	h ^= h>>12 ^ h>>24
	h *= 0x9e3779b97f4a7c15
	return &f.buckets[h>>56]
}

func (b *futexBucket) add(w *futexWaiter) {
	w.mu.Lock()
	w.bucket = b
	w.mu.Unlock()
	w.prev, w.next = b.tail, nil
	if b.tail != nil {
		b.tail.next = w
	} else {
		b.head = w
	}
	b.tail = w
}

func (b *futexBucket) remove(w *futexWaiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		b.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		b.tail = w.prev
	}
	w.prev, w.next = nil, nil
	w.mu.Lock()
	w.bucket = nil
	w.mu.Unlock()
}

// wake wakes up to n waiters of key; b.mu must be held.
func (b *futexBucket) wake(key *mm.Key, n int, bitset uint32) int {
	woken := 0
	for w := b.head; w != nil && woken < n; {
		next := w.next
		if w.key == *key && w.bitset&bitset != 0 {
			b.remove(w)
			select {
			case w.ch <- struct{}{}:
			default:
			}
			woken++
		}
		w = next
	}
	return woken
}

// unqueue takes w out wherever it is; false if it was woken before.
func (w *futexWaiter) unqueue() bool {
	for {
		w.mu.Lock()
		b := w.bucket
		w.mu.Unlock()
		if b == nil {
			return false
		}
		b.mu.Lock()
		w.mu.Lock()
		same := w.bucket == b
		w.mu.Unlock()
		if same {
			b.remove(w)
			b.mu.Unlock()
			return true
		}
		b.mu.Unlock() // requeued in between
	}
}

// FutexWait sleeps while the word at addr is val. deadline is on the monotonic
// clock; negative for none. EAGAIN if the word differs.
func (t *Task) FutexWait(addr usermem.Addr, private bool, val, bitset uint32, deadline int64) error {
	if bitset == 0 {
		return abi.EINVAL
	}
	m := t.mm.Load()
	key, err := futexKey(m, addr, private)
	if err != nil {
		return err
	}
	w := &t.futex
	select {
	case <-w.ch:
	default:
	}
	b := t.k.futexes.bucket(&key)
	b.mu.Lock()
	now, err := m.LoadUint32(addr)
	if err != nil {
		b.mu.Unlock()
		return err
	}
	if now != val {
		b.mu.Unlock()
		return abi.EAGAIN
	}
	w.key, w.bitset = key, bitset
	b.add(w)
	b.mu.Unlock()
	if deadline >= 0 {
		err = t.BlockUntil(w.ch, deadline)
	} else {
		err = t.Block(w.ch)
	}
	if err == nil || !w.unqueue() {
		return nil // a wake-up that was given must count, whatever else happened
	}
	return err
}

// FutexWake wakes up to n waiters of the word at addr.
func (t *Task) FutexWake(addr usermem.Addr, private bool, n int, bitset uint32) (int, error) {
	if bitset == 0 {
		return 0, abi.EINVAL
	}
	key, err := futexKey(t.mm.Load(), addr, private)
	if err != nil {
		return 0, err
	}
	b := t.k.futexes.bucket(&key)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wake(&key, n, bitset), nil
}

// lockTwo locks two buckets in the order of their place in the table.
func (f *futexTable) lockTwo(a, b *futexBucket) (unlock func()) {
	if a == b {
		a.mu.Lock()
		return a.mu.Unlock
	}
	for i := range f.buckets {
		if x := &f.buckets[i]; x == a || x == b {
			if x == b {
				a, b = b, a
			}
			break
		}
	}
	a.mu.Lock()
	b.mu.Lock()
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

// FutexRequeue wakes up to wake waiters of addr and moves up to move more to
// addr2; with cmp, only if the word at addr is val (EAGAIN). The result counts
// both, whatever futex(2) says of FUTEX_REQUEUE.
func (t *Task) FutexRequeue(addr, addr2 usermem.Addr, private bool, wake, move int, cmp bool, val uint32) (int, error) {
	if wake < 0 || move < 0 {
		return 0, abi.EINVAL
	}
	m := t.mm.Load()
	k1, err := futexKey(m, addr, private)
	if err != nil {
		return 0, err
	}
	k2, err := futexKey(m, addr2, private)
	if err != nil {
		return 0, err
	}
	b1, b2 := t.k.futexes.bucket(&k1), t.k.futexes.bucket(&k2)
	defer t.k.futexes.lockTwo(b1, b2)()
	if cmp {
		now, err := m.LoadUint32(addr)
		if err != nil {
			return 0, err
		}
		if now != val {
			return 0, abi.EAGAIN
		}
	}
	n := b1.wake(&k1, wake, ^uint32(0))
	moved := 0
	if k1 != k2 {
		for w := b1.head; w != nil && moved < move; {
			next := w.next
			if w.key == k1 {
				b1.remove(w)
				w.key = k2
				b2.add(w)
				moved++
			}
			w = next
		}
	}
	return n + moved, nil
}

// FutexWakeOp is FUTEX_WAKE_OP: it changes the word at addr2 and wakes waiters
// of addr, and of addr2 if the old word compares as op says.
func (t *Task) FutexWakeOp(addr, addr2 usermem.Addr, private bool, n1, n2 int, op uint32) (int, error) {
	m := t.mm.Load()
	k1, err := futexKey(m, addr, private)
	if err != nil {
		return 0, err
	}
	k2, err := futexKey(m, addr2, private)
	if err != nil {
		return 0, err
	}
	code, cmp := op>>28&7, op>>24&15
	arg, cmpArg := int32(op<<8)>>20, int32(op<<20)>>20
	if op>>28&8 != 0 {
		arg = 1 << uint(arg&31)
	}
	if code > abi.FUTEX_OP_XOR {
		return 0, abi.ENOSYS
	}
	b1, b2 := t.k.futexes.bucket(&k1), t.k.futexes.bucket(&k2)
	defer t.k.futexes.lockTwo(b1, b2)()
	old, err := m.AtomicUpdate(addr2, func(o uint32) (uint32, bool) {
		switch code {
		case abi.FUTEX_OP_SET:
			return uint32(arg), true
		case abi.FUTEX_OP_ADD:
			return o + uint32(arg), true
		case abi.FUTEX_OP_OR:
			return o | uint32(arg), true
		case abi.FUTEX_OP_ANDN:
			return o &^ uint32(arg), true
		}
		return o ^ uint32(arg), true
	})
	if err != nil {
		return 0, err
	}
	var hit bool
	switch v := int32(old); cmp {
	case abi.FUTEX_OP_CMP_EQ:
		hit = v == cmpArg
	case abi.FUTEX_OP_CMP_NE:
		hit = v != cmpArg
	case abi.FUTEX_OP_CMP_LT:
		hit = v < cmpArg
	case abi.FUTEX_OP_CMP_GE:
		hit = v >= cmpArg
	case abi.FUTEX_OP_CMP_LE:
		hit = v <= cmpArg
	case abi.FUTEX_OP_CMP_GT:
		hit = v > cmpArg
	default:
		return 0, abi.ENOSYS
	}
	n := b1.wake(&k1, n1, ^uint32(0))
	if hit {
		n += b2.wake(&k2, n2, ^uint32(0))
	}
	return n, nil
}

// futexKey tells private from shared futexes on the same private word: waits of
// one kind are not woken by the other, as Linux has it (FUT_OFF_MMSHARED).
func futexKey(m *mm.MM, addr usermem.Addr, private bool) (mm.Key, error) {
	key, err := m.FutexKey(addr, private)
	if err == nil && !private && key.Obj == any(m) {
		key.Off |= 2
	}
	return key, err
}

// futexWakeAddr wakes one waiter at addr for CLONE_CHILD_CLEARTID and robust
// futexes, which are shared ones.
func (k *Kernel) futexWakeAddr(m *mm.MM, addr usermem.Addr) {
	key, err := futexKey(m, addr, false)
	if err != nil {
		return
	}
	b := k.futexes.bucket(&key)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake(&key, 1, ^uint32(0))
}

// robustLimit is ROBUST_LIST_LIMIT: lists may be circles.
const robustLimit = 2048

// releaseFutexes walks the robust list of an exiting thread (get_robust_list(2)):
// futexes that it holds are marked FUTEX_OWNER_DIED, and a waiter is woken.
func (t *Task) releaseFutexes(m *mm.MM) {
	head := t.robustList
	if head == 0 {
		return
	}
	t.robustList = 0
	next, err := usermem.CopyInUint64(m, head)
	if err != nil {
		return
	}
	offset, err := usermem.CopyInUint64(m, head+8)
	if err != nil {
		return
	}
	pending, err := usermem.CopyInUint64(m, head+16)
	if err != nil {
		return
	}
	for i := 0; i < robustLimit && usermem.Addr(next&^1) != head; i++ {
		cur := next
		// The successor is read first: waking the futex may free the entry.
		n, err := usermem.CopyInUint64(m, usermem.Addr(cur&^1))
		if cur&^1 != pending&^1 {
			if !t.releaseRobust(m, usermem.Addr(cur&^1+offset), cur&1 != 0, false) {
				return
			}
		}
		if err != nil {
			return
		}
		next = n
	}
	if pending&^1 != 0 {
		t.releaseRobust(m, usermem.Addr(pending&^1+offset), pending&1 != 0, true)
	}
}

// releaseRobust is handle_futex_death.
func (t *Task) releaseRobust(m *mm.MM, addr usermem.Addr, pi, pending bool) bool {
	if addr&3 != 0 {
		return false
	}
	tid := uint32(t.TID())
	mine := false
	old, err := m.AtomicUpdate(addr, func(v uint32) (uint32, bool) {
		if mine = v&abi.FUTEX_TID_MASK == tid; !mine {
			return 0, false
		}
		return v&abi.FUTEX_WAITERS | abi.FUTEX_OWNER_DIED, true
	})
	if err != nil {
		return false
	}
	if !mine {
		// The owner died between unlocking and waking somebody.
		if pending && !pi && old == 0 {
			t.k.futexWakeAddr(m, addr)
		}
		return true
	}
	if !pi && old&abi.FUTEX_WAITERS != 0 {
		t.k.futexWakeAddr(m, addr)
	}
	return true
}
