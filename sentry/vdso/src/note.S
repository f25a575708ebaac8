/* The Linux version note that the dynamic linker looks for (ELFNOTE_START in
   include/linux/elfnote.h): a floor for the kernel version, 6.1.0. */
	.section .note.Linux, "a", @note
	.align 4
	.long 6, 4, 0
	.asciz "Linux"
	.align 4
	.long 0x060100
	.section .note.GNU-stack, "", @progbits
