package gofer

import (
	"encoding/binary"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/internal/goferwire"
)

// A change is a set of attributes to change; times with UTIME_OMIT stay.
type change struct {
	setMode, setUID, setGID, setSize bool
	mode, uid, gid                   uint32
	size                             uint64
	atime, mtime                     unix.Timespec
}

// change applies c to n. What comes first stays if a later part fails, as with
// the system calls one by one.
func (s *server) change(n *node, c *change) error {
	if err := s.writable(n, false); err != nil {
		return err
	}
	if c.setSize {
		if n.fmt != unix.S_IFREG {
			return unix.EINVAL
		}
		if int64(c.size) < 0 {
			return unix.EINVAL
		}
		fd, err := s.reopen(n, unix.O_WRONLY)
		if err != nil {
			return err
		}
		err = unix.Ftruncate(fd, int64(c.size))
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	if c.setUID || c.setGID {
		u, g := -1, -1
		if c.setUID {
			u = int(c.uid)
		}
		if c.setGID {
			g = int(c.gid)
		}
		if err := unix.Fchownat(n.fd, "", u, g, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if c.setMode { // after chown, which clears set-id bits
		if n.fmt == unix.S_IFLNK {
			return unix.EOPNOTSUPP
		}
		if err := unix.Fchmodat(s.procFD, itoa(n.fd), c.mode&07777, 0); err != nil {
			return err
		}
	}
	if c.atime.Nsec != unix.UTIME_OMIT || c.mtime.Nsec != unix.UTIME_OMIT {
		ts := []unix.Timespec{c.atime, c.mtime}
		if n.fmt == unix.S_IFLNK {
			// A magic link to a symbolic link would be followed to its target.
			return unix.UtimesNanoAt(n.fd, "", ts, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
		}
		return unix.UtimesNanoAt(s.procFD, itoa(n.fd), ts, 0)
	}
	return nil
}

// fsync syncs a directory or regular file.
func (s *server) fsync(n *node) error {
	if n.fmt != unix.S_IFDIR && n.fmt != unix.S_IFREG {
		return unix.EINVAL
	}
	fd, err := s.reopen(n, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// readdir fills buf with a run of struct linux_dirent64 from cookie off on, and
// says whether that was the end. Nothing is kept between calls: cookies are good
// for any descriptor of the same directory.
func (s *server) readdir(n *node, off uint64, buf []byte) (run []byte, last bool, err error) {
	if n.fmt != unix.S_IFDIR {
		return nil, false, unix.ENOTDIR
	}
	if n.sealed {
		return nil, true, nil
	}
	fd, err := s.reopen(n, unix.O_RDONLY)
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(fd)
	if off != 0 {
		if _, err := unix.Seek(fd, int64(off), unix.SEEK_SET); err != nil {
			return nil, false, err
		}
	}
	used := 0
	for len(buf)-used >= 512 { // room for any one entry, or getdents64 gives EINVAL
		k, err := unix.Getdents(fd, buf[used:])
		if err != nil && used == 0 {
			return nil, false, err
		}
		if err != nil || k == 0 {
			return buf[:used], err == nil, nil
		}
		used += k
	}
	return buf[:used], false, nil
}

// readdirPlus is readdir with attributes, in goferwire's form; raw is scratch
// space. The attributes are those of the name itself: links are not followed,
// and what is mounted on it is left to a walk, which looks at the file system
// first.
func (s *server) readdirPlus(n *node, off uint64, raw, out []byte) (run []byte, last bool, err error) {
	raw, last, err = s.readdir(n, off, raw)
	if err != nil || len(raw) == 0 {
		return nil, last, err
	}
	out = out[:0]
	forEachDirent(raw, func(ino, next uint64, typ uint8, name string) bool {
		if len(out)+goferwire.EntrySize(len(name)) > goferwire.MaxData {
			last = false
			return false
		}
		e := goferwire.Entry{Name: name, Ino: ino, Next: next, Type: typ}
		var st unix.Statx_t
		if checkName(name) == nil &&
			unix.Statx(n.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_SYNC_AS_STAT, statxMask, &st) == nil &&
			st.Mnt_id == n.key.hostMnt && devOf(st.Dev_major, st.Dev_minor) == n.key.dev {
			fillEntry(&e, &st)
		}
		out = e.Append(out)
		return true
	})
	return out, last, nil
}

// fillEntry gives e its attributes.
func fillEntry(e *goferwire.Entry, st *unix.Statx_t) {
	e.HasAttr = true
	e.Mode, e.UID, e.GID, e.Nlink, e.BlkSize = uint32(st.Mode), st.Uid, st.Gid, st.Nlink, st.Blksize
	e.Ino, e.Dev, e.Rdev = st.Ino, devOf(st.Dev_major, st.Dev_minor), devOf(st.Rdev_major, st.Rdev_minor)
	e.Size, e.Blocks = st.Size, st.Blocks
	e.Atime, e.Mtime, e.Ctime = nanos(st.Atime), nanos(st.Mtime), nanos(st.Ctime)
	if st.Mask&unix.STATX_BTIME != 0 {
		e.Btime = nanos(st.Btime)
	}
}

// forEachDirent calls fn for the entries of a run of struct linux_dirent64.
func forEachDirent(b []byte, fn func(ino, next uint64, typ uint8, name string) bool) {
	for len(b) >= 19 {
		l := int(binary.LittleEndian.Uint16(b[16:]))
		if l < 19 || l > len(b) {
			return
		}
		name := b[19:l]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if !fn(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[18], string(name)) {
			return
		}
		b = b[l:]
	}
}

// adopt gives a file just made, open as fd, its owner and full mode. Ids that
// are NoUID stay as the host made them. A directory keeps the set-group-ID bit
// that it has inherited.
func (s *server) adopt(fd int, uid, gid uint32, mode uint32, symlink bool) error {
	st, err := fstatx(fd)
	if err != nil {
		return err
	}
	u, g := -1, -1
	if p9.UID(uid).Ok() && uid != st.Uid {
		u = int(uid)
	}
	if p9.GID(gid).Ok() && gid != st.Gid {
		g = int(gid)
	}
	if u >= 0 || g >= 0 {
		if err := unix.Fchownat(fd, "", u, g, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if symlink {
		return nil
	}
	have := uint32(st.Mode) & 07777
	want := mode&07777 | have&unix.S_ISGID
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFDIR {
		want = mode & 07777
	}
	if have != want || (u >= 0 || g >= 0) && want&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return unix.Fchmodat(s.procFD, itoa(fd), want, 0)
	}
	return nil
}

// made finishes a file that a call has just made under name in n: it looks the
// name up again without following anything, checks that it still is what was
// made (another process of the host may be at work in the directory), and
// gives it its owner; on failure the name is removed again.
func (s *server) made(n *node, name string, fmt, uid, gid, mode uint32) (p9.QID, error) {
	fd, err := s.openChild(n, name)
	if err != nil {
		return p9.QID{}, err
	}
	defer unix.Close(fd)
	st, err := fstatx(fd)
	if err != nil {
		return p9.QID{}, err
	}
	if uint32(st.Mode)&unix.S_IFMT != fmt || st.Uid != s.uid || fmt != unix.S_IFDIR && st.Nlink != 1 {
		return p9.QID{}, unix.EBUSY
	}
	if err := s.adopt(fd, uid, gid, mode, fmt == unix.S_IFLNK); err != nil {
		flags := 0
		if fmt == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
		}
		unix.Unlinkat(n.fd, name, flags)
		return p9.QID{}, err
	}
	return p9.QID{Type: p9.FileMode(fmt).QIDType()}, nil
}

// mayMake checks that name can be made in n.
func (s *server) mayMake(n *node, name string) error {
	if err := s.writable(n, true); err != nil {
		return err
	}
	return checkName(name)
}

// Mkdir implements p9.File. The QIDs of what is made have no path: only a walk
// makes a node.
func (f *file) Mkdir(name string, mode p9.FileMode, uid p9.UID, gid p9.GID) (p9.QID, error) {
	if err := f.s.mayMake(f.n, name); err != nil {
		return p9.QID{}, errno(err)
	}
	if err := unix.Mkdirat(f.n.fd, name, uint32(mode)&01777); err != nil {
		return p9.QID{}, errno(err)
	}
	q, err := f.s.made(f.n, name, unix.S_IFDIR, uint32(uid), uint32(gid), uint32(mode)&01777)
	return q, errno(err)
}

// Symlink implements p9.File.
func (f *file) Symlink(target, name string, uid p9.UID, gid p9.GID) (p9.QID, error) {
	if err := f.s.mayMake(f.n, name); err != nil {
		return p9.QID{}, errno(err)
	}
	if err := unix.Symlinkat(target, f.n.fd, name); err != nil {
		return p9.QID{}, errno(err)
	}
	q, err := f.s.made(f.n, name, unix.S_IFLNK, uint32(uid), uint32(gid), 0)
	return q, errno(err)
}

// Mknod implements p9.File: regular files, FIFOs and sockets. Device nodes of
// the host's are nothing a sandbox may make.
func (f *file) Mknod(name string, mode p9.FileMode, _, _ uint32, uid p9.UID, gid p9.GID) (p9.QID, error) {
	if err := f.s.mayMake(f.n, name); err != nil {
		return p9.QID{}, errno(err)
	}
	typ := uint32(mode) & unix.S_IFMT
	switch typ {
	case 0:
		typ = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return p9.QID{}, errno(unix.EPERM)
	}
	if err := unix.Mknodat(f.n.fd, name, typ|uint32(mode)&0777, 0); err != nil {
		return p9.QID{}, errno(err)
	}
	q, err := f.s.made(f.n, name, typ, uint32(uid), uint32(gid), uint32(mode)&07777)
	return q, errno(err)
}

// Link implements p9.File.
func (f *file) Link(target p9.File, name string) error {
	t, ok := target.(*file)
	if !ok || t.n.mount != f.n.mount {
		return errno(unix.EXDEV)
	}
	if err := f.s.mayMake(f.n, name); err != nil {
		return errno(err)
	}
	if t.n.fmt == unix.S_IFDIR || t.n.sealed {
		return errno(unix.EPERM)
	}
	// Through the magic link: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
	return errno(unix.Linkat(f.s.procFD, itoa(t.n.fd), f.n.fd, name, unix.AT_SYMLINK_FOLLOW))
}

// A renameKey names a rename that is to come over 9P.
type renameKey struct {
	dir, newDir   uint64
	name, newName string
}

// RenameAt implements p9.File, with the flags that OpArmRename has left for it.
func (f *file) RenameAt(oldName string, newDir p9.File, newName string) error {
	d, ok := newDir.(*file)
	if !ok || d.n.mount != f.n.mount {
		return errno(unix.EXDEV)
	}
	if err := f.s.mayMake(f.n, oldName); err != nil {
		return errno(err)
	}
	if err := f.s.mayMake(d.n, newName); err != nil {
		return errno(err)
	}
	key := renameKey{f.n.id, d.n.id, oldName, newName}
	f.s.mu.Lock()
	flags := f.s.armed[key]
	delete(f.s.armed, key)
	f.s.mu.Unlock()
	return errno(unix.Renameat2(f.n.fd, oldName, d.n.fd, newName, uint(flags)))
}

// armRename notes the flags for a rename. Only RENAME_NOREPLACE: package p9's
// idea of names would be wrong after an exchange.
func (s *server) armRename(k renameKey, flags uint32) error {
	if flags != unix.RENAME_NOREPLACE {
		return unix.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.armed) >= 1024 { // a client that never renames
		return unix.EBUSY
	}
	s.armed[k] = flags
	return nil
}

// UnlinkAt implements p9.File.
func (f *file) UnlinkAt(name string, flags uint32) error {
	if flags&^unix.AT_REMOVEDIR != 0 {
		return errno(unix.EINVAL)
	}
	if err := f.s.mayMake(f.n, name); err != nil {
		return errno(err)
	}
	return errno(unix.Unlinkat(f.n.fd, name, int(flags)))
}
