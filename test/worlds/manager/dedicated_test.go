package manager_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// superControllers are what a super cluster needs besides nodes.
func superControllers() []string {
	return append(worlds.DefaultControllers(), "service-cidr-controller", "persistentvolumeclaim-protection-controller")
}

func TestInvalidVirtualClustersAreRefused(t *testing.T) {
	t.Parallel()
	f := startManager(t, worlds.Start(t, worlds.Options{}).Super)
	external := func(spec *tenancyv1alpha1.VirtualClusterSpec) {
		spec.ControlPlane.Type, spec.ServiceCIDR = tenancyv1alpha1.External, "10.112.0.0/22"
	}
	long := strings.Repeat("a", 64)
	cases := map[string]struct {
		name   string
		change func(*tenancyv1alpha1.VirtualClusterSpec)
		then   func(*tenancyv1alpha1.VirtualClusterSpec)
		want   string
	}{
		"NameTooLong":           {name: long, want: "at most 63 characters"},
		"ExternalWithoutSecret": {change: external, want: "needs controlPlane.external.kubeconfigSecret"},
		"ExternalWithoutRange": {change: func(s *tenancyv1alpha1.VirtualClusterSpec) {
			s.ControlPlane.Type, s.ControlPlane.External = tenancyv1alpha1.External, secretReference("x")
		}, want: "controlPlane.type External needs serviceCidr"},
		"SecretWithoutExternal": {change: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ControlPlane.External = secretReference("x") }, want: "only read when controlPlane.type is External"},
		"NotARange":             {change: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ServiceCIDR = "ten" }, want: "must be a range in CIDR notation"},
		"SecondNotARange":       {change: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ServiceCIDR = "10.112.0.0/22," }, want: "or two separated by a comma"},
		"TwoReplicas":           {change: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ControlPlane.Replicas = 2 }, want: "Unsupported value: 2"},
		"RangeChanged":          {then: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ServiceCIDR = "10.0.0.0/22" }, want: "serviceCidr cannot be changed"},
		"DomainChanged":         {then: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ClusterDomain = "example.org" }, want: "clusterDomain cannot be changed"},
		"ReplicasChanged":       {then: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ControlPlane.Replicas = 3 }, want: "controlPlane.replicas cannot be changed"},
		"TypeChanged": {then: func(s *tenancyv1alpha1.VirtualClusterSpec) {
			external(s)
			s.ControlPlane.External = secretReference("x")
		}, want: "controlPlane.type cannot be changed"},
		"EmptyIsValid": {},
		"ExposureMayChange": {then: func(s *tenancyv1alpha1.VirtualClusterSpec) {
			s.ControlPlane.Exposure.Type = tenancyv1alpha1.ExposeClusterIP
		}},
		"LongestNameIsPossible":  {name: long[:63]},
		"DotsInNameArePossible":  {name: "a.b"},
		"ClusterVersionIsUnseen": {change: func(s *tenancyv1alpha1.VirtualClusterSpec) { s.ClusterVersionName = "missing" }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenants, Name: strings.ToLower(name)}}
			if tc.name != "" {
				vc.Name = tc.name
			}
			if tc.change != nil {
				tc.change(&vc.Spec)
			}
			err := f.Create(t.Context(), vc)
			if err == nil && tc.then != nil {
				base := vc.DeepCopy()
				tc.then(&vc.Spec)
				err = f.Patch(t.Context(), vc, client.MergeFrom(base))
			}
			if tc.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEmptyObjectIsAVirtualCluster(t *testing.T) {
	t.Parallel()
	f := startManager(t, worlds.Start(t, worlds.Options{}).Super)
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(tenancyv1alpha1.GroupVersion().WithKind("VirtualCluster"))
	object.SetNamespace(tenants)
	object.SetName("empty")
	f.create(object)
	got := &tenancyv1alpha1.VirtualCluster{}
	if err := f.Get(t.Context(), client.ObjectKeyFromObject(object), got); err != nil {
		t.Fatalf("Get: %v", err)
	}
	want := tenancyv1alpha1.VirtualClusterSpec{
		ClusterDomain: "cluster.local", PKIExpireDays: 365,
		ControlPlane: tenancyv1alpha1.ControlPlaneSpec{Type: tenancyv1alpha1.Dedicated, Replicas: 1, Exposure: tenancyv1alpha1.ExposureSpec{Type: tenancyv1alpha1.ExposeNodePort}},
	}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestMissingVersionIsSaidAndRecoveredFrom(t *testing.T) {
	t.Parallel()
	f := startManager(t, worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super)

	noDefault := f.virtualCluster("no-default", tenancyv1alpha1.VirtualClusterSpec{})
	f.awaitStalled(noDefault, tenancyv1alpha1.ConditionVersionResolved, "NoDefaultClusterVersion", "annotate one with tenancy.x-k8s.io/is-default-version=true")
	missing := f.virtualCluster("missing", tenancyv1alpha1.VirtualClusterSpec{ClusterVersionName: "v9"})
	f.awaitStalled(missing, tenancyv1alpha1.ConditionVersionResolved, "ClusterVersionMissing", `ClusterVersion "v9" does not exist; create it`)
	f.quiet(missing)

	// Another version does not help one that names its own.
	f.version("v1", "true")
	f.awaitCondition(noDefault, tenancyv1alpha1.ConditionVersionResolved, metav1.ConditionTrue, "Succeeded", "v1")
	f.awaitStalled(missing, tenancyv1alpha1.ConditionVersionResolved, "ClusterVersionMissing", "")
	f.version("v9", "false")
	f.awaitCondition(missing, tenancyv1alpha1.ConditionVersionResolved, metav1.ConditionTrue, "Succeeded", "v9")

	// Another default is for new VirtualClusters.
	f.version("v2", "true")
	f.quiet(noDefault)
	newer := f.virtualCluster("newer", tenancyv1alpha1.VirtualClusterSpec{})
	f.eventually(newer, "a version", func(vc *tenancyv1alpha1.VirtualCluster) error {
		if vc.Status.ClusterVersionName == "" {
			return fmt.Errorf("it has none")
		}
		return nil
	})
	// What never got further is removed at once.
	f.delete(newer)
	f.awaitGone(newer)
}

func TestControlPlaneIsMadeAndRemoved(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super)
	f.version("v1", "true")
	vc := f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{})
	vc = f.awaitCondition(vc, tenancyv1alpha1.ConditionServiceCIDRAllocated, metav1.ConditionTrue, "Succeeded", "")
	root := vc.Status.ClusterNamespace
	if want := string(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID)); root != want {
		t.Errorf("the root namespace is %s, want %s", root, want)
	}
	// There is no node to be reached by, but the control plane is made.
	f.awaitCondition(vc, tenancyv1alpha1.ConditionKubeconfigReady, metav1.ConditionFalse, "NoNodeReady", "no node of the super cluster is ready")
	f.awaitCondition(vc, tenancyv1alpha1.ConditionPKIReady, metav1.ConditionTrue, "Succeeded", "")

	// Nothing waits for a kube-apiserver that could only wait for etcd.
	etcd := f.awaitPod(root, "etcd-0")
	f.awaitCondition(vc, tenancyv1alpha1.ConditionEtcdReady, metav1.ConditionFalse, "Starting", "0 of 1 replicas")
	f.create(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	})
	f.awaitCondition(vc, tenancyv1alpha1.ConditionKubeconfigReady, metav1.ConditionTrue, "Succeeded", names.AdminKubeconfigSecret)
	f.bind(etcd, "node-1")
	f.awaitPod(root, "kube-apiserver-0")
	f.awaitPod(root, "kube-controller-manager-0")

	t.Run("TheSyncersConditionStays", func(t *testing.T) {
		syncing := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{map[string]any{
			"type": tenancyv1alpha1.ConditionSyncing, "status": "True", "reason": "Synced", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
		}}}}}
		syncing.SetGroupVersionKind(tenancyv1alpha1.GroupVersion().WithKind("VirtualCluster"))
		syncing.SetNamespace(tenants)
		syncing.SetName("a")
		if err := f.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(syncing), client.FieldOwner(names.Syncer)); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		f.breakImage(etcd)
		stalled := f.awaitStalled(vc, tenancyv1alpha1.ConditionEtcdReady, "ImagePullFailed", "registry.k8s.io/etcd:3.6.8-0 of etcd-0 cannot be pulled")
		if !apimeta.IsStatusConditionTrue(stalled.Status.Conditions, tenancyv1alpha1.ConditionSyncing) {
			t.Errorf("the condition of the syncer is gone: %s", describe(stalled))
		}
		f.quiet(vc)
	})

	t.Run("WhatSomebodyChangedIsPutRight", func(t *testing.T) {
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: root, Name: names.APIServer}}
		if err := f.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
			t.Fatalf("Get: %v", err)
		}
		base := set.DeepCopy()
		set.Spec.Template.Spec.Containers[0].Image = "example.org/evil"
		if err := f.Patch(t.Context(), set, client.MergeFrom(base)); err != nil {
			t.Fatalf("Patch: %v", err)
		}
		worlds.Eventually(t, patience, "the image to be put right", func(ctx context.Context) error {
			if err := f.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil {
				return err
			}
			if got := set.Spec.Template.Spec.Containers[0].Image; got != base.Spec.Template.Spec.Containers[0].Image {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
	})

	t.Run("ServicesStayOutOfTenantsRanges", func(t *testing.T) {
		super := super.ServiceRanges.Primary()
		for _, name := range []string{names.APIServerService, "etcd-client"} {
			service := &corev1.Service{}
			if err := f.Get(t.Context(), client.ObjectKey{Namespace: root, Name: name}, service); err != nil {
				t.Fatalf("Get: %v", err)
			}
			if ip := netip.MustParseAddr(service.Spec.ClusterIP); !super.Contains(ip) {
				t.Errorf("Service %s has %s, which is not in the super cluster's own range %s", name, ip, super)
			}
		}
	})

	t.Run("LostKeysAreNotReplaced", func(t *testing.T) {
		// The control plane has been reached before.
		pin := []byte(`{"status":{"controlPlaneUID":"somebody"}}`)
		if err := f.Status().Patch(t.Context(), vc.DeepCopy(), client.RawPatch(types.MergePatchType, pin)); err != nil {
			t.Fatalf("Patch: %v", err)
		}
		f.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: root, Name: "service-account-key"}})
		f.awaitStalled(vc, tenancyv1alpha1.ConditionPKIReady, "KeyLost", "restore it from a backup")
	})

	t.Run("DeletionLeavesNothing", func(*testing.T) {
		f.delete(vc)
		f.finishPods(root)
		f.awaitGone(vc)
		f.nothingLeft(root)
	})
}

func TestRangesAreGivenOnce(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super, func(o *controllers.Options) { o.ServiceCIDRPool, o.ServiceCIDRSize = "10.112.0.0/20", "22" })
	f.version("v1", "true")
	// One of the four ranges of the pool, in part, belongs to somebody else.
	foreign := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.112.4.0/24"}}}
	f.create(foreign)

	overlap := f.virtualCluster("overlap", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: "10.112.4.0/22"})
	f.awaitStalled(overlap, tenancyv1alpha1.ConditionServiceCIDRAllocated, "ServiceCIDROverlap", "overlaps 10.112.4.0/24 of ServiceCIDR foreign")
	invalid := f.virtualCluster("invalid", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: "10.120.0.1/22"})
	f.awaitStalled(invalid, tenancyv1alpha1.ConditionServiceCIDRAllocated, "ServiceCIDRInvalid", "did you mean 10.120.0.0/22")

	var vcs []*tenancyv1alpha1.VirtualCluster
	for i := range 5 {
		vcs = append(vcs, f.virtualCluster(fmt.Sprintf("tenant-%d", i), tenancyv1alpha1.VirtualClusterSpec{}))
	}
	winners, losers := f.settled(vcs)
	if len(winners) != 3 || len(losers) != 2 {
		t.Fatalf("%d have a range and %d do not, want 3 and 2", len(winners), len(losers))
	}
	f.awaitStalled(losers[0], tenancyv1alpha1.ConditionServiceCIDRAllocated, "ServiceCIDRPoolExhausted", "start vc-manager with a larger --service-cidr-pool, ask for a smaller one")
	f.disjoint()

	// Each range that becomes free is given to one that waits.
	all := append(vcs, overlap)
	full := func(ctx context.Context) error {
		if winners, losers = f.sort(ctx, all); len(winners) != 4 {
			return fmt.Errorf("%d have a range, %d do not; the ranges are %s", len(winners), len(losers), f.ranges(ctx))
		}
		return nil
	}
	f.delete(foreign)
	worlds.Eventually(t, patience, "the free range to be taken", full)
	f.delete(winners[0])
	f.finishPods(winners[0].Status.ClusterNamespace)
	f.awaitGone(winners[0])
	worlds.Eventually(t, patience, "the range of the deleted one to be taken", full)
	f.disjoint()
}

func TestDualStackRanges(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super, func(o *controllers.Options) {
		o.ServiceCIDRPool, o.ServiceCIDRSize = "10.112.0.0/20,fd00:112::/104", "22,112"
	})
	f.version("v1", "true")
	const condition = tenancyv1alpha1.ConditionServiceCIDRAllocated

	pool := iprange.MustParse("10.112.0.0/20,fd00:112::/104")
	fromPool := f.awaitCondition(f.virtualCluster("from-pool", tenancyv1alpha1.VirtualClusterSpec{}), condition, metav1.ConditionTrue, "Succeeded", "")
	const asked = "10.120.0.0/22,fd00:120::/112"
	named := f.awaitCondition(f.virtualCluster("named", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: asked}), condition, metav1.ConditionTrue, "Succeeded", asked)
	if named.Status.ServiceCIDR != asked {
		t.Errorf("it has %s, asked for %s", named.Status.ServiceCIDR, asked)
	}
	given, err := iprange.Parse(fromPool.Status.ServiceCIDR)
	if err != nil || len(given) != 2 || given[0].Bits() != 22 || given[1].Bits() != 112 || !pool[0].Overlaps(given[0]) || !pool[1].Overlaps(given[1]) {
		t.Errorf("status.serviceCidr is %q (%v), want two ranges of the pool", fromPool.Status.ServiceCIDR, err)
	}
	for _, vc := range []*tenancyv1alpha1.VirtualCluster{fromPool, named} {
		var list networkingv1.ServiceCIDRList
		if err := f.List(t.Context(), &list, client.MatchingLabels{names.LabelTenant: vc.Status.ClusterNamespace}); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || strings.Join(list.Items[0].Spec.CIDRs, ",") != vc.Status.ServiceCIDR {
			t.Errorf("%s has %s and the ServiceCIDRs %v", vc.Name, vc.Status.ServiceCIDR, list.Items)
		}
	}

	for name, tc := range map[string]struct{ cidrs, reason, message string }{
		"second-overlaps": {"10.124.0.0/22,fd00:120::/112", "ServiceCIDROverlap", "overlaps fd00:120::/112 of ServiceCIDR tenant-10.120.0.0-22 (VirtualCluster tenants/named)"},
		"other-order":     {"fd00:121::/112,10.121.0.0/22", "ServiceCIDRUnsupported", "must be of the same IP family as the first of the super cluster"},
		"same-family":     {"10.122.0.0/22,10.123.0.0/22", "ServiceCIDRInvalid", "there can be one range, or one of IPv4 and one of IPv6"},
	} {
		f.awaitStalled(f.virtualCluster(name, tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: tc.cidrs}), condition, tc.reason, tc.message)
	}
}

func TestDualStackNeedsADualStackSuperCluster(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{
		SuperControllers: superControllers(), APIServerArgs: []string{"--service-cluster-ip-range=10.250.0.0/21"},
	}).Super
	f := startManager(t, super, func(o *controllers.Options) {
		o.ServiceCIDRPool, o.ServiceCIDRSize = "10.112.0.0/20,fd00:112::/104", "22,112"
	})
	f.version("v1", "true")
	vc := f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{})
	f.awaitStalled(vc, tenancyv1alpha1.ConditionServiceCIDRAllocated, "ServiceCIDRUnsupported", "is of an IP family that Services of the super cluster do not have: it has 10.250.0.0/21")
}

// settled waits until every VirtualCluster has a range or is told that there is none.
func (f fixture) settled(vcs []*tenancyv1alpha1.VirtualCluster) (winners, losers []*tenancyv1alpha1.VirtualCluster) {
	f.Helper()
	worlds.Eventually(f.T, patience, "all to have a range or none", func(ctx context.Context) error {
		if winners, losers = f.sort(ctx, vcs); len(winners)+len(losers) != len(vcs) {
			return fmt.Errorf("%d have a range, %d do not, of %d", len(winners), len(losers), len(vcs))
		}
		return nil
	})
	return winners, losers
}

func (f fixture) sort(ctx context.Context, vcs []*tenancyv1alpha1.VirtualCluster) (winners, losers []*tenancyv1alpha1.VirtualCluster) {
	for _, vc := range vcs {
		current := &tenancyv1alpha1.VirtualCluster{}
		if err := f.Get(ctx, client.ObjectKeyFromObject(vc), current); err != nil {
			continue
		}
		switch condition := apimeta.FindStatusCondition(current.Status.Conditions, tenancyv1alpha1.ConditionServiceCIDRAllocated); {
		case condition == nil:
		case condition.Status == metav1.ConditionTrue:
			winners = append(winners, current)
		// One that has a range which the super cluster does not use yet is neither.
		case condition.Reason == "ServiceCIDRPoolExhausted" || condition.Reason == "ServiceCIDROverlap":
			losers = append(losers, current)
		}
	}
	return winners, losers
}

// ranges describes the ranges of the super cluster and what is in use of them.
func (f fixture) ranges(ctx context.Context) string {
	var (
		text      strings.Builder
		ranges    networkingv1.ServiceCIDRList
		addresses networkingv1.IPAddressList
	)
	if err := errors.Join(f.List(ctx, &ranges), f.List(ctx, &addresses)); err != nil {
		return err.Error()
	}
	for i := range ranges.Items {
		fmt.Fprintf(&text, "%s (deleting: %t), ", ranges.Items[i].Spec.CIDRs[0], ranges.Items[i].DeletionTimestamp != nil)
	}
	for i := range addresses.Items {
		fmt.Fprintf(&text, "%s of %s/%s, ", addresses.Items[i].Name, addresses.Items[i].Spec.ParentRef.Namespace, addresses.Items[i].Spec.ParentRef.Name)
	}
	return text.String()
}

// disjoint checks that no two ranges of the super cluster overlap.
func (f fixture) disjoint() {
	f.Helper()
	var list networkingv1.ServiceCIDRList
	if err := f.List(f.Context(), &list); err != nil {
		f.Fatalf("List: %v", err)
	}
	for i := range list.Items {
		for j := range list.Items[:i] {
			a, b := netip.MustParsePrefix(list.Items[i].Spec.CIDRs[0]), netip.MustParsePrefix(list.Items[j].Spec.CIDRs[0])
			if a.Overlaps(b) {
				f.Errorf("%s of %s overlaps %s of %s", a, list.Items[i].Name, b, list.Items[j].Name)
			}
		}
	}
}

func (f fixture) awaitPod(namespace, name string) *corev1.Pod {
	f.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	worlds.Eventually(f.T, patience, "pod "+name, func(ctx context.Context) error {
		return f.Get(ctx, client.ObjectKeyFromObject(pod), pod)
	})
	return pod
}

// bind plays scheduler.
func (f fixture) bind(pod *corev1.Pod, node string) {
	f.Helper()
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	if err := f.SubResource("binding").Create(f.Context(), pod, binding); err != nil {
		f.Fatalf("binding pod %s: %v", pod.Name, err)
	}
}

// breakImage plays a kubelet that cannot pull the image.
func (f fixture) breakImage(pod *corev1.Pod) {
	f.Helper()
	if err := f.Get(f.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		f.Fatalf("Get: %v", err)
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name:  pod.Spec.Containers[0].Name,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such host"}},
	}}
	if err := f.Status().Update(f.Context(), pod); err != nil {
		f.Fatalf("updating the status of pod %s: %v", pod.Name, err)
	}
}

// finishPods plays kubelet for pods that are being deleted, until the namespace is gone.
func (f fixture) finishPods(namespace string) {
	f.Helper()
	worlds.Eventually(f.T, patience, "namespace "+namespace+" to be gone", func(ctx context.Context) error {
		var pods corev1.PodList
		if err := f.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
			return err
		}
		for i := range pods.Items {
			if pods.Items[i].DeletionTimestamp != nil {
				if err := f.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
					return err
				}
			}
		}
		err := f.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{})
		if err == nil {
			return fmt.Errorf("it is there with %d pods", len(pods.Items))
		}
		return client.IgnoreNotFound(err)
	})
}

// nothingLeft checks that nothing of a tenant is in the super cluster.
func (f fixture) nothingLeft(tenant string) {
	f.Helper()
	for name, list := range map[string]client.ObjectList{
		"namespaces": &corev1.NamespaceList{}, "ranges": &networkingv1.ServiceCIDRList{}, "secrets": &corev1.SecretList{}, "volumes": &corev1.PersistentVolumeList{},
	} {
		if err := f.List(f.Context(), list, client.MatchingLabels{names.LabelTenant: tenant}); err != nil {
			f.Fatalf("List: %v", err)
		}
		if left := apimeta.LenList(list); left > 0 {
			f.Errorf("%d %s of tenant %s are left", left, name, tenant)
		}
	}
}
