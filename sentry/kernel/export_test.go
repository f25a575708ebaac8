package kernel

import (
	"garrison/abi"
	"garrison/sentry/vfs"
)

// WithTasksLocked runs f while nobody else can look at the tree of tasks.
func WithTasksLocked(k *Kernel, f func()) {
	k.tasks.Lock()
	defer k.tasks.Unlock()
	f()
}

// Send sends a signal to tg without the lock of the tree.
func Send(tg *ThreadGroup, sig int32) { tg.send(tg.leader, kernelInfo(sig), true, false) }

// NewUnbornPIDFD is the descriptor that clone makes before the process.
func NewUnbornPIDFD(k *Kernel) *vfs.File {
	return vfs.NewAnonFile(&PIDFD{k: k, tg: &ThreadGroup{k: k}}, abi.O_RDWR, "anon_inode:[pidfd]")
}
