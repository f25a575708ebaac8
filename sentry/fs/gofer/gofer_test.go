package gofer_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"garrison/abi"
	server "garrison/gofer"
	"garrison/internal/seccomp"
	"garrison/sentry/fs/gofer"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func sockets(t testing.TB, typ int) (*os.File, *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(p[0]), "client"), os.NewFile(uintptr(p[1]), "server")
}

// confined makes serve run the server in a process of its own, under its filter.
var confined bool

func TestMain(m *testing.M) {
	if dir := os.Getenv("GOFER_TEST_DIR"); dir != "" {
		if err := serveConfined(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serveConfined(dir string) error {
	cfg := server.Config{Mounts: []server.Mount{{Name: "root", HostPath: dir, ReadOnly: os.Getenv("GOFER_TEST_RO") != ""}}}
	conn, desc := os.NewFile(3, "9p"), os.NewFile(4, "descriptors")
	if err := cfg.Prepare(); err != nil {
		return err
	}
	unix.Umask(0)
	prog, err := seccomp.Program(append(server.Rules(&cfg), libcRules...), seccomp.Trap)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := seccomp.Install(prog); err != nil {
		return err
	}
	return server.Serve(cfg, conn, desc)
}

// serve starts a server of dir and returns a client's mount of it.
func serve(t testing.TB, dir string, readOnly, exclusive bool) (*gofer.FS, *gofer.Client) {
	t.Helper()
	unix.Umask(0)
	c1, s1 := sockets(t, unix.SOCK_STREAM)
	c2, s2 := sockets(t, unix.SOCK_SEQPACKET)
	done := make(chan error, 1)
	if confined {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "GOFER_TEST_DIR="+dir)
		if readOnly {
			cmd.Env = append(cmd.Env, "GOFER_TEST_RO=1")
		}
		cmd.Stderr = os.Stderr
		cmd.ExtraFiles = []*os.File{s1, s2}
		must(t, cmd.Start())
		s1.Close()
		s2.Close()
		go func() { done <- cmd.Wait() }()
	} else {
		go func() {
			done <- server.Serve(server.Config{Mounts: []server.Mount{{Name: "root", HostPath: dir, ReadOnly: readOnly}}}, s1, s2)
		}()
	}
	c, err := gofer.Connect(c1, c2, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("server: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the server does not end when its client is gone")
		}
	})
	fs, err := c.Mount("root", gofer.Options{Exclusive: exclusive})
	if err != nil {
		t.Fatal(err)
	}
	return fs, c
}

func lookup(t testing.TB, fs *gofer.FS, path string) vfs.Inode {
	t.Helper()
	i, err := walk(fs, path)
	if err != nil {
		t.Fatalf("look up %s: %v", path, err)
	}
	return i
}

func walk(fs *gofer.FS, path string) (i vfs.Inode, err error) {
	i = fs.Root()
	for _, n := range strings.Split(path, "/") {
		if n == "" {
			continue
		}
		if i, err = i.Lookup(nil, n); err != nil {
			return nil, err
		}
	}
	return i, nil
}

func names(t testing.TB, d vfs.Inode) []string {
	t.Helper()
	f, err := d.Open(nil, nil, abi.O_RDONLY|abi.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	if err := f.ReadDir(nil, nil, 0, func(d vfs.Dirent) bool { out = append(out, d.Name); return true }); err != nil {
		t.Fatal(err)
	}
	if len(out) < 2 || out[0] != "." || out[1] != ".." {
		t.Fatalf("listing begins with %q", out)
	}
	sort.Strings(out[2:])
	return out[2:]
}

func read(t testing.TB, i vfs.Inode) string {
	t.Helper()
	f, err := i.Open(nil, nil, abi.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release(nil)
	b := make([]byte, 1<<16)
	n, err := f.Read(nil, nil, usermem.Bytes(b), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func write(t testing.TB, i vfs.Inode, off int64, s string) {
	t.Helper()
	f, err := i.Open(nil, nil, abi.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release(nil)
	n, end, err := f.Write(nil, nil, usermem.Bytes([]byte(s)), off, 0)
	if err != nil || n != int64(len(s)) || end != off+n {
		t.Fatalf("write: %d, %d, %v", n, end, err)
	}
}

func attr(t testing.TB, i vfs.Inode) vfs.Attr {
	t.Helper()
	a, err := i.Attr(nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func both(t *testing.T, f func(t *testing.T, exclusive bool)) {
	t.Run("exclusive", func(t *testing.T) { f(t, true) })
	t.Run("shared", func(t *testing.T) { f(t, false) })
}

func TestReadAndStat(t *testing.T) {
	both(t, func(t *testing.T, exclusive bool) {
		dir := t.TempDir()
		must(t, os.MkdirAll(dir+"/a/b", 0o750))
		must(t, os.WriteFile(dir+"/a/b/f", []byte("hello"), 0o640))
		must(t, os.Symlink("b/f", dir+"/a/l"))
		must(t, unix.Mkfifo(dir+"/fifo", 0o600))
		fs, _ := serve(t, dir, true, exclusive)
		if s := read(t, lookup(t, fs, "a/b/f")); s != "hello" {
			t.Errorf("read %q", s)
		}
		var st unix.Stat_t
		must(t, unix.Lstat(dir+"/a/b/f", &st))
		a := attr(t, lookup(t, fs, "a/b/f"))
		if uint32(a.Mode) != st.Mode || a.Ino != st.Ino || a.Size != 5 || a.Mtime != st.Mtim.Nano() || a.Nlink != 1 || a.Dev == 0 {
			t.Errorf("attributes %+v, host has %+v", a, st)
		}
		if l, err := lookup(t, fs, "a/l").Readlink(nil); l != "b/f" || err != nil {
			t.Errorf("readlink: %q, %v", l, err)
		}
		if m := attr(t, lookup(t, fs, "fifo")).Mode; m != abi.S_IFIFO|0o600 {
			t.Errorf("fifo has mode %o", m)
		}
		if got := names(t, lookup(t, fs, "a")); fmt.Sprint(got) != "[b l]" {
			t.Errorf("listing %v", got)
		}
		for range 10 {
			if _, err := walk(fs, fmt.Sprintf("a/none%d", time.Now().UnixNano())); err != abi.ENOENT {
				t.Errorf("missing name: %v", err)
			}
		}
		if _, err := walk(fs, "a/b/f/x"); err != abi.ENOTDIR {
			t.Errorf("below a file: %v", err)
		}
		st2, err := fs.Statfs(nil)
		if err != nil || st2.Bsize == 0 || st2.Namelen == 0 {
			t.Errorf("statfs: %+v, %v", st2, err)
		}
	})
}

// TestConfined runs the other tests against a server that is a process under
// the Gofer's own system call filter.
func TestConfined(t *testing.T) {
	confined = true
	defer func() { confined = false }()
	t.Run("ReadAndStat", TestReadAndStat)
	t.Run("ReadOnlyMount", TestReadOnlyMount)
	t.Run("Changes", TestChanges)
	t.Run("UnlinkedWhileOpen", TestUnlinkedWhileOpen)
	t.Run("Xattr", TestXattr)
	t.Run("Eviction", TestEviction)
	t.Run("Concurrent", TestConcurrent)
}

func TestReadOnlyMount(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o666))
	must(t, os.Mkdir(dir+"/d", 0o777))
	fs, _ := serve(t, dir, true, true)
	r, f, d := fs.Root(), lookup(t, fs, "f"), lookup(t, fs, "d")
	_, errOpen := f.Open(nil, nil, abi.O_RDWR)
	_, errMk := r.Mknod(nil, "n", abi.S_IFREG|0o666, 0)
	_, errDir := r.Mkdir(nil, "n", 0o777)
	_, errSym := r.Symlink(nil, "n", "t")
	for what, err := range map[string]error{
		"open": errOpen, "mknod": errMk, "mkdir": errDir, "symlink": errSym,
		"link": r.Link(nil, "n", f), "unlink": r.Unlink(nil, "f", f), "rmdir": r.Rmdir(nil, "d", d),
		"rename":   r.Rename(nil, "f", f, r, "g", nil, 0),
		"chmod":    f.SetAttr(nil, &vfs.SetAttr{SetMode: true, Mode: 0o600}),
		"truncate": f.SetAttr(nil, &vfs.SetAttr{SetSize: true}),
		"setxattr": f.SetXattr(nil, "user.a", []byte("b"), 0),
	} {
		if err != abi.EROFS {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestChanges(t *testing.T) {
	both(t, func(t *testing.T, exclusive bool) {
		dir := t.TempDir()
		fs, _ := serve(t, dir, false, exclusive)
		r := fs.Root()
		f, err := r.Mknod(nil, "f", abi.S_IFREG|0o4751, 0)
		must(t, err)
		if m := attr(t, f).Mode; m != abi.S_IFREG|0o4751 {
			t.Errorf("mode of the new file is %o", m)
		}
		if _, err := r.Mknod(nil, "f", abi.S_IFREG|0o600, 0); err != abi.EEXIST {
			t.Errorf("a second time: %v", err)
		}
		write(t, f, 0, "0123456789")
		if a := attr(t, f); a.Size != 10 {
			t.Errorf("size %d after a write", a.Size)
		}
		must(t, f.SetAttr(nil, &vfs.SetAttr{SetSize: true, Size: 4}))
		if s := read(t, f); s != "0123" {
			t.Errorf("%q after truncation", s)
		}
		must(t, f.SetAttr(nil, &vfs.SetAttr{SetMode: true, Mode: 0o2755, SetMtime: true, Mtime: -1500000000, SetUID: true, UID: 12, SetGID: true, GID: 34}))
		a := attr(t, f)
		if a.Mode != abi.S_IFREG|0o2755 || a.Mtime != -1500000000 || a.UID != 12 || a.GID != 34 {
			t.Errorf("after SetAttr: %+v", a)
		}
		d, err := r.Mkdir(nil, "d", 0o1777)
		must(t, err)
		if m := attr(t, d).Mode; m != abi.S_IFDIR|0o1777 {
			t.Errorf("mode of the new directory is %o", m)
		}
		must(t, d.Link(nil, "hard", f))
		if n := attr(t, f).Nlink; n != 2 {
			t.Errorf("%d links", n)
		}
		if lookup(t, fs, "d/hard") != f {
			t.Error("a hard link is another inode")
		}
		_, err = d.Symlink(nil, "sym", "../f")
		must(t, err)
		_, err = d.Mknod(nil, "fifo", abi.S_IFIFO|0o622, 0)
		must(t, err)
		if _, err := d.Mknod(nil, "null", abi.S_IFCHR|0o622, vfs.MakeDev(1, 3)); err != abi.EPERM {
			t.Errorf("a device node: %v", err)
		}
		if got := names(t, d); fmt.Sprint(got) != "[fifo hard sym]" {
			t.Errorf("listing %v", got)
		}
		if err := r.Rmdir(nil, "d", d); err != abi.ENOTEMPTY {
			t.Errorf("rmdir of a full directory: %v", err)
		}
		if err := r.Unlink(nil, "d", d); err != abi.EISDIR && err != abi.EPERM {
			t.Errorf("unlink of a directory: %v", err)
		}
		g, err := r.Mknod(nil, "g", abi.S_IFREG|0o600, 0)
		must(t, err)
		if err := r.Rename(nil, "f", f, r, "g", g, abi.RENAME_NOREPLACE); err != abi.EEXIST {
			t.Errorf("rename without replacing: %v", err)
		}
		must(t, r.Rename(nil, "f", f, d, "moved", nil, abi.RENAME_NOREPLACE))
		if lookup(t, fs, "d/moved") != f {
			t.Error("a renamed file is another inode")
		}
		if _, err := walk(fs, "f"); err != abi.ENOENT {
			t.Errorf("the old name: %v", err)
		}
		must(t, d.Rename(nil, "moved", f, r, "g", g, 0))
		must(t, r.Rename(nil, "d", d, r, "dd", nil, 0))
		if got := names(t, d); fmt.Sprint(got) != "[fifo hard sym]" {
			t.Errorf("listing after the rename of the directory: %v", got)
		}
		for _, n := range []string{"fifo", "hard", "sym"} {
			must(t, d.Unlink(nil, n, lookup(t, fs, "dd/"+n)))
		}
		must(t, r.Rmdir(nil, "dd", d))
		if got := names(t, r); fmt.Sprint(got) != "[g]" {
			t.Errorf("listing at the end: %v", got)
		}
	})
}

func TestUnlinkedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	fs, _ := serve(t, dir, false, true)
	r := fs.Root()
	f, err := r.Mknod(nil, "f", abi.S_IFREG|0o600, 0)
	must(t, err)
	o, err := f.Open(nil, nil, abi.O_RDWR)
	must(t, err)
	must(t, r.Unlink(nil, "f", f))
	if _, _, err := o.Write(nil, nil, usermem.Bytes([]byte("abc")), 0, 0); err != nil {
		t.Fatal(err)
	}
	if a := attr(t, f); a.Nlink != 0 || a.Size != 3 {
		t.Errorf("attributes %+v", a)
	}
	must(t, f.SetAttr(nil, &vfs.SetAttr{SetMode: true, Mode: 0o640}))
	if m := attr(t, f).Mode; m != abi.S_IFREG|0o640 {
		t.Errorf("mode %o", m)
	}
	must(t, o.Sync(nil, nil, false))
	must(t, o.Allocate(nil, nil, 0, 0, 8192))
	if a := attr(t, f); a.Size != 8192 {
		t.Errorf("size %d after fallocate", a.Size)
	}
	if n, err := o.Seek(nil, nil, 0, -2, abi.SEEK_END); n != 8190 || err != nil {
		t.Errorf("seek: %d, %v", n, err)
	}
	o.Release(nil)
}

// TestRemovedFilesAreFreed: a file without a name and a user is open nowhere, so
// that the host frees its blocks; one with a user is until the end of that.
func TestRemovedFilesAreFreed(t *testing.T) {
	both(t, func(t *testing.T, exclusive bool) {
		dir := t.TempDir()
		fs, _ := serve(t, dir, false, exclusive)
		r := fs.Root()
		deleted := func() (n int) {
			ents, _ := os.ReadDir("/proc/self/fd")
			for _, e := range ents {
				if l, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(l, dir) && strings.HasSuffix(l, " (deleted)") {
					n++
				}
			}
			return n
		}
		for _, how := range []string{"unlink", "rename"} {
			f, err := r.Mknod(nil, "f", abi.S_IFREG|0o600, 0)
			must(t, err)
			write(t, f, 0, "data")
			o, err := f.Open(nil, nil, abi.O_RDONLY)
			must(t, err)
			if how == "unlink" {
				must(t, r.Unlink(nil, "f", f))
			} else {
				g, err := r.Mknod(nil, "g", abi.S_IFREG|0o600, 0)
				must(t, err)
				must(t, r.Rename(nil, "g", g, r, "f", f, 0))
			}
			if deleted() == 0 {
				t.Errorf("%s: an open file is not held", how)
			}
			if a := attr(t, f); a.Nlink != 0 || a.Size != 4 {
				t.Errorf("%s: %+v", how, a)
			}
			o.Release(nil)
			if n := deleted(); n != 0 {
				t.Errorf("%s: %d descriptors of removed files are left", how, n)
			}
			if a := attr(t, f); a.Nlink != 0 || a.Size != 4 {
				t.Errorf("%s: afterwards %+v", how, a)
			}
			n, err := r.Mknod(nil, "new", abi.S_IFREG|0o600, 0)
			must(t, err)
			if n == f {
				t.Errorf("%s: a new file goes for the old one", how)
			}
			must(t, r.Unlink(nil, "new", n))
		}
		d, err := r.Mkdir(nil, "d", 0o700)
		must(t, err)
		must(t, r.Rmdir(nil, "d", d))
		if a := attr(t, d); a.Nlink != 0 {
			t.Errorf("a removed directory has %d links", a.Nlink)
		}
	})
}

// TestExchange swaps files and directories, and changes both sides afterwards:
// the 9P library takes fids that it knew by their old names for deleted then.
func TestExchange(t *testing.T) {
	both(t, func(t *testing.T, exclusive bool) {
		dir := t.TempDir()
		fs, _ := serve(t, dir, false, exclusive)
		r := fs.Root()
		a, err := r.Mkdir(nil, "a", 0o755)
		must(t, err)
		sub, err := a.Mkdir(nil, "sub", 0o755)
		must(t, err)
		_, err = sub.Mkdir(nil, "x", 0o755)
		must(t, err)
		b, err := r.Mknod(nil, "b", abi.S_IFREG|0o644, 0)
		must(t, err)
		write(t, b, 0, "file")
		must(t, r.Rename(nil, "a", a, r, "b", b, abi.RENAME_EXCHANGE))
		if lookup(t, fs, "b/sub/x") == nil || read(t, lookup(t, fs, "a")) != "file" {
			t.Error("not swapped")
		}
		must(t, r.Unlink(nil, "a", b))
		if !exclusive {
			return // a fid of a directory swapped by name can't be told from one that is gone
		}
		if _, err := sub.Mkdir(nil, "y", 0o755); err != nil {
			t.Errorf("mkdir below: %v", err)
		}
		if _, err := a.Symlink(nil, "l", "t"); err != nil {
			t.Errorf("symlink: %v", err)
		}
		if _, err := os.Lstat(dir + "/b/sub/y"); err != nil {
			t.Error(err)
		}
	})
}

// TestOutOfDescriptors: where the Sentry has none left, an open fails, or idle
// files make room; the connection stays.
func TestOutOfDescriptors(t *testing.T) {
	confined = true
	defer func() { confined = false }()
	dir := t.TempDir()
	for k := range 20 {
		must(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, k), []byte("x"), 0o644))
	}
	fs, _ := serve(t, dir, true, true)
	fs.Root().Lookup(nil, "none")
	var lim unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
	ents, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	low := lim
	low.Cur = uint64(len(ents)) + 5
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	var held []vfs.FileOps
	failed := 0
	for k := range 20 {
		i, err := fs.Root().Lookup(nil, fmt.Sprint(k))
		if err != nil {
			t.Errorf("lookup: %v", err)
			break
		}
		f, err := i.Open(nil, nil, abi.O_RDONLY)
		if err == nil {
			held = append(held, f)
		} else if failed++; err != abi.ENFILE {
			t.Errorf("open: %v", err)
		}
	}
	if failed == 0 || len(held) == 0 {
		t.Errorf("%d opens work and %d fail", len(held), failed)
	}
	held[0].Release(nil)
	if f, err := lookup(t, fs, "19").Open(nil, nil, abi.O_RDONLY); err != nil {
		t.Errorf("open when another file is idle: %v", err)
	} else {
		f.Release(nil)
	}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &lim))
	for _, f := range held[1:] {
		f.Release(nil)
	}
}

func TestXattr(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/f", nil, 0o600))
	if err := unix.Setxattr(dir+"/f", "user.host", []byte("h"), 0); err != nil {
		t.Skipf("the host's file system has no user attributes: %v", err)
	}
	fs, _ := serve(t, dir, false, true)
	f := lookup(t, fs, "f")
	must(t, f.SetXattr(nil, "user.a", []byte("value"), abi.XATTR_CREATE))
	if err := f.SetXattr(nil, "user.a", []byte("value"), abi.XATTR_CREATE); err != abi.EEXIST {
		t.Errorf("create twice: %v", err)
	}
	if v, err := f.GetXattr(nil, "user.a"); string(v) != "value" || err != nil {
		t.Errorf("get: %q, %v", v, err)
	}
	l, err := f.ListXattr(nil)
	sort.Strings(l)
	if fmt.Sprint(l) != "[user.a user.host]" || err != nil {
		t.Errorf("list: %v, %v", l, err)
	}
	must(t, f.RemoveXattr(nil, "user.a"))
	if _, err := f.GetXattr(nil, "user.a"); err != abi.ENODATA {
		t.Errorf("get after removal: %v", err)
	}
	if _, err := f.GetXattr(nil, "security.capability"); err != abi.ENODATA {
		t.Errorf("capabilities: %v", err)
	}
	if err := f.SetXattr(nil, "security.capability", []byte("x"), 0); err != abi.EOPNOTSUPP {
		t.Errorf("set capabilities: %v", err)
	}
}

func TestSharedSeesTheHost(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/f", []byte("one"), 0o600))
	fs, _ := serve(t, dir, false, false)
	f := lookup(t, fs, "f")
	r := fs.Root().(vfs.Revalidator)
	if attr(t, f).Size != 3 || !r.Revalidate(nil, "f", f) {
		t.Fatal("before the change")
	}
	must(t, os.WriteFile(dir+"/f", []byte("longer"), 0o600))
	if s := attr(t, f).Size; s != 6 {
		t.Errorf("size %d after the host wrote", s)
	}
	must(t, os.Rename(dir+"/f", dir+"/g"))
	must(t, os.WriteFile(dir+"/f", nil, 0o600))
	if r.Revalidate(nil, "f", f) {
		t.Error("another file under the old name goes for the old one")
	}
	if read(t, f) != "longer" {
		t.Error("the old file can't be read")
	}
}

func TestEviction(t *testing.T) {
	dir := t.TempDir()
	const files = 300
	for k := range files {
		must(t, os.MkdirAll(fmt.Sprintf("%s/d%d", dir, k%10), 0o755))
		must(t, os.WriteFile(fmt.Sprintf("%s/d%d/f%d", dir, k%10, k), []byte(fmt.Sprint(k)), 0o644))
	}
	fs, c := serve(t, dir, false, true)
	c.SetLimits(32, 8)
	var all []vfs.Inode
	for k := range files {
		all = append(all, lookup(t, fs, fmt.Sprintf("d%d/f%d", k%10, k)))
	}
	must(t, fs.Root().Rename(nil, "d0", lookup(t, fs, "d0"), fs.Root(), "moved", nil, 0))
	for k, i := range all {
		if s := read(t, i); s != fmt.Sprint(k) {
			t.Fatalf("file %d reads %q", k, s)
		}
		must(t, i.SetAttr(nil, &vfs.SetAttr{SetMode: true, Mode: 0o600}))
	}
	if fids, idle := c.Held(); fids > 32+70 || idle > 8 {
		t.Errorf("%d fids and %d idle descriptors held", fids, idle)
	}
	must(t, os.Rename(dir+"/d1/f1", dir+"/d1/gone"))
	must(t, os.WriteFile(dir+"/d1/f1", nil, 0o644))
	c.SetLimits(1, 0)
	lookup(t, fs, "d2/f2")
	if err := all[1].SetAttr(nil, &vfs.SetAttr{SetMode: true, Mode: 0o600}); err != abi.ESTALE {
		t.Logf("a file swapped by the host in exclusive mode: %v", err)
	}
}

// TestAhead lists a directory and looks at its files without the server's help.
func TestAhead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/d/sub", 0o755))
	for k := range 1000 {
		must(t, os.WriteFile(fmt.Sprintf("%s/d/%d", dir, k), []byte(fmt.Sprint(k)), 0o604))
	}
	fs, c := serve(t, dir, false, true)
	d := lookup(t, fs, "d")
	if n := len(names(t, d)); n != 1001 {
		t.Fatalf("%d entries", n)
	}
	before := c.Messages()
	for k := range 1000 {
		f, err := d.Lookup(nil, fmt.Sprint(k))
		must(t, err)
		a := attr(t, f)
		if a.Mode != abi.S_IFREG|0o604 || a.Size != uint64(len(fmt.Sprint(k))) || a.Nlink != 1 || a.Dev != attr(t, d).Dev {
			t.Fatalf("file %d has %+v", k, a)
		}
	}
	if m := c.Messages() - before; m > 0 {
		t.Errorf("%d messages to look at what was listed", m)
	}
	i := lookup(t, fs, "d/77")
	if read(t, i) != "77" {
		t.Error("the file reads otherwise")
	}
	must(t, d.Unlink(nil, "78", lookup(t, fs, "d/78")))
	if _, err := walk(fs, "d/78"); err != abi.ENOENT {
		t.Errorf("a removed file: %v", err)
	}
}

func TestLargeDirectory(t *testing.T) {
	dir := t.TempDir()
	const files = 3000
	for k := range files {
		must(t, os.WriteFile(fmt.Sprintf("%s/%0100d", dir, k), nil, 0o644))
	}
	fs, _ := serve(t, dir, true, true)
	got := names(t, fs.Root())
	if len(got) != files {
		t.Fatalf("%d entries of %d", len(got), files)
	}
	for k, n := range got {
		if n != fmt.Sprintf("%0100d", k) {
			t.Fatalf("entry %d is %s", k, n)
		}
	}
}

func TestMappable(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/f", bytes.Repeat([]byte("x"), 5000), 0o644))
	fs, _ := serve(t, dir, false, true)
	f := lookup(t, fs, "f")
	o, err := f.Open(nil, nil, abi.O_RDONLY)
	must(t, err)
	defer o.Release(nil)
	m, err := o.Mappable(nil, nil, abi.PROT_READ, abi.MAP_SHARED)
	must(t, err)
	p, err := m.Translate(0, 1<<20, false)
	if err != nil || len(p) != 1 || p[0].Len != 8192 || p[0].Max&2 != 0 {
		t.Fatalf("pieces %+v, %v", p, err)
	}
	if p, err := m.Translate(8192, 4096, false); err != nil || len(p) != 0 {
		t.Errorf("past the end: %+v, %v", p, err)
	}
	inv := &invalidator{}
	m.AddMapping(inv, 0, 8192)
	w, err := f.Open(nil, nil, abi.O_RDWR)
	must(t, err)
	defer w.Release(nil)
	if inv.n.Load() != 1 {
		t.Error("mappings of the read-only descriptor stay when there is a writer")
	}
	if p, _ := m.Translate(0, 4096, true); len(p) != 1 || p[0].Max&2 == 0 {
		t.Errorf("with a writer: %+v", p)
	}
	must(t, f.SetAttr(nil, &vfs.SetAttr{SetSize: true, Size: 100}))
	if inv.n.Load() != 2 {
		t.Error("truncation invalidates nothing")
	}
	m.RemoveMapping(inv, 0, 8192)
}

type invalidator struct{ n atomic.Int32 }

func (i *invalidator) InvalidateFile(mm.Mappable, uint64, uint64) { i.n.Add(1) }

func TestKilledServer(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	c1, s1 := sockets(t, unix.SOCK_STREAM)
	c2, s2 := sockets(t, unix.SOCK_SEQPACKET)
	d1, _ := unix.Dup(int(s1.Fd()))
	d2, _ := unix.Dup(int(s2.Fd()))
	go server.Serve(server.Config{Mounts: []server.Mount{{Name: "root", HostPath: dir}}}, s1, s2)
	told := make(chan error, 2)
	c, err := gofer.Connect(c1, c2, func(err error) { told <- err })
	must(t, err)
	fs, err := c.Mount("root", gofer.Options{Exclusive: true})
	must(t, err)
	f := lookup(t, fs, "f")
	unix.Shutdown(d1, unix.SHUT_RDWR)
	unix.Shutdown(d2, unix.SHUT_RDWR)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range 50 {
				if _, err := fs.Root().Lookup(nil, fmt.Sprint(k)); err != abi.EIO {
					t.Errorf("lookup: %v", err)
				}
				if _, err := f.Open(nil, nil, abi.O_RDONLY); err != abi.EIO {
					t.Errorf("open: %v", err)
				}
			}
		}()
	}
	wg.Wait()
	select {
	case err := <-told:
		if err != gofer.ErrDisconnected {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("nobody was told")
	}
	unix.Close(d1)
	unix.Close(d2)
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	fs, c := serve(t, dir, false, true)
	c.SetLimits(16, 4)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			d, err := fs.Root().Mkdir(nil, fmt.Sprint("d", g), 0o755)
			if err != nil {
				t.Error(err)
				return
			}
			for k := range 60 {
				n := fmt.Sprint("f", k)
				f, err := d.Mknod(nil, n, abi.S_IFREG|0o644, 0)
				if err != nil {
					t.Errorf("mknod: %v", err)
					return
				}
				write(t, f, 0, n)
				if s := read(t, f); s != n {
					t.Errorf("%s reads %q", n, s)
				}
				if k%3 == 0 {
					if err := d.Unlink(nil, n, f); err != nil {
						t.Errorf("unlink: %v", err)
					}
				}
			}
		}()
	}
	wg.Wait()
	m, _ := filepath.Glob(dir + "/*/f*")
	if len(m) != 6*40 {
		t.Errorf("%d files left", len(m))
	}
}

// BenchmarkProcess measures round trips to a server process: a walk with a clunk,
// and an open on the descriptor channel.
func BenchmarkProcess(b *testing.B) {
	confined = true
	defer func() { confined = false }()
	dir := b.TempDir()
	must(b, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	fs, c := serve(b, dir, true, true)
	f := lookup(b, fs, "f")
	b.Run("9p", func(b *testing.B) {
		for b.Loop() {
			if _, err := fs.Statfs(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	c.SetLimits(100, 0)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			o, err := f.Open(nil, nil, abi.O_RDONLY)
			if err != nil {
				b.Fatal(err)
			}
			o.Release(nil)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	dir := b.TempDir()
	must(b, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	fs, _ := serve(b, dir, true, false)
	for b.Loop() {
		lookup(b, fs, "f")
	}
}

func BenchmarkRead4K(b *testing.B) {
	dir := b.TempDir()
	must(b, os.WriteFile(dir+"/f", make([]byte, 4096), 0o644))
	fs, _ := serve(b, dir, true, true)
	o, err := lookup(b, fs, "f").Open(nil, nil, abi.O_RDONLY)
	must(b, err)
	buf := make([]byte, 4096)
	var dst usermem.Buffer
	b.ReportAllocs()
	for b.Loop() {
		dst = *usermem.Bytes(buf)
		o.Read(nil, nil, &dst, 0, 0)
	}
}
