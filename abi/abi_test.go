package abi

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestConstantsAreCurrent runs the generator and compares: the checked-in
// constants are what this host's headers say.
func TestConstantsAreCurrent(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Fatal("this test compares the constants with the C headers and needs gcc: run it by `make test`, which installs it")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "garrison/internal/genabi", "-dir", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("genabi: %v\n%s", err, out)
	}
	for _, name := range []string{"zconsts.go", "zerrno.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what the headers say: run `go generate ./abi` and look at the difference", name)
		}
	}
}

func TestFromHost(t *testing.T) {
	for _, tc := range []struct {
		in, want error
	}{
		{nil, nil},
		{syscall.ENOENT, ENOENT},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.ELOOP}, ELOOP},
		{ERESTARTSYS, ERESTARTSYS},
		{os.ErrClosed, EIO},
	} {
		if got := FromHost(tc.in); got != tc.want {
			t.Errorf("FromHost(%v) = %v, want %v", tc.in, got, tc.want)
		}
	}
}

func TestErrnoNames(t *testing.T) {
	for e, want := range map[Errno]string{EPERM: "EPERM (1)", EAGAIN: "EAGAIN (11)", ERESTARTSYS: "ERESTARTSYS (512)", 999: "E999 (999)"} {
		if got := e.Error(); got != want {
			t.Errorf("Errno(%d).Error() = %q, want %q", uint16(e), got, want)
		}
	}
}
