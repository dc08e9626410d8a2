package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// A control plane that is restored from a backup has lost its newest objects. Their replicas, and the data in them, stay until
// a person decides. One that deleted its objects itself is followed, however many they are.
func TestRestores(t *testing.T) {
	life := t // syncers outlive the subtest that starts them
	opts := options(2)
	opts.OwnEtcd = true
	all := worlds.Start(t, opts)
	if err := installRights(t.Context(), all.Super); err != nil {
		t.Fatal(err)
	}
	r := startIn(t, all)
	all.Tenants[1].MakeNamespace(t, "bystander")
	t.Run("WhileTheSyncerRuns", func(t *testing.T) { restoredUnderASyncer(t, life, r, r.tenants[0]) })
	t.Run("BetweenTwoSyncers", func(t *testing.T) { restoredBetweenSyncers(t, life, r, r.tenants[0]) })
	t.Run("TenantThatDeletedMuch", func(t *testing.T) { deletionsAreFollowed(t, life, r, r.tenants[0]) })
	t.Run("SuperCluster", func(t *testing.T) { superIsRestored(t, life, r, r.tenants[0]) })
}

// precious makes namespaces with a claim, a pod and a Service each, and returns when their replicas exist and are marked.
func (r *running) precious(t *testing.T, of tenant, namespaces ...string) {
	t.Helper()
	before := r.sync(t, of).Mark
	for _, name := range namespaces {
		of.world.MakeNamespace(t, name)
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}
		if _, err := of.CoreV1().PersistentVolumeClaims(name).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := worlds.Pod(name, "p")
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
		}}}
		of.world.MakePod(t, pod)
	}
	for _, name := range namespaces {
		r.superPod(t, of, name, "p")
		worlds.Eventually(t, limit, "the claim in "+name, func(ctx context.Context) error {
			return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(name), Name: "data"}, &corev1.PersistentVolumeClaim{})
		})
	}
	worlds.Eventually(t, limit, "a mark that is remembered", func(context.Context) error {
		if now := r.sync(t, of).Mark; now <= before {
			return fmt.Errorf("the last mark is %d, as before", now)
		}
		return nil
	})
}

// sync returns what is remembered of a tenant.
func (r *running) sync(t *testing.T, of tenant) tenancyv1alpha1.SyncStatus {
	t.Helper()
	vc := vcOf(of)
	if err := r.client.Get(t.Context(), of.vc, vc); err != nil {
		t.Fatal(err)
	}
	if vc.Status.Sync == nil {
		return tenancyv1alpha1.SyncStatus{}
	}
	return *vc.Status.Sync
}

// intact says whether the super namespaces, claims and pods of the given tenant namespaces are there, and stay.
func (r *running) intact(of tenant, namespaces ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range namespaces {
			for _, o := range []client.Object{
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: of.super(name)}},
				&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: of.super(name), Name: "data"}},
				&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: of.super(name), Name: "p"}},
			} {
				if err := r.client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
					return err
				}
				if o.GetDeletionTimestamp() != nil {
					return fmt.Errorf("%T %s/%s is being deleted", o, o.GetNamespace(), o.GetName())
				}
			}
		}
		return nil
	}
}

// awaitHeld waits until the deletion of a super namespace is listed.
func (r *running) awaitHeld(t *testing.T, of tenant, side, resource, name string) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("%s %s to be listed", resource, name), func(context.Context) error {
		sync := r.sync(t, of)
		for _, h := range sync.Held {
			if h.Side == side && h.Resource == resource && h.Name == name {
				return nil
			}
		}
		return fmt.Errorf("%d are held: %v", sync.HeldCount, sync.Held)
	})
}

// release decides for the control plane as it is.
func (r *running) release(t *testing.T, of tenant) {
	t.Helper()
	body := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, names.AnnotationReleaseBrake)
	if err := r.client.Patch(t.Context(), vcOf(of), client.RawPatch(types.MergePatchType, body)); err != nil {
		t.Fatal(err)
	}
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	worlds.Eventually(t, limit, "the annotation to be removed", func(ctx context.Context) error {
		vc := vcOf(of)
		if err := r.client.Get(ctx, of.vc, vc); err != nil {
			return err
		}
		if _, there := vc.Annotations[names.AnnotationReleaseBrake]; there {
			return errors.New("it is there")
		}
		return nil
	})
}

// awaitGone waits until super namespaces are deleted.
func (r *running) awaitGone(t *testing.T, of tenant, namespaces ...string) {
	t.Helper()
	for _, name := range namespaces {
		worlds.Eventually(t, limit, "the end of the super namespace of "+name, func(ctx context.Context) error {
			ns := &corev1.Namespace{}
			err := r.client.Get(ctx, client.ObjectKey{Name: of.super(name)}, ns)
			if err == nil && ns.DeletionTimestamp == nil {
				return errors.New("it is there")
			}
			return client.IgnoreNotFound(err)
		})
	}
}

// again runs the syncer anew, and does not wait for tenants that halt.
func (r *running) again(t *testing.T) {
	t.Helper()
	tenants := r.tenants
	r.tenants = nil
	r.run(t)
	r.tenants = tenants
}

func restoredUnderASyncer(t, life *testing.T, r *running, of tenant) {
	after := []string{"after-1", "after-2", "after-3"}
	r.precious(t, of, "before")
	backup, err := of.world.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	r.precious(t, of, after...)
	if err := of.world.Restore(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	r.awaitSyncing(t, of, "False, Rewound, with both numbers", func(c *metav1.Condition) bool {
		return c.Status == metav1.ConditionFalse && c.Reason == "Rewound" && strings.Contains(c.Message, "resource version is") && strings.Contains(c.Message, "was")
	})
	for _, name := range after {
		r.awaitHeld(t, of, "super", "namespaces", name)
	}
	if held := r.sync(t, of).Held; !slices.ContainsFunc(held, func(h tenancyv1alpha1.HeldDeletion) bool { return h.Resource == "persistentvolumeclaims" }) {
		t.Errorf("claims are not listed: %v", held)
	}
	worlds.Throughout(t, 5*time.Second, "everything", r.intact(of, append(after, "before")...))
	r.stop()
	r.again(life) // a new leader remembers
	r.waitFor(t, of, metav1.ConditionFalse, "Rewound")
	worlds.Throughout(t, 5*time.Second, "everything", r.intact(of, append(after, "before")...))

	r.release(t, of)
	r.awaitGone(t, of, after...)
	r.precious(t, of, "released") // nothing is deaf
	if err := r.intact(of, "before", "released")(t.Context()); err != nil {
		t.Error(err)
	}
}

// The resource version overtakes the one that was seen before the restored control plane is looked at: the mark tells.
func restoredBetweenSyncers(t, life *testing.T, r *running, of tenant) {
	backup, err := of.world.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	r.precious(t, of, "lost")
	r.stop()
	if err := of.world.Restore(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	seen := r.sync(t, of).Revision
	for i := 0; ; i++ { // the tenant works on
		cm, err := of.CoreV1().ConfigMaps("default").Create(t.Context(), worlds.ConfigMap("default", fmt.Sprintf("work-%d", i), nil), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if now, err := resourceVersion(cm); err != nil || now > seen+1000 {
			break
		}
	}
	r.again(life)
	r.awaitSyncing(t, of, "False, Rewound, with both marks", func(c *metav1.Condition) bool {
		return c.Reason == "Rewound" && strings.Contains(c.Message, "mark")
	})
	worlds.Throughout(t, 5*time.Second, "everything", r.intact(of, "lost"))
	r.release(t, of)
	r.awaitGone(t, of, "lost")
}

// Much more than the brake would let pass is deleted while no syncer runs, in namespaces that stay and in ones that go.
func deletionsAreFollowed(t, life *testing.T, r *running, of tenant) {
	r.precious(t, of, "goes")
	of.world.MakeNamespace(t, "stays")
	const many = 150
	for i := range many {
		if _, err := of.CoreV1().Services("stays").Create(t.Context(), worlds.Service("stays", fmt.Sprintf("s%d", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	services := func(want int) func(context.Context) error {
		return func(ctx context.Context) error {
			var list corev1.ServiceList
			err := r.client.List(ctx, &list, client.InNamespace(of.super("stays")))
			if err == nil && len(list.Items) != want {
				err = fmt.Errorf("%d services", len(list.Items))
			}
			return err
		}
	}
	worlds.Eventually(t, limit, "all services", services(many))
	r.stop()
	if err := of.CoreV1().Namespaces().Delete(t.Context(), "goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range many {
		if err := of.CoreV1().Services("stays").Delete(t.Context(), fmt.Sprintf("s%d", i), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.run(life)
	worlds.Eventually(t, limit, "no services", services(0))
	if sync := r.sync(t, of); sync.Halted != "" {
		t.Errorf("a tenant that deleted its objects itself is %s: %v", sync.Halted, sync.Held)
	}
}

// A super cluster that lost its newest objects must not empty the tenants.
func superIsRestored(t, life *testing.T, r *running, of tenant) {
	backup, err := r.worlds.Super.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	r.precious(t, of, "kept")
	pod := r.superPod(t, of, "kept", "p")
	r.kubelet(t, pod, "node-kept", "10.9.9.1")
	running := func(ctx context.Context) error {
		pod, err := of.CoreV1().Pods("kept").Get(ctx, "p", metav1.GetOptions{})
		if err == nil && (pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil) {
			err = fmt.Errorf("phase %s, deleted %v", pod.Status.Phase, pod.DeletionTimestamp)
		}
		return err
	}
	worlds.Eventually(t, limit, "the pod to run", running)
	r.stop()
	if err := r.worlds.Super.Restore(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	r.again(life)
	r.waitFor(t, of, metav1.ConditionFalse, "SuperChanged")
	r.awaitHeld(t, of, "tenant", "pods", "p")
	worlds.Throughout(t, 5*time.Second, "the pod of the tenant", running)
	r.release(t, of)
	worlds.Eventually(t, limit, "the replicas that were lost", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super("kept"), Name: "data"}, &corev1.PersistentVolumeClaim{})
	})
	worlds.Eventually(t, limit, "the end of the pod that does not exist on its node any more", func(ctx context.Context) error {
		_, err := of.CoreV1().Pods("kept").Get(ctx, "p", metav1.GetOptions{})
		return gone(err)
	})
}

func resourceVersion(o metav1.Object) (int64, error) {
	var version int64
	_, err := fmt.Sscan(o.GetResourceVersion(), &version)
	return version, err
}
