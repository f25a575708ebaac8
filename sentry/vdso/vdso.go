// Package vdso is the shared object that the kernel maps into each program
// (vdso(7)): the clock calls without a system call, and a signal restorer with
// unwind information.
//
// It does not keep time: its code calls the host's own vDSO, whose addresses
// stand in the [vvar] page before it. The image is built by src/build.sh from the
// C and assembly sources there, and checked in.
//
// It has no locks.
package vdso

import (
	_ "embed"
	"encoding/binary"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
)

//go:generate src/build.sh vdso.so

//go:embed vdso.so
var image []byte

// SigreturnOffset is where __kernel_rt_sigreturn lies in the image.
const SigreturnOffset = 0x74b

// Image returns the ELF image; do not change it.
func Image() []byte { return image }

// A VDSO is the two parts in the page file, ready to be mapped anywhere. It
// lives as long as the sandbox.
type VDSO struct {
	vvar, code object
	len        uint64
	getCPU     []byte // the word of the vvar page that leads to the host's getcpu
}

// object is a Mappable over pages that never go away.
type object struct {
	fd       int
	off, len uint64
	max      platform.Prot
}

// New writes the image, and the page with the host's addresses, to the page file.
func New(pf *pagefile.File, l platform.Layout) (*VDSO, error) {
	n := (uint64(len(image)) + usermem.PageMask) &^ usermem.PageMask
	off, err := pf.Alloc(usermem.PageSize + n)
	if err != nil {
		return nil, err
	}
	for i, a := range []uint64{l.ClockGettime, l.Gettimeofday, l.Time, l.GetCPU, l.ClockGetres} {
		binary.LittleEndian.PutUint64(pf.Slice(off+8*uint64(i), 8), a)
	}
	at := off + usermem.PageSize
	for img := image; len(img) > 0; {
		c := copy(pf.Slice(at, uint64(len(img))), img)
		img, at = img[c:], at+uint64(c)
	}
	return &VDSO{
		vvar: object{pf.FD(), off, usermem.PageSize, platform.Read},
		code: object{pf.FD(), off + usermem.PageSize, n, platform.Read | platform.Exec},
		len:  n,

		getCPU: pf.Slice(off+8*3, 8),
	}, nil
}

// GetCPUBySyscall makes getcpu ask the kernel from now on: the host's answer
// knows nothing of affinities that guests set.
func (v *VDSO) GetCPUBySyscall() { binary.LittleEndian.PutUint64(v.getCPU, 0) }

// Len is how much room Map needs, in bytes.
func (v *VDSO) Len() uint64 { return usermem.PageSize + v.len }

// Map maps both parts and returns the address of the image (AT_SYSINFO_EHDR).
func (v *VDSO) Map(m *mm.MM) (usermem.Addr, error) {
	// One reservation finds room for both.
	at, err := m.Mmap(mm.MmapOpts{Len: v.Len(), Flags: abi.MAP_PRIVATE | abi.MAP_ANONYMOUS})
	if err != nil {
		return 0, err
	}
	_, err = m.Mmap(mm.MmapOpts{Addr: at, Len: usermem.PageSize, Prot: abi.PROT_READ, MaxProt: abi.PROT_READ,
		Flags: abi.MAP_PRIVATE | abi.MAP_FIXED, Mappable: &v.vvar, Name: "[vvar]", Special: true})
	if err != nil {
		return 0, err
	}
	return m.Mmap(mm.MmapOpts{Addr: at + usermem.PageSize, Len: v.len, Prot: abi.PROT_READ | abi.PROT_EXEC,
		Flags: abi.MAP_PRIVATE | abi.MAP_FIXED, Mappable: &v.code, Name: "[vdso]", Special: true})
}

// Translate implements mm.Mappable.
func (o *object) Translate(off, length uint64, _ bool) ([]mm.Piece, error) {
	if off >= o.len {
		return nil, nil
	}
	return []mm.Piece{{Off: off, Len: min(length, o.len-off), FD: o.fd, FDOff: int64(o.off + off), Max: o.max}}, nil
}

// AddMapping and RemoveMapping implement mm.Mappable: nothing ever goes away.
func (o *object) AddMapping(mm.Invalidator, uint64, uint64)    {}
func (o *object) RemoveMapping(mm.Invalidator, uint64, uint64) {}
