package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// allocatorLine is what API servers log for each ServiceCIDR whenever they look at all of them.
const allocatorLine = "updated ClusterIP allocator"

// logLines counts the lines that are added to a log.
type logLines struct {
	path   string
	offset int64
}

// lines are how many lines and bytes there were, and how many of the lines were allocatorLine.
type lines struct{ All, Allocator, Bytes int64 }

// more counts what was added since the last call.
func (l *logLines) more() (lines, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return lines{}, fmt.Errorf("opening a log: %w", err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(l.offset, io.SeekStart); err != nil {
		return lines{}, fmt.Errorf("reading a log: %w", err)
	}
	n, err := countLines(file)
	l.offset += n.Bytes
	return n, err
}

func countLines(r io.Reader) (lines, error) {
	var n lines
	for in := bufio.NewReaderSize(r, 1<<20); ; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return n, nil // the rest is not a line yet
		}
		n.Bytes += int64(len(line))
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("reading a log: %w", err)
		}
		n.All++
		if bytes.Contains(line, []byte(allocatorLine)) {
			n.Allocator++
		}
	}
}
