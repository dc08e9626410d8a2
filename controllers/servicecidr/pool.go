// Package servicecidr gives every tenant ranges of cluster IPs of its own. This file computes ranges and talks to
// nobody; allocator.go decides which range a tenant has, services.go claims one that is part of a range of the super
// cluster, and objects.go one that needs a ServiceCIDR object. What is claimed in the super cluster is the only record of
// what is taken.
package servicecidr

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

const (
	// smallestIPv4 and largestIPv4 are the prefix lengths a range may have; likewise for IPv6.
	smallestIPv4, largestIPv4 = 28, 12
	smallestIPv6, largestIPv6 = 124, 64
)

// Auto stands, as a pool, for the ranges that the super cluster was started with; as a size, for one that depends on the
// size of the pool.
const Auto = "auto"

// Pool is a range, or one of each IP family, that is divided into equal ranges, one for each tenant.
type Pool struct {
	// auto says that the ranges are those of the super cluster, and are not known yet.
	auto   bool
	ranges iprange.Ranges
	// bits are the prefix lengths of the tenants' ranges, none, or zero, when they depend on the size of the pool's.
	bits []int
}

// ParsePool returns the pool of the given ranges, divided into ranges of the given prefix lengths, both separated by
// commas. Either may be Auto. Empty ranges are an empty pool.
func ParsePool(cidrs, sizes string) (Pool, error) {
	if cidrs == "" {
		return Pool{}, nil
	}
	pool := Pool{auto: cidrs == Auto}
	if sizes != Auto {
		for size := range strings.SplitSeq(sizes, ",") {
			if size == Auto {
				pool.bits = append(pool.bits, 0)
				continue
			}
			bits, err := strconv.Atoi(size)
			if err != nil || bits <= 0 {
				return Pool{}, fmt.Errorf("the size of service ranges %q is not a prefix length, for instance 22, nor %s", size, Auto)
			}
			pool.bits = append(pool.bits, bits)
		}
	}
	if pool.auto {
		return pool, nil
	}
	ranges, err := iprange.Parse(cidrs)
	if err != nil {
		return Pool{}, fmt.Errorf("reading the pool of service ranges: %w", err)
	}
	pool.ranges = ranges
	return pool.Resolve(nil, 0)
}

// Resolve returns the pool with the ranges and sizes that it has in a super cluster with the given ranges. First is the
// prefix length of the first of the tenant's ranges, zero for that of the pool.
func (p Pool) Resolve(super iprange.Ranges, first int) (Pool, error) {
	if p.auto {
		p.auto, p.ranges = false, super
	}
	bits := slices.Clone(p.bits)
	if len(bits) == 0 {
		bits = make([]int, len(p.ranges))
	}
	if len(bits) != len(p.ranges) {
		sizes := strings.Trim(strings.ReplaceAll(fmt.Sprint(bits), " ", ","), "[]")
		return Pool{}, fmt.Errorf("the pool of service ranges %s needs as many sizes as it has ranges, not %s", p.ranges, sizes)
	}
	if first != 0 {
		bits[0] = first
	}
	for i, prefix := range p.ranges {
		if bits[i] == 0 {
			bits[i] = DefaultSize(prefix)
		}
		if bits[i] < prefix.Bits() || bits[i] > smallest(prefix.Addr()) {
			return Pool{}, fmt.Errorf("the size of service ranges is /%d, must be between /%d (the pool) and /%d", bits[i], prefix.Bits(), smallest(prefix.Addr()))
		}
	}
	p.bits = bits
	return p, nil
}

// DefaultSize returns the prefix length that makes at least 256 ranges of one, where that leaves enough addresses in each,
// and of large ones more.
func DefaultSize(prefix netip.Prefix) int {
	const parts = 8
	largest, smallest := 22, 26
	if prefix.Addr().Is6() {
		largest, smallest = 112, 120
	}
	return max(prefix.Bits(), min(max(prefix.Bits()+parts, largest), smallest))
}

// Part is one range of a pool, and the prefix length of the tenants' ranges in it.
type Part struct {
	netip.Prefix
	Size int
}

// Parts returns the ranges of a pool that is resolved.
func (p Pool) Parts() []Part {
	parts := make([]Part, len(p.ranges))
	for i, prefix := range p.ranges {
		parts[i] = Part{Prefix: prefix, Size: p.bits[i]}
	}
	return parts
}

// Empty says whether there is no pool.
func (p Pool) Empty() bool { return !p.auto && len(p.ranges) == 0 }

// String returns the pool for people.
func (p Pool) String() string {
	if p.auto {
		return "the ranges of the super cluster"
	}
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
	return "tenant-" + rangeName(ranges.Primary())
}

// rangeName returns what names a range in the name of an object.
func rangeName(prefix netip.Prefix) string {
	return strings.NewReplacer(":", "-", "/", "-").Replace(prefix.Addr().StringExpanded() + "/" + strconv.Itoa(prefix.Bits()))
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
