package syscalls

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/syscalls.md")

func TestDocIsCurrent(t *testing.T) {
	const path = "../../docs/syscalls.md"
	var b bytes.Buffer
	WriteDoc(&b)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is not what the table says: run go generate ./sentry/syscalls", path)
	}
}
