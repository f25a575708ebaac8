// Package goferwire is what the Gofer and its client in the Sentry agree on
// beside 9P2000.L itself: a connection that sends and receives one 9P message
// per system call, the list of 9P messages in use, and the descriptor channel,
// a second socket for what 9P has no message for (host file descriptors, full
// mode bits, extended attributes, bulk directory reads).
//
// It decides nothing about files: the server's checks are in package gofer, the
// client's caches in sentry/fs/gofer. Decoders accept any bytes and answer with
// an error, never with a panic.
//
// Lock order: Conn has no lock but the one that guards closing; package p9
// serialises its readers and its writers.
package goferwire

import (
	"encoding/binary"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MessageSize is the 9P message size that both sides use: no data goes over 9P,
// so it bounds a path of many components and nothing else.
const MessageSize = 64 << 10

// 9P message types (Linux: include/net/9p/9p.h). Walkgetattr and the creating
// messages with a user id are the .Google extension that package p9 speaks.
const (
	tStatfs      = 8
	tLopen       = 12
	tSymlink     = 16
	tMknod       = 18
	tReadlink    = 22
	tGetattr     = 24
	tSetattr     = 26
	tReaddir     = 40
	tFsync       = 50
	tLink        = 70
	tMkdir       = 72
	tRenameat    = 74
	tUnlinkat    = 76
	tVersion     = 100
	tAttach      = 104
	tWalk        = 110
	tClunk       = 120
	tWalkgetattr = 126
	tUmkdir      = 130
	tUmknod      = 132
	tUsymlink    = 134
)

// ServedMessage reports whether the server takes a 9P message of type t. What
// is not listed never reaches the 9P library: data and extended attributes go
// over the descriptor channel, so reads, writes, locks and the rest are
// nothing but surface for an attacker. (A Tflush that names itself would make its
// handler wait for ever.)
func ServedMessage(t uint8) bool {
	switch t {
	case tStatfs, tLopen, tSymlink, tMknod, tReadlink, tGetattr, tSetattr, tReaddir, tFsync, tLink, tMkdir,
		tRenameat, tUnlinkat, tAttach, tWalk, tClunk, tWalkgetattr, tUmkdir, tUmknod, tUsymlink:
		return true
	}
	return false
}

const (
	headerLen = 7 // size[4] type[1] tag[2]
	noMessage = 0 // a type that no 9P dialect has: the library answers with an error
)

// A Conn is one end of the 9P socket, a blocking stream socket. It is an
// io.ReadWriteCloser for package p9 that reads ahead and holds a message back
// until it is whole: p9 writes header and body apart, which would cost a
// system call and a wake-up of the peer each.
//
// A blocking read, and not Go's poller, because a wake-up through the poller
// passes two threads.
type Conn struct {
	f    *os.File
	fd   int
	dead atomic.Bool
	sent atomic.Int64

	// OnDead is called once, when the peer is gone. Set it before use.
	OnDead func()
	server bool

	rbuf  []byte
	r, w  int  // rbuf[r:w] is unread
	left  int  // bytes of the current message not yet returned
	begun bool // a version message has passed

	wbuf []byte

	mu     sync.Mutex
	closed bool
}

// NewConn takes over f, a stream socket. For the server's end the connection
// lets only ServedMessage types pass, and Tversion only as the first message:
// the library renegotiates without a lock.
func NewConn(f *os.File, server bool) *Conn {
	fd := int(f.Fd())
	unix.SetNonblock(fd, false)
	return &Conn{f: f, fd: fd, server: server, rbuf: make([]byte, MessageSize)}
}

// Read implements io.Reader. It never crosses the end of a 9P message.
func (c *Conn) Read(p []byte) (int, error) {
	if c.left == 0 {
		for c.w-c.r < headerLen {
			if err := c.fill(); err != nil {
				return 0, err
			}
		}
		if c.server {
			c.guard(c.rbuf[c.r:])
		}
		c.left = max(headerLen, int(binary.LittleEndian.Uint32(c.rbuf[c.r:])))
	}
	if c.r == c.w {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p[:min(len(p), c.left)], c.rbuf[c.r:c.w])
	c.r += n
	c.left -= n
	return n, nil
}

// guard turns a message that is not served into one that is in no dialect.
func (c *Conn) guard(h []byte) {
	if t := h[4]; t == tVersion && !c.begun {
		c.begun = true
	} else if !ServedMessage(t) || !c.begun {
		h[4] = noMessage
	}
}

// fill reads more bytes, at least one.
func (c *Conn) fill() error {
	if c.r > 0 {
		copy(c.rbuf, c.rbuf[c.r:c.w])
		c.w -= c.r
		c.r = 0
	}
	for {
		n, err := unix.Read(c.fd, c.rbuf[c.w:])
		switch {
		case err == unix.EINTR:
		case err != nil || n <= 0:
			c.fail()
			if c.server {
				// Package p9 waits for its handlers by a WaitGroup that each of
				// them joins only when it starts: let those start that it has made.
				time.Sleep(2 * time.Millisecond)
			}
			return io.EOF
		default:
			c.w += n
			return nil
		}
	}
}

// Write implements io.Writer. It reports no error: when the peer is gone the
// reader finds out, and package p9 fails all calls cleanly from there only.
func (c *Conn) Write(p []byte) (int, error) {
	c.wbuf = append(c.wbuf, p...)
	if len(c.wbuf) < headerLen || len(c.wbuf) < int(binary.LittleEndian.Uint32(c.wbuf)) {
		return len(p), nil
	}
	c.sent.Add(1)
	out := c.wbuf
	for len(out) > 0 && !c.dead.Load() {
		n, err := unix.SendmsgN(c.fd, out, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			c.fail()
			break
		}
		out = out[n:]
	}
	c.wbuf = c.wbuf[:0]
	return len(p), nil
}

// Sent is how many messages were sent.
func (c *Conn) Sent() int64 { return c.sent.Load() }

// Dead reports whether the peer is gone.
func (c *Conn) Dead() bool { return c.dead.Load() }

func (c *Conn) fail() {
	if c.dead.Swap(true) {
		return
	}
	c.shutdown()
	if c.OnDead != nil {
		c.OnDead()
	}
}

func (c *Conn) shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
}

// Hangup makes both directions end, from any goroutine; the reader finds out.
func (c *Conn) Hangup() {
	c.dead.Store(true)
	c.shutdown()
}

// Close ends the connection. The server closes the descriptor: no reader is left
// when package p9 calls this. The client only shuts the socket down, because a
// reader may still be inside a system call.
func (c *Conn) Close() error {
	c.Hangup()
	if c.server {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			c.closed = true
			return c.f.Close()
		}
	}
	return nil
}
