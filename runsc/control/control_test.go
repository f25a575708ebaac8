package control

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

type pipe struct{ bytes.Buffer }

func (*pipe) Close() error { return nil }

func TestRoundTrip(t *testing.T) {
	p := &pipe{}
	c := NewConn(p)
	want := []Message{
		{Kind: Started},
		{Kind: Exited, Status: 0x100},
		{Kind: Failed, Text: strings.Repeat("\x00", maxMessage), Code: 127},
	}
	for _, m := range want {
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range want {
		got, err := c.Receive()
		if len(m.Text) > maxMessage/8 {
			m.Text = m.Text[:maxMessage/8]
		}
		if err != nil || got != m {
			t.Fatalf("got %.100v, %v, want %.100v", got, err, m)
		}
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Fatalf("at the end: %v, want EOF", err)
	}
}

func TestReceiveBad(t *testing.T) {
	for _, tc := range []struct{ name, in string }{
		{"too long", "\xff\xff\xff\xff"},
		{"cut in the head", "\x01\x00"},
		{"cut in the body", "\x05\x00\x00\x00{}"},
		{"not JSON", "\x02\x00\x00\x00xx"},
		{"not an object", "\x02\x00\x00\x0012"},
	} {
		p := &pipe{}
		p.WriteString(tc.in)
		if _, err := NewConn(p).Receive(); err == nil {
			t.Errorf("%s: taken", tc.name)
		}
	}
}
