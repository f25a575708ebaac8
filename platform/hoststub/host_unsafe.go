package hoststub

import "unsafe"

// bytesAt returns n bytes of a mapping that the kernel made at addr and that
// stays: the host's vDSO.
func bytesAt(addr uint64, n int) []byte {
	p := uintptr(addr)
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), n)
}
