package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

// everything returns all objects of a cluster, of all kinds that can be listed.
func everything(t testing.TB, a *local.Access) map[string]unstructured.Unstructured {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	objects, err := listEverything(ctx, a)
	if err != nil {
		t.Fatalf("listing everything in %s: %v", a.Name, err)
	}
	return objects
}

func listEverything(ctx context.Context, a *local.Access) (map[string]unstructured.Unstructured, error) {
	lists, err := a.Client.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("discovering: %w", err)
	}
	objects := map[string]unstructured.Unstructured{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("parsing %s: %w", list.GroupVersion, err)
		}
		for _, resource := range list.APIResources {
			if strings.Contains(resource.Name, "/") || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			found, err := a.Dynamic.Resource(gv.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				// Another test has just removed the kind.
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("listing %s: %w", resource.Name, err)
			}
			for _, item := range found.Items {
				key := fmt.Sprintf("%s.%s %s/%s", resource.Name, gv.Group, item.GetNamespace(), item.GetName())
				objects[key] = item
			}
		}
	}
	return objects, nil
}
