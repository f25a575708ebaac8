package cmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/subcommands"
	"golang.org/x/sys/unix"

	"garrison/runsc/config"
	"garrison/runsc/sandbox"
)

// do runs one command on the host's root file system, in a sandbox.
type do struct {
	conf    *config.Config
	cwd     string
	env     list
	volumes list
}

// A list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func (*do) Name() string     { return "do" }
func (*do) Synopsis() string { return "run a program of this machine in a sandbox" }
func (*do) Usage() string {
	return `do [flags] [--] CMD [ARG...]

Runs CMD on a kernel of its own. It sees this machine's files, and what it writes
stays in memory and is gone afterwards; it sees no network but its own loopback.
The working directory, the environment and the standard streams are the caller's.

  runsc do ls -l
  runsc do --volume /tmp/out:/out -- make DESTDIR=/out install
  runsc do --network=host --env LANG=C curl http://localhost/
  runsc do --overlay2=none touch kept        # writes reach the host

The exit status is CMD's; 128+n when signal n killed it; 126 when CMD can't be
executed; 127 when there is no CMD; 125 when runsc itself failed; 137 when the
sandbox was killed.

`
}

func (d *do) SetFlags(fs *flag.FlagSet) {
	d.conf.Register(fs)
	fs.StringVar(&d.cwd, "cwd", "", "working directory (the caller's)")
	fs.Var(&d.env, "env", "NAME=VALUE to add to the environment; may be given several times")
	fs.Var(&d.volumes, "volume", "src:dst[:ro] shows the host's src at dst, writable without an overlay; may be given several times")
}

func (d *do) Execute(_ context.Context, fs *flag.FlagSet, _ ...any) subcommands.ExitStatus {
	if fs.NArg() == 0 {
		fmt.Fprint(os.Stderr, "runsc: do: no command given\n\n", d.Usage())
		return 2
	}
	a, err := d.args(fs.Args())
	if err != nil {
		return fail(d.conf, err)
	}
	code, err := newSession(a).run()
	if err != nil {
		st := fail(d.conf, err)
		if code != 0 {
			return subcommands.ExitStatus(code)
		}
		return st
	}
	return subcommands.ExitStatus(code)
}

// args turns the flags into what the sandbox is made from.
func (d *do) args(argv []string) (*sandbox.Args, error) {
	if err := d.conf.Check(); err != nil {
		return nil, err
	}
	a := &sandbox.Args{Config: d.conf, Stdio: [3]int{0, 1, 2}, TTY: -1}
	cwd := d.cwd
	if cwd == "" {
		wd, err := unix.Getwd()
		if err != nil {
			return nil, fmt.Errorf("find the working directory: %w (was it removed? choose one with --cwd)", err)
		}
		cwd = wd
	}
	if !filepath.IsAbs(cwd) {
		return nil, fmt.Errorf("--cwd %s: it must be an absolute path", cwd)
	}
	env, err := environment(os.Environ(), d.env)
	if err != nil {
		return nil, err
	}
	a.Process = config.Process{Args: argv, Env: env, Cwd: cwd}
	whoAmI(&a.Process, d.conf.Rootless)

	overlay := d.conf.Overlay2 != "none"
	a.Mounts = []config.Mount{{Name: "0", Src: "/", Dst: "/", ReadOnly: overlay, Overlay: overlay}}
	for i, v := range d.volumes {
		m, err := parseVolume(v)
		if err != nil {
			return nil, err
		}
		m.Name = fmt.Sprint(i + 1)
		if d.conf.Overlay2 == "all:memory" && !m.ReadOnly {
			m.ReadOnly, m.Overlay = true, true
		}
		a.Mounts = append(a.Mounts, m)
	}
	for i, fd := range a.Stdio {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			a.TTY = i
			break
		}
	}
	if a.TTY >= 0 {
		a.Front = foreground(a.Stdio[a.TTY])
	}
	return a, nil
}

// environment adds NAME=VALUE strings to base, replacing what is there.
func environment(base []string, add []string) ([]string, error) {
	env := slices.Clone(base)
	for _, kv := range add {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--env %s: it must be NAME=VALUE", kv)
		}
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		env = append(env, kv)
	}
	return env, nil
}

// parseVolume takes src:dst[:ro] apart.
func parseVolume(v string) (config.Mount, error) {
	f := strings.Split(v, ":")
	m := config.Mount{}
	switch {
	case len(f) == 3 && f[2] == "ro":
		m.ReadOnly = true
	case len(f) == 3 && f[2] == "rw", len(f) == 2:
	default:
		return m, fmt.Errorf("--volume %s: it must be src:dst or src:dst:ro", v)
	}
	if !filepath.IsAbs(f[1]) || f[0] == "" {
		return m, fmt.Errorf("--volume %s: dst must be an absolute path in the sandbox, and src a path on the host", v)
	}
	src, err := filepath.Abs(f[0])
	if err != nil {
		return m, fmt.Errorf("--volume %s: %w", v, err)
	}
	m.Src, m.Dst = src, filepath.Clean(f[1])
	if m.Dst == "/" {
		return m, errors.New("--volume " + v + ": dst can't be the root directory")
	}
	return m, nil
}

// whoAmI gives the guest's first process the caller's ids, umask and limits.
// Capabilities are of the guest's own kernel: root has all of them there.
func whoAmI(p *config.Process, rootless bool) {
	p.UID, p.GID = uint32(os.Getuid()), uint32(os.Getgid())
	gs, _ := os.Getgroups()
	for _, g := range gs {
		p.Groups = append(p.Groups, uint32(g))
	}
	if p.UID == 0 {
		p.Caps = 1<<(unix.CAP_LAST_CAP+1) - 1
	}
	old := unix.Umask(0)
	unix.Umask(old)
	p.Umask = uint32(old)
	for i := range p.Rlimits {
		var r unix.Rlimit
		if unix.Getrlimit(i, &r) != nil {
			r = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		}
		p.Rlimits[i] = config.Rlimit{Cur: r.Cur, Max: r.Max}
	}
	// Go's runtime raised our own soft limit on files; programs that close all
	// descriptors up to it count on the usual value.
	nofile := &p.Rlimits[unix.RLIMIT_NOFILE]
	nofile.Cur = min(nofile.Cur, 1024)
}
