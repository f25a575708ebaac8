// Package pseudo helps file systems whose files are made up when they are read:
// proc and sys. It has a superblock, directories with fixed or generated
// entries, files with generated content, and symbolic links.
//
// It knows nothing of what the files say, and stores nothing that guests write:
// a writable file hands each write to a function.
//
// It has no locks. An open file's snapshot (vfs.DynFileOps) is locked while the
// content is generated, so generators may take any of the kernel's locks but
// must not read pseudo files.
package pseudo

import (
	"sort"
	"time"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/vfs"
)

// An FS is a pseudo file system's superblock.
type FS struct {
	*vfs.PseudoSuperblock
	timeNs int64
	// MakeErr is what making an entry in any directory gives: Linux's file
	// systems differ. It is EPERM at first.
	MakeErr abi.Errno
}

// New makes a file system of the given type name and statfs magic (*_MAGIC).
// Set its root by SetRoot before it is mounted.
func New(v *vfs.VFS, typ string, magic int64) *FS {
	return &FS{PseudoSuperblock: vfs.NewPseudoSuperblock(v, typ, magic), timeNs: time.Now().UnixNano(), MakeErr: abi.EPERM}
}

// A Node has the attributes that all kinds share. Owner may be nil for root.
type Node struct {
	FS    *FS
	Mode  uint16 // with the file type
	Ino   uint64
	Owner func() (cred.UID, cred.GID)
}

// NewNode returns a node with an inode number of its own.
func (fs *FS) NewNode(mode uint16) Node {
	// Low numbers are for callers that choose them.
	return Node{FS: fs, Mode: mode, Ino: fs.NextIno() + 1<<32}
}

// Attr implements vfs.Inode.
func (n *Node) Attr(vfs.Context) (vfs.Attr, error) {
	a := vfs.Attr{Mode: n.Mode, Nlink: 1, Ino: n.Ino, Dev: n.FS.Dev(), BlkSize: 1024,
		Atime: n.FS.timeNs, Mtime: n.FS.timeNs, Ctime: n.FS.timeNs}
	if n.Mode&abi.S_IFMT == abi.S_IFDIR {
		a.Nlink = 2
	}
	if n.Owner != nil {
		a.UID, a.GID = n.Owner()
	}
	return a, nil
}

// A Dir is a directory. Its entries are those of Fixed, then those that List
// gives; Find looks up what is not in Fixed. List and Find may be nil.
type Dir struct {
	vfs.NodeDefaults
	Node
	Fixed map[string]vfs.Inode
	Find  func(ctx vfs.Context, name string) (vfs.Inode, error)
	List  func(ctx vfs.Context) ([]vfs.Dirent, error)
	// Stale reports that a child found earlier must be looked up again.
	Stale func(child vfs.Inode) bool
}

// NewDir makes a directory with fixed entries and mode 0555.
func (fs *FS) NewDir(fixed map[string]vfs.Inode) *Dir {
	return &Dir{Node: fs.NewNode(abi.S_IFDIR | 0o555), Fixed: fixed}
}

// Attr implements vfs.Inode.
func (d *Dir) Attr(ctx vfs.Context) (vfs.Attr, error) { return d.Node.Attr(ctx) }

// SetAttr refuses: EPERM.
func (d *Dir) SetAttr(vfs.Context, *vfs.SetAttr) error { return abi.EPERM }

// Mknod, Mkdir and Symlink refuse with the file system's MakeErr.
func (d *Dir) Mknod(vfs.Context, string, uint16, uint64) (vfs.Inode, error) {
	return nil, d.FS.MakeErr
}

// Mkdir refuses.
func (d *Dir) Mkdir(vfs.Context, string, uint16) (vfs.Inode, error) { return nil, d.FS.MakeErr }

// Symlink refuses.
func (d *Dir) Symlink(vfs.Context, string, string) (vfs.Inode, error) { return nil, d.FS.MakeErr }

// Lookup implements vfs.Inode.
func (d *Dir) Lookup(ctx vfs.Context, name string) (vfs.Inode, error) {
	if i, ok := d.Fixed[name]; ok {
		return i, nil
	}
	if d.Find != nil {
		return d.Find(ctx, name)
	}
	return nil, abi.ENOENT
}

// Revalidate implements vfs.Revalidator.
func (d *Dir) Revalidate(_ vfs.Context, _ string, child vfs.Inode) bool {
	return d.Stale == nil || !d.Stale(child)
}

// Open implements vfs.Inode.
func (d *Dir) Open(_ vfs.Context, de *vfs.Dentry, _ uint32) (vfs.FileOps, error) {
	return vfs.NewDirFile(de, d.entries), nil
}

func (d *Dir) entries(ctx vfs.Context) ([]vfs.Dirent, error) {
	var list []vfs.Dirent
	for name, i := range d.Fixed {
		a, err := i.Attr(ctx)
		if err != nil {
			continue
		}
		list = append(list, vfs.Dirent{Name: name, Ino: a.Ino, Type: abi.ModeToDT(a.Mode)})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	if d.List != nil {
		more, err := d.List(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// A File has generated content.
type File struct {
	vfs.LeafDefaults
	Node
	// Read returns the whole content; nil if the file can't be read.
	Read func(ctx vfs.Context) ([]byte, error)
	// Write takes one write's bytes; nil if the file can't be written.
	Write func(ctx vfs.Context, data []byte) error
}

// NewFile makes a read-only file with mode 0444.
func (fs *FS) NewFile(read func(ctx vfs.Context) ([]byte, error)) *File {
	return &File{Node: fs.NewNode(abi.S_IFREG | 0o444), Read: read}
}

// Text makes a read-only file whose content does not change.
func (fs *FS) Text(content string) *File {
	return fs.NewFile(func(vfs.Context) ([]byte, error) { return []byte(content), nil })
}

// NewWritable makes a file with mode 0644.
func (fs *FS) NewWritable(read func(vfs.Context) ([]byte, error), write func(vfs.Context, []byte) error) *File {
	f := fs.NewFile(read)
	f.Mode, f.Write = abi.S_IFREG|0o644, write
	return f
}

// Attr implements vfs.Inode.
func (f *File) Attr(ctx vfs.Context) (vfs.Attr, error) { return f.Node.Attr(ctx) }

// SetAttr accepts truncation, which O_TRUNC asks for, and nothing else.
func (f *File) SetAttr(_ vfs.Context, s *vfs.SetAttr) error {
	if s.SetMode || s.SetUID || s.SetGID {
		return abi.EPERM
	}
	return nil
}

// Open implements vfs.Inode.
func (f *File) Open(vfs.Context, *vfs.Dentry, uint32) (vfs.FileOps, error) {
	return vfs.NewDynFileOps(f.Read, f.Write), nil
}

// A SymbolicLink is a symbolic link whose target is generated.
type SymbolicLink struct {
	vfs.LeafDefaults
	Node
	Target func(ctx vfs.Context) (string, error)
}

// NewSymlink makes a symbolic link.
func (fs *FS) NewSymlink(target func(ctx vfs.Context) (string, error)) *SymbolicLink {
	return &SymbolicLink{Node: fs.NewNode(abi.S_IFLNK | 0o777), Target: target}
}

// Attr implements vfs.Inode.
func (l *SymbolicLink) Attr(ctx vfs.Context) (vfs.Attr, error) { return l.Node.Attr(ctx) }

// SetAttr refuses: EPERM.
func (l *SymbolicLink) SetAttr(vfs.Context, *vfs.SetAttr) error { return abi.EPERM }

// Readlink implements vfs.Inode.
func (l *SymbolicLink) Readlink(ctx vfs.Context) (string, error) { return l.Target(ctx) }

// A MagicLink is a SymbolicLink that leads to an object.
type MagicLink struct {
	SymbolicLink
	Follow func(ctx vfs.Context) (vfs.Path, error)
}

// FollowLink implements vfs.MagicLinker.
func (l *MagicLink) FollowLink(ctx vfs.Context) (vfs.Path, error) { return l.Follow(ctx) }
