package servicecidr

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Reasons for which a tenant has no range.
const (
	ReasonOverlap       = "ServiceCIDROverlap"
	ReasonPoolExhausted = "ServiceCIDRPoolExhausted"
	ReasonUnsupported   = "ServiceCIDRUnsupported"
	ReasonContended     = "ServiceCIDRContended"
	ReasonNotReady      = "ServiceCIDRNotReady"
)

// defaultName is the name of the ServiceCIDR that the super cluster was started with.
const defaultName = "kubernetes"

// Allocator claims ranges by creating ServiceCIDR objects in the super cluster.
//
// Kubernetes lets ServiceCIDRs overlap, so two claims could. Names follow from the first range: the API server accepts each
// once. For ranges of other sizes and for second ranges, every claimant looks again after it has created its object, and
// gives up its own when there is another; because both look after they have created, one of them sees the other.
type Allocator struct {
	// Client reads from a cache of all ServiceCIDRs and writes; Live reads from the API server.
	Client client.Client
	Live   client.Reader
	Pool   Pool
}

// Claim says who wants a range, and which.
type Claim struct {
	// Object carries the tenant's labels and annotations.
	Labels, Annotations map[string]string
	// Wanted are the ranges that a person asked for. Without, they are taken from the pool.
	Wanted iprange.Ranges
	// Held are the ranges that the tenant was given before.
	Held iprange.Ranges
	// AnyOrder says that the first range may be of another IP family than the super cluster's first, as that of an API
	// server that does not run in it.
	AnyOrder bool
}

// Ensure returns the tenant's ranges and whether the super cluster can use them already, in which case the error is nil.
// With an error, there are ranges if they have been claimed.
func (a *Allocator) Ensure(ctx context.Context, claim Claim) (iprange.Ranges, error) {
	if len(claim.Held) > 0 {
		object := &networkingv1.ServiceCIDR{}
		err := a.Client.Get(ctx, client.ObjectKey{Name: objectName(claim.Held)}, object)
		if err == nil && claim.owns(object) && object.DeletionTimestamp == nil {
			return claim.Held, usable(object)
		}
	}

	others, mine, err := a.list(ctx, claim)
	if err != nil {
		return nil, err
	}
	if mine == nil {
		chosen, err := a.choose(claim, others)
		if err != nil {
			return nil, err
		}
		mine = &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: objectName(chosen), Labels: claim.Labels, Annotations: claim.Annotations},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: chosen.CIDRs()},
		}
		err = a.Client.Create(ctx, mine, client.FieldOwner(names.Manager))
		if apierrors.IsAlreadyExists(err) {
			return nil, contended(chosen)
		}
		if err != nil {
			return nil, fmt.Errorf("creating ServiceCIDR %s: %w", mine.Name, err)
		}
		if others, _, err = a.list(ctx, claim); err != nil {
			return nil, err
		}
	}

	claimed, err := someRangesOf(mine)
	if err != nil {
		return nil, err
	}
	if mine.DeletionTimestamp != nil {
		return nil, &progress.Wait{
			Reason:  ReasonNotReady,
			Message: fmt.Sprintf("ServiceCIDR %s of this tenant is being deleted by somebody; it is made again when it is gone", mine.Name),
		}
	}
	if !slices.Equal(claimed, claim.Held) && claimed.Overlapping(all(others)...).IsValid() {
		if err := a.Client.Delete(ctx, mine, client.Preconditions{UID: &mine.UID}); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("giving up ServiceCIDR %s: %w", mine.Name, err)
		}
		return nil, contended(claimed)
	}
	return claimed, usable(mine)
}

// Release deletes the tenant's ServiceCIDR objects and returns those that are still there. The API server keeps one
// until no Service has an address from it.
func (a *Allocator) Release(ctx context.Context, tenant names.TenantID) ([]networkingv1.ServiceCIDR, error) {
	var list networkingv1.ServiceCIDRList
	err := a.Live.List(ctx, &list, client.MatchingLabels{names.LabelTenant: string(tenant)})
	if unsupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	for i := range list.Items {
		item := &list.Items[i]
		if item.DeletionTimestamp != nil {
			continue
		}
		if err := a.Client.Delete(ctx, item, client.Preconditions{UID: &item.UID}); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("deleting ServiceCIDR %s: %w", item.Name, err)
		}
	}
	return list.Items, nil
}

// Default returns the ranges the super cluster was started with.
func (a *Allocator) Default(ctx context.Context) (iprange.Ranges, error) {
	object := &networkingv1.ServiceCIDR{}
	if err := a.Client.Get(ctx, client.ObjectKey{Name: defaultName}, object); err != nil {
		if unsupported(err) {
			return nil, notSupported()
		}
		return nil, fmt.Errorf("reading the super cluster's ServiceCIDR: %w", err)
	}
	return someRangesOf(object)
}

// choose returns ranges that overlap none of the others and are of the IP families that the super cluster has.
func (a *Allocator) choose(claim Claim, others []networkingv1.ServiceCIDR) (iprange.Ranges, error) {
	chosen := claim.Held
	if len(chosen) == 0 {
		chosen = claim.Wanted
	}
	if len(chosen) == 0 {
		next, ok := a.Pool.Next(claim.Labels[names.LabelTenant], all(others))
		if !ok {
			return nil, &progress.Stall{
				Reason:  ReasonPoolExhausted,
				Message: fmt.Sprintf("no range is free in the pool %s; start vc-manager with a larger --service-cidr-pool, or delete a VirtualCluster", a.Pool),
			}
		}
		chosen = next
	}
	for i := range others {
		ranges := rangesOf(&others[i])
		if taken := chosen.Overlapping(ranges...); taken.IsValid() {
			return nil, &progress.Stall{
				Reason:  ReasonOverlap,
				Message: fmt.Sprintf("the range %s overlaps %s of ServiceCIDR %s%s; use another one", chosen, taken, others[i].Name, describeOwner(&others[i])),
			}
		}
		if others[i].Name == defaultName {
			if err := sameFamilies(chosen, ranges, claim.AnyOrder); err != nil {
				return nil, err
			}
		}
	}
	return chosen, nil
}

// sameFamilies returns a Stall when ranges are of an IP family that the super cluster has none of, whose Services could not
// have their addresses, or when the first ones differ, which kube-apiserver refuses: its own address is of the family that
// pods have first.
func sameFamilies(chosen, super iprange.Ranges, anyOrder bool) error {
	for i, prefix := range chosen {
		same := func(other netip.Prefix) bool { return other.Addr().Is4() == prefix.Addr().Is4() }
		if !slices.ContainsFunc(super, same) {
			return &progress.Stall{
				Reason:  ReasonUnsupported,
				Message: fmt.Sprintf("the range %s is of an IP family that Services of the super cluster do not have: it has %s", prefix, super),
			}
		}
		if i == 0 && !anyOrder && !same(super.Primary()) {
			return &progress.Stall{
				Reason:  ReasonUnsupported,
				Message: fmt.Sprintf("the first range of %s must be of the same IP family as the first of the super cluster, %s", chosen, super.Primary()),
			}
		}
	}
	return nil
}

// list returns the ServiceCIDRs of others, and the tenant's own.
func (a *Allocator) list(ctx context.Context, claim Claim) (others []networkingv1.ServiceCIDR, mine *networkingv1.ServiceCIDR, err error) {
	var list networkingv1.ServiceCIDRList
	if err := a.Live.List(ctx, &list); err != nil {
		if unsupported(err) {
			return nil, nil, notSupported()
		}
		return nil, nil, fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	for i := range list.Items {
		if claim.owns(&list.Items[i]) {
			mine = &list.Items[i]
			continue
		}
		others = append(others, list.Items[i])
	}
	return others, mine, nil
}

func (c Claim) owns(object *networkingv1.ServiceCIDR) bool {
	return object.Labels[names.LabelTenant] == c.Labels[names.LabelTenant]
}

// usable returns a Wait while the super cluster does not hand out addresses of the range.
func usable(object *networkingv1.ServiceCIDR) error {
	// No condition means ready, as it does for the API server.
	if condition := apimeta.FindStatusCondition(object.Status.Conditions, networkingv1.ServiceCIDRConditionReady); condition != nil && condition.Status != metav1.ConditionTrue {
		return &progress.Wait{Reason: ReasonNotReady, Message: fmt.Sprintf("ServiceCIDR %s is not ready: %s", object.Name, condition.Message)}
	}
	return nil
}

func contended(ranges iprange.Ranges) error {
	return &progress.Wait{Reason: ReasonContended, Message: fmt.Sprintf("the range %s was taken by another tenant in the meantime", ranges), After: 200 * time.Millisecond}
}

func notSupported() error {
	return &progress.Stall{
		Reason:  ReasonUnsupported,
		Message: "the super cluster has no ServiceCIDR API, which Kubernetes 1.33 and later have; upgrade the super cluster",
	}
}

func unsupported(err error) bool {
	return apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err)
}

// all returns the ranges of all objects.
func all(objects []networkingv1.ServiceCIDR) []netip.Prefix {
	var prefixes []netip.Prefix
	for i := range objects {
		prefixes = append(prefixes, rangesOf(&objects[i])...)
	}
	return prefixes
}

// rangesOf returns the ranges of an object, without those that are none.
func rangesOf(object *networkingv1.ServiceCIDR) iprange.Ranges {
	var ranges iprange.Ranges
	for _, cidr := range object.Spec.CIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}

// someRangesOf returns the ranges of an object that must have one.
func someRangesOf(object *networkingv1.ServiceCIDR) (iprange.Ranges, error) {
	ranges := rangesOf(object)
	if len(ranges) == 0 {
		return nil, fmt.Errorf("ServiceCIDR %s has no range", object.Name)
	}
	return ranges, nil
}

func describeOwner(object *networkingv1.ServiceCIDR) string {
	if owner := object.Annotations[names.AnnotationVirtualCluster]; owner != "" {
		return " (VirtualCluster " + owner + ")"
	}
	return ""
}
