package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// An object is read again only when its spec may have changed.
func TestVetted(t *testing.T) {
	who := witness{"pods", resource.Key{Tenant: "a", Namespace: "ns", Name: "web"}}
	object := func(version string, generation int64) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid", ResourceVersion: version, Generation: generation}}
	}
	for name, tc := range map[string]struct {
		before, now *corev1.Pod
		want        bool
	}{
		"Same":              {before: object("7", 2), now: object("7", 2), want: true},
		"StatusChanged":     {before: object("7", 2), now: object("8", 2), want: true},
		"SpecChanged":       {before: object("7", 2), now: object("8", 3)},
		"WithoutGeneration": {before: object("7", 0), now: object("7", 0), want: true},
		"ChangedWithout":    {before: object("7", 0), now: object("8", 0)},
	} {
		t.Run(name, func(t *testing.T) {
			v, unknown := &vetted{}, []string{"spec.color"}
			v.note(who, tc.before, unknown)
			got, known := v.known(who, tc.now)
			if known != tc.want {
				t.Fatalf("known is %v, want %v", known, tc.want)
			}
			if diff := cmp.Diff(unknown, got); known && diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			successor := tc.now.DeepCopy()
			successor.UID = "another"
			if _, known := v.known(who, successor); known {
				t.Error("a successor counts as known")
			}
		})
	}
}

// What flows back and what is deleted goes on while a replica is neither made nor changed.
func TestShapes(t *testing.T) {
	for verb, want := range map[resource.Verb]bool{
		resource.Create: true, resource.Patch: true, resource.PatchResize: true, resource.PatchEphemeral: true,
		resource.PatchStatus: false, resource.Delete: false, resource.Mint: false,
	} {
		if got := shapes(resource.Op{Side: resource.Super, Verb: verb}); got != want {
			t.Errorf("%s in the super cluster: got %v, want %v", verb, got, want)
		}
		if shapes(resource.Op{Side: resource.Tenant, Verb: verb}) {
			t.Errorf("%s in the tenant makes a replica", verb)
		}
	}
}

// Labels and annotations are known to every version.
func TestWithoutShape(t *testing.T) {
	status := resource.Op{Side: resource.Tenant, Verb: resource.PatchStatus, Patch: []byte("status")}
	both := resource.Op{Side: resource.Super, Verb: resource.Patch, Patch: []byte("both"), MetadataPatch: []byte("labels")}
	spec := resource.Op{Side: resource.Super, Verb: resource.Patch, Patch: []byte("spec")}
	labels := both
	labels.Patch = both.MetadataPatch
	if diff := cmp.Diff([]resource.Op{status, labels}, withoutShape([]resource.Op{status, both, spec})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
