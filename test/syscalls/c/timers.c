/* Clocks, sleeps, interval timers, POSIX timers, timerfd, the vDSO. */
#include "harness.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/timerfd.h>
#include <sys/times.h>

static volatile int hits;
static volatile siginfo_t info;
static void h(int s, siginfo_t *i, void *u) { (void)s; (void)u; info = *i; hits++; }
static void on(int sig) { struct sigaction sa = {.sa_sigaction = h, .sa_flags = SA_SIGINFO | SA_RESTART}; OK(sigaction(sig, &sa, NULL)); }

TEST(clocks) {
	clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
	for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
		struct timespec a, r;
		OK(clock_gettime(ids[i], &a));
		OK(clock_getres(ids[i], &r));
		EXPECT_TRUE(a.tv_nsec >= 0 && a.tv_nsec < 1000000000);
		EXPECT_GT(r.tv_nsec + r.tv_sec, 0);
	}
	struct timespec t;
	ERR(clock_gettime(99, &t), EINVAL);
	ERR(syscall(SYS_clock_gettime, CLOCK_REALTIME, (void *)8), EFAULT);
	ERR(clock_settime(CLOCK_MONOTONIC, &(struct timespec){1, 0}), EINVAL);
}
TEST(monotonic_never_goes_back) {
	int64_t last = now_ns();
	for (int i = 0; i < 200000; i++) {
		int64_t n = now_ns();
		EXPECT_GE(n, last);
		last = n;
	}
}
TEST(vdso_agrees_with_syscall) {
	for (int k = 0; k < 20; k++)
		for (clockid_t c = 0; c < 2; c++) {
			struct timespec a, b, d;
			OK(syscall(SYS_clock_gettime, c, &a));
			OK(clock_gettime(c, &b));
			OK(syscall(SYS_clock_gettime, c, &d));
			int64_t x = a.tv_sec * 1000000000LL + a.tv_nsec, y = b.tv_sec * 1000000000LL + b.tv_nsec, z = d.tv_sec * 1000000000LL + d.tv_nsec;
			EXPECT_LE(x - 2000, y);
			EXPECT_LE(y, z + 2000);
			msleep(1);
		}
	struct timeval tv;
	OK(gettimeofday(&tv, NULL));
	time_t t = time(NULL);
	EXPECT_TRUE(llabs(t - tv.tv_sec) <= 1);
}
TEST(vdso_has_symbols) {
	Elf64_Ehdr *e = (void *)getauxval(AT_SYSINFO_EHDR);
	EXPECT_TRUE(e != NULL);
	EXPECT_MEM(e->e_ident, ELFMAG, 4);
	Elf64_Phdr *p = (void *)((char *)e + e->e_phoff);
	char *base = (char *)e;
	Elf64_Dyn *d = NULL;
	for (int i = 0; i < e->e_phnum; i++) {
		if (p[i].p_type == PT_LOAD) base = (char *)e + p[i].p_offset - p[i].p_vaddr;
		if (p[i].p_type == PT_DYNAMIC) d = (void *)((char *)e + p[i].p_offset);
	}
	EXPECT_TRUE(d != NULL);
	char *str = NULL;
	Elf64_Sym *sym = NULL;
	Elf32_Word *hash = NULL;
	for (; d->d_tag; d++) {
		if (d->d_tag == DT_STRTAB) str = base + d->d_un.d_ptr;
		if (d->d_tag == DT_SYMTAB) sym = (void *)(base + d->d_un.d_ptr);
		if (d->d_tag == DT_HASH) hash = (void *)(base + d->d_un.d_ptr);
	}
	EXPECT_TRUE(str && sym);
	int found = 0;
	for (unsigned i = 0; i < (hash ? hash[1] : 20); i++) {
		if (!strcmp(str + sym[i].st_name, "__vdso_clock_gettime")) found |= 1;
		if (!strcmp(str + sym[i].st_name, "__vdso_gettimeofday")) found |= 2;
		if (!strcmp(str + sym[i].st_name, "__vdso_time")) found |= 4;
		if (!strcmp(str + sym[i].st_name, "__vdso_getcpu")) found |= 8;
	}
	EXPECT_EQ(found & 7, 7);
}
TEST(nanosleep_basic) {
	struct timespec t = {0, 30000000};
	int64_t s = now_ns();
	OK(nanosleep(&t, NULL));
	int64_t d = now_ns() - s;
	EXPECT_GE(d, 30000000);
	EXPECT_LT(d, 500000000);
	t.tv_nsec = 1000000000;
	ERR(nanosleep(&t, NULL), EINVAL);
	t = (struct timespec){-1, 0};
	ERR(nanosleep(&t, NULL), EINVAL);
	ERR(nanosleep((void *)8, NULL), EFAULT);
	t = (struct timespec){0, 0};
	OK(nanosleep(&t, NULL));
}
TEST(clock_nanosleep_abs) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	int64_t s = now_ns();
	t.tv_nsec += 40000000;
	if (t.tv_nsec >= 1000000000) { t.tv_sec++; t.tv_nsec -= 1000000000; }
	EXPECT_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
	EXPECT_GE(now_ns() - s, 39000000);
	EXPECT_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL), 0);
	EXPECT_EQ(clock_nanosleep(99, 0, &t, NULL), EINVAL);
	EXPECT_EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &t, NULL), EINVAL);
	t = (struct timespec){0, 20000000};
	EXPECT_EQ(clock_nanosleep(CLOCK_REALTIME, 0, &t, NULL), 0);
}
TEST(itimer_real) {
	on(SIGALRM);
	struct itimerval it = {{0, 20000}, {0, 20000}}, o;
	OK(setitimer(ITIMER_REAL, &it, NULL));
	WAIT_FOR(hits >= 3);
	OK(getitimer(ITIMER_REAL, &o));
	EXPECT_EQ(o.it_interval.tv_usec, 20000);
	EXPECT_LE(o.it_value.tv_usec, 20000);
	it = (struct itimerval){{0, 0}, {0, 0}};
	OK(setitimer(ITIMER_REAL, &it, &o));
	EXPECT_EQ(o.it_interval.tv_usec, 20000);
	int n = hits;
	msleep(60);
	EXPECT_EQ(hits, n);
	it.it_value.tv_usec = 1000000;
	ERR(setitimer(ITIMER_REAL, &it, NULL), EINVAL);
	ERR(setitimer(9, &it, NULL), EINVAL);
}
TEST(alarm_basic) {
	on(SIGALRM);
	EXPECT_EQ(alarm(100), 0);
	EXPECT_EQ(alarm(1), 100);
	ERR(pause(), EINTR);
	EXPECT_EQ(hits, 1);
	alarm(50);
	IN_CHILD(EXPECT_EQ(alarm(0), 0)); /* not inherited */
	EXPECT_EQ(alarm(0), 50);
}
TEST(posix_timer_signal) {
	on(SIGRTMIN);
	timer_t t;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 4711};
	OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
	struct itimerspec its = {{0, 10000000}, {0, 10000000}}, o;
	OK(timer_settime(t, 0, &its, NULL));
	WAIT_FOR(hits >= 3);
	EXPECT_EQ(info.si_code, SI_TIMER);
	EXPECT_EQ(info.si_value.sival_int, 4711);
	OK(timer_gettime(t, &o));
	EXPECT_EQ(o.it_interval.tv_nsec, 10000000);
	OK(timer_delete(t));
	int n = hits;
	msleep(40);
	EXPECT_LE(hits, n + 1);
	ERR(syscall(SYS_timer_delete, 12345), EINVAL);
	ERR(syscall(SYS_timer_settime, 12345, 0, &its, NULL), EINVAL);
}
TEST(posix_timer_overrun) {
	on(SIGRTMIN);
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGRTMIN);
	OK(sigprocmask(SIG_BLOCK, &m, NULL));
	timer_t t;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
	struct itimerspec its = {{0, 5000000}, {0, 5000000}};
	OK(timer_settime(t, 0, &its, NULL));
	msleep(100);
	siginfo_t si;
	EXPECT_EQ(sigwaitinfo(&m, &si), SIGRTMIN);
	EXPECT_GE(si.si_overrun, 10);
	EXPECT_EQ(timer_getoverrun(t), si.si_overrun);
}
TEST(posix_timer_misc) {
	timer_t t;
	struct sigevent ev = {.sigev_notify = SIGEV_NONE};
	OK(timer_create(CLOCK_REALTIME, &ev, &t));
	struct timespec n;
	clock_gettime(CLOCK_REALTIME, &n);
	struct itimerspec its = {{0, 0}, {n.tv_sec + 100, 0}}, o;
	OK(timer_settime(t, TIMER_ABSTIME, &its, NULL));
	OK(timer_gettime(t, &o));
	EXPECT_TRUE(o.it_value.tv_sec >= 97 && o.it_value.tv_sec <= 100);
	its.it_value.tv_nsec = -1;
	ERR(timer_settime(t, 0, &its, NULL), EINVAL);
	ERR(timer_create(99, &ev, &t), EINVAL);
	ev.sigev_notify = 77;
	ERR(syscall(SYS_timer_create, CLOCK_REALTIME, &ev, &t), EINVAL);
	ev.sigev_notify = SIGEV_SIGNAL;
	ev.sigev_signo = 99;
	ERR(syscall(SYS_timer_create, CLOCK_REALTIME, &ev, &t), EINVAL);
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev.sigev_signo = SIGUSR1;
	ev._sigev_un._tid = getpid() + 10000;
	ERR(syscall(SYS_timer_create, CLOCK_REALTIME, &ev, &t), EINVAL);
	ev._sigev_un._tid = getpid();
	on(SIGUSR1);
	int id;
	OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id));
	its = (struct itimerspec){{0, 0}, {0, 10000000}};
	OK(syscall(SYS_timer_settime, id, 0, &its, NULL));
	WAIT_FOR(hits == 1);
	IN_CHILD(ERR(syscall(SYS_timer_gettime, id, &o), EINVAL));
}
TEST(cpu_timer) {
	on(SIGRTMIN);
	timer_t t;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	OK(timer_create(CLOCK_PROCESS_CPUTIME_ID, &ev, &t));
	struct itimerspec its = {{0, 0}, {0, 30000000}};
	OK(timer_settime(t, 0, &its, NULL));
	int64_t s = now_ms();
	while (!hits && now_ms() - s < 5000) for (volatile int i = 0; i < 100000; i++) {}
	EXPECT_EQ(hits, 1);
}
TEST(timerfd_basic) {
	int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
	uint64_t v;
	ERR(read(fd, &v, 8), EAGAIN);
	struct itimerspec its = {{0, 10000000}, {0, 10000000}}, o;
	OK(timerfd_settime(fd, 0, &its, NULL));
	struct pollfd p = {fd, POLLIN, 0};
	EXPECT_EQ(poll(&p, 1, 2000), 1);
	msleep(50);
	EXPECT_EQ(read(fd, &v, 8), 8);
	EXPECT_GE(v, 3);
	OK(timerfd_gettime(fd, &o));
	EXPECT_EQ(o.it_interval.tv_nsec, 10000000);
	ERR(read(fd, &v, 4), EINVAL);
	its = (struct itimerspec){{0, 0}, {0, 0}};
	OK(timerfd_settime(fd, 0, &its, &o));
	read(fd, &v, 8);
	ERR(read(fd, &v, 8), EAGAIN);
	ERR(write(fd, &v, 8), EINVAL);
	ERR(timerfd_create(99, 0), EINVAL);
	ERR(timerfd_create(CLOCK_MONOTONIC, 0x1234), EINVAL);
	ERR(timerfd_settime(0x7fff, 0, &its, NULL), EBADF);
	ERR(timerfd_settime(1, 0, &its, NULL), EINVAL);
}
TEST(timerfd_blocking_abs) {
	int fd = OK(timerfd_create(CLOCK_REALTIME, 0));
	struct timespec n;
	clock_gettime(CLOCK_REALTIME, &n);
	n.tv_nsec += 50000000;
	if (n.tv_nsec >= 1000000000) { n.tv_sec++; n.tv_nsec -= 1000000000; }
	struct itimerspec its = {{0, 0}, n};
	OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL));
	uint64_t v;
	int64_t s = now_ms();
	EXPECT_EQ(read(fd, &v, 8), 8);
	EXPECT_EQ(v, 1);
	EXPECT_GE(now_ms() - s, 40);
	its.it_value = (struct timespec){1, 0}; /* long past: at once */
	OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL));
	EXPECT_EQ(read(fd, &v, 8), 8);
}
TEST(cpu_clocks_advance) {
	struct timespec a, b;
	OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a));
	int64_t s = now_ms(), d;
	do {
		OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b));
		d = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
	} while (d < 50 && now_ms() - s < 10000);
	EXPECT_GE(d, 50);
	EXPECT_LE(d, now_ms() - s + 50); /* one thread has no more than the time that passed */
	OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a));
	msleep(100);
	OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b));
	EXPECT_LT((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000, 60);
	clockid_t id;
	OK(clock_getcpuclockid(getpid(), &id));
	OK(clock_gettime(id, &a));
}
TEST(times_and_getrusage) {
	struct tms t;
	clock_t a = times(&t);
	EXPECT_GT(a, 0);
	struct tms u;
	clock_t b;
	do b = times(&u);
	while ((b - a < 15 || u.tms_utime + u.tms_stime == t.tms_utime + t.tms_stime) && b - a < 1000);
	EXPECT_GE(b - a, 10);
	EXPECT_GT(u.tms_utime + u.tms_stime, t.tms_utime + t.tms_stime);
	struct rusage ru;
	OK(getrusage(RUSAGE_SELF, &ru));
	EXPECT_GT(ru.ru_maxrss, 100);
	OK(getrusage(RUSAGE_THREAD, &ru));
	EXPECT_GT(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec, 0);
}
TEST(rlimit_cpu) {
	pid_t c = CHILD(struct rlimit rl; rl.rlim_cur = 1; rl.rlim_max = 2; OK(setrlimit(RLIMIT_CPU, &rl)); for (volatile long i = 0;; i++) {});
	EXPECT_KILLED(c, SIGXCPU);
}
TEST(many_timers) {
	on(SIGRTMIN);
	timer_t t[50];
	for (int i = 0; i < 50; i++) {
		struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = i};
		OK(timer_create(CLOCK_MONOTONIC, &ev, &t[i]));
		struct itimerspec its = {{0, 0}, {0, 1000000 * (50 - i)}};
		OK(timer_settime(t[i], 0, &its, NULL));
	}
	WAIT_FOR(hits == 50);
}
MAIN()
