// Package boot wires a sandbox's kernel together from the packages below
// sentry, one platform and one connection to a Gofer, runs the guest's first
// process, and answers the command line.
//
// It does not start host processes (runsc/sandbox does) and implements no
// system call. It is the only package that knows all the others.
//
// Lock order: none of its own; hooks that the kernel calls take no lock here.
package boot

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/runsc/config"
	"garrison/runsc/control"
	"garrison/sentry/fs/host"
	"garrison/sentry/kernel"
)

// Exit statuses for what the guest's first program can't do, as shells have them.
const (
	exitFailed        = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// A guest is the running sandbox, as the command line sees it.
type guest struct {
	k    *kernel.Kernel
	conn *control.Conn
	tty  *host.TTY // nil without a terminal
	init *kernel.ThreadGroup
	net  *network
}

// startError is a failure with the exit status that it means.
type startError struct {
	code int
	err  error
}

func (e *startError) Error() string { return e.err.Error() }

// Run is the Sentry's life: it returns when the guest has ended, or with an
// error if it could not be started.
func Run(b *config.Boot) error {
	conn := control.NewConn(socketFile(b.ControlFD, "control"))
	g := &guest{conn: conn}
	if err := g.start(b); err != nil {
		code := exitFailed
		if s, ok := err.(*startError); ok {
			code = s.code
		}
		conn.Send(control.Message{Kind: control.Failed, Code: code, Text: err.Error()})
		return nil // the command line says it
	}
	conn.Send(control.Message{Kind: control.Started})
	go g.obey()
	status := g.init.WaitExited()
	conn.Send(control.Message{Kind: control.Exited, Status: int(status)})
	return nil
}

// start does everything up to the guest's first instruction. What needs the
// host is done first; then the process is locked down; then all else.
func (g *guest) start(b *config.Boot) error {
	m, err := newMachine(b)
	if err != nil {
		return err
	}
	if g.net, err = newNetwork(b); err != nil {
		return err
	}
	if err := leaveHost(); err != nil {
		return fmt.Errorf("shut the sandbox's kernel in: %w", err)
	}
	if err := m.start(b); err != nil {
		return err
	}
	if err := lockDown(Rules(m.hostRules, b.Config.Network == "host"), b.Config.Debug); err != nil {
		return err
	}
	return g.startGuest(b, m)
}

// obey acts on what the command line says, until it is gone: then so are we,
// and with us every stub.
func (g *guest) obey() {
	for {
		msg, err := g.conn.Receive()
		if err != nil {
			if err != io.EOF {
				fmt.Fprintf(os.Stderr, "runsc boot: control connection: %v\n", err)
			}
			os.Exit(exitFailed)
		}
		switch msg.Kind {
		case control.Signal:
			g.signal(int32(msg.Signo))
		case control.Continue:
			if g.tty != nil {
				g.tty.SetFront(msg.On)
			}
			g.k.SendExternalForeground(g.init.PID(), abi.SIGCONT)
			g.k.SendExternalSignal(g.init.PID(), abi.SIGCONT)
		}
	}
}

// signal delivers a signal that the command line got. What the terminal makes
// goes to the guest's foreground group, as the terminal would have done.
func (g *guest) signal(sig int32) {
	if sig < 1 || sig > 64 {
		return
	}
	switch sig {
	case abi.SIGINT, abi.SIGQUIT, abi.SIGTSTP, abi.SIGWINCH:
		g.k.SendExternalForeground(g.init.PID(), sig)
	default:
		g.k.SendExternalSignal(g.init.PID(), sig)
	}
}

// initStopped tells the command line that the guest's first process stopped,
// so that it can stop too, for the shell that waits for it.
func (g *guest) initStopped(stopped bool, sig int32) {
	if stopped {
		g.conn.Send(control.Message{Kind: control.Stopped, Signo: int(sig)})
	}
}

// socketFile wraps a socket that we own alone, so that waiting on it costs no
// thread.
func socketFile(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}
