// Package cred is who a task is: user and group ids, capabilities and the user
// namespace that they hold in (credentials(7), capabilities(7)).
//
// It decides nothing about files or signals; it answers whether a Cred has a
// capability or is in a group. A Cred is immutable once published: changes make
// a copy, so readers need no lock.
//
// It has no locks.
package cred

import "garrison/abi"

// UID and GID are ids in the initial user namespace of the sandbox (kuid_t).
type (
	UID uint32
	GID uint32
)

// CapSet is a set of capabilities: bit n is capability number n.
type CapSet uint64

// AllCaps holds every capability we know.
const AllCaps CapSet = 1<<(abi.CAP_LAST_CAP+1) - 1

// Has reports whether the set holds capability c (CAP_*).
func (s CapSet) Has(c int) bool { return s>>uint(c)&1 != 0 }

// A UserNamespace is the scope of capabilities. Only the root one exists yet
// unless a guest makes more; ID maps are applied at the system-call boundary.
type UserNamespace struct {
	Parent *UserNamespace // nil for the root
	Owner  UID
	Level  int
}

// A Cred is a task's credentials. Never change one that others may see: Clone it.
type Cred struct {
	RUID, EUID, SUID, FSUID UID
	RGID, EGID, SGID, FSGID GID
	Groups                  []GID // supplementary, sorted ascending; never modified in place

	Permitted, Effective, Inheritable, Bounding, Ambient CapSet

	SecureBits uint32 // SECBIT_*
	KeepCaps   bool   // PR_SET_KEEPCAPS
	NoNewPrivs bool
	UserNS     *UserNamespace
}

// NewRoot returns root's credentials with all capabilities in ns.
func NewRoot(ns *UserNamespace) *Cred {
	return &Cred{Permitted: AllCaps, Effective: AllCaps, Bounding: AllCaps, UserNS: ns}
}

// NewUser returns the credentials of an ordinary user without capabilities.
func NewUser(ns *UserNamespace, u UID, g GID, groups []GID) *Cred {
	return &Cred{RUID: u, EUID: u, SUID: u, FSUID: u, RGID: g, EGID: g, SGID: g, FSGID: g,
		Groups: groups, Bounding: AllCaps, UserNS: ns}
}

// Clone returns a copy that may be changed until it is published.
func (c *Cred) Clone() *Cred { n := *c; return &n }

// Can reports whether the credentials hold capability n effectively in the
// root namespace's resources.
func (c *Cred) Can(n int) bool {
	return c.Effective.Has(n) && (c.UserNS == nil || c.UserNS.Parent == nil)
}

// InGroup reports whether g is the file-system group or a supplementary one.
func (c *Cred) InGroup(g GID) bool {
	if c.FSGID == g {
		return true
	}
	for _, x := range c.Groups {
		if x == g {
			return true
		}
	}
	return false
}
