package vfs

import (
	"strings"
	"sync"
	"sync/atomic"

	"garrison/abi"
)

// A Dentry is a name in a directory together with the inode it leads to. The
// dentries of one superblock form a tree; mounts show parts of it. A dentry
// without an inode is negative: it remembers that the name does not exist.
type Dentry struct {
	sb    *sbState
	inode Inode // nil: negative; never changes
	ftype uint16
	reval bool   // children must be revalidated
	fixed bool   // made by O_TMPFILE|O_EXCL: may not be linked
	seq   uint64 // orders directories for locking

	loc      atomic.Pointer[dentryLoc]
	unlinked atomic.Bool
	used     atomic.Bool  // since the last shrink
	mounted  atomic.Int32 // mounts on top, in any namespace
	pins     atomic.Int32 // open files, mount roots, working directories

	// dirMu is the directory lock (Linux's i_rwsem): held shared while a child
	// is looked up in the file system, exclusively while entries change.
	dirMu     sync.RWMutex
	forgotten bool // dropped from the cache while it existed; guarded by dirMu

	mu       sync.RWMutex
	children map[string]*Dentry
}

// dentryLoc is where a dentry hangs; rename replaces it as one.
type dentryLoc struct {
	parent *Dentry // nil for a superblock's root
	name   string
}

var dentrySeq atomic.Uint64

// newDentry makes a dentry that is not in any cache yet.
func newDentry(ctx Context, sb *sbState, parent *Dentry, name string, inode Inode) (*Dentry, error) {
	d := &Dentry{sb: sb, inode: inode, seq: dentrySeq.Add(1)}
	d.loc.Store(&dentryLoc{parent, name})
	d.used.Store(true)
	if inode != nil {
		a, err := inode.Attr(ctx)
		if err != nil {
			return nil, err
		}
		d.ftype = a.Mode & abi.S_IFMT
		_, d.reval = inode.(Revalidator)
	}
	return d, nil
}

// Inode is what the name leads to; nil for a negative dentry.
func (d *Dentry) Inode() Inode { return d.inode }

// Superblock is the file system that d belongs to.
func (d *Dentry) Superblock() Superblock { return d.sb.Superblock }

// Parent is the directory that d is in; nil for the root of a file system.
func (d *Dentry) Parent() *Dentry { return d.loc.Load().parent }

// Name is the last component of d's path.
func (d *Dentry) Name() string { return d.loc.Load().name }

// Type is the file type, S_IFDIR and so on.
func (d *Dentry) Type() uint16 { return d.ftype }

// IsDir reports whether d is a directory.
func (d *Dentry) IsDir() bool { return d.ftype == abi.S_IFDIR }

// Unlinked reports whether the name has been removed.
func (d *Dentry) Unlinked() bool { return d.unlinked.Load() }

// cached finds a child in the cache, or nil.
func (d *Dentry) cached(name string) *Dentry {
	d.mu.RLock()
	c := d.children[name]
	d.mu.RUnlock()
	if c != nil && !c.used.Load() {
		c.used.Store(true)
	}
	return c
}

// addChild puts c into the cache under its name, unless there is one that leads
// somewhere already; it returns the one that stays.
func (d *Dentry) addChild(c *Dentry) *Dentry {
	name := c.Name()
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.children[name]; old != nil {
		if old.inode != nil || c.inode == nil {
			return old
		}
	} else {
		d.sb.dentries.Add(1)
	}
	if d.children == nil {
		d.children = make(map[string]*Dentry)
	}
	// A name cut out of a long path would keep the whole path alive.
	d.children[strings.Clone(name)] = c
	return c
}

// replaceChild puts c into the cache in place of whatever is there.
func (d *Dentry) replaceChild(name string, c *Dentry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.children == nil {
		d.children = make(map[string]*Dentry)
	}
	if d.children[name] == nil {
		d.sb.dentries.Add(1)
	}
	d.children[name] = c
}

// dropChild takes c out of the cache if it is the one cached under its name.
func (d *Dentry) dropChild(name string, c *Dentry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.children[name] == c {
		delete(d.children, name)
		d.sb.dentries.Add(-1)
	}
}

// isDescendant reports whether d is anc or lies below it.
func (d *Dentry) isDescendant(anc *Dentry) bool {
	for ; d != nil; d = d.Parent() {
		if d == anc {
			return true
		}
	}
	return false
}

// sbState is a superblock with what the VFS knows about it.
type sbState struct {
	Superblock
	root     *Dentry
	dev      uint64
	mounts   atomic.Int32 // mounts of it; the last gone releases it
	dentries atomic.Int64
	// readonly is the superblock's own read-only flag (mount -o remount,ro).
	readonly atomic.Bool
	shrinkMu sync.Mutex
	shrinkAt atomic.Int64 // how many dentries to shrink at, when more than maxDentries
	// maxDentries is what the file system wants cached at most; it never changes.
	maxDentries int64
}

// maxDentries is how many cached dentries of a file system are let grow before
// those that nobody used lately are forgotten.
const maxDentries = 16384

// maybeShrink forgets unused dentries when there are too many.
func (sb *sbState) maybeShrink() {
	limit := sb.maxDentries
	if sb.dentries.Load() < max(limit, sb.shrinkAt.Load()) || !sb.shrinkMu.TryLock() {
		return
	}
	defer sb.shrinkMu.Unlock()
	sb.root.shrink()
	if sb.dentries.Load() >= limit {
		sb.root.shrink() // the first pass cleared the used marks
	}
	// What is in use stays; do not come back for it at every lookup.
	sb.shrinkAt.Store(2 * sb.dentries.Load())
}

// shrink forgets the leaves below d that were not used since the last time.
func (d *Dentry) shrink() {
	d.mu.RLock()
	kids := make([]*Dentry, 0, len(d.children))
	for _, c := range d.children {
		kids = append(kids, c)
	}
	d.mu.RUnlock()
	for _, c := range kids {
		c.shrink()
		if c.used.Swap(false) || c.pins.Load() != 0 || c.mounted.Load() != 0 {
			continue
		}
		if _, keep := c.sb.Superblock.(DentryKeeper); keep && c.inode != nil {
			continue
		}
		// The directory locks keep creation, lookup and removal away: if nothing
		// is cached below c, and c is not in use, it can be forgotten. A walk that
		// holds c can go on reading; changes through it fail with ESTALE, and are
		// tried again with a fresh walk.
		if !d.dirMu.TryLock() {
			continue
		}
		if c.dirMu.TryLock() {
			c.mu.RLock()
			leaf := len(c.children) == 0
			c.mu.RUnlock()
			if leaf && c.pins.Load() == 0 {
				c.forgotten = true
				d.dropChild(c.Name(), c)
				c.drop()
			}
			c.dirMu.Unlock()
		}
		d.dirMu.Unlock()
	}
}

// drop tells the inode that a dentry of it is gone.
func (d *Dentry) drop() {
	if x, ok := d.inode.(Dropper); ok {
		x.Drop()
	}
}
