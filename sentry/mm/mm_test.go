package mm

import (
	"bytes"
	"math/rand"
	"testing"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/usermem"
)

const (
	rw   = abi.PROT_READ | abi.PROT_WRITE
	anon = abi.MAP_PRIVATE | abi.MAP_ANONYMOUS
)

func mustMap(t testing.TB, m *MM, o MmapOpts) uint64 {
	t.Helper()
	a, err := m.Mmap(o)
	if err != nil {
		t.Fatalf("Mmap(%+v): %v", o, err)
	}
	return uint64(a)
}

func TestMmapErrors(t *testing.T) {
	m := newMM(t)
	used := mustMap(t, m, MmapOpts{Len: 8 * 4096, Prot: rw, Flags: anon})
	for _, c := range []struct {
		name string
		o    MmapOpts
		want error
	}{
		{"no length", MmapOpts{Flags: anon}, abi.EINVAL},
		{"length overflows", MmapOpts{Len: ^uint64(0), Flags: anon}, abi.ENOMEM},
		{"too long", MmapOpts{Len: 1 << 47, Flags: anon}, abi.ENOMEM},
		{"offset overflows", MmapOpts{Len: 8192, Off: ^uint64(0) &^ 4095, Flags: anon}, abi.EOVERFLOW},
		{"no type", MmapOpts{Len: 4096, Flags: abi.MAP_ANONYMOUS}, abi.EINVAL},
		{"fixed misaligned", MmapOpts{Addr: 0x100001, Len: 4096, Flags: anon | abi.MAP_FIXED}, abi.EINVAL},
		{"fixed low", MmapOpts{Addr: 4096, Len: 4096, Flags: anon | abi.MAP_FIXED}, abi.EPERM},
		{"fixed high", MmapOpts{Addr: 1 << 47, Len: 4096, Flags: anon | abi.MAP_FIXED}, abi.ENOMEM},
		{"noreplace", MmapOpts{Addr: usermem.Addr(used), Len: 4096, Flags: anon | abi.MAP_FIXED_NOREPLACE}, abi.EEXIST},
		{"shared stack", MmapOpts{Len: 4096, Flags: abi.MAP_SHARED | abi.MAP_ANONYMOUS | abi.MAP_GROWSDOWN}, abi.EINVAL},
	} {
		if _, err := m.Mmap(c.o); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	lim := NoLimits()
	lim.AS = 10 * 4096
	m.SetLimits(func() Limits { return lim })
	if _, err := m.Mmap(MmapOpts{Len: 3 * 4096, Prot: rw, Flags: anon}); err != abi.ENOMEM {
		t.Errorf("over RLIMIT_AS: %v", err)
	}
	if _, err := m.Mmap(MmapOpts{Addr: usermem.Addr(used), Len: 10 * 4096, Prot: rw, Flags: anon | abi.MAP_FIXED}); err != nil {
		t.Errorf("replacing within RLIMIT_AS: %v", err)
	}
}

func TestPlacement(t *testing.T) {
	m := newMM(t)
	a := mustMap(t, m, MmapOpts{Len: 4096, Prot: rw, Flags: anon})
	b := mustMap(t, m, MmapOpts{Len: 4096, Prot: rw, Flags: anon})
	if b != a-4096 {
		t.Errorf("second mapping at %#x, first at %#x", b, a)
	}
	if n := m.MapCount(); n != 1 {
		t.Errorf("neighbours were not merged: %d VMAs", n)
	}
	if n := m.pmas.Count(); n != 1 {
		t.Errorf("backing was not merged: %d runs", n)
	}
	h := mustMap(t, m, MmapOpts{Addr: 0x5000123, Len: 4096, Prot: rw, Flags: anon})
	if h != 0x5000000 {
		t.Errorf("hint not honoured: %#x", h)
	}
	l := mustMap(t, m, MmapOpts{Len: 4096, Prot: rw, Flags: anon | abi.MAP_32BIT})
	if l >= 1<<32 {
		t.Errorf("MAP_32BIT at %#x", l)
	}
	// A hole is found again.
	big := mustMap(t, m, MmapOpts{Len: 64 * 4096, Prot: abi.PROT_READ, Flags: anon})
	m.Munmap(usermem.Addr(big+4096), 10*4096)
	c := mustMap(t, m, MmapOpts{Len: 10 * 4096, Prot: rw, Flags: anon})
	if c != big+4096 {
		t.Errorf("hole at %#x not reused: %#x", big+4096, c)
	}
}

func TestStackGrowth(t *testing.T) {
	m := newMM(t)
	lim := NoLimits()
	lim.Stack = 1 << 20
	m.SetLimits(func() Limits { return lim })
	top := uint64(0x7fff00000000)
	mustMap(t, m, MmapOpts{Addr: usermem.Addr(top - 0x20000), Len: 0x20000, Prot: rw, Flags: anon | abi.MAP_FIXED, GrowsDown: true, Name: "[stack]"})
	if _, sig := guest(m, top-1<<20, true, 1, false); sig != 0 {
		t.Errorf("stack did not grow to its limit: signal %d", sig)
	}
	if _, sig := guest(m, top-1<<20-8, true, 1, false); sig != abi.SIGSEGV {
		t.Errorf("stack grew over its limit: signal %d", sig)
	}
	lim.Stack = 64 << 20
	mustMap(t, m, MmapOpts{Addr: usermem.Addr(top - 4<<20), Len: 4096, Prot: rw, Flags: anon | abi.MAP_FIXED})
	if _, sig := guest(m, top-4<<20+4096+stackGuardGap-8, true, 1, false); sig != abi.SIGSEGV {
		t.Errorf("stack grew into its guard gap")
	}
	if _, sig := guest(m, top-4<<20+4096+stackGuardGap, true, 1, true); sig != 0 {
		t.Errorf("stack did not grow to its guard gap: %d", sig)
	}
}

func TestFaults(t *testing.T) {
	m := newMM(t)
	ro := mustMap(t, m, MmapOpts{Len: 4096, Prot: abi.PROT_READ, Flags: anon})
	none := mustMap(t, m, MmapOpts{Len: 4096, Prot: 0, Flags: anon})
	h := newHostFile(t, 2)
	file := mustMap(t, m, MmapOpts{Len: 4 * 4096, Prot: abi.PROT_READ, Flags: abi.MAP_SHARED, Mappable: h, File: h})
	for _, know := range []bool{true, false} {
		for _, c := range []struct {
			name  string
			addr  uint64
			write bool
			sig   int32
		}{
			{"read read-only", ro, false, 0},
			{"write read-only", ro, true, abi.SIGSEGV},
			{"read PROT_NONE", none, false, abi.SIGSEGV},
			{"unmapped", 0x12345000, false, abi.SIGSEGV},
			{"null", 0, true, abi.SIGSEGV},
			{"file", file + 4096, false, 0},
			{"behind the file", file + 2*4096, false, abi.SIGBUS},
			{"write file", file, true, abi.SIGSEGV},
		} {
			if _, sig := guest(m, c.addr, c.write, 1, know); sig != c.sig {
				t.Errorf("%s (known %v): signal %d, want %d", c.name, know, sig, c.sig)
			}
		}
	}
	h.truncate(1)
	if _, sig := guest(m, file+4096, false, 0, true); sig != abi.SIGBUS {
		t.Errorf("truncated page: signal %d", sig)
	}
	if n, err := m.CopyIn(usermem.Addr(file+4090), make([]byte, 20)); n != 6 || err != abi.EFAULT {
		t.Errorf("CopyIn over the end of the file: %d, %v", n, err)
	}
	h.truncate(2)
	if _, sig := guest(m, file+4096, false, 0, true); sig != 0 {
		t.Errorf("regrown page: signal %d", sig)
	}
	m.DecUsers()
	if h.refs != 1 || len(h.maps) != 0 {
		t.Errorf("file kept: %d references, %d mappings", h.refs, len(h.maps))
	}
}

func TestPrivateFile(t *testing.T) {
	for _, pages := range []int{8, 100} { // copied eagerly, and by faults
		m := newMM(t)
		h := newHostFile(t, pages)
		a := mustMap(t, m, MmapOpts{Len: uint64(pages) * 4096, Prot: rw, Flags: abi.MAP_PRIVATE | abi.MAP_DENYWRITE, Mappable: h, File: h})
		for i := range uint64(pages) {
			if b, _ := guest(m, a+i*4096, false, 0, true); b != byte(i)+1 {
				t.Fatalf("page %d reads %d", i, b)
			}
			guest(m, a+i*4096, true, 99, i%2 == 0)
			if b, _ := guest(m, a+i*4096+1, false, 0, true); b != byte(i)+1 {
				t.Fatalf("page %d reads %d behind the byte written", i, b)
			}
		}
		var b [1]byte
		h.f.ReadAt(b[:], 0)
		if b[0] != 1 {
			t.Error("a private write reached the file")
		}
		m.Madvise(usermem.Addr(a), uint64(pages)*4096, abi.MADV_DONTNEED)
		if b, _ := guest(m, a, false, 0, true); b != 1 {
			t.Errorf("after MADV_DONTNEED the page reads %d, not the file", b)
		}
		guest(m, a, true, 98, true)
		guest(m, a+4096, true, 98, true)
		h.truncate(1)
		if b, sig := guest(m, a, false, 0, true); b != 98 || sig != 0 {
			t.Errorf("copy before the end reads %d after truncation, signal %d", b, sig)
		}
		if _, sig := guest(m, a+4096, false, 0, true); sig != abi.SIGBUS {
			t.Errorf("copy behind the end: signal %d", sig)
		}
		m.DecUsers()
		m.pf.Settle()
		if m.pf.InUse() != 0 {
			t.Errorf("%d bytes leaked", m.pf.InUse())
		}
	}
}

func TestMprotect(t *testing.T) {
	m := newMM(t)
	a := mustMap(t, m, MmapOpts{Len: 16 * 4096, Prot: 0, Flags: anon})
	if m.pf.InUse() != 0 {
		t.Error("PROT_NONE reserved offsets")
	}
	for i := range uint64(4) {
		if err := m.Mprotect(usermem.Addr(a+i*4*4096), 4*4096, rw); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.pmas.Count(); n != 1 {
		t.Errorf("%d runs back an arena opened in steps", n)
	}
	guest(m, a, true, 5, true)
	m.Mprotect(usermem.Addr(a), 4096, 0)
	if _, sig := guest(m, a, false, 0, true); sig != abi.SIGSEGV {
		t.Error("PROT_NONE page can be read")
	}
	m.Mprotect(usermem.Addr(a), 4096, abi.PROT_READ)
	if b, sig := guest(m, a, false, 0, false); b != 5 || sig != 0 {
		t.Errorf("page lost its content: %d, signal %d", b, sig)
	}
	for _, c := range []struct {
		addr, n uint64
		prot    uint32
		want    error
	}{
		{a + 1, 4096, rw, abi.EINVAL},
		{a, 0, rw, nil},
		{a, ^uint64(0), rw, abi.ENOMEM},
		{a, 4096, 0x100, abi.EINVAL},
		{a, 17 * 4096, rw, abi.ENOMEM},
		{a, 4096, rw | abi.PROT_GROWSDOWN, abi.EINVAL},
	} {
		// The VMA above must not be a neighbour.
		if err := m.Mprotect(usermem.Addr(c.addr), c.n, c.prot); err != c.want {
			t.Errorf("Mprotect(%#x, %#x, %#x) = %v, want %v", c.addr, c.n, c.prot, err, c.want)
		}
	}
	h := newHostFile(t, 1)
	f := mustMap(t, m, MmapOpts{Len: 4096, Prot: abi.PROT_READ, Flags: abi.MAP_SHARED, MaxProt: abi.PROT_READ, Mappable: h, File: h})
	if err := m.Mprotect(usermem.Addr(f), 4096, rw); err != abi.EACCES {
		t.Errorf("over MaxProt: %v", err)
	}
}

func TestBrk(t *testing.T) {
	m := newMM(t)
	m.SetInfo(Info{StartBrk: 0x1000000, Brk: 0x1000000})
	if b := m.Brk(0); b != 0x1000000 {
		t.Errorf("brk = %#x", b)
	}
	for i := range 10 {
		want := usermem.Addr(0x1000000 + i*0x21000 + 10)
		if b := m.Brk(want); b != want {
			t.Errorf("brk(%#x) = %#x", want, b)
		}
	}
	if m.MapCount() != 1 || m.pmas.Count() != 1 {
		t.Errorf("the heap is %d VMAs in %d runs", m.MapCount(), m.pmas.Count())
	}
	if b := m.Brk(0x1000000); b != 0x1000000 || m.MapCount() != 0 {
		t.Errorf("shrink: %#x, %d VMAs", b, m.MapCount())
	}
}

func TestMremap(t *testing.T) {
	m := newMM(t)
	a := mustMap(t, m, MmapOpts{Len: 4 * 4096, Prot: rw, Flags: anon})
	guest(m, a, true, 42, true)
	n, err := m.Mremap(usermem.Addr(a), 4*4096, 100*4096, abi.MREMAP_MAYMOVE, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := guest(m, uint64(n), false, 0, true); b != 42 {
		t.Errorf("moved page reads %d", b)
	}
	if _, sig := guest(m, uint64(n)+99*4096, true, 1, true); sig != 0 {
		t.Errorf("new end: signal %d", sig)
	}
	k, err := m.Mremap(n, 100*4096, 100*4096, abi.MREMAP_MAYMOVE|abi.MREMAP_DONTUNMAP, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := guest(m, uint64(n), false, 0, true); b != 0 {
		t.Errorf("MREMAP_DONTUNMAP left %d behind", b)
	}
	if b, _ := guest(m, uint64(k), false, 0, true); b != 42 {
		t.Errorf("MREMAP_DONTUNMAP moved %d", b)
	}
	s := mustMap(t, m, MmapOpts{Len: 2 * 4096, Prot: rw, Flags: abi.MAP_SHARED | abi.MAP_ANONYMOUS})
	d, err := m.Mremap(usermem.Addr(s), 0, 4096, abi.MREMAP_MAYMOVE, 0)
	if err != nil {
		t.Fatal(err)
	}
	guest(m, s, true, 9, true)
	if b, _ := guest(m, uint64(d), false, 0, true); b != 9 {
		t.Errorf("duplicate of a shared mapping reads %d", b)
	}
	k = usermem.Addr(mustMap(t, m, MmapOpts{Addr: 0x20000000, Len: 100 * 4096, Prot: rw, Flags: anon | abi.MAP_FIXED}))
	mustMap(t, m, MmapOpts{Addr: k + 100*4096, Len: 4096, Prot: 0, Flags: anon | abi.MAP_FIXED})
	for _, c := range []struct {
		old, ol, nl uint64
		fl          uint32
		to          uint64
		want        error
	}{
		{uint64(k) + 1, 4096, 4096, 0, 0, abi.EINVAL},
		{uint64(k), 4096, 0, 0, 0, abi.EINVAL},
		{uint64(k), 4096, 4096, 8, 0, abi.EINVAL},
		{uint64(k), 4096, 4096, abi.MREMAP_FIXED, 0x1000000, abi.EINVAL},
		{0x7000000, 4096, 8192, 0, 0, abi.EFAULT},
		{uint64(k), 101 * 4096, 102 * 4096, abi.MREMAP_MAYMOVE, 0, abi.EFAULT},
		{uint64(k), 0, 4096, abi.MREMAP_MAYMOVE, 0, abi.EINVAL},
		{uint64(k), 8192, 8192, abi.MREMAP_FIXED | abi.MREMAP_MAYMOVE, uint64(k) + 4096, abi.EINVAL},
		{uint64(k), 50 * 4096, 101 * 4096, 0, 0, abi.ENOMEM},
		{uint64(k), -uint64(k), 4096, 0, 0, abi.EINVAL},
	} {
		if _, err := m.Mremap(usermem.Addr(c.old), c.ol, c.nl, c.fl, usermem.Addr(c.to)); err != c.want {
			t.Errorf("Mremap(%#x, %#x, %#x, %d, %#x) = %v, want %v", c.old, c.ol, c.nl, c.fl, c.to, err, c.want)
		}
	}
}

func TestRemapFilePages(t *testing.T) {
	m := newMM(t)
	f := newHostFile(t, 4)
	a := mustMap(t, m, MmapOpts{Len: 4 * 4096, Prot: rw, Flags: abi.MAP_SHARED, Mappable: f, File: f})
	if err := m.RemapFilePages(usermem.Addr(a), 2*4096, 2, 0); err != nil {
		t.Fatal(err)
	}
	if b, _ := guest(m, a+4096, false, 0, true); b != 4 {
		t.Errorf("the second page reads %d, want 4", b)
	}
	// The second page's offset would wrap to the file's start.
	for _, off := range []uint64{1<<52 - 1, 1 << 52, 1<<51 - 1} {
		if err := m.RemapFilePages(usermem.Addr(a), 2*4096, off, 0); err != abi.EOVERFLOW {
			t.Errorf("page offset %#x: %v, want EOVERFLOW", off, err)
		}
	}
	f.truncate(0)
	if _, sig := guest(m, a+4096, false, 0, true); sig != abi.SIGBUS {
		t.Errorf("behind the end of the file: signal %d", sig)
	}
}

func TestCopy(t *testing.T) {
	m := newMM(t)
	a := mustMap(t, m, MmapOpts{Len: 4 * 4096, Prot: rw, Flags: anon})
	data := bytes.Repeat([]byte("garrison"), 1500)
	if n, err := m.CopyOut(usermem.Addr(a+100), data); n != len(data) || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, len(data))
	m.CopyIn(usermem.Addr(a+100), got)
	if !bytes.Equal(got, data) {
		t.Error("CopyIn differs from CopyOut")
	}
	if n, err := m.CopyOut(usermem.Addr(a+4*4096-10), data); n != 10 || err != abi.EFAULT {
		t.Errorf("partial copy: %d, %v", n, err)
	}
	m.CopyOut(usermem.Addr(a+4*4096-4), []byte("abc\x00"))
	if s, err := m.CopyInString(usermem.Addr(a+4*4096-4), 100); s != "abc" || err != nil {
		t.Errorf("string at the end of memory: %q, %v", s, err)
	}
	if _, err := m.CopyInString(usermem.Addr(a+104), 100); err != abi.ENAMETOOLONG {
		t.Errorf("long string: %v", err)
	}
	m.CopyOut(usermem.Addr(a+4*4096-4), []byte("abcd"))
	if _, err := m.CopyInString(usermem.Addr(a+4*4096-4), 100); err != abi.EFAULT {
		t.Errorf("string without end: %v", err)
	}
	h := newHostFile(t, 2)
	f := mustMap(t, m, MmapOpts{Len: 2 * 4096, Prot: rw, Flags: abi.MAP_SHARED, Mappable: h, File: h})
	m.CopyOut(usermem.Addr(f+4090), []byte("0123456789ab"))
	b := make([]byte, 12)
	h.f.ReadAt(b, 4090)
	if string(b) != "0123456789ab" {
		t.Errorf("shared file holds %q", b)
	}
	if v, err := m.CompareAndSwapUint32(usermem.Addr(f), 0x01010101, 7); v != 0x01010101 || err != nil {
		t.Errorf("CAS in a host file: %#x, %v", v, err)
	}
	if v, err := m.LoadUint32(usermem.Addr(f)); v != 7 || err != nil {
		t.Errorf("load from a host file: %#x, %v", v, err)
	}
	if _, err := m.LoadUint32(usermem.Addr(a + 2)); err != abi.EINVAL {
		t.Errorf("misaligned: %v", err)
	}
}

func TestFutexKeys(t *testing.T) {
	m := newMM(t)
	s := usermem.Addr(mustMap(t, m, MmapOpts{Len: 4096, Prot: rw, Flags: abi.MAP_SHARED | abi.MAP_ANONYMOUS}))
	p := usermem.Addr(mustMap(t, m, MmapOpts{Len: 4096, Prot: rw, Flags: anon}))
	c, err := m.Fork()
	if err != nil {
		t.Fatal(err)
	}
	k1, _ := m.FutexKey(s, false)
	k2, _ := c.FutexKey(s, false)
	if k1 != k2 {
		t.Error("a shared futex has two keys")
	}
	k1, _ = m.FutexKey(p, false)
	k2, _ = c.FutexKey(p, false)
	if k1 == k2 {
		t.Error("a private futex is shared with the child")
	}
}

// TestRandom runs random operations on a few address spaces and compares each
// page with a model, as the guest and as the Sentry see it.
func TestRandom(t *testing.T) {
	const slots, base = 64, 0x10000000
	type model struct {
		mapped, write, read [slots]bool
		val                 [slots]byte
		shared              [slots]*byte
	}
	rng := rand.New(rand.NewSource(7))
	pf := newPF(t)
	plat := &fakePlatform{}
	first, err := New(plat, pf)
	if err != nil {
		t.Fatal(err)
	}
	mms, models := []*MM{first}, []*model{{}}
	at := func(i int) usermem.Addr { return usermem.Addr(base + i*4096) }
	for step := range 6000 {
		k := rng.Intn(len(mms))
		m, mo := mms[k], models[k]
		i := rng.Intn(slots)
		n := min(1+rng.Intn(10), slots-i)
		switch rng.Intn(12) {
		case 0, 1:
			sh := rng.Intn(4) == 0
			fl := uint32(anon | abi.MAP_FIXED)
			if sh {
				fl = abi.MAP_SHARED | abi.MAP_ANONYMOUS | abi.MAP_FIXED
			}
			prot := []uint32{0, abi.PROT_READ, rw, rw, rw}[rng.Intn(5)]
			mustMap(t, m, MmapOpts{Addr: at(i), Len: uint64(n) * 4096, Prot: prot, Flags: fl})
			for j := i; j < i+n; j++ {
				mo.mapped[j], mo.write[j], mo.read[j], mo.val[j], mo.shared[j] = true, prot&2 != 0, prot != 0, 0, nil
				if sh {
					mo.shared[j] = new(byte)
				}
			}
		case 2:
			if err := m.Munmap(at(i), uint64(n)*4096); err != nil {
				t.Fatal(err)
			}
			for j := i; j < i+n; j++ {
				mo.mapped[j], mo.shared[j] = false, nil
			}
		case 3:
			prot := []uint32{0, abi.PROT_READ, rw}[rng.Intn(3)]
			err := m.Mprotect(at(i), uint64(n)*4096, prot)
			for j := i; j < i+n; j++ {
				if !mo.mapped[j] {
					if err != abi.ENOMEM {
						t.Fatalf("step %d: mprotect over a hole: %v", step, err)
					}
					break
				}
				mo.write[j], mo.read[j] = prot&2 != 0, prot != 0
			}
		case 4:
			if len(mms) < 6 {
				c, err := m.Fork()
				if err != nil {
					t.Fatal(err)
				}
				cm := *mo
				mms, models = append(mms, c), append(models, &cm)
			} else {
				m.DecUsers()
				mms = append(mms[:k], mms[k+1:]...)
				models = append(models[:k], models[k+1:]...)
			}
		case 5:
			m.Madvise(at(i), uint64(n)*4096, abi.MADV_DONTNEED)
			for j := i; j < i+n; j++ {
				if mo.mapped[j] && mo.shared[j] == nil {
					mo.val[j] = 0
				}
			}
		case 6:
			j := rng.Intn(slots)
			if i+n > j && j+n > i || j+n > slots || !mo.mapped[i] {
				continue
			}
			before := *mo
			if _, err := m.Mremap(at(i), uint64(n)*4096, uint64(n)*4096, abi.MREMAP_MAYMOVE|abi.MREMAP_FIXED, at(j)); err != nil {
				// More than one VMA: the target has been unmapped already, as on Linux.
				for x := j; x < j+n; x++ {
					mo.mapped[x], mo.shared[x] = false, nil
				}
				continue
			}
			for x := range n {
				mo.mapped[j+x], mo.write[j+x], mo.read[j+x] = before.mapped[i+x], before.write[i+x], before.read[i+x]
				mo.val[j+x], mo.shared[j+x] = before.val[i+x], before.shared[i+x]
				mo.mapped[i+x], mo.shared[i+x] = false, nil
			}
		default:
			v := byte(rng.Intn(256))
			var okWrite bool
			if rng.Intn(2) == 0 {
				_, sig := guest(m, uint64(at(i))+77, true, v, rng.Intn(2) == 0)
				okWrite = sig == 0
			} else {
				_, err := m.CopyOut(at(i)+77, []byte{v})
				okWrite = err == nil
			}
			if want := mo.mapped[i] && mo.write[i]; okWrite != want {
				t.Fatalf("step %d: write to slot %d worked: %v, want %v", step, i, okWrite, want)
			}
			if okWrite {
				if mo.shared[i] != nil {
					*mo.shared[i] = v
				} else {
					mo.val[i] = v
				}
			}
		}
		// Look at a few pages of every space.
		for k, m := range mms {
			mo := models[k]
			for range 3 {
				i := rng.Intn(slots)
				want := mo.val[i]
				if mo.shared[i] != nil {
					want = *mo.shared[i]
				}
				got, sig := guest(m, uint64(at(i))+77, false, 0, rng.Intn(2) == 0)
				var b [1]byte
				_, err := m.CopyIn(at(i)+77, b[:])
				if can := mo.mapped[i] && mo.read[i]; can != (sig == 0) || can != (err == nil) || can && (got != want || b[0] != want) {
					t.Fatalf("step %d space %d slot %d: guest %d (signal %d), Sentry %d (%v), want %d (readable %v)", step, k, i, got, sig, b[0], err, want, can)
				}
			}
			checkInvariant(t, m)
		}
	}
	for _, m := range mms {
		m.DecUsers()
	}
	pf.Settle()
	if n := pf.InUse(); n != 0 {
		t.Errorf("%d bytes of the page file leaked", n)
	}
	if plat.spaces != 0 {
		t.Errorf("%d address spaces leaked", plat.spaces)
	}
}

// checkInvariant compares what the platform maps with hostProt.
func checkInvariant(t *testing.T, m *MM) {
	t.Helper()
	as := m.as.(*fakeAS)
	want := map[uint64]fakePage{}
	var total uint64
	for _, v := range m.vmas.Collect(nil, 0, ^uint64(0)) {
		total += v.Len()
		for _, p := range m.pmas.Collect(nil, v.Start, v.End) {
			if prot := hostProt(&v.Val, &p.Val); prot != 0 {
				for a := p.Start; a < p.End; a += 4096 {
					want[a] = fakePage{int(p.Val.fd), int64(p.Val.off + a - p.Start), prot}
				}
			}
		}
	}
	if total != m.totalVM {
		t.Fatalf("totalVM is %#x, VMAs hold %#x", m.totalVM, total)
	}
	if len(want) != len(as.pages) {
		t.Fatalf("the platform maps %d pages, want %d", len(as.pages), len(want))
	}
	for a, p := range want {
		if as.pages[a] != p {
			t.Fatalf("page %#x is %+v, want %+v", a, as.pages[a], p)
		}
	}
	as.log = as.log[:0]
}

func benchMM(b *testing.B) *MM {
	m := newMM(b)
	m.as.(*fakeAS).quiet = true
	b.ReportAllocs()
	return m
}

func BenchmarkMmapMunmap(b *testing.B) {
	m := benchMM(b)
	for b.Loop() {
		a, _ := m.Mmap(MmapOpts{Len: 1 << 16, Prot: rw, Flags: anon})
		m.Munmap(a, 1<<16)
	}
}

func BenchmarkCopyIn64(b *testing.B) {
	m := benchMM(b)
	a, _ := m.Mmap(MmapOpts{Len: 1 << 16, Prot: rw, Flags: anon})
	var buf [64]byte
	for b.Loop() {
		m.CopyIn(a+100, buf[:])
	}
}

func BenchmarkSpuriousFault(b *testing.B) {
	m := benchMM(b)
	m.users.Store(1 << 40)
	a, _ := m.Mmap(MmapOpts{Len: 1 << 16, Prot: rw, Flags: anon})
	for b.Loop() {
		m.HandleFault(uint64(a), platform.Read, false)
	}
}

func BenchmarkCOWFault(b *testing.B) {
	m := benchMM(b)
	a, _ := m.Mmap(MmapOpts{Len: 1 << 16, Prot: rw, Flags: anon})
	m.CopyOut(a, []byte{1})
	for b.Loop() {
		c, _ := m.Fork()
		c.as.(*fakeAS).quiet = true
		m.HandleFault(uint64(a), platform.Write, false)
		c.DecUsers()
	}
}

func BenchmarkLoadUint32(b *testing.B) {
	m := benchMM(b)
	a, _ := m.Mmap(MmapOpts{Len: 1 << 16, Prot: rw, Flags: anon})
	for b.Loop() {
		m.LoadUint32(a + 100)
	}
}
