// Package v1alpha1 holds the API of VirtualCluster: the kinds VirtualCluster and ClusterVersion of group
// tenancy.x-k8s.io. It is a field-compatible superset of the API of the same group and version that the retired
// kubernetes-sigs project defined, so that manifests written for it apply unchanged. It contains types, markers and
// the names of conditions and reasons, nothing that does work.
//
// +kubebuilder:object:generate=true
// +groupName=tenancy.x-k8s.io
package v1alpha1
