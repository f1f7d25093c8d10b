//go:build unix

package cputime

import (
	"syscall"
	"testing"
	"time"
)

// Used is what this process has used of the processor so far.
func Used(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
