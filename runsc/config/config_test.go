package config

import (
	"flag"
	"testing"
	"time"
)

func TestFlagsOnTwoSets(t *testing.T) {
	c := Default()
	global, local := flag.NewFlagSet("", flag.ContinueOnError), flag.NewFlagSet("", flag.ContinueOnError)
	c.Register(global)
	c.Register(local)
	if err := global.Parse([]string{"-network=host", "--debug", "do"}); err != nil {
		t.Fatal(err)
	}
	if err := local.Parse([]string{"--overlay2", "none", "ls", "-l"}); err != nil {
		t.Fatal(err)
	}
	if c.Network != "host" || !c.Debug || c.Overlay2 != "none" || local.NArg() != 2 {
		t.Errorf("%+v, %v", c, local.Args())
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	c.Network = "moon"
	if c.Check() == nil {
		t.Error("--network=moon was taken")
	}
}

func TestDebugLogPath(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"/x/y", "/x/y"},
		{"/x/", "/x/runsc.log.20260102-030405.000006.boot.txt"},
		{"/x/%COMMAND%.log", "/x/boot.log"},
	} {
		if got := (&Config{DebugLog: tc.in}).DebugLogPath("boot", at); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}
