package systrap

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"garrison/platform"

	"golang.org/x/sys/unix"
)

const (
	codeAddr = 0x400000
	dataAddr = 0x600000
)

// A guest is a space with a page of code and one of data.
type guest struct {
	t    *testing.T
	p    *Platform
	as   platform.AddressSpace
	th   platform.Thread
	mem  []byte
	regs platform.Registers
}

func newGuest(t *testing.T, p *Platform, code ...byte) *guest {
	t.Helper()
	runtime.LockOSThread()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	unix.Ftruncate(fd, 2*pageSize)
	g := &guest{t: t, p: p}
	if g.mem, err = unix.Mmap(fd, 0, 2*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	copy(g.mem, code)
	if g.as, err = p.NewAddressSpace(); err != nil {
		t.Fatal(err)
	}
	g.th, _ = p.NewThread()
	g.as.Map(platform.Mapping{Addr: codeAddr, Len: pageSize, FD: fd, Prot: platform.Read | platform.Exec})
	g.as.Map(platform.Mapping{Addr: dataAddr, Len: pageSize, FD: fd, Off: pageSize, Prot: platform.Read | platform.Write})
	if err := g.as.Flush(); err != nil {
		t.Fatal(err)
	}
	g.regs = platform.Registers{Rip: codeAddr, Rsp: dataAddr + pageSize}
	t.Cleanup(func() {
		g.th.Release()
		g.as.Release()
		unix.Munmap(g.mem)
		runtime.UnlockOSThread()
	})
	return g
}

// works wants a fresh guest to run: the platform is unharmed.
func works(t *testing.T, p *Platform) {
	t.Helper()
	g := newGuest(t, p, 0x0f, 0x05)
	g.regs.Rax = 39
	if trap, err := g.th.Run(g.as, &g.regs); err != nil || trap.Kind != platform.TrapSyscall || g.regs.Orig_rax != 39 {
		t.Errorf("another guest: trap %+v, %v", trap, err)
	}
}

// syscallsOf returns where the stub's code page has SYSCALL instructions.
func syscallsOf(p *Platform) (at []uint64) {
	for i := 0; ; {
		n := bytes.Index(p.area.mem[i:pageSize], []byte{0x0f, 0x05})
		if n < 0 {
			return at
		}
		at = append(at, stubCode+uint64(i+n))
		i += n + 2
	}
}

// TestStubCallsOutOfReach jumps to each of the stub's SYSCALL instructions with
// registers that would take over the Sentry: its descriptors are the stub's too.
func TestStubCallsOutOfReach(t *testing.T) {
	p := newPlatform(t)
	g := newGuest(t, p, 0x0f, 0x05)
	good := g.regs
	area := uint64(p.area.fd)
	at := syscallsOf(p)
	if len(at) < 10 {
		t.Fatalf("found %d SYSCALL instructions in the stub", len(at))
	}
	for _, rip := range at {
		for _, call := range [][7]uint64{
			{unix.SYS_MMAP, dataAddr, pageSize, 7, unix.MAP_SHARED | unix.MAP_FIXED, area, 0},
			{unix.SYS_MMAP, dataAddr, pageSize, 7, unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_ANONYMOUS, 0, 0},
			{unix.SYS_MPROTECT, codeAddr, pageSize, 7},
			{unix.SYS_MUNMAP, codeAddr, pageSize},
			{unix.SYS_PWRITE64, area, dataAddr, 4, slotBase},
			{unix.SYS_CLONE, cloneThread},
			{unix.SYS_CLONE, cloneProcess},
			{unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG},
			{unix.SYS_SECCOMP, 1, 0, stubMapperProgram},
			{unix.SYS_SIGALTSTACK, dataAddr},
			{unix.SYS_RT_SIGPROCMASK, 2, stubZeros, 0, 8},
			{unix.SYS_FUTEX, dataAddr, 6},
			{unix.SYS_WRITE, 2, codeAddr, 1}, {unix.SYS_OPENAT}, {unix.SYS_GETPID}, {unix.SYS_PTRACE}, {unix.SYS_PROCESS_VM_WRITEV},
			{unix.SYS_GETTIMEOFDAY, dataAddr}, {unix.SYS_RT_SIGACTION, 11, stubAction, 0, 8}, {unix.SYS_MREMAP, dataAddr}, {1 << 30},
		} {
			g.regs = good
			r := &g.regs
			r.Rip, r.Rax, r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = rip, call[0], call[1], call[2], call[3], call[4], call[5], call[6]
			trap, err := g.th.Run(g.as, r)
			if err != nil || trap.Kind != platform.TrapSyscall || r.Rip != rip+2 || r.Orig_rax != call[0] {
				t.Fatalf("call %d at %#x: trap %+v at %#x, %v", call[0], rip, trap, r.Rip, err)
			}
		}
	}
	works(t, p)
}

// TestStubPagesReadOnly writes to what guests must not write.
func TestStubPagesReadOnly(t *testing.T) {
	p := newPlatform(t)
	g := newGuest(t, p, 0x83, 0x0f, 0x00, 0x0f, 0x05) // or dword [rdi],0; syscall
	for addr := uint64(stubCode); addr < stubVDSO+8*pageSize; addr += pageSize {
		g.regs.Rip, g.regs.Rdi = codeAddr, addr
		if trap, err := g.th.Run(g.as, &g.regs); err != nil || trap.Kind != platform.TrapFault || trap.Addr != addr || trap.Access != platform.Write {
			t.Errorf("a write at %#x: trap %+v, %v", addr, trap, err)
		}
	}
}

// TestStubExit ends the thread behind the Sentry's back.
func TestStubExit(t *testing.T) {
	p := newPlatform(t)
	g := newGuest(t, p)
	g.regs.Rip, g.regs.Rax = syscallsOf(p)[0], unix.SYS_EXIT
	if trap, err := g.th.Run(g.as, &g.regs); err == nil {
		t.Errorf("trap %+v from a thread that ended", trap)
	}
	if _, err := g.th.Run(g.as, &g.regs); err == nil {
		t.Error("and it runs again")
	}
	works(t, p)
}

// TestScribble overwrites the region of a thread, from itself and from another.
func TestScribble(t *testing.T) {
	p := newPlatform(t)
	// again: mov [rdi+rcx*8],rax; dec rcx; jns again; syscall; jmp $-2
	code := []byte{0x48, 0x89, 0x04, 0xcf, 0x48, 0xff, 0xc9, 0x79, 0xf7, 0x0f, 0x05, 0xeb, 0xfc}
	for _, v := range []uint64{0, ^uint64(0), 0x0000000200000002, 0x0000000300000003, 0x1000_0000_2000, 0x2000_0000_0002} {
		for _, other := range []bool{false, true} {
			g := newGuest(t, p, code...)
			fill := g.regs
			fill.Rdi, fill.Rcx, fill.Rax = stubRegions, regionSize/8-1, v
			if !other {
				// What it does to itself ends it, or does nothing.
				for range 3 {
					if _, err := g.th.Run(g.as, &fill); err != nil {
						break
					}
					fill.Rcx = regionSize/8 - 1
					fill.Rip = codeAddr
				}
				continue
			}
			var wg sync.WaitGroup
			wg.Add(1)
			go func() {
				defer wg.Done()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				th, _ := p.NewThread()
				defer th.Release()
				for range 20 {
					fill.Rip, fill.Rcx = codeAddr, regionSize/8-1
					if _, err := th.Run(g.as, &fill); err != nil {
						return
					}
				}
			}()
			g.regs.Rip = codeAddr + 9
			stop := time.AfterFunc(100*time.Millisecond, func() { g.as.Release() })
			for range 50 {
				trap, err := g.th.Run(g.as, &g.regs)
				if err != nil {
					break
				}
				if trap.Signal < 0 || trap.Signal > 64 {
					t.Errorf("trap %+v", trap)
				}
				g.regs.Rip = codeAddr + 9
			}
			g.as.Release()
			wg.Wait()
			stop.Stop()
		}
	}
	works(t, p)
}

// TestBlockedInterrupt returns from a signal of its own making with all signals
// blocked: the Sentry gives the guest up, not itself.
func TestBlockedInterrupt(t *testing.T) {
	defer func(d time.Duration) { stuckTimeout = d }(stuckTimeout)
	stuckTimeout = 300 * time.Millisecond
	p := newPlatform(t)
	g := newGuest(t, p, 0xeb, 0xfe) // jmp $
	// struct ucontext at the start of the data page.
	uc := g.mem[pageSize:]
	put := func(off int, v uint64) { binary.LittleEndian.PutUint64(uc[off:], v) }
	put(24, 2)                              // uc_stack.ss_flags = SS_DISABLE
	put(40+15*8, dataAddr+pageSize)         // rsp
	put(40+16*8, codeAddr)                  // rip
	put(40+17*8, 0x202)                     // eflags
	put(40+18*8, userCS|uint64(userSS)<<48) // cs, gs, fs, ss
	put(296, ^uint64(0))                    // uc_sigmask
	g.regs.Rip, g.regs.Rax, g.regs.Rsp = syscallsOf(p)[0], unix.SYS_RT_SIGRETURN, dataAddr
	time.AfterFunc(200*time.Millisecond, g.th.Interrupt)
	if trap, err := g.th.Run(g.as, &g.regs); err == nil {
		t.Errorf("trap %+v at %#x", trap, g.regs.Rip)
	}
	works(t, p)
}

// TestFilters looks at what the kernel holds of each thread.
func TestFilters(t *testing.T) {
	for _, f := range [][]byte{mapperFilter(7), workerFilter()} {
		if len(f)%8 != 0 || len(f) > 2048 {
			t.Errorf("a filter of %d bytes", len(f))
		}
	}
	if !slices.Contains(handledSignals, unix.SIGSYS) {
		t.Error("SIGSYS is not handled")
	}
}
