package abi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// layouts names, for each structure, the C type and which Go field is which C
// member. Fields[i] and members[i] belong together.
var layouts = []struct {
	value           any // pointer to the Go structure
	ctype           string
	size            int // what the marshalling code says; 0 if it does not
	fields, members string
}{
	{&Stat{}, "struct stat", SizeofStat,
		"Dev Ino Nlink Mode UID GID Rdev Size Blksize Blocks Atime.Sec Atime.Nsec Mtime.Sec Mtime.Nsec Ctime.Sec Ctime.Nsec",
		"st_dev st_ino st_nlink st_mode st_uid st_gid st_rdev st_size st_blksize st_blocks st_atim.tv_sec st_atim.tv_nsec st_mtim.tv_sec st_mtim.tv_nsec st_ctim.tv_sec st_ctim.tv_nsec"},
	{&Statx{}, "struct statx", SizeofStatx,
		"Mask Blksize Attributes Nlink UID GID Mode Ino Size Blocks AttributesMask Atime.Sec Atime.Nsec Btime.Sec Btime.Nsec Ctime.Sec Mtime.Sec RdevMajor RdevMinor DevMajor DevMinor MntID",
		"stx_mask stx_blksize stx_attributes stx_nlink stx_uid stx_gid stx_mode stx_ino stx_size stx_blocks stx_attributes_mask stx_atime.tv_sec stx_atime.tv_nsec stx_btime.tv_sec stx_btime.tv_nsec stx_ctime.tv_sec stx_mtime.tv_sec stx_rdev_major stx_rdev_minor stx_dev_major stx_dev_minor stx_mnt_id"},
	{&Statfs{}, "struct statfs", SizeofStatfs,
		"Type Bsize Blocks Bfree Bavail Files Ffree Namelen Frsize Flags",
		"f_type f_bsize f_blocks f_bfree f_bavail f_files f_ffree f_namelen f_frsize f_flags"},
	{&Flock{}, "struct flock", SizeofFlock, "Type Whence Start Len PID", "l_type l_whence l_start l_len l_pid"},
	{&Rusage{}, "struct rusage", RusageSize,
		"Utime.Sec Utime.Usec Stime.Sec MaxRSS MinFlt MajFlt InBlock OuBlock NVCSw NIVCSw",
		"ru_utime.tv_sec ru_utime.tv_usec ru_stime.tv_sec ru_maxrss ru_minflt ru_majflt ru_inblock ru_oublock ru_nvcsw ru_nivcsw"},
	{&CloneArgs{}, "struct clone_args", 88,
		"Flags Pidfd ChildTID ParentTID ExitSignal Stack StackSize TLS SetTID SetTIDSize Cgroup",
		"flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup"},
	{&Sysinfo{}, "struct sysinfo", SysinfoSize,
		"Uptime Loads.0 Loads.2 TotalRAM FreeRAM SharedRAM BufferRAM TotalSwap FreeSwap Procs TotalHigh FreeHigh Unit",
		"uptime loads[0] loads[2] totalram freeram sharedram bufferram totalswap freeswap procs totalhigh freehigh mem_unit"},
	{&SigAltStack{}, "stack_t", SigAltStackSize, "SP Flags Size", "ss_sp ss_flags ss_size"},
	{&UContext{}, "struct kernel_ucontext", UContextSize,
		"Flags Link Stack.SP Mcontext.R8 Mcontext.R15 Mcontext.Rdi Mcontext.Rsi Mcontext.Rbp Mcontext.Rbx Mcontext.Rdx Mcontext.Rax Mcontext.Rcx Mcontext.Rsp Mcontext.Rip Mcontext.Eflags Mcontext.Cs Mcontext.Err Mcontext.Trapno Mcontext.Oldmask Mcontext.Cr2 Mcontext.Fpstate Mask",
		"flags link stack.ss_sp mc.r8 mc.r15 mc.rdi mc.rsi mc.rbp mc.rbx mc.rdx mc.rax mc.rcx mc.rsp mc.rip mc.eflags mc.cs mc.err mc.trapno mc.oldmask mc.cr2 mc.fpstate mask"},
	{&SigInfo{}, "siginfo_t", SigInfoSize, "Signo Errno Code", "si_signo si_errno si_code"},
	{&Msghdr{}, "struct msghdr", SizeofMsghdr,
		"Name NameLen Iov IovLen Control ControlLen Flags",
		"msg_name msg_namelen msg_iov msg_iovlen msg_control msg_controllen msg_flags"},
	{&Ucred{}, "struct ucred", 12, "PID UID GID", "pid uid gid"},
	{&Termios{}, "struct termios2", SizeofTermios2, "Iflag Oflag Cflag Lflag Line CC.0 CC.18 Ispeed Ospeed",
		"c_iflag c_oflag c_cflag c_lflag c_line c_cc[0] c_cc[18] c_ispeed c_ospeed"},
	{&Winsize{}, "struct winsize", SizeofWinsize, "Rows Cols Xpixel Ypixel", "ws_row ws_col ws_xpixel ws_ypixel"},
	{&Itimerval{}, "struct itimerval", 32, "Interval.Sec Interval.Usec Value.Sec Value.Usec",
		"it_interval.tv_sec it_interval.tv_usec it_value.tv_sec it_value.tv_usec"},
	{&Itimerspec{}, "struct itimerspec", 32, "Interval.Sec Interval.Nsec Value.Sec Value.Nsec",
		"it_interval.tv_sec it_interval.tv_nsec it_value.tv_sec it_value.tv_nsec"},
	{&ELFHeader{}, "Elf64_Ehdr", ELFHeaderSize,
		"Ident.4 Type Machine Version Entry Phoff Shoff Flags Ehsize Phentsize Phnum Shentsize Shnum Shstrndx",
		"e_ident[4] e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx"},
	{&ELFProg{}, "Elf64_Phdr", ELFProgSize, "Type Flags Off Vaddr Paddr Filesz Memsz Align",
		"p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align"},
}

const layoutProlog = `#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <time.h>
#include <elf.h>
#define sigcontext glibc_sigcontext
#define _fpx_sw_bytes glibc_fpx_sw_bytes
#define _fpreg glibc_fpreg
#define _fpxreg glibc_fpxreg
#define _xmmreg glibc_xmmreg
#define _fpstate glibc_fpstate
#define _xsave_hdr glibc_xsave_hdr
#define _ymmh_state glibc_ymmh_state
#define _xstate glibc_xstate
#include <signal.h>
#undef sigcontext
#undef _fpx_sw_bytes
#undef _fpreg
#undef _fpxreg
#undef _xmmreg
#undef _fpstate
#undef _xsave_hdr
#undef _ymmh_state
#undef _xstate
#include <asm/sigcontext.h>
#include <asm/termbits.h>
#include <asm/ioctls.h>
struct winsize { unsigned short ws_row, ws_col, ws_xpixel, ws_ypixel; };
#include <linux/sched.h>
struct kernel_ucontext { unsigned long flags; unsigned long link; stack_t stack; struct sigcontext mc; uint64_t mask; };
static void dump(const void *p, size_t n) { const unsigned char *b = p; while (n--) printf("%02x", *b++); printf("\n"); }
int main(void) {
`

// TestLayouts fills each structure in C and compares it, byte by byte, with
// what the Go code writes, or reads, for the same values.
func TestLayouts(t *testing.T) {
	var src strings.Builder
	src.WriteString(layoutProlog)
	for _, l := range layouts {
		fmt.Fprintf(&src, "{ %s s; memset(&s, 0, sizeof s);\n", l.ctype)
		for i, m := range strings.Fields(l.members) {
			fmt.Fprintf(&src, "s.%s = (__typeof__(s.%s))(uintptr_t)%d;\n", m, m, i+1)
		}
		src.WriteString("dump(&s, sizeof s); }\n")
	}
	src.WriteString("return 0; }\n")
	bin := filepath.Join(t.TempDir(), "layout")
	cc := exec.Command("gcc", "-w", "-x", "c", "-", "-o", bin)
	cc.Stdin = strings.NewReader(src.String())
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v (run this by `make test`, which installs it)\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	for i, l := range layouts {
		want, err := hex.DecodeString(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.ReplaceAll(l.ctype, " ", "_"), func(t *testing.T) { checkLayout(t, l.value, l.size, l.fields, want) })
	}
}

func checkLayout(t *testing.T, value any, size int, fields string, want []byte) {
	if size > len(want) {
		t.Fatalf("%d bytes, but C says %d", size, len(want))
	}
	want = want[:size] // siginfo and the like may carry libc's own tail
	v := reflect.New(reflect.TypeOf(value).Elem())
	for i, f := range strings.Fields(fields) {
		setField(fieldAt(v.Elem(), f), uint64(i+1))
	}
	if m, ok := v.Interface().(interface{ MarshalTo([]byte) }); ok {
		got := make([]byte, size)
		m.MarshalTo(got)
		if !bytes.Equal(got, want) {
			t.Errorf("MarshalTo\n got %x\nwant %x", got, want)
		}
	}
	if reflect.New(v.Elem().Type()).MethodByName("UnmarshalFrom").IsValid() {
		r := reflect.New(v.Elem().Type())
		r.MethodByName("UnmarshalFrom").Call([]reflect.Value{reflect.ValueOf(want)})
		if !reflect.DeepEqual(r.Interface(), v.Interface()) {
			t.Errorf("UnmarshalFrom\n got %+v\nwant %+v", r.Elem(), v.Elem())
		}
	}
}

// fieldAt finds a field by a path of names and indices.
func fieldAt(v reflect.Value, path string) reflect.Value {
	for _, p := range strings.Split(path, ".") {
		if v.Kind() == reflect.Array {
			var i int
			fmt.Sscan(p, &i)
			v = v.Index(i)
		} else {
			v = v.FieldByName(p)
		}
	}
	return v
}

func setField(v reflect.Value, n uint64) {
	if v.CanInt() {
		v.SetInt(int64(n))
	} else {
		v.SetUint(n)
	}
}
