package kernel

import (
	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/loader"
	"garrison/sentry/mm"
	"garrison/sentry/vfs"
)

// A program is what loadProgram has prepared.
type program struct {
	entry, sp        uint64
	cred             *cred.Cred
	secure, readable bool
	comm             string
}

// loadProgram fills m with a program. newCred says what credentials the file
// that is run in the end gives. The reference to a.File is taken over.
func (k *Kernel) loadProgram(t *Task, m *mm.MM, a *ExecArgs, old *cred.Cred, newCred func(*vfs.File) *cred.Cred) (*program, error) {
	defer a.File.DecRef()
	p := &program{cred: old, readable: true}
	info, err := k.loader.Load(t, m, loader.Args{
		File: a.File, Path: a.Path, Argv: a.Argv, Envv: a.Envv,
		Open: func(path string) (*vfs.File, error) {
			return k.openExec(t, t.FSContext().Cwd(), path, vfs.Follow)
		},
		Creds: func(f *vfs.File) (loader.Creds, error) {
			c := newCred(f)
			p.cred, p.secure = c, isSecure(old, c)
			if path := f.Path(); path.Valid() && path.Access(t, vfs.MayRead) != nil {
				p.readable = false
			}
			return loader.Creds{UID: uint32(c.RUID), EUID: uint32(c.EUID), GID: uint32(c.RGID), EGID: uint32(c.EGID),
				Secure: p.secure}, nil
		},
		StackLimit: t.tg.limits.Cur(abi.RLIMIT_STACK),
		PathGone:   a.ByFD && a.Cloexec,
		NoRandom:   t.personality&addrNoRandomize != 0,
	})
	if err != nil {
		return nil, err
	}
	info.File.DecRef()
	p.entry, p.sp, p.comm = uint64(info.Entry), uint64(info.StackPtr), info.Comm
	return p, nil
}

// addrNoRandomize is ADDR_NO_RANDOMIZE (uapi/linux/personality.h).
const addrNoRandomize = 0x0040000
