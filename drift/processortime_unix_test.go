//go:build unix

package drift

import (
	"syscall"
	"testing"
	"time"
)

// reportProcessorTime adds what an operation takes of the processor: elapsed time says little on a machine with other work.
// The function that it returns is to be called after the loop.
func reportProcessorTime(b *testing.B) (stop func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/op") }
}
