// Package control is the protocol between the runsc command line and the
// Sentry it started: messages in JSON, each after its length in four bytes, on
// a stream socket.
//
// It does not act on messages. The socket's end means that the other process
// is gone: the Sentry dies then, and the command line reports.
//
// Conn.mu guards writes and is a leaf.
package control

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Kinds of message, and who sends them.
const (
	// From the command line.
	Signal     = "signal"     // Signo to the guest: its foreground process group on a terminal, else its first process
	Continue   = "continue"   // the command line is in the foreground again (or stopped no more): SIGCONT to the guest
	Foreground = "foreground" // On: whether the terminal is ours now

	// From the Sentry.
	Started = "started" // the guest's first process runs
	Failed  = "failed"  // it could not be started: Text for people, Code to exit with
	Exited  = "exited"  // Status is a wait(2) status
	Stopped = "stopped" // the guest's first process was stopped by Signo
	Wants   = "wants"   // the guest wants the terminal while it is not ours: Signo is SIGTTIN or SIGTTOU
	Notice  = "notice"  // Text for the user, such as a lost Gofer
)

// A Message is one message; which fields count depends on Kind.
type Message struct {
	Kind   string
	Signo  int    `json:",omitempty"`
	Status int    `json:",omitempty"`
	Code   int    `json:",omitempty"`
	Text   string `json:",omitempty"`
	On     bool   `json:",omitempty"`
}

// maxMessage bounds what the other side can make us allocate.
const maxMessage = 64 << 10

// A Conn carries messages both ways.
type Conn struct {
	rw io.ReadWriteCloser

	mu sync.Mutex // serialises writes
}

// NewConn makes a Conn of a connected stream socket.
func NewConn(rw io.ReadWriteCloser) *Conn { return &Conn{rw: rw} }

// Send writes one message.
func (c *Conn) Send(m Message) error {
	if len(m.Text) > maxMessage/8 { // a byte takes at most six in JSON
		m.Text = m.Text[:maxMessage/8]
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a %s message: %w", m.Kind, err)
	}
	buf := make([]byte, 4+len(body))
	binary.LittleEndian.PutUint32(buf, uint32(len(body)))
	copy(buf[4:], body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.rw.Write(buf); err != nil {
		return fmt.Errorf("send a %s message: %w", m.Kind, err)
	}
	return nil
}

// Receive reads one message; io.EOF says that the other side is gone.
func (c *Conn) Receive() (Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return Message{}, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxMessage {
		return Message{}, fmt.Errorf("control message of %d bytes, at most %d are allowed", n, maxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.rw, body); err != nil {
		return Message{}, io.EOF
	}
	var m Message
	if err := json.Unmarshal(body, &m); err != nil {
		return Message{}, fmt.Errorf("control message: %w", err)
	}
	return m, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.rw.Close() }
