package resources

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// streamRights is the name of the RoleBinding, in each super namespace, that lets vn-agent stream from its pods.
const streamRights = "vn-agent-streams"

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch;create;patch;delete

// Namespaces makes one super namespace for each tenant namespace. Nothing of the tenant's labels and annotations goes
// down, because in the super cluster they select policies. The super namespace goes when the tenant's is gone, and the
// tenant empties it first.
func Namespaces(agentNamespace string) resource.Kind {
	return resource.Of(resource.Resource[*corev1.Namespace]{
		Name:    "namespaces",
		GVK:     corev1.SchemeGroupVersion.WithKind("Namespace"),
		Cluster: true,
		New:     func() *corev1.Namespace { return &corev1.Namespace{} },
		// What is in a namespace goes with it.
		Precious: true,
		Hold:     namespaceHold,
		// What selects namespaces by their labels depends on all of them.
		AffectsAllReferrers: func(old, now *corev1.Namespace) bool {
			return old == nil || now == nil || !maps.Equal(old.Labels, now.Labels)
		},
		// The super cluster enforces the Pod Security level, whatever the syncer lets through.
		Down: func(v resource.View, _ *corev1.Namespace) (*corev1.Namespace, error) {
			return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{psa.EnforceLevelLabel: string(v.Tenant.PodSecurity)}}}, nil
		},
		Merge: func(_, _ *corev1.Namespace) {}, // labels and annotations are all there is
		Up: func(v resource.View, p resource.Pair[*corev1.Namespace]) ([]resource.Op, error) {
			return grantStreams(v, p, agentNamespace), nil
		},
	})
}

// grantStreams gives vn-agent its rights in a super namespace.
func grantStreams(v resource.View, p resource.Pair[*corev1.Namespace], agentNamespace string) []resource.Op {
	if p.Super.DeletionTimestamp != nil {
		return nil
	}
	if v.Get(resource.Super, resource.Ref{Kind: kindStreamRights, Namespace: p.Tenant.Name, Name: streamRights}) != nil {
		return nil
	}
	return []resource.Op{{Side: resource.Super, Verb: resource.Create, Why: resource.Missing, Object: &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   p.Super.Name,
			Name:        streamRights,
			Labels:      map[string]string{names.LabelTenant: string(v.Tenant.ID), names.LabelManagedBy: names.Syncer},
			Annotations: map[string]string{names.AnnotationNamespace: p.Tenant.Name, names.AnnotationUID: string(p.Tenant.UID)},
		},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: names.VNAgentStreamsRole},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: agentNamespace, Name: names.VNAgentServiceAccount}},
	}}}
}

const kindStreamRights = "rolebindings"

// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=vc-vn-agent-streams,verbs=bind

// StreamRights watches the RoleBindings that Namespaces makes, so that one that is removed comes back.
func StreamRights() resource.Kind {
	return resource.Of(resource.Resource[*rbacv1.RoleBinding]{
		Name:      kindStreamRights,
		GVK:       rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
		SuperOnly: true,
		New:       func() *rbacv1.RoleBinding { return &rbacv1.RoleBinding{} },
		Route: func(super *rbacv1.RoleBinding) (resource.Ref, bool) {
			return resource.Ref{Kind: "namespaces", Name: super.Annotations[names.AnnotationNamespace]}, true
		},
	})
}
