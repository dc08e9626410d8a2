package dedicated

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// ensureScheduler runs the tenant's kube-scheduler, or stops it when the tenant is not to have one.
func (p *Provisioner) ensureScheduler(ctx context.Context, tenant *provision.Tenant, l layout) error {
	if !l.scheduled {
		apimeta.RemoveStatusCondition(&tenant.VirtualCluster.Status.Conditions, tenancyv1alpha1.ConditionSchedulerReady)
		set := &appsv1.StatefulSet{}
		err := p.Client.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: names.Scheduler}, set)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading StatefulSet %s: %w", names.Scheduler, err)
		}
		return p.remove(ctx, set)
	}
	kubeconfig, err := l.componentKubeconfig(names.Scheduler, schedulerSecret)
	if err != nil {
		return err
	}
	if _, err := apply.Object(ctx, p.Client, kubeconfig); err != nil {
		return err
	}
	return p.ensureWorkload(ctx, tenant, l.scheduler(), tenancyv1alpha1.ConditionSchedulerReady)
}

// scheduler renders the tenant's kube-scheduler.
func (l layout) scheduler() *appsv1.StatefulSet {
	return l.statefulSet(component{
		name: names.Scheduler,
		args: map[string]string{
			"kubeconfig":   kubeconfigDir + "/" + names.KubeconfigKey,
			"secure-port":  fmt.Sprint(schedulerPort),
			"profiling":    "false",
			"leader-elect": fmt.Sprint(l.replicas > 1),
		},
		env:      []corev1.EnvVar{{Name: "GOGC", Value: "50"}},
		requests: requests("20m", "48Mi"),
		ports:    []corev1.ContainerPort{port("https", schedulerPort)},
		mounts:   []corev1.VolumeMount{pkiMount(), kubeconfigMount()},
		volumes: []corev1.Volume{
			pkiVolume(keys(schedulerSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey)),
			kubeconfigVolume(names.Scheduler),
		},
		readiness:   get(corev1.URISchemeHTTPS, schedulerPort, "/readyz"),
		liveness:    get(corev1.URISchemeHTTPS, schedulerPort, "/livez"),
		gracePeriod: 10,
		template:    l.version.Scheduler,
	})
}
