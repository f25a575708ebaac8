package tty

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/vfs"
)

// An Opener is the owner of a kernel.Terminal that can be opened again.
type Opener interface {
	Open(ctx vfs.Context, d *vfs.Dentry, flags uint32) (vfs.FileOps, error)
}

// OpenCurrent opens /dev/tty: the controlling terminal, ENXIO without one (tty(4)).
func OpenCurrent(ctx vfs.Context, d *vfs.Dentry, _ uint64, flags uint32) (vfs.FileOps, error) {
	task, ok := ctx.(*kernel.Task)
	if !ok {
		return nil, abi.ENXIO
	}
	term := task.Terminal()
	if term == nil {
		return nil, abi.ENXIO
	}
	o, ok := term.Owner.(Opener)
	if !ok {
		return nil, abi.ENXIO
	}
	return o.Open(ctx, d, flags|abi.O_NOCTTY)
}

// Register makes v open /dev/tty, and /dev/console, which is the same here.
func Register(v *vfs.VFS) {
	v.RegisterDevice(abi.S_IFCHR, 5, 0, OpenCurrent)
	v.RegisterDevice(abi.S_IFCHR, 5, 1, OpenCurrent)
}
