package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/producer"
)

// A worker whose partitions share a transaction may die within it. Until the transaction timeout its successors then
// wait for the offsets that it holds, and readers for the scores. So the worker's transactional id goes with every offset
// that it commits, as the offset's metadata, and is taken out again when a partition is given up in order. A successor
// that finds the id of another worker there knows that this one did not end in order, and ends its transaction.

// ownerPrefix marks the metadata as ours.
const ownerPrefix = "churnstream transactional.id="

// successionLimit bounds what is done for a succession: the transaction timeout settles what it does not reach.
const successionLimit = 2 * time.Second

// succession ends the transactions of dead workers, each once for all partitions that are taken over at the same time.
type succession struct {
	fence func(ctx context.Context, transactionalID string) error

	mu    sync.Mutex
	ended map[string]time.Time
}

// end ends the transaction of a worker, unless that was done a moment ago.
func (s *succession) end(ctx context.Context, transactionalID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.ended[transactionalID]) < successionLimit {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, successionLimit)
	defer cancel()
	err := s.fence(ctx, transactionalID)
	if err == nil {
		s.ended[transactionalID] = time.Now()
	}
	return err
}

// succeed makes sure that a former owner of the partition who did not give it up in order holds nothing of it.
func (t *task) succeed(ctx context.Context) error {
	w := t.worker
	if w.cfg.Delivery != config.ExactlyOnce {
		return nil
	}
	metadata, err := consumer.CommittedMetadata(ctx, w.client, w.cfg.Group.ID, []consumer.TopicPartition{t.source})
	if err != nil {
		return err
	}
	owner, marked := strings.CutPrefix(metadata[t.source], ownerPrefix)
	t.marked = marked
	if !marked || owner == w.transactionalID {
		return nil
	}
	if err := w.succession.end(ctx, owner); err != nil {
		t.log.Warn().Err(err).Str("transactional_id", owner).Msg("the transaction of the partition's former owner cannot be ended; what it holds waits for the transaction timeout")
		return nil
	}
	t.log.Info().Str("transactional_id", owner).Msg("ended the transaction of the partition's former owner, which did not give it up in order")
	return nil
}

// metadata goes with the offsets that a task commits.
func (w *Worker) metadata() string {
	if w.transactionalID == "" {
		return ""
	}
	return ownerPrefix + w.transactionalID
}

// release takes this worker's id out of the offsets of partitions that are given up in order. Where it fails their next
// owner ends a transaction that need not be ended, which costs this worker a new beginning and nobody an event.
func (w *Worker) release(tasks []*task) {
	var offsets []producer.Offset
	for _, t := range tasks {
		if t.marked && t.position >= 0 {
			offsets = append(offsets, producer.Offset{Topic: t.source.Topic, Partition: t.source.Partition, Offset: t.position})
		}
	}
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(w.work, successionLimit)
	defer cancel()
	var err error
	for {
		err = producer.CommitOffsets(ctx, w.producing, w.client, w.member(), offsets)
		if !errors.Is(err, kafka.RebalanceInProgress) || ctx.Err() != nil {
			break
		}
		wait(ctx, settling) // several often leave at the same time
	}
	if err != nil {
		w.log.Warn().Err(err).Int("partitions", len(offsets)).Msg("cannot mark partitions as given up in order; their next owner will fence this worker once")
	}
}

// member is who commits.
func (w *Worker) member() producer.Member {
	id := w.membership.Identity()
	return producer.Member{Group: w.cfg.Group.ID, MemberID: id.MemberID, InstanceID: id.InstanceID, Generation: id.Generation}
}
