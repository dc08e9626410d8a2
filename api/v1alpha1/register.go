package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of every kind in this package.
const Group = "tenancy.x-k8s.io"

// Version is the API version of every kind in this package.
const Version = "v1alpha1"

// GroupVersion returns the group and version of every kind in this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// Resource qualifies a resource name with the group.
func Resource(resource string) schema.GroupResource {
	return GroupVersion().WithResource(resource).GroupResource()
}

// AddToScheme registers the kinds of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(),
		&VirtualCluster{}, &VirtualClusterList{},
		&ClusterVersion{}, &ClusterVersionList{},
		&SyncPolicy{}, &SyncPolicyList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
