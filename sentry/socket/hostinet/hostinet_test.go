package hostinet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func newFamily(t *testing.T) (vfs.Context, *Family) {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	return vfs.NewSystemContext(vfs.New(), vfs.Path{}), &Family{Poller: p}
}

// loopback is 127.0.0.1 with a port.
func loopback(port uint16) []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint16(b, abi.AF_INET)
	binary.BigEndian.PutUint16(b[2:], port)
	copy(b[4:], []byte{127, 0, 0, 1})
	return b
}

func TestTCP(t *testing.T) {
	ctx, fam := newFamily(t)
	l, err := fam.Socket(ctx, abi.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release(nil)
	if err := l.Bind(ctx, loopback(0)); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(ctx, 5); err != nil {
		t.Fatal(err)
	}
	at, err := l.Name(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		c, err := fam.Socket(ctx, abi.SOCK_STREAM, 0)
		if err != nil {
			t.Error(err)
			return
		}
		if err := c.Connect(ctx, at, false); err != nil {
			t.Error(err)
		}
		if n, err := c.SendMsg(ctx, usermem.Bytes(data), &socket.Msg{}); n != int64(len(data)) || err != nil {
			t.Errorf("sent %d bytes, %v", n, err)
		}
		c.Release(nil)
	}()
	s, err := l.Accept(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release(nil)
	var got []byte
	for {
		b := make([]byte, 100000)
		n, err := s.RecvMsg(ctx, usermem.Bytes(b), &socket.Msg{})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got = append(got, b[:n]...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came through, want %d", len(got), len(data))
	}
}

func TestRefusals(t *testing.T) {
	ctx, fam := newFamily(t)
	for _, c := range []struct {
		typ, protocol int
		want          error
	}{
		{abi.SOCK_RAW, abi.IPPROTO_ICMP, abi.EPROTONOSUPPORT},
		{abi.SOCK_STREAM, abi.IPPROTO_UDP, abi.EPROTONOSUPPORT},
		{abi.SOCK_SEQPACKET, 0, abi.ESOCKTNOSUPPORT},
		{abi.SOCK_STREAM, -1, abi.EINVAL},
	} {
		if _, err := fam.Socket(ctx, c.typ, c.protocol); err != c.want {
			t.Errorf("type %d, protocol %d: %v, want %v", c.typ, c.protocol, err, c.want)
		}
	}
	s, err := fam.Socket(ctx, abi.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release(nil)
	if err := s.Bind(ctx, []byte{abi.AF_UNIX, 0, 'x'}); err != abi.EAFNOSUPPORT {
		t.Errorf("an AF_UNIX address: %v", err)
	}
	if err := s.SetSockOpt(ctx, abi.SOL_SOCKET, abi.SO_MARK, socket.Int(1)); err != nil {
		t.Errorf("SO_MARK is stored: %v", err) // and never reaches the host
	}
	if err := s.SetSockOpt(ctx, abi.IPPROTO_IP, abi.IP_OPTIONS, []byte{1}); err != abi.EPERM {
		t.Errorf("source routes: %v", err)
	}
	if err := s.SetSockOpt(ctx, abi.SOL_SOCKET, abi.SO_ATTACH_FILTER, make([]byte, 16)); err != abi.ENOPROTOOPT {
		t.Errorf("a BPF filter: %v", err)
	}
}
