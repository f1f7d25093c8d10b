package httpapi

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/churnstream/churnstream/producer"
)

// submission is what one request publishes, all of it in one unit.
type submission struct {
	records     []producer.Record
	predictions []prediction
	done        chan error // nil: nobody waits; else with room for one
}

func (s *submission) len() int { return len(s.records) + len(s.predictions) }

// room is what it takes of the outbox; one that is larger than all of it waits until it is empty.
func (s *submission) room() int64 { return int64(min(s.len(), outboxRoom)) }

// outbox publishes submissions, in their order. While one unit is under way the next is gathered, so that a busy API
// pays one round trip for many requests.
type outbox struct {
	log   zerolog.Logger
	queue chan *submission
	room  *semaphore.Weighted // in records and predictions
	lost  func(records float64)
	// open begins to publish: at the start if eager, else at the first submission, and after each failure.
	open  func(context.Context) (ledger, error)
	eager bool
}

// ledger takes one unit after the other. After an error it is given up.
type ledger interface {
	write(context.Context, []*submission) error
	close(context.Context) error
}

// outboxRoom is how many records and predictions may wait. At 5,000 predictions a second it is three seconds of silence
// of the brokers.
const outboxRoom = 16384

// unitRecords and unitBytes bound one unit.
const (
	unitRecords = 4096
	unitBytes   = 4 << 20
)

func newOutbox(log zerolog.Logger, lost func(float64), open func(context.Context) (ledger, error)) *outbox {
	return &outbox{log: log, lost: lost, open: open, queue: make(chan *submission, outboxRoom), room: semaphore.NewWeighted(outboxRoom)}
}

// offer is false when there is no room.
func (o *outbox) offer(s *submission) bool {
	if !o.room.TryAcquire(s.room()) {
		return false
	}
	o.queue <- s // each submission has a record at least: there is a place
	return true
}

// wait is like offer but that it waits for room until ctx ends.
func (o *outbox) wait(ctx context.Context, s *submission) bool {
	if o.room.Acquire(ctx, s.room()) != nil {
		return false
	}
	o.queue <- s
	return true
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

// publishTimeout bounds one unit: what is not acknowledged then is told to those who wait.
const publishTimeout = 30 * time.Second

// run publishes until ended is closed and the queue is empty, for grace after that at most.
func (o *outbox) run(ctx context.Context, ended <-chan struct{}, grace time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ended:
			timer := time.AfterFunc(grace, cancel)
			<-ctx.Done()
			timer.Stop()
		case <-ctx.Done():
		}
	}()
	var open ledger
	defer func() {
		if open != nil {
			if err := open.close(ctx); err != nil {
				o.log.Warn().Err(err).Msg("the end of publishing")
			}
		}
	}()
	if o.eager { // what a killed predecessor has left open would hold back every reader
		if err := o.ready(ctx, &open); err != nil {
			o.log.Warn().Err(err).Msg("predictions cannot be published now")
		}
	}
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
		err := o.publish(ctx, &open, unit)
		records, room := 0, int64(0)
		for _, s := range unit {
			records, room = records+s.len(), room+s.room()
		}
		if err != nil {
			o.lost(float64(records))
			o.log.Error().Err(err).Int("records", records).Msg("records of requests could not be published")
		}
		for _, s := range unit {
			if s.done != nil {
				s.done <- err
			}
		}
		o.room.Release(room)
		clear(unit)
	}
}

func (o *outbox) gather(unit []*submission) []*submission {
	records, size := unit[0].len(), unit[0].size()
	for records < unitRecords && size < unitBytes {
		select {
		case s := <-o.queue:
			unit = append(unit, s)
			records, size = records+s.len(), size+s.size()
		default:
			return unit
		}
	}
	return unit
}

// size is an estimate, in bytes.
func (s *submission) size() int {
	n := 512 * len(s.predictions)
	for i := range s.records {
		n += len(s.records[i].Key) + len(s.records[i].Value)
	}
	return n
}

// publish makes one unit.
func (o *outbox) publish(ctx context.Context, open *ledger, unit []*submission) (err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := o.ready(ctx, open); err != nil {
		return err
	}
	if err = (*open).write(ctx, unit); err != nil {
		err = errors.Join(err, (*open).close(ctx))
		*open = nil
	}
	return err
}

// ready opens where nothing is open.
func (o *outbox) ready(ctx context.Context, open *ledger) (err error) {
	if *open != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if *open, err = o.open(ctx); err != nil {
		*open = nil
	}
	return err
}
