package main

import (
	"bytes"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/drift"
	"github.com/churnstream/churnstream/internal/devregistry"
	"github.com/churnstream/churnstream/schemas"
)

// output is what a run without a fault leaves in its topics.
type output struct {
	events, scores, dead, states []*kgo.Record
	fed                          numbers
}

const (
	testTopic      = "events"
	testPartitions = 3
)

// perfect makes the output of n events.
func perfect(t *testing.T, c *catalogue, n int) *output {
	t.Helper()
	o := &output{fed: numbers{next: uint64(n)}}
	counts := make([]*drift.Accumulator, testPartitions)
	for p := range counts {
		var err error
		counts[p], err = drift.NewAccumulator(c.profile, c.model.Contract(), drift.DefaultWindowConfig(driftBucket),
			drift.Source{ModelDigest: c.model.Digest(), Topic: testTopic, Partition: int32(p)}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	var offsets [testPartitions]int64
	for number := range n {
		e := &event{}
		c.event(uint64(number), e)
		p := int32(e.customer % testPartitions)
		r := &kgo.Record{Topic: testTopic, Partition: p, Offset: offsets[p], Key: e.key, Value: e.value, Timestamp: time.UnixMilli(e.time)}
		offsets[p]++
		for _, h := range e.headers[:e.count] {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.key, Value: h.value})
		}
		o.events = append(o.events, r)
		if e.class != "" {
			o.dead = append(o.dead, &kgo.Record{Offset: int64(len(o.dead)), Key: r.Key, Value: r.Value, Headers: append(
				slices.Clone(r.Headers),
				kgo.RecordHeader{Key: schemas.HeaderClass, Value: []byte(e.class)}, kgo.RecordHeader{Key: schemas.HeaderTopic, Value: []byte(testTopic)},
				kgo.RecordHeader{Key: schemas.HeaderPartition, Value: strconv.AppendInt(nil, int64(p), 10)},
				kgo.RecordHeader{Key: schemas.HeaderOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
			)})
			continue
		}
		s := schemas.Score{CustomerID: e.key, SourceTopic: testTopic, SourcePartition: p, SourceOffset: r.Offset, EventTime: e.time, Probability: c.probabilities[e.row]}
		o.scores = append(o.scores, &kgo.Record{Offset: int64(len(o.scores)), Key: e.key, Value: s.AppendAvro(schemas.AppendFrame(nil, 1)), Timestamp: r.Timestamp})
		numbers, categories := c.rows.Row(e.row)
		counts[p].Observe(drift.Event{Offset: r.Offset, Time: e.time, Key: e.key, Numbers: numbers, Categories: categories, Probability: c.probabilities[e.row]})
		if number%100 == 0 {
			counts[p].Commit()
		}
	}
	for p, a := range counts {
		a.Commit()
		err := a.Committed(func(key []byte, state *schemas.DriftState) error {
			o.states = append(o.states, &kgo.Record{Partition: int32(p % 2), Key: bytes.Clone(key), Value: state.AppendAvro(schemas.AppendFrame(nil, 1))})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// way of showing an output to a ledger: in so many parts, the results of one after the events of the next.
type way struct{ parts, recent int }

func (o *output) judge(t *testing.T, c *catalogue, w way) verdict {
	t.Helper()
	l := newLedger(c, testTopic)
	l.recent = w.recent
	show := func(records []*kgo.Record, part int, take func(*kgo.Record) error) {
		if part < 0 || part >= w.parts {
			return
		}
		for _, r := range records[len(records)*part/w.parts : len(records)*(part+1)/w.parts] {
			if err := take(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for part := range w.parts + 1 {
		show(o.events, part, l.addEvent)
		show(o.scores, part-1, l.addScore)
		show(o.dead, part-1, l.addDeadLetter)
	}
	for part := range w.parts {
		show(o.states, part, l.addState)
	}
	v, err := l.finish(o.fed)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLedgerFindsWhatIsPlanted plants one fault at a time in an output without any, and wants it counted under its name
// and nothing else.
func TestLedgerFindsWhatIsPlanted(t *testing.T) {
	registry, err := devregistry.New(devregistry.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx := t.Context()
	go func() { ended <- registry.Run(ctx) }()
	// Twice the window of the statistics, so that buckets leave it.
	c, err := newCatalogue(ctx, t.TempDir()+"/model", registry.URL(), 7, 20, 1)
	if err != nil {
		t.Fatal(err)
	}
	const events = 7200
	ofClass := func(o *output, class schemas.ErrorClass) *kgo.Record {
		for _, r := range o.dead {
			if string(r.Headers[len(r.Headers)-4].Value) == string(class) {
				return r
			}
		}
		t.Fatalf("no dead letter of class %s", class)
		return nil
	}
	for name, c2 := range map[string]struct {
		plant func(o *output)
		want  verdict
	}{
		"nothing":       {func(*output) {}, verdict{}},
		"a lost score":  {func(o *output) { o.scores = slices.Delete(o.scores, 50, 51) }, verdict{Lost: 1}},
		"a lost letter": {func(o *output) { o.dead = slices.Delete(o.dead, 3, 4) }, verdict{Lost: 1}},
		"a doubled score": {func(o *output) {
			o.scores = slices.Insert(o.scores, 51, o.scores[50])
		}, verdict{Doubled: 1}},
		"a doubled letter": {func(o *output) { o.dead = append(o.dead, o.dead[5]) }, verdict{Doubled: 1}},
		"an event both scored and dead": {func(o *output) {
			at := o.dead[0].Headers
			offset, _ := strconv.ParseInt(string(at[len(at)-1].Value), 10, 64)
			s := schemas.Score{SourceTopic: testTopic, SourceOffset: offset, SourcePartition: int32(at[len(at)-2].Value[0] - '0')}
			o.scores = slices.Insert(o.scores, 1, &kgo.Record{Value: s.AppendAvro(schemas.AppendFrame(nil, 1))})
		}, verdict{WrongScores: 1, Doubled: 1}},
		"two scores of a customer in the wrong order": {func(o *output) {
			for i := range o.scores { // two that are close
				j := slices.IndexFunc(o.scores[i+1:i+20], func(r *kgo.Record) bool { return bytes.Equal(r.Key, o.scores[i].Key) })
				if j >= 0 {
					o.scores[i], o.scores[i+1+j] = o.scores[i+1+j], o.scores[i]
					return
				}
			}
		}, verdict{Disordered: 1}},
		"a score of another customer": {func(o *output) {
			r := *o.scores[9]
			r.Key = []byte("customer-none")
			o.scores[9] = &r
		}, verdict{WrongScores: 1}},
		"a score with another probability": {func(o *output) {
			var s schemas.Score
			if err := schemas.DecodeScore(o.scores[9].Value[5:], &s); err != nil {
				t.Fatal(err)
			}
			s.Probability += 1e-16
			s.Probability *= 1.0000001
			o.scores[9].Value = s.AppendAvro(schemas.AppendFrame(nil, 1))
		}, verdict{WrongScores: 1}},
		"a score that is no score": {func(o *output) { o.scores[9].Value = []byte{0, 1} }, verdict{WrongScores: 1, Lost: 1}},
		"a score of no event": {func(o *output) {
			s := schemas.Score{SourceTopic: testTopic, SourceOffset: events}
			o.scores = append(o.scores, &kgo.Record{Value: s.AppendAvro(schemas.AppendFrame(nil, 1))})
		}, verdict{WrongScores: 1}},
		"a letter with another byte": {func(o *output) {
			r := ofClass(o, schemas.TrailingBytes)
			r.Value = bytes.Clone(r.Value)
			r.Value[len(r.Value)-1] = 1
		}, verdict{WrongDeadLetters: 1}},
		"a letter with an empty value for null": {func(o *output) { ofClass(o, schemas.EmptyValue).Value = []byte{} }, verdict{WrongDeadLetters: 1}},
		"a letter with an empty key for null":   {func(o *output) { ofClass(o, schemas.NullKey).Key = []byte{} }, verdict{WrongDeadLetters: 1}},
		"a letter without the event's header": {func(o *output) {
			r := ofClass(o, schemas.BadMagic)
			r.Headers = r.Headers[1:]
		}, verdict{WrongDeadLetters: 1}},
		"a letter with another header": {func(o *output) {
			r := ofClass(o, schemas.BadMagic)
			r.Headers[1].Value = []byte("of somebody else")
		}, verdict{WrongDeadLetters: 1}},
		"a letter of another class": {func(o *output) {
			r := ofClass(o, schemas.BadMagic)
			r.Headers[len(r.Headers)-4].Value = []byte(schemas.Truncated)
		}, verdict{WrongDeadLetters: 1}},
		"a wrong count": {func(o *output) {
			var s schemas.DriftState
			if err := schemas.DecodeDriftState(o.states[2].Value[5:], &s); err != nil {
				t.Fatal(err)
			}
			s.Counts[0][0]++
			o.states[2].Value = s.AppendAvro(schemas.AppendFrame(nil, 1))
		}, verdict{WrongCounts: 1}},
		"a lost count":    {func(o *output) { o.states = slices.Delete(o.states, 2, 3) }, verdict{WrongCounts: 1}},
		"a deleted count": {func(o *output) { o.states = append(o.states, &kgo.Record{Key: o.states[4].Key}) }, verdict{WrongCounts: 1}},
		"a count of no event": {func(o *output) {
			r := *o.states[2]
			r.Key = []byte("elsewhere")
			o.states = append(o.states, &r)
		}, verdict{WrongCounts: 1}},
		"an acknowledged event that the topic does not hold": {func(o *output) { o.fed.next++ }, verdict{Unwritten: 1}},
		"an event that was never acknowledged": {func(o *output) {
			o.fed = numbers{events + 1, []span{{events, events + 1}}}
		}, verdict{}},
	} {
		t.Run(name, func(t *testing.T) {
			o := perfect(t, c, events)
			c2.plant(o)
			// All at once; while it grows: results that come while their event is recent, and long after.
			for _, w := range []way{{1, recentOffsets}, {10, 500}, {10, 64}} {
				got := o.judge(t, c, w)
				faults := verdict{
					Unwritten: got.Unwritten, Lost: got.Lost, Doubled: got.Doubled, Disordered: got.Disordered,
					WrongScores: got.WrongScores, WrongDeadLetters: got.WrongDeadLetters, WrongCounts: got.WrongCounts,
				}
				if faults.String() != c2.want.String() {
					t.Errorf("%v: found %s\nwant  %s\n%v", w, &faults, &c2.want, got.Examples)
				}
				if got.faults() != len(got.Examples) {
					t.Errorf("%v: %d faults, in words: %q", w, got.faults(), got.Examples)
				}
				if got.Events != len(o.events) || got.Scores != len(o.scores) || got.DeadLetters != len(o.dead) || got.States == 0 {
					t.Errorf("%v: looked at %s", w, &got)
				}
			}
		})
	}
}
