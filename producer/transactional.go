package producer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/churnstream/churnstream/internal/kafkawire"
)

// state is where a transactional producer stands. The names are those of Kafka's TransactionManager.
type state uint8

const (
	uninitialized state = iota
	initializing
	ready
	inTransaction
	committingTransaction
	abortingTransaction
	abortableError // only Abort leads on
	fatalError     // nothing leads on
)

func (s state) String() string {
	return [...]string{
		"UNINITIALIZED", "INITIALIZING", "READY", "IN_TRANSACTION", "COMMITTING_TRANSACTION",
		"ABORTING_TRANSACTION", "ABORTABLE_ERROR", "FATAL_ERROR",
	}[s]
}

// ErrState says that a method was called in a state that does not allow it.
var ErrState = errors.New("wrong state")

// Transactional publishes units as Kafka transactions: records and offsets become visible together or not at all. At
// any time only the newest producer of a transactional id can publish.
//
// The order within a transaction is records, offsets, end. Each step is finished before the next is sent: Kafka 4
// fails its verification otherwise. A step whose answer was lost is repeated as it was; the broker knows the sequence
// numbers (DUPLICATE_SEQUENCE_NUMBER) and the end that it has already carried out.
//
// It belongs to one goroutine.
type Transactional struct {
	session
	state    state
	cause    error // of fatalError and abortableError
	protocol transactionProtocol
	versions transactionVersions

	begun       bool // the coordinator may know of the open transaction
	offsetsSent bool // TxnOffsetCommit of the open transaction was accepted
	newEpoch    bool // the abort has come to the point where only a new epoch is missing

	initOp, offsetsOp, endOp operation
	initRequest              kafkawire.Request
	offsetsRequest           kafkawire.Request
	endRequest               kafkawire.Request
	offsets                  []Offset // scratch: grouped by topic
}

var _ Publisher = (*Transactional)(nil)

// NewTransactional returns a producer for transactionalID. It does not connect; the first Begin does.
func NewTransactional(cfg Config, client *kafkawire.Client, transactionalID string) (*Transactional, error) {
	if transactionalID == "" {
		return nil, errors.New("producer: the transactional id is empty, must be unique among all producers of the cluster, for example churn-customer-activity-3")
	}
	s, err := newSession(cfg, client, transactionalID)
	if err != nil {
		return nil, err
	}
	op := operation{object: "transactional id " + transactionalID, transactionalID: transactionalID, topicRight: "WRITE"}
	t := &Transactional{session: s, initOp: op, offsetsOp: op, endOp: op}
	t.initOp.name = "initialise producer of"
	t.offsetsOp.name, t.offsetsOp.topicRight = "commit offsets in transaction of", "READ"
	t.endOp.name = "end transaction of"
	return t, nil
}

// Begin implements Publisher. The first call fences earlier producers of the transactional id.
func (t *Transactional) Begin(ctx context.Context) error {
	switch t.state {
	case uninitialized:
		t.state = initializing
		if err := t.initialise(ctx, t.limit(), ProducerIdentity{ID: -1, Epoch: -1}); err != nil {
			t.state = uninitialized
			return t.failed(err)
		}
	case ready:
	default:
		return t.refuse("begin")
	}
	t.refreshTopics(ctx)
	t.state = inTransaction
	return nil
}

// Append implements Publisher.
func (t *Transactional) Append(r *Record) error {
	if t.state != inTransaction {
		return t.refuse("append")
	}
	return t.append(r)
}

// Commit implements Publisher. A unit without records and offsets ends without asking the broker. The same offsets
// must be given when it is called again.
func (t *Transactional) Commit(ctx context.Context, m Member, offsets []Offset) error {
	if t.state != inTransaction && t.state != committingTransaction {
		return t.refuse("commit")
	}
	start := time.Now()
	if !t.begun && t.records.records == 0 && len(offsets) == 0 {
		t.finish()
		t.metrics.transactions.WithLabelValues(resultEmpty).Inc()
		return nil
	}
	if err := t.commit(ctx, t.limit(), m, offsets); err != nil {
		return t.failed(err)
	}
	t.finish()
	t.metrics.committed.Inc()
	t.metrics.commitSeconds.Observe(time.Since(start).Seconds())
	return nil
}

// commit does what is left to do.
func (t *Transactional) commit(ctx context.Context, limit time.Time, m Member, offsets []Offset) error {
	steps, clock := &t.metrics.steps, stepClock(time.Now())
	if t.state == inTransaction {
		if t.records.pending() {
			t.begun = true
			if err := t.protocol.addPartitions(ctx, limit); err != nil {
				return err
			}
			clock.observe(steps.join)
			if err := t.produceAll(ctx, limit); err != nil {
				return err
			}
			clock.observe(steps.produce)
		}
		if len(offsets) > 0 && !t.offsetsSent {
			t.begun = true
			if err := t.protocol.addGroup(ctx, limit, m.Group); err != nil {
				return err
			}
			if err := t.commitOffsets(ctx, limit, m, offsets); err != nil {
				return err
			}
			t.offsetsSent = true
			clock.observe(steps.offsets)
		}
		t.state = committingTransaction
	}
	if err := t.end(ctx, limit, true); err != nil {
		return err
	}
	clock.observe(steps.end)
	return nil
}

// stepClock is the time at which a step began.
type stepClock time.Time

func (c *stepClock) observe(step prometheus.Observer) {
	now := time.Now()
	step.Observe(now.Sub(time.Time(*c)).Seconds())
	*c = stepClock(now)
}

// Abort implements Publisher. After an error it also restores the producer, without fencing a newer one. In
// FATAL_ERROR it ends what the broker still holds open, so that readers do not wait for the timeout, and the state
// stays.
func (t *Transactional) Abort(ctx context.Context) error {
	switch t.state {
	case inTransaction, committingTransaction, abortableError, abortingTransaction:
	case fatalError:
		if !t.begun || errors.Is(t.cause, ErrFenced) {
			return t.refuse("abort")
		}
		if err := t.end(ctx, t.limit(), false); err != nil {
			return err
		}
		t.begun = false
		t.metrics.aborted.Inc()
		return nil
	default:
		return nil
	}
	if t.begun {
		t.state = abortingTransaction
		if err := t.abort(ctx, t.limit()); err != nil {
			return t.failed(err)
		}
	}
	t.finish()
	t.metrics.aborted.Inc()
	return nil
}

func (t *Transactional) abort(ctx context.Context, limit time.Time) error {
	if !t.newEpoch {
		err := t.end(ctx, limit, false)
		var e *Error
		switch {
		case err == nil && (t.versions.epochPerTransaction || !t.records.inDoubt()):
			return nil
		case err == nil:
			// A batch may have been taken without our knowing, so the next sequence is unknown: a new epoch has none.
		case errors.As(err, &e) && e.verdict == abortable && verdictOf(e.Code) == abortable:
			// The coordinator has no such transaction any more: it timed out, or a commit whose answer was lost has
			// taken place.
		default:
			return err
		}
		// From here on EndTxn with the old epoch may be fenced by our own InitProducerId, so it is not sent again.
		t.newEpoch = true
	}
	return t.initialise(ctx, limit, t.id)
}

// Close implements Publisher. It leaves an open transaction to the coordinator's timeout or to the next producer of
// the transactional id: call Abort first where that matters.
func (t *Transactional) Close() error {
	if t.state != fatalError {
		t.state, t.cause = fatalError, errors.New("closed")
		t.begun = false
	}
	t.records = newAccumulator(t.cfg)
	return nil
}

// finish makes ready for the next transaction.
func (t *Transactional) finish() {
	t.records.reset()
	t.begun, t.offsetsSent, t.newEpoch, t.cause = false, false, false, nil
	t.state = ready
	if t.protocol != nil {
		t.protocol.ended()
	}
}

// failed moves to the state that err leads to and counts it.
func (t *Transactional) failed(err error) error {
	result := resultFatal
	switch {
	case errors.Is(err, ErrFenced):
		t.state, t.cause, result = fatalError, err, resultFenced
	case errors.Is(err, ErrStaleMember):
		result = resultStaleMember // IN_TRANSACTION: Commit goes on with another identity
	case errors.Is(err, ErrAbortable):
		result = resultAbortable
		if t.state != uninitialized {
			t.state, t.cause = abortableError, err
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		result = resultInterrupted // the same call may be made again
	default:
		t.state, t.cause = fatalError, err
	}
	t.metrics.transactions.WithLabelValues(result).Inc()
	return err
}

func (t *Transactional) refuse(method string) error {
	if t.cause != nil {
		return fmt.Errorf("%s in state %v: %w: %w", method, t.state, ErrState, t.cause)
	}
	return fmt.Errorf("%s in state %v: %w", method, t.state, ErrState)
}

// initialise gets a producer id and epoch. With the identity -1 it fences every earlier producer and ends its open
// transaction; with the current one it gives this producer its next epoch and fails if there is a newer producer
// (KIP-360).
func (t *Transactional) initialise(ctx context.Context, limit time.Time, current ProducerIdentity) error {
	err := t.persist(ctx, limit, t.initOp, t.forgetCoordinator, func(ctx context.Context) error {
		broker, err := t.client.Coordinator(ctx, kafkawire.Transaction, t.transactionalID)
		if err != nil {
			return err
		}
		version, err := t.version(ctx, broker, protocol.InitProducerId, versionRange{3, 5})
		if err != nil {
			return err
		}
		if err := t.choose(ctx, broker); err != nil {
			return err
		}
		var code int16
		var id ProducerIdentity
		r := &t.initRequest
		r.Key, r.Version, r.FlexibleFrom, r.Broker = protocol.InitProducerId, version, 2, broker
		r.Encode = func(w *kafkawire.Writer) {
			encodeInitProducerID(w, version, t.transactionalID, t.cfg.TransactionTimeout, current)
		}
		r.Decode = func(r *kafkawire.Reader) error {
			code, id = decodeInitProducerID(r)
			return nil
		}
		if err := t.client.Do(ctx, r); err != nil {
			return err
		}
		if err := t.initOp.refused(code); err != nil {
			return err
		}
		t.id = id
		return nil
	})
	if err != nil {
		return err
	}
	t.records.restartSequences()
	return nil
}

// choose settles the protocol by what the cluster has finalised. It is done with each initialisation, so that an
// upgraded cluster is noticed at the next one.
func (t *Transactional) choose(ctx context.Context, broker int32) error {
	versions, err := t.client.Versions(ctx, broker)
	if err != nil {
		return err
	}
	if versions.FinalizedFeature("transaction.version") >= 2 && t.cfg.TransactionVersion != 1 {
		t.protocol, t.versions = &implicit{completion: completion{s: &t.session, limit: lastLook}}, transactionVersion2
	} else {
		t.protocol, t.versions = newExplicit(&t.session), transactionVersion1
	}
	t.produceVersion = t.versions.produce
	return nil
}

func (t *Transactional) commitOffsets(ctx context.Context, limit time.Time, m Member, offsets []Offset) error {
	op := t.offsetsOp
	op.group = m.Group
	op.object = "group " + m.Group
	t.offsets = groupOffsets(t.offsets[:0], offsets)
	forget := func() { t.client.ForgetCoordinator(kafkawire.Group, m.Group) }
	return t.persist(ctx, limit, op, forget, func(ctx context.Context) error {
		broker, err := t.client.Coordinator(ctx, kafkawire.Group, m.Group)
		if err != nil {
			return err
		}
		version, err := t.version(ctx, broker, protocol.TxnOffsetCommit, t.versions.offsets)
		if err != nil {
			return err
		}
		var worst error
		r := &t.offsetsRequest
		r.Key, r.Version, r.FlexibleFrom, r.Broker = protocol.TxnOffsetCommit, version, 3, broker
		r.Encode = func(w *kafkawire.Writer) {
			w.String(t.transactionalID)
			w.String(m.Group)
			w.Int64(t.id.ID)
			w.Int16(t.id.Epoch)
			w.Int32(m.Generation)
			w.String(m.MemberID)
			w.NullableString(m.InstanceID)
			encodeOffsets(w, t.offsets)
			w.Tags()
		}
		r.Decode = func(r *kafkawire.Reader) error {
			worst = decodePartitionCodes(r, op)
			return nil
		}
		if err := t.client.Do(ctx, r); err != nil {
			return err
		}
		return worst
	})
}

// end sends EndTxn. Under transaction version 2 the answer brings the epoch of the next transaction, whose sequences
// begin at 0.
func (t *Transactional) end(ctx context.Context, limit time.Time, commit bool) error {
	return t.persist(ctx, limit, t.endOp, t.forgetCoordinator, func(ctx context.Context) error {
		broker, err := t.client.Coordinator(ctx, kafkawire.Transaction, t.transactionalID)
		if err != nil {
			return err
		}
		version, err := t.version(ctx, broker, protocol.EndTxn, t.versions.end)
		if err != nil {
			return err
		}
		var code int16
		next := t.id
		r := &t.endRequest
		r.Key, r.Version, r.FlexibleFrom, r.Broker = protocol.EndTxn, version, 3, broker
		r.Encode = func(w *kafkawire.Writer) {
			w.String(t.transactionalID)
			w.Int64(t.id.ID)
			w.Int16(t.id.Epoch)
			w.Bool(commit)
			w.Tags()
		}
		r.Decode = func(r *kafkawire.Reader) error {
			r.Int32() // throttle
			code = r.Int16()
			if version >= 5 {
				next = ProducerIdentity{ID: r.Int64(), Epoch: r.Int16()}
			}
			r.Tags()
			return nil
		}
		if err := t.client.Do(ctx, r); err != nil {
			return err
		}
		if err := t.endOp.refused(code); err != nil {
			return err
		}
		if next != t.id {
			t.id = next
			t.records.restartSequences()
		}
		return nil
	})
}

func (t *Transactional) forgetCoordinator() {
	t.client.ForgetCoordinator(kafkawire.Transaction, t.transactionalID)
}

// transactionVersions are the request versions of a transaction protocol.
type transactionVersions struct {
	produce, offsets, end versionRange
	epochPerTransaction   bool // EndTxn begins a new epoch
}

var (
	// transactionVersion2 is KIP-890: Produce and TxnOffsetCommit join the transaction by themselves.
	transactionVersion2 = transactionVersions{
		produce: versionRange{12, 12}, offsets: versionRange{5, 5}, end: versionRange{5, 5}, epochPerTransaction: true,
	}
	// transactionVersion1 is the protocol since Kafka 2.5, which brokers of any later version speak too.
	transactionVersion1 = transactionVersions{
		produce: versionRange{3, 11}, offsets: versionRange{3, 4}, end: versionRange{1, 4},
	}
)

// transactionProtocol tells the coordinator what takes part in the transaction, ahead of it.
type transactionProtocol interface {
	addPartitions(ctx context.Context, limit time.Time) error
	addGroup(ctx context.Context, limit time.Time, group string) error
	rest(ctx context.Context) error // returns when records may be sent; addPartitions waits too
	ended()
}

// implicit is transaction version 2: there is nothing to tell, but Produce must not come too early.
type implicit struct{ completion completion }

func (i *implicit) addPartitions(ctx context.Context, _ time.Time) error {
	return i.completion.wait(ctx)
}
func (i *implicit) addGroup(context.Context, time.Time, string) error { return nil }
func (i *implicit) rest(ctx context.Context) error                    { return i.completion.wait(ctx) }

func (i *implicit) ended() { i.completion.transactionEnded() }

// explicit is the older protocol: AddPartitionsToTxn before Produce, AddOffsetsToTxn before TxnOffsetCommit.
type explicit struct {
	s                         *session
	addedPartitions           int // of the records' partitions
	addedGroup                string
	partitionsOp, groupOp     operation
	partitionsReq, offsetsReq kafkawire.Request
}

func newExplicit(s *session) *explicit {
	op := operation{object: "transactional id " + s.transactionalID, transactionalID: s.transactionalID, topicRight: "WRITE"}
	e := &explicit{s: s, partitionsOp: op, groupOp: op}
	e.partitionsOp.name = "add partitions to transaction of"
	e.groupOp.name = "add group to transaction of"
	return e
}

func (e *explicit) rest(context.Context) error { return nil }

func (e *explicit) ended() { e.addedPartitions, e.addedGroup = 0, "" }

func (e *explicit) addPartitions(ctx context.Context, limit time.Time) error {
	touched := e.s.records.touched
	if e.addedPartitions == len(touched) {
		return nil
	}
	slices.SortFunc(touched, func(a, b *partitionBuffer) int {
		return cmp.Or(cmp.Compare(a.topic.name, b.topic.name), cmp.Compare(a.partition, b.partition))
	})
	err := e.ask(ctx, limit, e.partitionsOp, &e.partitionsReq, protocol.AddPartitionsToTxn, versionRange{1, 3},
		func(w *kafkawire.Writer) { encodeAddPartitions(w, e.s.transactionalID, e.s.id, touched) },
		func(r *kafkawire.Reader) error { return decodePartitionCodes(r, e.partitionsOp) })
	if err == nil {
		e.addedPartitions = len(touched)
	}
	return err
}

func (e *explicit) addGroup(ctx context.Context, limit time.Time, group string) error {
	if e.addedGroup == group {
		return nil
	}
	op := e.groupOp
	op.group = group
	err := e.ask(ctx, limit, op, &e.offsetsReq, protocol.AddOffsetsToTxn, versionRange{1, 4},
		func(w *kafkawire.Writer) {
			w.String(e.s.transactionalID)
			w.Int64(e.s.id.ID)
			w.Int16(e.s.id.Epoch)
			w.String(group)
			w.Tags()
		},
		func(r *kafkawire.Reader) error {
			r.Int32() // throttle
			return op.refused(r.Int16())
		})
	if err == nil {
		e.addedGroup = group
	}
	return err
}

// ask sends one request to the transaction coordinator and repeats it where that helps.
func (e *explicit) ask(ctx context.Context, limit time.Time, op operation, r *kafkawire.Request, key protocol.ApiKey, want versionRange,
	encode func(*kafkawire.Writer), decode func(*kafkawire.Reader) error,
) error {
	s := e.s
	forget := func() { s.client.ForgetCoordinator(kafkawire.Transaction, s.transactionalID) }
	return s.persist(ctx, limit, op, forget, func(ctx context.Context) error {
		broker, err := s.client.Coordinator(ctx, kafkawire.Transaction, s.transactionalID)
		if err != nil {
			return err
		}
		version, err := s.version(ctx, broker, key, want)
		if err != nil {
			return err
		}
		var refused error
		r.Key, r.Version, r.FlexibleFrom, r.Broker = key, version, 3, broker
		r.Encode = encode
		r.Decode = func(r *kafkawire.Reader) error {
			refused = decode(r)
			return nil
		}
		if err := s.client.Do(ctx, r); err != nil {
			return err
		}
		return refused
	})
}
