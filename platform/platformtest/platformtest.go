// Package platformtest is the conformance suite that every platform passes.
//
// It runs small pieces of hand-assembled guest code through the three
// interfaces of package platform, and needs no Sentry. It is not a benchmark of
// the Sentry, but measures what a trap costs on a platform.
//
// It has no locks.
package platformtest

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"time"

	"garrison/abi"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// Guest addresses that the tests use.
const (
	codeAddr  = 0x400000
	dataAddr  = 0x600000
	stackAddr = 0x7f0000
	page      = 4096
)

// A guest is an address space with a page of code, data and stack.
type guest struct {
	t    *testing.T
	p    platform.Platform
	as   platform.AddressSpace
	th   platform.Thread
	fd   int
	mem  []byte // the memfd in the test
	regs platform.Registers
}

// Offsets of the guest's pages in its memfd.
const (
	codeOff, dataOff, stackOff, spareOff = 0, page, 2 * page, 3 * page
	memSize                              = 16 * page
)

func newGuest(t *testing.T, p platform.Platform, code ...byte) *guest {
	t.Helper()
	g := &guest{t: t, p: p}
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	g.fd = fd
	if err := unix.Ftruncate(fd, memSize); err != nil {
		t.Fatal(err)
	}
	if g.mem, err = unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	copy(g.mem[codeOff:], code)
	g.as = g.space()
	if g.th, err = p.NewThread(); err != nil {
		t.Fatal(err)
	}
	g.regs = platform.Registers{Rip: codeAddr, Rsp: stackAddr + page, Cs: 0x33, Ss: 0x2b, Eflags: 0x202}
	t.Cleanup(func() {
		g.th.Release()
		g.as.Release()
		unix.Munmap(g.mem)
		unix.Close(fd)
	})
	return g
}

// space makes an address space with the guest's pages.
func (g *guest) space() platform.AddressSpace {
	g.t.Helper()
	as, err := g.p.NewAddressSpace()
	if err != nil {
		g.t.Fatalf("NewAddressSpace: %v", err)
	}
	for _, m := range []platform.Mapping{
		{Addr: codeAddr, Len: page, FD: g.fd, Off: codeOff, Prot: platform.Read | platform.Exec},
		{Addr: dataAddr, Len: page, FD: g.fd, Off: dataOff, Prot: platform.Read | platform.Write},
		{Addr: stackAddr, Len: page, FD: g.fd, Off: stackOff, Prot: platform.Read | platform.Write},
	} {
		if err := as.Map(m); err != nil {
			g.t.Fatalf("Map(%+v): %v", m, err)
		}
	}
	return as
}

// run runs until a trap.
func (g *guest) run() platform.Trap {
	g.t.Helper()
	trap, err := g.th.Run(g.as, &g.regs)
	if err != nil {
		g.t.Fatalf("Run: %v", err)
	}
	return trap
}

// syscall runs and wants a system call.
func (g *guest) syscall(nr uint64) {
	g.t.Helper()
	if trap := g.run(); trap.Kind != platform.TrapSyscall || g.regs.Orig_rax != nr {
		g.t.Fatalf("trap %+v with Orig_rax %d at %#x, want system call %d", trap, g.regs.Orig_rax, g.regs.Rip, nr)
	}
}

// fault runs and wants a fault.
func (g *guest) fault(addr uint64, sig int32) platform.Trap {
	g.t.Helper()
	trap := g.run()
	if trap.Kind != platform.TrapFault || trap.Addr != addr || trap.Signal != sig {
		g.t.Fatalf("trap %+v at %#x, want a fault at %#x with signal %d", trap, g.regs.Rip, addr, sig)
	}
	return trap
}

// Pieces of code.
var (
	syscallInsn = []byte{0x0f, 0x05}
	spin        = []byte{0xeb, 0xfe}
)

func movEAX(n uint32) []byte {
	return append([]byte{0xb8}, binary.LittleEndian.AppendUint32(nil, n)...)
}
func movRAX(n uint64) []byte {
	return append([]byte{0x48, 0xb8}, binary.LittleEndian.AppendUint64(nil, n)...)
}
func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// locked runs f as a subtest on a locked operating system thread, as the
// platform's contract demands.
func locked(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		runtime.LockOSThread()
		t.Cleanup(runtime.UnlockOSThread) // runs after the guests' cleanups
		f(t)
	})
}

// Run runs the suite on p.
func Run(t *testing.T, p platform.Platform) {
	testTraps(t, p)
	testMemory(t, p)
	testThreads(t, p)
}

func testTraps(t *testing.T, p platform.Platform) {
	locked(t, "SyscallTrap", func(t *testing.T) {
		g := newGuest(t, p, cat(movEAX(39), syscallInsn, movEAX(40), syscallInsn)...)
		g.regs.Rdi, g.regs.Rsi, g.regs.Rdx, g.regs.R10, g.regs.R8, g.regs.R9 = 1, 2, 3, 4, 5, 6
		g.syscall(39)
		if g.regs.Rip != codeAddr+7 {
			t.Errorf("Rip = %#x, want %#x", g.regs.Rip, codeAddr+7)
		}
		enosys := uint64(abi.ENOSYS)
		if g.regs.Rax != -enosys {
			t.Errorf("Rax = %#x, want -ENOSYS", g.regs.Rax)
		}
		for i, v := range []uint64{g.regs.Rdi, g.regs.Rsi, g.regs.Rdx, g.regs.R10, g.regs.R8, g.regs.R9} {
			if v != uint64(i)+1 {
				t.Errorf("argument %d = %d", i, v)
			}
		}
		g.regs.Rax = 123
		g.syscall(40)
	})

	locked(t, "RegistersKept", func(t *testing.T) {
		g := newGuest(t, p, cat(syscallInsn, syscallInsn)...)
		set := func(base uint64) {
			r := &g.regs
			for i, x := range []*uint64{&r.R15, &r.R14, &r.R13, &r.R12, &r.Rbp, &r.Rbx, &r.R10, &r.R9, &r.R8, &r.Rax, &r.Rdx, &r.Rsi, &r.Rdi} {
				*x = base + uint64(i)
			}
			r.Fs_base, r.Gs_base = dataAddr+8, dataAddr+16
		}
		set(0x1111_2222_3333_0000)
		want := g.regs
		g.run()
		want.Orig_rax, want.Rip, want.Rax, want.Rcx, want.R11 = want.Rax, codeAddr+2, g.regs.Rax, codeAddr+2, g.regs.R11
		want.Eflags, want.Ds, want.Es, want.Fs, want.Gs = g.regs.Eflags, g.regs.Ds, g.regs.Es, g.regs.Fs, g.regs.Gs
		if g.regs != want {
			t.Errorf("registers\n got %+v\nwant %+v", g.regs, want)
		}
		set(0x7777_0000_1111_0000)
		g.regs.Rax = 60
		g.syscall(60)
	})

	locked(t, "RestartErrorsInRax", func(t *testing.T) {
		// A result that looks like the host's internal restart codes is just a number.
		g := newGuest(t, p, cat(syscallInsn, []byte{0x48, 0x89, 0xc7}, movEAX(1), syscallInsn)...) // mov rdi,rax
		g.regs.Rax = 39
		g.syscall(39)
		for i := range uint64(6) {
			g.regs.Rax, g.regs.Rip = -(512 + i), codeAddr+2
			g.th.Interrupt()
			if trap := g.run(); trap.Kind != platform.TrapInterrupted {
				t.Fatalf("trap %+v, want interrupted", trap)
			}
			g.syscall(1)
			if g.regs.Rdi != -(512 + i) {
				t.Errorf("Rdi = %#x, want %#x", g.regs.Rdi, -(512 + i))
			}
		}
	})

	locked(t, "FaultUnmapped", func(t *testing.T) {
		g := newGuest(t, p, cat([]byte{0x48, 0x8b, 0x07}, syscallInsn)...) // mov rax,[rdi]
		g.regs.Rdi = 0x10000000
		g.fault(0x10000000, abi.SIGSEGV)
		if g.regs.Rip != codeAddr {
			t.Errorf("Rip = %#x, want the faulting instruction", g.regs.Rip)
		}
		if err := g.as.Map(platform.Mapping{Addr: 0x10000000, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read}); err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint64(g.mem[spareOff:], 231)
		g.syscall(231)
	})

	locked(t, "FaultWriteReadOnly", func(t *testing.T) {
		g := newGuest(t, p, cat([]byte{0x48, 0x89, 0x07}, syscallInsn)...) // mov [rdi],rax
		g.regs.Rdi, g.regs.Rax = dataAddr, 77
		if err := g.as.Protect(dataAddr, page, platform.Read); err != nil {
			t.Fatal(err)
		}
		if trap := g.fault(dataAddr, abi.SIGSEGV); trap.Access != 0 && trap.Access != platform.Write {
			t.Errorf("access %v, want a write or unknown", trap.Access)
		}
		if err := g.as.Protect(dataAddr, page, platform.Read|platform.Write); err != nil {
			t.Fatal(err)
		}
		g.syscall(77)
		if got := binary.LittleEndian.Uint64(g.mem[dataOff:]); got != 77 {
			t.Errorf("memory holds %d, want 77", got)
		}
	})

	locked(t, "FaultExec", func(t *testing.T) {
		g := newGuest(t, p)
		g.regs.Rip = dataAddr
		if trap := g.fault(dataAddr, abi.SIGSEGV); trap.Access&^platform.Exec&^platform.Read != 0 {
			t.Errorf("access %v", trap.Access)
		}
	})

	locked(t, "FaultBeyondFile", func(t *testing.T) {
		g := newGuest(t, p, 0x48, 0x8b, 0x07) // mov rax,[rdi]
		if err := g.as.Map(platform.Mapping{Addr: 0x20000000, Len: 2 * page, FD: g.fd, Off: memSize - page, Prot: platform.Read}); err != nil {
			t.Fatal(err)
		}
		g.regs.Rdi = 0x20000000 + page + 8
		g.fault(0x20000000+page+8, abi.SIGBUS)
	})

	for _, tc := range []struct {
		name         string
		code         []byte
		sig, sigcode int32
		addr         uint64
	}{
		{"UD2", []byte{0x0f, 0x0b}, abi.SIGILL, abi.ILL_ILLOPN, codeAddr},
		{"DivideByZero", []byte{0x31, 0xc9, 0x31, 0xc0, 0x99, 0xf7, 0xf9}, abi.SIGFPE, abi.FPE_INTDIV, codeAddr + 5},
		{"Int3", []byte{0xcc}, abi.SIGTRAP, abi.SI_KERNEL, 0},
		{"HLT", []byte{0xf4}, abi.SIGSEGV, abi.SI_KERNEL, 0},
		{"IN", []byte{0xec}, abi.SIGSEGV, abi.SI_KERNEL, 0},
		{"NonCanonical", cat(movRAX(0x8000_0000_0000_0000), []byte{0x48, 0x8b, 0x00}), abi.SIGSEGV, abi.SI_KERNEL, 0},
		{"Int80", []byte{0xcd, 0x80}, abi.SIGSEGV, abi.SI_KERNEL, 0},
	} {
		locked(t, tc.name, func(t *testing.T) {
			g := newGuest(t, p, tc.code...)
			trap := g.run()
			want := platform.Trap{Kind: platform.TrapSignal, Signal: tc.sig, Code: tc.sigcode, Addr: tc.addr}
			if trap != want {
				t.Errorf("trap %+v, want %+v", trap, want)
			}
		})
	}

	locked(t, "SingleStep", func(t *testing.T) {
		g := newGuest(t, p, 0x90, 0x90, 0x90)
		g.regs.Eflags |= 0x100
		trap := g.run()
		if trap.Kind != platform.TrapSignal || trap.Signal != abi.SIGTRAP || trap.Code != abi.TRAP_TRACE {
			t.Fatalf("trap %+v, want TRAP_TRACE", trap)
		}
		if g.regs.Rip != codeAddr+1 {
			t.Errorf("Rip = %#x, want %#x", g.regs.Rip, codeAddr+1)
		}
	})

	locked(t, "FPStateKept", func(t *testing.T) {
		// movq xmm3,rdi; syscall; movq rsi,xmm3; syscall
		g := newGuest(t, p, cat([]byte{0x66, 0x48, 0x0f, 0x6e, 0xdf}, syscallInsn, []byte{0x66, 0x48, 0x0f, 0x7e, 0xde}, syscallInsn)...)
		g.regs.Rdi = 0x1234_5678_9abc_def0
		g.run()
		n := g.th.FPState(nil)
		fp := make([]byte, n)
		if g.th.FPState(fp) != n {
			t.Fatal("FPState's length changes")
		}
		const xmm3 = 160 + 3*16
		if got := binary.LittleEndian.Uint64(fp[xmm3:]); got != g.regs.Rdi {
			t.Errorf("xmm3 = %#x, want %#x", got, g.regs.Rdi)
		}
		binary.LittleEndian.PutUint64(fp[xmm3:], 42)
		if err := g.th.SetFPState(fp); err != nil {
			t.Fatal(err)
		}
		g.run()
		if g.regs.Rsi != 42 {
			t.Errorf("rsi = %d, want 42", g.regs.Rsi)
		}
		// A hostile state does not hurt: it loads or gives an error.
		for i := range fp {
			fp[i] = 0xff
		}
		if err := g.th.SetFPState(fp); err != nil && err != abi.EINVAL {
			t.Errorf("SetFPState of garbage: %v", err)
		}
		if err := g.th.SetFPState(nil); err != nil {
			t.Errorf("SetFPState(nil): %v", err)
		}
	})

	locked(t, "FSGSBase", func(t *testing.T) {
		// mov rax,fs:[0]; mov rdi,gs:[0]; syscall
		g := newGuest(t, p, cat([]byte{0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, []byte{0x65, 0x48, 0x8b, 0x3c, 0x25, 0, 0, 0, 0}, syscallInsn)...)
		binary.LittleEndian.PutUint64(g.mem[dataOff+8:], 11)
		binary.LittleEndian.PutUint64(g.mem[dataOff+16:], 22)
		g.regs.Fs_base, g.regs.Gs_base = dataAddr+8, dataAddr+16
		g.syscall(11)
		if g.regs.Rdi != 22 {
			t.Errorf("gs:[0] = %d, want 22", g.regs.Rdi)
		}
	})

	locked(t, "InterruptBefore", func(t *testing.T) {
		g := newGuest(t, p, spin...)
		g.th.Interrupt()
		g.th.Interrupt()
		if trap := g.run(); trap.Kind != platform.TrapInterrupted {
			t.Fatalf("trap %+v", trap)
		}
	})

	locked(t, "InterruptDuring", func(t *testing.T) {
		g := newGuest(t, p, spin...)
		for range 50 {
			time.AfterFunc(time.Millisecond, g.th.Interrupt)
			if trap := g.run(); trap.Kind != platform.TrapInterrupted {
				t.Fatalf("trap %+v", trap)
			}
			if g.regs.Rip != codeAddr {
				t.Fatalf("Rip = %#x", g.regs.Rip)
			}
		}
	})

	locked(t, "SwitchAddressSpace", func(t *testing.T) {
		g := newGuest(t, p, cat(syscallInsn, syscallInsn)...)
		g.regs.Rax = 5
		g.syscall(5)
		other := g.space()
		old := g.as
		g.as = other
		g.regs.Rax = 6
		old.Release()
		g.syscall(6)
	})

	locked(t, "ChangeMappingsWhileRunning", func(t *testing.T) {
		g := newGuest(t, p, cat([]byte{0x48, 0x8b, 0x07}, []byte{0xeb, 0xfb})...) // again: mov rax,[rdi]; jmp again
		g.regs.Rdi = dataAddr
		go func() {
			time.Sleep(5 * time.Millisecond)
			if err := g.as.Unmap(dataAddr, page); err != nil {
				t.Error(err)
			}
		}()
		g.fault(dataAddr, abi.SIGSEGV)
	})

	locked(t, "UnmapMapProtectRanges", func(t *testing.T) {
		g := newGuest(t, p, 0x48, 0x8b, 0x07)
		const base = 0x30000000
		for i := range uint64(4) {
			if i == 2 {
				continue
			}
			if err := g.as.Map(platform.Mapping{Addr: base + i*page, Len: page, FD: g.fd, Off: spareOff, Prot: platform.Read}); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.as.Protect(base, 4*page, platform.Read|platform.Write); err != nil {
			t.Fatalf("Protect over a hole: %v", err)
		}
		if err := g.as.Unmap(base+page, page); err != nil {
			t.Fatal(err)
		}
		g.regs.Rdi = base + page
		g.fault(base+page, abi.SIGSEGV)
		g.regs.Rdi = base + 2*page
		g.fault(base+2*page, abi.SIGSEGV)
		l := p.Layout()
		for _, bad := range []uint64{0, l.Max, l.Max - page + 1, ^uint64(0) &^ (page - 1)} {
			if err := g.as.Map(platform.Mapping{Addr: bad, Len: page, FD: g.fd, Prot: platform.Read}); err != abi.EINVAL {
				t.Errorf("Map at %#x: %v, want EINVAL", bad, err)
			}
			if err := g.as.Unmap(bad, 2*page); err != abi.EINVAL {
				t.Errorf("Unmap at %#x: %v, want EINVAL", bad, err)
			}
		}
	})

	locked(t, "ManyThreads", func(t *testing.T) {
		// lock inc qword [rdi]; syscall; jmp back
		g := newGuest(t, p, cat([]byte{0xf0, 0x48, 0xff, 0x07}, syscallInsn, []byte{0xeb, 0xf8})...)
		const threads, rounds = 20, 50
		var wg sync.WaitGroup
		for range threads {
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
				regs := g.regs
				regs.Rdi = dataAddr
				for range rounds {
					if trap, err := th.Run(g.as, &regs); err != nil || trap.Kind != platform.TrapSyscall {
						t.Errorf("trap %+v, %v", trap, err)
						return
					}
				}
			}()
		}
		wg.Wait()
		if got := binary.LittleEndian.Uint64(g.mem[dataOff:]); got != threads*rounds {
			t.Errorf("counted %d, want %d", got, threads*rounds)
		}
	})

	locked(t, "HostClock", func(t *testing.T) {
		at := p.Layout().ClockGettime
		if at == 0 {
			t.Skip("this platform has no host vDSO")
		}
		// call rax; syscall
		g := newGuest(t, p, cat([]byte{0xff, 0xd0}, syscallInsn)...)
		g.regs.Rax, g.regs.Rdi, g.regs.Rsi = at, unix.CLOCK_MONOTONIC, dataAddr
		var before unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		g.syscall(0)
		sec, nsec := binary.LittleEndian.Uint64(g.mem[dataOff:]), binary.LittleEndian.Uint64(g.mem[dataOff+8:])
		if d := time.Duration(int64(sec)-before.Sec)*time.Second + time.Duration(int64(nsec)-before.Nsec); d < 0 || d > 10*time.Second {
			t.Errorf("the guest's clock is %v off", d)
		}
	})

	locked(t, "ManySpaces", func(t *testing.T) {
		for i := range 300 {
			as, err := p.NewAddressSpace()
			if err != nil {
				t.Fatalf("space %d: %v", i, err)
			}
			as.Release()
		}
	})
}

// Benchmark measures a trap's round trip and the life of an address space.
func Benchmark(b *testing.B, p platform.Platform) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	unix.Ftruncate(fd, page)
	unix.Pwrite(fd, cat(syscallInsn, []byte{0xeb, 0xfc}), 0)
	space := func() platform.AddressSpace {
		as, err := p.NewAddressSpace()
		if err != nil {
			b.Fatal(err)
		}
		if err := as.Map(platform.Mapping{Addr: codeAddr, Len: page, FD: fd, Prot: platform.Read | platform.Exec}); err != nil {
			b.Fatal(err)
		}
		return as
	}
	regs := platform.Registers{Rip: codeAddr, Cs: 0x33, Ss: 0x2b, Eflags: 0x202}
	once := func(b *testing.B, th platform.Thread, as platform.AddressSpace, r *platform.Registers) {
		if trap, err := th.Run(as, r); err != nil || trap.Kind != platform.TrapSyscall {
			b.Fatalf("trap %+v, %v", trap, err)
		}
	}
	b.Run("Syscall", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		as := space()
		defer as.Release()
		th, _ := p.NewThread()
		defer th.Release()
		r := regs
		b.ReportAllocs()
		for b.Loop() {
			once(b, th, as, &r)
			r.Rax = 0
		}
	})
	b.Run("AddressSpace", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for b.Loop() {
			as := space()
			th, _ := p.NewThread()
			r := regs
			once(b, th, as, &r)
			th.Release()
			as.Release()
		}
	})
}
