// Package hostaux reads the auxiliary vector that the host gave this process
// (getauxval(3)).
//
// It does not read /proc, which a shut-in process does not have: Go's runtime
// keeps the vector.
//
// It has no locks.
package hostaux

import _ "unsafe" // for go:linkname

// The runtime offers this function to golang.org/x/sys/cpu under this name and
// promises to keep it; the result is the runtime's own memory, not to be changed.
//
//go:linkname runtimeGetAuxv runtime.getAuxv
func runtimeGetAuxv() []uintptr

// Get returns the value of an entry (AT_*).
func Get(tag uint64) (uint64, bool) {
	v := runtimeGetAuxv()
	for i := 0; i+1 < len(v); i += 2 {
		if uint64(v[i]) == tag {
			return uint64(v[i+1]), true
		}
	}
	return 0, false
}
