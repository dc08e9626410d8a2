package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

// runner does the runs that the options ask for.
type runner struct {
	options
	suite suite
	bin   string
	// expected are the names of the tests of each phase.
	expected map[string][]string
}

// target is a cluster to run in.
type target struct {
	name, kubeconfig string
}

// all does one run after the other. One that could not be made does not stop the next: it shows in the report.
func (r runner) all(ctx context.Context) error {
	var errs []error
	for _, g := range r.bareGroups() {
		errs = append(errs, r.together(ctx, g))
	}
	if !slices.ContainsFunc(r.runs, func(run string) bool { return run != runBare && run != runReport }) {
		return errors.Join(errs...)
	}
	tenants, err := r.prepareTenants(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, p := range r.tenantPhases() {
		if err := r.setScheduler(ctx, p == schedulerPhase()); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, g := range r.tenantGroups(tenants, p) {
			errs = append(errs, r.together(ctx, g))
		}
	}
	if slices.Contains(r.runs, runAgain) {
		errs = append(errs, r.repeat(ctx, tenants))
	}
	return errors.Join(errs...)
}

// bareGroups are the executions on the bare cluster; those of a group run at the same time.
func (r runner) bareGroups() [][]execution {
	if !slices.Contains(r.runs, runBare) {
		return nil
	}
	t := target{bare, r.kubeconfig}
	return [][]execution{
		{r.execution(t, parallelPhase(), r.processes*len(r.tenants))},
		{r.execution(t, serialPhase(), 1)},
		{r.execution(t, schedulerPhase(), 1)},
	}
}

// tenantPhases are what the options ask for in tenants.
func (r runner) tenantPhases() []phase {
	var list []phase
	if slices.Contains(r.runs, runTenants) {
		list = append(list, parallelPhase())
	}
	if slices.Contains(r.runs, runSerial) {
		list = append(list, serialPhase(), schedulerPhase())
	}
	return list
}

// tenantGroups are those in tenants. Only tests that fill the real nodes and use their ports get in each other's way.
func (r runner) tenantGroups(tenants []target, p phase) [][]execution {
	processes := 1
	if p == parallelPhase() {
		processes = r.processes
	}
	var all []execution
	for _, t := range tenants {
		all = append(all, r.execution(t, p, processes))
	}
	if p == schedulerPhase() {
		return slices.Collect(slices.Chunk(all, 1))
	}
	return [][]execution{all}
}

func (r runner) execution(t target, p phase, processes int) execution {
	return execution{
		target: t.name, phase: p, kubeconfig: t.kubeconfig, processes: processes,
		dir: filepath.Join(r.dir, t.name+"-"+p.name), expected: r.expected[p.name],
	}
}

// together runs some executions at the same time.
func (r runner) together(ctx context.Context, group []execution) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(r.timeout)
	}
	// Without a common context: one that fails does not stop the others.
	var g errgroup.Group
	for _, e := range group {
		e.deadline = deadline
		g.Go(func() error {
			return r.suite.run(ctx, e)
		})
	}
	return g.Wait()
}

// repeat runs what failed in tenants once more.
func (r runner) repeat(ctx context.Context, tenants []target) error {
	all, err := load(r.dir)
	if err != nil {
		return err
	}
	for _, p := range phases() {
		var groups []execution
		for _, t := range tenants {
			e := r.execution(t, phase{again, p.filter}, 1)
			e.dir += "-" + p.name
			for _, f := range findings(all) {
				if f.outcomes[t.name] == fail && slices.Contains(r.expected[p.name], f.name) {
					e.expected = append(e.expected, f.name)
				}
			}
			if len(e.expected) > 0 {
				groups = append(groups, e)
			}
		}
		if len(groups) == 0 {
			continue
		}
		if err := r.setScheduler(ctx, p == schedulerPhase()); err != nil {
			return err
		}
		for _, e := range groups {
			only := r
			only.suite.focus, only.suite.skip = nil, nil
			for _, name := range e.expected {
				only.suite.focus = append(only.suite.focus, regexp.QuoteMeta(name)+"$")
			}
			if err := only.together(ctx, []execution{e}); err != nil {
				return err
			}
		}
	}
	return nil
}

// setScheduler gives the tenants schedulers of their own or takes them away, and waits until that is done.
func (r runner) setScheduler(ctx context.Context, enabled bool) error {
	cluster, err := r.cluster()
	if err != nil {
		return err
	}
	resource := cluster.Super.Dynamic.Resource(tenancyv1alpha1.GroupVersion().WithResource("virtualclusters"))
	for _, ref := range r.tenants {
		namespace, name, _ := strings.Cut(ref, "/")
		patch := `{"spec":{"scheduler":null}}`
		if enabled {
			patch = `{"spec":{"scheduler":{"enabled":true}}}`
		}
		changed, err := resource.Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil {
			return fmt.Errorf("setting the scheduler of %s: %w", ref, err)
		}
		conditions := []string{tenancyv1alpha1.ConditionReady, tenancyv1alpha1.ConditionSyncing}
		if enabled {
			conditions = append(conditions, tenancyv1alpha1.ConditionSchedulerReady)
		}
		err = wait.PollUntilContextTimeout(ctx, time.Second, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
			vc, err := cluster.VirtualCluster(ctx, namespace, name)
			if err != nil {
				return false, err
			}
			return !slices.ContainsFunc(conditions, func(kind string) bool {
				c := apimeta.FindStatusCondition(vc.Status.Conditions, kind)
				return c == nil || c.Status != metav1.ConditionTrue || c.ObservedGeneration < changed.GetGeneration()
			}), nil
		})
		if err != nil {
			return fmt.Errorf("waiting for %s after setting its scheduler: %w", ref, err)
		}
	}
	return nil
}

func (r runner) cluster() (*local.Cluster, error) {
	cluster := &local.Cluster{Dir: filepath.Dir(r.bin)}
	var err error
	if cluster.Super, err = cluster.Open("super", r.kubeconfig); err != nil {
		return nil, fmt.Errorf("opening the super cluster: %w", err)
	}
	return cluster, nil
}

// prepareTenants writes the tenants' kubeconfigs and sets what their pods are allowed.
func (r runner) prepareTenants(ctx context.Context) ([]target, error) {
	cluster, err := r.cluster()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the results: %w", err)
	}
	var targets []target
	for _, ref := range r.tenants {
		namespace, name, _ := strings.Cut(ref, "/")
		vc, err := cluster.VirtualCluster(ctx, namespace, name)
		if err != nil {
			return nil, err
		}
		tenant, err := cluster.Tenant(ctx, vc, r.dir)
		if err != nil {
			return nil, err
		}
		value := "null"
		if r.privileged {
			value = `"privileged"`
		}
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, names.LabelPodSecurity, value)
		if _, err := cluster.Super.Client.CoreV1().Namespaces().Patch(ctx, vc.Status.ClusterNamespace, types.MergePatchType,
			[]byte(patch), metav1.PatchOptions{}); err != nil {
			return nil, fmt.Errorf("setting the Pod Security level of %s: %w", ref, err)
		}
		targets = append(targets, target{name, tenant.Kubeconfig})
	}
	return targets, nil
}
