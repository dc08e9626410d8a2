// Command monitoring generates the Grafana dashboards of the chart with Grafana's own builders. The tests beside it check
// them, and the alert rules of the chart, with Grafana's and Prometheus' own code. Run it through make generate.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: monitoring FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// write writes the dashboards into a folder.
func write(folder string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", folder, err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			return fmt.Errorf("writing a dashboard: %w", err)
		}
	}
	return nil
}

// generate returns the dashboards by the names of their files.
func generate() (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, b := range map[string]*builder{"vc-syncer.json": syncer(), "vc-manager.json": manager()} {
		built, err := b.Build()
		if err != nil {
			return nil, fmt.Errorf("building %s: %w", name, err)
		}
		content, err := json.MarshalIndent(built, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", name, err)
		}
		files[name] = append(content, '\n')
	}
	return files, nil
}

// builder is that of the form of dashboards that Grafana's sidecar loads, in older versions of Grafana too.
type builder = dashboard.DashboardBuilder //nolint:staticcheck // the newer form is for the newest Grafana only

// query is one expression of a panel and the legend of its series.
type query struct{ expr, legend string }

// quantile is a quantile of a histogram by labels.
func quantile(q, metric, labels, legend string) query {
	return query{fmt.Sprintf("histogram_quantile(%s, sum by (le, %s) (rate(%s_bucket[$__rate_interval])))", q, labels, metric), legend + " p" + q[2:]}
}

// latency are two quantiles of a histogram by labels.
func latency(metric, labels, legend string) []query {
	return []query{quantile("0.50", metric, labels, legend), quantile("0.99", metric, labels, legend)}
}

func base(uid, title string) *builder {
	b := dashboard.NewDashboardBuilder(title) //nolint:staticcheck // see builder
	return b.Uid(uid).Tags([]string{"virtualcluster"}).Time("now-3h", "now").Refresh("30s").Readonly().
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus"))
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func target(q query) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).Datasource(source())
}

func graph(title, description, unit string, queries ...query) cog.Builder[dashboard.Panel] {
	p := timeseries.NewPanelBuilder().Title(title).Description(description).Unit(unit).Datasource(source()).Min(0).Height(8).Span(8)
	for _, q := range queries {
		p.WithTarget(target(q))
	}
	return p
}

func number(title, description string, q query) cog.Builder[dashboard.Panel] {
	return stat.NewPanelBuilder().Title(title).Description(description).Datasource(source()).Height(5).Span(6).WithTarget(target(q))
}

// process are the panels of the resources of a component.
func process(job string) []cog.Builder[dashboard.Panel] {
	of := func(expr string) query { return query{fmt.Sprintf(expr, job), "{{pod}}"} }
	return []cog.Builder[dashboard.Panel]{
		graph("CPU", "Cores that the processes use.", units.Short, of(`rate(process_cpu_seconds_total{job="%s"}[$__rate_interval])`)),
		graph("Memory", "Resident memory of the processes.", units.BytesIEC, of(`process_resident_memory_bytes{job="%s"}`)),
		graph("Goroutines", "Goroutines of the processes.", units.Short, of(`go_goroutines{job="%s"}`)),
	}
}

func rows(d *builder, title string, panels ...cog.Builder[dashboard.Panel]) {
	d.WithRow(dashboard.NewRowBuilder(title))
	for _, p := range panels {
		d.WithPanel(p)
	}
}

func syncer() *builder {
	d := base("vc-syncer", "VirtualCluster / vc-syncer")
	rows(d, "State",
		number("Active replicas", "Replicas that lead and have read the super cluster; 1 is right.", query{"sum(vc_syncer_active)", ""}),
		number("Tenants", "Connected tenants.", query{"sum(vc_syncer_tenants)", ""}),
		number("Tenants out of sync", "Tenants in another state than Synced.", query{`sum(vc_syncer_tenants{state!="Synced"})`, ""}),
		number("Tenants with held deletions", "Their deletions wait for a person.", query{"sum(vc_syncer_tenants_deletions_held)", ""}),
		graph("Tenants by state", "", units.Short, query{"sum by (state) (vc_syncer_tenants)", "{{state}}"}),
		graph("Queue depth", "Keys that wait for a worker.", units.Short, query{"sum by (resource) (vc_syncer_queue_depth)", "{{resource}}"}),
		graph("Queue age", "Age of the key that waits longest.", units.Seconds, query{"max by (resource) (vc_syncer_queue_oldest_seconds)", "{{resource}}"}),
	)
	rows(d, "Latency",
		graph("End to end", "From seeing a change on one side until its effect was written to the other.", units.Seconds, latency("vc_syncer_sync_duration_seconds", "direction", "{{direction}}")...),
		graph("Queue", "From queueing a key until a worker decides about it.", units.Seconds, latency("vc_syncer_queue_duration_seconds", "resource", "{{resource}}")...),
		graph("Decision", "", units.Seconds, latency("vc_syncer_decision_duration_seconds", "resource", "{{resource}}")...),
		graph("Operation", "With the live reads that it depends on.", units.Seconds, latency("vc_syncer_op_duration_seconds", "side, verb", "{{side}} {{verb}}")...),
		graph("End to end, down, by resource", "99th percentile.", units.Seconds,
			query{`histogram_quantile(0.99, sum by (le, resource) (rate(vc_syncer_sync_duration_seconds_bucket{direction="down"}[$__rate_interval])))`, "{{resource}}"}),
		graph("End to end, up, by resource", "99th percentile.", units.Seconds,
			query{`histogram_quantile(0.99, sum by (le, resource) (rate(vc_syncer_sync_duration_seconds_bucket{direction="up"}[$__rate_interval])))`, "{{resource}}"}),
	)
	rows(d, "Work",
		graph("Operations", "", units.OpsPerSecond, query{"sum by (side, verb) (rate(vc_syncer_ops_total[$__rate_interval]))", "{{side}} {{verb}}"}),
		graph("Failed operations", "", units.OpsPerSecond, query{`sum by (side, result) (rate(vc_syncer_ops_total{result!="ok"}[$__rate_interval]))`, "{{side}} {{result}}"}),
		graph("Retries", "Keys that are tried again after an error.", units.OpsPerSecond, query{"sum by (resource) (rate(vc_syncer_retries_total[$__rate_interval]))", "{{resource}}"}),
		graph("Rejections", "Refusals of tenants' objects.", units.OpsPerSecond, query{"sum by (resource, reason) (rate(vc_syncer_rejected_total[$__rate_interval]))", "{{resource}} {{reason}}"}),
		graph("Drift", "Differences that no event had announced.", units.OpsPerSecond, query{"sum by (resource) (rate(vc_syncer_drift_total[$__rate_interval]))", "{{resource}}"}),
		graph("Cached objects", "", units.Short, query{"sum by (resource, side) (vc_syncer_cache_objects)", "{{side}} {{resource}}"}),
	)
	rows(d, "Process", process("vc-syncer")...)
	return d
}

func manager() *builder {
	d := base("vc-manager", "VirtualCluster / vc-manager")
	const controllers = `controller=~"virtualcluster|nodecert|retired-clusterversion"`
	rows(d, "Tenants",
		graph("VirtualClusters by phase", "", units.Short, query{"max by (phase) (vc_manager_virtualclusters)", "{{phase}}"}),
		graph("Conditions that are not true", "VirtualClusters by condition and reason.", units.Short,
			query{`max by (type, reason) (vc_manager_virtualcluster_conditions{status!="True",type!~"Reconciling|Stalled"})`, "{{type}} {{reason}}"}),
		graph("Stalled", "VirtualClusters that wait for a person, by reason.", units.Short,
			query{`max by (reason) (vc_manager_virtualcluster_conditions{status="True",type="Stalled"})`, "{{reason}}"}),
		graph("Time until ready", "From creation until the first Ready.", units.Seconds,
			query{"histogram_quantile(0.50, sum by (le) (rate(vc_manager_virtualcluster_ready_seconds_bucket[$__rate_interval])))", "p50"},
			query{"histogram_quantile(0.99, sum by (le) (rate(vc_manager_virtualcluster_ready_seconds_bucket[$__rate_interval])))", "p99"}),
	)
	rows(d, "Controllers",
		graph("Reconciles", "", units.OpsPerSecond,
			query{"sum by (controller, result) (rate(controller_runtime_reconcile_total{" + controllers + "}[$__rate_interval]))", "{{controller}} {{result}}"}),
		graph("Errors", "", units.OpsPerSecond,
			query{"sum by (controller) (rate(controller_runtime_reconcile_errors_total{" + controllers + "}[$__rate_interval]))", "{{controller}}"}),
		graph("Duration", "99th percentile.", units.Seconds,
			query{"histogram_quantile(0.99, sum by (le, controller) (rate(controller_runtime_reconcile_time_seconds_bucket{" + controllers + "}[$__rate_interval])))", "{{controller}}"}),
		graph("Queue depth", "VirtualClusters and others that wait for a worker.", units.Short,
			query{"sum by (controller) (workqueue_depth{" + controllers + "})", "{{controller}}"}),
	)
	rows(d, "Process", process("vc-manager")...)
	return d
}
