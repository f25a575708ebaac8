package archtest

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// cited finds `code` spans in a document.
var cited = regexp.MustCompile("`([^`\n]+)`")

// identifier is a span that claims to be Go: pkg.Name, pkg.Type.Member.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9]*\.[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*)?$`)

// place is a span that claims to be a file or directory of the tree.
var place = regexp.MustCompile(`^(abi|internal|platform|sentry|gofer|runsc|test|bench|docs)(/[A-Za-z0-9_.-]+)+/?$`)

// TestDocsCiteWhatExists looks up every identifier and path in docs/ and README.
func TestDocsCiteWhatExists(t *testing.T) {
	known := map[string]bool{} // "pkg.Name", "pkg.Type.Member"
	pkgs := map[string]bool{}
	sources(t, func(_, _ string, f *ast.File) {
		p := f.Name.Name
		pkgs[p] = true
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					known[p+"."+d.Name.Name] = true
				} else {
					known[p+"."+receiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for _, n := range s.Names {
							known[p+"."+n.Name] = true
						}
					case *ast.TypeSpec:
						known[p+"."+s.Name.Name] = true
						members(s.Type, func(m string) { known[p+"."+s.Name.Name+"."+m] = true })
					}
				}
			}
		}
	})
	docs, _ := filepath.Glob("../../docs/*.md")
	for _, doc := range append(docs, "../../README.md") {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range cited.FindAllStringSubmatch(string(b), -1) {
			span := m[1]
			pkg, _, _ := strings.Cut(span, ".")
			switch {
			case place.MatchString(span):
				if _, err := os.Stat(filepath.Join("../..", span)); err != nil {
					t.Errorf("%s cites %s, which does not exist", filepath.Base(doc), span)
				}
			case identifier.MatchString(span) && pkgs[pkg]:
				if !known[span] {
					t.Errorf("%s cites %s, which does not exist", filepath.Base(doc), span)
				}
			}
		}
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func members(e ast.Expr, add func(string)) {
	var list []*ast.Field
	switch e := e.(type) {
	case *ast.StructType:
		list = e.Fields.List
	case *ast.InterfaceType:
		list = e.Methods.List
	}
	for _, f := range list {
		for _, n := range f.Names {
			add(n.Name)
		}
	}
}
