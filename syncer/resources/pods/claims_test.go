package pods

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// claiming makes a pod one that uses claims, one by its name and one that is made of a template.
func claiming(p *corev1.Pod) {
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{
		{Name: "named", ResourceClaimName: to("gpu")}, {Name: "made", ResourceClaimTemplateName: to("template")},
	}
	p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "named"}, {Name: "made", Request: "one"}}
}

// made says that the tenant's control plane made the claim.
func made(p *corev1.Pod) {
	p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "other"}, {Name: "made", ResourceClaimName: to("web-0-made-x")}}
}

func TestPodsNameTheirClaims(t *testing.T) {
	claim := func(uid types.UID, of string) *resourcev1.ResourceClaim {
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{UID: uid}}
		if of != "" {
			c.Labels = map[string]string{names.LabelTenant: string(tenantID)}
			c.Annotations = map[string]string{names.AnnotationUID: of}
		}
		return c
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		edit func(*world)
		ok   bool
	}{
		"Ready":         {pod(claiming, made), func(*world) {}, true},
		"NotMade":       {pod(claiming), func(*world) {}, false},
		"NotInTenant":   {pod(claiming, made), func(w *world) { w.remove(resource.Tenant, kindClaims, shop, "gpu") }, false},
		"NotReplicated": {pod(claiming, made), func(w *world) { w.remove(resource.Super, kindClaims, shop, "web-0-made-x") }, false},
		"Operators":     {pod(claiming, made), func(w *world) { w.put(resource.Super, kindClaims, shop, "gpu", operators()) }, false},
		"Predecessors":  {pod(claiming, made), func(w *world) { w.put(resource.Super, kindClaims, shop, "gpu", claim("old-super", "old")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for _, name := range []string{"gpu", "web-0-made-x"} {
				w.put(resource.Tenant, kindClaims, shop, name, claim("tenant", ""))
				w.put(resource.Super, kindClaims, shop, name, claim("super", "tenant"))
			}
			tc.edit(w)
			got, err := down(t, w, tc.pod)
			if !tc.ok {
				if _, waits := resource.AsWait(err); !waits || got != nil {
					t.Fatalf("got %v, %v; want it to wait", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := []corev1.PodResourceClaim{{Name: "named", ResourceClaimName: to("gpu")}, {Name: "made", ResourceClaimName: to("web-0-made-x")}}
			if diff := cmp.Diff(want, got.Spec.ResourceClaims); diff != "" {
				t.Errorf("claims: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(tc.pod.Spec.Containers[0].Resources, got.Spec.Containers[0].Resources); diff != "" {
				t.Errorf("resources: -want +got\n%s", diff)
			}
			// Once the pod exists it does not matter any more.
			super := got.DeepCopy()
			super.UID = "super-uid"
			w.remove(resource.Super, kindClaims, shop, "gpu")
			if _, err := decide(w, tc.pod, super); err != nil {
				t.Errorf("with a super pod: %v", err)
			}
			w.facts.Disabled = []string{kindClaims}
			if _, err := down(t, w, tc.pod); err == nil || err.Error() != "Unsupported: spec.resourceClaims[0]: "+whyClaims {
				t.Errorf("switched off: %v", err)
			}
		})
	}
	refs := References(pod(claiming, made))
	for _, name := range []string{"gpu", "web-0-made-x"} {
		if !slices.Contains(refs, resource.Ref{Kind: kindClaims, Namespace: shop, Name: name}) {
			t.Errorf("it does not refer to %s: %v", name, refs)
		}
	}
}

// A volume is the tenant's own: what the operator, or a predecessor, has under the name of its claim is never mounted.
func TestPodsMountTheirOwnClaims(t *testing.T) {
	mounting := volumes(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}})
	ephemeral := volumes(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}})
	put := func(side resource.Side, name string, o resource.Object) func(*world) {
		return func(w *world) { w.put(side, kindVolumeClaims, shop, name, o) }
	}
	owned := func(by types.UID) func(*world) {
		return put(resource.Tenant, "web-0-a", &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			UID: "of-tenant", OwnerReferences: []metav1.OwnerReference{{UID: by, Controller: to(true)}},
		}})
	}
	ending := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{UID: "of-tenant", DeletionTimestamp: &metav1.Time{Time: start}}}
	for name, tc := range map[string]struct {
		volume func(*corev1.Pod)
		edit   func(*world)
		// told is what the tenant is told at once and again when it lasts, later is what it is told only then.
		told, later string
	}{
		"Ready":              {volume: mounting, edit: func(*world) {}},
		"NotInTenant":        {mounting, func(w *world) { w.remove(resource.Tenant, kindVolumeClaims, shop, "data") }, `persistentvolumeclaim "data" not found`, ""},
		"BeingDeleted":       {mounting, put(resource.Tenant, "data", ending), `persistentvolumeclaim "data" is being deleted`, ""},
		"NotReplicated":      {mounting, func(w *world) { w.remove(resource.Super, kindVolumeClaims, shop, "data") }, "", `persistentvolumeclaim "data"`},
		"Operators":          {mounting, put(resource.Super, "data", operators()), "", `persistentvolumeclaim "data"`},
		"Predecessors":       {mounting, put(resource.Super, "data", replicaOf("older")), "", `persistentvolumeclaim "data"`},
		"Ephemeral":          {volume: ephemeral, edit: owned("tenant-uid")},
		"EphemeralNotYet":    {ephemeral, func(w *world) { w.remove(resource.Tenant, kindVolumeClaims, shop, "web-0-a") }, `waiting for ephemeral volume controller to create the persistentvolumeclaim "web-0-a"`, ""},
		"EphemeralOfOthers":  {ephemeral, owned("other"), `PVC "shop/web-0-a" was not created for pod "shop/web-0" (pod is not owner)`, ""},
		"EphemeralOperators": {ephemeral, func(w *world) { owned("tenant-uid")(w); put(resource.Super, "web-0-a", operators())(w) }, "", `persistentvolumeclaim "web-0-a"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.share(kindVolumeClaims, "data")
			w.share(kindVolumeClaims, "web-0-a")
			tc.edit(w)
			tenant := pod(tc.volume)
			ops, err := decide(w, tenant, nil)
			if tc.told == "" && tc.later == "" {
				if err != nil || len(ops) != 1 || ops[0].Verb != resource.Create {
					t.Errorf("got %v, %v; want a replica", summary(ops), err)
				}
				return
			}
			wait, waits := resource.AsWait(err)
			if !waits || wait.Told == nil || !strings.Contains(wait.Told.Message, tc.told+tc.later) {
				t.Fatalf("got %v, want it to wait for %s", err, tc.told+tc.later)
			}
			if tc.told != "" && *wait.Told != (resource.Reject{Reason: failedScheduling, Message: tc.told}) {
				t.Errorf("what is told again is %v", wait.Told)
			}
			if tc.told == "" {
				if len(ops) > 0 {
					t.Errorf("got %v", summary(ops))
				}
				return
			}
			told, _, err := w.apply(tenant, nil, ops[:1])
			if err != nil {
				t.Fatal(err)
			}
			if c := told.Status.Conditions; len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Reason != corev1.PodReasonUnschedulable || c[0].Message != tc.told {
				t.Errorf("conditions are %+v", c)
			}
			if event, ok := ops[1].Object.(*corev1.Event); !ok || event.Reason != failedScheduling || event.Message != tc.told {
				t.Errorf("the event is %+v", ops[1].Object)
			}
			if ops, _ := decide(w, told, nil); len(ops) > 0 {
				t.Errorf("told again: %v", summary(ops))
			}
			tenant.CreationTimestamp = metav1.NewTime(w.now)
			if ops, _ := decide(w, tenant, nil); len(ops) > 0 {
				t.Errorf("before the claim can be known: %v", summary(ops))
			}
			tenant.Spec.NodeName = node // nothing is scheduled then
			tenant.CreationTimestamp = metav1.Time{}
			ops, err = decide(w, tenant, nil)
			if wait, waits := resource.AsWait(err); len(ops) > 0 || !waits || wait.Told == nil || !strings.Contains(wait.Told.Message, tc.told) {
				t.Errorf("with a node: %v, %v", summary(ops), err)
			}
		})
	}
	if refs := References(pod(mounting)); !slices.Contains(refs, resource.Ref{Kind: kindVolumeClaims, Namespace: shop, Name: "data"}) {
		t.Errorf("it does not refer to its claim: %v", refs)
	}
	// Once the pod exists it does not matter any more.
	w := newWorld()
	w.share(kindVolumeClaims, "data")
	super := mustDown(t, w, pod(mounting))
	super.UID = "super-uid"
	w.remove(resource.Super, kindVolumeClaims, shop, "data")
	if _, err := decide(w, pod(mounting), super); err != nil {
		t.Errorf("with a super pod: %v", err)
	}
}

// Extended resources are a way to devices, too.
func TestExtendedResourcesOfDevices(t *testing.T) {
	class := func(label string) *resourcev1.DeviceClass {
		return &resourcev1.DeviceClass{ObjectMeta: public("gpu", label), Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: to("example.com/gpu")}}
	}
	for name, tc := range map[string]struct {
		label    string
		resource corev1.ResourceName
		disabled []string
		ok       bool
	}{
		"Class":              {"", "deviceclass.resource.kubernetes.io/gpu", nil, true},
		"HiddenClass":        {"false", "deviceclass.resource.kubernetes.io/gpu", nil, false},
		"UnknownClass":       {"", "deviceclass.resource.kubernetes.io/nic", nil, false},
		"SwitchedOff":        {"", "deviceclass.resource.kubernetes.io/gpu", []string{resource.DeviceClasses}, false},
		"OwnName":            {"", "example.com/gpu", nil, true},
		"HiddenOwnName":      {"false", "example.com/gpu", nil, false},
		"SwitchedOffOwnName": {"", "example.com/gpu", []string{resource.DeviceClasses}, false},
		"OfNoClass":          {"false", "example.com/other", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.facts.Disabled = tc.disabled
			w.put(resource.Super, resource.DeviceClasses, "", "gpu", class(tc.label))
			w.put(resource.Tenant, resource.DeviceClasses, "", "gpu", &resourcev1.DeviceClass{ObjectMeta: copyOf("gpu")})
			for _, init := range []bool{false, true} {
				in := pod(func(p *corev1.Pod) {
					c := corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{tc.resource: apiresource.MustParse("1")}}}
					if init {
						p.Spec.InitContainers = []corev1.Container{c}
					} else {
						p.Spec.Containers = append(p.Spec.Containers, c)
					}
				})
				_, err := down(t, w, in)
				if _, rejected := resource.AsReject(err); rejected == tc.ok {
					t.Errorf("init %v: got %v", init, err)
				}
			}
		})
	}
}
