package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// reader is a pod whose containers mount a token in a volume with the mode 0400.
func reader(name, podContext string, containers ...string) string {
	var out strings.Builder
	fmt.Fprintf(&out, `
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: reader}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: %s
  volumes:
  - name: token
    projected: {defaultMode: 0400, sources: [{serviceAccountToken: {path: token}}]}
  containers:
`, name, podContext)
	for i, securityContext := range containers {
		fmt.Fprintf(&out, `
  - name: c%d
    image: busybox:1.35
    command: [sleep, infinity]
    securityContext: %s
    resources: {requests: {cpu: 5m, memory: 8Mi}}
    volumeMounts: [{name: token, mountPath: /token}]
`, i, securityContext)
	}
	return out.String()
}

// Those who could read a projected token with a kubelet of their own can read it, whatever the mode of its volume.
func TestUsersReadTheirTokens(t *testing.T) {
	_, tenant, _ := open(t)
	namespace := unique("readers")
	must(t, tenant.Access, "create", "namespace", namespace)
	cleanup(t, tenant.Access, "delete", "namespace", namespace, "--timeout=2m")
	for name, tc := range map[string]struct {
		manifest string
		want     []string // of each container
	}{
		"user":       {reader("user", "{runAsUser: 1000}", "{}"), []string{"444 0 0\nreadable"}},
		"root":       {reader("root", "{runAsUser: 0}", "{}"), []string{"600 0 0\nreadable"}},
		"group":      {reader("group", "{runAsUser: 1000, fsGroup: 2000}", "{}"), []string{"640 0 2000\nreadable"}},
		"group-only": {reader("group-only", "{fsGroup: 2000}", "{runAsUser: 7}", "{runAsUser: 8}"), []string{"640 0 2000\nreadable", "640 0 2000\nreadable"}},
		"shared":     {reader("shared", "{}", "{runAsUser: 7}", "{runAsUser: 7}"), []string{"444 0 0\nreadable", "444 0 0\nreadable"}},
		"different":  {reader("different", "{}", "{runAsUser: 0}", "{runAsUser: 8}"), []string{"400 0 0\nreadable", "400 0 0\nforbidden"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustInput(t, tenant.Access, tc.manifest, "-n", namespace, "apply", "-f", "-")
			must(t, tenant.Access, "-n", namespace, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=2m")
			for i, want := range tc.want {
				container := fmt.Sprintf("c%d", i)
				got := must(t, tenant.Access, "-n", namespace, "exec", name, "-c", container, "--", "sh", "-c",
					"stat -L -c '%a %u %g' /token/token; cat /token/token > /dev/null 2>&1 && echo readable || echo forbidden")
				if strings.TrimSpace(got) != want {
					t.Errorf("container %s says\n%swant\n%s", container, got, want)
				}
			}
		})
	}
}

// member is a pod of a StatefulSet, in a namespace of which the operator demands limits of all containers.
const member = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: %s
      containers:
      - name: db
        image: busybox:1.35
        command: [sleep, infinity]
        resources: {limits: {cpu: 50m, memory: 32Mi}}
`

// demands is what the operator demands.
const demands = `
apiVersion: v1
kind: ResourceQuota
metadata: {name: demands}
spec: {hard: {limits.cpu: "1", limits.memory: 64Mi, requests.cpu: "1", requests.memory: 64Mi}}
`

// A quota that demands limits keeps no StatefulSet from running, and what is added to its pods runs with the limits and the
// user of the tenant's container.
func TestStatefulSetsRunUnderQuotas(t *testing.T) {
	cluster, tenant, _ := open(t)
	for name, podContext := range map[string]string{"image": "{}", "user": "{runAsUser: 1000}", "root": "{runAsUser: 0}"} {
		t.Run(name, func(t *testing.T) {
			namespace := unique("quota-" + name)
			must(t, tenant.Access, "create", "namespace", namespace)
			cleanup(t, tenant.Access, "delete", "namespace", namespace, "--timeout=2m")
			super := names.SuperNamespace(tenant.ID(), namespace)
			must(t, cluster.Super, "wait", "--for=create", "namespace/"+super, "--timeout=1m")
			mustInput(t, cluster.Super, demands, "-n", super, "apply", "-f", "-")
			must(t, cluster.Super, "-n", super, "wait", "--for=jsonpath={.status.hard}", "resourcequota/demands", "--timeout=1m")
			mustInput(t, tenant.Access, fmt.Sprintf(member, podContext), "-n", namespace, "apply", "-f", "-")
			must(t, tenant.Access, "-n", namespace, "rollout", "status", "statefulset/db", "--timeout=2m")
			hosts := must(t, tenant.Access, "-n", namespace, "exec", "db-0", "--", "cat", "/etc/hosts")
			if !strings.Contains(hosts, fmt.Sprintf("\tdb-0.db.%s.svc.cluster.local\tdb-0\n", namespace)) {
				t.Errorf("/etc/hosts is\n%s", hosts)
			}
			used := must(t, cluster.Super, "-n", super, "get", "resourcequota", "demands", "-o", "jsonpath={.status.used.limits\\.cpu} {.status.used.limits\\.memory}")
			if used != "50m 32Mi" {
				t.Errorf("%s of the quota are used", used)
			}
		})
	}
}
