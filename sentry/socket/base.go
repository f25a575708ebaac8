package socket

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/fs/anonfs"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
	"garrison/sentry/wait"
)

// Buffer sizes (net.core.{r,w}mem_{default,max}).
const (
	DefaultBuf = 212992
	maxBuf     = 212992
	minSndbuf  = 4608
	minRcvbuf  = 2304
)

// Base is the common part of every socket; embed it.
type Base struct {
	vfs.FileDefaults
	Family, Type, Protocol int
	Queue                  wait.Queue
	node                   anonfs.Node

	// Read on fast paths.
	SndTimeoNs, RcvTimeoNs atomic.Int64 // 0: none; negative: do not wait
	SndBuf, RcvBuf         atomic.Int32 // as SO_SNDBUF shows them
	PassCred               atomic.Bool
	SoError                atomic.Uint32 // pending error (sk_err), an Errno
	RcvLowat               atomic.Int32

	mu   sync.Mutex
	opts Options
}

// Options are the SOL_SOCKET options that are only stored, or looked at rarely.
type Options struct {
	Debug, ReuseAddr, ReusePort, Keepalive, Broadcast, DontRoute, OOBInline, NoCheck, Timestamp, TimestampNs bool
	PassSec, RxqOvfl, Zerocopy                                                                               bool
	Linger                                                                                                   bool
	LingerSec                                                                                                int32
	Priority, Mark, BusyPoll, IncomingCPU                                                                    int32
	PeekOff                                                                                                  int32
	MaxPacing                                                                                                uint64
}

// Init fills the common part in.
func (b *Base) Init(ctx vfs.Context, family, typ, protocol int) {
	b.Family, b.Type, b.Protocol = family, typ, protocol
	if ctx == nil {
		b.node.Init(nil, abi.S_IFSOCK|0o777, vfs.MakeDev(0, 8))
	} else {
		b.node.Init(ctx.Cred(), abi.S_IFSOCK|0o777, vfs.MakeDev(0, 8))
	}
	b.SndBuf.Store(DefaultBuf)
	b.RcvBuf.Store(DefaultBuf)
	b.RcvLowat.Store(1)
	b.opts.PeekOff = -1
	b.opts.IncomingCPU = -1
}

// Common returns b itself.
func (b *Base) Common() *Base { return b }

// Ino is the inode number, as in "socket:[N]".
func (b *Base) Ino() uint64 { return b.node.Ino() }

// FileInode is what fstat of a socket shows.
func (b *Base) FileInode() vfs.Inode { return &b.node }

// BlocksItself says that reads and writes sleep themselves.
func (b *Base) BlocksItself() {}

// Stream implements vfs.FileOps.
func (b *Base) Stream() bool { return true }

// EventRegister implements vfs.FileOps.
func (b *Base) EventRegister(w *wait.Waiter, mask wait.Events) {
	b.Queue.Add(w, mask|EvErr|EvHup)
}

// EventUnregister implements vfs.FileOps.
func (b *Base) EventUnregister(w *wait.Waiter) { b.Queue.Remove(w) }

// Opts returns a copy of the stored options.
func (b *Base) Opts() Options { b.mu.Lock(); defer b.mu.Unlock(); return b.opts }

// Inherit copies what an accepted socket has from its listener.
func (b *Base) Inherit(l *Base) {
	b.SndBuf.Store(l.SndBuf.Load())
	b.RcvBuf.Store(l.RcvBuf.Load())
	b.RcvLowat.Store(l.RcvLowat.Load())
	b.SndTimeoNs.Store(l.SndTimeoNs.Load())
	b.RcvTimeoNs.Store(l.RcvTimeoNs.Load())
	b.PassCred.Store(l.PassCred.Load())
	b.opts = l.Opts()
}

// SetError sets the pending error and tells waiters.
func (b *Base) SetError(e abi.Errno) {
	b.SoError.Store(uint32(e))
	b.Queue.Notify(EvErr | EvIn | EvOut)
}

// TakeError returns the pending error and clears it (sock_error).
func (b *Base) TakeError() error {
	if b.SoError.Load() == 0 {
		return nil
	}
	if e := b.SoError.Swap(0); e != 0 {
		return abi.Errno(e)
	}
	return nil
}

// Block calls try until it returns something else than EAGAIN, and sleeps in
// between for an event of mask. timeoNs is the socket's timeout: EAGAIN when it
// passes, and then an interruption is EINTR, never restarted (signal(7)).
func (b *Base) Block(ctx wait.Blocker, nonblock bool, mask wait.Events, timeoNs int64, try func() error) error {
	err := try()
	if err != abi.EAGAIN || nonblock || timeoNs < 0 {
		return err
	}
	deadline := int64(0)
	if timeoNs > 0 {
		deadline = wait.MonotonicNs() + timeoNs
	}
	s := wait.NewSleeper()
	b.Queue.Add(&s.Waiter, mask|EvErr|EvHup)
	for {
		if err = try(); err != abi.EAGAIN {
			break
		}
		if deadline == 0 {
			err = ctx.Block(s.C)
		} else if err = ctx.BlockUntil(s.C, deadline); err == abi.ETIMEDOUT {
			err = abi.EAGAIN
			break
		} else if err == abi.ERESTARTSYS {
			err = abi.EINTR
		}
		if err != nil {
			break
		}
	}
	b.Queue.Remove(&s.Waiter)
	s.Free()
	return err
}

// intValue reads an int option value.
func intValue(v []byte) (int32, error) {
	if len(v) < 4 {
		return 0, abi.EINVAL
	}
	return int32(binary.LittleEndian.Uint32(v)), nil
}

// Int makes an int option value.
func Int(v int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(v)) }

// IntValue reads an int option value: EINVAL if it is too short.
func IntValue(v []byte) (int32, error) { return intValue(v) }

func boolInt(v bool) []byte {
	if v {
		return Int(1)
	}
	return Int(0)
}

// Bool makes an int option value of 0 or 1.
func Bool(v bool) []byte { return boolInt(v) }

// timeval reads SO_RCVTIMEO's value (sock_set_timeout).
func timeval(v []byte) (int64, error) {
	if len(v) < 16 {
		return 0, abi.EINVAL
	}
	sec, usec := int64(binary.LittleEndian.Uint64(v)), int64(binary.LittleEndian.Uint64(v[8:]))
	switch {
	case usec < 0 || usec >= 1e6:
		return 0, abi.EDOM
	case sec < 0:
		return -1, nil
	case sec >= math.MaxInt64/1_000_000_000-1:
		return 0, nil
	}
	return sec*1e9 + usec*1e3, nil
}

func timevalBytes(ns int64) []byte {
	ns = max(ns, 0)
	b := binary.LittleEndian.AppendUint64(nil, uint64(ns/1e9))
	return binary.LittleEndian.AppendUint64(b, uint64(ns%1e9/1e3))
}

// SetSockOpt handles SOL_SOCKET; other levels are ENOPROTOOPT.
func (b *Base) SetSockOpt(ctx vfs.Context, level, name int, value []byte) error {
	if level != abi.SOL_SOCKET {
		return abi.ENOPROTOOPT
	}
	switch name {
	case abi.SO_RCVTIMEO_OLD, abi.SO_RCVTIMEO_NEW:
		ns, err := timeval(value)
		if err == nil {
			b.RcvTimeoNs.Store(ns)
		}
		return err
	case abi.SO_SNDTIMEO_OLD, abi.SO_SNDTIMEO_NEW:
		ns, err := timeval(value)
		if err == nil {
			b.SndTimeoNs.Store(ns)
		}
		return err
	case abi.SO_BINDTODEVICE:
		if n := cstring(value); n != "" && n != "lo" {
			return abi.ENODEV
		}
		return nil
	case abi.SO_ATTACH_FILTER, abi.SO_ATTACH_BPF, abi.SO_ATTACH_REUSEPORT_CBPF, abi.SO_ATTACH_REUSEPORT_EBPF:
		return abi.ENOPROTOOPT
	}
	v, err := intValue(value)
	if err != nil {
		return err
	}
	on := v != 0
	b.mu.Lock()
	defer b.mu.Unlock()
	o := &b.opts
	switch name {
	case abi.SO_DEBUG:
		if on && !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
			return abi.EACCES
		}
		o.Debug = on
	case abi.SO_REUSEADDR:
		o.ReuseAddr = on
	case abi.SO_REUSEPORT:
		if on && b.Family != abi.AF_INET && b.Family != abi.AF_INET6 {
			return abi.EOPNOTSUPP
		}
		o.ReusePort = on
	case abi.SO_TYPE, abi.SO_PROTOCOL, abi.SO_DOMAIN, abi.SO_ERROR, abi.SO_ACCEPTCONN, abi.SO_SNDLOWAT:
		return abi.ENOPROTOOPT
	case abi.SO_DONTROUTE:
		o.DontRoute = on
	case abi.SO_BROADCAST:
		o.Broadcast = on
	case abi.SO_SNDBUF:
		b.SndBuf.Store(max(min(uint32v(v), maxBuf)*2, minSndbuf))
	case abi.SO_RCVBUF:
		b.RcvBuf.Store(max(min(uint32v(v), maxBuf)*2, minRcvbuf))
	case abi.SO_SNDBUFFORCE, abi.SO_RCVBUFFORCE:
		if !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
			return abi.EPERM
		}
		if v < 0 {
			v = 0
		}
		v = min(v, 1<<26)
		if name == abi.SO_SNDBUFFORCE {
			b.SndBuf.Store(max(v*2, minSndbuf))
		} else {
			b.RcvBuf.Store(max(v*2, minRcvbuf))
		}
	case abi.SO_KEEPALIVE:
		o.Keepalive = on
	case abi.SO_OOBINLINE:
		o.OOBInline = on
	case abi.SO_NO_CHECK:
		o.NoCheck = on
	case abi.SO_PRIORITY:
		if (v < 0 || v > 6) && !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
			return abi.EPERM
		}
		o.Priority = v
	case abi.SO_LINGER:
		if len(value) < 8 {
			return abi.EINVAL
		}
		o.Linger = on
		if on {
			o.LingerSec = int32(binary.LittleEndian.Uint32(value[4:]))
		}
	case abi.SO_BSDCOMPAT:
	case abi.SO_PASSCRED:
		if b.Family != abi.AF_UNIX && b.Family != abi.AF_NETLINK {
			return abi.EOPNOTSUPP
		}
		b.PassCred.Store(on)
	case abi.SO_PASSSEC:
		o.PassSec = on
	case abi.SO_RCVLOWAT:
		if v < 0 {
			v = math.MaxInt32
		}
		b.RcvLowat.Store(max(v, 1))
	case abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMP_NEW:
		o.Timestamp = on
	case abi.SO_TIMESTAMPNS_OLD, abi.SO_TIMESTAMPNS_NEW:
		o.TimestampNs = on
	case abi.SO_MARK:
		if !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
			return abi.EPERM
		}
		o.Mark = v
	case abi.SO_RXQ_OVFL:
		o.RxqOvfl = on
	case abi.SO_PEEK_OFF:
		if b.Family != abi.AF_UNIX {
			return abi.EOPNOTSUPP
		}
		o.PeekOff = max(v, -1)
	case abi.SO_BUSY_POLL:
		o.BusyPoll = v
	case abi.SO_INCOMING_CPU:
		o.IncomingCPU = v
	case abi.SO_MAX_PACING_RATE:
		o.MaxPacing = uint64(uint32(v))
	case abi.SO_ZEROCOPY:
		o.Zerocopy = on // copies all the same, as Linux may
	case abi.SO_DETACH_FILTER:
		return abi.ENOENT
	default:
		return abi.ENOPROTOOPT
	}
	return nil
}

// uint32v caps a buffer size as Linux's min_t(u32) does.
func uint32v(v int32) int32 {
	if v < 0 {
		return maxBuf
	}
	return v
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// GetSockOpt handles SOL_SOCKET; other levels are EOPNOTSUPP, as Linux's default is.
func (b *Base) GetSockOpt(ctx vfs.Context, level, name, size int) ([]byte, error) {
	if level != abi.SOL_SOCKET {
		return nil, abi.EOPNOTSUPP
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o := &b.opts
	switch name {
	case abi.SO_DEBUG:
		return boolInt(o.Debug), nil
	case abi.SO_REUSEADDR:
		return boolInt(o.ReuseAddr), nil
	case abi.SO_REUSEPORT:
		return boolInt(o.ReusePort), nil
	case abi.SO_TYPE:
		return Int(int32(b.Type)), nil
	case abi.SO_PROTOCOL:
		return Int(int32(b.Protocol)), nil
	case abi.SO_DOMAIN:
		return Int(int32(b.Family)), nil
	case abi.SO_ERROR:
		return Int(int32(b.SoError.Swap(0))), nil
	case abi.SO_DONTROUTE:
		return boolInt(o.DontRoute), nil
	case abi.SO_BROADCAST:
		return boolInt(o.Broadcast), nil
	case abi.SO_SNDBUF:
		return Int(b.SndBuf.Load()), nil
	case abi.SO_RCVBUF:
		return Int(b.RcvBuf.Load()), nil
	case abi.SO_KEEPALIVE:
		return boolInt(o.Keepalive), nil
	case abi.SO_OOBINLINE:
		return boolInt(o.OOBInline), nil
	case abi.SO_NO_CHECK:
		return boolInt(o.NoCheck), nil
	case abi.SO_PRIORITY:
		return Int(o.Priority), nil
	case abi.SO_LINGER:
		return append(boolInt(o.Linger), Int(o.LingerSec)...), nil
	case abi.SO_BSDCOMPAT:
		return Int(0), nil
	case abi.SO_PASSCRED:
		return boolInt(b.PassCred.Load()), nil
	case abi.SO_PASSSEC:
		return boolInt(o.PassSec), nil
	case abi.SO_PEERSEC:
		return nil, abi.ENOPROTOOPT
	case abi.SO_PEERCRED:
		// Only AF_UNIX knows better.
		u := abi.Ucred{PID: 0, UID: ^uint32(0), GID: ^uint32(0)}
		v := make([]byte, abi.SizeofUcred)
		u.MarshalTo(v)
		return v, nil
	case abi.SO_PEERGROUPS:
		return nil, abi.ENODATA
	case abi.SO_RCVLOWAT:
		return Int(b.RcvLowat.Load()), nil
	case abi.SO_SNDLOWAT:
		return Int(1), nil
	case abi.SO_RCVTIMEO_OLD, abi.SO_RCVTIMEO_NEW:
		return timevalBytes(b.RcvTimeoNs.Load()), nil
	case abi.SO_SNDTIMEO_OLD, abi.SO_SNDTIMEO_NEW:
		return timevalBytes(b.SndTimeoNs.Load()), nil
	case abi.SO_TIMESTAMP_OLD, abi.SO_TIMESTAMP_NEW:
		return boolInt(o.Timestamp), nil
	case abi.SO_TIMESTAMPNS_OLD, abi.SO_TIMESTAMPNS_NEW:
		return boolInt(o.TimestampNs), nil
	case abi.SO_TIMESTAMPING_OLD, abi.SO_TIMESTAMPING_NEW, abi.SO_SELECT_ERR_QUEUE, abi.SO_WIFI_STATUS, abi.SO_NOFCS, abi.SO_LOCK_FILTER:
		return Int(0), nil
	case abi.SO_ACCEPTCONN:
		return Int(0), nil // families with listeners answer it
	case abi.SO_MARK:
		return Int(o.Mark), nil
	case abi.SO_RXQ_OVFL:
		return boolInt(o.RxqOvfl), nil
	case abi.SO_PEEK_OFF:
		if b.Family != abi.AF_UNIX {
			return nil, abi.EOPNOTSUPP
		}
		return Int(o.PeekOff), nil
	case abi.SO_BUSY_POLL:
		return Int(o.BusyPoll), nil
	case abi.SO_INCOMING_CPU:
		return Int(o.IncomingCPU), nil
	case abi.SO_MAX_PACING_RATE:
		if o.MaxPacing == 0 {
			return Int(-1), nil
		}
		return Int(int32(o.MaxPacing)), nil
	case abi.SO_ZEROCOPY:
		return boolInt(o.Zerocopy), nil
	case abi.SO_BPF_EXTENSIONS:
		return Int(64), nil
	case abi.SO_COOKIE:
		return binary.LittleEndian.AppendUint64(nil, b.node.Ino()), nil
	case abi.SO_BINDTODEVICE:
		return nil, nil
	case abi.SO_GET_FILTER:
		return nil, nil
	case abi.SO_BINDTOIFINDEX:
		return Int(0), nil
	case abi.SO_INCOMING_NAPI_ID:
		return Int(0), nil
	}
	return nil, abi.ENOPROTOOPT
}

// msgs keeps Msgs for reads and writes, which go through interfaces and would
// allocate one each.
var msgs = sync.Pool{New: func() any { return new(Msg) }}

// NewMsg returns an empty Msg from a pool.
func NewMsg() *Msg { return msgs.Get().(*Msg) }

// Free gives m back, with the file references that it still has.
func (m *Msg) Free() {
	m.Control.Drop()
	m.Control = Control{}
	m.Flags, m.OutFlags, m.Name, m.WantControl = 0, 0, nil, false
	msgs.Put(m)
}

// ReadMsg is read(2) on a socket, WriteMsg write(2): families call them from
// their Read and Write with themselves.
func ReadMsg(s Socket, ctx vfs.Context, f *vfs.File, dst *usermem.Buffer, fl vfs.IOFlags) (int64, error) {
	if dst.Len() == 0 && s.Common().Type == abi.SOCK_STREAM {
		return 0, nil
	}
	m := NewMsg()
	if f.Nonblocking() || fl&abi.RWF_NOWAIT != 0 {
		m.Flags = abi.MSG_DONTWAIT
	}
	n, err := s.RecvMsg(ctx, dst, m)
	m.Free()
	return n, err
}

// WriteMsg is write(2) on a socket.
func WriteMsg(s Socket, ctx vfs.Context, f *vfs.File, src *usermem.Buffer, fl vfs.IOFlags) (int64, int64, error) {
	m := NewMsg()
	if f.Nonblocking() || fl&abi.RWF_NOWAIT != 0 {
		m.Flags = abi.MSG_DONTWAIT
	}
	typ := s.Common().Type
	if typ == abi.SOCK_SEQPACKET {
		m.Flags |= abi.MSG_EOR
	}
	n, err := s.SendMsg(ctx, src, m)
	m.Free()
	if err == abi.EPIPE && typ == abi.SOCK_STREAM {
		ctx.SendSelf(abi.SIGPIPE)
	}
	return n, n, err
}
