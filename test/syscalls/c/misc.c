/* rlimits, prctl, sched_*, priorities, getrandom, sysinfo, uname, getcpu, umask, hostname. */
#include "harness.h"
#include <linux/prctl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <asm/prctl.h>

TEST(rlimit_get_set) {
	struct rlimit r, o;
	for (int i = 0; i < 16; i++) OK(getrlimit(i, &r));
	ERR(getrlimit(16, &r), EINVAL);
	ERR(getrlimit(-1, &r), EINVAL);
	OK(getrlimit(RLIMIT_CORE, &o));
	r = (struct rlimit){5, 10};
	OK(setrlimit(RLIMIT_CORE, &r));
	OK(getrlimit(RLIMIT_CORE, &o));
	EXPECT_EQ(o.rlim_cur, 5);
	EXPECT_EQ(o.rlim_max, 10);
	r = (struct rlimit){11, 10};
	ERR(setrlimit(RLIMIT_CORE, &r), EINVAL);
	OK(setresuid(777, 777, 777));
	r = (struct rlimit){5, 20};
	ERR(setrlimit(RLIMIT_CORE, &r), EPERM);
	r = (struct rlimit){10, 10};
	OK(setrlimit(RLIMIT_CORE, &r));
	ERR(syscall(SYS_getrlimit, RLIMIT_CORE, (void *)8), EFAULT);
}
TEST(prlimit_other) {
	pid_t c = CHILD(pause());
	struct rlimit o, n = {3, 4};
	OK(prlimit(c, RLIMIT_CORE, &n, NULL));
	OK(prlimit(c, RLIMIT_CORE, NULL, &o));
	EXPECT_EQ(o.rlim_cur, 3);
	ERR(prlimit(999999, RLIMIT_CORE, NULL, &o), ESRCH);
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(prlimit(c, RLIMIT_CORE, NULL, &o), EPERM));
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
	OK(prlimit(0, RLIMIT_NOFILE, NULL, &o));
}
TEST(nofile_limit) {
	struct rlimit r = {50, 100};
	OK(setrlimit(RLIMIT_NOFILE, &r));
	ERR(dup2(0, 50), EBADF);
	OK(dup2(0, 49));
	r.rlim_cur = 10; /* descriptors above stay usable */
	OK(setrlimit(RLIMIT_NOFILE, &r));
	OK(fcntl(49, F_GETFD));
	EXPECT_EQ(sysconf(_SC_OPEN_MAX), 10);
}
TEST(getrandom_all) {
	unsigned char a[256] = {0}, b[256] = {0};
	EXPECT_EQ(getrandom(a, 256, 0), 256);
	EXPECT_EQ(getrandom(b, 256, GRND_NONBLOCK | GRND_RANDOM), 256);
	EXPECT_TRUE(memcmp(a, b, 256) != 0);
	EXPECT_EQ(getrandom(a, 0, 0), 0);
	ERR(getrandom(a, 1, 0x100), EINVAL);
	ERR(getrandom((void *)8, 16, 0), EFAULT);
	int fd = OK(open("/dev/urandom", O_RDONLY));
	EXPECT_EQ(read(fd, a, 256), 256);
	EXPECT_TRUE(memcmp(a, b, 256) != 0);
	fd = OK(open("/dev/random", O_RDWR));
	EXPECT_EQ(read(fd, a, 16), 16);
	OK(write(fd, "seed", 4));
}
TEST(sysinfo_all) {
	struct sysinfo s;
	OK(sysinfo(&s));
	EXPECT_GT(s.totalram, 1 << 20);
	EXPECT_GT(s.totalram, s.freeram);
	EXPECT_GT(s.mem_unit, 0);
	EXPECT_GT(s.procs, 0);
	EXPECT_GE(s.uptime, 0);
	ERR(syscall(SYS_sysinfo, (void *)8), EFAULT);
	EXPECT_GT(get_nprocs(), 0);
}
TEST(uname_all) {
	struct utsname u;
	OK(uname(&u));
	EXPECT_STR(u.sysname, "Linux");
	EXPECT_STR(u.machine, "x86_64");
	EXPECT_GT(atoi(u.release), 3);
	EXPECT_GT(strlen(u.nodename), 0);
	ERR(syscall(SYS_uname, (void *)8), EFAULT);
	char h[65];
	OK(gethostname(h, 65));
	EXPECT_STR(h, u.nodename);
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(sethostname("x", 1), EPERM); ERR(setdomainname("x", 1), EPERM));
}
TEST(getcpu_and_affinity) {
	unsigned c = 99, n = 99;
	OK(syscall(SYS_getcpu, &c, &n, NULL));
	EXPECT_LT(c, 1024);
	cpu_set_t s;
	CPU_ZERO(&s);
	OK(sched_getaffinity(0, sizeof s, &s));
	EXPECT_GT(CPU_COUNT(&s), 0);
	EXPECT_TRUE(CPU_ISSET(sched_getcpu(), &s));
	cpu_set_t one;
	CPU_ZERO(&one);
	int k = 0;
	while (!CPU_ISSET(k, &s)) k++;
	CPU_SET(k, &one);
	OK(sched_setaffinity(0, sizeof one, &one));
	CPU_ZERO(&s);
	OK(sched_getaffinity(0, sizeof s, &s));
	EXPECT_EQ(CPU_COUNT(&s), 1);
	EXPECT_EQ(sched_getcpu(), k);
	CPU_ZERO(&one);
	ERR(sched_setaffinity(0, sizeof one, &one), EINVAL);
	ERR(sched_getaffinity(999999, sizeof s, &s), ESRCH);
	ERR(syscall(SYS_sched_getaffinity, 0, 1, &s), EINVAL);
	IN_CHILD(CPU_ZERO(&s); OK(sched_getaffinity(0, sizeof s, &s)); EXPECT_EQ(CPU_COUNT(&s), 1));
}
TEST(sched_policies) {
	EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
	struct sched_param p = {0};
	OK(sched_getparam(0, &p));
	EXPECT_EQ(p.sched_priority, 0);
	EXPECT_EQ(sched_get_priority_max(SCHED_FIFO), 99);
	EXPECT_EQ(sched_get_priority_min(SCHED_FIFO), 1);
	EXPECT_EQ(sched_get_priority_max(SCHED_OTHER), 0);
	ERR(sched_get_priority_max(77), EINVAL);
	OK(sched_setscheduler(0, SCHED_BATCH, &p));
	EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
	p.sched_priority = 5;
	ERR(sched_setscheduler(0, SCHED_OTHER, &p), EINVAL);
	ERR(sched_setscheduler(0, 99, &p), EINVAL);
	ERR(sched_getscheduler(999999), ESRCH);
	ERR(sched_getscheduler(-1), EINVAL);
	struct timespec t;
	OK(sched_rr_get_interval(0, &t));
	OK(sched_yield());
}
TEST(nice_values) {
	EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 0);
	OK(setpriority(PRIO_PROCESS, 0, 5));
	EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 5);
	EXPECT_EQ(nice(3), 8);
	EXPECT_EQ(nice(100), 19);
	IN_CHILD(EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 19));
	OK(setpriority(PRIO_PROCESS, 0, -5));
	EXPECT_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 25);
	ERR(setpriority(99, 0, 0), EINVAL);
	ERR(setpriority(PRIO_PROCESS, 999999, 0), ESRCH);
	OK(setresuid(777, 777, 777));
	ERR(setpriority(PRIO_PROCESS, 0, -10), EACCES);
	ERR(setpriority(PRIO_PROCESS, 1, 0), EPERM);
}
TEST(prctl_name_and_misc) {
	char b[16];
	OK(prctl(PR_SET_NAME, "abc"));
	OK(prctl(PR_GET_NAME, b));
	EXPECT_STR(b, "abc");
	ERR(prctl(PR_SET_NAME, (void *)8), EFAULT);
	ERR(prctl(12345), EINVAL);
	OK(prctl(PR_GET_TIMERSLACK));
	OK(prctl(PR_SET_TIMERSLACK, 1000));
	EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 1000);
	int v;
	OK(prctl(PR_GET_TSC, &v));
	EXPECT_EQ(v, PR_TSC_ENABLE);
	EXPECT_EQ(prctl(PR_GET_SECCOMP), 0);
	EXPECT_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) >= 0, 1);
}
TEST(arch_prctl_fs_gs) {
	unsigned long fs, gs;
	OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	EXPECT_NE(fs, 0);
	static long page[4] = {1, 2, 3, 4};
	OK(syscall(SYS_arch_prctl, ARCH_SET_GS, page));
	OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	EXPECT_EQ(gs, (unsigned long)page);
	long v;
	__asm__ volatile("mov %%gs:8, %0" : "=r"(v));
	EXPECT_EQ(v, 2);
	sched_yield();
	IN_CHILD(long w; __asm__ volatile("mov %%gs:16, %0" : "=r"(w)); EXPECT_EQ(w, 3));
	__asm__ volatile("mov %%gs:24, %0" : "=r"(v));
	EXPECT_EQ(v, 4);
	ERR(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
	ERR(syscall(SYS_arch_prctl, ARCH_SET_GS, 0xffff800000000000), EPERM);
	ERR(syscall(SYS_arch_prctl, ARCH_GET_FS, 8), EFAULT);
}
TEST(personality_) {
	EXPECT_EQ(syscall(SYS_personality, 0xffffffff), 0);
}
TEST(cpuid_and_rdtsc) {
	unsigned a, b, c, d;
	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(0), "2"(0));
	EXPECT_GT(a, 0);
	uint64_t x = __builtin_ia32_rdtsc(), y = __builtin_ia32_rdtsc();
	EXPECT_GE(y, x);
}
TEST(port_io_faults) {
	EXPECT_KILLED(CHILD(__asm__ volatile("inb $0x80, %%al" ::: "eax")), SIGSEGV);
}
TEST(privileged_calls_denied_to_users) {
	OK(setresuid(777, 777, 777));
	ERR(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL), EPERM);
	ERR(syscall(SYS_umount2, "/tmp", 0), EPERM);
	ERR(syscall(SYS_reboot, 0, 0, 0, 0) == 0 ? 0 : -1, EPERM);
	ERR(syscall(SYS_swapon, "/tmp", 0), EPERM);
	ERR(syscall(SYS_acct, "/tmp/x"), EPERM);
	ERR(settimeofday(&(struct timeval){1, 0}, NULL), EPERM);
	ERR(syscall(SYS_pivot_root, "/", "/"), EPERM);
	ERR(unshare(CLONE_NEWNS), EPERM);
}
TEST(sync_and_misc) {
	sync();
	OK(syscall(SYS_getpgrp));
	EXPECT_EQ(getpagesize(), 4096);
	EXPECT_EQ(sysconf(_SC_CLK_TCK), 100);
	EXPECT_GT(sysconf(_SC_NPROCESSORS_ONLN), 0);
	EXPECT_GT(sysconf(_SC_PHYS_PAGES), 100);
	double l[3];
	EXPECT_EQ(getloadavg(l, 3), 3);
}
TEST(umask_shared_by_threads) {
	umask(022);
	pthread_t t;
	pthread_create(&t, NULL, ({ void *f(void *a) { (void)a; umask(077); return NULL; } f; }), NULL);
	pthread_join(t, NULL);
	EXPECT_EQ(umask(0), 077);
	IN_CHILD(umask(011));
	EXPECT_EQ(umask(0), 0);
}
TEST(sysv_ipc_or_enosys) {
	long id = syscall(SYS_shmget, 0 /* IPC_PRIVATE */, 4096, 01600);
	if (id < 0 && errno == ENOSYS) SKIP("no System V IPC");
	OK(id);
	OK(syscall(SYS_shmctl, id, 0, NULL));
}
TEST(restart_syscall_alone) { ERR(syscall(SYS_restart_syscall), EINTR); }
TEST(mounts_as_root) {
	OK(mkdir("m", 0755));
	/* in a namespace of its own, so that the host keeps its mounts */
	IN_CHILD(
		if (unshare(CLONE_NEWNS) < 0) _exit(0);
		if (syscall(SYS_mount, "none", "/", NULL, 0x44000, NULL) < 0) _exit(0); /* MS_REC|MS_PRIVATE */
		OK(syscall(SYS_mount, "none", "m", "tmpfs", 0, "size=1m"));
		PUT("m/f", "x"); struct stat a; struct stat b; OK(stat("m", &a)); OK(stat(".", &b)); EXPECT_NE(a.st_dev, b.st_dev);
		ERR(rmdir("m"), EBUSY); ERR(syscall(SYS_umount2, "none", 0), ENOENT); ERR(syscall(SYS_umount2, ".", 0), EINVAL);
		int fd = OK(open("m/f", O_RDONLY)); ERR(syscall(SYS_umount2, "m", 0), EBUSY); OK(close(fd));
		OK(syscall(SYS_umount2, "m", 0)); ERR(access("m/f", F_OK), ENOENT));
	ERR(syscall(SYS_mount, "none", "m", "nosuchfs", 0, NULL), ENODEV);
}
MAIN()
