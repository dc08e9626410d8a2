package resources_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// deviceClaim asks for a device of class gpu, and for one of class gpu or nic.
func deviceClaim(edit ...func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
	in := &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "devices", UID: "u"},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "one", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}},
			{Name: "some", FirstAvailable: []resourcev1.DeviceSubRequest{
				{Name: "a", DeviceClassName: "gpu"}, {Name: "b", DeviceClassName: "nic"},
			}},
		}}},
	}
	for _, f := range edit {
		f(in)
	}
	return in
}

// withDevices has the classes that a claim asks for, and a pod that refers to it.
func withDevices(hidden ...string) world {
	w := world{referenced: []resource.Ref{{Kind: "resourceclaims", Namespace: "shop", Name: "devices"}}}
	for _, name := range []string{"gpu", "nic", "203.0.113.9"} {
		super := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "real"}}
		if slices.Contains(hidden, name) {
			super.Labels = map[string]string{names.LabelPublic: "false"}
		}
		w.super = append(w.super, super)
		w.tenant = append(w.tenant, &resourcev1.DeviceClass{ObjectMeta: offeredMeta(name)})
	}
	return w
}

func TestResourceClaimsGoDown(t *testing.T) {
	yes, no := true, false
	admin := func(value *bool) func(*resourcev1.ResourceClaim) {
		return func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Requests[0].Exactly.AdminAccess = value }
	}
	own := withDevices()
	own.tenant[0].SetAnnotations(nil)
	for name, tc := range map[string]struct {
		world  world
		in     *resourcev1.ResourceClaim
		reject string
	}{
		"Plain": {withDevices(), deviceClaim(func(c *resourcev1.ResourceClaim) {
			c.Spec.Devices.Constraints = []resourcev1.DeviceConstraint{{Requests: []string{"one"}}}
			c.Spec.Devices.Config = []resourcev1.DeviceClaimConfiguration{{DeviceConfiguration: resourcev1.DeviceConfiguration{
				Opaque: &resourcev1.OpaqueDeviceConfiguration{Driver: "gpu.example.com", Parameters: runtime.RawExtension{Raw: []byte(`{"mode":"shared"}`)}},
			}}}
		}), ""},
		"NoAdminAccess":  {withDevices(), deviceClaim(admin(&no)), ""},
		"AdminAccess":    {withDevices(), deviceClaim(admin(&yes)), "AdminAccessNotAllowed"},
		"HiddenClass":    {withDevices("gpu"), deviceClaim(), "DeviceClassNotOffered"},
		"HiddenSubclass": {withDevices("nic"), deviceClaim(), "DeviceClassNotOffered"},
		"OwnClass":       {own, deviceClaim(), "DeviceClassNotOffered"},
		"NoClass": {withDevices(), deviceClaim(func(c *resourcev1.ResourceClaim) {
			c.Spec.Devices.Requests[0].Exactly.DeviceClassName = "fpga"
		}), "DeviceClassNotOffered"},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.ResourceClaims(), tc.world, "shop", "devices", tc.in, nil)
			if tc.reject != "" {
				rejectedWith(t, ops, err, tc.reject)
				return
			}
			got := created[*resourcev1.ResourceClaim](t, ops, err)
			if diff := cmp.Diff(tc.in.Spec, got.Spec); diff != "" {
				t.Errorf("spec: -want +got\n%s", diff)
			}
		})
	}
	unused := withDevices()
	unused.referenced = nil
	if ops, err := decide(t, resources.ResourceClaims(), unused, "shop", "devices", deviceClaim(), nil); len(ops) > 0 || err != nil {
		t.Errorf("a claim that no pod uses: %s, %v", encode(t, ops), err)
	}
	// A class that is not offered any more leaves the claims that there are.
	w := withDevices("gpu", "nic")
	replica := superDeviceClaim()
	w.super = append(w.super, replica)
	if ops, err := decide(t, resources.ResourceClaims(), w, "shop", "devices", deviceClaim(), replica); len(ops) > 0 || err != nil {
		t.Errorf("a claim of a class that was offered: %s, %v", encode(t, ops), err)
	}
	var classes []string
	for _, ref := range resources.ResourceClaims().References(deviceClaim()) {
		classes = append(classes, ref.Kind+"/"+ref.Name)
	}
	if diff := cmp.Diff([]string{"deviceclasses/gpu", "deviceclasses/nic"}, classes); diff != "" {
		t.Errorf("references: -want +got\n%s", diff)
	}
}

func superDeviceClaim(edit ...func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
	in := deviceClaim(edit...)
	in.ObjectMeta = replicaMeta("shop", "devices", "u")
	return in
}

// usingClaim is a pod of the tenant that uses the claim.
func usingClaim(name string, edit ...func(*corev1.Pod)) *corev1.Pod {
	claim := "devices"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("tenant-" + name)},
		Spec:       corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{{Name: "d", ResourceClaimName: &claim}}},
	}
	for _, f := range edit {
		f(pod)
	}
	return pod
}

func superPodOf(name string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: replicaMeta("shop", name, "tenant-"+name)}
	pod.UID = types.UID("super-" + name)
	return pod
}

func allocation(device string, config ...resourcev1.DeviceAllocationConfiguration) *resourcev1.AllocationResult {
	return &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{
			Results: []resourcev1.DeviceRequestAllocationResult{{Request: "one", Driver: "gpu.example.com", Pool: "node-1", Device: device}},
			Config:  config,
		},
	}
}

func reservedFor(side string, pods ...string) []resourcev1.ResourceClaimConsumerReference {
	var out []resourcev1.ResourceClaimConsumerReference
	for _, name := range pods {
		out = append(out, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: name, UID: types.UID(side + "-" + name)})
	}
	return out
}

func claimStatus(allocation *resourcev1.AllocationResult, reserved ...resourcev1.ResourceClaimConsumerReference) func(*resourcev1.ResourceClaim) {
	return func(c *resourcev1.ResourceClaim) {
		c.Status.Allocation, c.Status.ReservedFor = allocation, reserved
		if allocation != nil {
			c.Finalizers = []string{resourcev1.Finalizer}
		}
	}
}

// What the super cluster allocates is the truth; what both control planes note of pods ends with the pods.
func TestResourceClaimsComeUp(t *testing.T) {
	onNode := func(p *corev1.Pod) { p.Spec.NodeName = "node-1" }
	over := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	idle := func(p *corev1.Pod) { p.Spec.ResourceClaims = nil }
	deleting := func(c *resourcev1.ResourceClaim) { c.DeletionTimestamp = &metav1.Time{Time: now()} }
	fromClass := resourcev1.DeviceAllocationConfiguration{Source: resourcev1.AllocationConfigSourceClass}
	fromClaim := resourcev1.DeviceAllocationConfiguration{Source: resourcev1.AllocationConfigSourceClaim}
	both := reservedFor("super", "a", "b")
	for name, tc := range map[string]struct {
		reason string
		pods   []*corev1.Pod
		tenant *resourcev1.ResourceClaim
		super  *resourcev1.ResourceClaim
		want   *resourcev1.ResourceClaim
	}{
		"Allocated": {"for two pods, one of which is the tenant's", []*corev1.Pod{usingClaim("a")},
			deviceClaim(), superDeviceClaim(claimStatus(allocation("gpu-1", fromClass, fromClaim), both...)),
			deviceClaim(claimStatus(allocation("gpu-1", fromClaim), reservedFor("tenant", "a")...))},
		"Shared": {"by pods of the tenant", []*corev1.Pod{usingClaim("a"), usingClaim("b")},
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "b")...)), superDeviceClaim(claimStatus(allocation("gpu-1"), both...)),
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "b", "a")...))},
		"Over": {"a pod that ended needs nothing", []*corev1.Pod{usingClaim("a", over), usingClaim("b", onNode)},
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a", "b")...)), superDeviceClaim(claimStatus(allocation("gpu-1"), both...)),
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "b")...))},
		"LastGone": {"the super cluster has not noticed yet", nil,
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...)), superDeviceClaim(claimStatus(allocation("gpu-1"), both...)), deviceClaim()},
		"Released": {"by the super cluster", []*corev1.Pod{usingClaim("a", onNode)},
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...)), superDeviceClaim(), deviceClaim()},
		"OtherDevice": {"an allocation cannot be changed", []*corev1.Pod{usingClaim("a")},
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...)), superDeviceClaim(claimStatus(allocation("gpu-2"), both...)), deviceClaim()},
		"ReservedByTenant": {"its control plane does so again and again", []*corev1.Pod{usingClaim("a"), usingClaim("c", onNode)},
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "c", "a")...)), superDeviceClaim(claimStatus(allocation("gpu-1"), both...)),
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "c", "a")...))},
		"Invented": {"by the tenant", []*corev1.Pod{usingClaim("a"), usingClaim("c", onNode, idle)},
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "c", "a", "ghost")...)), superDeviceClaim(claimStatus(allocation("gpu-1"), both...)),
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...))},
		"Deleting": {"the tenant's control plane does the rest", nil,
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...), deleting), superDeviceClaim(claimStatus(allocation("gpu-1"), both...), deleting),
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...), deleting)},
		"NoReplica": {"claims that only the tenant uses", nil, deviceClaim(claimStatus(allocation("own"))), nil, deviceClaim(claimStatus(allocation("own")))},
		"Devices": {"what drivers say", []*corev1.Pod{usingClaim("a")}, deviceClaim(),
			superDeviceClaim(claimStatus(allocation("gpu-1"), both...), func(c *resourcev1.ResourceClaim) {
				c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Device: "gpu-1", Conditions: []metav1.Condition{{Message: "for " + names.SuperNamespace(tenantID, "shop")}}}}
			}),
			deviceClaim(claimStatus(allocation("gpu-1"), reservedFor("tenant", "a")...), func(c *resourcev1.ResourceClaim) {
				c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Device: "gpu-1", Conditions: []metav1.Condition{{Message: "for shop"}}}}
			})},
	} {
		t.Run(name, func(t *testing.T) {
			w := withDevices()
			w.super = append(w.super, superPodOf("a"), superPodOf("b"))
			for _, pod := range tc.pods {
				w.tenant = append(w.tenant, pod)
			}
			var super resource.Object
			if tc.super != nil {
				super = tc.super
				w.super = append(w.super, tc.super)
			} else {
				w.referenced = nil
			}
			ops, err := decide(t, resources.ResourceClaims(), w, "shop", "devices", tc.tenant, super)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, patched(t, tc.tenant, resource.Tenant, ops)); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
			// Allocated claims are protected, at every moment.
			if last := len(ops) - 1; last == 1 && (ops[0].Verb == resource.Patch) != (tc.want.Status.Allocation != nil) {
				t.Errorf("%s comes before %s", ops[0].Verb, ops[1].Verb)
			}
		})
	}
}
