package syscalls

import (
	"encoding/binary"
	"slices"

	"garrison/abi"
	"garrison/sentry/cred"
	"garrison/sentry/kernel"
	"garrison/sentry/usermem"
)

var credCalls = []kernel.Row{
	{Nr: abi.SYS_getuid, Name: "getuid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.Cred().RUID), nil }},
	{Nr: abi.SYS_geteuid, Name: "geteuid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.Cred().EUID), nil }},
	{Nr: abi.SYS_getgid, Name: "getgid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.Cred().RGID), nil }},
	{Nr: abi.SYS_getegid, Name: "getegid", Fn: func(t *kernel.Task, _ kernel.Args) (uintptr, error) { return uintptr(t.Cred().EGID), nil }},
	{Nr: abi.SYS_getresuid, Name: "getresuid", Fn: sysGetresuid, Args: []kernel.ArgKind{kernel.IntOut, kernel.IntOut, kernel.IntOut}},
	{Nr: abi.SYS_getresgid, Name: "getresgid", Fn: sysGetresgid, Args: []kernel.ArgKind{kernel.IntOut, kernel.IntOut, kernel.IntOut}},
	{Nr: abi.SYS_setuid, Name: "setuid", Fn: sysSetuid, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_setgid, Name: "setgid", Fn: sysSetgid, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_setreuid, Name: "setreuid", Fn: sysSetreuid, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_setregid, Name: "setregid", Fn: sysSetregid, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_setresuid, Name: "setresuid", Fn: sysSetresuid, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_setresgid, Name: "setresgid", Fn: sysSetresgid, Args: []kernel.ArgKind{kernel.Dec, kernel.Dec, kernel.Dec}},
	{Nr: abi.SYS_setfsuid, Name: "setfsuid", Fn: sysSetfsuid, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_setfsgid, Name: "setfsgid", Fn: sysSetfsgid, Args: []kernel.ArgKind{kernel.Dec}},
	{Nr: abi.SYS_getgroups, Name: "getgroups", Fn: sysGetgroups, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr}},
	{Nr: abi.SYS_setgroups, Name: "setgroups", Fn: sysSetgroups, Args: []kernel.ArgKind{kernel.Dec, kernel.Ptr}},
	{Nr: abi.SYS_capget, Name: "capget", Fn: sysCapget, Args: []kernel.ArgKind{kernel.Ptr, kernel.Ptr}},
	{Nr: abi.SYS_capset, Name: "capset", Fn: sysCapset, Args: []kernel.ArgKind{kernel.Ptr, kernel.Ptr}},
}

// none is the id that means "leave it" to setresuid and its like.
const none = ^uint32(0)

func copyOutIDs(t *kernel.Task, a *kernel.Args, ids [3]uint32) error {
	for i, v := range ids {
		if err := usermem.CopyOutUint32(t.Memory(), a.Addr(i), v); err != nil {
			return err
		}
	}
	return nil
}

func sysGetresuid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	c := t.Cred()
	return 0, copyOutIDs(t, &a, [3]uint32{uint32(c.RUID), uint32(c.EUID), uint32(c.SUID)})
}

func sysGetresgid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	c := t.Cred()
	return 0, copyOutIDs(t, &a, [3]uint32{uint32(c.RGID), uint32(c.EGID), uint32(c.SGID)})
}

// setUIDs publishes c after the set*uid calls: capabilities follow the ids.
func setUIDs(t *kernel.Task, c *cred.Cred) (uintptr, error) {
	c.FixupUID(t.Cred())
	t.SetCred(c)
	return 0, nil
}

func sysSetuid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	u := cred.UID(a.Uint(0))
	if a.Uint(0) == none {
		return 0, abi.EINVAL
	}
	old := t.Cred()
	c := old.Clone()
	switch {
	case old.Can(abi.CAP_SETUID):
		c.RUID, c.SUID = u, u
	case u != old.RUID && u != old.SUID:
		return 0, abi.EPERM
	}
	c.EUID, c.FSUID = u, u
	return setUIDs(t, c)
}

func sysSetgid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	g := cred.GID(a.Uint(0))
	if a.Uint(0) == none {
		return 0, abi.EINVAL
	}
	old := t.Cred()
	c := old.Clone()
	switch {
	case old.Can(abi.CAP_SETGID):
		c.RGID, c.SGID = g, g
	case g != old.RGID && g != old.SGID:
		return 0, abi.EPERM
	}
	c.EGID, c.FSGID = g, g
	t.SetCred(c)
	return 0, nil
}

func sysSetreuid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r, e := a.Uint(0), a.Uint(1)
	old := t.Cred()
	c := old.Clone()
	can := old.Can(abi.CAP_SETUID)
	if r != none {
		c.RUID = cred.UID(r)
		if c.RUID != old.RUID && c.RUID != old.EUID && !can {
			return 0, abi.EPERM
		}
	}
	if e != none {
		c.EUID = cred.UID(e)
		if c.EUID != old.RUID && c.EUID != old.EUID && c.EUID != old.SUID && !can {
			return 0, abi.EPERM
		}
	}
	if r != none || e != none && c.EUID != old.RUID {
		c.SUID = c.EUID
	}
	c.FSUID = c.EUID
	return setUIDs(t, c)
}

func sysSetregid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	r, e := a.Uint(0), a.Uint(1)
	old := t.Cred()
	c := old.Clone()
	can := old.Can(abi.CAP_SETGID)
	if r != none {
		c.RGID = cred.GID(r)
		if c.RGID != old.RGID && c.RGID != old.EGID && !can {
			return 0, abi.EPERM
		}
	}
	if e != none {
		c.EGID = cred.GID(e)
		if c.EGID != old.RGID && c.EGID != old.EGID && c.EGID != old.SGID && !can {
			return 0, abi.EPERM
		}
	}
	if r != none || e != none && c.EGID != old.RGID {
		c.SGID = c.EGID
	}
	c.FSGID = c.EGID
	t.SetCred(c)
	return 0, nil
}

func sysSetresuid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.Cred()
	c := old.Clone()
	can := old.Can(abi.CAP_SETUID)
	for i, dst := range [...]*cred.UID{&c.RUID, &c.EUID, &c.SUID} {
		v := a.Uint(i)
		if v == none {
			continue
		}
		u := cred.UID(v)
		if u != old.RUID && u != old.EUID && u != old.SUID && !can {
			return 0, abi.EPERM
		}
		*dst = u
	}
	c.FSUID = c.EUID
	return setUIDs(t, c)
}

func sysSetresgid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.Cred()
	c := old.Clone()
	can := old.Can(abi.CAP_SETGID)
	for i, dst := range [...]*cred.GID{&c.RGID, &c.EGID, &c.SGID} {
		v := a.Uint(i)
		if v == none {
			continue
		}
		g := cred.GID(v)
		if g != old.RGID && g != old.EGID && g != old.SGID && !can {
			return 0, abi.EPERM
		}
		*dst = g
	}
	c.FSGID = c.EGID
	t.SetCred(c)
	return 0, nil
}

// setfsuid and setfsgid tell the old id, whether or not they did anything.
func sysSetfsuid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.Cred()
	u := cred.UID(a.Uint(0))
	if a.Uint(0) != none && (u == old.RUID || u == old.EUID || u == old.SUID || u == old.FSUID || old.Can(abi.CAP_SETUID)) && u != old.FSUID {
		c := old.Clone()
		c.FSUID = u
		c.FixupFSUID(old)
		t.SetCred(c)
	}
	return uintptr(old.FSUID), nil
}

func sysSetfsgid(t *kernel.Task, a kernel.Args) (uintptr, error) {
	old := t.Cred()
	g := cred.GID(a.Uint(0))
	if a.Uint(0) != none && (g == old.RGID || g == old.EGID || g == old.SGID || g == old.FSGID || old.Can(abi.CAP_SETGID)) && g != old.FSGID {
		c := old.Clone()
		c.FSGID = g
		t.SetCred(c)
	}
	return uintptr(old.FSGID), nil
}

func sysGetgroups(t *kernel.Task, a kernel.Args) (uintptr, error) {
	n := a.Int(0)
	gs := t.Cred().Groups
	switch {
	case n < 0:
		return 0, abi.EINVAL
	case n == 0:
		return uintptr(len(gs)), nil
	case int(n) < len(gs):
		return 0, abi.EINVAL
	}
	b := make([]byte, 4*len(gs))
	for i, g := range gs {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(g))
	}
	if _, err := t.Memory().CopyOut(a.Addr(1), b); err != nil {
		return 0, err
	}
	return uintptr(len(gs)), nil
}

func sysSetgroups(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if !t.Cred().Can(abi.CAP_SETGID) {
		return 0, abi.EPERM
	}
	n := a.Uint(0)
	if n > abi.NGROUPS_MAX {
		return 0, abi.EINVAL
	}
	b := make([]byte, 4*n)
	if _, err := t.Memory().CopyIn(a.Addr(1), b); err != nil {
		return 0, err
	}
	gs := make([]cred.GID, n)
	for i := range gs {
		v := binary.LittleEndian.Uint32(b[4*i:])
		if v == none {
			return 0, abi.EINVAL
		}
		gs[i] = cred.GID(v)
	}
	slices.Sort(gs)
	c := t.Cred().Clone()
	c.Groups = gs
	t.SetCred(c)
	return 0, nil
}

// capHeader reads struct __user_cap_header_struct; words is how many 32-bit
// words each set has. EINVAL, with the preferred version written back, for an
// unknown version.
func capHeader(t *kernel.Task, p usermem.Addr) (pid int32, words int, err error) {
	var b [8]byte
	if _, err := t.Memory().CopyIn(p, b[:]); err != nil {
		return 0, 0, err
	}
	pid = int32(binary.LittleEndian.Uint32(b[4:]))
	switch binary.LittleEndian.Uint32(b[:]) {
	case abi.CAPABILITY_VERSION_1:
		return pid, 1, nil
	case abi.CAPABILITY_VERSION_2, abi.CAPABILITY_VERSION_3:
		return pid, 2, nil
	}
	if err := usermem.CopyOutUint32(t.Memory(), p, abi.CAPABILITY_VERSION_3); err != nil {
		return 0, 0, err
	}
	return pid, 0, abi.EINVAL
}

func sysCapget(t *kernel.Task, a kernel.Args) (uintptr, error) {
	pid, words, err := capHeader(t, a.Addr(0))
	if err != nil {
		if err == abi.EINVAL && a.Addr(1) == 0 {
			return 0, nil // asks for the version
		}
		return 0, err
	}
	if pid < 0 {
		return 0, abi.EINVAL
	}
	c := t.Cred()
	if pid != 0 {
		x := t.Kernel().TaskByID(pid)
		if x == nil {
			return 0, abi.ESRCH
		}
		c = x.Cred()
	}
	if a.Addr(1) == 0 {
		return 0, nil
	}
	b := make([]byte, 12*words)
	for w := range words {
		for i, s := range [...]cred.CapSet{c.Effective, c.Permitted, c.Inheritable} {
			binary.LittleEndian.PutUint32(b[12*w+4*i:], uint32(s>>(32*w)))
		}
	}
	_, err = t.Memory().CopyOut(a.Addr(1), b)
	return 0, err
}

func sysCapset(t *kernel.Task, a kernel.Args) (uintptr, error) {
	pid, words, err := capHeader(t, a.Addr(0))
	if err != nil {
		return 0, err
	}
	if pid != 0 && pid != t.TID() {
		return 0, abi.EPERM
	}
	b := make([]byte, 12*words)
	if _, err := t.Memory().CopyIn(a.Addr(1), b); err != nil {
		return 0, err
	}
	var eff, perm, inh cred.CapSet
	for w := range words {
		for i, s := range [...]*cred.CapSet{&eff, &perm, &inh} {
			*s |= cred.CapSet(binary.LittleEndian.Uint32(b[12*w+4*i:])) << (32 * w)
		}
	}
	eff, perm, inh = eff&cred.AllCaps, perm&cred.AllCaps, inh&cred.AllCaps
	old := t.Cred()
	switch {
	case !old.Can(abi.CAP_SETPCAP) && inh&^(old.Inheritable|old.Permitted) != 0,
		inh&^(old.Inheritable|old.Bounding) != 0, perm&^old.Permitted != 0, eff&^perm != 0:
		return 0, abi.EPERM
	}
	c := old.Clone()
	c.Effective, c.Permitted, c.Inheritable = eff, perm, inh
	c.Ambient &= perm & inh
	t.SetCred(c)
	return 0, nil
}
