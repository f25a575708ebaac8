package proc

import (
	"fmt"
	"strconv"
	"strings"

	"garrison/abi"
	"garrison/sentry/fs/pseudo"
	"garrison/sentry/kernel"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// fdEntries makes /proc/PID/fd and /proc/PID/fdinfo.
func (fs *procFS) fdEntries(e *entryMaker) {
	t := e.t
	list := func(typ uint8) func(ctx vfs.Context) ([]vfs.Dirent, error) {
		return func(ctx vfs.Context) ([]vfs.Dirent, error) {
			if !mayTrace(ctx, t) {
				return nil, abi.EACCES
			}
			table := t.FDTable()
			if table == nil {
				return nil, nil
			}
			var entries []vfs.Dirent
			for _, fd := range table.FDs() {
				entries = append(entries, vfs.Dirent{Name: strconv.Itoa(int(fd)), Ino: fdIno(t, fd), Type: typ})
			}
			return entries, nil
		}
	}
	find := func(make func(fd int32) vfs.Inode) func(vfs.Context, string) (vfs.Inode, error) {
		return func(ctx vfs.Context, name string) (vfs.Inode, error) {
			fd, err := strconv.ParseUint(name, 10, 31)
			if err != nil || name != strconv.FormatUint(fd, 10) {
				return nil, abi.ENOENT
			}
			if !mayTrace(ctx, t) {
				return nil, abi.EACCES
			}
			f := fileOf(t, int32(fd))
			if f == nil {
				return nil, abi.ENOENT
			}
			f.DecRef()
			return make(int32(fd)), nil
		}
	}
	stale := func(child vfs.Inode) bool {
		c, ok := child.(interface{ descriptor() int32 })
		if !ok {
			return true
		}
		f := fileOf(t, c.descriptor())
		if f == nil {
			return true
		}
		f.DecRef()
		return false
	}
	fds := e.dir("fd", 0o500, nil)
	fds.List, fds.Stale = list(abi.DT_LNK), stale
	fds.Find = find(func(fd int32) vfs.Inode { return newFDLink(e, fd) })
	e.files["fd"] = &fdDir{fds, t}
	info := e.dir("fdinfo", 0o555, nil)
	info.List, info.Stale = list(abi.DT_REG), stale
	info.Find = find(func(fd int32) vfs.Inode { return newFDInfo(e, fd) })
}

// An fdDir is /proc/PID/fd.
type fdDir struct {
	*pseudo.Dir
	t *kernel.Task
}

// Access implements vfs.Accesser: a process may always look at its own
// descriptors, whatever ids it has (proc_fd_permission).
func (d *fdDir) Access(ctx vfs.Context, mask uint32) error {
	if c, err := caller(ctx); err == nil && c.ThreadGroup() == d.t.ThreadGroup() {
		return nil
	}
	a, err := d.Attr(ctx)
	if err != nil {
		return err
	}
	return vfs.GenericAccess(ctx.Cred(), &a, mask)
}

func fdIno(t *kernel.Task, fd int32) uint64 { return uint64(t.TID())<<32 | 1<<31 | uint64(fd) }

// fileOf returns t's open file fd with a reference, or nil.
func fileOf(t *kernel.Task, fd int32) *vfs.File {
	table := t.FDTable()
	if table == nil {
		return nil
	}
	return table.Get(fd)
}

// fdLink is /proc/PID/fd/N.
type fdLink struct {
	pseudo.MagicLink
	t  *kernel.Task
	fd int32
}

func (l *fdLink) descriptor() int32 { return l.fd }

func newFDLink(e *entryMaker, fd int32) vfs.Inode {
	l := &fdLink{t: e.t, fd: fd}
	l.SymbolicLink = *e.fs.NewSymlink(nil)
	l.Ino, l.Owner = fdIno(e.t, fd), owner(e.t)
	l.Target = func(ctx vfs.Context) (string, error) {
		if !mayTrace(ctx, l.t) {
			return "", abi.EACCES
		}
		f := fileOf(l.t, fd)
		if f == nil {
			return "", abi.ENOENT
		}
		defer f.DecRef()
		return f.Name(ctx.FSContext().Root()), nil
	}
	return l
}

// Attr shows the access mode of the descriptor as the link's permissions.
func (l *fdLink) Attr(ctx vfs.Context) (vfs.Attr, error) {
	a, err := l.MagicLink.Attr(ctx)
	a.Mode = abi.S_IFLNK
	if f := fileOf(l.t, l.fd); f != nil {
		if f.Readable() {
			a.Mode |= 0o500
		}
		if f.Writable() {
			a.Mode |= 0o300
		}
		f.DecRef()
	}
	a.Size = 64
	return a, err
}

// FollowLink implements vfs.MagicLinker. Anonymous files are reached through
// FollowFile.
func (l *fdLink) FollowLink(ctx vfs.Context) (vfs.Path, error) {
	if !mayTrace(ctx, l.t) {
		return vfs.Path{}, abi.EACCES
	}
	f := fileOf(l.t, l.fd)
	if f == nil {
		return vfs.Path{}, abi.ENOENT
	}
	defer f.DecRef()
	p := f.Path()
	if !p.Valid() {
		return vfs.AnonPath(f)
	}
	p.IncRef()
	return p, nil
}

// fdInfo is /proc/PID/fdinfo/N.
type fdInfo struct {
	*pseudo.File
	fd int32
}

func (i *fdInfo) descriptor() int32 { return i.fd }

// An Informer is a FileOps with lines of its own in fdinfo (epoll, eventfd).
type Informer interface{ FDInfo() string }

func newFDInfo(e *entryMaker, fd int32) vfs.Inode {
	t := e.t
	file := e.fs.NewFile(func(vfs.Context) ([]byte, error) {
		table := t.FDTable()
		f := fileOf(t, fd)
		if f == nil {
			return nil, abi.ENOENT
		}
		defer f.DecRef()
		flags := f.Flags()
		if on, err := table.Cloexec(fd); err == nil && on {
			flags |= abi.O_CLOEXEC
		}
		mnt := int32(0)
		if p := f.Path(); p.Mount != nil {
			mnt = p.Mount.ID
		}
		_, ino := f.DeviceInode()
		b := fmt.Appendf(nil, "pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n", f.Position(), flags, mnt, ino)
		if x, ok := f.Ops().(Informer); ok {
			b = append(b, x.FDInfo()...)
		}
		return b, nil
	})
	file.Ino, file.Owner = fdIno(t, fd)|1<<30, owner(t)
	return &fdInfo{file, fd}
}

// memFile is /proc/PID/mem.
type memFile struct {
	*pseudo.File
	t *kernel.Task
}

func newMemFile(e *entryMaker) vfs.Inode {
	f := e.fs.NewFile(nil)
	f.Mode, f.Owner = abi.S_IFREG|0o600, owner(e.t)
	return &memFile{f, e.t}
}

// Open implements vfs.Inode: access is checked once, here, and the address
// space stays the one of this moment (proc(5)).
func (m *memFile) Open(ctx vfs.Context, _ *vfs.Dentry, _ uint32) (vfs.FileOps, error) {
	// The memory first: if the task calls execve now, the check is of the new program.
	mem := m.t.MM()
	if !mayTrace(ctx, m.t) {
		return nil, abi.EACCES
	}
	return &memOps{mm: mem}, nil
}

type memOps struct {
	vfs.FileDefaults
	mm *mm.MM
}

// Seek implements vfs.FileOps: any offset is an address.
func (o *memOps) Seek(_ vfs.Context, _ *vfs.File, cur, off int64, whence int) (int64, error) {
	switch whence {
	case abi.SEEK_SET:
		return off, nil
	case abi.SEEK_CUR:
		return cur + off, nil
	}
	return 0, abi.EINVAL
}

// memChunk bounds one copy, in bytes.
const memChunk = 64 << 10

func (o *memOps) Read(ctx vfs.Context, _ *vfs.File, dst *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, error) {
	return o.copy(dst.Len(), off, func(b []byte, a usermem.Addr) (int, error) {
		n, err := o.mm.ReadForce(a, b)
		if n == 0 {
			return 0, err
		}
		return dst.Write(b[:n])
	})
}

func (o *memOps) Write(ctx vfs.Context, _ *vfs.File, src *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, int64, error) {
	n, err := o.copy(src.Len(), off, func(b []byte, a usermem.Addr) (int, error) {
		n, err := src.Read(b)
		if err != nil {
			return 0, err
		}
		return o.mm.WriteForce(a, b[:n])
	})
	return n, off + n, err
}

// copy moves n bytes at address off in chunks; memory that is not there is EIO.
func (o *memOps) copy(n int, off int64, step func([]byte, usermem.Addr) (int, error)) (int64, error) {
	if o.mm == nil || !o.mm.TryIncUsers() {
		return 0, nil
	}
	defer o.mm.DecUsers()
	buf := make([]byte, min(n, memChunk))
	done := 0
	for done < n {
		want := min(n-done, len(buf))
		got, err := step(buf[:want], usermem.Addr(off)+usermem.Addr(done))
		done += got
		if err != nil || got < want {
			if done > 0 {
				return int64(done), nil
			}
			return 0, abi.EIO
		}
	}
	return int64(done), nil
}

// netFiles is /proc/net: the tables of a loopback-only network namespace, and
// the socket families' own.
func (fs *procFS) netFiles() map[string]vfs.Inode {
	header := func(s string) vfs.Inode { return fs.Text(s + "\n") }
	files := map[string]vfs.Inode{
		"dev": fs.Text("Inter-|   Receive                                                |  Transmit\n" +
			" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
			"    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n"),
		"arp":       header("IP address       HW type     Flags       HW address            Mask     Device"),
		"if_inet6":  fs.Text("00000000000000000000000000000001 01 80 10 80       lo\n"),
		"route":     header("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT" + strings.Repeat(" ", 55)),
		"protocols": header("protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em"),
	}
	for name, gen := range fs.cfg.NetFiles {
		files[name] = fs.NewFile(func(vfs.Context) ([]byte, error) { return gen(), nil })
	}
	return files
}
