package cmd

import (
	"fmt"
	"log"
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

// serve shuts the process in and serves until the Sentry is gone.
func serve(g *config.Gofer) error {
	cfg := gofer.Config{}
	for _, m := range g.Mounts {
		cfg.Mounts = append(cfg.Mounts, gofer.Mount{Name: m.Name, HostPath: m.Src, Root: os.NewFile(uintptr(m.FD), m.Src), ReadOnly: m.ReadOnly})
	}
	if g.LogFD >= 0 {
		cfg.Log = log.New(os.NewFile(uintptr(g.LogFD), "debug-log"), "gofer: ", log.Ltime|log.Lmicroseconds).Printf
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
	unix.Umask(0) // modes are what the Sentry says: it has applied the guest's umask
	caps := uint64(0)
	if g.Privileged {
		caps = gofer.Capabilities(&cfg)
	}
	if err := hostproc.KeepCapabilities(caps); err != nil {
		return err
	}
	if err := hostproc.NoNewPrivs(); err != nil {
		return err
	}
	if err := hostproc.Undumpable(); err != nil {
		return err
	}
	otherwise := seccomp.KillProcess
	if g.Debug {
		otherwise = seccomp.Trap
	}
	prog, err := seccomp.Program(gofer.Rules(&cfg), otherwise)
	if err != nil {
		return fmt.Errorf("the Gofer's filter: %w", err)
	}
	conn, donate := os.NewFile(uintptr(g.P9FD), "9p"), os.NewFile(uintptr(g.DonateFD), "descriptors")
	if err := seccomp.Install(prog); err != nil {
		return err
	}
	// An error now is the end of a connection that the Sentry broke off.
	if err := gofer.Serve(cfg, conn, donate); err != nil && cfg.Log != nil {
		cfg.Log("serving ended: %v", err)
	}
	return nil
}
