// Package cputime takes a benchmark and adds what its operations took of the processor: on a busy machine that says more
// than the clock.
package cputime

import "testing"

// Report counts from here on. The function that it gives, called behind the loop, reports the processor time of each of
// the things that one operation handles, all goroutines of the process included, as cpu-ns/thing.
func Report(b *testing.B, things int, thing string) (stop func()) {
	b.Helper()
	before := Used(b)
	return func() { b.ReportMetric(float64(Used(b)-before)/float64(b.N)/float64(things), "cpu-ns/"+thing) }
}
