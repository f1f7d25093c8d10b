package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// Job is one redrive. What it has done is kept in the committed offsets of its group, so that another run of the same
// job goes on where the last one stopped, however that ended.
type Job struct {
	Topic           string // of the dead letters
	Group           string // of this job alone
	TransactionalID string // likewise
	Target          string // "": each to the topic that it came from
	Filter          Filter
	MaxAttempts     int32   // a record that has failed so often stays where it is
	Rate            float64 // records a second; 0: as fast as the brokers take them
	Producing       producer.Config
}

// Tally is what a run did. What was not committed is not counted.
type Tally struct {
	Redriven int64                        `json:"redriven"`
	Oldest   time.Time                    `json:"oldest,omitzero"`    // event of the redriven: older than the retention of its topic, it is deleted again at once
	ByClass  map[schemas.ErrorClass]int64 `json:"by_class,omitempty"` // of the redriven
	AtLimit  int64                        `json:"at_limit"`           // have failed too often
	LeftOut  int64                        `json:"left_out"`           // whose bytes were too large to be kept
	Others   int64                        `json:"others"`             // that the filter does not mean
	Foreign  int64                        `json:"foreign"`            // not written by a worker
}

// unitRecords bounds one transaction of a redrive.
const unitRecords = 2000

// maxFailures in a row end a run: each has taken as long as the producer's own limits.
const maxFailures = 5

// Redrive sends the dead letters that the job means back, in transactions that hold the records and the offsets of the
// dead letters, up to the end of the topic as it is now. Progress is called after every transaction. An error leaves
// what was committed, which the tally counts; the next run goes on from there.
func Redrive(ctx context.Context, client *kafkawire.Client, job Job, progress func(Tally)) (Tally, error) {
	r := redrive{job: job, client: client, progress: progress, total: Tally{ByClass: map[schemas.ErrorClass]int64{}}}
	for failures := 0; ; failures++ {
		before := r.total.seen()
		err := r.run(ctx)
		if r.total.seen() > before {
			failures = 0
		}
		_, retriable := kafkawire.Retriable(err)
		switch {
		case err == nil:
			return r.total, nil
		case ctx.Err() != nil:
			return r.total, ctx.Err()
		case errors.Is(err, producer.ErrFenced):
			return r.total, fmt.Errorf("another run of this job has begun; this one ends: %w", err)
		case !errors.Is(err, producer.ErrAbortable) && !retriable, failures == maxFailures:
			return r.total, err
		}
		timer := time.NewTimer(time.Duration(failures+1) * 200 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return r.total, ctx.Err()
		}
	}
}

// Plan says what a run of the job would do now, and sends nothing.
func Plan(ctx context.Context, client *kafkawire.Client, job Job) (Tally, error) {
	r := redrive{job: job, client: client, unit: Tally{ByClass: map[schemas.ErrorClass]int64{}}}
	err := r.each(ctx, func(b *consumer.Batch) error {
		for i := range b.Records {
			r.take(b.Partition, &b.Records[i])
		}
		return nil
	})
	return r.unit, err
}

type redrive struct {
	job      Job
	client   *kafkawire.Client
	progress func(Tally)

	total, unit Tally // unit: of the open transaction
	letter      Letter
	publisher   producer.Publisher
	counts      map[string]int32 // partitions of the target topics
	headers     []byte           // scratch
	sent        time.Time        // from when on the next unit is due
}

func (t *Tally) seen() int64 { return t.Redriven + t.AtLimit + t.LeftOut + t.Others + t.Foreign }

func (t *Tally) add(u *Tally) {
	t.Redriven += u.Redriven
	if !u.Oldest.IsZero() && (t.Oldest.IsZero() || u.Oldest.Before(t.Oldest)) {
		t.Oldest = u.Oldest
	}
	t.AtLimit += u.AtLimit
	t.LeftOut += u.LeftOut
	t.Others += u.Others
	t.Foreign += u.Foreign
	for class, n := range u.ByClass {
		t.ByClass[class] += n
	}
}

func (r *redrive) newUnit() { r.unit = Tally{ByClass: map[schemas.ErrorClass]int64{}} }

// run goes from the committed offsets to the ends.
func (r *redrive) run(ctx context.Context) error {
	publisher, err := producer.NewTransactional(r.job.Producing, r.client, r.job.TransactionalID)
	if err != nil {
		return err
	}
	defer publisher.Close()
	if err := publisher.Begin(ctx); err != nil { // ends what a killed run left open
		return err
	}
	r.publisher, r.counts = publisher, map[string]int32{}
	r.newUnit()
	err = r.each(ctx, func(b *consumer.Batch) error { return r.batch(ctx, b) })
	if err != nil {
		abort, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		if failed := publisher.Abort(abort); failed != nil && !errors.Is(err, producer.ErrFenced) {
			return fmt.Errorf("%w (and the transaction stays open until its timeout: %w)", err, failed)
		}
	}
	return err
}

// each hands the batches that are left to fn.
func (r *redrive) each(ctx context.Context, fn func(*consumer.Batch) error) error {
	ranges, err := ends(ctx, r.client, r.job.Topic)
	if err != nil {
		return err
	}
	partitions := make([]consumer.TopicPartition, len(ranges))
	for i := range ranges {
		partitions[i] = ranges[i].TopicPartition
	}
	committed, err := consumer.CommittedOffsets(ctx, r.client, r.job.Group, consumer.Identity{}, partitions)
	if err != nil {
		return err
	}
	first, err := firsts(ctx, r.client, ranges, r.job.Filter)
	if err != nil {
		return err
	}
	return reading(ctx, r.client, func(ctx context.Context, fetcher *consumer.Fetcher) error {
		for _, p := range ranges {
			// Retention may have passed the committed offset meanwhile.
			if err := tail.ReadRange(ctx, fetcher, p.TopicPartition, max(committed[p.TopicPartition], first[p.TopicPartition]), p.end, fn); err != nil {
				return err
			}
		}
		return nil
	})
}

// batch sends the records of a batch in units.
func (r *redrive) batch(ctx context.Context, b *consumer.Batch) error {
	most := unitRecords
	if r.job.Rate > 0 { // a quarter of a second's, so that the rate is even and an interruption is soon noticed
		most = max(1, min(unitRecords, int(r.job.Rate/4)))
	}
	records := b.Records
	for {
		n := 0
		for n < len(records) && r.unit.Redriven < int64(most) {
			if r.take(b.Partition, &records[n]) {
				if err := r.append(ctx); err != nil {
					return err
				}
			}
			n++
		}
		next := b.Next
		if n < len(records) {
			next = records[n].Offset
		}
		if err := r.commit(ctx, b.TopicPartition, next); err != nil {
			return err
		}
		if records = records[n:]; len(records) == 0 {
			return nil
		}
	}
}

// take judges a record and counts it; true: it is to be sent.
func (r *redrive) take(partition int32, record *consumer.Record) bool {
	l, u := &r.letter, &r.unit
	switch {
	case !l.parse(partition, record):
		u.Foreign++
	case !r.job.Filter.Match(l):
		u.Others++
	case l.LeftOut:
		u.LeftOut++
	case l.Attempt >= r.job.MaxAttempts:
		u.AtLimit++
	default:
		u.Redriven++
		u.ByClass[l.Class]++
		if at := time.UnixMilli(l.Timestamp); u.Oldest.IsZero() || at.Before(u.Oldest) {
			u.Oldest = at
		}
		return true
	}
	return false
}

// append puts the letter in hand into the transaction: key, value, headers and time as they came, to the partition that
// it came from. Two headers go with it: the failures so far and the place of the first one.
func (r *redrive) append(ctx context.Context) error {
	l := &r.letter
	topic := cmp.Or(r.job.Target, l.Source.Topic)
	count, known := r.counts[topic]
	if !known {
		var err error
		if count, err = r.client.Partitions(ctx, topic); err != nil {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
		r.counts[topic] = count
	}
	partition := int32(-1)
	if topic == l.Source.Topic && l.Source.Partition < count {
		partition = l.Source.Partition
	}
	headers, n := l.record.WithoutHeaders(r.headers[:0], added)
	r.headers = headers
	return r.publisher.Append(&producer.Record{
		Topic: topic, Partition: partition, Timestamp: l.Timestamp, Key: l.Key, Value: l.Value,
		RawHeaders: headers, RawHeaderCount: n,
		Headers: []producer.Header{
			{Key: schemas.HeaderAttempt, Value: strconv.AppendInt(nil, int64(l.Attempt), 10)},
			{Key: schemas.HeaderOrigin, Value: []byte(cmp.Or(l.Origin, l.Source.String()))},
		},
	})
}

// commit ends the transaction with the offset of the next dead letter, at the rate's pace.
func (r *redrive) commit(ctx context.Context, tp consumer.TopicPartition, next int64) error {
	if r.job.Rate > 0 && r.unit.Redriven > 0 {
		now := time.Now()
		if r.sent.Before(now) {
			r.sent = now
		}
		timer := time.NewTimer(r.sent.Sub(now))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		r.sent = r.sent.Add(time.Duration(float64(r.unit.Redriven) / r.job.Rate * float64(time.Second)))
	}
	// No member of the group does this: the transactional id keeps others out.
	nobody := producer.Member{Group: r.job.Group, Generation: -1}
	if err := r.publisher.Commit(ctx, nobody, []producer.Offset{{Topic: tp.Topic, Partition: tp.Partition, Offset: next}}); err != nil {
		if errors.Is(err, producer.ErrStaleMember) {
			return fmt.Errorf("group %s has members, so nobody else can commit its offsets: choose another name for the job: %w", r.job.Group, err)
		}
		return err
	}
	r.total.add(&r.unit)
	r.newUnit()
	if r.progress != nil {
		r.progress(r.total)
	}
	return r.publisher.Begin(ctx) // the next unit; asks the broker for nothing
}
