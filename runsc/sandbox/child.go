package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"garrison/internal/hostproc"
)

// maxOutput is how much of a child's standard error is kept: enough for a
// panic's message and the first stacks.
const maxOutput = 64 << 10

// A child is one process of the sandbox.
type child struct {
	name    string
	spawn   hostproc.Spawn
	errPipe [2]int

	pid     int
	reaped  atomic.Bool
	started chan error
	done    chan Exit
	gone    chan struct{}
}

// child prepares a process that runs `runsc <name>` with cfg at ConfigFD and
// the listed descriptors after it. Nothing is passed in arguments or
// environment, which other users could read.
func (m *maker) child(name string, cfg any, list *fdList) (*child, error) {
	c := &child{name: name, started: make(chan error, 1), done: make(chan Exit, 1), gone: make(chan struct{})}
	body, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of runsc %s: %w", name, err)
	}
	cfgFD, err := unix.MemfdCreate("config", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a memory file for the configuration of runsc %s: %w", name, err)
	}
	m.fds = append(m.fds, cfgFD)
	if _, err := unix.Write(cfgFD, body); err != nil {
		return nil, fmt.Errorf("write the configuration of runsc %s: %w", name, err)
	}
	if err := unix.Pipe2(c.errPipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe for messages of runsc %s: %w", name, err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	m.fds = append(m.fds, null, c.errPipe[1])
	c.spawn.Argv = []string{"runsc-" + name, name}
	c.spawn.Env = []string{"GODEBUG=" + childDebug(), "GOTRACEBACK=system"}
	c.spawn.Files = append([]int{null, c.errPipe[1], c.errPipe[1], cfgFD}, list.fds...)
	return c, nil
}

// childDebug passes GODEBUG on, which helps to find where start-up time goes.
func childDebug() string { return os.Getenv("GODEBUG") }

// run starts the process, reports on c.started, and waits for its end.
func (c *child) run() {
	lockForever()
	pid, err := c.spawn.Start()
	if err != nil {
		unix.Close(c.errPipe[0])
		c.started <- fmt.Errorf("start runsc %s in new namespaces: %w%s", c.name, err, hint(err))
		return
	}
	c.pid = pid
	c.started <- nil
	out := make(chan string, 1)
	go func() { out <- collect(c.errPipe[0]) }()
	var ws unix.WaitStatus
	for {
		_, err = unix.Wait4(pid, &ws, 0, nil)
		if err != unix.EINTR {
			break
		}
	}
	c.reaped.Store(true)
	close(c.gone)
	c.done <- Exit{ws, <-out}
}

// kill ends the process; its parent is us, so that the id cannot be anybody
// else's before we reaped it.
func (c *child) kill() {
	if !c.reaped.Load() {
		unix.Kill(c.pid, unix.SIGKILL)
	}
}

// collect reads a pipe to its end and returns the first of what it held. The
// start of a panic's output says more than its end.
func collect(fd int) string {
	f := os.NewFile(uintptr(fd), "stderr")
	defer f.Close()
	var kept []byte
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		kept = append(kept, buf[:min(n, maxOutput-len(kept))]...)
		if err != nil {
			return string(kept)
		}
	}
}

// hint explains errors of clone(2) with namespaces.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (the host forbids this user to make user namespaces, or we are in a chroot)"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return " (the host's limit on namespaces is used up: see user.max_*_namespaces)"
	case errors.Is(err, unix.EINVAL):
		return " (does this kernel have CONFIG_USER_NS, CONFIG_PID_NS and CONFIG_NET_NS?)"
	}
	return ""
}
