package servicecidr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// defaultName is the name of the ServiceCIDR that the super cluster was started with.
const defaultName = "kubernetes"

// survey is what is known of the ranges of the super cluster when a tenant claims one.
type survey struct {
	// super are the ranges that the super cluster was started with; none when they are not known.
	super iprange.Ranges
	// parents are ranges of the super cluster, not of tenants, that it hands out addresses of. Open says that they are not
	// known, because the super cluster has no ServiceCIDR API: every range may be part of one.
	parents []occupied
	open    bool
	// others are taken: by other tenants, and by nodes and their pods.
	others []occupied
	// object is the tenant's own ServiceCIDR, and claimed are the ranges that its Services claim.
	object  *networkingv1.ServiceCIDR
	claimed iprange.Ranges
	// further are ranges besides these.
	further []iprange.Ranges
}

// occupied is a range that somebody has.
type occupied struct {
	prefix netip.Prefix
	// by says who, for people.
	by string
}

// survey reads from the API server what a claim depends on.
func (a *Allocator) survey(ctx context.Context, claim Claim) (*survey, error) {
	s := &survey{}
	if err := a.readRanges(ctx, a.Live, claim, s); err != nil {
		return nil, err
	}
	if err := a.readClaims(ctx, claim, s); err != nil {
		return nil, err
	}
	var tenants tenancyv1alpha1.VirtualClusterList
	if err := a.Client.List(ctx, &tenants, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing VirtualClusters: %w", err)
	}
	for i := range tenants.Items {
		vc := &tenants.Items[i]
		key := client.ObjectKeyFromObject(vc)
		if names.Tenant(key, vc.UID) == claim.Tenant {
			continue
		}
		for _, text := range append([]string{vc.Status.ServiceCIDR}, vc.Status.AdditionalServiceCIDRs...) {
			if ranges, err := iprange.Parse(text); err == nil {
				s.occupy(ranges, "VirtualCluster "+key.String())
			}
		}
	}
	var nodes corev1.NodeList
	if err := a.Client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	for i := range nodes.Items {
		s.occupyNode(&nodes.Items[i])
	}
	return s, nil
}

// readRanges reads the ServiceCIDRs.
func (a *Allocator) readRanges(ctx context.Context, reader client.Reader, claim Claim, s *survey) error {
	var list networkingv1.ServiceCIDRList
	err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy) // nothing changes them
	if Absent(err) {
		s.open = true
		s.super, err = a.discovered.get(ctx, a.Client)
		return err
	}
	if err != nil {
		return fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	for i := range list.Items {
		object := &list.Items[i]
		if claim.owns(object) {
			s.object = object
			continue
		}
		ranges := rangesOf(object)
		if object.Name == defaultName {
			s.super = ranges
		}
		by := "ServiceCIDR " + object.Name + describeOwner(object)
		_, tenants := object.Labels[names.LabelTenant]
		for _, prefix := range ranges {
			if !tenants && Serves(object) {
				s.parents = append(s.parents, occupied{prefix, by})
				continue
			}
			s.others = append(s.others, occupied{prefix, by})
		}
	}
	return nil
}

// readClaims reads the Services by which tenants have ranges.
func (a *Allocator) readClaims(ctx context.Context, claim Claim, s *survey) error {
	var list corev1.ServiceList
	further := map[string]iprange.Ranges{}
	if err := a.Live.List(ctx, &list, client.MatchingLabels{names.LabelServiceRange: "true"}); err != nil {
		return fmt.Errorf("listing the Services that claim ranges: %w", err)
	}
	for i := range list.Items {
		service := &list.Items[i]
		ranges, err := iprange.Parse(service.Annotations[names.AnnotationServiceRange])
		if err != nil {
			continue // somebody changed it; the address stays taken
		}
		switch {
		case len(ranges) == 0: // of a tenant that shares the super cluster's range
			continue
		case service.Labels[names.LabelTenant] == string(claim.Tenant):
			// The Service kubernetes claims the first ranges.
			if further[ranges.String()] = ranges; service.Name == apiServerService {
				s.claimed = ranges
			}
			continue
		}
		s.occupy(ranges, "VirtualCluster "+service.Annotations[names.AnnotationVirtualCluster])
	}
	delete(further, s.claimed.String())
	for _, text := range slices.Sorted(maps.Keys(further)) {
		s.further = append(s.further, further[text])
	}
	return nil
}

func (s *survey) occupy(ranges iprange.Ranges, by string) {
	for _, prefix := range ranges {
		s.others = append(s.others, occupied{prefix, by})
	}
}

// occupyNode notes the addresses of a node and of its pods.
func (s *survey) occupyNode(node *corev1.Node) {
	for _, cidr := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			s.others = append(s.others, occupied{prefix.Masked(), "the pods of node " + node.Name})
		}
	}
	for _, address := range node.Status.Addresses {
		if addr, err := netip.ParseAddr(address.Address); err == nil {
			s.others = append(s.others, occupied{single(addr), "node " + node.Name})
		}
	}
}

// covers says whether every range is part of a range of the super cluster.
func (s *survey) covers(ranges iprange.Ranges) bool {
	parents := prefixes(s.parents)
	return s.open || len(ranges) > 0 && !slices.ContainsFunc(ranges, func(prefix netip.Prefix) bool {
		return !iprange.Covering(prefix, parents...).IsValid()
	})
}

// used returns the ranges that a tenant cannot have, with or without those of the super cluster.
func (s *survey) used(super bool) []netip.Prefix {
	used := prefixes(s.others)
	if super {
		used = append(used, prefixes(s.parents)...)
	}
	return used
}

func prefixes(of []occupied) []netip.Prefix {
	out := make([]netip.Prefix, len(of))
	for i, o := range of {
		out[i] = o.prefix
	}
	return out
}

// firstAddresses returns the first address of each range of the super cluster. No part that has it is given away: well-known
// Services of the super cluster are there.
func (s *survey) firstAddresses() []netip.Prefix {
	var first []netip.Prefix
	for _, parent := range s.parents {
		first = append(first, single(parent.prefix.Addr()))
	}
	for _, prefix := range s.super {
		first = append(first, single(prefix.Addr()))
	}
	return first
}

// isFirst says whether an address is the first of a range of the super cluster, which no Service can have.
func (s *survey) isFirst(address string) bool {
	return slices.ContainsFunc(s.firstAddresses(), func(first netip.Prefix) bool { return first.Addr().String() == address })
}

// check returns a Stall that says what is wrong with the ranges that a person asked for.
func (s *survey) check(claim Claim) error {
	if err := sameFamilies(claim.Wanted, s.super, claim.External); err != nil {
		return err
	}
	taken := s.others
	if !s.covers(claim.Wanted) {
		taken = slices.Concat(s.parents, taken)
	} else if first := claim.Wanted.Overlapping(s.firstAddresses()...); first.IsValid() {
		return &progress.Stall{
			Reason:  ReasonOverlap,
			Message: fmt.Sprintf("the range %s begins where the super cluster's own does, which has its well-known Services there; use another one", claim.Wanted),
		}
	}
	for _, o := range taken {
		if claim.Wanted.Overlapping(o.prefix).IsValid() {
			return &progress.Stall{
				Reason:  ReasonOverlap,
				Message: fmt.Sprintf("the range %s overlaps %s of %s; use another one", claim.Wanted, o.prefix, o.by),
			}
		}
	}
	return nil
}

// Default returns the ranges the super cluster was started with; none when it does not tell.
func (a *Allocator) Default(ctx context.Context) (iprange.Ranges, error) {
	object := &networkingv1.ServiceCIDR{}
	err := a.Client.Get(ctx, client.ObjectKey{Name: defaultName}, object)
	if Absent(err) {
		return a.discovered.get(ctx, a.Client)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the super cluster's ServiceCIDR: %w", err)
	}
	return someRangesOf(object)
}

// discovery remembers the range of a super cluster that has no ServiceCIDR API.
type discovery struct {
	mu     sync.Mutex
	known  bool           // guarded by mu
	ranges iprange.Ranges // guarded by mu
}

func (d *discovery) get(ctx context.Context, c client.Client) (iprange.Ranges, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known {
		return d.ranges, nil
	}
	ranges, err := named(ctx, c)
	if err != nil && !errors.As(err, new(*UnknownRangeError)) {
		return nil, err
	}
	if len(ranges) > 0 {
		d.known, d.ranges = true, ranges
	}
	return ranges, nil
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// Absent says whether an object, or its kind, is not there.
func Absent(err error) bool {
	return apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err)
}
