package worker

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/testkit"
)

// transactionFaults are the ways in which a broker may fail a request of a transaction, by what they mean for the worker:
// the answer never comes, ask again, ask elsewhere, the group has moved on, abort, somebody else owns the id, give up.
var transactionFaults = []struct {
	key   kmsg.Key
	codes []int16
}{
	{kmsg.InitProducerID, []int16{hangUp, silence, concurrent, notCoordinator, txnIDNotAuthorized}},
	{kmsg.AddPartitionsToTxn, []int16{hangUp, silence, concurrent, notCoordinator, abortable, invalidEpoch, topicNotAuthorized}},
	{kmsg.AddOffsetsToTxn, []int16{hangUp, silence, concurrent, notCoordinator, invalidState, fenced, groupNotAuthorized}},
	{kmsg.Produce, []int16{hangUp, silence, afterAppend, notLeader, outOfOrder, abortable, unknownServer, invalidEpoch, topicNotAuthorized}},
	{kmsg.TxnOffsetCommit, []int16{hangUp, silence, loading, notCoordinator, illegalGeneration, rebalance, unknownServer, abortable, invalidEpoch, groupNotAuthorized}},
	{kmsg.EndTxn, []int16{hangUp, silence, concurrent, notCoordinator, invalidState, unknownServer, abortable, fenced, txnIDNotAuthorized}},
}

// Codes of Kafka.
const (
	unknownServer      int16 = -1
	notLeader          int16 = 6
	loading            int16 = 14
	notCoordinator     int16 = 16
	afterAppend        int16 = 20
	illegalGeneration  int16 = 22
	rebalance          int16 = 27
	topicNotAuthorized int16 = 29
	groupNotAuthorized int16 = 30
	outOfOrder         int16 = 45
	invalidEpoch       int16 = 47
	invalidState       int16 = 48
	concurrent         int16 = 51
	txnIDNotAuthorized int16 = 53
	fenced             int16 = 90
	abortable          int16 = 120
)

// ends says whether a worker gives up on a code.
func ends(code int16) bool {
	return code == topicNotAuthorized || code == groupNotAuthorized || code == txnIDNotAuthorized
}

// TestEveryStepOfATransactionMayFailInEveryWay lets each request of a transaction fail once in each class of failure,
// before the broker has done what it asks for and after, and wants each event once in the scores, the statistics and the
// counters of a worker. A worker that ends is followed by another. Of the four ways to end a transaction two are gone
// through; with CHURNSTREAM_TEST_FAULTS=all all are.
func TestEveryStepOfATransactionMayFailInEveryWay(t *testing.T) {
	type way struct {
		transactions string
		version      int
	}
	ways := []way{{"worker", 2}, {"partition", 1}}
	if os.Getenv("CHURNSTREAM_TEST_FAULTS") == "all" {
		ways = append(ways, way{"worker", 1}, way{"partition", 2})
	}
	for _, way := range ways {
		t.Run(fmt.Sprintf("a transaction a %s, protocol %d", way.transactions, way.version), func(t *testing.T) {
			t.Parallel()
			e := newEnvironment(t, testkit.Embedded(t).Addrs(), partitions{events: 2, scores: 2, states: 1})
			e.cfg.Produce.Transactions = way.transactions
			e.tap = &tap{group: e.cfg.Group.ID}
			start := func() *running {
				return e.start(nil, func(w *Worker) {
					w.producing.TransactionVersion = way.version % 2 // 0: what the broker has finalised
					w.producing.RequestTimeout = 300 * time.Millisecond
					var err error
					if w.shared, err = newShared(w.cfg, w.producing, w.client, w.transactionalID); err != nil {
						t.Fatal(err)
					}
				}).ready(2)
			}
			w, scores, places := start(), 0.0, 0.0
			count := func() {
				scores += w.value("churnstream_scores_total")
				places += w.value("churnstream_feature_bin_events_total")
			}
			for _, f := range transactionFaults {
				if way.version == 2 && (f.key == kmsg.AddPartitionsToTxn || f.key == kmsg.AddOffsetsToTxn) {
					continue // there is no such request
				}
				for _, code := range f.codes {
					for _, applied := range []bool{false, true} {
						fault := e.tap.next(f.key, applied, code)
						if f.key == kmsg.InitProducerID { // which is asked for again after this only
							e.tap.next(kmsg.EndTxn, false, fenced)
						}
						e.feed(20)
						if ends(code) {
							w.ended = true
							if err := <-w.returned; err == nil {
								t.Errorf("%s is answered with %d (done: %v): the worker ended well", f.key.Name(), code, applied)
							}
							count()
							w = start()
						}
						e.drained()
						// The worker may hear of it after everybody else.
						testkit.Eventually(t, patience, fault.happened.Load, "%s is answered with %d (done: %v): else this proves nothing", f.key.Name(), code, applied)
					}
				}
			}
			count()
			// What was committed and is answered like a failure stays uncounted; nothing is counted that was rolled back.
			if scores == 0 || scores > float64(len(e.sent)) || places != scores*float64(len(e.profile.Features)) {
				t.Errorf("%v scores in %v places counted for %d events in %d features", scores, places, len(e.sent), len(e.profile.Features))
			}
			w.end()
			e.checkScores(false)
			e.checkCounts()
		})
	}
}

// TestAnAnswerThatIsLostIsNotTakenForAFailure: the broker has done what was asked for, but nobody hears of it.
func TestAnAnswerThatIsLostIsNotTakenForAFailure(t *testing.T) {
	deliveries(t, func(t *testing.T, d delivery) {
		e := newEnvironment(t, testkit.Brokers(t), partitions{events: 1, scores: 1, states: 1})
		d.set(&e.cfg)
		w := e.start(nil).ready(1)
		for range 10 {
			e.feed(50)
			w.wire.hangUp() // whatever is under way
			e.feed(50)
		}
		e.drained()
		w.end()
		e.checkScores(d.repeats())
		e.checkCounts()
	})
}

// TestALostPartitionPublishesNothingMore: between its last commit and Lost the task had a batch in hand that the group
// did not accept any more.
func TestALostPartitionPublishesNothingMore(t *testing.T) {
	for _, transactions := range []string{"worker", "partition"} {
		t.Run(transactions, func(t *testing.T) {
			broker := testkit.Embedded(t)
			e := newEnvironment(t, broker.Addrs(), partitions{events: 1, scores: 1, states: 1})
			e.cfg.Produce.Transactions = transactions
			w := e.start(nil).ready(1)
			e.feed(10)
			e.drained()
			var refused atomic.Int64
			stop := make(chan struct{})
			broker.Cluster().ControlKey(int16(kmsg.TxnOffsetCommit), func(request kmsg.Request) (kmsg.Response, error, bool) {
				select {
				case <-stop:
					broker.Cluster().DropControl()
					return nil, nil, false
				default:
				}
				broker.Cluster().KeepControl()
				refused.Add(1)
				return refusal(request, 25), nil, true // UNKNOWN_MEMBER_ID
			})
			e.feed(10)
			testkit.Eventually(t, patience, func() bool { return refused.Load() > 0 }, "a commit is refused")
			lost := w.owned()
			started := time.Now()
			w.Lost(lost)
			if took := time.Since(started); took > 2*time.Second {
				t.Errorf("a task that is to be abandoned took %v to end", took)
			}
			if got := w.value("churnstream_owned_partitions"); got != 0 {
				t.Errorf("%v owned partitions after the loss", got)
			}
			close(stop)
			e.feed(10) // nobody's
			if got := len(e.scores()); got != 10 {
				t.Errorf("%d scores are visible, want the 10 from before the loss", got)
			}
			w.Assigned(lost)
			e.drained()
			w.end()
			e.checkScores(false)
			e.checkCounts()
		})
	}
}
