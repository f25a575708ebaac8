/* POSIX locks, OFD locks, flock. */
#include "harness.h"
#include <sys/file.h>

static struct flock lk(int type, off_t start, off_t len) { return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len}; }
static int F(void) { PUT("f", "0123456789"); return OK(open("f", O_RDWR)); }

TEST(posix_conflict) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 2, 4);
	OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD(
		struct flock q = lk(F_WRLCK, 0, 0); OK(fcntl(fd, F_GETLK, &q));
		EXPECT_EQ(q.l_type, F_WRLCK); EXPECT_EQ(q.l_start, 2); EXPECT_EQ(q.l_len, 4); EXPECT_EQ(q.l_pid, getppid());
		q = lk(F_RDLCK, 5, 1); ERR(fcntl(fd, F_SETLK, &q), EAGAIN);
		q = lk(F_WRLCK, 6, 1); OK(fcntl(fd, F_SETLK, &q));
		q = lk(F_WRLCK, 0, 2); OK(fcntl(fd, F_SETLK, &q)));
	struct flock q = lk(F_WRLCK, 0, 0);
	OK(fcntl(fd, F_GETLK, &q));
	EXPECT_EQ(q.l_type, F_UNLCK);
}
TEST(posix_shared_and_upgrade) {
	int fd = F();
	struct flock l = lk(F_RDLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD(struct flock q = lk(F_RDLCK, 0, 0); OK(fcntl(fd, F_SETLK, &q)); q = lk(F_WRLCK, 0, 0); ERR(fcntl(fd, F_SETLK, &q), EAGAIN));
	l = lk(F_WRLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
}
TEST(posix_split_merge) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 0, 100);
	OK(fcntl(fd, F_SETLK, &l));
	l = lk(F_UNLCK, 40, 20);
	OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD(struct flock q = lk(F_WRLCK, 40, 20); OK(fcntl(fd, F_SETLK, &q)); q = lk(F_WRLCK, 39, 1); ERR(fcntl(fd, F_SETLK, &q), EAGAIN);
		q = lk(F_WRLCK, 50, 100); OK(fcntl(fd, F_GETLK, &q)); EXPECT_EQ(q.l_start, 60); EXPECT_EQ(q.l_len, 40));
	l = lk(F_WRLCK, 40, 20);
	OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD(struct flock q = lk(F_WRLCK, 50, 1); OK(fcntl(fd, F_GETLK, &q)); EXPECT_EQ(q.l_start, 0); EXPECT_EQ(q.l_len, 100));
}
TEST(posix_dropped_by_any_close) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
	OK(close(OK(open("f", O_RDONLY))));
	IN_CHILD(struct flock q = lk(F_WRLCK, 0, 0); OK(fcntl(fd, F_SETLK, &q)));
}
TEST(posix_not_inherited) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD(OK(close(fd)));
	IN_CHILD(struct flock q = lk(F_WRLCK, 0, 0); ERR(fcntl(fd, F_SETLK, &q), EAGAIN));
}
TEST(posix_wait) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
	int64_t t = now_ms();
	pid_t p = CHILD(struct flock q = lk(F_WRLCK, 0, 0); OK(fcntl(fd, F_SETLKW, &q)); EXPECT_GE(now_ms() - t, 90));
	msleep(100);
	l = lk(F_UNLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
	EXPECT_EXIT(p, 0);
}
static void nop(int s) { (void)s; }
TEST(posix_wait_interrupted) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 0, 0);
	OK(fcntl(fd, F_SETLK, &l));
	IN_CHILD(struct sigaction sa; memset(&sa, 0, sizeof sa); sa.sa_handler = nop; OK(sigaction(SIGALRM, &sa, NULL));
		struct itimerval it = {{0, 0}, {0, 50000}}; OK(setitimer(ITIMER_REAL, &it, NULL));
		struct flock q = lk(F_WRLCK, 0, 0); ERR(fcntl(fd, F_SETLKW, &q), EINTR));
}
TEST(posix_deadlock) {
	int fd = F();
	struct flock l = lk(F_WRLCK, 0, 1);
	OK(fcntl(fd, F_SETLK, &l));
	int pp[2];
	OK(pipe(pp));
	pid_t p = CHILD(struct flock q = lk(F_WRLCK, 1, 1); OK(fcntl(fd, F_SETLK, &q)); OK(write(pp[1], "x", 1)); q = lk(F_WRLCK, 0, 1); OK(fcntl(fd, F_SETLKW, &q)));
	char c;
	OK(read(pp[0], &c, 1));
	msleep(100);
	l = lk(F_WRLCK, 1, 1);
	ERR(fcntl(fd, F_SETLKW, &l), EDEADLK);
	l = lk(F_UNLCK, 0, 1);
	OK(fcntl(fd, F_SETLK, &l));
	EXPECT_EXIT(p, 0);
}
TEST(posix_errors) {
	PUT("f", "x");
	int r = OK(open("f", O_RDONLY)), w = OK(open("f", O_WRONLY));
	struct flock l = lk(F_WRLCK, 0, 0);
	ERR(fcntl(r, F_SETLK, &l), EBADF);
	l = lk(F_RDLCK, 0, 0);
	ERR(fcntl(w, F_SETLK, &l), EBADF);
	l = lk(77, 0, 0);
	ERR(fcntl(r, F_SETLK, &l), EINVAL);
	l = lk(F_RDLCK, -1, 1);
	ERR(fcntl(r, F_SETLK, &l), EINVAL);
	l = lk(F_RDLCK, 0, 1);
	l.l_whence = 9;
	ERR(fcntl(r, F_SETLK, &l), EINVAL);
	ERR(fcntl(r, F_SETLK, (void *)8), EFAULT);
	ERR(fcntl(-1, F_SETLK, &l), EBADF);
	/* a negative length means the bytes before start */
	l = lk(F_RDLCK, 10, -5);
	OK(fcntl(r, F_SETLK, &l));
	IN_CHILD(struct flock q = lk(F_WRLCK, 0, 0); OK(fcntl(w, F_GETLK, &q)); EXPECT_EQ(q.l_start, 5); EXPECT_EQ(q.l_len, 5));
}
TEST(ofd_locks) {
	int a = F(), b = OK(open("f", O_RDWR)), c = OK(dup(a));
	struct flock l = lk(F_WRLCK, 0, 5);
	OK(fcntl(a, F_OFD_SETLK, &l));
	ERR(fcntl(b, F_OFD_SETLK, &l), EAGAIN);
	OK(fcntl(c, F_OFD_SETLK, &l));
	l = lk(F_WRLCK, 0, 0);
	OK(fcntl(b, F_OFD_GETLK, &l));
	EXPECT_EQ(l.l_type, F_WRLCK);
	EXPECT_EQ(l.l_pid, -1);
	l = lk(F_WRLCK, 0, 5);
	ERR(fcntl(b, F_SETLK, &l), EAGAIN);
	l.l_pid = 5;
	ERR(fcntl(a, F_OFD_SETLK, &l), EINVAL);
	OK(close(a));
	l.l_pid = 0;
	ERR(fcntl(b, F_OFD_SETLK, &l), EAGAIN);
	OK(close(c));
	OK(fcntl(b, F_OFD_SETLK, &l));
	/* kept over fork by the shared description */
	IN_CHILD(struct flock q = lk(F_WRLCK, 0, 5); OK(fcntl(b, F_OFD_SETLK, &q)));
}
TEST(flock_basic) {
	int a = F(), b = OK(open("f", O_RDONLY));
	OK(flock(a, LOCK_EX));
	ERR(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	OK(flock(a, LOCK_SH));
	OK(flock(b, LOCK_SH | LOCK_NB));
	ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(flock(a, LOCK_UN));
	OK(flock(b, LOCK_EX | LOCK_NB));
	ERR(flock(a, 0), EINVAL);
	ERR(flock(-1, LOCK_EX), EBADF);
	OK(close(b));
	OK(flock(a, LOCK_EX | LOCK_NB));
	/* flock and POSIX locks do not see each other */
	IN_CHILD(struct flock q = lk(F_WRLCK, 0, 0); OK(fcntl(a, F_SETLK, &q)));
}
TEST(flock_shared_by_fork) {
	int a = F(), b = OK(open("f", O_RDWR));
	OK(flock(a, LOCK_EX));
	IN_CHILD(OK(flock(a, LOCK_EX | LOCK_NB)); OK(close(a)));
	ERR(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	IN_CHILD(OK(flock(a, LOCK_UN)));
	OK(flock(b, LOCK_EX | LOCK_NB));
}
TEST(flock_waits) {
	int a = F();
	OK(flock(a, LOCK_EX));
	pid_t p = CHILD(int b = OK(open("f", O_RDWR)); int64_t t = now_ms(); OK(flock(b, LOCK_EX)); EXPECT_GE(now_ms() - t, 50));
	msleep(150);
	OK(flock(a, LOCK_UN));
	EXPECT_EXIT(p, 0);
}
TEST(lock_released_by_kill) {
	int fd = F(), pp[2];
	OK(pipe(pp));
	pid_t p = CHILD(struct flock q = lk(F_WRLCK, 0, 0); OK(fcntl(fd, F_SETLK, &q)); OK(write(pp[1], "x", 1)); pause());
	char c;
	OK(read(pp[0], &c, 1));
	struct flock l = lk(F_WRLCK, 0, 0);
	ERR(fcntl(fd, F_SETLK, &l), EAGAIN);
	OK(kill(p, SIGKILL));
	OK(fcntl(fd, F_SETLKW, &l));
	EXPECT_KILLED(p, SIGKILL);
}
MAIN()
