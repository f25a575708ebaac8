// Package signalfd implements signalfd(2): pending signals are read from a file.
//
// Signals are those of the task that reads, as on Linux; poll and epoll look at
// the process that made the file.
//
// Lock order: the locks of package kernel's signals.
package signalfd

import (
	"encoding/binary"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// infoSize is sizeof(struct signalfd_siginfo).
const infoSize = 128

// A File is the file.
type File struct {
	vfs.FileDefaults
	task *kernel.Task // who made it
	mask atomic.Uint64
}

// New makes a file for the signals of mask.
func New(t *kernel.Task, mask abi.SigSet) *File {
	f := &File{task: t}
	f.SetMask(mask)
	return f
}

// SetMask changes the signals; SIGKILL and SIGSTOP are left out.
func (s *File) SetMask(mask abi.SigSet) {
	s.mask.Store(uint64(mask & abi.SigBlockable))
	s.task.ThreadGroup().SignalQueue().Notify(abi.EPOLLIN)
}

// Mask is the set of signals, for /proc/PID/fdinfo.
func (s *File) Mask() abi.SigSet { return abi.SigSet(s.mask.Load()) }

// BlocksItself says that Read sleeps itself.
func (s *File) BlocksItself() {}

// Stream implements vfs.FileOps.
func (s *File) Stream() bool { return true }

// Read implements vfs.FileOps: it waits for the first signal only.
func (s *File) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	t, ok := ctx.(*kernel.Task)
	if !ok || dst.Len() < infoSize {
		return 0, abi.EINVAL
	}
	done := int64(0)
	for dst.Len() >= infoSize {
		info, ok := t.DequeueSignal(s.Mask())
		if !ok {
			if done > 0 {
				break
			}
			if f.Nonblocking() || fl&abi.RWF_NOWAIT != 0 {
				return 0, abi.EAGAIN
			}
			q := t.ThreadGroup().SignalQueue()
			w := wait.NewSleeper()
			q.Add(&w.Waiter, abi.EPOLLIN)
			var err error
			for err == nil && t.PendingSignals()&s.Mask() == 0 {
				err = ctx.Block(w.C)
			}
			q.Remove(&w.Waiter)
			w.Free()
			if err != nil {
				return 0, err
			}
			continue
		}
		var b [infoSize]byte
		marshal(&info, b[:])
		if _, err := dst.Write(b[:]); err != nil {
			if done == 0 {
				return 0, err
			}
			break
		}
		done += infoSize
	}
	return done, nil
}

// marshal lays info out as struct signalfd_siginfo (uapi/linux/signalfd.h).
func marshal(i *abi.SigInfo, b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(i.Signo))
	le.PutUint32(b[4:], uint32(i.Errno))
	le.PutUint32(b[8:], uint32(i.Code))
	switch {
	case i.Code == abi.SI_TIMER:
		le.PutUint32(b[24:], uint32(i.TimerID()))
		le.PutUint32(b[32:], uint32(i.Overrun()))
		le.PutUint32(b[44:], uint32(i.Value()))
		le.PutUint64(b[48:], i.Value())
	case i.Code < 0:
		le.PutUint32(b[12:], uint32(i.PID()))
		le.PutUint32(b[16:], i.UID())
		le.PutUint32(b[44:], uint32(i.Value()))
		le.PutUint64(b[48:], i.Value())
	case i.Code > 0 && i.Code < abi.SI_KERNEL:
		switch i.Signo {
		case abi.SIGCHLD:
			le.PutUint32(b[12:], uint32(i.PID()))
			le.PutUint32(b[16:], i.UID())
			le.PutUint32(b[40:], uint32(i.Status()))
			copy(b[56:72], i.Fields[16:32]) // utime, stime
		case abi.SIGSEGV, abi.SIGBUS, abi.SIGILL, abi.SIGFPE, abi.SIGTRAP:
			le.PutUint64(b[72:], i.Addr())
		case abi.SIGIO:
			le.PutUint32(b[28:], uint32(i.Band()))
			le.PutUint32(b[20:], uint32(i.FD()))
		}
	default:
		le.PutUint32(b[12:], uint32(i.PID()))
		le.PutUint32(b[16:], i.UID())
	}
}

// Readiness implements vfs.FileOps.
func (s *File) Readiness(mask wait.Events) wait.Events {
	if s.task.PendingSignals()&s.Mask() != 0 {
		return mask & abi.EPOLLIN
	}
	return 0
}

// EventRegister implements vfs.FileOps.
func (s *File) EventRegister(w *wait.Waiter, mask wait.Events) {
	s.task.ThreadGroup().SignalQueue().Add(w, mask)
}

// EventUnregister implements vfs.FileOps.
func (s *File) EventUnregister(w *wait.Waiter) { s.task.ThreadGroup().SignalQueue().Remove(w) }
