/* Pseudo-terminals: line discipline, signals, window size, controlling terminal, job control, hangup. */
#include "harness.h"
#include <sys/epoll.h>
#include <termios.h>

static int master, slave;
static char name[64];
static void openpt(void) {
	master = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	int z = 0, n;
	OK(ioctl(master, TIOCSPTLCK, &z));
	OK(ioctl(master, TIOCGPTN, &n));
	snprintf(name, sizeof name, "/dev/pts/%d", n);
	slave = OK(open(name, O_RDWR | O_NOCTTY));
}
static char buf[8192];
/* drain reads what the master has to give within a moment */
static const char *drain(int fd) {
	size_t n = 0;
	struct pollfd p = {fd, POLLIN, 0};
	while (n < sizeof buf - 1 && poll(&p, 1, n ? 30 : 300) > 0 && (p.revents & POLLIN)) {
		ssize_t r = read(fd, buf + n, sizeof buf - 1 - n);
		if (r <= 0) break;
		n += r;
	}
	buf[n] = 0;
	return buf;
}
static void typed(const char *s) { EXPECT_EQ(write(master, s, strlen(s)), strlen(s)); }
static void flags(tcflag_t i, tcflag_t o, tcflag_t l) {
	struct termios t;
	OK(tcgetattr(slave, &t));
	t.c_iflag = i;
	t.c_oflag = o;
	t.c_lflag = l;
	OK(tcsetattr(slave, TCSANOW, &t));
}
static void raw(int min, int time) {
	struct termios t;
	OK(tcgetattr(slave, &t));
	cfmakeraw(&t);
	t.c_cc[VMIN] = min;
	t.c_cc[VTIME] = time;
	OK(tcsetattr(slave, TCSANOW, &t));
}
static int pending(int fd) { int n; OK(ioctl(fd, FIONREAD, &n)); return n; }
/* session runs a body in a new session whose terminal is the slave */
#define SESSION(...) CHILD(OK(setsid()); OK(ioctl(slave, TIOCSCTTY, 0)); __VA_ARGS__)

TEST(defaults) {
	openpt();
	struct termios t;
	OK(tcgetattr(slave, &t));
	EXPECT_EQ(t.c_iflag, ICRNL | IXON);
	EXPECT_EQ(t.c_oflag, OPOST | ONLCR);
	EXPECT_EQ(t.c_lflag, ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN);
	EXPECT_EQ(t.c_cflag, B38400 | CS8 | CREAD);
	EXPECT_EQ(t.c_cc[VINTR], 3);
	EXPECT_EQ(t.c_cc[VEOF], 4);
	EXPECT_EQ(t.c_cc[VERASE], 0x7f);
	EXPECT_EQ(t.c_cc[VSUSP], 26);
	EXPECT_EQ(t.c_cc[VMIN], 1);
	EXPECT_EQ(isatty(slave), 1);
	EXPECT_EQ(isatty(master), 1);
	char n[64];
	EXPECT_EQ(ttyname_r(slave, n, 64), 0);
	EXPECT_STR(n, name);
	struct stat st;
	OK(fstat(slave, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(st.st_rdev >> 8, 136);
}
TEST(locked_slave) {
	int m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY)), n;
	OK(ioctl(m, TIOCGPTN, &n));
	char p[64];
	snprintf(p, 64, "/dev/pts/%d", n);
	ERR(open(p, O_RDWR | O_NOCTTY), EIO);
	OK(unlockpt(m));
	int s = OK(open(p, O_RDWR | O_NOCTTY));
	OK(close(m));
	ERR(open(p, O_RDWR | O_NOCTTY), errno == EIO ? EIO : ENOENT);
	(void)s;
}
TEST(tiocgptpeer) {
	int m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	OK(unlockpt(m));
	int s = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	OK(s);
	EXPECT_EQ(isatty(s), 1);
}
TEST(output_onlcr) {
	openpt();
	OK(write(slave, "a\nb\r\n", 5));
	EXPECT_STR(drain(master), "a\r\nb\r\r\n");
	flags(0, 0, 0);
	OK(write(slave, "a\nb", 3));
	EXPECT_STR(drain(master), "a\nb");
	flags(0, OPOST | OCRNL, 0);
	OK(write(slave, "a\rb", 3));
	EXPECT_STR(drain(master), "a\nb");
	flags(0, OPOST | OLCUC, 0);
	OK(write(slave, "abc", 3));
	EXPECT_STR(drain(master), "ABC");
	flags(0, OPOST | XTABS, 0);
	OK(write(slave, "\ra\tb", 4));
	EXPECT_STR(drain(master), "\ra       b");
}
TEST(canonical_lines) {
	openpt();
	typed("hello\nwor");
	msleep(20);
	EXPECT_EQ(pending(slave), 6);
	char b[32];
	EXPECT_EQ(read(slave, b, 32), 6);
	EXPECT_MEM(b, "hello\n", 6);
	EXPECT_EQ(pending(slave), 0);
	typed("ld\r");
	EXPECT_EQ(read(slave, b, 32), 6);
	EXPECT_MEM(b, "world\n", 6);
	/* a short read leaves the rest of the line; a read never crosses a line */
	typed("abcdef\nxyz\n");
	EXPECT_EQ(read(slave, b, 4), 4);
	EXPECT_EQ(read(slave, b, 32), 3);
	EXPECT_EQ(read(slave, b, 32), 4);
}
TEST(echo) {
	openpt();
	typed("ab\n");
	EXPECT_STR(drain(master), "ab\r\n");
	typed("\x01");
	EXPECT_STR(drain(master), "^A");
	flags(ICRNL, OPOST | ONLCR, ICANON);
	typed("\nsecret\n");
	EXPECT_STR(drain(master), "");
	flags(ICRNL, OPOST | ONLCR, ICANON | ECHONL);
	typed("x\n");
	EXPECT_STR(drain(master), "\r\n");
}
TEST(erase_kill_werase) {
	openpt();
	char b[64];
	typed("abX\x7f" "c\n");
	EXPECT_EQ(read(slave, b, 64), 4);
	EXPECT_MEM(b, "abc\n", 4);
	EXPECT_STR(drain(master), "abX\b \bc\r\n");
	typed("junk\x15good\n");
	EXPECT_EQ(read(slave, b, 64), 5);
	EXPECT_MEM(b, "good\n", 5);
	drain(master);
	typed("one two\x17three\n");
	EXPECT_EQ(read(slave, b, 64), 10);
	EXPECT_MEM(b, "one three\n", 10);
	drain(master);
	typed("\x7f\x7fz\n"); /* nothing to erase */
	EXPECT_EQ(read(slave, b, 64), 2);
	drain(master);
	typed("a\x16\x03" "b\n"); /* literal next */
	EXPECT_EQ(read(slave, b, 64), 4);
	EXPECT_EQ(b[1], 3);
}
TEST(eof) {
	openpt();
	char b[16];
	typed("\x04");
	EXPECT_EQ(read(slave, b, 16), 0);
	typed("ab\x04");
	EXPECT_EQ(read(slave, b, 16), 2);
	typed("x\n");
	EXPECT_EQ(read(slave, b, 16), 2);
}
TEST(input_flags) {
	openpt();
	char b[16];
	flags(0, 0, ICANON);
	typed("a\rb\n");
	EXPECT_EQ(read(slave, b, 16), 4);
	flags(INLCR, 0, 0);
	typed("\n");
	EXPECT_EQ(read(slave, b, 16), 1);
	EXPECT_EQ(b[0], '\r');
	flags(IGNCR, 0, 0);
	typed("\rq");
	EXPECT_EQ(read(slave, b, 16), 1);
	EXPECT_EQ(b[0], 'q');
	flags(ISTRIP, 0, 0);
	typed("\xe1");
	EXPECT_EQ(read(slave, b, 16), 1);
	EXPECT_EQ(b[0], 'a');
	flags(IUCLC, 0, IEXTEN);
	typed("A");
	EXPECT_EQ(read(slave, b, 16), 1);
	EXPECT_EQ(b[0], 'a');
}
TEST(raw_mode) {
	openpt();
	char b[16];
	raw(1, 0);
	typed("a");
	EXPECT_EQ(read(slave, b, 16), 1);
	typed("\x03\x04\r\n");
	msleep(20);
	EXPECT_EQ(read(slave, b, 16), 4);
	EXPECT_MEM(b, "\x03\x04\r\n", 4);
	raw(3, 0);
	pid_t c = CHILD(msleep(30); typed("a"); msleep(30); typed("bc"));
	EXPECT_EQ(read(slave, b, 16), 3);
	EXPECT_EXIT(c, 0);
	raw(0, 0);
	EXPECT_EQ(read(slave, b, 16), 0);
	raw(0, 1);
	int64_t t = now_ms();
	EXPECT_EQ(read(slave, b, 16), 0);
	EXPECT_GE(now_ms() - t, 90);
	raw(2, 1); /* between bytes */
	typed("a");
	EXPECT_EQ(read(slave, b, 16), 1);
}
TEST(nonblock_and_poll) {
	openpt();
	char b[16];
	OK(fcntl(slave, F_SETFL, O_NONBLOCK));
	ERR(read(slave, b, 16), EAGAIN);
	struct pollfd p = {slave, POLLIN | POLLOUT, 0};
	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(p.revents, POLLOUT);
	typed("part");
	msleep(20);
	p.events = POLLIN;
	EXPECT_EQ(poll(&p, 1, 0), 0);
	ERR(read(slave, b, 16), EAGAIN);
	typed("\n");
	EXPECT_EQ(poll(&p, 1, 1000), 1);
	EXPECT_EQ(read(slave, b, 16), 5);
	OK(fcntl(master, F_SETFL, O_NONBLOCK));
	drain(master);
	ERR(read(master, b, 16), EAGAIN);
}
TEST(tcset_and_flush) {
	openpt();
	struct termios t;
	typed("abc\n");
	msleep(20);
	EXPECT_EQ(pending(slave), 4);
	OK(tcflush(slave, TCIFLUSH));
	EXPECT_EQ(pending(slave), 0);
	OK(tcgetattr(slave, &t));
	t.c_lflag &= ~ECHO;
	OK(tcsetattr(slave, TCSAFLUSH, &t));
	OK(tcgetattr(master, &t));
	EXPECT_EQ(t.c_lflag & ECHO, 0);
	OK(tcdrain(slave));
	ERR(tcflush(slave, 99), EINVAL);
	PUT("f", "");
	ERR(tcgetattr(OK(open("f", O_RDONLY)), &t), ENOTTY);
	EXPECT_EQ(cfgetospeed(&t), B38400);
}
TEST(canon_to_raw_keeps_input) {
	openpt();
	char b[16];
	typed("part");
	msleep(20);
	raw(1, 0);
	EXPECT_EQ(read(slave, b, 16), 4);
}
TEST(winsize) {
	openpt();
	struct winsize w = {0}, x;
	OK(ioctl(slave, TIOCGWINSZ, &w));
	EXPECT_EQ(w.ws_row, 0);
	w = (struct winsize){24, 80, 1, 2};
	OK(ioctl(master, TIOCSWINSZ, &w));
	OK(ioctl(slave, TIOCGWINSZ, &x));
	EXPECT_MEM(&w, &x, sizeof w);
}
static volatile int got;
static void h(int s) { got = s; }
TEST(winch_signal) {
	openpt();
	int p[2];
	OK(pipe(p));
	pid_t c = SESSION(signal(SIGWINCH, h); OK(write(p[1], "r", 1)); WAIT_FOR(got == SIGWINCH); struct winsize w; OK(ioctl(slave, TIOCGWINSZ, &w)); EXPECT_EQ(w.ws_col, 99));
	char b;
	OK(read(p[0], &b, 1));
	struct winsize w = {11, 99, 0, 0};
	OK(ioctl(master, TIOCSWINSZ, &w));
	EXPECT_EXIT(c, 0);
}
TEST(controlling_terminal) {
	openpt();
	pid_t c = CHILD(
		OK(setsid()); ERR(open("/dev/tty", O_RDWR), ENXIO); pid_t g; ERR(ioctl(slave, TIOCGPGRP, &g), ENOTTY);
		OK(ioctl(slave, TIOCSCTTY, 0));
		int t = OK(open("/dev/tty", O_RDWR)); EXPECT_EQ(isatty(t), 1);
		OK(ioctl(slave, TIOCGPGRP, &g)); EXPECT_EQ(g, getpid()); OK(ioctl(slave, TIOCGSID, &g)); EXPECT_EQ(g, getpid());
		EXPECT_EQ(tcgetpgrp(t), getpid());
		OK(write(t, "via tty", 7)); EXPECT_STR(drain(master), "via tty");
		signal(SIGHUP, SIG_IGN); signal(SIGCONT, SIG_IGN);
		OK(ioctl(t, TIOCNOTTY)); ERR(open("/dev/tty", O_RDWR), ENXIO));
	EXPECT_EXIT(c, 0);
	/* opening without O_NOCTTY makes it so, for a session leader */
	openpt();
	c = CHILD(OK(setsid()); int s = OK(open(name, O_RDWR)); EXPECT_EQ(tcgetpgrp(s), getpid()); OK(open("/dev/tty", O_RDWR)));
	EXPECT_EXIT(c, 0);
	openpt();
	c = CHILD(OK(setsid()); IN_CHILD(ERR(ioctl(slave, TIOCSCTTY, 0), EPERM)));
	EXPECT_EXIT(c, 0);
}
TEST(ctty_is_exclusive) {
	openpt();
	int p[2];
	OK(pipe(p));
	pid_t c = SESSION(OK(write(p[1], "r", 1)); msleep(200));
	char b;
	OK(read(p[0], &b, 1));
	IN_CHILD(OK(setsid()); OK(setresuid(777, 777, 777)); ERR(ioctl(slave, TIOCSCTTY, 0), EPERM));
	EXPECT_EXIT(c, 0);
}
TEST(interrupt_chars) {
	openpt();
	struct { const char *k; int s; const char *e; } v[] = {{"\x03", SIGINT, "^C"}, {"\x1c", SIGQUIT, "^\\"}, {"\x1a", SIGTSTP, "^Z"}};
	int p[2];
	OK(pipe(p));
	pid_t c = SESSION(
		for (int i = 0; i < 3; i++) { struct sigaction sa; memset(&sa, 0, sizeof sa); sa.sa_handler = h; OK(sigaction(v[i].s, &sa, NULL)); }
		for (int i = 0; i < 3; i++) { got = 0; OK(write(p[1], "r", 1)); WAIT_FOR(got == v[i].s); }
		OK(write(p[1], "r", 1)));
	char b;
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(read(p[0], &b, 1), 1);
		typed(v[i].k);
		EXPECT_STR(drain(master), v[i].e);
	}
	EXPECT_EXIT(c, 0);
}
TEST(interrupt_goes_to_foreground_only) {
	openpt();
	int p[2];
	OK(pipe(p));
	pid_t c = SESSION(
		signal(SIGINT, h); signal(SIGTTOU, SIG_IGN);
		pid_t g = CHILD(signal(SIGINT, SIG_DFL); OK(setpgid(0, 0)); OK(write(p[1], "r", 1)); pause());
		setpgid(g, g); OK(tcsetpgrp(slave, g)); EXPECT_EQ(tcgetpgrp(slave), g); OK(write(p[1], "r", 1));
		EXPECT_KILLED(g, SIGINT); EXPECT_EQ(got, 0));
	char b;
	EXPECT_EQ(read(p[0], &b, 1), 1);
	EXPECT_EQ(read(p[0], &b, 1), 1);
	typed("\x03");
	EXPECT_EXIT(c, 0);
}
TEST(intr_flushes_input) {
	openpt();
	pid_t c = SESSION(signal(SIGINT, SIG_IGN); char b[16]; typed("junk\x03ok\n"); EXPECT_EQ(read(slave, b, 16), 3); EXPECT_MEM(b, "ok\n", 3));
	EXPECT_EXIT(c, 0);
}
TEST(background_read_ttin) {
	openpt();
	pid_t c = SESSION(
		pid_t g = CHILD(OK(setpgid(0, 0)); char b; if (read(slave, &b, 1)) {} _exit(1));
		setpgid(g, g); int st; EXPECT_EQ(waitpid(g, &st, WUNTRACED), g); EXPECT_TRUE(WIFSTOPPED(st)); EXPECT_EQ(WSTOPSIG(st), SIGTTIN);
		OK(kill(g, SIGKILL)); EXPECT_KILLED(g, SIGKILL);
		g = CHILD(OK(setpgid(0, 0)); signal(SIGTTIN, SIG_IGN); char b; ERR(read(slave, &b, 1), EIO)); EXPECT_EXIT(g, 0));
	EXPECT_EXIT(c, 0);
}
TEST(background_write_ttou) {
	openpt();
	pid_t c = SESSION(
		pid_t g = CHILD(OK(setpgid(0, 0)); OK(write(slave, "x", 1))); EXPECT_EXIT(g, 0); /* allowed without TOSTOP */
		struct termios t; OK(tcgetattr(slave, &t)); t.c_lflag |= TOSTOP; OK(tcsetattr(slave, TCSANOW, &t));
		g = CHILD(OK(setpgid(0, 0)); if (write(slave, "x", 1)) {} _exit(1));
		int st; EXPECT_EQ(waitpid(g, &st, WUNTRACED), g); EXPECT_TRUE(WIFSTOPPED(st)); EXPECT_EQ(WSTOPSIG(st), SIGTTOU);
		OK(kill(g, SIGKILL)); EXPECT_KILLED(g, SIGKILL);
		g = CHILD(OK(setpgid(0, 0)); tcsetattr(slave, TCSANOW, &t); _exit(1));
		EXPECT_EQ(waitpid(g, &st, WUNTRACED), g); EXPECT_EQ(WSTOPSIG(st), SIGTTOU); OK(kill(g, SIGKILL)); EXPECT_KILLED(g, SIGKILL);
		g = CHILD(OK(setpgid(0, 0)); tcsetpgrp(slave, getpid()); _exit(1));
		EXPECT_EQ(waitpid(g, &st, WUNTRACED), g); EXPECT_EQ(WSTOPSIG(st), SIGTTOU); OK(kill(g, SIGKILL)); EXPECT_KILLED(g, SIGKILL);
		g = CHILD(OK(setpgid(0, 0)); signal(SIGTTOU, SIG_IGN); OK(tcsetpgrp(slave, getpid())); EXPECT_EQ(tcgetpgrp(slave), getpid())); EXPECT_EXIT(g, 0));
	EXPECT_EXIT(c, 0);
}
TEST(setpgrp_errors) {
	openpt();
	pid_t c = SESSION(ERR(tcsetpgrp(slave, 999999), ESRCH); ERR(tcsetpgrp(slave, getppid()), EPERM); ERR(tcsetpgrp(slave, -1), EINVAL));
	EXPECT_EXIT(c, 0);
	ERR(tcsetpgrp(slave, getpgrp()), ENOTTY);
	ERR(tcgetpgrp(slave), ENOTTY);
}
TEST(hangup_master_close) {
	openpt();
	int p[2];
	OK(pipe(p));
	pid_t c = SESSION(close(master); signal(SIGHUP, h); OK(write(p[1], "r", 1)); WAIT_FOR(got == SIGHUP); char b; EXPECT_EQ(read(slave, &b, 1), 0); ERR(write(slave, "x", 1), EIO); struct termios t; ERR(tcgetattr(slave, &t), EIO);
		struct pollfd f; f.fd = slave; f.events = POLLIN; EXPECT_EQ(poll(&f, 1, 0), 1); EXPECT_TRUE(f.revents & POLLHUP));
	char b;
	OK(read(p[0], &b, 1));
	OK(close(master));
	EXPECT_EXIT(c, 0);
}
TEST(slave_close_eio) {
	openpt();
	char b[8];
	OK(write(slave, "bye", 3));
	OK(close(slave));
	struct pollfd f = {master, POLLIN, 0};
	EXPECT_EQ(poll(&f, 1, 1000), 1);
	EXPECT_TRUE(f.revents & POLLHUP);
	EXPECT_EQ(read(master, b, 8), 3);
	ERR(read(master, b, 8), EIO);
	slave = OK(open(name, O_RDWR | O_NOCTTY)); /* and back again */
	OK(write(slave, "hi", 2));
	EXPECT_EQ(read(master, b, 8), 2);
}
TEST(leader_exit_hangs_up) {
	openpt();
	int p[2];
	OK(pipe(p));
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t c = SESSION(CHILD(signal(SIGHUP, h); OK(write(p[1], "r", 1)); WAIT_FOR(got == SIGHUP); OK(write(p[1], "h", 1))); char b; msleep(60); (void)b);
	char b;
	EXPECT_EQ(read(p[0], &b, 1), 1);
	EXPECT_EXIT(c, 0);
	EXPECT_EQ(read(p[0], &b, 1), 1);
	EXPECT_EQ(b, 'h');
}
TEST(flow_control) {
	openpt();
	drain(master);
	typed("\x13");
	msleep(20);
	OK(fcntl(slave, F_SETFL, O_NONBLOCK));
	ERR(write(slave, "x", 1), EAGAIN);
	typed("\x11");
	msleep(20);
	OK(write(slave, "y", 1));
	EXPECT_STR(drain(master), "y");
	OK(tcflow(slave, TCOOFF));
	ERR(write(slave, "x", 1), EAGAIN);
	OK(tcflow(slave, TCOON));
	OK(write(slave, "z", 1));
}
TEST(packet_mode) {
	openpt();
	int on = 1;
	char b[16];
	OK(ioctl(master, TIOCPKT, &on));
	OK(write(slave, "hi", 2));
	EXPECT_EQ(read(master, b, 16), 3);
	EXPECT_EQ(b[0], TIOCPKT_DATA);
	EXPECT_MEM(b + 1, "hi", 2);
	OK(tcflush(slave, TCIFLUSH));
	struct pollfd f = {master, POLLIN | POLLPRI, 0};
	EXPECT_EQ(poll(&f, 1, 1000), 1);
	EXPECT_EQ(read(master, b, 16), 1);
	EXPECT_EQ(b[0] & TIOCPKT_FLUSHREAD, TIOCPKT_FLUSHREAD);
}
TEST(tiocsti) {
	openpt();
	char c = 'q';
	int r = ioctl(slave, TIOCSTI, &c);
	if (r < 0) SKIP("TIOCSTI is switched off here");
}
TEST(large_output_with_slow_reader) {
	openpt();
	flags(0, 0, 0);
	size_t n = 100000;
	char *d = malloc(n);
	memset(d, 'x', n);
	pid_t c = CHILD(size_t o = 0; while (o < n) o += OK(write(slave, d + o, n - o)));
	size_t g = 0;
	while (g < n) g += OK(read(master, d, 5000));
	EXPECT_EQ(g, n);
	EXPECT_EXIT(c, 0);
}
TEST(shell_session) {
	openpt();
	pid_t c = SESSION(dup2(slave, 0); dup2(slave, 1); dup2(slave, 2); execl("/bin/sh", "sh", "-c", "read x; echo got $x; stty -echo; read y; echo second $y; tty", NULL); _exit(9));
	typed("one\n");
	WAIT_FOR(strstr(drain(master), "got one") != NULL);
	msleep(50);
	typed("two\n");
	char *all = calloc(1, 16384);
	for (int i = 0; i < 30 && !strstr(all, "/dev/pts"); i++) strcat(all, drain(master));
	EXPECT_TRUE(strstr(all, "second two") != NULL);
	EXPECT_TRUE(strstr(all, name) != NULL);
	EXPECT_EXIT(c, 0);
}
MAIN()
