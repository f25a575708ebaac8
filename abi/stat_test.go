package abi

import (
	"encoding/binary"
	"reflect"
	"syscall"
	"testing"
)

// The host's structures, as Go's syscall package generates them from the
// kernel's headers, say where each field lies.
func TestFileStructures(t *testing.T) {
	offset := func(v any, field string) uintptr {
		f, ok := reflect.TypeOf(v).FieldByName(field)
		if !ok {
			t.Fatalf("no field %s", field)
		}
		return f.Offset
	}
	at := func(b []byte, off uintptr) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

	var b [SizeofStatx]byte
	s := Stat{Dev: 1, Ino: 2, Nlink: 3, Mode: 4, UID: 5, GID: 6, Rdev: 7, Size: 8, Blksize: 9, Blocks: 10,
		Atime: Timespec{11, 12}, Mtime: Timespec{13, 14}, Ctime: Timespec{15, 16}}
	s.MarshalTo(b[:SizeofStat])
	if n := reflect.TypeOf(syscall.Stat_t{}).Size(); n != SizeofStat {
		t.Errorf("struct stat has %d bytes", n)
	}
	for f, want := range map[string]uint64{"Dev": 1, "Ino": 2, "Nlink": 3, "Mode": 4 | 5<<32, "Gid": 6, "Rdev": 7, "Size": 8,
		"Blksize": 9, "Blocks": 10, "Atim": 11, "Mtim": 13, "Ctim": 15} {
		if got := at(b[:], offset(syscall.Stat_t{}, f)); got != want {
			t.Errorf("stat.%s holds %d, want %d", f, got, want)
		}
	}
	fs := Statfs{Type: 1, Bsize: 2, Blocks: 3, Bfree: 4, Bavail: 5, Files: 6, Ffree: 7, Fsid: [2]int32{8, 9}, Namelen: 10, Frsize: 11, Flags: 12}
	fs.MarshalTo(b[:SizeofStatfs])
	if n := reflect.TypeOf(syscall.Statfs_t{}).Size(); n != SizeofStatfs {
		t.Errorf("struct statfs has %d bytes", n)
	}
	for f, want := range map[string]uint64{"Type": 1, "Bsize": 2, "Blocks": 3, "Bfree": 4, "Bavail": 5, "Files": 6, "Ffree": 7,
		"Fsid": 8 | 9<<32, "Namelen": 10, "Frsize": 11, "Flags": 12} {
		if got := at(b[:], offset(syscall.Statfs_t{}, f)); got != want {
			t.Errorf("statfs.%s holds %d, want %d", f, got, want)
		}
	}
	l := Flock{Type: 1, Whence: 2, Start: 3, Len: 4, PID: 5}
	l.MarshalTo(b[:SizeofFlock])
	if n := reflect.TypeOf(syscall.Flock_t{}).Size(); n != SizeofFlock {
		t.Errorf("struct flock has %d bytes", n)
	}
	for f, want := range map[string]uint64{"Type": 1 | 2<<16, "Start": 3, "Len": 4, "Pid": 5} {
		if got := at(b[:], offset(syscall.Flock_t{}, f)); got != want {
			t.Errorf("flock.%s holds %d, want %d", f, got, want)
		}
	}
	var back Flock
	back.UnmarshalFrom(b[:])
	if back != l {
		t.Errorf("flock comes back as %+v", back)
	}
	if ts := NsToTimespec(-1); ts != (Timespec{-1, 999999999}) {
		t.Errorf("-1 ns is %+v", ts)
	}
}
