package worlds

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// BinDirEnv names the environment variable that overrides where the binaries are looked for.
const BinDirEnv = "VC_BIN_DIR"

const module = "github.com/virtualcluster-io/virtualcluster"

type binaries struct {
	etcd, apiServer, controllerManager string
}

// findBinaries finds those of a version, see Binary, and etcd.
func findBinaries(minor string) (binaries, error) {
	var found binaries
	for _, b := range []struct {
		path        *string
		minor, name string
	}{{&found.etcd, "", "etcd"}, {&found.apiServer, minor, "kube-apiserver"}, {&found.controllerManager, minor, "kube-controller-manager"}} {
		var err error
		if *b.path, err = Binary(b.minor, b.name); err != nil {
			return binaries{}, err
		}
	}
	return found, nil
}

// Binary finds a program: that of the super cluster's version of Kubernetes or, when a minor version such as 1.34 is given,
// that of that version.
func Binary(minor, name string) (string, error) {
	dir, goal := os.Getenv(BinDirEnv), "build"
	if dir == "" {
		root, err := ModuleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "_local", "bin")
	}
	if minor != "" {
		dir, goal = filepath.Join(dir, "kubernetes-"+minor), "control-planes"
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is missing: run `make %s` first, or set %s", path, goal, BinDirEnv)
	}
	return path, nil
}

// ModuleRoot returns the directory of this repository's go.mod, searched from the working directory, which go test
// sets to that of the package under test.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the working directory: %w", err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+module+"\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("reading go.mod: %w", err)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod of %s above the working directory", module)
		}
		dir = parent
	}
}
