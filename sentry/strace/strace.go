// Package strace writes a guest's system calls to a log in the style of
// strace(1), from the argument kinds in the system call table.
//
// It decodes what helps a person follow a program: names, flags, strings,
// small structures. It changes nothing, never fails, and reads guest memory
// once, bounded, so a hostile guest can only make its own lines ugly.
//
// Lock order: Log.mu is a leaf, held for one write.
package strace

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
)

// maxBytes is how much of a buffer is shown.
const maxBytes = 64

// A Log is a kernel.Tracer that writes lines.
type Log struct {
	mu sync.Mutex
	w  io.Writer
}

// New returns a Log that writes to w, one Write a line.
func New(w io.Writer) *Log { return &Log{w: w} }

var _ kernel.Tracer = (*Log)(nil)

func (l *Log) line(t *kernel.Task, s string) {
	b := fmt.Appendf(nil, "[%4d] %s\n", t.TID(), s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w.Write(b)
}

// Event implements kernel.Tracer.
func (l *Log) Event(t *kernel.Task, msg string) { l.line(t, msg) }

// Enter implements kernel.Tracer. It formats what must be read before the call,
// and announces calls that may not return.
func (l *Log) Enter(t *kernel.Task, row *kernel.Row, nr uintptr, a *kernel.Args) any {
	if row == nil || row.Name == "" {
		return nil
	}
	args := make([]string, min(len(row.Args), len(a)))
	for i := range args {
		if !shownAfter(row.Args[i]) {
			args[i] = formatIn(t, row.Args[i], a, i)
		}
	}
	switch nr {
	case abi.SYS_exit, abi.SYS_exit_group, abi.SYS_execve, abi.SYS_execveat:
		l.line(t, row.Name+"("+strings.Join(args, ", ")+") ...")
	}
	return args
}

// Exit implements kernel.Tracer.
func (l *Log) Exit(t *kernel.Task, row *kernel.Row, nr uintptr, a *kernel.Args, state any, ret uintptr, err error, elapsedNs int64) {
	var b strings.Builder
	if args, ok := state.([]string); ok {
		for i := range args {
			if !shownAfter(row.Args[i]) {
				continue
			}
			if err != nil {
				args[i] = pointer(a[i])
			} else {
				args[i] = formatOut(t, row.Args[i], a, i, ret)
			}
		}
		b.WriteString(row.Name + "(" + strings.Join(args, ", ") + ")")
	} else {
		fmt.Fprintf(&b, "syscall_%d(%#x, %#x, %#x, %#x, %#x, %#x)", nr, a[0], a[1], a[2], a[3], a[4], a[5])
	}
	switch e, _ := err.(abi.Errno); {
	case err == kernel.ErrNoResult:
		b.WriteString(" = ?")
	case e != 0:
		b.WriteString(" = -1 " + e.Name())
	case err != nil:
		b.WriteString(" = -1 " + err.Error())
	case nr == abi.SYS_mmap || nr == abi.SYS_brk || nr == abi.SYS_mremap || nr == abi.SYS_shmat:
		fmt.Fprintf(&b, " = %#x", ret)
	default:
		fmt.Fprintf(&b, " = %d", int64(ret))
	}
	fmt.Fprintf(&b, " <%d us>", elapsedNs/1000)
	l.line(t, b.String())
}

// shownAfter reports kinds whose content the call makes.
func shownAfter(k kernel.ArgKind) bool {
	switch k {
	case kernel.BufOut, kernel.IovOut, kernel.StatOut, kernel.StatxOut, kernel.WaitStatOut, kernel.SigSetOut,
		kernel.SigActOut, kernel.SigInfoOut, kernel.TimespecOut, kernel.TimevalOut, kernel.ItimerOut, kernel.ItimerspecOut,
		kernel.RlimitOut, kernel.RusageOut, kernel.SockAddrOut, kernel.MsgHdrOut, kernel.FDPairOut, kernel.UtsOut,
		kernel.IntOut, kernel.LongOut:
		return true
	}
	return false
}

// memory is the task's memory, or nil when it has none any more.
func memory(t *kernel.Task) *mm.MM { return t.MM() }

func pointer(v uint64) string {
	if v == 0 {
		return "NULL"
	}
	return fmt.Sprintf("%#x", v)
}

// stringAt shows the NUL-terminated string at addr.
func stringAt(t *kernel.Task, addr uint64, limit int) string {
	m := memory(t)
	if m == nil || addr == 0 {
		return pointer(addr)
	}
	s, err := m.CopyInString(usermem.Addr(addr), limit)
	if err != nil {
		return pointer(addr)
	}
	return strconv.Quote(s)
}

// bytesAt shows the first of n bytes at addr.
func bytesAt(t *kernel.Task, addr, n uint64) string {
	m := memory(t)
	if m == nil || addr == 0 {
		return pointer(addr)
	}
	b := make([]byte, min(n, maxBytes))
	got, err := m.CopyIn(usermem.Addr(addr), b)
	if err != nil && got == 0 && n > 0 {
		return pointer(addr)
	}
	return quote(b[:got], n > uint64(got))
}

// quote shows bytes as a string; more says that there are others behind them.
func quote(b []byte, more bool) string {
	s := strconv.Quote(string(b))
	if more {
		s += "..."
	}
	return s
}
