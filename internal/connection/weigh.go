package connection

import (
	"bytes"
	"encoding/binary"
	"io"
)

// What decoding makes of a few bytes can be large: an empty object of two bytes becomes a container of a thousand. These
// are what the parts of an answer weigh in addition to their bytes.
const (
	weightOfObject = 256
	weightOfValue  = 16
)

// jsonScanner weighs JSON while it is read. Whatever it does not understand, decoders do not either.
type jsonScanner struct {
	in     *body
	events bool // it is a sequence of values, each weighed by itself

	open              []byte // the brackets that are open
	quoted, backslash bool
}

func (s *jsonScanner) next(p []byte) (int, error) {
	n, err := s.in.raw(p)
	var weight int64
	for _, c := range p[:n] {
		weight += 1 + s.scan(c)
		if s.events && len(s.open) == 0 && (c == '}' || c == ']') {
			if err := s.in.add(weight); err != nil {
				return 0, err
			}
			s.in.reset()
			weight = 0
		}
	}
	if err := s.in.add(weight); err != nil {
		return 0, err
	}
	return n, err
}

// scan returns what the byte weighs besides itself.
func (s *jsonScanner) scan(c byte) int64 {
	switch {
	case s.backslash:
		s.backslash = false
	case s.quoted:
		s.backslash, s.quoted = c == '\\', c != '"'
	case c == '"':
		s.quoted = true
	case c == '{' || c == '[':
		s.open = append(s.open, c)
		return weightOfObject
	case c == '}' || c == ']':
		s.open = s.open[:max(0, len(s.open)-1)]
	case c == ',' && len(s.open) > 0 && s.open[len(s.open)-1] == '[':
		return weightOfObject // decoders make an object of an item that should be one, whatever it is
	case c == ',':
		return weightOfValue
	}
	return 0
}

// protobufAnswer weighs one message. It can be read only once it is there as a whole.
type protobufAnswer struct {
	in      *body
	message *bytes.Reader
}

func (a *protobufAnswer) next(p []byte) (int, error) {
	if a.message == nil {
		message, err := take(a.in, nil, rawReader{a.in})
		if err != nil {
			return 0, err
		}
		a.message = bytes.NewReader(message)
	}
	return a.message.Read(p)
}

// protobufEvents weighs a sequence of messages, each with its length before it, as watches send them.
type protobufEvents struct {
	in      *body
	message bytes.Reader
}

func (e *protobufEvents) next(p []byte) (int, error) {
	if e.message.Len() > 0 {
		return e.message.Read(p)
	}
	e.in.reset()
	var header [4]byte
	if _, err := io.ReadFull(rawReader{e.in}, header[:]); err != nil {
		return 0, err
	}
	length := int64(binary.BigEndian.Uint32(header[:]))
	message, err := take(e.in, header[:], io.LimitReader(rawReader{e.in}, length))
	if err != nil {
		return 0, err
	}
	if int64(len(message)-len(header)) < length {
		return 0, io.ErrUnexpectedEOF
	}
	e.message.Reset(message)
	return e.message.Read(p)
}

// rawReader reads what the API server sends, and adds it to what the answer weighs.
type rawReader struct{ in *body }

func (r rawReader) Read(p []byte) (int, error) {
	n, err := r.in.raw(p)
	if err := r.in.add(int64(n)); err != nil {
		return 0, err
	}
	return n, err
}

// take returns the header and the message that follows it. It uses no more memory than what has arrived needs.
func take(in *body, header []byte, message io.Reader) ([]byte, error) {
	buffer := bytes.NewBuffer(header)
	if _, err := buffer.ReadFrom(message); err != nil {
		return nil, err
	}
	weight, _ := weighMessage(buffer.Bytes()[len(header):], 0)
	return buffer.Bytes(), in.add(weight)
}

// maxNesting is deeper than messages of Kubernetes are nested. What is nested deeper weighs as if it were the worst.
const maxNesting = 32

// weighMessage returns what the parts of a message in protobuf weigh besides their bytes, and whether it is one. Whether a
// field is a message or a text cannot be seen, so what can be read as a message counts as one. It reads as leniently as the
// decoders that are generated for Kubernetes do: what ends them must end it, and nothing else.
func weighMessage(data []byte, nesting int) (weight int64, ok bool) {
	data = bytes.TrimPrefix(data, []byte("k8s\x00"))
	if nesting > maxNesting {
		return int64(len(data)) * weightOfObject / 2, true
	}
	for len(data) > 0 {
		tag, n := varint(data)
		if n == 0 {
			return weight, false
		}
		data = data[n:]
		var size uint64
		switch tag & 7 {
		case 0:
			if _, n := varint(data); n > 0 {
				size = uint64(n)
			} else {
				return weight, false
			}
		case 1:
			size = 8
		case 2:
			length, n := varint(data)
			data = data[n:]
			if n == 0 || length > uint64(len(data)) {
				return weight, false
			}
			size = length
			inner, message := weighMessage(data[:length], nesting+1)
			weight += weightOfValue + inner
			if message {
				weight += weightOfObject
			}
		case 5:
			size = 4
		case 3, 4: // the limits of a group, whose content is read as if it were here
		default:
			return weight, false
		}
		if size > uint64(len(data)) {
			return weight, false
		}
		data = data[size:]
	}
	return weight, true
}

// varint reads a number and returns how many bytes it has; none if there is none.
func varint(data []byte) (value uint64, n int) {
	for n < len(data) && n < binary.MaxVarintLen64 {
		c := data[n]
		value |= uint64(c&0x7f) << (7 * n)
		n++
		if c < 0x80 {
			return value, n
		}
	}
	return 0, 0
}
