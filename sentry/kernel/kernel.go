// Package kernel is processes: tasks, thread groups, process groups and
// sessions, signals, futexes, timers, credentials' owners and the loop that
// runs guest code and dispatches its system calls.
//
// It knows no file system and no socket family; those are given to it as
// interfaces by runsc/boot. The meaning of each system call is in package
// syscalls. No state of a task lives only on its goroutine's stack: a blocked
// call is unwound by an interruption and restarts from the Task's fields.
//
// Lock order: Kernel.tasks (the tree of tasks, groups, sessions, pids, exit and
// wait), then ThreadGroup.sig.mu (pending signals, masks, stops), then
// SignalHandlers.mu, then leaves (wait.Queue, Timer.mu). Futex buckets come
// above the memory manager's locks and are taken with none of these held.
// Ordinary system calls take none of them.
package kernel

import (
	"io"
	"log"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/cred"
	"garrison/sentry/loader"
	"garrison/sentry/pagefile"
	"garrison/sentry/vfs"
)

// A Config is what a Kernel is made from.
type Config struct {
	Platform platform.Platform
	PageFile *pagefile.File
	VFS      *vfs.VFS
	// Table is the system call table, indexed by number.
	Table []Row
	// Network is the socket families (socket.Families); the kernel only hands
	// it to the system calls.
	Network any
	// Log takes the kernel's own messages; nil discards them.
	Log io.Writer
	// Strace, if not nil, sees every system call.
	Strace Tracer
	// Hostname and Domainname start out as the UTS names.
	Hostname, Domainname string
	// CPUs is the number of CPUs that guests see; 0 means the host's.
	CPUs int
	// TotalMemory is the memory that guests see, in bytes.
	TotalMemory uint64
	// MaxTasks bounds the number of threads (kernel.threads-max); 0 means 4000.
	// Each takes two of the host's.
	MaxTasks int
	// OnPanic is called with a message when the kernel's own invariants broke,
	// before the process ends. It may be nil.
	OnPanic func(msg string)
}

// A Tracer sees system calls: package strace implements it.
type Tracer interface {
	// Enter is called before the handler; what it returns is given to Exit.
	Enter(t *Task, row *Row, nr uintptr, a *Args) any
	Exit(t *Task, row *Row, nr uintptr, a *Args, state any, ret uintptr, err error, elapsedNs int64)
	// Event notes what is not a call: signals, exits.
	Event(t *Task, msg string)
}

// A Kernel is one sandbox's kernel.
type Kernel struct {
	platform platform.Platform
	pageFile *pagefile.File
	vfs      *vfs.VFS
	table    []Row
	loader   *loader.Loader
	strace   Tracer
	log      *log.Logger
	onPanic  func(string)
	network  any

	cpus        int
	totalMemory uint64
	maxTasks    int
	rootUserNS  *cred.UserNamespace
	rootUTS     *UTSNamespace
	rootPIDNS   *PIDNamespace
	futexes     futexTable
	workers     workers
	clock       Clocks
	load        loadAverage
	cookies     atomic.Uint64
	users       userTable

	// tasks guards the tree: parents and children, thread groups' members,
	// process groups, sessions, terminals, pid numbers and exit states.
	tasks       sync.RWMutex
	init        *ThreadGroup // pid 1 of the sandbox
	liveTasks   int          // tasks whose goroutine runs
	allGone     chan struct{}
	killed      bool // no new processes
	initStopped func(stopped bool, sig int32)
}

// New makes a kernel without processes.
func New(c Config) (*Kernel, error) {
	l, err := loader.New(c.PageFile, c.Platform)
	if err != nil {
		return nil, err
	}
	k := &Kernel{
		loader:   l,
		platform: c.Platform, pageFile: c.PageFile, vfs: c.VFS, table: c.Table, strace: c.Strace,
		onPanic: c.OnPanic, network: c.Network, cpus: c.CPUs, totalMemory: c.TotalMemory,
		rootUserNS: &cred.UserNamespace{}, rootUTS: &UTSNamespace{},
		allGone: make(chan struct{}, 1),
	}
	w := c.Log
	if w == nil {
		w = io.Discard
	}
	k.log = log.New(w, "", log.Lmicroseconds)
	if k.cpus <= 0 {
		k.cpus = runtime.NumCPU()
	}
	if k.totalMemory == 0 {
		k.totalMemory = 2 << 30
	}
	if k.maxTasks = c.MaxTasks; k.maxTasks <= 0 {
		k.maxTasks = 4000
	}
	// Tasks keep operating system threads to themselves; running out of them
	// would end the process.
	debug.SetMaxThreads(2*k.maxTasks + 10_000)
	k.rootUTS.Set(c.Hostname, c.Domainname)
	k.rootPIDNS = newPIDNamespace(nil)
	k.clock.init()
	return k, nil
}

// Platform, PageFile and VFS are what the kernel was made from.
func (k *Kernel) Platform() platform.Platform { return k.platform }
func (k *Kernel) PageFile() *pagefile.File    { return k.pageFile }
func (k *Kernel) VFS() *vfs.VFS               { return k.vfs }

// Network is Config.Network.
func (k *Kernel) Network() any { return k.network }

// RootUserNamespace is where the sandbox's capabilities hold.
func (k *Kernel) RootUserNamespace() *cred.UserNamespace { return k.rootUserNS }

// RootPIDNamespace holds all processes.
func (k *Kernel) RootPIDNamespace() *PIDNamespace { return k.rootPIDNS }

// CPUs is the number of CPUs that guests see, TotalMemory the bytes of memory.
func (k *Kernel) CPUs() int           { return k.cpus }
func (k *Kernel) TotalMemory() uint64 { return k.totalMemory }

// Clocks are the kernel's clocks.
func (k *Kernel) Clocks() *Clocks { return &k.clock }

// Logf writes to the kernel's log.
func (k *Kernel) Logf(format string, args ...any) { k.log.Printf(format, args...) }

// UniqueID returns a number that no other call returns (inode numbers of
// anonymous objects, socket cookies).
func (k *Kernel) UniqueID() uint64 { return k.cookies.Add(1) }

// Init is the thread group with pid 1, or nil.
func (k *Kernel) Init() *ThreadGroup {
	k.tasks.RLock()
	defer k.tasks.RUnlock()
	return k.init
}

// OnInitStopped sets a function that is told when the init process is stopped
// by a signal, or continued. It is called without locks.
func (k *Kernel) OnInitStopped(f func(stopped bool, sig int32)) {
	k.tasks.Lock()
	defer k.tasks.Unlock()
	k.initStopped = f
}

// A UTSNamespace holds the host's names (uts_namespaces(7)).
type UTSNamespace struct {
	mu               sync.Mutex
	hostname, domain string
}

// Set sets both names.
func (u *UTSNamespace) Set(host, domain string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hostname, u.domain = host, domain
	if u.domain == "" {
		u.domain = "(none)"
	}
}

// SetHostname and SetDomainname set one.
func (u *UTSNamespace) SetHostname(s string)   { u.mu.Lock(); u.hostname = s; u.mu.Unlock() }
func (u *UTSNamespace) SetDomainname(s string) { u.mu.Lock(); u.domain = s; u.mu.Unlock() }

// copy makes a namespace with the same names.
func (u *UTSNamespace) copy() *UTSNamespace {
	h, d := u.Names()
	return &UTSNamespace{hostname: h, domain: d}
}

// Names returns the host and domain name.
func (u *UTSNamespace) Names() (host, domain string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.hostname, u.domain
}

// Release is the Linux release that we report: features of this version may be
// probed for by programs that look at it.
const Release = "6.1.0-garrison"

// Utsname is what uname(2) shows in u.
func (u *UTSNamespace) Utsname() abi.Utsname {
	h, d := u.Names()
	return abi.Utsname{Sysname: "Linux", Nodename: h, Release: Release,
		Version: Version, Machine: "x86_64", Domainname: d}
}
