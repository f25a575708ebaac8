package gofer

import (
	"math"

	"golang.org/x/sys/unix"
)

// A nodeKey tells host files apart. The mount is part of it because rights
// depend on it; so is the host's own mount, which can be read-only.
type nodeKey struct {
	mount    int
	hostMnt  uint64
	dev, ino uint64
}

// A node is a host file that at least one fid refers to. Its descriptor pins
// the inode, so neither its number nor our key can come to mean another file.
type node struct {
	mount  int
	fd     int // O_PATH
	id     uint64
	key    nodeKey
	fmt    uint32 // S_IFMT bits of the mode
	sealed bool   // root of a pseudo file system: may be looked at, not entered

	refs int // guarded by server.mu
}

// statxMask is everything that goes into an Attr.
const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// fstatx is statx(2) of a descriptor itself.
func fstatx(fd int) (st unix.Statx_t, err error) {
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT, statxMask, &st)
	return
}

func devOf(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// newNode takes over fd, an O_PATH descriptor, and returns the one node of the
// file that it is, with a reference. from is the node it was reached from.
func (s *server) newNode(mount, fd int, from *node) (*node, *unix.Statx_t, error) {
	st, err := fstatx(fd)
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	key := nodeKey{mount, st.Mnt_id, devOf(st.Dev_major, st.Dev_minor), st.Ino}
	sealed := false
	if from != nil && (from.key.hostMnt != key.hostMnt || from.key.dev != key.dev) {
		sealed, err = pseudo(fd)
		if err != nil {
			unix.Close(fd)
			return nil, nil, err
		}
	}
	s.mu.Lock()
	if n := s.nodes[key]; n != nil {
		n.refs++
		s.mu.Unlock()
		unix.Close(fd)
		return n, &st, nil
	}
	s.lastID++
	n := &node{mount: mount, fd: fd, id: s.lastID, key: key, fmt: uint32(st.Mode) & unix.S_IFMT, sealed: sealed, refs: 1}
	s.nodes[key], s.byID[n.id] = n, n
	s.mu.Unlock()
	return n, &st, nil
}

// get returns the node with an id, with a reference.
func (s *server) get(id uint64) (*node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byID[id]
	if n == nil {
		return nil, unix.EBADF
	}
	n.refs++
	return n, nil
}

// put gives a reference back.
func (s *server) put(n *node) {
	s.mu.Lock()
	n.refs--
	last := n.refs == 0
	if last {
		delete(s.nodes, n.key)
		delete(s.byID, n.id)
	}
	s.mu.Unlock()
	if last {
		unix.Close(n.fd)
	}
}

// take counts one more handle that the peer holds.
func (s *server) take() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files >= s.maxFiles {
		return unix.EMFILE
	}
	s.files++
	return nil
}

func (s *server) untake() {
	s.mu.Lock()
	s.files--
	s.mu.Unlock()
}

// pseudo reports whether fd is on a file system through which a process can act
// on kernels and other processes (/proc/PID/mem is a regular file!). A host
// whose / is served has them below it.
func pseudo(fd int) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return false, err
	}
	switch uint64(fs.Type) & math.MaxUint32 {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC,
		unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.NSFS_MAGIC, unix.BINFMTFS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.XENFS_SUPER_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.OPENPROM_SUPER_MAGIC, unix.PID_FS_MAGIC, unix.AAFS_MAGIC,
		0x62656570, // configfs
		0x19800202, // mqueue
		0x65735543: // fusectl
		return true, nil
	}
	return false, nil
}

// openChild looks one name up in directory n.
func (s *server) openChild(n *node, name string) (int, error) {
	if err := checkName(name); err != nil {
		return -1, err
	}
	if n.fmt != unix.S_IFDIR {
		return -1, unix.ENOTDIR
	}
	if n.sealed {
		return -1, unix.EACCES
	}
	how := unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		// The name is one component and the final one, so these say the same
		// thing three times; the kernel's word is the one that counts.
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(n.fd, name, &how)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN && tries < 16: // EAGAIN: a rename raced with RESOLVE_BENEATH
			continue
		case err == unix.ENOSYS: // before Linux 5.6
			return unix.Openat(n.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		return fd, err
	}
}

// walk returns the child's node with a reference.
func (s *server) walk(n *node, name string) (*node, *unix.Statx_t, error) {
	fd, err := s.openChild(n, name)
	if err != nil {
		return nil, nil, err
	}
	return s.newNode(n.mount, fd, n)
}

// reopen opens the file behind n anew, with flags.
func (s *server) reopen(n *node, flags int) (int, error) {
	if n.sealed {
		return -1, unix.EACCES
	}
	for {
		var fd int
		var err error
		if n.fmt == unix.S_IFDIR {
			fd, err = unix.Openat(n.fd, ".", flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		} else {
			fd, err = unix.Openat(s.procFD, itoa(n.fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		}
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// writable says whether n, a directory if dir is set, may be changed.
func (s *server) writable(n *node, dir bool) error {
	switch {
	case dir && n.fmt != unix.S_IFDIR:
		return unix.ENOTDIR
	case s.mounts[n.mount].ReadOnly:
		return unix.EROFS
	case n.sealed:
		return unix.EACCES
	}
	return nil
}

func itoa(n int) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
