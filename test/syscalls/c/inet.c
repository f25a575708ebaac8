/* Loopback TCP and UDP, IPv4 and IPv6. */
#include "harness.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#define SA(x) ((struct sockaddr *)&(x))
static struct sockaddr_in lo(int port) { return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}; }
static struct sockaddr_in name(int s) { struct sockaddr_in a; socklen_t l = sizeof a; OK(getsockname(s, SA(a), &l)); return a; }
static int listener(struct sockaddr_in *a) {
	int s = OK(socket(AF_INET, SOCK_STREAM, 0));
	*a = lo(0);
	OK(bind(s, SA(*a), sizeof *a));
	OK(listen(s, 8));
	*a = name(s);
	return s;
}
static void tcp(int s[2]) {
	struct sockaddr_in a;
	int l = listener(&a);
	s[0] = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(s[0], SA(a), sizeof a));
	s[1] = OK(accept(l, NULL, NULL));
	OK(close(l));
}
static int udp(struct sockaddr_in *a) { int s = OK(socket(AF_INET, SOCK_DGRAM, 0)); *a = lo(0); OK(bind(s, SA(*a), sizeof *a)); *a = name(s); return s; }
static int soerr(int s) { int v; socklen_t l = sizeof v; OK(getsockopt(s, SOL_SOCKET, SO_ERROR, &v, &l)); return v; }

TEST(tcp_echo) {
	int s[2];
	char b[16];
	tcp(s);
	OK(write(s[0], "hello", 5));
	EXPECT_EQ(read(s[1], b, 16), 5);
	OK(write(s[1], "back", 4));
	EXPECT_EQ(recv(s[0], b, 16, MSG_PEEK), 4);
	EXPECT_EQ(recv(s[0], b, 16, 0), 4);
	ERR(recv(s[0], b, 16, MSG_DONTWAIT), EAGAIN);
	struct sockaddr_in a = name(s[0]), p;
	socklen_t l = sizeof p;
	OK(getpeername(s[1], SA(p), &l));
	EXPECT_EQ(p.sin_port, a.sin_port);
	EXPECT_EQ(l, sizeof p);
	EXPECT_EQ(p.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
}
TEST(tcp_close_and_half_close) {
	int s[2];
	char b[16];
	tcp(s);
	OK(write(s[0], "abc", 3));
	OK(shutdown(s[0], SHUT_WR));
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
	EXPECT_EQ(read(s[1], b, 16), 3);
	EXPECT_EQ(read(s[1], b, 16), 0);
	OK(write(s[1], "still", 5));
	EXPECT_EQ(read(s[0], b, 16), 5);
	OK(close(s[1]));
	EXPECT_EQ(read(s[0], b, 16), 0);
}
TEST(tcp_reset_on_unread_close) {
	int s[2];
	char b[4];
	tcp(s);
	OK(write(s[0], "abc", 3));
	struct pollfd p = {s[1], POLLIN, 0};
	EXPECT_EQ(poll(&p, 1, 1000), 1);
	OK(close(s[1]));
	msleep(20);
	ERR(read(s[0], b, 4), ECONNRESET);
	EXPECT_EQ(read(s[0], b, 4), 0);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}
TEST(tcp_write_after_peer_close) {
	int s[2];
	tcp(s);
	OK(close(s[1]));
	msleep(20);
	OK(send(s[0], "x", 1, MSG_NOSIGNAL)); /* draws a reset */
	msleep(20);
	ERR(send(s[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}
TEST(tcp_linger_zero_resets) {
	int s[2];
	char b[4];
	tcp(s);
	struct linger lg = {1, 0};
	OK(setsockopt(s[1], SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
	OK(close(s[1]));
	msleep(20);
	ERR(read(s[0], b, 4), ECONNRESET);
}
TEST(tcp_refused) {
	struct sockaddr_in a;
	int l = listener(&a);
	OK(close(l));
	int s = OK(socket(AF_INET, SOCK_STREAM, 0));
	ERR(connect(s, SA(a), sizeof a), ECONNREFUSED);
	int n = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	int r = connect(n, SA(a), sizeof a);
	EXPECT_EQ(r, -1);
	if (errno == EINPROGRESS) {
		struct pollfd p = {n, POLLOUT, 0};
		EXPECT_EQ(poll(&p, 1, 1000), 1);
		EXPECT_TRUE(p.revents & POLLERR);
		EXPECT_EQ(soerr(n), ECONNREFUSED);
		EXPECT_EQ(soerr(n), 0);
	} else EXPECT_EQ(errno, ECONNREFUSED);
}
TEST(tcp_nonblocking_connect) {
	struct sockaddr_in a;
	int l = listener(&a), s = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	int r = connect(s, SA(a), sizeof a);
	EXPECT_TRUE(r == 0 || errno == EINPROGRESS);
	struct pollfd p = {s, POLLOUT, 0};
	EXPECT_EQ(poll(&p, 1, 1000), 1);
	EXPECT_EQ(p.revents, POLLOUT);
	EXPECT_EQ(soerr(s), 0);
	OK(accept(l, NULL, NULL));
	if (r < 0) OK(connect(s, SA(a), sizeof a));
	ERR(connect(s, SA(a), sizeof a), EISCONN);
}
TEST(tcp_accept_nonblock_and_poll) {
	struct sockaddr_in a;
	int l = listener(&a);
	OK(fcntl(l, F_SETFL, O_NONBLOCK));
	ERR(accept(l, NULL, NULL), EAGAIN);
	struct pollfd p = {l, POLLIN, 0};
	EXPECT_EQ(poll(&p, 1, 0), 0);
	pid_t c = CHILD(msleep(30); int s = OK(socket(AF_INET, SOCK_STREAM, 0)); OK(connect(s, SA(a), sizeof a)); char b; read(s, &b, 1));
	EXPECT_EQ(poll(&p, 1, 2000), 1);
	struct sockaddr_in f;
	socklen_t fl = sizeof f;
	int s = OK(accept4(l, SA(f), &fl, SOCK_NONBLOCK));
	EXPECT_EQ(f.sin_family, AF_INET);
	EXPECT_EQ(fcntl(s, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	OK(close(s));
	EXPECT_EXIT(c, 0);
}
TEST(tcp_errors) {
	int s = OK(socket(AF_INET, SOCK_STREAM, 0));
	char b;
	ERR(recv(s, &b, 1, 0), ENOTCONN);
	ERR(send(s, "x", 1, MSG_NOSIGNAL), EPIPE);
	ERR(accept(s, NULL, NULL), EINVAL);
	ERR(shutdown(s, SHUT_WR), ENOTCONN);
	struct sockaddr_in a = lo(0);
	socklen_t l = sizeof a;
	ERR(getpeername(s, SA(a), &l), ENOTCONN);
	ERR(bind(s, SA(a), 4), EINVAL);
	a.sin_family = AF_UNIX;
	ERR(bind(s, SA(a), sizeof a), EAFNOSUPPORT);
	ERR(connect(s, SA(a), sizeof a), EAFNOSUPPORT);
	a = lo(0);
	a.sin_addr.s_addr = inet_addr("8.8.8.8");
	ERR(bind(s, SA(a), sizeof a), EADDRNOTAVAIL);
	ERR(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
	ERR(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM));
}
TEST(tcp_bind_conflicts) {
	struct sockaddr_in a;
	int l = listener(&a), s = OK(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
	ERR(bind(s, SA(a), sizeof a), EADDRINUSE);
	OK(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	ERR(bind(s, SA(a), sizeof a), EADDRINUSE);
	OK(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	ERR(bind(s, SA(a), sizeof a), EADDRINUSE); /* both may reuse, but one listens */
	struct sockaddr_in z = lo(0);
	OK(bind(s, SA(z), sizeof z));
	ERR(bind(s, SA(z), sizeof z), EINVAL);
	EXPECT_NE(name(s).sin_port, 0);
	/* a server restarts with REUSEADDR although old connections linger */
	int c = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(c, SA(a), sizeof a));
	int k = OK(accept(l, NULL, NULL));
	OK(close(l));
	OK(close(k));
	OK(close(c));
	int n = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(setsockopt(n, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	OK(bind(n, SA(a), sizeof a));
	OK(listen(n, 1));
}
TEST(tcp_reuseport) {
	int on = 1, a = OK(socket(AF_INET, SOCK_STREAM, 0)), b = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(setsockopt(a, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
	OK(setsockopt(b, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
	struct sockaddr_in x = lo(0);
	OK(bind(a, SA(x), sizeof x));
	OK(listen(a, 1));
	x = name(a);
	OK(bind(b, SA(x), sizeof x));
	OK(listen(b, 1));
}
TEST(tcp_listen_without_bind) {
	int s = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(listen(s, 1));
	struct sockaddr_in a = name(s);
	EXPECT_NE(a.sin_port, 0);
	EXPECT_EQ(a.sin_addr.s_addr, 0);
	int c = OK(socket(AF_INET, SOCK_STREAM, 0));
	a = lo(ntohs(a.sin_port));
	OK(connect(c, SA(a), sizeof a));
	int k = OK(accept(s, NULL, NULL));
	EXPECT_EQ(name(k).sin_addr.s_addr, htonl(INADDR_LOOPBACK));
}
TEST(tcp_rcvtimeo) {
	int s[2];
	tcp(s);
	struct timeval tv = {0, 60000};
	OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	char b;
	int64_t t = now_ms();
	ERR(read(s[0], &b, 1), EAGAIN);
	EXPECT_GE(now_ms() - t, 50);
}
TEST(tcp_options) {
	int s[2], v = 1;
	socklen_t l = sizeof v;
	tcp(s);
	OK(setsockopt(s[0], IPPROTO_TCP, TCP_NODELAY, &v, sizeof v));
	v = 0;
	OK(getsockopt(s[0], IPPROTO_TCP, TCP_NODELAY, &v, &l));
	EXPECT_EQ(v, 1);
	OK(setsockopt(s[0], SOL_SOCKET, SO_KEEPALIVE, &v, sizeof v));
	v = 77;
	OK(setsockopt(s[0], IPPROTO_TCP, TCP_KEEPIDLE, &v, sizeof v));
	v = 0;
	OK(getsockopt(s[0], IPPROTO_TCP, TCP_KEEPIDLE, &v, &l));
	EXPECT_EQ(v, 77);
	struct tcp_info ti;
	l = sizeof ti;
	OK(getsockopt(s[0], IPPROTO_TCP, TCP_INFO, &ti, &l));
	EXPECT_EQ(ti.tcpi_state, TCP_ESTABLISHED);
	l = sizeof v;
	OK(getsockopt(s[0], SOL_SOCKET, SO_RCVBUF, &v, &l));
	EXPECT_GT(v, 1000);
	OK(getsockopt(s[0], SOL_SOCKET, SO_PROTOCOL, &v, &l));
	EXPECT_EQ(v, IPPROTO_TCP);
	OK(getsockopt(s[0], IPPROTO_TCP, TCP_MAXSEG, &v, &l));
	EXPECT_GT(v, 500);
	ERR(setsockopt(s[0], IPPROTO_TCP, 9999, &v, 4), ENOPROTOOPT);
	ERR(getsockopt(s[0], SOL_SOCKET, 9999, &v, &l), ENOPROTOOPT);
}
TEST(tcp_large_transfer) {
	int s[2];
	tcp(s);
	size_t n = 4 << 20;
	char *d = malloc(n), *e = malloc(n + 1);
	for (size_t i = 0; i < n; i++) d[i] = i * 17 + (i >> 9);
	pid_t c = CHILD(close(s[1]); size_t o = 0; while (o < n) o += OK(write(s[0], d + o, n - o)); close(s[0]));
	close(s[0]);
	size_t g = 0;
	ssize_t r;
	while ((r = OK(read(s[1], e + g, 100000 < n + 1 - g ? 100000 : n + 1 - g))) > 0) g += r;
	EXPECT_EQ(g, n);
	EXPECT_MEM(d, e, n);
	EXPECT_EXIT(c, 0);
}
TEST(tcp_nonblocking_fill) {
	int s[2];
	tcp(s);
	OK(fcntl(s[0], F_SETFL, O_NONBLOCK));
	char b[65536] = {0};
	size_t tot = 0;
	ssize_t r;
	while ((r = write(s[0], b, sizeof b)) > 0) { tot += r; EXPECT_LT(tot, 64 << 20); }
	EXPECT_EQ(errno, EAGAIN);
	struct pollfd p = {s[0], POLLOUT, 0};
	EXPECT_EQ(poll(&p, 1, 0), 0);
	while (tot > 0) { r = OK(read(s[1], b, sizeof b)); tot -= r; }
	EXPECT_EQ(poll(&p, 1, 1000), 1);
}
TEST(tcp_sendfile_and_splice) {
	int s[2];
	tcp(s);
	char *d = malloc(100001);
	for (int i = 0; i < 100000; i++) d[i] = 'a' + i % 26;
	h_put(__FILE__, __LINE__, "f", d, 100000);
	int fd = OK(open("f", O_RDONLY));
	pid_t c = CHILD(off_t o = 0; while (o < 100000) OK(sendfile(s[0], fd, &o, 100000 - o)));
	char *e = malloc(100001);
	EXPECT_EQ(recv(s[1], e, 100000, MSG_WAITALL), 100000);
	EXPECT_MEM(d, e, 100000);
	EXPECT_EXIT(c, 0);
}
TEST(tcp_epoll_et_stream) {
	int s[2], ep = OK(epoll_create1(0));
	tcp(s);
	struct epoll_event e = {.events = EPOLLIN | EPOLLET | EPOLLRDHUP};
	OK(epoll_ctl(ep, EPOLL_CTL_ADD, s[1], &e));
	for (int i = 0; i < 5; i++) {
		OK(write(s[0], "x", 1));
		EXPECT_EQ(epoll_wait(ep, &e, 1, 1000), 1);
		EXPECT_EQ(epoll_wait(ep, &e, 1, 0), 0);
	}
	OK(shutdown(s[0], SHUT_WR));
	EXPECT_EQ(epoll_wait(ep, &e, 1, 1000), 1);
	EXPECT_EQ(e.events, EPOLLIN | EPOLLRDHUP);
}
TEST(tcp_poll_states) {
	int s[2];
	tcp(s);
	struct pollfd p = {s[0], POLLIN | POLLOUT, 0};
	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(p.revents, POLLOUT);
	struct pollfd u = {OK(socket(AF_INET, SOCK_STREAM, 0)), POLLIN | POLLOUT, 0};
	EXPECT_EQ(poll(&u, 1, 0), 1);
	EXPECT_EQ(u.revents, POLLOUT | POLLHUP);
	OK(shutdown(s[1], SHUT_WR));
	OK(shutdown(s[0], SHUT_WR));
	msleep(20);
	EXPECT_EQ(poll(&p, 1, 0), 1);
	EXPECT_EQ(p.revents, POLLIN | POLLOUT | POLLHUP);
}
TEST(tcp_fork_server) {
	struct sockaddr_in a;
	int l = listener(&a);
	pid_t srv = CHILD(for (int i = 0; i < 5; i++) { int s = OK(accept(l, NULL, NULL)); CHILD(char b[8]; ssize_t n; while ((n = read(s, b, 8)) > 0) OK(write(s, b, n))); close(s); } while (wait(NULL) > 0) {});
	for (int i = 0; i < 5; i++) {
		int c = OK(socket(AF_INET, SOCK_STREAM, 0));
		OK(connect(c, SA(a), sizeof a));
		char b[8] = {0};
		OK(write(c, "ping", 4));
		EXPECT_EQ(recv(c, b, 4, MSG_WAITALL), 4);
		EXPECT_STR(b, "ping");
		OK(close(c));
	}
	EXPECT_EXIT(srv, 0);
}
TEST(udp_basic) {
	struct sockaddr_in a, b, f;
	int x = udp(&a), y = udp(&b);
	socklen_t fl = sizeof f;
	char buf[16];
	EXPECT_EQ(sendto(x, "hello", 5, 0, SA(b), sizeof b), 5);
	EXPECT_EQ(sendto(x, "yo", 2, 0, SA(b), sizeof b), 2);
	EXPECT_EQ(recvfrom(y, buf, 3, MSG_TRUNC, SA(f), &fl), 5);
	EXPECT_EQ(f.sin_port, a.sin_port);
	EXPECT_EQ(recv(y, buf, 16, 0), 2);
	ERR(recv(y, buf, 16, MSG_DONTWAIT), EAGAIN);
	ERR(send(x, "x", 1, 0), EDESTADDRREQ);
	EXPECT_EQ(sendto(x, "", 0, 0, SA(b), sizeof b), 0);
	EXPECT_EQ(recv(y, buf, 16, 0), 0);
	char *big = calloc(1, 70000);
	ERR(sendto(x, big, 70000, 0, SA(b), sizeof b), EMSGSIZE);
	EXPECT_EQ(sendto(x, big, 60000, 0, SA(b), sizeof b), 60000);
	EXPECT_EQ(recv(y, big, 70000, 0), 60000);
	int n;
	OK(sendto(x, "abc", 3, 0, SA(b), sizeof b));
	OK(ioctl(y, FIONREAD, &n));
	EXPECT_EQ(n, 3);
}
TEST(udp_connected) {
	struct sockaddr_in a, b, c;
	int x = udp(&a), y = udp(&b), z = udp(&c);
	OK(connect(x, SA(b), sizeof b));
	OK(send(x, "1", 1, 0));
	OK(sendto(z, "no", 2, 0, SA(a), sizeof a)); /* dropped: not from the peer */
	OK(sendto(y, "yes", 3, 0, SA(a), sizeof a));
	char buf[8];
	EXPECT_EQ(recv(x, buf, 8, 0), 3);
	ERR(recv(x, buf, 8, MSG_DONTWAIT), EAGAIN);
	OK(close(y));
	OK(send(x, "2", 1, 0));
	msleep(20);
	ERR(recv(x, buf, 8, MSG_DONTWAIT), ECONNREFUSED);
	struct sockaddr un = {.sa_family = AF_UNSPEC};
	OK(connect(x, &un, sizeof un));
	ERR(send(x, "x", 1, 0), EDESTADDRREQ);
}
TEST(udp_autobind_and_reuse) {
	int s = OK(socket(AF_INET, SOCK_DGRAM, 0)), on = 1;
	EXPECT_EQ(name(s).sin_port, 0);
	struct sockaddr_in b;
	udp(&b);
	OK(sendto(s, "x", 1, 0, SA(b), sizeof b));
	EXPECT_NE(name(s).sin_port, 0);
	int t = OK(socket(AF_INET, SOCK_DGRAM, 0));
	ERR(bind(t, SA(b), sizeof b), EADDRINUSE);
	(void)on;
	struct sockaddr_in any = {.sin_family = AF_INET};
	OK(bind(t, SA(any), sizeof any));
	any = name(t);
	any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	OK(sendto(s, "y", 1, 0, SA(any), sizeof any));
	char c;
	EXPECT_EQ(recv(t, &c, 1, 0), 1);
}
TEST(ipv6_tcp_udp) {
	int l = socket(AF_INET6, SOCK_STREAM, 0);
	if (l < 0) SKIP("no IPv6");
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	if (bind(l, SA(a), sizeof a) < 0 && errno == EADDRNOTAVAIL) SKIP("no ::1");
	OK(listen(l, 2));
	socklen_t al = sizeof a;
	OK(getsockname(l, SA(a), &al));
	EXPECT_EQ(al, sizeof a);
	int c = OK(socket(AF_INET6, SOCK_STREAM, 0));
	OK(connect(c, SA(a), sizeof a));
	int s = OK(accept(l, NULL, NULL));
	OK(write(c, "six", 3));
	char b[8];
	EXPECT_EQ(read(s, b, 8), 3);
	int u = OK(socket(AF_INET6, SOCK_DGRAM, 0)), v = OK(socket(AF_INET6, SOCK_DGRAM, 0));
	a.sin6_port = 0;
	OK(bind(u, SA(a), sizeof a));
	al = sizeof a;
	OK(getsockname(u, SA(a), &al));
	OK(sendto(v, "x", 1, 0, SA(a), sizeof a));
	EXPECT_EQ(recv(u, b, 8, 0), 1);
}
TEST(ipv6_dual_stack) {
	int l = socket(AF_INET6, SOCK_STREAM, 0);
	if (l < 0) SKIP("no IPv6");
	struct sockaddr_in6 a = {.sin6_family = AF_INET6};
	OK(bind(l, SA(a), sizeof a));
	OK(listen(l, 2));
	socklen_t al = sizeof a;
	OK(getsockname(l, SA(a), &al));
	struct sockaddr_in v4 = lo(ntohs(a.sin6_port));
	int c = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(c, SA(v4), sizeof v4));
	al = sizeof a;
	int s = OK(accept(l, SA(a), &al));
	EXPECT_TRUE(IN6_IS_ADDR_V4MAPPED(&a.sin6_addr));
	(void)s;
	int on = 1, o = OK(socket(AF_INET6, SOCK_STREAM, 0));
	OK(setsockopt(o, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
	struct sockaddr_in6 any = {.sin6_family = AF_INET6};
	OK(bind(o, SA(any), sizeof any));
	OK(listen(o, 1));
	al = sizeof any;
	OK(getsockname(o, SA(any), &al));
	v4 = lo(ntohs(any.sin6_port));
	ERR(connect(OK(socket(AF_INET, SOCK_STREAM, 0)), SA(v4), sizeof v4), ECONNREFUSED);
}
TEST(loopback_interface) {
	int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
	struct ifreq r;
	memset(&r, 0, sizeof r);
	strcpy(r.ifr_name, "lo");
	OK(ioctl(s, SIOCGIFFLAGS, &r));
	EXPECT_EQ(r.ifr_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING), IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
	OK(ioctl(s, SIOCGIFADDR, &r));
	EXPECT_EQ(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	OK(ioctl(s, SIOCGIFINDEX, &r));
	EXPECT_EQ(r.ifr_ifindex, 1);
	strcpy(r.ifr_name, "nope0");
	ERR(ioctl(s, SIOCGIFFLAGS, &r), ENODEV);
	EXPECT_EQ(if_nametoindex("lo"), 1);
}
TEST(any_127_address) {
	int l = OK(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in a = lo(0);
	a.sin_addr.s_addr = inet_addr("127.1.2.3");
	OK(bind(l, SA(a), sizeof a));
	OK(listen(l, 1));
	a = name(l);
	int c = OK(socket(AF_INET, SOCK_STREAM, 0));
	OK(connect(c, SA(a), sizeof a));
	struct sockaddr_in b = lo(ntohs(a.sin_port));
	ERR(connect(OK(socket(AF_INET, SOCK_STREAM, 0)), SA(b), sizeof b), ECONNREFUSED);
}
TEST(shutdown_wakes_reader) {
	int s[2];
	tcp(s);
	pid_t c = CHILD(msleep(40); OK(shutdown(s[0], SHUT_RDWR)));
	char b;
	EXPECT_EQ(read(s[0], &b, 1), 0);
	EXPECT_EXIT(c, 0);
}
MAIN()
