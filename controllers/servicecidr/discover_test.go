package servicecidr

import (
	"errors"
	"testing"
)

func TestRangeIn(t *testing.T) {
	for text, want := range map[string]string{
		`Service "x" is invalid: spec.clusterIPs: Invalid value: ["192.0.2.1"]: failed to allocate IP 192.0.2.1: the provided IP (192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12`: "10.96.0.0/12",
		"The range of valid IPs is fd00:10:96::/112]": "fd00:10:96::/112",
		"The range of valid IPs is unknown":           "",
		"something else":                              "",
	} {
		got, ok := rangeIn(errors.New(text))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
