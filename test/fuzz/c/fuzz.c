/*
 * A fuzzer of the system-call interface, to be run inside a sandbox (on a host it would do harm).
 *
 *   fuzz SEED CALLS DIR
 *
 * The parent runs children, four at a time, each of which makes some thousand calls with random and half-valid arguments,
 * until CALLS have been made; a child that dies, hangs or damages itself is replaced. Left out is only what would end the
 * fuzzer itself: exits, reboot, and signals to other processes than the children. Every child prints nothing; the parent
 * prints its progress and, at the end, "fuzz: done".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PER_CHILD 2000
#define SLOTS 4
#define MAX_SYSCALL 470

static uint64_t state;
static uint64_t rnd(void) {
	state += 0x9e3779b97f4a7c15;
	uint64_t z = state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}
static unsigned below(unsigned n) { return rnd() % n; }

static int skip(long nr) {
	switch (nr) {
	case SYS_exit: case SYS_exit_group: case SYS_reboot: case SYS_pause: case SYS_rt_sigsuspend: case SYS_kexec_load: case SYS_kexec_file_load:
		return 1;
	case SYS_rt_sigreturn: case SYS_execve: case SYS_execveat: case SYS_munmap: case SYS_close_range: case SYS_vfork:
		return below(20) != 0; /* they mostly end a child: now and then */
	}
	return 0;
}
/* takes_pid says which argument of a call names a process, -1 for none. */
static int takes_pid(long nr) {
	switch (nr) {
	case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_rt_sigqueueinfo: case SYS_rt_tgsigqueueinfo: case SYS_prlimit64: case SYS_pidfd_open:
	case SYS_process_vm_readv: case SYS_process_vm_writev: case SYS_sched_setaffinity: case SYS_sched_setparam: case SYS_sched_setscheduler:
	case SYS_sched_setattr: case SYS_setpgid: case SYS_migrate_pages: case SYS_move_pages:
		return 0;
	case SYS_ptrace: case SYS_setpriority: case SYS_ioprio_set:
		return 1;
	}
	return -1;
}

static char *mem;   /* 16 pages read-write, then 1 read-only, then 1 not accessible */
static char *str[16];
static pid_t me;
static volatile uint32_t *made;

static uint64_t value(void) {
	switch (below(20)) {
	case 0: return 0;
	case 1: return -1;
	case 2: case 3: case 4: return below(40);
	case 5: return 1ULL << below(64);
	case 6: return (1ULL << below(64)) - 1;
	case 7: return rnd();
	case 8: return (uint32_t)rnd();
	case 9: return rnd() & 0xffff;
	case 10: return 4096 * below(64);
	case 11: return -(int64_t)below(200);
	case 12: return (uint64_t)(mem + below(65536));
	case 13: return (uint64_t)(mem + 65536 - below(64));       /* runs into the read-only page */
	case 14: return (uint64_t)(mem + 65536 + 4096 - below(64)); /* and out of it */
	case 15: return (uint64_t)str[below(16)];
	case 16: return (uint64_t)(mem + 8 * below(512));
	case 17: return 0xffffffff81000000ULL + below(65536);
	case 18: return (uint64_t)(uint32_t)AT_FDCWD;
	default: return 3 + below(24);
	}
}
static uint64_t pointer(void) { return below(8) ? (uint64_t)(mem + 8 * below(4096)) : value(); }

/* prepare fills memory with small numbers, pointers into itself and noise, as structures have them. */
static void prepare(void) {
	for (int i = 0; i < 64; i++) {
		uint64_t v;
		switch (below(6)) {
		case 0: v = 0; break;
		case 1: v = below(16); break;
		case 2: v = (uint64_t)(mem + 8 * below(8000)); break;
		case 3: v = (uint64_t)str[below(16)]; break;
		case 4: v = rnd(); break;
		default: v = below(100000); break;
		}
		((volatile uint64_t *)mem)[below(8192)] = v;
	}
}

static void onalarm(int s) { (void)s; }
/* again undoes what earlier calls may have done to the fuzzer's own footing. */
static void again(void) {
	struct sigaction sa;
	memset(&sa, 0, sizeof sa);
	sa.sa_handler = onalarm;
	sigaction(SIGALRM, &sa, NULL);
	int ignored[] = {SIGHUP, SIGINT, SIGPIPE, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU, SIGIO, SIGVTALRM, SIGPROF, SIGXFSZ, SIGRTMIN, SIGQUIT};
	for (unsigned i = 0; i < sizeof ignored / sizeof *ignored; i++) signal(ignored[i], SIG_IGN);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	struct itimerval it = {{0, 2000}, {0, 2000}};
	setitimer(ITIMER_REAL, &it, NULL);
}
static void objects(void) {
	int p[2];
	open("a", O_RDWR | O_CREAT, 0666);
	open("b", O_RDWR | O_CREAT | O_APPEND, 0666);
	open(".", O_RDONLY | O_DIRECTORY);
	open("/proc/self/maps", O_RDONLY);
	open("/dev/zero", O_RDWR);
	open("/dev/null", O_RDWR);
	open("/dev/ptmx", O_RDWR | O_NOCTTY);
	open("/usr", O_PATH);
	if (pipe(p)) {}
	if (socketpair(AF_UNIX, below(2) ? SOCK_STREAM : SOCK_DGRAM, 0, p)) {}
	socket(AF_INET, SOCK_STREAM, 0);
	socket(AF_INET, SOCK_DGRAM, 0);
	socket(AF_INET6, SOCK_STREAM, 0);
	epoll_create1(0);
	eventfd(0, EFD_NONBLOCK);
	timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	int m = memfd_create("m", MFD_ALLOW_SEALING);
	if (ftruncate(m, 8192)) {}
	sigset_t s;
	sigfillset(&s);
	signalfd(-1, &s, SFD_NONBLOCK);
	inotify_init1(IN_NONBLOCK);
	open("/bin/true", O_RDONLY);
	open("/dev/tty", O_RDWR);
}
static void limits(void) {
	struct rlimit rl = {512 << 20, 512 << 20};
	setrlimit(RLIMIT_AS, &rl);
	rl = (struct rlimit){16 << 20, 16 << 20};
	setrlimit(RLIMIT_FSIZE, &rl);
	rl = (struct rlimit){256, 256};
	setrlimit(RLIMIT_NOFILE, &rl);
	rl = (struct rlimit){0, 0};
	setrlimit(RLIMIT_CORE, &rl);
	/* without this capability no call can raise them again */
	prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0);
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2];
	if (syscall(SYS_capget, &h, d) == 0) {
		d[0].effective &= ~(1u << CAP_SYS_RESOURCE);
		d[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
		syscall(SYS_capset, &h, d);
	}
}
static void child(uint64_t seed, int user, volatile uint32_t *count) {
	state = seed;
	made = count;
	me = getpid();
	setsid();
	int n = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++) dup2(n, i);
	limits();
	objects();
	mem = mmap(NULL, 18 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(mem + 65536, 4096, PROT_READ);
	mprotect(mem + 65536 + 4096, 4096, PROT_NONE);
	static char *names[16] = {"a", "b", "c", "d", "d/e", ".", "..", "/", "", "/proc/self/status", "/proc/self/fd/3", "/dev/null", "/nonexistent/x", "l", "/bin/true", "user.x"};
	for (int i = 0; i < 16; i++) str[i] = names[i];
	if (user) {
		if (setgid(65534) || setuid(65534)) {}
	}
	int group = below(3) == 0 ? below(MAX_SYSCALL) : -1; /* a third of the children stay near one call */
	for (int i = 0; i < PER_CHILD; i++) {
		if (i % 32 == 0) { again(); prepare(); }
		long nr = group >= 0 && below(2) ? group : below(50) ? below(MAX_SYSCALL) : (long)value();
		if (skip(nr)) continue;
		uint64_t a[6];
		for (int k = 0; k < 6; k++) a[k] = below(3) ? value() : pointer();
		if (below(2)) a[0] = 3 + below(24);
		int p = takes_pid(nr);
		if (p >= 0) {
			static const int rel[] = {0, 0, 999999, -999999};
			int v = rel[below(4)];
			a[p] = v ? v : me;
			if (nr == SYS_kill && below(4) == 0) a[p] = 0;
			/* a stop would cost a time-out for nothing */
			if ((nr == SYS_kill || nr == SYS_tkill || nr == SYS_rt_sigqueueinfo) && (a[1] == SIGSTOP || a[1] == SIGKILL)) a[1] = 0;
			if ((nr == SYS_tgkill || nr == SYS_rt_tgsigqueueinfo) && (a[2] == SIGSTOP || a[2] == SIGKILL)) a[2] = 0;
		}
		if (nr == SYS_fcntl && a[1] == F_SETOWN) a[2] = me;
		if (nr == SYS_ioctl && below(2)) a[1] = 0x5400 + below(0x80);
		syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		/* a copy made by fork or clone goes away at once */
		if (syscall(SYS_getpid) != me || syscall(SYS_gettid) != me) syscall(SYS_exit, 0);
		(*made)++;
	}
	_exit(0);
}

static void clean(const char *dir) {
	char cmd[4200];
	snprintf(cmd, sizeof cmd, "rm -rf %s/*", dir);
	if (system(cmd)) {}
}

int main(int argc, char **argv) {
	if (argc != 4) { fprintf(stderr, "usage: fuzz SEED CALLS DIR\n"); return 2; }
	uint64_t seed = strtoull(argv[1], NULL, 0);
	long want = atol(argv[2]), total = 0, died = 0, hung = 0, runs = 0, reported = 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("fuzz: seed %llu, %ld calls\n", (unsigned long long)seed, want);
	if (chdir(argv[3])) { perror(argv[3]); return 2; }
	chmod(".", 0777);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	struct { pid_t pid; volatile uint32_t *made; int64_t moved; uint32_t last; } slot[SLOTS];
	memset(slot, 0, sizeof slot);
	for (int i = 0; i < SLOTS; i++) slot[i].made = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int idle = 0;
	while (total < want || idle < SLOTS) {
		idle = 0;
		for (int i = 0; i < SLOTS; i++) {
			struct timespec t;
			clock_gettime(CLOCK_MONOTONIC, &t);
			int64_t now = t.tv_sec * 1000 + t.tv_nsec / 1000000;
			if (slot[i].pid == 0) {
				if (total >= want) { idle++; continue; }
				*slot[i].made = 0;
				pid_t p = fork();
				if (p == 0) child(seed * 1000003 + runs, runs % 3 == 2, slot[i].made);
				if (p < 0) { perror("fork"); return 3; }
				slot[i].pid = p;
				slot[i].moved = now;
				slot[i].last = 0;
				if (++runs % 40 == 0) clean(argv[3]);
				continue;
			}
			/* one that has blocked the alarm and then itself is of no more use */
			if (*slot[i].made != slot[i].last) { slot[i].last = *slot[i].made; slot[i].moved = now; }
			int st, late = now - slot[i].moved > 1000;
			if (late) { kill(slot[i].pid, SIGKILL); hung++; }
			pid_t p = waitpid(slot[i].pid, &st, late ? 0 : WNOHANG);
			if (p == 0) continue;
			uint32_t n = *slot[i].made;
			total += n > PER_CHILD ? PER_CHILD : n;
			if (p < 0 || !WIFEXITED(st)) died++;
			slot[i].pid = 0;
		}
		/* orphans of the children */
		struct timespec nap = {0, 2000000};
		nanosleep(&nap, NULL);
		siginfo_t si;
		while (si.si_pid = 0, waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid) {
			int mine = 0;
			for (int i = 0; i < SLOTS; i++) mine |= slot[i].pid == si.si_pid;
			if (mine) break;
			waitpid(si.si_pid, NULL, 0);
		}
		if (total / 100000 != reported) { reported = total / 100000; printf("fuzz: %ld calls, %ld children, %ld died, %ld hung\n", total, runs, died, hung); }
	}
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {}
	clean(argv[3]);
	printf("fuzz: done: %ld calls, %ld children, %ld died, %ld hung\n", total, runs, died, hung);
	char line[8];
	if (!fgets(line, sizeof line, stdin)) return 0; /* lets the test look at the sandbox before it ends */
	return 0;
}
