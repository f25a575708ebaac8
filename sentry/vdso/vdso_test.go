package vdso

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestImage(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"__vdso_clock_gettime": true, "__vdso_gettimeofday": true, "__vdso_time": true,
		"__vdso_getcpu": true, "__vdso_clock_getres": true, "__kernel_rt_sigreturn": true}
	for _, s := range syms {
		if want[s.Name] && s.Version != "LINUX_2.6" {
			t.Errorf("%s has version %q", s.Name, s.Version)
		}
		delete(want, s.Name)
		if s.Name == "__kernel_rt_sigreturn" && s.Value != SigreturnOffset {
			t.Errorf("SigreturnOffset is %#x, the symbol at %#x", SigreturnOffset, s.Value)
		}
	}
	for n := range want {
		t.Errorf("%s is missing", n)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && (p.Vaddr != 0 || p.Off != 0 || p.Flags&elf.PF_W != 0) {
			t.Errorf("bad segment %+v", p.ProgHeader)
		}
	}
}

// TestCurrent builds the image again. Compilers differ, so only one of the
// version that built the checked-in file has to give the same bytes.
func TestCurrent(t *testing.T) {
	v, err := exec.Command("gcc", "-dumpfullversion").Output()
	if err != nil {
		t.Skip("no gcc")
	}
	want, err := os.ReadFile("vdso.so.gcc")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "vdso.so")
	if msg, err := exec.Command("src/build.sh", out).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, msg)
	}
	if !bytes.Equal(v, want) {
		t.Skipf("vdso.so was built by gcc %s, this is %s", want, v)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, image) {
		t.Error("vdso.so is not what its sources give: run go generate")
	}
}
