package vfs

import (
	"slices"
	"sync"
	"sync/atomic"

	"garrison/abi"
)

// An InodeWatcher hears of events on inodes (inotify(7)). Event is called
// without VFS locks that it could need, in the order things happened; it must
// not sleep.
type InodeWatcher interface {
	Event(i Inode, mask, cookie uint32, name string)
}

// watches is who watches which inode. Nothing is paid for it while nobody does.
var watches struct {
	count  atomic.Int32
	cookie atomic.Uint32

	mu sync.RWMutex
	by map[Inode][]watch
}

type watch struct {
	w    InodeWatcher
	mask uint32
}

// WatchInode makes w hear of the events of mask on i, and if i is a directory,
// on what is in it. A watch of w on i that exists is replaced.
func WatchInode(i Inode, w InodeWatcher, mask uint32) {
	watches.mu.Lock()
	defer watches.mu.Unlock()
	if watches.by == nil {
		watches.by = make(map[Inode][]watch)
	}
	for n := range watches.by[i] {
		if watches.by[i][n].w == w {
			// Copied, because readers go over the old one.
			l := slices.Clone(watches.by[i])
			l[n].mask = mask
			watches.by[i] = l
			return
		}
	}
	watches.by[i] = append(slices.Clip(watches.by[i]), watch{w, mask})
	watches.count.Add(1)
}

// UnwatchInode ends a watch.
func UnwatchInode(i Inode, w InodeWatcher) {
	watches.mu.Lock()
	defer watches.mu.Unlock()
	l := watches.by[i]
	n := slices.IndexFunc(l, func(x watch) bool { return x.w == w })
	if n < 0 {
		return
	}
	watches.count.Add(-1)
	if len(l) == 1 {
		delete(watches.by, i)
		return
	}
	watches.by[i] = slices.Delete(slices.Clone(l), n, n+1)
}

// watched reports whether anybody watches anything.
func watched() bool { return watches.count.Load() != 0 }

// tell tells the watchers of i.
func tell(i Inode, mask, cookie uint32, name string) {
	watches.mu.RLock()
	l := watches.by[i]
	watches.mu.RUnlock()
	for _, x := range l {
		if x.mask&mask&(abi.IN_ALL_EVENTS|abi.IN_UNMOUNT) == 0 {
			continue
		}
		x.w.Event(i, mask, cookie, name)
	}
}

// dirBit is IN_ISDIR if d is a directory.
func dirBit(d *Dentry) uint32 {
	if d.IsDir() {
		return abi.IN_ISDIR
	}
	return 0
}

// notifyEntry tells the watchers of a directory about an entry.
func notifyEntry(dir *Dentry, c *Dentry, mask uint32, name string) {
	if watched() {
		tell(dir.inode, mask|dirBit(c), 0, name)
	}
}

// notify tells the watchers of d and those of its directory about d.
func (d *Dentry) notify(mask uint32) {
	if !watched() || d.inode == nil {
		return
	}
	mask |= dirBit(d)
	if l := d.loc.Load(); l.parent != nil && !d.unlinked.Load() {
		tell(l.parent.inode, mask, 0, l.name)
	}
	tell(d.inode, mask, 0, "")
}

// notifyRemoved tells about a name that is gone, and the file if it was the last.
// Linux tells of the file's end when the last descriptor is closed.
func notifyRemoved(ctx Context, dir, c *Dentry, name string) {
	if !watched() {
		return
	}
	last := c.IsDir()
	if !last {
		tell(c.inode, abi.IN_ATTRIB, 0, "") // the link count changed
		a, err := c.inode.Attr(ctx)
		last = err != nil || a.Nlink == 0
	}
	if last {
		tell(c.inode, abi.IN_DELETE_SELF, 0, "")
	}
	tell(dir.inode, abi.IN_DELETE|dirBit(c), 0, name)
}

// notifyRenamed tells about a rename.
func notifyRenamed(ctx Context, od *Dentry, oldName string, nd *Dentry, newName string, c, replaced *Dentry) {
	if !watched() {
		return
	}
	cookie := watches.cookie.Add(1)
	tell(od.inode, abi.IN_MOVED_FROM|dirBit(c), cookie, oldName)
	tell(nd.inode, abi.IN_MOVED_TO|dirBit(c), cookie, newName)
	tell(c.inode, abi.IN_MOVE_SELF, 0, "")
	if replaced != nil {
		tell(replaced.inode, abi.IN_ATTRIB, 0, "")
		if a, err := replaced.inode.Attr(ctx); replaced.IsDir() || err != nil || a.Nlink == 0 {
			tell(replaced.inode, abi.IN_DELETE_SELF, 0, "")
		}
	}
}

// notify tells about what was done through an open file.
func (f *File) notify(mask uint32) {
	if watched() && f.path.Dentry != nil && !f.pathOnly {
		f.path.Dentry.notify(mask)
	}
}
