package epoll

import (
	"encoding/binary"
	"testing"
	"time"

	"garrison/abi"
	"garrison/sentry/fs/eventfd"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func newContext() vfs.Context { return vfs.NewSystemContext(vfs.New(), vfs.Path{}) }

func newCounter(initial uint32) *vfs.File {
	return vfs.NewAnonFile(eventfd.New(initial, 0), abi.O_RDWR|abi.O_NONBLOCK, "anon_inode:[eventfd]")
}

func newEpoll() (*Epoll, *vfs.File) {
	e := New()
	return e, vfs.NewAnonFile(e, abi.O_RDWR, "anon_inode:[eventpoll]")
}

func add(f *vfs.File, n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	f.Write(newContext(), usermem.Bytes(b[:]), 0)
}

func drain(f *vfs.File) {
	var b [8]byte
	f.Read(newContext(), usermem.Bytes(b[:]), 0)
}

func poll(t *testing.T, e *Epoll) []Event {
	t.Helper()
	ev := make([]Event, 10)
	n, err := e.Wait(newContext(), ev, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ev[:n]
}

func TestTriggers(t *testing.T) {
	for _, c := range []struct {
		name   string
		events uint32
		want   [4]int // at once, again, after another write, after MOD
	}{
		{"level", abi.EPOLLIN, [4]int{1, 1, 1, 1}},
		{"edge", abi.EPOLLIN | abi.EPOLLET, [4]int{1, 0, 1, 1}},
		{"oneshot", abi.EPOLLIN | abi.EPOLLONESHOT, [4]int{1, 0, 0, 1}},
	} {
		e, ef := newEpoll()
		f := newCounter(1)
		if err := e.Ctl(ef, abi.EPOLL_CTL_ADD, f, 3, Event{c.events, 7}); err != nil {
			t.Fatal(err)
		}
		var got [4]int
		got[0] = len(poll(t, e))
		got[1] = len(poll(t, e))
		add(f, 1)
		got[2] = len(poll(t, e))
		if err := e.Ctl(ef, abi.EPOLL_CTL_MOD, f, 3, Event{c.events, 8}); err != nil {
			t.Fatal(err)
		}
		ev := poll(t, e)
		got[3] = len(ev)
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if len(ev) == 1 && (ev[0].Data != 8 || ev[0].Events != abi.EPOLLIN) {
			t.Errorf("%s: event %+v", c.name, ev[0])
		}
		drain(f)
		if n := len(poll(t, e)); n != 0 {
			t.Errorf("%s: %d events of a drained file", c.name, n)
		}
	}
}

func TestErrors(t *testing.T) {
	e, ef := newEpoll()
	f := newCounter(0)
	for _, c := range []struct {
		name string
		op   int32
		f    *vfs.File
		ev   uint32
		want error
	}{
		{"mod of nothing", abi.EPOLL_CTL_MOD, f, abi.EPOLLIN, abi.ENOENT},
		{"del of nothing", abi.EPOLL_CTL_DEL, f, 0, abi.ENOENT},
		{"itself", abi.EPOLL_CTL_ADD, ef, abi.EPOLLIN, abi.EINVAL},
		{"add", abi.EPOLL_CTL_ADD, f, abi.EPOLLIN | abi.EPOLLEXCLUSIVE, nil},
		{"again", abi.EPOLL_CTL_ADD, f, abi.EPOLLIN, abi.EEXIST},
		{"mod of exclusive", abi.EPOLL_CTL_MOD, f, abi.EPOLLIN, abi.EINVAL},
		{"unknown", 9, f, 0, abi.EINVAL},
		{"del", abi.EPOLL_CTL_DEL, f, 0, nil},
		{"exclusive oneshot", abi.EPOLL_CTL_ADD, f, abi.EPOLLONESHOT | abi.EPOLLEXCLUSIVE, abi.EINVAL},
	} {
		if err := e.Ctl(ef, c.op, c.f, 3, Event{c.ev, 0}); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestNesting(t *testing.T) {
	type node struct {
		e *Epoll
		f *vfs.File
	}
	var chain []node
	for i := range 6 {
		e, f := newEpoll()
		chain = append(chain, node{e, f})
		if i == 0 {
			continue
		}
		err := e.Ctl(f, abi.EPOLL_CTL_ADD, chain[i-1].f, 3, Event{abi.EPOLLIN, 0})
		if want := error(nil); i == 5 {
			if err != abi.ELOOP {
				t.Errorf("a chain of six: %v, want ELOOP", err)
			}
		} else if err != want {
			t.Errorf("link %d: %v", i, err)
		}
	}
	if err := chain[0].e.Ctl(chain[0].f, abi.EPOLL_CTL_ADD, chain[2].f, 3, Event{abi.EPOLLIN, 0}); err != abi.ELOOP {
		t.Errorf("a cycle: %v, want ELOOP", err)
	}
	// Readiness travels up.
	f := newCounter(0)
	chain[0].e.Ctl(chain[0].f, abi.EPOLL_CTL_ADD, f, 3, Event{abi.EPOLLIN, 0})
	if n := len(poll(t, chain[4].e)); n != 0 {
		t.Errorf("%d events", n)
	}
	add(f, 1)
	if n := len(poll(t, chain[4].e)); n != 1 {
		t.Errorf("%d events at the top, want 1", n)
	}
}

func TestAutoRemove(t *testing.T) {
	e, ef := newEpoll()
	f := newCounter(1)
	f.IncRef() // as by dup
	e.Ctl(ef, abi.EPOLL_CTL_ADD, f, 3, Event{abi.EPOLLIN, 0})
	f.DecRef()
	if n := len(poll(t, e)); n != 1 {
		t.Errorf("%d events while the description lives", n)
	}
	f.DecRef()
	if n := len(poll(t, e)); n != 0 || len(e.items) != 0 {
		t.Errorf("%d events, %d items after the last close", n, len(e.items))
	}
	g := newCounter(1)
	e.Ctl(ef, abi.EPOLL_CTL_ADD, g, 3, Event{abi.EPOLLIN, 0})
	ef.DecRef()
	g.DecRef() // must not find the dead epoll
}

func TestWake(t *testing.T) {
	e, ef := newEpoll()
	f := newCounter(0)
	e.Ctl(ef, abi.EPOLL_CTL_ADD, f, 3, Event{abi.EPOLLIN, 5})
	done := make(chan Event)
	go func() {
		ev := make([]Event, 1)
		e.Wait(newContext(), ev, -1)
		done <- ev[0]
	}()
	time.Sleep(5 * time.Millisecond)
	add(f, 1)
	select {
	case ev := <-done:
		if ev.Data != 5 {
			t.Errorf("%+v", ev)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not woken")
	}
}

func TestFairness(t *testing.T) {
	e, ef := newEpoll()
	for i := range 4 {
		e.Ctl(ef, abi.EPOLL_CTL_ADD, newCounter(1), int32(i), Event{abi.EPOLLIN, uint64(i)})
	}
	seen := map[uint64]int{}
	for range 4 {
		ev := make([]Event, 2)
		n, _ := e.Wait(newContext(), ev, 0)
		for _, x := range ev[:n] {
			seen[x.Data]++
		}
	}
	for i := range uint64(4) {
		if seen[i] != 2 {
			t.Errorf("file %d was reported %d times, want 2", i, seen[i])
		}
	}
}

func BenchmarkWait(b *testing.B) {
	e, ef := newEpoll()
	e.Ctl(ef, abi.EPOLL_CTL_ADD, newCounter(1), 3, Event{abi.EPOLLIN, 0})
	ctx, ev := newContext(), make([]Event, 16)
	b.ReportAllocs()
	for b.Loop() {
		e.Wait(ctx, ev, 0)
	}
}
