package programs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"garrison/test/testutil"
)

// proc is one process of a sandbox.
type proc struct {
	pid  int
	name string
}

// family lists a process's descendants.
func family(root int) []proc {
	parent := make(map[int]int)
	name := make(map[int]string)
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		s := string(b)
		open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
		f := strings.Fields(s[end+1:])
		pid, _ := strconv.Atoi(s[:open-1])
		if f[0] == "Z" {
			continue
		}
		parent[pid], _ = strconv.Atoi(f[1])
		name[pid] = s[open+1 : end]
	}
	var all []proc
	for pid := range parent {
		for p := pid; p > 1; p = parent[p] {
			if parent[p] == root {
				all = append(all, proc{pid, name[pid]})
				break
			}
		}
	}
	return all
}

// sandboxed is a guest that has said "ready".
type sandboxed struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	in     *os.File
	mu     sync.Mutex
	stderr bytes.Buffer
	procs  []proc
}

func (s *sandboxed) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.Write(b)
}

func startGuest(t *testing.T, platform, script string) *sandboxed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	s := &sandboxed{cmd: command(t, ctx, platform, t.TempDir(), "bash", "-c", script)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdin, s.in, s.cmd.Stderr = r, w, s
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	if line, _ := s.out.ReadString('\n'); line != "ready\n" {
		s.cmd.Wait()
		t.Fatalf("guest said %q; stderr: %s", line, s.stderr.String())
	}
	s.procs = family(s.cmd.Process.Pid)
	return s
}

func (s *sandboxed) pid(t *testing.T, part string) int {
	t.Helper()
	for _, p := range s.procs {
		if strings.Contains(p.name, part) {
			return p.pid
		}
	}
	t.Fatalf("no process %q among %v", part, s.procs)
	return 0
}

// gone waits until all processes of the sandbox have ended.
func (s *sandboxed) gone(t *testing.T) {
	t.Helper()
	for _, p := range s.procs {
		ok := false
		for range 200 {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
			if err != nil || strings.Contains(string(b), ") Z ") {
				ok = true
				break
			}
			time.Sleep(25 * time.Millisecond)
		}
		if !ok {
			t.Errorf("process %d (%s) lives on", p.pid, p.name)
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// world is what a sandbox must leave as it was: mounts and cgroups.
func world(t *testing.T) string {
	m, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if strings.Count(p, "/") > 7 {
				return fs.SkipDir
			}
			groups = append(groups, p)
		}
		return nil
	})
	return string(m) + strings.Join(groups, "\n")
}

// end waits for the CLI, which must not take long.
func (s *sandboxed) end(t *testing.T) int {
	t.Helper()
	done := make(chan int, 1)
	go func() { done <- exitCode(s.cmd.Wait()) }()
	select {
	case c := <-done:
		return c
	case <-time.After(15 * time.Second):
		t.Fatalf("runsc did not end; it lives with %v", family(s.cmd.Process.Pid))
		return -1
	}
}

func TestKilledGofer(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		before := world(t)
		s := startGuest(t, p, "echo ready; read x; cat /usr/share/common-licenses/GPL-2 >/dev/null; echo cat=$?; ls /usr/lib >/dev/null; echo ls=$?; : </usr/share/common-licenses/Artistic; echo open=$?")
		if err := syscall.Kill(s.pid(t, "gofer"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		s.in.WriteString("\n")
		said := ""
		for {
			line, err := s.out.ReadString('\n')
			said += line
			if err != nil {
				break
			}
		}
		code := s.end(t)
		diag := s.stderr.String()
		if strings.Contains(said, "open=0") {
			t.Errorf("a file was opened without a Gofer: %q", said)
		}
		if !strings.Contains(diag, "Input/output error") && !strings.Contains(diag, "file server") && !strings.Contains(strings.ToLower(diag), "gofer") {
			t.Errorf("no clear message: stdout %q, stderr %q, status %d", said, diag, code)
		}
		s.gone(t)
		if after := world(t); after != before {
			t.Error("mounts or cgroups differ: ", difference(before, after))
		}
	})
}

func TestKilledSentry(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		before := world(t)
		s := startGuest(t, p, "sleep 1000 & (while :; do :; done) & echo ready; wait")
		if err := syscall.Kill(s.pid(t, "boot"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		code := s.end(t)
		if code == 0 || !strings.Contains(s.stderr.String(), "runsc") {
			t.Errorf("status %d, stderr %q: want a failure and a message", code, s.stderr.String())
		}
		s.gone(t)
		if after := world(t); after != before {
			t.Error("mounts or cgroups differ: ", difference(before, after))
		}
	})
}

func TestKilledCLI(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		before := world(t)
		s := startGuest(t, p, "sleep 1000 & echo ready; wait")
		s.cmd.Process.Kill()
		s.end(t)
		s.gone(t)
		if after := world(t); after != before {
			t.Error("mounts or cgroups differ: ", difference(before, after))
		}
	})
}

func TestNothingLeftAfterNormalEnd(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		before := world(t)
		s := startGuest(t, p, "sleep 1000 & setsid sleep 1000 & echo ready; read x")
		s.in.WriteString("\n")
		if code := s.end(t); code != 0 {
			t.Errorf("status %d, stderr %s", code, s.stderr.String())
		}
		s.gone(t)
		if after := world(t); after != before {
			t.Error("mounts or cgroups differ: ", difference(before, after))
		}
	})
}

// TestHostUntouched lets the guest change everything it can and compares the host's files.
func TestHostUntouched(t *testing.T) {
	snapshot := func(dir string) string {
		var b strings.Builder
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			i, _ := d.Info()
			st := i.Sys().(*syscall.Stat_t)
			text := ""
			if i.Mode().IsRegular() {
				data, _ := os.ReadFile(p)
				text = string(data)
			}
			fmt.Fprintln(&b, p, i.Mode(), i.Size(), st.Uid, st.Gid, st.Nlink, i.ModTime().UnixNano(), text)
			return nil
		})
		return b.String()
	}
	onPlatforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		for _, n := range []string{"a", "b", "c", "d/e", "d/f"} {
			os.MkdirAll(filepath.Dir(filepath.Join(dir, n)), 0o755)
			os.WriteFile(filepath.Join(dir, n), []byte("contents of "+n), 0o644)
		}
		os.Symlink("a", filepath.Join(dir, "link"))
		before := snapshot(dir)
		got := run(t, p, dir, nil, "bash", "-c", `set -e; echo more >>a; rm b; chmod 600 c; chown 5 c; mv d/e new; mkdir x; echo y >x/y; rm link; ln c hard; touch -d @0 d/f; mkfifo p; python3 -c 'import mmap,os; f=open("a","r+b"); m=mmap.mmap(f.fileno(),0); m[0:3]=b"MAP"; m.flush()'; rm -rf d
cat a; ls; echo x > /etc/garrison-must-not-exist; cat /etc/garrison-must-not-exist; rm -f /etc/hostname; truncate -s 0 /etc/passwd; ls / >/dev/null`)
		if want := "MAPtents of amore\na\nc\nhard\nnew\np\nx\nx\n"; got.stdout != want || got.code != 0 {
			t.Errorf("got %q, status %d, stderr %s; want %q", got.stdout, got.code, got.stderr, want)
		}
		if after := snapshot(dir); after != before {
			t.Error(difference(before, after))
		}
		if _, err := os.Stat("/etc/garrison-must-not-exist"); err == nil {
			t.Error("the guest wrote to /etc of the host")
			os.Remove("/etc/garrison-must-not-exist")
		}
	})
}

// TestVolume checks the one way for a guest to write to the host.
func TestVolume(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		runsc, err := testutil.Runsc()
		if err != nil {
			t.Fatal(err)
		}
		rw, ro := t.TempDir(), t.TempDir()
		os.WriteFile(filepath.Join(rw, "in"), []byte("from host"), 0o644)
		os.WriteFile(filepath.Join(ro, "in"), []byte("read me"), 0o644)
		args := []string{"do", "--platform=" + p, "--volume", rw + ":/mnt", "--volume", ro + ":/media:ro", "--",
			"bash", "-c", "cat /mnt/in /media/in; mkdir /mnt/d; seq 1000 > /mnt/d/out; mv /mnt/in /mnt/moved; echo no > /media/x; echo ro=$?; chmod 640 /mnt/d/out"}
		out, err := exec.Command(runsc, args...).Output()
		if want := "from hostread mero=1\n"; string(out) != want || err != nil {
			t.Errorf("got %q, %v; want %q", out, err, want)
		}
		b, _ := os.ReadFile(filepath.Join(rw, "d/out"))
		if bytes.Count(b, []byte("\n")) != 1000 {
			t.Errorf("the volume's file has %d bytes", len(b))
		}
		if i, err := os.Stat(filepath.Join(rw, "d/out")); err != nil || i.Mode() != 0o640 {
			t.Errorf("mode: %v %v", i, err)
		}
		if _, err := os.Stat(filepath.Join(rw, "moved")); err != nil {
			t.Error(err)
		}
		if l, _ := os.ReadDir(ro); len(l) != 1 {
			t.Error("the read-only volume changed")
		}
	})
}

// TestIdle checks that nothing runs while the guest sleeps.
func TestIdle(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		s := startGuest(t, p, "echo ready; read x")
		time.Sleep(time.Second)
		s.procs = append(family(s.cmd.Process.Pid), proc{s.cmd.Process.Pid, "cli"})
		ticks := func() (n int) {
			for _, p := range s.procs {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
				f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
				u, _ := strconv.Atoi(f[11])
				k, _ := strconv.Atoi(f[12])
				n += u + k
			}
			return n
		}
		before := ticks()
		time.Sleep(4 * time.Second)
		if used := ticks() - before; used > 2 {
			t.Errorf("%d ticks of CPU in 4 s of sleep", used)
		}
		pss := 0
		for _, p := range s.procs {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
			for _, l := range strings.Split(string(b), "\n") {
				if f := strings.Fields(l); len(f) > 1 && f[0] == "Pss:" {
					n, _ := strconv.Atoi(f[1])
					pss += n
				}
			}
		}
		t.Logf("PSS of all processes: %.1f MB", float64(pss)/1024)
		if pss > 60<<10 {
			t.Errorf("PSS of all processes is %d kB", pss)
		}
		s.in.WriteString("\n")
		s.end(t)
	})
}

// TestOrdinaryUser runs the sandbox without root; where the host forbids that, the error names the setting.
func TestOrdinaryUser(t *testing.T) {
	onPlatforms(t, func(t *testing.T, p string) {
		dir, err := os.MkdirTemp("/tmp", "user")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chown(dir, 1234, 1234)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		cmd := command(t, ctx, p, dir, "bash", "-c", "id -u; echo x > f; cat f; cat /etc/shadow; echo $?")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
		var out, diag bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &diag
		err = cmd.Run()
		settings := []string{"max_user_namespaces", "unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns"}
		if err != nil {
			if !slices.ContainsFunc(settings, func(s string) bool { return strings.Contains(diag.String(), s) }) {
				t.Fatalf("%v: %s: want a message that names the setting", err, diag.String())
			}
			return
		}
		if f := strings.Fields(out.String()); len(f) != 3 || f[1] != "x" || f[2] != "1" {
			t.Errorf("got %q, stderr %s", out.String(), diag.String())
		}
		if _, err := os.Stat(filepath.Join(dir, "f")); err == nil {
			t.Error("the guest's file reached the host")
		}
	})
}
