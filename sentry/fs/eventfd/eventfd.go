// Package eventfd implements eventfd(2): a counter as an open file.
//
// It does not make descriptors; the system call does.
//
// Lock order: Counter.mu, then the wait queue's.
package eventfd

import (
	"encoding/binary"
	"math"
	"sync"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A Counter is the file.
type Counter struct {
	vfs.FileDefaults
	semaphore bool
	queue     wait.Queue

	mu    sync.Mutex
	value uint64
}

// New makes a counter; flags may hold EFD_SEMAPHORE.
func New(initial uint32, flags uint32) *Counter {
	return &Counter{value: uint64(initial), semaphore: flags&abi.EFD_SEMAPHORE != 0}
}

// BlocksItself says that Read and Write sleep themselves.
func (c *Counter) BlocksItself() {}

// Stream implements vfs.FileOps.
func (c *Counter) Stream() bool { return true }

// Value is the count, for /proc/PID/fdinfo.
func (c *Counter) Value() uint64 { c.mu.Lock(); defer c.mu.Unlock(); return c.value }

// block sleeps until try succeeds.
func (c *Counter) block(ctx vfs.Context, f *vfs.File, fl vfs.IOFlags, mask wait.Events, try func() bool) error {
	if try() {
		return nil
	}
	if f.Nonblocking() || fl&abi.RWF_NOWAIT != 0 {
		return abi.EAGAIN
	}
	s := wait.NewSleeper()
	c.queue.Add(&s.Waiter, mask)
	var err error
	for err == nil && !try() {
		err = ctx.Block(s.C)
	}
	c.queue.Remove(&s.Waiter)
	s.Free()
	return err
}

// Read takes the count, or one of it for a semaphore.
func (c *Counter) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	if dst.Len() < 8 {
		return 0, abi.EINVAL
	}
	var v uint64
	err := c.block(ctx, f, fl, abi.EPOLLIN, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case c.value == 0:
			return false
		case c.semaphore:
			v, c.value = 1, c.value-1
		default:
			v, c.value = c.value, 0
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	c.queue.Notify(abi.EPOLLOUT)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if _, err := dst.Write(b[:]); err != nil {
		return 0, err
	}
	return 8, nil
}

// Write adds to the count, and waits while that would overflow.
func (c *Counter) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	if src.Len() < 8 {
		return 0, 0, abi.EINVAL
	}
	var b [8]byte
	if _, err := src.Read(b[:]); err != nil {
		return 0, 0, err
	}
	v := binary.LittleEndian.Uint64(b[:])
	if v == math.MaxUint64 {
		return 0, 0, abi.EINVAL
	}
	err := c.block(ctx, f, fl, abi.EPOLLOUT, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if math.MaxUint64-1-c.value < v {
			return false
		}
		c.value += v
		return true
	})
	if err != nil {
		return 0, 0, err
	}
	c.queue.Notify(abi.EPOLLIN)
	return 8, 8, nil
}

// Signal adds n on the Sentry's behalf, saturating, as eventfd_signal does.
func (c *Counter) Signal(n uint64) {
	c.mu.Lock()
	if math.MaxUint64-c.value < n {
		c.value = math.MaxUint64
	} else {
		c.value += n
	}
	c.mu.Unlock()
	c.queue.Notify(abi.EPOLLIN)
}

// Readiness implements vfs.FileOps as eventfd_poll does.
func (c *Counter) Readiness(mask wait.Events) wait.Events {
	v := c.Value()
	var ev wait.Events
	if v > 0 {
		ev |= abi.EPOLLIN
	}
	if v == math.MaxUint64 {
		ev |= abi.EPOLLERR
	}
	if v < math.MaxUint64-1 {
		ev |= abi.EPOLLOUT
	}
	return ev & (mask | abi.EPOLLERR | abi.EPOLLHUP)
}

// EventRegister implements vfs.FileOps.
func (c *Counter) EventRegister(w *wait.Waiter, mask wait.Events) { c.queue.Add(w, mask) }

// EventUnregister implements vfs.FileOps.
func (c *Counter) EventUnregister(w *wait.Waiter) { c.queue.Remove(w) }
