/* The restorer for handlers installed without one. A debugger finds the
   interrupted frame by the unwind information: the stack pointer is at the
   struct ucontext of the signal frame (kernel/sigframe.go), whose registers
   begin at byte 40. */

	.macro saved reg, off
	/* DW_CFA_expression reg: DW_OP_breg7 (rsp) off, as a two-byte SLEB128 */
	.cfi_escape 0x10, \reg, 3, 0x77, (\off & 0x7f) | 0x80, \off >> 7
	.endm

	.text
	.globl __kernel_rt_sigreturn
	.type __kernel_rt_sigreturn, @function
	.cfi_startproc
	.cfi_signal_frame
	/* DW_CFA_def_cfa_expression: DW_OP_breg7 160, DW_OP_deref: the saved rsp */
	.cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06
	saved 8, 40
	saved 9, 48
	saved 10, 56
	saved 11, 64
	saved 12, 72
	saved 13, 80
	saved 14, 88
	saved 15, 96
	saved 5, 104
	saved 4, 112
	saved 6, 120
	saved 3, 128
	saved 1, 136
	saved 0, 144
	saved 2, 152
	saved 7, 160
	saved 16, 168
	/* Unwinders look up the address before a return address. */
	nop
__kernel_rt_sigreturn:
	movl $15, %eax
	syscall
	hlt
	.cfi_endproc
	.size __kernel_rt_sigreturn, . - __kernel_rt_sigreturn
	.section .note.GNU-stack, "", @progbits
