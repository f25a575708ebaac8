package inet

import (
	"sync"

	"garrison/abi"
	"garrison/sentry/socket"
	"garrison/sentry/usermem"
)

// defaultWindow is how much one direction of a connection holds when neither
// side has set its buffer sizes: about what Linux's autotuning reaches soon.
const defaultWindow = 512 << 10

// A stream is one direction of a connection.
type stream struct {
	from, to *TCP

	mu         sync.Mutex
	head, tail *socket.Block
	bytes      int
	window     int
	fin        bool // no more will be written
	gone       bool // the reader is closed: what is written is lost
	starved    bool // the writer found it full, or polled so
}

// space is what fits. mu must be held.
func (s *stream) space() int { return s.window - s.bytes }

// writable is sk_stream_is_writeable. mu must be held.
func (s *stream) writable() bool { return s.space() >= s.bytes/2 && s.space() > 0 }

// write takes what fits of src. err is EAGAIN if that is nothing.
func (s *stream) write(src *usermem.Buffer) (done int, lost bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, true, nil
	}
	for src.Len() > 0 {
		n := min(src.Len(), s.space())
		if n <= 0 {
			s.starved = true
			if done == 0 {
				return 0, false, abi.EAGAIN
			}
			return done, false, nil
		}
		b := s.tail
		if b == nil || len(b.Room()) < min(n, 2048) {
			b = socket.NewBlock(min(n, socket.MaxBlock))
			n = min(n, len(b.Room()))
			got, err := src.Read(b.Room()[:n])
			if got == 0 {
				b.Free()
				return done, false, err
			}
			b.Extend(got)
			if s.tail != nil {
				s.tail.Next = b
			} else {
				s.head = b
			}
			s.tail = b
			s.bytes += got
			done += got
			if err != nil {
				return done, false, err
			}
			continue
		}
		n = min(n, len(b.Room()))
		got, err := src.Read(b.Room()[:n])
		b.Extend(got)
		s.bytes += got
		done += got
		if err != nil || got < n {
			return done, false, err
		}
	}
	return done, false, nil
}

// read fills dst; skip bytes are passed over, and nothing is consumed if peek
// is set. dst of nil discards up to n bytes. wake reports whether the writer
// waits for what has become free.
func (s *stream) read(dst *usermem.Buffer, n, skip int, peek bool) (done int, wake bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.head
	if peek {
		for b != nil && skip >= b.Len() {
			skip -= b.Len()
			b = b.Next
		}
	}
	for b != nil && done < n {
		data := b.Data()
		if peek {
			data = data[skip:]
			skip = 0
		}
		want := min(len(data), n-done)
		got := want
		if dst != nil {
			got, err = dst.Write(data[:want])
		}
		done += got
		if peek {
			if err != nil || got < want {
				return done, false, err
			}
			b = b.Next
			continue
		}
		b.Consume(got)
		s.bytes -= got
		if b.Len() == 0 {
			s.head = b.Next
			if s.head == nil {
				s.tail = nil
			}
			b.Free()
		}
		b = s.head
		if err != nil || got < want {
			break
		}
	}
	if !peek && done > 0 && s.starved && s.writable() {
		s.starved, wake = false, true
	}
	return done, wake, err
}

// drop frees what is queued; the reader is gone. It reports whether bytes were lost.
func (s *stream) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.bytes > 0
	for b := s.head; b != nil; {
		next := b.Next
		b.Free()
		b = next
	}
	s.head, s.tail, s.bytes, s.gone = nil, nil, 0, true
	return lost
}

// finish is the writer's FIN.
func (s *stream) finish() {
	s.mu.Lock()
	s.fin = true
	s.mu.Unlock()
}

// state returns how many bytes there are and whether more may come.
func (s *stream) state() (bytes int, fin bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.fin
}
