// Package syscalls runs the C tests of the system-call ABI, first natively, where the host kernel says what is true, then in
// the sandbox on every platform.
//
// It does not test whole programs (test/programs) nor hostile ones (test/fuzz).
//
// Lock order: none; one binary per family is built once and its output parsed.
package syscalls

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"garrison/test/testutil"
)

// binary is a C family, compiled.
type binary struct {
	name, path string
	tests      []string
}

var build = sync.OnceValues(func() (map[string]*binary, error) {
	dir, err := testutil.SharedDir("syscalls")
	if err != nil {
		return nil, err
	}
	sources, err := filepath.Glob("c/*.c")
	if err != nil {
		return nil, err
	}
	all := make(map[string]*binary)
	for _, src := range sources {
		b := &binary{name: strings.TrimSuffix(filepath.Base(src), ".c")}
		if b.path, err = testutil.BuildC(dir, src, "c/harness.h"); err != nil {
			return nil, err
		}
		out, err := exec.Command(b.path, "--list").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --list: %w", b.path, err)
		}
		b.tests = strings.Fields(string(out))
		all[b.name] = b
	}
	return all, nil
})

// result is what one test printed: PASS, SKIP with a reason, or FAIL with all its messages.
type result struct {
	state, why string
}

// parse reads the lines of a family's output. A FAIL stays whatever comes after it.
func parse(out []byte) map[string]result {
	got := make(map[string]result)
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		state, rest, ok := strings.Cut(sc.Text(), " ")
		if !ok || state != "PASS" && state != "FAIL" && state != "SKIP" {
			continue
		}
		name, why, _ := strings.Cut(rest, ": ")
		r, seen := got[name]
		switch {
		case !seen:
			got[name] = result{state, why}
		case r.state == "FAIL" && state == "FAIL":
			got[name] = result{state, r.why + "; " + why}
		case state == "FAIL":
			got[name] = result{state, why}
		}
	}
	return got
}

// onVolume are the families that also run in a directory of the host's, shared by --volume, on "platform+volume": what they
// write then goes through the Gofer instead of staying in the overlay.
var onVolume = []string{"rw", "open", "stat", "names", "attr", "fds", "locks", "alloc", "mem", "exec", "unixsock"}

const volume = "+volume"

// run executes a family on a platform ("native" for none) and returns what each test said.
func run(b *binary, platform string) (map[string]result, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 240*time.Second)
	defer cancel()
	tmp := os.TempDir()
	var cmd *exec.Cmd
	if platform == "native" {
		cmd = exec.CommandContext(ctx, b.path)
	} else {
		runsc, err := testutil.Runsc()
		if err != nil {
			return nil, err.Error()
		}
		name, shared := strings.CutSuffix(platform, volume)
		args := testutil.DoArgs(name)
		if shared {
			dir, err := os.MkdirTemp("", "volume")
			if err != nil {
				return nil, err.Error()
			}
			defer os.RemoveAll(dir)
			os.Chmod(dir, 0o755)
			tmp = "/mnt"
			args = append([]string{args[0], "--volume", dir + ":" + tmp}, args[1:]...)
		}
		cmd = exec.CommandContext(ctx, runsc, append(args, b.path)...)
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.WaitDelay = 5 * time.Second
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	results := parse(out.Bytes())
	note := ""
	if !bytes.Contains(out.Bytes(), []byte("\nDONE ")) {
		note = fmt.Sprintf("%s on %s did not finish: %v; stderr: %s", b.name, platform, err, testutil.Tail(diag.Bytes(), 2000))
	}
	return results, note
}

// known is the list of failures that are understood: "platform family/test" to its reason.
func known(t *testing.T) map[string]string {
	data, err := os.ReadFile("known_failures.txt")
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			t.Fatalf("known_failures.txt:%d: want: platform family/test reason", i+1)
		}
		m[f[0]+" "+f[1]] = strings.Join(f[2:], " ")
	}
	return m
}

func TestSyscalls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("these tests change owners and devices: run them as root")
	}
	bins, err := build()
	if err != nil {
		t.Fatal(err)
	}
	list := known(t)
	for key := range list {
		platform, test, _ := strings.Cut(key, " ")
		family, name, _ := strings.Cut(test, "/")
		if b := bins[family]; platform != "native" && (b == nil || !slices.Contains(b.tests, name)) {
			t.Errorf("known_failures.txt names %s, which does not exist", test)
		}
	}
	var names []string
	for n := range bins {
		names = append(names, n)
	}
	sort.Strings(names)
	platforms := []string{"native"}
	if _, err := testutil.Runsc(); err != nil && len(testutil.Platforms()) > 0 {
		t.Fatal(err)
	}
	for _, p := range testutil.Platforms() {
		platforms = append(platforms, p, p+volume)
	}
	for _, platform := range platforms {
		for _, n := range names {
			if strings.HasSuffix(platform, volume) && !slices.Contains(onVolume, n) {
				continue
			}
			b := bins[n]
			results, note := run(b, platform)
			if note != "" {
				t.Errorf("%s", note)
			}
			if len(results) == 0 {
				continue // said once is enough
			}
			for _, test := range b.tests {
				t.Run(n+"/"+test+"/"+platform, func(t *testing.T) {
					r, ran := results[test]
					why, isKnown := list[platform+" "+n+"/"+test]
					switch {
					case !ran:
						if !isKnown {
							t.Fatal("printed no result")
						}
						t.Skipf("known failure (%s): printed no result", why)
					case r.state == "FAIL" && isKnown:
						t.Skipf("known failure (%s): %s", why, r.why)
					case r.state == "FAIL":
						t.Fatal(r.why)
					case r.state == "PASS" && isKnown:
						t.Fatalf("passes, but known_failures.txt lists it (%s): take it out", why)
					case r.state == "SKIP":
						t.Skip(r.why)
					}
				})
			}
		}
	}
}
