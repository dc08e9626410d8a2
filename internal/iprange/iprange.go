// Package iprange has the ranges that a cluster hands out cluster IPs from: one, or one of each IP family. It computes
// and talks to nobody.
package iprange

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
)

const (
	// apiServerOffset and dnsOffset are the positions, in a range, of the addresses of the Service kubernetes and of the
	// Service of the cluster DNS.
	apiServerOffset = 1
	dnsOffset       = 10
	// families is how many ranges a cluster may have.
	families = 2
)

// Ranges are ranges of cluster IPs, at most one of each IP family. The first is of the primary family, whose addresses
// Services get that ask for none, see the flag --service-cluster-ip-range of kube-apiserver. None means not known.
type Ranges []netip.Prefix

// Parse reads ranges in CIDR notation, separated by a comma, and says what is wrong with them in words for the person
// who wrote them. An empty text has no ranges.
func Parse(text string) (Ranges, error) {
	if text == "" {
		return nil, nil
	}
	var ranges Ranges
	for cidr := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("%q is not a range in CIDR notation", cidr)
		}
		if prefix != prefix.Masked() {
			return nil, fmt.Errorf("%s does not begin at its first address; did you mean %s", prefix, prefix.Masked())
		}
		ranges = append(ranges, prefix)
	}
	if len(ranges) > families || len(ranges) == families && ranges[0].Addr().Is4() == ranges[1].Addr().Is4() {
		return nil, errors.New("there can be one range, or one of IPv4 and one of IPv6")
	}
	return ranges, nil
}

// MustParse does what Parse does and panics if it fails; it is for tests.
func MustParse(text string) Ranges {
	ranges, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return ranges
}

// String returns what Parse reads.
func (r Ranges) String() string { return strings.Join(r.CIDRs(), ",") }

// CIDRs returns the ranges in CIDR notation.
func (r Ranges) CIDRs() []string {
	texts := make([]string, len(r))
	for i, prefix := range r {
		texts[i] = prefix.String()
	}
	return texts
}

// Primary returns the first range; one that is not valid when there is none.
func (r Ranges) Primary() netip.Prefix {
	if len(r) == 0 {
		return netip.Prefix{}
	}
	return r[0]
}

// Contains says whether every one of the addresses is in a range.
func (r Ranges) Contains(addresses ...string) bool {
	for _, address := range addresses {
		addr, err := netip.ParseAddr(address)
		if err != nil || !slices.ContainsFunc(r, func(prefix netip.Prefix) bool { return prefix.Contains(addr) }) {
			return false
		}
	}
	return true
}

// Overlapping returns the first of the given ranges that overlaps one of these; one that is not valid when none does.
func (r Ranges) Overlapping(others ...netip.Prefix) netip.Prefix {
	for _, other := range others {
		if slices.ContainsFunc(r, other.Overlaps) {
			return other
		}
	}
	return netip.Prefix{}
}

// Covering returns the first of the given ranges that a range is a part of; one that is not valid when it is part of none.
func Covering(part netip.Prefix, ranges ...netip.Prefix) netip.Prefix {
	for _, whole := range ranges {
		if whole.Bits() <= part.Bits() && whole.Contains(part.Addr()) {
			return whole
		}
	}
	return netip.Prefix{}
}

// APIServer returns the address, in a range, of the Service kubernetes.
func APIServer(prefix netip.Prefix) netip.Addr { return Nth(prefix, apiServerOffset) }

// DNS returns the address, in a range, of the Service of the cluster DNS.
func DNS(prefix netip.Prefix) netip.Addr { return Nth(prefix, dnsOffset) }

// Nth returns the address at a position, counted from 0, of a range that has as many.
func Nth(prefix netip.Prefix, n uint64) netip.Addr {
	return after(prefix.Addr(), new(big.Int).SetUint64(n))
}

// At returns the address at a position that depends on the seed, leaving out the first 16, which are for well-known
// services, and the last, which is the broadcast address.
func At(prefix netip.Prefix, seed uint64) netip.Addr {
	const reserved = 16
	size := new(big.Int).Lsh(big.NewInt(1), uint(prefix.Addr().BitLen()-prefix.Bits()))
	size.Sub(size, big.NewInt(reserved+1))
	if size.Sign() <= 0 {
		return APIServer(prefix)
	}
	offset := new(big.Int).Mod(new(big.Int).SetUint64(seed), size)
	return after(prefix.Addr(), offset.Add(offset, big.NewInt(reserved)))
}

// Free returns an address of a range that is not taken, leaving out the first 16, which are for well-known services, and the
// last. It prefers those that API servers hand out by themselves to those that they leave to Services that ask for an
// address. Where it begins to look depends on the seed.
func Free(prefix netip.Prefix, seed uint64, taken func(netip.Addr) bool) (netip.Addr, bool) {
	const reserved, shortest, longest, searched = 16, 16, 256, 1 << 16
	size := uint64(searched)
	if bits := prefix.Addr().BitLen() - prefix.Bits(); bits < 16 {
		size = 1 << bits
	}
	static := min(max(size/16, shortest), longest)
	for _, band := range [][2]uint64{{static, size - 1}, {reserved, static}} { // the last number is not in it
		for i := range band[1] - min(band[0], band[1]) {
			addr := Nth(prefix, band[0]+(seed+i)%(band[1]-band[0]))
			if !taken(addr) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// Part returns the range with the given index when a range is divided into ranges of the given prefix length.
func Part(prefix netip.Prefix, bits int, index uint64) netip.Prefix {
	offset := new(big.Int).SetUint64(index)
	offset.Lsh(offset, uint(prefix.Addr().BitLen()-bits))
	return netip.PrefixFrom(after(prefix.Addr(), offset), bits)
}

// after returns the address that is offset after the given one.
func after(addr netip.Addr, offset *big.Int) netip.Addr {
	sum := new(big.Int).SetBytes(addr.AsSlice())
	sum.Add(sum, offset)
	result, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, addr.BitLen()/8)))
	return result
}
