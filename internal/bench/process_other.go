//go:build !linux

package bench

import (
	"errors"
	"time"
)

// sampleProcess needs /proc.
func sampleProcess(int) (time.Duration, int64, error) {
	return 0, 0, errNotLinux
}

func sampleMachine() (time.Duration, error) { return 0, errNotLinux }

var errNotLinux = errors.New("CPU and memory of a process are read on Linux only")
