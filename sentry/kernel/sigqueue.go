package kernel

import "garrison/abi"

// A sigEntry is one queued signal.
type sigEntry struct {
	info  abi.SigInfo
	user  *userCounts // who is charged for it, or nil
	timer *PosixTimer // whose expiry it is, or nil
	next  *sigEntry
}

// A sigQueue holds pending signals: a bit per signal, and entries with their
// information in order of arrival. A bit without entry has no information.
type sigQueue struct {
	set        abi.SigSet
	head, tail *sigEntry
}

func (q *sigQueue) push(e *sigEntry) {
	if q.tail != nil {
		q.tail.next = e
	} else {
		q.head = e
	}
	q.tail = e
}

// pop takes the first entry of sig; the bit stays while there are more.
func (q *sigQueue) pop(sig int32) (info abi.SigInfo, timer *PosixTimer) {
	var prev, found, foundPrev *sigEntry
	more := false
	for e := q.head; e != nil; prev, e = e, e.next {
		if e.info.Signo != sig {
			continue
		}
		if found == nil {
			found, foundPrev = e, prev
		} else {
			more = true
			break
		}
	}
	if !more {
		q.set &^= abi.SigBit(sig)
	}
	if found == nil {
		return abi.SigInfo{Signo: sig, Code: abi.SI_USER}, nil
	}
	q.unlink(found, foundPrev)
	return found.info, found.timer
}

func (q *sigQueue) unlink(e, prev *sigEntry) {
	if prev != nil {
		prev.next = e.next
	} else {
		q.head = e.next
	}
	if q.tail == e {
		q.tail = prev
	}
	e.next = nil
	if e.user != nil {
		e.user.signals.Add(-1)
	}
}

// discard drops all pending signals of the set.
func (q *sigQueue) discard(s abi.SigSet) {
	if q.set&s == 0 {
		return
	}
	q.set &^= s
	var prev *sigEntry
	for e := q.head; e != nil; {
		next := e.next
		if s.Has(e.info.Signo) {
			q.unlink(e, prev)
			if e.timer != nil {
				e.timer.queued = false
			}
		} else {
			prev = e
		}
		e = next
	}
}

// next chooses the signal to deliver: those of the running code first, then
// the lowest number (Linux's next_signal); 0 for none.
func (q *sigQueue) next(blocked abi.SigSet) int32 {
	s := q.set &^ blocked
	if s == 0 {
		return 0
	}
	if s&sigSync != 0 {
		s &= sigSync
	}
	return lowest(s)
}
