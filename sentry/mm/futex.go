package mm

import (
	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/internal/hostmem"
	"garrison/platform"
	"garrison/sentry/usermem"
)

// A Key identifies a word of memory for futexes: equal keys are the same word,
// whatever addresses it has (futex(2)).
type Key struct {
	Obj any // the MM, or the Mappable
	Off uint64
}

// FutexKey returns the key of the word at addr: EINVAL if it is misaligned.
// A private futex's key needs no lookup, and its memory need not exist.
func (m *MM) FutexKey(addr usermem.Addr, private bool) (Key, error) {
	a := uint64(addr)
	if a&3 != 0 {
		return Key{}, abi.EINVAL
	}
	if a >= m.layout.Max {
		return Key{}, abi.EFAULT
	}
	if private {
		return Key{m, a}, nil
	}
	m.mu.RLock()
	v, ok := m.vmas.Find(a)
	m.mu.RUnlock()
	if !ok || v.Val.prot == 0 {
		return Key{}, abi.EFAULT
	}
	if !v.Val.shared() {
		return Key{m, a}, nil
	}
	return Key{v.Val.ref.m, v.Val.off + (a - v.Start)}, nil
}

// LoadUint32 reads a word atomically: EINVAL if misaligned, EFAULT.
func (m *MM) LoadUint32(addr usermem.Addr) (uint32, error) {
	a := uint64(addr)
	if a&3 != 0 {
		return 0, abi.EINVAL
	}
	if mem := m.fast(a, 4, platform.Read); mem != nil {
		v := hostmem.Load32(mem)
		m.mu.RUnlock()
		return v, nil
	}
	var v uint32
	err := m.word(a, platform.Read, func(b []byte) { v = hostmem.Load32(b) })
	return v, err
}

// CompareAndSwapUint32 replaces old by new atomically, and returns what was there.
func (m *MM) CompareAndSwapUint32(addr usermem.Addr, old, new uint32) (uint32, error) {
	var prev uint32
	_, err := m.AtomicUpdate(addr, func(v uint32) (uint32, bool) {
		prev = v
		return new, v == old
	})
	return prev, err
}

// AtomicUpdate applies f to a word until nobody interferes: f returns the new
// value and whether to store it. The result is the old value. FUTEX_WAKE_OP
// and robust futexes use it.
func (m *MM) AtomicUpdate(addr usermem.Addr, f func(old uint32) (uint32, bool)) (uint32, error) {
	if addr&3 != 0 {
		return 0, abi.EINVAL
	}
	var old uint32
	err := m.word(uint64(addr), platform.Write, func(b []byte) {
		for {
			old = hostmem.Load32(b)
			v, store := f(old)
			if !store || hostmem.CompareAndSwap32(b, old, v) {
				return
			}
		}
	})
	return old, err
}

// word calls fn with the 4 bytes at a, which is aligned.
func (m *MM) word(a uint64, need platform.Prot, fn func(b []byte)) error {
	_, err := m.with(a, 4, need, false, func(p piece) (int, error) {
		if p.mem != nil {
			fn(p.mem)
			return 4, nil
		}
		return p.mapped(need, fn)
	})
	return err
}

// mapped maps a host file's page for one atomic access: rare enough to cost a
// system call. The page exists, or else reading it through the descriptor
// fails; if it is truncated just then, the access faults and that is caught.
func (p *piece) mapped(need platform.Prot, fn func(b []byte)) (n int, err error) {
	var probe [4]byte
	if _, err := p.hostIO(probe[:], false); err != nil {
		return 0, err
	}
	prot := unix.PROT_READ
	if need&platform.Write != 0 {
		prot |= unix.PROT_WRITE
	}
	b, err := unix.Mmap(p.fd, p.off&^pageMask, pageSize, prot, unix.MAP_SHARED)
	if err != nil {
		return 0, abi.EFAULT
	}
	defer unix.Munmap(b)
	if !hostmem.Guarded(func() { fn(b[p.off&pageMask:]) }) {
		return 0, abi.EFAULT
	}
	return 4, nil
}
