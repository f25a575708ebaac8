package abi

import "encoding/binary"

// Wire structures of sockets: uapi/linux/{socket,in,in6,un}.h and
// include/linux/socket.h.

// Sizes of socket structures in bytes.
const (
	SizeofMsghdr    = 56
	SizeofMmsghdr   = 64
	SizeofCmsghdr   = 16
	SizeofUcred     = 12
	SizeofSockaddr  = 128 // struct sockaddr_storage
	SizeofSockIn    = 16
	SizeofSockIn6   = 28
	SizeofSockUn    = 110
	SunPathLen      = 108
	ScmMaxFD        = 253 // SCM_MAX_FD (include/net/scm.h)
	SizeofInPktinfo = 12
	SizeofIfreq     = 40
	SizeofEpollEv   = 12
	SizeofPollfd    = 8
)

// TCP states (include/net/tcp_states.h).
const (
	TCP_ESTABLISHED = 1 + iota
	TCP_SYN_SENT
	TCP_SYN_RECV
	TCP_FIN_WAIT1
	TCP_FIN_WAIT2
	TCP_TIME_WAIT
	TCP_CLOSE
	TCP_CLOSE_WAIT
	TCP_LAST_ACK
	TCP_LISTEN
	TCP_CLOSING
)

// A Msghdr is struct user_msghdr.
type Msghdr struct {
	Name       uint64
	NameLen    int32
	Iov        uint64
	IovLen     uint64
	Control    uint64
	ControlLen uint64
	Flags      uint32
}

// UnmarshalFrom reads m from b, which has SizeofMsghdr bytes.
func (m *Msghdr) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	m.Name, m.NameLen = le.Uint64(b), int32(le.Uint32(b[8:]))
	m.Iov, m.IovLen = le.Uint64(b[16:]), le.Uint64(b[24:])
	m.Control, m.ControlLen, m.Flags = le.Uint64(b[32:]), le.Uint64(b[40:]), le.Uint32(b[48:])
}

// A Ucred is struct ucred.
type Ucred struct {
	PID      int32
	UID, GID uint32
}

// MarshalTo writes u to b.
func (u *Ucred) MarshalTo(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, uint32(u.PID))
	le.PutUint32(b[4:], u.UID)
	le.PutUint32(b[8:], u.GID)
}

// UnmarshalFrom reads u from b.
func (u *Ucred) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	u.PID, u.UID, u.GID = int32(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:])
}

// CmsgAlign rounds n up as CMSG_ALIGN does.
func CmsgAlign(n int) int { return (n + 7) &^ 7 }
