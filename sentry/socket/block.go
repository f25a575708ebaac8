package socket

import "sync"

// A Block is a piece of queued data with a pooled buffer.
type Block struct {
	Next     *Block
	buf      []byte
	off, end int
	class    int8
}

// classes are the buffer sizes that are pooled. The largest bounds how much one
// step of a stream write copies.
var classes = [...]int{256, 2048, 16384, 65536}

var pools [len(classes)]sync.Pool

// NewBlock returns an empty block with room for n bytes at least.
func NewBlock(n int) *Block {
	for c, size := range classes {
		if n <= size {
			if b, _ := pools[c].Get().(*Block); b != nil {
				return b
			}
			return &Block{buf: make([]byte, size), class: int8(c)}
		}
	}
	return &Block{buf: make([]byte, n), class: -1}
}

// MaxBlock is the largest pooled size.
const MaxBlock = 65536

// Free gives the block back.
func (b *Block) Free() {
	b.Next, b.off, b.end = nil, 0, 0
	if b.class >= 0 {
		pools[b.class].Put(b)
	}
}

// Len is the number of bytes in the block.
func (b *Block) Len() int { return b.end - b.off }

// Data are the bytes in the block.
func (b *Block) Data() []byte { return b.buf[b.off:b.end] }

// Room is the space behind the data, to be filled and then taken by Extend.
func (b *Block) Room() []byte { return b.buf[b.end:] }

// Extend says that n bytes of Room were filled.
func (b *Block) Extend(n int) { b.end += n }

// Consume drops n bytes from the front.
func (b *Block) Consume(n int) { b.off += n }
