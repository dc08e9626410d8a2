// Package hosts translates the hosts file that a kubelet of the super cluster writes for a pod into the one that the tenant
// expects: the pod's own name is that of the tenant's cluster. It is pure; cmd/vn-hosts reads and writes the files.
package hosts

import "strings"

// Translate replaces, in the lines for the pod itself, the name that the kubelet made of host, subdomain, super namespace and
// the super cluster's domain by fqdn. Those are the lines "address host.subdomain.rest host", see
// https://kubernetes.io/docs/tasks/network/customize-hosts-file-for-pods. Everything else stays as it is.
func Translate(content, host, subdomain, fqdn string) string {
	lines := strings.Split(content, "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[2] == host && strings.HasPrefix(fields[1], host+"."+subdomain+".") {
			lines[i] = strings.Join([]string{fields[0], fqdn, host}, "\t")
		}
	}
	return strings.Join(lines, "\n")
}
