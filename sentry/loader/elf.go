package loader

import (
	"math/rand/v2"

	"garrison/abi"
	"garrison/sentry/mm"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

const (
	pageSize = usermem.PageSize
	pageMask = usermem.PageMask

	maxPhdrBytes = 65536 // ELF_MIN_ALIGN's bound in load_elf_phdrs
	ptGNUStack   = 0x6474e551
)

// An image is an ELF file whose headers have been read.
type image struct {
	file *vfs.File
	hdr  abi.ELFHeader
	prog []abi.ELFProg
}

// readImage reads and checks the headers. bad is the error for a file that is
// not an ELF image that we can run.
func readImage(ctx vfs.Context, f *vfs.File, bad error) (*image, error) {
	var b [abi.ELFHeaderSize]byte
	n, err := readAt(ctx, f, b[:], 0)
	if err != nil {
		return nil, err
	}
	if n < len(b) {
		if bad == abi.ELIBBAD {
			return nil, abi.EIO // elf_read of the interpreter's header
		}
		return nil, bad
	}
	m := &image{file: f}
	m.hdr.UnmarshalFrom(b[:])
	h := &m.hdr
	if h.Ident[0] != abi.ELFMAG0 || h.Ident[1] != abi.ELFMAG1 || h.Ident[2] != abi.ELFMAG2 || h.Ident[3] != abi.ELFMAG3 {
		return nil, bad
	}
	if h.Type != abi.ET_EXEC && h.Type != abi.ET_DYN || h.Machine != abi.EM_X86_64 || h.Phentsize != abi.ELFProgSize {
		return nil, bad
	}
	size := int(h.Phnum) * abi.ELFProgSize
	if size == 0 || size > maxPhdrBytes {
		return nil, bad
	}
	if h.Phoff > 1<<62 {
		return nil, bad
	}
	raw := make([]byte, size)
	if n, err := readAt(ctx, f, raw, int64(h.Phoff)); err != nil || n < size {
		return nil, bad
	}
	m.prog = make([]abi.ELFProg, h.Phnum)
	for i := range m.prog {
		m.prog[i].UnmarshalFrom(raw[i*abi.ELFProgSize:])
	}
	return m, nil
}

// A placed image knows where it lies.
type placed struct {
	bias               uint64 // added to addresses in the file
	start              uint64 // where its first segment's pages begin
	entry, phdr        uint64
	startCode, endCode uint64
	startData, endData uint64
	brk                uint64 // end of the last segment
}

// loadELF loads file and its interpreter.
func (l *Loader) loadELF(ctx vfs.Context, m *mm.MM, file *vfs.File, argv []string, a *Args) (Info, error) {
	img, err := readImage(ctx, file, abi.ENOEXEC)
	if err != nil {
		return Info{}, err
	}
	mappable, err := file.Ops().Mappable(ctx, file, abi.PROT_READ|abi.PROT_EXEC, abi.MAP_PRIVATE)
	if err != nil || mappable == nil {
		return Info{}, abi.ENOEXEC
	}

	var interp *image
	var interpMap mm.Mappable
	execStack := false
	for i := range img.prog {
		p := &img.prog[i]
		if p.Type == ptGNUStack {
			execStack = p.Flags&abi.PF_X != 0
		}
		if p.Type != abi.PT_INTERP || interp != nil {
			continue
		}
		f, err := openInterp(ctx, file, p, a)
		if err != nil {
			return Info{}, err
		}
		defer f.DecRef()
		if interp, err = readImage(ctx, f, abi.ELIBBAD); err != nil {
			return Info{}, err
		}
		if interpMap, err = f.Ops().Mappable(ctx, f, abi.PROT_READ|abi.PROT_EXEC, abi.MAP_PRIVATE); err != nil || interpMap == nil {
			return Info{}, abi.ELIBBAD
		}
	}
	var creds Creds
	if a.Creds != nil {
		if creds, err = a.Creds(file); err != nil {
			return Info{}, err
		}
	}

	// Linux's point of no return is here.
	m.SetMmapBase(a.StackLimit)
	st, err := newStack(m, argv, a, execStack)
	if err != nil {
		return Info{}, fatal(err)
	}
	max := m.Layout().Max
	var want uint64
	dynBase := false
	switch {
	case img.hdr.Type == abi.ET_EXEC:
	case interp != nil:
		want = max / 3 * 2 &^ pageMask
		if !a.NoRandom {
			want += rand.Uint64N(1<<28) << usermem.PageShift
		}
		dynBase = true
	}
	prog, err := mapImage(m, img, mappable, want, dynBase)
	if err != nil {
		return Info{}, fatal(err)
	}
	entry := prog.entry
	interpBase := uint64(0)
	if interp != nil {
		ip, err := mapImage(m, interp, interpMap, 0, false)
		if err != nil {
			return Info{}, fatal(err)
		}
		interpBase, entry = ip.bias, ip.entry
	}
	if entry >= max {
		return Info{}, fatal(abi.EINVAL)
	}
	vd, err := l.vdso.Map(m)
	if err != nil {
		return Info{}, fatal(err)
	}

	brk := pageUp(prog.brk)
	if img.hdr.Type == abi.ET_DYN && interp == nil {
		// A static PIE lies among the mmaps: its heap gets room elsewhere.
		brk = max / 3 * 2 &^ pageMask
	}
	if !a.NoRandom {
		brk += rand.Uint64N(0x02000000>>usermem.PageShift) << usermem.PageShift
	}
	mi := mm.Info{StartCode: prog.startCode, EndCode: prog.endCode, StartData: prog.startData, EndData: prog.endData,
		StartBrk: brk, Brk: brk, VDSO: uint64(vd)}
	sp, err := st.finish(m, &mi, []auxEntry{
		{abi.AT_SYSINFO_EHDR, uint64(vd)},
		{abi.AT_MINSIGSTKSZ, l.minSigStack},
		{abi.AT_HWCAP, l.hwcap},
		{abi.AT_PAGESZ, pageSize},
		{abi.AT_CLKTCK, 100},
		{abi.AT_PHDR, prog.phdr},
		{abi.AT_PHENT, abi.ELFProgSize},
		{abi.AT_PHNUM, uint64(img.hdr.Phnum)},
		{abi.AT_BASE, interpBase},
		{abi.AT_FLAGS, 0},
		{abi.AT_ENTRY, prog.entry},
		{abi.AT_UID, uint64(creds.UID)},
		{abi.AT_EUID, uint64(creds.EUID)},
		{abi.AT_GID, uint64(creds.GID)},
		{abi.AT_EGID, uint64(creds.EGID)},
		{abi.AT_SECURE, b2u(creds.Secure)},
		{abi.AT_HWCAP2, l.hwcap2},
	})
	if err != nil {
		return Info{}, fatal(err)
	}
	m.SetInfo(mi)
	return Info{Entry: usermem.Addr(entry), StackPtr: sp, Sigreturn: vd + sigreturnOffset}, nil
}

// openInterp opens the dynamic linker that p names.
func openInterp(ctx vfs.Context, file *vfs.File, p *abi.ELFProg, a *Args) (*vfs.File, error) {
	if p.Filesz < 2 || p.Filesz > abi.PATH_MAX {
		return nil, abi.ENOEXEC
	}
	if p.Off > 1<<62 {
		return nil, abi.EINVAL
	}
	name := make([]byte, p.Filesz)
	n, err := readAt(ctx, file, name, int64(p.Off))
	if err != nil {
		return nil, err
	}
	if n < len(name) {
		return nil, abi.EIO
	}
	if name[len(name)-1] != 0 {
		return nil, abi.ENOEXEC
	}
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	return a.Open(string(name))
}

func pageUp(n uint64) uint64 { return (n + pageMask) &^ uint64(pageMask) }

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// mapImage maps an image's segments. One of ET_DYN lies at base (if dynBase),
// or where there is room.
func mapImage(m *mm.MM, img *image, obj mm.Mappable, base uint64, dynBase bool) (placed, error) {
	r := placed{startCode: ^uint64(0)}
	top := m.Layout().Max
	lo, hi, align, segs := ^uint64(0), uint64(0), uint64(pageSize), 0
	for i := range img.prog {
		p := &img.prog[i]
		if p.Type != abi.PT_LOAD {
			continue
		}
		segs++
		end := p.Vaddr + p.Memsz
		if end < p.Vaddr || p.Vaddr >= top || p.Filesz > p.Memsz || p.Memsz > top || end > top {
			return r, abi.EINVAL
		}
		if p.Off+p.Filesz < p.Off || p.Off > 1<<62 || p.Off&pageMask != p.Vaddr&pageMask && p.Filesz > 0 {
			return r, abi.EINVAL
		}
		if segs == 1 {
			lo = p.Vaddr &^ pageMask
		}
		hi = max(hi, end)
		if p.Align > align && p.Align&(p.Align-1) == 0 && p.Align < 1<<40 {
			align = p.Align
		}
	}
	if segs == 0 || hi <= lo {
		return r, abi.EINVAL
	}
	if img.hdr.Type == abi.ET_DYN {
		// Reserve the whole extent in one piece, and lay the segments over it.
		size := pageUp(hi - lo)
		room := size
		if align > pageSize {
			room += align
		}
		if room < size || room > top {
			return r, abi.ENOMEM
		}
		at, err := m.Mmap(mm.MmapOpts{Addr: usermem.Addr(base), Len: room, Flags: abi.MAP_PRIVATE | abi.MAP_ANONYMOUS})
		if err != nil {
			return r, err
		}
		start := (uint64(at) + align - 1) &^ (align - 1)
		if start+size > uint64(at)+room {
			start = uint64(at)
		}
		if start > uint64(at) {
			m.Munmap(at, start-uint64(at))
		}
		if rest := uint64(at) + room - (start + size); rest > 0 {
			m.Munmap(usermem.Addr(start+size), rest)
		}
		r.bias = start - lo
		r.start = start
	} else {
		r.start = lo
	}
	first := true
	var lastEnd uint64
	for i := range img.prog {
		p := &img.prog[i]
		if p.Type != abi.PT_LOAD {
			continue
		}
		if err := mapSegment(m, img, obj, p, r.bias, first && img.hdr.Type == abi.ET_EXEC); err != nil {
			return r, err
		}
		// Gaps between segments are holes, not reservations.
		segLo := r.bias + p.Vaddr&^pageMask
		if img.hdr.Type == abi.ET_DYN && !first && segLo > lastEnd {
			m.Munmap(usermem.Addr(lastEnd), segLo-lastEnd)
		}
		lastEnd = max(lastEnd, pageUp(r.bias+p.Vaddr+p.Memsz))
		first = false

		if img.hdr.Phoff >= p.Off && img.hdr.Phoff < p.Off+p.Filesz {
			r.phdr = r.bias + p.Vaddr + (img.hdr.Phoff - p.Off)
		}
		s := r.bias + p.Vaddr
		if p.Flags&abi.PF_X != 0 {
			r.startCode = min(r.startCode, s)
			r.endCode = max(r.endCode, s+p.Filesz)
		}
		r.startData = max(r.startData, s)
		r.endData = max(r.endData, s+p.Filesz)
		r.brk = max(r.brk, s+p.Memsz)
	}
	if r.startCode > r.endCode {
		r.startCode = r.start
		r.endCode = r.start
	}
	r.entry = r.bias + img.hdr.Entry
	if r.entry < r.bias || r.entry >= top {
		return r, abi.EINVAL
	}
	return r, nil
}

// mapSegment maps one PT_LOAD: pages of the file, and zeroes behind them.
func mapSegment(m *mm.MM, img *image, obj mm.Mappable, p *abi.ELFProg, bias uint64, noReplace bool) error {
	prot := uint32(0)
	if p.Flags&abi.PF_R != 0 {
		prot |= abi.PROT_READ
	}
	if p.Flags&abi.PF_W != 0 {
		prot |= abi.PROT_WRITE
	}
	if p.Flags&abi.PF_X != 0 {
		prot |= abi.PROT_EXEC
	}
	flags := uint32(abi.MAP_PRIVATE | abi.MAP_FIXED)
	if noReplace {
		flags |= abi.MAP_FIXED_NOREPLACE
	}
	start := bias + p.Vaddr
	page := start &^ uint64(pageMask)
	inPage := start - page
	fileEnd, end := start+p.Filesz, start+p.Memsz
	mapped := page
	if p.Filesz > 0 {
		n := pageUp(p.Filesz + inPage)
		_, err := m.Mmap(mm.MmapOpts{Addr: usermem.Addr(page), Len: n, Prot: prot, Flags: flags, Mappable: obj, File: img.file, Off: p.Off - inPage})
		if err != nil {
			return err
		}
		mapped = page + n
		if end > fileEnd && prot&abi.PROT_WRITE != 0 && fileEnd < mapped {
			// The file's bytes behind the segment don't belong to it. If there is
			// no page because the file is too short, a fault will tell.
			m.ZeroOut(usermem.Addr(fileEnd), int(mapped-fileEnd))
		}
	}
	if end = pageUp(end); end > mapped {
		_, err := m.Mmap(mm.MmapOpts{Addr: usermem.Addr(mapped), Len: end - mapped, Prot: prot, Flags: flags | abi.MAP_ANONYMOUS})
		return err
	}
	return nil
}
