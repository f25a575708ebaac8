package vfs

import (
	"math"
	"slices"
	"sync"

	"garrison/abi"
	"garrison/sentry/wait"
)

// fileLocks holds all advisory locks: record locks (fcntl_locking(2)) of
// processes and of open file descriptions, and flock(2)'s. One mutex guards all
// of them, because deadlocks run across files.
var fileLocks struct {
	sync.Mutex
	files map[Inode]*lockState
	// waits says for each process (its FDTable) that sleeps in F_SETLKW which
	// owner has the lock it waits for.
	waits map[any]any
}

type lockState struct {
	records []RecordLock // sorted by start within an owner; owners mixed
	flocks  []flockEntry
	changed wait.Queue // notified when a lock goes
	waiters int
}

type flockEntry struct {
	f         *File
	exclusive bool
}

// A RecordLock is a lock on the bytes [Start, End]; End is MaxInt64 for "to the
// end of the file".
type RecordLock struct {
	Write      bool
	Start, End int64
	PID        int32 // -1 for a lock of an open file description
	owner      any   // *FDTable, or *File
}

func stateOf(i Inode) *lockState {
	s := fileLocks.files[i]
	if s == nil {
		if fileLocks.files == nil {
			fileLocks.files = make(map[Inode]*lockState)
			fileLocks.waits = make(map[any]any)
		}
		s = &lockState{}
		fileLocks.files[i] = s
	}
	return s
}

// tidy forgets s if nothing is left in it.
func (s *lockState) tidy(i Inode) {
	if len(s.records) == 0 && len(s.flocks) == 0 && s.waiters == 0 {
		delete(fileLocks.files, i)
	}
}

// conflict finds a record lock that keeps l out.
func (s *lockState) conflict(l *RecordLock) *RecordLock {
	var best *RecordLock
	for i := range s.records {
		o := &s.records[i]
		if o.owner != l.owner && (o.Write || l.Write) && o.Start <= l.End && l.Start <= o.End &&
			(best == nil || o.Start < best.Start) {
			best = o
		}
	}
	return best
}

// put gives the owner's range a new lock, or none (unlock): other locks of the
// owner in the range are cut, and equal neighbours merged.
func (s *lockState) put(l RecordLock, unlock bool) {
	out := make([]RecordLock, 0, len(s.records)+2)
	for _, o := range s.records {
		if o.owner != l.owner {
			out = append(out, o)
			continue
		}
		if !unlock && o.Write == l.Write && touches(o, l) {
			l.Start, l.End = min(l.Start, o.Start), max(l.End, o.End)
			continue
		}
		if o.End < l.Start || o.Start > l.End {
			out = append(out, o)
			continue
		}
		if o.Start < l.Start {
			left := o
			left.End = l.Start - 1
			out = append(out, left)
		}
		if o.End > l.End {
			right := o
			right.Start = l.End + 1
			out = append(out, right)
		}
	}
	if !unlock {
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b RecordLock) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	s.records = out
}

// touches reports whether a and b overlap or lie side by side.
func touches(a, b RecordLock) bool {
	return (a.Start <= b.End || b.End != math.MaxInt64 && a.Start == b.End+1) &&
		(b.Start <= a.End || a.End != math.MaxInt64 && b.Start == a.End+1)
}

// lockOwner is whose lock it is: the process's, or the open file's.
func lockOwner(t *FDTable, f *File, ofd bool) any {
	if ofd {
		return f
	}
	return t
}

// TestLock is F_GETLK: it returns a lock that keeps l out, or ok == false.
func (f *File) TestLock(t *FDTable, l RecordLock, ofd bool) (RecordLock, bool) {
	i := f.Inode()
	l.owner = lockOwner(t, f, ofd)
	fileLocks.Lock()
	defer fileLocks.Unlock()
	s := fileLocks.files[i]
	if s == nil {
		return l, false
	}
	if c := s.conflict(&l); c != nil {
		return *c, true
	}
	return l, false
}

// SetLock is F_SETLK and F_SETLKW (wait): EAGAIN, EDEADLK, ERESTARTSYS.
func (f *File) SetLock(ctx Context, t *FDTable, l RecordLock, ofd, unlock, block bool) error {
	i := f.Inode()
	if i == nil {
		return abi.EBADF
	}
	l.owner = lockOwner(t, f, ofd)
	if ofd {
		l.PID = -1
		f.locks.Store(true)
	} else {
		t.locked.Store(true)
	}
	var w *chanWaiter
	for {
		fileLocks.Lock()
		s := stateOf(i)
		var c *RecordLock
		if !unlock {
			c = s.conflict(&l)
		}
		if c == nil {
			// Unlocking and downgrading let others in.
			s.put(l, unlock)
			s.finish(i, w)
			s.changed.Notify(abi.EPOLLIN)
			fileLocks.Unlock()
			return nil
		}
		if !block {
			s.finish(i, w)
			fileLocks.Unlock()
			return abi.EAGAIN
		}
		if !ofd && deadlock(l.owner, c.owner) {
			s.finish(i, w)
			fileLocks.Unlock()
			return abi.EDEADLK
		}
		if w == nil {
			w = getWaiter()
			s.changed.Add(&w.Waiter, abi.EPOLLIN)
			s.waiters++
		}
		if !ofd {
			fileLocks.waits[l.owner] = c.owner
		}
		fileLocks.Unlock()
		err := ctx.Block(w.ch)
		fileLocks.Lock()
		delete(fileLocks.waits, l.owner)
		if err != nil {
			s.finish(i, w)
			fileLocks.Unlock()
			return err
		}
		fileLocks.Unlock()
	}
}

// finish ends a wait on s, if there was one.
func (s *lockState) finish(i Inode, w *chanWaiter) {
	if w != nil {
		s.changed.Remove(&w.Waiter)
		s.waiters--
		putWaiter(w)
	}
	s.tidy(i)
}

// deadlock reports whether waiting for holder would make owner wait for itself.
func deadlock(owner, holder any) bool {
	for range 64 {
		if holder == owner {
			return true
		}
		next, ok := fileLocks.waits[holder]
		if !ok {
			return false
		}
		holder = next
	}
	return false
}

// releasePosixLocks drops the process's locks on i: any close of any of its
// descriptors of the file does that (fcntl_locking(2)).
func releasePosixLocks(i Inode, t *FDTable) {
	if !t.locked.Load() {
		return
	}
	dropRecords(i, t)
}

func dropRecords(i Inode, owner any) {
	fileLocks.Lock()
	defer fileLocks.Unlock()
	s := fileLocks.files[i]
	if s == nil {
		return
	}
	n := len(s.records)
	s.records = slices.DeleteFunc(s.records, func(l RecordLock) bool { return l.owner == owner })
	if len(s.records) != n {
		s.changed.Notify(abi.EPOLLIN)
	}
	s.tidy(i)
}

// Flock is flock(2): kind is LOCK_SH, LOCK_EX or LOCK_UN. Converting a lock is
// not atomic: the old one is given up first.
func (f *File) Flock(ctx Context, kind int, block bool) error {
	i := f.Inode()
	if i == nil {
		return abi.EBADF
	}
	f.locks.Store(true)
	exclusive := kind == abi.LOCK_EX
	var w *chanWaiter
	for {
		fileLocks.Lock()
		s := stateOf(i)
		for n, e := range s.flocks {
			if e.f != f {
				continue
			}
			if kind != abi.LOCK_UN && e.exclusive == exclusive {
				s.finish(i, w)
				fileLocks.Unlock()
				return nil
			}
			s.flocks = slices.Delete(s.flocks, n, n+1)
			s.changed.Notify(abi.EPOLLIN)
			break
		}
		if kind == abi.LOCK_UN {
			s.finish(i, w)
			fileLocks.Unlock()
			return nil
		}
		taken := false
		for _, e := range s.flocks {
			taken = taken || exclusive || e.exclusive
		}
		if !taken {
			s.flocks = append(s.flocks, flockEntry{f, exclusive})
			s.finish(i, w)
			fileLocks.Unlock()
			return nil
		}
		if !block {
			s.finish(i, w)
			fileLocks.Unlock()
			return abi.EAGAIN
		}
		if w == nil {
			w = getWaiter()
			s.changed.Add(&w.Waiter, abi.EPOLLIN)
			s.waiters++
		}
		fileLocks.Unlock()
		if err := ctx.Block(w.ch); err != nil {
			fileLocks.Lock()
			s.finish(i, w)
			fileLocks.Unlock()
			return err
		}
	}
}

// releaseFileLocks drops flock and OFD locks when the last reference to f goes.
func releaseFileLocks(f *File) {
	i := f.Inode()
	dropRecords(i, f)
	fileLocks.Lock()
	defer fileLocks.Unlock()
	s := fileLocks.files[i]
	if s == nil {
		return
	}
	n := len(s.flocks)
	s.flocks = slices.DeleteFunc(s.flocks, func(e flockEntry) bool { return e.f == f })
	if len(s.flocks) != n {
		s.changed.Notify(abi.EPOLLIN)
	}
	s.tidy(i)
}

// LockInfo is a line of /proc/locks.
type LockInfo struct {
	Kind       string // "POSIX", "OFDLCK", "FLOCK"
	Write      bool
	PID        int32
	Dev, Ino   uint64
	Start, End int64
}

// Locks lists all advisory locks, for /proc/locks.
func Locks(ctx Context) []LockInfo {
	fileLocks.Lock()
	defer fileLocks.Unlock()
	var out []LockInfo
	for i, s := range fileLocks.files {
		a, err := i.Attr(ctx)
		if err != nil {
			continue
		}
		for _, l := range s.records {
			k := "POSIX"
			if l.PID < 0 {
				k = "OFDLCK"
			}
			out = append(out, LockInfo{k, l.Write, l.PID, a.Dev, a.Ino, l.Start, l.End})
		}
		for _, e := range s.flocks {
			out = append(out, LockInfo{"FLOCK", e.exclusive, -1, a.Dev, a.Ino, 0, math.MaxInt64})
		}
	}
	return out
}
