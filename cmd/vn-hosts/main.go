// Command vn-hosts writes the hosts file of a tenant's pod. The syncer lets it run first in pods that have a subdomain, because
// the kubelet takes the name in /etc/hosts from the super namespace. It is a program of its own, so that it fits into the
// smallest memory limit.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/internal/hosts"
)

// mode is that of the kubelet's hosts file.
const mode = 0o644

func main() { os.Exit(command.Run("vn-hosts", run)) }

func run(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("vn-hosts", flag.ContinueOnError)
	from := flags.String("from", "/etc/hosts", "Hosts file that the kubelet wrote.")
	to := flags.String("to", "", "File to write.")
	host := flags.String("host", "", "Host name of the pod.")
	subdomain := flags.String("subdomain", "", "Subdomain of the pod.")
	fqdn := flags.String("fqdn", "", "Name of the pod in the tenant's DNS.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	content, err := os.ReadFile(*from)
	if err != nil {
		return fmt.Errorf("reading the kubelet's hosts file: %w", err)
	}
	translated := hosts.Translate(string(content), *host, *subdomain, *fqdn)
	if err := os.WriteFile(*to, []byte(translated), mode); err != nil {
		return fmt.Errorf("writing the tenant's hosts file: %w", err)
	}
	return nil
}
