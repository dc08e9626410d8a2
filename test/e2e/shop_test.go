package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

//go:embed testdata/shop.yaml
var shopManifest string

// tokenDir is where a pod finds its identity.
const tokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// shop is the app of one tenant.
type shop struct {
	*local.Tenant
	cluster   *local.Cluster
	namespace string
	colour    string
}

// superNamespace is where the pods really are.
func (s *shop) superNamespace() string { return names.SuperNamespace(s.ID(), s.namespace) }

// run returns the output of a command in the client pod.
func (s *shop) run(t testing.TB, script string) string {
	t.Helper()
	return must(t, s.Access, "-n", s.namespace, "exec", "client", "--", "sh", "-c", script)
}

// pods returns the pods of the Deployment that are not being deleted.
func (s *shop) pods(t testing.TB) []corev1.Pod {
	t.Helper()
	list, err := s.Client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatalf("listing pods: %v", err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// open makes the shop and waits for it.
func (s *shop) open(t testing.TB) {
	t.Helper()
	var manifest bytes.Buffer
	err := template.Must(template.New("shop").Parse(shopManifest)).Execute(&manifest, map[string]string{
		"Namespace": s.namespace, "Colour": s.colour, "Image": local.Image,
	})
	if err != nil {
		t.Fatalf("filling in the manifest: %v", err)
	}
	// A pod is refused until its namespace has a service account, as in every cluster, so the namespace comes first.
	must(t, s.Access, "create", "namespace", s.namespace)
	worlds.Eventually(t, 30*time.Second, "the service account of the namespace", func(ctx context.Context) error {
		_, err := s.Client.CoreV1().ServiceAccounts(s.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	mustInput(t, s.Access, manifest.String(), "apply", "-f", "-")
	must(t, s.Access, "-n", s.namespace, "rollout", "status", "deployment/web", "--timeout=90s")
	must(t, s.Access, "-n", s.namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
}

func TestTwoTenantsRunTheSameApp(t *testing.T) {
	cluster, a, b := open(t)
	namespace := unique("shop")
	shops := []*shop{
		{Tenant: a, cluster: cluster, namespace: namespace, colour: unique("red")},
		{Tenant: b, cluster: cluster, namespace: namespace, colour: unique("blue")},
	}
	for _, s := range shops {
		cleanup(t, s.Access, "delete", "namespace", s.namespace, "--ignore-not-found", "--timeout=2m")
	}
	// both runs a step for both tenants at the same time.
	both := func(name string, step func(*testing.T, *shop)) {
		ok := t.Run(name, func(t *testing.T) {
			for _, s := range shops {
				t.Run(s.Name, func(t *testing.T) {
					t.Parallel()
					step(t, s)
				})
			}
		})
		if name == "Open" && !ok {
			t.FailNow()
		}
	}
	both("Open", func(t *testing.T, s *shop) { s.open(t) })
	both("ConfigMapAndSecret", testConfigMapAndSecret)
	both("Logs", testLogs)
	both("Exec", testExec)
	both("ExecAtATerminal", testExecAtATerminal)
	both("Attach", testAttach)
	both("Copy", testCopy)
	both("PortForward", testPortForward)
	both("ServiceByNameAndClusterIP", testService)
	both("OwnAPIFromAPod", testOwnAPI)
	both("TokenIsOfTheTenantOnly", testToken)
	both("Nodes", testNodes)
	both("Describe", testDescribe)
	both("NothingOfOthersIsVisible", func(t *testing.T, s *shop) {
		for _, other := range shops {
			if other != s {
				testNothingVisible(t, s, other)
			}
		}
	})
	both("Job", testJob)
	both("ImageThatCannotBePulled", testBadImage)
	both("RefusedPods", testRefusedPods)
	both("RollingUpdate", testRollingUpdate)
	both("Scale", testScale)
	both("DeletedPodIsReplaced", testDeletedPod)
	both("PodThatDisappearsInSuperIsReplaced", testDisappearedPod)
	both("DeletedNamespace", testDeletedNamespace)
}

func testConfigMapAndSecret(t *testing.T, s *shop) {
	pod := s.pods(t)[0]
	got := must(t, s.Access, "-n", s.namespace, "exec", "deploy/web", "--", "sh", "-c",
		`echo "$COLOUR $ALL_colour $PASSWORD $POD_NAMESPACE"; cat /www/index.html /secret/password`)
	want := fmt.Sprintf("%[1]s %[1]s secret-of-%[1]s %[2]s\n%[1]s\nsecret-of-%[1]s", s.colour, s.namespace)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got = must(t, s.Access, "-n", s.namespace, "exec", pod.Name, "--", "sh", "-c", `echo "$POD_NAME $(hostname) $NODE_NAME"`)
	if want := fmt.Sprintf("%[1]s %[1]s %[2]s\n", pod.Name, pod.Spec.NodeName); got != want {
		t.Errorf("the pod says it is %q, want %q", got, want)
	}
}

func testLogs(t *testing.T, s *shop) {
	pod := s.pods(t)[0].Name
	want := fmt.Sprintf("serving %s version 1 on %s\n", s.colour, pod)
	if got := must(t, s.Access, "-n", s.namespace, "logs", pod); got != want {
		t.Errorf("logs: got %q, want %q", got, want)
	}
	if got := must(t, s.Access, "-n", s.namespace, "logs", "-l", "app=web", "--prefix"); strings.Count(got, "serving "+s.colour) != 2 {
		t.Errorf("logs of both pods: got %q", got)
	}
	// A line that is written while kubectl follows arrives while it follows.
	follow := talk(t, s.Command(t.Context(), "kubectl", "-n", s.namespace, "logs", "-f", "--timestamps", pod))
	follow.expect(t, "serving")
	line := unique("later")
	must(t, s.Access, "-n", s.namespace, "exec", pod, "--", "sh", "-c", "echo "+line+" >/proc/1/fd/1")
	follow.expect(t, line)
	if got := must(t, s.Access, "-n", s.namespace, "logs", pod, "--tail=1"); got != line+"\n" {
		t.Errorf("the last line of the logs: got %q, want %q", got, line)
	}
}

// protocols are the ways in which kubectl streams: WebSocket, which is today's, and SPDY.
func protocols(variable string) map[string]string {
	return map[string]string{"WebSocket": variable + "=true", "SPDY": variable + "=false"}
}

func testExec(t *testing.T, s *shop) {
	for name, env := range protocols("KUBECTL_REMOTE_COMMAND_WEBSOCKETS") {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), local.CommandTimeout)
			defer cancel()
			cmd := s.Command(ctx, "kubectl", "-n", s.namespace, "exec", "client", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
			cmd.Env = append(cmd.Env, env)
			got := try(t, "", cmd)
			if got.Stdout != "out\n" || !strings.HasPrefix(got.Stderr, "err\n") || got.Code != 7 {
				t.Errorf("streams and exit code: %s", got)
			}
			// More than any buffer on the way, so that flow control is exercised.
			input := strings.Repeat(s.colour+"\n", 200_000)
			cmd = s.Command(ctx, "kubectl", "-n", s.namespace, "exec", "-i", "client", "--", "sha256sum")
			cmd.Env = append(cmd.Env, env)
			sum := sha256.Sum256([]byte(input))
			if got := try(t, input, cmd); !strings.HasPrefix(got.Stdout, hex.EncodeToString(sum[:])) {
				t.Errorf("standard input arrived changed: %s", got)
			}
		})
	}
}

func testExecAtATerminal(t *testing.T, s *shop) {
	for name, env := range protocols("KUBECTL_REMOTE_COMMAND_WEBSOCKETS") {
		t.Run(name, func(t *testing.T) {
			cmd := s.Command(t.Context(), "kubectl", "-n", s.namespace, "exec", "-it", "client", "--", "sh")
			cmd.Env = append(cmd.Env, env)
			terminal := typeAt(t, cmd)
			terminal.expect(t, "# ")
			terminal.send(t, "tty; stty size; echo $((6 * 7))-$(hostname)")
			terminal.expect(t, "/dev/pts/")
			terminal.expect(t, "40 100")
			terminal.expect(t, "42-client")
			terminal.send(t, "exit 3")
			if code := terminal.exit(t); code != 3 {
				t.Errorf("exit code %d, want 3; output %q", code, terminal.output())
			}
		})
	}
}

func testAttach(t *testing.T, s *shop) {
	for name, env := range protocols("KUBECTL_REMOTE_COMMAND_WEBSOCKETS") {
		t.Run(name, func(t *testing.T) {
			cmd := s.Command(t.Context(), "kubectl", "-n", s.namespace, "attach", "-i", "reader")
			cmd.Env = append(cmd.Env, env)
			attached := talk(t, cmd)
			word := unique(strings.ToLower(name))
			attached.send(t, word)
			attached.expect(t, "got "+word)
		})
	}
}

func testCopy(t *testing.T, s *shop) {
	dir := t.TempDir()
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	content := make([]byte, 3<<20)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, content, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, s.Access, "-n", s.namespace, "cp", there, "client:/tmp/file")
	sum := sha256.Sum256(content)
	if got := s.run(t, "sha256sum </tmp/file"); !strings.HasPrefix(got, hex.EncodeToString(sum[:])) {
		t.Errorf("the file has checksum %s in the pod, want %x", got, sum)
	}
	must(t, s.Access, "-n", s.namespace, "cp", "client:/tmp/file", back)
	got, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back changed, sent %d", len(got), len(content))
	}
}

func testPortForward(t *testing.T, s *shop) {
	targets := map[string]string{"Service": "service/web", "Pod": "pod/" + s.pods(t)[0].Name}
	for target, object := range targets {
		for protocol, env := range protocols("KUBECTL_PORT_FORWARD_WEBSOCKETS") {
			t.Run(target+protocol, func(t *testing.T) {
				port := ":80"
				if target == "Pod" {
					port = ":8080"
				}
				cmd := s.Command(t.Context(), "kubectl", "-n", s.namespace, "port-forward", object, port, "--address=127.0.0.1")
				cmd.Env = append(cmd.Env, env)
				forward := talk(t, cmd)
				forward.expect(t, "Forwarding from 127.0.0.1:")
				address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(forward.output())
				for range 5 {
					worlds.Eventually(t, 20*time.Second, "an answer through port-forward", func(ctx context.Context) error {
						got, err := get(ctx, "http://"+address+"/")
						if err == nil && got != s.colour+"\n" {
							err = fmt.Errorf("got %q, want %q", got, s.colour)
						}
						if err != nil {
							return fmt.Errorf("%w; kubectl says %q", err, forward.output())
						}
						return nil
					})
				}
			})
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("making a request: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("getting %s: %w", url, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", url, err)
	}
	return string(body), nil
}

func testService(t *testing.T, s *shop) {
	service, err := s.Client.CoreV1().Services(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the service: %v", err)
	}
	super, err := s.cluster.Super.Client.CoreV1().Services(s.superNamespace()).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the service in super: %v", err)
	}
	if service.Spec.ClusterIP == "" || service.Spec.ClusterIP != super.Spec.ClusterIP {
		t.Errorf("the cluster IP is %q in the tenant and %q in super", service.Spec.ClusterIP, super.Spec.ClusterIP)
	}
	full := "web." + s.namespace + ".svc." + s.clusterDomain()
	if got := s.run(t, "nslookup "+full); !strings.Contains(got, service.Spec.ClusterIP) {
		t.Errorf("nslookup %s: got %q, want %s in it", full, got, service.Spec.ClusterIP)
	}
	for _, host := range []string{"web", "web." + s.namespace, "web." + s.namespace + ".svc", full, service.Spec.ClusterIP} {
		if got := s.run(t, "wget -q -O- -T 5 http://"+host); got != s.colour+"\n" {
			t.Errorf("http://%s: got %q, want %q", host, got, s.colour)
		}
	}
	// Both pods are behind it.
	worlds.Eventually(t, 30*time.Second, "both pods in the EndpointSlice", func(ctx context.Context) error {
		slices, err := s.Client.DiscoveryV1().EndpointSlices(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		if err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		ready := 0
		for _, slice := range slices.Items {
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready != nil && *endpoint.Conditions.Ready {
					ready++
				}
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d ready endpoints, want 2", ready)
		}
		return nil
	})
}

func (s *shop) clusterDomain() string {
	if domain := s.VirtualCluster.Spec.ClusterDomain; domain != "" {
		return domain
	}
	return "cluster.local"
}

func testOwnAPI(t *testing.T, s *shop) {
	want := s.podNames(t)
	answer := s.run(t, fmt.Sprintf(
		`wget -q -O- -T 10 --ca-certificate=%[1]s/ca.crt --header "Authorization: Bearer $(cat %[1]s/token)" https://kubernetes.default/api/v1/namespaces/%[2]s/pods`,
		tokenDir, s.namespace))
	var list corev1.PodList
	if err := json.Unmarshal([]byte(answer), &list); err != nil {
		t.Fatalf("decoding %q: %v", answer, err)
	}
	var got []string
	for _, pod := range list.Items {
		got = append(got, pod.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods seen from a pod: -want +got:\n%s", diff)
	}
	if got := s.run(t, "cat "+tokenDir+"/namespace"); got != s.namespace {
		t.Errorf("the pod believes to be in namespace %q, want %q", got, s.namespace)
	}

	// client-go finds the API by the environment, and verifies the certificate against the IP address.
	must(t, s.Access, "-n", s.namespace, "run", "lister", "--image="+local.KubectlImage, "--image-pull-policy=IfNotPresent",
		"--restart=Never", "--", "get", "pods", "-l", "app=web", "-o", "name")
	must(t, s.Access, "-n", s.namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/lister", "--timeout=60s")
	listed := strings.Fields(must(t, s.Access, "-n", s.namespace, "logs", "lister"))
	for _, pod := range s.pods(t) {
		if !slices.Contains(listed, "pod/"+pod.Name) {
			t.Errorf("the in-cluster client lists %v, want %s in it", listed, pod.Name)
		}
	}
	must(t, s.Access, "-n", s.namespace, "delete", "pod", "lister", "--timeout=60s")
}

func (s *shop) podNames(t testing.TB) []string {
	t.Helper()
	list, err := s.Client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatalf("listing pods: %v", err)
	}
	var found []string
	for _, pod := range list.Items {
		found = append(found, pod.Name)
	}
	slices.Sort(found)
	return found
}

// A tenant's pod holds no credential of the super cluster or of another tenant.
func testToken(t *testing.T, s *shop) {
	token := s.run(t, "cat "+tokenDir+"/token")
	for _, access := range []*local.Access{s.cluster.Super, s.cluster.Tenants[0].Access, s.cluster.Tenants[1].Access} {
		config := rest.AnonymousClientConfig(access.Config)
		config.BearerToken = token
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
		if access.Name == s.Name {
			if err != nil {
				t.Errorf("the token in its own cluster: %v", err)
			}
			continue
		}
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("the token in %s: got %v, want unauthorized", access.Name, err)
		}
	}
}

func testNodes(t *testing.T, s *shop) {
	list, err := s.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatalf("listing nodes: %v", err)
	}
	ready := map[string]bool{}
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				ready[node.Name] = condition.Status == corev1.ConditionTrue
			}
		}
	}
	table := must(t, s.Access, "get", "nodes")
	for _, pod := range s.pods(t) {
		super, err := s.cluster.Super.Client.CoreV1().Pods(s.superNamespace()).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatalf("getting the pod in super: %v", err)
		}
		if pod.Spec.NodeName != super.Spec.NodeName {
			t.Errorf("pod %s is on %q in the tenant and on %q in super", pod.Name, pod.Spec.NodeName, super.Spec.NodeName)
		}
		if !ready[pod.Spec.NodeName] {
			t.Errorf("node %s is not there or not ready:\n%s", pod.Spec.NodeName, table)
		}
		if pod.Status.PodIP == "" || pod.Status.PodIP != super.Status.PodIP {
			t.Errorf("pod %s has IP %q in the tenant and %q in super", pod.Name, pod.Status.PodIP, super.Status.PodIP)
		}
	}
}

func testDescribe(t *testing.T, s *shop) {
	pod := s.pods(t)[0].Name
	worlds.Eventually(t, 30*time.Second, "the events of the kubelet and the scheduler", func(context.Context) error {
		text := must(t, s.Access, "-n", s.namespace, "describe", "pod", pod)
		_, events, _ := strings.Cut(text, "\nEvents:")
		for _, want := range []string{"Scheduled", "Pulled", "Created", "Started", "kubelet"} {
			if !strings.Contains(events, want) {
				return fmt.Errorf("no %s in the events of %s", want, text)
			}
		}
		for _, hidden := range []string{s.superNamespace(), string(s.ID())} {
			if strings.Contains(text, hidden) {
				t.Fatalf("the description shows %s of the super cluster:\n%s", hidden, text)
			}
		}
		// What a pod needs is there before the pod is, or its start is late and its owner is alarmed.
		if strings.Contains(events, "FailedMount") {
			t.Fatalf("a volume was missing when the pod started:\n%s", events)
		}
		return nil
	})
}

// testNothingVisible looks at every object a tenant can list for traces of another.
func testNothingVisible(t *testing.T, s, other *shop) {
	hidden := map[string]string{
		"colour": other.colour, "root namespace": string(other.ID()), "super namespace": other.superNamespace(),
		"own super namespace": s.superNamespace(), "UID": string(other.VirtualCluster.UID),
	}
	for _, pod := range other.pods(t) {
		hidden["pod "+pod.Name] = pod.Name
		hidden["pod UID "+pod.Name] = string(pod.UID)
	}
	for key, object := range everything(t, s.Access) {
		text, err := object.MarshalJSON()
		if err != nil {
			t.Fatalf("encoding %s: %v", key, err)
		}
		for what, secret := range hidden {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s of %s shows the %s of %s:\n%s", key, s.Name, what, other.Name, text)
			}
		}
	}
	// And the other's credentials open nothing here.
	config := rest.CopyConfig(other.Config)
	config.Host, config.CAData = s.Config.Host, s.Config.CAData
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("%s in the cluster of %s: got %v, want unauthorized", other.Name, s.Name, err)
	}
}

func testJob(t *testing.T, s *shop) {
	must(t, s.Access, "-n", s.namespace, "create", "job", "sum", "--image="+local.Image, "--", "sh", "-c", "echo $((20 + 22))")
	must(t, s.Access, "-n", s.namespace, "wait", "--for=condition=complete", "job/sum", "--timeout=60s")
	if got := must(t, s.Access, "-n", s.namespace, "logs", "job/sum"); got != "42\n" {
		t.Errorf("logs of the job: %q", got)
	}
	must(t, s.Access, "-n", s.namespace, "delete", "job", "sum", "--timeout=60s")
}

func testBadImage(t *testing.T, s *shop) {
	must(t, s.Access, "-n", s.namespace, "run", "bad-image", "--image=registry.invalid/none:1", "--restart=Never")
	worlds.Eventually(t, 60*time.Second, "the reason in the status and the events", func(ctx context.Context) error {
		pod, err := s.Client.CoreV1().Pods(s.namespace).Get(ctx, "bad-image", metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("getting the pod: %w", err)
		}
		if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Waiting == nil {
			return fmt.Errorf("container statuses are %v", pod.Status.ContainerStatuses)
		}
		reason := pod.Status.ContainerStatuses[0].State.Waiting.Reason
		if reason != "ErrImagePull" && reason != "ImagePullBackOff" {
			return fmt.Errorf("the container waits because of %s", reason)
		}
		return s.hasEvent(ctx, "bad-image", "Failed", "registry.invalid/none:1")
	})
	must(t, s.Access, "-n", s.namespace, "delete", "pod", "bad-image", "--timeout=60s")
}

// hasEvent says whether there is a warning about an object whose reason and message contain the given texts.
func (s *shop) hasEvent(ctx context.Context, object, reason, message string) error {
	events, err := s.Client.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + object})
	if err != nil {
		return fmt.Errorf("listing events: %w", err)
	}
	var seen []string
	for _, event := range events.Items {
		if event.Type == corev1.EventTypeWarning && strings.Contains(event.Reason, reason) &&
			strings.Contains(strings.ToLower(event.Message), strings.ToLower(message)) {
			return nil
		}
		seen = append(seen, event.Type+" "+event.Reason+": "+event.Message)
	}
	return fmt.Errorf("no warning %s about %q; events of %s are %q", reason, message, object, seen)
}

// What the super cluster would let escape is refused with an event in the tenant that names it.
func testRefusedPods(t *testing.T, s *shop) {
	privileged := true
	for name, tc := range map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		"privileged": {
			change: func(spec *corev1.PodSpec) {
				spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &privileged}
			},
			want: "privileged",
		},
		"host-network": {change: func(spec *corev1.PodSpec) { spec.HostNetwork = true }, want: "hostNetwork"},
		"host-pid":     {change: func(spec *corev1.PodSpec) { spec.HostPID = true }, want: "hostPID"},
		"host-path": {
			change: func(spec *corev1.PodSpec) {
				spec.Volumes = []corev1.Volume{{Name: "root", VolumeSource: corev1.VolumeSource{
					HostPath: &corev1.HostPathVolumeSource{Path: "/"},
				}}}
			},
			want: "hostPath",
		},
		"sys-admin": {
			change: func(spec *corev1.PodSpec) {
				spec.Containers[0].SecurityContext = &corev1.SecurityContext{
					Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}},
				}
			},
			want: "SYS_ADMIN",
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := worlds.Pod(s.namespace, name)
			pod.Spec.Containers[0].Image = local.Image
			tc.change(&pod.Spec)
			if _, err := s.Client.CoreV1().Pods(s.namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatalf("creating the pod: %v", err)
			}
			worlds.Eventually(t, 30*time.Second, "an event that says why", func(ctx context.Context) error {
				return s.hasEvent(ctx, name, "", tc.want)
			})
			_, err := s.cluster.Super.Client.CoreV1().Pods(s.superNamespace()).Get(t.Context(), name, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				t.Errorf("the pod in super: got %v, want not found", err)
			}
			must(t, s.Access, "-n", s.namespace, "delete", "pod", name, "--timeout=30s")
		})
	}
}

func testRollingUpdate(t *testing.T, s *shop) {
	before := map[string]bool{}
	for _, pod := range s.pods(t) {
		before[pod.Name] = true
	}
	must(t, s.Access, "-n", s.namespace, "set", "env", "deployment/web", "VERSION=2")
	must(t, s.Access, "-n", s.namespace, "rollout", "status", "deployment/web", "--timeout=90s")
	worlds.Eventually(t, 60*time.Second, "only new pods", func(context.Context) error {
		pods := s.pods(t)
		for _, pod := range pods {
			if before[pod.Name] {
				return fmt.Errorf("%s is still there", pod.Name)
			}
		}
		if len(pods) != 2 {
			return fmt.Errorf("%d pods, want 2", len(pods))
		}
		return nil
	})
	for _, pod := range s.pods(t) {
		want := fmt.Sprintf("serving %s version 2 on %s\n", s.colour, pod.Name)
		if got := must(t, s.Access, "-n", s.namespace, "logs", pod.Name); got != want {
			t.Errorf("logs of the new pod: got %q, want %q", got, want)
		}
	}
	must(t, s.Access, "-n", s.namespace, "rollout", "undo", "deployment/web")
	must(t, s.Access, "-n", s.namespace, "rollout", "status", "deployment/web", "--timeout=90s")
	must(t, s.Access, "-n", s.namespace, "wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
}

func testScale(t *testing.T, s *shop) {
	for _, replicas := range []int{5, 1, 2} {
		must(t, s.Access, "-n", s.namespace, "scale", "deployment/web", fmt.Sprintf("--replicas=%d", replicas))
		must(t, s.Access, "-n", s.namespace, "rollout", "status", "deployment/web", "--timeout=90s")
		worlds.Eventually(t, 60*time.Second, fmt.Sprintf("%d pods on both sides", replicas), func(ctx context.Context) error {
			super, err := s.cluster.Super.Client.CoreV1().Pods(s.superNamespace()).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
			if err != nil {
				return fmt.Errorf("listing pods in super: %w", err)
			}
			if tenant := len(s.pods(t)); tenant != replicas || len(super.Items) != replicas {
				return fmt.Errorf("%d pods in the tenant, %d in super", tenant, len(super.Items))
			}
			return nil
		})
		s.awaitEvents(t)
	}
}

// awaitEvents waits until the tenant has been told the life of every pod: no event is lost.
func (s *shop) awaitEvents(t *testing.T) {
	t.Helper()
	worlds.Eventually(t, 30*time.Second, "the events of all pods", func(ctx context.Context) error {
		events, err := s.Client.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod"})
		if err != nil {
			return fmt.Errorf("listing events: %w", err)
		}
		told := map[string]bool{}
		for _, event := range events.Items {
			told[event.InvolvedObject.Name+" "+event.Reason] = true
		}
		for _, pod := range s.pods(t) {
			for _, reason := range []string{"Scheduled", "Pulled", "Created", "Started"} {
				if !told[pod.Name+" "+reason] {
					return fmt.Errorf("no event %s about pod %s", reason, pod.Name)
				}
			}
		}
		return nil
	})
}

func testDeletedPod(t *testing.T, s *shop) {
	pod := s.pods(t)[0]
	must(t, s.Access, "-n", s.namespace, "delete", "pod", pod.Name, "--timeout=60s")
	_, err := s.cluster.Super.Client.CoreV1().Pods(s.superNamespace()).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the pod is gone in the tenant; in super: %v, want not found", err)
	}
	must(t, s.Access, "-n", s.namespace, "rollout", "status", "deployment/web", "--timeout=60s")
}

func testDisappearedPod(t *testing.T, s *shop) {
	pod := s.pods(t)[0]
	must(t, s.cluster.Super, "-n", s.superNamespace(), "delete", "pod", pod.Name, "--grace-period=1", "--wait=false")
	worlds.Eventually(t, 60*time.Second, "the tenant's controllers to replace the pod", func(ctx context.Context) error {
		got, err := s.Client.CoreV1().Pods(s.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		switch {
		case err == nil && got.Status.Phase != corev1.PodFailed:
			return fmt.Errorf("the old pod is still there in phase %s", got.Status.Phase)
		case err != nil && !apierrors.IsNotFound(err):
			return fmt.Errorf("getting the old pod: %w", err)
		}
		deployment, err := s.Client.AppsV1().Deployments(s.namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("getting the deployment: %w", err)
		}
		ready := int32(0)
		for _, p := range s.pods(t) {
			if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready++
			}
		}
		if want := *deployment.Spec.Replicas; ready != want {
			return fmt.Errorf("%d ready pods, want %d", ready, want)
		}
		return nil
	})
}

func testDeletedNamespace(t *testing.T, s *shop) {
	must(t, s.Access, "delete", "namespace", s.namespace, "--timeout=2m")
	worlds.Eventually(t, 60*time.Second, "the super namespace to go away", func(ctx context.Context) error {
		namespace, err := s.cluster.Super.Client.CoreV1().Namespaces().Get(ctx, s.superNamespace(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("getting it: %w", err)
		}
		return errors.New("it is in phase " + string(namespace.Status.Phase))
	})
}
