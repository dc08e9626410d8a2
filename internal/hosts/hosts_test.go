package hosts_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/internal/hosts"
)

func TestTranslate(t *testing.T) {
	const (
		header = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
		ours   = "10.8.0.7\tweb-0.web.acme-shop-abc.svc.super.example\tweb-0\n"
		theirs = "10.8.0.7\tweb-0.web.shop.svc.cluster.local\tweb-0\n"
		alias  = "\n# Entries added by HostAliases.\n10.8.0.7\tweb-0.other.acme.example\tweb-0\n"
	)
	for name, tc := range map[string]struct{ in, want string }{
		"OneFamily":  {header + ours, header + theirs},
		"TwoFamily":  {header + ours + "fd00::7" + ours[len("10.8.0.7"):], header + theirs + "fd00::7" + theirs[len("10.8.0.7"):]},
		"Aliases":    {header + ours + alias, header + theirs + alias},
		"OtherHost":  {"10.8.0.7\tweb-10.web.ns.svc.d\tweb-10\n", "10.8.0.7\tweb-10.web.ns.svc.d\tweb-10\n"},
		"NoName":     {header + "10.8.0.7\tweb-0\n", header + "10.8.0.7\tweb-0\n"},
		"Empty":      {"", ""},
		"NoNewline":  {"10.8.0.7\tweb-0.web.ns.svc.d\tweb-0", "10.8.0.7\tweb-0.web.shop.svc.cluster.local\tweb-0"},
		"Translated": {header + theirs, header + theirs},
	} {
		t.Run(name, func(t *testing.T) {
			got := hosts.Translate(tc.in, "web-0", "web", "web-0.web.shop.svc.cluster.local")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
