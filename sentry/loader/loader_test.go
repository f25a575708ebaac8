package loader

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"garrison/abi"
	"garrison/platform"
	"garrison/sentry/mm"
	"garrison/sentry/pagefile"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

type nullPlatform struct{}

func (nullPlatform) Name() string { return "null" }
func (nullPlatform) Layout() platform.Layout {
	return platform.Layout{Min: 0x10000, Max: 1<<47 - 4096}
}
func (nullPlatform) NewAddressSpace() (platform.AddressSpace, error) { return nullAS{}, nil }
func (nullPlatform) NewThread() (platform.Thread, error)             { return nil, abi.ENOSYS }

type nullAS struct{}

func (nullAS) Map(platform.Mapping) error                  { return nil }
func (nullAS) Unmap(uint64, uint64) error                  { return nil }
func (nullAS) Protect(uint64, uint64, platform.Prot) error { return nil }
func (nullAS) Flush() error                                { return nil }
func (nullAS) Release()                                    {}

// memFile is an open file over a memfd.
type memFile struct {
	vfs.FileDefaults
	fd   int
	size int
}

func newFile(t testing.TB, b []byte) *vfs.File {
	fd, err := unix.MemfdCreate("elf", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	unix.Pwrite(fd, b, 0)
	return vfs.NewFile(&memFile{fd: fd, size: len(b)}, abi.O_RDONLY, vfs.Path{})
}

func (f *memFile) Read(_ vfs.Context, _ *vfs.File, dst *usermem.Buffer, off int64, _ vfs.IOFlags) (int64, error) {
	b := make([]byte, dst.Len())
	n, err := unix.Pread(f.fd, b, off)
	if err != nil {
		return 0, abi.FromHost(err)
	}
	w, err := dst.Write(b[:n])
	return int64(w), err
}
func (f *memFile) Stream() bool { return false }
func (f *memFile) Mappable(vfs.Context, *vfs.File, uint32, uint32) (mm.Mappable, error) {
	return f, nil
}
func (f *memFile) Release(*vfs.File) { unix.Close(f.fd) }
func (f *memFile) Translate(off, n uint64, _ bool) ([]mm.Piece, error) {
	size := pageUp(uint64(f.size))
	if off >= size {
		return nil, nil
	}
	return []mm.Piece{{Off: off, Len: min(n, size-off), FD: f.fd, FDOff: int64(off), Max: 7}}, nil
}
func (f *memFile) AddMapping(mm.Invalidator, uint64, uint64)    {}
func (f *memFile) RemoveMapping(mm.Invalidator, uint64, uint64) {}

func newPF(t testing.TB) *pagefile.File {
	fd, err := unix.MemfdCreate("pages", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// The page file owns fd and gives memory back late: it is never closed.
	pf, err := pagefile.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	return pf
}

func hostOpen(t testing.TB) func(string) (*vfs.File, error) {
	return func(path string) (*vfs.File, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, abi.FromHost(err)
		}
		return newFile(t, b), nil
	}
}

// load loads bytes and returns the MM, which the caller releases.
func load(t testing.TB, pf *pagefile.File, b []byte, argv, env []string) (*mm.MM, Info, error) {
	m, err := mm.New(nullPlatform{}, pf)
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(pf, nullPlatform{})
	if err != nil {
		t.Fatal(err)
	}
	f := newFile(t, b)
	defer f.DecRef()
	info, err := l.Load(nil, m, Args{File: f, Path: "/bin/prog", Argv: argv, Envv: env, Open: hostOpen(t), StackLimit: 8 << 20})
	if err == nil {
		info.File.DecRef()
	}
	return m, info, err
}

func TestDynamic(t *testing.T) {
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip("no /bin/sh")
	}
	pf := newPF(t)
	m, info, err := load(t, pf, b, []string{"sh", "-c", "true"}, []string{"A=b"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.DecUsers()
	word := func(a usermem.Addr) uint64 {
		v, err := usermem.CopyInUint64(m, a)
		if err != nil {
			t.Fatalf("word at %#x: %v", a, err)
		}
		return v
	}
	sp := info.StackPtr
	if sp&15 != 0 || word(sp) != 3 {
		t.Errorf("stack pointer %#x, argc %d", sp, word(sp))
	}
	for i, want := range []string{"sh", "-c", "true"} {
		if s, _ := m.CopyInString(usermem.Addr(word(sp+8+usermem.Addr(8*i))), 100); s != want {
			t.Errorf("argv[%d] = %q", i, s)
		}
	}
	if word(sp+32) != 0 || word(sp+48) != 0 {
		t.Error("argv or envp does not end with NULL")
	}
	if s, _ := m.CopyInString(usermem.Addr(word(sp+40)), 100); s != "A=b" {
		t.Errorf("envp[0] = %q", s)
	}
	aux := map[uint64]uint64{}
	for a := sp + 56; word(a) != 0; a += 16 {
		aux[word(a)] = word(a + 8)
	}
	if s, _ := m.CopyInString(usermem.Addr(aux[abi.AT_EXECFN]), 100); s != "/bin/prog" {
		t.Errorf("AT_EXECFN = %q", s)
	}
	if s, _ := m.CopyInString(usermem.Addr(aux[abi.AT_PLATFORM]), 100); s != "x86_64" {
		t.Errorf("AT_PLATFORM = %q", s)
	}
	var magic [4]byte
	for _, tag := range []uint64{abi.AT_SYSINFO_EHDR, abi.AT_BASE} {
		m.CopyIn(usermem.Addr(aux[tag]), magic[:])
		if string(magic[:]) != "\x7fELF" {
			t.Errorf("no ELF image at auxv %d: %q", tag, magic)
		}
	}
	var ph abi.ELFProg
	raw := make([]byte, abi.ELFProgSize)
	m.CopyIn(usermem.Addr(aux[abi.AT_PHDR]), raw)
	ph.UnmarshalFrom(raw)
	if ph.Type != abi.PT_PHDR {
		t.Errorf("AT_PHDR points to a header of type %d", ph.Type)
	}
	mi := m.Info()
	env := make([]byte, mi.EnvEnd-mi.EnvStart)
	m.CopyIn(usermem.Addr(mi.EnvStart), env)
	if string(env) != "A=b\x00" {
		t.Errorf("environment is %q", env)
	}
	if got := m.Brk(usermem.Addr(mi.Brk + 8192)); got != usermem.Addr(mi.Brk+8192) {
		t.Errorf("brk does not grow: %#x", got)
	}
	var names []string
	for _, v := range m.Maps() {
		names = append(names, v.Name)
	}
	for _, want := range []string{"[heap]", "[stack]", "[vdso]", "[vvar]"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("no %s in %q", want, names)
		}
	}
}

func TestScripts(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		head, interp, arg string
		ok                bool
		err               error
	}{
		{"\x7fELF", "", "", false, nil},
		{"#!/bin/sh\n", "/bin/sh", "", true, nil},
		{"#! \t/bin/sh  -e -x \t\nrest", "/bin/sh", "-e -x", true, nil},
		{"#!/bin/sh", "/bin/sh", "", true, nil},
		{"#!\n", "", "", false, abi.ENOEXEC},
		{"#!   \n", "", "", false, abi.ENOEXEC},
		{"#!", "", "", false, abi.ENOEXEC},
		{"#!/" + long, "", "", false, abi.ENOEXEC},
		{"#!/bin/sh " + long, "/bin/sh", strings.Repeat("x", 245), true, nil},
	} {
		head := []byte(c.head)
		if len(head) > headSize {
			head = head[:headSize]
		}
		interp, arg, ok, err := parseScript(head)
		if interp != c.interp || arg != c.arg || ok != c.ok || err != c.err {
			t.Errorf("%.20q: %q %q %v %v, want %q %q %v %v", c.head, interp, arg, ok, err, c.interp, c.arg, c.ok, c.err)
		}
	}
	pf := newPF(t)
	dir := t.TempDir()
	self := dir + "/loop"
	os.WriteFile(self, []byte("#!"+self+"\n"), 0o755)
	for _, c := range []struct {
		script string
		want   error
	}{
		{"#!" + self + "\n", abi.ELOOP},
		{"#!/does/not/exist\n", abi.ENOENT},
		{"#!/bin/sh -e\n", nil},
		{"just text", abi.ENOEXEC},
		{"", abi.ENOEXEC},
	} {
		m, info, err := load(t, pf, []byte(c.script), []string{"s", "1"}, nil)
		if err != c.want {
			t.Errorf("%q: %v, want %v", c.script, err, c.want)
		}
		if err == nil {
			argc, _ := usermem.CopyInUint64(m, info.StackPtr)
			if argc != 4 {
				t.Errorf("argc is %d", argc)
			}
		}
		m.DecUsers()
	}
}

func TestLimits(t *testing.T) {
	big := strings.Repeat("a", MaxArgStrlen)
	many := make([]string, 20000)
	for i := range many {
		many[i] = strings.Repeat("b", 100)
	}
	for _, c := range []struct {
		name  string
		argv  []string
		limit uint64
		want  error
	}{
		{"long string", []string{big}, 8 << 20, abi.E2BIG},
		{"just fits", []string{big[1:]}, 8 << 20, nil},
		{"over a quarter of the stack", many, 8 << 20, abi.E2BIG},
		{"fits a big stack", many, 64 << 20, nil},
		{"always allowed", []string{big[:100000]}, 4096, nil},
	} {
		if err := CheckStrings(c.argv, nil, c.limit); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// tiny is a static ELF image with one segment.
func tiny(change func(h []byte)) []byte {
	b := make([]byte, 4096+100)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], abi.ET_EXEC)
	le.PutUint16(b[18:], abi.EM_X86_64)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], 0x400080) // entry
	le.PutUint64(b[32:], 64)       // phoff
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1) // phnum
	p := b[64:]
	le.PutUint32(p, abi.PT_LOAD)
	le.PutUint32(p[4:], 7)
	le.PutUint64(p[16:], 0x400000)   // vaddr
	le.PutUint64(p[32:], 4196)       // filesz
	le.PutUint64(p[40:], 4096*3)     // memsz
	le.PutUint64(p[48:], 4096)       // align
	for i := 4096; i < len(b); i++ { // what lies at the segment's end
		b[i] = 7
	}
	if change != nil {
		change(b)
	}
	return b
}

func TestHostile(t *testing.T) {
	le := binary.LittleEndian
	pf := newPF(t)
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   error
	}{
		{"good", nil, nil},
		{"magic", func(b []byte) { b[0] = 0 }, abi.ENOEXEC},
		{"relocatable", func(b []byte) { b[16] = 1 }, abi.ENOEXEC},
		{"machine", func(b []byte) { b[18] = 3 }, abi.ENOEXEC},
		{"phentsize", func(b []byte) { b[54] = 55 }, abi.ENOEXEC},
		{"no phdrs", func(b []byte) { b[56] = 0 }, abi.ENOEXEC},
		{"too many phdrs", func(b []byte) { le.PutUint16(b[56:], 0xffff) }, abi.ENOEXEC},
		{"phdrs behind the end", func(b []byte) { le.PutUint64(b[32:], 1<<40) }, abi.ENOEXEC},
		{"phoff negative", func(b []byte) { le.PutUint64(b[32:], 1<<63) }, abi.ENOEXEC},
		{"filesz over memsz", func(b []byte) { le.PutUint64(b[64+40:], 1) }, Fatal{abi.EINVAL}},
		{"memsz wraps", func(b []byte) { le.PutUint64(b[64+40:], ^uint64(0)) }, Fatal{abi.EINVAL}},
		{"kernel address", func(b []byte) { le.PutUint64(b[64+16:], 1<<63) }, Fatal{abi.EINVAL}},
		{"low address", func(b []byte) { le.PutUint64(b[64+16:], 0) }, Fatal{abi.EPERM}},
		{"misaligned", func(b []byte) { le.PutUint64(b[64+16:], 0x400010) }, Fatal{abi.EINVAL}},
		{"entry", func(b []byte) { le.PutUint64(b[24:], 1<<50) }, Fatal{abi.EINVAL}},
		{"no segment", func(b []byte) { b[64] = 6 }, Fatal{abi.EINVAL}},
		{"interpreter's name too long", func(b []byte) { b[64] = abi.PT_INTERP; le.PutUint64(b[64+32:], 5000) }, abi.ENOEXEC},
		{"interpreter's name without end", func(b []byte) { b[64] = abi.PT_INTERP; le.PutUint64(b[64+32:], 4) }, abi.ENOEXEC},
		{"huge memsz", func(b []byte) { le.PutUint64(b[64+40:], 1<<46) }, nil},
	} {
		m, _, err := load(t, pf, tiny(c.change), []string{"x"}, nil)
		if err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.name == "good" {
			var b [8192]byte
			if _, err := m.CopyIn(0x401000, b[:]); err != nil {
				t.Error(err)
			}
			if b[99] != 7 || b[100] != 0 || b[5000] != 0 {
				t.Errorf("bss is not clear: %d %d %d", b[99], b[100], b[5000])
			}
		}
		m.DecUsers()
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(tiny(nil))
	f.Add(tiny(func(b []byte) { b[16] = abi.ET_DYN; binary.LittleEndian.PutUint64(b[64+16:], 0) }))
	f.Add([]byte("#!/bin/sh -x\n"))
	f.Add([]byte("#!/bin/sh"))
	if b, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(b[:min(len(b), 8192)])
	}
	pf := newPF(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.HasPrefix(b, []byte("#!")) && bytes.Contains(b, []byte("/dev")) {
			return
		}
		m, _, err := load(t, pf, b, []string{"prog"}, nil)
		if _, isErrno := err.(abi.Errno); err != nil && !isErrno {
			if _, isFatal := err.(Fatal); !isFatal {
				t.Errorf("error %v is no errno", err)
			}
		}
		m.DecUsers()
	})
}
