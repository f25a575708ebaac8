// Package spanset is an ordered set of disjoint half-open ranges of numbers,
// each with a value: VMAs by address, page-file runs by offset.
//
// It does not know what a value means: splitting and merging call the Cut and
// Join functions of the set's owner.
//
// It has no locks; the owner's lock covers a set.
package spanset

import "github.com/google/btree"

// A Span is one range and its value.
type Span[V any] struct {
	Start, End uint64
	Val        V
}

// Len is the length of the range.
func (s Span[V]) Len() uint64 { return s.End - s.Start }

// A Set is an ordered set of disjoint spans.
type Set[V any] struct {
	// Cut returns the value of the part of a span that begins delta after the
	// span's start. nil means that values do not depend on the position.
	Cut func(v V, delta uint64) V
	// Join reports whether the span that ends where the next begins can be one
	// with it. nil means never.
	Join func(a V, alen uint64, b V) bool

	t *btree.BTreeG[Span[V]]
}

// Init makes s empty and ready.
func (s *Set[V]) Init(cut func(V, uint64) V, join func(V, uint64, V) bool) {
	s.Cut, s.Join = cut, join
	// Disjoint spans are ordered by "ends before the other begins"; a probe
	// then equals the span that contains it, so that lookups are plain Gets
	// with no closure and no allocation.
	s.t = btree.NewG(16, func(a, b Span[V]) bool { return a.End <= b.Start })
}

// Count is the number of spans.
func (s *Set[V]) Count() int { return s.t.Len() }

// Clear empties the set.
func (s *Set[V]) Clear() { s.t.Clear(false) }

// Find returns the span that contains x.
func (s *Set[V]) Find(x uint64) (Span[V], bool) {
	return s.t.Get(Span[V]{Start: x, End: x + 1})
}

// Next returns the first span that ends after x: the one that contains x or
// else the first behind it.
func (s *Set[V]) Next(x uint64) (r Span[V], ok bool) {
	if r, ok = s.Find(x); ok {
		return
	}
	s.t.AscendGreaterOrEqual(Span[V]{Start: x, End: x + 1}, func(i Span[V]) bool {
		r, ok = i, true
		return false
	})
	return
}

// Prev returns the last span that starts before x.
func (s *Set[V]) Prev(x uint64) (r Span[V], ok bool) {
	if x == 0 {
		return
	}
	if r, ok = s.Find(x - 1); ok {
		return
	}
	s.t.DescendLessOrEqual(Span[V]{Start: x - 1, End: x}, func(i Span[V]) bool {
		r, ok = i, true
		return false
	})
	return
}

// Ascend calls fn for the spans that meet [lo, hi), in order, until it returns
// false. The set must not be changed meanwhile.
func (s *Set[V]) Ascend(lo, hi uint64, fn func(Span[V]) bool) {
	if lo >= hi {
		return
	}
	s.t.AscendGreaterOrEqual(Span[V]{Start: lo, End: lo + 1}, func(i Span[V]) bool {
		return i.Start < hi && fn(i)
	})
}

// Descend calls fn for the spans that start before x, highest first.
func (s *Set[V]) Descend(x uint64, fn func(Span[V]) bool) {
	if x == 0 {
		return
	}
	s.t.DescendLessOrEqual(Span[V]{Start: x - 1, End: x}, fn)
}

// Collect appends the spans that meet [lo, hi) to buf, cut to that range.
func (s *Set[V]) Collect(buf []Span[V], lo, hi uint64) []Span[V] {
	s.Ascend(lo, hi, func(i Span[V]) bool {
		buf = append(buf, s.clip(i, lo, hi))
		return true
	})
	return buf
}

func (s *Set[V]) clip(i Span[V], lo, hi uint64) Span[V] {
	if i.Start < lo {
		if s.Cut != nil {
			i.Val = s.Cut(i.Val, lo-i.Start)
		}
		i.Start = lo
	}
	i.End = min(i.End, hi)
	return i
}

// Overlaps reports whether any span meets [lo, hi).
func (s *Set[V]) Overlaps(lo, hi uint64) bool {
	if lo >= hi {
		return false
	}
	r, ok := s.Next(lo)
	return ok && r.Start < hi
}

// Insert adds a span, which must not meet another one.
func (s *Set[V]) Insert(i Span[V]) {
	if i.Start >= i.End {
		panic("spanset: empty span")
	}
	if old, replaced := s.t.ReplaceOrInsert(i); replaced {
		s.t.ReplaceOrInsert(old)
		panic("spanset: spans overlap")
	}
}

// InsertMerge adds a span and joins it with its neighbours where Join allows
// it. It returns the span that now holds it.
func (s *Set[V]) InsertMerge(i Span[V]) Span[V] {
	if s.Join != nil {
		if i.Start > 0 {
			if p, ok := s.Find(i.Start - 1); ok && p.End == i.Start && s.Join(p.Val, p.Len(), i.Val) {
				s.t.Delete(p)
				i.Start, i.Val = p.Start, p.Val
			}
		}
		if n, ok := s.Find(i.End); ok && n.Start == i.End && s.Join(i.Val, i.Len(), n.Val) {
			s.t.Delete(n)
			i.End = n.End
		}
	}
	s.Insert(i)
	return i
}

// Delete removes a span as Find returned it.
func (s *Set[V]) Delete(i Span[V]) { s.t.Delete(i) }

// SplitAt makes x a border: the span that contains x inside becomes two.
func (s *Set[V]) SplitAt(x uint64) {
	i, ok := s.Find(x)
	if !ok || i.Start == x {
		return
	}
	s.t.Delete(i)
	r := i
	if s.Cut != nil {
		r.Val = s.Cut(i.Val, x-i.Start)
	}
	r.Start, i.End = x, x
	s.t.ReplaceOrInsert(i)
	s.t.ReplaceOrInsert(r)
}

// Remove takes [lo, hi) out of the set, splitting spans at the borders, and
// appends what was there to buf.
func (s *Set[V]) Remove(buf []Span[V], lo, hi uint64) []Span[V] {
	if lo >= hi {
		return buf
	}
	from := len(buf)
	s.SplitAt(lo)
	s.SplitAt(hi)
	buf = s.Collect(buf, lo, hi)
	for _, i := range buf[from:] {
		s.t.Delete(i)
	}
	return buf
}
