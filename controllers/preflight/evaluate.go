package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

const (
	// fewTenants is the number below which a range is said to have room for few.
	fewTenants = 16
	// antreaSlack is how many bits shorter Antrea's prefix may be than the ranges in it.
	antreaSlack = 4
)

// evaluate says what follows from the facts. It is pure.
func evaluate(facts *Facts, config Config) *Report {
	r := &Report{KubernetesVersion: facts.Version, ServiceRanges: facts.Default.String(), Findings: []Finding{}}
	defer r.sort()
	for _, what := range facts.NotRead {
		r.add(Warning, ReasonNotRead, "Use credentials that may read it.", "not read, and so not checked: %s", what)
	}
	candidates, problem := plan(facts, config)
	if problem != nil {
		r.Findings = append(r.Findings, *problem)
		return r
	}
	if len(candidates) == 0 {
		r.withoutRanges(facts, config)
		return r
	}
	r.mode(facts, candidates)
	r.families(facts, candidates)
	for _, c := range candidates {
		r.room(facts, c)
		r.answers(facts, c)
		r.overlaps(facts, c, config)
		r.dataplanes(facts, c)
	}
	return r
}

// withoutRanges is about a configuration that gives tenants no ranges.
func (r *Report) withoutRanges(facts *Facts, config Config) {
	if config.Pool == Auto || len(facts.Default) == 0 {
		if config.Pool == Auto {
			r.Mode = ModeParts
		} else {
			r.Mode = ModeAdoption
		}
		r.add(Error, ReasonRangeUnknown, "Set --service-cidr-pool to a part of the --service-cluster-ip-range of the super cluster's API server.",
			"the super cluster's range of Services is not known: %s", facts.Unknown)
		return
	}
	r.Mode = ModeAdoption
	r.add(Info, string(ModeAdoption), "", "the pool is empty: tenants have the range %s of the super cluster, which chooses the address of each Service", facts.Default)
	r.add(Warning, ReasonAddressesOfTheSuper, "Use this mode only where no other one is possible.",
		"a Service of a tenant has its address only after the super cluster has chosen one")
	for _, prefix := range facts.Default {
		c := candidate{prefix: prefix, bits: servicecidr.DefaultSize(prefix), parent: prefix}
		if c.capacity(nil).Tenants >= fewTenants {
			r.add(Info, ReasonPartsWouldBeBetter, "Use --service-cidr-pool=auto.", "%s can be divided: it has room for %d tenants with a /%d each",
				prefix, c.capacity(nil).Tenants, c.bits)
		}
	}
}

// mode says which mode this is, and why.
func (r *Report) mode(facts *Facts, candidates []candidate) {
	var objects, parts []string
	for _, c := range candidates {
		switch {
		case c.object:
			objects = append(objects, c.prefix.String())
		case c.parent == c.prefix:
			parts = append(parts, c.prefix.String())
		case c.parent.IsValid():
			parts = append(parts, fmt.Sprintf("%s, which is in %s", c.prefix, c.parent))
		default:
			parts = append(parts, c.prefix.String()+", as far as dry runs tell")
		}
	}
	if len(objects) == 0 {
		r.Mode = ModeParts
		r.add(Info, string(ModeParts), "", "the super cluster serves %s: each tenant gets a part of it, without objects of its own", strings.Join(parts, "; "))
		return
	}
	r.Mode = ModeObjects
	if !facts.API {
		r.add(Error, ReasonNoAPI, inside, "%s is not in the super cluster's range %s, and %s does not serve ServiceCIDRs, as Kubernetes 1.33 does",
			strings.Join(objects, ", "), facts.Default, facts.Version)
		return
	}
	r.add(Info, string(ModeObjects), "", "the super cluster does not serve %s yet: each tenant needs a ServiceCIDR", strings.Join(objects, ", "))
	r.add(Warning, ReasonOwnServices, "Make one ServiceCIDR for the whole pool before the first tenant, or use --service-cidr-pool=auto.",
		"the super cluster also gives its own Services addresses of tenants' ServiceCIDRs, and its API servers work harder with each of them")
}

// families compares the IP families of the candidates with those of the super cluster.
func (r *Report) families(facts *Facts, candidates []candidate) {
	if len(facts.Default) == 0 {
		return
	}
	for i, c := range candidates {
		same := func(other netip.Prefix) bool { return other.Addr().Is4() == c.prefix.Addr().Is4() }
		if !slices.ContainsFunc(facts.Default, same) {
			r.add(Error, ReasonWrongFamily, "Use a pool of the IP family that the super cluster has.",
				"%s is of an IP family that Services of the super cluster do not have: it has %s", c.prefix, facts.Default)
		} else if i == 0 && !same(facts.Default.Primary()) {
			r.add(Error, ReasonWrongFamily, "Change the order of the pool.",
				"the first range of the pool, %s, must be of the same IP family as the first of the super cluster, %s", c.prefix, facts.Default.Primary())
		}
	}
}

// room says how many tenants fit.
func (r *Report) room(facts *Facts, c candidate) {
	capacity := c.capacity(facts.Tenants)
	r.Ranges = append(r.Ranges, capacity)
	larger := "Set a longer --service-cidr-size."
	if facts.API {
		larger = "Make a larger ServiceCIDR for tenants and set --service-cidr-pool to it, or set a longer --service-cidr-size."
	}
	if capacity.Tenants > 0 {
		r.add(Info, ReasonCapacity, "", "%s has room for %d tenants with a /%d each (%s addresses), of which %d are free",
			c.prefix, capacity.Tenants, c.bits, addresses(c), capacity.Free)
	}
	switch {
	case capacity.Tenants == 0:
		r.add(Error, ReasonRangeTooSmall, larger+" Or set an empty --service-cidr-pool, so that tenants adopt addresses.",
			"%s is too small to be divided: no tenant fits", c.prefix)
	case capacity.Free == 0:
		r.add(Error, ReasonExhausted, larger, "all %d ranges for tenants in %s are taken: there is none for another tenant", capacity.Tenants, c.prefix)
	case capacity.Free*10 < capacity.Tenants:
		r.add(Warning, ReasonNearlyExhausted, larger, "%d of %d ranges for tenants in %s are free", capacity.Free, capacity.Tenants, c.prefix)
	case capacity.Tenants < fewTenants:
		r.add(Warning, ReasonFewTenants, larger, "%s has room for %d tenants only", c.prefix, capacity.Tenants)
	}
}

// addresses returns, for people, how many addresses a tenant has.
func addresses(c candidate) string {
	bits := c.prefix.Addr().BitLen() - c.bits
	if bits > mostRanges {
		return "more than a million"
	}
	return fmt.Sprint(1<<bits - 2)
}

// answers is about what the API server said in dry runs.
func (r *Report) answers(facts *Facts, c candidate) {
	for _, addr := range c.addresses() {
		switch said := facts.Answers[addr.String()]; said.Verdict {
		case NotInRange:
			r.add(Error, ReasonNotInRange, inside, "the API server has no range with the address %s of %s: %s", addr, c.prefix, said.Message)
		case Refused:
			r.add(Error, ReasonServicesRefused, "Allow vc-manager and vc-syncer to create Services at addresses of their choice.",
				"the API server refuses a Service at %s: %s", addr, said.Message)
		}
	}
	if said, ok := facts.Answers[c.own().String()]; ok && said.Verdict == Refused {
		r.add(Error, ReasonObjectsRefused, inside, "the API server refuses a ServiceCIDR of %s: %s", c.own(), said.Message)
	}
}

// overlaps compares a candidate with other addresses in use.
func (r *Report) overlaps(facts *Facts, c candidate, config Config) {
	severity, action := Error, "Use another pool."
	if config.Pool == Auto {
		severity, action = Warning, "Check that nothing needs these addresses: the range is the super cluster's own."
	}
	if c.object {
		if other := (iprange.Ranges{c.prefix}).Overlapping(facts.Ranges...); other.IsValid() {
			r.add(Warning, ReasonOverlapsRange, "Use a pool that is inside or outside of it.", "%s contains the super cluster's range %s; tenants get ranges beside it only", c.prefix, other)
		}
	}
	pods, addresses := []string{}, []string{}
	for _, node := range facts.Nodes {
		for _, prefix := range node.PodRanges {
			if prefix.Overlaps(c.prefix) {
				pods = append(pods, fmt.Sprintf("%s of node %s", prefix, node.Name))
			}
		}
		for _, addr := range node.Addresses {
			if c.prefix.Contains(addr) {
				addresses = append(addresses, fmt.Sprintf("%s of node %s", addr, node.Name))
			}
		}
	}
	if len(pods) > 0 {
		r.add(severity, ReasonOverlapsPods, action, "%s overlaps the pod range %s", c.prefix, some(pods))
	}
	if len(addresses) > 0 {
		r.add(severity, ReasonOverlapsNodes, action, "%s contains the address %s", c.prefix, some(addresses))
	}
}

// some returns the first of texts and how many more there are.
func some(texts []string) string {
	if len(texts) == 1 {
		return texts[0]
	}
	return fmt.Sprintf("%s, and %d more", texts[0], len(texts)-1)
}

// dataplanes applies what is known about the dataplanes that were found.
func (r *Report) dataplanes(facts *Facts, c candidate) {
	isDefault := iprange.Covering(c.prefix, facts.Default...).IsValid()
	for _, found := range facts.Dataplanes {
		for _, known := range rules() {
			if known.name != found.Name {
				continue
			}
			if known.outside != nil && !isDefault {
				f := *known.outside
				f.Message += fmt.Sprintf("; %s is not in the super cluster's range %s", c.prefix, facts.Default)
				r.Findings = append(r.Findings, f)
			}
			if other := (iprange.Ranges{c.prefix}).Overlapping(parse(known.forbidden)...); other.IsValid() {
				r.add(Error, ReasonForbiddenRange, "Use another pool.", "%s does not allow Services in %s, which %s overlaps", known.name, other, c.prefix)
			}
		}
		if other := (iprange.Ranges{c.prefix}).Overlapping(found.PodRanges...); other.IsValid() {
			r.add(Warning, ReasonOverlapsPods, "Give "+found.Name+" a pod range beside it, or check that it never hands out pod ranges in it.",
				"%s overlaps the range %s that %s takes pods' addresses from, and %[3]s does not avoid it", c.prefix, other, found.Name)
		}
		if len(found.Advertised) > 0 && !iprange.Covering(c.prefix, found.Advertised...).IsValid() {
			r.add(Warning, ReasonNotAdvertised, "Add the range to spec.serviceClusterIPs of the BGPConfiguration.",
				"%s advertises cluster IPs of %s to routers, but not of %s", found.Name, list(found.Advertised), c.prefix)
		}
		if found.Name == antrea {
			r.antrea(facts, c)
		}
	}
}

// antrea is about the route of Antrea's agents: one, for the smallest prefix that contains all cluster IPs.
func (r *Report) antrea(facts *Facts, c candidate) {
	for _, prefix := range facts.Default {
		if prefix.Addr().Is4() != c.prefix.Addr().Is4() {
			continue
		}
		route := common(prefix, c.prefix)
		if route.Bits() >= min(prefix.Bits(), c.prefix.Bits())-antreaSlack {
			continue
		}
		severity, also := Warning, ""
		for _, node := range facts.Nodes {
			if slices.ContainsFunc(node.Addresses, route.Contains) || slices.ContainsFunc(node.PodRanges, route.Overlaps) {
				severity, also = Error, ", which contains addresses of nodes or pods"
			}
		}
		r.add(severity, ReasonAntreaRoute, "Use a pool beside the super cluster's range.",
			"Antrea routes one prefix for all cluster IPs: with %s and %s, this is %s%s", prefix, c.prefix, route, also)
	}
}
