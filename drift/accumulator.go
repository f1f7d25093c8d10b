package drift

import (
	"fmt"
	"math"

	"github.com/churnstream/churnstream/schemas"
)

// Source names the partition that an Accumulator counts, and the model whose profile it counts into.
type Source struct {
	ModelDigest string
	Topic       string
	Partition   int32
}

// Tally counts what happened to the events that an Accumulator was shown.
type Tally struct {
	Counted  uint64
	Late     uint64 // older than the window
	Ahead    uint64 // time further ahead of the clock than WindowConfig.Ahead
	Untimed  uint64 // no usable time
	Replayed uint64 // counted before, seen again
}

func (t *Tally) add(u Tally) {
	t.Counted += u.Counted
	t.Late += u.Late
	t.Ahead += u.Ahead
	t.Untimed += u.Untimed
	t.Replayed += u.Replayed
}

// Accumulator counts the events of one partition into the buckets of its event-time window. One goroutine owns it.
//
// Its life follows the transactions of the partition: Observe for each event of a batch, States before the
// transaction ends, then Commit or Discard. What was observed is pending until Commit and part of nothing but States.
// Counting is idempotent: an event that a bucket already holds, by offset, is not counted again, so a batch may be
// shown again after a crash at any step.
type Accumulator struct {
	source  Source
	window  WindowConfig
	counter *counter
	profile *Profile
	places  int
	metrics *Metrics // nil: none

	committed ring
	dropped   []int64 // starts of restored buckets that are outside the window: to be deleted with the next states
	tally     Tally

	// Pending since the last Commit or Discard. There is at most one delta a bucket of the window.
	now          int64 // ms; see SetClock
	newest       int64 // the newest bucket, pending ones included
	deltas       []*delta
	free         []*delta
	last         *delta // the one that the previous event went into; nil at first
	pendingTally Tally

	state   schemas.DriftState // reused by States
	sum     []uint32           // cells of state
	keyText []byte
}

// delta is what pending events add to one bucket.
type delta struct {
	start, end int64 // ms
	next       int64 // events with a lower offset are counted
	cells      []uint32
}

// NewAccumulator returns an empty accumulator. The profile's inputs must be the contract's.
func NewAccumulator(profile *Profile, contract schemas.Contract, cfg WindowConfig, source Source, metrics *Metrics) (*Accumulator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	counter, err := newCounter(profile, contract)
	if err != nil {
		return nil, fmt.Errorf("count drift of %s/%d: %w", source.Topic, source.Partition, err)
	}
	a := &Accumulator{
		source: source, window: cfg, counter: counter, profile: profile, places: profile.places, metrics: metrics,
		committed: newRing(cfg), newest: noBucket, now: math.MaxInt64 / 2,
		sum: make([]uint32, profile.places+schemas.DriftGroups),
	}
	a.state = schemas.DriftState{
		ModelDigest: source.ModelDigest, Topic: source.Topic, Partition: source.Partition, BucketWidth: cfg.widthSeconds(),
	}
	for i := range profile.Features {
		f := &profile.Features[i]
		end := f.first + len(f.Labels)
		a.state.Features = append(a.state.Features, f.Name)
		a.state.Counts = append(a.state.Counts, a.sum[f.first:end:end])
	}
	return a, nil
}

// SetClock tells the time in ms since the epoch that the following events' times are compared with. Until it is called
// no event is ahead.
func (a *Accumulator) SetClock(now int64) { a.now = now }

// Restore takes over the counts of one bucket that an earlier owner of the partition committed. It is called before the
// first Observe, in any order; of two states of one bucket the one that counted further wins. States of other models,
// partitions and widths are ignored.
func (a *Accumulator) Restore(state *schemas.DriftState) error {
	if state.ModelDigest != a.source.ModelDigest || state.Topic != a.source.Topic ||
		state.Partition != a.source.Partition || state.BucketWidth != a.window.widthSeconds() {
		return nil
	}
	if len(a.deltas) > 0 {
		return fmt.Errorf("restore drift of %s/%d: events are pending", a.source.Topic, a.source.Partition)
	}
	if err := checkState(state, a.profile, a.committed.width); err != nil {
		return fmt.Errorf("restore drift of %s/%d, bucket %d: %w", a.source.Topic, a.source.Partition, state.BucketStart, err)
	}
	if evicted := a.committed.slot(state.BucketStart).start; evicted != noBucket && evicted < state.BucketStart {
		a.dropped = append(a.dropped, evicted)
	}
	if !a.committed.adopt(state, a.places) {
		a.dropped = append(a.dropped, state.BucketStart)
	}
	a.newest = a.committed.newest
	return nil
}

// Observe counts one event: its offset, its time in ms since the epoch, its key (nil or empty: no customer), its inputs
// as decoded and the model's probability. Offsets ascend within a transaction. It does not allocate in the steady state.
func (a *Accumulator) Observe(offset, eventTime int64, key []byte, numbers []float64, categories [][]byte, probability float64) {
	d := a.last
	if d == nil || eventTime < d.start || eventTime >= d.end || eventTime > a.now {
		if d = a.deltaOf(eventTime); d == nil {
			return
		}
		a.last = d
	}
	if offset < d.next {
		a.pendingTally.Replayed++
		return
	}
	d.next = offset + 1
	a.counter.count(d.cells[:a.places:a.places], numbers, categories, probability)
	if len(key) > 0 {
		d.cells[a.places+customerGroup(key)]++
	}
	a.pendingTally.Counted++
}

// deltaOf finds or makes the delta for an event time; nil if the event is in no bucket of the window, which is counted.
func (a *Accumulator) deltaOf(eventTime int64) *delta {
	switch {
	case eventTime < 0: // Kafka's "no timestamp" is -1
		a.pendingTally.Untimed++
		return nil
	case eventTime > a.now+a.window.Ahead.Milliseconds():
		a.pendingTally.Ahead++
		return nil
	}
	start := align(eventTime, a.committed.width)
	if a.newest != noBucket && start < a.committed.oldest(a.newest) {
		a.pendingTally.Late++
		return nil
	}
	if start > a.newest {
		a.newest = start
		a.dropExpired()
	}
	for _, d := range a.deltas {
		if d.start == start {
			return d
		}
	}
	d := a.newDelta()
	d.start, d.end, d.next = start, start+a.committed.width, 0
	if b := a.committed.find(start); b != nil {
		d.next = b.next
	}
	a.deltas = append(a.deltas, d)
	return d
}

// dropExpired lets go of deltas that left the window while pending: a backlog can cross many windows in one batch.
func (a *Accumulator) dropExpired() {
	oldest := a.committed.oldest(a.newest)
	kept := a.deltas[:0]
	for _, d := range a.deltas {
		if d.start < oldest {
			a.free = append(a.free, d)
			continue
		}
		kept = append(kept, d)
	}
	a.deltas = kept
}

func (a *Accumulator) newDelta() *delta {
	if n := len(a.free); n > 0 {
		d := a.free[n-1]
		a.free = a.free[:n-1]
		clear(d.cells)
		return d
	}
	return &delta{cells: make([]uint32, a.places+schemas.DriftGroups)}
}

// States shows what the state topic has to hold once the transaction commits: the absolute counts of every bucket that
// pending events touched, and a nil state for every bucket that left the window, whose record is to be deleted. Key and
// state are valid during the call only. It may be called again with the same result until Commit or Discard.
func (a *Accumulator) States(emit func(key []byte, state *schemas.DriftState) error) error {
	for _, d := range a.deltas {
		copy(a.sum, d.cells)
		if b := a.committed.find(d.start); b != nil {
			for i, c := range b.cells {
				a.sum[i] += c
			}
		}
		if err := a.emit(d.start, d.next, &a.state, emit); err != nil {
			return err
		}
	}
	for _, start := range a.dropped {
		if err := a.emit(start, 0, nil, emit); err != nil {
			return err
		}
	}
	oldest := a.committed.oldest(a.newest)
	for i := range a.committed.slots {
		if start := a.committed.slots[i].start; start != noBucket && start < oldest {
			if err := a.emit(start, 0, nil, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

// Committed shows the absolute counts of every committed bucket; what States said, as of the last Commit. Key and state
// are valid during the call only.
func (a *Accumulator) Committed(emit func(key []byte, state *schemas.DriftState) error) error {
	for i := range a.committed.slots {
		b := &a.committed.slots[i]
		if b.start == noBucket {
			continue
		}
		copy(a.sum, b.cells)
		if err := a.emit(b.start, b.next, &a.state, emit); err != nil {
			return err
		}
	}
	return nil
}

// emit hands out the cells in sum as the state of a bucket, or its deletion if state is nil.
func (a *Accumulator) emit(start, next int64, state *schemas.DriftState, emit func([]byte, *schemas.DriftState) error) error {
	a.state.BucketStart, a.state.NextOffset = start, next
	copy(a.state.Groups[:], a.sum[a.places:])
	a.keyText = a.state.AppendKey(a.keyText[:0])
	return emit(a.keyText, state)
}

// Commit makes the pending events part of the committed counts, after the transaction has committed.
func (a *Accumulator) Commit() {
	oldest := a.committed.oldest(a.newest)
	for i := range a.committed.slots {
		if b := &a.committed.slots[i]; b.start < oldest {
			b.start = noBucket
		}
	}
	for _, d := range a.deltas {
		b := a.committed.enter(d.start, len(d.cells))
		for i, c := range d.cells {
			b.cells[i] += c
		}
		b.next = d.next
		if a.metrics != nil {
			a.metrics.addCounts(d.cells[:a.places])
		}
	}
	a.committed.newest = a.newest
	a.dropped = a.dropped[:0]
	a.tally.add(a.pendingTally)
	if a.metrics != nil {
		a.metrics.addTally(a.pendingTally)
	}
	a.release()
}

// Discard forgets the pending events, after the transaction was aborted. They may be shown again.
func (a *Accumulator) Discard() {
	a.newest = a.committed.newest
	a.release()
}

func (a *Accumulator) release() {
	a.free = append(a.free, a.deltas...)
	a.deltas = a.deltas[:0]
	a.last = nil
	a.pendingTally = Tally{}
}

// Tally is what happened to all events committed since the accumulator was made.
func (a *Accumulator) Tally() Tally { return a.tally }

// Size is the memory in bytes that the counts of this partition take when every bucket is filled.
func (a *Accumulator) Size() int {
	cells := a.places + schemas.DriftGroups
	return 4 * cells * (len(a.committed.slots) + len(a.deltas) + len(a.free) + 1)
}

// adopt stores the absolute counts of a state that has been checked. It returns false if the bucket is not in the
// window; a state that counted less far than the bucket held is ignored.
func (r *ring) adopt(state *schemas.DriftState, places int) bool {
	b := r.enter(state.BucketStart, places+schemas.DriftGroups)
	if b == nil {
		return false
	}
	if state.NextOffset < b.next {
		return true
	}
	b.next = state.NextOffset
	b.cells = b.cells[:0]
	for _, counts := range state.Counts {
		b.cells = append(b.cells, counts...)
	}
	b.cells = append(b.cells, state.Groups[:]...)
	return true
}

// checkState says whether a state has the profile's features and places and counts that can be true.
func checkState(state *schemas.DriftState, profile *Profile, width int64) error {
	switch {
	case state.BucketStart < 0 || state.BucketStart%width != 0:
		return fmt.Errorf("no bucket of %d ms starts at %d", width, state.BucketStart)
	case state.NextOffset < 0:
		return fmt.Errorf("next offset %d is negative", state.NextOffset)
	case len(state.Features) != len(profile.Features) || len(state.Counts) != len(profile.Features):
		return fmt.Errorf("%d features with %d counts, the profile has %d", len(state.Features), len(state.Counts), len(profile.Features))
	}
	events := uint64(0)
	for i := range profile.Features {
		f := &profile.Features[i]
		if state.Features[i] != f.Name || len(state.Counts[i]) != len(f.Labels) {
			return fmt.Errorf("feature %d is %q with %d places, the profile's is %q with %d", i, state.Features[i], len(state.Counts[i]), f.Name, len(f.Labels))
		}
		sum := uint64(0)
		for _, c := range state.Counts[i] {
			sum += uint64(c)
		}
		if i > 0 && sum != events {
			return fmt.Errorf("feature %q counts %d events, the ones before it %d", f.Name, sum, events)
		}
		events = sum
	}
	return nil
}
