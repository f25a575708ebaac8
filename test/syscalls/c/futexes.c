/* futex: wait, wake, requeue, bitsets, timeouts, robust lists, private and shared. */
#include "harness.h"
#include <linux/futex.h>
#include <pthread.h>

static long fx(volatile int *u, int op, int v, const void *t, volatile void *u2, int v3) { return syscall(SYS_futex, u, op, v, t, u2, v3); }
static volatile int *shm(void) { return OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)); }
static volatile int w1, w2, woken;
static void *waiter(void *a) {
	(void)a;
	long r = fx(&w1, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0);
	if (r == 0) __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
	return (void *)r;
}

TEST(wait_value_mismatch) {
	volatile int x = 5;
	ERR(fx(&x, FUTEX_WAIT, 4, NULL, NULL, 0), EAGAIN);
	ERR(fx(&x, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 4, NULL, NULL, 0), EAGAIN);
}
TEST(errors) {
	volatile int x[2] = {0, 0};
	ERR(fx((void *)((char *)x + 1), FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
	ERR(fx((void *)8, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
	ERR(fx(x, 99, 0, NULL, NULL, 0), ENOSYS);
	struct timespec t = {0, 2000000000};
	ERR(fx(x, FUTEX_WAIT, 0, &t, NULL, 0), EINVAL);
	ERR(fx(x, FUTEX_WAIT, 0, (void *)8, NULL, 0), EFAULT);
	ERR(fx(x, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
	ERR(fx(x, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0), EINVAL);
	ERR(fx((void *)((char *)x + 2), FUTEX_WAKE, 1, NULL, NULL, 0), EINVAL);
	EXPECT_EQ(fx(x, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	ERR(fx(x, FUTEX_REQUEUE, -1, (void *)1L, x + 1, 0), EINVAL);
}
TEST(timeout_relative) {
	volatile int x = 0;
	struct timespec t = {0, 50000000};
	int64_t s = now_ms();
	ERR(fx(&x, FUTEX_WAIT, 0, &t, NULL, 0), ETIMEDOUT);
	EXPECT_GE(now_ms() - s, 49);
	t = (struct timespec){0, 0};
	ERR(fx(&x, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &t, NULL, 0), ETIMEDOUT);
}
TEST(timeout_absolute) {
	volatile int x = 0;
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += 50000000;
	if (t.tv_nsec >= 1000000000) { t.tv_sec++; t.tv_nsec -= 1000000000; }
	int64_t s = now_ms();
	ERR(fx(&x, FUTEX_WAIT_BITSET, 0, &t, NULL, -1), ETIMEDOUT);
	EXPECT_GE(now_ms() - s, 45);
	ERR(fx(&x, FUTEX_WAIT_BITSET, 0, &t, NULL, -1), ETIMEDOUT);
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 50000000;
	if (t.tv_nsec >= 1000000000) { t.tv_sec++; t.tv_nsec -= 1000000000; }
	s = now_ms();
	ERR(fx(&x, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, NULL, -1), ETIMEDOUT);
	EXPECT_GE(now_ms() - s, 45);
}
TEST(wake_counts) {
	pthread_t t[5];
	for (int i = 0; i < 5; i++) pthread_create(&t[i], NULL, waiter, NULL);
	msleep(100);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 2, NULL, NULL, 0), 2);
	WAIT_FOR(woken == 2);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0), 3);
	for (int i = 0; i < 5; i++) pthread_join(t[i], NULL);
	EXPECT_EQ(woken, 5);
}
TEST(private_and_shared_differ) {
	pthread_t t;
	pthread_create(&t, NULL, waiter, NULL);
	msleep(50);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0), 1);
	pthread_join(t, NULL);
}
TEST(requeue) {
	pthread_t t[4];
	for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, waiter, NULL);
	msleep(100);
	EXPECT_EQ(fx(&w1, FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG, 1, (void *)2L, &w2, 0), 3);
	WAIT_FOR(woken == 1);
	EXPECT_EQ(fx(&w2, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 0), 2);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 0), 1);
	for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}
TEST(cmp_requeue) {
	pthread_t t[3];
	ERR(fx(&w1, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 1, (void *)2L, &w2, 7), EAGAIN);
	for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, waiter, NULL);
	msleep(100);
	EXPECT_EQ(fx(&w1, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 1, (void *)(long)INT_MAX, &w2, 0), 3);
	EXPECT_EQ(fx(&w2, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 0), 2);
	for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
}
TEST(wake_op) {
	pthread_t t[2];
	for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, waiter, NULL);
	msleep(80);
	w2 = 3;
	/* *w2 += 4; wake 1 of w1; wake w2's when its old value was 3 */
	EXPECT_EQ(fx(&w1, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, (void *)1L, &w2, FUTEX_OP(FUTEX_OP_ADD, 4, FUTEX_OP_CMP_EQ, 3)), 1);
	EXPECT_EQ(w2, 7);
	EXPECT_EQ(fx(&w2, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, (void *)1L, &w1, FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, 0)), 1);
	for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
	ERR(fx(&w1, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, (void *)1L, &w2, FUTEX_OP(7, 0, 0, 0)), ENOSYS);
}
static void *bitwaiter(void *a) { fx(&w1, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, (int)(long)a); __atomic_or_fetch(&woken, (int)(long)a, __ATOMIC_SEQ_CST); return NULL; }
TEST(bitsets) {
	pthread_t t[3];
	for (long i = 0; i < 3; i++) pthread_create(&t[i], NULL, bitwaiter, (void *)(1L << i));
	msleep(100);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 4), 1);
	WAIT_FOR(woken == 4);
	EXPECT_EQ(fx(&w1, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 3), 2);
	for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
}
TEST(shared_between_processes) {
	volatile int *m = shm();
	pid_t c = CHILD(EXPECT_EQ(fx(m, FUTEX_WAIT, 0, NULL, NULL, 0), 0));
	WAIT_FOR(fx(m, FUTEX_WAKE, 1, NULL, NULL, 0) == 1);
	EXPECT_EXIT(c, 0);
	/* through two mappings of one file, at different addresses */
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	OK(ftruncate(fd, 8192));
	volatile int *a = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096)), *b = OK(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	c = CHILD(EXPECT_EQ(fx(a, FUTEX_WAIT, 0, NULL, NULL, 0), 0));
	WAIT_FOR(fx(b + 1024, FUTEX_WAKE, 1, NULL, NULL, 0) == 1);
	EXPECT_EXIT(c, 0);
}
TEST(not_shared_after_cow) {
	w1 = 0;
	pid_t c = CHILD(struct timespec t; t.tv_sec = 0; t.tv_nsec = 150000000; ERR(fx(&w1, FUTEX_WAIT, 0, &t, NULL, 0), ETIMEDOUT));
	msleep(50);
	w1 = 0;
	EXPECT_EQ(fx(&w1, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	EXPECT_EXIT(c, 0);
}
static void nop(int s) { (void)s; }
TEST(interrupted) {
	volatile int x = 0;
	struct sigaction sa = {.sa_handler = nop};
	OK(sigaction(SIGALRM, &sa, NULL));
	struct itimerval it = {{0, 0}, {0, 30000}};
	OK(setitimer(ITIMER_REAL, &it, NULL));
	ERR(fx(&x, FUTEX_WAIT, 0, NULL, NULL, 0), EINTR);
	/* with SA_RESTART an untimed wait goes on; a timed one fails with EINTR */
	sa.sa_flags = SA_RESTART;
	OK(sigaction(SIGALRM, &sa, NULL));
	OK(setitimer(ITIMER_REAL, &it, NULL));
	struct timespec t = {0, 200000000};
	ERR(fx(&x, FUTEX_WAIT, 0, &t, NULL, 0), EINTR);
}
TEST(robust_list) {
	struct rl { struct robust_list_head h; struct robust_list node; int word; };
	struct rl *m = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t c = CHILD(
		m->h.list.next = &m->node; m->node.next = &m->h.list; m->h.futex_offset = offsetof(struct rl, word) - offsetof(struct rl, node);
		m->word = syscall(SYS_gettid) | FUTEX_WAITERS; OK(syscall(SYS_set_robust_list, &m->h, sizeof m->h)); msleep(50));
	struct timespec t = {5, 0};
	long r = 0;
	while (!(m->word & FUTEX_OWNER_DIED)) {
		int v = m->word;
		r = fx(&m->word, FUTEX_WAIT, v, &t, NULL, 0);
		if (r < 0 && errno == ETIMEDOUT) FAIL("owner death not announced");
	}
	EXPECT_EQ(m->word & FUTEX_TID_MASK, 0);
	EXPECT_EQ(m->word & FUTEX_WAITERS, FUTEX_WAITERS);
	EXPECT_EXIT(c, 0);
	ERR(syscall(SYS_set_robust_list, &m->h, 4), EINVAL);
	void *hd;
	size_t n;
	OK(syscall(SYS_get_robust_list, 0, &hd, &n));
	EXPECT_EQ(n, sizeof(struct robust_list_head));
}
TEST(pthread_robust_mutex) {
	pthread_mutex_t *mx = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(mx, &a);
	pid_t c = CHILD(pthread_mutex_lock(mx); msleep(50); kill(getpid(), SIGKILL));
	msleep(20);
	EXPECT_EQ(pthread_mutex_lock(mx), EOWNERDEAD);
	EXPECT_EQ(pthread_mutex_consistent(mx), 0);
	EXPECT_EQ(pthread_mutex_unlock(mx), 0);
	EXPECT_KILLED(c, SIGKILL);
}
TEST(pi_mutex) {
	pthread_mutex_t mx;
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	if (pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT)) SKIP("no PI");
	if (pthread_mutex_init(&mx, &a)) SKIP("no PI futexes");
	volatile int x = 0;
	if (fx(&x, FUTEX_LOCK_PI, 0, NULL, NULL, 0) < 0 && errno == ENOSYS) SKIP("no PI futexes");
	EXPECT_EQ(x, syscall(SYS_gettid));
	ERR(fx(&x, FUTEX_LOCK_PI, 0, NULL, NULL, 0), EDEADLK);
	OK(fx(&x, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	EXPECT_EQ(x, 0);
	EXPECT_EQ(pthread_mutex_lock(&mx), 0);
	EXPECT_EQ(pthread_mutex_unlock(&mx), 0);
}
static int counter;
static pthread_mutex_t cm = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cc = PTHREAD_COND_INITIALIZER;
static int turn;
static void *adder(void *a) { (void)a; for (int i = 0; i < 5000; i++) { pthread_mutex_lock(&cm); counter++; pthread_mutex_unlock(&cm); } return NULL; }
static void *pinger(void *a) {
	long me = (long)a;
	for (int i = 0; i < 200; i++) {
		pthread_mutex_lock(&cm);
		while (turn != me) pthread_cond_wait(&cc, &cm);
		turn = !me;
		pthread_cond_broadcast(&cc);
		pthread_mutex_unlock(&cm);
	}
	return NULL;
}
TEST(mutex_contention) {
	pthread_t t[8];
	for (int i = 0; i < 8; i++) pthread_create(&t[i], NULL, adder, NULL);
	for (int i = 0; i < 8; i++) pthread_join(t[i], NULL);
	EXPECT_EQ(counter, 40000);
}
TEST(cond_ping_pong) {
	pthread_t t[2];
	for (long i = 0; i < 2; i++) pthread_create(&t[i], NULL, pinger, (void *)i);
	for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
}
TEST(shared_needs_mapped_page) {
	char *m = OK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	OK(munmap(m, 4096));
	ERR(fx((int *)m, FUTEX_WAKE, 1, NULL, NULL, 0), EFAULT);
	EXPECT_EQ(fx((int *)m, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0), 0);
}
MAIN()
