package engine

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// A wait counts from when it began, whatever it is for, and ends when the object is served or refused.
func TestWaitsThatLast(t *testing.T) {
	n, at := &notices{}, time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	web, other := witness{"pods", resource.Key{Name: "web"}}, witness{"pods", resource.Key{Name: "other"}}
	for _, step := range []struct {
		who   witness
		after time.Duration
		want  time.Duration
	}{
		{web, 0, 0},
		{web, 4 * time.Second, 4 * time.Second},
		{other, 0, 0},
		{web, 6 * time.Second, 10 * time.Second},
		{web, time.Second, 11 * time.Second},
	} {
		at = at.Add(step.after)
		if got := n.unresolvedFor(step.who, at); got != step.want {
			t.Errorf("%s waits for %s, want %s", step.who.key.Name, got, step.want)
		}
	}
	n.resolved(web)
	if got := n.unresolvedFor(web, at.Add(time.Hour)); got != 0 {
		t.Errorf("after it was served: %s", got)
	}
	n.resolved(web)
	n.resolved(other)
	if len(n.of) > 0 {
		t.Errorf("what is served is remembered: %v", n.of)
	}
}

// What is true is told again before it is forgotten, at once when it has become true once more, and not more often.
func TestWhatIsTrueIsToldAgain(t *testing.T) {
	web := witness{"pods", resource.Key{Tenant: "a", Name: "web"}}
	pod := &corev1.Pod{}
	pod.Name = "web"
	tell := func(message string) resource.Op {
		return resource.Tell(resource.View{}, pod, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, "Waiting", message)
	}
	type step struct {
		after   time.Duration
		says    string // nothing when the object is as it should be
		waits   bool
		refused bool // by the tenant's API server
		want    bool // the tenant is told
	}
	for name, steps := range map[string][]step{
		"Once": {{says: "a", want: true}, {after: time.Minute, says: "a"}},
		// Events live for an hour, by default.
		"BeforeItIsForgotten":       {{says: "a", want: true}, {after: 19 * time.Minute, says: "a"}, {after: time.Minute, says: "a", want: true}, {after: time.Minute, says: "a"}},
		"AWaitBeforeItIsForgotten":  {{says: "a", waits: true, want: true}, {after: 20 * time.Minute, says: "a", waits: true, want: true}},
		"AfterAFailedWrite":         {{says: "a", refused: true}, {after: time.Second, says: "a", want: true}, {after: time.Second, says: "a"}},
		"AfterItWasFixed":           {{says: "a", want: true}, {after: time.Minute}, {after: time.Second, says: "a", want: true}},
		"AWaitAfterItWasServed":     {{says: "a", waits: true, want: true}, {after: time.Minute}, {after: time.Second, says: "a", waits: true, want: true}},
		"SomethingElse":             {{says: "a", want: true}, {after: time.Minute, says: "b", want: true}, {after: time.Minute, says: "a", want: true}},
		"SomethingElseAtOnceIsLate": {{says: "a", want: true}, {after: time.Second, says: "b"}, {after: 9 * time.Second, says: "b", want: true}},
		"ChangingWaits": {{says: "a", waits: true, want: true}, {after: time.Minute, says: "b", waits: true, want: true},
			{after: time.Minute, says: "a", waits: true}, {after: time.Minute, says: "b", waits: true}},
	} {
		t.Run(name, func(t *testing.T) {
			n, at := &notices{}, time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
			for i, s := range steps {
				at = at.Add(s.after)
				n.begin(web)
				told := false
				if s.says != "" {
					op := tell(s.says)
					n.says(web, op)
					if n.quiet(web, op, at) == 0 && !s.refused {
						n.wrote(web, op, at)
						told = true
					}
				}
				if s.waits {
					n.unresolvedFor(web, at)
				} else {
					n.resolved(web)
				}
				if told != s.want {
					t.Errorf("step %d: told %v, want %v", i+1, told, s.want)
				}
			}
		})
	}
}

// What a kind has to say of itself, in each decision, is not written each time, and is no drift.
func TestWhatIsSaidEachTimeIsNotWrittenEachTime(t *testing.T) {
	e, w, at := &Engine{notices: &notices{}, sent: &sent{}}, &kindState{Kind: resource.Kind{Name: "pods"}}, time.Now()
	e.now = func() time.Time { return at }
	key := resource.Key{Tenant: "a", Name: "web"}
	op := resource.Tell(resource.View{}, &corev1.Pod{}, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, "Reason", "why")
	if e.pointless(w, key, op) {
		t.Error("nothing was said before")
	}
	e.notices.wrote(witness{"pods", key}, op, at)
	if !e.pointless(w, key, op) {
		t.Error("it is said at once again")
	}
	at = at.Add(tellAgain)
	if e.pointless(w, key, op) {
		t.Error("it is not said again before it is forgotten")
	}
}

func TestTenantsThatAreGoneAreForgotten(t *testing.T) {
	n := &notices{}
	n.unresolvedFor(witness{"pods", resource.Key{Tenant: "gone"}}, time.Now())
	n.unresolvedFor(witness{"pods", resource.Key{Tenant: "there"}}, time.Now())
	n.sweep(func(id names.TenantID) bool { return id == "there" })
	if len(n.of) != 1 {
		t.Errorf("%v are remembered", n.of)
	}
}
