#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static __thread int tls = 41;
static void *thread(void *a) { (void)a; tls++; return (void *)(long)tls; }

int main(int argc, char **argv) {
	pthread_t t;
	void *r;
	volatile double x = 2;
	if (pthread_create(&t, NULL, thread, NULL)) return 1;
	pthread_join(t, &r);
	struct timespec ts;
	if (clock_gettime(CLOCK_MONOTONIC, &ts)) return 2;
	char *p = malloc(1 << 20);
	memset(p, 'x', 1 << 20);
	printf("hello %d args=%d env=%s sqrt=%.3f %c %s\n", (int)(long)r, argc, getenv("GREETING") ? getenv("GREETING") : "none", sqrt(x), p[12345], strerror(ENOENT));
	fprintf(stderr, "to stderr %s\n", argc > 1 ? argv[1] : "");
	return argc > 1 ? atoi(argv[1]) : 0;
}
