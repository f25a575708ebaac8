package wait

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clockBase ties Go's monotonic clock to CLOCK_MONOTONIC: Go reads the same
// clock through the vDSO but hides its origin.
var clockBase = sync.OnceValue(func() (b struct {
	at time.Time
	ns int64
}) {
	var ts unix.Timespec
	b.at = time.Now()
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) == nil {
		b.ns = ts.Nano()
	}
	return b
})

// MonotonicNs is CLOCK_MONOTONIC in nanoseconds, what BlockUntil's deadlines
// are on. It makes no system call after the first.
func MonotonicNs() int64 {
	b := clockBase()
	return b.ns + int64(time.Since(b.at))
}
