package goferwire

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// The descriptor channel is a SOCK_SEQPACKET socket: one request, one response,
// each one packet; the client has one request under way at a time. A response
// repeats the request's id, so that one can't be taken for another's.
//
// Files are named by node id: the QID.Path of a walk over 9P, which the server
// never uses twice in a connection; a node id is good as long as a fid refers
// to it. Or by a path below such a node, without links and "..", and the inode
// number that must be found there: so most files need no fid at all.

// MaxPacket bounds a packet in bytes; MaxData what it carries beside the header.
const (
	MaxPacket = 72 << 10
	MaxData   = 64 << 10
	// MaxName is NAME_MAX; names of extended attributes have the same limit.
	MaxName = 255
	// MaxPath bounds Request.Path.
	MaxPath = 4000
)

// Op is what a request asks for.
type Op uint16

// The requests. Each says which fields of Request and Response it uses, beside
// those that name the file: Node, Path, Ino and Dev.
const (
	OpInvalid Op = iota
	// OpOpen opens a regular file with access mode Flags (O_RDONLY,
	// O_WRONLY, O_RDWR); the response has the descriptor.
	OpOpen
	// OpCreate makes regular file Name in directory Node with O_EXCL, with
	// Mode, UID and GID; the response has a descriptor opened O_RDWR.
	OpCreate
	// OpSetAttr changes what Valid says on Node; the response has Attr.
	OpSetAttr
	// OpGetXattr, OpSetXattr (value in Data, Flags), OpListXattr and
	// OpRemoveXattr are the calls of xattr(7) on Node and Name.
	OpGetXattr
	OpSetXattr
	OpListXattr
	OpRemoveXattr
	// OpReaddir reads directory Node from cookie Off: Data is a run of struct
	// linux_dirent64. Last says that there are no more.
	OpReaddir
	// OpReaddirPlus is OpReaddir with attributes: Data is a run of Entry.
	OpReaddirPlus
	// OpLookup finds Name in directory Node: Data is an Entry, followed by the
	// target of a symbolic link. With LookupOpen in Flags, a descriptor to read a
	// regular file comes along if it can be had. No fid is made.
	OpLookup
	// OpFsync syncs Node.
	OpFsync
	// OpArmRename gives the next 9P rename of Name in Node to Name2 in Node2
	// the flags of renameat2(2).
	OpArmRename
	// OpExchange swaps Name in Node with Name2 in Node2 (RENAME_EXCHANGE). Fids of
	// the two and of what is below them are worth nothing afterwards: the 9P
	// library goes on taking them for what had their names.
	OpExchange
	opMax
)

// LookupOpen in Request.Flags asks OpLookup for a descriptor.
const LookupOpen = 1

// Bits of Request.Valid for OpSetAttr.
const (
	SetMode = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	AtimeNow
	MtimeNow
)

// A Request is one packet to the server.
type Request struct {
	ID           uint32
	Op           Op
	Node, Node2  uint64
	Path         string // from Node; then Ino and Dev are what must be there
	Ino, Dev     uint64
	Flags, Valid uint32
	Mode         uint32
	UID, GID     uint32
	Size, Off    uint64
	Atime, Mtime int64 // ns since the epoch
	Name, Name2  string
	Data         []byte
}

// Attr is what OpSetAttr returns: the fields that it may have changed.
type Attr struct {
	Mode, UID, GID      uint32
	Size, Blocks        uint64
	Atime, Mtime, Ctime int64 // ns since the epoch
}

// An Entry is a directory entry with its attributes, as statx(2) gives them; the
// times are ns since the epoch. Without attributes (HasAttr is false: another file
// system is mounted there, or the entry has just gone) it must be walked to.
type Entry struct {
	Name                       string
	Ino, Next                  uint64
	Type                       uint8 // DT_*
	HasAttr                    bool
	Mode, UID, GID, Nlink      uint32
	BlkSize                    uint32
	Dev, Rdev, Size, Blocks    uint64
	Atime, Mtime, Ctime, Btime int64
}

const (
	entryFixed = 2 + 8 + 8 + 1 + 1
	entryAttr  = 4*5 + 8*8
)

// EntrySize is the length of an Entry with a name of n bytes and attributes.
func EntrySize(n int) int { return entryFixed + entryAttr + n }

// Append appends the entry to b.
func (e *Entry) Append(b []byte) []byte {
	b = le.AppendUint16(b, uint16(len(e.Name)))
	b = le.AppendUint64(b, e.Ino)
	b = le.AppendUint64(b, e.Next)
	if !e.HasAttr {
		return append(append(b, e.Type, 0), e.Name...)
	}
	b = append(append(b, e.Type, 1), e.Name...)
	for _, v := range [...]uint32{e.Mode, e.UID, e.GID, e.Nlink, e.BlkSize} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{e.Dev, e.Rdev, e.Size, e.Blocks, uint64(e.Atime), uint64(e.Mtime), uint64(e.Ctime), uint64(e.Btime)} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// Decode reads the first entry of b and returns the rest.
func (e *Entry) Decode(b []byte) ([]byte, error) {
	if len(b) < entryFixed {
		return nil, ErrPacket
	}
	n := int(le.Uint16(b))
	e.Ino, e.Next, e.Type, e.HasAttr = le.Uint64(b[2:]), le.Uint64(b[10:]), b[18], b[19] != 0
	b = b[entryFixed:]
	if len(b) < n || n == 0 || e.HasAttr && len(b) < n+entryAttr {
		return nil, ErrPacket
	}
	e.Name, b = string(b[:n]), b[n:]
	if !e.HasAttr {
		return b, nil
	}
	for _, p := range [...]*uint32{&e.Mode, &e.UID, &e.GID, &e.Nlink, &e.BlkSize} {
		*p, b = le.Uint32(b), b[4:]
	}
	for _, p := range [...]*uint64{&e.Dev, &e.Rdev, &e.Size, &e.Blocks} {
		*p, b = le.Uint64(b), b[8:]
	}
	for _, p := range [...]*int64{&e.Atime, &e.Mtime, &e.Ctime, &e.Btime} {
		*p, b = int64(le.Uint64(b)), b[8:]
	}
	return b, nil
}

// A Response is one packet to the client; a descriptor may come with it.
type Response struct {
	ID    uint32
	Errno uint32
	HasFD bool
	Last  bool // the end of a directory
	Attr  Attr
	Data  []byte
}

const (
	reqFixed  = 4 + 2 + 8*4 + 4*5 + 8*4 + 2*3 + 4
	respFixed = 4 + 4 + 1 + 4*3 + 8*5 + 4
)

// ErrPacket is a packet that does not decode.
var ErrPacket = errors.New("malformed packet on the descriptor channel")

// ErrNoFD says that a packet came whole, but the descriptor with it could not be
// taken: the receiver has too many open, or gave no room for one.
var ErrNoFD = errors.New("no room for a descriptor that came over the descriptor channel")

var le = binary.LittleEndian

// Append appends the packet to b.
func (r *Request) Append(b []byte) []byte {
	b = le.AppendUint32(b, r.ID)
	b = le.AppendUint16(b, uint16(r.Op))
	b = le.AppendUint64(b, r.Node)
	b = le.AppendUint64(b, r.Node2)
	b = le.AppendUint64(b, r.Ino)
	b = le.AppendUint64(b, r.Dev)
	b = le.AppendUint32(b, r.Flags)
	b = le.AppendUint32(b, r.Valid)
	b = le.AppendUint32(b, r.Mode)
	b = le.AppendUint32(b, r.UID)
	b = le.AppendUint32(b, r.GID)
	b = le.AppendUint64(b, r.Size)
	b = le.AppendUint64(b, r.Off)
	b = le.AppendUint64(b, uint64(r.Atime))
	b = le.AppendUint64(b, uint64(r.Mtime))
	b = le.AppendUint16(b, uint16(len(r.Name)))
	b = le.AppendUint16(b, uint16(len(r.Name2)))
	b = le.AppendUint16(b, uint16(len(r.Path)))
	b = le.AppendUint32(b, uint32(len(r.Data)))
	b = append(b, r.Name...)
	b = append(b, r.Name2...)
	b = append(b, r.Path...)
	return append(b, r.Data...)
}

// Decode reads a packet; Data aliases b.
func (r *Request) Decode(b []byte) error {
	if len(b) < reqFixed {
		return ErrPacket
	}
	r.ID, b = le.Uint32(b), b[4:]
	r.Op, b = Op(le.Uint16(b)), b[2:]
	r.Node, b = le.Uint64(b), b[8:]
	r.Node2, b = le.Uint64(b), b[8:]
	r.Ino, b = le.Uint64(b), b[8:]
	r.Dev, b = le.Uint64(b), b[8:]
	r.Flags, b = le.Uint32(b), b[4:]
	r.Valid, b = le.Uint32(b), b[4:]
	r.Mode, b = le.Uint32(b), b[4:]
	r.UID, b = le.Uint32(b), b[4:]
	r.GID, b = le.Uint32(b), b[4:]
	r.Size, b = le.Uint64(b), b[8:]
	r.Off, b = le.Uint64(b), b[8:]
	r.Atime, b = int64(le.Uint64(b)), b[8:]
	r.Mtime, b = int64(le.Uint64(b)), b[8:]
	n1, n2, np, nd := int(le.Uint16(b)), int(le.Uint16(b[2:])), int(le.Uint16(b[4:])), le.Uint32(b[6:])
	b = b[10:]
	if n1 > MaxName || n2 > MaxName || np > MaxPath || nd > MaxData || len(b) != n1+n2+np+int(nd) || r.Op == OpInvalid || r.Op >= opMax {
		return ErrPacket
	}
	r.Name, r.Name2, b = string(b[:n1]), string(b[n1:n1+n2]), b[n1+n2:]
	r.Path, r.Data = string(b[:np]), b[np:]
	return nil
}

// Append appends the packet to b.
func (r *Response) Append(b []byte) []byte {
	b = le.AppendUint32(b, r.ID)
	b = le.AppendUint32(b, r.Errno)
	flags := byte(0)
	if r.HasFD {
		flags |= 1
	}
	if r.Last {
		flags |= 2
	}
	b = append(b, flags)
	a := &r.Attr
	b = le.AppendUint32(b, a.Mode)
	b = le.AppendUint32(b, a.UID)
	b = le.AppendUint32(b, a.GID)
	b = le.AppendUint64(b, a.Size)
	b = le.AppendUint64(b, a.Blocks)
	b = le.AppendUint64(b, uint64(a.Atime))
	b = le.AppendUint64(b, uint64(a.Mtime))
	b = le.AppendUint64(b, uint64(a.Ctime))
	b = le.AppendUint32(b, uint32(len(r.Data)))
	return append(b, r.Data...)
}

// Decode reads a packet; Data aliases b.
func (r *Response) Decode(b []byte) error {
	if len(b) < respFixed {
		return ErrPacket
	}
	r.ID, b = le.Uint32(b), b[4:]
	r.Errno, b = le.Uint32(b), b[4:]
	r.HasFD, r.Last, b = b[0]&1 != 0, b[0]&2 != 0, b[1:]
	a := &r.Attr
	a.Mode, b = le.Uint32(b), b[4:]
	a.UID, b = le.Uint32(b), b[4:]
	a.GID, b = le.Uint32(b), b[4:]
	a.Size, b = le.Uint64(b), b[8:]
	a.Blocks, b = le.Uint64(b), b[8:]
	a.Atime, b = int64(le.Uint64(b)), b[8:]
	a.Mtime, b = int64(le.Uint64(b)), b[8:]
	a.Ctime, b = int64(le.Uint64(b)), b[8:]
	n := le.Uint32(b)
	b = b[4:]
	if uint64(n) != uint64(len(b)) {
		return ErrPacket
	}
	r.Data = b
	return nil
}

// SendPacket sends one packet, with descriptor fd if that is not negative.
func SendPacket(sock int, p []byte, fd int) error {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	for {
		_, err := unix.SendmsgN(sock, p, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// RecvPacket receives one packet into buf; n is 0 when the peer is gone. The
// descriptor is -1 if none came; oob is scratch space for it.
func RecvPacket(sock int, buf, oob []byte) (n, fd int, err error) {
	for {
		var oobn, flags int
		n, oobn, flags, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, -1, err
		}
		fd = takeFD(oob[:oobn])
		switch {
		case flags&unix.MSG_TRUNC != 0:
			if fd >= 0 {
				unix.Close(fd)
			}
			return 0, -1, ErrPacket
		case flags&unix.MSG_CTRUNC != 0 && fd < 0:
			return n, -1, ErrNoFD
		}
		return n, fd, nil
	}
}

// takeFD returns the first descriptor of a control message and closes others.
func takeFD(oob []byte) int {
	if len(oob) == 0 {
		return -1
	}
	got := -1
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if got < 0 {
				got = fd
			} else {
				unix.Close(fd)
			}
		}
	}
	return got
}

// OOBSpace is the size of the scratch space that RecvPacket needs for one descriptor.
var OOBSpace = unix.CmsgSpace(4)
