package worker

import (
	"sync/atomic"
	"time"
)

// step is what a task does at the moment.
type step int32

const (
	stepStarting   step = iota // producer, position, statistics
	stepIdle                   // waiting for events: healthy for any time
	stepWorking                // decoding and scoring: a matter of milliseconds
	stepCommitting             // ending the transaction: bounded by the producer's own limits
	stepWaiting                // an outage of something else, with its reason
)

func (s step) String() string {
	return [...]string{"starting", "idle", "working", "committing", "waiting"}[s]
}

// phase is written by the task and read by the probes.
type phase struct {
	step   atomic.Int32
	since  atomic.Int64 // nanoseconds since 1970
	reason atomic.Pointer[string]
}

func (p *phase) set(s step, now time.Time) {
	p.step.Store(int32(s))
	p.since.Store(now.UnixNano())
}

func (p *phase) wait(reason string, now time.Time) {
	p.reason.Store(&reason)
	p.set(stepWaiting, now)
}

func (p *phase) get() (s step, since time.Time, reason string) {
	s, since = step(p.step.Load()), time.Unix(0, p.since.Load())
	if r := p.reason.Load(); r != nil && s == stepWaiting {
		reason = *r
	}
	return s, since, reason
}
