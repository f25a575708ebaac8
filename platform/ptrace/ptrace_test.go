package ptrace

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"garrison/abi"
	"garrison/platform"
	"garrison/platform/hoststub"
	"garrison/platform/platformtest"

	"golang.org/x/sys/unix"
)

func newPlatform(t testing.TB) *Platform {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestConformance(t *testing.T) { platformtest.Run(t, newPlatform(t)) }

func BenchmarkPlatform(b *testing.B) { platformtest.Benchmark(b, newPlatform(b)) }

// children returns the ids of our child processes.
func children(t *testing.T) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			id, _, _ := strings.Cut(string(b), " ")
			n, _ := strconv.Atoi(id)
			pids = append(pids, n)
		}
	}
	return pids
}

func descriptors(t *testing.T) int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// TestNoLeaks makes many spaces and looks at what is left.
func TestNoLeaks(t *testing.T) {
	descriptors(t) // the first makes some for Go's poller
	fds := descriptors(t)
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	for range 1000 {
		as, err := p.NewAddressSpace()
		if err != nil {
			t.Fatal(err)
		}
		as.Release()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	for i := 0; ; i++ {
		n := len(children(t))
		if n <= poolSize+2 { // the zygote, and one that is being made
			break
		}
		if i == 100 {
			t.Errorf("%d processes are left", n)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.Close()
	if n := len(children(t)); n != 0 {
		t.Errorf("%d processes are left after Close", n)
	}
	if after := descriptors(t); after > fds {
		t.Errorf("%d descriptors after Close, %d before New", after, fds)
	}
}

// A guest is a space with a page of code, and a thread.
type guest struct {
	as   platform.AddressSpace
	th   *thread
	regs platform.Registers
}

const codeAddr = 0x400000

func newGuest(t *testing.T, p *Platform, code ...byte) *guest {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	unix.Ftruncate(fd, pageSize)
	unix.Pwrite(fd, code, 0)
	as, err := p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	if err := as.Map(platform.Mapping{Addr: codeAddr, Len: pageSize, FD: fd, Prot: platform.Read | platform.Exec}); err != nil {
		t.Fatal(err)
	}
	return &guest{as: as, th: newThread(p), regs: platform.Registers{Rip: codeAddr, Eflags: eflagsFixed}}
}

var spinCode = []byte{0xeb, 0xfe}

// TestKilledStub has a stub killed by the host: Run says so, and only there.
func TestKilledStub(t *testing.T) {
	defer lockThread()()
	p := newPlatform(t)
	g, other := newGuest(t, p, spinCode...), newGuest(t, p, 0x0f, 0x05)
	defer other.as.Release()
	defer other.th.Release()
	pid := g.as.(*addressSpace).proc.tgid
	time.AfterFunc(20*time.Millisecond, func() { unix.Kill(pid, unix.SIGKILL) })
	if trap, err := g.th.Run(g.as, &g.regs); err == nil {
		t.Errorf("trap %+v from a killed stub", trap)
	}
	if _, err := g.th.Run(g.as, &g.regs); err == nil {
		t.Error("a killed stub ran again")
	}
	g.as.Unmap(codeAddr, pageSize)
	if err := g.as.Flush(); err == nil {
		t.Error("Flush of a killed stub succeeded")
	}
	if trap, err := other.th.Run(other.as, &other.regs); err != nil || trap.Kind != platform.TrapSyscall {
		t.Errorf("another stub: trap %+v, %v", trap, err)
	}
	g.th.Release()
	g.as.Release()
	// It can be killed while nobody runs it, too.
	g = newGuest(t, p, spinCode...)
	unix.Kill(g.as.(*addressSpace).proc.tgid, unix.SIGKILL)
	if _, err := g.th.Run(g.as, &g.regs); err == nil {
		t.Error("a killed stub ran")
	}
	g.th.Release()
	g.as.Release()
}

// TestHostSignals has the host send signals to a stub: the guest does not see them.
func TestHostSignals(t *testing.T) {
	defer lockThread()()
	p := newPlatform(t)
	g := newGuest(t, p, spinCode...)
	defer g.as.Release()
	defer g.th.Release()
	pid := g.as.(*addressSpace).proc.tgid
	tid := g.as.(*addressSpace).proc.worker
	go func() {
		for _, sig := range []syscall.Signal{unix.SIGSTOP, unix.SIGCONT, unix.SIGTERM, unix.SIGSEGV, unix.SIGTRAP, unix.SIGUSR1, interruptSignal} {
			tgkill(pid, tid, sig)
			time.Sleep(2 * time.Millisecond)
		}
		g.th.Interrupt()
	}()
	if trap, err := g.th.Run(g.as, &g.regs); err != nil || trap.Kind != platform.TrapInterrupted {
		t.Errorf("trap %+v, %v", trap, err)
	}
}

// TestComputingStubsAreFree looks at the CPUs that a stub may use.
func TestComputingStubsAreFree(t *testing.T) {
	defer lockThread()()
	p := newPlatform(t)
	if p.monitor.off {
		t.Skip("there is but one CPU")
	}
	g := newGuest(t, p, 0x0f, 0x05, 0xeb, 0xfe)
	defer g.as.Release()
	defer g.th.Release()
	cpus := func() int {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(g.th.stub.tid, &set); err != nil {
			t.Fatal(err)
		}
		return set.Count()
	}
	g.th.Run(g.as, &g.regs)
	if n := cpus(); n != 1 {
		t.Errorf("a stub that makes system calls may use %d CPUs", n)
	}
	for range 20 { // the machine may be busy
		time.AfterFunc(100*time.Millisecond, g.th.Interrupt)
		g.th.Run(g.as, &g.regs)
		if cpus() == p.cpus.count() {
			break
		}
	}
	if n := cpus(); n != p.cpus.count() {
		t.Errorf("a stub that computes may use %d CPUs of %d", n, p.cpus.count())
	}
	for i := 0; i < 200_000 && g.th.cpu.Load() < 0; i++ {
		g.regs.Rip = codeAddr
		g.th.Run(g.as, &g.regs)
	}
	if n := cpus(); n != 1 {
		t.Errorf("a stub that makes system calls again may use %d CPUs", n)
	}
	// Without guest code nothing ticks.
	for i := 0; p.monitor.active.Load(); i++ {
		if i == 100 {
			t.Fatal("the monitor still ticks")
		}
		time.Sleep(monitorTick)
	}
}

// TestStubMappings looks at what a stub process has.
func TestStubMappings(t *testing.T) {
	p := newPlatform(t)
	as, err := p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer as.Release()
	pid := as.(*addressSpace).proc.tgid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var lo, hi uint64
		var prot string
		fmt.Sscanf(line, "%x-%x %s", &lo, &hi, &prot)
		if lo < p.layout.Max || strings.Contains(prot, "w") {
			t.Errorf("a new stub has %s", line)
		}
	}
	b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, want := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "SigCgt:\t0000000000000000", "SigBlk:\t0000000000000000"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("a stub's status lacks %q", want)
		}
	}
}

// TestOwnerDies kills a process with a platform: its stubs die with it.
func TestOwnerDies(t *testing.T) {
	if os.Getenv("PTRACE_TEST_OWNER") != "" {
		runtime.LockOSThread()
		p := newPlatform(t)
		g := newGuest(t, p, spinCode...)
		parked := newGuest(t, p)
		fmt.Println("pids", g.as.(*addressSpace).proc.tgid, parked.as.(*addressSpace).proc.tgid)
		g.th.Run(g.as, &g.regs)
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestOwnerDies$")
	c.Env = append(os.Environ(), "PTRACE_TEST_OWNER=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Fscanf(out, "pids %d %d", &a, &b); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	c.Process.Kill()
	c.Wait()
	for _, pid := range []int{a, b} {
		for i := 0; alive(pid); i++ {
			if i == 100 {
				t.Errorf("stub process %d is still there", pid)
				unix.Kill(pid, unix.SIGKILL)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

// TestOrdinaryUser runs the suite as nobody.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("we are an ordinary user")
	}
	if os.Getenv("PTRACE_TEST_OWNER") != "" {
		return
	}
	exe := filepath.Join(t.TempDir(), "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(exe); dir != "/" && dir != "/tmp"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	c := exec.Command(exe, "-test.run=^(TestConformance|TestKilledStub|TestStubMappings)$")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

func TestDecodeAccess(t *testing.T) {
	const r, w = platform.Read, platform.Write
	for _, tc := range []struct {
		code string
		want platform.Prot
	}{
		{"\x48\x89\x07", w},                   // mov [rdi],rax
		{"\x48\x8b\x07", r},                   // mov rax,[rdi]
		{"\xc6\x07\x01", w},                   // mov byte [rdi],1
		{"\xf3\xaa", w},                       // rep stosb
		{"\xf3\xa4", 0},                       // rep movsb
		{"\x83\x0f\x00", w},                   // or dword [rdi],0
		{"\x83\x3f\x00", r},                   // cmp dword [rdi],0
		{"\xf0\x48\x0f\xb1\x17", w},           // lock cmpxchg [rdi],rdx
		{"\x0f\x11\x07", w},                   // movups [rdi],xmm0
		{"\x0f\x10\x07", r},                   // movups xmm0,[rdi]
		{"\xc5\xfe\x7f\x07", w},               // vmovdqu [rdi],ymm0
		{"\xc5\xfe\x6f\x07", r},               // vmovdqu ymm0,[rdi]
		{"\x62\xf1\xfe\x48\x7f\x07", w},       // vmovdqu64 [rdi],zmm0
		{"\x50", w},                           // push rax
		{"\x41\x57", w},                       // push r15
		{"\xc3", r},                           // ret
		{"\xe8\x00\x00\x00\x00", w},           // call
		{"\xff\x07", w},                       // inc dword [rdi]
		{"\xff\x17", 0},                       // call [rdi]
		{"\xf7\x1f", w},                       // neg dword [rdi]
		{"\x48\x0f\xb6\x07", r},               // movzx rax,byte [rdi]
		{"\x48\x0f\xc7\x0f", w},               // cmpxchg16b [rdi]
		{"\x0f\x94\x07", w},                   // sete [rdi]
		{"", 0}, {"\x66\x66", 0}, {"\xc4", r}, // cut off: no crash
	} {
		if got := decodeAccess([]byte(tc.code)); got != tc.want && tc.code != "\xc4" {
			t.Errorf("% x: %v, want %v", tc.code, got, tc.want)
		}
	}
}

func TestQueueMerges(t *testing.T) {
	p := &Platform{layout: platform.Layout{Min: 1 << 16, Max: stubBase}}
	p.area.mem = make([]byte, 2*pageSize)
	a := newAddressSpace(p, process{})
	const at = 0x100000
	a.Map(platform.Mapping{Addr: at, Len: pageSize, FD: 3, Prot: platform.Read})
	a.Map(platform.Mapping{Addr: at + pageSize, Len: pageSize, FD: 3, Off: pageSize, Prot: platform.Read})
	if len(a.queue.Ops) != 1 || a.queue.Ops[0][2] != 2*pageSize {
		t.Errorf("adjacent mappings: %v", a.queue.Ops)
	}
	a.Protect(at, 2*pageSize, platform.Read|platform.Write)
	a.Protect(at+2*pageSize, pageSize, platform.Read) // nothing there
	if len(a.queue.Ops) != 2 {
		t.Errorf("after Protect: %v", a.queue.Ops)
	}
	a.Unmap(at-4*pageSize, 8*pageSize)
	if n := len(a.queue.Ops); n != 2 || a.queue.Ops[1] != (hoststub.Op{unix.SYS_MUNMAP, at, 2 * pageSize}) {
		t.Errorf("after Unmap: %v", a.queue.Ops)
	}
	a.Unmap(at, pageSize) // nothing there any more
	a.Map(platform.Mapping{Addr: at, Len: 2 * pageSize, FD: 3, Prot: platform.Read})
	if n := len(a.queue.Ops); n != 2 || a.queue.Ops[1][0] != unix.SYS_MMAP {
		t.Errorf("a mapping over what was unmapped: %v", a.queue.Ops)
	}
}

// TestReapUsed makes spaces that run and are released with their thread bound,
// as at execve and exit, by operating system threads that end; and looks at
// what is left.
func TestReapUsed(t *testing.T) {
	p := newPlatform(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread() // never unlocked
			g := newGuest(t, p, 0x0f, 0x05)
			next := newGuest(t, p, 0x0f, 0x05)
			for _, as := range []platform.AddressSpace{g.as, next.as} {
				g.regs.Rip = codeAddr
				if trap, err := g.th.Run(as, &g.regs); err != nil || trap.Kind != platform.TrapSyscall {
					t.Errorf("trap %+v, %v", trap, err)
				}
				as.Release()
			}
			g.th.Release()
		}()
		if i%8 == 7 {
			wg.Wait()
		}
	}
	wg.Wait()
	for i := 0; ; i++ {
		n := len(children(t))
		if n <= poolSize+2 {
			break
		}
		if i == 100 {
			t.Fatalf("%d processes are left", n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestTooManyMappings exceeds the host's vm.max_map_count: the error is
// ENOMEM, and the space can be used again when there are fewer.
func TestTooManyMappings(t *testing.T) {
	defer lockThread()()
	b, _ := os.ReadFile("/proc/sys/vm/max_map_count")
	limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || limit > 100_000 {
		t.Skipf("vm.max_map_count is %q", b)
	}
	p := newPlatform(t)
	g := newGuest(t, p, 0x0f, 0x05)
	defer g.as.Release()
	defer g.th.Release()
	fd, err := unix.MemfdCreate("pages", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const base = 0x100000000
	m := platform.Mapping{Len: pageSize, FD: fd, Prot: platform.Read}
	for i := range limit + 100 {
		m.Addr = base + uint64(i)*2*pageSize
		if err = g.as.Map(m); err != nil {
			break
		}
	}
	if err == nil {
		err = g.as.Flush()
	}
	if err != abi.ENOMEM {
		t.Fatalf("too many mappings: %v, want ENOMEM", err)
	}
	if err := g.as.Unmap(base, uint64(limit)*4*pageSize); err != nil {
		t.Fatal(err)
	}
	if trap, err := g.th.Run(g.as, &g.regs); err != nil || trap.Kind != platform.TrapSyscall {
		t.Errorf("trap %+v, %v", trap, err)
	}
}
