/* read, write, pread, pwrite, readv, writev, preadv2, lseek. */
#include "harness.h"

TEST(read_basic) {
	PUT("f", "hello world");
	int fd = OK(open("f", O_RDONLY));
	char b[32];
	EXPECT_EQ(read(fd, b, 5), 5);
	EXPECT_MEM(b, "hello", 5);
	EXPECT_EQ(read(fd, b, sizeof b), 6);
	EXPECT_MEM(b, " world", 6);
	EXPECT_EQ(read(fd, b, sizeof b), 0);
	EXPECT_EQ(read(fd, b, 0), 0);
}
TEST(read_errors) {
	char b[4];
	ERR(read(-1, b, 1), EBADF);
	ERR(read(999, b, 1), EBADF);
	ERR(read(999, NULL, 1), EBADF);
	PUT("f", "abc");
	int w = OK(open("f", O_WRONLY));
	ERR(read(w, b, 1), EBADF);
	ERR(read(w, b, 0), EBADF);
	int d = OK(open(".", O_RDONLY));
	ERR(read(d, b, 1), EISDIR);
	int fd = OK(open("f", O_RDONLY));
	ERR(read(fd, (void *)8, 2), EFAULT);
	ERR(read(fd, (void *)-4096L, 2), EFAULT);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 0);
	int p = OK(open("f", O_PATH));
	ERR(read(p, b, 1), EBADF);
}
TEST(write_errors) {
	PUT("f", "abc");
	int r = OK(open("f", O_RDONLY));
	ERR(write(r, "x", 1), EBADF);
	ERR(write(r, "x", 0), EBADF);
	ERR(write(-1, "x", 1), EBADF);
	int w = OK(open("f", O_WRONLY));
	ERR(write(w, (void *)8, 2), EFAULT);
	EXPECT_EQ(write(w, (void *)8, 0), 0);
	EXPECT_STR(SLURP("f"), "abc");
}
TEST(read_partial_fault) {
	char *m = OK(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	OK(munmap(m + 4096, 4096));
	PUT("f", "0123456789abcdef");
	int fd = OK(open("f", O_RDONLY));
	/* A read that faults part way gives what it copied, or EFAULT when that is nothing. */
	ssize_t n = read(fd, m + 4096 - 6, 16);
	EXPECT_EQ(n, 6);
	EXPECT_MEM(m + 4096 - 6, "012345", 6);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 6);
	ERR(read(fd, m + 4096, 4), EFAULT);
}
TEST(write_partial_fault_pipe) {
	char *m = OK(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	OK(munmap(m + 4096, 4096));
	memcpy(m + 4090, "abcdef", 6);
	int p[2];
	OK(pipe(p));
	ERR(write(p[1], m + 4096, 4), EFAULT);
	OK(fcntl(p[0], F_SETFL, O_NONBLOCK));
	char b[8];
	ERR(read(p[0], b, 8), EAGAIN);
}
TEST(pread_pwrite) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	EXPECT_EQ(write(fd, "0123456789", 10), 10);
	char b[16];
	EXPECT_EQ(pread(fd, b, 4, 3), 4);
	EXPECT_MEM(b, "3456", 4);
	EXPECT_EQ(pread(fd, b, 16, 8), 2);
	EXPECT_EQ(pread(fd, b, 16, 10), 0);
	EXPECT_EQ(pread(fd, b, 16, 1000), 0);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 10);
	EXPECT_EQ(pwrite(fd, "AB", 2, 20), 2);
	EXPECT_EQ(lseek(fd, 0, SEEK_END), 22);
	EXPECT_EQ(pread(fd, b, 16, 10), 12);
	EXPECT_MEM(b, "\0\0\0\0\0\0\0\0\0\0AB", 12);
	ERR(pread(fd, b, 1, -1), EINVAL);
	ERR(pwrite(fd, b, 1, -1), EINVAL);
	ERR(pread(-1, b, 1, 0), EBADF);
	ERR(pread(-1, b, 1, -1), EINVAL);
}
TEST(pread_pipe_espipe) {
	int p[2];
	char b[1];
	OK(pipe(p));
	ERR(pread(p[0], b, 1, 0), ESPIPE);
	ERR(pwrite(p[1], b, 1, 0), ESPIPE);
	ERR(lseek(p[0], 0, SEEK_SET), ESPIPE);
}
TEST(lseek_all) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDWR));
	EXPECT_EQ(lseek(fd, 3, SEEK_SET), 3);
	EXPECT_EQ(lseek(fd, 4, SEEK_CUR), 7);
	EXPECT_EQ(lseek(fd, -7, SEEK_CUR), 0);
	ERR(lseek(fd, -1, SEEK_CUR), EINVAL);
	EXPECT_EQ(lseek(fd, 5, SEEK_END), 15);
	ERR(lseek(fd, -11, SEEK_END), EINVAL);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 15);
	ERR(lseek(fd, 0, 77), EINVAL);
	ERR(lseek(fd, -1, SEEK_SET), EINVAL);
	ERR(lseek(-1, 0, SEEK_SET), EBADF);
	char b[4];
	EXPECT_EQ(read(fd, b, 4), 0);
}
TEST(append) {
	PUT("f", "abc");
	int a = OK(open("f", O_WRONLY | O_APPEND));
	int w = OK(open("f", O_WRONLY));
	EXPECT_EQ(write(a, "d", 1), 1);
	EXPECT_EQ(lseek(a, 0, SEEK_CUR), 4);
	EXPECT_EQ(lseek(a, 0, SEEK_SET), 0);
	EXPECT_EQ(write(a, "e", 1), 1);
	EXPECT_EQ(write(w, "X", 1), 1);
	/* pwrite(2) BUGS: on Linux O_APPEND appends whatever the offset. */
	EXPECT_EQ(pwrite(a, "f", 1, 0), 1);
	EXPECT_STR(SLURP("f"), "Xbcdef");
}
TEST(offset_shared_by_dup_and_fork) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDONLY)), d = OK(dup(fd));
	char b[4];
	EXPECT_EQ(read(fd, b, 3), 3);
	EXPECT_EQ(lseek(d, 0, SEEK_CUR), 3);
	IN_CHILD(EXPECT_EQ(read(fd, b, 3), 3));
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 6);
	int o = OK(open("f", O_RDONLY));
	EXPECT_EQ(lseek(o, 0, SEEK_CUR), 0);
}
TEST(readv_writev) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	struct iovec v[3] = {{"ab", 2}, {NULL, 0}, {"cde", 3}};
	EXPECT_EQ(writev(fd, v, 3), 5);
	char a[3] = "", b[10] = "";
	struct iovec r[2] = {{a, 2}, {b, 10}};
	EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
	EXPECT_EQ(readv(fd, r, 2), 5);
	EXPECT_STR(a, "ab");
	EXPECT_STR(b, "cde");
	EXPECT_EQ(readv(fd, r, 0), 0);
	ERR(readv(fd, r, -1), EINVAL);
	ERR(readv(fd, r, 1025), EINVAL);
	ERR(readv(fd, (void *)8, 1), EFAULT);
	ERR(readv(-1, (void *)8, 1), EBADF);
	struct iovec bad[2] = {{a, 2}, {b, (size_t)-1}};
	ERR(readv(fd, bad, 2), EINVAL);
}
TEST(writev_partial_bad_second) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	struct iovec v[2] = {{"ab", 2}, {(void *)8, 3}};
	ssize_t n = writev(fd, v, 2);
	/* What comes before the fault may be written; page-cache file systems do. */
	EXPECT_TRUE(n == 2 || (n == -1 && errno == EFAULT));
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_size, n == 2 ? 2 : 0);
}
TEST(preadv2_flags) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDWR));
	char b[8];
	struct iovec v = {b, 4};
	EXPECT_EQ(preadv2(fd, &v, 1, 2, 0), 4);
	EXPECT_MEM(b, "2345", 4);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 0);
	EXPECT_EQ(preadv2(fd, &v, 1, -1, 0), 4);
	EXPECT_MEM(b, "0123", 4);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 4);
	ERR(preadv2(fd, &v, 1, 0, 0x40000000), EOPNOTSUPP);
	ERR(preadv(fd, &v, 1, -1), EINVAL);
	struct iovec w = {"XY", 2};
	EXPECT_EQ(pwritev2(fd, &w, 1, 0, RWF_APPEND), 2);
	EXPECT_STR(SLURP("f"), "0123456789XY");
	EXPECT_EQ(pwritev2(fd, &w, 1, 0, RWF_SYNC | RWF_DSYNC), 2);
	EXPECT_STR(SLURP("f"), "XY23456789XY");
}
TEST(big_io) {
	size_t n = 3 << 20;
	char *a = malloc(n), *b = malloc(n);
	for (size_t i = 0; i < n; i++) a[i] = i * 7 + (i >> 12);
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	EXPECT_EQ(write(fd, a, n), n);
	EXPECT_EQ(pread(fd, b, n, 0), n);
	EXPECT_MEM(a, b, n);
	EXPECT_EQ(pread(fd, b, n, 12345), n - 12345);
	EXPECT_MEM(a + 12345, b, n - 12345);
}
TEST(huge_count_is_clamped) {
	PUT("f", "abc");
	int fd = OK(open("f", O_RDONLY));
	char *m = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	EXPECT_EQ(read(fd, m, 0x7fffffff), 3);
	/* A count whose range wraps round or leaves user space is EFAULT at once. */
	ERR(read(fd, m, (size_t)-1), EFAULT);
}
TEST(rlimit_fsize) {
	struct rlimit rl = {10, 10};
	OK(setrlimit(RLIMIT_FSIZE, &rl));
	signal(SIGXFSZ, SIG_IGN);
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	EXPECT_EQ(write(fd, "0123456", 7), 7);
	EXPECT_EQ(write(fd, "789abc", 6), 3);
	ERR(write(fd, "x", 1), EFBIG);
	ERR(ftruncate(fd, 11), EFBIG);
	OK(ftruncate(fd, 10));
	ERR(pwrite(fd, "x", 1, 10), EFBIG);
	EXPECT_EQ(write(fd, "", 0), 0);
	signal(SIGXFSZ, SIG_DFL);
	EXPECT_KILLED(CHILD(if (write(fd, "x", 1)) {}), SIGXFSZ);
}
TEST(write_maxoff) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	ERR(pwrite(fd, "x", 1, LLONG_MAX), EINVAL);
	ERR(pwrite(fd, "x", 1, LLONG_MAX - 1), EFBIG);
	char c;
	EXPECT_EQ(pread(fd, &c, 1, LLONG_MAX - 1), 0);
	ERR(pread(fd, &c, 8, LLONG_MAX - 1), EINVAL);
}
TEST(devnull_zero_full) {
	char b[16];
	memset(b, 1, sizeof b);
	int n = OK(open("/dev/null", O_RDWR)), z = OK(open("/dev/zero", O_RDWR)), f = OK(open("/dev/full", O_RDWR));
	EXPECT_EQ(read(n, b, 16), 0);
	EXPECT_EQ(write(n, b, 16), 16);
	EXPECT_EQ(write(n, (void *)8, 16), 16);
	EXPECT_EQ(read(z, b, 16), 16);
	EXPECT_EQ(b[15], 0);
	EXPECT_EQ(write(z, b, 16), 16);
	ERR(write(f, b, 1), ENOSPC);
	EXPECT_EQ(read(f, b, 16), 16);
	EXPECT_EQ(lseek(n, 100, SEEK_SET), 0);
}
TEST(sparse_file_reads_zero) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	EXPECT_EQ(pwrite(fd, "end", 3, 1 << 20), 3);
	char b[4096];
	memset(b, 1, sizeof b);
	EXPECT_EQ(pread(fd, b, 4096, 500000), 4096);
	for (int i = 0; i < 4096; i++) EXPECT_EQ(b[i], 0);
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_size, (1 << 20) + 3);
	EXPECT_LT(st.st_blocks, 2048);
}
TEST(concurrent_appends_do_not_tear) {
	int fd = OK(open("f", O_RDWR | O_CREAT | O_APPEND, 0600));
	pid_t p[4];
	for (int k = 0; k < 4; k++)
		p[k] = CHILD(char line[64]; memset(line, 'a' + k, 63); line[63] = '\n';
			for (int i = 0; i < 100; i++) EXPECT_EQ(write(fd, line, 64), 64));
	for (int k = 0; k < 4; k++) EXPECT_EXIT(p[k], 0);
	char *s = SLURP("f");
	EXPECT_EQ(strlen(s), 4 * 100 * 64);
	for (int i = 0; i < 400; i++)
		for (int j = 1; j < 63; j++) EXPECT_EQ(s[i * 64 + j], s[i * 64]);
}
TEST(unlinked_file_lives) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	OK(unlink("f"));
	EXPECT_EQ(write(fd, "abc", 3), 3);
	char b[4];
	EXPECT_EQ(pread(fd, b, 4, 0), 3);
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_nlink, 0);
	EXPECT_EQ(st.st_size, 3);
}
TEST(sync_family) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	OK(write(fd, "abc", 3));
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(syncfs(fd));
	OK(sync_file_range(fd, 0, 3, SYNC_FILE_RANGE_WRITE));
	ERR(fsync(-1), EBADF);
	int p[2];
	OK(pipe(p));
	ERR(fsync(p[0]), EINVAL);
	OK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	EXPECT_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
	EXPECT_EQ(posix_fadvise(p[0], 0, 0, POSIX_FADV_NORMAL), ESPIPE);
	OK(readahead(fd, 0, 100));
}
MAIN()
