package kernel

import (
	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/mm"
	"garrison/sentry/vfs"
)

func (k *Kernel) loadProgram(ctx vfs.Context, m *mm.MM, a *ExecArgs, old *cred.Cred, newCred func(*vfs.File) *cred.Cred) (*program, error) {
	return nil, abi.ENOSYS
}
