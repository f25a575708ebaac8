package vfs

import (
	"sync"

	"garrison/abi"
)

// writeCounts counts who has a regular file open for writing (positive), or
// runs it (negative): the two exclude one another with ETXTBSY, as i_writecount
// does. Inodes that nobody counts are not in the map.
var writeCounts struct {
	sync.Mutex
	n map[Inode]int
}

// getWriteAccess counts a writer; ETXTBSY if the file is being executed.
func getWriteAccess(i Inode) error { return countWrite(i, 1, 0) }

func putWriteAccess(i Inode) { countWrite(i, -1, 0) }

// DenyWrite keeps writers off a file while it is executed; ETXTBSY if it is open
// for writing. AllowWrite takes that back.
func DenyWrite(i Inode) error { return countWrite(i, 0, 1) }

// AllowWrite takes a DenyWrite back.
func AllowWrite(i Inode) { countWrite(i, 0, -1) }

// DenyWrite keeps writers off the file until f is released (the executable of
// a running program).
func (f *File) DenyWrite() error {
	if f.inode == nil || f.denied {
		return nil
	}
	if err := DenyWrite(f.inode); err != nil {
		return err
	}
	f.denied = true
	return nil
}

func countWrite(i Inode, writers, deniers int) error {
	w := &writeCounts
	w.Lock()
	defer w.Unlock()
	n := w.n[i]
	if writers > 0 && n < 0 || deniers > 0 && n > 0 {
		return abi.ETXTBSY
	}
	n += writers - deniers
	if n == 0 {
		delete(w.n, i)
		return nil
	}
	if w.n == nil {
		w.n = make(map[Inode]int)
	}
	w.n[i] = n
	return nil
}
