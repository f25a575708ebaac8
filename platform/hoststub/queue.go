package hoststub

import (
	"garrison/abi"
	"garrison/internal/spanset"
	"garrison/platform"

	"golang.org/x/sys/unix"
)

// An Op is one system call to be made by a stub: the number and six arguments.
type Op [7]uint64

// OpSize is an Op's length in memory.
const OpSize = 7 * 8

// A Queue holds the mapping calls that a space is to make, merged, and knows
// what is mapped when they are made.
type Queue struct {
	Ops    []Op // not yet made
	layout platform.Layout
	mapped spanset.Set[struct{}]
}

// Init makes q the queue of an empty space.
func (q *Queue) Init(l platform.Layout) {
	q.layout = l
	q.mapped.Init(nil, func(struct{}, uint64, struct{}) bool { return true })
}

// Clear drops all.
func (q *Queue) Clear() {
	q.Ops = nil
	q.mapped.Clear()
}

// CheckRange refuses ranges that are not the guest's.
func (q *Queue) CheckRange(addr, length uint64) error {
	if (addr|length)&(PageSize-1) != 0 || addr < q.layout.Min || addr+length < addr || addr+length > q.layout.Max {
		return abi.EINVAL
	}
	return nil
}

// CheckMapping refuses what can't be mapped.
func (q *Queue) CheckMapping(m *platform.Mapping) error {
	if err := q.CheckRange(m.Addr, m.Len); err != nil {
		return err
	}
	if m.Len == 0 || m.Prot == 0 || m.Prot&^(platform.Read|platform.Write|platform.Exec) != 0 || m.Off < 0 || m.Off&(PageSize-1) != 0 || m.FD < 0 {
		return abi.EINVAL
	}
	return nil
}

// Map queues a mapping that CheckMapping let pass.
func (q *Queue) Map(m *platform.Mapping) {
	flags := uint64(abi.MAP_SHARED | abi.MAP_FIXED | abi.MAP_NORESERVE)
	if m.Populate {
		flags |= abi.MAP_POPULATE
	}
	s := spanset.Span[struct{}]{Start: m.Addr, End: m.Addr + m.Len}
	if q.mapped.Overlaps(s.Start, s.End) {
		var buf [8]spanset.Span[struct{}]
		q.mapped.Remove(buf[:0], s.Start, s.End)
	}
	q.mapped.InsertMerge(s)
	q.Add(Op{unix.SYS_MMAP, m.Addr, m.Len, uint64(m.Prot), flags, uint64(m.FD), uint64(m.Off)})
}

// Unmap queues the unmapping of a range that CheckRange let pass.
func (q *Queue) Unmap(addr, length uint64) {
	var buf [8]spanset.Span[struct{}]
	// One call for all of it, from the first byte that is mapped to the last.
	was := q.mapped.Remove(buf[:0], addr, addr+length)
	if len(was) == 0 {
		return
	}
	lo, hi := was[0].Start, was[len(was)-1].End
	q.Add(Op{unix.SYS_MUNMAP, lo, hi - lo})
}

// Protect queues a change of rights in a range that CheckRange let pass.
// mprotect(2) stops at the first hole: it is one call for each piece.
func (q *Queue) Protect(addr, length uint64, prot platform.Prot) {
	var buf [8]spanset.Span[struct{}]
	for _, s := range q.mapped.Collect(buf[:0], addr, addr+length) {
		q.Add(Op{unix.SYS_MPROTECT, s.Start, s.End - s.Start, uint64(prot)})
	}
}

// Add queues a call.
func (q *Queue) Add(o Op) {
	n := len(q.Ops)
	switch {
	case n > 0 && q.Ops[n-1].absorb(&o):
	case n > 0 && o.replaces(&q.Ops[n-1]):
		q.Ops[n-1] = o
	default:
		q.Ops = append(q.Ops, o)
	}
}

// absorb extends the call o by next if one call can do both.
func (o *Op) absorb(next *Op) bool {
	if o[0] != next[0] || o[1]+o[2] != next[1] {
		return false
	}
	switch o[0] {
	case unix.SYS_MMAP:
		if o[3] != next[3] || o[4] != next[4] || o[5] != next[5] || o[6]+o[2] != next[6] {
			return false
		}
	case unix.SYS_MPROTECT:
		if o[3] != next[3] {
			return false
		}
	}
	o[2] += next[2]
	return true
}

// replaces reports whether the call old is in vain if o comes after it.
func (o *Op) replaces(old *Op) bool {
	if o[0] == unix.SYS_MPROTECT && old[0] != unix.SYS_MPROTECT {
		return false
	}
	return o[1] <= old[1] && old[1]+old[2] <= o[1]+o[2]
}
