package pods

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// reported gives a tenant's pod the status that its super pod has.
func reported(t *testing.T, w *world, tenant, super *corev1.Pod) *corev1.Pod {
	t.Helper()
	tenant = tenant.DeepCopy()
	status, err := (&kind{copiers: compile(table())}).translateStatus(w.view(), tenant, super)
	if err != nil {
		t.Fatal(err)
	}
	tenant.Status = status
	return tenant
}

func failed(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }
func unscheduled(p *corev1.Pod) {
	p.Spec.NodeName = ""
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
}
func jobFinalizer(p *corev1.Pod) { p.Finalizers = []string{"batch.kubernetes.io/job-tracking"} }
func scheduled(p *corev1.Pod) {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	scheduledAt(0)(p)
}

// scheduledAt is what an API server notes when it binds a pod, so many seconds after the start.
func scheduledAt(seconds int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(time.Duration(seconds) * time.Second)),
		}}
	}
}
func onNode(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = name }
}

// The life of a pair, except for what the statuses say.
func TestLife(t *testing.T) {
	type changes []func(*corev1.Pod)
	for name, tc := range map[string]struct {
		tenant changes // nil for absent
		super  changes // nil for absent
		synced bool    // the tenant's status is what it should be
		want   []string
	}{
		"New":                   {tenant: changes{}, want: []string{"Create super Missing"}},
		"NotScheduled":          {tenant: changes{}, super: changes{unscheduled}, synced: true},
		"Scheduled":             {tenant: changes{}, super: changes{}, synced: true, want: []string{"Bind tenant Bound"}},
		"ScheduledAndStarted":   {tenant: changes{}, super: changes{}, want: []string{"Bind tenant Bound", "PatchStatus tenant Status"}},
		"ScheduledOnly":         {tenant: changes{}, super: changes{scheduled}, want: []string{"Bind tenant Bound"}},
		"BoundOnly":             {tenant: changes{onNode(node), scheduledAt(1)}, super: changes{scheduled}},
		"Running":               {tenant: changes{bound}, super: changes{}, synced: true},
		"StatusChanged":         {tenant: changes{bound}, super: changes{}, want: []string{"PatchStatus tenant Status"}},
		"TenantDeletes":         {tenant: changes{bound, deleting(30)}, super: changes{}, synced: true, want: []string{"Delete super Deleted grace=30"}},
		"TenantDeletesUnbound":  {tenant: changes{deleting(0)}, super: changes{}, synced: true, want: []string{"Delete super Deleted grace=0"}},
		"BothDelete":            {tenant: changes{bound, deleting(30)}, super: changes{deleting(30)}, synced: true},
		"TenantHurries":         {tenant: changes{bound, deleting(5)}, super: changes{deleting(30)}, synced: true, want: []string{"Delete super Deleted grace=5"}},
		"SuperEnded":            {tenant: changes{bound, deleting(30)}, want: []string{"Delete tenant Deleted grace=0"}},
		"SuperEndedFinalizer":   {tenant: changes{bound, deleting(30), jobFinalizer}, want: []string{"PatchStatus tenant Status", "Delete tenant Deleted grace=0"}},
		"FinalizerHolds":        {tenant: changes{bound, deleting(0), jobFinalizer}},
		"TenantGone":            {super: changes{}, want: []string{"Delete super Orphaned absent"}},
		"Evicted":               {tenant: changes{bound}, super: changes{deleting(12)}, synced: true, want: []string{"Delete tenant Vanished grace=12"}},
		"EvictedStatusFirst":    {tenant: changes{bound}, super: changes{deleting(12)}, want: []string{"PatchStatus tenant Status", "Delete tenant Vanished grace=12"}},
		"EvictedUnbound":        {tenant: changes{}, super: changes{unscheduled, deleting(0)}, synced: true, want: []string{"Delete tenant Vanished grace=0"}},
		"CleanedUpWhenFinished": {tenant: changes{bound, failed}, super: changes{failed, deleting(0)}, synced: true},
		"Vanished":              {tenant: changes{bound}, want: []string{"Delete tenant Vanished grace=0 absent"}},
		"VanishedFinalizer":     {tenant: changes{bound, jobFinalizer}, want: []string{"PatchStatus tenant Status", "Delete tenant Vanished grace=0 absent"}},
		"VanishedWhenFinished":  {tenant: changes{bound, failed}},
		"VanishedBeforeStart":   {tenant: changes{onNode(node)}, want: []string{"Create super Missing"}},
		"FinishedUnbound":       {tenant: changes{failed}},
		"Finished":              {tenant: changes{bound, failed}, super: changes{failed}, synced: true},
		"SelfBound":             {tenant: changes{onNode("node-2")}, super: changes{unscheduled}, synced: true},
		"SelfBoundElsewhere":    {tenant: changes{onNode("node-2")}, super: changes{}, want: []string{"Delete super Superseded"}},
		"MovingElsewhere":       {tenant: changes{onNode("node-2")}, super: changes{deleting(30)}},
		"OfAPredecessor":        {tenant: changes{}, super: changes{func(p *corev1.Pod) { p.Annotations[names.AnnotationUID] = "older" }}, want: []string{"Delete super Replaced"}},
		"PredecessorTerminates": {tenant: changes{}, super: changes{deleting(30), func(p *corev1.Pod) { p.Annotations[names.AnnotationUID] = "older" }}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			var tenant, super *corev1.Pod
			if tc.tenant != nil {
				tenant = pod(tc.tenant...)
			}
			if tc.super != nil {
				super = running(t, w, pod(), tc.super...)
			}
			if tc.synced {
				tenant = reported(t, w, tenant, super)
			}
			ops, err := decide(w, tenant, super)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, summary(ops), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
		})
	}
}

// A pod of the operator that stands where a tenant's should be is not touched, and not shown.
func TestPodsOfOthersAreLeftAlone(t *testing.T) {
	w := newWorld()
	super := running(t, w, pod(), func(p *corev1.Pod) { p.Labels, p.Annotations = nil, nil })
	ops, err := decide(w, pod(bound), super)
	if reject, ok := resource.AsReject(err); !ok || reject.Reason != "NameTaken" {
		t.Errorf("got %v, want a rejection", err)
	}
	if len(ops) > 0 {
		t.Errorf("got %v", summary(ops))
	}
	ops, _ = decide(w, pod(bound, deleting(30)), super)
	if diff := cmp.Diff([]string{"Delete tenant Deleted grace=0"}, summary(ops)); diff != "" {
		t.Errorf("operations when the tenant deletes its pod (-want +got):\n%s", diff)
	}
}

func TestStatus(t *testing.T) {
	when := metav1.NewTime(start)
	condition := func(kind corev1.PodConditionType, generation int64, message string) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, ObservedGeneration: generation, LastTransitionTime: when, Message: message}
	}
	w := newWorld()
	tenant := pod(bound, func(p *corev1.Pod) {
		p.Generation = 4
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
		p.Status.Conditions = []corev1.PodCondition{condition("example.com/gate", 2, "tenant's"), condition(corev1.PodReady, 3, "")}
		p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "tenant's"}}
	})
	super := running(t, w, tenant, func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{
			ObservedGeneration: 1,
			Phase:              corev1.PodRunning, Reason: "Because", Message: "in " + superShop(),
			QOSClass: corev1.PodQOSGuaranteed, NominatedNodeName: "node-3",
			HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}, PodIP: "10.1.0.5", PodIPs: []corev1.PodIP{{IP: "10.1.0.5"}},
			StartTime: &when,
			Conditions: []corev1.PodCondition{
				condition(corev1.PodReady, 1, "pod "+superShop()+"/web-0"), condition(corev1.PodScheduled, 0, ""), condition("operator.example.com/gate", 1, "super's"),
				condition("example.com/gate", 0, "stale"),
			},
			ContainerStatuses: []corev1.ContainerStatus{
				{
					Name: "main", Ready: true, RestartCount: 2, Image: "web:1", ImageID: "sha256:1", ContainerID: "containerd://1", Started: to(true),
					State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
						Reason: "CrashLoopBackOff", Message: "back-off 10s restarting failed container=main pod=web-0_" + superShop() + "(super-uid)",
					}},
					VolumeMounts:             []corev1.VolumeMountStatus{{Name: "data", MountPath: "/data"}, {Name: "injected", MountPath: "/x"}},
					AllocatedResourcesStatus: []corev1.ResourceStatus{{Name: "example.com/gpu"}},
				},
				{Name: "injected-sidecar", Ready: true},
			},
			ResourceClaimStatuses:       []corev1.PodResourceClaimStatus{{Name: "super's"}},
			ExtendedResourceClaimStatus: &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "super's"},
		}
	})
	want := corev1.PodStatus{
		ObservedGeneration: 4,
		Phase:              corev1.PodRunning, Reason: "Because", Message: "in shop",
		QOSClass: corev1.PodQOSBestEffort,
		HostIP:   "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}, PodIP: "10.1.0.5", PodIPs: []corev1.PodIP{{IP: "10.1.0.5"}},
		StartTime: &when,
		Conditions: []corev1.PodCondition{
			condition(corev1.PodReady, 4, "pod shop/web-0"), condition(corev1.PodScheduled, 0, ""), condition("example.com/gate", 2, "tenant's"),
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", Ready: true, RestartCount: 2, Image: "web:1", ImageID: "sha256:1", ContainerID: "containerd://1", Started: to(true),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: "CrashLoopBackOff", Message: "back-off 10s restarting failed container=main pod=web-0_shop(tenant-uid)",
			}},
			VolumeMounts: []corev1.VolumeMountStatus{{Name: "data", MountPath: "/data"}},
		}},
		ResourceClaimStatuses: []corev1.PodResourceClaimStatus{{Name: "tenant's"}},
	}
	got := reported(t, w, tenant, super).Status
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}

	// The patch makes it so, and then there is nothing left to do.
	ops, err := decide(w, tenant, super)
	if err != nil {
		t.Fatal(err)
	}
	after, super, err := w.apply(tenant, super, ops)
	if err != nil {
		t.Fatal(err)
	}
	byType := cmpopts.SortSlices(func(a, b corev1.PodCondition) bool { return a.Type < b.Type })
	if diff := cmp.Diff(want, after.Status, byType); diff != "" {
		t.Errorf("status after the patch (-want +got):\n%s", diff)
	}
	if ops, err := decide(w, after, super); err != nil || len(ops) > 0 {
		t.Errorf("still to do: %v %v", summary(ops), err)
	}
}

// Why a pod is not scheduled shows in its conditions.
func TestSchedulingFailureIsReported(t *testing.T) {
	w := newWorld()
	why := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/2 nodes are available: 2 Insufficient cpu."}
	super := running(t, w, pod(), unscheduled, func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{why}
		p.Status.NominatedNodeName = "node-2"
	})
	got := reported(t, w, pod(), super).Status
	if diff := cmp.Diff([]corev1.PodCondition{why}, got.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if got.NominatedNodeName != "node-2" || got.Phase != corev1.PodPending {
		t.Errorf("nominated %q, phase %s", got.NominatedNodeName, got.Phase)
	}
}

func TestObservedGeneration(t *testing.T) {
	for name, tc := range map[string]struct {
		observed, superGeneration int64
		tenant                    func(*corev1.Pod)
		want                      int64
	}{
		"Observed":        {2, 2, nil, 5},
		"NotYet":          {1, 2, nil, 3},
		"Unknown":         {0, 2, nil, 3},
		"ImageUnderway":   {2, 2, mainContainer(func(c *corev1.Container) { c.Image = "web:2" }), 3},
		"EphemeralFollow": {2, 2, ephemeral("debug"), 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			tenant := pod(bound, func(p *corev1.Pod) { p.Generation, p.Status.ObservedGeneration = 5, 3 })
			super := running(t, w, tenant, func(p *corev1.Pod) { p.Generation, p.Status.ObservedGeneration = tc.superGeneration, tc.observed })
			if tc.tenant != nil {
				tc.tenant(tenant)
			}
			if got := reported(t, w, tenant, super).Status.ObservedGeneration; got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func ephemeral(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, name := range names {
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: "debug:1", Stdin: true, TTY: true,
					Env: []corev1.EnvVar{{Name: "N", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
				TargetContainerName: "main",
			})
		}
	}
}

func TestEphemeralContainers(t *testing.T) {
	w := newWorld()
	super := running(t, w, pod(ephemeral("one")))
	if len(super.Spec.EphemeralContainers) > 0 {
		t.Fatal("a pod cannot be created with ephemeral containers")
	}
	ephemeral("one")(super)
	tenant := reported(t, w, pod(bound, ephemeral("one", "two")), super)
	ops, err := decide(w, tenant, super)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"PatchEphemeral super Drifted"}, summary(ops)); diff != "" {
		t.Fatalf("operations (-want +got):\n%s", diff)
	}
	_, after, err := w.apply(tenant, super, ops)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(after.Spec.EphemeralContainers); n != 2 {
		t.Fatalf("got %d containers", n)
	}
	added := after.Spec.EphemeralContainers[1]
	if added.Name != "two" || added.TargetContainerName != "main" || len(added.Env) != 9 ||
		added.Env[8].ValueFrom.FieldRef.FieldPath != annotationPath(names.AnnotationNamespace) {
		t.Errorf("got %+v", added)
	}
	if ops, err := decide(w, tenant, after); err != nil || len(ops) > 0 {
		t.Errorf("still to do: %v %v", summary(ops), err)
	}

	// Attack P-01: what may not be created may not be added either.
	ephemeral("three")(tenant)
	tenant.Spec.EphemeralContainers[2].SecurityContext = &corev1.SecurityContext{Privileged: to(true)}
	ops, err = decide(w, tenant, after)
	if _, ok := resource.AsReject(err); !ok || len(ops) > 0 {
		t.Errorf("got %v and %v, want a rejection", summary(ops), err)
	}
}

func TestResize(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		out := corev1.ResourceList{}
		if cpu != "" {
			out[corev1.ResourceCPU] = apiresource.MustParse(cpu)
		}
		if memory != "" {
			out[corev1.ResourceMemory] = apiresource.MustParse(memory)
		}
		return out
	}
	for name, tc := range map[string]struct {
		tenant, super, want corev1.ResourceList
		ops                 []string
	}{
		"Same":          {list("1", "1Gi"), list("1000m", "1024Mi"), list("1000m", "1024Mi"), nil},
		"Resized":       {list("2", "1Gi"), list("1", "1Gi"), list("2", "1Gi"), []string{"PatchResize super Drifted"}},
		"DefaultsStay":  {list("", ""), list("1", "1Gi"), list("1", "1Gi"), nil},
		"OthersBesides": {list("2", ""), list("1", "1Gi"), list("2", "1Gi"), []string{"PatchResize super Drifted"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			super := running(t, w, pod())
			super.Spec.Containers[0].Resources.Requests = tc.super
			tenant := pod(bound, mainContainer(func(c *corev1.Container) { c.Resources.Requests = tc.tenant }))
			tenant = reported(t, w, tenant, super)
			ops, err := decide(w, tenant, super)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.ops, summary(ops), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("operations (-want +got):\n%s", diff)
			}
			_, after, err := w.apply(tenant, super, ops)
			if err != nil {
				t.Fatal(err)
			}
			equal := cmp.Comparer(func(a, b apiresource.Quantity) bool { return a.Cmp(b) == 0 })
			if diff := cmp.Diff(tc.want, after.Spec.Containers[0].Resources.Requests, equal); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadinessGates(t *testing.T) {
	gate := corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start)}
	w := newWorld()
	withGates := spec(func(s *corev1.PodSpec) {
		s.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: gate.Type}, {ConditionType: corev1.PodReady}}
	})
	tenant := pod(bound, withGates, func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{gate} })
	super := running(t, w, tenant)
	ready := super.Status.Conditions[0]
	tenant = reported(t, w, tenant, super)
	for _, step := range []struct {
		tenant, want []corev1.PodCondition
	}{
		{[]corev1.PodCondition{gate}, []corev1.PodCondition{ready, gate}},
		{nil, []corev1.PodCondition{ready}},
	} {
		tenant.Status.Conditions = append([]corev1.PodCondition{ready}, step.tenant...)
		ops, err := decide(w, tenant, super)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"PatchStatus super Status"}, summary(ops)); diff != "" {
			t.Fatalf("operations (-want +got):\n%s", diff)
		}
		if _, super, err = w.apply(tenant, super, ops); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, super.Status.Conditions); diff != "" {
			t.Errorf("conditions (-want +got):\n%s", diff)
		}
		if ops, err := decide(w, tenant, super); err != nil || len(ops) > 0 {
			t.Errorf("still to do: %v %v", summary(ops), err)
		}
	}
}

func TestMerge(t *testing.T) {
	toleration := func(key string, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds}
	}
	w := newWorld()
	super := running(t, w, pod(), func(p *corev1.Pod) {
		// What the super cluster's admission and operator did.
		p.Labels["operator"] = "yes"
		p.Annotations["cni/ip"] = "10.1.0.5"
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "injected", Image: "proxy:1"})
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "INJECTED", Value: "1"})
		p.Spec.Tolerations = []corev1.Toleration{toleration("operator", nil), toleration("a", to(int64(300)))}
		p.Spec.TerminationGracePeriodSeconds = to(int64(-1))
	})
	tenant := pod(bound, func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "shop", "new": "1"}
		p.Annotations = map[string]string{"note": "1"}
		p.Spec.Containers[0].Image = "web:2"
		p.Spec.ActiveDeadlineSeconds = to(int64(60))
		p.Spec.TerminationGracePeriodSeconds = to(int64(1))
		p.Spec.Tolerations = []corev1.Toleration{toleration("a", to(int64(10))), toleration("b", nil)}
	})
	tenant = reported(t, w, tenant, super)
	ops, err := decide(w, tenant, super)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Patch super Drifted"}, summary(ops)); diff != "" {
		t.Fatalf("operations (-want +got):\n%s", diff)
	}
	_, after, err := w.apply(tenant, super, ops)
	if err != nil {
		t.Fatal(err)
	}
	want := super.DeepCopy()
	want.Generation = 2
	want.Labels["app"], want.Labels["new"] = "shop", "1"
	want.Annotations[names.AnnotationKeys] = "l:app,l:new"
	want.Spec.Containers[0].Image = "web:2"
	want.Spec.ActiveDeadlineSeconds = to(int64(60))
	want.Spec.TerminationGracePeriodSeconds = to(int64(1))
	want.Spec.Tolerations = []corev1.Toleration{toleration("operator", nil), toleration("a", to(int64(10))), toleration("b", nil)}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Errorf("replica (-want +got):\n%s", diff)
	}

	// What the API would refuse is not tried.
	tenant.Spec.ActiveDeadlineSeconds = to(int64(90))
	tenant.Spec.TerminationGracePeriodSeconds = to(int64(20))
	tenant = reported(t, w, tenant, after)
	if ops, err := decide(w, tenant, after); err != nil || len(ops) > 0 {
		t.Errorf("still to do: %v %v", summary(ops), err)
	}
}

// withToken asks for the usual token and one for an audience.
func withToken(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: to(int64(3607))}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault", Audience: "vault"}},
		}}}},
	}
}

func TestTokens(t *testing.T) {
	secret := func(change func(*corev1.Secret)) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{
				names.AnnotationUID:         "tenant-uid",
				names.AnnotationTokenIssued: start.Format(time.RFC3339),
				names.AnnotationTokenExpiry: start.Add(time.Hour).Format(time.RFC3339),
			},
			OwnerReferences: []metav1.OwnerReference{{UID: "super-uid"}},
		}}
		if change != nil {
			change(s)
		}
		return s
	}
	expiry := func(d time.Duration) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Annotations[names.AnnotationTokenExpiry] = start.Add(d).Format(time.RFC3339) }
	}
	for name, tc := range map[string]struct {
		secret *corev1.Secret
		after  time.Duration
		super  func(*corev1.Pod)
		want   string
		again  time.Duration // until the pod is looked at again
	}{
		"Absent":             {want: resource.Missing, again: time.Minute},
		"Present":            {secret: secret(nil), again: 48 * time.Minute},
		"BeforeFourFifths":   {secret: secret(nil), after: 47 * time.Minute, again: time.Minute},
		"AfterFourFifths":    {secret: secret(nil), after: 48 * time.Minute, want: resource.Expiring, again: time.Minute},
		"ADay":               {secret: secret(expiry(1000 * time.Hour)), after: 24 * time.Hour, want: resource.Expiring, again: time.Minute},
		"LessThanADay":       {secret: secret(expiry(1000 * time.Hour)), after: 23 * time.Hour, again: time.Hour},
		"ShorterThanAsked":   {secret: secret(expiry(10 * time.Minute)), after: 7 * time.Minute, again: time.Minute},
		"OfAnotherTenantPod": {secret: secret(func(s *corev1.Secret) { s.Annotations[names.AnnotationUID] = "other" }), want: resource.Replaced, again: time.Minute},
		"Unreadable":         {secret: secret(func(s *corev1.Secret) { delete(s.Annotations, names.AnnotationTokenIssued) }), want: resource.Expiring, again: time.Minute},
		"PodFinished":        {super: failed},
		"PodDeleted":         {super: deleting(30)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			tenant := pod(bound, withToken)
			super := running(t, w, tenant)
			if tc.super != nil {
				tc.super(super)
			}
			if tc.secret != nil {
				w.put(resource.Super, "tokens", shop, TokenSecret(tenant), tc.secret)
			}
			w.now = start.Add(tc.after)
			ops, err := decide(w, reported(t, w, tenant, super), super)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, op := range ops {
				if op.Verb == resource.Mint {
					got = append(got, op.Why)
				}
			}
			if want := strings.Fields(tc.want); !cmp.Equal(want, got, cmpopts.EquateEmpty()) {
				t.Errorf("minted for %v, want %v", got, want)
			}
			if again := max(w.again.Sub(w.now), 0); again != tc.again {
				t.Errorf("looked at again after %s, want %s", again, tc.again)
			}
		})
	}
}

// What a kubelet says of Secrets and ConfigMaps, it says by their names in the super cluster.
func TestStatusNamesWhatThePodRefersTo(t *testing.T) {
	w := newWorld()
	tenant := pod(bound, mainContainer(func(c *corev1.Container) {
		c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}}}
	}))
	super := running(t, w, tenant, func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{
			Reason: "CreateContainerConfigError", Message: `secret "` + names.SuperSecret("db") + `" not found`,
		}
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Message: "lookup other" + names.Marker}
	})
	got := reported(t, w, tenant, super).Status.ContainerStatuses[0]
	if got.State.Waiting.Message != `secret "db" not found` || got.LastTerminationState.Terminated.Message != "lookup other"+names.Marker {
		t.Errorf("got %+v", got)
	}
}

func TestMint(t *testing.T) {
	w := newWorld()
	w.share(kindAccounts, "robot")
	tenant := pod(bound, withToken, spec(func(s *corev1.PodSpec) { s.ServiceAccountName = "robot" }))
	super := running(t, w, tenant)
	tenant = reported(t, w, tenant, super)
	ops, err := decide(w, tenant, super)
	if err != nil {
		t.Fatal(err)
	}
	token := func(key, audience string, seconds int64) resource.Token {
		return resource.Token{Key: key, ServiceAccount: "robot", Audience: audience, ExpirationSeconds: seconds, PodName: "web-0", PodUID: "tenant-uid", Namespace: shop}
	}
	want := []resource.Op{{
		Side: resource.Super, Verb: resource.Mint, Why: resource.Missing,
		Tokens: []resource.Token{token("1-0", "", 3607), token("1-1", "vault", 3600)},
		Object: &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: superShop(), Name: TokenSecret(tenant),
				Labels:      map[string]string{names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer, names.LabelToken: "true"},
				Annotations: map[string]string{names.AnnotationNamespace: shop, names.AnnotationPod: "web-0", names.AnnotationUID: "tenant-uid"},
			},
			Type: corev1.SecretTypeOpaque,
		},
	}}
	if diff := cmp.Diff(want, ops); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// The admin may let tenants see some labels and annotations of the super cluster; never ours.
func TestTransparentMetadata(t *testing.T) {
	w := newWorld()
	w.facts.Transparent = []string{"cni.example.com/", names.Prefix}
	tenant := pod(bound, func(p *corev1.Pod) { p.Annotations = map[string]string{"note": "1", "cni.example.com/ip": "old"} })
	super := running(t, w, tenant, func(p *corev1.Pod) {
		p.Annotations["cni.example.com/ip"], p.Labels["cni.example.com/zone"], p.Labels["other.example.com/x"] = "10.1.0.5", "z", "1"
	})
	tenant = reported(t, w, tenant, super)
	ops, err := decide(w, tenant, super)
	if err != nil {
		t.Fatal(err)
	}
	after, super, err := w.apply(tenant, super, ops)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"note": "1", "cni.example.com/ip": "10.1.0.5"}, after.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"app": "web", "cni.example.com/zone": "z"}, after.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if ops, err := decide(w, after, super); err != nil || len(ops) > 0 {
		t.Errorf("still to do: %v %v", summary(ops), err)
	}
}

// A patch of a status is small whatever the spec is, and can only hit the pod it was computed for.
func TestStatusPatch(t *testing.T) {
	w := newWorld()
	super := running(t, w, pod())
	ops, err := decide(w, pod(bound), super)
	if err != nil || len(ops) != 1 {
		t.Fatalf("got %v, %v", summary(ops), err)
	}
	var body map[string]map[string]any
	if err := json.Unmarshal(ops[0].Patch, &body); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"uid": "tenant-uid"}, body["metadata"]); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if len(body) != 2 || body["status"] == nil {
		t.Errorf("the patch has more than a status: %s", ops[0].Patch)
	}
}

// What may change in a running pod changes, whatever else of the pod would be refused or would wait today.
func TestRunningPodsStayManageable(t *testing.T) {
	restricted := func(w *world) { w.facts.PodSecurity = psa.LevelRestricted }
	sysadmin := func(p *corev1.Pod) {
		ephemeral("debug")(p)
		p.Spec.EphemeralContainers[0].SecurityContext = &corev1.SecurityContext{Privileged: to(true)}
	}
	confined := func(p *corev1.Pod) {
		ephemeral("debug")(p)
		p.Spec.EphemeralContainers[0].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: to(false), RunAsNonRoot: to(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	withAccount := func(p *corev1.Pod) { p.Spec.ServiceAccountName = "app" }
	hasAccount := func(w *world) {
		w.put(resource.Tenant, kindAccounts, shop, "app", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{UID: "app"}})
		w.put(resource.Super, kindAccounts, shop, "app", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{names.LabelTenant: string(tenantID)}, Annotations: map[string]string{names.AnnotationUID: "app"},
		}})
	}
	accountGone := func(w *world) {
		w.remove(resource.Tenant, kindAccounts, shop, "app")
		w.remove(resource.Super, kindAccounts, shop, "app")
	}
	for name, tc := range map[string]struct {
		before func(*world) // the pod was made
		now    func(*world)
		pod    func(*corev1.Pod)
		change func(*corev1.Pod)
		ops    []string // besides the label
		reject string
	}{
		"RefusedEphemeral":         {change: sysadmin, reject: "PodSecurity"},
		"HigherLevel":              {now: restricted},
		"HigherLevelEphemeral":     {now: restricted, change: confined, ops: []string{"PatchEphemeral super Drifted"}},
		"HigherLevelBadEphemeral":  {now: restricted, change: ephemeral("debug"), reject: "PodSecurity"},
		"AccountGone":              {pod: withAccount, before: hasAccount, now: accountGone},
		"AccountGoneWithEphemeral": {pod: withAccount, before: hasAccount, now: accountGone, change: ephemeral("debug"), ops: []string{"PatchEphemeral super Drifted"}},
		"DNSGone":                  {now: func(w *world) { w.remove(resource.Tenant, "services", "kube-system", "kube-dns") }},
		"HostPathNotAllowedAnyMore": {
			pod:    volumes(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}),
			before: func(w *world) { w.facts.PodSecurity = psa.LevelPrivileged },
			now:    func(w *world) { w.facts.PodSecurity = psa.LevelBaseline },
		},
	} {
		t.Run(name, func(t *testing.T) {
			made, change := tc.pod, tc.change
			if made == nil {
				made = func(*corev1.Pod) {}
			}
			if change == nil {
				change = func(*corev1.Pod) {}
			}
			w := newWorld()
			if tc.before != nil {
				tc.before(w)
			}
			super := running(t, w, pod(made))
			tenant := reported(t, w, pod(made, bound, change, func(p *corev1.Pod) { p.Labels["role"] = "primary" }), super)
			if tc.now != nil {
				tc.now(w)
			}
			ops, err := decide(w, tenant, super)
			if reject, _ := resource.AsReject(err); (tc.reject != "") != (reject != nil) || reject != nil && reject.Reason != tc.reject || reject == nil && err != nil {
				t.Errorf("error is %v, want %q", err, tc.reject)
			}
			if diff := cmp.Diff(append([]string{"Patch super Drifted"}, tc.ops...), summary(ops)); diff != "" {
				t.Fatalf("operations (-want +got):\n%s", diff)
			}
			_, after, err := w.apply(tenant, super, ops)
			if err != nil || after.Labels["role"] != "primary" {
				t.Errorf("labels are %v, %v", after.Labels, err)
			}
		})
	}
}
