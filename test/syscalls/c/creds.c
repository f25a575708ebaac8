/* User and group ids, capabilities, no_new_privs. */
#include "harness.h"
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

static void ids(uid_t r, uid_t e, uid_t s) {
	uid_t a, b, c;
	OK(getresuid(&a, &b, &c));
	EXPECT_EQ(a, r);
	EXPECT_EQ(b, e);
	EXPECT_EQ(c, s);
}
static void gids(gid_t r, gid_t e, gid_t s) {
	gid_t a, b, c;
	OK(getresgid(&a, &b, &c));
	EXPECT_EQ(a, r);
	EXPECT_EQ(b, e);
	EXPECT_EQ(c, s);
}
struct caps { uint64_t eff, perm, inh; };
static struct caps capget_(pid_t p) {
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, p};
	struct __user_cap_data_struct d[2];
	OK(syscall(SYS_capget, &h, d));
	return (struct caps){d[0].effective | (uint64_t)d[1].effective << 32, d[0].permitted | (uint64_t)d[1].permitted << 32, d[0].inheritable | (uint64_t)d[1].inheritable << 32};
}
static int capset_(struct caps c) {
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{c.eff, c.perm, c.inh}, {c.eff >> 32, c.perm >> 32, c.inh >> 32}};
	return syscall(SYS_capset, &h, d);
}
#define BIT(x) (1ULL << (x))

TEST(setuid_root_drops_all) {
	OK(setuid(777));
	ids(777, 777, 777);
	ERR(setuid(0), EPERM);
	EXPECT_EQ(capget_(0).eff, 0);
	EXPECT_EQ(capget_(0).perm, 0);
	EXPECT_EQ(getuid(), 777);
}
TEST(seteuid_and_back) {
	OK(seteuid(777));
	ids(0, 777, 0);
	EXPECT_EQ(capget_(0).eff, 0);
	EXPECT_NE(capget_(0).perm, 0);
	ERR(open("x", O_CREAT | O_WRONLY, 0600) < 0 ? -1 : 0, EACCES);
	OK(seteuid(0));
	EXPECT_NE(capget_(0).eff, 0);
	OK(open("x", O_CREAT | O_WRONLY, 0600));
}
TEST(setresuid_rules) {
	OK(setresuid(1, 2, 3));
	ids(1, 2, 3);
	OK(setresuid(3, 1, 2));
	ids(3, 1, 2);
	OK(setresuid(-1, 2, -1));
	ids(3, 2, 2);
	ERR(setresuid(4, -1, -1), EPERM);
	OK(setresuid(-1, -1, -1));
}
TEST(setreuid_rules) {
	OK(setreuid(1, 2));
	ids(1, 2, 2);
	ERR(setreuid(3, -1), EPERM);
	OK(setreuid(2, 1));
	ids(2, 1, 1);
	OK(setuid(2));
	ids(2, 2, 1);
}
TEST(setgid_rules) {
	OK(setresgid(10, 11, 12));
	gids(10, 11, 12);
	OK(setresuid(777, 777, 777));
	OK(setregid(11, 10));
	gids(11, 10, 10);
	ERR(setgid(99), EPERM);
	ERR(setgid(12), EPERM);
	OK(setgid(11));
	gids(11, 11, 10);
}
TEST(groups) {
	gid_t g[4] = {5, 6, 7, 5}, o[8];
	OK(setgroups(3, g));
	EXPECT_EQ(getgroups(0, NULL), 3);
	EXPECT_EQ(getgroups(8, o), 3);
	ERR(getgroups(2, o), EINVAL);
	ERR(getgroups(-1, o), EINVAL);
	ERR(syscall(SYS_setgroups, 70000, g), EINVAL);
	ERR(syscall(SYS_setgroups, 2, (void *)8), EFAULT);
	OK(setgroups(0, NULL));
	EXPECT_EQ(getgroups(0, NULL), 0);
	OK(setresuid(777, 777, 777));
	ERR(setgroups(1, g), EPERM);
}
TEST(fsuid) {
	OK(chmod(".", 0755));
	EXPECT_EQ(setfsuid(777), 0);
	EXPECT_EQ(setfsuid(-1), 777);
	ERR(open("f", O_CREAT | O_WRONLY, 0644), EACCES);
	EXPECT_EQ(setfsuid(0), 777);
	OK(open("f", O_CREAT | O_WRONLY, 0644));
	EXPECT_EQ(setfsgid(888), 0);
	int fd = OK(open("g", O_CREAT | O_WRONLY, 0644));
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_gid, 888);
}
TEST(keepcaps) {
	OK(prctl(PR_SET_KEEPCAPS, 1));
	EXPECT_EQ(prctl(PR_GET_KEEPCAPS), 1);
	uint64_t p = capget_(0).perm;
	OK(setresuid(777, 777, 777));
	EXPECT_EQ(capget_(0).perm, p);
	EXPECT_EQ(capget_(0).eff, 0);
	struct caps c = capget_(0);
	c.eff = BIT(CAP_SETUID);
	OK(capset_(c));
	OK(setuid(0));
	ERR(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
}
TEST(capget_capset) {
	struct caps c = capget_(0);
	EXPECT_TRUE(c.eff & BIT(CAP_CHOWN));
	PUT("f", "");
	c.eff &= ~BIT(CAP_CHOWN);
	OK(capset_(c));
	ERR(chown("f", 1, 1), EPERM);
	c.eff |= BIT(CAP_CHOWN);
	OK(capset_(c));
	OK(chown("f", 1, 1));
	c.perm &= ~BIT(CAP_CHOWN);
	ERR(capset_(c), EPERM); /* effective beyond permitted */
	c.eff &= ~BIT(CAP_CHOWN);
	OK(capset_(c));
	c.perm |= BIT(CAP_CHOWN);
	ERR(capset_(c), EPERM);
	struct __user_cap_header_struct h = {0x12345, 0};
	struct __user_cap_data_struct d[2];
	ERR(syscall(SYS_capget, &h, d), EINVAL);
	EXPECT_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
	h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 999999};
	ERR(syscall(SYS_capget, &h, d), ESRCH);
	h.pid = -1;
	ERR(syscall(SYS_capget, &h, d), EINVAL);
	h.pid = getppid();
	ERR(syscall(SYS_capset, &h, d), EPERM);
}
TEST(dac_override) {
	PUT("f", "x");
	OK(chmod("f", 0));
	OK(open("f", O_RDWR));
	struct caps c = capget_(0);
	c.eff &= ~(BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH));
	OK(capset_(c));
	ERR(open("f", O_RDONLY), EACCES);
	OK(chmod("f", 0400));
	OK(open("f", O_RDONLY));
	ERR(open("f", O_WRONLY), EACCES);
}
TEST(bounding_set) {
	EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME) >= 0, 1);
	ERR(prctl(PR_CAPBSET_READ, 63), EINVAL);
	OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
	EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 0);
	EXPECT_TRUE(capget_(0).perm & BIT(CAP_CHOWN));
	ERR(prctl(PR_CAPBSET_DROP, 99), EINVAL);
	OK(setresuid(777, 777, 777));
	ERR(prctl(PR_CAPBSET_DROP, CAP_KILL), EPERM);
}
HELPER(has_chown) { return capget_(0).perm & BIT(CAP_CHOWN) ? 1 : 0; }
TEST(bounding_over_exec) {
	EXPECT_EXIT(CHILD(execl(h_self, h_self, "--helper", "has_chown", NULL)), 1);
	EXPECT_EXIT(CHILD(OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN)); execl(h_self, h_self, "--helper", "has_chown", NULL)), 0);
}
TEST(ambient) {
	ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), EPERM);
	struct caps c = capget_(0);
	c.inh |= BIT(CAP_CHOWN);
	OK(capset_(c));
	OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	EXPECT_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 1);
	OK(prctl(PR_SET_KEEPCAPS, 1));
	OK(setresuid(777, 777, 777));
	OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	EXPECT_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
	OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	EXPECT_EXIT(CHILD(execl(h_self, h_self, "--helper", "has_chown", NULL)), 1);
	OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_CHOWN, 0, 0));
	EXPECT_EXIT(CHILD(execl(h_self, h_self, "--helper", "has_chown", NULL)), 0);
}
TEST(no_new_privs) {
	EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	ERR(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
	ERR(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	IN_CHILD(EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1));
}
TEST(securebits) {
	EXPECT_EQ(prctl(PR_GET_SECUREBITS), 0);
	OK(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP));
	OK(setresuid(777, 777, 777));
	EXPECT_NE(capget_(0).eff, 0);
}
TEST(dumpable) {
	EXPECT_EQ(prctl(PR_GET_DUMPABLE), 1);
	OK(prctl(PR_SET_DUMPABLE, 0));
	EXPECT_EQ(prctl(PR_GET_DUMPABLE), 0);
	ERR(prctl(PR_SET_DUMPABLE, 5), EINVAL);
	OK(prctl(PR_SET_DUMPABLE, 1));
	OK(seteuid(777));
	EXPECT_NE(prctl(PR_GET_DUMPABLE), 1);
}
TEST(signal_permission_by_saved_id) {
	pid_t c = CHILD(OK(setresuid(111, 222, 333)); msleep(300));
	msleep(80);
	IN_CHILD(OK(setresuid(111, 999, 999)); OK(kill(c, 0)));
	IN_CHILD(OK(setresuid(999, 333, 999)); OK(kill(c, 0)));
	IN_CHILD(OK(setresuid(222, 222, 222)); ERR(kill(c, 0), EPERM));
	EXPECT_EXIT(c, 0);
}
TEST(per_thread_ids) {
	/* the raw call changes one thread only */
	pid_t c = CHILD(OK(syscall(SYS_setresuid, 5, 5, 5)); ids(5, 5, 5));
	EXPECT_EXIT(c, 0);
	ids(0, 0, 0);
}
MAIN()
