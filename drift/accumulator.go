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

// Accumulator counts the events of one partition into the buckets of its event-time rings. One goroutine owns it.
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
	metrics *Metrics // nil: none

	committed rings
	dropped   []bucketName // restored buckets that say nothing any more: to be deleted with the next states
	tally     Tally

	// others are the keys of what other models counted of this partition, and the newest bucket from which on no window
	// can hold it any more; othersDue is the least of them, and departed those that the last States called deleted.
	others    map[string]int64
	othersDue int64
	departed  []string

	// Pending since the last Commit or Discard. There is at most one delta a bucket of the rings.
	latest       int64 // ms; see SetClock
	newest       int64 // the newest bucket, pending ones included
	leaving      []bucketName
	deltas       []*delta
	free         []*delta
	last         *delta // the one of the finest ring that an event went into last; nil at first
	finder       classFinder
	pendingTally Tally

	state   schemas.DriftState // reused by States
	sum     *cells             // of state
	keyText []byte
}

type bucketName struct {
	level int
	start int64 // ms
}

// delta is what pending events add to one bucket, and the committed buckets that fall off their ring into it.
type delta struct {
	level      int
	start, end int64 // ms
	counted    int64 // events with a lower offset are committed already, in this bucket or in one that holds the same time
	next       int64 // behind the last event of this delta
	cells      *cells
	carried    []*bucket
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
		source: source, window: cfg, counter: counter, profile: profile, metrics: metrics,
		committed: newRings(cfg, profile), newest: noBucket, latest: math.MaxInt64,
		sum: newCells(profile), others: map[string]int64{}, othersDue: math.MaxInt64, finder: newClassFinder(profile.Classes),
	}
	a.state = schemas.DriftState{
		ModelDigest: source.ModelDigest, Topic: source.Topic, Partition: source.Partition,
		SegmentGroups: a.sum.counts[profile.places+schemas.DriftGroups : profile.firstClass()],
		ClassEvents:   a.sum.counts[profile.firstClass():],
		Moments:       make([]float64, momentFields*profile.moments),
	}
	for i := range profile.Features {
		f := &profile.Features[i]
		end := f.first + len(f.Labels)
		a.state.Features = append(a.state.Features, f.Name)
		a.state.Counts = append(a.state.Counts, a.sum.counts[f.first:end:end])
	}
	return a, nil
}

// SetClock tells the time in ms since the epoch that the following events' times are compared with. Until it is called
// no event is ahead.
func (a *Accumulator) SetClock(now int64) { a.latest = now + a.window.Ahead.Milliseconds() }

// Restore takes over the counts of one bucket that an earlier owner of the partition committed. It is called before the
// first Observe, in any order; of two states of one bucket the one that counted further wins. States of other partitions
// are ignored. Those of other models and widths are only remembered: once they are older than any window, which whoever
// counts for that model would find too, States calls them deleted.
func (a *Accumulator) Restore(state *schemas.DriftState) error {
	level := a.window.level(state.BucketWidth)
	if state.Topic != a.source.Topic || state.Partition != a.source.Partition {
		return nil
	}
	if state.ModelDigest != a.source.ModelDigest || level < 0 {
		a.remember(state, level)
		return nil
	}
	if len(a.deltas) > 0 {
		return fmt.Errorf("restore drift of %s/%d: events are pending", a.source.Topic, a.source.Partition)
	}
	if err := checkState(state, a.profile, a.committed.levels[level].width); err != nil {
		return fmt.Errorf("restore drift of %s/%d, bucket %d: %w", a.source.Topic, a.source.Partition, state.BucketStart, err)
	}
	a.committed.adopt(level, state, func(level int, start int64) { a.dropped = append(a.dropped, bucketName{level, start}) })
	a.newest = a.committed.newest
	return nil
}

// maxOthers bounds the memory for the states of other models: hundreds of models.
const maxOthers = 50_000

// remember keeps the key of another model's bucket and when no window can hold it any more. The rings of another width are
// not known: it is taken for the finest of the usual ones, which lasts longest.
func (a *Accumulator) remember(state *schemas.DriftState, level int) {
	if len(a.others) >= maxOthers || state.BucketWidth <= 0 || state.BucketStart < 0 {
		return
	}
	lasts := 8 * 1440 * 1000 * int64(state.BucketWidth)
	if level >= 0 {
		coarsest := a.window.Rings[len(a.window.Rings)-1]
		lasts = coarsest.Width.Milliseconds() * int64(coarsest.Buckets+1)
	}
	due := state.BucketStart + lasts
	a.others[string(state.AppendKey(nil))] = due
	a.othersDue = min(a.othersDue, due)
}

// Deleted takes note that the record of a key has been deleted from the state topic.
func (a *Accumulator) Deleted(key []byte) { delete(a.others, string(key)) }

// Event is one event as the statistics see it.
type Event struct {
	Offset      int64
	Time        int64  // ms since the epoch
	Key         []byte // nil or empty: no customer
	Numbers     []float64
	Categories  [][]byte // with Numbers the inputs as decoded
	Probability float64  // the model's

	group, class int // set while the event is counted
}

// Observe counts events. Offsets ascend within a transaction. It does not allocate in the steady state, and what the
// events refer to is not kept. Many at a time are counted faster than one by one.
func (a *Accumulator) Observe(events ...Event) {
	for len(events) > 0 {
		d := a.last
		if d == nil || !a.holds(d, events[0].Time) {
			if d = a.deltaOf(events[0].Time); d == nil {
				events = events[1:]
				continue
			}
			if d.level == 0 { // a coarser bucket spans times that belong into finer ones
				a.last = d
			}
		}
		if events[0].Offset < d.counted {
			a.pendingTally.Replayed++
			events = events[1:]
			continue
		}
		n := 1
		for d.level == 0 && n < len(events) && a.holds(d, events[n].Time) && events[n].Offset >= d.counted {
			n++
		}
		for i := range events[:n] {
			e := &events[i]
			e.group, e.class = groupOf(e.Key), a.finder.at(e.Time)
		}
		a.counter.count(d.cells, events[:n])
		d.next = events[n-1].Offset + 1
		a.pendingTally.Counted += uint64(n)
		events = events[n:]
	}
}

// holds says whether an event of time t counts in d.
func (a *Accumulator) holds(d *delta, t int64) bool {
	return t >= d.start && t < d.end && t <= a.latest
}

// deltaOf finds or makes the delta for an event time; nil if the event is in no bucket of the rings, which is counted.
func (a *Accumulator) deltaOf(eventTime int64) *delta {
	switch {
	case eventTime < 0: // Kafka's "no timestamp" is -1
		a.pendingTally.Untimed++
		return nil
	case eventTime > a.latest:
		a.pendingTally.Ahead++
		return nil
	}
	if start := align(eventTime, a.window.finest()); start > a.newest {
		a.advance(start)
	}
	level := a.committed.level(eventTime, a.newest)
	if level < 0 {
		a.pendingTally.Late++
		return nil
	}
	return a.delta(level, eventTime)
}

// delta finds or makes what is added to the bucket of a level that holds t.
func (a *Accumulator) delta(level int, t int64) *delta {
	width := a.committed.levels[level].width
	start := align(t, width)
	for _, d := range a.deltas {
		if d.start == start && d.level == level {
			return d
		}
	}
	var d *delta
	if n := len(a.free); n > 0 {
		d = a.free[n-1]
		a.free = a.free[:n-1]
		d.cells.reset()
	} else {
		d = &delta{cells: newCells(a.profile)}
	}
	d.level, d.start, d.end, d.counted, d.next = level, start, start+width, a.committed.counted(t), 0
	a.deltas = append(a.deltas, d)
	return d
}

// advance moves the rings on to a newer bucket. What falls off its ring goes into the coarser bucket around it, and what
// falls off the last ring is let go.
func (a *Accumulator) advance(newest int64) {
	a.newest, a.last = newest, nil
	for level := range a.committed.levels {
		l := &a.committed.levels[level]
		oldest := l.oldest(newest)
		for i := range l.slots {
			b := &l.slots[i]
			if b.start == noBucket || b.start >= oldest || b.leaving {
				continue
			}
			b.leaving = true
			a.leaving = append(a.leaving, bucketName{level, b.start})
			if into := a.committed.level(b.start, newest); into >= 0 {
				d := a.delta(into, b.start)
				d.carried = append(d.carried, b)
				d.next, d.counted = max(d.next, b.next), max(d.counted, b.next)
			}
		}
	}
	for i := 0; i < len(a.deltas); {
		d := a.deltas[i]
		if d.start >= a.committed.levels[d.level].oldest(newest) {
			i++
			continue
		}
		a.deltas = append(a.deltas[:i], a.deltas[i+1:]...)
		if into := a.committed.level(d.start, newest); into >= 0 {
			coarser := a.delta(into, d.start)
			coarser.cells.add(d.cells)
			coarser.carried = append(coarser.carried, d.carried...)
			coarser.next, coarser.counted = max(coarser.next, d.next), max(coarser.counted, d.counted)
		}
		a.recycle(d)
	}
}

// States shows what the state topic has to hold once the transaction commits: the absolute counts of every bucket that
// pending events touched, coarse ones first, and a nil state for every bucket that fell off its ring, whose record is to be
// deleted, as it is for what other models counted before any window. Key and state are valid during the call only. It may be called again with the same result until Commit or
// Discard.
func (a *Accumulator) States(emit func(key []byte, state *schemas.DriftState) error) error {
	for level := len(a.committed.levels) - 1; level >= 0; level-- {
		for _, d := range a.deltas {
			if d.level != level {
				continue
			}
			a.sum.reset()
			next, absorbed := d.next, a.absorbs(d)
			if b := a.committed.find(level, d.start); b != nil {
				a.sum.add(b.cells)
				next, absorbed = max(next, b.next), max(absorbed, b.absorbed)
			}
			a.sum.add(d.cells)
			for _, b := range d.carried {
				a.sum.add(b.cells)
			}
			if err := a.emit(bucketName{level, d.start}, next, absorbed, &a.state, emit); err != nil {
				return err
			}
		}
	}
	for _, gone := range [][]bucketName{a.dropped, a.leaving} {
		for _, name := range gone {
			if err := a.emit(name, 0, 0, nil, emit); err != nil {
				return err
			}
		}
	}
	a.departed = a.departed[:0]
	if a.newest < a.othersDue {
		return nil
	}
	for key, due := range a.others {
		if a.newest >= due {
			a.departed = append(a.departed, key)
		}
	}
	for _, key := range a.departed {
		if err := emit([]byte(key), nil); err != nil {
			return err
		}
	}
	return nil
}

// absorbs is the end of what the delta's bucket has taken over from finer ones.
func (a *Accumulator) absorbs(d *delta) int64 {
	if d.level == 0 {
		return 0
	}
	return max(0, min(a.committed.levels[d.level-1].oldest(a.newest), d.end))
}

// Committed shows the absolute counts of every committed bucket; what States said, as of the last Commit. Key and state
// are valid during the call only.
func (a *Accumulator) Committed(emit func(key []byte, state *schemas.DriftState) error) error {
	for level := range a.committed.levels {
		for i := range a.committed.levels[level].slots {
			b := &a.committed.levels[level].slots[i]
			if b.start == noBucket {
				continue
			}
			a.sum.reset()
			a.sum.add(b.cells)
			if err := a.emit(bucketName{level, b.start}, b.next, b.absorbed, &a.state, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

// emit hands out the cells in sum as the state of a bucket, or its deletion if state is nil.
func (a *Accumulator) emit(name bucketName, next, absorbed int64, state *schemas.DriftState, emit func([]byte, *schemas.DriftState) error) error {
	a.state.BucketStart, a.state.NextOffset, a.state.AbsorbedUntil = name.start, next, absorbed
	a.state.BucketWidth = int32(a.committed.levels[name.level].width / 1000)
	copy(a.state.Groups[:], a.sum.counts[a.profile.places:])
	for i := range a.sum.moments {
		m := &a.sum.moments[i]
		to := a.state.Moments[i*momentFields:]
		to[0], to[1], to[2], to[3] = m.Sum, m.Squares, m.Minimum, m.Maximum
	}
	a.keyText = a.state.AppendKey(a.keyText[:0])
	return emit(a.keyText, state)
}

// Commit makes the pending events part of the committed counts, after the transaction has committed.
func (a *Accumulator) Commit() {
	// Coarse ones first: a bucket that falls off its ring is read before its slot is taken.
	for level := len(a.committed.levels) - 1; level >= 0; level-- {
		for _, d := range a.deltas {
			if d.level != level {
				continue
			}
			b := a.committed.enter(level, d.start)
			b.cells.add(d.cells)
			for _, carried := range d.carried {
				b.cells.add(carried.cells)
			}
			b.next, b.absorbed = max(b.next, d.next), max(b.absorbed, a.absorbs(d))
			if a.metrics != nil {
				a.metrics.addCounts(d.cells.counts[:a.profile.places])
			}
		}
	}
	for _, name := range a.leaving {
		if b := a.committed.find(name.level, name.start); b != nil {
			b.start, b.leaving = noBucket, false
		}
	}
	a.committed.newest = a.newest
	a.dropped = a.dropped[:0]
	a.depart()
	a.tally.add(a.pendingTally)
	if a.metrics != nil {
		a.metrics.addTally(a.pendingTally)
	}
	a.release()
}

// depart forgets the keys that the last States called deleted.
func (a *Accumulator) depart() {
	if len(a.departed) == 0 {
		return
	}
	for _, key := range a.departed {
		delete(a.others, key)
	}
	a.departed, a.othersDue = a.departed[:0], math.MaxInt64
	for _, due := range a.others {
		a.othersDue = min(a.othersDue, due)
	}
}

// Discard forgets the pending events, after the transaction was aborted. They may be shown again.
func (a *Accumulator) Discard() {
	for _, name := range a.leaving {
		a.committed.find(name.level, name.start).leaving = false
	}
	a.newest = a.committed.newest
	a.departed = a.departed[:0]
	a.release()
}

func (a *Accumulator) release() {
	for _, d := range a.deltas {
		a.recycle(d)
	}
	a.deltas, a.leaving = a.deltas[:0], a.leaving[:0]
	a.last = nil
	a.pendingTally = Tally{}
}

func (a *Accumulator) recycle(d *delta) {
	d.carried = d.carried[:0]
	a.free = append(a.free, d)
}

// Tally is what happened to all events committed since the accumulator was made.
func (a *Accumulator) Tally() Tally { return a.tally }

// Size is the memory in bytes that the counts of this partition take when every bucket is filled.
func (a *Accumulator) Size() int {
	buckets := len(a.deltas) + len(a.free) + 1
	for i := range a.committed.levels {
		buckets += len(a.committed.levels[i].slots)
	}
	return buckets * (4*a.profile.cells() + 8*momentFields*a.profile.moments)
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
	case len(state.SegmentGroups) != schemas.DriftGroups*profile.segments:
		return fmt.Errorf("%d groups of segments, the profile has %d segments", len(state.SegmentGroups), profile.segments)
	case len(state.Moments) != momentFields*profile.moments:
		return fmt.Errorf("%d moments, the profile has %d numeric features; an older worker counted none", len(state.Moments), profile.moments)
	case len(state.ClassEvents) != profile.classes()*(1+profile.segments):
		return fmt.Errorf("events of %d classes of time, the profile has %d for all events and each of %d segments", len(state.ClassEvents), profile.classes(), profile.segments)
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
		if f.Segment != nil {
			if sum > events {
				return fmt.Errorf("feature %q counts %d events, there are %d", f.Name, sum, events)
			}
			if n := profile.classed(state, 1+profile.segment(i)); n != sum && profile.Classes != nil {
				return fmt.Errorf("feature %q counts %d events, its classes of time %d", f.Name, sum, n)
			}
			continue
		}
		if i > 0 && sum != events {
			return fmt.Errorf("feature %q counts %d events, the ones before it %d", f.Name, sum, events)
		}
		events = sum
	}
	if n := profile.classed(state, 0); n != events && profile.Classes != nil {
		return fmt.Errorf("the classes of time count %d events, the features %d", n, events)
	}
	return nil
}

// classed is the events that a state has in all classes of time: block 0 of all events, the others of a segment each.
func (p *Profile) classed(state *schemas.DriftState, block int) (sum uint64) {
	for _, c := range state.ClassEvents[block*p.classes() : (block+1)*p.classes()] {
		sum += uint64(c)
	}
	return sum
}
