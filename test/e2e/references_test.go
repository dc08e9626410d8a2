package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// referring are a pod with an optional Secret, and one with a Secret that must exist.
const referring = `
apiVersion: v1
kind: ConfigMap
metadata: {name: beat}
data: {count: one}
---
apiVersion: v1
kind: Pod
metadata: {name: optional}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.35
    command: [sleep, infinity]
    resources: {requests: {cpu: 5m, memory: 8Mi}}
    env:
    - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: maybe, key: k, optional: true}}}
    volumeMounts: [{name: maybe, mountPath: /maybe}, {name: beat, mountPath: /beat}]
  volumes:
  - {name: maybe, secret: {secretName: maybe, optional: true}}
  - {name: beat, configMap: {name: beat}}
---
apiVersion: v1
kind: Pod
metadata: {name: required}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.35
    command: [sleep, infinity]
    resources: {requests: {cpu: 5m, memory: 8Mi}}
    volumeMounts: [{name: must, mountPath: /must}]
  volumes:
  - {name: must, secret: {secretName: must}}
`

// The kubelet mounts what an optional reference names as soon as it exists: the tenant's own, never the operator's.
func TestOptionalSecretsAreTheTenantsOwn(t *testing.T) {
	cluster, a, _ := open(t)
	namespace := unique("optional")
	super := names.SuperNamespace(a.ID(), namespace)
	must(t, a.Access, "create", "namespace", namespace)
	cleanup(t, a.Access, "delete", "namespace", namespace, "--timeout=2m")
	worlds.Eventually(t, 30*time.Second, "the super namespace", func(ctx context.Context) error {
		if _, err := a.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := cluster.Super.Client.CoreV1().Namespaces().Get(ctx, super, metav1.GetOptions{})
		return err
	})
	for _, name := range []string{"maybe", "must"} {
		must(t, cluster.Super, "-n", super, "create", "secret", "generic", name, "--from-literal=k=operators")
	}
	mustInput(t, a.Access, referring, "-n", namespace, "apply", "-f", "-")
	must(t, a.Access, "-n", namespace, "wait", "--for=condition=Ready", "pod/optional", "--timeout=90s")

	// Once the kubelet has brought a change of another volume, it has looked at all of them since the pod started.
	must(t, a.Access, "-n", namespace, "patch", "configmap", "beat", "-p", `{"data":{"count":"two"}}`)
	reads := func(path, want string) {
		t.Helper()
		worlds.Eventually(t, 3*time.Minute, path+" to be "+want, func(ctx context.Context) error {
			out, err := a.Command(ctx, "kubectl", "-n", namespace, "exec", "optional", "--", "cat", path).CombinedOutput()
			if err != nil {
				return fmt.Errorf("reading it: %w: %s", err, out)
			}
			if got := strings.TrimSpace(string(out)); got != want {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
	}
	reads("/beat/count", "two")
	if got := must(t, a.Access, "-n", namespace, "exec", "optional", "--", "sh", "-c", `ls /maybe; echo "<$FROM_SECRET>"`); got != "<>\n" {
		t.Errorf("without a Secret of the tenant the pod has %q", got)
	}
	worlds.Eventually(t, time.Minute, "the event of the pod whose Secret is missing", func(ctx context.Context) error {
		list, err := a.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=required"})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.Reason == "FailedMount" && strings.HasSuffix(e.Message, `secret "must" not found`) {
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return fmt.Errorf("events are %q", seen)
	})

	for _, name := range []string{"maybe", "must"} {
		must(t, a.Access, "-n", namespace, "create", "secret", "generic", name, "--from-literal=k=mine")
	}
	reads("/maybe/k", "mine")
	must(t, a.Access, "-n", namespace, "wait", "--for=condition=Ready", "pod/required", "--timeout=3m")
	if got := must(t, a.Access, "-n", namespace, "exec", "required", "--", "cat", "/must/k"); got != "mine" {
		t.Errorf("the Secret that must exist is %q", got)
	}
}
