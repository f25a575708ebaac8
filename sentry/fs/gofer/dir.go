package gofer

import (
	"encoding/binary"
	"strings"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/goferwire"
	"garrison/sentry/vfs"
)

// missesBeforeListing is after how many failed lookups a directory is listed, in
// exclusive mode: from then on what is missing is known without asking.
const missesBeforeListing = 4

// maxNegative is the longest listing that is fetched for that purpose.
const maxNegative = 4096

// Lookup implements vfs.Inode.
func (i *inode) Lookup(_ vfs.Context, name string) (vfs.Inode, error) {
	if i.ftype != abi.S_IFDIR {
		return nil, abi.ENOTDIR
	}
	if len(name) > goferwire.MaxName {
		return nil, abi.ENAMETOOLONG
	}
	e, absent := i.known(name)
	if absent {
		return nil, abi.ENOENT
	}
	if e != nil {
		return i.fs.inodeFor(i, e.Name, nil, 0, e), nil
	}
	c, err := i.child(strings.Clone(name), true)
	if err == abi.ENOENT {
		i.missed()
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// child asks for a name in the directory. In exclusive mode that is one message
// on the descriptor channel, which is the faster one and brings a descriptor
// along if open is set: most files that are looked up one by one are about to be
// read. In shared mode a fid must pin the file, so that its number does not come
// to mean another one.
func (i *inode) child(name string, open bool) (*inode, error) {
	if !i.fs.opts.Exclusive {
		f, _, err := i.acquire()
		if err != nil {
			return nil, err
		}
		defer i.release()
		qids, cf, _, a, err := i.fs.walk(f, name)
		if err != nil {
			return nil, err
		}
		return i.fs.inodeFor(i, name, cf, qids[0].Path, attrOf(&a)), nil
	}
	req := goferwire.Request{Op: goferwire.OpLookup, Name: name}
	if open {
		req.Flags = goferwire.LookupOpen
	}
	var resp goferwire.Response
	fd, err := i.call(&req, &resp)
	if err != nil {
		return nil, err
	}
	var e goferwire.Entry
	link, err := e.Decode(resp.Data)
	if err != nil || !e.HasAttr {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, abi.EIO
	}
	c := i.fs.inodeFor(i, name, nil, 0, &e)
	if c.ftype == abi.S_IFLNK {
		c.mu.Lock()
		c.link = string(link)
		c.mu.Unlock()
	}
	if fd >= 0 {
		c.res.opened()
		c.setReadFD(fd)
		c.res.released()
	}
	return c, nil
}

// known says what the directory's listing tells of name: its attributes, or
// that there is no such name.
func (i *inode) known(name string) (e *goferwire.Entry, absent bool) {
	if !i.fs.opts.Exclusive {
		return nil, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if e = i.ahead[name]; e != nil {
		delete(i.ahead, name) // the inode has them from now on
		return e, false
	}
	if i.names == nil {
		return nil, false
	}
	_, ok := i.names[name]
	return nil, !ok
}

// missed counts a failed lookup, and lists the directory after a few.
func (i *inode) missed() {
	if !i.fs.opts.Exclusive {
		return
	}
	i.mu.Lock()
	i.misses++
	list := i.names == nil && i.misses == missesBeforeListing
	changes := i.changes
	i.mu.Unlock()
	if !list {
		return
	}
	ents, err := i.list(maxNegative)
	if err != nil {
		return
	}
	names := make(map[string]struct{}, len(ents))
	for k := range ents {
		names[ents[k].Name] = struct{}{}
	}
	i.mu.Lock()
	if i.changes == changes {
		i.names = names
	}
	i.mu.Unlock()
}

// list returns the directory's entries, without "." and "..". At more than limit
// it gives up with EFBIG; 0 is no limit.
func (i *inode) list(limit int) ([]vfs.Dirent, error) {
	i.mu.Lock()
	ents, changes := i.entries, i.changes
	i.mu.Unlock()
	if ents != nil {
		return ents, nil
	}
	ents = []vfs.Dirent{}
	// In exclusive mode attributes come along: most who list a directory look at
	// its files next.
	var ahead map[string]*goferwire.Entry
	op := goferwire.OpReaddir
	if i.fs.opts.Exclusive && limit == 0 {
		op, ahead = goferwire.OpReaddirPlus, map[string]*goferwire.Entry{}
	}
	for off, last := uint64(0), false; !last; {
		var resp goferwire.Response
		if _, err := i.call(&goferwire.Request{Op: op, Off: off}, &resp); err != nil {
			return nil, err
		}
		if last = resp.Last || len(resp.Data) == 0; len(resp.Data) == 0 {
			break
		}
		var err error
		if op == goferwire.OpReaddir {
			off, err = parseDirents(resp.Data, func(ino uint64, typ uint8, name string) {
				ents = addDirent(ents, ino, typ, name)
			})
		} else {
			off, err = parseEntries(resp.Data, func(e *goferwire.Entry) {
				ents = addDirent(ents, e.Ino, e.Type, e.Name)
				if e.HasAttr && len(ahead) < maxAhead {
					ahead[e.Name] = e
				}
			})
		}
		if err != nil {
			return nil, err
		}
		if limit != 0 && len(ents) > limit {
			return nil, abi.EFBIG
		}
	}
	if i.fs.opts.Exclusive {
		i.mu.Lock()
		keep := i.changes == changes
		if keep {
			if len(ents) <= maxNegative {
				i.entries = ents
			}
			i.ahead = ahead
		}
		i.mu.Unlock()
		if keep && len(ahead) > 0 {
			i.fs.keepAhead(i)
		}
	}
	return ents, nil
}

// maxAhead bounds the attributes that are kept from one listing.
const maxAhead = 8192

func addDirent(ents []vfs.Dirent, ino uint64, typ uint8, name string) []vfs.Dirent {
	if name == "." || name == ".." {
		return ents
	}
	return append(ents, vfs.Dirent{Name: name, Ino: ino, Type: typ, Next: int64(len(ents)) + 3})
}

// parseEntries reads a run of goferwire.Entry and returns the last one's cookie.
func parseEntries(b []byte, fn func(*goferwire.Entry)) (next uint64, err error) {
	for len(b) > 0 {
		e := &goferwire.Entry{}
		if b, err = e.Decode(b); err != nil || strings.ContainsAny(e.Name, "/\x00") {
			return 0, abi.EIO
		}
		next = e.Next
		fn(e)
	}
	return next, nil
}

// parseDirents reads a run of struct linux_dirent64 and returns the cookie of
// the last. EIO for what is none.
func parseDirents(b []byte, fn func(ino uint64, typ uint8, name string)) (next uint64, err error) {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < 20 {
			return 0, abi.EIO
		}
		l := int(le.Uint16(b[16:]))
		if l < 20 || l > len(b) {
			return 0, abi.EIO
		}
		next = le.Uint64(b[8:])
		name, _, ok := strings.Cut(string(b[19:l]), "\x00")
		if !ok || name == "" || strings.Contains(name, "/") {
			return 0, abi.EIO
		}
		fn(le.Uint64(b), b[18], name)
		b = b[l:]
	}
	return next, nil
}

// changed notes that we have added a name to the directory, or removed one.
func (i *inode) changed(added, removed string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.entries, i.fresh = nil, false
	i.changes++
	i.seq++
	delete(i.ahead, added)
	delete(i.ahead, removed)
	if i.names != nil {
		if removed != "" {
			delete(i.names, removed)
		}
		if added != "" {
			i.names[added] = struct{}{}
		}
	}
}

// make runs op, which makes name in directory i, and returns the new inode.
func (i *inode) make(name string, op func(f p9.File) error) (vfs.Inode, error) {
	if err := i.op(op); err != nil {
		return nil, err
	}
	return i.madeChild(name)
}

// madeChild is the inode of name, which has just been made in directory i.
func (i *inode) madeChild(name string) (vfs.Inode, error) {
	name = strings.Clone(name)
	i.changed(name, "")
	c, err := i.child(name, false)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Mknod implements vfs.Inode. A regular file comes with its descriptor: who
// makes one is about to write it.
func (i *inode) Mknod(ctx vfs.Context, name string, mode uint16, rdev uint64) (vfs.Inode, error) {
	uid, gid := owner(ctx, i)
	if t := mode & abi.S_IFMT; t != abi.S_IFREG && t != 0 {
		return i.make(name, func(f p9.File) error {
			_, err := f.Mknod(name, p9.FileMode(mode), vfs.DevMajor(rdev), vfs.DevMinor(rdev), p9.UID(uid), p9.GID(gid))
			return i.fs.c.err(err)
		})
	}
	var resp goferwire.Response
	fd, err := i.call(&goferwire.Request{Op: goferwire.OpCreate, Name: name, Mode: uint32(mode) & 07777, UID: uint32(uid), GID: uint32(gid)}, &resp)
	if err != nil {
		return nil, err
	}
	c, err := i.madeChild(name)
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	if fd >= 0 {
		n := c.(*inode)
		n.res.opened()
		n.setWriteFD(fd, true)
		n.res.released()
	}
	return c, nil
}

// Mkdir implements vfs.Inode.
func (i *inode) Mkdir(ctx vfs.Context, name string, mode uint16) (vfs.Inode, error) {
	uid, gid := owner(ctx, i)
	return i.make(name, func(f p9.File) error {
		_, err := f.Mkdir(name, p9.FileMode(mode), p9.UID(uid), p9.GID(gid))
		return err
	})
}

// Symlink implements vfs.Inode.
func (i *inode) Symlink(ctx vfs.Context, name, target string) (vfs.Inode, error) {
	uid, gid := owner(ctx, i)
	return i.make(name, func(f p9.File) error {
		_, err := f.Symlink(target, name, p9.UID(uid), p9.GID(gid))
		return err
	})
}

// Link implements vfs.Inode.
func (i *inode) Link(_ vfs.Context, name string, target vfs.Inode) error {
	t, ok := target.(*inode)
	if !ok || t.fs != i.fs {
		return abi.EXDEV
	}
	tf, _, err := t.acquire()
	if err != nil {
		return err
	}
	defer t.release()
	err = i.op(func(f p9.File) error { return f.Link(tf, name) })
	if err == nil {
		i.changed(strings.Clone(name), "")
		t.stale()
	}
	return err
}

// Unlink implements vfs.Inode.
func (i *inode) Unlink(_ vfs.Context, name string, child vfs.Inode) error {
	return i.remove(name, child, 0)
}

// Rmdir implements vfs.Inode.
func (i *inode) Rmdir(_ vfs.Context, name string, child vfs.Inode) error {
	return i.remove(name, child, abi.AT_REMOVEDIR)
}

func (i *inode) remove(name string, child vfs.Inode, flags uint32) error {
	c, _ := child.(*inode)
	pinned := false
	if c != nil {
		var ok bool
		var err error
		if pinned, ok, err = c.pin(); err != nil {
			return err
		} else if !ok {
			c = nil
		}
	}
	if err := i.op(func(f p9.File) error { return f.UnlinkAt(name, flags) }); err != nil {
		if pinned {
			c.release()
		}
		return err
	}
	i.changed("", name)
	if c != nil {
		c.removed(pinned)
	}
	return nil
}

// Rename implements vfs.Inode.
func (i *inode) Rename(_ vfs.Context, name string, child vfs.Inode, newDir vfs.Inode, newName string, replaced vfs.Inode, flags uint32) error {
	d, ok := newDir.(*inode)
	if !ok || d.fs != i.fs {
		return abi.EXDEV
	}
	c, ok := child.(*inode)
	if !ok {
		return abi.EXDEV
	}
	old, _ := replaced.(*inode)
	if flags == abi.RENAME_EXCHANGE && old != nil {
		return i.exchange(name, c, d, newName, old)
	}
	if flags&^abi.RENAME_NOREPLACE != 0 {
		return abi.EINVAL
	}
	pinned := false
	if old != nil {
		var ok bool
		var err error
		if pinned, ok, err = old.pin(); err != nil {
			return err
		} else if !ok {
			old = nil
		}
	}
	if err := i.rename(name, c, d, newName, flags); err != nil {
		if pinned {
			old.release()
		}
		return err
	}
	newName = strings.Clone(newName)
	c.mu.Lock()
	c.parent, c.name, c.fresh = d, newName, false
	c.seq++
	c.mu.Unlock()
	i.changed("", name)
	d.changed(newName, "")
	if old != nil {
		old.removed(pinned)
	}
	return nil
}

func (i *inode) rename(name string, c, d *inode, newName string, flags uint32) error {
	if !i.fs.opts.Exclusive {
		// Keep c's fid over the change of its name.
		if _, _, err := c.acquire(); err != nil {
			return err
		}
		defer c.release()
	}
	return i.op(func(f p9.File) error {
		df, dnode, err := d.acquire()
		if err != nil {
			return err
		}
		defer d.release()
		if flags != 0 {
			_, node, err := i.acquire()
			if err != nil {
				return err
			}
			defer i.release()
			var resp goferwire.Response
			if _, err := i.fs.c.call(&goferwire.Request{Op: goferwire.OpArmRename, Node: node, Name: name, Node2: dnode,
				Name2: newName, Flags: flags}, &resp); err != nil {
				return err
			}
		}
		return f.RenameAt(name, df, newName)
	})
}

// exchange swaps c, which is name in i, with old, which is newName in d.
func (i *inode) exchange(name string, c, d *inode, newName string, old *inode) error {
	i.fs.exchanged.Store(true)
	_, node, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	_, dnode, err := d.acquire()
	if err != nil {
		return err
	}
	defer d.release()
	var resp goferwire.Response
	if _, err := i.fs.c.call(&goferwire.Request{Op: goferwire.OpExchange, Node: node, Name: name, Node2: dnode, Name2: newName}, &resp); err != nil {
		return err
	}
	name, newName = strings.Clone(name), strings.Clone(newName)
	for _, x := range []struct {
		f, dir *inode
		name   string
	}{{c, d, newName}, {old, i, name}} {
		x.f.mu.Lock()
		x.f.parent, x.f.name, x.f.fresh = x.dir, x.name, false
		x.f.seq++
		x.f.mu.Unlock()
		x.f.dropFid()
	}
	i.changed(name, "")
	d.changed(newName, "")
	return nil
}

// Tmpfile implements vfs.Inode: programs fall back to a name of their own.
func (i *inode) Tmpfile(vfs.Context, uint16) (vfs.Inode, error) { return nil, abi.EOPNOTSUPP }

// A dirFile is an open directory. It keeps the listing that it began with:
// positions are indexes into it, so entries that are removed between two calls
// shift nothing (readdir(3) leaves open whether they are still returned).
type dirFile struct {
	vfs.FileDefaults
	i    *inode
	ents []vfs.Dirent // guarded by the file's position lock
}

// ReadDir implements vfs.FileOps. Positions: 0 is ".", 1 "..", then the listing.
func (d *dirFile) ReadDir(ctx vfs.Context, f *vfs.File, pos int64, emit func(vfs.Dirent) bool) error {
	if pos == 0 || d.ents == nil {
		ents, err := d.i.list(0)
		if err != nil {
			if pos == 0 {
				return err
			}
			ents = []vfs.Dirent{}
		}
		d.ents = ents
	}
	if pos == 0 {
		if !emit(vfs.Dirent{Name: ".", Ino: d.i.key.ino, Type: abi.DT_DIR, Next: 1}) {
			return nil
		}
		pos++
	}
	if pos == 1 {
		ino := d.i.key.ino
		if p, _ := d.i.where(); p != nil {
			ino = p.key.ino
		}
		if !emit(vfs.Dirent{Name: "..", Ino: ino, Type: abi.DT_DIR, Next: 2}) {
			return nil
		}
		pos++
	}
	for k := pos - 2; k >= 0 && k < int64(len(d.ents)); k++ {
		if !emit(d.ents[k]) {
			return nil
		}
	}
	return nil
}

// Seek implements vfs.FileOps.
func (d *dirFile) Seek(_ vfs.Context, _ *vfs.File, cur, off int64, whence int) (int64, error) {
	switch whence {
	case abi.SEEK_SET, abi.SEEK_CUR:
		return vfs.SeekSize(cur, off, 0, whence)
	}
	return 0, abi.EINVAL
}

// Sync implements vfs.FileOps.
func (d *dirFile) Sync(vfs.Context, *vfs.File, bool) error {
	var resp goferwire.Response
	_, err := d.i.call(&goferwire.Request{Op: goferwire.OpFsync}, &resp)
	if err == abi.EROFS {
		err = nil
	}
	return err
}
