package abi

import "encoding/binary"

// Sizes of the structures of stat(2), statx(2) and statfs(2) in guest memory.
const (
	SizeofStat   = 144
	SizeofStatx  = 256
	SizeofStatfs = 120
)

// Stat is struct stat (arch/x86/include/uapi/asm/stat.h).
type Stat struct {
	Dev, Ino, Nlink       uint64
	Mode, UID, GID, Pad0  uint32
	Rdev                  uint64
	Size, Blksize, Blocks int64
	Atime, Mtime, Ctime   Timespec
	Unused                [3]int64
}

// MarshalTo encodes s into b, which holds SizeofStat bytes.
func (s *Stat) MarshalTo(b []byte) {
	le := binary.LittleEndian
	_ = b[SizeofStat-1]
	le.PutUint64(b[0:], s.Dev)
	le.PutUint64(b[8:], s.Ino)
	le.PutUint64(b[16:], s.Nlink)
	le.PutUint32(b[24:], s.Mode)
	le.PutUint32(b[28:], s.UID)
	le.PutUint32(b[32:], s.GID)
	le.PutUint32(b[36:], 0)
	le.PutUint64(b[40:], s.Rdev)
	le.PutUint64(b[48:], uint64(s.Size))
	le.PutUint64(b[56:], uint64(s.Blksize))
	le.PutUint64(b[64:], uint64(s.Blocks))
	for i, t := range [...]Timespec{s.Atime, s.Mtime, s.Ctime} {
		le.PutUint64(b[72+16*i:], uint64(t.Sec))
		le.PutUint64(b[80+16*i:], uint64(t.Nsec))
	}
	clear(b[120:SizeofStat])
}

// StatxTimestamp is struct statx_timestamp (uapi/linux/stat.h).
type StatxTimestamp struct {
	Sec  int64
	Nsec uint32
	Pad  int32
}

// Statx is struct statx (uapi/linux/stat.h).
type Statx struct {
	Mask, Blksize               uint32
	Attributes                  uint64
	Nlink, UID, GID             uint32
	Mode                        uint16
	Spare0                      uint16
	Ino, Size, Blocks           uint64
	AttributesMask              uint64
	Atime, Btime, Ctime, Mtime  StatxTimestamp
	RdevMajor, RdevMinor        uint32
	DevMajor, DevMinor          uint32
	MntID                       uint64
	DioMemAlign, DioOffsetAlign uint32
	Spare3                      [12]uint64
}

// MarshalTo encodes s into b, which holds SizeofStatx bytes.
func (s *Statx) MarshalTo(b []byte) {
	le := binary.LittleEndian
	_ = b[SizeofStatx-1]
	le.PutUint32(b[0:], s.Mask)
	le.PutUint32(b[4:], s.Blksize)
	le.PutUint64(b[8:], s.Attributes)
	le.PutUint32(b[16:], s.Nlink)
	le.PutUint32(b[20:], s.UID)
	le.PutUint32(b[24:], s.GID)
	le.PutUint16(b[28:], s.Mode)
	le.PutUint16(b[30:], 0)
	le.PutUint64(b[32:], s.Ino)
	le.PutUint64(b[40:], s.Size)
	le.PutUint64(b[48:], s.Blocks)
	le.PutUint64(b[56:], s.AttributesMask)
	for i, t := range [...]StatxTimestamp{s.Atime, s.Btime, s.Ctime, s.Mtime} {
		le.PutUint64(b[64+16*i:], uint64(t.Sec))
		le.PutUint32(b[72+16*i:], t.Nsec)
		le.PutUint32(b[76+16*i:], 0)
	}
	le.PutUint32(b[128:], s.RdevMajor)
	le.PutUint32(b[132:], s.RdevMinor)
	le.PutUint32(b[136:], s.DevMajor)
	le.PutUint32(b[140:], s.DevMinor)
	le.PutUint64(b[144:], s.MntID)
	le.PutUint32(b[152:], s.DioMemAlign)
	le.PutUint32(b[156:], s.DioOffsetAlign)
	clear(b[160:SizeofStatx])
}

// Statfs is struct statfs (asm-generic/statfs.h).
type Statfs struct {
	Type, Bsize                         int64
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Fsid                                [2]int32
	Namelen, Frsize, Flags              int64
}

// MarshalTo encodes s into b, which holds SizeofStatfs bytes.
func (s *Statfs) MarshalTo(b []byte) {
	le := binary.LittleEndian
	_ = b[SizeofStatfs-1]
	for i, v := range [...]uint64{uint64(s.Type), uint64(s.Bsize), s.Blocks, s.Bfree, s.Bavail, s.Files, s.Ffree,
		uint64(uint32(s.Fsid[0])) | uint64(uint32(s.Fsid[1]))<<32, uint64(s.Namelen), uint64(s.Frsize), uint64(s.Flags)} {
		le.PutUint64(b[8*i:], v)
	}
	clear(b[88:SizeofStatfs])
}

// Flags of statfs(2)'s f_flags (include/linux/statfs.h).
const (
	ST_RDONLY      = 0x1
	ST_NOSUID      = 0x2
	ST_NODEV       = 0x4
	ST_NOEXEC      = 0x8
	ST_SYNCHRONOUS = 0x10
	ST_VALID       = 0x20
	ST_NOATIME     = 0x400
	ST_NODIRATIME  = 0x800
	ST_RELATIME    = 0x1000
)

// Directory entry types (include/linux/fs_types.h).
const (
	DT_UNKNOWN = 0
	DT_FIFO    = 1
	DT_CHR     = 2
	DT_DIR     = 4
	DT_BLK     = 6
	DT_REG     = 8
	DT_LNK     = 10
	DT_SOCK    = 12
	DT_WHT     = 14
)

// ModeToDT gives the directory entry type of a file mode.
func ModeToDT(mode uint16) uint8 { return uint8(mode >> 12) }

// Flags of umount2(2) (include/linux/fs.h).
const (
	MNT_FORCE       = 1
	MNT_DETACH      = 2
	MNT_EXPIRE      = 4
	UMOUNT_NOFOLLOW = 8
)

// F_SEAL_EXEC and the memfd_create flags of Linux 6.3 (uapi/linux/memfd.h, fcntl.h).
const (
	F_SEAL_EXEC     = 0x20
	MFD_NOEXEC_SEAL = 8
	MFD_EXEC        = 0x10
)

// Flock is struct flock (asm-generic/fcntl.h), of 32 bytes.
type Flock struct {
	Type, Whence int16
	Start, Len   int64
	PID          int32
}

// SizeofFlock is struct flock's size in guest memory.
const SizeofFlock = 32

// MarshalTo encodes l into b, which holds SizeofFlock bytes.
func (l *Flock) MarshalTo(b []byte) {
	le := binary.LittleEndian
	_ = b[SizeofFlock-1]
	clear(b[:SizeofFlock])
	le.PutUint16(b[0:], uint16(l.Type))
	le.PutUint16(b[2:], uint16(l.Whence))
	le.PutUint64(b[8:], uint64(l.Start))
	le.PutUint64(b[16:], uint64(l.Len))
	le.PutUint32(b[24:], uint32(l.PID))
}

// UnmarshalFrom decodes l from b, which holds SizeofFlock bytes.
func (l *Flock) UnmarshalFrom(b []byte) {
	le := binary.LittleEndian
	_ = b[SizeofFlock-1]
	l.Type, l.Whence = int16(le.Uint16(b[0:])), int16(le.Uint16(b[2:]))
	l.Start, l.Len = int64(le.Uint64(b[8:])), int64(le.Uint64(b[16:]))
	l.PID = int32(le.Uint32(b[24:]))
}
