// Package cmd is the command line: one file per subcommand.
//
// It does not start processes itself (runsc/sandbox does) and does not wire
// the kernel (runsc/boot does). The hidden commands boot and gofer are what
// the sandbox's own processes run.
//
// It has no locks.
package cmd

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/subcommands"
	"golang.org/x/sys/unix"

	"garrison/runsc/config"
	"garrison/runsc/sandbox"
)

// Main runs the command that args name and returns the exit status.
func Main(args []string) int {
	if len(args) > 1 {
		switch args[1] { // the sandbox's own processes take no flags
		case "boot":
			return bootMain()
		case "gofer":
			return goferMain()
		}
	}
	conf := config.Default()
	fs := flag.NewFlagSet("runsc", flag.ContinueOnError)
	fs.Usage = func() {}
	conf.Register(fs)
	cdr := subcommands.NewCommander(fs, "runsc")
	cdr.Register(cdr.HelpCommand(), "")
	cdr.Register(cdr.FlagsCommand(), "")
	cdr.Register(&do{conf: conf}, "")
	cdr.Register(&syscalls{}, "")
	cdr.Register(&platforms{}, "")
	fs.SetOutput(os.Stderr)
	switch err := fs.Parse(args[1:]); err {
	case nil:
	case flag.ErrHelp:
		cdr.Explain(os.Stdout)
		return 0
	default:
		fmt.Fprintln(os.Stderr, "runsc: `runsc flags` lists the global flags")
		return 2
	}
	if fs.NArg() == 0 {
		cdr.Explain(os.Stderr)
		return 2
	}
	return int(cdr.Execute(context.Background(), conf))
}

// fail reports an error to the user, and to --log, and gives the exit status.
func fail(c *config.Config, err error) subcommands.ExitStatus {
	fmt.Fprintf(os.Stderr, "runsc: %v\n", err)
	if c.Log != "" {
		logError(c, err)
	}
	return sandbox.ExitFailed
}

// logError adds the error to the --log file in the form that container
// managers read.
func logError(c *config.Config, err error) {
	f, ferr := os.OpenFile(c.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if ferr != nil {
		fmt.Fprintf(os.Stderr, "runsc: open --log: %v\n", ferr)
		return
	}
	defer f.Close()
	now := time.Now().Format(time.RFC3339Nano)
	if c.LogFormat == "json" {
		b, _ := json.Marshal(struct {
			Msg   string    `json:"msg"`
			Level string    `json:"level"`
			Time  time.Time `json:"time"`
		}{err.Error(), "error", time.Now()})
		fmt.Fprintf(f, "%s\n", b)
		return
	}
	fmt.Fprintf(f, "%s error %s\n", now, strings.TrimSpace(err.Error()))
}

// readConfig decodes what the command line left at sandbox.ConfigFD.
func readConfig(into any) error {
	defer unix.Close(sandbox.ConfigFD)
	var st unix.Stat_t
	if err := unix.Fstat(sandbox.ConfigFD, &st); err != nil || st.Size == 0 || st.Size > 64<<20 {
		return fmt.Errorf("no configuration on descriptor %d: this command is for runsc's own use", sandbox.ConfigFD)
	}
	b := make([]byte, st.Size)
	if n, err := unix.Pread(sandbox.ConfigFD, b, 0); err != nil || n != len(b) {
		return fmt.Errorf("read the configuration: %d bytes of %d, %v", n, len(b), err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("decode the configuration: %w", err)
	}
	return nil
}
