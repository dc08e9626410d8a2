package servicecidr

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

func mustPool(t *testing.T, cidrs, sizes string) Pool {
	t.Helper()
	pool, err := ParsePool(cidrs, sizes)
	if err != nil {
		t.Fatalf("ParsePool(%s, %s): %v", cidrs, sizes, err)
	}
	return pool
}

func TestParsePool(t *testing.T) {
	cases := map[string]struct {
		cidrs, sizes, want string
		empty              bool
	}{
		"None":           {empty: true, sizes: "22"},
		"Default":        {cidrs: "10.112.0.0/14", sizes: "22"},
		"Auto":           {cidrs: "auto", sizes: "auto"},
		"AutoRange":      {cidrs: "auto", sizes: "24"},
		"AutoSize":       {cidrs: "10.112.0.0/14", sizes: "auto"},
		"IPv6":           {cidrs: "fd00::/48", sizes: "112"},
		"DualStack":      {cidrs: "10.112.0.0/14,fd00::/48", sizes: "22,112"},
		"OneRange":       {cidrs: "10.112.0.0/22", sizes: "22"},
		"NotARange":      {cidrs: "10.112.0.0", sizes: "22", want: `reading the pool of service ranges: "10.112.0.0" is not a range in CIDR notation`},
		"NotAtItsStart":  {cidrs: "10.112.0.1/14", sizes: "22", want: "reading the pool of service ranges: 10.112.0.1/14 does not begin at its first address; did you mean 10.112.0.0/14"},
		"LargerThanPool": {cidrs: "10.112.0.0/14", sizes: "12", want: "the size of service ranges is /12, must be between /14 (the pool) and /28"},
		"TooSmall":       {cidrs: "10.112.0.0/14", sizes: "29", want: "the size of service ranges is /29, must be between /14 (the pool) and /28"},
		"OneSize":        {cidrs: "10.112.0.0/14,fd00::/48", sizes: "22", want: "the pool of service ranges 10.112.0.0/14,fd00::/48 needs as many sizes as it has ranges, not 22"},
		"TwoSizes":       {cidrs: "10.112.0.0/14", sizes: "22,112", want: "the pool of service ranges 10.112.0.0/14 needs as many sizes as it has ranges, not 22,112"},
		"SecondTooSmall": {cidrs: "10.112.0.0/14,fd00::/48", sizes: "22,126", want: "the size of service ranges is /126, must be between /48 (the pool) and /124"},
		"NotASize":       {cidrs: "10.112.0.0/14", sizes: "/22", want: `the size of service ranges "/22" is not a prefix length, for instance 22, nor auto`},
		"SameFamily":     {cidrs: "10.112.0.0/14,10.120.0.0/14", sizes: "22,22", want: "reading the pool of service ranges: there can be one range, or one of IPv4 and one of IPv6"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pool, err := ParsePool(tc.cidrs, tc.sizes)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if err == nil && pool.Empty() != tc.empty {
				t.Errorf("Empty: got %v, want %v", pool.Empty(), tc.empty)
			}
		})
	}
}

// A pool is divided by what the super cluster has, unless somebody says how.
func TestPoolInASuperCluster(t *testing.T) {
	for name, tc := range map[string]struct {
		cidrs, sizes, super string
		first               int
		want                string
	}{
		"Kubeadm":       {"auto", "auto", "10.96.0.0/12", 0, "10.96.0.0/12 in ranges of /22"},
		"Small":         {"auto", "auto", "10.96.0.0/16", 0, "10.96.0.0/16 in ranges of /24"},
		"GKE":           {"auto", "auto", "34.118.224.0/20", 0, "34.118.224.0/20 in ranges of /26"},
		"Tiny":          {"auto", "auto", "10.96.0.0/27", 0, "10.96.0.0/27 in ranges of /27"},
		"DualStack":     {"auto", "auto", "10.96.0.0/12,fd00::/108", 0, "10.96.0.0/12 in ranges of /22 and fd00::/108 in ranges of /116"},
		"OneSize":       {"auto", "20", "10.96.0.0/12", 0, "10.96.0.0/12 in ranges of /20"},
		"OneSizeOfTwo":  {"auto", "20", "10.96.0.0/12,fd00::/108", 0, "the pool of service ranges 10.96.0.0/12,fd00::/108 needs as many sizes as it has ranges, not 20"},
		"OfTheTenant":   {"auto", "auto", "10.96.0.0/12,fd00::/108", 25, "10.96.0.0/12 in ranges of /25 and fd00::/108 in ranges of /116"},
		"TooLarge":      {"auto", "auto", "10.96.0.0/16", 12, "the size of service ranges is /12, must be between /16 (the pool) and /28"},
		"TooSmall":      {"auto", "auto", "10.96.0.0/16", 29, "the size of service ranges is /29, must be between /16 (the pool) and /28"},
		"PoolOfItsOwn":  {"10.112.0.0/14", "auto", "10.96.0.0/12", 0, "10.112.0.0/14 in ranges of /22"},
		"SizeIsTooMuch": {"auto", "22", "10.96.0.0/24", 0, "the size of service ranges is /22, must be between /24 (the pool) and /28"},
	} {
		t.Run(name, func(t *testing.T) {
			pool, err := mustPool(t, tc.cidrs, tc.sizes).Resolve(iprange.MustParse(tc.super), tc.first)
			got := pool.String()
			if err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestPoolGivesEveryRangeOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		cidrs, sizes string
		bits         []int
	}{
		"IPv4":      {"10.112.0.0/16", "22", []int{22}},
		"DualStack": {"10.112.0.0/16,fd00::/104", "22,112", []int{22, 112}},
	} {
		t.Run(name, func(t *testing.T) {
			pool := mustPool(t, tc.cidrs, tc.sizes)
			whole := iprange.MustParse(tc.cidrs)
			var used []netip.Prefix
			for i := range 64 {
				next, ok := pool.Next(fmt.Sprintf("tenant-%d", i), used)
				if !ok || len(next) != len(tc.bits) {
					t.Fatalf("got %v after %d of 64", next, i)
				}
				for f, prefix := range next {
					if prefix.Bits() != tc.bits[f] || !whole[f].Overlaps(prefix) || prefix != prefix.Masked() {
						t.Fatalf("range %d is %s, which is not of the pool", i, prefix)
					}
				}
				if next.Overlapping(used...).IsValid() {
					t.Fatalf("range %d is %s, which overlaps; used are %v", i, next, used)
				}
				used = append(used, next...)
			}
			if next, ok := pool.Next("one-too-many", used); ok {
				t.Errorf("got %s from an exhausted pool", next)
			}
		})
	}
}

func TestPoolAvoidsRangesOfOtherSizes(t *testing.T) {
	pool := mustPool(t, "10.112.0.0/21", "22")
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
	pool := mustPool(t, "10.112.0.0/14", "22")
	a, _ := pool.Next("a", nil)
	again, _ := pool.Next("a", nil)
	b, _ := pool.Next("b", nil)
	if a.String() != again.String() {
		t.Errorf("the same tenant got %s and %s", a, again)
	}
	if a.String() == b.String() {
		t.Errorf("two tenants begin their search at %s", a)
	}
}

func TestParse(t *testing.T) {
	cases := map[string]struct {
		cidr, want string
	}{
		"DualStack":      {cidr: "10.112.4.0/22,fd00::/112"},
		"TooSmall":       {cidr: "10.112.4.0/29", want: "the size of 10.112.4.0/29 must be between /12 and /28"},
		"TooLarge":       {cidr: "10.0.0.0/8", want: "the size of 10.0.0.0/8 must be between /12 and /28"},
		"SecondTooLarge": {cidr: "10.112.4.0/22,fd00::/48", want: "the size of fd00::/48 must be between /64 and /124"},
		"Garbage":        {cidr: "ten", want: `"ten" is not a range in CIDR notation`},
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

func TestObjectName(t *testing.T) {
	for cidrs, want := range map[string]string{
		"10.112.252.0/22":              "tenant-10.112.252.0-22",
		"fd00:1::/112":                 "tenant-fd00-0001-0000-0000-0000-0000-0000-0000-112",
		"10.112.252.0/22,fd00:1::/112": "tenant-10.112.252.0-22",
	} {
		if got := objectName(iprange.MustParse(cidrs)); got != want {
			t.Errorf("%s: got %s, want %s", cidrs, got, want)
		}
	}
}

func TestSameFamilies(t *testing.T) {
	const v4, v6, dual, dual6 = "10.112.4.0/22", "fd00::/112", "10.112.4.0/22,fd00::/112", "fd00::/112,10.112.4.0/22"
	cases := map[string]struct {
		chosen, super string
		anyOrder      bool
		want          string
	}{
		"Same":           {chosen: v4, super: "10.96.0.0/16"},
		"DualStack":      {chosen: dual, super: "10.96.0.0/16,fd01::/112"},
		"Single":         {chosen: v4, super: "10.96.0.0/16,fd01::/112"},
		"NotDualStack":   {chosen: dual, super: "10.96.0.0/16", want: "the range fd00::/112 is of an IP family that Services of the super cluster do not have: it has 10.96.0.0/16"},
		"OtherFamily":    {chosen: v6, super: "10.96.0.0/16", want: "the range fd00::/112 is of an IP family that Services of the super cluster do not have: it has 10.96.0.0/16"},
		"OtherOrder":     {chosen: dual6, super: "10.96.0.0/16,fd01::/112", want: "the first range of fd00::/112,10.112.4.0/22 must be of the same IP family as the first of the super cluster, 10.96.0.0/16"},
		"OutsideOfIt":    {chosen: dual6, super: "10.96.0.0/16,fd01::/112", anyOrder: true},
		"OutsideMissing": {chosen: dual6, super: "10.96.0.0/16", anyOrder: true, want: "the range fd00::/112 is of an IP family that Services of the super cluster do not have: it has 10.96.0.0/16"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := sameFamilies(iprange.MustParse(tc.chosen), iprange.MustParse(tc.super), tc.anyOrder); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
