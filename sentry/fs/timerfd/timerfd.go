// Package timerfd implements timerfd_create(2): a timer whose expirations are
// read from a file.
//
// It keeps no time itself: kernel.Timer does. TFD_TIMER_CANCEL_ON_SET is
// accepted; guests can't set the clock, so nothing is ever cancelled.
//
// Lock order: File.mu, then the wait queue's. kernel.Timer calls without locks.
package timerfd

import (
	"encoding/binary"
	"sync"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A File is a timer as an open file.
type File struct {
	vfs.FileDefaults
	timer *kernel.Timer
	queue wait.Queue

	mu    sync.Mutex
	ticks uint64
}

// New makes a disarmed timer on a clock.
func New(k *kernel.Kernel, clock int32) *File {
	f := &File{}
	f.timer = k.NewTimer(clock, f)
	return f
}

// TimerExpired implements kernel.TimerListener.
func (t *File) TimerExpired(_ *kernel.Timer, n uint64) {
	t.mu.Lock()
	t.ticks += n
	t.mu.Unlock()
	t.queue.Notify(abi.EPOLLIN)
}

// Set is timerfd_settime(2), in nanoseconds; unread expirations are forgotten.
func (t *File) Set(value, interval int64, abs bool) (oldLeft, oldInterval int64) {
	oldLeft, oldInterval = t.timer.Get()
	t.timer.Stop()
	t.mu.Lock()
	t.ticks = 0
	t.mu.Unlock()
	t.timer.Set(value, interval, abs)
	return oldLeft, oldInterval
}

// Get is timerfd_gettime(2).
func (t *File) Get() (left, interval int64) { return t.timer.Get() }

// Clock is the clock that the timer runs on.
func (t *File) Clock() int32 { return t.timer.Clock() }

// BlocksItself says that Read sleeps itself.
func (t *File) BlocksItself() {}

// Stream implements vfs.FileOps.
func (t *File) Stream() bool { return true }

func (t *File) take() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.ticks
	t.ticks = 0
	return n
}

// Read implements vfs.FileOps: the number of expirations since the last read.
func (t *File) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	if dst.Len() < 8 {
		return 0, abi.EINVAL
	}
	n := t.take()
	if n == 0 {
		if f.Nonblocking() || fl&abi.RWF_NOWAIT != 0 {
			return 0, abi.EAGAIN
		}
		s := wait.NewSleeper()
		t.queue.Add(&s.Waiter, abi.EPOLLIN)
		var err error
		for n = t.take(); n == 0 && err == nil; n = t.take() {
			err = ctx.Block(s.C)
		}
		t.queue.Remove(&s.Waiter)
		s.Free()
		if n == 0 {
			return 0, err
		}
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	if _, err := dst.Write(b[:]); err != nil {
		return 0, err
	}
	return 8, nil
}

// Readiness implements vfs.FileOps.
func (t *File) Readiness(mask wait.Events) wait.Events {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ticks > 0 {
		return mask & abi.EPOLLIN
	}
	return 0
}

// EventRegister implements vfs.FileOps.
func (t *File) EventRegister(w *wait.Waiter, mask wait.Events) { t.queue.Add(w, mask) }

// EventUnregister implements vfs.FileOps.
func (t *File) EventUnregister(w *wait.Waiter) { t.queue.Remove(w) }

// Release implements vfs.FileOps.
func (t *File) Release(*vfs.File) { t.timer.Stop() }
