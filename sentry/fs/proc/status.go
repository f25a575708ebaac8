package proc

import (
	"fmt"
	"strings"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
)

// stateNames are the words that follow the state letter in /proc/PID/status.
var stateNames = map[byte]string{
	'R': "running", 'S': "sleeping", 'D': "disk sleep", 'T': "stopped", 't': "tracing stop", 'Z': "zombie", 'X': "dead",
}

// status is /proc/PID/status (proc(5)).
func (fs *procFS) status(t *kernel.Task) ([]byte, error) {
	var b strings.Builder
	tg, c := t.ThreadGroup(), t.Cred()
	row := func(name, format string, args ...any) {
		b.WriteString(name + ":\t")
		fmt.Fprintf(&b, format, args...)
		b.WriteByte('\n')
	}
	row("Name", "%s", escapeComm(t.Comm()))
	if f := t.FSContext(); f != nil {
		row("Umask", "%04o", f.Umask())
	}
	row("State", "%c (%s)", t.State(), stateNames[t.State()])
	row("Tgid", "%d", tg.PID())
	row("Ngid", "0")
	row("Pid", "%d", t.TID())
	row("PPid", "%d", tg.PPID())
	row("TracerPid", "0")
	row("Uid", "%d\t%d\t%d\t%d", c.RUID, c.EUID, c.SUID, c.FSUID)
	row("Gid", "%d\t%d\t%d\t%d", c.RGID, c.EGID, c.SGID, c.FSGID)
	size := 0
	if f := t.FDTable(); f != nil {
		size = f.Size()
	}
	row("FDSize", "%d", size)
	b.WriteString("Groups:\t")
	for _, g := range c.Groups {
		fmt.Fprintf(&b, "%d ", g)
	}
	if len(c.Groups) == 0 {
		b.WriteByte(' ')
	}
	b.WriteByte('\n')
	row("NStgid", "%d", tg.PID())
	row("NSpid", "%d", t.TID())
	row("NSpgid", "%d", tg.ProcessGroup().ID())
	row("NSsid", "%d", tg.SessionID())
	if m := t.MM(); m != nil && m.TryIncUsers() {
		memoryRows(&b, m)
		m.DecUsers()
	}
	row("CoreDumping", "0")
	row("THP_enabled", "1")
	row("Threads", "%d", tg.ThreadCount())
	pending, shared, blocked, ignored, caught := t.SignalMasks()
	row("SigQ", "%d/%d", t.QueuedSignals(), tg.Limits().Cur(abi.RLIMIT_SIGPENDING))
	for _, m := range []struct {
		name string
		set  uint64
	}{{"SigPnd", uint64(pending)}, {"ShdPnd", uint64(shared)}, {"SigBlk", uint64(blocked)}, {"SigIgn", uint64(ignored)}, {"SigCgt", uint64(caught)},
		{"CapInh", uint64(c.Inheritable)}, {"CapPrm", uint64(c.Permitted)}, {"CapEff", uint64(c.Effective)},
		{"CapBnd", uint64(c.Bounding)}, {"CapAmb", uint64(c.Ambient)}} {
		row(m.name, "%016x", m.set)
	}
	nnp := 0
	if c.NoNewPrivs {
		nnp = 1
	}
	row("NoNewPrivs", "%d", nnp)
	row("Seccomp", "0")
	row("Seccomp_filters", "0")
	mask, list := t.Affinity()
	row("Cpus_allowed", "%s", mask)
	row("Cpus_allowed_list", "%s", list)
	row("Mems_allowed", "1")
	row("Mems_allowed_list", "0")
	vol, invol := t.ContextSwitches()
	row("voluntary_ctxt_switches", "%d", vol)
	row("nonvoluntary_ctxt_switches", "%d", invol)
	return []byte(b.String()), nil
}

// escapeComm makes a name safe for one line (fs/proc/array.c, proc_task_name).
func escapeComm(s string) string {
	return strings.NewReplacer("\n", `\n`, `\`, `\\`).Replace(s)
}

func memoryRows(b *strings.Builder, m *mm.MM) {
	u := m.Stat(true)
	kb := func(name string, bytes uint64) { fmt.Fprintf(b, "%s:\t%8d kB\n", name, bytes>>10) }
	kb("VmPeak", u.Peak)
	kb("VmSize", u.Total)
	kb("VmLck", u.Locked)
	kb("VmPin", 0)
	kb("VmHWM", u.Resident)
	kb("VmRSS", u.Resident)
	kb("RssAnon", u.ResidentAnon)
	kb("RssFile", u.ResidentFile)
	kb("RssShmem", u.ResidentShared)
	kb("VmData", u.Data)
	kb("VmStk", u.Stack)
	kb("VmExe", u.Text)
	kb("VmLib", u.ResidentFile)
	kb("VmPTE", 0)
	kb("VmSwap", 0)
}

// taskStat is /proc/PID/stat (proc(5)); times of /proc/PID are the whole
// process's, which for a thread's directory is slightly more than Linux says.
func (fs *procFS) taskStat(t *kernel.Task) ([]byte, error) {
	tg := t.ThreadGroup()
	var u mm.Stat
	var i mm.Info
	if m := t.MM(); m != nil && m.TryIncUsers() {
		u, i = m.Stat(true), m.Info()
		m.DecUsers()
	}
	user, system := tg.CPUTimes()
	cuser, csystem := tg.ChildCPUTimes()
	ttyNr, fg := tg.TTY()
	pending, _, blocked, ignored, caught := t.SignalMasks()
	nice := int32(0)
	prio := int32(20)
	if a := t.Sched(); a != nil {
		nice = a.Nice
		prio += nice
	}
	return fmt.Appendf(nil, "%d (%s) %c %d %d %d %d %d 0 %d 0 0 0 %d %d %d %d %d %d %d 0 %d %d %d %d %d %d %d 0 0 %d %d %d %d 0 0 0 17 0 0 0 0 0 0 %d %d %d %d %d %d %d %d\n",
		t.TID(), t.Comm(), t.State(), tg.PPID(), tg.ProcessGroup().ID(), tg.SessionID(), ttyNr, fg,
		t.MinorFaults(),
		ticks(user), ticks(system), ticks(cuser), ticks(csystem), prio, nice, tg.ThreadCount(),
		ticks(t.StartTimeNs()), u.Total, u.Resident>>usermem.PageShift, tg.Limits().Cur(abi.RLIMIT_RSS),
		i.StartCode, i.EndCode, i.StartStack,
		pending&0x7fffffff, blocked&0x7fffffff, ignored&0x7fffffff, caught&0x7fffffff,
		i.StartData, i.EndData, i.StartBrk, i.ArgStart, i.ArgEnd, i.EnvStart, i.EnvEnd, 0), nil
}

// limitRows are the rows of /proc/PID/limits in order.
var limitRows = []struct {
	name, unit string
	resource   int
}{
	{"Max cpu time", "seconds", abi.RLIMIT_CPU}, {"Max file size", "bytes", abi.RLIMIT_FSIZE},
	{"Max data size", "bytes", abi.RLIMIT_DATA}, {"Max stack size", "bytes", abi.RLIMIT_STACK},
	{"Max core file size", "bytes", abi.RLIMIT_CORE}, {"Max resident set", "bytes", abi.RLIMIT_RSS},
	{"Max processes", "processes", abi.RLIMIT_NPROC}, {"Max open files", "files", abi.RLIMIT_NOFILE},
	{"Max locked memory", "bytes", abi.RLIMIT_MEMLOCK}, {"Max address space", "bytes", abi.RLIMIT_AS},
	{"Max file locks", "locks", abi.RLIMIT_LOCKS}, {"Max pending signals", "signals", abi.RLIMIT_SIGPENDING},
	{"Max msgqueue size", "bytes", abi.RLIMIT_MSGQUEUE}, {"Max nice priority", "", abi.RLIMIT_NICE},
	{"Max realtime priority", "", abi.RLIMIT_RTPRIO}, {"Max realtime timeout", "us", abi.RLIMIT_RTTIME},
}

func limits(t *kernel.Task) ([]byte, error) {
	all := t.ThreadGroup().Limits().All()
	var b strings.Builder
	row := func(name, soft, hard, unit string) {
		fmt.Fprintf(&b, "%-25s %-20s %-20s %-10s\n", name, soft, hard, unit)
	}
	show := func(v uint64) string {
		if v == abi.RlimInfinity {
			return "unlimited"
		}
		return fmt.Sprint(v)
	}
	row("Limit", "Soft Limit", "Hard Limit", "Units")
	for _, r := range limitRows {
		row(r.name, show(all[r.resource].Cur), show(all[r.resource].Max), r.unit)
	}
	return []byte(b.String()), nil
}

// taskIO is /proc/PID/io: bytes are not accounted, and it says zeroes.
func taskIO(*kernel.Task) ([]byte, error) {
	return []byte("rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"), nil
}
