package sandbox

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"garrison/internal/hostproc"
	"garrison/runsc/config"
)

// identity is who the caller is and which ids may be mapped into namespaces.
type identity struct {
	uid, gid   int
	privileged bool      // root, and not asked to do without
	maps       [2]string // identity maps of all ids that we have: users, groups
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
		var nobodyIn bool
		id.maps[i], nobodyIn = identityMap(string(b))
		id.haveNobody = nobodyIn && (i == 0 || id.haveNobody)
	}
	return id, nil
}

// identityMap makes an identity mapping of all ids that a map file gives us,
// and says whether nobody is among them.
func identityMap(s string) (m string, haveNobody bool) {
	for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
		var in, outside, n int
		if _, err := fmt.Sscan(l, &in, &outside, &n); err == nil {
			m += fmt.Sprintf("%d %d %d\n", in, in, n)
			haveNobody = haveNobody || in <= nobody && nobody-in < n
		}
	}
	return m, haveNobody
}

// namespaces that each process gets of its own. The Gofer keeps its cgroup
// namespace only.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// setUpCaps are what making the root directory empty takes. The processes drop
// them at once.
const setUpCaps = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SETPCAP

// sentry puts the Sentry into new namespaces as a user who owns nothing on the
// host: nobody when root starts it, else the caller.
//
// It gets a session of its own, so that the terminal's signals reach it only
// through the command line, and the terminal's rules for background process
// groups do not apply to it.
func (id *identity) sentry(c *config.Config, s *hostproc.Spawn) {
	s.Namespaces = namespaces
	if c.Network == "host" {
		s.Namespaces &^= unix.CLONE_NEWNET
	}
	s.UID, s.GID = id.uid, id.gid
	if id.privileged && id.haveNobody && othersMayExec() {
		s.UID, s.GID = nobody, nobody
	}
	s.UIDMap, s.GIDMap = oneID(s.UID), oneID(s.GID)
	s.SetGroups = id.privileged
	s.Caps = setUpCaps
}

// gofer puts the Gofer into new namespaces as the caller. When that is root,
// all ids stay what they are, so that files keep their owners.
func (id *identity) gofer(s *hostproc.Spawn) {
	s.Namespaces = namespaces
	s.UID, s.GID = -1, -1
	s.Caps = setUpCaps
	if id.privileged {
		s.UIDMap, s.GIDMap = id.maps[0], id.maps[1]
		s.SetGroups = true
		s.Caps |= fileCaps
		return
	}
	s.UIDMap, s.GIDMap = oneID(id.uid), oneID(id.gid)
}

// fileCaps are the most that a Gofer may keep (gofer.Capabilities).
const fileCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// oneID maps an id to itself.
func oneID(id int) string { return fmt.Sprintf("%d %d 1\n", id, id) }

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
