package vnagent

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/vn-agent/stats"
)

// directoryTTL is how long it is believed whose a namespace or pod is. Neither ever changes hands, so that the answer
// stays right while the object exists, and only measurements are given out by it.
const directoryTTL = 10 * time.Minute

// directory knows whose pods a kubelet measures. It asks for each only once, because scrapers come every few seconds.
type directory struct {
	owner owner

	mu         sync.Mutex
	namespaces map[string]entry[origin]
	pods       map[stats.Pod]entry[podOrigin]
}

// origin is the tenant namespace that a super namespace was made for, or nothing.
type origin struct {
	tenant    names.TenantID
	namespace string
}

// podOrigin is the tenant pod that a super pod was made for. The tenant is empty if there is none.
type podOrigin struct {
	tenant        names.TenantID
	uid, superUID string
}

type entry[V any] struct {
	value V
	until time.Time
}

// owned returns the pods of the tenant among those that were measured.
func (d *directory) owned(ctx context.Context, tenant names.TenantID, measured stats.Measured) (stats.Owned, error) {
	out := stats.Owned{}
	for _, namespace := range measured.Namespaces() {
		if namespace == "" {
			continue
		}
		from, err := d.namespace(ctx, namespace)
		if err != nil {
			return nil, err
		}
		if from.tenant != tenant {
			continue
		}
		for pod, uid := range measured.Pods(namespace) {
			found, err := d.pod(ctx, pod, uid)
			if err != nil {
				return nil, err
			}
			if found.tenant == tenant {
				out[pod] = stats.Identity{Namespace: from.namespace, UID: found.uid, SuperUID: found.superUID}
			}
		}
	}
	return out, nil
}

func (d *directory) namespace(ctx context.Context, name string) (origin, error) {
	if known, ok := lookup(&d.mu, d.namespaces, name); ok {
		return known, nil
	}
	namespace, err := d.owner.super.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return origin{}, nil
	}
	if err != nil {
		return origin{}, fmt.Errorf("getting namespace %s: %w", name, err)
	}
	found := originOf(namespace)
	remember(&d.mu, &d.namespaces, name, found)
	return found, nil
}

// pod returns whose the pod is. With a UID, what is known of an earlier pod of that name is not believed.
func (d *directory) pod(ctx context.Context, name stats.Pod, uid string) (podOrigin, error) {
	if known, ok := lookup(&d.mu, d.pods, name); ok && (uid == "" || uid == known.superUID) {
		return known, nil
	}
	pod, err := d.owner.super.CoreV1().Pods(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	// The right to read pods comes with a super namespace and goes with it.
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return podOrigin{}, nil
	}
	if err != nil {
		return podOrigin{}, fmt.Errorf("getting super pod %s/%s: %w", name.Namespace, name.Name, err)
	}
	found := podOrigin{tenant: names.TenantID(pod.Labels[names.LabelTenant]), uid: pod.Annotations[names.AnnotationUID], superUID: string(pod.UID)}
	// One that has gone elsewhere may be back any time.
	if found.tenant == "" || pod.Spec.NodeName != d.owner.nodeName {
		return podOrigin{}, nil
	}
	remember(&d.mu, &d.pods, name, found)
	return found, nil
}

// originOf returns the tenant namespace that the super namespace was made for, or nothing. The name alone proves nothing,
// because somebody else may have made a namespace of that name, nor do label and annotation alone: a root namespace has
// them, too.
func originOf(namespace *corev1.Namespace) origin {
	found := origin{tenant: names.TenantID(namespace.Labels[names.LabelTenant]), namespace: namespace.Annotations[names.AnnotationNamespace]}
	if found.tenant == "" || found.namespace == "" || names.SuperNamespace(found.tenant, found.namespace) != namespace.Name {
		return origin{}
	}
	return found
}

func lookup[K comparable, V any](mu *sync.Mutex, entries map[K]entry[V], key K) (V, bool) {
	mu.Lock()
	defer mu.Unlock()
	known, ok := entries[key]
	return known.value, ok && time.Now().Before(known.until)
}

// remember also forgets what is too old.
func remember[K comparable, V any](mu *sync.Mutex, entries *map[K]entry[V], key K, value V) {
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(*entries, func(_ K, known entry[V]) bool { return now.After(known.until) })
	if *entries == nil {
		*entries = map[K]entry[V]{}
	}
	(*entries)[key] = entry[V]{value, now.Add(directoryTTL)}
}
