package syncer

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// blackHole returns the address of a listener that accepts and never answers.
func blackHole(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
		}
	}()
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		<-done
		for _, conn := range conns {
			_ = conn.Close() // whoever called may have closed it
		}
	})
	return "https://" + listener.Addr().String()
}

// external returns an External VirtualCluster and the Secret with its kubeconfig.
func external(t *testing.T, name, server string, ca []byte) []client.Object {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "token"}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	content, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Namespace: "tenants", Name: name, UID: types.UID("uid-" + name)}
	return []client.Object{
		&corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{names.KubeconfigKey: content}},
		&tenancyv1alpha1.VirtualCluster{ObjectMeta: meta, Spec: tenancyv1alpha1.VirtualClusterSpec{ControlPlane: tenancyv1alpha1.ControlPlaneSpec{
			Type:     tenancyv1alpha1.External,
			External: &tenancyv1alpha1.ExternalControlPlane{KubeconfigSecret: tenancyv1alpha1.SecretKeyReference{Name: name}},
		}}},
	}
}

// Control planes that do not answer keep nobody from following the others.
func TestControlPlanesThatDoNotAnswerHoldNobodyUp(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		if _, err := out.Write([]byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","uid":"identity"}}`)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, tenancyv1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	hole := blackHole(t)
	super := fake.NewClientBuilder().WithScheme(s).WithStatusSubresource(&tenancyv1alpha1.VirtualCluster{}).
		WithObjects(external(t, "dark", hole, ca)...).WithObjects(external(t, "bright", server.URL, ca)...).Build()
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan types.NamespacedName, 10)
	f := &follower{client: super, live: super, contacts: newContacts(ctx, func(vc types.NamespacedName) { answered <- vc })}

	spec := func(name string) *tenancyv1alpha1.VirtualCluster {
		t.Helper()
		vc := &tenancyv1alpha1.VirtualCluster{}
		if err := super.Get(t.Context(), client.ObjectKey{Namespace: "tenants", Name: name}, vc); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := f.spec(t.Context(), vc); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > contactTimeout/2 {
			t.Errorf("it took %s to look at %s", took, name)
		}
		return vc
	}
	if vc := spec("dark"); vc.Status.ControlPlaneUID != "" {
		t.Errorf("nobody answered, and %s is recorded", vc.Status.ControlPlaneUID)
	}
	spec("dark") // once more, while it is being asked
	spec("bright")
	if vc := <-answered; vc.Name != "bright" {
		t.Errorf("%s answered", vc)
	}
	if vc := spec("bright"); vc.Status.ControlPlaneUID != "identity" {
		t.Errorf("identity is %q", vc.Status.ControlPlaneUID)
	}
	cancel() // as the deadline does
	if vc := <-answered; vc.Name != "dark" {
		t.Errorf("%s was answered", vc)
	}
	dark := &tenancyv1alpha1.VirtualCluster{}
	if err := super.Get(t.Context(), client.ObjectKey{Namespace: "tenants", Name: "dark"}, dark); err != nil {
		t.Fatal(err)
	}
	if _, err := f.spec(t.Context(), dark); err == nil {
		t.Error("that it could not be contacted is not told")
	}
}

// An answer is of the control plane that was asked, and of no other that has taken its place since.
func TestAnswersOfOtherControlPlanesDoNotCount(t *testing.T) {
	vc := types.NamespacedName{Namespace: "tenants", Name: "moved"}
	answered := make(chan types.NamespacedName)
	c := newContacts(t.Context(), func(vc types.NamespacedName) { answered <- vc })
	c.ask = func(config *rest.Config) (types.UID, error) { return types.UID(config.Host), nil }
	identity := func(host string) types.UID {
		t.Helper()
		uid, err := c.identity(vc, "hash of "+host, &rest.Config{Host: host})
		if err != nil {
			t.Fatal(err)
		}
		return uid
	}
	if got := identity("old"); got != "" {
		t.Errorf("got %s before the answer", got)
	}
	<-answered
	if got := identity("new"); got != "" {
		t.Errorf("got %s for another one", got)
	}
	<-answered
	if got := identity("new"); got != "new" {
		t.Errorf("got %q", got)
	}
	c.forget(vc)
	if len(c.asked) > 0 {
		t.Errorf("%v is remembered", c.asked)
	}
}
