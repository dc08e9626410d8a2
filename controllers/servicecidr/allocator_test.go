package servicecidr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// superCluster is a client of an API server that hands out each address once.
func superCluster(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), tenancyv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	funcs.Create = func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if wanted, ok := o.(*corev1.Service); ok {
			var list corev1.ServiceList
			if err := c.List(ctx, &list); err != nil {
				return err
			}
			if slices.ContainsFunc(list.Items, func(s corev1.Service) bool { return s.Spec.ClusterIP == wanted.Spec.ClusterIP }) {
				refused := field.Invalid(field.NewPath("spec", "clusterIPs"), wanted.Spec.ClusterIP, "failed to allocate IP: provided IP is already allocated")
				return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), wanted.Name, field.ErrorList{refused})
			}
		}
		return c.Create(ctx, o, opts...)
	}
	objects = append(objects, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: defaultName}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/20"}}})
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
}

// remembering is a cache that never hears of what was deleted.
type remembering struct {
	client.Reader
	seen map[client.ObjectKey]*corev1.Service
}

func (r remembering) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	s, ok := r.seen[key]
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("services"), key.Name)
	}
	into, ok := o.(*corev1.Service)
	if !ok {
		return fmt.Errorf("asked for a %T", o)
	}
	s.DeepCopyInto(into)
	return nil
}

func claimOf(tenant names.TenantID) Claim {
	return Claim{
		Tenant: tenant, DNS: true,
		Labels:      map[string]string{names.LabelTenant: string(tenant), names.LabelManagedBy: names.Manager},
		Annotations: map[string]string{names.AnnotationVirtualCluster: "tenants/" + string(tenant)},
	}
}

func serviceAt(namespace, name, address string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: address}}
}

// A range that was given up, because a Service has its tenth address, is not taken for the next one.
func TestClaimAfterOneThatWasGivenUp(t *testing.T) {
	pool := mustPool(t, Auto, "24")
	resolved, err := pool.Resolve(iprange.MustParse("10.96.0.0/20"), 0)
	if err != nil {
		t.Fatal(err)
	}
	claim := claimOf("t")
	first, ok := resolved.Next("t", (&survey{super: iprange.MustParse("10.96.0.0/20")}).firstAddresses())
	if !ok {
		t.Fatal("the pool is empty")
	}
	cached := remembering{seen: map[client.ObjectKey]*corev1.Service{}}
	for _, s := range claim.services(first) {
		cached.seen[client.ObjectKeyFromObject(s)] = s.Service
	}
	c := superCluster(t, interceptor.Funcs{}, serviceAt("default", "operators", iprange.DNS(first.Primary()).String()))
	a := &Allocator{Client: c, Live: c, Claims: cached, Pool: pool}
	delete(cached.seen, client.ObjectKeyFromObject(claim.services(first)[1])) // it was never made
	got, err := a.Ensure(t.Context(), claim)
	if err != nil || got.Overlapping(first...).IsValid() {
		t.Fatalf("it has %s (%v), and %s is in use", got, err, first)
	}
	for _, want := range claim.services(got) {
		s := &corev1.Service{}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(want), s); err != nil || s.Spec.ClusterIP != want.Spec.ClusterIP {
			t.Errorf("Service %s has %s (%v), want %s", want.Name, s.Spec.ClusterIP, err, want.Spec.ClusterIP)
		}
	}
}

// What an attempt left that was interrupted is a claim only if nobody else claimed in the meantime.
func TestClaimOfAnInterruptedAttempt(t *testing.T) {
	for name, tc := range map[string]struct {
		other string
		waits bool
	}{
		"Alone":    {"10.96.8.0/24", false},
		"Overlaps": {"10.96.4.128/25", true},
	} {
		t.Run(name, func(t *testing.T) {
			mine, other := claimOf("mine"), claimOf("other")
			var objects []client.Object
			for _, s := range append(mine.services(iprange.MustParse("10.96.4.0/24")), other.services(iprange.MustParse(tc.other))...) {
				objects = append(objects, s.Service)
			}
			c := superCluster(t, interceptor.Funcs{}, objects...)
			a := &Allocator{Client: c, Live: c, Claims: c, Pool: mustPool(t, Auto, "24")}
			got, err := a.Ensure(t.Context(), mine)
			if waits := errors.As(err, new(*progress.Wait)); waits != tc.waits || !waits && got.String() != "10.96.4.0/24" {
				t.Errorf("got %s, %v", got, err)
			}
			again, err := a.Ensure(t.Context(), mine)
			if err != nil || again.Overlapping(iprange.MustParse(tc.other)...).IsValid() {
				t.Errorf("in the end it has %s, %v", again, err)
			}
		})
	}
}

// A claim that cannot be given up is not left behind for another range.
func TestClaimThatCannotBeGivenUp(t *testing.T) {
	stuck := errors.New("etcd has no leader")
	claim := claimOf("t")
	c := superCluster(t, interceptor.Funcs{Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error { return stuck }},
		serviceAt("default", "operators", "10.96.4.10"))
	a := &Allocator{Client: c, Live: c, Claims: c, Pool: mustPool(t, "10.96.4.0/23", "24")}
	for i := range 3 {
		if got, err := a.Ensure(t.Context(), claim); err == nil && got.String() != "10.96.5.0/24" {
			t.Errorf("attempt %d: got %s", i, got)
		} else if err != nil && !errors.Is(err, stuck) {
			t.Errorf("attempt %d: %v", i, err)
		}
	}
	api := &corev1.Service{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(claim.services(iprange.MustParse("10.96.4.0/24"))[0]), api); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s.1", api.Annotations[names.AnnotationServiceRange][:len("10.96.4")]); api.Spec.ClusterIP != want {
		t.Errorf("the Service kubernetes has %s and says that it claims %s", api.Spec.ClusterIP, api.Annotations[names.AnnotationServiceRange])
	}
}
