// Package socket is what all socket families share: the Socket interface that
// system calls speak, the registry of families, options of SOL_SOCKET, control
// messages, blocking with timeouts, and buffers for queued data (socket(7)).
//
// It knows no address family and no wire protocol; unix, inet and others
// implement Socket, and runsc/boot registers them.
//
// Lock order: a family's locks, then Base.mu, then wait queues.
package socket

import (
	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// A Socket is an open socket. Addresses are struct sockaddr as bytes, the
// family first, with the length that counts; families check them.
//
// Operations that can sleep take Msg.Flags' MSG_DONTWAIT or a nonblock
// argument, in which the file's O_NONBLOCK is included already.
type Socket interface {
	vfs.FileOps
	// Common is the part that is the same for all.
	Common() *Base

	Bind(ctx vfs.Context, addr []byte) error
	Listen(ctx vfs.Context, backlog int) error
	// Accept takes a connection off the queue; its peer is named by
	// peer.Name(true).
	Accept(ctx vfs.Context, nonblock bool) (Socket, error)
	Connect(ctx vfs.Context, addr []byte, nonblock bool) error
	Shutdown(ctx vfs.Context, how int) error
	// Name is the socket's own address, or its peer's.
	Name(ctx vfs.Context, peer bool) ([]byte, error)

	// SendMsg sends src to m.Name, or to the peer, with m's control messages.
	// It takes over m's file references only if it succeeds. SIGPIPE is sent
	// by the caller when it returns EPIPE.
	SendMsg(ctx vfs.Context, src *usermem.Buffer, m *Msg) (int64, error)
	// RecvMsg fills dst and m; for a truncated datagram and MSG_TRUNC it
	// returns the true length.
	RecvMsg(ctx vfs.Context, dst *usermem.Buffer, m *Msg) (int64, error)

	// GetSockOpt returns an option's value; size is what the caller has room
	// for. SetSockOpt gets at most 64 KiB. Levels that the family does not know
	// are answered by Base.
	GetSockOpt(ctx vfs.Context, level, name, size int) ([]byte, error)
	SetSockOpt(ctx vfs.Context, level, name int, value []byte) error
}

// A Msg is what goes with the data of one message.
type Msg struct {
	Flags    uint32 // MSG_*, as the caller gave them
	Name     []byte // destination or source; NameBuf may back it
	Control  Control
	OutFlags uint32 // MSG_TRUNC, MSG_CTRUNC, MSG_EOR... for msg_flags
	// WantControl says that the receiver has room for control messages.
	WantControl bool

	NameBuf [abi.SizeofSockaddr]byte
}

// Control is the control messages of a message (cmsg(3)).
type Control struct {
	Rights  []*vfs.File // SCM_RIGHTS, each a reference
	Cred    abi.Ucred   // SCM_CREDENTIALS
	HasCred bool
	Others  []Cmsg
}

// A Cmsg is a control message that has no meaning to the socket layer.
type Cmsg struct {
	Level, Type int32
	Data        []byte
}

// Drop gives the file references up.
func (c *Control) Drop() {
	for _, f := range c.Rights {
		f.DecRef()
	}
	c.Rights = nil
}

// Nonblocking reports whether the message must not sleep.
func (m *Msg) Nonblocking() bool { return m.Flags&abi.MSG_DONTWAIT != 0 }

// A Family makes sockets of one address family. typ has no SOCK_* flags.
type Family interface {
	Socket(ctx vfs.Context, typ, protocol int) (Socket, error)
	// Pair makes two connected sockets, or fails with EOPNOTSUPP.
	Pair(ctx vfs.Context, typ, protocol int) (a, b Socket, err error)
}

// Families is the registry, by AF_*. It is filled before the first use.
type Families map[int]Family

// maxType is SOCK_MAX (include/linux/net.h).
const maxType = 11

// find checks family and type in Linux's order (__sock_create).
func (fs Families) find(family, typ int) (Family, error) {
	if family < 0 || family >= abi.AF_MAX {
		return nil, abi.EAFNOSUPPORT
	}
	if typ < 0 || typ >= maxType {
		return nil, abi.EINVAL
	}
	f := fs[family]
	if f == nil {
		return nil, abi.EAFNOSUPPORT
	}
	return f, nil
}

// New makes a socket.
func (fs Families) New(ctx vfs.Context, family, typ, protocol int) (Socket, error) {
	f, err := fs.find(family, typ)
	if err != nil {
		return nil, err
	}
	return f.Socket(ctx, typ, protocol)
}

// Pair makes two connected sockets.
func (fs Families) Pair(ctx vfs.Context, family, typ, protocol int) (a, b Socket, err error) {
	f, err := fs.find(family, typ)
	if err != nil {
		return nil, nil, err
	}
	return f.Pair(ctx, typ, protocol)
}

// Event sets as Linux groups them.
const (
	EvIn    = wait.Events(abi.EPOLLIN | abi.EPOLLRDNORM)
	EvOut   = wait.Events(abi.EPOLLOUT | abi.EPOLLWRNORM | abi.EPOLLWRBAND)
	EvErr   = wait.Events(abi.EPOLLERR)
	EvHup   = wait.Events(abi.EPOLLHUP)
	EvRdhup = wait.Events(abi.EPOLLRDHUP)
)
