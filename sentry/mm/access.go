package mm

import (
	"bytes"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/usermem"
)

// An xlate is a cached translation: where [start, end) lies in the Sentry.
type xlate struct {
	start, end, gen uint64
	prot            platform.Prot
	mem             []byte
}

// A piece is a run of guest memory as the Sentry reaches it: bytes of the page
// file's mapping, or a part of a host file, which is read and written by system
// calls (a mapping of it could end under us).
type piece struct {
	mem []byte
	fd  int
	off int64
	n   int
}

func (m *MM) slot(addr uint64) int { return int((addr>>16 ^ addr>>24) & 7) }

// peek finds memory at addr that can be accessed right now; at most n bytes.
// mu is held for reading, or for writing.
func (m *MM) peek(addr uint64, n int, need platform.Prot, force bool) (piece, bool) {
	slot := &m.tcache[m.slot(addr)]
	if x := slot.Load(); x != nil && x.gen == m.gen && addr >= x.start && addr < x.end && need&^x.prot == 0 {
		mem := x.mem[addr-x.start:]
		if len(mem) > n {
			mem = mem[:n]
		}
		return piece{mem: mem}, true
	}
	page := addr &^ uint64(pageMask)
	v, ok := m.vmas.Find(page)
	if !ok {
		return piece{}, false
	}
	prot := effective(v.Val.prot)
	if need&^prot != 0 && !force {
		return piece{}, false
	}
	p, ok := m.pmas.Find(page)
	if !ok {
		return piece{}, false
	}
	can := platform.Read | platform.Write
	if p.Val.owned {
		if p.Val.cow {
			can = platform.Read
		}
	} else if !v.Val.shared() || !p.Val.wr || p.Val.max&platform.Write == 0 {
		can = platform.Read
	}
	if need&^can != 0 {
		return piece{}, false
	}
	lo, hi := max(v.Start, p.Start), min(v.End, p.End)
	off := p.Val.off + (addr - p.Start)
	if int(p.Val.fd) != m.pf.FD() {
		return piece{fd: int(p.Val.fd), off: int64(off), n: int(min(uint64(n), hi-addr))}, true
	}
	if force {
		return piece{mem: m.pf.Slice(off, min(uint64(n), hi-addr))}, true
	}
	// Cache as much as one host mapping holds, from a round address on.
	base := max(lo, addr&^(1<<20-1))
	mem := m.pf.Slice(off-(addr-base), hi-base)
	if uint64(len(mem)) <= addr-base {
		return piece{mem: m.pf.Slice(off, min(uint64(n), hi-addr))}, true
	}
	slot.Store(&xlate{start: base, end: base + uint64(len(mem)), gen: m.gen, prot: prot & can, mem: mem})
	mem = mem[addr-base:]
	if len(mem) > n {
		mem = mem[:n]
	}
	return piece{mem: mem}, true
}

// touch is peek that takes the faults a guest's access would take. mu is held
// for writing.
func (m *MM) touch(addr uint64, n int, need platform.Prot, force bool) (piece, error) {
	page := addr &^ uint64(pageMask)
	if m.released || addr >= m.layout.Max {
		return piece{}, abi.EFAULT
	}
	v, ok := m.vmas.Find(page)
	if !ok {
		lim := m.lim()
		if v, ok = m.growStack(&lim, page); !ok {
			return piece{}, abi.EFAULT
		}
	}
	if need&^effective(v.Val.prot) != 0 && (!force || v.Val.flags&vmSpecial != 0 && need&platform.Write != 0) {
		return piece{}, abi.EFAULT
	}
	if m.resolve(v, page, need&platform.Write != 0, false, force) != nil {
		return piece{}, abi.EFAULT
	}
	p, ok := m.peek(addr, n, need, force)
	if !ok {
		return piece{}, abi.EFAULT
	}
	return p, nil
}

// with calls fn with the piece of memory at addr, under the lock that keeps it
// there.
func (m *MM) with(addr uint64, n int, need platform.Prot, force bool, fn func(p piece) (int, error)) (int, error) {
	m.mu.RLock()
	if p, ok := m.peek(addr, n, need, force); ok {
		defer m.mu.RUnlock()
		return fn(p)
	}
	m.mu.RUnlock()
	m.mu.Lock()
	defer m.unlock()
	p, err := m.touch(addr, n, need, force)
	if err != nil {
		return 0, err
	}
	return fn(p)
}

// fast returns directly accessible memory, or nil with mu released. The caller
// calls mu.RUnlock after use.
func (m *MM) fast(addr uint64, n int, need platform.Prot) []byte {
	m.mu.RLock()
	if x := m.tcache[m.slot(addr)].Load(); x != nil && x.gen == m.gen && addr >= x.start && addr < x.end && need&^x.prot == 0 {
		mem := x.mem[addr-x.start:]
		if len(mem) > n {
			mem = mem[:n]
		}
		return mem
	}
	if p, ok := m.peek(addr, n, need, false); ok && p.mem != nil {
		return p.mem
	}
	m.mu.RUnlock()
	return nil
}

// CopyIn implements usermem.Memory.
func (m *MM) CopyIn(addr usermem.Addr, dst []byte) (int, error) {
	done := 0
	for done < len(dst) {
		a := uint64(addr) + uint64(done)
		if mem := m.fast(a, len(dst)-done, platform.Read); mem != nil {
			done += copy(dst[done:], mem)
			m.mu.RUnlock()
			continue
		}
		n, err := m.copySlow(a, dst[done:], false, false)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// CopyOut implements usermem.Memory.
func (m *MM) CopyOut(addr usermem.Addr, src []byte) (int, error) {
	done := 0
	for done < len(src) {
		a := uint64(addr) + uint64(done)
		if mem := m.fast(a, len(src)-done, platform.Write); mem != nil {
			done += copy(mem, src[done:])
			m.mu.RUnlock()
			continue
		}
		n, err := m.copySlow(a, src[done:], true, false)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (m *MM) copySlow(a uint64, b []byte, write, force bool) (int, error) {
	need := platform.Read
	if write {
		need = platform.Write
	}
	return m.with(a, len(b), need, force, func(p piece) (int, error) {
		switch {
		case p.mem != nil && write:
			return copy(p.mem, b), nil
		case p.mem != nil:
			return copy(b, p.mem), nil
		}
		return p.hostIO(b[:p.n], write)
	})
}

// hostIO reads or writes a host file's mapped range. Inside the last page,
// behind the end of the file, it reads as zeroes and swallows what is written.
func (p *piece) hostIO(b []byte, write bool) (int, error) {
	for done := 0; done < len(b); {
		var n int
		var err error
		if write {
			// The mapping can't make the file longer, so neither may this.
			var st unix.Stat_t
			if err := unix.Fstat(p.fd, &st); err != nil {
				return done, abi.EFAULT
			}
			at := p.off + int64(done)
			w := b[done:]
			if at >= st.Size {
				if at>>usermem.PageShift > (st.Size-1)>>usermem.PageShift || st.Size == 0 {
					return done, abi.EFAULT
				}
				return len(b), nil
			}
			if int64(len(w)) > st.Size-at {
				w = w[:st.Size-at]
			}
			n, err = unix.Pwrite(p.fd, w, at)
		} else {
			n, err = unix.Pread(p.fd, b[done:], p.off+int64(done))
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, abi.EFAULT
		}
		if n == 0 {
			at := p.off + int64(done)
			rest := int(-at & pageMask) // to the end of the page
			if rest == 0 {
				return done, abi.EFAULT // no page behind the end of the file
			}
			n = min(rest, len(b)-done)
			clear(b[done : done+n])
		}
		done += n
	}
	return len(b), nil
}

// ZeroOut implements usermem.Memory.
func (m *MM) ZeroOut(addr usermem.Addr, n int) (int, error) {
	return m.Access(addr, n, true, func(b []byte) (int, error) {
		clear(b)
		return len(b), nil
	})
}

// CopyInString implements usermem.Memory.
func (m *MM) CopyInString(addr usermem.Addr, limit int) (string, error) {
	var small [128]byte
	out := small[:0]
	for len(out) < limit {
		a := uint64(addr) + uint64(len(out))
		want := limit - len(out)
		if mem := m.fast(a, want, platform.Read); mem != nil {
			// Guests change memory as we look: copy first, search the copy.
			from := len(out)
			chunk := mem[:min(len(mem), 256)]
			out = append(out, chunk...)
			m.mu.RUnlock()
			if i := bytes.IndexByte(out[from:], 0); i >= 0 {
				return string(out[:from+i]), nil
			}
			continue
		}
		var buf [256]byte
		// Not beyond the page: what follows may be bad, and the string short.
		n := min(want, len(buf), int(pageSize-a&pageMask))
		got, err := m.copySlow(a, buf[:n], false, false)
		if i := bytes.IndexByte(buf[:got], 0); i >= 0 {
			return string(append(out, buf[:i]...)), nil
		}
		out = append(out, buf[:got]...)
		if err != nil {
			return "", err
		}
	}
	return "", abi.ENAMETOOLONG
}

// Access implements usermem.Memory.
func (m *MM) Access(addr usermem.Addr, n int, write bool, fn func(piece []byte) (int, error)) (int, error) {
	need := platform.Read
	if write {
		need = platform.Write
	}
	done := 0
	for done < n {
		a := uint64(addr) + uint64(done)
		if a < uint64(addr) {
			return done, abi.EFAULT
		}
		short := false
		got, err := m.with(a, n-done, need, false, func(p piece) (int, error) {
			got, given, err := p.apply(write, fn)
			short = got < given
			return got, err
		})
		done += got
		if err != nil || short {
			return done, err
		}
	}
	return done, nil
}

// apply lets fn work on the piece, through a copy if it lies in a host file.
func (p *piece) apply(write bool, fn func([]byte) (int, error)) (got, given int, err error) {
	if p.mem != nil {
		got, err = fn(p.mem)
		return got, len(p.mem), err
	}
	b := make([]byte, min(p.n, 256<<10))
	if !write {
		if n, err := p.hostIO(b, false); n == 0 && err != nil {
			return 0, 0, err
		} else {
			b = b[:n]
		}
		got, err = fn(b)
		return got, len(b), err
	}
	got, err = fn(b)
	if got > 0 {
		n, werr := p.hostIO(b[:got], true)
		if werr != nil {
			return n, len(b), werr
		}
	}
	return got, len(b), err
}

// ReadForce and WriteForce access memory for a debugger (ptrace(2),
// /proc/PID/mem): protections do not matter, but shared memory that is not
// writable stays unwritten.
func (m *MM) ReadForce(addr usermem.Addr, dst []byte) (int, error) { return m.forced(addr, dst, false) }

// WriteForce writes; see ReadForce.
func (m *MM) WriteForce(addr usermem.Addr, src []byte) (int, error) {
	return m.forced(addr, src, true)
}

func (m *MM) forced(addr usermem.Addr, b []byte, write bool) (int, error) {
	done := 0
	for done < len(b) {
		n, err := m.copySlow(uint64(addr)+uint64(done), b[done:], write, true)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

var _ usermem.Memory = (*MM)(nil)
