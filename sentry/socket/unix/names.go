package unix

import (
	"bytes"
	"fmt"
	"sort"
	"sync"

	"garrison/abi"
	"garrison/sentry/vfs"
)

// A Namespace finds sockets by name: abstract names, and socket files' inodes.
type Namespace struct {
	mu       sync.Mutex
	abstract map[abstractKey]*Socket
	files    map[vfs.Inode]*Socket
	all      map[*Socket]struct{} // for /proc/net/unix
	auto     uint32
}

// abstractKey has the type because sockets of different types do not clash.
type abstractKey struct {
	typ  int
	name string // with the leading NUL
}

func newNamespace() *Namespace {
	return &Namespace{abstract: make(map[abstractKey]*Socket), files: make(map[vfs.Inode]*Socket),
		all: make(map[*Socket]struct{})}
}

// unbind forgets s's name and returns the file that it was bound to, whose
// reference is the caller's. s.mu must be held.
func (ns *Namespace) unbind(s *Socket) vfs.Path {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	delete(ns.all, s)
	if file := s.file; file.Valid() {
		if i := file.Inode(); ns.files[i] == s {
			delete(ns.files, i)
		}
		s.file = vfs.Path{}
		return file
	}
	if len(s.addr) > 2 && s.addr[2] == 0 {
		k := abstractKey{s.Type, string(s.addr[2:])}
		if ns.abstract[k] == s {
			delete(ns.abstract, k)
		}
	}
	return vfs.Path{}
}

// add notes a new socket.
func (ns *Namespace) add(s *Socket) {
	ns.mu.Lock()
	ns.all[s] = struct{}{}
	ns.mu.Unlock()
}

// ProcNetUnix is /proc/net/unix (proc(5)).
func (ns *Namespace) ProcNetUnix() []byte {
	ns.mu.Lock()
	socks := make([]*Socket, 0, len(ns.all))
	for s := range ns.all {
		socks = append(socks, s)
	}
	ns.mu.Unlock()
	sort.Slice(socks, func(i, j int) bool { return socks[i].Ino() < socks[j].Ino() })
	var b bytes.Buffer
	b.WriteString("Num       RefCount Protocol Flags    Type St Inode Path\n")
	for _, s := range socks {
		flags, st := 0, 1 // SS_UNCONNECTED
		switch s.state() {
		case listening:
			flags = 1 << 16 // __SO_ACCEPTCON
		case established:
			st = 3
		}
		fmt.Fprintf(&b, "%016x: %08X %08X %08X %04X %02X %5d", 0, 2, 0, flags, s.Type, st, s.Ino())
		if name := s.address()[2:]; len(name) > 0 {
			if name[0] != 0 {
				name = bytes.TrimRight(name, "\x00")
			}
			b.WriteString(" " + string(bytes.ReplaceAll(name, []byte{0}, []byte{'@'})))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// parse checks a sockaddr_un (unix_validate_addr); path is set for names in the
// file system, else name is the abstract one.
func parse(addr []byte) (path, name string, err error) {
	if len(addr) <= 2 || len(addr) > abi.SizeofSockUn || int(addr[0])|int(addr[1])<<8 != abi.AF_UNIX {
		return "", "", abi.EINVAL
	}
	p := addr[2:]
	if p[0] == 0 {
		return "", string(p), nil
	}
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return string(p), "", nil
}

// Bind implements socket.Socket (unix_bind).
func (s *Socket) Bind(ctx vfs.Context, addr []byte) error {
	if len(addr) == 2 && addr[0] == abi.AF_UNIX && addr[1] == 0 {
		return s.autobind()
	}
	path, name, err := parse(addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	bound := s.addr != nil
	s.mu.Unlock()
	if bound {
		return abi.EINVAL
	}
	if path != "" {
		file, err := makeSocketFile(ctx, path)
		if err == abi.EEXIST {
			return abi.EADDRINUSE
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.addr != nil {
			return abi.EINVAL
		}
		// The reference keeps the dentry, and so the inode's identity.
		file.IncRef()
		s.file = file
		s.addr = append(append([]byte{abi.AF_UNIX, 0}, path...), 0)
		s.ns.mu.Lock()
		s.ns.files[file.Inode()] = s
		s.ns.mu.Unlock()
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr != nil {
		return abi.EINVAL
	}
	if !s.claim(name) {
		return abi.EADDRINUSE
	}
	return nil
}

// claim takes an abstract name. s.mu must be held.
func (s *Socket) claim(name string) bool {
	s.ns.mu.Lock()
	defer s.ns.mu.Unlock()
	k := abstractKey{s.Type, name}
	if s.ns.abstract[k] != nil {
		return false
	}
	s.ns.abstract[k] = s
	s.addr = append([]byte{abi.AF_UNIX, 0}, name...)
	return true
}

// autobind gives an unbound socket an abstract name of five hex digits.
func (s *Socket) autobind() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 1 << 20 {
		if s.addr != nil {
			return nil
		}
		s.ns.mu.Lock()
		s.ns.auto++
		n := s.ns.auto & 0xfffff
		s.ns.mu.Unlock()
		s.claim(fmt.Sprintf("\x00%05x", n))
	}
	if s.addr != nil {
		return nil
	}
	return abi.ENOSPC
}

// find looks the socket up that an address names (unix_find_other).
func (s *Socket) find(ctx vfs.Context, addr []byte) (*Socket, error) {
	path, name, err := parse(addr)
	if err != nil {
		return nil, err
	}
	if path == "" {
		s.ns.mu.Lock()
		defer s.ns.mu.Unlock()
		if o := s.ns.abstract[abstractKey{s.Type, name}]; o != nil {
			return o, nil
		}
		return nil, abi.ECONNREFUSED
	}
	inode, err := findSocketFile(ctx, path)
	if err != nil {
		return nil, err
	}
	s.ns.mu.Lock()
	o := s.ns.files[inode]
	s.ns.mu.Unlock()
	if o == nil {
		return nil, abi.ECONNREFUSED
	}
	if o.Type != s.Type {
		return nil, abi.EPROTOTYPE
	}
	return o, nil
}
