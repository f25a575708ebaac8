package boot

import (
	"fmt"
	"io"

	"garrison/sentry/kernel"
	"garrison/sentry/syscalls"
)

// PrintSyscalls writes the table of system calls.
func PrintSyscalls(w io.Writer, markdown bool) {
	if markdown {
		fmt.Fprint(w, "| number | name | support | note |\n|---|---|---|---|\n")
	}
	table := syscalls.Table()
	for nr := range table {
		r := &table[nr]
		if r.Name == "" {
			continue
		}
		support, note := "full", r.Note
		switch r.Support {
		case kernel.Partial:
			support = "partial"
		case kernel.Refused:
			support = "refused"
			note = r.Errno.Name() + ": " + note
		}
		if markdown {
			fmt.Fprintf(w, "| %d | %s | %s | %s |\n", nr, r.Name, support, note)
		} else {
			fmt.Fprintf(w, "%3d  %-24s %-8s %s\n", nr, r.Name, support, note)
		}
	}
}
