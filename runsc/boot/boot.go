// Package boot wires a sandbox's kernel together from the packages below
// sentry, one platform and one connection to a Gofer, runs the guest's first
// process, and answers the command line.
//
// It does not start host processes (runsc/sandbox does) and implements no
// system call. It is the only package that knows all the others.
//
// Lock order: none of its own above the kernel's; Guest.mu is a leaf.
package boot

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"garrison/runsc/config"
	"garrison/runsc/control"
)

// Run is the Sentry's life: it returns when the guest has ended, or with an
// error if it could not be started.
func Run(b *config.Boot) error {
	// Garbage is collected at every doubling from 4 MB on; small sandboxes
	// must stay small.
	debug.SetGCPercent(100)
	ctl := socketFile(b.ControlFD, "control")
	conn := control.NewConn(ctl)
	fail := func(code int, err error) error {
		conn.Send(control.Message{Kind: control.Failed, Code: code, Text: err.Error()})
		return err
	}
	_ = fail
	if err := leaveHost(); err != nil {
		return fail(125, fmt.Errorf("shut the sandbox's kernel in: %w%s", err, usernsHint(err)))
	}
	if err := lockDown(Rules(nil, b.Config.Network == "host"), b.Config.Debug); err != nil {
		return fail(125, err)
	}
	conn.Send(control.Message{Kind: control.Started})
	for {
		m, err := conn.Receive()
		if err != nil {
			return nil
		}
		if m.Kind == control.Signal {
			conn.Send(control.Message{Kind: control.Exited, Status: m.Signo})
		}
	}
}

// socketFile wraps a socket that we own alone, so that waiting on it costs no
// thread.
func socketFile(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

func usernsHint(err error) string { return "" }
