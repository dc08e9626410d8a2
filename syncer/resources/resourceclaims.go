package resources

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

const kindResourceClaims = "resourceclaims"

// +kubebuilder:rbac:groups=resource.k8s.io,resources=resourceclaims,verbs=get;list;watch;create;patch;delete

// ResourceClaims asks for devices in the super cluster, whose scheduler allocates them, while a pod refers to the claim. The
// tenant makes claims of templates by itself. What is allocated, and for which of its pods, comes back.
func ResourceClaims() resource.Kind {
	return resource.Of(resource.Resource[*resourcev1.ResourceClaim]{
		Name:     kindResourceClaims,
		GVK:      resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"),
		Optional: true,
		// The super cluster's own finalizer keeps the claim while a pod uses it, and gives back what was allocated.
		DeleteWithOrigin: true,
		New:              func() *resourcev1.ResourceClaim { return &resourcev1.ResourceClaim{} },
		Needed: func(v resource.View, in *resourcev1.ResourceClaim) bool {
			return v.Referenced(resource.Ref{Kind: kindResourceClaims, Namespace: in.Namespace, Name: in.Name})
		},
		ReferrerUpdatesMatter: true, // a claim is reserved for pods that run

		Down:       resourceClaimDown,
		Merge:      func(_, _ *resourcev1.ResourceClaim) {}, // the spec is immutable
		Up:         resourceClaimUp,
		References: deviceClassesOf,
	})
}

// deviceClassesOf names the classes that a claim asks for devices of.
func deviceClassesOf(in *resourcev1.ResourceClaim) []resource.Ref {
	var out []resource.Ref
	add := func(class string) {
		if ref := (resource.Ref{Kind: resource.DeviceClasses, Name: class}); !slices.Contains(out, ref) {
			out = append(out, ref)
		}
	}
	for _, request := range in.Spec.Devices.Requests {
		if request.Exactly != nil {
			add(request.Exactly.DeviceClassName)
		}
		for _, sub := range request.FirstAvailable {
			add(sub.DeviceClassName)
		}
	}
	return out
}

func resourceClaimDown(v resource.View, in *resourcev1.ResourceClaim) (*resourcev1.ResourceClaim, error) {
	for _, request := range in.Spec.Devices.Requests {
		if request.Exactly != nil && request.Exactly.AdminAccess != nil && *request.Exactly.AdminAccess {
			return nil, resource.Rejected("AdminAccessNotAllowed", "request %q asks for adminAccess, which reaches devices that others use and is not offered here; make a claim without it", request.Name)
		}
	}
	if v.Get(resource.Super, resource.Ref{Kind: kindResourceClaims, Namespace: in.Namespace, Name: in.Name}) == nil {
		for _, class := range deviceClassesOf(in) {
			if !v.OffersClass(resource.DeviceClasses, class.Name) {
				return nil, resource.Rejected("DeviceClassNotOffered", "DeviceClass %q is not offered here; `kubectl get deviceclasses` shows those that are, except those that you made", class.Name)
			}
		}
	}
	devices := in.Spec.Devices
	out := &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
		Requests: devices.Requests, Constraints: devices.Constraints, Config: devices.Config,
	}}}
	v.CopyMeta(in, out)
	return out, nil
}

// resourceClaimUp brings back what is allocated. Claims without a replica of theirs are the tenant's own business, and so are
// those that are being deleted: its control plane releases them when their pods are gone.
func resourceClaimUp(v resource.View, p resource.Pair[*resourcev1.ResourceClaim]) ([]resource.Op, error) {
	tenant, super := p.Tenant, p.Super
	if tenant.DeletionTimestamp != nil {
		return nil, nil
	}
	status := resourceClaimStatus(v, tenant, super)
	finalizer := resource.Op{Side: resource.Tenant, Verb: resource.Patch, Why: resource.Status}
	protection, err := resource.Change(finalizer, tenant, resource.SameObject, func(to *resourcev1.ResourceClaim) { protect(to, status.Allocation != nil) })
	if err != nil {
		return nil, err
	}
	allocation, err := resource.ReportStatus(tenant, func(to *resourcev1.ResourceClaim) { to.Status = status })
	if status.Allocation == nil {
		return append(allocation, protection...), err
	}
	return append(protection, allocation...), err // it is protected before it is allocated
}

// protect sets or removes the finalizer that keeps a claim while it is allocated.
func protect(claim *resourcev1.ResourceClaim, allocated bool) {
	i := slices.Index(claim.Finalizers, resourcev1.Finalizer)
	switch {
	case allocated && i < 0:
		claim.Finalizers = append(claim.Finalizers, resourcev1.Finalizer)
	case !allocated && i >= 0:
		claim.Finalizers = slices.Delete(claim.Finalizers, i, i+1)
	}
}

// resourceClaimStatus returns the status of the tenant's claim. It is allocated while a pod of the tenant uses it, as the tenant's
// control plane sees it, too: whichever side is first to notice that the last one has gone, the other does not undo it.
func resourceClaimStatus(v resource.View, tenant, super *resourcev1.ResourceClaim) resourcev1.ResourceClaimStatus {
	var out resourcev1.ResourceClaimStatus
	reserved := consumers(v, tenant, super)
	if super.Status.Allocation == nil || len(reserved) == 0 {
		return out
	}
	allocation := super.Status.Allocation.DeepCopy()
	// How a class is configured is the operator's business.
	allocation.Devices.Config = slices.DeleteFunc(allocation.Devices.Config, func(c resourcev1.DeviceAllocationConfiguration) bool {
		return c.Source == resourcev1.AllocationConfigSourceClass
	})
	if current := tenant.Status.Allocation; current != nil {
		if !sameDevices(current, allocation) {
			return out // what is allocated cannot be changed, only given back first
		}
		allocation = current // an older API server keeps less of it
	}
	out.Allocation, out.ReservedFor = allocation, reserved
	for i := range super.Status.Devices {
		device := super.Status.Devices[i].DeepCopy()
		for j := range device.Conditions {
			device.Conditions[j].Message = v.ForTenant(device.Conditions[j].Message, tenant.Namespace, nil)
		}
		out.Devices = append(out.Devices, *device)
	}
	return out
}

// sameDevices says whether two allocations are of the same devices for the same requests.
func sameDevices(a, b *resourcev1.AllocationResult) bool {
	return slices.EqualFunc(a.Devices.Results, b.Devices.Results, func(x, y resourcev1.DeviceRequestAllocationResult) bool {
		return x.Request == y.Request && x.Driver == y.Driver && x.Pool == y.Pool && x.Device == y.Device
	})
}

// consumers returns the tenant's pods that a claim is reserved for: those that the super cluster reserved it for, and those that
// have a node, for which the tenant's control plane does so again and again. Pods that are over keep nothing.
func consumers(v resource.View, tenant, super *resourcev1.ResourceClaim) []resourcev1.ResourceClaimConsumerReference {
	wanted := map[types.UID]resourcev1.ResourceClaimConsumerReference{}
	var order []types.UID
	for _, own := range tenant.Status.ReservedFor {
		order = append(order, own.UID)
		pod := consumer(v, tenant.Namespace, own)
		if pod != nil && pod.UID == own.UID && pod.Spec.NodeName != "" && slices.Contains(pods.Claims(pod), tenant.Name) {
			wanted[own.UID] = own
		}
	}
	for _, theirs := range super.Status.ReservedFor {
		pod := consumer(v, tenant.Namespace, theirs)
		replica := v.Get(resource.Super, resource.Ref{Kind: "pods", Namespace: tenant.Namespace, Name: theirs.Name})
		if pod == nil || replica == nil || replica.GetUID() != theirs.UID || replica.GetAnnotations()[names.AnnotationUID] != string(pod.UID) {
			continue
		}
		order = append(order, pod.UID)
		wanted[pod.UID] = resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID}
	}
	var out []resourcev1.ResourceClaimConsumerReference
	for _, uid := range order {
		if reference, ok := wanted[uid]; ok {
			out = append(out, reference)
			delete(wanted, uid)
		}
	}
	return out
}

// consumer returns the tenant's pod of the name that a reservation is for, if it may still need it.
func consumer(v resource.View, namespace string, reference resourcev1.ResourceClaimConsumerReference) *corev1.Pod {
	if reference.APIGroup != "" || reference.Resource != "pods" {
		return nil
	}
	pod, ok := v.Get(resource.Tenant, resource.Ref{Kind: "pods", Namespace: namespace, Name: reference.Name}).(*corev1.Pod)
	if !ok || pod == nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.DeletionTimestamp != nil && pod.Spec.NodeName == "" {
		return nil
	}
	return pod
}
