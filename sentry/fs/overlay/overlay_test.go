package overlay

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/fs/tmpfs"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

type world struct {
	t          *testing.T
	v          *vfs.VFS
	ctx, below *vfs.SystemContext // seen through the overlay, and the lower layer alone
}

// newWorld lays an overlay over a tree of a few files.
func newWorld(t *testing.T) *world {
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
	none := vfs.NewSystemContext(v, vfs.Path{})
	lower := tmpfs.New(v, pf, tmpfs.Options{Mode: 0o755})
	lns, err := v.NewMountNamespace(none, lower, 0, "lower")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, v: v, below: vfs.NewSystemContext(v, lns.Root())}
	w.ctx = w.below
	for _, d := range []string{"/dir", "/dir/sub", "/dir/sub/deep", "/empty"} {
		w.must(v.Mkdir(w.ctx, vfs.Path{}, d, 0o755))
	}
	for _, f := range []string{"/a", "/b", "/dir/x", "/dir/y", "/dir/sub/deep/z"} {
		w.write(f, "lower "+f)
	}
	w.must(v.Symlink(w.ctx, "dir/x", vfs.Path{}, "/link"))
	w.must(v.Link(w.ctx, w.look("/a"), vfs.Path{}, "/dir/hard"))
	fs, err := New(none, v, lower, tmpfs.New(v, pf, tmpfs.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	ns, err := v.NewMountNamespace(none, fs, 0, "overlay")
	if err != nil {
		t.Fatal(err)
	}
	w.ctx = vfs.NewSystemContext(v, ns.Root())
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(path string, fl uint32) *vfs.File {
	w.t.Helper()
	f, err := w.v.Open(w.ctx, vfs.Path{}, path, vfs.OpenHow{Flags: fl, Mode: 0o644})
	w.must(err)
	return f
}

func (w *world) write(path, s string) {
	w.t.Helper()
	f := w.open(path, abi.O_CREAT|abi.O_WRONLY|abi.O_TRUNC)
	defer f.DecRef()
	if n, err := f.Write(w.ctx, usermem.Bytes([]byte(s)), 0); err != nil || int(n) != len(s) {
		w.t.Fatalf("write %s: %d, %v", path, n, err)
	}
}

func (w *world) content(f *vfs.File) string {
	w.t.Helper()
	b := make([]byte, 100)
	n, err := f.Pread(w.ctx, usermem.Bytes(b), 0, 0)
	w.must(err)
	return string(b[:n])
}

func (w *world) holds(path, want string) {
	w.t.Helper()
	f := w.open(path, 0)
	defer f.DecRef()
	if got := w.content(f); got != want {
		w.t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

func (w *world) look(path string) vfs.Path {
	w.t.Helper()
	p, err := w.v.Lookup(w.ctx, vfs.Path{}, path, 0)
	w.must(err)
	return p
}

func (w *world) missing(path string) {
	w.t.Helper()
	if _, err := w.v.Lookup(w.ctx, vfs.Path{}, path, 0); err != abi.ENOENT {
		w.t.Errorf("%s: %v, want ENOENT", path, err)
	}
}

func (w *world) attr(path string) vfs.Attr {
	w.t.Helper()
	a, err := w.look(path).Attr(w.ctx)
	w.must(err)
	return a
}

func (w *world) list(path, want string) {
	w.t.Helper()
	f := w.open(path, abi.O_DIRECTORY)
	defer f.DecRef()
	var names []string
	for n := -1; n != 0; {
		n = 0
		w.must(f.ReadDir(w.ctx, func(d vfs.Dirent) bool {
			if n == 1 {
				return false
			}
			n++
			if d.Name != "." && d.Name != ".." {
				names = append(names, d.Name)
				if a := w.attr(strings.TrimSuffix(path, "/") + "/" + d.Name); a.Ino != d.Ino || abi.ModeToDT(a.Mode) != d.Type {
					w.t.Errorf("%s: entry and attributes differ", d.Name)
				}
			}
			return true
		}))
	}
	sort.Strings(names)
	if got := strings.Join(names, " "); got != want {
		w.t.Errorf("%s lists %q, want %q", path, got, want)
	}
}

func TestCopyUp(t *testing.T) {
	w := newWorld(t)
	before := w.attr("/a")
	ro := w.open("/a", 0)
	w.write("/a", "new")
	w.holds("/a", "new")
	w.holds("/dir/hard", "new") // the other name of the same file
	if got := w.content(ro); got != "new" {
		t.Errorf("a file opened before reads %q", got)
	}
	ro.DecRef()
	after := w.attr("/a")
	if before.Ino != after.Ino || before.Dev != after.Dev || after.Nlink != 2 {
		t.Errorf("the inode changed: %+v, %+v", before, after)
	}
	f := w.open("/b", abi.O_RDWR)
	f.Pwrite(w.ctx, usermem.Bytes([]byte("LOWER")), 0, 0)
	f.DecRef()
	w.holds("/b", "LOWER /b")
	// Attributes alone leave the content where it is.
	x := w.look("/dir/x")
	w.must(x.Chmod(w.ctx, 0o600))
	w.must(x.SetXattr(w.ctx, "user.k", []byte("v"), 0))
	if u := x.Inode().(*inode).upper.Load(); u == nil || u.hasData {
		t.Error("chmod copied the content")
	}
	w.holds("/dir/x", "lower /dir/x")
	if a := w.attr("/dir/x"); a.Mode&0o777 != 0o600 || a.Size != uint64(len("lower /dir/x")) {
		t.Errorf("attributes: %+v", a)
	}
	w.must(x.Truncate(w.ctx, 5))
	w.holds("/dir/x", "lower")
	w.holds("/link", "lower")
	w.ctx = w.below
	w.holds("/a", "lower /a")
	w.holds("/b", "lower /b")
	if a := w.attr("/dir/x"); a.Mode&0o777 != 0o644 {
		t.Error("the lower layer was changed")
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	none := vfs.Path{}
	w.list("/", "a b dir empty link")
	w.must(w.v.Unlink(w.ctx, none, "/b"))
	w.missing("/b")
	w.list("/", "a dir empty link")
	w.write("/b", "again")
	w.write("/c", "c")
	w.list("/", "a b c dir empty link")
	w.must(w.v.Unlink(w.ctx, none, "/c"))
	w.must(w.v.Unlink(w.ctx, none, "/b"))
	w.missing("/b")
	if err := w.v.Rmdir(w.ctx, none, "/dir/sub"); err != abi.ENOTEMPTY {
		t.Errorf("rmdir: %v", err)
	}
	w.must(w.v.Rmdir(w.ctx, none, "/empty"))
	w.must(w.v.Mkdir(w.ctx, none, "/empty", 0o755))
	w.list("/empty", "")
	// A lower directory moves with all that is in it, and what was done to it.
	w.write("/dir/new", "n")
	w.must(w.v.Unlink(w.ctx, none, "/dir/y"))
	w.must(w.v.Rename(w.ctx, none, "/dir", none, "/empty/moved", 0))
	w.missing("/dir")
	w.list("/empty/moved", "hard new sub x")
	w.holds("/empty/moved/sub/deep/z", "lower /dir/sub/deep/z")
	// A new directory in its place shows nothing of the old one.
	w.must(w.v.Mkdir(w.ctx, none, "/dir", 0o755))
	w.list("/dir", "")
	w.must(w.v.Rename(w.ctx, none, "/empty/moved/sub", none, "/dir", abi.RENAME_EXCHANGE))
	w.list("/dir", "deep")
	w.list("/empty/moved/sub", "")
	w.must(w.v.Rename(w.ctx, none, "/a", none, "/empty/moved/x", 0))
	w.holds("/empty/moved/x", "lower /a")
	w.missing("/a")
	if a := w.attr("/empty/moved/x"); a.Nlink != 2 {
		t.Errorf("links: %d", a.Nlink)
	}
	// Emptying a merged directory.
	for _, n := range []string{"hard", "new", "x"} {
		w.must(w.v.Unlink(w.ctx, none, "/empty/moved/"+n))
	}
	w.must(w.v.Rmdir(w.ctx, none, "/empty/moved/sub"))
	w.must(w.v.Rmdir(w.ctx, none, "/empty/moved"))
	w.list("/", "dir empty link")
	w.ctx = w.below
	w.list("/", "a b dir empty link")
}

// Changes must not hang on dentries and inodes that the collector may take.
func TestForgetting(t *testing.T) {
	w := newWorld(t)
	none := vfs.Path{}
	w.write("/dir/sub/deep/z", "changed")
	w.must(w.v.Unlink(w.ctx, none, "/dir/x"))
	ino := w.attr("/dir/sub").Ino
	root := w.ctx.FS.Root()
	ns := root.Mount.Namespace()
	sb := root.Mount.Superblock()
	_ = ns
	// A second namespace over the same file system has no dentries yet.
	v2 := vfs.New()
	ns2, err := v2.NewMountNamespace(vfs.NewSystemContext(v2, none), sb, 0, "again")
	w.must(err)
	w.v, w.ctx = v2, vfs.NewSystemContext(v2, ns2.Root())
	root, ns = vfs.Path{}, nil
	for range 3 {
		runtime.GC()
	}
	w.holds("/dir/sub/deep/z", "changed")
	w.missing("/dir/x")
	if w.attr("/dir/sub").Ino != ino {
		t.Error("the inode number changed")
	}
}

func TestRemovedFileKeepsContent(t *testing.T) {
	w := newWorld(t)
	f := w.open("/dir/y", 0)
	p := w.look("/dir/y")
	w.must(p.Chmod(w.ctx, 0o600))
	w.must(w.v.Unlink(w.ctx, vfs.Path{}, "/dir/y"))
	if got := w.content(f); got != "lower /dir/y" {
		t.Errorf("it reads %q", got)
	}
	if a, _ := f.Attr(w.ctx); a.Nlink != 0 {
		t.Errorf("links: %d", a.Nlink)
	}
	f.DecRef()
	g, err := w.v.Open(w.ctx, vfs.Path{}, "/dir", vfs.OpenHow{Flags: abi.O_TMPFILE | abi.O_RDWR, Mode: 0o600})
	w.must(err)
	g.Pwrite(w.ctx, usermem.Bytes([]byte("tmp")), 0, 0)
	w.must(w.v.Link(w.ctx, g.Path(), vfs.Path{}, "/dir/linked"))
	g.DecRef()
	w.holds("/dir/linked", "tmp")
}

type recorder struct{ n int }

func (r *recorder) InvalidateFile(mm.Mappable, uint64, uint64) { r.n++ }

func TestMappingFollowsCopyUp(t *testing.T) {
	w := newWorld(t)
	f := w.open("/b", 0)
	defer f.DecRef()
	m, err := f.Mappable(w.ctx, abi.PROT_READ, abi.MAP_SHARED)
	w.must(err)
	var inv recorder
	m.AddMapping(&inv, 0, 4096)
	ps, err := m.Translate(0, 4096, false)
	w.must(err)
	w.write("/b", "other")
	if inv.n == 0 {
		t.Error("the mapping was not told")
	}
	qs, err := m.Translate(0, 4096, false)
	w.must(err)
	if ps[0].FDOff == qs[0].FDOff {
		t.Error("the mapping still leads to the lower layer")
	}
	m.RemoveMapping(&inv, 0, 4096)
}

// Many tasks change the same few names at once; run with -race. What must hold
// afterwards: every listed name can be looked up, and the tree can be emptied.
func TestTogether(t *testing.T) {
	w := newWorld(t)
	none := vfs.Path{}
	paths := []string{"/a", "/b", "/dir", "/dir/x", "/dir/sub", "/dir/sub/deep", "/dir/sub/deep/z", "/empty", "/empty/q", "/q", "/dir/q", "/link"}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			ctx := vfs.NewSystemContext(w.v, w.ctx.FS.Root())
			pick := func() string { return paths[r.IntN(len(paths))] }
			for range 3000 {
				p, q := pick(), pick()
				switch r.IntN(12) {
				case 0:
					w.v.Mkdir(ctx, none, p, 0o755)
				case 1:
					w.v.Rmdir(ctx, none, p)
				case 2:
					w.v.Unlink(ctx, none, p)
				case 3, 4:
					w.v.Rename(ctx, none, p, none, q, 0)
				case 5:
					w.v.Rename(ctx, none, p, none, q, abi.RENAME_EXCHANGE)
				case 6:
					if x, err := w.v.Lookup(ctx, none, p, 0); err == nil {
						w.v.Link(ctx, x, none, q)
					}
				case 7, 8:
					if f, err := w.v.Open(ctx, none, p, vfs.OpenHow{Flags: abi.O_CREAT | abi.O_RDWR, Mode: 0o644}); err == nil {
						f.Write(ctx, usermem.Bytes([]byte(p)), 0)
						f.DecRef()
					}
				case 9:
					if f, err := w.v.Open(ctx, none, p, vfs.OpenHow{Flags: abi.O_DIRECTORY}); err == nil {
						f.ReadDir(ctx, func(vfs.Dirent) bool { return true })
						f.DecRef()
					}
				default:
					if x, err := w.v.Lookup(ctx, none, p, vfs.Follow); err == nil {
						x.Attr(ctx)
						x.NameFrom(ctx.FS.Root())
					}
				}
			}
		})
	}
	wg.Wait()
	var empty func(dir string)
	empty = func(dir string) {
		f := w.open(dir, abi.O_DIRECTORY)
		var ents []vfs.Dirent
		w.must(f.ReadDir(w.ctx, func(d vfs.Dirent) bool { ents = append(ents, d); return true }))
		f.DecRef()
		for _, e := range ents {
			p := fmt.Sprintf("%s/%s", strings.TrimSuffix(dir, "/"), e.Name)
			switch {
			case e.Name == "." || e.Name == "..":
			case e.Type == abi.DT_DIR:
				empty(p)
				w.must(w.v.Rmdir(w.ctx, none, p))
			default:
				w.must(w.v.Unlink(w.ctx, none, p))
			}
		}
	}
	empty("/")
	w.list("/", "")
}
