/* fork, vfork, clone, clone3, exit, wait, reparenting, process groups, sessions, pidfds. */
#include "harness.h"
#include <linux/sched.h>
#include <pthread.h>
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static long clone3_(struct clone_args *a) { return syscall(SYS_clone3, a, sizeof *a); }

TEST(fork_ids) {
	pid_t me = getpid();
	pid_t c = CHILD(EXPECT_EQ(getppid(), me); EXPECT_NE(getpid(), me); EXPECT_EQ(getpid(), syscall(SYS_gettid)); EXPECT_EQ(getpgrp(), getpgid(me)); EXPECT_EQ(getsid(0), getsid(me)));
	EXPECT_GT(c, 0);
	EXPECT_EXIT(c, 0);
}
TEST(exit_codes) {
	EXPECT_EXIT(CHILD(_exit(0)), 0);
	EXPECT_EXIT(CHILD(_exit(255)), 255);
	EXPECT_EXIT(CHILD(_exit(256 + 7)), 7);
	EXPECT_EXIT(CHILD(_exit(-1)), 255);
	EXPECT_KILLED(CHILD(abort()), SIGABRT);
	EXPECT_KILLED(CHILD(kill(getpid(), SIGKILL)), SIGKILL);
	EXPECT_KILLED(CHILD(raise(SIGTERM)), SIGTERM);
	EXPECT_KILLED(CHILD(*(volatile int *)8 = 1), SIGSEGV);
	EXPECT_KILLED(CHILD(__builtin_trap()), SIGILL);
	EXPECT_KILLED(CHILD(volatile int z = 0; z = 7 / z), SIGFPE);
	EXPECT_KILLED(CHILD(__asm__ volatile("int3")), SIGTRAP);
	EXPECT_KILLED(CHILD(__asm__ volatile("hlt")), SIGSEGV);
}
TEST(wait_errors) {
	int st;
	ERR(waitpid(-1, &st, 0), ECHILD);
	ERR(waitpid(1, &st, 0), ECHILD);
	ERR(waitpid(-1, &st, 0x100), EINVAL);
	ERR(waitpid(INT_MIN, &st, 0), ESRCH);
	pid_t c = CHILD(pause());
	EXPECT_EQ(waitpid(c, &st, WNOHANG), 0);
	ERR(waitpid(c + 10000, &st, 0), ECHILD);
	ERR(waitpid(-getsid(0) - 100000, &st, 0), ECHILD);
	OK(kill(c, SIGKILL));
	ERR(syscall(SYS_wait4, c, (void *)8, 0, NULL), EFAULT);
	siginfo_t si;
	ERR(waitid(P_ALL, 0, &si, 0), EINVAL);
	ERR(waitid(99, 0, &si, WEXITED), EINVAL);
	ERR(waitid(P_PID, 0, &si, WEXITED), EINVAL);
}
TEST(wait_any_collects_all) {
	int n = 20, sum = 0;
	for (int i = 0; i < n; i++) CHILD(_exit(i));
	for (int i = 0; i < n; i++) {
		int st;
		EXPECT_GT(wait(&st), 0);
		sum += WEXITSTATUS(st);
	}
	EXPECT_EQ(sum, n * (n - 1) / 2);
	ERR(wait(NULL), ECHILD);
}
TEST(wait_group) {
	pid_t a = CHILD(setpgid(0, 0); msleep(50); _exit(3)), b = CHILD(msleep(20); _exit(4));
	setpgid(a, a);
	int st;
	EXPECT_EQ(waitpid(-a, &st, 0), a);
	EXPECT_EQ(WEXITSTATUS(st), 3);
	EXPECT_EQ(waitpid(0, &st, 0), b);
	ERR(waitpid(-a, &st, 0), ECHILD);
}
TEST(waitid_info) {
	pid_t c = CHILD(_exit(42));
	siginfo_t si;
	memset(&si, 0xff, sizeof si);
	OK(waitid(P_PID, c, &si, WEXITED | WNOWAIT));
	EXPECT_EQ(si.si_pid, c);
	EXPECT_EQ(si.si_signo, SIGCHLD);
	EXPECT_EQ(si.si_code, CLD_EXITED);
	EXPECT_EQ(si.si_status, 42);
	EXPECT_EQ(si.si_uid, getuid());
	OK(waitid(P_ALL, 0, &si, WEXITED));
	EXPECT_EQ(si.si_status, 42);
	ERR(waitid(P_PID, c, &si, WEXITED), ECHILD);
	c = CHILD(pause());
	memset(&si, 0xff, sizeof si);
	OK(waitid(P_PID, c, &si, WEXITED | WNOHANG));
	EXPECT_EQ(si.si_pid, 0);
	OK(kill(c, SIGTERM));
	OK(waitid(P_PID, c, &si, WEXITED));
	EXPECT_EQ(si.si_code, CLD_KILLED);
	EXPECT_EQ(si.si_status, SIGTERM);
	OK(waitid(P_PID, CHILD(_exit(0)), NULL, WEXITED));
}
TEST(stop_continue) {
	pid_t c = CHILD(for (;;) pause());
	int st;
	OK(kill(c, SIGSTOP));
	EXPECT_EQ(waitpid(c, &st, WUNTRACED), c);
	EXPECT_TRUE(WIFSTOPPED(st));
	EXPECT_EQ(WSTOPSIG(st), SIGSTOP);
	EXPECT_EQ(waitpid(c, &st, WUNTRACED | WNOHANG), 0);
	EXPECT_EQ(h_state(c), 'T');
	OK(kill(c, SIGCONT));
	EXPECT_EQ(waitpid(c, &st, WCONTINUED), c);
	EXPECT_TRUE(WIFCONTINUED(st));
	OK(kill(c, SIGTSTP));
	siginfo_t si;
	OK(waitid(P_PID, c, &si, WSTOPPED));
	EXPECT_EQ(si.si_code, CLD_STOPPED);
	EXPECT_EQ(si.si_status, SIGTSTP);
	OK(kill(c, SIGCONT));
	OK(waitid(P_PID, c, &si, WCONTINUED));
	EXPECT_EQ(si.si_code, CLD_CONTINUED);
	OK(kill(c, SIGSTOP));
	OK(kill(c, SIGKILL)); /* kills what is stopped */
	EXPECT_KILLED(c, SIGKILL);
}
TEST(zombie_stays_until_waited) {
	pid_t c = CHILD(_exit(1));
	WAIT_FOR(h_state(c) == 'Z');
	OK(kill(c, 0));
	OK(kill(c, SIGTERM));
	EXPECT_EXIT(c, 1);
	ERR(kill(c, 0), ESRCH);
}
TEST(reparent_to_subreaper) {
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	int v = 0;
	OK(prctl(PR_GET_CHILD_SUBREAPER, &v));
	EXPECT_EQ(v, 1);
	int p[2];
	OK(pipe(p));
	pid_t me = getpid();
	pid_t c = CHILD(CHILD(WAIT_FOR(getppid() == me); pid_t x = getpid(); OK(write(p[1], &x, sizeof x)); _exit(9)); _exit(0));
	EXPECT_EXIT(c, 0);
	pid_t g;
	EXPECT_EQ(read(p[0], &g, sizeof g), sizeof g);
	EXPECT_EXIT(g, 9);
	/* not inherited */
	IN_CHILD(int w = 1; OK(prctl(PR_GET_CHILD_SUBREAPER, &w)); EXPECT_EQ(w, 0));
}
TEST(pdeathsig) {
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(
		CHILD(OK(prctl(PR_SET_PDEATHSIG, SIGTERM)); OK(write(p[1], "x", 1)); pause());
		char b; OK(read(p[0], &b, 1)));
	EXPECT_EXIT(c, 0);
	OK(close(p[1]));
	char b;
	EXPECT_EQ(read(p[0], &b, 1), 0); /* EOF: the grandchild died */
	int v = 5;
	OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
	OK(prctl(PR_GET_PDEATHSIG, &v));
	EXPECT_EQ(v, SIGUSR1);
	ERR(prctl(PR_SET_PDEATHSIG, 99), EINVAL);
	IN_CHILD(int w = 7; OK(prctl(PR_GET_PDEATHSIG, &w)); EXPECT_EQ(w, 0));
}
TEST(vfork_shares_and_blocks) {
	volatile int x = 1;
	pid_t c = vfork();
	if (c == 0) {
		msleep(60);
		x = 2;
		_exit(5);
	}
	EXPECT_EQ(x, 2);
	EXPECT_EXIT(c, 5);
}
TEST(sigchld_ignored_reaps) {
	signal(SIGCHLD, SIG_IGN);
	pid_t c = CHILD(_exit(1));
	ERR(waitpid(c, NULL, 0), ECHILD);
	ERR(kill(c, 0), ESRCH);
	struct sigaction sa = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
	OK(sigaction(SIGCHLD, &sa, NULL));
	c = CHILD(_exit(1));
	ERR(waitpid(c, NULL, 0), ECHILD);
}
static char stack[65536] __attribute__((aligned(16)));
static volatile int shared;
static int vm_child(void *a) { shared = (int)(long)a; return 7; }
TEST(clone_vm) {
	pid_t c = OK(clone(vm_child, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)33L));
	EXPECT_EXIT(c, 7);
	EXPECT_EQ(shared, 33);
}
TEST(clone_no_exit_signal) {
	pid_t c = OK(clone(vm_child, stack + sizeof stack, CLONE_VM, (void *)1L));
	ERR(waitpid(c, NULL, 0), ECHILD);
	int st;
	EXPECT_EQ(waitpid(c, &st, __WCLONE), c);
	c = OK(clone(vm_child, stack + sizeof stack, CLONE_VM, (void *)1L));
	EXPECT_EQ(waitpid(c, &st, __WALL), c);
}
static int close_fd(void *a) { close((int)(long)a); if (chdir("/")) {} umask(0); return 0; }
TEST(clone_files_fs) {
	int fd = OK(open("/dev/null", O_RDONLY));
	pid_t c = OK(clone(close_fd, stack + sizeof stack, CLONE_FILES | CLONE_FS | SIGCHLD, (void *)(long)fd));
	EXPECT_EXIT(c, 0);
	ERR(fcntl(fd, F_GETFD), EBADF);
	char b[64];
	EXPECT_TRUE(getcwd(b, 64) && !strcmp(b, "/"));
	EXPECT_EQ(umask(022), 0);
}
TEST(clone_errors) {
	ERR(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0), EINVAL);
	ERR(syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_PIDFD, 0, 8, 0, 0), EINVAL);
}
TEST(clone_settid_cleartid) {
	int *m = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	int ptid = 0;
	pid_t c = syscall(SYS_clone, SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, 0, &ptid, m, 0);
	if (c == 0) _exit(*m == getpid() ? 0 : 1);
	EXPECT_EQ(ptid, c);
	EXPECT_EXIT(c, 0);
	EXPECT_EQ(*m, c);
}
TEST(clone3_basic) {
	int pidfd = -1, ptid = -1;
	struct clone_args a = {.flags = CLONE_PIDFD | CLONE_PARENT_SETTID, .pidfd = (uintptr_t)&pidfd, .parent_tid = (uintptr_t)&ptid, .exit_signal = SIGCHLD};
	long c = clone3_(&a);
	if (c < 0 && errno == ENOSYS) SKIP("no clone3");
	OK(c);
	if (c == 0) _exit(11);
	EXPECT_EQ(ptid, c);
	EXPECT_GE(pidfd, 0);
	EXPECT_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
	struct pollfd pf = {pidfd, POLLIN, 0};
	EXPECT_EQ(poll(&pf, 1, 5000), 1);
	siginfo_t si;
	OK(waitid(P_PIDFD, pidfd, &si, WEXITED));
	EXPECT_EQ(si.si_status, 11);
	ERR(waitid(P_PIDFD, pidfd, &si, WEXITED), ECHILD);
	ERR(waitid(P_PIDFD, 999, &si, WEXITED), EBADF);
	ERR(waitid(P_PIDFD, 1, &si, WEXITED), EBADF);
	ERR(syscall(SYS_clone3, &a, 8), EINVAL);
	struct { struct clone_args a; char more[64]; } big = {.a = {.exit_signal = SIGCHLD}};
	big.more[5] = 1;
	ERR(syscall(SYS_clone3, &big, sizeof big), E2BIG);
	a = (struct clone_args){.exit_signal = 999};
	ERR(clone3_(&a), EINVAL);
	a = (struct clone_args){.exit_signal = SIGCHLD, .stack = 0x1000};
	ERR(clone3_(&a), EINVAL);
	ERR(syscall(SYS_clone3, (void *)8, sizeof a), EFAULT);
}
TEST(pidfd_calls) {
	pid_t c = CHILD(pause());
	long fd = syscall(SYS_pidfd_open, c, 0);
	if (fd < 0 && errno == ENOSYS) SKIP("no pidfd_open");
	OK(fd);
	OK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
	struct pollfd pf = {fd, POLLIN, 0};
	EXPECT_EQ(poll(&pf, 1, 0), 0);
	OK(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
	EXPECT_EQ(poll(&pf, 1, 5000), 1);
	EXPECT_KILLED(c, SIGTERM);
	ERR(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), ESRCH);
	c = CHILD(pause());
	char dir[32];
	snprintf(dir, sizeof dir, "/proc/%d", c);
	fd = OK(open(dir, O_RDONLY | O_DIRECTORY)); /* serves as well */
	OK(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
	EXPECT_KILLED(c, SIGTERM);
	ERR(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0), ESRCH);
	ERR(syscall(SYS_pidfd_send_signal, OK(open(".", O_RDONLY)), 0, NULL, 0), EBADF);
	ERR(syscall(SYS_pidfd_open, 0, 0), EINVAL);
	ERR(syscall(SYS_pidfd_open, 999999, 0), ESRCH);
	ERR(syscall(SYS_pidfd_open, getpid(), 1), EINVAL);
}
TEST(setpgid_rules) {
	EXPECT_EQ(getpgid(0), getpgrp());
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(char b; OK(read(p[0], &b, 1)); _exit(0));
	OK(setpgid(c, c));
	EXPECT_EQ(getpgid(c), c);
	OK(setpgid(c, getpgrp()));
	ERR(setpgid(c, 999999), EPERM);
	ERR(setpgid(c, -1), EINVAL);
	ERR(setpgid(-1, 0), EINVAL);
	ERR(setpgid(999999, 0), ESRCH);
	ERR(setpgid(1, 0), ESRCH);
	ERR(getpgid(-1), ESRCH);
	ERR(getpgid(999999), ESRCH);
	OK(write(p[1], "x", 1));
	EXPECT_EXIT(c, 0);
	/* a session leader stays where it is */
	IN_CHILD(OK(setsid()); ERR(setpgid(0, 0), EPERM); ERR(setsid(), EPERM));
}
HELPER(wait_stdin) { char b; if (read(0, &b, 1)) {} return 0; }
TEST(setpgid_after_exec) {
	int p[2], e[2];
	OK(pipe(p));
	OK(pipe2(e, O_CLOEXEC));
	pid_t c = CHILD(dup2(p[0], 0); execl(h_self, h_self, "--helper", "wait_stdin", NULL); _exit(1));
	OK(close(e[1]));
	char b;
	EXPECT_EQ(read(e[0], &b, 1), 0); /* it has called exec */
	ERR(setpgid(c, c), EACCES);
	OK(write(p[1], "x", 1));
	EXPECT_EXIT(c, 0);
}
TEST(setsid_makes_session) {
	IN_CHILD(pid_t s = OK(setsid()); EXPECT_EQ(s, getpid()); EXPECT_EQ(getsid(0), s); EXPECT_EQ(getpgrp(), s); ERR(open("/dev/tty", O_RDWR), ENXIO));
	ERR(getsid(999999), ESRCH);
	/* a group leader may not */
	IN_CHILD(OK(setpgid(0, 0)); ERR(setsid(), EPERM));
	IN_CHILD(pid_t c = CHILD(pause()); OK(setsid()); ERR(setpgid(c, getpgrp()), EPERM); OK(kill(c, SIGKILL)); EXPECT_KILLED(c, SIGKILL));
}
TEST(kill_group) {
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(OK(setpgid(0, 0)); for (int i = 0; i < 3; i++) CHILD(OK(write(p[1], "x", 1)); pause()); OK(write(p[1], "x", 1)); pause());
	char b;
	for (int i = 0; i < 4; i++) EXPECT_EQ(read(p[0], &b, 1), 1);
	OK(close(p[1]));
	OK(kill(-c, SIGTERM));
	EXPECT_KILLED(c, SIGTERM);
	EXPECT_EQ(read(p[0], &b, 1), 0);
}
TEST(rusage_of_children) {
	pid_t c = CHILD(while (clock() < CLOCKS_PER_SEC / 20) {});
	struct rusage ru;
	int st;
	EXPECT_EQ(wait4(c, &st, 0, &ru), c);
	EXPECT_GE(ru.ru_utime.tv_sec * 1000 + ru.ru_utime.tv_usec / 1000 + ru.ru_stime.tv_sec * 1000 + ru.ru_stime.tv_usec / 1000, 30);
	struct rusage all;
	OK(getrusage(RUSAGE_CHILDREN, &all));
	EXPECT_GE(all.ru_utime.tv_usec + all.ru_stime.tv_usec + all.ru_utime.tv_sec + all.ru_stime.tv_sec, 20000);
	ERR(getrusage(99, &ru), EINVAL);
}
static void *thr_exit(void *a) { (void)a; syscall(SYS_exit_group, 21); return NULL; }
static void *thr_pause(void *a) { (void)a; for (;;) pause(); return NULL; }
TEST(exit_group_from_thread) {
	pid_t c = CHILD(pthread_t t; pthread_create(&t, NULL, thr_pause, NULL); pthread_create(&t, NULL, thr_exit, NULL); for (;;) pause());
	EXPECT_EXIT(c, 21);
}
TEST(leader_exits_first) {
	pid_t c = CHILD(pthread_t t; pthread_create(&t, NULL, ({ void *f(void *a) { (void)a; msleep(100); syscall(SYS_exit_group, 5); return NULL; } f; }), NULL); syscall(SYS_exit, 3));
	msleep(40);
	int st;
	EXPECT_EQ(waitpid(c, &st, WNOHANG), 0);
	EXPECT_EXIT(c, 5);
}
TEST(kill_thread_kills_all) {
	pid_t c = CHILD(pthread_t t; pthread_create(&t, NULL, thr_pause, NULL); pthread_create(&t, NULL, ({ void *f(void *a) { (void)a; *(volatile int *)8 = 1; return NULL; } f; }), NULL); for (;;) pause());
	EXPECT_KILLED(c, SIGSEGV);
}
static void *thr_fork(void *a) { *(pid_t *)a = fork(); if (*(pid_t *)a == 0) _exit(13); return NULL; }
TEST(threads_wait_each_others_children) {
	pthread_t t;
	pid_t c;
	pthread_create(&t, NULL, thr_fork, &c);
	pthread_join(t, NULL);
	EXPECT_EXIT(c, 13);
	/* __WNOTHREAD sees this thread's only */
	pthread_create(&t, NULL, ({ void *f(void *a) { *(pid_t *)a = fork(); if (*(pid_t *)a == 0) _exit(14); msleep(200); return NULL; } f; }), &c);
	msleep(80);
	ERR(waitpid(-1, NULL, __WNOTHREAD), ECHILD);
	pthread_join(t, NULL);
	EXPECT_EXIT(c, 14);
}
TEST(fork_storm) {
	for (int r = 0; r < 10; r++) {
		pid_t p[20];
		for (int i = 0; i < 20; i++) p[i] = CHILD(_exit(i));
		for (int i = 0; i < 20; i++) EXPECT_EXIT(p[i], i);
	}
}
TEST(deep_family) {
	pid_t c = CHILD(for (int i = 0; i < 30; i++) { pid_t d = fork(); if (d < 0) _exit(99); if (d) { int st; waitpid(d, &st, 0); _exit(WEXITSTATUS(st) + 1); } } _exit(0));
	EXPECT_EXIT(c, 30);
}
TEST(rlimit_nproc) {
	struct rlimit rl = {0, 0};
	OK(setrlimit(RLIMIT_NPROC, &rl));
	OK(setresuid(54321, 54321, 54321));
	ERR(fork(), EAGAIN);
}
MAIN()
