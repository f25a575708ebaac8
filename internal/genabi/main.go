// Command genabi writes abi/zconsts.go and abi/zerrno.go: the constants of the
// kernel's user-space headers, read off the C compiler so that no value is
// typed by hand. Run it by `go generate ./abi`; it needs gcc and the kernel's
// headers (Debian: linux-libc-dev, libc6-dev).
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// headers are read in this order; a macro is credited to the file that
// defines it first.
var headers = []string{
	"errno.h", "fcntl.h", "sched.h", "signal.h", "poll.h", "time.h", "limits.h",
	"sys/mman.h", "sys/stat.h", "sys/wait.h", "sys/socket.h", "sys/un.h", "sys/resource.h",
	"sys/epoll.h", "sys/eventfd.h", "sys/timerfd.h", "sys/signalfd.h", "sys/inotify.h",
	"sys/ioctl.h", "sys/ipc.h", "sys/shm.h", "sys/sem.h", "sys/msg.h", "sys/uio.h", "sys/xattr.h",
	"netinet/in.h", "netinet/tcp.h", "netinet/udp.h", "net/if.h", "asm/termbits.h", "asm/ioctls.h",
	"linux/futex.h", "linux/prctl.h", "linux/ptrace.h", "linux/sched.h", "linux/seccomp.h", "linux/filter.h",
	"linux/bpf_common.h", "linux/audit.h",
	"linux/capability.h", "linux/auxvec.h", "linux/magic.h", "linux/random.h", "linux/memfd.h",
	"linux/falloc.h", "linux/fs.h", "linux/stat.h", "linux/mount.h", "linux/openat2.h", "linux/close_range.h",
	"linux/membarrier.h", "linux/rseq.h", "linux/elf.h", "linux/mempolicy.h", "linux/netlink.h",
	"linux/rtnetlink.h", "linux/if_addr.h", "linux/if_link.h", "linux/sockios.h", "linux/tty.h", "linux/vt.h",
	"linux/kd.h", "linux/userfaultfd.h", "linux/io_uring.h", "linux/aio_abi.h", "linux/reboot.h",
	"linux/personality.h", "linux/kcmp.h", "linux/mqueue.h", "linux/fadvise.h", "linux/if_packet.h",
	"asm/prctl.h", "asm/unistd_64.h", "asm/ldt.h", "asm/hwcap2.h",
}

var wanted = regexp.MustCompile(`^(O|S|SIG|SA|SS|CLONE|FUTEX|FUTEX2|PROT|MAP|MADV|MS|MNT|UMOUNT|AT|F|FD|LOCK|RLIMIT|RLIM|RUSAGE|PR|EPOLL|EPOLLIN|POLL|SO|SOL|AF|PF|MSG|SOCK|SCM|SHUT|IP|IPV6|IPPROTO|INADDR|TCP|TCPI|UDP|CLOCK|TIMER|ITIMER|TFD|EFD|SFD|IN|MFD|TC|TIO|PTRACE|SEEK|RENAME|STATX|XATTR|GRND|SCHED|CAP|SECCOMP|BPF|AUDIT|RWF|FALLOC|SPLICE|SYNC|POSIX|SI|ILL|FPE|SEGV|BUS|TRAP|CLD|SYS|ARCH|MLOCK|MCL|MREMAP|PRIO|IPC|SHM|SEM|MQ|CLOSE|OPEN|MOVE|RESOLVE|FSOPEN|FSCONFIG|FSMOUNT|FSPICK|MOUNT|NR|W|P|UTIME|MEMBARRIER|RSEQ|ELF|ET|EM|PT|PF|SHT|DT|STT|STB|NT|EI|ELFCLASS|ELFDATA|EV|MPOL|NETLINK|NLM|NLMSG|NLA|RTM|RTA|RTN|RTNLGRP|RT|IFA|IFLA|IFF|SIO|KD|VT|UFFD|IORING|LINUX|UNAME|ADDR|READ|KCMP|PIDFD|DN|GETALL|GETNCNT|GETPID|GETVAL|GETZCNT|SETALL|SETVAL|FS|BLK|FICLONE|FIONREAD|FIONBIO|FIOASYNC|FIOCLEX|FIONCLEX|FIOQSIZE|NCCS|V|B|I|E|CS|CR|TAB|N|CMSPAR|CRTSCTS|UIO|IOV|PATH|NAME|NGROUPS|PIPE|OPOST|OLCUC|ONLCR|OCRNL|ONOCR|ONLRET|OFILL|OFDEL|NLDLY|CRDLY|CLOCAL|CREAD|CSIZE|CSTOPB|PARENB|PARODD|HUPCL|ISIG|ICANON|XCASE|ECHO|ECHOE|ECHOK|ECHONL|ECHOCTL|ECHOPRT|ECHOKE|NOFLSH|TOSTOP|FLUSHO|PENDIN|IEXTEN|EXTPROC|IGNBRK|BRKINT|IGNPAR|PARMRK|INPCK|ISTRIP|INLCR|IGNCR|ICRNL|IUCLC|IXON|IXANY|IXOFF|IMAXBEL|IUTF8|HWCAP2|MAX)(_[A-Za-z0-9_]+)?$`)

var families = regexp.MustCompile(`^(SIG[A-Z]+[0-9]*|EPOLL[A-Z]+|POLL[A-Z]+|TC[A-Z]+[0-9]?|TIO[A-Z0-9_]+|V[A-Z0-9]+|B[0-9]+|CS[5-8]|CR[0-3]|TAB[0-3]|NL[01]|SIO[A-Z]+|GIO_[A-Z]+|KD[A-Z]+|BLK[A-Z]+|SIOC[A-Z]+|ST_[A-Z]+|__NR_[a-z0-9_]+|__WNOTHREAD|__WALL|__WCLONE|W[A-Z]+|E[A-Z0-9]+|O_[A-Z]+|SOMAXCONN|_LINUX_[A-Z0-9_]+|[A-Z0-9]+_(SUPER_)?MAGIC|ELFMAG|R_X86_64_[A-Z0-9]+|MINSIGSTKSZ|__MAX_BAUD|BOTHER|CBAUD|CBAUDEX|EXT[AB])$`)

func interesting(name string) bool { return wanted.MatchString(name) || families.MatchString(name) }

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", ".", "directory to write zconsts.go and zerrno.go into")
	flag.Parse()

	var inc bytes.Buffer
	inc.WriteString("#define _GNU_SOURCE 1\n")
	for _, h := range headers {
		fmt.Fprintf(&inc, "#if __has_include(<%s>)\n#include <%s>\n#endif\n", h, h)
	}
	macros := definedMacros(inc.Bytes())
	consts, errnos := evaluate(inc.Bytes(), macros)
	write(filepath.Join(*dir, "zconsts.go"), consts)
	write(filepath.Join(*dir, "zerrno.go"), errnos)
}

type macro struct{ name, header string }

// definedMacros lists the interesting object-like macros in source order,
// with the header that each comes from.
func definedMacros(src []byte) []macro {
	cmd := exec.Command("gcc", "-E", "-dD", "-x", "c", "-")
	cmd.Stdin = bytes.NewReader(src)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		log.Fatalf("genabi: preprocess the kernel headers: %v (is linux-libc-dev installed?)", err)
	}
	marker := regexp.MustCompile(`^# \d+ "([^"]+)"`)
	define := regexp.MustCompile(`^#define ([A-Za-z_][A-Za-z0-9_]*) (.+)$`)
	undef := regexp.MustCompile(`^#undef ([A-Za-z_][A-Za-z0-9_]*)`)
	seen := map[string]string{}
	var order []string
	header := ""
	for _, line := range strings.Split(string(out), "\n") {
		if m := marker.FindStringSubmatch(line); m != nil {
			header = m[1]
			for _, cut := range []string{"/usr/include/x86_64-linux-gnu/", "/usr/include/"} {
				header = strings.TrimPrefix(header, cut)
			}
		} else if m := define.FindStringSubmatch(line); m != nil && interesting(m[1]) {
			if _, dup := seen[m[1]]; !dup {
				order = append(order, m[1])
			}
			seen[m[1]] = header
		} else if m := undef.FindStringSubmatch(line); m != nil {
			delete(seen, m[1])
		}
	}
	var ms []macro
	for _, n := range order {
		if h, ok := seen[n]; ok {
			ms = append(ms, macro{n, h})
			delete(seen, n)
		}
	}
	return ms
}

// evaluate compiles a program that prints the value of each macro that is an
// integer constant expression.
func evaluate(inc []byte, macros []macro) (consts, errnos string) {
	names := integerMacros(inc, macros)
	var prog bytes.Buffer
	prog.Write(inc)
	prog.WriteString("#include <stdio.h>\n#define P(n) printf(\"%s %s%llu\\n\", #n, (n) < 0 ? \"-\" : \"\", (n) < 0 ? -(unsigned long long)(n) : (unsigned long long)(n));\nint main(void){\n")
	for _, m := range macros {
		if names[m.name] {
			fmt.Fprintf(&prog, "P(%s)\n", m.name)
		}
	}
	prog.WriteString("return 0;}\n")
	tmp, err := os.MkdirTemp("", "genabi")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	bin := filepath.Join(tmp, "p")
	cmd := exec.Command("gcc", "-w", "-x", "c", "-", "-o", bin)
	cmd.Stdin = &prog
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		log.Fatalf("genabi: compile: %v", err)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		log.Fatalf("genabi: run: %v", err)
	}
	value := map[string]string{}
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(l)
		value[f[0]] = f[1]
	}
	const head = "// Code generated by internal/genabi from the kernel's and libc's headers. DO NOT EDIT.\n\npackage abi\n\n"
	byHeader := map[string][]string{}
	var order []string
	var eb strings.Builder
	eb.WriteString(head + "// Error numbers (asm-generic/errno.h).\nconst (\n")
	eNames := map[string]string{}
	for _, m := range macros {
		v, ok := value[m.name]
		if !ok {
			continue
		}
		if strings.Contains(m.header, "errno") {
			fmt.Fprintf(&eb, "%s Errno = %s\n", m.name, v)
			if _, dup := eNames[v]; !dup {
				eNames[v] = m.name
			}
			continue
		}
		goName := m.name
		if goName == "O_LARGEFILE" { // glibc says 0 on 64 bits; the kernel sets and reports the bit
			v = "32768"
		}
		if strings.HasPrefix(goName, "__NR_") {
			goName = "SYS_" + strings.TrimPrefix(goName, "__NR_")
		} else {
			goName = strings.TrimLeft(goName, "_")
		}
		if byHeader[m.header] == nil {
			order = append(order, m.header)
		}
		byHeader[m.header] = append(byHeader[m.header], fmt.Sprintf("%s = %s", goName, v))
	}
	eb.WriteString(")\n\n// errnoNames maps a number to its C name.\nvar errnoNames = [...]string{\n")
	var keys []string
	for v := range eNames {
		keys = append(keys, v)
	}
	sort.Slice(keys, func(i, j int) bool {
		return len(keys[i]) < len(keys[j]) || len(keys[i]) == len(keys[j]) && keys[i] < keys[j]
	})
	for _, v := range keys {
		fmt.Fprintf(&eb, "%s: %q,\n", v, eNames[v])
	}
	eb.WriteString("}\n")
	var cb strings.Builder
	cb.WriteString(head)
	dup := map[string]bool{}
	for _, h := range order {
		fmt.Fprintf(&cb, "// From %s.\nconst (\n", h)
		for _, l := range byHeader[h] {
			n := strings.Fields(l)[0]
			if !dup[n] {
				dup[n] = true
				cb.WriteString(l + "\n")
			}
		}
		cb.WriteString(")\n\n")
	}
	return cb.String(), eb.String()
}

// integerMacros finds which macros are integer constant expressions: it lets
// the compiler report all that are not.
func integerMacros(inc []byte, macros []macro) map[string]bool {
	ok := map[string]bool{}
	for _, m := range macros {
		ok[m.name] = true
	}
	for round := 0; round < 5; round++ {
		var prog bytes.Buffer
		prog.Write(inc)
		line := bytes.Count(prog.Bytes(), []byte("\n"))
		at := map[string]string{}
		for _, m := range macros {
			if ok[m.name] {
				line++
				at[fmt.Sprint(line)] = m.name
				fmt.Fprintf(&prog, "enum { zz_%s = (%s) };\n", m.name, m.name)
			}
		}
		cmd := exec.Command("gcc", "-w", "-fmax-errors=0", "-fsyntax-only", "-x", "c", "-")
		cmd.Stdin = &prog
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		bad := regexp.MustCompile(`(?m)^<stdin>:(\d+):`)
		for _, m := range bad.FindAllStringSubmatch(string(out), -1) {
			delete(ok, at[m[1]])
		}
	}
	return ok
}

func write(path, src string) {
	b, err := format.Source([]byte(src))
	if err != nil {
		os.WriteFile(path+".bad", []byte(src), 0o644)
		log.Fatalf("genabi: %s: %v", path, err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		log.Fatal(err)
	}
}
