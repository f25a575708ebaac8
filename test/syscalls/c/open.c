/* open, openat, openat2, creat, O_PATH, O_TMPFILE, close. */
#include "harness.h"
#include <linux/openat2.h>

TEST(flags_basic) {
	ERR(open("f", O_RDONLY), ENOENT);
	int fd = OK(open("f", O_CREAT | O_RDWR | O_EXCL, 0640));
	ERR(open("f", O_CREAT | O_EXCL | O_RDWR, 0640), EEXIST);
	EXPECT_EQ(fcntl(fd, F_GETFL) & (O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC), O_RDWR);
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_mode, S_IFREG | 0640);
	ERR(open("f/", O_RDONLY), ENOTDIR);
	ERR(open("f/x", O_RDONLY), ENOTDIR);
	ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	ERR(open("nodir/f", O_CREAT | O_WRONLY, 0644), ENOENT);
	ERR(open("", O_RDONLY), ENOENT);
	ERR(open((void *)8, O_RDONLY), EFAULT);
}
TEST(directories) {
	OK(mkdir("d", 0755));
	ERR(open("d", O_WRONLY), EISDIR);
	ERR(open("d", O_RDWR), EISDIR);
	ERR(open("d", O_CREAT | O_RDONLY, 0644), EISDIR);
	ERR(open("d", O_CREAT | O_EXCL, 0644), EEXIST);
	ERR(open("x/", O_CREAT | O_WRONLY, 0644), EISDIR);
	ERR(open("d", O_RDONLY | O_TRUNC), EISDIR);
	OK(open("d", O_RDONLY));
	OK(open("d/", O_RDONLY | O_DIRECTORY));
	OK(open("d/.", O_RDONLY));
	OK(open("d/..", O_RDONLY));
	ERR(open("x", O_CREAT | O_DIRECTORY | O_RDWR, 0644), EINVAL);
}
TEST(trunc) {
	PUT("f", "abc");
	int fd = OK(open("f", O_RDWR | O_TRUNC));
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_size, 0);
	PUT("g", "abc");
	fd = OK(creat("g", 0600));
	EXPECT_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY);
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_size, 0);
	EXPECT_EQ(st.st_mode & 07777, 0644);
}
TEST(umask_and_mode) {
	struct stat st;
	EXPECT_EQ(umask(027), 022);
	int fd = OK(open("f", O_CREAT | O_WRONLY, 0777));
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_mode & 07777, 0750);
	fd = OK(open("g", O_CREAT | O_WRONLY, 06777));
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_mode & 07777, 06750);
	OK(mkdir("d", 01777));
	OK(stat("d", &st));
	EXPECT_EQ(st.st_mode & 07777, 01750);
	/* The descriptor's access is what was asked, whatever the new file's mode. */
	fd = OK(open("h", O_CREAT | O_RDWR, 0));
	EXPECT_EQ(write(fd, "a", 1), 1);
	EXPECT_EQ(umask(0xffff), 027);
	EXPECT_EQ(umask(0), 0777);
}
TEST(lowest_descriptor) {
	int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY)), c = OK(open("/dev/null", O_RDONLY));
	EXPECT_TRUE(a < b && b < c);
	OK(close(b));
	EXPECT_EQ(open("/dev/null", O_RDONLY), b);
	OK(close(a));
	EXPECT_EQ(dup(c), a);
	ERR(close(9999), EBADF);
	OK(close(c));
	ERR(close(c), EBADF);
}
TEST(emfile) {
	struct rlimit rl = {20, 20};
	OK(setrlimit(RLIMIT_NOFILE, &rl));
	int n = 0;
	while (open("/dev/null", O_RDONLY) >= 0) n++;
	EXPECT_EQ(errno, EMFILE);
	EXPECT_GT(n, 10);
	ERR(dup(0), EMFILE);
	ERR(dup2(0, 20), EBADF);
	ERR(fcntl(0, F_DUPFD, 20), EINVAL);
	int p[2];
	ERR(pipe(p), EMFILE);
	ERR(open("newfile", O_CREAT | O_WRONLY, 0644), EMFILE);
	ERR(access("newfile", F_OK), ENOENT);
}
TEST(symlinks) {
	PUT("f", "abc");
	OK(symlink("f", "l"));
	OK(symlink("nowhere", "dang"));
	OK(symlink("loop", "loop"));
	OK(open("l", O_RDONLY));
	ERR(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
	ERR(open("dang", O_RDONLY), ENOENT);
	ERR(open("dang", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
	ERR(open("loop", O_RDONLY), ELOOP);
	OK(open("dang", O_CREAT | O_WRONLY, 0644));
	OK(access("nowhere", F_OK));
	OK(mkdir("d", 0755));
	OK(symlink("d", "dl"));
	ERR(open("dl", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR);
	OK(open("dl/", O_RDONLY | O_NOFOLLOW));
	/* 40 links in a row are the most. */
	char a[16] = "f", b[16];
	for (int i = 1; i <= 41; i++) {
		snprintf(b, sizeof b, "s%d", i);
		OK(symlink(a, b));
		strcpy(a, b);
	}
	OK(open("s40", O_RDONLY));
	ERR(open("s41", O_RDONLY), ELOOP);
}
TEST(openat_dirfd) {
	OK(mkdir("d", 0755));
	PUT("d/f", "abc");
	int d = OK(open("d", O_RDONLY | O_DIRECTORY));
	OK(openat(d, "f", O_RDONLY));
	OK(openat(AT_FDCWD, "d/f", O_RDONLY));
	ERR(openat(-1, "f", O_RDONLY), EBADF);
	OK(openat(-1, "/dev/null", O_RDONLY));
	int f = OK(open("d/f", O_RDONLY));
	ERR(openat(f, "x", O_RDONLY), ENOTDIR);
	OK(openat(f, "/dev/null", O_RDONLY));
	OK(rename("d", "e"));
	OK(openat(d, "f", O_RDONLY));
	OK(unlink("e/f"));
	OK(rmdir("e"));
	ERR(openat(d, "new", O_CREAT | O_WRONLY, 0644), ENOENT);
	OK(openat(d, ".", O_RDONLY));
}
TEST(o_path) {
	PUT("f", "abc");
	OK(symlink("f", "l"));
	char b[8];
	int p = OK(open("f", O_PATH | O_RDWR | O_CREAT));
	EXPECT_EQ(fcntl(p, F_GETFL) & (O_PATH | O_ACCMODE), O_PATH);
	ERR(read(p, b, 1), EBADF);
	ERR(write(p, b, 1), EBADF);
	ERR(fchmod(p, 0600), EBADF);
	ERR(fchown(p, 0, 0), EBADF);
	ERR(lseek(p, 0, SEEK_SET), EBADF);
	ERR(ftruncate(p, 0), EBADF);
	ERR(ioctl(p, FIONREAD, b), EBADF);
	ERR(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, p, 0), EBADF);
	ERR(fsync(p), EBADF);
	ERR(fcntl(p, F_SETFL, O_APPEND), EBADF);
	struct stat st;
	OK(fstat(p, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	OK(dup(p));
	int l = OK(open("l", O_PATH | O_NOFOLLOW));
	OK(fstat(l, &st));
	EXPECT_TRUE(S_ISLNK(st.st_mode));
	EXPECT_EQ(readlinkat(l, "", b, 8), 1);
	EXPECT_EQ(b[0], 'f');
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", p);
	int fd = OK(open(path, O_RDONLY));
	EXPECT_EQ(read(fd, b, 8), 3);
	int d = OK(open(".", O_PATH | O_DIRECTORY));
	OK(openat(d, "f", O_RDONLY));
	OK(fchdir(d));
	OK(fstatat(p, "", &st, AT_EMPTY_PATH));
}
TEST(o_tmpfile) {
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE here");
	OK(fd);
	OK(write(fd, "tmp", 3));
	struct stat st;
	OK(fstat(fd, &st));
	EXPECT_EQ(st.st_nlink, 0);
	EXPECT_EQ(st.st_mode, S_IFREG | 0600);
	ERR(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	EXPECT_STR(SLURP("named"), "tmp");
	fd = OK(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ERR(linkat(AT_FDCWD, path, AT_FDCWD, "no", AT_SYMLINK_FOLLOW), ENOENT);
	PUT("f", "");
	ERR(open("f", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
	ERR(open("nodir", O_TMPFILE | O_RDWR, 0600), ENOENT);
}
TEST(empty_path_linkat) {
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE here");
	OK(linkat(fd, "", AT_FDCWD, "n", AT_EMPTY_PATH));
	OK(access("n", F_OK));
}
TEST(permissions_as_user) {
	OK(chmod(".", 0755));
	PUT("r", "abc");
	OK(chmod("r", 0400));
	OK(mkdir("d", 0700));
	PUT("d/f", "x");
	OK(mkdir("w", 0755));
	OK(setresuid(12345, 12345, 12345));
	ERR(open("r", O_RDONLY), EACCES);
	ERR(open("d/f", O_RDONLY), EACCES);
	ERR(open("d/nothing", O_RDONLY), EACCES);
	ERR(open("w/new", O_CREAT | O_WRONLY, 0644), EACCES);
	ERR(open("w/new", O_RDONLY), ENOENT);
	ERR(unlink("r"), EACCES);
	ERR(open(".", O_TMPFILE | O_RDWR, 0600), EACCES);
	OK(open("r", O_PATH));
}
TEST(noatime_needs_owner) {
	PUT("f", "abc");
	OK(chmod("f", 0644));
	OK(open("f", O_RDONLY | O_NOATIME));
	OK(setresuid(12345, 12345, 12345));
	ERR(open("f", O_RDONLY | O_NOATIME), EPERM);
}
TEST(name_limits) {
	char n[300];
	memset(n, 'a', sizeof n);
	n[255] = 0;
	OK(open(n, O_CREAT | O_WRONLY, 0644));
	n[255] = 'a';
	n[256] = 0;
	ERR(open(n, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
	char *p = malloc(5000);
	for (int i = 0; i < 5000; i += 2) { p[i] = '.'; p[i + 1] = '/'; }
	p[4095] = 0;
	OK(open(p, O_RDONLY));
	p[4095] = '/';
	p[4097] = 0;
	ERR(open(p, O_RDONLY), ENAMETOOLONG);
	OK(unlink((n[255] = 0, n)));
}
TEST(weird_names) {
	OK(open("a\nb\t\x01\xff", O_CREAT | O_WRONLY, 0644));
	OK(open(" ", O_CREAT | O_WRONLY, 0644));
	OK(open("...", O_CREAT | O_WRONLY, 0644));
	OK(open(".wh.x", O_CREAT | O_WRONLY, 0644));
	OK(access("a\nb\t\x01\xff", F_OK));
	OK(access(".wh.x", F_OK));
	OK(access(".//.///...", F_OK));
}
TEST(openat2_resolve) {
	struct open_how h = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
	PUT("f", "abc");
	OK(mkdir("d", 0755));
	OK(symlink("../f", "d/up"));
	OK(symlink("/dev/null", "abs"));
	int d = OK(open("d", O_RDONLY));
	long fd = syscall(SYS_openat2, AT_FDCWD, "f", &h, sizeof h);
	if (fd < 0 && errno == ENOSYS) SKIP("no openat2");
	OK(fd);
	ERR(syscall(SYS_openat2, d, "up", &h, sizeof h), EXDEV);
	ERR(syscall(SYS_openat2, d, "../f", &h, sizeof h), EXDEV);
	ERR(syscall(SYS_openat2, AT_FDCWD, "abs", &h, sizeof h), EXDEV);
	h.resolve = RESOLVE_NO_SYMLINKS;
	ERR(syscall(SYS_openat2, d, "up", &h, sizeof h), ELOOP);
	h.resolve = RESOLVE_IN_ROOT;
	ERR(syscall(SYS_openat2, d, "up", &h, sizeof h), ENOENT);
	h.resolve = 0x8000;
	ERR(syscall(SYS_openat2, d, "up", &h, sizeof h), EINVAL);
	h.resolve = 0;
	h.mode = 0644;
	ERR(syscall(SYS_openat2, AT_FDCWD, "f", &h, sizeof h), EINVAL);
	h.mode = 0;
	h.flags = 1ULL << 40;
	ERR(syscall(SYS_openat2, AT_FDCWD, "f", &h, sizeof h), EINVAL);
	h.flags = 0;
	ERR(syscall(SYS_openat2, AT_FDCWD, "f", &h, 8), EINVAL);
}
TEST(fifo_open) {
	OK(mkfifo("p", 0644));
	ERR(open("p", O_WRONLY | O_NONBLOCK), ENXIO);
	int r = OK(open("p", O_RDONLY | O_NONBLOCK));
	int w = OK(open("p", O_WRONLY | O_NONBLOCK));
	OK(write(w, "abc", 3));
	char b[8];
	EXPECT_EQ(read(r, b, 8), 3);
	OK(close(w));
	EXPECT_EQ(read(r, b, 8), 0);
	OK(close(r));
	/* A blocking open waits for its peer. */
	pid_t c = CHILD(int fd = OK(open("p", O_WRONLY)); OK(write(fd, "hi", 2)));
	r = OK(open("p", O_RDONLY));
	EXPECT_EQ(read(r, b, 8), 2);
	EXPECT_EXIT(c, 0);
	OK(close(r));
	int rw = OK(open("p", O_RDWR));
	OK(write(rw, "x", 1));
	EXPECT_EQ(read(rw, b, 8), 1);
}
TEST(device_nodes) {
	OK(mknod("n", S_IFREG | 0600, 0));
	struct stat st;
	OK(stat("n", &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	ERR(mknod("n", S_IFREG | 0600, 0), EEXIST);
	ERR(mknod("d", S_IFDIR | 0600, 0), EPERM);
	ERR(mknod("d", 0170000, 0), EINVAL);
	OK(mknod("s", S_IFSOCK | 0600, 0));
	ERR(open("s", O_RDWR), ENXIO);
}
TEST(reopen_own_fd) {
	int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
	OK(write(fd, "abc", 3));
	OK(unlink("f"));
	char p[64], b[8];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	int g = OK(open(p, O_RDONLY));
	EXPECT_EQ(read(g, b, 8), 3);
	EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 3);
}
TEST(cloexec_flag) {
	int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
	EXPECT_EQ(fcntl(a, F_GETFD), 0);
	EXPECT_EQ(fcntl(b, F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(fcntl(b, F_GETFL) & O_CLOEXEC, 0);
}
TEST(odd_access_mode_3) {
	PUT("f", "abc");
	char b[4];
	int fd = OK(open("f", 3));
	ERR(read(fd, b, 1), EBADF);
	ERR(write(fd, b, 1), EBADF);
}
MAIN()
