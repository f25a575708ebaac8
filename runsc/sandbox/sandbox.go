// Package sandbox starts the processes of a sandbox, a Sentry and its Gofer,
// each in namespaces of its own, watches over them, and ends them.
//
// It does not know what a guest is: it hands the Sentry a config.Boot and
// passes control messages on. What the processes take away from themselves
// (root directory, capabilities, system calls) is in runsc/boot and runsc/cmd.
//
// It has no locks; a Sandbox belongs to one goroutine, and the goroutines that
// wait for the processes talk to it over channels.
package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"garrison/internal/hostproc"
	"garrison/runsc/config"
	"garrison/runsc/control"
)

// nobody is who the Sentry is on the host when root starts it.
const nobody = 65534

// Exit statuses of runsc itself, beside the guest's own.
const (
	ExitFailed = 125 // runsc could not do its job; as docker(1) and timeout(1) have it
	ExitKilled = 137 // the sandbox was killed, as if the guest had been: 128+SIGKILL
)

// Args is what a sandbox is made from.
type Args struct {
	Config  *config.Config
	Process config.Process
	Mounts  []config.Mount // Src is opened here; FD is filled in
	Stdio   [3]int         // the guest's, in this process; -1 for none
	TTY     int            // index in Stdio of the controlling terminal, or -1
	Front   bool
}

// A Sandbox is a running Sentry and Gofer.
type Sandbox struct {
	Conn *control.Conn
	// SentryDone and GoferDone yield once, when the process has ended.
	SentryDone, GoferDone <-chan Exit

	sentry, gofer *child
	killed        bool
}

// Exit is how a process of the sandbox ended.
type Exit struct {
	Status unix.WaitStatus
	Output string // the end of what it wrote to its standard error
}

// Start starts the processes. The guest runs once control.Started was received.
func Start(a *Args) (*Sandbox, error) {
	// What our caller left open is not for the sandbox.
	if err := hostproc.CloexecAll(); err != nil {
		return nil, err
	}
	m := &maker{}
	defer m.closeAll()

	ctlCLI, ctlSentry := m.pair(unix.SOCK_STREAM)
	p9Sentry, p9Gofer := m.pair(unix.SOCK_STREAM)
	donateSentry, donateGofer := m.pair(unix.SOCK_SEQPACKET)
	if m.err != nil {
		return nil, fmt.Errorf("make the sockets of the sandbox: %w", m.err)
	}
	ids, err := hostIDs(a.Config)
	if err != nil {
		return nil, err
	}

	now := time.Now()
	boot, goferCfg := a.bootConfig(), a.goferConfig(ids)
	boot.Unmapped = !ids.privileged
	sentryFDs, goferFDs := &fdList{}, &fdList{}
	boot.ControlFD, boot.P9FD, boot.DonateFD = sentryFDs.add(ctlSentry), sentryFDs.add(p9Sentry), sentryFDs.add(donateSentry)
	goferCfg.P9FD, goferCfg.DonateFD = goferFDs.add(p9Gofer), goferFDs.add(donateGofer)
	for i := range a.Mounts {
		mt := &a.Mounts[i]
		fd, err := unix.Open(mt.Src, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s, which the guest is to see at %s: %w", mt.Src, mt.Dst, err)
		}
		m.fds = append(m.fds, fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, fmt.Errorf("look at %s: %w", mt.Src, err)
		}
		mt.IsFile = st.Mode&unix.S_IFMT != unix.S_IFDIR
		mt.FD = goferFDs.add(fd)
	}
	boot.Mounts, goferCfg.Mounts = a.Mounts, a.Mounts
	a.addStdio(boot, sentryFDs)
	if boot.LogFD, err = m.debugLog(a.Config, "boot", now, sentryFDs); err != nil {
		return nil, err
	}
	if goferCfg.LogFD, err = m.debugLog(a.Config, "gofer", now, goferFDs); err != nil {
		return nil, err
	}

	sentry, err := m.child("boot", boot, sentryFDs)
	if err != nil {
		return nil, err
	}
	gofer, err := m.child("gofer", goferCfg, goferFDs)
	if err != nil {
		return nil, err
	}
	ids.sentry(a.Config, &sentry.spawn)
	ids.gofer(&gofer.spawn)

	// Each is started, and waited for, by a goroutine with a thread of its own:
	// the parent-death signal goes by the thread that forked (prctl(2)).
	go sentry.run()
	go gofer.run()
	errS, errG := <-sentry.started, <-gofer.started
	sb := &Sandbox{sentry: sentry, gofer: gofer, SentryDone: sentry.done, GoferDone: gofer.done}
	if errS != nil || errG != nil {
		sb.Kill()
		if errS == nil {
			errS = errG
		}
		return nil, ids.explain(errS)
	}
	m.keep(ctlCLI)
	sb.Conn = control.NewConn(os.NewFile(uintptr(ctlCLI), "control"))
	return sb, nil
}

// Kill ends both processes and, with the Sentry's pid namespace, every stub.
func (s *Sandbox) Kill() {
	if s.killed {
		return
	}
	s.killed = true
	for _, c := range []*child{s.sentry, s.gofer} {
		if c.pid > 0 {
			c.kill()
		}
	}
}

// Reap waits until both processes are gone. Call it after Kill.
func (s *Sandbox) Reap() {
	for _, c := range []*child{s.sentry, s.gofer} {
		if c.pid > 0 {
			<-c.gone
		}
	}
}

// SentryPID is the Sentry's process id on the host.
func (s *Sandbox) SentryPID() int { return s.sentry.pid }

// GoferPID is the Gofer's process id on the host.
func (s *Sandbox) GoferPID() int { return s.gofer.pid }

func (a *Args) bootConfig() *config.Boot {
	b := &config.Boot{Config: *a.Config, Process: a.Process, Terminal: a.TTY >= 0, Front: a.Front, LogFD: -1}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		b.Hostname = unix.ByteSliceToString(uts.Nodename[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		b.MemTotal = info.Totalram * uint64(info.Unit)
	}
	return b
}

func (a *Args) goferConfig(ids *identity) *config.Gofer {
	g := &config.Gofer{LogFD: -1, Debug: a.Config.Debug, Shared: a.Config.FileAccess == "shared", Privileged: ids.privileged}
	return g
}

// addStdio donates the guest's first descriptors, each open file description once.
func (a *Args) addStdio(b *config.Boot, fds *fdList) {
	for i, fd := range a.Stdio {
		b.Stdio[i] = config.Stdio{FD: -1, Same: i}
		if fd < 0 {
			continue
		}
		for j := range i {
			if a.Stdio[j] >= 0 && b.Stdio[j].Same == j && sameFile(a.Stdio[j], fd) {
				b.Stdio[i].Same = j
				break
			}
		}
		if b.Stdio[i].Same == i {
			b.Stdio[i].FD = fds.add(fd)
		} else {
			b.Stdio[i].FD = b.Stdio[b.Stdio[i].Same].FD
		}
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		b.Stdio[i].IsTTY = err == nil
		b.Stdio[i].Name, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
}

// sameFile reports whether two descriptors are one open file description, with
// one offset and one set of status flags.
func sameFile(a, b int) bool {
	if a == b {
		return true
	}
	const kcmpFile = 0
	pid := uintptr(os.Getpid())
	r, _, e := unix.RawSyscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if e == 0 {
		return r == 0
	}
	// A kernel without kcmp(2): an open file description lock taken through
	// one conflicts through the other unless they are the same. Pipes and
	// terminals can't be locked, and have no offset that would matter.
	var sa, sb unix.Stat_t
	if unix.Fstat(a, &sa) != nil || unix.Fstat(b, &sb) != nil || sa.Dev != sb.Dev || sa.Ino != sb.Ino {
		return false
	}
	fa, e1 := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
	fb, e2 := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	return e1 == nil && e2 == nil && fa == fb
}

// A maker collects descriptors that are closed here once the children have them.
type maker struct {
	fds []int
	err error
}

func (m *maker) pair(typ int) (int, int) {
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		m.err = err
		return -1, -1
	}
	m.fds = append(m.fds, p[0], p[1])
	return p[0], p[1]
}

func (m *maker) keep(fd int) {
	for i, f := range m.fds {
		if f == fd {
			m.fds = append(m.fds[:i], m.fds[i+1:]...)
			return
		}
	}
}

func (m *maker) closeAll() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
}

func (m *maker) debugLog(c *config.Config, command string, now time.Time, fds *fdList) (int, error) {
	path := c.DebugLogPath(command, now)
	if path == "" {
		if c.Debug || c.Strace && command == "boot" {
			return fds.add(2), nil // no file was named: the user's standard error
		}
		return -1, nil
	}
	if strings.HasSuffix(c.DebugLog, "/") {
		if err := os.MkdirAll(c.DebugLog, 0o755); err != nil {
			return -1, fmt.Errorf("make the directory for debug logs: %w (see --debug-log)", err)
		}
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, fmt.Errorf("open the debug log %s: %w (see --debug-log)", path, err)
	}
	m.fds = append(m.fds, fd)
	return fds.add(fd), nil
}

// An fdList says which of our descriptors a child gets, from number firstFD on.
type fdList struct{ fds []int }

// ConfigFD is where the children find their configuration; what it lists
// comes after.
const ConfigFD = 3

func (l *fdList) add(fd int) int {
	l.fds = append(l.fds, fd)
	return ConfigFD + len(l.fds)
}

// diagnosis names the setting that keeps users from making namespaces.
func diagnosis() string {
	for _, s := range []struct{ path, bad, name string }{
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces is 0; set it higher, as with `sysctl user.max_user_namespaces=15000`"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0; allow it with `sysctl kernel.unprivileged_userns_clone=1`"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns is 1; set it to 0 or give runsc an AppArmor profile that allows `userns`"},
		{"/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces is 0; set it higher"},
		{"/proc/sys/user/max_pid_namespaces", "0", "user.max_pid_namespaces is 0; set it higher"},
		{"/proc/sys/user/max_mnt_namespaces", "0", "user.max_mnt_namespaces is 0; set it higher"},
	} {
		if b, err := os.ReadFile(s.path); err == nil && strings.TrimSpace(string(b)) == s.bad {
			return s.name
		}
	}
	return ""
}

// lockForever ties the goroutine to its thread until both end.
func lockForever() { runtime.LockOSThread() }
