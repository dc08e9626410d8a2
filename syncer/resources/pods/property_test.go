package pods

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// step is something that happens to a pair of pods without our doing. It says whether it could happen.
type step struct {
	name string
	do   func(r *rand.Rand, w *world, tenant, super **corev1.Pod) bool
}

func steps() []step {
	onTenant := func(name string, do func(*rand.Rand, *corev1.Pod)) step {
		return step{name, func(r *rand.Rand, _ *world, tenant, _ **corev1.Pod) bool {
			if *tenant == nil {
				return false
			}
			*tenant = (*tenant).DeepCopy()
			do(r, *tenant)
			(*tenant).Generation++
			return true
		}}
	}
	onSuper := func(name string, do func(*rand.Rand, *corev1.Pod)) step {
		return step{name, func(r *rand.Rand, _ *world, _, super **corev1.Pod) bool {
			if *super == nil {
				return false
			}
			*super = (*super).DeepCopy()
			do(r, *super)
			return true
		}}
	}
	return []step{
		onTenant("label", func(r *rand.Rand, p *corev1.Pod) { p.Labels = map[string]string{"app": fmt.Sprint(r.IntN(3))} }),
		onTenant("annotate", func(r *rand.Rand, p *corev1.Pod) {
			p.Annotations = map[string]string{"a": fmt.Sprint(r.IntN(3)), names.AnnotationUID: "forged", names.AnnotationKeys: "l:" + names.LabelTenant}
		}),
		onTenant("image", func(r *rand.Rand, p *corev1.Pod) { p.Spec.Containers[0].Image = fmt.Sprintf("web:%d", r.IntN(3)) }),
		onTenant("resize", func(r *rand.Rand, p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *apiresource.NewMilliQuantity(int64(100*(1+r.IntN(20))), apiresource.DecimalSI)}
		}),
		onTenant("debug", func(_ *rand.Rand, p *corev1.Pod) {
			if n := len(p.Spec.EphemeralContainers); n < 3 {
				ephemeral(fmt.Sprintf("debug-%d", n))(p)
			}
		}),
		onTenant("tolerate", func(r *rand.Rand, p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: fmt.Sprint("k", r.IntN(3)), Operator: corev1.TolerationOpExists})
		}),
		onTenant("gate", func(r *rand.Rand, p *corev1.Pod) {
			p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == "example.com/gate" })
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: []corev1.ConditionStatus{"True", "False"}[r.IntN(2)]})
		}),
		onTenant("delete", func(r *rand.Rand, p *corev1.Pod) {
			if p.DeletionTimestamp == nil || r.IntN(2) == 0 {
				deleting(int64(1 + r.IntN(30)))(p)
			}
		}),
		{"remove", func(r *rand.Rand, _ *world, tenant, _ **corev1.Pod) bool {
			possible := *tenant != nil && r.IntN(4) == 0
			if possible {
				*tenant = nil
			}
			return possible
		}},
		{"recreate", func(_ *rand.Rand, _ *world, tenant, _ **corev1.Pod) bool {
			possible := *tenant == nil
			if possible {
				*tenant = pod(withToken, func(p *corev1.Pod) { p.UID = "tenant-uid-2" })
			}
			return possible
		}},
		onSuper("inject", func(_ *rand.Rand, p *corev1.Pod) {
			p.Labels["operator"] = "1"
			if len(p.Spec.Containers) == 1 {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "injected", Image: "proxy"})
			}
		}),
		onSuper("schedule", func(r *rand.Rand, p *corev1.Pod) {
			if p.Spec.NodeName == "" {
				p.Spec.NodeName = []string{node, "node-2"}[r.IntN(2)]
			}
		}),
		onSuper("report", func(r *rand.Rand, p *corev1.Pod) {
			if p.Spec.NodeName == "" {
				return
			}
			p.Status.StartTime, p.Status.Phase, p.Status.ObservedGeneration = &metav1.Time{Time: start}, corev1.PodRunning, p.Generation
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", RestartCount: int32(r.IntN(3))}, {Name: "injected"}}
			p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return fromNode(c.Type) })
			for _, condition := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady, corev1.PodInitialized} {
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
					Type: condition, Status: []corev1.ConditionStatus{"True", "False"}[r.IntN(2)], ObservedGeneration: int64(r.IntN(2)) * p.Generation,
				})
			}
		}),
		onSuper("finish", func(r *rand.Rand, p *corev1.Pod) {
			if p.Status.StartTime != nil && r.IntN(3) == 0 {
				p.Status.Phase = []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}[r.IntN(2)]
			}
		}),
		onSuper("evict", func(r *rand.Rand, p *corev1.Pod) {
			if p.DeletionTimestamp == nil && r.IntN(3) == 0 {
				deleting(int64(r.IntN(30)))(p)
			}
		}),
		{"terminated", func(r *rand.Rand, _ *world, _, super **corev1.Pod) bool {
			possible := *super != nil && ((*super).DeletionTimestamp != nil || r.IntN(8) == 0)
			if possible {
				*super = nil
			}
			return possible
		}},
		{"time", func(r *rand.Rand, w *world, _, _ **corev1.Pod) bool {
			w.now = w.now.Add(time.Duration(r.IntN(60)) * time.Minute)
			return true
		}},
	}
}

// Whatever happens on either side, a few decisions later there is nothing to do: no two of them undo each other, and
// none asks for what is so already.
func TestDecisionsConverge(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWorld()
		tenant := pod(withToken, spec(func(s *corev1.PodSpec) {
			s.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
		}))
		var super *corev1.Pod
		var history []string
		for range 40 {
			s := steps()[r.IntN(len(steps()))]
			if !s.do(r, w, &tenant, &super) {
				continue
			}
			history = append(history, s.name)
			for round := 0; ; round++ {
				ops, err := decide(w, tenant, super)
				if err != nil {
					t.Fatalf("seed %d, after %v: %v", seed, history, err)
				}
				if len(ops) == 0 {
					break
				}
				history = append(history, fmt.Sprint(summary(ops)))
				if round == 6 {
					t.Fatalf("seed %d does not converge: %v\n%s", seed, history, ops[0].Patch)
				}
				if tenant, super, err = w.apply(tenant, super, ops); err != nil {
					t.Fatalf("seed %d, after %v: %v", seed, history, err)
				}
				if super != nil {
					checkReplica(t, super)
				}
			}
		}
	}
}

// checkReplica checks what must be true of every replica.
func checkReplica(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if p.Labels[names.LabelTenant] != string(tenantID) || p.Annotations[names.AnnotationNamespace] != shop || p.Annotations[names.AnnotationUID] == "forged" {
		t.Errorf("the marks of ownership are %v %v", p.Labels, p.Annotations)
	}
	if p.Spec.AutomountServiceAccountToken == nil || *p.Spec.AutomountServiceAccountToken {
		t.Error("a token of the super cluster would be mounted")
	}
	if p.Spec.HostNetwork || p.Spec.HostPID || p.Spec.HostIPC || p.Spec.DNSPolicy == corev1.DNSClusterFirst || p.Spec.PriorityClassName != "" {
		t.Errorf("the replica has what it must not: %+v", p.Spec)
	}
	for _, volume := range p.Spec.Volumes {
		if volume.HostPath != nil || volume.CSI != nil {
			t.Errorf("the replica has volume %+v", volume)
		}
		if volume.Projected != nil && slices.ContainsFunc(volume.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil }) {
			t.Error("the kubelet would be asked for a token of the super cluster")
		}
	}
}

// filled returns a pod with random values in all fields, or in all that are not refused.
func filled(r *rand.Rand, refusals bool) *corev1.Pod {
	byType := map[reflect.Type]map[string]Action{}
	for _, rules := range table() {
		byType[rules.of] = map[string]Action{}
		for _, rule := range rules.rules {
			for _, field := range rule.fields {
				byType[rules.of][field] = rule.action
			}
		}
	}
	paths := []string{"metadata.namespace", "metadata.labels", "metadata.annotations['a']", "spec.nodeName"}
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if r.IntN(2) == 0 {
				v.Set(reflect.New(v.Type().Elem()))
				fill(v.Elem())
			}
		case reflect.Slice:
			if n := r.IntN(3); n > 0 {
				v.Set(reflect.MakeSlice(v.Type(), n, n))
				for i := range n {
					fill(v.Index(i))
				}
			}
		case reflect.Map:
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key)
			fill(value)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(key, value)
		case reflect.Struct:
			switch into := v.Addr().Interface().(type) {
			case *apiresource.Quantity:
				*into = *apiresource.NewQuantity(r.Int64N(100), apiresource.DecimalSI)
				return
			case *metav1.LabelSelector, *metav1.Time:
				return
			case *corev1.ObjectFieldSelector:
				into.FieldPath = paths[r.IntN(len(paths))]
				return
			}
			for i := range v.NumField() {
				if refusals || byType[v.Type()][v.Type().Field(i).Name] != Refuse {
					fill(v.Field(i))
				}
			}
			if volume, ok := v.Addr().Interface().(*corev1.Volume); ok && !refusals && volume.VolumeSource == (corev1.VolumeSource{}) {
				volume.EmptyDir = &corev1.EmptyDirVolumeSource{}
			}
		case reflect.String:
			v.SetString(strings.Repeat("x", 1+r.IntN(3)))
		case reflect.Bool:
			v.SetBool(r.IntN(2) == 0)
		case reflect.Int32, reflect.Int64:
			v.SetInt(r.Int64N(100))
		default:
		}
	}
	p := pod()
	fill(reflect.ValueOf(&p.Spec).Elem())
	p.Spec.SetHostnameAsFQDN, p.Spec.RuntimeClassName = nil, nil // what is not known is refused
	for i := range p.Spec.ResourceClaims {
		p.Spec.ResourceClaims[i].ResourceClaimName = to("x") // without a name, which a template may take a while to get, the pod waits
	}
	return p
}

// The translation takes any pod, writes to none, and says the same each time; a refused field anywhere is found.
func TestAnyPodIsTranslated(t *testing.T) {
	k := &kind{copiers: compile(table()), admit: func(psa.Level, *corev1.Pod) error { return nil }} // the table alone
	w := newWorld()
	for _, account := range []string{"x", "xx", "xxx"} {
		w.share(kindAccounts, account)
	}
	for seed := range uint64(80) {
		for level, refusals := range map[psa.Level]bool{psa.LevelPrivileged: false, psa.LevelBaseline: true} {
			w.facts.PodSecurity = level
			in := filled(rand.New(rand.NewPCG(seed, 1)), refusals)
			before := in.DeepCopy()
			out, annotations, err := k.translateSpec(w.view(), in)
			again, _, _ := k.translateSpec(w.view(), in)
			if diff := cmp.Diff(before, in); diff != "" {
				t.Fatalf("seed %d: the translation wrote to the pod: %s", seed, diff)
			}
			if encode(out) != encode(again) {
				t.Fatalf("seed %d: the translation is not deterministic", seed)
			}
			_, rejected := resource.AsReject(err)
			if !refusals && err != nil || refusals && err != nil && !rejected {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err != nil {
				continue
			}
			if out.NodeName != "" || annotations == nil {
				t.Fatalf("seed %d: got %+v", seed, out)
			}
			if len(out.Containers) != len(in.Spec.Containers) || len(out.Volumes) != len(in.Spec.Volumes) || len(out.EphemeralContainers) != len(in.Spec.EphemeralContainers) ||
				len(out.ResourceClaims) != len(in.Spec.ResourceClaims) {
				t.Fatalf("seed %d: something was lost", seed)
			}
			if shares(reflect.ValueOf(out), reflect.ValueOf(in.Spec)) {
				t.Fatalf("seed %d: the replica shares memory with the pod", seed)
			}
		}
	}
}

// A cached replica has all that decisions need.
func TestTrimmedReplicasAreEnough(t *testing.T) {
	w := newWorld()
	tenant := pod(bound, withToken, ephemeral("one", "two"), func(p *corev1.Pod) {
		p.Labels["new"] = "1"
		p.Spec.Containers[0].Image = "web:2"
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("2")}
		p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
	})
	full := running(t, w, pod(withToken), ephemeral("one"))
	trimmed := full.DeepCopy()
	trim(trimmed)
	if trimmed.Spec.Volumes != nil || trimmed.Spec.Containers[0].Env != nil || trimmed.Spec.NodeName != node {
		t.Errorf("got %+v", trimmed.Spec)
	}
	want, err := decide(w, tenant, full)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decide(w, tenant, trimmed)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(summary(want), summary(got)); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	// Patches computed from the trimmed replica do the same to the whole one.
	_, a, err := w.apply(tenant, full, want)
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := w.apply(tenant, full, got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("replica (-untrimmed +trimmed):\n%s", diff)
	}
}

// A tenant's pod is not trimmed, whatever it pretends to be: it is what replicas are made from.
func TestTenantPodsAreNotTrimmed(t *testing.T) {
	p := pod(withToken, func(p *corev1.Pod) {
		p.Labels[names.LabelTenant] = string(tenantID)
		p.Annotations = map[string]string{names.AnnotationNamespace: shop, names.AnnotationUID: "x"}
	})
	before := p.DeepCopy()
	trim(p)
	if diff := cmp.Diff(before, p); diff != "" {
		t.Errorf("pod (-before +after):\n%s", diff)
	}
}

func BenchmarkDecide(b *testing.B) {
	w := newWorld()
	tenant := pod(bound, withToken)
	r := describe("")
	key := resource.Key{Tenant: tenantID, Namespace: shop, Name: "web-0"}
	ops, err := r.Decide(w.view(), key, resource.Pair[*corev1.Pod]{Tenant: pod(withToken)})
	if err != nil {
		b.Fatal(err)
	}
	super, ok := ops[0].Object.(*corev1.Pod)
	if !ok {
		b.Fatal("no replica")
	}
	super.UID, super.Spec.NodeName = "super-uid", node
	trim(super)
	for b.Loop() {
		if _, err := r.Decide(w.view(), key, resource.Pair[*corev1.Pod]{Tenant: tenant, Super: super}); err != nil {
			b.Fatal(err)
		}
	}
}
