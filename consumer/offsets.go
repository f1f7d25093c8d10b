package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
// for is in the error. The Identity is not sent: whoever may describe the group may read its offsets,
// also one that is no member any more. It is the commit that is fenced. (OffsetFetch v9 could name a
// member of the consumer protocol, but refuses it whenever its epoch moves on meanwhile.)
func CommittedOffsets(ctx context.Context, client *kafkawire.Client, group string, _ Identity, partitions []TopicPartition) (map[TopicPartition]int64, error) {
	offsets := make(map[TopicPartition]int64, len(partitions))
	answer := committedAnswer{stable: true, offsets: offsets}
	if err := committed(ctx, client, group, partitions, &answer); err != nil {
		return nil, err
	}
	return offsets, nil
}

// CommittedMetadata asks for the text that came with each partition's newest committed offset; empty where there is none.
// It does not wait for transactions: what they hold is not committed yet. Otherwise it is like CommittedOffsets.
func CommittedMetadata(ctx context.Context, client *kafkawire.Client, group string, partitions []TopicPartition) (map[TopicPartition]string, error) {
	metadata := make(map[TopicPartition]string, len(partitions))
	answer := committedAnswer{offsets: make(map[TopicPartition]int64, len(partitions)), metadata: metadata}
	if err := committed(ctx, client, group, partitions, &answer); err != nil {
		return nil, err
	}
	return metadata, nil
}

// committed asks until every partition is answered for.
func committed(ctx context.Context, client *kafkawire.Client, group string, missing []TopicPartition, answer *committedAnswer) error {
	var waitedFor error
	for len(missing) > 0 {
		var err error
		missing, err = committedOnce(ctx, client, group, missing, answer)
		if err == nil {
			continue
		}
		if kafkawire.CodeOf(err) != 0 {
			waitedFor = err
		} else if ctx.Err() != nil && waitedFor != nil { // it ended inside a request, whose error says nothing
			err = fmt.Errorf("%w; waited for: %w", ctx.Err(), waitedFor)
		}
		moved, retriable := kafkawire.Retriable(err)
		if moved {
			client.ForgetCoordinator(kafkawire.Group, group)
		}
		if !retriable || !sleep(ctx, retryPause) {
			return fmt.Errorf("committed offsets of group %q: %w", group, withRemedy(err, group))
		}
	}
	return nil
}

// committedOnce asks once and returns the partitions that have to be asked for again, with why.
func committedOnce(ctx context.Context, client *kafkawire.Client, group string, partitions []TopicPartition, answer *committedAnswer) (missing []TopicPartition, err error) {
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
	answer.again, answer.cause = nil, nil
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
			w.Bool(answer.stable)
			w.Tags()
		},
		Decode: func(r *kafkawire.Reader) error { return answer.decode(r, version, partitions) },
	})
	if err != nil {
		return missing, err
	}
	if answer.cause == nil {
		for _, tp := range partitions {
			if _, ok := answer.offsets[tp]; !ok {
				return missing, fmt.Errorf("%s is missing in the answer of broker %d: %w", tp, broker, kafkawire.ErrMalformed)
			}
		}
	}
	return answer.again, answer.cause
}

// committedAnswer is what is asked of a coordinator and what it said: offsets, and which partitions to ask for again, and
// why.
type committedAnswer struct {
	stable   bool // wait for transactions
	offsets  map[TopicPartition]int64
	metadata map[TopicPartition]string // nil: not asked for
	again    []TopicPartition
	cause    error
}

func (a *committedAnswer) decode(r *kafkawire.Reader, version int16, partitions []TopicPartition) error {
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
				r.Int32() // leader epoch
				metadata := r.StringBytes()
				code := r.Int16()
				r.Tags()
				if err := kafkawire.Code(code); err != nil {
					a.again, a.cause = append(a.again, tp), fmt.Errorf("%s: %w", tp, err)
					continue
				}
				a.offsets[tp] = offset
				if a.metadata != nil && len(metadata) > 0 {
					a.metadata[tp] = string(metadata)
				}
			}
			r.Tags()
		}
		switch err := kafkawire.Code(r.Int16()); {
		case errors.Is(err, kafka.GroupIdNotFound): // nobody has committed yet
			for _, tp := range partitions {
				a.offsets[tp] = -1
			}
		case err != nil:
			return err
		}
		if version >= 8 {
			r.Tags()
		}
	}
	return nil
}

// ListOffsets finds an offset per partition: Latest (the last stable one under ReadCommitted),
// Earliest, or the first one whose timestamp is at or after a time in milliseconds, -1 where there
// is none. Each leader is asked once for all its partitions. Leaders on the move are waited for as
// long as ctx allows.
func ListOffsets(ctx context.Context, client *kafkawire.Client, partitions []TopicPartition, at int64, isolation Isolation) (map[TopicPartition]int64, error) {
	offsets := make(map[TopicPartition]int64, len(partitions))
	missing := partitions
	for {
		var lookups []offsetLookup
		var again []TopicPartition
		var cause error
		lost := func(tp TopicPartition, err error) error {
			moved, retriable := kafkawire.Retriable(err)
			if moved {
				client.ForgetMetadata()
			}
			if !retriable || ctx.Err() != nil {
				return err
			}
			again, cause = append(again, tp), err
			return nil
		}
		metadata, err := client.Metadata(ctx, topicsOf(missing))
		for _, tp := range missing {
			lookup := offsetLookup{TopicPartition: tp, epoch: -1, at: at}
			failed := err
			if failed == nil {
				lookup.leader, failed = metadata.Leader(tp.Topic, tp.Partition)
			}
			if failed == nil {
				lookups = append(lookups, lookup)
			} else if err := lost(tp, failed); err != nil {
				return nil, err
			}
		}
		lookUp(ctx, client, lookups, isolation)
		for i := range lookups {
			l := &lookups[i]
			if l.err == nil {
				offsets[l.TopicPartition] = l.offset
			} else if err := lost(l.TopicPartition, l.err); err != nil {
				return nil, err
			}
		}
		if len(again) == 0 {
			return offsets, nil
		}
		if !sleep(ctx, retryPause) {
			return nil, cause
		}
		missing = again
	}
}

// offsetLookup is one partition's question for an offset, and its answer.
type offsetLookup struct {
	TopicPartition
	leader int32
	epoch  int32 // of the leader; -1: not compared
	at     int64
	index  int // of the caller

	offset int64
	err    error
}

// lookUp asks every leader at the same time, once for all its partitions.
func lookUp(ctx context.Context, client *kafkawire.Client, lookups []offsetLookup, isolation Isolation) {
	if len(lookups) == 0 {
		return
	}
	slices.SortStableFunc(lookups, func(a, b offsetLookup) int {
		return cmp.Or(cmp.Compare(a.leader, b.leader), strings.Compare(a.Topic, b.Topic))
	})
	var asking sync.WaitGroup
	for rest := lookups; len(rest) > 0; {
		n := sameLeader(rest)
		asked := rest[:n]
		rest = rest[n:]
		asking.Go(func() {
			err := listOffsets(ctx, client, asked, isolation)
			for i := range asked {
				l := &asked[i]
				if err != nil {
					l.err = err
				}
				if l.err != nil {
					l.err = fmt.Errorf("list offsets of %s: %w", l.TopicPartition, l.err)
				}
			}
		})
	}
	asking.Wait()
}

func sameLeader(lookups []offsetLookup) int {
	n := 1
	for n < len(lookups) && lookups[n].leader == lookups[0].leader {
		n++
	}
	return n
}

// listOffsets asks one leader; lookups are sorted by topic.
func listOffsets(ctx context.Context, client *kafkawire.Client, lookups []offsetLookup, isolation Isolation) error {
	leader := lookups[0].leader
	versions, err := client.Versions(ctx, leader)
	if err != nil {
		return err
	}
	version, err := versions.Max(protocol.ListOffsets, 5)
	if err != nil {
		return err
	}
	if version < 2 {
		return fmt.Errorf("ListOffsets: the broker speaks up to v%d, v2 (Kafka 0.11) is needed: %w", version, kafka.UnsupportedVersion)
	}
	for i := range lookups {
		lookups[i].offset, lookups[i].err = -1, kafka.UnknownTopicOrPartition // unless the answer holds it
	}
	return client.Do(ctx, &kafkawire.Request{
		Key: protocol.ListOffsets, Version: version, FlexibleFrom: 6, Broker: leader,
		Encode: func(w *kafkawire.Writer) { encodeListOffsets(w, version, lookups, isolation) },
		Decode: func(r *kafkawire.Reader) error { decodeListOffsets(r, version, lookups); return nil },
	})
}

func encodeListOffsets(w *kafkawire.Writer, version int16, lookups []offsetLookup, isolation Isolation) {
	w.Int32(-1) // not a replica
	w.Int8(int8(isolation))
	topics := 0
	for i := range lookups {
		if i == 0 || lookups[i].Topic != lookups[i-1].Topic {
			topics++
		}
	}
	w.ArrayLen(topics)
	for rest := lookups; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Topic == rest[0].Topic {
			n++
		}
		w.String(rest[0].Topic)
		w.ArrayLen(n)
		for i := range rest[:n] {
			w.Int32(rest[i].Partition)
			if version >= 4 {
				w.Int32(rest[i].epoch)
			}
			w.Int64(rest[i].at)
		}
		rest = rest[n:]
	}
}

func decodeListOffsets(r *kafkawire.Reader, version int16, lookups []offsetLookup) {
	r.Int32() // throttle
	expected := 0
	for topics := r.ArrayLen(); topics > 0 && r.Err() == nil; topics-- {
		topic := r.StringBytes()
		for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
			partition := r.Int32()
			code := r.Int16()
			r.Int64() // timestamp
			offset := r.Int64()
			if version >= 4 {
				r.Int32() // leader epoch
			}
			for i := range lookups {
				l := &lookups[(expected+i)%len(lookups)]
				if l.Partition == partition && l.Topic == string(topic) {
					l.offset, l.err = offset, kafkawire.Code(code)
					expected += i + 1
					break
				}
			}
		}
	}
}

func topicsOf(partitions []TopicPartition) []string {
	var topics []string
	for _, tp := range partitions {
		if !slices.Contains(topics, tp.Topic) {
			topics = append(topics, tp.Topic)
		}
	}
	return topics
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
