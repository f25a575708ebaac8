package seccomp

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	setModeFilter   = 1
	filterFlagTsync = 1
)

// Install sets no_new_privs and puts the filter on every thread of the process
// (SECCOMP_FILTER_FLAG_TSYNC). It cannot be taken off again.
func Install(prog []bpf.RawInstruction) error {
	if len(prog) == 0 || len(prog) > maxInsns {
		return fmt.Errorf("install a seccomp filter of %d instructions: the kernel takes 1 to %d", len(prog), maxInsns)
	}
	// TSYNC refuses threads without no_new_privs only when the caller has it
	// not; it also spreads no_new_privs to them (seccomp(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	insns := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		insns[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	// Sound: the kernel copies the program during the call; KeepAlive holds
	// the slice that the struct points to.
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, filterFlagTsync, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(insns)
	if errno != 0 {
		return fmt.Errorf("install the seccomp filter on all threads: %w (does this kernel have CONFIG_SECCOMP_FILTER?)", errno)
	}
	if tid != 0 {
		return fmt.Errorf("install the seccomp filter: thread %d could not take it", tid)
	}
	return nil
}
