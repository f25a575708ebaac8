package netlink

import (
	"encoding/binary"
	"testing"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// ask sends one request and returns the types of all messages that come back.
func ask(t *testing.T, typ, flags uint16, body []byte) (types []uint16, errno int32) {
	t.Helper()
	ctx := vfs.NewSystemContext(vfs.New(), vfs.Path{})
	s, err := New(Loopback()).Socket(ctx, abi.SOCK_RAW, abi.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(16+len(body)))
	b = le.AppendUint16(le.AppendUint16(b, typ), flags)
	b = le.AppendUint32(le.AppendUint32(b, 7), 0)
	if _, err := s.SendMsg(ctx, usermem.Bytes(append(b, body...)), &socket.Msg{}); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 8192)
		n, err := s.RecvMsg(ctx, usermem.Bytes(buf), &socket.Msg{Flags: abi.MSG_DONTWAIT})
		if err == abi.EAGAIN {
			return types, errno
		}
		if err != nil {
			t.Fatal(err)
		}
		for m := buf[:n]; len(m) >= 16; {
			l := int(le.Uint32(m))
			if l < 16 || l > len(m) || le.Uint32(m[8:]) != 7 {
				t.Fatalf("bad message: %v", m)
			}
			types = append(types, le.Uint16(m[4:]))
			if le.Uint16(m[4:]) == abi.NLMSG_ERROR {
				errno = int32(le.Uint32(m[16:]))
			}
			m = m[min((l+3)&^3, len(m)):]
		}
	}
}

func TestRoute(t *testing.T) {
	index1 := make([]byte, 16)
	index1[4] = 1
	index2 := make([]byte, 16)
	index2[4] = 2
	for _, c := range []struct {
		name       string
		typ, flags uint16
		body       []byte
		want       []uint16
		errno      abi.Errno
	}{
		{"links", abi.RTM_GETLINK, abi.NLM_F_DUMP, []byte{0}, []uint16{abi.RTM_NEWLINK, abi.NLMSG_DONE}, 0},
		{"addresses", abi.RTM_GETADDR, abi.NLM_F_DUMP, []byte{0}, []uint16{abi.RTM_NEWADDR, abi.RTM_NEWADDR, abi.NLMSG_DONE}, 0},
		{"v4 addresses", abi.RTM_GETADDR, abi.NLM_F_DUMP, []byte{abi.AF_INET}, []uint16{abi.RTM_NEWADDR, abi.NLMSG_DONE}, 0},
		{"one link", abi.RTM_GETLINK, 0, index1, []uint16{abi.RTM_NEWLINK}, 0},
		{"no such link", abi.RTM_GETLINK, 0, index2, []uint16{abi.NLMSG_ERROR}, abi.ENODEV},
		{"short", abi.RTM_GETROUTE, 0, nil, []uint16{abi.NLMSG_ERROR}, abi.EINVAL},
		{"change", abi.RTM_NEWADDR, 0, index1, []uint16{abi.NLMSG_ERROR}, abi.EPERM},
		{"unknown", 900, abi.NLM_F_ACK, nil, []uint16{abi.NLMSG_ERROR}, abi.EOPNOTSUPP},
		{"empty dump", abi.RTM_GETNEIGH, abi.NLM_F_DUMP, nil, []uint16{abi.NLMSG_DONE}, 0},
	} {
		got, errno := ask(t, c.typ, c.flags|abi.NLM_F_REQUEST, c.body)
		same := len(got) == len(c.want)
		for i := range got {
			same = same && got[i] == c.want[i]
		}
		if !same || errno != -int32(c.errno) {
			t.Errorf("%s: %v, errno %d; want %v, %d", c.name, got, errno, c.want, -int32(c.errno))
		}
	}
}

func TestHost(t *testing.T) {
	n, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Links) == 0 || len(n.Addrs) == 0 {
		t.Errorf("%d links, %d addresses", len(n.Links), len(n.Addrs))
	}
}

func FuzzRequests(f *testing.F) {
	f.Add([]byte("\x14\x00\x00\x00\x12\x00\x01\x03\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx := vfs.NewSystemContext(vfs.New(), vfs.Path{})
		s, _ := New(Loopback()).Socket(ctx, abi.SOCK_RAW, abi.NETLINK_ROUTE)
		s.SendMsg(ctx, usermem.Bytes(b), &socket.Msg{})
	})
}
