package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

// sysProcessVMReadv is process_vm_readv(2).
func sysProcessVMReadv(t *kernel.Task, a kernel.Args) (uintptr, error) { return processVM(t, a, false) }

// sysProcessVMWritev is process_vm_writev(2).
func sysProcessVMWritev(t *kernel.Task, a kernel.Args) (uintptr, error) { return processVM(t, a, true) }

func processVM(t *kernel.Task, a kernel.Args, write bool) (uintptr, error) {
	if a[5] != 0 || a.Size(2) > abi.UIO_MAXIOV || a.Size(4) > abi.UIO_MAXIOV {
		return 0, abi.EINVAL
	}
	local, err := usermem.CopyInRanges(t.Memory(), a.Addr(1), int(a.Size(2)))
	if err != nil {
		return 0, err
	}
	remote, err := usermem.CopyInRanges(t.Memory(), a.Addr(3), int(a.Size(4)))
	if err != nil {
		return 0, err
	}
	var mine, theirs usermem.Buffer
	mine.InitRanges(t.Memory(), local)
	if mine.Len() == 0 {
		return 0, nil
	}
	x := t.Kernel().TaskByID(a.Int(0))
	if x == nil {
		return 0, abi.ESRCH
	}
	// The memory first: if x calls execve now, the check is of the new program.
	m := x.MM()
	if !t.MayAttach(x) {
		return 0, abi.EPERM
	}
	if m == nil || !m.TryIncUsers() {
		return 0, abi.ESRCH
	}
	defer m.DecUsers()
	theirs.InitRanges(m, remote)
	src, dst := &theirs, &mine
	if write {
		src, dst = dst, src
	}
	done, err := copyBuffer(dst, src)
	if done > 0 {
		err = nil
	}
	return uintptr(done), err
}

// copyBuffer copies what src has to dst, as far as both go.
func copyBuffer(dst, src *usermem.Buffer) (int, error) {
	chunk := make([]byte, min(64<<10, src.Len(), dst.Len()))
	done := 0
	for src.Len() > 0 && dst.Len() > 0 {
		n, err := src.Read(chunk[:min(len(chunk), src.Len(), dst.Len())])
		w, werr := dst.Write(chunk[:n])
		done += w
		if werr != nil {
			return done, werr
		}
		if err != nil || w < n || n == 0 {
			return done, err
		}
	}
	return done, nil
}
