package virtualcluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// knownDelay is how long vc-syncer has to learn of a range before the tenant hands out addresses of it.
const knownDelay = 3 * time.Second

// allocateServiceCIDR gives the tenant ranges for its cluster IPs. Without a pool it shares the super cluster's.
func (r *Reconciler) allocateServiceCIDR(ctx context.Context, tenant *provision.Tenant) (string, error) {
	vc := tenant.VirtualCluster
	external := controlPlaneType(vc) == tenancyv1alpha1.External
	claim := servicecidr.Claim{
		Tenant: tenant.ID, Labels: tenant.Labels(), Annotations: tenant.Annotations(),
		Bits: int(vc.Spec.ServiceCIDRSize), External: external, DNS: wantsCoreDNS(vc),
	}
	var err error
	if claim.Wanted, err = servicecidr.Parse(vc.Spec.ServiceCIDR); err != nil {
		return "", &progress.Stall{Reason: servicecidr.ReasonInvalid, Message: "spec.serviceCidr: " + err.Error()}
	}
	if claim.Held, err = iprange.Parse(vc.Status.ServiceCIDR); err != nil {
		return "", fmt.Errorf("reading status.serviceCidr: %w", err)
	}
	if len(claim.Wanted) == 0 && len(claim.Held) == 0 {
		if external {
			return "the External control plane's range is not known; set spec.serviceCidr to have cluster IPs agree", nil
		}
		// A tenant that began to share keeps its addresses, also when there is a pool later.
		if r.CIDRs.Pool.Empty() || vc.Status.ServiceAddresses != nil || tenant.Established() {
			return r.shareServiceCIDR(ctx, tenant, claim)
		}
	}

	ranges, err := r.CIDRs.Ensure(ctx, claim)
	if len(ranges) == 0 {
		return "", err
	}
	tenant.ServiceRanges = ranges
	vc.Status.ServiceCIDR = ranges.String()
	for _, prefix := range ranges {
		tenant.APIServerIPs = append(tenant.APIServerIPs, iprange.APIServer(prefix))
	}
	tenant.DNSIP = iprange.DNS(ranges.Primary())
	if err != nil {
		// The range is the tenant's but the super cluster does not hand out addresses of it yet.
		return "", err
	}
	claim.Held = ranges
	further, err := r.extendServiceCIDR(ctx, tenant, claim)
	return strings.TrimSuffix(fmt.Sprintf("has the range %s and %s", ranges, further), " and "), err
}

// extendServiceCIDR gives the tenant further ranges, and returns them for people.
func (r *Reconciler) extendServiceCIDR(ctx context.Context, tenant *provision.Tenant, claim servicecidr.Claim) (string, error) {
	vc := tenant.VirtualCluster
	for _, text := range vc.Status.AdditionalServiceCIDRs {
		ranges, err := iprange.Parse(text)
		if err != nil {
			return "", fmt.Errorf("reading status.additionalServiceCidrs: %w", err)
		}
		tenant.FurtherRanges = append(tenant.FurtherRanges, ranges)
	}
	further, err := r.CIDRs.Extend(ctx, claim, tenant.FurtherRanges, int(vc.Spec.AdditionalServiceCIDRs))
	// A range is for the tenant once vc-syncer knows it by the status.
	tenant.FurtherRanges = slices.DeleteFunc(slices.Clone(tenant.FurtherRanges), func(ranges iprange.Ranges) bool {
		left := knownDelay - tenant.Now.Sub(r.CIDRs.Since(ctx, claim, ranges))
		tenant.CheckAfter(left)
		return left > 0
	})
	texts := make([]string, len(further))
	for i, ranges := range further {
		texts[i] = ranges.String()
	}
	if len(further) > len(vc.Status.AdditionalServiceCIDRs) {
		tenant.CheckAfter(knownDelay)
	}
	if len(texts) > 0 {
		vc.Status.AdditionalServiceCIDRs = texts
	}
	return strings.Join(texts, " and "), err
}

// shareServiceCIDR lets the tenant share the super cluster's ranges. Its well-known Services have their addresses first.
func (r *Reconciler) shareServiceCIDR(ctx context.Context, tenant *provision.Tenant, claim servicecidr.Claim) (string, error) {
	super, further, err := r.CIDRs.Shared(ctx)
	if err != nil {
		return "", err
	}
	if len(super) == 0 {
		return "", &progress.Stall{
			Reason:  servicecidr.ReasonUnsupported,
			Message: "the super cluster does not tell which service range it has, so tenants cannot share it; start vc-manager with --service-cidr-pool set to the range",
		}
	}
	vc := tenant.VirtualCluster
	if vc.Status.ServiceAddresses == nil {
		vc.Status.ServiceAddresses = &tenancyv1alpha1.ServiceAddresses{}
	}
	had := vc.Status.ServiceAddresses
	addresses, err := r.CIDRs.Adopt(ctx, claim, servicecidr.Addresses{APIServer: parsed(had.Kubernetes), DNS: parsed(had.DNS)})
	if err != nil {
		return "", err
	}
	had.Kubernetes, had.DNS = text(addresses.APIServer), text(addresses.DNS)
	tenant.ServiceRanges, tenant.FurtherRanges = super, further
	tenant.APIServerIPs, tenant.DNSIP = []netip.Addr{addresses.APIServer}, addresses.DNS
	return fmt.Sprintf("shares the super cluster's range %s", super), nil
}

// parsed returns an address, not valid when there is none.
func parsed(text string) netip.Addr {
	address, _ := netip.ParseAddr(text)
	return address
}

// text is the reverse of parsed.
func text(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// hasRange says whether the control plane can be started: it need not wait until addresses are handed out.
func hasRange(tenant *provision.Tenant) bool { return len(tenant.ServiceRanges) > 0 }

// ensureFurtherRanges gives the tenant's API server the ranges that it was not started with.
func (r *Reconciler) ensureFurtherRanges(ctx context.Context, tenant *provision.Tenant) (string, error) {
	shares := tenant.VirtualCluster.Status.ServiceAddresses != nil && tenant.VirtualCluster.Status.ServiceCIDR == ""
	if len(tenant.FurtherRanges) == 0 && !shares {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, tenantTimeout)
	defer cancel()
	c, err := r.connect(ctx, tenant)
	if err != nil {
		return "", err
	}
	var list networkingv1.ServiceCIDRList
	err = c.List(ctx, &list, client.MatchingLabels{names.LabelManagedBy: names.Manager})
	if apierrors.IsNotFound(err) {
		if len(tenant.FurtherRanges) == 0 {
			return "", nil
		}
		return "", &progress.Stall{Reason: servicecidr.ReasonUnsupported, Message: "the tenant has no ServiceCIDR API for additional ranges, which Kubernetes 1.33 and later have; upgrade it"}
	}
	if err != nil {
		return "", unreachable(tenant, err)
	}
	return "", r.writeFurtherRanges(ctx, tenant, c, list.Items)
}

// writeFurtherRanges makes ServiceCIDRs of the tenant, and deletes those that are not wanted any more.
func (r *Reconciler) writeFurtherRanges(ctx context.Context, tenant *provision.Tenant, c client.Client, have []networkingv1.ServiceCIDR) error {
	wanted := map[string]bool{}
	for _, ranges := range tenant.FurtherRanges {
		wanted[ranges.String()] = true
		if slices.ContainsFunc(have, func(object networkingv1.ServiceCIDR) bool {
			return strings.Join(object.Spec.CIDRs, ",") == ranges.String()
		}) {
			continue
		}
		err := c.Create(ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "additional-", Labels: map[string]string{names.LabelManagedBy: names.Manager}},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: ranges.CIDRs()},
		})
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			return &progress.Stall{Reason: servicecidr.ReasonRejected, Message: fmt.Sprintf("the tenant does not accept a ServiceCIDR for %s: %v", ranges, err)}
		}
		if err != nil {
			return unreachable(tenant, err)
		}
	}
	for i := range have {
		object := &have[i]
		if wanted[strings.Join(object.Spec.CIDRs, ",")] || object.DeletionTimestamp != nil {
			continue
		}
		if err := c.Delete(ctx, object, client.Preconditions{UID: &object.UID}); client.IgnoreNotFound(err) != nil {
			return unreachable(tenant, err)
		}
	}
	return nil
}
