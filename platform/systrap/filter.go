package systrap

import (
	"encoding/binary"

	"garrison/abi"

	"golang.org/x/sys/unix"
)

// Two filters hold stubs. Whatever they do not let pass raises SIGSYS, and so is
// a guest's system call.
//
// The mapper's is on every thread of a stub process. It lets the mapper's few
// calls pass, from the code page only. A stub shares the Sentry's descriptors,
// and so these calls must be out of guests' reach, who can jump to the code
// page with registers of their choice: that is what the second filter is for.
// Every thread that will run guest code has it before it does (filters add up,
// and the strictest wins). It leaves the handler's three calls: to return from
// a signal, which gives a thread registers of its choice; to wait and wake up on
// memory of its own; and to end.
const (
	bpfLoad   = 0x20
	bpfJEQ    = 0x15
	bpfAnd    = 0x54
	bpfReturn = 0x06

	seccompTrap  = 0x00030000
	seccompAllow = 0x7fff0000

	archX8664 = 0xc000003e

	offNr, offArch, offIP, offArg0 = 0, 4, 8, 16
)

type program []byte

func (p *program) emit(code uint16, jt, jf uint8, k uint32) {
	b := binary.LittleEndian.AppendUint16(*p, code)
	b = append(b, jt, jf)
	*p = binary.LittleEndian.AppendUint32(b, k)
}

// begin lets pass what may come from anywhere, and traps all that does not come
// from the code page. The number is loaded afterwards.
func (p *program) begin() {
	p.emit(bpfLoad, 0, 0, offArch)
	p.emit(bpfJEQ, 1, 0, archX8664)
	p.emit(bpfReturn, 0, 0, seccompTrap)
	p.emit(bpfLoad, 0, 0, offIP+4)
	p.emit(bpfJEQ, 9, 0, stubCode>>32)
	// The kernel emulates these for code that calls the legacy vsyscall page,
	// whose addresses have all bits of the upper half set; they write nothing
	// but the caller's memory.
	p.emit(bpfJEQ, 1, 0, 0xffffffff)
	p.emit(bpfReturn, 0, 0, seccompTrap)
	p.emit(bpfLoad, 0, 0, offNr)
	p.emit(bpfJEQ, 3, 0, unix.SYS_GETTIMEOFDAY)
	p.emit(bpfJEQ, 2, 0, unix.SYS_TIME)
	p.emit(bpfJEQ, 1, 0, unix.SYS_GETCPU)
	p.emit(bpfReturn, 0, 0, seccompTrap)
	p.emit(bpfReturn, 0, 0, seccompAllow)
	p.emit(bpfReturn, 0, 0, seccompTrap) // not reached
	p.emit(bpfLoad, 0, 0, offIP)
	p.emit(bpfAnd, 0, 0, ^uint32(pageSize-1))
	p.emit(bpfJEQ, 1, 0, stubCode&0xffffffff)
	p.emit(bpfReturn, 0, 0, seccompTrap)
	p.emit(bpfLoad, 0, 0, offNr)
}

// allow lets a call pass if argument arg has one of the values, in its lower
// half; without values, always.
func (p *program) allow(nr uint32, arg uint32, values ...uint32) {
	if len(values) == 0 {
		p.emit(bpfJEQ, 0, 1, nr)
		p.emit(bpfReturn, 0, 0, seccompAllow)
		return
	}
	n := uint8(len(values))
	p.emit(bpfJEQ, 0, 2*n+2, nr)
	p.emit(bpfLoad, 0, 0, offArg0+8*arg)
	for _, v := range values {
		p.emit(bpfJEQ, 0, 1, v)
		p.emit(bpfReturn, 0, 0, seccompAllow)
	}
	p.emit(bpfReturn, 0, 0, seccompTrap)
}

func (p *program) end() []byte {
	p.emit(bpfReturn, 0, 0, seccompTrap)
	return *p
}

func mapperFilter(fd int) []byte {
	var p program
	p.begin()
	p.allow(unix.SYS_RT_SIGRETURN, 0)
	p.allow(unix.SYS_FUTEX, 1, abi.FUTEX_WAIT, abi.FUTEX_WAKE)
	p.allow(unix.SYS_MMAP, 0)
	p.allow(unix.SYS_MPROTECT, 0)
	p.allow(unix.SYS_MUNMAP, 0)
	p.allow(unix.SYS_PWRITE64, 0, uint32(fd))
	p.allow(unix.SYS_CLONE, 0, cloneThread, cloneProcess)
	p.allow(unix.SYS_PRCTL, 0, abi.PR_SET_PDEATHSIG)
	p.allow(unix.SYS_SIGALTSTACK, 0)
	p.allow(unix.SYS_RT_SIGPROCMASK, 0)
	p.allow(unix.SYS_SECCOMP, 0, abi.SECCOMP_SET_MODE_FILTER)
	p.allow(unix.SYS_EXIT, 0)
	p.allow(unix.SYS_RESTART_SYSCALL, 0)
	return p.end()
}

func workerFilter() []byte {
	var p program
	p.begin()
	p.allow(unix.SYS_RT_SIGRETURN, 0)
	p.allow(unix.SYS_FUTEX, 1, abi.FUTEX_WAIT, abi.FUTEX_WAKE)
	p.allow(unix.SYS_EXIT, 0)
	return p.end()
}
