// Package retired has the sample manifests of the retired VirtualCluster project, for tests: as they are, and changed as the page
// docs/migration.md says, by the script in it. It knows no cluster.
package retired

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

//go:embed testdata/*.yaml
var samples embed.FS

// Page is the page that has the script, from the root of the repository.
const Page = "docs/migration.md"

// VirtualCluster returns the sample VirtualCluster, as users of the retired project have it.
func VirtualCluster() (string, error) { return read("virtualcluster_1_nodeport.yaml") }

// ClusterVersion returns the sample ClusterVersion, as users of the retired project have it.
func ClusterVersion() (string, error) { return read("clusterversion_v1_nodeport.yaml") }

func read(name string) (string, error) {
	text, err := samples.ReadFile("testdata/" + name)
	if err != nil {
		return "", fmt.Errorf("reading a sample: %w", err)
	}
	return string(text), nil
}

// AdaptedClusterVersion returns the sample ClusterVersion after the script of the page.
func AdaptedClusterVersion(ctx context.Context) (string, error) {
	sample, err := ClusterVersion()
	if err != nil {
		return "", err
	}
	script, err := Script()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "sed", script)
	cmd.Stdin = strings.NewReader(sample)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running the script of %s: %w", Page, err)
	}
	return string(out), nil
}

// Script returns the first sed script of the page.
func Script() (string, error) {
	root, err := worlds.ModuleRoot()
	if err != nil {
		return "", err
	}
	page, err := os.ReadFile(filepath.Join(root, Page))
	if err != nil {
		return "", fmt.Errorf("reading the page: %w", err)
	}
	_, rest, ok := strings.Cut(string(page), "```sed\n")
	script, _, ended := strings.Cut(rest, "```")
	if !ok || !ended {
		return "", errors.New(Page + " has no sed script")
	}
	return script, nil
}
