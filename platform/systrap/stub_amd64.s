#include "go_asm.h"
#include "textflag.h"

// The code of stub processes. It is copied from here to a page of its own
// (area.go), up to END, so it must not depend on where it lies, and it must not
// use the stack: the guest's is not ours to touch.

// What no compiler emits.
#define END BYTE $0x0f; BYTE $0x0b; BYTE $0xde; BYTE $0xad; BYTE $0x0f; BYTE $0x0b; BYTE $0xbe; BYTE $0xef

// The handler of all signals that a guest's doings raise. It runs on the
// thread's alternate stack, in the thread's region, where the kernel has put a
// struct rt_sigframe at SP. It hands over to the Sentry, waits until the Sentry
// has changed the frame, and resumes.
TEXT handler<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVQ	SP, BX
	ANDQ	$~(const_regionSize-1), BX
	MOVQ	SP, CX
	SUBQ	BX, CX
	MOVL	CX, const_ctxFrame(BX)
	MOVL	DI, const_ctxSignal(BX)
	RDFSBASEQ AX
	MOVQ	AX, const_ctxFS(BX)
	RDGSBASEQ AX
	MOVQ	AX, const_ctxGS(BX)
	MOVL	$const_stateTrapped, AX
	XCHGL	AX, const_ctxState(BX)
	CMPL	AX, $const_stateWatched
	JNE	spin
	MOVL	$202, AX	// futex(&state, FUTEX_WAKE, 1): the Sentry sleeps
	MOVQ	BX, DI
	MOVL	$1, SI
	MOVL	$1, DX
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
spin:
	MOVL	const_ctxSpin(BX), DX
look:
	MOVL	const_ctxState(BX), AX
	CMPL	AX, $const_stateTrapped
	JCS	resume
	TESTL	DX, DX
	JZ	sleep
	PAUSE
	SUBL	$1, DX
	JMP	look
sleep:
	MOVL	$const_stateTrapped, AX
	MOVL	$const_stateAsleep, CX
	LOCK
	CMPXCHGL CX, const_ctxState(BX)
	MOVL	$202, AX	// futex(&state, FUTEX_WAIT, stateAsleep, NULL)
	MOVQ	BX, DI
	XORL	SI, SI
	MOVL	$const_stateAsleep, DX
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
	XORL	DX, DX
	JMP	look
resume:
	MOVQ	const_ctxFS(BX), AX
	WRFSBASEQ AX
	MOVQ	const_ctxGS(BX), AX
	WRGSBASEQ AX
	ADDQ	$8, SP		// as if the handler had returned
	MOVL	$15, AX		// rt_sigreturn
	SYSCALL
	END

// The mapper: the leader of each stub process, which never runs guest code. It
// makes the calls that the Sentry puts into the process's slot, at R12. It
// trusts nothing that guests can write: the slot is read-only in stubs, and so
// it answers by pwrite64 to the file that the slot is a page of. R13 is the last
// request, R14 the file, R15 where in it the answer lies.
TEXT mapper<>(SB),NOSPLIT|NOFRAME,$0-0
loop:
	MOVL	const_slotRequest(R12), AX
	CMPL	AX, R13
	JNE	work
	MOVL	$202, AX	// futex(&request, FUTEX_WAIT, R13, NULL)
	MOVQ	R12, DI
	XORL	SI, SI
	MOVL	R13, DX
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
	JMP	loop
work:
	MOVL	AX, R13
	MOVL	const_slotCount(R12), BX
	LEAQ	const_slotOps(R12), BP
	XORL	R9, R9
	JMP	check
next:
	MOVQ	0(BP), AX
	MOVQ	8(BP), DI
	MOVQ	16(BP), SI
	MOVQ	24(BP), DX
	MOVQ	32(BP), R10
	MOVQ	40(BP), R8
	MOVQ	48(BP), R9
	SYSCALL
	TESTQ	AX, AX
	JNZ	parent
	CMPQ	0(BP), $56	// clone
	JNE	parent
	JMP	R9		// the child's entry
parent:
	MOVQ	AX, R9
	CMPQ	AX, $-4095
	JCC	report
	ADDQ	$const_opSize, BP
	SUBL	$1, BX
check:
	TESTL	BX, BX
	JNZ	next
	CMPL	const_slotWant(R12), $0
	JEQ	done
report:
	MOVL	$18, AX		// pwrite64: how many calls are left
	MOVL	R14, DI
	MOVQ	$const_stubNumbers, SI
	LEAQ	0(SI)(BX*4), SI
	MOVL	$4, DX
	LEAQ	4(R15), R10
	SYSCALL
	MOVL	$18, AX		// the low 12 bits of the last result
	MOVL	R14, DI
	MOVQ	R9, CX
	ANDL	$0xfff, CX
	MOVQ	$const_stubNumbers, SI
	LEAQ	0(SI)(CX*4), SI
	MOVL	$4, DX
	LEAQ	8(R15), R10
	SYSCALL
	MOVL	$18, AX		// the next 12
	MOVL	R14, DI
	MOVQ	R9, CX
	SHRQ	$12, CX
	ANDL	$0xfff, CX
	MOVQ	$const_stubNumbers, SI
	LEAQ	0(SI)(CX*4), SI
	MOVL	$4, DX
	LEAQ	12(R15), R10
	SYSCALL
done:
	MOVL	$18, AX		// and which request is answered
	MOVL	R14, DI
	MOVQ	R12, SI
	MOVL	$4, DX
	MOVQ	R15, R10
	SYSCALL
	CMPL	const_slotWatch(R12), $0
	JEQ	loop
	MOVL	$202, AX	// futex(&answer, FUTEX_WAKE, 1)
	LEAQ	const_slotAnswer(R12), DI
	MOVL	$1, SI
	MOVL	$1, DX
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
	JMP	loop
	END

// A new thread, made by the mapper: R8 is its region. It gives up all calls but
// those of the handler, and traps: the frame of that trap is what the Sentry
// fills in with the registers of the guest.
TEXT worker<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVQ	R8, BX
	MOVL	$131, AX	// sigaltstack
	LEAQ	const_ctxAltStack(BX), DI
	XORL	SI, SI
	SYSCALL
	TESTQ	AX, AX
	JNZ	end
	MOVL	$14, AX		// rt_sigprocmask(SIG_SETMASK, none)
	MOVL	$2, DI
	MOVQ	$const_stubZeros, SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	TESTQ	AX, AX
	JNZ	end
	MOVL	$317, AX	// seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	MOVL	$1, DI
	MOVL	$4, SI
	MOVQ	$const_stubWorkerProgram, DX
	SYSCALL
	TESTQ	AX, AX
	JNZ	end
	INT	$3
end:
	MOVL	$60, AX		// exit
	MOVL	$1, DI
	SYSCALL
	END

// A new process, made by the zygote's mapper: RDX is where its slot lies.
TEXT process<>(SB),NOSPLIT|NOFRAME,$0-0
	LEAQ	const_slotAnswer(DX), R15
	MOVQ	DX, R9
	MOVL	$9, AX		// mmap
	MOVQ	R12, DI
	MOVL	$const_pageSize, SI
	MOVL	$1, DX		// PROT_READ
	MOVL	$0x11, R10	// MAP_SHARED|MAP_FIXED
	MOVL	R14, R8
	SYSCALL
	CMPQ	AX, R12
	JNE	end
	XORL	R13, R13
	MOVQ	$const_entryMapper, AX
	JMP	AX
end:
	MOVL	$60, AX
	MOVL	$1, DI
	SYSCALL
	END

// func stubText() (handler, mapper, worker, process uintptr)
TEXT ·stubText(SB),NOSPLIT,$0-32
	LEAQ	handler<>(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	mapper<>(SB), AX
	MOVQ	AX, mapper+8(FP)
	LEAQ	worker<>(SB), AX
	MOVQ	AX, worker+16(FP)
	LEAQ	process<>(SB), AX
	MOVQ	AX, process+24(FP)
	RET

// func forkZygote(fd int) (pid int)
//
// Forks the process that becomes the zygote, by way of one in between, whose
// id is returned: a thread made with CLONE_VM has no rseq(2) area registered,
// which a C library's threads have, in memory that is about to go. Neither runs
// any Go code, and neither uses the stack. The caller has all signals blocked.
TEXT ·forkZygote(SB),NOSPLIT,$0-16
	MOVQ	fd+0(FP), R14
	MOVL	$56, AX		// clone(CLONE_FILES), no signal at its end
	MOVL	$0x400, DI
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	SYSCALL
	TESTQ	AX, AX
	JZ	between
	MOVQ	AX, pid+8(FP)
	RET
between:
	MOVL	$56, AX		// clone(CLONE_VM|CLONE_FILES|CLONE_PARENT)
	MOVL	$0x8500, DI
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	SYSCALL
	TESTQ	AX, AX
	JZ	zygote
	MOVL	$231, DI
	XCHGQ	AX, DI
	SARQ	$63, DI		// exit_group(0), or with not 0 after an error
	SYSCALL
zygote:
	MOVL	$9, AX		// map the code
	MOVQ	$const_stubCode, DI
	MOVL	$const_pageSize, SI
	MOVL	$5, DX
	MOVL	$0x11, R10
	MOVQ	R14, R8
	XORL	R9, R9
	SYSCALL
	MOVL	$9, AX		// the data
	MOVQ	$const_stubData, DI
	MOVL	$const_dataSize, SI
	MOVL	$1, DX
	MOVL	$0x11, R10
	MOVQ	R14, R8
	MOVL	$const_pageSize, R9
	SYSCALL
	MOVL	$9, AX		// and slot 0
	MOVQ	$const_stubSlot, DI
	MOVL	$const_pageSize, SI
	MOVL	$1, DX
	MOVL	$0x11, R10
	MOVQ	R14, R8
	MOVL	$const_slotBase, R9
	SYSCALL
	MOVQ	$const_stubSlot, R12
	XORL	R13, R13
	MOVQ	$(const_slotBase+const_slotAnswer), R15
	MOVQ	$const_entryMapper, AX
	JMP	AX

// func spinWhile(p *uint32, was uint32, n int) bool
//
// Looks at *p up to n times, and reports whether it became other than was.
TEXT ·spinWhile(SB),NOSPLIT,$0-25
	MOVQ	p+0(FP), BX
	MOVL	was+8(FP), AX
	MOVQ	n+16(FP), CX
again:
	CMPL	0(BX), AX
	JNE	other
	PAUSE
	SUBQ	$1, CX
	JNZ	again
	MOVB	$0, ret+24(FP)
	RET
other:
	MOVB	$1, ret+24(FP)
	RET

// func currentCPU() int32
//
// The kernel keeps the CPU's number in the limit of a segment for the vDSO's
// getcpu (__CPUNODE_SEG, arch/x86/include/asm/segment.h).
TEXT ·currentCPU(SB),NOSPLIT,$0-4
	MOVL	$0x7b, CX
	XORL	AX, AX
	BYTE $0x0f; BYTE $0x03; BYTE $0xc1	// lsl eax, ecx
	ANDL	$0xfff, AX
	MOVL	AX, ret+0(FP)
	RET
