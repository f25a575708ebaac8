package tty

import (
	"testing"

	"garrison/abi"
	"garrison/sentry/usermem"
	"garrison/sentry/vfs"
)

func newContext() vfs.Context { return vfs.NewSystemContext(vfs.New(), vfs.Path{}) }

// open makes a terminal with both sides open, nonblocking.
func open(t *testing.T) (tt *TTY, master, slave *vfs.File) {
	t.Helper()
	tt, m := New(nil, 0, nil, nil)
	if _, err := tt.Open(newContext(), nil, abi.O_RDWR); err != abi.EIO {
		t.Fatalf("a locked slave opens: %v", err)
	}
	tt.locked = false
	s, err := tt.Open(newContext(), nil, abi.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	return tt, vfs.NewAnonFile(m, abi.O_RDWR|abi.O_NONBLOCK, "ptmx"), vfs.NewAnonFile(s, abi.O_RDWR|abi.O_NONBLOCK, "pts")
}

func write(f *vfs.File, s string) error {
	_, err := f.Write(newContext(), usermem.Bytes([]byte(s)), 0)
	return err
}

func read(f *vfs.File, n int) (string, error) {
	b := make([]byte, n)
	got, err := f.Read(newContext(), usermem.Bytes(b), 0)
	return string(b[:got]), err
}

func TestInput(t *testing.T) {
	for _, c := range []struct {
		name       string
		iflag      uint32 // bits to flip
		oflag      uint32
		lflag      uint32
		typed      string
		lines      []string // what reads give
		echo       string
		incomplete bool // and then nothing more
	}{
		{name: "line", typed: "abc\n", lines: []string{"abc\n"}, echo: "abc\r\n"},
		{name: "two lines", typed: "a\nb\n", lines: []string{"a\n", "b\n"}, echo: "a\r\nb\r\n"},
		{name: "unfinished", typed: "abc", echo: "abc"},
		{name: "return", typed: "a\r", lines: []string{"a\n"}, echo: "a\r\n"},
		{name: "erase", typed: "abx\x7fc\n", lines: []string{"abc\n"}, echo: "abx\b \bc\r\n"},
		{name: "erase nothing", typed: "\x7fa\n", lines: []string{"a\n"}, echo: "a\r\n"},
		{name: "kill", typed: "abc\x15d\n", lines: []string{"d\n"}, echo: "abc\b \b\b \b\b \bd\r\n"},
		{name: "word", typed: "ab cd \x17x\n", lines: []string{"ab x\n"}, echo: "ab cd \b \b\b \b\b \bx\r\n"},
		{name: "control", typed: "\x01\n", lines: []string{"\x01\n"}, echo: "^A\r\n"},
		{name: "erase control", typed: "\x01\x7f\n", lines: []string{"\n"}, echo: "^A\b \b\b \b\r\n"},
		{name: "erase tab", typed: "a\t\x7f\n", lines: []string{"a\n"}, echo: "a\t\b\b\b\b\b\b\b\r\n"},
		{name: "literal", typed: "\x16\x03\n", lines: []string{"\x03\n"}, echo: "^\b^C\r\n"},
		{name: "end of file", typed: "ab\x04", lines: []string{"ab"}, echo: "ab"},
		{name: "end of file alone", typed: "\x04", lines: []string{""}},
		{name: "reprint", typed: "ab\x12c\n", lines: []string{"abc\n"}, echo: "ab^R\r\nabc\r\n"},
		{name: "no echo", lflag: abi.ECHO, typed: "abc\n", lines: []string{"abc\n"}},
		{name: "ECHONL", lflag: abi.ECHO | abi.ECHONL, typed: "abc\n", lines: []string{"abc\n"}, echo: "\r\n"},
		{name: "raw", lflag: abi.ICANON | abi.ECHO, typed: "ab\x7f", lines: []string{"ab\x7f"}},
		{name: "utf8", iflag: abi.IUTF8, typed: "aé\x7f\n", lines: []string{"a\n"}, echo: "aé\b \b\r\n"},
		{name: "signal flushes", typed: "abc\x03d\n", lines: []string{"d\n"}, echo: "^Cd\r\n"},
		{name: "no ECHOE", lflag: abi.ECHOE, typed: "ab\x7f\n", lines: []string{"a\n"}, echo: "ab^?\r\n"},
		{name: "INLCR", iflag: abi.INLCR | abi.ICRNL, lflag: abi.ICANON, typed: "\n", lines: []string{"\r"}, echo: "^M"},
		{name: "tabs", oflag: abi.XTABS, typed: "a\tb", echo: "a       b"},
	} {
		tt, m, s := open(t)
		tt.l.t.Iflag ^= c.iflag
		tt.l.t.Oflag ^= c.oflag
		tt.l.t.Lflag ^= c.lflag
		if err := write(m, c.typed); err != nil {
			t.Errorf("%s: write: %v", c.name, err)
		}
		for _, want := range c.lines {
			if got, err := read(s, 100); got != want || err != nil {
				t.Errorf("%s: read %q, %v; want %q", c.name, got, err, want)
			}
		}
		if got, err := read(s, 100); err != abi.EAGAIN {
			t.Errorf("%s: then %q, %v", c.name, got, err)
		}
		got, err := read(m, 1000)
		if err == abi.EAGAIN {
			got = ""
		}
		if got != c.echo {
			t.Errorf("%s: echo %q, want %q", c.name, got, c.echo)
		}
	}
}

func TestOutput(t *testing.T) {
	_, m, s := open(t)
	write(s, "a\nb\n")
	if got, err := read(m, 100); got != "a\r\nb\r\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	write(m, "\x13") // ^S
	if err := write(s, "x"); err != abi.EAGAIN {
		t.Errorf("write while stopped: %v", err)
	}
	write(m, "\x11")
	if err := write(s, "x"); err != nil {
		t.Errorf("write after ^Q: %v", err)
	}
}

func TestPartialLine(t *testing.T) {
	_, m, s := open(t)
	write(m, "hello\nmore\n")
	for _, want := range []string{"hel", "lo\n", "mor", "e\n"} {
		if got, _ := read(s, 3); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestLongLine(t *testing.T) {
	_, m, s := open(t)
	for range 5000 {
		if err := write(m, "x"); err != nil {
			t.Fatal(err)
		}
	}
	write(m, "\n")
	got, err := read(s, 10000)
	if len(got) != 4096 || got[4095] != '\n' || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestModeSwitch(t *testing.T) {
	tt, m, s := open(t)
	write(m, "abc")
	raw := tt.l.t
	raw.Lflag &^= abi.ICANON
	tt.l.setTermios(&raw)
	if got, err := read(s, 10); got != "abc" || err != nil {
		t.Errorf("what was edited: %q, %v", got, err)
	}
}

func TestHangup(t *testing.T) {
	tt, m, s := open(t)
	s2, _ := tt.Open(newContext(), nil, abi.O_RDWR)
	write(s, "last")
	s.DecRef()
	s2.Release(nil)
	if got, err := read(m, 100); got != "last" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := read(m, 100); err != abi.EIO {
		t.Errorf("master without slaves: %v, want EIO", err)
	}
	if ev := m.Readiness(abi.EPOLLIN); ev&abi.EPOLLHUP == 0 {
		t.Errorf("readiness %#x", ev)
	}
	_, m, s = open(t)
	m.DecRef()
	if got, err := read(s, 1); got != "" || err != nil {
		t.Errorf("slave after hang-up: %q, %v", got, err)
	}
	if err := write(s, "x"); err != abi.EIO {
		t.Errorf("slave after hang-up: %v, want EIO", err)
	}
}

func TestPacketMode(t *testing.T) {
	tt, m, s := open(t)
	tt.packetMode = true
	write(s, "x")
	if got, _ := read(m, 10); got != "\x00x" {
		t.Errorf("%q", got)
	}
	write(m, "\x13")
	if got, _ := read(m, 10); got != string(rune(abi.TIOCPKT_STOP)) {
		t.Errorf("stop: %q", got)
	}
}
