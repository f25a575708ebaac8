package boot

import (
	"fmt"
	"io"
)

// A PlatformInfo is a platform that users can choose.
type PlatformInfo struct {
	Name  string
	Check func() error
}

// Platforms lists all of them, the default first.
func Platforms() []PlatformInfo { return nil }

// PrintSyscalls writes the table of system calls.
func PrintSyscalls(w io.Writer, markdown bool) { fmt.Fprintln(w) }
