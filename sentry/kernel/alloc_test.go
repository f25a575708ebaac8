package kernel

import (
	"testing"

	"garrison/abi"
	"garrison/sentry/cred"
)

// bareTask is a Task that can make system calls without guest code.
func bareTask(table []Row) *Task {
	k := &Kernel{table: table, cpus: 1}
	k.clock.init()
	t := &Task{k: k, intr: make(chan struct{}, 1), user: &userCounts{}}
	t.tg = &ThreadGroup{k: k, pid: 1, leader: t}
	t.tg.sig.handlers = &SignalHandlers{}
	t.tg.setMembers([]*Task{t})
	t.cred.Store(cred.NewRoot(nil))
	t.sched.Store(&SchedAttr{})
	t.tid.Store(1)
	t.futex.init()
	return t
}

func getpidTable() []Row {
	table := make([]Row, 64)
	table[abi.SYS_getpid] = Row{Name: "getpid", Fn: func(t *Task, _ Args) (uintptr, error) { return uintptr(t.PID()), nil }}
	return table
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	x := bareTask(getpidTable())
	ready := make(chan struct{}, 1)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"system call", func() { x.regs.Orig_rax = abi.SYS_getpid; x.syscall() }},
		{"refused call", func() { x.regs.Orig_rax = 63; x.syscall() }},
		{"CPU time", func() { x.acct.enterGuest(); x.acct.leaveGuest() }},
		{"signal mask", func() { x.SetSignalMask(1 << 5); x.SetSignalMask(0) }},
		{"Block, ready", func() { ready <- struct{}{}; x.Block(ready) }},
		{"BlockUntil, ready", func() { ready <- struct{}{}; x.BlockUntil(ready, 1<<62) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func BenchmarkSyscall(b *testing.B) {
	x := bareTask(getpidTable())
	b.ReportAllocs()
	for b.Loop() {
		x.regs.Orig_rax = abi.SYS_getpid
		x.acct.leaveGuest()
		x.syscall()
		x.acct.enterGuest()
	}
}
