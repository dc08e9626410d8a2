package supercluster

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRoutes(t *testing.T) {
	out := `default via 192.0.2.1 dev eth0
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2
unreachable 172.31.5.0/24
local 127.0.0.0/8 dev lo table local
broadcast 192.0.2.255 dev eth0 table local
`
	var got []string
	for _, prefix := range parseRoutes(out) {
		got = append(got, prefix.String())
	}
	want := []string{"192.0.2.0/24", "172.31.5.0/24", "127.0.0.0/8", "192.0.2.255/32"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestChooseSubnet(t *testing.T) {
	cases := map[string]struct {
		used []string
		want string
	}{
		"Free":         {want: "172.31.0.0/24"},
		"OtherCluster": {used: []string{"172.31.0.0/24", "172.31.0.254/32", "172.31.1.0/24"}, want: "172.31.2.0/24"},
		"Gap":          {used: []string{"172.31.1.0/24"}, want: "172.31.0.0/24"},
		"Wider":        {used: []string{"172.31.0.0/20"}, want: "172.31.16.0/24"},
		"Full":         {used: []string{"172.16.0.0/12"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var used []netip.Prefix
			for _, u := range tc.used {
				used = append(used, netip.MustParsePrefix(u))
			}
			got, err := chooseSubnet(candidateSubnets(), used)
			if (err != nil) != (tc.want == "") {
				t.Fatalf("error %v, want subnet %q", err, tc.want)
			}
			if err == nil && got.String() != tc.want {
				t.Errorf("subnet %s, want %s", got, tc.want)
			}
		})
	}
}

func TestNodeAddresses(t *testing.T) {
	c := newCluster(t)
	var got []string
	for _, n := range c.nodes() {
		got = append(got, n.IP.String()+" "+n.PodCIDR.String())
	}
	want := []string{"172.31.7.11 10.244.1.0/24", "172.31.7.12 10.244.2.0/24"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}
