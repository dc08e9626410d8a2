package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// spread are two pods, one on each node when they are made, of which one may be away at a time.
const spread = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: busybox:1.35
        command: [httpd, -f, -p, "8080", -h, /etc]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        resources: {requests: {cpu: 5m, memory: 8Mi}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// nodesOfPods returns the node of each pod that has the label app=web and is not being deleted, by the pod's name and UID.
func nodesOfPods(t *testing.T, a *local.Access, namespace string) map[string]string {
	t.Helper()
	pods, err := a.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatalf("%s: listing pods: %v", a.Name, err)
	}
	nodes := map[string]string{}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil {
			nodes[pod.Name+"/"+string(pod.UID)] = pod.Spec.NodeName
		}
	}
	return nodes
}

// A tenant drains a node, and taints it so that pods have to leave: its pods go elsewhere, and another tenant with pods of
// the same names on the same node notices nothing.
func TestDrainAndNoExecuteTaintsConcernOneTenantOnly(t *testing.T) {
	cluster, a, b := open(t)
	namespace := unique("drain")
	for _, tenant := range []*local.Tenant{a, b} {
		must(t, tenant.Access, "create", "namespace", namespace)
		cleanup(t, tenant.Access, "delete", "namespace", namespace, "--timeout=2m")
		mustInput(t, tenant.Access, spread, "-n", namespace, "apply", "-f", "-")
	}
	for _, tenant := range []*local.Tenant{a, b} {
		must(t, tenant.Access, "-n", namespace, "rollout", "status", "deployment/web", "--timeout=2m")
	}
	var node string
	for _, node = range nodesOfPods(t, a.Access, namespace) {
		break
	}
	others := nodesOfPods(t, b.Access, namespace)
	gone := func(t *testing.T) {
		t.Helper()
		worlds.Eventually(t, time.Minute, "the pods to leave "+node, func(context.Context) error {
			for pod, where := range nodesOfPods(t, a.Access, namespace) {
				if where == node {
					return fmt.Errorf("pod %s is on %s", pod, node)
				}
			}
			return nil
		})
		must(t, a.Access, "-n", namespace, "rollout", "status", "deployment/web", "--timeout=2m")
		if got := nodesOfPods(t, b.Access, namespace); fmt.Sprint(got) != fmt.Sprint(others) {
			t.Errorf("pods of %s were %v and are %v", b.Name, others, got)
		}
		for _, access := range []*local.Access{b.Access, cluster.Super} {
			got, err := access.Client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
			if err != nil || got.Spec.Unschedulable || len(got.Spec.Taints) > 0 {
				t.Errorf("%s: node %s: %v, %+v", access.Name, node, err, got.Spec)
			}
		}
	}

	t.Run("Drain", func(t *testing.T) {
		cleanup(t, a.Access, "uncordon", node)
		must(t, a.Access, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=2m")
		if got := must(t, a.Access, "get", "node", node); !strings.Contains(got, "SchedulingDisabled") {
			t.Errorf("kubectl get node says\n%s", got)
		}
		gone(t)
	})
	t.Run("NoExecute", func(t *testing.T) {
		// Back to both nodes.
		must(t, a.Access, "-n", namespace, "rollout", "restart", "deployment/web")
		must(t, a.Access, "-n", namespace, "rollout", "status", "deployment/web", "--timeout=2m")
		for _, node = range nodesOfPods(t, a.Access, namespace) {
			break
		}
		cleanup(t, a.Access, "taint", "node", node, "e2e:NoExecute-")
		must(t, a.Access, "taint", "node", node, "e2e=yes:NoExecute")
		gone(t)
	})
}

const policies = `
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {role: friend}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1.35", command: [sleep, infinity], resources: {requests: {cpu: 5m, memory: 8Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {role: stranger}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1.35", command: [sleep, infinity], resources: {requests: {cpu: 5m, memory: 8Mi}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
`

// A tenant's NetworkPolicy is enforced on its pods, and not on those of another tenant with the same names and labels.
func TestNetworkPoliciesAreEnforced(t *testing.T) {
	_, a, b := open(t)
	namespace := unique("policy")
	for _, tenant := range []*local.Tenant{a, b} {
		must(t, tenant.Access, "create", "namespace", namespace)
		cleanup(t, tenant.Access, "delete", "namespace", namespace, "--timeout=2m")
		mustInput(t, tenant.Access, spread+"---"+policies, "-n", namespace, "apply", "-f", "-")
	}
	must(t, b.Access, "-n", namespace, "delete", "networkpolicy", "friends")
	for _, tenant := range []*local.Tenant{a, b} {
		must(t, tenant.Access, "-n", namespace, "rollout", "status", "deployment/web", "--timeout=2m")
		must(t, tenant.Access, "-n", namespace, "wait", "--for=condition=Ready", "pod/friend", "pod/stranger", "--timeout=1m")
	}
	for _, tc := range []struct {
		tenant *local.Tenant
		pod    string
		passes bool
	}{{a, "friend", true}, {a, "stranger", false}, {b, "friend", true}, {b, "stranger", true}} {
		// Policies take a moment to be enforced.
		worlds.Eventually(t, time.Minute, fmt.Sprintf("the %s in %s to get through: %t", tc.pod, tc.tenant.Name, tc.passes), func(ctx context.Context) error {
			got := try(t, "", tc.tenant.Command(ctx, "kubectl", "-n", namespace, "exec", tc.pod, "--", "wget", "-q", "-O-", "-T", "2", "http://web/hostname"))
			if (got.Code == 0) != tc.passes {
				return errors.New(got.String())
			}
			return nil
		})
	}
}

// prioritised is a pod that takes the only piece of a resource that the tenant invents.
func prioritised(name, class string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  priorityClassName: %s
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1.35
    command: [sleep, infinity]
    resources: {requests: {cpu: 5m, memory: 8Mi, example.com/piece: 1}, limits: {example.com/piece: 1}}
`, name, class)
}

const priorityClasses = `
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: 1
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
`

// A tenant with a scheduler of its own extends a node by a resource, and a pod of a higher priority preempts one that has it.
func TestOwnSchedulerPreempts(t *testing.T) {
	cluster, _, _ := open(t)
	owner := makeNamespace(t, cluster)
	makeVC(t, cluster, owner, "scheduled", `{"scheduler":{"enabled":true}}`)
	vc := awaitVC(t, cluster, owner, "scheduled", "the scheduler", readyTimeout, func(vc *tenancyv1alpha1.VirtualCluster) bool {
		return isReady(vc) && apimeta.IsStatusConditionTrue(vc.Status.Conditions, tenancyv1alpha1.ConditionSchedulerReady) &&
			apimeta.IsStatusConditionTrue(vc.Status.Conditions, tenancyv1alpha1.ConditionSyncing)
	})
	tenant, err := cluster.Tenant(t.Context(), vc, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var nodes *corev1.NodeList
	worlds.Eventually(t, time.Minute, "nodes", func(ctx context.Context) error {
		if nodes, err = tenant.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil && len(nodes.Items) == 0 {
			err = errors.New("none")
		}
		return err
	})
	must(t, tenant.Access, "patch", "node", nodes.Items[0].Name, "--subresource=status", "--type=merge",
		"-p", `{"status":{"capacity":{"example.com/piece":"1"},"allocatable":{"example.com/piece":"1"}}}`)
	must(t, tenant.Access, "create", "namespace", "work")
	mustInput(t, tenant.Access, priorityClasses, "apply", "-f", "-")
	worlds.Eventually(t, 30*time.Second, "the service account of the namespace", func(ctx context.Context) error {
		_, err := tenant.Client.CoreV1().ServiceAccounts("work").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	for _, name := range []string{"low", "high"} {
		mustInput(t, tenant.Access, prioritised(name, name), "-n", "work", "create", "-f", "-")
		must(t, tenant.Access, "-n", "work", "wait", "--for=condition=Ready", "pod/"+name, "--timeout=2m")
	}
	worlds.Eventually(t, time.Minute, "the pod of the lower priority to go", func(ctx context.Context) error {
		if _, err := tenant.Client.CoreV1().Pods("work").Get(ctx, "low", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
	if got := must(t, tenant.Access, "-n", "work", "get", "events"); !strings.Contains(got, "Preempted") {
		t.Errorf("no event tells of the preemption:\n%s", got)
	}
}
