package vfs

import (
	"fmt"
	"strings"

	"garrison/abi"
)

// MountInfo is the content of /proc/PID/mountinfo (proc(5)): the mounts of ns
// that can be seen from root.
func MountInfo(ns *MountNamespace, root Path) []byte {
	var b strings.Builder
	ns.each(root, func(m *Mount, at string, parent int32) {
		src, _ := Path{nil, m.root}.nameFrom(Path{nil, m.sb.root})
		fmt.Fprintf(&b, "%d %d %d:%d %s %s %s - %s %s %s\n", m.ID, parent, DevMajor(m.sb.dev), DevMinor(m.sb.dev),
			escape(src), escape(at), m.options(), m.sb.Type(), escape(m.Source), m.superOptions())
	})
	return []byte(b.String())
}

// Mounts is the content of /proc/PID/mounts.
func Mounts(ns *MountNamespace, root Path) []byte {
	var b strings.Builder
	ns.each(root, func(m *Mount, at string, _ int32) {
		o := m.options()
		if s := m.sb.Options(); s != "" {
			o += "," + s
		}
		fmt.Fprintf(&b, "%s %s %s %s 0 0\n", escape(m.Source), escape(at), m.sb.Type(), o)
	})
	return []byte(b.String())
}

// each calls fn for the mounts that can be reached from root, parents first.
func (ns *MountNamespace) each(root Path, fn func(m *Mount, at string, parent int32)) {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	var walk func(m *Mount)
	walk = func(m *Mount) {
		if at, ok := (Path{m, m.root}).nameFrom(root); ok {
			parent := m.ID
			if l := m.loc.Load(); l != nil && l.parent != nil {
				parent = l.parent.ID
			}
			fn(m, at, parent)
		}
		for _, c := range m.children {
			walk(c)
		}
	}
	walk(ns.root)
}

// options are a mount's own options.
func (m *Mount) options() string {
	o := "rw"
	if m.ReadOnly() {
		o = "ro"
	}
	fl := m.Flags()
	for _, x := range [...]struct {
		ms   uint32
		name string
	}{{abi.MS_NOSUID, "nosuid"}, {abi.MS_NODEV, "nodev"}, {abi.MS_NOEXEC, "noexec"}, {abi.MS_NOATIME, "noatime"},
		{abi.MS_NODIRATIME, "nodiratime"}, {abi.MS_RELATIME, "relatime"}, {abi.MS_NOSYMFOLLOW, "nosymfollow"}} {
		if fl&x.ms != 0 {
			o += "," + x.name
		}
	}
	return o
}

// superOptions are the file system's options.
func (m *Mount) superOptions() string {
	o := "rw"
	if m.sb.readonly.Load() {
		o = "ro"
	}
	if s := m.sb.Options(); s != "" {
		o += "," + s
	}
	return o
}

// escape writes blanks and backslashes in octal, as seq_path does.
func escape(s string) string {
	if !strings.ContainsAny(s, " \t\n\\#") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t', '\n', '\\', '#':
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Clone copies the namespace (CLONE_NEWNS). translate maps a path in it to the
// same path in the copy.
func (ns *MountNamespace) Clone() (c *MountNamespace, translate func(Path) Path) {
	v := ns.vfs
	c = &MountNamespace{vfs: v, byPoint: make(map[mountKey]*Mount)}
	twin := make(map[*Mount]*Mount)
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var walk func(m *Mount)
	walk = func(m *Mount) {
		n := v.newMount(m.sb, m.root, m.Flags(), m.Source)
		twin[m] = n
		if l := m.loc.Load(); l != nil && l.parent != nil && m != ns.root {
			c.attach(n, Path{twin[l.parent], l.point})
		} else {
			n.loc.Store(&mountLoc{})
			n.ns.Store(c)
			c.root = n
			c.count++
		}
		for _, k := range m.children {
			walk(k)
		}
	}
	walk(ns.root)
	return c, func(p Path) Path {
		if n := twin[p.Mount]; n != nil {
			p.Mount = n
		}
		return p
	}
}
