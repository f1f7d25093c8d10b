package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// Shared publishes the units of many partitions in common transactions, under one transactional id for the whole
// worker (KIP-447: the group's generation fences a former owner, not the transactional id). While one transaction is
// under way the units that become ready gather for the next, so that the cost of a transaction is spread over all of
// them, whatever the number of partitions.
//
// One goroutine, Run, owns the transactional producer; each unit belongs to the goroutine of its partition and is
// handed over in Commit.
type Shared struct {
	cfg             Config
	client          *kafkawire.Client
	transactionalID string
	begins          chan chan error
	commits         chan *sharedUnit
	aborts          chan *sharedUnit
	stopped         chan struct{} // closed when Run has ended
}

// ErrStopped says that the shared producer's Run has ended.
var ErrStopped = errors.New("the shared producer has stopped")

// NewShared returns a producer for the transactional id. It connects when the first unit begins.
func NewShared(cfg Config, client *kafkawire.Client, transactionalID string) (*Shared, error) {
	if _, err := NewTransactional(cfg, client, transactionalID); err != nil {
		return nil, err
	}
	return &Shared{
		cfg: cfg, client: client, transactionalID: transactionalID,
		begins: make(chan chan error), commits: make(chan *sharedUnit), aborts: make(chan *sharedUnit), stopped: make(chan struct{}),
	}, nil
}

// Publisher returns a publisher for one partition.
func (s *Shared) Publisher() (Publisher, error) {
	session, err := newSession(s.cfg, s.client, "")
	if err != nil {
		return nil, err
	}
	return &sharedUnit{session: session, shared: s, done: make(chan error, 1)}, nil
}

// sharedUnit is the unit of one partition.
type sharedUnit struct {
	session
	shared *Shared
	began  bool // the shared producer was initialised after this unit was made
	open   bool // between Begin and the end of the unit
	held   bool // in the open transaction, which waits for a new identity of the member

	// Of the commit that is handed over; read by Run until it answers on done.
	member  Member
	offsets []Offset
	done    chan error
}

var _ Publisher = (*sharedUnit)(nil)

// Begin implements Publisher. The first call makes sure that the transactional id is initialised, which ends what a
// predecessor of this worker left open.
func (u *sharedUnit) Begin(ctx context.Context) error {
	if u.open {
		return fmt.Errorf("begin of an open unit: %w", ErrState)
	}
	if !u.began {
		answer := make(chan error, 1)
		select {
		case u.shared.begins <- answer:
		case <-ctx.Done():
			return ctx.Err()
		case <-u.shared.stopped:
			return ErrStopped
		}
		select { // Run answers within its own limits
		case err := <-answer:
			if err != nil {
				return err
			}
		case <-u.shared.stopped:
			return ErrStopped
		}
		u.began = true
	}
	u.refreshTopics(ctx)
	u.open = true
	return nil
}

// Append implements Publisher.
func (u *sharedUnit) Append(r *Record) error {
	if !u.open || u.held {
		return fmt.Errorf("append to a unit that is not open: %w", ErrState)
	}
	return u.append(r)
}

// Commit implements Publisher. It returns when the transaction that took the unit has ended, within the limits of the
// configuration; ctx is looked at only before that.
func (u *sharedUnit) Commit(ctx context.Context, m Member, offsets []Offset) error {
	if !u.open {
		return fmt.Errorf("commit of a unit that is not open: %w", ErrState)
	}
	u.member, u.offsets = m, append(u.offsets[:0], offsets...)
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case u.shared.commits <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-u.shared.stopped:
		return ErrStopped
	}
	select {
	case err := <-u.done:
		u.held = errors.Is(err, ErrStaleMember)
		u.open = err != nil
		return err
	case <-u.shared.stopped:
		return ErrStopped
	}
}

// Abort implements Publisher. A unit that is part of the open transaction takes that down, for all its units.
func (u *sharedUnit) Abort(context.Context) error {
	u.records.reset()
	held := u.held
	u.open, u.held = false, false
	if held {
		select { // not bounded by a context: the other units wait for the answer
		case u.shared.aborts <- u:
		case <-u.shared.stopped:
		}
	}
	return nil
}

// Close implements Publisher.
func (u *sharedUnit) Close() error {
	err := u.Abort(context.Background())
	u.records = newAccumulator(u.cfg)
	return err
}

// Run owns the transactional producer until ctx ends. It returns nil; what goes wrong with a transaction is told to its
// units.
func (s *Shared) Run(ctx context.Context) error {
	r := sharedRun{Shared: s}
	defer close(s.stopped)
	defer r.drop()
	for {
		if len(r.waiting) > 0 {
			r.gather()
			r.transact(ctx)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case answer := <-s.begins:
			answer <- r.begin(ctx)
		case u := <-s.commits:
			r.arrive(u)
		case <-s.aborts: // of a transaction that has ended meanwhile
		}
	}
}

// sharedRun is what Run's goroutine owns.
type sharedRun struct {
	*Shared
	producer *Transactional // nil before the first Begin and after a failure that it did not survive
	waiting  []*sharedUnit  // for the next transaction
	units    []*sharedUnit  // of the open transaction
	offsets  []Offset       // of all of them
}

// begin initialises the producer unless it is.
func (r *sharedRun) begin(ctx context.Context) error {
	if r.producer != nil {
		return nil
	}
	fresh, err := NewTransactional(r.cfg, r.client, r.transactionalID)
	if err != nil {
		return err
	}
	if err := fresh.Begin(ctx); err != nil {
		return err
	}
	r.producer = fresh
	return nil
}

// arrive takes a unit that is to be committed. One that was held in a transaction that is no more has lost its records
// with it.
func (r *sharedRun) arrive(u *sharedUnit) {
	if u.held {
		u.done <- fmt.Errorf("the common transaction was aborted: %w", ErrAbortable)
		return
	}
	r.waiting = append(r.waiting, u)
}

// gather takes every other unit that is ready by now.
func (r *sharedRun) gather() {
	for {
		select {
		case u := <-r.commits:
			r.arrive(u)
		default:
			return
		}
	}
}

// transact ends one transaction with all waiting units and answers them.
func (r *sharedRun) transact(ctx context.Context) {
	r.units, r.waiting = append(r.units[:0], r.waiting...), r.waiting[:0]
	if r.producer == nil {
		r.answer(fmt.Errorf("the shared producer begins anew: %w", ErrAbortable))
		return
	}
	for _, u := range r.units {
		r.producer.records.takeFrom(&u.records)
	}
	err := r.commit(ctx)
	for errors.Is(err, ErrStaleMember) {
		r.answer(err)
		if !r.again(ctx) {
			err = fmt.Errorf("a unit of the common transaction was given up: %w", ErrAbortable)
			break
		}
		err = r.commit(ctx)
	}
	switch {
	case err == nil:
		r.answer(nil)
		err = r.producer.Begin(ctx) // the next transaction; asks the broker for nothing
	case errors.Is(err, ErrAbortable):
		r.answer(err)
		if err = r.producer.Abort(ctx); err == nil {
			err = r.producer.Begin(ctx)
		}
	default:
		_ = r.producer.Abort(ctx) // so that readers need not wait for the timeout
		r.answer(err)
	}
	if err != nil {
		r.drop()
	}
}

// commit sends everything in the name of the newest identity that the units brought.
func (r *sharedRun) commit(ctx context.Context) error {
	member := r.units[0].member
	r.offsets = r.offsets[:0]
	for _, u := range r.units {
		if u.member.Generation > member.Generation {
			member = u.member
		}
		r.offsets = append(r.offsets, u.offsets...)
	}
	return r.producer.Commit(ctx, member, r.offsets)
}

// again waits until every unit of the open transaction has called Commit with its new identity. It is false when one of
// them gave up; r.units then holds those that wait for their answer.
func (r *sharedRun) again(ctx context.Context) bool {
	returned := 0 // r.units[:returned] have called again
	for returned < len(r.units) {
		select {
		case u := <-r.commits:
			i := slices.Index(r.units, u)
			if i < 0 {
				r.arrive(u)
				continue
			}
			r.units[returned], r.units[i] = r.units[i], r.units[returned]
			returned++
		case u := <-r.aborts:
			if slices.Contains(r.units, u) {
				r.units = r.units[:returned] // the others learn it from arrive
				return false
			}
		case answer := <-r.begins:
			answer <- nil
		case <-ctx.Done():
			r.units = r.units[:returned]
			return false
		}
	}
	return true
}

func (r *sharedRun) answer(err error) {
	for _, u := range r.units {
		u.done <- err
	}
}

// drop closes a producer that is of no more use; the next Begin makes another.
func (r *sharedRun) drop() {
	if r.producer != nil {
		_ = r.producer.Close()
		r.producer = nil
	}
}
