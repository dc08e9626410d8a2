package custom

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// tree is a set of paths to fields. The tree of a path's last step is an end.
type tree struct {
	names map[string]*tree
	each  *tree // every element of a list or map
	end   bool
}

// parse adds paths, such as .spec.listeners[*].tls, to a tree; it is nil when there are none.
func parse[P ~string](paths []P) (*tree, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	root := &tree{}
	step := regexp.MustCompile(`^(?:\.([A-Za-z_$][-A-Za-z0-9_$]*)|\['([^']+)'\]|(\[\*\]))`)
	for _, path := range paths {
		at, rest := root, string(path)
		for rest != "" {
			m := step.FindStringSubmatch(rest)
			if m == nil {
				return nil, fmt.Errorf("%q is not a path to a field: cannot read %q", path, rest)
			}
			rest = rest[len(m[0]):]
			at = at.grow(m[1]+m[2], m[3] != "")
		}
		at.end = true
	}
	return root, nil
}

func (t *tree) grow(name string, each bool) *tree {
	if each {
		if t.each == nil {
			t.each = &tree{}
		}
		return t.each
	}
	if t.names == nil {
		t.names = map[string]*tree{}
	}
	if t.names[name] == nil {
		t.names[name] = &tree{}
	}
	return t.names[name]
}

// below returns what the tree says about the elements of a field; nil when nothing.
func (t *tree) below(name string) *tree {
	if t == nil {
		return nil
	}
	named := t.names[name]
	switch {
	case named == nil:
		return t.each
	case t.each == nil:
		return named
	default:
		return named.union(t.each)
	}
}

func (t *tree) union(other *tree) *tree {
	if t == nil || other == nil {
		if t == nil {
			return other
		}
		return t
	}
	out := &tree{names: maps.Clone(t.names), each: t.each.union(other.each), end: t.end || other.end}
	if out.names == nil {
		out.names = map[string]*tree{}
	}
	for name, sub := range other.names {
		out.names[name] = out.names[name].union(sub)
	}
	return out
}

// but returns the tree without some of its first names.
func (t *tree) but(names ...string) *tree {
	if t == nil {
		return nil
	}
	out := &tree{names: maps.Clone(t.names), each: t.each}
	maps.DeleteFunc(out.names, func(name string, _ *tree) bool { return slices.Contains(names, name) })
	return out
}

// ends says whether a path of the tree ends here.
func (t *tree) ends() bool { return t != nil && t.end }

// without removes the fields that the tree leads to, in place.
func without(value any, t *tree) {
	if t == nil {
		return
	}
	eachField(value, func(name string, element any, _ func(any), remove func()) {
		below := t.below(name)
		if below.ends() && remove != nil {
			remove()
			return
		}
		without(element, below)
	})
}

// only removes all but the fields that the tree leads to, in place.
func only(value any, t *tree) {
	eachField(value, func(name string, element any, _ func(any), remove func()) {
		below := t.below(name)
		switch {
		case below.ends():
		case below == nil && remove != nil:
			remove()
		default:
			only(element, below)
		}
	})
}

// first returns the first field that the tree leads to; false if there is none.
func first(value any, t *tree) (string, bool) {
	found := ""
	eachField(value, func(name string, element any, _ func(any), _ func()) {
		below := t.below(name)
		if found != "" || below == nil {
			return
		}
		path := "." + name
		if name == "" {
			path = "[*]"
		}
		if below.end {
			found = path
		} else if rest, ok := first(element, below); ok {
			found = path + rest
		}
	})
	return strings.TrimSuffix(found, "[*]"), found != ""
}

// keep copies the fields that the tree leads to from one object into another, in place, and removes those that the first
// does not have. Elements of lists are those of the same index.
func keep(from, into any, t *tree) {
	if t == nil {
		return
	}
	switch into := into.(type) {
	case map[string]any:
		from, _ := from.(map[string]any)
		all := map[string]bool{}
		for name := range into {
			all[name] = true
		}
		for name := range from {
			all[name] = true
		}
		for name := range all {
			keepField(from, into, name, t.below(name))
		}
	case []any:
		from, _ := from.([]any)
		for i := range into {
			if i < len(from) {
				keep(from[i], into[i], t.below(""))
			}
		}
	}
}

func keepField(from, into map[string]any, name string, t *tree) {
	if t == nil {
		return
	}
	old, had := from[name]
	now, has := into[name]
	switch {
	case t.end && had:
		into[name] = copyOf(old)
	case t.end:
		delete(into, name)
	case has:
		keep(old, now, t)
	case had:
		// The way there does not exist any more; what is to be kept at its end keeps it alive.
		kept := map[string]any{}
		if keep(old, kept, t); len(kept) > 0 {
			into[name] = kept
		}
	}
}

// keepOther copies the fields that the tree does not lead to from one object into another, in place.
func keepOther(from, into any, t *tree) {
	switch into := into.(type) {
	case map[string]any:
		from, _ := from.(map[string]any)
		for name, old := range from {
			below := t.below(name)
			now, has := into[name]
			switch {
			case below == nil:
				into[name] = copyOf(old)
			case !below.end && has:
				keepOther(old, now, below)
			}
		}
	case []any:
		from, _ := from.([]any)
		for i := range min(len(from), len(into)) {
			keepOther(from[i], into[i], t.below(""))
		}
	}
}

// visit calls f for everything that the tree leads to, with a function that replaces it.
func visit(value any, t *tree, f func(element any, set func(any))) {
	if t == nil {
		return
	}
	eachField(value, func(name string, element any, set func(any), _ func()) {
		below := t.below(name)
		if below.ends() {
			f(element, set)
			return
		}
		visit(element, below, f)
	})
}

// eachField calls f for every field of a map, in the order of names, and every element of a list, whose name is empty. An
// element of a list cannot be removed.
func eachField(value any, f func(name string, element any, set func(any), remove func())) {
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			f(name, value[name], func(v any) { value[name] = v }, func() { delete(value, name) })
		}
	case []any:
		for i := range value {
			f("", value[i], func(v any) { value[i] = v }, nil)
		}
	}
}

// set copies the fields that the tree leads to from one object into another, in place, where the first has them. Paths go
// through maps only.
func set(from, into map[string]any, t *tree) {
	for name, value := range from {
		below := t.below(name)
		switch {
		case below == nil:
		case below.end:
			into[name] = copyOf(value)
		default:
			inner, ok := value.(map[string]any)
			if !ok {
				continue
			}
			target, ok := into[name].(map[string]any)
			if !ok {
				target = map[string]any{}
			}
			if set(inner, target, below); len(target) > 0 {
				into[name] = target
			}
		}
	}
}

func copyOf(value any) any { return runtime.DeepCopyJSONValue(value) }
