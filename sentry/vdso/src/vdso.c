/* The guest's vDSO. It answers the clock calls by the host's own vDSO, which
   the platform leaves mapped in each address space and whose addresses the
   vvar page holds; without it, or for clocks that mean something else to the
   host (CPU-time clocks), it makes the system call. Built by build.sh. */

typedef unsigned long u64;

struct vvar {
	u64 clock_gettime, gettimeofday, time, getcpu, clock_getres;
};

/* Placed by the linker script one page before the image. */
extern const volatile struct vvar vvar __attribute__((visibility("hidden")));

static inline long syscall3(long nr, long a, long b, long c)
{
	long ret;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

/* REALTIME, MONOTONIC, MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE, BOOTTIME, TAI. */
#define HOST_CLOCKS (1u << 0 | 1u << 1 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 11)

static inline int host_clock(int clk)
{
	return (unsigned)clk < 32 && (HOST_CLOCKS >> clk & 1);
}

int __vdso_clock_gettime(int clk, void *ts)
{
	u64 f = vvar.clock_gettime;
	if (f && host_clock(clk))
		return ((int (*)(int, void *))f)(clk, ts);
	return syscall3(228, clk, (long)ts, 0);
}

int __vdso_clock_getres(int clk, void *ts)
{
	u64 f = vvar.clock_getres;
	if (f && host_clock(clk))
		return ((int (*)(int, void *))f)(clk, ts);
	return syscall3(229, clk, (long)ts, 0);
}

int __vdso_gettimeofday(void *tv, void *tz)
{
	u64 f = vvar.gettimeofday;
	if (f && !tz)
		return ((int (*)(void *, void *))f)(tv, tz);
	return syscall3(96, (long)tv, (long)tz, 0);
}

long __vdso_time(long *t)
{
	u64 f = vvar.time;
	if (f)
		return ((long (*)(long *))f)(t);
	return syscall3(201, (long)t, 0, 0);
}

long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused)
{
	u64 f = vvar.getcpu;
	if (f)
		return ((long (*)(unsigned *, unsigned *, void *))f)(cpu, node, unused);
	return syscall3(309, (long)cpu, (long)node, (long)unused);
}

int clock_gettime(int, void *) __attribute__((weak, alias("__vdso_clock_gettime")));
int clock_getres(int, void *) __attribute__((weak, alias("__vdso_clock_getres")));
int gettimeofday(void *, void *) __attribute__((weak, alias("__vdso_gettimeofday")));
long time(long *) __attribute__((weak, alias("__vdso_time")));
long getcpu(unsigned *, unsigned *, void *) __attribute__((weak, alias("__vdso_getcpu")));
