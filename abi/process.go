package abi

import "encoding/binary"

// Constants of the process calls that the headers give as enumerators or that
// lie in kernel-internal headers.
const (
	P_ALL   = 0 // waitid (uapi/linux/wait.h)
	P_PID   = 1
	P_PGID  = 2
	P_PIDFD = 3

	PIDFD_NONBLOCK = O_NONBLOCK // uapi/linux/pidfd.h
	PIDFD_THREAD   = O_EXCL

	PID_MAX = 32768 // PID_MAX_DEFAULT

	// Secure bits (uapi/linux/securebits.h).
	SECBIT_NOROOT                 = 1 << 0
	SECBIT_NOROOT_LOCKED          = 1 << 1
	SECBIT_NO_SETUID_FIXUP        = 1 << 2
	SECBIT_NO_SETUID_FIXUP_LOCKED = 1 << 3
	SECBIT_KEEP_CAPS              = 1 << 4
	SECBIT_KEEP_CAPS_LOCKED       = 1 << 5
	SECBIT_NO_CAP_AMBIENT_RAISE   = 1 << 6
	SECBIT_NO_CAP_AMBIENT_LOCKED  = 1 << 7
	SECURE_ALL_BITS               = 0x55
	SECURE_ALL_LOCKS              = 0xaa

	CAPABILITY_VERSION_1 = 0x19980330 // uapi/linux/capability.h
	CAPABILITY_VERSION_2 = 0x20071026
	CAPABILITY_VERSION_3 = 0x20080522

	TASK_COMM_LEN = 16

	SCHED_FLAG_SUGOV = 0x10000000
)

// A Rusage is a struct rusage (uapi/linux/resource.h).
type Rusage struct {
	Utime, Stime             Timeval
	MaxRSS                   int64 // KiB
	IxRSS, IdRSS, IsRSS      int64
	MinFlt, MajFlt, NSwap    int64
	InBlock, OuBlock         int64
	MsgSnd, MsgRcv, NSignals int64
	NVCSw, NIVCSw            int64
}

// RusageSize is sizeof(struct rusage).
const RusageSize = 144

// MarshalTo writes r to b.
func (r *Rusage) MarshalTo(b []byte) {
	r.Utime.MarshalTo(b)
	r.Stime.MarshalTo(b[16:])
	for i, v := range [...]int64{r.MaxRSS, r.IxRSS, r.IdRSS, r.IsRSS, r.MinFlt, r.MajFlt, r.NSwap,
		r.InBlock, r.OuBlock, r.MsgSnd, r.MsgRcv, r.NSignals, r.NVCSw, r.NIVCSw} {
		binary.LittleEndian.PutUint64(b[32+8*i:], uint64(v))
	}
}

// CloneArgs is struct clone_args (uapi/linux/sched.h), all of it doublewords.
type CloneArgs struct {
	Flags, Pidfd, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize, Cgroup uint64
}

// UnmarshalFrom reads c from b, which holds CLONE_ARGS_SIZE_VER2 bytes.
func (c *CloneArgs) UnmarshalFrom(b []byte) {
	for i, p := range [...]*uint64{&c.Flags, &c.Pidfd, &c.ChildTID, &c.ParentTID, &c.ExitSignal, &c.Stack,
		&c.StackSize, &c.TLS, &c.SetTID, &c.SetTIDSize, &c.Cgroup} {
		*p = binary.LittleEndian.Uint64(b[8*i:])
	}
}

// A Rlimit is a struct rlimit64 (uapi/linux/resource.h).
type Rlimit struct{ Cur, Max uint64 }

// RlimInfinity means no limit.
const RlimInfinity = ^uint64(0)

// UtsSize is sizeof(struct new_utsname), UtsLen the room of one member.
const (
	UtsLen  = 65
	UtsSize = 6 * UtsLen
)

// A Utsname is a struct new_utsname (uapi/linux/utsname.h).
type Utsname struct{ Sysname, Nodename, Release, Version, Machine, Domainname string }

// MarshalTo writes u to b.
func (u *Utsname) MarshalTo(b []byte) {
	clear(b[:UtsSize])
	for i, s := range [...]string{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		copy(b[i*UtsLen:(i+1)*UtsLen-1], s)
	}
}

// SysinfoSize is sizeof(struct sysinfo).
const SysinfoSize = 112

// A Sysinfo is a struct sysinfo (uapi/linux/sysinfo.h); memory in units of Unit bytes.
type Sysinfo struct {
	Uptime                                                       int64
	Loads                                                        [3]uint64
	TotalRAM, FreeRAM, SharedRAM, BufferRAM, TotalSwap, FreeSwap uint64
	Procs                                                        uint16
	TotalHigh, FreeHigh                                          uint64
	Unit                                                         uint32
}

// MarshalTo writes s to b.
func (s *Sysinfo) MarshalTo(b []byte) {
	le := binary.LittleEndian
	clear(b[:SysinfoSize])
	for i, v := range [...]uint64{uint64(s.Uptime), s.Loads[0], s.Loads[1], s.Loads[2], s.TotalRAM, s.FreeRAM,
		s.SharedRAM, s.BufferRAM, s.TotalSwap, s.FreeSwap} {
		le.PutUint64(b[8*i:], v)
	}
	le.PutUint16(b[80:], s.Procs)
	le.PutUint64(b[88:], s.TotalHigh)
	le.PutUint64(b[96:], s.FreeHigh)
	le.PutUint32(b[104:], s.Unit)
}

// Bits of personality(2) (uapi/linux/personality.h).
const (
	ADDR_NO_RANDOMIZE  = 0x0040000
	READ_IMPLIES_EXEC  = 0x0400000
	ADDR_COMPAT_LAYOUT = 0x0200000
	STICKY_TIMEOUTS    = 0x4000000
)
