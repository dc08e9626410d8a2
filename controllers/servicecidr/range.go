// Package servicecidr gives every tenant a range of cluster IPs of its own. This file computes ranges and talks to
// nobody; allocator.go claims one by creating a ServiceCIDR object in the super cluster, whose set of ServiceCIDR objects
// is the only record of what is taken.
package servicecidr

import (
	"fmt"
	"hash/fnv"
	"math/big"
	"net/netip"
	"strings"
)

const (
	// dnsOffset is the position, in a range, of the address of the cluster DNS service.
	dnsOffset = 10
	// smallestIPv4 and largestIPv4 are the prefix lengths a range may have; likewise for IPv6.
	smallestIPv4, largestIPv4 = 28, 12
	smallestIPv6, largestIPv6 = 124, 64
)

// Pool is a range that is divided into equal ranges, one for each tenant.
type Pool struct {
	prefix netip.Prefix
	bits   int
}

// ParsePool returns the pool of the given range, divided into ranges of the given prefix length. An empty range is an
// empty pool.
func ParsePool(cidr string, bits int) (Pool, error) {
	if cidr == "" {
		return Pool{}, nil
	}
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return Pool{}, fmt.Errorf("reading the pool of service ranges: %w", err)
	}
	if prefix != prefix.Masked() {
		return Pool{}, fmt.Errorf("pool of service ranges %s does not begin at its first address; did you mean %s", prefix, prefix.Masked())
	}
	if bits < prefix.Bits() || bits > smallest(prefix.Addr()) {
		return Pool{}, fmt.Errorf("the size of service ranges is /%d, must be between /%d (the pool) and /%d", bits, prefix.Bits(), smallest(prefix.Addr()))
	}
	return Pool{prefix: prefix, bits: bits}, nil
}

// Empty says whether there is no pool.
func (p Pool) Empty() bool { return !p.prefix.IsValid() }

// String returns the pool for people.
func (p Pool) String() string { return fmt.Sprintf("%s in ranges of /%d", p.prefix, p.bits) }

// Next returns a range of the pool that overlaps none of those used, beginning the search at a place that depends on the
// seed, so that tenants rarely contend for the same one and a range that became free is not used again at once.
func (p Pool) Next(seed string, used []netip.Prefix) (netip.Prefix, bool) {
	if p.Empty() {
		return netip.Prefix{}, false
	}
	// More than 2^20 ranges are not searched: nobody has as many tenants.
	count := uint64(1) << min(p.bits-p.prefix.Bits(), 20)
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(seed))
	start := hash.Sum64() % count
	for i := range count {
		candidate := p.at((start + i) % count)
		if overlapping(candidate, used) == -1 {
			return candidate, true
		}
	}
	return netip.Prefix{}, false
}

// at returns the range with the given index.
func (p Pool) at(index uint64) netip.Prefix {
	offset := new(big.Int).SetUint64(index)
	offset.Lsh(offset, uint(p.prefix.Addr().BitLen()-p.bits))
	return netip.PrefixFrom(add(p.prefix.Addr(), offset), p.bits)
}

// Parse reads a range that a person wrote and says what is wrong with it in words for them.
func Parse(cidr string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a range in CIDR notation", cidr)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s does not begin at its first address; did you mean %s", prefix, prefix.Masked())
	}
	if prefix.Bits() > smallest(prefix.Addr()) || prefix.Bits() < largest(prefix.Addr()) {
		return netip.Prefix{}, fmt.Errorf("the size of %s must be between /%d and /%d", prefix, largest(prefix.Addr()), smallest(prefix.Addr()))
	}
	return prefix, nil
}

// First returns the first address of a range: the one of the service kubernetes.
func First(prefix netip.Prefix) netip.Addr { return add(prefix.Addr(), big.NewInt(1)) }

// DNS returns the address, in a range, of the cluster DNS service.
func DNS(prefix netip.Prefix) netip.Addr { return add(prefix.Addr(), big.NewInt(dnsOffset)) }

// At returns the address at a position that depends on the seed, leaving out the first 16, which are for well-known
// services, and the last, which is the broadcast address.
func At(prefix netip.Prefix, seed uint64) netip.Addr {
	const reserved = 16
	size := new(big.Int).Lsh(big.NewInt(1), uint(prefix.Addr().BitLen()-prefix.Bits()))
	size.Sub(size, big.NewInt(reserved+1))
	if size.Sign() <= 0 {
		return First(prefix)
	}
	offset := new(big.Int).Mod(new(big.Int).SetUint64(seed), size)
	return add(prefix.Addr(), offset.Add(offset, big.NewInt(reserved)))
}

// objectName returns the name of the ServiceCIDR object for a range. Because it follows from the range alone, the API
// server lets only one tenant have it.
func objectName(prefix netip.Prefix) string {
	return "tenant-" + strings.NewReplacer(":", "-", "/", "-").Replace(prefix.Addr().StringExpanded()+"/"+fmt.Sprint(prefix.Bits()))
}

// overlapping returns the index of the first of the used ranges that overlaps, or -1.
func overlapping(prefix netip.Prefix, used []netip.Prefix) int {
	for i, other := range used {
		if other.Overlaps(prefix) {
			return i
		}
	}
	return -1
}

// add returns the address that is offset after the given one.
func add(addr netip.Addr, offset *big.Int) netip.Addr {
	sum := new(big.Int).SetBytes(addr.AsSlice())
	sum.Add(sum, offset)
	result, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, addr.BitLen()/8)))
	return result
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
