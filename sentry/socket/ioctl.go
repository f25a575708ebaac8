package socket

import (
	"encoding/binary"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

// lo is what SIOCGIF* tell of the only interface (netdevice(7)).
const (
	loName  = "lo"
	loIndex = 1
	loMTU   = 65536
	loFlags = abi.IFF_UP | abi.IFF_LOOPBACK | abi.IFF_RUNNING
)

// Ioctl handles what all sockets can do.
func Ioctl(b *Base, ctx vfs.Context, f *vfs.File, cmd uint32, arg uint64) (uintptr, error) {
	mem := ctx.Memory()
	at := usermem.Addr(arg)
	switch cmd {
	case abi.SIOCGIFCONF:
		return 0, ifconf(mem, at)
	case abi.SIOCGIFFLAGS, abi.SIOCGIFADDR, abi.SIOCGIFNETMASK, abi.SIOCGIFBRDADDR, abi.SIOCGIFDSTADDR,
		abi.SIOCGIFMTU, abi.SIOCGIFHWADDR, abi.SIOCGIFINDEX, abi.SIOCGIFMETRIC, abi.SIOCGIFTXQLEN, abi.SIOCGIFNAME,
		abi.SIOCGIFMAP:
		return 0, ifreq(mem, at, cmd)
	case abi.SIOCSIFFLAGS, abi.SIOCSIFADDR, abi.SIOCSIFNETMASK, abi.SIOCSIFMTU, abi.SIOCSIFBRDADDR, abi.SIOCADDRT, abi.SIOCDELRT:
		return 0, abi.EPERM
	case abi.SIOCETHTOOL:
		return 0, abi.EOPNOTSUPP
	case abi.SIOCGSTAMP, abi.SIOCGSTAMPNS:
		return 0, abi.ENOENT
	}
	return 0, abi.ENOTTY
}

func ifconf(mem usermem.Memory, at usermem.Addr) error {
	var c [16]byte // int len; char *buf
	if _, err := mem.CopyIn(at, c[:]); err != nil {
		return err
	}
	size, buf := int32(binary.LittleEndian.Uint32(c[:])), usermem.Addr(binary.LittleEndian.Uint64(c[8:]))
	n := int32(abi.SizeofIfreq)
	if buf != 0 {
		if size < abi.SizeofIfreq {
			n = 0
		} else {
			var r [abi.SizeofIfreq]byte
			copy(r[:], loName)
			copy(r[16:], []byte{abi.AF_INET, 0, 0, 0, 127, 0, 0, 1})
			if _, err := mem.CopyOut(buf, r[:]); err != nil {
				return err
			}
		}
	}
	return usermem.CopyOutUint32(mem, at, uint32(n))
}

func ifreq(mem usermem.Memory, at usermem.Addr, cmd uint32) error {
	var r [abi.SizeofIfreq]byte
	if _, err := mem.CopyIn(at, r[:]); err != nil {
		return err
	}
	v := r[16:]
	le := binary.LittleEndian
	if cmd == abi.SIOCGIFNAME {
		if le.Uint32(v) != loIndex {
			return abi.ENODEV
		}
		clear(r[:16])
		copy(r[:], loName)
		_, err := mem.CopyOut(at, r[:])
		return err
	}
	if name := cstring(r[:16]); name != loName {
		return abi.ENODEV
	}
	clear(v)
	switch cmd {
	case abi.SIOCGIFFLAGS:
		le.PutUint16(v, loFlags)
	case abi.SIOCGIFADDR, abi.SIOCGIFDSTADDR:
		copy(v, []byte{abi.AF_INET, 0, 0, 0, 127, 0, 0, 1})
	case abi.SIOCGIFNETMASK:
		copy(v, []byte{abi.AF_INET, 0, 0, 0, 255, 0, 0, 0})
	case abi.SIOCGIFBRDADDR:
		copy(v, []byte{abi.AF_INET, 0})
	case abi.SIOCGIFMTU:
		le.PutUint32(v, loMTU)
	case abi.SIOCGIFHWADDR:
		le.PutUint16(v, 772) // ARPHRD_LOOPBACK
	case abi.SIOCGIFINDEX:
		le.PutUint32(v, loIndex)
	case abi.SIOCGIFTXQLEN:
		le.PutUint32(v, 1000)
	}
	_, err := mem.CopyOut(at, r[:])
	return err
}
