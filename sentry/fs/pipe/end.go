package pipe

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/fs/anonfs"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// An End is an open file on a pipe: its reading side, its writing side, or both.
type End struct {
	vfs.FileDefaults
	p           *Pipe
	read, write bool
	// idle is set on a FIFO's reader that was opened without a writer: there
	// is no EPOLLHUP before the first writer has come (pipe_poll). Guarded by p.mu.
	idle   bool
	idleAt uint32 // p.wOpens then
	fifos  *FIFOs // nil for an anonymous pipe
	inode  vfs.Inode
}

// Node is the inode of an anonymous pipe.
type Node struct {
	anonfs.Node
	p *Pipe
}

// New makes a pipe with one reader and one writer (pipe(2)). The caller closes
// both ends by Release, usually through a vfs.File.
func New(ctx vfs.Context) (r, w *End) {
	n := &Node{p: newPipe()}
	n.Init(ctx.Cred(), abi.S_IFIFO|0o600, vfs.MakeDev(0, 13))
	n.p.ino = n.Ino()
	n.p.readers, n.p.writers = 1, 1
	return &End{p: n.p, read: true, inode: n}, &End{p: n.p, write: true, inode: n}
}

// Pipe is the buffer behind the end.
func (e *End) Pipe() *Pipe { return e.p }

// BlocksItself says that Read and Write sleep themselves.
func (e *End) BlocksItself() {}

// FileInode is the inode of an anonymous pipe.
func (e *End) FileInode() vfs.Inode { return e.inode }

// Stream implements vfs.FileOps.
func (e *End) Stream() bool { return true }

// Read implements vfs.FileOps.
func (e *End) Read(ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, error) {
	if !e.read {
		return 0, abi.EBADF
	}
	return e.p.read(ctx, dst, f.Nonblocking() || fl&abi.RWF_NOWAIT != 0)
}

// Write implements vfs.FileOps.
func (e *End) Write(ctx vfs.Context, f *vfs.File, src *usermem.Buffer, _ int64, fl vfs.IOFlags) (int64, int64, error) {
	if !e.write {
		return 0, 0, abi.EBADF
	}
	n, err := e.p.write(ctx, src, f.Nonblocking() || fl&abi.RWF_NOWAIT != 0, f.Flags()&abi.O_DIRECT != 0)
	return n, n, err
}

// Ioctl implements vfs.FileOps.
func (e *End) Ioctl(ctx vfs.Context, _ *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	if cmd == abi.FIONREAD {
		return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), uint32(e.p.Queued()))
	}
	return 0, abi.ENOTTY
}

// Readiness implements vfs.FileOps as pipe_poll does.
func (e *End) Readiness(mask wait.Events) wait.Events {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	var ev wait.Events
	if e.read {
		if p.used > 0 {
			ev |= evIn
		}
		if p.writers == 0 && !(e.idle && e.idleAt == p.wOpens) {
			ev |= evHup
		}
	}
	if e.write {
		if !p.full() {
			ev |= evOut
		}
		if p.readers == 0 {
			ev |= evErr
		}
	}
	return ev & (mask | evHup | evErr)
}

// EventRegister implements vfs.FileOps.
func (e *End) EventRegister(w *wait.Waiter, mask wait.Events) { e.p.queue.Add(w, mask|evHup|evErr) }

// EventUnregister implements vfs.FileOps.
func (e *End) EventUnregister(w *wait.Waiter) { e.p.queue.Remove(w) }

// Release implements vfs.FileOps: the other side learns that this one is gone.
func (e *End) Release(*vfs.File) {
	if e.fifos != nil {
		e.fifos.mu.Lock()
		defer e.fifos.mu.Unlock()
	}
	p := e.p
	p.mu.Lock()
	if e.read {
		p.readers--
	}
	if e.write {
		p.writers--
	}
	if p.readers == 0 && p.writers == 0 {
		p.release()
		if e.fifos != nil && e.fifos.pipes[e.inode] == p {
			delete(e.fifos.pipes, e.inode)
		}
	}
	noReader, noWriter := p.readers == 0 && e.read, p.writers == 0 && e.write
	p.mu.Unlock()
	if noWriter {
		p.queue.Notify(evHup | evIn)
	}
	if noReader {
		p.queue.Notify(evErr | evOut)
	}
}

// FIFOs holds the pipes of FIFO inodes that are open or being opened.
type FIFOs struct {
	mu    sync.Mutex
	pipes map[vfs.Inode]*Pipe
}

// Open opens a FIFO with open(2)'s flags (fifo(7)): readers wait for a writer
// and writers for a reader unless O_NONBLOCK is set; O_RDWR never waits. The
// VFS calls it for inodes of type S_IFIFO, anonymous pipes (through
// /proc/PID/fd) included.
func (fs *FIFOs) Open(ctx vfs.Context, inode vfs.Inode, flags uint32) (vfs.FileOps, error) {
	e := &End{inode: inode}
	switch flags & abi.O_ACCMODE {
	case abi.O_RDONLY:
		e.read = true
	case abi.O_WRONLY:
		e.write = true
	case abi.O_RDWR:
		e.read, e.write = true, true
	default:
		return nil, abi.EINVAL
	}
	nonblock := flags&abi.O_NONBLOCK != 0
	n, anonymous := inode.(*Node)
	if anonymous {
		e.p = n.p
		e.p.mu.Lock()
	} else {
		e.fifos = fs
		fs.mu.Lock()
		e.p = fs.pipes[inode]
		if e.p == nil {
			e.p = newPipe()
			if fs.pipes == nil {
				fs.pipes = make(map[vfs.Inode]*Pipe)
			}
			fs.pipes[inode] = e.p
		}
		e.p.mu.Lock()
		fs.mu.Unlock()
	}
	p := e.p
	if e.write && !e.read && nonblock && p.readers == 0 && !anonymous {
		if e.fifos != nil && p.writers == 0 {
			p.mu.Unlock()
			fs.drop(inode, p)
			return nil, abi.ENXIO
		}
		p.mu.Unlock()
		return nil, abi.ENXIO
	}
	var released bool
	if e.read {
		p.readers++
		p.rOpens++
	}
	if e.write {
		p.writers++
		p.wOpens++
	}
	p.mu.Unlock()
	p.queue.Notify(evOpen)
	p.mu.Lock()
	var err error
	switch {
	case anonymous: // opened again through /proc/PID/fd: nobody is waited for (fifo_open)
	case e.read && e.write:
	case e.read && p.writers == 0:
		if nonblock {
			e.idle, e.idleAt = true, p.wOpens
			break
		}
		was := p.wOpens
		err = p.sleep(ctx, evOpen, func() bool { return p.wOpens != was })
		released = err != nil
	case e.write && p.readers == 0:
		was := p.rOpens
		err = p.sleep(ctx, evOpen, func() bool { return p.rOpens != was })
		released = err != nil
	}
	p.mu.Unlock()
	if released {
		e.Release(nil)
		return nil, err
	}
	return e, nil
}

// drop forgets a pipe that nobody opened after all.
func (fs *FIFOs) drop(inode vfs.Inode, p *Pipe) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readers == 0 && p.writers == 0 && fs.pipes[inode] == p {
		delete(fs.pipes, inode)
	}
}
