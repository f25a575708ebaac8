package pipe

import (
	"bytes"
	"testing"
	"time"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// testContext is a task that counts its signals.
type testContext struct {
	*vfs.SystemContext
	signals []int
}

func (c *testContext) SendSelf(sig int) { c.signals = append(c.signals, sig) }

func newContext() *testContext {
	return &testContext{SystemContext: vfs.NewSystemContext(vfs.New(), vfs.Path{})}
}

func newFiles(t testing.TB, flags uint32) (ctx *testContext, r, w *vfs.File) {
	t.Helper()
	ctx = newContext()
	re, we := New(ctx)
	return ctx, vfs.NewAnonFile(re, abi.O_RDONLY|flags, "pipe:[1]"), vfs.NewAnonFile(we, abi.O_WRONLY|flags, "pipe:[1]")
}

func read(ctx vfs.Context, f *vfs.File, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := f.Read(ctx, usermem.Bytes(b), 0)
	return b[:got], err
}

func write(ctx vfs.Context, f *vfs.File, b []byte) (int64, error) {
	return f.Write(ctx, usermem.Bytes(b), 0)
}

func TestReadWrite(t *testing.T) {
	ctx, r, w := newFiles(t, abi.O_NONBLOCK)
	if _, err := read(ctx, r, 1); err != abi.EAGAIN {
		t.Errorf("read of an empty pipe: %v, want EAGAIN", err)
	}
	if n, err := write(ctx, w, []byte("hello")); n != 5 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	if b, err := read(ctx, r, 2); string(b) != "he" || err != nil {
		t.Errorf("read: %q, %v", b, err)
	}
	w.DecRef()
	if b, err := read(ctx, r, 10); string(b) != "llo" || err != nil {
		t.Errorf("read after close: %q, %v", b, err)
	}
	if b, err := read(ctx, r, 10); len(b) != 0 || err != nil {
		t.Errorf("read at the end: %q, %v", b, err)
	}
}

func TestBrokenPipe(t *testing.T) {
	ctx, r, w := newFiles(t, 0)
	r.DecRef()
	if _, err := write(ctx, w, []byte("x")); err != abi.EPIPE {
		t.Errorf("write: %v, want EPIPE", err)
	}
	if len(ctx.signals) != 1 || ctx.signals[0] != abi.SIGPIPE {
		t.Errorf("signals: %v, want SIGPIPE", ctx.signals)
	}
	if ev := w.Readiness(abi.EPOLLOUT); ev != abi.EPOLLOUT|abi.EPOLLERR {
		t.Errorf("readiness: %#x", ev)
	}
}

func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		name  string
		chunk int
		total int
	}{
		{"bytes", 1, 65536},
		{"pages", 4096, 65536},
		{"odd", 3000, 16 * 3000}, // each takes a page: they do not fit one behind the other
		{"all", 100000, 65536},
	} {
		ctx, _, w := newFiles(t, abi.O_NONBLOCK)
		total := 0
		for {
			n, err := write(ctx, w, make([]byte, c.chunk))
			if err == abi.EAGAIN {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			total += int(n)
		}
		if total != c.total {
			t.Errorf("%s: the pipe took %d bytes, want %d", c.name, total, c.total)
		}
		if ev := w.Readiness(abi.EPOLLOUT); ev != 0 {
			t.Errorf("%s: full pipe is ready: %#x", c.name, ev)
		}
	}
}

func TestPacket(t *testing.T) {
	ctx, r, w := newFiles(t, abi.O_NONBLOCK|abi.O_DIRECT)
	write(ctx, w, []byte("first"))
	write(ctx, w, []byte("second"))
	if b, _ := read(ctx, r, 3); string(b) != "fir" {
		t.Errorf("first packet: %q", b)
	}
	if b, _ := read(ctx, r, 100); string(b) != "second" {
		t.Errorf("second packet: %q", b)
	}
}

func TestResize(t *testing.T) {
	ctx, r, w := newFiles(t, abi.O_NONBLOCK)
	p, _, _ := Of(r)
	write(ctx, w, make([]byte, 3*4096))
	for _, c := range []struct {
		size uint64
		want int
		err  error
	}{
		{4096, 0, abi.EBUSY}, {3 * 4096, 4 * 4096, nil}, {1 << 32, 0, abi.EINVAL}, {1 << 20, 1 << 20, nil}, {65537, 131072, nil},
	} {
		if n, err := p.SetSize(ctx, c.size); n != c.want || err != c.err {
			t.Errorf("SetSize(%d) = %d, %v; want %d, %v", c.size, n, err, c.want, c.err)
		}
	}
	if p.Queued() != 3*4096 {
		t.Errorf("%d bytes left", p.Queued())
	}
}

func TestBlockingWriter(t *testing.T) {
	ctx, r, w := newFiles(t, 0)
	data := bytes.Repeat([]byte("0123456789"), 30000)
	go func() {
		write(newContext(), w, data)
		w.DecRef()
	}()
	var got []byte
	for {
		b, err := read(ctx, r, 7001)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came through, want %d", len(got), len(data))
	}
}

func TestSplice(t *testing.T) {
	ctx, r, w := newFiles(t, abi.O_NONBLOCK)
	_, r2, w2 := newFiles(t, abi.O_NONBLOCK)
	p, _, _ := Of(r)
	q, _, _ := Of(w2)
	write(ctx, w, []byte("abcdef"))
	if n, err := Tee(ctx, q, p, 4, true); n != 4 || err != nil {
		t.Fatalf("tee: %d, %v", n, err)
	}
	if n, err := Move(ctx, q, p, 2, true); n != 2 || err != nil {
		t.Fatalf("move: %d, %v", n, err)
	}
	if b, _ := read(ctx, r2, 100); string(b) != "abcdab" {
		t.Errorf("target: %q", b)
	}
	// What is not taken stays.
	n, err := p.SpliceTo(ctx, 4, true, func(b []byte) (int, error) { return 1, nil })
	if n != 1 || err != nil {
		t.Errorf("SpliceTo: %d, %v", n, err)
	}
	if b, _ := read(ctx, r, 100); string(b) != "def" {
		t.Errorf("rest: %q", b)
	}
	if n, err := p.SpliceFrom(ctx, 5000, true, func(b []byte) (int, error) { return copy(b, "xyz"), nil }); n != 3 || err != nil {
		t.Errorf("SpliceFrom: %d, %v", n, err)
	}
	if _, err := Tee(ctx, p, p, 1, true); err != abi.EINVAL {
		t.Errorf("tee to itself: %v", err)
	}
}

// fifo is an inode for FIFOs; its address is its identity, so it has a size.
type fifo struct {
	vfs.LeafDefaults
	_ int
}

func (*fifo) Attr(vfs.Context) (vfs.Attr, error) { return vfs.Attr{Mode: abi.S_IFIFO | 0o600}, nil }

func TestFIFOOpen(t *testing.T) {
	var fs FIFOs
	ctx := newContext()
	i := &fifo{}
	if _, err := fs.Open(ctx, i, abi.O_WRONLY|abi.O_NONBLOCK); err != abi.ENXIO {
		t.Errorf("writer without reader: %v, want ENXIO", err)
	}
	if len(fs.pipes) != 0 {
		t.Error("a failed open left a pipe behind")
	}
	r, err := fs.Open(ctx, i, abi.O_RDONLY|abi.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if ev := r.Readiness(abi.EPOLLIN); ev != 0 {
		t.Errorf("reader before the first writer: %#x", ev)
	}
	w, err := fs.Open(ctx, i, abi.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	w.Release(nil)
	if ev := r.Readiness(abi.EPOLLIN); ev != abi.EPOLLHUP {
		t.Errorf("reader after the last writer: %#x, want EPOLLHUP", ev)
	}
	r.Release(nil)
	if len(fs.pipes) != 0 {
		t.Error("the pipe outlives its files")
	}
	// Both sides wait for each other, even if one is gone again at once.
	done := make(chan error, 1)
	go func() {
		r, err := fs.Open(newContext(), i, abi.O_RDONLY)
		if err == nil {
			r.Release(nil)
		}
		done <- err
	}()
	w, err = fs.Open(ctx, i, abi.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the reader was not released")
	}
	w.Release(nil)
}

func TestEvents(t *testing.T) {
	ctx, r, w := newFiles(t, abi.O_NONBLOCK)
	wt, ch := wait.NewChanWaiter()
	r.EventRegister(wt, abi.EPOLLIN)
	defer r.EventUnregister(wt)
	for _, step := range []struct {
		name string
		do   func()
		want wait.Events
	}{
		{"write", func() { write(ctx, w, []byte("x")) }, abi.EPOLLIN},
		{"close", func() { w.DecRef() }, abi.EPOLLIN | abi.EPOLLHUP},
	} {
		step.do()
		select {
		case <-ch:
		default:
			t.Errorf("%s: no event", step.name)
		}
		if ev := r.Readiness(abi.EPOLLIN); ev != step.want {
			t.Errorf("%s: readiness %#x, want %#x", step.name, ev, step.want)
		}
	}
}

func BenchmarkWriteRead(b *testing.B) {
	ctx, r, w := newFiles(b, abi.O_NONBLOCK)
	one := make([]byte, 1)
	buf := usermem.Bytes(one)
	b.ReportAllocs()
	for b.Loop() {
		*buf = *usermem.Bytes(one)
		w.Write(ctx, buf, 0)
		*buf = *usermem.Bytes(one)
		r.Read(ctx, buf, 0)
	}
}
