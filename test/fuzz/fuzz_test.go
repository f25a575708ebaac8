// Package fuzz throws random system calls at the Sentry from inside a sandbox.
//
// It does not check results: only that the Sentry survives and neither its memory nor its descriptors grow without bound.
//
// Lock order: none.
package fuzz

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"garrison/test/testutil"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testutil.Cleanup()
	os.Exit(code)
}

// sentry finds the kernel's process below the CLI's.
func sentry(cli int) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		s := string(b)
		end := strings.LastIndexByte(s, ')')
		f := strings.Fields(s[end+1:])
		if ppid, _ := strconv.Atoi(f[1]); ppid == cli && strings.Contains(s[:end], "boot") {
			pid, _ := strconv.Atoi(filepath.Base(d))
			return pid
		}
	}
	return 0
}

// usage is what must not grow: descriptors, and memory in kB.
func usage(pid int) (fds, rss int) {
	l, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			rss, _ = strconv.Atoi(f[1])
		}
	}
	return len(l), rss
}

// TestRandomSyscalls makes a million calls; GARRISON_FUZZ_SEED repeats a run, GARRISON_FUZZ_CALLS changes its length.
func TestRandomSyscalls(t *testing.T) {
	dir, err := testutil.SharedDir("fuzz")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := testutil.BuildC(dir, "c/fuzz.c")
	if err != nil {
		t.Fatal(err)
	}
	runsc, err := testutil.Runsc()
	if err != nil {
		t.Fatal(err)
	}
	seed, calls := fmt.Sprint(time.Now().UnixNano()%1000000), "1000000"
	if s := os.Getenv("GARRISON_FUZZ_SEED"); s != "" {
		seed = s
	}
	if s := os.Getenv("GARRISON_FUZZ_CALLS"); s != "" {
		calls = s
	}
	for _, p := range testutil.Platforms() {
		t.Run(p, func(t *testing.T) {
			work, err := os.MkdirTemp("", "fuzz")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(work)
			ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, runsc, append(testutil.DoArgs(p), bin, seed, calls, work)...)
			cmd.WaitDelay = 5 * time.Second
			var diag bytes.Buffer
			cmd.Stderr = &diag
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid, done, early, earlyFDs := 0, false, 0, 0
			for sc := bufio.NewScanner(out); sc.Scan(); {
				if pid == 0 {
					pid = sentry(cmd.Process.Pid)
				}
				fds, rss := usage(pid)
				t.Logf("%6.1fs %s; Sentry: %d descriptors, %d kB", time.Since(start).Seconds(), sc.Text(), fds, rss)
				if early == 0 && strings.Contains(sc.Text(), "calls,") && strings.Contains(sc.Text(), "children") {
					early, earlyFDs = rss, fds
				}
				if strings.HasPrefix(sc.Text(), "fuzz: done") {
					done = true
					if pid == 0 {
						t.Error("did not find the Sentry's process")
					}
					if fds > 2*earlyFDs+100 {
						t.Errorf("the Sentry has %d descriptors, %d near the start", fds, earlyFDs)
					}
					if rss > 2*early+200<<10 {
						t.Errorf("the Sentry has %d kB, %d near the start", rss, early)
					}
					in.Close()
				}
			}
			if err := cmd.Wait(); err != nil || !done {
				t.Errorf("seed %s: %v, done %v; stderr: %s", seed, err, done, testutil.Tail(diag.Bytes(), 6000))
			}
		})
	}
}
