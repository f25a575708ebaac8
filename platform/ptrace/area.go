package ptrace

import (
	"fmt"

	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// What every stub process has besides guest memory lies just below the end of
// the address space: a page of code, the process's own slot with a batch of
// system calls, and the host's vDSO. Code and slots are one memfd: the Sentry
// writes it, stubs only read and execute.
const (
	taskSize = hoststub.TaskSize
	stubBase = 0x7fff_ffe0_0000
	stubCode = stubBase
	stubSlot = stubBase + pageSize
	stubEnd  = stubBase + 2*pageSize
	stubVDSO = stubBase + 16*pageSize

	pageSize  = 4096
	slotSize  = pageSize
	slotCount = 1 << 15 // address spaces that can exist
	opSize    = hoststub.OpSize
	slotOps   = slotSize / opSize
)

// Entry points in the code page.
const (
	entryBatch = stubCode + 0x00 // makes r13 calls from r12 on; stops by int3 with what is left in r13, the last result in rax
	entryCall  = stubCode + 0x40 // makes one call and stops by int3
	entryClone = stubCode + 0x80 // makes a clone call and stops by int3; the child parks
	entryPark  = stubCode + 0xc0 // sleeps for ever
)

// codePage is assembled by hand:
//
//	batch:  test r13,r13; jz done
//	        mov rax,[r12]; mov rdi,[r12+8]; mov rsi,[r12+16]; mov rdx,[r12+24]
//	        mov r10,[r12+32]; mov r8,[r12+40]; mov r9,[r12+48]
//	        syscall
//	        cmp rax,-4095; jae done
//	        add r12,56; dec r13; jmp batch
//	done:   int3
//	call:   syscall; int3
//	clone:  syscall; test rax,rax; jz park; int3
//	park:   mov eax,34 (pause); syscall; jmp park
var codePage = map[int][]byte{
	entryBatch - stubCode: {
		0x4d, 0x85, 0xed, // test r13,r13
		0x74, 0x35, // jz +53 -> done
		0x49, 0x8b, 0x04, 0x24, // mov rax,[r12]
		0x49, 0x8b, 0x7c, 0x24, 0x08, // mov rdi,[r12+8]
		0x49, 0x8b, 0x74, 0x24, 0x10, // mov rsi,[r12+16]
		0x49, 0x8b, 0x54, 0x24, 0x18, // mov rdx,[r12+24]
		0x4d, 0x8b, 0x54, 0x24, 0x20, // mov r10,[r12+32]
		0x4d, 0x8b, 0x44, 0x24, 0x28, // mov r8,[r12+40]
		0x4d, 0x8b, 0x4c, 0x24, 0x30, // mov r9,[r12+48]
		0x0f, 0x05, // syscall
		0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, // cmp rax,-4095
		0x73, 0x09, // jae +9 -> done
		0x49, 0x83, 0xc4, opSize, // add r12,56
		0x49, 0xff, 0xcd, // dec r13
		0xeb, 0xc6, // jmp batch
		0xcc, // done: int3
	},
	entryCall - stubCode: {0x0f, 0x05, 0xcc},
	entryClone - stubCode: {
		0x0f, 0x05, // syscall
		0x48, 0x85, 0xc0, // test rax,rax
		0x74, 0x39, // jz -> park
		0xcc, // int3
	},
	entryPark - stubCode: {
		0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax,34
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp park
	},
}

// stubArea is the memfd, mapped in the Sentry. Only slots that are used cost memory.
type stubArea struct {
	fd  int
	mem []byte
}

func (a *stubArea) init() error {
	fd, err := unix.MemfdCreate("stub", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("ptrace: make the stub's memory: %w", err)
	}
	const size = pageSize + slotCount*slotSize
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return fmt.Errorf("ptrace: size the stub's memory: %w", err)
	}
	a.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("ptrace: map the stub's memory: %w", err)
	}
	a.fd = fd
	for i := range pageSize {
		a.mem[i] = 0xcc // int3
	}
	for at, code := range codePage {
		copy(a.mem[at:], code)
	}
	return nil
}

func (a *stubArea) close() {
	unix.Munmap(a.mem)
	unix.Close(a.fd)
}

// slotOffset is where slot n lies in the memfd.
func slotOffset(n int) int { return pageSize + n*slotSize }
