package syncer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// Whoever makes the same mistake again learns of it again.
func TestWhatIsRefusedAgainIsToldAgain(t *testing.T) {
	const ns = "told-again"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	if _, err := of.CoreV1().Services(ns).Create(t.Context(), worlds.Service(ns, "web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := func(spec string) {
		t.Helper()
		if _, err := of.CoreV1().Services(ns).Patch(t.Context(), "web", types.MergePatchType, []byte(spec), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"spec":{"externalIPs":["192.0.2.1"]}}`)
	first := waitForEvent(t, of, ns, "web", "ExternalIPs")
	patch(`{"metadata":{"labels":{"fixed":"true"}},"spec":{"externalIPs":null}}`)
	worlds.Eventually(t, limit, "the Service to be accepted", func(ctx context.Context) error {
		super := &corev1.Service{}
		err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: "web"}, super)
		if err == nil && super.Labels["fixed"] == "" {
			err = fmt.Errorf("labels are %v", super.Labels)
		}
		return err
	})
	worlds.Eventually(t, limit, "the next second: events have no finer times", func(context.Context) error {
		if time.Now().Unix() <= first.LastTimestamp.Unix() {
			return errors.New("it is the same")
		}
		return nil
	})
	patch(`{"spec":{"externalIPs":["192.0.2.1"]}}`)
	worlds.Eventually(t, limit, "the event to be repeated", func(ctx context.Context) error {
		now, err := of.CoreV1().Events(ns).Get(ctx, first.Name, metav1.GetOptions{})
		if err == nil && (now.Count < 2 || now.UID != first.UID || !now.FirstTimestamp.Equal(&first.FirstTimestamp)) {
			err = fmt.Errorf("count is %d since %s", now.Count, now.FirstTimestamp)
		}
		return err
	})
}

// A pod that cannot go down, because not even its namespace can, says so.
func TestPodsSayThatTheyWaitForTheirNamespace(t *testing.T) {
	const ns = "told-waiting"
	r := start(t)
	of := r.tenants[0]
	taken := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: of.super(ns)}}
	if err := r.client.Create(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.client.Delete(context.WithoutCancel(t.Context()), taken); err != nil {
			t.Error(err)
		}
	})
	of.world.MakeNamespace(t, ns)
	of.world.MakePod(t, worlds.Pod(ns, "web"))
	told := waitForEvent(t, of, ns, "web", "Waiting")
	if !strings.Contains(told.Message, `namespace "told-waiting"`) {
		t.Errorf("it says %s", told.Message)
	}
}

// An event of somebody else stays as it is, although it has the name of ours.
func TestEventsOfOthersStayAsTheyAre(t *testing.T) {
	const ns = "told-others"
	of := start(t).tenants[0]
	of.world.MakeNamespace(t, ns)
	c, err := cluster.NewClient(of.world.Config, limit)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pod := worlds.Pod(ns, "web")
	tell := func(uid types.UID, now time.Time) resource.Op {
		pod.UID = uid
		return resource.Tell(resource.View{Now: now}, pod, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, "Reason", "why")
	}
	read := func(op resource.Op) *corev1.Event {
		t.Helper()
		e, err := of.CoreV1().Events(ns).Get(t.Context(), op.Object.GetName(), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}

	at := time.Now()
	ours := tell("ours", at)
	for i, want := range []int32{1, 1, 2, 3} { // the second is the same once more, of which it is not known whether it was written
		if err := c.Do(t.Context(), ours); err != nil {
			t.Fatal(err)
		}
		if got := read(ours); got.Count != want {
			t.Errorf("it was told %d times, and counts %d", i+1, got.Count)
		}
		if i > 0 {
			at = at.Add(time.Minute)
			ours = tell("ours", at)
		}
	}

	theirs := tell("theirs", at)
	for name, event := range map[string]func(*corev1.Event){
		"ByAnother":          func(*corev1.Event) {},
		"AboutAnotherObject": func(e *corev1.Event) { e.InvolvedObject.UID = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			made, ok := theirs.Object.DeepCopyObject().(*corev1.Event)
			if !ok {
				t.Fatal("it became another type")
			}
			event(made)
			manager := "somebody"
			if name == "AboutAnotherObject" {
				manager = names.Syncer
			}
			if _, err := of.CoreV1().Events(ns).Create(t.Context(), made, metav1.CreateOptions{FieldManager: manager}); err != nil {
				t.Fatal(err)
			}
			before := read(theirs)
			if err := c.Do(t.Context(), tell("theirs", at.Add(time.Minute))); !apierrors.IsAlreadyExists(err) {
				t.Errorf("got %v", err)
			}
			if now := read(theirs); now.ResourceVersion != before.ResourceVersion {
				t.Errorf("it was changed to %+v", now)
			}
			if err := of.CoreV1().Events(ns).Delete(t.Context(), made.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A replica whose labels somebody takes away is still ours, and gets them back.
func TestReplicasGetTheirLabelsBack(t *testing.T) {
	const ns = "relabelled"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	if _, err := of.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := of.CoreV1().Services(ns).Create(t.Context(), worlds.Service(ns, "web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := worlds.Pod(ns, "web")
	pod.Spec.Volumes = []corev1.Volume{{Name: "db", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "db"}}}}
	super := r.runningPod(t, of, pod)
	replica := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: of.super(ns), Name: name} }

	for name, o := range map[string]client.Object{
		"Pod":       &corev1.Pod{ObjectMeta: replica("web")},
		"Secret":    &corev1.Secret{ObjectMeta: replica(names.SuperSecret("db"))},
		"Service":   &corev1.Service{ObjectMeta: replica("web")},
		"Namespace": &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: of.super(ns)}},
	} {
		for _, labels := range [][]string{{names.LabelManagedBy}, {names.LabelTenant}, {names.LabelManagedBy, names.LabelTenant}} {
			t.Run(name+"Without"+strings.Join(labels, "And"), func(t *testing.T) {
				r.losesLabels(t, of, o, labels)
			})
		}
	}

	if err := of.CoreV1().Pods(ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the replica to follow its origin", func(ctx context.Context) error {
		now := &corev1.Pod{}
		err := r.client.Get(ctx, client.ObjectKeyFromObject(super), now)
		if err == nil && now.DeletionTimestamp != nil {
			return nil
		}
		return gone(err)
	})
}

// losesLabels takes labels off a replica and waits for them to come back.
func (r *running) losesLabels(t *testing.T, of tenant, o client.Object, labels []string) {
	t.Helper()
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	uid, without := o.GetUID(), o.DeepCopyObject().(client.Object) //nolint:errcheck // a copy has the same type
	kept := without.GetLabels()
	for _, label := range labels {
		delete(kept, label)
	}
	without.SetLabels(kept)
	if err := r.client.Patch(t.Context(), without, client.MergeFrom(o)); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the labels to come back", func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		if o.GetUID() != uid || o.GetLabels()[names.LabelTenant] != string(of.id) || o.GetLabels()[names.LabelManagedBy] != names.Syncer {
			return fmt.Errorf("%s has labels %v", o.GetUID(), o.GetLabels())
		}
		return nil
	})
}

// Whoever looks after the syncer learns how an object is, why, and what happens next.
func TestTraces(t *testing.T) {
	const ns = "traced"
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(o *syncer.Options) { o.TraceAddress = address })
	of := r.tenants[0]
	r.namespace(t, of, ns)
	of.world.MakePod(t, worlds.Pod(ns, "good"))
	super := r.superPod(t, of, ns, "good")
	privileged := worlds.Pod(ns, "bad")
	privileged.Spec.HostNetwork = true
	of.world.MakePod(t, privileged)
	waiting := worlds.Pod(ns, "waiting")
	waiting.Spec.Volumes = []corev1.Volume{{Name: "a", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	of.world.MakePod(t, waiting)

	trace := func(ctx context.Context, kind, name string) (*engine.Trace, error) {
		query := url.Values{"tenant": {string(of.id)}, "kind": {kind}, "namespace": {ns}, "name": {name}}
		in, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+names.TracePath+"?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		out, err := http.DefaultClient.Do(in)
		if err != nil {
			return nil, err
		}
		defer out.Body.Close() //nolint:errcheck // it was read
		if out.StatusCode != http.StatusOK {
			return nil, errors.New(out.Status)
		}
		got := &engine.Trace{}
		return got, json.NewDecoder(out.Body).Decode(got)
	}
	for name, tc := range map[string]struct{ kind, outcome, replica, last string }{
		"good":    {"pods", engine.InStep, "of this origin", ""},
		"bad":     {"Pod", engine.Refuses, "there is none", "PodSecurity"},
		"waiting": {"pod", engine.Waiting, "there is none", `persistentvolumeclaim "data" not found`},
	} {
		worlds.Eventually(t, limit, "the trace of "+name, func(ctx context.Context) error {
			got, err := trace(ctx, tc.kind, name)
			if err != nil {
				return err
			}
			if got.Outcome != tc.outcome || got.Replica != tc.replica || !strings.Contains(got.Last, tc.last) || (got.Tries > 0) != (tc.last != "") || got.Tenant == nil {
				return fmt.Errorf("got %+v", got)
			}
			if name == "good" && (got.Super == nil || got.Super.UID != super.UID || got.Super.Namespace != of.super(ns)) {
				return fmt.Errorf("got %+v", got.Super)
			}
			return nil
		})
	}
	for _, kind := range []string{"otherpods", "things"} {
		if _, err := trace(t.Context(), kind, "good"); err == nil {
			t.Errorf("%s are traced", kind)
		}
	}
}
