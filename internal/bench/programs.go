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
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/worker"
	"github.com/churnstream/churnstream/producer"
)

// RunPassThrough copies every event to the score topic by the worker's own transport and settings, without a decoder, a
// model or statistics: the limit that a worker can come near to. There is no group; its one process has all partitions.
func RunPassThrough(ctx context.Context, cfg config.Config) error {
	client, partitions, err := reach(ctx, cfg)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	fetching := consumer.DefaultFetchConfig()
	fetching.MaxWait, fetching.MaxBytes, fetching.MaxPartitionBytes = cfg.Fetch.MaxWait.Std(), cfg.Fetch.MaxBytes, cfg.Fetch.MaxPartitionBytes
	fetcher, err := consumer.NewFetcher(fetching, client, zerolog.Nop())
	if err != nil {
		return err
	}
	newPublisher, run, err := publishers(cfg, client)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fetcher.Run(ctx) })
	g.Go(func() error { return run(ctx) })
	for i := range partitions {
		g.Go(func() error {
			publisher, err := newPublisher(i)
			if err != nil {
				return err
			}
			defer publisher.Close()
			partition := fetcher.Open(consumer.TopicPartition{Topic: cfg.Topics.Events, Partition: int32(i)}, 0)
			defer partition.Close()
			return pass(ctx, cfg, partition, publisher)
		})
	}
	if err := g.Wait(); !errors.Is(err, context.Canceled) && !errors.Is(err, consumer.ErrClosed) && !errors.Is(err, producer.ErrStopped) {
		return err
	}
	return nil
}

// publishers gives the producers as the worker has them: one for all partitions, or one for each.
func publishers(cfg config.Config, client *kafkawire.Client) (newPublisher func(partition int) (producer.Publisher, error), run func(context.Context) error, err error) {
	producing := producer.DefaultConfig()
	if err := producing.Compression.UnmarshalText([]byte(cfg.Produce.Compression)); err != nil {
		return nil, nil, err
	}
	producing.MaxBatchBytes = cfg.Produce.MaxBatchBytes
	nothing := func(context.Context) error { return nil }
	switch {
	case cfg.Delivery == config.AtLeastOnce:
		return func(int) (producer.Publisher, error) { return producer.NewIdempotent(producing, client) }, nothing, nil
	case cfg.Produce.Transactions == "worker":
		shared, err := producer.NewShared(producing, client, cfg.Group.ID)
		if err != nil {
			return nil, nil, err
		}
		return func(int) (producer.Publisher, error) { return shared.Publisher() }, shared.Run, nil
	default:
		return func(partition int) (producer.Publisher, error) {
			return producer.NewTransactional(producing, client, fmt.Sprintf("%s-%d", cfg.Group.ID, partition))
		}, nothing, nil
	}
}

func pass(ctx context.Context, cfg config.Config, from *consumer.Partition, to producer.Publisher) error {
	anybody := producer.Member{Group: cfg.Group.ID, Generation: -1}
	for {
		batch, err := from.Next(ctx)
		if err != nil {
			return err
		}
		if err := to.Begin(ctx); err != nil {
			return err
		}
		for i := range batch.Records {
			r := &batch.Records[i]
			out := producer.Record{Topic: cfg.Topics.Scores, Partition: -1, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value}
			if err := to.Append(&out); err != nil {
				return err
			}
		}
		if err := to.Commit(ctx, anybody, []producer.Offset{{Topic: from.Topic, Partition: from.TopicPartition.Partition, Offset: batch.Next}}); err != nil {
			return err
		}
	}
}

// Of the plain loop: messages of one write, and how long it gathers them when no more come.
const (
	plainBatch  = 1000
	plainLinger = 5 * time.Millisecond
)

// RunPlainLoop copies every event to the score topic as a program does that has only what kafka-go's Reader and Writer
// offer: at least once, messages written in batches and committed after.
func RunPlainLoop(ctx context.Context, cfg config.Config) error {
	client, partitions, err := reach(ctx, cfg)
	if err != nil {
		return err
	}
	client.CloseIdleConnections()
	transport, err := connect.Transport(cfg.ClientID, cfg.Security)
	if err != nil {
		return err
	}
	transport.MetadataTopics, transport.MetadataTTL = nil, time.Second // the Writer goes by the transport's view of the topics
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: cfg.Brokers, Dialer: &kafka.Dialer{ClientID: cfg.ClientID, DialFunc: transport.Dial, SASLMechanism: transport.SASL},
		GroupID: cfg.Group.ID, Topic: cfg.Topics.Events, StartOffset: kafka.FirstOffset,
		MaxBytes: cfg.Fetch.MaxBytes, MaxWait: cfg.Fetch.MaxWait.Std(), QueueCapacity: plainBatch * partitions,
	})
	defer reader.Close()
	writer := &kafka.Writer{
		Addr: kafka.TCP(cfg.Brokers...), Transport: transport, Topic: cfg.Topics.Scores, Balancer: kafka.Murmur2Balancer{},
		RequiredAcks: kafka.RequireAll, Compression: kafka.Lz4, BatchSize: plainBatch, BatchTimeout: plainLinger,
	}
	defer writer.Close()
	for {
		batch, err := gather(ctx, reader)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		out := make([]kafka.Message, len(batch))
		for i, m := range batch {
			out[i] = kafka.Message{Key: m.Key, Value: m.Value, Time: m.Time}
		}
		if err := writer.WriteMessages(context.WithoutCancel(ctx), out...); err != nil {
			return err
		}
		if err := reader.CommitMessages(context.WithoutCancel(ctx), batch...); err != nil {
			return err
		}
	}
}

// gather waits for a message and takes those that follow at once.
func gather(ctx context.Context, reader *kafka.Reader) ([]kafka.Message, error) {
	first, err := reader.FetchMessage(ctx)
	if err != nil {
		return nil, err
	}
	batch := []kafka.Message{first}
	ctx, stop := context.WithTimeout(ctx, plainLinger)
	defer stop()
	for len(batch) < plainBatch {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			break // the time is up; what else is wrong shows at the next call
		}
		batch = append(batch, m)
	}
	return batch, nil
}

// reach gives a client and the number of partitions of the events.
func reach(ctx context.Context, cfg config.Config) (*kafkawire.Client, int, error) {
	transport, err := connect.Transport(cfg.ClientID, cfg.Security)
	if err != nil {
		return nil, 0, err
	}
	partitions, err := connect.Probe(ctx, cfg.Brokers, transport, cfg.Security.SASL, worker.Topics(cfg), config.CreateTopics{}, nil)
	if err != nil {
		return nil, 0, err
	}
	client, err := kafkawire.NewClient(kafkawire.Config{Brokers: cfg.Brokers, ClientID: cfg.ClientID, Transport: transport})
	return client, partitions[cfg.Topics.Events], err
}
