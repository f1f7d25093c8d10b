package worker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/churnstream/churnstream/internal/testkit"
)

// errHangUp makes the embedded broker close the connection instead of answering.
var errHangUp = errors.New("hang up")

// TestAbortedTransactionsDoubleNothing makes every step of a commit fail once in every way that a broker may, and wants
// each event once in the scores, the statistics and the counters.
func TestAbortedTransactionsDoubleNothing(t *testing.T) {
	const hangUp, unknown, outOfOrder, invalidEpoch, invalidState, concurrent, abortable, coordinatorAway = -2, -1, 45, 47, 48, 51, 120, 15
	const illegalGeneration, rebalance, notLeader, fenced = 22, 27, 6, 90
	faults := map[kmsg.Key][]int16{
		kmsg.InitProducerID:     {hangUp, concurrent, coordinatorAway},
		kmsg.AddPartitionsToTxn: {hangUp, concurrent, invalidEpoch, abortable},
		kmsg.AddOffsetsToTxn:    {hangUp, coordinatorAway, invalidState},
		kmsg.Produce:            {hangUp, unknown, notLeader, outOfOrder, invalidEpoch, invalidState, abortable},
		kmsg.TxnOffsetCommit:    {hangUp, unknown, coordinatorAway, illegalGeneration, rebalance, invalidEpoch, abortable},
		kmsg.EndTxn:             {hangUp, unknown, concurrent, coordinatorAway, invalidState, invalidEpoch, fenced},
	}
	for _, transactions := range []string{"worker", "partition"} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("a transaction a %s, protocol %d", transactions, version), func(t *testing.T) {
				broker := testkit.Embedded(t)
				e := newEnvironment(t, broker.Addrs(), partitions{events: 2, scores: 2, states: 1})
				e.cfg.Produce.Transactions = transactions
				w := e.start(nil, func(w *Worker) {
					w.producing.TransactionVersion = version % 2 // 0: what the broker has finalised
					var err error
					if w.shared, err = newShared(w.cfg, w.producing, w.client, w.transactionalID); err != nil {
						t.Fatal(err)
					}
				}).ready(2)
				for key, codes := range faults {
					for _, code := range codes {
						if version == 2 && (key == kmsg.AddPartitionsToTxn || key == kmsg.AddOffsetsToTxn) {
							continue
						}
						injected := inject(broker.Cluster(), key, code, e.cfg.Group.ID)
						if key == kmsg.InitProducerID { // which is asked for again after this only
							inject(broker.Cluster(), kmsg.EndTxn, fenced, e.cfg.Group.ID)
						}
						e.feed(20)
						e.drained()
						if injected.Load() == 0 {
							t.Errorf("%s was never answered with %d: this proves nothing", key.Name(), code)
						}
					}
				}
				if got := w.value("churnstream_scores_total"); got != float64(len(e.sent)) {
					t.Errorf("%v scores counted for %d events", got, len(e.sent))
				}
				places := float64(len(e.profile.Features)) // each event is in one place of each feature
				if got := w.value("churnstream_feature_bin_events_total"); got != places*float64(len(e.sent)) {
					t.Errorf("%v places counted, want %d events in %v features", got, len(e.sent), places)
				}
				w.end()
				e.checkScores(false)
				e.checkCounts()
			})
		}
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
