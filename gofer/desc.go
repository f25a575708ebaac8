package gofer

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"garrison/internal/goferwire"
)

// serveDescriptors answers the descriptor channel until the peer closes it, or
// sends what no client of ours sends.
func (s *server) serveDescriptors(sock int) error {
	d := &descriptors{server: s, raw: make([]byte, goferwire.MaxData/2), data: make([]byte, goferwire.MaxData)}
	in := make([]byte, goferwire.MaxPacket)
	out := make([]byte, 0, goferwire.MaxPacket)
	for {
		// No room for descriptors: the kernel drops what a peer sends us.
		n, _, err := goferwire.RecvPacket(sock, in, nil)
		if err == unix.ECONNRESET || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("gofer: receive on the descriptor channel: %w", err)
		}
		var req goferwire.Request
		if err := req.Decode(in[:n]); err != nil {
			return fmt.Errorf("gofer: request of %d bytes: %w", n, err)
		}
		resp := goferwire.Response{ID: req.ID}
		fd, err := d.serve(&req, &resp)
		if err != nil {
			resp.Errno, resp.Data = number(err), nil
		}
		resp.HasFD = fd >= 0
		out = resp.Append(out[:0])
		err = goferwire.SendPacket(sock, out, fd)
		if fd >= 0 {
			unix.Close(fd)
		}
		if err == unix.EPIPE || err == unix.ECONNRESET {
			return nil
		}
		if err != nil {
			return fmt.Errorf("gofer: answer on the descriptor channel: %w", err)
		}
	}
}

// descriptors is the server of the descriptor channel, with buffers that are
// used again for every request.
type descriptors struct {
	*server
	raw, data []byte
}

// serve does one request; a descriptor to hand over is returned, or -1.
func (s *descriptors) serve(req *goferwire.Request, resp *goferwire.Response) (fd int, err error) {
	base, err := s.get(req.Node)
	if err != nil {
		return -1, err
	}
	defer s.put(base)
	n := base
	if req.Path != "" {
		if n, err = s.below(base, req); err != nil {
			return -1, err
		}
		defer unix.Close(n.fd)
	}
	switch req.Op {
	case goferwire.OpOpen:
		return s.donate(n, req.Flags)
	case goferwire.OpCreate:
		return s.create(n, req)
	case goferwire.OpSetAttr:
		return -1, s.setAttr(n, req, resp)
	case goferwire.OpGetXattr, goferwire.OpSetXattr, goferwire.OpListXattr, goferwire.OpRemoveXattr:
		return -1, s.xattr(n, req, resp)
	case goferwire.OpReaddir:
		resp.Data, resp.Last, err = s.readdir(n, req.Off, s.data)
		return -1, err
	case goferwire.OpReaddirPlus:
		resp.Data, resp.Last, err = s.readdirPlus(n, req.Off, s.raw, s.data)
		return -1, err
	case goferwire.OpLookup:
		return s.lookup(n, req, resp)
	case goferwire.OpFsync:
		return -1, s.fsync(n)
	case goferwire.OpArmRename:
		n2, err := s.get(req.Node2)
		if err != nil {
			return -1, err
		}
		s.put(n2)
		return -1, s.armRename(renameKey{req.Node, req.Node2, req.Name, req.Name2}, req.Flags)
	case goferwire.OpExchange:
		n2, err := s.get(req.Node2)
		if err != nil {
			return -1, err
		}
		defer s.put(n2)
		return -1, s.exchange(n, req.Name, n2, req.Name2)
	}
	return -1, unix.ENOSYS
}

// exchange answers OpExchange.
func (s *server) exchange(n *node, name string, n2 *node, name2 string) error {
	if err := s.mayMake(n, name); err != nil {
		return err
	}
	if err := s.mayMake(n2, name2); err != nil {
		return err
	}
	if n.mount != n2.mount {
		return unix.EXDEV
	}
	return unix.Renameat2(n.fd, name, n2.fd, name2, unix.RENAME_EXCHANGE)
}

// passing makes a node of fd, an O_PATH descriptor reached from n, that lives
// only as long as a request; its descriptor is the caller's to close. On failure
// fd is closed.
func (s *server) passing(n *node, fd int) (*node, *unix.Statx_t, error) {
	st, err := fstatx(fd)
	if err == nil {
		c := &node{mount: n.mount, fd: fd, fmt: uint32(st.Mode) & unix.S_IFMT,
			key: nodeKey{n.mount, st.Mnt_id, devOf(st.Dev_major, st.Dev_minor), st.Ino}}
		if c.key.hostMnt != n.key.hostMnt || c.key.dev != n.key.dev {
			c.sealed, err = pseudo(fd)
		}
		if err == nil {
			return c, &st, nil
		}
	}
	unix.Close(fd)
	return nil, nil, err
}

// below finds the file that req names by a path. ESTALE if it is not there.
func (s *server) below(n *node, req *goferwire.Request) (*node, error) {
	c, err := s.descend(n, req.Path)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		err = unix.ESTALE
	}
	if err == nil && (c.key.ino != req.Ino || c.key.dev != req.Dev) {
		unix.Close(c.fd)
		err = unix.ESTALE
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// descend follows a path of plain names from n: in one system call as long as
// no mount of the host's is in the way, else name by name, so that nothing is
// passed by that a walk would have refused.
func (s *server) descend(n *node, path string) (*node, error) {
	names := strings.Split(path, "/")
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	if n.fmt != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	if n.sealed {
		return nil, unix.EACCES
	}
	fd, err := unix.Openat2(n.fd, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch err {
	case nil:
		c, _, err := s.passing(n, fd)
		return c, err
	case unix.EXDEV, unix.EAGAIN, unix.EINTR, unix.ENOSYS:
	default:
		return nil, err
	}
	c := n
	for _, name := range names {
		fd, err := s.openChild(c, name)
		var next *node
		if err == nil {
			next, _, err = s.passing(c, fd)
		}
		if c != n {
			unix.Close(c.fd)
		}
		if err != nil {
			return nil, err
		}
		c = next
	}
	return c, nil
}

// lookup answers OpLookup.
func (s *server) lookup(n *node, req *goferwire.Request, resp *goferwire.Response) (int, error) {
	fd, err := s.openChild(n, req.Name)
	if err != nil {
		return -1, err
	}
	c, st, err := s.passing(n, fd)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	e := goferwire.Entry{Name: req.Name}
	fillEntry(&e, st)
	resp.Data = e.Append(nil)
	switch {
	case c.fmt == unix.S_IFLNK && !c.sealed:
		buf := make([]byte, unix.PathMax)
		k, err := unix.Readlinkat(c.fd, "", buf)
		if err != nil {
			return -1, err
		}
		resp.Data = append(resp.Data, buf[:k]...)
	case c.fmt == unix.S_IFREG && req.Flags&goferwire.LookupOpen != 0:
		if fd, err := s.donate(c, unix.O_RDONLY); err == nil {
			return fd, nil
		}
	}
	return -1, nil
}

// donate opens a regular file for the Sentry, with exactly the rights granted.
func (s *server) donate(n *node, flags uint32) (int, error) {
	switch n.fmt {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return -1, unix.EISDIR
	case unix.S_IFSOCK:
		return -1, unix.ENXIO
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	default:
		return -1, unix.EACCES
	}
	if flags&^unix.O_ACCMODE != 0 || flags == unix.O_ACCMODE {
		return -1, unix.EINVAL
	}
	if flags != unix.O_RDONLY {
		if err := s.writable(n, false); err != nil {
			return -1, err
		}
	}
	fd, err := s.reopen(n, int(flags))
	if err != nil {
		return -1, err
	}
	return s.granted(fd, flags)
}

// granted makes sure that fd is a regular file's and allows what flags say and
// no more, whatever happened on the way to it.
func (s *server) granted(fd int, flags uint32) (int, error) {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && (uint32(have)&unix.O_ACCMODE != flags || have&unix.O_PATH != 0) {
		err = unix.EACCES
	}
	if err == nil {
		var st unix.Statx_t
		if st, err = fstatx(fd); err == nil && uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
			err = unix.EACCES
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// create makes a regular file and opens it.
func (s *server) create(n *node, req *goferwire.Request) (int, error) {
	if err := s.mayMake(n, req.Name); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(n.fd, req.Name,
		unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, req.Mode&0777)
	if err != nil {
		return -1, err
	}
	if err := s.adopt(fd, req.UID, req.GID, req.Mode, false); err != nil {
		unix.Unlinkat(n.fd, req.Name, 0)
		unix.Close(fd)
		return -1, err
	}
	return s.granted(fd, unix.O_RDWR)
}

func (s *server) setAttr(n *node, req *goferwire.Request, resp *goferwire.Response) error {
	v := req.Valid
	c := change{
		setMode: v&goferwire.SetMode != 0, setUID: v&goferwire.SetUID != 0, setGID: v&goferwire.SetGID != 0,
		setSize: v&goferwire.SetSize != 0, mode: req.Mode, uid: req.UID, gid: req.GID, size: req.Size,
		atime: timeSpec(v&goferwire.SetAtime != 0, v&goferwire.AtimeNow != 0, req.Atime),
		mtime: timeSpec(v&goferwire.SetMtime != 0, v&goferwire.MtimeNow != 0, req.Mtime),
	}
	if err := s.change(n, &c); err != nil {
		return err
	}
	st, err := fstatx(n.fd)
	if err != nil {
		return err
	}
	resp.Attr = goferwire.Attr{
		Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Size: st.Size, Blocks: st.Blocks,
		Atime: nanos(st.Atime), Mtime: nanos(st.Mtime), Ctime: nanos(st.Ctime),
	}
	return nil
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func timeSpec(set, now bool, ns int64) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case !set:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	sec, nsec := ns/1e9, ns%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	return unix.Timespec{Sec: sec, Nsec: nsec}
}

// visibleXattr says which extended attributes the Sentry may see, and set: it
// has its own idea of security labels and must not give a host file the host's
// capabilities.
func visibleXattr(name string, write bool) bool {
	return len(name) > 5 && strings.HasPrefix(name, "user.") || !write && name == "security.capability"
}

// xattr does the calls of xattr(7). O_PATH descriptors have no attributes, so
// the file is opened; only regular files and directories have user attributes.
func (s *server) xattr(n *node, req *goferwire.Request, resp *goferwire.Response) error {
	write := req.Op == goferwire.OpSetXattr || req.Op == goferwire.OpRemoveXattr
	if req.Op != goferwire.OpListXattr && !visibleXattr(req.Name, write) {
		return unix.EOPNOTSUPP
	}
	if write {
		if err := s.writable(n, false); err != nil {
			return err
		}
	}
	if n.fmt != unix.S_IFDIR && n.fmt != unix.S_IFREG {
		switch req.Op {
		case goferwire.OpListXattr:
			return nil
		case goferwire.OpGetXattr:
			return unix.ENODATA
		}
		return unix.EPERM
	}
	if n.sealed {
		return unix.EOPNOTSUPP
	}
	fd, err := s.reopen(n, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch req.Op {
	case goferwire.OpGetXattr:
		buf := make([]byte, goferwire.MaxData)
		k, err := unix.Fgetxattr(fd, req.Name, buf)
		if err == nil {
			resp.Data = buf[:k]
		}
		return err
	case goferwire.OpSetXattr:
		if req.Flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
			return unix.EINVAL
		}
		return unix.Fsetxattr(fd, req.Name, req.Data, int(req.Flags))
	case goferwire.OpRemoveXattr:
		return unix.Fremovexattr(fd, req.Name)
	}
	buf := make([]byte, goferwire.MaxData)
	k, err := unix.Flistxattr(fd, buf)
	if err != nil {
		return err
	}
	for _, name := range strings.Split(string(buf[:k]), "\x00") {
		if visibleXattr(name, false) {
			resp.Data = append(append(resp.Data, name...), 0)
		}
	}
	return nil
}
