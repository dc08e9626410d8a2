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

// addressError says that the super cluster did not give a Service the address by which it claims a range.
type addressError struct {
	address string
	ranges  iprange.Ranges
	// taken says that another Service has it.
	taken bool
	err   error
}

// Error implements error.
func (e *addressError) Error() string { return e.err.Error() }

// Unwrap returns the answer of the API server.
func (e *addressError) Unwrap() error { return e.err }

// taken says whether an error is that another Service has an address.
func taken(err error) bool {
	var refused *addressError
	return errors.As(err, &refused) && refused.taken
}

// explain says what to do about an addressError. No watch tells when it was done. Other errors are returned as they are.
func (a *Allocator) explain(ctx context.Context, err error) error {
	var refused *addressError
	switch {
	case !errors.As(err, &refused):
		return err
	case !refused.taken:
		return &progress.Wait{
			Reason:  ReasonUnsupported,
			Message: fmt.Sprintf("the super cluster hands out no addresses of the range %s: %v", refused.ranges, refused.err),
			After:   takenDelay,
		}
	}
	by := "a Service of the super cluster"
	address := &networkingv1.IPAddress{}
	if err := a.Live.Get(ctx, client.ObjectKey{Name: refused.address}, address); err == nil && address.Spec.ParentRef != nil {
		by = fmt.Sprintf("Service %s/%s of the super cluster", address.Spec.ParentRef.Namespace, address.Spec.ParentRef.Name)
	}
	return &progress.Wait{
		Reason:  ReasonTaken,
		Message: fmt.Sprintf("%s has the address %s of the range %s, which a Service of the tenant needs by which it has the range; give that Service another address", by, refused.address, refused.ranges),
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

// claimAll makes the Services that claim ranges, as far as they are not there. The error is an addressError when one cannot
// have its address.
func (a *Allocator) claimAll(ctx context.Context, claim Claim, ranges iprange.Ranges, services []claimed) error {
	for _, s := range services {
		if a.has(ctx, s, ranges) {
			continue
		}
		if err := a.claimService(ctx, claim, ranges, s); err != nil {
			return err
		}
	}
	return nil
}

// Since returns when ranges that a tenant has besides the first were claimed; zero when that is not known.
func (a *Allocator) Since(ctx context.Context, claim Claim, ranges iprange.Ranges) time.Time {
	existing := &corev1.Service{}
	for _, s := range claim.further(ranges, ranges) {
		if err := a.Claims.Get(ctx, client.ObjectKeyFromObject(s), existing); err == nil {
			return existing.CreationTimestamp.Time
		}
	}
	return time.Time{}
}

// has says whether the cache has a Service that claims these very ranges. It may be behind, and show what was given up.
func (a *Allocator) has(ctx context.Context, want claimed, ranges iprange.Ranges) bool {
	existing := &corev1.Service{}
	return a.Claims.Get(ctx, client.ObjectKeyFromObject(want), existing) == nil && existing.DeletionTimestamp == nil &&
		existing.Annotations[names.AnnotationServiceRange] == ranges.String() &&
		(want.Spec.ClusterIP == "" || existing.Spec.ClusterIP == want.Spec.ClusterIP)
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
		return &progress.Wait{Reason: ReasonNotReady, Message: fmt.Sprintf("Service %s is being deleted by somebody; it is made again when it is gone", key), After: takenDelay}
	case existing.Spec.ClusterIP == corev1.ClusterIPNone:
		return nil // the tenant chose so
	case len(ranges) > 0 && existing.Spec.ClusterIP != want.Spec.ClusterIP && existing.Annotations[names.AnnotationUID] != names.UIDAhead:
		return nil // the tenant chose so
	case len(ranges) > 0 && existing.Spec.ClusterIP != want.Spec.ClusterIP:
		if err := a.Client.Delete(ctx, existing, client.Preconditions{UID: &existing.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("giving up Service %s, which claims another range: %w", key, err)
		}
		return a.createService(ctx, claim, ranges, want)
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
	case apierrors.IsInvalid(err):
		return &addressError{address: want.Spec.ClusterIP, ranges: ranges, taken: strings.Contains(err.Error(), "already allocated"), err: err}
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &progress.Wait{Reason: ReasonNotReady, Message: fmt.Sprintf("namespace %s is being deleted by somebody; it is made again when it is gone", want.Namespace)}
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
