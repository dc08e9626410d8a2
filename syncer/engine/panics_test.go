package engine

import (
	"errors"
	"reflect"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/lru"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func TestSafely(t *testing.T) {
	if err := safely(func() error { return errStale }); !errors.Is(err, errStale) {
		t.Errorf("got %v", err)
	}
	err := safely(func() error { panic("boom") })
	if p, ok := asPanicked(err); !ok || p.value != "boom" || len(p.stack) == 0 {
		t.Errorf("got %v", err)
	}
}

// Every function of a kind that something of a tenant can break is contained, and those who are called by client-go leave a
// note for who decides.
func TestGuardedKindsDoNotPanic(t *testing.T) {
	e := &Engine{broken: lru.New(maxRemembered)}
	var err error
	if e.metrics, err = newMetrics(prometheus.NewRegistry(), e); err != nil {
		t.Fatal(err)
	}
	var of resource.Object = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid", ResourceVersion: "7"}}
	given := map[reflect.Type]reflect.Value{
		reflect.TypeFor[resource.Object]():    reflect.ValueOf(&of).Elem(),
		reflect.TypeFor[resource.View]():      reflect.ValueOf(resource.View{}),
		reflect.TypeFor[string]():             reflect.ValueOf("name"),
		reflect.TypeFor[resource.Facts]():     reflect.ValueOf(resource.Facts{}),
		reflect.TypeFor[*metav1.ObjectMeta](): reflect.ValueOf(&metav1.ObjectMeta{UID: "uid", ResourceVersion: "7"}),
	}
	kind := resource.Kind{Name: "pods"}
	fields := reflect.ValueOf(&kind).Elem()
	for i := range fields.NumField() {
		if f := fields.Field(i); f.Kind() == reflect.Func {
			f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value { panic("boom") }))
		}
	}
	kind = e.guarded(kind)
	for i := range fields.NumField() {
		f, name := fields.Field(i), fields.Type().Field(i).Name
		if f.Kind() != reflect.Func || f.Type().NumIn() == 0 || !given[f.Type().In(0)].IsValid() {
			continue // it is given nothing of a tenant's
		}
		t.Run(name, func(t *testing.T) {
			var in []reflect.Value
			for n := range f.Type().NumIn() {
				value := given[f.Type().In(n)]
				if !value.IsValid() {
					value = reflect.Zero(f.Type().In(n))
				}
				in = append(in, value)
			}
			before := testutil.ToFloat64(e.metrics.panics.WithLabelValues("pods"))
			out := f.Call(in)
			counted := testutil.ToFloat64(e.metrics.panics.WithLabelValues("pods")) > before
			var err error
			if len(out) > 0 {
				err, _ = out[len(out)-1].Interface().(error)
			}
			if _, returned := asPanicked(err); !counted && !returned {
				t.Error("a panic gets lost")
			}
		})
	}
	if e.brokenBefore(nil, of) == nil {
		t.Error("who decides does not learn of it")
	}
	fixed := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid", ResourceVersion: "8"}}
	if err := e.brokenBefore(fixed, nil); err != nil {
		t.Errorf("another version counts as broken: %v", err)
	}
}
