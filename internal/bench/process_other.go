//go:build !linux

package bench

import (
	"errors"
	"time"
)

// sampleProcess needs /proc.
func sampleProcess(int) (time.Duration, int64, error) {
	return 0, 0, errors.New("CPU and memory of a process are read on Linux only")
}
