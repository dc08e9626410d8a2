package virtualcluster

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

func TestVirtualClustersAreCounted(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := tenancyv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	vc := func(name string, status tenancyv1alpha1.VirtualClusterStatus) *tenancyv1alpha1.VirtualCluster {
		return &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "tenants", Name: name}, Status: status}
	}
	braked := metav1.Condition{Type: tenancyv1alpha1.ConditionSyncing, Status: metav1.ConditionFalse, Reason: "DeletionBrake"}
	running := tenancyv1alpha1.VirtualClusterStatus{Phase: tenancyv1alpha1.PhaseRunning, Conditions: []metav1.Condition{braked}}
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(vc("a", running), vc("b", running), vc("c", tenancyv1alpha1.VirtualClusterStatus{})).Build()
	registry := prometheus.NewRegistry()
	if _, err := NewMetrics(registry, reader); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP vc_manager_virtualcluster_conditions Number of VirtualClusters by type, status and reason of their conditions.
# TYPE vc_manager_virtualcluster_conditions gauge
vc_manager_virtualcluster_conditions{reason="DeletionBrake",status="False",type="Syncing"} 2
# HELP vc_manager_virtualclusters Number of VirtualClusters by phase.
# TYPE vc_manager_virtualclusters gauge
vc_manager_virtualclusters{phase="Pending"} 1
vc_manager_virtualclusters{phase="Running"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "vc_manager_virtualclusters", "vc_manager_virtualcluster_conditions"); err != nil {
		t.Error(err)
	}
}
