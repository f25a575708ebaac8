package host

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// A TTY is the user's terminal, which is the guest's controlling terminal too.
// The host keeps its modes and its line discipline; sessions and the foreground
// process group are the guest's own.
type TTY struct {
	kernel.Terminal
	i *Inode

	// Wants is called when the guest needs the terminal while the command line
	// is in the background of the user's shell: SIGTTIN to read, SIGTTOU to
	// change modes. The guest waits until SetFront(true).
	Wants func(sig int)

	front  atomic.Bool
	tostop atomic.Bool // TOSTOP as last seen

	mu   sync.Mutex // serialises Wants
	told int        // signal that the command line was told of, 0 for none
}

// NewTTY makes the terminal of a descriptor, which it takes over.
func NewTTY(s Source, front bool) (*TTY, *vfs.File, error) {
	i, flags, err := newInode(s)
	if err != nil {
		return nil, nil, err
	}
	t := &TTY{i: i}
	t.Owner = t
	t.front.Store(front)
	i.tty = t
	return t, t.file(flags), nil
}

// Another makes a further open file description of the same terminal, for a
// standard stream that was opened apart.
func (t *TTY) Another(s Source) (*vfs.File, error) {
	i, flags, err := newInode(s)
	if err != nil {
		return nil, err
	}
	i.tty = t
	return vfs.NewAnonFile(&ttyFile{file{i: i, shared: true}}, flags, i.name), nil
}

func (t *TTY) file(flags uint32) *vfs.File {
	return vfs.NewAnonFile(&ttyFile{file{i: t.i, shared: true}}, flags, t.i.name)
}

// Inode is the terminal's node.
func (t *TTY) Inode() *Inode { return t.i }

// SetFront says whether the command line is in the foreground of its terminal.
func (t *TTY) SetFront(on bool) {
	t.front.Store(on)
	t.mu.Lock()
	t.told = 0
	t.mu.Unlock()
	t.i.queue.Notify(abi.EPOLLIN | abi.EPOLLOUT)
}

// Open implements what opening /dev/tty does: another description of this terminal.
func (t *TTY) Open(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	return t.i.Open(ctx, d, flags)
}

// acquire makes the terminal the controlling one of a session leader without any.
func (t *TTY) acquire(ctx vfs.Context, flags uint32) {
	if task, ok := ctx.(*kernel.Task); ok && flags&abi.O_NOCTTY == 0 {
		task.AcquireTerminal(&t.Terminal)
	}
}

// mayUse sleeps while the command line is in the background.
func (t *TTY) mayUse(ctx vfs.Context, f *ttyFile, sig int) error {
	if t.front.Load() {
		return nil
	}
	return vfs.BlockingRetry(ctx, f, abi.EPOLLIN|abi.EPOLLOUT, func() error {
		if t.front.Load() {
			return nil
		}
		t.mu.Lock()
		tell := t.told == 0
		t.told = sig
		t.mu.Unlock()
		if tell && t.Wants != nil {
			t.Wants(sig)
		}
		return abi.EAGAIN
	})
}

// ttyFile is an open file of a terminal.
type ttyFile struct{ file }

// Stream implements vfs.FileOps.
func (f *ttyFile) Stream() bool { return true }

// OwnsPosition implements vfs.PositionOwner.
func (f *ttyFile) OwnsPosition() bool { return false }

// Read implements vfs.FileOps.
func (f *ttyFile) Read(ctx vfs.Context, vf *vfs.File, dst *usermem.Buffer, off int64, fl vfs.IOFlags) (int64, error) {
	t := f.i.tty
	if task, ok := ctx.(*kernel.Task); ok {
		if err := task.CheckTerminalRead(&t.Terminal); err != nil {
			return 0, err
		}
	}
	if !vf.Nonblocking() {
		if err := t.mayUse(ctx, f, abi.SIGTTIN); err != nil {
			return 0, err
		}
	} else if !t.front.Load() {
		return 0, abi.EAGAIN
	}
	return f.file.Read(ctx, vf, dst, off, fl)
}

// Write implements vfs.FileOps.
func (f *ttyFile) Write(ctx vfs.Context, vf *vfs.File, src *usermem.Buffer, off int64, fl vfs.IOFlags) (int64, int64, error) {
	t := f.i.tty
	if task, ok := ctx.(*kernel.Task); ok && t.tostop.Load() {
		if err := task.CheckTerminalChange(&t.Terminal); err != nil {
			return 0, 0, err
		}
	}
	return f.file.Write(ctx, vf, src, off, fl)
}

// Sizes of struct termios and termios2 (asm-generic/termbits.h).
const (
	termiosSize  = 36
	termios2Size = 44
)

// Ioctl implements vfs.FileOps (ioctl_tty(2)). Only requests whose arguments we
// rebuild reach the host; what types for others (TIOCSTI) or takes the terminal
// away from the user does not.
func (f *ttyFile) Ioctl(ctx vfs.Context, vf *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	t, fd, addr := f.i.tty, f.i.fd, usermem.Addr(arg)
	task, _ := ctx.(*kernel.Task)
	switch cmd {
	case abi.TCGETS, abi.TCGETS2:
		m, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err != nil {
			return 0, abi.FromHost(err)
		}
		t.tostop.Store(m.Lflag&unix.TOSTOP != 0)
		b := encodeTermios(m)
		if cmd == abi.TCGETS {
			b = b[:termiosSize]
		}
		_, err = ctx.Memory().CopyOut(addr, b)
		return 0, err
	case abi.TCSETS, abi.TCSETSW, abi.TCSETSF, abi.TCSETS2, abi.TCSETSW2, abi.TCSETSF2:
		return 0, f.setTermios(ctx, task, cmd, addr)
	case abi.TIOCGWINSZ:
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err != nil {
			return 0, abi.FromHost(err)
		}
		var b [8]byte
		for i, v := range []uint16{w.Row, w.Col, w.Xpixel, w.Ypixel} {
			binary.LittleEndian.PutUint16(b[2*i:], v)
		}
		_, err = ctx.Memory().CopyOut(addr, b[:])
		return 0, err
	case abi.TIOCSWINSZ:
		var b [8]byte
		if _, err := ctx.Memory().CopyIn(addr, b[:]); err != nil {
			return 0, err
		}
		le := binary.LittleEndian
		// The host tells the command line (SIGWINCH), which tells the guest.
		return 0, abi.FromHost(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{
			Row: le.Uint16(b[0:]), Col: le.Uint16(b[2:]), Xpixel: le.Uint16(b[4:]), Ypixel: le.Uint16(b[6:])}))
	case abi.TIOCOUTQ:
		n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
		if err != nil {
			return 0, abi.FromHost(err)
		}
		return 0, usermem.CopyOutUint32(ctx.Memory(), addr, uint32(n))
	case abi.TCFLSH, abi.TCXONC, abi.TCSBRK, abi.TCSBRKP:
		if arg > 3 && cmd != abi.TCSBRK && cmd != abi.TCSBRKP {
			return 0, abi.EINVAL
		}
		if err := f.mayChange(ctx, task); err != nil {
			return 0, err
		}
		if cmd == abi.TCSBRKP {
			cmd = abi.TCSBRK
		}
		return 0, abi.FromHost(unix.IoctlSetInt(fd, uint(cmd), int(int32(arg))))
	case abi.TIOCGPGRP, abi.TIOCSPGRP, abi.TIOCGSID, abi.TIOCSCTTY, abi.TIOCNOTTY:
		if task == nil {
			return 0, abi.ENOTTY
		}
		return 0, t.jobIoctl(task, cmd, addr, arg)
	case abi.TIOCSTI:
		return 0, abi.EIO // as with the sysctl dev.tty.legacy_tiocsti=0
	}
	return f.file.Ioctl(ctx, vf, cmd, arg)
}

// mayChange is the check before the terminal's state is changed.
func (f *ttyFile) mayChange(ctx vfs.Context, task *kernel.Task) error {
	if task != nil {
		if err := task.CheckTerminalChange(&f.i.tty.Terminal); err != nil {
			return err
		}
	}
	return f.i.tty.mayUse(ctx, f, abi.SIGTTOU)
}

func (f *ttyFile) setTermios(ctx vfs.Context, task *kernel.Task, cmd uint32, addr usermem.Addr) error {
	if err := f.mayChange(ctx, task); err != nil {
		return err
	}
	// What the guest's struct lacks (the speeds) stays.
	m, err := unix.IoctlGetTermios(f.i.fd, unix.TCGETS2)
	if err != nil {
		return abi.FromHost(err)
	}
	b := encodeTermios(m)
	req := uint(cmd)
	switch cmd {
	case abi.TCSETS, abi.TCSETSW, abi.TCSETSF:
		b = b[:termiosSize]
	case abi.TCSETS2:
		req = unix.TCSETS
	case abi.TCSETSW2:
		req = unix.TCSETSW
	case abi.TCSETSF2:
		req = unix.TCSETSF
	}
	if _, err := ctx.Memory().CopyIn(addr, b); err != nil {
		return err
	}
	decodeTermios(b, m)
	f.i.tty.tostop.Store(m.Lflag&unix.TOSTOP != 0)
	return abi.FromHost(unix.IoctlSetTermios(f.i.fd, req, m))
}

func encodeTermios(m *unix.Termios) []byte {
	b := make([]byte, termios2Size)
	le := binary.LittleEndian
	le.PutUint32(b[0:], m.Iflag)
	le.PutUint32(b[4:], m.Oflag)
	le.PutUint32(b[8:], m.Cflag)
	le.PutUint32(b[12:], m.Lflag)
	b[16] = m.Line
	copy(b[17:36], m.Cc[:])
	le.PutUint32(b[36:], m.Ispeed)
	le.PutUint32(b[40:], m.Ospeed)
	return b
}

func decodeTermios(b []byte, m *unix.Termios) {
	le := binary.LittleEndian
	m.Iflag, m.Oflag, m.Cflag, m.Lflag = le.Uint32(b[0:]), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])
	m.Line = b[16]
	copy(m.Cc[:], b[17:36])
	if len(b) == termios2Size {
		m.Ispeed, m.Ospeed = le.Uint32(b[36:]), le.Uint32(b[40:])
	}
}

// jobIoctl answers the requests about sessions and process groups.
func (t *TTY) jobIoctl(task *kernel.Task, cmd uint32, addr usermem.Addr, arg uint64) error {
	mem := task.Memory()
	switch cmd {
	case abi.TIOCGPGRP:
		id, err := task.TerminalForeground(&t.Terminal)
		if err != nil {
			return err
		}
		return usermem.CopyOutUint32(mem, addr, uint32(id))
	case abi.TIOCGSID:
		id, err := task.TerminalSession(&t.Terminal)
		if err != nil {
			return err
		}
		return usermem.CopyOutUint32(mem, addr, uint32(id))
	case abi.TIOCSPGRP:
		id, err := usermem.CopyInUint32(mem, addr)
		if err != nil {
			return err
		}
		return task.SetTerminalForeground(&t.Terminal, int32(id))
	case abi.TIOCSCTTY:
		return task.SetControllingTerminal(&t.Terminal, arg == 1)
	}
	return task.ReleaseTerminal(&t.Terminal)
}
