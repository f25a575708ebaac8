package unix

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/vfs"
)

// graveyard counts the sockets that are on their way in control messages: a
// socket that is referenced only from queues that nobody can reach any more
// would live for ever (unix_gc).
type graveyard struct {
	mu       sync.Mutex
	inflight map[*vfs.File]int
	users    map[uint32]int // files in flight by uid
}

var (
	graves   = graveyard{inflight: make(map[*vfs.File]int), users: make(map[uint32]int)}
	graveCnt atomic.Int32 // sockets in flight: nothing to collect when 0
)

// maxInflight bounds files in flight in the whole sandbox (Linux: RLIMIT_NOFILE
// of each user, ETOOMANYREFS).
const maxInflight = 1 << 16

var inflightTotal atomic.Int64

// inFlight notes that files go into a queue.
func inFlight(ctx vfs.Context, files []*vfs.File) error {
	if inflightTotal.Load()+int64(len(files)) > maxInflight && !ctx.Cred().Can(abi.CAP_SYS_RESOURCE) {
		return abi.ETOOMANYREFS
	}
	inflightTotal.Add(int64(len(files)))
	for _, f := range files {
		if _, ok := f.Ops().(*Socket); ok {
			graves.mu.Lock()
			graves.inflight[f]++
			graveCnt.Add(1)
			graves.mu.Unlock()
		}
	}
	return nil
}

// landed notes that files have left a queue.
func landed(files []*vfs.File) []*vfs.File {
	inflightTotal.Add(-int64(len(files)))
	for _, f := range files {
		if _, ok := f.Ops().(*Socket); ok {
			graves.mu.Lock()
			if graves.inflight[f]--; graves.inflight[f] <= 0 {
				delete(graves.inflight, f)
			}
			graveCnt.Add(-1)
			graves.mu.Unlock()
		}
	}
	return files
}

// dropRights releases the files of a message that nobody received.
func dropRights(files []*vfs.File) {
	if files == nil {
		return
	}
	for _, f := range landed(files) {
		f.DecRef()
	}
}

// queued lists the sockets whose files lie in s's queue, and in those of
// connections that s has not accepted.
func (s *Socket) queued() []*vfs.File {
	var out []*vfs.File
	s.rq.mu.Lock()
	for q := s.rq.head; q != nil; q = q.next {
		for _, f := range q.rights {
			if _, ok := f.Ops().(*Socket); ok {
				out = append(out, f)
			}
		}
	}
	s.rq.mu.Unlock()
	s.mu.Lock()
	pending := append([]*Socket(nil), s.accepted...)
	s.mu.Unlock()
	for _, c := range pending {
		out = append(out, c.queued()...)
	}
	return out
}

// purge takes all files out of s's queue.
func (s *Socket) purge() []*vfs.File {
	var out []*vfs.File
	s.rq.mu.Lock()
	for q := s.rq.head; q != nil; q = q.next {
		out = append(out, q.rights...)
		q.rights = nil
	}
	s.rq.mu.Unlock()
	s.mu.Lock()
	pending := append([]*Socket(nil), s.accepted...)
	s.mu.Unlock()
	for _, c := range pending {
		out = append(out, c.purge()...)
	}
	return out
}

var collecting atomic.Bool

// collectGarbage finds sockets that are referenced only by messages in flight,
// in queues of such sockets, and breaks those cycles. It runs when a socket is
// closed while others are in flight.
func collectGarbage() {
	if graveCnt.Load() == 0 || !collecting.CompareAndSwap(false, true) {
		return
	}
	defer collecting.Store(false)
	// Candidates: all their references are in flight.
	graves.mu.Lock()
	external := make(map[*vfs.File]int)
	for f, n := range graves.inflight {
		if f.Refs() == int64(n) {
			external[f] = n
		}
	}
	graves.mu.Unlock()
	if len(external) == 0 {
		return
	}
	children := make(map[*vfs.File][]*vfs.File, len(external))
	for f := range external {
		children[f] = f.Ops().(*Socket).queued()
	}
	// What other candidates hold does not keep anything alive by itself.
	for _, c := range children {
		for _, f := range c {
			if _, ok := external[f]; ok {
				external[f]--
			}
		}
	}
	var keep func(f *vfs.File)
	kept := make(map[*vfs.File]bool)
	keep = func(f *vfs.File) {
		if _, ok := external[f]; !ok || kept[f] {
			return
		}
		kept[f] = true
		for _, c := range children[f] {
			keep(c)
		}
	}
	for f, n := range external {
		if n > 0 {
			keep(f)
		}
	}
	var garbage []*vfs.File
	for f := range external {
		// Someone may have received it since: then it is no garbage.
		graves.mu.Lock()
		same := f.Refs() == int64(graves.inflight[f]) && graves.inflight[f] > 0
		graves.mu.Unlock()
		if !kept[f] {
			if !same {
				return
			}
			garbage = append(garbage, f)
		}
	}
	var drop []*vfs.File
	for _, f := range garbage {
		drop = append(drop, f.Ops().(*Socket).purge()...)
	}
	dropRights(drop)
}
