package vfs

// NameFrom is p's path as seen from root: what getcwd, /proc/PID/fd and
// /proc/mounts show (d_path). A removed name ends in " (deleted)"; a place that
// can't be reached from root is shown from the top of its own mounts.
func (p Path) NameFrom(root Path) string {
	name, _ := p.nameFrom(root)
	if p.Dentry.unlinked.Load() && name[0] == '/' && p.Dentry != p.Mount.rootOrNil() {
		name += " (deleted)"
	}
	return name
}

// mappedName is p's path from the top of its mount namespace.
func (p Path) mappedName() string { return p.NameFrom(Path{}) }

// Reachable is p's path as seen from root; ok is false if it can't be reached.
func (p Path) Reachable(root Path) (name string, ok bool) { return p.nameFrom(root) }

func (m *Mount) rootOrNil() *Dentry {
	if m == nil {
		return nil
	}
	return m.root
}

// nameFrom walks up from p to root, or as far as it gets.
func (p Path) nameFrom(root Path) (string, bool) {
	if n, ok := p.Dentry.inode.(DynamicNamer); ok {
		return n.DynamicName(), true
	}
	buf := make([]byte, 256)
	at := len(buf)
	m, d := p.Mount, p.Dentry
	reached := false
	for {
		if d == root.Dentry && m == root.Mount {
			reached = true
			break
		}
		if d == m.rootOrNil() {
			l := m.loc.Load()
			if l == nil || l.parent == nil {
				// The top of the namespace, or of a detached mount.
				reached = root.Dentry == nil && l != nil
				break
			}
			m, d = l.parent, l.point
			continue
		}
		l := d.loc.Load()
		if l.parent == nil {
			if at == len(buf) && d != d.sb.root {
				return l.name, false // an object without a place: "pipe:[7]" says it all
			}
			break
		}
		need := len(l.name) + 1
		if at < need {
			nb := make([]byte, 2*len(buf)+need)
			copy(nb[len(nb)-(len(buf)-at):], buf[at:])
			at += len(nb) - len(buf)
			buf = nb
		}
		at -= need
		buf[at] = '/'
		copy(buf[at+1:], l.name)
		d = l.parent
	}
	if at == len(buf) {
		return "/", reached
	}
	return string(buf[at:]), reached
}

// A DynamicNamer is an inode that says itself what /proc/PID/fd shows
// ("pipe:[12]").
type DynamicNamer interface{ DynamicName() string }
