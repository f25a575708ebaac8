package inet

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func newContext() *vfs.SystemContext { return vfs.NewSystemContext(vfs.New(), vfs.Path{}) }

type net struct {
	t      testing.TB
	ctx    vfs.Context
	v4, v6 *Family
}

func newNet(t testing.TB) *net {
	st := NewStack()
	return &net{t, newContext(), &Family{Stack: st}, &Family{Stack: st, V6: true}}
}

func (n *net) socket(fam *Family, typ int) socket.Socket {
	n.t.Helper()
	s, err := fam.Socket(n.ctx, typ, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// addr makes a sockaddr of the address's own family.
func addr(s string) []byte {
	a := netip.MustParseAddrPort(s)
	if a.Addr().Is4() {
		b := make([]byte, 16)
		binary.LittleEndian.PutUint16(b, abi.AF_INET)
		binary.BigEndian.PutUint16(b[2:], a.Port())
		ip := a.Addr().As4()
		copy(b[4:], ip[:])
		return b
	}
	b := make([]byte, 28)
	binary.LittleEndian.PutUint16(b, abi.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	ip := a.Addr().As16()
	copy(b[8:], ip[:])
	return b
}

func (n *net) listen(fam *Family, at string, backlog int) socket.Socket {
	n.t.Helper()
	l := n.socket(fam, abi.SOCK_STREAM)
	if err := l.Bind(n.ctx, addr(at)); err != nil {
		n.t.Fatal(err)
	}
	if err := l.Listen(n.ctx, backlog); err != nil {
		n.t.Fatal(err)
	}
	return l
}

// connection makes both ends of a TCP connection.
func (n *net) connection() (c, s socket.Socket) {
	n.t.Helper()
	l := n.listen(n.v4, "127.0.0.1:8080", 1)
	c = n.socket(n.v4, abi.SOCK_STREAM)
	if err := c.Connect(n.ctx, addr("127.0.0.1:8080"), false); err != nil {
		n.t.Fatal(err)
	}
	s, err := l.Accept(n.ctx, true)
	if err != nil {
		n.t.Fatal(err)
	}
	l.Release(nil)
	return c, s
}

func (n *net) send(s socket.Socket, data string, to []byte) error {
	m := socket.Msg{Flags: abi.MSG_DONTWAIT, Name: to}
	_, err := s.SendMsg(n.ctx, usermem.Bytes([]byte(data)), &m)
	return err
}

func (n *net) recv(s socket.Socket, size int, flags uint32) (string, error) {
	m := socket.Msg{Flags: flags | abi.MSG_DONTWAIT}
	b := make([]byte, size)
	got, err := s.RecvMsg(n.ctx, usermem.Bytes(b), &m)
	return string(b[:min(int(got), size)]), err
}

func TestBindConflicts(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, other string
		reuse        bool
		v6only       bool
		want         error
	}{
		{"same", "127.0.0.1:99", "127.0.0.1:99", false, false, abi.EADDRINUSE},
		{"other address", "127.0.0.1:99", "127.0.0.2:99", false, false, nil},
		{"other port", "127.0.0.1:99", "127.0.0.1:98", false, false, nil},
		{"wildcard", "127.0.0.1:99", "0.0.0.0:99", false, false, abi.EADDRINUSE},
		{"SO_REUSEADDR", "127.0.0.1:99", "0.0.0.0:99", true, false, nil},
		{"dual stack", "127.0.0.1:99", "[::]:99", false, false, abi.EADDRINUSE},
		{"IPV6_V6ONLY", "127.0.0.1:99", "[::]:99", false, true, nil},
		{"mapped", "127.0.0.1:99", "[::ffff:127.0.0.1]:99", false, false, abi.EADDRINUSE},
		{"not ours", "127.0.0.1:99", "10.0.0.1:99", false, false, abi.EADDRNOTAVAIL},
	} {
		n := newNet(t)
		var socks []socket.Socket
		for _, a := range []string{c.first, c.other} {
			fam := n.v4
			if len(addr(a)) == 28 {
				fam = n.v6
			}
			s := n.socket(fam, abi.SOCK_STREAM)
			if c.reuse {
				s.SetSockOpt(n.ctx, abi.SOL_SOCKET, abi.SO_REUSEADDR, socket.Int(1))
			}
			if c.v6only && fam.V6 {
				s.SetSockOpt(n.ctx, abi.IPPROTO_IPV6, abi.IPV6_V6ONLY, socket.Int(1))
			}
			socks = append(socks, s)
		}
		if err := socks[0].Bind(n.ctx, addr(c.first)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := socks[1].Bind(n.ctx, addr(c.other)); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		socks[0].Release(nil)
		socks[1].Release(nil)
		if len(n.v4.Stack.tcp) != 0 {
			t.Errorf("%s: ports leak: %v", c.name, n.v4.Stack.tcp)
		}
	}
}

func TestTCP(t *testing.T) {
	n := newNet(t)
	c, s := n.connection()
	n.send(c, "ping", nil)
	if x, err := n.recv(s, 2, 0); x != "pi" || err != nil {
		t.Errorf("%q, %v", x, err)
	}
	if x, err := n.recv(s, 10, abi.MSG_PEEK); x != "ng" || err != nil {
		t.Errorf("peek: %q, %v", x, err)
	}
	n.recv(s, 10, 0)
	c.Shutdown(n.ctx, abi.SHUT_WR)
	if x, err := n.recv(s, 1, 0); x != "" || err != nil {
		t.Errorf("end: %q, %v", x, err)
	}
	if err := n.send(c, "x", nil); err != abi.EPIPE {
		t.Errorf("send after shutdown: %v", err)
	}
	if err := n.send(s, "still", nil); err != nil {
		t.Errorf("half-close: %v", err)
	}
	if x, _ := n.recv(c, 10, 0); x != "still" {
		t.Errorf("half-close: %q", x)
	}
}

func TestReset(t *testing.T) {
	n := newNet(t)
	c, s := n.connection()
	n.send(c, "unread", nil)
	s.Release(nil)
	if ev := c.Readiness(abi.EPOLLIN); ev&abi.EPOLLERR == 0 {
		t.Errorf("readiness %#x", ev)
	}
	if _, err := n.recv(c, 1, 0); err != abi.ECONNRESET {
		t.Errorf("recv: %v, want ECONNRESET", err)
	}
	if err := n.send(c, "x", nil); err != abi.EPIPE {
		t.Errorf("send: %v, want EPIPE", err)
	}

	c, s = newNet(t).connection()
	s.Release(nil) // nothing unread: FIN
	if x, err := n.recv(c, 1, 0); x != "" || err != nil {
		t.Errorf("after FIN: %q, %v", x, err)
	}
	if err := n.send(c, "lost", nil); err != nil {
		t.Errorf("first send after FIN: %v", err)
	}
	if err := n.send(c, "x", nil); err != abi.EPIPE {
		t.Errorf("second: %v, want EPIPE", err)
	}
}

func TestConnect(t *testing.T) {
	n := newNet(t)
	c := n.socket(n.v4, abi.SOCK_STREAM)
	if err := c.Connect(n.ctx, addr("127.0.0.1:1"), false); err != abi.ECONNREFUSED {
		t.Errorf("nobody listens: %v", err)
	}
	if err := c.Connect(n.ctx, addr("10.1.2.3:1"), false); err != abi.ENETUNREACH {
		t.Errorf("elsewhere: %v", err)
	}
	if err := c.Connect(n.ctx, addr("127.0.0.1:1"), true); err != abi.EINPROGRESS {
		t.Errorf("nonblocking: %v", err)
	}
	if ev := c.Readiness(abi.EPOLLOUT); ev != abi.EPOLLOUT|abi.EPOLLERR|abi.EPOLLHUP {
		t.Errorf("refused: readiness %#x", ev)
	}
	v, _ := c.GetSockOpt(n.ctx, abi.SOL_SOCKET, abi.SO_ERROR, 4)
	if abi.Errno(binary.LittleEndian.Uint32(v)) != abi.ECONNREFUSED {
		t.Errorf("SO_ERROR: %v", v)
	}
	l := n.listen(n.v6, "[::]:700", 0)
	if err := c.Connect(n.ctx, addr("127.0.0.1:700"), true); err != abi.ECONNABORTED {
		t.Errorf("after the failure: %v", err)
	}
	if err := c.Connect(n.ctx, addr("127.0.0.1:700"), true); err != abi.EINPROGRESS {
		t.Errorf("dual-stack listener: %v", err)
	}
	if ev := c.Readiness(abi.EPOLLOUT); ev != abi.EPOLLOUT {
		t.Errorf("connected: readiness %#x", ev)
	}
	if err := c.Connect(n.ctx, addr("127.0.0.1:700"), true); err != nil {
		t.Errorf("first look: %v", err)
	}
	if err := c.Connect(n.ctx, addr("127.0.0.1:700"), true); err != abi.EISCONN {
		t.Errorf("second: %v", err)
	}
	// The backlog of 0 takes one; the next waits for accept.
	c2 := n.socket(n.v4, abi.SOCK_STREAM)
	if err := c2.Connect(n.ctx, addr("127.0.0.1:700"), true); err != abi.EINPROGRESS {
		t.Errorf("full backlog: %v", err)
	}
	if ev := c2.Readiness(abi.EPOLLOUT); ev != 0 {
		t.Errorf("full backlog: readiness %#x", ev)
	}
	s, err := l.Accept(n.ctx, true)
	if err != nil {
		t.Fatal(err)
	}
	if ev := c2.Readiness(abi.EPOLLOUT); ev != abi.EPOLLOUT {
		t.Errorf("after accept: readiness %#x", ev)
	}
	name, _ := s.Name(n.ctx, true)
	if len(name) != 28 || !netip.AddrFrom16([16]byte(name[8:24])).Is4In6() {
		t.Errorf("peer of a dual-stack connection: %v", name)
	}
	l.Release(nil)
	if _, err := n.recv(c2, 1, 0); err != abi.ECONNRESET {
		t.Errorf("listener closed: %v", err)
	}
}

func TestBulk(t *testing.T) {
	n := newNet(t)
	c, s := n.connection()
	const total = 5 << 20
	go func() {
		m := socket.Msg{}
		c.SendMsg(newContext(), usermem.Bytes(make([]byte, total)), &m)
		c.Release(nil)
	}()
	got := 0
	for {
		m := socket.Msg{}
		k, err := s.RecvMsg(n.ctx, usermem.Bytes(make([]byte, 30000)), &m)
		if err != nil {
			t.Fatal(err)
		}
		if k == 0 {
			break
		}
		got += int(k)
	}
	if got != total {
		t.Errorf("%d bytes, want %d", got, total)
	}
}

func TestUDP(t *testing.T) {
	n := newNet(t)
	a, b := n.socket(n.v4, abi.SOCK_DGRAM), n.socket(n.v6, abi.SOCK_DGRAM)
	if err := n.send(a, "x", nil); err != abi.EDESTADDRREQ {
		t.Errorf("no destination: %v", err)
	}
	if err := b.Bind(n.ctx, addr("[::]:53")); err != nil {
		t.Fatal(err)
	}
	if err := n.send(a, "query", addr("127.0.0.1:53")); err != nil {
		t.Fatal(err)
	}
	m := socket.Msg{Flags: abi.MSG_DONTWAIT}
	buf := make([]byte, 3)
	k, err := b.RecvMsg(n.ctx, usermem.Bytes(buf), &m)
	if k != 3 || err != nil || m.OutFlags&abi.MSG_TRUNC == 0 || len(m.Name) != 28 {
		t.Errorf("%d, %v, flags %#x, name %v", k, err, m.OutFlags, m.Name)
	}
	if err := n.send(b, "reply", m.Name); err != nil {
		t.Fatal(err)
	}
	if x, err := n.recv(a, 10, 0); x != "reply" || err != nil {
		t.Errorf("%q, %v", x, err)
	}
	// Connected: refusals come back, and others are not heard.
	if err := a.Connect(n.ctx, addr("127.0.0.1:9"), false); err != nil {
		t.Fatal(err)
	}
	n.send(a, "x", nil)
	if _, err := n.recv(a, 1, 0); err != abi.ECONNREFUSED {
		t.Errorf("%v, want ECONNREFUSED", err)
	}
	if err := n.send(a, string(make([]byte, 65508)), nil); err != abi.EMSGSIZE {
		t.Errorf("too long: %v", err)
	}
	if err := n.send(a, "x", addr("8.8.8.8:53")); err != abi.ENETUNREACH {
		t.Errorf("elsewhere: %v", err)
	}
}

func TestOptions(t *testing.T) {
	n := newNet(t)
	s := n.socket(n.v4, abi.SOCK_STREAM)
	for _, c := range []struct {
		level, name int
		set, want   int32
		err         error
	}{
		{abi.IPPROTO_TCP, abi.TCP_NODELAY, 5, 1, nil},
		{abi.IPPROTO_TCP, abi.TCP_KEEPIDLE, 10, 10, nil},
		{abi.IPPROTO_TCP, abi.TCP_KEEPIDLE, 0, 10, abi.EINVAL},
		{abi.SOL_SOCKET, abi.SO_RCVBUF, 1000, 2304, nil},
		{abi.SOL_SOCKET, abi.SO_SNDBUF, 50000, 100000, nil},
		{abi.SOL_SOCKET, abi.SO_TYPE, 1, abi.SOCK_STREAM, abi.ENOPROTOOPT},
		{abi.IPPROTO_IP, abi.IP_TTL, 300, 64, abi.EINVAL},
		{abi.SOL_SOCKET, abi.SO_PASSCRED, 1, 0, abi.EOPNOTSUPP},
	} {
		if err := s.SetSockOpt(n.ctx, c.level, c.name, socket.Int(c.set)); err != c.err {
			t.Errorf("set %d/%d: %v, want %v", c.level, c.name, err, c.err)
		}
		v, err := s.GetSockOpt(n.ctx, c.level, c.name, 4)
		if err != nil || int32(binary.LittleEndian.Uint32(v)) != c.want {
			t.Errorf("get %d/%d: %v, %v, want %d", c.level, c.name, v, err, c.want)
		}
	}
	if err := s.SetSockOpt(n.ctx, 9999, 1, socket.Int(1)); err != abi.ENOPROTOOPT {
		t.Errorf("unknown level: %v", err)
	}
}

func TestBlockedAccept(t *testing.T) {
	n := newNet(t)
	l := n.listen(n.v4, "127.0.0.1:80", 5)
	done := make(chan error)
	go func() { _, err := l.Accept(newContext(), false); done <- err }()
	time.Sleep(2 * time.Millisecond)
	l.Shutdown(n.ctx, abi.SHUT_RDWR)
	select {
	case err := <-done:
		if err != abi.EINVAL {
			t.Errorf("%v, want EINVAL", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not woken")
	}
}

func BenchmarkTCP(b *testing.B) {
	n := newNet(b)
	c, s := n.connection()
	one := make([]byte, 1)
	buf := usermem.Bytes(one)
	m := socket.NewMsg()
	b.ReportAllocs()
	for b.Loop() {
		*buf = *usermem.Bytes(one)
		c.SendMsg(n.ctx, buf, m)
		*buf = *usermem.Bytes(one)
		s.RecvMsg(n.ctx, buf, m)
	}
}

// TestConcurrent closes sockets under those who use them; it is for the race
// detector, and must not deadlock.
func TestConcurrent(t *testing.T) {
	n := newNet(t)
	l := n.listen(n.v4, "127.0.0.1:80", 4)
	done := make(chan bool)
	for range 4 {
		go func() {
			ctx := newContext()
			for i := range 200 {
				c, _ := n.v4.Socket(ctx, abi.SOCK_STREAM, 0)
				c.Connect(ctx, addr("127.0.0.1:80"), i%2 == 0)
				m := socket.Msg{Flags: abi.MSG_DONTWAIT}
				c.SendMsg(ctx, usermem.Bytes(make([]byte, i)), &m)
				c.Readiness(abi.EPOLLIN | abi.EPOLLOUT)
				c.Release(nil)
			}
			done <- true
		}()
	}
	go func() {
		for {
			s, err := l.Accept(newContext(), false)
			if err != nil {
				done <- true
				return
			}
			m := socket.Msg{Flags: abi.MSG_DONTWAIT}
			s.RecvMsg(newContext(), usermem.Bytes(make([]byte, 50)), &m)
			s.Release(nil)
		}
	}()
	for range 4 {
		<-done
	}
	n.v4.Stack.ProcTCP()
	l.Shutdown(n.ctx, abi.SHUT_RDWR)
	<-done
	l.Release(nil)
	if len(n.v4.Stack.tcp) != 0 {
		t.Errorf("%d ports are still bound", len(n.v4.Stack.tcp))
	}
}
