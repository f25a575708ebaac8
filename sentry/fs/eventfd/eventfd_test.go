package eventfd

import (
	"encoding/binary"
	"math"
	"testing"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

func TestCounter(t *testing.T) {
	ctx := vfs.NewSystemContext(vfs.New(), vfs.Path{})
	type step struct {
		write bool
		value uint64 // written, or expected
		err   error
		ready wait.Events // afterwards
	}
	const in, out = abi.EPOLLIN, abi.EPOLLOUT
	for _, c := range []struct {
		name    string
		initial uint32
		flags   uint32
		steps   []step
	}{
		{"empty", 0, 0, []step{{false, 0, abi.EAGAIN, out}, {true, 3, nil, in | out}, {true, 4, nil, in | out}, {false, 7, nil, out}}},
		{"semaphore", 2, abi.EFD_SEMAPHORE, []step{{false, 1, nil, in | out}, {false, 1, nil, out}, {false, 0, abi.EAGAIN, out}}},
		{"full", 0, 0, []step{{true, math.MaxUint64, abi.EINVAL, out}, {true, math.MaxUint64 - 1, nil, in}, {true, 1, abi.EAGAIN, in},
			{true, 0, nil, in}, {false, math.MaxUint64 - 1, nil, out}}},
	} {
		f := vfs.NewAnonFile(New(c.initial, c.flags), abi.O_RDWR|abi.O_NONBLOCK, "anon_inode:[eventfd]")
		for i, s := range c.steps {
			var b [8]byte
			var err error
			if s.write {
				binary.LittleEndian.PutUint64(b[:], s.value)
				_, err = f.Write(ctx, usermem.Bytes(b[:]), 0)
			} else {
				_, err = f.Read(ctx, usermem.Bytes(b[:]), 0)
				if got := binary.LittleEndian.Uint64(b[:]); err == nil && got != s.value {
					t.Errorf("%s, step %d: read %d, want %d", c.name, i, got, s.value)
				}
			}
			if err != s.err {
				t.Errorf("%s, step %d: %v, want %v", c.name, i, err, s.err)
			}
			if ev := f.Readiness(in | out); ev != s.ready {
				t.Errorf("%s, step %d: ready %#x, want %#x", c.name, i, ev, s.ready)
			}
		}
		if _, err := f.Read(ctx, usermem.Bytes(make([]byte, 7)), 0); err != abi.EINVAL {
			t.Errorf("%s: short read: %v", c.name, err)
		}
	}
}

func TestSignalSaturates(t *testing.T) {
	c := New(0, 0)
	c.Signal(math.MaxUint64)
	c.Signal(1)
	if c.Value() != math.MaxUint64 || c.Readiness(0) != abi.EPOLLERR {
		t.Errorf("%d, %#x", c.Value(), c.Readiness(0))
	}
}
