/* mmap, munmap, mremap, mprotect, madvise, msync, mincore, mlock, brk, faults, stack growth. */
#include "harness.h"
#include <setjmp.h>

#define PG 4096
#define RW (PROT_READ | PROT_WRITE)
static char *anon(size_t n) { return OK(mmap(NULL, n, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); }
static sigjmp_buf jb;
static volatile siginfo_t si;
static void catch(int s, siginfo_t *i, void *u) { (void)s; (void)u; si = *i; siglongjmp(jb, 1); }
/* fault runs a statement and returns the signal it got, 0 for none. */
static void arm(void) {
	struct sigaction sa = {.sa_sigaction = catch, .sa_flags = SA_SIGINFO | SA_NODEFER};
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}
#define FAULT(x) ({ volatile int _s = 0; arm(); if (sigsetjmp(jb, 1) == 0) { x; } else { _s = si.si_signo; } _s; })
#define RD(p) do { volatile char _c = *(volatile char *)(p); (void)_c; } while (0)
#define WR(p) (*(volatile char *)(p) = 1)

TEST(anon_zero_and_unmap) {
	char *m = anon(3 * PG);
	for (int i = 0; i < 3 * PG; i++) EXPECT_EQ(m[i], 0);
	memset(m, 7, 3 * PG);
	OK(munmap(m + PG, PG));
	EXPECT_EQ(m[0], 7);
	EXPECT_EQ(m[2 * PG], 7);
	EXPECT_EQ(FAULT(RD(m + PG)), SIGSEGV);
	EXPECT_EQ(si.si_code, SEGV_MAPERR);
	EXPECT_EQ((char *)si.si_addr - m, PG);
	OK(munmap(m, 3 * PG));
	OK(munmap(m, 3 * PG));
}
TEST(mmap_errors) {
	ERR(mmap(NULL, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
	ERR(mmap(NULL, PG, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
	ERR(mmap(NULL, PG, RW, MAP_PRIVATE, -1, 0), EBADF);
	ERR(mmap(NULL, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1), EINVAL);
	ERR(mmap((void *)0x1001, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
	ERR(mmap(NULL, (size_t)-PG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
	ERR(mmap((void *)0x7ffffffff000, 2 * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM);
	PUT("f", "x");
	int r = OK(open("f", O_RDONLY)), w = OK(open("f", O_WRONLY)), d = OK(open(".", O_RDONLY)), p[2];
	ERR(mmap(NULL, PG, RW, MAP_SHARED, r, 0), EACCES);
	OK(mmap(NULL, PG, RW, MAP_PRIVATE, r, 0));
	ERR(mmap(NULL, PG, PROT_READ, MAP_PRIVATE, w, 0), EACCES);
	ERR(mmap(NULL, PG, PROT_WRITE, MAP_SHARED, w, 0), EACCES);
	ERR(mmap(NULL, PG, PROT_READ, MAP_PRIVATE, d, 0), ENODEV);
	OK(pipe(p));
	ERR(mmap(NULL, PG, PROT_READ, MAP_PRIVATE, p[0], 0), ENODEV);
	ERR(munmap((void *)1, PG), EINVAL);
	char *m = anon(PG);
	ERR(munmap(m, 0), EINVAL);
	ERR(munmap(m, (size_t)-PG), EINVAL);
	char *sh = OK(mmap(NULL, PG, PROT_READ, MAP_SHARED, r, 0));
	ERR(mprotect(sh, PG, RW), EACCES);
}
TEST(fixed_replaces) {
	char *m = anon(3 * PG);
	memset(m, 1, 3 * PG);
	EXPECT_EQ(OK(mmap(m + PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)), m + PG);
	EXPECT_EQ(m[0], 1);
	EXPECT_EQ(m[PG], 0);
	EXPECT_EQ(m[2 * PG], 1);
}
TEST(fixed_noreplace) {
	char *m = anon(3 * PG);
	ERR(mmap(m + PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
	OK(munmap(m + PG, PG));
	EXPECT_EQ(OK(mmap(m + PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)), m + PG);
	ERR(mmap(m, 3 * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
}
TEST(hint) {
	char *m = anon(4 * PG);
	OK(munmap(m, 4 * PG));
	EXPECT_EQ(OK(mmap(m + PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), m + PG);
	EXPECT_NE(OK(mmap(m + PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), m + PG);
	char *low = OK(mmap(NULL, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
	EXPECT_LT((uintptr_t)low, 1UL << 31);
}
TEST(prot_codes) {
	char *m = anon(PG);
	WR(m);
	OK(mprotect(m, PG, PROT_READ));
	RD(m);
	EXPECT_EQ(FAULT(WR(m)), SIGSEGV);
	EXPECT_EQ(si.si_code, SEGV_ACCERR);
	EXPECT_EQ(si.si_addr, m);
	OK(mprotect(m, PG, PROT_NONE));
	EXPECT_EQ(FAULT(RD(m)), SIGSEGV);
	EXPECT_EQ(si.si_code, SEGV_ACCERR);
	OK(mprotect(m, PG, RW));
	EXPECT_EQ(*m, 1);
	WR(m);
	EXPECT_EQ(FAULT(((void (*)(void))m)()), SIGSEGV);
	EXPECT_EQ(si.si_code, SEGV_ACCERR);
	EXPECT_EQ(si.si_addr, m);
}
TEST(fault_addresses) {
	EXPECT_EQ(FAULT(RD((char *)0x10)), SIGSEGV);
	EXPECT_EQ(si.si_code, SEGV_MAPERR);
	EXPECT_EQ(si.si_addr, 0x10);
	/* a non-canonical address is a general protection fault, without an address */
	EXPECT_EQ(FAULT(RD((char *)0x8000000000000000UL)), SIGSEGV);
	EXPECT_EQ(si.si_code, SI_KERNEL);
	EXPECT_EQ(si.si_addr, 0);
	EXPECT_EQ(FAULT(WR((char *)0x7fffffffe000UL - (1UL << 40))), SIGSEGV);
	EXPECT_EQ(FAULT(RD((char *)0xffffffff80000000UL)), SIGSEGV);
}
TEST(mprotect_splits) {
	char *m = anon(5 * PG);
	memset(m, 3, 5 * PG);
	OK(mprotect(m + PG, PG, PROT_READ));
	OK(mprotect(m + 3 * PG, PG, PROT_NONE));
	WR(m);
	WR(m + 2 * PG);
	WR(m + 4 * PG);
	EXPECT_EQ(FAULT(WR(m + PG)), SIGSEGV);
	EXPECT_EQ(FAULT(RD(m + 3 * PG)), SIGSEGV);
	OK(mprotect(m, 5 * PG, RW));
	for (int i = 0; i < 5; i++) EXPECT_EQ(m[i * PG + 7], 3);
	OK(munmap(m + 2 * PG, PG));
	ERR(mprotect(m, 5 * PG, PROT_READ), ENOMEM);
	ERR(mprotect(m + 1, PG, PROT_READ), EINVAL);
	OK(mprotect(m, 0, PROT_READ));
	ERR(mprotect(m, PG, 0x100), EINVAL);
	/* the part before the hole has changed */
	EXPECT_EQ(FAULT(WR(m)), SIGSEGV);
}
TEST(exec_mapping) {
	unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
	char *m = OK(mmap(NULL, PG, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memcpy(m, code, sizeof code);
	EXPECT_EQ(((int (*)(void))m)(), 42);
	m[1] = 43;
	EXPECT_EQ(((int (*)(void))m)(), 43);
	OK(mprotect(m, PG, PROT_READ | PROT_EXEC));
	EXPECT_EQ(((int (*)(void))m)(), 43);
}
TEST(exec_file_mapping) {
	unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
	int fd = OK(open("code", O_RDWR | O_CREAT, 0755));
	OK(write(fd, code, sizeof code));
	char *m = OK(mmap(NULL, PG, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
	EXPECT_EQ(((int (*)(void))m)(), 42);
}
TEST(file_shared_coherent) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
	OK(ftruncate(fd, 2 * PG));
	char *m = OK(mmap(NULL, 2 * PG, RW, MAP_SHARED, fd, 0)), *n = OK(mmap(NULL, 2 * PG, PROT_READ, MAP_SHARED, fd, 0));
	OK(pwrite(fd, "hello", 5, 100));
	EXPECT_MEM(m + 100, "hello", 5);
	memcpy(m + PG, "world", 5);
	char b[8];
	EXPECT_EQ(pread(fd, b, 5, PG), 5);
	EXPECT_MEM(b, "world", 5);
	EXPECT_MEM(n + PG, "world", 5);
	IN_CHILD(memcpy(m, "child", 5));
	EXPECT_MEM(n, "child", 5);
	int g = OK(open("f", O_RDONLY));
	EXPECT_EQ(read(g, b, 5), 5);
	EXPECT_MEM(b, "child", 5);
	OK(munmap(m, 2 * PG));
	EXPECT_MEM(n, "child", 5);
	OK(close(fd));
	OK(unlink("f"));
	EXPECT_MEM(n + 100, "hello", 5);
}
TEST(file_private_cow) {
	PUT("f", "original");
	int fd = OK(open("f", O_RDWR));
	char *m = OK(mmap(NULL, PG, RW, MAP_PRIVATE, fd, 0));
	EXPECT_MEM(m, "original", 8);
	OK(pwrite(fd, "O", 1, 0));
	EXPECT_EQ(m[0], 'O'); /* not yet copied: Linux shows the file's page */
	m[1] = 'R';
	OK(pwrite(fd, "X", 1, 0));
	EXPECT_EQ(m[0], 'O');
	EXPECT_STR(SLURP("f"), "Xriginal");
	EXPECT_EQ(m[8], 0);
	EXPECT_EQ(m[PG - 1], 0);
}
TEST(file_offset) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
	char b[PG];
	for (int i = 0; i < 4; i++) { memset(b, 'a' + i, PG); OK(write(fd, b, PG)); }
	char *m = OK(mmap(NULL, 2 * PG, PROT_READ, MAP_SHARED, fd, 2 * PG));
	EXPECT_EQ(m[0], 'c');
	EXPECT_EQ(m[PG], 'd');
	ERR(mmap(NULL, PG, PROT_READ, MAP_SHARED, fd, 100), EINVAL);
}
TEST(sigbus_beyond_eof) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
	OK(write(fd, "x", 1));
	char *m = OK(mmap(NULL, 3 * PG, RW, MAP_SHARED, fd, 0)), *p = OK(mmap(NULL, 3 * PG, RW, MAP_PRIVATE, fd, 0));
	EXPECT_EQ(m[0], 'x');
	EXPECT_EQ(m[PG - 1], 0);
	EXPECT_EQ(FAULT(RD(m + PG)), SIGBUS);
	EXPECT_EQ(si.si_code, BUS_ADRERR);
	EXPECT_EQ(si.si_addr, m + PG);
	EXPECT_EQ(FAULT(WR(p + 2 * PG)), SIGBUS);
	OK(ftruncate(fd, 3 * PG));
	RD(m + PG);
	WR(p + 2 * PG);
	OK(ftruncate(fd, PG));
	EXPECT_EQ(FAULT(RD(m + PG)), SIGBUS);
	EXPECT_EQ(FAULT(RD(p + 2 * PG)), SIGBUS); /* truncation takes private copies away too */
}
TEST(efault_beyond_eof) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0644)), q[2];
	char *m = OK(mmap(NULL, PG, RW, MAP_SHARED, fd, 0));
	OK(pipe(q));
	ERR(write(q[1], m, 10), EFAULT);
	OK(write(q[1], "abc", 3));
	ERR(read(q[0], m, 10), EFAULT);
}
TEST(fork_cow) {
	char *m = anon(64 * PG);
	memset(m, 1, 64 * PG);
	pid_t c = CHILD(for (int i = 0; i < 64; i++) EXPECT_EQ(m[i * PG], 1); memset(m, 2, 64 * PG); for (int i = 0; i < 64; i++) EXPECT_EQ(m[i * PG], 2));
	EXPECT_EXIT(c, 0);
	for (int i = 0; i < 64; i++) EXPECT_EQ(m[i * PG + 5], 1);
	int p[2], q[2];
	OK(pipe(p));
	OK(pipe(q));
	c = CHILD(char b; OK(read(p[0], &b, 1)); for (int i = 0; i < 64; i++) EXPECT_EQ(m[i * PG], 1); OK(write(q[1], "x", 1)));
	memset(m, 3, 64 * PG);
	OK(write(p[1], "x", 1));
	EXPECT_EXIT(c, 0);
	/* and the kernel's own writes break sharing too */
	OK(write(p[1], "kernel", 6));
	c = CHILD(EXPECT_EQ(read(p[0], m, 6), 6); EXPECT_MEM(m, "kernel", 6));
	EXPECT_EXIT(c, 0);
	EXPECT_EQ(m[0], 3);
	/* three generations */
	IN_CHILD(m[0] = 4; IN_CHILD(EXPECT_EQ(m[0], 4); m[0] = 5; IN_CHILD(EXPECT_EQ(m[0], 5); EXPECT_EQ(m[PG], 3))); EXPECT_EQ(m[0], 4));
	EXPECT_EQ(m[0], 3);
}
TEST(fork_shared_anon) {
	int *m = OK(mmap(NULL, PG, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	IN_CHILD(*m = 42);
	EXPECT_EQ(*m, 42);
	char *z = OK(mmap(NULL, PG, RW, MAP_SHARED, OK(open("/dev/zero", O_RDWR)), 0));
	IN_CHILD(z[5] = 9);
	EXPECT_EQ(z[5], 9);
	char *y = OK(mmap(NULL, PG, RW, MAP_PRIVATE, OK(open("/dev/zero", O_RDWR)), 0));
	EXPECT_EQ(y[0], 0);
	IN_CHILD(y[5] = 9);
	EXPECT_EQ(y[5], 0);
}
TEST(mremap_grow_shrink) {
	char *m = anon(2 * PG);
	memset(m, 5, 2 * PG);
	char *n = OK(mremap(m, 2 * PG, 100 * PG, MREMAP_MAYMOVE));
	EXPECT_EQ(n[2 * PG - 1], 5);
	EXPECT_EQ(n[2 * PG], 0);
	n[99 * PG] = 1;
	if (n != m) EXPECT_EQ(FAULT(RD(m)), SIGSEGV);
	EXPECT_EQ(OK(mremap(n, 100 * PG, PG, 0)), n);
	EXPECT_EQ(n[0], 5);
	EXPECT_EQ(FAULT(RD(n + PG)), SIGSEGV);
}
TEST(mremap_fixed) {
	char *m = anon(2 * PG), *t = anon(4 * PG);
	memset(m, 5, 2 * PG);
	memset(t, 6, 4 * PG);
	EXPECT_EQ(OK(mremap(m, 2 * PG, 2 * PG, MREMAP_MAYMOVE | MREMAP_FIXED, t + PG)), t + PG);
	EXPECT_EQ(t[0], 6);
	EXPECT_EQ(t[PG], 5);
	EXPECT_EQ(t[2 * PG], 5);
	EXPECT_EQ(t[3 * PG], 6);
	EXPECT_EQ(FAULT(RD(m)), SIGSEGV);
	ERR(mremap(t, PG, PG, MREMAP_FIXED, m), EINVAL);
	ERR(mremap(t + 1, PG, PG, MREMAP_MAYMOVE), EINVAL);
	ERR(mremap(t, PG, 0, MREMAP_MAYMOVE), EINVAL);
	ERR(mremap(t, 4 * PG, 4 * PG, MREMAP_MAYMOVE | MREMAP_FIXED, t + PG), EINVAL);
	ERR(mremap(m, PG, 2 * PG, MREMAP_MAYMOVE), EFAULT);
}
TEST(mremap_no_move_blocked) {
	char *m = anon(3 * PG);
	OK(mmap(m + PG, PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ERR(mremap(m, PG, 2 * PG, 0), ENOMEM);
	ERR(mremap(m, 2 * PG, 3 * PG, MREMAP_MAYMOVE), EFAULT);
}
TEST(mremap_shared_file) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
	OK(ftruncate(fd, 8 * PG));
	OK(pwrite(fd, "tail", 4, 5 * PG));
	char *m = OK(mmap(NULL, PG, RW, MAP_SHARED, fd, 0));
	m = OK(mremap(m, PG, 8 * PG, MREMAP_MAYMOVE));
	EXPECT_MEM(m + 5 * PG, "tail", 4);
	/* old size 0 duplicates a shared mapping */
	char *d = OK(mremap(m, 0, PG, MREMAP_MAYMOVE));
	m[0] = 'q';
	EXPECT_EQ(d[0], 'q');
}
TEST(huge_reservation) {
	size_t n = 64UL << 30;
	int64_t t = now_ms();
	char *m = OK(mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	EXPECT_EQ(FAULT(RD(m + n / 2)), SIGSEGV);
	OK(mprotect(m + n / 2, 16 * PG, RW));
	memset(m + n / 2, 1, 16 * PG);
	OK(mprotect(m + n - PG, PG, RW));
	m[n - 1] = 2;
	EXPECT_EQ(FAULT(RD(m + n / 2 + 16 * PG)), SIGSEGV);
	IN_CHILD(EXPECT_EQ(m[n / 2], 1); EXPECT_EQ(m[n - 1], 2));
	OK(munmap(m, n));
	EXPECT_LT(now_ms() - t, 3000);
}
TEST(huge_rw_noreserve) {
	size_t n = 16UL << 30;
	char *m = OK(mmap(NULL, n, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	for (size_t o = 0; o < n; o += n / 16) m[o] = 1;
	for (size_t o = 0; o < n; o += n / 16) EXPECT_EQ(m[o + 1], 0);
	OK(munmap(m, n));
}
TEST(madvise_dontneed) {
	char *m = anon(4 * PG);
	memset(m, 9, 4 * PG);
	OK(madvise(m + PG, 2 * PG, MADV_DONTNEED));
	EXPECT_EQ(m[0], 9);
	EXPECT_EQ(m[PG], 0);
	EXPECT_EQ(m[3 * PG - 1], 0);
	EXPECT_EQ(m[3 * PG], 9);
	PUT("f", "file");
	int fd = OK(open("f", O_RDWR));
	char *p = OK(mmap(NULL, PG, RW, MAP_PRIVATE, fd, 0));
	p[0] = 'X';
	OK(madvise(p, PG, MADV_DONTNEED));
	EXPECT_EQ(p[0], 'f');
	ERR(madvise(m + 1, PG, MADV_DONTNEED), EINVAL);
	ERR(madvise(m, PG, 9999), EINVAL);
	OK(madvise(m, 0, MADV_DONTNEED));
	OK(munmap(m + PG, PG));
	ERR(madvise(m, 4 * PG, MADV_DONTNEED), ENOMEM);
	EXPECT_EQ(m[0], 0);
	EXPECT_EQ(m[3 * PG], 0);
	OK(madvise(m, PG, MADV_NORMAL));
	OK(madvise(m, PG, MADV_WILLNEED));
	OK(madvise(m, PG, MADV_FREE));
}
TEST(madvise_dontneed_after_fork) {
	char *m = anon(PG);
	m[0] = 1;
	IN_CHILD(OK(madvise(m, PG, MADV_DONTNEED)); EXPECT_EQ(m[0], 0));
	EXPECT_EQ(m[0], 1);
	OK(madvise(m, PG, MADV_DONTFORK));
	pid_t c = CHILD(RD(m));
	EXPECT_KILLED(c, SIGSEGV);
	OK(madvise(m, PG, MADV_DOFORK));
	OK(madvise(m, PG, MADV_WIPEONFORK));
	IN_CHILD(EXPECT_EQ(m[0], 0));
	EXPECT_EQ(m[0], 1);
}
TEST(madvise_remove_shared) {
	char *m = OK(mmap(NULL, 2 * PG, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	memset(m, 1, 2 * PG);
	OK(madvise(m, PG, MADV_REMOVE));
	EXPECT_EQ(m[0], 0);
	EXPECT_EQ(m[PG], 1);
	m[PG] = 3;
	OK(madvise(m, 2 * PG, MADV_DONTNEED));
	EXPECT_EQ(m[PG], 3);
}
TEST(msync_all) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
	OK(ftruncate(fd, 2 * PG));
	char *m = OK(mmap(NULL, 2 * PG, RW, MAP_SHARED, fd, 0));
	m[0] = 'z';
	OK(msync(m, 2 * PG, MS_SYNC));
	OK(msync(m, 2 * PG, MS_ASYNC));
	OK(msync(m, 2 * PG, MS_INVALIDATE));
	ERR(msync(m, PG, MS_SYNC | MS_ASYNC), EINVAL);
	ERR(msync(m + 1, PG, MS_SYNC), EINVAL);
	OK(munmap(m + PG, PG));
	ERR(msync(m, 2 * PG, MS_SYNC), ENOMEM);
	ERR(msync(m, PG, 64), EINVAL);
	char c;
	EXPECT_EQ(pread(fd, &c, 1, 0), 1);
	EXPECT_EQ(c, 'z');
}
TEST(mincore_all) {
	char *m = anon(4 * PG);
	unsigned char v[4];
	m[0] = 1;
	m[2 * PG] = 1;
	OK(mincore(m, 4 * PG, v));
	EXPECT_EQ(v[0] & 1, 1);
	EXPECT_EQ(v[2] & 1, 1);
	ERR(mincore(m + 1, PG, v), EINVAL);
	OK(munmap(m + PG, PG));
	ERR(mincore(m, 4 * PG, v), ENOMEM);
	ERR(mincore(m, PG, (void *)8), EFAULT);
}
TEST(mlock_all) {
	char *m = anon(2 * PG);
	OK(mlock(m, 2 * PG));
	OK(munlock(m, 2 * PG));
	OK(munmap(m + PG, PG));
	ERR(mlock(m, 2 * PG), ENOMEM);
	OK(mlockall(MCL_CURRENT));
	OK(munlockall());
	ERR(mlockall(0), EINVAL);
	ERR(mlockall(99), EINVAL);
}
TEST(brk_moves) {
	char *b = (char *)syscall(SYS_brk, 0);
	EXPECT_EQ(syscall(SYS_brk, b + 10 * PG), b + 10 * PG);
	b[0] = 1;
	b[10 * PG - 1] = 1;
	EXPECT_EQ(syscall(SYS_brk, b + 100), b + 100);
	EXPECT_EQ(syscall(SYS_brk, b + 10 * PG), b + 10 * PG);
	EXPECT_EQ(b[2 * PG], 0);
	EXPECT_EQ(syscall(SYS_brk, (char *)100), b + 10 * PG);
	EXPECT_EQ(syscall(SYS_brk, (char *)-100), b + 10 * PG);
	EXPECT_EQ(syscall(SYS_brk, b), b);
}
static int deep(int n) { volatile char b[8192]; b[0] = n; b[8191] = n; return n ? deep(n - 1) + b[0] - b[8191] : 0; }
TEST(stack_grows) {
	EXPECT_EQ(deep(700), 0); /* 5.6 MB of the 8 */
	struct rlimit rl;
	OK(getrlimit(RLIMIT_STACK, &rl));
	pid_t c = CHILD(deep(1 << 24));
	EXPECT_KILLED(c, SIGSEGV);
}
TEST(growsdown_map) {
	char *m = anon(64 * PG);
	OK(munmap(m, 64 * PG));
	/* keep a wide gap below so the guard gap does not stop it */
	char *g = mmap(m + 60 * PG, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
	OK(g);
	g[0] = 1;
	if (g == m + 60 * PG) g[-1] = 2;
}
TEST(rlimit_as) {
	struct rlimit rl = {200 << 20, 200 << 20};
	OK(setrlimit(RLIMIT_AS, &rl));
	ERR(mmap(NULL, 400 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
	OK(mmap(NULL, 10 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	rl = (struct rlimit){1 << 20, 1 << 20};
	OK(setrlimit(RLIMIT_DATA, &rl));
	char *b = (char *)syscall(SYS_brk, 0);
	EXPECT_EQ(syscall(SYS_brk, b + (10 << 20)), b);
}
TEST(process_vm_rw) {
	char *m = anon(PG);
	int p[2], q[2];
	OK(pipe(p));
	OK(pipe(q));
	strcpy(m, "before");
	pid_t c = CHILD(char x; strcpy(m, "childs"); OK(write(q[1], "r", 1)); OK(read(p[0], &x, 1)); EXPECT_STR(m, "parent"));
	char b[16] = "", x;
	OK(read(q[0], &x, 1));
	struct iovec l = {b, 7}, r = {m, 7};
	ssize_t n = process_vm_readv(c, &l, 1, &r, 1, 0);
	if (n < 0 && errno == ENOSYS) { OK(kill(c, SIGKILL)); SKIP("no process_vm_readv"); }
	EXPECT_EQ(n, 7);
	EXPECT_STR(b, "childs");
	strcpy(b, "parent");
	EXPECT_EQ(process_vm_writev(c, &l, 1, &r, 1, 0), 7);
	OK(write(p[1], "x", 1));
	EXPECT_EXIT(c, 0);
	ERR(process_vm_readv(999999, &l, 1, &r, 1, 0), ESRCH);
	ERR(process_vm_readv(getpid(), &l, 1, &r, 1, 1), EINVAL);
}
TEST(maps_many) {
	char *m = anon(2000 * PG);
	for (int i = 0; i < 2000; i += 2) OK(mprotect(m + i * PG, PG, PROT_READ));
	for (int i = 1; i < 2000; i += 2) m[i * PG] = i;
	IN_CHILD(for (int i = 1; i < 2000; i += 2) EXPECT_EQ(m[i * PG], (char)i); m[PG] = 0);
	OK(mprotect(m, 2000 * PG, RW));
	for (int i = 1; i < 2000; i += 2) EXPECT_EQ(m[i * PG], (char)i);
	OK(munmap(m, 2000 * PG));
}
TEST(fault_in_syscall_buffer_first_touch) {
	PUT("f", "data");
	char *m = anon(PG);
	int fd = OK(open("f", O_RDONLY));
	EXPECT_EQ(read(fd, m + 10, 4), 4);
	EXPECT_MEM(m + 10, "data", 4);
	OK(mprotect(m, PG, PROT_READ));
	ERR(pread(fd, m, 4, 0), EFAULT);
	OK(mprotect(m, PG, PROT_NONE));
	int p[2];
	OK(pipe(p));
	ERR(write(p[1], m, 4), EFAULT);
}
TEST(shared_fork_exec_memfd) {
	int fd = OK(memfd_create("m", 0));
	OK(ftruncate(fd, 4 * PG));
	char *m = OK(mmap(NULL, 4 * PG, RW, MAP_SHARED, fd, 0));
	m[0] = 'a';
	IN_CHILD(char *n = OK(mmap(NULL, 4 * PG, RW, MAP_SHARED, fd, 0)); EXPECT_EQ(n[0], 'a'); n[PG] = 'b');
	EXPECT_EQ(m[PG], 'b');
	OK(ftruncate(fd, PG));
	EXPECT_EQ(FAULT(RD(m + PG)), SIGBUS);
}
TEST(sealed_shared_mapping) {
	int fd = OK(memfd_create("m", MFD_ALLOW_SEALING));
	OK(ftruncate(fd, PG));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	ERR(mmap(NULL, PG, RW, MAP_SHARED, fd, 0), EPERM);
	char *m = OK(mmap(NULL, PG, PROT_READ, MAP_SHARED, fd, 0));
	ERR(mprotect(m, PG, RW), EACCES);
	char *p = OK(mmap(NULL, PG, PROT_READ, MAP_PRIVATE, fd, 0));
	OK(mprotect(p, PG, RW));
	p[0] = 'x';
	EXPECT_EQ(m[0], 0);
}
TEST(anon_name) {
	char *m = anon(2 * PG), line[256];
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, m, PG, "pool 1"))
		SKIP("the kernel gives no names to memory");
	FILE *f = OK(fopen("/proc/self/maps", "r"));
	int named = 0;
	while (fgets(line, sizeof line, f))
		named += strstr(line, " [anon:pool 1]\n") != NULL;
	EXPECT_EQ(named, 1);
}
TEST(remap_file_pages_wraps) {
	int fd = OK(memfd_create("m", 0));
	OK(ftruncate(fd, 2 * PG));
	char *m = OK(mmap(NULL, 2 * PG, RW, MAP_SHARED, fd, 0));
	ERR(syscall(SYS_remap_file_pages, m, 2 * PG, 0, (1ul << 52) - 1, 0), EOVERFLOW);
}
TEST(populate_and_flags) {
	char *m = OK(mmap(NULL, 100 * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
	EXPECT_EQ(m[99 * PG], 0);
	OK(mmap(NULL, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0));
	char *l = OK(mmap(NULL, PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0));
	l[0] = 1;
}
MAIN()
