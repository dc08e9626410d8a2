package resource

import (
	"strings"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Names of kinds that more than one package knows.
const (
	Pods            = "pods"
	Secrets         = "secrets"
	ConfigMaps      = "configmaps"
	Services        = "services"
	EndpointSlices  = "endpointslices"
	ServiceAccounts = "serviceaccounts"
)

// Replicated says whether the super cluster has the replica of the very object that the tenant has. Only then may a super
// object refer to it by a name that is the same on both sides: whatever else stands there is not the tenant's.
func (v View) Replicated(ref Ref) bool {
	tenant, super := v.Get(Tenant, ref), v.Get(Super, ref)
	return tenant != nil && super != nil && super.GetLabels()[names.LabelTenant] == string(v.Tenant.ID) && madeFrom(tenant, super)
}

// Renamed returns the name by which the super cluster knows a Secret or ConfigMap of the tenant; false for another kind.
func Renamed(kind, name string) (string, bool) {
	switch kind {
	case Secrets:
		return names.SuperSecret(name), true
	case ConfigMaps:
		return names.SuperConfigMap(name), true
	default:
		return name, false
	}
}

// ForTenant replaces, in a text of the super cluster about an object in the given tenant namespace, super names by the
// tenant's: of the namespace, and of what the object refers to. Other words stay, whatever they look like.
func (v View) ForTenant(text, namespace string, refersTo func() []Ref) string {
	text = strings.ReplaceAll(text, names.SuperNamespace(v.Tenant.ID, namespace), namespace)
	if refersTo == nil || !strings.Contains(text, names.Marker) && !strings.Contains(text, names.AbsentPrefix) {
		return text
	}
	for _, ref := range refersTo() {
		super, renamed := Renamed(ref.Kind, ref.Name)
		if ref.Kind == Services {
			super, renamed = names.AbsentService(ref.Name), true
		}
		if renamed {
			text = replaceWord(text, super, ref.Name)
		}
	}
	return text
}

// replaceWord replaces a name where it is not a part of a longer one.
func replaceWord(text, word, by string) string {
	var out strings.Builder
	for {
		i := strings.Index(text, word)
		if i < 0 {
			return out.String() + text
		}
		end := i + len(word)
		if endsInName(text[:i]) || beginsInName(text[end:]) {
			out.WriteString(text[:end])
		} else {
			out.WriteString(text[:i] + by)
		}
		text = text[end:]
	}
}

func inName(c byte) bool { return c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }

func endsInName(s string) bool {
	n := len(s)
	return n > 0 && (inName(s[n-1]) || s[n-1] == '.')
}

// beginsInName says that a name goes on; a dot may end a sentence.
func beginsInName(s string) bool {
	return s != "" && (inName(s[0]) || s[0] == '.' && len(s) > 1 && inName(s[1]))
}
