package tty

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A TTY is a pseudoterminal: both sides.
type TTY struct {
	term  kernel.Terminal
	index uint32
	// k is the kernel of whoever opened the master; nil in tests.
	k *kernel.Kernel
	// reopen makes a file for TIOCGPTPEER; set by devpts.
	reopen func(ctx vfs.Context, flags uint32) (*vfs.File, error)
	closed func() // the master is closed: the name goes away

	masterQueue, slaveQueue wait.Queue

	mu           sync.Mutex
	l            ldisc
	size         abi.Winsize
	locked       bool // TIOCSPTLCK
	exclusive    bool
	packetMode   bool
	slaves       int  // open slave files that are not hung up
	slaveSeen    bool // a slave has been opened since the last hang-up
	masterClosed bool
	generation   int // hang-ups so far: slaves opened before are dead
}

// New makes a pseudoterminal with an open master and a locked slave.
func New(k *kernel.Kernel, index uint32, closed func(), reopen func(ctx vfs.Context, flags uint32) (*vfs.File, error)) (*TTY, *Master) {
	t := &TTY{index: index, k: k, closed: closed, reopen: reopen, locked: true}
	t.l.t = defaultTermios()
	// No Hangup: the end of its session leaves a pty's files alone
	// (disassociate_ctty), unlike other terminals'.
	t.term.Owner = t
	return t, &Master{t: t}
}

// Index is N of /dev/pts/N.
func (t *TTY) Index() uint32 { return t.index }

// Terminal is the kernel's part of the terminal.
func (t *TTY) Terminal() *kernel.Terminal { return &t.term }

const (
	evIn  = wait.Events(abi.EPOLLIN | abi.EPOLLRDNORM)
	evOut = wait.Events(abi.EPOLLOUT | abi.EPOLLWRNORM)
	evHup = wait.Events(abi.EPOLLHUP)
	evErr = wait.Events(abi.EPOLLERR)
	evPri = wait.Events(abi.EPOLLPRI)
)

// after sends the signals and wake-ups that work under the lock has caused.
func (t *TTY) after(signals []int32) {
	for _, s := range signals {
		t.signal(s)
	}
	t.masterQueue.Notify(evIn | evOut | evPri)
	t.slaveQueue.Notify(evIn | evOut)
}

func (t *TTY) signal(sig int32) {
	if t.k != nil {
		t.k.SignalForeground(&t.term, sig)
	}
}

// takeSignals returns the signals to send. t.mu must be held.
func (t *TTY) takeSignals() []int32 {
	s := t.l.signals
	t.l.signals = nil
	return s
}

// Open opens the slave: it is what opening /dev/pts/N or /dev/tty does.
func (t *TTY) Open(ctx vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	t.mu.Lock()
	if t.masterClosed || t.locked {
		t.mu.Unlock()
		return nil, abi.EIO
	}
	if t.exclusive && !ctx.Cred().Can(abi.CAP_SYS_ADMIN) {
		t.mu.Unlock()
		return nil, abi.EBUSY
	}
	t.slaves++
	t.slaveSeen = true
	s := &Slave{t: t, generation: t.generation}
	t.mu.Unlock()
	if task, ok := ctx.(*kernel.Task); ok && flags&abi.O_NOCTTY == 0 {
		task.AcquireTerminal(&t.term)
	}
	return s, nil
}

// hangup ends all open slave files: reads give end of file from now on
// (__tty_hangup).
func (t *TTY) hangup() {
	t.mu.Lock()
	t.generation++
	t.slaves = 0
	t.l.flushInput()
	t.l.t = defaultTermios()
	t.exclusive = false
	t.mu.Unlock()
	t.slaveQueue.Notify(evIn | evOut | evHup | evErr)
	t.masterQueue.Notify(evIn | evOut | evHup)
}

// block sleeps on q until try succeeds; try is called with t.mu held.
func (t *TTY) block(ctx wait.Blocker, q *wait.Queue, mask wait.Events, nonblock bool, try func() error) error {
	t.mu.Lock()
	err := try()
	t.mu.Unlock()
	if err != abi.EAGAIN || nonblock {
		return err
	}
	s := wait.NewSleeper()
	q.Add(&s.Waiter, mask|evHup|evErr)
	for {
		t.mu.Lock()
		err = try()
		t.mu.Unlock()
		if err != abi.EAGAIN {
			break
		}
		if err = ctx.Block(s.C); err != nil {
			break
		}
	}
	q.Remove(&s.Waiter)
	s.Free()
	return err
}

// A Master is the open master side.
type Master struct {
	vfs.FileDefaults
	t *TTY
}

// TTY is the pseudoterminal.
func (m *Master) TTY() *TTY { return m.t }

// BlocksItself says that Read and Write sleep themselves.
func (m *Master) BlocksItself() {}

// Stream implements vfs.FileOps.
func (m *Master) Stream() bool { return true }

// Read takes what the slave has written, and echo.
func (m *Master) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	t := m.t
	if dst.Len() == 0 {
		return 0, nil
	}
	n := 0
	err := t.block(ctx, &t.masterQueue, evIn|evPri, f.Nonblocking() || fl&abi.RWF_NOWAIT != 0, func() error {
		l := &t.l
		if t.packetMode {
			if l.packet != 0 {
				b := [1]byte{l.packet}
				l.packet = 0
				var err error
				n, err = dst.Write(b[:])
				return err
			}
			if len(l.out) > 0 && !l.stopped {
				b := [1]byte{abi.TIOCPKT_DATA}
				k, err := dst.Write(b[:])
				if err != nil {
					return err
				}
				n = k
			}
		}
		if len(l.out) > 0 {
			want := min(len(l.out), dst.Len())
			got, err := dst.Write(l.out[:want])
			l.out = l.out[:copy(l.out, l.out[got:])]
			n += got
			if n > 0 {
				err = nil
			}
			return err
		}
		if t.slaves == 0 && t.slaveSeen {
			return abi.EIO
		}
		return abi.EAGAIN
	})
	if err != nil {
		return 0, err
	}
	t.slaveQueue.Notify(evOut)
	return int64(n), nil
}

// Write is typing at the terminal.
func (m *Master) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	t := m.t
	done := int64(0)
	var buf [256]byte
	for src.Len() > 0 {
		var signals []int32
		err := t.block(ctx, &t.masterQueue, evOut, f.Nonblocking() || fl&abi.RWF_NOWAIT != 0, func() error {
			room := t.l.room()
			if room == 0 {
				return abi.EAGAIN
			}
			n, err := src.Read(buf[:min(room, src.Len(), len(buf))])
			for _, c := range buf[:n] {
				t.l.receive(c)
			}
			done += int64(n)
			signals = t.takeSignals()
			return err
		})
		t.after(signals)
		if err != nil {
			if done > 0 {
				err = nil
			}
			return done, done, err
		}
	}
	return done, done, nil
}

// Readiness implements vfs.FileOps.
func (m *Master) Readiness(mask wait.Events) wait.Events {
	t := m.t
	t.mu.Lock()
	defer t.mu.Unlock()
	var ev wait.Events
	if len(t.l.out) > 0 {
		ev |= evIn
	}
	if t.packetMode && t.l.packet != 0 {
		ev |= evPri | evIn
	}
	if t.slaves == 0 && t.slaveSeen {
		ev |= evHup
	}
	if t.l.room() > 0 {
		ev |= evOut
	}
	return ev & (mask | evHup | evErr)
}

// EventRegister implements vfs.FileOps.
func (m *Master) EventRegister(w *wait.Waiter, mask wait.Events) {
	m.t.masterQueue.Add(w, mask|evHup|evErr)
}

// EventUnregister implements vfs.FileOps.
func (m *Master) EventUnregister(w *wait.Waiter) { m.t.masterQueue.Remove(w) }

// Release hangs the slave up: SIGHUP for the session that it controls.
func (m *Master) Release(*vfs.File) {
	t := m.t
	t.mu.Lock()
	t.masterClosed = true
	t.mu.Unlock()
	if t.k != nil {
		t.k.HangupTerminal(&t.term)
	}
	t.hangup()
	if t.closed != nil {
		t.closed()
	}
}

// A Slave is an open slave side.
type Slave struct {
	vfs.FileDefaults
	t          *TTY
	generation int
}

// TTY is the pseudoterminal.
func (s *Slave) TTY() *TTY { return s.t }

// BlocksItself says that Read and Write sleep themselves.
func (s *Slave) BlocksItself() {}

// Stream implements vfs.FileOps.
func (s *Slave) Stream() bool { return true }

// hung reports whether the file was hung up. t.mu must be held.
func (s *Slave) hung() bool { return s.generation != s.t.generation }

// Read implements vfs.FileOps (n_tty_read).
func (s *Slave) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	t := s.t
	t.mu.Lock()
	hung := s.hung()
	t.mu.Unlock()
	if hung {
		return 0, nil
	}
	if dst.Len() == 0 {
		return 0, nil
	}
	task, _ := ctx.(*kernel.Task)
	nonblock := f.Nonblocking() || fl&abi.RWF_NOWAIT != 0
	var buf [inputSize]byte
	total := 0
	deadline := int64(0) // of VTIME
	w := wait.NewSleeper()
	t.slaveQueue.Add(&w.Waiter, evIn|evHup|evErr)
	defer func() {
		t.slaveQueue.Remove(&w.Waiter)
		w.Free()
	}()
	for {
		if task != nil {
			// Linux looks once, before it waits; a reader that is moved to the
			// background while it sleeps is caught when it reads again.
			if total == 0 && deadline == 0 {
				if err := task.CheckTerminalRead(&t.term); err != nil {
					return 0, err
				}
			}
		}
		t.mu.Lock()
		if s.hung() {
			t.mu.Unlock()
			return int64(total), nil
		}
		canonical := t.l.lflag(abi.ICANON)
		vmin, vtime := int(t.l.t.CC[abi.VMIN]), int64(t.l.t.CC[abi.VTIME])*1e8
		ready := t.l.available(false)
		n, done := t.l.take(buf[:min(len(buf), dst.Len())])
		closed := t.masterClosed
		t.mu.Unlock()
		if ready {
			t.masterQueue.Notify(evOut) // there is room to type
		}
		if n > 0 {
			got, err := dst.Write(buf[:n])
			total += got
			if err != nil {
				if total > 0 {
					err = nil
				}
				return int64(total), err
			}
		}
		switch {
		case canonical && ready:
			if done || dst.Len() == 0 {
				return int64(total), nil
			}
			continue
		case !canonical && (dst.Len() == 0 || total > 0 && total >= vmin):
			return int64(total), nil
		case closed:
			if total > 0 {
				return int64(total), nil
			}
			return 0, abi.EIO
		}
		// Nothing more yet: which wait is it? (termios(3), noncanonical mode)
		limit := int64(-1)
		if !canonical {
			switch {
			case vmin == 0 && vtime == 0:
				return int64(total), nil
			case vmin == 0:
				if deadline == 0 {
					deadline = wait.MonotonicNs() + vtime
				}
				limit = deadline
			case vtime > 0 && total > 0:
				limit = wait.MonotonicNs() + vtime // between bytes
			}
		}
		if nonblock {
			if total > 0 {
				return int64(total), nil
			}
			return 0, abi.EAGAIN
		}
		var err error
		if limit < 0 {
			err = ctx.Block(w.C)
		} else {
			err = ctx.BlockUntil(w.C, limit)
		}
		if err == abi.ETIMEDOUT {
			return int64(total), nil
		}
		if err != nil {
			if total > 0 {
				err = nil
			}
			return int64(total), err
		}
	}
}

// Write implements vfs.FileOps (n_tty_write).
func (s *Slave) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	t := s.t
	t.mu.Lock()
	hung, tostop := s.hung(), t.l.lflag(abi.TOSTOP)
	t.mu.Unlock()
	if hung {
		return 0, 0, abi.EIO
	}
	if task, ok := ctx.(*kernel.Task); ok && tostop {
		if err := task.CheckTerminalChange(&t.term); err != nil {
			return 0, 0, err
		}
	}
	done := int64(0)
	var buf [1024]byte
	for src.Len() > 0 {
		err := t.block(ctx, &t.slaveQueue, evOut, f.Nonblocking() || fl&abi.RWF_NOWAIT != 0, func() error {
			if s.hung() || t.masterClosed {
				return abi.EIO
			}
			if t.l.stopped || len(t.l.out) >= outputSize {
				return abi.EAGAIN
			}
			n, err := src.Read(buf[:min(len(buf), src.Len())])
			for _, c := range buf[:n] {
				t.l.process(c)
			}
			done += int64(n)
			return err
		})
		t.masterQueue.Notify(evIn)
		if err != nil {
			if done > 0 {
				err = nil
			}
			return done, done, err
		}
	}
	return done, done, nil
}

// Readiness implements vfs.FileOps (n_tty_poll).
func (s *Slave) Readiness(mask wait.Events) wait.Events {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.hung() {
		return (evIn | evOut | evErr | evHup) & (mask | evErr | evHup)
	}
	var ev wait.Events
	if t.l.available(true) {
		ev |= evIn
	}
	if t.masterClosed {
		ev |= evHup
	}
	if !t.l.stopped && len(t.l.out) < outputSize {
		ev |= evOut
	}
	return ev & (mask | evErr | evHup)
}

// EventRegister implements vfs.FileOps.
func (s *Slave) EventRegister(w *wait.Waiter, mask wait.Events) {
	s.t.slaveQueue.Add(w, mask|evHup|evErr)
}

// EventUnregister implements vfs.FileOps.
func (s *Slave) EventUnregister(w *wait.Waiter) { s.t.slaveQueue.Remove(w) }

// Release implements vfs.FileOps: the master sees the last one go.
func (s *Slave) Release(*vfs.File) {
	t := s.t
	t.mu.Lock()
	last := false
	if !s.hung() {
		t.slaves--
		last = t.slaves == 0
		if last {
			t.exclusive = false
		}
	}
	t.mu.Unlock()
	if last {
		t.masterQueue.Notify(evIn | evOut | evHup)
	}
}
