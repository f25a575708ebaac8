package sandbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"garrison/runsc/config"
)

// identity is who the caller is and which ids may be mapped into namespaces.
type identity struct {
	uid, gid   int
	privileged bool // root, and not asked to do without
	ranges     [2][]syscall.SysProcIDMap
	haveNobody bool
}

// hostIDs looks up the caller.
func hostIDs(c *config.Config) (*identity, error) {
	id := &identity{uid: os.Getuid(), gid: os.Getgid()}
	id.privileged = os.Geteuid() == 0 && !c.Rootless
	if !id.privileged {
		return id, nil
	}
	for i, f := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w (is /proc mounted?)", f, err)
		}
		id.ranges[i] = parseIDMap(string(b))
	}
	id.haveNobody = mapped(id.ranges[0], nobody) && mapped(id.ranges[1], nobody)
	return id, nil
}

// parseIDMap makes an identity mapping of all ids that a map file gives us.
func parseIDMap(s string) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
		var in, outside, n int
		if _, err := fmt.Sscan(l, &in, &outside, &n); err == nil {
			out = append(out, syscall.SysProcIDMap{ContainerID: in, HostID: in, Size: n})
		}
	}
	return out
}

func mapped(m []syscall.SysProcIDMap, id int) bool {
	for _, r := range m {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return true
		}
	}
	return false
}

// namespaces that each process gets of its own. The Gofer keeps its cgroup
// namespace only.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// sentryAttr puts the Sentry into new namespaces as a user who owns nothing on
// the host: nobody when root starts it, else the caller.
//
// It gets a session of its own, so that the terminal's signals reach it only
// through the command line, and the terminal's rules for background process
// groups do not apply to it.
func (id *identity) sentryAttr(c *config.Config) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true, Pdeathsig: unix.SIGKILL}
	if c.Network == "host" {
		a.Cloneflags &^= unix.CLONE_NEWNET
	}
	uid, gid := id.uid, id.gid
	if id.privileged && id.haveNobody && othersMayExec() {
		uid, gid = nobody, nobody
	}
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	a.GidMappingsEnableSetgroups = id.privileged
	a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: !id.privileged}
	// Only what making the root empty needs; boot drops them at once.
	a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	return a
}

// goferAttr puts the Gofer into new namespaces as the caller. When that is
// root, all ids stay what they are, so that files keep their owners.
func (id *identity) goferAttr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true, Pdeathsig: unix.SIGKILL}
	if id.privileged {
		a.UidMappings, a.GidMappings = id.ranges[0], id.ranges[1]
		a.GidMappingsEnableSetgroups = true
		return a
	}
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: id.uid, HostID: id.uid, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: id.gid, HostID: id.gid, Size: 1}}
	a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	return a
}

// othersMayExec reports whether our binary can be executed by anybody: the
// Sentry executes it as nobody.
func othersMayExec() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/exe", &st) == nil && st.Mode&0o005 == 0o005
}

// explain says what to do about an error of clone(2).
func (id *identity) explain(err error) error {
	d := diagnosis()
	if d == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, d)
}
