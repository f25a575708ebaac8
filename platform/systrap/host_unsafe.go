package systrap

import (
	"syscall"
	"unsafe"

	"garrison/abi"
	"garrison/platform/hoststub"
)

// In assembly: see there.
func stubText() (handler, mapper, worker, process uintptr)
func forkZygote(fd int) (pid int)
func currentCPU() int32

//go:noescape
func spinWhile(p *uint32, was uint32, n int) bool

// The calls below name host memory by address. Sound: each passes a pointer to
// a live Go variable or to the area, converted in the call expression itself,
// and the kernel does not keep it.

// futexWait sleeps while *p is val, but not longer than ns. Go's scheduler knows.
func futexWait(p *uint32, val uint32, ns int64) {
	ts := syscall.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9}
	syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(p)), abi.FUTEX_WAIT, uintptr(val), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

func futexWake(p *uint32) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(p)), abi.FUTEX_WAKE, 1, 0, 0, 0)
}

// tgkill with signal 0 tells whether a thread exists.
func tgkill(tgid, tid int, sig syscall.Signal) abi.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(tgid), uintptr(tid), uintptr(sig))
	return abi.Errno(e)
}

// collect waits for the end of a child. Go's scheduler knows.
func collect(pid int) (status uint32, err abi.Errno) {
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_WAIT4, uintptr(pid), uintptr(unsafe.Pointer(&status)), syscall.WALL, 0, 0, 0)
		if e != syscall.EINTR {
			return status, abi.Errno(e)
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

// fork forks what becomes the zygote, with all signals blocked: the Go
// runtime's handlers are not for it.
func fork(fd int) (int, abi.Errno) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, abi.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := forkZygote(fd)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, abi.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if pid < 0 {
		return 0, abi.Errno(-pid)
	}
	return pid, 0
}

// bytesAt returns n bytes of our own text.
func bytesAt(addr uint64, n int) []byte {
	p := uintptr(addr)
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), n)
}

// slot is a slot of the area, as the Sentry sees it. Guests can't write it.
type slot struct {
	request, count, want, watch uint32
	answer, left, low, high     uint32
	_                           [8]uint32
	ops                         [slotOpCount]hoststub.Op
}

// slotAt returns the slot at off. Sound: it lies within mem, which is page
// aligned and stays mapped as long as the platform.
func slotAt(mem []byte, off int) *slot {
	return (*slot)(unsafe.Pointer(&mem[off : off+pageSize][0]))
}

// context is the head of a region. Guests can write it at any time: each field
// is read once, and what is read is checked.
type context struct {
	state, frame, signal, spin uint32
	fs, gs                     uint64
	_                          [4]uint64
	stackAddr                  uint64
	stackFlags, _              uint32
	stackSize                  uint64
}

// contextAt returns the head of a region. Sound: as for slotAt.
func contextAt(region []byte) *context {
	return (*context)(unsafe.Pointer(&region[:regionSize][0]))
}

// sigcontext is struct sigcontext_64 (arch/x86/include/uapi/asm/sigcontext.h).
type sigcontext struct {
	r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags uint64
	cs, gs, fs, ss                                                                            uint16
	err, trapno, oldmask, cr2, fpstate                                                        uint64
}

// siginfo is the head of siginfo_t.
type siginfo struct {
	signo, errno, code, _ int32
	addr                  uint64
	syscall               int32
	arch                  uint32
}

// Offsets in struct rt_sigframe.
const (
	frameContext = 8 + 40
	frameInfo    = 8 + 304
	frameSize    = frameInfo + 128
)

// frameAt returns the parts of the frame at off. Sound: the caller has checked
// that it lies within the region and is aligned.
func frameAt(region []byte, off uint32) (*sigcontext, *siginfo) {
	f := region[off : off+frameSize]
	return (*sigcontext)(unsafe.Pointer(&f[frameContext])), (*siginfo)(unsafe.Pointer(&f[frameInfo]))
}
