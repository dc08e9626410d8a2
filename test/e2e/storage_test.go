package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

const writer = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, finalizers: [%s]}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
%s
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.35
    command: [sleep, infinity]
    resources: {requests: {cpu: 5m, memory: 8Mi}}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`

// Data lives as long as its tenant says: until the finalizers of its claim are done, and beyond the claim when the volume is
// to be retained. Who claims that volume again finds the data.
func TestVolumesLiveAsLongAsTheirTenantSays(t *testing.T) {
	cluster, a, _ := open(t)
	namespace, another := unique("lives"), unique("lives-again")
	for _, ns := range []string{namespace, another} {
		must(t, a.Access, "create", "namespace", ns)
		cleanup(t, a.Access, "delete", "namespace", ns, "--timeout=2m", "--ignore-not-found")
	}
	mustInput(t, a.Access, fmt.Sprintf(writer, "example.com/backup-first", ""), "-n", namespace, "apply", "-f", "-")
	must(t, a.Access, "-n", namespace, "wait", "pod/user", "--for=condition=Ready", "--timeout=2m")
	must(t, a.Access, "-n", namespace, "exec", "user", "--", "sh", "-c", "echo precious > /data/file")
	claims := a.Client.CoreV1().PersistentVolumeClaims(namespace)
	claim, err := claims.Get(t.Context(), "data", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volume := claim.Spec.VolumeName
	phase := func(ctx context.Context, want corev1.PersistentVolumePhase) error {
		for side, access := range map[string]*local.Access{"tenant": a.Access, "super": cluster.Super} {
			v, err := access.Client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("in the %s: %w", side, err)
			}
			if v.Status.Phase != want {
				return fmt.Errorf("in the %s it is %s", side, v.Status.Phase)
			}
		}
		return nil
	}

	must(t, a.Access, "-n", namespace, "delete", "pod", "user", "--timeout=1m")
	must(t, a.Access, "-n", namespace, "delete", "pvc", "data", "--wait=false")
	worlds.Throughout(t, 10*time.Second, "that the volume stays bound", func(ctx context.Context) error { return phase(ctx, corev1.VolumeBound) })
	must(t, a.Access, "patch", "pv", volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	must(t, a.Access, "-n", namespace, "patch", "pvc", "data", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	must(t, a.Access, "delete", "namespace", namespace, "--timeout=2m")
	worlds.Eventually(t, time.Minute, "the volume to be released on both sides", func(ctx context.Context) error { return phase(ctx, corev1.VolumeReleased) })

	must(t, a.Access, "patch", "pv", volume, "-p", `{"spec":{"claimRef":null}}`)
	mustInput(t, a.Access, fmt.Sprintf(writer, "", "  volumeName: "+volume), "-n", another, "apply", "-f", "-")
	must(t, a.Access, "-n", another, "wait", "pod/user", "--for=condition=Ready", "--timeout=2m")
	if got := must(t, a.Access, "-n", another, "exec", "user", "--", "cat", "/data/file"); strings.TrimSpace(got) != "precious" {
		t.Errorf("the volume that was claimed again holds %q", got)
	}
	must(t, a.Access, "patch", "pv", volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	must(t, a.Access, "delete", "namespace", another, "--timeout=2m")
	worlds.Eventually(t, time.Minute, "the volume to go on both sides", func(ctx context.Context) error {
		for side, access := range map[string]*local.Access{"tenant": a.Access, "super": cluster.Super} {
			_, err := access.Client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
			if err == nil {
				return fmt.Errorf("in the %s it still exists", side)
			}
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("in the %s: %w", side, err)
			}
		}
		return nil
	})
}
