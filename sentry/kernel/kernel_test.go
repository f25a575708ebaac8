package kernel_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/wait"
)

const forkFlags = abi.SIGCHLD
const threadFlags = abi.CLONE_VM | abi.CLONE_FS | abi.CLONE_FILES | abi.CLONE_SIGHAND | abi.CLONE_THREAD | abi.CLONE_SYSVSEM

// expect complains, from a guest, about a value that should be another.
func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func fails(e abi.Errno) int64 { return -int64(e) }

func TestExitStatus(t *testing.T) {
	expect(t, "status", newMachine(t).run(t, func(g *guest) { g.call(abi.SYS_exit_group, 7) }), 7<<8)
	expect(t, "status", newMachine(t).run(t, func(g *guest) {
		g.call(abi.SYS_kill, uint64(g.call(abi.SYS_getpid)), abi.SIGTERM)
	}), abi.SIGTERM)
}

func TestForkWait(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		st := g.alloc(4096)
		expect(t, "no children", g.call(abi.SYS_wait4, ^uint64(0), st, 0, 0), fails(abi.ECHILD))
		const n = 20
		for i := uint64(0); i < n; i++ {
			pid := g.clone(forkFlags, func(g *guest) { g.call(abi.SYS_exit, i) })
			if pid <= 0 {
				t.Errorf("fork: %d", pid)
			}
		}
		seen := map[uint32]bool{}
		for range n {
			if pid := g.call(abi.SYS_wait4, ^uint64(0), st, 0, 0); pid <= 0 {
				t.Errorf("wait: %d", pid)
			}
			seen[g.peek32(st)>>8] = true
		}
		expect(t, "distinct statuses", len(seen), n)
		expect(t, "all reaped", g.call(abi.SYS_wait4, ^uint64(0), st, abi.WNOHANG, 0), fails(abi.ECHILD))
	})
}

func TestThreadsAndGroupExit(t *testing.T) {
	s := newMachine(t).run(t, func(g *guest) {
		word := g.alloc(4096)
		for range 30 {
			g.clone(threadFlags, func(g *guest) { g.call(abi.SYS_futex, word, abi.FUTEX_WAIT, 0, 0) })
		}
		g.clone(threadFlags, func(g *guest) { g.call(abi.SYS_exit_group, 9) })
		g.call(abi.SYS_pause)
	})
	expect(t, "status", s, 9<<8)
}

func TestFutexPingPong(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		a := g.alloc(4096)
		b := a + 64
		const rounds = 300
		tid := g.clone(threadFlags|abi.CLONE_CHILD_CLEARTID, func(g *guest) {
			for i := uint32(0); i < rounds; i++ {
				for g.peek32(a) == i {
					g.call(abi.SYS_futex, a, abi.FUTEX_WAIT|abi.FUTEX_PRIVATE_FLAG, uint64(i), 0)
				}
				g.poke32(b, i+1)
				g.call(abi.SYS_futex, b, abi.FUTEX_WAKE|abi.FUTEX_PRIVATE_FLAG, 1)
			}
			g.call(abi.SYS_exit, 0)
		})
		if tid <= 0 {
			t.Errorf("clone: %d", tid)
		}
		for i := uint32(0); i < rounds; i++ {
			g.poke32(a, i+1)
			g.call(abi.SYS_futex, a, abi.FUTEX_WAKE|abi.FUTEX_PRIVATE_FLAG, 1)
			for g.peek32(b) == i {
				g.call(abi.SYS_futex, b, abi.FUTEX_WAIT|abi.FUTEX_PRIVATE_FLAG, uint64(i), 0)
			}
		}
	})
}

func TestSignals(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		var mu sync.Mutex
		got := map[int32]int{}
		count := func(g *guest, sig int32) { mu.Lock(); got[sig]++; mu.Unlock() }
		g.handle(abi.SIGUSR1, 0, count)
		g.handle(abi.SIGUSR2, abi.SA_RESTART, count)
		g.handle(abi.SIGRTMIN+2, 0, count)
		me := uint64(g.call(abi.SYS_getpid))
		set := g.alloc(4096)
		// Blocked signals wait; standard ones once, real-time ones each.
		g.poke(set, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0})
		g.call(abi.SYS_rt_sigprocmask, abi.SIG_BLOCK, set, 0, 8)
		for range 3 {
			g.call(abi.SYS_kill, me, abi.SIGUSR1)
			g.call(abi.SYS_kill, me, abi.SIGRTMIN+2)
		}
		expect(t, "before", len(got), 0)
		g.call(abi.SYS_rt_sigprocmask, abi.SIG_UNBLOCK, set, 0, 8)
		expect(t, "standard", got[abi.SIGUSR1], 1)
		expect(t, "real-time", got[abi.SIGRTMIN+2], 3)

		// A handler interrupts pause; SA_RESTART restarts a wait.
		g.clone(forkFlags, func(g *guest) {
			for i := 0; i < 50; i++ {
				g.call(abi.SYS_kill, me, abi.SIGUSR2)
				g.call(abi.SYS_sched_yield)
			}
		})
		expect(t, "wait", g.call(abi.SYS_wait4, ^uint64(0), 0, 0, 0) > 0, true)
		mu.Lock()
		expect(t, "some signals", got[abi.SIGUSR2] > 0, true)
		mu.Unlock()
		g.clone(forkFlags, func(g *guest) { g.call(abi.SYS_kill, me, abi.SIGUSR1) })
		expect(t, "pause", g.call(abi.SYS_pause), fails(abi.EINTR))
	})
}

func TestStopContinue(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		st := g.alloc(4096)
		pid := uint64(g.clone(forkFlags, func(g *guest) {
			for range 3 {
				g.clone(threadFlags, func(g *guest) {
					for {
						g.call(abi.SYS_pause)
					}
				})
			}
			for {
				g.call(abi.SYS_pause)
			}
		}))
		for range 10 {
			g.call(abi.SYS_kill, pid, abi.SIGSTOP)
			expect(t, "stopped", g.call(abi.SYS_wait4, pid, st, abi.WUNTRACED, 0), int64(pid))
			expect(t, "stop status", g.peek32(st), uint32(abi.SIGSTOP<<8|0x7f))
			g.call(abi.SYS_kill, pid, abi.SIGCONT)
			expect(t, "continued", g.call(abi.SYS_wait4, pid, st, abi.WCONTINUED, 0), int64(pid))
			expect(t, "continue status", g.peek32(st), 0xffff)
		}
		g.call(abi.SYS_kill, pid, abi.SIGKILL)
		expect(t, "killed", g.call(abi.SYS_wait4, pid, st, 0, 0), int64(pid))
		expect(t, "kill status", g.peek32(st), uint32(abi.SIGKILL))
	})
}

// TestStopCancelled lets SIGCONT come after a thread took SIGTSTP, and before it
// began to stop.
func TestStopCancelled(t *testing.T) {
	m := newMachine(t)
	m.run(t, func(g *guest) {
		st := g.alloc(4096)
		pid := g.clone(forkFlags, func(g *guest) {
			g.call(abi.SYS_setpgid, 0, 0)
			for {
				g.call(abi.SYS_pause)
			}
		})
		for g.call(abi.SYS_getpgid, uint64(pid)) != pid {
			g.call(abi.SYS_sched_yield)
		}
		tg := m.k.ThreadGroupByID(int32(pid))
		kernel.WithTasksLocked(m.k, func() {
			kernel.Send(tg, abi.SIGTSTP)
			time.Sleep(50 * time.Millisecond) // it waits for the lock to see whether it is orphaned
			kernel.Send(tg, abi.SIGCONT)
		})
		time.Sleep(50 * time.Millisecond)
		expect(t, "not stopped", g.call(abi.SYS_wait4, uint64(pid), st, abi.WUNTRACED|abi.WNOHANG, 0), 0)
		g.call(abi.SYS_kill, uint64(pid), abi.SIGKILL)
		g.call(abi.SYS_wait4, uint64(pid), st, 0, 0)
	})
}

// TestPIDFDOfUnborn polls a descriptor that another thread found while clone
// was making the process.
func TestPIDFDOfUnborn(t *testing.T) {
	f := kernel.NewUnbornPIDFD(newMachine(t).k)
	defer f.DecRef()
	w, _ := wait.NewChanWaiter()
	f.EventRegister(w, abi.EPOLLIN)
	expect(t, "readiness", f.Readiness(abi.EPOLLIN), 0)
	f.EventUnregister(w)
	if _, err := kernel.PIDFDGroup(f); err != abi.EBADF {
		t.Errorf("PIDFDGroup: %v, want EBADF", err)
	}
}

type ticks struct{ calls, n atomic.Uint64 }

func (c *ticks) TimerExpired(_ *kernel.Timer, n uint64) { c.calls.Add(1); c.n.Add(n) }

func TestTimerPeriods(t *testing.T) {
	k := newMachine(t).k
	var once, often ticks
	a, b := k.NewTimer(abi.CLOCK_MONOTONIC, &once), k.NewTimer(abi.CLOCK_MONOTONIC, &often)
	a.Set(1, 1<<63-1, false)
	b.Set(1, 1, false)
	time.Sleep(50 * time.Millisecond)
	a.Stop()
	b.Stop()
	expect(t, "expiries with the longest period", once.calls.Load(), 1)
	if c, n := often.calls.Load(), often.n.Load(); c == 0 || c > 1000 || n < 10_000_000 {
		t.Errorf("a period of 1 ns: %d expiries in %d calls", n, c)
	}
}

func TestExecFromThread(t *testing.T) {
	m := newMachine(t)
	m.install(t, "/next", func(g *guest) {
		expect(t, "pid kept", g.call(abi.SYS_getpid), g.call(abi.SYS_gettid))
		g.call(abi.SYS_exit_group, 5)
	})
	s := m.run(t, func(g *guest) {
		p := g.alloc(4096)
		g.poke(p, []byte("/next\x00"))
		for range 5 {
			g.clone(threadFlags, func(g *guest) { g.call(abi.SYS_pause) })
		}
		g.clone(threadFlags, func(g *guest) {
			t.Errorf("execve: %d", g.call(abi.SYS_execve, p, 0, 0))
		})
		g.call(abi.SYS_pause)
	})
	expect(t, "status", s, 5<<8)
}

func TestReparenting(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		st := g.alloc(4096)
		pid := g.clone(forkFlags, func(g *guest) {
			g.clone(forkFlags, func(g *guest) {
				for g.call(abi.SYS_getppid) != 1 {
					g.call(abi.SYS_sched_yield)
				}
				g.call(abi.SYS_exit, 3)
			})
		})
		seen := map[uint32]bool{}
		for range 2 {
			g.call(abi.SYS_wait4, ^uint64(0), st, 0, 0)
			seen[g.peek32(st)] = true
		}
		expect(t, "the orphan came to us", seen[3<<8], true)
		expect(t, "and the child", pid > 0 && seen[0], true)
	})
}

func TestTimers(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		n := 0
		g.handle(abi.SIGALRM, 0, func(*guest, int32) { n++ })
		p := g.alloc(4096)
		b := make([]byte, abi.ItimervalSize)
		abi.Itimerval{Interval: abi.Timeval{Usec: 2000}, Value: abi.Timeval{Usec: 1000}}.MarshalTo(b)
		g.poke(p, b)
		expect(t, "setitimer", g.call(abi.SYS_setitimer, abi.ITIMER_REAL, p, 0), 0)
		for n < 5 {
			g.call(abi.SYS_pause)
		}
		abi.Itimerval{}.MarshalTo(b)
		g.poke(p, b)
		g.call(abi.SYS_setitimer, abi.ITIMER_REAL, p, 0)
		ts := make([]byte, abi.TimespecSize)
		abi.Timespec{Nsec: 5e6}.MarshalTo(ts)
		g.poke(p, ts)
		expect(t, "nanosleep", g.call(abi.SYS_nanosleep, p, 0), 0)
	})
}

func TestProcessGroups(t *testing.T) {
	newMachine(t).run(t, func(g *guest) {
		me := g.call(abi.SYS_getpid)
		expect(t, "sid", g.call(abi.SYS_getsid, 0), me)
		expect(t, "setsid by a group leader", g.call(abi.SYS_setsid), fails(abi.EPERM))
		pid := g.clone(forkFlags, func(g *guest) {
			for {
				g.call(abi.SYS_pause)
			}
		})
		expect(t, "setpgid", g.call(abi.SYS_setpgid, uint64(pid), 0), 0)
		expect(t, "getpgid", g.call(abi.SYS_getpgid, uint64(pid)), pid)
		expect(t, "kill the group", g.call(abi.SYS_kill, uint64(-pid), abi.SIGKILL), 0)
		expect(t, "wait", g.call(abi.SYS_wait4, uint64(-pid), 0, 0, 0), pid)
		expect(t, "the group is gone", g.call(abi.SYS_kill, uint64(-pid), 0), fails(abi.ESRCH))
	})
}
