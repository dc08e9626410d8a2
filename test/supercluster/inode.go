package supercluster

import (
	"fmt"
	"os"
	"syscall"
)

func inode(file string) (uint64, error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s has no inode number", file)
	}
	return stat.Ino, nil
}
