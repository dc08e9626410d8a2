package resource_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const tenantID = names.TenantID("tenants-acme-aaaaaaaaaaaaa")

func key() resource.Key { return resource.Key{Tenant: tenantID, Namespace: "shop", Name: "conf"} }

// configMaps is the simplest kind.
func configMaps() *resource.Resource[*corev1.ConfigMap] {
	return &resource.Resource[*corev1.ConfigMap]{
		Name: "configmaps",
		GVK:  corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		New:  func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		Down: func(_ resource.View, in *corev1.ConfigMap) (*corev1.ConfigMap, error) {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Labels: in.Labels, Annotations: in.Annotations}, Data: in.Data}, nil
		},
		Merge: func(existing, want *corev1.ConfigMap) { existing.Data = want.Data },
	}
}

// view has the super namespace of shop, made for the tenant namespace with UID ns.
func view(edit ...func(super *corev1.Namespace)) resource.View {
	return viewOf("ns", edit...)
}

// viewOf does so for a tenant namespace with another UID.
func viewOf(uid types.UID, edit ...func(super *corev1.Namespace)) resource.View {
	super := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:        names.SuperNamespace(tenantID, "shop"),
		Labels:      map[string]string{names.LabelTenant: string(tenantID)},
		Annotations: map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "ns"},
	}}
	for _, f := range edit {
		f(super)
	}
	tenant := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: uid}}
	return resource.View{
		Tenant: resource.Facts{ID: tenantID},
		Get: func(side resource.Side, ref resource.Ref) resource.Object {
			switch {
			case ref != (resource.Ref{Kind: "namespaces", Name: "shop"}):
				return nil
			case side == resource.Super:
				return super
			default:
				return tenant
			}
		},
		Referenced:  func(resource.Ref) bool { return true },
		NodeAddress: func(string) bool { return false },
	}
}

func inTenant(edit ...func(*corev1.ConfigMap)) *corev1.ConfigMap {
	c := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "conf", UID: "new", ResourceVersion: "5", Labels: map[string]string{"app": "shop"}},
		Data:       map[string]string{"a": "1"},
	}
	for _, f := range edit {
		f(c)
	}
	return c
}

func inSuper(edit ...func(*corev1.ConfigMap)) *corev1.ConfigMap {
	c := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: names.SuperNamespace(tenantID, "shop"), Name: "conf", UID: "super", ResourceVersion: "7",
			Labels:      map[string]string{"app": "shop", names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer},
			Annotations: map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "new", names.AnnotationKeys: "l:app"},
		},
		Data: map[string]string{"a": "1"},
	}
	for _, f := range edit {
		f(c)
	}
	return c
}

func deleting(c *corev1.ConfigMap) {
	now, grace := metav1.Now(), int64(7)
	c.DeletionTimestamp, c.DeletionGracePeriodSeconds = &now, &grace
}

func older(c *corev1.ConfigMap)   { c.Annotations[names.AnnotationUID] = "old" }
func notOurs(c *corev1.ConfigMap) { delete(c.Annotations, names.AnnotationUID) }
func othersTenant(c *corev1.ConfigMap) {
	c.Labels[names.LabelTenant] = "somebody-else"
}

type step struct {
	Verb   resource.Verb
	Side   resource.Side
	Why    string
	Absent bool
}

func TestDecideMatrix(t *testing.T) {
	type args struct {
		tenant, super *corev1.ConfigMap
	}
	for name, tc := range map[string]struct {
		reason string
		args   args
		want   []step
		reject string
	}{
		"Nothing":                          {"nothing to do", args{nil, nil}, nil, ""},
		"TenantOnly":                       {"a replica is missing", args{inTenant(), nil}, []step{{Verb: resource.Create, Side: resource.Super, Why: resource.Missing}}, ""},
		"InSync":                           {"merging changes nothing", args{inTenant(), inSuper()}, nil, ""},
		"Drifted":                          {"data differs", args{inTenant(), inSuper(func(c *corev1.ConfigMap) { c.Data["a"] = "2" })}, []step{{Verb: resource.Patch, Side: resource.Super, Why: resource.Drifted}}, ""},
		"OlderUID":                         {"the tenant object was created again", args{inTenant(), inSuper(older)}, []step{{Verb: resource.Delete, Side: resource.Super, Why: resource.Replaced}}, ""},
		"NotOurs":                          {"what is not ours is never written", args{inTenant(), inSuper(notOurs)}, nil, "NameTaken"},
		"AnotherTenants":                   {"what is another tenant's is never written", args{inTenant(), inSuper(othersTenant)}, nil, "NameTaken"},
		"SuperDeleting":                    {"wait for the end", args{inTenant(), inSuper(deleting)}, nil, ""},
		"SuperDeletingOlder":               {"wait for the end", args{inTenant(), inSuper(deleting, older)}, nil, ""},
		"SuperDeletingNotOurs":             {"never ours", args{inTenant(), inSuper(deleting, notOurs)}, nil, "NameTaken"},
		"TenantDeleting":                   {"it is not gone yet", args{inTenant(deleting), inSuper()}, nil, ""},
		"TenantDeletingDrifted":            {"until it is gone it is what it was", args{inTenant(deleting), inSuper(func(c *corev1.ConfigMap) { c.Data["a"] = "2" })}, []step{{Verb: resource.Patch, Side: resource.Super, Why: resource.Drifted}}, ""},
		"TenantDeletingOlder":              {"the older one is gone", args{inTenant(deleting), inSuper(older)}, []step{{Verb: resource.Delete, Side: resource.Super, Why: resource.Replaced}}, ""},
		"TenantDeletingNotOurs":            {"never delete what is not ours", args{inTenant(deleting), inSuper(notOurs)}, nil, "NameTaken"},
		"TenantDeletingNoReplica":          {"do not create", args{inTenant(deleting), nil}, nil, ""},
		"TenantDeletingSuperDeleting":      {"once is enough", args{inTenant(deleting), inSuper(deleting)}, nil, ""},
		"TenantDeletingSuperDeletingOlder": {"once is enough", args{inTenant(deleting), inSuper(deleting, older)}, nil, ""},
		"SuperOnly":                        {"orphaned", args{nil, inSuper()}, []step{{Verb: resource.Delete, Side: resource.Super, Why: resource.Orphaned, Absent: true}}, ""},
		"SuperOnlyOlder":                   {"orphaned", args{nil, inSuper(older)}, []step{{Verb: resource.Delete, Side: resource.Super, Why: resource.Orphaned, Absent: true}}, ""},
		"SuperOnlyNotOurs":                 {"never delete what is not ours", args{nil, inSuper(notOurs)}, nil, ""},
		"SuperOnlyAnotherTenants":          {"never delete what is another's", args{nil, inSuper(othersTenant)}, nil, ""},
		"SuperOnlyDeleting":                {"it goes already", args{nil, inSuper(deleting)}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := []*corev1.ConfigMap{tc.args.tenant.DeepCopy(), tc.args.super.DeepCopy()}
			ops, err := configMaps().Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: tc.args.tenant, Super: tc.args.super})
			var got []step
			for _, op := range ops {
				got = append(got, step{op.Verb, op.Side, op.Why, op.Absent})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
			reject, _ := resource.AsReject(err)
			if (tc.reject != "") != (reject != nil) || (reject != nil && reject.Reason != tc.reject) {
				t.Errorf("%s: error is %v, want reason %q", tc.reason, err, tc.reject)
			}
			if diff := cmp.Diff(before, []*corev1.ConfigMap{tc.args.tenant, tc.args.super}); diff != "" {
				t.Errorf("the inputs were changed: %s", diff)
			}
		})
	}
}

func ahead(c *corev1.ConfigMap) { c.Annotations[names.AnnotationUID] = names.UIDAhead }
func stays(c *corev1.ConfigMap) { c.Labels["stays"] = "true" }

// What was made ahead, and what the kind says, is taken over by the next object of that name, and not deleted before.
func TestDecideTakesOver(t *testing.T) {
	update := []step{{Verb: resource.Patch, Side: resource.Super, Why: resource.Drifted}}
	for name, tc := range map[string]struct {
		tenant, super *corev1.ConfigMap
		unneeded      bool
		withOrigin    bool
		want          []step
		reject        string
	}{
		"Ahead":                  {tenant: inTenant(), super: inSuper(ahead), want: update},
		"AheadAlone":             {super: inSuper(ahead)},
		"AheadUnneeded":          {tenant: inTenant(), super: inSuper(ahead), unneeded: true},
		"AheadTenantDeleting":    {tenant: inTenant(deleting), super: inSuper(ahead), withOrigin: true},
		"AheadDeleting":          {tenant: inTenant(), super: inSuper(ahead, deleting)},
		"AheadOfAnother":         {tenant: inTenant(), super: inSuper(ahead, othersTenant), reject: "NameTaken"},
		"AheadOfNobody":          {tenant: inTenant(), super: inSuper(ahead, func(c *corev1.ConfigMap) { delete(c.Labels, names.LabelTenant) }), reject: "NameTaken"},
		"AheadElsewhere":         {tenant: inTenant(), super: inSuper(ahead, func(c *corev1.ConfigMap) { c.Annotations[names.AnnotationNamespace] = "x" }), reject: "NameTaken"},
		"Stays":                  {tenant: inTenant(), super: inSuper(stays)},
		"StaysOlder":             {tenant: inTenant(), super: inSuper(stays, older), want: update},
		"StaysOlderAlone":        {super: inSuper(stays, older)},
		"StaysAlone":             {super: inSuper(stays)},
		"StaysUnneeded":          {tenant: inTenant(), super: inSuper(stays), unneeded: true},
		"StaysTenantDeleting":    {tenant: inTenant(deleting), super: inSuper(stays), withOrigin: true},
		"StaysNotOurs":           {tenant: inTenant(), super: inSuper(stays, notOurs), reject: "NameTaken"},
		"OriginNamedAhead":       {tenant: inTenant(namedAhead), reject: "Unsupported"},
		"OriginNamedAheadBeside": {tenant: inTenant(namedAhead), super: inSuper(), reject: "Unsupported"},
		"OriginNamedAheadTakes":  {tenant: inTenant(namedAhead), super: inSuper(ahead), reject: "Unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			r := configMaps()
			r.Stays = func(c *corev1.ConfigMap) bool { return c.Labels["stays"] != "" }
			r.Needed = func(resource.View, *corev1.ConfigMap) bool { return !tc.unneeded }
			r.DeleteWithOrigin = tc.withOrigin
			r.Up = func(_ resource.View, p resource.Pair[*corev1.ConfigMap]) ([]resource.Op, error) {
				if uid := p.Super.Annotations[names.AnnotationUID]; uid != "new" {
					t.Errorf("something flows back from what was made for %q", uid)
				}
				return nil, nil
			}
			ops, err := r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: tc.tenant, Super: tc.super})
			var got []step
			for _, op := range ops {
				got = append(got, step{op.Verb, op.Side, op.Why, op.Absent})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			reject, _ := resource.AsReject(err)
			if (tc.reject != "") != (reject != nil) || (reject != nil && reject.Reason != tc.reject) {
				t.Errorf("error is %v, want reason %q", err, tc.reject)
			}
			if len(ops) == 0 {
				return
			}
			after := apply(t, tc.super, ops[0].Patch)
			if after.Annotations[names.AnnotationUID] != "new" || after.UID != "super" {
				t.Errorf("it becomes %v", after.ObjectMeta)
			}
			if again, err := r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: tc.tenant, Super: after}); err != nil || len(again) > 0 {
				t.Errorf("deciding again gives %v, %v; want nothing", again, err)
			}
		})
	}
}

// namedAhead is what the API server of a tenant may call an object.
func namedAhead(c *corev1.ConfigMap) { c.UID = names.UIDAhead }

// What the super cluster is the truth of lies in the tenant, who may write there what it likes.
func TestDecideTakesNothingOverInTheTenant(t *testing.T) {
	r := configMaps()
	r.Origin = resource.Super
	r.Stays = func(*corev1.ConfigMap) bool { return true }
	for name, origin := range map[string]*corev1.ConfigMap{"Alone": nil, "Beside": inSuper(func(c *corev1.ConfigMap) { c.Annotations = nil })} {
		ops, err := r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(func(c *corev1.ConfigMap) {
			c.Annotations = map[string]string{names.AnnotationUID: names.UIDAhead}
		}), Super: origin})
		if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete {
			t.Errorf("%s: got %+v, %v", name, ops, err)
		}
	}
}

// Attack M-01: nothing that a tenant writes under a reserved key survives.
func TestDecideStampsOwnershipLast(t *testing.T) {
	forged := inTenant(func(c *corev1.ConfigMap) {
		c.Labels[names.LabelTenant] = "victim"
		c.Annotations = map[string]string{names.AnnotationNamespace: "kube-system", names.AnnotationUID: "forged", names.Prefix + "other": "x", "fine": "y"}
	})
	ops, err := configMaps().Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: forged})
	if err != nil || len(ops) != 1 {
		t.Fatalf("got %v, %v", ops, err)
	}
	got := ops[0].Object
	if diff := cmp.Diff(map[string]string{"app": "shop", names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer}, got.GetLabels()); diff != "" {
		t.Errorf("labels: -want +got\n%s", diff)
	}
	want := map[string]string{"fine": "y", names.AnnotationNamespace: "shop", names.AnnotationUID: "new", names.AnnotationKeys: "a:fine,l:app"}
	if diff := cmp.Diff(want, got.GetAnnotations()); diff != "" {
		t.Errorf("annotations: -want +got\n%s", diff)
	}
	if got.GetNamespace() != names.SuperNamespace(tenantID, "shop") {
		t.Errorf("namespace is %s", got.GetNamespace())
	}
}

// Invariant 2 of the name mapping: the super namespace must prove to be the one made for this tenant namespace.
func TestDecideWritesOnlyIntoItsOwnNamespace(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Namespace){
		"AnotherTenants":   func(n *corev1.Namespace) { n.Labels[names.LabelTenant] = "victim" },
		"AnotherNamespace": func(n *corev1.Namespace) { n.Annotations[names.AnnotationNamespace] = "other" },
		"OlderUID":         func(n *corev1.Namespace) { n.Annotations[names.AnnotationUID] = "old" },
		"Ahead":            func(n *corev1.Namespace) { n.Annotations[names.AnnotationUID] = names.UIDAhead },
		"Deleting":         func(n *corev1.Namespace) { now := metav1.Now(); n.DeletionTimestamp = &now },
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := configMaps().Decide(view(edit), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant()})
			if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
				t.Errorf("got %v, %v; want to wait", ops, err)
			}
		})
	}
}

// A namespace that was made ahead is nobody's yet, whatever the tenant's API server calls its own.
func TestDecideWritesNothingIntoNamespacesMadeAhead(t *testing.T) {
	v := viewOf(names.UIDAhead, func(n *corev1.Namespace) { n.Annotations[names.AnnotationUID] = names.UIDAhead })
	ops, err := configMaps().Decide(v, key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant()})
	if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
		t.Errorf("got %v, %v; want to wait", ops, err)
	}
	if v.Replicated(resource.Ref{Kind: "namespaces", Name: "shop"}) {
		t.Error("it is taken for a replica")
	}
}

func TestPatchRemovesOnlyWhatWeSet(t *testing.T) {
	super := inSuper(func(c *corev1.ConfigMap) {
		c.Labels["removed-by-tenant"] = "x"
		c.Annotations["somebody-elses"] = "kept"
		c.Annotations[names.AnnotationKeys] = "l:app,l:removed-by-tenant"
		c.Data = map[string]string{"a": "1", "gone": "x"}
	})
	ops, err := configMaps().Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(), Super: super})
	if err != nil || len(ops) != 1 {
		t.Fatalf("got %v, %v", ops, err)
	}
	var body struct {
		Metadata struct{ UID, ResourceVersion string }
	}
	if err := json.Unmarshal(ops[0].Patch, &body); err != nil {
		t.Fatal(err)
	}
	if body.Metadata.UID != "super" || body.Metadata.ResourceVersion != "7" {
		t.Errorf("patch %s carries no preconditions", ops[0].Patch)
	}
	after := apply(t, super, ops[0].Patch)
	if diff := cmp.Diff(inSuper(func(c *corev1.ConfigMap) { c.Annotations["somebody-elses"] = "kept" }), after); diff != "" {
		t.Errorf("after the patch: -want +got\n%s", diff)
	}
	again, err := configMaps().Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(), Super: after})
	if err != nil || len(again) > 0 {
		t.Errorf("deciding again gives %v, %v; want nothing", again, err)
	}
}

func apply(t *testing.T, o *corev1.ConfigMap, patch []byte) *corev1.ConfigMap {
	t.Helper()
	before, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := strategicpatch.StrategicMergePatch(before, patch, o)
	if err != nil {
		t.Fatal(err)
	}
	after := &corev1.ConfigMap{}
	if err := json.Unmarshal(raw, after); err != nil {
		t.Fatal(err)
	}
	return after
}

func TestNotNeededIsDeleted(t *testing.T) {
	r := configMaps()
	r.Needed = func(resource.View, *corev1.ConfigMap) bool { return false }
	ops, err := r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(), Super: inSuper()})
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Why != resource.Unwanted || ops[0].Absent {
		t.Errorf("got %+v, %v", ops, err)
	}
	if ops, err = r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant()}); err != nil || len(ops) > 0 {
		t.Errorf("without a replica: got %+v, %v", ops, err)
	}
}

// Of kinds whose replicas end with their origin, the end begins with the deletion.
func TestDeleteWithOriginCarriesTheGracePeriodOfTheTenant(t *testing.T) {
	r := configMaps()
	r.DeleteWithOrigin = true
	ops, err := r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(deleting), Super: inSuper()})
	if err != nil || len(ops) != 1 || ops[0].Grace == nil || *ops[0].Grace != 7 {
		t.Errorf("got %+v, %v", ops, err)
	}
}

// What holds data can be held back, and its deletion rests on what was read.
func TestHold(t *testing.T) {
	for name, tc := range map[string]struct {
		pair resource.Pair[*corev1.ConfigMap]
		why  string
	}{
		"Orphaned": {resource.Pair[*corev1.ConfigMap]{Super: inSuper()}, resource.Orphaned},
		"Replaced": {resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(), Super: inSuper(older)}, resource.Replaced},
	} {
		t.Run(name, func(t *testing.T) {
			r := configMaps()
			r.Hold = func(resource.View, *corev1.ConfigMap) ([]resource.Object, error) {
				return nil, resource.Waiting(time.Second, "x")
			}
			ops, err := r.Decide(view(), key(), tc.pair)
			if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
				t.Errorf("held: got %+v, %v", ops, err)
			}
			r.Hold = func(resource.View, *corev1.ConfigMap) ([]resource.Object, error) {
				return []resource.Object{inTenant()}, nil
			}
			ops, err = r.Decide(view(), key(), tc.pair)
			if err != nil || len(ops) != 1 || ops[0].Why != tc.why || len(ops[0].RestsOn) != 1 || ops[0].Object == nil {
				t.Errorf("released: got %+v, %v", ops, err)
			}
		})
	}
}

// A refusal of a part concerns that part: what else changes flows, and nothing new is made.
func TestPartlyRefused(t *testing.T) {
	r := configMaps()
	down := r.Down
	r.Down = func(v resource.View, in *corev1.ConfigMap) (*corev1.ConfigMap, error) {
		out, err := down(v, in)
		return out, errors.Join(err, resource.Rejected("Part", "a part is not allowed"))
	}
	for name, tc := range map[string]struct {
		super *corev1.ConfigMap
		ops   int
	}{
		"New": {nil, 0}, "InSync": {inSuper(), 0},
		"Drifted": {inSuper(func(c *corev1.ConfigMap) { c.Data["a"] = "2" }), 1},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := r.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(), Super: tc.super})
			if reject, ok := resource.AsReject(err); !ok || reject.Reason != "Part" || len(ops) != tc.ops {
				t.Errorf("got %+v, %v; want %d operations and the refusal", ops, err, tc.ops)
			}
		})
	}
}

// When a change of a spec cannot be had, labels and annotations still have a way.
func TestMetadataHasAPatchOfItsOwn(t *testing.T) {
	relabelled := func(c *corev1.ConfigMap) { c.Labels["app"] = "other" }
	changed := func(c *corev1.ConfigMap) { c.Data["a"] = "2" }
	for name, tc := range map[string]struct {
		super, after *corev1.ConfigMap
	}{
		"Both":         {inSuper(relabelled, changed), inSuper(changed)},
		"MetadataOnly": {inSuper(relabelled), inSuper()},
		"DataOnly":     {inSuper(changed), nil},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := configMaps().Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: inTenant(), Super: tc.super})
			if err != nil || len(ops) != 1 || (ops[0].MetadataPatch == nil) != (tc.after == nil) {
				t.Fatalf("got %+v, %v", ops, err)
			}
			if tc.after == nil {
				return
			}
			if diff := cmp.Diff(tc.after, apply(t, tc.super, ops[0].MetadataPatch)); diff != "" {
				t.Errorf("after that patch: -want +got\n%s", diff)
			}
		})
	}
}

func TestReplicated(t *testing.T) {
	ref := resource.Ref{Kind: "persistentvolumeclaims", Namespace: "shop", Name: "data"}
	for name, tc := range map[string]struct {
		tenant, super *corev1.ConfigMap
		want          bool
	}{
		"Replica":       {inTenant(), inSuper(), true},
		"Predecessors":  {inTenant(), inSuper(older), false},
		"Operators":     {inTenant(), inSuper(notOurs), false},
		"NotInTenant":   {nil, inSuper(), false},
		"NotReplicated": {inTenant(), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := view()
			v.Get = func(side resource.Side, _ resource.Ref) resource.Object {
				of := map[resource.Side]*corev1.ConfigMap{resource.Tenant: tc.tenant, resource.Super: tc.super}[side]
				if of == nil {
					return nil
				}
				return of
			}
			if got := v.Replicated(ref); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestErrorsAreRecognisedWhenWrapped(t *testing.T) {
	wait := errors.Join(resource.Waiting(time.Second, "x"))
	if _, ok := resource.AsWait(wait); !ok {
		t.Error("a wrapped Wait is not recognised")
	}
	reject := errors.Join(resource.Rejected("No", "because"))
	if r, ok := resource.AsReject(reject); !ok || r.Reason != "No" || r.Message != "because" {
		t.Error("a wrapped Reject is not recognised")
	}
}

func TestForTenantHidesSuperNames(t *testing.T) {
	super, long := names.SuperNamespace(tenantID, "shop"), strings.Repeat("l", 253)
	refs := func() []resource.Ref {
		return []resource.Ref{
			{Kind: "configmaps", Namespace: "shop", Name: "kube-root-ca.crt"}, {Kind: "secrets", Namespace: "shop", Name: "db"},
			{Kind: "secrets", Namespace: "shop", Name: long}, {Kind: "services", Namespace: "shop", Name: "web"}, {Kind: "nodes"},
		}
	}
	db := names.SuperSecret("db")
	for name, tc := range map[string]struct{ text, want string }{
		"Namespace":     {"not found in " + super, "not found in shop"},
		"NotFound":      {`secret "` + db + `" not found`, `secret "db" not found`},
		"Mount":         {`MountVolume.SetUp failed for volume "ca" : configmap "` + names.SuperConfigMap("kube-root-ca.crt") + `" not found`, `MountVolume.SetUp failed for volume "ca" : configmap "kube-root-ca.crt" not found`},
		"NoKey":         {"couldn't find key k in Secret " + super + "/" + db, "couldn't find key k in Secret shop/db"},
		"PullSecrets":   {"Unable to retrieve some image pull secrets (" + db + ", " + names.SuperSecret(long) + "); attempting", "Unable to retrieve some image pull secrets (db, " + long + "); attempting"},
		"EndOfSentence": {"There is no " + db + ".", "There is no db."},
		"Twice":         {db + " and " + db, "db and db"},
		"Service":       {"Service " + names.AbsentService("web") + " not found", "Service web not found"},
		"LongerBefore":  {"my-" + db + " x." + db, "my-" + db + " x." + db},
		"LongerAfter":   {db + "n " + db + ".example.com", db + "n " + db + ".example.com"},
		"Unknown":       {names.SuperSecret("other"), names.SuperSecret("other")},
		"Words":         {"lookup db.tenant: no such host", "lookup db.tenant: no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := view().ForTenant(tc.text, "shop", refs); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if got := view().ForTenant(db, "shop", nil); got != db {
		t.Errorf("without references: %q", got)
	}
}

// A kind that is switched off for a tenant has no replicas, writes nothing, and is nobody's concern.
func TestDecideDisabled(t *testing.T) {
	kind := configMaps()
	kind.Up = func(resource.View, resource.Pair[*corev1.ConfigMap]) ([]resource.Op, error) {
		return []resource.Op{{Verb: resource.PatchStatus}}, nil
	}
	off := view()
	off.Tenant.Disabled = []string{"configmaps"}
	for name, tc := range map[string]struct {
		tenant, super *corev1.ConfigMap
		want          []resource.Verb
	}{
		"Missing":  {inTenant(), nil, nil},
		"InSync":   {inTenant(), inSuper(), []resource.Verb{resource.Delete}},
		"OlderUID": {inTenant(), inSuper(older), []resource.Verb{resource.Delete}},
		"Orphaned": {nil, inSuper(), []resource.Verb{resource.Delete}},
		"NotOurs":  {inTenant(), inSuper(notOurs), nil},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := kind.Decide(off, key(), resource.Pair[*corev1.ConfigMap]{Tenant: tc.tenant, Super: tc.super})
			var got []resource.Verb
			for _, op := range ops {
				got = append(got, op.Verb)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
				t.Errorf("%v; -want +got\n%s", err, diff)
			}
		})
	}
}

// What flows back comes from the replica of the very object: not from a predecessor's, and not from what is not ours.
func TestOnlyPairsFlowBack(t *testing.T) {
	kind := configMaps()
	follow := func(why string) func(resource.View, resource.Pair[*corev1.ConfigMap]) ([]resource.Op, error) {
		return func(resource.View, resource.Pair[*corev1.ConfigMap]) ([]resource.Op, error) {
			return []resource.Op{{Verb: resource.PatchStatus, Why: why}}, nil
		}
	}
	kind.Up, kind.Unpaired = follow("Paired"), follow("Unpaired")
	ofTenants := func(c *corev1.ConfigMap) { c.Labels[names.LabelTenant] = "" }
	for name, tc := range map[string]struct {
		origin        resource.Side
		tenant, super *corev1.ConfigMap
		want          string
	}{
		"Pair":             {resource.Tenant, inTenant(), inSuper(), "Paired"},
		"Deleting":         {resource.Tenant, inTenant(deleting), inSuper(deleting), "Paired"},
		"Predecessors":     {resource.Tenant, inTenant(), inSuper(older), "Unpaired"},
		"Operators":        {resource.Tenant, inTenant(), inSuper(notOurs), "Unpaired"},
		"AnotherTenants":   {resource.Tenant, inTenant(), inSuper(othersTenant), "Unpaired"},
		"NotInSuper":       {resource.Tenant, inTenant(), nil, "Unpaired"},
		"NotInTenant":      {resource.Tenant, nil, inSuper(), "Unpaired"},
		"OfSuper":          {resource.Super, inSuper(ofTenants), inTenant(func(c *corev1.ConfigMap) { c.UID = "new" }), "Paired"},
		"OfSuperNewer":     {resource.Super, inSuper(ofTenants), inTenant(func(c *corev1.ConfigMap) { c.UID = "newer" }), "Unpaired"},
		"TenantsOwn":       {resource.Super, inTenant(), inTenant(), "Unpaired"},
		"SuperHasNoOrigin": {resource.Super, inSuper(ofTenants), nil, "Unpaired"},
	} {
		t.Run(name, func(t *testing.T) {
			kind.Origin = tc.origin
			ops, _ := kind.Decide(view(), key(), resource.Pair[*corev1.ConfigMap]{Tenant: tc.tenant, Super: tc.super})
			if len(ops) == 0 || ops[len(ops)-1].Why != tc.want {
				t.Errorf("got %+v, want it to end with %s", ops, tc.want)
			}
		})
	}
}

func TestReportStatus(t *testing.T) {
	tenant := &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "u", ResourceVersion: "3"}}
	same, err := resource.ReportStatus(tenant, func(*corev1.Service) {})
	if err != nil || same != nil {
		t.Errorf("nothing changes: %+v, %v", same, err)
	}
	ops, err := resource.ReportStatus(tenant, func(to *corev1.Service) {
		to.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	})
	if err != nil || len(ops) != 1 || ops[0].Side != resource.Tenant || ops[0].Verb != resource.PatchStatus || ops[0].Object != tenant {
		t.Fatalf("got %+v, %v", ops, err)
	}
	if want := `{"metadata":{"uid":"u"},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`; string(ops[0].Patch) != want {
		t.Errorf("patch is %s, want %s", ops[0].Patch, want)
	}
	if len(tenant.Status.LoadBalancer.Ingress) > 0 {
		t.Error("the cached object was changed")
	}
}

// Nobody waits in silence: a Wait that says nothing of itself says that it lasts.
func TestEveryWaitHasANotice(t *testing.T) {
	for name, tc := range map[string]struct {
		err          error
		reason, says string
	}{
		"Silent":  {resource.Waiting(time.Second, "the super namespace vc-x"), "Delayed", "ask the operator"},
		"Blocked": {resource.Blocked(time.Second, "Waiting", "Secret %q", "db"), "Waiting", `Waiting for Secret "db"`},
	} {
		wait, ok := resource.AsWait(tc.err)
		if !ok {
			t.Fatalf("%s is no Wait", name)
		}
		if n := wait.Notice(); n.Reason != tc.reason || !strings.Contains(n.Message, tc.says) || strings.Contains(n.Message, "vc-x") {
			t.Errorf("%s: %v", name, n)
		}
	}
}

// A replica whose label somebody took away is recognised by its annotations, and gets it back. Nothing else is written.
func TestReplicasGetTheirLabelsBack(t *testing.T) {
	unlabelled := func(c *corev1.ConfigMap) { delete(c.Labels, names.LabelTenant) }
	elsewhere := func(c *corev1.ConfigMap) { c.Annotations[names.AnnotationNamespace] = "other" }
	renamed := func(c *corev1.ConfigMap) { c.Annotations[names.AnnotationName] = "other" }
	foreign := func(super *corev1.Namespace) { super.Labels = nil }
	for name, tc := range map[string]struct {
		tenant, super *corev1.ConfigMap
		view          resource.View
		want          []step
		refused       bool
	}{
		"Unlabelled":         {inTenant(), inSuper(unlabelled), view(), []step{{Verb: resource.Patch, Side: resource.Super, Why: resource.Relabelled}}, false},
		"Deleting":           {inTenant(deleting), inSuper(unlabelled), view(), []step{{Verb: resource.Patch, Side: resource.Super, Why: resource.Relabelled}}, false},
		"Predecessors":       {inTenant(), inSuper(unlabelled, older), view(), nil, true},
		"Operators":          {inTenant(), inSuper(unlabelled, notOurs), view(), nil, true},
		"OfAnotherNamespace": {inTenant(), inSuper(unlabelled, elsewhere), view(), nil, true},
		"OfAnotherName":      {inTenant(), inSuper(unlabelled, renamed), view(), nil, true},
		"NotInOurNamespace":  {inTenant(), inSuper(unlabelled), view(foreign), nil, false}, // it waits
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := configMaps().Decide(tc.view, key(), resource.Pair[*corev1.ConfigMap]{Tenant: tc.tenant, Super: tc.super})
			var got []step
			for _, op := range ops {
				got = append(got, step{op.Verb, op.Side, op.Why, op.Absent})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if _, refused := resource.AsReject(err); refused != tc.refused {
				t.Errorf("got %v", err)
			}
			if len(ops) > 0 {
				if diff := cmp.Diff(inSuper(), apply(t, inSuper(unlabelled), ops[0].Patch)); diff != "" {
					t.Errorf("after the patch: -want +got\n%s", diff)
				}
			}
		})
	}
}
