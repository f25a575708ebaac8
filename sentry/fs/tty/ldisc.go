// Package tty implements pseudoterminals: the N_TTY line discipline between a
// master and a slave, terminal ioctls, and job control (termios(3), pty(7),
// ioctl_tty(2)).
//
// It makes no names: devpts does. Sessions and foreground groups belong to
// package kernel (kernel.Terminal). Speeds and modem lines are stored only.
//
// Lock order: TTY.mu, then wait queues. Signals are sent with TTY.mu released:
// package kernel's locks come first.
package tty

import (
	"garrison/abi"
)

// inputSize is N_TTY_BUF_SIZE; outputSize how much the master may leave unread.
const (
	inputSize  = 4096
	outputSize = 65536
)

// Kinds of bytes in the input ring.
const (
	plain   = iota
	lineEnd // delivered, ends a line
	eofMark // not delivered, ends a line
)

// ldisc is the state of the line discipline. TTY.mu guards it.
type ldisc struct {
	t abi.Termios

	// The input ring: indexes only grow.
	data             [inputSize]byte
	kind             [inputSize]uint8
	tail, canon, end uint32 // canon: where the line being edited begins

	lnext    bool
	stopped  bool // ^S
	column   int
	canonCol int // column where the line being edited began

	out []byte // for the master to read
	// signals to send once the lock is released
	signals []int32
	packet  uint8 // TIOCPKT_* bits that the master has not seen
	// erasing is set while ECHOPRT shows erased characters backwards.
	erasing bool
}

// defaultTermios is tty_std_termios as ptys have it.
func defaultTermios() abi.Termios {
	t := abi.Termios{
		Iflag: abi.ICRNL | abi.IXON, Oflag: abi.OPOST | abi.ONLCR, Cflag: abi.B38400 | abi.CS8 | abi.CREAD,
		Lflag:  abi.ISIG | abi.ICANON | abi.ECHO | abi.ECHOE | abi.ECHOK | abi.ECHOCTL | abi.ECHOKE | abi.IEXTEN,
		Ispeed: 38400, Ospeed: 38400,
	}
	t.CC[abi.VINTR], t.CC[abi.VQUIT], t.CC[abi.VERASE], t.CC[abi.VKILL] = 3, 0x1c, 0x7f, 0x15
	t.CC[abi.VEOF], t.CC[abi.VMIN] = 4, 1
	t.CC[abi.VSTART], t.CC[abi.VSTOP], t.CC[abi.VSUSP] = 0x11, 0x13, 0x1a
	t.CC[abi.VREPRINT], t.CC[abi.VDISCARD], t.CC[abi.VWERASE], t.CC[abi.VLNEXT] = 0x12, 0x0f, 0x17, 0x16
	return t
}

func (l *ldisc) iflag(f uint32) bool { return l.t.Iflag&f != 0 }
func (l *ldisc) oflag(f uint32) bool { return l.t.Oflag&f != 0 }
func (l *ldisc) lflag(f uint32) bool { return l.t.Lflag&f != 0 }

// is reports whether c is special character i, which is not disabled.
func (l *ldisc) is(i int, c byte) bool { return l.t.CC[i] != 0 && l.t.CC[i] == c }

func (l *ldisc) used() int { return int(l.end - l.tail) }

// put appends a byte to the input; false if there is no room.
func (l *ldisc) put(c byte, kind uint8) bool {
	if l.used() >= inputSize {
		return false
	}
	l.data[l.end%inputSize], l.kind[l.end%inputSize] = c, kind
	l.end++
	return true
}

// room is how many input bytes can be taken now. In canonical mode a line that
// is too long takes bytes and loses them, unless complete lines wait.
func (l *ldisc) room() int {
	left := inputSize - 1 - l.used()
	if l.lflag(abi.ICANON) && l.canon == l.tail {
		return max(left, 1)
	}
	return max(left, 0)
}

// available reports whether a reader has something (input_available_p).
func (l *ldisc) available(poll bool) bool {
	if l.lflag(abi.ICANON) {
		return l.canon != l.tail
	}
	n := 1
	if poll && l.t.CC[abi.VTIME] == 0 && l.t.CC[abi.VMIN] > 0 {
		n = int(l.t.CC[abi.VMIN])
	}
	return l.used() >= n
}

// receive is what arrives from the master: n_tty_receive_buf for one byte.
func (l *ldisc) receive(c byte) {
	if l.iflag(abi.ISTRIP) {
		c &= 0x7f
	}
	if l.iflag(abi.IUCLC) && l.lflag(abi.IEXTEN) && c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	if l.lflag(abi.EXTPROC) {
		l.store(c)
		return
	}
	if l.lnext {
		l.lnext = false
		l.echo(c)
		l.store(c)
		return
	}
	if l.iflag(abi.IXON) {
		if l.is(abi.VSTART, c) {
			l.start()
			return
		}
		if l.is(abi.VSTOP, c) {
			l.stop()
			return
		}
	}
	if l.lflag(abi.ISIG) {
		sig := int32(0)
		switch {
		case l.is(abi.VINTR, c):
			sig = abi.SIGINT
		case l.is(abi.VQUIT, c):
			sig = abi.SIGQUIT
		case l.is(abi.VSUSP, c):
			sig = abi.SIGTSTP
		}
		if sig != 0 {
			l.signals = append(l.signals, sig)
			if !l.lflag(abi.NOFLSH) {
				l.flushInput()
				l.flushOutput()
			}
			if l.iflag(abi.IXON) {
				l.start()
			}
			l.echo(c)
			return
		}
	}
	if l.stopped && l.iflag(abi.IXON) && l.iflag(abi.IXANY) {
		l.start()
	}
	switch {
	case c == '\r':
		if l.iflag(abi.IGNCR) {
			return
		}
		if l.iflag(abi.ICRNL) {
			c = '\n'
		}
	case c == '\n' && l.iflag(abi.INLCR):
		c = '\r'
	}
	if l.lflag(abi.ICANON) && l.edit(c) {
		return
	}
	if l.end == l.canon {
		l.canonCol = l.column
	}
	l.echo(c)
	if c == 0xff && l.iflag(abi.PARMRK) {
		l.store(c)
	}
	l.store(c)
}

// store puts an ordinary byte; a full buffer rings the bell.
func (l *ldisc) store(c byte) {
	if l.lflag(abi.ICANON) && !l.lflag(abi.EXTPROC) && l.used() >= inputSize-1 {
		if l.iflag(abi.IMAXBEL) {
			l.emit('\a')
		}
		return // room is kept for the end of the line
	}
	l.put(c, plain)
	if !l.lflag(abi.ICANON) {
		l.canon = l.end
	}
}

// edit handles what canonical mode does with c; false if it is an ordinary byte.
func (l *ldisc) edit(c byte) bool {
	iexten := l.lflag(abi.IEXTEN)
	switch {
	case l.is(abi.VERASE, c), l.is(abi.VKILL, c), iexten && l.is(abi.VWERASE, c):
		l.erase(c)
		return true
	case iexten && l.is(abi.VLNEXT, c):
		l.lnext = true
		if l.lflag(abi.ECHO) {
			l.finishErasing()
			if l.lflag(abi.ECHOCTL) {
				l.emit('^')
				l.emit('\b')
			}
		}
		return true
	case iexten && l.lflag(abi.ECHO) && l.is(abi.VREPRINT, c):
		l.finishErasing()
		l.echo(c)
		l.process('\n')
		for i := l.canon; i != l.end; i++ {
			l.echo(l.data[i%inputSize])
		}
		return true
	case c == '\n':
		if l.lflag(abi.ECHO) || l.lflag(abi.ECHONL) {
			l.finishErasing()
			l.process('\n')
		}
		l.endLine(c, lineEnd)
		return true
	case l.is(abi.VEOF, c):
		l.endLine(0, eofMark)
		return true
	case l.is(abi.VEOL, c), iexten && l.is(abi.VEOL2, c):
		if l.lflag(abi.ECHO) {
			if l.end == l.canon {
				l.canonCol = l.column
			}
			l.echo(c)
		}
		if c == 0xff && l.iflag(abi.PARMRK) {
			l.put(c, plain)
		}
		l.endLine(c, lineEnd)
		return true
	}
	return false
}

// endLine makes the line that was edited readable.
func (l *ldisc) endLine(c byte, kind uint8) {
	if l.put(c, kind) {
		l.canon = l.end
	}
}

// echo shows a typed byte, if ECHO says so (echo_char).
func (l *ldisc) echo(c byte) {
	if !l.lflag(abi.ECHO) {
		return
	}
	l.finishErasing()
	if l.lflag(abi.ECHOCTL) && (c < ' ' && c != '\t' && c != '\n' || c == 0x7f) {
		l.process('^')
		l.process(c ^ 0x40)
		return
	}
	l.process(c)
}

func (l *ldisc) finishErasing() {
	if l.erasing {
		l.process('/')
		l.erasing = false
	}
}

func continuation(c byte) bool { return c&0xc0 == 0x80 }

func wordChar(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func control(c byte) bool { return c < ' ' || c == 0x7f }

// erase handles VERASE, VWERASE and VKILL (eraser).
func (l *ldisc) erase(c byte) {
	if l.end == l.canon {
		return
	}
	word, kill := false, false
	switch {
	case l.is(abi.VERASE, c):
	case l.is(abi.VWERASE, c) && l.lflag(abi.IEXTEN):
		word = true
	default:
		kill = true
		if !l.lflag(abi.ECHO) {
			l.end = l.canon
			return
		}
		if !l.lflag(abi.ECHOK) || !l.lflag(abi.ECHOKE) || !l.lflag(abi.ECHOE) {
			l.end = l.canon
			l.finishErasing()
			l.echo(l.t.CC[abi.VKILL])
			if l.lflag(abi.ECHOK) {
				l.process('\n')
			}
			return
		}
	}
	seenWord := false
	for l.end != l.canon {
		head := l.end
		var b byte
		for { // one character may be several bytes
			head--
			b = l.data[head%inputSize]
			if !l.iflag(abi.IUTF8) || !continuation(b) || head == l.canon {
				break
			}
		}
		if l.iflag(abi.IUTF8) && continuation(b) {
			break // a torn character: do not remove part of it
		}
		if word {
			if wordChar(b) {
				seenWord = true
			} else if seenWord {
				break
			}
		}
		n := l.end - head
		l.end = head
		if l.lflag(abi.ECHO) {
			l.unecho(b, head, n, word, kill)
		}
		if !word && !kill {
			break
		}
	}
	if l.end == l.canon && l.lflag(abi.ECHO) {
		l.finishErasing()
	}
}

// unecho takes the last character off the screen.
func (l *ldisc) unecho(b byte, head, n uint32, word, kill bool) {
	switch {
	case l.lflag(abi.ECHOPRT):
		if !l.erasing {
			l.process('\\')
			l.erasing = true
		}
		l.printErased(b)
		for i := uint32(1); i < n; i++ {
			l.emit(l.data[(head+i)%inputSize])
		}
	case !word && !kill && !l.lflag(abi.ECHOE):
		l.echo(l.t.CC[abi.VERASE])
	case b == '\t':
		// Find where the tab began: columns since the last tab or the start.
		col, afterTab := 0, false
		for t := head; t != l.canon; {
			t--
			x := l.data[t%inputSize]
			if x == '\t' {
				afterTab = true
				break
			}
			if control(x) {
				if l.lflag(abi.ECHOCTL) {
					col += 2
				}
			} else if !continuation(x) || !l.iflag(abi.IUTF8) {
				col++
			}
		}
		if !afterTab {
			col += l.canonCol
		}
		for i := 8 - col&7; i > 0; i-- {
			l.emit('\b')
			if l.column > 0 {
				l.column--
			}
		}
	default:
		wide := control(b) && l.lflag(abi.ECHOCTL)
		if wide {
			l.rubOut()
		}
		if !control(b) || wide {
			l.rubOut()
		}
	}
}

// printErased is echo for ECHOPRT, which must not end the erasing.
func (l *ldisc) printErased(b byte) {
	if l.lflag(abi.ECHOCTL) && control(b) && b != '\t' {
		l.process('^')
		b ^= 0x40
	}
	l.process(b)
}

func (l *ldisc) rubOut() {
	l.emit('\b')
	l.emit(' ')
	l.emit('\b')
	if l.column > 0 {
		l.column--
	}
}

// emit sends a byte to the master as it is. Echo may overrun the output limit
// a little: it is bounded by what the master writes.
func (l *ldisc) emit(c byte) {
	if len(l.out) < 2*outputSize {
		l.out = append(l.out, c)
	}
}

// process sends a byte through output processing (do_output_char).
func (l *ldisc) process(c byte) {
	if !l.oflag(abi.OPOST) {
		l.emit(c)
		return
	}
	switch c {
	case '\n':
		if l.oflag(abi.ONLRET) {
			l.column = 0
		}
		if l.oflag(abi.ONLCR) {
			l.column, l.canonCol = 0, 0
			l.emit('\r')
		} else {
			l.canonCol = l.column
		}
	case '\r':
		if l.oflag(abi.ONOCR) && l.column == 0 {
			return
		}
		if l.oflag(abi.OCRNL) {
			c = '\n'
			if l.oflag(abi.ONLRET) {
				l.column, l.canonCol = 0, 0
			}
			break
		}
		l.column, l.canonCol = 0, 0
	case '\t':
		n := 8 - l.column&7
		l.column += n
		if l.t.Oflag&abi.TABDLY == abi.XTABS {
			for ; n > 0; n-- {
				l.emit(' ')
			}
			return
		}
	case '\b':
		if l.column > 0 {
			l.column--
		}
	default:
		if !control(c) {
			if l.oflag(abi.OLCUC) && c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			if !(l.iflag(abi.IUTF8) && continuation(c)) {
				l.column++
			}
		}
	}
	l.emit(c)
}

func (l *ldisc) stop() {
	if !l.stopped {
		l.stopped = true
		l.notePacket(abi.TIOCPKT_STOP, abi.TIOCPKT_START)
	}
}

func (l *ldisc) start() {
	if l.stopped {
		l.stopped = false
		l.notePacket(abi.TIOCPKT_START, abi.TIOCPKT_STOP)
	}
}

func (l *ldisc) notePacket(set, clear uint8) { l.packet = l.packet&^clear | set }

func (l *ldisc) flushInput() {
	l.tail, l.canon = l.end, l.end
	l.lnext, l.erasing = false, false
	l.notePacket(abi.TIOCPKT_FLUSHREAD, 0)
}

func (l *ldisc) flushOutput() {
	l.out = l.out[:0]
	l.notePacket(abi.TIOCPKT_FLUSHWRITE, 0)
}

// take copies input to p as read(2) does; done reports that a canonical read is
// complete (the end of the line was met).
func (l *ldisc) take(p []byte) (n int, done bool) {
	canonical := l.lflag(abi.ICANON)
	limit := l.end
	if canonical {
		limit = l.canon
	}
	for l.tail != limit {
		k := l.kind[l.tail%inputSize]
		if canonical && k == eofMark {
			l.tail++
			return n, true
		}
		if n == len(p) {
			return n, true
		}
		c := l.data[l.tail%inputSize]
		l.tail++
		if k == eofMark { // became raw meanwhile
			c = 0
		}
		p[n] = c
		n++
		if canonical && k == lineEnd {
			return n, true
		}
	}
	return n, n == len(p)
}

// setTermios changes the modes (n_tty_set_termios).
func (l *ldisc) setTermios(t *abi.Termios) {
	wasCanon := l.lflag(abi.ICANON)
	old := l.t
	l.t = *t
	if wasCanon != l.lflag(abi.ICANON) {
		l.lnext, l.erasing = false, false
		if wasCanon { // what was being edited can be read
			l.canon = l.end
		} else if l.used() > 0 { // as if a line ended here
			for i := l.tail; i != l.end; i++ {
				l.kind[i%inputSize] = plain
			}
			l.kind[(l.end-1)%inputSize] = lineEnd
			l.canon = l.end
		}
	}
	if !l.iflag(abi.IXON) {
		if old.Iflag&abi.IXON != 0 {
			l.start()
		}
	}
	flow := func(t *abi.Termios) bool {
		return t.Iflag&abi.IXON != 0 && t.CC[abi.VSTOP] == 0x13 && t.CC[abi.VSTART] == 0x11
	}
	if was, is := flow(&old), flow(t); was != is {
		if is {
			l.notePacket(abi.TIOCPKT_DOSTOP, abi.TIOCPKT_NOSTOP)
		} else {
			l.notePacket(abi.TIOCPKT_NOSTOP, abi.TIOCPKT_DOSTOP)
		}
	}
}
