package overlay

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// inode is a file of the overlay, of any type.
type inode struct {
	fs    *FS
	lower vfs.Inode // nil if it never was in the lower layer
	ftype uint16
	ino   uint64
	dev   uint64

	upper   atomic.Pointer[layer] // nil until copied up; replaced with upMu held
	nlink   atomic.Int32
	opens   atomic.Int32
	gone    atomic.Bool // no name and no user: the upper inode was given up
	isKept  atomic.Bool
	tmpfile atomic.Bool // made by O_TMPFILE and not linked yet

	upMu sync.Mutex

	mapMu sync.Mutex
	maps  map[mapNote]int
	lmap  mm.Mappable // the lower layer's pages
	umap  mm.Mappable // the upper layer's; used as soon as it is set

	dmu   sync.RWMutex
	names map[string]*entry // where the directory differs from the lower one
	order []*entry          // entries with an inode, in the order they came
	holes int
	next  int64
	live  int
	dead  bool
}

// layer is a file in the upper layer. Its attributes count; its content does
// only if hasData: until then it is the lower file's.
type layer struct {
	inode   vfs.Inode
	hasData bool
}

// real is the inode whose attributes count.
func (i *inode) real() vfs.Inode {
	if u := i.upper.Load(); u != nil {
		return u.inode
	}
	return i.lower
}

// Attr implements vfs.Inode.
func (i *inode) Attr(ctx vfs.Context) (vfs.Attr, error) {
	u := i.upper.Load()
	if u == nil {
		a, err := i.lower.Attr(ctx)
		if i.isKept.Load() || i.nlink.Load() == 0 {
			a.Nlink = uint32(i.nlink.Load())
		}
		return a, err
	}
	a, err := u.inode.Attr(ctx)
	if err != nil {
		return a, err
	}
	a.Ino, a.Dev, a.Nlink = i.ino, i.dev, uint32(max(i.nlink.Load(), 0))
	if !u.hasData {
		l, err := i.lower.Attr(ctx)
		if err != nil {
			return a, err
		}
		a.Size, a.Blocks, a.BlkSize = l.Size, l.Blocks, l.BlkSize
	}
	return a, nil
}

// SetAttr implements vfs.Inode.
func (i *inode) SetAttr(ctx vfs.Context, s *vfs.SetAttr) error {
	want := int64(-1)
	if s.SetSize {
		want = int64(s.Size)
	}
	u, err := i.copyUp(ctx, s.SetSize, want)
	if err != nil {
		return err
	}
	return u.SetAttr(ctx, s)
}

// Readlink implements vfs.Inode.
func (i *inode) Readlink(ctx vfs.Context) (string, error) { return i.real().Readlink(ctx) }

// GetXattr implements vfs.Inode.
func (i *inode) GetXattr(ctx vfs.Context, name string) ([]byte, error) {
	return i.real().GetXattr(ctx, name)
}

// ListXattr implements vfs.Inode.
func (i *inode) ListXattr(ctx vfs.Context) ([]string, error) { return i.real().ListXattr(ctx) }

// SetXattr implements vfs.Inode.
func (i *inode) SetXattr(ctx vfs.Context, name string, value []byte, flags int) error {
	u, err := i.copyUp(ctx, false, -1)
	if err != nil {
		return err
	}
	return u.SetXattr(ctx, name, value, flags)
}

// RemoveXattr implements vfs.Inode.
func (i *inode) RemoveXattr(ctx vfs.Context, name string) error {
	if _, err := i.GetXattr(ctx, name); err != nil {
		return err
	}
	u, err := i.copyUp(ctx, false, -1)
	if err != nil {
		return err
	}
	return u.RemoveXattr(ctx, name)
}

// copyUp makes sure that the file is in the upper layer, with its content if
// data is set: at most the first limit bytes of it, unless limit is negative.
func (i *inode) copyUp(ctx vfs.Context, data bool, limit int64) (vfs.Inode, error) {
	if u := i.upper.Load(); u != nil && (u.hasData || !data) {
		return u.inode, nil
	}
	i.upMu.Lock()
	defer i.upMu.Unlock()
	u := i.upper.Load()
	if u == nil {
		x, err := i.copyAttr(ctx)
		if err != nil {
			return nil, err
		}
		u = &layer{inode: x, hasData: i.ftype != abi.S_IFREG}
		i.upper.Store(u)
		i.fs.keep(i)
	}
	if data && !u.hasData {
		if err := i.copyData(u.inode, limit); err != nil {
			return nil, err
		}
		u = &layer{inode: u.inode, hasData: true}
		i.upper.Store(u)
		i.remap()
	}
	return u.inode, nil
}

// copyAttr makes an upper inode with the lower one's attributes.
func (i *inode) copyAttr(ctx vfs.Context) (vfs.Inode, error) {
	a, err := i.lower.Attr(ctx)
	if err != nil {
		return nil, err
	}
	target := ""
	if i.ftype == abi.S_IFLNK {
		if target, err = i.lower.Readlink(ctx); err != nil {
			return nil, err
		}
	}
	u, err := i.fs.store.NewInode(a.Mode, a.UID, a.GID, a.Rdev, target)
	if err != nil {
		return nil, err
	}
	if names, err := i.lower.ListXattr(ctx); err == nil {
		for _, n := range names {
			if v, err := i.lower.GetXattr(ctx, n); err == nil {
				u.SetXattr(i.fs.sys, n, v, 0) // what the store has no place for is left behind
			}
		}
	}
	u.SetAttr(i.fs.sys, &vfs.SetAttr{SetAtime: true, Atime: a.Atime, SetMtime: true, Mtime: a.Mtime})
	return u, nil
}

// copyData copies the lower file's content to u, without its holes. upMu is held.
func (i *inode) copyData(u vfs.Inode, limit int64) error {
	ctx := i.fs.sys
	before, err := u.Attr(ctx)
	if err != nil {
		return err
	}
	la, err := i.lower.Attr(ctx)
	if err != nil {
		return err
	}
	size := int64(la.Size)
	if limit >= 0 {
		size = min(size, limit)
	}
	to, err := u.Open(ctx, nil, abi.O_RDWR)
	if err != nil {
		return err
	}
	uf := vfs.NewFile(to, abi.O_RDWR, vfs.Path{})
	defer uf.DecRef()
	if size > 0 {
		from, err := i.lower.Open(ctx, nil, abi.O_RDONLY)
		if err != nil {
			return err
		}
		lf := vfs.NewFile(from, abi.O_RDONLY, vfs.Path{})
		defer lf.DecRef()
		if err := copyExtents(ctx, uf, lf, size); err != nil {
			return err
		}
	}
	if err := u.SetAttr(ctx, &vfs.SetAttr{SetSize: true, Size: uint64(size)}); err != nil {
		return err
	}
	return u.SetAttr(ctx, &vfs.SetAttr{SetAtime: true, Atime: before.Atime, SetMtime: true, Mtime: before.Mtime})
}

// copyExtents copies what is data in the first size bytes of from.
func copyExtents(ctx vfs.Context, to, from *vfs.File, size int64) error {
	buf := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; {
		end := size
		if d, err := from.Ops().Seek(ctx, from, 0, off, abi.SEEK_DATA); err == abi.ENXIO {
			return nil // nothing but a hole is left
		} else if err == nil {
			off = d
			if h, err := from.Ops().Seek(ctx, from, 0, off, abi.SEEK_HOLE); err == nil {
				end = min(size, h)
			}
		}
		for off < end {
			n, err := from.Pread(ctx, usermem.Bytes(buf[:min(int64(len(buf)), end-off)]), off, 0)
			if err != nil {
				return err
			}
			if n == 0 {
				return nil // the file is shorter than it said
			}
			src := usermem.Bytes(buf[:n])
			for src.Len() > 0 {
				m, err := to.Pwrite(ctx, src, off, 0)
				if err != nil {
					return err
				}
				if m == 0 {
					return abi.EIO
				}
				off += m
			}
		}
	}
	return nil
}

// Pin implements vfs.Pinner.
func (i *inode) Pin() bool {
	i.opens.Add(1)
	if i.gone.Load() {
		i.opens.Add(-1)
		return false
	}
	return true
}

// Unpin implements vfs.Pinner.
func (i *inode) Unpin() {
	if i.opens.Add(-1) == 0 {
		i.releaseIfUnused()
	}
}

// unlinked drops one name.
func (i *inode) unlinked() {
	if i.ftype == abi.S_IFDIR {
		i.nlink.Store(0)
	} else {
		i.nlink.Add(-1)
	}
	if i.nlink.Load() <= 0 {
		i.fs.unkeep(i)
		i.releaseIfUnused()
		return
	}
	i.fs.keep(i) // the link count differs
	i.touchCtime()
}

// touchCtime notes a change of the inode itself, if it is in the upper layer.
func (i *inode) touchCtime() {
	if u := i.upper.Load(); u != nil {
		u.inode.SetAttr(i.fs.sys, &vfs.SetAttr{})
	}
}

// releaseIfUnused gives up the upper inode when there is no name and no user.
func (i *inode) releaseIfUnused() {
	i.upMu.Lock()
	defer i.upMu.Unlock()
	if i.nlink.Load() > 0 || i.opens.Load() != 0 || i.gone.Load() {
		return
	}
	i.gone.Store(true)
	if i.opens.Load() != 0 { // a Pin came between
		i.gone.Store(false)
		return
	}
	if u := i.upper.Load(); u != nil && i.ftype != abi.S_IFDIR {
		i.fs.store.Forget(u.inode)
	}
}
