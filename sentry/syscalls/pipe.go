package syscalls

import (
	"encoding/binary"
	"strconv"

	"garrison/abi"
	"garrison/sentry/fs/pipe"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var pipeCalls = []kernel.Row{
	{Nr: abi.SYS_pipe, Name: "pipe", Fn: sysPipe, Args: []kernel.ArgKind{kernel.FDPairOut}},
	{Nr: abi.SYS_pipe2, Name: "pipe2", Fn: sysPipe2, Args: []kernel.ArgKind{kernel.FDPairOut, kernel.OpenFlags}},
}

// installPair gives two files descriptors and writes the numbers to addr. It
// takes the references over, whatever happens.
func installPair(t *kernel.Task, addr usermem.Addr, cloexec bool, a, b *vfs.File) error {
	fds, err := t.FDTable().NewFDs(t.ThreadGroup().Limits().Cur(abi.RLIMIT_NOFILE), cloexec, a, b)
	if err != nil {
		a.DecRef()
		b.DecRef()
		return err
	}
	var out [8]byte
	binary.LittleEndian.PutUint32(out[:], uint32(fds[0]))
	binary.LittleEndian.PutUint32(out[4:], uint32(fds[1]))
	if _, err := t.Memory().CopyOut(addr, out[:]); err != nil {
		t.FDTable().Close(t, fds[0])
		t.FDTable().Close(t, fds[1])
		return err
	}
	return nil
}

func sysPipe(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, makePipe(t, a.Addr(0), 0) }

func sysPipe2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, makePipe(t, a.Addr(0), a.Uint(1))
}

func makePipe(t *kernel.Task, addr usermem.Addr, flags uint32) error {
	if flags&^uint32(abi.O_CLOEXEC|abi.O_NONBLOCK|abi.O_DIRECT) != 0 {
		return abi.EINVAL
	}
	r, w := pipe.New(t)
	name := "pipe:[" + strconv.FormatUint(r.Pipe().Ino(), 10) + "]"
	rf := vfs.NewAnonFile(r, abi.O_RDONLY|flags&abi.O_NONBLOCK, name)
	wf := vfs.NewAnonFile(w, abi.O_WRONLY|flags&(abi.O_NONBLOCK|abi.O_DIRECT), name)
	return installPair(t, addr, flags&abi.O_CLOEXEC != 0, rf, wf)
}
