package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/internal/hostproc"
	"garrison/runsc/config"
)

func TestIdentityMap(t *testing.T) {
	for _, tc := range []struct {
		in, out string
		nobody  bool
	}{
		{"         0          0 4294967295\n", "0 0 4294967295\n", true},
		{"0 1000 1\n1 100000 65536\n", "0 0 1\n1 1 65536\n", true},
		{"0 1000 1\n", "0 0 1\n", false},
		{"0 100000 65534\n", "0 0 65534\n", false},
		{"", "", false},
	} {
		m, nobody := identityMap(tc.in)
		if m != tc.out || nobody != tc.nobody {
			t.Errorf("%q: %q, %v; want %q, %v", tc.in, m, nobody, tc.out, tc.nobody)
		}
	}
}

func TestSentryIsNobodyOnTheHost(t *testing.T) {
	for _, tc := range []struct {
		id   identity
		uid  int
		caps uint64
	}{
		{identity{uid: 0, privileged: true, haveNobody: true}, nobody, setUpCaps},
		{identity{uid: 0, privileged: true}, 0, setUpCaps},
		{identity{uid: 1000, gid: 1000}, 1000, setUpCaps},
	} {
		var s, g hostproc.Spawn
		tc.id.sentry(config.Default(), &s)
		tc.id.gofer(&g)
		if s.UID != tc.uid || s.Caps != tc.caps || s.Namespaces != namespaces || s.SetGroups != tc.id.privileged {
			t.Errorf("%+v: Sentry %+v", tc.id, s)
		}
		if g.Namespaces != namespaces || (g.Caps&fileCaps != 0) != tc.id.privileged {
			t.Errorf("%+v: Gofer %+v", tc.id, g)
		}
	}
	var s hostproc.Spawn
	c := config.Default()
	c.Network = "host"
	(&identity{}).sentry(c, &s)
	if s.Namespaces&unix.CLONE_NEWNET != 0 {
		t.Error("--network=host: the Sentry still gets a network of its own")
	}
}

func TestSameFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	a, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, _ := os.OpenFile(path, os.O_RDWR, 0)
	defer b.Close()
	dup, _ := unix.Dup(int(a.Fd()))
	defer unix.Close(dup)
	if !sameFile(int(a.Fd()), dup) {
		t.Error("a duplicate is not recognised")
	}
	if sameFile(int(a.Fd()), int(b.Fd())) {
		t.Error("two opens of one file pass for one open file description")
	}
}

// TestSpawnErrors: what goes wrong in the child is said with the step's name.
func TestSpawnErrors(t *testing.T) {
	s := hostproc.Spawn{Argv: []string{"x"}, Files: []int{0, 1, 2}, UID: -1, GID: -1, SetGroups: os.Getuid() == 0, Caps: 1 << 62}
	if pid, err := s.Start(); err == nil || !strings.Contains(err.Error(), "capabilit") {
		t.Errorf("a capability that does not exist: process %d, %v", pid, err)
	}
	s = hostproc.Spawn{Argv: []string{"x"}, Files: []int{1 << 20}}
	if _, err := s.Start(); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that is not open: %v", err)
	}
	s = hostproc.Spawn{Argv: []string{"x\x00y"}}
	if _, err := s.Start(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an argument with a NUL: %v", err)
	}
}

func TestFDList(t *testing.T) {
	l := &fdList{}
	if a, b := l.add(17), l.add(5); a != ConfigFD+1 || b != ConfigFD+2 || l.fds[0] != 17 {
		t.Errorf("%d, %d, %v", a, b, l.fds)
	}
}
