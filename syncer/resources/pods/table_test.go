package pods

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// A new version of Kubernetes brings new fields. Each needs a decision before it can be said what a tenant's pod may do.
func TestEveryFieldOfAPodIsDecided(t *testing.T) {
	decided := map[reflect.Type]map[string]Action{}
	for _, r := range table() {
		if decided[r.of] != nil {
			t.Errorf("%s has two entries", r.of.Name())
		}
		decided[r.of] = map[string]Action{}
		finishes := false
		for _, rule := range r.rules {
			if rule.why == "" || strings.Contains(rule.why, "\n") {
				t.Errorf("%s.%v: a decision needs a reason of one line, not %q", r.of.Name(), rule.fields, rule.why)
			}
			for _, name := range rule.fields {
				if field, ok := r.of.FieldByName(name); !ok || len(field.Index) != 1 {
					t.Errorf("%s.%s does not exist", r.of.Name(), name)
				}
				if _, twice := decided[r.of][name]; twice {
					t.Errorf("%s.%s is decided twice", r.of.Name(), name)
				}
				decided[r.of][name] = rule.action
				finishes = finishes || rule.action == Set
			}
		}
		if finishes && r.finish == nil {
			t.Errorf("%s has a field to be set and nothing that sets it", r.of.Name())
		}
	}
	seen := map[reflect.Type]bool{}
	var walk func(of reflect.Type)
	walk = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(of.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[of] || of.PkgPath() != reflect.TypeFor[corev1.Pod]().PkgPath() {
			return
		}
		seen[of] = true
		if decided[of] == nil {
			t.Errorf("%s is part of a pod and has no decisions", of.Name())
			return
		}
		for field := range of.Fields() {
			action, ok := decided[of][field.Name]
			if !ok {
				t.Errorf("%s.%s has no decision", of.Name(), field.Name)
			}
			if action == Pass || action == Map || action == Privilege {
				walk(field.Type)
			}
		}
	}
	walk(reflect.TypeFor[corev1.PodSpec]())
	walk(reflect.TypeFor[corev1.PodStatus]())
	for of := range decided {
		if !seen[of] {
			t.Errorf("%s has decisions and is no part of a pod", of.Name())
		}
	}
}

// The table is not only documentation: each of its words is what happens.
func TestEveryDecisionIsCarriedOut(t *testing.T) {
	copiers := compile(table())
	for _, r := range table() {
		for _, rule := range r.rules {
			for _, name := range rule.fields {
				t.Run(r.of.Name()+"."+name, func(t *testing.T) {
					src, dst := reflect.New(r.of), reflect.New(r.of)
					field := src.Elem().FieldByName(name)
					fill(field, 4)
					bare := r
					bare.finish = nil // what code does with a field has tests of its own
					alone := compile(append([]rules{bare}, without(r.of)...))
					run := func(level psa.Level) error {
						facts := resource.Facts{PodSecurity: level}
						return alone[r.of](&translation{copiers: copiers, view: resource.View{Tenant: facts}}, dst.Elem(), src.Elem())
					}
					err := run(psa.LevelBaseline)
					got := dst.Elem().FieldByName(name)
					action := rule.action
					if action == Privilege {
						if err == nil {
							t.Errorf("a pod with it was let through at the level baseline")
						}
						err, action = run(psa.LevelPrivileged), Pass
					}
					switch action {
					case Refuse:
						if err == nil {
							t.Errorf("a pod with it was let through")
						}
					case Pass:
						if err != nil {
							t.Fatal(err)
						}
						if got.IsZero() {
							t.Errorf("it was not passed")
						}
						if shares(got, field) {
							t.Errorf("the copy shares memory with the original")
						}
					default:
						if !got.IsZero() {
							t.Errorf("it was copied: %v", got)
						}
					}
				})
			}
		}
	}
}

// without returns the table with plain copies of what code would finish, and nothing refused, for the fields of other
// types.
func without(of reflect.Type) []rules {
	var out []rules
	for _, r := range table() {
		if r.of == of {
			continue
		}
		bare := rules{of: r.of}
		for _, rule := range r.rules {
			if rule.action == Pass {
				bare.rules = append(bare.rules, rule)
			}
		}
		out = append(out, bare)
	}
	return out
}

// fill gives a value and everything in it, to a depth, something that is not zero.
func fill(v reflect.Value, depth int) {
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth)
		fill(value, depth)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[metav1.Time]() {
			v.Set(reflect.ValueOf(metav1.Unix(1, 0)))
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() && v.Type().PkgPath() != reflect.TypeFor[metav1.Time]().PkgPath() {
				fill(v.Field(i), depth-1)
			}
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	default:
	}
}

// shares says whether two values have a pointer, slice or map in common.
func shares(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		return !a.IsNil() && !b.IsNil() && (a.Pointer() == b.Pointer() || shares(a.Elem(), b.Elem()))
	case reflect.Slice:
		if a.Len() == 0 || b.Len() == 0 {
			return false
		}
		return a.Pointer() == b.Pointer() || shares(a.Index(0), b.Index(0))
	case reflect.Map:
		return a.Len() > 0 && a.Pointer() == b.Pointer()
	case reflect.Struct:
		if a.Type().PkgPath() != reflect.TypeFor[corev1.Pod]().PkgPath() {
			return false
		}
		for i := range a.NumField() {
			if shares(a.Field(i), b.Field(i)) {
				return true
			}
		}
	default:
	}
	return false
}

func TestDecisionsNameEveryFieldOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Decisions() {
		key := fmt.Sprintf("%s.%s", d.Type, d.Field)
		if seen[key] {
			t.Errorf("%s is listed twice", key)
		}
		seen[key] = true
	}
	for _, want := range []string{"PodSpec.HostNetwork", "Container.Image", "PodStatus.Phase"} {
		if !seen[want] {
			t.Errorf("%s is not listed", want)
		}
	}
}
