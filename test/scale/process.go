package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// stopTimeout is how long a vc-syncer may take to end before it is killed.
const stopTimeout = 15 * time.Second

// build makes vc-syncer from this tree.
func build(ctx context.Context, root, binary string) error {
	target, err := filepath.Abs(binary)
	if err != nil {
		return fmt.Errorf("finding the directory for the results: %w", err)
	}
	progress("building vc-syncer")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-w", "-o", target, "./cmd/vc-syncer")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building vc-syncer: %w: %s", err, out)
	}
	return nil
}

// syncer is a running vc-syncer.
type syncer struct {
	*worlds.Process
	started        time.Time
	metrics, pprof string // addresses
}

// startSyncer starts a vc-syncer with its defaults.
func (b *bench) startSyncer(ctx context.Context, binary string) (*syncer, error) {
	s := &syncer{}
	args := []string{"--kubeconfig=" + b.worlds.Super.KubeconfigPath(), "--health-probe-bind-address=0"}
	for flag, address := range map[string]*string{"--metrics-bind-address": &s.metrics, "--pprof-bind-address": &s.pprof} {
		if address == &s.pprof && !b.options.Profile {
			continue
		}
		port, err := worlds.FreePort(ctx)
		if err != nil {
			return nil, err
		}
		*address = fmt.Sprintf("127.0.0.1:%d", port)
		args = append(args, flag+"="+*address)
	}
	log := filepath.Join(b.options.out, "vc-syncer.log")
	s.started = time.Now()
	var err error
	if s.Process, err = worlds.StartProcess(log, binary, args...); err != nil {
		return nil, err
	}
	return s, nil
}

// end stops a vc-syncer as a rollout does.
func (s *syncer) end() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	s.Terminate(ctx)
}

// requests counts what a vc-syncer did, by the name of a kind of work: "super PATCH" for requests to an API server,
// "pods super create" for operations, "decide pods" for decisions.
type requests map[string]float64

func (r requests) since(before requests, divisor int) requests {
	diff := requests{}
	for key, n := range r {
		if n > before[key] {
			diff[key] = (n - before[key]) / float64(divisor)
		}
	}
	return diff
}

// sum adds up those whose name satisfies the condition.
func (r requests) sum(is func(string) bool) float64 {
	var n float64
	for key, count := range r {
		if is(key) {
			n += count
		}
	}
	return n
}

// isWrite says whether a name is that of requests to an API server that write; watches, lists and gets do not.
func isWrite(key string) bool {
	side, method, _ := strings.Cut(key, " ")
	return (side == "super" || side == "tenant") && method != http.MethodGet
}

// requests reads the metrics of a vc-syncer.
func (b *bench) requests(ctx context.Context, s *syncer) (requests, error) {
	families, err := scrape(ctx, s)
	if err != nil {
		return nil, err
	}
	return count(families, strings.TrimPrefix(b.worlds.Super.Config.Host, "https://")), nil
}

func scrape(ctx context.Context, s *syncer) (map[string]*dto.MetricFamily, error) {
	body, err := get(ctx, "http://"+s.metrics+"/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(body)
	if err != nil {
		return nil, fmt.Errorf("reading the metrics of vc-syncer: %w", err)
	}
	return families, nil
}

// count adds up requests to API servers by side and method, operations by kind, side and verb, and decisions by kind.
func count(families map[string]*dto.MetricFamily, super string) requests {
	counts := requests{}
	for _, m := range families["rest_client_requests_total"].GetMetric() {
		l := labelsOf(m)
		side := "tenant"
		if l["host"] == super {
			side = "super"
		}
		counts[side+" "+l["method"]] += m.GetCounter().GetValue()
	}
	for _, m := range families["vc_syncer_ops_total"].GetMetric() {
		l := labelsOf(m)
		counts[strings.Join([]string{l["resource"], strings.ToLower(l["side"]), strings.ToLower(l["verb"])}, " ")] += m.GetCounter().GetValue()
	}
	for _, m := range families["workqueue_work_duration_seconds"].GetMetric() {
		counts["decide "+labelsOf(m)["name"]] += float64(m.GetHistogram().GetSampleCount())
	}
	return counts
}

func labelsOf(m *dto.Metric) map[string]string {
	values := map[string]string{}
	for _, l := range m.GetLabel() {
		values[l.GetName()] = l.GetValue()
	}
	return values
}

// profile writes a CPU profile of the given time into a file, in the background, and returns what waits for it.
func (s *syncer) profile(ctx context.Context, path string, duration time.Duration) func() error {
	done := make(chan error, 1)
	go func() {
		body, err := get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.pprof, int(duration.Seconds())))
		if err != nil {
			done <- err
			return
		}
		file, err := os.Create(path)
		if err != nil {
			done <- errors.Join(err, body.Close())
			return
		}
		_, err = io.Copy(file, body)
		done <- errors.Join(err, body.Close(), file.Close())
	}()
	return func() error { return <-done }
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking vc-syncer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("asking vc-syncer for %s: %s", req.URL.Path, res.Status), res.Body.Close())
	}
	return res.Body, nil
}

// connected is how many tenants a vc-syncer serves.
func (b *bench) connected(ctx context.Context, s *syncer) (int, error) {
	families, err := scrape(ctx, s)
	if err != nil {
		return 0, err
	}
	for _, m := range families["vc_syncer_tenants"].GetMetric() {
		if labelsOf(m)["state"] == "Synced" {
			return int(m.GetGauge().GetValue()), nil
		}
	}
	return 0, errors.New("vc-syncer has no metric vc_syncer_tenants")
}
