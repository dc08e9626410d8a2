package stats_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/virtualcluster-io/virtualcluster/vn-agent/stats"
)

var update = flag.Bool("update", false, "write the expected answers")

// Recorded on a node of the local cluster, and shortened: pods of two tenants, of the super cluster, and of the control
// plane of tenant B.
const (
	shopOfB   = "tenants-tenant-b-shop-zwgboswp7pcax"
	systemOfA = "tenants-tenant-a-kube-system-pasqkmxv22hxg"
	webUID    = "c2f3d34b-3f6d-4842-accc-1f52af49a825"
	dnsUID    = "d50278d2-cf96-42cc-97e1-d23791ed0ecf"
	webUIDOfB = "107d9bf6-99eb-44a4-89d9-788e94e7950e"
	dnsUIDOfA = "2c18d33e-b37a-4848-a310-e56151ea98e7"
)

func tenants() map[string]stats.Owned {
	return map[string]stats.Owned{
		"a": {{Namespace: systemOfA, Name: "coredns-8bd4b5596-vkgfm"}: {Namespace: "kube-system", UID: dnsUIDOfA, SuperUID: dnsUID}},
		"b": {{Namespace: shopOfB, Name: "web"}: {Namespace: "shop", UID: webUIDOfB, SuperUID: webUID}},
		"c": {},
	}
}

// measured parses a recorded answer.
func measured(t *testing.T, file string) stats.Measured {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(file) != ".json" {
		return stats.ParseExposition(string(body))
	}
	summary, err := stats.ParseSummary(body)
	if err != nil {
		t.Fatal(err)
	}
	return summary
}

func reduce(t *testing.T, m stats.Measured, owned stats.Owned) string {
	t.Helper()
	body, err := m.For(owned, &stats.Account{})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// What each tenant gets of real answers is in testdata, for people to read. Nothing of it may be about others.
func TestRecordedAnswers(t *testing.T) {
	for _, file := range []string{"resource.txt", "cadvisor.txt", "probes.txt", "summary.json"} {
		for tenant, owned := range tenants() {
			t.Run(file+"/"+tenant, func(t *testing.T) {
				got := reduce(t, measured(t, file), owned)
				extension := filepath.Ext(file)
				golden := filepath.Join("testdata", strings.TrimSuffix(file, extension)+"-"+tenant+extension)
				if extension == ".json" {
					got = indent(t, got)
				}
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				// The names and UIDs of the super cluster, cgroups, devices, what identifies the machine, the pause image.
				for _, foreign := range []string{"tenants-", webUID, dnsUID, "kubepods", "/dev/", "machine_", "kernelVersion", "registry.k8s.io/pause", "etcd"} {
					if strings.Contains(got, foreign) {
						t.Errorf("the answer names %s", foreign)
					}
				}
				if tenant != "a" && strings.Contains(got, "coredns") || tenant != "b" && strings.Contains(got, `"web"`) {
					t.Error("the answer tells of a pod of another")
				}
			})
		}
	}
}

func indent(t *testing.T, text string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

func TestPodsAreFound(t *testing.T) {
	for file, want := range map[string]map[stats.Pod]string{
		"resource.txt": {{Namespace: shopOfB, Name: "web"}: ""},
		"cadvisor.txt": {{Namespace: shopOfB, Name: "web"}: ""},
		"probes.txt":   {{Namespace: shopOfB, Name: "web"}: webUID},
		"summary.json": {{Namespace: shopOfB, Name: "web"}: webUID},
	} {
		t.Run(file, func(t *testing.T) {
			m := measured(t, file)
			if diff := cmp.Diff(want, m.Pods(shopOfB)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := m.Pods(""); len(got) > 0 {
				t.Errorf("without a namespace there are %v", got)
			}
		})
	}
}

// own is what the tenant of the following tests has.
func own() stats.Owned {
	return stats.Owned{{Namespace: "super-shop", Name: "web"}: {Namespace: "shop", UID: "tenant-uid", SuperUID: "super-uid"}}
}

func TestSamples(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"Own":            {`m{namespace="super-shop",pod="web"} 1 2`, "m{namespace=\"shop\",pod=\"web\"} 1 2\n"},
		"NoTime":         {`m{namespace="super-shop",pod="web"} 1`, "m{namespace=\"shop\",pod=\"web\"} 1\n"},
		"Infinite":       {`m{namespace="super-shop",pod="web"} +Inf`, "m{namespace=\"shop\",pod=\"web\"} +Inf\n"},
		"TrailingComma":  {`m{namespace="super-shop",pod="web",} 1`, "m{namespace=\"shop\",pod=\"web\"} 1\n"},
		"HeaderOfOwn":    {"# HELP m Help.\n# TYPE m gauge\nm{namespace=\"super-shop\",pod=\"web\"} 1", "# HELP m Help.\n# TYPE m gauge\nm{namespace=\"shop\",pod=\"web\"} 1\n"},
		"HeaderOfOthers": {"# HELP m Help.\n# TYPE m gauge\nm{namespace=\"other\",pod=\"web\"} 1", ""},
		"Escapes":        {`m{container="a\"b\\c\nd",namespace="super-shop",pod="web"} 1`, `m{container="a\"b\\c\nd",namespace="shop",pod="web"} 1` + "\n"},
		"UID":            {`m{namespace="super-shop",pod="web",pod_uid="super-uid"} 1`, "m{namespace=\"shop\",pod=\"web\",pod_uid=\"tenant-uid\"} 1\n"},

		"OtherNamespace":       {`m{namespace="super-shop2",pod="web"} 1`, ""},
		"LookAlikeNamespace":   {`m{namespace="super-shop ",pod="web"} 1`, ""},
		"TenantsNamespace":     {`m{namespace="shop",pod="web"} 1`, ""},
		"OtherPod":             {`m{namespace="super-shop",pod="web2"} 1`, ""},
		"OtherUID":             {`m{namespace="super-shop",pod="web",pod_uid="earlier"} 1`, ""},
		"NoPod":                {`m{namespace="super-shop"} 1`, ""},
		"EmptyPod":             {`m{namespace="super-shop",pod=""} 1`, ""},
		"NoNamespace":          {`m{pod="web"} 1`, ""},
		"NoLabels":             {`m 1`, ""},
		"NamespaceInAValue":    {`m{container="namespace=\"super-shop\"",namespace="other",pod="web"} 1`, ""},
		"EndOfLabelsInAValue":  {`m{container="\"} 1",namespace="other",pod="web"} 1`, ""},
		"NamespaceTwice":       {`m{namespace="super-shop",namespace="other",pod="web"} 1`, ""},
		"PodTwice":             {`m{namespace="super-shop",pod="web",pod="other"} 1`, ""},
		"SimilarLabel":         {`m{xnamespace="super-shop",namespace="other",pod="web"} 1`, ""},
		"UnknownLabel":         {`m{host="node",namespace="super-shop",pod="web"} 1`, ""},
		"UnknownEscape":        {`m{container="\x",namespace="super-shop",pod="web"} 1`, ""},
		"OpenValue":            {`m{namespace="super-shop",pod="web} 1`, ""},
		"OpenEscape":           {`m{namespace="super-shop",pod="web\`, ""},
		"OpenLabels":           {`m{namespace="super-shop",pod="web" 1`, ""},
		"SpaceInLabels":        {`m{namespace="super-shop", pod="web"} 1`, ""},
		"QuotedName":           {`{"m.x",namespace="super-shop",pod="web"} 1`, ""},
		"NotANumber":           {`m{namespace="super-shop",pod="web"} one`, ""},
		"TimeIsNotANumber":     {`m{namespace="super-shop",pod="web"} 1 now`, ""},
		"Exemplar":             {`m{namespace="super-shop",pod="web"} 1 2 # {pod="other"} 3`, ""},
		"TwoSpaces":            {`m{namespace="super-shop",pod="web"}  1`, ""},
		"CarriageReturn":       {"m{namespace=\"super-shop\",pod=\"web\"} 1\r", ""},
		"CommentWithASample":   {`# m{namespace="super-shop",pod="web"} 1`, ""},
		"HelpOfAnotherPlace":   {"# HELP secret of others\n# TYPE n gauge\nm{namespace=\"super-shop\",pod=\"web\"} 1", "m{namespace=\"shop\",pod=\"web\"} 1\n"},
		"SampleOfOthersAmong":  {"m{namespace=\"other\",pod=\"web\"} 7\nm{namespace=\"super-shop\",pod=\"web\"} 1", "m{namespace=\"shop\",pod=\"web\"} 1\n"},
		"CgroupIsTakenOff":     {`m{container="app",id="/kubepods/x",image="i",name="n",namespace="super-shop",pod="web"} 1`, "m{container=\"app\",image=\"i\",name=\"n\",namespace=\"shop\",pod=\"web\"} 1\n"},
		"ImageBelowContainers": {`m{container="",image="private.registry/pause:1",namespace="super-shop",pod="web"} 1`, "m{container=\"\",image=\"pause\",namespace=\"shop\",pod=\"web\"} 1\n"},
		"DevicesAreAddedUp": {
			`m{device="/dev/sda",namespace="super-shop",operation="Read",pod="web"} 1 5` + "\n" + `m{device="/dev/sda",namespace="super-shop",operation="Write",pod="web"} 4 5` + "\n" +
				`m{device="/dev/sdb",namespace="super-shop",operation="Read",pod="web"} 2 6` + "\n" + `m{device="/dev/sdb",namespace="other",operation="Read",pod="web"} 8 6`,
			"m{namespace=\"shop\",operation=\"Read\",pod=\"web\"} 3 6\nm{namespace=\"shop\",operation=\"Write\",pod=\"web\"} 4 5\n",
		},
		"NodeIsTheSumOfOwn": {
			"node_cpu_usage_seconds_total 1000 7\nnode_memory_working_set_bytes 1000 7\nnode_swap_usage_bytes 1000 7\n" +
				`pod_cpu_usage_seconds_total{namespace="super-shop",pod="web"} 2.5 9` + "\n" + `pod_cpu_usage_seconds_total{namespace="other",pod="web"} 100 9` + "\n" +
				`pod_memory_working_set_bytes{namespace="super-shop",pod="web"} 30 8`,
			"node_cpu_usage_seconds_total 2.5 9\nnode_memory_working_set_bytes 30 9\nnode_swap_usage_bytes 0 9\n" +
				"pod_cpu_usage_seconds_total{namespace=\"shop\",pod=\"web\"} 2.5 9\npod_memory_working_set_bytes{namespace=\"shop\",pod=\"web\"} 30 8\n",
		},
		"NodeWithoutPods":      {"node_cpu_usage_seconds_total 1000 7\nnode_memory_working_set_bytes 1000 7", "node_cpu_usage_seconds_total 1e-09 7\nnode_memory_working_set_bytes 1 7\n"},
		"OtherNodeMetrics":     {"node_secret 1\nmachine_memory_bytes{machine_id=\"x\"} 1\nnode_cpu_usage_seconds_total{cpu=\"0\"} 1", ""},
		"ScrapeErrorsPass":     {"resource_scrape_error 1\nscrape_error 0\ncontainer_scrape_error 0", "resource_scrape_error 1\nscrape_error 0\ncontainer_scrape_error 0\n"},
		"Histogram":            {"# TYPE h histogram\nh_bucket{le=\"1\",namespace=\"super-shop\",pod=\"web\"} 1\nh_sum{namespace=\"super-shop\",pod=\"web\"} 2", "# TYPE h histogram\nh_bucket{le=\"1\",namespace=\"shop\",pod=\"web\"} 1\nh_sum{namespace=\"shop\",pod=\"web\"} 2\n"},
		"ContainerOfTheSyncer": {`m{container="tenancy-x-k8s-io-hosts",namespace="super-shop",pod="web"} 1`, ""},
		"BrokenLineAmongOwn":   {"m{namespace=\"super-shop\"\nm{namespace=\"super-shop\",pod=\"web\"} 1", "m{namespace=\"shop\",pod=\"web\"} 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, reduce(t, stats.ParseExposition(tc.in), own())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Whatever the text is, what comes out says shop and web and nothing else of where it is from.
func FuzzExposition(f *testing.F) {
	for _, file := range []string{"resource.txt", "cadvisor.txt", "probes.txt"} {
		body, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.SplitSeq(string(body), "\n") {
			f.Add(strings.NewReplacer(shopOfB, "super-shop", webUID, "super-uid").Replace(line))
		}
	}
	series := regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-z_]+="([^"\\]|\\.)*",?)*\})? [^ ]+( -?[0-9]+)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		body, err := stats.ParseExposition(text).For(own(), &stats.Account{})
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(body), "\n"), "\n") {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !series.MatchString(line) {
				t.Errorf("%q is not a sample", line)
			}
			if strings.Contains(line, "{") && (!strings.Contains(line, `namespace="shop"`) || !strings.Contains(line, `pod="web"`)) {
				t.Errorf("%q is not of the tenant", line)
			}
		}
	})
}

// The total of a node does not decrease when a pod goes, comes back under another UID, or is missing for a moment.
func TestNodeTotalNeverDecreases(t *testing.T) {
	account := &stats.Account{}
	node := func(text string, superUID string) string {
		owned := own()
		for pod, identity := range owned {
			identity.SuperUID = superUID
			owned[pod] = identity
		}
		body, err := stats.ParseExposition("node_cpu_usage_seconds_total 1000 7\n"+text).For(owned, account)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(body), "\n")
		return strings.TrimPrefix(first, "node_cpu_usage_seconds_total ")
	}
	pod := func(value string) string {
		return `pod_cpu_usage_seconds_total{namespace="super-shop",pod="web"} ` + value
	}
	got := []string{
		node(pod("5 10"), "1"),
		node(pod("4 9"), "1"), // from a source that is behind
		node("", "1"),         // missing for a moment
		node(pod("6 11"), "1"),
		node(pod("1 12"), "2"), // another pod
		node(pod("2 13"), "2"),
		node("", "2"),
	}
	if diff := cmp.Diff([]string{"5 10", "5 10", "5 10", "6 11", "7 12", "8 13", "8 13"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSummaryOfCPUAndMemory(t *testing.T) {
	summary, err := stats.ParseSummary([]byte(`{"node": {"nodeName": "n", "fs": {"usedBytes": 1}}, "pods": [{
		"podRef": {"name": "web", "namespace": "super-shop", "uid": "super-uid"},
		"cpu": {"usageNanoCores": 1, "usageCoreNanoSeconds": 2}, "memory": {"workingSetBytes": 3}, "network": {"name": "eth0"},
		"containers": [{"name": "app", "cpu": {"usageNanoCores": 4}, "rootfs": {"usedBytes": 5}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	got := statsapi.Summary{}
	if err := json.Unmarshal([]byte(reduce(t, stats.CPUAndMemory{Summary: summary}, own())), &got); err != nil {
		t.Fatal(err)
	}
	pod := got.Pods[0]
	if pod.Network != nil || pod.Containers[0].Rootfs != nil || got.Node.Fs != nil {
		t.Errorf("more than CPU and memory: %+v", got)
	}
	if *pod.CPU.UsageNanoCores != 1 || *pod.Memory.WorkingSetBytes != 3 || *pod.Containers[0].CPU.UsageNanoCores != 4 || *got.Node.CPU.UsageCoreNanoSeconds != 2 {
		t.Errorf("CPU and memory are missing: %+v", got)
	}
}

func TestSummaryOfClaimsAndOthers(t *testing.T) {
	summary, err := stats.ParseSummary([]byte(`{"node": {"nodeName": "n", "secret": 1}, "pods": [
		{"podRef": {"name": "web", "namespace": "super-shop", "uid": "super-uid"}, "secret": 2,
			"volume": [{"name": "data", "pvcRef": {"name": "data-web", "namespace": "super-shop"}, "usedBytes": 1}],
			"containers": [{"name": "app", "accelerators": [{"id": "GPU-1"}]}, {"name": "tenancy-x-k8s-io-hosts"}]},
		{"podRef": {"name": "web", "namespace": "super-shop", "uid": "earlier"}, "cpu": {"usageNanoCores": 9}},
		{"podRef": {"name": "web", "namespace": "other", "uid": "super-uid"}, "cpu": {"usageNanoCores": 9}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	text := reduce(t, summary, own())
	got := statsapi.Summary{}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Pods) != 1 || got.Pods[0].PodRef != (statsapi.PodReference{Namespace: "shop", Name: "web", UID: "tenant-uid"}) {
		t.Errorf("the pods are %+v", got.Pods)
	}
	if diff := cmp.Diff(&statsapi.PVCReference{Namespace: "shop", Name: "data-web"}, got.Pods[0].VolumeStats[0].PVCRef); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if *got.Node.CPU.UsageNanoCores != 0 {
		t.Errorf("the node has %d", *got.Node.CPU.UsageNanoCores)
	}
	for _, foreign := range []string{"secret", "super-", "GPU-1", "earlier", "tenancy-"} {
		if strings.Contains(text, foreign) {
			t.Errorf("the answer names %s: %s", foreign, text)
		}
	}
}

func TestBrokenSummary(t *testing.T) {
	if _, err := stats.ParseSummary([]byte(`{"node": `)); err == nil {
		t.Error("no error")
	}
}
