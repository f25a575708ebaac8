package boot

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"garrison/internal/seccomp"
	"garrison/platform"
	"garrison/platform/hoststub"
	"garrison/platform/ptrace"
	"garrison/platform/systrap"
	"garrison/runsc/config"
	"garrison/sentry/fs/host"
	"garrison/sentry/pagefile"
)

// A machine is what the sandbox is built from that needs the host to make.
type machine struct {
	platform  platform.Platform
	hostRules []seccomp.Rule // system calls that the platform makes later
	pages     *pagefile.File
	poller    *host.Poller
	log       *os.File // nil without --debug-log
	cpuInfo   string   // the host's /proc/cpuinfo
}

// newMachine makes it; the host's files and all system calls are still in reach.
func newMachine(b *config.Boot) (*machine, error) {
	m := &machine{}
	if b.LogFD >= 0 {
		m.log = os.NewFile(uintptr(b.LogFD), "debug-log")
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, fmt.Errorf("read the host's /proc/cpuinfo: %w (is /proc mounted?)", err)
	}
	m.cpuInfo = string(info)
	fd, err := unix.MemfdCreate("guest-memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the file that is the guest's memory: %w", err)
	}
	if m.pages, err = pagefile.New(fd); err != nil {
		return nil, err
	}
	if m.poller, err = host.NewPoller(); err != nil {
		return nil, err
	}
	if err := hoststub.Prepare(); err != nil {
		return nil, err
	}
	return m, nil
}

// start makes the platform. Its first stub is forked here, when the host's
// files and all capabilities are gone: stubs never had them.
func (m *machine) start(b *config.Boot) error {
	var err error
	switch b.Config.Platform {
	case "systrap":
		m.platform, err = systrap.New()
		m.hostRules = append(m.hostRules, systrap.HostSyscalls...)
	default:
		m.platform, err = ptrace.New()
		m.hostRules = append(m.hostRules, ptrace.HostSyscalls...)
	}
	if err != nil {
		return fmt.Errorf("set up the platform %s: %w", b.Config.Platform, err)
	}
	return nil
}

// A PlatformInfo is a platform that users can choose.
type PlatformInfo struct {
	Name  string
	Check func() error
}

// Platforms lists all of them, the default first.
func Platforms() []PlatformInfo {
	return []PlatformInfo{{"ptrace", ptrace.Check}, {"systrap", systrap.Check}}
}
