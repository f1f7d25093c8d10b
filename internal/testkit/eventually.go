package testkit

import (
	"fmt"
	"testing"
	"time"
)

// pollInterval is how often Eventually asks: often enough that a test's time is
// its subject's, seldom enough to leave the processor to it.
const pollInterval = 2 * time.Millisecond

// Eventually waits until cond holds and fails the test when it does not within
// timeout. What says what was waited for, as a format with its arguments. It
// calls cond at least once, and from this goroutine only, which must be the
// test's own.
func Eventually(t testing.TB, timeout time.Duration, cond func() bool, what string, args ...any) {
	t.Helper()
	if cond() {
		return
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-deadline.C:
			if cond() {
				return
			}
			t.Fatalf("not within %v: %s", timeout, fmt.Sprintf(what, args...))
		case <-tick.C:
			if cond() {
				return
			}
		}
	}
}

// lazy is an argument of Eventually whose value is taken when the wait failed.
type lazy func() any

func (l lazy) String() string { return fmt.Sprint(l()) }
