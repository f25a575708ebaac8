package hostinet

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/wait"
)

// NewPoller starts a poller.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance for host sockets: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make the epoll instance for host sockets non-blocking: %w", err)
	}
	p := &Poller{epfd: fd, byID: make(map[int32]*Socket)}
	rc, err := os.NewFile(uintptr(fd), "host-sockets").SyscallConn()
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the epoll instance for host sockets: %w", err)
	}
	go rc.Read(func(uintptr) bool { p.drain(); return false })
	return p, nil
}

// add watches s, edge-triggered: waiters look at Readiness themselves.
func (p *Poller) add(s *Socket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.last++; p.last <= 0 || p.byID[p.last] != nil; p.last++ {
		if p.last < 0 {
			p.last = 0
		}
	}
	s.id = p.last
	const events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: events & 0xffffffff, Fd: s.id}); err != nil {
		return abi.FromHost(err)
	}
	p.byID[s.id] = s
	return nil
}

func (p *Poller) remove(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, s.fd, nil)
	delete(p.byID, s.id)
}

// drain passes on what has happened until there is nothing more.
func (p *Poller) drain() {
	var evs [64]unix.EpollEvent
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
			s := p.byID[e.Fd]
			p.mu.Unlock()
			if s == nil {
				continue
			}
			ev := wait.Events(e.Events)
			if ev&abi.EPOLLIN != 0 {
				ev |= abi.EPOLLRDNORM
			}
			if ev&abi.EPOLLOUT != 0 {
				ev |= abi.EPOLLWRNORM
			}
			s.Queue.Notify(ev)
		}
	}
}
