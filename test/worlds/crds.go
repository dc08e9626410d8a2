package worlds

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

// installCRDs creates every CustomResourceDefinition of config/crd and waits until its resources are served.
func installCRDs(ctx context.Context, w *World) error {
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "config", "crd", tenancyv1alpha1.Group+"_*.yaml"))
	if err != nil {
		return fmt.Errorf("listing config/crd: %w", err)
	}
	if len(files) == 0 {
		return fmt.Errorf("config/crd has no %s_*.yaml: run `make generate`", tenancyv1alpha1.Group)
	}
	rest := w.Client.Discovery().RESTClient()
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a CRD: %w", err)
		}
		err = rest.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").
			SetHeader("Content-Type", "application/yaml").Body(body).Do(ctx).Error()
		if err != nil {
			return fmt.Errorf("creating %s: %w", filepath.Base(file), err)
		}
	}
	return poll(ctx, func(ctx context.Context) error {
		for _, file := range files {
			// controller-gen names the file after group and resource.
			resource := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(file), ".yaml"), tenancyv1alpha1.Group+"_")
			if err := rest.Get().AbsPath("/apis", tenancyv1alpha1.Group, tenancyv1alpha1.Version, resource).Do(ctx).Error(); err != nil {
				return fmt.Errorf("listing %s: %w", resource, err)
			}
		}
		return nil
	}, 20*time.Millisecond)
}
