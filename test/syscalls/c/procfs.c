/* /proc, /sys and /dev as programs read them. */
#include "harness.h"
#include <sys/sysmacros.h>

static char *field(char *s, const char *key) {
	static char v[256];
	size_t n = strlen(key);
	for (char *p = s; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
		if (!strncmp(p, key, n) && p[n] == ':') {
			p += n + 1;
			while (*p == ' ' || *p == '\t') p++;
			size_t l = strcspn(p, "\n");
			if (l > 255) l = 255;
			memcpy(v, p, l);
			v[l] = 0;
			return v;
		}
	return NULL;
}
TEST(self_link) {
	char b[32], w[32];
	ssize_t n = OK(readlink("/proc/self", b, 31));
	b[n] = 0;
	snprintf(w, 32, "%d", getpid());
	EXPECT_STR(b, w);
	n = OK(readlink("/proc/thread-self", b, 31));
	b[n] = 0;
	snprintf(w, 32, "%d/task/%d", getpid(), getpid());
	EXPECT_STR(b, w);
	IN_CHILD(n = OK(readlink("/proc/self", b, 31)); b[n] = 0; EXPECT_EQ(atoi(b), getpid()));
}
TEST(status) {
	char *s = SLURP("/proc/self/status"), w[64];
	snprintf(w, 64, "%d", getpid());
	EXPECT_STR(field(s, "Pid"), w);
	EXPECT_STR(field(s, "Tgid"), w);
	snprintf(w, 64, "%d", getppid());
	EXPECT_STR(field(s, "PPid"), w);
	EXPECT_STR(field(s, "Uid"), "0\t0\t0\t0");
	EXPECT_STR(field(s, "Threads"), "1");
	EXPECT_TRUE(strncmp(field(s, "State"), "R", 1) == 0);
	EXPECT_TRUE(field(s, "VmSize") && atoi(field(s, "VmSize")) > 100);
	EXPECT_TRUE(field(s, "VmRSS") && atoi(field(s, "VmRSS")) > 0);
	EXPECT_TRUE(field(s, "SigBlk") != NULL);
	EXPECT_TRUE(field(s, "CapEff") != NULL);
	EXPECT_TRUE(field(s, "Groups") != NULL);
	EXPECT_TRUE(field(s, "Cpus_allowed_list") != NULL);
	EXPECT_STR(field(s, "NoNewPrivs"), "0");
}
TEST(stat_fields) {
	OK(prctl(PR_SET_NAME, "a) b ("));
	char *s = SLURP("/proc/self/stat"), st;
	int pid, ppid, pgrp, sid;
	char *e = strrchr(s, ')');
	EXPECT_EQ(sscanf(s, "%d", &pid), 1);
	EXPECT_EQ(sscanf(e + 2, "%c %d %d %d", &st, &ppid, &pgrp, &sid), 4);
	EXPECT_EQ(pid, getpid());
	EXPECT_EQ(ppid, getppid());
	EXPECT_EQ(pgrp, getpgrp());
	EXPECT_EQ(sid, getsid(0));
	EXPECT_EQ(st, 'R');
	int n = 0;
	for (char *p = e; *p; p++) n += *p == ' ';
	EXPECT_EQ(n, 50);
	unsigned long long v[50] = {0};
	char *p = e + 4;
	for (int i = 0; i < 49; i++) { while (*p == ' ') p++; v[i] = strtoull(p, &p, 10); }
	EXPECT_GT(v[19], 100); /* vsize */
	EXPECT_GT(v[20], 1);   /* rss */
	char *m = SLURP("/proc/self/statm");
	unsigned long a, b;
	EXPECT_EQ(sscanf(m, "%lu %lu", &a, &b), 2);
	EXPECT_GT(a, b);
}
TEST(state_letters) {
	pid_t c = CHILD(pause());
	WAIT_FOR(h_state(c) == 'S');
	OK(kill(c, SIGSTOP));
	WAIT_FOR(h_state(c) == 'T');
	OK(kill(c, SIGKILL));
	WAIT_FOR(h_state(c) == 'Z');
	EXPECT_KILLED(c, SIGKILL);
	EXPECT_EQ(h_state(c), 0);
	c = CHILD(for (;;) {});
	WAIT_FOR(h_state(c) == 'R');
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
}
TEST(maps) {
	PUT("mapped", "x");
	int fd = OK(open("mapped", O_RDONLY));
	char *m = OK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0));
	char *a = OK(mmap(NULL, 12288, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	char *s = SLURP("/proc/self/maps"), w[128];
	snprintf(w, 128, "%lx-%lx r--s 00000000 ", (long)m, (long)m + 4096);
	char *l = strstr(s, w);
	EXPECT_TRUE(l != NULL);
	*strchr(l, '\n') = 0;
	EXPECT_TRUE(strstr(l, "/mapped") != NULL);
	struct stat st;
	OK(fstat(fd, &st));
	unsigned mj, mn;
	unsigned long ino;
	EXPECT_EQ(sscanf(l + strlen(w), "%x:%x %lu", &mj, &mn, &ino), 3);
	EXPECT_EQ(ino, st.st_ino);
	EXPECT_EQ(makedev(mj, mn), st.st_dev);
	s = SLURP("/proc/self/maps");
	EXPECT_TRUE(strstr(s, "[stack]") != NULL);
	EXPECT_TRUE(strstr(s, "[vdso]") != NULL);
	EXPECT_TRUE(strstr(s, " r-xp ") != NULL);
	(void)a;
	unsigned long lo, hi, prev = 0;
	for (char *p = s; p && *p; p = strchr(p, '\n') + 1) {
		EXPECT_EQ(sscanf(p, "%lx-%lx", &lo, &hi), 2);
		EXPECT_TRUE(prev <= lo && lo < hi);
		prev = hi;
	}
	s = SLURP("/proc/self/smaps");
	EXPECT_TRUE(strstr(s, "Rss:") != NULL);
	EXPECT_TRUE(strstr(s, "Pss:") != NULL);
}
TEST(fd_dir) {
	PUT("f", "abc");
	int fd = OK(open("f", O_RDWR | O_APPEND));
	OK(lseek(fd, 2, SEEK_SET));
	char p[64], b[PATH_MAX], w[PATH_MAX];
	snprintf(p, 64, "/proc/self/fd/%d", fd);
	ssize_t n = OK(readlink(p, b, sizeof b - 1));
	b[n] = 0;
	EXPECT_TRUE(realpath("f", w) != NULL);
	EXPECT_STR(b, w);
	OK(unlink("f"));
	n = OK(readlink(p, b, sizeof b - 1));
	b[n] = 0;
	strcat(w, " (deleted)");
	EXPECT_STR(b, w);
	struct stat st;
	OK(stat(p, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	snprintf(p, 64, "/proc/self/fdinfo/%d", fd);
	char *s = SLURP(p);
	EXPECT_STR(field(s, "pos"), "2");
	EXPECT_EQ(strtol(field(s, "flags"), NULL, 8) & (O_APPEND | O_ACCMODE), O_APPEND | O_RDWR);
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int seen = 0;
	while ((e = readdir(d))) if (atoi(e->d_name) == fd) seen++;
	EXPECT_EQ(seen, 1);
	ERR(readlink("/proc/self/fd/999", b, 10), ENOENT);
}
TEST(links) {
	char b[PATH_MAX], w[PATH_MAX];
	ssize_t n = OK(readlink("/proc/self/exe", b, sizeof b - 1));
	b[n] = 0;
	EXPECT_STR(b, h_self);
	n = OK(readlink("/proc/self/cwd", b, sizeof b - 1));
	b[n] = 0;
	EXPECT_TRUE(getcwd(w, sizeof w) != NULL);
	EXPECT_STR(b, w);
	n = OK(readlink("/proc/self/root", b, sizeof b - 1));
	b[n] = 0;
	EXPECT_STR(b, "/");
	n = OK(readlink("/proc/self/ns/pid", b, sizeof b - 1));
	EXPECT_EQ(strncmp(b, "pid:[", 5), 0);
	int fd = OK(open("/proc/self/exe", O_RDONLY));
	EXPECT_EQ(read(fd, b, 4), 4);
	EXPECT_MEM(b, "\177ELF", 4);
}
TEST(environ_and_cmdline_of_child) {
	pid_t c = CHILD(char *e[] = {"A=1", "B=22", NULL}; execle("/bin/sleep", "sleep", "100", NULL, e); _exit(1));
	char p[64], b[256];
	snprintf(p, 64, "/proc/%d/environ", c);
	int fd;
	ssize_t n = 0;
	WAIT_FOR((fd = open(p, O_RDONLY)) >= 0 && (n = read(fd, b, 256), close(fd), n == 9));
	EXPECT_MEM(b, "A=1\0B=22\0", 9);
	snprintf(p, 64, "/proc/%d/cmdline", c);
	fd = OK(open(p, O_RDONLY));
	EXPECT_EQ(read(fd, b, 256), 10);
	EXPECT_MEM(b, "sleep\0" "100\0", 10);
	snprintf(p, 64, "/proc/%d/comm", c);
	EXPECT_STR(SLURP(p), "sleep\n");
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
}
TEST(meminfo) {
	char *s = SLURP("/proc/meminfo");
	char *k[] = {"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree", "Shmem"};
	for (unsigned i = 0; i < sizeof k / sizeof *k; i++) { char *v = field(s, k[i]); if (!v) FAIL("no %s", k[i]); EXPECT_TRUE(strstr(v, " kB") != NULL); }
	EXPECT_GT(atol(field(s, "MemTotal")), 1000);
}
TEST(cpuinfo_and_stat) {
	char *s = SLURP("/proc/cpuinfo");
	EXPECT_TRUE(strstr(s, "processor\t: 0") != NULL);
	EXPECT_TRUE(strstr(s, "flags\t\t: ") != NULL);
	EXPECT_TRUE(strstr(s, "model name\t: ") != NULL);
	s = SLURP("/proc/stat");
	EXPECT_EQ(strncmp(s, "cpu  ", 5), 0);
	EXPECT_TRUE(strstr(s, "\ncpu0 ") != NULL);
	EXPECT_TRUE(strstr(s, "\nbtime ") != NULL);
	EXPECT_TRUE(strstr(s, "\nprocesses ") != NULL);
	double a, b;
	EXPECT_EQ(sscanf(SLURP("/proc/uptime"), "%lf %lf", &a, &b), 2);
	EXPECT_EQ(sscanf(SLURP("/proc/loadavg"), "%lf %lf", &a, &b), 2);
	EXPECT_EQ(strncmp(SLURP("/proc/version"), "Linux version ", 14), 0);
	EXPECT_TRUE(strstr(SLURP("/proc/filesystems"), "proc") != NULL);
}
TEST(mounts) {
	char *s = SLURP("/proc/mounts");
	EXPECT_TRUE(strstr(s, " /proc proc ") != NULL);
	EXPECT_TRUE(strstr(s, " / ") != NULL);
	s = SLURP("/proc/self/mountinfo");
	EXPECT_TRUE(strstr(s, " /proc ") != NULL);
	EXPECT_TRUE(strstr(s, " - proc ") != NULL);
}
TEST(task_dir) {
	char p[64];
	snprintf(p, 64, "/proc/self/task/%d/stat", getpid());
	EXPECT_EQ(atoi(SLURP(p)), getpid());
	snprintf(p, 64, "/proc/self/task/%d/children", getpid());
	pid_t c = CHILD(pause());
	int fd = open(p, O_RDONLY);
	if (fd >= 0) EXPECT_EQ(atoi(SLURP(p)), c);
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
	ERR(open("/proc/self/task/999999", O_RDONLY), ENOENT);
}
TEST(proc_listing) {
	DIR *d = opendir("/proc");
	struct dirent *e;
	int me = 0, self = 0;
	while ((e = readdir(d))) {
		if (atoi(e->d_name) == getpid()) { me++; EXPECT_EQ(e->d_type, DT_DIR); }
		if (!strcmp(e->d_name, "self")) self++;
	}
	EXPECT_EQ(me, 1);
	EXPECT_EQ(self, 1);
	ERR(open("/proc/999999/stat", O_RDONLY), ENOENT);
	ERR(open("/proc/self/nothing", O_RDONLY), ENOENT);
	ERR(open("/proc/newfile", O_CREAT | O_WRONLY, 0644), ENOENT);
	ERR(mkdir("/proc/x", 0755), ENOENT);
	ERR(unlink("/proc/meminfo"), EPERM);
}
TEST(sysctls) {
	EXPECT_GT(atoi(SLURP("/proc/sys/kernel/pid_max")), 100);
	EXPECT_STR(SLURP("/proc/sys/kernel/ostype"), "Linux\n");
	EXPECT_GT(atol(SLURP("/proc/sys/vm/max_map_count")), 1000);
	EXPECT_TRUE(SLURP("/proc/sys/vm/overcommit_memory")[0] >= '0');
	EXPECT_GT(atoi(SLURP("/proc/sys/net/core/somaxconn")), 1);
	EXPECT_EQ(strlen(SLURP("/proc/sys/kernel/random/boot_id")), 37);
	EXPECT_GT(atoi(SLURP("/proc/sys/fs/file-max")), 100);
	EXPECT_GE(atoi(SLURP("/proc/sys/kernel/ngroups_max")), 65536);
	EXPECT_GT(strlen(SLURP("/proc/sys/kernel/osrelease")), 3);
	EXPECT_GT(strlen(SLURP("/proc/sys/kernel/hostname")), 1);
}
TEST(mem_file) {
	int fd = OK(open("/proc/self/mem", O_RDWR));
	static char x[16] = "hello";
	char b[8] = "";
	EXPECT_EQ(pread(fd, b, 5, (off_t)(uintptr_t)x), 5);
	EXPECT_STR(b, "hello");
	EXPECT_EQ(pwrite(fd, "J", 1, (off_t)(uintptr_t)x), 1);
	EXPECT_EQ(x[0], 'J');
	ERR(pread(fd, b, 5, 8), EIO);
}
TEST(comm_writable) {
	int fd = OK(open("/proc/self/comm", O_WRONLY));
	OK(write(fd, "newname", 7));
	char b[16];
	OK(prctl(PR_GET_NAME, b));
	EXPECT_STR(b, "newname");
}
TEST(limits_io_oom) {
	char *s = SLURP("/proc/self/limits");
	EXPECT_TRUE(strstr(s, "Max open files") != NULL);
	EXPECT_TRUE(strstr(s, "Max cpu time") != NULL);
	EXPECT_STR(SLURP("/proc/self/oom_score_adj"), "0\n");
	SLURP("/proc/self/wchan");
	SLURP("/proc/self/cgroup");
	EXPECT_TRUE(strstr(SLURP("/proc/self/io"), "rchar:") != NULL);
	EXPECT_TRUE(strstr(SLURP("/proc/self/uid_map"), "0") != NULL);
	EXPECT_EQ(*SLURP("/proc/self/loginuid") != 0, 1);
	SLURP("/proc/self/auxv");
	SLURP("/proc/self/schedstat");
}
TEST(net_files) {
	EXPECT_TRUE(strstr(SLURP("/proc/net/dev"), "lo:") != NULL);
	EXPECT_TRUE(strstr(SLURP("/proc/net/tcp"), "local_address") != NULL);
	SLURP("/proc/net/udp");
	EXPECT_TRUE(strstr(SLURP("/proc/net/unix"), "Path") != NULL);
	SLURP("/proc/net/route");
}
TEST(permissions) {
	pid_t c = CHILD(pause());
	IN_CHILD(OK(setresuid(777, 777, 777)); char p[64]; snprintf(p, 64, "/proc/%d/environ", c); ERR(open(p, O_RDONLY), EACCES); snprintf(p, 64, "/proc/%d/fd", c); ERR(open(p, O_RDONLY), EACCES); char b[8]; snprintf(p, 64, "/proc/%d/exe", c); ERR(readlink(p, b, 8), EACCES); snprintf(p, 64, "/proc/%d/status", c); OK(open(p, O_RDONLY)));
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
}
TEST(stale_pid_file) {
	pid_t c = CHILD(pause());
	char p[64], b[8];
	snprintf(p, 64, "/proc/%d/stat", c);
	int fd = OK(open(p, O_RDONLY));
	snprintf(p, 64, "/proc/%d", c);
	int d = OK(open(p, O_RDONLY));
	OK(kill(c, SIGKILL));
	EXPECT_KILLED(c, SIGKILL);
	ERR(read(fd, b, 8), ESRCH);
	ERR(openat(d, "stat", O_RDONLY), ESRCH);
}
TEST(dev_nodes) {
	struct { const char *n; int maj, min; } v[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	for (int i = 0; i < 6; i++) {
		char p[32];
		snprintf(p, 32, "/dev/%s", v[i].n);
		struct stat st;
		OK(stat(p, &st));
		EXPECT_TRUE(S_ISCHR(st.st_mode));
		EXPECT_EQ(st.st_rdev, makedev(v[i].maj, v[i].min));
	}
	char b[64];
	EXPECT_EQ(readlink("/dev/fd", b, 64), 13);
	EXPECT_MEM(b, "/proc/self/fd", 13);
	EXPECT_EQ(readlink("/dev/stdin", b, 64), 15);
	struct stat st;
	OK(stat("/dev/shm", &st));
	EXPECT_TRUE(S_ISDIR(st.st_mode));
	EXPECT_EQ(st.st_mode & 01777, 01777);
	OK(stat("/dev/pts", &st));
}
TEST(dev_shm_works) {
	char p[64];
	snprintf(p, 64, "/dev/shm/garrison-%d", getpid());
	PUT(p, "shm");
	EXPECT_STR(SLURP(p), "shm");
	int fd = OK(open(p, O_RDWR));
	char *m = OK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	EXPECT_MEM(m, "shm", 3);
	OK(unlink(p));
}
TEST(sys_cpu_topology) {
	char *s = SLURP("/sys/devices/system/cpu/online");
	EXPECT_EQ(s[0], '0');
	SLURP("/sys/devices/system/cpu/possible");
	SLURP("/sys/devices/system/cpu/present");
	struct stat st;
	OK(stat("/sys/devices/system/cpu/cpu0", &st));
	EXPECT_STR(SLURP("/sys/devices/system/cpu/cpu0/topology/core_id"), "0\n");
	DIR *d = opendir("/sys/devices/system/cpu");
	EXPECT_TRUE(d != NULL);
	struct dirent *e;
	int n = 0;
	while ((e = readdir(d))) if (!strncmp(e->d_name, "cpu", 3) && e->d_name[3] >= '0' && e->d_name[3] <= '9') n++;
	EXPECT_EQ(n, sysconf(_SC_NPROCESSORS_CONF));
}
TEST(small_reads_of_proc) {
	int fd = OK(open("/proc/self/status", O_RDONLY));
	char *s = SLURP("/proc/self/status"), b[8192];
	size_t n = 0;
	ssize_t r;
	while ((r = OK(read(fd, b + n, 7))) > 0) n += r;
	b[n] = 0;
	EXPECT_EQ(strncmp(b, s, 40), 0);
	EXPECT_TRUE(strstr(b, "voluntary_ctxt_switches") != NULL);
	EXPECT_EQ(pread(fd, b, 5, 0), 5);
	EXPECT_MEM(b, "Name:", 5);
	OK(lseek(fd, 0, SEEK_SET));
	EXPECT_EQ(read(fd, b, 5), 5);
}
MAIN()
