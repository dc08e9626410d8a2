// Package manager_test runs vc-manager against a real API server of a super cluster, with no more rights than it is installed
// with, and control planes that exist already. There are no nodes: what needs pods that run is tested end to end.
package manager_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// patience is for what happens within a second on an idle machine.
	patience = 30 * time.Second
	// tenants is the namespace that the tests' VirtualClusters are in.
	tenants = "tenants"
)

func TestMain(m *testing.M) {
	// Managers have loggers of their own; this is for what comes before them.
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// fixture is a super cluster with a vc-manager that has the rights it is installed with, and no others.
type fixture struct {
	*testing.T
	client.Client
}

// startManager starts vc-manager against a super cluster for one test.
func startManager(t *testing.T, super *worlds.World, change ...func(*controllers.Options)) fixture {
	t.Helper()
	return startManagerBy(t, super, super.Config, change...)
}

// startManagerBy does the same with a vc-manager that reaches the super cluster in a certain way.
func startManagerBy(t *testing.T, super *worlds.World, way *rest.Config, change ...func(*controllers.Options)) fixture {
	t.Helper()
	scheme, err := controllers.NewScheme()
	if err != nil {
		t.Fatalf("NewScheme: %v", err)
	}
	admin, err := client.New(super.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatalf("client.New: %v", err)
	}
	f := fixture{T: t, Client: admin}
	f.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenants}})
	f.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "vc-system"}})
	f.installRights()

	o := controllers.Options{
		Namespace: "vc-system", ServiceCIDRPool: "auto", ServiceCIDRSize: "auto", LeaderElect: true, MetricsAddress: "0", ProbeAddress: "0",
		Workers: 10, ShutdownTimeout: 10 * time.Second, Registry: prometheus.NewRegistry(), SkipNameValidation: true,
	}
	for _, apply := range change {
		apply(&o)
	}
	config := rest.CopyConfig(way)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:vc-system:vc-manager"}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- controllers.Run(ctx, config, o, testr.New(t)) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("vc-manager ended with: %v", err)
		}
	})
	return f
}

// installRights gives the service account of vc-manager the rights of config/rbac.
func (f fixture) installRights() {
	f.Helper()
	root, err := worlds.ModuleRoot()
	if err != nil {
		f.Fatalf("ModuleRoot: %v", err)
	}
	file, err := os.Open(filepath.Join(root, "config", "rbac", "vc-manager", "role.yaml"))
	if err != nil {
		f.Fatalf("opening the rights: %v", err)
	}
	defer func() { _ = file.Close() }()
	decoder := utilyaml.NewYAMLOrJSONDecoder(file, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			break
		}
		f.create(object)
	}
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "vc-system", Name: "vc-manager"}}
	f.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "vc-manager"}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "vc-manager"},
	})
	f.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vc-system", Name: "vc-manager"}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "vc-manager"},
	})
}

func (f fixture) create(object client.Object) {
	f.Helper()
	if err := f.Create(f.Context(), object); err != nil {
		f.Fatalf("creating %T %s: %v", object, object.GetName(), err)
	}
}

func (f fixture) delete(object client.Object) {
	f.Helper()
	if err := f.Delete(f.Context(), object); err != nil {
		f.Fatalf("deleting %T %s: %v", object, object.GetName(), err)
	}
}

// virtualCluster creates a VirtualCluster.
func (f fixture) virtualCluster(name string, spec tenancyv1alpha1.VirtualClusterSpec) *tenancyv1alpha1.VirtualCluster {
	f.Helper()
	vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenants, Name: name}, Spec: spec}
	f.create(vc)
	return vc
}

// version creates a ClusterVersion.
func (f fixture) version(name string, isDefault string) *tenancyv1alpha1.ClusterVersion {
	f.Helper()
	version := &tenancyv1alpha1.ClusterVersion{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{tenancyv1alpha1.DefaultVersionAnnotation: isDefault}},
		Spec:       tenancyv1alpha1.ClusterVersionSpec{Version: "v1.36.3"},
	}
	f.create(version)
	return version
}

// eventually waits until a check of the VirtualCluster succeeds, and returns it as it was then.
func (f fixture) eventually(vc *tenancyv1alpha1.VirtualCluster, what string, check func(*tenancyv1alpha1.VirtualCluster) error) *tenancyv1alpha1.VirtualCluster {
	f.Helper()
	current := &tenancyv1alpha1.VirtualCluster{}
	worlds.Eventually(f.T, patience, what, func(ctx context.Context) error {
		if err := f.Get(ctx, client.ObjectKeyFromObject(vc), current); err != nil {
			return err
		}
		if err := check(current); err != nil {
			return fmt.Errorf("%w; the status is %s", err, describe(current))
		}
		return nil
	})
	return current
}

// awaitCondition waits until a condition is what is wanted.
func (f fixture) awaitCondition(vc *tenancyv1alpha1.VirtualCluster, kind string, status metav1.ConditionStatus, reason, message string) *tenancyv1alpha1.VirtualCluster {
	f.Helper()
	return f.eventually(vc, kind+" to be "+string(status)+" because of "+reason, func(vc *tenancyv1alpha1.VirtualCluster) error {
		condition := apimeta.FindStatusCondition(vc.Status.Conditions, kind)
		if condition == nil || condition.Status != status || condition.Reason != reason || !strings.Contains(condition.Message, message) {
			return fmt.Errorf("the condition is %+v", condition)
		}
		return nil
	})
}

// awaitStalled waits until a step needs a person, and says so everywhere it should.
func (f fixture) awaitStalled(vc *tenancyv1alpha1.VirtualCluster, kind, reason, message string) *tenancyv1alpha1.VirtualCluster {
	f.Helper()
	f.awaitCondition(vc, kind, metav1.ConditionFalse, reason, message)
	f.awaitCondition(vc, tenancyv1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	current := f.awaitCondition(vc, tenancyv1alpha1.ConditionStalled, metav1.ConditionTrue, reason, message)
	if current.Status.Phase != tenancyv1alpha1.PhaseError || current.Status.Reason != reason || !strings.Contains(current.Status.Message, message) {
		f.Errorf("phase %s, reason %s, message %q do not say what the condition says", current.Status.Phase, current.Status.Reason, current.Status.Message)
	}
	if current.Status.ObservedGeneration != current.Generation {
		f.Errorf("observedGeneration is %d, want %d", current.Status.ObservedGeneration, current.Generation)
	}
	return current
}

func (f fixture) awaitReady(vc *tenancyv1alpha1.VirtualCluster) *tenancyv1alpha1.VirtualCluster {
	f.Helper()
	current := f.awaitCondition(vc, tenancyv1alpha1.ConditionReady, metav1.ConditionTrue, "Succeeded", "")
	for _, abnormal := range []string{tenancyv1alpha1.ConditionStalled, tenancyv1alpha1.ConditionReconciling} {
		if apimeta.FindStatusCondition(current.Status.Conditions, abnormal) != nil {
			f.Errorf("is ready with the condition %s: %s", abnormal, describe(current))
		}
	}
	if current.Status.Phase != tenancyv1alpha1.PhaseRunning || current.Status.ReadyAfterSeconds == nil {
		f.Errorf("is ready with the status %s", describe(current))
	}
	return current
}

// awaitGone waits until an object does not exist.
func (f fixture) awaitGone(object client.Object) {
	f.Helper()
	worlds.Eventually(f.T, patience, fmt.Sprintf("%T %s to be gone", object, object.GetName()), func(ctx context.Context) error {
		err := f.Get(ctx, client.ObjectKeyFromObject(object), object)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if vc, ok := object.(*tenancyv1alpha1.VirtualCluster); ok && err == nil {
			return errors.New(describe(vc))
		}
		return fmt.Errorf("it is there, or: %w", err)
	})
}

// quiet checks that nothing writes to a VirtualCluster for a while.
func (f fixture) quiet(vc *tenancyv1alpha1.VirtualCluster) {
	f.Helper()
	before := &tenancyv1alpha1.VirtualCluster{}
	if err := f.Get(f.Context(), client.ObjectKeyFromObject(vc), before); err != nil {
		f.Fatalf("Get: %v", err)
	}
	worlds.Throughout(f.T, 2*time.Second, "no write to the VirtualCluster", func(ctx context.Context) error {
		now := &tenancyv1alpha1.VirtualCluster{}
		if err := f.Get(ctx, client.ObjectKeyFromObject(vc), now); err != nil {
			return err
		}
		if now.ResourceVersion != before.ResourceVersion {
			return fmt.Errorf("it was written: %s", describe(now))
		}
		return nil
	})
}

func describe(vc *tenancyv1alpha1.VirtualCluster) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s %q", vc.Status.Phase, vc.Status.Reason, vc.Status.Message)
	for _, condition := range vc.Status.Conditions {
		fmt.Fprintf(&text, "; %s=%s %s %q", condition.Type, condition.Status, condition.Reason, condition.Message)
	}
	return text.String()
}
