package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// Kinds that are compared. A token is a Secret of the super cluster with the service account tokens of a pod.
const (
	kindNamespace = "Namespace"
	kindPod       = "Pod"
	kindService   = "Service"
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
	kindClaim     = "PersistentVolumeClaim"
	kindToken     = "Token"
)

// revisionKey is the key of a Content that says which revision it is.
const revisionKey = "rev"

// hasRevision says whether the load changes objects of a kind.
func hasRevision(kind string) bool { return kind != kindNamespace && kind != kindToken }

const (
	// callTimeout bounds every call of the load.
	callTimeout = 5 * time.Second
	// workers of a tenant have namespaces of their own, so that no two change one object.
	workers = 2
	// fewest and most bound the objects of a kind in a namespace, and the namespaces of a worker.
	fewest, most                     = 2, 8
	fewestNamespaces, mostNamespaces = 2, 4
)

// tenant is a control plane, and what its user knows of it.
type tenant struct {
	world   *worlds.World
	client  client.Client
	vc      client.ObjectKey
	id      names.TenantID
	journal *journal

	// still is held for reading while a worker does something, and for writing while nobody may.
	still sync.RWMutex
	named atomic.Int64
	done  atomic.Int64 // operations that were confirmed
}

// work creates, updates and deletes until the context ends.
func (t *tenant) work(ctx context.Context, worker int, rng *rand.Rand, interval time.Duration) {
	for ctx.Err() == nil {
		t.still.RLock()
		err := t.step(ctx, worker, rng)
		t.still.RUnlock()
		pause := interval
		if err != nil { // the API server is away; what that means for an object is in the journal
			pause = time.Second
		}
		_ = wait(ctx, pause) // the loop ends with the context
	}
}

// step does one thing.
func (t *tenant) step(ctx context.Context, worker int, rng *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// Nothing is in doubt when the API server is known to be away.
	if err := t.client.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &corev1.Namespace{}); err != nil {
		return err
	}
	prefix := fmt.Sprintf("load-%d-", worker)
	var mine []key
	for _, ns := range t.journal.existing(kindNamespace, "") {
		if strings.HasPrefix(ns.Name, prefix) {
			mine = append(mine, ns)
		}
	}
	switch dice := rng.IntN(100); {
	case len(mine) < fewestNamespaces, dice < 3 && len(mine) < mostNamespaces:
		return t.create(ctx, key{Kind: kindNamespace, Name: prefix + strconv.FormatInt(t.named.Add(1), 10)})
	case dice < 5 && len(mine) > fewestNamespaces:
		return t.remove(ctx, mine[rng.IntN(len(mine))])
	}
	kinds := []string{kindPod, kindPod, kindPod, kindConfigMap, kindConfigMap, kindSecret, kindService, kindClaim}
	return t.stepIn(ctx, mine[rng.IntN(len(mine))].Name, kinds[rng.IntN(len(kinds))], rng)
}

// stepIn does one thing to an object of a kind in a namespace.
func (t *tenant) stepIn(ctx context.Context, namespace, kind string, rng *rand.Rand) error {
	existing := t.journal.existing(kind, namespace)
	dice := rng.IntN(3)
	switch {
	case len(existing) < fewest, dice == 0 && len(existing) < most:
		k := key{kind, namespace, fmt.Sprintf("x-%d", rng.IntN(most*2))} // names come again
		if kind == kindPod {                                             // a fake node deletes pods by name, and may delete the next one as well, which no kubelet does
			k.Name = fmt.Sprintf("x-%d", t.named.Add(1))
		}
		if e, known := t.journal.get(k); known && (e.exists() || !e.certain()) {
			return nil
		}
		return t.create(ctx, k)
	case dice == 1:
		return t.update(ctx, existing[rng.IntN(len(existing))])
	default:
		return t.remove(ctx, existing[rng.IntN(len(existing))])
	}
}

// create makes an object, and notes what came of it.
func (t *tenant) create(ctx context.Context, k key) error {
	const first = 1
	err := t.client.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, empties()[k.Kind])
	if !apierrors.IsNotFound(err) {
		return err // it is not quite gone
	}
	o := t.make(k)
	mark(o, first)
	err = t.client.Create(ctx, o)
	switch {
	case err == nil:
		t.told(k, first, o)
	case refused(err):
		return nil // the namespace is not ready yet
	default:
		t.journal.doubt(k, first)
	}
	return err
}

// update changes an object, and notes what came of it.
func (t *tenant) update(ctx context.Context, k key) error {
	before, _ := t.journal.get(k)
	o := empties()[k.Kind]
	if err := t.client.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, o); err != nil {
		return client.IgnoreNotFound(err) // whether it may be gone is seen at the end
	}
	revision := before.Revision + 1
	mark(o, revision)
	err := t.client.Update(ctx, o)
	switch {
	case err == nil:
		t.told(k, revision, o)
	case refused(err):
		return err
	default: // a conflict, too: a request may have been sent twice
		t.journal.doubt(k, revision)
	}
	return client.IgnoreNotFound(err)
}

// remove deletes an object, and notes what came of it. A request that is carried out late does not delete the next one of the name.
func (t *tenant) remove(ctx context.Context, k key) error {
	e, _ := t.journal.get(k)
	o := empties()[k.Kind]
	o.SetNamespace(k.Namespace)
	o.SetName(k.Name)
	uid := types.UID(e.UID)
	err := t.client.Delete(ctx, o, client.Preconditions{UID: &uid}, client.GracePeriodSeconds(1))
	switch {
	case err == nil, apierrors.IsNotFound(err):
		t.told(k, 0, o)
		return nil
	default:
		t.journal.doubt(k, 0)
		return err
	}
}

func (t *tenant) told(k key, revision int, o client.Object) {
	t.done.Add(1)
	if revision == 0 {
		t.journal.told(k, 0, "")
		return
	}
	t.journal.told(k, revision, string(o.GetUID()))
}

// refused says whether a request was certainly not carried out.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsNotFound(err)
}

// empties returns an empty object of each kind.
func empties() map[string]client.Object {
	return map[string]client.Object{
		kindNamespace: &corev1.Namespace{}, kindPod: &corev1.Pod{}, kindService: &corev1.Service{}, kindConfigMap: &corev1.ConfigMap{},
		kindSecret: &corev1.Secret{}, kindClaim: &corev1.PersistentVolumeClaim{},
	}
}

// make returns a new object, with the name of the tenant in its content.
func (t *tenant) make(k key) client.Object {
	meta := metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name, Labels: map[string]string{owner: t.world.Name}}
	switch k.Kind {
	case kindNamespace:
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: k.Name}}
	case kindConfigMap:
		return &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{owner: t.world.Name}}
	case kindSecret:
		return &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{owner: []byte(t.world.Name)}}
	case kindService:
		s := worlds.Service(k.Namespace, k.Name)
		s.ObjectMeta = meta
		return s
	case kindClaim:
		return &corev1.PersistentVolumeClaim{ObjectMeta: meta, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}}
	default: // a pod, which refers to the ConfigMap and the Secret of its name
		p := worlds.Pod(k.Namespace, k.Name)
		p.ObjectMeta = meta
		p.Spec.TerminationGracePeriodSeconds = new(int64(1))
		reference := corev1.LocalObjectReference{Name: k.Name}
		p.Spec.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: reference, Optional: new(true)}}},
			{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: k.Name, Optional: new(true)}}},
		}
		return p
	}
}

// mark writes a revision into an object, where it goes down.
func mark(o client.Object, revision int) {
	text := strconv.Itoa(revision)
	switch o := o.(type) {
	case *corev1.Namespace:
		return
	case *corev1.ConfigMap:
		o.Data[revisionKey] = text
		return
	case *corev1.Secret:
		o.Data[revisionKey] = []byte(text)
		return
	case *corev1.Service:
		o.Spec.Ports[0].Port = int32(1000 + revision%1000)
	case *corev1.Pod:
		o.Spec.Containers[0].Image = "registry.k8s.io/pause:" + text
	}
	labels := o.GetLabels()
	labels[revisionKey] = text
	o.SetLabels(labels)
}
