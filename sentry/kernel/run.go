package kernel

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"garrison/abi"
	"garrison/platform"
)

// maxIdleWorkers is how many goroutines wait for tasks to run.
const maxIdleWorkers = 16

// workers are the goroutines that run tasks. Each keeps an operating system
// thread to itself (the platform's contract); a thread costs more to make than
// to keep, so that some wait for the next task.
type workers struct {
	mu   sync.Mutex
	idle []chan *Task // last in, first out
}

// start runs t.
func (t *Task) start() {
	w := &t.k.workers
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		ch := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		ch <- t
		return
	}
	w.mu.Unlock()
	go t.k.work(t)
}

// work runs tasks one after another. If it ends, it ends locked, and its
// operating system thread with it.
func (k *Kernel) work(t *Task) {
	runtime.LockOSThread()
	ch := make(chan *Task, 1)
	w := &k.workers
	for {
		t.run()
		w.mu.Lock()
		if len(w.idle) >= maxIdleWorkers {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, ch)
		w.mu.Unlock()
		t = nil // keep nothing of it
		t = <-ch
	}
}

// run is a task's life: run guest code, handle what stopped it, deliver
// signals, until the task exits. It holds nothing across rounds that is not in
// t, so it can be started anew from a restored Task.
func (t *Task) run() {
	defer func() {
		if r := recover(); r != nil {
			t.k.panicked(t, r)
			panic(r)
		}
	}()
	t.state.Store(uint32(stateRunning))
	t.acct.start()
	for {
		if t.work.Load() != 0 || t.restart != 0 {
			t.doWork()
			if t.work.Load()&workExit != 0 {
				break
			}
		}
		t.inGuest.Store(true)
		if t.work.Load() != 0 {
			t.inGuest.Store(false)
			continue
		}
		t.acct.enterGuest()
		trap, err := t.thread.Run(t.mm.Load().AddressSpace(), &t.regs)
		t.acct.leaveGuest()
		t.inGuest.Store(false)
		if err != nil {
			t.k.Logf("task %d (%s): the platform lost it: %v", t.TID(), t.Comm(), err)
			t.forceExit(abi.SIGKILL)
			continue
		}
		switch trap.Kind {
		case platform.TrapSyscall:
			t.syscall()
		case platform.TrapFault:
			t.fault(&trap)
		case platform.TrapSignal:
			t.exception(&trap)
		}
	}
	t.exit()
}

// panicked reports a broken invariant of ours, which ends the sandbox.
func (k *Kernel) panicked(t *Task, r any) {
	name := "?"
	if int(t.sysno) < len(k.table) {
		name = k.table[t.sysno].Name
	}
	msg := fmt.Sprintf("panic in task %d (%s), last system call %d (%s) args %#x: %v\n%s",
		t.TID(), t.Comm(), t.sysno, name, t.sysargs, r, debug.Stack())
	k.Logf("%s", msg)
	if k.onPanic != nil {
		k.onPanic(msg)
	}
}

// doWork does what must be done before guest code runs on.
func (t *Task) doWork() {
	// Later passes see what earlier ones brought about.
	for {
		w := t.work.Swap(0)
		if w&workExit != 0 {
			t.work.Or(workExit)
			return
		}
		if w&workVfork != 0 && !t.waitVfork() {
			t.work.Or(workVfork)
		}
		t.handleSignals()
		w = t.work.Load()
		if w == 0 || w&workExit != 0 {
			return
		}
	}
}

// fault repairs a memory fault, or makes it a signal.
func (t *Task) fault(trap *platform.Trap) {
	t.minflt.Add(1)
	ok, code, sig := t.mm.Load().HandleFault(trap.Addr, trap.Access, trap.Signal == abi.SIGBUS)
	if ok {
		return
	}
	t.sig.cr2, t.sig.trapNo, t.sig.trapErr = trap.Addr, 14, 4
	if trap.Access&platform.Write != 0 {
		t.sig.trapErr |= 2
	}
	if trap.Access&platform.Exec != 0 {
		t.sig.trapErr |= 16
	}
	if code == abi.SEGV_ACCERR {
		t.sig.trapErr |= 1
	}
	t.ForceFault(sig, code, trap.Addr)
}

// exception makes a processor exception a signal.
func (t *Task) exception(trap *platform.Trap) {
	t.sig.trapErr = 0
	switch trap.Signal {
	case abi.SIGSEGV:
		t.sig.trapNo = 13
	case abi.SIGFPE:
		t.sig.trapNo = 0
	case abi.SIGILL:
		t.sig.trapNo = 6
	case abi.SIGTRAP:
		t.sig.trapNo = 3
		if trap.Code == abi.TRAP_TRACE {
			t.sig.trapNo = 1
		}
	case abi.SIGBUS:
		t.sig.trapNo = 17
	}
	t.ForceFault(trap.Signal, trap.Code, trap.Addr)
}

// syscall runs a system call's handler and puts the result into the registers.
func (t *Task) syscall() {
	r := &t.regs
	nr := uintptr(r.Orig_rax)
	t.sysno, t.sysargs = nr, Args{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}
	var ret uintptr
	var err error
	var row *Row
	if nr < uintptr(len(t.k.table)) {
		row = &t.k.table[nr]
	}
	if t.k.strace != nil {
		ret, err = t.traced(row, nr, &t.sysargs)
	} else {
		ret, err = t.call(row, &t.sysargs)
	}
	if err == nil {
		r.Rax = uint64(ret)
		return
	}
	errno, ok := err.(abi.Errno)
	if !ok {
		if err == ErrNoResult {
			return
		}
		errno = t.foreignError(err)
	}
	switch errno {
	case abi.ERESTARTSYS, abi.ERESTARTNOINTR, abi.ERESTARTNOHAND, abi.ERESTART_RESTARTBLOCK:
		t.restart = errno
		return
	}
	e := int64(errno)
	r.Rax = uint64(-e)
}

func (t *Task) call(row *Row, a *Args) (uintptr, error) {
	if row == nil || row.Fn == nil {
		if row != nil && row.Errno != 0 {
			return 0, row.Errno
		}
		return 0, abi.ENOSYS
	}
	return row.Fn(t, *a)
}

func (t *Task) traced(row *Row, nr uintptr, a *Args) (uintptr, error) {
	st := t.k.strace.Enter(t, row, nr, a)
	began := cpuNow()
	ret, err := t.call(row, a)
	t.k.strace.Exit(t, row, nr, a, st, ret, err, cpuNow()-began)
	return ret, err
}

// foreignError is for errors that some handler failed to translate: our bug,
// but not one to die from.
func (t *Task) foreignError(err error) abi.Errno {
	t.k.Logf("task %d: system call %d returned a foreign error: %v", t.TID(), t.sysno, err)
	if e := abi.FromHost(err); e != nil {
		if n, ok := e.(abi.Errno); ok {
			return n
		}
	}
	return abi.EIO
}

// forceExit kills the whole process.
func (t *Task) forceExit(sig int32) {
	s := &t.tg.sig
	s.mu.Lock()
	t.tg.killAllLocked(sig)
	t.beginExitLocked()
	s.mu.Unlock()
}
