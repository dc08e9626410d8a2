package resource

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// reporter is the name under which tenants see what could not be synchronised. To a tenant, it is the cluster that
// speaks.
const reporter = "cluster"

// The longest message of an Event and the longest name of an object, by the API's validation.
const (
	maxMessage = 1024
	maxName    = 253
)

// Tell returns the operation that records an event about a tenant object, in the tenant. Saying the same about the same
// object again does not add an event.
func Tell(v View, o Object, gvk schema.GroupVersionKind, eventType, reason, message string) Op {
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	suffix := "." + names.Hash(string(o.GetUID()), reason, message)
	now := metav1.NewTime(v.Now)
	return Op{Side: Tenant, Verb: Record, Why: reason, Object: &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: truncate(o.GetName(), maxName-len(suffix)) + suffix},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind,
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		},
		Type: eventType, Reason: reason, Message: truncate(message, maxMessage),
		Source: corev1.EventSource{Component: reporter}, ReportingController: reporter,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}}
}

// Tells says whether the operation tells the tenant something by Tell.
func (o Op) Tells() bool {
	event, ok := o.Object.(*corev1.Event)
	return ok && o.Verb == Record && event.ReportingController == reporter
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}
