package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	chart      = "../../charts/virtualcluster"
	operations = "../../docs/operations.md"
	runbook    = "https://github.com/virtualcluster-io/virtualcluster/blob/main/docs/operations.md#"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// metric is what docs/operations.md says of a metric. A test of the main module compares that page with what is registered.
type metric struct {
	histogram bool
	labels    map[string]bool
}

func metrics(t *testing.T) map[string]metric {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*)\\| (histogram)?")
	label := regexp.MustCompile("`([a-z_]+)`")
	out := map[string]metric{}
	for _, match := range row.FindAllStringSubmatch(string(read(t, operations)), -1) {
		m := metric{histogram: match[3] != "", labels: map[string]bool{}}
		for _, l := range label.FindAllStringSubmatch(match[2], -1) {
			m.labels[l[1]] = true
		}
		out[match[1]] = m
	}
	if len(out) < 20 {
		t.Fatalf("%s has only the metrics %v", operations, out)
	}
	return out
}

// scraped are the labels that scraping adds.
var scraped = map[string]bool{"job": true, "instance": true, "pod": true, "namespace": true}

// check parses an expression and fails where it names a metric that does not exist, or a label that the metric does not have.
func check(t *testing.T, known map[string]metric, expression string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(strings.ReplaceAll(expression, "$__rate_interval", "5m"))
	if err != nil {
		t.Errorf("%s: %v", expression, err)
		return
	}
	labels := map[string]bool{"le": true}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, bucket := known[selector.Name], ""
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if name, cut := strings.CutSuffix(selector.Name, suffix); cut && known[name].histogram {
				m, bucket = known[name], suffix
			}
		}
		if m.labels == nil {
			t.Errorf("%s: there is no metric %s", expression, selector.Name)
		}
		if m.histogram && bucket == "" {
			t.Errorf("%s: %s is a histogram", expression, selector.Name)
		}
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != model.MetricNameLabel && !m.labels[matcher.Name] && !scraped[matcher.Name] {
				t.Errorf("%s: %s has no label %s", expression, selector.Name, matcher.Name)
			}
		}
		for l := range m.labels {
			labels[l] = true
		}
		return nil
	})
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if aggregation, ok := node.(*parser.AggregateExpr); ok {
			for _, l := range aggregation.Grouping {
				if !labels[l] {
					t.Errorf("%s: groups by %s, which no metric in it has", expression, l)
				}
			}
		}
		return nil
	})
}

// Prometheus accepts the alert rules, what they ask for exists, and each leads to a section that says what to do.
func TestAlertRules(t *testing.T) {
	prometheus := parser.NewParser(parser.Options{})
	groups, errs := rulefmt.Parse(read(t, filepath.Join(chart, "alerts.yaml")), false, model.UTF8Validation, prometheus, slog.Default())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	known, page := metrics(t), string(read(t, operations))
	alerts := 0
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			alerts++
			check(t, known, rule.Expr)
			if rule.For == 0 || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%s lacks a duration, a severity or a summary", rule.Alert)
			}
			if rule.Annotations["runbook_url"] != runbook+strings.ToLower(rule.Alert) {
				t.Errorf("the runbook of %s is %q", rule.Alert, rule.Annotations["runbook_url"])
			}
			if !strings.Contains(page, "\n### "+rule.Alert+"\n") {
				t.Errorf("%s has no section %s", operations, rule.Alert)
			}
		}
	}
	if alerts == 0 {
		t.Error("there are no alerts")
	}
}

// The dashboards of the chart are those that Grafana's builders make.
func TestDashboardsAreCurrent(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(chart, "dashboards", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(want) {
		t.Errorf("the chart has %v", files)
	}
	for name, content := range want {
		if !bytes.Equal(content, read(t, filepath.Join(chart, "dashboards", name))) {
			t.Errorf("%s is not current: run make generate", name)
		}
	}
}

// Grafana's own types accept the dashboards, field by field, and what their panels ask for exists.
func TestDashboards(t *testing.T) {
	plugins.RegisterDefaultPlugins() // the types of panels and queries
	known := metrics(t)
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		t.Run(name, func(t *testing.T) {
			var d dashboard.Dashboard    //nolint:staticcheck // see builder
			var mistakes cog.BuildErrors // where there are none, the decoder returns an empty list of them
			if err := d.UnmarshalJSONStrict(content); err != nil && (!errors.As(err, &mistakes) || len(mistakes) > 0) {
				t.Fatal(err)
			}
			if err := d.Validate(); err != nil {
				t.Error(err)
			}
			asked := 0
			for _, expression := range expressions(t, content) {
				asked++
				check(t, known, expression)
			}
			if asked == 0 {
				t.Error("it asks for nothing")
			}
		})
	}
}

// expressions returns every expression in a dashboard.
func expressions(t *testing.T, content []byte) []string {
	t.Helper()
	var tree any
	if err := json.Unmarshal(content, &tree); err != nil {
		t.Fatal(err)
	}
	var found []string
	var visit func(any)
	visit = func(node any) {
		switch n := node.(type) {
		case map[string]any:
			for key, value := range n {
				if s, ok := value.(string); ok && key == "expr" {
					found = append(found, s)
				}
				visit(value)
			}
		case []any:
			for _, value := range n {
				visit(value)
			}
		}
	}
	visit(tree)
	return found
}

// The tests above find mistakes.
func TestWrongExpressionsAreFound(t *testing.T) {
	known := metrics(t)
	for _, expression := range []string{
		"sum(", "vc_syncer_no_such_metric", `vc_syncer_tenants{nope="x"}`, "sum by (nope) (vc_syncer_tenants)",
		"vc_syncer_op_duration_seconds", "vc_syncer_tenants_bucket",
	} {
		inner := &testing.T{}
		check(inner, known, expression)
		if !inner.Failed() {
			t.Errorf("%s was accepted", expression)
		}
	}
}
