package resources_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestEvents(t *testing.T) {
	superNamespace := names.SuperNamespace(tenantID, "shop")
	event := func(edit ...func(*corev1.Event)) *corev1.Event {
		e := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: superNamespace, Name: "web.1"},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: superNamespace, Name: "web", UID: "super"},
			Reason:         "Failed", Message: "mount of " + superNamespace + "/web failed", Count: 3,
			LastTimestamp: metav1.NewTime(now().Add(-time.Second)),
		}
		for _, f := range edit {
			f(e)
		}
		return e
	}
	w := world{
		tenant: []resource.Object{&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u"},
			Spec:       corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}},
		}},
		super: []resource.Object{&corev1.Pod{ObjectMeta: replicaMeta("shop", "web", "u")}},
	}
	minuteOld := func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(now().Add(-time.Minute)) }
	for name, tc := range map[string]struct {
		in   *corev1.Event
		want string
	}{
		"AboutAPod": {event(), "mount of shop/web failed"},
		"NamesASecret": {event(func(e *corev1.Event) {
			e.Message = "Unable to retrieve some image pull secrets (" + names.SuperSecret("registry") + ", " + names.SuperSecret("other") + ")"
		}), "Unable to retrieve some image pull secrets (registry, " + names.SuperSecret("other") + ")"},
		"AboutOtherKind": {event(func(e *corev1.Event) { e.InvolvedObject.Kind = "ConfigMap" }), ""},
		"AboutOlderPod":  {event(minuteOld, func(e *corev1.Event) { e.InvolvedObject.UID = "older" }), ""},
		"AboutNobody":    {event(minuteOld, func(e *corev1.Event) { e.InvolvedObject.Name = "gone" }), ""},
		"Old":            {event(func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(now().Add(-time.Hour)) }), ""},
		"Series": {event(func(e *corev1.Event) {
			e.LastTimestamp = metav1.Time{}
			e.Series = &corev1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(now())}
		}), "mount of shop/web failed"},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Events(), w, "shop", "web.1", nil, tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				if len(ops) > 0 {
					t.Errorf("got %s, want nothing", encode(t, ops))
				}
				return
			}
			if len(ops) != 1 || ops[0].Verb != resource.Record || ops[0].Side != resource.Tenant {
				t.Fatalf("got %s", encode(t, ops))
			}
			got, ok := ops[0].Object.(*corev1.Event)
			if !ok || got.Message != tc.want || got.Namespace != "shop" || got.InvolvedObject.Namespace != "shop" || got.InvolvedObject.UID != "u" || got.Count != 3 {
				t.Errorf("got %s", encode(t, ops))
			}
		})
	}
}

// An event and the pod it is about come by different watches: the event may be first.
func TestEventsWaitForWhatTheyAreAbout(t *testing.T) {
	pod := resource.Object(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u"}})
	older := replicaMeta("shop", "web", "u")
	older.UID = "older"
	for name, w := range map[string]world{
		"NoPodInTenant": {super: []resource.Object{&corev1.Pod{ObjectMeta: replicaMeta("shop", "web", "u")}}},
		"NoPodInSuper":  {tenant: []resource.Object{pod}},
		"OlderPod":      {tenant: []resource.Object{pod}, super: []resource.Object{&corev1.Pod{ObjectMeta: older}}},
	} {
		t.Run(name, func(t *testing.T) {
			in := &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: names.SuperNamespace(tenantID, "shop"), Name: "web.1"},
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "web", UID: "super"},
				LastTimestamp:  metav1.NewTime(now()),
			}
			ops, err := decide(t, resources.Events(), w, "shop", "web.1", nil, in)
			if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
				t.Errorf("got %s and error %v, want to wait", encode(t, ops), err)
			}
		})
	}
}

func TestEventsOfANamespaceThatIsBeingDeletedAreNotRecorded(t *testing.T) {
	deleted := metav1.NewTime(now())
	w := world{
		tenant: []resource.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", DeletionTimestamp: &deleted}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u"}},
		},
		super: []resource.Object{&corev1.Pod{ObjectMeta: replicaMeta("shop", "web", "u")}},
	}
	in := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: names.SuperNamespace(tenantID, "shop"), Name: "web.1"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "web", UID: "super"},
		LastTimestamp:  metav1.NewTime(now()),
	}
	ops, err := decide(t, resources.Events(), w, "shop", "web.1", nil, in)
	if err != nil || len(ops) > 0 {
		t.Errorf("got %s and error %v, want nothing", encode(t, ops), err)
	}
}
