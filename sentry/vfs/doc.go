// Package vfs is the virtual file system: paths, dentries, mounts, open files
// and descriptor tables, and the interfaces (Inode, FileOps, Superblock) that
// file systems implement below it (path_resolution(7), open(2)).
//
// It stores no file data and knows no concrete file system, device, pipe or
// socket: those are registered by runsc/boot. Memory of guests is reached only
// through usermem. Dentries and inodes are garbage collected; references are
// counted only where Linux makes the last one visible: open files, and mounts
// (umount's EBUSY).
//
// Lock order: VFS.renameMu > Dentry.dirMu (ancestors first, then by address of
// creation) > file systems' locks > MountNamespace.mu > Dentry.mu. File.posMu is
// taken before all of these. FDTable.mu, FSContext.mu and lock tables are leaves.
package vfs
