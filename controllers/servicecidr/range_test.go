package servicecidr

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustPool(t *testing.T, cidr string, bits int) Pool {
	t.Helper()
	pool, err := ParsePool(cidr, bits)
	if err != nil {
		t.Fatalf("ParsePool(%s, %d): %v", cidr, bits, err)
	}
	return pool
}

func TestParsePool(t *testing.T) {
	cases := map[string]struct {
		cidr  string
		bits  int
		empty bool
		fails bool
	}{
		"None":           {empty: true},
		"Default":        {cidr: "10.112.0.0/14", bits: 22},
		"IPv6":           {cidr: "fd00::/48", bits: 112},
		"OneRange":       {cidr: "10.112.0.0/22", bits: 22},
		"NotARange":      {cidr: "10.112.0.0", bits: 22, fails: true},
		"NotAtItsStart":  {cidr: "10.112.0.1/14", bits: 22, fails: true},
		"LargerThanPool": {cidr: "10.112.0.0/14", bits: 12, fails: true},
		"TooSmall":       {cidr: "10.112.0.0/14", bits: 29, fails: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pool, err := ParsePool(tc.cidr, tc.bits)
			if (err != nil) != tc.fails {
				t.Fatalf("ParsePool: got error %v, want one: %v", err, tc.fails)
			}
			if err == nil && pool.Empty() != tc.empty {
				t.Errorf("Empty: got %v, want %v", pool.Empty(), tc.empty)
			}
		})
	}
}

func TestPoolGivesEveryRangeOnce(t *testing.T) {
	pool := mustPool(t, "10.112.0.0/16", 22)
	whole := netip.MustParsePrefix("10.112.0.0/16")
	var used []netip.Prefix
	for i := range 64 {
		next, ok := pool.Next(fmt.Sprintf("tenant-%d", i), used)
		if !ok {
			t.Fatalf("no range after %d of 64", i)
		}
		if overlapping(next, used) != -1 || next.Bits() != 22 || !whole.Contains(next.Addr()) || next != next.Masked() {
			t.Fatalf("range %d is %s, which overlaps or is not of the pool; used are %v", i, next, used)
		}
		used = append(used, next)
	}
	if next, ok := pool.Next("one-too-many", used); ok {
		t.Errorf("got %s from an exhausted pool", next)
	}
}

func TestPoolAvoidsRangesOfOtherSizes(t *testing.T) {
	pool := mustPool(t, "10.112.0.0/21", 22)
	for used, want := range map[string]string{
		"10.112.0.0/24":   "10.112.4.0/22",
		"10.112.7.240/28": "10.112.0.0/22",
	} {
		next, ok := pool.Next("tenant", []netip.Prefix{netip.MustParsePrefix(used)})
		if !ok || next.String() != want {
			t.Errorf("with %s used: got %s, want %s", used, next, want)
		}
	}
	if next, ok := pool.Next("tenant", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); ok {
		t.Errorf("got %s although the whole pool is used", next)
	}
}

func TestPoolIsDeterministicAndSpreads(t *testing.T) {
	pool := mustPool(t, "10.112.0.0/14", 22)
	a, _ := pool.Next("a", nil)
	again, _ := pool.Next("a", nil)
	b, _ := pool.Next("b", nil)
	if a != again {
		t.Errorf("the same tenant got %s and %s", a, again)
	}
	if a == b {
		t.Errorf("two tenants begin their search at %s", a)
	}
}

func TestParse(t *testing.T) {
	cases := map[string]struct {
		cidr, want string
	}{
		"Good":     {cidr: "10.112.4.0/22"},
		"IPv6":     {cidr: "fd00::/112"},
		"Inside":   {cidr: "10.112.4.1/22", want: "10.112.4.1/22 does not begin at its first address; did you mean 10.112.4.0/22"},
		"TooSmall": {cidr: "10.112.4.0/29", want: "the size of 10.112.4.0/29 must be between /12 and /28"},
		"TooLarge": {cidr: "10.0.0.0/8", want: "the size of 10.0.0.0/8 must be between /12 and /28"},
		"Garbage":  {cidr: "ten", want: `"ten" is not a range in CIDR notation`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tc.cidr)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWellKnownAddresses(t *testing.T) {
	cases := map[string]struct {
		cidr, first, dns, name string
	}{
		"IPv4": {cidr: "10.112.252.0/22", first: "10.112.252.1", dns: "10.112.252.10", name: "tenant-10.112.252.0-22"},
		"IPv6": {cidr: "fd00:1::/112", first: "fd00:1::1", dns: "fd00:1::a", name: "tenant-fd00-0001-0000-0000-0000-0000-0000-0000-112"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			prefix := netip.MustParsePrefix(tc.cidr)
			got := []string{First(prefix).String(), DNS(prefix).String(), objectName(prefix)}
			if diff := cmp.Diff([]string{tc.first, tc.dns, tc.name}, got); diff != "" {
				t.Errorf("first, dns, name (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAtStaysInRange(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/27")
	seen := map[netip.Addr]bool{}
	for seed := range uint64(200) {
		addr := At(prefix, seed)
		seen[addr] = true
		if !prefix.Contains(addr) || addr.Less(netip.MustParseAddr("10.96.0.16")) || addr == netip.MustParseAddr("10.96.0.31") {
			t.Fatalf("seed %d: got %s", seed, addr)
		}
	}
	if len(seen) != 15 {
		t.Errorf("got %d different addresses, want 15", len(seen))
	}
}
