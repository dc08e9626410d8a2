package resource_test

import (
	"encoding/json"
	"math"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// A patch of a custom resource is a JSON merge patch, where null removes a field and large numbers are whole.
func TestDiffOfCustomResources(t *testing.T) {
	const large = int64(1)<<60 + 1
	for name, tc := range map[string]struct {
		from, to map[string]any
		want     string // of the spec; empty when there is nothing to patch
	}{
		"Same":         {map[string]any{"a": int64(1)}, map[string]any{"a": int64(1)}, ""},
		"Changed":      {map[string]any{"a": int64(1), "b": "x"}, map[string]any{"a": int64(2), "b": "x"}, `{"a":2}`},
		"Removed":      {map[string]any{"a": int64(1)}, map[string]any{}, `{"a":null}`},
		"Nested":       {map[string]any{"m": map[string]any{"a": "1", "b": "2"}}, map[string]any{"m": map[string]any{"b": "3"}}, `{"m":{"a":null,"b":"3"}}`},
		"List":         {map[string]any{"l": []any{"a", "b"}}, map[string]any{"l": []any{"b"}}, `{"l":["b"]}`},
		"OtherType":    {map[string]any{"m": map[string]any{"a": "1"}}, map[string]any{"m": "x"}, `{"m":"x"}`},
		"MapForText":   {map[string]any{"m": "x"}, map[string]any{"m": map[string]any{"a": "1"}}, `{"m":{"a":"1"}}`},
		"Emptied":      {map[string]any{"m": map[string]any{"a": "1"}}, map[string]any{"m": map[string]any{}}, `{"m":{"a":null}}`},
		"EmptyAdded":   {map[string]any{}, map[string]any{"m": map[string]any{}}, `{"m":{}}`},
		"Large":        {map[string]any{"a": large}, map[string]any{"a": large + 1}, `{"a":1152921504606846978}`},
		"NullAdded":    {map[string]any{}, map[string]any{"a": nil}, ""},
		"NullForValue": {map[string]any{"a": "1"}, map[string]any{"a": nil}, `{"a":null}`},
		"NullRemoved":  {map[string]any{"a": nil}, map[string]any{}, `{"a":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			object := func(spec map[string]any) *unstructured.Unstructured {
				return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"uid": "u", "resourceVersion": "7"}, "spec": spec}}
			}
			got, err := resource.Diff(object(tc.from), object(tc.to), resource.SameObject)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				if got != nil {
					t.Errorf("got %s", got)
				}
				return
			}
			var body struct {
				Metadata map[string]any
				Spec     json.RawMessage
			}
			if err := json.Unmarshal(got, &body); err != nil || string(body.Spec) != tc.want || body.Metadata["uid"] != "u" {
				t.Errorf("got %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

// Integers that no floating-point number can hold stay what they are.
func TestDiffKeepsLargeIntegers(t *testing.T) {
	pod := func(seconds int64) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &seconds}}
	}
	got, err := resource.Diff(pod(30), pod(math.MaxInt64), resource.SameObject)
	if want := `{"metadata":{"uid":"u"},"spec":{"terminationGracePeriodSeconds":9223372036854775807}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}
