package ptrace

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The stub area is what every stub process has besides guest memory: a page of
// code, then slots with batches of system calls. Both are one memfd, mapped
// shared: the Sentry writes, stubs read and execute.
const (
	slotSize  = 4096
	slotCount = 64
	areaSize  = slotSize * (1 + slotCount)
	slotOps   = slotSize / opSize
	opSize    = 7 * 8
)

// An op is one system call to be made by a stub: the number and six arguments.
type op [7]uint64

// Offsets of the entry points in the code page.
const (
	entryBatch  = 0x00 // r12: ops, r13: count; stops by int3 with rax the last result, r13 what is left
	entryThread = 0x80 // makes a clone call; the child sleeps, the parent stops by int3
	entryPark   = 0xc0 // sleeps for ever
)

// stubCode is the code page, assembled by hand:
//
//	batch:  test r13,r13; jz done
//	        mov rax,[r12]; mov rdi,[r12+8]; mov rsi,[r12+16]; mov rdx,[r12+24]
//	        mov r10,[r12+32]; mov r8,[r12+40]; mov r9,[r12+48]
//	        syscall
//	        cmp rax,-4095; jae done
//	        add r12,56; dec r13; jmp batch
//	done:   int3
//	thread: syscall; test rax,rax; jz park; int3
//	park:   mov eax,34 (pause); syscall; jmp park
var stubCode = map[int][]byte{
	entryBatch: {
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
		0x49, 0x83, 0xc4, 0x38, // add r12,56
		0x49, 0xff, 0xcd, // dec r13
		0xeb, 0xc6, // jmp batch
		0xcc, // done: int3
	},
	entryThread: {
		0x0f, 0x05, // syscall
		0x48, 0x85, 0xc0, // test rax,rax
		0x74, 0x39, // jz -> park
		0xcc, // int3
	},
	entryPark: {
		0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax,34
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp park
	},
}

// stubArea is the area's place in stubs and in the Sentry.
type stubArea struct {
	base               uintptr // in stubs
	vdsoStart, vdsoEnd uintptr
	fd                 int
	mem                []byte       // in the Sentry
	free               chan int     // slots
	inUse              atomic.Int32 // for tests
}

func (a *stubArea) init() error {
	fd, err := unix.MemfdCreate("stub", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("ptrace: make the stub's memory: %w", err)
	}
	a.fd = fd
	if err := unix.Ftruncate(fd, areaSize); err != nil {
		return fmt.Errorf("ptrace: size the stub's memory: %w", err)
	}
	a.mem, err = unix.Mmap(fd, 0, areaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("ptrace: map the stub's memory: %w", err)
	}
	for i := range slotSize {
		a.mem[i] = 0xcc
	}
	for at, code := range stubCode {
		copy(a.mem[at:], code)
	}
	a.free = make(chan int, slotCount)
	for i := range slotCount {
		a.free <- i
	}
	return nil
}

func (a *stubArea) close() {
	unix.Munmap(a.mem)
	unix.Close(a.fd)
}

// slot is a borrowed batch area.
type slot struct {
	ops  *[slotOps]op // in the Sentry
	addr uint64       // in stubs
	n    int
}

// borrow takes a slot, waiting for one if all are used.
func (a *stubArea) borrow() slot {
	i := <-a.free
	off := slotSize * (1 + i)
	// Sound: the slot lies within mem, is 8-byte aligned and lives as long as it;
	// stubs can only read it.
	return slot{ops: (*[slotOps]op)(unsafe.Pointer(&a.mem[off])), addr: uint64(a.base) + uint64(off), n: i}
}

func (a *stubArea) giveBack(s slot) { a.free <- s.n }
