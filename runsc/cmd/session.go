package cmd

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"garrison/runsc/control"
	"garrison/runsc/sandbox"
)

// A session is one sandbox in the foreground of the command line: it passes
// signals in, stops and continues with the guest, and gives its exit status.
type session struct {
	args *sandbox.Args
	sb   *sandbox.Sandbox
	tty  int // descriptor of the guest's controlling terminal, or -1

	mine   *unix.Termios // the terminal's modes as we found them
	guests *unix.Termios // the guest's, while we are stopped
}

// forwarded are the signals that go to the guest.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2,
	unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT, unix.SIGALRM}

// grace is how long a dead control connection may precede the death that
// explains it.
const grace = 2 * time.Second

func newSession(a *sandbox.Args) *session {
	s := &session{args: a, tty: -1}
	if a.TTY >= 0 {
		s.tty = a.Stdio[a.TTY]
	}
	return s
}

// run returns the exit status; with an error it is runsc's own.
func (s *session) run() (int, error) {
	sigs := make(chan os.Signal, 64)
	// What our caller told us to ignore (nohup) stays ignored.
	for _, sig := range forwarded {
		if !signal.Ignored(sig) {
			signal.Notify(sigs, sig)
		}
	}
	if s.tty >= 0 {
		s.mine, _ = unix.IoctlGetTermios(s.tty, unix.TCGETS)
	}
	sb, err := sandbox.Start(s.args)
	if err != nil {
		return sandbox.ExitFailed, err
	}
	s.sb = sb
	defer func() {
		sb.Kill()
		sb.Reap()
		s.restore()
	}()
	msgs := make(chan control.Message, 16)
	gone := make(chan error, 1)
	go func() {
		for {
			m, err := sb.Conn.Receive()
			if err != nil {
				gone <- err
				return
			}
			msgs <- m
		}
	}()
	return s.loop(sigs, msgs, gone)
}

func (s *session) loop(sigs <-chan os.Signal, msgs <-chan control.Message, gone <-chan error) (int, error) {
	started := false
	goferDone := s.sb.GoferDone
	for {
		select {
		case m := <-msgs:
			if m.Kind == control.Started {
				started = true
			}
			if code, err, end := s.message(m); end {
				return code, err
			}
		case sig := <-sigs:
			s.signal(sig.(unix.Signal))
		case e := <-goferDone:
			// The guest gets EIO from now on. A Gofer that ended by itself
			// does so because the Sentry hung up: that one has the word.
			goferDone = nil
			if e.Status.Signaled() || e.Status.ExitStatus() != 0 {
				fmt.Fprintf(os.Stderr, "runsc: the Gofer, the process that serves the sandbox's files, %s\n", describe(e))
				if started {
					fmt.Fprintln(os.Stderr, "runsc: every access to the host's files fails with EIO now")
				}
			}
		case err := <-gone:
			return s.lost(err, msgs)
		}
	}
}

// message acts on one message of the Sentry's; end says that it was the last.
func (s *session) message(m control.Message) (code int, err error, end bool) {
	switch m.Kind {
	case control.Exited:
		ws := unix.WaitStatus(m.Status)
		if ws.Signaled() {
			return 128 + int(ws.Signal()), nil, true
		}
		return ws.ExitStatus(), nil, true
	case control.Failed:
		return m.Code, fmt.Errorf("%s", m.Text), true
	case control.Stopped, control.Wants:
		s.stop(unix.Signal(m.Signo))
	case control.Notice:
		fmt.Fprintf(os.Stderr, "runsc: %s\n", m.Text)
	}
	return 0, nil, false
}

// signal passes a signal of ours on to the guest.
func (s *session) signal(sig unix.Signal) {
	switch sig {
	case unix.SIGCONT:
		s.resume()
	default:
		s.sb.Conn.Send(control.Message{Kind: control.Signal, Signo: int(sig)})
	}
}

// stop ends our turn on the terminal: a shell that waits for us sees its job
// stopped, and finds the terminal as it was.
func (s *session) stop(sig unix.Signal) {
	if s.tty >= 0 && foreground(s.tty) {
		s.guests, _ = unix.IoctlGetTermios(s.tty, unix.TCGETS)
	}
	s.restore()
	unix.Kill(os.Getpid(), unix.SIGSTOP)
	// Here SIGCONT has arrived; it comes through the channel too.
}

// resume gives the guest its terminal modes back and lets it continue.
func (s *session) resume() {
	front := s.tty >= 0 && foreground(s.tty)
	if front && s.guests != nil {
		unix.IoctlSetTermios(s.tty, unix.TCSETSW, s.guests)
		s.guests = nil
	}
	s.sb.Conn.Send(control.Message{Kind: control.Continue, On: front})
}

// restore puts the terminal's modes back. From the background it would only
// stop us (SIGTTOU), and the terminal is somebody else's then.
func (s *session) restore() {
	if s.tty < 0 || s.mine == nil || !foreground(s.tty) {
		return
	}
	if now, err := unix.IoctlGetTermios(s.tty, unix.TCGETS); err == nil && *now != *s.mine {
		unix.IoctlSetTermios(s.tty, unix.TCSETSW, s.mine)
	}
}

// lost explains why the Sentry is gone.
func (s *session) lost(err error, msgs <-chan control.Message) (int, error) {
	// What it said before it went counts.
	for {
		select {
		case m := <-msgs:
			if code, err, end := s.message(m); end {
				return code, err
			}
			continue
		default:
		}
		break
	}
	select {
	case e := <-s.sb.SentryDone:
		code := sandbox.ExitFailed
		if e.Status.Signaled() {
			code = sandbox.ExitKilled
		}
		return code, fmt.Errorf("the sandbox's kernel (runsc boot) %s", describe(e))
	case <-time.After(grace):
	}
	if err == io.EOF {
		return sandbox.ExitFailed, fmt.Errorf("the sandbox's kernel (runsc boot, process %d) closed its control connection but did not end; it was killed", s.sb.SentryPID())
	}
	return sandbox.ExitFailed, fmt.Errorf("talk to the sandbox's kernel: %w", err)
}

// describe says how a process of the sandbox ended.
func describe(e sandbox.Exit) string {
	var b strings.Builder
	switch {
	case e.Status.Signaled() && e.Status.Signal() == unix.SIGSYS:
		b.WriteString("made a system call that its own filter refuses, and was killed; run again with --debug to see which")
	case e.Status.Signaled():
		fmt.Fprintf(&b, "was killed by signal %d (%v)", e.Status.Signal(), e.Status.Signal())
	default:
		fmt.Fprintf(&b, "ended with status %d", e.Status.ExitStatus())
	}
	if e.Output != "" {
		b.WriteString("; it said:\n")
		b.WriteString(strings.TrimRight(e.Output, "\n"))
	}
	return b.String()
}

// foreground reports whether our process group has the terminal.
func foreground(tty int) bool {
	pgrp, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}
