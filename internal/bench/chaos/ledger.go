package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/schemas"
)

// ledger takes what the events topic holds and what a committed reader finds in the topics of the results, and gives
// what is wrong with them. The events topic is the truth: an event is shown before what came of it, every partition of
// each topic in its order. It remembers an offset of an event as a whole while it is recent, and later only if something
// is or may be wrong with it, so that a run may be long. One goroutine owns it.
type ledger struct {
	catalogue *catalogue
	topic     string // of the events
	recent    int    // offsets of a partition

	found      bits // by number: the events topic holds it
	partitions []*partitionLedger
	states     map[string]*kgo.Record // newest of the state topic, by key
	event      event

	verdict verdict
}

// recentOffsets of a partition are a minute or more of what the fastest run feeds.
const recentOffsets = 1 << 19

// bits is a set of small numbers.
type bits []uint64

func (b *bits) add(n uint64) {
	for n/64 >= uint64(len(*b)) {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bits) has(n uint64) bool { return n/64 < uint64(len(b)) && b[n/64]>>(n%64)&1 == 1 }

type place struct {
	partition int32
	offset    int64
}

// partitionLedger is one partition of the events.
type partitionLedger struct {
	first   int64            // offset of what is remembered as a whole
	numbers []uint64         // from there on: number of the event + 1; 0: the offset holds none
	seen    []uint8          // from there on: how often it came out
	late    map[int64]uint64 // by offset before first: number of the event + 1, which has not come out
	again   map[int64]bool   // offsets before first that came out more than once
	newest  []int64          // by customer: offset of the last score + 1
	counts  *drift.Accumulator
	pending int
}

// verdict is what was found. All but the first four are faults.
type verdict struct {
	Events      int `json:"events"`
	Scores      int `json:"scores"`
	DeadLetters int `json:"dead_letters"`
	States      int `json:"states"` // buckets compared with a recount

	Unwritten        int      `json:"unwritten"`          // acknowledged by the brokers, but not in the events topic
	Lost             int      `json:"lost"`               // events that came out nowhere
	Doubled          int      `json:"doubled"`            // events that came out more than once
	Disordered       int      `json:"disordered"`         // scores of a customer before those of earlier events
	WrongScores      int      `json:"wrong_scores"`       // scores of no event, or not as the event's must be
	WrongDeadLetters int      `json:"wrong_dead_letters"` // dead letters of no bad event, or not as it came
	WrongCounts      int      `json:"wrong_counts"`       // drift states that differ from a recount
	Examples         []string `json:"examples,omitempty"`
}

// faults is how many things are wrong.
func (v *verdict) faults() int {
	return v.Unwritten + v.Lost + v.Doubled + v.Disordered + v.WrongScores + v.WrongDeadLetters + v.WrongCounts
}

func (v *verdict) add(o *verdict) {
	v.Events += o.Events
	v.Scores += o.Scores
	v.DeadLetters += o.DeadLetters
	v.States += o.States
	v.Unwritten += o.Unwritten
	v.Lost += o.Lost
	v.Doubled += o.Doubled
	v.Disordered += o.Disordered
	v.WrongScores += o.WrongScores
	v.WrongDeadLetters += o.WrongDeadLetters
	v.WrongCounts += o.WrongCounts
	v.Examples = append(v.Examples, o.Examples...)
}

func (v *verdict) String() string {
	return fmt.Sprintf("%d events, %d scores, %d dead letters, %d drift states; lost %d, doubled %d, out of order %d, unwritten %d, wrong scores %d, wrong dead letters %d, wrong counts %d",
		v.Events, v.Scores, v.DeadLetters, v.States, v.Lost, v.Doubled, v.Disordered, v.Unwritten, v.WrongScores, v.WrongDeadLetters, v.WrongCounts)
}

// fault counts one and keeps the first few in words.
func (v *verdict) fault(counter *int, format string, args ...any) {
	*counter++
	if len(v.Examples) < 20 {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

func newLedger(c *catalogue, topic string) *ledger {
	return &ledger{catalogue: c, topic: topic, recent: recentOffsets, states: map[string]*kgo.Record{}}
}

// addEvent takes one record of the events topic and counts it into the recount of its partition.
func (l *ledger) addEvent(r *kgo.Record) error {
	l.verdict.Events++
	for int(r.Partition) >= len(l.partitions) {
		counts, err := drift.NewAccumulator(l.catalogue.profile, l.catalogue.model.Contract(), drift.DefaultWindowConfig(driftBucket),
			drift.Source{ModelDigest: l.catalogue.model.Digest(), Topic: l.topic, Partition: int32(len(l.partitions))}, nil)
		if err != nil {
			return err
		}
		l.partitions = append(l.partitions, &partitionLedger{
			late: map[int64]uint64{}, again: map[int64]bool{}, newest: make([]int64, customers), counts: counts,
		})
	}
	e := &l.event
	number, ok := numberOf(r)
	if ok && number < mostNumbers {
		l.catalogue.event(number, e)
		ok = same(e.key, r.Key) && same(e.value, r.Value) && sameHeaders(e.headers[:e.count], r.Headers) && len(r.Headers) == e.count
	}
	p := l.partitions[r.Partition]
	if !ok || r.Offset < p.first {
		return fmt.Errorf("%s/%d@%d: a record that this run did not feed", r.Topic, r.Partition, r.Offset)
	}
	l.found.add(number)
	l.age(p)
	for p.first+int64(len(p.numbers)) <= r.Offset {
		p.numbers, p.seen = append(p.numbers, 0), append(p.seen, 0)
	}
	p.numbers[r.Offset-p.first] = number + 1
	if e.class != "" {
		return nil
	}
	numbers, categories := l.catalogue.rows.Row(e.row)
	p.counts.Observe(drift.Event{Offset: r.Offset, Time: e.time, Key: e.key, Numbers: numbers, Categories: categories, Probability: l.catalogue.probabilities[e.row]})
	if p.pending++; p.pending == 1000 {
		p.counts.Commit()
		p.pending = 0
	}
	return nil
}

// age remembers of what is no longer recent only what did not come out once.
func (l *ledger) age(p *partitionLedger) {
	if len(p.numbers) < 2*l.recent {
		return
	}
	old := len(p.numbers) - l.recent
	p.settle(old)
	p.first += int64(old)
	p.numbers, p.seen = p.numbers[:copy(p.numbers, p.numbers[old:])], p.seen[:copy(p.seen, p.seen[old:])]
}

// settle notes which of the first n offsets remembered as a whole did not come out once.
func (p *partitionLedger) settle(n int) {
	for i, number := range p.numbers[:n] {
		offset := p.first + int64(i)
		switch seen := p.seen[i]; {
		case number == 0 || seen == 1:
		case seen == 0:
			p.late[offset] = number
		default:
			p.again[offset] = true
		}
	}
}

// mostNumbers bounds what a record may claim to be.
const mostNumbers = 1 << 34

func numberOf(r *kgo.Record) (uint64, bool) {
	if len(r.Headers) == 0 || r.Headers[0].Key != numberHeader || len(r.Headers[0].Value) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(r.Headers[0].Value), true
}

// known gives the event at a place, and marks that it came out. It is nil for one that came out so long ago that only
// this is known.
func (l *ledger) known(at place) (*event, bool) {
	if at.partition < 0 || int(at.partition) >= len(l.partitions) {
		return nil, false
	}
	p := l.partitions[at.partition]
	if at.offset < 0 || at.offset >= p.first+int64(len(p.numbers)) {
		return nil, false
	}
	number := p.late[at.offset]
	if at.offset >= p.first {
		number = p.numbers[at.offset-p.first]
		p.seen[at.offset-p.first] = min(p.seen[at.offset-p.first], 250) + 1
	} else if number == 0 {
		p.again[at.offset] = true
		return nil, true
	}
	delete(p.late, at.offset)
	if number == 0 {
		return nil, false
	}
	l.catalogue.event(number-1, &l.event)
	return &l.event, true
}

// addScore takes one record of the score topic.
func (l *ledger) addScore(r *kgo.Record) error {
	v := &l.verdict
	v.Scores++
	var s schemas.Score
	_, body, err := schemas.SplitFrame(r.Value)
	if err == nil {
		err = schemas.DecodeScore(body, &s)
	}
	if err != nil {
		v.fault(&v.WrongScores, "score %d@%d cannot be read: %v", r.Partition, r.Offset, err)
		return nil
	}
	at := place{s.SourcePartition, s.SourceOffset}
	e, ok := l.known(at)
	switch {
	case !ok || s.SourceTopic != l.topic:
		v.fault(&v.WrongScores, "score of %s/%d@%d, where there is no event", s.SourceTopic, at.partition, at.offset)
		return nil
	case e == nil:
		return nil
	case e.class != "":
		v.fault(&v.WrongScores, "score of %d@%d, which cannot be scored (%s)", at.partition, at.offset, e.class)
		return nil
	case !bytes.Equal(s.CustomerID, e.key) || !bytes.Equal(r.Key, e.key) || s.EventTime != e.time || r.Timestamp.UnixMilli() != e.time ||
		math.Float64bits(s.Probability) != math.Float64bits(l.catalogue.probabilities[e.row]):
		v.fault(&v.WrongScores, "score of %d@%d is %s, %d, %v; its event has %s, %d, %v", at.partition, at.offset,
			s.CustomerID, s.EventTime, s.Probability, e.key, e.time, l.catalogue.probabilities[e.row])
	}
	// A customer's scores are all in one partition of the topic, as are the events, unless partitions of those were added.
	newest := &l.partitions[at.partition].newest[e.customer]
	if at.offset+1 < *newest {
		v.fault(&v.Disordered, "%s: the score of %d@%d comes behind that of %d", e.key, at.partition, at.offset, *newest-1)
	}
	*newest = max(*newest, at.offset+1)
	return nil
}

// addDeadLetter takes one record of the dead-letter topic: it must hold what the events topic holds, to the byte.
func (l *ledger) addDeadLetter(r *kgo.Record) error {
	v := &l.verdict
	v.DeadLetters++
	wrong := func(format string, args ...any) {
		v.fault(&v.WrongDeadLetters, "dead letter %d@%d: "+format, append([]any{r.Partition, r.Offset}, args...)...)
	}
	text := map[string]string{}
	for _, h := range r.Headers {
		text[h.Key] = string(h.Value)
	}
	partition, err := strconv.ParseInt(text[schemas.HeaderPartition], 10, 32)
	offset, err2 := strconv.ParseInt(text[schemas.HeaderOffset], 10, 64)
	if err := cmp.Or(err, err2); err != nil {
		wrong("%v", err)
		return nil
	}
	at := place{int32(partition), offset}
	e, ok := l.known(at)
	switch {
	case !ok || text[schemas.HeaderTopic] != l.topic:
		wrong("of %d@%d, where there is no event", at.partition, at.offset)
	case e == nil:
	case e.class == "":
		wrong("of %d@%d, which can be scored", at.partition, at.offset)
	case text[schemas.HeaderClass] != string(e.class):
		wrong("its class is %s, not %s", text[schemas.HeaderClass], e.class)
	case !same(e.key, r.Key) || !same(e.value, r.Value):
		wrong("key or value are not those of %d@%d", at.partition, at.offset)
	case !sameHeaders(e.headers[:e.count], r.Headers):
		wrong("the headers are not those of %d@%d", at.partition, at.offset)
	}
	return nil
}

// sameHeaders says that all begins with the event's.
func sameHeaders(event []header, all []kgo.RecordHeader) bool {
	return len(all) >= len(event) && slices.EqualFunc(event, all[:len(event)], func(a header, b kgo.RecordHeader) bool {
		return a.key == b.Key && same(a.value, b.Value)
	})
}

// same tells null from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// addState takes one record of the drift-state topic.
func (l *ledger) addState(r *kgo.Record) error {
	l.states[string(r.Key)] = r
	return nil
}

// finish says what is wrong with everything that was shown of what was fed.
func (l *ledger) finish(fed numbers) (verdict, error) {
	v := &l.verdict
	unsure := fed.unsure
	for number := range fed.next {
		if len(unsure) > 0 && number >= unsure[0].end {
			unsure = unsure[1:]
		}
		if !l.found.has(number) && (len(unsure) == 0 || number < unsure[0].first) {
			v.fault(&v.Unwritten, "event %d was acknowledged, but the topic does not hold it", number)
		}
	}
	for i, p := range l.partitions {
		p.settle(len(p.numbers))
		for _, offset := range slices.Sorted(maps.Keys(p.late)) {
			v.fault(&v.Lost, "%d@%d came out nowhere", i, offset)
		}
		for _, offset := range slices.Sorted(maps.Keys(p.again)) {
			v.fault(&v.Doubled, "%d@%d came out more than once", i, offset)
		}
	}
	for _, p := range l.partitions {
		if err := l.compareCounts(p); err != nil {
			return *v, err
		}
	}
	for key, record := range l.states { // what compareCounts has not taken
		if record.Value == nil { // deleted
			continue
		}
		v.fault(&v.WrongCounts, "counts %s are of no event", key)
	}
	return *v, nil
}

// driftBucket is the default of drift.bucket.
const driftBucket = time.Minute

// compareCounts wants the newest states of the partition to be what one accumulator counts that saw all events in one go.
func (l *ledger) compareCounts(p *partitionLedger) error {
	v := &l.verdict
	p.counts.Commit()
	return p.counts.Committed(func(key []byte, want *schemas.DriftState) error {
		v.States++
		record := l.states[string(key)]
		delete(l.states, string(key))
		var got schemas.DriftState
		if record == nil || record.Value == nil {
			v.fault(&v.WrongCounts, "counts %s are missing", key)
		} else if err := decodeState(record, &got); err != nil {
			v.fault(&v.WrongCounts, "counts %s: %v", key, err)
		} else if !sameCounts(&got, want) {
			v.fault(&v.WrongCounts, "counts %s reach to offset %d: %v; recounted to %d: %v", key, got.NextOffset, got.Counts[0], want.NextOffset, want.Counts[0])
		}
		return nil
	})
}

// sameCounts compares what two states hold: up to which time finer buckets were absorbed depends on when the bucket was
// written last, and sums of floats on the batches.
func sameCounts(a, b *schemas.DriftState) bool {
	near := func(x, y float64) bool { return x == y || math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y)) }
	return a.NextOffset == b.NextOffset && a.Groups == b.Groups && slices.Equal(a.SegmentGroups, b.SegmentGroups) &&
		slices.EqualFunc(a.Counts, b.Counts, slices.Equal[[]uint32]) && slices.EqualFunc(a.Moments, b.Moments, near)
}

func decodeState(r *kgo.Record, state *schemas.DriftState) error {
	_, body, err := schemas.SplitFrame(r.Value)
	if err != nil {
		return err
	}
	return schemas.DecodeDriftState(body, state)
}
