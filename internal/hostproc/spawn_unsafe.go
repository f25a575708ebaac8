package hostproc

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Spawn is a process to start in new namespaces, with few rights from its
// first instruction on. It does what os.StartProcess could not: empty the
// capability bounding set and set no_new_privs while the process has a single
// thread, which costs microseconds. In a running Go process each of these forty
// system calls would stop all threads.
type Spawn struct {
	Argv, Env  []string
	Files      []int // become descriptors 0, 1, ...; nothing else is inherited
	Namespaces uintptr
	// UIDMap and GIDMap are lines for /proc/PID/uid_map and gid_map.
	UIDMap, GIDMap string
	// UID and GID are set, if not negative, inside of the namespaces.
	UID, GID int
	// SetGroups drops the supplementary groups; unprivileged callers can't.
	SetGroups bool
	// Caps are kept over the exec, as inheritable and ambient capabilities.
	Caps uint64
}

// call is one system call of the child.
type call struct {
	nr      uintptr
	a       [6]uintptr
	mayFail uintptr
}

//go:noescape
func forkRun(flags uintptr, calls *call, n uintptr, report *[2]uintptr, reportFD uintptr) (pid int)

// minSource is where the parent's copies of the files lie, above all targets.
const minSource = 128

// program is the child's list of calls, what they point to, and what to say
// when one fails.
type program struct {
	calls []call
	what  []string
	keep  []any // everything that calls point to: on the heap, and alive
}

func (p *program) add(what string, nr uintptr, a ...uintptr) {
	c := call{nr: nr}
	copy(c.a[:], a)
	p.calls = append(p.calls, c)
	p.what = append(p.what, what)
}

func (p *program) optional(what string, nr uintptr, a ...uintptr) {
	p.add(what, nr, a...)
	p.calls[len(p.calls)-1].mayFail = 1
}

// pointer keeps x alive and on the heap, where it does not move.
func pointer[T any](p *program, x *T) uintptr {
	p.keep = append(p.keep, x)
	return uintptr(unsafe.Pointer(x))
}

func (p *program) cstring(s string) uintptr {
	b := append([]byte(s), 0)
	return pointer(p, &b[0])
}

func (p *program) cstrings(l []string) uintptr {
	v := make([]uintptr, len(l)+1)
	for i, s := range l {
		v[i] = p.cstring(s)
	}
	return pointer(p, &v[0])
}

// Start starts the process from our own executable and returns its id. The
// calling goroutine must be locked to a thread that lives as long as the child
// shall: the child is killed when that thread ends (PR_SET_PDEATHSIG).
func (s *Spawn) Start() (int, error) {
	for _, x := range append(append([]string{s.UIDMap, s.GIDMap}, s.Argv...), s.Env...) {
		if strings.IndexByte(x, 0) >= 0 {
			return 0, syscall.EINVAL
		}
	}
	if len(s.Files) >= minSource {
		return 0, syscall.EMFILE
	}
	var sync, report [2]int
	if err := unix.Pipe2(sync[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer func() { unix.Close(sync[0]); unix.Close(sync[1]) }()
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(report[0])
	var sources []int
	defer func() {
		for _, fd := range sources {
			unix.Close(fd)
		}
	}()
	high := func(fd int) (int, error) {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, minSource)
		if err == nil {
			sources = append(sources, n)
		}
		return n, err
	}
	syncFD, err := high(sync[0])
	if err != nil {
		return 0, err
	}
	reportFD, err := high(report[1])
	unix.Close(report[1])
	if err != nil {
		return 0, err
	}
	p := &program{}
	p.add("close the parent's end", unix.SYS_CLOSE, uintptr(sync[1])) // so that its death ends the wait
	p.add("wait for the user namespace's maps", unix.SYS_READ, uintptr(syncFD), pointer(p, new(byte)), 1)
	p.add("start a session", unix.SYS_SETSID)
	p.add("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	if s.SetGroups {
		p.add("drop groups", unix.SYS_SETGROUPS, 0, 0)
	}
	if s.GID >= 0 {
		p.add("set the group", unix.SYS_SETRESGID, uintptr(s.GID), uintptr(s.GID), uintptr(s.GID))
	}
	if s.UID >= 0 {
		p.add("set the user", unix.SYS_SETRESUID, uintptr(s.UID), uintptr(s.UID), uintptr(s.UID))
	}
	p.add("ask to die with the parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	hdr := &capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]capData{}
	for i := range data {
		w := uint32(s.Caps >> (32 * i))
		data[i] = capData{w, w, w}
	}
	p.add("set capabilities", unix.SYS_CAPSET, pointer(p, hdr), pointer(p, &data[0]))
	for c := uintptr(0); c <= lastCap; c++ {
		if s.Caps>>c&1 != 0 {
			p.add("raise an ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
		}
	}
	// Last: what is not in the bounding set can't be made inheritable.
	for c := uintptr(0); c <= lastCap; c++ {
		p.optional("", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c) // EINVAL for those that do not exist
	}
	p.add("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	for to, from := range s.Files {
		src, err := high(from)
		if err != nil {
			return 0, err
		}
		p.add("pass descriptors", unix.SYS_DUP3, uintptr(src), uintptr(to), 0)
	}
	var none uint64
	p.add("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, pointer(p, &none), 0, 8)
	p.add("execute /proc/self/exe", unix.SYS_EXECVE, p.cstring("/proc/self/exe"), p.cstrings(s.Argv), p.cstrings(s.Env))

	pid, err := s.fork(p, reportFD)
	if err != nil {
		return 0, err
	}
	if err := s.writeMaps(pid); err != nil {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		return 0, err
	}
	unix.Write(sync[1], []byte{0})
	for _, fd := range sources { // the report pipe's other end among them: the child's exec closes the last
		unix.Close(fd)
	}
	sources = nil
	var said [16]byte
	n := 0
	for n < len(said) {
		k, err := unix.Read(report[0], said[n:])
		if err == unix.EINTR {
			continue
		}
		if k <= 0 {
			break
		}
		n += k
	}
	if n == 0 {
		return pid, nil
	}
	unix.Wait4(pid, nil, 0, nil)
	w := *(*[2]uint64)(unsafe.Pointer(&said)) // sound: same size; alignment does not matter on amd64
	if w[0] >= uint64(len(p.what)) {
		return 0, syscall.EINVAL
	}
	return 0, fmt.Errorf("%s: %w", p.what[w[0]], syscall.Errno(w[1]))
}

// fork runs the program in a child. No signal handler may run there: they are
// Go's. So all signals are blocked from before the fork until the exec.
func (s *Spawn) fork(p *program, reportFD int) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	report := new([2]uintptr)
	p.keep = append(p.keep, report)
	all, old := ^uint64(0), uint64(0)
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid := forkRun(s.Namespaces|uintptr(unix.SIGCHLD), &p.calls[0], uintptr(len(p.calls)), report, uintptr(reportFD))
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	runtime.KeepAlive(p)
	if pid < 0 {
		return 0, syscall.Errno(-pid)
	}
	return pid, nil
}

// writeMaps gives the child's user namespace its ids (user_namespaces(7)).
func (s *Spawn) writeMaps(pid int) error {
	if s.Namespaces&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	write := func(name, text string) error {
		path := fmt.Sprintf("/proc/%d/%s", pid, name)
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(text))
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("write %q to %s: %w", text, path, err)
		}
		return nil
	}
	if err := write("uid_map", s.UIDMap); err != nil {
		return err
	}
	if !s.SetGroups {
		if err := write("setgroups", "deny"); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return write("gid_map", s.GIDMap)
}
