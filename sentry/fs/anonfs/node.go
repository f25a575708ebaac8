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
	ino, dev uint64

	mu                  sync.Mutex
	mode                uint16
	uid                 cred.UID
	gid                 cred.GID
	atime, mtime, ctime int64
}

// Init gives the node a number of its own and the caller's ids; mode includes
// the file type, dev is the device number that stat shows.
func (n *Node) Init(c *cred.Cred, mode uint16, dev uint64) {
	n.ino, n.dev, n.mode = lastIno.Add(1), dev, mode
	if c != nil {
		n.uid, n.gid = c.FSUID, c.FSGID
	}
	now := time.Now().UnixNano()
	n.atime, n.mtime, n.ctime = now, now, now
}

// Ino is the inode number.
func (n *Node) Ino() uint64 { return n.ino }

// Owner is the owning user (SO_PEERCRED-like queries, /proc/net).
func (n *Node) Owner() cred.UID { n.mu.Lock(); defer n.mu.Unlock(); return n.uid }

// Attr implements vfs.Inode.
func (n *Node) Attr(vfs.Context) (vfs.Attr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return vfs.Attr{Mode: n.mode, UID: n.uid, GID: n.gid, Nlink: 1, Ino: n.ino, Dev: n.dev, BlkSize: 4096,
		Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime}, nil
}

// SetAttr implements vfs.Inode: mode, owner and times can be changed.
func (n *Node) SetAttr(_ vfs.Context, s *vfs.SetAttr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now().UnixNano()
	if s.SetMode {
		n.mode = n.mode&^0o7777 | s.Mode&0o7777
	}
	if s.SetUID {
		n.uid = s.UID
	}
	if s.SetGID {
		n.gid = s.GID
	}
	if s.SetAtime {
		n.atime = s.Atime
		if s.AtimeNow {
			n.atime = now
		}
	}
	if s.SetMtime {
		n.mtime = s.Mtime
		if s.MtimeNow {
			n.mtime = now
		}
	}
	n.ctime = now
	return nil
}
