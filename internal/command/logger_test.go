package command_test

import (
	"bytes"
	"errors"
	"net/url"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
)

// Whatever text gets into a log, its lines are short. What is short stays as it is.
func TestLinesAreShort(t *testing.T) {
	var out bytes.Buffer
	logger := command.Logger(zap.Options{DestWriter: &out})
	long := strings.Repeat("x", 1<<20)
	logger.WithValues("with", long).Error(errors.New(long), long, "text", long, "stringer", &url.URL{Path: long}, "error", errors.New(long))
	if n := out.Len(); n == 0 || n > 10<<10 {
		t.Errorf("an entry with long texts has %d bytes", n)
	}
	out.Reset()
	logger.WithValues("with", "a").Info("short", "text", "b", "number", 7, "stringer", &url.URL{Path: "/c"}, "error", errors.New("d"))
	for _, want := range []string{`"with":"a"`, `"msg":"short"`, `"text":"b"`, `"number":7`, `"stringer":"/c"`, `"error":"d"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in %s", want, out.String())
		}
	}
	out.Reset()
	logger.V(1).Info("for developers")
	if out.Len() > 0 {
		t.Errorf("it logs %s", out.String())
	}
}
