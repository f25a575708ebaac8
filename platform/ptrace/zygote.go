package ptrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"garrison/abi"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// poolSize is how many empty stub processes wait to become address spaces.
const poolSize = 4

// A process is an empty stub process: its leader and one worker are parked.
type process struct {
	tgid, worker, slot int
}

// keeper is the goroutine, on an operating system thread of its own, that
// traces the zygote and makes all stub processes. It ends with the platform.
func (p *Platform) keeper(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(p.ended)
	if e := quietSIGCHLD(); e != 0 {
		started <- fmt.Errorf("ptrace: set SIGCHLD's action: %w", e)
		return
	}
	z, err := p.newZygote()
	if err != nil {
		started <- err
		return
	}
	defer func() {
		unix.Kill(z.tgid, unix.SIGKILL)
		collect(z.tgid)
	}()
	if err := p.initFPState(z); err != nil {
		started <- err
		return
	}
	started <- nil
	fill := true
	for {
		if fill && len(p.pool) < cap(p.pool) {
			select {
			case r := <-p.requests:
				p.answer(z, r)
			case <-p.quit:
				p.emptyPool()
				return
			default:
				// Without a process the next request reports the error.
				if proc, err := p.makeProcess(z); err != nil {
					fill = false
				} else {
					p.pool <- proc
				}
			}
			continue
		}
		select {
		case r := <-p.requests:
			p.answer(z, r)
		case <-p.refill:
			fill = true
		case <-p.quit:
			p.emptyPool()
			return
		}
	}
}

func (p *Platform) answer(z *stub, r chan<- reply) {
	select {
	case proc := <-p.pool: // made since the caller looked
		r <- reply{proc, nil}
	default:
		proc, err := p.makeProcess(z)
		r <- reply{proc, err}
	}
}

func (p *Platform) emptyPool() {
	for {
		select {
		case proc := <-p.pool:
			p.kill(proc)
		default:
			return
		}
	}
}

// kill ends a process that is not an address space yet.
func (p *Platform) kill(proc process) {
	unix.Kill(proc.tgid, unix.SIGKILL)
	p.bury(proc)
}

// takeProcess returns an empty stub process.
func (p *Platform) takeProcess() (process, error) {
	select {
	case proc := <-p.pool:
		if len(p.pool) <= poolSize/2 {
			select {
			case p.refill <- struct{}{}:
			default:
			}
		}
		return proc, nil
	default:
	}
	select {
	case p.refill <- struct{}{}:
	default:
	}
	r := make(chan reply, 1)
	select {
	case p.requests <- r:
	case <-p.ended:
		return process{}, abi.ENOMEM
	}
	got := <-r
	return got.proc, got.err
}

// makeProcess makes an empty stub process. On the keeper's thread.
func (p *Platform) makeProcess(z *stub) (process, error) {
	slot := p.takeSlot()
	if slot < 0 {
		return process{}, abi.ENOMEM
	}
	// All on one CPU: the new process starts where the zygote may run.
	p.monitor.bindTo(currentCPU(), 0, z.tid)
	defer p.monitor.unbind(0)
	// The Sentry is the parent of them all: it collects them.
	pid, err := z.callAt(entryClone, unix.SYS_CLONE, abi.CLONE_FILES|abi.CLONE_PARENT)
	if err != nil {
		p.giveSlot(slot)
		return process{}, err
	}
	proc := process{tgid: int(pid), slot: slot}
	if err := p.setUp(&proc); err != nil {
		p.kill(proc)
		return process{}, err
	}
	return proc, nil
}

func (p *Platform) setUp(proc *process) error {
	s, err := seize(proc.tgid, proc.tgid)
	if err != nil {
		return err
	}
	// While it is parked nobody traces it, so that EXITKILL does not help.
	if _, err := s.call(unix.SYS_PRCTL, abi.PR_SET_PDEATHSIG, uint64(unix.SIGKILL)); err != nil {
		return err
	}
	if _, err := s.call(unix.SYS_MMAP, stubSlot, slotSize, abi.PROT_READ, abi.MAP_SHARED|abi.MAP_FIXED,
		uint64(p.area.fd), uint64(slotOffset(proc.slot))); err != nil {
		return err
	}
	if proc.worker, err = s.cloneThread(); err != nil {
		return err
	}
	return s.park()
}

// newZygote forks the process that all others are made from and empties it.
// On the keeper's thread.
func (p *Platform) newZygote() (*stub, error) {
	args := p.newZygoteArgs() // before the fork: the child reads its copy
	pid, e := fork()
	if e != 0 {
		return nil, fmt.Errorf("ptrace: fork the first stub process: %w", e)
	}
	z := &stub{tgid: pid, tid: pid}
	st, e := wait4(pid)
	switch {
	case e != 0:
		return nil, fmt.Errorf("ptrace: wait for the first stub process: %w", e)
	case st.ended():
		return nil, fmt.Errorf("ptrace: trace the first stub process: %w (does a seccomp filter or kernel.yama.ptrace_scope=3 forbid ptrace?)",
			abi.Errno(st>>8&0xff))
	}
	if err := p.prepareZygote(z, args); err != nil {
		unix.Kill(pid, unix.SIGKILL)
		collect(pid)
		return nil, fmt.Errorf("ptrace: prepare the first stub process: %w", err)
	}
	runtime.KeepAlive(args)
	return z, nil
}

// zygoteArgs is memory that the zygote's first system calls name.
type zygoteArgs []byte

const (
	argCapHeader = 0
	argCapData   = 16
	argProgram   = 64
	argName      = 96
	argFilter    = 128
)

func (p *Platform) newZygoteArgs() zygoteArgs {
	filter := stubFilter()
	a := make(zygoteArgs, argFilter+len(filter))
	binary.LittleEndian.PutUint32(a[argCapHeader:], abi.LINUX_CAPABILITY_VERSION_3)
	binary.LittleEndian.PutUint16(a[argProgram:], uint16(len(filter)/8))
	binary.LittleEndian.PutUint64(a[argProgram+8:], addrOf(a)+argFilter)
	copy(a[argName:], "runsc-stub")
	copy(a[argFilter:], filter)
	return a
}

// stubFilter is a seccomp filter that holds stubs to what we inject: few system
// calls, and from the code page only. PTRACE_SYSEMU stops guests' calls before
// it is looked at; it is there for the day when that is not so.
func stubFilter() []byte {
	const (
		ld, jeq, and, ret = 0x20, 0x15, 0x54, 0x06
		kill, allow       = 0x80000000, 0x7fff0000
		offNr, offArch    = 0, 4
		offIP             = 8
		archX8664         = 0xc000003e
	)
	var b []byte
	emit := func(code uint16, jt, jf uint8, k uint32) {
		b = binary.LittleEndian.AppendUint16(b, code)
		b = append(b, jt, jf)
		b = binary.LittleEndian.AppendUint32(b, k)
	}
	emit(ld, 0, 0, offArch)
	emit(jeq, 1, 0, archX8664)
	emit(ret, 0, 0, kill)
	emit(ld, 0, 0, offNr)
	// The kernel emulates these for code that calls the legacy vsyscall page;
	// they write nothing but the caller's memory.
	for _, nr := range []uint32{unix.SYS_GETTIMEOFDAY, unix.SYS_TIME, unix.SYS_GETCPU} {
		emit(jeq, 0, 1, nr)
		emit(ret, 0, 0, allow)
	}
	emit(ld, 0, 0, offIP+4)
	emit(jeq, 1, 0, stubCode>>32)
	emit(ret, 0, 0, kill)
	emit(ld, 0, 0, offIP)
	emit(and, 0, 0, ^uint32(pageSize-1))
	emit(jeq, 1, 0, stubCode&0xffffffff)
	emit(ret, 0, 0, kill)
	emit(ld, 0, 0, offNr)
	for _, nr := range []uint32{unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MUNMAP, unix.SYS_PAUSE, unix.SYS_CLONE,
		unix.SYS_EXIT, unix.SYS_PRCTL, unix.SYS_RESTART_SYSCALL} {
		emit(jeq, 0, 1, nr)
		emit(ret, 0, 0, allow)
	}
	emit(ret, 0, 0, kill)
	return b
}

// prepareZygote makes z, a copy of the Sentry, an empty process without rights.
func (p *Platform) prepareZygote(z *stub, args zygoteArgs) error {
	if e := ptrace(abi.PTRACE_SETOPTIONS, z.tid, 0, traceOptions); e != 0 {
		return gone(e)
	}
	var err error
	call := func(what string, nr uint64, a ...uint64) {
		if err != nil {
			return
		}
		if _, e := z.callAt(uint64(gadgetAddr()), nr, a...); e != nil {
			err = fmt.Errorf("%s: %w", what, e)
		}
	}
	// A C library registers memory with the kernel that is about to go.
	var rs rseqConfig
	if getRseq(z.tid, &rs) == 0 && rs.pointer != 0 {
		const rseqFlagUnregister = 1
		call("unregister its rseq area", unix.SYS_RSEQ, rs.pointer, uint64(rs.size), rseqFlagUnregister, uint64(rs.signature))
	}
	at := addrOf(args)
	// Out of the terminal's reach: ^C is not for stubs.
	call("make a session", unix.SYS_SETSID)
	call("name it", unix.SYS_PRCTL, abi.PR_SET_NAME, at+argName)
	call("make it traceable", unix.SYS_PRCTL, abi.PR_SET_DUMPABLE, 1)
	call("set no_new_privs", unix.SYS_PRCTL, abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	call("drop its capabilities", unix.SYS_CAPSET, at+argCapHeader, at+argCapData)
	call("map its code", unix.SYS_MMAP, stubCode, pageSize, abi.PROT_READ|abi.PROT_EXEC,
		abi.MAP_SHARED|abi.MAP_FIXED, uint64(p.area.fd), 0)
	if err != nil {
		return err
	}
	keep, err := hoststub.PlaceVDSO(&p.layout, stubBase, stubBase, stubVDSO, func(nr uint64, a ...uint64) (uint64, error) {
		return z.callAt(uint64(gadgetAddr()), nr, a...)
	})
	if err != nil {
		return err
	}
	if _, err := z.callAt(uint64(gadgetAddr()), unix.SYS_SECCOMP, abi.SECCOMP_SET_MODE_FILTER, abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		at+argProgram); err != nil && !errors.Is(err, abi.EINVAL) && !errors.Is(err, abi.ENOSYS) { // a kernel without it
		return fmt.Errorf("install its filter: %w", err)
	}
	// Everything else goes.
	keep = append(keep, hoststub.Span{Start: stubCode, End: stubCode + pageSize})
	slices.SortFunc(keep, func(a, b hoststub.Span) int { return int(a.Start>>12) - int(b.Start>>12) })
	from := uint64(0)
	for _, k := range append(keep, hoststub.Span{Start: taskSize, End: taskSize}) {
		if k.Start > from {
			if _, err := z.call(unix.SYS_MUNMAP, from, k.Start-from); err != nil {
				return fmt.Errorf("empty its address space: %w", err)
			}
		}
		from = k.End
	}
	return nil
}
