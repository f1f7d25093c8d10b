package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// readBack takes what a committed reader sees of a round and gives it to the ledger, while the round goes on: an event
// before what came of it. What was read and committed is deleted from the topics, so that a long round does not fill the
// disk. One goroutine uses it.
type readBack struct {
	round                *round
	ledger               *ledger
	events, scores, dead *reading
	held                 []*kgo.Record // scores and dead letters, the events of which may not have been read
}

const (
	lookBack    = 250 * time.Millisecond
	mostAtOnce  = 200_000 // scores or dead letters
	deleteEvery = 10 * time.Second
	tellEvery   = time.Minute
)

func newReadBack(r *round) (*readBack, error) {
	t := r.cfg.Topics
	b := &readBack{round: r, ledger: newLedger(r.catalogue, t.Events)}
	var err error
	for topic, reading := range map[string]**reading{t.Events: &b.events, t.Scores: &b.scores, t.DeadLetters: &b.dead} {
		var err2 error
		*reading, err2 = newReading(r.brokers, topic, r.settings.partitions)
		err = errors.Join(err, err2)
	}
	return b, err
}

func (b *readBack) close() {
	for _, r := range []*reading{b.events, b.scores, b.dead} {
		if r != nil {
			r.client.Close()
		}
	}
}

// run reads until ctx ends.
func (b *readBack) run(ctx context.Context) error {
	deleted, told, faults := time.Now(), time.Now(), 0
	for ctx.Err() == nil {
		if err := b.some(ctx); err != nil {
			return err
		}
		if time.Since(deleted) > deleteEvery {
			deleted = time.Now()
			b.forget(ctx)
		}
		if n := b.ledger.verdict.faults(); n > faults || time.Since(told) > tellEvery {
			faults, told = n, time.Now()
			b.round.log("read back: %s; fed %d; %v", &b.ledger.verdict, b.round.feeder.fed.Load(), b.ledger.verdict.Examples)
		}
	}
	return nil
}

// some reads what is there by now.
func (b *readBack) some(ctx context.Context) error {
	hold := func(r *kgo.Record) error {
		b.held = append(b.held, r)
		return nil
	}
	if len(b.held) == 0 {
		if err := errors.Join(b.scores.poll(ctx, lookBack, hold), b.dead.poll(ctx, lookBack/10, hold)); err != nil {
			return err
		}
	}
	// The events of what is held are all before these ends.
	ends, err := b.round.brokers.ends(ctx, b.round.cfg.Topics.Events)
	if err != nil {
		pause(ctx, lookBack)
		return nil //nolint:nilerr // a broker is away: the next time
	}
	if err := b.events.to(ctx, ends, b.ledger.addEvent); err != nil || ctx.Err() != nil {
		return err
	}
	for i, r := range b.held {
		if err := b.due(r); err != nil {
			return err
		}
		b.held[i] = nil
	}
	b.held = b.held[:0]
	return nil
}

// due takes a score or a dead letter.
func (b *readBack) due(r *kgo.Record) error {
	if r.Topic == b.scores.topic {
		return b.ledger.addScore(r)
	}
	return b.ledger.addDeadLetter(r)
}

// forget deletes what was read and committed. That it fails is no harm: the next time it may not.
func (b *readBack) forget(ctx context.Context) {
	r := b.round
	committed, err := r.brokers.committed(ctx, r.name, b.events.topic, len(b.events.next))
	if err == nil {
		before := map[string]map[int32]int64{b.events.topic: {}, b.scores.topic: {}, b.dead.topic: {}}
		for _, from := range []*reading{b.events, b.scores, b.dead} {
			for p, next := range from.next {
				if from == b.events {
					next = min(next, committed[int32(p)])
				}
				if next > 0 {
					before[from.topic][int32(p)] = next
				}
			}
		}
		err = r.brokers.deleteRecords(ctx, before)
	}
	if err != nil && ctx.Err() == nil {
		r.log("what was read is not deleted: %v", err)
	}
}

// rest reads everything to the ends of the logs, behind what a killed worker left open: that waits until the broker has
// ended it. Nothing is written any more. Drift states are read for the first time.
func (b *readBack) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	states, err := newReading(b.round.brokers, b.round.cfg.Topics.DriftState, 0)
	if err != nil {
		return err
	}
	defer states.client.Close()
	toEnd := func(from *reading, take func(*kgo.Record) error) error {
		ends, err := b.round.brokers.ends(ctx, from.topic)
		if err == nil {
			err = from.to(ctx, ends, take)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("read %s back: %w", from.topic, err)
		}
		return nil
	}
	if err := toEnd(b.events, b.ledger.addEvent); err != nil {
		return err
	}
	for _, r := range b.held {
		if err := b.due(r); err != nil {
			return err
		}
	}
	b.held = nil
	return errors.Join(toEnd(b.scores, b.due), toEnd(b.dead, b.due), toEnd(states, b.ledger.addState))
}

// reading is a committed reader's way through a topic, each partition's records in order.
type reading struct {
	topic  string
	client *kgo.Client
	next   []int64 // by partition: offset after what was read
}

func newReading(b *brokers, topic string, partitions int) (*reading, error) {
	client, err := b.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return nil, err
	}
	r := &reading{topic: topic, client: client}
	r.follow(partitions)
	return r, nil
}

// follow reads so many partitions from now on.
func (r *reading) follow(partitions int) {
	for p := len(r.next); p < partitions; p++ {
		r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {int32(p): kgo.NewOffset().AtStart()}})
		r.next = append(r.next, 0)
	}
}

// poll takes what comes first, within a time.
func (r *reading) poll(ctx context.Context, within time.Duration, take func(*kgo.Record) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	fetches := r.client.PollRecords(ctx, mostAtOnce)
	var err error
	fetches.EachError(func(topic string, partition int32, err2 error) {
		if errors.Is(err2, kerr.OffsetOutOfRange) { // the others pass
			err = fmt.Errorf("read %s/%d from %d on: %w", topic, partition, r.next[partition], err2)
		}
	})
	for i := fetches.RecordIter(); !i.Done(); {
		record := i.Next()
		r.next[record.Partition] = record.Offset + 1
		if !record.Attrs.IsControl() && err == nil {
			err = take(record)
		}
	}
	return err
}

// to reads until the positions are at the ends, or ctx has ended.
func (r *reading) to(ctx context.Context, ends map[int32]int64, take func(*kgo.Record) error) error {
	r.follow(len(ends))
	behind := func() bool {
		for p, end := range ends {
			if r.next[p] < end {
				return true
			}
		}
		return false
	}
	for ctx.Err() == nil && behind() {
		if err := r.poll(ctx, time.Second, take); err != nil {
			return err
		}
	}
	return nil
}
