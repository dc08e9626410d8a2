package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/virtualcluster-io/virtualcluster/controllers/preflight/watch"
	"github.com/virtualcluster-io/virtualcluster/controllers/virtualcluster"
	_ "github.com/virtualcluster-io/virtualcluster/syncer" // registers the metrics of its libraries
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// described returns the metrics of a registry: their labels by their names.
func described(t *testing.T, registry prometheus.Collector) map[string][]string {
	t.Helper()
	format := regexp.MustCompile(`^Desc\{fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}\}$`)
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		registry.Describe(descriptions)
	}()
	out := map[string][]string{}
	for d := range descriptions {
		match := format.FindStringSubmatch(d.String())
		if match == nil {
			t.Fatalf("a description of an unknown form: %s", d)
		}
		labels := []string{}
		for label := range strings.SplitSeq(match[2]+","+match[3], ",") {
			if name, _, _ := strings.Cut(label, "="); name != "" {
				labels = append(labels, name)
			}
		}
		slices.Sort(labels)
		out[match[1]] = labels
	}
	return out
}

// documented returns the metrics in the tables of docs/operations.md: their labels by their names.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	out := map[string][]string{}
	table := false
	for line := range strings.Lines(string(content)) {
		table = strings.HasPrefix(line, "| metric |") || table && strings.HasPrefix(line, "|")
		cells := strings.Split(line, "|")
		if !table || len(cells) < 4 {
			continue
		}
		name := quoted.FindStringSubmatch(cells[1])
		if name == nil {
			continue // the head of the table
		}
		labels := []string{}
		for _, label := range quoted.FindAllStringSubmatch(cells[2], -1) {
			labels = append(labels, label[1])
		}
		slices.Sort(labels)
		out[name[1]] = labels
	}
	return out
}

// Every metric is documented with its labels, and no other is.
func TestMetricsAreDocumented(t *testing.T) {
	registry := prometheus.NewRegistry()
	_, err := engine.New(t.Context(), engine.Options{
		Kinds: resources.All(resources.Options{}), Super: &rest.Config{Host: "https://127.0.0.1:1"}, Registerer: registry, PerTenant: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := virtualcluster.NewMetrics(registry, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.NewMetric(registry); err != nil {
		t.Fatal(err)
	}
	libraries, ok := ctrlmetrics.Registry.(prometheus.Collector)
	if !ok {
		t.Fatalf("the metrics of the libraries cannot be listed from %T", ctrlmetrics.Registry)
	}
	own, theirs, docs, inCode := described(t, registry), described(t, libraries), documented(t), named(t)
	for name, labels := range docs {
		registered := own[name]
		if registered == nil {
			registered = theirs[name]
		}
		if registered == nil && slices.Contains(inCode, name) {
			continue // vn-agent does not show what it registers
		}
		if registered == nil {
			t.Errorf("docs/operations.md has %s, which is not registered", name)
		} else if diff := cmp.Diff(registered, labels); diff != "" {
			t.Errorf("labels of %s: -registered +documented\n%s", name, diff)
		}
	}
	for _, name := range inCode {
		if docs[name] == nil {
			t.Errorf("docs/operations.md does not have %s", name)
		}
	}
	for name := range own {
		if docs[name] == nil {
			t.Errorf("docs/operations.md does not have %s", name)
		}
	}
}

// named returns the names of our metrics in the code of our programs, whoever registers them.
func named(t *testing.T) []string {
	t.Helper()
	metric := regexp.MustCompile(`^vc_[a-z]+_[a-z_]+$`)
	var names []string
	for _, folder := range []string{"cmd", "controllers", "internal", "syncer", "vn-agent"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if value, err := strconv.Unquote(literal.Value); err == nil && metric.MatchString(value) {
						names = append(names, value)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 10 {
		t.Fatalf("found only %v", names)
	}
	return names
}
