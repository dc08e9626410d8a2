package connection

import (
	"strings"
	"unicode/utf8"
)

// MaxText is how many bytes Shorten leaves of a text. An Event takes as many.
const MaxText = 1024

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
