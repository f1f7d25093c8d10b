package producer

import (
	"context"
	"time"
)

// spacing keeps the first Produce of a transaction a little behind the EndTxn of the one before.
//
// Under transaction version 2 EndTxn is answered before the markers of the transaction are written. A Produce that
// comes earlier finds the transaction still ending, and the broker holds it for its
// add.partitions.to.txn.retry.backoff.ms (20 ms) before it looks again. Measured on one Kafka 4.3 broker, one producer
// back to back: 52 transactions/s without spacing, 260/s with 1 ms. How long the markers take depends on the cluster,
// so the distance grows with each Produce that seems to have been held and shrinks slowly with the others. On a busy
// machine any request may take that long: the offset commit of the same transaction, which nothing holds, says how often.
type spacing struct {
	distance time.Duration
	ended    time.Time // when the last EndTxn was answered
	close    bool      // the current transaction's first Produce came within maxSpacing of it
}

const (
	minSpacing  = 500 * time.Microsecond
	maxSpacing  = 8 * time.Millisecond
	spacingStep = 500 * time.Microsecond
	heldProduce = 18 * time.Millisecond // a first Produce that takes this long was held, or the cluster is so slow that it does not matter
)

func newSpacing() spacing { return spacing{distance: 2 * minSpacing} }

// transactionEnded notes the answer to EndTxn.
func (s *spacing) transactionEnded(now time.Time) { s.ended = now }

// wait returns when the first Produce may go.
func (s *spacing) wait(ctx context.Context) error {
	since := time.Since(s.ended)
	s.close = since < maxSpacing
	if since >= s.distance {
		return nil
	}
	return sleep(ctx, s.distance-since)
}

// learn takes the time of the first Produce and of the offset commit, 0 where there was none.
func (s *spacing) learn(produce, offsets time.Duration) {
	slow, busy := produce >= heldProduce, offsets >= heldProduce
	switch {
	case !s.close || produce == 0: // says nothing about markers
	case slow && !busy:
		s.distance = min(s.distance+spacingStep, maxSpacing)
	case busy && !slow:
		s.distance = max(s.distance-spacingStep, minSpacing)
	default:
		s.distance = max(s.distance-s.distance/256, minSpacing)
	}
}
