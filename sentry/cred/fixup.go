package cred

import "garrison/abi"

// fsCaps are the capabilities that follow the file-system user id (CAP_FS_SET).
const fsCaps CapSet = 1<<abi.CAP_CHOWN | 1<<abi.CAP_DAC_OVERRIDE | 1<<abi.CAP_DAC_READ_SEARCH | 1<<abi.CAP_FOWNER |
	1<<abi.CAP_FSETID | 1<<abi.CAP_LINUX_IMMUTABLE | 1<<abi.CAP_MKNOD | 1<<abi.CAP_MAC_OVERRIDE

// FixupUID changes the capabilities of c, a changed copy of old, as changes of
// the user ids do (capabilities(7), "Effect of user ID changes on capabilities").
func (c *Cred) FixupUID(old *Cred) {
	if c.SecureBits&abi.SECBIT_NO_SETUID_FIXUP == 0 {
		hadRoot := old.RUID == 0 || old.EUID == 0 || old.SUID == 0
		hasRoot := c.RUID == 0 || c.EUID == 0 || c.SUID == 0
		if hadRoot && !hasRoot {
			if !c.KeepCaps {
				c.Permitted, c.Effective = 0, 0
			}
			c.Ambient = 0
		}
		if old.EUID == 0 && c.EUID != 0 {
			c.Effective = 0
		}
		if old.EUID != 0 && c.EUID == 0 {
			c.Effective = c.Permitted
		}
	}
	if c.FSUID != old.FSUID {
		c.FixupFSUID(old)
	}
}

// FixupFSUID does the same for a change of the file-system user id alone.
func (c *Cred) FixupFSUID(old *Cred) {
	if c.SecureBits&abi.SECBIT_NO_SETUID_FIXUP != 0 {
		return
	}
	if old.FSUID == 0 && c.FSUID != 0 {
		c.Effective &^= fsCaps
	}
	if old.FSUID != 0 && c.FSUID == 0 {
		c.Effective |= fsCaps & c.Permitted
	}
}
