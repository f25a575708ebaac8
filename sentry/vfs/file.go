package vfs

import (
	"math"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/wait"
)

// A File is an open file description (open(2)): what descriptors, possibly of
// several processes, refer to. The last DecRef releases it.
type File struct {
	refs  atomic.Int64
	flags atomic.Uint32 // O_* without the creation flags
	ops   FileOps
	path  Path
	name  string     // of anonymous files
	cred  *cred.Cred // of the opener
	inode Inode

	readable, writable, stream, pathOnly, selfBlock, ownPos bool
	writeCounted, denied                                    bool

	posMu sync.Mutex
	pos   int64

	// watchers are told when the file description goes away (epoll).
	watchMu  sync.Mutex
	watchers map[Watcher]struct{}

	async asyncState
	locks atomic.Bool // flock or OFD locks were taken through it
}

// A Watcher wants to know when an open file description is released.
type Watcher interface{ FileReleased(f *File) }

// fileFlagsKept are the open(2) flags that F_GETFL shows.
const fileFlagsKept = abi.O_ACCMODE | abi.O_APPEND | abi.O_NONBLOCK | abi.O_DSYNC | abi.O_SYNC | abi.O_ASYNC |
	abi.O_DIRECT | abi.O_LARGEFILE | abi.O_NOATIME | abi.O_PATH | abi.O_DIRECTORY | abi.O_NOFOLLOW |
	abi.O_TMPFILE

// NewFile makes an open file description with one reference, the caller's. It
// takes over ops, and a reference to path's mount of its own. flags are open(2)'s.
func NewFile(ops FileOps, flags uint32, path Path) *File {
	f := &File{ops: ops, path: path}
	f.refs.Store(1)
	f.flags.Store(flags & fileFlagsKept)
	switch flags & abi.O_ACCMODE {
	case abi.O_RDONLY:
		f.readable = true
	case abi.O_WRONLY:
		f.writable = true
	case abi.O_RDWR:
		f.readable, f.writable = true, true
	}
	if flags&abi.O_PATH != 0 {
		f.readable, f.writable, f.pathOnly = false, false, true
	}
	f.stream = ops.Stream()
	_, f.selfBlock = ops.(SelfBlocker)
	if o, ok := ops.(PositionOwner); ok {
		f.ownPos = o.OwnsPosition()
	}
	if path.Dentry != nil {
		f.inode = path.Dentry.inode
	}
	path.IncRef()
	return f
}

// NewAnonFile makes an open file description that has no path: name is what
// /proc/PID/fd shows, as "anon_inode:[eventpoll]".
func NewAnonFile(ops FileOps, flags uint32, name string) *File {
	f := NewFile(ops, flags, Path{})
	f.name = name
	return f
}

// A SelfBlocker is a FileOps that blocks in Read and Write itself when
// f.Nonblocking() is false: EAGAIN from it is final. For others, File's methods
// sleep until the file is ready, and try again.
type SelfBlocker interface{ BlocksItself() }

// A PositionOwner is a FileOps that keeps the file's position itself, if
// OwnsPosition says so when the File is made: a host's open file, which
// processes of the host share. read(2) and write(2) then pass OwnPosition as the
// offset, and Seek ignores the current position that it is given.
type PositionOwner interface{ OwnsPosition() bool }

// OwnPosition is the offset that stands for the position a PositionOwner keeps.
const OwnPosition = -1

// An InodeFile is a FileOps of an anonymous file that has attributes all the
// same (a socket, a pipe): fstat and fchmod go to this inode.
type InodeFile interface{ FileInode() Inode }

// Ops are the file's operations, for the code that made them.
func (f *File) Ops() FileOps { return f.ops }

// Path is where the file was opened; its Dentry is nil for an anonymous file.
func (f *File) Path() Path { return f.path }

// Inode is the file's inode, or nil for an anonymous file that has none.
func (f *File) Inode() Inode {
	if f.inode != nil {
		return f.inode
	}
	if i, ok := f.ops.(InodeFile); ok {
		return i.FileInode()
	}
	return nil
}

// Cred is who opened the file; nil if the Sentry did.
func (f *File) Cred() *cred.Cred { return f.cred }

// IncRef adds a reference. The caller has one already.
func (f *File) IncRef() { f.refs.Add(1) }

// TryIncRef adds a reference unless the last one is gone.
func (f *File) TryIncRef() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Refs is the number of references, for garbage collection of passed descriptors.
func (f *File) Refs() int64 { return f.refs.Load() }

// DecRef drops a reference; the last one releases the file.
func (f *File) DecRef() {
	if n := f.refs.Add(-1); n == 0 {
		f.release()
	} else if n < 0 {
		panic("vfs: a File's reference was dropped twice")
	}
}

func (f *File) release() {
	if f.writable {
		f.notify(abi.IN_CLOSE_WRITE)
	} else {
		f.notify(abi.IN_CLOSE_NOWRITE)
	}
	f.watchMu.Lock()
	ws := f.watchers
	f.watchers = nil
	f.watchMu.Unlock()
	for w := range ws {
		w.FileReleased(f)
	}
	f.async.stop(f)
	if f.locks.Load() {
		releaseFileLocks(f)
	}
	if f.writeCounted {
		putWriteAccess(f.inode)
	}
	if f.denied {
		AllowWrite(f.inode)
	}
	f.ops.Release(f)
	f.path.DecRef()
}

// Watch makes w hear of the file's release; Unwatch takes that back.
func (f *File) Watch(w Watcher) {
	f.watchMu.Lock()
	defer f.watchMu.Unlock()
	if f.watchers == nil {
		f.watchers = make(map[Watcher]struct{})
	}
	f.watchers[w] = struct{}{}
}

// Unwatch takes a Watch back.
func (f *File) Unwatch(w Watcher) {
	f.watchMu.Lock()
	defer f.watchMu.Unlock()
	delete(f.watchers, w)
}

// Flags are the O_* flags that F_GETFL shows.
func (f *File) Flags() uint32 { return f.flags.Load() }

// SetFlags replaces the bits of mask among the flags.
func (f *File) SetFlags(mask, bits uint32) {
	for {
		o := f.flags.Load()
		if f.flags.CompareAndSwap(o, o&^mask|bits&mask) {
			return
		}
	}
}

// Nonblocking reports O_NONBLOCK.
func (f *File) Nonblocking() bool { return f.flags.Load()&abi.O_NONBLOCK != 0 }

// Append reports O_APPEND.
func (f *File) Append() bool { return f.flags.Load()&abi.O_APPEND != 0 }

// Readable and Writable report the access mode; both are false for O_PATH.
func (f *File) Readable() bool { return f.readable }
func (f *File) Writable() bool { return f.writable }

// PathOnly reports O_PATH: the file can only be named, not used.
func (f *File) PathOnly() bool { return f.pathOnly }

// Stream reports that the file has no position.
func (f *File) Stream() bool { return f.stream }

// IsDir reports whether the file is a directory.
func (f *File) IsDir() bool { return f.path.Dentry != nil && f.path.Dentry.IsDir() }

// Readiness, EventRegister and EventUnregister pass through to the operations.
func (f *File) Readiness(mask wait.Events) wait.Events         { return f.ops.Readiness(mask) }
func (f *File) EventRegister(w *wait.Waiter, mask wait.Events) { f.ops.EventRegister(w, mask) }
func (f *File) EventUnregister(w *wait.Waiter)                 { f.ops.EventUnregister(w) }

// MappedName is the path that /proc/PID/maps shows.
func (f *File) MappedName() string {
	if f.path.Dentry == nil {
		return f.name
	}
	if n, ok := f.ops.(interface{ MappedName() string }); ok {
		return n.MappedName()
	}
	return f.path.mappedName()
}

// Name is what readlink of /proc/PID/fd/N gives, seen from root.
func (f *File) Name(root Path) string {
	if f.path.Dentry == nil {
		return f.name
	}
	return f.path.NameFrom(root)
}

// DeviceInode is st_dev and st_ino.
func (f *File) DeviceInode() (dev, ino uint64) {
	if i := f.Inode(); i != nil {
		if a, err := i.Attr(bareContext); err == nil {
			return a.Dev, a.Ino
		}
	}
	return 0, 0
}

var _ mm.File = (*File)(nil)

// Attr is fstat.
func (f *File) Attr(ctx Context) (Attr, error) {
	if i := f.Inode(); i != nil {
		return i.Attr(ctx)
	}
	return anonAttr(), nil
}

// Mappable is what mmap maps; EACCES and EPERM checks are the caller's.
func (f *File) Mappable(ctx Context, prot, flags uint32) (mm.Mappable, error) {
	return f.ops.Mappable(ctx, f, prot, flags)
}

// Ioctl passes a command to the operations.
func (f *File) Ioctl(ctx Context, cmd uint32, arg uint64) (uintptr, error) {
	return f.ops.Ioctl(ctx, f, cmd, arg)
}

// Read reads at the file's position, and moves it.
func (f *File) Read(ctx Context, dst *usermem.Buffer, fl IOFlags) (int64, error) {
	if !f.readable {
		return 0, abi.EBADF
	}
	if f.stream {
		return f.read(ctx, dst, 0, fl)
	}
	if f.ownPos {
		return f.read(ctx, dst, OwnPosition, fl)
	}
	f.posMu.Lock()
	defer f.posMu.Unlock()
	n, err := f.read(ctx, dst, f.pos, fl)
	if n > 0 {
		f.pos += n
	}
	return n, err
}

// Pread reads at off.
func (f *File) Pread(ctx Context, dst *usermem.Buffer, off int64, fl IOFlags) (int64, error) {
	if f.stream {
		return 0, abi.ESPIPE
	}
	if !f.readable {
		return 0, abi.EBADF
	}
	return f.read(ctx, dst, off, fl)
}

// Write writes at the file's position, or its end (O_APPEND), and moves it.
func (f *File) Write(ctx Context, src *usermem.Buffer, fl IOFlags) (int64, error) {
	if !f.writable {
		return 0, abi.EBADF
	}
	if f.stream {
		n, _, err := f.write(ctx, src, 0, fl)
		return n, err
	}
	if f.ownPos {
		n, _, err := f.write(ctx, src, OwnPosition, fl)
		return n, err
	}
	f.posMu.Lock()
	defer f.posMu.Unlock()
	n, end, err := f.write(ctx, src, f.pos, fl)
	if n > 0 {
		f.pos = end
	}
	return n, err
}

// Pwrite writes at off; on Linux, O_APPEND still appends (pwrite(2), BUGS).
func (f *File) Pwrite(ctx Context, src *usermem.Buffer, off int64, fl IOFlags) (int64, error) {
	if f.stream {
		return 0, abi.ESPIPE
	}
	if !f.writable {
		return 0, abi.EBADF
	}
	n, _, err := f.write(ctx, src, off, fl)
	return n, err
}

// overflows reports a range behind the largest offset (rw_verify_area: EINVAL).
func (f *File) overflows(off int64, b *usermem.Buffer) bool {
	return !f.stream && off > math.MaxInt64-int64(b.Len())
}

func (f *File) read(ctx Context, dst *usermem.Buffer, off int64, fl IOFlags) (int64, error) {
	if f.overflows(off, dst) {
		return 0, abi.EINVAL
	}
	n, err := f.ops.Read(ctx, f, dst, off, fl)
	if err == abi.EAGAIN && n == 0 && !f.selfBlock && !f.Nonblocking() && fl&abi.RWF_NOWAIT == 0 {
		return f.blockingRead(ctx, dst, off, fl)
	}
	if n > 0 {
		f.notify(abi.IN_ACCESS)
		return n, nil
	}
	return 0, err
}

// blockingRead is the slow half of read: sleep until there is something.
func (f *File) blockingRead(ctx Context, dst *usermem.Buffer, off int64, fl IOFlags) (int64, error) {
	w := getWaiter()
	defer putWaiter(w)
	f.ops.EventRegister(&w.Waiter, readEvents)
	defer f.ops.EventUnregister(&w.Waiter)
	for {
		n, err := f.ops.Read(ctx, f, dst, off, fl)
		if n > 0 {
			return n, nil
		}
		if err != abi.EAGAIN || f.Nonblocking() {
			return 0, err
		}
		if err := ctx.Block(w.ch); err != nil {
			return 0, err
		}
	}
}

func (f *File) write(ctx Context, src *usermem.Buffer, off int64, fl IOFlags) (n, end int64, err error) {
	n, end, err = f.writeSome(ctx, src, off, fl)
	if n > 0 {
		f.notify(abi.IN_MODIFY)
	}
	return n, end, err
}

func (f *File) writeSome(ctx Context, src *usermem.Buffer, off int64, fl IOFlags) (n, end int64, err error) {
	if f.overflows(off, src) {
		return 0, off, abi.EINVAL
	}
	n, end, err = f.ops.Write(ctx, f, src, off, fl)
	if f.selfBlock || f.Nonblocking() || fl&abi.RWF_NOWAIT != 0 ||
		!(err == abi.EAGAIN || err == nil && f.stream && src.Len() > 0 && n > 0) {
		if n > 0 {
			err = nil
		}
		return n, end, err
	}
	// A blocking write to a stream that took part of it goes on until all is
	// written, an error, or a signal.
	w := getWaiter()
	defer putWaiter(w)
	f.ops.EventRegister(&w.Waiter, writeEvents)
	defer f.ops.EventUnregister(&w.Waiter)
	for {
		m, e, err := f.ops.Write(ctx, f, src, off, fl)
		if m > 0 {
			n, end = n+m, e
		}
		switch {
		case err == nil && (src.Len() == 0 || m == 0 || !f.stream):
			return n, end, nil
		case err == nil:
			continue
		case err != abi.EAGAIN || f.Nonblocking():
			if n > 0 {
				err = nil
			}
			return n, end, err
		}
		if err := ctx.Block(w.ch); err != nil {
			if n > 0 {
				err = nil
			}
			return n, end, err
		}
	}
}

const (
	readEvents  = wait.Events(abi.EPOLLIN | abi.EPOLLRDNORM | abi.EPOLLHUP | abi.EPOLLERR | abi.EPOLLRDHUP)
	writeEvents = wait.Events(abi.EPOLLOUT | abi.EPOLLWRNORM | abi.EPOLLHUP | abi.EPOLLERR)
)

// chanWaiter is a reusable waiter with its channel.
type chanWaiter struct {
	wait.Waiter
	ch chan struct{}
}

var waiterPool = sync.Pool{New: func() any {
	w := &chanWaiter{ch: make(chan struct{}, 1)}
	w.Callback = func(*wait.Waiter, wait.Events) { wait.Wake(w.ch) }
	return w
}}

func getWaiter() *chanWaiter { return waiterPool.Get().(*chanWaiter) }

func putWaiter(w *chanWaiter) {
	select {
	case <-w.ch:
	default:
	}
	waiterPool.Put(w)
}

// BlockingRetry calls try until it returns something else than EAGAIN, sleeping
// in between until w has one of the events. It is how operations with their own
// blocking rules wait (ioctls, F_SETLKW on a file, accept).
func BlockingRetry(ctx Context, w wait.Waitable, events wait.Events, try func() error) error {
	if err := try(); err != abi.EAGAIN {
		return err
	}
	cw := getWaiter()
	defer putWaiter(cw)
	w.EventRegister(&cw.Waiter, events)
	defer w.EventUnregister(&cw.Waiter)
	for {
		if err := try(); err != abi.EAGAIN {
			return err
		}
		if err := ctx.Block(cw.ch); err != nil {
			return err
		}
	}
}

// Seek is lseek.
func (f *File) Seek(ctx Context, off int64, whence int) (int64, error) {
	if f.stream {
		return 0, abi.ESPIPE
	}
	f.posMu.Lock()
	defer f.posMu.Unlock()
	n, err := f.ops.Seek(ctx, f, f.pos, off, whence)
	if err != nil {
		return 0, err
	}
	f.pos = n
	return n, nil
}

// Position is the file's offset (/proc/PID/fdinfo).
func (f *File) Position() int64 {
	f.posMu.Lock()
	defer f.posMu.Unlock()
	return f.pos
}

// WithPosition runs fn with the position locked; fn returns the new one.
func (f *File) WithPosition(fn func(pos int64) (int64, error)) error {
	f.posMu.Lock()
	defer f.posMu.Unlock()
	p, err := fn(f.pos)
	if err == nil {
		f.pos = p
	}
	return err
}

// ReadDir reads entries from the file's position until emit returns false; the
// position moves past each entry that emit took.
func (f *File) ReadDir(ctx Context, emit func(Dirent) bool) error {
	f.posMu.Lock()
	defer f.posMu.Unlock()
	defer f.notify(abi.IN_ACCESS)
	return f.ops.ReadDir(ctx, f, f.pos, func(d Dirent) bool {
		if !emit(d) {
			return false
		}
		f.pos = d.Next
		return true
	})
}

// anonAttr is fstat of an anonymous inode: a mode of nothing but permissions.
func anonAttr() Attr {
	return Attr{Mode: 0600, Nlink: 1, Ino: anonIno, Dev: MakeDev(0, 15), BlkSize: 4096}
}

// anonIno is the inode that all anonymous files of Linux share too.
const anonIno = 1057
