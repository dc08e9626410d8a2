package operators_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// A queue in which one of the jobs fits at a time.
const queue = `
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: team}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu]
    flavors:
    - name: any
      resources: [{name: cpu, nominalQuota: 50m}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: batch}
spec: {clusterQueue: team}
`

func job(name, command string) string {
	return fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata:
  name: %s
  labels: {kueue.x-k8s.io/queue-name: batch}
spec:
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
      - name: work
        image: busybox:1.35
        command: [%s]
        resources: {requests: {cpu: 30m}}
`, name, command)
}

// Kueue decides when jobs may run. The tenant's API server calls its pod for admission, for conversion of versions and for
// an aggregated API; what it calls by is a Service of the tenant.
func TestKueue(t *testing.T) {
	chart := filepath.Join(moduleDir(t, "programs", "sigs.k8s.io/kueue"), "charts", "kueue")
	namespace := local.Unique("jobs")
	inEachTenant(t, func(t *testing.T, tenant *local.Tenant) {
		const system = "kueue-system"
		tenant.Cleanup(t, "kubectl", "delete", "namespace", system, "--ignore-not-found", "--timeout=2m")
		tenant.Cleanup(t, "helm", "uninstall", "kueue", "-n", system, "--ignore-not-found", "--wait", "--timeout", "2m")
		tenant.Must(t, "", "helm", "upgrade", "--install", "kueue", chart, "-n", system, "--create-namespace")
		eventually(t, tenant, "", "-n", system, "rollout", "status", "deployment/kueue-controller-manager", "--timeout=1m")

		tenant.Kubectl(t, "create", "namespace", namespace)
		tenant.Cleanup(t, "kubectl", "delete", "namespace", namespace, "--timeout=2m")
		// The operator's finalizers need the operator.
		tenant.Cleanup(t, "kubectl", "delete", "clusterqueues,resourceflavors", "--all", "--timeout=1m")
		tenant.Cleanup(t, "kubectl", "-n", namespace, "delete", "jobs,localqueues", "--all", "--timeout=1m")
		eventually(t, tenant, queue, "-n", namespace, "apply", "-f", "-")
		eventually(t, tenant, "", "wait", "clusterqueue/team", "--for=condition=Active", "--timeout=1m")

		// The mutating webhook suspends what is created, so that only the queue lets it run.
		eventually(t, tenant, job("first", `sleep, infinity`), "-n", namespace, "apply", "-f", "-")
		eventually(t, tenant, "", "-n", namespace, "wait", "job/first", "--for=jsonpath={.status.ready}=1", "--timeout=1m")
		eventually(t, tenant, job("second", `"true"`), "-n", namespace, "apply", "-f", "-")
		pending := fmt.Sprintf("/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/%s/localqueues/batch/pendingworkloads", namespace)
		worlds.Eventually(t, time.Minute, "the second job to be pending in the aggregated API", func(ctx context.Context) error {
			var list struct {
				Items []struct {
					Metadata struct{ Name string }
				}
			}
			if err := getJSON(ctx, tenant, &list, pending); err != nil {
				return err
			}
			if len(list.Items) != 1 || !strings.HasPrefix(list.Items[0].Metadata.Name, "job-second-") {
				return fmt.Errorf("pending workloads are %+v", list.Items)
			}
			return nil
		})
		if got := field(t, tenant, "{.spec.suspend} {.status.active}", "job/second", "-n", namespace); strings.TrimSpace(got) != "true" {
			t.Errorf("suspension and active pods of the second job are %q", got)
		}
		if got := tenant.Fails(t, "", "get", "--raw", pending, "--as=system:serviceaccount:"+namespace+":default"); !strings.Contains(got, "forbidden") {
			t.Errorf("a service account without a role gets from the aggregated API: %s", got)
		}

		if got := tenant.Fails(t, "", "-n", namespace, "label", "job/first", "--overwrite", "kueue.x-k8s.io/queue-name=other"); !strings.Contains(got, `"vjob.kb.io" denied`) {
			t.Errorf("moving a job that runs to another queue: %s", got)
		}
		if got := field(t, tenant, "{.apiVersion} {.spec.resourceGroups[0].flavors[0].name}", "clusterqueues.v1beta1.kueue.x-k8s.io", "team"); got != "kueue.x-k8s.io/v1beta1 any" {
			t.Errorf("the older version of the queue is %q", got)
		}
		pod := field(t, tenant, "{.items[0].metadata.name}", "pods", "-n", system, "-l", "app.kubernetes.io/name=kueue")
		if got := field(t, tenant, "{.spec.holderIdentity}", "lease/c1f6bfd2.kueue.x-k8s.io", "-n", system); !strings.HasPrefix(got, pod+"_") {
			t.Errorf("the lease is held by %q, want pod %s", got, pod)
		}

		tenant.Kubectl(t, "-n", namespace, "delete", "job", "first", "--timeout=1m")
		eventually(t, tenant, "", "-n", namespace, "wait", "job/second", "--for=condition=Complete", "--timeout=1m")
		if got := tenant.Kubectl(t, "-n", namespace, "get", "events", "--field-selector=involvedObject.name=second", "-o", "jsonpath={.items[*].reason}"); !strings.Contains(got, "Started") {
			t.Errorf("events of the second job are %q", got)
		}
	})
}
