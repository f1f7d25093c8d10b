package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// sink is a publisher that accepts everything.
type sink struct{ records, bytes int }

func (s *sink) Begin(context.Context) error { return nil }

func (s *sink) Append(r *producer.Record) error {
	s.records++
	s.bytes += len(r.Value)
	return nil
}

func (s *sink) Buffered() int { return s.bytes }

func (s *sink) Commit(context.Context, producer.Member, []producer.Offset) error { return nil }
func (s *sink) Abort(context.Context) error                                      { return nil }
func (s *sink) Close() error                                                     { return nil }

// oneSchema is a registry of the event contract alone.
type oneSchema string

func (s oneSchema) SchemaByID(context.Context, int32) (schemas.Schema, error) {
	return schemas.Schema{Text: string(s)}, nil
}
func (s oneSchema) Register(context.Context, string, string) (int32, error) { return 1, nil }

// bench is a task with a batch of its own that goes on by itself: its offsets ascend from one run to the next.
type bench struct {
	task  *task
	sink  *sink
	batch consumer.Batch
}

func newBench(t testing.TB, events, reasons int, drifting bool) *bench {
	t.Helper()
	e := loadExample(t)
	schema, err := e.model.Contract().AvroSchema()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now() // stands still
	cfg := config.Default()
	cfg.Reasons.Top, cfg.Drift.Enabled = reasons, drifting
	w, err := New(cfg, Dependencies{
		Transport: &kafka.Transport{}, Model: e.model, Profile: e.profile, Registry: oneSchema(schema),
		Metrics: prometheus.NewRegistry(), Log: zerolog.Nop(), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.partitions = map[string]int{cfg.Topics.DriftState: 1}
	source := consumer.TopicPartition{Topic: cfg.Topics.Events}
	b := &bench{task: newTask(w, source, zerolog.Nop()), sink: &sink{}, batch: consumer.Batch{TopicPartition: source}}
	b.task.publisher = b.sink
	if drifting {
		if b.task.counts, err = drift.NewAccumulator(e.profile, e.model.Contract(), DriftWindow(cfg), drift.Source{ModelDigest: e.model.Digest(), Topic: source.Topic}, w.driftMetrics); err != nil {
			t.Fatal(err)
		}
	}
	encoder, err := schemas.NewEncoder(e.model.Contract())
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range events {
		v := randomEvent(random, i)
		value, err := encoder.AppendEvent(schemas.AppendFrame(nil, 1), v.numbers, v.categories)
		if err != nil {
			t.Fatal(err)
		}
		b.batch.Records = append(b.batch.Records, consumer.Record{Offset: int64(i), Timestamp: now.UnixMilli(), Key: []byte(v.key), Value: value})
	}
	b.batch.Next = int64(events)
	return b
}

// Next gives the one batch, Poll never another: the bench is a source of batches.
func (b *bench) Next(context.Context) (*consumer.Batch, error) { return &b.batch, nil }
func (b *bench) Poll() (*consumer.Batch, error)                { return nil, nil } //nolint:nilnil // as in a partition

func (b *bench) run(t testing.TB) {
	if err := b.task.process(t.Context(), t.Context(), b); err != nil {
		t.Fatal(err)
	}
	n := int64(len(b.batch.Records))
	b.batch.First, b.batch.Next = b.batch.First+n, b.batch.Next+n
	for i := range b.batch.Records {
		b.batch.Records[i].Offset += n
	}
}

// TestProcessingAllocatesNothingPerEvent allows for less than one allocation a chunk: the histogram of a stage takes memory
// for a duration that it sees for the first time.
func TestProcessingAllocatesNothingPerEvent(t *testing.T) {
	const events = 2000
	for _, reasons := range []int{0, 3} {
		for _, drifting := range []bool{false, true} {
			t.Run(fmt.Sprintf("reasons=%d,drift=%v", reasons, drifting), func(t *testing.T) {
				b := newBench(t, events, reasons, drifting)
				for range 10 { // memory grows to the size of the batches, the schema is compiled
					b.run(t)
				}
				if got := testing.AllocsPerRun(20, func() { b.run(t) }); got >= events/chunkRows {
					t.Errorf("%v allocations for %d events", got, events)
				}
			})
		}
	}
}

// BenchmarkProcess is the worker's own part of an event: decode, score, encode, observe; no broker, no compression.
func BenchmarkProcess(b *testing.B) {
	const events = 1000
	for _, reasons := range []int{0, 3} {
		for _, drifting := range []bool{false, true} {
			b.Run(fmt.Sprintf("reasons=%d/drift=%v", reasons, drifting), func(b *testing.B) {
				bench := newBench(b, events, reasons, drifting)
				bench.run(b)
				b.ReportAllocs()
				for b.Loop() {
					bench.run(b)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
				if bench.sink.records < b.N*events {
					b.Fatalf("%d records for %d batches of %d events", bench.sink.records, b.N, events)
				}
			})
		}
	}
}
