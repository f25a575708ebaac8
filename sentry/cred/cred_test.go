package cred

import (
	"testing"

	"garrison/abi"
)

func TestFixupUID(t *testing.T) {
	root := NewRoot(nil)
	user := NewUser(nil, 1000, 1000, nil)
	kept := root.Clone()
	kept.KeepCaps = true
	noFixup := root.Clone()
	noFixup.SecureBits = abi.SECBIT_NO_SETUID_FIXUP
	halfRoot := root.Clone() // a set-user-ID-root program that gave up root for a while
	halfRoot.RUID, halfRoot.EUID, halfRoot.FSUID = 1000, 1000, 1000
	halfRoot.Effective = 0
	ambient := root.Clone()
	ambient.Inheritable, ambient.Ambient = AllCaps, 1<<abi.CAP_NET_RAW

	for _, c := range []struct {
		name               string
		old                *Cred
		change             func(c *Cred)
		permitted          CapSet
		effective, ambient CapSet
	}{
		{"root becomes a user", root, func(c *Cred) { c.RUID, c.EUID, c.SUID, c.FSUID = 1, 1, 1, 1 }, 0, 0, 0},
		{"and keeps capabilities", kept, func(c *Cred) { c.RUID, c.EUID, c.SUID, c.FSUID = 1, 1, 1, 1 }, AllCaps, 0, 0},
		{"without fixup", noFixup, func(c *Cred) { c.RUID, c.EUID, c.SUID, c.FSUID = 1, 1, 1, 1 }, AllCaps, AllCaps, 0},
		{"only effectively", root, func(c *Cred) { c.EUID, c.FSUID = 1, 1 }, AllCaps, 0, 0},
		{"and back", halfRoot, func(c *Cred) { c.EUID, c.FSUID = 0, 0 }, AllCaps, AllCaps, 0},
		{"a user stays one", user, func(c *Cred) { c.RUID = 1000 }, 0, 0, 0},
		{"ambient ones go", ambient, func(c *Cred) { c.RUID, c.EUID, c.SUID, c.FSUID = 1, 1, 1, 1 }, 0, 0, 0},
		{"the file-system id alone", root, func(c *Cred) { c.FSUID = 1 }, AllCaps, AllCaps &^ fsCaps, 0},
	} {
		n := c.old.Clone()
		c.change(n)
		n.FixupUID(c.old)
		if n.Permitted != c.permitted || n.Effective != c.effective || n.Ambient != c.ambient {
			t.Errorf("%s: permitted %x, effective %x, ambient %x; want %x, %x, %x", c.name,
				n.Permitted, n.Effective, n.Ambient, c.permitted, c.effective, c.ambient)
		}
	}
}

func TestInGroup(t *testing.T) {
	c := NewUser(nil, 1, 2, []GID{5, 9})
	for g, want := range map[GID]bool{1: false, 2: true, 5: true, 9: true, 0: false} {
		if c.InGroup(g) != want {
			t.Errorf("InGroup(%d) is not %v", g, want)
		}
	}
}
