package cmd

import (
	"fmt"
	"os"

	"garrison/internal/hostproc"
	"garrison/runsc/boot"
	"garrison/runsc/config"
	"garrison/runsc/sandbox"
)

// bootMain is the Sentry's process.
func bootMain() int {
	hostproc.SetName("runsc-boot")
	var b config.Boot
	if err := readConfig(&b); err != nil {
		fmt.Fprintf(os.Stderr, "runsc boot: %v\n", err)
		return sandbox.ExitFailed
	}
	if err := boot.Run(&b); err != nil {
		fmt.Fprintf(os.Stderr, "runsc boot: %v\n", err)
		return sandbox.ExitFailed
	}
	return 0
}
