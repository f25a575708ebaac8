package vfs

import (
	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/wait"
)

// A Context is what a file operation may ask of the task that makes it.
// kernel.Task implements it; packages above kernel that need more (terminals,
// proc) assert it to *kernel.Task.
type Context interface {
	wait.Blocker
	// Cred is the task's credentials, immutable.
	Cred() *cred.Cred
	// Memory is the task's address space, for ioctl arguments.
	Memory() usermem.Memory
	// FSContext is the task's root, working directory and umask.
	FSContext() *FSContext
	// FDTable is the task's descriptors (for SCM_RIGHTS, /dev/fd).
	FDTable() *FDTable
	// FileSizeLimit is RLIMIT_FSIZE in bytes; a write at or over it fails
	// with EFBIG after SendSelf(SIGXFSZ).
	FileSizeLimit() uint64
	// SendSelf sends the calling thread a signal (SIGPIPE, SIGXFSZ).
	SendSelf(sig int)
	// PID is the thread group's id, as SCM_CREDENTIALS and F_SETLK show it.
	PID() int32
}

// Attr is an inode's attributes: struct statx without the padding.
type Attr struct {
	Mode                       uint16 // S_IFMT | permissions
	UID                        cred.UID
	GID                        cred.GID
	Nlink                      uint32
	Ino, Size, Blocks          uint64 // Blocks of 512 bytes
	BlkSize                    uint32
	Dev, Rdev                  uint64 // encoded as MakeDev does
	Atime, Mtime, Ctime, Btime int64  // ns since the epoch
	HasBtime                   bool
	// MountAttrs are STATX_ATTR_* that hold.
	Attributes uint64
}

// IsDir, IsRegular and IsSymlink test the file type.
func (a *Attr) IsDir() bool     { return a.Mode&abi.S_IFMT == abi.S_IFDIR }
func (a *Attr) IsRegular() bool { return a.Mode&abi.S_IFMT == abi.S_IFREG }
func (a *Attr) IsSymlink() bool { return a.Mode&abi.S_IFMT == abi.S_IFLNK }

// SetAttr says which attributes to change. Times: UTIME_NOW semantics by *Now.
type SetAttr struct {
	SetMode, SetUID, SetGID, SetSize, SetAtime, SetMtime, AtimeNow, MtimeNow bool

	Mode         uint16 // permissions only
	UID          cred.UID
	GID          cred.GID
	Size         uint64
	Atime, Mtime int64 // ns since the epoch
}

// MakeDev encodes a device number as the kernel's 32-bit dev_t in a uint64
// (glibc gnu_dev_makedev, which also is what stat(2) shows).
func MakeDev(major, minor uint32) uint64 {
	return uint64(minor&0xff) | uint64(major&0xfff)<<8 | uint64(minor&^0xff)<<12 | uint64(major&^0xfff)<<32
}

// DevMajor and DevMinor take a device number apart.
func DevMajor(d uint64) uint32 { return uint32(d>>8)&0xfff | uint32(d>>32)&^0xfff }
func DevMinor(d uint64) uint32 { return uint32(d)&0xff | uint32(d>>12)&^0xff }

// An Inode is a file as a file system sees it. The VFS has checked permissions,
// mount flags, name lengths and types (Lookup only on directories, and so on)
// before it calls; the inode does the work and returns abi.Errno values.
//
// Embed NodeDefaults (any node) and NotDir (what is no directory) to answer
// with Linux's errors for what a kind of inode does not do.
type Inode interface {
	// Attr returns the attributes; cheap and lock-free where they are cached.
	Attr(ctx Context) (Attr, error)
	SetAttr(ctx Context, s *SetAttr) error

	// Lookup finds a child; ENOENT. The VFS caches the result, the negative one
	// too if the superblock says so.
	Lookup(ctx Context, name string) (Inode, error)
	// Mknod makes a regular file, FIFO, socket or device (type in mode);
	// mode has the umask applied; owner is ctx.Cred's FSUID/FSGID (the
	// directory's group if it is set-group-ID). EEXIST if the name is taken.
	Mknod(ctx Context, name string, mode uint16, rdev uint64) (Inode, error)
	Mkdir(ctx Context, name string, mode uint16) (Inode, error)
	Symlink(ctx Context, name, target string) (Inode, error)
	Link(ctx Context, name string, target Inode) error
	Unlink(ctx Context, name string, child Inode) error
	Rmdir(ctx Context, name string, child Inode) error
	// Rename moves child from this directory to newDir (of the same file
	// system); flags are RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT;
	// replaced is what newName is now, or nil.
	Rename(ctx Context, name string, child Inode, newDir Inode, newName string, replaced Inode, flags uint32) error
	// Tmpfile makes an unnamed regular file here (O_TMPFILE).
	Tmpfile(ctx Context, mode uint16) (Inode, error)

	// Readlink returns a symbolic link's target.
	Readlink(ctx Context) (string, error)

	// Open makes the operations of a new open file. The VFS opens FIFOs,
	// sockets and device nodes itself unless the inode implements SelfOpener.
	// O_TRUNC has been done by the VFS through SetAttr.
	Open(ctx Context, d *Dentry, flags uint32) (FileOps, error)

	// Extended attributes (xattr(7)); names carry their prefix. ENODATA, EOPNOTSUPP.
	GetXattr(ctx Context, name string) ([]byte, error)
	SetXattr(ctx Context, name string, value []byte, flags int) error
	ListXattr(ctx Context) ([]string, error)
	RemoveXattr(ctx Context, name string) error
}

// Optional interfaces of an Inode.
type (
	// A SelfOpener's Open is called whatever its type (a tty, a proc file that
	// looks like a device).
	SelfOpener interface{ OpensItself() }

	// A MagicLinker is a symbolic link that leads to an object, not to a name
	// (/proc/self/exe, /proc/self/fd/3). It returns a referenced Path.
	MagicLinker interface {
		FollowLink(ctx Context) (Path, error)
	}

	// A Revalidator's children may change behind our back: before a cached
	// dentry is used, Revalidate says whether it still holds. Dentries of
	// directories that do not implement it are trusted for ever.
	Revalidator interface {
		Revalidate(ctx Context, name string, child Inode) bool
	}

	// A DeepWalker finds several components in one step (one 9P message): it
	// returns the inodes of a prefix of names; fewer than len(names) without an
	// error means that the next one must be looked up by Lookup (it is missing,
	// a symbolic link, or unknown).
	DeepWalker interface {
		DeepLookup(ctx Context, names []string) ([]Inode, error)
	}

	// An Accesser checks permissions itself (mask of MAY_READ 4, WRITE 2, EXEC 1).
	Accesser interface {
		Access(ctx Context, mask uint32) error
	}

	// A Dropper is told when the VFS has forgotten a dentry of it (cache
	// pressure, removal): a good moment to shed caches. It is a hint: calls may
	// be in flight, and other dentries or open files may still lead to it, so
	// what it needs to work must be freed elsewhere (runtime.AddCleanup).
	Dropper interface{ Drop() }

	// A Pinner is told of uses that are not opens (O_PATH descriptors), so that
	// the content of a removed file stays; Pin fails once it is gone.
	Pinner interface {
		Pin() bool
		Unpin()
	}
)

// A Superblock is one mounted file system instance.
type Superblock interface {
	// Root is the root directory.
	Root() Inode
	// Type is the name in /proc/mounts: "tmpfs".
	Type() string
	// Statfs fills struct statfs for path's file system.
	Statfs(ctx Context) (abi.Statfs, error)
	// Options are the options in /proc/mounts besides the generic ones, as "size=1024k".
	Options() string
	// CacheNegative reports whether failed lookups may be remembered.
	CacheNegative() bool
	// Sync writes everything back.
	Sync(ctx Context) error
	// Release is called when the last mount and reference are gone.
	Release()
}

// IOFlags modify one read or write: RWF_* bits plus those below.
type IOFlags uint32

// FileOps are the operations of one open file description: Linux's
// file_operations. Embed FileDefaults and implement what the file can do.
//
// Reads and writes return what was transferred, with an error only if that is
// nothing. They honour O_NONBLOCK by f.Nonblocking(). Offsets of streams are
// ignored.
type FileOps interface {
	// Read fills dst from offset off.
	Read(ctx Context, f *File, dst *usermem.Buffer, off int64, fl IOFlags) (int64, error)
	// Write drains src at offset off; at the end of the file when f is O_APPEND
	// (or fl has RWF_APPEND). It returns the offset after the last byte written.
	Write(ctx Context, f *File, src *usermem.Buffer, off int64, fl IOFlags) (n, end int64, err error)
	// Stream reports that there is no position: lseek, pread and pwrite give ESPIPE.
	Stream() bool
	// Seek maps lseek's arguments to a new position; the VFS stores it.
	Seek(ctx Context, f *File, cur, off int64, whence int) (int64, error)
	// ReadDir calls emit for entries from position pos on until it returns
	// false; each entry carries the position after it. "." and ".." included.
	ReadDir(ctx Context, f *File, pos int64, emit func(Dirent) bool) error
	// Ioctl does device-specific calls; ENOTTY for what it does not know. The
	// VFS has done FIOCLEX, FIONBIO and the like.
	Ioctl(ctx Context, f *File, cmd uint32, arg uint64) (uintptr, error)
	// Mappable returns the pages to map, or ENODEV.
	Mappable(ctx Context, f *File, prot, flags uint32) (mm.Mappable, error)
	// Sync is fsync, or fdatasync if data is set.
	Sync(ctx Context, f *File, data bool) error
	// Allocate is fallocate(2) with its mode.
	Allocate(ctx Context, f *File, mode uint32, off, length int64) error
	// Flush is called at each close of a descriptor, Release at the last.
	Flush(ctx Context, f *File) error
	Release(f *File)

	wait.Waitable
}

// A Dirent is a directory entry.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8 // DT_*
	Next int64 // position after this entry
}
