package testkit

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// adminTimeout is how long a broker may take to create a topic and to elect
// its leaders. A real one on a busy machine takes seconds.
const adminTimeout = 30 * time.Second

// maxTestName keeps names readable and within Kafka's 249 characters.
const maxTestName = 80

// Name gives a name that no other test has, now or in an earlier run: the
// prefix, the test's name and a random end. It fits topics, groups and
// transactional ids.
func Name(t testing.TB, prefix string) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	if len(name) > maxTestName {
		name = name[:maxTestName]
	}
	return prefix + "-" + name + "-" + strings.ToLower(rand.Text()[:8])
}

// Topic creates a topic of a unique name and waits until every partition has a
// leader. Settings are pairs of name and value, as in Kafka: "cleanup.policy",
// "compact". A topic on a real broker is deleted when the test ends.
func Topic(t testing.TB, brokers []string, prefix string, partitions int, settings ...string) string {
	t.Helper()
	if len(settings)%2 != 0 {
		t.Fatalf("topic %s: settings %q are not pairs of name and value", prefix, settings)
	}
	topic := kafka.TopicConfig{Topic: Name(t, prefix), NumPartitions: partitions, ReplicationFactor: 1}
	for i := 0; i < len(settings); i += 2 {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: settings[i], ConfigValue: settings[i+1]})
	}
	client, done := admin(brokers)
	defer done()
	ctx, cancel := context.WithTimeout(t.Context(), adminTimeout)
	defer cancel()
	response, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err == nil {
		err = response.Errors[topic.Topic]
	}
	if err != nil {
		t.Fatalf("create topic %s on %v: %v", topic.Topic, brokers, err)
	}
	if Real() {
		t.Cleanup(func() { deleteTopic(t, brokers, topic.Topic) })
	}
	var last error
	Eventually(t, adminTimeout, func() bool {
		last = led(ctx, brokers, topic)
		return last == nil
	}, "a leader for every partition of %s: %v", topic.Topic, lazy(func() any { return last }))
	return topic.Topic
}

// led says what is still missing. A client keeps its answers for a while, so
// each look takes a new one.
func led(ctx context.Context, brokers []string, topic kafka.TopicConfig) error {
	client, done := admin(brokers)
	defer done()
	response, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic.Topic}})
	if err != nil {
		return err
	}
	t := response.Topics[0]
	if t.Error != nil {
		return t.Error
	}
	if len(t.Partitions) != topic.NumPartitions {
		return errors.New("partitions are missing")
	}
	for _, p := range t.Partitions {
		if p.Error != nil {
			return p.Error
		}
		if p.Leader.Host == "" {
			return kafka.LeaderNotAvailable
		}
	}
	return nil
}

func deleteTopic(t testing.TB, brokers []string, topic string) {
	t.Helper()
	client, done := admin(brokers)
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout) // the test's own context has ended
	defer cancel()
	response, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err == nil {
		err = response.Errors[topic]
	}
	if err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) {
		t.Logf("delete topic %s: %v", topic, err)
	}
}

func admin(brokers []string) (client *kafka.Client, done func()) {
	transport := &kafka.Transport{ClientID: "churnstream-test"}
	return &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}, transport.CloseIdleConnections
}
