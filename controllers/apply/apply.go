// Package apply writes objects of the super cluster by server-side apply, and only when that would change something. It
// knows nothing about what the objects mean. The steps of vc-manager call it with complete desired objects.
package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Object makes the object of the given kind and name what is desired, in the fields that desired sets, and fills desired
// with what is there then. It writes nothing when the object has these values already and when nothing was taken out of
// desired since the last time. It reports whether it wrote.
func Object(ctx context.Context, c client.Client, desired client.Object) (bool, error) {
	want, err := toUnstructured(c.Scheme(), desired)
	if err != nil {
		return false, err
	}
	if err := stamp(want); err != nil {
		return false, err
	}
	describe := func() string {
		return fmt.Sprintf("%s %s", want.GetKind(), client.ObjectKeyFromObject(desired))
	}

	current, ok := reflect.New(reflect.TypeOf(desired).Elem()).Interface().(client.Object)
	if !ok {
		return false, fmt.Errorf("applying %s: %T is not an object", describe(), desired)
	}
	err = c.Get(ctx, client.ObjectKeyFromObject(desired), current)
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("reading %s: %w", describe(), err)
	}
	if err == nil && current.GetDeletionTimestamp() == nil {
		have, err := toUnstructured(c.Scheme(), current)
		if err != nil {
			return false, err
		}
		if contains(have.Object, want.Object) {
			return false, runtime.DefaultUnstructuredConverter.FromUnstructured(have.Object, desired)
		}
	}

	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), client.FieldOwner(names.Manager), client.ForceOwnership); err != nil {
		return false, fmt.Errorf("applying %s: %w", describe(), err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(want.Object, desired); err != nil {
		return true, fmt.Errorf("reading the answer to applying %s: %w", describe(), err)
	}
	return true, nil
}

// toUnstructured returns the object without what only the API server sets.
func toUnstructured(scheme *runtime.Scheme, obj client.Object) (*unstructured.Unstructured, error) {
	gvk, err := apiutil.GVKForObject(obj, scheme)
	if err != nil {
		return nil, fmt.Errorf("looking up the kind of %T: %w", obj, err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("converting %s %s: %w", gvk.Kind, obj.GetName(), err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(gvk)
	u.SetManagedFields(nil)
	unstructured.RemoveNestedField(u.Object, "status")
	return u, nil
}

// stamp adds a digest of the desired object to it, so that a field that is not desired any more is noticed.
func stamp(u *unstructured.Unstructured) error {
	data, err := json.Marshal(u.Object)
	if err != nil {
		return fmt.Errorf("encoding %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	sum := sha256.Sum256(data)
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[names.AnnotationDigest] = hex.EncodeToString(sum[:8])
	u.SetAnnotations(annotations)
	return nil
}

// contains says whether have has every field of want with the same value. Maps may have further fields; lists must have
// as many items.
func contains(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			// Empty structs disappear in the API server.
			return len(want) == 0
		}
		for key, value := range want {
			if !contains(have[key], value) {
				return false
			}
		}
		return true
	case []any:
		have, ok := have.([]any)
		if !ok || len(have) != len(want) {
			return len(want) == 0 && !ok
		}
		for i := range want {
			if !contains(have[i], want[i]) {
				return false
			}
		}
		return true
	case nil:
		return true
	default:
		return reflect.DeepEqual(have, want)
	}
}
