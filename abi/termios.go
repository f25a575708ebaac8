package abi

import "encoding/binary"

// Sizes of the terminal structures (asm-generic/termbits.h, termios.h).
const (
	SizeofTermios  = 36
	SizeofTermios2 = 44
	SizeofTermio   = 18
	SizeofWinsize  = 8
)

// Output delays that the C library hides by default (asm-generic/termbits.h).
const (
	TABDLY = 0o014000
	XTABS  = 0o014000
)

// A Termios is the kernel's struct termios2: struct termios and two speeds.
type Termios struct {
	Iflag, Oflag, Cflag, Lflag uint32
	Line                       uint8
	CC                         [NCCS]uint8
	Ispeed, Ospeed             uint32
}

// MarshalTo writes t to b: all of struct termios2 if there is room, else
// struct termios.
func (t *Termios) MarshalTo(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, t.Iflag)
	le.PutUint32(b[4:], t.Oflag)
	le.PutUint32(b[8:], t.Cflag)
	le.PutUint32(b[12:], t.Lflag)
	b[16] = t.Line
	copy(b[17:SizeofTermios], t.CC[:])
	if len(b) >= SizeofTermios2 {
		le.PutUint32(b[36:], t.Ispeed)
		le.PutUint32(b[40:], t.Ospeed)
	}
}

// UnmarshalFrom reads t from b; the speeds only if b has them.
func (t *Termios) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	t.Iflag, t.Oflag, t.Cflag, t.Lflag = le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])
	t.Line = b[16]
	copy(t.CC[:], b[17:SizeofTermios])
	if len(b) >= SizeofTermios2 {
		t.Ispeed, t.Ospeed = le.Uint32(b[36:]), le.Uint32(b[40:])
	}
}

// A Winsize is struct winsize.
type Winsize struct{ Rows, Cols, Xpixel, Ypixel uint16 }

// MarshalTo writes w to b.
func (w *Winsize) MarshalTo(b []byte) {
	le := binary.LittleEndian
	le.PutUint16(b, w.Rows)
	le.PutUint16(b[2:], w.Cols)
	le.PutUint16(b[4:], w.Xpixel)
	le.PutUint16(b[6:], w.Ypixel)
}

// UnmarshalFrom reads w from b.
func (w *Winsize) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	w.Rows, w.Cols, w.Xpixel, w.Ypixel = le.Uint16(b), le.Uint16(b[2:]), le.Uint16(b[4:]), le.Uint16(b[6:])
}
