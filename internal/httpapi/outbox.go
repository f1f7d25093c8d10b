package httpapi

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
)

// submission is what one request publishes, all of it in one unit.
type submission struct {
	records []producer.Record
	done    chan error // nil: nobody waits; else with room for one
}

// outbox publishes submissions, acks=all and idempotent. While one unit is under way the next is gathered, so that a
// busy API pays one round trip for many requests.
type outbox struct {
	cfg    producer.Config
	client *kafkawire.Client
	log    zerolog.Logger
	queue  chan *submission
	lost   func(records float64) // counts those that could not be published
}

// outboxRoom is how many submissions may wait. At 5,000 predictions a second it is a second and a half of silence of
// the brokers.
const outboxRoom = 8192

// unitSubmissions and unitBytes bound one unit.
const (
	unitSubmissions = 4096
	unitBytes       = 4 << 20
)

func newOutbox(cfg producer.Config, client *kafkawire.Client, log zerolog.Logger, lost func(float64)) (*outbox, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &outbox{cfg: cfg, client: client, log: log, lost: lost, queue: make(chan *submission, outboxRoom)}, nil
}

// offer is false when there is no room.
func (o *outbox) offer(s *submission) bool {
	select {
	case o.queue <- s:
		return true
	default:
		return false
	}
}

var errBusy = errors.New("the outbox is full")

// submit publishes and waits for the acknowledgement. After the end of ctx it is unknown whether the records were or
// will be published.
func (o *outbox) submit(ctx context.Context, records []producer.Record) error {
	s := &submission{records: records, done: make(chan error, 1)}
	if !o.offer(s) {
		return errBusy
	}
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run publishes until ended is closed and the queue is empty.
func (o *outbox) run(ctx context.Context, ended <-chan struct{}) {
	var publisher *producer.Idempotent
	var unit []*submission
	for {
		unit = unit[:0]
		select {
		case s := <-o.queue:
			unit = append(unit, s)
		case <-ended:
			select {
			case s := <-o.queue:
				unit = append(unit, s)
			default:
				return
			}
		}
		unit = o.gather(unit)
		err := o.publish(ctx, &publisher, unit)
		if err != nil {
			lost := 0
			for _, s := range unit {
				lost += len(s.records)
			}
			o.lost(float64(lost))
			o.log.Error().Err(err).Int("records", lost).Msg("records of requests could not be published")
		}
		for _, s := range unit {
			if s.done != nil {
				s.done <- err
			}
		}
		clear(unit)
	}
}

func (o *outbox) gather(unit []*submission) []*submission {
	size := unit[0].size()
	for len(unit) < unitSubmissions && size < unitBytes {
		select {
		case s := <-o.queue:
			unit = append(unit, s)
			size += s.size()
		default:
			return unit
		}
	}
	return unit
}

func (s *submission) size() (n int) {
	for i := range s.records {
		n += len(s.records[i].Key) + len(s.records[i].Value)
	}
	return n
}

// publishTimeout bounds one unit: what is not acknowledged then is told to those who wait.
const publishTimeout = 30 * time.Second

// publish makes one unit. A producer that failed for good is replaced.
func (o *outbox) publish(ctx context.Context, publisher **producer.Idempotent, unit []*submission) (err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if *publisher == nil {
		if *publisher, err = producer.NewIdempotent(o.cfg, o.client); err != nil {
			return err
		}
	}
	p := *publisher
	defer func() {
		if err != nil && (!errors.Is(err, producer.ErrAbortable) || p.Abort(ctx) != nil) {
			*publisher = nil
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.Begin(ctx); err != nil {
		return err
	}
	for _, s := range unit {
		for i := range s.records {
			if err := p.Append(&s.records[i]); err != nil {
				return err
			}
		}
	}
	return p.Commit(ctx, producer.Member{}, nil)
}
