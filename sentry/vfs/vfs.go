package vfs

import (
	"sync"
	"sync/atomic"

	"garrison/abi"
)

// A VFS holds what all mount namespaces of a sandbox share: registered file
// systems and devices, and live superblocks.
type VFS struct {
	// OpenFIFO opens a named pipe; set by boot before the first task runs.
	OpenFIFO func(ctx Context, inode Inode, flags uint32) (FileOps, error)

	// Memfd makes the file of memfd_create(2); set by boot (tmpfs has it).
	Memfd func(ctx Context, name string, mode uint16, sealable bool) (*File, error)

	nextMountID atomic.Int32
	nextAnonDev atomic.Uint32

	// renameMu is held while directories change their parents
	// (s_vfs_rename_mutex), so that ancestry stands still.
	renameMu sync.RWMutex

	mu      sync.RWMutex
	devices map[devKey]DeviceOpener
	types   map[string]fsType
	order   []string // of types, as registered
	sbs     map[Superblock]*sbState
}

type devKey struct {
	kind  uint16 // S_IFCHR or S_IFBLK
	major uint32
	minor uint32
}

// AnyMinor registers a device opener for all minors of a major number.
const AnyMinor = ^uint32(0)

// A DeviceOpener opens the device node d.
type DeviceOpener func(ctx Context, d *Dentry, rdev uint64, flags uint32) (FileOps, error)

// A FilesystemMaker makes (or finds) the superblock that mount(2) mounts; data
// is the option string.
type FilesystemMaker func(ctx Context, source, data string, flags uint32) (Superblock, error)

type fsType struct {
	make  FilesystemMaker
	nodev bool
}

// New makes an empty VFS.
func New() *VFS {
	return &VFS{
		devices: make(map[devKey]DeviceOpener),
		types:   make(map[string]fsType),
		sbs:     make(map[Superblock]*sbState),
	}
}

// RegisterDevice says who opens nodes of kind (abi.S_IFCHR or S_IFBLK) and number.
func (v *VFS) RegisterDevice(kind uint16, major, minor uint32, open DeviceOpener) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.devices[devKey{kind, major, minor}] = open
}

// openDevice opens the device node d.
func (v *VFS) openDevice(ctx Context, d *Dentry, kind uint16, rdev uint64, flags uint32) (FileOps, error) {
	v.mu.RLock()
	open := v.devices[devKey{kind, DevMajor(rdev), DevMinor(rdev)}]
	if open == nil {
		open = v.devices[devKey{kind, DevMajor(rdev), AnyMinor}]
	}
	v.mu.RUnlock()
	if open == nil {
		return nil, abi.ENXIO
	}
	return open(ctx, d, rdev, flags)
}

// RegisterFilesystem makes a type known to mount(2) and /proc/filesystems.
func (v *VFS) RegisterFilesystem(name string, make FilesystemMaker) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.types[name]; !ok {
		v.order = append(v.order, name)
	}
	v.types[name] = fsType{make: make, nodev: true}
}

// Filesystems lists the registered types, for /proc/filesystems.
func (v *VFS) Filesystems() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return append([]string(nil), v.order...)
}

// NewAnonDev makes a device number for a file system without a device: major 0.
func (v *VFS) NewAnonDev() uint64 { return MakeDev(0, v.nextAnonDev.Add(1)+16) }

// superblock finds or makes what the VFS knows about sb.
func (v *VFS) superblock(ctx Context, sb Superblock) (*sbState, error) {
	v.mu.Lock()
	st := v.sbs[sb]
	v.mu.Unlock()
	if st != nil {
		return st, nil
	}
	st = &sbState{Superblock: sb, maxDentries: maxDentries}
	if l, ok := sb.(DentryLimiter); ok {
		st.maxDentries = l.MaxDentries()
	}
	root, err := newDentry(ctx, st, nil, "/", sb.Root())
	if err != nil {
		return nil, err
	}
	st.root = root
	root.pins.Add(1)
	if a, err := root.inode.Attr(ctx); err == nil {
		st.dev = a.Dev
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.sbs[sb]; old != nil {
		return old, nil
	}
	v.sbs[sb] = st
	return st, nil
}

// forgetSuperblock is called when the last mount of it is gone.
func (v *VFS) forgetSuperblock(st *sbState) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sbs[st.Superblock] == st {
		delete(v.sbs, st.Superblock)
	}
}

// A DentryLimiter is a Superblock whose dentries hold on to much: fewer of them
// are cached.
type DentryLimiter interface{ MaxDentries() int64 }

// A DentryKeeper is a Superblock whose dentries must not be forgotten while
// they lead somewhere: its Lookup would make another inode.
type DentryKeeper interface{ KeepsDentries() }
