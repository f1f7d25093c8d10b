package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
)

// A coordinator may give an offset that is older than what the group has committed: Kafka 4.3 answers while it still
// loads the group, when the leader of the group's partition of __consumer_offsets changes twice during the load, as with
// a broker that starts slowly. Events would come out again. An operator who resets the offsets of the group gives
// an older one, too. The first passes, so a partition waits for some time before it takes an older offset for the second.

const (
	memoryLimit = time.Minute
	memoryPause = 250 * time.Millisecond
)

// memory is what this process knows of the committed offsets of partitions.
type memory struct {
	mu        sync.Mutex
	committed map[consumer.TopicPartition]int64
	reset     map[consumer.TopicPartition]bool // an older offset was taken for a reset: what was counted lies ahead
}

// commit notes a committed offset.
func (m *memory) commit(p consumer.TopicPartition, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed[p] = offset
}

// takeReset notes that reading begins at an older offset.
func (m *memory) takeReset(p consumer.TopicPartition, offset int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed[p], m.reset[p] = offset, true
}

// least is where the committed offset must be at least; counted is where the statistics that were committed with it end.
func (m *memory) least(p consumer.TopicPartition, counted int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reset[p] {
		counted = 0
	}
	return max(m.committed[p], counted)
}

// remembered gives the partition's committed offset: that which the coordinator gave, unless it is known to be older.
// Counted is where the statistics end that the group has written; they prove an offset where they are committed with it.
func (t *task) remembered(ctx context.Context, offset, counted int64) (int64, error) {
	w := t.worker
	if w.cfg.Delivery != config.ExactlyOnce {
		counted = 0
	}
	least := w.memory.least(t.source, counted)
	if max(offset, 0) >= least { // -1: there is none
		return offset, nil
	}
	began := w.now()
	w.metrics.forgotten.Inc()
	t.log.Warn().Int64("offset", offset).Int64("committed", least).Dur("for", w.memoryLimit).
		Msg("the group's coordinator gives an older offset than was committed; waiting for it to remember, as long as it is not taken for a reset")
	t.phase.start(fmt.Sprintf("the group's coordinator, which gives offset %d where %d was committed: it may not have loaded the group; after %s that is taken for a reset of the group's offsets", offset, least, w.memoryLimit), began)
	limit, cancel := context.WithTimeout(ctx, w.memoryLimit)
	defer cancel()
	for {
		if wait(limit, memoryPause); ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if limit.Err() != nil {
			break
		}
		offsets, err := consumer.CommittedOffsets(limit, w.client, w.cfg.Group.ID, w.membership.Identity(), []consumer.TopicPartition{t.source})
		if err != nil {
			if limit.Err() != nil {
				continue
			}
			return 0, err
		}
		if offset = offsets[t.source]; offset >= least {
			t.log.Info().Int64("offset", offset).Msg("the group's coordinator remembers the committed offset")
			return offset, nil
		}
	}
	w.memory.takeReset(t.source, offset)
	t.log.Warn().Int64("offset", offset).Int64("committed", least).Msg("reading from the older offset, as after a reset of the group's offsets")
	return offset, nil
}
