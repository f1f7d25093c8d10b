package worker

import (
	"context"
	"slices"
	"sync"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/driftstate"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// statePartition is where the counts of an input partition are kept.
func (w *Worker) statePartition(input int32) int32 {
	return input % int32(w.partitions[w.cfg.Topics.DriftState])
}

// headerGroup says whose offsets were committed with a drift state.
const headerGroup = "churnstream.group"

// stateWriter publishes the counts of a partition.
func (w *Worker) stateWriter(source consumer.TopicPartition) driftstate.Writer {
	return driftstate.Writer{
		Topic: w.cfg.Topics.DriftState, Partition: w.statePartition(source.Partition), SchemaID: w.schemaIDs.driftState,
		Headers: []producer.Header{{Key: headerGroup, Value: []byte(w.cfg.Group.ID)}},
	}
}

// newCounts gives the accumulator of a partition with what its earlier owners committed, and the offset that their group
// had committed by then, 0 where that is not known.
func (w *Worker) newCounts(ctx context.Context, source consumer.TopicPartition) (*drift.Accumulator, int64, error) {
	counted := drift.Source{ModelDigest: w.model.Digest(), Topic: source.Topic, Partition: source.Partition}
	counts, err := drift.NewAccumulator(w.profile, w.model.Contract(), DriftWindow(w.cfg), counted, w.driftMetrics)
	if err != nil {
		return nil, 0, err
	}
	r := &restoring{source: source, counts: counts}
	err = w.restores[w.statePartition(source.Partition)].restore(ctx, r)
	return counts, r.committed, err
}

// restores reads one partition of the state topic for the tasks that want their counts from it. Those that come while it
// is being read share the next reading, so that a worker that is given many partitions at once reads it twice at most.
type restores struct {
	turn chan struct{} // held by the task that reads
	read func(ctx context.Context, into []*restoring) error

	mu      sync.Mutex
	waiting []*restoring
}

// restoring is an accumulator that waits for its counts.
type restoring struct {
	source    consumer.TopicPartition
	counts    *drift.Accumulator
	committed int64 // by this worker's group, together with a state
	done      bool  // under the turn
}

func (w *Worker) newRestores(statePartition int32) *restores {
	states := consumer.TopicPartition{Topic: w.cfg.Topics.DriftState, Partition: statePartition}
	var state schemas.DriftState
	return &restores{
		turn: make(chan struct{}, 1),
		read: func(ctx context.Context, into []*restoring) error {
			give := func(r *consumer.Record, state *schemas.DriftState) error {
				ours := header(r, headerGroup) == w.cfg.Group.ID
				for _, each := range into {
					if err := each.take(r.Key, state, ours); err != nil {
						return err
					}
				}
				return nil
			}
			tell := func(r *consumer.Record, err error) { // it must not stop the scores
				w.log.Error().Err(err).Int32("partition", states.Partition).Int64("offset", r.Offset).Msg("a drift state cannot be restored and does not count")
			}
			_, err := tail.ReadPartition(ctx, w.client, w.restoring, states, func(b *consumer.Batch) error {
				driftstate.Each(b, &state, give, tell)
				return nil
			})
			return err
		},
	}
}

// take takes a state, nil for one that was deleted, and passes over what is not its own.
func (r *restoring) take(key []byte, state *schemas.DriftState, ours bool) error {
	if state == nil {
		r.counts.Deleted(key)
		return nil
	}
	if ours && state.Topic == r.source.Topic && state.Partition == r.source.Partition {
		r.committed = max(r.committed, state.NextOffset)
	}
	return r.counts.Restore(state)
}

// header is the value of a header, empty where there is none.
func header(r *consumer.Record, name string) string {
	for n, value := range r.EachHeader() {
		if string(n) == name {
			return string(value)
		}
	}
	return ""
}

// restore fills counts. A reading that fails is the failure of the task that read; the others read for themselves, with
// accumulators that are theirs alone again: restoring a bucket twice gives the same counts.
func (r *restores) restore(ctx context.Context, mine *restoring) error {
	r.mu.Lock()
	r.waiting = append(r.waiting, mine)
	r.mu.Unlock()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		r.leave(mine)
		return ctx.Err()
	}
	if mine.done {
		return nil
	}
	r.mu.Lock()
	all := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	if err := r.read(ctx, all); err != nil {
		r.mu.Lock()
		for _, other := range all {
			if other != mine {
				r.waiting = append(r.waiting, other)
			}
		}
		r.mu.Unlock()
		return err
	}
	for _, each := range all {
		each.done = true
	}
	return nil
}

func (r *restores) leave(mine *restoring) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = slices.DeleteFunc(r.waiting, func(w *restoring) bool { return w == mine })
}
