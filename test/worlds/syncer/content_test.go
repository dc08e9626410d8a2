package syncer_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// superSecret waits until the replica of a Secret has the data.
func (r *running) superSecret(t *testing.T, of tenant, namespace, name string, want map[string][]byte) *corev1.Secret {
	t.Helper()
	got := &corev1.Secret{}
	worlds.Eventually(t, limit, "the data of Secret "+name+" in the super cluster", func(ctx context.Context) error {
		*got = corev1.Secret{}
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: names.SuperSecret(name)}, got); err != nil {
			return err
		}
		if !maps.EqualFunc(got.Data, want, bytes.Equal) {
			return fmt.Errorf("it has %d keys", len(got.Data))
		}
		return nil
	})
	return got
}

func secret(name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

// Whatever happens to a Secret on either side, the replica has the content of the tenant's Secret.
func TestContentOfSecrets(t *testing.T) {
	const ns = "content"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	secrets := of.CoreV1().Secrets(ns)
	data := func(v string) map[string][]byte { return map[string][]byte{"a": []byte(v), "b": []byte("b")} }
	s, err := secrets.Create(t.Context(), secret("s", data("1")), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	usingPod(t, of, ns, "p", "", "s") // it is referenced later
	super := r.superSecret(t, of, ns, "s", data("1"))

	t.Run("Update", func(t *testing.T) {
		s.Data, s.Labels = data("2"), map[string]string{"flows": "web"}
		if s, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := r.superSecret(t, of, ns, "s", data("2")); got.Labels["flows"] != "web" {
			t.Errorf("labels are %v", got.Labels)
		}
	})
	for name, edit := range map[string]string{
		"ValueEdited": `{"data":{"a":"ZWRpdGVk"}}`,
		"KeyAdded":    `{"data":{"c":"ZWRpdGVk"}}`,
		"KeyRemoved":  `{"data":{"b":null}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.client.Patch(t.Context(), super.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(edit))); err != nil {
				t.Fatal(err)
			}
			r.superSecret(t, of, ns, "s", data("2"))
		})
	}
	r.stop()
	if err := r.client.Patch(t.Context(), super.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"data":{"b":null}}`))); err != nil {
		t.Fatal(err)
	}
	r.run(t)
	r.superSecret(t, of, ns, "s", data("2")) // what was edited while nobody watched is repaired
	t.Run("Immutable", func(t *testing.T) {
		s.Immutable = new(true)
		if s, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		worlds.Eventually(t, limit, "the replica to be immutable", func(ctx context.Context) error {
			var got corev1.Secret
			if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), &got); err != nil {
				return err
			}
			if got.Immutable == nil {
				return errors.New("it is not")
			}
			return nil
		})
	})
	t.Run("RecreatedWithAnotherType", func(t *testing.T) {
		if err := secrets.Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		auth := secret("s", map[string][]byte{"username": []byte("u"), "password": bytes.Repeat([]byte("p"), 1<<20-1000)})
		auth.Type = corev1.SecretTypeBasicAuth
		if _, err := secrets.Create(t.Context(), auth, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := r.superSecret(t, of, ns, "s", auth.Data); got.Type != corev1.SecretTypeBasicAuth || got.Immutable != nil {
			t.Errorf("type is %s, immutable is %v", got.Type, got.Immutable)
		}
	})
}

// ConfigMaps have two kinds of data.
func TestContentOfConfigMaps(t *testing.T) {
	const ns = "content-cm"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	in := worlds.ConfigMap(ns, "c", map[string]string{"a": "1"})
	in.BinaryData = map[string][]byte{"b": {0xff, 0}}
	if _, err := of.CoreV1().ConfigMaps(ns).Create(t.Context(), in, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	usingPod(t, of, ns, "p", "c", "")
	super := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: of.super(ns), Name: names.SuperConfigMap("c")}}
	same := func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), super); err != nil {
			return err
		}
		if !maps.Equal(super.Data, in.Data) || !maps.EqualFunc(super.BinaryData, in.BinaryData, bytes.Equal) {
			return fmt.Errorf("data is %v, %v", super.Data, super.BinaryData)
		}
		return nil
	}
	worlds.Eventually(t, limit, "the ConfigMap", same)
	edit := client.RawPatch(types.MergePatchType, []byte(`{"binaryData":{"b":"AAAA"}}`))
	if err := r.client.Patch(t.Context(), super.DeepCopy(), edit); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the ConfigMap to be repaired", same)
}

// read counts the objects of a resource that were read from an API server one by one.
func read(t *testing.T, world *worlds.World, resource string) (n int) {
	t.Helper()
	body, err := world.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "apiserver_request_total{") && strings.Contains(line, `resource="`+resource+`"`) && strings.Contains(line, `verb="GET"`) {
			var more float64
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &more); err != nil {
				t.Fatal(err)
			}
			n += int(more)
		}
	}
	return n
}

// unused is the number of Secrets that no pod uses in TestContentIsNotCached.
var unused = flag.Int("unused-secrets", 300, "")

// Content costs memory only while it is copied, and reads only when it has changed.
func TestContentIsNotCached(t *testing.T) {
	const ns, size = "unused", 100 << 10
	all := worlds.Start(t, options(1))
	if err := installRights(t.Context(), all.Super); err != nil {
		t.Fatal(err)
	}
	r := startIn(t, all)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	create := func(s *corev1.Secret) {
		t.Helper()
		if _, err := of.CoreV1().Secrets(ns).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	usingPod(t, of, ns, "p", "c", "s")
	used := map[string][]byte{"k": []byte("v")}
	create(secret("s", used))
	if _, err := of.CoreV1().ConfigMaps(ns).Create(t.Context(), worlds.ConfigMap(ns, "c", map[string]string{"k": "v"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.superSecret(t, of, ns, "s", used)
	r.superPod(t, of, ns, "p")

	t.Run("Memory", func(t *testing.T) {
		before := heap()
		for i := range *unused {
			s := secret(fmt.Sprintf("unused-%d", i), map[string][]byte{"k": bytes.Repeat([]byte{byte(i)}, size)})
			s.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: strings.Repeat("x", 1<<10)}
			create(s)
		}
		usingPod(t, of, ns, "last", "", "last")
		create(secret("last", used))
		r.superSecret(t, of, ns, "last", used)
		grown := int64(heap()) - int64(before)
		t.Logf("%d Secrets of %d KiB: %.1f MiB, %d bytes each", *unused, size>>10, float64(grown)/(1<<20), grown/int64(*unused))
		if grown > int64(*unused)*size/10 {
			t.Errorf("they cost %d bytes", grown)
		}
	})
	r.stop()
	counts := func() map[string]int {
		return map[string]int{
			"secrets of the tenant": read(t, all.Tenants[0], "secrets"), "configmaps of the tenant": read(t, all.Tenants[0], "configmaps"),
			"configmaps of the super cluster": read(t, all.Super, "configmaps"),
		}
	}
	before := counts()
	r.run(t)
	of.world.MakePod(t, worlds.Pod(ns, "after-restart"))
	r.superPod(t, of, ns, "after-restart")
	for what, n := range counts() {
		if n != before[what] {
			t.Errorf("%d %s were read after a restart", n-before[what], what)
		}
	}
	t.Run("SharedFieldIsReadOnce", func(t *testing.T) {
		before := read(t, all.Super, "configmaps")
		same := applycorev1.ConfigMap(names.SuperConfigMap("c"), of.super(ns)).WithData(map[string]string{"k": "v"})
		_, err := all.Super.Client.CoreV1().ConfigMaps(of.super(ns)).Apply(t.Context(), same, metav1.ApplyOptions{FieldManager: "operator"})
		if err != nil {
			t.Fatal(err)
		}
		once := func(context.Context) error {
			if n := read(t, all.Super, "configmaps") - before; n != 1 {
				return fmt.Errorf("it was read %d times", n)
			}
			return nil
		}
		worlds.Eventually(t, limit, "the replica to be compared", once)
		worlds.Throughout(t, 5*time.Second, "patrols do not compare again", once)
	})
}
