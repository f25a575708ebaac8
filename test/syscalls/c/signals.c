/* Signals: masks, queues, handlers, alternate stacks, restarts, stop and continue, contexts. */
#include "harness.h"
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

static volatile int got, order[64], norder;
static volatile siginfo_t info;
static void h(int s) { got = s; if (norder < 64) order[norder++] = s; }
static void hi(int s, siginfo_t *i, void *u) { (void)u; got = s; info = *i; if (norder < 64) order[norder++] = i->si_value.sival_int; }
static void on(int sig, void (*f)(int), int flags) {
	struct sigaction sa = {.sa_handler = f, .sa_flags = flags};
	OK(sigaction(sig, &sa, NULL));
}
static void oni(int sig, int flags) {
	struct sigaction sa = {.sa_sigaction = hi, .sa_flags = SA_SIGINFO | flags};
	OK(sigaction(sig, &sa, NULL));
}
static void block(int how, int sig) {
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, sig);
	OK(sigprocmask(how, &m, NULL));
}
static void after_ms(int ms) {
	struct itimerval it = {{0, 0}, {ms / 1000, ms % 1000 * 1000}};
	OK(setitimer(ITIMER_REAL, &it, NULL));
}

TEST(handler_runs) {
	on(SIGUSR1, h, 0);
	OK(raise(SIGUSR1));
	EXPECT_EQ(got, SIGUSR1);
	struct sigaction sa;
	OK(sigaction(SIGUSR1, NULL, &sa));
	EXPECT_TRUE(sa.sa_handler == h);
}
TEST(sigaction_errors) {
	struct sigaction sa = {.sa_handler = h};
	ERR(sigaction(SIGKILL, &sa, NULL), EINVAL);
	ERR(sigaction(SIGSTOP, &sa, NULL), EINVAL);
	ERR(sigaction(0, &sa, NULL), EINVAL);
	ERR(sigaction(65, &sa, NULL), EINVAL);
	ERR(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
	ERR(syscall(SYS_rt_sigaction, SIGUSR1, (void *)8, NULL, 8), EFAULT);
	ERR(syscall(SYS_rt_sigprocmask, 99, &sa, NULL, 8), EINVAL);
	ERR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &sa, NULL, 4), EINVAL);
	OK(syscall(SYS_rt_sigprocmask, 99, NULL, NULL, 8));
	struct sigaction old;
	OK(sigaction(SIGKILL, NULL, &old));
}
TEST(kill_errors) {
	ERR(kill(getpid(), 65), EINVAL);
	ERR(kill(getpid(), -1), EINVAL);
	ERR(kill(999999, 0), ESRCH);
	ERR(kill(-999999, 0), ESRCH);
	OK(kill(getpid(), 0));
	ERR(syscall(SYS_tgkill, getpid(), getpid() + 100000, 0), ESRCH);
	ERR(syscall(SYS_tgkill, -1, getpid(), 0), EINVAL);
	ERR(syscall(SYS_tgkill, getppid(), getpid(), 0), ESRCH);
	OK(syscall(SYS_tkill, getpid(), 0));
	ERR(syscall(SYS_tkill, 0, 0), EINVAL);
	pid_t c = CHILD(pause());
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(kill(c, SIGTERM), EPERM); ERR(kill(c, 0), EPERM); ERR(kill(c, 65), EINVAL));
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
}
TEST(block_pending_unblock) {
	on(SIGUSR1, h, 0);
	block(SIG_BLOCK, SIGUSR1);
	raise(SIGUSR1);
	raise(SIGUSR1);
	EXPECT_EQ(got, 0);
	sigset_t p;
	OK(sigpending(&p));
	EXPECT_EQ(sigismember(&p, SIGUSR1), 1);
	block(SIG_UNBLOCK, SIGUSR1);
	EXPECT_EQ(norder, 1); /* standard signals do not queue */
	OK(sigpending(&p));
	EXPECT_EQ(sigismember(&p, SIGUSR1), 0);
}
TEST(kill_stop_cannot_be_blocked) {
	sigset_t m, o;
	sigfillset(&m);
	OK(sigprocmask(SIG_SETMASK, &m, NULL));
	OK(sigprocmask(0, NULL, &o));
	EXPECT_EQ(sigismember(&o, SIGKILL), 0);
	EXPECT_EQ(sigismember(&o, SIGSTOP), 0);
	EXPECT_EQ(sigismember(&o, SIGTERM), 1);
	EXPECT_KILLED(CHILD(kill(getpid(), SIGKILL)), SIGKILL);
}
TEST(rt_queue_order_and_values) {
	oni(SIGRTMIN + 1, 0);
	oni(SIGRTMIN + 2, 0);
	block(SIG_BLOCK, SIGRTMIN + 1);
	block(SIG_BLOCK, SIGRTMIN + 2);
	for (int i = 0; i < 5; i++) {
		OK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 200 + i}));
		OK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 100 + i}));
	}
	sigset_t m;
	sigemptyset(&m);
	/* both at once: Linux sets up frames lowest first, so the last set up runs first */
	OK(sigprocmask(SIG_SETMASK, &m, NULL));
	EXPECT_EQ(norder, 10);
	int a = 100, b = 200;
	for (int i = 0; i < 10; i++) {
		if (order[i] < 200) EXPECT_EQ(order[i], a++);
		else EXPECT_EQ(order[i], b++);
	}
	EXPECT_EQ(info.si_code, SI_QUEUE);
	EXPECT_EQ(info.si_pid, getpid());
}
TEST(rt_queue_with_sigtimedwait) {
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGRTMIN + 3);
	sigaddset(&m, SIGRTMIN);
	sigaddset(&m, SIGUSR2);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	for (int i = 0; i < 3; i++) OK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = i}));
	OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 77}));
	OK(kill(getpid(), SIGUSR2));
	siginfo_t i;
	EXPECT_EQ(sigwaitinfo(&m, &i), SIGUSR2);
	EXPECT_EQ(i.si_code, SI_USER);
	EXPECT_EQ(sigwaitinfo(&m, &i), SIGRTMIN);
	EXPECT_EQ(i.si_value.sival_int, 77);
	for (int k = 0; k < 3; k++) { EXPECT_EQ(sigwaitinfo(&m, &i), SIGRTMIN + 3); EXPECT_EQ(i.si_value.sival_int, k); }
	struct timespec t = {0, 50000000};
	int64_t s = now_ms();
	ERR(sigtimedwait(&m, &i, &t), EAGAIN);
	EXPECT_GE(now_ms() - s, 45);
	t.tv_nsec = -1;
	ERR(sigtimedwait(&m, &i, &t), EINVAL);
	t = (struct timespec){0, 0};
	ERR(sigtimedwait(&m, NULL, &t), EAGAIN);
	pid_t c = CHILD(msleep(40); OK(sigqueue(getppid(), SIGRTMIN, (union sigval){.sival_int = 5})));
	EXPECT_EQ(sigwaitinfo(&m, &i), SIGRTMIN);
	EXPECT_EQ(i.si_pid, c);
	EXPECT_EXIT(c, 0);
	on(SIGALRM, h, SA_RESTART);
	after_ms(30);
	ERR(sigwaitinfo(&m, &i), EINTR);
}
TEST(rlimit_sigpending) {
	struct rlimit rl = {10, 10};
	block(SIG_BLOCK, SIGRTMIN);
	OK(setrlimit(RLIMIT_SIGPENDING, &rl));
	OK(setresuid(34567, 34567, 34567));
	int i;
	for (i = 0; i < 100 && sigqueue(getpid(), SIGRTMIN, (union sigval){0}) == 0; i++) {}
	EXPECT_EQ(errno, EAGAIN);
	EXPECT_EQ(i, 10);
	OK(kill(getpid(), SIGRTMIN));
}
TEST(siginfo_fields) {
	oni(SIGUSR1, 0);
	OK(kill(getpid(), SIGUSR1));
	EXPECT_EQ(info.si_signo, SIGUSR1);
	EXPECT_EQ(info.si_code, SI_USER);
	EXPECT_EQ(info.si_pid, getpid());
	EXPECT_EQ(info.si_uid, getuid());
	OK(raise(SIGUSR1));
	EXPECT_EQ(info.si_code, SI_TKILL);
	siginfo_t i = {.si_code = SI_QUEUE, .si_signo = SIGUSR1};
	OK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &i));
	i.si_code = SI_USER;
	pid_t c = CHILD(pause());
	ERR(syscall(SYS_rt_sigqueueinfo, c, SIGUSR1, &i), EPERM);
	i.si_code = SI_TKILL;
	ERR(syscall(SYS_rt_sigqueueinfo, c, SIGUSR1, &i), EPERM);
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
}
TEST(sigchld_info) {
	oni(SIGCHLD, SA_RESTART);
	pid_t c = CHILD(_exit(5));
	WAIT_FOR(got);
	EXPECT_EQ(info.si_code, CLD_EXITED);
	EXPECT_EQ(info.si_status, 5);
	EXPECT_EQ(info.si_pid, c);
	EXPECT_EXIT(c, 5);
	got = 0;
	c = CHILD(for (;;) pause());
	OK(kill(c, SIGSTOP));
	WAIT_FOR(got);
	EXPECT_EQ(info.si_code, CLD_STOPPED);
	EXPECT_EQ(info.si_status, SIGSTOP);
	got = 0;
	OK(kill(c, SIGCONT));
	WAIT_FOR(got);
	EXPECT_EQ(info.si_code, CLD_CONTINUED);
	EXPECT_EQ(info.si_status, SIGCONT);
	got = 0;
	OK(kill(c, SIGKILL));
	WAIT_FOR(got);
	EXPECT_EQ(info.si_code, CLD_KILLED);
	EXPECT_EQ(info.si_status, SIGKILL);
}
TEST(nocldstop) {
	oni(SIGCHLD, SA_RESTART | SA_NOCLDSTOP);
	pid_t c = CHILD(for (;;) pause());
	OK(kill(c, SIGSTOP));
	int st;
	EXPECT_EQ(waitpid(c, &st, WUNTRACED), c);
	OK(kill(c, SIGCONT));
	EXPECT_EQ(waitpid(c, &st, WCONTINUED), c);
	EXPECT_EQ(got, 0);
	OK(kill(c, SIGKILL));
	WAIT_FOR(got == SIGCHLD);
}
static void nest(int s) {
	int d = norder;
	order[norder++] = s;
	if (d < 3) raise(s);
	order[norder++] = -s;
}
TEST(mask_during_handler) {
	on(SIGUSR1, nest, 0);
	raise(SIGUSR1);
	/* each runs after the one before has returned */
	EXPECT_EQ(order[0], SIGUSR1);
	EXPECT_EQ(order[1], -SIGUSR1);
	EXPECT_EQ(order[2], SIGUSR1);
	EXPECT_EQ(order[3], -SIGUSR1);
}
TEST(nodefer) {
	on(SIGUSR1, nest, SA_NODEFER);
	raise(SIGUSR1);
	EXPECT_EQ(order[0], SIGUSR1);
	EXPECT_EQ(order[1], SIGUSR1);
	EXPECT_EQ(order[2], SIGUSR1);
}
static void raise2(int s) { order[norder++] = s; if (s == SIGUSR1) { raise(SIGUSR2); order[norder++] = -1; } }
TEST(sa_mask) {
	struct sigaction sa = {.sa_handler = raise2};
	OK(sigaction(SIGUSR2, &sa, NULL));
	OK(sigaction(SIGUSR1, &sa, NULL));
	raise(SIGUSR1);
	EXPECT_EQ(order[1], SIGUSR2);
	EXPECT_EQ(order[2], -1);
	norder = 0;
	sigaddset(&sa.sa_mask, SIGUSR2);
	OK(sigaction(SIGUSR1, &sa, NULL));
	raise(SIGUSR1);
	EXPECT_EQ(order[1], -1);
	EXPECT_EQ(order[2], SIGUSR2);
}
TEST(resethand) {
	on(SIGUSR1, h, SA_RESETHAND);
	raise(SIGUSR1);
	EXPECT_EQ(got, SIGUSR1);
	struct sigaction sa;
	OK(sigaction(SIGUSR1, NULL, &sa));
	EXPECT_TRUE(sa.sa_handler == SIG_DFL);
	EXPECT_KILLED(CHILD(raise(SIGUSR1)), SIGUSR1);
}
static char alt[65536] __attribute__((aligned(16)));
static volatile uintptr_t sp_seen;
static volatile int alt_flags;
static void onstack(int s) { char c; (void)s; sp_seen = (uintptr_t)&c; stack_t ss; sigaltstack(NULL, &ss); alt_flags = ss.ss_flags; got = s; }
TEST(altstack) {
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}, old;
	OK(sigaltstack(&ss, NULL));
	on(SIGUSR1, onstack, SA_ONSTACK);
	on(SIGUSR2, onstack, 0);
	raise(SIGUSR1);
	EXPECT_TRUE(sp_seen >= (uintptr_t)alt && sp_seen < (uintptr_t)alt + sizeof alt);
	EXPECT_EQ(alt_flags, SS_ONSTACK);
	raise(SIGUSR2);
	EXPECT_TRUE(sp_seen < (uintptr_t)alt || sp_seen >= (uintptr_t)alt + sizeof alt);
	EXPECT_EQ(alt_flags, 0);
	OK(sigaltstack(NULL, &old));
	EXPECT_EQ(old.ss_sp, alt);
	EXPECT_EQ(old.ss_size, sizeof alt);
	ss.ss_size = 100;
	ERR(sigaltstack(&ss, NULL), ENOMEM);
	ss = (stack_t){.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = 0x1234};
	ERR(sigaltstack(&ss, NULL), EINVAL);
	ss = (stack_t){.ss_flags = SS_DISABLE};
	OK(sigaltstack(&ss, NULL));
	raise(SIGUSR1);
	EXPECT_TRUE(sp_seen < (uintptr_t)alt || sp_seen >= (uintptr_t)alt + sizeof alt);
	ERR(sigaltstack((void *)8, NULL), EFAULT);
}
static volatile int sas_err;
static void change_alt(int s) { (void)s; stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}; sas_err = sigaltstack(&ss, NULL) < 0 ? errno : 0; }
TEST(altstack_busy) {
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt};
	OK(sigaltstack(&ss, NULL));
	on(SIGUSR1, change_alt, SA_ONSTACK);
	raise(SIGUSR1);
	EXPECT_EQ(sas_err, EPERM);
}
static sigjmp_buf jb;
static void jump(int s) { (void)s; siglongjmp(jb, 1); }
static int deep(int n) { volatile char b[4096]; b[0] = n; return n ? deep(n - 1) + b[0] : 0; }
TEST(stack_overflow_on_altstack) {
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt};
	OK(sigaltstack(&ss, NULL));
	on(SIGSEGV, jump, SA_ONSTACK);
	if (sigsetjmp(jb, 1) == 0) {
		deep(1 << 24);
		FAIL("no overflow");
	}
	if (sigsetjmp(jb, 1) == 0) {
		deep(1 << 24);
		FAIL("no second overflow");
	}
	/* without an alternate stack the frame cannot be written, and that kills */
	EXPECT_KILLED(CHILD(stack_t d; memset(&d, 0, sizeof d); d.ss_flags = SS_DISABLE; sigaltstack(&d, NULL); on(SIGSEGV, h, 0); deep(1 << 24)), SIGSEGV);
}
TEST(segv_blocked_or_ignored_kills) {
	EXPECT_KILLED(CHILD(signal(SIGSEGV, SIG_IGN); *(volatile int *)8 = 1), SIGSEGV);
	EXPECT_KILLED(CHILD(on(SIGSEGV, h, 0); block(SIG_BLOCK, SIGSEGV); *(volatile int *)8 = 1), SIGSEGV);
}
TEST(suspend) {
	on(SIGUSR1, h, 0);
	block(SIG_BLOCK, SIGUSR1);
	raise(SIGUSR1);
	sigset_t e;
	sigemptyset(&e);
	ERR(sigsuspend(&e), EINTR);
	EXPECT_EQ(got, SIGUSR1);
	sigset_t m;
	OK(sigprocmask(0, NULL, &m));
	EXPECT_EQ(sigismember(&m, SIGUSR1), 1);
	pid_t me = getpid(), c = CHILD(msleep(40); kill(me, SIGUSR1));
	got = 0;
	ERR(sigsuspend(&e), EINTR);
	EXPECT_EQ(got, SIGUSR1);
	EXPECT_EXIT(c, 0);
}
TEST(pause_eintr) {
	on(SIGALRM, h, SA_RESTART);
	after_ms(30);
	ERR(pause(), EINTR);
}
TEST(read_restart_and_eintr) {
	int p[2];
	char b;
	OK(pipe(p));
	on(SIGALRM, h, 0);
	after_ms(30);
	ERR(read(p[0], &b, 1), EINTR);
	on(SIGALRM, h, SA_RESTART);
	pid_t c = CHILD(msleep(120); OK(write(p[1], "x", 1)));
	got = 0;
	after_ms(30);
	EXPECT_EQ(read(p[0], &b, 1), 1);
	EXPECT_EQ(got, SIGALRM);
	EXPECT_EXIT(c, 0);
}
TEST(wait_restarts) {
	on(SIGALRM, h, SA_RESTART);
	pid_t c = CHILD(msleep(120); _exit(3));
	after_ms(30);
	int st;
	EXPECT_EQ(waitpid(c, &st, 0), c);
	EXPECT_EQ(got, SIGALRM);
	on(SIGALRM, h, 0);
	c = CHILD(msleep(120); _exit(3));
	after_ms(30);
	ERR(waitpid(c, &st, 0), EINTR);
	EXPECT_EXIT(c, 3);
}
TEST(never_restarted) {
	/* signal(7): these fail with EINTR whatever SA_RESTART says */
	on(SIGALRM, h, SA_RESTART);
	struct timespec t = {2, 0}, r = {0, 0};
	after_ms(30);
	ERR(nanosleep(&t, &r), EINTR);
	EXPECT_GE(r.tv_sec, 1);
	int p[2];
	OK(pipe(p));
	struct pollfd f = {p[0], POLLIN, 0};
	after_ms(30);
	ERR(poll(&f, 1, 2000), EINTR);
	fd_set s;
	FD_ZERO(&s);
	FD_SET(p[0], &s);
	after_ms(30);
	struct timeval tv = {2, 0};
	ERR(select(p[0] + 1, &s, NULL, NULL, &tv), EINTR);
	after_ms(30);
	ERR(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &r) == 0 ? 0 : (errno = EINTR, -1), EINTR);
}
TEST(stop_restarts_sleep) {
	/* nanosleep stopped and continued goes on, without a handler, for the rest of its time */
	pid_t c = CHILD(struct timespec t; t.tv_sec = 0; t.tv_nsec = 200000000; int64_t s = now_ms(); OK(nanosleep(&t, NULL)); EXPECT_GE(now_ms() - s, 190));
	msleep(50);
	OK(kill(c, SIGSTOP));
	int st;
	EXPECT_EQ(waitpid(c, &st, WUNTRACED), c);
	OK(kill(c, SIGCONT));
	EXPECT_EXIT(c, 0);
	int p[2];
	OK(pipe(p));
	c = CHILD(char b; EXPECT_EQ(read(p[0], &b, 1), 1); struct pollfd f; f.fd = p[0]; f.events = POLLIN; EXPECT_EQ(poll(&f, 1, 3000), 1));
	msleep(40);
	OK(kill(c, SIGSTOP));
	EXPECT_EQ(waitpid(c, &st, WUNTRACED), c);
	OK(kill(c, SIGCONT));
	msleep(20);
	OK(write(p[1], "x", 1));
	msleep(40);
	OK(kill(c, SIGSTOP));
	EXPECT_EQ(waitpid(c, &st, WUNTRACED), c);
	OK(kill(c, SIGCONT));
	msleep(20);
	OK(write(p[1], "x", 1));
	EXPECT_EXIT(c, 0);
}
static void change_ctx(int s, siginfo_t *i, void *u) {
	(void)s; (void)i;
	ucontext_t *c = u;
	c->uc_mcontext.gregs[REG_RIP] += 2; /* skip ud2 */
	c->uc_mcontext.gregs[REG_RBX] = 0x1234567890abcdef;
	sigaddset(&c->uc_sigmask, SIGUSR2);
}
TEST(context_changed_in_handler) {
	struct sigaction sa = {.sa_sigaction = change_ctx, .sa_flags = SA_SIGINFO};
	OK(sigaction(SIGILL, &sa, NULL));
	unsigned long v = 1;
	__asm__ volatile("ud2; mov %%rbx, %0" : "=r"(v) : : "rbx", "memory");
	EXPECT_EQ(v, 0x1234567890abcdef);
	sigset_t m;
	OK(sigprocmask(0, NULL, &m));
	EXPECT_EQ(sigismember(&m, SIGUSR2), 1);
}
static void clobber_fp(int s) {
	(void)s;
	volatile double x = 3.5;
	for (int i = 0; i < 10; i++) x = sin(x) * 2;
	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; fninit; fldpi" ::: "xmm0", "xmm7");
	got = 1;
}
TEST(fp_state_kept) {
	on(SIGUSR1, clobber_fp, 0);
	int pid = getpid();
	unsigned long a = 0x1122334455667788, out = 0;
	long r;
	__asm__ volatile("movq %2, %%xmm7; syscall; movq %%xmm7, %1" : "=a"(r), "=r"(out) : "r"(a), "0"(SYS_kill), "D"((long)pid), "S"((long)SIGUSR1) : "rcx", "r11", "memory", "xmm7", "xmm0");
	EXPECT_EQ(r, 0);
	EXPECT_EQ(got, 1);
	EXPECT_EQ(out, a);
	long double ld = 1.25L;
	__asm__ volatile("syscall" : "=a"(r), "+t"(ld) : "0"((long)SYS_kill), "D"((long)pid), "S"((long)SIGUSR1) : "rcx", "r11", "memory");
	EXPECT_TRUE(ld == 1.25L);
}
TEST(fp_state_over_preemption) {
	pid_t c[3];
	for (int k = 0; k < 3; k++)
		c[k] = CHILD(double x = k + 1.0; double w = x; for (int i = 0; i < 3000; i++) { w = w * 1.0000001; x = x * 1.0000001; if (i % 100 == 0) sched_yield(); if (w != x) _exit(1); });
	for (int k = 0; k < 3; k++) EXPECT_EXIT(c[k], 0);
}
TEST(avx_state_kept) {
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("avx")) SKIP("no AVX");
	on(SIGUSR1, clobber_fp, 0);
	unsigned char in[32], out[32];
	for (int i = 0; i < 32; i++) in[i] = i + 1;
	long r;
	__asm__ volatile("vmovdqu (%1), %%ymm7; syscall; vmovdqu %%ymm7, (%2)" : "=a"(r) : "r"(in), "r"(out), "0"((long)SYS_kill), "D"((long)getpid()), "S"((long)SIGUSR1) : "rcx", "r11", "memory", "xmm7", "xmm0");
	EXPECT_EQ(got, 1);
	EXPECT_MEM(in, out, 32);
}
TEST(registers_over_syscalls) {
	/* rcx and r11 are the only ones a system call may change */
	long r, b = 0x1111, d = 0x2222, e = 0x3333;
	register long r8 __asm__("r8") = 0x8888, r9 __asm__("r9") = 0x9999, r10 __asm__("r10") = 0xaaaa, r12 __asm__("r12") = 0xcccc, r15 __asm__("r15") = 0xffff;
	__asm__ volatile("syscall" : "=a"(r), "+b"(b), "+d"(d), "+S"(e), "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r15) : "0"((long)SYS_getpid) : "rcx", "r11", "memory");
	EXPECT_EQ(r, getpid());
	EXPECT_EQ(b, 0x1111);
	EXPECT_EQ(d, 0x2222);
	EXPECT_EQ(e, 0x3333);
	EXPECT_EQ(r8, 0x8888);
	EXPECT_EQ(r9, 0x9999);
	EXPECT_EQ(r10, 0xaaaa);
	EXPECT_EQ(r12, 0xcccc);
	EXPECT_EQ(r15, 0xffff);
}
TEST(unknown_syscalls) {
	ERR(syscall(10000), ENOSYS);
	ERR(syscall(-5), ENOSYS);
	ERR(syscall(0x7fffffff), ENOSYS);
}
TEST(async_handler_in_loop) {
	on(SIGALRM, h, 0);
	after_ms(50);
	int64_t t = now_ms();
	volatile long x = 0;
	while (!got && now_ms() - t < 5000) x++;
	EXPECT_EQ(got, SIGALRM);
	/* and in a loop without any system call */
	got = 0;
	after_ms(50);
	for (volatile long i = 0; !got && i < 20000000000L; i++) {}
	EXPECT_EQ(got, SIGALRM);
}
TEST(red_zone_and_many) {
	struct itimerval it = {{0, 500}, {0, 500}};
	on(SIGALRM, h, SA_RESTART);
	OK(setitimer(ITIMER_REAL, &it, NULL));
	volatile unsigned long s = 0;
	for (unsigned long i = 0; i < 20000000; i++) s += i;
	it = (struct itimerval){{0, 0}, {0, 0}};
	OK(setitimer(ITIMER_REAL, &it, NULL));
	EXPECT_EQ(s, 199999990000000UL);
	EXPECT_GT(norder, 0);
}
static volatile int tid_seen;
static void who(int s) { (void)s; tid_seen = syscall(SYS_gettid); }
static void *thr(void *a) { *(volatile int *)a = syscall(SYS_gettid); for (;;) pause(); return NULL; }
TEST(thread_directed) {
	on(SIGUSR1, who, 0);
	volatile int tid = 0;
	pthread_t t;
	pthread_create(&t, NULL, thr, (void *)&tid);
	WAIT_FOR(tid);
	OK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
	WAIT_FOR(tid_seen == tid);
	/* process-directed goes to a thread that does not block it */
	block(SIG_BLOCK, SIGUSR1);
	tid_seen = 0;
	OK(kill(getpid(), SIGUSR1));
	WAIT_FOR(tid_seen == tid);
}
TEST(ignored_is_dropped) {
	signal(SIGUSR1, SIG_IGN);
	block(SIG_BLOCK, SIGUSR1);
	raise(SIGUSR1);
	sigset_t p;
	OK(sigpending(&p));
	EXPECT_EQ(sigismember(&p, SIGUSR1), 1); /* blocked and ignored: kept */
	block(SIG_UNBLOCK, SIGUSR1);
	on(SIGUSR1, h, 0);
	block(SIG_BLOCK, SIGUSR1);
	raise(SIGUSR1);
	signal(SIGUSR1, SIG_IGN); /* setting to ignore drops what is pending */
	OK(sigpending(&p));
	EXPECT_EQ(sigismember(&p, SIGUSR1), 0);
	EXPECT_EQ(got, 0);
}
TEST(cont_clears_stops) {
	block(SIG_BLOCK, SIGTSTP);
	raise(SIGTSTP);
	sigset_t p;
	OK(sigpending(&p));
	EXPECT_EQ(sigismember(&p, SIGTSTP), 1);
	raise(SIGCONT);
	OK(sigpending(&p));
	EXPECT_EQ(sigismember(&p, SIGTSTP), 0);
}
TEST(cont_handler_after_stop) {
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(on(SIGCONT, h, 0); OK(write(p[1], "r", 1)); while (!got) pause(); _exit(got == SIGCONT ? 0 : 1));
	char b;
	OK(read(p[0], &b, 1));
	OK(kill(c, SIGSTOP));
	int st;
	EXPECT_EQ(waitpid(c, &st, WUNTRACED), c);
	OK(kill(c, SIGCONT));
	EXPECT_EXIT(c, 0);
}
TEST(orphaned_group_stopped_gets_hup_cont) {
	int p[2];
	OK(pipe(p));
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t c = CHILD(
		OK(setsid());
		pid_t g = CHILD(OK(setpgid(0, 0)); on(SIGHUP, h, 0); OK(write(p[1], "r", 1)); raise(SIGSTOP); while (norder < 1) msleep(5); char k = got; OK(write(p[1], &k, 1)); pause());
		int st; EXPECT_EQ(waitpid(g, &st, WUNTRACED), g); OK(write(p[1], (char *)&g, 4)));
	char b[8];
	EXPECT_EQ(read(p[0], b, 1), 1);
	EXPECT_EXIT(c, 0);
	pid_t g;
	EXPECT_EQ(read(p[0], &g, 4), 4);
	EXPECT_EQ(read(p[0], b, 1), 1);
	EXPECT_EQ(b[0], SIGHUP);
	OK(kill(g, SIGKILL));
	EXPECT_KILLED(g, SIGKILL);
}
TEST(orphaned_group_ignores_tstp) {
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	/* a session of one: its group is orphaned, so the terminal's stop signals do nothing by default */
	EXPECT_EXIT(CHILD(OK(setsid()); raise(SIGTSTP); raise(SIGTTIN); raise(SIGTTOU); _exit(4)), 4);
}
TEST(default_actions) {
	int term[] = {SIGHUP, SIGINT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGPROF, SIGVTALRM, SIGIO, SIGSTKFLT, SIGPWR, SIGRTMIN, SIGRTMAX};
	for (unsigned i = 0; i < sizeof term / sizeof *term; i++) EXPECT_KILLED(CHILD(raise(term[i]); _exit(1)), term[i]);
	int core[] = {SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS};
	for (unsigned i = 0; i < sizeof core / sizeof *core; i++) EXPECT_KILLED(CHILD(raise(core[i]); _exit(1)), core[i]);
	int ign[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT};
	for (unsigned i = 0; i < sizeof ign / sizeof *ign; i++) EXPECT_EXIT(CHILD(raise(ign[i]); _exit(0)), 0);
}
TEST(fault_info) {
	struct sigaction sa = {.sa_sigaction = hi, .sa_flags = SA_SIGINFO | SA_RESETHAND};
	OK(sigaction(SIGFPE, &sa, NULL));
	EXPECT_KILLED(CHILD(volatile int z = 0; volatile int y = 5; y = y / z), SIGFPE);
	sa = (struct sigaction){.sa_sigaction = change_ctx, .sa_flags = SA_SIGINFO};
	OK(sigaction(SIGTRAP, &(struct sigaction){.sa_sigaction = hi, .sa_flags = SA_SIGINFO}, NULL));
	__asm__ volatile("int3");
	EXPECT_EQ(got, SIGTRAP);
	EXPECT_EQ(info.si_code, SI_KERNEL);
}
TEST(sigreturn_garbage_kills) {
	EXPECT_KILLED(CHILD(__asm__ volatile("xor %%esp, %%esp; mov $15, %%eax; syscall" ::: "memory")), SIGSEGV);
}
TEST(vtalrm_prof) {
	on(SIGVTALRM, h, 0);
	struct itimerval it = {{0, 0}, {0, 20000}};
	OK(setitimer(ITIMER_VIRTUAL, &it, NULL));
	int64_t t = now_ms();
	while (!got && now_ms() - t < 15000) for (volatile int i = 0; i < 100000; i++) {}
	EXPECT_EQ(got, SIGVTALRM);
	on(SIGPROF, h, 0);
	OK(setitimer(ITIMER_PROF, &it, NULL));
	t = now_ms();
	while (got != SIGPROF && now_ms() - t < 15000) for (volatile int i = 0; i < 100000; i++) {}
	EXPECT_EQ(got, SIGPROF);
}
TEST(signal_storm_between_processes) {
	on(SIGUSR1, h, SA_RESTART);
	pid_t me = getpid();
	pid_t c = CHILD(for (int i = 0; i < 500; i++) OK(kill(me, SIGUSR1)));
	EXPECT_EXIT(c, 0);
	EXPECT_GT(norder, 0);
}
MAIN()
