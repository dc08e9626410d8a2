package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// key names an object as its tenant does.
type key struct{ Kind, Namespace, Name string }

func (k key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return fmt.Sprintf("%s %s/%s", k.Kind, k.Namespace, k.Name)
}

// object is what the comparison needs to know of an object, of either side.
type object struct {
	Key key
	// UID is that of the tenant's object. A replica says which object it is of.
	UID string
	// Content is what the tenant decides and the replica must have; Status is what the super cluster decides and the tenant must see.
	Content, Status map[string]string
	// Deleting says that it is not quite gone.
	Deleting bool

	// Unneeded says of a tenant's object that it has no replica.
	Unneeded bool

	// Tenant, Place and Replica say of a replica whose it is, in which namespace it is (for a namespace its own name), and its own
	// name and UID.
	Tenant  names.TenantID
	Place   string
	Replica string
}

// side is what a tenant's API server has.
type side struct {
	// Name is what the content of the tenant's objects says whose they are.
	Name    string
	Objects []object
}

// owner is the key of a Content that says who wrote it.
const owner = "owner"

// finding is something that is not as it must be.
type finding struct {
	What string
	Key  key
	Of   string // tenant
	// Have and Want are the two sides, or what there is and what was acknowledged.
	Have, Want string
}

// The kinds of findings.
const (
	lost      = "lost"            // the tenant has it, the super cluster does not
	doubled   = "doubled"         // two replicas of one object
	orphaned  = "orphaned"        // a replica of nothing
	misplaced = "on a wrong side" // a replica where another tenant's belong, or with what another tenant wrote
	different = "different"       // the two sides do not have the same content or status
	stuck     = "stuck"           // it is being deleted, and stays
	vanished  = "vanished"        // the tenant was told that it exists, and it does not
	returned  = "returned"        // the tenant was told that it is gone, or never made it, and it exists
	changed   = "changed"         // the tenant has it with other content than it was told
	halted    = "halted"          // the tenant waits for a person, or is not synchronised
)

func (f finding) String() string {
	return fmt.Sprintf("%s: %s of %s\n    have %s\n    want %s", f.What, f.Key, f.Of, cmp.Or(f.Have, "nothing"), cmp.Or(f.Want, "nothing"))
}

// origin identifies what a replica is of.
type origin struct {
	tenant names.TenantID
	key    key
}

// compare finds what differs between tenants and their replicas in the super cluster, when nothing is in progress.
func compare(tenants map[names.TenantID]side, super []object) []finding {
	var out []finding
	replicas := map[origin]object{}
	for _, replica := range super {
		out = append(out, place(tenants, replica)...)
		at := origin{replica.Tenant, replica.Key}
		if other, twice := replicas[at]; twice {
			out = append(out, finding{doubled, replica.Key, tenants[replica.Tenant].Name, show(replica), show(other)})
		}
		replicas[at] = replica
	}
	for _, id := range slices.Sorted(maps.Keys(tenants)) {
		tenant := tenants[id]
		known := map[key]bool{}
		for _, o := range tenant.Objects {
			known[o.Key] = true
			if o.Deleting {
				out = append(out, finding{stuck, o.Key, tenant.Name, show(o), ""})
			}
			if by := o.Content[owner]; by != "" && by != tenant.Name {
				out = append(out, finding{misplaced, o.Key, tenant.Name, show(o), ""})
			}
			replica, exists := replicas[origin{id, o.Key}]
			out = append(out, pair(tenant.Name, o, replica, exists)...)
		}
		for _, replica := range super {
			if replica.Tenant == id && !known[replica.Key] {
				out = append(out, finding{orphaned, replica.Key, tenant.Name, show(replica), ""})
			}
		}
	}
	return out
}

// place finds what is wrong with a replica whatever the tenant has.
func place(tenants map[names.TenantID]side, replica object) []finding {
	var out []finding
	tenant, known := tenants[replica.Tenant]
	if !known {
		return []finding{{orphaned, replica.Key, "the unknown tenant " + string(replica.Tenant), show(replica), ""}}
	}
	namespace := replica.Key.Namespace
	if replica.Key.Kind == kindNamespace {
		namespace = replica.Key.Name
	}
	if want := names.SuperNamespace(replica.Tenant, namespace); replica.Place != want {
		out = append(out, finding{misplaced, replica.Key, tenant.Name, show(replica), "namespace " + want})
	}
	if by := replica.Content[owner]; by != "" && by != tenant.Name {
		out = append(out, finding{misplaced, replica.Key, tenant.Name, show(replica), "what " + tenant.Name + " wrote"})
	}
	if replica.Deleting {
		out = append(out, finding{stuck, replica.Key, tenant.Name, show(replica), ""})
	}
	return out
}

// pair finds what differs between an object and its replica.
func pair(tenant string, o, replica object, exists bool) []finding {
	switch {
	case o.Unneeded && exists:
		return []finding{{orphaned, o.Key, tenant, show(replica), ""}}
	case o.Unneeded:
		return nil
	case !exists:
		return []finding{{lost, o.Key, tenant, "", show(o)}}
	case o.UID != replica.UID:
		return []finding{{orphaned, o.Key, tenant, show(replica), show(o)}}
	case !maps.Equal(o.Content, replica.Content) || !maps.Equal(o.Status, replica.Status):
		return []finding{{different, o.Key, tenant, show(replica), show(o)}}
	default:
		return nil
	}
}

func show(o object) string {
	text := fmt.Sprintf("of UID %s, %v %v", o.UID, o.Content, o.Status)
	if o.Place != "" {
		text = fmt.Sprintf("%s/%s %s", o.Place, o.Replica, text)
	}
	if o.Deleting {
		text += ", being deleted"
	}
	return text
}
