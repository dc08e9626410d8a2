package virtualcluster

import (
	"context"
	"fmt"
	"net/netip"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
)

// reasonCIDRInvalid is the reason when spec.serviceCidr is not usable.
const reasonCIDRInvalid = "ServiceCIDRInvalid"

// allocateServiceCIDR gives the tenant a range for its cluster IPs. Without a pool it shares the super cluster's.
func (r *Reconciler) allocateServiceCIDR(ctx context.Context, tenant *provision.Tenant) (string, error) {
	vc := tenant.VirtualCluster
	claim := servicecidr.Claim{Labels: tenant.Labels(), Annotations: tenant.Annotations()}
	if vc.Spec.ServiceCIDR != "" {
		wanted, err := servicecidr.Parse(vc.Spec.ServiceCIDR)
		if err != nil {
			return "", &progress.Stall{Reason: reasonCIDRInvalid, Message: "spec.serviceCidr: " + err.Error()}
		}
		claim.Wanted = wanted
	}
	if vc.Status.ServiceCIDR != "" {
		held, err := netip.ParsePrefix(vc.Status.ServiceCIDR)
		if err != nil {
			return "", fmt.Errorf("reading status.serviceCidr: %w", err)
		}
		claim.Held = held
	}
	if !claim.Wanted.IsValid() && !claim.Held.IsValid() {
		if controlPlaneType(vc) == tenancyv1alpha1.External {
			return "the External control plane's range is not known; set spec.serviceCidr to have cluster IPs agree", nil
		}
		if r.CIDRs.Pool.Empty() {
			super, err := r.CIDRs.Default(ctx)
			if err != nil {
				return "", err
			}
			tenant.ServiceRange = super
			return fmt.Sprintf("shares the super cluster's range %s", super), nil
		}
	}

	prefix, err := r.CIDRs.Ensure(ctx, claim)
	if !prefix.IsValid() {
		return "", err
	}
	tenant.ServiceRange = prefix
	vc.Status.ServiceCIDR = prefix.String()
	// With an error here, the range is the tenant's but the super cluster does not hand out addresses of it yet.
	return fmt.Sprintf("has the range %s", prefix), err
}

// hasRange says whether the control plane can be started: it need not wait until addresses are handed out.
func hasRange(tenant *provision.Tenant) bool { return tenant.ServiceRange.IsValid() }
