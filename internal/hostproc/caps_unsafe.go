package hostproc

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

type capHeader struct {
	version uint32
	pid     int32
}

type capData struct{ effective, permitted, inheritable uint32 }

// lastCap is the highest capability that any kernel of today knows, with room:
// dropping one that does not exist is EINVAL, which ends the loop.
const lastCap = 63

// KeepCapabilities leaves all threads with the capabilities whose bits are set
// in keep (1 << CAP_*), and empties the ambient, inheritable and bounding sets.
func KeepCapabilities(keep uint64) error {
	defer lockThread()()
	for c := uintptr(0); c <= lastCap; c++ {
		// Each AllThreadsSyscall stops the process: a Spawn has emptied the set.
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil || has == 0 {
			continue
		}
		_, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
		if e == unix.EINVAL {
			break
		}
		// EPERM: without CAP_SETPCAP the bounding set cannot be cut; under
		// no_new_privs it gives nothing to anybody.
		if e != 0 && e != unix.EPERM {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, e)
		}
	}
	// Ambient capabilities go with the inheritable ones (capabilities(7)).
	hdr := capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]capData{
		{effective: uint32(keep), permitted: uint32(keep)},
		{effective: uint32(keep >> 32), permitted: uint32(keep >> 32)},
	}
	// Sound: AllThreadsSyscall runs the call on each thread before it returns,
	// and both structures live on this stack frame until then.
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return fmt.Errorf("drop capabilities to %#x: %w", keep, e)
	}
	return nil
}

// SetName gives the process the name that ps(1) shows: it was started through
// /proc/self/exe, and would be called "exe".
func SetName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err != nil {
		return
	}
	// Sound: the conversion stands in the call's arguments, and the kernel
	// copies the name during the call.
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0)
}
