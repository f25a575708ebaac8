/* dup, fcntl, close_range, ioctl FIOCLEX and FIONBIO. */
#include "harness.h"
#include <linux/close_range.h>

TEST(dup_family) {
	int a = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
	int b = OK(dup(a));
	EXPECT_EQ(fcntl(b, F_GETFD), 0);
	EXPECT_EQ(dup2(a, 50), 50);
	EXPECT_EQ(dup2(a, a), a);
	EXPECT_EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(dup3(a, 51, O_CLOEXEC), 51);
	EXPECT_EQ(fcntl(51, F_GETFD), FD_CLOEXEC);
	ERR(dup3(a, a, 0), EINVAL);
	ERR(dup3(a, 52, 4), EINVAL);
	ERR(dup2(-1, 53), EBADF);
	ERR(dup2(a, -1), EBADF);
	ERR(dup2(999, 999), EBADF);
	ERR(dup(-1), EBADF);
	ERR(dup2(a, 1 << 30), EBADF);
	ERR(dup3(999, 999, 0), EINVAL);
}
TEST(dup2_closes_target) {
	int p[2];
	OK(pipe(p));
	int n = OK(open("/dev/null", O_RDONLY));
	OK(dup2(n, p[1]));
	char c;
	EXPECT_EQ(read(p[0], &c, 1), 0);
}
TEST(f_dupfd) {
	int a = OK(open("/dev/null", O_RDONLY));
	EXPECT_EQ(fcntl(a, F_DUPFD, 40), 40);
	EXPECT_EQ(fcntl(a, F_DUPFD, 40), 41);
	EXPECT_EQ(fcntl(a, F_DUPFD_CLOEXEC, 40), 42);
	EXPECT_EQ(fcntl(42, F_GETFD), FD_CLOEXEC);
	ERR(fcntl(a, F_DUPFD, -1), EINVAL);
	ERR(fcntl(-1, F_DUPFD, 0), EBADF);
	ERR(fcntl(a, 12345), EINVAL);
}
TEST(getfl_setfl) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	int d = OK(dup(fd));
	EXPECT_EQ(fcntl(fd, F_GETFL) & ~0100000, O_RDWR);
	OK(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK | O_WRONLY | O_CREAT));
	EXPECT_EQ(fcntl(d, F_GETFL) & ~0100000, O_RDWR | O_APPEND | O_NONBLOCK);
	OK(fcntl(fd, F_SETFL, 0));
	EXPECT_EQ(fcntl(d, F_GETFL) & ~0100000, O_RDWR);
	OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
	EXPECT_EQ(fcntl(d, F_GETFD), 0);
	ERR(fcntl(-1, F_GETFL), EBADF);
}
TEST(close_range_all) {
	for (int i = 100; i < 110; i++) OK(dup2(0, i));
	OK(syscall(SYS_close_range, 102, 105, 0));
	OK(fcntl(101, F_GETFD));
	ERR(fcntl(102, F_GETFD), EBADF);
	ERR(fcntl(105, F_GETFD), EBADF);
	OK(fcntl(106, F_GETFD));
	OK(syscall(SYS_close_range, 106, ~0U, CLOSE_RANGE_CLOEXEC));
	EXPECT_EQ(fcntl(106, F_GETFD), FD_CLOEXEC);
	ERR(syscall(SYS_close_range, 5, 4, 0), EINVAL);
	ERR(syscall(SYS_close_range, 4, 5, 64), EINVAL);
	OK(syscall(SYS_close_range, 200, 250, 0));
	OK(syscall(SYS_close_range, 106, 107, CLOSE_RANGE_UNSHARE));
	ERR(fcntl(107, F_GETFD), EBADF);
}
TEST(ioctl_common) {
	int p[2];
	OK(pipe(p));
	OK(ioctl(p[0], FIOCLEX));
	EXPECT_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	OK(ioctl(p[0], FIONCLEX));
	EXPECT_EQ(fcntl(p[0], F_GETFD), 0);
	int on = 1, n = -1;
	OK(ioctl(p[0], FIONBIO, &on));
	EXPECT_EQ(fcntl(p[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	on = 0;
	OK(ioctl(p[0], FIONBIO, &on));
	EXPECT_EQ(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
	OK(write(p[1], "abc", 3));
	OK(ioctl(p[0], FIONREAD, &n));
	EXPECT_EQ(n, 3);
	ERR(ioctl(p[0], 0xdeadbeef, &n), ENOTTY);
	ERR(ioctl(-1, FIONREAD, &n), EBADF);
	PUT("f", "hello");
	int fd = OK(open("f", O_RDONLY));
	OK(ioctl(fd, FIONREAD, &n));
	EXPECT_EQ(n, 5);
	ERR(ioctl(fd, TCGETS, &n), ENOTTY);
	EXPECT_EQ(isatty(fd), 0);
}
TEST(pipe_size) {
	int p[2];
	OK(pipe(p));
	EXPECT_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
	EXPECT_EQ(fcntl(p[0], F_SETPIPE_SZ, 5000), 8192);
	EXPECT_EQ(fcntl(p[1], F_GETPIPE_SZ), 8192);
	ERR(fcntl(0, F_SETPIPE_SZ, 4096), EBADF);
	char b[8192];
	memset(b, 1, sizeof b);
	OK(write(p[1], b, 8192));
	ERR(fcntl(p[0], F_SETPIPE_SZ, 4096), EBUSY);
}
TEST(fork_copies_table) {
	int fd = OK(open("/dev/null", O_RDONLY));
	IN_CHILD(OK(close(fd)));
	OK(fcntl(fd, F_GETFD));
}
TEST(owner_and_sig) {
	int p[2];
	OK(pipe(p));
	OK(fcntl(p[0], F_SETOWN, getpid()));
	EXPECT_EQ(fcntl(p[0], F_GETOWN), getpid());
	OK(fcntl(p[0], F_SETSIG, SIGUSR1));
	EXPECT_EQ(fcntl(p[0], F_GETSIG), SIGUSR1);
	ERR(fcntl(p[0], F_SETSIG, 99), EINVAL);
}
TEST(memfd) {
	int fd = OK(memfd_create("name", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	OK(write(fd, "hello", 5));
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_size, 5);
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(fcntl(fd, F_GET_SEALS), 0);
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	ERR(ftruncate(fd, 0), EPERM);
	OK(ftruncate(fd, 10));
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	ERR(ftruncate(fd, 20), EPERM);
	ERR(pwrite(fd, "x", 1, 10), EPERM);
	OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
	ERR(pwrite(fd, "x", 1, 0), EPERM);
	ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	EXPECT_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	int g = OK(memfd_create("x", 0));
	EXPECT_EQ(fcntl(g, F_GET_SEALS), F_SEAL_SEAL);
	ERR(memfd_create("x", 0x8000), EINVAL);
	char l[64], p[64];
	snprintf(p, 64, "/proc/self/fd/%d", g);
	ssize_t n = OK(readlink(p, l, 63));
	l[n] = 0;
	EXPECT_STR(l, "/memfd:x (deleted)");
}
TEST(kcmp_file) {
	int a = OK(open("/dev/null", O_RDONLY)), b = dup(a), c = OK(open("/dev/null", O_RDONLY));
	long r = syscall(SYS_kcmp, getpid(), getpid(), 0, a, b);
	if (r < 0 && errno == ENOSYS) SKIP("no kcmp");
	EXPECT_EQ(r, 0);
	EXPECT_NE(syscall(SYS_kcmp, getpid(), getpid(), 0, a, c), 0);
}
MAIN()
