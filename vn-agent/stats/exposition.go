package stats

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Labels that say whose a sample is.
const (
	namespaceLabel = "namespace"
	podLabel       = "pod"
	podUIDLabel    = "pod_uid"
	containerLabel = "container"
	imageLabel     = "image"
)

// Exposition is an answer in the text format of Prometheus, of /metrics/resource, /metrics/cadvisor or /metrics/probes.
// Lines are kept as they are and read again for the tenant they belong to: nodes with many pods send many megabytes.
type Exposition struct {
	families []family
	// lines by the super namespace of their pod; those of no pod are below the empty name.
	lines map[string][]line
}

// family is a metric with its HELP and TYPE lines.
type family struct {
	name   string
	header []string
}

type line struct {
	family int
	text   string
}

// ParseExposition reads the text. Lines that are not exactly what the format says are not passed on.
func ParseExposition(text string) *Exposition {
	e := &Exposition{lines: map[string][]line{}}
	for text := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(text, "#") {
			e.comment(text)
			continue
		}
		s, ok := parseSample(text)
		if !ok {
			continue
		}
		namespace := ""
		if s.get(podLabel) != "" {
			namespace = s.get(namespaceLabel)
		}
		e.lines[namespace] = append(e.lines[namespace], line{e.family(s.name), text})
	}
	return e
}

// comment reads a HELP or TYPE line, which begins a family or goes on with it.
func (e *Exposition) comment(text string) {
	words := strings.SplitN(text, " ", 4)
	if len(words) != 4 || words[0] != "#" || (words[1] != "HELP" && words[1] != "TYPE") || nameLength(words[2]) != len(words[2]) {
		return
	}
	if last := len(e.families) - 1; last < 0 || e.families[last].name != words[2] {
		e.families = append(e.families, family{name: words[2]})
	}
	current := &e.families[len(e.families)-1]
	current.header = append(current.header, text)
}

// family returns the index of the family that a sample of the given name belongs to at this place.
func (e *Exposition) family(name string) int {
	if last := len(e.families) - 1; last >= 0 {
		switch suffix, ok := strings.CutPrefix(name, e.families[last].name); {
		case ok && (suffix == "" || suffix == "_bucket" || suffix == "_sum" || suffix == "_count"):
			return last
		}
	}
	e.families = append(e.families, family{name: name})
	return len(e.families) - 1
}

// Namespaces implements Measured.
func (e *Exposition) Namespaces() []string {
	return sortedKeys(e.lines)
}

// Pods implements Measured.
func (e *Exposition) Pods(namespace string) map[Pod]string {
	out := map[Pod]string{}
	for _, l := range e.lines[namespace] {
		if s, ok := parseSample(l.text); ok && s.get(podLabel) != "" {
			pod := s.pod()
			if out[pod] == "" {
				out[pod] = s.get(podUIDLabel)
			}
		}
	}
	return out
}

// For implements Measured.
func (e *Exposition) For(owned Owned, account *Account) ([]byte, error) {
	samples := make([][]sample, len(e.families))
	namespaces := map[string]bool{}
	for pod := range owned {
		namespaces[pod.Namespace] = true
	}
	sum := nodeTotals{seconds: map[string]float64{}}
	for _, namespace := range sortedKeys(namespaces) {
		for _, l := range e.lines[namespace] {
			s, ok := parseSample(l.text)
			if !ok {
				continue
			}
			identity, ok := owned[s.pod()]
			if !ok {
				continue
			}
			if s, ok := s.translate(identity); ok {
				sum.add(s, identity)
				samples[l.family] = append(samples[l.family], s)
			}
		}
	}
	for _, l := range e.lines[""] {
		s, ok := parseSample(l.text)
		if !ok || len(s.labels) > 0 {
			continue
		}
		if s, ok := sum.node(s, account); ok {
			samples[l.family] = append(samples[l.family], s)
		}
	}

	var out bytes.Buffer
	for i, family := range e.families {
		merged := merge(samples[i])
		if len(merged) == 0 {
			continue
		}
		for _, header := range family.header {
			out.WriteString(header)
			out.WriteByte('\n')
		}
		for _, s := range merged {
			s.write(&out)
		}
	}
	return out.Bytes(), nil
}

// nodeTotals are sums over pods, of which the samples of the node are made.
type nodeTotals struct {
	// seconds of CPU used, by the UID of the super pod.
	seconds      map[string]float64
	memory, swap float64
	time         int64
}

func (t *nodeTotals) add(s sample, identity Identity) {
	switch s.name {
	case "pod_cpu_usage_seconds_total":
		t.seconds[identity.SuperUID] = s.number()
	case "pod_memory_working_set_bytes":
		t.memory += s.number()
	case "pod_swap_usage_bytes":
		t.swap += s.number()
	default:
		return
	}
	t.time = max(t.time, s.time())
}

// node returns what the tenant gets instead of a sample of the node, if anything. metrics-server takes a node of which
// CPU or memory are zero for one that was not measured, so that the least possible is told of a node without pods.
func (t *nodeTotals) node(s sample, account *Account) (sample, bool) {
	switch s.name {
	case "node_cpu_usage_seconds_total":
		at := t.time
		if at == 0 {
			at = s.time()
		}
		total, at := account.total(t.seconds, at)
		t.time = at
		return s.with(max(total, 1e-9), at), true
	case "node_memory_working_set_bytes":
		return s.with(max(t.memory, 1), max(t.time, account.time)), true
	case "node_swap_usage_bytes":
		return s.with(t.swap, max(t.time, account.time)), true
	// Whether something could not be measured.
	case "resource_scrape_error", "scrape_error", "container_scrape_error":
		return s, true
	default:
		return sample{}, false
	}
}

// merge adds up samples that differed only in labels that were taken off.
func merge(samples []sample) []sample {
	out := samples[:0]
	index := map[string]int{}
	for _, s := range samples {
		if !s.reduced {
			out = append(out, s)
			continue
		}
		key := s.series()
		i, seen := index[key]
		if !seen {
			index[key] = len(out)
			out = append(out, s)
			continue
		}
		out[i] = out[i].with(out[i].number()+s.number(), max(out[i].time(), s.time()))
	}
	return out
}

// sample is one line: a series, its value and maybe its time in milliseconds.
type sample struct {
	name        string
	labels      []label
	value, when string
	// reduced says that a label was taken off that told series apart.
	reduced bool
}

// label has its value as it is in the text, with escapes: none of the values that are compared has any.
type label struct{ name, value string }

func (s sample) get(name string) string {
	for _, l := range s.labels {
		if l.name == name {
			return l.value
		}
	}
	return ""
}

func (s sample) pod() Pod { return Pod{Namespace: s.get(namespaceLabel), Name: s.get(podLabel)} }

func (s sample) number() float64 {
	number, _ := strconv.ParseFloat(s.value, 64) // Was parsed before.
	return number
}

func (s sample) time() int64 {
	if s.when == "" {
		return 0
	}
	time, _ := strconv.ParseInt(s.when, 10, 64) // Was parsed before.
	return time
}

// with returns the sample with another value; zero leaves out the time.
func (s sample) with(value float64, time int64) sample {
	s.value, s.when = strconv.FormatFloat(value, 'g', -1, 64), ""
	if time != 0 {
		s.when = strconv.FormatInt(time, 10)
	}
	return s
}

// translate returns the sample in the tenant's terms. It knows every label: a sample with another one is not passed on.
func (s sample) translate(identity Identity) (sample, bool) {
	out := s
	out.labels = make([]label, 0, len(s.labels))
	for _, l := range s.labels {
		switch l.name {
		case namespaceLabel:
			l.value = identity.Namespace
		case podUIDLabel:
			if l.value != identity.SuperUID {
				return sample{}, false
			}
			l.value = identity.UID
		case imageLabel:
			// The image below all containers of a pod is the super cluster's.
			if l.value != "" && s.get(containerLabel) == "" {
				l.value = "pause"
			}
		case containerLabel:
			if l.value == names.HostsContainer {
				return sample{}, false
			}
		case podLabel, "name", "interface", "cpu", "state", "scope", "failure_type", "ulimit", "pagesize", "operation",
			"probe_type", "result", "le":
		case "id":
			// The cgroup. What remains tells cgroups apart: pods have no name, containers have.
			continue
		case "device", "major", "minor":
			out.reduced = true
			continue
		default:
			return sample{}, false
		}
		out.labels = append(out.labels, l)
	}
	return out, true
}

// series identifies the series.
func (s sample) series() string {
	var out bytes.Buffer
	s.writeSeries(&out)
	return out.String()
}

func (s sample) writeSeries(out *bytes.Buffer) {
	out.WriteString(s.name)
	for i, l := range s.labels {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		out.WriteByte(separator)
		out.WriteString(l.name + `="` + l.value + `"`)
	}
	if len(s.labels) > 0 {
		out.WriteByte('}')
	}
}

func (s sample) write(out *bytes.Buffer) {
	s.writeSeries(out)
	out.WriteString(" " + s.value)
	if s.when != "" {
		out.WriteString(" " + s.when)
	}
	out.WriteByte('\n')
}

// parseSample reads a line strictly.
func parseSample(text string) (sample, bool) {
	length := nameLength(text)
	if length == 0 {
		return sample{}, false
	}
	s := sample{name: text[:length]}
	rest := text[length:]
	if strings.HasPrefix(rest, "{") {
		var ok bool
		if s.labels, rest, ok = parseLabels(rest[1:]); !ok {
			return sample{}, false
		}
	}
	rest, ok := strings.CutPrefix(rest, " ")
	if !ok {
		return sample{}, false
	}
	s.value, s.when, ok = strings.Cut(rest, " ")
	if _, err := strconv.ParseFloat(s.value, 64); err != nil {
		return sample{}, false
	}
	if ok {
		if _, err := strconv.ParseInt(s.when, 10, 64); err != nil {
			return sample{}, false
		}
	}
	return s, true
}

// parseLabels reads what follows the opening brace and returns what follows the closing one.
func parseLabels(text string) ([]label, string, bool) {
	labels := make([]label, 0, 8)
	for {
		if rest, ok := strings.CutPrefix(text, "}"); ok {
			return labels, rest, true
		}
		length := nameLength(text)
		if length == 0 || !strings.HasPrefix(text[length:], `="`) {
			return nil, "", false
		}
		l := label{name: text[:length]}
		text = text[length+2:]
		end := valueLength(text)
		if end < 0 {
			return nil, "", false
		}
		l.value, text = text[:end], text[end+1:]
		for _, other := range labels {
			// Which of the two would count depends on the reader.
			if other.name == l.name {
				return nil, "", false
			}
		}
		labels = append(labels, l)
		if rest, ok := strings.CutPrefix(text, ","); ok {
			text = rest
		} else if !strings.HasPrefix(text, "}") {
			return nil, "", false
		}
	}
}

// valueLength returns where the quote is that ends a label's value, or -1.
func valueLength(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i
		case '\\':
			i++
			if i == len(text) || !strings.ContainsRune(`\"n`, rune(text[i])) {
				return -1
			}
		}
	}
	return -1
}

// nameLength returns how much of the text is the name of a metric or label.
func nameLength(text string) int {
	for i := range len(text) {
		c := text[i]
		letter := c == '_' || c == ':' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(text)
}
