package pods

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// usual is a pod of a Deployment that runs, as API servers store it.
func usual(i int) *corev1.Pod {
	name := fmt.Sprintf("web-7c9d8b6f5d-%05d", i)
	at := metav1.NewTime(start)
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}, PeriodSeconds: 10}
	resources := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("100m"), corev1.ResourceMemory: apiresource.MustParse("128Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: apiresource.MustParse("256Mi")},
	}
	return pod(func(p *corev1.Pod) {
		p.Name, p.UID = name, types.UID(fmt.Sprintf("6f1d2f2e-5a3a-4f0e-9d8e-%012d", i))
		p.Labels = map[string]string{"app.kubernetes.io/name": "web", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7c9d8b6f5d"}
		p.Annotations = map[string]string{"prometheus.io/scrape": "true", "checksum/config": "3b1f9d2f6c0e4a5b8d7c6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-7c9d8b6f5d", UID: "0d9e8f7a-1b2c-3d4e-5f60-718293a4b5c6", Controller: new(true), BlockOwnerDeletion: new(true)}}
		for _, manager := range []string{"kube-controller-manager", names.Syncer} {
			p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, Time: &at, FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", 1500))})
		}
		p.Spec.NodeName = "node-17.example.com"
		p.Spec.Containers = []corev1.Container{{
			Name: "main", Image: "registry.example.com/shop/web:v1.2.3", Command: []string{"/bin/web"}, Args: []string{"--listen=:8080", "--log=json"},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env: []corev1.EnvVar{
				{Name: "DATABASE", Value: "postgres://db.shop.svc.cluster.local:5432/shop"}, {Name: "LEVEL", Value: "info"}, {Name: "REGION", Value: "eu-central-1"},
				{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}, Key: "password"}}},
				{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "config", MountPath: "/etc/web"}, {Name: "tmp", MountPath: "/tmp"},
				{Name: "kube-api-access-x7x2p", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"},
			},
			Resources: resources, LivenessProbe: probe, ReadinessProbe: probe.DeepCopy(),
			SecurityContext:        &corev1.SecurityContext{RunAsNonRoot: new(true), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile, ImagePullPolicy: corev1.PullIfNotPresent,
		}}
		p.Spec.Tolerations = []corev1.Toleration{
			{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
			{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(300))},
		}
		p.Spec.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "web"}, DefaultMode: new(int32(420))}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "kube-api-access-x7x2p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: new(int32(420)), Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3607))}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: names.RootCAConfigMap}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
			}}}},
		}
		p.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "192.0.2.17", PodIP: "10.1.2.3", HostIPs: []corev1.HostIP{{IP: "192.0.2.17"}}, PodIPs: []corev1.PodIP{{IP: "10.1.2.3"}},
			StartTime: &at, QOSClass: corev1.PodQOSBurstable,
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}, Ready: true, Started: new(true),
				Image: "registry.example.com/shop/web:v1.2.3", ImageID: "registry.example.com/shop/web@sha256:3b1f9d2f6c0e4a5b8d7c6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b",
				ContainerID:        "containerd://3b1f9d2f6c0e4a5b8d7c6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b",
				AllocatedResources: resources.Requests, Resources: resources.DeepCopy(),
			}},
		}
		for _, condition := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: at})
		}
	})
}

// usualReplica is its replica.
func usualReplica(i int) *corev1.Pod {
	p := usual(i)
	for _, label := range []string{names.LabelTenant, names.LabelManagedBy} {
		p.Labels[label] = string(tenantID)
	}
	p.Annotations[names.AnnotationNamespace], p.Annotations[names.AnnotationUID] = p.Namespace, string(p.UID)
	p.Annotations[names.AnnotationKeys] = "a:checksum/config,a:prometheus.io/scrape,l:app.kubernetes.io/name,l:app.kubernetes.io/part-of,l:pod-template-hash"
	p.Namespace = names.SuperNamespace(tenantID, p.Namespace)
	return p
}

// BenchmarkMemoryPerPod reports what a cached pod costs, on each side, in bytes of heap.
func BenchmarkMemoryPerPod(b *testing.B) {
	const many = 10000
	k := Kind("")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, stored := range map[string]func(int) *corev1.Pod{"Tenant": usual, "Super": usualReplica} {
		for _, trimmed := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/Trimmed=%v", name, trimmed), func(b *testing.B) {
				for b.Loop() {
					before, cached := heap(), [many]*corev1.Pod{}
					for i := range cached {
						raw, err := stored(i).Marshal()
						if err != nil {
							b.Fatal(err)
						}
						cached[i] = &corev1.Pod{} // with strings of its own, as it comes from an API server
						if err := cached[i].Unmarshal(raw); err != nil {
							b.Fatal(err)
						}
						if trimmed {
							k.Trim(cached[i])
						}
					}
					b.ReportMetric(float64(heap()-before)/many, "B/pod")
					runtime.KeepAlive(&cached)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
