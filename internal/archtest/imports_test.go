package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

const module = "garrison"

// allowed is the import graph: the first entry whose pattern meets a package
// says what it may import besides the standard library. Patterns are regular
// expressions for whole paths below the module; "x/..." also means x itself.
//
// Do not widen it to make a build pass: a new edge is a decision, with a line
// in docs/RATIONALE.md.
var allowed = []struct {
	pkg     string
	imports []string // of this module
	modules []string // others
}{
	{"abi", nil, nil},
	{"internal/genabi", nil, nil},
	{"internal/archtest", nil, nil},
	{"internal/seccomp", nil, []string{"golang.org/x/net/bpf", "golang.org/x/sys/unix"}},
	{"internal/spanset", nil, []string{"github.com/google/btree"}},
	{"internal/...", []string{"abi", "internal/..."}, []string{"golang.org/x/sys/unix", "golang.org/x/arch/..."}},

	// platform never imports sentry.
	{"platform", []string{"abi"}, nil},
	{"platform/...", []string{"abi", "internal/...", "platform", "platform/hoststub"}, []string{"golang.org/x/sys/(unix|cpu)", "golang.org/x/arch/..."}},

	{"sentry/cred", []string{"abi"}, nil},
	{"sentry/wait", []string{"abi"}, []string{"golang.org/x/sys/unix"}},
	{"sentry/usermem", []string{"abi"}, nil},
	{"sentry/pagefile", []string{"abi", "internal/..."}, []string{"golang.org/x/sys/unix", "github.com/google/btree"}},
	{"sentry/vdso", []string{"abi", "platform", "sentry/(usermem|mm|pagefile)"}, nil},
	{"sentry/mm", []string{"abi", "internal/...", "platform", "sentry/(usermem|wait|pagefile|cred)"}, []string{"golang.org/x/sys/unix", "github.com/google/btree"}},
	{"sentry/vfs", []string{"abi", "internal/...", "sentry/(cred|wait|usermem|mm|pagefile)", "platform"}, []string{"github.com/google/btree"}},
	{"sentry/loader", []string{"abi", "internal/...", "platform", "sentry/(cred|wait|usermem|mm|vfs|vdso|pagefile)"}, nil},
	// kernel never imports a file system or a socket family.
	{"sentry/kernel", []string{"abi", "internal/...", "platform", "sentry/(cred|wait|usermem|mm|vfs|loader|vdso|pagefile)"}, []string{"golang.org/x/sys/unix"}},
	{"sentry/strace", []string{"abi", "sentry/(kernel|usermem|vfs|cred|mm|wait)"}, nil},
	// sentry never imports a concrete platform, or the Gofer's server.
	{"sentry/(fs|socket)/...", []string{"abi", "internal/...", "platform", "sentry/(cred|wait|usermem|mm|vfs|pagefile|kernel|vdso)", "sentry/(fs|socket)/..."},
		[]string{"golang.org/x/sys/unix", "github.com/hugelgupf/p9/...", "github.com/google/btree"}},
	{"sentry/syscalls", []string{"abi", "platform", "sentry/..."}, []string{"golang.org/x/sys/unix"}},

	{"gofer", []string{"abi", "internal/..."}, []string{"golang.org/x/sys/unix", "github.com/hugelgupf/p9/...", "github.com/u-root/uio/..."}},

	{"runsc/config", nil, nil},
	{"runsc/control", nil, nil},
	{"runsc/sandbox", []string{"internal/...", "runsc/(config|control)"}, []string{"golang.org/x/sys/unix"}},
	// boot wires everything.
	{"runsc/boot", []string{"abi", "internal/...", "platform/...", "sentry/...", "runsc/(config|control)"}, []string{"golang.org/x/sys/unix"}},
	{"runsc/cmd", []string{"abi", "internal/...", "gofer", "runsc/..."}, []string{"golang.org/x/sys/unix", "github.com/google/subcommands"}},
	{"runsc", []string{"runsc/cmd"}, nil},

	{"(test|bench)/...", []string{"abi", "internal/..."}, []string{"golang.org/x/sys/unix", "github.com/rogpeppe/go-internal/...", "github.com/google/go-cmp/..."}},
}

func match(pattern, path string) bool {
	if p, ok := strings.CutSuffix(pattern, "/..."); ok {
		pattern = p + "(/.*)?"
	}
	return regexp.MustCompile("^(" + pattern + ")$").MatchString(path)
}

func matchAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if match(p, path) {
			return true
		}
	}
	return false
}

// sources calls fn for each Go file of the tree that is not a test.
func sources(t *testing.T, fn func(dir, name string, f *ast.File)) {
	t.Helper()
	root := "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if n := d.Name(); path != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		fn(filepath.ToSlash(filepath.Dir(rel)), filepath.Base(rel), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImports(t *testing.T) {
	missing := map[string]bool{}
	sources(t, func(dir, name string, f *ast.File) {
		if f.Name.Name == "main" && (strings.HasPrefix(dir, "test/") || strings.HasPrefix(dir, "sentry/vdso/")) {
			return // guest programs and generators
		}
		for _, a := range allowed {
			if !match(a.pkg, dir) {
				continue
			}
			for _, imp := range f.Imports {
				path := strings.Trim(imp.Path.Value, `"`)
				if in, ok := strings.CutPrefix(path, module+"/"); ok {
					if !matchAny(a.imports, in) {
						t.Errorf("%s/%s imports %s, which the graph does not allow", dir, name, path)
					}
				} else if strings.Contains(strings.Split(path, "/")[0], ".") && !matchAny(a.modules, path) {
					t.Errorf("%s/%s imports %s, which is not allowed there", dir, name, path)
				}
			}
			return
		}
		missing[dir] = true
	})
	var dirs []string
	for d := range missing {
		dirs = append(dirs, d)
	}
	sort.Strings(dirs)
	for _, d := range dirs {
		t.Errorf("package %s is not in the graph", d)
	}
}

// TestUnsafe keeps unsafe code where it is looked for.
func TestUnsafe(t *testing.T) {
	sources(t, func(dir, name string, f *ast.File) {
		for _, imp := range f.Imports {
			if imp.Path.Value != `"unsafe"` {
				continue
			}
			if !strings.HasPrefix(dir, "platform/") && !strings.HasPrefix(dir, "internal/") || !strings.HasSuffix(name, "_unsafe.go") {
				t.Errorf("%s/%s uses unsafe: only platform/ and internal/ may, in *_unsafe.go", dir, name)
			}
		}
	})
}

// TestNoInit keeps wiring explicit.
func TestNoInit(t *testing.T) {
	sources(t, func(dir, name string, f *ast.File) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s/%s has an init function: runsc/boot wires everything", dir, name)
			}
		}
	})
}

// TestPackageDocs wants the three paragraphs: does, does not, lock order.
func TestPackageDocs(t *testing.T) {
	paragraphs := map[string]int{}
	sources(t, func(dir, _ string, f *ast.File) {
		if f.Name.Name == "main" {
			return
		}
		n := 0
		if f.Doc != nil {
			n = strings.Count(f.Doc.Text(), "\n\n") + 1
		}
		paragraphs[dir] = max(paragraphs[dir], n)
	})
	for dir, n := range paragraphs {
		if n < 3 {
			t.Errorf("package %s: its doc has %d paragraphs, three are wanted (what it does, what it does not, lock order)", dir, n)
		}
	}
}
