// Package host wraps open files of the host that the sandbox was given: the
// standard streams of `runsc do`, be they regular files, pipes, sockets,
// devices or the user's terminal. The host's open file description stays shared
// with whoever else has it: its offset moves, its flags are left alone, and
// nothing here ever sleeps in the host on it.
//
// It opens nothing on the host. A guest that opens a stream again by name
// (/proc/self/fd/1, /dev/stdout) gets the same host file. Job control on the
// terminal is the kernel's; this package passes modes and data through.
//
// Lock order: Poller.mu, then wait.Queue's lock. TTY.mu is a leaf.
package host

import (
	"math"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/cred"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// kind says how a host file is read and written without sleeping.
type kind uint8

const (
	regular kind = iota // never sleeps; offset in the host
	pipe                // preadv2 with RWF_NOWAIT where the host has it
	socket              // MSG_DONTWAIT
	device              // poll first: terminals, /dev/null
)

// An Inode is one file of the host's. It implements vfs.Inode and mm.Mappable.
type Inode struct {
	vfs.LeafDefaults
	fd     int
	kind   kind
	seeks  bool // has a host offset
	dev    uint64
	name   string
	queue  wait.Queue
	poller *Poller
	pollID int // under Poller.mu; 0 when not watched
	tty    *TTY
	nowait bool // RWF_NOWAIT works; only ever goes from true to false, harmlessly raced
}

// A Source says what an open file of the host's becomes.
type Source struct {
	FD     int
	Name   string // what /proc/self/fd shows
	Dev    uint64 // st_dev of all host files, from vfs.NewAnonDev
	Poller *Poller
}

// NewFile makes the guest's open file description of a host file, and takes
// the descriptor over. For terminals use NewTTY.
func NewFile(s Source) (*vfs.File, error) {
	i, flags, err := newInode(s)
	if err != nil {
		return nil, err
	}
	return vfs.NewAnonFile(&file{i: i, shared: true}, flags, s.Name), nil
}

func newInode(s Source) (*Inode, uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(s.FD, &st); err != nil {
		return nil, 0, abi.FromHost(err)
	}
	flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFL, 0)
	if err != nil {
		return nil, 0, abi.FromHost(err)
	}
	i := &Inode{fd: s.FD, dev: s.Dev, name: s.Name, poller: s.Poller, nowait: true}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK, unix.S_IFDIR:
		i.kind = regular
	case unix.S_IFIFO:
		i.kind = pipe
	case unix.S_IFSOCK:
		i.kind = socket
	default:
		i.kind = device
	}
	_, err = unix.Seek(s.FD, 0, unix.SEEK_CUR)
	i.seeks = err == nil
	// The host's O_NONBLOCK stays with the host: what the guest sets is its own.
	return i, uint32(flags) & (abi.O_ACCMODE | abi.O_APPEND | abi.O_NONBLOCK | abi.O_LARGEFILE), nil
}

// Attr implements vfs.Inode: the host's attributes under a device number of ours.
func (i *Inode) Attr(vfs.Context) (vfs.Attr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(i.fd, &st); err != nil {
		return vfs.Attr{}, abi.FromHost(err)
	}
	return vfs.Attr{
		Mode: uint16(st.Mode), UID: cred.UID(st.Uid), GID: cred.GID(st.Gid), Nlink: uint32(st.Nlink),
		Ino: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks), BlkSize: uint32(st.Blksize),
		Dev: i.dev, Rdev: vfs.MakeDev(unix.Major(st.Rdev), unix.Minor(st.Rdev)),
		Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}, nil
}

// SetAttr implements vfs.Inode: the size of a regular file can be set; mode,
// owner and times of the caller's files are not the guest's to change, and
// programs that try on their standard streams are told that it worked.
func (i *Inode) SetAttr(_ vfs.Context, s *vfs.SetAttr) error {
	if !s.SetSize {
		return nil
	}
	if i.kind != regular || s.Size > math.MaxInt64 {
		return abi.EINVAL
	}
	return abi.FromHost(unix.Ftruncate(i.fd, int64(s.Size)))
}

// OpensItself implements vfs.SelfOpener.
func (i *Inode) OpensItself() {}

// Open implements vfs.Inode: another open file description of the same host
// file; of a regular file with an offset of its own.
func (i *Inode) Open(ctx vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	have, err := unix.FcntlInt(uintptr(i.fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, abi.FromHost(err)
	}
	if want := flags & abi.O_ACCMODE; have&unix.O_ACCMODE != unix.O_RDWR && int(want) != have&unix.O_ACCMODE {
		return nil, abi.EACCES
	}
	if i.kind == socket {
		return nil, abi.ENXIO
	}
	if i.tty != nil {
		i.tty.acquire(ctx, flags)
		return &ttyFile{file{i: i}}, nil
	}
	return &file{i: i}, nil
}

// Translate implements mm.Mappable: the host file's own pages.
func (i *Inode) Translate(off, length uint64, write bool) ([]mm.Piece, error) {
	var st unix.Stat_t
	if err := unix.Fstat(i.fd, &st); err != nil {
		return nil, abi.FromHost(err)
	}
	size := (uint64(st.Size) + usermem.PageMask) &^ usermem.PageMask
	if off >= size {
		return nil, nil
	}
	rights := platform.Read | platform.Exec
	if fl, err := unix.FcntlInt(uintptr(i.fd), unix.F_GETFL, 0); err == nil && fl&unix.O_ACCMODE == unix.O_RDWR {
		rights |= platform.Write
	}
	return []mm.Piece{{Off: off, Len: min(length, size-off), FD: i.fd, FDOff: int64(off), Max: rights}}, nil
}

// AddMapping implements mm.Mappable; what the host truncates gives SIGBUS by itself.
func (i *Inode) AddMapping(mm.Invalidator, uint64, uint64) {}

// RemoveMapping implements mm.Mappable.
func (i *Inode) RemoveMapping(mm.Invalidator, uint64, uint64) {}

var (
	_ vfs.Inode     = (*Inode)(nil)
	_ mm.Mappable   = (*Inode)(nil)
	_ vfs.FileOps   = (*file)(nil)
	_ wait.Waiter   = wait.Waiter{}
	_ vfs.FileOps   = (*ttyFile)(nil)
	_ vfs.InodeFile = (*file)(nil)
)
