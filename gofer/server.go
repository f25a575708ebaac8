// Package gofer is the file broker: a 9P2000.L server that gives a Sentry the
// host's files below a few mounts, and a second socket over which it hands the
// Sentry descriptors of regular files that it may read or write.
//
// It does not resolve symbolic links, does not walk "..", does not keep paths
// and does not trust its peer: every fid is an O_PATH descriptor, every step is
// one name looked up on such a descriptor, and what a mount does not allow is
// refused whatever the Sentry says. Nothing but regular files is opened for
// data; pseudo file systems of the host (proc, sys, ...) can be seen but not
// entered. It does not set its process up: runsc/cmd does, with Confine.
//
// Lock order: package p9's locks, then server.mu, a leaf. No system call is
// made with server.mu held.
package gofer

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"github.com/u-root/uio/ulog"
	"golang.org/x/sys/unix"

	"garrison/internal/goferwire"
)

// A Mount is a tree of the host that the Sentry may use.
type Mount struct {
	// Name is the attach name, one path component: "0", "root".
	Name string
	// HostPath is opened by Prepare if Root is nil.
	HostPath string
	// Root is the tree's root, opened O_PATH: a directory, or a single file.
	Root *os.File
	// ReadOnly refuses every change.
	ReadOnly bool
}

// Config says what a Gofer serves.
type Config struct {
	Mounts []Mount
	// ProcSelfFD is /proc/self/fd of this very process, opened O_PATH before
	// the chroot: descriptors are reopened through it. If nil, Serve opens it.
	ProcSelfFD *os.File
	// MaxFiles bounds the fids of a connection; 0 means three quarters of
	// RLIMIT_NOFILE. Beyond it walks fail with EMFILE.
	MaxFiles int
	// Log takes messages for --debug; may be nil.
	Log func(format string, args ...any)

	ready bool   // Prepare was called
	uid   uint32 // owner that the host gives to files we make
}

// Prepare opens what is not open yet and looks up what a confined process can't,
// while the host's file system and all system calls are still in reach.
func (c *Config) Prepare() error {
	if c.ready {
		return nil
	}
	if c.MaxFiles <= 0 {
		var lim unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			return fmt.Errorf("gofer: read RLIMIT_NOFILE: %w", err)
		}
		if lim.Cur < lim.Max {
			lim.Cur = lim.Max
			unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
		}
		c.MaxFiles = int(min(lim.Cur/4*3, 1<<20))
	}
	c.uid = uint32(unix.Geteuid())
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Root != nil {
			continue
		}
		fd, err := unix.Open(m.HostPath, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("gofer: open %s to serve it as mount %q: %w", m.HostPath, m.Name, err)
		}
		m.Root = os.NewFile(uintptr(fd), m.HostPath)
	}
	if c.ProcSelfFD == nil {
		fd, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("gofer: open /proc/self/fd (is /proc mounted?): %w", err)
		}
		c.ProcSelfFD = os.NewFile(uintptr(fd), "/proc/self/fd")
	}
	c.ready = true
	return nil
}

// A server is the state of one connection.
type server struct {
	mounts   []Mount
	proc     *os.File // /proc/self/fd
	procFD   int
	maxFiles int
	log      func(format string, args ...any)
	uid      uint32

	mu     sync.Mutex
	nodes  map[nodeKey]*node
	byID   map[uint64]*node
	lastID uint64
	files  int // live handles
	armed  map[renameKey]uint32
}

// Serve answers on conn, the 9P socket (SOCK_STREAM), and on donate, the
// descriptor channel (SOCK_SEQPACKET), until the peer closes them. It takes
// both over. It does not return while a request is being handled.
func Serve(cfg Config, conn, donate *os.File) error {
	if err := cfg.Prepare(); err != nil {
		return err
	}
	s, err := newServer(&cfg)
	if err != nil {
		return err
	}
	c := goferwire.NewConn(conn, true)
	unix.SetNonblock(int(donate.Fd()), false)
	done := make(chan error, 1)
	go func() {
		done <- s.serveDescriptors(int(donate.Fd()))
		// One socket without the other is of no use.
		c.Hangup()
	}()
	s.handle9P(c)
	unix.Shutdown(int(donate.Fd()), unix.SHUT_RDWR)
	derr := <-done
	donate.Close()
	s.closeAll()
	for _, m := range s.mounts {
		m.Root.Close()
	}
	s.proc.Close()
	return derr
}

// handle9P answers on c until the peer closes it.
func (s *server) handle9P(c *goferwire.Conn) {
	defer func() {
		// The library can panic at the end: "WaitGroup is reused" (see Conn.fill).
		if r := recover(); r != nil {
			if !c.Dead() {
				panic(r)
			}
			s.log("gofer: at the end of the 9P connection: %v", r)
		}
	}()
	p9.NewServer((*attacher)(s), p9.WithServerLogger(p9log{s})).Handle(c, c)
}

func newServer(cfg *Config) (*server, error) {
	s := &server{
		mounts:   cfg.Mounts,
		proc:     cfg.ProcSelfFD,
		procFD:   int(cfg.ProcSelfFD.Fd()),
		maxFiles: cfg.MaxFiles,
		log:      cfg.Log,
		uid:      cfg.uid,
		nodes:    map[nodeKey]*node{},
		byID:     map[uint64]*node{},
		armed:    map[renameKey]uint32{},
	}
	if s.log == nil {
		s.log = func(string, ...any) {}
	}
	seen := map[string]bool{}
	for _, m := range cfg.Mounts {
		if checkName(m.Name) != nil || seen[m.Name] {
			return nil, fmt.Errorf("gofer: %q is no name for a mount, or is there twice", m.Name)
		}
		seen[m.Name] = true
	}
	return s, nil
}

// closeAll drops the nodes that a broken peer left behind.
func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		unix.Close(n.fd)
	}
	clear(s.nodes)
	clear(s.byID)
}

// checkName accepts one component of a path that means nothing special.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." {
		return unix.EINVAL
	}
	if len(name) > goferwire.MaxName {
		return unix.ENAMETOOLONG
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return unix.EINVAL
		}
	}
	return nil
}

// errno makes an error one that package p9 passes on unchanged: of a
// syscall.Errno it would make EACCES out of EPERM and EEXIST out of ENOTEMPTY.
func errno(err error) error {
	if err == nil {
		return nil
	}
	return linux.Errno(number(err))
}

// number is the error number to send for err.
func number(err error) uint32 {
	var e unix.Errno
	if errors.As(err, &e) {
		return uint32(e)
	}
	return uint32(unix.EIO)
}

// p9log passes on what package p9 says about itself, not its message traces.
type p9log struct{ s *server }

func (l p9log) Printf(format string, args ...any) {
	if len(format) >= 5 && (format[:5] == "send " || format[:5] == "recv ") {
		return
	}
	l.s.log(format, args...)
}

func (l p9log) Print(args ...any) { l.s.log("%s", fmt.Sprint(args...)) }

var _ ulog.Logger = p9log{}
