package kernel

import (
	"garrison/abi"
	"garrison/sentry/usermem"
)

// Args are a system call's arguments as the registers hold them. The accessors
// cut them to the C types that handlers see.
type Args [6]uint64

// FD is argument i as a file descriptor.
func (a *Args) FD(i int) int32 { return int32(a[i]) }

// Int is argument i as a C int.
func (a *Args) Int(i int) int32 { return int32(a[i]) }

// Uint is argument i as a C unsigned int.
func (a *Args) Uint(i int) uint32 { return uint32(a[i]) }

// Int64 is argument i as a C long (also loff_t).
func (a *Args) Int64(i int) int64 { return int64(a[i]) }

// Uint64 is argument i as a C unsigned long.
func (a *Args) Uint64(i int) uint64 { return a[i] }

// Size is argument i as a size_t.
func (a *Args) Size(i int) uint64 { return a[i] }

// Addr is argument i as a pointer.
func (a *Args) Addr(i int) usermem.Addr { return usermem.Addr(a[i]) }

// Mode is argument i as a umode_t.
func (a *Args) Mode(i int) uint16 { return uint16(a[i]) }

// A SyscallFn is a system call's handler. It returns the result register, or
// an abi.Errno (restart codes included), or ErrNoResult.
type SyscallFn func(t *Task, a Args) (uintptr, error)

// ErrNoResult is returned by handlers that have set all registers themselves
// (rt_sigreturn, execve) or that do not return (exit).
var ErrNoResult error = noResult{}

type noResult struct{}

func (noResult) Error() string { return "system call leaves the registers as they are" }

// A Support level says how much of a system call exists.
type Support uint8

// The support levels.
const (
	Full    Support = iota // as Linux does it
	Partial                // Note names what is missing
	Refused                // always fails with Errno; Note says why
)

// An ArgKind says how strace shows an argument.
type ArgKind uint8

// The argument kinds. Kinds ending in Out are shown after the call.
const (
	Hex           ArgKind = iota
	Dec                   // signed int
	Long                  // signed long
	UDec                  // unsigned long
	Oct                   // file mode
	FDArg                 // file descriptor
	DirFD                 // file descriptor or AT_FDCWD
	Ptr                   // pointer, not followed
	PathArg               // NUL-terminated string
	BufIn                 // bytes; the length is the next argument
	BufOut                // bytes; the length is the result
	IovIn                 // struct iovec array; the count is the next argument
	IovOut                // likewise; the bytes are the result
	StrVec                // NULL-terminated array of strings
	StatOut               // struct stat
	StatxOut              // struct statx
	OpenFlags             // O_*
	ATFlags               // AT_*
	Whence                // SEEK_*
	FcntlCmd              // F_*
	IoctlCmd              // request number
	AccessMode            // R_OK|...
	ProtFlags             // PROT_*
	MapFlags              // MAP_*
	MadvArg               // MADV_*
	CloneFlags            // CLONE_*
	WaitFlags             // WNOHANG|...
	WaitStatOut           // int wait status
	SigArg                // signal number
	SigHow                // SIG_BLOCK|...
	SigSetIn              // sigset_t
	SigSetOut             // sigset_t
	SigActIn              // struct sigaction
	SigActOut             // struct sigaction
	SigInfoOut            // siginfo_t
	TimespecIn            // struct timespec
	TimespecOut           // struct timespec
	TimevalIn             // struct timeval
	TimevalOut            // struct timeval
	ItimerIn              // struct itimerval
	ItimerOut             // struct itimerval
	ItimerspecIn          // struct itimerspec
	ItimerspecOut         // struct itimerspec
	ClockID               // CLOCK_*
	FutexOp               // FUTEX_*
	RlimitArg             // RLIMIT_*
	RlimitIn              // struct rlimit
	RlimitOut             // struct rlimit
	RusageOut             // struct rusage
	PrctlOp               // PR_*
	ArchPrctlOp           // ARCH_*
	SockFamily            // AF_*
	SockType              // SOCK_*
	SockLevel             // SOL_*
	SockAddrIn            // struct sockaddr; the length is the next argument
	SockAddrOut           // struct sockaddr; the next argument points to the length
	MsgHdrIn              // struct msghdr
	MsgHdrOut             // struct msghdr
	MsgFlags              // MSG_*
	PollFDs               // struct pollfd array; the count is the next argument
	EpollOp               // EPOLL_CTL_*
	EpollEvIn             // struct epoll_event
	FDPairOut             // int[2]
	UtsOut                // struct utsname
	IntOut                // int
	LongOut               // long
	MountFlags            // MS_*
)

// A Row describes one system call.
type Row struct {
	Nr      uintptr
	Name    string
	Fn      SyscallFn
	Args    []ArgKind
	Support Support
	Note    string    // what is missing (Partial), or why it is refused
	Errno   abi.Errno // what a refused call returns
}
