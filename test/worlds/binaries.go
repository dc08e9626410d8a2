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

func findBinaries() (binaries, error) {
	dir := os.Getenv(BinDirEnv)
	if dir == "" {
		root, err := ModuleRoot()
		if err != nil {
			return binaries{}, err
		}
		dir = filepath.Join(root, "_local", "bin")
	}
	found := binaries{
		etcd:              filepath.Join(dir, "etcd"),
		apiServer:         filepath.Join(dir, "kube-apiserver"),
		controllerManager: filepath.Join(dir, "kube-controller-manager"),
	}
	for _, path := range []string{found.etcd, found.apiServer, found.controllerManager} {
		if _, err := os.Stat(path); err != nil {
			return binaries{}, fmt.Errorf("%s is missing: run `make build` first, or set %s", path, BinDirEnv)
		}
	}
	return found, nil
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
