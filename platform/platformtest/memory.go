package platformtest

import (
	"encoding/binary"
	"math/rand"
	"runtime"
	"sync"
	"testing"
	"time"

	"garrison/abi"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// Code that probes memory at rdi; each ends in a system call.
var (
	probeRead  = cat([]byte{0x48, 0x8b, 0x07}, syscallInsn) // mov rax,[rdi]
	probeWrite = cat([]byte{0x83, 0x0f, 0x00}, syscallInsn) // or dword [rdi],0
)

const probeWriteAt = 32 // of probeWrite in the code page of newProbe

// newProbe makes a guest that can probe its memory.
func newProbe(t *testing.T, p platform.Platform) *guest {
	g := newGuest(t, p, probeRead...)
	copy(g.mem[codeOff+probeWriteAt:], probeWrite)
	return g
}

// probe tries an access and returns what it read, and whether it was let.
func (g *guest) probe(addr uint64, write bool) (uint64, bool) {
	g.t.Helper()
	g.regs.Rip, g.regs.Rdi = codeAddr, addr
	if write {
		g.regs.Rip += probeWriteAt
	}
	trap := g.run()
	switch {
	case trap.Kind == platform.TrapSyscall:
		return g.regs.Orig_rax, true
	case trap.Kind == platform.TrapFault && trap.Addr == addr:
		return 0, false
	}
	g.t.Fatalf("trap %+v at %#x for an access to %#x", trap, g.regs.Rip, addr)
	return 0, false
}

func testMemory(t *testing.T, p platform.Platform) {
	locked(t, "Layout", func(t *testing.T) {
		l := p.Layout()
		if l.Min > 65536 || l.Max < 1<<46 || l.Max > 1<<47-page || (l.Min|l.Max)&(page-1) != 0 {
			t.Errorf("guests may use [%#x, %#x)", l.Min, l.Max)
		}
		for _, f := range []uint64{l.ClockGettime, l.ClockGetres, l.Gettimeofday, l.GetCPU, l.Time} {
			if f != 0 && f >= l.Min && f < l.Max {
				t.Errorf("a vDSO function is at %#x, among the guest's addresses", f)
			}
		}
		g := newProbe(t, p)
		for _, at := range []uint64{l.Min, l.Max - page} {
			if err := g.as.Map(platform.Mapping{Addr: at, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read}); err != nil {
				t.Fatal(err)
			}
			if _, ok := g.probe(at, false); !ok {
				t.Errorf("%#x is not readable", at)
			}
		}
		// The platform's own pages: not the guest's to write.
		for at := l.Max; at < min(l.Max+64*page, 1<<47-page); at += page {
			if _, ok := g.probe(at, true); ok {
				t.Errorf("the guest can write at %#x", at)
			}
		}
	})

	locked(t, "RandomMappings", func(t *testing.T) {
		g := newProbe(t, p)
		seed := time.Now().UnixNano()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewSource(seed))
		const base, pages = 0x40000000, 24
		type pageState struct {
			val  uint64
			prot platform.Prot
		}
		var model [pages]pageState
		const filePages = memSize/page - spareOff/page
		for i := range uint64(filePages) {
			binary.LittleEndian.PutUint64(g.mem[spareOff+i*page:], 1000+i)
		}
		for round := range 60 {
			for range 1 + r.Intn(12) {
				at := r.Intn(pages)
				n := 1 + r.Intn(min(pages-at, filePages))
				addr, length := uint64(base+at*page), uint64(n*page)
				prot := platform.Read
				if r.Intn(2) == 0 {
					prot |= platform.Write
				}
				var err error
				switch r.Intn(4) {
				case 0, 1:
					off := r.Intn(filePages - n + 1)
					err = g.as.Map(platform.Mapping{Addr: addr, Len: length, FD: g.fd, Off: spareOff + int64(off)*page, Prot: prot, Populate: r.Intn(4) == 0})
					for i := range n {
						model[at+i] = pageState{1000 + uint64(off+i), prot}
					}
				case 2:
					err = g.as.Unmap(addr, length)
					for i := range n {
						model[at+i] = pageState{}
					}
				case 3:
					err = g.as.Protect(addr, length, prot)
					for i := range n {
						if model[at+i].prot != 0 {
							model[at+i].prot = prot
						}
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if r.Intn(4) == 0 {
				if err := g.as.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range model {
				addr := uint64(base + i*page)
				if val, ok := g.probe(addr, false); ok != (want.prot != 0) || val != want.val {
					t.Fatalf("round %d: page %d reads %d, %v; want %+v", round, i, val, ok, want)
				}
				if _, ok := g.probe(addr, true); ok != (want.prot&platform.Write != 0) {
					t.Fatalf("round %d: page %d writable: %v; want %+v", round, i, ok, want)
				}
			}
		}
	})

	locked(t, "SharedBetweenSpaces", func(t *testing.T) {
		g := newGuest(t, p, cat([]byte{0x48, 0x89, 0x37}, syscallInsn, []byte{0x48, 0x8b, 0x07}, syscallInsn)...) // mov [rdi],rsi; syscall; mov rax,[rdi]
		g.regs.Rdi, g.regs.Rsi = dataAddr, 4711
		g.run()
		other := g.space()
		defer other.Release()
		th, err := p.NewThread()
		if err != nil {
			t.Fatal(err)
		}
		defer th.Release()
		regs := g.regs
		if trap, err := th.Run(other, &regs); err != nil || trap.Kind != platform.TrapSyscall || regs.Orig_rax != 4711 {
			t.Errorf("trap %+v, %v; read %d", trap, err, regs.Orig_rax)
		}
	})

	locked(t, "RefusedMapping", func(t *testing.T) {
		// A descriptor that is not open: the error is reported, nothing is
		// mapped, and the space goes on.
		g := newProbe(t, p)
		const at = 0x50000000
		if err := g.as.Map(platform.Mapping{Addr: at, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read}); err != nil {
			t.Fatal(err)
		}
		g.as.Map(platform.Mapping{Addr: at + page, Len: page, FD: 1 << 20, Prot: platform.Read})
		g.as.Map(platform.Mapping{Addr: at + 2*page, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read})
		if err := g.as.Flush(); err != abi.EBADF {
			t.Errorf("Flush: %v, want EBADF", err)
		}
		for i, want := range []bool{true, false, true} {
			if _, ok := g.probe(at+uint64(i)*page, false); ok != want {
				t.Errorf("page %d is readable: %v, want %v", i, ok, want)
			}
		}
	})

	locked(t, "FlushWithoutThreads", func(t *testing.T) {
		g := newProbe(t, p)
		if err := g.as.Flush(); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.MemfdCreate("other", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		unix.Ftruncate(fd, page)
		unix.Pwrite(fd, []byte{77}, 0)
		if err := g.as.Map(platform.Mapping{Addr: 0x50000000, Len: page, FD: fd, Prot: platform.Read}); err != nil {
			t.Fatal(err)
		}
		if err := g.as.Flush(); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd) // not needed any more
		if v, ok := g.probe(0x50000000, false); !ok || v != 77 {
			t.Errorf("read %d, %v", v, ok)
		}
	})

	locked(t, "OwnCallsWhileOthersRun", func(t *testing.T) {
		// One thread reads a page in a loop; another, between its own runs, takes
		// the page away and gives it back. Calls take effect before they return.
		g := newGuest(t, p, cat([]byte{0x48, 0x8b, 0x07}, []byte{0xeb, 0xfb})...) // again: mov rax,[rdi]; jmp again
		copy(g.mem[codeOff+64:], syscallInsn)
		const at, rounds = 0x50000000, 100
		m := platform.Mapping{Addr: at, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read}
		if err := g.as.Map(m); err != nil {
			t.Fatal(err)
		}
		faults := make(chan error, 1)
		resume := make(chan struct{}, 1)
		var wg sync.WaitGroup
		regs := g.regs
		regs.Rdi = at
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			th, err := p.NewThread()
			if err != nil {
				faults <- err
				return
			}
			defer th.Release()
			for range rounds {
				trap, err := th.Run(g.as, &regs)
				if err == nil && (trap.Kind != platform.TrapFault || trap.Addr != at) {
					t.Errorf("trap %+v", trap)
				}
				faults <- err
				<-resume
			}
		}()
		g.regs.Rip = codeAddr + 64
		for range rounds {
			g.run()
			g.regs.Rip = codeAddr + 64
			if err := g.as.Unmap(at, page); err != nil {
				t.Fatal(err)
			}
			if err := <-faults; err != nil {
				t.Fatal(err)
			}
			if err := g.as.Map(m); err != nil {
				t.Fatal(err)
			}
			resume <- struct{}{}
		}
		wg.Wait()
	})

	locked(t, "MapFromManyThreads", func(t *testing.T) {
		g := newProbe(t, p)
		const threads, rounds = 6, 60
		var wg sync.WaitGroup
		for n := range uint64(threads) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				th, err := p.NewThread()
				if err != nil {
					t.Error(err)
					return
				}
				defer th.Release()
				own := &guest{t: t, p: p, as: g.as, th: th, regs: g.regs}
				at := uint64(0x60000000 + n*16*page)
				for i := range uint64(rounds) {
					m := platform.Mapping{Addr: at, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read | platform.Write}
					if err := g.as.Map(m); err != nil {
						t.Error(err)
						return
					}
					if _, ok := own.probe(at, true); !ok {
						t.Errorf("thread %d, round %d: not mapped", n, i)
						return
					}
					if err := g.as.Unmap(at, page); err != nil {
						t.Error(err)
						return
					}
					if _, ok := own.probe(at, false); ok {
						t.Errorf("thread %d, round %d: still mapped", n, i)
						return
					}
				}
			}()
		}
		wg.Wait()
	})
}
