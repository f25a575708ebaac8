// Package config holds what users set by flags, and what the command line
// tells the two processes that it starts.
//
// It does not act on any of it, and does not touch the host.
//
// It has no locks.
package config

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is what the global flags set. Names and values are those that users
// of OCI runtimes know.
type Config struct {
	Root          string // directory for container state
	Log           string // file for errors, for container managers
	LogFormat     string // of Log: text or json
	Debug         bool
	DebugLog      string // file or directory/ for debug logs, with %COMMAND% and %TIMESTAMP%
	Platform      string
	Network       string
	Overlay2      string
	Rootless      bool
	IgnoreCgroups bool
	Strace        bool
	FileAccess    string
}

// Default returns the configuration without any flag.
func Default() *Config {
	return &Config{LogFormat: "text", Platform: "ptrace", Network: "none", Overlay2: "root:memory", FileAccess: "exclusive"}
}

// Register defines the flags on fs. A Config may be registered on several
// flag sets: the one parsed last wins, flag by flag.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Root, "root", c.Root, "directory for the state of containers")
	fs.StringVar(&c.Log, "log", c.Log, "file that errors are also written to, for container managers")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "format of --log: text or json")
	fs.BoolVar(&c.Debug, "debug", c.Debug, "log details, and name a system call that a filter refuses")
	fs.StringVar(&c.DebugLog, "debug-log", c.DebugLog, "file for debug logs, or a directory ending in /; may contain %COMMAND% and %TIMESTAMP%")
	fs.StringVar(&c.Platform, "platform", c.Platform, "how guest code runs; 'runsc platforms' says which work here")
	fs.StringVar(&c.Network, "network", c.Network, "none (loopback inside the sandbox) or host (the caller's network)")
	fs.StringVar(&c.Overlay2, "overlay2", c.Overlay2, "root:memory or all:memory keeps writes in memory and the host's files untouched; none writes through")
	fs.BoolVar(&c.Rootless, "rootless", c.Rootless, "use no privileges, even if there are some")
	fs.BoolVar(&c.IgnoreCgroups, "ignore-cgroups", c.IgnoreCgroups, "do not put the sandbox into a cgroup")
	fs.BoolVar(&c.Strace, "strace", c.Strace, "log the guest's system calls")
	fs.StringVar(&c.FileAccess, "file-access", c.FileAccess, "exclusive (nobody else changes the host's files meanwhile) or shared")
}

// Check says which flag has a value that does not exist.
func (c *Config) Check() error {
	for _, f := range []struct {
		name, val string
		known     []string
	}{
		{"log-format", c.LogFormat, []string{"text", "json"}},
		{"platform", c.Platform, []string{"ptrace", "systrap"}},
		{"network", c.Network, []string{"none", "host"}},
		{"overlay2", c.Overlay2, []string{"root:memory", "all:memory", "root:self", "none"}},
		{"file-access", c.FileAccess, []string{"exclusive", "shared"}},
	} {
		if !slices.Contains(f.known, f.val) {
			return fmt.Errorf("--%s=%s: no such value; it is one of %s", f.name, f.val, strings.Join(f.known, ", "))
		}
	}
	if c.Overlay2 == "root:self" {
		return fmt.Errorf("--overlay2=root:self: not built yet; use root:memory or none")
	}
	return nil
}

// DebugLogPath gives the file for one process's debug log, empty for none.
func (c *Config) DebugLogPath(command string, at time.Time) string {
	if c.DebugLog == "" {
		return ""
	}
	p := c.DebugLog
	if strings.HasSuffix(p, "/") {
		p = filepath.Join(p, "runsc.log.%TIMESTAMP%.%COMMAND%.txt")
	}
	p = strings.ReplaceAll(p, "%COMMAND%", command)
	return strings.ReplaceAll(p, "%TIMESTAMP%", at.Format("20060102-150405.000000"))
}

// A Mount is a host directory (or file) that the guest sees at Dst. The Gofer
// serves it under Name.
type Mount struct {
	Name     string
	Dst      string
	Src      string `json:",omitempty"` // for messages only
	FD       int    // O_PATH descriptor in the Gofer; unused in the Sentry
	ReadOnly bool
	Overlay  bool // writes go to memory in the Sentry
	IsFile   bool
}

// Process is the guest's first process.
type Process struct {
	Args     []string
	Env      []string
	Cwd      string
	UID, GID uint32
	Groups   []uint32
	Caps     uint64
	Umask    uint32
	Rlimits  [16]Rlimit // by RLIMIT_* number
}

// Rlimit is a soft and a hard limit.
type Rlimit struct{ Cur, Max uint64 }

// Stdio says how one of the guest's first three descriptors is made.
type Stdio struct {
	FD    int // in the Sentry; -1 for none
	Same  int // index of an earlier one that is the same open file description, or its own
	IsTTY bool
	Name  string // what the guest's /proc/self/fd shows
}

// Boot is what the command line tells the Sentry.
type Boot struct {
	Config   Config
	Process  Process
	Mounts   []Mount
	Stdio    [3]Stdio
	Terminal bool // stdin is a terminal, and the guest's controlling one
	Front    bool // our process group is the terminal's foreground one
	Hostname string
	Unmapped bool // the Gofer's user namespace maps the caller's ids only

	ControlFD, P9FD, DonateFD int
	LogFD                     int // -1 for none
	MemTotal                  uint64
	BootTimeNs                int64
}

// Gofer is what the command line tells the Gofer.
type Gofer struct {
	Mounts         []Mount
	P9FD, DonateFD int
	LogFD          int
	Privileged     bool // it runs as root, and may keep the capabilities to serve any file
	Debug          bool
	Shared         bool
}
