package producer

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// completion keeps the first Produce of a transaction behind the markers of the one before.
//
// Under transaction version 2 EndTxn is answered before the markers of the transaction are written. A Produce that
// comes earlier finds the transaction still ending, and the broker holds it for its
// add.partitions.to.txn.retry.backoff.ms (20 ms) before it looks again. How long the markers take depends on the cluster
// and on what it does at the moment, so the coordinator is asked (DescribeTransactions, KIP-664) until it calls the
// transaction complete. An answer that does not come or is refused costs nothing but the hold.
type completion struct {
	s       *session
	limit   time.Duration // nobody is asked later than this after the end, nor waited for longer
	request kafkawire.Request
	pending bool      // a transaction has ended and is not known to be complete
	ended   time.Time // when EndTxn was answered
}

const (
	firstLook = 500 * time.Microsecond // after the end; most markers are written by then
	nextLook  = 500 * time.Microsecond
	lastLook  = 20 * time.Millisecond // the broker's own hold is not longer
)

// describeTransactions is an API that kafka-go does not know.
const describeTransactions protocol.ApiKey = 65

// transactionEnded notes the answer to EndTxn.
func (c *completion) transactionEnded() { c.ended, c.pending = time.Now(), true }

// wait returns when the first Produce may go.
func (c *completion) wait(ctx context.Context) error {
	for pause := firstLook; c.pending; pause = nextLook {
		since := time.Since(c.ended)
		if since >= c.limit {
			c.pending = false
			break
		}
		if pause == firstLook {
			pause -= since
		}
		if pause > 0 {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
		ending, err := c.ask(ctx)
		if cause := ctx.Err(); cause != nil {
			return cause
		}
		c.pending = ending && err == nil
	}
	return nil
}

// ask says whether the coordinator is still ending the transaction.
func (c *completion) ask(ctx context.Context) (ending bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	id := c.s.transactionalID
	broker, err := c.s.client.Coordinator(ctx, kafkawire.Transaction, id)
	if err != nil {
		return false, err
	}
	if _, err := c.s.version(ctx, broker, describeTransactions, versionRange{0, 0}); err != nil {
		return false, err
	}
	r := &c.request
	r.Key, r.Version, r.FlexibleFrom, r.Broker = describeTransactions, 0, 0, broker
	r.Encode = func(w *kafkawire.Writer) {
		w.ArrayLen(1)
		w.String(id)
		w.Tags()
	}
	r.Decode = func(r *kafkawire.Reader) error {
		ending, err = decodeEnding(r)
		return nil
	}
	if err := c.s.client.Do(ctx, r); err != nil {
		return false, err
	}
	return ending, err
}

// decodeEnding reads the answer of DescribeTransactions about one transaction, as far as its state. The states are those
// of the broker's TransactionState.
func decodeEnding(r *kafkawire.Reader) (ending bool, err error) {
	r.Int32() // throttle
	if r.ArrayLen() < 1 {
		return false, r.Err()
	}
	if err := kafkawire.Code(r.Int16()); err != nil {
		return false, err
	}
	r.StringBytes() // transactional id
	switch string(r.StringBytes()) {
	case "PrepareCommit", "PrepareAbort":
		ending = true
	}
	return ending, r.Err()
}
