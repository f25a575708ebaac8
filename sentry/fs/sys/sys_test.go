package sys

import "testing"

func TestCPUMask(t *testing.T) {
	for _, tc := range []struct {
		n    int
		only int // -1: all
		want string
	}{
		{1, -1, "1"}, {2, -1, "3"}, {8, 3, "08"}, {32, -1, "ffffffff"}, {34, -1, "3,ffffffff"}, {40, -1, "ff,ffffffff"},
		{64, 0, "00000000,00000001"}, {64, 33, "00000002,00000000"},
	} {
		got := cpuMask(tc.n, func(c int) bool { return tc.only < 0 || c == tc.only })
		if got != tc.want {
			t.Errorf("cpuMask(%d, %d) = %q, want %q", tc.n, tc.only, got, tc.want)
		}
	}
}
