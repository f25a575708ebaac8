// Package anonfs has the inode of objects without a name: anonymous pipes and
// sockets, which have an owner, a mode and times all the same (fstat(2) of
// them; pipefs and sockfs on Linux).
//
// It does not make open files and stores no data.
//
// Lock order: Node.mu is a leaf.
package anonfs

import (
	"sync"
	"sync/atomic"
	"time"

	"garrison/sentry/cred"
	"garrison/sentry/vfs"
)

var lastIno atomic.Uint64

// A Node is such an inode. Make it by Init.
type Node struct {
	vfs.LeafDefaults

	mu sync.Mutex
	a  vfs.Attr
}

// Init gives the node a number of its own and the caller's ids; mode includes
// the file type, dev is the device number that stat shows.
func (n *Node) Init(c *cred.Cred, mode uint16, dev uint64) {
	now := time.Now().UnixNano()
	n.a = vfs.Attr{Mode: mode, Nlink: 1, Ino: lastIno.Add(1), Dev: dev, BlkSize: 4096, Atime: now, Mtime: now, Ctime: now}
	if c != nil {
		n.a.UID, n.a.GID = c.FSUID, c.FSGID
	}
}

// Ino is the inode number.
func (n *Node) Ino() uint64 { return n.a.Ino }

// Owner is the owning user (SO_PEERCRED-like queries, /proc/net).
func (n *Node) Owner() cred.UID { n.mu.Lock(); defer n.mu.Unlock(); return n.a.UID }

// Attr implements vfs.Inode.
func (n *Node) Attr(vfs.Context) (vfs.Attr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.a, nil
}

// SetAttr implements vfs.Inode: mode, owner and times can be changed.
func (n *Node) SetAttr(_ vfs.Context, s *vfs.SetAttr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	vfs.ApplySetAttr(&n.a, s, time.Now().UnixNano())
	return nil
}
