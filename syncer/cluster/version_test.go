package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// What is read is asked for in JSON: only there unknown fields have names.
func TestAskingANewerServer(t *testing.T) {
	answers := map[string]string{
		"/version":                       `{"major":"1","minor":"37","gitVersion":"v1.37.1"}`,
		"/api/v1/namespaces/ns/pods/web": `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"color":"red"}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok || r.Header.Get("Accept") != "application/json" {
			http.Error(w, fmt.Sprintf("%s as %s", r.URL.Path, r.Header.Get("Accept")), http.StatusNotAcceptable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(answer)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	c, err := NewClient(&rest.Config{Host: server.URL}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	isNewer, err := c.Newer(t.Context())
	fields, fieldsErr := c.Unknown(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}})
	if err := errors.Join(err, fieldsErr); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"spec.color"}, fields); diff != "" || !isNewer {
		t.Errorf("newer is %v, fields -want +got\n%s", isNewer, diff)
	}
}

// The version that the code says it knows is that of the types it is built with.
func TestKnownVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\tk8s\.io/api v0\.(\d+)\.`).FindSubmatch(mod)
	if found == nil {
		t.Fatal("go.mod does not require k8s.io/api")
	}
	if want := "1." + string(found[1]); knownVersion != want {
		t.Errorf("knownVersion is %s, the types are of %s", knownVersion, want)
	}
}

func TestNewer(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.34.4": false, "v1.36.3": false, "v1.36.99": false, "v1.36.3+k3s1": false, "v1.37.1": true, "v1.37.0-alpha.1": true,
		"v1.38.0-gke.100": true, "v2.0.0": true, "v0.99.0": false,
	} {
		t.Run(version, func(t *testing.T) {
			got, err := newer(version)
			if err != nil || got != want {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		})
	}
	if _, err := newer("someday"); err == nil {
		t.Error("what is no version is read as one")
	}
}

func TestUnknown(t *testing.T) {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"META},"spec":{"containers":[{"name":"main"MORE}]SPEC},"status":{"phase":"Running"STATUS}}`
	for name, tc := range map[string]struct {
		in   map[string]string
		want []string
	}{
		"Nothing":  {},
		"Spec":     {in: map[string]string{"SPEC": `,"color":"red"`}, want: []string{"spec.color"}},
		"InAList":  {in: map[string]string{"MORE": `,"volumeMounts":[{"name":"a","color":"red"}]`}, want: []string{"spec.containers[0].volumeMounts[0].color"}},
		"Several":  {in: map[string]string{"MORE": `,"a":1`, "SPEC": `,"b":2`}, want: []string{"spec.containers[0].a", "spec.b"}},
		"Metadata": {in: map[string]string{"META": `,"color":"red"`}},
		"Status":   {in: map[string]string{"STATUS": `,"color":"red"`}},
	} {
		t.Run(name, func(t *testing.T) {
			body := pod
			for _, place := range []string{"META", "MORE", "SPEC", "STATUS"} {
				body = strings.ReplaceAll(body, place, tc.in[place])
			}
			got, err := unknown([]byte(body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	if _, err := unknown([]byte(`{"apiVersion":"v1","kind":"Pod","spec":[]}`)); err == nil {
		t.Error("what cannot be read has no error")
	}
}
