package virtualcluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

var errCrash = errors.New("vc-manager crashes here")

// stopped is a provisioner whose control planes stop at once.
type stopped struct{ provision.Provisioner }

func (stopped) Stop(context.Context, *provision.Tenant) error { return nil }

func TestDeletionCanBeInterruptedAnywhere(t *testing.T) {
	vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "tenants", Name: "a", UID: "uid", Finalizers: []string{names.Finalizer}}}
	tenant := names.Tenant(client.ObjectKeyFromObject(vc), vc.UID)
	// Every write, and then the one after the last, fails once.
	for crash := range 100 {
		writes := 0
		base := newTenantWorld(t, vc.DeepCopy(), tenant)
		crashing := interceptor.NewClient(base, failing(func() error {
			if writes++; writes == crash+1 {
				return errCrash
			}
			return nil
		}))
		r := newReconciler(crashing)
		var failed bool
		for range 20 {
			_, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(vc)})
			if err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("crash at write %d: Reconcile: %v", crash, err)
			}
			failed = failed || err != nil
		}
		checkOnlyForeignThingsLeft(t, base, vc, crash)
		if !failed {
			if crash < 5 {
				t.Fatalf("only %d writes were made", crash)
			}
			return
		}
	}
	t.Fatal("the deletion never got through without a crash")
}

// newTenantWorld returns a super cluster with what is made for a tenant, and with things that look like it.
func newTenantWorld(t *testing.T, vc *tenancyv1alpha1.VirtualCluster, tenant names.TenantID) client.WithWatch {
	t.Helper()
	labels := map[string]string{names.LabelTenant: string(tenant)}
	namespace := func(name, uid string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: map[string]string{names.AnnotationVirtualClusterUID: uid}}}
	}
	c := fake.NewClientBuilder().WithScheme(newScheme(t)).WithStatusSubresource(vc).WithObjects(
		vc,
		namespace(string(tenant), "uid"), namespace("shop", "uid"), namespace("foreign", "another-uid"),
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "mine", Labels: labels}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.0.0.0/22"}}},
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.0.4.0/22"}}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "retained"}, Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data"},
		}},
	).Build()
	if err := c.Delete(t.Context(), vc.DeepCopy()); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	return c
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), tenancyv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatalf("AddToScheme: %v", err)
	}
	return scheme
}

func newReconciler(c client.Client) *Reconciler {
	return &Reconciler{
		Client:       c,
		Live:         c,
		Provisioners: map[tenancyv1alpha1.ControlPlaneType]provision.Provisioner{tenancyv1alpha1.Dedicated: stopped{}},
		CIDRs:        &servicecidr.Allocator{Client: c, Live: c},
		Events:       events.NewFakeRecorder(100),
		Clock:        clocktesting.NewFakePassiveClock(time.Now()),
	}
}

// failing calls a function before every write.
func failing(before func() error) interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.CreateOption) error {
			if err := before(); err != nil {
				return err
			}
			return c.Create(ctx, object, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, opts ...client.DeleteOption) error {
			if err := before(); err != nil {
				return err
			}
			return c.Delete(ctx, object, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, opts ...client.PatchOption) error {
			if err := before(); err != nil {
				return err
			}
			return c.Patch(ctx, object, patch, opts...)
		},
		SubResourceApply: func(context.Context, client.Client, string, runtime.ApplyConfiguration, ...client.SubResourceApplyOption) error {
			return before()
		},
	}
}

func checkOnlyForeignThingsLeft(t *testing.T, c client.Client, vc *tenancyv1alpha1.VirtualCluster, crash int) {
	t.Helper()
	left := map[string]bool{}
	for name, object := range map[string]client.Object{
		"VirtualCluster":    vc.DeepCopy(),
		"root namespace":    &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: string(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID))}},
		"namespace shop":    &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		"foreign namespace": &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}},
		"range":             &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "mine"}},
		"foreign range":     &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}},
		"retained volume":   &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "retained"}},
	} {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(object), object)
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatalf("Get: %v", err)
		}
		left[name] = err == nil
	}
	want := map[string]bool{
		"VirtualCluster": false, "root namespace": false, "namespace shop": false, "range": false,
		"foreign namespace": true, "foreign range": true, "retained volume": true,
	}
	if fmt.Sprint(left) != fmt.Sprint(want) {
		t.Fatalf("crash at write %d: what is left is %v, want %v", crash, left, want)
	}
}
