package gofer

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/hugelgupf/p9/p9"

	"garrison/abi"
	"garrison/internal/goferwire"
	"garrison/sentry/cred"
	"garrison/sentry/vfs"
)

// Options say how a mount of the Gofer's is used.
type Options struct {
	// Exclusive: nobody else changes the files, so everything is cached
	// (--file-access=exclusive). Otherwise cached names and attributes are
	// checked with the Gofer (--file-access=shared).
	Exclusive bool
	// NewDev makes a device number for files to show: one is made for every
	// device of the host's that files are met on. Nil makes some up, for tests.
	NewDev func() uint64
	// Unmapped says that the Gofer runs in a user namespace that maps its own
	// ids only: all others appear to it as 65534. They are nearly always root's,
	// and are shown as that.
	Unmapped bool
}

// overflowID is what the host shows for ids that are not mapped
// (/proc/sys/kernel/overflowuid).
const overflowID = 65534

// An FS is one mount of the Gofer's: a vfs.Superblock.
type FS struct {
	c    *Client
	opts Options
	root *inode

	exchanged atomic.Bool // two names have been swapped, ever

	mu     sync.Mutex
	inodes map[inodeKey]weak.Pointer[inode] // so that hard links meet
	devs   map[uint64]uint64                // the host's device numbers, to what we show
	ahead  [16]weak.Pointer[inode]          // directories that hold attributes read ahead
	aheadN int
}

// inodeKey is what the host calls a file.
type inodeKey struct{ dev, ino uint64 }

// Mount attaches to the mount that the Gofer serves under name.
func (c *Client) Mount(name string, o Options) (*FS, error) {
	f, err := c.p9.Attach(name)
	if err == nil {
		var q p9.QID
		var a p9.Attr
		// The QID of an attach is the one of the mounts' directory.
		if q, _, a, err = f.GetAttr(p9.AttrMaskAll); err == nil {
			fs := &FS{c: c, opts: o, inodes: map[inodeKey]weak.Pointer[inode]{}, devs: map[uint64]uint64{}}
			fs.root = fs.inodeFor(nil, "", f, q.Path, attrOf(&a))
			fs.root.res.busy++ // stays
			return fs, nil
		}
	}
	return nil, fmt.Errorf("gofer: attach to mount %q: %w", name, c.err(err))
}

// attrOf converts attributes that came over 9P. The host's inode number and
// device, for which 9P has no field, are in Gen and DataVersion.
func attrOf(a *p9.Attr) *goferwire.Entry {
	return &goferwire.Entry{
		HasAttr: true, Ino: a.Gen, Dev: a.DataVersion,
		Mode: uint32(a.Mode), UID: uint32(a.UID), GID: uint32(a.GID), Nlink: uint32(a.NLink), BlkSize: uint32(a.BlockSize),
		Rdev: uint64(a.RDev), Size: a.Size, Blocks: a.Blocks,
		Atime: int64(a.ATimeSeconds)*1e9 + int64(a.ATimeNanoSeconds),
		Mtime: int64(a.MTimeSeconds)*1e9 + int64(a.MTimeNanoSeconds),
		Ctime: int64(a.CTimeSeconds)*1e9 + int64(a.CTimeNanoSeconds),
		Btime: int64(a.BTimeSeconds)*1e9 + int64(a.BTimeNanoSeconds),
	}
}

// inodeFor returns the one inode of the file that fid, which it takes over,
// refers to, found as name in parent. fid may be nil if the file was found in a
// listing: it is walked to when a fid is needed.
func (fs *FS) inodeFor(parent *inode, name string, fid p9.File, node uint64, e *goferwire.Entry) *inode {
	key := inodeKey{e.Dev, e.Ino}
	ftype := uint16(e.Mode) & abi.S_IFMT
	dev := fs.devFor(key.dev)
	fs.mu.Lock()
	if i := fs.inodes[key].Value(); i != nil && i.ftype == ftype && i.btime == e.Btime {
		fs.mu.Unlock()
		i.found(parent, name, fid, node)
		return i
	}
	i := &inode{fs: fs, key: key, ftype: ftype, btime: e.Btime, res: newResource(fs.c, fid, node), parent: parent, name: name}
	i.attr.Ino, i.attr.Dev = key.ino, dev
	i.setAttr(e, 0)
	fs.inodes[key] = weak.Make(i)
	fs.mu.Unlock()
	runtime.AddCleanup(i, func(r *resource) { r.free(); fs.dropKey(key) }, i.res)
	if fid != nil {
		i.res.mu.Lock()
		fs.c.touch(i.res)
		i.res.mu.Unlock()
	}
	return i
}

// keepAhead notes that i holds attributes read ahead; of all directories only
// the last few do.
func (fs *FS) keepAhead(i *inode) {
	fs.mu.Lock()
	old := fs.ahead[fs.aheadN].Value()
	fs.ahead[fs.aheadN] = weak.Make(i)
	fs.aheadN = (fs.aheadN + 1) % len(fs.ahead)
	fs.mu.Unlock()
	if old != nil && old != i {
		old.mu.Lock()
		old.ahead = nil
		old.mu.Unlock()
	}
}

// dropKey removes the table's entry of an inode that was collected.
func (fs *FS) dropKey(key inodeKey) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if w, ok := fs.inodes[key]; ok && w.Value() == nil {
		delete(fs.inodes, key)
	}
}

// found notes that i, known before, was found again as name in parent.
func (i *inode) found(parent *inode, name string, fid p9.File, node uint64) {
	r := i.res
	r.mu.Lock()
	if r.fid == nil && fid != nil {
		r.fid, r.node, fid = fid, node, nil
		i.fs.c.touch(r)
	}
	r.mu.Unlock()
	i.mu.Lock()
	if i != i.fs.root {
		i.parent, i.name = parent, name
	}
	if !i.fs.opts.Exclusive {
		i.seq++
		i.fresh = false
	}
	i.mu.Unlock()
	if fid != nil {
		fid.Close()
	}
}

// devFor is the st_dev that files of a device of the host's show.
func (fs *FS) devFor(host uint64) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	d, ok := fs.devs[host]
	if !ok {
		if fs.opts.NewDev != nil {
			d = fs.opts.NewDev()
		} else {
			d = vfs.MakeDev(0, uint32(0x900+len(fs.devs)))
		}
		fs.devs[host] = d
	}
	return d
}

// Root implements vfs.Superblock.
func (fs *FS) Root() vfs.Inode { return fs.root }

// Type implements vfs.Superblock.
func (fs *FS) Type() string { return "9p" }

// Options implements vfs.Superblock.
func (fs *FS) Options() string {
	if fs.opts.Exclusive {
		return "trans=fd,version=9p2000.L,cache=loose"
	}
	return "trans=fd,version=9p2000.L,cache=none"
}

// CacheNegative implements vfs.Superblock.
func (fs *FS) CacheNegative() bool { return fs.opts.Exclusive }

// Statfs implements vfs.Superblock.
func (fs *FS) Statfs(vfs.Context) (abi.Statfs, error) {
	f, _, err := fs.root.acquire()
	if err != nil {
		return abi.Statfs{}, err
	}
	defer fs.root.release()
	st, err := f.StatFS()
	if err != nil {
		return abi.Statfs{}, fs.c.err(err)
	}
	return abi.Statfs{
		Type: int64(st.Type), Bsize: int64(st.BlockSize), Frsize: int64(st.BlockSize),
		Blocks: st.Blocks, Bfree: st.BlocksFree, Bavail: st.BlocksAvailable,
		Files: st.Files, Ffree: st.FilesFree, Namelen: int64(st.NameLength),
		Fsid: [2]int32{int32(uint32(st.FSID)), int32(uint32(st.FSID >> 32))}, Flags: abi.ST_VALID,
	}, nil
}

// Sync implements vfs.Superblock. The host keeps its own files: there is nothing
// here that is not written yet.
func (fs *FS) Sync(vfs.Context) error { return nil }

// Release implements vfs.Superblock.
func (fs *FS) Release() {
	r := fs.root.res
	r.mu.Lock()
	r.busy--
	r.mu.Unlock()
}

// owner is who a file that ctx makes in directory d belongs to.
func owner(ctx vfs.Context, d *inode) (uid cred.UID, gid cred.GID) {
	if ctx == nil {
		return 0, 0
	}
	c := ctx.Cred()
	uid, gid = c.FSUID, c.FSGID
	d.mu.Lock()
	if d.attr.Mode&abi.S_ISGID != 0 {
		gid = d.attr.GID
	}
	d.mu.Unlock()
	return uid, gid
}
