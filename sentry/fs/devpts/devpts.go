// Package devpts is the file system of pseudoterminal names: ptmx, and one node
// for each open master (pts(4), kernel's filesystems/devpts).
//
// Every mount is an instance of its own. Terminals themselves are in fs/tty.
// Options: uid, gid, mode, ptmxmode, max; newinstance is accepted.
//
// Lock order: FS.mu is a leaf.
package devpts

import (
	"strconv"
	"strings"
	"sync"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/fs/tty"
	"garrison/sentry/kernel"
	"garrison/sentry/vfs"
)

// The device numbers of ptmx and of slaves (kernel's devices.txt).
const (
	ttyauxMajor = 5
	ptmxMinor   = 2
	slaveMajor  = 136
)

// An FS is one devpts instance.
type FS struct {
	*vfs.PseudoSuperblock
	root *vfs.PseudoDir

	uid, gid int64 // -1: the opener's
	mode     uint16
	maxPtys  uint32

	mu   sync.Mutex
	ptys map[uint32]*tty.TTY
}

// New makes an instance; data are mount options.
func New(v *vfs.VFS, data string) (*FS, error) {
	fs := &FS{uid: -1, gid: -1, mode: 0o600, maxPtys: 4096, ptys: make(map[uint32]*tty.TTY)}
	ptmxMode := uint16(0)
	for _, o := range strings.Split(data, ",") {
		name, value, _ := strings.Cut(o, "=")
		num := func(base int) (uint64, error) {
			n, err := strconv.ParseUint(value, base, 32)
			if err != nil {
				return 0, abi.EINVAL
			}
			return n, nil
		}
		var n uint64
		var err error
		switch name {
		case "", "newinstance", "rw", "ro", "relatime", "nosuid", "noexec":
		case "uid":
			n, err = num(10)
			fs.uid = int64(n)
		case "gid":
			n, err = num(10)
			fs.gid = int64(n)
		case "mode":
			n, err = num(8)
			fs.mode = uint16(n) & 0o777
		case "ptmxmode":
			n, err = num(8)
			ptmxMode = uint16(n) & 0o777
		case "max":
			n, err = num(10)
			fs.maxPtys = uint32(min(n, 1<<20))
		default:
			err = abi.EINVAL
		}
		if err != nil {
			return nil, err
		}
	}
	fs.PseudoSuperblock = vfs.NewPseudoSuperblock(v, "devpts", abi.DEVPTS_SUPER_MAGIC)
	opts := "mode=" + strconv.FormatUint(uint64(fs.mode), 8) + ",ptmxmode=" + pad3(ptmxMode)
	if fs.gid >= 0 {
		opts = "gid=" + strconv.FormatInt(fs.gid, 10) + "," + opts
	}
	fs.SetOptions(opts)
	fs.root = fs.NewDir(0o755)
	fs.SetRoot(fs.root)
	p := &ptmx{fs: fs}
	p.InitAttr(fs.PseudoSuperblock, abi.S_IFCHR|ptmxMode)
	p.SetRdev(vfs.MakeDev(ttyauxMajor, ptmxMinor))
	fs.root.Add("ptmx", p)
	return fs, nil
}

func pad3(m uint16) string {
	s := strconv.FormatUint(uint64(m), 8)
	return "000"[:max(3-len(s), 0)] + s
}

// Register makes v know the file system type, and open pts device nodes made
// elsewhere, and /dev/ptmx, through the instance main (which may be nil).
func Register(v *vfs.VFS, main *FS) {
	v.RegisterFilesystem("devpts", func(_ vfs.Context, _, data string, _ uint32) (vfs.Superblock, error) {
		return New(v, data)
	})
	if main == nil {
		return
	}
	v.RegisterDevice(abi.S_IFCHR, ttyauxMajor, ptmxMinor, func(ctx vfs.Context, d *vfs.Dentry, _ uint64, flags uint32) (vfs.FileOps, error) {
		return main.openMaster(ctx, flags)
	})
	v.RegisterDevice(abi.S_IFCHR, slaveMajor, vfs.AnyMinor, func(ctx vfs.Context, d *vfs.Dentry, rdev uint64, flags uint32) (vfs.FileOps, error) {
		main.mu.Lock()
		t := main.ptys[vfs.DevMinor(rdev)]
		main.mu.Unlock()
		if t == nil {
			return nil, abi.EIO
		}
		return t.Open(ctx, d, flags)
	})
}

// ptmx is the node whose opening makes a pseudoterminal.
type ptmx struct {
	vfs.LeafDefaults
	vfs.PseudoAttr
	fs *FS
}

// Attr and SetAttr are those of PseudoAttr.
func (p *ptmx) Attr(ctx vfs.Context) (vfs.Attr, error)        { return p.PseudoAttr.Attr(ctx) }
func (p *ptmx) SetAttr(ctx vfs.Context, s *vfs.SetAttr) error { return p.PseudoAttr.SetAttr(ctx, s) }

// OpensItself implements vfs.SelfOpener.
func (p *ptmx) OpensItself() {}

// Open implements vfs.Inode.
func (p *ptmx) Open(ctx vfs.Context, _ *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	return p.fs.openMaster(ctx, flags)
}

// slave is the node of one pseudoterminal's slave side.
type slave struct {
	vfs.LeafDefaults
	vfs.PseudoAttr
	t *tty.TTY
}

// Attr and SetAttr are those of PseudoAttr.
func (s *slave) Attr(ctx vfs.Context) (vfs.Attr, error)        { return s.PseudoAttr.Attr(ctx) }
func (s *slave) SetAttr(ctx vfs.Context, a *vfs.SetAttr) error { return s.PseudoAttr.SetAttr(ctx, a) }

// OpensItself implements vfs.SelfOpener.
func (s *slave) OpensItself() {}

// Open implements vfs.Inode.
func (s *slave) Open(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileOps, error) {
	return s.t.Open(ctx, d, flags)
}

// openMaster makes a pseudoterminal with the lowest free number.
func (fs *FS) openMaster(ctx vfs.Context, flags uint32) (vfs.FileOps, error) {
	var k *kernel.Kernel
	if task, ok := ctx.(*kernel.Task); ok {
		k = task.Kernel()
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := uint32(0)
	for fs.ptys[n] != nil {
		n++
	}
	if n >= fs.maxPtys {
		return nil, abi.ENOSPC
	}
	name := strconv.FormatUint(uint64(n), 10)
	node := &slave{}
	t, m := tty.New(k, n, func() {
		fs.root.Remove(name)
		fs.mu.Lock()
		delete(fs.ptys, n)
		fs.mu.Unlock()
	}, func(ctx vfs.Context, flags uint32) (*vfs.File, error) { return fs.reopen(ctx, node, name, flags) })
	fs.ptys[n] = t
	node.t = t
	node.InitAttr(fs.PseudoSuperblock, abi.S_IFCHR|fs.mode)
	node.SetRdev(vfs.MakeDev(slaveMajor, n))
	c := ctx.Cred()
	uid, gid := c.FSUID, c.FSGID
	if fs.uid >= 0 {
		uid = cred.UID(fs.uid)
	}
	if fs.gid >= 0 {
		gid = cred.GID(fs.gid)
	}
	node.SetOwner(uid, gid)
	fs.root.Add(name, node)
	return m, nil
}

// reopen opens a slave for TIOCGPTPEER: by its usual name if that leads to it,
// else without one.
func (fs *FS) reopen(ctx vfs.Context, node *slave, name string, flags uint32) (*vfs.File, error) {
	flags &= abi.O_ACCMODE | abi.O_NOCTTY | abi.O_NONBLOCK | abi.O_CLOEXEC
	if p, err := ctx.FSContext().VFS().Lookup(ctx, vfs.Path{}, "/dev/pts/"+name, 0); err == nil && p.Inode() == vfs.Inode(node) {
		return ctx.FSContext().VFS().OpenPath(ctx, p, vfs.OpenHow{Flags: flags})
	}
	ops, err := node.Open(ctx, nil, flags)
	if err != nil {
		return nil, err
	}
	return vfs.NewAnonFile(ops, flags, "/dev/pts/"+name), nil
}
