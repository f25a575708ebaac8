package tmpfs

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func newFS(t *testing.T, opt Options) (*Filesystem, *vfs.SystemContext) {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// The page file owns fd and gives memory back late: it is never closed.
	pf, err := pagefile.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	v := vfs.New()
	fs := New(v, pf, opt)
	ns, err := v.NewMountNamespace(vfs.NewSystemContext(v, vfs.Path{}), fs, 0, "root")
	if err != nil {
		t.Fatal(err)
	}
	return fs, vfs.NewSystemContext(v, ns.Root())
}

func open(t *testing.T, ctx *vfs.SystemContext, path string, fl uint32) *vfs.File {
	t.Helper()
	f, err := ctx.FS.VFS().Open(ctx, vfs.Path{}, path, vfs.OpenHow{Flags: fl, Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t *testing.T, ctx vfs.Context, f *vfs.File, off int64, p []byte) {
	t.Helper()
	if n, err := f.Pwrite(ctx, usermem.Bytes(p), off, 0); err != nil || int(n) != len(p) {
		t.Fatalf("write at %d: %d, %v", off, n, err)
	}
}

func get(t *testing.T, ctx vfs.Context, f *vfs.File, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	m, err := f.Pread(ctx, usermem.Bytes(b), off, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b[:m]
}

func size(t *testing.T, f *vfs.File) (size, blocks uint64) {
	t.Helper()
	a, err := f.Attr(nil)
	if err != nil {
		t.Fatal(err)
	}
	return a.Size, a.Blocks
}

func TestSparse(t *testing.T) {
	fs, ctx := newFS(t, Options{})
	f := open(t, ctx, "/f", abi.O_CREAT|abi.O_RDWR)
	put(t, ctx, f, 1<<40, []byte("far"))
	put(t, ctx, f, 10000, []byte("near"))
	if s, b := size(t, f); s != 1<<40+3 || b != 16 {
		t.Errorf("size %d, blocks %d", s, b)
	}
	if got := get(t, ctx, f, 9998, 8); !bytes.Equal(got, []byte("\x00\x00near\x00\x00")) {
		t.Errorf("read %q", got)
	}
	if got := get(t, ctx, f, 1<<39, 3); !bytes.Equal(got, []byte{0, 0, 0}) {
		t.Errorf("hole reads %q", got)
	}
	for _, c := range []struct {
		off    int64
		whence int
		want   int64
	}{{0, abi.SEEK_DATA, 8192}, {9000, abi.SEEK_DATA, 9000}, {12288, abi.SEEK_DATA, 1 << 40}, {0, abi.SEEK_HOLE, 0},
		{8192, abi.SEEK_HOLE, 12288}, {1 << 40, abi.SEEK_HOLE, 1<<40 + 3}} {
		if got, err := f.Seek(ctx, c.off, c.whence); err != nil || got != c.want {
			t.Errorf("seek %d, %d: %d, %v; want %d", c.off, c.whence, got, err, c.want)
		}
	}
	// Shrinking into a page and growing again must not bring old bytes back.
	if err := f.Truncate(ctx, 10001); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(ctx, 20000); err != nil {
		t.Fatal(err)
	}
	if got := get(t, ctx, f, 10000, 4); !bytes.Equal(got, []byte("n\x00\x00\x00")) {
		t.Errorf("after truncation: %q", got)
	}
	put(t, ctx, f, 0, bytes.Repeat([]byte("x"), 20000))
	if err := f.Ops().Allocate(ctx, f, abi.FALLOC_FL_PUNCH_HOLE|abi.FALLOC_FL_KEEP_SIZE, 4000, 8500); err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Repeat([]byte("x"), 4000), make([]byte, 8500)...)
	want = append(want, bytes.Repeat([]byte("x"), 7500)...)
	if got := get(t, ctx, f, 0, 20000); !bytes.Equal(got, want) {
		t.Error("a punched hole is wrong")
	}
	if _, b := size(t, f); b != 24 { // pages 1 and 2 are gone of 0..4
		t.Errorf("blocks after the hole: %d", b)
	}
	if err := ctx.FS.VFS().Unlink(ctx, vfs.Path{}, "/f"); err != nil {
		t.Fatal(err)
	}
	if got := get(t, ctx, f, 0, 1); string(got) != "x" {
		t.Errorf("an open file lost its content with its name: %q", got)
	}
	f.DecRef()
	if n := fs.pages.Load(); n != 0 {
		t.Errorf("%d pages are still charged for", n)
	}
	if n := fs.inodes.Load(); n != 0 {
		t.Errorf("%d inodes are left", n)
	}
}

type recorder struct{ hits [][2]uint64 }

func (r *recorder) InvalidateFile(_ mm.Mappable, off, length uint64) {
	r.hits = append(r.hits, [2]uint64{off, length})
}

func TestMapping(t *testing.T) {
	fs, ctx := newFS(t, Options{})
	f := open(t, ctx, "/f", abi.O_CREAT|abi.O_RDWR)
	put(t, ctx, f, 0, []byte("hello"))
	m, err := f.Mappable(ctx, abi.PROT_READ|abi.PROT_WRITE, abi.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if ps, err := m.Translate(4096, 4096, false); err != nil || len(ps) != 0 {
		t.Errorf("pages behind the end: %v, %v", ps, err)
	}
	ps, err := m.Translate(0, 1<<20, true)
	if err != nil || len(ps) != 1 || ps[0].Len != 4096 {
		t.Fatalf("pages: %v, %v", ps, err)
	}
	var inv recorder
	m.AddMapping(&inv, 0, 8192)
	copy(fs.pf.Slice(uint64(ps[0].FDOff), 4096)[100:], "mapped")
	if got := get(t, ctx, f, 0, 5); string(got) != "hello" {
		t.Errorf("read %q", got)
	}
	put(t, ctx, f, 200, []byte("grown")) // what the mapping wrote behind the end must not show
	if got := get(t, ctx, f, 100, 6); !bytes.Equal(got, make([]byte, 6)) {
		t.Errorf("bytes from behind the end: %q", got)
	}
	if err := f.Truncate(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if len(inv.hits) != 1 || inv.hits[0][0] != 0 {
		t.Errorf("invalidations: %v", inv.hits)
	}
	m.RemoveMapping(&inv, 0, 8192)
	f.DecRef()
}

func TestSeals(t *testing.T) {
	fs, ctx := newFS(t, Options{})
	make, err := MemfdMaker(ctx, ctx.FS.VFS(), fs.pf, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := make(ctx, "x", 0o777, true)
	if err != nil {
		t.Fatal(err)
	}
	if n := f.Name(ctx.FS.Root()); n != "/memfd:x (deleted)" {
		t.Errorf("name %q", n)
	}
	put(t, ctx, f, 0, bytes.Repeat([]byte("a"), 5000))
	ops := f.Ops().(*file)
	if err := ops.AddSeals(f, abi.F_SEAL_GROW|abi.F_SEAL_SHRINK); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(ctx, 6000); err != abi.EPERM {
		t.Errorf("grow: %v", err)
	}
	if err := f.Truncate(ctx, 10); err != abi.EPERM {
		t.Errorf("shrink: %v", err)
	}
	put(t, ctx, f, 10, []byte("b"))
	m, _ := f.Mappable(ctx, abi.PROT_WRITE, abi.MAP_SHARED)
	m.AddMapping(&recorder{}, 0, 4096)
	if err := ops.AddSeals(f, abi.F_SEAL_WRITE); err != abi.EBUSY {
		t.Errorf("seal a mapped file: %v", err)
	}
	m.RemoveMapping(&recorder{}, 0, 4096)
	if err := ops.AddSeals(f, abi.F_SEAL_WRITE|abi.F_SEAL_SEAL); err != nil {
		t.Error(err)
	}
	if _, err := f.Pwrite(ctx, usermem.Bytes([]byte("c")), 0, 0); err != abi.EPERM {
		t.Errorf("write: %v", err)
	}
	if err := ops.AddSeals(f, 0); err != abi.EPERM {
		t.Errorf("seal more: %v", err)
	}
	f.DecRef()
}

func TestReadDirWhileRemoving(t *testing.T) {
	_, ctx := newFS(t, Options{})
	v := ctx.FS.VFS()
	names := map[string]bool{}
	for i := range 500 {
		n := "/" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		names[n] = true
		if err := v.Mknod(ctx, vfs.Path{}, n, abi.S_IFREG, 0); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, ctx, "/", abi.O_DIRECTORY)
	defer d.DecRef()
	for { // as rm -r does it
		var batch []string
		d.ReadDir(ctx, func(e vfs.Dirent) bool {
			if e.Name != "." && e.Name != ".." {
				batch = append(batch, "/"+e.Name)
			}
			return len(batch) < 7
		})
		if len(batch) == 0 {
			break
		}
		for _, n := range batch {
			if !names[n] {
				t.Fatalf("%s came twice", n)
			}
			delete(names, n)
			if err := v.Unlink(ctx, vfs.Path{}, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(names) != 0 {
		t.Errorf("%d names never came", len(names))
	}
}

func TestAllocateBeyondTheLimit(t *testing.T) {
	_, ctx := newFS(t, Options{Size: 8 * pageSize})
	f := open(t, ctx, "/f", abi.O_RDWR|abi.O_CREAT)
	defer f.DecRef()
	want := bytes.Repeat([]byte("x"), 2*pageSize)
	put(t, ctx, f, 0, want)
	other := open(t, ctx, "/other", abi.O_RDWR|abi.O_CREAT)
	defer other.DecRef()
	put(t, ctx, other, 0, want)
	for _, length := range []int64{7 * pageSize, 9 * pageSize, 1 << 46} {
		if err := f.Ops().Allocate(ctx, f, 0, 0, length); err != abi.ENOSPC {
			t.Errorf("allocate %d: %v, want ENOSPC", length, err)
		}
		// What was there before stays, and nothing else is charged.
		if !bytes.Equal(get(t, ctx, f, 0, 2*pageSize), want) {
			t.Errorf("allocate %d: the content is gone", length)
		}
	}
	if err := f.Ops().Allocate(ctx, f, 0, pageSize, 5*pageSize); err != nil {
		t.Errorf("allocate the rest: %v", err)
	}
}
