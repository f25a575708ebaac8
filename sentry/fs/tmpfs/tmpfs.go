// Package tmpfs is the in-memory file system (tmpfs(5)), also behind memfd_create
// and the upper layer of overlays. File content lies in the sandbox's page
// file, so that guests map the very pages that read and write copy to and from.
//
// It does not persist anything and does not check permissions, which the VFS
// has done. Pages that only a mapping has touched count in st_blocks but not
// against the size limit.
//
// Lock order: filesystem.treeMu > dir.mu (parents before children, else by
// inode number) > regular.mu > memory managers' locks > regular.pageMu > page
// file. node.mu is a leaf.
package tmpfs

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/pagefile"
	"garrison/sentry/vfs"
)

const (
	pageSize = 4096
	pageMask = pageSize - 1
)

// Options are what can be given at mount time (tmpfs(5)).
type Options struct {
	Size   uint64 // bytes; zero is unlimited
	Inodes uint64 // zero is unlimited
	Mode   uint16 // of the root directory; zero is 01777
	UID    cred.UID
	GID    cred.GID
	// Type is the name in /proc/mounts; "" is "tmpfs".
	Type string
}

// A Filesystem is one tmpfs instance: a vfs.Superblock.
type Filesystem struct {
	v    *vfs.VFS
	pf   *pagefile.File
	opt  Options
	dev  uint64
	root *dir

	ino    atomic.Uint64
	inodes atomic.Int64
	pages  atomic.Int64

	// treeMu is held by what changes the shape of the tree: rename and rmdir.
	treeMu sync.Mutex
}

// New makes an instance with its data in pf.
func New(v *vfs.VFS, pf *pagefile.File, opt Options) *Filesystem {
	if opt.Mode == 0 {
		opt.Mode = 01777
	}
	if opt.Type == "" {
		opt.Type = "tmpfs"
	}
	fs := &Filesystem{v: v, pf: pf, opt: opt, dev: v.NewAnonDev()}
	fs.root = &dir{byName: make(map[string]*entry)}
	fs.root.init(fs, abi.S_IFDIR|opt.Mode, opt.UID, opt.GID, 2)
	fs.root.parent = fs.root
	return fs
}

// Maker is the vfs.FilesystemMaker of "tmpfs".
func Maker(v *vfs.VFS, pf *pagefile.File, defaultSize uint64) vfs.FilesystemMaker {
	return func(ctx vfs.Context, _, data string, _ uint32) (vfs.Superblock, error) {
		opt := Options{Size: defaultSize}
		if err := opt.Parse(data); err != nil {
			return nil, err
		}
		return New(v, pf, opt), nil
	}
}

// Parse reads mount options: size, nr_blocks, nr_inodes, mode, uid, gid; the
// ones about placement are accepted. EINVAL for others.
func (o *Options) Parse(data string) error {
	for _, kv := range strings.Split(data, ",") {
		k, val, _ := strings.Cut(kv, "=")
		var err error
		switch k {
		case "", "huge", "mpol", "inode32", "inode64", "noswap":
		case "size":
			o.Size, err = parseSize(val, 1)
		case "nr_blocks":
			o.Size, err = parseSize(val, pageSize)
		case "nr_inodes":
			o.Inodes, err = parseSize(val, 1)
		case "mode":
			var m uint64
			m, err = strconv.ParseUint(val, 8, 16)
			o.Mode = uint16(m) & 07777
		case "uid", "gid":
			var id uint64
			id, err = strconv.ParseUint(val, 10, 32)
			if k == "uid" {
				o.UID = cred.UID(id)
			} else {
				o.GID = cred.GID(id)
			}
		default:
			return abi.EINVAL
		}
		if err != nil {
			return abi.EINVAL
		}
	}
	return nil
}

func parseSize(s string, unit uint64) (uint64, error) {
	if s == "" {
		return 0, abi.EINVAL
	}
	shift := 0
	switch s[len(s)-1] | 0x20 {
	case 'k':
		shift = 10
	case 'm':
		shift = 20
	case 'g':
		shift = 30
	case '%':
		return 0, nil // a share of memory: no limit of its own
	}
	if shift != 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 0, 40)
	return n * unit << shift, err
}

// Root implements vfs.Superblock.
func (fs *Filesystem) Root() vfs.Inode { return fs.root }

// Type implements vfs.Superblock.
func (fs *Filesystem) Type() string { return fs.opt.Type }

// Options implements vfs.Superblock.
func (fs *Filesystem) Options() string {
	var o []string
	if fs.opt.Size != 0 {
		o = append(o, "size="+strconv.FormatUint(fs.opt.Size>>10, 10)+"k")
	}
	if fs.opt.Inodes != 0 {
		o = append(o, "nr_inodes="+strconv.FormatUint(fs.opt.Inodes, 10))
	}
	if fs.opt.Mode != 01777 {
		o = append(o, "mode="+strconv.FormatUint(uint64(fs.opt.Mode), 8))
	}
	if fs.opt.UID != 0 {
		o = append(o, "uid="+strconv.FormatUint(uint64(fs.opt.UID), 10))
	}
	if fs.opt.GID != 0 {
		o = append(o, "gid="+strconv.FormatUint(uint64(fs.opt.GID), 10))
	}
	return strings.Join(o, ",")
}

// CacheNegative implements vfs.Superblock: a miss here is as quick as a cached one.
func (fs *Filesystem) CacheNegative() bool { return false }

// Sync implements vfs.Superblock.
func (fs *Filesystem) Sync(vfs.Context) error { return nil }

// Statfs implements vfs.Superblock.
func (fs *Filesystem) Statfs(vfs.Context) (abi.Statfs, error) {
	s := abi.Statfs{Type: abi.TMPFS_MAGIC, Bsize: pageSize, Frsize: pageSize, Namelen: abi.NAME_MAX,
		Fsid: [2]int32{int32(fs.dev), int32(fs.dev >> 32)}}
	if fs.opt.Size != 0 {
		s.Blocks = fs.opt.Size / pageSize
		s.Bfree = s.Blocks - min(s.Blocks, uint64(fs.pages.Load()))
		s.Bavail = s.Bfree
	}
	if fs.opt.Inodes != 0 {
		s.Files = fs.opt.Inodes
		s.Ffree = s.Files - min(s.Files, uint64(fs.inodes.Load()))
	}
	return s, nil
}

// Release implements vfs.Superblock: all content is given back.
func (fs *Filesystem) Release() { fs.root.releaseTree() }

// newInode accounts for one more inode; ENOSPC.
func (fs *Filesystem) newInode() error {
	if n := fs.inodes.Add(1); fs.opt.Inodes != 0 && uint64(n) > fs.opt.Inodes {
		fs.inodes.Add(-1)
		return abi.ENOSPC
	}
	return nil
}

// charge accounts for n more pages of content; ENOSPC.
func (fs *Filesystem) charge(n int64) error {
	if p := fs.pages.Add(n); fs.opt.Size != 0 && n > 0 && uint64(p) > fs.opt.Size/pageSize {
		fs.pages.Add(-n)
		return abi.ENOSPC
	}
	return nil
}

// node is what all inodes have.
type node struct {
	fs  *Filesystem
	ino uint64

	mu    sync.Mutex
	mode  uint16
	uid   cred.UID
	gid   cred.GID
	nlink uint32
	rdev  uint64

	atime, mtime, ctime, btime int64

	xattrs map[string][]byte
}

func now() int64 { return time.Now().UnixNano() }

func (n *node) init(fs *Filesystem, mode uint16, uid cred.UID, gid cred.GID, nlink uint32) {
	t := now()
	n.fs, n.ino = fs, fs.ino.Add(1)
	n.mode, n.uid, n.gid, n.nlink = mode, uid, gid, nlink
	n.atime, n.mtime, n.ctime, n.btime = t, t, t, t
}

// base gives the node of any tmpfs inode.
func (n *node) base() *node { return n }

type hasNode interface{ base() *node }

func (n *node) attr() vfs.Attr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return vfs.Attr{Mode: n.mode, UID: n.uid, GID: n.gid, Nlink: n.nlink, Ino: n.ino, BlkSize: pageSize,
		Dev: n.fs.dev, Rdev: n.rdev, Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime, Btime: n.btime, HasBtime: true}
}

// Attr implements vfs.Inode.
func (n *node) Attr(vfs.Context) (vfs.Attr, error) { return n.attr(), nil }

// SetAttr implements vfs.Inode.
func (n *node) SetAttr(_ vfs.Context, s *vfs.SetAttr) error {
	t := now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.SetMode {
		n.mode = n.mode&abi.S_IFMT | s.Mode&07777
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
			n.atime = t
		}
	}
	if s.SetMtime {
		n.mtime = s.Mtime
		if s.MtimeNow {
			n.mtime = t
		}
	}
	n.ctime = t
	return nil
}

// touch sets the times to now.
func (n *node) touch(a, m, c bool) {
	t := now()
	n.mu.Lock()
	if a {
		n.atime = t
	}
	if m {
		n.mtime = t
	}
	if c {
		n.ctime = t
	}
	n.mu.Unlock()
}

// accessed updates the access time as relatime does (mount(8)), so that reading
// costs a write of it once a day only.
func (n *node) accessed() {
	t := now()
	n.mu.Lock()
	if n.atime <= n.mtime || n.atime <= n.ctime || t-n.atime > 24*3600*1e9 {
		n.atime = t
	}
	n.mu.Unlock()
}

func xattrOK(name string) bool {
	for _, p := range [...]string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// GetXattr implements vfs.Inode.
func (n *node) GetXattr(_ vfs.Context, name string) ([]byte, error) {
	if !xattrOK(name) {
		return nil, abi.EOPNOTSUPP
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.xattrs[name]
	if !ok {
		return nil, abi.ENODATA
	}
	return v, nil
}

// maxXattrs bounds the memory that one inode's attributes take.
const maxXattrs = 128 << 10

// SetXattr implements vfs.Inode.
func (n *node) SetXattr(_ vfs.Context, name string, value []byte, flags int) error {
	if !xattrOK(name) {
		return abi.EOPNOTSUPP
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, exists := n.xattrs[name]
	switch {
	case exists && flags&abi.XATTR_CREATE != 0:
		return abi.EEXIST
	case !exists && flags&abi.XATTR_REPLACE != 0:
		return abi.ENODATA
	}
	sum := len(name) + len(value)
	for k, v := range n.xattrs {
		if k != name {
			sum += len(k) + len(v)
		}
	}
	if sum > maxXattrs {
		return abi.ENOSPC
	}
	if n.xattrs == nil {
		n.xattrs = make(map[string][]byte)
	}
	n.xattrs[name] = append([]byte(nil), value...)
	n.ctime = now()
	return nil
}

// ListXattr implements vfs.Inode.
func (n *node) ListXattr(vfs.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for k := range n.xattrs {
		out = append(out, k)
	}
	return out, nil
}

// RemoveXattr implements vfs.Inode.
func (n *node) RemoveXattr(_ vfs.Context, name string) error {
	if !xattrOK(name) {
		return abi.EOPNOTSUPP
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.xattrs[name]; !ok {
		return abi.ENODATA
	}
	delete(n.xattrs, name)
	n.ctime = now()
	return nil
}

// symlink is a symbolic link.
type symlink struct {
	vfs.LeafDefaults
	node
	target string
}

// The node's methods win over the defaults, which lie deeper; these pairs are
// at the same depth.
func (l *symlink) Attr(vfs.Context) (vfs.Attr, error) {
	a := l.attr()
	a.Size = uint64(len(l.target))
	return a, nil
}

// Readlink implements vfs.Inode.
func (l *symlink) Readlink(vfs.Context) (string, error) {
	l.accessed()
	return l.target, nil
}

// special is a FIFO, socket or device node.
type special struct {
	vfs.LeafDefaults
	node
}

// NewInode makes an inode without a name, for file systems that keep their own
// directories and store content here (overlay). It lives until Forget. A
// directory made so only holds attributes.
func (fs *Filesystem) NewInode(mode uint16, uid cred.UID, gid cred.GID, rdev uint64, target string) (vfs.Inode, error) {
	if err := fs.newInode(); err != nil {
		return nil, err
	}
	switch mode & abi.S_IFMT {
	case abi.S_IFREG:
		r := &regular{}
		r.init(fs, mode, uid, gid, 1)
		return r, nil
	case abi.S_IFDIR:
		d := &dir{byName: make(map[string]*entry)}
		d.init(fs, mode, uid, gid, 1)
		d.parent = d
		return d, nil
	case abi.S_IFLNK:
		l := &symlink{target: target}
		l.init(fs, mode, uid, gid, 1)
		return l, nil
	}
	s := &special{}
	s.init(fs, mode, uid, gid, 1)
	s.rdev = rdev
	return s, nil
}

// Forget gives up an inode that NewInode made; open files keep its content.
func (fs *Filesystem) Forget(i vfs.Inode) { unlinked(i) }
