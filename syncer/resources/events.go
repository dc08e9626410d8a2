package resources

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

// oldEvent is the age past which an event of the super cluster is not told any more: the tenant heard it from the
// syncer that ran then.
const oldEvent = 10 * time.Minute

// youngEvent is the age up to which an event may be ahead of what it is about: they come by different watches.
const youngEvent = 30 * time.Second

// +kubebuilder:rbac:groups="",resources=events,verbs=get;list;watch

// Events records in the tenant what the super cluster reports about its objects: what the scheduler and the kubelet
// say of a pod, what a load balancer says of a service.
func Events() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Event]{
		Name:          "events",
		GVK:           corev1.SchemeGroupVersion.WithKind("Event"),
		New:           func() *corev1.Event { return &corev1.Event{} },
		Origin:        resource.Super,
		SuperOnly:     true,
		Passing:       true,
		SuperSelector: resource.Selector{Fields: "metadata.namespace!=" + metav1.NamespaceSystem},
		Unpaired:      eventUp,
	})
}

func eventUp(v resource.View, p resource.Pair[*corev1.Event]) ([]resource.Op, error) {
	in := p.Super
	if in == nil || v.Now.Sub(lastSeen(in)) > oldEvent {
		return nil, nil
	}
	kind, ok := map[string]string{
		"Pod": "pods", "Service": "services", "PersistentVolumeClaim": "persistentvolumeclaims", "Ingress": "ingresses",
	}[in.InvolvedObject.Kind]
	if !ok {
		return nil, nil
	}
	if strings.Contains(in.InvolvedObject.FieldPath, names.HostsContainer) {
		return nil, nil // the tenant does not know that container
	}
	namespace := v.Key.Namespace
	if owner := v.Get(resource.Tenant, resource.Ref{Kind: "namespaces", Name: namespace}); owner != nil && owner.GetDeletionTimestamp() != nil {
		return nil, nil // nothing new can be recorded there
	}
	about := resource.Ref{Kind: kind, Namespace: namespace, Name: in.InvolvedObject.Name}
	tenant, super := v.Get(resource.Tenant, about), v.Get(resource.Super, about)
	if tenant == nil || super == nil || super.GetUID() != in.InvolvedObject.UID ||
		super.GetAnnotations()[names.AnnotationUID] != string(tenant.GetUID()) {
		if v.Now.Sub(lastSeen(in)) < youngEvent {
			return nil, resource.Waiting(time.Second, "%s %s/%s, which an event is about", kind, namespace, about.Name)
		}
		return nil, nil // about an object that is not there any more
	}
	if pod, ok := tenant.(*corev1.Pod); ok && strings.Contains(in.Message, pods.TokenSecret(pod)) {
		return nil, nil // the kubelet was there before the tokens, and tries again
	}
	out := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: in.Name},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: in.InvolvedObject.APIVersion, Kind: in.InvolvedObject.Kind, FieldPath: in.InvolvedObject.FieldPath,
			Namespace: namespace, Name: tenant.GetName(), UID: tenant.GetUID(), ResourceVersion: tenant.GetResourceVersion(),
		},
		Type: in.Type, Reason: in.Reason, Message: v.ForTenant(in.Message, namespace, func() []resource.Ref { return refersTo(tenant) }), Action: in.Action,
		Source: in.Source, ReportingController: in.ReportingController, ReportingInstance: in.ReportingInstance,
		FirstTimestamp: in.FirstTimestamp, LastTimestamp: in.LastTimestamp, EventTime: in.EventTime,
		Count: in.Count, Series: in.Series,
	}
	return []resource.Op{{Side: resource.Tenant, Verb: resource.Record, Object: out, Why: in.Reason}}, nil
}

// refersTo lists what an object that events are about refers to.
func refersTo(tenant resource.Object) []resource.Ref {
	switch o := tenant.(type) {
	case *corev1.Pod:
		return pods.References(o)
	case *networkingv1.Ingress:
		return ingressReferences(o)
	default:
		return nil
	}
}

func lastSeen(e *corev1.Event) time.Time {
	seen := e.LastTimestamp.Time
	if e.EventTime.After(seen) {
		seen = e.EventTime.Time
	}
	if e.Series != nil && e.Series.LastObservedTime.After(seen) {
		seen = e.Series.LastObservedTime.Time
	}
	if seen.IsZero() {
		seen = e.CreationTimestamp.Time
	}
	return seen
}
