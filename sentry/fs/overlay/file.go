package overlay

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// Open implements vfs.Inode.
func (i *inode) Open(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	switch i.ftype {
	case abi.S_IFDIR:
		return &dirFile{i: i, de: d}, nil
	case abi.S_IFREG:
	default:
		return nil, abi.ENXIO
	}
	if i.lower == nil && !i.tmpfile.Load() {
		// Never in the lower layer: the store's own file does it all.
		return i.upper.Load().inode.Open(ctx, d, flags)
	}
	if !i.Pin() {
		return nil, abi.ENOENT
	}
	f := &file{i: i}
	var err error
	if flags&abi.O_ACCMODE == abi.O_RDONLY || i.lower == nil {
		_, err = f.current(ctx)
	} else {
		limit := int64(-1)
		if flags&abi.O_TRUNC != 0 {
			limit = 0 // what is about to be cut off need not be copied
		}
		if _, err = i.copyUp(ctx, true, limit); err == nil {
			_, err = f.current(ctx)
		}
	}
	if err != nil {
		f.Release(nil)
		return nil, err
	}
	return f, nil
}

// file is an open regular file that is, or was, in the lower layer, or one that
// O_TMPFILE made. It goes over to the upper file as soon as there is one with
// content.
type file struct {
	vfs.FileDefaults
	i *inode

	mu    sync.RWMutex
	lower *vfs.File
	upper *vfs.File
}

// current is the open file of the layer that holds the content now. It stays
// open until f is released.
func (f *file) current(ctx vfs.Context) (*vfs.File, error) {
	u := f.i.upper.Load()
	up := u != nil && u.hasData
	f.mu.RLock()
	cur := f.lower
	if up {
		cur = f.upper
	}
	f.mu.RUnlock()
	if cur != nil {
		return cur, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	where, flags, in := &f.lower, uint32(abi.O_RDONLY), f.i.lower
	if up {
		where, flags, in = &f.upper, abi.O_RDWR, u.inode
	}
	if *where == nil {
		ops, err := in.Open(ctx, nil, flags)
		if err != nil {
			return nil, err
		}
		*where = vfs.NewFile(ops, flags, vfs.Path{})
	}
	return *where, nil
}

// Release implements vfs.FileOps.
func (f *file) Release(*vfs.File) {
	if f.lower != nil {
		f.lower.DecRef()
	}
	if f.upper != nil {
		f.upper.DecRef()
	}
	f.i.Unpin()
}

// Read implements vfs.FileOps.
func (f *file) Read(ctx vfs.Context, vf *vfs.File, dst *usermem.Buffer, off int64, fl vfs.IOFlags) (int64, error) {
	c, err := f.current(ctx)
	if err != nil {
		return 0, err
	}
	return c.Ops().Read(ctx, vf, dst, off, fl)
}

// Write implements vfs.FileOps.
func (f *file) Write(ctx vfs.Context, vf *vfs.File, src *usermem.Buffer, off int64, fl vfs.IOFlags) (int64, int64, error) {
	c, err := f.current(ctx)
	if err != nil {
		return 0, off, err
	}
	return c.Ops().Write(ctx, vf, src, off, fl)
}

// Seek implements vfs.FileOps.
func (f *file) Seek(ctx vfs.Context, vf *vfs.File, cur, off int64, whence int) (int64, error) {
	c, err := f.current(ctx)
	if err != nil {
		return 0, err
	}
	return c.Ops().Seek(ctx, vf, cur, off, whence)
}

// Ioctl implements vfs.FileOps.
func (f *file) Ioctl(ctx vfs.Context, vf *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	c, err := f.current(ctx)
	if err != nil {
		return 0, err
	}
	return c.Ops().Ioctl(ctx, vf, cmd, arg)
}

// Sync implements vfs.FileOps: the upper layer is memory.
func (f *file) Sync(vfs.Context, *vfs.File, bool) error { return nil }

// Allocate implements vfs.FileOps.
func (f *file) Allocate(ctx vfs.Context, vf *vfs.File, mode uint32, off, length int64) error {
	c, err := f.current(ctx)
	if err != nil {
		return err
	}
	return c.Ops().Allocate(ctx, vf, mode, off, length)
}

// Mappable implements vfs.FileOps: what is mapped is the overlay's inode, which
// leads to the layer that holds the content.
func (f *file) Mappable(ctx vfs.Context, vf *vfs.File, prot, flags uint32) (mm.Mappable, error) {
	i := f.i
	for {
		c, err := f.current(ctx)
		if err != nil {
			return nil, err
		}
		// The layer sees a file that is open as it knows it: read-only below.
		m, err := c.Ops().Mappable(ctx, c, prot, flags)
		if err != nil {
			return nil, err
		}
		i.mapMu.Lock()
		if c == f.upper {
			i.umap = m
		} else if i.umap == nil {
			i.lmap = m
		}
		i.mapMu.Unlock()
		// A copy-up that did not see lmap has not set umap: look again.
		if now, err := f.current(ctx); err != nil || now == c {
			return i, err
		}
	}
}

// mapNote is one AddMapping.
type mapNote struct {
	inv      mm.Invalidator
	off, len uint64
}

// pages is where the pages are now.
func (i *inode) pages() mm.Mappable {
	if i.umap != nil {
		return i.umap
	}
	return i.lmap
}

// Translate implements mm.Mappable.
func (i *inode) Translate(off, length uint64, write bool) ([]mm.Piece, error) {
	i.mapMu.Lock()
	p := i.pages()
	i.mapMu.Unlock()
	return p.Translate(off, length, write)
}

// AddMapping implements mm.Mappable.
func (i *inode) AddMapping(inv mm.Invalidator, off, length uint64) {
	i.mapMu.Lock()
	defer i.mapMu.Unlock()
	if i.maps == nil {
		i.maps = make(map[mapNote]int)
	}
	i.maps[mapNote{inv, off, length}]++
	i.pages().AddMapping(i, off, length)
}

// RemoveMapping implements mm.Mappable.
func (i *inode) RemoveMapping(inv mm.Invalidator, off, length uint64) {
	i.mapMu.Lock()
	defer i.mapMu.Unlock()
	k := mapNote{inv, off, length}
	if i.maps[k]--; i.maps[k] <= 0 {
		delete(i.maps, k)
	}
	i.pages().RemoveMapping(i, off, length)
}

// InvalidateFile implements mm.Invalidator: the layer's pages changed, and with
// them ours.
func (i *inode) InvalidateFile(_ mm.Mappable, off, length uint64) {
	end := off + length
	if end < off {
		end = ^uint64(0)
	}
	i.mapMu.Lock()
	var invs []mm.Invalidator
	seen := make(map[mm.Invalidator]bool)
	for k := range i.maps {
		if k.off < end && k.off+k.len > off && !seen[k.inv] {
			seen[k.inv] = true
			invs = append(invs, k.inv)
		}
	}
	i.mapMu.Unlock()
	for _, inv := range invs {
		inv.InvalidateFile(i, off, length)
	}
}

// PunchHole is madvise(MADV_REMOVE).
func (i *inode) PunchHole(off, length uint64) error {
	i.mapMu.Lock()
	p := i.pages()
	i.mapMu.Unlock()
	if h, ok := p.(interface {
		PunchHole(off, length uint64) error
	}); ok {
		return h.PunchHole(off, length)
	}
	return abi.EOPNOTSUPP
}

// remap leads existing mappings to the upper layer, which has the content now.
// upMu is held.
func (i *inode) remap() {
	i.mapMu.Lock()
	if i.lmap == nil || i.umap != nil {
		i.mapMu.Unlock()
		return
	}
	m, ok := i.upper.Load().inode.(mm.Mappable)
	if !ok {
		i.mapMu.Unlock()
		return
	}
	old := i.lmap
	i.umap = m
	for k, n := range i.maps {
		for range n {
			m.AddMapping(i, k.off, k.len)
			old.RemoveMapping(i, k.off, k.len)
		}
	}
	i.mapMu.Unlock()
	i.InvalidateFile(nil, 0, ^uint64(0))
}
