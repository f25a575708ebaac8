package boot

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"garrison/abi"
	"garrison/runsc/config"
	"garrison/runsc/control"
	"garrison/sentry/cred"
	"garrison/sentry/fs/dev"
	"garrison/sentry/fs/devpts"
	"garrison/sentry/fs/gofer"
	"garrison/sentry/fs/host"
	"garrison/sentry/fs/overlay"
	"garrison/sentry/fs/pipe"
	"garrison/sentry/fs/proc"
	"garrison/sentry/fs/sys"
	"garrison/sentry/fs/tmpfs"
	"garrison/sentry/fs/tty"
	"garrison/sentry/kernel"
	"garrison/sentry/strace"
	"garrison/sentry/syscalls"
	"garrison/sentry/vfs"
)

// startGuest builds the kernel and runs the first process. From here on only
// the listed system calls work.
func (g *guest) startGuest(b *config.Boot, m *machine) error {
	var logTo io.Writer
	if m.log != nil {
		logTo = m.log
	}
	v := vfs.New()
	table := syscalls.Table()
	cfg := kernel.Config{
		Platform: m.platform, PageFile: m.pages, VFS: v, Table: table[:], Log: logTo, Network: g.net.families,
		Hostname: b.Hostname, TotalMemory: b.MemTotal,
		OnPanic: func(msg string) {
			fmt.Fprintln(os.Stderr, msg)
			os.Exit(2)
		},
	}
	if b.Config.Strace {
		cfg.Strace = strace.New(m.log)
	}
	k, err := kernel.New(cfg)
	if err != nil {
		return err
	}
	g.k = k
	ns, err := g.mounts(b, m, v)
	if err != nil {
		return err
	}
	ctx := vfs.NewSystemContext(v, ns.Root())
	if _, err := v.Lookup(ctx, ns.Root(), b.Process.Cwd, vfs.Follow|vfs.WantDir); err != nil {
		return fmt.Errorf("enter the working directory %s in the sandbox: %w (see --cwd)", b.Process.Cwd, err)
	}
	fds, err := g.stdio(b, m, v, ctx)
	if err != nil {
		return err
	}
	k.OnInitStopped(g.initStopped)
	args := kernel.CreateProcessArgs{
		Argv: b.Process.Args, Envv: b.Process.Env, Cwd: b.Process.Cwd,
		Cred: credentials(k, &b.Process), FDTable: fds, MountNS: ns,
		Umask: uint16(b.Process.Umask), Limits: limits(&b.Process),
	}
	if g.tty != nil {
		args.Terminal = &g.tty.Terminal
	}
	g.init, err = k.CreateProcess(args)
	if err != nil {
		return execError(b.Process.Args[0], err)
	}
	return nil
}

// execError is what a shell would say.
func execError(name string, err error) error {
	switch err {
	case abi.ENOENT:
		if strings.Contains(name, "/") {
			return &startError{exitNotFound, fmt.Errorf("%s: no such file in the sandbox", name)}
		}
		return &startError{exitNotFound, fmt.Errorf("%s: command not found", name)}
	case abi.EACCES, abi.EISDIR:
		return &startError{exitNotExecutable, fmt.Errorf("%s: permission denied (is it an executable file?)", name)}
	case abi.ENOEXEC:
		return &startError{exitNotExecutable, fmt.Errorf("%s: cannot execute: it is no program for this machine, and no script with an interpreter line", name)}
	case abi.ENOTDIR, abi.ELOOP, abi.ENAMETOOLONG:
		return &startError{exitNotFound, fmt.Errorf("%s: %w", name, err)}
	}
	return &startError{exitNotExecutable, fmt.Errorf("%s: cannot execute: %w", name, err)}
}

// credentials are the caller's ids in the guest's own kernel.
func credentials(k *kernel.Kernel, p *config.Process) *cred.Cred {
	ns := k.RootUserNamespace()
	var groups []cred.GID
	for _, x := range p.Groups {
		groups = append(groups, cred.GID(x))
	}
	c := cred.NewUser(ns, cred.UID(p.UID), cred.GID(p.GID), groups)
	caps := cred.CapSet(p.Caps) & cred.AllCaps
	c.Permitted, c.Effective = caps, caps
	return c
}

// limits starts from the kernel's own and takes over what the caller set.
func limits(p *config.Process) *[abi.RLIMIT_NLIMITS]abi.Rlimit {
	l := kernel.DefaultLimits()
	for i := range l {
		switch i {
		case abi.RLIMIT_NPROC, abi.RLIMIT_SIGPENDING, abi.RLIMIT_AS, abi.RLIMIT_RSS, abi.RLIMIT_LOCKS:
			// These count what is the guest's kernel's alone.
		default:
			l[i] = abi.Rlimit{Cur: p.Rlimits[i].Cur, Max: p.Rlimits[i].Max}
		}
	}
	return &l
}

// mounts connects to the Gofer and builds the mount namespace.
func (g *guest) mounts(b *config.Boot, m *machine, v *vfs.VFS) (*vfs.MountNamespace, error) {
	client, err := gofer.Connect(os.NewFile(uintptr(b.P9FD), "9p"), os.NewFile(uintptr(b.DonateFD), "descriptors"), func(err error) {
		g.k.Logf("%v", err) // the command line, whose child the Gofer is, tells the user
	})
	if err != nil {
		return nil, err
	}
	dev.Register(v, m.pages)
	tty.Register(v)
	devpts.Register(v, nil)
	v.OpenFIFO = new(pipe.FIFOs).Open
	v.RegisterFilesystem("tmpfs", tmpfs.Maker(v, m.pages, b.MemTotal/2))
	v.RegisterFilesystem("proc", func(vfs.Context, string, string, uint32) (vfs.Superblock, error) {
		return proc.New(g.k, proc.Config{CPUInfo: m.cpuInfo, CommandLine: "garrison", NetFiles: g.net.files}), nil
	})
	v.RegisterFilesystem("sysfs", func(vfs.Context, string, string, uint32) (vfs.Superblock, error) {
		return sys.New(v, sys.Machine{CPUs: g.k.CPUs(), TotalMemory: g.k.TotalMemory(), UsedMemory: m.pages.Usage}), nil
	})

	none := vfs.NewSystemContext(v, vfs.Path{})
	if v.Memfd, err = tmpfs.MemfdMaker(none, v, m.pages, b.MemTotal); err != nil {
		return nil, err
	}
	goferMount := func(mt *config.Mount) (vfs.Superblock, uint32, error) {
		fs, err := client.Mount(mt.Name, gofer.Options{Exclusive: b.Config.FileAccess == "exclusive", NewDev: v.NewAnonDev, Unmapped: b.Unmapped})
		if err != nil {
			return nil, 0, err
		}
		switch {
		case mt.Overlay && !mt.IsFile:
			o, err := overlay.New(none, v, fs, tmpfs.New(v, m.pages, tmpfs.Options{Mode: 0o755, Size: b.MemTotal}))
			if err != nil {
				return nil, 0, fmt.Errorf("lay an overlay over %s: %w", mt.Src, err)
			}
			return o, 0, nil
		case mt.ReadOnly:
			return fs, abi.MS_RDONLY, nil
		}
		return fs, 0, nil
	}
	var ns *vfs.MountNamespace
	for i := range b.Mounts {
		mt := &b.Mounts[i]
		sb, flags, err := goferMount(mt)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if ns, err = v.NewMountNamespace(none, sb, flags, "root"); err != nil {
				return nil, fmt.Errorf("mount the root file system: %w", err)
			}
			if err := g.systemMounts(b, m, v, ns); err != nil {
				return nil, err
			}
			continue
		}
		ctx := vfs.NewSystemContext(v, ns.Root())
		p, err := mountPoint(ctx, v, ns, mt.Dst, mt.IsFile)
		if err == nil {
			_, err = v.MountAt(ctx, p, sb, flags, "volume"+mt.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("mount the volume %s at %s: %w", mt.Src, mt.Dst, err)
		}
	}
	return ns, nil
}

// systemMounts hangs in the file systems that are the kernel's own.
func (g *guest) systemMounts(b *config.Boot, m *machine, v *vfs.VFS, ns *vfs.MountNamespace) error {
	ctx := vfs.NewSystemContext(v, ns.Root())
	devfs := tmpfs.New(v, m.pages, tmpfs.Options{Mode: 0o755, Size: 64 << 10, Type: "devtmpfs"})
	if err := dev.Populate(ctx, devfs.Root()); err != nil {
		return fmt.Errorf("populate /dev: %w", err)
	}
	pts, err := devpts.New(v, "gid=5,mode=620,ptmxmode=666")
	if err != nil {
		return fmt.Errorf("make /dev/pts: %w", err)
	}
	const quiet = abi.MS_NOSUID | abi.MS_NODEV | abi.MS_NOEXEC
	for _, mt := range []struct {
		at    string
		sb    vfs.Superblock
		flags uint32
		name  string
	}{
		{"/proc", proc.New(g.k, proc.Config{CPUInfo: m.cpuInfo, CommandLine: "garrison", NetFiles: g.net.files}), quiet, "proc"},
		{"/sys", sys.New(v, sys.Machine{CPUs: g.k.CPUs(), TotalMemory: g.k.TotalMemory(), UsedMemory: m.pages.Usage}), quiet | abi.MS_RDONLY, "sysfs"},
		{"/dev", devfs, abi.MS_NOSUID, "devtmpfs"},
		{"/dev/pts", pts, abi.MS_NOSUID | abi.MS_NOEXEC, "devpts"},
		{"/dev/shm", tmpfs.New(v, m.pages, tmpfs.Options{Mode: 0o1777, Size: b.MemTotal / 2}), abi.MS_NOSUID | abi.MS_NODEV, "tmpfs"},
	} {
		p, err := mountPoint(ctx, v, ns, mt.at, false)
		if err == nil {
			_, err = v.MountAt(ctx, p, mt.sb, mt.flags, mt.name)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", mt.at, err)
		}
	}
	return nil
}

// mountPoint finds dst, and makes it (in the overlay) if it is missing.
func mountPoint(ctx vfs.Context, v *vfs.VFS, ns *vfs.MountNamespace, dst string, file bool) (vfs.Path, error) {
	p, err := v.Lookup(ctx, ns.Root(), dst, vfs.Follow)
	if err != abi.ENOENT {
		return p, err
	}
	_, err = mountPoint(ctx, v, ns, path.Dir(dst), false)
	if err != nil {
		return p, err
	}
	if file {
		err = v.Mknod(ctx, ns.Root(), dst, abi.S_IFREG|0o644, 0)
	} else {
		err = v.Mkdir(ctx, ns.Root(), dst, 0o755)
	}
	if err != nil {
		return p, fmt.Errorf("make the mount point (is the root file system read-only?): %w", err)
	}
	return v.Lookup(ctx, ns.Root(), dst, vfs.Follow)
}

// consolePath is where the guest finds the user's terminal: its name on the
// host means nothing inside, and ttyname(3) looks for one that does.
const consolePath = "/dev/console"

func mountConsole(ctx vfs.Context, v *vfs.VFS, t *host.TTY) error {
	root := ctx.FSContext().Root()
	err := v.Mknod(ctx, root, consolePath, abi.S_IFREG|0o600, 0)
	if err != nil && err != abi.EEXIST {
		return err
	}
	p, err := v.Lookup(ctx, root, consolePath, 0)
	if err != nil {
		return err
	}
	sb := vfs.NewPseudoSuperblock(v, "devpts", abi.DEVPTS_SUPER_MAGIC)
	sb.SetRoot(t.Inode())
	_, err = v.MountAt(ctx, p, sb, abi.MS_NOSUID|abi.MS_NOEXEC, "devpts")
	return err
}

// stdio makes the first descriptors.
func (g *guest) stdio(b *config.Boot, m *machine, v *vfs.VFS, ctx vfs.Context) (*vfs.FDTable, error) {
	table := vfs.NewFDTable()
	hostDev := v.NewAnonDev()
	var files [3]*vfs.File
	for i, s := range b.Stdio {
		if s.FD < 0 {
			continue
		}
		if s.Same != i {
			files[i] = files[s.Same]
			files[i].IncRef()
		} else {
			src := host.Source{FD: s.FD, Name: s.Name, Dev: hostDev, Poller: m.poller}
			if s.IsTTY {
				src.Name = consolePath
			}
			var err error
			switch {
			case s.IsTTY && g.tty == nil:
				g.tty, files[i], err = host.NewTTY(src, b.Front)
				if err == nil {
					g.tty.Wants = func(sig int) {
						g.conn.Send(control.Message{Kind: control.Wants, Signo: sig})
					}
					err = mountConsole(ctx, v, g.tty)
				}
			case s.IsTTY:
				files[i], err = g.tty.Another(src)
			default:
				files[i], err = host.NewFile(src)
			}
			if err != nil {
				return nil, fmt.Errorf("take over standard stream %d (%s): %w", i, s.Name, err)
			}
		}
		if err := table.SetFD(ctx, files[i], int32(i), 3, false); err != nil {
			return nil, fmt.Errorf("make descriptor %d: %w", i, err)
		}
	}
	return table, nil
}
