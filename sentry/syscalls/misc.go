package syscalls

import (
	"crypto/rand"
	"encoding/binary"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

var miscCalls = []kernel.Row{
	{Nr: abi.SYS_arch_prctl, Name: "arch_prctl", Fn: sysArchPrctl, Args: []kernel.ArgKind{kernel.ArchPrctlOp, kernel.Ptr}, Support: kernel.Partial, Note: "FS and GS only"},
	{Nr: abi.SYS_prctl, Name: "prctl", Fn: sysPrctl, Args: []kernel.ArgKind{kernel.PrctlOp, kernel.Hex, kernel.Hex, kernel.Hex, kernel.Hex}, Support: kernel.Partial, Note: "no seccomp, PR_SET_MM, speculation control, timing"},
	{Nr: abi.SYS_uname, Name: "uname", Fn: sysUname, Args: []kernel.ArgKind{kernel.UtsOut}},
	{Nr: abi.SYS_sethostname, Name: "sethostname", Fn: sysSethostname, Args: []kernel.ArgKind{kernel.BufIn, kernel.UDec}},
	{Nr: abi.SYS_setdomainname, Name: "setdomainname", Fn: sysSetdomainname, Args: []kernel.ArgKind{kernel.BufIn, kernel.UDec}},
	{Nr: abi.SYS_sysinfo, Name: "sysinfo", Fn: sysSysinfo, Args: []kernel.ArgKind{kernel.Ptr}},
	{Nr: abi.SYS_getcpu, Name: "getcpu", Fn: sysGetcpu, Args: []kernel.ArgKind{kernel.IntOut, kernel.IntOut, kernel.Ptr}},
	{Nr: abi.SYS_getrandom, Name: "getrandom", Fn: sysGetrandom, Args: []kernel.ArgKind{kernel.BufOut, kernel.UDec, kernel.Hex}},
	{Nr: abi.SYS_getrlimit, Name: "getrlimit", Fn: sysGetrlimit, Args: []kernel.ArgKind{kernel.RlimitArg, kernel.RlimitOut}},
	{Nr: abi.SYS_setrlimit, Name: "setrlimit", Fn: sysSetrlimit, Args: []kernel.ArgKind{kernel.RlimitArg, kernel.RlimitIn}},
	{Nr: abi.SYS_prlimit64, Name: "prlimit64", Fn: sysPrlimit64, Args: []kernel.ArgKind{kernel.Dec, kernel.RlimitArg, kernel.RlimitIn, kernel.RlimitOut}},
	{Nr: abi.SYS_personality, Name: "personality", Fn: sysPersonality, Args: []kernel.ArgKind{kernel.Hex}, Support: kernel.Partial, Note: "ADDR_NO_RANDOMIZE; others are stored"},
	{Nr: abi.SYS_membarrier, Name: "membarrier", Fn: sysMembarrier, Args: []kernel.ArgKind{kernel.Dec, kernel.Hex, kernel.Dec}, Support: kernel.Partial, Note: "MEMBARRIER_CMD_QUERY only"},
	{Nr: abi.SYS_syslog, Name: "syslog", Fn: sysSyslog, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr, kernel.Dec}, Support: kernel.Partial, Note: "the kernel's log is empty"},
	{Nr: abi.SYS_vhangup, Name: "vhangup", Fn: sysVhangup, Support: kernel.Partial, Note: "EPERM without CAP_SYS_TTY_CONFIG, else nothing"},
}

func sysArchPrctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r := t.Regs()
	switch a.Int(0) {
	case abi.ARCH_SET_FS, abi.ARCH_SET_GS:
		if a[1] >= t.Kernel().Platform().Layout().Max {
			return 0, abi.EPERM
		}
		if a.Int(0) == abi.ARCH_SET_FS {
			r.Fs_base = a[1]
		} else {
			r.Gs_base = a[1]
		}
		return 0, nil
	case abi.ARCH_GET_FS:
		return 0, usermem.CopyOutUint64(t.Memory(), a.Addr(1), r.Fs_base)
	case abi.ARCH_GET_GS:
		return 0, usermem.CopyOutUint64(t.Memory(), a.Addr(1), r.Gs_base)
	case abi.ARCH_GET_CPUID:
		return 1, nil
	case abi.ARCH_SET_CPUID:
		return 0, abi.ENODEV
	}
	return 0, abi.EINVAL
}

func sysUname(t *kernel.Task, a kernel.Args) (uintptr, error) {
	u := t.UTS().Utsname()
	var b [abi.UtsSize]byte
	u.MarshalTo(b[:])
	_, err := t.Memory().CopyOut(a.Addr(0), b[:])
	return 0, err
}

// utsName reads a new host or domain name.
func utsName(t *kernel.Task, a *kernel.Args) (string, error) {
	if !t.Cred().Can(abi.CAP_SYS_ADMIN) {
		return "", abi.EPERM
	}
	n := a.Int(1)
	if n < 0 || n > abi.UtsLen-1 {
		return "", abi.EINVAL
	}
	b := make([]byte, n)
	if _, err := t.Memory().CopyIn(a.Addr(0), b); err != nil {
		return "", err
	}
	return string(b), nil
}

func sysSethostname(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s, err := utsName(t, &a)
	if err == nil {
		t.UTS().SetHostname(s)
	}
	return 0, err
}

func sysSetdomainname(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s, err := utsName(t, &a)
	if err == nil {
		t.UTS().SetDomainname(s)
	}
	return 0, err
}

func sysSysinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	k := t.Kernel()
	total := k.TotalMemory()
	used := k.PageFile().Usage()
	s := abi.Sysinfo{
		Uptime:   (k.Clocks().Boottime() - k.Clocks().SandboxStart()) / 1e9,
		TotalRAM: total, FreeRAM: total - min(used, total), Procs: uint16(k.TaskCount()), Unit: 1,
	}
	for i, l := range k.LoadAverage() {
		s.Loads[i] = uint64(l * (1 << 16))
	}
	var b [abi.SysinfoSize]byte
	s.MarshalTo(b[:])
	_, err := t.Memory().CopyOut(a.Addr(0), b[:])
	return 0, err
}

func sysGetcpu(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if p := a.Addr(0); p != 0 {
		if err := usermem.CopyOutUint32(t.Memory(), p, uint32(t.CPU())); err != nil {
			return 0, err
		}
	}
	if p := a.Addr(1); p != 0 {
		if err := usermem.CopyOutUint32(t.Memory(), p, 0); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func sysGetrandom(t *kernel.Task, a kernel.Args) (uintptr, error) {
	fl := a.Uint(2)
	if fl&^(abi.GRND_NONBLOCK|abi.GRND_RANDOM|abi.GRND_INSECURE) != 0 ||
		fl&(abi.GRND_RANDOM|abi.GRND_INSECURE) == abi.GRND_RANDOM|abi.GRND_INSECURE {
		return 0, abi.EINVAL
	}
	n := min(a.Size(1), 0x7fffffff)
	var b [1024]byte
	done := uint64(0)
	for done < n {
		c := b[:min(n-done, uint64(len(b)))]
		rand.Read(c)
		got, err := t.Memory().CopyOut(a.Addr(0)+usermem.Addr(done), c)
		done += uint64(got)
		if err != nil {
			if done == 0 {
				return 0, err
			}
			break
		}
	}
	return uintptr(done), nil
}

func copyOutRlimit(t *kernel.Task, p usermem.Addr, l abi.Rlimit) error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], l.Cur)
	binary.LittleEndian.PutUint64(b[8:], l.Max)
	_, err := t.Memory().CopyOut(p, b[:])
	return err
}

func copyInRlimit(t *kernel.Task, p usermem.Addr) (l abi.Rlimit, err error) {
	var b [16]byte
	_, err = t.Memory().CopyIn(p, b[:])
	return abi.Rlimit{Cur: binary.LittleEndian.Uint64(b[:]), Max: binary.LittleEndian.Uint64(b[8:])}, err
}

func setLimit(t *kernel.Task, tg *kernel.ThreadGroup, res uint32, l abi.Rlimit) (abi.Rlimit, error) {
	old, err := tg.Limits().Set(t.Cred(), int(res), l)
	if err == nil && res == abi.RLIMIT_CPU {
		tg.RlimitCPUChanged()
	}
	return old, err
}

func sysGetrlimit(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Uint(0) >= abi.RLIMIT_NLIMITS {
		return 0, abi.EINVAL
	}
	return 0, copyOutRlimit(t, a.Addr(1), t.ThreadGroup().Limits().Get(int(a.Uint(0))))
}

func sysSetrlimit(t *kernel.Task, a kernel.Args) (uintptr, error) {
	l, err := copyInRlimit(t, a.Addr(1))
	if err != nil {
		return 0, err
	}
	if a.Uint(0) >= abi.RLIMIT_NLIMITS {
		return 0, abi.EINVAL
	}
	_, err = setLimit(t, t.ThreadGroup(), a.Uint(0), l)
	return 0, err
}

func sysPrlimit64(t *kernel.Task, a kernel.Args) (uintptr, error) {
	var l abi.Rlimit
	var err error
	if a.Addr(2) != 0 {
		if l, err = copyInRlimit(t, a.Addr(2)); err != nil {
			return 0, err
		}
	}
	x := t
	if pid := a.Int(0); pid != 0 {
		if x = t.Kernel().TaskByID(pid); x == nil {
			return 0, abi.ESRCH
		}
		c, d := t.Cred(), x.Cred()
		same := c.RUID == d.EUID && c.RUID == d.SUID && c.RUID == d.RUID && c.RGID == d.EGID && c.RGID == d.SGID && c.RGID == d.RGID
		if x != t && !same && !c.Can(abi.CAP_SYS_RESOURCE) {
			return 0, abi.EPERM
		}
	}
	res := a.Uint(1)
	if res >= abi.RLIMIT_NLIMITS {
		return 0, abi.EINVAL
	}
	old := x.ThreadGroup().Limits().Get(int(res))
	if a.Addr(2) != 0 {
		if old, err = setLimit(t, x.ThreadGroup(), res, l); err != nil {
			return 0, err
		}
	}
	if p := a.Addr(3); p != 0 {
		return 0, copyOutRlimit(t, p, old)
	}
	return 0, nil
}

func sysPersonality(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.Personality()
	if p := a.Uint(0); p != 0xffffffff {
		if p&0xff != 0 && p&0xff != 8 {
			return 0, abi.EINVAL // only PER_LINUX and PER_LINUX32 run here
		}
		t.SetPersonality(p)
	}
	return uintptr(old), nil
}

func sysMembarrier(_ *kernel.Task, a kernel.Args) (uintptr, error) {
	if a.Int(0) == 0 { // MEMBARRIER_CMD_QUERY: nothing is supported
		return 0, nil
	}
	return 0, abi.EINVAL
}

func sysSyslog(t *kernel.Task, a kernel.Args) (uintptr, error) {
	typ, n := a.Int(0), a.Int(2)
	if typ < 0 || typ > 10 {
		return 0, abi.EINVAL
	}
	if typ != 3 && typ != 10 && !t.Cred().Can(abi.CAP_SYSLOG) && !t.Cred().Can(abi.CAP_SYS_ADMIN) {
		return 0, abi.EPERM
	}
	switch typ {
	case 2, 3, 4: // read
		if a.Addr(1) == 0 || n < 0 {
			return 0, abi.EINVAL
		}
	case 8: // console level
		if n < 1 || n > 8 {
			return 0, abi.EINVAL
		}
	}
	return 0, nil
}

func sysVhangup(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	if !t.Cred().Can(abi.CAP_SYS_TTY_CONFIG) {
		return 0, abi.EPERM
	}
	if term := t.Terminal(); term != nil {
		t.Kernel().HangupTerminal(term)
	}
	return 0, nil
}

func sysPrctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	rest := a[2] | a[3] | a[4]
	switch a.Int(0) {
	case abi.PR_SET_PDEATHSIG:
		if a[1] > abi.NSIG {
			return 0, abi.EINVAL
		}
		t.SetPDeathSig(int32(a[1]))
		return 0, nil
	case abi.PR_GET_PDEATHSIG:
		return 0, usermem.CopyOutUint32(t.Memory(), a.Addr(1), uint32(t.PDeathSig()))
	case abi.PR_GET_DUMPABLE:
		return uintptr(t.MM().Dumpable()), nil
	case abi.PR_SET_DUMPABLE:
		if a[1] != 0 && a[1] != 1 {
			return 0, abi.EINVAL
		}
		t.MM().SetDumpable(int32(a[1]))
		return 0, nil
	case abi.PR_SET_NAME:
		var b [abi.TASK_COMM_LEN]byte
		s, err := t.Memory().CopyInString(a.Addr(1), len(b))
		if err == abi.ENAMETOOLONG {
			if _, err = t.Memory().CopyIn(a.Addr(1), b[:]); err == nil {
				s = string(b[:len(b)-1])
			}
		}
		if err != nil {
			return 0, err
		}
		t.SetComm(s)
		return 0, nil
	case abi.PR_GET_NAME:
		var b [abi.TASK_COMM_LEN]byte
		copy(b[:], t.Comm())
		_, err := t.Memory().CopyOut(a.Addr(1), b[:])
		return 0, err
	case abi.PR_GET_KEEPCAPS:
		return flag01(t.Cred().KeepCaps), nil
	case abi.PR_SET_KEEPCAPS:
		c := t.Cred().Clone()
		if a[1] > 1 {
			return 0, abi.EINVAL
		}
		if c.SecureBits&abi.SECBIT_KEEP_CAPS_LOCKED != 0 {
			return 0, abi.EPERM
		}
		c.KeepCaps = a[1] == 1
		t.SetCred(c)
		return 0, nil
	case abi.PR_GET_SECUREBITS:
		s := t.Cred().SecureBits
		if t.Cred().KeepCaps {
			s |= abi.SECBIT_KEEP_CAPS
		}
		return uintptr(s), nil
	case abi.PR_SET_SECUREBITS:
		return setSecureBits(t, a[1])
	case abi.PR_CAPBSET_READ:
		if a[1] > abi.CAP_LAST_CAP {
			return 0, abi.EINVAL
		}
		return flag01(t.Cred().Bounding.Has(int(a[1]))), nil
	case abi.PR_CAPBSET_DROP:
		if !t.Cred().Can(abi.CAP_SETPCAP) {
			return 0, abi.EPERM
		}
		if a[1] > abi.CAP_LAST_CAP {
			return 0, abi.EINVAL
		}
		c := t.Cred().Clone()
		c.Bounding &^= 1 << a[1]
		t.SetCred(c)
		return 0, nil
	case abi.PR_CAP_AMBIENT:
		return capAmbient(t, &a)
	case abi.PR_SET_NO_NEW_PRIVS:
		if a[1] != 1 || rest != 0 {
			return 0, abi.EINVAL
		}
		c := t.Cred().Clone()
		c.NoNewPrivs = true
		t.SetCred(c)
		return 0, nil
	case abi.PR_GET_NO_NEW_PRIVS:
		if a[1]|rest != 0 {
			return 0, abi.EINVAL
		}
		return flag01(t.Cred().NoNewPrivs), nil
	case abi.PR_SET_CHILD_SUBREAPER:
		t.ThreadGroup().SetSubreaper(a[1] != 0)
		return 0, nil
	case abi.PR_GET_CHILD_SUBREAPER:
		return 0, usermem.CopyOutUint32(t.Memory(), a.Addr(1), uint32(flag01(t.ThreadGroup().Subreaper())))
	case abi.PR_SET_TIMERSLACK:
		if int64(a[1]) <= 0 {
			t.SetTimerSlack(50_000)
		} else {
			t.SetTimerSlack(a[1])
		}
		return 0, nil
	case abi.PR_GET_TIMERSLACK:
		return uintptr(t.TimerSlack()), nil
	case abi.PR_SET_THP_DISABLE:
		if rest != 0 {
			return 0, abi.EINVAL
		}
		t.SetTHPDisabled(a[1] != 0)
		return 0, nil
	case abi.PR_GET_THP_DISABLE:
		if a[1]|rest != 0 {
			return 0, abi.EINVAL
		}
		return flag01(t.THPDisabled()), nil
	case abi.PR_GET_TID_ADDRESS:
		return 0, usermem.CopyOutUint64(t.Memory(), a.Addr(1), uint64(t.ClearChildTID()))
	case abi.PR_SET_VMA:
		if a[1] != abi.PR_SET_VMA_ANON_NAME {
			return 0, abi.EINVAL
		}
		name := ""
		if a[4] != 0 {
			s, err := t.Memory().CopyInString(a.Addr(4), 80)
			if err == abi.ENAMETOOLONG {
				err = abi.EINVAL
			}
			if err != nil {
				return 0, err
			}
			for i := 0; i < len(s); i++ {
				if s[i] < 0x20 || s[i] > 0x7e || s[i] == '\\' || s[i] == '`' || s[i] == '$' || s[i] == '[' || s[i] == ']' {
					return 0, abi.EINVAL
				}
			}
			name = s
		}
		return 0, t.MM().SetVMAName(a.Addr(2), a[3], name)
	case abi.PR_GET_SECCOMP:
		return 0, nil
	case abi.PR_GET_TSC:
		return 0, usermem.CopyOutUint32(t.Memory(), a.Addr(1), abi.PR_TSC_ENABLE)
	case abi.PR_SET_TSC:
		if a[1] == abi.PR_TSC_ENABLE {
			return 0, nil
		}
	case abi.PR_GET_TIMING:
		return abi.PR_TIMING_STATISTICAL, nil
	case abi.PR_SET_TIMING:
		if a[1] == abi.PR_TIMING_STATISTICAL {
			return 0, nil
		}
	case abi.PR_MCE_KILL_GET:
		if a[1]|rest != 0 {
			return 0, abi.EINVAL
		}
		return abi.PR_MCE_KILL_DEFAULT, nil
	case abi.PR_SET_PTRACER:
		return 0, nil // only asks for fewer checks than we make
	}
	return 0, abi.EINVAL
}

func flag01(b bool) uintptr {
	if b {
		return 1
	}
	return 0
}

// setSecureBits is PR_SET_SECUREBITS: locked bits stay (capabilities(7)).
func setSecureBits(t *kernel.Task, bits uint64) (uintptr, error) {
	old := t.Cred()
	cur := old.SecureBits
	if old.KeepCaps {
		cur |= abi.SECBIT_KEEP_CAPS
	}
	locked := cur & abi.SECURE_ALL_LOCKS >> 1
	n := uint32(bits)
	if bits > 0xff || locked&(cur^n) != 0 || cur&abi.SECURE_ALL_LOCKS&^n != 0 ||
		n&^(abi.SECURE_ALL_LOCKS|abi.SECURE_ALL_BITS) != 0 || !old.Can(abi.CAP_SETPCAP) {
		return 0, abi.EPERM
	}
	c := old.Clone()
	c.KeepCaps = n&abi.SECBIT_KEEP_CAPS != 0
	c.SecureBits = n &^ abi.SECBIT_KEEP_CAPS
	t.SetCred(c)
	return 0, nil
}

// capAmbient is PR_CAP_AMBIENT.
func capAmbient(t *kernel.Task, a *kernel.Args) (uintptr, error) {
	old := t.Cred()
	if a[1] == abi.PR_CAP_AMBIENT_CLEAR_ALL {
		if a[2]|a[3]|a[4] != 0 {
			return 0, abi.EINVAL
		}
		c := old.Clone()
		c.Ambient = 0
		t.SetCred(c)
		return 0, nil
	}
	if a[3]|a[4] != 0 || a[2] > abi.CAP_LAST_CAP {
		return 0, abi.EINVAL
	}
	bit := cred.CapSet(1) << a[2]
	switch a[1] {
	case abi.PR_CAP_AMBIENT_IS_SET:
		return flag01(old.Ambient&bit != 0), nil
	case abi.PR_CAP_AMBIENT_RAISE:
		if old.Permitted&bit == 0 || old.Inheritable&bit == 0 || old.SecureBits&abi.SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
			return 0, abi.EPERM
		}
		c := old.Clone()
		c.Ambient |= bit
		t.SetCred(c)
		return 0, nil
	case abi.PR_CAP_AMBIENT_LOWER:
		c := old.Clone()
		c.Ambient &^= bit
		t.SetCred(c)
		return 0, nil
	}
	return 0, abi.EINVAL
}
