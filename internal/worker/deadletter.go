package worker

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// appendDeadLetter sets a record aside as it came, key, value and headers untouched, with what is wrong and where it
// came from in further headers. A record that is too large for a dead letter must not stop the stream either: its bytes
// are left out, which the text says, and stay where the source coordinates point to.
func (t *task) appendDeadLetter(r *consumer.Record, cause *schemas.RecordError) error {
	record := t.deadLetter(r, cause.Class, cause.Error())
	err := t.publisher.Append(&record)
	var large *producer.RecordTooLargeError
	if errors.As(err, &large) {
		without := consumer.Record{Offset: r.Offset, Timestamp: r.Timestamp}
		record = t.deadLetter(&without, cause.Class, fmt.Sprintf("%.1000s; key, value and headers are left out: %v", cause, large))
		record.Headers = append(record.Headers, producer.Header{Key: schemas.HeaderLeftOut, Value: []byte(large.Error())})
		err = t.publisher.Append(&record)
	}
	if err != nil {
		return err
	}
	t.tally.deadLetters[cause.Class]++
	t.tally.bad++
	t.tally.newest = cause.Error()
	t.log.Debug().Int64("offset", r.Offset).Str("class", string(cause.Class)).Msg("dead letter")
	return nil
}

func (t *task) deadLetter(r *consumer.Record, class schemas.ErrorClass, message string) producer.Record {
	d := schemas.DeadLetter{
		Class:           class,
		Message:         message,
		SourceTopic:     t.source.Topic,
		SourcePartition: t.source.Partition,
		SourceOffset:    r.Offset,
		Timestamp:       r.Timestamp,
		Attempt:         1,
		WorkerVersion:   t.worker.version,
	}
	headers, count := r.Headers, r.HeaderCount
	if failed := earlierAttempts(r); failed > 0 {
		d.Attempt += failed
		headers, count = r.WithoutHeaders(nil, isAttempt)
	}
	text := func(v int64) []byte { return strconv.AppendInt(nil, v, 10) }
	return producer.Record{
		Topic:          t.worker.cfg.Topics.DeadLetters,
		Partition:      byKey,
		Timestamp:      t.worker.now().UnixMilli(), // of the failure: the topic's retention counts from here
		Key:            r.Key,
		Value:          r.Value,
		RawHeaders:     headers,
		RawHeaderCount: count,
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
}

// earlierAttempts is how often the event failed before it was sent again.
func earlierAttempts(r *consumer.Record) int32 {
	failed := int64(0)
	for name, value := range r.EachHeader() {
		if isAttempt(name) {
			failed, _ = strconv.ParseInt(string(value), 10, 32) // what is no number is none of ours
		}
	}
	return int32(max(0, min(failed, math.MaxInt32-1)))
}

func isAttempt(name []byte) bool { return string(name) == schemas.HeaderAttempt }
