package boot

import (
	"golang.org/x/sys/unix"

	"garrison/internal/seccomp"
)

// protExec is the only right that the Sentry's own memory never gets: no code
// is ever made here.
const protExec = unix.PROT_EXEC

// threadFlags are the flags with which Go's runtime makes threads
// (runtime/os_linux.go). No other use of clone is allowed: no processes.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS

// runtimeRules are what Go's runtime calls for itself.
var runtimeRules = []seccomp.Rule{
	{Nr: unix.SYS_FUTEX, Args: []seccomp.Cond{seccomp.Masked(1, 0x7f, 0, 1)}, Why: "FUTEX_WAIT and FUTEX_WAKE: locks and parked threads"},
	{Nr: unix.SYS_NANOSLEEP, Why: "back-off in the scheduler"},
	{Nr: unix.SYS_SCHED_YIELD, Why: "spinning"},
	{Nr: unix.SYS_CLOCK_GETTIME, Why: "where the vDSO has no answer: CPU time clocks"},
	{Nr: unix.SYS_RESTART_SYSCALL, Why: "sleeps that a stop interrupted"},
	{Nr: unix.SYS_MMAP, Args: []seccomp.Cond{seccomp.Clear(2, protExec)}, Why: "heap; page file"},
	{Nr: unix.SYS_MUNMAP, Why: "heap; page file"},
	{Nr: unix.SYS_MADVISE, Why: "heap given back; page file"},
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
	{Nr: unix.SYS_READ, Why: "sockets, wake-ups, donated files"},
	{Nr: unix.SYS_WRITE, Why: "sockets, wake-ups, donated files, a panic's message"},
	{Nr: unix.SYS_CLOSE, Why: "descriptors"},
	{Nr: unix.SYS_FCNTL, Args: []seccomp.Cond{seccomp.Eq(1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_DUPFD_CLOEXEC)}, Why: "descriptors"},
	{Nr: unix.SYS_GETRANDOM, Why: "hash seeds; the guest's getrandom"},
	{Nr: unix.SYS_PRCTL, Args: []seccomp.Cond{seccomp.Eq(0, unix.PR_SET_VMA)}, Why: "names of the heap's mappings"},
	{Nr: unix.SYS_SCHED_GETAFFINITY, Why: "number of CPUs"},
}

// fileRules are for files that the Gofer or the command line gave us, and for
// the page file.
var fileRules = []seccomp.Rule{
	{Nr: unix.SYS_SENDMSG, Why: "9P and control sockets; donated sockets"},
	{Nr: unix.SYS_RECVMSG, Why: "descriptors from the Gofer"},
	{Nr: unix.SYS_PREAD64, Why: "donated files"},
	{Nr: unix.SYS_PWRITE64, Why: "donated files"},
	{Nr: unix.SYS_PREADV, Why: "donated files"},
	{Nr: unix.SYS_PWRITEV, Why: "donated files"},
	{Nr: unix.SYS_READV, Why: "donated streams"},
	{Nr: unix.SYS_WRITEV, Why: "donated streams"},
	{Nr: unix.SYS_LSEEK, Why: "donated files: holes; the shared offset of standard streams"},
	{Nr: unix.SYS_FSTAT, Why: "donated files"},
	{Nr: unix.SYS_FTRUNCATE, Why: "donated files; page file"},
	{Nr: unix.SYS_FALLOCATE, Why: "donated files; holes in the page file"},
	{Nr: unix.SYS_FSYNC, Why: "donated files"},
	{Nr: unix.SYS_FDATASYNC, Why: "donated files"},
	{Nr: unix.SYS_SHUTDOWN, Why: "end of the 9P connection"},
	{Nr: unix.SYS_PPOLL, Why: "is a standard stream ready? its O_NONBLOCK is not ours to set"},
	{Nr: unix.SYS_EPOLL_WAIT, Why: "standard streams: without waiting"},
	{Nr: unix.SYS_PREADV2, Args: []seccomp.Cond{seccomp.Eq(5, unix.RWF_NOWAIT)}, Why: "pipes, without waiting"},
	{Nr: unix.SYS_PWRITEV2, Args: []seccomp.Cond{seccomp.Eq(5, unix.RWF_NOWAIT)}, Why: "pipes, without waiting"},
	{Nr: unix.SYS_IOCTL, Args: []seccomp.Cond{seccomp.Eq(1,
		unix.TCGETS, unix.TCGETS2, unix.TCSETS, unix.TCSETSW, unix.TCSETSF,
		unix.TIOCGWINSZ, unix.TIOCSWINSZ, unix.TIOCINQ, unix.TIOCOUTQ,
		unix.TCFLSH, unix.TCSBRK, unix.TCXONC)}, Why: "the terminal's modes; never TIOCSTI"},
	{Nr: unix.SYS_GETRUSAGE, Why: "CPU time for accounting"},
}

// networkRules are for --network=host only.
var networkRules = []seccomp.Rule{
	{Nr: unix.SYS_SOCKET, Args: []seccomp.Cond{seccomp.Eq(0, unix.AF_INET, unix.AF_INET6), seccomp.Masked(1, 0xf, unix.SOCK_STREAM, unix.SOCK_DGRAM), seccomp.Eq(2, 0, unix.IPPROTO_TCP, unix.IPPROTO_UDP)}, Why: "INET sockets of the container's network"},
	{Nr: unix.SYS_CONNECT, Why: "INET sockets"},
	{Nr: unix.SYS_BIND, Why: "INET sockets"},
	{Nr: unix.SYS_LISTEN, Why: "INET sockets"},
	{Nr: unix.SYS_ACCEPT4, Why: "INET sockets"},
	{Nr: unix.SYS_GETSOCKNAME, Why: "INET sockets"},
	{Nr: unix.SYS_GETPEERNAME, Why: "INET sockets"},
	{Nr: unix.SYS_SETSOCKOPT, Args: []seccomp.Cond{seccomp.Eq(1, unix.SOL_SOCKET, unix.IPPROTO_TCP, unix.IPPROTO_IP, unix.IPPROTO_IPV6)}, Why: "INET sockets"},
	{Nr: unix.SYS_GETSOCKOPT, Args: []seccomp.Cond{seccomp.Eq(1, unix.SOL_SOCKET, unix.IPPROTO_TCP, unix.IPPROTO_IP, unix.IPPROTO_IPV6)}, Why: "INET sockets"},
	{Nr: unix.SYS_SENDTO, Why: "INET sockets"},
	{Nr: unix.SYS_RECVFROM, Why: "INET sockets"},
}

// Rules is the Sentry's allow-list for a platform and a kind of network.
func Rules(platform []seccomp.Rule, hostNetwork bool) []seccomp.Rule {
	var r []seccomp.Rule
	r = append(r, runtimeRules...)
	r = append(r, fileRules...)
	r = append(r, platform...)
	if hostNetwork {
		r = append(r, networkRules...)
	}
	return r
}
