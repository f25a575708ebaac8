package mm

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/pagefile"
)

// fakePlatform records mappings, and lets tests act as the guest.
type fakePlatform struct{ spaces int }

func (p *fakePlatform) Name() string { return "fake" }
func (p *fakePlatform) Layout() platform.Layout {
	return platform.Layout{Min: 0x10000, Max: 1<<47 - 4096}
}
func (p *fakePlatform) NewAddressSpace() (platform.AddressSpace, error) {
	p.spaces++
	return &fakeAS{p: p, pages: map[uint64]fakePage{}}, nil
}
func (p *fakePlatform) NewThread() (platform.Thread, error) { return nil, abi.ENOSYS }

type fakePage struct {
	fd   int
	off  int64
	prot platform.Prot
}

// fakeAS keeps a page table, for what is not longer than a few thousand pages,
// and a list of calls.
type fakeAS struct {
	p     *fakePlatform
	mu    sync.Mutex
	pages map[uint64]fakePage
	log   []string
	quiet bool
	calls int
}

const fakeLong = 1 << 16 // pages; longer mappings are only counted

func (a *fakeAS) note(f string, v ...any) {
	a.calls++
	if !a.quiet {
		a.log = append(a.log, fmt.Sprintf(f, v...))
	}
}

func (a *fakeAS) Map(m platform.Mapping) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.Prot == 0 || m.Len == 0 || m.Addr&pageMask != 0 || m.Len&pageMask != 0 || m.Off&pageMask != 0 {
		panic(fmt.Sprintf("bad mapping %+v", m))
	}
	a.note("map %#x %#x %d", m.Addr, m.Len, m.Prot)
	if a.quiet || m.Len>>12 > fakeLong {
		return nil
	}
	for o := uint64(0); o < m.Len; o += 4096 {
		a.pages[m.Addr+o] = fakePage{m.FD, m.Off + int64(o), m.Prot}
	}
	return nil
}

func (a *fakeAS) Unmap(addr, length uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("unmap %#x %#x", addr, length)
	if a.quiet {
		return nil
	}
	for p := range a.pages {
		if p >= addr && p < addr+length {
			delete(a.pages, p)
		}
	}
	return nil
}

func (a *fakeAS) Protect(addr, length uint64, prot platform.Prot) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("protect %#x %#x %d", addr, length, prot)
	for p, e := range a.pages {
		if p >= addr && p < addr+length {
			e.prot = prot
			a.pages[p] = e
		}
	}
	return nil
}

func (a *fakeAS) Flush() error { return nil }
func (a *fakeAS) Release()     { a.p.spaces-- }

func newPF(t testing.TB) *pagefile.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// The page file owns fd and gives memory back late: it is never closed.
	pf, err := pagefile.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	return pf
}

func newMM(t testing.TB) *MM {
	t.Helper()
	m, err := New(&fakePlatform{}, newPF(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// guest does what guest code would: it accesses a byte, and takes faults. It
// returns the signal that would kill it.
func guest(m *MM, addr uint64, write bool, val byte, know bool) (byte, int32) {
	as := m.as.(*fakeAS)
	need := platform.Read
	if write {
		need = platform.Write
	}
	for range 10 {
		as.mu.Lock()
		p, ok := as.pages[addr&^uint64(pageMask)]
		as.mu.Unlock()
		bus := false
		if ok && need&^p.prot == 0 {
			off := p.off + int64(addr&pageMask)
			var st unix.Stat_t
			unix.Fstat(p.fd, &st)
			if p.off < st.Size {
				b := []byte{val}
				if write {
					unix.Pwrite(p.fd, b, off)
				} else if n, _ := unix.Pread(p.fd, b, off); n == 0 {
					b[0] = 0
				}
				return b[0], 0
			}
			bus = true
		}
		acc := need
		if !know {
			acc = 0
		}
		if ok, _, sig := m.HandleFault(addr, acc, bus); !ok {
			return 0, sig
		}
	}
	panic("fault loop")
}

// hostFile is a Mappable on a host file.
type hostFile struct {
	f    *os.File
	mu   sync.Mutex
	maps map[Invalidator]int
	refs int
	max  platform.Prot
}

func newHostFile(t testing.TB, pages int) *hostFile {
	f, err := os.CreateTemp(t.TempDir(), "map")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := make([]byte, pages*4096)
	for i := range b {
		b[i] = byte(i>>12) + 1
	}
	f.Write(b)
	return &hostFile{f: f, maps: map[Invalidator]int{}, refs: 1, max: 7}
}

func (h *hostFile) Translate(off, n uint64, write bool) ([]Piece, error) {
	st, _ := h.f.Stat()
	size := pageUp(uint64(st.Size()))
	if off >= size {
		return nil, nil
	}
	return []Piece{{Off: off, Len: min(n, size-off), FD: int(h.f.Fd()), FDOff: int64(off), Max: h.max}}, nil
}
func (h *hostFile) AddMapping(i Invalidator, off, n uint64) {
	h.mu.Lock()
	h.maps[i]++
	h.mu.Unlock()
}
func (h *hostFile) RemoveMapping(i Invalidator, off, n uint64) {
	h.mu.Lock()
	if h.maps[i]--; h.maps[i] == 0 {
		delete(h.maps, i)
	}
	h.mu.Unlock()
}
func (h *hostFile) truncate(pages int) {
	h.f.Truncate(int64(pages) * 4096)
	h.mu.Lock()
	var invs []Invalidator
	for i := range h.maps {
		invs = append(invs, i)
	}
	h.mu.Unlock()
	for _, i := range invs {
		i.InvalidateFile(h, uint64(pages)*4096, ^uint64(0)-uint64(pages)*4096)
	}
}
func (h *hostFile) IncRef()                       { h.refs++ }
func (h *hostFile) DecRef()                       { h.refs-- }
func (h *hostFile) MappedName() string            { return "/file" }
func (h *hostFile) DeviceInode() (uint64, uint64) { return 1, 2 }
