package host

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"garrison/sentry/wait"
)

// A Poller hears of events on host files: one epoll instance, which is itself
// watched by Go's network poller, so that nobody sleeping costs no thread.
type Poller struct {
	ep   *os.File
	epfd int

	mu     sync.Mutex
	lastID int
	byID   map[int]*Inode // watched now: somebody waits
}

// NewPoller starts one.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance for host files: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make the epoll instance non-blocking: %w", err)
	}
	p := &Poller{epfd: fd, ep: os.NewFile(uintptr(fd), "host-poll"), byID: make(map[int]*Inode)}
	rc, err := p.ep.SyscallConn()
	if err != nil {
		p.ep.Close()
		return nil, err
	}
	go rc.Read(func(uintptr) bool { p.drain(); return false })
	return p, nil
}

// Close ends the poller.
func (p *Poller) Close() { p.ep.Close() }

// drain passes on what has happened until there is nothing more: Go's poller
// tells us of the next edge only.
func (p *Poller) drain() {
	var evs [8]unix.EpollEvent
	for {
		n, err := unix.EpollWait(p.epfd, evs[:], 0)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		for _, e := range evs[:n] {
			p.mu.Lock()
			i := p.byID[int(e.Fd)]
			p.mu.Unlock()
			if i != nil {
				i.queue.Notify(wait.Events(e.Events))
			}
		}
	}
}

// allEvents is watched for whatever the first waiter wants: a second one may
// want the rest.
const allEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// register watches the host file while anybody waits on it. Edge-triggered:
// the first report is the state of now, and waiters look at Readiness anyway.
func (i *Inode) register(w *wait.Waiter, mask wait.Events) {
	i.queue.Add(w, mask)
	p := i.poller
	if p == nil || i.kind == regular {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i.pollID != 0 {
		return
	}
	id := p.lastID + 1
	err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, i.fd, &unix.EpollEvent{Events: allEvents, Fd: int32(id)})
	if err != nil {
		return // EPERM: always ready (/dev/null)
	}
	p.lastID, i.pollID = id, id
	p.byID[id] = i
}

// unregister stops watching when the last waiter is gone.
func (i *Inode) unregister(w *wait.Waiter) {
	i.queue.Remove(w)
	p := i.poller
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i.pollID != 0 && i.queue.Empty() {
		unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, i.fd, nil)
		delete(p.byID, i.pollID)
		i.pollID = 0
	}
}
