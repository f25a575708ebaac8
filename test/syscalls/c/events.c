/* eventfd, signalfd, epoll, poll, select. */
#include "harness.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

TEST(eventfd_basic) {
	int fd = OK(eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC));
	uint64_t v = 4;
	EXPECT_EQ(write(fd, &v, 8), 8);
	EXPECT_EQ(read(fd, &v, 8), 8);
	EXPECT_EQ(v, 7);
	ERR(read(fd, &v, 8), EAGAIN);
	v = ~0ULL;
	ERR(write(fd, &v, 8), EINVAL);
	v = ~0ULL - 1;
	EXPECT_EQ(write(fd, &v, 8), 8);
	v = 1;
	ERR(write(fd, &v, 8), EAGAIN);
	struct pollfd p = {fd, POLLIN | POLLOUT, 0};
	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(p.revents, POLLIN);
	ERR(read(fd, &v, 4), EINVAL);
	ERR(write(fd, &v, 4), EINVAL);
	ERR(eventfd(0, 0x1234), EINVAL);
}
TEST(eventfd_semaphore) {
	int fd = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
	uint64_t v;
	EXPECT_EQ(read(fd, &v, 8), 8);
	EXPECT_EQ(v, 1);
	EXPECT_EQ(read(fd, &v, 8), 8);
	ERR(read(fd, &v, 8), EAGAIN);
}
TEST(eventfd_blocks) {
	int fd = OK(eventfd(0, 0));
	pid_t c = CHILD(msleep(40); uint64_t v = 9; OK(write(fd, &v, 8)));
	uint64_t v;
	EXPECT_EQ(read(fd, &v, 8), 8);
	EXPECT_EQ(v, 9);
	EXPECT_EXIT(c, 0);
}
TEST(signalfd_basic) {
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigaddset(&m, SIGRTMIN);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	int fd = OK(signalfd(-1, &m, SFD_NONBLOCK | SFD_CLOEXEC));
	struct signalfd_siginfo si[4];
	ERR(read(fd, si, sizeof si), EAGAIN);
	OK(kill(getpid(), SIGUSR1));
	OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 5}));
	struct pollfd p = {fd, POLLIN, 0};
	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(read(fd, si, sizeof si), 2 * sizeof *si);
	EXPECT_EQ(si[0].ssi_signo, SIGUSR1);
	EXPECT_EQ(si[0].ssi_pid, getpid());
	EXPECT_EQ(si[1].ssi_signo, SIGRTMIN);
	EXPECT_EQ(si[1].ssi_int, 5);
	ERR(read(fd, si, 10), EINVAL);
	sigemptyset(&m);
	EXPECT_EQ(signalfd(fd, &m, 0), fd);
	OK(kill(getpid(), SIGUSR1));
	ERR(read(fd, si, sizeof si), EAGAIN);
	ERR(signalfd(0, &m, 0), EINVAL);
	ERR(signalfd(999, &m, 0), EBADF);
	ERR(signalfd(-1, &m, 0x1234), EINVAL);
}
TEST(signalfd_blocks) {
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	int fd = OK(signalfd(-1, &m, 0));
	pid_t me = getpid(), c = CHILD(msleep(40); OK(kill(me, SIGUSR1)));
	struct signalfd_siginfo si;
	EXPECT_EQ(read(fd, &si, sizeof si), sizeof si);
	EXPECT_EQ(si.ssi_pid, c);
	EXPECT_EXIT(c, 0);
}
static int add(int ep, int fd, uint32_t ev, uint64_t d) { struct epoll_event e = {.events = ev, .data.u64 = d}; return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e); }
static int mod(int ep, int fd, uint32_t ev, uint64_t d) { struct epoll_event e = {.events = ev, .data.u64 = d}; return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e); }
TEST(epoll_level) {
	int ep = OK(epoll_create1(EPOLL_CLOEXEC)), p[2];
	OK(pipe(p));
	OK(add(ep, p[0], EPOLLIN, 77));
	struct epoll_event e[4];
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 0);
	OK(write(p[1], "ab", 2));
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(epoll_wait(ep, e, 4, 1000), 1);
		EXPECT_EQ(e[0].events, EPOLLIN);
		EXPECT_EQ(e[0].data.u64, 77);
	}
	char b[4];
	OK(read(p[0], b, 4));
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 0);
	OK(close(p[1]));
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 1);
	EXPECT_EQ(e[0].events, EPOLLHUP);
	OK(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 0);
}
TEST(epoll_edge) {
	int ep = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	OK(add(ep, p[0], EPOLLIN | EPOLLET, 1));
	struct epoll_event e[4];
	OK(write(p[1], "a", 1));
	EXPECT_EQ(epoll_wait(ep, e, 4, 1000), 1);
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 0);
	OK(write(p[1], "b", 1));
	EXPECT_EQ(epoll_wait(ep, e, 4, 1000), 1);
	/* MOD looks again */
	OK(mod(ep, p[0], EPOLLIN | EPOLLET, 2));
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 1);
	EXPECT_EQ(e[0].data.u64, 2);
}
TEST(epoll_oneshot) {
	int ep = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	OK(add(ep, p[0], EPOLLIN | EPOLLONESHOT, 1));
	struct epoll_event e[4];
	OK(write(p[1], "a", 1));
	EXPECT_EQ(epoll_wait(ep, e, 4, 1000), 1);
	OK(write(p[1], "a", 1));
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 0);
	OK(mod(ep, p[0], EPOLLIN | EPOLLONESHOT, 1));
	EXPECT_EQ(epoll_wait(ep, e, 4, 0), 1);
}
TEST(epoll_errors) {
	int ep = OK(epoll_create1(0)), ep2 = OK(epoll_create(5)), p[2];
	struct epoll_event e = {.events = EPOLLIN};
	OK(pipe(p));
	ERR(epoll_create(0), EINVAL);
	ERR(epoll_create1(0x1234), EINVAL);
	ERR(add(ep, 999, EPOLLIN, 0), EBADF);
	ERR(add(999, p[0], EPOLLIN, 0), EBADF);
	ERR(add(ep, ep, EPOLLIN, 0), EINVAL);
	ERR(add(p[0], p[1], EPOLLIN, 0), EINVAL);
	PUT("f", "");
	ERR(add(ep, OK(open("f", O_RDONLY)), EPOLLIN, 0), EPERM);
	OK(add(ep, p[0], EPOLLIN, 0));
	ERR(add(ep, p[0], EPOLLIN, 0), EEXIST);
	ERR(mod(ep, p[1], EPOLLIN, 0), ENOENT);
	ERR(epoll_ctl(ep, EPOLL_CTL_DEL, p[1], &e), ENOENT);
	ERR(epoll_ctl(ep, 99, p[0], &e), EINVAL);
	ERR(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], (void *)8), EFAULT);
	ERR(epoll_wait(ep, &e, 0, 0), EINVAL);
	ERR(epoll_wait(ep, &e, -1, 0), EINVAL);
	ERR(epoll_wait(p[0], &e, 1, 0), EINVAL);
	ERR(epoll_wait(999, &e, 1, 0), EBADF);
	OK(write(p[1], "x", 1));
	ERR(epoll_wait(ep, (void *)8, 1, 0), EFAULT);
	OK(add(ep, ep2, EPOLLIN, 0));
	ERR(add(ep2, ep, EPOLLIN, 0), ELOOP);
	/* EXCLUSIVE: only with ADD, not on another epoll, few other flags */
	ERR(mod(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE, 0), EINVAL);
	int ep3 = OK(epoll_create1(0));
	ERR(add(ep, ep3, EPOLLIN | EPOLLEXCLUSIVE, 0), EINVAL);
	ERR(add(ep, p[1], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0), EINVAL);
	OK(add(ep, p[1], EPOLLOUT | EPOLLEXCLUSIVE, 0));
	ERR(mod(ep, p[1], EPOLLOUT, 0), EINVAL);
}
TEST(epoll_nested) {
	int a = OK(epoll_create1(0)), b = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	OK(add(a, b, EPOLLIN, 1));
	OK(add(b, p[0], EPOLLIN, 2));
	struct epoll_event e;
	EXPECT_EQ(epoll_wait(a, &e, 1, 0), 0);
	OK(write(p[1], "x", 1));
	EXPECT_EQ(epoll_wait(a, &e, 1, 1000), 1);
	EXPECT_EQ(e.data.u64, 1);
	EXPECT_EQ(epoll_wait(b, &e, 1, 0), 1);
	EXPECT_EQ(e.data.u64, 2);
	struct pollfd f = {a, POLLIN, 0};
	EXPECT_EQ(poll(&f, 1, 0), 1);
	/* depth */
	int prev = OK(epoll_create1(0));
	int r = 0;
	for (int i = 0; i < 8 && r == 0; i++) {
		int n = OK(epoll_create1(0));
		r = add(n, prev, EPOLLIN, 0);
		prev = n;
	}
	EXPECT_EQ(r, -1);
	EXPECT_TRUE(errno == EINVAL || errno == ELOOP);
}
TEST(epoll_wait_wakes_and_times_out) {
	int ep = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	OK(add(ep, p[0], EPOLLIN, 0));
	struct epoll_event e;
	int64_t s = now_ms();
	EXPECT_EQ(epoll_wait(ep, &e, 1, 50), 0);
	EXPECT_GE(now_ms() - s, 49);
	pid_t c = CHILD(msleep(50); OK(write(p[1], "x", 1)));
	EXPECT_EQ(epoll_wait(ep, &e, 1, -1), 1);
	EXPECT_EXIT(c, 0);
}
TEST(epoll_closed_fd_goes) {
	int ep = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	OK(write(p[1], "x", 1));
	OK(add(ep, p[0], EPOLLIN, 0));
	int d = OK(dup(p[0]));
	struct epoll_event e;
	OK(close(p[0]));
	EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 1); /* the description lives in the duplicate */
	OK(close(d));
	EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 0);
}
TEST(epoll_fairness) {
	int ep = OK(epoll_create1(0)), p[3][2], seen = 0;
	for (int i = 0; i < 3; i++) { OK(pipe(p[i])); OK(add(ep, p[i][0], EPOLLIN, i)); OK(write(p[i][1], "x", 1)); }
	struct epoll_event e;
	for (int i = 0; i < 3; i++) { EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 1); seen |= 1 << e.data.u64; }
	EXPECT_EQ(seen, 7);
}
TEST(epoll_pwait_mask) {
	int ep = OK(epoll_create1(0));
	sigset_t m, none;
	sigemptyset(&none);
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	signal(SIGUSR1, ({ void f(int s) { (void)s; } f; }));
	raise(SIGUSR1);
	struct epoll_event e;
	EXPECT_EQ(epoll_wait(ep, &e, 1, 10), 0);
	ERR(epoll_pwait(ep, &e, 1, 1000, &none), EINTR);
}
TEST(epoll_socket_events) {
	int ep = OK(epoll_create1(0)), s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(add(ep, s[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP, 0));
	struct epoll_event e;
	EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 1);
	EXPECT_EQ(e.events, EPOLLOUT);
	OK(shutdown(s[1], SHUT_WR));
	EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 1);
	EXPECT_EQ(e.events, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
	OK(close(s[1]));
	EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 1);
	EXPECT_EQ(e.events & (EPOLLHUP | EPOLLRDHUP), EPOLLHUP | EPOLLRDHUP);
}
static void *epw(void *a) { struct epoll_event e; return (void *)(long)epoll_wait(*(int *)a, &e, 1, 5000); }
TEST(epoll_many_waiters) {
	int ep = OK(epoll_create1(0)), p[2];
	OK(pipe(p));
	OK(add(ep, p[0], EPOLLIN, 0));
	pthread_t t[3];
	for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, epw, &ep);
	msleep(50);
	OK(write(p[1], "x", 1));
	for (int i = 0; i < 3; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 1); }
}
TEST(poll_basic) {
	int p[2];
	OK(pipe(p));
	struct pollfd f[4] = {{p[0], POLLIN, 9}, {-1, POLLIN, 9}, {999, POLLIN, 9}, {p[1], 0, 9}};
	EXPECT_EQ(poll(f, 4, 0), 1);
	EXPECT_EQ(f[0].revents, 0);
	EXPECT_EQ(f[1].revents, 0);
	EXPECT_EQ(f[2].revents, POLLNVAL);
	EXPECT_EQ(f[3].revents, 0);
	int64_t s = now_ms();
	EXPECT_EQ(poll(f, 2, 40), 0);
	EXPECT_GE(now_ms() - s, 39);
	EXPECT_EQ(poll(NULL, 0, 10), 0);
	ERR(poll((void *)8, 1, 0), EFAULT);
	ERR(poll(f, 1 << 30, 0), EINVAL);
	PUT("f", "x");
	struct pollfd g = {OK(open("f", O_RDONLY)), POLLIN | POLLOUT, 0};
	EXPECT_EQ(poll(&g, 1, 0), 1);
	EXPECT_EQ(g.revents, POLLIN | POLLOUT);
	pid_t c = CHILD(msleep(40); OK(write(p[1], "x", 1)));
	EXPECT_EQ(poll(f, 1, -1), 1);
	EXPECT_EXIT(c, 0);
}
TEST(ppoll_mask_and_timeout) {
	sigset_t m, none;
	sigemptyset(&none);
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	signal(SIGUSR1, ({ void f(int s) { (void)s; } f; }));
	raise(SIGUSR1);
	ERR(ppoll(NULL, 0, NULL, &none), EINTR);
	sigset_t now;
	OK(sigprocmask(0, NULL, &now));
	EXPECT_EQ(sigismember(&now, SIGUSR1), 1);
	struct timespec t = {0, 20000000};
	EXPECT_EQ(syscall(SYS_ppoll, NULL, 0, &t, NULL, 8), 0);
	EXPECT_EQ(t.tv_nsec, 0); /* the system call itself updates it */
	t.tv_nsec = -1;
	ERR(ppoll(NULL, 0, &t, NULL), EINVAL);
	ERR(syscall(SYS_ppoll, NULL, 0, NULL, &m, 4), EINVAL);
}
TEST(select_basic) {
	int p[2];
	OK(pipe(p));
	fd_set r, w, e;
	FD_ZERO(&r); FD_ZERO(&w); FD_ZERO(&e);
	FD_SET(p[0], &r);
	FD_SET(p[1], &w);
	FD_SET(p[0], &e);
	struct timeval tv = {1, 0};
	EXPECT_EQ(select(p[1] + 1, &r, &w, &e, &tv), 1);
	EXPECT_TRUE(!FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w) && !FD_ISSET(p[0], &e));
	OK(write(p[1], "x", 1));
	FD_SET(p[0], &r);
	EXPECT_EQ(select(p[1] + 1, &r, &w, NULL, &tv), 2);
	char b;
	OK(read(p[0], &b, 1));
	FD_SET(p[0], &r);
	tv = (struct timeval){0, 40000};
	int64_t s = now_ms();
	EXPECT_EQ(select(p[0] + 1, &r, NULL, NULL, &tv), 0);
	EXPECT_GE(now_ms() - s, 39);
	EXPECT_EQ(tv.tv_sec + tv.tv_usec, 0);
	EXPECT_TRUE(!FD_ISSET(p[0], &r));
	FD_SET(p[0], &r);
	OK(close(p[0]));
	ERR(select(p[0] + 1, &r, NULL, NULL, NULL), EBADF);
	ERR(select(-1, NULL, NULL, NULL, &tv), EINVAL);
	tv = (struct timeval){-1, 0};
	ERR(select(0, NULL, NULL, NULL, &tv), EINVAL);
	tv = (struct timeval){0, 10000};
	EXPECT_EQ(select(0, NULL, NULL, NULL, &tv), 0);
}
TEST(pselect_mask) {
	sigset_t m, none;
	sigemptyset(&none);
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	signal(SIGUSR1, ({ void f(int s) { (void)s; } f; }));
	raise(SIGUSR1);
	struct timespec t = {2, 0};
	ERR(pselect(0, NULL, NULL, NULL, &t, &none), EINTR);
}
TEST(inotify_basic) {
	int fd = syscall(SYS_inotify_init1, O_NONBLOCK);
	if (fd < 0 && errno == ENOSYS) SKIP("no inotify");
	OK(fd);
	char b[4096];
	ERR(read(fd, b, sizeof b), EAGAIN);
	int wd = OK(syscall(SYS_inotify_add_watch, fd, ".", 0x100 | 0x200 | 0x2)); /* CREATE DELETE MODIFY */
	PUT("x", "data");
	ssize_t n = OK(read(fd, b, sizeof b));
	EXPECT_GE(n, 16);
	EXPECT_EQ(*(int *)b, wd);
	EXPECT_EQ(*(uint32_t *)(b + 4), 0x100);
	EXPECT_STR(b + 16, "x");
	OK(syscall(SYS_inotify_rm_watch, fd, wd));
	ERR(syscall(SYS_inotify_rm_watch, fd, wd), EINVAL);
}
MAIN()
