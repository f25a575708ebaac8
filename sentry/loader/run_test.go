package loader

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"garrison/abi"
	"garrison/platform"
	"garrison/platform/ptrace"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// A machine runs one program on a real platform, with a handful of system calls.
type machine struct {
	t   *testing.T
	pf  *pagefile.File
	l   *Loader
	out []byte
	nr  map[uint64]int
}

// run runs guest code until it exits; it returns the exit code, or minus the signal.
func (k *machine) run(p platform.Platform, m *mm.MM, regs *platform.Registers) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	th, err := p.NewThread()
	if err != nil {
		k.t.Fatal(err)
	}
	defer th.Release()
	for {
		trap, err := th.Run(m.AddressSpace(), regs)
		if err != nil {
			k.t.Fatal(err)
		}
		switch trap.Kind {
		case platform.TrapFault:
			if ok, code, sig := m.HandleFault(trap.Addr, trap.Access, trap.Signal == abi.SIGBUS); !ok {
				k.t.Logf("fault at %#x, rip %#x: signal %d code %d", trap.Addr, regs.Rip, sig, code)
				return -int(sig)
			}
		case platform.TrapSignal:
			k.t.Logf("signal %d at %#x", trap.Signal, regs.Rip)
			return -int(trap.Signal)
		case platform.TrapSyscall:
			k.nr[regs.Orig_rax]++
			ret, err := uint64(0), error(nil)
			switch regs.Orig_rax {
			case abi.SYS_write:
				b := make([]byte, regs.Rdx)
				var n int
				n, err = m.CopyIn(usermem.Addr(regs.Rsi), b)
				k.out = append(k.out, b[:n]...)
				ret = uint64(n)
			case abi.SYS_writev:
				var rs []usermem.Range
				rs, err = usermem.CopyInRanges(m, usermem.Addr(regs.Rsi), int(regs.Rdx))
				for _, r := range rs {
					b := make([]byte, r.Len)
					n, _ := m.CopyIn(r.Addr, b)
					k.out = append(k.out, b[:n]...)
					ret += uint64(n)
				}
			case abi.SYS_exit, abi.SYS_exit_group:
				return int(regs.Rdi)
			case abi.SYS_brk:
				ret = uint64(m.Brk(usermem.Addr(regs.Rdi)))
			case abi.SYS_mmap:
				var a usermem.Addr
				a, err = m.Mmap(mm.MmapOpts{Addr: usermem.Addr(regs.Rdi), Len: regs.Rsi, Prot: uint32(regs.Rdx), Flags: uint32(regs.R10)})
				ret = uint64(a)
			case abi.SYS_munmap:
				err = m.Munmap(usermem.Addr(regs.Rdi), regs.Rsi)
			case abi.SYS_mprotect:
				err = m.Mprotect(usermem.Addr(regs.Rdi), regs.Rsi, uint32(regs.Rdx))
			case abi.SYS_mremap:
				var a usermem.Addr
				a, err = m.Mremap(usermem.Addr(regs.Rdi), regs.Rsi, regs.Rdx, uint32(regs.R10), usermem.Addr(regs.R8))
				ret = uint64(a)
			case abi.SYS_madvise:
				err = m.Madvise(usermem.Addr(regs.Rdi), regs.Rsi, int32(regs.Rdx))
			case abi.SYS_arch_prctl:
				if regs.Rdi == abi.ARCH_SET_FS {
					regs.Fs_base = regs.Rsi
				} else {
					err = abi.EINVAL
				}
			case abi.SYS_fork, abi.SYS_clone:
				var c *mm.MM
				if c, err = m.Fork(); err != nil {
					break
				}
				cregs := *regs
				cregs.Rax = 0
				done := make(chan int)
				go func() { done <- k.run(p, c, &cregs) }()
				ret = uint64(100 + <-done)
				c.DecUsers()
			case abi.SYS_clock_gettime:
				usermem.CopyOutUint64(m, usermem.Addr(regs.Rsi), 42)
			default:
				err = abi.ENOSYS
			}
			regs.Rax = ret
			if e, ok := err.(abi.Errno); ok {
				regs.Rax = -uint64(e)
			}
		}
	}
}

const runProgram = `
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char data[300000] = { 1, 2, 3 };
static char bss[100000];
extern char **environ;

static int deep(int n) { volatile char a[4096]; a[0] = n; return n ? deep(n - 1) + (a[0] != (char)n) : 0; }

int main(int argc, char **argv)
{
	printf("argc %d %s %s\n", argc, argv[1], environ[0]);
	for (unsigned i = 0; i < sizeof bss; i++)
		if (bss[i]) return 2;
	if (data[2] != 3 || data[299999]) return 3;
	memset(data, 7, sizeof data);
	if (deep(500)) return 4;
	char *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset(p, 1, 1 << 20);
	long r = syscall(SYS_fork);
	if (r == 0) {
		memset(p, 2, 1 << 19);
		s[0] = 9;
		_exit(p[0] + p[1 << 19] + data[5]);
	}
	if (r != 100 + 2 + 1 + 7) { printf("child %ld\n", r); return 5; }
	if (p[0] != 1 || s[0] != 9) return 6;
	memset(p, 3, 1 << 20);
	p = mremap(p, 1 << 20, 1 << 22, MREMAP_MAYMOVE);
	if (p[5] != 3 || p[(1 << 22) - 1]) return 7;
	madvise(p, 1 << 22, MADV_DONTNEED);
	if (p[5]) return 8;
	mprotect(p, 4096, PROT_READ);
	if (p[0]) return 9;
	free(malloc(50 << 20));
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < 1000; i++) clock_gettime(CLOCK_MONOTONIC, &b);
	printf("clock %s\n", a.tv_sec <= b.tv_sec && a.tv_sec ? "runs" : "stands");
	fflush(stdout);
	p[0] = 1; /* killed */
	return 10;
}
`

// TestRun runs a real program on the ptrace platform.
func TestRun(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no gcc")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "p.c")
	os.WriteFile(src, []byte(runProgram), 0o644)
	p, err := ptrace.New()
	if err != nil {
		t.Skipf("no ptrace: %v", err)
	}
	defer p.Close()
	for _, mode := range []string{"-static", "-static-pie"} {
		t.Run(mode, func(t *testing.T) {
			bin := filepath.Join(dir, "p"+mode)
			if msg, err := exec.Command("gcc", "-O1", "-w", mode, "-o", bin, src).CombinedOutput(); err != nil {
				t.Fatalf("gcc: %v\n%s", err, msg)
			}
			b, err := os.ReadFile(bin)
			if err != nil {
				t.Fatal(err)
			}
			pf := newPF(t)
			l, err := New(pf, p)
			if err != nil {
				t.Fatal(err)
			}
			m, err := mm.New(p, pf)
			if err != nil {
				t.Fatal(err)
			}
			defer m.DecUsers()
			f := newFile(t, b)
			defer f.DecRef()
			info, err := l.Load(nil, m, Args{File: f, Path: bin, Argv: []string{"p", "hello"}, Envv: []string{"X=y"}, Open: hostOpen(t), StackLimit: 8 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer info.File.DecRef()
			k := &machine{t: t, pf: pf, l: l, nr: map[uint64]int{}}
			regs := &platform.Registers{Rip: uint64(info.Entry), Rsp: uint64(info.StackPtr), Eflags: 0x202, Cs: 0x33, Ss: 0x2b}
			code := k.run(p, m, regs)
			if want := "argc 2 hello X=y\nclock runs\n"; string(k.out) != want || code != -abi.SIGSEGV {
				t.Errorf("output %q, status %d; want %q and SIGSEGV", k.out, code, want)
				for _, v := range m.Maps() {
					t.Logf("%x-%x %s", v.Start, v.End, v.Name)
				}
			}
			// glibc may need the time before it has found the vDSO.
			if n := k.nr[abi.SYS_clock_gettime]; n > 10 && p.Layout().ClockGettime != 0 {
				t.Errorf("clock_gettime made %d system calls", n)
			}
		})
	}
}

// BenchmarkLoad is the Sentry's share of execve: a dynamic program into a new
// address space, and the old one's release.
func BenchmarkLoad(b *testing.B) { benchSpace(b, func(m *mm.MM) {}) }

// BenchmarkFork is the Sentry's share of fork and exit.
func BenchmarkFork(b *testing.B) {
	var first *mm.MM
	benchSpace(b, func(m *mm.MM) {
		if first == nil {
			m.IncUsers()
			first = m
		}
		c, err := first.Fork()
		if err != nil {
			b.Fatal(err)
		}
		c.Flush()
		c.DecUsers()
	})
	first.DecUsers()
}

func benchSpace(b *testing.B, each func(m *mm.MM)) {
	img, err := os.ReadFile("/bin/sh")
	if err != nil {
		b.Skip("no /bin/sh")
	}
	p, err := ptrace.New()
	if err != nil {
		b.Skip(err)
	}
	defer p.Close()
	pf := newPF(b)
	l, err := New(pf, p)
	if err != nil {
		b.Fatal(err)
	}
	f := newFile(b, img)
	defer f.DecRef()
	ld, err := os.ReadFile("/lib64/ld-linux-x86-64.so.2")
	if err != nil {
		b.Skip(err)
	}
	interp := newFile(b, ld)
	args := Args{File: f, Path: "sh", Argv: []string{"sh"}, StackLimit: 8 << 20, Open: func(string) (*vfs.File, error) { interp.IncRef(); return interp, nil }}
	b.ReportAllocs()
	var one *mm.MM
	for b.Loop() {
		m := one
		if m == nil {
			m, err = mm.New(p, pf)
			if err != nil {
				b.Fatal(err)
			}
			info, err := l.Load(nil, m, args)
			if err != nil {
				b.Fatal(err)
			}
			info.File.DecRef()
			m.Flush()
			if b.Name() == "BenchmarkFork" {
				one = m
			}
		}
		each(m)
		if one == nil {
			m.DecUsers()
		}
	}
	if one != nil {
		one.DecUsers()
	}
}
