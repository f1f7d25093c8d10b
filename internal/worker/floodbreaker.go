package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/churnstream/churnstream/consumer"
	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/schemas"
)

// breaker tells a flood from single bad records: more than a share of the last records of one partition that cannot be
// scored are an outage (an incompatible schema, the wrong topic, the wrong model), not data. It belongs to the task.
type breaker struct {
	window int // records that are judged; 0: it never trips
	most   int // bad ones of them that are still no flood

	now, saved recent // saved: as of the last commit, to which a batch that is given up goes back
	free       int64  // records before this offset were judged already, or an operator accepts them: they do not trip it
}

// recent is the ring of the last records; a set bit is a bad one.
type recent struct {
	bits [maxFloodWindow / 64]uint64
	at   int // next place
	bad  int
}

// maxFloodWindow bounds the ring, which is a part of every task.
const maxFloodWindow = config.MaxFloodWindow

func newBreaker(cfg config.DeadLetters) breaker {
	return breaker{window: cfg.FloodWindow, most: int(cfg.FloodShare * float64(cfg.FloodWindow))}
}

// add counts n records that end before offset next, bad of them bad. False: the partition must not go on.
func (b *breaker) add(n, bad int, next int64) bool {
	if b.window == 0 {
		return true
	}
	w := &b.now
	if bad == 0 && w.bad == 0 { // the usual case: zeros take the place of zeros
		w.at = (w.at + n) % b.window
		return true
	}
	for i := range n {
		word, bit := w.at/64, uint64(1)<<(w.at%64)
		if w.bits[word]&bit != 0 {
			w.bad--
			w.bits[word] &^= bit
		}
		if i < bad {
			w.bad++
			w.bits[word] |= bit
		}
		w.at = (w.at + 1) % b.window
	}
	if next <= b.free {
		b.now = recent{} // what was judged as a whole does not count against what follows
		return true
	}
	return w.bad <= b.most
}

// keep makes what was counted final, undo forgets it.
func (b *breaker) keep() { b.saved = b.now }
func (b *breaker) undo() { b.now = b.saved }

// pass lets everything before the offset through.
func (b *breaker) pass(before int64) {
	b.free = max(b.free, before)
	b.now, b.saved = recent{}, recent{}
}

// floodError stops the progress of a partition; it does not end the task.
type floodError struct {
	bad, of int
	classes map[schemas.ErrorClass]int
	newest  string // what is wrong with one of the records
	end     int64  // the offset behind the records that were judged last
}

func (e *floodError) Error() string {
	counts := make([]string, 0, len(e.classes))
	for class, n := range e.classes {
		counts = append(counts, fmt.Sprintf("%d %s", n, class))
	}
	slices.Sort(counts)
	return fmt.Sprintf("a flood of bad records: %d of the last %d cannot be scored (%s), for example: %s", e.bad, e.of, strings.Join(counts, ", "), e.newest)
}

// checkFlood counts the records of a chunk, of which so many have become dead letters.
func (t *task) checkFlood(chunk []consumer.Record, bad int) error {
	if t.breaker.add(len(chunk), bad, chunk[len(chunk)-1].Offset+1) {
		return nil
	}
	flood := &floodError{bad: t.breaker.now.bad, of: t.breaker.window, classes: map[schemas.ErrorClass]int{}, newest: t.tally.newest, end: chunk[len(chunk)-1].Offset + 1}
	for class, n := range t.tally.deadLetters {
		if n > 0 {
			flood.classes[class] = n
		}
	}
	return flood
}

// Pauses between two looks at a flood.
const (
	firstFloodLook = time.Second
	lastFloodLook  = 30 * time.Second
)

// hold keeps the partition where it is until the cause of the flood is gone: again and again it reads one window of records, as
// far as there are any, which begins where the one began that was too bad but not before the held offset: good records may stand
// before the flood. It goes on when no more than the allowed share of them is bad. Nothing is published meanwhile. An operator may accept the flood: then everything up to the end of the
// log as it is becomes a dead letter. It returns an error when the partition is taken away or cannot be read.
func (t *task) hold(fetch context.Context, partition *consumer.Partition, held int64, flood *floodError) error {
	t.worker.metrics.floods.Inc()
	if t.counts != nil {
		t.counts.Discard()
	}
	t.inHand.first.Store(held)
	from := max(held, flood.end-int64(t.breaker.window))
	select {
	case <-t.accept: // meant for a flood that was over by then
	default:
	}
	since := t.worker.now()
	for attempt := 0; ; attempt++ {
		t.log.Error().Err(flood).Int64("offset", held).Dur("held", t.worker.now().Sub(since)).Int("look", attempt+1).
			Msg("the partition stands still: nothing of it is published until the cause is gone or an operator accepts the flood (POST /dead-letters/accept on the admin address)")
		t.phase.wait(waitFlood, flood.Error(), since)
		timer := time.NewTimer(jitter(min(t.worker.floodLook<<min(attempt, 10), lastFloodLook)))
		select {
		case <-fetch.Done():
		case <-timer.C:
		case <-t.accept:
			timer.Stop()
			end := held + 1
			for _, p := range t.worker.fetcher.Positions() {
				if p.TopicPartition == t.source {
					end = max(end, p.LastStableOffset)
				}
			}
			t.log.Warn().Int64("offset", held).Int64("up_to", end).Msg("an operator accepts the flood; its records become dead letters")
			t.breaker.pass(end)
			partition.SeekTo(held)
			return nil
		}
		timer.Stop()
		if fetch.Err() != nil {
			return fetch.Err()
		}
		again, next, err := t.look(fetch, partition, from)
		if err != nil {
			return err
		}
		if again == nil {
			t.log.Warn().Int64("offset", held).Dur("held", t.worker.now().Sub(since)).Msg("the flood is over; going on where the partition was held")
			t.breaker.pass(next)
			partition.SeekTo(held)
			return nil
		}
		flood = again
	}
}

// look reads at most one window of records from an offset on and judges them without publishing anything: nil
// when they are no flood, with the offset up to which that is known.
func (t *task) look(fetch context.Context, partition *consumer.Partition, from int64) (flood *floodError, next int64, err error) {
	t.workbench = t.worker.workbenches.take()
	defer func() { t.workbench = t.worker.workbenches.giveBack(t.workbench) }()
	partition.SeekTo(from)
	flood = &floodError{classes: map[schemas.ErrorClass]int{}}
	next = from
	for flood.of < t.breaker.window {
		batch, err := partition.Next(fetch)
		if err != nil {
			return nil, 0, err
		}
		records := batch.Records[:min(len(batch.Records), t.breaker.window-flood.of)]
		for chunk := range slices.Chunk(records, chunkRows) {
			if err := t.judge(fetch, chunk, flood); err != nil {
				return nil, 0, err
			}
			next = chunk[len(chunk)-1].Offset + 1
		}
		if len(records) == len(batch.Records) {
			next = batch.Next
		}
		if batch.Next >= batch.LastStableOffset { // there is no more; waiting for some would tell nothing
			break
		}
	}
	if float64(flood.bad) <= t.worker.cfg.DeadLetters.FloodShare*float64(flood.of) {
		return nil, next, nil
	}
	return flood, next, nil
}

// judge decodes and scores a chunk and adds what is bad in it to the flood.
func (t *task) judge(fetch context.Context, chunk []consumer.Record, flood *floodError) error {
	found := func(class schemas.ErrorClass, text string) {
		flood.bad++
		flood.classes[class]++
		flood.newest = text
	}
	t.rows.Reset()
	for i := range chunk {
		err := t.decodeOne(fetch, &chunk[i])
		var poison *schemas.RecordError
		switch {
		case errors.As(err, &poison):
			found(poison.Class, poison.Error())
		case err != nil && fetch.Err() != nil:
			return fetch.Err()
		case err != nil: // an outage: as long as it lasts nothing is known
			found("unknown", err.Error())
		}
	}
	flood.of += len(chunk)
	t.scorer.Score(t.rows, &t.results)
	for row := range t.results.Len() {
		if cause := t.results.Refused(row); cause != nil {
			found(cause.Class, cause.Error())
		}
	}
	return nil
}

// AcceptFlood lets the partitions that are held by a flood go on, all or the one that is named topic/partition: their
// bad records become dead letters. It gives the names of those that were held.
func (w *Worker) AcceptFlood(partition string) []string {
	var accepted []string
	w.mu.Lock()
	defer w.mu.Unlock()
	for source, owned := range w.tasks {
		name := source.String()
		if partition != "" && partition != name {
			continue
		}
		if step, _, why := owned.task.phase.get(); step != stepWaiting || why.what != waitFlood {
			continue
		}
		select {
		case owned.task.accept <- struct{}{}:
		default: // asked for already
		}
		accepted = append(accepted, name)
	}
	slices.Sort(accepted)
	return accepted
}
