package unix

import (
	"testing"
	"time"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func newContext() *vfs.SystemContext { return vfs.NewSystemContext(vfs.New(), vfs.Path{}) }

func pair(t testing.TB, typ int) (ctx vfs.Context, a, b socket.Socket) {
	t.Helper()
	ctx = newContext()
	a, b, err := New().Pair(ctx, typ, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, a, b
}

func send(ctx vfs.Context, s socket.Socket, data string, to []byte) error {
	m := socket.Msg{Flags: abi.MSG_DONTWAIT, Name: to}
	_, err := s.SendMsg(ctx, usermem.Bytes([]byte(data)), &m)
	return err
}

func recv(ctx vfs.Context, s socket.Socket, n int, flags uint32) (string, *socket.Msg, error) {
	m := &socket.Msg{Flags: flags | abi.MSG_DONTWAIT, WantControl: true}
	b := make([]byte, n)
	got, err := s.RecvMsg(ctx, usermem.Bytes(b), m)
	return string(b[:min(got, int64(n))]), m, err
}

func abstract(name string) []byte { return append([]byte{abi.AF_UNIX, 0, 0}, name...) }

func TestStream(t *testing.T) {
	ctx, a, b := pair(t, abi.SOCK_STREAM)
	if _, _, err := recv(ctx, b, 1, 0); err != abi.EAGAIN {
		t.Errorf("empty: %v", err)
	}
	send(ctx, a, "hello ", nil)
	send(ctx, a, "world", nil)
	if s, _, err := recv(ctx, b, 8, abi.MSG_PEEK); s != "hello wo" || err != nil {
		t.Errorf("peek: %q, %v", s, err)
	}
	if s, _, err := recv(ctx, b, 100, 0); s != "hello world" || err != nil {
		t.Errorf("recv: %q, %v", s, err)
	}
	if err := send(ctx, a, "x", abstract("n")); err != abi.EISCONN {
		t.Errorf("sendto: %v, want EISCONN", err)
	}
	b.Shutdown(ctx, abi.SHUT_WR)
	if s, _, err := recv(ctx, a, 1, 0); s != "" || err != nil {
		t.Errorf("after the peer's shutdown: %q, %v", s, err)
	}
	send(ctx, a, "unread", nil)
	b.Release(nil)
	if err := send(ctx, a, "x", nil); err != abi.EPIPE {
		t.Errorf("send to a closed peer: %v, want EPIPE", err)
	}
	if _, _, err := recv(ctx, a, 1, 0); err != abi.ECONNRESET {
		t.Errorf("recv after the peer lost data: %v, want ECONNRESET", err)
	}
	if s, _, err := recv(ctx, a, 1, 0); s != "" || err != nil {
		t.Errorf("and then: %q, %v", s, err)
	}
}

func TestBoundaries(t *testing.T) {
	for _, typ := range []int{abi.SOCK_DGRAM, abi.SOCK_SEQPACKET} {
		ctx, a, b := pair(t, typ)
		send(ctx, a, "first", nil)
		send(ctx, a, "", nil)
		send(ctx, a, "third", nil)
		s, m, err := recv(ctx, b, 3, abi.MSG_TRUNC)
		if s != "fir" || err != nil || m.OutFlags&abi.MSG_TRUNC == 0 {
			t.Errorf("type %d: truncated: %q, %v, flags %#x", typ, s, err, m.OutFlags)
		}
		if s, _, err := recv(ctx, b, 10, 0); s != "" || err != nil {
			t.Errorf("type %d: empty: %q, %v", typ, s, err)
		}
		if s, _, err := recv(ctx, b, 10, 0); s != "third" || err != nil {
			t.Errorf("type %d: third: %q, %v", typ, s, err)
		}
	}
}

func TestNames(t *testing.T) {
	ctx := newContext()
	fam := New()
	l, _ := fam.Socket(ctx, abi.SOCK_STREAM, 0)
	c, _ := fam.Socket(ctx, abi.SOCK_STREAM, 0)
	for _, step := range []struct {
		name string
		do   func() error
		want error
	}{
		{"listen unbound", func() error { return l.Listen(ctx, 1) }, abi.EINVAL},
		{"bad family", func() error { return l.Bind(ctx, []byte{2, 0, 0, 'x'}) }, abi.EINVAL},
		{"bind", func() error { return l.Bind(ctx, abstract("srv")) }, nil},
		{"bind again", func() error { return l.Bind(ctx, abstract("other")) }, abi.EINVAL},
		{"taken", func() error { return c.Bind(ctx, abstract("srv")) }, abi.EADDRINUSE},
		{"nobody listens", func() error { return c.Connect(ctx, abstract("srv"), true) }, abi.ECONNREFUSED},
		{"not connected", func() error { _, err := c.Name(ctx, true); return err }, abi.ENOTCONN},
		{"listen", func() error { return l.Listen(ctx, 0) }, nil},
		{"none pending", func() error { _, err := l.Accept(ctx, true); return err }, abi.EAGAIN},
		{"connect", func() error { return c.Connect(ctx, abstract("srv"), true) }, nil},
		{"connect again", func() error { return c.Connect(ctx, abstract("srv"), true) }, abi.EAGAIN},
		{"autobind", func() error { return c.Bind(ctx, []byte{abi.AF_UNIX, 0}) }, nil},
	} {
		if err := step.do(); err != step.want {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
	if n, _ := c.Name(ctx, false); len(n) != 8 || n[2] != 0 {
		t.Errorf("autobind chose %q", n)
	}
	if n, _ := c.Name(ctx, true); string(n) != string(abstract("srv")) {
		t.Errorf("peer: %q", n)
	}
	s, err := l.Accept(ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	send(ctx, s, "hi", nil)
	if x, _, _ := recv(ctx, c, 10, 0); x != "hi" {
		t.Errorf("got %q", x)
	}
	l.Release(nil)
	c2, _ := fam.Socket(ctx, abi.SOCK_STREAM, 0)
	if err := c2.Connect(ctx, abstract("srv"), true); err != abi.ECONNREFUSED {
		t.Errorf("after close: %v", err)
	}
}

func TestDatagramNames(t *testing.T) {
	ctx := newContext()
	fam := New()
	a, _ := fam.Socket(ctx, abi.SOCK_DGRAM, 0)
	b, _ := fam.Socket(ctx, abi.SOCK_DGRAM, 0)
	b.Bind(ctx, abstract("b"))
	if err := send(ctx, a, "x", nil); err != abi.ENOTCONN {
		t.Errorf("no destination: %v", err)
	}
	a.Bind(ctx, abstract("a"))
	for i := range 11 {
		if err := send(ctx, a, "x", abstract("b")); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	if err := send(ctx, a, "x", abstract("b")); err != abi.EAGAIN {
		t.Errorf("full queue: %v, want EAGAIN", err)
	}
	_, m, _ := recv(ctx, b, 10, 0)
	if string(m.Name) != string(abstract("a")) {
		t.Errorf("source: %q", m.Name)
	}
	b.Release(nil)
	if err := send(ctx, a, "x", abstract("b")); err != abi.ECONNREFUSED {
		t.Errorf("after close: %v", err)
	}
}

func TestBlockingStream(t *testing.T) {
	ctx, a, b := pair(t, abi.SOCK_STREAM)
	const total = 3 << 20
	go func() {
		m := socket.Msg{}
		a.SendMsg(newContext(), usermem.Bytes(make([]byte, total)), &m)
		a.Release(nil)
	}()
	got := 0
	for {
		m := socket.Msg{}
		n, err := b.RecvMsg(ctx, usermem.Bytes(make([]byte, 10000)), &m)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got += int(n)
	}
	if got != total {
		t.Errorf("%d bytes, want %d", got, total)
	}
	if w := a.(*Socket).wmem.Load(); w != 0 {
		t.Errorf("%d bytes are still charged", w)
	}
}

func TestReceiveTimeout(t *testing.T) {
	ctx := &timedContext{newContext()}
	_, a, _ := pair(t, abi.SOCK_STREAM)
	tv := make([]byte, 16)
	tv[8] = 100 // microseconds
	if err := a.SetSockOpt(ctx, abi.SOL_SOCKET, abi.SO_RCVTIMEO, tv); err != nil {
		t.Fatal(err)
	}
	m := socket.Msg{}
	if _, err := a.RecvMsg(ctx, usermem.Bytes(make([]byte, 1)), &m); err != abi.EAGAIN {
		t.Errorf("%v, want EAGAIN", err)
	}
}

// timedContext has deadlines that have always passed.
type timedContext struct{ *vfs.SystemContext }

func (*timedContext) BlockUntil(<-chan struct{}, int64) error { return abi.ETIMEDOUT }

// file counts its releases.
type file struct {
	vfs.FileDefaults
	released *int
}

func (f *file) Release(*vfs.File) { *f.released++ }

func TestRights(t *testing.T) {
	ctx, a, b := pair(t, abi.SOCK_STREAM)
	released := 0
	f := vfs.NewAnonFile(&file{released: &released}, 0, "x")
	give := func(s socket.Socket, f *vfs.File) {
		f.IncRef()
		m := &socket.Msg{}
		m.Control.Rights = []*vfs.File{f}
		if _, err := s.SendMsg(ctx, usermem.Bytes([]byte("f")), m); err != nil || m.Control.Rights != nil {
			t.Fatalf("send: %v", err)
		}
	}
	give(a, f)
	give(a, f)
	send(ctx, a, "tail", nil)
	f.DecRef()
	s, m, _ := recv(ctx, b, 100, 0)
	if s != "f" || len(m.Control.Rights) != 1 {
		t.Errorf("first read: %q with %d files", s, len(m.Control.Rights))
	}
	m.Control.Drop()
	if released != 0 {
		t.Error("the file went with one reference left")
	}
	a.Release(nil)
	b.Release(nil)
	if released != 1 {
		t.Errorf("released %d times, want once", released)
	}
}

func TestGarbage(t *testing.T) {
	ctx, a, b := pair(t, abi.SOCK_STREAM)
	fa, fb := vfs.NewAnonFile(a, abi.O_RDWR, "a"), vfs.NewAnonFile(b, abi.O_RDWR, "b")
	released := 0
	f := vfs.NewAnonFile(&file{released: &released}, 0, "x")
	for _, x := range []struct {
		to   socket.Socket
		file *vfs.File
	}{{a, fa}, {b, fb}, {a, f}} { // each socket lies in a queue that only the other reaches
		x.file.IncRef()
		m := &socket.Msg{}
		m.Control.Rights = []*vfs.File{x.file}
		x.to.SendMsg(ctx, usermem.Bytes([]byte("f")), m)
	}
	f.DecRef()
	fa.DecRef()
	fb.DecRef()
	// Closing any other socket collects what nobody reaches.
	_, c, _ := pair(t, abi.SOCK_STREAM)
	c.Release(nil)
	if released != 1 {
		t.Errorf("the cycle still holds the file (released %d times)", released)
	}
	if n := graveCnt.Load(); n != 0 {
		t.Errorf("%d sockets in flight", n)
	}
}

func TestCredentials(t *testing.T) {
	ctx, a, b := pair(t, abi.SOCK_DGRAM)
	b.SetSockOpt(ctx, abi.SOL_SOCKET, abi.SO_PASSCRED, socket.Int(1))
	m := &socket.Msg{}
	m.Control.Cred, m.Control.HasCred = abi.Ucred{PID: 77, UID: 5, GID: 6}, true // root may claim anything
	if _, err := a.SendMsg(ctx, usermem.Bytes([]byte("c")), m); err != nil {
		t.Fatal(err)
	}
	_, got, _ := recv(ctx, b, 10, 0)
	if !got.Control.HasCred || got.Control.Cred != m.Control.Cred {
		t.Errorf("got %+v", got.Control.Cred)
	}
}

func TestWakeOnClose(t *testing.T) {
	ctx, a, b := pair(t, abi.SOCK_STREAM)
	done := make(chan error)
	go func() {
		m := socket.Msg{}
		_, err := a.RecvMsg(newContext(), usermem.Bytes(make([]byte, 1)), &m)
		done <- err
	}()
	time.Sleep(2 * time.Millisecond)
	b.Shutdown(ctx, abi.SHUT_RDWR)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not woken")
	}
}

func BenchmarkStream(b *testing.B) {
	ctx, x, y := pair(b, abi.SOCK_STREAM)
	one := make([]byte, 1)
	buf := usermem.Bytes(one)
	m := socket.NewMsg()
	b.ReportAllocs()
	for b.Loop() {
		*buf = *usermem.Bytes(one)
		x.SendMsg(ctx, buf, m)
		*buf = *usermem.Bytes(one)
		y.RecvMsg(ctx, buf, m)
	}
}

// TestConcurrent closes sockets under those who use them; it is for the race
// detector, and must not deadlock.
func TestConcurrent(t *testing.T) {
	fam := New()
	ctx := newContext()
	l, _ := fam.Socket(ctx, abi.SOCK_STREAM, 0)
	l.Bind(ctx, abstract("srv"))
	l.Listen(ctx, 2)
	d, _ := fam.Socket(ctx, abi.SOCK_DGRAM, 0)
	d.Bind(ctx, abstract("dgram"))
	done := make(chan bool)
	for range 3 {
		go func() {
			ctx := newContext()
			for i := range 200 {
				c, _ := fam.Socket(ctx, abi.SOCK_STREAM, 0)
				c.Connect(ctx, abstract("srv"), i%2 == 0)
				send(ctx, c, "hello", nil)
				c.Readiness(abi.EPOLLIN | abi.EPOLLOUT)
				c.Release(nil)
				u, _ := fam.Socket(ctx, abi.SOCK_DGRAM, 0)
				send(ctx, u, "hello", abstract("dgram"))
				u.Release(nil)
			}
			done <- true
		}()
	}
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				done <- true
				return
			default:
			}
			if s, err := l.Accept(ctx, true); err == nil {
				recv(ctx, s, 3, 0)
				s.Release(nil)
			}
			recv(ctx, d, 10, 0)
		}
	}()
	for range 3 {
		<-done
	}
	close(stop)
	<-done
	l.Release(nil)
	d.Release(nil)
	fam.NS.ProcNetUnix()
	if len(fam.NS.all) != 0 || len(fam.NS.abstract) != 0 {
		t.Errorf("%d sockets and %d names are left", len(fam.NS.all), len(fam.NS.abstract))
	}
}

// TestListenersConnect has two listeners connect to one another at the same time.
func TestListenersConnect(t *testing.T) {
	ctx, f := newContext(), New()
	var s [2]socket.Socket
	for i, name := range []string{"a", "b"} {
		var err error
		if s[i], err = f.Socket(ctx, abi.SOCK_STREAM, 0); err != nil {
			t.Fatal(err)
		}
		s[i].Bind(ctx, abstract(name))
		s[i].Listen(ctx, 1)
	}
	done := make(chan error, 2)
	for i, to := range []string{"b", "a"} {
		go func() {
			var err error
			for range 100_000 {
				if err = s[i].Connect(ctx, abstract(to), true); err != abi.EINVAL {
					break
				}
			}
			done <- err
		}()
	}
	for range s {
		select {
		case err := <-done:
			if err != abi.EINVAL {
				t.Errorf("connect: %v, want EINVAL", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the sockets wait for one another")
		}
	}
	if err := s[0].Connect(ctx, abstract("a"), true); err != abi.EINVAL {
		t.Errorf("connect to itself: %v, want EINVAL", err)
	}
}
