package pods

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// finishContainer gives a container its environment: first the address of the tenant's API server, so that the tenant's
// own variables can refer to it as they always can, then the tenant's.
func finishContainer(t *translation, dst, src *corev1.Container) error {
	var own []corev1.EnvVar
	if err := t.copy(&own, &src.Env); err != nil {
		return within("env", err)
	}
	ours := slices.DeleteFunc(t.apiServer(), func(e corev1.EnvVar) bool { return t.sets(src, e.Name) })
	dst.Env = slices.Concat(ours, own)
	return nil
}

// finishEphemeral does the same for an ephemeral container.
func finishEphemeral(t *translation, dst, src *corev1.EphemeralContainerCommon) error {
	return finishContainer(t, (*corev1.Container)(dst), (*corev1.Container)(src))
}

// apiServer returns the variables that tell a container where the API server is, as the kubelet names them.
func (t *translation) apiServer() []corev1.EnvVar {
	s := service(t.view, metav1.NamespaceDefault, "kubernetes")
	if s == nil || len(s.Spec.Ports) == 0 {
		t.waitFor("the cluster IP of the Service default/kubernetes")
		return nil
	}
	ip, port := s.Spec.ClusterIP, strconv.Itoa(int(s.Spec.Ports[0].Port))
	url := "tcp://" + net.JoinHostPort(ip, port)
	link := fmt.Sprintf("KUBERNETES_PORT_%s_TCP", port)
	return []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: ip},
		{Name: "KUBERNETES_SERVICE_PORT", Value: port},
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: port},
		{Name: "KUBERNETES_PORT", Value: url},
		{Name: link, Value: url},
		{Name: link + "_PROTO", Value: "tcp"},
		{Name: link + "_PORT", Value: port},
		{Name: link + "_ADDR", Value: ip},
	}
}

// sets says whether the tenant sets the variable itself, which always beats what the cluster sets.
func (t *translation) sets(container *corev1.Container, name string) bool {
	if slices.ContainsFunc(container.Env, func(e corev1.EnvVar) bool { return e.Name == name }) {
		return true
	}
	for _, from := range container.EnvFrom {
		key, ok := strings.CutPrefix(name, from.Prefix)
		if !ok {
			continue
		}
		switch {
		case from.ConfigMapRef != nil:
			ref := resource.Ref{Kind: "configmaps", Namespace: t.pod.Namespace, Name: from.ConfigMapRef.Name}
			if c, ok := t.view.Get(resource.Tenant, ref).(*corev1.ConfigMap); ok && c != nil {
				if _, ok := c.Data[key]; ok {
					return true
				}
			}
		case from.SecretRef != nil:
			ref := resource.Ref{Kind: "secrets", Namespace: t.pod.Namespace, Name: from.SecretRef.Name}
			if s, ok := t.view.Get(resource.Tenant, ref).(*corev1.Secret); ok && s != nil {
				if _, ok := s.Data[key]; ok {
					return true
				}
			}
		}
	}
	return false
}
