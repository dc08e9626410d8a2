package dedicated

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// defaultEtcdSize is the size of etcd's volume.
	defaultEtcdSize = "2Gi"
	// maxEtcdQuota is the largest database that etcd's authors recommend.
	maxEtcdQuota = 8 << 30
	dataVolume   = "data"
)

// etcd renders the tenant's etcd.
func (l layout) etcd() *appsv1.StatefulSet {
	claim, quota := l.etcdClaim()
	return l.statefulSet(component{
		name: names.Etcd,
		args: map[string]string{
			"name":                        "$(POD_NAME)",
			"data-dir":                    etcdDataDir + "/data",
			"quota-backend-bytes":         fmt.Sprint(quota),
			"listen-client-urls":          fmt.Sprintf("https://0.0.0.0:%d", etcdClientPort),
			"advertise-client-urls":       fmt.Sprintf("https://%s:%d", l.etcdMember("$(POD_NAME)"), etcdClientPort),
			"listen-peer-urls":            fmt.Sprintf("https://0.0.0.0:%d", etcdPeerPort),
			"initial-advertise-peer-urls": fmt.Sprintf("https://%s:%d", l.etcdMember("$(POD_NAME)"), etcdPeerPort),
			"listen-metrics-urls":         fmt.Sprintf("http://0.0.0.0:%d", etcdMetricsPort),
			"initial-cluster":             l.etcdInitialCluster(),
			"initial-cluster-token":       l.namespace,
			"initial-cluster-state":       "new",
			"client-cert-auth":            "true",
			"cert-file":                   file(etcdServerSecret, keystore.CertificateKey),
			"key-file":                    file(etcdServerSecret, keystore.PrivateKeyKey),
			"trusted-ca-file":             file(etcdServerSecret, keystore.AuthorityKey),
			"peer-client-cert-auth":       "true",
			"peer-cert-file":              file(etcdPeerSecret, keystore.CertificateKey),
			"peer-key-file":               file(etcdPeerSecret, keystore.PrivateKeyKey),
			"peer-trusted-ca-file":        file(etcdPeerSecret, keystore.AuthorityKey),
		},
		env:      []corev1.EnvVar{fieldEnv("POD_NAME", "metadata.name")},
		requests: requests("20m", "64Mi"),
		ports:    []corev1.ContainerPort{port("client", etcdClientPort), port("peer", etcdPeerPort), port("metrics", etcdMetricsPort)},
		mounts:   []corev1.VolumeMount{pkiMount(), {Name: dataVolume, MountPath: etcdDataDir}},
		volumes: []corev1.Volume{pkiVolume(
			keys(etcdServerSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
			keys(etcdPeerSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
		)},
		claims:      []corev1.PersistentVolumeClaim{claim},
		service:     etcdService,
		readiness:   get(corev1.URISchemeHTTP, etcdMetricsPort, "/readyz"),
		liveness:    get(corev1.URISchemeHTTP, etcdMetricsPort, "/livez"),
		gracePeriod: 30,
		template:    l.version.ETCD,
	})
}

// etcdClaim returns the claim for etcd's volume and how large the database may become in it.
func (l layout) etcdClaim() (corev1.PersistentVolumeClaim, int64) {
	size := resource.MustParse(defaultEtcdSize)
	var class *string
	if l.version.ETCD != nil && l.version.ETCD.Storage != nil {
		storage := l.version.ETCD.Storage
		class = storage.StorageClassName
		// The CRD's pattern admits quantities only.
		if q, err := resource.ParseQuantity(storage.Size); err == nil && q.Sign() > 0 {
			size = q
		}
	}
	claim := corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: dataVolume, Labels: l.meta("", names.Etcd).Labels},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: class,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}
	// A quarter is left for the write-ahead log and snapshots.
	return claim, min(size.Value()/4*3, maxEtcdQuota)
}

// etcdInitialCluster lists the members, which are fixed when the cluster is made.
func (l layout) etcdInitialCluster() string {
	var members []string
	for i := range l.etcdReplicas() {
		name := fmt.Sprintf("%s-%d", names.Etcd, i)
		members = append(members, fmt.Sprintf("%s=https://%s:%d", name, l.etcdMember(name), etcdPeerPort))
	}
	return strings.Join(members, ",")
}

// etcdReplicas returns the number of etcd's members, which a raw template may say.
func (l layout) etcdReplicas() int32 {
	if set := rawSet(l.version.ETCD); set != nil && set.Spec.Replicas != nil {
		return *set.Spec.Replicas
	}
	return l.replicas
}

// etcdMember returns the host name of a member.
func (l layout) etcdMember(pod string) string {
	return fmt.Sprintf("%s.%s.%s.svc", pod, etcdService, l.namespace)
}
