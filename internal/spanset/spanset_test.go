package spanset

import (
	"math/rand"
	"testing"
)

// TestRandom compares a set with an array: the value of each number.
func TestRandom(t *testing.T) {
	const n = 200
	var s Set[int]
	s.Init(nil, func(a int, _ uint64, b int) bool { return a == b })
	var want [n]int
	rng := rand.New(rand.NewSource(3))
	for range 5000 {
		lo := uint64(rng.Intn(n))
		hi := lo + 1 + uint64(rng.Intn(n-int(lo)))
		v := rng.Intn(4)
		sum := uint64(0)
		for _, r := range s.Remove(nil, lo, hi) {
			sum += r.Len()
		}
		had := uint64(0)
		for i := lo; i < hi; i++ {
			if want[i] != 0 {
				had++
			}
			want[i] = v
		}
		if sum != had {
			t.Fatalf("Remove(%d, %d) took %d numbers out, want %d", lo, hi, sum, had)
		}
		if v != 0 {
			s.InsertMerge(Span[int]{lo, hi, v})
		}
		runs := 0
		for i := range want {
			r, ok := s.Find(uint64(i))
			if ok != (want[i] != 0) || ok && r.Val != want[i] {
				t.Fatalf("Find(%d) = %v, %v; want %d", i, r, ok, want[i])
			}
			if want[i] != 0 && (i == 0 || want[i-1] != want[i]) {
				runs++
			}
		}
		if s.Count() != runs {
			t.Fatalf("%d spans, want %d", s.Count(), runs)
		}
		x := uint64(rng.Intn(n))
		next, ok := s.Next(x)
		if ok && (next.End <= x || s.Overlaps(x, max(next.Start, x))) {
			t.Fatalf("Next(%d) = %v", x, next)
		}
		if prev, ok := s.Prev(x); ok && prev.Start >= x {
			t.Fatalf("Prev(%d) = %v", x, prev)
		}
	}
}
