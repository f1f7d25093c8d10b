package deadletters

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
)

// ErrStop returned by a callback ends Browse without an error.
var ErrStop = errors.New("enough dead letters")

// ErrNoLetter says that there is nothing at a place.
var ErrNoLetter = errors.New("no dead letter is there")

// Browse hands every dead letter of the topic that the filter means to fn, partition by partition in the order of their
// offsets, up to the end of the topic as it is now. The letter is fn's during the call only. Foreign counts the records
// that no worker wrote.
func Browse(ctx context.Context, client *kafkawire.Client, topic string, filter Filter, fn func(*Letter) error) (foreign int64, err error) {
	ranges, err := ends(ctx, client, topic)
	if err != nil {
		return 0, err
	}
	starts, err := firsts(ctx, client, ranges, filter)
	if err != nil {
		return 0, err
	}
	err = reading(ctx, client, func(ctx context.Context, fetcher *consumer.Fetcher) error {
		var l Letter
		for _, r := range ranges {
			err := tail.ReadRange(ctx, fetcher, r.TopicPartition, starts[r.TopicPartition], r.end, func(b *consumer.Batch) error {
				for i := range b.Records {
					switch {
					case !l.parse(b.Partition, &b.Records[i]):
						foreign++
					case filter.Match(&l):
						if err := fn(&l); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrStop) {
		err = nil
	}
	return foreign, err
}

// At hands the dead letter at one place to fn.
func At(ctx context.Context, client *kafkawire.Client, topic string, partition int32, offset int64, fn func(*Letter) error) error {
	place := fmt.Errorf("%s/%d@%d: %w", topic, partition, offset, ErrNoLetter)
	ranges, err := ends(ctx, client, topic)
	if err != nil {
		return err
	}
	if int(partition) >= len(ranges) || partition < 0 || offset < 0 || offset >= ranges[partition].end {
		return place
	}
	first, err := consumer.ListOffsets(ctx, client, []consumer.TopicPartition{ranges[partition].TopicPartition}, consumer.Earliest, consumer.ReadCommitted)
	if err != nil {
		return err
	}
	if offset < first[ranges[partition].TopicPartition] {
		return place
	}
	found := false
	err = reading(ctx, client, func(ctx context.Context, fetcher *consumer.Fetcher) error {
		return tail.ReadRange(ctx, fetcher, ranges[partition].TopicPartition, offset, offset+1, func(b *consumer.Batch) error {
			var l Letter
			if len(b.Records) == 0 || b.Records[0].Offset != offset || !l.parse(partition, &b.Records[0]) {
				return nil
			}
			found = true
			return fn(&l)
		})
	})
	if err == nil && !found {
		return place
	}
	return err
}

// reach is a partition with the end of what can be read of it.
type reach struct {
	consumer.TopicPartition
	end int64
}

// ends gives the partitions of the topic, by number, with their ends as they are now.
func ends(ctx context.Context, client *kafkawire.Client, topic string) ([]reach, error) {
	n, err := client.Partitions(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	partitions := make([]consumer.TopicPartition, n)
	for i := range partitions {
		partitions[i] = consumer.TopicPartition{Topic: topic, Partition: int32(i)}
	}
	last, err := consumer.ListOffsets(ctx, client, partitions, consumer.Latest, consumer.ReadCommitted)
	if err != nil {
		return nil, err
	}
	ranges := make([]reach, n)
	for i, tp := range partitions {
		ranges[i] = reach{tp, last[tp]}
	}
	return ranges, nil
}

// firsts gives where to begin so that nothing which the filter means is passed over. A record of a producer whose clock
// went back may stand behind a later one; it is found all the same unless it is older than all before it.
func firsts(ctx context.Context, client *kafkawire.Client, ranges []reach, filter Filter) (map[consumer.TopicPartition]int64, error) {
	partitions := make([]consumer.TopicPartition, len(ranges))
	for i, r := range ranges {
		partitions[i] = r.TopicPartition
	}
	if filter.Since.UnixMilli() <= 0 { // none, or before all times that a record can have
		return consumer.ListOffsets(ctx, client, partitions, consumer.Earliest, consumer.ReadCommitted)
	}
	starts, err := consumer.ListOffsets(ctx, client, partitions, filter.Since.UnixMilli(), consumer.ReadCommitted)
	for _, r := range ranges {
		if starts[r.TopicPartition] < 0 { // nothing is that new
			starts[r.TopicPartition] = r.end
		}
	}
	return starts, err
}

// reading runs fn with a fetcher.
func reading(ctx context.Context, client *kafkawire.Client, fn func(context.Context, *consumer.Fetcher) error) error {
	return tail.With(ctx, consumer.DefaultFetchConfig(), client, zerolog.Nop(), fn)
}
