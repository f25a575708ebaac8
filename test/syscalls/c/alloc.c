/* truncate, fallocate, SEEK_HOLE, sendfile, copy_file_range. */
#include "harness.h"
#include <sys/sendfile.h>

static int N(void) { return OK(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644)); }
static off_t size(int fd) { struct stat st; OK(fstat(fd, &st)); return st.st_size; }

TEST(ftruncate_basic) {
	int fd = N();
	OK(write(fd, "0123456789", 10));
	OK(ftruncate(fd, 4));
	EXPECT_EQ(size(fd), 4);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 10);
	OK(ftruncate(fd, 8));
	char b[8];
	EXPECT_EQ(pread(fd, b, 8, 0), 8);
	EXPECT_MEM(b, "0123\0\0\0\0", 8);
	OK(truncate("f", 1 << 20));
	EXPECT_EQ(size(fd), 1 << 20);
	OK(truncate("f", 0));
}
TEST(truncate_errors) {
	int fd = N();
	ERR(ftruncate(fd, -1), EINVAL);
	ERR(ftruncate(-1, 0), EBADF);
	int r = OK(open("f", O_RDONLY));
	ERR(ftruncate(r, 0), EINVAL);
	ERR(truncate("none", 0), ENOENT);
	ERR(truncate(".", 0), EISDIR);
	ERR(truncate("f", -1), EINVAL);
	int d = OK(open(".", O_RDONLY));
	ERR(ftruncate(d, 0), EINVAL);
	int p[2];
	OK(pipe(p));
	ERR(ftruncate(p[1], 0), EINVAL);
	IN_CHILD(OK(chmod(".", 0755)); OK(setresuid(777, 777, 777)); ERR(truncate("f", 0), EACCES));
}
TEST(truncate_zeroes_tail_of_page) {
	int fd = N();
	char b[5000];
	memset(b, 'x', sizeof b);
	OK(write(fd, b, 5000));
	OK(ftruncate(fd, 100));
	OK(ftruncate(fd, 5000));
	EXPECT_EQ(pread(fd, b, 5000, 0), 5000);
	EXPECT_EQ(b[99], 'x');
	for (int i = 100; i < 5000; i++) EXPECT_EQ(b[i], 0);
}
TEST(fallocate_modes) {
	int fd = N();
	OK(fallocate(fd, 0, 0, 10000));
	EXPECT_EQ(size(fd), 10000);
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100000));
	EXPECT_EQ(size(fd), 10000);
	char b[10000];
	memset(b, 'y', sizeof b);
	OK(pwrite(fd, b, 10000, 0));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 5000));
	EXPECT_EQ(pread(fd, b, 10000, 0), 10000);
	EXPECT_EQ(b[999], 'y');
	EXPECT_EQ(b[1000], 0);
	EXPECT_EQ(b[5999], 0);
	EXPECT_EQ(b[6000], 'y');
	ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
	ERR(fallocate(fd, 0, -1, 10), EINVAL);
	ERR(fallocate(fd, 0, 0, 0), EINVAL);
	ERR(fallocate(-1, 0, 0, 1), EBADF);
	int r = OK(open("f", O_RDONLY));
	ERR(fallocate(r, 0, 0, 1), EBADF);
	int p[2];
	OK(pipe(p));
	ERR(fallocate(p[1], 0, 0, 1), ESPIPE);
	int d = OK(open(".", O_RDONLY));
	ERR(fallocate(d, 0, 0, 1), EBADF);
}
TEST(seek_hole_data) {
	int fd = N();
	OK(pwrite(fd, "x", 1, 1 << 20));
	off_t d = OK(lseek(fd, 0, SEEK_DATA)), h = OK(lseek(fd, 0, SEEK_HOLE));
	/* A file system may report the whole file as data. */
	EXPECT_TRUE((d == 1 << 20 && h == 0) || (d == 0 && h == (1 << 20) + 1));
	EXPECT_EQ(lseek(fd, 1 << 20, SEEK_HOLE), (1 << 20) + 1);
	ERR(lseek(fd, (1 << 20) + 1, SEEK_DATA), ENXIO);
	ERR(lseek(fd, (1 << 20) + 1, SEEK_HOLE), ENXIO);
	ERR(lseek(fd, -1, SEEK_DATA), ENXIO);
}
TEST(sendfile_file_to_pipe) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDONLY)), p[2];
	OK(pipe(p));
	off_t o = 3;
	EXPECT_EQ(sendfile(p[1], fd, &o, 4), 4);
	EXPECT_EQ(o, 7);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 0);
	EXPECT_EQ(sendfile(p[1], fd, NULL, 100), 10);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 10);
	EXPECT_EQ(sendfile(p[1], fd, NULL, 100), 0);
	char b[32];
	EXPECT_EQ(read(p[0], b, 32), 14);
	EXPECT_MEM(b, "34560123456789", 14);
}
TEST(sendfile_file_to_file) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDONLY)), g = OK(open("g", O_RDWR | O_CREAT, 0644));
	EXPECT_EQ(sendfile(g, fd, NULL, 10), 10);
	EXPECT_STR(SLURP("g"), "0123456789");
	int a = OK(open("g", O_WRONLY | O_APPEND)), r = OK(open("g", O_RDONLY));
	ERR(sendfile(a, fd, NULL, 1), EINVAL);
	ERR(sendfile(r, fd, NULL, 1), EBADF);
	ERR(sendfile(g, -1, NULL, 1), EBADF);
	off_t o = -1;
	ERR(sendfile(g, fd, &o, 1), EINVAL);
	int p[2];
	OK(pipe(p));
	o = 0;
	ERR(sendfile(g, p[0], &o, 1), ESPIPE);
	ERR(sendfile(g, fd, (void *)8, 1), EFAULT);
}
TEST(copy_file_range_basic) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDWR)), g = OK(open("g", O_RDWR | O_CREAT, 0644));
	off_t i = 2, o = 5;
	ssize_t n = copy_file_range(fd, &i, g, &o, 4, 0);
	if (n < 0 && (errno == ENOSYS || errno == EOPNOTSUPP)) SKIP("no copy_file_range");
	EXPECT_EQ(n, 4);
	EXPECT_EQ(i, 6);
	EXPECT_EQ(o, 9);
	EXPECT_EQ(size(g), 9);
	EXPECT_EQ(copy_file_range(fd, NULL, g, NULL, 100, 0), 10);
	EXPECT_EQ(copy_file_range(fd, NULL, g, NULL, 100, 0), 0);
	ERR(copy_file_range(fd, NULL, g, NULL, 1, 5), EINVAL);
	i = 0; o = 2;
	ERR(copy_file_range(fd, &i, fd, &o, 5, 0), EINVAL);
	int d = OK(open(".", O_RDONLY)), r = OK(open("g", O_RDONLY));
	ERR(copy_file_range(d, NULL, g, NULL, 1, 0), EISDIR);
	ERR(copy_file_range(fd, NULL, r, NULL, 1, 0), EBADF);
}
TEST(stat_blocks_after_fallocate) {
	int fd = N();
	OK(fallocate(fd, 0, 0, 1 << 20));
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_GE(st.st_blocks, 2048);
	OK(ftruncate(fd, 0));
	OK(fstat(fd, &st));
	EXPECT_LT(st.st_blocks, 100);
}
MAIN()
