// Package loader makes a program of a file: it reads scripts and ELF images
// (fs/exec.c, fs/binfmt_script.c and fs/binfmt_elf.c in Linux) and fills a
// fresh address space with the program, its interpreter, the vDSO and the
// initial stack.
//
// It does not change the calling task: until Load succeeds nothing is lost. It
// does not open files by itself, nor decide credentials: functions in Args do.
// What an image says is never trusted.
//
// It has no locks.
package loader

import (
	"garrison/abi"
	"garrison/internal/hostaux"
	"garrison/platform"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vdso"
	"garrison/sentry/vfs"
)

// Limits of execve(2), "Limits on size of arguments and environment".
const (
	MaxArgStrlen = 131072 // MAX_ARG_STRLEN: one string with its NUL
	argMax       = 131072 // ARG_MAX: always allowed
	stackLimMax  = 8 << 20 / 4 * 3

	headSize    = 256 // BINPRM_BUF_SIZE: what decides about the format
	maxRewrites = 5   // scripts that interpret scripts
)

// A Loader loads programs. One exists per sandbox.
type Loader struct {
	vdso                       *vdso.VDSO
	hwcap, hwcap2, minSigStack uint64
}

// New makes a Loader; it writes the vDSO to the page file.
func New(pf *pagefile.File, p platform.Platform) (*Loader, error) {
	v, err := vdso.New(pf, p.Layout())
	if err != nil {
		return nil, err
	}
	l := &Loader{vdso: v}
	l.hwcap, _ = hostaux.Get(abi.AT_HWCAP)
	l.hwcap2, _ = hostaux.Get(abi.AT_HWCAP2)
	l.minSigStack, _ = hostaux.Get(abi.AT_MINSIGSTKSZ)
	return l, nil
}

// VDSO is what all programs have mapped.
func (l *Loader) VDSO() *vdso.VDSO { return l.vdso }

// Creds is what the auxiliary vector says of the new program's credentials.
type Creds struct {
	UID, EUID, GID, EGID uint32
	Secure               bool // AT_SECURE: set-user-ID and the like
}

// Args says what to load.
type Args struct {
	// File is the file to run. The caller has checked that it may, and keeps its
	// reference.
	File *vfs.File
	// Path is the name that it was found by: scripts and AT_EXECFN show it.
	Path string
	Argv []string
	Envv []string
	// Open opens an interpreter for execution, with the checks of execve(2)
	// (ENOENT, EACCES, ...), and returns a reference.
	Open func(path string) (*vfs.File, error)
	// Creds is called with the file that is the program in the end: a script's
	// interpreter, but not the dynamic linker.
	Creds func(f *vfs.File) (Creds, error)
	// StackLimit is RLIMIT_STACK in bytes.
	StackLimit uint64
	// PathGone says that Path can't be opened by an interpreter: a descriptor
	// that is close-on-exec (fexecve(3), BUGS).
	PathGone bool
	// NoRandom places everything at fixed addresses (ADDR_NO_RANDOMIZE).
	NoRandom bool
}

// Info is a loaded program.
type Info struct {
	Entry    usermem.Addr // first instruction
	StackPtr usermem.Addr
	// File is the program, with a reference for the caller. The MM has its own.
	File *vfs.File
	// Comm is the base name of Path, for the task's name.
	Comm string
	// Sigreturn is the vDSO's signal restorer.
	Sigreturn usermem.Addr
}

// Fatal is an error that came after the point of no return: on Linux the old
// program is gone by then, and the process is killed by SIGSEGV.
type Fatal struct{ Errno abi.Errno }

// Error implements error.
func (f Fatal) Error() string { return "cannot map the program: " + f.Errno.Error() }

func fatal(err error) error {
	if e, ok := err.(abi.Errno); ok {
		return Fatal{e}
	}
	return Fatal{abi.ENOMEM}
}

// CheckStrings applies the limits of execve to argv and envv: E2BIG.
func CheckStrings(argv, envv []string, stackLimit uint64) error {
	limit := max(min(stackLimMax, stackLimit/4), argMax)
	ptrs := uint64(max(len(argv), 1)+len(envv)) * 8
	if limit <= ptrs {
		return abi.E2BIG
	}
	limit -= ptrs
	sum := uint64(0)
	for _, list := range [2][]string{argv, envv} {
		for _, s := range list {
			if len(s)+1 > MaxArgStrlen {
				return abi.E2BIG
			}
			if sum += uint64(len(s)) + 1; sum > limit {
				return abi.E2BIG
			}
		}
	}
	return nil
}

// Load fills m, which is fresh, with a program. If it fails, m is to be thrown
// away; the error is the one that execve returns, or a Fatal.
func (l *Loader) Load(ctx vfs.Context, m *mm.MM, a Args) (Info, error) {
	argv := a.Argv
	if len(argv) == 0 {
		argv = []string{""} // since Linux 5.18
	}
	if err := CheckStrings(argv, a.Envv, a.StackLimit); err != nil {
		return Info{}, err
	}
	file, argv, err := l.interpret(ctx, a, argv)
	if err != nil {
		return Info{}, err
	}
	info, err := l.loadELF(ctx, m, file, argv, &a)
	if err != nil {
		file.DecRef()
		return Info{}, err
	}
	info.File = file
	info.Comm = base(a.Path)
	file.IncRef()
	m.SetExe(file)
	return info, nil
}

// interpret follows #! lines. It returns the program, with a reference, and its argv.
func (l *Loader) interpret(ctx vfs.Context, a Args, argv []string) (*vfs.File, []string, error) {
	file, path := a.File, a.Path
	file.IncRef()
	for depth := 0; ; depth++ {
		var head [headSize]byte
		n, err := readAt(ctx, file, head[:], 0)
		if err != nil {
			file.DecRef()
			return nil, nil, err
		}
		interp, arg, ok, err := parseScript(head[:n])
		if err == nil && !ok {
			return file, argv, nil
		}
		if err == nil && depth >= maxRewrites {
			err = abi.ELOOP
		}
		if err == nil && depth == 0 && a.PathGone {
			err = abi.ENOENT
		}
		file.DecRef()
		if err != nil {
			return nil, nil, err
		}
		// argv[0] is replaced by: the interpreter, its argument, the script.
		next := make([]string, 0, len(argv)+2)
		next = append(next, interp)
		if arg != "" {
			next = append(next, arg)
		}
		next = append(next, path)
		argv = append(next, argv[1:]...)
		if err := CheckStrings(argv, a.Envv, a.StackLimit); err != nil {
			return nil, nil, err
		}
		if file, err = a.Open(interp); err != nil {
			return nil, nil, err
		}
		path = interp
	}
}

// parseScript takes a #! line apart (fs/binfmt_script.c): head is the
// beginning of the file, at most headSize bytes.
func parseScript(head []byte) (interp, arg string, ok bool, err error) {
	if len(head) < 2 || head[0] != '#' || head[1] != '!' {
		return "", "", false, nil
	}
	blank := func(c byte) bool { return c == ' ' || c == '\t' }
	// Linux looks at the whole buffer, which is padded with NULs.
	var buf [headSize]byte
	copy(buf[:], head)
	line := buf[2:]
	nl := -1
	for i, c := range line {
		if c == '\n' {
			nl = i
			break
		}
	}
	if nl < 0 {
		// No newline: fine only if the interpreter's name ends within the buffer.
		i := 0
		for i < len(line)-1 && blank(line[i]) {
			i++
		}
		if i == len(line)-1 {
			return "", "", false, abi.ENOEXEC
		}
		for i < len(line) && !blank(line[i]) && line[i] != 0 {
			i++
		}
		if i == len(line) {
			return "", "", false, abi.ENOEXEC
		}
		nl = len(line) - 1
	}
	line = line[:nl]
	for len(line) > 0 && blank(line[len(line)-1]) {
		line = line[:len(line)-1]
	}
	for len(line) > 0 && blank(line[0]) {
		line = line[1:]
	}
	cut := func(b []byte) string {
		for i, c := range b {
			if c == 0 {
				return string(b[:i])
			}
		}
		return string(b)
	}
	i := 0
	for i < len(line) && !blank(line[i]) && line[i] != 0 {
		i++
	}
	interp = string(line[:i])
	if interp == "" {
		return "", "", false, abi.ENOEXEC
	}
	for i < len(line) && blank(line[i]) {
		i++
	}
	return interp, cut(line[i:]), true, nil
}

// readAt reads up to len(p) bytes of f at off; less only at the end of the file.
func readAt(ctx vfs.Context, f *vfs.File, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		// Not Pread: a file that may only be executed can't be read by its opener.
		n, err := f.Ops().Read(ctx, f, usermem.Bytes(p[done:]), off+int64(done), 0)
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += int(n)
	}
	return done, nil
}

func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}
