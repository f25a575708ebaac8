package vfs

import (
	"math"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/usermem"
)

// A SystemContext is the Context of work that the Sentry does for itself, as
// root, before or beside all tasks (mounting, opening the first program). It
// has no guest memory, and can't sleep for long: Block waits uninterrupted.
type SystemContext struct {
	C  *cred.Cred
	FS *FSContext
	FD *FDTable
}

// NewSystemContext makes one whose root and working directory are root.
func NewSystemContext(v *VFS, root Path) *SystemContext {
	return &SystemContext{C: cred.NewRoot(nil), FS: NewFSContext(v, root, root, 0), FD: NewFDTable()}
}

// Block implements wait.Blocker.
func (s *SystemContext) Block(ch <-chan struct{}) error { <-ch; return nil }

// BlockUntil implements wait.Blocker; the deadline is ignored.
func (s *SystemContext) BlockUntil(ch <-chan struct{}, _ int64) error { <-ch; return nil }

// Cred implements Context.
func (s *SystemContext) Cred() *cred.Cred { return s.C }

// Memory implements Context.
func (s *SystemContext) Memory() usermem.Memory { return NoMemory{} }

// FSContext implements Context.
func (s *SystemContext) FSContext() *FSContext { return s.FS }

// FDTable implements Context.
func (s *SystemContext) FDTable() *FDTable { return s.FD }

// FileSizeLimit implements Context.
func (s *SystemContext) FileSizeLimit() uint64 { return math.MaxUint64 }

// SendSelf implements Context.
func (s *SystemContext) SendSelf(int) {}

// PID implements Context.
func (s *SystemContext) PID() int32 { return 0 }

// bareContext serves calls to inodes where no task is at hand.
var bareContext Context = &SystemContext{C: cred.NewRoot(nil)}

// NoMemory is an empty address space.
type NoMemory struct{}

// CopyIn implements usermem.Memory.
func (NoMemory) CopyIn(usermem.Addr, []byte) (int, error) { return 0, abi.EFAULT }

// CopyOut implements usermem.Memory.
func (NoMemory) CopyOut(usermem.Addr, []byte) (int, error) { return 0, abi.EFAULT }

// ZeroOut implements usermem.Memory.
func (NoMemory) ZeroOut(usermem.Addr, int) (int, error) { return 0, abi.EFAULT }

// CopyInString implements usermem.Memory.
func (NoMemory) CopyInString(usermem.Addr, int) (string, error) { return "", abi.EFAULT }

// Access implements usermem.Memory.
func (NoMemory) Access(usermem.Addr, int, bool, func([]byte) (int, error)) (int, error) {
	return 0, abi.EFAULT
}
