package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// An update queues what the object has begun or ceased to refer to. What it refers to as before is queued only where every
// change of its users matters.
func TestUpdatesQueueWhatTheyReferToOnce(t *testing.T) {
	kind := func(name string, usersMatter bool) resource.Kind {
		return resource.Of(resource.Resource[*corev1.Pod]{
			Name: name, ReferrerUpdatesMatter: usersMatter,
			New: func() *corev1.Pod { return &corev1.Pod{} },
			References: func(p *corev1.Pod) []resource.Ref {
				var out []resource.Ref
				for _, v := range p.Spec.Volumes {
					out = append(out, resource.Ref{Kind: "secrets", Name: v.Name}, resource.Ref{Kind: "resourceclaims", Name: v.Name})
				}
				return out
			},
		})
	}
	pod := func(uid types.UID, phase corev1.PodPhase, volumes ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: uid}, Status: corev1.PodStatus{Phase: phase}}
		for _, v := range volumes {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: v})
		}
		return p
	}
	for name, tc := range map[string]struct {
		old, now *corev1.Pod
		want     []string
	}{
		"New":       {now: pod("1", "", "a"), want: []string{"resourceclaims a", "secrets a"}},
		"Status":    {old: pod("1", "", "a"), now: pod("1", corev1.PodRunning, "a"), want: []string{"resourceclaims a"}},
		"Reference": {old: pod("1", "", "a"), now: pod("1", "", "b"), want: []string{"resourceclaims a", "resourceclaims b", "secrets a", "secrets b"}},
		"Successor": {old: pod("1", "", "a"), now: pod("2", "", "a"), want: []string{"resourceclaims a", "secrets a"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, roster := &Engine{now: time.Now}, map[string]*kindState{}
			for of, usersMatter := range map[string]bool{"pods": false, "secrets": false, "resourceclaims": true} {
				roster[of] = &kindState{Kind: kind(of, usersMatter)}
			}
			e.roster.Store(&roster)
			var old resource.Object
			if tc.old != nil {
				old = tc.old
			}
			p := &pool{queue: newQueue()}
			defer p.queue.ShutDown()
			e.pools.Store(names.TenantID(""), p)
			e.enqueueReferred(&tenants.Tenant{}, roster["pods"], old, tc.now)
			var got []string
			for p.queue.Len() > 0 {
				i, _ := p.queue.Get()
				got = append(got, i.kind+" "+i.key.Name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A version that differs in nothing that is cached is no news.
func TestUnchangedObject(t *testing.T) {
	node := func(edit func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "1", ResourceVersion: "7"}}
		if edit != nil {
			edit(n)
		}
		return n
	}
	for name, tc := range map[string]struct {
		old, now resource.Object
		want     bool
	}{
		"New":       {now: node(nil)},
		"Gone":      {old: node(nil)},
		"Version":   {old: node(nil), now: node(func(n *corev1.Node) { n.ResourceVersion = "8" }), want: true},
		"Status":    {old: node(nil), now: node(func(n *corev1.Node) { n.Status.Phase = corev1.NodeRunning })},
		"Successor": {old: node(nil), now: node(func(n *corev1.Node) { n.UID = "2" })},
	} {
		if got := unchangedObject(tc.old, tc.now); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// What waits for a namespace that vc-manager made ahead goes on when the tenant's takes it over.
func TestCameOrWent(t *testing.T) {
	namespace := func(uid string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{names.AnnotationUID: uid}}}
	}
	labelled := namespace("u")
	labelled.Labels = map[string]string{"a": "b"}
	for name, tc := range map[string]struct {
		old, now resource.Object
		want     bool
	}{
		"New":       {nil, namespace("u"), true},
		"Gone":      {namespace("u"), nil, true},
		"TakenOver": {namespace(names.UIDAhead), namespace("u"), true},
		"Changed":   {namespace("u"), labelled, false},
	} {
		if got := cameOrWent(tc.old, tc.now); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
