/* link, rename, renameat2, unlink, mkdir, rmdir, symlink, chdir, getcwd, chroot. */
#include "harness.h"

static long renameat2_(int a, const char *o, int b, const char *n, unsigned f) { return syscall(SYS_renameat2, a, o, b, n, f); }

TEST(link_basic) {
	PUT("a", "data");
	OK(link("a", "b"));
	struct stat x, y;
	OK(stat("a", &x));
	OK(stat("b", &y));
	EXPECT_EQ(x.st_ino, y.st_ino);
	EXPECT_EQ(x.st_nlink, 2);
	OK(unlink("a"));
	OK(stat("b", &y));
	EXPECT_EQ(y.st_nlink, 1);
	EXPECT_STR(SLURP("b"), "data");
	ERR(link("b", "b"), EEXIST);
	ERR(link("none", "c"), ENOENT);
	ERR(link("b", "nodir/c"), ENOENT);
	OK(mkdir("d", 0755));
	ERR(link("d", "e"), EPERM);
	ERR(link("b", "c/"), ENOENT);
}
TEST(link_symlink) {
	PUT("f", "x");
	OK(symlink("f", "l"));
	struct stat st;
	OK(link("l", "m"));
	OK(lstat("m", &st));
	EXPECT_TRUE(S_ISLNK(st.st_mode));
	OK(linkat(AT_FDCWD, "l", AT_FDCWD, "n", AT_SYMLINK_FOLLOW));
	OK(lstat("n", &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	ERR(linkat(AT_FDCWD, "l", AT_FDCWD, "o", 0x8000), EINVAL);
}
TEST(link_cross_mount) {
	PUT("f", "x");
	ERR(link("f", "/dev/shm/f"), EXDEV);
	ERR(rename("f", "/dev/shm/f"), EXDEV);
	ERR(link("/proc/self/status", "s"), EXDEV);
}
TEST(unlink_errors) {
	ERR(unlink("none"), ENOENT);
	OK(mkdir("d", 0755));
	ERR(unlink("d"), EISDIR);
	PUT("f", "");
	ERR(unlink("f/"), ENOTDIR);
	ERR(unlink("f/x"), ENOTDIR);
	ERR(unlink(""), ENOENT);
	ERR(rmdir("f"), ENOTDIR);
	OK(symlink("f", "l"));
	OK(unlink("l"));
	OK(access("f", F_OK));
	OK(symlink("d", "dl"));
	ERR(rmdir("dl"), ENOTDIR);
	OK(unlink("dl"));
	OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
	ERR(unlinkat(AT_FDCWD, "f", 1), EINVAL);
}
TEST(rmdir_errors) {
	OK(mkdir("d", 0755));
	PUT("d/f", "");
	ERR(rmdir("d"), ENOTEMPTY);
	ERR(rmdir("d/."), EINVAL);
	ERR(rmdir("d/.."), ENOTEMPTY);
	ERR(rmdir("none"), ENOENT);
	ERR(rmdir("/"), EBUSY);
	OK(unlink("d/f"));
	OK(rmdir("d/"));
	ERR(rmdir("d"), ENOENT);
}
TEST(mkdir_errors) {
	OK(mkdir("d", 0755));
	ERR(mkdir("d", 0755), EEXIST);
	ERR(mkdir("d/", 0755), EEXIST);
	ERR(mkdir("/", 0755), EEXIST);
	ERR(mkdir(".", 0755), EEXIST);
	ERR(mkdir("d/..", 0755), EEXIST);
	ERR(mkdir("x/y", 0755), ENOENT);
	PUT("f", "");
	ERR(mkdir("f", 0755), EEXIST);
	ERR(mkdir("f/x", 0755), ENOTDIR);
	OK(symlink("none", "l"));
	ERR(mkdir("l", 0755), EEXIST);
	OK(mkdir("e/", 0700));
	ERR(mkdir("", 0755), ENOENT);
}
TEST(setgid_dir_inherits) {
	OK(mkdir("d", 0755));
	OK(chown("d", 0, 4242));
	OK(chmod("d", 02755));
	PUT("d/f", "");
	OK(mkdir("d/s", 0755));
	struct stat st;
	OK(stat("d/f", &st));
	EXPECT_EQ(st.st_gid, 4242);
	OK(stat("d/s", &st));
	EXPECT_EQ(st.st_gid, 4242);
	EXPECT_EQ(st.st_mode & 07777, 02755);
}
TEST(sticky_dir) {
	OK(mkdir("t", 0777));
	OK(chmod("t", 01777));
	OK(chmod(".", 0755));
	PUT("t/root", "");
	PUT("t/mine", "");
	OK(chown("t/mine", 777, 777));
	IN_CHILD(OK(setresuid(777, 777, 777)); ERR(unlink("t/root"), EPERM); ERR(rename("t/root", "t/x"), EPERM); ERR(rename("t/mine", "t/root"), EPERM); OK(rename("t/mine", "t/y")); OK(unlink("t/y")));
}
TEST(rename_basic) {
	PUT("a", "1");
	PUT("b", "2");
	OK(rename("a", "c"));
	ERR(access("a", F_OK), ENOENT);
	OK(rename("c", "b"));
	EXPECT_STR(SLURP("b"), "1");
	OK(rename("b", "b"));
	ERR(rename("none", "b"), ENOENT);
	ERR(rename("b", "nodir/x"), ENOENT);
	ERR(rename("b", "b/x"), ENOTDIR);
	OK(link("b", "h"));
	/* Two names of one file: rename does nothing. */
	OK(rename("b", "h"));
	OK(access("b", F_OK));
	OK(access("h", F_OK));
}
TEST(rename_dirs) {
	OK(mkdir("d", 0755));
	OK(mkdir("d/sub", 0755));
	OK(mkdir("e", 0755));
	PUT("f", "");
	ERR(rename("d", "d/sub/x"), EINVAL);
	ERR(rename("d", "d/x"), EINVAL);
	ERR(rename("d/sub", "d"), ENOTEMPTY);
	ERR(rename("d", "f"), ENOTDIR);
	ERR(rename("f", "d"), EISDIR);
	ERR(rename("e", "d"), ENOTEMPTY);
	OK(rename("d", "e"));
	OK(access("e/sub", F_OK));
	ERR(rename("e/.", "x"), EBUSY);
	ERR(rename("e", "e/sub/.."), EBUSY);
	ERR(rename("f", "g/"), ENOTDIR);
	OK(rename("e/", "g/"));
	OK(access("g/sub", F_OK));
	OK(rename("g/sub", "sub"));
	struct stat a, b;
	OK(stat(".", &a));
	OK(stat("sub/..", &b));
	EXPECT_EQ(a.st_ino, b.st_ino);
}
TEST(rename_keeps_open_file) {
	PUT("a", "old");
	PUT("b", "new");
	int fd = OK(open("a", O_RDWR));
	OK(rename("b", "a"));
	char buf[4];
	EXPECT_EQ(read(fd, buf, 4), 3);
	EXPECT_MEM(buf, "old", 3);
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_nlink, 0);
	EXPECT_STR(SLURP("a"), "new");
}
TEST(renameat2_noreplace) {
	PUT("a", "1");
	PUT("b", "2");
	ERR(renameat2_(AT_FDCWD, "a", AT_FDCWD, "b", 1), EEXIST);
	OK(renameat2_(AT_FDCWD, "a", AT_FDCWD, "c", 1));
	ERR(renameat2_(AT_FDCWD, "c", AT_FDCWD, "c", 1), EEXIST);
	ERR(renameat2_(AT_FDCWD, "c", AT_FDCWD, "b", 3), EINVAL);
	ERR(renameat2_(AT_FDCWD, "c", AT_FDCWD, "b", 16), EINVAL);
}
TEST(renameat2_exchange) {
	PUT("a", "1");
	OK(mkdir("d", 0755));
	PUT("d/x", "2");
	OK(renameat2_(AT_FDCWD, "a", AT_FDCWD, "d", 2));
	EXPECT_STR(SLURP("d"), "1");
	EXPECT_STR(SLURP("a/x"), "2");
	ERR(renameat2_(AT_FDCWD, "a", AT_FDCWD, "none", 2), ENOENT);
	ERR(renameat2_(AT_FDCWD, "a", AT_FDCWD, "a/x", 2), EINVAL);
}
TEST(rename_symlink_itself) {
	PUT("f", "x");
	OK(symlink("f", "l"));
	OK(rename("l", "m"));
	char b[8];
	EXPECT_EQ(readlink("m", b, 8), 1);
	PUT("g", "y");
	OK(rename("g", "m"));
	EXPECT_STR(SLURP("f"), "x");
	EXPECT_STR(SLURP("m"), "y");
}
TEST(dir_perm_errors) {
	OK(chmod(".", 0755));
	PUT("f", "");
	OK(mkdir("d", 0755));
	OK(setresuid(777, 777, 777));
	ERR(unlink("f"), EACCES);
	ERR(rename("f", "g"), EACCES);
	ERR(mkdir("x", 0755), EACCES);
	ERR(mkdir("d", 0755), EEXIST);
	ERR(rmdir("d"), EACCES);
	ERR(link("f", "h"), EPERM); /* fs.protected_hardlinks */
	ERR(symlink("a", "b"), EACCES);
	ERR(unlink("none"), ENOENT);
}
TEST(getcwd_chdir) {
	char a[PATH_MAX], b[PATH_MAX];
	EXPECT_TRUE(getcwd(a, sizeof a) != NULL);
	OK(mkdir("d", 0755));
	OK(chdir("d"));
	EXPECT_TRUE(getcwd(b, sizeof b) != NULL);
	strcat(a, "/d");
	EXPECT_STR(b, a);
	EXPECT_EQ(syscall(SYS_getcwd, b, sizeof b), strlen(a) + 1);
	ERR(syscall(SYS_getcwd, b, 3), ERANGE);
	ERR(syscall(SYS_getcwd, (void *)8, 4096), EFAULT);
	OK(rmdir("../d"));
	ERR(syscall(SYS_getcwd, b, sizeof b), ENOENT);
	ERR(open("x", O_CREAT | O_WRONLY, 0644), ENOENT);
	ERR(mkdir("x", 0755), ENOENT);
	OK(chdir(".."));
	ERR(chdir("none"), ENOENT);
	PUT("f", "");
	ERR(chdir("f"), ENOTDIR);
	int fd = OK(open("f", O_RDONLY));
	ERR(fchdir(fd), ENOTDIR);
	ERR(fchdir(-1), EBADF);
}
TEST(cwd_follows_rename) {
	OK(mkdir("a", 0755));
	OK(chdir("a"));
	OK(rename("../a", "../b"));
	char b[PATH_MAX];
	EXPECT_TRUE(getcwd(b, sizeof b) != NULL);
	EXPECT_STR(strrchr(b, '/'), "/b");
	IN_CHILD(OK(chdir(".."));); /* the child's directory is its own */
	EXPECT_TRUE(getcwd(b, sizeof b) != NULL);
	EXPECT_STR(strrchr(b, '/'), "/b");
}
TEST(chroot_jail) {
	OK(mkdir("r", 0755));
	OK(mkdir("r/in", 0755));
	PUT("r/in/f", "x");
	PUT("out", "y");
	OK(symlink("/in/f", "r/abs"));
	OK(symlink("../../../../../in/f", "r/up"));
	IN_CHILD(
		OK(chroot("r")); OK(chdir("/"));
		OK(access("/in/f", F_OK)); OK(access("/abs", F_OK)); OK(access("up", F_OK));
		ERR(access("/out", F_OK), ENOENT); ERR(access("../out", F_OK), ENOENT);
		char b[64]; EXPECT_TRUE(getcwd(b, 64) != NULL); EXPECT_STR(b, "/"));
	/* Without chdir, the working directory stays outside, and getcwd says so. */
	IN_CHILD(OK(chroot("r")); OK(access("out", F_OK)); char b[PATH_MAX]; long n = syscall(SYS_getcwd, b, sizeof b); EXPECT_GT(n, 0); EXPECT_EQ(strncmp(b, "(unreachable)", 13), 0));
	ERR(chroot("none"), ENOENT);
	ERR(chroot("out"), ENOTDIR);
	OK(setresuid(777, 777, 777));
	ERR(chroot("/"), EPERM);
}
TEST(many_entries_and_depth) {
	char n[32];
	for (int i = 0; i < 500; i++) {
		snprintf(n, sizeof n, "f%d", i);
		PUT(n, n);
	}
	for (int i = 0; i < 500; i += 2) {
		snprintf(n, sizeof n, "f%d", i);
		OK(unlink(n));
	}
	int c = 0;
	DIR *d = opendir(".");
	while (readdir(d)) c++;
	EXPECT_EQ(c, 252);
	for (int i = 0; i < 100; i++) {
		OK(mkdir("dd", 0755));
		OK(chdir("dd"));
	}
	PUT("deep", "x");
	for (int i = 0; i < 100; i++) OK(chdir(".."));
	OK(access("f1", F_OK));
}
MAIN()
