package servicecidr

import (
	"net/netip"
	"testing"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

func TestCovers(t *testing.T) {
	s := &survey{parents: []occupied{{netip.MustParsePrefix("10.96.0.0/12"), "a"}, {netip.MustParsePrefix("fd00::/108"), "a"}}}
	for ranges, want := range map[string]bool{
		"10.100.4.0/22": true, "10.96.0.0/12": true, "10.112.0.0/22": false, "10.0.0.0/8": false, "": false,
		"10.100.4.0/22,fd00::1:0/112": true, "10.100.4.0/22,fd01::/112": false,
	} {
		if got := s.covers(iprange.MustParse(ranges)); got != want {
			t.Errorf("%q: got %v, want %v", ranges, got, want)
		}
	}
	if !(&survey{open: true}).covers(iprange.MustParse("192.0.2.0/24")) {
		t.Error("without an API that tells ranges, one is refused before the API server was asked")
	}
}
