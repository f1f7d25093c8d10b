package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// Shared publishes the units of many partitions together: in common transactions, under one transactional id for the
// whole worker (KIP-447: the group's generation fences a former owner of a partition, not the transactional id), or at
// least once by one idempotent producer. While one transaction is under way the units that become ready gather for the
// next, so that the cost of a transaction is spread over all of them, whatever the number of partitions. What is said
// of transactions here holds for the common Produce requests and offset commits of at-least-once as well.
//
// One goroutine, Run, owns the producer; each unit belongs to the goroutine of its partition, and to Run
// from the moment that Commit hands it over until Run answers. All units of a transaction share its fate: each of them
// gets the error that ended it. That includes ErrFenced and a fatal error, such as a record that is larger than its
// topic allows.
//
// A partition must stay with the member while its unit is in Commit: give it back only after Commit has returned.
type Shared struct {
	cfg     Config
	client  *kafkawire.Client
	fresh   func() (common, error)
	begins  chan chan error
	commits chan *sharedUnit
	stopped chan struct{} // closed when Run has ended
}

// common is the producer that publishes for all.
type common interface {
	Publisher
	buffer() *accumulator
	rest(ctx context.Context) error // until the next unit may begin
}

func (t *Transactional) buffer() *accumulator           { return &t.records }
func (t *Transactional) rest(ctx context.Context) error { return t.protocol.rest(ctx) }
func (p *Idempotent) buffer() *accumulator              { return &p.records }
func (p *Idempotent) rest(context.Context) error        { return nil }

// ErrStopped says that the Run of a Shared has ended. A unit that was handed over before may have been committed.
var ErrStopped = errors.New("the shared producer has stopped")

// largeBatch is the size in bytes from which on a batch is not joined with those of other units. It is compressed by
// its own unit's goroutine, beside the others.
const largeBatch = 16 << 10

// farewell bounds what Run still does when its context has ended: it aborts what is open, so that readers need not wait
// for the transaction timeout.
const farewell = 2 * time.Second

// NewShared returns a producer for the transactional id. It connects when the first unit begins.
func NewShared(cfg Config, client *kafkawire.Client, transactionalID string) (*Shared, error) {
	return newShared(cfg, client, func(cfg Config) (common, error) { return NewTransactional(cfg, client, transactionalID) })
}

// NewSharedIdempotent returns an at-least-once producer. It connects when the first unit begins.
func NewSharedIdempotent(cfg Config, client *kafkawire.Client) (*Shared, error) {
	return newShared(cfg, client, func(cfg Config) (common, error) { return NewIdempotent(cfg, client) })
}

func newShared(cfg Config, client *kafkawire.Client, fresh func(Config) (common, error)) (*Shared, error) {
	if cfg.Pool == nil {
		cfg.Pool = NewPool(DefaultPoolBytes)
	}
	if cfg.Limits == nil {
		cfg.Limits = &Limits{}
	}
	if _, err := fresh(cfg); err != nil {
		return nil, err
	}
	return &Shared{
		cfg: cfg, client: client, fresh: func() (common, error) { return fresh(cfg) },
		begins: make(chan chan error), commits: make(chan *sharedUnit), stopped: make(chan struct{}),
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
	shared   *Shared
	prepared bool // the shared producer was initialised after this unit was made, and nothing went wrong since
	state    unitState

	// Of the commit that is handed over: Run's until it answers on done.
	member  Member
	offsets []Offset
	hold    *hold // not nil: the unit's records are in the open transaction, which waits for its new identity
	done    chan error
}

type unitState uint8

const (
	unitIdle   unitState = iota
	unitOpen             // between Begin and the end of the unit
	unitFailed           // only Abort leads on
)

// hold is a transaction that waits for new identities.
type hold struct {
	givenUp chan struct{} // of size 1, holds a token once a unit was aborted
}

var _ Publisher = (*sharedUnit)(nil)

// Begin implements Publisher. The first call, and the first after an error, makes sure that the transactional id is
// initialised, which ends what a predecessor of this worker left open.
func (u *sharedUnit) Begin(ctx context.Context) error {
	if u.state != unitIdle {
		return fmt.Errorf("begin of an open unit: %w", ErrState)
	}
	if !u.prepared {
		if err := u.prepare(ctx); err != nil {
			return err
		}
	}
	u.refreshTopics(ctx)
	u.state = unitOpen
	return nil
}

// prepare lets Run initialise its producer. Run answers within the limits of the configuration.
func (u *sharedUnit) prepare(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case u.shared.begins <- answer:
	case <-ctx.Done():
		return ctx.Err()
	case <-u.shared.stopped:
		return ErrStopped
	}
	err := <-answer
	u.prepared = err == nil
	return err
}

// Append implements Publisher.
func (u *sharedUnit) Append(r *Record) error {
	if u.state != unitOpen || u.hold != nil {
		return fmt.Errorf("append to a unit that is not open: %w", ErrState)
	}
	return u.append(r)
}

// Commit implements Publisher. Once the unit is handed over it returns when the transaction that took it has ended,
// within the limits of the configuration and of the other units' new identities; ctx is looked at only before that.
func (u *sharedUnit) Commit(ctx context.Context, m Member, offsets []Offset) error {
	if u.state != unitOpen {
		return fmt.Errorf("commit of a unit that is not open: %w", ErrState)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if u.hold == nil {
		if err := u.records.sealAll(largeBatch); err != nil {
			return err
		}
	}
	u.member, u.offsets = m, append(u.offsets[:0], offsets...)
	select {
	case u.shared.commits <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-u.shared.stopped:
		return ErrStopped
	}
	return u.ended(<-u.done) // Run answers whatever it took before it ends
}

// ended takes Run's answer.
func (u *sharedUnit) ended(err error) error {
	switch {
	case err == nil:
		u.state = unitIdle
	case !errors.Is(err, ErrStaleMember):
		u.state, u.prepared = unitFailed, false
	}
	return err
}

// Abort implements Publisher. A unit that is part of the open transaction takes that down, for all its units.
func (u *sharedUnit) Abort(context.Context) error {
	if u.hold != nil {
		select {
		case u.hold.givenUp <- struct{}{}:
		default: // another unit has given it up as well, or it has ended
		}
		u.hold = nil
	}
	u.records.reset()
	u.state = unitIdle
	return nil
}

// Close implements Publisher.
//
//nolint:contextcheck // Abort of a unit does not wait for anything
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
	for {
		select {
		case <-ctx.Done():
			r.drop()
			return nil
		case answer := <-s.begins:
			answer <- r.begin(ctx)
		case u := <-s.commits:
			r.arrive(u)
			for len(r.waiting) > 0 {
				r.rest(ctx)
				r.gather()
				r.transact(ctx)
			}
		}
	}
}

// sharedRun is what Run's goroutine owns.
type sharedRun struct {
	*Shared
	producer common        // with an open unit that holds nothing yet; nil before the first Begin and after a failure
	waiting  []*sharedUnit // for the next transaction
	units    []*sharedUnit // of the open transaction
	hold     *hold         // of the open transaction, while it waits
	offsets  []Offset      // scratch: of all units
}

// begin initialises the producer unless it is.
func (r *sharedRun) begin(ctx context.Context) error {
	if r.producer != nil {
		return nil
	}
	fresh, err := r.fresh()
	if err != nil {
		return err
	}
	if err := fresh.Begin(ctx); err != nil {
		return err
	}
	r.producer = fresh
	return nil
}

// arrive takes a unit that is to be committed. The records of one that was held in a transaction that is no more are
// gone with it.
func (r *sharedRun) arrive(u *sharedUnit) {
	if u.hold != nil {
		u.answer(errGivenUp)
		return
	}
	r.waiting = append(r.waiting, u)
}

// errGivenUp ends a held transaction for the units that did not give it up.
var errGivenUp = fmt.Errorf("a unit of the common transaction was given up while the group moved on: %w", ErrAbortable)

// rest keeps the distance to the transaction before, while more units become ready. That it was interrupted the commit
// finds out.
func (r *sharedRun) rest(ctx context.Context) {
	if r.producer != nil {
		_ = r.producer.rest(ctx)
	}
}

// gather takes every other unit that is ready by now. Those are no more than there are partitions.
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
	err := r.begin(ctx)
	if err == nil {
		for _, u := range r.units {
			r.producer.buffer().takeFrom(&u.records)
		}
		err = r.commit(ctx)
	}
	for errors.Is(err, ErrStaleMember) {
		if err = r.await(ctx, err); err == nil {
			err = r.commit(ctx)
		}
	}
	if err != nil {
		err = r.abort(ctx, err)
	} else if r.producer.Begin(ctx) != nil { // the next transaction; asks the broker for nothing
		r.drop()
	}
	for _, u := range r.units {
		u.answer(err)
	}
	clear(r.units)
}

// commit sends everything in the name of the identity that all units brought. While the group moves on, some may have
// brought an older one; whichever came last counts, and the others are stale.
func (r *sharedRun) commit(ctx context.Context) error {
	member := r.units[len(r.units)-1].member
	r.offsets = r.offsets[:0]
	for _, u := range r.units {
		if u.member != member {
			return fmt.Errorf("units of generations %d and %d: %w", u.member.Generation, member.Generation, ErrStaleMember)
		}
		r.offsets = append(r.offsets, u.offsets...)
	}
	return r.producer.Commit(ctx, member, r.offsets)
}

// await answers the units whose identity is stale and waits until each has called Commit again. When one of them gives
// up, r.units holds those that wait for their answer; the others learn it from arrive.
func (r *sharedRun) await(ctx context.Context, stale error) error {
	here := r.current()
	r.hold = &hold{givenUp: make(chan struct{}, 1)}
	defer func() { r.hold = nil }()
	for _, u := range r.units[here:] {
		u.hold = r.hold
		u.done <- stale
	}
	for here < len(r.units) {
		select {
		case u := <-r.commits:
			if u.hold != r.hold {
				r.arrive(u)
				continue
			}
			i := slices.Index(r.units, u)
			r.units[here], r.units[i] = u, r.units[here]
			here++
		case <-r.hold.givenUp:
			r.units = r.units[:here]
			return errGivenUp
		case answer := <-r.begins:
			answer <- nil
		case <-ctx.Done():
			r.units = r.units[:here]
			return ctx.Err()
		}
	}
	return nil
}

// current moves the units with the identity that counts to the front and gives their number: 0 when the broker refused
// that identity, which is when all have the same.
func (r *sharedRun) current() int {
	member := r.units[len(r.units)-1].member
	n := 0
	for i, u := range r.units {
		if u.member == member {
			r.units[n], r.units[i] = r.units[i], r.units[n]
			n++
		}
	}
	if n == len(r.units) {
		return 0
	}
	return n
}

// abort ends the open transaction before its units hear of it, so that the committed offsets that they read then are
// final, and gives the error for them.
func (r *sharedRun) abort(ctx context.Context, cause error) error {
	stopping := ctx.Err() != nil
	if stopping {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer done()
		cause = fmt.Errorf("%w: %w", ErrStopped, noVerdict{cause})
	}
	if r.producer == nil {
		return cause
	}
	err := r.producer.Abort(ctx)
	if err == nil && !stopping && errors.Is(cause, ErrAbortable) {
		err = r.producer.Begin(ctx)
	}
	if err != nil || stopping || !errors.Is(cause, ErrAbortable) {
		r.drop()
	}
	return cause
}

// answer gives the unit back to its goroutine.
func (u *sharedUnit) answer(err error) {
	u.hold = nil
	u.done <- err
}

// drop closes a producer that is of no more use; the next Begin makes another.
func (r *sharedRun) drop() {
	if r.producer != nil {
		_ = r.producer.Close()
		r.producer = nil
	}
}
