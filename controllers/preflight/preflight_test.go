package preflight

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

// super returns the facts of a super cluster with Kubernetes 1.36 and the range of kubeadm.
func super(change ...func(*Facts)) *Facts {
	f := &Facts{
		Version: "v1.36.3", API: true, Default: iprange.MustParse("10.96.0.0/12"), Ranges: prefixes("10.96.0.0/12"), Answers: map[string]Answer{},
		Nodes: []Node{{Name: "a", PodRanges: prefixes("10.244.0.0/24"), Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.5")}}},
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func prefixes(cidrs ...string) []netip.Prefix { return parse(cidrs) }

func has(dataplanes ...Dataplane) func(*Facts) {
	return func(f *Facts) { f.Dataplanes = append(f.Dataplanes, dataplanes...) }
}

// started makes it one that was started with other ranges.
func started(cidrs string) func(*Facts) {
	return func(f *Facts) { f.Default, f.Ranges = iprange.MustParse(cidrs), prefixes(strings.Split(cidrs, ",")...) }
}

// old makes it one without the API of ServiceCIDRs.
func old(f *Facts) { f.Version, f.API, f.Ranges = "v1.32.1", false, nil }

func said(key string, verdict Verdict) func(*Facts) {
	return func(f *Facts) { f.Answers[key] = Answer{Verdict: verdict, Message: "it says so"} }
}

func TestEvaluate(t *testing.T) {
	auto := Config{Pool: Auto, Size: Auto}
	unknown := func(f *Facts) { f.Default, f.Unknown = nil, "it does not tell" }
	cases := map[string]struct {
		reason string
		facts  *Facts
		config Config
		mode   Mode
		// want are the findings but for those of severity Info, as "severity reason".
		want []string
		// says is a part of the message of the finding that is named first, or of the mode when there is none.
		says string
	}{
		"Kubeadm":         {facts: super(), config: auto, mode: ModeParts, says: "the super cluster serves 10.96.0.0/12"},
		"SizeAsBefore":    {facts: super(), config: Config{Pool: Auto, Size: "24"}, mode: ModeParts},
		"DualStack":       {facts: super(started("10.96.0.0/12,fd00::/108")), config: auto, mode: ModeParts},
		"PartOfTheRange":  {facts: super(), config: Config{Pool: "10.100.0.0/14", Size: "22"}, mode: ModeParts, says: "10.100.0.0/14, which is in 10.96.0.0/12"},
		"OperatorsRange":  {facts: super(func(f *Facts) { f.Ranges = prefixes("10.96.0.0/12", "172.20.0.0/14") }), config: Config{Pool: "172.20.0.0/14", Size: Auto}, mode: ModeParts, says: "172.20.0.0/14"},
		"OwnObjects":      {facts: super(), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Warning OwnServicesInTenantRanges"}},
		"ObjectsRefused":  {facts: super(said("10.115.252.0/22", Refused)), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Error ServiceCIDRsRefused", "Warning OwnServicesInTenantRanges"}, says: "refuses a ServiceCIDR of 10.115.252.0/22: it says so"},
		"ServicesRefused": {facts: super(said("10.96.4.1", Refused)), config: auto, mode: ModeParts, want: []string{"Error ServicesRefused"}, says: "a Service at 10.96.4.1: it says so"},
		"Adoption":        {facts: super(), config: Config{}, mode: ModeAdoption, want: []string{"Warning AddressesAreChosenLate"}},
		"AdoptionUnknown": {facts: super(old, unknown), config: Config{}, mode: ModeAdoption, want: []string{"Error ServiceRangeUnknown"}, says: "it does not tell"},
		"Old":             {facts: super(old), config: auto, mode: ModeParts},
		"OldUnknown":      {facts: super(old, unknown), config: auto, mode: ModeParts, want: []string{"Error ServiceRangeUnknown"}, says: "it does not tell"},
		"OldTold":         {reason: "a dry run tells that the pool is in the range", facts: super(old, unknown, said("10.100.0.1", Accepted)), config: Config{Pool: "10.100.0.0/16", Size: "24"}, mode: ModeParts, says: "as far as dry runs tell"},
		"OldToldWrong":    {facts: super(old, unknown, said("10.100.255.1", NotInRange)), config: Config{Pool: "10.100.0.0/16", Size: "24"}, mode: ModeParts, want: []string{"Error RangeNotServed"}, says: "no range with the address 10.100.255.1"},
		"OldOutside":      {facts: super(old), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Error ServiceCIDRsNotServed"}, says: "v1.32.1 does not serve ServiceCIDRs"},
		"PoolInvalid":     {facts: super(), config: Config{Pool: "10.112.0.1/14", Size: "22"}, want: []string{"Error PoolInvalid"}, says: "did you mean 10.112.0.0/14"},
		"SizeInvalid":     {facts: super(), config: Config{Pool: Auto, Size: "30"}, want: []string{"Error PoolInvalid"}, says: "must be between /12 (the pool) and /28"},
		"SizeMissing":     {facts: super(started("10.96.0.0/12,fd00::/108")), config: Config{Pool: Auto, Size: "22"}, want: []string{"Error PoolInvalid"}},
		"NotASize":        {facts: super(), config: Config{Pool: Auto, Size: "/22"}, want: []string{"Error PoolInvalid"}},
		"GKE":             {facts: super(started("34.118.224.0/20")), config: auto, mode: ModeParts},
		"Few":             {facts: super(started("10.0.0.0/23")), config: auto, mode: ModeParts, want: []string{"Warning FewTenants"}, says: "room for 7 tenants only"},
		"TooSmall":        {facts: super(started("10.0.0.0/26")), config: auto, mode: ModeParts, want: []string{"Error RangeTooSmall"}},
		"Exhausted":       {facts: super(func(f *Facts) { f.Tenants = prefixes("10.96.0.0/12") }), config: auto, mode: ModeParts, want: []string{"Error RangesExhausted"}, says: "all 1023 ranges"},
		"NearlyExhausted": {facts: super(func(f *Facts) { f.Tenants = prefixes("10.97.0.0/16", "10.98.0.0/15", "10.100.0.0/14", "10.104.0.0/13") }), config: auto, mode: ModeParts, want: []string{"Warning RangesNearlyExhausted"}, says: "63 of 1023"},
		"NodesInPool":     {facts: super(), config: Config{Pool: "192.168.0.0/16", Size: "24"}, mode: ModeObjects, want: []string{"Error RangeOverlapsNodes", "Warning OwnServicesInTenantRanges"}, says: "192.168.0.0/16 contains the address 192.168.1.5 of node a"},
		"PodsInPool":      {facts: super(), config: Config{Pool: "10.240.0.0/13", Size: "24"}, mode: ModeObjects, want: []string{"Error RangeOverlapsPods", "Warning OwnServicesInTenantRanges"}, says: "10.240.0.0/13 overlaps the pod range 10.244.0.0/24 of node a"},
		"PodsInDefault":   {facts: super(started("10.240.0.0/12")), config: auto, mode: ModeParts, want: []string{"Warning RangeOverlapsPods"}},
		"PoolAround":      {facts: super(), config: Config{Pool: "10.64.0.0/10", Size: "22"}, mode: ModeObjects, want: []string{"Warning OwnServicesInTenantRanges", "Warning PoolOverlapsServiceRange"}},
		"WrongFamily":     {facts: super(), config: Config{Pool: "fd00::/100", Size: "112"}, mode: ModeObjects, want: []string{"Error WrongIPFamily", "Warning OwnServicesInTenantRanges"}},
		"WrongOrder":      {facts: super(started("fd00::/108,10.96.0.0/12")), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Error WrongIPFamily", "Warning OwnServicesInTenantRanges"}, says: "must be of the same IP family as the first"},
		"Cilium":          {facts: super(has(Dataplane{Name: cilium, PodRanges: prefixes(ciliumPods)})), config: auto, mode: ModeParts, want: []string{"Warning RangeOverlapsPods"}, says: "10.96.0.0/12 overlaps the range 10.0.0.0/8 that Cilium takes"},
		"CiliumElsewhere": {facts: super(has(Dataplane{Name: cilium, PodRanges: prefixes("10.244.0.0/16")})), config: auto, mode: ModeParts},
		"Antrea":          {facts: super(has(Dataplane{Name: antrea})), config: auto, mode: ModeParts},
		"AntreaBeside":    {facts: super(has(Dataplane{Name: antrea})), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Warning OwnServicesInTenantRanges"}},
		"AntreaFar":       {facts: super(started("172.30.0.0/16"), has(Dataplane{Name: antrea})), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Error AntreaRouteTooLarge", "Warning OwnServicesInTenantRanges"}, says: "this is 0.0.0.0/0, which contains addresses of nodes or pods"},
		"AntreaLarge":     {facts: super(started("10.96.0.0/16"), has(Dataplane{Name: antrea})), config: Config{Pool: "10.112.0.0/16", Size: "22"}, mode: ModeObjects, want: []string{"Warning OwnServicesInTenantRanges", "Warning AntreaRouteTooLarge"}, says: ""},
		"OVNKubernetes":   {facts: super(has(Dataplane{Name: "OVN-Kubernetes"})), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Error DataplaneKnowsOneRange", "Warning OwnServicesInTenantRanges"}},
		"OVNInside":       {facts: super(has(Dataplane{Name: "OVN-Kubernetes"})), config: auto, mode: ModeParts},
		"KubeRouter":      {facts: super(has(Dataplane{Name: "kube-router"})), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Warning OwnServicesInTenantRanges", "Warning DataplaneKnowsOneRange"}},
		"CalicoBGP":       {facts: super(has(Dataplane{Name: calico, Advertised: prefixes("10.96.0.0/12")})), config: Config{Pool: "10.112.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Warning OwnServicesInTenantRanges", "Warning RangeNotAdvertised"}},
		"CalicoInside":    {facts: super(has(Dataplane{Name: calico, Advertised: prefixes("10.96.0.0/12")})), config: auto, mode: ModeParts},
		"AKS":             {facts: super(has(Dataplane{Name: "AKS"})), config: Config{Pool: "172.28.0.0/14", Size: "22"}, mode: ModeObjects, want: []string{"Error RangeForbiddenByPlatform", "Warning OwnServicesInTenantRanges"}, says: "AKS does not allow Services in 172.30.0.0/16"},
		"NotRead":         {facts: super(func(f *Facts) { f.NotRead = []string{"nodes: forbidden"} }), config: auto, mode: ModeParts, want: []string{"Warning NotRead"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := evaluate(tc.facts, tc.config)
			if r.Mode != tc.mode {
				t.Errorf("mode: got %q, want %q", r.Mode, tc.mode)
			}
			var got []string
			about := ""
			for _, f := range r.Findings {
				if f.Severity != Info {
					got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Reason))
				}
				if about == "" && (f.Severity != Info || f.Reason == string(tc.mode)) {
					about = f.Message
				}
				if f.Severity == Error && f.Action == "" {
					t.Errorf("%s does not say what to do", f.Reason)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if !strings.Contains(about, tc.says) {
				t.Errorf("got %q, want %q", about, tc.says)
			}
			if want := len(got) > 0 && strings.HasPrefix(got[0], "Error"); r.Failed() != want {
				t.Errorf("Failed: got %v, want %v", r.Failed(), want)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	for name, tc := range map[string]struct {
		pool    Config
		started string
		taken   []netip.Prefix
		want    []Capacity
	}{
		"Kubeadm":      {Config{Auto, Auto}, "10.96.0.0/12", nil, []Capacity{{"10.96.0.0/12", 22, 1023, 1023}}},
		"OpenShift":    {Config{Auto, Auto}, "172.30.0.0/16", nil, []Capacity{{"172.30.0.0/16", 24, 255, 255}}},
		"GKE":          {Config{Auto, Auto}, "34.118.224.0/20", nil, []Capacity{{"34.118.224.0/20", 26, 63, 63}}},
		"DualStack":    {Config{Auto, "23,auto"}, "10.96.0.0/16,fd00::/108", nil, []Capacity{{"10.96.0.0/16", 23, 127, 127}, {"fd00::/108", 116, 255, 255}}},
		"Large":        {Config{Auto, Auto}, "fd00::/64", nil, []Capacity{{"fd00::/64", 112, 1<<20 - 1, 1<<20 - 1}}},
		"PartOfIt":     {Config{"10.100.0.0/14", Auto}, "10.96.0.0/12", nil, []Capacity{{"10.100.0.0/14", 22, 256, 256}}},
		"FirstPart":    {Config{"10.96.0.0/14", Auto}, "10.96.0.0/12", nil, []Capacity{{"10.96.0.0/14", 22, 255, 255}}},
		"OwnObjects":   {Config{"10.112.0.0/14", Auto}, "10.96.0.0/12", nil, []Capacity{{"10.112.0.0/14", 22, 256, 256}}},
		"Taken":        {Config{Auto, Auto}, "10.96.0.0/12", prefixes("10.97.0.0/22", "10.98.0.0/21", "10.112.0.0/22"), []Capacity{{"10.96.0.0/12", 22, 1023, 1020}}},
		"SmallOnes":    {Config{Auto, Auto}, "10.96.0.0/12", prefixes("10.97.0.0/24", "10.97.1.0/24", "10.97.4.0/24"), []Capacity{{"10.96.0.0/12", 22, 1023, 1021}}},
		"NotDividable": {Config{Auto, Auto}, "10.96.0.0/28", nil, []Capacity{{"10.96.0.0/28", 28, 0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := evaluate(super(started(tc.started), func(f *Facts) { f.Tenants = tc.taken }), tc.pool)
			if diff := cmp.Diff(tc.want, r.Ranges); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	status := func(code int32, reason metav1.StatusReason, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: message}}
	}
	for name, tc := range map[string]struct {
		err   error
		want  Verdict
		fails bool
	}{
		"Created":     {nil, Accepted, false},
		"Allocated":   {status(422, metav1.StatusReasonInvalid, "failed to allocate IP 10.0.0.1: provided IP is already allocated"), Accepted, false},
		"Outside":     {status(422, metav1.StatusReasonInvalid, "the provided IP (192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"), NotInRange, false},
		"NoRange":     {status(422, metav1.StatusReasonInvalid, "the provided network does not match the current range"), NotInRange, false},
		"Policy":      {status(422, metav1.StatusReasonInvalid, "ValidatingAdmissionPolicy 'x' denied request: no"), Refused, false},
		"Rights":      {status(403, metav1.StatusReasonForbidden, "cannot create resource"), Refused, false},
		"Webhook":     {status(500, metav1.StatusReasonInternalError, "failed calling webhook"), Refused, false},
		"Busy":        {status(429, metav1.StatusReasonTooManyRequests, "later"), "", true},
		"Unavailable": {status(503, metav1.StatusReasonServiceUnavailable, "later"), "", true},
		"Unreachable": {errors.New("connection refused"), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := answer(tc.err)
			if got.Verdict != tc.want || (err != nil) != tc.fails {
				t.Errorf("got %q and %v, want %q and %v", got.Verdict, err, tc.want, tc.fails)
			}
		})
	}
}

func TestCommon(t *testing.T) {
	for _, tc := range []struct{ a, b, want string }{
		{"10.96.0.0/12", "10.112.0.0/14", "10.96.0.0/11"},
		{"172.30.0.0/16", "10.112.0.0/14", "0.0.0.0/0"},
		{"10.96.0.0/12", "10.100.0.0/16", "10.96.0.0/12"},
	} {
		a, b := netip.MustParsePrefix(tc.a), netip.MustParsePrefix(tc.b)
		if got := common(a, b); got.String() != tc.want || common(b, a) != got {
			t.Errorf("%s and %s: got %s, want %s", a, b, got, tc.want)
		}
	}
}
