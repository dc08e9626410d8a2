package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func TestDistribute(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100-i) * time.Millisecond
	}
	for name, tc := range map[string]struct {
		in                  []time.Duration
		mean, p50, p99, max float64
	}{
		"None":    {},
		"One":     {[]time.Duration{3 * time.Millisecond}, 3, 3, 3, 3},
		"Two":     {[]time.Duration{4 * time.Millisecond, 2 * time.Millisecond}, 3, 2, 4, 4},
		"Hundred": {hundred, 50.5, 50, 99, 100},
	} {
		t.Run(name, func(t *testing.T) {
			got := distribute(tc.in)
			if math.Abs(got.Mean-tc.mean) > 1e-9 || got.P50 != tc.p50 || got.P99 != tc.p99 || got.Max != tc.max || got.Count != len(tc.in) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestOver(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []float64
		want spread
	}{
		"One":  {[]float64{3}, spread{3, 3, 3}},
		"Odd":  {[]float64{9, 1, 2}, spread{2, 1, 9}},
		"Even": {[]float64{9, 1, 2, 4}, spread{3, 1, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := over(tc.in); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if !math.IsNaN(over(nil).median) {
		t.Error("the median of nothing is a number")
	}
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		ok   bool
	}{
		"Defaults":  {nil, true},
		"Quick":     {[]string{"--quick", "--syncer", "a", "--syncer", "b"}, true},
		"OneTenant": {[]string{"--tenants", "1"}, false},
		"NoRounds":  {[]string{"--rounds", "0"}, false},
		"Arguments": {[]string{"more"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(tc.args)
			if (err == nil) != tc.ok {
				t.Fatalf("got %v", err)
			}
			if name == "Quick" && (o.Tenants != 2 || !cmp.Equal(o.Syncers, []string{"a", "b"})) {
				t.Errorf("got %+v", o)
			}
		})
	}
}

func TestRequests(t *testing.T) {
	const text = `# TYPE rest_client_requests_total counter
rest_client_requests_total{code="201",host="127.0.0.1:1",method="POST"} 3
rest_client_requests_total{code="409",host="127.0.0.1:1",method="POST"} 1
rest_client_requests_total{code="200",host="127.0.0.1:1",method="GET"} 7
rest_client_requests_total{code="200",host="127.0.0.1:2",method="PATCH"} 6
# TYPE vc_syncer_ops_total counter
vc_syncer_ops_total{resource="pods",result="OK",side="Super",verb="Create"} 2
# TYPE workqueue_work_duration_seconds histogram
workqueue_work_duration_seconds_bucket{controller="pods",name="pods",le="+Inf"} 8
workqueue_work_duration_seconds_sum{controller="pods",name="pods"} 1
workqueue_work_duration_seconds_count{controller="pods",name="pods"} 8
`
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := count(families, "127.0.0.1:1")
	got := all.since(requests{"super POST": 2, "super GET": 7}, 2)
	if diff := cmp.Diff(requests{"super POST": 1, "tenant PATCH": 3, "pods super create": 1, "decide pods": 4}, got); diff != "" {
		t.Errorf("counts differ (-want +got):\n%s", diff)
	}
	if n := all.sum(isWrite); n != 10 {
		t.Errorf("got %v writes, want 10", n)
	}
}

func TestWatch(t *testing.T) {
	w := &podWatch{name: "tenant-0", pods: map[types.NamespacedName]seen{}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "load", Name: "a"}}
	w.observe(watch.Added, pod)
	first, err := w.get("load", "a")
	if err != nil || first.added.IsZero() || !first.ready.IsZero() {
		t.Fatalf("got %v, %v", first, err)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	w.observe(watch.Modified, pod)
	second, _ := w.get("load", "a")
	w.observe(watch.Modified, pod)
	third, _ := w.get("load", "a")
	if second.ready.IsZero() || second.added != first.added || third != second {
		t.Errorf("got %v and then %v", second, third)
	}
	if n, _ := w.count("load"); n != 1 {
		t.Errorf("got %d pods, want 1", n)
	}
	w.observe(watch.Deleted, pod)
	if n, _ := w.count("load"); n != 0 {
		t.Errorf("got %d pods, want 0", n)
	}
	w.fail(errors.New("gone"))
	if _, err := w.count("load"); err == nil {
		t.Error("the failure of the watch was not returned")
	}
}

// sample is the result of a run of two syncers over a warm-up round and two others.
func sample() *results {
	r := &results{
		Machine: "a machine", When: time.Unix(0, 0).UTC(), Syncers: labels([]string{"old/vc-syncer", "new/vc-syncer-2"}),
		Options: options{Tenants: 20, BurstPods: 100, Rounds: 2, LightRate: 20, RestartPods: 1000, Churn: time.Second},
	}
	for number := range 3 {
		for i, side := range append([]string{baseline}, r.Syncers...) {
			for _, measure := range []string{burst, light, alone, crowded} {
				one := round{
					Measure: measure, Side: side, Number: number, WarmUp: number == 0, PodsPerSecond: float64(200 / (i + 1) * (number + 1)),
					Ready: distribute([]time.Duration{time.Duration(10*(i+1)) * time.Millisecond}), SyncerCPU: float64(2 * i), SuperCPU: 1,
				}
				r.Rounds = append(r.Rounds, one)
			}
		}
	}
	for _, name := range r.Syncers {
		r.Still = append(r.Still, still{
			Syncer: name, Empty: 10 << 20, Tenants: 30 << 20, Full: 40 << 20, RestartPods: 1024, Restart: 1500, IdleCPU: 0.25,
			Churn: []int64{1 << 20, 2 << 20},
		})
	}
	return r
}

func TestRender(t *testing.T) {
	got := render(sample())
	for _, want := range []string{
		"| What | Baseline | A: vc-syncer | B: vc-syncer-2 | B / A | Aim |\n|---|---|---|---|---|---|\n",
		"| Burst of 20 x 100 pods: rate | 500 pods/s (400 - 600) | 250 pods/s (200 - 300); **0.50 x** | 165 pods/s (132 - 198); **0.33 x** | 0.66 | >= 0.55 x |\n",
		"| Light load, 20 pods/s: created -> Ready, median | 10 ms | 20 ms; **+10 ms** | 30 ms; **+20 ms** | 1.50 | <= +5 ms |\n",
		"| Burst: CPU of vc-syncer for a pod |  | 2 ms | 4 ms | 2.00 | <= 1.0 ms |\n",
		"| Memory for an idle tenant |  | 1 MiB | 1 MiB | 1.00 | <= 1 MB |\n",
		"| Memory for a synchronised pod |  | 10 KiB | 10 KiB | 1.00 | <= 6 KB |\n",
		"| Restart with 1000 pods: until a new pod of each tenant is Ready |  | 1500 ms | 1500 ms | 1.00 | <= 2 s |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line\n%sin\n%s", want, got)
		}
	}
	// A run that failed early has a table all the same.
	broken := sample()
	broken.Rounds, broken.Still = nil, make([]still, 2)
	if text := render(broken); !strings.Contains(text, "rate | not measured | not measured | not measured |  | >=") || strings.Contains(text, "NaN") {
		t.Errorf("got\n%s", text)
	}
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	r := sample()
	if err := save(dir, r, "the table\n"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ready.svg", "churn.svg"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte("vc-syncer-2")) {
			t.Errorf("%s does not name what it shows", name)
		}
		decoder := xml.NewDecoder(bytes.NewReader(text))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s is not well formed: %v", name, err)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var again results
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Rounds, again.Rounds); diff != "" {
		t.Errorf("rounds differ (-written +read):\n%s", diff)
	}
}
