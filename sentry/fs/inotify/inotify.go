// Package inotify implements inotify(7): a queue of file system events as an
// open file, fed by the watches that the VFS knows.
//
// It does not decide what is an event, and does not walk paths.
//
// Lock order: Instance.mu, then the wait queue's; the VFS's table of watches is
// never touched with Instance.mu held.
package inotify

import (
	"encoding/binary"
	"sync"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// maxQueued is sysctl fs.inotify.max_queued_events, maxWatches max_user_watches.
const (
	maxQueued  = 16384
	maxWatches = 65536
)

// An Instance is what inotify_init makes: the operations of its open file.
type Instance struct {
	vfs.FileDefaults
	queue wait.Queue

	mu     sync.Mutex
	next   int32
	byNode map[vfs.Inode]*watch
	byWD   map[int32]*watch
	events []event
	closed bool
}

type watch struct {
	wd    int32
	inode vfs.Inode
	mask  uint32
}

type event struct {
	wd           int32
	mask, cookie uint32
	name         string
}

// size is struct inotify_event with its name, padded as Linux does.
func (e *event) size() int {
	if e.name == "" {
		return 16
	}
	return 16 + (len(e.name)+1+15)&^15
}

// New makes an instance without watches.
func New() *Instance {
	return &Instance{next: 1, byNode: make(map[vfs.Inode]*watch), byWD: make(map[int32]*watch)}
}

// Stream implements vfs.FileOps.
func (n *Instance) Stream() bool { return true }

// watchBits are the bits of a mask that say what to report and how.
const watchBits = abi.IN_ALL_EVENTS | abi.IN_UNMOUNT | abi.IN_ONESHOT | abi.IN_EXCL_UNLINK

// Add watches i: inotify_add_watch(2), after the path was walked.
func (n *Instance) Add(i vfs.Inode, mask uint32) (int32, error) {
	n.mu.Lock()
	w := n.byNode[i]
	switch {
	case w != nil && mask&abi.IN_MASK_CREATE != 0:
		n.mu.Unlock()
		return 0, abi.EEXIST
	case w == nil && len(n.byWD) >= maxWatches:
		n.mu.Unlock()
		return 0, abi.ENOSPC
	case w == nil:
		w = &watch{wd: n.next, inode: i}
		n.next++
		n.byNode[i], n.byWD[w.wd] = w, w
	}
	if mask&abi.IN_MASK_ADD != 0 {
		w.mask |= mask & watchBits
	} else {
		w.mask = mask & watchBits
	}
	m, wd := w.mask, w.wd
	n.mu.Unlock()
	vfs.WatchInode(i, n, m|abi.IN_UNMOUNT|abi.IN_DELETE_SELF)
	return wd, nil
}

// Remove ends a watch: inotify_rm_watch(2), EINVAL.
func (n *Instance) Remove(wd int32) error {
	n.mu.Lock()
	w := n.byWD[wd]
	if w == nil {
		n.mu.Unlock()
		return abi.EINVAL
	}
	n.end(w)
	n.mu.Unlock()
	vfs.UnwatchInode(w.inode, n)
	return nil
}

// end forgets a watch and says so. mu is held.
func (n *Instance) end(w *watch) {
	delete(n.byNode, w.inode)
	delete(n.byWD, w.wd)
	n.put(event{wd: w.wd, mask: abi.IN_IGNORED})
}

// Event implements vfs.InodeWatcher.
func (n *Instance) Event(i vfs.Inode, mask, cookie uint32, name string) {
	n.mu.Lock()
	w := n.byNode[i]
	if w == nil {
		n.mu.Unlock()
		return
	}
	over := mask&(abi.IN_DELETE_SELF|abi.IN_UNMOUNT) != 0
	if w.mask&mask&abi.IN_ALL_EVENTS != 0 || mask&abi.IN_UNMOUNT != 0 {
		n.put(event{w.wd, mask, cookie, name})
		over = over || w.mask&abi.IN_ONESHOT != 0
	}
	if over {
		n.end(w)
	}
	n.mu.Unlock()
	if over {
		vfs.UnwatchInode(i, n)
	}
}

// put queues an event, unless it is the same as the last. mu is held.
func (n *Instance) put(e event) {
	if n.closed {
		return
	}
	if l := len(n.events); l > 0 && n.events[l-1] == e && e.mask&abi.IN_IGNORED == 0 {
		return
	}
	switch l := len(n.events); {
	case l > maxQueued:
		return
	case l == maxQueued:
		e = event{wd: -1, mask: abi.IN_Q_OVERFLOW}
	}
	n.events = append(n.events, e)
	n.queue.Notify(abi.EPOLLIN | abi.EPOLLRDNORM)
}

// Read implements vfs.FileOps.
func (n *Instance) Read(_ vfs.Context, _ *vfs.File, dst *usermem.Buffer, _ int64, _ vfs.IOFlags) (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.events) == 0 {
		return 0, abi.EAGAIN
	}
	var out []byte
	taken := 0
	for i := range n.events {
		e := &n.events[i]
		size := e.size()
		if len(out)+size > dst.Len() {
			break
		}
		le := binary.LittleEndian
		out = le.AppendUint32(out, uint32(e.wd))
		out = le.AppendUint32(out, e.mask)
		out = le.AppendUint32(out, e.cookie)
		out = le.AppendUint32(out, uint32(size-16))
		out = append(out, e.name...)
		out = append(out, make([]byte, size-16-len(e.name))...)
		taken++
	}
	if taken == 0 {
		return 0, abi.EINVAL // the buffer is too small for one event
	}
	m, err := dst.Write(out)
	if err != nil {
		return 0, err
	}
	n.events = n.events[taken:]
	if len(n.events) == 0 {
		n.events = nil
	}
	return int64(m), nil
}

// Ioctl implements vfs.FileOps: FIONREAD.
func (n *Instance) Ioctl(ctx vfs.Context, _ *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	if cmd != abi.FIONREAD {
		return 0, abi.ENOTTY
	}
	sum := 0
	n.mu.Lock()
	for i := range n.events {
		sum += n.events[i].size()
	}
	n.mu.Unlock()
	return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(sum))
}

// Readiness implements vfs.FileOps.
func (n *Instance) Readiness(mask wait.Events) wait.Events {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.events) == 0 {
		return 0
	}
	return mask & (abi.EPOLLIN | abi.EPOLLRDNORM)
}

// EventRegister implements vfs.FileOps.
func (n *Instance) EventRegister(w *wait.Waiter, mask wait.Events) { n.queue.Add(w, mask) }

// EventUnregister implements vfs.FileOps.
func (n *Instance) EventUnregister(w *wait.Waiter) { n.queue.Remove(w) }

// Release implements vfs.FileOps: all watches end.
func (n *Instance) Release(*vfs.File) {
	n.mu.Lock()
	n.closed = true
	all := n.byNode
	n.byNode, n.byWD, n.events = nil, nil, nil
	n.mu.Unlock()
	for i := range all {
		vfs.UnwatchInode(i, n)
	}
}
