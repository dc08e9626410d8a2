// Package preflight says how a super cluster can give tenants cluster IPs, and what stands in the way, before there is a
// tenant. It reads, and asks the API server by dry runs; it changes nothing and decides nothing for tenants. kubectl-vc
// prints what it finds, vc-manager sets a condition on its own Pod.
package preflight

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
)

// Auto is the pool that is the super cluster's own ranges, and the size that follows from the range that is divided.
const Auto = servicecidr.Auto

// Config is what vc-manager is told by --service-cidr-pool and --service-cidr-size.
type Config struct{ Pool, Size string }

// Mode is a way to give tenants cluster IPs.
type Mode string

// Modes, the best first.
const (
	// ModeParts gives each tenant a part of a range that the super cluster already has.
	ModeParts Mode = "PartsOfARange"
	// ModeObjects gives each tenant a range of its own by a ServiceCIDR object.
	ModeObjects Mode = "ServiceCIDRPerTenant"
	// ModeAdoption lets tenants take the addresses that the super cluster chooses.
	ModeAdoption Mode = "Adoption"
)

// Severity of a finding.
type Severity string

// Severities, the worst first.
const (
	// Error is for what keeps tenants from having Services that work.
	Error Severity = "Error"
	// Warning is for what may do so for some Services or some clients.
	Warning Severity = "Warning"
	// Info is for what is good to know.
	Info Severity = "Info"
)

// Reasons of findings that are no Mode.
const (
	ReasonPoolInvalid         = "PoolInvalid"
	ReasonRangeUnknown        = "ServiceRangeUnknown"
	ReasonRangeTooSmall       = "RangeTooSmall"
	ReasonFewTenants          = "FewTenants"
	ReasonExhausted           = "RangesExhausted"
	ReasonNearlyExhausted     = "RangesNearlyExhausted"
	ReasonCapacity            = "Capacity"
	ReasonWrongFamily         = "WrongIPFamily"
	ReasonOverlapsRange       = "PoolOverlapsServiceRange"
	ReasonOverlapsPods        = "RangeOverlapsPods"
	ReasonOverlapsNodes       = "RangeOverlapsNodes"
	ReasonForbiddenRange      = "RangeForbiddenByPlatform"
	ReasonNoAPI               = "ServiceCIDRsNotServed"
	ReasonObjectsRefused      = "ServiceCIDRsRefused"
	ReasonServicesRefused     = "ServicesRefused"
	ReasonNotInRange          = "RangeNotServed"
	ReasonOwnServices         = "OwnServicesInTenantRanges"
	ReasonDataplaneStatic     = "DataplaneKnowsOneRange"
	ReasonDataplaneUntested   = "DataplaneUntested"
	ReasonAntreaRoute         = "AntreaRouteTooLarge"
	ReasonNotAdvertised       = "RangeNotAdvertised"
	ReasonNotRead             = "NotRead"
	ReasonPartsWouldBeBetter  = "PartsOfARangePossible"
	ReasonAddressesOfTheSuper = "AddressesAreChosenLate"
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	// Reason is one CamelCase word that does not change.
	Reason string `json:"reason"`
	// Message is a sentence that says what is the case.
	Message string `json:"message"`
	// Action is a sentence that says what to do; empty when there is nothing to do.
	Action string `json:"action,omitempty"`
}

// Capacity is how many tenants fit into a range.
type Capacity struct {
	Range string `json:"range"`
	// PrefixLength of a tenant's range.
	PrefixLength int `json:"prefixLength"`
	// Tenants is how many ranges there are for tenants, Free how many of them no tenant has.
	Tenants int64 `json:"tenants"`
	Free    int64 `json:"free"`
}

// Report is what the checks found.
type Report struct {
	// Mode is the one that the configuration leads to in this super cluster; empty when the configuration is not valid.
	Mode Mode `json:"mode,omitempty"`
	// KubernetesVersion and ServiceRanges are the super cluster's.
	KubernetesVersion string `json:"kubernetesVersion"`
	ServiceRanges     string `json:"serviceRanges,omitempty"`
	// Ranges are those that tenants' ranges are taken from.
	Ranges []Capacity `json:"ranges,omitempty"`
	// Findings are sorted by severity, the worst first.
	Findings []Finding `json:"findings"`
}

// Failed says whether there is an error among the findings.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error })
}

// add adds a finding.
func (r *Report) add(severity Severity, reason, action, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Severity: severity, Reason: reason, Message: fmt.Sprintf(format, args...), Action: action})
}

// sort puts the worst findings first and keeps their order otherwise.
func (r *Report) sort() {
	rank := func(s Severity) int { return slices.Index([]Severity{Error, Warning, Info}, s) }
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
}

// Facts are what was read of a super cluster.
type Facts struct {
	// Version of its API server.
	Version string
	// API says that it serves ServiceCIDRs.
	API bool
	// Default are the ranges that it was started with. When none is known, Unknown says why.
	Default iprange.Ranges
	Unknown string
	// Ranges are those of all ServiceCIDRs that are no tenant's, Tenants those that tenants have.
	Ranges, Tenants []netip.Prefix
	Nodes           []Node
	// Dataplanes are those of the table in dataplanes.go that were found.
	Dataplanes []Dataplane
	// Answers are what the API server said in dry runs, by the address of a Service or the range of a ServiceCIDR.
	Answers map[string]Answer
	// NotRead is what could not be read, and why.
	NotRead []string

	// served are the ranges of all ServiceCIDRs.
	served []netip.Prefix
}

// Node is what matters of a node.
type Node struct {
	Name      string
	PodRanges []netip.Prefix
	Addresses []netip.Addr
}

// Dataplane is what matters of something that serves cluster IPs.
type Dataplane struct {
	// Name in the table.
	Name string
	// PodRanges are those that it gives to nodes by itself.
	PodRanges []netip.Prefix
	// Advertised are the ranges of cluster IPs that it advertises to routers.
	Advertised []netip.Prefix
}

// Verdict is what the API server thinks of an object.
type Verdict string

// Verdicts.
const (
	Accepted   Verdict = "Accepted"
	NotInRange Verdict = "NotInRange"
	Refused    Verdict = "Refused"
)

// Answer of the API server to a dry run.
type Answer struct {
	Verdict Verdict
	Message string
}

// list joins texts for people.
func list[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = item.String()
	}
	return strings.Join(texts, ", ")
}
