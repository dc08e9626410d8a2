package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const dnsClient = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "busybox:1.35", command: [sleep, infinity], resources: {requests: {cpu: 5m, memory: 8Mi}}}]
`

const denyEgress = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny-egress}
spec: {podSelector: {}, policyTypes: [Egress]}
`

// allowDNS is the policy that everybody copies.
const allowDNS = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
`

// The policies for DNS that are right in any cluster are right in a tenant: with all other egress denied, names resolve.
func TestDefaultDenyEgressLeavesDNS(t *testing.T) {
	cluster, tenant, _ := open(t)
	domain := "cluster.local"
	if d := tenant.VirtualCluster.Spec.ClusterDomain; d != "" {
		domain = d
	}
	for _, tc := range []struct {
		access *local.Access
		domain string
	}{{cluster.Super, "cluster.local"}, {tenant.Access, domain}} {
		t.Run(tc.access.Name, func(t *testing.T) { testDNSPolicies(t, tc.access, tc.domain) })
	}
}

func testDNSPolicies(t *testing.T, a *local.Access, domain string) {
	namespace := unique("egress")
	must(t, a, "create", "namespace", namespace)
	cleanup(t, a, "delete", "namespace", namespace, "--timeout=2m")
	mustInput(t, a, spread+"---"+dnsClient, "-n", namespace, "apply", "-f", "-")
	must(t, a, "-n", namespace, "rollout", "status", "deployment/web", "--timeout=2m")
	must(t, a, "-n", namespace, "wait", "--for=condition=Ready", "pod/client", "--timeout=1m")
	web, err := a.Client.CoreV1().Services(namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the Service: %v", err)
	}
	dns, err := a.Client.CoreV1().Services(metav1.NamespaceSystem).Get(t.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the Service of DNS: %v", err)
	}
	name := fmt.Sprintf("web.%s.svc.%s", namespace, domain)
	// Each command prints what it got, and what it must have printed to have got through.
	attempts := []struct{ what, script, want string }{
		{"DNS over UDP", "nslookup " + name + " 2>&1", web.Spec.ClusterIP},
		{"DNS over TCP", fmt.Sprintf("printf '%s' | nc -w 5 %s 53 | hexdump -v -e '/1 \"%%02x\"'", octal(query(name)), dns.Spec.ClusterIP), hexAddress(web.Spec.ClusterIP)},
		{"the Service by its address", "wget -q -O- -T 2 -t 1 http://" + web.Spec.ClusterIP + "/hostname 2>&1 || echo failed", "web-"},
	}
	expect := func(policy string, passes ...bool) {
		t.Helper()
		for i, attempt := range attempts {
			// Policies take a moment to be enforced.
			worlds.Eventually(t, time.Minute, fmt.Sprintf("%s, %s to get through: %t", policy, attempt.what, passes[i]), func(ctx context.Context) error {
				got := try(t, "", a.Command(ctx, "kubectl", "-n", namespace, "exec", "client", "--", "sh", "-c", attempt.script))
				if strings.Contains(got.Stdout, attempt.want) != passes[i] {
					return errors.New(got.String())
				}
				return nil
			})
		}
	}
	expect("without a policy", true, true, true)
	mustInput(t, a, denyEgress, "-n", namespace, "apply", "-f", "-")
	expect("with all egress denied", false, false, false)
	mustInput(t, a, allowDNS, "-n", namespace, "apply", "-f", "-")
	expect("with DNS allowed", true, true, false)
}

// query returns a question for the IPv4 address of a name, as it is sent over TCP.
func query(name string) []byte {
	message := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		message = append(append(message, byte(len(label))), label...)
	}
	message = append(message, 0, 0, 1, 0, 1)
	return append([]byte{0, byte(len(message))}, message...)
}

// octal writes bytes as printf of a shell takes them.
func octal(content []byte) string {
	var text strings.Builder
	for _, b := range content {
		fmt.Fprintf(&text, `\%03o`, b)
	}
	return text.String()
}

func hexAddress(ip string) string { return fmt.Sprintf("%x", []byte(net.ParseIP(ip).To4())) }

// Upstream's CoreDNS and kube-apiserver cannot be executed without the capability in their files, and neither can their
// stand-ins here. With it, CoreDNS listens on port 53 as another user than root, also where the container runtime does not
// make ports below 1024 available to everybody.
func TestFileCapabilitiesAreThoseOfUpstream(t *testing.T) {
	cluster, _, _ := open(t)
	deployment, err := cluster.Super.Client.AppsV1().Deployments(metav1.NamespaceSystem).Get(t.Context(), "coredns", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the super cluster's CoreDNS: %v", err)
	}
	image := deployment.Spec.Template.Spec.Containers[0].Image
	namespace := unique("capabilities")
	must(t, cluster.Super, "create", "namespace", namespace)
	cleanup(t, cluster.Super, "delete", "namespace", namespace, "--timeout=2m")
	pods := cluster.Super.Client.CoreV1().Pods(namespace)
	run := func(name string, add ...corev1.Capability) {
		_, err := pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{
				RestartPolicy:                 corev1.RestartPolicyNever,
				TerminationGracePeriodSeconds: new(int64),
				SecurityContext: &corev1.PodSecurityContext{
					RunAsNonRoot: new(true), RunAsUser: new(int64(65532)),
					Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "1024"}},
				},
				Containers: []corev1.Container{{
					Name: "c", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
					// It may be the runtime's process in the container that says why it cannot execute the program.
					TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
					// Without a configuration it listens on port 53.
					ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(53)}}},
					SecurityContext: &corev1.SecurityContext{
						AllowPrivilegeEscalation: new(false),
						Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: add},
					},
				}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("creating pod %s: %v", name, err)
		}
	}
	run("with", "NET_BIND_SERVICE")
	run("without")
	must(t, cluster.Super, "-n", namespace, "wait", "--for=condition=Ready", "pod/with", "--timeout=1m")
	worlds.Eventually(t, time.Minute, "the pod without the capability to fail", func(ctx context.Context) error {
		pod, err := pods.Get(ctx, "without", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, status := range pod.Status.ContainerStatuses {
			if end := status.State.Terminated; end != nil && strings.Contains(end.Message, "operation not permitted") {
				return nil
			}
		}
		return fmt.Errorf("its status is %+v", pod.Status.ContainerStatuses)
	})
}
