package mm

import "garrison/platform"

// A Mappable is a file, or a memory object, whose pages can be mapped. Offsets
// and lengths are in bytes and page aligned.
//
// The memory manager calls it with its own locks held: implementations may take
// only locks that rank below (a file's page lock, never its inode lock).
type Mappable interface {
	// Translate says where the pages of [off, off+length) lie in host files.
	// The pieces are contiguous from off on and may end early at the end of the
	// file (rounded up to a page); no piece at all means SIGBUS at off. With
	// write, the pages must be the ones that writes shall reach (allocated, not
	// a shared zero page).
	Translate(off, length uint64, write bool) ([]Piece, error)
	// AddMapping notes that inv maps the range of the file from now on, so that
	// inv.InvalidateFile can be called when pages go away (truncation, hole
	// punching). RemoveMapping takes one such note back.
	AddMapping(inv Invalidator, off, length uint64)
	RemoveMapping(inv Invalidator, off, length uint64)
}

// A Piece is a run of a Mappable's pages in a host file.
type Piece struct {
	Off, Len uint64        // in the Mappable
	FD       int           // host file descriptor: the page file's, or a host file's
	FDOff    int64         // where Off lies in it
	Max      platform.Prot // rights that the host file allows (a read-only descriptor can't be mapped shared writable)
}

// An Invalidator drops its translations of a range of a file; accesses fault
// again and are translated anew. MM implements it.
type Invalidator interface {
	InvalidateFile(m Mappable, off, length uint64)
}

// A File is the open file behind a mapping, kept open by it. vfs.File implements it.
type File interface {
	IncRef()
	DecRef()
	// MappedName is the path that /proc/PID/maps shows.
	MappedName() string
	// DeviceInode is st_dev and st_ino as /proc/PID/maps shows them.
	DeviceInode() (dev, ino uint64)
}
