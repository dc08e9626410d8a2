package supercluster

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// components lists every process of the cluster.
func (c *Cluster) components() []component {
	list := []component{c.etcd(), c.apiServer(), c.controllerManager(), c.scheduler(), c.registry()}
	for _, n := range c.nodes() {
		list = append(list, c.containerd(n), c.kubelet(n), c.kubeProxy(n), c.netpol(n))
	}
	return list
}

// Status prints a table of the cluster's processes and fails unless all of them run.
func (c *Cluster) Status(_ context.Context, out io.Writer) error {
	if !c.subnet.IsValid() {
		return fmt.Errorf("there is no cluster in %s", c.Dir)
	}
	all, err := marked("/proc", c.Name)
	if err != nil {
		return err
	}
	var rows strings.Builder
	fmt.Fprintf(&rows, "cluster %s: API server %s, kubeconfig %s\n", c.Name, c.APIServer(), c.Kubeconfig())
	rows.WriteString("COMPONENT\tPROCESS\tLOG\n")
	down := 0
	for _, p := range c.components() {
		pid := "not running"
		if own := p.of(all); len(own) > 0 {
			pid = fmt.Sprint(own[0].PID)
		} else {
			down++
		}
		fmt.Fprintf(&rows, "%s\t%s\t%s\n", p.name, pid, c.logFile(p.name))
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(table, rows.String()); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	if down > 0 {
		return fmt.Errorf("%d components are not running: repair with up", down)
	}
	return nil
}
