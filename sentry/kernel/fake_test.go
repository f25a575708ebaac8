package kernel_test

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/cred"
	"garrison/sentry/fs/tmpfs"
	"garrison/sentry/kernel"
	"garrison/sentry/pagefile"
	"garrison/sentry/syscalls"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// The fake platform runs guests that are Go functions: each guest thread is a
// goroutine that makes system calls through a channel. Code addresses name
// functions in a table, so that clone, execve and signal handlers find theirs.

const textBase = 0x500000

type guestFn func(g *guest)

type fakePlatform struct {
	mu  sync.Mutex
	fns []guestFn
}

// addr gives a function an address.
func (p *fakePlatform) addr(f guestFn) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fns = append(p.fns, f)
	return textBase + 16*uint64(len(p.fns)-1)
}

func (p *fakePlatform) at(rip uint64) guestFn {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := (rip - textBase) / 16
	if rip < textBase || rip%16 != 0 || i >= uint64(len(p.fns)) {
		return nil
	}
	return p.fns[i]
}

func (p *fakePlatform) Name() string { return "fake" }
func (p *fakePlatform) Layout() platform.Layout {
	return platform.Layout{Min: 0x10000, Max: 0x7ffff0000000}
}
func (p *fakePlatform) NewAddressSpace() (platform.AddressSpace, error) { return fakeAS{}, nil }
func (p *fakePlatform) NewThread() (platform.Thread, error) {
	return &fakeThread{p: p, trap: make(chan *platform.Registers), gone: make(chan struct{})}, nil
}

type fakeAS struct{}

func (fakeAS) Map(platform.Mapping) error                  { return nil }
func (fakeAS) Unmap(uint64, uint64) error                  { return nil }
func (fakeAS) Protect(uint64, uint64, platform.Prot) error { return nil }
func (fakeAS) Flush() error                                { return nil }
func (fakeAS) Release()                                    {}

type fakeThread struct {
	p     *fakePlatform
	trap  chan *platform.Registers // the guest's system calls
	gone  chan struct{}            // closed by Release
	g     *guest
	waits bool   // the guest waits for the result of a system call
	rip   uint64 // where that returns to
}

// Interrupt does nothing: guests make system calls all the time.
func (t *fakeThread) Interrupt()              {}
func (t *fakeThread) FPState(dst []byte) int  { return 832 }
func (t *fakeThread) SetFPState([]byte) error { return nil }
func (t *fakeThread) Release()                { close(t.gone) }

func (t *fakeThread) Run(_ platform.AddressSpace, r *platform.Registers) (platform.Trap, error) {
	call := platform.Trap{Kind: platform.TrapSyscall}
	switch {
	case t.waits && r.Rip == t.rip-2: // restarted
		r.Rip += 2
		r.Orig_rax = r.Rax
		return call, nil
	case t.waits && r.Rip == t.rip:
		t.waits = false
		t.g.resume <- *r
	default:
		f := t.p.at(r.Rip)
		if f == nil {
			return platform.Trap{Kind: platform.TrapSignal, Signal: abi.SIGILL, Addr: r.Rip}, nil
		}
		if t.waits && r.Rdi != 0 && r.Orig_rax == ^uint64(0) && r.Rsi != 0 && t.g != nil && t.g.handlers[r.Rip] {
			t.waits = false
			t.g.resume <- *r // it runs the handler and comes back
			break
		}
		if t.g != nil {
			close(t.g.dead) // execve
		}
		g := &guest{t: t, regs: *r, resume: make(chan platform.Registers), dead: make(chan struct{}), handlers: map[uint64]bool{}}
		t.g, t.waits = g, false
		go func() {
			f(g)
			g.call(abi.SYS_exit_group, 0)
		}()
	}
	*r = *<-t.trap
	t.waits, t.rip = true, r.Rip
	return call, nil
}

// A guest is one thread of guest code.
type guest struct {
	t        *fakeThread
	regs     platform.Registers
	resume   chan platform.Registers
	dead     chan struct{}
	handlers map[uint64]bool
}

// call makes a system call; handlers run inside.
func (g *guest) call(nr uint64, args ...uint64) int64 {
	r := g.regs
	r.Orig_rax, r.Rax = nr, ^uint64(abi.ENOSYS)+1
	for i, p := range [...]*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		*p = 0
		if i < len(args) {
			*p = args[i]
		}
	}
	return g.enter(r)
}

func (g *guest) enter(r platform.Registers) int64 {
	select {
	case g.t.trap <- &r:
	case <-g.t.gone:
		runtime.Goexit()
	case <-g.dead:
		runtime.Goexit()
	}
	var n platform.Registers
	select {
	case n = <-g.resume:
	case <-g.t.gone:
		runtime.Goexit()
	case <-g.dead:
		runtime.Goexit()
	}
	if !g.handlers[n.Rip] {
		g.regs.Rsp = n.Rsp
		return int64(n.Rax)
	}
	save := g.regs
	g.regs = n
	g.regs.Rip = save.Rip
	g.t.p.at(n.Rip)(g)
	// The handler returns: its frame is where it was entered.
	g.regs.Rsp = n.Rsp + 8
	r = g.regs
	r.Orig_rax = abi.SYS_rt_sigreturn
	g.regs = save
	return g.enter(r)
}

// clone starts f in a new task with a stack of its own.
func (g *guest) clone(flags uint64, f guestFn) int64 {
	r := g.regs
	r.Orig_rax = abi.SYS_clone
	r.Rdi = flags
	r.Rsi = g.alloc(16384) + 16384
	r.Rip = g.t.p.addr(f)
	return g.enter(r)
}

// handle installs a signal handler.
func (g *guest) handle(sig int32, flags uint64, f func(g *guest, sig int32)) {
	a := g.t.p.addr(func(g *guest) { f(g, int32(g.regs.Rdi)) })
	g.handlers[a] = true
	act := abi.SigAction{Handler: a, Flags: flags | abi.SA_RESTORER, Restorer: textBase}
	p := g.alloc(abi.SigActionSize)
	b := make([]byte, abi.SigActionSize)
	act.MarshalTo(b)
	g.poke(p, b)
	g.call(abi.SYS_rt_sigaction, uint64(sig), p, 0, 8)
}

// mem is the guest's memory as its kernel sees it: the fake guest reaches its
// memory through the task that the test found for it.
func (g *guest) alloc(n uint64) uint64 {
	return uint64(g.call(abi.SYS_mmap, 0, n, abi.PROT_READ|abi.PROT_WRITE, abi.MAP_PRIVATE|abi.MAP_ANONYMOUS, ^uint64(0), 0))
}

func (g *guest) memory() usermem.Memory {
	return world.Load().k.TaskByID(int32(g.call(abi.SYS_gettid))).MM()
}

func (g *guest) poke(addr uint64, b []byte) {
	if _, err := g.memory().CopyOut(usermem.Addr(addr), b); err != nil {
		panic(err)
	}
}

func (g *guest) peek32(addr uint64) uint32 {
	v, err := usermem.CopyInUint32(g.memory(), usermem.Addr(addr))
	if err != nil {
		panic(err)
	}
	return v
}

func (g *guest) poke32(addr uint64, v uint32) {
	g.poke(addr, binary.LittleEndian.AppendUint32(nil, v))
}

// A machine is a kernel on the fake platform.
type machine struct {
	k  *kernel.Kernel
	p  *fakePlatform
	ns *vfs.MountNamespace
}

var world atomic.Pointer[machine]

func newMachine(t *testing.T) *machine {
	fd, err := unix.MemfdCreate("pages", 0)
	if err != nil {
		t.Fatal(err)
	}
	pf, err := pagefile.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePlatform{}
	p.addr(func(*guest) { panic("returned through the restorer") })
	v := vfs.New()
	table := syscalls.Table()
	k, err := kernel.New(kernel.Config{Platform: p, PageFile: pf, VFS: v, Table: table[:], Hostname: "fake"})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := v.NewMountNamespace(vfs.NewSystemContext(v, vfs.Path{}), tmpfs.New(v, pf, tmpfs.Options{Mode: 0o755}), 0, "root")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{k, p, ns}
	world.Store(m)
	return m
}

// install puts a program into the file system: an ELF file that is nothing but
// its entry point.
func (m *machine) install(t *testing.T, path string, f guestFn) {
	entry := m.p.addr(f)
	b := make([]byte, 4096)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], abi.ET_EXEC)
	le.PutUint16(b[18:], abi.EM_X86_64)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	ph := b[64:]
	le.PutUint32(ph, abi.PT_LOAD)
	le.PutUint32(ph[4:], abi.PF_R|abi.PF_X)
	le.PutUint64(ph[16:], textBase)
	le.PutUint64(ph[32:], 4096)
	le.PutUint64(ph[40:], 4096)
	ctx := vfs.NewSystemContext(m.k.VFS(), m.ns.Root())
	file, err := m.k.VFS().Open(ctx, m.ns.Root(), path, vfs.OpenHow{Flags: abi.O_CREAT | abi.O_WRONLY, Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(ctx, usermem.Bytes(b), 0); err != nil {
		t.Fatal(err)
	}
	file.DecRef()
}

// run runs f as the first program and returns its wait status.
func (m *machine) run(t *testing.T, f guestFn) int32 {
	m.install(t, "/init", f)
	tg, err := m.k.CreateProcess(kernel.CreateProcessArgs{Filename: "/init", Argv: []string{"init"},
		Cred: cred.NewRoot(m.k.RootUserNamespace()), FDTable: vfs.NewFDTable(), MountNS: m.ns})
	if err != nil {
		t.Fatal(err)
	}
	s := tg.WaitExited()
	m.k.KillAll()
	m.k.Wait()
	return s
}
