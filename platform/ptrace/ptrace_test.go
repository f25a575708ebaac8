package ptrace

import (
	"os"
	"testing"

	"garrison/platform/platformtest"
)

func newPlatform(t testing.TB) *Platform {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestConformance(t *testing.T) { platformtest.Run(t, newPlatform(t)) }

func BenchmarkPlatform(b *testing.B) { platformtest.Benchmark(b, newPlatform(b)) }

func TestNoLeaks(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	p := newPlatform(t)
	before := count()
	for range 1000 {
		as, err := p.NewAddressSpace()
		if err != nil {
			t.Fatal(err)
		}
		as.Release()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
