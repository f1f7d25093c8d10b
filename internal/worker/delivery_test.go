package worker

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/testkit"
	"github.com/churnstream/churnstream/producer"
	"github.com/churnstream/churnstream/schemas"
)

func TestEveryEventIsScoredOnceWithItsFields(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 3, scores: 4, states: 2})
		d.set(&e.cfg)
		e.feed(600) // more than a chunk in each partition
		e.feedBad("bad", []byte("no event"))
		w := e.start(nil).ready(3)
		e.feed(200)
		e.drained()
		w.end()
		e.checkScores(false)
		e.checkCounts()
	})
}

// TestNothingIsLostWhenWorkersComeGoAndDie takes the statistics of three partitions through one partition of the state
// topic, so that the transactions of several workers lie between each other there.
func TestNothingIsLostWhenWorkersComeGoAndDie(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 3, scores: 2, states: 1})
		d.set(&e.cfg)
		e.cfg.Fetch.MaxPartitionBytes = 16 << 10 // small batches
		workers := []*running{e.start(nil).ready(3)}
		choose := rand.New(rand.NewPCG(5, 8))
		remove := func() (w *running) {
			i := choose.IntN(len(workers))
			w, workers[i] = workers[i], workers[len(workers)-1]
			workers = workers[:len(workers)-1]
			return w
		}
		for _, what := range []string{"join", "join", "crash", "crash", "join", "leave", "join", "crash"} {
			e.feed(200) // which are being processed during what follows
			switch what {
			case "join":
				w := e.start(nil)
				testkit.Eventually(t, patience, func() bool { return len(w.states()) > 0 }, "the new worker owns a partition")
				workers = append(workers, w)
			case "leave":
				remove().end()
			case "crash":
				remove().crash()
			}
		}
		e.feed(200)
		e.drained()
		for _, w := range workers {
			w.end()
		}
		e.checkScores(d.repeats())
		e.checkCounts()
	})
}

// TestWhatProducersTookBackMovesTheOffset: batches of markers alone, or of an aborted transaction, hold no records.
func TestWhatProducersTookBackMovesTheOffset(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
		d.set(&e.cfg)
		w := e.start(nil).ready(1)
		client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.TransactionalID(testkit.Name(t, "feed")),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for i, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			v := randomEvent(e.random, i)
			v.time = e.base
			r := e.record(v, 0)
			if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := client.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			if end == kgo.TryCommit {
				e.sent = append(e.sent, sentEvent{event: v, offset: r.Offset})
			}
			e.drained()
		}
		e.feed(10)
		e.drained()
		w.end() // what is committed is counted a moment later
		if got := w.value("churnstream_events_total"); got != 11 {
			t.Errorf("%v events, want the 11 that were not taken back", got)
		}
		e.checkScores(false)
	})
}

// TestARecordTooLargeForADeadLetterDoesNotStopTheStream: it could be set aside without its bytes only.
func TestARecordTooLargeForADeadLetterDoesNotStopTheStream(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	e.cfg.Produce.MaxBatchBytes = 32 << 10
	w := e.start(nil)
	e.feed(1)
	e.feedBad("customer", bytes.Repeat([]byte("x"), 40<<10))
	long := randomEvent(e.random, 1)
	long.key, long.time = strings.Repeat("k", 20<<10), e.base // in a score it stands twice
	e.publish([]event{long}, []*kgo.Record{e.record(long, 0)})
	e.sent[len(e.sent)-1].bad = true
	e.feed(1)
	e.drained()
	w.end()
	e.checkScores(false)
	dead := e.read(e.cfg.Topics.DeadLetters)
	if len(dead) != 2 {
		t.Fatalf("%d dead letters, want 2", len(dead))
	}
	text := func(r *kgo.Record, name string) string {
		for _, h := range r.Headers {
			if h.Key == name {
				return string(h.Value)
			}
		}
		return "absent"
	}
	if r := dead[0]; r.Key != nil || r.Value != nil || !strings.Contains(text(r, schemas.HeaderError), "left out") || text(r, schemas.HeaderClass) != string(schemas.BadMagic) {
		t.Errorf("dead letter of a large record: key %.20q, value %.20q, error %q", r.Key, r.Value, text(r, schemas.HeaderError))
	}
	if r := dead[1]; string(r.Key) != long.key || text(r, schemas.HeaderClass) != string(schemas.OutOfRange) {
		t.Errorf("dead letter of a long key: key %.20q, class %s", r.Key, text(r, schemas.HeaderClass))
	}
}

// TestCountsAreRestoredBehindAnOpenTransaction: what somebody else has open in the state topic hides the states
// committed behind it from a read_committed reader. Counts restored without them would be too low for good.
func TestCountsAreRestoredBehindAnOpenTransaction(t *testing.T) {
	e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
	first := e.start(nil).ready(1)
	other, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...), kgo.TransactionalID(testkit.Name(t, "other")), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := other.ProduceSync(t.Context(), &kgo.Record{Topic: e.cfg.Topics.DriftState, Key: []byte("x"), Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	e.feed(50)
	e.drained()
	first.end()
	second := e.start(nil, func(w *Worker) { w.quietWait = 20 * time.Millisecond })
	testkit.Eventually(t, patience, func() bool {
		status := second.Ready()
		return !status.OK && strings.Contains(strings.Join(status.Reasons, " "), "is starting")
	}, "the second worker is starting")
	testkit.Eventually(t, patience, func() bool {
		return strings.Contains(second.log.String(), "abort --topic "+e.cfg.Topics.DriftState+" --partition 0 --start-offset")
	}, "the log has the command that ends the transaction")
	e.feed(50)
	if err := other.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	e.drained()
	second.end()
	e.checkScores(false)
	e.checkCounts()
}

// TestACommitGoesOnWhileTheGroupSettles: between JoinGroup and SyncGroup the coordinator refuses a commit although its
// generation is the newest there will be.
func TestACommitGoesOnWhileTheGroupSettles(t *testing.T) {
	const rebalanceInProgress = 27
	deliveries(t, func(t *testing.T, d delivery) {
		broker := testkit.Embedded(t)
		e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
		d.set(&e.cfg)
		w := e.start(nil).ready(1)
		for range 2 {
			broker.Cluster().ControlKey(int16(kmsg.OffsetCommit), refuseCommit(rebalanceInProgress))
			broker.Cluster().ControlKey(int16(kmsg.TxnOffsetCommit), refuseCommit(rebalanceInProgress))
		}
		started := time.Now()
		e.feed(10)
		e.drained()
		if took := time.Since(started); took > e.cfg.Group.SessionTimeout.Std()/2 {
			t.Errorf("the commit took %v", took)
		}
		if got := w.value("churnstream_partition_restarts_total"); got != 0 {
			t.Errorf("%v restarts, want the same unit to go on", got)
		}
		w.end()
		e.checkScores(false)
	})
}

func TestAFencedProducerWhosePartitionIsStillOursBeginsAgain(t *testing.T) {
	for _, transactions := range []string{"worker", "partition"} {
		t.Run(transactions, func(t *testing.T) {
			e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
			e.cfg.Produce.Transactions = transactions
			e.cfg.Group.InstanceID = "worker-1" // gives the common transactional id a name that the test knows
			w := e.start(nil).ready(1)
			e.feed(10)
			e.drained()
			id := e.cfg.Group.ID + "-" + map[string]string{"worker": "worker-" + e.cfg.Group.InstanceID, "partition": e.cfg.Topics.Events + "-0"}[transactions]
			zombie, err := producer.NewTransactional(w.producing, w.client, id)
			if err != nil {
				t.Fatal(err)
			}
			defer zombie.Close()
			if err := zombie.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			e.feed(10)
			e.drained()
			if got := w.value("churnstream_partition_restarts_total"); got < 1 {
				t.Error("the worker was not fenced, this proves nothing")
			}
			w.end()
			e.checkScores(false)
			e.checkCounts()
		})
	}
}
