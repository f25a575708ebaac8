//go:build cgo

package gofer_test

import (
	"golang.org/x/sys/unix"

	"garrison/internal/seccomp"
)

// libcRules are what the C library makes threads with, where the test binary is
// linked with it; runsc is not.
var libcRules = []seccomp.Rule{{Nr: unix.SYS_CLONE3}, {Nr: unix.SYS_CLONE}, {Nr: unix.SYS_SET_ROBUST_LIST}, {Nr: unix.SYS_RSEQ}, {Nr: unix.SYS_MPROTECT}}
