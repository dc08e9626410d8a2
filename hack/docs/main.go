// Command docs writes docs/compatibility.md from the code: the kinds that the syncer knows and what it does with every
// field of a pod. `make generate` runs it; it is no part of VirtualCluster itself.
package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

//go:embed compatibility.md.tmpl
var page string

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("give the file to write")
	}
	t, err := template.New("compatibility").Parse(page)
	if err != nil {
		return fmt.Errorf("reading the template: %w", err)
	}
	spec, status := fields()
	var out bytes.Buffer
	if err := t.Execute(&out, map[string]any{"Kinds": kinds(), "Metadata": metadata(), "Spec": spec, "Status": status, "Others": others()}); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return os.WriteFile(args[0], out.Bytes(), 0o644)
}

// kind is a row of the table of kinds.
type kind struct{ Name, Way, SwitchedOff, About string }

func kinds() []kind {
	about, off := resources.About(), map[string]string{}
	for _, k := range resources.Switchable() {
		off[k.Name] = "yes"
	}
	var rows []kind
	for _, k := range resources.All(resources.Options{}) {
		way := "down"
		switch {
		case k.Origin == resource.Super:
			way = "up"
		case k.SuperOnly:
			way = "made in the super cluster"
		}
		rows = append(rows, kind{Name: k.Name, Way: way, SwitchedOff: cmp.Or(off[k.Name], "no"), About: about[k.Name]})
	}
	slices.SortFunc(rows, func(a, b kind) int { return cmp.Or(cmp.Compare(a.Way, b.Way), cmp.Compare(a.Name, b.Name)) })
	return rows
}

// keys are the labels and annotations of a kind that pass.
type keys struct{ Kind, Labels, Annotations, Why string }

func metadata() []keys {
	const group = "GROUP"
	var rows []keys
	for _, kind := range append(resource.MetadataKinds(), "x."+group) {
		m := resource.BuiltInMetadata(kind)
		labels := quoted(m.Labels)
		if m.Plain {
			labels = append([]string{"plain"}, labels...)
		}
		if strings.HasSuffix(kind, group) {
			kind, m.Why = "custom resources of the API group `"+group+"`", m.Why+"; annotations of the group are for its operator"
		}
		rows = append(rows, keys{Kind: kind, Labels: list(labels), Annotations: list(quoted(m.Annotations)), Why: m.Why})
	}
	return rows
}

func quoted(in []string) []string {
	var out []string
	for _, key := range in {
		out = append(out, "`"+key+"`")
	}
	return out
}

func list(in []string) string {
	if len(in) == 0 {
		return "none"
	}
	return strings.Join(in, ", ")
}

// section is what is decided about one type.
type section struct {
	Type string
	Rows []row
}

// row is a decision about some fields.
type row struct{ Fields, Action, Why string }

// others returns the decisions about all types but those of pods.
func others() []section {
	var all []section
	for _, d := range resources.Decisions() {
		name := fieldName(d.Of, d.Field)
		if f, _ := d.Of.FieldByName(d.Field); strings.HasPrefix(name, "[") { // it has no section of its own
			name = "those of `" + f.Type.Name() + "`"
		}
		all = appendRow(all, d.Of.Name(), row{Fields: name, Action: string(d.Action), Why: d.Why})
	}
	return all
}

// appendRow adds a row to the section of its type, or its field to the last row when that says the same.
func appendRow(all []section, of string, r row) []section {
	if len(all) == 0 || all[len(all)-1].Type != of {
		all = append(all, section{Type: of})
	}
	s := &all[len(all)-1]
	if last := len(s.Rows) - 1; last >= 0 && s.Rows[last].Action == r.Action && s.Rows[last].Why == r.Why {
		s.Rows[last].Fields += ", " + r.Fields
		return all
	}
	s.Rows = append(s.Rows, r)
	return all
}

// fields returns the decisions about specs and those about statuses, as users write the fields.
func fields() (spec, status []section) {
	types := map[string]reflect.Type{}
	collect(reflect.TypeFor[corev1.Pod](), types)
	var all []section
	for _, d := range pods.Decisions() {
		all = appendRow(all, d.Type, row{Fields: fieldName(types[d.Type], d.Field), Action: string(d.Action), Why: d.Why})
	}
	first := slices.IndexFunc(all, func(s section) bool { return s.Type == reflect.TypeFor[corev1.PodStatus]().Name() })
	return all[:first], all[first:]
}

// collect finds the types that a type is made of, by name.
func collect(t reflect.Type, into map[string]reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		collect(t.Elem(), into)
	case reflect.Struct:
		if into[t.Name()] != nil || t.PkgPath() != reflect.TypeFor[corev1.Pod]().PkgPath() {
			return
		}
		into[t.Name()] = t
		for field := range t.Fields() {
			collect(field.Type, into)
		}
	default:
	}
}

// fieldName returns the name of a field in manifests; of an embedded type, whose fields are written in its place, a link.
func fieldName(t reflect.Type, field string) string {
	f, ok := t.FieldByName(field)
	if !ok {
		return "`" + field + "`"
	}
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" && f.Type == reflect.TypeFor[metav1.TypeMeta]() {
		return "`apiVersion`, `kind`"
	}
	if name == "" {
		return "[" + field + "](#" + strings.ToLower(field) + ")"
	}
	return "`" + name + "`"
}
