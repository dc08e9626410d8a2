package figures_test

import (
	"os"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/figures"
)

func TestOwnProcess(t *testing.T) {
	before, err := figures.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := before + 20*time.Millisecond; ; {
		now, err := figures.CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now >= end {
			break
		}
	}
	if n, err := figures.Anonymous(os.Getpid()); err != nil || n < 1<<20 || n > 1<<32 {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if _, err := figures.CPU(-1); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}
