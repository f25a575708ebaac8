// Package overlay lays a writable layer in memory over a read-only file system,
// with the semantics of Linux's overlayfs: what is changed is copied up, what
// is removed is hidden, directories show both layers merged.
//
// It differs from overlayfs where memory makes it easy: a directory's changes
// are a table of names in the Sentry, not files in an upper tree, so that
// directories of the lower layer can be renamed, hard links survive being
// copied up, inode numbers never change, and files that were opened before a
// copy-up see what is written after it. The lower layer must not change by
// itself. It caches nothing of the lower layer. Content and attributes of the
// upper layer live in a Store (tmpfs).
//
// Lock order: FS.treeMu > inode.dmu (any two only with treeMu held) >
// inode.upMu > the layers' locks > memory managers' locks > inode.mapMu. FS.mu
// is a leaf.
package overlay

import (
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/vfs"
)

// A Store makes inodes without names for the upper layer: tmpfs.Filesystem.
type Store interface {
	vfs.Superblock
	NewInode(mode uint16, uid cred.UID, gid cred.GID, rdev uint64, target string) (vfs.Inode, error)
	Forget(i vfs.Inode)
}

// FS is an overlay: a vfs.Superblock.
type FS struct {
	lower vfs.Superblock
	store Store
	root  *inode
	sys   vfs.Context // whose work copying up is
	ino   atomic.Uint64

	// treeMu is held by operations that lock two directories.
	treeMu sync.Mutex

	mu sync.Mutex
	// byLower finds the one inode of each file of the lower layer while anybody
	// uses it.
	byLower map[vfs.Inode]weak.Pointer[inode]
	// kept holds the inodes of the lower layer that differ from it, for as long
	// as they have a name.
	kept map[*inode]struct{}
}

// firstIno is where the numbers of new inodes start: above the lower layer's.
const firstIno = 1 << 48

// New lays store over lower.
func New(ctx vfs.Context, v *vfs.VFS, lower vfs.Superblock, store Store) (*FS, error) {
	fs := &FS{lower: lower, store: store, sys: vfs.NewSystemContext(v, vfs.Path{}),
		byLower: make(map[vfs.Inode]weak.Pointer[inode]), kept: make(map[*inode]struct{})}
	fs.ino.Store(firstIno)
	r, err := fs.wrap(ctx, lower.Root())
	if err != nil {
		return nil, err
	}
	if r.ftype != abi.S_IFDIR {
		return nil, abi.ENOTDIR
	}
	fs.root = r
	return fs, nil
}

// Root implements vfs.Superblock.
func (fs *FS) Root() vfs.Inode { return fs.root }

// Type implements vfs.Superblock.
func (fs *FS) Type() string { return "overlay" }

// Options implements vfs.Superblock.
func (fs *FS) Options() string { return "" }

// CacheNegative implements vfs.Superblock: the lower layer does not change.
func (fs *FS) CacheNegative() bool { return true }

// Sync implements vfs.Superblock: there is nothing to write back.
func (fs *FS) Sync(vfs.Context) error { return nil }

// Release implements vfs.Superblock.
func (fs *FS) Release() {
	fs.store.Release()
	fs.lower.Release()
}

// overlayMagic is OVERLAYFS_SUPER_MAGIC (fs/overlayfs/super.c).
const overlayMagic = 0x794c7630

// Statfs implements vfs.Superblock. The numbers are the lower layer's: programs
// that look at the free space before they start find the host's.
func (fs *FS) Statfs(ctx vfs.Context) (abi.Statfs, error) {
	s, err := fs.lower.Statfs(ctx)
	s.Type = overlayMagic
	return s, err
}

// wrap finds or makes the inode of a file of the lower layer.
func (fs *FS) wrap(ctx vfs.Context, lower vfs.Inode) (*inode, error) {
	fs.mu.Lock()
	i := fs.byLower[lower].Value()
	fs.mu.Unlock()
	if i != nil {
		return i, nil
	}
	a, err := lower.Attr(ctx)
	if err != nil {
		return nil, err
	}
	n := &inode{fs: fs, lower: lower, ftype: a.Mode & abi.S_IFMT, ino: a.Ino, dev: a.Dev}
	n.nlink.Store(int32(a.Nlink))
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if i := fs.byLower[lower].Value(); i != nil {
		return i, nil
	}
	fs.byLower[lower] = weak.Make(n)
	runtime.AddCleanup(n, fs.collected, lower)
	return n, nil
}

// collected removes the entry of an inode that nobody uses any more.
func (fs *FS) collected(lower vfs.Inode) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if w, ok := fs.byLower[lower]; ok && w.Value() == nil {
		delete(fs.byLower, lower)
	}
}

// keep notes that i differs from the lower layer.
func (fs *FS) keep(i *inode) {
	if i.lower == nil || i.isKept.Load() {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if i.ftype == abi.S_IFDIR || i.nlink.Load() > 0 {
		fs.kept[i] = struct{}{}
		i.isKept.Store(true)
	}
}

// unkeep lets i go, whose last name is gone.
func (fs *FS) unkeep(i *inode) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.kept, i)
	i.isKept.Store(false)
}

// newUpper makes an inode that exists in the upper layer only, in directory d.
func (d *inode) newUpper(ctx vfs.Context, mode uint16, rdev uint64, target string, nlink int32) (*inode, error) {
	fs := d.fs
	da, err := d.Attr(ctx)
	if err != nil {
		return nil, err
	}
	uid, gid, mode := vfs.InitOwner(ctx, &da, mode)
	u, err := fs.store.NewInode(mode, uid, gid, rdev, target)
	if err != nil {
		return nil, err
	}
	i := &inode{fs: fs, ftype: mode & abi.S_IFMT, ino: fs.ino.Add(1), dev: d.dev}
	i.nlink.Store(nlink)
	i.upper.Store(&layer{inode: u, hasData: true})
	return i, nil
}
