package vfs

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"garrison/abi"
)

// An FDTable maps file descriptors to open files (struct files_struct). Get
// takes no lock. Tasks made with CLONE_FILES share one.
type FDTable struct {
	refs atomic.Int32
	tab  atomic.Pointer[fdArray]

	mu      sync.Mutex
	cloexec []uint64 // a bit per descriptor
	used    []uint64
	next    int // no free descriptor below

	locked atomic.Bool // record locks were taken by this process
}

type fdArray struct{ slots []atomic.Pointer[File] }

// maxFDs is sysctl fs.nr_open: no descriptor is higher, whatever RLIMIT_NOFILE says.
const maxFDs = 1 << 20

// NewFDTable makes an empty table with one reference.
func NewFDTable() *FDTable {
	t := &FDTable{}
	t.refs.Store(1)
	t.tab.Store(&fdArray{make([]atomic.Pointer[File], 64)})
	t.cloexec, t.used = make([]uint64, 1), make([]uint64, 1)
	return t
}

// Get returns the file of fd with a reference that the caller drops, or nil.
func (t *FDTable) Get(fd int32) *File {
	a := t.tab.Load()
	if uint(fd) >= uint(len(a.slots)) {
		return nil
	}
	f := a.slots[fd].Load()
	if f == nil || !f.TryIncRef() {
		return nil
	}
	return f
}

// IncRef adds a task that shares the table (CLONE_FILES).
func (t *FDTable) IncRef() { t.refs.Add(1) }

// Shared reports whether several tasks share the table.
func (t *FDTable) Shared() bool { return t.refs.Load() > 1 }

// DecRef takes one away; the last closes all descriptors.
func (t *FDTable) DecRef(ctx Context) {
	if t.refs.Add(-1) == 0 {
		t.closeWhere(ctx, 0, maxFDs, func(int) bool { return true })
	}
}

// ensure makes room for descriptor fd. t.mu is held.
func (t *FDTable) ensure(fd int) {
	a := t.tab.Load()
	if fd < len(a.slots) {
		return
	}
	n := len(a.slots)
	for n <= fd {
		n *= 2
	}
	b := &fdArray{make([]atomic.Pointer[File], n)}
	for i := range a.slots {
		b.slots[i].Store(a.slots[i].Load())
	}
	used, ce := make([]uint64, n/64), make([]uint64, n/64)
	copy(used, t.used)
	copy(ce, t.cloexec)
	t.used, t.cloexec = used, ce
	t.tab.Store(b)
}

// free finds the lowest unused descriptor from min on. t.mu is held.
func (t *FDTable) free(min int) int {
	from := max(min, t.next)
	for w := from / 64; w < len(t.used); w++ {
		v := t.used[w]
		if w == from/64 {
			v |= 1<<(from%64) - 1
		}
		if v != ^uint64(0) {
			return w*64 + bits.TrailingZeros64(^v)
		}
	}
	return max(from, len(t.used)*64)
}

// set puts f at fd, which has room. t.mu is held.
func (t *FDTable) set(fd int, f *File, cloexec bool) {
	t.tab.Load().slots[fd].Store(f)
	t.used[fd/64] |= 1 << (fd % 64)
	if cloexec {
		t.cloexec[fd/64] |= 1 << (fd % 64)
	} else {
		t.cloexec[fd/64] &^= 1 << (fd % 64)
	}
}

// clear takes fd out and returns what was there. t.mu is held.
func (t *FDTable) clear(fd int) *File {
	a := t.tab.Load()
	if uint(fd) >= uint(len(a.slots)) {
		return nil
	}
	f := a.slots[fd].Swap(nil)
	t.used[fd/64] &^= 1 << (fd % 64)
	t.cloexec[fd/64] &^= 1 << (fd % 64)
	t.next = min(t.next, fd)
	return f
}

// limitFDs is what RLIMIT_NOFILE allows.
func limitFDs(limit uint64) int { return int(min(limit, maxFDs)) }

// NewFD gives f the lowest free descriptor from min on; limit is RLIMIT_NOFILE.
// The table takes over the caller's reference, if there is no error (EMFILE;
// EINVAL if min is not below the limit).
func (t *FDTable) NewFD(f *File, min int32, limit uint64, cloexec bool) (int32, error) {
	n := limitFDs(limit)
	if min < 0 || min > 0 && int(min) >= n {
		return -1, abi.EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := t.free(int(min))
	if fd >= n {
		return -1, abi.EMFILE
	}
	t.ensure(fd)
	t.set(fd, f, cloexec)
	if int(min) <= t.next {
		t.next = fd + 1
	}
	return int32(fd), nil
}

// Room fails with EMFILE if there is no free descriptor: calls that create
// something look before they do.
func (t *FDTable) Room(limit uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.free(0) >= limitFDs(limit) {
		return abi.EMFILE
	}
	return nil
}

// NewFDs is NewFD for several files at once: all get descriptors, or none does.
func (t *FDTable) NewFDs(limit uint64, cloexec bool, files ...*File) ([]int32, error) {
	n := limitFDs(limit)
	t.mu.Lock()
	defer t.mu.Unlock()
	fds := make([]int32, 0, len(files))
	for _, f := range files {
		fd := t.free(0)
		if fd >= n {
			for _, x := range fds {
				t.clear(int(x))
			}
			return nil, abi.EMFILE
		}
		t.ensure(fd)
		t.set(fd, f, cloexec)
		t.next = fd + 1
		fds = append(fds, int32(fd))
	}
	return fds, nil
}

// SetFD puts f at fd, closing what was there (dup2). It takes over the caller's
// reference if there is no error (EBADF).
func (t *FDTable) SetFD(ctx Context, f *File, fd int32, limit uint64, cloexec bool) error {
	if fd < 0 || int(fd) >= limitFDs(limit) {
		return abi.EBADF
	}
	t.mu.Lock()
	t.ensure(int(fd))
	old := t.tab.Load().slots[fd].Load()
	t.set(int(fd), f, cloexec)
	t.mu.Unlock()
	if old != nil {
		// dup2 does not report close's errors.
		t.closed(ctx, old)
	}
	return nil
}

// Close is close(2): EBADF, or what Flush says; the descriptor is gone anyway.
func (t *FDTable) Close(ctx Context, fd int32) error {
	if fd < 0 {
		return abi.EBADF
	}
	t.mu.Lock()
	f := t.clear(int(fd))
	t.mu.Unlock()
	if f == nil {
		return abi.EBADF
	}
	return t.closed(ctx, f)
}

// Remove takes fd out without closing; the caller gets the table's reference.
func (t *FDTable) Remove(fd int32) *File {
	if fd < 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clear(int(fd))
}

// closed does what closing one descriptor of f does: POSIX locks of this table's
// owner go (fcntl_locking(2)), the file is flushed, the reference dropped.
func (t *FDTable) closed(ctx Context, f *File) error {
	var err error
	if !f.pathOnly {
		err = f.ops.Flush(ctx, f)
		if f.inode != nil {
			releasePosixLocks(f.inode, t)
		}
	}
	f.DecRef()
	return err
}

// closeWhere closes all descriptors in [first, last] for which cond holds.
func (t *FDTable) closeWhere(ctx Context, first, last int, cond func(fd int) bool) {
	for fd := first; ; fd++ {
		t.mu.Lock()
		fd = t.nextUsed(fd)
		for fd >= 0 && fd <= last && !cond(fd) {
			fd = t.nextUsed(fd + 1)
		}
		if fd < 0 || fd > last {
			t.mu.Unlock()
			return
		}
		f := t.clear(fd)
		t.mu.Unlock()
		t.closed(ctx, f)
	}
}

// nextUsed finds the first descriptor in use from fd on, or -1. t.mu is held.
func (t *FDTable) nextUsed(fd int) int {
	for w := fd / 64; w < len(t.used); w++ {
		v := t.used[w]
		if w == fd/64 {
			v &^= 1<<(fd%64) - 1
		}
		if v != 0 {
			return w*64 + bits.TrailingZeros64(v)
		}
	}
	return -1
}

// CloseRange closes the descriptors first to last.
func (t *FDTable) CloseRange(ctx Context, first, last uint32) {
	if first >= maxFDs {
		return
	}
	t.closeWhere(ctx, int(first), int(min(last, maxFDs)), func(int) bool { return true })
}

// CloexecRange marks the descriptors first to last close-on-exec.
func (t *FDTable) CloexecRange(first, last uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for fd := t.nextUsed(int(min(first, maxFDs))); fd >= 0 && fd <= int(last); fd = t.nextUsed(fd + 1) {
		t.cloexec[fd/64] |= 1 << (fd % 64)
	}
}

// CloseOnExec closes what is marked so, as execve does.
func (t *FDTable) CloseOnExec(ctx Context) {
	t.closeWhere(ctx, 0, maxFDs, func(fd int) bool { return t.cloexec[fd/64]>>(fd%64)&1 != 0 })
}

// Cloexec reports fd's close-on-exec flag; EBADF.
func (t *FDTable) Cloexec(fd int32) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.tab.Load(); fd < 0 || int(fd) >= len(a.slots) || a.slots[fd].Load() == nil {
		return false, abi.EBADF
	}
	return t.cloexec[fd/64]>>(fd%64)&1 != 0, nil
}

// SetCloexec sets fd's close-on-exec flag; EBADF.
func (t *FDTable) SetCloexec(fd int32, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.tab.Load()
	if fd < 0 || int(fd) >= len(a.slots) {
		return abi.EBADF
	}
	f := a.slots[fd].Load()
	if f == nil {
		return abi.EBADF
	}
	t.set(int(fd), f, on)
	return nil
}

// Fork copies the table for a task made without CLONE_FILES.
func (t *FDTable) Fork() *FDTable {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.tab.Load()
	n := NewFDTable()
	b := &fdArray{make([]atomic.Pointer[File], len(a.slots))}
	for w, v := range t.used {
		for ; v != 0; v &= v - 1 {
			i := w*64 + bits.TrailingZeros64(v)
			f := a.slots[i].Load()
			f.IncRef()
			b.slots[i].Store(f)
		}
	}
	n.tab.Store(b)
	n.used = append([]uint64(nil), t.used...)
	n.cloexec = append([]uint64(nil), t.cloexec...)
	n.next = t.next
	return n
}

// FDs lists the descriptors in use (/proc/PID/fd).
func (t *FDTable) FDs() []int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []int32
	for fd := t.nextUsed(0); fd >= 0; fd = t.nextUsed(fd + 1) {
		out = append(out, int32(fd))
	}
	return out
}

// Size is how many descriptors there is room for (FDSize in /proc/PID/status).
func (t *FDTable) Size() int { return len(t.tab.Load().slots) }
