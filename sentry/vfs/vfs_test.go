package vfs_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/fs/tmpfs"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// world is a VFS with a tmpfs as its root, and a task that is root.
type world struct {
	t   *testing.T
	v   *vfs.VFS
	pf  *pagefile.File
	ns  *vfs.MountNamespace
	ctx *vfs.SystemContext
}

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
	ns, err := v.NewMountNamespace(none, tmpfs.New(v, pf, tmpfs.Options{Mode: 0o755}), 0, "root")
	if err != nil {
		t.Fatal(err)
	}
	v.RegisterFilesystem("tmpfs", tmpfs.Maker(v, pf, 0))
	return &world{t, v, pf, ns, vfs.NewSystemContext(v, ns.Root())}
}

// as is the same task with another user's credentials.
func (w *world) as(uid, gid uint32) *vfs.SystemContext {
	c := *w.ctx
	c.C = cred.NewUser(nil, cred.UID(uid), cred.GID(gid), nil)
	return &c
}

func (w *world) mkdir(path string, mode uint16) {
	w.t.Helper()
	w.must(w.v.Mkdir(w.ctx, vfs.Path{}, path, mode))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) want(err error, want abi.Errno) {
	w.t.Helper()
	if want == 0 && err == nil {
		return
	}
	if err != error(want) {
		w.t.Errorf("got %v, want %v", err, want)
	}
}

func (w *world) write(path, content string) {
	w.t.Helper()
	f, err := w.v.Open(w.ctx, vfs.Path{}, path, vfs.OpenHow{Flags: abi.O_CREAT | abi.O_WRONLY | abi.O_TRUNC, Mode: 0o644})
	w.must(err)
	defer f.DecRef()
	if n, err := f.Write(w.ctx, usermem.Bytes([]byte(content)), 0); err != nil || int(n) != len(content) {
		w.t.Fatalf("write: %d, %v", n, err)
	}
}

func (w *world) read(path string) string {
	w.t.Helper()
	f, err := w.v.Open(w.ctx, vfs.Path{}, path, vfs.OpenHow{})
	w.must(err)
	defer f.DecRef()
	b := make([]byte, 4096)
	n, err := f.Read(w.ctx, usermem.Bytes(b), 0)
	w.must(err)
	return string(b[:n])
}

func (w *world) list(path string) string {
	w.t.Helper()
	f, err := w.v.Open(w.ctx, vfs.Path{}, path, vfs.OpenHow{Flags: abi.O_DIRECTORY})
	w.must(err)
	defer f.DecRef()
	var names []string
	for {
		n := 0
		w.must(f.ReadDir(w.ctx, func(d vfs.Dirent) bool {
			if n == 2 { // few at a time, so that positions are used
				return false
			}
			n++
			names = append(names, d.Name)
			return true
		}))
		if n == 0 {
			return strings.Join(names, " ")
		}
	}
}

func TestLookup(t *testing.T) {
	w := newWorld(t)
	w.mkdir("/a", 0o755)
	w.mkdir("/a/b", 0o755)
	w.write("/a/f", "x")
	long := strings.Repeat("n", 256)
	for _, l := range [][2]string{{"/a/f", "/lf"}, {"b", "/a/lb"}, {"/nowhere", "/dangling"}, {"loop", "/loop"}, {"../lb/../f", "/a/b/up"}} {
		w.must(w.v.Symlink(w.ctx, l[0], vfs.Path{}, l[1]))
	}
	for _, c := range []struct {
		path string
		fl   vfs.LookupFlags
		want string
		err  abi.Errno
	}{
		{"/", vfs.Follow, "/", 0},
		{"", vfs.Follow, "", abi.ENOENT},
		{"a/b", vfs.Follow, "/a/b", 0},
		{"//a///b//", vfs.Follow, "/a/b", 0},
		{"/../../a", vfs.Follow, "/a", 0},
		{"/a/b/../../a/./f", vfs.Follow, "/a/f", 0},
		{"/a/f/", vfs.Follow, "", abi.ENOTDIR},
		{"/a/f/x", vfs.Follow, "", abi.ENOTDIR},
		{"/a/f/..", vfs.Follow, "", abi.ENOTDIR},
		{"/a/x/..", vfs.Follow, "", abi.ENOENT},
		{"/lf", vfs.Follow, "/a/f", 0},
		{"/lf", 0, "/lf", 0},
		{"/lf/", 0, "", abi.ENOTDIR},
		{"/a/lb", 0, "/a/lb", 0},
		{"/a/lb/", 0, "/a/b", 0},
		{"/a/lb/up", vfs.Follow, "/a/f", 0},
		{"/dangling", vfs.Follow, "", abi.ENOENT},
		{"/dangling", 0, "/dangling", 0},
		{"/loop", vfs.Follow, "", abi.ELOOP},
		{"/loop/x", 0, "", abi.ELOOP},
		{"/" + long, 0, "", abi.ENAMETOOLONG},
		{"/a/lb", vfs.Follow | vfs.NoSymlinks, "", abi.ELOOP},
		{"/a", vfs.Beneath, "", abi.EXDEV},
		{"..", vfs.Beneath, "", abi.EXDEV},
		{"a/..", vfs.Beneath, "/", 0},
	} {
		p, err := w.v.Lookup(w.ctx, vfs.Path{}, c.path, c.fl)
		w.want(err, c.err)
		if err == nil && c.err == 0 {
			if got := p.NameFrom(w.ns.Root()); got != c.want {
				t.Errorf("%q leads to %q, want %q", c.path, got, c.want)
			}
		}
	}
}

func TestPermissions(t *testing.T) {
	w := newWorld(t)
	w.mkdir("/secret", 0o700)
	w.write("/secret/f", "x")
	w.mkdir("/tmp", 0o777)
	tmp, _ := w.v.Lookup(w.ctx, vfs.Path{}, "/tmp", 0)
	w.must(tmp.Chmod(w.ctx, 0o1777))
	w.write("/readable", "x")
	u, o := w.as(1000, 1000), w.as(1001, 1001)
	open := func(ctx vfs.Context, path string, fl uint32) error {
		f, err := w.v.Open(ctx, vfs.Path{}, path, vfs.OpenHow{Flags: fl, Mode: 0o666})
		if err == nil {
			f.DecRef()
		}
		return err
	}
	w.want(open(u, "/secret/f", 0), abi.EACCES)
	w.want(open(u, "/secret", abi.O_DIRECTORY), abi.EACCES)
	w.want(open(u, "/readable", abi.O_RDONLY), 0)
	w.want(open(u, "/readable", abi.O_WRONLY), abi.EACCES)
	w.want(open(u, "/new", abi.O_CREAT|abi.O_WRONLY), abi.EACCES)
	w.want(open(u, "/tmp/mine", abi.O_CREAT|abi.O_WRONLY), 0)
	w.want(w.v.Unlink(o, vfs.Path{}, "/tmp/mine"), abi.EPERM) // sticky
	w.want(w.v.Rename(o, vfs.Path{}, "/tmp/mine", vfs.Path{}, "/tmp/x", 0), abi.EPERM)
	w.want(w.v.Unlink(u, vfs.Path{}, "/tmp/mine"), 0)
	w.want(open(u, "/tmp", abi.O_RDWR), abi.EISDIR)
	w.want(open(w.ctx, "/tmp", abi.O_CREAT), abi.EISDIR)
	w.want(open(w.ctx, "/readable", abi.O_CREAT|abi.O_EXCL), abi.EEXIST)
	w.want(open(w.ctx, "/tmp", abi.O_CREAT|abi.O_DIRECTORY), abi.EINVAL)
	w.want(open(w.ctx, "/readable", abi.O_DIRECTORY), abi.ENOTDIR)
	p, _ := w.v.Lookup(w.ctx, vfs.Path{}, "/readable", 0)
	w.want(p.Chmod(u, 0o777), abi.EPERM)
	w.want(p.Chown(u, 1000, vfs.NoID), abi.EPERM)
	w.must(p.Chown(w.ctx, 1000, 5))
	w.must(p.Chmod(w.ctx, 0o6755))
	w.must(p.Chown(u, vfs.NoID, 1000))
	if a, _ := p.Attr(w.ctx); a.Mode&0o7777 != 0o755 {
		t.Errorf("mode after chown is %o", a.Mode)
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	none := vfs.Path{}
	w.mkdir("/d", 0o755)
	w.mkdir("/d/e", 0o755)
	w.write("/f", "one")
	w.want(w.v.Mkdir(w.ctx, none, "/d", 0), abi.EEXIST)
	w.want(w.v.Mkdir(w.ctx, none, "/d/.", 0), abi.EEXIST)
	w.want(w.v.Mkdir(w.ctx, none, "/x/y", 0), abi.ENOENT)
	w.want(w.v.Mkdir(w.ctx, none, "/f/y", 0), abi.ENOTDIR)
	w.want(w.v.Mknod(w.ctx, none, "/new/", abi.S_IFREG, 0), abi.ENOENT)
	w.want(w.v.Rmdir(w.ctx, none, "/d"), abi.ENOTEMPTY)
	w.want(w.v.Rmdir(w.ctx, none, "/d/."), abi.EINVAL)
	w.want(w.v.Rmdir(w.ctx, none, "/d/.."), abi.ENOTEMPTY)
	w.want(w.v.Rmdir(w.ctx, none, "/"), abi.EBUSY)
	w.want(w.v.Rmdir(w.ctx, none, "/f"), abi.ENOTDIR)
	w.want(w.v.Unlink(w.ctx, none, "/d"), abi.EISDIR)
	w.want(w.v.Unlink(w.ctx, none, "/f/"), abi.ENOTDIR)
	w.want(w.v.Rename(w.ctx, none, "/d", none, "/d/e/x", 0), abi.EINVAL)
	w.want(w.v.Rename(w.ctx, none, "/d/e", none, "/d", 0), abi.ENOTEMPTY)
	w.want(w.v.Rename(w.ctx, none, "/f", none, "/d", 0), abi.EISDIR)
	w.want(w.v.Rename(w.ctx, none, "/d", none, "/f", 0), abi.ENOTDIR)
	w.want(w.v.Rename(w.ctx, none, "/f", none, "/d", abi.RENAME_NOREPLACE), abi.EEXIST)
	w.must(w.v.Rename(w.ctx, none, "/f", none, "/d", abi.RENAME_EXCHANGE))
	if got := w.read("/d"); got != "one" {
		t.Errorf("after the exchange /d holds %q", got)
	}
	w.must(w.v.Rename(w.ctx, none, "/f", none, "/d", abi.RENAME_EXCHANGE))
	old, err := w.v.Lookup(w.ctx, none, "/f", 0)
	w.must(err)
	w.must(w.v.Link(w.ctx, old, none, "/d/g"))
	w.must(w.v.Rename(w.ctx, none, "/f", none, "/d/g", 0)) // the same file: nothing happens
	w.want(w.v.Unlink(w.ctx, none, "/f"), 0)
	if a, _ := old.Attr(w.ctx); a.Nlink != 1 {
		t.Errorf("link count is %d", a.Nlink)
	}
	if got := w.list("/d"); got != ". .. e g" {
		t.Errorf("list: %q", got)
	}
	w.must(w.v.Rename(w.ctx, none, "/d/e", none, "/e2", 0))
	if a, _ := w.ns.Root().Attr(w.ctx); a.Nlink != 4 {
		t.Errorf("the root has %d links", a.Nlink)
	}
	p, _ := w.v.Lookup(w.ctx, none, "/d/g", 0)
	w.must(w.v.Unlink(w.ctx, none, "/d/g"))
	if got := p.NameFrom(w.ns.Root()); got != "/d/g (deleted)" {
		t.Errorf("name of the removed: %q", got)
	}
}

func TestMounts(t *testing.T) {
	w := newWorld(t)
	none := vfs.Path{}
	w.mkdir("/m", 0o755)
	w.mkdir("/b", 0o755)
	at := func(p string) vfs.Path {
		t.Helper()
		x, err := w.v.Lookup(w.ctx, none, p, vfs.Follow)
		w.must(err)
		return x
	}
	w.want(w.v.Mount(w.as(1, 1), "x", at("/m"), "tmpfs", 0, ""), abi.EPERM)
	w.want(w.v.Mount(w.ctx, "x", at("/m"), "nofs", 0, ""), abi.ENODEV)
	w.must(w.v.Mount(w.ctx, "x y", at("/m"), "tmpfs", abi.MS_NOSUID, "size=8k,mode=700"))
	w.write("/m/f", "in the mount")
	if got := at("/m/..").NameFrom(w.ns.Root()); got != "/" {
		t.Errorf("/m/.. is %q", got)
	}
	w.want(w.v.Rename(w.ctx, none, "/m/f", none, "/f", 0), abi.EXDEV)
	w.want(w.v.Rmdir(w.ctx, none, "/m"), abi.EBUSY)
	w.want(w.v.Unmount(w.ctx, at("/b"), 0), abi.EINVAL)
	w.must(w.v.Mount(w.ctx, "/m", at("/b"), "", abi.MS_BIND, ""))
	if got := w.read("/b/f"); got != "in the mount" {
		t.Errorf("through the bind mount: %q", got)
	}
	w.must(w.v.Mount(w.ctx, "", at("/b"), "", abi.MS_REMOUNT|abi.MS_BIND|abi.MS_RDONLY, ""))
	_, err := w.v.Open(w.ctx, none, "/b/new", vfs.OpenHow{Flags: abi.O_CREAT | abi.O_WRONLY})
	w.want(err, abi.EROFS)
	w.want(w.v.Unlink(w.ctx, none, "/b/f"), abi.EROFS)
	f, err := w.v.Open(w.ctx, none, "/m/f", vfs.OpenHow{Flags: abi.O_RDWR})
	w.must(err)
	w.want(w.v.Unmount(w.ctx, at("/m"), 0), abi.EBUSY)
	n, err := f.Pwrite(w.ctx, usermem.Bytes(make([]byte, 12<<10)), 0, 0) // size=8k
	if n != 8<<10 || err != nil {
		t.Errorf("write to a full file system: %d, %v", n, err)
	}
	_, err = f.Pwrite(w.ctx, usermem.Bytes(make([]byte, 1)), 12<<10, 0)
	w.want(err, abi.ENOSPC)
	info := string(vfs.Mounts(w.ns, w.ns.Root()))
	if !strings.Contains(info, "x\\040y /m tmpfs rw,nosuid,relatime,size=8k,mode=700 0 0\n") {
		t.Errorf("mounts: %s", info)
	}
	f.DecRef()
	w.must(w.v.Unmount(w.ctx, at("/m"), 0))
	if got := w.read("/b/f"); len(got) != 4096 {
		t.Errorf("the bind mount lost its content")
	}
	w.must(w.v.Unmount(w.ctx, at("/b"), abi.MNT_DETACH))
	if got := w.list("/b"); got != ". .." {
		t.Errorf("after umount: %q", got)
	}
}

func TestLocks(t *testing.T) {
	w := newWorld(t)
	w.write("/f", "0123456789")
	open := func() *vfs.File {
		f, err := w.v.Open(w.ctx, vfs.Path{}, "/f", vfs.OpenHow{Flags: abi.O_RDWR})
		w.must(err)
		return f
	}
	f, g := open(), open()
	a, b := vfs.NewFDTable(), vfs.NewFDTable()
	wr := func(s, e int64) vfs.RecordLock { return vfs.RecordLock{Write: true, Start: s, End: e, PID: 7} }
	w.must(f.SetLock(w.ctx, a, wr(0, 99), false, false, false))
	w.must(f.SetLock(w.ctx, a, wr(40, 59), false, true, false)) // splits
	w.want(g.SetLock(w.ctx, b, wr(50, 70), false, false, false), abi.EAGAIN)
	w.must(g.SetLock(w.ctx, b, wr(40, 59), false, false, false))
	if l, ok := g.TestLock(b, wr(0, 99), false); !ok || l.Start != 0 || l.End != 39 || l.PID != 7 {
		t.Errorf("the first conflict is %+v, %v", l, ok)
	}
	w.want(f.SetLock(w.ctx, a, wr(30, 50), true, false, false), abi.EAGAIN) // OFD against POSIX
	// a waits for b; then b waiting for a is a deadlock.
	done := make(chan error, 1)
	go func() { done <- f.SetLock(w.ctx, a, wr(40, 59), false, false, true) }()
	for {
		err := g.SetLock(w.ctx, b, wr(0, 10), false, false, false)
		w.want(err, abi.EAGAIN)
		err = g.SetLock(&interrupted{w.ctx}, b, wr(0, 10), false, false, true)
		if err == abi.EDEADLK {
			break
		}
		w.want(err, abi.ERESTARTSYS) // a was not asleep yet
	}
	g.SetLock(w.ctx, b, wr(0, 1<<62), false, true, false)
	w.must(<-done)
	w.must(f.Flock(w.ctx, abi.LOCK_SH, false))
	w.must(g.Flock(w.ctx, abi.LOCK_SH, false))
	w.want(g.Flock(w.ctx, abi.LOCK_EX, false), abi.EAGAIN)
	w.must(f.Flock(w.ctx, abi.LOCK_EX, false)) // g lost its lock in the failed conversion
	f.DecRef()
	w.must(g.Flock(w.ctx, abi.LOCK_EX, false))
	g.DecRef()
}

// interrupted is a context whose sleeps end at once, as by a signal.
type interrupted struct{ *vfs.SystemContext }

func (i *interrupted) Block(<-chan struct{}) error { return abi.ERESTARTSYS }

func TestFDTable(t *testing.T) {
	w := newWorld(t)
	w.write("/f", "x")
	f, err := w.v.Open(w.ctx, vfs.Path{}, "/f", vfs.OpenHow{})
	w.must(err)
	tab := vfs.NewFDTable()
	add := func(min int32, want int32) {
		t.Helper()
		f.IncRef()
		fd, err := tab.NewFD(f, min, 200, false)
		if err != nil || fd != want {
			t.Fatalf("got descriptor %d, %v; want %d", fd, err, want)
		}
	}
	for i := int32(0); i < 130; i++ {
		add(0, i)
	}
	w.must(tab.Close(w.ctx, 5))
	w.must(tab.Close(w.ctx, 64))
	w.want(tab.Close(w.ctx, 64), abi.EBADF)
	add(10, 64)
	add(0, 5)
	add(150, 150)
	add(0, 130)
	f.IncRef()
	_, err = tab.NewFD(f, 200, 200, false)
	w.want(err, abi.EINVAL)
	w.want(tab.SetFD(w.ctx, f, 200, 200, false), abi.EBADF)
	w.must(tab.SetFD(w.ctx, f, 199, 200, true))
	k := tab.Fork()
	tab.CloseOnExec(w.ctx)
	if tab.Get(199) != nil {
		t.Error("close-on-exec left a descriptor")
	}
	tab.CloseRange(w.ctx, 3, ^uint32(0))
	if n := len(tab.FDs()); n != 3 {
		t.Errorf("%d descriptors are left", n)
	}
	if n := len(k.FDs()); n != 133 {
		t.Errorf("the copy has %d", n)
	}
	tab.DecRef(w.ctx)
	k.DecRef(w.ctx)
	if f.Refs() != 1 {
		t.Errorf("%d references are left", f.Refs())
	}
	f.DecRef()
}

func BenchmarkLookup(b *testing.B) {
	w := newWorldB(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.v.Lookup(w.ctx, vfs.Path{}, "/usr/share/doc/thing", vfs.Follow); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenClose(b *testing.B) {
	w := newWorldB(b)
	tab := vfs.NewFDTable()
	b.ReportAllocs()
	for b.Loop() {
		f, err := w.v.Open(w.ctx, vfs.Path{}, "/usr/share/doc/thing", vfs.OpenHow{})
		if err != nil {
			b.Fatal(err)
		}
		fd, _ := tab.NewFD(f, 0, 1024, false)
		tab.Close(w.ctx, fd)
	}
}

func BenchmarkPread4K(b *testing.B) {
	w := newWorldB(b)
	f, _ := w.v.Open(w.ctx, vfs.Path{}, "/usr/share/doc/thing", vfs.OpenHow{Flags: abi.O_RDWR})
	f.Pwrite(w.ctx, usermem.Bytes(make([]byte, 8192)), 0, 0)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := f.Pread(w.ctx, usermem.Bytes(buf), 0, 0); n != 4096 {
			b.Fatal(n, err)
		}
	}
}

func newWorldB(b *testing.B) *world {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	// The page file owns fd and gives memory back late: it is never closed.
	pf, err := pagefile.New(fd)
	if err != nil {
		b.Fatal(err)
	}
	v := vfs.New()
	ns, err := v.NewMountNamespace(vfs.NewSystemContext(v, vfs.Path{}), tmpfs.New(v, pf, tmpfs.Options{}), 0, "root")
	if err != nil {
		b.Fatal(err)
	}
	w := &world{nil, v, pf, ns, vfs.NewSystemContext(v, ns.Root())}
	if _, err := v.MkdirAll(w.ctx, vfs.Path{}, "/usr/share/doc", 0o755); err != nil {
		b.Fatal(err)
	}
	if err := v.Mknod(w.ctx, vfs.Path{}, "/usr/share/doc/thing", abi.S_IFREG|0o644, 0); err != nil {
		b.Fatal(err)
	}
	return w
}

// swapper moves a directory away as soon as something is made in it, and leads
// its name elsewhere.
type swapper struct {
	w    *world
	done bool
}

func (s *swapper) Event(_ vfs.Inode, mask, _ uint32, _ string) {
	if mask&abi.IN_CREATE == 0 || s.done {
		return
	}
	s.done = true
	s.w.must(s.w.v.Rename(s.w.ctx, vfs.Path{}, "/d", vfs.Path{}, "/moved", 0))
	s.w.must(s.w.v.Symlink(s.w.ctx, "/victim", vfs.Path{}, "/d"))
}

// TestMknodPathRace checks that the path of a new socket is that of the socket,
// and not of what its name leads to later: bind(2) would take over another's.
func TestMknodPathRace(t *testing.T) {
	w := newWorld(t)
	w.mkdir("/d", 0o755)
	w.mkdir("/victim", 0o755)
	w.must(w.v.Mknod(w.ctx, vfs.Path{}, "/victim/sock", abi.S_IFSOCK|0o777, 0))
	d, err := w.v.Lookup(w.ctx, vfs.Path{}, "/d", 0)
	w.must(err)
	s := &swapper{w: w}
	vfs.WatchInode(d.Inode(), s, abi.IN_CREATE)
	defer vfs.UnwatchInode(d.Inode(), s)
	made, err := w.v.MknodPath(w.ctx, vfs.Path{}, "/d/sock", abi.S_IFSOCK|0o777)
	w.must(err)
	want, err := w.v.Lookup(w.ctx, vfs.Path{}, "/moved/sock", 0)
	w.must(err)
	if !s.done || made.Inode() != want.Inode() {
		t.Error("the path leads to another socket")
	}
}
