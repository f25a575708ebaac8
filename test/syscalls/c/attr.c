/* chmod, chown, utimensat, getdents, xattr. */
#include "harness.h"
#include <sys/xattr.h>

static mode_t mode_of(const char *p) {
	struct stat st;
	OK(lstat(p, &st));
	return st.st_mode & 07777;
}

TEST(chmod_basic) {
	PUT("f", "");
	OK(chmod("f", 04755));
	EXPECT_EQ(mode_of("f"), 04755);
	int fd = OK(open("f", O_RDONLY));
	OK(fchmod(fd, 0600));
	EXPECT_EQ(mode_of("f"), 0600);
	OK(chmod("f", 0177644));
	EXPECT_EQ(mode_of("f"), 07644);
	OK(symlink("f", "l"));
	OK(chmod("l", 0640));
	EXPECT_EQ(mode_of("f"), 0640);
	EXPECT_EQ(mode_of("l"), 0777);
	ERR(chmod("none", 0600), ENOENT);
	ERR(fchmod(-1, 0600), EBADF);
	OK(fchmodat(AT_FDCWD, "f", 0600, 0));
	IN_CHILD(OK(chmod(".", 0755)); OK(setresuid(777, 777, 777)); ERR(chmod("f", 0777), EPERM); ERR(fchmod(fd, 0777), EPERM));
}
TEST(chmod_drops_setgid) {
	PUT("f", "");
	OK(chown("f", 777, 888));
	IN_CHILD(OK(setgroups(0, NULL)); OK(setresgid(777, 777, 777)); OK(setresuid(777, 777, 777)); OK(chmod("f", 06755)); EXPECT_EQ(mode_of("f"), 04755));
}
TEST(chown_basic) {
	PUT("f", "");
	struct stat st;
	OK(chown("f", 11, 22));
	OK(stat("f", &st));
	EXPECT_EQ(st.st_uid, 11);
	EXPECT_EQ(st.st_gid, 22);
	OK(chown("f", -1, 33));
	OK(stat("f", &st));
	EXPECT_EQ(st.st_uid, 11);
	EXPECT_EQ(st.st_gid, 33);
	OK(symlink("f", "l"));
	OK(lchown("l", 44, 44));
	OK(lstat("l", &st));
	EXPECT_EQ(st.st_uid, 44);
	OK(stat("f", &st));
	EXPECT_EQ(st.st_uid, 11);
	int fd = OK(open("f", O_RDONLY));
	OK(fchown(fd, 0, 0));
	OK(fchownat(AT_FDCWD, "l", 55, 55, AT_SYMLINK_NOFOLLOW));
	OK(fchownat(fd, "", 66, 66, AT_EMPTY_PATH));
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_uid, 66);
	ERR(fchownat(AT_FDCWD, "f", 0, 0, 0x8000000), EINVAL);
	ERR(chown("none", 0, 0), ENOENT);
}
TEST(chown_clears_suid) {
	PUT("f", "");
	OK(chmod("f", 06755));
	OK(chown("f", 1, 1));
	EXPECT_EQ(mode_of("f"), 0755);
	OK(chmod("f", 06745));
	OK(chown("f", 1, 1));
	/* setgid without group execute means mandatory locking and stays. */
	EXPECT_EQ(mode_of("f"), 02745);
	OK(mkdir("d", 0755));
	OK(chmod("d", 06755));
	OK(chown("d", 1, 1));
	EXPECT_EQ(mode_of("d"), 06755);
}
TEST(write_clears_suid) {
	PUT("f", "");
	OK(chmod("f", 06777));
	OK(chmod(".", 0755));
	IN_CHILD(OK(setresuid(777, 777, 777)); int fd = OK(open("f", O_WRONLY)); OK(write(fd, "x", 1)));
	EXPECT_EQ(mode_of("f"), 0777);
}
TEST(chown_as_user) {
	PUT("f", "");
	OK(chown("f", 777, 777));
	OK(chmod(".", 0755));
	gid_t g = 999;
	IN_CHILD(OK(setgroups(1, &g)); OK(setresgid(777, 777, 777)); OK(setresuid(777, 777, 777));
		ERR(chown("f", 0, -1), EPERM); OK(chown("f", 777, 777)); OK(chown("f", -1, 999)); OK(chown("f", -1, -1)); ERR(chown("f", -1, 5), EPERM));
	IN_CHILD(OK(setresuid(778, 778, 778)); ERR(chown("f", 778, -1), EPERM));
}
TEST(utimens_set) {
	PUT("f", "");
	struct timespec ts[2] = {{1000, 123456789}, {2000, 987654321}};
	OK(utimensat(AT_FDCWD, "f", ts, 0));
	struct stat st;
	OK(stat("f", &st));
	EXPECT_EQ(st.st_atim.tv_sec, 1000);
	EXPECT_EQ(st.st_mtim.tv_sec, 2000);
	EXPECT_EQ(st.st_mtim.tv_nsec, 987654321);
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1].tv_sec = 3000;
	ts[1].tv_nsec = 0;
	int fd = OK(open("f", O_RDONLY));
	OK(futimens(fd, ts));
	OK(stat("f", &st));
	EXPECT_EQ(st.st_atim.tv_sec, 1000);
	EXPECT_EQ(st.st_mtim.tv_sec, 3000);
	ts[0].tv_nsec = UTIME_NOW;
	ts[1].tv_nsec = UTIME_OMIT;
	OK(futimens(fd, ts));
	OK(stat("f", &st));
	EXPECT_GT(st.st_atim.tv_sec, 1000000);
	EXPECT_EQ(st.st_mtim.tv_sec, 3000);
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	OK(stat("f", &st));
	EXPECT_GT(st.st_mtim.tv_sec, 1000000);
	ts[0].tv_nsec = 1000000000;
	ERR(futimens(fd, ts), EINVAL);
	ERR(utimensat(AT_FDCWD, "none", NULL, 0), ENOENT);
	ERR(utimensat(AT_FDCWD, "f", NULL, 0x4000), EINVAL);
	struct timeval tv[2] = {{1, 2}, {3, 4}};
	OK(utimes("f", tv));
	OK(stat("f", &st));
	EXPECT_EQ(st.st_mtim.tv_nsec, 4000);
	tv[0].tv_usec = 1000000;
	ERR(utimes("f", tv), EINVAL);
}
TEST(utimens_links_and_perms) {
	PUT("f", "");
	OK(symlink("f", "l"));
	OK(chmod(".", 0755));
	struct timespec ts[2] = {{5, 0}, {6, 0}};
	OK(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
	struct stat st;
	OK(lstat("l", &st));
	EXPECT_EQ(st.st_mtim.tv_sec, 6);
	OK(stat("f", &st));
	EXPECT_NE(st.st_mtim.tv_sec, 6);
	OK(chmod("f", 0666));
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(utimensat(AT_FDCWD, "f", ts, 0), EPERM); OK(utimensat(AT_FDCWD, "f", NULL, 0)));
	OK(chmod("f", 0644));
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(utimensat(AT_FDCWD, "f", NULL, 0), EACCES));
}
struct ld { ino64_t ino; off64_t off; unsigned short len; unsigned char type; char name[]; };
TEST(getdents_types) {
	PUT("f", "");
	OK(mkdir("d", 0755));
	OK(symlink("f", "l"));
	OK(mkfifo("p", 0644));
	int fd = OK(open(".", O_RDONLY | O_DIRECTORY));
	char b[4096];
	int seen = 0;
	long n;
	while ((n = OK(syscall(SYS_getdents64, fd, b, sizeof b))) > 0)
		for (long o = 0; o < n;) {
			struct ld *e = (void *)(b + o);
			EXPECT_EQ(e->len % 8, 0);
			EXPECT_NE(e->ino, 0);
			if (!strcmp(e->name, ".") || !strcmp(e->name, "..")) { EXPECT_EQ(e->type, DT_DIR); seen += 1; }
			if (!strcmp(e->name, "f")) { EXPECT_EQ(e->type, DT_REG); seen += 10; struct stat st; OK(stat("f", &st)); EXPECT_EQ(st.st_ino, e->ino); }
			if (!strcmp(e->name, "d")) { EXPECT_EQ(e->type, DT_DIR); seen += 100; }
			if (!strcmp(e->name, "l")) { EXPECT_EQ(e->type, DT_LNK); seen += 1000; }
			if (!strcmp(e->name, "p")) { EXPECT_EQ(e->type, DT_FIFO); seen += 10000; }
			o += e->len;
		}
	EXPECT_EQ(seen, 11112);
	EXPECT_EQ(syscall(SYS_getdents64, fd, b, sizeof b), 0);
}
TEST(getdents_errors) {
	PUT("f", "");
	char b[256];
	int f = OK(open("f", O_RDONLY)), d = OK(open(".", O_RDONLY));
	ERR(syscall(SYS_getdents64, f, b, 256), ENOTDIR);
	ERR(syscall(SYS_getdents64, -1, b, 256), EBADF);
	ERR(syscall(SYS_getdents64, d, b, 4), EINVAL);
	ERR(syscall(SYS_getdents64, d, (void *)8, 256), EFAULT);
	OK(mkdir("x", 0755));
	d = OK(open("x", O_RDONLY));
	OK(rmdir("x"));
	ERR(syscall(SYS_getdents64, d, b, 256), ENOENT);
}
TEST(getdents_seek) {
	char n[32];
	for (int i = 0; i < 50; i++) { snprintf(n, sizeof n, "file%02d", i); PUT(n, ""); }
	DIR *d = opendir(".");
	char names[64][16];
	long tell[64];
	int c = 0;
	struct dirent *e;
	for (;;) {
		tell[c] = telldir(d);
		if (!(e = readdir(d))) break;
		snprintf(names[c++], 16, "%.15s", e->d_name);
	}
	EXPECT_EQ(c, 52);
	seekdir(d, tell[20]);
	EXPECT_STR(readdir(d)->d_name, names[20]);
	seekdir(d, tell[3]);
	EXPECT_STR(readdir(d)->d_name, names[3]);
	rewinddir(d);
	EXPECT_STR(readdir(d)->d_name, names[0]);
	/* small buffers lose nothing */
	int fd = OK(open(".", O_RDONLY)), k = 0;
	char b[64];
	long r;
	while ((r = OK(syscall(SYS_getdents64, fd, b, sizeof b))) > 0)
		for (long o = 0; o < r; o += ((struct ld *)(b + o))->len) k++;
	EXPECT_EQ(k, 52);
}
TEST(readdir_while_deleting) {
	char n[32];
	for (int i = 0; i < 300; i++) { snprintf(n, sizeof n, "f%03d", i); PUT(n, ""); }
	DIR *d = opendir(".");
	struct dirent *e;
	while ((e = readdir(d))) if (e->d_name[0] == 'f') OK(unlink(e->d_name));
	rewinddir(d);
	int c = 0;
	while (readdir(d)) c++;
	EXPECT_EQ(c, 2);
}
TEST(readdir_sees_new_after_rewind) {
	DIR *d = opendir(".");
	while (readdir(d)) {}
	PUT("new", "");
	rewinddir(d);
	int c = 0;
	while (readdir(d)) c++;
	EXPECT_EQ(c, 3);
}
static void xattr_support(void) {
	PUT("f", "");
	if (setxattr("f", "user.probe", "x", 1, 0) < 0 && errno == EOPNOTSUPP) SKIP("no user xattrs here");
	OK(removexattr("f", "user.probe"));
}
TEST(xattr_basic) {
	xattr_support();
	char b[64];
	OK(setxattr("f", "user.a", "hello", 5, 0));
	EXPECT_EQ(getxattr("f", "user.a", b, 64), 5);
	EXPECT_MEM(b, "hello", 5);
	EXPECT_EQ(getxattr("f", "user.a", NULL, 0), 5);
	ERR(getxattr("f", "user.a", b, 2), ERANGE);
	ERR(getxattr("f", "user.none", b, 64), ENODATA);
	ERR(setxattr("f", "user.a", "x", 1, XATTR_CREATE), EEXIST);
	ERR(setxattr("f", "user.b", "x", 1, XATTR_REPLACE), ENODATA);
	ERR(setxattr("f", "user.b", "x", 1, 8), EINVAL);
	OK(setxattr("f", "user.a", "longer value", 12, XATTR_REPLACE));
	OK(setxattr("f", "user.empty", "", 0, 0));
	EXPECT_EQ(getxattr("f", "user.empty", b, 64), 0);
	EXPECT_EQ(listxattr("f", b, 64), strlen("user.a") + strlen("user.empty") + 2);
	EXPECT_EQ(listxattr("f", NULL, 0), 18);
	ERR(listxattr("f", b, 3), ERANGE);
	OK(removexattr("f", "user.a"));
	ERR(removexattr("f", "user.a"), ENODATA);
	int fd = OK(open("f", O_RDONLY));
	OK(fsetxattr(fd, "user.c", "1", 1, 0));
	EXPECT_EQ(fgetxattr(fd, "user.c", b, 64), 1);
	OK(fremovexattr(fd, "user.c"));
}
TEST(xattr_errors) {
	xattr_support();
	char b[300];
	ERR(setxattr("f", "nonamespace", "x", 1, 0), EOPNOTSUPP);
	ERR(getxattr("none", "user.a", b, 1), ENOENT);
	ERR(setxattr("f", "", "x", 1, 0), ERANGE);
	memset(b, 'a', 299);
	memcpy(b, "user.", 5);
	b[299] = 0;
	ERR(setxattr("f", b, "x", 1, 0), ERANGE);
	ERR(setxattr("f", "user.big", b, 70000, 0), E2BIG);
	OK(symlink("f", "l"));
	ERR(lsetxattr("l", "user.a", "x", 1, 0), EPERM);
	OK(setxattr("l", "user.a", "x", 1, 0));
	ERR(lgetxattr("l", "user.a", b, 1), ENODATA);
	OK(chmod(".", 0755));
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(setxattr("f", "user.z", "x", 1, 0), EACCES); ERR(getxattr("f", "trusted.z", b, 1), ENODATA));
	OK(setxattr("f", "trusted.x", "y", 1, 0));
	EXPECT_EQ(getxattr("f", "trusted.x", b, 8), 1);
}
MAIN()
