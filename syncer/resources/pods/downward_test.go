package pods

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// adding returns a world whose operator lets annotations of pods pass.
func adding(keys ...string) *world {
	w := newWorld()
	w.facts.Metadata = []resource.Metadata{{Kind: resource.Pods, Annotations: keys}}
	return w
}

// reads makes the pod's container read fields through a downward API volume and its environment, each twice.
func reads(paths ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, path := range slices.Concat(paths, paths) {
			ref := &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}
			n := strconv.Itoa(len(p.Spec.Volumes))
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v" + n, VolumeSource: corev1.VolumeSource{
				DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "f", FieldRef: ref}}},
			}})
			if path != "metadata.labels" && path != "metadata.annotations" {
				p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "E" + n, ValueFrom: &corev1.EnvVarSource{FieldRef: ref}})
			}
		}
	}
}

// annotated gives the pod annotations of the given sizes.
func annotated(sizes map[string]int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Annotations = map[string]string{}
		for key, size := range sizes {
			p.Annotations[key] = strings.Repeat("x", size)
		}
	}
}

func sizeOf(annotations map[string]string) int {
	size := 0
	for key, value := range annotations {
		size += len(key) + len(value)
	}
	return size
}

// Annotations that containers read go down in one copy more. The whole fits, whatever the tenant's API server let through,
// or the pod is refused with the limit.
func TestLargeAnnotations(t *testing.T) {
	const limit, kib = validation.TotalAnnotationSizeLimitB, 1 << 10
	all := "metadata.annotations"
	for name, tc := range map[string]struct {
		sizes  map[string]int
		change func(*corev1.Pod)
		copies []string // that are left
		reject bool
	}{
		"Small":         {map[string]int{"a": 10, "b": 20}, reads(all), []string{"a", "b"}, false},
		"NotRead":       {map[string]int{"a": 140 * kib, "b": 1}, reads(), []string{"a", "b"}, false},
		"FullNotRead":   {map[string]int{"a": limit - 2, "b": 0}, reads(), []string{"b"}, false},
		"Read":          {map[string]int{"a": 140 * kib, "b": 1}, reads(all), []string{"b"}, false},
		"OneOfThemRead": {map[string]int{"a": 140 * kib, "b": 1}, reads("metadata.annotations['a']"), []string{"b"}, false},
		"OtherRead":     {map[string]int{"a": 140 * kib, "b": 1}, reads("metadata.annotations['b']"), []string{"a", "b"}, false},
		"LargestFirst":  {map[string]int{"a": 50 * kib, "b": 60 * kib, "c": 40 * kib}, reads(all), []string{"a", "c"}, false},
		"SameSize":      {map[string]int{"a": 50 * kib, "b": 50 * kib, "c": 50 * kib}, reads(all), []string{"b", "c"}, false},
		"Manifold":      {map[string]int{"a": 80 * kib, "b": 1}, reads(all, "metadata.annotations['a']", "metadata.labels"), []string{"a", "b"}, false},
		"LargestToRead": {map[string]int{"a": 251 * kib}, reads(all), nil, false},
		"TooLarge":      {map[string]int{"a": 253 * kib}, reads(all), nil, true},
		"TwiceTooLarge": {map[string]int{"a": 140 * kib}, reads(all, "metadata.annotations['a']"), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			tenant := pod(annotated(tc.sizes), tc.change)
			if validation.ValidateAnnotationsSize(tenant.Annotations) != nil {
				t.Fatal("the tenant's API server refuses it")
			}
			got, err := down(t, adding("a", "b", "c"), tenant)
			if tc.reject {
				r, ok := resource.AsReject(err)
				if !ok || r.Reason != "AnnotationsTooLong" || !strings.Contains(r.Message, strconv.Itoa(limit)) || got != nil {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil || got == nil {
				t.Fatal(err)
			}
			if size := sizeOf(got.Annotations); size > limit-2*kib {
				t.Errorf("the annotations take %d bytes", size)
			}
			copies := slices.DeleteFunc(slices.Sorted(maps.Keys(got.Annotations)), func(key string) bool { return ours(key) })
			if diff := cmp.Diff(tc.copies, copies); diff != "" && len(tc.copies)+len(copies) > 0 {
				t.Errorf("copies (-want +got):\n%s", diff)
			}
			for _, volume := range got.Spec.Volumes {
				path := volume.DownwardAPI.Items[0].FieldRef.FieldPath
				if key, _ := subscript(path, all); got.Annotations[key] == "" {
					t.Errorf("nothing is shown at %s", path)
				}
			}
		})
	}
}

// The note of keys counts, too: many small annotations are as many bytes as a large one.
func TestManyAnnotations(t *testing.T) {
	tenant := pod(reads("metadata.annotations"), func(p *corev1.Pod) {
		p.Annotations = map[string]string{}
		for i := range 1500 {
			p.Annotations[strings.Repeat("k", 50)+strconv.Itoa(10000+i)] = "v"
		}
	})
	got := mustDown(t, adding("k*"), tenant)
	if size := sizeOf(got.Annotations); size > validation.TotalAnnotationSizeLimitB {
		t.Errorf("the annotations take %d bytes", size)
	}
	if lines := strings.Count(got.Annotations[downwardPrefix+"annotations"], "\n"); lines != 1499 {
		t.Errorf("%d lines are shown", lines+1)
	}
}

// An annotation of a running pod that grows goes down as long as it fits. After that it stays as it was, and whatever else
// changes in the pod flows.
func TestAnnotationsGrowInARunningPod(t *testing.T) {
	const kib = 1 << 10
	w := adding("a")
	sized := func(size int, label string) *corev1.Pod {
		return pod(annotated(map[string]int{"a": size}), reads("metadata.annotations", "metadata.labels"), bound, func(p *corev1.Pod) { p.Labels["app"] = label })
	}
	super := running(t, w, sized(10, "one"))
	for _, step := range []struct {
		size, shown int
		label       string
		reject      bool
	}{
		{10, 10, "two", false},
		{140 * kib, 140 * kib, "three", false},
		{253 * kib, 140 * kib, "four", true},
		{200 * kib, 200 * kib, "five", false},
		{20, 20, "six", false},
	} {
		ops, err := decide(w, sized(step.size, step.label), super)
		if _, rejected := resource.AsReject(err); rejected != step.reject || err != nil && !rejected {
			t.Fatalf("%d bytes: %v", step.size, err)
		}
		for _, op := range ops {
			if op.Side == resource.Super && op.Verb == resource.Patch {
				if super, err = patch(super, op); err != nil {
					t.Fatal(err)
				}
			}
		}
		shown := super.Annotations[downwardPrefix+"annotations"]
		if len(shown) != step.shown+len("a=\"\"") || super.Labels["app"] != step.label || super.Annotations[downwardPrefix+"labels"] != "app="+strconv.Quote(step.label) {
			t.Errorf("after %d bytes %d are shown, labels %v", step.size, len(shown), super.Labels)
		}
		if size := sizeOf(super.Annotations); size > validation.TotalAnnotationSizeLimitB {
			t.Errorf("after %d bytes the annotations take %d", step.size, size)
		}
		if _, copied := super.Annotations["a"]; copied != (step.size < 100*kib) {
			t.Errorf("after %d bytes the plain copy is there: %t", step.size, copied)
		}
	}
	if super.Annotations[names.AnnotationUID] != "tenant-uid" {
		t.Errorf("the marks of ownership are gone: %v", super.Annotations)
	}
}

// What an ephemeral container reads of the pod is there before the container is.
func TestEphemeralContainersReadMetadata(t *testing.T) {
	w := newWorld()
	tenant := pod(bound)
	super := running(t, w, tenant)
	changed := pod(bound, ephemeral("debug"), func(p *corev1.Pod) {
		p.Spec.EphemeralContainers[0].Env = []corev1.EnvVar{{Name: "APP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}}}
	})
	ops, err := decide(w, changed, super)
	if err != nil {
		t.Fatal(err)
	}
	path := ""
	for _, op := range ops {
		if op.Side != resource.Super {
			continue
		}
		if super, err = patch(super, op); err != nil {
			t.Fatal(err)
		}
		if op.Verb == resource.PatchEphemeral {
			env := super.Spec.EphemeralContainers[0].Env
			path = env[len(env)-1].ValueFrom.FieldRef.FieldPath
			break // the container starts now
		}
	}
	if got := kubeletReads(super, path); got != "web" {
		t.Errorf("at %q the container reads %q", path, got)
	}
}
