package httpapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// Contract is a topic with the schema of its values and the subject that the schema is registered under.
type Contract struct{ Topic, Subject, Schema string }

// Kafka is what the API needs to publish events and to read scores.
type Kafka struct {
	Client    *kafkawire.Client
	Registry  schemas.Registry
	Events    Contract // the model's own; an empty topic: no events are taken
	Scores    Contract
	Audit     Contract  // of what is kept of each prediction; an empty topic: nothing is
	Counting  *Counting // of published predictions in drift; nil: they do not count
	Producing producer.Config
	// TransactionalPrefix is what the id of the transactions of predictions begins with; empty: they are published at
	// least once, and what is counted of them may differ from them after a failure.
	TransactionalPrefix string
	Fetching            consumer.FetchConfig
}

// kafkaSide follows the score topic into the store and publishes for requests.
type kafkaSide struct {
	deps    *Kafka
	log     zerolog.Logger
	server  *Server
	encoder *schemas.Encoder
	outbox  *outbox
	hub     *hub
	fetcher *consumer.Fetcher

	scoreID atomic.Int32 // 0: not registered yet
	eventID atomic.Int32
	stateID atomic.Int32
	auditID atomic.Int32
	known   atomic.Bool // all that predictions need is registered

	mu     sync.Mutex
	faults map[string]string // what keeps it from being ready, by part
}

func newKafkaSide(deps *Kafka, s *Server) (*kafkaSide, error) {
	k := &kafkaSide{
		deps: deps, log: s.log, server: s, hub: newHub(s.metrics.dropped.Inc),
		faults: map[string]string{partRegistry: "is not asked yet", partView: "is not read yet"},
	}
	var err error
	if k.encoder, err = schemas.NewEncoder(s.deps.Model.Contract()); err != nil {
		return nil, err
	}
	if k.fetcher, err = consumer.NewFetcher(deps.Fetching, deps.Client, s.log); err != nil {
		return nil, err
	}
	if err := deps.Producing.Validate(); err != nil {
		return nil, err
	}
	k.outbox = newOutbox(s.log, s.metrics.lost.Add, k.openLedger)
	k.outbox.eager = deps.TransactionalPrefix != "" && (s.cfg.PublishPredictions || deps.Audit.Topic != "")
	return k, nil
}

// The parts that readiness names.
const (
	partRegistry = "schema registry"
	partView     = "score topic"
)

func (k *kafkaSide) note(part string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.faults, part)
		return
	}
	if k.faults[part] != err.Error() {
		k.log.Warn().Err(err).Msg("the API waits for the " + part)
	}
	k.faults[part] = err.Error()
}

// waits names the parts that are not ready. The reasons are in the log: they hold addresses.
func (k *kafkaSide) waits() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var parts []string
	for _, part := range []string{partRegistry, partView} {
		if _, ok := k.faults[part]; ok {
			parts = append(parts, "the API waits for the "+part)
		}
	}
	return parts
}

// run works until ctx ends; what was submitted before is still published. An outage of Kafka or of the registry is
// waited for: predictions need neither.
func (k *kafkaSide) run(ctx context.Context, served <-chan struct{}, grace time.Duration) error {
	g, group := errgroup.WithContext(ctx)
	g.Go(func() error { k.register(group); return nil })
	g.Go(func() error {
		if err := k.fetcher.Run(group); err != nil && group.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		for attempt := 0; group.Err() == nil; attempt++ {
			if err := k.follow(group); group.Err() == nil {
				k.note(partView, err)
				pause(group, attempt)
			}
		}
		return nil
	})
	g.Go(func() error {
		k.outbox.run(context.WithoutCancel(ctx), served, grace) //nolint:contextcheck // it ends after the last request, which is after ctx
		return nil
	})
	return g.Wait()
}

// pause waits 100 ms, doubling to 5 s.
func pause(ctx context.Context, attempt int) {
	timer := time.NewTimer(min(100*time.Millisecond<<min(attempt, 6), 5*time.Second))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (k *kafkaSide) register(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := k.registerWritten(ctx)
		id := int32(0)
		if err == nil && k.deps.Events.Topic != "" {
			id, err = k.deps.Registry.Register(ctx, k.deps.Events.Subject, k.deps.Events.Schema)
		}
		switch {
		case err == nil:
			k.eventID.Store(id)
			k.note(partRegistry, nil)
			return
		case errors.Is(err, schemas.ErrIncompatible): // whose it is, is for its owner to say; asking again does not change it
			k.log.Warn().Err(err).Msg("POST /v1/events is off: the registry refuses the model's event contract")
			k.note(partRegistry, nil)
			return
		}
		k.note(partRegistry, err)
		pause(ctx, attempt)
	}
}

// registerWritten registers what predictions are written with.
func (k *kafkaSide) registerWritten(ctx context.Context) error {
	if k.known.Load() {
		return nil
	}
	type contract struct {
		of Contract
		id *atomic.Int32
	}
	list := []contract{{k.deps.Scores, &k.scoreID}}
	if k.deps.Audit.Topic != "" {
		list = append(list, contract{k.deps.Audit, &k.auditID})
	}
	if k.deps.Counting != nil {
		list = append(list, contract{k.deps.Counting.States, &k.stateID})
	}
	for _, c := range list {
		id, err := k.deps.Registry.Register(ctx, c.of.Subject, c.of.Schema)
		if errors.Is(err, schemas.ErrIncompatible) {
			return fmt.Errorf("register %s: %v", c.of.Subject, err) //nolint:errorlint // an incompatible event contract is borne, this is not
		}
		if err != nil {
			return err
		}
		c.id.Store(id)
	}
	k.known.Store(true)
	return nil
}

// follow takes the score topic into the store, from where the store is on, until ctx ends or something fails.
func (k *kafkaSide) follow(ctx context.Context) error {
	store, topic := k.server.store, k.deps.Scores.Topic
	if err := store.follow(topic); err != nil {
		return err
	}
	first, err := tail.Starts(ctx, k.deps.Client, topic, consumer.Earliest)
	if err != nil {
		return err
	}
	ends, err := tail.Starts(ctx, k.deps.Client, topic, consumer.Latest)
	if err != nil {
		return err
	}
	starts, err := k.starts(first, ends)
	if err != nil {
		return err
	}
	if err := store.expire(offsets(first)); err != nil {
		return err
	}
	behind := map[consumer.TopicPartition]int64{} // where the view counts as caught up
	for tp, end := range ends {
		if starts[tp] < end {
			behind[tp] = end
		}
	}
	if len(behind) == 0 {
		k.note(partView, nil)
	} else {
		k.note(partView, errors.New("is being read"))
	}
	expiry := time.Now().Add(expireEvery)
	return tail.Follow(ctx, k.fetcher, starts, func(b *consumer.Batch) error {
		if err := store.apply(b, scoreBody); err != nil {
			return fmt.Errorf("store the scores of %s: %w", b.TopicPartition, err)
		}
		k.server.metrics.viewed.Add(float64(len(b.Records)))
		if len(behind) == 0 {
			k.hub.publish(b)
		} else if end, ok := behind[b.TopicPartition]; ok && b.Next >= end {
			if delete(behind, b.TopicPartition); len(behind) == 0 {
				k.note(partView, nil)
			}
		}
		if time.Now().After(expiry) {
			expiry = time.Now().Add(expireEvery)
			first, err := tail.Starts(ctx, k.deps.Client, topic, consumer.Earliest)
			if err != nil {
				return err
			}
			return store.expire(offsets(first))
		}
		return nil
	})
}

// expireEvery is how often scores are removed that the topic has no more.
const expireEvery = time.Hour

// starts gives the store's positions. Those that the topic cannot have mean that it is another topic of the same name:
// all is read anew.
func (k *kafkaSide) starts(first, ends map[consumer.TopicPartition]int64) (map[consumer.TopicPartition]int64, error) {
	starts := make(map[consumer.TopicPartition]int64, len(first))
	for tp, at := range first {
		position, err := k.server.store.position(tp.Partition)
		if err != nil {
			return nil, err
		}
		if position > ends[tp] {
			k.log.Warn().Str("partition", tp.String()).Int64("position", position).Int64("end", ends[tp]).
				Msg("the score topic is not the one that the store was made of; it is read anew")
			return first, k.server.store.forgetAll(tp.Topic)
		}
		starts[tp] = max(at, position)
	}
	return starts, nil
}

func offsets(of map[consumer.TopicPartition]int64) map[int32]int64 {
	list := make(map[int32]int64, len(of))
	for tp, at := range of {
		list[tp.Partition] = at
	}
	return list
}

// scoreBody takes the framing from a score's value. What is no score is left out: the topic may hold others' records.
func scoreBody(value []byte) ([]byte, bool) {
	_, body, err := schemas.SplitFrame(value)
	if err != nil {
		return nil, false
	}
	var s schemas.Score
	return body, schemas.DecodeScore(body, &s) == nil
}

// publishPrediction hands a prediction on, without waiting for its publication. It is false where there is no room: the
// outbox is as far behind as may be.
func (k *kafkaSide) publishPrediction(p prediction) bool {
	if !k.known.Load() || !k.outbox.offer(&submission{predictions: []prediction{p}}) {
		return false
	}
	k.server.metrics.published.WithLabelValues("prediction").Inc()
	return true
}

// publishPredictions is like publishPrediction for many, and waits for room until ctx ends.
func (k *kafkaSide) publishPredictions(ctx context.Context, list []prediction) bool {
	if !k.known.Load() || !k.outbox.wait(ctx, &submission{predictions: list}) {
		return false
	}
	k.server.metrics.published.WithLabelValues("prediction").Add(float64(len(list)))
	return true
}

func traceHeaders(x *exchange) []producer.Header {
	if x == nil {
		return nil
	}
	return []producer.Header{{Key: "traceparent", Value: []byte(x.traceparent())}}
}
