package main

import (
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/document"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args string
		bad  string
	}{
		"Defaults":       {"", ""},
		"Quick":          {"--quick", ""},
		"NoNumber":       {"--ranges 1,x", "not a number"},
		"Negative":       {"--ranges -1", "not a number"},
		"Zero":           {"--events 0", "at least 1"},
		"UnknownPart":    {"--only both", "--only"},
		"Argument":       {"quick", "no arguments"},
		"TooManyServers": {"--api-servers 13", "more than the 12 tenants"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(strings.Fields(tc.args))
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("got %v, want an error with %q", err, tc.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range o.collisions {
				seen := map[netip.Prefix]bool{}
				for _, part := range c.parts() {
					if seen[part] || !c.Super.Overlaps(part) || part.Bits() != c.Size || part.Addr() == c.Super.Addr() {
						t.Errorf("%s has the part %s", c.Super, part)
					}
					seen[part] = true
				}
				if len(seen) != c.Tenants || c.Real > c.Tenants {
					t.Errorf("%s: %d parts for %+v", c.Super, len(seen), c)
				}
			}
		})
	}
}

func TestExpected(t *testing.T) {
	o := collisionOptions{Super: netip.MustParsePrefix("10.96.0.0/18"), Size: 22, Tenants: 10, Each: 48, Operator: 500}
	if got, want := o.expected(1000), 1000*500/float64(1<<14-257-10*50); math.Abs(got-want) > 1e-9 {
		t.Errorf("got %f, want %f", got, want)
	}
}

func TestLogLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(text string) {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = file.WriteString(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	log := &logLines{path: path}
	long := strings.Repeat("x", 2<<20) + "\n"
	for _, step := range []struct {
		text string
		want lines
	}{
		{"a\nI1 updated ClusterIP allocator for Service CIDR 10.96.0.0/12\nunfini", lines{2, 1, 63}},
		{"shed\n", lines{1, 0, 11}},
		{"", lines{}},
		{long, lines{1, 0, int64(len(long))}},
	} {
		write(step.text)
		got, err := log.more()
		if diff := cmp.Diff(step.want, got); diff != "" || err != nil {
			t.Errorf("%v; -want +got\n%s", err, diff)
		}
	}
}

// view is what an event shows of a Service.
func view(address string, mark bool) *corev1.Service {
	s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: address}}
	if mark {
		s.Annotations = map[string]string{names.AnnotationReaddress: "{}"}
	}
	return s
}

func TestObserve(t *testing.T) {
	type event struct {
		on      side
		kind    watch.EventType
		service *corev1.Service
	}
	start := time.Unix(1000, 0)
	second := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	for name, tc := range map[string]struct {
		events []event // one each second
		want   outcome
	}{
		"Kept": {
			[]event{{inTenant, watch.Added, view("10.96.4.9", false)}, {inSuper, watch.Added, view("10.96.4.9", false)}, {inSuper, watch.Modified, view("10.96.4.9", false)}},
			outcome{Created: 1, Plain: []time.Duration{2 * time.Second}},
		},
		"SuperFirst": {
			[]event{{inSuper, watch.Added, view("10.96.4.9", false)}, {inTenant, watch.Added, view("10.96.4.9", false)}},
			outcome{Created: 1, Plain: []time.Duration{2 * time.Second}},
		},
		"Readdressed": {
			[]event{
				{inTenant, watch.Added, view("10.96.4.9", false)}, {inTenant, watch.Modified, view("", true)}, {inTenant, watch.Modified, view("10.96.4.8", false)},
				{inSuper, watch.Added, view("10.96.4.8", false)},
			},
			outcome{Created: 1, Readdressed: 1, Flips: 1, Late: []time.Duration{4 * time.Second}, Flip: []time.Duration{2 * time.Second}},
		},
		"Twice": {
			[]event{
				{inTenant, watch.Added, view("10.96.4.9", false)}, {inTenant, watch.Modified, view("", true)}, {inTenant, watch.Modified, view("10.96.4.8", false)},
				{inTenant, watch.Modified, view("", true)}, {inTenant, watch.Modified, view("10.96.4.7", false)}, {inSuper, watch.Added, view("10.96.4.7", false)},
			},
			outcome{Created: 1, Readdressed: 1, Flips: 2, Late: []time.Duration{6 * time.Second}, Flip: []time.Duration{4 * time.Second}},
		},
		"AfterItWasReachable": {
			[]event{
				{inTenant, watch.Added, view("10.96.4.9", false)}, {inSuper, watch.Added, view("10.96.4.9", false)}, {inTenant, watch.Modified, view("", true)},
				{inTenant, watch.Modified, view("10.96.4.8", false)}, {inSuper, watch.Modified, view("10.96.4.8", false)},
			},
			outcome{Created: 1, Readdressed: 1, Flips: 1, Late: []time.Duration{5 * time.Second}, Flip: []time.Duration{2 * time.Second}},
		},
		"Different":   {[]event{{inTenant, watch.Added, view("10.96.4.9", false)}, {inSuper, watch.Added, view("10.96.4.8", false)}}, outcome{Created: 1, Unfinished: 1}},
		"LeftBetween": {[]event{{inTenant, watch.Added, view("", true)}}, outcome{Created: 1, Readdressed: 1, Flips: 1, Unfinished: 1}},
		"NotInSuper":  {[]event{{inTenant, watch.Added, view("10.96.4.9", false)}}, outcome{Created: 1, Unfinished: 1}},
		"DeletedLater": {
			[]event{{inTenant, watch.Added, view("10.96.4.9", false)}, {inSuper, watch.Added, view("10.96.4.9", false)}, {inTenant, watch.Deleted, view("10.96.4.9", false)}},
			outcome{Created: 1, Plain: []time.Duration{2 * time.Second}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := seen{created: start}
			for i, e := range tc.events {
				s.observe(e.on, e.kind, e.service, second(i+1))
			}
			if diff := cmp.Diff(tc.want, sumUp([]seen{s})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A Service whose address the super cluster still has for a deleted Service of the same tenant did not meet one of the operator's.
func TestOwn(t *testing.T) {
	first, second := serviceKey{0, types.NamespacedName{Name: "first"}}, serviceKey{0, types.NamespacedName{Name: "second"}}
	start := time.Unix(1000, 0)
	for name, tc := range map[string]struct {
		deleted time.Duration // of the first in the super cluster, after the second was created; never when 0
		address string        // of the first
		want    int
	}{
		"StillThere":      {0, "10.96.4.9", 1},
		"GoneMeanwhile":   {time.Second, "10.96.4.9", 1},
		"GoneBefore":      {-time.Second, "10.96.4.9", 0},
		"AnotherOnesOnly": {0, "10.96.4.8", 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			l.observe(first, inSuper, watch.Added, view(tc.address, false), start.Add(-time.Minute))
			if tc.deleted != 0 {
				l.observe(first, inSuper, watch.Deleted, view(tc.address, false), start.Add(tc.deleted))
			}
			l.of(second).created = start
			l.observe(second, inTenant, watch.Added, view("10.96.4.9", false), start)
			l.observe(second, inTenant, watch.Modified, view("", true), start.Add(2*time.Second))
			if got := sumUp([]seen{*l.of(second)}); got.Own != tc.want || got.Readdressed != 1 {
				t.Errorf("got %+v, want %d", got, tc.want)
			}
		})
	}
}

func TestTouched(t *testing.T) {
	both := func(s *seen, address string) {
		s.observe(inTenant, watch.Modified, view(address, false), time.Now())
		s.observe(inSuper, watch.Modified, view(address, false), time.Now())
	}
	for name, tc := range map[string]struct {
		then func(*seen)
		want bool
	}{
		"Not":       {func(s *seen) { both(s, "10.96.4.1") }, false},
		"Moved":     {func(s *seen) { both(s, "10.96.4.9") }, true},
		"BackAgain": {func(s *seen) { both(s, "10.96.4.9"); both(s, "10.96.4.1") }, true},
		"Marked":    {func(s *seen) { s.observe(inTenant, watch.Modified, view("10.96.4.1", true), time.Now()) }, true},
		"Replaced": {func(s *seen) {
			s.observe(inSuper, watch.Deleted, view("10.96.4.1", false), time.Now())
			both(s, "10.96.4.1")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var s seen
			both(&s, "10.96.4.1")
			tc.then(&s)
			if got := s.touched(); got != "" != tc.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestReports(t *testing.T) {
	one := rangeCost{Side: byObjects, Tenants: 2000, Claim: cost{Took: 61 * time.Second, Log: lines{All: 4000000}}, Created: []time.Duration{time.Millisecond, 20 * time.Millisecond}, Ranges: 7}
	got := renderRanges(rangeOptions{Window: time.Minute, Services: 2}, []rangeCost{{Side: byObjects}, one, {Side: byServices, Tenants: 2000}})
	for _, want := range []string{
		"| What | No tenants | 2000 by ServiceCIDR | 2000 by Services |", "| Claiming all ranges |  | 61 s | 0.00 s |", "|  | 4,000,000 | 0 |",
		"| Creating a Service of the operator, p99 |  | 20 ms |  |", "being released |  | 7 | none |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	c := collisions{options: collisionOptions{Super: netip.MustParsePrefix("10.96.0.0/12"), Size: 22, Tenants: 200}, Took: time.Minute, Replaced: 3000, Expected: 4.77}
	got = renderCollisions([]collisions{c})
	for _, want := range []string{"| What | Range 10.96.0.0/12 |", "| 200 of /22 |", "replaced per second | 50 |", "| 4.8 |", "readdressed | none |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestPageHasTheTables(t *testing.T) {
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []document.Part{rangeTable(), collisionTable()} {
		copied := filepath.Join(t.TempDir(), "page.md")
		if err := os.WriteFile(copied, page, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := part.Update(copied, "figures\n"); err != nil {
			t.Error(err)
		}
	}
}

func TestPartOf(t *testing.T) {
	parts := []netip.Prefix{netip.MustParsePrefix("10.96.4.0/22"), netip.MustParsePrefix("10.96.8.0/22")}
	if part, ok := partOf(parts, "10.96.9.1"); !ok || part != parts[1] {
		t.Errorf("got %s, %t", part, ok)
	}
	if _, ok := partOf(parts, "10.96.12.1"); ok {
		t.Error("an address outside is in a part")
	}
}
