package syscalls

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"garrison/sentry/kernel"
)

// numbers reads the system call numbers off package abi's source, so that the
// test sees every one of them.
func numbers(t *testing.T) map[uintptr]string {
	src, err := os.ReadFile("../../abi/zconsts.go")
	if err != nil {
		t.Fatal(err)
	}
	n := map[uintptr]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s+SYS_([a-z0-9_]+)\s+= (\d+)$`).FindAllStringSubmatch(string(src), -1) {
		v, _ := strconv.Atoi(m[2])
		n[uintptr(v)] = m[1]
	}
	return n
}

func TestTableIsComplete(t *testing.T) {
	names := numbers(t)
	if len(names) < 350 {
		t.Fatalf("found only %d numbers in package abi", len(names))
	}
	seen := map[uintptr]string{}
	for _, f := range families() {
		for _, r := range f {
			if was, dup := seen[r.Nr]; dup {
				t.Errorf("system call %d stands twice, as %s and %s", r.Nr, was, r.Name)
			}
			seen[r.Nr] = r.Name
			if names[r.Nr] != r.Name {
				t.Errorf("row %d is called %q, but the number is that of %q", r.Nr, r.Name, names[r.Nr])
			}
			switch r.Support {
			case kernel.Refused:
				if r.Note == "" || r.Errno == 0 && r.Fn == nil {
					t.Errorf("%s is refused without an error or without a reason", r.Name)
				}
			case kernel.Partial:
				if r.Note == "" {
					t.Errorf("%s is partial, but nothing says what is missing", r.Name)
				}
				fallthrough
			default:
				if r.Fn == nil {
					t.Errorf("%s has no handler", r.Name)
				}
			}
			if len(r.Args) > 6 {
				t.Errorf("%s has %d arguments", r.Name, len(r.Args))
			}
		}
	}
	for nr, name := range names {
		if nr < TableSize && seen[nr] == "" {
			t.Errorf("no row for %s (%d)", name, nr)
		}
	}
}
