package vfs

import (
	"strings"

	"garrison/abi"
	"garrison/sentry/cred"
)

// Chmod is fchmodat2(2) on what has been looked up.
func (p Path) Chmod(ctx Context, mode uint16) error {
	if err := p.wantWrite(); err != nil {
		return err
	}
	if p.Dentry.ftype == abi.S_IFLNK {
		return abi.EOPNOTSUPP
	}
	return p.changed(ChmodInode(ctx, p.Dentry.inode, mode), abi.IN_ATTRIB)
}

// changed tells watchers about a change, if it was made.
func (p Path) changed(err error, mask uint32) error {
	if err == nil {
		p.Dentry.notify(mask)
	}
	return err
}

// ChmodInode is Chmod for a file without a path (a socket).
func ChmodInode(ctx Context, i Inode, mode uint16) error {
	a, err := i.Attr(ctx)
	if err != nil {
		return err
	}
	c := ctx.Cred()
	if !isOwner(c, &a) {
		return abi.EPERM
	}
	mode &= 07777
	if mode&abi.S_ISGID != 0 && !c.InGroup(a.GID) && !c.Can(abi.CAP_FSETID) {
		mode &^= abi.S_ISGID
	}
	return i.SetAttr(ctx, &SetAttr{SetMode: true, Mode: mode})
}

// NoID is the uid_t or gid_t of chown(2) that means: leave it.
const NoID = ^uint32(0)

// Chown is fchownat(2) on what has been looked up.
func (p Path) Chown(ctx Context, uid, gid uint32) error {
	if err := p.wantWrite(); err != nil {
		return err
	}
	return p.changed(ChownInode(ctx, p.Dentry.inode, uid, gid), abi.IN_ATTRIB)
}

// ChownInode is Chown for a file without a path.
func ChownInode(ctx Context, i Inode, uid, gid uint32) error {
	a, err := i.Attr(ctx)
	if err != nil {
		return err
	}
	c := ctx.Cred()
	var s SetAttr
	if uid != NoID {
		if !(c.FSUID == a.UID && cred.UID(uid) == a.UID) && !c.Can(abi.CAP_CHOWN) {
			return abi.EPERM
		}
		s.SetUID, s.UID = true, cred.UID(uid)
	}
	if gid != NoID {
		g := cred.GID(gid)
		if !(c.FSUID == a.UID && (c.InGroup(g) || g == a.GID)) && !c.Can(abi.CAP_CHOWN) {
			return abi.EPERM
		}
		s.SetGID, s.GID = true, g
	}
	if !a.IsDir() && a.Mode&(abi.S_ISUID|abi.S_ISGID) != 0 {
		// chown(2): the bits go, whoever asks; a set-group-ID bit without group
		// execution stays if the task is in the group.
		m := a.Mode &^ abi.S_ISUID
		if m&abi.S_IXGRP != 0 || !c.InGroup(a.GID) && !c.Can(abi.CAP_FSETID) {
			m &^= abi.S_ISGID
		}
		if m != a.Mode {
			s.SetMode, s.Mode = true, m&07777
		}
	}
	return i.SetAttr(ctx, &s)
}

// Times are utimensat(2)'s two times.
type Times struct {
	Atime, Mtime         int64 // ns since the epoch
	AtimeNow, MtimeNow   bool
	AtimeOmit, MtimeOmit bool
}

// Utimes is utimensat(2) on what has been looked up.
func (p Path) Utimes(ctx Context, t Times) error {
	if err := p.wantWrite(); err != nil {
		return err
	}
	a, err := p.Dentry.inode.Attr(ctx)
	if err != nil {
		return err
	}
	c := ctx.Cred()
	if !isOwner(c, &a) {
		if !t.AtimeNow || !t.MtimeNow {
			return abi.EPERM
		}
		if err := p.Access(ctx, MayWrite); err != nil {
			return err
		}
	}
	return p.changed(p.Dentry.inode.SetAttr(ctx, &SetAttr{
		SetAtime: !t.AtimeOmit, AtimeNow: t.AtimeNow, Atime: t.Atime,
		SetMtime: !t.MtimeOmit, MtimeNow: t.MtimeNow, Mtime: t.Mtime,
	}), abi.IN_ATTRIB)
}

// Truncate is truncate(2) on what has been looked up.
func (p Path) Truncate(ctx Context, size int64) error {
	switch p.Dentry.ftype {
	case abi.S_IFREG:
	case abi.S_IFDIR:
		return abi.EISDIR
	default:
		return abi.EINVAL
	}
	if err := p.wantWrite(); err != nil {
		return err
	}
	if err := p.Access(ctx, MayWrite); err != nil {
		return err
	}
	if err := getWriteAccess(p.Dentry.inode); err != nil {
		return err
	}
	defer putWriteAccess(p.Dentry.inode)
	return p.changed(TruncateInode(ctx, p.Dentry.inode, size), abi.IN_MODIFY)
}

// Truncate is ftruncate(2).
func (f *File) Truncate(ctx Context, size int64) error {
	i := f.Inode()
	if i == nil || !f.writable {
		return abi.EINVAL
	}
	if a, err := i.Attr(ctx); err != nil {
		return err
	} else if !a.IsRegular() {
		return abi.EINVAL
	}
	err := TruncateInode(ctx, i, size)
	if err == nil {
		f.notify(abi.IN_MODIFY)
	}
	return err
}

// TruncateInode changes the size of a regular file; permission was checked.
func TruncateInode(ctx Context, i Inode, size int64) error {
	a, err := i.Attr(ctx)
	if err != nil {
		return err
	}
	if uint64(size) > a.Size {
		if lim := ctx.FileSizeLimit(); uint64(size) > lim {
			ctx.SendSelf(abi.SIGXFSZ)
			return abi.EFBIG
		}
	}
	s := SetAttr{SetSize: true, Size: uint64(size), SetMtime: true, MtimeNow: true}
	if m, change := PrivsToRemove(ctx, &a); change {
		s.SetMode, s.Mode = true, m&07777
	}
	return i.SetAttr(ctx, &s)
}

// Attr is stat of what has been looked up.
func (p Path) Attr(ctx Context) (Attr, error) { return p.Dentry.inode.Attr(ctx) }

// Readlink is readlinkat(2) on what has been looked up without following it:
// EINVAL if it is no link.
func (p Path) Readlink(ctx Context) (string, error) {
	if p.Dentry.ftype != abi.S_IFLNK {
		return "", abi.EINVAL
	}
	return p.Dentry.inode.Readlink(ctx)
}

// xattrCheck does what Linux checks before any file system is asked: the name's
// namespace (xattr(7)) and permission by it.
func xattrCheck(ctx Context, p Path, name string, write bool) error {
	if write {
		if err := p.wantWrite(); err != nil {
			return err
		}
	}
	c := ctx.Cred()
	switch {
	case strings.HasPrefix(name, "security."), strings.HasPrefix(name, "system."):
		if write && strings.HasPrefix(name, "security.") && !c.Can(abi.CAP_SYS_ADMIN) &&
			!(name == "security.capability" && c.Can(abi.CAP_SETFCAP)) {
			return abi.EPERM
		}
		return nil
	case strings.HasPrefix(name, "trusted."):
		if !c.Can(abi.CAP_SYS_ADMIN) {
			if write {
				return abi.EPERM
			}
			return abi.ENODATA
		}
		return nil
	case strings.HasPrefix(name, "user."):
		if p.Dentry.ftype != abi.S_IFREG && p.Dentry.ftype != abi.S_IFDIR {
			if write {
				return abi.EPERM
			}
			return abi.ENODATA
		}
		if write && p.Dentry.IsDir() {
			a, err := p.Dentry.inode.Attr(ctx)
			if err != nil {
				return err
			}
			if a.Mode&abi.S_ISVTX != 0 && !isOwner(c, &a) {
				return abi.EPERM
			}
		}
	}
	mask := uint32(MayRead)
	if write {
		mask = MayWrite
	}
	return p.Access(ctx, mask)
}

// GetXattr is getxattr(2).
func (p Path) GetXattr(ctx Context, name string) ([]byte, error) {
	if err := xattrCheck(ctx, p, name, false); err != nil {
		return nil, err
	}
	return p.Dentry.inode.GetXattr(ctx, name)
}

// SetXattr is setxattr(2).
func (p Path) SetXattr(ctx Context, name string, value []byte, flags int) error {
	if err := xattrCheck(ctx, p, name, true); err != nil {
		return err
	}
	return p.changed(p.Dentry.inode.SetXattr(ctx, name, value, flags), abi.IN_ATTRIB)
}

// RemoveXattr is removexattr(2).
func (p Path) RemoveXattr(ctx Context, name string) error {
	if err := xattrCheck(ctx, p, name, true); err != nil {
		return err
	}
	return p.changed(p.Dentry.inode.RemoveXattr(ctx, name), abi.IN_ATTRIB)
}

// ListXattr is listxattr(2): names in the trusted namespace are for the
// privileged only.
func (p Path) ListXattr(ctx Context) ([]string, error) {
	l, err := p.Dentry.inode.ListXattr(ctx)
	if err != nil || ctx.Cred().Can(abi.CAP_SYS_ADMIN) {
		return l, err
	}
	out := l[:0:0]
	for _, n := range l {
		if !strings.HasPrefix(n, "trusted.") {
			out = append(out, n)
		}
	}
	return out, nil
}

// Statfs is statfs(2); the mount's flags are put in.
func (p Path) Statfs(ctx Context) (abi.Statfs, error) {
	s, err := p.Dentry.sb.Statfs(ctx)
	if err != nil {
		return s, err
	}
	s.Flags |= abi.ST_VALID
	if p.Mount != nil {
		s.Flags |= statfsFlags(p.Mount)
	}
	return s, nil
}

func statfsFlags(m *Mount) int64 {
	var out int64
	fl := m.Flags()
	for _, x := range [...]struct {
		ms uint32
		st int64
	}{{abi.MS_NOSUID, abi.ST_NOSUID}, {abi.MS_NODEV, abi.ST_NODEV}, {abi.MS_NOEXEC, abi.ST_NOEXEC},
		{abi.MS_NOATIME, abi.ST_NOATIME}, {abi.MS_NODIRATIME, abi.ST_NODIRATIME}, {abi.MS_RELATIME, abi.ST_RELATIME}} {
		if fl&x.ms != 0 {
			out |= x.st
		}
	}
	if m.ReadOnly() {
		out |= abi.ST_RDONLY
	}
	return out
}

// MountID is stx_mnt_id.
func (p Path) MountID() uint64 {
	if p.Mount == nil {
		return 0
	}
	return uint64(p.Mount.ID)
}

// IsMountRoot reports STATX_ATTR_MOUNT_ROOT.
func (p Path) IsMountRoot() bool { return p.Mount != nil && p.Dentry == p.Mount.root }

// Sync is syncfs(2).
func (p Path) Sync(ctx Context) error { return p.Dentry.sb.Sync(ctx) }

// SyncAll is sync(2).
func (v *VFS) SyncAll(ctx Context) {
	v.mu.RLock()
	all := make([]*sbState, 0, len(v.sbs))
	for _, s := range v.sbs {
		all = append(all, s)
	}
	v.mu.RUnlock()
	for _, s := range all {
		s.Sync(ctx)
	}
}
