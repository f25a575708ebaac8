// Package usermem is how system calls and files reach guest memory: addresses,
// the Memory interface that a memory manager implements, and Buffer, a cursor
// over the pieces of an iovec.
//
// It does not know VMAs or pages, and does not hold guest data: what it copies
// in is the caller's private copy. Guests change their memory at any time, so
// everything is copied once and checked afterwards.
//
// It has no locks. Implementations of Memory may take the memory manager's
// locks, so nothing may be held that the memory manager takes.
package usermem

import (
	"encoding/binary"

	"garrison/abi"
)

// Addr is a guest virtual address.
type Addr uint64

// The page size of amd64, in bytes.
const (
	PageSize  = 4096
	PageShift = 12
	PageMask  = PageSize - 1
)

// RoundDown rounds a down to a page.
func (a Addr) RoundDown() Addr { return a &^ PageMask }

// RoundUp rounds a up to a page; ok is false on overflow.
func (a Addr) RoundUp() (r Addr, ok bool) { r = (a + PageMask) &^ PageMask; return r, r >= a }

// PageAligned reports whether a is a multiple of the page size.
func (a Addr) PageAligned() bool { return a&PageMask == 0 }

// Range is a piece of guest memory, as struct iovec (uapi/linux/uio.h).
type Range struct {
	Addr Addr
	Len  uint64
}

// Memory is a guest's memory. Each copying method returns how many bytes it
// copied before it met memory that the guest may not access, with EFAULT then.
type Memory interface {
	CopyIn(addr Addr, dst []byte) (int, error)
	CopyOut(addr Addr, src []byte) (int, error)
	ZeroOut(addr Addr, n int) (int, error)
	// CopyInString reads a NUL-terminated string of at most max bytes, the NUL
	// included: ENAMETOOLONG when there is none, EFAULT when memory ends first.
	CopyInString(addr Addr, max int) (string, error)
	// Access calls fn with host-addressable pieces of [addr, addr+n), in order,
	// until n bytes are done, fn returns an error, or fn takes less than it was
	// given. Write says that fn fills the pieces. The pieces are valid only
	// during the call, fn must not sleep for long, and must not use this Memory.
	Access(addr Addr, n int, write bool, fn func(piece []byte) (int, error)) (int, error)
}

// A Buffer is a cursor over guest memory (an iovec) or over bytes of the
// Sentry: the destination of a read, or the source of a write.
type Buffer struct {
	mem    Memory
	ranges []Range
	bytes  []byte
	n      int // bytes left
	one    [1]Range
}

// Init makes b a cursor over n bytes at addr. n must fit an int.
func (b *Buffer) Init(m Memory, addr Addr, n int) {
	b.one[0] = Range{addr, uint64(n)}
	b.mem, b.ranges, b.bytes, b.n = m, b.one[:1], nil, n
}

// InitRanges makes b a cursor over an iovec; b owns r from now on. The sum of
// the lengths must fit an int.
func (b *Buffer) InitRanges(m Memory, r []Range) {
	b.mem, b.ranges, b.bytes, b.n = m, r, nil, 0
	for _, x := range r {
		b.n += int(x.Len)
	}
}

// NewBuffer returns a cursor over n bytes of guest memory.
func NewBuffer(m Memory, addr Addr, n int) *Buffer {
	b := &Buffer{}
	b.Init(m, addr, n)
	return b
}

// Bytes returns a cursor over p, for files read or written by the Sentry itself.
func Bytes(p []byte) *Buffer { return &Buffer{bytes: p, n: len(p)} }

// Len is the number of bytes left.
func (b *Buffer) Len() int { return b.n }

// Limit cuts the buffer to its first n bytes from here, if it has more.
func (b *Buffer) Limit(n int) {
	if n >= b.n {
		return
	}
	b.n = n
	if b.mem == nil {
		b.bytes = b.bytes[:n]
	}
}

// Write copies p into the buffer's memory and moves on. It returns less than
// len(p) with EFAULT at bad memory, and with nil when the buffer is full.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.mem == nil {
		n := copy(b.bytes, p)
		b.bytes, b.n = b.bytes[n:], b.n-n
		return n, nil
	}
	return b.walk(len(p), func(addr Addr, at, n int) (int, error) { return b.mem.CopyOut(addr, p[at:at+n]) })
}

// Read copies from the buffer's memory into p and moves on, like Write. It
// returns 0, nil at the end: not io.EOF.
func (b *Buffer) Read(p []byte) (int, error) {
	if b.mem == nil {
		n := copy(p, b.bytes)
		b.bytes, b.n = b.bytes[n:], b.n-n
		return n, nil
	}
	return b.walk(len(p), func(addr Addr, at, n int) (int, error) { return b.mem.CopyIn(addr, p[at:at+n]) })
}

// Zero clears up to n bytes and moves on.
func (b *Buffer) Zero(n int) (int, error) {
	if b.mem == nil {
		n = min(n, len(b.bytes))
		clear(b.bytes[:n])
		b.bytes, b.n = b.bytes[n:], b.n-n
		return n, nil
	}
	return b.walk(n, func(addr Addr, _, n int) (int, error) { return b.mem.ZeroOut(addr, n) })
}

// Access hands pieces of the memory itself to fn, up to n bytes in all, and
// moves on by what fn says it used; see Memory.Access for what fn may do.
// It ends early, without error, when fn uses less than it was given.
func (b *Buffer) Access(n int, write bool, fn func(piece []byte) (int, error)) (int, error) {
	if b.mem == nil {
		n = min(n, len(b.bytes))
		if n == 0 {
			return 0, nil
		}
		done, err := fn(b.bytes[:n])
		b.bytes, b.n = b.bytes[done:], b.n-done
		return done, err
	}
	return b.walk(n, func(addr Addr, _, n int) (int, error) { return b.mem.Access(addr, n, write, fn) })
}

// walk calls op on the ranges in turn until want bytes are done.
func (b *Buffer) walk(want int, op func(addr Addr, at, n int) (int, error)) (int, error) {
	done := 0
	want = min(want, b.n)
	for done < want {
		r := &b.ranges[0]
		if r.Len == 0 {
			b.ranges = b.ranges[1:]
			continue
		}
		n := min(want-done, int(r.Len))
		got, err := op(r.Addr, done, n)
		r.Addr += Addr(got)
		r.Len -= uint64(got)
		done += got
		b.n -= got
		if err != nil || got < n {
			return done, err
		}
	}
	return done, nil
}

// CopyInUint32 reads a little-endian word at addr.
func CopyInUint32(m Memory, addr Addr) (uint32, error) {
	var b [4]byte
	if _, err := m.CopyIn(addr, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

// CopyOutUint32 writes a little-endian word at addr.
func CopyOutUint32(m Memory, addr Addr, v uint32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	_, err := m.CopyOut(addr, b[:])
	return err
}

// CopyInUint64 reads a little-endian doubleword at addr.
func CopyInUint64(m Memory, addr Addr) (uint64, error) {
	var b [8]byte
	if _, err := m.CopyIn(addr, b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// CopyOutUint64 writes a little-endian doubleword at addr.
func CopyOutUint64(m Memory, addr Addr, v uint64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	_, err := m.CopyOut(addr, b[:])
	return err
}

// CopyInRanges reads an array of n struct iovec at addr: EINVAL for more than
// IOV_MAX (1024) or a total over SSIZE_MAX; the total is cut to MAX_RW_COUNT.
func CopyInRanges(m Memory, addr Addr, n int) ([]Range, error) {
	if n < 0 || n > 1024 {
		return nil, abi.EINVAL
	}
	raw := make([]byte, 16*n)
	if _, err := m.CopyIn(addr, raw); err != nil {
		return nil, err
	}
	out := make([]Range, n)
	left := uint64(0x7ffff000) // MAX_RW_COUNT (include/linux/fs.h)
	for i := range out {
		l := binary.LittleEndian.Uint64(raw[16*i+8:])
		if int64(l) < 0 {
			return nil, abi.EINVAL
		}
		out[i] = Range{Addr(binary.LittleEndian.Uint64(raw[16*i:])), min(l, left)}
		left -= out[i].Len
	}
	return out, nil
}
