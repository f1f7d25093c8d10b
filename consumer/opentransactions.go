package consumer

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// OpenTransaction is a producer's transaction that has records in a partition and has not ended: no reader of committed
// records sees anything from its first record on.
type OpenTransaction struct {
	ProducerID  int64
	FirstOffset int64
	LastWrite   time.Time // of the producer to this partition
}

// describeProducers is the API of KIP-664, which kafka-go does not know. It needs READ on the topic.
const describeProducers protocol.ApiKey = 61

// OpenTransactions asks the leader of a partition (Kafka 2.8 or newer) which transactions are open in it.
func OpenTransactions(ctx context.Context, client *kafkawire.Client, tp TopicPartition) ([]OpenTransaction, error) {
	fail := func(err error) error { return fmt.Errorf("open transactions of %s: %w", tp, err) }
	metadata, err := client.Metadata(ctx, []string{tp.Topic})
	if err != nil {
		return nil, fail(err)
	}
	leader, err := metadata.Leader(tp.Topic, tp.Partition)
	if err != nil {
		return nil, fail(err)
	}
	versions, err := client.Versions(ctx, leader)
	if err != nil {
		return nil, fail(err)
	}
	if _, err := versions.Max(describeProducers, 0); err != nil {
		return nil, fail(err)
	}
	var open []OpenTransaction
	err = client.Do(ctx, &kafkawire.Request{
		Key: describeProducers, Broker: leader,
		Encode: func(w *kafkawire.Writer) {
			w.ArrayLen(1)
			w.String(tp.Topic)
			w.Int32s([]int32{tp.Partition})
			w.Tags()
			w.Tags()
		},
		Decode: func(r *kafkawire.Reader) (err error) {
			open, err = decodeProducers(r)
			return err
		},
	})
	if err != nil {
		return nil, fail(err)
	}
	return open, nil
}

// decodeProducers reads the answer about one partition.
func decodeProducers(r *kafkawire.Reader) (open []OpenTransaction, err error) {
	r.Int32() // throttle
	for topics := r.ArrayLen(); topics > 0 && r.Err() == nil; topics-- {
		r.StringBytes()
		for partitions := r.ArrayLen(); partitions > 0 && r.Err() == nil; partitions-- {
			r.Int32()
			if code := kafkawire.Code(r.Int16()); code != nil {
				err = code
			}
			r.StringBytes() // message
			for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
				t := OpenTransaction{ProducerID: r.Int64()}
				r.Int32() // epoch
				r.Int32() // sequence
				t.LastWrite = time.UnixMilli(r.Int64())
				r.Int32() // epoch of the coordinator
				t.FirstOffset = r.Int64()
				r.Tags()
				if t.FirstOffset >= 0 {
					open = append(open, t)
				}
			}
			r.Tags()
		}
		r.Tags()
	}
	r.Tags()
	if r.Err() == nil && err == nil && open == nil {
		open = []OpenTransaction{}
	}
	return open, err
}
