package gofer

import (
	"strings"
	"sync"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/goferwire"
	"garrison/sentry/cred"
	"garrison/sentry/vfs"
)

// An inode is a file of the host's, of any type.
type inode struct {
	fs    *FS
	key   inodeKey
	ftype uint16 // S_IFMT
	btime int64
	res   *resource

	// ioMu orders writes that depend on the size (O_APPEND, truncation).
	ioMu sync.RWMutex
	maps mappings

	mu sync.Mutex
	// parent and name are where the file was last seen; parent is nil for the root.
	parent *inode
	name   string
	attr   vfs.Attr
	fresh  bool   // attr holds
	seq    uint64 // counts reasons for attr not to hold, so that what was asked before one is not kept
	link   string
	// entries is a directory's listing in exclusive mode; nil if not known.
	entries []vfs.Dirent
	names   map[string]struct{}         // the names there are, once enough lookups have failed
	misses  int                         // failed lookups
	changes uint64                      // counts changes to the directory, so that a listing read meanwhile is not kept
	ahead   map[string]*goferwire.Entry // attributes that came with the listing, until looked up
	noCaps  bool                        // exclusive mode: there is no security.capability
}

var _ interface {
	vfs.Inode
	vfs.Revalidator
} = (*inode)(nil)

// where is the name to find the file by.
func (i *inode) where() (*inode, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.parent, i.name
}

// setAttr takes over attributes, asked for at count seq.
func (i *inode) setAttr(e *goferwire.Entry, seq uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.attr = vfs.Attr{
		Mode: uint16(e.Mode), UID: cred.UID(e.UID), GID: cred.GID(e.GID), Nlink: e.Nlink,
		Ino: i.attr.Ino, Dev: i.attr.Dev, Rdev: e.Rdev, Size: e.Size, Blocks: e.Blocks, BlkSize: e.BlkSize,
		Atime: e.Atime, Mtime: e.Mtime, Ctime: e.Ctime, Btime: e.Btime, HasBtime: e.Btime != 0,
	}
	if i.fs.opts.Unmapped {
		if i.attr.UID == overflowID {
			i.attr.UID = 0
		}
		if i.attr.GID == overflowID {
			i.attr.GID = 0
		}
	}
	i.fresh = i.seq == seq
}

// stale notes that attributes have changed.
func (i *inode) stale() {
	i.mu.Lock()
	i.fresh = false
	i.seq++
	i.mu.Unlock()
}

// Attr implements vfs.Inode.
func (i *inode) Attr(vfs.Context) (vfs.Attr, error) {
	i.mu.Lock()
	if i.fresh && i.fs.opts.Exclusive && !i.maps.written.Load() {
		a := i.attr
		i.mu.Unlock()
		return a, nil
	}
	i.mu.Unlock()
	if err := i.refresh(); err != nil && err != abi.ENOENT { // ENOENT: its last name and last user are gone
		return vfs.Attr{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.attr, nil
}

// refresh gets the attributes: in exclusive mode from a donated descriptor if
// there is one, which costs no message. The owner it does not tell: the host
// shows it as the Sentry's user namespace maps it, and that has no ids but one.
func (i *inode) refresh() error {
	i.mu.Lock()
	seq := i.seq
	i.mu.Unlock()
	r := i.res
	r.mu.Lock()
	if fd := r.anyFD(); fd >= 0 && i.fs.opts.Exclusive {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		r.mu.Unlock()
		if err != nil {
			return abi.FromHost(err)
		}
		i.mu.Lock()
		a := &i.attr
		a.Mode, a.Nlink = uint16(st.Mode), uint32(st.Nlink)
		a.Size, a.Blocks = uint64(st.Size), uint64(st.Blocks)
		a.Atime, a.Mtime, a.Ctime = st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano()
		i.fresh = i.seq == seq
		i.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	f, _, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	_, _, a, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		return i.fs.c.err(err)
	}
	i.setAttr(attrOf(&a), seq)
	return nil
}

// SetAttr implements vfs.Inode.
func (i *inode) SetAttr(ctx vfs.Context, s *vfs.SetAttr) error {
	req := goferwire.Request{
		Op: goferwire.OpSetAttr, Mode: uint32(s.Mode), UID: uint32(s.UID), GID: uint32(s.GID), Size: s.Size,
		Atime: s.Atime, Mtime: s.Mtime,
	}
	for _, b := range [...]struct {
		set bool
		bit uint32
	}{{s.SetMode, goferwire.SetMode}, {s.SetUID, goferwire.SetUID}, {s.SetGID, goferwire.SetGID}, {s.SetSize, goferwire.SetSize},
		{s.SetAtime, goferwire.SetAtime}, {s.SetMtime, goferwire.SetMtime}, {s.AtimeNow, goferwire.AtimeNow}, {s.MtimeNow, goferwire.MtimeNow}} {
		if b.set {
			req.Valid |= b.bit
		}
	}
	if req.Valid&goferwire.SetMode != 0 && i.ftype == abi.S_IFLNK {
		return abi.EOPNOTSUPP
	}
	if s.SetSize {
		if limit := sizeLimit(ctx); s.Size > limit {
			return tooBig(ctx)
		}
		i.ioMu.Lock()
		defer i.ioMu.Unlock()
		defer func() { i.maps.invalidate(i, (s.Size+4095)&^4095, ^uint64(0)&^4095) }()
		if done, err := i.truncateHere(s.Size); done {
			if err != nil {
				return err
			}
			if req.Valid &^= goferwire.SetSize; req.Valid == 0 {
				i.stale()
				return nil
			}
		}
	}
	var resp goferwire.Response
	if _, err := i.call(&req, &resp); err != nil {
		i.stale() // a part may have been done
		return err
	}
	i.mu.Lock()
	a, n := &i.attr, &resp.Attr
	a.Mode, a.UID, a.GID, a.Size, a.Blocks = uint16(n.Mode), cred.UID(n.UID), cred.GID(n.GID), n.Size, n.Blocks
	a.Atime, a.Mtime, a.Ctime = n.Atime, n.Mtime, n.Ctime
	i.seq++
	i.mu.Unlock()
	return nil
}

// truncateHere changes the size through a donated descriptor, if there is one
// for writing.
func (i *inode) truncateHere(size uint64) (done bool, err error) {
	i.res.mu.Lock()
	defer i.res.mu.Unlock()
	fd := i.res.writeFD.Load()
	if fd < 0 {
		return false, nil
	}
	return true, abi.FromHost(unix.Ftruncate(int(fd), int64(size)))
}

// sizeLimit is RLIMIT_FSIZE.
func sizeLimit(ctx vfs.Context) uint64 {
	if ctx == nil {
		return 1<<63 - 1
	}
	return min(ctx.FileSizeLimit(), 1<<63-1)
}

func tooBig(ctx vfs.Context) error {
	if ctx != nil {
		ctx.SendSelf(abi.SIGXFSZ)
	}
	return abi.EFBIG
}

// Readlink implements vfs.Inode.
func (i *inode) Readlink(vfs.Context) (string, error) {
	if i.ftype != abi.S_IFLNK {
		return "", abi.EINVAL
	}
	if i.fs.opts.Exclusive {
		i.mu.Lock()
		l := i.link
		i.mu.Unlock()
		if l != "" {
			return l, nil
		}
	}
	if parent, name := i.where(); parent != nil && i.fs.opts.Exclusive {
		// One message, which brings the target with it.
		if c, err := parent.child(name, false); err == nil && c == i {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.link, nil
		}
	}
	f, _, err := i.acquire()
	if err != nil {
		return "", err
	}
	defer i.release()
	l, err := f.Readlink()
	if err != nil {
		return "", i.fs.c.err(err)
	}
	i.mu.Lock()
	i.link = l
	i.mu.Unlock()
	return l, nil
}

// Revalidate implements vfs.Revalidator: in shared mode a cached name holds if
// the Gofer still finds the same file under it.
func (i *inode) Revalidate(_ vfs.Context, name string, child vfs.Inode) bool {
	if i.fs.opts.Exclusive {
		return true
	}
	c, _ := child.(*inode)
	if c == nil {
		return false // nothing is known of names that were missing
	}
	f, _, err := i.acquire()
	if err != nil {
		return false
	}
	defer i.release()
	qids, cf, _, a, err := i.fs.walk(f, name)
	if err != nil {
		return false
	}
	if (inodeKey{a.DataVersion, a.Gen}) != c.key || uint16(a.Mode)&abi.S_IFMT != c.ftype {
		cf.Close()
		return false
	}
	c.found(i, name, cf, qids[0].Path)
	return true
}

// GetXattr implements vfs.Inode.
func (i *inode) GetXattr(_ vfs.Context, name string) ([]byte, error) {
	caps := name == "security.capability"
	if !caps && !strings.HasPrefix(name, "user.") {
		return nil, abi.EOPNOTSUPP
	}
	if caps && i.fs.opts.Exclusive {
		i.mu.Lock()
		none := i.noCaps
		i.mu.Unlock()
		if none {
			return nil, abi.ENODATA
		}
	}
	v, err := i.xattr(goferwire.OpGetXattr, name, nil, 0)
	if caps && err == abi.ENODATA {
		i.mu.Lock()
		i.noCaps = true
		i.mu.Unlock()
	}
	return v, err
}

// SetXattr implements vfs.Inode.
func (i *inode) SetXattr(_ vfs.Context, name string, value []byte, flags int) error {
	if len(value) > goferwire.MaxData {
		return abi.E2BIG
	}
	_, err := i.xattr(goferwire.OpSetXattr, name, value, uint32(flags))
	return err
}

// ListXattr implements vfs.Inode.
func (i *inode) ListXattr(vfs.Context) ([]string, error) {
	b, err := i.xattr(goferwire.OpListXattr, "", nil, 0)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// RemoveXattr implements vfs.Inode.
func (i *inode) RemoveXattr(_ vfs.Context, name string) error {
	_, err := i.xattr(goferwire.OpRemoveXattr, name, nil, 0)
	return err
}

func (i *inode) xattr(op goferwire.Op, name string, value []byte, flags uint32) ([]byte, error) {
	if len(name) > goferwire.MaxName {
		return nil, abi.ERANGE
	}
	var resp goferwire.Response
	if _, err := i.call(&goferwire.Request{Op: op, Name: name, Data: value, Flags: flags}, &resp); err != nil {
		return nil, err
	}
	if op == goferwire.OpSetXattr || op == goferwire.OpRemoveXattr {
		i.stale() // ctime
	}
	return resp.Data, nil
}

// Open implements vfs.Inode.
func (i *inode) Open(_ vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	switch i.ftype {
	case abi.S_IFDIR:
		return &dirFile{i: i}, nil
	case abi.S_IFREG:
	default:
		return nil, abi.ENXIO
	}
	if i.fs.c.dead.Load() {
		return nil, abi.EIO // although a descriptor may be left over
	}
	acc := flags & abi.O_ACCMODE
	i.res.opened()
	var err error
	if acc != abi.O_WRONLY {
		err = i.ensureFD(false)
	}
	if err == nil && acc != abi.O_RDONLY {
		err = i.ensureFD(true)
	}
	if err != nil {
		i.res.released()
		return nil, err
	}
	return &regFile{i: i}, nil
}
