package boot

import (
	"fmt"

	"garrison/internal/hostproc"
	"garrison/internal/seccomp"
)

// leaveHost takes the host's files and all capabilities away. What needs
// either, such as /proc/self, was done before.
func leaveHost() error {
	if err := hostproc.NoCores(); err != nil {
		return err
	}
	if err := hostproc.EmptyRoot(); err != nil {
		return err
	}
	if err := hostproc.KeepCapabilities(0); err != nil {
		return err
	}
	return hostproc.NoNewPrivs()
}

// lockDown is the last step: from here on only the listed system calls work.
// The platform's first stub exists; stubs are not under our filter.
func lockDown(rules []seccomp.Rule, debug bool) error {
	if err := hostproc.Undumpable(); err != nil {
		return err
	}
	otherwise := seccomp.KillProcess
	if debug {
		otherwise = seccomp.Trap // Go's runtime dies of it with the stack of the culprit
	}
	prog, err := seccomp.Program(rules, otherwise)
	if err != nil {
		return fmt.Errorf("the Sentry's filter: %w", err)
	}
	return seccomp.Install(prog)
}
