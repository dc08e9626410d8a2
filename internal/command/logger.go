package command

import (
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	uberzap "go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/virtualcluster-io/virtualcluster/internal/connection"
)

// Logger returns the logger of a program. Its texts are short, since a part of them may come from a tenant.
func Logger(o zap.Options) logr.Logger {
	o.ZapOpts = append(o.ZapOpts, uberzap.WrapCore(func(c zapcore.Core) zapcore.Core { return shortCore{c} }))
	return zap.New(zap.UseFlagOptions(&o))
}

// shortCore shortens texts before another core writes them.
type shortCore struct{ zapcore.Core }

// With implements zapcore.Core.
func (c shortCore) With(fields []zapcore.Field) zapcore.Core {
	return shortCore{c.Core.With(shorten(fields))}
}

// Check implements zapcore.Core.
func (c shortCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c shortCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	entry.Message = connection.Shorten(entry.Message)
	return c.Core.Write(entry, shorten(fields))
}

func shorten(fields []zapcore.Field) []zapcore.Field {
	out := make([]zapcore.Field, len(fields))
	for i, f := range fields {
		switch value := f.Interface.(type) {
		case error:
			if text := value.Error(); len(text) > connection.MaxText {
				f.Interface = errors.New(connection.Shorten(text))
			}
		case fmt.Stringer:
			if f.Type == zapcore.StringerType {
				f = uberzap.String(f.Key, connection.Shorten(value.String()))
			}
		case nil:
			f.String = connection.Shorten(f.String)
		}
		out[i] = f
	}
	return out
}
