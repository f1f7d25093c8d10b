// Command franz does the job of the comparison with franz-go: sessions of GroupTransactSession that poll, decode, score
// and produce, a transaction for each poll. It takes its settings from the environment, as every contender does: BROKER
// IN_TOPIC OUT_TOPIC GROUP MODEL_DIR, and ends on SIGTERM.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/bench/peers/job"
)

// sessions share the group; one alone waits for its own transactions.
const sessions = 4

// maxPoll bounds a transaction: large under load, and small as what there is at a low rate.
const maxPoll = 50_000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "franz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	model, err := job.ReadModel(os.Getenv("MODEL_DIR"))
	if err != nil {
		return err
	}
	linear := model.Fold()
	activity, err := avro.Parse(job.ActivitySchema)
	if err != nil {
		return err
	}
	score, err := avro.Parse(job.ScoreSchema)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range sessions {
		g.Go(func() error { return session(ctx, i, &scorer{model: linear, activity: activity, score: score}) })
	}
	return g.Wait()
}

func session(ctx context.Context, number int, s *scorer) error {
	group := os.Getenv("GROUP")
	client, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(os.Getenv("BROKER")),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(os.Getenv("IN_TOPIC")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.DefaultProduceTopic(os.Getenv("OUT_TOPIC")),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(1<<20),
		kgo.SessionTimeout(10*time.Second),
		kgo.TransactionalID(fmt.Sprintf("%s-%d", group, number)),
		kgo.TransactionTimeout(30*time.Second),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, maxPoll)
		if err := fetches.Err(); err != nil && ctx.Err() == nil {
			return err
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		// What was polled is finished even when the process is asked to end.
		if err := transact(context.WithoutCancel(ctx), client, fetches, s); err != nil {
			return err
		}
	}
	return nil
}

func transact(ctx context.Context, client *kgo.GroupTransactSession, fetches kgo.Fetches, s *scorer) error {
	if err := client.Begin(); err != nil {
		return err
	}
	var failed error
	produced := kgo.AbortingFirstErrPromise(client.Client())
	fetches.EachRecord(func(r *kgo.Record) {
		value, err := s.value(r.Value)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err))
			return
		}
		client.Produce(ctx, &kgo.Record{Key: r.Key, Value: value}, produced.Promise())
	})
	if failed != nil {
		return failed
	}
	_, err := client.End(ctx, kgo.TransactionEndTry(produced.Err() == nil))
	return err
}

// scorer belongs to one session.
type scorer struct {
	model           *job.Linear
	activity, score *avro.Schema

	in    job.Activity
	out   job.Score
	arena []byte // of the values that are being sent
}

// The arena is cut into values and left to the collector when it is full.
const arenaSize, largestScore = 64 << 10, 128

func (s *scorer) value(event []byte) ([]byte, error) {
	if len(event) < 5 || event[0] != 0 || event[4] != job.ActivityID {
		return nil, errors.New("the event is not in the expected wire format")
	}
	if _, err := s.activity.Decode(event[5:], &s.in, avro.AliasInput()); err != nil {
		return nil, err
	}
	s.out = job.Score{
		CustomerID: s.in.CustomerID, EventID: s.in.EventID, EventTS: s.in.EventTS,
		Probability: s.model.Probability(&s.in), ModelVersion: job.ModelVersion,
	}
	if cap(s.arena)-len(s.arena) < largestScore {
		s.arena = make([]byte, 0, arenaSize)
	}
	start := len(s.arena)
	encoded, err := s.score.AppendEncode(append(s.arena, 0, 0, 0, 0, job.ScoreID), &s.out)
	if err != nil {
		return nil, err
	}
	s.arena = encoded
	return encoded[start:len(encoded):len(encoded)], nil
}
