package syscalls

import (
	"garrison/abi"
	"garrison/sentry/kernel"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

var memoryCalls = []kernel.Row{
	{Nr: abi.SYS_mmap, Name: "mmap", Fn: sysMmap, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.ProtFlags, kernel.MapFlags, kernel.FDArg, kernel.Hex}, Support: kernel.Partial, Note: "no MAP_HUGETLB, no MAP_SYNC"},
	{Nr: abi.SYS_munmap, Name: "munmap", Fn: sysMunmap, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_mprotect, Name: "mprotect", Fn: sysMprotect, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.ProtFlags}},
	{Nr: abi.SYS_mremap, Name: "mremap", Fn: sysMremap, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.UDec, kernel.Hex, kernel.Ptr}},
	{Nr: abi.SYS_madvise, Name: "madvise", Fn: sysMadvise, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.MadvArg}, Support: kernel.Partial, Note: "MADV_HWPOISON, MADV_SOFT_OFFLINE and MADV_COLLAPSE are refused"},
	{Nr: abi.SYS_msync, Name: "msync", Fn: sysMsync, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_mincore, Name: "mincore", Fn: sysMincore, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.Ptr}, Support: kernel.Partial, Note: "pages of host files count as resident"},
	{Nr: abi.SYS_brk, Name: "brk", Fn: sysBrk, Args: []kernel.ArgKind{kernel.Ptr}},
	{Nr: abi.SYS_mlock, Name: "mlock", Fn: sysMlock, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec}, Support: kernel.Partial, Note: "limits are kept and pages made present; the host may still swap"},
	{Nr: abi.SYS_mlock2, Name: "mlock2", Fn: sysMlock2, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.Hex}, Support: kernel.Partial, Note: "as mlock"},
	{Nr: abi.SYS_munlock, Name: "munlock", Fn: sysMunlock, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec}},
	{Nr: abi.SYS_mlockall, Name: "mlockall", Fn: sysMlockall, Args: []kernel.ArgKind{kernel.Hex}, Support: kernel.Partial, Note: "as mlock"},
	{Nr: abi.SYS_munlockall, Name: "munlockall", Fn: sysMunlockall},
	{Nr: abi.SYS_remap_file_pages, Name: "remap_file_pages", Fn: sysRemapFilePages, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.ProtFlags, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_mbind, Name: "mbind", Fn: sysMbind, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.Dec, kernel.Ptr, kernel.UDec, kernel.Hex}, Support: kernel.Partial, Note: "one memory node: policies are checked and make no difference"},
	{Nr: abi.SYS_set_mempolicy, Name: "set_mempolicy", Fn: sysSetMempolicy, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.UDec}, Support: kernel.Partial, Note: "as mbind"},
	{Nr: abi.SYS_get_mempolicy, Name: "get_mempolicy", Fn: sysGetMempolicy, Args: []kernel.ArgKind{kernel.Ptr, kernel.Ptr, kernel.UDec, kernel.Ptr, kernel.Hex}, Support: kernel.Partial, Note: "always the default policy"},
	{Nr: abi.SYS_set_mempolicy_home_node, Name: "set_mempolicy_home_node", Support: kernel.Refused, Errno: abi.ENOSYS, Note: "one memory node"},
	{Nr: abi.SYS_migrate_pages, Name: "migrate_pages", Support: kernel.Refused, Errno: abi.ENOSYS, Note: "one memory node"},
	{Nr: abi.SYS_move_pages, Name: "move_pages", Support: kernel.Refused, Errno: abi.ENOSYS, Note: "one memory node"},
	{Nr: abi.SYS_pkey_mprotect, Name: "pkey_mprotect", Fn: sysPkeyMprotect, Args: []kernel.ArgKind{kernel.Ptr, kernel.UDec, kernel.ProtFlags, kernel.Dec}, Support: kernel.Partial, Note: "no protection keys: only key -1"},
	{Nr: abi.SYS_pkey_alloc, Name: "pkey_alloc", Fn: sysPkeyAlloc, Args: []kernel.ArgKind{kernel.Hex, kernel.Hex}, Support: kernel.Partial, Note: "there are no keys: ENOSPC, as on a CPU without them"},
	{Nr: abi.SYS_pkey_free, Name: "pkey_free", Support: kernel.Refused, Errno: abi.EINVAL, Note: "no protection keys", Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_process_vm_readv, Name: "process_vm_readv", Fn: sysProcessVMReadv, Args: []kernel.ArgKind{kernel.Dec, kernel.IovOut, kernel.UDec, kernel.Ptr, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_process_vm_writev, Name: "process_vm_writev", Fn: sysProcessVMWritev, Args: []kernel.ArgKind{kernel.Dec, kernel.IovIn, kernel.UDec, kernel.Ptr, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_process_madvise, Name: "process_madvise", Fn: sysProcessMadvise, Args: []kernel.ArgKind{kernel.FDArg, kernel.IovIn, kernel.UDec, kernel.MadvArg, kernel.Hex}, Support: kernel.Partial, Note: "only for the calling process"},
	{Nr: abi.SYS_process_mrelease, Name: "process_mrelease", Support: kernel.Refused, Errno: abi.ENOSYS, Note: "a dying process releases its memory at once"},
	{Nr: abi.SYS_memfd_secret, Name: "memfd_secret", Support: kernel.Refused, Errno: abi.ENOSYS, Note: "as on a kernel without CONFIG_SECRETMEM: the Sentry sees all memory", Args: []kernel.ArgKind{kernel.Hex}},
}

// legacyMapMask are the flags that MAP_SHARED_VALIDATE accepts (linux/mman.h).
const legacyMapMask = abi.MAP_SHARED | abi.MAP_PRIVATE | abi.MAP_FIXED | abi.MAP_ANONYMOUS | abi.MAP_DENYWRITE |
	abi.MAP_EXECUTABLE | abi.MAP_GROWSDOWN | abi.MAP_LOCKED | abi.MAP_NORESERVE | abi.MAP_POPULATE |
	abi.MAP_NONBLOCK | abi.MAP_STACK | abi.MAP_HUGETLB | abi.MAP_32BIT | abi.MAP_FIXED_NOREPLACE

// sysMmap is mmap(2).
func sysMmap(t *kernel.Task, a kernel.Args) (uintptr, error) {
	prot, flags, off := a.Uint(2), a.Uint(3), a.Uint64(5)
	if off&usermem.PageMask != 0 {
		return 0, abi.EINVAL
	}
	o := mm.MmapOpts{Addr: a.Addr(0), Len: a.Size(1), Prot: prot, Flags: flags, Off: off}
	if flags&abi.MAP_ANONYMOUS != 0 {
		if flags&abi.MAP_HUGETLB != 0 {
			return 0, abi.ENOMEM // no huge pages are reserved
		}
		o.Off = 0
		addr, err := t.MM().Mmap(o)
		return uintptr(addr), err
	}
	f := t.FDTable().Get(a.FD(4))
	if f == nil {
		return 0, abi.EBADF
	}
	defer f.DecRef()
	if f.PathOnly() {
		return 0, abi.EBADF
	}
	if flags&abi.MAP_HUGETLB != 0 {
		return 0, abi.EINVAL // not a file of hugetlbfs
	}
	if err := t.MM().CheckMmap(&o); err != nil {
		return 0, err
	}
	if err := mapFile(t, f, &o); err != nil {
		return 0, err
	}
	addr, err := t.MM().Mmap(o)
	return uintptr(addr), err
}

// mapFile makes the checks of do_mmap that concern the file, and fills in o.
func mapFile(t *kernel.Task, f *vfs.File, o *mm.MmapOpts) error {
	o.MaxProt = abi.PROT_READ | abi.PROT_WRITE | abi.PROT_EXEC
	switch o.Flags & abi.MAP_TYPE {
	case abi.MAP_SHARED_VALIDATE:
		if o.Flags&^uint32(legacyMapMask) != 0 {
			return abi.EOPNOTSUPP
		}
		fallthrough
	case abi.MAP_SHARED:
		if !f.Writable() {
			if o.Prot&abi.PROT_WRITE != 0 {
				return abi.EACCES
			}
			o.MaxProt &^= abi.PROT_WRITE
		}
	case abi.MAP_PRIVATE:
	default:
		return abi.EINVAL
	}
	if !f.Readable() {
		return abi.EACCES
	}
	if f.Path().NoExec() {
		if o.Prot&abi.PROT_EXEC != 0 {
			return abi.EPERM
		}
		o.MaxProt &^= abi.PROT_EXEC
	}
	obj, err := f.Mappable(t, o.Prot, o.Flags)
	if err != nil {
		return err
	}
	if o.Flags&abi.MAP_GROWSDOWN != 0 {
		return abi.EINVAL
	}
	if s, ok := f.Ops().(sealer); ok && o.Flags&abi.MAP_SHARED != 0 && s.Seals()&(abi.F_SEAL_WRITE|abi.F_SEAL_FUTURE_WRITE) != 0 {
		o.MaxProt &^= abi.PROT_WRITE // mprotect must not undo what the seal refused
	}
	o.Mappable = obj
	if obj != nil {
		o.File = f
	}
	return nil
}

// sysMunmap is munmap(2).
func sysMunmap(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.MM().Munmap(a.Addr(0), a.Size(1))
}

// sysMprotect is mprotect(2).
func sysMprotect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, mprotect(t, a)
}

func mprotect(t *kernel.Task, a kernel.Args) error {
	if a[2]>>32 != 0 {
		return abi.EINVAL
	}
	return t.MM().Mprotect(a.Addr(0), a.Size(1), a.Uint(2))
}

// sysMremap is mremap(2).
func sysMremap(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3]>>32 != 0 {
		return 0, abi.EINVAL
	}
	addr, err := t.MM().Mremap(a.Addr(0), a.Size(1), a.Size(2), a.Uint(3), a.Addr(4))
	return uintptr(addr), err
}

// sysMadvise is madvise(2).
func sysMadvise(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.MM().Madvise(a.Addr(0), a.Size(1), a.Int(2))
}

// sysMsync is msync(2).
func sysMsync(t *kernel.Task, a kernel.Args) (uintptr, error) {
	files, err := t.MM().Msync(a.Addr(0), a.Size(1), a.Int(2))
	for _, x := range files {
		if f, ok := x.(*vfs.File); ok {
			if e := f.Ops().Sync(t, f, true); e != nil && e != abi.EINVAL && (err == nil || err == abi.ENOMEM) {
				err = e
			}
		}
		x.DecRef()
	}
	return 0, err
}

// sysMincore is mincore(2).
func sysMincore(t *kernel.Task, a kernel.Args) (uintptr, error) {
	addr, length := uint64(a.Addr(0)), a.Size(1)
	if addr&usermem.PageMask != 0 {
		return 0, abi.EINVAL
	}
	if top := t.MM().Layout().Max; addr > top || length > top-addr {
		return 0, abi.ENOMEM
	}
	pages := (length + usermem.PageMask) >> usermem.PageShift
	vec := make([]byte, min(pages, 64<<10))
	for done := uint64(0); done < pages; {
		n := min(pages-done, uint64(len(vec)))
		if err := t.MM().Mincore(usermem.Addr(addr+done<<usermem.PageShift), vec[:n]); err != nil {
			return 0, err
		}
		if _, err := t.Memory().CopyOut(a.Addr(2)+usermem.Addr(done), vec[:n]); err != nil {
			return 0, err
		}
		done += n
	}
	return 0, nil
}

// sysBrk is brk(2) as the kernel has it: it returns the break and no error.
func sysBrk(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return uintptr(t.MM().Brk(a.Addr(0))), nil
}

// sysMlock is mlock(2).
func sysMlock(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.MM().Mlock(a.Addr(0), a.Size(1), 0)
}

// sysMlock2 is mlock2(2).
func sysMlock2(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.MM().Mlock(a.Addr(0), a.Size(1), a.Int(2))
}

// sysMunlock is munlock(2).
func sysMunlock(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.MM().Munlock(a.Addr(0), a.Size(1))
}

// sysMlockall is mlockall(2).
func sysMlockall(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, t.MM().Mlockall(a.Int(0))
}

// sysMunlockall is munlockall(2).
func sysMunlockall(t *kernel.Task, a kernel.Args) (uintptr, error) { return 0, t.MM().Munlockall() }

// sysRemapFilePages is remap_file_pages(2), emulated by mmap as Linux does since 4.0.
func sysRemapFilePages(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[2] != 0 {
		return 0, abi.EINVAL
	}
	return 0, t.MM().RemapFilePages(a.Addr(0), a.Size(1), a.Uint64(3), a.Uint(4))
}

// Memory policies (uapi/linux/mempolicy.h).
const (
	mpolDefault, mpolPreferred, mpolBind, mpolInterleave, mpolLocal, mpolPreferredMany = 0, 1, 2, 3, 4, 5

	mpolModeFlags                                 = 1<<15 | 1<<14 | 1<<13 // MPOL_F_STATIC_NODES, RELATIVE_NODES, NUMA_BALANCING
	mpolMFValid                                   = 1 | 2 | 4             // MPOL_MF_STRICT, MOVE, MOVE_ALL
	mpolFNode, mpolFAddr, mpolFMemsAllowed uint64 = 1, 2, 4

	maxNodes = 1024 // bits in a node mask that a caller may pass
)

// nodeMask reads a node mask and reports whether it is empty. Only node 0 exists.
func nodeMask(t *kernel.Task, addr usermem.Addr, maxnode uint64) (empty bool, err error) {
	if maxnode--; addr == 0 || maxnode == 0 || maxnode == ^uint64(0) {
		return true, nil
	}
	if maxnode > usermem.PageSize*8 {
		return false, abi.EINVAL
	}
	b := make([]byte, (maxnode+63)/64*8)
	if _, err := t.Memory().CopyIn(addr, b); err != nil {
		return false, err
	}
	if r := maxnode % 64; r != 0 {
		for i := r; i < 64; i++ {
			b[uint64(len(b))-8+i/8] &^= 1 << (i % 8)
		}
	}
	for i, x := range b {
		if i > 0 && x != 0 || x&^1 != 0 {
			return false, abi.EINVAL // a node that does not exist
		}
	}
	return b[0] == 0, nil
}

func checkPolicy(t *kernel.Task, mode int32, addr usermem.Addr, maxnode uint64) error {
	flags := mode & mpolModeFlags
	mode &^= mpolModeFlags
	if mode < 0 || mode > mpolPreferredMany || flags&(1<<15) != 0 && flags&(1<<14) != 0 {
		return abi.EINVAL
	}
	empty, err := nodeMask(t, addr, maxnode)
	if err != nil {
		return err
	}
	switch mode {
	case mpolDefault, mpolLocal:
		if !empty || mode == mpolLocal && flags != 0 {
			return abi.EINVAL
		}
	case mpolPreferred:
		if empty && flags&(1<<15|1<<14) != 0 {
			return abi.EINVAL
		}
	default:
		if empty {
			return abi.EINVAL
		}
	}
	return nil
}

// sysMbind is mbind(2).
func sysMbind(t *kernel.Task, a kernel.Args) (uintptr, error) {
	start, length, flags := a.Uint64(0), a.Size(1), a.Uint(5)
	if flags&^uint32(mpolMFValid) != 0 {
		return 0, abi.EINVAL
	}
	if flags&4 != 0 && !t.Cred().Can(abi.CAP_SYS_NICE) {
		return 0, abi.EPERM
	}
	if start&usermem.PageMask != 0 {
		return 0, abi.EINVAL
	}
	if err := checkPolicy(t, a.Int(2), a.Addr(3), a.Uint64(4)); err != nil {
		return 0, err
	}
	end := start + (length+usermem.PageMask)&^uint64(usermem.PageMask)
	if end < start {
		return 0, abi.EINVAL
	}
	if end > start && !t.MM().Mapped(usermem.Addr(start), end-start) {
		return 0, abi.EFAULT
	}
	return 0, nil
}

// sysSetMempolicy is set_mempolicy(2).
func sysSetMempolicy(t *kernel.Task, a kernel.Args) (uintptr, error) {
	return 0, checkPolicy(t, a.Int(0), a.Addr(1), a.Uint64(2))
}

// sysGetMempolicy is get_mempolicy(2).
func sysGetMempolicy(t *kernel.Task, a kernel.Args) (uintptr, error) {
	policy, mask, maxnode, addr, flags := a.Addr(0), a.Addr(1), a.Uint64(2), a.Addr(3), a.Uint64(4)
	if mask != 0 && maxnode < 1 || flags&^(mpolFNode|mpolFAddr|mpolFMemsAllowed) != 0 {
		return 0, abi.EINVAL
	}
	allowed := flags&mpolFMemsAllowed != 0
	if allowed && flags&(mpolFNode|mpolFAddr) != 0 || flags&mpolFAddr == 0 && addr != 0 {
		return 0, abi.EINVAL
	}
	if flags&mpolFAddr != 0 {
		if !t.MM().Mapped(addr&^usermem.PageMask, usermem.PageSize) {
			return 0, abi.EFAULT
		}
	} else if flags&mpolFNode != 0 {
		return 0, abi.EINVAL // only for interleaving policies
	}
	if policy != 0 && !allowed {
		if err := usermem.CopyOutUint32(t.Memory(), policy, 0); err != nil {
			return 0, err
		}
	}
	if mask != 0 {
		out := make([]byte, (min(maxnode, maxNodes)-1+63)/64*8)
		if len(out) > 0 && allowed {
			out[0] = 1
		}
		if _, err := t.Memory().CopyOut(mask, out); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// sysPkeyMprotect is pkey_mprotect(2): without keys, only -1 is valid.
func sysPkeyMprotect(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(3) != -1 {
		return 0, abi.EINVAL
	}
	return 0, mprotect(t, a)
}

// sysPkeyAlloc is pkey_alloc(2).
func sysPkeyAlloc(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[0] != 0 || a[1]&^3 != 0 {
		return 0, abi.EINVAL
	}
	return 0, abi.ENOSPC
}

// sysProcessMadvise is process_madvise(2). Only advice that is harmless to
// others is accepted, and it makes no difference to us; the range is checked
// for the caller's own process.
func sysProcessMadvise(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[4] != 0 {
		return 0, abi.EINVAL
	}
	f := t.FDTable().Get(a.FD(0))
	if f == nil {
		return 0, abi.EBADF
	}
	defer f.DecRef()
	if a.Size(2) > abi.UIO_MAXIOV {
		return 0, abi.EINVAL
	}
	ranges, err := usermem.CopyInRanges(t.Memory(), a.Addr(1), int(a.Size(2)))
	if err != nil {
		return 0, err
	}
	advice := a.Int(3)
	switch advice {
	case abi.MADV_COLD, abi.MADV_PAGEOUT, abi.MADV_WILLNEED:
	default:
		return 0, abi.EINVAL
	}
	tg, err := kernel.PIDFDGroup(f)
	if err != nil {
		return 0, err
	}
	if tg != t.ThreadGroup() {
		return 0, abi.EPERM
	}
	done := uint64(0)
	for _, r := range ranges {
		if err := t.MM().Madvise(r.Addr, r.Len, advice); err != nil {
			if done > 0 {
				break
			}
			return 0, err
		}
		done += r.Len
	}
	return uintptr(done), nil
}
