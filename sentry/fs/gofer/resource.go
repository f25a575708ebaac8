package gofer

import (
	"sync"
	"sync/atomic"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/goferwire"
)

// A resource is what an inode holds outside the Sentry's heap: a fid of the
// server, and donated descriptors. It does not point to the inode, so that it
// can be freed when that has become garbage.
type resource struct {
	c *Client

	mu   sync.Mutex
	fid  p9.File // nil when taken away
	node uint64  // the server's id for the file while there is a fid
	busy int     // calls under way with the fid, or a pin: it may not go

	// Descriptors, -1 if there is none. They are replaced under mu and read
	// without it by those who are counted in opens.
	readFD, writeFD atomic.Int32
	retired         []int // replaced while in use
	opens           int   // guarded by mu
	gone            bool  // guarded by mu: the file has no name any more, so what is not in use goes at once

	fidLink, idleLink link
}

func newResource(c *Client, fid p9.File, node uint64) *resource {
	r := &resource{c: c, fid: fid, node: node}
	r.readFD.Store(-1)
	r.writeFD.Store(-1)
	r.fidLink.r, r.idleLink.r = r, r
	return r
}

// link is an entry in an lru list.
type link struct {
	r          *resource
	prev, next *link
}

// lru is a ring around a head.
type lru struct{ head link }

func (l *lru) init() { l.head.prev, l.head.next = &l.head, &l.head }

func (k *link) linked() bool { return k.next != nil }

func (l *lru) push(k *link) {
	k.prev, k.next = l.head.prev, &l.head
	k.prev.next, k.next.prev = k, k
}

func (k *link) remove() {
	k.prev.next, k.next.prev = k.next, k.prev
	k.prev, k.next = nil, nil
}

// touch notes that r's fid was made or used, and takes others' away if there
// are too many. r.mu is held by the caller.
func (c *Client) touch(r *resource) {
	c.lruMu.Lock()
	if r.fidLink.linked() {
		r.fidLink.remove()
	} else {
		c.fidsN++
	}
	c.fids.push(&r.fidLink)
	over := c.fidsN > c.fidsMax
	c.lruMu.Unlock()
	if over {
		c.evictFids(64)
	}
}

// evictFids takes the fids of up to n resources that are not in use.
func (c *Client) evictFids(n int) {
	var gone []p9.File
	c.lruMu.Lock()
	looked := 0
	for k := c.fids.head.next; k != &c.fids.head && n > 0 && looked < 4096; looked++ {
		next := k.next
		// TryLock: the order is resource before list.
		if r := k.r; r.mu.TryLock() {
			if r.busy == 0 && r.fid != nil {
				gone = append(gone, r.fid)
				r.fid = nil
				k.remove()
				c.fidsN--
				n--
			}
			r.mu.Unlock()
		}
		k = next
	}
	c.lruMu.Unlock()
	for _, f := range gone {
		f.Close()
	}
}

// forget takes r out of the fid list.
func (c *Client) forget(r *resource) {
	c.lruMu.Lock()
	if r.fidLink.linked() {
		r.fidLink.remove()
		c.fidsN--
	}
	c.lruMu.Unlock()
}

// opened counts a user of the descriptors.
func (r *resource) opened() {
	r.mu.Lock()
	r.opens++
	r.mu.Unlock()
	r.c.lruMu.Lock()
	if r.idleLink.linked() {
		r.idleLink.remove()
		r.c.idleN--
	}
	r.c.lruMu.Unlock()
}

// released takes a user back; without users the descriptors stay for a while.
func (r *resource) released() {
	r.mu.Lock()
	r.opens--
	idle := r.opens == 0
	if idle {
		for _, fd := range r.retired {
			unix.Close(fd)
		}
		r.retired = nil
		idle = !r.gone && (r.readFD.Load() >= 0 || r.writeFD.Load() >= 0)
	}
	gone := r.gone
	r.mu.Unlock()
	if gone {
		r.letGo()
	}
	if !idle {
		return
	}
	c := r.c
	c.lruMu.Lock()
	if !r.idleLink.linked() {
		c.idle.push(&r.idleLink)
		c.idleN++
	}
	keep := c.idleMax
	over := c.idleN > keep
	c.lruMu.Unlock()
	if over {
		c.closeIdle(keep)
	}
}

// closeIdle closes the descriptors of files that nobody has open, but for the
// last few.
func (c *Client) closeIdle(keep int) {
	var victims []*resource
	c.lruMu.Lock()
	for c.idleN > keep {
		k := c.idle.head.next
		k.remove()
		c.idleN--
		victims = append(victims, k.r)
	}
	c.lruMu.Unlock()
	for _, v := range victims {
		v.mu.Lock()
		if v.opens == 0 {
			v.closeFDs()
		}
		v.mu.Unlock()
	}
}

// closeFDs closes the descriptors; r.mu is held.
func (r *resource) closeFDs() {
	rd, wr := r.readFD.Swap(-1), r.writeFD.Swap(-1)
	if rd >= 0 {
		unix.Close(int(rd))
	}
	if wr >= 0 && wr != rd {
		unix.Close(int(wr))
	}
	for _, fd := range r.retired {
		unix.Close(fd)
	}
	r.retired = nil
}

// letGo gives a file's fid and descriptors back if it has no name and no user,
// so that the host can free its blocks.
func (r *resource) letGo() {
	r.mu.Lock()
	var f p9.File
	if r.gone && r.opens == 0 {
		r.closeFDs()
		if r.busy == 0 {
			f, r.fid = r.fid, nil
		}
	}
	r.mu.Unlock()
	if f != nil {
		r.c.forget(r)
		f.Close()
	}
}

// removed notes that one of the file's names is gone. pinned says that pin was
// called for it.
func (i *inode) removed(pinned bool) {
	i.mu.Lock()
	if i.fs.opts.Exclusive && (i.fresh || i.ftype == abi.S_IFDIR) {
		if i.attr.Nlink > 0 {
			i.attr.Nlink--
		}
		if i.ftype == abi.S_IFDIR {
			i.attr.Nlink = 0
		}
		i.seq++
		i.mu.Unlock()
	} else {
		i.seq++
		i.fresh = false
		i.mu.Unlock()
		if i.refresh() != nil {
			return
		}
	}
	i.mu.Lock()
	last := i.attr.Nlink == 0
	i.mu.Unlock()
	if !last {
		return // keeps its pin: we know no other name to walk to
	}
	i.fs.mu.Lock()
	if i.fs.inodes[i.key].Value() == i {
		delete(i.fs.inodes, i.key)
	}
	i.fs.mu.Unlock()
	r := i.res
	r.mu.Lock()
	r.gone = true
	if pinned {
		r.busy--
	}
	r.mu.Unlock()
	r.letGo()
}

// free gives everything back: the inode is garbage.
func (r *resource) free() {
	r.c.forget(r)
	r.c.lruMu.Lock()
	if r.idleLink.linked() {
		r.idleLink.remove()
		r.c.idleN--
	}
	r.c.lruMu.Unlock()
	r.mu.Lock()
	f := r.fid
	r.fid = nil
	r.closeFDs()
	r.mu.Unlock()
	if f != nil && !r.c.dead.Load() {
		f.Close()
	}
}

// acquire returns the inode's fid and node id, walking to the file again if the
// fid was taken away, and keeps it until release.
func (i *inode) acquire() (p9.File, uint64, error) {
	r := i.res
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c.dead.Load() {
		return nil, 0, abi.EIO
	}
	if r.fid == nil {
		if r.gone {
			return nil, 0, abi.ENOENT
		}
		if err := i.rewalk(); err != nil {
			return nil, 0, err
		}
	}
	r.busy++
	r.c.touch(r)
	return r.fid, r.node, nil
}

func (i *inode) release() {
	i.res.mu.Lock()
	i.res.busy--
	gone := i.res.gone
	i.res.mu.Unlock()
	if gone {
		i.res.letGo()
	}
}

// pin keeps the fid of a file that is about to lose a name for good, if it will
// be needed: if the file is in use, or has other names, which we need not know.
// ok is false if the fid can't be had any more.
func (i *inode) pin() (pinned, ok bool, err error) {
	if i.fs.opts.Exclusive {
		i.res.mu.Lock()
		opens := i.res.opens
		i.res.mu.Unlock()
		i.mu.Lock()
		last := i.fresh && i.attr.Nlink == 1 || i.ftype == abi.S_IFDIR
		i.mu.Unlock()
		if opens == 0 && last {
			return false, true, nil
		}
	}
	_, _, err = i.acquire()
	if err == abi.ESTALE || err == abi.ENOENT {
		return false, false, nil
	}
	return err == nil, err == nil, err
}

// op makes a call with i's fid. The 9P library has an idea of its own of which
// fids lead to files that are gone, by name, and that can be wrong (goferwire.
// OpExchange): a refusal that looks like it is tried once more with new fids.
func (i *inode) op(fn func(f p9.File) error) error {
	for tries := 0; ; tries++ {
		f, _, err := i.acquire()
		if err != nil {
			return err
		}
		err = i.fs.c.err(fn(f))
		i.release()
		if tries > 0 || !i.fs.opts.Exclusive || err != abi.EINVAL && err != abi.ENOENT || !i.fs.exchanged.Load() {
			return err
		}
		for d := i; d != nil; d, _ = d.where() {
			d.dropFid()
		}
	}
}

// dropFid gives the fid back if it is not in use; the file can be walked to.
func (i *inode) dropFid() {
	r := i.res
	r.mu.Lock()
	var f p9.File
	if r.busy == 0 {
		f, r.fid = r.fid, nil
	}
	r.mu.Unlock()
	if f != nil {
		r.c.forget(r)
		f.Close()
	}
}

// rewalk gets a new fid by the name of the file; i.res.mu is held. ESTALE if
// another file has that name now, as on NFS.
func (i *inode) rewalk() error {
	parent, name := i.where()
	if parent == nil {
		return abi.ESTALE
	}
	pf, _, err := parent.acquire()
	if err != nil {
		return err
	}
	defer parent.release()
	qids, f, _, attr, err := i.fs.walk(pf, name)
	if err != nil {
		if err == abi.ENOENT {
			err = abi.ESTALE
		}
		return err
	}
	if attr.Gen != i.key.ino || attr.DataVersion != i.key.dev || uint16(attr.Mode)&abi.S_IFMT != i.ftype {
		f.Close()
		return abi.ESTALE
	}
	i.res.fid, i.res.node = f, qids[0].Path
	return nil
}

// walk looks one name up, with room made for one more fid if need be.
func (fs *FS) walk(dir p9.File, name string) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	for tries := 0; ; tries++ {
		qids, f, mask, attr, err := dir.WalkGetAttr([]string{name})
		err = fs.c.err(err)
		if err == abi.EMFILE && tries < 3 {
			fs.c.evictFids(1024)
			continue
		}
		if err == nil && len(qids) != 1 {
			f.Close()
			err = abi.EIO
		}
		return qids, f, mask, attr, err
	}
}

// ensureFD makes sure that there is a descriptor for the access wanted. The
// caller is counted in opens.
func (i *inode) ensureFD(write bool) error {
	r := i.res
	if write && r.writeFD.Load() >= 0 || !write && r.readFD.Load() >= 0 {
		return nil
	}
	if !write {
		fd, err := i.donated(abi.O_RDONLY)
		if err == nil {
			i.setReadFD(fd)
		}
		return err
	}
	fd, err := i.donated(abi.O_RDWR)
	writeOnly := err == abi.EACCES
	if writeOnly {
		fd, err = i.donated(abi.O_WRONLY)
	}
	if err == nil {
		i.setWriteFD(fd, !writeOnly)
	}
	return err
}

// setReadFD takes over fd, opened for reading.
func (i *inode) setReadFD(fd int) {
	i.res.mu.Lock()
	defer i.res.mu.Unlock()
	if !i.res.readFD.CompareAndSwap(-1, int32(fd)) {
		unix.Close(fd)
	}
}

// setWriteFD takes over fd, opened for writing, and for reading if both is set.
// Reads use it too from then on: where the host's file system is an overlay, a
// descriptor opened before the first writer still shows the lower file.
func (i *inode) setWriteFD(fd int, both bool) {
	r := i.res
	r.mu.Lock()
	if !r.writeFD.CompareAndSwap(-1, int32(fd)) {
		r.mu.Unlock()
		unix.Close(fd)
		return
	}
	replaced := false
	if both {
		if old := r.readFD.Swap(int32(fd)); old >= 0 {
			r.retired = append(r.retired, int(old))
			replaced = true
		}
	}
	r.mu.Unlock()
	if replaced {
		i.maps.invalidate(i, 0, ^uint64(0)&^4095)
	}
}

// donated gets a new descriptor.
func (i *inode) donated(flags uint32) (int, error) {
	var resp goferwire.Response
	fd, err := i.call(&goferwire.Request{Op: goferwire.OpOpen, Flags: flags}, &resp)
	if err == abi.ENFILE {
		// Idle files have made room by now, if there were any.
		fd, err = i.call(&goferwire.Request{Op: goferwire.OpOpen, Flags: flags}, &resp)
	}
	if err == nil && fd < 0 {
		err = abi.EIO
	}
	return fd, err
}

// call makes a request about i on the descriptor channel.
func (i *inode) call(req *goferwire.Request, resp *goferwire.Response) (int, error) {
	for tries := 0; ; tries++ {
		base, err := i.address(req, tries < 3)
		if err != nil {
			return -1, err
		}
		fd, err := i.fs.c.call(req, resp)
		base.release()
		// A directory on the path may have been renamed meanwhile: then the path
		// is another one now. In the end a fid decides.
		if err != abi.ESTALE || req.Path == "" {
			return fd, err
		}
	}
}

// address names i in req: by its fid's node if it has one, else, if that may be
// and names are sure to hold (exclusive mode), by a path from the next directory
// that has one. The inode that is returned must be released.
func (i *inode) address(req *goferwire.Request, byPath bool) (*inode, error) {
	req.Path, req.Ino, req.Dev = "", i.key.ino, i.key.dev
	for d := i; ; {
		r := d.res
		r.mu.Lock()
		if r.fid != nil && !r.c.dead.Load() {
			r.busy++
			r.c.touch(r)
			req.Node = r.node
			r.mu.Unlock()
			return d, nil
		}
		gone := r.gone
		r.mu.Unlock()
		parent, name := d.where()
		if gone || parent == nil || !byPath || !i.fs.opts.Exclusive || len(req.Path)+len(name) >= goferwire.MaxPath {
			var err error
			_, req.Node, err = d.acquire()
			return d, err
		}
		if req.Path == "" {
			req.Path = name
		} else {
			req.Path = name + "/" + req.Path
		}
		d = parent
	}
}

// anyFD is a descriptor to make fstat and the like on; -1 if there is none.
// It may only be used under r.mu or while counted in opens.
func (r *resource) anyFD() int {
	if fd := r.writeFD.Load(); fd >= 0 {
		return int(fd)
	}
	return int(r.readFD.Load())
}
