package servicecidr

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Reasons for which a tenant has no range.
const (
	ReasonInvalid       = "ServiceCIDRInvalid"
	ReasonOverlap       = "ServiceCIDROverlap"
	ReasonPoolExhausted = "ServiceCIDRPoolExhausted"
	ReasonUnsupported   = "ServiceCIDRUnsupported"
	ReasonTaken         = "ServiceCIDRTaken"
	ReasonRejected      = "ServiceCIDRRejected"
	ReasonContended     = "ServiceCIDRContended"
	ReasonNotReady      = "ServiceCIDRNotReady"
)

// contendedDelay is when a tenant tries again whose range another one claimed at the same time.
const contendedDelay = 200 * time.Millisecond

// Allocator gives tenants ranges and claims them in the super cluster.
//
// A range that is part of a range of the super cluster is claimed by Services at well-known addresses of it: the API server
// hands out each address once. Any other range is claimed by a ServiceCIDR object, whose name follows from the range.
// Ranges of different sizes can overlap all the same. So every claimant looks again after it has claimed, and gives up
// its own claim when there is another; because both look after they have claimed, one of them sees the other.
type Allocator struct {
	// Client reads from a cache and writes; Live reads from the API server.
	Client client.Client
	Live   client.Reader
	// Claims reads the Services by which tenants have ranges from a cache.
	Claims client.Reader
	Pool   Pool

	discovered discovery
}

// Claim says who wants a range, and which.
type Claim struct {
	Tenant names.TenantID
	// Labels and Annotations are those of objects that are made for the tenant.
	Labels, Annotations map[string]string
	// Wanted are the ranges that a person asked for. Without, they are taken from the pool.
	Wanted iprange.Ranges
	// Bits is the prefix length of the first range when it is taken from the pool; zero for that of the pool.
	Bits int
	// Held are the ranges that the tenant was given before.
	Held iprange.Ranges
	// External says that the API server does not run in the super cluster. The first range may then be of another IP family
	// than the super cluster's first.
	External bool
	// DNS says that the cluster DNS of the tenant has its usual address.
	DNS bool
}

// Ensure returns the tenant's ranges and whether the super cluster can use them already, in which case the error is nil.
// With an error, there are ranges if they have been claimed.
func (a *Allocator) Ensure(ctx context.Context, claim Claim) (iprange.Ranges, error) {
	if len(claim.Held) > 0 {
		return claim.Held, a.keep(ctx, claim)
	}
	s, err := a.survey(ctx, claim)
	if err != nil {
		return nil, err
	}
	// An earlier attempt may have been interrupted before it could be told.
	if len(s.claimed) > 0 && s.covers(s.claimed) {
		err := a.claimParts(ctx, claim, s.claimed, claim.services(s.claimed))
		if err == nil {
			return s.claimed, nil
		}
		if !taken(err) {
			return nil, a.explain(ctx, err)
		}
	}
	if s.object != nil {
		return a.claimObject(ctx, claim, s, rangesOf(s.object))
	}
	if len(claim.Wanted) > 0 {
		return a.take(ctx, claim, s)
	}
	pool, err := a.resolved(claim, s)
	if err != nil {
		return nil, err
	}
	return a.draw(ctx, claim, s, pool, claim.services)
}

// Extend returns the ranges that the tenant has besides the first, as many as are asked for. Held are those that it was given
// before. With an error, there are those that have been claimed.
func (a *Allocator) Extend(ctx context.Context, claim Claim, held []iprange.Ranges, count int) ([]iprange.Ranges, error) {
	for _, ranges := range held {
		if err := a.claimAll(ctx, claim, ranges, claim.further(ranges, ranges)); err != nil {
			return held, a.explain(ctx, err)
		}
	}
	for len(held) < count {
		s, err := a.survey(ctx, claim)
		if err != nil {
			return held, err
		}
		next, err := a.extend(ctx, claim, s, held)
		if err != nil {
			return held, err
		}
		held = append(slices.Clone(held), next)
	}
	return held, nil
}

// extend claims one more range.
func (a *Allocator) extend(ctx context.Context, claim Claim, s *survey, held []iprange.Ranges) (iprange.Ranges, error) {
	known := append(slices.Clone(held), claim.Held)
	for _, ranges := range s.further { // of an earlier attempt that was interrupted
		if !slices.ContainsFunc(known, func(h iprange.Ranges) bool { return h.Overlapping(ranges...).IsValid() }) {
			return ranges, a.explain(ctx, a.claimParts(ctx, claim, ranges, claim.further(ranges, ranges)))
		}
	}
	pool, err := a.resolved(claim, s)
	if err != nil {
		return nil, err
	}
	if !s.covers(pool.ranges) {
		return nil, &progress.Stall{
			Reason:  ReasonUnsupported,
			Message: fmt.Sprintf("additional ranges must be parts of a range of the super cluster, and the pool %s is none; create a ServiceCIDR for the pool in the super cluster", pool),
		}
	}
	for _, ranges := range known {
		s.occupy(ranges, "this VirtualCluster")
	}
	return a.draw(ctx, claim, s, pool, func(ranges iprange.Ranges) []claimed { return claim.further(ranges, ranges) })
}

// keep sees to it that the tenant still has its claims, and exchanges a ServiceCIDR object for Services once a range of the
// super cluster covers the tenant's.
func (a *Allocator) keep(ctx context.Context, claim Claim) error {
	s := &survey{}
	if err := a.readRanges(ctx, a.Client, claim, s); err != nil {
		return err
	}
	if s.covers(claim.Held) {
		// A range that had a ServiceCIDR may begin where the one that covers it now does.
		services := slices.DeleteFunc(claim.services(claim.Held), func(c claimed) bool { return s.isFirst(c.Spec.ClusterIP) })
		if err := a.claimAll(ctx, claim, claim.Held, services); err != nil {
			return a.explain(ctx, err)
		}
		if s.object != nil {
			return a.deleteObject(ctx, s.object)
		}
		return nil
	}
	if s.object != nil && s.object.DeletionTimestamp == nil {
		return usable(s.object)
	}
	if s.object == nil && a.has(ctx, claim.apiServer(claim.Held, iprange.APIServer(claim.Held.Primary())), claim.Held) {
		return &progress.Wait{
			Reason:  ReasonNotReady,
			Message: fmt.Sprintf("the super cluster has no ServiceCIDR that is ready and covers the range %s; make the one that did again", claim.Held),
			After:   takenDelay,
		}
	}
	s, err := a.survey(ctx, claim)
	if err != nil {
		return err
	}
	_, err = a.claimObject(ctx, claim, s, claim.Held)
	return err
}

// take claims the ranges that a person asked for.
func (a *Allocator) take(ctx context.Context, claim Claim, s *survey) (iprange.Ranges, error) {
	if err := s.check(claim); err != nil {
		return nil, err
	}
	if !s.covers(claim.Wanted) {
		return a.claimObject(ctx, claim, s, claim.Wanted)
	}
	if err := a.claimParts(ctx, claim, claim.Wanted, claim.services(claim.Wanted)); err != nil {
		return nil, a.explain(ctx, err)
	}
	return claim.Wanted, nil
}

// resolved returns the pool as it is in the super cluster.
func (a *Allocator) resolved(claim Claim, s *survey) (Pool, error) {
	if a.Pool.auto && len(s.super) == 0 {
		return Pool{}, &progress.Stall{
			Reason:  ReasonUnsupported,
			Message: "the super cluster does not tell which service range it has; start vc-manager with --service-cidr-pool set to the --service-cluster-ip-range of its kube-apiserver, or to a part of it",
		}
	}
	pool, err := a.Pool.Resolve(s.super, claim.Bits)
	if err != nil {
		return Pool{}, &progress.Stall{Reason: ReasonInvalid, Message: err.Error()}
	}
	return pool, nil
}

// draw takes ranges from the pool and claims them, by Services that a function returns where they are parts of ranges of the
// super cluster.
func (a *Allocator) draw(ctx context.Context, claim Claim, s *survey, pool Pool, services func(iprange.Ranges) []claimed) (iprange.Ranges, error) {
	// Each attempt writes, so another reconciliation goes on after some.
	const attempts = 16
	parts := s.covers(pool.ranges)
	if !parts && slices.ContainsFunc(pool.ranges, func(prefix netip.Prefix) bool { return s.covers(iprange.Ranges{prefix}) }) {
		return nil, &progress.Stall{
			Reason:  ReasonUnsupported,
			Message: fmt.Sprintf("the pool %s is part of a range of the super cluster in one IP family only; start vc-manager with a --service-cidr-pool that is so in both or in none", pool),
		}
	}
	used := s.used(!parts)
	if parts {
		used = append(used, s.firstAddresses()...)
	}
	for range attempts {
		next, ok := pool.Next(string(claim.Tenant), used)
		if !ok {
			return nil, &progress.Stall{
				Reason:  ReasonPoolExhausted,
				Message: fmt.Sprintf("no range is free in the pool %s; start vc-manager with a larger --service-cidr-pool, ask for a smaller one with spec.serviceCidrSize, or delete a VirtualCluster", pool),
			}
		}
		if err := sameFamilies(next, s.super, claim.External); err != nil {
			return nil, err
		}
		if !parts {
			return a.claimObject(ctx, claim, s, next)
		}
		err := a.claimParts(ctx, claim, next, services(next))
		if err == nil {
			return next, nil
		}
		if !taken(err) {
			return nil, a.explain(ctx, err)
		}
		used = append(used, next...)
	}
	return nil, &progress.Wait{Reason: ReasonContended, Message: "Services of the super cluster have well-known addresses of the ranges that were tried; others are tried next", After: contendedDelay}
}

// claimParts claims ranges that are parts of ranges of the super cluster, and gives them up again when they are not free.
func (a *Allocator) claimParts(ctx context.Context, claim Claim, ranges iprange.Ranges, services []claimed) error {
	err := a.claimAll(ctx, claim, ranges, services)
	if err == nil {
		var s *survey
		if s, err = a.survey(ctx, claim); err == nil && ranges.Overlapping(s.used(false)...).IsValid() {
			err = contended(ranges)
		}
	}
	if err == nil {
		return nil
	}
	if released := a.release(ctx, claim, ranges, services); released != nil {
		return released
	}
	return err
}

// sameFamilies returns a Stall when ranges are of an IP family that the super cluster has none of, whose Services could not
// have their addresses, or when the first ones differ, which kube-apiserver refuses: its own address is of the family that
// pods have first.
func sameFamilies(chosen, super iprange.Ranges, anyOrder bool) error {
	if len(super) == 0 {
		return nil // not known; the API server says so
	}
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

func contended(ranges iprange.Ranges) error {
	return &progress.Wait{Reason: ReasonContended, Message: fmt.Sprintf("the range %s was taken by another tenant in the meantime", ranges), After: contendedDelay}
}
