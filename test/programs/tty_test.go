package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"garrison/test/testutil"
)

// A terminal is a pty with a program on its slave side.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	cancel func()

	mu   sync.Mutex
	seen []byte
	pos  int // up to where expect has looked
}

// startTerminal runs argv as the leader of a session on a fresh pty.
func startTerminal(t *testing.T, platform string, argv ...string) *terminal {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(m.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	cmd := command(t, ctx, platform, t.TempDir(), argv...)
	cmd.Env = append(cmd.Env, "PS1=prompt> ", "HISTFILE=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s, s, s
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: m, cmd: cmd, cancel: cancel}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := m.Read(b)
			term.mu.Lock()
			term.seen = append(term.seen, b[:n]...)
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		m.Close()
	})
	return term
}

// expect waits until the terminal has shown text after what was expected before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	for range 400 {
		x.mu.Lock()
		i := strings.Index(string(x.seen[x.pos:]), text)
		if i >= 0 {
			x.pos += i + len(text)
		}
		x.mu.Unlock()
		if i >= 0 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t.Fatalf("no %q after %q", text, x.seen[x.pos:])
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// ran types a command whose start the program announces itself, so that what follows meets it running.
func (x *terminal) ran(cmd string) {
	x.t.Helper()
	x.send("echo go''ing; " + cmd + "\n")
	x.expect("going")
	time.Sleep(300 * time.Millisecond)
}

func (x *terminal) wait() int {
	x.t.Helper()
	done := make(chan int, 1)
	go func() { done <- exitCode(x.cmd.Wait()) }()
	select {
	case c := <-done:
		return c
	case <-time.After(20 * time.Second):
		x.t.Fatal("still running")
		return -1
	}
}

var shell = []string{"bash", "--norc", "--noprofile", "--noediting", "-i"}

// everywhere runs f natively too: a test that the host fails says nothing.
func everywhere(t *testing.T, f func(t *testing.T, platform string)) {
	for _, p := range append([]string{"native"}, testutil.Platforms()...) {
		t.Run(p, func(t *testing.T) { f(t, p) })
	}
}

func TestTerminalJobControl(t *testing.T) {
	everywhere(t, func(t *testing.T, p string) {
		x := startTerminal(t, p, shell...)
		x.expect("prompt> ")
		x.send("echo $((6*7)); tty -s && echo is''tty\n")
		x.expect("42")
		x.expect("istty")
		x.ran("sleep 100")
		x.send("\x03")
		x.expect("prompt> ")
		x.send("echo rc=$?.\n")
		x.expect("rc=130.")
		x.ran("sleep 100")
		x.send("\x1a")
		x.expect("Stopped")
		x.send("jobs\n")
		x.expect("Stopped")
		x.send("echo go''ing; fg\n")
		x.expect("going")
		x.expect("sleep 100")
		time.Sleep(300 * time.Millisecond)
		x.send("\x03")
		x.expect("prompt> ")
		x.send("cat | tr a-z A-Z\n")
		time.Sleep(300 * time.Millisecond)
		x.send("lower\n\x04")
		x.expect("LOWER")
		x.send("sleep 0.2 & wait; echo wai''ted\n")
		x.expect("waited")
		x.ran("sleep 100")
		x.send("\x1c")
		x.expect("prompt> ")
		x.send("echo rc=$?.\n")
		x.expect("rc=131.")
		x.send("exit 5\n")
		if c := x.wait(); c != 5 {
			t.Errorf("exit status %d, want 5", c)
		}
	})
}

func TestTerminalWindowSize(t *testing.T) {
	everywhere(t, func(t *testing.T, p string) {
		x := startTerminal(t, p, shell...)
		x.expect("prompt> ")
		set := func(r, c uint16) {
			if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: r, Col: c}); err != nil {
				t.Fatal(err)
			}
		}
		set(33, 77)
		time.Sleep(200 * time.Millisecond)
		x.send("stty size\n")
		x.expect("33 77")
		x.send("bash -c 'trap \"echo win; stty size; exit\" WINCH; echo re\"\"ady; while :; do read -t 0.1 </dev/null; sleep 0.05; done'\n")
		x.expect("ready")
		set(44, 88)
		x.expect("win")
		x.expect("44 88")
		x.send("exit\n")
		x.wait()
	})
}

func TestTerminalRawMode(t *testing.T) {
	everywhere(t, func(t *testing.T, p string) {
		x := startTerminal(t, p, shell...)
		x.expect("prompt> ")
		x.send("stty raw -echo; echo go''ing; dd bs=1 count=4 2>/dev/null | od -An -tx1; stty sane; echo sa''ne\n")
		x.expect("going")
		time.Sleep(200 * time.Millisecond)
		x.send("a\x03\x1a\r")
		x.expect("61 03 1a 0d")
		x.expect("sane")
		x.send("stty -a | grep -c -e -isig; read -s -p 'pass: ' pw; echo; echo got $pw\n")
		x.expect("0")
		x.expect("pass: ")
		time.Sleep(100 * time.Millisecond)
		x.send("secret\n")
		x.expect("got secret")
		x.send("exit\n")
		x.wait()
	})
}

// TestTerminalStopsCLI stops and resumes the whole sandbox from a shell outside.
func TestTerminalStopsCLI(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		runsc, err := testutil.Runsc()
		if err != nil {
			t.Fatal(err)
		}
		x := startTerminal(t, "native", shell...)
		x.expect("prompt> ")
		x.send(runsc + " " + strings.Join(testutil.DoArgs(p), " ") + " cat\n")
		time.Sleep(1500 * time.Millisecond)
		x.send("one\n")
		x.expect("one\r\none\r\n")
		x.send("\x1a")
		x.expect("Stopped")
		x.send("echo still he''re\n")
		x.expect("still here")
		x.send("fg\n")
		x.expect(" cat")
		time.Sleep(300 * time.Millisecond)
		x.send("two\n")
		x.expect("two\r\ntwo\r\n")
		x.send("\x03")
		x.expect("prompt> ")
		x.send("echo rc=$?.\n")
		x.expect("rc=130.")
		x.send("exit\n")
		x.wait()
	})
}
