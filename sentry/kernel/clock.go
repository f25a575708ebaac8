package kernel

import (
	"time"

	"golang.org/x/sys/unix"

	"garrison/abi"
)

// Clocks are the sandbox's clocks. They are the host's, so that guests may read
// them through the host's vDSO.
type Clocks struct {
	base     time.Time
	mono     int64 // CLOCK_MONOTONIC at base
	bootDiff int64 // CLOCK_BOOTTIME - CLOCK_MONOTONIC
	bootNs   int64 // CLOCK_BOOTTIME when the sandbox began
}

func (c *Clocks) init() {
	// Of some readings, the one that was interrupted least is closest.
	best := int64(1 << 62)
	for i := 0; i < 5; i++ {
		t := time.Now()
		m := hostClock(abi.CLOCK_MONOTONIC)
		if d := int64(time.Since(t)); d < best {
			best, c.base, c.mono = d, t, m-d/2
		}
	}
	c.bootDiff = hostClock(abi.CLOCK_BOOTTIME) - hostClock(abi.CLOCK_MONOTONIC)
	if c.bootDiff < 1e6 {
		c.bootDiff = 0 // never suspended: only the time between the readings
	}
	c.bootNs = c.Monotonic() + c.bootDiff
}

func hostClock(id int32) int64 {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds, quickly.
func (c *Clocks) Monotonic() int64 { return c.mono + int64(time.Since(c.base)) }

// Realtime is CLOCK_REALTIME in nanoseconds.
func (c *Clocks) Realtime() int64 { return time.Now().UnixNano() }

// Boottime is CLOCK_BOOTTIME in nanoseconds.
func (c *Clocks) Boottime() int64 { return c.Monotonic() + c.bootDiff }

// SandboxStart is CLOCK_BOOTTIME when the sandbox began.
func (c *Clocks) SandboxStart() int64 { return c.bootNs }

// Read reads a clock that is not a CPU clock; EINVAL for others.
func (c *Clocks) Read(id int32) (int64, error) {
	switch id {
	case abi.CLOCK_REALTIME, abi.CLOCK_REALTIME_ALARM:
		return c.Realtime(), nil
	case abi.CLOCK_MONOTONIC, abi.CLOCK_MONOTONIC_RAW, abi.CLOCK_REALTIME_COARSE, abi.CLOCK_MONOTONIC_COARSE,
		abi.CLOCK_BOOTTIME, abi.CLOCK_TAI:
		// The host's own answer: guests compare it with what the vDSO says.
		return hostClock(id), nil
	case abi.CLOCK_BOOTTIME_ALARM:
		return hostClock(abi.CLOCK_BOOTTIME), nil
	}
	return 0, abi.EINVAL
}

// untilDeadline turns a deadline on clock id into one on the monotonic clock.
func (c *Clocks) MonotonicDeadline(id int32, abs int64) int64 {
	now := c.Monotonic()
	var d int64
	switch id {
	case abi.CLOCK_REALTIME, abi.CLOCK_REALTIME_ALARM:
		d = abs - c.Realtime()
	case abi.CLOCK_TAI:
		d = abs - hostClock(abi.CLOCK_TAI)
	case abi.CLOCK_BOOTTIME, abi.CLOCK_BOOTTIME_ALARM:
		d = abs - c.Boottime()
	default:
		return abs
	}
	if d > 0 && now+d < now {
		return 1<<63 - 1
	}
	return now + d
}
