package goferwire

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestPackets(t *testing.T) {
	req := Request{ID: 1, Op: OpLookup, Node: 2, Node2: 3, Path: "a/b", Ino: 4, Dev: 5, Flags: 6, Valid: 7, Mode: 8, UID: 9, GID: 10,
		Size: 11, Off: 12, Atime: -13, Mtime: 14, Name: "n", Name2: "m", Data: []byte("data")}
	var gotReq Request
	if err := gotReq.Decode(req.Append(nil)); err != nil || !cmp.Equal(req, gotReq) {
		t.Errorf("%v: %s", err, cmp.Diff(req, gotReq))
	}
	resp := Response{ID: 1, Errno: 2, HasFD: true, Last: true, Data: []byte("data"),
		Attr: Attr{Mode: 1, UID: 2, GID: 3, Size: 4, Blocks: 5, Atime: -6, Mtime: 7, Ctime: 8}}
	var gotResp Response
	if err := gotResp.Decode(resp.Append(nil)); err != nil || !cmp.Equal(resp, gotResp) {
		t.Errorf("%v: %s", err, cmp.Diff(resp, gotResp))
	}
	entries := []Entry{
		{Name: "plain", Ino: 1, Next: 2, Type: 3},
		{Name: "full", Ino: 1, Next: 2, Type: 3, HasAttr: true, Mode: 4, UID: 5, GID: 6, Nlink: 7, BlkSize: 8, Dev: 9, Rdev: 10,
			Size: 11, Blocks: 12, Atime: 13, Mtime: -14, Ctime: 15, Btime: 16},
	}
	var b []byte
	for k := range entries {
		b = entries[k].Append(b)
	}
	if n := len(entries[0].Append(nil)); len(b)-n != EntrySize(4) {
		t.Errorf("an entry takes %d bytes, EntrySize says %d", len(b)-n, EntrySize(4))
	}
	for k := range entries {
		var e Entry
		var err error
		if b, err = e.Decode(b); err != nil || !cmp.Equal(e, entries[k]) {
			t.Errorf("%v: %s", err, cmp.Diff(entries[k], e))
		}
	}
	if len(b) != 0 {
		t.Errorf("%d bytes are left", len(b))
	}
}

func TestMalformedPackets(t *testing.T) {
	whole := (&Request{Op: OpOpen, Name: "name", Path: "p/q", Data: []byte("d")}).Append(nil)
	for n := range whole {
		if err := new(Request).Decode(whole[:n]); err == nil {
			t.Errorf("a request cut to %d bytes decodes", n)
		}
	}
	for what, r := range map[string]Request{
		"no operation": {}, "unknown operation": {Op: opMax}, "long name": {Op: OpOpen, Name: strings.Repeat("x", MaxName+1)},
		"long path": {Op: OpOpen, Path: strings.Repeat("x", MaxPath+1)}, "long data": {Op: OpSetXattr, Data: make([]byte, MaxData+1)},
	} {
		if err := new(Request).Decode(r.Append(nil)); err == nil {
			t.Errorf("%s decodes", what)
		}
	}
	resp := (&Response{Data: []byte("data")}).Append(nil)
	for n := range resp {
		if err := new(Response).Decode(resp[:n]); err == nil {
			t.Errorf("a response cut to %d bytes decodes", n)
		}
	}
	entry := (&Entry{Name: "name", HasAttr: true}).Append(nil)
	for n := range entry {
		if _, err := new(Entry).Decode(entry[:n]); err == nil {
			t.Errorf("an entry cut to %d bytes decodes", n)
		}
	}
}

// message makes a 9P message.
func message(typ byte, body string) []byte {
	b := le.AppendUint32(nil, uint32(headerLen+len(body)))
	return append(append(b, typ, 1, 0), body...)
}

func conns(t *testing.T) (client, server *Conn) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client, server = NewConn(os.NewFile(uintptr(p[0]), "client"), false), NewConn(os.NewFile(uintptr(p[1]), "server"), true)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestConn(t *testing.T) {
	client, server := conns(t)
	version, walk, read := message(tVersion, "v"), message(tWalk, strings.Repeat("w", 5000)), message(116, "r")
	var all []byte
	for _, m := range [][]byte{version, walk, version, read} {
		all = append(all, m...)
		client.Write(m[:3]) // in pieces, as package p9 does
		client.Write(m[3:headerLen])
		client.Write(m[headerLen:])
	}
	if client.Sent() != 4 {
		t.Errorf("%d messages sent", client.Sent())
	}
	// The second Tversion and the Tread arrive as messages that do not exist.
	all[len(version)+len(walk)+4], all[len(all)-len(read)+4] = noMessage, noMessage
	got := make([]byte, len(all))
	if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, all) {
		t.Errorf("%v; what arrives is not what was sent", err)
	}
	dead := make(chan bool, 2)
	server.OnDead = func() { dead <- true }
	client.Close()
	if _, err := server.Read(got); err != io.EOF {
		t.Errorf("read after the peer's end: %v", err)
	}
	if n, err := server.Write(walk); n != len(walk) || err != nil {
		t.Errorf("write after the peer's end: %d, %v", n, err)
	}
	if len(dead) != 1 || !server.Dead() {
		t.Errorf("told %d times", len(dead))
	}
}

func TestDescriptors(t *testing.T) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	buf, oob := make([]byte, 100), make([]byte, OOBSpace)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := SendPacket(p[1], []byte("with"), null); err != nil {
		t.Fatal(err)
	}
	n, fd, err := RecvPacket(p[0], buf, oob)
	if string(buf[:n]) != "with" || fd < 0 || err != nil {
		t.Fatalf("%q, %d, %v", buf[:n], fd, err)
	}
	if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("the descriptor is inherited")
	}
	unix.Close(fd)
	SendPacket(p[1], []byte("refused"), null)
	if _, fd, err := RecvPacket(p[0], buf, nil); err != ErrNoFD || fd >= 0 {
		t.Errorf("a descriptor nobody asked for: %d, %v", fd, err)
	}
	SendPacket(p[1], make([]byte, 200), -1)
	if _, _, err := RecvPacket(p[0], buf, oob); err != ErrPacket {
		t.Errorf("a packet too long: %v", err)
	}
	unix.Close(p[1])
	if n, _, err := RecvPacket(p[0], buf, oob); n != 0 || err != nil {
		t.Errorf("at the end: %d, %v", n, err)
	}
}
