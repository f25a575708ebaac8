//go:build !cgo

package gofer_test

import "garrison/internal/seccomp"

var libcRules []seccomp.Rule
