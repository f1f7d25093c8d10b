//go:build unix

package httpapi

import (
	"syscall"
	"testing"
	"time"
)

// processorTime reports the processor time of the process since began for each of n things; that is what a benchmark on
// a busy machine can say.
func processorTime(b *testing.B, began time.Duration, n int, unit string) {
	b.ReportMetric(float64((processorNow()-began).Nanoseconds())/float64(n), unit)
}

func processorNow() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
