/* execve, execveat: scripts, limits, close-on-exec, auxv, bad ELF files. */
#include "harness.h"
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>

HELPER(echo_args) { for (int i = 0; i < argc; i++) printf("%s\n", argv[i]); return 0; }
HELPER(exit_with) { return atoi(argv[0]); }
HELPER(check_env) { return getenv("FOO") && !strcmp(getenv("FOO"), "bar") && !getenv("PATH") ? 0 : 1; }
HELPER(fd_open) { return fcntl(atoi(argv[0]), F_GETFD) >= 0 ? 0 : 1; }
HELPER(argc_is) { return argc == atoi(argv[0]) ? 0 : 1; }
#define SELF(...) execl(h_self, h_self, "--helper", __VA_ARGS__, NULL)
static void copy_self(const char *to) {
	int a = OK(open(h_self, O_RDONLY)), b = OK(open(to, O_WRONLY | O_CREAT, 0755));
	char buf[65536];
	ssize_t n;
	while ((n = OK(read(a, buf, sizeof buf))) > 0) EXPECT_EQ(write(b, buf, n), n);
	close(a);
	close(b);
}

TEST(basic) {
	EXPECT_EXIT(CHILD(SELF("exit_with", "17"); _exit(99)), 17);
	char *e[] = {"FOO=bar", NULL};
	EXPECT_EXIT(CHILD(execle(h_self, h_self, "--helper", "check_env", NULL, e); _exit(99)), 0);
}
TEST(errors) {
	char *a[] = {"x", NULL};
	ERR(execv("none", a), ENOENT);
	ERR(execv("", a), ENOENT);
	PUT("f", "not executable");
	ERR(execv("f", a), EACCES);
	OK(chmod("f", 0755));
	ERR(execv("f", a), ENOEXEC);
	ERR(execv("f/x", a), ENOTDIR);
	ERR(execv(".", a), EACCES);
	PUT("empty", "");
	OK(chmod("empty", 0755));
	ERR(execv("empty", a), ENOEXEC);
	ERR(execv((char *)8, a), EFAULT);
	ERR(syscall(SYS_execve, h_self, (char **)8, NULL), EFAULT);
	char *bad[] = {"x", (char *)8, NULL};
	ERR(syscall(SYS_execve, h_self, bad, NULL), EFAULT);
	OK(symlink("loop", "loop"));
	ERR(execv("loop", a), ELOOP);
	char n[300];
	memset(n, 'a', 299);
	n[299] = 0;
	ERR(execv(n, a), ENAMETOOLONG);
}
TEST(as_user) {
	OK(chmod(".", 0755));
	PUT("s", "#!/bin/sh\n");
	OK(chmod("s", 0700));
	OK(mkdir("d", 0700));
	char *a[] = {"x", NULL};
	OK(setresuid(777, 777, 777));
	ERR(execv("s", a), EACCES);
	ERR(execv("d/x", a), EACCES);
}
static char *run_capture(char *const argv[], const char *path) {
	int p[2];
	OK(pipe(p));
	pid_t c = CHILD(dup2(p[1], 1); execv(path, argv); printf("execv: %s\n", h_errname(errno)); fflush(stdout); _exit(9));
	close(p[1]);
	char *b = calloc(1, 1 << 16);
	size_t n = 0;
	ssize_t r;
	while ((r = read(p[0], b + n, (1 << 16) - 1 - n)) > 0) n += r;
	close(p[0]);
	WAIT(c);
	return b;
}
TEST(script_args) {
	char s[PATH_MAX + 64], want[PATH_MAX];
	snprintf(s, sizeof s, "#! %s --helper\n", h_self);
	PUT("s", s);
	OK(chmod("s", 0755));
	/* interpreter [one optional argument] script args: here helper named "./s" does not exist */
	char *a[] = {"argv0", "x", NULL};
	EXPECT_EXIT(CHILD(execv("./s", a)), 98);
	PUT("e", "#!/bin/echo  one two  \nrest\n");
	OK(chmod("e", 0755));
	EXPECT_STR(run_capture(a, "./e"), "one two ./e x\n");
	PUT("e2", "#!/bin/echo");
	OK(chmod("e2", 0755));
	EXPECT_STR(run_capture(a, "./e2"), "./e2 x\n");
	snprintf(want, sizeof want, "#!%s/none\n", "/nonexistent");
	PUT("m", want);
	OK(chmod("m", 0755));
	ERR(execv("./m", a), ENOENT);
	PUT("blank", "#!  \n");
	OK(chmod("blank", 0755));
	ERR(execv("./blank", a), ENOEXEC);
}
TEST(script_nested) {
	char *a[] = {"x", NULL};
	char b[64], n[16], prev[16] = "/bin/echo";
	for (int i = 0; i < 6; i++) {
		snprintf(n, sizeof n, "./s%d", i);
		snprintf(b, sizeof b, "#!%s\n", prev);
		PUT(n, b);
		OK(chmod(n, 0755));
		strcpy(prev, n);
	}
	EXPECT_STR(run_capture(a, "./s1"), "./s0 ./s1\n");
	EXPECT_STR(run_capture(a, "./s4"), "./s0 ./s1 ./s2 ./s3 ./s4\n");
	ERR(execv("./s5", a), ELOOP);
}
TEST(script_self_loop) {
	PUT("s", "#!./s\n");
	OK(chmod("s", 0755));
	char *a[] = {"x", NULL};
	ERR(execv("./s", a), ELOOP);
}
TEST(arg_limits) {
	size_t n = 131072;
	char *big = malloc(n + 1);
	memset(big, 'a', n);
	big[n] = 0;
	char *a[] = {"x", "--helper", "exit_with", "0", big, NULL};
	ERR(execv(h_self, a), E2BIG); /* MAX_ARG_STRLEN counts the NUL */
	big[n - 1] = 0;
	EXPECT_EXIT(CHILD(execv(h_self, a); _exit(99)), 0);
	/* the sum is bounded by a quarter of the stack limit */
	char **many = malloc(sizeof(char *) * 100);
	for (int i = 0; i < 99; i++) many[i] = big;
	many[99] = NULL;
	ERR(execv(h_self, many), E2BIG);
	char **lots = malloc(sizeof(char *) * 30002);
	lots[0] = "x"; lots[1] = "--helper"; lots[2] = "argc_is"; lots[3] = "29997";
	for (int i = 4; i < 30000; i++) lots[i] = "y";
	lots[30000] = NULL;
	EXPECT_EXIT(CHILD(execv(h_self, lots); _exit(99)), 0);
}
TEST(empty_argv) {
	/* Linux since 5.18 turns an empty argv into {""}. */
	char *a[] = {NULL};
	pid_t c = CHILD(int n = open("/dev/null", O_WRONLY); dup2(n, 1); dup2(n, 2); execv("/bin/true", a); _exit(99));
	EXPECT_EXIT(c, 0);
}
TEST(cloexec) {
	int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
	char s[16], t[16];
	snprintf(s, 16, "%d", a);
	snprintf(t, 16, "%d", b);
	EXPECT_EXIT(CHILD(SELF("fd_open", s); _exit(99)), 0);
	EXPECT_EXIT(CHILD(SELF("fd_open", t); _exit(99)), 1);
}
HELPER(sigs) {
	struct sigaction sa;
	sigaction(SIGUSR1, NULL, &sa);
	if (sa.sa_handler != SIG_DFL) return 1;
	sigaction(SIGUSR2, NULL, &sa);
	if (sa.sa_handler != SIG_IGN) return 2;
	sigset_t m;
	sigprocmask(0, NULL, &m);
	if (!sigismember(&m, SIGHUP)) return 3;
	sigpending(&m);
	if (!sigismember(&m, SIGHUP)) return 4;
	stack_t ss;
	sigaltstack(NULL, &ss);
	if (!(ss.ss_flags & SS_DISABLE)) return 5;
	return 0;
}
static void nop(int s) { (void)s; }
TEST(signal_state_over_exec) {
	EXPECT_EXIT(CHILD(
		signal(SIGUSR1, nop); signal(SIGUSR2, SIG_IGN);
		sigset_t m; sigemptyset(&m); sigaddset(&m, SIGHUP); sigprocmask(SIG_BLOCK, &m, NULL); raise(SIGHUP);
		static char st[65536]; stack_t ss; memset(&ss, 0, sizeof ss); ss.ss_sp = st; ss.ss_size = sizeof st; OK(sigaltstack(&ss, NULL));
		SELF("sigs"); _exit(99)), 0);
}
HELPER(keep) {
	if (getpid() != atoi(argv[0])) return 1;
	if (getppid() != atoi(argv[1])) return 2;
	char b[PATH_MAX];
	if (!getcwd(b, sizeof b) || strcmp(b, argv[2])) return 3;
	mode_t u = umask(0);
	if (u != 0123) return 4;
	struct rlimit rl;
	getrlimit(RLIMIT_CORE, &rl);
	if (rl.rlim_cur != 12345) return 5;
	if (getpgrp() != getpid()) return 6;
	return 0;
}
TEST(attributes_kept) {
	EXPECT_EXIT(CHILD(
		char a[16]; char b[16]; char w[PATH_MAX]; umask(0123); setpgid(0, 0);
		struct rlimit rl; rl.rlim_cur = 12345; rl.rlim_max = RLIM_INFINITY; OK(setrlimit(RLIMIT_CORE, &rl));
		snprintf(a, 16, "%d", getpid()); snprintf(b, 16, "%d", getppid());
		if (!getcwd(w, sizeof w)) FAIL("getcwd");
		SELF("keep", a, b, w); _exit(99)), 0);
}
HELPER(alarm_pending) { return alarm(0) > 0 ? 0 : 1; }
TEST(alarm_survives) { EXPECT_EXIT(CHILD(alarm(100); SELF("alarm_pending"); _exit(99)), 0); }
HELPER(auxv) {
	if (getauxval(AT_PAGESZ) != 4096) return 1;
	if (!getauxval(AT_PHDR) || getauxval(AT_PHENT) != sizeof(Elf64_Phdr)) return 2;
	if (getauxval(AT_UID) != getuid() || getauxval(AT_EGID) != getegid()) return 3;
	if (getauxval(AT_SECURE)) return 4;
	if (!getauxval(AT_RANDOM)) return 5;
	unsigned char *r = (void *)getauxval(AT_RANDOM);
	int nz = 0;
	for (int i = 0; i < 16; i++) nz |= r[i];
	if (!nz) return 6;
	if (strcmp((char *)getauxval(AT_EXECFN), argv[0])) return 7;
	if (strcmp((char *)getauxval(AT_PLATFORM), "x86_64")) return 8;
	if (getauxval(AT_CLKTCK) != 100) return 9;
	if (!getauxval(AT_ENTRY)) return 10;
	if (!getauxval(AT_HWCAP)) return 11;
	Elf64_Ehdr *v = (void *)getauxval(AT_SYSINFO_EHDR);
	if (!v || memcmp(v->e_ident, ELFMAG, 4)) return 12;
	if (!getauxval(AT_MINSIGSTKSZ)) return 13;
	return 0;
}
TEST(auxv) { EXPECT_EXIT(CHILD(SELF("auxv", h_self); _exit(99)), 0); }
HELPER(stack_aligned) {
	/* at entry the stack holds argc, argv, NULL, envp, NULL, auxv, then strings; argv[0] is the lowest string */
	uintptr_t a = (uintptr_t)&argv[-3 - 0];
	return a % 8 == 0 && argv[argc] == NULL ? 0 : 1;
}
TEST(stack_layout) { EXPECT_EXIT(CHILD(SELF("stack_aligned", "a", "b"); _exit(99)), 0); }
HELPER(proc_self) {
	char b[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", b, sizeof b - 1);
	if (n < 0) return 1;
	b[n] = 0;
	if (strcmp(b, argv[0])) return 2;
	int fd = open("/proc/self/cmdline", O_RDONLY);
	n = read(fd, b, sizeof b);
	char want[PATH_MAX + 64];
	int w = 0;
	w += sprintf(want + w, "custom") + 1;
	w += sprintf(want + w, "--helper") + 1;
	w += sprintf(want + w, "proc_self") + 1;
	w += sprintf(want + w, "%s", argv[0]) + 1;
	if (n != w || memcmp(b, want, w)) return 3;
	fd = open("/proc/self/comm", O_RDONLY);
	n = read(fd, b, sizeof b);
	if (n < 1) return 4;
	b[n - 1] = 0;
	const char *base = strrchr(argv[0], '/') + 1;
	if (strncmp(b, base, 15)) return 5;
	return 0;
}
TEST(proc_exe_cmdline) { EXPECT_EXIT(CHILD(execl(h_self, "custom", "--helper", "proc_self", h_self, NULL); _exit(99)), 0); }
TEST(etxtbsy) {
	copy_self("prog");
	int fd = OK(open("prog", O_RDWR));
	char *a[] = {"prog", "--helper", "exit_with", "0", NULL};
	ERR(execv("./prog", a), ETXTBSY);
	OK(close(fd));
	int p[2];
	OK(pipe2(p, O_CLOEXEC));
	pid_t c = CHILD(int q[2]; OK(pipe(q)); dup2(q[0], 0); execl("./prog", "prog", "--helper", "sleep", NULL); _exit(99));
	OK(close(p[1]));
	char b;
	EXPECT_EQ(read(p[0], &b, 1), 0);
	ERR(open("prog", O_WRONLY), ETXTBSY);
	ERR(truncate("prog", 0), ETXTBSY);
	OK(unlink("prog"));
	OK(kill(c, SIGKILL));
	WAIT(c);
}
HELPER(sleep) { for (;;) pause(); return 0; }
TEST(execveat_all) {
	char *a[] = {"x", "--helper", "exit_with", "6", NULL};
	int fd = OK(open(h_self, O_PATH | O_CLOEXEC));
	EXPECT_EXIT(CHILD(syscall(SYS_execveat, fd, "", a, environ, AT_EMPTY_PATH); _exit(99)), 6);
	EXPECT_EXIT(CHILD(fexecve(OK(open(h_self, O_RDONLY)), a, environ); _exit(99)), 6);
	EXPECT_EXIT(CHILD(syscall(SYS_execveat, AT_FDCWD, h_self, a, environ, 0); _exit(99)), 6);
	ERR(syscall(SYS_execveat, fd, "", a, environ, 0), ENOENT);
	ERR(syscall(SYS_execveat, -1, "x", a, environ, 0), EBADF);
	ERR(syscall(SYS_execveat, AT_FDCWD, h_self, a, environ, 0x10), EINVAL);
	OK(symlink(h_self, "l"));
	ERR(syscall(SYS_execveat, AT_FDCWD, "l", a, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
	/* a script through a close-on-exec descriptor cannot be found by its interpreter */
	PUT("s", "#!/bin/echo\n");
	OK(chmod("s", 0755));
	int s = OK(open("s", O_RDONLY | O_CLOEXEC));
	ERR(syscall(SYS_execveat, s, "", a, environ, AT_EMPTY_PATH), ENOENT);
}
TEST(memfd_exec) {
	int m = OK(memfd_create("prog", MFD_CLOEXEC)), f = OK(open(h_self, O_RDONLY));
	char *b = malloc(1 << 16);
	ssize_t n;
	while ((n = OK(read(f, b, 1 << 16))) > 0) EXPECT_EQ(write(m, b, n), n);
	/* a memfd stays open for writing here, and is yet executable through a read-only description */
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", m);
	int r = OK(open(p, O_RDONLY | O_CLOEXEC));
	OK(close(m));
	char *a[] = {"x", "--helper", "exit_with", "8", NULL};
	EXPECT_EXIT(CHILD(fexecve(r, a, environ); _exit(99)), 8);
}
TEST(setuid_program) {
	copy_self("prog");
	OK(chmod(".", 0755));
	OK(chmod("prog", 04755));
	OK(chown("prog", 4321, 0));
	OK(chmod("prog", 04755));
	/* AT_SECURE, effective and saved id come from the file */
	EXPECT_EXIT(CHILD(OK(setresuid(777, 777, 777)); execl("./prog", "prog", "--helper", "suid", NULL); _exit(99)), 0);
	EXPECT_EXIT(CHILD(OK(setresuid(777, 777, 777)); OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); execl("./prog", "prog", "--helper", "suid", NULL); _exit(99)), 1);
}
HELPER(suid) { uid_t r, e, s; getresuid(&r, &e, &s); return r == 777 && e == 4321 && s == 4321 && getauxval(AT_SECURE) ? 0 : 1; }

static void elf(const char *name, void (*edit)(Elf64_Ehdr *, Elf64_Phdr *), size_t size) {
	/* a minimal program: one PT_LOAD, exit(3) */
	static unsigned char b[8192];
	memset(b, 0, sizeof b);
	Elf64_Ehdr *e = (void *)b;
	Elf64_Phdr *p = (void *)(b + sizeof *e);
	memcpy(e->e_ident, ELFMAG, 4);
	e->e_ident[EI_CLASS] = ELFCLASS64;
	e->e_ident[EI_DATA] = ELFDATA2LSB;
	e->e_ident[EI_VERSION] = EV_CURRENT;
	e->e_type = ET_EXEC;
	e->e_machine = EM_X86_64;
	e->e_version = 1;
	e->e_entry = 0x400200;
	e->e_phoff = sizeof *e;
	e->e_ehsize = sizeof *e;
	e->e_phentsize = sizeof *p;
	e->e_phnum = 1;
	p->p_type = PT_LOAD;
	p->p_flags = PF_R | PF_X;
	p->p_vaddr = p->p_paddr = 0x400000;
	p->p_filesz = p->p_memsz = 0x300;
	p->p_align = 4096;
	unsigned char code[] = {0xbf, 3, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05};
	memcpy(b + 0x200, code, sizeof code);
	if (edit) edit(e, p);
	h_put(__FILE__, __LINE__, name, b, size);
	OK(chmod(name, 0755));
}
static int try(const char *name) {
	/* the error of exec, or the wait status of the program with 0x10000 set */
	int p[2];
	OK(pipe2(p, O_CLOEXEC));
	pid_t c = CHILD(char *a[] = {"x", NULL}; execv(name, a); int e = errno; OK(write(p[1], &e, 4)); _exit(0));
	close(p[1]);
	int e = 0;
	ssize_t n = read(p[0], &e, 4);
	close(p[0]);
	int st = WAIT(c);
	return n == 4 ? e : st | 0x10000;
}
static void e_class(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_machine = EM_AARCH64; }
static void e_type(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_type = ET_REL; }
static void e_phent(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_phentsize = 10; }
static void e_phnum0(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_phnum = 0; }
static void e_phnum_huge(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_phnum = 0xffff; }
static void e_phnum_1100(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_phnum = 1100; }
static void e_phoff(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_phoff = 1ULL << 62; }
static void e_phoff_end(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_phoff = 8190; }
static void e_kernel(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_vaddr = 0xffffffff80000000; }
static void e_memsz(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_memsz = 1ULL << 50; }
static void e_filesz(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_filesz = 0x500; }
static void e_wrap(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_memsz = -1ULL - 0x100; p->p_filesz = 0x300; }
static void e_misalign(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_offset = 1; }
static void e_entry(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p; e->e_entry = 0x10; }
static void e_interp_none(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 2; p[1] = p[0]; p[0].p_type = PT_INTERP; p[0].p_offset = 0x280; p[0].p_filesz = 6; strcpy((char *)e + 0x280, "/none"); }
static void e_interp_noterm(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 2; p[1] = p[0]; p[0].p_type = PT_INTERP; p[0].p_offset = 0x280; p[0].p_filesz = 5; strcpy((char *)e + 0x280, "/none"); }
static void e_interp_long(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 2; p[1] = p[0]; p[0].p_type = PT_INTERP; p[0].p_offset = 0x280; p[0].p_filesz = 5000; }
static void e_interp_self(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 2; p[1] = p[0]; p[0].p_type = PT_INTERP; p[0].p_offset = 0x280; p[0].p_filesz = 9; strcpy((char *)e + 0x280, "./interp"); }
static void e_overlap(Elf64_Ehdr *e, Elf64_Phdr *p) { e->e_phnum = 3; p[1] = p[0]; p[2] = p[0]; p[1].p_memsz = 0x3000; p[1].p_filesz = 0x1500; }
static void e_bss_big(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_flags |= PF_W; p->p_memsz = 64 << 20; }
static void e_no_load(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)e; p->p_type = PT_NOTE; }

TEST(elf_minimal) {
	elf("p", NULL, 8192);
	EXPECT_EQ(try("./p"), 0x10300);
	elf("q", e_bss_big, 8192);
	EXPECT_EQ(try("./q"), 0x10300);
	elf("short", NULL, 0x300);
	EXPECT_EQ(try("./short"), 0x10300);
	elf("o", e_overlap, 8192);
	EXPECT_EQ(try("./o"), 0x10300);
}
TEST(elf_bad_header) {
	elf("a", e_class, 8192); EXPECT_EQ(try("./a"), ENOEXEC);
	elf("b", e_type, 8192); EXPECT_EQ(try("./b"), ENOEXEC);
	elf("c", e_phent, 8192); EXPECT_EQ(try("./c"), ENOEXEC);
	elf("d", e_phnum0, 8192); EXPECT_EQ(try("./d"), ENOEXEC);
	elf("e", e_phnum_huge, 8192); EXPECT_EQ(try("./e"), ENOEXEC);
	elf("f", e_phnum_1100, 8192); EXPECT_EQ(try("./f"), ENOEXEC);
	elf("g", e_phoff, 8192); int r = try("./g"); EXPECT_TRUE(r == EIO || r == EINVAL || r == ENOEXEC);
	elf("h", e_phoff_end, 8192); r = try("./h"); EXPECT_TRUE(r == EIO || r == ENOEXEC);
	elf("t", NULL, 40); EXPECT_EQ(try("./t"), ENOEXEC);
	elf("u", NULL, 64); r = try("./u"); EXPECT_TRUE(r == EIO || r == ENOEXEC);
	elf("v", NULL, 3); EXPECT_EQ(try("./v"), ENOEXEC);
}
TEST(elf_bad_segments) {
	/* past the point of no return a failure kills */
	elf("a", e_kernel, 8192); EXPECT_EQ(try("./a") & ~0x80, 0x10000 | SIGSEGV);
	elf("b", e_memsz, 8192); EXPECT_EQ(try("./b") & ~0x80, 0x10000 | SIGSEGV);
	elf("c", e_filesz, 8192); EXPECT_EQ(try("./c") & ~0x80, 0x10000 | SIGSEGV);
	elf("d", e_wrap, 8192); EXPECT_EQ(try("./d") & ~0x80, 0x10000 | SIGSEGV);
	elf("e", e_misalign, 8192); EXPECT_EQ(try("./e") & ~0x80, 0x10000 | SIGSEGV);
	elf("f", e_entry, 8192); EXPECT_EQ(try("./f") & ~0x80, 0x10000 | SIGSEGV);
	elf("g", e_no_load, 8192); EXPECT_EQ(try("./g") & ~0x80, 0x10000 | SIGSEGV);
}
TEST(elf_interp) {
	elf("a", e_interp_none, 8192); EXPECT_EQ(try("./a"), ENOENT);
	elf("b", e_interp_noterm, 8192); EXPECT_EQ(try("./b"), ENOEXEC);
	elf("c", e_interp_long, 8192); EXPECT_EQ(try("./c"), ENOEXEC);
	elf("d", e_interp_self, 8192);
	PUT("interp", "garbage, long enough to be read as a header: ................................................................");
	OK(chmod("interp", 0755));
	EXPECT_EQ(try("./d"), ELIBBAD);
	PUT("interp", "short");
	EXPECT_EQ(try("./d"), EIO);
}
TEST(elf_truncated_self) {
	for (int i = 0; i < 3; i++) {
		char n[8];
		snprintf(n, 8, "t%d", i);
		copy_self(n);
		OK(truncate(n, i == 0 ? 100 : i == 1 ? 4096 : 20000));
		char b[16];
		snprintf(b, 16, "./%s", n);
		int r = try(b);
		EXPECT_TRUE(r == ENOEXEC || r == EIO || (r & 0x7f) == SIGSEGV || (r & 0x7f) == SIGBUS || (r & 0x7f) == SIGILL);
	}
}
TEST(elf_garbage) {
	unsigned seed = 1;
	for (int i = 0; i < 200; i++) {
		elf("g", NULL, 8192);
		int fd = OK(open("g", O_RDWR));
		unsigned char b[120];
		OK(pread(fd, b, 120, 0));
		for (int k = 0; k < 4; k++) { seed = seed * 1103515245 + 12345; b[16 + (seed >> 8) % 104] = seed >> 20; }
		OK(pwrite(fd, b, 120, 0));
		OK(close(fd));
		pid_t c = CHILD(alarm(2); char *a[] = {"g", NULL}; execv("./g", a); _exit(1));
		WAIT(c);
	}
}
static void *other(void *a) { (void)a; for (;;) pause(); return NULL; }
static void *execer(void *a) { (void)a; SELF("exit_with", "4"); return NULL; }
TEST(exec_kills_threads) {
	EXPECT_EXIT(CHILD(pthread_t t; for (int i = 0; i < 4; i++) pthread_create(&t, NULL, other, NULL); SELF("exit_with", "3"); _exit(99)), 3);
	/* from another thread: the new image has the leader's pid */
	EXPECT_EXIT(CHILD(pthread_t t; pthread_create(&t, NULL, execer, NULL); for (;;) pause()), 4);
}
HELPER(pid_is) { return getpid() == atoi(argv[0]) && syscall(SYS_gettid) == getpid() ? 0 : 1; }
static char pidbuf[16];
static void *execer2(void *a) { (void)a; SELF("pid_is", pidbuf); return NULL; }
TEST(exec_from_thread_takes_leader_id) {
	EXPECT_EXIT(CHILD(snprintf(pidbuf, 16, "%d", getpid()); pthread_t t; pthread_create(&t, NULL, execer2, NULL); syscall(SYS_exit, 1)), 0);
	EXPECT_EXIT(CHILD(snprintf(pidbuf, 16, "%d", getpid()); pthread_t t; pthread_create(&t, NULL, execer2, NULL); for (;;) pause()), 0);
}
TEST(vfork_exec) {
	for (int i = 0; i < 20; i++) {
		pid_t c = vfork();
		if (c == 0) {
			SELF("exit_with", "12");
			_exit(99);
		}
		EXPECT_EXIT(c, 12);
	}
}
TEST(exec_chain) {
	/* exec of a program that is itself replaced while running */
	EXPECT_EXIT(CHILD(execl("/bin/sh", "sh", "-c", "exec sh -c 'exec sh -c \"exit 23\"'", NULL); _exit(99)), 23);
}
TEST(dumpable_and_name) {
	char b[16] = "";
	OK(prctl(PR_SET_NAME, "a-name-that-is-too-long"));
	OK(prctl(PR_GET_NAME, b));
	EXPECT_STR(b, "a-name-that-is-");
	char *s = SLURP("/proc/self/comm");
	EXPECT_STR(s, "a-name-that-is-\n");
}
MAIN()
