// Package gofer is the client of the Gofer: a file system of the host's files,
// brokered by another process. Names and metadata come over 9P, regular files'
// data over donated host descriptors, without any message.
//
// It does not check permissions (the VFS does, with the guest's credentials; the
// Gofer does again, with its own) and opens no host file by itself. In exclusive
// mode it believes that nobody else changes the files and caches attributes,
// links, listings and absent names; in shared mode it asks again. When the Gofer
// is gone, every call fails with EIO at once.
//
// Lock order: the VFS's directory locks > inode.ioMu > resource.mu (children
// before their directories) > FS.mu > Client.lruMu; inode.mu and mappings' lock
// are leaves. Client.descMu is held over one exchange on the descriptor channel
// and below all but FS.mu, Client.lruMu and inode.mu, under which no message is sent.
package gofer

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/goferwire"
)

// Limits on what a client keeps open at the server and here. Files beyond them
// that are not in use lose their fid or descriptor and get it back when needed.
const (
	maxFids    = 4096
	maxIdleFDs = 512
)

// A Client is the connection to one Gofer, which serves several mounts.
type Client struct {
	conn *goferwire.Conn
	p9   *p9.Client

	onDead   func(error)
	deadOnce sync.Once
	dead     atomic.Bool

	descMu  sync.Mutex
	desc    *os.File
	descFD  int
	descID  uint32
	out, in []byte
	oob     []byte

	lruMu   sync.Mutex
	fids    lru // resources with a fid, the least recently used first
	fidsN   int
	idle    lru // resources with descriptors that no open file uses
	idleN   int
	fidsMax int
	idleMax int
}

// ErrDisconnected is what OnDisconnect's function is told.
var ErrDisconnected = errors.New("the Gofer (the process that serves the sandbox's files) is gone: every access to them fails with EIO now")

// Connect takes over the two sockets of a Gofer: conn speaks 9P (SOCK_STREAM),
// desc is the descriptor channel (SOCK_SEQPACKET). onDisconnect, if not nil, is
// called once, from some goroutine, if the Gofer goes away before Close.
func Connect(conn, desc *os.File, onDisconnect func(error)) (*Client, error) {
	c := &Client{
		onDead:  onDisconnect,
		desc:    desc,
		descFD:  int(desc.Fd()),
		in:      make([]byte, goferwire.MaxPacket),
		oob:     make([]byte, goferwire.OOBSpace),
		fidsMax: maxFids,
		idleMax: maxIdleFDs,
	}
	unix.SetNonblock(c.descFD, false)
	c.fids.init()
	c.idle.init()
	c.conn = goferwire.NewConn(conn, false)
	c.conn.OnDead = c.fail
	var err error
	c.p9, err = p9.NewClient(c.conn, p9.WithMessageSize(goferwire.MessageSize))
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("gofer: agree on a protocol version with the Gofer: %w", err)
	}
	return c, nil
}

// Close ends the connection, without a call of the disconnect function.
func (c *Client) Close() {
	c.deadOnce.Do(func() {})
	c.dead.Store(true)
	c.conn.Close()
	unix.Shutdown(c.descFD, unix.SHUT_RDWR)
}

// fail notes that the Gofer is gone and wakes up whoever waits for it.
func (c *Client) fail() {
	c.dead.Store(true)
	c.deadOnce.Do(func() {
		c.conn.Close()
		unix.Shutdown(c.descFD, unix.SHUT_RDWR)
		if c.onDead != nil {
			c.onDead(ErrDisconnected)
		}
	})
}

// err translates an error of package p9's.
func (c *Client) err(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(abi.Errno); ok {
		return e
	}
	var e linux.Errno
	if errors.As(err, &e) && !c.dead.Load() {
		return abi.Errno(e)
	}
	return abi.EIO
}

// call does one exchange on the descriptor channel. The descriptor returned is
// the caller's, -1 if there is none; resp.Data is a copy.
func (c *Client) call(req *goferwire.Request, resp *goferwire.Response) (fd int, err error) {
	fd, full, err := c.exchange(req, resp)
	if full {
		// We have too many descriptors open: those that are only kept can go.
		c.closeIdle(0)
		if err == nil && req.Op != goferwire.OpLookup { // which can do without
			return -1, abi.ENFILE
		}
	}
	return fd, err
}

// exchange is call, which see; full says that a descriptor could not be taken.
func (c *Client) exchange(req *goferwire.Request, resp *goferwire.Response) (fd int, full bool, err error) {
	c.descMu.Lock()
	defer c.descMu.Unlock()
	if c.dead.Load() {
		return -1, false, abi.EIO
	}
	c.descID++
	req.ID = c.descID
	c.out = req.Append(c.out[:0])
	if err := goferwire.SendPacket(c.descFD, c.out, -1); err != nil {
		c.fail()
		return -1, false, abi.EIO
	}
	n, fd, err := goferwire.RecvPacket(c.descFD, c.in, c.oob)
	full = err == goferwire.ErrNoFD
	if (err == nil || full) && n > 0 {
		err = resp.Decode(c.in[:n])
	}
	if err != nil || n == 0 || resp.ID != req.ID || resp.HasFD != (fd >= 0 || full) {
		if fd >= 0 {
			unix.Close(fd)
		}
		c.fail()
		return -1, false, abi.EIO
	}
	resp.Data = append([]byte(nil), resp.Data...)
	if resp.Errno != 0 {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, full, abi.Errno(resp.Errno)
	}
	return fd, full, nil
}
