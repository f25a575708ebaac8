#include "textflag.h"

// A struct kernel_sigaction and a signal set of nothing: SIG_DFL, no signal blocked.
DATA zeros<>+0(SB)/8, $0
GLOBL zeros<>(SB), NOPTR|RODATA, $64

// func forkZygote() (pid int)
//
// Forks a child that shares our descriptor table, is traced by this thread and
// stops by int3. The child runs only the instructions below, on its copy of our
// memory: no Go code, no stack, no signal handler. The caller has all signals
// blocked, and the child unblocks them when no handler is left.
TEXT ·forkZygote(SB),NOSPLIT,$0-8
	MOVL	$56, AX		// clone(CLONE_FILES), no signal at its end
	MOVL	$0x400, DI
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, pid+0(FP)
	RET
child:
	MOVL	$157, AX	// prctl(PR_SET_PDEATHSIG, SIGKILL)
	MOVL	$1, DI
	MOVL	$9, SI
	SYSCALL
	MOVL	$64, R12
reset:
	MOVL	$13, AX		// rt_sigaction(R12, &zeros, NULL, 8)
	MOVQ	R12, DI
	LEAQ	zeros<>(SB), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	SUBQ	$1, R12
	JNZ	reset
	MOVL	$101, AX	// ptrace(PTRACE_TRACEME)
	XORL	DI, DI
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	SYSCALL
	TESTQ	AX, AX
	JNZ	refused
	MOVL	$14, AX		// rt_sigprocmask(SIG_SETMASK, &zeros, NULL, 8)
	MOVL	$2, DI
	LEAQ	zeros<>(SB), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	INT	$3
refused:
	NEGQ	AX
	MOVQ	AX, DI
end:
	MOVL	$231, AX	// exit_group(errno)
	SYSCALL
	JMP	end

// The zygote makes its first system calls here, before it has a stub page.
TEXT gadget<>(SB),NOSPLIT,$0-0
	SYSCALL
	INT	$3

// func gadgetAddr() uintptr
TEXT ·gadgetAddr(SB),NOSPLIT,$0-8
	LEAQ	gadget<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func currentCPU() int32
//
// The kernel keeps the CPU's number in the limit of a segment for the vDSO's
// getcpu (__CPUNODE_SEG, arch/x86/include/asm/segment.h): some 10 ns, where the
// system call takes 200.
TEXT ·currentCPU(SB),NOSPLIT,$0-4
	MOVL	$0x7b, CX
	XORL	AX, AX
	BYTE $0x0f; BYTE $0x03; BYTE $0xc1	// lsl eax, ecx
	ANDL	$0xfff, AX
	MOVL	AX, ret+0(FP)
	RET
