package producer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// Idempotent publishes units at least once: records first, with an idempotent producer id and acks=all, so that a
// repeated request doubles nothing; the offsets after every record is acknowledged. A crash between the two, or an
// Abort, publishes the unit's records again.
//
// It belongs to one goroutine.
type Idempotent struct {
	session
	open      bool // between Begin and the end of the unit
	needAbort bool
	cause     error // set: nothing leads on

	initOp, offsetsOp operation
	initRequest       kafkawire.Request
	offsetsRequest    kafkawire.Request
	offsets           []Offset // scratch: grouped by topic
}

var _ Publisher = (*Idempotent)(nil)

// NewIdempotent returns an at-least-once publisher. It does not connect; the first Begin does.
func NewIdempotent(cfg Config, client *kafkawire.Client) (*Idempotent, error) {
	s, err := newSession(cfg, client, "")
	if err != nil {
		return nil, err
	}
	s.produceVersion = versionRange{3, 11}
	return &Idempotent{
		session:   s,
		initOp:    operation{name: "initialise", object: "idempotent producer", topicRight: "WRITE"},
		offsetsOp: operation{name: "commit offsets of", topicRight: "READ"},
	}, nil
}

// Begin implements Publisher.
func (p *Idempotent) Begin(ctx context.Context) error {
	if p.open || p.cause != nil {
		return p.refuse("begin")
	}
	if p.id.ID < 0 {
		if err := p.initialise(ctx, p.limit()); err != nil {
			return p.failed(err)
		}
	}
	p.refreshTopics(ctx)
	p.open = true
	return nil
}

// Append implements Publisher.
func (p *Idempotent) Append(r *Record) error {
	if !p.open || p.needAbort || p.cause != nil {
		return p.refuse("append")
	}
	return p.append(r)
}

// Commit implements Publisher.
func (p *Idempotent) Commit(ctx context.Context, m Member, offsets []Offset) error {
	if !p.open || p.needAbort || p.cause != nil {
		return p.refuse("commit")
	}
	start := time.Now()
	if p.records.records == 0 && len(offsets) == 0 {
		p.finish()
		p.metrics.transactions.WithLabelValues(resultEmpty).Inc()
		return nil
	}
	limit := p.limit()
	err := p.produceAll(ctx, limit)
	if err == nil && len(offsets) > 0 {
		err = p.commitOffsets(ctx, limit, m, offsets)
	}
	if err != nil {
		return p.failed(err)
	}
	p.finish()
	p.metrics.committed.Inc()
	p.metrics.commitSeconds.Observe(time.Since(start).Seconds())
	return nil
}

// Abort implements Publisher. Records that were acknowledged stay published.
func (p *Idempotent) Abort(context.Context) error {
	if !p.open {
		return nil
	}
	if p.needAbort || p.records.inDoubt() {
		p.id = ProducerIdentity{ID: -1, Epoch: -1} // its sequences are unknown: the next Begin asks for another id
	}
	p.finish()
	p.metrics.aborted.Inc()
	return nil
}

// Close implements Publisher.
func (p *Idempotent) Close() error {
	if p.cause == nil {
		p.cause = errors.New("closed")
	}
	p.records = newAccumulator(p.cfg)
	p.open = false
	return nil
}

func (p *Idempotent) finish() {
	p.records.reset()
	p.open, p.needAbort = false, false
}

// failed notes what err leads to and counts it. Nobody else can own an idempotent producer id, so that a fenced one
// has merely expired: another id goes on.
func (p *Idempotent) failed(err error) error {
	var e *Error
	if errors.As(err, &e) && e.verdict == fenced {
		e.verdict = abortable
	}
	result := resultFatal
	switch {
	case errors.Is(err, ErrStaleMember):
		result = resultStaleMember
	case errors.Is(err, ErrAbortable):
		result = resultAbortable
		p.needAbort = p.open
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		result = resultInterrupted
	default:
		p.cause = err
	}
	p.metrics.transactions.WithLabelValues(result).Inc()
	return err
}

func (p *Idempotent) refuse(method string) error {
	switch {
	case p.cause != nil:
		return fmt.Errorf("%s: %w: %w", method, ErrState, p.cause)
	case p.needAbort:
		return fmt.Errorf("%s: %w: the unit must be aborted first", method, ErrState)
	case p.open:
		return fmt.Errorf("%s: %w: a unit is open", method, ErrState)
	default:
		return fmt.Errorf("%s: %w: no unit is open", method, ErrState)
	}
}

func (p *Idempotent) initialise(ctx context.Context, limit time.Time) error {
	err := p.persist(ctx, limit, p.initOp, func() {}, func(ctx context.Context) error {
		version, err := p.version(ctx, kafkawire.AnyBroker, protocol.InitProducerId, versionRange{0, 5})
		if err != nil {
			return err
		}
		var code int16
		var id ProducerIdentity
		r := &p.initRequest
		r.Key, r.Version, r.FlexibleFrom, r.Broker = protocol.InitProducerId, version, 2, kafkawire.AnyBroker
		r.Encode = func(w *kafkawire.Writer) {
			encodeInitProducerID(w, version, "", math.MaxInt32*time.Millisecond, ProducerIdentity{ID: -1, Epoch: -1})
		}
		r.Decode = func(r *kafkawire.Reader) error {
			code, id = decodeInitProducerID(r)
			return nil
		}
		if err := p.client.Do(ctx, r); err != nil {
			return err
		}
		if err := p.initOp.refused(code); err != nil {
			return err
		}
		p.id = id
		return nil
	})
	if err != nil {
		return err
	}
	p.records.restartSequences()
	return nil
}

// commitOffsets sends OffsetCommit: v9 where the broker has it, which groups of the KIP-848 protocol demand.
func (p *Idempotent) commitOffsets(ctx context.Context, limit time.Time, m Member, offsets []Offset) error {
	op := p.offsetsOp
	op.group = m.Group
	op.object = "group " + m.Group
	p.offsets = groupOffsets(p.offsets[:0], offsets)
	forget := func() { p.client.ForgetCoordinator(kafkawire.Group, m.Group) }
	return p.persist(ctx, limit, op, forget, func(ctx context.Context) error {
		broker, err := p.client.Coordinator(ctx, kafkawire.Group, m.Group)
		if err != nil {
			return err
		}
		version, err := p.version(ctx, broker, protocol.OffsetCommit, versionRange{7, 9})
		if err != nil {
			return err
		}
		var worst error
		r := &p.offsetsRequest
		r.Key, r.Version, r.FlexibleFrom, r.Broker = protocol.OffsetCommit, version, 8, broker
		r.Encode = func(w *kafkawire.Writer) {
			w.String(m.Group)
			w.Int32(m.Generation)
			w.String(m.MemberID)
			w.NullableString(m.InstanceID)
			encodeOffsets(w, p.offsets)
			w.Tags()
		}
		r.Decode = func(r *kafkawire.Reader) error {
			worst = decodePartitionCodes(r, op)
			return nil
		}
		if err := p.client.Do(ctx, r); err != nil {
			return err
		}
		return worst
	})
}
