#include "textflag.h"

// func forkRun(flags uintptr, calls *call, n uintptr, report *[2]uintptr, reportFD uintptr) (pid int)
//
// Forks with clone(2)'s flags. The child makes the listed system calls, one
// after the other, and nothing else: it runs no Go code, touches no Go stack
// beyond its own arguments, and never returns. The last call is execve. When a
// call fails, its index and error number go to reportFD and the child exits.
TEXT ·forkRun(SB),NOSPLIT,$0-48
	MOVQ flags+0(FP), DI
	XORQ SI, SI
	XORQ DX, DX
	XORQ R10, R10
	XORQ R8, R8
	MOVQ $56, AX // clone
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, pid+40(FP)
	RET

child:
	MOVQ calls+8(FP), R12
	MOVQ n+16(FP), R13
	XORQ BX, BX

next:
	CMPQ BX, R13
	JGE  quit
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	CMPQ AX, $0xfffffffffffff001
	JLS  done
	CMPQ 56(R12), $0 // may fail
	JNE  done
	NEGQ AX
	MOVQ report+24(FP), SI
	MOVQ BX, 0(SI)
	MOVQ AX, 8(SI)
	MOVQ reportFD+32(FP), DI
	MOVQ $16, DX
	MOVQ $1, AX // write
	SYSCALL
	JMP  quit

done:
	ADDQ $64, R12
	INCQ BX
	JMP  next

quit:
	MOVQ $1, DI
	MOVQ $231, AX // exit_group
	SYSCALL
	INT  $3
