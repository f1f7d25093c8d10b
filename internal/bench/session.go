package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/connect"
	"github.com/churnstream/churnstream/internal/feed"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
)

// Session is what the measuring side itself keeps open towards the brokers. One goroutine uses it at a time.
type Session struct {
	brokers   []string
	security  config.Security
	transport *kafka.Transport
	client    *kafkawire.Client
	fetcher   *consumer.Fetcher
	publisher producer.Publisher
	stop      context.CancelFunc
	group     *errgroup.Group
}

// Open connects to the brokers. The session ends with ctx or by Close.
func Open(ctx context.Context, brokers []string, security config.Security) (*Session, error) {
	transport, err := connect.Transport("churnstream-bench", security)
	if err != nil {
		return nil, err
	}
	if _, err := connect.Probe(ctx, brokers, transport, security.SASL, nil, config.CreateTopics{}, nil); err != nil {
		return nil, err
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: brokers, ClientID: "churnstream-bench", Transport: transport})
	if err != nil {
		return nil, err
	}
	fetcher, err := consumer.NewFetcher(consumer.DefaultFetchConfig(), client, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	publisher, err := producer.NewIdempotent(producer.DefaultConfig(), client)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(ctx)
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return fetcher.Run(run) })
	return &Session{
		brokers: brokers, security: security, transport: transport,
		client: client, fetcher: fetcher, publisher: publisher, stop: stop, group: g,
	}, nil
}

// Close ends the session. Topics stay.
func (s *Session) Close() error {
	s.stop()
	err := errors.Join(s.group.Wait(), s.publisher.Close())
	s.client.CloseIdleConnections()
	return err
}

// CreateTopics creates what does not exist yet.
func (s *Session) CreateTopics(ctx context.Context, create config.CreateTopics, topics ...connect.TopicSpec) error {
	create.Enabled = true
	_, err := connect.Probe(ctx, s.brokers, s.transport, s.security.SASL, topics, create, nil)
	return err
}

// DeleteTopics deletes those of the topics that exist.
func (s *Session) DeleteTopics(ctx context.Context, topics ...string) error {
	client := &kafka.Client{Addr: kafka.TCP(s.brokers...), Transport: s.transport}
	r, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: topics})
	if err != nil {
		return fmt.Errorf("delete topics: %w", err)
	}
	for _, topic := range topics {
		if failed := r.Errors[topic]; failed != nil && !errors.Is(failed, kafka.UnknownTopicOrPartition) {
			err = errors.Join(err, fmt.Errorf("delete topic %s: %w", topic, failed))
		}
	}
	return err
}

// Of what is cleaned up: the time for one deletion, and the time where the measurement has been interrupted.
const (
	discardWithin            = 30 * time.Second
	discardWithinInterrupted = 400 * time.Millisecond
)

// Discard deletes topics though ctx may have ended.
func (s *Session) Discard(ctx context.Context, topics ...string) error {
	limit := discardWithin
	if ctx.Err() != nil {
		limit = discardWithinInterrupted
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return s.DeleteTopics(ctx, topics...)
}

// Fill publishes n events, as fast as the broker takes them.
func (s *Session) Fill(ctx context.Context, topic string, n int, source feed.Source) error {
	sent, err := feed.Run(ctx, feed.Config{Topic: topic, Limit: n}, s.publisher, source, nil)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil && sent < n {
		err = fmt.Errorf("only %d of %d events were published", sent, n)
	}
	return err
}

// Each hands every committed record of a topic to fn, partition after partition.
func (s *Session) Each(ctx context.Context, topic string, fn func(*consumer.Record) error) error {
	_, err := tail.ReadTopic(ctx, s.client, s.fetcher, topic, func(batch *consumer.Batch) error {
		for i := range batch.Records {
			if err := fn(&batch.Records[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Count counts the committed records of a topic.
func (s *Session) Count(ctx context.Context, topic string) (n int, err error) {
	err = s.Each(ctx, topic, func(*consumer.Record) error {
		n++
		return nil
	})
	return n, err
}
