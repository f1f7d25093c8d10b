package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// retryPause between attempts at what moves or is busy.
const retryPause = 50 * time.Millisecond

// CommittedOffsets asks the group's coordinator where each partition is to be read from, -1 where
// nothing is committed. It waits for transactions that hold commits of these partitions
// (RequireStable, KIP-447) and for coordinators on the move, as long as ctx allows; what it waited
// for is in the error. Identity is for brokers that fence readers by it; it may be zero.
func CommittedOffsets(ctx context.Context, client *kafkawire.Client, group string, id Identity, partitions []TopicPartition) (map[TopicPartition]int64, error) {
	offsets := make(map[TopicPartition]int64, len(partitions))
	missing := partitions
	var waitedFor error
	for len(missing) > 0 {
		var err error
		missing, err = committedOnce(ctx, client, group, missing, offsets)
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			waitedFor = err
		} else if waitedFor != nil { // ctx may end inside a request, which says nothing
			err = fmt.Errorf("%w; waited for: %w", ctx.Err(), waitedFor)
		}
		moved, retriable := kafkawire.Retriable(err)
		if moved {
			client.ForgetCoordinator(kafkawire.Group, group)
		}
		if !retriable || !sleep(ctx, retryPause) {
			return nil, fmt.Errorf("committed offsets of group %q: %w", group, withRemedy(err, group))
		}
	}
	return offsets, nil
}

// committedOnce asks once and returns the partitions that have to be asked for again, with why.
func committedOnce(ctx context.Context, client *kafkawire.Client, group string, partitions []TopicPartition, offsets map[TopicPartition]int64) (missing []TopicPartition, err error) {
	missing = partitions
	broker, err := client.Coordinator(ctx, kafkawire.Group, group)
	if err != nil {
		return missing, err
	}
	versions, err := client.Versions(ctx, broker)
	if err != nil {
		return missing, err
	}
	version, err := versions.Max(protocol.OffsetFetch, 8) // v9 adds the member, which nothing here needs
	if err != nil {
		return missing, err
	}
	if version < 7 {
		return missing, fmt.Errorf("OffsetFetch: the broker speaks up to v%d, v7 (Kafka 2.5) is needed for stable offsets: %w", version, kafka.UnsupportedVersion)
	}
	topics := byTopic(partitions)
	var again []TopicPartition
	var cause error
	err = client.Do(ctx, &kafkawire.Request{
		Key: protocol.OffsetFetch, Version: version, FlexibleFrom: 6, Broker: broker,
		Encode: func(w *kafkawire.Writer) {
			if version >= 8 {
				w.ArrayLen(1)
			}
			w.String(group)
			w.ArrayLen(len(topics))
			for _, t := range topics {
				w.String(t.topic)
				w.Int32s(t.partitions)
				w.Tags()
			}
			if version >= 8 {
				w.Tags()
			}
			w.Bool(true) // stable ones only
			w.Tags()
		},
		Decode: func(r *kafkawire.Reader) error {
			r.Int32() // throttle
			groups := 1
			if version >= 8 {
				groups = r.ArrayLen()
			}
			for ; groups > 0 && r.Err() == nil; groups-- {
				if version >= 8 {
					r.StringBytes()
				}
				for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
					topic := r.String()
					for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
						tp := TopicPartition{topic, r.Int32()}
						offset := r.Int64()
						r.Int32()       // leader epoch
						r.StringBytes() // metadata
						code := r.Int16()
						r.Tags()
						if err := kafkawire.Code(code); err != nil {
							again, cause = append(again, tp), fmt.Errorf("%s: %w", tp, err)
							continue
						}
						offsets[tp] = offset
					}
					r.Tags()
				}
				switch err := kafkawire.Code(r.Int16()); {
				case errors.Is(err, kafka.GroupIdNotFound): // nobody has committed yet
					for _, tp := range partitions {
						offsets[tp] = -1
					}
				case err != nil:
					return err
				}
				if version >= 8 {
					r.Tags()
				}
			}
			return nil
		},
	})
	if err != nil {
		return missing, err
	}
	if cause == nil {
		for _, tp := range partitions {
			if _, ok := offsets[tp]; !ok {
				return missing, fmt.Errorf("%s is missing in the answer of broker %d: %w", tp, broker, kafkawire.ErrMalformed)
			}
		}
	}
	return again, cause
}

// ListOffsets finds an offset per partition: Latest (the last stable one under ReadCommitted),
// Earliest, or the first one whose timestamp is at or after a time in milliseconds, -1 where there
// is none. Leaders on the move are waited for as long as ctx allows.
func ListOffsets(ctx context.Context, client *kafkawire.Client, partitions []TopicPartition, at int64, isolation Isolation) (map[TopicPartition]int64, error) {
	offsets := make(map[TopicPartition]int64, len(partitions))
	for _, tp := range partitions {
		for {
			leader, err := client.Leader(ctx, tp.Topic, tp.Partition)
			if err == nil {
				offsets[tp], err = listOffset(ctx, client, leader, tp, at, isolation)
			}
			if err == nil {
				break
			}
			moved, retriable := kafkawire.Retriable(err)
			if moved {
				client.ForgetMetadata()
			}
			if !retriable || !sleep(ctx, retryPause) {
				return nil, err
			}
		}
	}
	return offsets, nil
}

func listOffset(ctx context.Context, client *kafkawire.Client, leader int32, tp TopicPartition, at int64, isolation Isolation) (offset int64, err error) {
	versions, err := client.Versions(ctx, leader)
	if err != nil {
		return -1, err
	}
	version, err := versions.Max(protocol.ListOffsets, 5)
	if err != nil {
		return -1, err
	}
	if version < 2 {
		return -1, fmt.Errorf("ListOffsets: the broker speaks up to v%d, v2 (Kafka 0.11) is needed: %w", version, kafka.UnsupportedVersion)
	}
	offset = -1
	err = client.Do(ctx, &kafkawire.Request{
		Key: protocol.ListOffsets, Version: version, FlexibleFrom: 6, Broker: leader,
		Encode: func(w *kafkawire.Writer) {
			w.Int32(-1) // not a replica
			w.Int8(int8(isolation))
			w.ArrayLen(1)
			w.String(tp.Topic)
			w.ArrayLen(1)
			w.Int32(tp.Partition)
			if version >= 4 {
				w.Int32(-1) // leader epoch: not checked
			}
			w.Int64(at)
		},
		Decode: func(r *kafkawire.Reader) error {
			r.Int32() // throttle
			code := int16(kafka.Unknown)
			for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
				r.StringBytes()
				for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
					r.Int32() // partition
					code = r.Int16()
					r.Int64() // timestamp
					offset = r.Int64()
					if version >= 4 {
						r.Int32() // leader epoch
					}
				}
			}
			return kafkawire.Code(code)
		},
	})
	if err != nil {
		return -1, fmt.Errorf("list offsets of %s: %w", tp, err)
	}
	return offset, nil
}

type topicPartitions struct {
	topic      string
	partitions []int32
}

// byTopic groups partitions by topic in the order in which the topics appear.
func byTopic(partitions []TopicPartition) []topicPartitions {
	var topics []topicPartitions
	at := map[string]int{}
	for _, tp := range partitions {
		i, ok := at[tp.Topic]
		if !ok {
			i = len(topics)
			at[tp.Topic] = i
			topics = append(topics, topicPartitions{topic: tp.Topic})
		}
		topics[i].partitions = append(topics[i].partitions, tp.Partition)
	}
	return topics
}

// sleep is false where ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
