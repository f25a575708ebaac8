package inet

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/vfs"
)

// optionStore holds options that are only remembered.
type optionStore struct {
	bufSet    atomic.Bool // SO_SNDBUF or SO_RCVBUF was set
	autoBound atomic.Bool // the port was chosen by us

	mu sync.Mutex
	m  map[optionKey]int32
}

type optionKey struct{ level, name int }

func (o *optionStore) get(level, name int, def int32) int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if v, ok := o.m[optionKey{level, name}]; ok {
		return v
	}
	return def
}

func (o *optionStore) set(level, name int, v int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		o.m = make(map[optionKey]int32)
	}
	o.m[optionKey{level, name}] = v
}

// copyFrom gives an accepted socket its listener's options.
func (o *optionStore) copyFrom(l *optionStore) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.bufSet.Store(l.bufSet.Load())
	for k, v := range l.m {
		if o.m == nil {
			o.m = make(map[optionKey]int32)
		}
		o.m[k] = v
	}
}

// An option is an int that can be set within bounds and read back.
type option struct{ def, min, max int32 }

const (
	anyMin = -1 << 31
	anyMax = 1<<31 - 1
)

var ipOptions = map[int]option{
	abi.IP_TOS: {0, 0, 255}, abi.IP_TTL: {64, -1, 255}, abi.IP_HDRINCL: {0, 1, 0},
	abi.IP_RECVOPTS: {0, 0, 1}, abi.IP_RETOPTS: {0, 0, 1}, abi.IP_RECVTOS: {0, 0, 1}, abi.IP_RECVTTL: {0, 0, 1},
	abi.IP_PKTINFO: {0, 0, 1}, abi.IP_MTU_DISCOVER: {1, 0, 5}, abi.IP_RECVERR: {0, 0, 1},
	abi.IP_MULTICAST_TTL: {1, -1, 255}, abi.IP_MULTICAST_LOOP: {1, 0, 1}, abi.IP_MULTICAST_ALL: {1, 0, 1},
	abi.IP_FREEBIND: {0, 0, 1}, abi.IP_RECVORIGDSTADDR: {0, 0, 1}, abi.IP_MINTTL: {0, 0, 255}, abi.IP_NODEFRAG: {0, 0, 1},
	abi.IP_BIND_ADDRESS_NO_PORT: {0, 0, 1}, abi.IP_PASSSEC: {0, 0, 1}, abi.IP_CHECKSUM: {0, 0, 1},
	abi.IP_UNICAST_IF: {0, anyMin, anyMax}, abi.IP_RECVFRAGSIZE: {0, 0, 1},
}

var ip6Options = map[int]option{
	abi.IPV6_UNICAST_HOPS: {64, -1, 255}, abi.IPV6_MULTICAST_HOPS: {1, -1, 255}, abi.IPV6_MULTICAST_LOOP: {1, 0, 1},
	abi.IPV6_MULTICAST_IF: {0, 0, 1}, abi.IPV6_MTU_DISCOVER: {1, 0, 5}, abi.IPV6_RECVERR: {0, 0, 1},
	abi.IPV6_RECVPKTINFO: {0, 0, 1}, abi.IPV6_RECVHOPLIMIT: {0, 0, 1}, abi.IPV6_RECVRTHDR: {0, 0, 1},
	abi.IPV6_RECVHOPOPTS: {0, 0, 1}, abi.IPV6_RECVDSTOPTS: {0, 0, 1}, abi.IPV6_RECVTCLASS: {0, 0, 1},
	abi.IPV6_TCLASS: {0, -1, 255}, abi.IPV6_DONTFRAG: {0, 0, 1}, abi.IPV6_AUTOFLOWLABEL: {1, 0, 1},
	abi.IPV6_FREEBIND: {0, 0, 1}, abi.IPV6_MULTICAST_ALL: {1, 0, 1}, abi.IPV6_RECVORIGDSTADDR: {0, 0, 1},
	abi.IPV6_ADDR_PREFERENCES: {0, anyMin, anyMax}, abi.IPV6_MINHOPCOUNT: {0, 0, 255}, abi.IPV6_2292PKTINFO: {0, 0, 1},
	abi.IPV6_2292HOPLIMIT: {0, 0, 1}, abi.IPV6_UNICAST_IF: {0, anyMin, anyMax}, abi.IPV6_RECVPATHMTU: {0, 0, 1},
}

var tcpOptions = map[int]option{
	abi.TCP_NODELAY: {0, 0, 1}, abi.TCP_CORK: {0, 0, 1}, abi.TCP_MAXSEG: {536, 88, 32767},
	abi.TCP_KEEPIDLE: {7200, 1, 32767}, abi.TCP_KEEPINTVL: {75, 1, 32767}, abi.TCP_KEEPCNT: {9, 1, 127},
	abi.TCP_SYNCNT: {6, 1, 127}, abi.TCP_LINGER2: {60, anyMin, 120}, abi.TCP_DEFER_ACCEPT: {0, anyMin, anyMax},
	abi.TCP_WINDOW_CLAMP: {0, 0, anyMax}, abi.TCP_QUICKACK: {1, anyMin, anyMax}, abi.TCP_USER_TIMEOUT: {0, 0, anyMax},
	abi.TCP_FASTOPEN: {0, 0, anyMax}, abi.TCP_FASTOPEN_CONNECT: {0, 0, 1}, abi.TCP_TIMESTAMP: {0, anyMin, anyMax},
	abi.TCP_NOTSENT_LOWAT: {0, anyMin, anyMax}, abi.TCP_THIN_LINEAR_TIMEOUTS: {0, 0, 1}, abi.TCP_THIN_DUPACK: {0, 0, 1},
	abi.TCP_SAVE_SYN: {0, 0, 1}, abi.TCP_INQ: {0, 0, 1}, abi.TCP_FASTOPEN_NO_COOKIE: {0, 0, 1}, abi.TCP_TX_DELAY: {0, 0, anyMax},
}

// What we know of IPPROTO_UDP: UDP_CORK (uapi/linux/udp.h). Of UDP-Lite: how
// much of a datagram the checksum covers.
var (
	udpOptions     = map[int]option{1: {0, 0, 1}}
	udpliteOptions = map[int]option{1: {0, 0, 1}, 10: {0, 0, anyMax}, 11: {0, 0, anyMax}}
)

// table finds the options of a level that e has.
func (e *endpoint) table(level int) map[int]option {
	switch {
	case level == abi.IPPROTO_IP:
		return ipOptions
	case level == abi.IPPROTO_IPV6 && e.v6():
		return ip6Options
	case level == abi.IPPROTO_TCP && e.Type == abi.SOCK_STREAM:
		return tcpOptions
	case level == abi.IPPROTO_UDPLITE && e.Protocol == level:
		return udpliteOptions
	case level == abi.IPPROTO_UDP && e.Type == abi.SOCK_DGRAM:
		return udpOptions
	}
	return nil
}

// SetSockOpt implements socket.Socket.
func (e *endpoint) SetSockOpt(ctx vfs.Context, level, name int, value []byte) error {
	if level == abi.SOL_SOCKET {
		err := e.Base.SetSockOpt(ctx, level, name, value)
		if err == nil && (name == abi.SO_SNDBUF || name == abi.SO_RCVBUF || name == abi.SO_SNDBUFFORCE || name == abi.SO_RCVBUFFORCE) {
			e.opts.bufSet.Store(true)
			if t, ok := e.self.(*TCP); ok {
				t.resize()
			}
		}
		return err
	}
	t := e.table(level)
	if t == nil {
		return abi.ENOPROTOOPT
	}
	switch {
	case level == abi.IPPROTO_TCP && name == abi.TCP_CONGESTION:
		switch n := cstring(value); n {
		case "cubic", "reno":
			return nil
		default:
			return abi.ENOENT
		}
	case level == abi.IPPROTO_TCP && name == abi.TCP_ULP:
		return abi.ENOENT
	case level == abi.IPPROTO_TCP && name == abi.TCP_REPAIR:
		return abi.EPERM
	case level == abi.IPPROTO_IP && (name == abi.IP_ADD_MEMBERSHIP || name == abi.IP_DROP_MEMBERSHIP ||
		name == abi.IP_ADD_SOURCE_MEMBERSHIP || name == abi.IP_MULTICAST_IF):
		if len(value) < 4 {
			return abi.EINVAL
		}
		return abi.ENODEV // lo does no multicast
	case level == abi.IPPROTO_IPV6 && (name == abi.IPV6_ADD_MEMBERSHIP || name == abi.IPV6_DROP_MEMBERSHIP):
		return abi.ENODEV
	case level == abi.IPPROTO_IP && name == abi.IP_OPTIONS:
		if len(value) > 40 {
			return abi.EINVAL
		}
		return nil
	case name == abi.IP_TRANSPARENT && level == abi.IPPROTO_IP || name == abi.IPV6_TRANSPARENT && level == abi.IPPROTO_IPV6:
		if !ctx.Cred().Can(abi.CAP_NET_ADMIN) {
			return abi.EPERM
		}
		return nil
	}
	v, err := socket.IntValue(value)
	if err != nil {
		if level != abi.IPPROTO_IP || len(value) == 0 {
			return err
		}
		v = int32(value[0]) // ip(7) options may be a char
	}
	if level == abi.IPPROTO_IPV6 && name == abi.IPV6_V6ONLY {
		e.stack.mu.Lock()
		defer e.stack.mu.Unlock()
		if e.local.Port() != 0 {
			return abi.EINVAL
		}
		e.v6only = v != 0
		return nil
	}
	o, ok := t[name]
	if !ok {
		return abi.ENOPROTOOPT
	}
	if o.min == 0 && o.max == 1 {
		v = min(max(v, -v), 1)
		if v != 0 {
			v = 1
		}
	}
	if v < o.min || v > o.max {
		return abi.EINVAL
	}
	if v == -1 && o.min == -1 {
		v = o.def
	}
	e.opts.set(level, name, v)
	return nil
}

// GetSockOpt implements socket.Socket.
func (e *endpoint) GetSockOpt(ctx vfs.Context, level, name, size int) ([]byte, error) {
	if level == abi.SOL_SOCKET {
		if name == abi.SO_ACCEPTCONN {
			e.stack.mu.Lock()
			defer e.stack.mu.Unlock()
			return socket.Bool(e.listening), nil
		}
		return e.Base.GetSockOpt(ctx, level, name, size)
	}
	t := e.table(level)
	if t == nil {
		return nil, abi.ENOPROTOOPT
	}
	switch level {
	case abi.IPPROTO_TCP:
		switch name {
		case abi.TCP_INFO:
			return e.self.(*TCP).info(), nil
		case abi.TCP_CONGESTION:
			return append([]byte("cubic"), make([]byte, 11)...), nil
		case abi.TCP_MAXSEG:
			if e.self.(*TCP).st.Load() == abi.TCP_ESTABLISHED {
				return socket.Int(32741), nil
			}
		case abi.TCP_ULP:
			return nil, nil
		}
	case abi.IPPROTO_IP:
		switch name {
		case abi.IP_OPTIONS:
			return nil, nil
		case abi.IP_MTU:
			e.stack.mu.Lock()
			defer e.stack.mu.Unlock()
			if e.remote.Port() == 0 {
				return nil, abi.ENOTCONN
			}
			return socket.Int(65536), nil
		case abi.IP_TRANSPARENT:
			return socket.Int(0), nil
		case abi.IP_MULTICAST_IF:
			return socket.Int(0), nil
		}
	case abi.IPPROTO_IPV6:
		switch name {
		case abi.IPV6_V6ONLY:
			e.stack.mu.Lock()
			defer e.stack.mu.Unlock()
			return socket.Bool(e.v6only), nil
		case abi.IPV6_MTU:
			return socket.Int(65536), nil
		case abi.IPV6_TRANSPARENT:
			return socket.Int(0), nil
		}
	}
	o, ok := t[name]
	if !ok {
		return nil, abi.ENOPROTOOPT
	}
	v := e.opts.get(level, name, o.def)
	if level == abi.IPPROTO_IP && size < 4 && size > 0 && v >= 0 && v <= 255 {
		return []byte{byte(v)}, nil
	}
	return socket.Int(v), nil
}

// info is struct tcp_info (uapi/linux/tcp.h) as far as it means something here.
func (s *TCP) info() []byte {
	b := make([]byte, 232)
	le := binary.LittleEndian
	st := s.connState()
	b[0] = byte(st)
	b[5] = abi.TCPI_OPT_TIMESTAMPS | abi.TCPI_OPT_SACK | abi.TCPI_OPT_WSCALE
	b[6] = 7<<4 | 7
	le.PutUint32(b[8:], 200000) // rto, us
	le.PutUint32(b[12:], 40000) // ato
	le.PutUint32(b[16:], 32741) // snd_mss
	le.PutUint32(b[20:], 536)   // rcv_mss
	if st == abi.TCP_LISTEN {   // unacked and sacked show the backlog (tcp_get_info)
		s.mu.Lock()
		le.PutUint32(b[24:], uint32(len(s.accepted)))
		le.PutUint32(b[28:], uint32(s.backlog))
		s.mu.Unlock()
	}
	le.PutUint32(b[60:], 65536)   // pmtu
	le.PutUint32(b[68:], 30)      // rtt, us
	le.PutUint32(b[72:], 10)      // rttvar
	le.PutUint32(b[76:], 1<<31-1) // snd_ssthresh
	le.PutUint32(b[80:], 10)      // snd_cwnd
	le.PutUint32(b[84:], 65483)   // advmss
	le.PutUint32(b[88:], 3)       // reordering
	return b
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
