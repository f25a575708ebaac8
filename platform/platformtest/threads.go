package platformtest

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"garrison/abi"
	"garrison/platform"
)

// Offsets in the XSAVE area.
const (
	fpMXCSR   = 24
	fpXMM3    = 160 + 3*16
	fpYMM2    = 576 + 2*16
	fpAVXSize = 576 + 256
)

// setXMM3 is movq xmm3,rdi; syscall; movq rsi,xmm3; syscall.
var setXMM3 = cat([]byte{0x66, 0x48, 0x0f, 0x6e, 0xdf}, syscallInsn, []byte{0x66, 0x48, 0x0f, 0x7e, 0xde}, syscallInsn)

func testThreads(t *testing.T, p platform.Platform) {
	locked(t, "FPInitial", func(t *testing.T) {
		g := newGuest(t, p, setXMM3...)
		check := func(what string) {
			t.Helper()
			fp := make([]byte, g.th.FPState(nil))
			g.th.FPState(fp)
			if fcw := binary.LittleEndian.Uint16(fp); fcw != 0x37f {
				t.Errorf("%s: x87 control word %#x", what, fcw)
			}
			if mxcsr := binary.LittleEndian.Uint32(fp[fpMXCSR:]); mxcsr != 0x1f80 {
				t.Errorf("%s: MXCSR %#x", what, mxcsr)
			}
			if v := binary.LittleEndian.Uint64(fp[fpXMM3:]); v != 0 {
				t.Errorf("%s: xmm3 %#x", what, v)
			}
		}
		check("before the first run")
		g.regs.Rdi = 99
		g.run()
		if err := g.th.SetFPState(nil); err != nil {
			t.Fatal(err)
		}
		check("after SetFPState(nil)")
		g.run()
		if g.regs.Rsi != 0 {
			t.Errorf("the guest's xmm3 is %#x after SetFPState(nil)", g.regs.Rsi)
		}
		// A thread that comes after another has nothing of it.
		g.regs.Rip = codeAddr
		g.run()
		g.th.Release()
		var err error
		if g.th, err = p.NewThread(); err != nil {
			t.Fatal(err)
		}
		g.run()
		if g.regs.Rsi != 0 {
			t.Errorf("xmm3 is %#x in a new thread", g.regs.Rsi)
		}
		check("in a new thread")
	})

	locked(t, "FPKeptOverSpaces", func(t *testing.T) {
		g := newGuest(t, p, setXMM3...)
		g.regs.Rdi = 1234
		g.run()
		old := g.as
		g.as = g.space()
		g.run()
		old.Release()
		if g.regs.Rsi != 1234 {
			t.Errorf("xmm3 is %d", g.regs.Rsi)
		}
	})

	locked(t, "AVXKept", func(t *testing.T) {
		// vpcmpeqd ymm2,ymm2,ymm2; syscall; vextracti128 xmm0,ymm2,1; movq rsi,xmm0; syscall
		g := newGuest(t, p, cat([]byte{0xc5, 0xed, 0x76, 0xd2}, syscallInsn,
			[]byte{0xc4, 0xe3, 0x7d, 0x39, 0xd0, 0x01, 0x66, 0x48, 0x0f, 0x7e, 0xc6}, syscallInsn)...)
		if trap := g.run(); trap.Signal == abi.SIGILL {
			t.Skip("this CPU has no AVX2")
		}
		fp := make([]byte, g.th.FPState(nil))
		g.th.FPState(fp)
		if len(fp) < fpAVXSize {
			t.Fatalf("the state has %d bytes", len(fp))
		}
		if v := binary.LittleEndian.Uint64(fp[fpYMM2:]); v != ^uint64(0) {
			t.Errorf("the upper half of ymm2 is %#x", v)
		}
		binary.LittleEndian.PutUint64(fp[fpYMM2:], 55)
		if err := g.th.SetFPState(fp); err != nil {
			t.Fatal(err)
		}
		g.run()
		if g.regs.Rsi != 55 {
			t.Errorf("the upper half of ymm2 became %#x, want 55", g.regs.Rsi)
		}
	})

	locked(t, "HostileRegisters", func(t *testing.T) {
		g := newGuest(t, p, syscallInsn...)
		good := g.regs
		for _, v := range []uint64{^uint64(0), 0, 1 << 63, 1 << 47, 0xffffffff81000000, 0xdead} {
			for _, f := range []func(*platform.Registers) *uint64{
				func(r *platform.Registers) *uint64 { return &r.Rip },
				func(r *platform.Registers) *uint64 { return &r.Rsp },
				func(r *platform.Registers) *uint64 { return &r.Cs },
				func(r *platform.Registers) *uint64 { return &r.Ss },
				func(r *platform.Registers) *uint64 { return &r.Ds },
				func(r *platform.Registers) *uint64 { return &r.Fs },
				func(r *platform.Registers) *uint64 { return &r.Gs },
				func(r *platform.Registers) *uint64 { return &r.Fs_base },
				func(r *platform.Registers) *uint64 { return &r.Gs_base },
				func(r *platform.Registers) *uint64 { return &r.Eflags },
				func(r *platform.Registers) *uint64 { return &r.Orig_rax },
			} {
				g.regs = good
				*f(&g.regs) = v
				g.run() // any trap will do
			}
		}
		g.regs = good
		g.regs.Rax = 3
		g.syscall(3)
	})

	locked(t, "JumpIntoThePlatform", func(t *testing.T) {
		// Whatever code a guest finds above its own addresses: it stays a guest.
		g := newGuest(t, p, syscallInsn...)
		good := g.regs
		for off := uint64(0); off < 2*page; off += 0x40 {
			g.regs = good
			g.regs.Rip = p.Layout().Max + off
			g.regs.Rax = 39
			end := time.AfterFunc(5*time.Millisecond, g.th.Interrupt)
			if trap := g.run(); trap.Kind == platform.TrapSyscall && g.regs.Rip-2 < p.Layout().Max {
				t.Errorf("trap %+v at %#x", trap, g.regs.Rip)
			}
			end.Stop()
		}
		for trap := (platform.Trap{}); trap.Kind == platform.TrapInterrupted; { // late ones, maybe
			g.regs = good
			g.regs.Rax = 4
			trap = g.run()
		}
		if g.regs.Orig_rax != 4 {
			t.Errorf("the guest made system call %d", g.regs.Orig_rax)
		}
	})

	locked(t, "InterruptStorm", func(t *testing.T) {
		g := newGuest(t, p, cat(syscallInsn, []byte{0xeb, 0xfc})...)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for !stop.Load() {
					g.th.Interrupt()
					runtime.Gosched()
				}
			}()
		}
		interrupts, calls := 0, 0
		for interrupts+calls < 2000 {
			switch trap := g.run(); trap.Kind {
			case platform.TrapInterrupted:
				interrupts++
			case platform.TrapSyscall:
				calls++
				g.regs.Rax = 7
			default:
				t.Fatalf("trap %+v", trap)
			}
		}
		stop.Store(true)
		wg.Wait()
		if interrupts == 0 {
			t.Error("no run was interrupted")
		}
		// None is lost: the last one ends a loop that never traps.
		copy(g.mem[codeOff+64:], spin)
		for range 100 {
			g.regs.Rip = codeAddr + 64
			go g.th.Interrupt()
			if trap := g.run(); trap.Kind != platform.TrapInterrupted {
				t.Fatalf("trap %+v", trap)
			}
		}
	})

	locked(t, "ReleaseWhileOthersExist", func(t *testing.T) {
		a := newGuest(t, p, cat(syscallInsn, []byte{0xeb, 0xfc})...)
		b := newGuest(t, p, cat(syscallInsn, []byte{0xeb, 0xfc})...)
		for i := range uint64(20) {
			a.regs.Rax, b.regs.Rax = i, i
			a.syscall(i)
			b.syscall(i)
			b.th.Release()
			b.as.Release()
			b.as = b.space()
			var err error
			if b.th, err = p.NewThread(); err != nil {
				t.Fatal(err)
			}
			b.regs.Rip = codeAddr
		}
	})

	locked(t, "SpaceReleasedBeforeThread", func(t *testing.T) {
		g := newGuest(t, p, syscallInsn...)
		g.run()
		g.as.Release()
		g.as.Release() // idempotent
		g.th.Interrupt()
		g.as = g.space()
		g.regs.Rip = codeAddr
		if trap := g.run(); trap.Kind != platform.TrapInterrupted {
			t.Errorf("trap %+v", trap)
		}
		g.regs.Rax = 9
		g.syscall(9)
	})

	locked(t, "ThreadsComeAndGo", func(t *testing.T) {
		g := newGuest(t, p, cat(syscallInsn, []byte{0xeb, 0xfc})...)
		for range 10 {
			var wg sync.WaitGroup
			for range 8 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					runtime.LockOSThread() // and the OS thread ends with the goroutine
					th, err := p.NewThread()
					if err != nil {
						t.Error(err)
						return
					}
					defer th.Release()
					regs := g.regs
					for range 5 {
						if trap, err := th.Run(g.as, &regs); err != nil || trap.Kind != platform.TrapSyscall {
							t.Errorf("trap %+v, %v", trap, err)
							return
						}
					}
				}()
			}
			wg.Wait()
		}
		g.regs.Rax = 8
		g.syscall(8)
	})
}
