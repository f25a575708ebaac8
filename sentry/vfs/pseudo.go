package vfs

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/usermem"
)

// A PseudoSuperblock is a file system made of inodes in the Sentry's memory:
// proc, sys, dev, devpts. Set its root before it is mounted.
type PseudoSuperblock struct {
	typ     string
	magic   int64
	dev     uint64
	ino     atomic.Uint64
	root    Inode
	options string
}

// NewPseudoSuperblock makes one; magic is what statfs shows (abi.*_MAGIC).
func NewPseudoSuperblock(v *VFS, typ string, magic int64) *PseudoSuperblock {
	return &PseudoSuperblock{typ: typ, magic: magic, dev: v.NewAnonDev()}
}

// SetRoot sets the root directory.
func (s *PseudoSuperblock) SetRoot(i Inode) { s.root = i }

// SetOptions sets what /proc/mounts shows.
func (s *PseudoSuperblock) SetOptions(o string) { s.options = o }

// NextIno allocates an inode number.
func (s *PseudoSuperblock) NextIno() uint64 { return s.ino.Add(1) }

// Dev is st_dev of the file system's inodes.
func (s *PseudoSuperblock) Dev() uint64 { return s.dev }

// Root implements Superblock.
func (s *PseudoSuperblock) Root() Inode { return s.root }

// Type implements Superblock.
func (s *PseudoSuperblock) Type() string { return s.typ }

// Options implements Superblock.
func (s *PseudoSuperblock) Options() string { return s.options }

// CacheNegative implements Superblock: entries come and go without the VFS.
func (s *PseudoSuperblock) CacheNegative() bool { return false }

// Sync implements Superblock.
func (s *PseudoSuperblock) Sync(Context) error { return nil }

// Release implements Superblock.
func (s *PseudoSuperblock) Release() {}

// Statfs implements Superblock.
func (s *PseudoSuperblock) Statfs(Context) (abi.Statfs, error) {
	return abi.Statfs{Type: s.magic, Bsize: 4096, Frsize: 4096, Namelen: abi.NAME_MAX}, nil
}

// PseudoAttr is the attributes of an inode in memory: embed it for Attr and
// SetAttr (mode, owner, times; size changes are accepted and do nothing).
type PseudoAttr struct {
	mu sync.Mutex
	a  Attr
}

// InitAttr sets the attributes up; mode includes the type.
func (p *PseudoAttr) InitAttr(s *PseudoSuperblock, mode uint16) {
	now := time.Now().UnixNano()
	nlink := uint32(1)
	if mode&abi.S_IFMT == abi.S_IFDIR {
		nlink = 2
	}
	p.a = Attr{Mode: mode, Nlink: nlink, Ino: s.NextIno(), Dev: s.dev, BlkSize: 4096,
		Atime: now, Mtime: now, Ctime: now}
}

// SetOwner sets the owner.
func (p *PseudoAttr) SetOwner(u cred.UID, g cred.GID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.a.UID, p.a.GID = u, g
}

// SetRdev sets the device number of a device node.
func (p *PseudoAttr) SetRdev(dev uint64) { p.a.Rdev = dev }

// Attr implements Inode.
func (p *PseudoAttr) Attr(Context) (Attr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.a, nil
}

// SetAttr implements Inode.
func (p *PseudoAttr) SetAttr(_ Context, s *SetAttr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ApplySetAttr(&p.a, s, time.Now().UnixNano())
	return nil
}

// ApplySetAttr makes the changes of s, but for the size, to a.
func ApplySetAttr(a *Attr, s *SetAttr, now int64) {
	if s.SetMode {
		a.Mode = a.Mode&abi.S_IFMT | s.Mode&07777
	}
	if s.SetUID {
		a.UID = s.UID
	}
	if s.SetGID {
		a.GID = s.GID
	}
	if s.SetAtime {
		a.Atime = s.Atime
		if s.AtimeNow {
			a.Atime = now
		}
	}
	if s.SetMtime {
		a.Mtime = s.Mtime
		if s.MtimeNow {
			a.Mtime = now
		}
	}
	a.Ctime = now
}

// A PseudoDir is a directory whose entries the Sentry adds and removes.
type PseudoDir struct {
	NodeDefaults
	PseudoAttr

	dmu     sync.RWMutex
	entries map[string]Inode
	order   []string
}

// SetAttr implements Inode.
func (d *PseudoDir) SetAttr(ctx Context, s *SetAttr) error { return d.PseudoAttr.SetAttr(ctx, s) }

// NewDir makes an empty directory.
func (s *PseudoSuperblock) NewDir(perm uint16) *PseudoDir {
	d := &PseudoDir{entries: make(map[string]Inode)}
	d.InitAttr(s, abi.S_IFDIR|perm)
	return d
}

// Add puts an entry into the directory, in place of one of that name.
func (d *PseudoDir) Add(name string, i Inode) {
	d.dmu.Lock()
	defer d.dmu.Unlock()
	if d.entries[name] == nil {
		d.order = append(d.order, name)
	}
	d.entries[name] = i
	d.countLinks()
}

// Remove takes an entry out.
func (d *PseudoDir) Remove(name string) {
	d.dmu.Lock()
	defer d.dmu.Unlock()
	delete(d.entries, name)
	d.order = slices.DeleteFunc(d.order, func(n string) bool { return n == name })
	d.countLinks()
}

func (d *PseudoDir) countLinks() {
	n := uint32(2)
	for _, e := range d.entries {
		if a, err := e.Attr(bareContext); err == nil && a.IsDir() {
			n++
		}
	}
	d.mu.Lock()
	d.a.Nlink = n
	d.mu.Unlock()
}

// Lookup implements Inode.
func (d *PseudoDir) Lookup(_ Context, name string) (Inode, error) {
	d.dmu.RLock()
	defer d.dmu.RUnlock()
	if i := d.entries[name]; i != nil {
		return i, nil
	}
	return nil, abi.ENOENT
}

// Revalidate implements Revalidator: entries may be replaced or removed.
func (d *PseudoDir) Revalidate(_ Context, name string, child Inode) bool {
	d.dmu.RLock()
	defer d.dmu.RUnlock()
	return d.entries[name] == child
}

// List lists the entries in the order they were added.
func (d *PseudoDir) List(ctx Context) ([]Dirent, error) {
	d.dmu.RLock()
	defer d.dmu.RUnlock()
	out := make([]Dirent, 0, len(d.order))
	for _, n := range d.order {
		a, err := d.entries[n].Attr(ctx)
		if err != nil {
			continue
		}
		out = append(out, Dirent{Name: n, Ino: a.Ino, Type: abi.ModeToDT(a.Mode)})
	}
	return out, nil
}

// Open implements Inode.
func (d *PseudoDir) Open(ctx Context, de *Dentry, flags uint32) (FileOps, error) {
	return NewDirFile(de, d.List), nil
}

// A DirFile is an open directory whose entries are a snapshot, taken when it is
// read from its beginning.
type DirFile struct {
	FileDefaults
	d    *Dentry
	list func(Context) ([]Dirent, error)

	mu   sync.Mutex
	snap []Dirent
}

// NewDirFile opens directory d; list gives its entries without "." and ".."
// (Next need not be set).
func NewDirFile(d *Dentry, list func(Context) ([]Dirent, error)) *DirFile {
	return &DirFile{d: d, list: list}
}

// ReadDir implements FileOps.
func (f *DirFile) ReadDir(ctx Context, _ *File, pos int64, emit func(Dirent) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pos == 0 || f.snap == nil {
		l, err := f.list(ctx)
		if err != nil {
			return err
		}
		f.snap = l
	}
	for ; pos < 2; pos++ {
		if !emit(DotEntry(ctx, f.d, pos)) {
			return nil
		}
	}
	for i := pos - 2; i < int64(len(f.snap)); i++ {
		e := f.snap[i]
		e.Next = i + 3
		if !emit(e) {
			return nil
		}
	}
	return nil
}

// DotEntry is "." (pos 0) or ".." (pos 1) of the directory d.
func DotEntry(ctx Context, d *Dentry, pos int64) Dirent {
	e := Dirent{Name: ".", Type: abi.DT_DIR, Next: pos + 1}
	if pos == 1 {
		e.Name = ".."
		if p := d.Parent(); p != nil {
			d = p
		}
	}
	if a, err := d.inode.Attr(ctx); err == nil {
		e.Ino = a.Ino
	}
	return e
}

// Seek implements FileOps: any position may be sought, as with most directories.
func (f *DirFile) Seek(ctx Context, _ *File, cur, off int64, whence int) (int64, error) {
	if whence != abi.SEEK_SET && whence != abi.SEEK_CUR {
		return 0, abi.EINVAL
	}
	return SeekSize(cur, off, 0, whence)
}

// Read implements FileOps.
func (f *DirFile) Read(Context, *File, *usermem.Buffer, int64, IOFlags) (int64, error) {
	return 0, abi.EISDIR
}

// Sync implements FileOps.
func (f *DirFile) Sync(Context, *File, bool) error { return nil }

// A DynFile is a regular file whose content is made when it is read, as the
// files of proc and sys are. Its size shows as zero.
type DynFile struct {
	LeafDefaults
	PseudoAttr
	gen func(ctx Context) ([]byte, error)
	set func(ctx Context, data []byte) error
}

// SetAttr implements Inode.
func (i *DynFile) SetAttr(ctx Context, s *SetAttr) error { return i.PseudoAttr.SetAttr(ctx, s) }

// NewDynFile makes a read-only file.
func (s *PseudoSuperblock) NewDynFile(perm uint16, gen func(ctx Context) ([]byte, error)) *DynFile {
	return s.NewWritableFile(perm, gen, nil)
}

// NewWritableFile makes a file that also takes writes: set gets each write's bytes.
func (s *PseudoSuperblock) NewWritableFile(perm uint16, gen func(ctx Context) ([]byte, error), set func(ctx Context, data []byte) error) *DynFile {
	f := &DynFile{gen: gen, set: set}
	f.InitAttr(s, abi.S_IFREG|perm)
	return f
}

// NewStaticFile makes a file of fixed content.
func (s *PseudoSuperblock) NewStaticFile(perm uint16, content string) *DynFile {
	return s.NewDynFile(perm, func(Context) ([]byte, error) { return []byte(content), nil })
}

// Open implements Inode.
func (i *DynFile) Open(ctx Context, _ *Dentry, flags uint32) (FileOps, error) {
	return NewDynFileOps(i.gen, i.set), nil
}

// DynFileOps are the operations of a file with generated content: made when it
// is first read, and again when it is read from offset 0 (as seq_file does).
type DynFileOps struct {
	FileDefaults
	gen func(ctx Context) ([]byte, error)
	set func(ctx Context, data []byte) error

	mu   sync.Mutex
	data []byte
	made bool
}

// NewDynFileOps makes operations from a generator and an optional writer.
func NewDynFileOps(gen func(ctx Context) ([]byte, error), set func(ctx Context, data []byte) error) *DynFileOps {
	return &DynFileOps{gen: gen, set: set}
}

// Read implements FileOps.
func (o *DynFileOps) Read(ctx Context, _ *File, dst *usermem.Buffer, off int64, _ IOFlags) (int64, error) {
	if o.gen == nil {
		return 0, abi.EINVAL
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if off == 0 || !o.made {
		d, err := o.gen(ctx)
		if err != nil {
			return 0, err
		}
		o.data, o.made = d, true
	}
	if off >= int64(len(o.data)) {
		return 0, nil
	}
	p := o.data[off:]
	if len(p) > dst.Len() {
		p = p[:dst.Len()]
	}
	n, err := dst.Write(p)
	return int64(n), err
}

// Write implements FileOps.
func (o *DynFileOps) Write(ctx Context, _ *File, src *usermem.Buffer, off int64, _ IOFlags) (int64, int64, error) {
	if o.set == nil {
		return 0, 0, abi.EIO
	}
	n := src.Len()
	p := make([]byte, min(n, 1<<16))
	if m, err := src.Read(p); err != nil {
		return 0, 0, err
	} else {
		p = p[:m]
	}
	if err := o.set(ctx, p); err != nil {
		return 0, 0, err
	}
	return int64(len(p)), off + int64(len(p)), nil
}

// Seek implements FileOps.
func (o *DynFileOps) Seek(ctx Context, _ *File, cur, off int64, whence int) (int64, error) {
	if whence != abi.SEEK_SET && whence != abi.SEEK_CUR {
		return 0, abi.EINVAL
	}
	return SeekSize(cur, off, 0, whence)
}

// A PseudoSymlink is a symbolic link whose target may depend on who asks.
type PseudoSymlink struct {
	LeafDefaults
	PseudoAttr
	target func(ctx Context) (string, error)
}

// SetAttr implements Inode.
func (l *PseudoSymlink) SetAttr(ctx Context, s *SetAttr) error { return l.PseudoAttr.SetAttr(ctx, s) }

// NewSymlink makes a link to a fixed target.
func (s *PseudoSuperblock) NewSymlink(target string) *PseudoSymlink {
	return s.NewDynSymlink(func(Context) (string, error) { return target, nil })
}

// NewDynSymlink makes a link whose target is asked for each time.
func (s *PseudoSuperblock) NewDynSymlink(target func(ctx Context) (string, error)) *PseudoSymlink {
	l := &PseudoSymlink{target: target}
	l.InitAttr(s, abi.S_IFLNK|0777)
	return l
}

// Readlink implements Inode.
func (l *PseudoSymlink) Readlink(ctx Context) (string, error) { return l.target(ctx) }

// A PseudoNode is a device node, FIFO or socket.
type PseudoNode struct {
	LeafDefaults
	PseudoAttr
}

// SetAttr implements Inode.
func (n *PseudoNode) SetAttr(ctx Context, s *SetAttr) error { return n.PseudoAttr.SetAttr(ctx, s) }

// NewNode makes a node; mode includes the type.
func (s *PseudoSuperblock) NewNode(mode uint16, rdev uint64) *PseudoNode {
	n := &PseudoNode{}
	n.InitAttr(s, mode)
	n.a.Rdev = rdev
	return n
}
