package images

import (
	"encoding/binary"
	"fmt"
)

// capabilityRecord is the record of a tar header that becomes the extended attribute with the file's capabilities.
const capabilityRecord = "SCHILY.xattr.security.capability"

// Of linux/capability.h: the revision of the attribute, and the flag that says that the capabilities are effective.
const (
	capabilityRevision  = 0x02000000
	capabilityEffective = 0x000001
)

// capabilityBits returns the numbers of the capabilities that files of upstream images have.
func capabilityBits() map[string]uint { return map[string]uint{"cap_net_bind_service": 10} }

// fileCapabilities returns the value of the attribute: a word with revision and flag, and the permitted and inheritable
// sets, first their low halves and then their high ones.
func fileCapabilities(names []string) ([]byte, error) {
	var permitted uint64
	for _, name := range names {
		bit, ok := capabilityBits()[name]
		if !ok {
			return nil, fmt.Errorf("capability %s is not known", name)
		}
		permitted |= 1 << bit
	}
	var value []byte
	for _, word := range []uint32{capabilityRevision | capabilityEffective, uint32(permitted), 0, uint32(permitted >> 32), 0} {
		value = binary.LittleEndian.AppendUint32(value, word)
	}
	return value, nil
}

// capabilities gives a file of the tree file capabilities.
func (t tree) capabilities(path string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	value, err := fileCapabilities(names)
	if err != nil {
		return fmt.Errorf("setting capabilities of %s: %w", path, err)
	}
	path = t.resolve(path)
	file := t[path]
	file.header.PAXRecords = map[string]string{capabilityRecord: string(value)}
	t[path] = file
	return nil
}
