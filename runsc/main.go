// Command runsc runs programs in a sandbox on a kernel of its own.

// Go's runtime would keep the host's cgroup files open to follow CPU limits: a
// sandbox holds no descriptor of the host's that it was not given.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"garrison/runsc/cmd"
)

func main() { os.Exit(cmd.Main(os.Args)) }
