package tail_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/producer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestATopicIsReadToWhatIsCommittedNowEvenBehindAnAbort(t *testing.T) {
	f := newFixture(t, 4) // the last partition stays empty
	f.publish(t, 0, "a", "b")
	f.publish(t, 1, "c")
	f.abort(t, 0, "never")
	f.plain(t, 2, "d")
	var seen []string
	next, err := tail.ReadTopic(t.Context(), f.client, f.fetcher, f.topic, func(b *consumer.Batch) error {
		seen = append(seen, values(b)...)
		return nil
	})
	if err != nil || !slices.Equal(seen, []string{"0:a", "0:b", "1:c", "2:d"}) {
		t.Fatalf("read %q: %v", seen, err)
	}
	ends, err := tail.Starts(t.Context(), f.client, f.topic, consumer.Latest)
	if err != nil || len(ends) != 4 || len(next) != 4 {
		t.Fatalf("%v, %v: %v", next, ends, err)
	}
	for tp, end := range ends {
		if next[tp] != end {
			t.Errorf("%v is to be followed from %d, its end is %d", tp, next[tp], end)
		}
	}
}

func TestFollowingGoesOnWhereReadingEnded(t *testing.T) {
	f := newFixture(t, 2)
	f.publish(t, 0, "old")
	next, err := tail.ReadTopic(t.Context(), f.client, f.fetcher, f.topic, func(*consumer.Batch) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	f.publish(t, 0, "a", "b")
	f.publish(t, 1, "c")
	var inside atomic.Int32
	overlap := make(chan struct{}, 1)
	var seen []string
	err = tail.Follow(t.Context(), f.fetcher, next, func(b *consumer.Batch) error {
		if inside.Add(1) != 1 {
			t.Error("two calls at a time")
			overlap <- struct{}{}
		}
		defer inside.Add(-1)
		if len(seen) == 0 { // the other partition has something, too, and must wait
			select {
			case <-overlap:
			case <-time.After(100 * time.Millisecond):
			}
		}
		if seen = append(seen, values(b)...); len(seen) == 3 {
			return tail.ErrStop
		}
		return nil
	})
	slices.Sort(seen)
	if err != nil || !slices.Equal(seen, []string{"0:a", "0:b", "1:c"}) {
		t.Errorf("followed %q: %v", seen, err)
	}
}

func TestFollowingStartsWithTheNextRecordAtLatest(t *testing.T) {
	f := newFixture(t, 1)
	f.publish(t, 0, "old")
	starts, err := tail.Starts(t.Context(), f.client, f.topic, consumer.Latest)
	if err != nil {
		t.Fatal(err)
	}
	f.publish(t, 0, "new")
	err = tail.Follow(t.Context(), f.fetcher, starts, func(b *consumer.Batch) error {
		if got := values(b); !slices.Equal(got, []string{"0:new"}) {
			t.Errorf("got %q", got)
		}
		return tail.ErrStop
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFollowingEndsWithItsContextOrItsCallback(t *testing.T) {
	f := newFixture(t, 2)
	f.publish(t, 1, "a")
	starts, err := tail.Starts(t.Context(), f.client, f.topic, consumer.Earliest)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	defer cancel()
	expired, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	failure := errors.New("cannot use this")
	for name, c := range map[string]struct {
		ctx      context.Context
		callback func() error
		want     error
	}{
		"cancelled":                        {cancelled, func() error { cancel(); return nil }, nil},
		"expired":                          {expired, func() error { return nil }, nil},
		"refused":                          {t.Context(), func() error { return failure }, failure},
		"someone else's context is no end": {t.Context(), func() error { return context.Canceled }, context.Canceled},
	} {
		err := tail.Follow(c.ctx, f.fetcher, starts, func(b *consumer.Batch) error {
			if len(b.Records) == 0 {
				return nil
			}
			return c.callback()
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestReadingEndsWithItsCallback(t *testing.T) {
	f := newFixture(t, 1)
	f.publish(t, 0, "a")
	failure := errors.New("cannot use this")
	tp := consumer.TopicPartition{Topic: f.topic}
	if _, err := tail.ReadPartition(t.Context(), f.client, f.fetcher, tp, func(*consumer.Batch) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
}

// fixture is a topic with everything that reads and writes it.
type fixture struct {
	brokers []string
	topic   string
	client  *kafkawire.Client
	fetcher *consumer.Fetcher
	writer  *producer.Transactional
}

func newFixture(t *testing.T, partitions int) *fixture {
	t.Helper()
	brokers := testkit.Brokers(t)
	f := &fixture{brokers: brokers, topic: testkit.Topic(t, brokers, "tail", partitions)}
	var err error
	if f.client, err = kafkawire.NewClient(kafkawire.Config{Brokers: brokers, ClientID: "tail-test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.CloseIdleConnections)
	cfg := consumer.DefaultFetchConfig()
	cfg.MaxWait = 20 * time.Millisecond
	if f.fetcher, err = consumer.NewFetcher(cfg, f.client, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	if f.writer, err = producer.NewTransactional(producer.DefaultConfig(), f.client, testkit.Name(t, "tail")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.fetcher.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := f.writer.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) publish(t *testing.T, partition int32, texts ...string) {
	t.Helper()
	if err := f.writer.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if err := f.writer.Append(&producer.Record{Topic: f.topic, Partition: partition, Value: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.writer.Commit(t.Context(), producer.Member{}, nil); err != nil {
		t.Fatal(err)
	}
}

// plain publishes a record outside of any transaction: no marker stands behind it.
func (f *fixture) plain(t *testing.T, partition int32, text string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: f.topic, Partition: partition, Value: []byte(text)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// abort leaves records in the log that nobody is to see; our own producer sends none before it commits.
func (f *fixture) abort(t *testing.T, partition int32, text string) {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(f.brokers...), kgo.TransactionalID(testkit.Name(t, "abort")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: f.topic, Partition: partition, Value: []byte(text)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}

func values(b *consumer.Batch) (texts []string) {
	for i := range b.Records {
		texts = append(texts, fmt.Sprintf("%d:%s", b.Partition, b.Records[i].Value))
	}
	return texts
}
