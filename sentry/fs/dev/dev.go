// Package dev holds the memory devices of mem(4) and random(4): null, zero,
// full, random and urandom, and fills a devtmpfs with their nodes.
//
// It does not know terminals (fs/tty, fs/devpts) nor any device of the host:
// nothing here reaches a host device node. Random bytes come from the Go
// runtime's getrandom(2).
//
// It has no locks.
package dev

import (
	"crypto/rand"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// memMajor is the major number of the memory devices
// (Documentation/admin-guide/devices.txt).
const memMajor = 1

// Minor numbers of the memory devices.
const (
	minorNull    = 3
	minorZero    = 5
	minorFull    = 7
	minorRandom  = 8
	minorURandom = 9
)

// ops are what the memory devices have in common: always ready, seekable
// without effect.
type ops struct {
	vfs.FileDefaults
}

// Seek accepts everything and stays at 0 (drivers/char/mem.c, null_lseek).
func (ops) Seek(vfs.Context, *vfs.File, int64, int64, int) (int64, error) { return 0, nil }

// Readiness is always readable and writable.
func (ops) Readiness(mask wait.Events) wait.Events {
	return mask & (abi.EPOLLIN | abi.EPOLLRDNORM | abi.EPOLLOUT | abi.EPOLLWRNORM)
}

// discard takes all that src holds, without looking at guest memory: /dev/null
// accepts bad addresses.
func discard(src *usermem.Buffer, off int64) (n, end int64, err error) {
	n = int64(src.Len())
	return n, off + n, nil
}

type null struct{ ops }

// CannotPoll says that epoll refuses the file, as it does on Linux.
func (null) CannotPoll() {}

func (null) Read(vfs.Context, *vfs.File, *usermem.Buffer, int64, vfs.IOFlags) (int64, error) {
	return 0, nil
}

func (null) Write(_ vfs.Context, _ *vfs.File, src *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return discard(src, off)
}

// zero is also the reading half of full.
type zero struct {
	ops
	pages *pagefile.File
}

// CannotPoll says that epoll refuses the file, as it does on Linux.
func (zero) CannotPoll() {}

func (zero) Read(_ vfs.Context, _ *vfs.File, dst *usermem.Buffer, _ int64, _ vfs.IOFlags) (int64, error) {
	n, err := dst.Zero(dst.Len())
	if n > 0 {
		err = nil
	}
	return int64(n), err
}

func (zero) Write(_ vfs.Context, _ *vfs.File, src *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return discard(src, off)
}

// Mappable makes a mapping of /dev/zero an anonymous one (mem(4)).
func (z zero) Mappable(_ vfs.Context, _ *vfs.File, _, flags uint32) (mm.Mappable, error) {
	return nil, nil
}

type full struct{ zero }

func (full) Write(_ vfs.Context, _ *vfs.File, src *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, int64, error) {
	if src.Len() == 0 {
		return 0, off, nil
	}
	return 0, off, abi.ENOSPC
}

type random struct{ ops }

func (random) Read(_ vfs.Context, _ *vfs.File, dst *usermem.Buffer, _ int64, _ vfs.IOFlags) (int64, error) {
	var chunk [512]byte
	done := 0
	for dst.Len() > 0 {
		p := chunk[:min(len(chunk), dst.Len())]
		rand.Read(p)
		n, err := dst.Write(p)
		done += n
		if err != nil {
			if done > 0 {
				err = nil
			}
			return int64(done), err
		}
	}
	return int64(done), nil
}

// Write mixes nothing in: the host's pool is not a guest's to stir. Like Linux
// it reads the bytes and reports them taken.
func (random) Write(_ vfs.Context, _ *vfs.File, src *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, int64, error) {
	return discard(src, off)
}

// rndGetEntCnt is RNDGETENTCNT (uapi/linux/random.h).
const rndGetEntCnt = 0x80045200

func (random) Ioctl(ctx vfs.Context, _ *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	if cmd != rndGetEntCnt {
		return 0, abi.EINVAL
	}
	// Since Linux 5.18 the count is always full once the pool is ready (random(4)).
	return 0, usermem.CopyOutUint32(ctx.Memory(), usermem.Addr(arg), 256)
}

// Register makes v open the memory devices. pages backs private mappings of
// /dev/zero.
func Register(v *vfs.VFS, pages *pagefile.File) {
	for minor, o := range map[uint32]vfs.FileOps{
		minorNull: null{}, minorZero: zero{pages: pages}, minorFull: full{zero{pages: pages}},
		minorRandom: random{}, minorURandom: random{},
	} {
		v.RegisterDevice(abi.S_IFCHR, memMajor, minor,
			func(vfs.Context, *vfs.Dentry, uint64, uint32) (vfs.FileOps, error) { return o, nil })
	}
}

// ttyMajor is the major number of /dev/tty, /dev/console and /dev/ptmx, which
// fs/tty and fs/devpts open.
const ttyMajor = 5

// nodes are the device nodes of a container's /dev (the OCI runtime
// specification's default devices).
var nodes = []struct {
	name         string
	perm         uint16
	major, minor uint32
}{
	{"null", 0o666, memMajor, minorNull},
	{"zero", 0o666, memMajor, minorZero},
	{"full", 0o666, memMajor, minorFull},
	{"random", 0o666, memMajor, minorRandom},
	{"urandom", 0o666, memMajor, minorURandom},
	{"tty", 0o666, ttyMajor, 0},
}

// links are the symbolic links there.
var links = []struct{ name, target string }{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

// Populate makes the nodes, links and mount points of a container's /dev in
// root, the root directory of a new tmpfs. ctx's umask is not applied.
func Populate(ctx vfs.Context, root vfs.Inode) error {
	for _, n := range nodes {
		if _, err := root.Mknod(ctx, n.name, abi.S_IFCHR|n.perm, vfs.MakeDev(n.major, n.minor)); err != nil {
			return err
		}
	}
	for _, l := range links {
		if _, err := root.Symlink(ctx, l.name, l.target); err != nil {
			return err
		}
	}
	for _, d := range []string{"pts", "shm", "mqueue"} {
		if _, err := root.Mkdir(ctx, d, 0o755); err != nil {
			return err
		}
	}
	return nil
}
