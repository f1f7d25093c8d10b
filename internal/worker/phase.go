package worker

import (
	"sync/atomic"
	"time"

	"github.com/churnstream/churnstream/consumer"
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

// waiting is what a partition waits for, as the label of a metric has it.
type waiting string

const (
	waitStart       waiting = "start"            // its producer, its position or its statistics
	waitCommit      waiting = "commit"           // the end of its transaction
	waitBrokers     waiting = "brokers"          // answers to its fetches
	waitRegistry    waiting = "schema_registry"  // a schema
	waitRetry       waiting = "retry"            // the pause after a batch that was given up
	waitFlood       waiting = "flood"            // the end of a flood of bad records
	waitTransaction waiting = "open_transaction" // somebody else's transaction, behind which nothing can be read
)

// phase is written by the task and read by the probes.
type phase struct {
	step   atomic.Int32
	since  atomic.Int64 // nanoseconds since 1970
	reason atomic.Pointer[reason]
}

// reason says in words what a step waits for.
type reason struct {
	what   waiting
	text   string
	behind consumer.TopicPartition // it waits for the end of a transaction that is open in there; zero: it does not
}

func (p *phase) set(s step, now time.Time) {
	p.step.Store(int32(s))
	p.since.Store(now.UnixNano())
}

// start notes a part of the start, which began at since.
func (p *phase) start(with string, since time.Time) {
	p.startBehind(consumer.TopicPartition{}, with, since)
}

// startBehind notes a part of the start that an open transaction in a partition may hold back.
func (p *phase) startBehind(behind consumer.TopicPartition, with string, since time.Time) {
	p.reason.Store(&reason{waitStart, with, behind})
	p.set(stepStarting, since)
}

// wait notes an outage of something else that began at since.
func (p *phase) wait(what waiting, text string, since time.Time) {
	p.reason.Store(&reason{what: what, text: text})
	p.set(stepWaiting, since)
}

func (p *phase) get() (s step, since time.Time, why reason) {
	s, since = step(p.step.Load()), time.Unix(0, p.since.Load())
	if r := p.reason.Load(); r != nil && (s == stepWaiting || s == stepStarting) {
		why = *r
	}
	return s, since, why
}

// inHand is the unit of work that a task is about to commit. It is written by the task and read by probes and metrics.
type inHand struct {
	first atomic.Int64 // offset of the unit's first batch; noBatch
	since atomic.Int64 // time of the oldest event that is known not to be scored, in ms; 0: none is
}

const noBatch = -1

func (h *inHand) none() {
	h.first.Store(noBatch)
	h.since.Store(0)
}

func (h *inHand) take(b *consumer.Batch) {
	h.first.Store(b.First)
	if len(b.Records) > 0 {
		h.since.Store(b.Records[0].Timestamp)
	}
}

// done notes the commit. The next events are about as old as the last one where there are some already.
func (h *inHand) done(t *tally) {
	h.first.Store(noBatch)
	if t.lastStable <= t.next {
		h.since.Store(0)
		return
	}
	h.since.Store(t.last)
}
