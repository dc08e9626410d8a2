package pods

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

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
	ours, err := t.missing(src, t.apiServer())
	dst.Env = slices.Concat(ours, own)
	return err
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

// missing returns those of some variables that the tenant does not set itself for a container, which always beats what the
// cluster sets. In a pod that exists, they are what they are.
func (t *translation) missing(container *corev1.Container, variables []corev1.EnvVar) ([]corev1.EnvVar, error) {
	if t.lenient {
		return variables, nil
	}
	set := map[string]bool{}
	for _, e := range container.Env {
		set[e.Name] = true
	}
	for _, from := range container.EnvFrom {
		keys, err := t.keys(from)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			set[from.Prefix+key] = true
		}
	}
	return slices.DeleteFunc(variables, func(e corev1.EnvVar) bool { return set[e.Name] }), nil
}

// keys returns the keys of what variables are taken from.
func (t *translation) keys(from corev1.EnvFromSource) ([]string, error) {
	ref := resource.Ref{Namespace: t.pod.Namespace}
	switch {
	case from.ConfigMapRef != nil:
		ref.Kind, ref.Name = resource.ConfigMaps, from.ConfigMapRef.Name
	case from.SecretRef != nil:
		ref.Kind, ref.Name = resource.Secrets, from.SecretRef.Name
	default:
		return nil, nil
	}
	o, err := t.view.Whole(ref)
	switch whole := o.(type) {
	case *corev1.ConfigMap:
		return slices.Collect(maps.Keys(whole.Data)), err
	case *corev1.Secret:
		return slices.Collect(maps.Keys(whole.Data)), err
	default:
		return nil, err
	}
}
