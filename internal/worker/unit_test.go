package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/producer"
)

// queue is a source with batches that are prefetched already; behind them it fails, or has nothing.
type queue struct {
	batches []*consumer.Batch
	err     error
}

func (q *queue) Poll() (*consumer.Batch, error) {
	if len(q.batches) == 0 {
		return nil, q.err
	}
	b := q.batches[0]
	q.batches = q.batches[1:]
	return b, nil
}

func (q *queue) Next(ctx context.Context) (*consumer.Batch, error) {
	b, err := q.Poll()
	if b == nil && err == nil {
		return nil, ctx.Err()
	}
	return b, err
}

// ledger is a sink that remembers its commits.
type ledger struct {
	sink
	commits []string
}

func (l *ledger) Commit(_ context.Context, _ producer.Member, offsets []producer.Offset) error {
	l.commits = append(l.commits, fmt.Sprintf("%d@%d", l.records, offsets[0].Offset))
	l.sink = sink{}
	return nil
}

// newQueue cuts the bench's one batch into n.
func newQueue(b *bench, n int) *queue {
	q := &queue{}
	size := len(b.batch.Records) / n
	for part := range slices.Chunk(b.batch.Records, size) {
		q.batches = append(q.batches, &consumer.Batch{
			TopicPartition: b.batch.TopicPartition, Records: part, First: part[0].Offset, Next: part[len(part)-1].Offset + 1,
		})
	}
	return q
}

func TestAUnitTakesTheBatchesThatAreThere(t *testing.T) {
	b := newBench(t, 900, 0, false)
	book := &ledger{}
	b.task.publisher = book
	q := newQueue(b, 3)
	if err := b.task.process(t.Context(), t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if want := []string{"900@900"}; !slices.Equal(book.commits, want) {
		t.Errorf("commits %v, want %v", book.commits, want)
	}
}

func TestAUnitEndsAtItsSize(t *testing.T) {
	b := newBench(t, 6000, 3, false)
	book := &ledger{}
	b.task.publisher = book
	for i := range 200 { // the memory of a unit is shared out
		b.task.worker.tasks[consumer.TopicPartition{Topic: "other", Partition: int32(i)}] = nil
	}
	q := newQueue(b, 6)
	for len(q.batches) > 0 {
		before := len(q.batches)
		if err := b.task.process(t.Context(), t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if before-len(q.batches) != 1 {
			t.Fatalf("a unit took %d batches of 1,000 events", before-len(q.batches))
		}
	}
	if len(book.commits) != 6 || book.commits[5] != "1000@6000" {
		t.Errorf("commits %v", book.commits)
	}
}

func TestAFaultOfTheSourceCommitsWhatCameBeforeIt(t *testing.T) {
	b := newBench(t, 100, 0, false)
	book := &ledger{}
	b.task.publisher = book
	q := newQueue(b, 2)
	q.err = errors.New("the log is damaged")
	if err := b.task.process(t.Context(), t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if err := b.task.process(t.Context(), t.Context(), q); !errors.Is(err, q.err) {
		t.Errorf("the next unit gave %v", err)
	}
	if want := []string{"100@100"}; !slices.Equal(book.commits, want) {
		t.Errorf("commits %v, want %v", book.commits, want)
	}
}

func TestADrainEndsTheUnitWithTheBatchInHand(t *testing.T) {
	b := newBench(t, 100, 0, false)
	book := &ledger{}
	b.task.publisher = book
	fetch, drain := context.WithCancel(t.Context())
	q := newQueue(b, 2)
	drained := &drainingQueue{queue: q, drain: drain}
	if err := b.task.process(fetch, t.Context(), drained); err != nil {
		t.Fatal(err)
	}
	if want := []string{"50@50"}; !slices.Equal(book.commits, want) || len(q.batches) != 1 {
		t.Errorf("commits %v, want %v; %d batches are left", book.commits, want, len(q.batches))
	}
}

// drainingQueue is drained once its first batch is taken.
type drainingQueue struct {
	*queue
	drain func()
}

func (q *drainingQueue) Next(ctx context.Context) (*consumer.Batch, error) {
	b, err := q.queue.Next(ctx)
	q.drain()
	return b, err
}
