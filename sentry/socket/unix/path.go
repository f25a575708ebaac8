package unix

import (
	"garrison/abi"
	"garrison/sentry/vfs"
)

// makeSocketFile makes the file that a path name is bound to.
func makeSocketFile(ctx vfs.Context, path string) (vfs.Path, error) {
	return ctx.FSContext().VFS().MknodPath(ctx, vfs.Path{}, path, abi.S_IFSOCK|0o777)
}

// findSocketFile finds the inode that a path name leads to; the caller needs
// permission to write to it.
func findSocketFile(ctx vfs.Context, path string) (vfs.Inode, error) {
	p, err := ctx.FSContext().VFS().Lookup(ctx, vfs.Path{}, path, vfs.Follow)
	if err != nil {
		return nil, err
	}
	if err := p.Access(ctx, vfs.MayWrite); err != nil {
		return nil, err
	}
	if p.Dentry.Type() != abi.S_IFSOCK {
		return nil, abi.ECONNREFUSED
	}
	return p.Inode(), nil
}
