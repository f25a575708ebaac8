/*
 * What single operations of the kernel cost, in microseconds: run it natively
 * and in a sandbox, and compare. Each line is the best of several rounds, so
 * that a busy machine shows less.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int zero_fd, file_fd, ping[2], pong[2];
static char buf[1 << 16];

static void op_getpid(void) { syscall(SYS_getpid); }

static void op_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
}

static void op_read(void)
{
	if (read(zero_fd, buf, 1) != 1)
		die("read /dev/zero");
}

static void op_pread(void)
{
	if (pread(file_fd, buf, 4096, 0) != 4096)
		die("pread");
}

static void op_open(void)
{
	int fd = open("/etc/passwd", O_RDONLY);
	if (fd < 0)
		die("/etc/passwd");
	close(fd);
}

static void op_mmap(void)
{
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	*p = 1;
	munmap(p, 4096);
}

static void op_fault(void)
{
	static char *p;
	static size_t at;
	const size_t size = 64 << 20;
	if (!p || at == size) {
		if (p)
			munmap(p, size);
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			die("mmap");
		at = 0;
	}
	p[at] = 1;
	at += 4096;
}

static void op_fork(void)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static void op_exec(void)
{
	pid_t pid = vfork();
	if (pid < 0)
		die("vfork");
	if (!pid) {
		execl("/proc/self/exe", "micro", "nothing", NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static void *thread(void *arg) { return arg; }

static void op_thread(void)
{
	pthread_t t;
	if (pthread_create(&t, NULL, thread, NULL))
		die("pthread_create");
	pthread_join(t, NULL);
}

static void op_pipe(void)
{
	if (write(ping[1], buf, 1) != 1 || read(pong[0], buf, 1) != 1)
		die("pipe");
}

static const struct {
	const char *name;
	void (*op)(void);
	int n;
} ops[] = {
	{ "getpid", op_getpid, 20000 },
	{ "clock_gettime", op_clock, 200000 },
	{ "read 1 byte of /dev/zero", op_read, 10000 },
	{ "pread 4 KiB", op_pread, 10000 },
	{ "open+close", op_open, 2000 },
	{ "mmap+touch+munmap", op_mmap, 2000 },
	{ "page fault", op_fault, 8192 },
	{ "fork+exit+wait", op_fork, 200 },
	{ "vfork+exec+wait", op_exec, 100 },
	{ "thread create+join", op_thread, 200 },
	{ "pipe ping-pong", op_pipe, 2000 },
};

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "nothing"))
		return 0;
	zero_fd = open("/dev/zero", O_RDONLY);
	file_fd = open("/proc/self/exe", O_RDONLY);
	if (zero_fd < 0 || file_fd < 0 || pipe(ping) || pipe(pong))
		die("set up");
	pid_t echo = fork();
	if (!echo) {
		close(ping[1]);
		while (read(ping[0], buf, 1) == 1)
			if (write(pong[1], buf, 1) != 1)
				break;
		_exit(0);
	}
	close(ping[0]);
	for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
		if (argc > 1 && !strstr(ops[i].name, argv[1]))
			continue;
		double best = 1e18;
		for (int round = 0; round < 5; round++) {
			double start = now();
			for (int n = 0; n < ops[i].n; n++)
				ops[i].op();
			double d = (now() - start) / ops[i].n;
			if (d < best)
				best = d;
		}
		printf("%-26s %10.2f us\n", ops[i].name, best);
		fflush(stdout);
	}
	close(ping[1]);
	waitpid(echo, NULL, 0);
	return 0;
}
