package virtualcluster

import (
	"context"
	"fmt"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

// allocateServiceCIDR gives the tenant ranges for its cluster IPs. Without a pool it shares the super cluster's.
func (r *Reconciler) allocateServiceCIDR(ctx context.Context, tenant *provision.Tenant) (string, error) {
	vc := tenant.VirtualCluster
	external := controlPlaneType(vc) == tenancyv1alpha1.External
	claim := servicecidr.Claim{
		Tenant: tenant.ID, Labels: tenant.Labels(), Annotations: tenant.Annotations(),
		Bits: int(vc.Spec.ServiceCIDRSize), External: external, DNS: wantsCoreDNS(vc) && !external,
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
		if r.CIDRs.Pool.Empty() {
			super, err := r.CIDRs.Default(ctx)
			if err != nil {
				return "", err
			}
			tenant.ServiceRanges = super
			return fmt.Sprintf("shares the super cluster's range %s", super), nil
		}
	}

	ranges, err := r.CIDRs.Ensure(ctx, claim)
	if len(ranges) == 0 {
		return "", err
	}
	tenant.ServiceRanges = ranges
	vc.Status.ServiceCIDR = ranges.String()
	// With an error here, the range is the tenant's but the super cluster does not hand out addresses of it yet.
	return fmt.Sprintf("has the range %s", ranges), err
}

// hasRange says whether the control plane can be started: it need not wait until addresses are handed out.
func hasRange(tenant *provision.Tenant) bool { return len(tenant.ServiceRanges) > 0 }
