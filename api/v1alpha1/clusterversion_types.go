package v1alpha1

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultVersionAnnotation marks, with the value "true", the ClusterVersion used by VirtualClusters that name none.
const DefaultVersionAnnotation = "tenancy.x-k8s.io/is-default-version"

// ClusterVersion is a catalogue entry: a Kubernetes version with the images, flags and resources its control plane
// components run with.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=cv,categories=tenancy
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="Default",type=string,JSONPath=`.metadata.annotations.tenancy\.x-k8s\.io/is-default-version`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterVersion struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec ClusterVersionSpec `json:"spec,omitzero"`
	// +optional
	Status ClusterVersionStatus `json:"status,omitzero"`
}

// ClusterVersionSpec describes the components. A component either has a raw StatefulSet (and Service), which is then
// used as written with what only the provisioner knows filled in, or is built from image, arguments and resources.
//
// +kubebuilder:validation:XValidation:rule="has(self.version) || (has(self.apiServer) && has(self.apiServer.statefulset))",message="set version (for instance v1.36.3), or give raw StatefulSets for the components"
type ClusterVersionSpec struct {
	// Version of Kubernetes, for instance v1.36.3.
	// +kubebuilder:validation:Pattern=`^v[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?$`
	// +optional
	Version string `json:"version,omitempty"`
	// ImageRegistry takes the place of registry.k8s.io in the images that this ClusterVersion does not name, for instance
	// registry.example.com:5000/k8s. When empty, that of vc-manager.
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)?$')",message="write host[:port][/path], without a scheme such as https:// and without a slash at the end"
	// +optional
	ImageRegistry string `json:"imageRegistry,omitempty"`
	// ImagePullSecrets names Secrets in the namespace of vc-manager with credentials for the images of control planes. They
	// are copied into the root namespaces. When empty, those of vc-manager.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.name != '')",message="each entry needs the name of a Secret"
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// ETCD is the tenant's own etcd.
	// +optional
	ETCD *ComponentTemplate `json:"etcd,omitempty"`
	// APIServer is the tenant's kube-apiserver.
	// +optional
	APIServer *ComponentTemplate `json:"apiServer,omitempty"`
	// ControllerManager is the tenant's kube-controller-manager.
	// +optional
	ControllerManager *ComponentTemplate `json:"controllerManager,omitempty"`
	// Scheduler is the tenant's kube-scheduler, run when the VirtualCluster asks for one.
	// +optional
	Scheduler *ComponentTemplate `json:"scheduler,omitempty"`
	// CoreDNS is the cluster DNS installed into tenants.
	// +optional
	CoreDNS *ImageTemplate `json:"coreDNS,omitempty"`
}

// ImageTemplate names a container image.
type ImageTemplate struct {
	// Image reference. When empty, the upstream image that belongs to the Kubernetes version.
	// +optional
	Image string `json:"image,omitempty"`
	// ImagePullSecrets names Secrets in the namespace of vc-manager with credentials for the image. They are copied into the
	// namespace kube-system of tenants, who can read them: let them be good for pulling this image only. When empty, those
	// of vc-manager.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(s, s.name != '')",message="each entry needs the name of a Secret"
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
}

// ComponentTemplate describes one component of the control plane.
type ComponentTemplate struct {
	// Image reference. When empty, the upstream image that belongs to the Kubernetes version.
	// +optional
	Image string `json:"image,omitempty"`
	// ExtraArgs are flags added to, or replacing, the ones the provisioner sets; without leading dashes.
	// +optional
	ExtraArgs map[string]string `json:"extraArgs,omitempty"`
	// Env of the container.
	// +listType=map
	// +listMapKey=name
	// +optional
	Env []corev1.EnvVar `json:"env,omitempty"`
	// Resources of the container.
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// Storage of etcd. Ignored for other components.
	// +optional
	Storage *StorageTemplate `json:"storage,omitempty"`

	// ObjectMeta, StatefulSet and Service are a raw template, as in the retired project's ClusterVersion.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +optional
	ObjectMeta metav1.ObjectMeta `json:"metadata,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +optional
	StatefulSet *appsv1.StatefulSet `json:"statefulset,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +optional
	Service *corev1.Service `json:"service,omitempty"`

	// APIVersion is ignored. Early samples of the retired project have it here.
	// +optional
	APIVersion string `json:"apiVersion,omitempty"`
	// Kind is ignored, like apiVersion.
	// +optional
	Kind string `json:"kind,omitempty"`
}

// StorageTemplate describes the volume of etcd.
type StorageTemplate struct {
	// StorageClassName of the claim. When empty, the super cluster's default class.
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// Size of the claim, for instance 2Gi.
	// +kubebuilder:default="2Gi"
	// +kubebuilder:validation:Pattern=`^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti)?$`
	// +optional
	Size string `json:"size,omitempty"`
}

// ClusterVersionStatus is what was observed.
type ClusterVersionStatus struct{}

// ClusterVersionList is a list of ClusterVersions.
//
// +kubebuilder:object:root=true
type ClusterVersionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterVersion `json:"items"`
}
