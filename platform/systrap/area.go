package systrap

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"garrison/abi"
	"garrison/platform/hoststub"

	"golang.org/x/sys/unix"
)

// What a stub process has besides guest memory lies at the end of its address
// space. It is one memfd, which the Sentry maps whole:
//
//	page 0            code: the handler and the mapper; stubs execute it
//	pages 1 to 5      data: filters, signal actions, a table of numbers; read-only in stubs
//	slots             a page for each process: requests to its mapper; read-only in stubs
//	regions           16 KiB for each thread: where it hands over, and its
//	                  alternate stack; stubs of that process, and so its guest, write it
const (
	pageSize = hoststub.PageSize
	opSize   = hoststub.OpSize

	guestEnd    = 0x7fff_0000_0000
	stubRegions = 0x7fff_1000_0000
	stubBase    = 0x7fff_ffe0_0000
	stubCode    = stubBase
	stubData    = stubBase + pageSize
	dataSize    = 5 * pageSize
	stubSlot    = stubData + dataSize
	stubVDSO    = stubBase + 16*pageSize

	slotBase   = pageSize + dataSize // in the memfd
	slotMax    = 1 << 15             // processes that can exist
	regionSize = 16 << 10
	regionBase = 1 << 28 // in the memfd; beyond the slots, and aligned
	regionMax  = 1 << 16 // threads that can exist
	spaceMax   = (stubBase - stubRegions) / regionSize
	areaSize   = regionBase + regionMax*regionSize
)

// Entry points in the code page.
const (
	entryHandler = stubCode
	entryMapper  = stubCode + 0x400
	entryWorker  = stubCode + 0x800
	entryProcess = stubCode + 0xa00
)

// What lies in the data pages.
const (
	stubZeros         = stubData         // 64 bytes: a signal set, a struct sigaction of SIG_DFL
	stubAction        = stubData + 0x40  // struct sigaction of the handler
	stubCapHeader     = stubData + 0x80  // for capset(2)
	stubName          = stubData + 0x90  // the process's name
	stubMapperProgram = stubData + 0xa0  // struct sock_fprog
	stubWorkerProgram = stubData + 0xb0  // likewise
	stubMapperFilter  = stubData + 0x100 // the filters
	stubWorkerFilter  = stubData + 0x800
	stubNumbers       = stubData + pageSize // 0 to 4095, as 32-bit words
)

// Offsets in a slot. The answer's words are written by the mapper.
const (
	slotRequest = 0  // changes to make the mapper work
	slotCount   = 4  // of calls
	slotWant    = 8  // the last result is wanted
	slotWatch   = 12 // the Sentry sleeps on the answer
	slotAnswer  = 16 // the request that was last worked on
	slotLeft    = 20 // calls not made, the failed one included; set if one failed or slotWant
	slotLow     = 24 // bits 0 to 11 of the last result
	slotHigh    = 28 // bits 12 to 23
	slotOps     = 64
	slotOpCount = (pageSize - slotOps) / opSize
)

// Offsets in a thread's region. It is all hostile.
const (
	ctxState    = 0
	ctxFrame    = 4  // where the signal frame lies in the region
	ctxSignal   = 8  // the signal's number
	ctxSpin     = 12 // how often to look before the stub sleeps
	ctxFS       = 16 // the base of FS
	ctxGS       = 24
	ctxAltStack = 64 // a stack_t, for sigaltstack(2)
	ctxEnd      = pageSize
)

// States of a thread.
const (
	stateRuns    = 0
	stateWatched = 1 // runs, and the Sentry sleeps: wake it
	stateTrapped = 2
	stateAsleep  = 3 // trapped, and the stub sleeps: wake it
)

// interruptSignal makes a running stub trap.
const interruptSignal = unix.SIGURG

var handledSignals = []unix.Signal{unix.SIGSYS, unix.SIGSEGV, unix.SIGBUS, unix.SIGILL, unix.SIGFPE, unix.SIGTRAP, interruptSignal}

// cloneThread and cloneProcess are the flags of the mapper's clone calls.
const (
	cloneThread  = abi.CLONE_VM | abi.CLONE_FS | abi.CLONE_FILES | abi.CLONE_SIGHAND | abi.CLONE_THREAD | abi.CLONE_SYSVSEM
	cloneProcess = abi.CLONE_FILES | abi.CLONE_PARENT
)

// stubArea is the memfd, mapped. Only what is used costs memory.
type stubArea struct {
	fd  int
	mem []byte
}

func (a *stubArea) init() error {
	fd, err := unix.MemfdCreate("stub", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("systrap: make the stub's memory: %w", err)
	}
	if err := unix.Ftruncate(fd, areaSize); err != nil {
		unix.Close(fd)
		return fmt.Errorf("systrap: size the stub's memory: %w", err)
	}
	a.mem, err = unix.Mmap(fd, 0, areaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("systrap: map the stub's memory: %w", err)
	}
	a.fd = fd
	if err := a.fill(); err != nil {
		a.close()
		return err
	}
	return nil
}

// stubEnd is what stub_amd64.s puts at the end of each piece of code.
var stubEnd = []byte{0x0f, 0x0b, 0xde, 0xad, 0x0f, 0x0b, 0xbe, 0xef}

func (a *stubArea) fill() error {
	for i := range pageSize {
		a.mem[i] = 0xcc // int3
	}
	handler, mapper, worker, process := stubText()
	for i, e := range []struct {
		at, room int
		from     uintptr
	}{
		{entryHandler - stubCode, 0x400, handler}, {entryMapper - stubCode, 0x400, mapper},
		{entryWorker - stubCode, 0x200, worker}, {entryProcess - stubCode, 0x200, process},
	} {
		code := bytesAt(uint64(e.from), e.room)
		n := bytes.Index(code, stubEnd)
		if n < 0 {
			return fmt.Errorf("systrap: piece %d of the stub's code does not fit in its place", i)
		}
		copy(a.mem[e.at:], code[:n])
	}
	at := func(addr uint64) []byte { return a.mem[pageSize+addr-stubData:] }
	u16, u32, u64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	// struct kernel_sigaction: handler, flags, restorer, mask.
	const saSiginfo, saRestorer, saOnstack = 4, 0x04000000, 0x08000000
	u64(at(stubAction), entryHandler)
	u64(at(stubAction+8), saSiginfo|saRestorer|saOnstack)
	u64(at(stubAction+16), entryHandler)
	u64(at(stubAction+24), ^uint64(0))
	u32(at(stubCapHeader), abi.LINUX_CAPABILITY_VERSION_3)
	copy(at(stubName), "runsc-stub")
	for _, f := range []struct {
		program, filter, room uint64
		code                  []byte
	}{
		{stubMapperProgram, stubMapperFilter, stubWorkerFilter - stubMapperFilter, mapperFilter(a.fd)},
		{stubWorkerProgram, stubWorkerFilter, stubNumbers - stubWorkerFilter, workerFilter()},
	} {
		if uint64(len(f.code)) > f.room {
			return fmt.Errorf("systrap: a filter of %d bytes does not fit in %d", len(f.code), f.room)
		}
		u16(at(f.program), uint16(len(f.code)/8))
		u64(at(f.program+8), f.filter)
		copy(at(f.filter), f.code)
	}
	for i := range uint64(4096) {
		u32(at(stubNumbers+4*i), uint32(i))
	}
	return nil
}

func (a *stubArea) close() {
	unix.Munmap(a.mem)
	unix.Close(a.fd)
}

// slotOffset is where slot n lies in the memfd.
func slotOffset(n int) int { return slotBase + n*pageSize }

// regionOffset is where region n lies in the memfd.
func regionOffset(n int) int { return regionBase + n*regionSize }
