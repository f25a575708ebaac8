package hostmem

import (
	"runtime"
	"runtime/debug"
)

// Guarded calls fn and reports whether it got through without meeting memory
// that the host took away (a mapped file that was truncated: SIGBUS). Other
// panics pass.
func Guarded(fn func()) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if e := recover(); e != nil {
			if _, isFault := e.(interface {
				runtime.Error
				Addr() uintptr
			}); !isFault {
				panic(e)
			}
			ok = false
		}
	}()
	fn()
	return true
}
