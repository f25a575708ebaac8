// Package abi is the Linux user-space ABI for amd64 as data: constants under
// their C names, structures as they lie in guest memory, error numbers, and
// pure helpers on bits.
//
// It does not act: it makes no system call, knows no guest memory and keeps no
// state. It imports the standard library only.
//
// It has no locks.
package abi

//go:generate go run garrison/internal/genabi -dir .
