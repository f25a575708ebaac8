package abi

import "encoding/binary"

// ELF64 structures (uapi/linux/elf.h).

// An ELFHeader is Elf64_Ehdr.
type ELFHeader struct {
	Ident                      [16]byte
	Type, Machine              uint16
	Version                    uint32
	Entry, Phoff, Shoff        uint64
	Flags                      uint32
	Ehsize, Phentsize, Phnum   uint16
	Shentsize, Shnum, Shstrndx uint16
}

// ELFHeaderSize and ELFProgSize are the structures' sizes in a file.
const (
	ELFHeaderSize = 64
	ELFProgSize   = 56
)

// UnmarshalFrom decodes b, which has at least ELFHeaderSize bytes.
func (h *ELFHeader) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	copy(h.Ident[:], b)
	h.Type, h.Machine, h.Version = le.Uint16(b[16:]), le.Uint16(b[18:]), le.Uint32(b[20:])
	h.Entry, h.Phoff, h.Shoff = le.Uint64(b[24:]), le.Uint64(b[32:]), le.Uint64(b[40:])
	h.Flags, h.Ehsize, h.Phentsize, h.Phnum = le.Uint32(b[48:]), le.Uint16(b[52:]), le.Uint16(b[54:]), le.Uint16(b[56:])
	h.Shentsize, h.Shnum, h.Shstrndx = le.Uint16(b[58:]), le.Uint16(b[60:]), le.Uint16(b[62:])
}

// An ELFProg is Elf64_Phdr.
type ELFProg struct {
	Type, Flags                             uint32
	Off, Vaddr, Paddr, Filesz, Memsz, Align uint64
}

// UnmarshalFrom decodes b, which has at least ELFProgSize bytes.
func (p *ELFProg) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	p.Type, p.Flags = le.Uint32(b), le.Uint32(b[4:])
	p.Off, p.Vaddr, p.Paddr = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	p.Filesz, p.Memsz, p.Align = le.Uint64(b[32:]), le.Uint64(b[40:]), le.Uint64(b[48:])
}
