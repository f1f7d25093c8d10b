// Package driftstate takes what is counted of a population to records of the state topic, and such records back to
// whoever counts or watches.
package driftstate

import (
	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// Writer publishes the counts of one source. One goroutine uses it.
type Writer struct {
	Topic     string
	Partition int32
	SchemaID  int32
	Headers   []producer.Header

	record producer.Record
	value  []byte
}

// Append writes the absolute counts of every bucket that pending events touched, at the time now in ms since 1970, into the
// unit that the publisher has open. A bucket that left the window is deleted.
func (w *Writer) Append(to producer.Publisher, counts *drift.Accumulator, now int64) error {
	return counts.States(func(key []byte, state *schemas.DriftState) error {
		w.record = producer.Record{Topic: w.Topic, Partition: w.Partition, Timestamp: now, Key: key, Headers: w.Headers}
		if state != nil {
			w.value = state.AppendAvro(schemas.AppendFrame(w.value[:0], w.SchemaID))
			w.record.Value = w.value
		}
		return to.Append(&w.record)
	})
}

// Each hands the states of a batch to fn, in the caller's memory; nil for a record that deletes its key. What cannot be
// read, or what fn refuses, is of none of the writers here: it is told of and passed over.
func Each(b *consumer.Batch, state *schemas.DriftState, fn func(*consumer.Record, *schemas.DriftState) error, tell func(*consumer.Record, error)) {
	for i := range b.Records {
		r, s := &b.Records[i], state
		var err error
		if r.Value == nil {
			s = nil
		} else {
			var body []byte
			if _, body, err = schemas.SplitFrame(r.Value); err == nil {
				err = schemas.DecodeDriftState(body, state)
			}
		}
		if err == nil {
			err = fn(r, s)
		}
		if err != nil {
			tell(r, err)
		}
	}
}
