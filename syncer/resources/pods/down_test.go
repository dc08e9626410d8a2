package pods

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestDownOfAPlainPod(t *testing.T) {
	got := mustDown(t, newWorld(), pod())
	yes, no, grace, ndots := true, false, int64(30), "5"
	want := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: superShop(), Name: "web-0",
			Labels: map[string]string{"app": "web", names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer},
			Annotations: map[string]string{
				names.AnnotationNamespace: shop, names.AnnotationUID: "tenant-uid", names.AnnotationKeys: "l:app",
			},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "main", Image: "web:1", ImagePullPolicy: corev1.PullIfNotPresent,
				Env: []corev1.EnvVar{
					{Name: "KUBERNETES_SERVICE_HOST", Value: "10.100.0.1"},
					{Name: "KUBERNETES_SERVICE_PORT", Value: "443"},
					{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: "443"},
					{Name: "KUBERNETES_PORT", Value: "tcp://10.100.0.1:443"},
					{Name: "KUBERNETES_PORT_443_TCP", Value: "tcp://10.100.0.1:443"},
					{Name: "KUBERNETES_PORT_443_TCP_PROTO", Value: "tcp"},
					{Name: "KUBERNETES_PORT_443_TCP_PORT", Value: "443"},
					{Name: "KUBERNETES_PORT_443_TCP_ADDR", Value: "10.100.0.1"},
				},
			}},
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: &grace,
			DNSPolicy:                     corev1.DNSNone,
			DNSConfig: &corev1.PodDNSConfig{
				Nameservers: []string{"10.100.0.10"},
				Searches:    []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"},
				Options:     []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}},
			},
			ServiceAccountName:           "default",
			AutomountServiceAccountToken: &no,
			SecurityContext:              &corev1.PodSecurityContext{},
			EnableServiceLinks:           &yes,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("replica (-want +got):\n%s", diff)
	}
}
