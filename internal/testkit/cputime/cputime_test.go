package cputime

import (
	"testing"
	"time"
)

// TestReportDividesWhatOperationsTook needs no idle machine: what others take of the processor is not counted.
func TestReportDividesWhatOperationsTook(t *testing.T) {
	const operation, things = 50 * time.Millisecond, 2
	result := testing.Benchmark(func(b *testing.B) {
		defer Report(b, things, "row")()
		for b.Loop() {
			for began := Used(b); Used(b)-began < operation; {
				continue
			}
		}
	})
	got := time.Duration(result.Extra["cpu-ns/row"])
	if want := operation / things; got < want || got > 2*want {
		t.Errorf("%v a row of %d operations, want %v", got, result.N, want)
	}
}
