package custom

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func paths(t *testing.T, in ...string) *tree {
	t.Helper()
	out, err := parse(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// gateway is an object with maps, lists, and lists in lists.
func gateway() map[string]any {
	return map[string]any{
		"spec": map[string]any{
			"class": "a",
			"listeners": []any{
				map[string]any{"name": "x", "tls": map[string]any{"mode": "Terminate", "refs": []any{"one", "two"}}},
				map[string]any{"name": "y"},
			},
			"labels": map[string]any{"a.b/c": "1", "d": "2"},
		},
		"data": "text",
	}
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		ok   bool
	}{
		"Names":    {".spec.class", true},
		"Elements": {".spec.listeners[*].tls.refs[*]", true},
		"Quoted":   {".metadata.annotations['a.b/c']", true},
		"Dollar":   {".spec.$ref", true},
		"NoDot":    {"spec", false},
		"Index":    {".spec.listeners[0]", false},
		"Open":     {".spec['a", false},
		"Trailing": {".spec.", false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse([]string{tc.path}); (err == nil) != tc.ok {
				t.Errorf("parse(%q) = %v", tc.path, err)
			}
		})
	}
}

func TestFields(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		do     func(t *testing.T, object map[string]any)
		want   map[string]any
	}{
		"Without": {
			"fields go, also out of elements of lists",
			func(t *testing.T, o map[string]any) {
				without(o, paths(t, ".spec.class", ".spec.listeners[*].tls", ".spec.labels['a.b/c']", ".absent.field"))
			},
			map[string]any{
				"spec": map[string]any{
					"listeners": []any{map[string]any{"name": "x"}, map[string]any{"name": "y"}},
					"labels":    map[string]any{"d": "2"},
				},
				"data": "text",
			},
		},
		"Only": {
			"all else goes; elements of lists stay, so that they keep their places",
			func(t *testing.T, o map[string]any) { only(o, paths(t, ".spec.listeners[*].name", ".spec.labels[*]")) },
			map[string]any{"spec": map[string]any{
				"listeners": []any{map[string]any{"name": "x"}, map[string]any{"name": "y"}},
				"labels":    map[string]any{"a.b/c": "1", "d": "2"},
			}},
		},
		"Keep": {
			"what is named is as it was, whether it was there or not",
			func(t *testing.T, o map[string]any) {
				old := map[string]any{
					"spec": map[string]any{
						"class": "old", "listeners": []any{map[string]any{"name": "old", "tls": "old"}}, "extra": map[string]any{"a": "1", "b": "2"},
					},
				}
				keep(old, o, paths(t, ".spec.class", ".spec.listeners[*].tls", ".spec.extra.a", ".data"))
			},
			map[string]any{"spec": map[string]any{
				"class":     "old",
				"listeners": []any{map[string]any{"name": "x", "tls": "old"}, map[string]any{"name": "y"}},
				"labels":    map[string]any{"a.b/c": "1", "d": "2"},
				"extra":     map[string]any{"a": "1"},
			}},
		},
		"KeepOther": {
			"what is not named is as it was",
			func(t *testing.T, o map[string]any) {
				only(o, paths(t, ".spec.class"))
				keepOther(map[string]any{"spec": map[string]any{"class": "old", "other": "old"}, "data": "old"}, o, paths(t, ".spec.class"))
			},
			map[string]any{"spec": map[string]any{"class": "a", "other": "old"}, "data": "old"},
		},
		"Set": {
			"only what is there is copied",
			func(t *testing.T, o map[string]any) {
				only(o, paths(t, ".spec.class"))
				set(map[string]any{"spec": map[string]any{"address": map[string]any{"ip": "1.2.3.4"}}}, o, paths(t, ".spec.address.ip", ".spec.absent"))
			},
			map[string]any{"spec": map[string]any{"class": "a", "address": map[string]any{"ip": "1.2.3.4"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := gateway()
			tc.do(t, o)
			if diff := cmp.Diff(tc.want, o); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
}

func TestFirst(t *testing.T) {
	for path, want := range map[string]string{
		".spec.class":                     ".spec.class",
		".spec.listeners[*].tls.refs[*]":  ".spec.listeners[*].tls.refs",
		".spec.listeners[*].tls.absent":   "",
		".spec.labels['a.b/c']":           ".spec.labels.a.b/c",
		".data.below.text":                "",
		".spec.listeners[*].tls.mode":     ".spec.listeners[*].tls.mode",
		".spec.listeners[*].hostname":     "",
		".spec.listeners[*].tls.refs.one": "",
	} {
		if got, found := first(gateway(), paths(t, path)); got != want || found != (want != "") {
			t.Errorf("first(%s) = %q, %v; want %q", path, got, found, want)
		}
	}
}

func TestUnion(t *testing.T) {
	both := paths(t, ".spec.a", ".spec.list[*].x").union(paths(t, ".spec.b", ".spec.list[*].y", ".data"))
	o := map[string]any{
		"spec": map[string]any{"a": "1", "b": "1", "c": "1", "list": []any{map[string]any{"x": "1", "y": "1", "z": "1"}}},
		"data": "1",
	}
	without(o, both)
	want := map[string]any{"spec": map[string]any{"c": "1", "list": []any{map[string]any{"z": "1"}}}}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	without(o, paths(t, ".spec.c", ".spec.list").but("spec"))
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("but: -want +got\n%s", diff)
	}
}
