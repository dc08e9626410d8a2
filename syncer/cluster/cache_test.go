package cluster_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// A kind that an API server does not serve has no objects, if that may be so. Otherwise nothing is known of it.
func TestKindsThatAreNotServed(t *testing.T) {
	for name, optional := range map[string]bool{"Optional": true, "Required": false} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 100)
			server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
				http.NotFound(out, in)
				asked <- struct{}{}
			}))
			defer server.Close()
			client, err := cluster.NewClient(&rest.Config{Host: server.URL}, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 100)
			cache, err := client.NewCache(cluster.CacheOptions{
				Kind: resource.Of(resource.Resource[*resourcev1.DeviceClass]{
					Name: "deviceclasses", GVK: resourcev1.SchemeGroupVersion.WithKind("DeviceClass"), Optional: optional,
					New: func() *resourcev1.DeviceClass { return &resourcev1.DeviceClass{} },
				}),
				Handler: cluster.Handler{Changed: func(_, _ resource.Object) {}, Gone: func(resource.Object, bool) {}},
				Failed:  func(err error) { failed <- err },
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() { cache.Run(ctx) })
			<-asked
			if optional {
				select {
				case <-cache.SyncDone():
				case <-time.After(10 * time.Second):
					t.Fatal("the cache is not filled")
				}
				if len(failed) > 0 {
					t.Errorf("it failed with %v", <-failed)
				}
				return
			}
			if err := <-failed; !cluster.NotServed(err) {
				t.Errorf("it failed with %v", err)
			}
			if cache.Synced() {
				t.Error("the cache is filled")
			}
		})
	}
}
