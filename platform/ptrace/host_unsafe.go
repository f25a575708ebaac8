package ptrace

import (
	"runtime"
	"syscall"
	"unsafe"

	"garrison/abi"
	"garrison/platform"
	"garrison/platform/hoststub"
)

// Requests of ptrace(2) and constants that package abi lacks
// (uapi/linux/ptrace.h, uapi/linux/elf.h).
const (
	ptraceGetRegs = 12
	ptraceSetRegs = 13
	ptraceSysemu  = 31
	ntX86Xstate   = 0x202
)

// In assembly: see there.
func forkZygote() (pid int)
func gadgetAddr() uintptr
func currentCPU() int32

// The calls below name host memory by address. Sound: each passes a pointer to
// a live Go variable, converted in the call expression itself, and the kernel
// does not keep it.

// ptrace makes a request that does not block, so the Go scheduler need not know.
func ptrace(req, tid int, addr, data uintptr) abi.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	return abi.Errno(e)
}

func getRegs(tid int, r *platform.Registers) abi.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceGetRegs, uintptr(tid), 0, uintptr(unsafe.Pointer(r)), 0, 0)
	return abi.Errno(e)
}

func setRegs(tid int, r *platform.Registers) abi.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceSetRegs, uintptr(tid), 0, uintptr(unsafe.Pointer(r)), 0, 0)
	return abi.Errno(e)
}

// siginfo is the head of siginfo_t, as a fault fills it in.
type siginfo struct {
	signo, errno, code, _ int32
	addr                  uint64
	_                     [104]byte
}

func getSiginfo(tid int, s *siginfo) abi.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, abi.PTRACE_GETSIGINFO, uintptr(tid), 0, uintptr(unsafe.Pointer(s)), 0, 0)
	return abi.Errno(e)
}

// rseqConfig is struct ptrace_rseq_configuration.
type rseqConfig struct {
	pointer   uint64
	size      uint32
	signature uint32
	flags, _  uint32
}

// getRseq returns the restartable-sequences area (rseq(2)) of a stub; kernels
// that can't say give EIO.
func getRseq(tid int, c *rseqConfig) abi.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, abi.PTRACE_GET_RSEQ_CONFIGURATION, uintptr(tid), unsafe.Sizeof(*c), uintptr(unsafe.Pointer(c)), 0, 0)
	return abi.Errno(e)
}

// peek reads a word of a stub's memory.
func peek(tid int, addr uint64) (uint64, abi.Errno) {
	var w uint64
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, abi.PTRACE_PEEKDATA, uintptr(tid), uintptr(addr), uintptr(unsafe.Pointer(&w)), 0, 0)
	return w, abi.Errno(e)
}

// getXstate and setXstate move the extended state (NT_X86_XSTATE).
func getXstate(tid int, b []byte) (int, abi.Errno) { return xstate(abi.PTRACE_GETREGSET, tid, b) }

func setXstate(tid int, b []byte) abi.Errno {
	_, e := xstate(abi.PTRACE_SETREGSET, tid, b)
	return e
}

func xstate(req, tid int, b []byte) (int, abi.Errno) {
	iov := syscall.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))}
	_, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, uintptr(req), uintptr(tid), ntX86Xstate, uintptr(unsafe.Pointer(&iov)), 0, 0)
	runtime.KeepAlive(b)
	return int(iov.Len), abi.Errno(e)
}

// wait4 waits for one thread of ours to stop or end. It tells the Go scheduler
// that it may block.
func wait4(tid int) (waitStatus, abi.Errno) {
	var status uint32
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&status)), syscall.WALL, 0, 0, 0)
		if e != syscall.EINTR {
			return waitStatus(status), abi.Errno(e)
		}
	}
}

// cpuSet is a cpu_set_t, for up to 4096 CPUs.
type cpuSet [64]uint64

func (c *cpuSet) count() (n int) {
	for _, w := range c {
		for ; w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}

func getAffinity(set *cpuSet) abi.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set)))
	return abi.Errno(e)
}

func setAffinity(tid int, set *cpuSet) abi.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set)))
	return abi.Errno(e)
}

func gettid() int {
	tid, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
	return int(tid)
}

func tgkill(tgid, tid int, sig syscall.Signal) {
	syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(tgid), uintptr(tid), uintptr(sig))
}

// sigaction is struct kernel_sigaction of the host's.
type sigaction struct {
	handler, flags, restorer, mask uint64
}

// quietSIGCHLD makes the kernel not send SIGCHLD when a tracee stops, which
// would run the Go runtime's handler at each trap. The handler itself stays.
func quietSIGCHLD() abi.Errno {
	const saNoCldStop = 1
	var act sigaction
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0)
	if e != 0 || act.flags&saNoCldStop != 0 {
		return abi.Errno(e)
	}
	act.flags |= saNoCldStop
	_, _, e = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
	return abi.Errno(e)
}

// fork forks the zygote with all signals blocked: the child must not run the
// Go runtime's handlers. The calling thread becomes its tracer.
func fork() (int, abi.Errno) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, abi.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := forkZygote()
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, abi.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if pid < 0 {
		return 0, abi.Errno(-pid)
	}
	return pid, 0
}

// addrOf is where b lies in our memory, and in the zygote's copy of it while it
// has one. Sound: b is not moved, it is on the heap; callers keep it alive.
func addrOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// opsAt returns the operations at off in mem. Sound: a slot lies within mem,
// which is page aligned and stays mapped as long as the platform.
func opsAt(mem []byte, off int) *[slotOps]hoststub.Op {
	return (*[slotOps]hoststub.Op)(unsafe.Pointer(&mem[off : off+slotSize][0]))
}
