// Package sys is sysfs (sysfs(5)) as far as programs in containers read it: CPU
// and memory-node topology, transparent huge pages, block and network class
// directories, and the mount point of cgroups.
//
// It shows the sandbox's machine, not the host's devices, and nothing in it can
// be written.
//
// It has no locks.
package sys

import (
	"fmt"
	"strings"

	"garrison/abi"
	"garrison/sentry/fs/pseudo"
	"garrison/sentry/vfs"
)

// A Machine is what sysfs shows.
type Machine struct {
	CPUs        int    // number of CPUs
	TotalMemory uint64 // bytes
	// UsedMemory returns the bytes in use.
	UsedMemory func() uint64
}

// New makes a sysfs for v.
func New(v *vfs.VFS, m Machine) vfs.Superblock {
	fs := pseudo.New(v, "sysfs", abi.SYSFS_MAGIC)
	dir := func(e map[string]vfs.Inode) vfs.Inode { return fs.NewDir(e) }
	empty := func() vfs.Inode { return fs.NewDir(nil) }
	fs.SetRoot(dir(map[string]vfs.Inode{
		"block":    empty(),
		"bus":      empty(),
		"class":    dir(map[string]vfs.Inode{"net": netClass(fs), "block": empty(), "tty": empty(), "power_supply": empty()}),
		"dev":      dir(map[string]vfs.Inode{"block": empty(), "char": empty()}),
		"devices":  dir(map[string]vfs.Inode{"system": dir(map[string]vfs.Inode{"cpu": cpus(fs, m.CPUs), "node": nodes(fs, m)}), "virtual": empty()}),
		"firmware": empty(),
		"fs":       dir(map[string]vfs.Inode{"cgroup": empty()}),
		"kernel": dir(map[string]vfs.Inode{
			"mm": dir(map[string]vfs.Inode{
				"transparent_hugepage": dir(map[string]vfs.Inode{
					"enabled":        fs.Text("always [madvise] never\n"),
					"shmem_enabled":  fs.Text("always within_size advise [never] deny force\n"),
					"hpage_pmd_size": fs.Text("2097152\n"),
				}),
				"hugepages": empty(),
			}),
		}),
		"module": empty(),
		"power":  empty(),
	}))
	return fs
}

// cpuRange is a list of CPUs as sysfs writes it: "0-3".
func cpuRange(n int) string {
	if n == 1 {
		return "0"
	}
	return fmt.Sprintf("0-%d", n-1)
}

// cpuMask is a set of CPUs as a comma-separated mask of 32-bit words, most
// significant first (Documentation/admin-guide/cputopology.rst).
func cpuMask(n int, set func(cpu int) bool) string {
	words := make([]string, (n+31)/32)
	for w := range words {
		var v uint32
		for b := 0; b < 32 && w*32+b < n; b++ {
			if set(w*32 + b) {
				v |= 1 << b
			}
		}
		width := 8
		if w == len(words)-1 {
			width = ((n-1)%32 + 4) / 4
		}
		words[len(words)-1-w] = fmt.Sprintf("%0*x", width, v)
	}
	return strings.Join(words, ",")
}

func cpus(fs *pseudo.FS, n int) vfs.Inode {
	all := cpuRange(n) + "\n"
	entries := map[string]vfs.Inode{
		"online":     fs.Text(all),
		"possible":   fs.Text(all),
		"present":    fs.Text(all),
		"offline":    fs.Text("\n"),
		"isolated":   fs.Text("\n"),
		"kernel_max": fs.Text("8191\n"),
	}
	for i := range n {
		self := fmt.Sprintf("%d\n", i)
		mask := cpuMask(n, func(c int) bool { return c == i }) + "\n"
		allMask := cpuMask(n, func(int) bool { return true }) + "\n"
		entries[fmt.Sprintf("cpu%d", i)] = fs.NewDir(map[string]vfs.Inode{
			"topology": fs.NewDir(map[string]vfs.Inode{
				"physical_package_id":  fs.Text("0\n"),
				"die_id":               fs.Text("0\n"),
				"core_id":              fs.Text(self),
				"core_cpus":            fs.Text(mask),
				"core_cpus_list":       fs.Text(self),
				"thread_siblings":      fs.Text(mask),
				"thread_siblings_list": fs.Text(self),
				"core_siblings":        fs.Text(allMask),
				"core_siblings_list":   fs.Text(all),
				"package_cpus":         fs.Text(allMask),
				"package_cpus_list":    fs.Text(all),
			}),
		})
	}
	return fs.NewDir(entries)
}

func nodes(fs *pseudo.FS, m Machine) vfs.Inode {
	kib := m.TotalMemory >> 10
	return fs.NewDir(map[string]vfs.Inode{
		"online":            fs.Text("0\n"),
		"possible":          fs.Text("0\n"),
		"has_cpu":           fs.Text("0\n"),
		"has_memory":        fs.Text("0\n"),
		"has_normal_memory": fs.Text("0\n"),
		"node0": fs.NewDir(map[string]vfs.Inode{
			"cpulist":  fs.Text(cpuRange(m.CPUs) + "\n"),
			"cpumap":   fs.Text(cpuMask(m.CPUs, func(int) bool { return true }) + "\n"),
			"distance": fs.Text("10\n"),
			"meminfo": fs.NewFile(func(vfs.Context) ([]byte, error) {
				free := kib - min(m.UsedMemory()>>10, kib)
				return fmt.Appendf(nil, "Node 0 MemTotal:       %8d kB\nNode 0 MemFree:        %8d kB\nNode 0 MemUsed:        %8d kB\n",
					kib, free, kib-free), nil
			}),
		}),
	})
}

func netClass(fs *pseudo.FS) vfs.Inode {
	return fs.NewDir(map[string]vfs.Inode{
		"lo": fs.NewDir(map[string]vfs.Inode{
			"address":      fs.Text("00:00:00:00:00:00\n"),
			"addr_len":     fs.Text("6\n"),
			"carrier":      fs.Text("1\n"),
			"flags":        fs.Text("0x9\n"),
			"ifindex":      fs.Text("1\n"),
			"mtu":          fs.Text("65536\n"),
			"operstate":    fs.Text("unknown\n"),
			"tx_queue_len": fs.Text("1000\n"),
			"type":         fs.Text("772\n"),
		}),
	})
}
