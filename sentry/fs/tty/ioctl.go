package tty

import (
	"encoding/binary"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// JobIoctl answers the job-control requests of ioctl_tty(2) for any terminal:
// TIOCSCTTY, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP and TIOCGSID. ok is false if cmd
// is none of them.
func JobIoctl(ctx vfs.Context, term *kernel.Terminal, cmd uint32, arg uint64) (ok bool, err error) {
	switch cmd {
	case abi.TIOCSCTTY, abi.TIOCNOTTY, abi.TIOCGPGRP, abi.TIOCSPGRP, abi.TIOCGSID:
	default:
		return false, nil
	}
	task, isTask := ctx.(*kernel.Task)
	if !isTask {
		return true, abi.ENOTTY
	}
	mem, at := ctx.Memory(), usermem.Addr(arg)
	switch cmd {
	case abi.TIOCSCTTY:
		return true, task.SetControllingTerminal(term, arg == 1)
	case abi.TIOCNOTTY:
		return true, task.ReleaseTerminal(term)
	case abi.TIOCGPGRP:
		v, err := task.TerminalForeground(term)
		if err != nil {
			return true, err
		}
		return true, usermem.CopyOutUint32(mem, at, uint32(v))
	case abi.TIOCSPGRP:
		v, err := usermem.CopyInUint32(mem, at)
		if err != nil {
			return true, err
		}
		return true, task.SetTerminalForeground(term, int32(v))
	}
	v, err := task.TerminalSession(term)
	if err != nil {
		return true, err
	}
	return true, usermem.CopyOutUint32(mem, at, uint32(v))
}

// Ioctl implements vfs.FileOps.
func (s *Slave) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	s.t.mu.Lock()
	hung := s.hung()
	s.t.mu.Unlock()
	if hung {
		if cmd == abi.TIOCSPGRP {
			return 0, abi.ENOTTY
		}
		return 0, abi.EIO
	}
	if ok, err := JobIoctl(ctx, &s.t.term, cmd, arg); ok {
		return 0, err
	}
	switch cmd {
	case abi.FIONREAD:
		s.t.mu.Lock()
		l := &s.t.l
		n := l.used()
		if l.lflag(abi.ICANON) {
			n = 0
			for i := l.tail; i != l.canon; i++ {
				if l.kind[i%inputSize] != eofMark {
					n++
				}
			}
		}
		s.t.mu.Unlock()
		return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(n))
	case abi.TIOCOUTQ:
		return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), 0)
	}
	return 0, s.t.ioctl(ctx, cmd, arg, false)
}

// Ioctl implements vfs.FileOps.
func (m *Master) Ioctl(ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	t := m.t
	mem, at := ctx.Memory(), usermem.Addr(arg)
	switch cmd {
	case abi.TIOCGPTN:
		return 0, usermem.CopyOutUint32(mem, at, t.index)
	case abi.TIOCSPTLCK:
		v, err := usermem.CopyInUint32(mem, at)
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		t.locked = v != 0
		t.mu.Unlock()
		return 0, nil
	case abi.TIOCGPTLCK:
		t.mu.Lock()
		v := t.locked
		t.mu.Unlock()
		return 0, copyOutBool(mem, at, v)
	case abi.TIOCPKT:
		v, err := usermem.CopyInUint32(mem, at)
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		if on := v != 0; on != t.packetMode {
			t.packetMode, t.l.packet = on, 0
		}
		t.mu.Unlock()
		return 0, nil
	case abi.TIOCGPKT:
		t.mu.Lock()
		v := t.packetMode
		t.mu.Unlock()
		return 0, copyOutBool(mem, at, v)
	case abi.TIOCSIG:
		if arg < 1 || arg > 64 || arg != abi.SIGINT && arg != abi.SIGQUIT && arg != abi.SIGTSTP {
			return 0, abi.EINVAL
		}
		t.signal(int32(arg))
		return 0, nil
	case abi.TIOCGPTPEER:
		return m.peer(ctx, uint32(arg))
	case abi.FIONREAD:
		t.mu.Lock()
		n := len(t.l.out)
		t.mu.Unlock()
		return 0, usermem.CopyOutUint32(mem, at, uint32(n))
	case abi.TIOCOUTQ:
		return 0, usermem.CopyOutUint32(mem, at, 0)
	case abi.TIOCGPGRP:
		// The master side asks for whatever runs there.
		if t.k == nil {
			return 0, abi.ENOTTY
		}
		return 0, usermem.CopyOutUint32(mem, at, uint32(t.k.ForegroundPGID(&t.term)))
	case abi.TIOCSCTTY, abi.TIOCNOTTY:
		return 0, abi.ENOTTY
	}
	if ok, err := JobIoctl(ctx, &t.term, cmd, arg); ok {
		return 0, err
	}
	return 0, t.ioctl(ctx, cmd, arg, true)
}

func copyOutBool(mem usermem.Memory, at usermem.Addr, v bool) error {
	if v {
		return usermem.CopyOutUint32(mem, at, 1)
	}
	return usermem.CopyOutUint32(mem, at, 0)
}

// peer is TIOCGPTPEER: it opens the slave without a name.
func (m *Master) peer(ctx vfs.Context, flags uint32) (uintptr, error) {
	task, ok := ctx.(*kernel.Task)
	if !ok || m.t.reopen == nil {
		return 0, abi.ENOTTY
	}
	f, err := m.t.reopen(ctx, flags)
	if err != nil {
		return 0, err
	}
	fd, err := task.FDTable().NewFD(f, 0, task.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE), flags&abi.O_CLOEXEC != 0)
	if err != nil {
		f.DecRef()
		return 0, err
	}
	return uintptr(fd), nil
}

// mayChange is tty_check_change: a background process that changes the terminal
// is stopped. The master's side is nobody's terminal.
func (t *TTY) mayChange(ctx vfs.Context, master bool) error {
	if task, ok := ctx.(*kernel.Task); ok && !master {
		return task.CheckTerminalChange(&t.term)
	}
	return nil
}

// ioctl does what both sides can do, always to the slave's line discipline.
func (t *TTY) ioctl(ctx vfs.Context, cmd uint32, arg uint64, master bool) error {
	mem, at := ctx.Memory(), usermem.Addr(arg)
	switch cmd {
	case abi.TCGETS, abi.TCGETS2:
		b := make([]byte, abi.SizeofTermios2)
		if cmd == abi.TCGETS {
			b = b[:abi.SizeofTermios]
		}
		t.mu.Lock()
		t.l.t.MarshalTo(b)
		t.mu.Unlock()
		_, err := mem.CopyOut(at, b)
		return err
	case abi.TCSETS, abi.TCSETSW, abi.TCSETSF:
		return t.setTermios(ctx, at, abi.SizeofTermios, cmd == abi.TCSETSF, master)
	case abi.TCSETS2, abi.TCSETSW2, abi.TCSETSF2:
		return t.setTermios(ctx, at, abi.SizeofTermios2, cmd == abi.TCSETSF2, master)
	case abi.TCGETA:
		var b [abi.SizeofTermio]byte
		t.mu.Lock()
		m := t.l.t
		t.mu.Unlock()
		for i, v := range [...]uint32{m.Iflag, m.Oflag, m.Cflag, m.Lflag} {
			binary.LittleEndian.PutUint16(b[2*i:], uint16(v))
		}
		b[8] = m.Line
		copy(b[9:17], m.CC[:8])
		_, err := mem.CopyOut(at, b[:])
		return err
	case abi.TCSETA, abi.TCSETAW, abi.TCSETAF:
		return t.setTermio(ctx, at, cmd == abi.TCSETAF, master)
	case abi.TIOCGWINSZ:
		var b [abi.SizeofWinsize]byte
		t.mu.Lock()
		t.size.MarshalTo(b[:])
		t.mu.Unlock()
		_, err := mem.CopyOut(at, b[:])
		return err
	case abi.TIOCSWINSZ:
		var b [abi.SizeofWinsize]byte
		if _, err := mem.CopyIn(at, b[:]); err != nil {
			return err
		}
		var w abi.Winsize
		w.UnmarshalFrom(b[:])
		t.mu.Lock()
		changed := w != t.size
		t.size = w
		t.mu.Unlock()
		if changed {
			t.signal(abi.SIGWINCH)
		}
		return nil
	case abi.TCFLSH:
		if err := t.mayChange(ctx, master); err != nil {
			return err
		}
		return t.flush(arg, master)
	case abi.TCXONC:
		if err := t.mayChange(ctx, master); err != nil {
			return err
		}
		return t.flow(arg)
	case abi.TCSBRK, abi.TCSBRKP, abi.TIOCSBRK, abi.TIOCCBRK:
		// Nothing to drain: what is written is with the master at once.
		return t.mayChange(ctx, master)
	case abi.TIOCGETD:
		return usermem.CopyOutUint32(mem, at, 0) // N_TTY
	case abi.TIOCSETD:
		v, err := usermem.CopyInUint32(mem, at)
		if err == nil && v != 0 {
			err = abi.EINVAL
		}
		return err
	case abi.TIOCEXCL, abi.TIOCNXCL:
		t.mu.Lock()
		t.exclusive = cmd == abi.TIOCEXCL
		t.mu.Unlock()
		return nil
	case abi.TIOCGEXCL:
		t.mu.Lock()
		v := t.exclusive
		t.mu.Unlock()
		return copyOutBool(mem, at, v)
	case abi.TIOCGDEV:
		major := uint32(136)
		if master {
			major = 128
		}
		return usermem.CopyOutUint32(mem, at, uint32(vfs.MakeDev(major, t.index)))
	case abi.TIOCSTI:
		return abi.EIO // as with the sysctl dev.tty.legacy_tiocsti=0
	case abi.TIOCCONS:
		return abi.EPERM
	case abi.TIOCVHANGUP:
		if !ctx.Cred().Can(abi.CAP_SYS_ADMIN) {
			return abi.EPERM
		}
		if t.k != nil {
			t.k.HangupTerminal(&t.term)
		}
		t.hangup()
		return nil
	case abi.TIOCMGET, abi.TIOCMSET, abi.TIOCMBIS, abi.TIOCMBIC:
		return abi.ENOTTY
	case abi.TIOCGSOFTCAR:
		t.mu.Lock()
		v := t.l.t.Cflag&abi.CLOCAL != 0
		t.mu.Unlock()
		return copyOutBool(mem, at, v)
	}
	return abi.ENOTTY
}

func (t *TTY) setTermios(ctx vfs.Context, at usermem.Addr, size int, flush, master bool) error {
	if err := t.mayChange(ctx, master); err != nil {
		return err
	}
	b := make([]byte, size)
	if _, err := ctx.Memory().CopyIn(at, b); err != nil {
		return err
	}
	t.mu.Lock()
	m := t.l.t
	m.UnmarshalFrom(b)
	if size == abi.SizeofTermios {
		if s, ok := speeds[m.Cflag&abi.CBAUD]; ok {
			m.Ispeed, m.Ospeed = s, s
		}
	}
	if flush {
		t.l.flushInput()
	}
	// A pty has eight bits and no parity (pty_set_termios).
	m.Cflag = m.Cflag&^(abi.CSIZE|abi.PARENB) | abi.CS8 | abi.CREAD
	t.l.setTermios(&m)
	t.mu.Unlock()
	t.after(nil)
	return nil
}

// setTermio is the same for the old struct termio.
func (t *TTY) setTermio(ctx vfs.Context, at usermem.Addr, flush, master bool) error {
	if err := t.mayChange(ctx, master); err != nil {
		return err
	}
	var b [abi.SizeofTermio]byte
	if _, err := ctx.Memory().CopyIn(at, b[:]); err != nil {
		return err
	}
	t.mu.Lock()
	m := t.l.t
	for i, p := range [...]*uint32{&m.Iflag, &m.Oflag, &m.Cflag, &m.Lflag} {
		*p = *p&^0xffff | uint32(binary.LittleEndian.Uint16(b[2*i:]))
	}
	m.Line = b[8]
	copy(m.CC[:8], b[9:17])
	if flush {
		t.l.flushInput()
	}
	t.l.setTermios(&m)
	t.mu.Unlock()
	t.after(nil)
	return nil
}

// speeds maps the classic baud codes to bits a second.
var speeds = map[uint32]uint32{
	abi.B0: 0, abi.B50: 50, abi.B75: 75, abi.B110: 110, abi.B134: 134, abi.B150: 150, abi.B200: 200, abi.B300: 300,
	abi.B600: 600, abi.B1200: 1200, abi.B1800: 1800, abi.B2400: 2400, abi.B4800: 4800, abi.B9600: 9600,
	abi.B19200: 19200, abi.B38400: 38400, abi.B57600: 57600, abi.B115200: 115200, abi.B230400: 230400,
}

// flush is tcflush(3). The master's input is the slave's output.
func (t *TTY) flush(which uint64, master bool) error {
	in, out := which == abi.TCIFLUSH || which == abi.TCIOFLUSH, which == abi.TCOFLUSH || which == abi.TCIOFLUSH
	if !in && !out {
		return abi.EINVAL
	}
	if master {
		in, out = out, in
	}
	t.mu.Lock()
	if in {
		t.l.flushInput()
	}
	if out {
		t.l.flushOutput()
	}
	t.mu.Unlock()
	t.after(nil)
	return nil
}

// flow is tcflow(3).
func (t *TTY) flow(which uint64) error {
	t.mu.Lock()
	switch which {
	case abi.TCOOFF:
		t.l.stop()
	case abi.TCOON:
		t.l.start()
	case abi.TCIOFF:
		if c := t.l.t.CC[abi.VSTOP]; c != 0 {
			t.l.emit(c)
		}
	case abi.TCION:
		if c := t.l.t.CC[abi.VSTART]; c != 0 {
			t.l.emit(c)
		}
	default:
		t.mu.Unlock()
		return abi.EINVAL
	}
	t.mu.Unlock()
	t.after(nil)
	return nil
}
