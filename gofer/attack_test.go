package gofer

import (
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"garrison/internal/goferwire"
)

// An attacker is a Sentry that says what it likes.
type attacker struct {
	t    testing.TB
	conn *os.File // 9P
	desc int
	c    *p9.Client
	done chan error
}

func pair(t testing.TB, typ int) (client, server *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(p[0]), "client"), os.NewFile(uintptr(p[1]), "server")
}

func attack(t testing.TB, cfg Config) *attacker {
	t.Helper()
	c1, s1 := pair(t, unix.SOCK_STREAM)
	c2, s2 := pair(t, unix.SOCK_SEQPACKET)
	a := &attacker{t: t, conn: c1, desc: int(c2.Fd()), done: make(chan error, 1)}
	tv := unix.Timeval{Sec: 10}
	unix.SetsockoptTimeval(a.desc, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	go func() { a.done <- Serve(cfg, s1, s2) }()
	t.Cleanup(func() {
		c2.Close()
		unix.Shutdown(int(c1.Fd()), unix.SHUT_RDWR)
		select {
		case <-a.done:
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	return a
}

// client speaks 9P properly.
func (a *attacker) client() *p9.Client {
	if a.c == nil {
		c, err := p9.NewClient(goferwire.NewConn(a.conn, false), p9.WithMessageSize(goferwire.MessageSize))
		if err != nil {
			a.t.Fatal(err)
		}
		a.c = c
	}
	return a.c
}

func (a *attacker) attach(name string) p9.File {
	a.t.Helper()
	f, err := a.client().Attach(name)
	if err != nil {
		a.t.Fatal(err)
	}
	return f
}

// do makes a request on the descriptor channel.
func (a *attacker) do(r goferwire.Request) (goferwire.Response, int) {
	a.t.Helper()
	r.ID = 7
	if err := goferwire.SendPacket(a.desc, r.Append(nil), -1); err != nil {
		a.t.Fatal(err)
	}
	buf, oob := make([]byte, goferwire.MaxPacket), make([]byte, goferwire.OOBSpace)
	n, fd, err := goferwire.RecvPacket(a.desc, buf, oob)
	if err != nil {
		a.t.Fatal(err)
	}
	var resp goferwire.Response
	if err := resp.Decode(buf[:n]); err != nil || resp.ID != 7 || resp.HasFD != (fd >= 0) {
		a.t.Fatalf("response %+v with descriptor %d: %v", resp, fd, err)
	}
	if resp.Errno != 0 && fd >= 0 {
		a.t.Fatal("a refusal comes with a descriptor")
	}
	return resp, fd
}

func nodeOf(t testing.TB, f p9.File) uint64 {
	t.Helper()
	t.Cleanup(func() { runtime.KeepAlive(f) }) // its finalizer would give the fid back
	q, _, _, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil {
		t.Fatal(err)
	}
	return q.Path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// secret makes a directory to serve, with a file beside it that must stay out of reach.
func secret(t testing.TB) (served string) {
	unix.Umask(0)
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/secret", []byte("SECRET"), 0o666))
	must(t, os.MkdirAll(dir+"/served/sub/deep", 0o777))
	must(t, os.WriteFile(dir+"/served/f", []byte("fine"), 0o666))
	must(t, os.Symlink("../secret", dir+"/served/rel"))
	must(t, os.Symlink(dir+"/secret", dir+"/served/abs"))
	must(t, os.Symlink("..", dir+"/served/updir"))
	must(t, os.Symlink("/proc/self/root", dir+"/served/magic"))
	must(t, unix.Mkfifo(dir+"/served/fifo", 0o666))
	return dir + "/served"
}

func TestNamesThatLeadOut(t *testing.T) {
	dir := secret(t)
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: dir}}})
	root := a.attach("root")
	for _, names := range [][]string{
		{".."}, {"."}, {""}, {"sub", ".."}, {"sub", "..", ".."}, {"../secret"}, {dir + "/f"}, {"/"}, {"sub/deep"}, {"f\x00"}, {"sub\x00/.."},
		{"rel", "x"}, {"updir", "secret"}, {"abs", "x"}, {"magic", "etc"}, {"f", "x"}, {strings.Repeat("n", 256)},
	} {
		if _, f, err := root.Walk(names); err == nil {
			t.Errorf("walk %q leads to node %d", names, nodeOf(t, f))
		}
	}
	for _, name := range []string{"", ".", "..", "other", "root/..", "../root", "/etc", "root/../..", "0"} {
		if f, err := a.client().Attach(name); err == nil && name != "" {
			t.Errorf("attach to %q leads to node %d", name, nodeOf(t, f))
		}
	}
	n := nodeOf(t, root)
	for _, name := range []string{"", ".", "..", "../x", "/tmp/x", "sub/x", "x\x00y", "rel"} {
		resp, fd := a.do(goferwire.Request{Op: goferwire.OpCreate, Node: n, Name: name, Mode: 0o666})
		if resp.Errno == 0 {
			unix.Close(fd)
			t.Errorf("create of %q works", name)
		}
		_, errDir := root.Mkdir(name, 0o777, 0, 0)
		_, errSym := root.Symlink("t", name, 0, 0)
		_, errNod := root.Mknod(name, p9.ModeRegular|0o666, 0, 0, 0, 0)
		for what, err := range map[string]error{"mkdir": errDir, "symlink": errSym, "mknod": errNod,
			"rename": root.RenameAt("f", root, name), "link": root.Link(root, name)} {
			if err == nil && !(what == "rename" && name == "rel") {
				t.Errorf("%s to %q works", what, name)
			}
		}
		if name == "rel" {
			must(t, root.RenameAt("rel", root, "f"))
			must(t, os.Remove(dir+"/f"))
			must(t, os.WriteFile(dir+"/f", []byte("fine"), 0o666))
		}
	}
	for name, want := range map[string]unix.Errno{"abs": unix.ELOOP, "sub": unix.EISDIR, "fifo": unix.EACCES} {
		_, f, err := root.Walk([]string{name})
		must(t, err)
		if resp, fd := a.do(goferwire.Request{Op: goferwire.OpOpen, Node: nodeOf(t, f)}); unix.Errno(resp.Errno) != want || fd >= 0 {
			t.Errorf("open of %s: errno %d", name, resp.Errno)
		}
	}
	var sub unix.Stat_t
	for _, path := range []string{"..", "../secret", "sub/..", "sub/../..", "sub/../../secret", "/etc", "/", "./f", "sub//deep", "sub/", "rel", "abs",
		"updir", "updir/secret", "magic/etc", "f/x", "none", "sub/none", "sub\x00/deep"} {
		must(t, unix.Lstat(dir, &sub))
		for _, op := range []goferwire.Op{goferwire.OpOpen, goferwire.OpReaddir, goferwire.OpLookup} {
			resp, fd := a.do(goferwire.Request{Op: op, Node: n, Path: path, Name: "secret", Ino: sub.Ino, Dev: sub.Dev})
			if resp.Errno == 0 || fd >= 0 {
				t.Errorf("operation %d on path %q works", op, path)
			}
		}
	}
	must(t, unix.Lstat(dir+"/sub/deep", &sub))
	if resp, _ := a.do(goferwire.Request{Op: goferwire.OpReaddir, Node: n, Path: "sub/deep", Ino: sub.Ino, Dev: sub.Dev}); resp.Errno != 0 {
		t.Errorf("an honest path: errno %d", resp.Errno)
	}
	if resp, _ := a.do(goferwire.Request{Op: goferwire.OpReaddir, Node: n, Path: "sub/deep", Ino: sub.Ino + 1, Dev: sub.Dev}); unix.Errno(resp.Errno) != unix.ESTALE {
		t.Errorf("a path to another file than expected: errno %d", resp.Errno)
	}
	for _, bad := range []uint64{0, n + 1000, ^uint64(0)} {
		if resp, _ := a.do(goferwire.Request{Op: goferwire.OpOpen, Node: bad}); unix.Errno(resp.Errno) != unix.EBADF {
			t.Errorf("open of node %d: errno %d", bad, resp.Errno)
		}
	}
	if b, _ := os.ReadFile(dir + "/../secret"); string(b) != "SECRET" {
		t.Errorf("the secret is now %q", b)
	}
}

func TestGrantedRights(t *testing.T) {
	dir := secret(t)
	a := attack(t, Config{Mounts: []Mount{{Name: "rw", HostPath: dir}, {Name: "ro", HostPath: dir, ReadOnly: true}}})
	for _, mount := range []string{"rw", "ro"} {
		_, f, err := a.attach(mount).Walk([]string{"f"})
		must(t, err)
		n := nodeOf(t, f)
		for flags := range uint32(1 << 13) {
			if flags > 3 && flags&3 == 0 && flags&(flags-1) != 0 {
				continue
			}
			resp, fd := a.do(goferwire.Request{Op: goferwire.OpOpen, Node: n, Flags: flags})
			allowed := flags == 0 || mount == "rw" && flags <= 2
			if (resp.Errno == 0) != allowed {
				t.Fatalf("%s: open with flags %#x: errno %d", mount, flags, resp.Errno)
			}
			if fd < 0 {
				continue
			}
			if have, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || uint32(have)&unix.O_ACCMODE != flags {
				t.Errorf("%s: flags %#x gave a descriptor with %#x", mount, flags, have)
			}
			unix.Close(fd)
		}
		for _, op := range []goferwire.Op{goferwire.OpSetAttr, goferwire.OpSetXattr, goferwire.OpRemoveXattr} {
			resp, _ := a.do(goferwire.Request{Op: op, Node: n, Name: "user.x", Valid: goferwire.SetSize, Size: 4})
			if mount == "ro" && unix.Errno(resp.Errno) != unix.EROFS {
				t.Errorf("operation %d on a read-only mount: errno %d", op, resp.Errno)
			}
		}
	}
	// A file of one mount can't be linked or moved into another.
	_, f, err := a.attach("ro").Walk([]string{"f"})
	must(t, err)
	if err := a.attach("rw").Link(f, "stolen"); err == nil {
		t.Error("a file of the read-only mount was linked into the writable one")
	}
	if err := a.attach("ro").RenameAt("f", a.attach("rw"), "stolen"); err == nil {
		t.Error("a file of the read-only mount was moved into the writable one")
	}
}

// TestSwaps walks and opens while another process of the host swaps a file
// with a symbolic link, and a directory with one, and moves a directory about.
func TestSwaps(t *testing.T) {
	dir := secret(t)
	must(t, os.WriteFile(dir+"/../outside", []byte("SECRET"), 0o666))
	must(t, os.MkdirAll(dir+"/../outdir/deep", 0o777))
	must(t, os.WriteFile(dir+"/../outdir/deep/f", []byte("SECRET"), 0o666))
	must(t, os.WriteFile(dir+"/sub/deep/f", []byte("fine"), 0o666))
	must(t, os.Symlink("../secret", dir+"/swap"))
	must(t, os.Symlink("../outdir", dir+"/subswap"))
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: dir}}})
	root, dir0 := a.attach("root"), dir
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !stop.Load() {
			unix.Renameat2(unix.AT_FDCWD, dir+"/f", unix.AT_FDCWD, dir+"/swap", unix.RENAME_EXCHANGE)
			unix.Renameat2(unix.AT_FDCWD, dir+"/sub", unix.AT_FDCWD, dir+"/subswap", unix.RENAME_EXCHANGE)
		}
	}()
	defer func() { stop.Store(true); wg.Wait() }()
	opened := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for _, names := range [][]string{{"f"}, {"swap"}, {"sub", "deep", "f"}, {"subswap", "deep", "f"}} {
			_, f, err := root.Walk(names)
			if err != nil {
				continue
			}
			_, fd := a.do(goferwire.Request{Op: goferwire.OpOpen, Node: nodeOf(t, f)})
			if fd >= 0 {
				var b [16]byte
				n, _ := unix.Pread(fd, b[:], 0)
				if string(b[:n]) != "fine" {
					t.Fatalf("%q reads %q", names, b[:n])
				}
				unix.Close(fd)
				opened++
			}
			f.Close()
		}
		for _, path := range []string{"f", "swap", "sub/deep/f", "subswap/deep/f"} {
			at := strings.LastIndexByte(path, '/')
			dir, name := path[:max(at, 0)], path[at+1:]
			var st unix.Stat_t
			unix.Lstat(dir0+"/"+dir, &st)
			_, fd := a.do(goferwire.Request{Op: goferwire.OpLookup, Node: nodeOf(t, root), Path: dir, Ino: st.Ino, Dev: st.Dev, Name: name, Flags: goferwire.LookupOpen})
			if fd >= 0 {
				var b [16]byte
				n, _ := unix.Pread(fd, b[:], 0)
				if string(b[:n]) != "fine" {
					t.Fatalf("lookup of %s reads %q", path, b[:n])
				}
				unix.Close(fd)
			}
		}
	}
	if opened == 0 {
		t.Error("nothing could be opened at all")
	}
}

func TestDirectoryMovedOut(t *testing.T) {
	dir := secret(t)
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: dir}}})
	_, sub, err := a.attach("root").Walk([]string{"sub"})
	must(t, err)
	must(t, os.Rename(dir+"/sub", dir+"/../moved"))
	if _, _, err := sub.Walk([]string{".."}); err == nil {
		t.Error("a directory that was moved out of the mount leads up")
	}
	if _, _, err := sub.Walk([]string{"deep"}); err != nil {
		t.Errorf("its own entries: %v", err)
	}
}

func TestPseudoFileSystems(t *testing.T) {
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: "/"}}})
	_, proc, err := a.attach("root").Walk([]string{"proc"})
	if err != nil {
		t.Skip("no /proc")
	}
	for _, name := range []string{"self", "1", "sys", "version", "sysrq-trigger", "kcore"} {
		if _, _, err := proc.Walk([]string{name}); err == nil {
			t.Errorf("/proc/%s can be walked to", name)
		}
	}
	root := a.attach("root")
	for path, name := range map[string]string{"proc": "self", "proc/1": "mem", "proc/self": "mem", "proc/sys": "kernel"} {
		var st unix.Stat_t
		unix.Stat("/"+path, &st)
		resp, fd := a.do(goferwire.Request{Op: goferwire.OpLookup, Node: nodeOf(t, root), Path: path, Ino: st.Ino, Dev: st.Dev, Name: name, Flags: goferwire.LookupOpen})
		if resp.Errno == 0 || fd >= 0 {
			t.Errorf("lookup of %s in /%s works", name, path)
		}
	}
	if resp, _ := a.do(goferwire.Request{Op: goferwire.OpReaddir, Node: nodeOf(t, proc)}); resp.Errno != 0 || len(resp.Data) != 0 {
		t.Errorf("a listing of /proc: errno %d, %d bytes", resp.Errno, len(resp.Data))
	}
}

func TestTooManyFids(t *testing.T) {
	dir := secret(t)
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: dir}}, MaxFiles: 20})
	root := a.attach("root")
	var held []p9.File
	var last error
	for range 30 {
		_, f, err := root.Walk([]string{"f"})
		if last = err; err != nil {
			break
		}
		held = append(held, f)
	}
	if last == nil || !strings.Contains(last.Error(), "too many open files") && !strings.Contains(strings.ToLower(last.Error()), "emfile") {
		t.Errorf("after %d fids: %v", len(held), last)
	}
	for _, f := range held {
		f.Close()
	}
	if _, _, err := root.Walk([]string{"f"}); err != nil {
		t.Errorf("with all fids given back: %v", err)
	}
}

// message makes a 9P message by hand.
func message(typ uint8, tag uint16, body ...byte) []byte {
	m := binary.LittleEndian.AppendUint32(nil, uint32(7+len(body)))
	m = append(m, typ)
	m = binary.LittleEndian.AppendUint16(m, tag)
	return append(m, body...)
}

func version() []byte {
	v := "9P2000.L"
	b := binary.LittleEndian.AppendUint32(nil, goferwire.MessageSize)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
	return message(100, 0xffff, append(b, v...)...)
}

// reply reads one message and returns its type.
func reply(t testing.TB, r io.Reader) uint8 {
	t.Helper()
	var h [7]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, int64(binary.LittleEndian.Uint32(h[:]))-7); err != nil {
		t.Fatal(err)
	}
	return h[4]
}

func TestMessagesNotServed(t *testing.T) {
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: secret(t)}}})
	const rlerror = 7
	send := func(m []byte) uint8 {
		if _, err := a.conn.Write(m); err != nil {
			t.Fatal(err)
		}
		return reply(t, a.conn)
	}
	if r := send(message(104, 1, make([]byte, 16)...)); r != rlerror {
		t.Errorf("attach before the version is agreed on gets reply %d", r)
	}
	if r := send(version()); r != 101 {
		t.Fatalf("version gets reply %d", r)
	}
	if r := send(version()); r != rlerror {
		t.Errorf("a second version gets reply %d", r)
	}
	for typ := range 256 {
		if goferwire.ServedMessage(uint8(typ)) {
			continue
		}
		if r := send(message(uint8(typ), 1, make([]byte, 64)...)); r != rlerror {
			t.Errorf("message type %d gets reply %d", typ, r)
		}
	}
}

func TestMalformedPacketEndsTheConnection(t *testing.T) {
	for k, p := range [][]byte{{1}, make([]byte, 30), make([]byte, 200), (&goferwire.Request{Op: goferwire.OpOpen, Name: strings.Repeat("x", 300)}).Append(nil)} {
		a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: secret(t)}}})
		must(t, goferwire.SendPacket(a.desc, p, -1))
		select {
		case err := <-a.done:
			if err == nil {
				t.Errorf("packet %d: no error", k)
			}
			a.done <- err
		case <-time.After(5 * time.Second):
			t.Errorf("packet %d: the server goes on", k)
		}
	}
}

func TestSentDescriptorIsNotTaken(t *testing.T) {
	a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: secret(t)}}})
	a.attach("root")
	before := countFDs(t)
	f, err := os.Open("/dev/null")
	must(t, err)
	req := goferwire.Request{Op: goferwire.OpFsync, Node: 1}
	goferwire.SendPacket(a.desc, req.Append(nil), int(f.Fd()))
	f.Close()
	time.Sleep(50 * time.Millisecond)
	if n := countFDs(t); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func countFDs(t testing.TB) int {
	d, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(d)
}

// TestNothingStaysBehind: a peer that ends in the middle of everything leaves
// no descriptor open.
func TestNothingStaysBehind(t *testing.T) {
	dir := secret(t)
	before := countFDs(t)
	for range 5 {
		t.Run("", func(t *testing.T) {
			a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: dir}}})
			root := a.attach("root")
			for range 50 {
				root.Walk([]string{"sub", "deep"})
				root.Walk([]string{"f"})
			}
		})
	}
	for end := time.Now().Add(3 * time.Second); countFDs(t) > before+10; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", countFDs(t), before)
		}
	}
}

// FuzzMessages sends streams of 9P messages with arbitrary bodies.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{104, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 4, 0, 'r', 'o', 'o', 't', 0, 0, 0, 0})
	f.Add([]byte{126, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0, 'f'})
	f.Add([]byte{110, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 2, 0, '.', '.', 1, 0, 'f'})
	f.Add([]byte{76, 1, 0, 0, 0, 1, 0, 'f', 0, 2, 0, 0})
	f.Add([]byte{74, 1, 0, 0, 0, 1, 0, 'f', 1, 0, 0, 0, 1, 0, 'g'})
	f.Fuzz(func(t *testing.T, data []byte) {
		a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: secret(t), ReadOnly: true}}, MaxFiles: 64})
		out := version()
		// The data is a run of messages: a type, and as many bytes as the type says.
		for tag := uint16(1); len(data) > 0 && tag < 64; tag++ {
			n := min(len(data)-1, 8+int(data[0])%24)
			out = append(out, message(data[0], tag, data[1:1+n]...)...)
			data = data[1+n:]
		}
		if _, err := a.conn.Write(out); err != nil {
			return
		}
		// The server must answer, or hang up; cleanup sees that it ends.
		a.conn.SetReadDeadline(time.Now().Add(time.Second))
		var b [4096]byte
		a.conn.Read(b[:])
	})
}

// FuzzPackets sends arbitrary packets on the descriptor channel.
func FuzzPackets(f *testing.F) {
	for op := goferwire.OpOpen; op <= goferwire.OpExchange; op++ {
		f.Add((&goferwire.Request{Op: op, Node: 1, Name: "f", Flags: 1, Data: []byte("x")}).Append(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > goferwire.MaxPacket {
			return
		}
		a := attack(t, Config{Mounts: []Mount{{Name: "root", HostPath: secret(t)}}, MaxFiles: 64})
		root := a.attach("root")
		root.Walk([]string{"f"})
		if err := goferwire.SendPacket(a.desc, data, -1); err != nil {
			return
		}
		buf, oob := make([]byte, goferwire.MaxPacket), make([]byte, goferwire.OOBSpace)
		if _, fd, err := goferwire.RecvPacket(a.desc, buf, oob); err == nil && fd >= 0 {
			var b [16]byte
			if n, _ := unix.Pread(fd, b[:], 0); strings.Contains(string(b[:n]), "SECRET") {
				t.Error("the secret is out")
			}
			unix.Close(fd)
		}
	})
}

// TestFilterNumbers holds the Gofer's system calls as data: whoever widens the
// list changes it here too, and thinks.
func TestFilterNumbers(t *testing.T) {
	count := func(ro bool) (nrs []uintptr) {
		seen := map[uintptr]bool{}
		for _, r := range Rules(&Config{Mounts: []Mount{{ReadOnly: ro}}}) {
			if r.Why == "" {
				t.Errorf("no reason is given for system call %d", r.Nr)
			}
			if !seen[r.Nr] {
				seen[r.Nr] = true
				nrs = append(nrs, r.Nr)
			}
		}
		return nrs
	}
	if n := len(count(true)); n != 43 {
		t.Errorf("a read-only Gofer may make %d system calls", n)
	}
	if n := len(count(false)); n != 55 {
		t.Errorf("a writing Gofer may make %d system calls", n)
	}
	for _, nr := range count(false) {
		switch nr {
		case unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_PTRACE, unix.SYS_MOUNT, unix.SYS_CHROOT,
			unix.SYS_SETUID, unix.SYS_CAPSET, unix.SYS_IOCTL, unix.SYS_KILL, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_BPF, unix.SYS_OPEN:
			t.Errorf("system call %d has no place in the list", nr)
		}
	}
}
