package proc

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/vfs"
)

// userHz is USER_HZ: clock ticks in proc files are hundredths of a second.
const userHz = 100

// ticks converts nanoseconds to clock ticks.
func ticks(ns int64) int64 { return ns / (int64(time.Second) / userHz) }

// text wraps a generator that does not fail.
func text(f func() string) func(vfs.Context) ([]byte, error) {
	return func(vfs.Context) ([]byte, error) { return []byte(f()), nil }
}

// globalFiles are the files of /proc itself.
func (fs *procFS) globalFiles() map[string]vfs.Inode {
	m := map[string]vfs.Inode{
		"cmdline":     fs.Text(fs.cfg.CommandLine + "\n"),
		"cpuinfo":     fs.Text(fs.cfg.CPUInfo),
		"devices":     fs.Text(deviceNumbers),
		"filesystems": fs.NewFile(text(fs.filesystems)),
		"loadavg":     fs.NewFile(text(fs.loadavg)),
		"meminfo":     fs.NewFile(text(fs.meminfo)),
		"stat":        fs.NewFile(text(fs.stat)),
		"swaps":       fs.Text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
		"sys":         fs.sysctls(),
		"tty":         fs.NewDir(map[string]vfs.Inode{"drivers": fs.Text(ttyDrivers)}),
		"uptime":      fs.NewFile(text(fs.uptime)),
		"version":     fs.NewFile(text(fs.version)),
		"vmstat":      fs.NewFile(text(fs.vmstat)),
	}
	fs.selfLinks(m)
	return m
}

// deviceNumbers are the character devices that exist (fs/dev, fs/tty, fs/devpts).
const deviceNumbers = `Character devices:
  1 mem
  5 /dev/tty
  5 /dev/console
  5 /dev/ptmx
136 pts

Block devices:
`

const ttyDrivers = `/dev/tty             /dev/tty        5       0 system:/dev/tty
/dev/console         /dev/console    5       1 system:console
/dev/ptmx            /dev/ptmx       5       2 system
pty_slave            /dev/pts      136 0-1048575 pty:slave
pty_master           /dev/ptm      128 0-1048575 pty:master
`

func (fs *procFS) filesystems() string {
	var b strings.Builder
	for _, name := range fs.k.VFS().Filesystems() {
		fmt.Fprintf(&b, "nodev\t%s\n", name)
	}
	return b.String()
}

// loadavg is Linux's format; see kernel.LoadAverage for what is averaged.
func (fs *procFS) loadavg() string {
	la := fs.k.LoadAverage()
	running := 0
	total := 0
	for _, tg := range fs.k.ThreadGroups() {
		for _, t := range tg.Tasks() {
			total++
			if t.State() == 'R' {
				running++
			}
		}
	}
	return fmt.Sprintf("%.2f %.2f %.2f %d/%d %d\n", la[0], la[1], la[2], running, total, fs.k.LastPID())
}

// memory returns what is used and free, in KiB.
func (fs *procFS) memory() (total, free, shmem uint64) {
	total = fs.k.TotalMemory() >> 10
	used := min(fs.k.PageFile().Usage()>>10, total)
	return total, total - used, 0
}

func (fs *procFS) meminfo() string {
	total, free, shmem := fs.memory()
	var b strings.Builder
	row := func(name string, kib uint64) { fmt.Fprintf(&b, "%-15s %8d kB\n", name+":", kib) }
	row("MemTotal", total)
	row("MemFree", free)
	row("MemAvailable", free)
	row("Buffers", 0)
	row("Cached", 0)
	row("SwapCached", 0)
	row("Active", total-free)
	row("Inactive", 0)
	row("Active(anon)", total-free)
	row("Inactive(anon)", 0)
	row("Active(file)", 0)
	row("Inactive(file)", 0)
	row("Unevictable", 0)
	row("Mlocked", 0)
	row("SwapTotal", 0)
	row("SwapFree", 0)
	row("Dirty", 0)
	row("Writeback", 0)
	row("AnonPages", total-free)
	row("Mapped", 0)
	row("Shmem", shmem)
	row("KReclaimable", 0)
	row("Slab", 0)
	row("SReclaimable", 0)
	row("SUnreclaim", 0)
	row("PageTables", 0)
	row("CommitLimit", total)
	row("Committed_AS", total-free)
	row("VmallocTotal", 34359738367)
	row("VmallocUsed", 0)
	row("HugePages_Total", 0)
	row("HugePages_Free", 0)
	row("Hugepagesize", 2048)
	s := b.String()
	// The two counts of pages carry no unit.
	for _, n := range []string{"HugePages_Total", "HugePages_Free"} {
		i := strings.Index(s, n)
		j := i + strings.Index(s[i:], " kB")
		s = s[:j] + s[j+3:]
	}
	return s
}

func (fs *procFS) stat() string {
	user, system := fs.k.CPUTime()
	uptime := fs.k.Clocks().Boottime()
	cpus := int64(fs.k.CPUs())
	idle := max(uptime*cpus-user-system, 0)
	var b strings.Builder
	fmt.Fprintf(&b, "cpu  %d 0 %d %d 0 0 0 0 0 0\n", ticks(user), ticks(system), ticks(idle))
	for i := range cpus {
		// Guests are not accounted by CPU: each shows its share.
		fmt.Fprintf(&b, "cpu%d %d 0 %d %d 0 0 0 0 0 0\n", i, ticks(user/cpus), ticks(system/cpus), ticks(idle/cpus))
	}
	running := 0
	for _, tg := range fs.k.ThreadGroups() {
		for _, t := range tg.Tasks() {
			if t.State() == 'R' {
				running++
			}
		}
	}
	fmt.Fprintf(&b, "intr 0\nctxt 0\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		(fs.k.Clocks().Realtime()-uptime)/int64(time.Second), fs.k.LastPID(), running)
	return b.String()
}

func (fs *procFS) uptime() string {
	user, system := fs.k.CPUTime()
	up := fs.k.Clocks().Boottime()
	idle := max(up*int64(fs.k.CPUs())-user-system, 0)
	sec := func(ns int64) string {
		return fmt.Sprintf("%d.%02d", ns/int64(time.Second), ticks(ns)%userHz)
	}
	return sec(up) + " " + sec(idle) + "\n"
}

func (fs *procFS) version() string {
	u := kernelVersion(fs.k)
	return u + "\n"
}

func kernelVersion(k *kernel.Kernel) string {
	return fmt.Sprintf("Linux version %s (garrison) (Go) %s", kernel.Release, kernel.Version)
}

func (fs *procFS) vmstat() string {
	total, free, _ := fs.memory()
	return fmt.Sprintf("nr_free_pages %d\nnr_anon_pages %d\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\n", free/4, (total-free)/4)
}

// sysctls is /proc/sys: what sysctl(8), Go and the C library look at.
func (fs *procFS) sysctls() vfs.Inode {
	num := func(n int64) vfs.Inode { return fs.Text(strconv.FormatInt(n, 10) + "\n") }
	dir := func(e map[string]vfs.Inode) vfs.Inode { return fs.NewDir(e) }
	return dir(map[string]vfs.Inode{
		"fs": dir(map[string]vfs.Inode{
			"file-max":             num(1 << 20),
			"file-nr":              fs.Text("0\t0\t1048576\n"),
			"nr_open":              num(1 << 20),
			"overflowgid":          num(65534),
			"overflowuid":          num(65534),
			"pipe-max-size":        num(1 << 20),
			"pipe-user-pages-soft": num(16384),
			"pipe-user-pages-hard": num(0),
			"protected_hardlinks":  num(0),
			"protected_symlinks":   num(0),
			"suid_dumpable":        num(0),
		}),
		"kernel": dir(map[string]vfs.Inode{
			"cap_last_cap":           num(abi.CAP_LAST_CAP),
			"core_pattern":           fs.Text("core\n"),
			"core_uses_pid":          num(0),
			"domainname":             fs.utsFile(func(t *kernel.Task) string { _, d := t.UTS().Names(); return d }, (*kernel.UTSNamespace).SetDomainname),
			"hostname":               fs.utsFile(func(t *kernel.Task) string { h, _ := t.UTS().Names(); return h }, (*kernel.UTSNamespace).SetHostname),
			"msgmax":                 num(8192),
			"msgmnb":                 num(16384),
			"msgmni":                 num(32000),
			"ngroups_max":            num(65536),
			"osrelease":              fs.Text(kernel.Release + "\n"),
			"ostype":                 fs.Text("Linux\n"),
			"overflowgid":            num(65534),
			"overflowuid":            num(65534),
			"pid_max":                num(abi.PID_MAX),
			"printk":                 fs.Text("4\t4\t1\t7\n"),
			"random":                 fs.randomDir(),
			"randomize_va_space":     num(2),
			"sched_child_runs_first": num(0),
			"sem":                    fs.Text("32000\t1024000000\t500\t32000\n"),
			"shmall":                 fs.Text("18446744073692774399\n"),
			"shmmax":                 fs.Text("18446744073692774399\n"),
			"shmmni":                 num(4096),
			"threads-max":            num(abi.PID_MAX),
			"version":                fs.Text(kernel.Version + "\n"),
			"yama":                   dir(map[string]vfs.Inode{"ptrace_scope": num(0)}),
		}),
		"net": dir(map[string]vfs.Inode{
			"core": dir(map[string]vfs.Inode{
				"rmem_default": num(212992), "rmem_max": num(212992),
				"somaxconn":    num(4096),
				"wmem_default": num(212992), "wmem_max": num(212992),
			}),
			"ipv4": dir(map[string]vfs.Inode{
				"ip_forward":                 num(0),
				"ip_local_port_range":        fs.Text("32768\t60999\n"),
				"ip_unprivileged_port_start": num(1024),
				"tcp_fin_timeout":            num(60),
				"tcp_keepalive_intvl":        num(75),
				"tcp_keepalive_probes":       num(9),
				"tcp_keepalive_time":         num(7200),
				"tcp_max_syn_backlog":        num(4096),
				"tcp_rmem":                   fs.Text("4096\t131072\t6291456\n"),
				"tcp_wmem":                   fs.Text("4096\t16384\t4194304\n"),
			}),
			"ipv6": dir(map[string]vfs.Inode{"conf": dir(map[string]vfs.Inode{
				"all": dir(map[string]vfs.Inode{"disable_ipv6": num(0)}), "lo": dir(map[string]vfs.Inode{"disable_ipv6": num(0)}),
			})}),
			"unix": dir(map[string]vfs.Inode{"max_dgram_qlen": num(512)}),
		}),
		"user": dir(map[string]vfs.Inode{"max_user_namespaces": num(0)}),
		"vm": dir(map[string]vfs.Inode{
			"max_map_count":     num(65530),
			"mmap_min_addr":     num(65536),
			"nr_hugepages":      num(0),
			"overcommit_memory": num(1),
			"overcommit_ratio":  num(50),
			"swappiness":        num(60),
		}),
	})
}

// utsFile is one of the two names of uname(2) that can be written with
// CAP_SYS_ADMIN.
func (fs *procFS) utsFile(get func(*kernel.Task) string, set func(*kernel.UTSNamespace, string)) vfs.Inode {
	return fs.NewWritable(
		func(ctx vfs.Context) ([]byte, error) {
			t, err := caller(ctx)
			if err != nil {
				return nil, err
			}
			return []byte(get(t) + "\n"), nil
		},
		func(ctx vfs.Context, data []byte) error {
			t, err := caller(ctx)
			if err != nil {
				return err
			}
			if !t.Cred().Can(abi.CAP_SYS_ADMIN) {
				return abi.EPERM
			}
			name, _, _ := strings.Cut(string(data), "\n")
			if len(name) > 64 {
				return abi.EINVAL
			}
			set(t.UTS(), name)
			return nil
		})
}

// uuid is a random (version 4) UUID as /proc/sys/kernel/random shows it.
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x\n", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func (fs *procFS) randomDir() vfs.Inode {
	return fs.NewDir(map[string]vfs.Inode{
		"boot_id":       fs.Text(uuid()),
		"entropy_avail": fs.Text("256\n"),
		"poolsize":      fs.Text("256\n"),
		"uuid":          fs.NewFile(text(uuid)),
	})
}
