package programs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"garrison/test/testutil"
)

// onPlatforms runs f for each platform of the sandbox.
func onPlatforms(t *testing.T, f func(t *testing.T, platform string)) {
	for _, p := range testutil.Platforms() {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

func TestExitStatus(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		plain := filepath.Join(dir, "plain")
		if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, v := range []struct {
			argv []string
			code int
			say  string
		}{
			{[]string{"true"}, 0, ""},
			{[]string{"false"}, 1, ""},
			{[]string{"sh", "-c", "exit 42"}, 42, ""},
			{[]string{"sh", "-c", "exit 255"}, 255, ""},
			{[]string{"sh", "-c", "kill -TERM $$"}, 143, ""},
			{[]string{"sh", "-c", "kill -KILL $$"}, 137, ""},
			{[]string{"sh", "-c", "kill -SEGV $$"}, 139, ""},
			{[]string{"no-such-program-anywhere"}, 127, "no-such-program-anywhere"},
			{[]string{"/no/such/path"}, 127, "/no/such/path"},
			{[]string{plain}, 126, "plain"},
			{[]string{"/"}, 126, "/"},
		} {
			got := run(t, p, dir, nil, v.argv...)
			if got.code != v.code || !strings.Contains(got.stderr, v.say) || got.hung {
				t.Errorf("%q: status %d, stderr %q, hung %v; want %d and %q", v.argv, got.code, got.stderr, got.hung, v.code, v.say)
			}
		}
	})
}

// TestOneFileForBoth checks that `do CMD >f 2>&1` loses nothing: the two share one offset.
func TestOneFileForBoth(t *testing.T) {
	script := "for i in $(seq 300); do echo out $i; echo err $i >&2; done; sh -c 'echo child; echo childerr >&2'; echo end"
	files := map[string]int{"truncate": os.O_TRUNC, "append": os.O_APPEND}
	onPlatforms(t, func(t *testing.T, p string) {
		for name, flag := range files {
			t.Run(name, func(t *testing.T) {
				var text [2]string
				for i, platform := range []string{"native", p} {
					f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE|flag, 0o644)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					f.WriteString("before\n")
					ctx, cancel := context.WithTimeout(context.Background(), limit)
					defer cancel()
					cmd := command(t, ctx, platform, t.TempDir(), "sh", "-c", script)
					cmd.Stdout, cmd.Stderr = f, f
					if err := cmd.Run(); err != nil {
						t.Errorf("%s: %v", platform, err)
					}
					f.WriteString("after\n")
					b, _ := os.ReadFile(f.Name())
					text[i] = string(b)
				}
				if text[0] != text[1] {
					t.Error(difference(text[0], text[1]))
				}
			})
		}
	})
}

// TestStdin feeds programs from pipes, files, /dev/null and nothing.
func TestStdin(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef\n"), 300000)
	onPlatforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		if got := run(t, p, dir, bytes.NewReader(big), "wc", "-c"); got.stdout != fmt.Sprintln(len(big)) {
			t.Errorf("pipe: %+v", got)
		}
		if got := run(t, p, dir, bytes.NewReader(big), "cat"); got.stdout != string(big) {
			t.Errorf("pipe through cat: %d bytes, %s", len(got.stdout), got.stderr)
		}
		if got := run(t, p, dir, nil, "wc", "-c"); got.stdout != "0\n" {
			t.Errorf("/dev/null: %+v", got)
		}
		name := filepath.Join(dir, "in")
		os.WriteFile(name, []byte("one\ntwo\nthree\n"), 0o644)
		for _, platform := range []string{"native", p} {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			// The shell takes one line and leaves the offset behind it, for whoever has the file next.
			got := run(t, platform, dir, f, "bash", "-c", "read x; echo got $x")
			rest, _ := io.ReadAll(f)
			f.Close()
			if got.stdout != "got one\n" || string(rest) != "two\nthree\n" {
				t.Errorf("%s: file: %+v, rest %q", platform, got, rest)
			}
		}
		if got := run(t, p, dir, bytes.NewReader(big), "head", "-c", "5"); got.stdout != "01234" || got.hung {
			t.Errorf("reader that leaves early: %+v", got)
		}
	})
}

// TestStdoutClosed checks that a writer whose reader is gone dies of SIGPIPE.
func TestStdoutClosed(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		cmd := command(t, ctx, p, t.TempDir(), "yes")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		out.Close()
		if code := exitCode(cmd.Wait()); line != "y\n" || code != 141 || ctx.Err() != nil {
			t.Errorf("first line %q, status %d, want 141", line, code)
		}
	})
}

func TestEnvironment(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		got := run(t, p, dir, nil, "sh", "-c", "pwd; echo $GREETING; ls -d .")
		if want := dir + "\nsalute\n.\n"; got.stdout != want {
			t.Errorf("got %q (%s), want %q", got.stdout, got.stderr, want)
		}
	})
}

// TestSignalsForwarded checks that what the CLI receives reaches the guest.
func TestSignalsForwarded(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGINT} {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			cmd := command(t, ctx, p, t.TempDir(), "bash", "-c", fmt.Sprintf("trap 'echo caught; exit 9' %d; echo ready; while :; do read -t 0.05; done", int(s)))
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			cmd.Stdin = r
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			b := bufio.NewReader(out)
			first, _ := b.ReadString('\n')
			cmd.Process.Signal(s)
			second, _ := b.ReadString('\n')
			code := exitCode(cmd.Wait())
			if first != "ready\n" || second != "caught\n" || code != 9 {
				t.Errorf("%v: %q, %q, status %d", s, first, second, code)
			}
		}
	})
}
