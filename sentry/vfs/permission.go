package vfs

import (
	"garrison/abi"
	"garrison/sentry/cred"
)

// Access masks (include/linux/fs.h).
const (
	MayExec  = 1
	MayWrite = 2
	MayRead  = 4
)

// GenericAccess decides by mode, owner and capabilities (path_resolution(7)):
// EACCES if mask is not allowed.
func GenericAccess(c *cred.Cred, a *Attr, mask uint32) error {
	perm := uint32(a.Mode)
	switch {
	case c.FSUID == a.UID:
		perm >>= 6
	case perm&070>>3 != perm&07 && c.InGroup(a.GID):
		perm >>= 3
	}
	if mask&^perm&7 == 0 {
		return nil
	}
	if a.IsDir() {
		if mask&MayWrite == 0 && c.Can(abi.CAP_DAC_READ_SEARCH) || c.Can(abi.CAP_DAC_OVERRIDE) {
			return nil
		}
		return abi.EACCES
	}
	if mask == MayRead && c.Can(abi.CAP_DAC_READ_SEARCH) {
		return nil
	}
	// Even root may only execute what somebody may execute.
	if (mask&MayExec == 0 || a.Mode&0111 != 0) && c.Can(abi.CAP_DAC_OVERRIDE) {
		return nil
	}
	return abi.EACCES
}

// inodeAccess asks the inode itself if it decides, and its mode otherwise.
func inodeAccess(ctx Context, c *cred.Cred, d *Dentry, mask uint32) error {
	if a, ok := d.inode.(Accesser); ok {
		return a.Access(ctx, mask)
	}
	a, err := d.inode.Attr(ctx)
	if err != nil {
		return err
	}
	return GenericAccess(c, &a, mask)
}

// Access checks mask at p for the task: a read-only file system refuses writing
// to files, directories and links with EROFS.
func (p Path) Access(ctx Context, mask uint32) error {
	if mask&MayWrite != 0 && p.Mount != nil && p.Mount.sb.readonly.Load() && writesReach(p.Dentry.ftype) {
		return abi.EROFS
	}
	return inodeAccess(ctx, ctx.Cred(), p.Dentry, mask)
}

// writesReach reports whether writing to such a file writes to its file system.
func writesReach(ftype uint16) bool {
	return ftype == abi.S_IFREG || ftype == abi.S_IFDIR || ftype == abi.S_IFLNK
}

// wantWrite is mnt_want_write: EROFS if the mount or its file system is read-only.
func (p Path) wantWrite() error {
	if p.Mount != nil && p.Mount.ReadOnly() {
		return abi.EROFS
	}
	return nil
}

// NoExec reports that programs may not be run from p.
func (p Path) NoExec() bool { return p.Mount != nil && p.Mount.Flags()&abi.MS_NOEXEC != 0 }

// NoSuid reports that set-user-ID bits at p do not count.
func (p Path) NoSuid() bool { return p.Mount != nil && p.Mount.Flags()&abi.MS_NOSUID != 0 }

// mayExecDir is the search permission of a walk, which is checked a lot: for
// the privileged it costs nothing.
func mayExecDir(ctx Context, c *cred.Cred, d *Dentry) error {
	if c.Can(abi.CAP_DAC_READ_SEARCH) || c.Can(abi.CAP_DAC_OVERRIDE) {
		if _, own := d.inode.(Accesser); !own {
			return nil
		}
	}
	return inodeAccess(ctx, c, d, MayExec)
}

// mayCreate is what making an entry in dir takes.
func (p Path) mayCreate(ctx Context) error {
	if p.Dentry.unlinked.Load() {
		return abi.ENOENT
	}
	return p.Access(ctx, MayWrite|MayExec)
}

// mayDelete is what taking victim out of dir takes; wantDir says which kind the
// caller expects.
func (p Path) mayDelete(ctx Context, victim *Dentry, wantDir bool) error {
	if err := p.Access(ctx, MayWrite|MayExec); err != nil {
		return err
	}
	da, err := p.Dentry.inode.Attr(ctx)
	if err != nil {
		return err
	}
	if da.Mode&abi.S_ISVTX != 0 {
		c := ctx.Cred()
		va, err := victim.inode.Attr(ctx)
		if err != nil {
			return err
		}
		if va.UID != c.FSUID && da.UID != c.FSUID && !c.Can(abi.CAP_FOWNER) {
			return abi.EPERM
		}
	}
	if wantDir {
		if !victim.IsDir() {
			return abi.ENOTDIR
		}
	} else if victim.IsDir() {
		return abi.EISDIR
	}
	if p.Dentry.unlinked.Load() {
		return abi.ENOENT
	}
	return nil
}

// isOwner reports whether c owns the file or may act as if.
func isOwner(c *cred.Cred, a *Attr) bool { return c.FSUID == a.UID || c.Can(abi.CAP_FOWNER) }

// InitOwner gives the owner and mode of a new inode in a directory with the
// attributes dir: set-group-ID directories pass on their group, and to
// directories the bit too (inode(7)).
func InitOwner(ctx Context, dir *Attr, mode uint16) (cred.UID, cred.GID, uint16) {
	c := ctx.Cred()
	gid := c.FSGID
	if dir.Mode&abi.S_ISGID != 0 {
		gid = dir.GID
		if mode&abi.S_IFMT == abi.S_IFDIR {
			mode |= abi.S_ISGID
		} else if mode&(abi.S_ISGID|abi.S_IXGRP) == abi.S_ISGID|abi.S_IXGRP && !c.InGroup(gid) && !c.Can(abi.CAP_FSETID) {
			mode &^= abi.S_ISGID
		}
	}
	return c.FSUID, gid, mode
}

// PrivsToRemove gives the mode without the set-user-ID and set-group-ID bits
// that a write by the task takes away; change is false if there are none.
func PrivsToRemove(ctx Context, a *Attr) (mode uint16, change bool) {
	if a.Mode&(abi.S_ISUID|abi.S_ISGID) == 0 || !a.IsRegular() || ctx.Cred().Can(abi.CAP_FSETID) {
		return a.Mode, false
	}
	mode = a.Mode &^ abi.S_ISUID
	if mode&abi.S_IXGRP != 0 || !ctx.Cred().InGroup(a.GID) {
		mode &^= abi.S_ISGID
	}
	return mode, mode != a.Mode
}

// WriteLimit cuts a write of n bytes at off to what RLIMIT_FSIZE and max allow;
// EFBIG (with SIGXFSZ for the limit) if that is nothing.
func WriteLimit(ctx Context, off, n, max int64) (int64, error) {
	if n == 0 {
		return 0, nil
	}
	if lim := ctx.FileSizeLimit(); lim < uint64(1<<63-1) {
		if off >= int64(lim) {
			ctx.SendSelf(abi.SIGXFSZ)
			return 0, abi.EFBIG
		}
		n = min(n, int64(lim)-off)
	}
	if off >= max {
		return 0, abi.EFBIG
	}
	return min(n, max-off), nil
}

// mayLink is what sysctl fs.protected_hardlinks=1 asks, which distributions set:
// EPERM unless the task owns the file, or could read and write a plain file.
func (p Path) mayLink(ctx Context) error {
	a, err := p.Dentry.inode.Attr(ctx)
	if err != nil {
		return err
	}
	c := ctx.Cred()
	if isOwner(c, &a) {
		return nil
	}
	const sgidExec = abi.S_ISGID | abi.S_IXGRP
	if !a.IsRegular() || a.Mode&abi.S_ISUID != 0 || a.Mode&sgidExec == sgidExec ||
		GenericAccess(c, &a, MayRead|MayWrite) != nil {
		return abi.EPERM
	}
	return nil
}
