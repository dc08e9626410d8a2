package syncer_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// addressing is what IP families and addresses a Service has.
type addressing struct {
	Families []corev1.IPFamily
	Policy   corev1.IPFamilyPolicy
	IPs      []string
}

func addressingOf(s *corev1.Service) addressing {
	return addressing{Families: s.Spec.IPFamilies, Policy: *s.Spec.IPFamilyPolicy, IPs: s.Spec.ClusterIPs}
}

// awaitSameAddressing waits until a Service is the same in both clusters and has as many families as wanted.
func (r *running) awaitSameAddressing(t *testing.T, of tenant, namespace, name string, families int) (found addressing) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("service %s with %d families on both sides", name, families), func(ctx context.Context) error {
		inTenant, err := of.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var super corev1.Service
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, &super); err != nil {
			return err
		}
		if inTenant.Spec.Type == corev1.ServiceTypeExternalName {
			return fmt.Errorf("it is getting another address")
		}
		found = addressingOf(inTenant)
		if diff := cmp.Diff(found, addressingOf(&super)); diff != "" || len(found.Families) != families {
			return fmt.Errorf("it has %v; -tenant +super:\n%s", found, diff)
		}
		return nil
	})
	return found
}

func TestDualStackServices(t *testing.T) {
	const namespace = "dual"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	for name, tc := range map[string]struct {
		families []corev1.IPFamily
		policy   corev1.IPFamilyPolicy
		headless bool
		want     []corev1.IPFamily
	}{
		"default":  {want: []corev1.IPFamily{corev1.IPv4Protocol}},
		"prefer":   {policy: corev1.IPFamilyPolicyPreferDualStack, want: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}},
		"require":  {policy: corev1.IPFamilyPolicyRequireDualStack, families: []corev1.IPFamily{corev1.IPv6Protocol}, want: []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}},
		"six":      {families: []corev1.IPFamily{corev1.IPv6Protocol}, want: []corev1.IPFamily{corev1.IPv6Protocol}},
		"headless": {policy: corev1.IPFamilyPolicyPreferDualStack, headless: true, want: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}},
	} {
		t.Run(name, func(t *testing.T) {
			service := worlds.Service(namespace, name)
			service.Spec.IPFamilies = tc.families
			if tc.policy != "" {
				service.Spec.IPFamilyPolicy = &tc.policy
			}
			if tc.headless {
				service.Spec.ClusterIP = corev1.ClusterIPNone
			}
			if _, err := of.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			got := r.awaitSameAddressing(t, of, namespace, name, len(tc.want))
			if diff := cmp.Diff(tc.want, got.Families); diff != "" {
				t.Errorf("families: -want +got\n%s", diff)
			}
			if !tc.headless && !of.world.ServiceRanges.Contains(got.IPs...) {
				t.Errorf("the addresses %v are not of the tenant's ranges %s", got.IPs, of.world.ServiceRanges)
			}
		})
	}

	t.Run("Changes", func(t *testing.T) {
		change := func(policy corev1.IPFamilyPolicy) {
			patch := fmt.Appendf(nil, `{"spec":{"ipFamilyPolicy":%q}}`, policy)
			if _, err := of.CoreV1().Services(namespace).Patch(t.Context(), "default", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		before := r.awaitSameAddressing(t, of, namespace, "default", 1)
		change(corev1.IPFamilyPolicyPreferDualStack)
		both := r.awaitSameAddressing(t, of, namespace, "default", 2)
		change(corev1.IPFamilyPolicySingleStack)
		after := r.awaitSameAddressing(t, of, namespace, "default", 1)
		if both.IPs[0] != before.IPs[0] || after.IPs[0] != before.IPs[0] {
			t.Errorf("the first address was %s, then %s and %s", before.IPs[0], both.IPs[0], after.IPs[0])
		}
	})
}

func TestDualStackServiceGetsOtherAddressesWhenItsSecondIsTaken(t *testing.T) {
	const namespace = "dual-taken"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	wanted := []string{
		iprange.Nth(of.world.ServiceRanges[0], 78).String(),
		iprange.Nth(of.world.ServiceRanges[1], 78).String(),
	}
	r.take(t, wanted[1])
	service := worlds.Service(namespace, "web")
	policy := corev1.IPFamilyPolicyRequireDualStack
	service.Spec.ClusterIP, service.Spec.ClusterIPs, service.Spec.IPFamilyPolicy = wanted[0], wanted, &policy
	made, err := of.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitForEvent(t, of, namespace, "web", "ClusterIPChanged")
	got := r.awaitSameAddressing(t, of, namespace, "web", 2)
	if slices.Contains(got.IPs, wanted[1]) {
		t.Errorf("it has %v, of which one is taken", got.IPs)
	}
	now, err := of.CoreV1().Services(namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if now.UID != made.UID || now.Annotations[names.AnnotationReaddress] != "" {
		t.Errorf("it was replaced or still carries the note: %v", now.ObjectMeta)
	}
}
