/* Threads: create, join, cancel, TLS, many of them, and what they share. */
#include "harness.h"
#include <pthread.h>
#include <semaphore.h>

static __thread int tls = 5;
static volatile int shared;
static void *set_tls(void *a) { int o = tls; tls = (int)(long)a; sched_yield(); msleep(5); return (void *)(long)(o * 1000 + tls); }
TEST(tls) {
	pthread_t t[10];
	for (long i = 0; i < 10; i++) pthread_create(&t[i], NULL, set_tls, (void *)i);
	for (long i = 0; i < 10; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 5000 + i); }
	EXPECT_EQ(tls, 5);
}
static void *hold(void *a) { sem_wait(a); __atomic_add_fetch(&shared, 1, __ATOMIC_SEQ_CST); return NULL; }
TEST(two_hundred) {
	pthread_t t[200];
	sem_t s;
	sem_init(&s, 0, 0);
	pthread_attr_t at;
	pthread_attr_init(&at);
	pthread_attr_setstacksize(&at, 65536);
	for (int i = 0; i < 200; i++) EXPECT_EQ(pthread_create(&t[i], &at, hold, &s), 0);
	for (int i = 0; i < 200; i++) sem_post(&s);
	for (int i = 0; i < 200; i++) pthread_join(t[i], NULL);
	EXPECT_EQ(shared, 200);
}
static void *nothing(void *a) { return a; }
TEST(create_join_loop) {
	for (int i = 0; i < 500; i++) {
		pthread_t t;
		EXPECT_EQ(pthread_create(&t, NULL, nothing, (void *)(long)i), 0);
		void *r;
		pthread_join(t, &r);
		EXPECT_EQ((long)r, i);
	}
}
static void *sleeper(void *a) { (void)a; for (;;) pause(); return NULL; }
TEST(cancel) {
	pthread_t t;
	void *r;
	pthread_create(&t, NULL, sleeper, NULL);
	msleep(20);
	EXPECT_EQ(pthread_cancel(t), 0);
	EXPECT_EQ(pthread_join(t, &r), 0);
	EXPECT_TRUE(r == PTHREAD_CANCELED);
}
static void *ids(void *a) { pid_t *p = a; p[0] = getpid(); p[1] = syscall(SYS_gettid); p[2] = getppid(); return NULL; }
TEST(ids) {
	pid_t p[3];
	pthread_t t;
	pthread_create(&t, NULL, ids, p);
	pthread_join(t, NULL);
	EXPECT_EQ(p[0], getpid());
	EXPECT_NE(p[1], getpid());
	EXPECT_EQ(p[2], getppid());
}
static void *do_chdir(void *a) { return (void *)(long)chdir(a); }
static void *do_open(void *a) { return (void *)(long)open(a, O_RDONLY); }
TEST(shared_state) {
	OK(mkdir("d", 0755));
	pthread_t t;
	void *r;
	pthread_create(&t, NULL, do_chdir, "d");
	pthread_join(t, &r);
	char b[PATH_MAX];
	EXPECT_TRUE(getcwd(b, sizeof b) && !strcmp(strrchr(b, '/'), "/d"));
	pthread_create(&t, NULL, do_open, "/dev/null");
	pthread_join(t, &r);
	OK(fcntl((int)(long)r, F_GETFD));
}
static void *unshare_files(void *a) { if (unshare(CLONE_FILES | CLONE_FS)) return (void *)1L; close((int)(long)a); umask(0); return NULL; }
TEST(unshare_in_thread) {
	int fd = OK(open("/dev/null", O_RDONLY));
	pthread_t t;
	void *r;
	pthread_create(&t, NULL, unshare_files, (void *)(long)fd);
	pthread_join(t, &r);
	EXPECT_EQ((long)r, 0);
	OK(fcntl(fd, F_GETFD));
	EXPECT_EQ(umask(022), 022);
}
static int pfd[2];
static void *blocked_read(void *a) { (void)a; char b; return (void *)(long)read(pfd[0], &b, 1); }
TEST(block_in_threads) {
	OK(pipe(pfd));
	pthread_t t[4];
	for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, blocked_read, NULL);
	msleep(30);
	OK(write(pfd[1], "abcd", 4));
	for (int i = 0; i < 4; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 1); }
}
static pthread_barrier_t bar;
static void *barrier(void *a) { (void)a; for (int i = 0; i < 50; i++) pthread_barrier_wait(&bar); return NULL; }
TEST(barriers) {
	pthread_barrier_init(&bar, NULL, 6);
	pthread_t t[6];
	for (int i = 0; i < 6; i++) pthread_create(&t[i], NULL, barrier, NULL);
	for (int i = 0; i < 6; i++) pthread_join(t[i], NULL);
}
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static volatile long va, vb;
static void *rwriter(void *a) { (void)a; for (int i = 0; i < 1000; i++) { pthread_rwlock_wrlock(&rw); va++; vb++; pthread_rwlock_unlock(&rw); } return NULL; }
static void *rreader(void *a) { long bad = 0; (void)a; for (int i = 0; i < 1000; i++) { pthread_rwlock_rdlock(&rw); if (va != vb) bad++; pthread_rwlock_unlock(&rw); } return (void *)bad; }
TEST(rwlocks) {
	pthread_t t[6];
	for (int i = 0; i < 6; i++) pthread_create(&t[i], NULL, i < 3 ? rwriter : rreader, NULL);
	for (int i = 0; i < 6; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 0); }
	EXPECT_EQ(va, 3000);
}
static void *forker(void *a) { (void)a; for (int i = 0; i < 10; i++) { pid_t c = fork(); if (c == 0) _exit(7); int st; if (waitpid(c, &st, 0) != c || WEXITSTATUS(st) != 7) return (void *)1L; } return NULL; }
TEST(fork_from_threads) {
	pthread_t t[4];
	for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, forker, NULL);
	for (int i = 0; i < 4; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 0); }
}
static void *mapper(void *a) { long k = (long)a; for (int i = 0; i < 100; i++) { char *m = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); if (m == MAP_FAILED) return (void *)1L; memset(m, k, 65536); for (int j = 0; j < 65536; j += 4096) if (m[j] != k) return (void *)2L; munmap(m, 65536); } return NULL; }
TEST(map_from_threads) {
	pthread_t t[4];
	for (long i = 0; i < 4; i++) pthread_create(&t[i], NULL, mapper, (void *)(i + 1));
	for (int i = 0; i < 4; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 0); }
}
static void *opener(void *a) { char n[16]; for (int i = 0; i < 100; i++) { snprintf(n, 16, "t%ld", (long)a); int fd = open(n, O_CREAT | O_RDWR, 0600); if (fd < 0 || write(fd, "x", 1) != 1) return (void *)1L; close(fd); unlink(n); } return NULL; }
TEST(files_from_threads) {
	pthread_t t[4];
	for (long i = 0; i < 4; i++) pthread_create(&t[i], NULL, opener, (void *)i);
	for (int i = 0; i < 4; i++) { void *r; pthread_join(t[i], &r); EXPECT_EQ((long)r, 0); }
}
static volatile long spin_count[2];
static void *spinner(void *a) { for (long i = 0; !shared; i++) spin_count[(long)a]++; return NULL; }
TEST(spinners_all_run) {
	pthread_t t[2];
	shared = 0;
	for (long i = 0; i < 2; i++) pthread_create(&t[i], NULL, spinner, (void *)i);
	msleep(200);
	shared = 1;
	for (int i = 0; i < 2; i++) { pthread_join(t[i], NULL); EXPECT_GT(spin_count[i], 0); }
}
TEST(thread_names_in_proc) {
	OK(prctl(PR_SET_NAME, "leader"));
	pthread_t t;
	pthread_create(&t, NULL, sleeper, NULL);
	pthread_setname_np(t, "worker");
	msleep(20);
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0, w = 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.') continue;
		n++;
		char p[300];
		snprintf(p, sizeof p, "/proc/self/task/%s/comm", e->d_name);
		if (!strcmp(SLURP(p), "worker\n")) w++;
	}
	EXPECT_EQ(n, 2);
	EXPECT_EQ(w, 1);
}
MAIN()
