package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const statefulSet = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        image: busybox:1.35
        command: [sleep, infinity]
        resources: {requests: {cpu: 5m, memory: 8Mi}}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 16Mi}}
`

// A StatefulSet gets a volume for each of its pods from the default class; what is written stays when the pod is replaced,
// and goes with the claim.
func TestStatefulSetsKeepTheirData(t *testing.T) {
	cluster, a, b := open(t)
	namespace := unique("data")
	for _, tenant := range []*local.Tenant{a, b} {
		t.Run(tenant.Name, func(t *testing.T) {
			t.Parallel()
			must(t, tenant.Access, "create", "namespace", namespace)
			cleanup(t, tenant.Access, "delete", "namespace", namespace, "--timeout=2m")
			mustInput(t, tenant.Access, statefulSet, "-n", namespace, "apply", "-f", "-")
			must(t, tenant.Access, "-n", namespace, "rollout", "status", "statefulset/db", "--timeout=2m")
			hosts := must(t, tenant.Access, "-n", namespace, "exec", "db-1", "--", "cat", "/etc/hosts")
			if !strings.Contains(hosts, fmt.Sprintf("\tdb-1.db.%s.svc.cluster.local\tdb-1\n", namespace)) {
				t.Errorf("/etc/hosts is\n%s", hosts)
			}
			must(t, tenant.Access, "-n", namespace, "exec", "db-1", "--", "sh", "-c", "echo "+tenant.Name+" > /data/file")
			must(t, tenant.Access, "-n", namespace, "delete", "pod", "db-1", "--timeout=1m")
			must(t, tenant.Access, "-n", namespace, "rollout", "status", "statefulset/db", "--timeout=2m")
			if got := must(t, tenant.Access, "-n", namespace, "exec", "db-1", "--", "cat", "/data/file"); strings.TrimSpace(got) != tenant.Name {
				t.Errorf("after the pod was replaced its volume holds %q", got)
			}

			claims, err := tenant.Client.CoreV1().PersistentVolumeClaims(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil || len(claims.Items) != 2 {
				t.Fatalf("%d claims, %v", len(claims.Items), err)
			}
			var volumes []string
			for _, claim := range claims.Items {
				if claim.Status.Phase != corev1.ClaimBound {
					t.Errorf("claim %s is %s", claim.Name, claim.Status.Phase)
				}
				volumes = append(volumes, claim.Spec.VolumeName)
				volume, err := tenant.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
				if err != nil || volume.Spec.HostPath != nil || volume.Spec.Local != nil {
					t.Errorf("volume %s: %v, %+v", claim.Spec.VolumeName, err, volume.Spec.PersistentVolumeSource)
				}
			}

			must(t, tenant.Access, "-n", namespace, "delete", "statefulset", "db", "--timeout=1m")
			must(t, tenant.Access, "-n", namespace, "delete", "pvc", "--all", "--timeout=1m")
			worlds.Eventually(t, 2*time.Minute, "the volumes to go on both sides", func(ctx context.Context) error {
				for _, name := range volumes {
					for side, access := range map[string]*local.Access{"tenant": tenant.Access, "super": cluster.Super} {
						volume, err := access.Client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
						if err == nil {
							return fmt.Errorf("volume %s is %s in the %s", name, volume.Status.Phase, side)
						}
					}
				}
				return nil
			})
		})
	}
}
