package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// Waits before a partition's leader is asked for again. The first retry is at once: most moves are
// over by the time that the old leader says so.
const (
	firstRetry   = 20 * time.Millisecond
	movedRetry   = 250 * time.Millisecond // the longest wait for an election
	unknownRetry = time.Second            // the longest wait for a topic or for rights
	routeTimeout = 5 * time.Second
	replicaLease = 5 * time.Minute // as Java's metadata.max.age.ms
)

// router finds leaders and starting offsets. It belongs to the goroutine of Fetcher.Run.
type router struct {
	*Fetcher
	start   func(*leader)
	waiting []*Partition
}

// pass serves the partitions that are due and returns when the next one will be.
func (r *router) pass(ctx context.Context) time.Duration {
	r.mu.Lock()
	r.waiting = append(r.waiting, r.unrouted...)
	clear(r.unrouted)
	r.unrouted = r.unrouted[:0]
	r.mu.Unlock()

	now, next := time.Now(), time.Hour
	var due, later []*Partition
	var topics []string
	for _, p := range r.waiting {
		p.mu.Lock()
		wait, stale := p.retryAt.Sub(now), p.phase != routing
		p.mu.Unlock()
		switch {
		case stale:
		case wait > 0:
			next = min(next, wait)
			later = append(later, p)
		default:
			due = append(due, p)
			if !slices.Contains(topics, p.Topic) {
				topics = append(topics, p.Topic)
			}
		}
	}
	r.waiting = later
	if len(due) == 0 {
		return next
	}
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	r.locate(ctx, due, topics)
	r.mu.Lock()
	again := len(r.unrouted) > 0
	r.mu.Unlock()
	if again {
		return 0
	}
	return next
}

// locate finds the leaders of partitions and the offsets that they lack, and hands them over.
func (r *router) locate(ctx context.Context, due []*Partition, topics []string) {
	metadata, err := r.client.Metadata(ctx, topics)
	found := make([]location, 0, len(due))
	for _, p := range due {
		p.mu.Lock()
		l := location{question: question{partition: p, epoch: p.epoch, offset: p.offset}, broker: -1, epoch: -1}
		p.mu.Unlock()
		cause := err
		if cause == nil {
			l.broker, cause = metadata.Leader(p.Topic, p.Partition)
		}
		if cause == nil {
			topic := metadata.Topics[p.Topic]
			l.id, l.epoch = topic.ID, topic.Partitions[p.Partition].LeaderEpoch
			cause = r.recognise(&l)
		}
		if cause != nil {
			r.retry(&l.question, cause)
			continue
		}
		found = append(found, l)
	}
	var lookups []offsetLookup
	for i := range found {
		if l := &found[i]; l.offset < 0 {
			lookups = append(lookups, offsetLookup{TopicPartition: l.partition.TopicPartition, leader: l.broker, epoch: l.epoch, at: l.offset, index: i})
		}
	}
	lookUp(ctx, r.client, lookups, r.cfg.Isolation)
	failed := make([]bool, len(found))
	for i := range lookups {
		found[lookups[i].index].offset = lookups[i].offset
		if err := lookups[i].err; err != nil {
			failed[lookups[i].index] = true
			r.retry(&found[lookups[i].index].question, err)
		}
	}
	for i := range found {
		if !failed[i] {
			r.settle(&found[i])
		}
	}
}

// location is where a partition is to be read.
type location struct {
	question // offset is replaced by what the policy or a reset says
	broker   int32
	epoch    int32 // of the leader
	id       [16]byte
}

// recognise compares what metadata says with what is known of the partition. A topic of another id
// has been created again: nothing of the old one counts, also what is prefetched, whose offsets would
// be committed for the new one. Metadata older than what was read is an old leader's.
func (r *router) recognise(l *location) error {
	p := l.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != l.question.epoch {
		return nil // settle sends it round again
	}
	var none [16]byte
	if p.topicID == none || l.id == none || p.topicID == l.id {
		if l.epoch >= 0 && l.epoch < p.lastEpoch {
			return fmt.Errorf("metadata is of epoch %d, records of %d were read: %w", l.epoch, p.lastEpoch, kafka.UnknownLeaderEpoch)
		}
		return nil
	}
	dropped := len(p.slot.raw)
	p.emptySlotLocked()
	p.void = true
	p.topicID, p.leaderEpoch, p.lastEpoch = l.id, -1, -1
	p.position = -1
	if l.offset >= 0 || dropped > 0 {
		r.resetLocked(p, max(l.offset, 0), Recreated, dropped)
		l.offset = p.offset
	}
	return nil
}

// settle hands a partition to the broker that it is to be read from.
func (r *router) settle(at *location) {
	p := at.partition
	p.mu.Lock()
	if p.phase != routing {
		p.mu.Unlock()
		return
	}
	if p.epoch != at.question.epoch { // sought meanwhile
		p.mu.Unlock()
		r.route(p)
		return
	}
	if p.position < 0 {
		p.position = at.offset
	}
	broker := at.broker
	if p.replica.broker >= 0 {
		broker = p.replica.broker
	}
	l := r.leader(broker)
	p.offset, p.topicID, p.leaderEpoch, p.leader, p.phase = at.offset, at.id, at.epoch, l, queued
	p.mu.Unlock()
	l.enqueue(p)
}

// leader starts the lanes of a broker at the first partition that is read from it.
func (r *router) leader(broker int32) *leader {
	l := r.leaders[broker]
	if l == nil {
		l = newLeader(r.Fetcher, broker)
		r.leaders[broker] = l
		r.brokers.Add(1)
		r.start(l)
	}
	return l
}

// retry sends a partition to the router again, or fails it where the error is one that a retry
// does not mend.
func (f *Fetcher) retry(q *question, err error) {
	moved, retriable := kafkawire.Retriable(err)
	if errors.Is(err, kafka.Unknown) { // the broker's own fault, as Java's fetcher treats it
		retriable = true
	}
	if moved {
		f.client.ForgetMetadata()
	}
	f.metrics.FetchErrors.WithLabelValues(cause(err)).Inc()
	p := q.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase == closed || p.phase == failed {
		return
	}
	if p.epoch != q.epoch {
		if p.phase == routing {
			f.route(p)
		}
		return
	}
	if !retriable {
		p.failLocked(&FetchError{p.TopicPartition, err})
		return
	}
	longest := movedRetry
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		longest = unknownRetry
	}
	p.delayLocked(longest)
	if p.failures == 2 || p.failures%32 == 0 { // one failure is an ordinary leader move
		f.log.Warn().Err(err).Str("topic", p.Topic).Int32("partition", p.Partition).Int("failures", p.failures).
			Msg("cannot fetch; trying again")
	}
	p.replica, p.phase = noReplica, routing
	f.route(p)
}

// delayLocked counts a failure and sets the time of the next attempt.
func (p *Partition) delayLocked(longest time.Duration) {
	p.failures++
	p.retryAt = time.Time{}
	if p.failures > 1 {
		p.retryAt = time.Now().Add(min(firstRetry<<min(p.failures-2, 10), longest))
	}
}

// redirect sends a partition to a replica near by, for a while: its leader may know a better one
// later. Whatever goes wrong there leads back to the leader.
func (f *Fetcher) redirect(q *question, broker int32) {
	p := q.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return
	}
	p.replica = replica{broker: broker, until: time.Now().Add(replicaLease)}
	p.retryAt, p.phase = time.Time{}, routing
	f.route(p)
}

// outOfRange applies the policy, once the leader itself has said it about the offset itself: a
// follower may be behind, and a broker that does not know the epoch of the last record says the same.
func (f *Fetcher) outOfRange(q *question) {
	p := q.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return
	}
	if p.replica.broker >= 0 || p.lastEpoch >= 0 {
		p.replica, p.lastEpoch = noReplica, -1
		p.delayLocked(movedRetry) // a leader that sends us back there at once must not make a loop of it
	} else if f.resetLocked(p, q.offset, OutOfRange, 0) {
		p.retryAt = time.Time{}
	} else {
		return
	}
	p.phase = routing
	f.route(p)
}

// truncated goes back to where the log that we read and the log as it is part ways: the cluster has
// lost what followed, as after an unclean election, and other records take or will take its place
// (KIP-320). Under the policy "fail" an operator has to look.
func (f *Fetcher) truncated(q *question, end epochEnd) {
	p := q.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return
	}
	if !f.resetLocked(p, q.offset, Truncated, 0) {
		return
	}
	p.offset, p.lastEpoch = min(q.offset, end.offset), end.epoch
	p.phase, p.retryAt = routing, time.Time{}
	f.route(p)
}

// resetLocked gives up an offset: it counts, logs, and sets the offset that stands for the policy. It
// is false where the policy is to fail.
func (f *Fetcher) resetLocked(p *Partition, offset int64, why ResetCause, dropped int) bool {
	f.metrics.OffsetResets.WithLabelValues(p.Topic, string(f.cfg.OffsetReset), string(why)).Inc()
	next, err := f.resetOffset(p.TopicPartition, offset, why)
	if err != nil {
		p.failLocked(err)
		f.log.Error().Err(err).Str("topic", p.Topic).Int32("partition", p.Partition).Int("prefetched_bytes_dropped", dropped).
			Msg("the position is lost")
		return false
	}
	f.log.Warn().Str("topic", p.Topic).Int32("partition", p.Partition).Int64("offset", offset).Str("cause", string(why)).
		Str("policy", string(f.cfg.OffsetReset)).Int("prefetched_bytes_dropped", dropped).Msg("the position is lost; reading on by policy")
	p.offset, p.lastEpoch = next, -1
	if len(p.slot.raw) == 0 {
		p.position = -1 // not known until the new offset is: what lies before it is no lag
	}
	return true
}

// cause is a label of few values.
func cause(err error) string {
	switch {
	case errors.Is(err, kafka.UnknownTopicOrPartition):
		return "unknown_topic"
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return "not_authorized"
	case errors.Is(err, kafka.NotLeaderForPartition), errors.Is(err, kafka.LeaderNotAvailable),
		errors.Is(err, kafka.FencedLeaderEpoch), errors.Is(err, kafka.UnknownLeaderEpoch), errors.Is(err, kafka.ReplicaNotAvailable):
		return "leader_moved"
	}
	if kafkawire.CodeOf(err) != 0 {
		return "broker"
	}
	if moved, _ := kafkawire.Retriable(err); moved {
		return "network"
	}
	return "other"
}
