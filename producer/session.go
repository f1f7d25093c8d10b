package producer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// partitionRefreshInterval is how often the partition counts of known topics are looked at.
const partitionRefreshInterval = time.Minute

// unknownTopicTimeout bounds the wait for a topic that the brokers do not know: long enough for one that is being
// created, short enough to name a missing one.
const unknownTopicTimeout = 5 * time.Second

// session is what both publishers share: the producer id, the unit's records, and requests that are repeated in
// place.
type session struct {
	cfg     Config
	client  *kafkawire.Client
	metrics *Metrics

	id              ProducerIdentity
	transactionalID string // empty: none
	records         accumulator
	refreshed       time.Time     // partition counts
	unknownTopic    time.Duration // unknownTopicTimeout

	produceOp      operation
	produceRequest kafkawire.Request
	produceVersion versionRange
	sending        []*partitionBuffer // one batch of each is in the Produce request being sent
	next           int                // index in sending of the answer that is expected next
	topics         []string           // scratch
	throttled      time.Time          // until when a quota wants nothing to be sent
}

// versionRange is what a protocol wants of one API: at most newest, at least oldest.
type versionRange struct{ oldest, newest int16 }

func newSession(cfg Config, client *kafkawire.Client, transactionalID string) (session, error) {
	var faults []error
	if client == nil {
		faults = append(faults, errors.New("client: is nil, must be a *kafkawire.Client"))
	}
	faults = append(faults, cfg.Validate())
	if err := errors.Join(faults...); err != nil {
		return session{}, fmt.Errorf("producer: %w", err)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	return session{
		cfg: cfg, client: client, metrics: cfg.Metrics, transactionalID: transactionalID,
		id: ProducerIdentity{ID: -1, Epoch: -1}, records: newAccumulator(cfg),
		unknownTopic: unknownTopicTimeout,
		produceOp:    operation{name: "produce", object: "records", topicRight: "WRITE", transactionalID: transactionalID},
	}, nil
}

// append adds a record to the unit. A topic seen for the first time is looked up, within RequestTimeout.
func (s *session) append(r *Record) error {
	t := s.records.topic(r.Topic)
	if t == nil {
		var err error
		if t, err = s.lookUp(r.Topic); err != nil {
			return err
		}
	}
	return s.records.append(t, r)
}

// Buffered implements Publisher.
func (s *session) Buffered() int { return s.records.bytes }

//nolint:contextcheck // Append has no context
func (s *session) lookUp(topic string) (*topicBuffer, error) {
	// Append has no context; the second half of the time lets an attempt that began within the limit end by itself.
	ctx, cancel := context.WithTimeout(context.Background(), 2*s.cfg.RequestTimeout)
	defer cancel()
	op := operation{name: "look up", object: topic, topic: topic, topicRight: "DESCRIBE"}
	var partitions int32
	err := s.persist(ctx, time.Now().Add(s.cfg.RequestTimeout), op, s.client.ForgetMetadata, func(ctx context.Context) (err error) {
		partitions, err = s.client.Partitions(ctx, topic)
		if err == nil && partitions == 0 {
			return op.refused(codeLeaderNotAvailable)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.records.learn(topic, partitions), nil
}

// refreshTopics looks at grown topics, and at those that take smaller batches than was thought, between two units.
func (s *session) refreshTopics(ctx context.Context) {
	s.records.refreshLimits()
	if now := time.Now(); now.Sub(s.refreshed) >= partitionRefreshInterval {
		s.refreshed = now
		s.records.refreshPartitions(ctx, s.client.Partitions)
	}
}

// limit is the end of the repetitions of a call that starts now.
func (s *session) limit() time.Time { return time.Now().Add(s.cfg.retryTimeout()) }

// persist calls attempt until it succeeds, fails in a way that no repetition mends, or limit passes; the last makes
// the unit abortable. It calls forget where the leader or coordinator may have moved. Each attempt has RequestTimeout.
func (s *session) persist(ctx context.Context, limit time.Time, op operation, forget func(), attempt func(context.Context) error) error {
	start := time.Now()
	backoff := s.cfg.RetryBackoff
	for tries := 1; ; tries++ {
		err := s.attempt(ctx, attempt)
		if err == nil {
			return nil
		}
		e := op.failed(err)
		if cause := ctx.Err(); cause != nil {
			return fmt.Errorf("%s %s: %w (%w)", op.name, op.object, cause, noVerdict{e})
		}
		if e.verdict != repeat && e.verdict != repeatElsewhere {
			return e
		}
		now := time.Now()
		wait := time.Duration(float64(backoff) * (0.75 + 0.5*rand.Float64()))
		if e.Code == codeUnknownTopicOrPartition && now.Sub(start) > s.unknownTopic {
			e.verdict = fatal
			return e
		}
		if now.Add(wait).After(limit) {
			e.verdict = abortable
			e.Remedy = fmt.Sprintf("gave up after %d attempts in %v", tries, now.Sub(start).Round(time.Millisecond))
			return e
		}
		if e.verdict == repeatElsewhere {
			forget()
		}
		s.metrics.retries.WithLabelValues(op.name, retryLabel(e.Code)).Inc()
		if s.cfg.OnRetry != nil {
			s.cfg.OnRetry(Retry{Err: e, Attempts: tries, Since: start, At: now})
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("%s %s: %w (%w)", op.name, op.object, err, noVerdict{e})
		}
		backoff = min(2*backoff, s.cfg.MaxRetryBackoff)
	}
}

func (s *session) attempt(ctx context.Context, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	return attempt(ctx)
}

// noVerdict shows an error beside the end of the caller's context without its sentinel: the unit is interrupted, not
// lost.
type noVerdict struct{ error }

func retryLabel(code int16) string {
	if code == 0 {
		return "NETWORK"
	}
	return codeName(code)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// version negotiates one API with one broker.
func (s *session) version(ctx context.Context, broker int32, key protocol.ApiKey, want versionRange) (int16, error) {
	versions, err := s.client.Versions(ctx, broker)
	if err != nil {
		return 0, err
	}
	version, err := versions.Max(key, want.newest)
	if err != nil {
		return 0, err
	}
	if version < want.oldest {
		return 0, &Error{
			Operation: "negotiate", Object: "broker " + strconv.Itoa(int(broker)), Code: codeUnsupportedVersion,
			Remedy:  fmt.Sprintf("%v: the broker speaks up to v%d, v%d is needed", key, version, want.oldest),
			verdict: fatal,
		}
	}
	return version, nil
}

// produceAll sends every waiting batch: one Produce request at a time, with at most one batch a partition. Two
// requests in flight for one producer id make the broker's verification of the transaction fail (seen as
// NOT_ENOUGH_REPLICAS on Kafka 4), and one at a time keeps sequences in order without a window.
func (s *session) produceAll(ctx context.Context, limit time.Time) error {
	if err := s.records.sealAll(0); err != nil {
		return err
	}
	for s.records.pending() {
		if err := s.persist(ctx, limit, s.produceOp, s.client.ForgetMetadata, s.produceNext); err != nil {
			return err
		}
	}
	return nil
}

// produceNext sends one request to one leader and returns the worst of its partitions' errors. Accepted batches are
// behind it either way.
func (s *session) produceNext(ctx context.Context) error {
	// The broker would leave the request unread for so long. Waiting here does not count against its answer's time.
	if err := sleep(ctx, min(time.Until(s.throttled), s.cfg.RequestTimeout/2)); err != nil {
		return err
	}
	leader, err := s.gather(ctx)
	if err != nil {
		return err
	}
	version, err := s.version(ctx, leader, protocol.Produce, s.produceVersion)
	if err != nil {
		return err
	}
	encoded := 0
	for _, p := range s.sending {
		p.inDoubt, p.answered = true, false
		encoded += p.batches[p.sent].wireSize()
	}
	var worst error
	r := &s.produceRequest
	r.Key, r.Version, r.FlexibleFrom, r.Broker = protocol.Produce, version, 9, leader
	r.Encode = func(w *kafkawire.Writer) { s.encodeProduce(w, encoded) }
	r.Decode = func(r *kafkawire.Reader) error {
		worst = s.decodeProduce(r, version)
		return nil
	}
	sent := time.Now()
	if err := s.client.Do(ctx, r); err != nil {
		return err
	}
	s.metrics.produceSeconds.Observe(time.Since(sent).Seconds())
	return worst
}

// gather picks the first waiting batch of every partition of one leader, up to MaxRequestBytes, into s.sending,
// grouped by topic.
func (s *session) gather(ctx context.Context) (leader int32, err error) {
	s.topics = s.topics[:0]
	for _, p := range s.records.touched {
		if p.sent < len(p.batches) && !slices.Contains(s.topics, p.topic.name) {
			s.topics = append(s.topics, p.topic.name)
		}
	}
	metadata, err := s.client.Metadata(ctx, s.topics)
	if err != nil {
		return 0, err
	}
	leader = -1
	s.sending = s.sending[:0]
	size := 0
	var leaderless error
	for _, name := range s.topics {
		topic := metadata.Topics[name]
		for _, p := range s.records.touched {
			if p.topic.name != name || p.sent == len(p.batches) {
				continue
			}
			op := s.produceOp.on(name, p.partition)
			if topic.Err != nil {
				return 0, op.failed(topic.Err)
			}
			if int(p.partition) >= len(topic.Partitions) {
				return 0, op.refused(codeUnknownTopicOrPartition)
			}
			of := topic.Partitions[p.partition].Leader
			if of < 0 {
				leaderless = op.refused(codeLeaderNotAvailable)
				continue
			}
			batch := p.batches[p.sent]
			if leader < 0 {
				leader = of
			}
			if of == leader && (len(s.sending) == 0 || size+batch.wireSize() <= s.cfg.maxRequestBytes()) {
				s.sending = append(s.sending, p)
				size += batch.wireSize()
			}
		}
	}
	if leader < 0 {
		return 0, leaderless
	}
	return leader, nil
}
