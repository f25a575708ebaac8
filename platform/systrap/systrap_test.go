package systrap

import (
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
