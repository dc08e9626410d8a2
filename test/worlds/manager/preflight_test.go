package manager_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/controllers/preflight/watch"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// vc-manager says on its Pod and in a metric how it can give tenants addresses, and whether, with the rights it has.
func TestConditionOfThePod(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pool, size string
		want       corev1.PodCondition
	}{
		"Good": {"auto", "auto", corev1.PodCondition{Status: corev1.ConditionTrue, Reason: "PartsOfARange", Message: "each tenant gets a part of it"}},
		"Bad":  {"fd00:112::/96", "112", corev1.PodCondition{Status: corev1.ConditionFalse, Reason: "WrongIPFamily", Message: "must be of the same IP family as the first of the super cluster"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			super := worlds.Start(t, worlds.Options{}).Super
			registry := prometheus.NewRegistry()
			f := startManager(t, super, func(o *controllers.Options) {
				account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: "default"}}
				if _, err := super.Client.CoreV1().ServiceAccounts(o.Namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				super.MakePod(t, worlds.Pod(o.Namespace, "vc-manager-0"))
				o.Pod, o.Registry, o.ServiceCIDRPool, o.ServiceCIDRSize = "vc-manager-0", registry, tc.pool, tc.size
			})
			worlds.Eventually(t, patience, "the condition", func(ctx context.Context) error {
				pod := &corev1.Pod{}
				if err := f.Get(ctx, client.ObjectKey{Namespace: "vc-system", Name: "vc-manager-0"}, pod); err != nil {
					return err
				}
				for _, got := range pod.Status.Conditions {
					if got.Type == watch.ConditionServiceAddresses {
						if got.Status != tc.want.Status || got.Reason != tc.want.Reason || !strings.Contains(got.Message, tc.want.Message) || got.LastTransitionTime.IsZero() {
							t.Errorf("got %+v", got)
						}
						return nil
					}
				}
				return fmt.Errorf("the conditions are %+v", pod.Status.Conditions)
			})
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, family := range families {
				for _, metric := range family.GetMetric() {
					for _, label := range metric.GetLabel() {
						found = found || family.GetName() == "vc_manager_preflight_findings" && label.GetName() == "reason" && label.GetValue() == tc.want.Reason
					}
				}
			}
			if !found {
				t.Errorf("no metric says %s", tc.want.Reason)
			}
		})
	}
}
