package iprange_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

func TestParse(t *testing.T) {
	const oneOfEach = "there can be one range, or one of IPv4 and one of IPv6"
	cases := map[string]struct {
		text, want string
		ranges     int
	}{
		"None":         {text: "", ranges: 0},
		"IPv4":         {text: "10.112.4.0/22", ranges: 1},
		"IPv6":         {text: "fd00::/112", ranges: 1},
		"DualStack":    {text: "10.112.4.0/22,fd00::/112", ranges: 2},
		"IPv6First":    {text: "fd00::/112,10.112.4.0/22", ranges: 2},
		"Inside":       {text: "10.112.4.1/22", want: "10.112.4.1/22 does not begin at its first address; did you mean 10.112.4.0/22"},
		"SecondInside": {text: "10.112.4.0/22,fd00::1/112", want: "fd00::1/112 does not begin at its first address; did you mean fd00::/112"},
		"Garbage":      {text: "ten", want: `"ten" is not a range in CIDR notation`},
		"Nothing":      {text: "10.112.4.0/22,", want: `"" is not a range in CIDR notation`},
		"Space":        {text: "10.112.4.0/22, fd00::/112", want: `" fd00::/112" is not a range in CIDR notation`},
		"SameFamily":   {text: "10.112.4.0/22,10.112.8.0/22", want: oneOfEach},
		"Three":        {text: "10.112.4.0/22,fd00::/112,10.112.8.0/22", want: oneOfEach},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ranges, err := iprange.Parse(tc.text)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if len(ranges) != tc.ranges || err == nil && ranges.String() != tc.text {
				t.Errorf("got %d ranges, %q; want %d, %q", len(ranges), ranges, tc.ranges, tc.text)
			}
		})
	}
}

func TestContains(t *testing.T) {
	dual := "10.112.4.0/22,fd00::/112"
	cases := map[string]struct {
		ranges    string
		addresses []string
		want      bool
	}{
		"Inside":        {dual, []string{"10.112.7.255"}, true},
		"Both":          {dual, []string{"10.112.4.9", "fd00::9"}, true},
		"SecondOutside": {dual, []string{"10.112.4.9", "fd01::9"}, false},
		"FirstOutside":  {dual, []string{"10.112.8.0", "fd00::9"}, false},
		"OtherFamily":   {"10.112.4.0/22", []string{"fd00::9"}, false},
		"NotAnAddress":  {dual, []string{"None"}, false},
		"NoRanges":      {"", []string{"10.112.4.9"}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := iprange.MustParse(tc.ranges).Contains(tc.addresses...); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestOverlapping(t *testing.T) {
	ranges := iprange.MustParse("10.112.4.0/22,fd00::/112")
	for other, want := range map[string]bool{
		"10.112.7.0/24": true, "10.0.0.0/8": true, "10.112.8.0/22": false, "fd00::/64": true, "fd01::/64": false,
	} {
		prefix := netip.MustParsePrefix(other)
		if got := ranges.Overlapping(netip.MustParsePrefix("192.0.2.0/24"), prefix); got.IsValid() != want || want && got != prefix {
			t.Errorf("%s: got %v, want an overlap: %v", other, got, want)
		}
	}
}

func TestCovering(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00::/108")}
	for part, want := range map[string]string{
		"10.100.4.0/22": "10.96.0.0/12", "10.96.0.0/12": "10.96.0.0/12", "10.112.0.0/22": "", "10.0.0.0/8": "", "fd00::1:0/112": "fd00::/108",
	} {
		got := iprange.Covering(netip.MustParsePrefix(part), ranges...)
		if got.IsValid() != (want != "") || want != "" && got.String() != want {
			t.Errorf("%s: got %v, want %q", part, got, want)
		}
	}
}

func TestPrimary(t *testing.T) {
	if got := iprange.MustParse("fd00::/112,10.112.4.0/22").Primary().String(); got != "fd00::/112" {
		t.Errorf("got %s", got)
	}
	if iprange.MustParse("").Primary().IsValid() {
		t.Error("there is a first of no ranges")
	}
}

func TestWellKnownAddresses(t *testing.T) {
	for cidr, want := range map[string][]string{
		"10.112.252.0/22": {"10.112.252.1", "10.112.252.10"},
		"fd00:1::/112":    {"fd00:1::1", "fd00:1::a"},
	} {
		prefix := netip.MustParsePrefix(cidr)
		if diff := cmp.Diff(want, []string{iprange.APIServer(prefix).String(), iprange.DNS(prefix).String()}); diff != "" {
			t.Errorf("%s: API server, DNS (-want +got):\n%s", cidr, diff)
		}
	}
}

func TestAtStaysInRange(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/27")
	seen := map[netip.Addr]bool{}
	for seed := range uint64(200) {
		addr := iprange.At(prefix, seed)
		seen[addr] = true
		if !prefix.Contains(addr) || addr.Less(netip.MustParseAddr("10.96.0.16")) || addr == netip.MustParseAddr("10.96.0.31") {
			t.Fatalf("seed %d: got %s", seed, addr)
		}
	}
	if len(seen) != 15 {
		t.Errorf("got %d different addresses, want 15", len(seen))
	}
}

func TestFree(t *testing.T) {
	prefix := netip.MustParsePrefix("10.96.0.0/23") // 512 addresses, of which 32 are for those who ask
	taken := map[netip.Addr]bool{}
	for seed := uint64(0); ; seed += 1000003 {
		addr, ok := iprange.Free(prefix, seed, func(a netip.Addr) bool { return taken[a] })
		if !ok {
			break
		}
		low := addr.Less(netip.MustParseAddr("10.96.0.32"))
		if !prefix.Contains(addr) || taken[addr] || low != (len(taken) >= 512-32-1) || addr.Less(netip.MustParseAddr("10.96.0.16")) || addr == netip.MustParseAddr("10.96.1.255") {
			t.Fatalf("after %d: got %s", len(taken), addr)
		}
		taken[addr] = true
	}
	if len(taken) != 512-16-1 {
		t.Errorf("got %d addresses", len(taken))
	}
	for _, small := range []string{"10.96.0.0/28", "10.96.0.0/32"} {
		if addr, ok := iprange.Free(netip.MustParsePrefix(small), 7, func(netip.Addr) bool { return false }); ok {
			t.Errorf("%s: got %s", small, addr)
		}
	}
	if addr, ok := iprange.Free(netip.MustParsePrefix("fd00::/64"), 7, func(netip.Addr) bool { return false }); !ok || addr.String() != "fd00::107" {
		t.Errorf("got %s", addr)
	}
}
