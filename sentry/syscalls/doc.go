package syscalls

import (
	"fmt"
	"io"
	"strings"

	"garrison/sentry/kernel"
)

//go:generate go test -run TestDocIsCurrent -update .

// WriteDoc prints the table as docs/syscalls.md.
func WriteDoc(w io.Writer) {
	fmt.Fprint(w, "# System calls\n\nPrinted from the table in sentry/syscalls by `go generate ./sentry/syscalls`.\n\n")
	var full, partial, refused int
	t := Table()
	for i := range t {
		switch r := &t[i]; {
		case r.Name == "":
		case r.Support == kernel.Full:
			full++
		case r.Support == kernel.Partial:
			partial++
		default:
			refused++
		}
	}
	fmt.Fprintf(w, "%d complete, %d partial, %d refused.\n\n| number | name | support | what is missing, or why it is refused |\n|---|---|---|---|\n", full, partial, refused)
	for i := range t {
		r := &t[i]
		if r.Name == "" {
			continue
		}
		support := "complete"
		switch r.Support {
		case kernel.Partial:
			support = "partial"
		case kernel.Refused:
			support = "refused"
			if r.Errno != 0 {
				support = r.Errno.Name()
			}
		}
		fmt.Fprintf(w, "| %d | %s | %s | %s |\n", r.Nr, r.Name, support, strings.ReplaceAll(r.Note, "|", "\\|"))
	}
}
