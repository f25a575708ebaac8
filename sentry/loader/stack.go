package loader

import (
	"crypto/rand"
	"encoding/binary"
	mrand "math/rand/v2"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vdso"
)

const (
	sigreturnOffset = vdso.SigreturnOffset
	stackRoom       = 128 << 10 // mapped below the strings at once (fs/exec.c, setup_arg_pages)
)

// A stack is the initial stack while it is built. From its top down: eight
// bytes of zero, the program's path, the environment, the arguments, then
// random padding, the platform's name and the random bytes, the auxiliary
// vector, the pointers to the strings, and argc.
type stack struct {
	top     uint64
	strings []byte // ends at top
	argAt   []uint32
	envAt   []uint32
	envOff  uint64 // of the environment within strings
	fnOff   uint64
	random  bool
}

type auxEntry struct{ tag, val uint64 }

// newStack lays out the strings, and maps the stack.
func newStack(m *mm.MM, argv []string, a *Args, exec bool) (*stack, error) {
	n := len(a.Path) + 1 + 8
	for _, list := range [2][]string{argv, a.Envv} {
		for _, s := range list {
			n += len(s) + 1
		}
	}
	s := &stack{random: !a.NoRandom, strings: make([]byte, 0, n), argAt: make([]uint32, len(argv)), envAt: make([]uint32, len(a.Envv))}
	add := func(at []uint32, list []string) {
		for i, x := range list {
			at[i] = uint32(len(s.strings))
			s.strings = append(append(s.strings, x...), 0)
		}
	}
	add(s.argAt, argv)
	s.envOff = uint64(len(s.strings))
	add(s.envAt, a.Envv)
	s.fnOff = uint64(len(s.strings))
	s.strings = append(append(s.strings, a.Path...), 0)
	s.strings = append(s.strings, make([]byte, 8)...)

	s.top = m.Layout().Max &^ pageMask
	if s.random {
		s.top = uint64(m.StackBase())
	}
	// Pointers, vectors and padding fit into the room below.
	used := pageUp(uint64(n)) + pageUp(uint64(len(argv)+len(a.Envv)+64)*8) + 16384
	size := used
	if limit := max(a.StackLimit, used); limit-used >= stackRoom {
		size += stackRoom
	}
	prot := uint32(abi.PROT_READ | abi.PROT_WRITE)
	if exec {
		prot |= abi.PROT_EXEC
	}
	_, err := m.Mmap(mm.MmapOpts{Addr: usermem.Addr(s.top - size), Len: size, Prot: prot,
		Flags: abi.MAP_PRIVATE | abi.MAP_ANONYMOUS | abi.MAP_FIXED, GrowsDown: true, Name: "[stack]"})
	return s, err
}

// finish writes everything and returns the stack pointer.
func (s *stack) finish(m *mm.MM, mi *mm.Info, aux []auxEntry) (usermem.Addr, error) {
	le := binary.LittleEndian
	strs := s.top - uint64(len(s.strings))
	p := strs
	if s.random {
		p -= mrand.Uint64N(8192)
	}
	p &^= 15
	const plat = "x86_64\x00"
	p -= uint64(len(plat))
	platAt := p
	p -= 16
	randAt := p
	aux = append(aux,
		auxEntry{abi.AT_RANDOM, randAt},
		auxEntry{abi.AT_EXECFN, strs + s.fnOff},
		auxEntry{abi.AT_PLATFORM, platAt},
		auxEntry{abi.AT_NULL, 0})

	words := 1 + len(s.argAt) + 1 + len(s.envAt) + 1 + 2*len(aux)
	sp := (p - uint64(words)*8) &^ 15

	buf := make([]byte, s.top-sp)
	copy(buf[strs-sp:], s.strings)
	copy(buf[platAt-sp:], plat)
	rand.Read(buf[randAt-sp : randAt-sp+16])
	at := 0
	put := func(v uint64) { le.PutUint64(buf[at:], v); at += 8 }
	put(uint64(len(s.argAt)))
	for _, o := range s.argAt {
		put(strs + uint64(o))
	}
	put(0)
	for _, o := range s.envAt {
		put(strs + uint64(o))
	}
	put(0)
	auxAt := at
	for _, e := range aux {
		put(e.tag)
		put(e.val)
	}
	if _, err := m.CopyOut(usermem.Addr(sp), buf); err != nil {
		return 0, err
	}
	mi.Auxv = append([]byte(nil), buf[auxAt:at]...)
	mi.ArgStart, mi.ArgEnd = strs, strs+s.envOff
	mi.EnvStart, mi.EnvEnd = strs+s.envOff, strs+s.fnOff
	mi.StartStack = sp
	return usermem.Addr(sp), nil
}
