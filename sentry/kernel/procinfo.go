package kernel

import (
	"fmt"
	"math"
	"strings"
	"sync"
)

// Version is what uname -v and /proc/version show.
const Version = "#1 SMP PREEMPT_DYNAMIC Garrison"

// Exists reports whether t can still be seen: its id has not been given up.
func (t *Task) Exists() bool { return t.k.TaskByID(t.TID()) == t }

// CPUTime is the CPU time of all processes that are there, and of their
// children that were waited for, in nanoseconds.
func (k *Kernel) CPUTime() (user, sys int64) {
	for _, tg := range k.ThreadGroups() {
		u, s := tg.CPUTimes()
		cu, cs := tg.ChildCPUTimes()
		user, sys = user+u+cu, sys+s+cs
	}
	return user, sys
}

// loadAverage is the exponentially weighted number of running threads. It is
// brought up to date when somebody asks, from the CPU time used since the last
// time: nothing ticks for it.
type loadAverage struct {
	mu     sync.Mutex
	at     int64 // monotonic ns of the last update
	cpuNs  int64 // CPU time then
	values [3]float64
}

// loadPeriods are the time constants of the three averages, in seconds.
var loadPeriods = [3]float64{60, 300, 900}

// update folds in that cpuNs of CPU time had been used at time now.
func (l *loadAverage) update(now, cpuNs int64) [3]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	dt := float64(now - l.at)
	// CPU time goes back when a process is reaped by nobody: then nothing is known.
	if used := float64(cpuNs - l.cpuNs); l.at != 0 && dt > 0 && used >= 0 {
		running := used / dt
		for i, p := range loadPeriods {
			decay := math.Exp(-dt / 1e9 / p)
			l.values[i] = l.values[i]*decay + running*(1-decay)
		}
	}
	l.at, l.cpuNs = now, cpuNs
	return l.values
}

// LoadAverage is the load over 1, 5 and 15 minutes (getloadavg(3)).
func (k *Kernel) LoadAverage() [3]float64 {
	user, sys := k.CPUTime()
	return k.load.update(k.clock.Monotonic(), user+sys)
}

// A TerminalDevice is a Terminal.Owner with a device number.
type TerminalDevice interface{ TerminalDevice() uint64 }

// TTY is the controlling terminal's device number (0 for none) and its
// foreground process group (-1 for none), as /proc/PID/stat shows them.
func (tg *ThreadGroup) TTY() (dev uint64, foreground int32) {
	term := tg.Terminal()
	if term == nil {
		return 0, -1
	}
	if d, ok := term.Owner.(TerminalDevice); ok {
		dev = d.TerminalDevice()
	}
	return dev, tg.k.ForegroundPGID(term)
}

// Affinity is the set of CPUs that t may run on, as the mask and the list that
// /proc/PID/status shows.
func (t *Task) Affinity() (mask, list string) {
	set := func(cpu int) bool { return cpu < t.k.cpus }
	if a := t.Sched(); a != nil && a.Affinity != nil {
		set = func(cpu int) bool { return cpu/64 < len(a.Affinity) && a.Affinity[cpu/64]>>(cpu%64)&1 != 0 }
	}
	var words []string
	for w := (t.k.cpus + 31) / 32; w > 0; w-- {
		var v uint32
		for b := range 32 {
			if set((w-1)*32 + b) {
				v |= 1 << b
			}
		}
		if len(words) == 0 {
			words = append(words, fmt.Sprintf("%x", v))
		} else {
			words = append(words, fmt.Sprintf("%08x", v))
		}
	}
	var runs []string
	for c := 0; c < t.k.cpus; c++ {
		if !set(c) {
			continue
		}
		first := c
		for c+1 < t.k.cpus && set(c+1) {
			c++
		}
		if first == c {
			runs = append(runs, fmt.Sprint(c))
		} else {
			runs = append(runs, fmt.Sprintf("%d-%d", first, c))
		}
	}
	return strings.Join(words, ","), strings.Join(runs, ",")
}

// ContextSwitches counts how often t slept, and how often it was made to wait
// for a CPU, which the host does not tell: 0.
func (t *Task) ContextSwitches() (voluntary, involuntary int64) { return t.vcsw.Load(), 0 }

// MinorFaults counts the page faults that the Sentry handled for t.
func (t *Task) MinorFaults() int64 { return t.minflt.Load() }

// QueuedSignals counts the signals queued for t's real user (RLIMIT_SIGPENDING).
func (t *Task) QueuedSignals() int64 { return t.user.signals.Load() }
