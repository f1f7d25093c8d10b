// Package tail takes a topic and gives the batches of all its partitions, outside of any consumer group: for whoever
// restores a state, watches an output or counts it.
package tail

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
)

// ErrStop returned by a callback ends Follow without an error.
var ErrStop = errors.New("stop following")

// With runs fn with a fetcher of its own, which ends with fn.
func With(ctx context.Context, cfg consumer.FetchConfig, client *kafkawire.Client, log zerolog.Logger, fn func(context.Context, *consumer.Fetcher) error) error {
	fetcher, err := consumer.NewFetcher(cfg, client, log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	running := make(chan error, 1)
	go func() { running <- fetcher.Run(ctx) }()
	err = fn(ctx, fetcher)
	stop()
	return errors.Join(err, <-running)
}

// Starts gives the offset to begin with for every partition of the topic: at is consumer.Earliest or consumer.Latest.
func Starts(ctx context.Context, client *kafkawire.Client, topic string, at int64) (map[consumer.TopicPartition]int64, error) {
	partitions, err := all(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	starts, err := consumer.ListOffsets(ctx, client, partitions, at, consumer.ReadCommitted)
	if err != nil {
		return nil, fmt.Errorf("follow topic %s: %w", topic, err)
	}
	return starts, nil
}

// Follow hands every batch of the partitions to fn, from the given offsets on, until ctx ends or fn returns an error.
// Batches of one partition come in order; fn is called by one goroutine at a time and owns the batch during the call
// only. The fetcher must be running.
func Follow(ctx context.Context, fetcher *consumer.Fetcher, starts map[consumer.TopicPartition]int64, fn func(*consumer.Batch) error) error {
	var mu sync.Mutex
	serial := func(b *consumer.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		return fn(b)
	}
	g, group := errgroup.WithContext(ctx)
	for tp, start := range starts {
		g.Go(func() error {
			_, err := follow(group, fetcher, tp, start, forever, serial)
			return err
		})
	}
	err := g.Wait()
	if errors.Is(err, ErrStop) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// ReadPartition hands every batch of one partition to fn, from the earliest offset to the end of the log as it is now,
// and returns the offset to follow from. It waits for the transactions that are open before that end: what another
// producer holds open would otherwise hide what was committed behind it.
func ReadPartition(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher, tp consumer.TopicPartition, fn func(*consumer.Batch) error) (next int64, err error) {
	one := []consumer.TopicPartition{tp}
	starts, err := consumer.ListOffsets(ctx, client, one, consumer.Earliest, consumer.ReadCommitted)
	if err != nil {
		return 0, fmt.Errorf("read %s/%d: %w", tp.Topic, tp.Partition, err)
	}
	ends, err := consumer.ListOffsets(ctx, client, one, consumer.Latest, consumer.ReadUncommitted)
	if err != nil {
		return 0, fmt.Errorf("read %s/%d: %w", tp.Topic, tp.Partition, err)
	}
	return follow(ctx, fetcher, tp, starts[tp], ends[tp], fn)
}

// ReadTopic hands every batch of the topic to fn, partition after partition, each as ReadPartition does, and returns the
// offsets to follow from.
func ReadTopic(ctx context.Context, client *kafkawire.Client, fetcher *consumer.Fetcher, topic string, fn func(*consumer.Batch) error) (map[consumer.TopicPartition]int64, error) {
	partitions, err := all(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	next := make(map[consumer.TopicPartition]int64, len(partitions))
	for _, tp := range partitions {
		if next[tp], err = ReadPartition(ctx, client, fetcher, tp, fn); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// ReadRange hands what one partition has from offset start to end, exclusive, to fn. The last batch is cut there.
func ReadRange(ctx context.Context, fetcher *consumer.Fetcher, tp consumer.TopicPartition, start, end int64, fn func(*consumer.Batch) error) error {
	_, err := follow(ctx, fetcher, tp, start, end, func(b *consumer.Batch) error {
		for n := len(b.Records); n > 0 && b.Records[n-1].Offset >= end; n-- {
			b.Records = b.Records[:n-1]
		}
		b.Next = min(b.Next, end)
		return fn(b)
	})
	return err
}

// forever as the end of follow: until ctx ends.
const forever = -1

// follow reads from start to end, exclusive, and returns where it stopped.
func follow(ctx context.Context, fetcher *consumer.Fetcher, tp consumer.TopicPartition, start, end int64, fn func(*consumer.Batch) error) (next int64, err error) {
	if end != forever && start >= end {
		return start, nil
	}
	partition := fetcher.Open(tp, start)
	defer partition.Close()
	for next = start; end == forever || next < end; {
		batch, err := partition.Next(ctx)
		if err != nil {
			return next, err
		}
		next = batch.Next
		if err := fn(batch); err != nil {
			return next, err
		}
	}
	return next, nil
}

func all(ctx context.Context, client *kafkawire.Client, topic string) ([]consumer.TopicPartition, error) {
	n, err := client.Partitions(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("follow topic %s: %w", topic, err)
	}
	partitions := make([]consumer.TopicPartition, n)
	for i := range partitions {
		partitions[i] = consumer.TopicPartition{Topic: topic, Partition: int32(i)}
	}
	return partitions, nil
}
