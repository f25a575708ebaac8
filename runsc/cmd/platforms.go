package cmd

import (
	"context"
	"flag"
	"fmt"

	"github.com/google/subcommands"

	"garrison/runsc/boot"
)

// platforms says which platforms work on this host.
type platforms struct{}

func (*platforms) Name() string { return "platforms" }
func (*platforms) Synopsis() string {
	return "say which platforms work on this host, and why others do not"
}
func (*platforms) SetFlags(*flag.FlagSet) {}
func (*platforms) Usage() string {
	return "platforms\n\tA platform is the way in which guest code is run and its system calls are\n\tcaught; choose one with --platform.\n\n"
}

func (*platforms) Execute(context.Context, *flag.FlagSet, ...any) subcommands.ExitStatus {
	for _, p := range boot.Platforms() {
		if err := p.Check(); err != nil {
			fmt.Printf("%-10s does not work: %v\n", p.Name, err)
		} else {
			fmt.Printf("%-10s works\n", p.Name)
		}
	}
	return subcommands.ExitSuccess
}
