// Command bench measures what users wait for and pay: on the cluster that `make up` made, the time until a new
// VirtualCluster is ready and until a tenant's pod runs, and the memory of every process. It prints a Markdown table and
// can write it into docs/performance.md. It judges nothing; tests do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/test/document"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func main() { os.Exit(command.Run("bench", run)) }

// options are what the command line says.
type options struct {
	pods, virtualClusters int
	write                 bool
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.pods, "pods", 10, "Number of pods to start on each side, one after the other and in turns.")
	flags.IntVar(&o.virtualClusters, "virtual-clusters", 3, "Number of VirtualClusters to create, one after the other.")
	flags.BoolVar(&o.write, "write", false, "Write the table into docs/performance.md.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.pods < 1 || o.virtualClusters < 1 {
		return errors.New("give no arguments, and numbers of at least 1")
	}
	report, err := measure(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(report)
	if !o.write {
		return nil
	}
	root, err := worlds.ModuleRoot()
	if err != nil {
		return err
	}
	return table().Update(filepath.Join(root, "docs", "performance.md"), report)
}

// measure measures everything and returns the table.
func measure(ctx context.Context, o options) (string, error) {
	cluster, err := local.Open(ctx, 1)
	if err != nil {
		return "", err
	}
	machine, err := document.Machine()
	if err != nil {
		return "", err
	}

	// Memory comes first: later it would not be that of an idle system.
	var rows []row
	progress("memory of what runs")
	memory, err := measureMemory(ctx, cluster)
	if err != nil {
		return "", fmt.Errorf("measuring memory: %w", err)
	}
	rows = append(rows, memory...)
	pods, err := measurePods(ctx, cluster, o.pods)
	if err != nil {
		return "", fmt.Errorf("measuring pods: %w", err)
	}
	rows = append(rows, pods...)
	ready, err := measureVirtualClusters(ctx, cluster, o.virtualClusters)
	if err != nil {
		return "", fmt.Errorf("measuring VirtualClusters: %w", err)
	}
	rows = append(rows, ready)
	return render(machine, time.Now(), rows), nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
