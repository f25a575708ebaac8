package mm

import (
	"sync"

	"garrison/platform"
	"garrison/sentry/pagefile"
)

// Shared is memory that several address spaces map: shared anonymous mappings
// and System V segments. Its pages live until the last mapping and Hold end.
type Shared struct {
	pf       *pagefile.File
	off, len uint64

	mu   sync.Mutex
	maps int // mappings and holds
}

// NewShared makes length bytes of zeroes, which nobody maps or holds yet.
func NewShared(pf *pagefile.File, length uint64) (*Shared, error) {
	off, err := pf.Alloc(length)
	if err != nil {
		return nil, err
	}
	return &Shared{pf: pf, off: off, len: length}, nil
}

// Len is the size in bytes.
func (s *Shared) Len() uint64 { return s.len }

// Hold keeps the memory without a mapping, until Drop.
func (s *Shared) Hold() { s.AddMapping(nil, 0, 0) }

// Drop takes a Hold back.
func (s *Shared) Drop() { s.RemoveMapping(nil, 0, 0) }

// Translate implements Mappable.
func (s *Shared) Translate(off, length uint64, write bool) ([]Piece, error) {
	if off >= s.len {
		return nil, nil
	}
	return []Piece{{Off: off, Len: min(length, s.len-off), FD: s.pf.FD(), FDOff: int64(s.off + off),
		Max: platform.Read | platform.Write | platform.Exec}}, nil
}

// AddMapping implements Mappable. Pages never go away while they are mapped,
// so nobody needs to be told.
func (s *Shared) AddMapping(Invalidator, uint64, uint64) {
	s.mu.Lock()
	s.maps++
	s.mu.Unlock()
}

// RemoveMapping implements Mappable.
func (s *Shared) RemoveMapping(Invalidator, uint64, uint64) {
	s.mu.Lock()
	s.maps--
	last := s.maps == 0
	s.mu.Unlock()
	if last {
		s.pf.DecRef(s.off, s.len)
	}
}

// Resident is how many bytes hold memory.
func (s *Shared) Resident() uint64 { return s.pf.Resident(s.off, s.len) }

// punch makes a range zero (MADV_REMOVE).
func (s *Shared) punch(off, length uint64) {
	if off < s.len {
		s.pf.Punch(s.off+off, min(length, s.len-off))
	}
}
