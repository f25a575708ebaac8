package strace

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

// A flag is a bit, or a value, with its name.
type flag struct {
	v    uint64
	name string
}

func flags(v uint64, table []flag, zero string) string {
	var parts []string
	for _, f := range table {
		if f.v != 0 && v&f.v == f.v {
			parts = append(parts, f.name)
			v &^= f.v
		}
	}
	if v != 0 || len(parts) == 0 {
		if v == 0 {
			return zero
		}
		parts = append(parts, "0x"+strconv.FormatUint(v, 16))
	}
	return strings.Join(parts, "|")
}

func value(v uint64, table []flag) string {
	for _, f := range table {
		if f.v == v {
			return f.name
		}
	}
	return strconv.FormatInt(int64(v), 10)
}

var (
	openFlags = []flag{{abi.O_TMPFILE, "O_TMPFILE"}, {abi.O_CREAT, "O_CREAT"}, {abi.O_EXCL, "O_EXCL"}, {abi.O_NOCTTY, "O_NOCTTY"},
		{abi.O_TRUNC, "O_TRUNC"}, {abi.O_APPEND, "O_APPEND"}, {abi.O_NONBLOCK, "O_NONBLOCK"}, {abi.O_SYNC, "O_SYNC"},
		{abi.O_DSYNC, "O_DSYNC"}, {abi.O_ASYNC, "O_ASYNC"}, {abi.O_DIRECT, "O_DIRECT"}, {abi.O_LARGEFILE, "O_LARGEFILE"},
		{abi.O_DIRECTORY, "O_DIRECTORY"}, {abi.O_NOFOLLOW, "O_NOFOLLOW"}, {abi.O_NOATIME, "O_NOATIME"},
		{abi.O_CLOEXEC, "O_CLOEXEC"}, {abi.O_PATH, "O_PATH"}}
	atFlags = []flag{{abi.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"}, {abi.AT_REMOVEDIR, "AT_REMOVEDIR"},
		{abi.AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"}, {abi.AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT"}, {abi.AT_EMPTY_PATH, "AT_EMPTY_PATH"}}
	protFlags = []flag{{abi.PROT_READ, "PROT_READ"}, {abi.PROT_WRITE, "PROT_WRITE"}, {abi.PROT_EXEC, "PROT_EXEC"},
		{abi.PROT_GROWSDOWN, "PROT_GROWSDOWN"}, {abi.PROT_GROWSUP, "PROT_GROWSUP"}}
	mapFlags = []flag{{abi.MAP_SHARED, "MAP_SHARED"}, {abi.MAP_PRIVATE, "MAP_PRIVATE"}, {abi.MAP_FIXED, "MAP_FIXED"},
		{abi.MAP_ANONYMOUS, "MAP_ANONYMOUS"}, {abi.MAP_GROWSDOWN, "MAP_GROWSDOWN"}, {abi.MAP_DENYWRITE, "MAP_DENYWRITE"},
		{abi.MAP_LOCKED, "MAP_LOCKED"}, {abi.MAP_NORESERVE, "MAP_NORESERVE"}, {abi.MAP_POPULATE, "MAP_POPULATE"},
		{abi.MAP_STACK, "MAP_STACK"}, {abi.MAP_HUGETLB, "MAP_HUGETLB"}, {abi.MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"}}
	cloneFlags = []flag{{abi.CLONE_VM, "CLONE_VM"}, {abi.CLONE_FS, "CLONE_FS"}, {abi.CLONE_FILES, "CLONE_FILES"},
		{abi.CLONE_SIGHAND, "CLONE_SIGHAND"}, {abi.CLONE_PIDFD, "CLONE_PIDFD"}, {abi.CLONE_VFORK, "CLONE_VFORK"},
		{abi.CLONE_PARENT, "CLONE_PARENT"}, {abi.CLONE_THREAD, "CLONE_THREAD"}, {abi.CLONE_NEWNS, "CLONE_NEWNS"},
		{abi.CLONE_SYSVSEM, "CLONE_SYSVSEM"}, {abi.CLONE_SETTLS, "CLONE_SETTLS"}, {abi.CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"},
		{abi.CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"}, {abi.CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"},
		{abi.CLONE_NEWUTS, "CLONE_NEWUTS"}, {abi.CLONE_NEWIPC, "CLONE_NEWIPC"}, {abi.CLONE_NEWUSER, "CLONE_NEWUSER"},
		{abi.CLONE_NEWPID, "CLONE_NEWPID"}, {abi.CLONE_NEWNET, "CLONE_NEWNET"}, {17, "SIGCHLD"}}
	waitFlags = []flag{{abi.WNOHANG, "WNOHANG"}, {abi.WSTOPPED, "WSTOPPED"}, {abi.WEXITED, "WEXITED"}, {abi.WCONTINUED, "WCONTINUED"},
		{abi.WNOWAIT, "WNOWAIT"}, {abi.WNOTHREAD, "__WNOTHREAD"}, {abi.WALL, "__WALL"}, {abi.WCLONE, "__WCLONE"}}
	saFlags = []flag{{abi.SA_NOCLDSTOP, "SA_NOCLDSTOP"}, {abi.SA_NOCLDWAIT, "SA_NOCLDWAIT"}, {abi.SA_SIGINFO, "SA_SIGINFO"},
		{abi.SA_RESTORER, "SA_RESTORER"}, {abi.SA_ONSTACK, "SA_ONSTACK"}, {abi.SA_RESTART, "SA_RESTART"},
		{abi.SA_NODEFER, "SA_NODEFER"}, {abi.SA_RESETHAND, "SA_RESETHAND"}}
	msgFlags = []flag{{abi.MSG_PEEK, "MSG_PEEK"}, {abi.MSG_DONTWAIT, "MSG_DONTWAIT"}, {abi.MSG_WAITALL, "MSG_WAITALL"},
		{abi.MSG_NOSIGNAL, "MSG_NOSIGNAL"}, {abi.MSG_TRUNC, "MSG_TRUNC"}, {abi.MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC"}}
	accessFlags = []flag{{4, "R_OK"}, {2, "W_OK"}, {1, "X_OK"}}
	whences     = []flag{{abi.SEEK_SET, "SEEK_SET"}, {abi.SEEK_CUR, "SEEK_CUR"}, {abi.SEEK_END, "SEEK_END"},
		{abi.SEEK_DATA, "SEEK_DATA"}, {abi.SEEK_HOLE, "SEEK_HOLE"}}
	fcntlCmds = []flag{{abi.F_DUPFD, "F_DUPFD"}, {abi.F_GETFD, "F_GETFD"}, {abi.F_SETFD, "F_SETFD"}, {abi.F_GETFL, "F_GETFL"},
		{abi.F_SETFL, "F_SETFL"}, {abi.F_GETLK, "F_GETLK"}, {abi.F_SETLK, "F_SETLK"}, {abi.F_SETLKW, "F_SETLKW"},
		{abi.F_SETOWN, "F_SETOWN"}, {abi.F_GETOWN, "F_GETOWN"}, {abi.F_OFD_GETLK, "F_OFD_GETLK"}, {abi.F_OFD_SETLK, "F_OFD_SETLK"},
		{abi.F_OFD_SETLKW, "F_OFD_SETLKW"}, {abi.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"}, {abi.F_SETPIPE_SZ, "F_SETPIPE_SZ"},
		{abi.F_GETPIPE_SZ, "F_GETPIPE_SZ"}, {abi.F_ADD_SEALS, "F_ADD_SEALS"}, {abi.F_GET_SEALS, "F_GET_SEALS"}}
	ioctlCmds = []flag{{abi.TCGETS, "TCGETS"}, {abi.TCSETS, "TCSETS"}, {abi.TCSETSW, "TCSETSW"}, {abi.TCSETSF, "TCSETSF"},
		{abi.TIOCGWINSZ, "TIOCGWINSZ"}, {abi.TIOCSWINSZ, "TIOCSWINSZ"}, {abi.TIOCGPGRP, "TIOCGPGRP"}, {abi.TIOCSPGRP, "TIOCSPGRP"},
		{abi.TIOCSCTTY, "TIOCSCTTY"}, {abi.TIOCNOTTY, "TIOCNOTTY"}, {abi.FIONREAD, "FIONREAD"}, {abi.FIONBIO, "FIONBIO"},
		{abi.TIOCGPTN, "TIOCGPTN"}, {abi.TIOCSPTLCK, "TIOCSPTLCK"}, {abi.TIOCGPTPEER, "TIOCGPTPEER"}}
	clockIDs = []flag{{0, "CLOCK_REALTIME"}, {1, "CLOCK_MONOTONIC"}, {2, "CLOCK_PROCESS_CPUTIME_ID"}, {3, "CLOCK_THREAD_CPUTIME_ID"},
		{4, "CLOCK_MONOTONIC_RAW"}, {5, "CLOCK_REALTIME_COARSE"}, {6, "CLOCK_MONOTONIC_COARSE"}, {7, "CLOCK_BOOTTIME"}}
	futexOps = []flag{{0, "FUTEX_WAIT"}, {1, "FUTEX_WAKE"}, {3, "FUTEX_REQUEUE"}, {4, "FUTEX_CMP_REQUEUE"}, {5, "FUTEX_WAKE_OP"},
		{6, "FUTEX_LOCK_PI"}, {7, "FUTEX_UNLOCK_PI"}, {9, "FUTEX_WAIT_BITSET"}, {10, "FUTEX_WAKE_BITSET"}}
	rlimits = []flag{{0, "RLIMIT_CPU"}, {1, "RLIMIT_FSIZE"}, {2, "RLIMIT_DATA"}, {3, "RLIMIT_STACK"}, {4, "RLIMIT_CORE"},
		{5, "RLIMIT_RSS"}, {6, "RLIMIT_NPROC"}, {7, "RLIMIT_NOFILE"}, {8, "RLIMIT_MEMLOCK"}, {9, "RLIMIT_AS"}, {10, "RLIMIT_LOCKS"},
		{11, "RLIMIT_SIGPENDING"}, {12, "RLIMIT_MSGQUEUE"}, {13, "RLIMIT_NICE"}, {14, "RLIMIT_RTPRIO"}, {15, "RLIMIT_RTTIME"}}
	prctls = []flag{{abi.PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG"}, {abi.PR_SET_NAME, "PR_SET_NAME"}, {abi.PR_GET_NAME, "PR_GET_NAME"},
		{abi.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"}, {abi.PR_GET_DUMPABLE, "PR_GET_DUMPABLE"}, {abi.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"},
		{abi.PR_SET_VMA, "PR_SET_VMA"}, {abi.PR_CAPBSET_READ, "PR_CAPBSET_READ"}, {abi.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"},
		{abi.PR_SET_CHILD_SUBREAPER, "PR_SET_CHILD_SUBREAPER"}, {abi.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"}}
	archPrctls = []flag{{abi.ARCH_SET_FS, "ARCH_SET_FS"}, {abi.ARCH_GET_FS, "ARCH_GET_FS"}, {abi.ARCH_SET_GS, "ARCH_SET_GS"}, {abi.ARCH_GET_GS, "ARCH_GET_GS"}}
	families   = []flag{{0, "AF_UNSPEC"}, {1, "AF_UNIX"}, {2, "AF_INET"}, {10, "AF_INET6"}, {16, "AF_NETLINK"}, {17, "AF_PACKET"}}
	epollOps   = []flag{{1, "EPOLL_CTL_ADD"}, {2, "EPOLL_CTL_DEL"}, {3, "EPOLL_CTL_MOD"}}
	sigHows    = []flag{{0, "SIG_BLOCK"}, {1, "SIG_UNBLOCK"}, {2, "SIG_SETMASK"}}
	pollEvents = []flag{{1, "POLLIN"}, {2, "POLLPRI"}, {4, "POLLOUT"}, {8, "POLLERR"}, {16, "POLLHUP"}, {32, "POLLNVAL"}, {0x2000, "POLLRDHUP"}}
	epollBits  = []flag{{1, "EPOLLIN"}, {2, "EPOLLPRI"}, {4, "EPOLLOUT"}, {8, "EPOLLERR"}, {16, "EPOLLHUP"}, {0x2000, "EPOLLRDHUP"},
		{1 << 31, "EPOLLET"}, {1 << 30, "EPOLLONESHOT"}, {1 << 28, "EPOLLEXCLUSIVE"}}
)

func openFlagNames(v uint64) string {
	mode := [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}[v&3]
	if v &^= 3; v == 0 {
		return mode
	}
	return mode + "|" + flags(v, openFlags, "")
}

func sigSetNames(s abi.SigSet) string {
	if s == ^abi.SigSet(0) {
		return "~[]"
	}
	var parts []string
	for i := int32(1); i <= abi.NSIG; i++ {
		if s.Has(i) {
			parts = append(parts, strings.TrimPrefix(abi.SignalName(i), "SIG"))
		}
	}
	return "[" + strings.Join(parts, " ") + "]"
}

// formatIn shows an argument as it is when the call begins.
func formatIn(t *kernel.Task, k kernel.ArgKind, a *kernel.Args, i int) string {
	v := a[i]
	next := uint64(0)
	if i < 5 {
		next = a[i+1]
	}
	switch k {
	case kernel.Dec:
		return strconv.Itoa(int(int32(v)))
	case kernel.Long:
		return strconv.FormatInt(int64(v), 10)
	case kernel.UDec:
		return strconv.FormatUint(v, 10)
	case kernel.Oct:
		return "0" + strconv.FormatUint(v&0xffff, 8)
	case kernel.FDArg:
		return strconv.Itoa(int(int32(v)))
	case kernel.DirFD:
		if int32(v) == abi.AT_FDCWD {
			return "AT_FDCWD"
		}
		return strconv.Itoa(int(int32(v)))
	case kernel.Ptr:
		return pointer(v)
	case kernel.PathArg:
		return stringAt(t, v, abi.PATH_MAX)
	case kernel.BufIn:
		return bytesAt(t, v, next)
	case kernel.IovIn:
		return iov(t, v, next, ^uint64(0))
	case kernel.StrVec:
		return strVec(t, v)
	case kernel.OpenFlags:
		return openFlagNames(v)
	case kernel.ATFlags:
		return flags(v, atFlags, "0")
	case kernel.Whence:
		return value(v, whences)
	case kernel.FcntlCmd:
		return value(v, fcntlCmds)
	case kernel.IoctlCmd:
		for _, f := range ioctlCmds {
			if f.v == v&0xffffffff {
				return f.name
			}
		}
		return pointer(v)
	case kernel.AccessMode:
		return flags(v, accessFlags, "F_OK")
	case kernel.ProtFlags:
		return flags(v, protFlags, "PROT_NONE")
	case kernel.MapFlags:
		return flags(v, mapFlags, "0")
	case kernel.CloneFlags:
		return flags(v, cloneFlags, "0")
	case kernel.WaitFlags:
		return flags(v, waitFlags, "0")
	case kernel.SigArg:
		return abi.SignalName(int32(v))
	case kernel.SigHow:
		return value(v, sigHows)
	case kernel.SigSetIn:
		return sigSetAt(t, v)
	case kernel.SigActIn:
		return sigActAt(t, v)
	case kernel.TimespecIn:
		return words(t, v, 2, "{tv_sec=%d, tv_nsec=%d}")
	case kernel.TimevalIn:
		return words(t, v, 2, "{tv_sec=%d, tv_usec=%d}")
	case kernel.ItimerIn:
		return words(t, v, 4, "{it_interval={%d, %d}, it_value={%d, %d}}")
	case kernel.ItimerspecIn:
		return words(t, v, 4, "{it_interval={%d, %d}, it_value={%d, %d}}")
	case kernel.ClockID:
		return value(uint64(int64(int32(v))), clockIDs)
	case kernel.FutexOp:
		s := value(v&^(abi.FUTEX_PRIVATE_FLAG|abi.FUTEX_CLOCK_REALTIME), futexOps)
		if v&abi.FUTEX_PRIVATE_FLAG != 0 {
			s += "_PRIVATE"
		}
		if v&abi.FUTEX_CLOCK_REALTIME != 0 {
			s += "|FUTEX_CLOCK_REALTIME"
		}
		return s
	case kernel.RlimitArg:
		return value(v, rlimits)
	case kernel.RlimitIn:
		return rlimitAt(t, v)
	case kernel.PrctlOp:
		return value(v, prctls)
	case kernel.ArchPrctlOp:
		return value(v, archPrctls)
	case kernel.SockFamily:
		return value(v, families)
	case kernel.SockType:
		s := value(v&0xf, []flag{{1, "SOCK_STREAM"}, {2, "SOCK_DGRAM"}, {3, "SOCK_RAW"}, {5, "SOCK_SEQPACKET"}})
		if v&abi.SOCK_CLOEXEC != 0 {
			s += "|SOCK_CLOEXEC"
		}
		if v&abi.SOCK_NONBLOCK != 0 {
			s += "|SOCK_NONBLOCK"
		}
		return s
	case kernel.SockLevel:
		return value(v, []flag{{1, "SOL_SOCKET"}, {0, "SOL_IP"}, {6, "SOL_TCP"}, {17, "SOL_UDP"}, {41, "SOL_IPV6"}})
	case kernel.SockAddrIn:
		return sockAddr(t, v, next)
	case kernel.MsgHdrIn:
		return msgHdr(t, v)
	case kernel.MsgFlags:
		return flags(v&0xffffffff, msgFlags, "0")
	case kernel.EpollOp:
		return value(v, epollOps)
	case kernel.EpollEvIn:
		var b [12]byte
		if m := memory(t); v == 0 || m == nil {
			return pointer(v)
		} else if _, err := m.CopyIn(usermem.Addr(v), b[:]); err != nil {
			return pointer(v)
		}
		return fmt.Sprintf("{events=%s, data=%#x}", flags(uint64(binary.LittleEndian.Uint32(b[:])), epollBits, "0"), binary.LittleEndian.Uint64(b[4:]))
	}
	return pointer0(v)
}

func pointer0(v uint64) string {
	if v == 0 {
		return "0"
	}
	return pointer(v)
}

// formatOut shows an argument that the call has filled in.
func formatOut(t *kernel.Task, k kernel.ArgKind, a *kernel.Args, i int, ret uintptr) string {
	v := a[i]
	m := memory(t)
	if v == 0 || m == nil {
		return pointer(v)
	}
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := m.CopyIn(usermem.Addr(v), b); err != nil {
			return nil
		}
		return b
	}
	le := binary.LittleEndian
	switch k {
	case kernel.BufOut:
		return bytesAt(t, v, uint64(ret))
	case kernel.IovOut:
		return iov(t, v, a[min(i+1, 5)], uint64(ret))
	case kernel.StatOut:
		if b := read(64); b != nil {
			return fmt.Sprintf("{st_mode=0%o, st_size=%d, ...}", le.Uint32(b[24:]), le.Uint64(b[48:]))
		}
	case kernel.StatxOut:
		if b := read(64); b != nil {
			return fmt.Sprintf("{stx_mode=0%o, stx_size=%d, ...}", le.Uint16(b[28:]), le.Uint64(b[40:]))
		}
	case kernel.WaitStatOut:
		if b := read(4); b != nil && ret != 0 {
			return fmt.Sprintf("[%#x]", le.Uint32(b))
		}
	case kernel.SigSetOut:
		return sigSetAt(t, v)
	case kernel.SigActOut:
		return sigActAt(t, v)
	case kernel.SigInfoOut:
		if b := read(abi.SigInfoSize); b != nil {
			var s abi.SigInfo
			s.UnmarshalFrom(b)
			return fmt.Sprintf("{si_signo=%s, si_code=%d, si_pid=%d}", abi.SignalName(s.Signo), s.Code, s.PID())
		}
	case kernel.TimespecOut:
		return words(t, v, 2, "{tv_sec=%d, tv_nsec=%d}")
	case kernel.TimevalOut:
		return words(t, v, 2, "{tv_sec=%d, tv_usec=%d}")
	case kernel.ItimerOut, kernel.ItimerspecOut:
		return words(t, v, 4, "{it_interval={%d, %d}, it_value={%d, %d}}")
	case kernel.RlimitOut:
		return rlimitAt(t, v)
	case kernel.SockAddrOut:
		n := uint32(0)
		if i < 5 && a[i+1] != 0 {
			n, _ = usermem.CopyInUint32(m, usermem.Addr(a[i+1]))
		}
		return sockAddr(t, v, uint64(n))
	case kernel.MsgHdrOut:
		return msgHdr(t, v)
	case kernel.FDPairOut:
		if b := read(8); b != nil {
			return fmt.Sprintf("[%d, %d]", int32(le.Uint32(b)), int32(le.Uint32(b[4:])))
		}
	case kernel.IntOut:
		if b := read(4); b != nil {
			return fmt.Sprintf("[%d]", int32(le.Uint32(b)))
		}
	case kernel.LongOut:
		if b := read(8); b != nil {
			return fmt.Sprintf("[%d]", int64(le.Uint64(b)))
		}
	case kernel.PollFDs:
		var parts []string
		for j := uint64(0); j < min(a[min(i+1, 5)], 8); j++ {
			var b [8]byte
			if _, err := m.CopyIn(usermem.Addr(v+8*j), b[:]); err != nil {
				break
			}
			parts = append(parts, fmt.Sprintf("{fd=%d, events=%s, revents=%s}", int32(le.Uint32(b[:])),
				flags(uint64(le.Uint16(b[4:])), pollEvents, "0"), flags(uint64(le.Uint16(b[6:])), pollEvents, "0")))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return pointer(v)
}

// words shows n doublewords of memory in a format.
func words(t *kernel.Task, addr uint64, n int, format string) string {
	m := memory(t)
	if addr == 0 || m == nil {
		return pointer(addr)
	}
	b := make([]byte, 8*n)
	if _, err := m.CopyIn(usermem.Addr(addr), b); err != nil {
		return pointer(addr)
	}
	v := make([]any, n)
	for i := range v {
		v[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return fmt.Sprintf(format, v...)
}

func rlimitAt(t *kernel.Task, addr uint64) string {
	return strings.ReplaceAll(words(t, addr, 2, "{rlim_cur=%d, rlim_max=%d}"), "=-1", "=RLIM64_INFINITY")
}

func sigSetAt(t *kernel.Task, addr uint64) string {
	m := memory(t)
	if addr == 0 || m == nil {
		return pointer(addr)
	}
	v, err := usermem.CopyInUint64(m, usermem.Addr(addr))
	if err != nil {
		return pointer(addr)
	}
	return sigSetNames(abi.SigSet(v))
}

func sigActAt(t *kernel.Task, addr uint64) string {
	m := memory(t)
	if addr == 0 || m == nil {
		return pointer(addr)
	}
	var b [abi.SigActionSize]byte
	if _, err := m.CopyIn(usermem.Addr(addr), b[:]); err != nil {
		return pointer(addr)
	}
	var s abi.SigAction
	s.UnmarshalFrom(b[:])
	h := pointer(s.Handler)
	switch s.Handler {
	case abi.SIG_DFL:
		h = "SIG_DFL"
	case abi.SIG_IGN:
		h = "SIG_IGN"
	}
	return fmt.Sprintf("{sa_handler=%s, sa_mask=%s, sa_flags=%s}", h, sigSetNames(s.Mask), flags(s.Flags, saFlags, "0"))
}

func strVec(t *kernel.Task, addr uint64) string {
	m := memory(t)
	if addr == 0 || m == nil {
		return pointer(addr)
	}
	var parts []string
	for i := uint64(0); i < 16; i++ {
		p, err := usermem.CopyInUint64(m, usermem.Addr(addr+8*i))
		if err != nil {
			return pointer(addr)
		}
		if p == 0 {
			return "[" + strings.Join(parts, ", ") + "]"
		}
		parts = append(parts, stringAt(t, p, 256))
	}
	return "[" + strings.Join(parts, ", ") + ", ...]"
}

func iov(t *kernel.Task, addr, n, limit uint64) string {
	m := memory(t)
	if addr == 0 || m == nil || n > 1024 {
		return pointer(addr)
	}
	r, err := usermem.CopyInRanges(m, usermem.Addr(addr), int(n))
	if err != nil {
		return pointer(addr)
	}
	var parts []string
	for i, x := range r {
		if i == 4 {
			parts = append(parts, "...")
			break
		}
		l := min(x.Len, limit)
		parts = append(parts, fmt.Sprintf("{%s, %d}", bytesAt(t, uint64(x.Addr), l), x.Len))
		limit -= l
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func msgHdr(t *kernel.Task, addr uint64) string {
	m := memory(t)
	if addr == 0 || m == nil {
		return pointer(addr)
	}
	var b [56]byte
	if _, err := m.CopyIn(usermem.Addr(addr), b[:]); err != nil {
		return pointer(addr)
	}
	le := binary.LittleEndian
	return fmt.Sprintf("{msg_name=%s, msg_iov=%s, msg_controllen=%d, msg_flags=%s}",
		sockAddr(t, le.Uint64(b[:]), uint64(le.Uint32(b[8:]))), iov(t, le.Uint64(b[16:]), le.Uint64(b[24:]), ^uint64(0)),
		le.Uint64(b[40:]), flags(uint64(le.Uint32(b[48:])), msgFlags, "0"))
}

func sockAddr(t *kernel.Task, addr, n uint64) string {
	m := memory(t)
	if addr == 0 || m == nil || n < 2 {
		return pointer(addr)
	}
	b := make([]byte, min(n, 128))
	if _, err := m.CopyIn(usermem.Addr(addr), b); err != nil {
		return pointer(addr)
	}
	switch f := binary.LittleEndian.Uint16(b); {
	case f == abi.AF_UNIX:
		path := b[2:]
		if len(path) > 0 && path[0] == 0 {
			return "{AF_UNIX, @" + quote(path[1:], false) + "}"
		}
		if i := strings.IndexByte(string(path), 0); i >= 0 {
			path = path[:i]
		}
		return "{AF_UNIX, " + quote(path, false) + "}"
	case f == abi.AF_INET && len(b) >= 8:
		return fmt.Sprintf("{AF_INET, %d.%d.%d.%d:%d}", b[4], b[5], b[6], b[7], int(b[2])<<8|int(b[3]))
	case f == abi.AF_INET6 && len(b) >= 24:
		return fmt.Sprintf("{AF_INET6, [%x]:%d}", b[8:24], int(b[2])<<8|int(b[3]))
	default:
		return fmt.Sprintf("{%s, ...}", value(uint64(f), families))
	}
}
