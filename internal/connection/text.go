package connection

import (
	"errors"
	"net"
	"strings"
	"unicode/utf8"
)

// MaxText is how many bytes Shorten leaves of a text. An Event takes as many.
const MaxText = 1024

// Message returns the text of an error, shortened, and without what changes from one attempt to the next, such as the local
// port of a connection: a condition with it does not flap.
func Message(err error) string {
	text := err.Error()
	if op := new(net.OpError); errors.As(err, &op) && op.Source != nil {
		text = strings.ReplaceAll(text, op.Source.String()+"->", "")
	}
	return Shorten(text)
}

// Shorten returns the text as it may go into a condition, an event or a log: what an API server says can have megabytes and
// lines.
func Shorten(text string) string {
	if len(text) > MaxText {
		const more = " ..."
		text = text[:MaxText-len(more)]
		for len(text) > 0 && !utf8.ValidString(text[max(0, len(text)-utf8.UTFMax):]) {
			text = text[:len(text)-1]
		}
		text += more
	}
	return strings.ToValidUTF8(text, "?")
}
