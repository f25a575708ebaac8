// Package mm is the guest's memory manager: VMAs, what backs them, faults,
// copy-on-write, and the Sentry's own access to guest memory (struct mm_struct
// and mm/ in Linux).
//
// It does not know tasks, signals or descriptors: limits come in as a
// function, files as the interfaces File and Mappable, and a fault that the
// guest did not deserve to survive is returned as a signal's number and code.
// It keeps one invariant: what the platform maps at an address is a function
// of the VMA and of the backing there (hostProt), and every change of either
// is followed by the platform call that restores it.
//
// Lock order: file and inode locks, then MM.mu (a parent's before a new
// child's), then a Mappable's page lock, then the page file. Files are dropped
// with MM.mu released, for their last reference may do anything.
package mm

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/internal/spanset"
	"garrison/platform"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
)

const (
	pageSize = usermem.PageSize
	pageMask = usermem.PageMask

	// MinAddr is vm.mmap_min_addr.
	MinAddr = 65536
	// MaxMapCount is vm.max_map_count.
	MaxMapCount = 65530

	stackGuardGap = 256 * pageSize
	// stackStep is how far a stack VMA grows at a time: fewer faults than a
	// page each, and nothing is allocated before it is touched.
	stackStep = 128 << 10
	// eagerCopyMax is the longest private writable file mapping that is copied
	// when it is made: one copy beats a fault for each of its pages.
	eagerCopyMax = 128 << 10
	// populateFree is how much may be made present without asking for room.
	populateFree = 16 << 20
	// reserveWindow is how much is backed around a fault in untouched memory.
	reserveWindow = 2 << 20
)

// Limits are what the kernel lets a process use; ^uint64(0) means no limit.
type Limits struct {
	AS, Data, Stack, Memlock uint64 // RLIMIT_* in bytes
	CanLock                  bool   // CAP_IPC_LOCK
	CanMapLow                bool   // CAP_SYS_RAWIO: below MinAddr
	TotalMemory              uint64 // bytes of the machine, 0 if not known
}

// NoLimits lets everything pass.
func NoLimits() Limits {
	const inf = ^uint64(0)
	return Limits{AS: inf, Data: inf, Stack: 8 << 20, Memlock: inf, CanLock: true}
}

// An MM is one guest address space. Tasks share it by reference counts.
type MM struct {
	platform platform.Platform
	layout   platform.Layout
	pf       *pagefile.File
	as       platform.AddressSpace
	users    atomic.Int64
	dumpable atomic.Int32
	limits   atomic.Pointer[func() Limits]

	// tcache remembers where recently used ranges lie in the Sentry; entries
	// of another generation are stale. Written by readers of mu.
	tcache [8]atomic.Pointer[xlate]

	mu       sync.RWMutex
	gen      uint64 // counts changes of vmas and pmas
	released bool
	vmas     spanset.Set[vma]
	pmas     spanset.Set[pma]
	drops    []*mapping // unmapped; released by unlock

	mmapBase uint64
	// No gap longer than holeMax lies between holeTop and mmapBase.
	holeTop, holeMax uint64

	totalVM, dataVM, stackVM, lockedVM, sharedVM uint64 // bytes
	maxTotalVM                                   uint64
	lockFuture                                   bool

	copied, kept locality // the last runs of copy-on-write
	spur         spurious

	info Info
	exe  File
}

// Info is where the parts of the program lie, for /proc and prctl.
type Info struct {
	StartCode, EndCode, StartData, EndData uint64
	StartBrk, Brk, StartStack              uint64
	ArgStart, ArgEnd, EnvStart, EnvEnd     uint64
	Auxv                                   []byte
	VDSO                                   uint64
}

// New makes an empty address space with one user.
func New(p platform.Platform, pf *pagefile.File) (*MM, error) {
	as, err := p.NewAddressSpace()
	if err != nil {
		return nil, abi.FromHost(err)
	}
	m := &MM{platform: p, layout: p.Layout(), pf: pf, as: as}
	m.users.Store(1)
	m.dumpable.Store(1)
	m.vmas.Init(cutVMA, joinVMA)
	m.pmas.Init(cutPMA, joinPMA)
	m.SetLimits(NoLimits)
	m.mmapBase = m.layout.Max - stackGuardGap
	m.holeTop = m.mmapBase
	return m, nil
}

// SetLimits sets where the limits are asked for. The function must not call
// back into the MM.
func (m *MM) SetLimits(f func() Limits) { m.limits.Store(&f) }

func (m *MM) lim() Limits { return (*m.limits.Load())() }

// AddressSpace is what threads run in. It is invalid after the last DecUsers.
func (m *MM) AddressSpace() platform.AddressSpace { return m.as }

// Platform is where the address space was made.
func (m *MM) Platform() platform.Platform { return m.platform }

// PageFile is the file behind anonymous memory.
func (m *MM) PageFile() *pagefile.File { return m.pf }

// Layout bounds the addresses that can be mapped.
func (m *MM) Layout() platform.Layout { return m.layout }

// Dumpable and SetDumpable are PR_GET_DUMPABLE's value (0, 1, 2).
func (m *MM) Dumpable() int32     { return m.dumpable.Load() }
func (m *MM) SetDumpable(v int32) { m.dumpable.Store(v) }

// Users is the number of tasks (and others) that use m.
func (m *MM) Users() int64 { return m.users.Load() }

// IncUsers adds a user.
func (m *MM) IncUsers() { m.users.Add(1) }

// TryIncUsers adds a user unless the last one has gone.
func (m *MM) TryIncUsers() bool {
	for {
		n := m.users.Load()
		if n <= 0 {
			return false
		}
		if m.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// DecUsers takes a user away. The last one releases everything: no thread may
// run in the address space then or later.
func (m *MM) DecUsers() {
	switch n := m.users.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("mm: DecUsers without a user")
	}
	m.mu.Lock()
	m.released = true
	m.gen++
	var pages []pagefile.Range
	m.pmas.Ascend(0, ^uint64(0), func(p pspan) bool {
		if p.Val.owned {
			pages = append(pages, pagefile.Range{Off: p.Val.off, Len: p.Len()})
		}
		return true
	})
	m.vmas.Ascend(0, ^uint64(0), func(v vspan) bool {
		if r := v.Val.ref; r != nil {
			if r.live -= v.Len(); r.live == 0 {
				m.drops = append(m.drops, r)
			}
		}
		return true
	})
	m.pmas.Clear()
	m.vmas.Clear()
	for i := range m.tcache {
		m.tcache[i].Store(nil)
	}
	drops, exe := m.drops, m.exe
	m.drops, m.exe = nil, nil
	m.as.Release()
	m.mu.Unlock()

	m.pf.DecRefs(pages, nil)
	for _, r := range drops {
		r.drop(m)
	}
	if exe != nil {
		exe.DecRef()
	}
}

// Flush implements pagefile.Flusher: it returns when nothing that was unmapped
// can be reached any more.
func (m *MM) Flush() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.released {
		return nil
	}
	return m.as.Flush()
}

// unlock ends a change of the address space: it releases mu, and the files
// that lost their last mapping.
func (m *MM) unlock() {
	if len(m.drops) == 0 {
		m.mu.Unlock()
		return
	}
	drops := m.drops
	m.drops = nil
	// A queued mapping may still name the file's descriptor, and the file's
	// pages may be reused once we say that we no longer map them.
	if !m.released {
		m.as.Flush()
	}
	m.mu.Unlock()
	for _, r := range drops {
		r.drop(m)
	}
}

// Exe returns the executable file with a reference, or nil.
func (m *MM) Exe() File {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.exe != nil {
		m.exe.IncRef()
	}
	return m.exe
}

// SetExe makes f, of which it takes over a reference, the executable.
func (m *MM) SetExe(f File) {
	m.mu.Lock()
	old := m.exe
	m.exe = f
	m.mu.Unlock()
	if old != nil {
		old.DecRef()
	}
}

// Info returns where things lie.
func (m *MM) Info() Info {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.info
}

// SetInfo changes it; the loader does.
func (m *MM) SetInfo(i Info) {
	m.mu.Lock()
	m.info = i
	m.mu.Unlock()
}

// StackBase picks the address below which a new program's stack lies.
func (m *MM) StackBase() usermem.Addr {
	// arch/x86 randomises it by 16 GiB of pages.
	top := m.layout.Max - (rand.Uint64N(1<<22) << usermem.PageShift)
	return usermem.Addr(top &^ pageMask)
}

// SetMmapBase places the area of mmap below a stack with the given limit, as
// arch/x86/mm/mmap.c does.
func (m *MM) SetMmapBase(stackLimit uint64) {
	const maxRandom = 1 << 34 // of the stack
	gap := stackLimit
	if pad := uint64(maxRandom + stackGuardGap); gap+pad > gap {
		gap += pad
	}
	gap = max(gap, 128<<20)
	gap = min(gap, m.layout.Max/6*5)
	rnd := rand.Uint64N(1<<28) << usermem.PageShift
	if rnd > (m.layout.Max-gap)/4 {
		rnd = (m.layout.Max - gap) / 4
	}
	m.mu.Lock()
	m.mmapBase = (m.layout.Max - gap - rnd) &^ pageMask
	m.holeTop, m.holeMax = m.mmapBase, 0
	m.mu.Unlock()
}
