/*
 * A small harness for tests of the system-call ABI.
 *
 * Each family is one C file: TEST(name) { ... } blocks, then MAIN(). The binary lists its tests with --list, runs those
 * named on the command line or all, each in a forked child inside a fresh directory, and prints one line for each:
 * "PASS name", "SKIP name: why" or "FAIL name: file:line: expression: got, want". A test that prints FAIL from one of its
 * own children has failed, whatever follows.
 *
 * The harness uses as little of the kernel as it can (fork, waitpid, alarm, mkdir, write), so that a kernel in which much is
 * broken still says what.
 */
#ifndef HARNESS_H
#define HARNESS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define H_MAX 256
#define H_FAIL 99
#define H_SKIP 77

struct h_test { const char *name; void (*fn)(void); };
struct h_helper { const char *name; int (*fn)(int, char **); };
static struct h_test h_tests[H_MAX];
static int h_ntests;
static struct h_helper h_helpers[64];
static int h_nhelpers;
static const char *h_name = "?";
static int h_out = 1;
static int h_timeout_s = 20;
static char h_self[PATH_MAX];

#define TEST(n) \
	static void t_##n(void); \
	__attribute__((constructor)) static void r_##n(void) { h_tests[h_ntests++] = (struct h_test){#n, t_##n}; } \
	static void t_##n(void)

/* HELPER(name) is what a re-executed copy of the binary runs: exec h_self with "--helper", name, arguments. */
#define HELPER(n) \
	static int p_##n(int, char **); \
	__attribute__((constructor)) static void q_##n(void) { h_helpers[h_nhelpers++] = (struct h_helper){#n, p_##n}; } \
	static int p_##n(__attribute__((unused)) int argc, __attribute__((unused)) char **argv)

__attribute__((unused)) static const char *h_errname(int e) {
	static __thread char b[32];
	const char *s = strerrorname_np(e);
	if (s) return s;
	snprintf(b, sizeof b, "errno %d", e);
	return b;
}

__attribute__((format(printf, 3, 4), noreturn)) static void h_fail(const char *file, int line, const char *fmt, ...) {
	char b[1024];
	int n = snprintf(b, sizeof b, "FAIL %s: %s:%d: ", h_name, file, line);
	va_list ap;
	va_start(ap, fmt);
	n += vsnprintf(b + n, sizeof b - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof b - 2) n = sizeof b - 2;
	for (int i = 0; i < n; i++) if (b[i] == '\n') b[i] = ' ';
	b[n++] = '\n';
	if (write(h_out, b, n) < 0) {}
	_exit(H_FAIL);
}

#define FAIL(...) h_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) do { dprintf(h_out, "SKIP %s: ", h_name); dprintf(h_out, __VA_ARGS__); dprintf(h_out, "\n"); _exit(H_SKIP); } while (0)

#define H_CMP(a, op, b) do { \
	long long _a = (long long)(a), _b = (long long)(b); \
	if (!(_a op _b)) h_fail(__FILE__, __LINE__, "%s " #op " %s: got %lld (%#llx), want %lld (%#llx), errno %s", #a, #b, _a, _a, _b, _b, h_errname(errno)); } while (0)
#define EXPECT_EQ(a, b) H_CMP(a, ==, b)
#define EXPECT_NE(a, b) H_CMP(a, !=, b)
#define EXPECT_LT(a, b) H_CMP(a, <, b)
#define EXPECT_LE(a, b) H_CMP(a, <=, b)
#define EXPECT_GT(a, b) H_CMP(a, >, b)
#define EXPECT_GE(a, b) H_CMP(a, >=, b)
#define EXPECT_TRUE(x) do { if (!(x)) h_fail(__FILE__, __LINE__, "%s: false, errno %s", #x, h_errname(errno)); } while (0)
/* OK(expr) is the expression's value, which must not be -1. */
#define OK(x) ({ errno = 0; __typeof__(x) _r = (x); if ((long)_r == -1) h_fail(__FILE__, __LINE__, "%s: got %s, want success", #x, h_errname(errno)); _r; })
#define ERR(x, e) do { errno = 0; long long _r = (long long)(x); int _e = errno; \
	if (_r != -1) h_fail(__FILE__, __LINE__, "%s: got %lld, want %s", #x, _r, h_errname(e)); \
	if (_e != (e)) h_fail(__FILE__, __LINE__, "%s: got %s, want %s", #x, h_errname(_e), #e); } while (0)
#define EXPECT_STR(a, b) do { const char *_a = (a), *_b = (b); \
	if (!_a || strcmp(_a, _b)) h_fail(__FILE__, __LINE__, "%s: got \"%s\", want \"%s\"", #a, _a ? _a : "(null)", _b); } while (0)
#define EXPECT_MEM(a, b, n) do { if (memcmp(a, b, n)) h_fail(__FILE__, __LINE__, "%s and %s differ over %ld bytes", #a, #b, (long)(n)); } while (0)

/* CHILD(statements) forks a child that runs them and exits with 0; its value is the child's pid. */
#define CHILD(...) ({ pid_t _p = OK(fork()); if (_p == 0) { __VA_ARGS__; _exit(0); } _p; })

__attribute__((unused)) static int h_status(pid_t p, const char *file, int line) {
	int st;
	pid_t r;
	do r = waitpid(p, &st, 0); while (r < 0 && errno == EINTR);
	if (r != p) h_fail(file, line, "waitpid(%d): got %d, %s", p, r, h_errname(errno));
	return st;
}
#define WAIT(p) h_status(p, __FILE__, __LINE__)
#define EXPECT_EXIT(p, code) do { int _st = WAIT(p); \
	if (!WIFEXITED(_st) || WEXITSTATUS(_st) != (code)) h_fail(__FILE__, __LINE__, "%s: got wait status %#x, want exit %d", #p, _st, (int)(code)); } while (0)
#define EXPECT_KILLED(p, sig) do { int _st = WAIT(p); \
	if (!WIFSIGNALED(_st) || WTERMSIG(_st) != (sig)) h_fail(__FILE__, __LINE__, "%s: got wait status %#x, want killed by %s", #p, _st, #sig); } while (0)
/* IN_CHILD runs statements in a child, which must succeed. */
#define IN_CHILD(...) do { pid_t _child = CHILD(__VA_ARGS__); EXPECT_EXIT(_child, 0); } while (0)

__attribute__((unused)) static int64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}
__attribute__((unused)) static int64_t now_ms(void) { return now_ns() / 1000000; }
__attribute__((unused)) static void msleep(int ms) {
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&t, &t) < 0 && errno == EINTR) {}
}
/* put writes a whole new file. */
__attribute__((unused)) static void h_put(const char *file, int line, const char *path, const void *d, size_t n) {
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	if (fd < 0) h_fail(file, line, "create %s: %s", path, h_errname(errno));
	if (write(fd, d, n) != (ssize_t)n) h_fail(file, line, "write %s: %s", path, h_errname(errno));
	close(fd);
}
#define PUT(path, s) h_put(__FILE__, __LINE__, path, s, strlen(s))
/* slurp returns a file's text (bounded, NUL-terminated, freed by exit). */
__attribute__((unused)) static char *h_slurp(const char *file, int line, const char *path) {
	int fd = open(path, O_RDONLY);
	if (fd < 0) h_fail(file, line, "open %s: %s", path, h_errname(errno));
	size_t cap = 1 << 20, n = 0;
	char *b = malloc(cap + 1);
	ssize_t r;
	while (n < cap && (r = read(fd, b + n, cap - n)) > 0) n += r;
	if (r < 0) h_fail(file, line, "read %s: %s", path, h_errname(errno));
	b[n] = 0;
	close(fd);
	return b;
}
#define SLURP(path) h_slurp(__FILE__, __LINE__, path)
/* wait_for polls a condition for up to 5 s; for what the kernel only promises to do soon. */
#define WAIT_FOR(cond) do { int _i; for (_i = 0; _i < 1000 && !(cond); _i++) msleep(5); if (_i == 1000) h_fail(__FILE__, __LINE__, "%s: never came true", #cond); } while (0)
/* proc_state is the state letter of a process in /proc, or 0. */
__attribute__((unused)) static char h_state(pid_t pid) {
	char p[64], b[512];
	snprintf(p, sizeof p, "/proc/%d/stat", pid);
	int fd = open(p, O_RDONLY);
	if (fd < 0) return 0;
	ssize_t n = read(fd, b, sizeof b - 1);
	close(fd);
	if (n <= 0) return 0;
	b[n] = 0;
	char *q = strrchr(b, ')');
	return q && q[1] ? q[2] : 0;
}

static void h_rmtree(int dirfd, const char *name) {
	if (unlinkat(dirfd, name, 0) == 0) return;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0) {
		DIR *d = fdopendir(fd);
		struct dirent *e;
		while (d && (e = readdir(d)))
			if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) h_rmtree(fd, e->d_name);
		if (d) closedir(d);
	}
	unlinkat(dirfd, name, AT_REMOVEDIR);
}

static volatile sig_atomic_t h_alarmed;
static void h_onalarm(int s) { (void)s; h_alarmed = 1; }

static int h_run(struct h_test *t, const char *base) {
	char dir[PATH_MAX];
	snprintf(dir, sizeof dir, "%s/%s", base, t->name);
	if (mkdir(dir, 0755) < 0) { printf("FAIL %s: mkdir %s: %s\n", t->name, dir, h_errname(errno)); return 1; }
	struct sigaction sa = {.sa_handler = h_onalarm}, old;
	sigaction(SIGALRM, &sa, &old);
	h_alarmed = 0;
	fflush(stdout);
	pid_t p = fork();
	if (p < 0) { printf("FAIL %s: fork: %s\n", t->name, h_errname(errno)); return 1; }
	if (p == 0) {
		sigaction(SIGALRM, &old, NULL);
		h_name = t->name;
		for (int i = 1; i < 65; i++) if (i != SIGKILL && i != SIGSTOP && i != 32 && i != 33) signal(i, SIG_DFL);
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setpgid(0, 0);
		if (chdir(dir) < 0) FAIL("chdir %s: %s", dir, h_errname(errno));
		umask(022);
		t->fn();
		_exit(0);
	}
	int st = 0, r;
	alarm(h_timeout_s);
	while ((r = waitpid(p, &st, 0)) < 0 && errno == EINTR && !h_alarmed) {}
	alarm(0);
	int bad = 1;
	if (r < 0 && h_alarmed) {
		kill(-p, SIGKILL);
		kill(p, SIGKILL);
		printf("FAIL %s: still running after %d s\n", t->name, h_timeout_s);
		h_alarmed = 0;
		alarm(5);
		waitpid(p, &st, 0);
		alarm(0);
	} else if (r != p) {
		printf("FAIL %s: waitpid: %d %s\n", t->name, r, h_errname(errno));
	} else if (WIFEXITED(st) && WEXITSTATUS(st) == 0) {
		printf("PASS %s\n", t->name);
		bad = 0;
	} else if (WIFEXITED(st) && WEXITSTATUS(st) == H_SKIP) {
		bad = 0;
	} else if (WIFSIGNALED(st)) {
		printf("FAIL %s: killed by signal %d\n", t->name, WTERMSIG(st));
	} else if (WEXITSTATUS(st) != H_FAIL) {
		printf("FAIL %s: exit status %d\n", t->name, WEXITSTATUS(st));
	}
	fflush(stdout);
	kill(-p, SIGKILL);
	h_rmtree(AT_FDCWD, dir);
	return bad;
}

static int h_main(int argc, char **argv) {
	if (argc > 2 && !strcmp(argv[1], "--helper")) {
		for (int i = 0; i < h_nhelpers; i++)
			if (!strcmp(h_helpers[i].name, argv[2])) return h_helpers[i].fn(argc - 3, argv + 3);
		return 98;
	}
	if (argc > 1 && !strcmp(argv[1], "--list")) {
		for (int i = 0; i < h_ntests; i++) puts(h_tests[i].name);
		return 0;
	}
	if (!realpath(argv[0], h_self)) snprintf(h_self, sizeof h_self, "%s", argv[0]);
	if (getenv("TEST_TIMEOUT")) h_timeout_s = atoi(getenv("TEST_TIMEOUT"));
	int fd = fcntl(1, F_DUPFD_CLOEXEC, 300);
	if (fd >= 0) h_out = fd;
	const char *tmp = getenv("TMPDIR");
	char base[PATH_MAX - 256];
	snprintf(base, sizeof base, "%s/t%d", tmp && *tmp ? tmp : "/tmp", getpid());
	if (mkdir(base, 0755) < 0) { perror(base); return 2; }
	int bad = 0;
	if (argc > 1) {
		for (int a = 1; a < argc; a++) {
			int i;
			for (i = 0; i < h_ntests && strcmp(h_tests[i].name, argv[a]); i++) {}
			if (i == h_ntests) { printf("FAIL %s: no such test\n", argv[a]); bad = 1; }
			else bad |= h_run(&h_tests[i], base);
		}
	} else {
		for (int i = 0; i < h_ntests; i++) bad |= h_run(&h_tests[i], base);
	}
	printf("DONE %d\n", h_ntests);
	fflush(stdout);
	h_rmtree(AT_FDCWD, base);
	return bad;
}
#define MAIN() int main(int argc, char **argv) { return h_main(argc, argv); }
#endif
