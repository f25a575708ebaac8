// Package programs runs real programs natively and in the sandbox and compares what they print and how they exit.
//
// It does not test single system calls (test/syscalls).
//
// Lock order: none.
package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"garrison/test/testutil"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testutil.Cleanup()
	os.Exit(code)
}

// outcome is what a program did.
type outcome struct {
	stdout, stderr string
	code           int
	hung           bool
}

// command prepares argv on a platform ("native" for none), with dir as working directory.
func command(t testing.TB, ctx context.Context, platform, dir string, argv ...string) *exec.Cmd {
	t.Helper()
	if platform != "native" {
		runsc, err := testutil.Runsc()
		if err != nil {
			t.Fatal(err)
		}
		argv = append(append([]string{runsc}, testutil.DoArgs(platform)...), argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "LC_ALL=C", "TMPDIR=/tmp", "GREETING=salute", "TERM=dumb"}
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

const limit = 150 * time.Second

func exitCode(err error) int {
	var ee *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0
	case errors.As(err, &ee) && ee.ExitCode() >= 0:
		return ee.ExitCode()
	case errors.As(err, &ee):
		return 128 + int(ee.Sys().(syscall.WaitStatus).Signal())
	}
	return -1
}

func run(t testing.TB, platform, dir string, stdin io.Reader, argv ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := command(t, ctx, platform, dir, argv...)
	var out, diag bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &diag
	err := cmd.Run()
	return outcome{out.String(), diag.String(), exitCode(err), ctx.Err() != nil}
}

// compare runs argv natively and on every platform, each in a fresh directory filled by prepare, and wants the same stdout and
// exit status.
func compare(t *testing.T, prepare func(dir string), argv ...string) {
	t.Helper()
	fresh := func() string {
		// Not t.TempDir, whose name has the test's in it: programs may print it.
		dir, err := os.MkdirTemp("", "prog")
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod(dir, 0o755)
		t.Cleanup(func() { os.RemoveAll(dir) })
		if prepare != nil {
			prepare(dir)
		}
		return dir
	}
	dir := fresh()
	want := run(t, "native", dir, nil, argv...)
	want.stdout = strings.ReplaceAll(want.stdout, dir, "DIR")
	if want.hung || want.stdout == "" {
		t.Fatalf("natively: hung %v, exit %d, no output? stderr: %s", want.hung, want.code, want.stderr)
	}
	for _, p := range testutil.Platforms() {
		t.Run(p, func(t *testing.T) {
			dir := fresh()
			start := time.Now()
			got := run(t, p, dir, nil, argv...)
			got.stdout = strings.ReplaceAll(got.stdout, dir, "DIR")
			if got.hung {
				t.Errorf("still running after %v", limit)
			}
			if got.stdout != want.stdout {
				t.Errorf("stdout differs: %s", difference(want.stdout, got.stdout))
			}
			if got.code != want.code {
				t.Errorf("exit status %d, want %d", got.code, want.code)
			}
			if t.Failed() {
				t.Logf("after %.1fs; stderr: %s\nnative stderr: %s", time.Since(start).Seconds(), testutil.Tail([]byte(got.stderr), 3000), testutil.Tail([]byte(want.stderr), 500))
			}
		})
	}
}

// difference shows the first line that differs.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) {
			return fmt.Sprintf("line %d: want %q, got end of output", i+1, w[i])
		}
		if w[i] != g[i] {
			return fmt.Sprintf("line %d: want %q, got %q", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("line %d: want end of output, got %q", len(w)+1, g[len(w)])
}

func cDir(t testing.TB) string {
	dir, err := testutil.SharedDir("programs")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHello runs one program linked in every usual way.
func TestHello(t *testing.T) {
	for _, v := range []struct {
		name, cc string
		flags    []string
	}{
		{"static", "gcc", []string{"-static", "-no-pie"}},
		{"static-pie", "gcc", []string{"-static-pie"}},
		{"dynamic", "gcc", []string{"-no-pie"}},
		{"pie", "gcc", []string{"-pie", "-fPIE"}},
		{"musl-static", "musl-gcc", []string{"-static"}},
		{"musl-dynamic", "musl-gcc", nil},
	} {
		t.Run(v.name, func(t *testing.T) {
			bin, err := testutil.BuildWith(v.cc, append([]string{"-O1", "-pthread"}, v.flags...), []string{"-lm"}, cDir(t), "testdata/c/hello.c")
			if err != nil {
				t.Fatal(err)
			}
			compare(t, nil, bin)
			compare(t, nil, bin, "37", "more")
		})
	}
}

// TestScripts runs testdata/scripts with bash.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.sh")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		abs, _ := filepath.Abs(f)
		t.Run(strings.TrimSuffix(filepath.Base(f), ".sh"), func(t *testing.T) { compare(t, nil, "bash", abs) })
	}
}

// pythons are the interpreters to try: the distribution's, and another build if one is there.
func pythons() []string {
	list := []string{"/usr/bin/python3"}
	if more, _ := filepath.Glob(os.Getenv("HOME") + "/.pyenv/versions/3.1[23]*/bin/python3"); len(more) > 0 {
		list = append(list, more[len(more)-1])
	}
	return list
}

func TestPython(t *testing.T) {
	files, err := filepath.Glob("testdata/python/*.py")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for i, py := range pythons() {
		for _, f := range files {
			abs, _ := filepath.Abs(f)
			t.Run(fmt.Sprintf("%s-%d", strings.TrimSuffix(filepath.Base(f), "_.py"), i), func(t *testing.T) { compare(t, nil, py, "-u", abs) })
		}
	}
}

// TestGo runs a Go program with many goroutines and os/exec.
func TestGo(t *testing.T) {
	bin := filepath.Join(cDir(t), fmt.Sprintf("goprog-%d", os.Getpid()))
	t.Cleanup(func() { os.Remove(bin) })
	cmd := exec.Command("go", "build", "-o", bin, "./testdata/goprog")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compare(t, nil, bin)
}
