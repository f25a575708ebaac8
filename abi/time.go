package abi

import "encoding/binary"

// Interval timers and clock ids that the headers give as enumerators, and the
// bits that encode a process's or thread's CPU clock (uapi/linux/time.h,
// include/linux/posix-timers.h).
const (
	ITIMER_REAL    = 0
	ITIMER_VIRTUAL = 1
	ITIMER_PROF    = 2

	CPUCLOCK_PERTHREAD_MASK = 4
	CPUCLOCK_CLOCK_MASK     = 3
	CPUCLOCK_PROF           = 0
	CPUCLOCK_VIRT           = 1
	CPUCLOCK_SCHED          = 2
	CLOCKFD                 = 3

	UserHZ = 100 // clock ticks a second in times(2) and /proc
)

// A Timespec is a struct timespec.
type Timespec struct{ Sec, Nsec int64 }

// Sizes of the time structures.
const (
	TimespecSize   = 16
	TimevalSize    = 16
	ItimervalSize  = 32
	ItimerspecSize = 32
)

// NsToTimespec splits nanoseconds.
func NsToTimespec(ns int64) Timespec {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return Timespec{s, n}
}

// Valid is the check that Linux makes of a time span: not negative, and less
// than a second of nanoseconds.
func (t Timespec) Valid() bool { return t.Sec >= 0 && t.Nsec >= 0 && t.Nsec < 1e9 }

// Ns is the time in nanoseconds, saturated.
func (t Timespec) Ns() int64 {
	const second, most = 1_000_000_000, 1<<63 - 1
	if t.Sec >= most/second {
		return most
	}
	return t.Sec*second + t.Nsec
}

// MarshalTo writes t to b.
func (t Timespec) MarshalTo(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(t.Sec))
	binary.LittleEndian.PutUint64(b[8:], uint64(t.Nsec))
}

// UnmarshalFrom reads t from b.
func (t *Timespec) UnmarshalFrom(b []byte) {
	t.Sec = int64(binary.LittleEndian.Uint64(b))
	t.Nsec = int64(binary.LittleEndian.Uint64(b[8:]))
}

// A Timeval is a struct timeval.
type Timeval struct{ Sec, Usec int64 }

// NsToTimeval splits nanoseconds, rounding down.
func NsToTimeval(ns int64) Timeval {
	t := NsToTimespec(ns)
	return Timeval{t.Sec, t.Nsec / 1000}
}

// Valid is the check that Linux makes of a time span.
func (t Timeval) Valid() bool { return t.Sec >= 0 && t.Usec >= 0 && t.Usec < 1e6 }

// Ns is the time in nanoseconds, saturated.
func (t Timeval) Ns() int64 { return Timespec{t.Sec, t.Usec * 1000}.Ns() }

// MarshalTo writes t to b.
func (t Timeval) MarshalTo(b []byte) { Timespec{t.Sec, t.Usec}.MarshalTo(b) }

// UnmarshalFrom reads t from b.
func (t *Timeval) UnmarshalFrom(b []byte) {
	var s Timespec
	s.UnmarshalFrom(b)
	t.Sec, t.Usec = s.Sec, s.Nsec
}

// An Itimerval is a struct itimerval.
type Itimerval struct{ Interval, Value Timeval }

// MarshalTo writes t to b.
func (t Itimerval) MarshalTo(b []byte) { t.Interval.MarshalTo(b); t.Value.MarshalTo(b[16:]) }

// UnmarshalFrom reads t from b.
func (t *Itimerval) UnmarshalFrom(b []byte) {
	t.Interval.UnmarshalFrom(b)
	t.Value.UnmarshalFrom(b[16:])
}

// An Itimerspec is a struct itimerspec.
type Itimerspec struct{ Interval, Value Timespec }

// MarshalTo writes t to b.
func (t Itimerspec) MarshalTo(b []byte) { t.Interval.MarshalTo(b); t.Value.MarshalTo(b[16:]) }

// UnmarshalFrom reads t from b.
func (t *Itimerspec) UnmarshalFrom(b []byte) {
	t.Interval.UnmarshalFrom(b)
	t.Value.UnmarshalFrom(b[16:])
}
