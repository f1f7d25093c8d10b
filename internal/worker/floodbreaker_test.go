package worker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/churnstream/churnstream/internal/config"
	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/schemas"
)

// TestBreakerJudgesTheLastRecords compares the ring with a list of all records, with batches that are given up between.
func TestBreakerJudgesTheLastRecords(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		size := 100 + random.IntN(300)
		b := newBreaker(config.DeadLetters{FloodWindow: size, FloodShare: 0.5})
		var all, kept []bool
		for range 400 {
			n := 1 + random.IntN(2*chunkRows)
			bad := 0
			if random.IntN(3) > 0 {
				bad = random.IntN(n + 1)
			}
			for i := range n {
				all = append(all, i < bad)
			}
			want := 0
			for _, isBad := range all[max(0, len(all)-size):] {
				if isBad {
					want++
				}
			}
			if ok := b.add(n, bad, 1); ok != (want <= size/2) || b.now.bad != want {
				t.Fatalf("window of %d after %d records: %d bad, passes %v, want %d bad", size, len(all), b.now.bad, ok, want)
			}
			if random.IntN(2) == 0 {
				b.keep()
				kept = append(kept[:0], all...)
			} else {
				b.undo()
				all = append(all[:0], kept...)
			}
		}
	}
}

func TestBreakerThatIsOffNeverTrips(t *testing.T) {
	b := newBreaker(config.DeadLetters{FloodShare: 0.5})
	for range 100 {
		if !b.add(chunkRows, chunkRows, 1) {
			t.Fatal("it trips")
		}
	}
}

// flood is a number of events of a schema that the registry does not know yet.
type flood struct {
	*environment
	id int32
}

// flood publishes n such events among which every second is good where mixed says so.
func (e *environment) flood(n int) *flood {
	e.t.Helper()
	f := &flood{environment: e}
	e.base = min(e.base, time.Now().Add(-time.Hour).UnixMilli()) // so many events would be of the future
	registry := e.registry.client(e.t)
	id, err := registry.Register(e.t.Context(), "marker-value", `{"type":"record","name":"Marker","fields":[]}`)
	if err != nil {
		e.t.Fatal(err)
	}
	f.id = id + 1
	known := e.schemaID
	e.schemaID = f.id
	e.feed(n)
	e.schemaID = known
	return f
}

// end makes the schema known.
func (f *flood) end() {
	f.t.Helper()
	schema, err := f.model.Contract().AvroSchema()
	if err != nil {
		f.t.Fatal(err)
	}
	named := strings.Replace(schema, `"type":"record"`, `"type":"record","doc":"of another version"`, 1)
	id, err := f.registry.client(f.t).Register(f.t.Context(), "other-value", named)
	if err != nil || id != f.id {
		f.t.Fatalf("the schema got id %d, want %d: %v", id, f.id, err)
	}
}

// markBad notes that the events that came out as dead letters are bad.
func (e *environment) markBad() (marked int) {
	e.t.Helper()
	dead := map[string]bool{}
	for _, r := range e.read(e.cfg.Topics.DeadLetters) {
		var partition, offset string
		for _, h := range r.Headers {
			switch h.Key {
			case schemas.HeaderPartition:
				partition = string(h.Value)
			case schemas.HeaderOffset:
				offset = string(h.Value)
			}
		}
		dead[partition+"@"+offset] = true
	}
	for i := range e.sent {
		if s := &e.sent[i]; dead[fmt.Sprintf("%d@%d", s.partition, s.offset)] {
			s.bad = true
			marked++
		}
	}
	return marked
}

func TestAFloodStopsThePartitionAndItGoesOnByItself(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 2, scores: 2, states: 1})
		d.set(&e.cfg)
		e.cfg.Fetch.MaxPartitionBytes = 16 << 10 // batches are smaller than the window
		w := e.start(nil, quickLooks).ready(2)
		e.feed(300)
		e.drained()
		f := e.flood(5000)
		testkit.Eventually(t, patience, func() bool { return w.value("churnstream_floods_total") == 2 }, "both partitions stop")
		status := w.Ready()
		if reasons := strings.Join(status.Reasons, "\n"); status.OK || len(status.Reasons) != 2 || !strings.Contains(reasons, "flood of bad records") || !strings.Contains(reasons, "unknown_schema") {
			t.Errorf("readiness does not tell of the flood: %+v", status)
		}
		if live := w.Live(); !live.OK {
			t.Errorf("a flood asks for a restart: %v", live.Reasons)
		}
		if got := w.value("churnstream_partition_waiting_seconds"); got <= 0 {
			t.Errorf("waiting for %v s", got)
		}
		testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), `"look":3`) }, "it looks again and again")
		if got := w.value("churnstream_dead_letters_total"); got > 2*1000 { // none where one unit of work holds half a window
			t.Errorf("%v dead letters of two partitions, want at most 1000 each", got)
		}
		lag := int64(0)
		for _, p := range e.partitionsEnds() {
			lag += p
		}
		if got, want := w.value("churnstream_consumer_lag_records"), float64(lag-e.committed()); got != want {
			t.Errorf("a lag of %v while held, want %v", got, want)
		}
		f.end()
		e.drained()
		w.ready(2)
		e.feed(100)
		e.drained()
		w.end()
		if n := e.markBad(); n > 2*1000 {
			t.Errorf("%d dead letters", n)
		}
		e.checkScores(d.repeats())
		e.checkCounts()
		if log := w.log.String(); !strings.Contains(log, "the flood is over") {
			t.Error("the end of the flood is not told")
		}
	})
}

func (e *environment) partitionsEnds() (ends []int64) {
	for p := range e.partitionsOf(e.cfg.Topics.Events) {
		ends = append(ends, e.endOf(e.cfg.Topics.Events, p, 0))
	}
	return ends
}

func quickLooks(w *Worker) { w.floodLook = 20 * time.Millisecond }

// TestAFloodThatWasFollowedByGoodEventsIsPassed: the producer has mended itself; of what it left behind less than half of a window is bad.
func TestAFloodThatWasFollowedByGoodEventsIsPassed(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil, quickLooks).ready(1)
	e.feed(10)
	e.drained()
	e.flood(400) // no flood yet
	e.drained()
	e.flood(300)
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_floods_total") == 1 }, "the partition stops")
	e.feed(800)
	e.drained()
	w.end()
	if n := e.markBad(); n != 700 {
		t.Errorf("%d dead letters, want all 700", n)
	}
	e.checkScores(false)
	e.checkCounts()
}

func TestAnOperatorAcceptsAFlood(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil, quickLooks).ready(1)
	e.flood(3000)
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_floods_total") == 1 }, "the partition stops")
	if got := w.AcceptFlood("elsewhere/0"); len(got) != 0 {
		t.Errorf("accepted %v of another topic", got)
	}
	testkit.Eventually(t, patience, func() bool { return len(w.AcceptFlood("")) == 1 }, "there is one to accept")
	e.drained()
	e.feed(10)
	e.drained()
	w.end()
	if n := e.markBad(); n != 3000 {
		t.Errorf("%d dead letters, want all 3000", n)
	}
	e.checkScores(false)
}

func TestAHeldPartitionIsGivenBackAtOnce(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil).ready(1)
	e.flood(3000)
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_floods_total") == 1 }, "the partition stops")
	began := time.Now()
	w.end()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the drain took %v", took)
	}
}

// TestAForeignOpenTransactionIsSaid: a producer leaves its transaction open; behind it nothing can be read, and the lag
// of readable records is 0.
func TestAForeignOpenTransactionIsSaid(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil, func(w *Worker) { w.quietWait = 20 * time.Millisecond }).ready(1)
	e.feed(10)
	e.drained()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.TransactionalID(testkit.Name(t, "feed")),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	v := randomEvent(e.random, 1)
	v.time = e.base
	r := e.record(v, 0)
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	e.sent = append(e.sent, sentEvent{event: v, offset: r.Offset})
	e.feed(5) // behind it
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_partition_held_records") == 6 }, "six records are held back: %v", shown(func() any { return w.value("churnstream_partition_held_records") }))
	testkit.Eventually(t, patience, func() bool {
		return strings.Contains(w.log.String(), "a producer's transaction is open since") && strings.Contains(w.log.String(), "kafka-transactions.sh --bootstrap-server")
	}, "the log says so")
	if got := w.value("churnstream_partition_waiting_seconds"); got <= 0 || got > patience.Seconds() {
		t.Errorf("waiting for %v s", got)
	}
	if got := w.value("churnstream_consumer_lag_records"); got != 0 {
		t.Errorf("a lag of %v readable records", got)
	}
	if status := w.Ready(); !status.OK {
		t.Errorf("somebody else's transaction makes the worker unready: %v", status.Reasons)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	e.drained()
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_partition_waiting_seconds") == -1 }, "nothing is waited for")
	testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), "the partition goes on") }, "the log says that it is over")
	w.end()
	e.checkScores(false)
}

// TestAFloodBehindGoodRecordsStopsThePartition: the first window of the unit in hand is good.
func TestAFloodBehindGoodRecordsStopsThePartition(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	e.start(nil).ready(1).end() // registers its schemas
	e.feed(2500)
	f := e.flood(1500)
	w := e.start(nil, quickLooks)
	testkit.Eventually(t, patience, func() bool { return w.value("churnstream_floods_total") == 1 }, "the partition stops")
	testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), `"look":5`) }, "it is looked at again and again")
	if floods := w.value("churnstream_floods_total"); floods != 1 {
		t.Errorf("the flood was over and began again: %v floods", floods)
	}
	if dead := w.value("churnstream_dead_letters_total"); dead != 0 {
		t.Errorf("%v dead letters while the partition is held", dead)
	}
	f.end()
	e.drained()
	w.end()
	e.checkScores(false)
}

// TestAnAcceptanceThatComesTooLateIsNoneOfTheNextFlood: an operator has accepted what was over already.
func TestAnAcceptanceThatComesTooLateIsNoneOfTheNextFlood(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	w := e.start(nil, quickLooks).ready(1)
	w.mu.Lock()
	for _, owned := range w.tasks {
		owned.task.accept <- struct{}{}
	}
	w.mu.Unlock()
	f := e.flood(1500)
	testkit.Eventually(t, patience, func() bool { return strings.Contains(w.log.String(), `"look":3`) }, "the flood is held")
	if dead := w.value("churnstream_dead_letters_total"); dead != 0 {
		t.Errorf("%v dead letters of a flood that nobody has accepted", dead)
	}
	f.end()
	e.drained()
	w.end()
	e.checkScores(false)
}
