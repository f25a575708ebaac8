// Package hostmem does atomic operations on bytes of shared mappings.
//
// It knows nothing of whose memory it is. It allocates nothing.
//
// It has no locks.
package hostmem

import (
	"sync/atomic"
	"unsafe"
)

// word is sound because b has at least 4 bytes, and callers pass only aligned
// pieces of live mappings (checked here: a misaligned one is our own bug).
func word(b []byte) *uint32 {
	p := unsafe.Pointer(&b[:4][0])
	if uintptr(p)&3 != 0 {
		panic("hostmem: misaligned atomic access")
	}
	return (*uint32)(p)
}

// Load32 loads the word at the start of b.
func Load32(b []byte) uint32 { return atomic.LoadUint32(word(b)) }

// CompareAndSwap32 swaps the word at the start of b.
func CompareAndSwap32(b []byte, old, new uint32) bool {
	return atomic.CompareAndSwapUint32(word(b), old, new)
}
