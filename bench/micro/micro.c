// micro measures what single system calls cost, natively or in a sandbox: one
// row per path through the kernel. It prints "name nanoseconds-per-operation".
//
// usage: micro [-n SCALE%] [ROW...]

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(e) ({ long r_ = (long)(e); if (r_ == -1) { perror(#e); exit(1); } r_; })

static char file[] = "/tmp/micro-XXXXXX";
static int fd, zero;
static char page[4096];

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void getpid_row(long n) { while (n--) CHECK(syscall(SYS_getpid)); }
static void clock_row(long n) { struct timespec t; while (n--) CHECK(clock_gettime(CLOCK_REALTIME, &t)); }
static void read_row(long n) { while (n--) CHECK(read(zero, page, 1)); }
static void pread_row(long n) { while (n--) CHECK(pread(fd, page, 4096, 0)); }
static void pwrite_row(long n) { while (n--) CHECK(pwrite(fd, page, 4096, 0)); }
static void open_row(long n) { while (n--) CHECK(close(CHECK(open(file, O_RDONLY)))); }
static void stat_row(long n) { struct stat s; while (n--) CHECK(stat(file, &s)); }

static void mmap_row(long n) {
	while (n--) {
		char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED) perror("mmap"), exit(1);
		*p = 1;
		CHECK(munmap(p, 4096));
	}
}

static void fault_row(long n) { // n pages
	char *p = mmap(0, n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) perror("mmap"), exit(1);
	for (long i = 0; i < n; i++) p[i * 4096] = 1;
	CHECK(munmap(p, n * 4096));
}

static void pipe_row(long n) {
	int a[2], b[2];
	char c = 0;
	CHECK(pipe(a));
	CHECK(pipe(b));
	pid_t pid = CHECK(fork());
	if (pid == 0) {
		while (n--) { CHECK(read(a[0], &c, 1)); CHECK(write(b[1], &c, 1)); }
		_exit(0);
	}
	while (n--) { CHECK(write(a[1], &c, 1)); CHECK(read(b[0], &c, 1)); }
	CHECK(waitpid(pid, 0, 0));
	close(a[0]), close(a[1]), close(b[0]), close(b[1]);
}

static volatile int word;
static void turn(int mine, int next, long n) {
	while (n--) {
		while (word != mine) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, next, 0, 0, 0);
		word = next;
		syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	}
}
static void *other(void *n) { turn(1, 0, (long)n); return 0; }
static void futex_row(long n) {
	pthread_t t;
	word = 0;
	if (pthread_create(&t, 0, other, (void *)n)) abort();
	turn(0, 1, n);
	pthread_join(t, 0);
}

static void fork_row(long n) {
	while (n--) {
		pid_t p = CHECK(fork());
		if (p == 0) _exit(0);
		CHECK(waitpid(p, 0, 0));
	}
}

static void spawn_row(long n) { // vfork and exec
	char *argv[] = {"true", 0}, *envp[] = {0};
	while (n--) {
		pid_t p;
		if ((errno = posix_spawn(&p, "/bin/true", 0, 0, argv, envp))) perror("posix_spawn"), exit(1);
		CHECK(waitpid(p, 0, 0));
	}
}

static const struct { const char *name; void (*run)(long); long n; } rows[] = {
	{"getpid", getpid_row, 20000}, {"clock_gettime", clock_row, 200000}, {"read_1B_zero", read_row, 20000},
	{"pread_4K", pread_row, 20000}, {"pwrite_4K", pwrite_row, 20000}, {"open_close", open_row, 5000}, {"stat", stat_row, 5000},
	{"mmap_touch_munmap", mmap_row, 3000}, {"page_fault", fault_row, 16384}, {"pipe_pingpong", pipe_row, 3000},
	{"futex_pingpong", futex_row, 3000}, {"fork_exit_wait", fork_row, 200}, {"vfork_exec_wait", spawn_row, 100},
};

int main(int argc, char **argv) {
	double scale = 1;
	int o;
	while ((o = getopt(argc, argv, "n:")) != -1) {
		if (o != 'n') return 2;
		scale = atof(optarg) / 100;
	}
	fd = CHECK(mkstemp(file));
	zero = CHECK(open("/dev/zero", O_RDONLY));
	CHECK(pwrite(fd, page, 4096, 0));
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		int want = optind == argc;
		for (int k = optind; k < argc; k++) want |= !strcmp(argv[k], rows[i].name);
		if (!want) continue;
		long n = rows[i].n * scale;
		if (n < 1) n = 1;
		rows[i].run(n / 10 + 1); // warm up
		double t = now();
		rows[i].run(n);
		printf("%s %.1f\n", rows[i].name, (now() - t) / n);
		fflush(stdout);
	}
	unlink(file);
	return 0;
}
