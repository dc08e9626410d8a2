package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/version"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// knownVersion is the version of Kubernetes whose types this program is built with, as far as types change.
const knownVersion = "1.36"

// Newer asks the API server for its version, and says whether its objects may have fields that this program does not know.
func (c *Client) Newer(ctx context.Context) (bool, error) {
	r, err := c.rest(corev1.SchemeGroupVersion.WithKind("Namespace"), false)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err := r.Get().AbsPath("/version").SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Raw()
	if err != nil {
		return false, fmt.Errorf("asking for the version: %w", err)
	}
	var info apimachineryversion.Info
	if err := json.Unmarshal(body, &info); err != nil {
		return false, fmt.Errorf("reading the version: %w", err)
	}
	return newer(info.GitVersion)
}

func newer(than string) (bool, error) {
	theirs, err := version.ParseGeneric(than)
	if err != nil {
		return false, fmt.Errorf("reading version %q: %w", than, err)
	}
	ours := version.MustParseGeneric(knownVersion)
	return theirs.Major() > ours.Major() || theirs.Major() == ours.Major() && theirs.Minor() > ours.Minor(), nil
}

// Unknown reads an object live and returns the fields of it that this program does not know, except those of its metadata
// and status: what it has read into a type does not show them.
func (c *Client) Unknown(ctx context.Context, o resource.Object) ([]string, error) {
	r, plural, err := c.forObject(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err := r.Get().NamespaceIfScoped(o.GetNamespace(), o.GetNamespace() != "").Resource(plural).Name(o.GetName()).
		SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	return unknown(body)
}

// unknown returns the fields of an object in JSON that its type does not have.
func unknown(body []byte) ([]string, error) {
	s := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
		jsonserializer.SerializerOptions{Strict: true})
	_, _, err := s.Decode(body, nil, nil)
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return nil, err
	}
	var fields []string
	for _, e := range strict.Errors() {
		field := strings.Trim(strings.TrimPrefix(e.Error(), "unknown field "), `"`)
		if !strings.HasPrefix(field, "metadata.") && !strings.HasPrefix(field, "status.") {
			fields = append(fields, field)
		}
	}
	return fields, nil
}
