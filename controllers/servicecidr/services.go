package servicecidr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	apiServerService = "kubernetes"
	dnsService       = "kube-dns"
	// takenDelay is when to look again whether an address is free.
	takenDelay = 10 * time.Second

	// anyPort is the port of a Service that nobody calls: discard, see RFC 863.
	anyPort = 9
)

// takenError says that a Service of somebody else has an address that a claim needs.
type takenError struct {
	address string
	ranges  iprange.Ranges
}

// Error implements error.
func (e *takenError) Error() string {
	return fmt.Sprintf("the address %s of the range %s is in use", e.address, e.ranges)
}

// wait returns what a person has to do about it. No watch tells when they did.
func (e *takenError) wait(ctx context.Context, reader client.Reader) error {
	by := "a Service of the super cluster"
	address := &networkingv1.IPAddress{}
	if err := reader.Get(ctx, client.ObjectKey{Name: e.address}, address); err == nil && address.Spec.ParentRef != nil {
		by = fmt.Sprintf("Service %s/%s of the super cluster", address.Spec.ParentRef.Namespace, address.Spec.ParentRef.Name)
	}
	return &progress.Wait{
		Reason:  ReasonTaken,
		Message: fmt.Sprintf("%s has the address %s of the range %s, which the tenant's own Services kubernetes or kube-dns need; give that Service another address, or use another range", by, e.address, e.ranges),
		After:   takenDelay,
	}
}

// claimed is a Service that claims a range.
type claimed struct {
	*corev1.Service
	// namespace is the tenant's namespace that it will be copied from; empty for one in the root namespace.
	namespace string
}

// services returns the Services that claim ranges: those that every cluster has at well-known addresses of its first range, which
// the syncer takes over once the tenant has them, and one at the first address of the second range, which no API server hands
// out.
func (c Claim) services(ranges iprange.Ranges) []claimed {
	primary := ranges.Primary()
	list := []claimed{c.apiServer(ranges, iprange.APIServer(primary))}
	if c.DNS {
		list = append(list, c.dns(ranges, iprange.DNS(primary)))
	}
	return append(list, c.further(ranges, ranges[1:])...)
}

// further returns Services that claim some of the ranges that a tenant is given together.
func (c Claim) further(ranges, claim iprange.Ranges) []claimed {
	var list []claimed
	for _, prefix := range claim {
		s := service(c.Labels, c.Annotations, ranges, prefix.Addr(), corev1.ServicePort{Port: anyPort, Protocol: corev1.ProtocolTCP})
		s.Namespace, s.Name = string(c.Tenant), "service-range-"+strings.ReplaceAll(rangeName(prefix), ".", "-")
		list = append(list, claimed{Service: s})
	}
	return list
}

// apiServer returns the Service kubernetes, by which pods reach the API server.
func (c Claim) apiServer(ranges iprange.Ranges, address netip.Addr) claimed {
	return c.ahead(ranges, metav1.NamespaceDefault, apiServerService, address, corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP})
}

// dns returns the Service of the cluster DNS.
func (c Claim) dns(ranges iprange.Ranges, address netip.Addr) claimed {
	return c.ahead(ranges, metav1.NamespaceSystem, dnsService, address,
		corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, corev1.ServicePort{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP})
}

// ahead returns the replica of a Service that the tenant will have.
func (c Claim) ahead(ranges iprange.Ranges, namespace, name string, address netip.Addr, ports ...corev1.ServicePort) claimed {
	s := service(c.Labels, c.Annotations, ranges, address, ports...)
	s.Namespace, s.Name = names.SuperNamespace(c.Tenant, namespace), name
	s.Labels[names.LabelManagedBy] = names.Syncer
	s.Annotations[names.AnnotationNamespace], s.Annotations[names.AnnotationUID] = namespace, names.UIDAhead
	return claimed{Service: s, namespace: namespace}
}

// service returns a Service that has no endpoints, at an address of a range if that is valid.
func service(labels, annotations map[string]string, ranges iprange.Ranges, address netip.Addr, ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(labels), Annotations: maps.Clone(annotations)},
		Spec:       corev1.ServiceSpec{IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack), Ports: ports},
	}
	if address.IsValid() {
		s.Spec.ClusterIP = address.String()
	}
	s.Labels[names.LabelServiceRange], s.Labels[discoveryv1.LabelSkipMirror] = "true", "true"
	s.Annotations[names.AnnotationServiceRange] = ranges.String()
	return s
}

// claimServices makes the Services that claim ranges, as far as they are not there. The error is a takenError when somebody
// else has one of their addresses.
func (a *Allocator) claimServices(ctx context.Context, claim Claim, ranges iprange.Ranges) error {
	return a.claimAll(ctx, claim, ranges, claim.services(ranges))
}

func (a *Allocator) claimAll(ctx context.Context, claim Claim, ranges iprange.Ranges, services []claimed) error {
	for _, s := range services {
		err := a.Claims.Get(ctx, client.ObjectKeyFromObject(s), &corev1.Service{})
		if apierrors.IsNotFound(err) {
			err = a.claimService(ctx, claim, ranges, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claimService makes a Service that claims ranges, or marks the one that is there.
func (a *Allocator) claimService(ctx context.Context, claim Claim, ranges iprange.Ranges, want claimed) error {
	key := client.ObjectKeyFromObject(want)
	existing := &corev1.Service{}
	err := a.Live.Get(ctx, key, existing)
	if apierrors.IsNotFound(err) {
		return a.createService(ctx, claim, ranges, want)
	}
	switch {
	case err != nil:
		return fmt.Errorf("reading Service %s: %w", key, err)
	case !claim.owns(existing):
		return &progress.Stall{Reason: ReasonTaken, Message: fmt.Sprintf("Service %s exists and was not made for this VirtualCluster; delete it", key)}
	case existing.DeletionTimestamp != nil:
		return &progress.Wait{Reason: ReasonNotReady, Message: fmt.Sprintf("Service %s is being deleted by somebody; it is made again when it is gone", key), After: contendedDelay}
	case len(ranges) > 0 && existing.Spec.ClusterIP != want.Spec.ClusterIP:
		return nil // the tenant chose so, or has a range of another size from before
	}
	base := existing.DeepCopy()
	existing.Labels[names.LabelServiceRange] = "true"
	if existing.Annotations == nil {
		existing.Annotations = map[string]string{}
	}
	for _, annotation := range []string{names.AnnotationServiceRange, names.AnnotationVirtualCluster, names.AnnotationVirtualClusterUID} {
		existing.Annotations[annotation] = want.Annotations[annotation]
	}
	if err := a.Client.Patch(ctx, existing, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(names.Manager)); err != nil {
		return fmt.Errorf("marking Service %s: %w", key, err)
	}
	return nil
}

func (a *Allocator) createService(ctx context.Context, claim Claim, ranges iprange.Ranges, want claimed) error {
	if want.namespace != "" {
		if err := a.ensureNamespace(ctx, claim, want); err != nil {
			return err
		}
	}
	err := a.Client.Create(ctx, want.DeepCopy(), client.FieldOwner(names.Manager))
	switch {
	case err == nil:
		return nil
	case apierrors.IsInvalid(err) && strings.Contains(err.Error(), "already allocated"):
		return &takenError{address: want.Spec.ClusterIP, ranges: ranges}
	case apierrors.IsInvalid(err):
		return &progress.Stall{Reason: ReasonUnsupported, Message: fmt.Sprintf("the super cluster hands out no addresses of the range %s: %v", ranges, err)}
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &progress.Wait{Reason: ReasonNotReady, Message: fmt.Sprintf("namespace %s is being deleted by somebody", want.Namespace), After: contendedDelay}
	case apierrors.IsForbidden(err):
		return &progress.Stall{Reason: ReasonRejected, Message: fmt.Sprintf("the super cluster does not accept Service %s, which claims the range %s: %v", client.ObjectKeyFromObject(want), ranges, err)}
	default:
		return fmt.Errorf("creating Service %s: %w", client.ObjectKeyFromObject(want), err)
	}
}

// ensureNamespace makes the super namespace of a tenant's namespace that there is not yet.
func (a *Allocator) ensureNamespace(ctx context.Context, claim Claim, of claimed) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: of.Namespace, Labels: maps.Clone(claim.Labels), Annotations: maps.Clone(claim.Annotations)}}
	namespace.Labels[names.LabelManagedBy] = names.Syncer
	namespace.Annotations[names.AnnotationNamespace], namespace.Annotations[names.AnnotationUID] = of.namespace, names.UIDAhead
	err := a.Client.Create(ctx, namespace, client.FieldOwner(names.Manager))
	if !apierrors.IsAlreadyExists(err) {
		if err != nil {
			return fmt.Errorf("creating namespace %s: %w", of.Namespace, err)
		}
		return nil
	}
	existing := &corev1.Namespace{}
	if err := a.Live.Get(ctx, client.ObjectKeyFromObject(namespace), existing); err != nil {
		return fmt.Errorf("reading namespace %s: %w", of.Namespace, err)
	}
	if !claim.owns(existing) {
		return &progress.Stall{Reason: ReasonTaken, Message: fmt.Sprintf("namespace %s exists and was not made for this VirtualCluster; delete it", of.Namespace)}
	}
	return nil
}

// release deletes Services that claim ranges.
func (a *Allocator) release(ctx context.Context, claim Claim, ranges iprange.Ranges, services []claimed) error {
	var failed []error
	for _, s := range slices.Backward(services) {
		existing := &corev1.Service{}
		err := a.Live.Get(ctx, client.ObjectKeyFromObject(s), existing)
		if err == nil && claim.owns(existing) && existing.Annotations[names.AnnotationServiceRange] == ranges.String() {
			err = a.Client.Delete(ctx, existing, client.Preconditions{UID: &existing.UID})
		}
		if client.IgnoreNotFound(err) != nil {
			failed = append(failed, fmt.Errorf("giving up the range %s: %w", ranges, err))
		}
	}
	return errors.Join(failed...)
}
