package worker

import (
	"strconv"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// appendDeadLetter sets a record aside as it came, key, value and headers untouched, with what is wrong and where it
// came from in further headers.
func (t *task) appendDeadLetter(r *consumer.Record, cause *schemas.RecordError) error {
	d := schemas.DeadLetter{
		Class:           cause.Class,
		Message:         cause.Error(),
		SourceTopic:     t.source.Topic,
		SourcePartition: t.source.Partition,
		SourceOffset:    r.Offset,
		Timestamp:       r.Timestamp,
		Attempt:         1,
		WorkerVersion:   t.worker.version,
	}
	text := func(v int64) []byte { return strconv.AppendInt(nil, v, 10) }
	record := producer.Record{
		Topic:          t.worker.cfg.Topics.DeadLetters,
		Partition:      byKey,
		Timestamp:      t.worker.now().UnixMilli(), // of the failure: the topic's retention counts from here
		Key:            r.Key,
		Value:          r.Value,
		RawHeaders:     r.Headers,
		RawHeaderCount: r.HeaderCount,
		Headers: []producer.Header{
			{Key: schemas.HeaderClass, Value: []byte(d.Class)},
			{Key: schemas.HeaderError, Value: []byte(d.Message)},
			{Key: schemas.HeaderTopic, Value: []byte(d.SourceTopic)},
			{Key: schemas.HeaderPartition, Value: text(int64(d.SourcePartition))},
			{Key: schemas.HeaderOffset, Value: text(d.SourceOffset)},
			{Key: schemas.HeaderTimestamp, Value: text(d.Timestamp)},
			{Key: schemas.HeaderAttempt, Value: text(int64(d.Attempt))},
			{Key: schemas.HeaderVersion, Value: []byte(d.WorkerVersion)},
			{Key: schemas.HeaderDeadLetter, Value: d.AppendAvro(schemas.AppendFrame(nil, t.worker.schemaIDs.deadLetter))},
		},
	}
	if err := t.publisher.Append(&record); err != nil {
		return err
	}
	t.tally.deadLetters[cause.Class]++
	t.log.Debug().Int64("offset", r.Offset).Str("class", string(cause.Class)).Msg("dead letter")
	return nil
}
