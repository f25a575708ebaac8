package cmd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"garrison/gofer"
	"garrison/internal/hostproc"
	"garrison/internal/seccomp"
	"garrison/runsc/config"
	"garrison/runsc/sandbox"
)

// goferMain is the Gofer's process.
func goferMain() int {
	hostproc.SetName("runsc-gofer")
	var g config.Gofer
	if err := readConfig(&g); err != nil {
		fmt.Fprintf(os.Stderr, "runsc gofer: %v\n", err)
		return sandbox.ExitFailed
	}
	if err := serve(&g); err != nil {
		fmt.Fprintf(os.Stderr, "runsc gofer: %v\n", err)
		return sandbox.ExitFailed
	}
	return 0
}

func serve(g *config.Gofer) error {
	cfg := gofer.Config{}
	for _, m := range g.Mounts {
		cfg.Mounts = append(cfg.Mounts, gofer.Mount{Name: m.Name, Root: os.NewFile(uintptr(m.FD), m.Src), ReadOnly: m.ReadOnly || m.Overlay})
	}
	if g.LogFD >= 0 {
		log := os.NewFile(uintptr(g.LogFD), "debug log")
		cfg.Log = func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }
	}
	if err := cfg.Prepare(); err != nil {
		return err
	}
	if err := hostproc.NoCores(); err != nil {
		return err
	}
	if err := hostproc.EmptyRoot(); err != nil {
		return fmt.Errorf("shut the file server in: %w", err)
	}
	if err := hostproc.KeepCapabilities(g.Caps & gofer.Capabilities(&cfg)); err != nil {
		return err
	}
	if err := hostproc.NoNewPrivs(); err != nil {
		return err
	}
	unix.Umask(0)
	otherwise := seccomp.KillProcess
	if g.Debug {
		otherwise = seccomp.Trap
	}
	prog, err := seccomp.Program(gofer.Rules(&cfg), otherwise)
	if err != nil {
		return fmt.Errorf("the Gofer's filter: %w", err)
	}
	if err := seccomp.Install(prog); err != nil {
		return err
	}
	return gofer.Serve(cfg, os.NewFile(uintptr(g.P9FD), "9p"), os.NewFile(uintptr(g.DonateFD), "descriptor channel"))
}
