package servicecidr

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// claimObject claims ranges that are no part of a range of the super cluster by a ServiceCIDR object. Because the name of the
// object follows from the first range, the API server lets only one tenant have that.
func (a *Allocator) claimObject(ctx context.Context, claim Claim, s *survey, chosen iprange.Ranges) (iprange.Ranges, error) {
	if s.open {
		return nil, &progress.Stall{
			Reason:  ReasonUnsupported,
			Message: "the super cluster has no ServiceCIDR API, which Kubernetes 1.33 and later have; use a part of its service range, or upgrade it",
		}
	}
	mine := s.object
	if mine == nil {
		mine = &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: objectName(chosen), Labels: claim.Labels, Annotations: claim.Annotations},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: chosen.CIDRs()},
		}
		err := a.Client.Create(ctx, mine, client.FieldOwner(names.Manager))
		switch {
		case apierrors.IsAlreadyExists(err):
			return nil, contended(chosen)
		case apierrors.IsForbidden(err) || apierrors.IsInvalid(err):
			return nil, &progress.Stall{
				Reason:  ReasonRejected,
				Message: fmt.Sprintf("the super cluster does not accept a ServiceCIDR for the range %s; use a part of a range that it has (%s): %v", chosen, s.super, err),
			}
		case err != nil:
			return nil, fmt.Errorf("creating ServiceCIDR %s: %w", mine.Name, err)
		}
		if s, err = a.survey(ctx, claim); err != nil {
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
	if !slices.Equal(claimed, claim.Held) && claimed.Overlapping(s.used(true)...).IsValid() {
		if err := a.deleteObject(ctx, mine); err != nil {
			return nil, err
		}
		return nil, contended(claimed)
	}
	return claimed, usable(mine)
}

func (a *Allocator) deleteObject(ctx context.Context, object *networkingv1.ServiceCIDR) error {
	if object.DeletionTimestamp != nil {
		return nil
	}
	if err := a.Client.Delete(ctx, object, client.Preconditions{UID: &object.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting ServiceCIDR %s: %w", object.Name, err)
	}
	return nil
}

// Release deletes the tenant's ServiceCIDR objects and returns those that are still there. The API server keeps one
// until no Service has an address from it. Services that claim a range go with their namespaces.
func (a *Allocator) Release(ctx context.Context, tenant names.TenantID) ([]networkingv1.ServiceCIDR, error) {
	var list networkingv1.ServiceCIDRList
	err := a.Live.List(ctx, &list, client.MatchingLabels{names.LabelTenant: string(tenant)})
	if Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	for i := range list.Items {
		if err := a.deleteObject(ctx, &list.Items[i]); err != nil {
			return nil, err
		}
	}
	return list.Items, nil
}

func (c Claim) owns(object client.Object) bool {
	return object.GetLabels()[names.LabelTenant] == string(c.Tenant)
}

// usable returns a Wait while the super cluster does not hand out addresses of the range.
func usable(object *networkingv1.ServiceCIDR) error {
	// No condition means ready, as it does for the API server.
	if condition := apimeta.FindStatusCondition(object.Status.Conditions, networkingv1.ServiceCIDRConditionReady); condition != nil && condition.Status != metav1.ConditionTrue {
		return &progress.Wait{Reason: ReasonNotReady, Message: fmt.Sprintf("ServiceCIDR %s is not ready: %s", object.Name, condition.Message)}
	}
	return nil
}

// Serves says whether the super cluster hands out addresses of a range.
func Serves(object *networkingv1.ServiceCIDR) bool {
	return object.DeletionTimestamp == nil && usable(object) == nil
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

func describeOwner(object client.Object) string {
	if owner := object.GetAnnotations()[names.AnnotationVirtualCluster]; owner != "" {
		return " (VirtualCluster " + owner + ")"
	}
	return ""
}
