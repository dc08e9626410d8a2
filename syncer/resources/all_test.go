package resources_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/yaml"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// decidedElsewhere says why the fields of a kind have no decisions in fields.go.
func decidedElsewhere() map[string]string {
	return map[string]string{
		"pods":         "the table of package pods has them",
		"otherpods":    "they are only counted",
		"nodes":        "TestNodes has the whole virtual node",
		"namespaces":   "only the name goes down",
		"rolebindings": "the replica is the same for every namespace",
		"events":       "they are recorded, not copied",
	}
}

// What a new kind needs besides its translation, see CONTRIBUTING.md, is there for each kind. The case of its life is missed by
// TestEveryKindLives in test/worlds/syncer.
func TestEveryKindIsComplete(t *testing.T) {
	kinds, constructors := resources.All(resources.Options{}), listed(t)
	if len(kinds) != len(constructors) {
		t.Fatalf("All has %d kinds, but all.go has %v", len(kinds), constructors)
	}
	about, granted, tested, elsewhere, decided := resources.About(), rightsOfTheSyncer(t), testedConstructors(t), decidedElsewhere(), map[reflect.Type]bool{}
	for _, d := range resources.Decisions() {
		decided[d.Of] = true
	}
	for i, k := range kinds {
		t.Run(k.Name, func(t *testing.T) {
			if about[k.Name] == "" {
				t.Error("About in fields.go does not tell users what happens to it")
			}
			if _, exempt := elsewhere[k.Name]; exempt == anyDecided(reflect.TypeOf(k.New()).Elem(), decided, 2) {
				t.Error("fieldRules in fields.go needs a decision about each field of its type, or decidedElsewhere here a reason why it has none")
			}
			if !tested[constructors[i]] {
				t.Errorf("no table of translations: no test calls %s", constructors[i])
			}
			for _, verb := range verbs(k) {
				right := k.GVK.Group + "/" + plural(k) + ":" + verb
				if !granted[right] {
					t.Errorf("the syncer has no right %s: add a marker +kubebuilder:rbac to the file of the kind, and run make generate", right)
				}
			}
		})
		delete(about, k.Name)
	}
	for name := range about {
		t.Errorf("About in fields.go tells of %s, which All does not have", name)
	}
}

// anyDecided says whether there are decisions about a type, or about one that it is made of.
func anyDecided(of reflect.Type, decided map[reflect.Type]bool, depth int) bool {
	if decided[of] || of.Kind() != reflect.Struct || depth == 0 {
		return decided[of]
	}
	for field := range of.Fields() {
		if anyDecided(field.Type, decided, depth-1) {
			return true
		}
	}
	return false
}

// verbs are what the syncer does at least with objects of a kind in the super cluster.
func verbs(k resource.Kind) []string {
	read := []string{"get", "list", "watch"}
	if k.Origin == resource.Super || k.SuperOnly {
		return read
	}
	return append(read, "create", "patch", "delete")
}

func plural(k resource.Kind) string {
	guess, _ := apimeta.UnsafeGuessKindToResource(k.GVK)
	if k.Plural != "" {
		return k.Plural
	}
	return guess.Resource
}

// rightsOfTheSyncer returns its rights in the super cluster, as "group/resource:verb".
func rightsOfTheSyncer(t *testing.T) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", "vc-syncer", "role.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.Unmarshal(content, &role); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, of := range rule.Resources {
				for _, verb := range rule.Verbs {
					out[group+"/"+of+":"+verb] = true
				}
			}
		}
	}
	return out
}

// listed returns the functions that all.go makes the kinds with, in its order. Each function of this package that returns a
// kind is one of them.
func listed(t *testing.T) []string {
	t.Helper()
	var inList, declared []string
	for path, file := range parsed(t, func(name string) bool { return !strings.HasSuffix(name, "_test.go") }) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || f.Type.Results == nil {
				continue
			}
			if path == "all.go" {
				inList = append(inList, kindsIn(f)...)
			}
			if result, ok := f.Type.Results.List[0].Type.(*ast.SelectorExpr); ok && f.Name.IsExported() && result.Sel.Name == "Kind" {
				declared = append(declared, f.Name.Name)
			}
		}
	}
	for _, name := range declared {
		if !slices.Contains(inList, name) {
			t.Errorf("%s is in no list of all.go", name)
		}
	}
	return inList
}

// kindsIn returns the functions that a list of kinds calls.
func kindsIn(f *ast.FuncDecl) []string {
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		list, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		for _, element := range list.Elts {
			if call, ok := element.(*ast.CallExpr); ok {
				out = append(out, nameOf(call.Fun))
			}
		}
		return false
	})
	return out
}

// testedConstructors returns the functions that tests of this package call. The tests of pods are in package pods.
func testedConstructors(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{"pods.Kind": true}
	for _, file := range parsed(t, func(name string) bool { return strings.HasSuffix(name, "_test.go") }) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					out[strings.TrimPrefix(nameOf(call.Fun), "resources.")] = true
				}
				return true
			})
		}
	}
	return out
}

// nameOf returns the name of a function as a call of it is written.
func nameOf(f ast.Expr) string {
	switch f := f.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return nameOf(f.X) + "." + f.Sel.Name
	default:
		return ""
	}
}

// parsed returns the files of this package.
func parsed(t *testing.T, want func(name string) bool) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*ast.File{}
	for _, path := range paths {
		if !want(path) {
			continue
		}
		if out[path], err = parser.ParseFile(token.NewFileSet(), path, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 10 {
		t.Fatalf("found only %v", slices.Collect(maps.Keys(out)))
	}
	return out
}

// The operator can add to the labels of each kind that takes labels down, and the documentation has it.
func TestMetadataKindsAreComplete(t *testing.T) {
	for of, s := range specimens() {
		in := s.build()
		labels := map[string]string{"app": "web"}
		maps.Copy(labels, in.GetLabels())
		in.SetLabels(labels)
		if s.kind.Origin == resource.Super {
			continue
		}
		ops, err := decide(t, s.kind, s.world, in.GetNamespace(), in.GetName(), in, nil)
		if created[resource.Object](t, ops, err).GetLabels()["app"] != "" && !slices.Contains(resource.MetadataKinds(), s.kind.Name) {
			t.Errorf("labels of %s (%s) go down, but resource.MetadataKinds does not have it", s.kind.Name, of)
		}
	}
}
