// Package servicecidr gives every tenant ranges of cluster IPs of its own. This file computes ranges and talks to
// nobody; allocator.go claims them by creating a ServiceCIDR object in the super cluster, whose set of ServiceCIDR objects
// is the only record of what is taken.
package servicecidr

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

const (
	// smallestIPv4 and largestIPv4 are the prefix lengths a range may have; likewise for IPv6.
	smallestIPv4, largestIPv4 = 28, 12
	smallestIPv6, largestIPv6 = 124, 64
)

// Pool is a range, or one of each IP family, that is divided into equal ranges, one for each tenant.
type Pool struct {
	ranges iprange.Ranges
	bits   []int
}

// ParsePool returns the pool of the given ranges, divided into ranges of the given prefix lengths, both separated by
// commas. Empty ranges are an empty pool.
func ParsePool(cidrs, sizes string) (Pool, error) {
	ranges, err := iprange.Parse(cidrs)
	if err != nil {
		return Pool{}, fmt.Errorf("reading the pool of service ranges: %w", err)
	}
	if len(ranges) == 0 {
		return Pool{}, nil
	}
	pool := Pool{ranges: ranges}
	for size := range strings.SplitSeq(sizes, ",") {
		bits, err := strconv.Atoi(size)
		if err != nil {
			return Pool{}, fmt.Errorf("the size of service ranges %q is not a prefix length, for instance 22", size)
		}
		pool.bits = append(pool.bits, bits)
	}
	if len(pool.bits) != len(ranges) {
		return Pool{}, fmt.Errorf("the pool of service ranges %s needs as many sizes as it has ranges, not %s", ranges, sizes)
	}
	for i, prefix := range ranges {
		if bits := pool.bits[i]; bits < prefix.Bits() || bits > smallest(prefix.Addr()) {
			return Pool{}, fmt.Errorf("the size of service ranges is /%d, must be between /%d (the pool) and /%d", bits, prefix.Bits(), smallest(prefix.Addr()))
		}
	}
	return pool, nil
}

// Empty says whether there is no pool.
func (p Pool) Empty() bool { return len(p.ranges) == 0 }

// String returns the pool for people.
func (p Pool) String() string {
	texts := make([]string, len(p.ranges))
	for i, prefix := range p.ranges {
		texts[i] = fmt.Sprintf("%s in ranges of /%d", prefix, p.bits[i])
	}
	return strings.Join(texts, " and ")
}

// Next returns ranges of the pool that overlap none of those used, beginning the search at a place that depends on the
// seed, so that tenants rarely contend for the same ones and a range that became free is not used again at once.
func (p Pool) Next(seed string, used []netip.Prefix) (iprange.Ranges, bool) {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(seed))
	next := make(iprange.Ranges, 0, len(p.ranges))
	for i := range p.ranges {
		prefix, ok := p.nextOf(i, hash.Sum64(), used)
		if !ok {
			return nil, false
		}
		next = append(next, prefix)
	}
	return next, len(next) > 0
}

// nextOf does what Next does for one IP family.
func (p Pool) nextOf(family int, seed uint64, used []netip.Prefix) (netip.Prefix, bool) {
	prefix, bits := p.ranges[family], p.bits[family]
	// More than 2^20 ranges are not searched: nobody has as many tenants.
	count := uint64(1) << min(bits-prefix.Bits(), 20)
	start := seed % count
	for i := range count {
		candidate := iprange.Part(prefix, bits, (start+i)%count)
		if !(iprange.Ranges{candidate}).Overlapping(used...).IsValid() {
			return candidate, true
		}
	}
	return netip.Prefix{}, false
}

// Parse reads the ranges that a person wrote for one tenant and says what is wrong with them in words for them.
func Parse(cidrs string) (iprange.Ranges, error) {
	ranges, err := iprange.Parse(cidrs)
	if err != nil {
		return nil, err
	}
	for _, prefix := range ranges {
		if prefix.Bits() > smallest(prefix.Addr()) || prefix.Bits() < largest(prefix.Addr()) {
			return nil, fmt.Errorf("the size of %s must be between /%d and /%d", prefix, largest(prefix.Addr()), smallest(prefix.Addr()))
		}
	}
	return ranges, nil
}

// objectName returns the name of the ServiceCIDR object for ranges. Because it follows from the first one alone, the API
// server lets only one tenant have that.
func objectName(ranges iprange.Ranges) string {
	first := ranges.Primary()
	return "tenant-" + strings.NewReplacer(":", "-", "/", "-").Replace(first.Addr().StringExpanded()+"/"+strconv.Itoa(first.Bits()))
}

func smallest(addr netip.Addr) int {
	if addr.Is4() {
		return smallestIPv4
	}
	return smallestIPv6
}

func largest(addr netip.Addr) int {
	if addr.Is4() {
		return largestIPv4
	}
	return largestIPv6
}
