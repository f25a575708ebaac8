package boot

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/internal/seccomp"
	"garrison/platform/ptrace"
	"garrison/platform/systrap"
)

// allowedNumbers is every system call that a Sentry without host network may
// make, as data: growing it is a decision about isolation, not a fix.
var allowedNumbers = map[uintptr]string{
	unix.SYS_FUTEX: "futex", unix.SYS_NANOSLEEP: "nanosleep", unix.SYS_SCHED_YIELD: "sched_yield",
	unix.SYS_CLOCK_GETTIME: "clock_gettime", unix.SYS_RESTART_SYSCALL: "restart_syscall",
	unix.SYS_MMAP: "mmap", unix.SYS_MUNMAP: "munmap", unix.SYS_MADVISE: "madvise",
	unix.SYS_RT_SIGPROCMASK: "rt_sigprocmask", unix.SYS_RT_SIGRETURN: "rt_sigreturn", unix.SYS_RT_SIGACTION: "rt_sigaction",
	unix.SYS_SIGALTSTACK: "sigaltstack", unix.SYS_GETTID: "gettid", unix.SYS_GETPID: "getpid", unix.SYS_TGKILL: "tgkill",
	unix.SYS_CLONE: "clone", unix.SYS_EXIT: "exit", unix.SYS_EXIT_GROUP: "exit_group",
	unix.SYS_EPOLL_CREATE1: "epoll_create1", unix.SYS_EVENTFD2: "eventfd2", unix.SYS_EPOLL_CTL: "epoll_ctl",
	unix.SYS_EPOLL_PWAIT: "epoll_pwait", unix.SYS_EPOLL_WAIT: "epoll_wait",
	unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_CLOSE: "close", unix.SYS_FCNTL: "fcntl",
	unix.SYS_GETRANDOM: "getrandom", unix.SYS_PRCTL: "prctl", unix.SYS_SCHED_GETAFFINITY: "sched_getaffinity",
	unix.SYS_SENDMSG: "sendmsg", unix.SYS_RECVMSG: "recvmsg", unix.SYS_PREAD64: "pread64", unix.SYS_PWRITE64: "pwrite64",
	unix.SYS_PREADV: "preadv", unix.SYS_PWRITEV: "pwritev", unix.SYS_PREADV2: "preadv2", unix.SYS_PWRITEV2: "pwritev2",
	unix.SYS_READV: "readv", unix.SYS_WRITEV: "writev", unix.SYS_LSEEK: "lseek", unix.SYS_FSTAT: "fstat",
	unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync",
	unix.SYS_SHUTDOWN: "shutdown", unix.SYS_PPOLL: "ppoll", unix.SYS_IOCTL: "ioctl", unix.SYS_GETRUSAGE: "getrusage",
	// platforms ptrace and systrap
	unix.SYS_PTRACE: "ptrace", unix.SYS_WAIT4: "wait4", unix.SYS_KILL: "kill",
	unix.SYS_SCHED_SETAFFINITY: "sched_setaffinity",
}

// neverAllowed would give the Sentry the host's files, network or processes.
var neverAllowed = []uintptr{
	unix.SYS_OPEN, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_CREAT, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FORK,
	unix.SYS_VFORK, unix.SYS_CLONE3, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MOUNT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_BPF, unix.SYS_IO_URING_SETUP, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN,
	unix.SYS_KEYCTL, unix.SYS_MEMFD_CREATE, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_VM_READV,
	unix.SYS_PROCESS_VM_WRITEV, unix.SYS_SETUID, unix.SYS_CAPSET, unix.SYS_PERSONALITY,
}

func platformRules() []seccomp.Rule {
	return append(slices.Clone(ptrace.HostSyscalls), systrap.HostSyscalls...)
}

func TestFilterList(t *testing.T) {
	got := seccomp.Numbers(Rules(platformRules(), false))
	for _, nr := range got {
		if allowedNumbers[nr] == "" {
			t.Errorf("system call %d is allowed, but not in the list of this test", nr)
		}
	}
	for nr, name := range allowedNumbers {
		if !slices.Contains(got, nr) {
			t.Errorf("%s (%d) is in the list of this test, but not allowed", name, nr)
		}
	}
	if len(got) >= 70 {
		t.Errorf("%d system calls are allowed: fewer than 70 was the promise", len(got))
	}
	for _, nr := range neverAllowed {
		if slices.Contains(got, nr) {
			t.Errorf("system call %d is allowed: never", nr)
		}
	}
}

func TestFilterSaysWhy(t *testing.T) {
	for _, r := range Rules(nil, true) {
		if strings.TrimSpace(r.Why) == "" {
			t.Errorf("rule for system call %d does not say why", r.Nr)
		}
	}
}

func TestFilterAssembles(t *testing.T) {
	for _, network := range []bool{false, true} {
		prog, err := seccomp.Program(Rules(platformRules(), network), seccomp.KillProcess)
		if err != nil || len(prog) > 1000 {
			t.Errorf("host network %v: %d instructions, %v", network, len(prog), err)
		}
	}
}
