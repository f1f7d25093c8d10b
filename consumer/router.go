package consumer

import (
	"context"
	"errors"
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
			topics = append(topics, p.Topic)
		}
	}
	r.waiting = later
	if len(due) == 0 {
		return next
	}
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	metadata, err := r.client.Metadata(ctx, topics)
	for _, p := range due {
		leader := int32(-1)
		cause := err
		if cause == nil {
			leader, cause = metadata.Leader(p.Topic, p.Partition)
		}
		p.mu.Lock()
		q := question{partition: p, epoch: p.epoch, offset: p.offset}
		p.mu.Unlock()
		if cause == nil && q.offset < 0 {
			q.offset, cause = listOffset(ctx, r.client, leader, p.TopicPartition, q.offset, r.cfg.Isolation)
		}
		if cause != nil {
			r.retry(q, cause)
			continue
		}
		r.settle(q, leader)
	}
	r.mu.Lock()
	again := len(r.unrouted) > 0
	r.mu.Unlock()
	if again {
		return 0
	}
	return next
}

// settle hands a partition to its leader.
func (r *router) settle(q question, broker int32) {
	l := r.leaders[broker]
	if l == nil {
		l = newLeader(r.Fetcher, broker)
		r.leaders[broker] = l
		r.start(l)
	}
	p := q.partition
	p.mu.Lock()
	if p.phase != routing {
		p.mu.Unlock()
		return
	}
	if p.epoch != q.epoch { // sought meanwhile
		p.mu.Unlock()
		r.route(p)
		return
	}
	if p.position < 0 {
		p.position = q.offset
	}
	p.offset, p.leader, p.phase = q.offset, l, queued
	p.mu.Unlock()
	l.enqueue(p)
}

// retry sends a partition to the router again, or fails it where the error is one that a retry
// does not mend.
func (f *Fetcher) retry(q question, err error) {
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
	p.failures++
	longest := movedRetry
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		longest = unknownRetry
	}
	wait := time.Duration(0)
	if p.failures > 1 {
		wait = min(firstRetry<<min(p.failures-2, 10), longest)
	}
	if p.failures == 2 || p.failures%32 == 0 { // one failure is an ordinary leader move
		f.log.Warn().Err(err).Str("topic", p.Topic).Int32("partition", p.Partition).Int("failures", p.failures).
			Msg("cannot fetch; trying again")
	}
	p.retryAt = time.Now().Add(wait)
	p.phase = routing
	f.route(p)
}

// outOfRange applies the policy.
func (f *Fetcher) outOfRange(q question) {
	p := q.partition
	f.metrics.OffsetResets.WithLabelValues(p.Topic, string(f.cfg.OffsetReset)).Inc()
	offset, err := f.resetOffset(p.TopicPartition, q.offset)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != q.epoch || p.phase != flying {
		return
	}
	if err != nil {
		p.failLocked(err)
		return
	}
	f.log.Warn().Str("topic", p.Topic).Int32("partition", p.Partition).Int64("offset", q.offset).
		Str("policy", string(f.cfg.OffsetReset)).Msg("the offset is not in the log any more; reading on by policy")
	p.offset, p.phase, p.retryAt = offset, routing, time.Time{}
	f.route(p)
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
