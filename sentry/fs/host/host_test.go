package host

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// ctx is a task that notes signals sent to itself.
type ctx struct {
	*vfs.SystemContext
	signals []int
	limit   uint64
}

func newCtx() *ctx                    { return &ctx{SystemContext: &vfs.SystemContext{}, limit: 1 << 40} }
func (c *ctx) SendSelf(sig int)       { c.signals = append(c.signals, sig) }
func (c *ctx) FileSizeLimit() uint64  { return c.limit }
func (c *ctx) Memory() usermem.Memory { return vfs.NoMemory{} }
func (c *ctx) Block(ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-time.After(5 * time.Second):
		return abi.ERESTARTSYS
	}
}

// take gives the package a descriptor of its own.
func take(t *testing.T, f *os.File, p *Poller) *vfs.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	vf, err := NewFile(Source{FD: fd, Name: f.Name(), Poller: p})
	if err != nil {
		t.Fatal(err)
	}
	return vf
}

func poller(t *testing.T) *Poller {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func read(t *testing.T, c vfs.Context, f *vfs.File, n int) (string, error) {
	t.Helper()
	b := make([]byte, n)
	got, err := f.Read(c, usermem.Bytes(b), 0)
	return string(b[:max(got, 0)]), err
}

func write(t *testing.T, c vfs.Context, f *vfs.File, s string) error {
	t.Helper()
	n, err := f.Write(c, usermem.Bytes([]byte(s)), 0)
	if err == nil && n != int64(len(s)) {
		t.Fatalf("wrote %d of %d bytes", n, len(s))
	}
	return err
}

// TestRegularSharesOffset: the host's open file and ours are one.
func TestRegularSharesOffset(t *testing.T) {
	h, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c, f := newCtx(), take(t, h, nil)
	h.WriteString("host ")
	if err := write(t, c, f, "guest "); err != nil {
		t.Fatal(err)
	}
	h.WriteString("host")
	if b, _ := os.ReadFile(h.Name()); string(b) != "host guest host" {
		t.Errorf("the file holds %q", b)
	}
	if n, err := f.Seek(c, 5, abi.SEEK_SET); n != 5 || err != nil {
		t.Errorf("seek: %d, %v", n, err)
	}
	if s, err := read(t, c, f, 5); s != "guest" || err != nil {
		t.Errorf("read %q, %v", s, err)
	}
	if at, _ := h.Seek(0, 1); at != 10 {
		t.Errorf("the host's offset is %d, want 10", at)
	}
	b := make([]byte, 4)
	if n, err := f.Pread(c, usermem.Bytes(b), 0, 0); n != 4 || string(b) != "host" || err != nil {
		t.Errorf("pread %q, %v", b[:n], err)
	}
	if at, _ := h.Seek(0, 1); at != 10 {
		t.Errorf("pread moved the offset to %d", at)
	}
	// O_APPEND that only the guest has set.
	f.SetFlags(abi.O_APPEND, abi.O_APPEND)
	h.Seek(0, 0)
	write(t, c, f, "!")
	if b, _ := os.ReadFile(h.Name()); string(b) != "host guest host!" {
		t.Errorf("after an append the file holds %q", b)
	}
	// RLIMIT_FSIZE.
	c.limit = 17
	if n, err := f.Write(c, usermem.Bytes([]byte("abc")), 0); n != 1 || err != nil {
		t.Errorf("write across the limit: %d, %v", n, err)
	}
	if _, err := f.Write(c, usermem.Bytes([]byte("abc")), 0); err != abi.EFBIG || len(c.signals) != 1 {
		t.Errorf("write at the limit: %v, signals %v", err, c.signals)
	}
}

func TestPipe(t *testing.T) {
	p := poller(t)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	for _, nowait := range []bool{true, false} { // with preadv2 and without
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c, fr, fw := newCtx(), take(t, r, p), take(t, w, p)
		for _, f := range []*vfs.File{fr, fw} {
			f.Ops().(*file).i.nowait = nowait
			f.SetFlags(abi.O_NONBLOCK, abi.O_NONBLOCK)
		}
		if _, err := read(t, c, fr, 1); err != abi.EAGAIN {
			t.Errorf("empty pipe: %v, want EAGAIN", err)
		}
		if got := fr.Readiness(abi.EPOLLIN); got != 0 {
			t.Errorf("empty pipe is ready: %#x", got)
		}
		write(t, c, fw, "hello")
		if got := fr.Readiness(abi.EPOLLIN); got != abi.EPOLLIN {
			t.Errorf("pipe with data: %#x", got)
		}
		if s, err := read(t, c, fr, 100); s != "hello" || err != nil {
			t.Errorf("read %q, %v", s, err)
		}
		big := make([]byte, 1<<20)
		n, err := fw.Write(c, usermem.Bytes(big), 0)
		if n < 4096 || n >= 1<<20 || err != nil {
			t.Errorf("write of more than fits: %d, %v", n, err)
		}
		if _, err := fw.Write(c, usermem.Bytes(big), 0); err != abi.EAGAIN {
			t.Errorf("full pipe: %v, want EAGAIN", err)
		}
		// A sleeping reader is woken up.
		for s := "x"; s != ""; s, _ = read(t, c, fr, 1<<20) {
		}
		fr.SetFlags(abi.O_NONBLOCK, 0)
		go func() { time.Sleep(20 * time.Millisecond); w.WriteString("late") }()
		if s, err := read(t, c, fr, 100); s != "late" || err != nil {
			t.Errorf("blocking read %q, %v", s, err)
		}
		r.Close()
		unix.Dup3(null, fr.Ops().(*file).i.fd, unix.O_CLOEXEC) // closes the reader's
		if err := write(t, c, fw, "x"); err != abi.EPIPE || len(c.signals) != 1 || c.signals[0] != abi.SIGPIPE {
			t.Errorf("write without readers: %v, signals %v", err, c.signals)
		}
		w.Close()
	}
}

func TestSocketAndHangup(t *testing.T) {
	p := poller(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b := os.NewFile(uintptr(pair[0]), "a"), os.NewFile(uintptr(pair[1]), "b")
	defer a.Close()
	c, f := newCtx(), take(t, a, p)
	if !f.Stream() {
		t.Error("a socket has no position")
	}
	write(t, c, f, "ping")
	buf := make([]byte, 10)
	if n, _ := b.Read(buf); string(buf[:n]) != "ping" {
		t.Errorf("the peer read %q", buf[:n])
	}
	w, ch := wait.NewChanWaiter()
	f.EventRegister(w, abi.EPOLLIN|abi.EPOLLHUP)
	b.Close()
	select {
	case <-ch:
	case <-time.After(5 * time.Second):
		t.Error("no event when the peer closed")
	}
	f.EventUnregister(w)
	if s, err := read(t, c, f, 1); s != "" || err != nil {
		t.Errorf("at the end: %q, %v", s, err)
	}
}

func TestDevice(t *testing.T) {
	h, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c, f := newCtx(), take(t, h, poller(t))
	if s, err := read(t, c, f, 1); s != "" || err != nil {
		t.Errorf("read %q, %v", s, err)
	}
	if err := write(t, c, f, "x"); err != nil {
		t.Error(err)
	}
	if got := f.Readiness(abi.EPOLLIN | abi.EPOLLOUT); got != abi.EPOLLIN|abi.EPOLLOUT {
		t.Errorf("readiness %#x", got)
	}
	if _, err := f.Ioctl(c, abi.TCGETS, 0); err != abi.ENOTTY {
		t.Errorf("TCGETS: %v, want ENOTTY", err)
	}
}

func TestTermiosLayout(t *testing.T) {
	m := &unix.Termios{Iflag: 1, Oflag: 2, Cflag: 3, Lflag: 4, Line: 5, Ispeed: 6, Ospeed: 7}
	for i := range m.Cc {
		m.Cc[i] = byte(10 + i)
	}
	b := encodeTermios(m)
	if len(b) != termios2Size {
		t.Fatalf("%d bytes", len(b))
	}
	var back unix.Termios
	decodeTermios(b, &back)
	if back != *m {
		t.Errorf("%+v, want %+v", back, *m)
	}
}
