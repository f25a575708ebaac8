package cmd

import (
	"context"
	"flag"
	"os"

	"github.com/google/subcommands"

	"garrison/runsc/boot"
)

// syscalls prints the table of system calls.
type syscalls struct{ markdown bool }

func (*syscalls) Name() string     { return "syscalls" }
func (*syscalls) Synopsis() string { return "list the system calls that guests can make" }
func (*syscalls) Usage() string {
	return "syscalls [--markdown]\n\tEach with its number and whether it is complete, lacks something, or is refused.\n\n"
}
func (s *syscalls) SetFlags(fs *flag.FlagSet) {
	fs.BoolVar(&s.markdown, "markdown", false, "as a table for docs/syscalls.md")
}

func (s *syscalls) Execute(context.Context, *flag.FlagSet, ...any) subcommands.ExitStatus {
	boot.PrintSyscalls(os.Stdout, s.markdown)
	return subcommands.ExitSuccess
}
