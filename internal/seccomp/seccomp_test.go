package seccomp

import (
	"encoding/binary"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is a struct seccomp_data.
type call struct {
	nr, arch uint32
	args     [6]uint64
}

// bytes lays the call out for the VM, which loads big-endian words where the
// kernel loads words of the machine.
func (c call) bytes() []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[0:], c.nr)
	binary.BigEndian.PutUint32(b[4:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(b[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(b[20+8*i:], uint32(a>>32))
	}
	return b
}

func TestProgram(t *testing.T) {
	rules := []Rule{
		{Nr: 0},
		{Nr: 1, Args: []Cond{Eq(0, 1, 2)}},
		{Nr: 9, Args: []Cond{Clear(2, 4), Masked(3, 0x30, 0x10, 0x20)}},
		{Nr: 16, Args: []Cond{Eq(1, 0x5401)}},
		{Nr: 16, Args: []Cond{Eq64(1, 0x1_0000_0001), Eq(0, 7)}},
		{Nr: 20, Args: []Cond{{Arg: 5, OneOf: []uint64{3, 4}, NotAny: true}}},
		{Nr: 21, Args: []Cond{Eq(0, 1)}},
		{Nr: 21},
		{Nr: 300}, {Nr: 301}, {Nr: 302}, {Nr: 400},
	}
	deny := Errno(38)
	insns, err := compile(rules, deny)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	const hi = 0xdead << 32
	tests := []struct {
		name string
		nr   uint32
		args [6]uint64
		want Action
	}{
		{"plain", 0, [6]uint64{}, Allow},
		{"first value", 1, [6]uint64{1}, Allow},
		{"second value", 1, [6]uint64{2}, Allow},
		{"other value", 1, [6]uint64{3}, deny},
		{"upper half of an int", 1, [6]uint64{hi | 2}, Allow},
		{"clear and masked", 9, [6]uint64{0, 0, 3, 0x1f}, Allow},
		{"second masked", 9, [6]uint64{0, 0, 3, 0x22}, Allow},
		{"bit set", 9, [6]uint64{0, 0, 7, 0x10}, deny},
		{"both bits", 9, [6]uint64{0, 0, 0, 0x30}, deny},
		{"alternative 1", 16, [6]uint64{0, 0x5401}, Allow},
		{"alternative 2", 16, [6]uint64{7, 0x1_0000_0001}, Allow},
		{"alternative 2, wrong upper half", 16, [6]uint64{7, 1}, deny},
		{"alternative 2, wrong other", 16, [6]uint64{8, 0x1_0000_0001}, deny},
		{"not any", 20, [6]uint64{0, 0, 0, 0, 0, 5}, Allow},
		{"not any, is one", 20, [6]uint64{0, 0, 0, 0, 0, 4}, deny},
		{"any of two rules", 21, [6]uint64{9}, Allow},
		{"high numbers", 302, [6]uint64{}, Allow},
		{"last", 400, [6]uint64{}, Allow},
		{"between", 299, [6]uint64{}, deny},
		{"past the end", 401, [6]uint64{}, deny},
		{"x32", x32Bit | 1, [6]uint64{1}, KillProcess},
	}
	for _, tc := range tests {
		got, err := vm.Run(call{tc.nr, auditArchX8664, tc.args}.bytes())
		if err != nil || Action(got) != tc.want {
			t.Errorf("%s: got %#x, %v, want %#x", tc.name, got, err, tc.want)
		}
	}
	if got, _ := vm.Run(call{0, 0x40000003, [6]uint64{}}.bytes()); Action(got) != KillProcess {
		t.Errorf("i386 entry: got %#x, want KillProcess", got)
	}
}

func TestProgramRefuses(t *testing.T) {
	for _, r := range []Rule{{Nr: x32Bit}, {Nr: 1, Args: []Cond{{Arg: 6, OneOf: []uint64{1}}}}, {Nr: 1, Args: []Cond{{Arg: 0}}}} {
		if _, err := Program([]Rule{r}, KillProcess); err == nil {
			t.Errorf("rule %+v was taken", r)
		}
	}
}

// all is a filter that lets everything pass but what the test is about.
func all(except uintptr, how Rule) []Rule {
	var rs []Rule
	for nr := uintptr(0); nr < 470; nr++ {
		if nr != except {
			rs = append(rs, Rule{Nr: nr})
		}
	}
	if how.Args != nil {
		rs = append(rs, how)
	}
	return rs
}

// TestInstall runs filters for real in a child process.
func TestInstall(t *testing.T) {
	if mode := os.Getenv("SECCOMP_TEST_CHILD"); mode != "" {
		child(mode)
	}
	for _, tc := range []struct{ mode, out string }{
		{"errno", "ENOSYS, ok"},
		{"kill", ""},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestInstall$")
		cmd.Env = append(os.Environ(), "SECCOMP_TEST_CHILD="+tc.mode)
		out, err := cmd.Output()
		if tc.mode == "kill" {
			ee, ok := err.(*exec.ExitError)
			if !ok || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
				t.Errorf("kill: %v %q, want death by SIGSYS", err, out)
			}
			continue
		}
		if err != nil || !strings.Contains(string(out), tc.out) {
			t.Errorf("%s: %v %q, want %q", tc.mode, err, out, tc.out)
		}
	}
}

func child(mode string) {
	otherwise := Errno(uint16(unix.ENOSYS))
	if mode == "kill" {
		otherwise = KillProcess
	}
	// getpriority(PRIO_PROCESS) only.
	prog, err := Program(all(unix.SYS_GETPRIORITY, Rule{Nr: unix.SYS_GETPRIORITY, Args: []Cond{Eq(0, 0)}}), otherwise)
	if err == nil {
		err = Install(prog)
	}
	if err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	_, good := unix.Getpriority(unix.PRIO_PROCESS, 0)
	done := make(chan error)
	go func() { // another thread: TSYNC
		_, err := unix.Getpriority(unix.PRIO_USER, 0)
		done <- err
	}()
	if err := <-done; err == unix.ENOSYS {
		os.Stdout.WriteString("ENOSYS, ")
	}
	if good == nil {
		os.Stdout.WriteString("ok\n")
	}
	os.Exit(0)
}
