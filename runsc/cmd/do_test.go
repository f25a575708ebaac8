package cmd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runscPath is the binary under test: $RUNSC, or one built here.
var runscPath string

func TestMain(m *testing.M) {
	runscPath = os.Getenv("RUNSC")
	dir := ""
	if runscPath == "" {
		var err error
		if dir, err = os.MkdirTemp("", "runsc-test"); err != nil {
			panic(err)
		}
		os.Chmod(dir, 0o755)
		runscPath = filepath.Join(dir, "runsc")
		build := exec.Command("go", "build", "-o", runscPath, "garrison/runsc")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build runsc: %v\n%s", err, out)
			os.Exit(1)
		}
	}
	code := m.Run()
	if dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// runsc runs the command line to its end.
func runsc(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	c := exec.Command(runscPath, args...)
	c.Stdout, c.Stderr = &o, &e
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(60*time.Second, func() { c.Process.Kill() })
	err := c.Wait()
	if !timer.Stop() {
		t.Errorf("runsc %q did not end", args)
	}
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

func TestExitStatus(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program\x00\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"false"}, 1, ""},
		{[]string{"sh", "-c", "exit 42"}, 42, ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{[]string{"no-such-command"}, 127, "command not found"},
		{[]string{"/no/such/file"}, 127, "no such file"},
		{[]string{"/etc/passwd"}, 126, "permission denied"},
		{[]string{"/etc"}, 126, "permission denied"},
		{[]string{plain}, 126, "cannot execute"},
		{[]string{"--cwd", "/no/such/dir", "true"}, 125, "--cwd"},
		{[]string{"--network=moon", "true"}, 125, "none, host"},
		{[]string{"--volume", "x", "true"}, 125, "src:dst"},
		{nil, 2, "no command"},
	} {
		_, stderr, code := runsc(t, append([]string{"do"}, tc.args...)...)
		if code != tc.code || !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
			t.Errorf("do %q: status %d, want %d; stderr %q, want %q in it", tc.args, code, tc.code, stderr, tc.stderr)
		}
	}
}

func TestWhatTheGuestSees(t *testing.T) {
	dir := t.TempDir()
	vol := filepath.Join(dir, "vol")
	os.Mkdir(vol, 0o755)
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"working directory", []string{"--cwd", "/usr", "pwd"}, "/usr\n"},
		{"environment", []string{"--env", "GREETING=hello there", "sh", "-c", "echo $GREETING"}, "hello there\n"},
		{"after --", []string{"--", "echo", "--debug"}, "--debug\n"},
		{"flags after the command", []string{"echo", "--env", "x"}, "--env x\n"},
		{"volume", []string{"--volume", vol + ":/mnt/v", "sh", "-c", "echo kept >/mnt/v/f && cat /mnt/v/f"}, "kept\n"},
		{"volume, read-only", []string{"--volume", vol + ":/mnt/v:ro", "sh", "-c", "(echo no >/mnt/v/g) 2>/dev/null || echo refused"}, "refused\n"},
		{"own process ids", []string{"sh", "-c", "echo $$"}, "1\n"},
		{"stdout by name", []string{"sh", "-c", "echo named >/dev/stdout; echo fd >/proc/self/fd/1"}, "named\nfd\n"},
	} {
		out, stderr, code := runsc(t, append([]string{"do"}, tc.args...)...)
		if out != tc.want || code != 0 {
			t.Errorf("%s: %q, status %d, stderr %q; want %q", tc.name, out, code, stderr, tc.want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(vol, "f")); err != nil || string(b) != "kept\n" {
		t.Errorf("the volume on the host: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(vol, "g")); err == nil {
		t.Error("a read-only volume was written")
	}
}

func TestHostStaysUntouched(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "old"), []byte("old\n"), 0o644)
	out, stderr, code := runsc(t, "do", "--cwd", dir, "sh", "-c", "echo new >old; echo x >made; rm -f gone; cat old made")
	if out != "new\nx\n" || code != 0 {
		t.Errorf("in the sandbox: %q, status %d, stderr %q", out, code, stderr)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "old")); string(b) != "old\n" {
		t.Errorf("the host's file now holds %q", b)
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err == nil {
		t.Error("a file was made on the host")
	}
	if _, stderr, code := runsc(t, "do", "--overlay2=none", "--cwd", dir, "sh", "-c", "echo new >old"); code != 0 {
		t.Errorf("--overlay2=none: status %d, %q", code, stderr)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "old")); string(b) != "new\n" {
		t.Errorf("--overlay2=none: the host's file holds %q", b)
	}
}

// TestSharedOffset runs two commands on one open file, and one command with
// two descriptors of one open file description: nothing may be lost.
func TestSharedOffset(t *testing.T) {
	f := filepath.Join(t.TempDir(), "out")
	script := fmt.Sprintf("( echo before; %[1]s do sh -c 'echo out; echo err >&2; echo out again'; echo after ) >%[2]s 2>&1", runscPath, f)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if b, _ := os.ReadFile(f); string(b) != "before\nout\nerr\nout again\nafter\n" {
		t.Errorf("the file holds %q", b)
	}
	in := filepath.Join(t.TempDir(), "in")
	os.WriteFile(in, []byte("1\n2\n3\n"), 0o644)
	out, _ := exec.Command("sh", "-c", fmt.Sprintf("( %s do sh -c 'read a; echo got $a'; cat ) <%s", runscPath, in)).Output()
	if string(out) != "got 1\n2\n3\n" {
		t.Errorf("sharing standard input: %q", out)
	}
}

// A running sandbox whose guest sleeps.
type running struct {
	cmd           *exec.Cmd
	sentry, gofer int
	stderr        bytes.Buffer
}

// start runs a guest that says "up" and waits, without need for any more files.
func start(t *testing.T, attr *syscall.SysProcAttr, flags ...string) *running {
	t.Helper()
	r := &running{}
	args := append([]string{"do"}, flags...)
	r.cmd = exec.Command(runscPath, append(args, "sh", "-c", "echo up; read x")...)
	r.cmd.SysProcAttr = attr
	r.cmd.Stderr = &r.stderr
	r.cmd.Dir = "/"
	if _, err := r.cmd.StdinPipe(); err != nil { // stays open until the end
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill(); r.cmd.Wait() })
	up := make([]byte, 3)
	if n, err := out.Read(up); string(up[:n]) != "up\n" {
		r.cmd.Process.Kill()
		r.cmd.Wait()
		t.Fatalf("the guest did not come up: %q %v %s", up[:n], err, r.stderr.String())
	}
	for _, p := range processes() {
		if p.ppid != r.cmd.Process.Pid {
			continue
		}
		switch p.name {
		case "runsc-boot":
			r.sentry = p.pid
		case "runsc-gofer":
			r.gofer = p.pid
		}
	}
	if r.sentry == 0 || r.gofer == 0 {
		t.Fatal("the sandbox's processes were not found")
	}
	return r
}

type process struct {
	pid, ppid int
	name      string
}

func processes() []process {
	var out []process
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, d := range dirs {
		b, err := os.ReadFile(d)
		if err != nil {
			continue
		}
		s := string(b)
		i, j := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
		if i < 0 || j < 0 {
			continue
		}
		f := strings.Fields(s[j+1:])
		pid, _ := strconv.Atoi(strings.TrimSpace(s[:i]))
		ppid, _ := strconv.Atoi(f[1])
		if f[0] != "Z" {
			out = append(out, process{pid, ppid, s[i+1 : j]})
		}
	}
	return out
}

// family is r's processes: the command line and everything below it.
func (r *running) family() []int {
	ps := processes()
	in := map[int]bool{r.cmd.Process.Pid: true}
	for more := true; more; {
		more = false
		for _, p := range ps {
			if in[p.ppid] && !in[p.pid] {
				in[p.pid], more = true, true
			}
		}
	}
	var pids []int
	for p := range in {
		pids = append(pids, p)
	}
	return pids
}

func alive(pid int) bool {
	for _, p := range processes() {
		if p.pid == pid {
			return true
		}
	}
	return false
}

func status(t *testing.T, pid int, field string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func TestIsolation(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("looking into other processes needs root")
	}
	r := start(t, nil)
	for _, p := range []struct {
		pid  int
		name string
		caps string
	}{
		{r.sentry, "Sentry", "0000000000000000"},
		{r.gofer, "Gofer", "0000000000000004"}, // CAP_DAC_READ_SEARCH
	} {
		for field, want := range map[string]string{"CapPrm": p.caps, "CapEff": p.caps, "CapInh": "0000000000000000",
			"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
			if got := status(t, p.pid, field); got != want {
				t.Errorf("%s: %s is %s, want %s", p.name, field, got, want)
			}
		}
		for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
			ours, _ := os.Readlink("/proc/self/ns/" + ns)
			theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.pid, ns))
			if err != nil || theirs == ours {
				t.Errorf("%s: %s namespace is %s, ours is %s, %v", p.name, ns, theirs, ours, err)
			}
		}
		root, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", p.pid))
		if err != nil || len(root) != 0 {
			t.Errorf("%s: the root directory holds %v, %v", p.name, root, err)
		}
		mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.pid))
		if n := bytes.Count(mounts, []byte("\n")); n != 1 {
			t.Errorf("%s: sees %d mounts:\n%s", p.name, n, mounts)
		}
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if strings.Contains(string(args), "sleep") {
			t.Errorf("%s: its arguments tell what the guest runs: %q", p.name, args)
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid))
		for _, fd := range fds {
			to, _ := os.Readlink(fd)
			if p.name == "Sentry" && strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "/memfd:") && to != "/dev/null" && !isExecutable(to) {
				t.Errorf("Sentry: descriptor %s is %s", filepath.Base(fd), to)
			}
		}
	}
	if uid := status(t, r.sentry, "Uid"); !strings.HasPrefix(uid, "65534") {
		t.Errorf("the Sentry's uid is %s, want nobody's", uid)
	}
}

// isExecutable: programs that the guest runs are regular files that the Gofer
// handed over.
func isExecutable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// TestDeath kills each process in turn: the others must go by themselves.
func TestDeath(t *testing.T) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, tc := range []struct {
		name   string
		victim func(r *running) int
		code   int
		stderr string
	}{
		{"Sentry", func(r *running) int { return r.sentry }, 137, "was killed by signal 9"},
		{"command line", func(r *running) int { return r.cmd.Process.Pid }, -1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, nil)
			family := r.family()
			syscall.Kill(tc.victim(r), syscall.SIGKILL)
			r.cmd.Wait()
			if code := r.cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(r.stderr.String(), tc.stderr) {
				t.Errorf("status %d, want %d; stderr %q, want %q", code, tc.code, r.stderr.String(), tc.stderr)
			}
			deadline := time.Now().Add(3 * time.Second)
			for _, pid := range family {
				for alive(pid) {
					if time.Now().After(deadline) {
						t.Fatalf("process %d still runs", pid)
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	if now, _ := os.ReadFile("/proc/self/mountinfo"); !bytes.Equal(now, mounts) {
		t.Error("the host's mounts have changed")
	}
}

func TestGoferDeath(t *testing.T) {
	r := start(t, nil)
	syscall.Kill(r.gofer, syscall.SIGKILL)
	time.Sleep(300 * time.Millisecond)
	if !alive(r.sentry) {
		t.Error("the Sentry died with the Gofer")
	}
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.cmd.Wait()
	if !strings.Contains(r.stderr.String(), "Gofer") {
		t.Errorf("stderr says nothing about it: %q", r.stderr.String())
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 128+15 {
		t.Errorf("status %d after SIGTERM, want 143", code)
	}
}

func TestForwardedSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1} {
		r := start(t, nil)
		r.cmd.Process.Signal(sig)
		r.cmd.Wait()
		if code := r.cmd.ProcessState.ExitCode(); code != 128+int(sig) {
			t.Errorf("%v: status %d, want %d; %s", sig, code, 128+int(sig), r.stderr.String())
		}
	}
}

// TestOrdinaryUser runs as nobody's neighbour.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing to another user needs root")
	}
	cmd := exec.Command(runscPath, "do", "sh", "-c", "id -u; cat /etc/hostname >/dev/null && echo read; (echo x >/etc/x) 2>/dev/null || echo refused")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "1000\nread\nrefused\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// TestIdle holds the memory of all processes, and that they sleep.
func TestIdle(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("looking into other processes needs root")
	}
	r := start(t, nil)
	time.Sleep(500 * time.Millisecond)
	pss := 0
	ticks := func() (n int) {
		for _, pid := range r.family() {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if f := strings.Fields(string(b[max(bytes.LastIndexByte(b, ')'), 0):])); len(f) > 13 {
				u, _ := strconv.Atoi(f[12])
				s, _ := strconv.Atoi(f[13])
				n += u + s
			}
		}
		return n
	}
	for _, pid := range r.family() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for _, l := range strings.Split(string(b), "\n") {
			if f := strings.Fields(l); len(f) == 3 && f[0] == "Pss:" {
				kb, _ := strconv.Atoi(f[1])
				pss += kb
			}
		}
	}
	before := ticks()
	time.Sleep(2 * time.Second)
	if used := ticks() - before; used > 1 {
		t.Errorf("%d ticks of CPU time were used in 2 s of sleep", used)
	}
	t.Logf("PSS of %d processes: %d KiB", len(r.family()), pss)
	if pss > 30<<10 {
		t.Errorf("the idle sandbox takes %d KiB, at most 30 MiB was the promise", pss)
	}
}
