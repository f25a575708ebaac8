package unix

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// overhead is charged to the sender for each message besides its bytes, as
// Linux charges an skb's truesize.
const overhead = 768

// maxQueued is how many messages a datagram socket queues for senders that it
// is not connected to (net.unix.max_dgram_qlen).
const maxQueued = 10

// A message is one skb: a datagram, a packet, or a piece of a stream.
type message struct {
	next   *message
	block  *socket.Block // nil if there are no bytes
	from   *Socket       // who is charged
	addr   []byte        // the sender's address then; nil for none
	charge int
	cred   abi.Ucred
	rights []*vfs.File
}

func (m *message) len() int {
	if m.block == nil {
		return 0
	}
	return m.block.Len()
}

var messages = sync.Pool{New: func() any { return new(message) }}

// queue is a socket's receive queue.
type queue struct {
	owner *Socket

	mu         sync.Mutex
	head, tail *message
	count      int
	bytes      int
	peekOff    int
	closed     bool
	blocked    map[*Socket]struct{} // senders to tell when there is room
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == nil
}

// pending is FIONREAD: all bytes of a stream, those of the first datagram else.
func (q *queue) pending(all bool) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if all {
		return q.bytes
	}
	if q.head == nil {
		return 0
	}
	return q.head.len()
}

// full is unix_recvq_full. q.mu must be held.
func (q *queue) full() bool { return q.count > maxQueued }

// fullFor reports whether the queue is full, and if so has s told later.
func (q *queue) fullFor(s *Socket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.full() || q.closed {
		return false
	}
	if q.blocked == nil {
		q.blocked = make(map[*Socket]struct{})
	}
	q.blocked[s] = struct{}{}
	return true
}

// push appends m; false if the receiver is gone.
func (q *queue) push(m *message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.append(m)
	return true
}

func (q *queue) append(m *message) {
	m.next = nil
	if q.tail != nil {
		q.tail.next = m
	} else {
		q.head = m
	}
	q.tail = m
	q.count++
	q.bytes += m.len()
}

// merge adds bytes of src to the last message of a stream if it has room for
// all of them, comes from the same sender and carries nothing else.
func (q *queue) merge(s *Socket, u abi.Ucred, src *usermem.Buffer) (n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.tail
	if m == nil || q.closed || m.from != s || m.rights != nil || m.cred != u || m.block == nil {
		return 0, nil
	}
	room := m.block.Room()
	if len(room) < src.Len() {
		return 0, nil
	}
	n, err = src.Read(room[:src.Len()])
	m.block.Extend(n)
	m.charge += n
	q.bytes += n
	s.wmem.Add(int64(n))
	return n, err
}

// pop removes the first message. q.mu must be held; the caller finishes it
// with done, unlocked.
func (q *queue) pop() *message {
	m := q.head
	q.head = m.next
	if q.head == nil {
		q.tail = nil
	}
	m.next = nil
	q.count--
	q.bytes -= m.len()
	return m
}

// takeBlocked returns the senders that may try again. q.mu must be held.
func (q *queue) takeBlocked() map[*Socket]struct{} {
	if q.blocked == nil || q.full() {
		return nil
	}
	b := q.blocked
	q.blocked = nil
	return b
}

// done frees a message and gives the sender its memory back.
func (m *message) done(blocked map[*Socket]struct{}) {
	if m.block != nil {
		m.block.Free()
	}
	s := m.from
	if s != nil {
		s.wmem.Add(-int64(m.charge))
		if s.writable() {
			s.Queue.Notify(socket.EvOut)
		}
	}
	for b := range blocked {
		if b != s {
			b.Queue.Notify(socket.EvOut)
		}
	}
	*m = message{}
	messages.Put(m)
}

// leftover is what was in a queue when it was closed.
type leftover struct {
	head    *message
	n       int
	blocked map[*Socket]struct{}
}

// close empties the queue for good; the caller frees what was in it, unlocked.
func (q *queue) close() leftover {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := leftover{q.head, q.count, q.blocked}
	q.head, q.tail, q.count, q.bytes, q.blocked = nil, nil, 0, 0, nil
	q.closed = true
	return l
}

func (l leftover) free() {
	for m := l.head; m != nil; {
		next := m.next
		dropRights(m.rights)
		m.done(nil)
		m = next
	}
	for b := range l.blocked {
		b.Queue.Notify(socket.EvOut)
	}
}
