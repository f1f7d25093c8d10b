package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
)

// copier is one worker: it copies events from one topic to another, exactly once, as the member of a group, and prints
// each commit.
type copier struct {
	cfg        consumer.GroupConfig
	output     string
	log        zerolog.Logger
	client     *kafkawire.Client
	fetcher    *consumer.Fetcher
	shared     *producer.Shared // nil: a transactional id per partition
	membership consumer.Membership

	group *errgroup.Group
	life  context.Context //nolint:containedctx // of work, which the membership's callbacks have no other way to learn

	mu    sync.Mutex
	tasks map[consumer.TopicPartition]running
}

type running struct {
	drain, abandon context.CancelFunc
	done           chan struct{}
}

// work is the process of one worker.
func work(ctx context.Context, args []string) error {
	c := &copier{cfg: consumer.DefaultGroupConfig(), tasks: map[consumer.TopicPartition]running{}}
	fetching := consumer.DefaultFetchConfig()
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	name := flags.String("name", "", "of this worker")
	brokers := flags.String("brokers", "", "bootstrap addresses")
	kind := flags.String("membership", "", "classic, consumer, kafka-go, or none:I/N for every Nth partition without a group")
	input := flags.String("input", "", "topic")
	transactions := flags.String("transactions", "worker", "worker or partition")
	flags.StringVar(&c.output, "output", "", "topic")
	flags.StringVar(&c.cfg.Group, "group", "", "consumer group")
	flags.StringVar(&c.cfg.InstanceID, "instance", "", "instance id of the classic protocol")
	flags.StringVar(&c.cfg.MemberID, "member", "", "member id of the consumer protocol")
	flags.DurationVar(&c.cfg.SessionTimeout, "session", c.cfg.SessionTimeout, "session timeout")
	flags.DurationVar(&c.cfg.HeartbeatInterval, "heartbeat", c.cfg.HeartbeatInterval, "heartbeat interval")
	flags.DurationVar(&fetching.MaxWait, "max-wait", fetching.MaxWait, "of a fetch")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c.cfg.Topics = []string{*input}
	c.cfg.RebalanceTimeout = 30 * time.Second
	c.log = zerolog.New(os.Stderr).With().Timestamp().Str("worker", *name).Logger()
	var err error
	if c.client, err = kafkawire.NewClient(kafkawire.Config{Brokers: strings.Split(*brokers, ","), ClientID: *name}); err != nil {
		return err
	}
	defer c.client.CloseIdleConnections()
	if c.fetcher, err = consumer.NewFetcher(fetching, c.client, c.log); err != nil {
		return err
	}
	if *transactions == "worker" {
		id := *name
		if fixed := c.cfg.InstanceID + c.cfg.MemberID; fixed != "" { // the same after a restart
			id = fixed
		}
		if c.shared, err = producer.NewShared(producer.DefaultConfig(), c.client, c.cfg.Group+"-"+id); err != nil {
			return err
		}
	}
	if c.membership, err = newMembership(*kind, c.cfg, c.client, strings.Split(*brokers, ","), c, c.log); err != nil {
		return err
	}
	return c.run(ctx)
}

func newMembership(kind string, cfg consumer.GroupConfig, client *kafkawire.Client, brokers []string, h consumer.Handler, log zerolog.Logger) (consumer.Membership, error) {
	var i, n int32
	switch kind {
	case "classic":
		return consumer.NewClassicMembership(cfg, client, h, log)
	case "consumer":
		return consumer.NewConsumerMembership(cfg, client, h, log)
	case "kafka-go":
		return &eager{cfg: cfg, brokers: brokers, handler: h, log: log, changed: make(chan struct{})}, nil
	default:
		if _, err := fmt.Sscanf(kind, "none:%d/%d", &i, &n); err != nil {
			return nil, fmt.Errorf("membership %q is not one of classic, consumer, kafka-go, none:I/N", kind)
		}
		return &fixed{topic: cfg.Topics[0], client: client, first: i, step: n, handler: h}, nil
	}
}

func (c *copier) run(ctx context.Context) error {
	life, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	c.group, c.life = errgroup.WithContext(life)
	member, leave := context.WithCancel(ctx)
	defer leave()
	c.group.Go(func() error {
		<-c.life.Done()
		leave()
		return nil
	})
	c.group.Go(func() error { return c.fetcher.Run(c.life) })
	if c.shared != nil {
		c.group.Go(func() error { return c.shared.Run(c.life) })
	}
	c.group.Go(func() error {
		defer abandon()
		return c.membership.Run(member)
	})
	if err := c.group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Assigned implements consumer.Handler.
func (c *copier) Assigned(partitions []consumer.TopicPartition) {
	for _, tp := range partitions {
		life, abandon := context.WithCancel(c.life)
		fetch, drain := context.WithCancel(life)
		r := running{drain, abandon, make(chan struct{})}
		c.mu.Lock()
		c.tasks[tp] = r
		c.mu.Unlock()
		c.group.Go(func() error {
			defer close(r.done)
			defer abandon()
			return c.copy(fetch, life, tp)
		})
	}
}

// Revoked implements consumer.Handler.
func (c *copier) Revoked(partitions []consumer.TopicPartition) {
	c.end(partitions, func(r running) { r.drain() })
}

// Lost implements consumer.Handler.
func (c *copier) Lost(partitions []consumer.TopicPartition) {
	c.end(partitions, func(r running) { r.abandon() })
}

func (c *copier) end(partitions []consumer.TopicPartition, how func(running)) {
	var ending []running
	c.mu.Lock()
	for _, tp := range partitions {
		if r, ok := c.tasks[tp]; ok {
			ending = append(ending, r)
			delete(c.tasks, tp)
		}
	}
	c.mu.Unlock()
	for _, r := range ending {
		how(r)
	}
	for _, r := range ending {
		<-r.done
	}
}

// copy owns a partition until fetch ends, beginning again after whatever another attempt can mend.
func (c *copier) copy(fetch, life context.Context, tp consumer.TopicPartition) error {
	for {
		err := c.own(fetch, life, tp)
		if fetch.Err() != nil {
			return nil //nolint:nilerr // the partition is not ours any more, which is the ordinary end
		}
		_, again := kafkawire.Retriable(err)
		if !again && !errors.Is(err, producer.ErrFenced) && !errors.Is(err, producer.ErrAbortable) {
			return fmt.Errorf("%s: %w", tp, err)
		}
		c.log.Warn().Err(err).Stringer("partition", tp).Msg("beginning again")
		pause(fetch, 50*time.Millisecond)
	}
}

func (c *copier) own(fetch, life context.Context, tp consumer.TopicPartition) error {
	publisher, err := c.newPublisher(tp)
	if err != nil {
		return err
	}
	defer publisher.Close()
	if err := publisher.Begin(fetch); err != nil {
		return err
	}
	offsets, err := consumer.CommittedOffsets(fetch, c.client, c.cfg.Group, c.membership.Identity(), []consumer.TopicPartition{tp})
	if err != nil {
		return err
	}
	partition := c.fetcher.Open(tp, offsets[tp])
	defer partition.Close()
	var source [12]byte
	for {
		batch, err := partition.Next(fetch)
		if err != nil {
			return err
		}
		for i := range batch.Records {
			r := &batch.Records[i]
			binary.BigEndian.PutUint32(source[:], uint32(tp.Partition))
			binary.BigEndian.PutUint64(source[4:], uint64(r.Offset))
			out := producer.Record{Topic: c.output, Partition: tp.Partition, Timestamp: r.Timestamp, Key: r.Key, Value: source[:]}
			if err := publisher.Append(&out); err != nil {
				return errors.Join(err, publisher.Abort(life))
			}
		}
		if err := c.commit(life, publisher, tp, batch.Next); err != nil {
			return errors.Join(err, publisher.Abort(life))
		}
		fmt.Printf("%d %d %d\n", time.Now().UnixMicro(), tp.Partition, batch.Next)
		if err := publisher.Begin(life); err != nil {
			return err
		}
	}
}

func (c *copier) newPublisher(tp consumer.TopicPartition) (producer.Publisher, error) {
	if c.shared != nil {
		return c.shared.Publisher()
	}
	return producer.NewTransactional(producer.DefaultConfig(), c.client, fmt.Sprintf("%s-%d", c.cfg.Group, tp.Partition))
}

// commit goes on under the new identity when the group has moved on meanwhile.
func (c *copier) commit(ctx context.Context, publisher producer.Publisher, tp consumer.TopicPartition, next int64) error {
	deadline := time.Now().Add(c.cfg.SessionTimeout)
	for {
		changed := c.membership.Changed()
		id := c.membership.Identity()
		member := producer.Member{Group: c.cfg.Group, MemberID: id.MemberID, InstanceID: id.InstanceID, Generation: id.Generation}
		err := publisher.Commit(ctx, member, []producer.Offset{{Topic: tp.Topic, Partition: tp.Partition, Offset: next}})
		if !errors.Is(err, producer.ErrStaleMember) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", err, producer.ErrAbortable)
		}
		wait, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		select {
		case <-changed:
		case <-wait.Done():
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
