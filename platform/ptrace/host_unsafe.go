package ptrace

import (
	"runtime"
	"unsafe"

	"garrison/platform"

	"golang.org/x/sys/unix"
)

// Requests and constants of ptrace(2) that x/sys/unix lacks.
const (
	ptraceSysemu = 31
	ntX86Xstate  = 0x202
	ptraceTraced = 0x80 // PTRACE_O_TRACESYSGOOD: bit in a syscall stop's signal
	saNoCldStop  = 1    // SA_NOCLDSTOP
)

// The calls below name host memory by address. Sound: each passes a pointer to
// a live Go variable, converted in the call expression itself, and the kernel
// does not keep it.

func ptraceRegs(req int, pid int, r *platform.Registers) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(pid), 0, uintptr(unsafe.Pointer(r)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func getRegs(pid int, r *platform.Registers) error { return ptraceRegs(unix.PTRACE_GETREGS, pid, r) }
func setRegs(pid int, r *platform.Registers) error { return ptraceRegs(unix.PTRACE_SETREGS, pid, r) }

func getSiginfo(pid int, s *siginfo) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETSIGINFO, uintptr(pid), 0, uintptr(unsafe.Pointer(s)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// siginfo is the head of siginfo_t with the fault address.
type siginfo struct {
	signo, errno, code, _ int32
	addr                  uint64
	_                     [104]byte
}

func regset(req, pid int, b []byte) (int, error) {
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(pid), ntX86Xstate, uintptr(unsafe.Pointer(&iov)), 0, 0)
	runtime.KeepAlive(b)
	if e != 0 {
		return 0, e
	}
	return int(iov.Len), nil
}

func ptrace(req, pid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(pid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// wait4 waits for one thread, without rusage. Blocking waits tell the Go
// scheduler; see waitStop.
func wait4(pid int, ws *unix.WaitStatus, options int) (int, error) {
	var status int32
	for {
		r, _, e := unix.Syscall6(unix.SYS_WAIT4, uintptr(pid), uintptr(unsafe.Pointer(&status)), uintptr(options), 0, 0, 0)
		if e == unix.EINTR {
			continue
		}
		*ws = unix.WaitStatus(status)
		if e != 0 {
			return 0, e
		}
		return int(r), nil
	}
}

func currentCPU() int {
	var cpu uint32
	unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	return int(cpu)
}

func setAffinity(tid int, set *unix.CPUSet) {
	unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set)))
}

// quietSIGCHLD makes the kernel not send SIGCHLD when a tracee stops: each trap
// would run the Go runtime's handler. The default action ignores the signal,
// and SA_NOCLDSTOP keeps it from being sent for stops at all.
func quietSIGCHLD() error {
	act := struct {
		handler, flags, restorer, mask uint64
	}{flags: saNoCldStop}
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// The Go runtime's own hooks around fork: all signals blocked, no preemption.
//
//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// forkStopped forks a child that shares our descriptor table, is traced by this
// thread and stops. In the child nothing may run that could need the Go
// runtime: only raw system calls, on the current stack.
//
//go:norace
//go:nosplit
//go:noinline
func forkStopped() (int, unix.Errno) {
	beforeFork()
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if e != 0 || pid != 0 {
		afterFork()
		return int(pid), e
	}
	unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	_, _, e = unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0, 0, 0, 0)
	if e == 0 {
		self, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		unix.RawSyscall(unix.SYS_KILL, self, uintptr(unix.SIGSTOP), 0)
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT, uintptr(e)&0xff, 0, 0)
	}
}
