package servicecidr

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

// Addresses are the cluster IPs of the well-known Services of a tenant that shares the super cluster's ranges.
type Addresses struct {
	// APIServer is that of the Service kubernetes, DNS that of kube-dns; not valid when there is none.
	APIServer, DNS netip.Addr
}

// Adopt returns the addresses that the super cluster has given to the tenant's well-known Services, and makes these when they
// are not there yet. Had are the addresses that they had before, which they get again where that is possible: pods and
// certificates carry them.
func (a *Allocator) Adopt(ctx context.Context, claim Claim, had Addresses) (Addresses, error) {
	apiServer, err := a.adopt(ctx, claim, claim.apiServer, had.APIServer)
	if err != nil || !claim.DNS {
		return Addresses{APIServer: apiServer}, err
	}
	dns, err := a.adopt(ctx, claim, claim.dns, had.DNS)
	return Addresses{APIServer: apiServer, DNS: dns}, err
}

// adopt returns the address of one Service.
func (a *Allocator) adopt(ctx context.Context, claim Claim, service func(iprange.Ranges, netip.Addr) claimed, had netip.Addr) (netip.Addr, error) {
	want := service(nil, had)
	key := client.ObjectKeyFromObject(want)
	existing := &corev1.Service{}
	err := a.Claims.Get(ctx, key, existing)
	if apierrors.IsNotFound(err) {
		err = a.claimService(ctx, claim, nil, want)
		if errors.As(err, new(*addressError)) && had.IsValid() { // in use, or of another cluster's range
			err = a.claimService(ctx, claim, nil, service(nil, netip.Addr{}))
		}
		if err == nil {
			err = a.Live.Get(ctx, key, existing)
		}
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("making Service %s: %w", key, a.explain(ctx, err))
	}
	if existing.Spec.ClusterIP == corev1.ClusterIPNone {
		return netip.Addr{}, nil // the tenant wants none
	}
	address, err := netip.ParseAddr(existing.Spec.ClusterIP)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading the cluster IP of Service %s: %w", key, err)
	}
	return address, nil
}

// Shared returns the ranges that the super cluster was started with, and further ones that it hands out addresses of. A
// tenant that shares them needs all, because its Services get whatever address the super cluster chooses.
func (a *Allocator) Shared(ctx context.Context) (first iprange.Ranges, further []iprange.Ranges, err error) {
	if first, err = a.Default(ctx); err != nil {
		return nil, nil, err
	}
	var list networkingv1.ServiceCIDRList
	if err := a.Client.List(ctx, &list); Absent(err) {
		return first, nil, nil
	} else if err != nil {
		return nil, nil, fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	for i := range list.Items {
		if object := &list.Items[i]; object.Name != defaultName && object.DeletionTimestamp == nil {
			further = append(further, rangesOf(object))
		}
	}
	return first, further, nil
}
