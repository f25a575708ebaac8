/* pipe, splice, tee, SIGPIPE, atomicity. */
#include "harness.h"
#include <sys/socket.h>

TEST(pipe_basic) {
	int p[2];
	OK(pipe2(p, O_CLOEXEC | O_NONBLOCK));
	EXPECT_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(fcntl(p[0], F_GETFL), O_RDONLY | O_NONBLOCK);
	EXPECT_EQ(fcntl(p[1], F_GETFL), O_WRONLY | O_NONBLOCK);
	char b[8];
	ERR(read(p[0], b, 8), EAGAIN);
	EXPECT_EQ(read(p[0], b, 0), 0);
	EXPECT_EQ(write(p[1], "hello", 5), 5);
	EXPECT_EQ(read(p[0], b, 2), 2);
	EXPECT_EQ(read(p[0], b, 8), 3);
	ERR(read(p[1], b, 1), EBADF);
	ERR(write(p[0], b, 1), EBADF);
	ERR(pipe2(p, 0x100000), EINVAL);
	ERR(pipe((void *)8), EFAULT);
}
TEST(eof_and_epipe) {
	int p[2];
	char b[8];
	OK(pipe(p));
	OK(write(p[1], "ab", 2));
	OK(close(p[1]));
	EXPECT_EQ(read(p[0], b, 8), 2);
	EXPECT_EQ(read(p[0], b, 8), 0);
	EXPECT_EQ(read(p[0], b, 8), 0);
	OK(pipe(p));
	OK(close(p[0]));
	EXPECT_KILLED(CHILD(if (write(p[1], "x", 1)) {}), SIGPIPE);
	signal(SIGPIPE, SIG_IGN);
	ERR(write(p[1], "x", 1), EPIPE);
	EXPECT_EQ(write(p[1], "x", 0), 0);
}
TEST(fill_nonblock) {
	int p[2];
	OK(pipe2(p, O_NONBLOCK));
	char *b = calloc(1, 100000);
	EXPECT_EQ(write(p[1], b, 100000), 65536);
	ERR(write(p[1], b, 1), EAGAIN);
	struct pollfd f = {p[1], POLLOUT, 0};
	EXPECT_EQ(poll(&f, 1, 0), 0);
	EXPECT_EQ(read(p[0], b, 4096), 4096);
	EXPECT_EQ(poll(&f, 1, 0), 1);
	/* at most PIPE_BUF bytes go whole or not at all */
	EXPECT_EQ(write(p[1], b, 4096), 4096);
	ERR(write(p[1], b, 4096), EAGAIN);
}
TEST(blocking_write_completes) {
	int p[2];
	OK(pipe(p));
	size_t n = 300000;
	char *b = malloc(n);
	for (size_t i = 0; i < n; i++) b[i] = i * 31;
	pid_t c = CHILD(EXPECT_EQ(write(p[1], b, n), n));
	OK(close(p[1]));
	char *r = malloc(n);
	size_t got = 0;
	ssize_t k;
	while ((k = OK(read(p[0], r + got, 7001 < n - got ? 7001 : n - got))) > 0) got += k;
	EXPECT_EQ(got, n);
	EXPECT_MEM(b, r, n);
	EXPECT_EXIT(c, 0);
}
static void nop(int s) { (void)s; }
TEST(partial_write_on_signal) {
	int p[2];
	OK(pipe(p));
	struct sigaction sa = {.sa_handler = nop};
	OK(sigaction(SIGALRM, &sa, NULL));
	struct itimerval it = {{0, 0}, {0, 50000}};
	OK(setitimer(ITIMER_REAL, &it, NULL));
	char *b = calloc(1, 100000);
	EXPECT_EQ(write(p[1], b, 100000), 65536);
	OK(setitimer(ITIMER_REAL, &it, NULL));
	ERR(write(p[1], b, 1), EINTR);
}
TEST(read_wakes) {
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(msleep(50); OK(write(p[1], "x", 1)));
	char b;
	EXPECT_EQ(read(p[0], &b, 1), 1);
	EXPECT_EXIT(c, 0);
}
TEST(close_wakes_reader) {
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(msleep(50));
	OK(close(p[1]));
	char b;
	EXPECT_EQ(read(p[0], &b, 1), 0);
	EXPECT_EXIT(c, 0);
}
TEST(close_wakes_writer) {
	int p[2];
	OK(pipe(p));
	signal(SIGPIPE, SIG_IGN);
	pid_t c = CHILD(msleep(50));
	OK(close(p[0]));
	char *b = calloc(1, 100000);
	ssize_t n = write(p[1], b, 100000);
	EXPECT_TRUE(n == 65536 || (n == -1 && errno == EPIPE));
	EXPECT_EXIT(c, 0);
}
TEST(poll_events) {
	int p[2];
	OK(pipe(p));
	struct pollfd f[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}};
	EXPECT_EQ(poll(f, 2, 0), 1);
	EXPECT_EQ(f[1].revents, POLLOUT);
	OK(write(p[1], "x", 1));
	EXPECT_EQ(poll(f, 2, 0), 2);
	EXPECT_EQ(f[0].revents, POLLIN);
	OK(close(p[1]));
	f[1].fd = -1;
	EXPECT_EQ(poll(f, 2, 0), 1);
	EXPECT_EQ(f[0].revents, POLLIN | POLLHUP);
	OK(pipe(p));
	OK(close(p[0]));
	f[1] = (struct pollfd){p[1], POLLOUT, 0};
	EXPECT_EQ(poll(f + 1, 1, 0), 1);
	EXPECT_EQ(f[1].revents, POLLOUT | POLLERR);
}
TEST(atomic_small_writes) {
	int p[2];
	OK(pipe(p));
	pid_t c[3];
	for (int k = 0; k < 3; k++)
		c[k] = CHILD(char m[512]; memset(m, 'a' + k, 512); for (int i = 0; i < 200; i++) EXPECT_EQ(write(p[1], m, 512), 512));
	OK(close(p[1]));
	char m[512];
	for (int i = 0; i < 600; i++) {
		size_t g = 0;
		while (g < 512) { ssize_t n = OK(read(p[0], m + g, 512 - g)); EXPECT_GT(n, 0); g += n; }
		for (int j = 1; j < 512; j++) EXPECT_EQ(m[j], m[0]);
	}
	for (int k = 0; k < 3; k++) EXPECT_EXIT(c[k], 0);
}
TEST(splice_file_to_pipe) {
	PUT("f", "0123456789");
	int fd = OK(open("f", O_RDONLY)), p[2], g = OK(open("g", O_CREAT | O_RDWR, 0644));
	OK(pipe(p));
	off_t o = 2;
	ssize_t n = splice(fd, &o, p[1], NULL, 5, 0);
	if (n < 0 && errno == ENOSYS) SKIP("no splice");
	EXPECT_EQ(n, 5);
	EXPECT_EQ(o, 7);
	EXPECT_EQ(splice(p[0], NULL, g, NULL, 100, 0), 5);
	EXPECT_STR(SLURP("g"), "23456");
	ERR(splice(fd, NULL, g, NULL, 5, 0), EINVAL);
	ERR(splice(p[0], &o, g, NULL, 5, 0), ESPIPE);
	ERR(splice(-1, NULL, p[1], NULL, 5, 0), EBADF);
	ERR(splice(p[0], NULL, g, NULL, 5, SPLICE_F_NONBLOCK), EAGAIN);
	ERR(splice(p[0], NULL, g, NULL, 5, 0x100), EINVAL);
}
TEST(tee_and_vmsplice) {
	int p[2], q[2];
	OK(pipe(p));
	OK(pipe(q));
	OK(write(p[1], "hello", 5));
	ssize_t n = tee(p[0], q[1], 100, 0);
	if (n < 0 && errno == ENOSYS) SKIP("no tee");
	EXPECT_EQ(n, 5);
	char b[8];
	EXPECT_EQ(read(p[0], b, 8), 5);
	EXPECT_EQ(read(q[0], b, 8), 5);
	EXPECT_MEM(b, "hello", 5);
	struct iovec v = {"abc", 3};
	n = vmsplice(p[1], &v, 1, 0);
	if (n < 0 && errno == ENOSYS) SKIP("no vmsplice");
	EXPECT_EQ(n, 3);
	EXPECT_EQ(read(p[0], b, 8), 3);
}
TEST(pipe_times_and_chmod) {
	int p[2];
	OK(pipe(p));
	OK(fchmod(p[0], 0640));
	struct stat st;
	OK(fstat(p[1], &st));
	EXPECT_EQ(st.st_mode & 0777, 0640);
	char l[64], n[64];
	snprintf(l, 64, "/proc/self/fd/%d", p[0]);
	ssize_t k = OK(readlink(l, n, 63));
	n[k] = 0;
	char want[64];
	snprintf(want, 64, "pipe:[%lu]", (unsigned long)st.st_ino);
	EXPECT_STR(n, want);
	/* opening a pipe through /proc gives the other access too */
	int w = OK(open(l, O_WRONLY));
	OK(write(w, "z", 1));
	char c;
	EXPECT_EQ(read(p[0], &c, 1), 1);
}
TEST(fifo_shared_between_processes) {
	OK(mkfifo("q", 0600));
	pid_t c = CHILD(int w = OK(open("q", O_WRONLY)); for (int i = 0; i < 1000; i++) EXPECT_EQ(write(w, &i, sizeof i), 4));
	int r = OK(open("q", O_RDONLY)), v;
	for (int i = 0; i < 1000; i++) { EXPECT_EQ(read(r, &v, 4), 4); EXPECT_EQ(v, i); }
	EXPECT_EQ(read(r, &v, 4), 0);
	EXPECT_EXIT(c, 0);
}
TEST(splice_takes_what_a_stream_has) {
	int s[2], p[2];
	char b[4096] = "x";
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(pipe(p));
	EXPECT_EQ(write(s[0], b, sizeof b), 4096);
	EXPECT_EQ(splice(s[1], NULL, p[1], NULL, 16384, 0), 4096);
	EXPECT_EQ(read(p[0], b, sizeof b), 4096);
	OK(close(s[0]));
	EXPECT_EQ(splice(s[1], NULL, p[1], NULL, 16384, 0), 0);
}
MAIN()
