package syscalls

import (
	"os"
	"testing"

	"garrison/test/testutil"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testutil.Cleanup()
	os.Exit(code)
}
