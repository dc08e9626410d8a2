package preflight

import (
	"context"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func familyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// tryServiceCIDR creates a ServiceCIDR in a dry run.
func tryServiceCIDR(ctx context.Context, dryRun client.Writer, prefix netip.Prefix) error {
	object := &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "vc-preflight"},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{prefix.String()}},
	}
	return dryRun.Create(ctx, object, client.DryRunAll, client.FieldOwner(names.Manager))
}

// answer returns what the API server said in a dry run; the error is for one that said nothing.
func answer(err error) (Answer, error) {
	switch {
	case err == nil:
		return Answer{Verdict: Accepted}, nil
	case !servicecidr.IsAnswer(err), strings.Contains(err.Error(), "does not support dry run"):
		return Answer{}, err
	case strings.Contains(err.Error(), "already allocated"):
		// It is in the range, and another tenant's or an operator's.
		return Answer{Verdict: Accepted}, nil
	case strings.Contains(err.Error(), "not in the valid range"), strings.Contains(err.Error(), "does not match the current range"):
		return Answer{Verdict: NotInRange, Message: err.Error()}, nil
	}
	return Answer{Verdict: Refused, Message: err.Error()}, nil
}
