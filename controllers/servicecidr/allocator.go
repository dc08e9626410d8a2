package servicecidr

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
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
// Kubernetes lets ServiceCIDRs overlap, so two claims could. Ranges of the pool have names that follow from the range:
// the API server accepts each once. For ranges of other sizes, every claimant looks again after it has created its
// object, and gives up its own when there is another; because both look after they have created, one of them sees the
// other.
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
	// Wanted is the range that a person asked for. When it is not valid, one is taken from the pool.
	Wanted netip.Prefix
	// Held is the range that the tenant was given before.
	Held netip.Prefix
}

// Ensure returns the tenant's range and whether the super cluster can use it already, in which case the error is nil.
// With an error, the range is valid if it has been claimed.
func (a *Allocator) Ensure(ctx context.Context, claim Claim) (netip.Prefix, error) {
	if claim.Held.IsValid() {
		object := &networkingv1.ServiceCIDR{}
		err := a.Client.Get(ctx, client.ObjectKey{Name: objectName(claim.Held)}, object)
		if err == nil && claim.owns(object) && object.DeletionTimestamp == nil {
			return claim.Held, usable(object)
		}
	}

	others, mine, err := a.list(ctx, claim)
	if err != nil {
		return netip.Prefix{}, err
	}
	if mine == nil {
		prefix, err := a.choose(claim, others)
		if err != nil {
			return netip.Prefix{}, err
		}
		mine = &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: objectName(prefix), Labels: claim.Labels, Annotations: claim.Annotations},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{prefix.String()}},
		}
		err = a.Client.Create(ctx, mine, client.FieldOwner(names.Manager))
		if apierrors.IsAlreadyExists(err) {
			return netip.Prefix{}, contended(prefix)
		}
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("creating ServiceCIDR %s: %w", mine.Name, err)
		}
		if others, _, err = a.list(ctx, claim); err != nil {
			return netip.Prefix{}, err
		}
	}

	prefix, err := prefixOf(mine)
	if err != nil {
		return netip.Prefix{}, err
	}
	if mine.DeletionTimestamp != nil {
		return netip.Prefix{}, &progress.Wait{
			Reason:  ReasonNotReady,
			Message: fmt.Sprintf("ServiceCIDR %s of this tenant is being deleted by somebody; it is made again when it is gone", mine.Name),
		}
	}
	if prefix != claim.Held && overlapping(prefix, ranges(others)) >= 0 {
		if err := a.Client.Delete(ctx, mine, client.Preconditions{UID: &mine.UID}); client.IgnoreNotFound(err) != nil {
			return netip.Prefix{}, fmt.Errorf("giving up ServiceCIDR %s: %w", mine.Name, err)
		}
		return netip.Prefix{}, contended(prefix)
	}
	return prefix, usable(mine)
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

// Default returns the range the super cluster was started with, of the first IP family.
func (a *Allocator) Default(ctx context.Context) (netip.Prefix, error) {
	object := &networkingv1.ServiceCIDR{}
	if err := a.Client.Get(ctx, client.ObjectKey{Name: defaultName}, object); err != nil {
		if unsupported(err) {
			return netip.Prefix{}, notSupported()
		}
		return netip.Prefix{}, fmt.Errorf("reading the super cluster's ServiceCIDR: %w", err)
	}
	return prefixOf(object)
}

// choose returns a range that overlaps none of the others.
func (a *Allocator) choose(claim Claim, others []networkingv1.ServiceCIDR) (netip.Prefix, error) {
	used := ranges(others)
	wanted := claim.Wanted
	if claim.Held.IsValid() {
		wanted = claim.Held
	}
	if wanted.IsValid() {
		for i := range others {
			if overlapping(wanted, ranges(others[i:i+1])) >= 0 {
				return netip.Prefix{}, &progress.Stall{
					Reason:  ReasonOverlap,
					Message: fmt.Sprintf("the range %s overlaps %s of ServiceCIDR %s%s; use another one", wanted, others[i].Spec.CIDRs[0], others[i].Name, describeOwner(&others[i])),
				}
			}
		}
		return wanted, nil
	}
	prefix, ok := a.Pool.Next(claim.Labels[names.LabelTenant], used)
	if !ok {
		return netip.Prefix{}, &progress.Stall{
			Reason:  ReasonPoolExhausted,
			Message: fmt.Sprintf("no range is free in the pool %s; start vc-manager with a larger --service-cidr-pool, or delete a VirtualCluster", a.Pool),
		}
	}
	return prefix, nil
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

func contended(prefix netip.Prefix) error {
	return &progress.Wait{Reason: ReasonContended, Message: fmt.Sprintf("the range %s was taken by another tenant in the meantime", prefix), After: 200 * time.Millisecond}
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

// ranges returns the ranges of the objects.
func ranges(objects []networkingv1.ServiceCIDR) []netip.Prefix {
	var prefixes []netip.Prefix
	for i := range objects {
		for _, cidr := range objects[i].Spec.CIDRs {
			if prefix, err := netip.ParsePrefix(cidr); err == nil {
				prefixes = append(prefixes, prefix)
			}
		}
	}
	return prefixes
}

func prefixOf(object *networkingv1.ServiceCIDR) (netip.Prefix, error) {
	prefixes := ranges([]networkingv1.ServiceCIDR{*object})
	if len(prefixes) == 0 {
		return netip.Prefix{}, fmt.Errorf("ServiceCIDR %s has no range", object.Name)
	}
	return prefixes[0], nil
}

func describeOwner(object *networkingv1.ServiceCIDR) string {
	if owner := object.Annotations[names.AnnotationVirtualCluster]; owner != "" {
		return " (VirtualCluster " + owner + ")"
	}
	return ""
}
