package syscalls

import (
	"encoding/binary"
	"math"
	"sync"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

var pollCalls = []kernel.Row{
	{Nr: abi.SYS_poll, Name: "poll", Fn: sysPoll, Args: []kernel.ArgKind{kernel.PollFDs, kernel.UDec, kernel.Dec}},
	{Nr: abi.SYS_ppoll, Name: "ppoll", Fn: sysPpoll, Args: []kernel.ArgKind{kernel.PollFDs, kernel.UDec, kernel.TimespecIn, kernel.SigSetIn, kernel.UDec}},
	{Nr: abi.SYS_select, Name: "select", Fn: sysSelect, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.Ptr, kernel.Ptr, kernel.TimevalIn}},
	{Nr: abi.SYS_pselect6, Name: "pselect6", Fn: sysPselect6, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.Ptr, kernel.Ptr, kernel.TimespecIn, kernel.Ptr}},
}

// A pollSet is the files that one poll or select waits for.
type pollSet struct {
	ch      chan struct{}
	entries []pollEntry
	raw     []byte // the caller's array, or bit sets
}

type pollEntry struct {
	file   *vfs.File // nil: ignored
	want   wait.Events
	got    wait.Events
	waiter wait.Waiter
}

var pollSets = sync.Pool{New: func() any { return &pollSet{ch: make(chan struct{}, 1)} }}

func wakePoll(w *wait.Waiter, _ wait.Events) { wait.Wake(w.Data.(chan struct{})) }

// newPollSet returns a set with n empty entries and size bytes of raw space.
func newPollSet(n, size int) *pollSet {
	p := pollSets.Get().(*pollSet)
	if cap(p.entries) < n {
		p.entries = make([]pollEntry, n)
	}
	p.entries = p.entries[:n]
	if cap(p.raw) < size {
		p.raw = make([]byte, size)
	}
	p.raw = p.raw[:size]
	return p
}

// free drops the files.
func (p *pollSet) free() {
	for i := range p.entries {
		if e := &p.entries[i]; e.file != nil {
			e.file.DecRef()
			e.file = nil
		}
		p.entries[i].want, p.entries[i].got = 0, 0
	}
	select {
	case <-p.ch:
	default:
	}
	if cap(p.entries) <= keepEntries { // what one huge call needed is not kept
		pollSets.Put(p)
	}
}

// keepEntries is the largest set that is worth keeping in the pool.
const keepEntries = 1024

// scan looks at all files and counts those that are ready.
func (p *pollSet) scan() int {
	n := 0
	for i := range p.entries {
		e := &p.entries[i]
		if e.file == nil {
			if e.got != 0 { // POLLNVAL
				n++
			}
			continue
		}
		if e.got = e.file.Readiness(e.want) & e.want; e.got != 0 {
			n++
		}
	}
	return n
}

// wait scans until something is ready, the deadline passes (CLOCK_MONOTONIC;
// negative: never; 0: at once) or the task is interrupted.
func (p *pollSet) wait(t *kernel.Task, deadlineNs int64) (int, error) {
	if n := p.scan(); n > 0 || deadlineNs == 0 {
		return n, nil
	}
	for i := range p.entries {
		if e := &p.entries[i]; e.file != nil {
			e.waiter = wait.Waiter{Callback: wakePoll, Data: p.ch}
			e.file.EventRegister(&e.waiter, e.want)
		}
	}
	n, err := 0, error(nil)
	for {
		if n = p.scan(); n > 0 {
			break
		}
		if deadlineNs < 0 {
			err = t.Block(p.ch)
		} else {
			err = t.BlockUntil(p.ch, deadlineNs)
		}
		if err != nil {
			break
		}
	}
	for i := range p.entries {
		if e := &p.entries[i]; e.file != nil {
			e.file.EventUnregister(&e.waiter)
			e.waiter = wait.Waiter{}
		}
	}
	if err == abi.ETIMEDOUT {
		return p.scan(), nil
	}
	return n, err
}

// deadlineAfter turns a relative time into a deadline for pollSet.wait.
func deadlineAfter(t *kernel.Task, ns int64) int64 {
	if ns <= 0 {
		return 0
	}
	now := t.Kernel().Clocks().Monotonic()
	if now > math.MaxInt64-ns {
		return -1
	}
	return now + ns
}

// poll does the work of poll and ppoll.
func poll(t *kernel.Task, addr usermem.Addr, nfds uint32, deadlineNs int64) (uintptr, error) {
	if uint64(nfds) > t.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE) {
		return 0, abi.EINVAL
	}
	p := newPollSet(int(nfds), int(nfds)*abi.SizeofPollfd)
	defer p.free()
	if _, err := t.Memory().CopyIn(addr, p.raw); err != nil {
		return 0, err
	}
	fds := t.FDTable()
	le := binary.LittleEndian
	for i := range p.entries {
		e, r := &p.entries[i], p.raw[i*abi.SizeofPollfd:]
		fd := int32(le.Uint32(r))
		if fd < 0 {
			continue
		}
		if e.file = fds.Get(fd); e.file == nil || e.file.PathOnly() {
			if e.file != nil {
				e.file.DecRef()
				e.file = nil
			}
			e.got = abi.POLLNVAL
			continue
		}
		e.want = wait.Events(le.Uint16(r[4:])) | abi.POLLERR | abi.POLLHUP
	}
	n, err := p.wait(t, deadlineNs)
	if err != nil {
		return 0, err
	}
	for i := range p.entries {
		le.PutUint16(p.raw[i*abi.SizeofPollfd+6:], uint16(p.entries[i].got))
	}
	if _, err := t.Memory().CopyOut(addr, p.raw); err != nil {
		return 0, err
	}
	return uintptr(n), nil
}

func sysPoll(t *kernel.Task, a kernel.Args) (uintptr, error) {
	deadline := int64(-1)
	if ms := a.Int(2); ms >= 0 {
		deadline = deadlineAfter(t, int64(ms)*1e6)
	}
	return pollRestartable(t, a, deadline)
}

func pollRestartable(t *kernel.Task, a kernel.Args, deadlineNs int64) (uintptr, error) {
	n, err := poll(t, a.Addr(0), a.Uint(1), deadlineNs)
	if err == abi.ERESTARTSYS {
		return 0, t.SetRestart(restartPoll, kernel.RestartState{DeadlineNs: deadlineNs, Args: a})
	}
	return n, err
}

func restartPoll(t *kernel.Task, s *kernel.RestartState) (uintptr, error) {
	return pollRestartable(t, s.Args, s.DeadlineNs)
}

// timedWait reads a timeout of pselect6 and ppoll, sets the temporary signal
// mask, calls op, and writes what is left of the timeout back.
func timedWait(t *kernel.Task, ts, mask usermem.Addr, maskSize uint64, op func(deadlineNs int64) (uintptr, error)) (uintptr, error) {
	deadline := int64(-1)
	if ts != 0 {
		v, err := copyInTimespec(t, ts)
		if err != nil {
			return 0, err
		}
		if !v.Valid() {
			return 0, abi.EINVAL
		}
		deadline = deadlineAfter(t, v.Ns())
	}
	set, ok, err := copyInTempMask(t, mask, maskSize)
	if err != nil {
		return 0, err
	}
	if ok {
		t.SetTemporaryMask(set)
	}
	n, err := op(deadline)
	if err == abi.ERESTARTSYS {
		err = abi.ERESTARTNOHAND
	} else if ok {
		t.RestoreMask()
	}
	if ts != 0 && deadline >= 0 && t.Personality()&abi.STICKY_TIMEOUTS == 0 {
		// Linux ignores a fault here; it only prevents the restart.
		if copyOutTimespec(t, ts, abi.NsToTimespec(leftUntil(t, deadline))) != nil && err == abi.ERESTARTNOHAND {
			err = abi.EINTR
		}
	}
	return n, err
}

func leftUntil(t *kernel.Task, deadlineNs int64) int64 {
	if deadlineNs <= 0 {
		return 0
	}
	return max(deadlineNs-t.Kernel().Clocks().Monotonic(), 0)
}

func sysPpoll(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return timedWait(t, a.Addr(2), a.Addr(3), a.Size(4), func(deadlineNs int64) (uintptr, error) {
		return poll(t, a.Addr(0), a.Uint(1), deadlineNs)
	})
}

// What select's sets ask for (fs/select.c).
const (
	selectIn  = wait.Events(abi.POLLRDNORM | abi.POLLRDBAND | abi.POLLIN | abi.POLLHUP | abi.POLLERR)
	selectOut = wait.Events(abi.POLLWRBAND | abi.POLLWRNORM | abi.POLLOUT | abi.POLLERR)
	selectEx  = wait.Events(abi.POLLPRI)
)

// doSelect does the work of select and pselect6.
func doSelect(t *kernel.Task, n int32, sets [3]usermem.Addr, deadlineNs int64) (uintptr, error) {
	if n < 0 {
		return 0, abi.EINVAL
	}
	fds := t.FDTable()
	n = int32(min(int(n), fds.Size()))
	words := (int(n) + 63) / 64
	size := words * 8
	p := newPollSet(0, 3*size)
	defer func() { p.free() }()
	clear(p.raw)
	count := 0
	for i, at := range sets {
		if at == 0 {
			continue
		}
		if _, err := t.Memory().CopyIn(at, p.raw[i*size:(i+1)*size]); err != nil {
			return 0, err
		}
		for fd := int(n); fd < 8*size; fd++ { // bits past n come back clear
			p.raw[i*size+fd/8] &^= 1 << (fd % 8)
		}
	}
	bit := func(set, fd int) bool { return p.raw[set*size+fd/8]>>(fd%8)&1 != 0 }
	for fd := range int(n) {
		if bit(0, fd) || bit(1, fd) || bit(2, fd) {
			count++
		}
	}
	if cap(p.entries) < count {
		p.entries = make([]pollEntry, count)
	}
	p.entries = p.entries[:count]
	i := 0
	for fd := range int(n) {
		var want wait.Events
		if bit(0, fd) {
			want |= selectIn
		}
		if bit(1, fd) {
			want |= selectOut
		}
		if bit(2, fd) {
			want |= selectEx
		}
		if want == 0 {
			continue
		}
		f := fds.Get(int32(fd))
		if f == nil {
			return 0, abi.EBADF
		}
		p.entries[i].file, p.entries[i].want = f, want
		i++
	}
	if _, err := p.wait(t, deadlineNs); err != nil {
		return 0, err
	}
	total, i := 0, 0
	for fd := range int(n) {
		in := [3]bool{bit(0, fd), bit(1, fd), bit(2, fd)}
		if !in[0] && !in[1] && !in[2] {
			continue
		}
		// Error and hang-up are reported whether asked for or not, so look
		// again with the bits of each set.
		got := p.entries[i].got
		i++
		for s, m := range [3]wait.Events{selectIn, selectOut, selectEx} {
			if in[s] && got&m != 0 {
				total++
			} else {
				p.raw[s*size+fd/8] &^= 1 << (fd % 8)
			}
		}
	}
	for s, at := range sets {
		if at == 0 {
			continue
		}
		if _, err := t.Memory().CopyOut(at, p.raw[s*size:(s+1)*size]); err != nil {
			return 0, err
		}
	}
	return uintptr(total), nil
}

func sysSelect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	deadline := int64(-1)
	tv := a.Addr(4)
	if tv != 0 {
		v, err := copyInTimeval(t, tv)
		if err != nil {
			return 0, err
		}
		if v.Sec < 0 || v.Usec < 0 {
			return 0, abi.EINVAL
		}
		v.Sec, v.Usec = v.Sec+v.Usec/1e6, v.Usec%1e6
		deadline = deadlineAfter(t, v.Ns())
	}
	n, err := doSelect(t, a.Int(0), [3]usermem.Addr{a.Addr(1), a.Addr(2), a.Addr(3)}, deadline)
	if err == abi.ERESTARTSYS {
		err = abi.ERESTARTNOHAND
	}
	if tv != 0 && deadline >= 0 && t.Personality()&abi.STICKY_TIMEOUTS == 0 {
		var b [abi.TimevalSize]byte
		abi.NsToTimeval(leftUntil(t, deadline)).MarshalTo(b[:])
		if _, ferr := t.Memory().CopyOut(tv, b[:]); ferr != nil && err == abi.ERESTARTNOHAND {
			err = abi.EINTR
		}
	}
	return n, err
}

func sysPselect6(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var mask usermem.Addr
	var size uint64
	if p := a.Addr(5); p != 0 {
		var b [16]byte
		if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
			return 0, err
		}
		mask, size = usermem.Addr(binary.LittleEndian.Uint64(b[:])), binary.LittleEndian.Uint64(b[8:])
	}
	return timedWait(t, a.Addr(4), mask, size, func(deadlineNs int64) (uintptr, error) {
		return doSelect(t, a.Int(0), [3]usermem.Addr{a.Addr(1), a.Addr(2), a.Addr(3)}, deadlineNs)
	})
}
