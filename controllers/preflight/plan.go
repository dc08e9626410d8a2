package preflight

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

const (
	// mostRanges is the number of bits of which at most the search for a free range makes use.
	mostRanges = 20
)

// candidate is a range that tenants' ranges are taken from.
type candidate struct {
	prefix netip.Prefix
	// bits is the prefix length of a tenant's range.
	bits int
	// parent is the range of the super cluster that it is a part of. One that is not valid is not known.
	parent netip.Prefix
	// object says that each tenant needs a ServiceCIDR.
	object bool
}

// plan returns the candidates for a configuration, and what is wrong with it.
func plan(facts *Facts, config Config) ([]candidate, *Finding) {
	if config.Pool == "" {
		return nil, nil
	}
	pool, err := servicecidr.ParsePool(config.Pool, cmp.Or(config.Size, Auto))
	if err == nil {
		pool, err = pool.Resolve(facts.Default, 0)
	}
	if err != nil {
		return nil, &Finding{Severity: Error, Reason: ReasonPoolInvalid, Message: err.Error(), Action: "Correct --service-cidr-pool or --service-cidr-size."}
	}
	var candidates []candidate
	for _, part := range pool.Parts() {
		prefix := part.Prefix
		c := candidate{prefix: prefix, bits: part.Size, parent: iprange.Covering(prefix, slices.Concat(facts.Default, facts.Ranges)...)}
		// Without the API and without knowing a range, a dry run tells whether the pool is in it.
		c.object = !c.parent.IsValid() && (facts.API || len(facts.Default) > 0)
		candidates = append(candidates, c)
	}
	if slices.ContainsFunc(candidates, func(c candidate) bool { return c.object != candidates[0].object }) {
		return nil, &Finding{
			Severity: Error, Reason: ReasonPoolInvalid, Action: "Use ranges that are parts of the super cluster's in both IP families, or in none.",
			Message: "the pool " + config.Pool + " is part of a range of the super cluster in one IP family only",
		}
	}
	return candidates, nil
}

// first returns the index of the first part that a tenant can have. The first part of a range of the super cluster is never
// given away, because its own kubernetes and kube-dns are in it.
func (c candidate) first() int64 {
	if c.parent.IsValid() && c.parent.Addr() == c.prefix.Addr() {
		return 1
	}
	return 0
}

// parts returns the number of parts, with those that no tenant can have.
func (c candidate) parts() int64 {
	if c.bits < c.prefix.Bits() {
		return 0
	}
	return 1 << min(c.bits-c.prefix.Bits(), mostRanges)
}

// capacity returns how many tenants fit.
func (c candidate) capacity(taken []netip.Prefix) Capacity {
	total := max(c.parts()-c.first(), 0)
	used, small := int64(0), map[netip.Prefix]bool{}
	for _, prefix := range taken {
		if !prefix.Overlaps(c.prefix) {
			continue
		}
		if prefix.Bits() < c.bits {
			used += 1 << min(c.bits-max(prefix.Bits(), c.prefix.Bits()), mostRanges)
			continue
		}
		small[netip.PrefixFrom(prefix.Addr(), c.bits).Masked()] = true
	}
	return Capacity{Range: c.prefix.String(), PrefixLength: c.bits, Tenants: total, Free: max(total-used-int64(len(small)), 0)}
}

// addresses returns those that a dry run is made of: of the Service kubernetes of the first and of the last tenant.
func (c candidate) addresses() []netip.Addr {
	var out []netip.Addr
	for _, index := range []int64{c.first(), c.parts() - 1} {
		if c.object || index < c.first() {
			continue
		}
		if addr := iprange.APIServer(iprange.Part(c.prefix, c.bits, uint64(index))); !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// own returns the ServiceCIDR that a dry run is made of; one that is not valid when there is none to make.
func (c candidate) own() netip.Prefix {
	if !c.object {
		return netip.Prefix{}
	}
	return iprange.Part(c.prefix, c.bits, uint64(c.parts()-1))
}
