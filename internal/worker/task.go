package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/driftstate"
	"github.com/churnstream/churnstream/internal/kafkawire"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

// chunkRows is how many events are decoded before they are scored together: enough for the engines to work on a batch,
// few enough that the rows of a task stay in the second-level cache.
const chunkRows = 128

// task processes one owned partition. One goroutine owns it with its position, its publisher, its scratch memory and its
// statistics; the worker only cancels its contexts.
type task struct {
	worker *Worker
	source consumer.TopicPartition
	log    zerolog.Logger
	phase  phase  // what it does now, for the probes
	inHand inHand // likewise: how far it has come

	breaker breaker
	accept  chan struct{} // of size 1: an operator accepts the flood that holds the partition

	publisher producer.Publisher
	first     int64              // where "latest" has the partition begin; -1: not asked for yet
	position  int64              // the committed offset; -1: there is none, or what a commit has come to is not known
	marked    bool               // the committed offset carries a worker's transactional id
	counts    *drift.Accumulator // nil when drift is off
	states    driftstate.Writer  // publishes counts

	*workbench // while batches are processed
	score      schemas.Score
	out        producer.Record
	offsets    [1]producer.Offset
	tally      tally
}

// tally is what a unit of work did; it becomes visible after the commit only.
type tally struct {
	events          int
	scores, churn   int
	deadLetters     map[schemas.ErrorClass]int
	bad             int            // all dead letters
	newest          string         // what is wrong with the last of them
	missing, unseen map[string]int // by input
	sampled         []int64        // timestamps in ms of one event in latencySample
	last            int64          // timestamp in ms of the last event; 0: there is none
	next            int64          // offset to go on from
	lastStable      int64          // end of what was readable
}

func newTask(w *Worker, source consumer.TopicPartition, log zerolog.Logger) *task {
	t := &task{
		worker: w,
		source: source,
		log:    log,
		score: schemas.Score{
			SourceTopic: source.Topic, SourcePartition: source.Partition,
			ModelName: w.model.Name(), ModelVersion: w.model.Version(), ModelDigest: w.model.Digest(),
			Variant: "champion", Threshold: w.model.Threshold(),
		},
		breaker: newBreaker(w.cfg.DeadLetters),
		accept:  make(chan struct{}, 1),
		tally:   tally{deadLetters: map[schemas.ErrorClass]int{}, missing: map[string]int{}, unseen: map[string]int{}},
	}
	t.first = -1
	t.phase.start("nothing yet", w.now())
	t.inHand.none()
	return t
}

// run owns the partition until fetch ends. An error that another attempt can mend starts the ownership again from the
// committed offset; the returned error stops the worker.
func (t *task) run(fetch, work context.Context) error {
	for attempt := 0; ; attempt++ {
		progressed, err := t.own(fetch, work)
		if fetch.Err() != nil || work.Err() != nil {
			return nil //nolint:nilerr // the end was asked for; what it interrupted is the next owner's
		}
		if progressed {
			attempt = 0
		}
		switch {
		case errors.Is(err, producer.ErrFenced):
			// The membership still calls the partition ours (fetch lives), so the broker expired us or a zombie woke up:
			// begin again, which fences whoever else holds the transactional id. Were it taken away, fetch would end.
			t.log.Warn().Err(err).Msg("fenced while owning the partition; beginning again")
		case errors.Is(err, producer.ErrAbortable), retriable(err):
			t.log.Warn().Err(err).Int("attempt", attempt+1).Msg("batch aborted; reading again from the committed offset")
		default:
			return fmt.Errorf("partition %s/%d: %w", t.source.Topic, t.source.Partition, err)
		}
		t.worker.metrics.restarts.Inc()
		t.phase.wait(waitRetry, "pause before a new attempt: "+err.Error(), t.worker.now())
		wait(fetch, backoff(attempt))
	}
}

// own is one ownership of the partition: fence predecessors, take up position and statistics where the last commit left
// them, then process batch after batch.
func (t *task) own(fetch, work context.Context) (progressed bool, err error) {
	t.position = -1 // whatever it was: a commit that seemed to fail may have taken place
	began := t.worker.now()
	t.phase.start("its producer", began)
	if t.publisher, err = t.worker.newPublisher(t.source); err != nil {
		return false, err
	}
	defer t.publisher.Close()
	// Nothing is in hand yet, so a drain need not wait for any of this.
	if err := t.publisher.Begin(fetch); err != nil {
		return false, err
	}
	t.phase.start("the end of a former owner's transaction", began)
	if err := t.succeed(fetch); err != nil {
		return false, err
	}
	t.phase.start("the committed offset, which a transaction that a former owner left open holds back until it ends"+neverEnds, began)
	offsets, err := consumer.CommittedOffsets(fetch, t.worker.client, t.worker.cfg.Group.ID, t.worker.membership.Identity(), []consumer.TopicPartition{t.source})
	if err != nil {
		return false, err
	}
	counted := int64(0)
	if t.worker.cfg.Drift.Enabled {
		t.states = t.worker.stateWriter(t.source)
		t.phase.startBehind(consumer.TopicPartition{Topic: t.states.Topic, Partition: t.states.Partition}, "the drift state, which an open transaction in its topic holds back until it ends"+neverEnds, began)
		if t.counts, counted, err = t.worker.newCounts(fetch, t.source); err != nil {
			return false, err
		}
	}
	if t.position, err = t.remembered(fetch, offsets[t.source], counted); err != nil {
		return false, err
	}
	if t.position < 0 && t.worker.cfg.Fetch.OffsetReset == string(consumer.ResetLatest) {
		t.phase.start("its first offset to be committed", began)
		if err := t.begin(fetch, work); err != nil {
			t.rollBack(work)
			return false, err
		}
	}
	partition := t.worker.fetcher.Open(t.source, t.position)
	defer partition.Close()
	t.inHand.none()
	t.log.Info().Int64("offset", t.position).Msg("partition ready")
	for {
		if err := t.process(fetch, work, partition); err != nil {
			t.rollBack(work)
			var flood *floodError
			if !errors.As(err, &flood) {
				return progressed, err
			}
			if err := t.hold(fetch, partition, t.inHand.first.Load(), flood); err != nil {
				return progressed, err
			}
		}
		progressed = true
		if err := t.publisher.Begin(work); err != nil { // the next unit; asks the broker for nothing
			return progressed, err
		}
	}
}

// begin commits where the policy "latest" has the partition begin, before anything is read: whoever asked again, after an
// abort or a restart, would pass over what has come meanwhile. A partition that was added while this worker ran has
// nothing that is older than the group.
func (t *task) begin(fetch, work context.Context) error {
	if t.first < 0 {
		policy := consumer.Latest
		if int(t.source.Partition) >= t.worker.partitions[t.source.Topic] {
			policy = consumer.Earliest
		}
		offsets, err := consumer.ListOffsets(fetch, t.worker.client, []consumer.TopicPartition{t.source}, policy, consumer.ReadCommitted)
		if err != nil {
			return err
		}
		t.first = offsets[t.source]
	}
	if err := t.commit(work, t.first); err != nil {
		return err
	}
	return t.publisher.Begin(work)
}

// neverEnds is for a transaction of which the brokers have lost a marker: nobody but an operator ends it (KAFKA-20734).
const neverEnds = "; if it outlasts every transaction timeout, kafka-transactions.sh find-hanging names it and abort ends it"

// batches are where events come from: a *consumer.Partition.
type batches interface {
	Next(ctx context.Context) (*consumer.Batch, error)
	Poll() (*consumer.Batch, error)
}

// process is the life of one unit of work: fetch → decode → score → append outputs → end the transaction → observe. A
// unit is one batch where events are few, and goes at once. Under load it takes the batches that are there already, up
// to a size, so that the cost of a transaction is spread over many events. A batch without records (markers, an aborted
// transaction, compacted offsets) moves the committed offset all the same: whoever looks at the group from outside must
// not see a lag that never goes away.
func (t *task) process(fetch, work context.Context, source batches) error {
	t.phase.set(stepIdle, t.worker.now())
	batch, err := source.Next(fetch)
	if err != nil {
		return err
	}
	t.inHand.take(batch)
	t.workbench = t.worker.workbenches.take()
	defer func() { t.workbench = t.worker.workbenches.giveBack(t.workbench) }()
	var clock stopwatch
	clock.start()
	if t.counts != nil {
		t.counts.SetClock(t.worker.now().UnixMilli())
	}
	for ; batch != nil; batch = t.another(fetch, source) {
		for chunk := range slices.Chunk(batch.Records, chunkRows) {
			bad := t.tally.bad
			t.phase.set(stepWorking, t.worker.now())
			if err := t.decode(fetch, chunk); err != nil {
				return err
			}
			clock.lap(stageDecode)
			t.phase.set(stepWorking, t.worker.now())
			t.scorer.Score(t.rows, &t.results)
			clock.lap(stageScore)
			if err := t.appendScores(chunk); err != nil {
				return err
			}
			clock.lap(stageEncode)
			if err := t.checkFlood(chunk, t.tally.bad-bad); err != nil {
				return err
			}
		}
		t.tally.take(batch)
	}
	if err := t.appendCounts(); err != nil {
		return err
	}
	t.workbench = t.worker.workbenches.giveBack(t.workbench) // the commit waits for brokers
	t.phase.set(stepCommitting, t.worker.now())
	if err := t.commit(work, t.tally.next); err != nil {
		return err
	}
	clock.lap(stageCommit)
	t.inHand.done(&t.tally)
	t.worker.metrics.stages.observe(&clock)
	t.observe()
	return nil
}

// another gives the next batch of the unit if there is one already and room for it. What is wrong with the source shows
// again when it is asked for the next unit.
func (t *task) another(fetch context.Context, source batches) *consumer.Batch {
	if fetch.Err() != nil || t.publisher.Buffered() >= t.worker.unitBytes() {
		return nil
	}
	batch, err := source.Poll()
	if err != nil {
		return nil
	}
	return batch
}

// decode turns records into rows. A record that can never be read becomes a dead letter; a registry that does not answer
// is an outage: decode waits for it as long as the partition is ours.
func (t *task) decode(fetch context.Context, chunk []consumer.Record) error {
	t.rows.Reset()
	t.scored = t.scored[:0]
	for i := range chunk {
		r := &chunk[i]
		err := t.decodeOne(fetch, r)
		var since time.Time
		for attempt := 0; err != nil; attempt++ {
			var poison *schemas.RecordError
			if errors.As(err, &poison) {
				if err := t.appendDeadLetter(r, poison); err != nil {
					return err
				}
				break
			}
			if fetch.Err() != nil {
				return fetch.Err()
			}
			t.log.Error().Err(err).Int64("offset", r.Offset).Msg("event cannot be decoded now; waiting for the schema registry")
			if attempt == 0 {
				since = t.worker.now()
			}
			t.phase.wait(waitRegistry, "schema registry: "+err.Error(), since)
			wait(fetch, backoff(attempt))
			err = t.decodeOne(fetch, r)
		}
		if err == nil {
			t.scored = append(t.scored, i)
			if t.worker.cfg.Reasons.When == config.ReasonsOnRequest {
				t.scorer.Request(len(t.scored)-1, asksForReasons(r))
			}
		}
	}
	return nil
}

func (t *task) decodeOne(ctx context.Context, r *consumer.Record) error {
	if err := schemas.CheckKey(r.Key); err != nil {
		return err
	}
	return t.decoder.Decode(ctx, r.Value, t.rows)
}

// appendScores writes one score a row and counts the row in the population.
func (t *task) appendScores(chunk []consumer.Record) error {
	now := t.worker.now().UnixMilli()
	t.counted = t.counted[:0]
	for row, i := range t.scored {
		r := &chunk[i]
		s := &t.score
		s.CustomerID = r.Key
		s.SourceOffset, s.EventTime, s.ScoredAt = r.Offset, r.Timestamp, now
		s.Probability, s.Margin = t.results.Probability[row], t.results.Margin[row]
		if cause := t.results.Refused(row); cause != nil {
			if err := t.appendDeadLetter(r, cause); err != nil {
				return err
			}
			continue
		}
		s.Churn = s.Probability >= s.Threshold
		s.Reasons = t.results.Reasons(row)
		s.Missing, s.Unseen = t.results.Missing(row), t.results.Unseen(row)
		numbers, categories := t.rows.Row(row)
		t.value = t.worker.appendScore(t.value[:0], numbers, s)
		t.out = producer.Record{Topic: t.worker.cfg.Topics.Scores, Partition: byKey, Timestamp: r.Timestamp, Key: r.Key, Value: t.value}
		if err := t.publisher.Append(&t.out); err != nil {
			var large *producer.RecordTooLargeError
			if !errors.As(err, &large) { // else the customer id: nothing else of a score is the event's
				return err
			}
			if err := t.appendDeadLetter(r, &schemas.RecordError{Class: schemas.OutOfRange, Path: "key", Err: large}); err != nil {
				return err
			}
			continue
		}
		t.tally.add(s)
		if t.counts != nil {
			t.counted = append(t.counted, drift.Event{
				Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Numbers: numbers, Categories: categories, Probability: s.Probability,
			})
		}
	}
	if t.counts != nil {
		t.counts.Observe(t.counted...)
	}
	return nil
}

// appendCounts writes the absolute counts of every bucket that this batch touched.
func (t *task) appendCounts() error {
	if t.counts == nil {
		return nil
	}
	return t.states.Append(t.publisher, t.counts, t.worker.now().UnixMilli())
}

// commit ends the transaction with the offset of the next event. When the group moved on meanwhile, the same transaction
// goes on under the new identity, unless the partition was taken away. A group that is still handing out partitions
// refuses commits of its current generation too (REBALANCE_IN_PROGRESS), so the wait is not for a change alone.
func (t *task) commit(ctx context.Context, next int64) error {
	t.offsets[0] = producer.Offset{Topic: t.source.Topic, Partition: t.source.Partition, Offset: next, Metadata: t.worker.metadata()}
	deadline := time.Now().Add(t.worker.cfg.Group.SessionTimeout.Std())
	for {
		changed := t.worker.membership.Changed()
		member := t.worker.member()
		t.position = -1
		err := t.publisher.Commit(ctx, member, t.offsets[:])
		if err == nil {
			t.position, t.marked = next, t.offsets[0].Metadata != ""
			t.worker.memory.commit(t.source, next)
		}
		if !errors.Is(err, producer.ErrStaleMember) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the group accepts no commit for longer than the session timeout (%w): %w", err, producer.ErrAbortable)
		}
		t.log.Info().Err(err).Int32("generation", member.Generation).Msg("the group is moving on during a commit; going on with it")
		pause := time.NewTimer(settling)
		select {
		case <-changed:
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// settling is the pause before a refused commit is tried again with the same identity.
const settling = 50 * time.Millisecond

// observe makes visible what the committed unit did: statistics and metrics never count what was rolled back.
func (t *task) observe() {
	if t.counts != nil {
		t.counts.Commit()
	}
	t.breaker.keep()
	t.worker.metrics.observe(&t.tally, t.worker.now())
	t.tally.reset()
}

// rollBack gives up the unit in hand. When even that fails the next Begin does it.
func (t *task) rollBack(ctx context.Context) {
	t.tally.reset() // the statistics are restored anew
	t.breaker.undo()
	if err := t.publisher.Abort(ctx); err != nil {
		t.log.Warn().Err(err).Msg("abort failed; the next start of the producer ends the transaction")
	}
}

func (t *tally) add(s *schemas.Score) {
	t.scores++
	if s.Churn {
		t.churn++
	}
	for _, input := range s.Missing {
		t.missing[input]++
	}
	for _, input := range s.Unseen {
		t.unseen[input]++
	}
}

func (t *tally) take(batch *consumer.Batch) {
	t.events += len(batch.Records)
	for i := 0; i < len(batch.Records); i += latencySample {
		if at := batch.Records[i].Timestamp; at > 0 { // else the producer gave none
			t.sampled = append(t.sampled, at)
		}
	}
	if n := len(batch.Records); n > 0 {
		t.last = batch.Records[n-1].Timestamp
	}
	t.next, t.lastStable = batch.Next, batch.LastStableOffset
}

func (t *tally) reset() {
	t.events, t.scores, t.churn, t.bad, t.newest = 0, 0, 0, 0, ""
	t.sampled, t.last = t.sampled[:0], 0
	clear(t.deadLetters)
	clear(t.missing)
	clear(t.unseen)
}

// backoff is the pause before attempt n+1: 50 ms doubling to 5 s, with jitter.
func backoff(attempt int) time.Duration {
	return jitter(min(50*time.Millisecond<<min(attempt, 10), 5*time.Second))
}

// jitter keeps workers that failed together from trying again together: three to five quarters of d.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + 0.5*rand.Float64()))
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// retriable says that the same request may succeed later: a broker that moves, restarts or does not answer.
func retriable(err error) bool {
	_, again := kafkawire.Retriable(err)
	return again
}
