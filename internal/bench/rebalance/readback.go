package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
)

// result of reading the output under read_committed: each input offset has to be there once.
type result struct{ inputs, outputs, duplicates, missing, foreign int }

func (r result) String() string {
	return fmt.Sprintf("%d of %d inputs, %d duplicates, %d missing, %d foreign", r.outputs, r.inputs, r.duplicates, r.missing, r.foreign)
}

func (c *scene) readBack(ctx context.Context, inputs map[consumer.TopicPartition]int64) (result, error) {
	var r result
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// To the very end, also of what is not yet committed: where a killed worker's transaction is still open, reading
	// waits until the broker has ended it.
	ends, err := consumer.ListOffsets(ctx, c.client, c.all(c.output()), consumer.Latest, consumer.ReadUncommitted)
	if err != nil {
		return r, err
	}
	fetcher, err := consumer.NewFetcher(consumer.DefaultFetchConfig(), c.client, zerolog.Nop())
	if err != nil {
		return r, err
	}
	g, reading := errgroup.WithContext(ctx)
	reading, stop := context.WithCancel(reading)
	g.Go(func() error { return fetcher.Run(reading) })
	g.Go(func() error {
		defer stop()
		for p := range int32(c.partitions) {
			input := inputs[consumer.TopicPartition{Topic: c.input(), Partition: p}]
			output := consumer.TopicPartition{Topic: c.output(), Partition: p}
			if err := r.readPartition(reading, fetcher, output, ends[output], input); err != nil {
				return err
			}
		}
		return nil
	})
	return r, g.Wait()
}

func (r *result) readPartition(ctx context.Context, fetcher *consumer.Fetcher, output consumer.TopicPartition, end, inputs int64) error {
	seen := make([]uint8, inputs)
	if end > 0 {
		partition := fetcher.Open(output, 0)
		defer partition.Close()
		for next := int64(0); next < end; {
			batch, err := partition.Next(ctx)
			if err != nil {
				return fmt.Errorf("read %s: %w", output, err)
			}
			next = batch.Next
			for _, record := range batch.Records {
				r.outputs++
				source := int64(binary.BigEndian.Uint64(record.Value[4:]))
				if binary.BigEndian.Uint32(record.Value) != uint32(output.Partition) || source >= inputs {
					r.foreign++
					continue
				}
				if seen[source]++; seen[source] == 2 {
					r.duplicates++
				}
			}
		}
	}
	r.inputs += len(seen)
	for _, n := range seen {
		if n == 0 {
			r.missing++
		}
	}
	return nil
}
