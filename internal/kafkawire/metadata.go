package kafkawire

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Metadata is what the cluster said about the topics asked for.
type Metadata struct {
	Topics map[string]TopicMetadata
}

// TopicMetadata is one topic. Err is Kafka's code for the topic (unknown, not authorized), nil
// where Partitions can be trusted.
type TopicMetadata struct {
	Err        error
	ID         [16]byte            // of this topic, another one when it is created again; zero before Kafka 2.8
	Partitions []PartitionMetadata // by partition number
}

// PartitionMetadata is one partition; Leader is -1 while it has none.
type PartitionMetadata struct {
	Err         error
	Leader      int32
	LeaderEpoch int32
}

type cachedTopic struct {
	TopicMetadata
	asked time.Time
}

// Metadata returns what is known about topics, asking the cluster where that is missing, older
// than Config.MetadataTTL or forgotten. A topic in error is asked for again each time.
func (c *Client) Metadata(ctx context.Context, topics []string) (Metadata, error) {
	known, complete := c.knownTopics(topics)
	if complete {
		return known, nil
	}
	if err := c.refresh(ctx, topics); err != nil {
		return Metadata{}, err
	}
	known, _ = c.knownTopics(topics)
	return known, nil
}

// Leader is the broker that leads a partition. The error holds kafka.UnknownTopicOrPartition,
// kafka.LeaderNotAvailable or the topic's own code.
func (c *Client) Leader(ctx context.Context, topic string, partition int32) (int32, error) {
	m, err := c.Metadata(ctx, []string{topic})
	if err != nil {
		return AnyBroker, fmt.Errorf("find the leader of %s/%d: %w", topic, partition, err)
	}
	return m.Leader(topic, partition)
}

// Leader is Client.Leader for what was asked for together.
func (m Metadata) Leader(topic string, partition int32) (int32, error) {
	t, ok := m.Topics[topic]
	switch {
	case !ok:
		t.Err = kafka.UnknownTopicOrPartition
	case t.Err != nil:
	case partition < 0 || int(partition) >= len(t.Partitions):
		t.Err = fmt.Errorf("the topic has %d partitions: %w", len(t.Partitions), kafka.UnknownTopicOrPartition)
	case t.Partitions[partition].Leader < 0:
		t.Err = kafka.LeaderNotAvailable
	default:
		return t.Partitions[partition].Leader, nil
	}
	return AnyBroker, fmt.Errorf("find the leader of %s/%d: %w", topic, partition, t.Err)
}

// Partitions is the number of partitions of a topic.
func (c *Client) Partitions(ctx context.Context, topic string) (int32, error) {
	m, err := c.Metadata(ctx, []string{topic})
	if err == nil {
		err = m.Topics[topic].Err
	}
	if err != nil {
		return 0, fmt.Errorf("count the partitions of %s: %w", topic, err)
	}
	return int32(len(m.Topics[topic].Partitions)), nil
}

// ForgetMetadata makes the next question about any topic go to the cluster.
func (c *Client) ForgetMetadata() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.topics)
}

func (c *Client) knownTopics(topics []string) (m Metadata, complete bool) {
	m.Topics = make(map[string]TopicMetadata, len(topics))
	complete = true
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range topics {
		t, ok := c.topics[name]
		if !ok {
			t.Err = kafka.UnknownTopicOrPartition
		}
		complete = complete && t.Err == nil && time.Since(t.asked) < c.cfg.MetadataTTL
		m.Topics[name] = t.TopicMetadata
	}
	return m, complete
}

// refresh asks for brokers and topics; one question is in flight at a time.
func (c *Client) refresh(ctx context.Context, topics []string) error {
	select {
	case c.refreshing <- struct{}{}:
		defer func() { <-c.refreshing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if len(topics) > 0 {
		if _, complete := c.knownTopics(topics); complete { // somebody else has just asked
			return nil
		}
	}
	versions, err := c.Versions(ctx, AnyBroker)
	if err != nil {
		return err
	}
	version, err := versions.Max(protocol.Metadata, 12)
	if err != nil {
		return err
	}
	if version < 5 {
		return fmt.Errorf("Metadata: the broker speaks up to v%d, v5 (Kafka 1.0) is needed: %w", version, kafka.UnsupportedVersion)
	}
	return c.Do(ctx, &Request{
		Key: protocol.Metadata, Version: version, FlexibleFrom: 9, Broker: AnyBroker,
		Encode: func(w *Writer) { encodeMetadata(w, version, topics) },
		Decode: func(r *Reader) error { return c.decodeMetadata(r, version) },
	})
}

func encodeMetadata(w *Writer, version int16, topics []string) {
	w.ArrayLen(len(topics))
	for _, name := range topics {
		if version >= 10 {
			w.Raw(make([]byte, 16)) // topic id: by name
		}
		w.String(name)
		w.Tags()
	}
	w.Bool(false) // never create a topic by asking for it
	if version >= 8 {
		if version <= 10 {
			w.Bool(false) // cluster authorized operations
		}
		w.Bool(false) // topic authorized operations
	}
	w.Tags()
}

func (c *Client) decodeMetadata(r *Reader, version int16) error {
	type broker struct {
		id   int32
		host string
		port int32
	}
	var brokers []broker
	topics := map[string]TopicMetadata{}
	r.Int32() // throttle
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		brokers = append(brokers, broker{r.Int32(), r.String(), r.Int32()})
		r.StringBytes() // rack
		r.Tags()
	}
	r.StringBytes() // cluster id
	r.Int32()       // controller
	for n := r.ArrayLen(); n > 0 && r.Err() == nil; n-- {
		var t TopicMetadata
		t.Err = Code(r.Int16())
		name := r.String()
		if version >= 10 {
			copy(t.ID[:], r.Raw(len(t.ID)))
		}
		r.Bool() // internal
		count := r.ArrayLen()
		for ; count > 0 && r.Err() == nil; count-- {
			p := PartitionMetadata{Err: Code(r.Int16()), LeaderEpoch: -1}
			id := r.Int32()
			p.Leader = r.Int32()
			if version >= 7 {
				p.LeaderEpoch = r.Int32()
			}
			r.Int32s() // replicas
			r.Int32s() // in sync
			r.Int32s() // offline
			r.Tags()
			if id < 0 || int(id) > len(t.Partitions)+count {
				r.Fail()
				break
			}
			for int(id) >= len(t.Partitions) { // the broker's order is not by number
				t.Partitions = append(t.Partitions, PartitionMetadata{Err: kafka.LeaderNotAvailable, Leader: -1, LeaderEpoch: -1})
			}
			t.Partitions[id] = p
		}
		if version >= 8 {
			r.Int32() // authorized operations
		}
		r.Tags()
		topics[name] = t
	}
	if err := r.Err(); err != nil {
		return err
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range brokers {
		c.learnAddressLocked(b.id, b.host, b.port)
	}
	for name, t := range topics {
		c.topics[name] = cachedTopic{t, now}
	}
	return nil
}
