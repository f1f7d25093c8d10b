package httpapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/driftstate"
	"github.com/churnstream/churnstream/internal/tail"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// Counting is how published predictions count in drift: as one more partition of the population, beside those of the
// stream.
type Counting struct {
	Profile *drift.Profile
	Window  drift.WindowConfig
	States  Contract       // the topic that the watcher reads
	Metrics *drift.Metrics // nil: none
}

// prediction is one that is to be published. It holds copies: the request may have ended.
type prediction struct {
	at         int64 // ms since 1970
	customer   []byte
	outcome    *outcome
	numbers    []float64
	categories [][]byte
	requestID  string
	traceID    string
	principal  string
	headers    []producer.Header
}

// newPrediction copies what the request holds of a row.
func newPrediction(x *exchange, at int64, customer []byte, o *outcome, numbers []float64, categories [][]byte) prediction {
	p := prediction{
		at: at, outcome: o, numbers: append([]float64(nil), numbers...), categories: make([][]byte, len(categories)),
		requestID: x.requestID, traceID: x.traceID, principal: "none", headers: traceHeaders(x),
	}
	if x.principal != nil {
		p.principal = x.principal.shown
	}
	size := len(customer)
	for _, c := range categories {
		size += len(c)
	}
	text := append(make([]byte, 0, size), customer...)
	p.customer = text[:len(customer):len(customer)]
	for i, c := range categories {
		if c != nil { // empty is not missing
			start := len(text)
			text = append(text, c...)
			p.categories[i] = text[start:len(text):len(text)]
		}
	}
	return p
}

// predictionLedger publishes predictions with what is counted of them, a unit a transaction: the counts of the state
// topic are those of the scores in the score topic, whatever fails when. The source of a prediction is this store, its
// offset a number of the store's sequence; both identify the score as topic, partition and offset do for an event. So
// no event that the stream scored is counted here, and no prediction twice.
type predictionLedger struct {
	k         *kafkaSide
	publisher producer.Publisher
	source    string
	counts    *drift.Accumulator // nil: nothing is counted
	states    driftstate.Writer
	value     []byte
	inputs    []byte
}

// openLedger takes up the counts where the last commit left them. The transactions of another server that has this one's
// store are ended, and it cannot publish from then on.
func (k *kafkaSide) openLedger(ctx context.Context) (ledger, error) {
	l := &predictionLedger{k: k, source: "http-" + k.server.store.name}
	var err error
	if prefix := k.deps.TransactionalPrefix; prefix != "" && k.server.publishes() {
		l.publisher, err = producer.NewTransactional(k.deps.Producing, k.deps.Client, prefix+k.server.store.name)
	} else {
		l.publisher, err = producer.NewIdempotent(k.deps.Producing, k.deps.Client)
	}
	if err != nil {
		return nil, err
	}
	if err := l.publisher.Begin(ctx); err != nil {
		return nil, errors.Join(err, l.publisher.Close())
	}
	if k.deps.Counting != nil && k.server.cfg.PublishPredictions {
		if err := l.restore(ctx); err != nil {
			return nil, errors.Join(err, l.close(ctx))
		}
	}
	return l, nil
}

func (l *predictionLedger) restore(ctx context.Context) error {
	c := l.k.deps.Counting
	partitions, err := tail.Starts(ctx, l.k.deps.Client, c.States.Topic, consumer.Earliest)
	if err != nil {
		return err
	}
	at := consumer.TopicPartition{Topic: c.States.Topic, Partition: int32(xxhash.Sum64String(l.source) % uint64(len(partitions)))}
	l.states = driftstate.Writer{Topic: at.Topic, Partition: at.Partition}
	model := l.k.server.deps.Model
	counts, err := drift.NewAccumulator(c.Profile, model.Contract(), c.Window, drift.Source{ModelDigest: model.Digest(), Topic: l.source}, c.Metrics)
	if err != nil {
		return err
	}
	var state schemas.DriftState
	give := func(r *consumer.Record, state *schemas.DriftState) error {
		if state == nil {
			counts.Deleted(r.Key)
			return nil
		}
		return counts.Restore(state)
	}
	tell := func(r *consumer.Record, err error) { // it must not stop the predictions
		l.k.log.Error().Err(err).Str("partition", at.String()).Int64("offset", r.Offset).Msg("a drift state cannot be restored and does not count")
	}
	_, err = tail.ReadPartition(ctx, l.k.deps.Client, l.k.fetcher, at, func(b *consumer.Batch) error {
		driftstate.Each(b, &state, give, tell)
		return nil
	})
	l.counts = counts
	return err
}

// write implements ledger.
func (l *predictionLedger) write(ctx context.Context, unit []*submission) error {
	predictions := 0
	for _, s := range unit {
		predictions += len(s.predictions)
	}
	next, err := l.k.server.store.sequence(predictions)
	if err != nil {
		return err
	}
	now := l.k.server.now().UnixMilli()
	if l.counts != nil {
		l.counts.SetClock(now)
	}
	for _, s := range unit {
		for i := range s.records {
			if err := l.publisher.Append(&s.records[i]); err != nil {
				return err
			}
		}
		for i := range s.predictions {
			if err := l.append(&s.predictions[i], next); err != nil {
				return err
			}
			next++
		}
	}
	if err := l.appendCounts(now); err != nil {
		return err
	}
	if err := l.publisher.Commit(ctx, producer.Member{}, nil); err != nil {
		return err
	}
	if l.counts != nil {
		l.counts.Commit()
	}
	return l.publisher.Begin(ctx) // the next unit; asks the broker for nothing
}

// append writes the score of a prediction and its audit record, and counts it.
func (l *predictionLedger) append(p *prediction, offset int64) error {
	model, o := l.k.server.deps.Model, p.outcome
	if l.k.server.cfg.PublishPredictions {
		score := schemas.Score{
			CustomerID: p.customer, SourceTopic: l.source, SourceOffset: offset, EventTime: p.at, ScoredAt: p.at,
			ModelName: model.Name(), ModelVersion: model.Version(), ModelDigest: model.Digest(), Variant: "champion",
			Probability: o.probability, Margin: o.margin, Threshold: model.Threshold(), Churn: o.churn,
			Reasons: o.reasons, Missing: o.missing, Unseen: o.unseen,
		}
		l.value = score.AppendAvro(schemas.AppendFrame(l.value[:0], l.k.scoreID.Load()))
		if err := l.publish(l.k.deps.Scores.Topic, p, l.value); err != nil {
			return err
		}
		if l.counts != nil {
			l.counts.Observe(drift.Event{Offset: offset, Time: p.at, Key: p.customer, Numbers: p.numbers, Categories: p.categories, Probability: o.probability})
		}
	}
	if l.k.deps.Audit.Topic == "" {
		return nil
	}
	var err error
	if l.inputs, err = model.Contract().AppendJSON(l.inputs[:0], p.numbers, p.categories); err != nil {
		return fmt.Errorf("audit record: %w", err)
	}
	audit := schemas.Audit{
		At: p.at, RequestID: p.requestID, TraceID: p.traceID, Principal: p.principal, CustomerID: p.customer, SourceTopic: l.source, SourceOffset: offset,
		ModelName: model.Name(), ModelVersion: model.Version(), ModelDigest: model.Digest(),
		Probability: o.probability, Threshold: model.Threshold(), Churn: o.churn, Inputs: l.inputs,
	}
	l.value = audit.AppendAvro(schemas.AppendFrame(l.value[:0], l.k.auditID.Load()))
	return l.publish(l.k.deps.Audit.Topic, p, l.value)
}

func (l *predictionLedger) publish(topic string, p *prediction, value []byte) error {
	return l.publisher.Append(&producer.Record{Topic: topic, Partition: -1, Timestamp: p.at, Key: p.customer, Value: value, Headers: p.headers})
}

// appendCounts writes the absolute counts of every bucket that this unit touched.
func (l *predictionLedger) appendCounts(now int64) error {
	if l.counts == nil {
		return nil
	}
	l.states.SchemaID = l.k.stateID.Load()
	return l.states.Append(l.publisher, l.counts, now)
}

// close implements ledger. It ends what is open, so that readers do not wait for it.
func (l *predictionLedger) close(ctx context.Context) error {
	return errors.Join(l.publisher.Abort(ctx), l.publisher.Close())
}
