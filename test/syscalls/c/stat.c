/* stat, lstat, fstat, fstatat, statx, access, faccessat, statfs, readlink. */
#include "harness.h"
#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

TEST(stat_file) {
	PUT("f", "hello");
	struct stat a, b, c;
	OK(stat("f", &a));
	EXPECT_EQ(a.st_size, 5);
	EXPECT_EQ(a.st_nlink, 1);
	EXPECT_EQ(a.st_uid, geteuid());
	EXPECT_EQ(a.st_mode, S_IFREG | 0644);
	EXPECT_GT(a.st_blksize, 0);
	EXPECT_NE(a.st_ino, 0);
	int fd = OK(open("f", O_RDONLY));
	OK(fstat(fd, &b));
	OK(lstat("f", &c));
	EXPECT_EQ(a.st_ino, b.st_ino);
	EXPECT_EQ(a.st_dev, b.st_dev);
	EXPECT_EQ(a.st_ino, c.st_ino);
	PUT("g", "x");
	OK(stat("g", &c));
	EXPECT_NE(a.st_ino, c.st_ino);
	EXPECT_EQ(a.st_dev, c.st_dev);
}
TEST(stat_errors) {
	struct stat st;
	PUT("f", "");
	ERR(stat("none", &st), ENOENT);
	ERR(stat("f/x", &st), ENOTDIR);
	ERR(stat("f/", &st), ENOTDIR);
	ERR(stat("", &st), ENOENT);
	ERR(stat((char *)8, &st), EFAULT);
	ERR(stat("none", (void *)8), ENOENT);
	ERR(syscall(SYS_stat, "f", (void *)8), EFAULT);
	ERR(fstat(-1, &st), EBADF);
	ERR(fstatat(AT_FDCWD, "f", &st, 0x4000000), EINVAL);
	ERR(fstatat(AT_FDCWD, "", &st, 0), ENOENT);
	OK(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
	EXPECT_TRUE(S_ISDIR(st.st_mode));
}
TEST(lstat_links) {
	PUT("f", "hello");
	OK(symlink("f", "l"));
	OK(symlink("a long target that does not exist", "d"));
	struct stat st;
	OK(lstat("l", &st));
	EXPECT_TRUE(S_ISLNK(st.st_mode));
	EXPECT_EQ(st.st_size, 1);
	EXPECT_EQ(st.st_mode & 0777, 0777);
	OK(stat("l", &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	OK(lstat("d", &st));
	EXPECT_EQ(st.st_size, 33);
	ERR(stat("d", &st), ENOENT);
	OK(fstatat(AT_FDCWD, "l", &st, AT_SYMLINK_NOFOLLOW));
	EXPECT_TRUE(S_ISLNK(st.st_mode));
	OK(mkdir("dir", 0755));
	OK(symlink("dir", "dl"));
	OK(lstat("dl/", &st));
	EXPECT_TRUE(S_ISDIR(st.st_mode));
}
TEST(readlink_all) {
	OK(symlink("target", "l"));
	char b[16];
	EXPECT_EQ(readlink("l", b, 16), 6);
	EXPECT_MEM(b, "target", 6);
	EXPECT_EQ(readlink("l", b, 3), 3);
	ERR(readlink("l", b, 0), EINVAL);
	PUT("f", "");
	ERR(readlink("f", b, 16), EINVAL);
	ERR(readlink(".", b, 16), EINVAL);
	ERR(readlink("none", b, 16), ENOENT);
	ERR(readlink("l", (void *)8, 16), EFAULT);
	ERR(readlink("l/", b, 16), ENOENT);
	ERR(symlink("", "x"), ENOENT);
	ERR(symlink("x", "l"), EEXIST);
	ERR(symlink("x", ""), ENOENT);
	char big[5000];
	memset(big, 'a', 4999);
	big[4999] = 0;
	ERR(symlink(big, "x"), ENAMETOOLONG);
}
TEST(dir_nlink) {
	struct stat st;
	OK(mkdir("d", 0755));
	OK(stat("d", &st));
	EXPECT_TRUE(st.st_nlink == 2 || st.st_nlink == 1);
	bool counts = st.st_nlink == 2;
	OK(mkdir("d/a", 0755));
	OK(mkdir("d/b", 0755));
	OK(stat("d", &st));
	EXPECT_EQ(st.st_nlink, counts ? 4 : 1);
	OK(rmdir("d/a"));
	OK(stat("d", &st));
	EXPECT_EQ(st.st_nlink, counts ? 3 : 1);
}
TEST(dot_dot_inodes) {
	struct stat a, b;
	OK(mkdir("d", 0755));
	OK(stat(".", &a));
	OK(stat("d/..", &b));
	EXPECT_EQ(a.st_ino, b.st_ino);
	OK(stat("/", &a));
	OK(stat("/../..", &b));
	EXPECT_EQ(a.st_ino, b.st_ino);
	EXPECT_EQ(a.st_dev, b.st_dev);
}
TEST(statx_basic) {
	PUT("f", "hello");
	struct statx x;
	struct stat st;
	OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
	OK(stat("f", &st));
	EXPECT_EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	EXPECT_EQ(x.stx_size, 5);
	EXPECT_EQ(x.stx_ino, st.st_ino);
	EXPECT_EQ(x.stx_mode, st.st_mode);
	EXPECT_EQ(x.stx_nlink, 1);
	EXPECT_EQ(x.stx_mtime.tv_sec, st.st_mtim.tv_sec);
	EXPECT_EQ(x.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
	EXPECT_EQ(makedev(x.stx_dev_major, x.stx_dev_minor), st.st_dev);
	OK(statx(AT_FDCWD, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
	EXPECT_TRUE(S_ISDIR(x.stx_mode));
	int fd = OK(open("f", O_RDONLY));
	OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &x));
	EXPECT_EQ(x.stx_size, 5);
}
TEST(statx_errors) {
	struct statx x;
	PUT("f", "");
	ERR(statx(AT_FDCWD, "f", 0, 0x80000000, &x), EINVAL);
	ERR(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, 0, &x), EINVAL);
	ERR(statx(AT_FDCWD, "f", 0x1000000, STATX_ALL, &x), EINVAL);
	ERR(statx(AT_FDCWD, "none", 0, STATX_ALL, &x), ENOENT);
	ERR(statx(-1, "f", 0, STATX_ALL, &x), EBADF);
	ERR(statx(AT_FDCWD, "f", 0, STATX_ALL, (void *)8), EFAULT);
	OK(statx(AT_FDCWD, "f", AT_STATX_DONT_SYNC, STATX_ALL, &x));
}
TEST(access_modes) {
	PUT("f", "");
	OK(chmod("f", 0640));
	OK(chmod(".", 0755));
	OK(access("f", F_OK));
	OK(access("f", R_OK | W_OK));
	/* Root may not execute what nobody may. */
	ERR(access("f", X_OK), EACCES);
	OK(access(".", X_OK));
	ERR(access("f", 8), EINVAL);
	ERR(access("none", F_OK), ENOENT);
	ERR(access("f/x", F_OK), ENOTDIR);
	ERR(access((char *)8, F_OK), EFAULT);
	IN_CHILD(OK(setresgid(777, 777, 777)); OK(setresuid(777, 777, 777)); ERR(access("f", R_OK), EACCES); OK(access("f", F_OK)); ERR(access(".", W_OK), EACCES); OK(access(".", R_OK | X_OK)));
	OK(chown("f", 777, 888));
	IN_CHILD(OK(setgroups(0, NULL)); OK(setresgid(777, 777, 777)); OK(setresuid(777, 777, 777)); OK(access("f", R_OK | W_OK)));
	IN_CHILD(OK(setgroups(0, NULL)); OK(setresgid(888, 888, 888)); OK(setresuid(778, 778, 778)); OK(access("f", R_OK)); ERR(access("f", W_OK), EACCES));
	gid_t g = 888;
	IN_CHILD(OK(setgroups(1, &g)); OK(setresgid(9, 9, 9)); OK(setresuid(778, 778, 778)); OK(access("f", R_OK)));
	/* The owner's bits count for the owner, even where the group's would give more. */
	OK(chmod("f", 0070));
	IN_CHILD(OK(setgroups(0, NULL)); OK(setresgid(888, 888, 888)); OK(setresuid(777, 777, 777)); ERR(access("f", R_OK), EACCES));
}
TEST(access_uses_real_ids) {
	PUT("f", "");
	OK(chmod("f", 0600));
	OK(chmod(".", 0755));
	IN_CHILD(OK(setresuid(777, 0, 0)); ERR(access("f", R_OK), EACCES); OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS)); OK(open("f", O_RDONLY)));
	OK(symlink("none", "l"));
	ERR(access("l", F_OK), ENOENT);
	OK(faccessat(AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
	ERR(syscall(SYS_faccessat2, AT_FDCWD, "f", 0, 0x4000000), EINVAL);
	int fd = OK(open("f", O_RDONLY));
	OK(syscall(SYS_faccessat2, fd, "", R_OK, AT_EMPTY_PATH));
}
TEST(times_of_writes) {
	PUT("f", "x");
	struct stat a, b;
	OK(stat("f", &a));
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	EXPECT_TRUE(llabs(now.tv_sec - a.st_mtim.tv_sec) < 5);
	msleep(30);
	int fd = OK(open("f", O_RDWR));
	OK(write(fd, "y", 1));
	OK(fstat(fd, &b));
	EXPECT_TRUE(b.st_mtim.tv_sec > a.st_mtim.tv_sec || b.st_mtim.tv_nsec > a.st_mtim.tv_nsec);
	EXPECT_TRUE(b.st_ctim.tv_sec > a.st_ctim.tv_sec || b.st_ctim.tv_nsec > a.st_ctim.tv_nsec);
	a = b;
	msleep(30);
	OK(fchmod(fd, 0600));
	OK(fstat(fd, &b));
	EXPECT_EQ(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
	EXPECT_TRUE(b.st_ctim.tv_sec > a.st_ctim.tv_sec || b.st_ctim.tv_nsec > a.st_ctim.tv_nsec);
}
TEST(dir_times_on_create_and_unlink) {
	struct stat a, b;
	OK(mkdir("d", 0755));
	OK(stat("d", &a));
	msleep(30);
	PUT("d/f", "");
	OK(stat("d", &b));
	EXPECT_TRUE(memcmp(&a.st_mtim, &b.st_mtim, sizeof a.st_mtim) != 0);
	a = b;
	msleep(30);
	OK(unlink("d/f"));
	OK(stat("d", &b));
	EXPECT_TRUE(memcmp(&a.st_mtim, &b.st_mtim, sizeof a.st_mtim) != 0);
	a = b;
	ERR(unlink("d/f"), ENOENT);
	OK(stat("d", &b));
	EXPECT_TRUE(memcmp(&a.st_mtim, &b.st_mtim, sizeof a.st_mtim) == 0);
}
TEST(statfs_all) {
	struct statfs s, t;
	OK(statfs(".", &s));
	EXPECT_GT(s.f_bsize, 0);
	EXPECT_EQ(s.f_namelen, 255);
	int fd = OK(open(".", O_RDONLY));
	OK(fstatfs(fd, &t));
	EXPECT_EQ(s.f_type, t.f_type);
	OK(statfs("/proc", &s));
	EXPECT_EQ(s.f_type, 0x9fa0);
	ERR(statfs("none", &s), ENOENT);
	ERR(fstatfs(-1, &s), EBADF);
	int p[2];
	OK(pipe(p));
	OK(fstatfs(p[0], &s));
	EXPECT_EQ(s.f_type, 0x50495045);
	struct statvfs v;
	OK(statvfs(".", &v));
}
TEST(stat_special) {
	struct stat st;
	int p[2];
	OK(pipe(p));
	OK(fstat(p[0], &st));
	EXPECT_TRUE(S_ISFIFO(st.st_mode));
	EXPECT_EQ(st.st_mode & 0777, 0600);
	OK(stat("/dev/null", &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(st.st_rdev, makedev(1, 3));
	OK(stat("/dev/zero", &st));
	EXPECT_EQ(st.st_rdev, makedev(1, 5));
	OK(stat("/dev/tty", &st));
	EXPECT_EQ(st.st_rdev, makedev(5, 0));
	OK(stat("/dev/ptmx", &st));
	EXPECT_EQ(st.st_rdev, makedev(5, 2));
	OK(stat("/", &st));
	EXPECT_TRUE(S_ISDIR(st.st_mode));
}
TEST(search_permission) {
	OK(chmod(".", 0755));
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	PUT("d/e/f", "x");
	OK(chmod("d", 0600));
	struct stat st;
	OK(setresuid(777, 777, 777));
	ERR(stat("d/e/f", &st), EACCES);
	ERR(stat("d/none", &st), EACCES);
	ERR(chdir("d"), EACCES);
	OK(stat("d", &st));
}
MAIN()
