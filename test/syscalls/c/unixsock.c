/* AF_UNIX sockets: stream, datagram, seqpacket, ancillary data, abstract names. */
#include "harness.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un ua(const char *p) { struct sockaddr_un a = {.sun_family = AF_UNIX}; strncpy(a.sun_path, p, sizeof a.sun_path - 1); return a; }
#define SA(x) ((struct sockaddr *)&(x))
static int bound(int type, const char *path) { struct sockaddr_un a = ua(path); int s = OK(socket(AF_UNIX, type, 0)); OK(bind(s, SA(a), sizeof a)); return s; }
static int conn(int type, const char *path) { struct sockaddr_un a = ua(path); int s = OK(socket(AF_UNIX, type, 0)); OK(connect(s, SA(a), sizeof a)); return s; }
static void pair(int type, int s[2]) { OK(socketpair(AF_UNIX, type, 0, s)); }

TEST(socket_errors) {
	ERR(socket(999, SOCK_STREAM, 0), EAFNOSUPPORT);
	ERR(socket(AF_UNIX, 99, 0), EINVAL);
	ERR(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
	ERR(socket(AF_UNIX, SOCK_STREAM, 55), EPROTONOSUPPORT);
	int s[2];
	ERR(socketpair(AF_INET, SOCK_STREAM, 0, s), EOPNOTSUPP);
	ERR(socketpair(AF_UNIX, SOCK_STREAM, 0, (void *)8), EFAULT);
	int fd = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	EXPECT_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
	EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ERR(listen(0x7fff, 1), EBADF);
	PUT("f", "");
	ERR(listen(OK(open("f", O_RDONLY)), 1), ENOTSOCK);
}
TEST(pair_stream) {
	int s[2];
	char b[16];
	pair(SOCK_STREAM, s);
	EXPECT_EQ(write(s[0], "hello", 5), 5);
	EXPECT_EQ(write(s[0], "world", 5), 5);
	EXPECT_EQ(read(s[1], b, 7), 7);
	EXPECT_EQ(read(s[1], b, 16), 3);
	EXPECT_EQ(send(s[1], "x", 1, 0), 1);
	EXPECT_EQ(recv(s[0], b, 16, MSG_PEEK), 1);
	EXPECT_EQ(recv(s[0], b, 16, 0), 1);
	ERR(recv(s[0], b, 16, MSG_DONTWAIT), EAGAIN);
	int n;
	OK(write(s[0], "abc", 3));
	OK(ioctl(s[1], FIONREAD, &n));
	EXPECT_EQ(n, 3);
	OK(close(s[0]));
	EXPECT_EQ(read(s[1], b, 16), 3);
	EXPECT_EQ(read(s[1], b, 16), 0);
	ERR(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
	EXPECT_KILLED(CHILD(if (write(s[1], "x", 1)) {}), SIGPIPE);
	ERR(lseek(s[1], 0, SEEK_SET), ESPIPE);
}
TEST(reset_when_unread) {
	int s[2];
	char b[4];
	pair(SOCK_STREAM, s);
	OK(write(s[1], "x", 1));
	OK(close(s[0])); /* with data unread: the peer sees a reset */
	ERR(read(s[1], b, 4), ECONNRESET);
	EXPECT_EQ(read(s[1], b, 4), 0);
}
TEST(shutdown_all) {
	int s[2];
	char b[4];
	pair(SOCK_STREAM, s);
	OK(shutdown(s[0], SHUT_WR));
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	EXPECT_EQ(read(s[1], b, 4), 0);
	OK(write(s[1], "y", 1));
	EXPECT_EQ(read(s[0], b, 4), 1);
	struct pollfd p = {s[1], POLLIN | POLLRDHUP, 0};
	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(p.revents, POLLIN | POLLRDHUP);
	OK(shutdown(s[0], SHUT_RD));
	ERR(send(s[1], "x", 1, MSG_NOSIGNAL), EPIPE);
	ERR(shutdown(s[0], 5), EINVAL);
}
TEST(listen_accept) {
	int l = bound(SOCK_STREAM, "sock");
	struct stat st;
	OK(stat("sock", &st));
	EXPECT_TRUE(S_ISSOCK(st.st_mode));
	struct sockaddr_un me = ua("sock");
	ERR(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), SA(me), sizeof me), ECONNREFUSED);
	ERR(accept(l, NULL, NULL), EINVAL);
	OK(listen(l, 5));
	int v;
	socklen_t vl = sizeof v;
	OK(getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &v, &vl));
	EXPECT_EQ(v, 1);
	int c = conn(SOCK_STREAM, "sock");
	struct pollfd p = {l, POLLIN, 0};
	EXPECT_EQ(poll(&p, 1, 1000), 1);
	struct sockaddr_un a;
	socklen_t al = sizeof a;
	int s = OK(accept4(l, SA(a), &al, SOCK_CLOEXEC));
	EXPECT_EQ(al, 2);
	EXPECT_EQ(a.sun_family, AF_UNIX);
	EXPECT_EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
	OK(write(c, "hi", 2));
	char b[8];
	EXPECT_EQ(read(s, b, 8), 2);
	al = sizeof a;
	OK(getpeername(c, SA(a), &al));
	EXPECT_STR(a.sun_path, "sock");
	EXPECT_EQ(al, 2 + 4 + 1);
	al = sizeof a;
	OK(getsockname(s, SA(a), &al));
	EXPECT_STR(a.sun_path, "sock");
	fcntl(l, F_SETFL, O_NONBLOCK);
	ERR(accept(l, NULL, NULL), EAGAIN);
	ERR(accept(c, NULL, NULL), EINVAL);
	ERR(connect(c, SA(a), sizeof a), EISCONN);
}
TEST(bind_errors) {
	int s = bound(SOCK_STREAM, "a");
	struct sockaddr_un a = ua("a"), b = ua("b"), n = ua("nodir/x");
	ERR(bind(s, SA(b), sizeof b), EINVAL);
	int t = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	ERR(bind(t, SA(a), sizeof a), EADDRINUSE);
	ERR(bind(t, SA(n), sizeof n), ENOENT);
	ERR(bind(t, SA(b), 1), EINVAL);
	ERR(bind(t, SA(b), 200), EINVAL);
	b.sun_family = AF_INET;
	ERR(bind(t, SA(b), sizeof b), EINVAL);
	ERR(connect(t, SA(n), sizeof n), ENOENT);
	PUT("file", "");
	struct sockaddr_un f = ua("file");
	ERR(connect(t, SA(f), sizeof f), ECONNREFUSED);
	OK(close(s));
	ERR(connect(t, SA(a), sizeof a), ECONNREFUSED);
	ERR(bind(t, SA(a), sizeof a), EADDRINUSE);
	ERR(bind(t, (void *)8, sizeof a), EFAULT);
	ERR(listen(OK(socket(AF_UNIX, SOCK_DGRAM, 0)), 1), EOPNOTSUPP);
}
TEST(connect_permission) {
	int l = bound(SOCK_STREAM, "s");
	OK(listen(l, 5));
	OK(chmod(".", 0755));
	OK(chmod("s", 0644));
	IN_CHILD(OK(setresuid(777, 777, 777)); struct sockaddr_un a = ua("s"); ERR(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), SA(a), sizeof a), EACCES));
}
TEST(wrong_type) {
	int l = bound(SOCK_STREAM, "s");
	OK(listen(l, 1));
	struct sockaddr_un a = ua("s");
	ERR(connect(OK(socket(AF_UNIX, SOCK_DGRAM, 0)), SA(a), sizeof a), EPROTOTYPE);
	ERR(connect(OK(socket(AF_UNIX, SOCK_SEQPACKET, 0)), SA(a), sizeof a), EPROTOTYPE);
}
TEST(backlog) {
	int l = bound(SOCK_STREAM, "s");
	OK(listen(l, 1));
	struct sockaddr_un a = ua("s");
	int n = 0;
	for (; n < 10; n++) {
		int s = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
		if (connect(s, SA(a), sizeof a) < 0) { EXPECT_EQ(errno, EAGAIN); break; }
	}
	EXPECT_EQ(n, 2);
	pid_t c = CHILD(conn(SOCK_STREAM, "s"));
	msleep(50);
	OK(accept(l, NULL, NULL));
	EXPECT_EXIT(c, 0);
}
TEST(abstract_names) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int n = sprintf(a.sun_path + 1, "garrison-%d", getpid());
	int l = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(bind(l, SA(a), 3 + n));
	OK(listen(l, 5));
	int c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(c, SA(a), 3 + n));
	struct sockaddr_un g;
	socklen_t gl = sizeof g;
	OK(getpeername(c, SA(g), &gl));
	EXPECT_EQ(gl, 3 + n);
	EXPECT_EQ(g.sun_path[0], 0);
	ERR(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), SA(a), 2 + n), ECONNREFUSED);
	int d = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	ERR(bind(d, SA(a), 3 + n), EADDRINUSE);
	OK(close(l));
	OK(bind(d, SA(a), 3 + n));
	/* autobind */
	int e = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	OK(bind(e, SA(a), 2));
	gl = sizeof g;
	OK(getsockname(e, SA(g), &gl));
	EXPECT_EQ(gl, 8);
}
TEST(unnamed_sockname) {
	int s[2];
	pair(SOCK_STREAM, s);
	struct sockaddr_un g;
	socklen_t gl = sizeof g;
	OK(getsockname(s[0], SA(g), &gl));
	EXPECT_EQ(gl, 2);
	int u = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	ERR(getpeername(u, SA(g), &gl), ENOTCONN);
	gl = -1;
	ERR(getsockname(s[0], SA(g), &gl), EINVAL);
	ERR(send(u, "x", 1, MSG_NOSIGNAL), ENOTCONN);
	char b;
	ERR(recv(u, &b, 1, 0), EINVAL);
}
TEST(dgram) {
	int a = bound(SOCK_DGRAM, "a"), b = bound(SOCK_DGRAM, "b");
	struct sockaddr_un A = ua("a"), B = ua("b"), from;
	socklen_t fl = sizeof from;
	char buf[8];
	EXPECT_EQ(sendto(a, "hello", 5, 0, SA(B), sizeof B), 5);
	EXPECT_EQ(sendto(a, "xy", 2, 0, SA(B), sizeof B), 2);
	EXPECT_EQ(sendto(a, "", 0, 0, SA(B), sizeof B), 0);
	EXPECT_EQ(recvfrom(b, buf, 3, MSG_TRUNC, SA(from), &fl), 5);
	EXPECT_STR(from.sun_path, "a");
	EXPECT_EQ(recv(b, buf, 8, 0), 2);
	EXPECT_EQ(recv(b, buf, 8, MSG_DONTWAIT), 0);
	ERR(recv(b, buf, 8, MSG_DONTWAIT), EAGAIN);
	ERR(send(a, "x", 1, 0), ENOTCONN);
	OK(connect(a, SA(B), sizeof B));
	EXPECT_EQ(send(a, "z", 1, 0), 1);
	/* b talks to a alone once connected to it */
	OK(connect(b, SA(A), sizeof A));
	int c = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	ERR(sendto(c, "x", 1, 0, SA(B), sizeof B), EPERM);
	OK(close(b));
	ERR(send(a, "z", 1, 0), ECONNREFUSED);
	struct sockaddr un = {.sa_family = AF_UNSPEC};
	OK(connect(a, &un, sizeof un));
	ERR(send(a, "x", 1, 0), ENOTCONN);
	struct sockaddr_un none = ua("none");
	ERR(sendto(a, "x", 1, 0, SA(none), sizeof none), ENOENT);
	char *big = calloc(1, 1 << 20);
	int s[2];
	pair(SOCK_DGRAM, s);
	ERR(send(s[0], big, 1 << 20, 0), EMSGSIZE);
}
TEST(dgram_queue_full) {
	int s[2], n = 0;
	pair(SOCK_DGRAM, s);
	while (send(s[0], "x", 1, MSG_DONTWAIT) == 1 && n < 100000) n++;
	EXPECT_EQ(errno, EAGAIN);
	EXPECT_GT(n, 5);
	struct pollfd p = {s[0], POLLOUT, 0};
	EXPECT_EQ(poll(&p, 1, 0), 0);
	char b;
	for (int i = 0; i < n; i++) OK(recv(s[1], &b, 1, 0));
	EXPECT_EQ(poll(&p, 1, 0), 1);
}
TEST(seqpacket) {
	int s[2];
	char b[16];
	pair(SOCK_SEQPACKET, s);
	OK(write(s[0], "hello", 5));
	OK(write(s[0], "xy", 2));
	struct iovec v = {b, 3};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	EXPECT_EQ(recvmsg(s[1], &m, 0), 3);
	EXPECT_EQ(m.msg_flags & MSG_TRUNC, MSG_TRUNC);
	EXPECT_EQ(recv(s[1], b, 16, 0), 2);
	OK(close(s[0]));
	EXPECT_EQ(recv(s[1], b, 16, 0), 0);
	int l = bound(SOCK_SEQPACKET, "q");
	OK(listen(l, 3));
	int c = conn(SOCK_SEQPACKET, "q"), a = OK(accept(l, NULL, NULL));
	OK(send(c, "abc", 3, 0));
	EXPECT_EQ(recv(a, b, 16, 0), 3);
}
static void sendfd(int s, const int *fds, int n) {
	char c[256] = {0};
	struct iovec v = {"F", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	OK(sendmsg(s, &m, 0));
}
static int recvfd(int s, int *fds, int max, int space, int flags, int *mf) {
	char c[256], b[64];
	struct iovec v = {b, sizeof b};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = space};
	OK(recvmsg(s, &m, flags));
	if (mf) *mf = m.msg_flags;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (!h) return 0;
	EXPECT_EQ(h->cmsg_type, SCM_RIGHTS);
	int n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	EXPECT_LE(n, max);
	memcpy(fds, CMSG_DATA(h), n * sizeof(int));
	return n;
}
TEST(scm_rights) {
	int s[2], r[4], p[2], mf;
	pair(SOCK_STREAM, s);
	OK(pipe(p));
	sendfd(s[0], p, 2);
	OK(close(p[0]));
	EXPECT_EQ(recvfd(s[1], r, 4, CMSG_SPACE(8), MSG_CMSG_CLOEXEC, &mf), 2);
	EXPECT_EQ(fcntl(r[0], F_GETFD), FD_CLOEXEC);
	OK(write(p[1], "via", 3));
	char b[8];
	EXPECT_EQ(read(r[0], b, 8), 3);
	/* the last reference may be the one in flight */
	OK(pipe(p));
	sendfd(s[0], p + 1, 1);
	OK(close(p[1]));
	struct pollfd pf = {p[0], POLLIN, 0};
	EXPECT_EQ(poll(&pf, 1, 0), 0);
	OK(close(s[1]));
	OK(close(s[0]));
	EXPECT_EQ(poll(&pf, 1, 1000), 1);
	EXPECT_EQ(pf.revents, POLLHUP);
}
TEST(scm_rights_truncated) {
	int s[2], r[4], f[3] = {0, 1, 2}, mf;
	pair(SOCK_STREAM, s);
	sendfd(s[0], f, 3);
	EXPECT_EQ(recvfd(s[1], r, 4, CMSG_LEN(sizeof(int)), 0, &mf), 1);
	EXPECT_EQ(mf & MSG_CTRUNC, MSG_CTRUNC);
	sendfd(s[0], f, 1);
	char b[4];
	EXPECT_EQ(read(s[1], b, 4), 1); /* plain read drops them */
}
TEST(scm_rights_boundary) {
	/* a stream read stops after the data that came with descriptors */
	int s[2], f[1] = {0};
	pair(SOCK_STREAM, s);
	OK(write(s[0], "abc", 3));
	sendfd(s[0], f, 1);
	OK(write(s[0], "def", 3));
	char c[64], b[32];
	struct iovec v = {b, sizeof b};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	EXPECT_EQ(recvmsg(s[1], &m, 0), 4);
	EXPECT_TRUE(CMSG_FIRSTHDR(&m) != NULL);
	m.msg_controllen = sizeof c;
	EXPECT_EQ(recvmsg(s[1], &m, 0), 3);
	EXPECT_EQ(m.msg_controllen, 0);
}
TEST(scm_errors) {
	int s[2], bad = 999;
	pair(SOCK_STREAM, s);
	char c[64] = {0};
	struct iovec v = {"F", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = CMSG_SPACE(4)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	*h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(4)};
	memcpy(CMSG_DATA(h), &bad, 4);
	ERR(sendmsg(s[0], &m, 0), EBADF);
	h->cmsg_type = 77;
	ERR(sendmsg(s[0], &m, 0), EINVAL);
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = 4;
	ERR(sendmsg(s[0], &m, 0), EINVAL);
	m.msg_control = (void *)8;
	ERR(sendmsg(s[0], &m, 0), EFAULT);
	ERR(sendmsg(s[0], (void *)8, 0), EFAULT);
	m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 2000};
	ERR(sendmsg(s[0], &m, 0), EMSGSIZE);
}
static struct ucred recvcred(int s, bool *got) {
	char c[128], b[8];
	struct iovec v = {b, 8};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	OK(recvmsg(s, &m, 0));
	struct ucred u = {0};
	*got = false;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		if (h->cmsg_type == SCM_CREDENTIALS) { memcpy(&u, CMSG_DATA(h), sizeof u); *got = true; }
	return u;
}
TEST(scm_credentials) {
	int s[2], on = 1;
	bool got;
	pair(SOCK_STREAM, s);
	OK(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	OK(write(s[0], "x", 1));
	struct ucred u = recvcred(s[1], &got);
	EXPECT_TRUE(got);
	EXPECT_EQ(u.pid, getpid());
	EXPECT_EQ(u.uid, getuid());
	pid_t c = CHILD(OK(setresuid(777, 777, 777)); OK(write(s[0], "y", 1)));
	EXPECT_EXIT(c, 0);
	u = recvcred(s[1], &got);
	EXPECT_EQ(u.pid, c);
	EXPECT_EQ(u.uid, 777);
	/* claims: root may lie, a user not */
	char cb[64] = {0};
	struct iovec v = {"F", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = cb, .msg_controllen = CMSG_SPACE(sizeof u)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	*h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS, .cmsg_len = CMSG_LEN(sizeof u)};
	u = (struct ucred){getpid(), 55, 66};
	memcpy(CMSG_DATA(h), &u, sizeof u);
	OK(sendmsg(s[0], &m, 0));
	u = recvcred(s[1], &got);
	EXPECT_EQ(u.uid, 55);
	EXPECT_EQ(u.gid, 66);
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(sendmsg(s[0], &m, 0), EPERM));
}
TEST(peercred) {
	int s[2];
	pair(SOCK_STREAM, s);
	struct ucred u;
	socklen_t l = sizeof u;
	OK(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &u, &l));
	EXPECT_EQ(u.pid, getpid());
	EXPECT_EQ(u.uid, getuid());
	int ls = bound(SOCK_STREAM, "s");
	OK(listen(ls, 1));
	pid_t c = CHILD(conn(SOCK_STREAM, "s"); msleep(100));
	int a = OK(accept(ls, NULL, NULL));
	OK(getsockopt(a, SOL_SOCKET, SO_PEERCRED, &u, &l));
	EXPECT_EQ(u.pid, c);
	EXPECT_EXIT(c, 0);
}
TEST(sockopts) {
	int s[2], v;
	socklen_t l = sizeof v;
	pair(SOCK_STREAM, s);
	OK(getsockopt(s[0], SOL_SOCKET, SO_TYPE, &v, &l));
	EXPECT_EQ(v, SOCK_STREAM);
	OK(getsockopt(s[0], SOL_SOCKET, SO_DOMAIN, &v, &l));
	EXPECT_EQ(v, AF_UNIX);
	OK(getsockopt(s[0], SOL_SOCKET, SO_ERROR, &v, &l));
	EXPECT_EQ(v, 0);
	v = 4096;
	OK(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
	OK(getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, &l));
	EXPECT_GE(v, 4608);
	ERR(setsockopt(s[0], SOL_SOCKET, 9999, &v, 4), ENOPROTOOPT);
	ERR(setsockopt(s[0], 999, 1, &v, 4), EOPNOTSUPP);
	ERR(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &v, 2), EINVAL);
	ERR(getsockopt(s[0], SOL_SOCKET, SO_TYPE, (void *)8, &l), EFAULT);
	struct timeval tv = {0, 50000};
	OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	char b;
	int64_t t = now_ms();
	ERR(read(s[0], &b, 1), EAGAIN);
	EXPECT_GE(now_ms() - t, 45);
}
TEST(peek_and_waitall) {
	int s[2];
	char b[16];
	pair(SOCK_STREAM, s);
	pid_t c = CHILD(OK(write(s[0], "abc", 3)); msleep(60); OK(write(s[0], "def", 3)));
	EXPECT_EQ(recv(s[1], b, 6, MSG_WAITALL), 6);
	EXPECT_MEM(b, "abcdef", 6);
	EXPECT_EXIT(c, 0);
	OK(write(s[0], "xyz", 3));
	EXPECT_EQ(recv(s[1], b, 2, MSG_PEEK), 2);
	EXPECT_EQ(recv(s[1], b, 16, 0), 3);
	ERR(recv(s[1], b, 1, MSG_OOB | MSG_DONTWAIT), EINVAL);
}
TEST(blocking_large_transfer) {
	int s[2];
	pair(SOCK_STREAM, s);
	size_t n = 2 << 20;
	char *d = malloc(n), *e = malloc(n);
	for (size_t i = 0; i < n; i++) d[i] = i * 13 + (i >> 10);
	pid_t c = CHILD(close(s[1]); EXPECT_EQ(write(s[0], d, n), n));
	close(s[0]);
	size_t g = 0;
	ssize_t r;
	while ((r = OK(read(s[1], e + g, n - g + 1 > 60000 ? 60000 : n - g + 1))) > 0) g += r;
	EXPECT_EQ(g, n);
	EXPECT_MEM(d, e, n);
	EXPECT_EXIT(c, 0);
}
TEST(mmsg) {
	int s[2];
	pair(SOCK_DGRAM, s);
	struct iovec v[3] = {{"a", 1}, {"bb", 2}, {"ccc", 3}};
	struct mmsghdr m[3];
	memset(m, 0, sizeof m);
	for (int i = 0; i < 3; i++) { m[i].msg_hdr.msg_iov = &v[i]; m[i].msg_hdr.msg_iovlen = 1; }
	EXPECT_EQ(sendmmsg(s[0], m, 3, 0), 3);
	EXPECT_EQ(m[2].msg_len, 3);
	char b[3][8];
	struct iovec r[3] = {{b[0], 8}, {b[1], 8}, {b[2], 8}};
	for (int i = 0; i < 3; i++) m[i].msg_hdr.msg_iov = &r[i];
	EXPECT_EQ(recvmmsg(s[1], m, 3, MSG_DONTWAIT, NULL), 3);
	EXPECT_EQ(m[1].msg_len, 2);
	ERR(recvmmsg(s[1], m, 3, MSG_DONTWAIT, NULL), EAGAIN);
}
TEST(connect_to_unlinked_name) {
	int l = bound(SOCK_STREAM, "s");
	OK(listen(l, 3));
	int c = conn(SOCK_STREAM, "s");
	OK(rename("s", "t"));
	conn(SOCK_STREAM, "t");
	OK(unlink("t"));
	struct sockaddr_un a = ua("t");
	ERR(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), SA(a), sizeof a), ENOENT);
	int s = OK(accept(l, NULL, NULL));
	OK(write(c, "x", 1));
	char b;
	EXPECT_EQ(read(s, &b, 1), 1);
}
MAIN()
