// Package pipe implements pipes and FIFOs (pipe(7), fifo(7)): a ring of page
// slots between writers and readers, exactly as many and as large as Linux's,
// so that what fits and when a pipe is full agree with it.
//
// It does not resolve names: the VFS opens a FIFO through FIFOs.Open, and
// pipe2(2) makes a pair by New. Splicing is offered as methods on Pipe; the
// system calls are elsewhere.
//
// Lock order: FIFOs.mu, Pipe.mu, then the memory manager's locks (data is
// copied with the pipe locked) and the wait queue's. Two pipes are never
// locked at once.
package pipe

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

const (
	pageSize     = usermem.PageSize
	defaultSlots = 16 // PIPE_DEF_BUFFERS (include/linux/pipe_fs_i.h)
	maxSize      = 1 << 20
)

type page [pageSize]byte

var pages = sync.Pool{New: func() any { return new(page) }}

// A slot is Linux's pipe_buffer: part of one page.
type slot struct {
	p      *page
	off, n int
	packet bool // O_DIRECT: a message of its own
	merge  bool // later small writes may be appended
}

// A Pipe is the buffer and its two sides.
type Pipe struct {
	ino uint64

	mu               sync.Mutex
	slots            []slot // the ring; its length is the capacity
	head, used       int
	bytes            int
	spare            *page // the last page read empty, for the next write
	readers, writers int
	// rOpens and wOpens count the opens of a FIFO: an open that waits for the
	// other side is released even if that side has closed again meanwhile.
	rOpens, wOpens uint32

	queue wait.Queue
}

var lastIno atomic.Uint64

func newPipe() *Pipe {
	return &Pipe{ino: lastIno.Add(1), slots: make([]slot, defaultSlots)}
}

// Ino is the inode number that "pipe:[N]" shows.
func (p *Pipe) Ino() uint64 { return p.ino }

func (p *Pipe) full() bool { return p.used >= len(p.slots) }

// at returns the i-th used slot.
func (p *Pipe) at(i int) *slot { return &p.slots[(p.head+i)%len(p.slots)] }

func (p *Pipe) takePage() *page {
	if pg := p.spare; pg != nil {
		p.spare = nil
		return pg
	}
	return pages.Get().(*page)
}

func (p *Pipe) dropPage(pg *page) {
	if p.spare == nil {
		p.spare = pg
		return
	}
	pages.Put(pg)
}

// pop removes the first slot.
func (p *Pipe) pop() {
	s := p.at(0)
	p.dropPage(s.p)
	*s = slot{}
	p.head = (p.head + 1) % len(p.slots)
	p.used--
}

// push appends a slot; p must not be full.
func (p *Pipe) push(s slot) {
	p.slots[(p.head+p.used)%len(p.slots)] = s
	p.used++
	p.bytes += s.n
}

// resize gives the ring n slots, at least p.used.
func (p *Pipe) resize(n int) {
	ring := make([]slot, n)
	for i := range p.used {
		ring[i] = *p.at(i)
	}
	p.slots, p.head = ring, 0
}

// release frees the pages when nobody is left.
func (p *Pipe) release() {
	for p.used > 0 {
		p.bytes -= p.at(0).n
		p.pop()
	}
	if p.spare != nil {
		pages.Put(p.spare)
		p.spare = nil
	}
}

// sleep waits for an event of mask with the pipe unlocked. ok reports whether
// the caller may go on; it is evaluated with the pipe locked.
func (p *Pipe) sleep(ctx wait.Blocker, mask wait.Events, ok func() bool) error {
	s := wait.NewSleeper()
	p.queue.Add(&s.Waiter, mask)
	var err error
	for err == nil && !ok() {
		p.mu.Unlock()
		err = ctx.Block(s.C)
		p.mu.Lock()
	}
	p.queue.Remove(&s.Waiter)
	s.Free()
	return err
}

const (
	evIn   = wait.Events(abi.EPOLLIN | abi.EPOLLRDNORM)
	evOut  = wait.Events(abi.EPOLLOUT | abi.EPOLLWRNORM)
	evHup  = wait.Events(abi.EPOLLHUP)
	evErr  = wait.Events(abi.EPOLLERR)
	evOpen = wait.Events(1 << 27) // internal: a side of a FIFO was opened
)

// read is pipe_read: it takes what there is and waits only for the first byte.
func (p *Pipe) read(ctx vfs.Context, dst *usermem.Buffer, nonblock bool) (int64, error) {
	if dst.Len() == 0 {
		return 0, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.used == 0 {
		if p.writers == 0 {
			return 0, nil
		}
		if nonblock {
			return 0, abi.EAGAIN
		}
		if err := p.sleep(ctx, evIn|evHup, func() bool { return p.used > 0 || p.writers == 0 }); err != nil {
			return 0, err
		}
	}
	wasFull := p.full()
	done := int64(0)
	var err error
	for p.used > 0 && dst.Len() > 0 {
		s := p.at(0)
		n := min(s.n, dst.Len())
		got, werr := dst.Write(s.p[s.off : s.off+n])
		if got < n { // what was copied of this slot stays unread, as on Linux
			if done == 0 {
				err = werr
			}
			break
		}
		done += int64(n)
		packet := s.packet
		if packet {
			n = s.n // the rest of the packet is lost
		}
		s.off += n
		s.n -= n
		p.bytes -= n
		if s.n == 0 {
			p.pop()
		}
		if packet {
			break
		}
	}
	if wasFull && !p.full() {
		p.queue.Notify(evOut)
	}
	return done, err
}

// write is pipe_write. Up to PIPE_BUF bytes lie in one slot or are merged into
// the last one as a whole, hence are atomic.
func (p *Pipe) write(ctx vfs.Context, src *usermem.Buffer, nonblock, packet bool) (int64, error) {
	if src.Len() == 0 {
		return 0, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	done := int64(0)
	var err error
	if p.readers == 0 {
		ctx.SendSelf(abi.SIGPIPE)
		return 0, abi.EPIPE
	}
	if tail := src.Len() % pageSize; tail != 0 && p.used > 0 {
		if s := p.at(p.used - 1); s.merge && !packet && s.off+s.n+tail <= pageSize {
			n, rerr := src.Read(s.p[s.off+s.n : s.off+s.n+tail])
			if n < tail {
				return 0, rerr
			}
			s.n += n
			p.bytes += n
			done = int64(n)
		}
	}
	for src.Len() > 0 {
		if p.readers == 0 {
			ctx.SendSelf(abi.SIGPIPE)
			if done == 0 {
				err = abi.EPIPE
			}
			break
		}
		if !p.full() {
			pg := p.takePage()
			want := min(src.Len(), pageSize)
			n, rerr := src.Read(pg[:want])
			if n < want {
				p.dropPage(pg)
				if done == 0 {
					err = rerr
				}
				break
			}
			p.push(slot{p: pg, n: n, packet: packet, merge: !packet})
			done += int64(n)
			continue
		}
		if nonblock {
			if done == 0 {
				err = abi.EAGAIN
			}
			break
		}
		if done > 0 {
			p.queue.Notify(evIn)
		}
		if serr := p.sleep(ctx, evOut|evErr, func() bool { return !p.full() || p.readers == 0 }); serr != nil {
			if done == 0 {
				err = serr
			}
			break
		}
	}
	if done > 0 {
		p.queue.Notify(evIn)
	}
	return done, err
}

// SetSize is F_SETPIPE_SZ (fcntl(2)); it returns the new capacity in bytes.
func (p *Pipe) SetSize(ctx vfs.Context, size uint64) (int, error) {
	if size > 1<<31 {
		return 0, abi.EINVAL
	}
	n := uint64(pageSize)
	if size > pageSize {
		n = 1 << bits.Len64(size-1)
	}
	slots := int(n / pageSize)
	p.mu.Lock()
	defer p.mu.Unlock()
	if slots > len(p.slots) && n > maxSize && !ctx.Cred().Can(abi.CAP_SYS_RESOURCE) {
		return 0, abi.EPERM
	}
	if n > 1<<30 { // more than we would ever back
		return 0, abi.ENOMEM
	}
	if slots < p.used {
		return 0, abi.EBUSY
	}
	wasFull := p.full()
	p.resize(slots)
	if wasFull && !p.full() {
		p.queue.Notify(evOut)
	}
	return slots * pageSize, nil
}

// Size is F_GETPIPE_SZ.
func (p *Pipe) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.slots) * pageSize
}

// Queued is the number of bytes in the pipe (FIONREAD).
func (p *Pipe) Queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
