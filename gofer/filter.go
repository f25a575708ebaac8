package gofer

import (
	"golang.org/x/sys/unix"

	"garrison/internal/seccomp"
)

// threadFlags are those with which Go's runtime makes threads (runtime/os_linux.go).
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS

// renameMask is every flag of renameat2 that is not served.
const renameMask = 0xffffffff &^ (unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE)

// runtimeRules are what Go's runtime calls for itself.
var runtimeRules = []seccomp.Rule{
	{Nr: unix.SYS_FUTEX, Args: []seccomp.Cond{seccomp.Masked(1, 0x7f, 0, 1)}, Why: "FUTEX_WAIT and FUTEX_WAKE: locks and parked threads"},
	{Nr: unix.SYS_NANOSLEEP, Why: "back-off in the scheduler"},
	{Nr: unix.SYS_SCHED_YIELD, Why: "spinning"},
	{Nr: unix.SYS_CLOCK_GETTIME, Why: "where the vDSO has no answer"},
	{Nr: unix.SYS_RESTART_SYSCALL, Why: "sleeps that a stop interrupted"},
	{Nr: unix.SYS_MMAP, Args: []seccomp.Cond{seccomp.Clear(2, unix.PROT_EXEC)}, Why: "heap"},
	{Nr: unix.SYS_MUNMAP, Why: "heap"},
	{Nr: unix.SYS_MADVISE, Why: "heap given back"},
	{Nr: unix.SYS_RT_SIGPROCMASK, Why: "thread creation"},
	{Nr: unix.SYS_RT_SIGRETURN, Why: "preemption signals"},
	{Nr: unix.SYS_RT_SIGACTION, Why: "a panic's death"},
	{Nr: unix.SYS_SIGALTSTACK, Why: "thread creation"},
	{Nr: unix.SYS_GETTID, Why: "preemption"},
	{Nr: unix.SYS_GETPID, Why: "preemption"},
	{Nr: unix.SYS_TGKILL, Args: []seccomp.Cond{seccomp.Eq(2, uint64(unix.SIGURG), uint64(unix.SIGABRT), 0)}, Why: "preemption; a panic's death"},
	{Nr: unix.SYS_CLONE, Args: []seccomp.Cond{seccomp.Eq64(0, threadFlags)}, Why: "threads, nothing else"},
	{Nr: unix.SYS_EXIT, Why: "a thread's end"},
	{Nr: unix.SYS_EXIT_GROUP, Why: "our end"},
	{Nr: unix.SYS_EPOLL_CREATE1, Why: "network poller, made at its first use"},
	{Nr: unix.SYS_EVENTFD2, Why: "network poller's wake-up"},
	{Nr: unix.SYS_EPOLL_CTL, Why: "network poller"},
	{Nr: unix.SYS_EPOLL_PWAIT, Why: "network poller"},
	{Nr: unix.SYS_WRITE, Why: "messages to the log; a panic's message"},
	{Nr: unix.SYS_GETRANDOM, Why: "hash seeds"},
	{Nr: unix.SYS_PRCTL, Args: []seccomp.Cond{seccomp.Eq(0, unix.PR_SET_VMA)}, Why: "names of the heap's mappings"},
	{Nr: unix.SYS_SCHED_GETAFFINITY, Why: "number of CPUs, looked at again now and then"},
	{Nr: unix.SYS_PREAD64, Why: "CPU limit of the cgroup, likewise"},
}

// readRules are what serving files that nobody changes takes.
var readRules = []seccomp.Rule{
	{Nr: unix.SYS_READ, Why: "9P messages; the poller's wake-up"},
	{Nr: unix.SYS_SENDMSG, Why: "answers, with descriptors"},
	{Nr: unix.SYS_RECVMSG, Why: "requests on the descriptor channel"},
	{Nr: unix.SYS_SHUTDOWN, Why: "end of the connection"},
	{Nr: unix.SYS_CLOSE, Why: "descriptors"},
	{Nr: unix.SYS_FCNTL, Args: []seccomp.Cond{seccomp.Eq(1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_DUPFD_CLOEXEC)}, Why: "what an open has granted; mount roots"},
	{Nr: unix.SYS_OPENAT2, Why: "walks: its struct is out of a filter's reach, our code passes O_PATH only"},
	{Nr: unix.SYS_OPENAT, Args: []seccomp.Cond{seccomp.Clear(2, unix.O_CREAT|unix.O_TRUNC|unix.O_ACCMODE)}, Why: "descriptors to read, directories"},
	{Nr: unix.SYS_STATX, Why: "attributes"},
	{Nr: unix.SYS_FSTATFS, Why: "statfs; pseudo file systems"},
	{Nr: unix.SYS_READLINKAT, Why: "symbolic links"},
	{Nr: unix.SYS_GETDENTS64, Why: "directories"},
	{Nr: unix.SYS_LSEEK, Why: "directory positions"},
	{Nr: unix.SYS_FGETXATTR, Why: "extended attributes"},
	{Nr: unix.SYS_FLISTXATTR, Why: "extended attributes"},
	{Nr: unix.SYS_FSYNC, Why: "fsync of directories"},
}

// writeRules come on top where a mount may be written.
var writeRules = []seccomp.Rule{
	{Nr: unix.SYS_OPENAT, Args: []seccomp.Cond{seccomp.Clear(2, unix.O_TRUNC)}, Why: "descriptors to write; new files"},
	{Nr: unix.SYS_FTRUNCATE, Why: "truncate"},
	{Nr: unix.SYS_FCHOWNAT, Why: "chown; owners of new files"},
	{Nr: unix.SYS_FCHMODAT, Why: "chmod; set-id bits of new files"},
	{Nr: unix.SYS_UTIMENSAT, Why: "times"},
	{Nr: unix.SYS_MKDIRAT, Why: "mkdir"},
	{Nr: unix.SYS_SYMLINKAT, Why: "symlink"},
	{Nr: unix.SYS_LINKAT, Why: "link"},
	{Nr: unix.SYS_MKNODAT, Args: []seccomp.Cond{seccomp.Masked(2, unix.S_IFMT, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK)}, Why: "mknod, of what is no device"},
	{Nr: unix.SYS_RENAMEAT2, Args: []seccomp.Cond{seccomp.Clear(4, renameMask)}, Why: "rename"},
	{Nr: unix.SYS_UNLINKAT, Why: "unlink, rmdir"},
	{Nr: unix.SYS_FSETXATTR, Why: "extended attributes"},
	{Nr: unix.SYS_FREMOVEXATTR, Why: "extended attributes"},
}

// Rules is the list of system calls that the Gofer's process may make once it
// serves cfg: install it just before Serve. A test holds the numbers.
func Rules(cfg *Config) []seccomp.Rule {
	rules := append(append([]seccomp.Rule(nil), runtimeRules...), readRules...)
	for _, m := range cfg.Mounts {
		if !m.ReadOnly {
			return append(rules, writeRules...)
		}
	}
	return rules
}

// Capabilities is the set of capabilities (bit n is capability n) that the
// Gofer of a privileged user keeps: those that let it act on files whoever they
// belong to. The Sentry has checked the guest's permissions by then.
func Capabilities(cfg *Config) uint64 {
	for _, m := range cfg.Mounts {
		if !m.ReadOnly {
			return 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID
		}
	}
	return 1 << unix.CAP_DAC_READ_SEARCH
}
