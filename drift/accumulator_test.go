package drift

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/churnstream/churnstream/schemas"
)

const minute = int64(60_000)

// stateTopic is the compacted topic: the newest value of each key.
type stateTopic map[string][]byte

func (topic stateTopic) put(key []byte, state *schemas.DriftState) error {
	if state == nil {
		delete(topic, string(key))
		return nil
	}
	topic[string(key)] = state.AppendAvro(nil)
	return nil
}

func (topic stateTopic) states(t require.TestingT) []*schemas.DriftState {
	var states []*schemas.DriftState
	for _, key := range slices.Sorted(maps.Keys(topic)) {
		state := new(schemas.DriftState)
		require.NoError(t, schemas.DecodeDriftState(topic[key], state))
		require.Equal(t, key, string(state.AppendKey(nil)))
		states = append(states, state)
	}
	return states
}

// at names a bucket: its width in seconds and its start.
type at struct {
	width int32
	start int64
}

// events is how many events the topic holds in each bucket.
func (topic stateTopic) events(t require.TestingT) map[at]uint32 {
	events := make(map[at]uint32)
	for _, state := range topic.states(t) {
		for _, c := range state.Counts[0] {
			events[at{state.BucketWidth, state.BucketStart}] += c
		}
	}
	return events
}

// observe shows n events of one time.
func observe(a *Accumulator, first int64, n int, eventTime int64) {
	numbers, categories := make([]float64, 19), make([][]byte, 19)
	for i := range int64(n) {
		a.Observe(Event{Offset: first + i, Time: eventTime, Key: []byte("customer"), Numbers: numbers, Categories: categories, Probability: 0.5})
	}
}

func TestPendingEventsCountOnlyAfterCommit(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	start := align(hour, minute)
	observe(a, 0, 3, hour)
	topic := stateTopic{}
	require.NoError(t, a.Committed(topic.put))
	require.Empty(t, topic)
	require.NoError(t, a.States(topic.put))
	require.Equal(t, map[at]uint32{{60, start}: 3}, topic.events(t))
	a.Discard()
	require.Zero(t, a.Tally())

	observe(a, 0, 2, hour)
	a.Commit()
	observe(a, 2, 5, hour+1)
	require.NoError(t, a.States(topic.put))
	require.Equal(t, map[at]uint32{{60, start}: 7}, topic.events(t), "states are absolute")
	a.Commit()
	committed := stateTopic{}
	require.NoError(t, a.Committed(committed.put))
	require.Equal(t, topic, committed)
	require.Equal(t, Tally{Counted: 7}, a.Tally())
	state := topic.states(t)[0]
	require.Equal(t, int64(7), state.NextOffset)
	require.Equal(t, uint32(7), state.Groups[customerGroup([]byte("customer"))])
}

func TestAnEventIsInTheFinestBucketThatTheRingsHoldForItsTime(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	const day = 1440 * minute
	start, today := align(hour, minute), align(hour, day)
	a.SetClock(hour)
	observe(a, 0, 1, hour)
	observe(a, 1, 1, start-59*minute)                       // late, yet in the finest ring
	observe(a, 2, 2, start-59*minute-1)                     // older: into its hour
	observe(a, 4, 3, align(hour, 60*minute)-23*60*minute-1) // older than the hours: into its day
	observe(a, 7, 2, today-6*day-1)                         // older than all rings
	observe(a, 9, 4, hour+(5*time.Minute).Milliseconds()+1) // absurd
	observe(a, 13, 8, -1)                                   // without a timestamp
	topic := stateTopic{}
	require.NoError(t, a.States(topic.put))
	a.Commit()
	require.Equal(t, Tally{Counted: 7, Late: 2, Ahead: 4, Untimed: 8}, a.Tally())
	want := map[at]uint32{
		{60, start}: 1, {60, start - 59*minute}: 1, {3600, align(start-60*minute, 60*minute)}: 2, {86400, today - day}: 3,
	}
	require.Equal(t, want, topic.events(t))

	observe(a, 21, 1, hour+(5*time.Minute).Milliseconds()) // as far ahead as skew may be: moves the ring on
	require.NoError(t, a.States(topic.put))
	a.Commit()
	delete(want, at{60, start - 59*minute})
	want[at{60, start + 5*minute}] = 1
	want[at{3600, align(start-59*minute, 60*minute)}]++
	require.Equal(t, want, topic.events(t), "a bucket that falls off its ring goes into the coarser one")
}

func TestOnlyBucketsThatChangedAreWritten(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	written := func() (keys []string) {
		require.NoError(t, a.States(func(key []byte, state *schemas.DriftState) error {
			keys = append(keys, string(key))
			return nil
		}))
		a.Commit()
		return keys
	}
	for n := range int64(120) {
		observe(a, n, 1, hour+n*minute)
		written()
	}
	observe(a, 120, 1, hour+119*minute)
	require.Len(t, written(), 1, "an event of the newest minute")
	observe(a, 121, 1, hour+120*minute)
	require.Len(t, written(), 3, "a new minute: itself, the hour that takes the oldest one, and the oldest one's deletion")
	require.Empty(t, written())
}

func TestAnAbsurdTimeIsRejectedAlsoInABucketThatIsOpen(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	a.SetClock(hour)
	latest := hour + (5 * time.Minute).Milliseconds()
	require.Equal(t, align(latest, minute), align(latest+1, minute))
	observe(a, 0, 1, latest)
	observe(a, 1, 1, latest+1)
	a.Commit()
	require.Equal(t, Tally{Counted: 1, Ahead: 1}, a.Tally())
}

func TestAnAbortedBatchDoesNotMoveTheWindow(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	observe(a, 0, 1, hour)
	a.Commit()
	observe(a, 1, 1, hour+500*minute)
	a.Discard()
	observe(a, 1, 1, hour)
	a.Commit()
	require.Equal(t, Tally{Counted: 2}, a.Tally())
}

func TestRestoredBucketsThatFitNoRingAnyMoreAreTakenOverOrDeleted(t *testing.T) {
	long, profile, contract := newAccumulator(t, minutes)
	topic := stateTopic{}
	for n := range int64(60) {
		observe(long, n, 1, hour+n*minute)
	}
	require.NoError(t, long.States(topic.put))
	states := topic.states(t)
	require.Len(t, states, 60)
	shorter := WindowConfig{Rings: []RingConfig{{time.Minute, 50}, {time.Hour, 24}}, Horizons: minutes.Horizons}
	kept := maps.Clone(topic)
	a, err := NewAccumulator(profile, contract, shorter, source, nil)
	require.NoError(t, err)
	for _, state := range states {
		require.NoError(t, a.Restore(state))
	}
	observe(a, 60, 1, hour+60*minute)
	require.NoError(t, a.States(kept.put))
	a.Commit()
	again := stateTopic{}
	require.NoError(t, a.Committed(again.put))
	require.Equal(t, kept, again)
}

func TestReplayedEventsAreCountedOnce(t *testing.T) {
	a, profile, contract := newAccumulator(t, minutes)
	topic := stateTopic{}
	observe(a, 0, 10, hour)
	observe(a, 10, 10, hour+minute)
	require.NoError(t, a.States(topic.put))
	a.Commit()

	// The next batch touches both buckets; of its states only the first reaches the topic before a crash.
	observe(a, 20, 5, hour)
	observe(a, 25, 5, hour+minute)
	lost := errors.New("connection lost")
	require.ErrorIs(t, a.States(func(key []byte, state *schemas.DriftState) error {
		if state.BucketStart > hour {
			return lost
		}
		return topic.put(key, state)
	}), lost)

	again, err := NewAccumulator(profile, contract, minutes, source, nil)
	require.NoError(t, err)
	for _, state := range topic.states(t) {
		require.NoError(t, again.Restore(state))
	}
	observe(again, 20, 5, hour)
	observe(again, 25, 5, hour+minute)
	require.NoError(t, again.States(topic.put))
	again.Commit()
	start := align(hour, minute)
	require.Equal(t, map[at]uint32{{60, start}: 15, {60, start + minute}: 15}, topic.events(t))
	require.Equal(t, Tally{Counted: 5, Replayed: 5}, again.Tally())
}

func TestRestoreIgnoresForeignStatesAndRefusesImpossibleOnes(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	topic := stateTopic{}
	observe(a, 0, 3, hour)
	require.NoError(t, a.States(topic.put))
	a.Discard()
	for name, change := range map[string]func(*schemas.DriftState){
		"model": func(s *schemas.DriftState) { s.ModelDigest = "sha256:def" },
		"topic": func(s *schemas.DriftState) { s.Topic = "payments" }, "partition": func(s *schemas.DriftState) { s.Partition++ },
		"width": func(s *schemas.DriftState) { s.BucketWidth = 7200 },
	} {
		state := topic.states(t)[0]
		change(state)
		require.NoError(t, a.Restore(state), name)
		require.NoError(t, a.Committed(func([]byte, *schemas.DriftState) error { return errors.New(name) }))
	}
	for want, change := range map[string]func(*schemas.DriftState){
		"no bucket of 60000 ms": func(s *schemas.DriftState) { s.BucketStart++ },
		"negative":              func(s *schemas.DriftState) { s.NextOffset = -1 },
		"19 features":           func(s *schemas.DriftState) { s.Features = s.Features[1:] },
		`"other" with`:          func(s *schemas.DriftState) { s.Features[3] = "other" },
		"with 12 places":        func(s *schemas.DriftState) { s.Counts[3] = s.Counts[3][1:] },
		"counts 4 events":       func(s *schemas.DriftState) { s.Counts[3][0]++ },
	} {
		state := topic.states(t)[0]
		change(state)
		require.ErrorContains(t, a.Restore(state), want)
	}
	observe(a, 0, 1, hour)
	require.ErrorContains(t, a.Restore(topic.states(t)[0]), "pending")
}

func TestObserveDoesNotAllocate(t *testing.T) {
	a, _, contract := newAccumulator(t, minutes)
	rows, probabilities := customers(contract, 100, 3)
	offset := int64(0)
	transaction := func() {
		for i := range 100 {
			numbers, categories := rows.Row(i)
			a.Observe(Event{Offset: offset, Time: hour + offset*100, Key: []byte("customer"), Numbers: numbers, Categories: categories, Probability: probabilities[i]})
			offset++
		}
		_ = a.States(func([]byte, *schemas.DriftState) error { return nil })
		a.Commit()
	}
	for range 400 { // until every bucket of the finest ring has been filled
		transaction()
	}
	require.Zero(t, testing.AllocsPerRun(200, transaction))
}

// Whatever happens between batches, the state topic ends as a recount of the input gives it.
func TestStateTopicEqualsARecountAfterCommitsAbortsAndCrashes(t *testing.T) {
	profile, contract := telcoProfile(t)
	rows, probabilities := customers(contract, 50, 9)
	cfg := WindowConfig{
		Rings:    []RingConfig{{time.Second, 5}, {5 * time.Second, 3}, {15 * time.Second, 3}},
		Horizons: []time.Duration{time.Second}, Ahead: time.Minute,
	}
	keys := customerKeys(50)
	rapid.Check(t, func(t *rapid.T) {
		clock := rapid.OneOf(rapid.Int64Range(0, 3000), rapid.Int64Range(0, 20_000))
		var times []int64
		at := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			at += clock.Draw(t, "step") / 2
			times = append(times, max(-1, at-clock.Draw(t, "lateness")*3))
		}
		show := func(a *Accumulator, from, to int) {
			for i := from; i < to; i++ {
				numbers, categories := rows.Row(i % 50)
				a.Observe(Event{Offset: int64(i), Time: times[i], Key: keys[i%50], Numbers: numbers, Categories: categories, Probability: probabilities[i%50]})
			}
		}
		start := func() *Accumulator {
			a, err := NewAccumulator(profile, contract, cfg, source, nil)
			require.NoError(t, err)
			return a
		}
		topic := stateTopic{}
		a, position := start(), 0
		for position < len(times) {
			end := min(len(times), position+rapid.IntRange(1, 20).Draw(t, "batch"))
			show(a, position, end)
			produced := maps.Clone(topic)
			require.NoError(t, a.States(produced.put))
			switch rapid.SampledFrom([]string{"commit", "commit", "abort", "crash before", "crash after", "crash between"}).Draw(t, "end") {
			case "commit":
				a.Commit()
				topic, position = produced, end
				continue
			case "abort":
				a.Discard()
				continue
			case "crash after":
				topic, position = produced, end
			case "crash between": // the states are there, the offsets are not: at-least-once
				topic = produced
			}
			a = start()
			restored := topic.states(t)
			if len(restored) > 0 {
				for _, state := range rapid.Permutation(restored).Draw(t, "restore order") {
					require.NoError(t, a.Restore(state))
				}
			}
		}
		recount := start()
		for i := range times { // one transaction an event
			show(recount, i, i+1)
			recount.Commit()
		}
		want := stateTopic{}
		require.NoError(t, recount.Committed(want.put))
		require.Equal(t, want.events(t), topic.events(t))
		for i, state := range topic.states(t) {
			expected := want.states(t)[i]
			require.Equal(t, expected.Counts, state.Counts)
			require.Equal(t, expected.Groups, state.Groups)
			require.Equal(t, expected.NextOffset, state.NextOffset)
			for m, moment := range expected.Moments { // of which sums are rounded in another order
				require.True(t, moment == state.Moments[m] || math.Abs(moment-state.Moments[m]) <= 1e-9*math.Abs(moment))
			}
		}
	})
}

func TestPartitionStaysSmall(t *testing.T) {
	a, _, _ := newAccumulator(t, minutes)
	require.Less(t, a.Size(), 300<<10)
}

// TestWhatOtherModelsCountedIsDeletedOnceNoWindowCanHoldIt: not before, since a worker with that model may own the
// partition again.
func TestWhatOtherModelsCountedIsDeletedOnceNoWindowCanHoldIt(t *testing.T) {
	const day = 1440 * minute
	a, _, _ := newAccumulator(t, minutes)
	foreign := func(digest string, width int32, start int64) string {
		state := &schemas.DriftState{ModelDigest: digest, Topic: a.source.Topic, Partition: a.source.Partition, BucketWidth: width, BucketStart: start}
		require.NoError(t, a.Restore(state))
		return string(state.AppendKey(nil))
	}
	first := foreign("old", 60, 0)
	second := foreign("older", 86400, day)
	own := foreign(a.source.ModelDigest, 30, 0) // of another width: 4 days
	gone := foreign("old", 3600, 0)
	a.Deleted([]byte(gone))
	elsewhere := &schemas.DriftState{ModelDigest: "old", Topic: a.source.Topic, Partition: a.source.Partition + 1, BucketWidth: 60}
	require.NoError(t, a.Restore(elsewhere))

	offset := int64(0)
	deleted := func(at int64) (keys []string) {
		t.Helper()
		observe(a, offset, 1, at)
		offset++
		require.NoError(t, a.States(func(key []byte, state *schemas.DriftState) error {
			if ours := strings.HasPrefix(string(key), a.source.ModelDigest+"/"); state == nil && (!ours || string(key) == own) {
				keys = append(keys, string(key))
			}
			return nil
		}))
		slices.Sort(keys)
		return keys
	}
	require.Empty(t, deleted(4*day-minute))
	a.Commit()
	require.Equal(t, []string{own}, deleted(4*day))
	a.Commit()
	require.Empty(t, deleted(8*day-minute))
	a.Commit()
	require.Equal(t, []string{first}, deleted(8*day))
	a.Discard()
	require.Equal(t, []string{first}, deleted(8*day), "the transaction was aborted")
	a.Commit()
	require.Empty(t, deleted(8*day+minute), "it is deleted")
	a.Commit()
	require.Equal(t, []string{second}, deleted(9*day))
	a.Commit()
	require.Empty(t, a.others)
}
