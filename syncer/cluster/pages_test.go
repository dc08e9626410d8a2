package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// pagesOf serves ConfigMaps in pages, each with so much text; of never ending ones when there are to be none in total. It
// answers a page that begins with expired as an API server does that has forgotten how the list was.
type pagesOf struct {
	total, bytes, expired int
}

func (p pagesOf) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	out.Header().Set("Content-Type", "application/json")
	query := in.URL.Query()
	from, _ := strconv.Atoi(query.Get("continue"))
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || query.Get("resourceVersion") != "" {
		http.Error(out, "not a page of a consistent list", http.StatusBadRequest)
		return
	}
	if p.expired > 0 && from >= p.expired {
		status := apierrors.NewResourceExpired("the list is too old").Status()
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		out.WriteHeader(http.StatusGone)
		_ = json.NewEncoder(out).Encode(&status)
		return
	}
	page := corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}, ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
	for i := from; i < from+limit && (p.total == 0 || i < p.total); i++ {
		page.Items = append(page.Items, corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Namespace: "x"}, Data: map[string]string{"a": strings.Repeat("x", p.bytes)},
		})
	}
	if p.total == 0 || from+limit < p.total {
		page.Continue = strconv.Itoa(from + limit)
	}
	_ = json.NewEncoder(out).Encode(&page)
}

func list(t *testing.T, server pagesOf, maxList int64) ([]string, error) {
	s := httptest.NewServer(server)
	defer s.Close()
	c, err := NewUntrusted(&rest.Config{Host: s.URL}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.maxList = maxList
	kind := resource.Of(resource.Resource[*corev1.ConfigMap]{
		Name: "configmaps", GVK: corev1.SchemeGroupVersion.WithKind("ConfigMap"), New: func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
	})
	from, err := c.source(kind)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	found, err := c.list(ctx, from, kind, metav1.ListOptions{ResourceVersion: "0"}, nil)
	if err != nil {
		return nil, err
	}
	accessor, err := apimeta.ListAccessor(found)
	if err != nil {
		t.Fatal(err)
	}
	if accessor.GetResourceVersion() != "7" || accessor.GetContinue() != "" {
		t.Errorf("the list has version %q and goes on at %q", accessor.GetResourceVersion(), accessor.GetContinue())
	}
	items, err := apimeta.ExtractList(found)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, item := range items {
		o, ok := item.(*corev1.ConfigMap)
		if !ok {
			t.Fatalf("the list has a %T", item)
		}
		names = append(names, o.Name)
	}
	return names, nil
}

// Lists of an API server that is not trusted are complete, whatever the size of their objects.
func TestListsInPagesAreComplete(t *testing.T) {
	cases := map[string]pagesOf{
		"Empty": {total: -1}, "OnePage": {total: 3}, "ManyPages": {total: 1234}, "LargeObjects": {total: 40, bytes: 1 << 20},
	}
	for name, server := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := list(t, server, maxList)
			if err != nil || len(got) != max(server.total, 0) {
				t.Fatalf("got %d objects: %v", len(got), err)
			}
			for i, name := range got {
				if name != fmt.Sprint(i) {
					t.Errorf("object %d is %s", i, name)
				}
			}
		})
	}
}

// What is not in a list counts as deleted. So a list that is not complete is an error.
func TestListsThatAreNotComplete(t *testing.T) {
	if got, err := list(t, pagesOf{}, 1<<20); !errors.Is(err, connection.ErrTooLarge) {
		t.Errorf("of an endless list, %d objects were read: %v", len(got), err)
	}
	if got, err := list(t, pagesOf{total: 1000, expired: 200}, maxList); !apierrors.IsResourceExpired(err) {
		t.Errorf("of a list that expired, %d objects were read: %v", len(got), err)
	}
	if got, err := list(t, pagesOf{total: 3, bytes: connection.DefaultMaxAnswer}, maxList); !errors.Is(err, connection.ErrTooLarge) {
		t.Errorf("of a list whose objects are too large, %d were read: %v", len(got), err)
	}
}
