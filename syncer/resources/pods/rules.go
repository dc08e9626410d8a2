package pods

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"
)

// Action is what happens to a field of a tenant's pod on the way down, and of a super pod's status on the way up.
type Action string

// The actions.
const (
	// Pass copies the field; the fields of a struct in it are decided by themselves.
	Pass Action = "pass"
	// Map translates the field.
	Map Action = "map"
	// Set puts a value of ours there.
	Set Action = "set"
	// Drop leaves the field empty.
	Drop Action = "drop"
	// Privilege copies the field of tenants whose Pod Security level is privileged, and is Refuse for all others.
	Privilege Action = "privilege"
	// Refuse tells the tenant that a pod with the field cannot run here.
	Refuse Action = "refuse"
)

// rule is a decision about some fields of one type.
type rule struct {
	action Action
	why    string
	fields []string
}

// rules are the decisions about all fields of one type. Fields that are mapped or set are up to finish, which runs
// after the rest was copied. A field without a rule is not copied.
type rules struct {
	of     reflect.Type
	rules  []rule
	finish func(t *translation, dst, src any) error
}

// decided starts the rules of a type.
func decided[T any](r ...rule) rules {
	return rules{of: reflect.TypeFor[T](), rules: r}
}

// decidedBy is decided for a type with fields to be mapped or set.
func decidedBy[T any](finish func(t *translation, dst, src *T) error, r ...rule) rules {
	out := decided[T](r...)
	out.finish = func(t *translation, dst, src any) error {
		d, ok := dst.(*T)
		s, ok2 := src.(*T)
		if !ok || !ok2 {
			return fmt.Errorf("translating %T: expected %T", src, new(T))
		}
		return finish(t, d, s)
	}
	return out
}

func pass(why string, fields ...string) rule      { return rule{Pass, why, fields} }
func mapped(why string, fields ...string) rule    { return rule{Map, why, fields} }
func set(why string, fields ...string) rule       { return rule{Set, why, fields} }
func drop(why string, fields ...string) rule      { return rule{Drop, why, fields} }
func privilege(why string, fields ...string) rule { return rule{Privilege, why, fields} }
func refused(why string, fields ...string) rule   { return rule{Refuse, why, fields} }

// Decision is what happens to one field, and why.
type Decision struct {
	Type, Field string
	Action      Action
	Why         string
}

// Decisions lists the decision about every field of every type a pod is made of.
func Decisions() []Decision {
	var out []Decision
	for _, r := range table() {
		for _, rule := range r.rules {
			for _, field := range rule.fields {
				out = append(out, Decision{Type: r.of.Name(), Field: field, Action: rule.action, Why: rule.why})
			}
		}
	}
	return out
}

// refusal is the error of a field that is refused, with the path to it.
type refusal struct {
	path, why string
}

func (r *refusal) Error() string { return r.path + ": " + r.why }

// within puts the path of the enclosing field before that of a refused one.
func within(path string, err error) error {
	var r *refusal
	if path == "" || !errors.As(err, &r) {
		return err
	}
	if r.path != "" && r.path[0] != '[' {
		path += "."
	}
	return &refusal{path: path + r.path, why: r.why}
}

// copyFunc copies one value of a known type into an empty one.
type copyFunc func(t *translation, dst, src reflect.Value) error

// copiers are the rules, made fast.
type copiers map[reflect.Type]copyFunc

// compile turns the table into functions, for every type in it and every type of a field in it.
func compile(table []rules) copiers {
	byType := make(map[reflect.Type]rules, len(table))
	for _, r := range table {
		byType[r.of] = r
	}
	c := copiers{}
	for _, r := range table {
		c.add(byType, r.of)
		for field := range r.of.Fields() {
			c.add(byType, field.Type)
		}
	}
	return c
}

// add returns the function for a type, making it if necessary.
func (c copiers) add(byType map[reflect.Type]rules, of reflect.Type) copyFunc {
	if f, ok := c[of]; ok {
		return f
	}
	f := c.build(byType, of)
	c[of] = f
	return f
}

func (c copiers) build(byType map[reflect.Type]rules, of reflect.Type) copyFunc {
	if r, ok := byType[of]; ok {
		return c.structure(byType, r)
	}
	switch of.Kind() {
	case reflect.Pointer:
		return pointer(of, c.add(byType, of.Elem()))
	case reflect.Slice:
		return slice(of, c.add(byType, of.Elem()))
	case reflect.Map:
		return dictionary(of, c.add(byType, of.Elem()))
	case reflect.Struct:
		return opaque
	default:
		return func(_ *translation, dst, src reflect.Value) error {
			dst.Set(src)
			return nil
		}
	}
}

// structure copies the fields of a struct as its rules say.
func (c copiers) structure(byType map[reflect.Type]rules, r rules) copyFunc {
	type fieldCopy struct {
		index  int
		path   string
		refuse string
		copy   copyFunc
	}
	var fields []fieldCopy
	for _, rule := range r.rules {
		for _, name := range rule.fields {
			field, ok := r.of.FieldByName(name)
			if !ok || len(field.Index) != 1 {
				continue // the test of the table names it
			}
			path, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch rule.action {
			case Pass:
				fields = append(fields, fieldCopy{index: field.Index[0], path: path, copy: c.add(byType, field.Type)})
			case Privilege:
				fields = append(fields, fieldCopy{index: field.Index[0], path: path, copy: c.add(byType, field.Type), refuse: rule.why})
			case Refuse:
				fields = append(fields, fieldCopy{index: field.Index[0], path: path, refuse: rule.why})
			case Map, Set, Drop:
			}
		}
	}
	return func(t *translation, dst, src reflect.Value) error {
		for _, f := range fields {
			from := src.Field(f.index)
			if f.copy == nil || f.refuse != "" && t.view.Tenant.PodSecurity != psa.LevelPrivileged {
				if !t.lenient && !empty(from) {
					return &refusal{path: f.path, why: f.refuse}
				}
				continue
			}
			if err := f.copy(t, dst.Field(f.index), from); err != nil {
				return within(f.path, err)
			}
		}
		if r.finish == nil {
			return nil
		}
		return r.finish(t, dst.Addr().Interface(), src.Addr().Interface())
	}
}

func pointer(of reflect.Type, elem copyFunc) copyFunc {
	return func(t *translation, dst, src reflect.Value) error {
		if src.IsNil() {
			return nil
		}
		dst.Set(reflect.New(of.Elem()))
		return elem(t, dst.Elem(), src.Elem())
	}
}

func slice(of reflect.Type, elem copyFunc) copyFunc {
	return func(t *translation, dst, src reflect.Value) error {
		if src.IsNil() {
			return nil
		}
		n := src.Len()
		dst.Set(reflect.MakeSlice(of, n, n))
		for i := range n {
			if err := elem(t, dst.Index(i), src.Index(i)); err != nil {
				return within(fmt.Sprintf("[%d]", i), err)
			}
		}
		return nil
	}
}

func dictionary(of reflect.Type, elem copyFunc) copyFunc {
	return func(t *translation, dst, src reflect.Value) error {
		if src.IsNil() {
			return nil
		}
		dst.Set(reflect.MakeMapWithSize(of, src.Len()))
		for entry := src.MapRange(); entry.Next(); {
			value := reflect.New(of.Elem()).Elem()
			from := reflect.New(of.Elem()).Elem() // addressable, unlike a value in a map
			from.Set(entry.Value())
			if err := elem(t, value, from); err != nil {
				return within("["+entry.Key().String()+"]", err)
			}
			dst.SetMapIndex(entry.Key(), value)
		}
		return nil
	}
}

// opaque copies structs that are no concern of the table; of unknown ones, nothing.
func opaque(_ *translation, dst, src reflect.Value) error {
	switch from := src.Addr().Interface().(type) {
	case *resource.Quantity:
		dst.Set(reflect.ValueOf(from.DeepCopy()))
	case *metav1.LabelSelector:
		dst.Set(reflect.ValueOf(*from.DeepCopy()))
	default:
		if plain(src.Type()) {
			dst.Set(src)
		}
	}
	return nil
}

// plain says that assigning a struct of the type copies it: numbers, strings, and times, which never change.
func plain(of reflect.Type) bool {
	if of == reflect.TypeFor[metav1.Time]() {
		return true
	}
	for field := range of.Fields() {
		switch field.Type.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Struct, reflect.Chan, reflect.Func, reflect.UnsafePointer:
			return false
		default:
		}
	}
	return true
}

// empty says whether a field asks for nothing: it is zero, or points to a zero bool, number or string.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil() || v.Elem().Kind() != reflect.Struct && v.Elem().IsZero()
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}
