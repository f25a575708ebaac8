package pipe

import (
	"garrison/abi"
	"garrison/sentry/vfs"
)

// Of returns the pipe behind an open file and which sides it has.
func Of(f *vfs.File) (p *Pipe, read, write bool) {
	e, ok := f.Ops().(*End)
	if !ok {
		return nil, false, false
	}
	return e.p, e.read, e.write
}

// take removes up to n bytes from the front as slots of the caller's own,
// waiting for the first byte. No slot without an error is end of file.
func (p *Pipe) take(ctx vfs.Context, n int64, nonblock bool) ([]slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.used == 0 {
		if p.writers == 0 {
			return nil, nil
		}
		if nonblock {
			return nil, abi.EAGAIN
		}
		if err := p.sleep(ctx, evIn|evHup, func() bool { return p.used > 0 || p.writers == 0 }); err != nil {
			return nil, err
		}
	}
	wasFull := p.full()
	var out []slot
	for n > 0 && p.used > 0 {
		s := p.at(0)
		if int64(s.n) <= n {
			out = append(out, *s)
			n -= int64(s.n)
			p.bytes -= s.n
			*s = slot{}
			p.head = (p.head + 1) % len(p.slots)
			p.used--
			continue
		}
		part := slot{p: pages.Get().(*page), n: int(n), packet: s.packet}
		copy(part.p[:n], s.p[s.off:s.off+int(n)])
		out = append(out, part)
		s.off += int(n)
		s.n -= int(n)
		p.bytes -= int(n)
		n = 0
	}
	if wasFull && !p.full() {
		p.queue.Notify(evOut)
	}
	return out, nil
}

// putBack returns slots to the front, in order; the ring grows past its
// nominal size if writers have filled it meanwhile.
func (p *Pipe) putBack(ss []slot) {
	if len(ss) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used+len(ss) > len(p.slots) {
		p.resize(p.used + len(ss))
	}
	for i := len(ss) - 1; i >= 0; i-- {
		p.head = (p.head + len(p.slots) - 1) % len(p.slots)
		p.slots[p.head] = ss[i]
		p.used++
		p.bytes += ss[i].n
	}
	p.queue.Notify(evIn)
}

// SpliceTo moves up to n bytes out of the pipe into fn, which may take less
// than it is given. It waits only for the first byte; 0 is end of file. What fn
// does not take stays in the pipe.
func (p *Pipe) SpliceTo(ctx vfs.Context, n int64, nonblock bool, fn func(b []byte) (int, error)) (int64, error) {
	ss, err := p.take(ctx, n, nonblock)
	if err != nil {
		return 0, err
	}
	done := int64(0)
	for i := range ss {
		s := &ss[i]
		got, ferr := fn(s.p[s.off : s.off+s.n])
		done += int64(got)
		s.off += got
		s.n -= got
		if s.n > 0 {
			p.putBack(ss[i:])
			if done > 0 {
				ferr = nil
			}
			return done, ferr
		}
		pages.Put(s.p)
	}
	return done, nil
}

// room waits until the pipe has a free slot and returns how many.
func (p *Pipe) room(ctx vfs.Context, nonblock bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.readers == 0 {
			ctx.SendSelf(abi.SIGPIPE)
			return 0, abi.EPIPE
		}
		if !p.full() {
			return len(p.slots) - p.used, nil
		}
		if nonblock {
			return 0, abi.EAGAIN
		}
		if err := p.sleep(ctx, evOut|evErr, func() bool { return !p.full() || p.readers == 0 }); err != nil {
			return 0, err
		}
	}
}

// give appends slots that are the pipe's from then on.
func (p *Pipe) give(ss []slot) {
	if len(ss) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used+len(ss) > len(p.slots) {
		p.resize(p.used + len(ss))
	}
	for _, s := range ss {
		p.push(s)
	}
	p.queue.Notify(evIn)
}

// SpliceFrom fills the pipe with up to n bytes that fn produces a page at a
// time, as far as the pipe has room; it waits only for the first free slot. fn
// returns 0 at the end of its file.
func (p *Pipe) SpliceFrom(ctx vfs.Context, n int64, nonblock bool, fn func(b []byte) (int, error)) (int64, error) {
	free, err := p.room(ctx, nonblock)
	if err != nil {
		return 0, err
	}
	done := int64(0)
	var ss []slot
	for len(ss) < free && done < n {
		pg := pages.Get().(*page)
		want := int(min(n-done, pageSize))
		got, ferr := fn(pg[:want])
		if got <= 0 {
			pages.Put(pg)
			err = ferr
			break
		}
		ss = append(ss, slot{p: pg, n: got})
		done += int64(got)
		if ferr != nil || got < want {
			break
		}
	}
	p.give(ss)
	if done > 0 {
		err = nil
	}
	return done, err
}

// Move is splice(2) from one pipe to another. EINVAL if they are the same.
func Move(ctx vfs.Context, dst, src *Pipe, n int64, nonblock bool) (int64, error) {
	if dst == src {
		return 0, abi.EINVAL
	}
	if err := src.ready(ctx, nonblock); err != nil {
		return 0, err
	}
	free, err := dst.room(ctx, nonblock)
	if err != nil {
		return 0, err
	}
	ss, err := src.take(ctx, min(n, int64(free)*pageSize), nonblock)
	if err != nil {
		return 0, err
	}
	if len(ss) > free {
		src.putBack(ss[free:])
		ss = ss[:free]
	}
	done := int64(0)
	for i := range ss {
		ss[i].merge = false
		done += int64(ss[i].n)
	}
	dst.give(ss)
	return done, nil
}

// ready waits until src has data or no writer.
func (p *Pipe) ready(ctx vfs.Context, nonblock bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used > 0 || p.writers == 0 {
		return nil
	}
	if nonblock {
		return abi.EAGAIN
	}
	return p.sleep(ctx, evIn|evHup, func() bool { return p.used > 0 || p.writers == 0 })
}

// Tee is tee(2): it copies up to n bytes and leaves them in src.
func Tee(ctx vfs.Context, dst, src *Pipe, n int64, nonblock bool) (int64, error) {
	if dst == src {
		return 0, abi.EINVAL
	}
	if err := src.ready(ctx, nonblock); err != nil {
		return 0, err
	}
	free, err := dst.room(ctx, nonblock)
	if err != nil {
		return 0, err
	}
	var ss []slot
	done := int64(0)
	src.mu.Lock()
	for i := 0; i < src.used && len(ss) < free && done < n; i++ {
		s := src.at(i)
		part := slot{p: pages.Get().(*page), n: int(min(int64(s.n), n-done)), packet: s.packet}
		copy(part.p[:part.n], s.p[s.off:])
		ss = append(ss, part)
		done += int64(part.n)
	}
	src.mu.Unlock()
	dst.give(ss)
	return done, nil
}
