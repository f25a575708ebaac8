package wait

import "sync"

// A Sleeper is a Waiter with the channel that it wakes, taken from a pool so
// that a blocking call allocates nothing.
//
//	s := wait.NewSleeper()
//	defer s.Free()
//	q.Add(&s.Waiter, mask)
//	for { try; err := ctx.Block(s.C) ... }
//	q.Remove(&s.Waiter)
type Sleeper struct {
	Waiter
	C chan struct{}
}

var sleepers = sync.Pool{New: func() any {
	s := &Sleeper{C: make(chan struct{}, 1)}
	s.Data = s
	s.Callback = wakeSleeper
	return s
}}

func wakeSleeper(w *Waiter, _ Events) { Wake(w.Data.(*Sleeper).C) }

// NewSleeper returns a Sleeper that is in no queue and has no wake-up pending.
func NewSleeper() *Sleeper { return sleepers.Get().(*Sleeper) }

// Free gives s back; it must be in no queue any more.
func (s *Sleeper) Free() {
	select {
	case <-s.C:
	default:
	}
	sleepers.Put(s)
}
