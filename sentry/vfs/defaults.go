package vfs

import (
	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/wait"
)

// NodeDefaults answers what an inode does not support with Linux's errors.
// Embed it in any inode, and NotDir beside it in what is no directory: NotDir's
// methods win, because those of NodeDefaults lie one level deeper. A directory
// that embeds only this can't be changed (EPERM, as in proc) and finds nothing.
type NodeDefaults struct{ nodeDefaults }

type nodeDefaults struct{}

// SetAttr refuses every change.
func (nodeDefaults) SetAttr(Context, *SetAttr) error { return abi.EPERM }

// Lookup finds nothing.
func (nodeDefaults) Lookup(Context, string) (Inode, error) { return nil, abi.ENOENT }

// Mknod refuses.
func (nodeDefaults) Mknod(Context, string, uint16, uint64) (Inode, error) { return nil, abi.EPERM }

// Mkdir refuses.
func (nodeDefaults) Mkdir(Context, string, uint16) (Inode, error) { return nil, abi.EPERM }

// Symlink refuses.
func (nodeDefaults) Symlink(Context, string, string) (Inode, error) { return nil, abi.EPERM }

// Link refuses.
func (nodeDefaults) Link(Context, string, Inode) error { return abi.EPERM }

// Unlink refuses.
func (nodeDefaults) Unlink(Context, string, Inode) error { return abi.EPERM }

// Rmdir refuses.
func (nodeDefaults) Rmdir(Context, string, Inode) error { return abi.EPERM }

// Rename refuses.
func (nodeDefaults) Rename(Context, string, Inode, Inode, string, Inode, uint32) error {
	return abi.EPERM
}

// Tmpfile is not supported.
func (nodeDefaults) Tmpfile(Context, uint16) (Inode, error) { return nil, abi.EOPNOTSUPP }

// Readlink says that this is no symbolic link.
func (nodeDefaults) Readlink(Context) (string, error) { return "", abi.EINVAL }

// Open refuses: there is nothing to open.
func (nodeDefaults) Open(Context, *Dentry, uint32) (FileOps, error) { return nil, abi.ENXIO }

// GetXattr knows no extended attributes.
func (nodeDefaults) GetXattr(Context, string) ([]byte, error) { return nil, abi.EOPNOTSUPP }

// SetXattr knows no extended attributes.
func (nodeDefaults) SetXattr(Context, string, []byte, int) error { return abi.EOPNOTSUPP }

// ListXattr lists none.
func (nodeDefaults) ListXattr(Context) ([]string, error) { return nil, nil }

// RemoveXattr knows no extended attributes.
func (nodeDefaults) RemoveXattr(Context, string) error { return abi.EOPNOTSUPP }

// NotDir answers directory operations with ENOTDIR. Embed it, beside
// NodeDefaults, in inodes that are no directories.
type NotDir struct{}

// Lookup is for directories.
func (NotDir) Lookup(Context, string) (Inode, error) { return nil, abi.ENOTDIR }

// Mknod is for directories.
func (NotDir) Mknod(Context, string, uint16, uint64) (Inode, error) { return nil, abi.ENOTDIR }

// Mkdir is for directories.
func (NotDir) Mkdir(Context, string, uint16) (Inode, error) { return nil, abi.ENOTDIR }

// Symlink is for directories.
func (NotDir) Symlink(Context, string, string) (Inode, error) { return nil, abi.ENOTDIR }

// Link is for directories.
func (NotDir) Link(Context, string, Inode) error { return abi.ENOTDIR }

// Unlink is for directories.
func (NotDir) Unlink(Context, string, Inode) error { return abi.ENOTDIR }

// Rmdir is for directories.
func (NotDir) Rmdir(Context, string, Inode) error { return abi.ENOTDIR }

// Rename is for directories.
func (NotDir) Rename(Context, string, Inode, Inode, string, Inode, uint32) error {
	return abi.ENOTDIR
}

// Tmpfile is for directories.
func (NotDir) Tmpfile(Context, uint16) (Inode, error) { return nil, abi.ENOTDIR }

// LeafDefaults is what files, links and devices usually embed: no directory,
// and nothing else supported.
type LeafDefaults struct {
	NodeDefaults
	NotDir
}

// FileDefaults are the operations of an open file that can do nothing: always
// ready, as Linux treats files without poll (DEFAULT_POLLMASK). Embed it.
type FileDefaults struct{}

// Read refuses.
func (FileDefaults) Read(Context, *File, *usermem.Buffer, int64, IOFlags) (int64, error) {
	return 0, abi.EINVAL
}

// Write refuses.
func (FileDefaults) Write(Context, *File, *usermem.Buffer, int64, IOFlags) (int64, int64, error) {
	return 0, 0, abi.EINVAL
}

// Stream says that there is a position.
func (FileDefaults) Stream() bool { return false }

// Seek refuses.
func (FileDefaults) Seek(Context, *File, int64, int64, int) (int64, error) { return 0, abi.ESPIPE }

// ReadDir says that this is no directory.
func (FileDefaults) ReadDir(Context, *File, int64, func(Dirent) bool) error { return abi.ENOTDIR }

// Ioctl knows no commands.
func (FileDefaults) Ioctl(Context, *File, uint32, uint64) (uintptr, error) { return 0, abi.ENOTTY }

// Mappable refuses.
func (FileDefaults) Mappable(Context, *File, uint32, uint32) (mm.Mappable, error) {
	return nil, abi.ENODEV
}

// Sync says that this can't be synchronised (fsync(2): EINVAL).
func (FileDefaults) Sync(Context, *File, bool) error { return abi.EINVAL }

// Allocate refuses (fallocate(2): EOPNOTSUPP).
func (FileDefaults) Allocate(Context, *File, uint32, int64, int64) error { return abi.EOPNOTSUPP }

// Flush has nothing to do.
func (FileDefaults) Flush(Context, *File) error { return nil }

// Release has nothing to do.
func (FileDefaults) Release(*File) {}

// Readiness is always in and out.
func (FileDefaults) Readiness(mask wait.Events) wait.Events {
	return mask & (abi.EPOLLIN | abi.EPOLLOUT | abi.EPOLLRDNORM | abi.EPOLLWRNORM)
}

// EventRegister has nothing to watch.
func (FileDefaults) EventRegister(*wait.Waiter, wait.Events) {}

// EventUnregister has nothing to stop.
func (FileDefaults) EventUnregister(*wait.Waiter) {}

// SeekSize does the usual lseek arithmetic for a file of the given size, in
// which there are no holes.
func SeekSize(cur, off, size int64, whence int) (int64, error) {
	switch whence {
	case abi.SEEK_SET:
	case abi.SEEK_CUR:
		if off > 0 && cur > 1<<63-1-off {
			return 0, abi.EOVERFLOW
		}
		off += cur
	case abi.SEEK_END:
		if off > 0 && size > 1<<63-1-off {
			return 0, abi.EOVERFLOW
		}
		off += size
	case abi.SEEK_DATA:
		if off < 0 || off >= size {
			return 0, abi.ENXIO
		}
		return off, nil
	case abi.SEEK_HOLE:
		if off < 0 || off >= size {
			return 0, abi.ENXIO
		}
		return size, nil
	default:
		return 0, abi.EINVAL
	}
	if off < 0 {
		return 0, abi.EINVAL
	}
	return off, nil
}
