package programs

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"garrison/test/testutil"
)

// runsc runs the binary with flags of its own.
func runscDo(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	bin, err := testutil.Runsc()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = dir
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	cmd.WaitDelay = 3 * time.Second
	err = cmd.Run()
	return outcome{out.String(), diag.String(), exitCode(err), ctx.Err() != nil}
}

func TestFlags(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		os.MkdirAll(filepath.Join(dir, "sub"), 0o755)
		platform := "--platform=" + p
		for _, v := range []struct {
			name string
			args []string
			want string
			code int
			say  string // in stderr
		}{
			{"cwd", []string{"--cwd", dir + "/sub", "--", "pwd"}, dir + "/sub\n", 0, ""},
			{"cwd missing", []string{"--cwd", "/no/such/dir", "--", "pwd"}, "", 125, "/no/such/dir"},
			{"env", []string{"--env", "A=1", "--env", "B=x y", "--", "sh", "-c", "echo $A $B"}, "1 x y\n", 0, ""},
			{"env malformed", []string{"--env", "novalue", "--", "true"}, "", 125, "novalue"},
			{"volume missing", []string{"--volume", "/no/such:/mnt", "--", "true"}, "", 125, "/no/such"},
			{"unknown flag", []string{"--no-such-flag", "--", "true"}, "", 2, "no-such-flag"},
			{"no command", nil, "", 2, "command"},
			{"flags end", []string{"--", "echo", "--cwd"}, "--cwd\n", 0, ""},
		} {
			t.Run(v.name, func(t *testing.T) {
				got := runscDo(t, dir, append([]string{"do", platform}, v.args...)...)
				if got.stdout != v.want || got.code != v.code || !strings.Contains(got.stderr, v.say) {
					t.Errorf("got %+v; want %q, status %d, %q in stderr", got, v.want, v.code, v.say)
				}
			})
		}
	})
	if got := runscDo(t, t.TempDir(), "do", "--platform=nonesuch", "--", "true"); got.code == 0 || !strings.Contains(got.stderr, "nonesuch") {
		t.Errorf("unknown platform: %+v", got)
	}
}

func TestOverlayNone(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		got := runscDo(t, dir, "do", "--platform="+p, "--overlay2=none", "--", "sh", "-c", "echo kept > f; mkdir d; ln -s f l; mv f d/g; chmod 600 d/g; cat d/g")
		b, err := os.ReadFile(filepath.Join(dir, "d/g"))
		if got.stdout != "kept\n" || err != nil || string(b) != "kept\n" {
			t.Errorf("%+v, on the host %q, %v", got, b, err)
		}
		if i, err := os.Stat(filepath.Join(dir, "d/g")); err != nil || i.Mode().Perm() != 0o600 {
			t.Error(i, err)
		}
		if l, err := os.Readlink(filepath.Join(dir, "l")); l != "f" {
			t.Error(l, err)
		}
	})
}

// TestNetwork reaches a server of the host with --network=host, and must not with none.
func TestNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("from the host\n"))
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	script := "read x < /dev/tcp/127.0.0.1/" + port + " && echo $x"
	onPlatforms(t, func(t *testing.T, p string) {
		if got := runscDo(t, t.TempDir(), "do", "--platform="+p, "--network=none", "--", "bash", "-c", script); got.stdout != "" || got.code == 0 {
			t.Errorf("none: %+v", got)
		}
		if got := runscDo(t, t.TempDir(), "do", "--platform="+p, "--network=host", "--", "bash", "-c", script); got.stdout != "from the host\n" {
			t.Errorf("host: %+v", got)
		}
	})
}

func TestStraceAndDebugLog(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		log := filepath.Join(t.TempDir(), "log")
		got := runscDo(t, t.TempDir(), "do", "--platform="+p, "--strace", "--debug", "--debug-log="+log, "--", "cat", "/etc/hostname")
		b, err := os.ReadFile(log)
		if err != nil || got.code != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, want := range []string{"openat", "/etc/hostname", "exit_group"} {
			if !bytes.Contains(b, []byte(want)) {
				t.Errorf("no %s in the log: %s", want, testutil.Tail(b, 2000))
			}
		}
	})
}

func TestCLI(t *testing.T) {
	for _, v := range []struct {
		args []string
		want []string
	}{
		{[]string{"help"}, []string{"do", "platforms", "syscalls"}},
		{[]string{"help", "do"}, []string{"--volume", "Runs CMD"}},
		{[]string{"syscalls"}, []string{"openat", "futex", "execve"}},
		{[]string{"platforms"}, []string{"ptrace"}},
	} {
		got := runscDo(t, t.TempDir(), v.args...)
		for _, w := range v.want {
			if got.code != 0 || !strings.Contains(got.stdout+got.stderr, w) {
				t.Errorf("%q: status %d, no %q in %q", v.args, got.code, w, got.stdout+got.stderr)
			}
		}
	}
}
