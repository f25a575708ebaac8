// Package hostproc takes away from the calling process what it does not need:
// the host's file system, capabilities, inherited descriptors, core dumps.
//
// It does not start processes (runsc/sandbox does, with the namespaces) and
// holds no seccomp list. All threads of the process are covered, also those
// that Go's runtime started already.
//
// It has no locks.
package hostproc

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// EmptyRoot leaves the process with an empty read-only root directory. It needs
// CAP_SYS_ADMIN in the user namespace that owns the process's own mount
// namespace. Descriptors that are open stay usable.
func EmptyRoot() error {
	// Any directory that exists and that everybody may search can be covered:
	// the mount is seen in this mount namespace only.
	const at = "/proc"
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the host's mounts not propagate: %w", err)
	}
	if err := unix.Mount("empty", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,nr_inodes=2,mode=555"); err != nil {
		return fmt.Errorf("mount an empty tmpfs on %s: %w", at, err)
	}
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	// pivot_root(".", ".") stacks the old root on the new one; see pivot_root(2).
	if err := unix.PivotRoot(".", "."); err == nil {
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach the host's root: %w", err)
		}
	} else if err == unix.EINVAL { // the host runs off its initramfs, which can't be pivoted
		if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move the empty root to /: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot to the empty root: %w", err)
		}
	} else {
		return fmt.Errorf("pivot_root to the empty root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("", "/", "", flags, ""); err != nil {
		return fmt.Errorf("make the empty root read-only: %w", err)
	}
	return nil
}

// NoNewPrivs sets no_new_privs on all threads (PR_SET_NO_NEW_PRIVS).
func NoNewPrivs() error {
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && on == 1 {
		return nil // set before the exec, so that every thread has it
	}
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("set no_new_privs: %w", e)
	}
	return nil
}

// Undumpable keeps other processes of the same user from attaching to this
// one and reading its memory, and cores from being written.
func Undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process not dumpable: %w", err)
	}
	return nil
}

// NoCores sets the limit on core files to nothing.
func NoCores() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}

// CloexecAll marks all descriptors from 3 on close-on-exec.
func CloexecAll() error {
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark inherited descriptors close-on-exec: %w", err)
	}
	return nil
}

// Status returns fields of /proc/self/status; missing ones are empty.
func Status(fields ...string) []string {
	b, _ := os.ReadFile("/proc/self/status")
	out := make([]string, len(fields))
	for _, l := range strings.Split(string(b), "\n") {
		name, val, _ := strings.Cut(l, ":")
		for i, f := range fields {
			if f == name {
				out[i] = strings.TrimSpace(val)
			}
		}
	}
	return out
}

// lockThread is for calls whose effect is per thread and that must be seen by
// the same thread afterwards.
func lockThread() func() {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
