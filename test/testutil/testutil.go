// Package testutil holds what the integration tests share: building runsc and C programs once, and the list of platforms.
//
// It does not know any test.
//
// Lock order: none.
package testutil

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Platforms lists the platforms to test, GARRISON_PLATFORMS (comma separated) or ptrace.
func Platforms() []string {
	if env, ok := os.LookupEnv("GARRISON_PLATFORMS"); ok {
		return strings.FieldsFunc(env, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return []string{"ptrace"}
}

// Root is the module's directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// SharedDir makes a directory for built things that lives as long as the machine's temporary files.
func SharedDir(name string) (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("garrison-test-%d", os.Getuid()), name)
	// The sandbox's guests may run as other users.
	return dir, os.MkdirAll(dir, 0o755)
}

// Runsc is the binary under test: $RUNSC, or one built from the module once per process.
var Runsc = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("RUNSC"); p != "" {
		return filepath.Abs(p)
	}
	dir, err := SharedDir("bin")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, fmt.Sprintf("runsc-%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", out, "./runsc")
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building runsc: %w\n%s", err, Tail(text, 4000))
	}
	return out, nil
})

// Cleanup removes what Runsc built; TestMain calls it.
func Cleanup() {
	if os.Getenv("RUNSC") == "" {
		if dir, err := SharedDir("bin"); err == nil {
			os.Remove(filepath.Join(dir, fmt.Sprintf("runsc-%d", os.Getpid())))
		}
	}
}

// DoArgs is the beginning of a `runsc do` command line.
func DoArgs(platform string) []string {
	return []string{"do", "--platform=" + platform, "--"}
}

// BuildC compiles a C source to a static binary in dir, unless one of the same contents is there, and returns its path.
// Further sources only count for the comparison. The binary's name is the source's, in a directory named by its contents.
func BuildC(dir, src string, deps ...string) (string, error) {
	return BuildWith("gcc", []string{"-std=gnu11", "-static", "-O1", "-pthread", "-w"}, []string{"-lm"}, dir, src, deps...)
}

// BuildWith is BuildC with the compiler and its flags given.
func BuildWith(cc string, flags, libs []string, dir, src string, deps ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, cc, flags, libs)
	for _, f := range append([]string{src}, deps...) {
		data, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		h.Write(data)
	}
	sub := filepath.Join(dir, hex.EncodeToString(h.Sum(nil))[:12])
	out := filepath.Join(sub, strings.TrimSuffix(filepath.Base(src), ".c"))
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if _, err := exec.LookPath(cc); err != nil {
		return "", fmt.Errorf("%s is not installed (make test installs it): %w", cc, err)
	}
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return "", err
	}
	args := append(append(append([]string{}, flags...), "-o", out+".new", src), libs...)
	if text, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", cc, strings.Join(args, " "), err, Tail(text, 4000))
	}
	return out, os.Rename(out+".new", out)
}

// Tail is the end of some output, for messages.
func Tail(b []byte, n int) string {
	if len(b) > n {
		return "..." + string(b[len(b)-n:])
	}
	return string(b)
}
