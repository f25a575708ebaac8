package pagefile

import (
	"bytes"
	"math/rand"
	"testing"

	"golang.org/x/sys/unix"
)

func newFile(t testing.TB) *File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return f
}

func TestAllocFreeReuse(t *testing.T) {
	f := newFile(t)
	a, err := f.Alloc(4 * pageSize)
	if err != nil {
		t.Fatal(err)
	}
	s := f.Slice(a, 4*pageSize)
	copy(s, "hello")
	if f.Usage() == 0 {
		t.Error("a touched page uses no memory")
	}
	f.IncRef(a+pageSize, pageSize)
	if n := f.Exclusive(a, 4*pageSize); n != pageSize {
		t.Errorf("Exclusive = %d, want one page", n)
	}
	f.DecRef(a, 4*pageSize)
	f.Settle()
	if n := f.InUse(); n != pageSize {
		t.Errorf("InUse = %d, want one page", n)
	}
	if f.Usage() != 0 {
		t.Errorf("Usage = %d after everything touched was freed", f.Usage())
	}
	b, _ := f.Alloc(pageSize)
	if b != a {
		t.Errorf("freed offset %#x was not reused: %#x", a, b)
	}
	if f.Slice(b, 5)[0] != 0 {
		t.Error("reused page is not zero")
	}
}

func TestGrowth(t *testing.T) {
	f := newFile(t)
	up, _ := f.AllocGrow(pageSize, Up)
	down, _ := f.AllocGrow(pageSize, Down)
	for i := uint64(1); i < 10; i++ {
		if !f.AllocAt(up+i*pageSize, pageSize) {
			t.Fatalf("can't grow up by page %d", i)
		}
		if !f.AllocAt(down-i*pageSize, pageSize) {
			t.Fatalf("can't grow down by page %d", i)
		}
	}
	if f.AllocAt(up, pageSize) {
		t.Error("AllocAt took a page in use")
	}
}

func TestHugeReservation(t *testing.T) {
	f := newFile(t)
	off, err := f.Alloc(20 << 40)
	if err != nil {
		t.Fatal(err)
	}
	f.Slice(off+10<<40, 1)[0] = 1
	if u := f.Usage(); u > 1<<20 {
		t.Errorf("20 TiB of offsets use %d bytes", u)
	}
	if r := f.Resident(off, 20<<40); r != pageSize {
		t.Errorf("Resident = %d, want one page", r)
	}
	f.DecRef(off, 20<<40)
	f.Settle()
}

func TestCopyKeepsHoles(t *testing.T) {
	f := newFile(t)
	src, _ := f.Alloc(64 * pageSize)
	dst, _ := f.Alloc(64 * pageSize)
	copy(f.Slice(src+5*pageSize, pageSize), bytes.Repeat([]byte{7}, pageSize))
	if err := f.Copy(dst, src, 64*pageSize); err != nil {
		t.Fatal(err)
	}
	if r := f.Resident(dst, 64*pageSize); r != pageSize {
		t.Errorf("copy holds %d bytes, want one page", r)
	}
	if f.Slice(dst+5*pageSize, 1)[0] != 7 {
		t.Error("the data page was not copied")
	}
}

// TestRandom compares the reference counts with a plain array.
func TestRandom(t *testing.T) {
	f := newFile(t)
	rng := rand.New(rand.NewSource(1))
	refs := map[uint64]int{}
	var pages []uint64
	for i := 0; i < 4000; i++ {
		switch rng.Intn(3) {
		case 0:
			n := uint64(rng.Intn(8) + 1)
			off, err := f.AllocGrow(n*pageSize, Growth(rng.Intn(3)))
			if err != nil {
				t.Fatal(err)
			}
			for p := off; p < off+n*pageSize; p += pageSize {
				if refs[p] != 0 {
					t.Fatalf("page %#x handed out twice", p)
				}
				refs[p] = 1
				pages = append(pages, p)
			}
		case 1:
			if len(pages) > 0 {
				p := pages[rng.Intn(len(pages))]
				if refs[p] > 0 {
					f.IncRef(p, pageSize)
					refs[p]++
				}
			}
		case 2:
			if len(pages) > 0 {
				p := pages[rng.Intn(len(pages))]
				if refs[p] > 0 {
					f.DecRef(p, pageSize)
					refs[p]--
				}
			}
		}
	}
	for p, n := range refs {
		if got, _ := f.Refs(p, pageSize); int(got) != n {
			t.Fatalf("page %#x has %d references, want %d", p, got, n)
		}
	}
}

func BenchmarkAllocFree(b *testing.B) {
	f := newFile(b)
	b.ReportAllocs()
	for b.Loop() {
		off, _ := f.Alloc(pageSize)
		f.DecRef(off, pageSize)
	}
}
