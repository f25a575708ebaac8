package gofer

import (
	"sync/atomic"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/internal/goferwire"
)

// noCalls answers what is never reached (goferwire.ServedMessage) or makes no sense.
type noCalls struct{}

func (noCalls) ReadAt([]byte, int64) (int, error)            { return 0, linux.ENOSYS }
func (noCalls) WriteAt([]byte, int64) (int, error)           { return 0, linux.ENOSYS }
func (noCalls) SetXattr(string, []byte, p9.XattrFlags) error { return linux.ENOSYS }
func (noCalls) GetXattr(string) ([]byte, error)              { return nil, linux.ENOSYS }
func (noCalls) ListXattrs() ([]string, error)                { return nil, linux.ENOSYS }
func (noCalls) RemoveXattr(string) error                     { return linux.ENOSYS }
func (noCalls) Rename(p9.File, string) error                 { return linux.ENOSYS }
func (noCalls) Renamed(p9.File, string)                      {}
func (noCalls) Create(string, p9.OpenFlags, p9.FileMode, p9.UID, p9.GID) (p9.File, p9.QID, uint32, error) {
	return nil, p9.QID{}, 0, linux.ENOSYS
}
func (noCalls) Lock(int, p9.LockType, p9.LockFlags, uint64, uint64, string) (p9.LockStatus, error) {
	return p9.LockStatusError, linux.ENOSYS
}

// attacher is the server as package p9 sees it. What it attaches is a
// directory of the mounts, so that an attach name is the name of a mount.
type attacher server

// Attach implements p9.Attacher.
func (a *attacher) Attach() (p9.File, error) { return &top{s: (*server)(a)}, nil }

// top is the made-up directory that holds the mounts; only walks work on it.
type top struct {
	noCalls
	s *server
}

func (t *top) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, f, _, _, err := t.WalkGetAttr(names)
	return qids, f, err
}

func (t *top) WalkGetAttr(names []string) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	if len(names) == 0 {
		_, mask, attr, _ := t.GetAttr(p9.AttrMaskAll)
		return nil, &top{s: t.s}, mask, attr, nil
	}
	for i := range t.s.mounts {
		m := &t.s.mounts[i]
		if m.Name != names[0] || len(names) != 1 {
			continue
		}
		fd, err := unix.FcntlInt(m.Root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, nil, p9.AttrMask{}, p9.Attr{}, errno(err)
		}
		n, st, err := t.s.newNode(i, fd, nil)
		return t.s.handle(n, st, err)
	}
	return nil, nil, p9.AttrMask{}, p9.Attr{}, linux.ENOENT
}

func (t *top) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return p9.QID{Type: p9.TypeDir}, p9.AttrMask{Mode: true}, p9.Attr{Mode: p9.ModeDirectory | 0555}, nil
}
func (t *top) StatFS() (p9.FSStat, error)                { return p9.FSStat{}, linux.ENOSYS }
func (t *top) SetAttr(p9.SetAttrMask, p9.SetAttr) error  { return linux.EROFS }
func (t *top) Close() error                              { return nil }
func (t *top) Open(p9.OpenFlags) (p9.QID, uint32, error) { return p9.QID{}, 0, linux.EACCES }
func (t *top) FSync() error                              { return linux.EINVAL }
func (t *top) Mkdir(string, p9.FileMode, p9.UID, p9.GID) (p9.QID, error) {
	return p9.QID{}, linux.EROFS
}
func (t *top) Symlink(string, string, p9.UID, p9.GID) (p9.QID, error) { return p9.QID{}, linux.EROFS }
func (t *top) Link(p9.File, string) error                             { return linux.EROFS }
func (t *top) RenameAt(string, p9.File, string) error                 { return linux.EROFS }
func (t *top) UnlinkAt(string, uint32) error                          { return linux.EROFS }
func (t *top) Readdir(uint64, uint32) (p9.Dirents, error)             { return nil, linux.EACCES }
func (t *top) Readlink() (string, error)                              { return "", linux.EINVAL }
func (t *top) Mknod(string, p9.FileMode, uint32, uint32, p9.UID, p9.GID) (p9.QID, error) {
	return p9.QID{}, linux.EROFS
}

// A file is what one fid refers to.
type file struct {
	noCalls
	s      *server
	n      *node
	closed atomic.Bool
	opened atomic.Bool
}

// handle makes a fid's file of what newNode returned, counted against the limit.
func (s *server) handle(n *node, st *unix.Statx_t, err error) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	if err != nil {
		return nil, nil, p9.AttrMask{}, p9.Attr{}, errno(err)
	}
	if err := s.take(); err != nil {
		s.put(n)
		return nil, nil, p9.AttrMask{}, p9.Attr{}, errno(err)
	}
	return []p9.QID{qid(n)}, &file{s: s, n: n}, attrMask, attr(st), nil
}

// Close implements p9.File. It may be called twice: the reference counts of
// package p9 do not hold against every sequence of messages.
func (f *file) Close() error {
	if !f.closed.Swap(true) {
		f.s.put(f.n)
		f.s.untake()
	}
	return nil
}

// Walk implements p9.File.
func (f *file) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, c, _, _, err := f.WalkGetAttr(names)
	return qids, c, err
}

// WalkGetAttr implements p9.File: one name, or none for a second handle.
func (f *file) WalkGetAttr(names []string) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	if f.closed.Load() {
		return nil, nil, p9.AttrMask{}, p9.Attr{}, linux.EBADF
	}
	if len(names) > 1 {
		return nil, nil, p9.AttrMask{}, p9.Attr{}, linux.EINVAL
	}
	if len(names) == 1 {
		return f.s.handle(f.s.walk(f.n, names[0]))
	}
	n, err := f.s.get(f.n.id)
	if err != nil {
		return nil, nil, p9.AttrMask{}, p9.Attr{}, errno(err)
	}
	st, err := fstatx(n.fd)
	if err != nil {
		f.s.put(n)
		return nil, nil, p9.AttrMask{}, p9.Attr{}, errno(err)
	}
	_, c, mask, a, err := f.s.handle(n, &st, nil)
	return nil, c, mask, a, err
}

// GetAttr implements p9.File.
func (f *file) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	if f.closed.Load() {
		return p9.QID{}, p9.AttrMask{}, p9.Attr{}, linux.EBADF
	}
	st, err := fstatx(f.n.fd)
	if err != nil {
		return p9.QID{}, p9.AttrMask{}, p9.Attr{}, errno(err)
	}
	return qid(f.n), attrMask, attr(&st), nil
}

// qid identifies n for the life of the connection.
func qid(n *node) p9.QID {
	return p9.QID{Type: p9.FileMode(n.fmt).QIDType(), Path: n.id}
}

var attrMask = p9.AttrMaskAll

// attr converts attributes. 9P has no field for the host's inode number and
// device: they travel as Gen and DataVersion.
func attr(st *unix.Statx_t) p9.Attr {
	a := p9.Attr{
		Mode: p9.FileMode(st.Mode), UID: p9.UID(st.Uid), GID: p9.GID(st.Gid), NLink: p9.NLink(st.Nlink),
		RDev: p9.Dev(devOf(st.Rdev_major, st.Rdev_minor)),
		Size: st.Size, BlockSize: uint64(st.Blksize), Blocks: st.Blocks,
		ATimeSeconds: uint64(st.Atime.Sec), ATimeNanoSeconds: uint64(st.Atime.Nsec),
		MTimeSeconds: uint64(st.Mtime.Sec), MTimeNanoSeconds: uint64(st.Mtime.Nsec),
		CTimeSeconds: uint64(st.Ctime.Sec), CTimeNanoSeconds: uint64(st.Ctime.Nsec),
		Gen: st.Ino, DataVersion: devOf(st.Dev_major, st.Dev_minor),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.BTimeSeconds, a.BTimeNanoSeconds = uint64(st.Btime.Sec), uint64(st.Btime.Nsec)
	}
	return a
}

// SetAttr implements p9.File. Its mode has no set-id bits in package p9: our
// client uses goferwire.OpSetAttr, others lose these bits.
func (f *file) SetAttr(valid p9.SetAttrMask, a p9.SetAttr) error {
	c := change{
		mode: uint32(a.Permissions), uid: uint32(a.UID), gid: uint32(a.GID), size: a.Size,
		setMode: valid.Permissions, setUID: valid.UID, setGID: valid.GID, setSize: valid.Size,
		atime: timeChange(valid.ATime, valid.ATimeNotSystemTime, a.ATimeSeconds, a.ATimeNanoSeconds),
		mtime: timeChange(valid.MTime, valid.MTimeNotSystemTime, a.MTimeSeconds, a.MTimeNanoSeconds),
	}
	return errno(f.s.change(f.n, &c))
}

func timeChange(set, explicit bool, sec, nsec uint64) unix.Timespec {
	switch {
	case !set:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case !explicit:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(min(nsec, 999999999))}
}

// StatFS implements p9.File.
func (f *file) StatFS() (p9.FSStat, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.n.fd, &st); err != nil {
		return p9.FSStat{}, errno(err)
	}
	return p9.FSStat{
		Type: uint32(st.Type), BlockSize: uint32(st.Bsize), Blocks: st.Blocks, BlocksFree: st.Bfree,
		BlocksAvailable: st.Bavail, Files: st.Files, FilesFree: st.Ffree,
		FSID: uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32, NameLength: uint32(st.Namelen),
	}, nil
}

// Open implements p9.File: directories only, for Treaddir and Tfsync.
// Regular files are opened over the descriptor channel.
func (f *file) Open(flags p9.OpenFlags) (p9.QID, uint32, error) {
	if f.n.fmt != unix.S_IFDIR || f.n.sealed || flags.Mode() != p9.ReadOnly {
		return p9.QID{}, 0, linux.EACCES
	}
	f.opened.Store(true)
	return qid(f.n), 0, nil
}

// FSync implements p9.File.
func (f *file) FSync() error { return errno(f.s.fsync(f.n)) }

// Readlink implements p9.File.
func (f *file) Readlink() (string, error) {
	if f.n.sealed {
		return "", linux.EACCES
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(f.n.fd, "", buf)
	if err != nil {
		return "", errno(err)
	}
	return string(buf[:n]), nil
}

// Readdir implements p9.File. Our client uses goferwire.OpReaddir, which takes
// one message for a whole directory.
func (f *file) Readdir(offset uint64, count uint32) (p9.Dirents, error) {
	if !f.opened.Load() {
		return nil, linux.EBADF
	}
	raw, _, err := f.s.readdir(f.n, offset, make([]byte, goferwire.MaxData))
	if err != nil {
		return nil, errno(err)
	}
	var out p9.Dirents
	size := 0
	forEachDirent(raw, func(ino, next uint64, typ uint8, name string) bool {
		// qid[13] offset[8] type[1] name[s]
		if size += 24 + len(name); size > int(count) {
			return false
		}
		out = append(out, p9.Dirent{QID: p9.QID{Type: p9.FileMode(uint32(typ) << 12).QIDType(), Path: ino}, Offset: next,
			Type: p9.QIDType(typ), Name: name})
		return true
	})
	return out, nil
}
